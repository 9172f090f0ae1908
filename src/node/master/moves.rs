//! One slot's way to where an operation wants it, step by step; pure. The plan is a list of moves in the operation's record;
//! each step follows from the slot as it stands, so that whoever leads, and whatever died, goes on where the log is.
//!
//! ```text
//!  backup  b → x:   AddLearner(x) ─▶ copied ─▶ PromoteLearner(x)* ─▶ RemoveMember(b)
//!  primary p → x:   AddLearner(x) ─▶ copied ─▶ PromoteLearner(x) ─▶ Handover(x) ─▶ relinquished ─▶ Switch(x)* ─▶ RemoveMember(p)
//!  (p,b) → (b,p):                                                   Handover(b) ─▶ relinquished ─▶ Switch(b)**
//! ```
//!
//! A star is a move done. Add before remove, always; all backups that move do so before the first primary does, unless
//! a pause or a cancel finishes what was begun.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

use super::entry::{Change, SlotChange};
use super::operation::{host, may_hold, runs, target};
use super::state::{Operation, REPLICAS_MAX};
use crate::node::mutant::{self, Mutant};
use crate::proto::id::{NodeId, Ref};
use crate::proto::kinds::Kinds;
use crate::proto::operation::OperationKind;
use crate::proto::plan::{Mode, Move, Placement, Plan, PlanNode, Role, digest, moves};
use crate::proto::status::NodeState;
use crate::proto::table::SlotTable;
use crate::proto::view::{Config, Phase, Replica, SlotState};

/// Bytes being copied from one primary, as far as whole slots allow it.
const UNDER_WAY_MAX: u64 = 256 << 20;
/// Slots that may always be: more than one, so that links are never idle between two entries.
const SLOTS_MIN: usize = 16;

/// How much of an operation is under way at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Slots being copied from one primary.
    copies_per_primary: usize,
    /// Slots being copied to one node, from however many primaries.
    copies_per_target: usize,
    /// Slots of one primary being handed over: their clients wait for two commits.
    handovers_per_primary: usize,
}

impl Bounds {
    /// Where clients are connected: enough to hide the commits between the steps, and few entries, for each makes every process
    /// look at the whole table, and clients pay for that. A slot's clients wait for two commits however many slots do.
    pub const ASKED: Self = Self { copies_per_primary: 1024, copies_per_target: 4096, handovers_per_primary: 2048 };
    /// Where none is.
    pub const QUIET: Self = Self { copies_per_primary: 1536, copies_per_target: 4608, handovers_per_primary: 2048 };

    /// The same for slots of so many bytes: a cancel, which finishes what is under way, is soon done, and a death in the middle
    /// throws little away.
    pub fn within(self, bytes_per_slot: u64) -> Self {
        let slots = |max: u64| usize::try_from(max / bytes_per_slot.max(1)).unwrap_or(usize::MAX).max(SLOTS_MIN);
        Self {
            copies_per_primary: self.copies_per_primary.min(slots(UNDER_WAY_MAX)),
            copies_per_target: self.copies_per_target.min(slots(UNDER_WAY_MAX * 4)),
            ..self
        }
    }
}

/// How far an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Turn {
    /// Backups move.
    Backups,
    /// No backup waits for its copy to begin: what primaries move to is copied meanwhile.
    Copies,
    /// All backups have moved: primaries move.
    Primaries,
}

/// What an operation wants of one slot: from whom to whom, in each role that moves.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Goal {
    /// The primary's move.
    pub primary: Option<(Option<NodeId>, NodeId)>,
    /// The backup's; to nobody where nobody is left to take it.
    pub backup: Option<(Option<NodeId>, Option<NodeId>)>,
}

/// What an operation wants of all slots. Few goals are many slots': each is kept once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Goals {
    kinds: Vec<Goal>,
    /// By slot, its place in `kinds`.
    of: Vec<u32>,
}

impl Goals {
    /// Nobody wants anything.
    fn are_none(&self) -> bool {
        self.kinds.iter().all(|goal| *goal == Goal::default())
    }

