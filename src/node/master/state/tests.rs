//! Tables for each rule, and the invariants I2, I5, I10, I12 over random entries.

use crate::node::master::moves;
use proptest::prelude::*;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::*;
use crate::node::master::entry::{OperationStep, Registration, Run};
use crate::proto::id::{Incarnation, LeaderId, MasterId};
use crate::proto::status::NodeState;
use crate::proto::view::{Replica, SlotState};

const SLOTS_OF_TEST: usize = 8;

pub(in crate::node::master) fn id(n: u8) -> NodeId {
    NodeId::new(&format!("n{n}")).unwrap()
}

fn life(n: u8, life: u64) -> Ref {
    Ref { id: id(n), incarnation: Incarnation(life) }
}

/// First life.
pub(in crate::node::master) fn n(n: u8) -> Ref {
    life(n, 1)
}

fn registration(node: Ref, home: u64) -> Registration {
    let port = 7200 + u16::from(node.id.as_str().as_bytes()[1] - b'0');
    Registration {
        addr: format!("127.0.0.1:{port}"),
        peer_addr: format!("127.0.0.1:{}", port + 10000),
        home: HomeId(home),
        zone: String::new(),
        weight: 1.0,
        standby: false,
        follows: (node.incarnation.0 > 1).then(|| Incarnation(node.incarnation.0 - 1)),
        node,
    }
}

fn run(state: &State, first: u16, last: u16) -> Run {
    Run { first: Slot(first), last: Slot(last), cver: state.cfg.slots[first as usize].cver }
}

/// A state machine that is told one act at a time.
pub(in crate::node::master) struct Log {
    pub(in crate::node::master) state: State,
}

impl Log {
    pub(in crate::node::master) fn new() -> Self {
        let mut log = Self { state: State::new(SLOTS_OF_TEST) };
        log.act(Act::Init { cluster_id: ClusterId(9), cluster: "t".into(), backups: 1 });
        log
    }

    pub(in crate::node::master) fn act(&mut self, act: Act) -> Applied {
        let before = self.state.clone();
        let index = self.state.applied + 1;
        let entry = Entry { at_ms: 1000 * index, by: None, act };
        let done = self.state.apply(index, &entry);
        check_step(&before, &self.state, &entry, &done);
        done
    }

    /// `nodes` first lives, each in its own home, with slots 0–3 at n1 backed by n2 and 4–7 the other way round.
    pub(in crate::node::master) fn formed(nodes: u8) -> Self {
        let mut log = Self::new();
        for k in 1..=nodes {
            assert_eq!(log.act(Act::Register(registration(n(k), k.into()))).answer, Answer::Done);
        }
        let placed =
            |first, last, p, b| Placed { first: Slot(first), last: Slot(last), primary: n(p), backups: vec![n(b)] };
        log.act(Act::Form { placements: vec![placed(0, 3, 1, 2), placed(4, 7, 2, 1)] });
        log
    }

    pub(in crate::node::master) fn change(&mut self, change: Change, first: u16, last: u16) -> Applied {
        let runs = vec![run(&self.state, first, last)];
        self.act(Act::Change { op: None, changes: vec![SlotChange { change, runs, completes: 0 }] })
    }

    pub(in crate::node::master) fn dead(&mut self, dead: &[Ref]) -> Applied {
        self.act(Act::NodeDead { dead: dead.to_vec(), avoid: vec![], cause: "test".into() })
    }

    fn slot(&self, ix: usize) -> &SlotState {
        &self.state.cfg.slots[ix]
    }
}

fn code(done: &Applied) -> &str {
    match &done.answer {
        Answer::Refused(f) => &f.code,
        _ => "",
    }
}

fn refs(replicas: &[Replica]) -> Vec<Ref> {
    replicas.iter().map(|r| r.node.clone()).collect()
}

