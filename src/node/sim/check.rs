//! What must hold at any instant (PROTOCOL section 9, I1 to I15), and at the end of a run.

use std::collections::BTreeMap;

use super::cache::Proc;
use super::client::Keys;
use super::linear::{Event, Op, Reply, Verdict, first_wrong, judge};
use super::masters::{Committed, Masters};
use super::world::World;
use crate::node::cache::shard::lock;
use crate::node::cache::slot::{Rank, Serving};
use crate::node::master::entry::Act;
use crate::node::master::heartbeat::DEAD_MS;
use crate::node::master::moves::Goals;
use crate::node::master::operation::may_hold;
use crate::node::master::state::Operation;
use crate::node::master::state::tests::check_step;
use crate::proto::id::{LeaderId, Ref};
use crate::proto::operation::OperationKind;
use crate::proto::slot::Slot;
use crate::proto::status::NodeState;
use crate::proto::view::{Phase, SlotState};

/// Something that must not be.
#[derive(Debug, Clone)]
pub struct Violation {
    pub slot: Option<u16>,
    pub text: String,
    /// When it shows, if that is not the end of the run.
    pub at: u64,
}

impl Violation {
    pub fn new(slot: Option<u16>, text: impl Into<String>) -> Self {
        Self { slot, text: text.into(), at: u64::MAX }
    }
}

/// What is remembered of a slot.
#[derive(Default)]
struct Story {
    /// pterm of the last hand-out: what came before is another story.
    begun: u64,
    /// The highest seq that some primary had confirmed since.
    acked: u64,
    /// An empty hand-out that nobody has served yet: the events of its keys.
    loss: Vec<(usize, usize)>,
}

/// What is remembered of a life.
#[derive(Default)]
struct Past {
    cfg_index: u64,
    slots: Vec<(u64, u64)>,
    leader: Option<LeaderId>,
    /// Where digests were compared last.
    compared: Vec<(u64, u64)>,
}

pub struct Checks {
    stories: Vec<Story>,
    past: BTreeMap<Ref, Past>,
    /// An operator gave up on holders that may live.
    pub given_up: bool,
    /// Slots handed out empty.
    pub lost: u64,
    /// The first time after formation, ms.
    pub steps: u64,
}

impl Checks {
    pub fn new(slots: usize) -> Self {
        Self {
            stories: (0..slots).map(|_| Story::default()).collect(),
            past: BTreeMap::new(),
            given_up: false,
            lost: 0,
            steps: 0,
        }
    }

    /// An entry was committed: I2, I5, I10, I12, and whether what was given up was really gone.
    pub fn committed(&mut self, c: &Committed, now: u64, keys: &mut Keys, nodes: &[Proc]) -> Result<(), Violation> {
        check_step(&c.before, &c.after, &c.entry, &c.done);
        add_before_remove(c)?;
        self.given_up |= matches!(c.entry.act, Act::Forget { .. });
        for (ix, (old, new)) in c.before.cfg.slots.iter().zip(&c.after.cfg.slots).enumerate() {
            let handed = old.phase == Phase::Orphan && new.phase == Phase::Serving && !new.returned;
            if !handed {
                continue;
            }
            self.stories[ix].begun = new.pterm;
            self.stories[ix].acked = 0;
            if old.pterm == 0 {
                continue;
            }
            if let Some(holder) = &old.last_holder {
                if nodes.iter().any(|n| n.dropped.contains(holder)) && !self.given_up {
                    let text = format!("I3: {holder} lived and dropped slot {ix}, which it held last");
                    return Err(Violation::new(Some(ix as u16), text));
                }
                let lives = nodes.iter().any(|n| n.running && n.me().as_ref() == Some(holder));
                if lives && !self.given_up {
                    let text = format!("{holder} lives and slot {ix}, which it held last, was handed out empty");
                    return Err(Violation::new(Some(ix as u16), text));
                }
            }
            self.lost += 1;
            for (k, (_, slot)) in keys.names.iter().enumerate() {
                if usize::from(*slot) == ix {
                    let loss = Event { op: Op::Loss, reply: Reply::Value(None), invoked: now, returned: u64::MAX };
                    self.stories[ix].loss.push((k, keys.history[k].len()));
                    keys.history[k].push(loss);
                }
            }
        }
        Ok(())
    }

    /// I15: nobody is declared dead sooner than its timer, counted from the leader's own start, but whose process is gone.
    pub fn judged(
        &self,
        now: u64,
        masters: &Masters,
        by: usize,
        dead: &[Ref],
        nodes: &[Proc],
    ) -> Result<(), Violation> {
        let m = &masters.all[by];
        for d in dead {
            let lives = nodes.iter().any(|n| n.running && n.me().as_ref() == Some(d));
            let heard = m.beats.get(d).copied().unwrap_or(0).max(m.led_since);
            let silent = m.clock.at(now).ms_since(m.clock.at(heard));
            if lives && silent < DEAD_MS {
                let text = format!("I15: {} declared {d} dead after {silent} ms", m.id);
                return Err(Violation::new(None, text));
            }
        }
        Ok(())
    }

