//! Slots without a backup get one: ADD_LEARNER in batches, PROMOTE_LEARNER as primaries report, one operation to show for it.

use std::collections::BTreeMap;

use super::moves::{GATHER_MS, GATHER_SOLO_MS};
use super::{Brain, Purpose, Turn};
use crate::node::master::entry::{Act, Change, OperationStep, SlotChange};
use crate::node::master::operation::{learners, removals, runs};
use crate::node::master::state::{Operation, State};
use crate::node::mutant::{self, Mutant};
use crate::proto::control::LearnerReady;
use crate::proto::id::Ref;
use crate::proto::operation::{OperationKind, OperationState};

/// Slots promoted by one entry at most: it stays small even if no two of them are neighbours.
pub const PROMOTIONS_MAX: usize = 4096;

/// Where no more than one in so many is still under way, those that are there wait for it a little longer.
const NEARLY: usize = 8;

/// A learner that its primary reports as counted and complete.
#[derive(Debug)]
pub(super) struct Ready {
    learner: Ref,
    cver: u64,
    since: u64,
}

impl Ready {
    /// What no leader may do: to forget which copy was reported.
    fn take_for_this_ones(&mut self, state: &State, ix: usize) {
        let Some(slot) = state.cfg.slots.get(ix) else { return };
        if let Some(r) = slot.learners.iter().find(|r| r.node == self.learner) {
            (self.cver, self.since) = (slot.cver, r.since);
        }
    }
}

/// What promotions have in common: the operation they count for, how many moves each completes, learner, its `since`.
type Promotion = (Option<u64>, u8, Ref, u64);

impl Brain {
    /// Keeps what fits the state; the primary repeats the rest with what it then stands at.
    pub(super) fn learner_ready(&mut self, state: &State, msg: &LearnerReady) {
        if let Some(copied) = &msg.copied {
            self.heartbeats.copied(&msg.primary, copied.clone());
        }
        for &(slot, cver, since) in &msg.slots {
            let mut ready = Ready { learner: msg.learner.clone(), cver, since };
            if mutant::is(Mutant::ReadyWithoutSince) {
                ready.take_for_this_ones(state, slot.ix());
            }
            let led = state.cfg.slots.get(slot.ix()).is_some_and(|s| s.primary.as_ref() == Some(&msg.primary));
            if led && fits(state, slot.ix(), &ready) {
                self.ready.insert(slot, ready);
            }
        }
    }

    /// Commits what came in; while one entry is under way the next gathers.
    pub(super) fn promote(&mut self, t: &mut Turn<'_>) {
        let state = t.state;
        if self.ready.is_empty() {
            self.gathers_since = None;
            return;
        }
        let left = self.survey.copies.values().sum::<usize>().saturating_sub(self.ready.len());
        let gather = match self.survey.solo {
            0 if left * NEARLY < self.ready.len() => GATHER_MS + GATHER_MS / 2,
            0 => GATHER_MS,
            _ => GATHER_SOLO_MS,
        };
        let since = *self.gathers_since.get_or_insert(t.now);
        if left > 0 && t.now.ms_since(since) < gather || self.is_busy(|p| matches!(p, Purpose::Promote)) {
            return;
        }
        self.gathers_since = None;
        self.moves.steps_follow(t.now);
        let rebuild = open_rebuild(state).map(|(id, _)| id);
        // By operation first: an entry counts for one.
        let mut by_copy: BTreeMap<Promotion, Vec<(usize, u64)>> = BTreeMap::new();
        let mut left = PROMOTIONS_MAX;
        while let Some((slot, ready)) = self.ready.pop_first() {
            if fits(state, slot.ix(), &ready) {
                let (op, completes) = match self.completes(state, slot.ix(), &ready.learner) {
                    Some((op, moves)) => (Some(op), moves),
                    None => (rebuild, 1),
                };
                let key = (op, completes, ready.learner, ready.since);
                by_copy.entry(key).or_default().push((slot.ix(), ready.cver));
                left -= 1;
            }
            if left == 0 {
                break;
            }
        }
        let mut by_op: BTreeMap<Option<u64>, Vec<SlotChange>> = BTreeMap::new();
        for ((op, completes, learner, since), slots) in by_copy {
            let change = Change::PromoteLearner { learner, since };
            by_op.entry(op).or_default().push(SlotChange { change, runs: runs(slots), completes });
        }
        for (op, changes) in by_op {
            self.propose(t, Purpose::Promote, Act::Change { op, changes });
        }
    }