/// What must hold of any state, and between any two neighbours.
pub(in crate::node) fn check_step(before: &State, after: &State, entry: &Entry, done: &Applied) {
    let (b, a) = (&before.cfg, &after.cfg);
    // I5, and `cfg_index` dates exactly the changes of members and slots.
    assert!(a.cfg_index >= b.cfg_index);
    let same = Config { cfg_index: 0, ..a.clone() } == Config { cfg_index: 0, ..b.clone() };
    assert_eq!(done.cfg_changed, a.cfg_index == done.index);
    assert!(done.cfg_changed || same, "{entry:?} changed the configuration unsaid");
    let mut empty_handed = 0;
    for (ix, (old, new)) in b.slots.iter().zip(&a.slots).enumerate() {
        assert!(new.pterm >= old.pterm && new.cver >= old.cver && new.cver >= new.pterm && a.cfg_index >= new.cver);
        if new != old {
            assert_eq!(new.cver, done.index, "slot {ix}: every change is dated");
        }
        assert_eq!(new.pterm == done.index, new.primary != old.primary || (new.pterm != old.pterm));
        if new.primary != old.primary {
            assert_eq!(new.pterm, done.index);
            let switched = matches!(entry.act, Act::Change { .. })
                && old.phase == Phase::Handover
                && old.primary.as_ref().is_some_and(|p| new.in_sync(p));
            // No wait after a switch, where the old primary stayed in sync, and where nobody ever was primary.
            // A hand-out is clean only where the slot was given up by plan.
            let planned = matches!(entry.act, Act::HandOut { .. }) && old.last_holder.is_none() && new.clean;
            assert_eq!(new.clean, switched || planned || matches!(entry.act, Act::Form { .. }));
            assert_eq!(new.returned, matches!(entry.act, Act::NodeBack { .. }));
        }
        // Shape, and I2: members are live.
        assert_eq!(new.phase == Phase::Orphan, new.primary.is_none());
        assert_eq!(new.phase == Phase::Handover, new.handover_to.is_some());
        assert!(new.phase == Phase::Orphan || new.last_holder.is_none());
        match &new.primary {
            None => assert!(new.insync.is_empty() && new.learners.is_empty()),
            Some(p) => assert!(new.in_sync(p)),
        }
        if let Some(to) = &new.handover_to {
            assert!(new.in_sync(to) && new.primary.as_ref() != Some(to));
        }
        let members = || new.insync.iter().chain(&new.learners);
        for r in members() {
            assert!(a.is_live(&r.node), "slot {ix}: {:?} is no live member", r.node);
            assert!(r.since <= new.cver);
            assert_eq!(members().filter(|o| o.node.id == r.node.id).count(), 1);
        }
        assert!(members().count() <= REPLICAS_MAX);
        // I10.
        let hands_out = matches!(entry.act, Act::Form { .. } | Act::HandOut { .. });
        match (old.phase, new.phase) {
            (Phase::Orphan, Phase::Serving) => {
                let back = matches!(&entry.act, Act::NodeBack { node } if Some(node) == old.last_holder.as_ref()
                    && Some(node) == new.primary.as_ref());
                assert!(back || hands_out, "slot {ix} left orphan by {entry:?}");
                if old.last_holder.is_some() && !back {
                    empty_handed += 1;
                }
            }
            (Phase::Orphan, Phase::Handover) => panic!("orphans are not handed over"),
            _ => {
                // Nobody gets in sync but by promotion of a learner, nobody leads but from in sync.
                assert!(new.primary.as_ref().is_none_or(|p| old.in_sync(p)));
                for r in &new.insync {
                    assert!(old.in_sync(&r.node) || old.learners.contains(r));
                }
            }
        }
        if let Some(holder) = &new.last_holder {
            assert!(!a.is_live(holder));
            assert!(after.holders.contains_key(holder));
            assert!(old.last_holder.as_ref() == Some(holder) || old.in_sync(holder));
        }
    }
    // I12.
    assert_eq!(after.lost_total - before.lost_total, empty_handed);
    assert_eq!(done.events.iter().filter(|e| e.kind == "slots-lost").count(), usize::from(empty_handed > 0));
    // Bounds and sequence.
    assert!(after.events.len() <= EVENTS_KEPT && after.buried.len() <= BURIED_KEPT);
    assert_eq!(after.event_seq - before.event_seq, done.events.len() as u64);
}

#[test]
fn a_new_cluster_serves_with_backups_at_once() {
    let log = Log::formed(2);
    for s in &log.state.cfg.slots {
        assert_eq!((s.phase, s.insync.len(), s.clean), (Phase::Serving, 2, true));
    }
    assert_eq!(log.state.cfg.members[&id(1)].state, NodeState::Up);
    assert_eq!(log.state.primaries(), Primaries::from([(id(1), 4), (id(2), 4)]));
}

#[test]
fn forming_again_changes_nothing() {
    let mut log = Log::formed(2);
    let placements = vec![Placed { first: Slot(0), last: Slot(7), primary: n(2), backups: vec![] }];
    let done = log.act(Act::Form { placements });
    assert_eq!((done.skipped.len(), done.cfg_changed), (8, false));
}

#[test]
fn a_registration_repeated_is_no_change() {
    let mut log = Log::formed(2);
    let done = log.act(Act::Register(registration(n(1), 1)));
    assert_eq!((done.answer, done.cfg_changed), (Answer::Done, false));
    let moved = Registration { addr: "127.0.0.1:9".into(), ..registration(n(1), 1) };
    assert!(log.act(Act::Register(moved)).cfg_changed);
    let other_peer = Registration { peer_addr: "127.0.0.1:9".into(), ..registration(n(1), 1) };
    assert_eq!(code(&log.act(Act::Register(other_peer))), "BAD_REGISTRATION");
}

#[test]
fn a_second_process_with_a_live_id_is_refused_unless_it_holds_the_home() {
    let mut log = Log::formed(2);
    assert_eq!(code(&log.act(Act::Register(registration(life(1, 2), 77)))), "ID_IN_USE");
    let done = log.act(Act::Register(registration(life(1, 2), 1)));
    assert_eq!(done.answer, Answer::Done);
    // The old life is dead in the same entry: promoted and removed.
    assert_eq!(log.slot(0).primary, Some(n(2)));
    assert_eq!(refs(&log.slot(4).insync), vec![n(2)]);
    assert_eq!(log.state.cfg.members[&id(1)].state, NodeState::Joining);
    assert!(done.events.iter().any(|e| e.kind == "node-dead"));
    // And it never comes back.
    assert_eq!(code(&log.act(Act::Register(registration(n(1), 1)))), "FENCED");
}

