//! `cachectl status -o json`: the view of a cluster that people and scripts read. Field names are a contract (schema 1).

use serde::{Deserialize, Serialize};

use super::event::Event;
use super::operation::Role;
use super::stats::HotSlot;
use super::view::SlotRange;

/// The number in `schema`.
pub const STATUS_SCHEMA: u32 = 1;
/// How many heartbeat gaps a node's strip keeps.
pub const HEARTBEAT_GAPS: usize = 24;

/// How the cluster is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Every slot has a primary and its full number of backups.
    Ok,
    /// All serve, but some lack a backup, a node is suspect, a master is away or none leads.
    Degraded,
    /// Some slot's primary is dead or orphaned.
    Down,
    /// Nothing answers.
    Unreachable,
}

/// Where a node is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// Registered, asked to hold nothing until added by name.
    Standby,
    /// Registered, waiting for its share.
    Joining,
    /// Holds slots and beats.
    Up,
    /// Missed its heartbeats, not yet given up. Never stored: the leader shows it for an `Up` node.
    Suspect,
    /// Handing its slots over before it leaves.
    Draining,
    /// Its incarnation is over.
    Dead,
    /// Left by plan.
    Left,
}

/// The whole document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// [`STATUS_SCHEMA`].
    pub schema: u32,
    /// The cluster's name.
    pub cluster: String,
    /// Its id, hex.
    pub cluster_id: String,
    /// How it is.
    pub state: Health,
    /// Raft index of the last change of members or slots.
    pub epoch: u64,
    /// Raft term.
    pub term: u64,
    /// The leading master, if one is known to lead.
    pub leader: Option<String>,
    /// All masters.
    pub masters: Vec<MasterStatus>,
    /// All cache nodes, by name.
    pub nodes: Vec<NodeStatus>,
    /// Slots in sum.
    pub slots: SlotTotals,
    /// The open operations and the last ten.
    pub operations: Vec<OperationStatus>,
    /// What people should know: `--insecure-bind` in use, a master that may not vote, …
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// One master.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MasterStatus {
    /// Its name.
    pub id: String,
    /// host:port.
    pub addr: String,
    /// `leader`, `follower` or `unreachable`.
    pub role: String,
    /// Whether it answered the leader within the last second.
    pub alive: bool,
    /// Last Raft index in its log; for a peer, what the leader knows it holds.
    pub last_log: u64,
    /// Last index applied; for a peer, what the leader knows.
    pub applied: u64,
}

/// One cache node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its name.
    pub id: String,
    /// Client address, host:port.
    pub addr: String,
    /// Hex.
    pub incarnation: String,
    /// Where in its life.
    pub state: NodeState,
    /// Milliseconds since its last heartbeat at the leader; null without a leader.
    pub heartbeat_age_ms: Option<u64>,
    /// The last 24 gaps between heartbeats as the leader received them, oldest first, milliseconds.
    pub heartbeat_gaps_ms: Vec<u64>,
    /// Failure domain; empty if none.
    pub zone: String,
    /// Share of slots relative to the others.
    pub weight: f64,
    /// Slots it is primary of.
    pub primary_slots: u64,
    /// Slots it is an in-sync backup of.
    pub backup_slots: u64,
    /// Keys in its primary LRU.
    pub primary_keys: u64,
    /// Keys in its backup LRU.
    pub backup_keys: u64,
    /// Accounted bytes of its primary LRU.
    pub primary_bytes: u64,
    /// Accounted bytes of its backup LRU.
    pub backup_bytes: u64,
    /// `--memory`, bytes.
    pub memory_limit: u64,
    /// Commands a second.
    pub ops_per_s: f64,
    /// hits / (hits + misses); null before the first lookup.
    pub hit_ratio: Option<f64>,
    /// Keys dropped for memory.
    pub evicted: u64,
    /// Keys dropped at their deadline.
    pub expired: u64,
    /// Client connections.
    pub clients: u64,
    /// 99th percentile of service time, microseconds.
    pub p99_us: Option<u64>,
    /// 50th percentile, likewise.
    #[serde(default)]
    pub p50_us: Option<u64>,
    /// Error replies sent.
    #[serde(default)]
    pub errors: u64,
    /// Slots it serves that are asked for far more than their even share, hottest first; from a sample.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hot_slots: Vec<HotSlot>,
}

/// Slots in sum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotTotals {
    /// 16384.
    pub total: u64,
    /// Slots with a living primary.
    pub serving: u64,
    /// Serving slots that lack a backup the cluster asks for.
    pub solo: u64,
    /// Slots whose last holder died and that were not handed out again.
    pub orphan: u64,
    /// Slots ever handed out empty after their data was lost.
    pub lost_total: u64,
}

/// One operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OperationStatus {
    /// Rises by one.
    pub id: u64,
    /// `scale-out scale-in rebuild rebalance`.
    pub kind: String,
    /// `planned running paused done failed cancelled`.
    pub state: String,
    /// The nodes it is about.
    pub nodes: Vec<String>,
    /// Slot moves in all.
    pub slots_total: u64,
    /// Slot moves committed.
    pub slots_done: u64,
    /// Keys copied.
    pub keys_done: u64,
    /// Bytes copied.
    pub bytes_done: u64,
    /// Bytes still to copy, as far as known.
    pub bytes_left: u64,
    /// Over the last seconds.
    pub rate_bytes_per_s: u64,
    /// Milliseconds to the end at that rate; 0 when done or unknown.
    pub eta_ms: u64,
    /// Why it waits or failed.
    pub reason: Option<String>,
    /// What it moves between whom; empty for those that ended long ago.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pairs: Vec<PairStatus>,
    /// Batches that were tried again.
    #[serde(default)]
    pub retries: u64,
}

/// Slots of an operation that move from one node to another in one role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairStatus {
    /// `primary` or `backup`.
    pub role: Role,
    /// Who gives; none where nobody held that role.
    pub from: Option<String>,
    /// Who takes.
    pub to: String,
    /// Slots in all.
    pub slots_total: u64,
    /// Slots committed.
    pub slots_done: u64,
    /// Slots being copied or handed over now.
    pub slots_running: u64,
}

/// What WATCH streams: the status, the slot table as ranges when it changed, and events in sequence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WatchView {
    /// The document of `status`.
    pub status: Status,
    /// The slot table; none = unchanged since the last view of this stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots: Option<Vec<SlotRange>>,
    /// New events since the last view of this stream, in sequence.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<Event>,
}
