//! What Raft replicates: members, the slot table, operations, events, counters. `apply` is deterministic and never panics,
//! whatever the entry: what an entry expects and does not find is skipped and named in the answer.
//!
//! The phases of a slot, and the entries that change them (PROTOCOL sections 3, 7, 8):
//!
//! ```text
//!                    Form (never held), HandOut (empty), NodeBack (last holder)
//!   ┌────────┐ ───────────────────────────────────────────────▶ ┌─────────┐ ◀─┐ AddLearner, PromoteLearner, RemoveMember,
//!   │ orphan │                                                  │ serving │ ──┘ Depose*, NodeDead with a survivor*
//!   └────────┘ ◀─────────────────────────────────────────────── └─────────┘
//!        ▲      NodeDead or Stopped, nobody in sync left          │     ▲ Switch*, Abort, RemoveMember(target),
//!        │                                               Handover │     │ NodeDead(target), NodeDead(primary)*, Depose*
//!        │                                                        ▼     │
//!        │     NodeDead or Stopped, nobody in sync left         ┌──────────┐
//!        └───────────────────────────────────────────────────── │ handover │
//!                                                               └──────────┘
//!   * and every arrow from or to orphan: the primary changes, so pterm = index. Every arrow: cver = index.
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::RangeInclusive;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::proto::error::Failure;
use crate::proto::event::{Event, Severity};
use crate::proto::id::{ClusterId, HomeId, NodeId, Ref};
use crate::proto::slot::{SLOTS, Slot};
use crate::proto::table::SlotTable;
use crate::proto::view::{Config, Phase, SlotState, View};

use super::entry::{Act, Answer, Applied, Change, Entry, HandedOut, Placed, SlotChange};
use super::moves::{needs, unbacked};
use super::operation::may_hold;
use crate::proto::operation::{OperationKind, OperationState};
use crate::proto::plan::Move;

mod nodes;
mod operations;
mod slots;
#[cfg(test)]
pub(in crate::node) mod tests;

pub use nodes::MEMBERS_MAX;
pub use operations::count;
pub use slots::{Primaries, REPLICAS_MAX};

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
    /// Nodes that were added by name: they get slots even if they start with `--standby`.
    pub admitted: BTreeSet<NodeId>,
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
    /// What is left to move as it was last planned; none before the first plan, and once it ended.
    #[serde(default)]
    pub moves: Option<Vec<Move>>,
    /// Index of the entry that planned them.
    #[serde(default)]
    pub planned_at: u64,
    /// Digest of the members that the moves were planned for.
    #[serde(default)]
    pub members: u64,
    /// An operator cancelled it: what is under way is finished, nothing new begins.
    #[serde(default)]
    pub cancelling: bool,
    /// Keys copied, as last recorded.
    #[serde(default)]
    pub keys_done: u64,
    /// Bytes copied, as last recorded.
    #[serde(default)]
    pub bytes_done: u64,
    /// Why it waits or failed.
    pub reason: Option<String>,
    /// Who asked for it.
    pub by: Option<String>,
    /// Wall time of its creation, milliseconds.
    pub created_ms: u64,
    /// Wall time of its end, milliseconds; 0 while open.
    pub ended_ms: u64,
    /// It ran once, and something of it may be under way.
    #[serde(default)]
    pub started: bool,
}

impl Operation {
    /// Whether no other may begin: a paused one keeps its place, for what it has half moved must not be planned over; one that was
    /// paused while it waited has none.
    pub fn has_turn(&self) -> bool {
        self.state == OperationState::Running || self.state == OperationState::Paused && self.started
    }
}

