//! Drives the running operation: plans it for the members there are, takes the next steps of its slots, switches what was
//! relinquished, takes back what hangs, and ends it.
//!
//! ```text
//!  running ─▶ rebuilds go first ─▶ planned for these members? ──no──▶ Plan
//!                                      │yes
//!                                      ▼
//!       steps of slots (moves.rs) ─▶ AddLearner │ Handover │ RemoveMember ─▶ … ─▶ nothing left ─▶ SHUTDOWN_CACHE ─▶ Finish
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Brain, Command, Purpose, Turn};
use crate::node::clock::Mono;
use crate::node::master::entry::{Act, Change, OperationStep, SlotChange};
use crate::node::master::moves::{Batch, Bounds, Goals, batch, is_scale, leaving, members_digest, nodes_of, planned};
use crate::node::master::operation::runs;
use crate::node::master::state::{Operation, State};
use crate::node::mutant::{self, Mutant};
use crate::proto::control::Relinquish;
use crate::proto::id::{NodeId, Ref};
use crate::proto::operation::{OperationKind, OperationState};
use crate::proto::slot::Slot;
use crate::proto::status::NodeState;

/// A handover without a switch for this long is taken back, milliseconds: clients are parked for 4 s.
pub const ABORT_MS: u64 = 3000;
/// After a handover was taken back none begins for this long, milliseconds: what hung may hang on.
pub const AGAIN_MS: u64 = 1000;
/// A copy that brings nothing new for this long is given up and planned anew, milliseconds: twelve times what the longest stall
/// of a link may last that is not a death.
pub const STUCK_MS: u64 = 60_000;
/// It is looked for so often, milliseconds.
const STUCK_LOOK_MS: u64 = 1000;
/// SHUTDOWN_CACHE is said again after so long, milliseconds.
pub const SHUTDOWN_AGAIN_MS: u64 = 500;
/// What was copied is put on record so often while an operation runs, milliseconds: a new leader goes on counting from there.
pub const RECORD_MS: u64 = 5000;
/// Rates are means over this long, milliseconds.
const RATE_MS: u64 = 5000;
/// Promotions, and the next steps of slots, gather for so long between two entries, milliseconds, unless all that is under way is
/// there: every entry costs every process a look at all slots, and clients pay for that.
pub const GATHER_MS: u64 = 1000;
/// Where slots are without a backup, promotions gather for so long.
pub const GATHER_SOLO_MS: u64 = 50;
/// What was relinquished waits so long for what else is under way, milliseconds: the clients of both wait for every entry.
const GATHER_SWITCH_MS: u64 = 10;
/// Slots switched by one entry at most.
const SWITCHES_MAX: usize = 4096;

/// What a leader knows of the moves beyond the log; lost with its leadership, and found again.
#[derive(Debug, Default)]
pub(super) struct Moves {
    /// The goals of an operation as it was last planned: id, when it was planned, slot by slot.
    goals: Option<(u64, u64, Goals)>,
    /// What primaries relinquished, and the `cver` they did so at.
    relinquished: BTreeMap<Slot, u64>,
    /// Since when one of them waits for the others under way.
    switch_due: Option<Mono>,
    /// Handovers under way, by the slot's place.
    handovers: Vec<Given>,
    /// No handover begins before.
    again_at: Mono,
    /// Neither does any step of a slot, unless promotions came or nothing is under way.
    step_at: Mono,
    shutdown_at: Mono,
    /// What each primary said that it copied to each node, and when that last changed.
    copies: BTreeMap<(Ref, NodeId), Copies>,
    /// Learners, by slot and `since`, and when this leader first saw each.
    learning: BTreeMap<(usize, u64), Mono>,
    /// The configuration that handovers were last looked for in.
    followed: Option<u64>,
    stuck_at: Mono,
    figures: Figures,
    last_rate: Option<u64>,
    recorded_at: Mono,
    /// What the last look at all slots saw and found, so that it is not repeated at every tick.
    looked: Option<(Seen, Batch)>,
}

/// What the next steps depend on: the configuration, the plan, who is unfit, and whether only what was begun goes on.
type Seen = (u64, u64, BTreeSet<NodeId>, bool);