    /// The moves, slot by slot.
    pub fn new(moves: &[Move], slots: usize) -> Self {
        let mut all = vec![Goal::default(); slots];
        for m in moves {
            let end = (m.last.ix() + 1).min(slots);
            for goal in all.get_mut(m.first.ix()..end).unwrap_or_default() {
                match (m.what, &m.to) {
                    (Role::Primary, Some(to)) => goal.primary = Some((m.from.clone(), to.clone())),
                    // Nobody can take it: it stays where it is.
                    (Role::Primary, None) => {}
                    (Role::Backup, to) => goal.backup = Some((m.from.clone(), to.clone())),
                }
            }
        }
        let mut out = Self::default();
        let mut known: BTreeMap<Goal, u32> = BTreeMap::new();
        for goal in all {
            let next = known.len() as u32;
            let n = *known.entry(goal).or_insert_with_key(|goal| {
                out.kinds.push(goal.clone());
                next
            });
            out.of.push(n);
        }
        out
    }

    /// One slot's.
    pub fn get(&self, ix: usize) -> Option<&Goal> {
        self.kinds.get(*self.of.get(ix)? as usize)
    }
}

/// Slots that nobody shall back, as ranges: the only ones whose last backup may go.
pub fn unbacked(moves: &[Move]) -> Vec<RangeInclusive<usize>> {
    let to_nobody = moves.iter().filter(|m| m.what == Role::Backup && m.to.is_none());
    to_nobody.map(|m| m.first.ix()..=m.last.ix()).collect()
}

/// This member is the last backup, and the plan has one for the slot: it stays until another is there.
pub fn needs(unbacked: &[RangeInclusive<usize>], ix: usize, slot: &SlotState, node: &Ref) -> bool {
    let is_last = slot.in_sync(node) && slot.insync.len() == 2;
    is_last && !unbacked.iter().any(|r| r.contains(&ix)) && !mutant::is(Mutant::LastBackupGoes)
}

/// What comes next for one slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// It is where it shall be, or nothing can be done for it.
    Done,
    /// Something is under way: a copy, a handover.
    Running,
    /// Let the primary copy it to this node.
    Add(NodeId),
    /// Take this member out.
    Remove(Ref),
    /// Let the primary give it to this member.
    Handover(Ref),
    /// Who was to back it is gone: what is left needs another plan.
    Plan,
}

impl Goal {
    fn primary_to(&self) -> Option<&NodeId> {
        self.primary.as_ref().map(|(_, to)| to)
    }

    fn backup_to(&self) -> Option<&NodeId> {
        self.backup.as_ref().and_then(|(_, to)| to.as_ref())
    }

    /// Whether the node held the slot in a role that moves away from it.
    fn is_from(&self, id: &NodeId) -> bool {
        let primary = self.primary.as_ref().and_then(|(from, _)| from.as_ref());
        let backup = self.backup.as_ref().and_then(|(from, _)| from.as_ref());
        [primary, backup].contains(&Some(id))
    }

    /// Who backs the slot in the end.
    fn final_backup<'a>(&'a self, slot: &'a SlotState) -> Option<&'a NodeId> {
        let leads = self.primary_to().or(slot.primary.as_ref().map(|p| &p.id));
        match &self.backup {
            Some((_, to)) => to.as_ref(),
            // It does not move: the first of those who back it now and are not on their way out.
            None => slot.insync.iter().map(|r| &r.node.id).find(|id| Some(*id) != leads && !self.is_from(id)),
        }
    }

    /// Nobody is there to back the slot.
    fn has_nobody(&self) -> bool {
        matches!(self.backup, Some((_, None)))
    }

