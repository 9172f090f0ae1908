//! redis-py's RedisCluster; what it does is in `redis_py.py`.

use std::process::Command;
use std::time::Duration;

use super::{NODES, libraries, node_addrs, script};
use crate::common::Cluster;
use crate::common::tool::{require, run};

const LIMIT: Duration = Duration::from_secs(300);

/// Python with redis-py importable, which is fetched once if the machine lacks it.
fn python() -> Command {
    let program = require("python3", "apt-get install python3 python3-pip");
    let target = libraries().join("python");
    let command = || {
        let mut command = Command::new(&program);
        let given = std::env::var_os("PYTHONPATH").unwrap_or_default();
        let path = std::iter::once(target.clone()).chain(std::env::split_paths(&given));
        command.env("PYTHONPATH", std::env::join_paths(path).expect("paths without colons"));
        command
    };
    let importable = run(command().args(["-c", "import redis.cluster"]), LIMIT).status.success();
    if !importable {
        let mut pip = command();
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"]);
        run(pip.arg(&target).arg("redis>=5,<9"), LIMIT)
            .expect_success("fetching redis-py (by hand: python3 -m pip install redis)");
    }
    command()
}

#[test]
fn sees_every_primary_and_every_key() {
    // Its own cluster: it counts all keys.
    let cluster = Cluster::up(&[]);
    let mut command = python();
    command.arg(script("redis_py.py")).arg(NODES.to_string()).args(node_addrs(&cluster));
    let finished = run(&mut command, LIMIT).expect_success("redis_py.py");
    assert_eq!(finished.stdout.lines().last(), Some("all good"), "{}", finished.stdout);
}