/// A handover under way.
#[derive(Debug)]
struct Given {
    ix: usize,
    to: Ref,
    /// Since when this leader knows of it.
    since: Mono,
}

#[derive(Debug, Clone, Copy)]
struct Copies {
    keys: u64,
    bytes: u64,
    changed: Mono,
}

/// The progress of the operation that runs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Figures {
    /// Which; 0 = none.
    pub operation: u64,
    /// Keys copied.
    pub keys_done: u64,
    /// Bytes copied.
    pub bytes_done: u64,
    /// Copies and handovers that were given up and tried again.
    pub retries: u64,
    /// (when, bytes copied, moves done), the last seconds of it.
    samples: VecDeque<(Mono, u64, u64)>,
}

impl Figures {
    /// Bytes a second over the last seconds.
    pub fn rate_bytes_per_s(&self) -> u64 {
        self.rate(|s| s.1)
    }

    /// Slot moves in a thousand seconds, likewise.
    pub fn moves_per_ks(&self) -> u64 {
        self.rate(|s| s.2 * 1000)
    }

    fn rate(&self, of: impl Fn(&(Mono, u64, u64)) -> u64) -> u64 {
        let (Some(first), Some(last)) = (self.samples.front(), self.samples.back()) else { return 0 };
        let ms = last.0.ms_since(first.0);
        of(last).saturating_sub(of(first)).saturating_mul(1000).checked_div(ms).unwrap_or(0)
    }
}

impl Moves {
    /// Bytes a second of the last copies, if there were any.
    pub(super) fn last_rate(&self) -> Option<u64> {
        self.last_rate.filter(|r| *r > 0)
    }

    /// Promotions are on their way: what they make possible is done next.
    pub(super) fn steps_follow(&mut self, now: Mono) {
        self.step_at = now;
    }

    /// Forgets the handovers that are over, and dates the new ones.
    fn follow(&mut self, state: &State, under_way: &[usize], now: Mono) {
        if self.followed == Some(state.cfg.cfg_index) {
            return;
        }
        self.followed = Some(state.cfg.cfg_index);
        let slots = &state.cfg.slots;
        let mut before = std::mem::take(&mut self.handovers).into_iter().peekable();
        let given = under_way.iter().filter_map(|&ix| {
            let to = slots.get(ix)?.handover_to.as_ref()?;
            while before.next_if(|g| g.ix < ix).is_some() {}
            let known = before.next_if(|g| g.ix == ix && g.to == *to);
            Some(known.unwrap_or_else(|| Given { ix, to: to.clone(), since: now }))
        });
        self.handovers = given.collect();
        self.relinquished.retain(|slot, cver| slots.get(slot.ix()).is_some_and(|s| s.cver == *cver));
    }
}

fn holds(state: &State, node: &Ref) -> bool {
    state.cfg.slots.iter().any(|s| s.replica(node).is_some())
}

/// The scale operation that has the turn.
pub(super) fn running(state: &State) -> Option<(u64, &Operation)> {
    state.operations.iter().find(|(_, o)| is_scale(o) && o.has_turn()).map(|(id, o)| (*id, o))
}

/// The goals of an operation, worked out once for every plan of it.
fn goals_of<'a>(known: &'a mut Option<(u64, u64, Goals)>, id: u64, op: &Operation, slots: usize) -> &'a Goals {
    let fits = known.take().filter(|(of, at, _)| (*of, *at) == (id, op.planned_at));
    let new = || (id, op.planned_at, Goals::new(op.moves.as_deref().unwrap_or_default(), slots));
    &known.insert(fits.unwrap_or_else(new)).2
}

impl Brain {
    /// The progress of the running operation as far as this leader saw it.
    pub fn figures(&self) -> &Figures {
        &self.moves.figures
    }