    /// What holds at any instant.
    pub fn step(w: &mut World) -> Result<(), Violation> {
        let Some(n) = w.touched.take() else { return Ok(()) };
        w.checks.steps += 1;
        let p = &w.nodes[n];
        let Some(life) = &p.life else { return Ok(()) };
        let me = life.node.me.clone();
        let truth = w.masters.truth().clone();
        let past = w.checks.past.entry(me.clone()).or_default();
        let index = *life.node.cfg_index.borrow();
        if index < past.cfg_index || p.led_by < past.leader {
            return Err(Violation::new(None, format!("I5: {me} fell from {} to {index}", past.cfg_index)));
        }
        past.cfg_index = index;
        past.leader.clone_from(&p.led_by);
        past.slots.resize(truth.cfg.slots.len(), (0, 0));
        past.compared.resize(truth.cfg.slots.len(), (0, 0));
        let shard = lock(&life.node.shards[0]);
        let local = p.clock.at(w.net.now);
        for (ix, now_past) in past.slots.iter_mut().enumerate() {
            let slot = Slot(ix as u16);
            let s = shard.slot(slot);
            let bad = |text: String| Err(Violation::new(Some(ix as u16), text));
            if (s.pterm(), s.cver()) < *now_past || s.cver() < now_past.1 {
                return bad(format!("I5: {me} fell back in slot {ix}"));
            }
            *now_past = (s.pterm(), s.cver());
            let agreed = &truth.cfg.slots[ix];
            let story = &mut w.checks.stories[ix];
            if s.rank() == Rank::Primary {
                if s.pterm() >= story.begun {
                    story.acked = story.acked.max(s.confirmed());
                }
                if s.pterm() == agreed.pterm
                    && let Some(r) = agreed.insync.iter().find(|r| {
                        let counted = |t: &&_| is(t, r);
                        r.node != me && s.targets().iter().find(counted).is_none_or(|t| !t.in_ack_set())
                    })
                {
                    return bad(format!("I4: {me} leads slot {ix} and does not wait for {}, which is in sync", r.node));
                }
                let serves = |serving| matches!(serving, Serving::Until(_));
                if serves(s.serving(local)) && !shard.halted {
                    for (k, at) in std::mem::take(&mut story.loss) {
                        if s.pterm() >= story.begun {
                            w.keys.history[k][at].returned = w.net.now;
                        } else {
                            story.loss.push((k, at));
                        }
                    }
                    for o in w.nodes.iter().filter(|o| o.ix != n && o.running) {
                        let Some(other) = &o.life else { continue };
                        let theirs = lock(&other.node.shards[0]);
                        if serves(theirs.slot(slot).serving(o.clock.at(w.net.now)))
                            && !theirs.halted
                            && !w.checks.given_up
                        {
                            return bad(format!("I1: {me} and {} both serve slot {ix}", other.node.me));
                        }
                    }
                }
            }
            if agreed.in_sync(&me) && s.seq() < story.acked {
                let text = format!("I3: {me} is in sync in slot {ix} and has {} of {} confirmed", s.seq(), story.acked);
                return bad(text);
            }
            // I7: the same pterm and seq is the same data.
            if matches!(s.rank(), Rank::Primary | Rank::InSync) && past.compared[ix] != (s.pterm(), s.seq()) {
                past.compared[ix] = (s.pterm(), s.seq());
                for o in w.nodes.iter().filter(|o| o.ix != n && o.running) {
                    let Some(other) = &o.life else { continue };
                    let theirs = lock(&other.node.shards[0]);
                    let t = theirs.slot(slot);
                    let same = t.pterm() == s.pterm() && t.seq() == s.seq();
                    if same
                        && matches!(t.rank(), Rank::Primary | Rank::InSync)
                        && theirs.store.digest(slot) != shard.store.digest(slot)
                    {
                        return bad(format!("I7: {me} and {} differ in slot {ix} at seq {}", other.node.me, s.seq()));
                    }
                }
            }
        }
        Ok(())
    }