    /// A member that is not wanted in the end and not needed until then: what an operation, a death or an earlier plan left.
    /// Add before remove: the last backup stays until all is where it shall be, for the old primary may be the next backup.
    fn spare<'a>(&self, slot: &'a SlotState) -> Option<&'a Ref> {
        let wanted = [self.primary_to(), self.final_backup(slot)];
        let backups = slot.backups().count();
        // The last one goes only where the plan has nobody to back the slot.
        let is_over = self.has_nobody() && !self.primary_is_due(slot) || mutant::is(Mutant::LastBackupGoes);
        let unwanted = |n: &&Ref| Some(*n) != slot.primary.as_ref() && !wanted.contains(&Some(&n.id));
        // A copy to make up for a lost backup is wanted by a rebuild, whatever this plan says.
        let learner = slot.learners.iter().map(|r| &r.node).find(|n| backups > 0 && unwanted(n));
        learner.or_else(|| slot.insync.iter().map(|r| &r.node).find(|n| (backups > 1 || is_over) && unwanted(n)))
    }

    /// Moves of this slot that are done when `learner` is promoted.
    pub fn done_by_promotion(&self, slot: &SlotState, learner: &Ref) -> u8 {
        let is_primary = slot.primary.as_ref().is_some_and(|p| p.id == learner.id);
        u8::from(!is_primary && self.backup_to() == Some(&learner.id) && !slot.in_sync(learner))
    }

    /// Moves of this slot that are done when `to` takes over from its primary.
    pub fn done_by_switch(&self, slot: &SlotState, to: &Ref) -> u8 {
        let swapped = self.backup_to().is_some() && self.backup_to() == slot.primary.as_ref().map(|p| &p.id);
        if self.primary_to() == Some(&to.id) { 1 + u8::from(swapped) } else { 0 }
    }

    /// Whether the backup's move is still to be done; one that the switch will do is not.
    fn backup_is_due(&self, slot: &SlotState) -> bool {
        self.backup_to().is_some_and(|to| !slot.insync.iter().any(|r| &r.node.id == to))
    }

    fn primary_is_due(&self, slot: &SlotState) -> bool {
        self.primary_to().is_some_and(|to| slot.primary.as_ref().is_some_and(|p| &p.id != to))
    }

    /// The next step of a slot.
    pub fn step(&self, slot: &SlotState, turn: Turn) -> Step {
        if slot.primary.is_none() {
            return Step::Done;
        }
        if slot.phase == Phase::Handover {
            return Step::Running;
        }
        let insync = |id: &NodeId| slot.insync.iter().find(|r| &r.node.id == id);
        let add = |id: &NodeId| {
            if slot.learners.iter().any(|r| &r.node.id == id) {
                Step::Running
            } else if slot.insync.len() + slot.learners.len() < REPLICAS_MAX {
                Step::Add(id.clone())
            } else {
                self.spare(slot).map_or(Step::Running, |node| Step::Remove(node.clone()))
            }
        };
        if let Some(to) = self.backup_to().filter(|_| self.backup_is_due(slot)) {
            return add(to);
        }
        // Before their turn the old primary stays, but a backup that moved away may go.
        if let Some(to) = self.primary_to().filter(|_| self.primary_is_due(slot)) {
            match insync(to) {
                None if turn >= Turn::Copies => return add(to),
                Some(r) if turn == Turn::Primaries => return Step::Handover(r.node.clone()),
                _ => {}
            }
        }
        if let Some(node) = self.spare(slot) {
            return Step::Remove(node.clone());
        }
        let stays = |r: &&Replica| Some(&r.node.id) == self.final_backup(slot) || self.has_nobody();
        let is_stale =
            !self.primary_is_due(slot) && slot.backups().next().is_some() && !slot.backups().any(|r| stays(&r));
        if is_stale { Step::Plan } else { Step::Done }
    }
}

/// The steps that may be taken now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// As they go into one entry.
    pub changes: Vec<SlotChange>,
    /// Slots with a copy or handover under way.
    pub running: u64,
    /// Slots that wait for their turn.
    pub waiting: u64,
    /// Nodes that are not fit to take slots now, though they shall.
    pub unfit: BTreeSet<NodeId>,
    /// Slots for which the plan does no longer.
    pub stale: u64,
}