#[test]
fn what_no_honest_node_says_is_refused() {
    let mut log = Log::new();
    let good = registration(n(1), 1);
    for bad in [
        Registration { addr: String::new(), ..good.clone() },
        Registration { addr: "a\u{1b}[2J:1".into(), ..good.clone() },
        Registration { peer_addr: "x".repeat(400), ..good.clone() },
        Registration { zone: "a b".into(), ..good.clone() },
        Registration { weight: f64::NAN, ..good.clone() },
        Registration { weight: -1.0, ..good.clone() },
        Registration { weight: f64::INFINITY, ..good.clone() },
        Registration { node: life(1, 0), ..good.clone() },
    ] {
        assert_eq!(code(&log.act(Act::Register(bad.clone()))), "BAD_REGISTRATION", "{bad:?}");
    }
    assert!(log.state.cfg.members.is_empty());
}

#[test]
fn the_dead_primarys_backup_leads_alone() {
    let mut log = Log::formed(3);
    let before = log.slot(4).pterm;
    let done = log.dead(&[n(1)]);
    let s = log.slot(0);
    assert_eq!((s.primary.clone(), refs(&s.insync), s.pterm, s.clean), (Some(n(2)), vec![n(2)], done.index, false));
    // Where it was the backup the pterm stays.
    let s = log.slot(4);
    assert_eq!((refs(&s.insync), s.pterm, s.cver), (vec![n(2)], before, done.index));
    assert!(!log.dead(&[n(1)]).cfg_changed);
}

#[test]
fn promotion_prefers_target_then_trust_then_fewest_primaries_then_name() {
    let three = |to: Option<Ref>| SlotState {
        pterm: 1,
        cver: 1,
        phase: if to.is_some() { Phase::Handover } else { Phase::Serving },
        primary: Some(n(1)),
        insync: [n(1), n(2), n(3)].map(|node| Replica { node, since: 1 }).to_vec(),
        handover_to: to,
        ..SlotState::default()
    };
    let bury = |mut slot: SlotState, dead: &[Ref], avoid: &[Ref], loads: [u32; 3]| {
        let dead = dead.iter().cloned().enumerate().map(|(i, d)| (d, i)).collect();
        let mut primaries = (1..=3).map(id).zip(loads).collect();
        slots::bury(&mut slot, 5, &dead, avoid, false, &mut primaries);
        slot
    };
    assert_eq!(bury(three(None), &[n(1)], &[], [1, 1, 1]).primary, Some(n(2)));
    assert_eq!(bury(three(None), &[n(1)], &[], [1, 2, 1]).primary, Some(n(3)));
    assert_eq!(bury(three(None), &[n(1)], &[n(2)], [1, 0, 9]).primary, Some(n(3)));
    assert_eq!(bury(three(Some(n(3))), &[n(1)], &[n(3)], [1, 0, 9]).primary, Some(n(3)));
    // Survivors are emptied: learners as of this entry.
    let s = bury(three(None), &[n(1)], &[], [1, 1, 1]);
    assert_eq!(s.learners, vec![Replica { node: n(3), since: 5 }]);
    assert_eq!(refs(&s.insync), vec![n(2)]);
    // Death of the target is the abort; the primary and its pterm stay.
    let s = bury(three(Some(n(3))), &[n(3)], &[], [1, 1, 1]);
    assert_eq!((s.phase, s.handover_to, s.primary, s.pterm, s.cver), (Phase::Serving, None, Some(n(1)), 1, 5));
    // Death of another member leaves the handover alone.
    let s = bury(three(Some(n(3))), &[n(2)], &[], [1, 1, 1]);
    assert_eq!((s.phase, s.handover_to), (Phase::Handover, Some(n(3))));
    // All dead: the last of the list was the last holder.
    let s = bury(three(None), &[n(2), n(3), n(1)], &[], [1, 1, 1]);
    assert_eq!((s.phase, s.last_holder), (Phase::Orphan, Some(n(1))));
    let s = bury(three(None), &[n(1), n(3), n(2)], &[], [1, 1, 1]);
    assert_eq!(s.last_holder, Some(n(2)));
}

#[test]
fn a_learner_becomes_in_sync_only_as_it_was_added() {
    let mut log = Log::formed(3);
    log.dead(&[n(2)]);
    let added = log.change(Change::AddLearner { node: n(3) }, 0, 3);
    assert!(added.skipped.is_empty());
    // Added twice: skipped.
    assert_eq!(log.change(Change::AddLearner { node: n(3) }, 0, 3).skipped.len(), 4);
    // COUNTEREXAMPLES 4: removed and added again, the old report is of another copy.
    log.change(Change::RemoveMember { node: n(3) }, 0, 3);
    log.change(Change::AddLearner { node: n(3) }, 0, 3);
    let stale = log.change(Change::PromoteLearner { learner: n(3), since: added.index }, 0, 3);
    assert_eq!(stale.skipped.len(), 4);
    let since = log.slot(0).learners[0].since;
    assert!(log.change(Change::PromoteLearner { learner: n(3), since }, 0, 1).skipped.is_empty());
    assert_eq!(refs(&log.slot(0).insync), vec![n(1), n(3)]);
    assert_eq!(log.state.cfg.members[&id(3)].state, NodeState::Up);
    assert_eq!(log.slot(2).insync.len(), 1);
}

