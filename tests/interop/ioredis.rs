//! ioredis's Cluster; what it does is in `ioredis.cjs`.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::{NODES, cluster, libraries, node_addrs, script};
use crate::common::tool::{require, run};

const LIMIT: Duration = Duration::from_secs(300);

/// A `node_modules` that holds ioredis: the one that CACHECTL_NODE_MODULES names, else one under target/, filled once.
fn node_modules() -> PathBuf {
    if let Some(given) = std::env::var_os("CACHECTL_NODE_MODULES") {
        let given = PathBuf::from(given);
        assert!(given.join("ioredis").is_dir(), "CACHECTL_NODE_MODULES is {}, without ioredis in it", given.display());
        return given;
    }
    let prefix = libraries().join("node");
    let modules = prefix.join("node_modules");
    if !modules.join("ioredis").is_dir() {
        std::fs::create_dir_all(&prefix).expect("a directory under target/");
        let mut npm = Command::new(require("npm", "apt-get install npm"));
        npm.args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"]).arg(&prefix).arg("ioredis@5");
        run(&mut npm, LIMIT)
            .expect_success("fetching ioredis (by hand: npm install ioredis, then set CACHECTL_NODE_MODULES)");
    }
    modules
}

#[test]
fn reads_and_writes_through_its_cluster() {
    let node = require("node", "apt-get install nodejs");
    let modules = node_modules();
    let cluster = cluster();
    let mut command = Command::new(node);
    command.arg(script("ioredis.cjs")).arg(modules).arg(NODES.to_string()).args(node_addrs(&cluster));
    let finished = run(&mut command, LIMIT).expect_success("ioredis.cjs");
    assert_eq!(finished.stdout.lines().last(), Some("all good"), "{}", finished.stdout);
}