impl Batch {
    /// Nothing is left to do.
    pub fn is_done(&self) -> bool {
        self.changes.is_empty() && self.running + self.waiting == 0
    }
}

/// Whether something of the slot was begun that is not finished.
fn is_begun(cfg: &Config, slot: &SlotState) -> bool {
    slot.phase == Phase::Handover || !slot.learners.is_empty() || slot.insync.len() > 1 + usize::from(cfg.backups)
}

/// How many of something each node has under way.
#[derive(Default)]
struct Tally(BTreeMap<NodeId, usize>);

impl Tally {
    fn add(&mut self, id: &NodeId, more: usize) {
        match self.0.get_mut(id) {
            Some(n) => *n += more,
            None => drop(self.0.insert(id.clone(), more)),
        }
    }

    fn is_below(&self, id: &NodeId, max: usize) -> bool {
        self.0.get(id).is_none_or(|n| *n < max)
    }
}

/// What a look at all slots has begun so far.
struct Begun<'a> {
    cfg: &'a Config,
    unfit: &'a BTreeSet<NodeId>,
    bounds: Bounds,
    copies: Tally,
    targets: Tally,
    /// By kind of step and node: slots and what they stand at.
    changes: BTreeMap<(u8, Ref), Vec<(usize, u64)>>,
}

impl Begun<'_> {
    fn put(&mut self, kind: u8, node: &Ref, ix: usize, cver: u64) {
        match self.changes.get_mut(&(kind, node.clone())) {
            Some(slots) => slots.push((ix, cver)),
            None => drop(self.changes.insert((kind, node.clone()), vec![(ix, cver)])),
        }
    }

    /// Has a slot copied to a node, if there is room; whether it is.
    fn add(&mut self, to: &NodeId, ix: usize, slot: &SlotState, primary: &Ref, out: &mut Batch) -> bool {
        let Some(node) = self.cfg.current(to).filter(|n| self.cfg.is_live(n) && !self.unfit.contains(to)) else {
            out.waiting += 1;
            out.unfit.insert(to.clone());
            return false;
        };
        let has_room = self.copies.is_below(&primary.id, self.bounds.copies_per_primary)
            && self.targets.is_below(to, self.bounds.copies_per_target);
        if has_room {
            self.copies.add(&primary.id, 1);
            self.targets.add(to, 1);
            self.put(0, &node, ix, slot.cver);
        } else {
            out.waiting += 1;
        }
        has_room
    }
}

