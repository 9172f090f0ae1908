//! What Raft replicates: configuration, operations, events, counters.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::proto::error::Failure;
use crate::proto::event::Event;
use crate::proto::id::{ClusterId, HomeId, NodeId, Ref};
use crate::proto::slot::SLOTS;
use crate::proto::view::{Config, View};

use super::entry::{Act, Answer, Applied, Entry, OperationKind, OperationState};

/// The replicated state machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Index of the last entry applied.
    pub applied: u64,
    /// The cluster's name; empty before [`Act::Init`](super::entry::Act::Init).
    pub cluster: String,
    /// Members and slots.
    #[serde(with = "packed")]
    pub cfg: Config,
    /// Open operations and the last closed ones, by id.
    pub operations: BTreeMap<u64, Operation>,
    /// The last [`EVENTS_KEPT`] events.
    pub events: VecDeque<Event>,
    /// Sequence number of the last event ever.
    pub event_seq: u64,
    /// Id of the last operation ever.
    pub operation_seq: u64,
    /// Slots ever handed out empty after their data was lost.
    pub lost_total: u64,
    /// Dead lives that are the last holder of orphan slots.
    #[serde(with = "pairs")]
    pub holders: BTreeMap<Ref, Holder>,
    /// The last [`BURIED_KEPT`] lives that are over: none of them registers again.
    pub buried: VecDeque<Ref>,
    /// The planned stop that the cluster has not yet come back from.
    pub stopped: Option<Stopped>,
}

/// The last holder of orphan slots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The state directory this life ran from.
    pub home: HomeId,
    /// The peer address this life registered.
    pub peer_addr: String,
    /// Why it is known to be gone for good, if it is.
    pub gone: Option<Gone>,
}

/// Why a holder is known to be gone for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Gone {
    /// A new life registered from the same home, whose lock it holds.
    NewLife,
    /// An operator said so.
    Forgotten,
}

/// A planned stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// Index of the entry.
    pub index: u64,
    /// Who confirmed: awaited at the next start.
    pub nodes: Vec<NodeId>,
}

/// A scale-out, scale-in, rebuild or rebalance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// What for.
    pub kind: OperationKind,
    /// Where it is.
    pub state: OperationState,
    /// The nodes it is about.
    pub nodes: Vec<NodeId>,
    /// Slot moves in all.
    pub slots_total: u64,
    /// Slot moves committed.
    pub slots_done: u64,
    /// Digest of the moves as they were planned; 0 = none.
    pub moves_digest: u64,
    /// Why it waits or failed.
    pub reason: Option<String>,
    /// Who asked for it.
    pub by: Option<String>,
    /// Wall time of its creation, milliseconds.
    pub created_ms: u64,
    /// Wall time of its end, milliseconds; 0 while open.
    pub ended_ms: u64,
}

/// Events kept for those who come late.
pub const EVENTS_KEPT: usize = 1000;
/// Ended lives kept: enough that no straggling registration outlives its record.
pub const BURIED_KEPT: usize = 1024;

impl Default for State {
    fn default() -> Self {
        Self::new(SLOTS)
    }
}

impl State {
    /// Nothing yet, with so many slots (16384 but in simulations).
    pub fn new(slots: usize) -> Self {
        Self {
            applied: 0,
            cluster: String::new(),
            cfg: Config::empty(ClusterId(0), slots),
            operations: BTreeMap::new(),
            events: VecDeque::new(),
            event_seq: 0,
            operation_seq: 0,
            lost_total: 0,
            holders: BTreeMap::new(),
            buried: VecDeque::new(),
            stopped: None,
        }
    }

    /// Takes the entry at `index` in. Deterministic; never panics, whatever the entry; an index not above the last is ignored.
    pub fn apply(&mut self, index: u64, entry: &Entry) -> Applied {
        let mut done =
            Applied { index, cfg_changed: false, skipped: Vec::new(), events: Vec::new(), answer: Answer::Done };
        if index <= self.applied {
            done.answer = Answer::Refused(Failure::new("OLD_INDEX", "this index was applied before"));
            return done;
        }
        self.applied = index;
        if let Act::Init { cluster_id, cluster, backups } = &entry.act
            && self.cfg.cluster_id == ClusterId(0)
        {
            self.cfg.cluster_id = *cluster_id;
            self.cluster = cluster.clone();
            self.cfg.backups = *backups;
            self.cfg.cfg_index = index;
            done.cfg_changed = true;
        }
        done
    }
}

/// A configuration in a snapshot: the slot table as ranges, as on the wire.
mod packed {
    use super::*;
    use crate::proto::view::SlotState;
    use serde::{Deserializer, Serializer, de};

    pub fn serialize<S: Serializer>(cfg: &Config, s: S) -> Result<S::Ok, S::Error> {
        (cfg.slots.len(), cfg.full()).serialize(s)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Config, D::Error> {
        let (slots, view) = <(usize, View)>::deserialize(d)?;
        if slots > SLOTS {
            return Err(de::Error::custom("too many slots"));
        }
        let mut cfg = Config {
            cluster_id: view.cluster_id,
            cfg_index: view.cfg_index,
            backups: view.backups,
            stopping: view.stopping,
            members: view.members,
            slots: vec![SlotState::default(); slots],
        };
        for r in view.slots {
            if r.first > r.last || r.last.ix() >= slots {
                return Err(de::Error::custom("a slot range is out of bounds"));
            }
            cfg.slots[r.first.ix()..=r.last.ix()].fill(r.state);
        }
        Ok(cfg)
    }
}

/// A map whose keys are no strings, as pairs: JSON knows no other keys.
mod pairs {
    use super::*;
    use serde::{Deserializer, Serializer};

    pub fn serialize<S: Serializer>(map: &BTreeMap<Ref, Holder>, s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(map)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<BTreeMap<Ref, Holder>, D::Error> {
        Ok(Vec::<(Ref, Holder)>::deserialize(d)?.into_iter().collect())
    }
}