    /// Keeps what fits the state; the primary repeats the rest with what it then stands at.
    pub(super) fn relinquish(&mut self, state: &State, msg: &Relinquish) {
        for &(slot, cver, _seq) in &msg.slots {
            let fits = |s: &crate::proto::view::SlotState| {
                s.primary.as_ref() == Some(&msg.primary)
                    && (s.cver == cver || mutant::is(Mutant::OldRelinquish))
                    && s.handover_to.is_some()
            };
            // The final seq needs no check here: all of ack_set confirmed it, the target among them.
            if state.cfg.slots.get(slot.ix()).is_some_and(|s| fits(s)) {
                self.moves.relinquished.insert(slot, state.cfg.slots[slot.ix()].cver);
            }
        }
    }

    /// Whose move the promotion of a learner completes: the operation and how many moves, if it is the running one's.
    pub(super) fn completes(&mut self, state: &State, ix: usize, learner: &Ref) -> Option<(u64, u8)> {
        let (id, op) = running(state)?;
        let goal = self.goals_of(id, op, state.cfg.slots.len()).get(ix)?;
        let slot = state.cfg.slots.get(ix)?;
        let wanted = |to: Option<&NodeId>| to == Some(&learner.id);
        let to_primary = goal.primary.as_ref().map(|(_, to)| to);
        let to_backup = goal.backup.as_ref().and_then(|(_, to)| to.as_ref());
        (wanted(to_primary) || wanted(to_backup)).then(|| (id, goal.done_by_promotion(slot, learner)))
    }

    fn goals_of(&mut self, id: u64, op: &Operation, slots: usize) -> &Goals {
        goals_of(&mut self.moves.goals, id, op, slots)
    }

    /// Everything about moves, once a step.
    pub(super) fn move_slots(&mut self, t: &mut Turn<'_>) {
        let (now, state) = (t.now, t.state);
        self.moves.follow(state, &self.survey.handovers, now);
        self.switch(t);
        self.measure(t);
        self.give_up_stuck(t);
        if let Some((id, op)) = running(state) {
            self.advance(t, id, op);
        }
    }

    /// SWITCH what was relinquished; ABORT what hangs.
    fn switch(&mut self, t: &mut Turn<'_>) {
        let (now, state) = (t.now, t.state);
        if self.moves.handovers.is_empty() || self.is_busy(|p| matches!(p, Purpose::Switch)) {
            return;
        }
        let running = running(state);
        let Moves { goals, relinquished, handovers, .. } = &mut self.moves;
        let goals = running.map(|(id, op)| goals_of(goals, id, op, state.cfg.slots.len()));
        let mut switched: BTreeMap<(Ref, u8), Vec<(usize, u64)>> = BTreeMap::new();
        let mut late: Vec<(usize, u64)> = Vec::new();
        // Both are in order: thousands are under way, and this is looked for at every step.
        let mut said = relinquished.iter().peekable();
        for g in handovers {
            let Some(slot) = state.cfg.slots.get(g.ix) else { continue };
            while said.next_if(|(slot, _)| slot.ix() < g.ix).is_some() {}
            if said.next_if(|(of, cver)| of.ix() == g.ix && **cver == slot.cver).is_some() {
                let goal = goals.and_then(|goals| goals.get(g.ix));
                let completes = goal.map_or(0, |goal| goal.done_by_switch(slot, &g.to));
                switched.entry((g.to.clone(), completes)).or_default().push((g.ix, slot.cver));
            } else if now.ms_since(g.since) >= ABORT_MS {
                late.push((g.ix, slot.cver));
            }
            if switched.values().map(Vec::len).sum::<usize>() >= SWITCHES_MAX {
                break;
            }
        }
        let ready: usize = switched.values().map(Vec::len).sum();
        if ready > 0 && ready + late.len() < self.moves.handovers.len().min(SWITCHES_MAX) {
            let due = *self.moves.switch_due.get_or_insert(now.plus_ms(GATHER_SWITCH_MS));
            if now < due {
                return;
            }
        }
        self.moves.switch_due = None;
        let mut changes: Vec<SlotChange> = switched
            .into_iter()
            .map(|((to, completes), slots)| SlotChange { change: Change::Switch { to }, runs: runs(slots), completes })
            .collect();
        if !late.is_empty() {
            self.moves.again_at = now.plus_ms(AGAIN_MS);
            self.moves.figures.retries += 1;
            changes.push(SlotChange { change: Change::Abort, runs: runs(late), completes: 0 });
        }
        if !changes.is_empty() {
            self.propose(t, Purpose::Switch, Act::Change { op: running.map(|(id, _)| id), changes });
        }
    }