#[test]
fn what_differs_is_skipped_and_the_rest_applies() {
    let mut log = Log::formed(3);
    log.dead(&[n(2)]);
    log.change(Change::AddLearner { node: n(3) }, 1, 2);
    let cver = log.slot(0).cver;
    let runs = vec![Run { first: Slot(0), last: Slot(3), cver }];
    let changes = vec![SlotChange { change: Change::AddLearner { node: n(3) }, runs, completes: 0 }];
    let done = log.act(Act::Change { op: None, changes });
    assert_eq!(done.skipped, vec![Slot(1), Slot(2)]);
    assert_eq!((log.slot(0).learners.len(), log.slot(3).learners.len()), (1, 1));
    // A dead or unknown learner is skipped whole.
    assert_eq!(log.change(Change::AddLearner { node: n(2) }, 4, 7).skipped.len(), 4);
}

#[test]
fn a_handover_switches_once_and_only_at_its_cver() {
    let mut log = Log::formed(2);
    let stale = run(&log.state, 0, 3);
    log.change(Change::Handover { to: n(2) }, 0, 3);
    // COUNTEREXAMPLES 5: a switch that expects an older cver.
    let changes = vec![SlotChange { change: Change::Switch { to: n(2) }, runs: vec![stale], completes: 0 }];
    assert_eq!(log.act(Act::Change { op: None, changes }).skipped.len(), 4);
    let done = log.change(Change::Switch { to: n(2) }, 0, 1);
    let s = log.slot(0);
    assert_eq!((s.primary.clone(), s.clean, s.pterm, s.phase), (Some(n(2)), true, done.index, Phase::Serving));
    assert_eq!(s.insync.len(), 2, "the old primary stays in sync");
    assert_eq!(log.change(Change::Switch { to: n(2) }, 0, 1).skipped.len(), 2);
    let pterm = log.slot(2).pterm;
    log.change(Change::Abort, 2, 3);
    assert_eq!((log.slot(2).phase, log.slot(2).pterm), (Phase::Serving, pterm));
    assert_eq!(log.change(Change::Abort, 2, 3).skipped.len(), 2);
    // To itself, or to one that is not in sync: never.
    assert_eq!(log.change(Change::Handover { to: n(1) }, 2, 3).skipped.len(), 2);
    assert_eq!(log.change(Change::Handover { to: n(9) }, 2, 3).skipped.len(), 2);
}

#[test]
fn the_primary_is_deposed_only_for_a_backup_and_never_removed() {
    let mut log = Log::formed(3);
    assert_eq!(log.change(Change::RemoveMember { node: n(1) }, 0, 0).skipped.len(), 1);
    log.change(Change::Depose { node: n(1) }, 0, 0);
    let s = log.slot(0);
    assert_eq!((s.primary.clone(), refs(&s.insync), s.clean), (Some(n(2)), vec![n(2)], false));
    assert_eq!(log.change(Change::Depose { node: n(2) }, 0, 0).skipped.len(), 1);
}

#[test]
fn the_last_holder_comes_back_with_its_slots() {
    let mut log = Log::formed(3);
    log.dead(&[n(2)]);
    log.dead(&[n(1)]);
    let s = log.slot(0);
    assert_eq!((s.phase, s.last_holder.clone(), s.primary.clone()), (Phase::Orphan, Some(n(1)), None));
    // A copy that left the in-sync set is never promoted.
    assert_eq!(code(&log.act(Act::NodeBack { node: n(2) })), "FENCED");
    let done = log.act(Act::NodeBack { node: n(1) });
    assert_eq!(done.answer, Answer::Done);
    assert!(
        log.state.cfg.slots.iter().all(|s| s.primary == Some(n(1)) && s.insync.len() == 1 && s.pterm == done.index)
    );
    assert!(log.state.holders.is_empty());
    assert_eq!(code(&log.act(Act::NodeBack { node: n(1) })), "FENCED");
    assert_eq!(log.state.lost_total, 0);
}

#[test]
fn orphans_are_handed_out_only_when_their_holder_is_gone() {
    let mut log = Log::formed(3);
    log.dead(&[n(2), n(1)]);
    let hand_out = |log: &Log, gone: &[Ref]| Act::HandOut {
        gone: gone.to_vec(),
        runs: vec![HandedOut { run: run(&log.state, 0, 7), to: n(3), backup: None, clean: false }],
    };
    let act = hand_out(&log, &[]);
    assert_eq!(log.act(act.clone()).skipped.len(), 8);
    let act = hand_out(&log, &[n(1)]);
    let done = log.act(act.clone());
    assert!(done.skipped.is_empty());
    assert_eq!(log.state.lost_total, 8);
    assert_eq!(done.events.iter().filter(|e| e.kind == "slots-lost").count(), 1);
    // Twice: nothing more is lost.
    assert_eq!(log.act(act).skipped.len(), 8);
    assert_eq!(code(&log.act(Act::NodeBack { node: n(1) })), "FENCED");
}