/// Backups a slot can have in this version of the protocol.
pub const BACKUPS_MAX: u8 = 1;
/// Events kept for those who come late.
pub const EVENTS_KEPT: usize = 1000;
/// States whose next ones are kept while an entry is applied: slots that change together are of a few kinds.
const KINDS_KEPT: usize = 32;
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
            admitted: BTreeSet::new(),
            stopped: None,
        }
    }

    /// Takes the entry at `index` in. Deterministic; never panics, whatever the entry; an index not above the last is ignored.
    pub fn apply(&mut self, index: u64, entry: &Entry) -> Applied {
        let mut cx = Apply {
            index,
            at_ms: entry.at_ms,
            by: entry.by.as_deref(),
            done: Applied { index, cfg_changed: false, skipped: Vec::new(), events: Vec::new(), answer: Answer::Done },
        };
        if index <= self.applied {
            cx.refuse("OLD_INDEX", "this index was applied before");
            return cx.done;
        }
        self.applied = index;
        self.act(&mut cx, &entry.act);
        if cx.done.cfg_changed {
            self.cfg.cfg_index = index;
            self.cfg.share(index);
        }
        cx.done.skipped.sort_unstable();
        cx.done.skipped.dedup();
        cx.done
    }

    fn act(&mut self, cx: &mut Apply<'_>, act: &Act) {
        match act {
            Act::Elected { leader } => {
                let text = format!("{} leads, term {}", leader.id, leader.term);
                cx.event(self, Severity::Info, "master-elected", leader.id.as_str(), text);
            }
            Act::Init { cluster_id, cluster, backups } => self.init(cx, *cluster_id, cluster, *backups),
            // Members of a cluster without an id could not be told which one they joined.
            _ if self.cfg.cluster_id == ClusterId(0) => cx.refuse("NOT_READY", "the cluster has no id yet"),
            Act::Register(r) => self.register(cx, r),
            Act::NodeDead { dead, avoid, cause } => self.node_dead(cx, dead, avoid, cause),
            Act::NodeBack { node } => self.node_back(cx, node),
            Act::Settled { nodes } => self.settled(cx, nodes),
            Act::Form { placements } => self.form(cx, placements),
            Act::Change { op, changes } => self.change(cx, *op, changes),
            Act::HandOut { gone, runs } => self.hand_out(cx, gone, runs),
            Act::Operation(step) => self.operation(cx, step),
            Act::SetBackups { backups } => self.set_backups(cx, *backups),
            Act::Admit { node } => self.admit(cx, node),
            Act::Drain { node, on } => self.drain(cx, node, *on),
            Act::NodeLeft { node } => self.node_left(cx, node),
            Act::Forget { node } => self.forget(cx, node),
            Act::Remove { nodes } => self.remove(cx, nodes),
            Act::Stopping => self.stopping(cx),
            Act::Stopped { confirmed } => self.stopped(cx, confirmed),
            Act::Note { severity, kind, subject, text } => {
                cx.event(self, *severity, kind, subject, text.clone());
            }
        }
    }

    fn init(&mut self, cx: &mut Apply<'_>, cluster_id: ClusterId, cluster: &str, backups: u8) {
        if self.cfg.cluster_id != ClusterId(0) || cluster_id == ClusterId(0) || backups > BACKUPS_MAX {
            return cx.refuse("BAD_INIT", "a cluster is named once, with 0 or 1 backups");
        }
        self.cfg.cluster_id = cluster_id;
        self.cfg.backups = backups;
        self.cluster = cluster.to_owned();
        cx.done.cfg_changed = true;
        cx.event(self, Severity::Info, "cluster-created", cluster, format!("cluster {cluster} was created"));
    }

    fn set_backups(&mut self, cx: &mut Apply<'_>, backups: u8) {
        if backups > BACKUPS_MAX {
            return cx.refuse("BAD_VALUE", "backups is 0 or 1");
        }
        if self.cfg.backups != backups {
            self.cfg.backups = backups;
            cx.done.cfg_changed = true;
            cx.event(self, Severity::Info, "parameter", "backups", format!("backups per slot: {backups}"));
        }
    }

    fn form(&mut self, cx: &mut Apply<'_>, placements: &[Placed]) {
        let mut primaries = self.primaries();
        let mut formed = 0u64;
        for p in placements {
            let mut members = BTreeSet::from([&p.primary.id]);
            let fits = self.may_take(&p.primary)
                && p.backups.len() < REPLICAS_MAX
                && p.backups.iter().all(|b| self.may_take(b) && members.insert(&b.id));
            let mut held = false;
            for ix in self.span(cx, p.first, p.last) {
                let slot = &self.cfg.slots[ix];
                if fits && slot.pterm == 0 && slot.phase == Phase::Orphan {
                    self.cfg.slots.update(ix, |slot| {
                        slots::install(slot, cx.index, &p.primary, &p.backups, None, &mut primaries);
                        // Nobody was ever primary, so nobody may hold a lease: no wait.
                        slot.clean = true;
                    });
                    held = true;
                    formed += 1;
                } else {
                    cx.skip(ix);
                }
            }
            if held {
                for node in std::iter::once(&p.primary).chain(&p.backups) {
                    self.hold(cx, node);
                }
            }
        }
        if formed > 0 {
            cx.done.cfg_changed = true;
            cx.event(self, Severity::Info, "formed", "", format!("{formed} slots were handed out for the first time"));
        }
    }

    fn change(&mut self, cx: &mut Apply<'_>, op: Option<u64>, changes: &[SlotChange]) {
        let counts = changes.iter().any(|c| matches!(c.change, Change::Switch { .. } | Change::Depose { .. }));
        let mut primaries = if counts { self.primaries() } else { Primaries::new() };
        // A removal may have been proposed for an earlier plan, which had nobody to back the slot.
        let removes = changes.iter().any(|c| matches!(c.change, Change::RemoveMember { .. }));
        let plan = op.filter(|_| removes).and_then(|id| self.operations.get(&id));
        let plan = plan.map(|o| unbacked(o.moves.as_deref().unwrap_or_default()));
        let mut moves = 0u64;
        for c in changes {
            let applied = self.change_runs(cx, c, plan.as_deref(), &mut primaries);
            if applied == 0 {
                continue;
            }
            cx.done.cfg_changed = true;
            moves += applied * u64::from(c.completes);
            match &c.change {
                Change::PromoteLearner { learner, .. } => self.hold(cx, learner),
                Change::Switch { to } => {
                    let text = format!("{applied} slots moved to {}", to.id);
                    cx.event(self, Severity::Info, "slots-moved", to.id.as_str(), text);
                }
                Change::Depose { node } => {
                    let text = format!("{} stalled: {applied} of its slots were promoted elsewhere", node.id);
                    cx.event(self, Severity::Warn, "deposed", node.id.as_str(), text);
                }
                _ => {}
            }
        }
        self.count_moves(op, moves);
    }

    /// Does one step for many slots; the number of slots it applied to.
    fn change_runs(
        &mut self,
        cx: &mut Apply<'_>,
        c: &SlotChange,
        unbacked: Option<&[RangeInclusive<usize>]>,
        primaries: &mut Primaries,
    ) -> u64 {
        let mut applied = 0;
        // What becomes of slots that are alike is worked out once, where it doesn't depend on how many were changed before.
        let is_same_for_all = !matches!(c.change, Change::Depose { .. });
        let mut known: VecDeque<(Arc<SlotState>, Option<Arc<SlotState>>)> = VecDeque::new();
        for run in &c.runs {
            for ix in self.span(cx, run.first, run.last) {
                let slot = &self.cfg.slots[ix];
                let takes_last = match (&c.change, unbacked) {
                    (Change::RemoveMember { node }, Some(unbacked)) => needs(unbacked, ix, slot, node),
                    _ => false,
                };
                if slot.cver != run.cver || takes_last {
                    cx.skip(ix);
                    continue;
                }
                let before = known.iter().find(|(from, _)| Arc::ptr_eq(from, slot)).map(|(_, to)| to.clone());
                let is_known = before.is_some();
                let changed = before.unwrap_or_else(|| {
                    let mut to = SlotState::clone(slot);
                    let fits = slots::change(&mut to, cx.index, &c.change, |n| self.cfg.is_live(n), primaries);
                    let to = fits.then(|| Arc::new(to));
                    if is_same_for_all {
                        known.push_front((slot.clone(), to.clone()));
                        known.truncate(KINDS_KEPT);
                    }
                    to
                });
                match changed {
                    Some(changed) => {
                        if is_known {
                            slots::count_lead(primaries, slot.primary.as_ref(), changed.primary.as_ref());
                        }
                        self.cfg.slots.set(ix, changed);
                        applied += 1;
                    }
                    None => cx.skip(ix),
                }
            }
        }
        applied
    }

    /// Whether this life may be made a member in sync at once: one that is drained may be on its way out, as a member of nothing.
    fn may_take(&self, node: &Ref) -> bool {
        self.cfg.member(node).is_some_and(|m| may_hold(m.state))
    }

    fn hand_out(&mut self, cx: &mut Apply<'_>, gone: &[Ref], runs: &[HandedOut]) {
        let mut primaries = self.primaries();
        let mut lost: BTreeMap<Ref, u64> = BTreeMap::new();
        let mut empty = 0u64;
        for h in runs {
            let fits = self.may_take(&h.to) && h.backup.as_ref().is_none_or(|b| self.may_take(b) && b.id != h.to.id);
            let mut held = false;
            for ix in self.span(cx, h.run.first, h.run.last) {
                let slot = &self.cfg.slots[ix];
                let holder = slot.last_holder.clone();
                let free = holder.as_ref().is_none_or(|holder| {
                    gone.contains(holder) || self.holders.get(holder).is_some_and(|h| h.gone.is_some())
                });
                if !(fits && free && slot.phase == Phase::Orphan && slot.cver == h.run.cver) {
                    cx.skip(ix);
                    continue;
                }
                self.cfg.slots.update(ix, |slot| {
                    slots::install(slot, cx.index, &h.to, h.backup.as_slice(), None, &mut primaries);
                    // Whoever died with the slot may have promised something to somebody who still serves; who stopped by plan
                    // confirmed that it serves nothing, and the leader has waited until all it promised was over.
                    slot.clean = h.clean && holder.is_none();
                });
                held = true;
                match holder {
                    Some(holder) => *lost.entry(holder).or_default() += 1,
                    None => empty += 1,
                }
            }
            for node in std::iter::once(&h.to).chain(&h.backup).filter(|_| held) {
                self.hold(cx, node);
            }
        }
        let total: u64 = lost.values().sum();
        if total + empty == 0 {
            return;
        }
        cx.done.cfg_changed = true;
        self.stopped = None;
        self.lost_total = self.lost_total.saturating_add(total);
        self.prune_holders();
        if total > 0 {
            let whose = lost.iter().map(|(n, slots)| format!("{} ({slots})", n.id)).collect::<Vec<_>>().join(", ");
            let subject = if lost.len() == 1 { lost.keys().next().map(|n| n.id.to_string()) } else { None };
            let text = format!("the data of {total} slots is lost; last held by {whose}");
            cx.event(self, Severity::Error, "slots-lost", &subject.unwrap_or_default(), text);
        }
        if empty > 0 {
            let text = format!("{empty} slots were handed out empty; nothing was lost with them");
            cx.event(self, Severity::Info, "slots-handed-out", "", text);
        }
    }

    /// The indices of a run, those that exist; the others are skipped by nature.
    fn span(&self, cx: &mut Apply<'_>, first: Slot, last: Slot) -> std::ops::Range<usize> {
        let end = self.cfg.slots.len();
        if first > last || last.ix() >= end {
            cx.done.skipped.push(first);
        }
        first.ix().min(end)..(last.ix() + 1).min(end).max(first.ix().min(end))
    }

    /// How many slots each node is primary of.
    pub fn primaries(&self) -> Primaries {
        let mut out = Primaries::new();
        for (s, slots) in self.cfg.slots.counts() {
            if let Some(p) = &s.primary {
                *out.entry(p.id.clone()).or_default() += slots as u32;
            }
        }
        out
    }

    /// Whether slots were ever handed out.
    pub fn is_formed(&self) -> bool {
        self.cfg.slots.iter().any(|s| s.pterm != 0)
    }
}