    /// Whether no client is connected anywhere, as far as the nodes' last heartbeats tell.
    fn is_quiet(&self, state: &State) -> bool {
        let nodes = state.cfg.members.keys().filter_map(|id| state.cfg.current(id));
        nodes.filter_map(|n| self.heartbeats.of(&n)).all(|beat| beat.stats().clients == 0)
    }

    /// Bytes in a slot, on average, as far as the nodes' last heartbeats tell.
    fn bytes_per_slot(&self, state: &State) -> u64 {
        let nodes = state.cfg.members.keys().filter_map(|id| state.cfg.current(id));
        let bytes = nodes.filter_map(|n| self.heartbeats.of(&n)).map(|beat| beat.stats().primary_bytes);
        bytes.sum::<u64>() / state.cfg.slots.len().max(1) as u64
    }

    fn advance(&mut self, t: &mut Turn<'_>, id: u64, op: &Operation) {
        let (now, state) = (t.now, t.state);
        // Nothing is under way that more could come of.
        let is_idle = self.survey.copies.is_empty();
        let is_busy = self.is_busy(|p| matches!(p, Purpose::Moves | Purpose::Scale | Purpose::Promote));
        if now < self.moves.step_at && !is_idle || is_busy {
            return;
        }
        let finish = op.cancelling || op.state == OperationState::Paused;
        if !finish && self.is_rebuilding(state) {
            return self.say_why(t, id, op, Some("a rebuild goes first".into()));
        }
        let nodes = nodes_of(&state.cfg, op);
        let members = members_digest(&state.cfg, &nodes);
        if !finish && (op.moves.is_none() || op.members != members) {
            let goals = goals_of(&mut self.moves.goals, id, op, state.cfg.slots.len());
            let moves = self.planner.plan(&state.cfg, goals, &nodes).moves.clone();
            self.planner.forget();
            return self.propose(t, Purpose::Scale, Act::Operation(OperationStep::Plan { id, moves, members }));
        }
        let mut unfit = self.shunned(now, state);
        if self.moves.again_at > now {
            let hung = state.cfg.members.keys().cloned();
            unfit.extend(hung);
        }
        let seen = (state.cfg.cfg_index, op.planned_at, unfit, finish);
        let looked = self.moves.looked.take().filter(|(s, _)| *s == seen);
        let fresh = looked.is_none();
        let next = match looked {
            Some((_, next)) => next,
            None => {
                let bounds = if self.is_quiet(state) { Bounds::QUIET } else { Bounds::ASKED };
                let bounds = bounds.within(self.bytes_per_slot(state));
                batch(&state.cfg, self.goals_of(id, op, state.cfg.slots.len()), &seen.2, finish, bounds)
            }
        };
        if !next.changes.is_empty() {
            self.moves.step_at = now.plus_ms(2 * GATHER_MS);
            return self.propose(t, Purpose::Moves, Act::Change { op: Some(id), changes: next.changes });
        }
        // Or orphan slots were given to a node that is drained, after its way out was planned.
        let is_over = next.running + next.waiting == 0;
        let is_stale = || next.stale > 0 || is_over && leaving(&state.cfg, op).iter().any(|n| holds(state, n));
        if fresh && !finish && is_stale() {
            let goals = self.goals_of(id, op, state.cfg.slots.len());
            let moves = planned(&state.cfg, goals, &nodes).moves;
            if op.moves.as_ref() != Some(&moves) {
                return self.propose(t, Purpose::Scale, Act::Operation(OperationStep::Plan { id, moves, members }));
            }
        }
        self.moves.looked = Some((seen, next.clone()));
        if next.running + next.waiting == 0 {
            return match (op.state, op.cancelling) {
                (_, true) => self.close(t, OperationStep::Cancelled { id }, id, op),
                (OperationState::Paused, _) => {}
                _ => self.finish(t, id, op),
            };
        }
        let reason = if next.unfit.is_empty() || finish {
            None
        } else if self.moves.again_at > now {
            Some("a handover hung and was taken back; it is tried again".to_owned())
        } else {
            let names = next.unfit.iter().map(NodeId::as_str).collect::<Vec<_>>().join(", ");
            Some(format!("{names} does not answer well enough to be given slots"))
        };
        if !op.cancelling {
            self.say_why(t, id, op, reason);
        }
    }