    /// Why the cluster is not at rest; empty = it is.
    pub fn unrest(&self, w: &World) -> String {
        let truth = w.masters.truth();
        let Some(_) = w.masters.leads(&w.net) else { return "nobody leads".into() };
        let live = |p: &&Proc| p.me().is_some_and(|me| truth.cfg.member(&me).is_some_and(|m| may_hold(m.state)));
        let holders = w.nodes.iter().filter(|p| p.running).filter(live).count();
        for (ix, s) in truth.cfg.slots.iter().enumerate() {
            if s.phase != Phase::Serving || s.insync.len() != holders.min(2) || !s.learners.is_empty() {
                return format!("slot {ix}: {}", brief_slot(s));
            }
            let serves = w.nodes.iter().filter(|p| p.running).any(|p| {
                p.life.as_ref().is_some_and(|l| {
                    let shard = lock(&l.node.shards[0]);
                    matches!(shard.slot(Slot(ix as u16)).serving(p.clock.at(w.net.now)), Serving::Until(_))
                })
            });
            if !serves {
                return format!("slot {ix} is not served");
            }
        }
        for p in w.nodes.iter().filter(|p| p.running) {
            let Some(life) = &p.life else { return format!("n{} has no life", p.ix + 1) };
            let state = truth.cfg.member(&life.node.me).map(|m| m.state);
            if !matches!(state, Some(NodeState::Up | NodeState::Standby)) {
                return format!("{} is {state:?}", life.node.me);
            }
            if *life.node.cfg_index.borrow() != truth.cfg.cfg_index {
                return format!("{} stands at {}", life.node.me, *life.node.cfg_index.borrow());
            }
        }
        // One node alone backs nothing: a rebuild waits for another.
        let waits = |o: &Operation| holders < 2 && o.kind == OperationKind::Rebuild;
        match truth.operations.iter().find(|(_, o)| o.state.is_open() && !waits(o)) {
            Some((id, o)) => format!("operation {id} is {:?}", o.state),
            None => String::new(),
        }
    }

    /// At rest: I8, and every key's history.
    pub fn end(w: &World) -> Result<u64, Violation> {
        for p in w.nodes.iter().filter(|p| p.running) {
            let Some(life) = &p.life else { continue };
            let shard = lock(&life.node.shards[0]);
            for ix in 0..w.shape.slots {
                let slot = Slot(ix as u16);
                if shard.slot(slot).rank() == Rank::None && shard.store.slot_stats(slot).keys > 0 {
                    return Err(Violation::new(Some(slot.0), format!("I8: {} holds keys of slot {ix}", life.node.me)));
                }
            }
        }
        let mut undecided = 0;
        for (k, history) in w.keys.history.iter().enumerate() {
            match judge(history) {
                Verdict::Linearizable => {}
                Verdict::Undecided => undecided += 1,
                Verdict::Not => {
                    let (name, slot) = &w.keys.names[k];
                    let text = format!("key {name} of slot {slot} is not linearizable");
                    return Err(Violation { at: first_wrong(history), ..Violation::new(Some(*slot), text) });
                }
            }
        }
        Ok(undecided)
    }
}

/// Section 8: an operation takes out no last backup where its plan has one for the slot.
fn add_before_remove(c: &Committed) -> Result<(), Violation> {
    let Act::Change { op: Some(id), .. } = &c.entry.act else { return Ok(()) };
    let (before, after) = (&c.before.cfg.slots, &c.after.cfg.slots);
    let alone = |ix: &usize| before[*ix].insync.len() > 1 && after[*ix].insync.len() == 1;
    let Some(ix) = (0..after.len()).find(alone) else { return Ok(()) };
    let moves = c.before.operations.get(id).and_then(|o| o.moves.as_deref()).unwrap_or_default();
    match &Goals::new(moves, after.len()).get(ix).unwrap().backup {
        // Nobody is left to take it.
        Some((_, None)) => Ok(()),
        _ => Err(Violation::new(Some(ix as u16), format!("operation {id} takes the last backup out of slot {ix}"))),
    }
}

fn is<P>(t: &crate::node::cache::slot::Target<P>, r: &crate::proto::view::Replica) -> bool {
    t.node == r.node && t.since == r.since
}

/// An entry in a line.
pub fn brief(act: &Act) -> String {
    let mut text = format!("{act:?}");
    if let Act::Register(r) = act {
        text = format!("Register {:?} home {:?}", r.node, r.home);
    }
    text.truncate(240);
    text
}

/// A slot in a line.
pub fn brief_slot(s: &SlotState) -> String {
    let all = |rs: &[crate::proto::view::Replica]| {
        rs.iter().map(|r| format!("{}@{}", r.node, r.since)).collect::<Vec<_>>().join(" ")
    };
    let mut text = format!("{:?} pterm {} cver {} in sync [{}]", s.phase, s.pterm, s.cver, all(&s.insync));
    if let Some(p) = &s.primary {
        text += &format!(" primary {p}");
    }
    if !s.learners.is_empty() {
        text += &format!(" learners [{}]", all(&s.learners));
    }
    if let Some(h) = &s.last_holder {
        text += &format!(" last {h}");
    }
    if let Some(to) = &s.handover_to {
        text += &format!(" to {to}");
    }
    text
}