#[test]
fn a_new_life_in_the_same_home_proves_the_old_one_gone() {
    let mut log = Log::formed(3);
    log.dead(&[n(2), n(1)]);
    log.act(Act::Register(registration(life(1, 2), 1)));
    assert_eq!(log.state.holders[&n(1)].gone, Some(Gone::NewLife));
    assert_eq!(code(&log.act(Act::NodeBack { node: n(1) })), "FENCED");
    let runs = vec![HandedOut { run: run(&log.state, 0, 7), to: life(1, 2), backup: Some(n(3)), clean: false }];
    assert!(log.act(Act::HandOut { gone: vec![], runs }).skipped.is_empty());
    assert_eq!((refs(&log.slot(0).insync), log.slot(0).clean), (vec![life(1, 2), n(3)], false));
    assert_eq!(log.state.lost_total, 8);
}

#[test]
fn a_new_life_from_another_home_proves_nothing() {
    let mut log = Log::formed(3);
    log.dead(&[n(2), n(1)]);
    assert_eq!(log.act(Act::Register(registration(life(1, 2), 99))).answer, Answer::Done);
    assert_eq!(log.state.holders[&n(1)].gone, None);
    // But a newer life registered, so the old one can't come back: only other evidence or an operator helps.
    assert_eq!(code(&log.act(Act::NodeBack { node: n(1) })), "FENCED");
    assert_eq!(log.act(Act::Forget { node: id(1) }).answer, Answer::Done);
    assert!(log.state.cfg.is_live(&life(1, 2)));
    let runs = vec![HandedOut { run: run(&log.state, 0, 7), to: n(3), backup: None, clean: false }];
    assert!(log.act(Act::HandOut { gone: vec![], runs }).skipped.is_empty());
}

#[test]
fn an_operator_gives_up_only_on_the_dead() {
    let mut log = Log::formed(3);
    assert_eq!(code(&log.act(Act::Forget { node: id(1) })), "NODE_LIVES");
    log.dead(&[n(2), n(1)]);
    assert_eq!(log.act(Act::Forget { node: id(1) }).answer, Answer::Done);
    assert!(!log.state.cfg.members.contains_key(&id(1)));
    assert_eq!(log.state.holders[&n(1)].gone, Some(Gone::Forgotten));
    assert_eq!(code(&log.act(Act::Register(registration(n(1), 1)))), "FENCED");
    assert_eq!(code(&log.act(Act::Forget { node: id(1) })), "NO_SUCH_NODE");
}

#[test]
fn a_planned_stop_loses_nothing_and_the_next_registration_ends_it() {
    let mut log = Log::formed(2);
    log.act(Act::Stopping);
    assert!(log.state.cfg.stopping);
    assert_eq!(code(&log.dead(&[n(1)])), "STOPPING");
    assert_eq!(code(&log.act(Act::Register(registration(life(1, 2), 1)))), "STOPPING");
    log.act(Act::Stopped { confirmed: vec![n(1), n(2)] });
    assert!(log.state.cfg.slots.iter().all(|s| s.phase == Phase::Orphan && s.last_holder.is_none() && s.pterm > 0));
    assert_eq!(log.state.cfg.members[&id(1)].state, NodeState::Left);
    log.act(Act::Register(registration(life(1, 2), 1)));
    assert!(!log.state.cfg.stopping);
    let runs = vec![HandedOut { run: run(&log.state, 0, 7), to: life(1, 2), backup: None, clean: false }];
    let done = log.act(Act::HandOut { gone: vec![], runs });
    assert!(done.skipped.is_empty());
    assert_eq!((log.state.lost_total, log.state.stopped.clone()), (0, None));
}

#[test]
fn who_did_not_confirm_the_stop_keeps_its_data() {
    let mut log = Log::formed(2);
    log.act(Act::Stopping);
    log.act(Act::Stopped { confirmed: vec![n(1)] });
    assert!(log.state.cfg.slots.iter().all(|s| s.primary == Some(n(2))));
    // After the stop the usual rules hold.
    log.dead(&[n(2)]);
    assert!(log.state.cfg.slots.iter().all(|s| s.last_holder == Some(n(2))));
}

#[test]
fn a_node_leaves_only_without_slots() {
    let mut log = Log::formed(3);
    assert_eq!(code(&log.act(Act::NodeLeft { node: n(1) })), "UNSAFE");
    log.act(Act::Drain { node: id(3), on: true });
    assert_eq!(log.state.cfg.members[&id(3)].state, NodeState::Draining);
    assert_eq!(log.act(Act::NodeLeft { node: n(3) }).answer, Answer::Done);
    assert_eq!(log.state.cfg.members[&id(3)].state, NodeState::Left);
    assert_eq!(code(&log.act(Act::Register(registration(n(3), 3)))), "FENCED");
    assert_eq!(log.act(Act::Register(registration(life(3, 2), 3))).answer, Answer::Done);
}