    /// Whether slots without a backup are getting one: they go first.
    fn is_rebuilding(&self, state: &State) -> bool {
        let paused = |o: &Operation| o.kind == OperationKind::Rebuild && o.state == OperationState::Paused;
        let copied = self.survey.solo > self.survey.lacking.len() as u64;
        let hopeless = self.fruitless.as_ref().is_some_and(|(index, _)| *index == state.cfg.cfg_index);
        self.survey.solo > 0 && !state.operations.values().any(paused) && (copied || !hopeless)
    }

    fn say_why(&mut self, t: &mut Turn<'_>, id: u64, op: &Operation, reason: Option<String>) {
        if reason != op.reason {
            let step = OperationStep::Progress { id, slots_total: None, reason: Some(reason.unwrap_or_default()) };
            self.propose(t, Purpose::Scale, Act::Operation(step));
        }
    }

    /// All slots are where they shall be. Nodes that were drained go before the operation ends.
    fn finish(&mut self, t: &mut Turn<'_>, id: u64, op: &Operation) {
        let (now, state) = (t.now, t.state);
        if op.kind == OperationKind::ScaleIn {
            let here = leaving(&state.cfg, op);
            let holding: Vec<&str> = here.iter().filter(|n| holds(state, n)).map(|n| n.id.as_str()).collect();
            if !holding.is_empty() {
                let why = format!("no other node can take what {} holds", holding.join(", "));
                return self.say_why(t, id, op, Some(why));
            }
            if !here.is_empty() {
                if self.moves.shutdown_at <= now {
                    self.moves.shutdown_at = now.plus_ms(SHUTDOWN_AGAIN_MS);
                    t.say(Command::OrderShutdown { cfg_index: state.cfg.cfg_index, nodes: here });
                }
                return;
            }
        }
        self.close(t, OperationStep::Finish { id, done: true, reason: None }, id, op);
    }

    /// The last figures go on record before an operation ends.
    fn close(&mut self, t: &mut Turn<'_>, step: OperationStep, id: u64, op: &Operation) {
        let f = &self.moves.figures;
        let (keys, bytes) = (f.keys_done, f.bytes_done);
        let step = if f.operation == id && (op.keys_done, op.bytes_done) != (keys, bytes) {
            OperationStep::Copied { id, keys, bytes }
        } else {
            step
        };
        self.propose(t, Purpose::Scale, Act::Operation(step));
    }

    /// A drained node says that it goes, or fell silent: it left, and did not die.
    pub(super) fn gone(&mut self, t: &mut Turn<'_>, node: &Ref) {
        if is_drained(t.state, node) && !self.is_busy(|p| matches!(p, Purpose::Left(n) if n == node)) {
            self.propose(t, Purpose::Left(node.clone()), Act::NodeLeft { node: node.clone() });
        }
    }