/// The next steps of all slots. `unfit` nodes are given nothing for now; with `finish` only what was begun goes on.
pub fn batch(cfg: &Config, goals: &Goals, unfit: &BTreeSet<NodeId>, finish: bool, bounds: Bounds) -> Batch {
    let mut out = Batch::default();
    let (mut copies, mut targets, mut handovers) = (Tally::default(), Tally::default(), Tally::default());
    // Slots that are alike and want the same are looked at once.
    let mut counts: Kinds<'_, usize> = Kinds::default();
    for (s, g) in cfg.slots.iter().zip(&goals.of) {
        *counts.of(s, *g as usize, |_| 0) += 1;
    }
    let mut backups_are_due = false;
    for kind in counts.iter() {
        let (s, slots) = (kind.state, kind.value);
        let Some(p) = &s.primary else { continue };
        for l in &s.learners {
            copies.add(&p.id, slots);
            targets.add(&l.node.id, slots);
        }
        if s.phase == Phase::Handover {
            handovers.add(&p.id, slots);
        }
        backups_are_due |= goals.kinds[kind.tag].backup_is_due(s);
    }
    let turn = if finish || !backups_are_due { Turn::Primaries } else { Turn::Backups };
    let mut begun = Begun { cfg, unfit, bounds, copies, targets, changes: BTreeMap::new() };
    // Whether every backup that moves is being copied to, and slots whose primary could be then.
    let (mut all_begun, mut early) = (true, Vec::new());
    let mut steps: Kinds<'_, (Step, bool)> = Kinds::default();
    for (ix, (s, g)) in cfg.slots.iter().zip(&goals.of).enumerate() {
        let Some(p) = &s.primary else { continue };
        if finish && !is_begun(cfg, s) {
            continue;
        }
        let goal = &goals.kinds[*g as usize];
        let (step, waits) = steps.of(s, *g as usize, |s| {
            let step = match goal.step(s, turn) {
                // Nothing new begins, but what can be taken out is.
                Step::Add(_) if finish => goal.step(s, Turn::Backups),
                step => step,
            };
            (step, turn == Turn::Backups && goal.primary_is_due(s))
        });
        match step {
            Step::Done if *waits => {
                out.waiting += 1;
                early.push(ix);
            }
            Step::Done => {}
            Step::Plan => out.stale += 1,
            Step::Running => out.running += 1,
            Step::Add(_) if finish => {}
            Step::Add(to) => all_begun &= begun.add(to, ix, s, p, &mut out),
            Step::Handover(to) if unfit.contains(&to.id) => {
                out.waiting += 1;
                out.unfit.insert(to.id.clone());
            }
            Step::Handover(to) if handovers.is_below(&p.id, bounds.handovers_per_primary) => {
                handovers.add(&p.id, 1);
                begun.put(1, to, ix, s.cver);
            }
            Step::Handover(_) => out.waiting += 1,
            Step::Remove(node) => begun.put(2, node, ix, s.cver),
        }
    }
    for ix in early.into_iter().filter(|_| all_begun) {
        let (s, goal) = (&cfg.slots[ix], &goals.kinds[goals.of[ix] as usize]);
        if let (Some(p), Step::Add(to)) = (&s.primary, goal.step(s, Turn::Copies)) {
            begun.add(&to, ix, s, p, &mut out);
        }
    }
    out.changes = begun
        .changes
        .into_iter()
        .map(|((kind, node), slots)| {
            let change = match kind {
                0 => Change::AddLearner { node },
                1 => Change::Handover { to: node },
                _ => Change::RemoveMember { node },
            };
            SlotChange { change, runs: runs(slots), completes: 0 }
        })
        .collect();
    out
}

/// The members as an operation plans for them: those who have their place, those it is about, and none of those it removes. A
/// name that is not registered is planned for as a new node of weight 1, where all others run on one host on that too.
pub fn planned_nodes(cfg: &Config, kind: OperationKind, nodes: &[NodeId]) -> Vec<PlanNode> {
    let live = |id: &NodeId| cfg.current(id).is_some_and(|n| cfg.is_live(&n));
    let named = |id: &NodeId| nodes.contains(id);
    let mut out: Vec<PlanNode> = cfg
        .members
        .iter()
        .filter(|(id, _)| live(id))
        .map(|(id, m)| PlanNode {
            id: id.clone(),
            zone: m.zone.clone(),
            host: host(&m.peer_addr).to_owned(),
            weight: m.weight,
            accepts: match kind {
                OperationKind::ScaleOut if named(id) => may_hold(m.state) || m.state == NodeState::Standby,
                OperationKind::ScaleIn if named(id) => false,
                _ => m.state == NodeState::Up,
            },
        })
        .collect();
    if kind == OperationKind::ScaleOut {
        let first = out.first().map(|n| n.host.clone()).unwrap_or_default();
        let host = if out.iter().all(|n| n.host == first) { first } else { String::new() };
        let new = nodes.iter().filter(|id| !live(id));
        let new: Vec<PlanNode> = new
            .map(|id| PlanNode { id: id.clone(), zone: String::new(), host: host.clone(), weight: 1.0, accepts: true })
            .collect();
        out.extend(new);
    }
    out
}

