//! redis-cli: commands by hand, following MOVED with `-c`, and its own check of a cluster.

use std::process::Command;
use std::time::Duration;

use super::{NODES, cluster, node_addrs};
use crate::common::tool::{require, run};

const INSTALL: &str = "apt-get install redis-tools";
const LIMIT: Duration = Duration::from_secs(60);

fn redis_cli(addr: &str, args: &[&str]) -> String {
    let (host, port) = addr.rsplit_once(':').expect("host:port");
    let mut command = Command::new(require("redis-cli", INSTALL));
    command.args(["-h", host, "-p", port]).args(args);
    let finished = run(&mut command, LIMIT).expect_success("redis-cli");
    finished.stdout.trim_end().to_owned()
}

#[test]
fn follows_the_cluster_with_c() {
    let cluster = cluster();
    let addrs = node_addrs(&cluster);
    // More keys than nodes, each asked for at every node: most must be found elsewhere.
    for i in 0..8 {
        let (key, value) = (format!("cli:{i}"), format!("value {i}"));
        assert_eq!(redis_cli(&addrs[0], &["-c", "set", &key, &value]), "OK");
        for addr in &addrs {
            assert_eq!(redis_cli(addr, &["-c", "get", &key]), value);
        }
        assert_eq!(redis_cli(&addrs[1], &["-c", "del", &key]), "1");
        assert_eq!(redis_cli(&addrs[2], &["-c", "exists", &key]), "0");
    }
    assert_eq!(redis_cli(&addrs[0], &["-c", "set", "cli:ttl", "x", "EX", "100"]), "OK");
    let ttl: i64 = redis_cli(&addrs[0], &["-c", "ttl", "cli:ttl"]).parse().expect("a number of seconds");
    assert!((1..=100).contains(&ttl), "TTL {ttl}");
}

#[test]
fn is_told_moved_without_c() {
    let cluster = cluster();
    let addrs = node_addrs(&cluster);
    let slot = redis_cli(&addrs[0], &["cluster", "keyslot", "cli:moved"]);
    let answers: Vec<String> = addrs.iter().map(|a| redis_cli(a, &["set", "cli:moved", "x"])).collect();
    let holders: Vec<&String> = addrs.iter().zip(&answers).filter(|(_, a)| *a == "OK").map(|(addr, _)| addr).collect();
    assert_eq!(holders.len(), 1, "one primary takes the write: {answers:?}");
    let moved = format!("MOVED {slot} {}", holders[0]);
    assert_eq!(answers.iter().filter(|a| **a == moved).count(), usize::from(NODES) - 1, "{answers:?}, not {moved:?}");
}

#[test]
fn finds_the_cluster_in_order() {
    let cluster = cluster();
    let addrs = node_addrs(&cluster);
    let info = redis_cli(&addrs[0], &["cluster", "info"]);
    for line in ["cluster_state:ok", "cluster_slots_assigned:16384", "cluster_slots_ok:16384", "cluster_size:3"] {
        assert!(info.lines().any(|l| l == line), "no {line} in\n{info}");
    }
    let check = redis_cli(&addrs[0], &["--cluster", "check", &addrs[0]]);
    assert!(check.contains("[OK] All nodes agree about slots configuration."), "{check}");
    assert!(check.contains("[OK] All 16384 slots covered."), "{check}");
}
