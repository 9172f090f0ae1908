//! What the commands about the whole node need of it. The serving runtime implements [`Host`]; tests implement it over one store.

use std::sync::Arc;

use super::conn::ClientInfo;
use super::error::ErrorReply;
use super::slowlog::Slowlog;
use super::topology::ClusterView;
use crate::node::cache::store::{Eviction, Now, Role, Store};
use crate::proto::slot::Slot;
use crate::proto::stats::NodeStats;

/// The node as a command sees it.
pub trait Host {
    /// The clocks of this loop turn.
    fn now(&self) -> Now;

    /// The configuration as clients are told of it, cached per configuration.
    fn cluster(&self) -> Arc<ClusterView>;

    /// How many shards the slots are spread over.
    fn shards(&self) -> usize;

    /// Which of them holds a slot; below [`Host::shards`], the same for as long as the process lives.
    fn shard_of(&self, slot: Slot) -> usize;

    /// Runs `f` under the shard's lock. `f` calls nothing of the host that locks.
    fn with_shard(&self, shard: usize, f: &mut dyn FnMut(&mut Store));

    /// Each shard in turn, each under its lock.
    fn for_each_store(&self, f: &mut dyn FnMut(&mut Store)) {
        (0..self.shards()).for_each(|shard| self.with_shard(shard, f));
    }

    /// What this node holds of a slot, all of it read under one lock (CLUSTER DIGEST).
    fn held(&self, slot: Slot) -> Held {
        // Where nothing is replicated, what the store knows is all.
        let mut held = Held::default();
        self.with_shard(self.shard_of(slot), &mut |store| {
            let role = match store.role(slot) {
                Role::Primary { .. } => "primary",
                Role::Backup => "backup",
                _ => "none",
            };
            held = Held { role, keys: store.slot_stats(slot).keys, digest: store.digest(slot), ..Held::default() };
        });
        held
    }

    /// FLUSHALL: empties every slot this node is primary of, as a write of each slot of its own.
    fn flush_all(&mut self) -> Result<(), ErrorReply>;

    /// For INFO.
    fn facts(&self) -> Facts;

    /// CONFIG RESETSTAT.
    fn reset_stats(&mut self);

    /// What CONFIG GET shows and CONFIG SET may change.
    fn settings(&self) -> Settings;

    /// Puts all of these in force, or none; the error says why, in a few words.
    fn apply_settings(&mut self, settings: Settings) -> Result<(), String>;

    /// All connections, by id.
    fn clients(&self) -> Vec<ClientInfo>;

    /// Closes every connection for which `which` holds; how many.
    fn kill_clients(&mut self, which: &dyn Fn(&ClientInfo) -> bool) -> usize;

    /// Runs `f` on the node's slow log.
    fn slowlog(&mut self, f: &mut dyn FnMut(&mut Slowlog));
}

/// What a node holds of one slot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// `primary backup learner holder none`.
    pub role: &'static str,
    /// Whose stream of changes it stands in: the Raft index at which the primary last changed.
    pub pterm: u64,
    /// How far in that stream.
    pub seq: u64,
    /// How many keys.
    pub keys: u64,
    /// Of keys, values and has-TTL, in no order: equal at equal (pterm, seq).
    pub digest: u64,
}

/// What CONFIG SET may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// `maxmemory`: `--memory`, bytes for both LRUs together.
    pub maxmemory: u64,
    /// `maxmemory-policy`: `allkeys-` and this; for life.
    pub eviction: Eviction,
    /// `maxclients`.
    pub maxclients: u32,
    /// `timeout`: an idle client is closed after so many seconds; 0 = never.
    pub timeout_s: u32,
    /// `slowlog-log-slower-than`, microseconds; 0 = every command, negative = none.
    pub slowlog_slower_than_us: i64,
    /// `slowlog-max-len`.
    pub slowlog_max_len: u64,
}

/// One command's counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CommandCount {
    /// [`Spec::name`](super::Spec::name).
    pub name: &'static str,
    /// Executed.
    pub calls: u64,
    /// Time in execution, microseconds.
    pub usec: u64,
    /// Refused before execution.
    pub rejected: u64,
    /// Executed with an error as reply.
    pub failed: u64,
}

/// What INFO tells that only the runtime knows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    /// What heartbeats carry.
    pub stats: NodeStats,
    /// Since the process started, milliseconds.
    pub uptime_ms: u64,
    /// Data-path threads.
    pub threads: usize,
    /// `maxclients`.
    pub maxclients: u32,
    /// Connections ever accepted.
    pub connections_total: u64,
    /// Connections refused above `maxclients`.
    pub connections_rejected: u64,
    /// Bytes read from clients.
    pub net_in_bytes: u64,
    /// Bytes sent to clients.
    pub net_out_bytes: u64,
    /// Commands waiting for their slot to be served.
    pub parked: u64,
    /// Keys with a deadline, in slots this node is primary of.
    pub keys_with_ttl: u64,
    /// Commands called at least once.
    pub commands: Vec<CommandCount>,
    /// Error replies by code: `MOVED`, `ERR`, ….
    pub errors: Vec<(String, u64)>,
}