/// Nodes that a drain is about and that are still there. One that ended and came back is a new life, which nobody asked to
/// leave: a restart is a drain and a return.
pub fn leaving(cfg: &Config, op: &Operation) -> Vec<Ref> {
    let drained = |n: &Ref| cfg.is_live(n) && cfg.member(n).is_some_and(|m| m.state == NodeState::Draining);
    match op.kind {
        OperationKind::ScaleIn => op.nodes.iter().filter_map(|n| cfg.current(n)).filter(drained).collect(),
        _ => Vec::new(),
    }
}

/// The members as a running operation plans for them; those of its nodes that are gone are no new ones to plan for.
pub fn nodes_of(cfg: &Config, op: &Operation) -> Vec<PlanNode> {
    let live = |id: &&NodeId| cfg.current(id).is_some_and(|n| cfg.is_live(&n));
    let about: Vec<NodeId> = match op.kind {
        OperationKind::ScaleIn => leaving(cfg, op).into_iter().map(|n| n.id).collect(),
        _ => op.nodes.iter().filter(live).cloned().collect(),
    };
    planned_nodes(cfg, op.kind, &about)
}

/// Whether a running operation's moves were planned for other members than there are now.
pub fn is_outdated(cfg: &Config, op: &Operation) -> bool {
    is_scale(op) && op.moves.is_some() && op.members != members_digest(cfg, &nodes_of(cfg, op))
}

/// What tells one set of planned nodes from another: lives and all that the planner looks at.
pub fn members_digest(cfg: &Config, nodes: &[PlanNode]) -> u64 {
    let mut hash = Xxh3::new();
    for n in nodes {
        let incarnation = cfg.members.get(&n.id).map_or(0, |m| m.incarnation.0);
        for text in [n.id.as_str(), &n.zone, &n.host] {
            hash.update(text.as_bytes());
            hash.update(&[0]);
        }
        hash.update(&incarnation.to_le_bytes());
        hash.update(&n.weight.to_bits().to_le_bytes());
        hash.update(&[u8::from(n.accepts), cfg.backups]);
    }
    hash.digest()
}

/// Who holds what, and who will: what is under way for `goals` towards nodes that still take it counts as done.
fn tables(cfg: &Config, goals: &Goals, nodes: &[PlanNode]) -> (Vec<Placement>, Vec<Placement>) {
    let accepts = |id: &&NodeId| nodes.iter().any(|n| &n.id == *id && n.accepts);
    let none = Goal::default();
    let mut now = Vec::with_capacity(cfg.slots.len());
    let mut meant = Vec::with_capacity(cfg.slots.len());
    for (ix, s) in cfg.slots.iter().enumerate() {
        let goal = goals.get(ix).unwrap_or(&none);
        let primary = s.primary.as_ref().map(|p| p.id.clone());
        let to = goal.backup_to().filter(accepts);
        let copied = to.filter(|to| s.backups().any(|r| &&r.node.id == to)).cloned();
        let backup = copied.or_else(|| s.backups().next().map(|r| r.node.id.clone()));
        let next = goal.primary_to().filter(accepts).cloned().or_else(|| primary.clone());
        let next_backup = to.cloned().or_else(|| backup.clone()).filter(|b| Some(b) != next.as_ref());
        meant.push(Placement { primary: next.filter(|_| primary.is_some()), backup: next_backup });
        now.push(Placement { primary, backup });
    }
    (now, meant)
}

/// Plans: from the table as it stands, with what `goals` has under way counted as done. Slots that nobody holds stay so: who may
/// have them is no question of balance.
pub fn planned(cfg: &Config, goals: &Goals, nodes: &[PlanNode]) -> Plan {
    let (now, meant) = tables(cfg, goals, nodes);
    let mut target = target(nodes, &meant, cfg.backups, Mode::Balance);
    for (t, n) in target.iter_mut().zip(&now).filter(|(_, n)| n.primary.is_none()) {
        t.clone_from(n);
    }
    let moves = moves(&now, &target);
    let digest = digest(&moves);
    Plan { target, moves, digest }
}