    pub(super) fn rebuild(&mut self, t: &mut Turn<'_>) {
        let state = t.state;
        let open = open_rebuild(state);
        let solo = self.survey.solo;
        let paused = open.is_some_and(|(_, o)| o.state == OperationState::Paused);
        if !paused {
            self.start_copies(t, open.map(|(id, _)| id));
            self.remove_surplus(t);
        }
        if self.is_busy(|p| matches!(p, Purpose::Operation)) {
            return;
        }
        let under_way = solo > self.survey.lacking.len() as u64 || self.is_busy(|p| matches!(p, Purpose::Learners));
        let step = match open {
            None if solo > 0 && under_way => OperationStep::Create {
                kind: OperationKind::Rebuild,
                nodes: Vec::new(),
                slots_total: solo,
                moves_digest: 0,
            },
            None => return,
            Some((id, _)) if solo == 0 => OperationStep::Finish { id, done: true, reason: None },
            Some((id, o)) => {
                // Waits are said, and so is their end; a total only grows, since what was done stays done.
                let reason = (!paused && !under_way).then(|| "no other node can take a backup".to_owned());
                let total = o.slots_total.max(o.slots_done + solo);
                if reason == o.reason && total == o.slots_total {
                    return;
                }
                OperationStep::Progress { id, slots_total: Some(total), reason: Some(reason.unwrap_or_default()) }
            }
        };
        self.propose(t, Purpose::Operation, Act::Operation(step));
    }

    fn start_copies(&mut self, t: &mut Turn<'_>, op: Option<u64>) {
        let (now, state) = (t.now, t.state);
        if self.survey.lacking.is_empty() || self.is_busy(|p| matches!(p, Purpose::Learners)) {
            return;
        }
        let shunned = self.shunned(now, state);
        let seen = (state.cfg.cfg_index, shunned);
        if self.fruitless.as_ref() == Some(&seen) {
            return;
        }
        let changes = learners(state, &self.survey, &seen.1);
        if changes.is_empty() {
            self.fruitless = Some(seen);
            return;
        }
        self.propose(t, Purpose::Learners, Act::Change { op, changes });
    }

    /// Takes out what the cluster no longer asks for, unless a scale operation has it there on purpose.
    fn remove_surplus(&mut self, t: &mut Turn<'_>) {
        let state = t.state;
        let scaling = state.operations.values().any(|o| o.kind != OperationKind::Rebuild && o.state.is_open());
        if self.survey.surplus.is_empty() || scaling || self.is_busy(|p| matches!(p, Purpose::Removals)) {
            return;
        }
        let changes = removals(state, &self.survey);
        if !changes.is_empty() {
            self.propose(t, Purpose::Removals, Act::Change { op: None, changes });
        }
    }
}

fn fits(state: &State, ix: usize, ready: &Ready) -> bool {
    state.cfg.slots.get(ix).is_some_and(|s| {
        s.cver == ready.cver && s.learners.iter().any(|r| r.node == ready.learner && r.since == ready.since)
    })
}

fn open_rebuild(state: &State) -> Option<(u64, &Operation)> {
    let open = |o: &Operation| o.kind == OperationKind::Rebuild && o.state.is_open();
    state.operations.iter().find(|(_, o)| open(o)).map(|(id, o)| (*id, o))
}