#[test]
fn a_standby_waits_until_it_is_admitted_and_stays_admitted() {
    let mut log = Log::formed(2);
    let standby = |l| Registration { standby: true, ..registration(life(3, l), 3) };
    log.act(Act::Register(standby(1)));
    assert_eq!(log.state.cfg.members[&id(3)].state, NodeState::Standby);
    log.act(Act::Admit { node: id(3) });
    assert_eq!(log.state.cfg.members[&id(3)].state, NodeState::Joining);
    log.act(Act::Register(standby(2)));
    assert_eq!(log.state.cfg.members[&id(3)].state, NodeState::Joining);
}

fn create(kind: OperationKind) -> Act {
    Act::Operation(OperationStep::Create { kind, nodes: vec![], slots_total: 4, moves_digest: 0 })
}

#[test]
fn one_scale_operation_at_a_time_and_rebuilds_go_first() {
    let mut log = Log::formed(3);
    assert_eq!(log.act(create(OperationKind::ScaleOut)).answer, Answer::Operation(1));
    assert_eq!(log.act(create(OperationKind::ScaleIn)).answer, Answer::Operation(2));
    assert_eq!(log.act(create(OperationKind::Rebuild)).answer, Answer::Operation(3));
    assert_eq!(log.act(create(OperationKind::Rebuild)).answer, Answer::Operation(3), "asked twice, made once");
    let state = |log: &Log, id: u64| log.state.operations[&id].state;
    assert_eq!(state(&log, 1), OperationState::Running);
    assert_eq!(state(&log, 2), OperationState::Planned);
    assert_eq!(state(&log, 3), OperationState::Running);
    log.act(Act::Operation(OperationStep::Pause { id: 1 }));
    assert_eq!(state(&log, 2), OperationState::Planned, "a paused one keeps its place");
    log.act(Act::Operation(OperationStep::Resume { id: 1 }));
    assert_eq!(state(&log, 1), OperationState::Running);
    assert_eq!(code(&log.act(Act::Operation(OperationStep::Cancel { id: 3 }))), "UNSAFE");
    log.act(Act::Operation(OperationStep::Cancel { id: 1 }));
    assert_eq!(state(&log, 2), OperationState::Planned, "what is under way is finished first");
    log.act(Act::Operation(OperationStep::Cancelled { id: 1 }));
    assert_eq!((state(&log, 1), state(&log, 2)), (OperationState::Cancelled, OperationState::Running));
    assert_eq!(code(&log.act(Act::Operation(OperationStep::Resume { id: 1 }))), "CLOSED");
    assert_eq!(code(&log.act(Act::Operation(OperationStep::Pause { id: 99 }))), "NO_SUCH_OPERATION");
    let done = log.act(Act::Operation(OperationStep::Finish { id: 3, done: true, reason: None }));
    assert_eq!(done.events[0].kind, "rebuilt");
}

#[test]
fn one_that_was_paused_while_it_waited_keeps_nobody_waiting() {
    let mut log = Log::formed(3);
    for _ in 0..4 {
        log.act(create(OperationKind::Rebalance));
    }
    let steer = |log: &mut Log, step| assert_eq!(log.act(Act::Operation(step)).answer, Answer::Done);
    let states = |log: &Log| log.state.operations.values().map(|o| o.state).collect::<Vec<_>>();
    use OperationState::{Cancelled, Done, Paused, Planned, Running};
    steer(&mut log, OperationStep::Pause { id: 2 });
    steer(&mut log, OperationStep::Pause { id: 3 });
    steer(&mut log, OperationStep::Pause { id: 1 });
    assert_eq!(states(&log), [Paused, Paused, Paused, Planned], "the first has begun");
    steer(&mut log, OperationStep::Resume { id: 1 });
    assert_eq!(states(&log), [Running, Paused, Paused, Planned]);
    steer(&mut log, OperationStep::Cancel { id: 3 });
    assert_eq!(states(&log), [Running, Paused, Cancelled, Planned], "nothing of it was begun");
    let cfg = &log.state.cfg;
    let members = moves::members_digest(cfg, &moves::nodes_of(cfg, &log.state.operations[&1]));
    steer(&mut log, OperationStep::Plan { id: 1, moves: Vec::new(), members });
    steer(&mut log, OperationStep::Finish { id: 1, done: true, reason: None });
    assert_eq!(states(&log), [Done, Paused, Cancelled, Running]);
}

#[test]
fn an_operation_ends_only_as_planned_for_who_is_there() {
    let mut log = Log::formed(3);
    log.act(create(OperationKind::ScaleOut));
    let plan = |members| Act::Operation(OperationStep::Plan { id: 1, moves: Vec::new(), members });
    let finish = Act::Operation(OperationStep::Finish { id: 1, done: true, reason: None });
    log.act(plan(7));
    assert_eq!(code(&log.act(finish.clone())), "OUTDATED");
    let cfg = &log.state.cfg;
    let members = moves::members_digest(cfg, &moves::nodes_of(cfg, &log.state.operations[&1]));
    log.act(plan(members));
    log.act(finish);
    assert_eq!(log.state.operations[&1].state, OperationState::Done);
}