/// Plans, and knows the last plan by what it was made of: one scale-out asks three times for the same, to show it, to tell whether it
/// is still what was shown, and to begin.
#[derive(Debug, Default)]
pub struct Planner {
    last: Option<Made>,
}

/// A plan, and all that it follows from.
#[derive(Debug)]
struct Made {
    slots: SlotTable,
    backups: u8,
    nodes: Vec<PlanNode>,
    plan: Arc<Plan>,
}

impl Planner {
    /// See [`planned`].
    pub fn plan(&mut self, cfg: &Config, goals: &Goals, nodes: &[PlanNode]) -> Arc<Plan> {
        if !goals.are_none() {
            return Arc::new(planned(cfg, goals, nodes));
        }
        let fits = |m: &&Made| m.backups == cfg.backups && m.nodes == nodes && m.slots == cfg.slots;
        if let Some(made) = self.last.as_ref().filter(fits) {
            return made.plan.clone();
        }
        let plan = Arc::new(planned(cfg, goals, nodes));
        let made = Made { slots: cfg.slots.clone(), backups: cfg.backups, nodes: nodes.to_vec(), plan: plan.clone() };
        self.last = Some(made);
        plan
    }

    /// What was planned is under way: nobody asks for it again.
    pub fn forget(&mut self) {
        self.last = None;
    }
}