    /// Sums up what nodes say that they copied.
    fn measure(&mut self, t: &mut Turn<'_>) {
        let (now, state) = (t.now, t.state);
        let rebuild = |o: &Operation| o.kind == OperationKind::Rebuild && o.state == OperationState::Running;
        let rebuild = state.operations.iter().find(|(_, o)| rebuild(o)).map(|(id, o)| (*id, o));
        let current = rebuild.or_else(|| running(state));
        let (mut keys, mut bytes) = (0, 0);
        for node in state.cfg.members.keys().filter_map(|id| state.cfg.current(id)) {
            let Some(beat) = self.heartbeats.of(&node) else { continue };
            for c in &beat.stats().copies {
                let new = Copies { keys: c.keys, bytes: c.bytes, changed: now };
                let old = self.moves.copies.entry((node.clone(), c.to.clone())).or_insert(new);
                if (old.keys, old.bytes) != (c.keys, c.bytes) {
                    keys += c.keys.saturating_sub(old.keys);
                    bytes += c.bytes.saturating_sub(old.bytes);
                    *old = new;
                }
            }
        }
        self.moves.copies.retain(|(from, to), _| state.cfg.is_live(from) && state.cfg.members.contains_key(to));
        let Some((id, op)) = current else {
            self.moves.figures = Figures::default();
            return;
        };
        let f = &mut self.moves.figures;
        if f.operation != id {
            *f = Figures { operation: id, keys_done: op.keys_done, bytes_done: op.bytes_done, ..Figures::default() };
            self.moves.recorded_at = now;
        }
        f.keys_done += keys;
        f.bytes_done += bytes;
        if f.samples.back().is_none_or(|s| now.ms_since(s.0) >= RATE_MS / 20) {
            f.samples.push_back((now, f.bytes_done, op.slots_done));
            while f.samples.front().is_some_and(|s| now.ms_since(s.0) > RATE_MS) {
                f.samples.pop_front();
            }
        }
        let (rate, record) = (f.rate_bytes_per_s(), (f.keys_done, f.bytes_done));
        if rate > 0 {
            self.moves.last_rate = Some(rate);
        }
        let due = now.ms_since(self.moves.recorded_at) >= RECORD_MS && record != (op.keys_done, op.bytes_done);
        if due && !self.is_busy(|p| matches!(p, Purpose::Scale | Purpose::Operation)) {
            self.moves.recorded_at = now;
            let step = OperationStep::Copied { id, keys: record.0, bytes: record.1 };
            self.propose(t, Purpose::Scale, Act::Operation(step));
        }
    }

    /// Takes out learners whose copy brought nothing new for long, and gives their nodes nothing for a while.
    fn give_up_stuck(&mut self, t: &mut Turn<'_>) {
        let (now, state) = (t.now, t.state);
        // Looked at as often as it can matter.
        if self.survey.copies.is_empty() {
            self.moves.learning.clear();
            return;
        }
        if now < self.moves.stuck_at {
            return;
        }
        self.moves.stuck_at = now.plus_ms(STUCK_LOOK_MS);
        let mut learning = BTreeMap::new();
        let mut stuck: BTreeMap<Ref, Vec<(usize, u64)>> = BTreeMap::new();
        for (ix, s) in state.cfg.slots.iter().enumerate() {
            let Some(p) = &s.primary else { continue };
            for l in &s.learners {
                let since = self.moves.learning.get(&(ix, l.since)).copied().unwrap_or(now);
                learning.insert((ix, l.since), since);
                let news = self.moves.copies.get(&(p.clone(), l.node.id.clone())).map_or(since, |c| c.changed);
                if now.ms_since(since.max(news)) >= STUCK_MS {
                    stuck.entry(l.node.clone()).or_default().push((ix, s.cver));
                }
            }
        }
        self.moves.learning = learning;
        if stuck.is_empty() || self.is_busy(|p| matches!(p, Purpose::Stuck)) {
            return;
        }
        self.moves.figures.retries += 1;
        let stuck_nodes: BTreeSet<NodeId> = stuck.keys().map(|n| n.id.clone()).collect();
        for id in stuck_nodes {
            self.stalls.shun(id, now);
        }
        let changes = stuck
            .into_iter()
            .map(|(node, slots)| SlotChange { change: Change::RemoveMember { node }, runs: runs(slots), completes: 0 })
            .collect();
        self.propose(t, Purpose::Stuck, Act::Change { op: None, changes });
    }
}

/// Whether a node is being drained and holds nothing any more.
pub(super) fn is_drained(state: &State, node: &Ref) -> bool {
    state.cfg.member(node).is_some_and(|m| m.state == NodeState::Draining)
        && !state.cfg.slots.iter().any(|s| s.replica(node).is_some() || s.last_holder.as_ref() == Some(node))
}