#[test]
fn moves_are_counted_as_they_are_committed() {
    let mut log = Log::formed(3);
    log.dead(&[n(2)]);
    log.act(create(OperationKind::Rebuild));
    log.change(Change::AddLearner { node: n(3) }, 0, 3);
    let since = log.slot(0).learners[0].since;
    let runs = vec![run(&log.state, 0, 3)];
    let change = SlotChange { change: Change::PromoteLearner { learner: n(3), since }, runs, completes: 1 };
    let act = Act::Change { op: Some(1), changes: vec![change] };
    log.act(act.clone());
    log.act(act);
    assert_eq!(log.state.operations[&1].slots_done, 4);
}

#[test]
fn lists_that_grow_are_bounded() {
    let mut log = Log::new();
    for k in 0..(EVENTS_KEPT as u64 + 50) {
        log.act(Act::Elected { leader: LeaderId { term: k, id: MasterId::new("m1").unwrap() } });
    }
    assert_eq!(log.state.events.len(), EVENTS_KEPT);
    for k in 1..(BURIED_KEPT as u64 + 50) {
        log.act(Act::Register(registration(life(1, k), 1)));
    }
    assert_eq!(log.state.buried.len(), BURIED_KEPT);
    for _ in 0..operations::OPERATIONS_OPEN_MAX {
        log.act(create(OperationKind::Rebalance));
    }
    assert_eq!(code(&log.act(create(OperationKind::Rebalance))), "TOO_MANY");
    for id in 1..=operations::OPERATIONS_OPEN_MAX as u64 {
        log.act(Act::Operation(OperationStep::Cancel { id }));
        log.act(Act::Operation(OperationStep::Cancelled { id }));
    }
    assert_eq!(log.state.operations.len(), operations::OPERATIONS_CLOSED_KEPT);
}