/// One entry being applied.
struct Apply<'a> {
    index: u64,
    at_ms: u64,
    by: Option<&'a str>,
    done: Applied,
}

impl Apply<'_> {
    fn refuse(&mut self, code: &str, message: impl Into<String>) {
        self.done.answer = Answer::Refused(Failure::new(code, message));
    }

    fn skip(&mut self, ix: usize) {
        self.done.skipped.push(Slot(ix as u16));
    }

    fn event(&mut self, state: &mut State, severity: Severity, kind: &str, subject: &str, text: String) {
        state.event_seq += 1;
        let event = Event {
            seq: state.event_seq,
            at_ms: self.at_ms,
            index: self.index,
            severity,
            kind: kind.to_owned(),
            subject: subject.to_owned(),
            text,
            by: self.by.map(str::to_owned),
        };
        state.events.push_back(event.clone());
        while state.events.len() > EVENTS_KEPT {
            state.events.pop_front();
        }
        self.done.events.push(event);
    }
}

/// A configuration in a snapshot: the slot table as ranges, as on the wire.
mod packed {
    use super::*;
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
            slots: SlotTable::new(slots, SlotState::default()),
        };
        for r in view.slots {
            if r.first > r.last || r.last.ix() >= slots {
                return Err(de::Error::custom("a slot range is out of bounds"));
            }
            cfg.slots.fill(r.first.ix()..r.last.ix() + 1, Arc::new(r.state));
        }
        cfg.share(0);
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
