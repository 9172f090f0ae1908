//! Real clients against a real cluster: each must work unchanged. A client that is not installed fails its test and says how
//! to get it; go-redis, Jedis and Lettuce need toolchains of their own, so what they send at start-up is replayed.

#[path = "../common/mod.rs"]
mod common;

mod go_redis;
mod ioredis;
mod jedis;
mod json_lines;
mod lettuce;
mod pipelines;
mod redis_benchmark;
mod redis_cli;
mod redis_py;
mod redis_rs;
mod replay;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use common::Cluster;

/// How many cache nodes the cluster under test has; each must show as a primary of its own.
pub const NODES: u16 = 3;

/// The cluster that tests running at the same time share; it ends with the last of them. Tests use key prefixes of their own
/// and neither flush nor count all keys.
pub fn cluster() -> Arc<Cluster> {
    static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
    // A test that failed while it started the cluster is no reason for the others not to try.
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    shared.upgrade().unwrap_or_else(|| {
        let cluster = Arc::new(Cluster::up(&[]));
        *shared = Arc::downgrade(&cluster);
        cluster
    })
}

/// host:port of every cache node.
pub fn node_addrs(cluster: &Cluster) -> Vec<String> {
    (1..=NODES).map(|n| cluster.node_addr(n).to_string()).collect()
}

/// A file of this directory.
pub fn script(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/interop").join(name)
}

/// Where client libraries are put that the machine does not have.
pub fn libraries() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("interop")
}