/// An entry that often fits the state and often does not.
fn random_act(state: &State, rng: &mut SmallRng) -> Act {
    let some_ref = |rng: &mut SmallRng| {
        let k = rng.random_range(1..=4u8);
        match state.cfg.current(&id(k)) {
            Some(current) if rng.random_bool(0.9) => current,
            _ => life(k, rng.random_range(1..=6)),
        }
    };
    let some_run = |rng: &mut SmallRng| {
        let first = rng.random_range(0..10u16);
        let last = (first + rng.random_range(0..4)).min(if rng.random_bool(0.05) { u16::MAX } else { 7 });
        let cver = state.cfg.slots.get(first as usize).map_or(3, |s| s.cver);
        let cver = if rng.random_bool(0.9) { cver } else { cver.wrapping_sub(1) };
        Run { first: Slot(first), last: Slot(last), cver }
    };
    let list = |rng: &mut SmallRng| (0..rng.random_range(0..3)).map(|_| some_ref(rng)).collect::<Vec<_>>();
    match rng.random_range(0..100) {
        0..12 => {
            let k = rng.random_range(1..=4u8);
            let node = life(k, rng.random_range(1..=6));
            let home = if rng.random_bool(0.8) { k.into() } else { 50 };
            let last = state.cfg.members.get(&node.id).map(|m| m.incarnation).filter(|_| rng.random_bool(0.9));
            let follows = last.or_else(|| rng.random_bool(0.1).then(|| Incarnation(rng.random_range(1..=6))));
            Act::Register(Registration { standby: rng.random_bool(0.1), follows, ..registration(node, home) })
        }
        12..16 => Act::NodeDead { dead: list(rng), avoid: list(rng), cause: "random".into() },
        16..22 => {
            let holders: Vec<Ref> = state.holders.keys().cloned().collect();
            Act::NodeBack { node: holders.choose(rng).cloned().unwrap_or_else(|| some_ref(rng)) }
        }
        22..32 => {
            let placed = |rng: &mut SmallRng| {
                let r = some_run(rng);
                Placed { first: r.first, last: r.last, primary: some_ref(rng), backups: list(rng) }
            };
            Act::Form { placements: vec![placed(rng), placed(rng)] }
        }
        32..80 => {
            let change = |rng: &mut SmallRng| {
                let r = some_run(rng);
                let slot = state.cfg.slots.get(r.first.ix()).cloned().unwrap_or_default();
                let likely = match slot.phase {
                    Phase::Handover => 8,
                    _ if slot.insync.len() > 1 => 6,
                    _ if !slot.learners.is_empty() => 3,
                    _ => 0,
                };
                let change = match if rng.random_bool(0.4) { likely } else { rng.random_range(0..12) } {
                    0..3 => Change::AddLearner { node: some_ref(rng) },
                    3..6 => match slot.learners.choose(rng) {
                        Some(l) if rng.random_bool(0.9) => {
                            Change::PromoteLearner { learner: l.node.clone(), since: l.since }
                        }
                        _ => Change::PromoteLearner { learner: some_ref(rng), since: rng.random_range(0..99) },
                    },
                    6 | 7 => Change::Handover {
                        to: slot.insync.choose(rng).map_or_else(|| some_ref(rng), |r| r.node.clone()),
                    },
                    8 => Change::Switch { to: slot.handover_to.clone().unwrap_or_else(|| some_ref(rng)) },
                    9 => Change::Abort,
                    10 => Change::RemoveMember { node: some_ref(rng) },
                    _ => Change::Depose { node: slot.primary.clone().unwrap_or_else(|| some_ref(rng)) },
                };
                SlotChange { change, runs: vec![r, some_run(rng)], completes: rng.random_range(0..3) }
            };
            let changes = (0..rng.random_range(1..3)).map(|_| change(rng)).collect();
            Act::Change { op: rng.random_bool(0.5).then(|| rng.random_range(0..4)), changes }
        }
        80..86 => {
            let handed = HandedOut {
                run: some_run(rng),
                to: some_ref(rng),
                backup: rng.random_bool(0.5).then(|| some_ref(rng)),
                clean: rng.random(),
            };
            let gone = if rng.random_bool(0.5) { state.holders.keys().cloned().collect() } else { list(rng) };
            Act::HandOut { gone, runs: vec![handed] }
        }
        86 => Act::Forget { node: id(rng.random_range(1..=5)) },
        87 => Act::Drain { node: id(rng.random_range(1..=5)), on: rng.random_bool(0.7) },
        88 => Act::NodeLeft { node: some_ref(rng) },
        89 => Act::Admit { node: id(rng.random_range(1..=5)) },
        90 => Act::Settled { nodes: list(rng) },
        91 if rng.random_bool(0.3) => Act::Stopping,
        92 | 93 => Act::Stopped { confirmed: list(rng) },
        94 => Act::SetBackups { backups: rng.random_range(0..4) },
        95 => Act::Init { cluster_id: ClusterId(rng.random()), cluster: "x".into(), backups: 1 },
        96 | 97 => create(*[OperationKind::Rebuild, OperationKind::ScaleOut].choose(rng).unwrap()),
        98 => Act::Operation(OperationStep::Finish { id: rng.random_range(0..9), done: rng.random(), reason: None }),
        _ => Act::Operation(OperationStep::Progress {
            id: rng.random_range(0..9),
            slots_total: Some(rng.random()),
            reason: Some(String::new()),
        }),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Each number seeds one entry, so that a failing sequence shrinks to the entries that matter.
    #[test]
    fn invariants_hold_over_any_entries(seeds in prop::collection::vec(any::<u64>(), 1..150), init in prop::bool::weighted(0.98)) {
        let mut log = if init { Log::new() } else { Log { state: State::new(SLOTS_OF_TEST) } };
        let mut twin = log.state.clone();
        for seed in seeds {
            let mut rng = SmallRng::seed_from_u64(seed);
            let act = random_act(&log.state, &mut rng);
            let done = log.act(act.clone());
            // Deterministic, and a snapshot is the state.
            let entry = Entry { at_ms: 1000 * done.index, by: None, act };
            let wire: Entry = serde_json::from_slice(&serde_json::to_vec(&entry).unwrap()).unwrap();
            prop_assert_eq!(&wire, &entry);
            prop_assert_eq!(&twin.apply(done.index, &wire), &done);
            prop_assert_eq!(&twin, &log.state);
            // An index is applied once.
            let again = twin.apply(done.index, &entry);
            prop_assert_eq!(code(&again), "OLD_INDEX");
        }
        let snapshot: State = serde_json::from_slice(&serde_json::to_vec(&log.state).unwrap()).unwrap();
        prop_assert_eq!(&snapshot, &log.state);
    }
}

/// The random entries reach what they are meant to test.
#[test]
fn random_entries_get_everywhere() {
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for seed in 0..200 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut log = Log::new();
        for _ in 0..300 {
            let before = log.state.cfg.slots.clone();
            let act = random_act(&log.state, &mut rng);
            let done = log.act(act);
            for e in done.events {
                *seen.entry(e.kind).or_default() += 1;
            }
            for (old, new) in before.iter().zip(&log.state.cfg.slots) {
                *seen.entry(format!("{:?}-{:?}", old.phase, new.phase)).or_default() += 1;
                if new.primary != old.primary && old.primary.is_some() && new.primary.is_some() {
                    *seen.entry(if new.clean { "clean" } else { "promoted" }.into()).or_default() += 1;
                }
                if new.insync.len() > 2 {
                    *seen.entry("three in sync".into()).or_default() += 1;
                }
            }
        }
    }
    for kind in [
        "node-joined",
        "node-dead",
        "node-back",
        "node-left",
        "node-forgotten",
        "slots-lost",
        "slots-orphaned",
        "slots-handed-out",
        "slots-moved",
        "deposed",
        "stopping",
        "stopped",
        "formed",
        "clean",
        "promoted",
        "three in sync",
        "Serving-Handover",
        "Handover-Serving",
        "Handover-Orphan",
        "Serving-Orphan",
        "Orphan-Serving",
    ] {
        assert!(seen.get(kind).is_some_and(|n| *n >= 3), "{kind} is hardly ever reached: {seen:?}");
    }
}
