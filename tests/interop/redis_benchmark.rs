//! redis-benchmark in cluster mode, with and without pipelining: every request answered, none with an error.

use std::process::Command;
use std::time::Duration;

use super::{NODES, cluster};
use crate::common::tool::{require, run};

const INSTALL: &str = "apt-get install redis-tools";
/// It ends in seconds; only a hang takes this long.
const LIMIT: Duration = Duration::from_secs(300);

fn benchmark(pipeline: &str) {
    let cluster = cluster();
    let addr = cluster.node_addr(1);
    let mut command = Command::new(require("redis-benchmark", INSTALL));
    command.args(["-h", &addr.ip().to_string(), "-p", &addr.port().to_string()]);
    command.args(["--cluster", "-t", "set,get", "-n", "20000", "-c", "20", "-r", "1000", "-P", pipeline, "-q"]);
    let finished = run(&mut command, LIMIT).expect_success("redis-benchmark");
    let said = format!("{}{}", finished.stdout, finished.stderr);
    assert!(said.contains(&format!("Cluster has {NODES} master nodes")), "{said}");
    for test in ["SET", "GET"] {
        let rate = said
            .split(['\r', '\n'])
            .filter_map(|l| l.strip_prefix(test)?.strip_prefix(": ")?.split_once(" requests per second"))
            .find_map(|(rate, _)| rate.parse::<f64>().ok());
        assert!(rate.is_some_and(|r| r > 0.0), "no rate of {test} in\n{said}");
    }
    assert!(!said.to_lowercase().contains("error"), "{said}");
}

#[test]
fn one_request_at_a_time() {
    benchmark("1");
}

#[test]
fn sixteen_requests_at_a_time() {
    benchmark("16");
}
