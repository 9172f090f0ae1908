//! What a cache node says of itself in every heartbeat. Never enters the Raft log.

use serde::{Deserialize, Serialize};

use super::id::NodeId;

/// Counters and gauges of one node; counters count from the process's start.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeStats {
    /// Keys in slots this node is primary of.
    pub primary_keys: u64,
    /// Keys in slots this node is backup or learner of.
    pub backup_keys: u64,
    /// Accounted bytes (keys, values and overhead) of the primary LRU.
    pub primary_bytes: u64,
    /// Accounted bytes of the backup LRU.
    pub backup_bytes: u64,
    /// `--memory`, bytes.
    pub memory_limit: u64,
    /// Commands executed.
    pub commands: u64,
    /// Commands a second, over the last second.
    pub ops_per_s: f64,
    /// Lookups that found their key.
    pub hits: u64,
    /// Lookups that did not.
    pub misses: u64,
    /// Keys dropped for memory.
    pub evicted: u64,
    /// Keys dropped at their deadline.
    pub expired: u64,
    /// Client connections open now.
    pub clients: u64,
    /// Error replies sent.
    pub errors: u64,
    /// 50th percentile of command service time over the last seconds, microseconds; none without traffic.
    pub p50_us: Option<u64>,
    /// 99th percentile, likewise.
    pub p99_us: Option<u64>,
    /// Bound to something other than loopback (`--insecure-bind`).
    pub insecure_bind: bool,
    /// Slots of its own that are asked for far more than their even share, hottest first; from a sample.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hot_slots: Vec<HotSlot>,
    /// What it copied to whom, as primary; only peers it ever copied to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub copies: Vec<CopyStats>,
}

/// A slot that is busy beyond its share.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct HotSlot {
    /// Which.
    pub slot: u16,
    /// Its part of its node's commands on keys, 0 to 1.
    pub share: f64,
}

/// What a primary copied to one peer in this life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyStats {
    /// The peer.
    pub to: NodeId,
    /// Keys sent.
    pub keys: u64,
    /// Bytes sent.
    pub bytes: u64,
    /// Slots whose turn has not come.
    pub waiting: u64,
}