/// Whether an operation moves slots by plan; a rebuild makes its own.
pub fn is_scale(op: &Operation) -> bool {
    op.kind != OperationKind::Rebuild
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::id::Incarnation;

    fn node(id: &NodeId) -> Ref {
        Ref { id: id.clone(), incarnation: Incarnation(1) }
    }

    fn replica(id: &NodeId) -> Replica {
        Replica { node: node(id), since: 0 }
    }

    /// What the log makes of a step.
    fn take(slot: &mut SlotState, step: Step) {
        match step {
            Step::Add(to) => slot.learners.push(replica(&to)),
            Step::Handover(to) => slot.primary = Some(to),
            Step::Remove(node) => {
                slot.insync.retain(|r| r.node != node);
                slot.learners.retain(|r| r.node != node);
            }
            Step::Running => {
                let learners = std::mem::take(&mut slot.learners);
                assert!(!learners.is_empty(), "it waits for nothing: {slot:?}");
                slot.insync.extend(learners);
            }
            Step::Done | Step::Plan => {}
        }
    }

    #[test]
    fn the_same_is_planned_once() {
        let ids: Vec<NodeId> = (1..=3).map(|n| format!("n{n}").parse().unwrap()).collect();
        let mut cfg = Config::empty(crate::proto::id::ClusterId(1), 64);
        cfg.backups = 1;
        let held = |p: usize, b: usize| SlotState {
            primary: Some(node(&ids[p])),
            insync: vec![replica(&ids[p]), replica(&ids[b])],
            ..SlotState::default()
        };
        cfg.slots.fill(0..32, Arc::new(held(0, 1)));
        cfg.slots.fill(32..64, Arc::new(held(1, 0)));
        let plan_node = |id: &NodeId| PlanNode {
            id: id.clone(),
            zone: String::new(),
            host: String::new(),
            weight: 1.0,
            accepts: true,
        };
        let nodes: Vec<PlanNode> = ids.iter().map(plan_node).collect();
        let mut planner = Planner::default();
        let mut plan = |cfg: &Config, nodes: &[PlanNode]| planner.plan(cfg, &Goals::default(), nodes);
        let first = plan(&cfg, &nodes);
        assert!(!first.moves.is_empty());
        assert!(
            Arc::ptr_eq(&first, &plan(&cfg.clone(), &nodes)),
            "members come and go, the plan rests on what it looks at"
        );
        let fewer = plan(&cfg, &nodes[..2]);
        assert_ne!(fewer.digest, first.digest);
        assert_eq!(plan(&cfg, &nodes).digest, first.digest);
        cfg.slots.update(40, |s| s.primary = Some(node(&ids[2])));
        let other = plan(&cfg, &nodes);
        assert_eq!(other.digest, planned(&cfg, &Goals::default(), &nodes).digest);
        assert_ne!(other.digest, first.digest);
    }

    #[test]
    fn the_old_primary_stays_if_nobody_else_backs_the_slot() {
        let ids: Vec<NodeId> = (1..=2).map(|n| format!("n{n}").parse().unwrap()).collect();
        // The backup that the plan counted on was taken out meanwhile.
        let moves = Goal { primary: Some((Some(ids[0].clone()), ids[1].clone())), backup: None };
        let insync = vec![replica(&ids[0]), replica(&ids[1])];
        let mut slot = SlotState { primary: Some(node(&ids[0])), insync, ..SlotState::default() };
        let step = moves.step(&slot, Turn::Primaries);
        assert_eq!(step, Step::Handover(node(&ids[1])));
        take(&mut slot, step);
        assert_eq!(moves.step(&slot, Turn::Primaries), Step::Plan);
        // Nobody is there to take it: then it goes.
        let alone = Goal { backup: Some((Some(ids[0].clone()), None)), ..moves };
        assert_eq!(alone.step(&slot, Turn::Primaries), Step::Remove(node(&ids[0])));
    }

    /// Who else may hold the slot when a plan meets it: in sync, or being copied to.
    fn with_rests(slot: &SlotState, ids: &[NodeId]) -> Vec<SlotState> {
        let mut out = vec![slot.clone()];
        for id in ids.iter().filter(|id| !slot.insync.iter().any(|r| &r.node.id == *id)) {
            for base in out.clone() {
                if base.insync.len() + base.learners.len() == REPLICAS_MAX {
                    continue;
                }
                let (mut in_sync, mut learner) = (base.clone(), base);
                in_sync.insync.push(replica(id));
                learner.learners.push(replica(id));
                out.extend([in_sync, learner]);
            }
        }
        out
    }

    #[test]
    fn every_way_of_two_holders_to_two_others_keeps_two_copies_and_ends() {
        let ids: Vec<NodeId> = (1..=5).map(|n| format!("n{n}").parse().unwrap()).collect();
        let (p, b) = (&ids[0], &ids[1]);
        for p2 in &ids {
            for b2 in ids.iter().filter(|b2| *b2 != p2) {
                let goal = Goal {
                    primary: (p2 != p).then(|| (Some(p.clone()), p2.clone())),
                    backup: (b2 != b).then(|| (Some(b.clone()), Some(b2.clone()))),
                };
                let insync = vec![replica(p), replica(b)];
                let slot = SlotState { primary: Some(node(p)), insync, ..SlotState::default() };
                for slot in with_rests(&slot, &ids) {
                    walk(&goal, slot, p2, b2);
                }
            }
        }
    }

    /// Takes all steps, the primaries' in their turn.
    fn walk(goal: &Goal, mut slot: SlotState, p2: &NodeId, b2: &NodeId) {
        let first = slot.primary.clone();
        for turn in [Turn::Backups, Turn::Copies, Turn::Primaries] {
            for n in 0.. {
                assert!(n < 20, "{goal:?} goes on for ever: {slot:?}");
                let step = goal.step(&slot, turn);
                if step == Step::Done {
                    break;
                }
                take(&mut slot, step);
                assert!(slot.insync.len() >= 2, "{goal:?} leaves one copy: {slot:?}");
                assert!(slot.insync.len() + slot.learners.len() <= REPLICAS_MAX, "{goal:?}: {slot:?}");
            }
            assert!(!goal.backup_is_due(&slot), "{slot:?}");
            assert!(turn == Turn::Primaries || slot.primary == first, "{goal:?} moves a primary too early: {slot:?}");
        }
        assert_eq!(slot.primary.as_ref().map(|r| &r.id), Some(p2));
        let backups: Vec<&NodeId> = slot.backups().map(|r| &r.node.id).collect();
        assert_eq!(backups, [b2], "{goal:?}");
    }
}
