//! Scale-out, scale-in and rebalance, with deaths, leader changes and operators in the middle.

use super::*;
use crate::proto::operation::{Accepted, Apply, PlanView, Wish};

fn wish(kind: OperationKind, nodes: &[u8]) -> Wish {
    Wish { kind, nodes: nodes.iter().map(|n| id(*n)).collect(), force: false, accept_data_loss: false }
}

impl World {
    fn plan(&mut self, wish: &Wish) -> PlanView {
        match self.order(Message::Plan(wish.clone())) {
            Message::Planned(plan) => *plan,
            other => panic!("{other:?}"),
        }
    }

    fn apply(&mut self, wish: &Wish, plan: Option<&PlanView>) -> Result<Accepted, String> {
        let apply = Apply {
            wish: wish.clone(),
            epoch: plan.map(|p| p.epoch),
            moves_digest: plan.map(|p| p.moves_digest.clone()),
        };
        match self.order(Message::Apply(apply)) {
            Message::Accepted(a) => Ok(*a),
            Message::Error(f) => Err(f.code),
            other => panic!("{other:?}"),
        }
    }

    fn standby(&mut self, n: u8) {
        self.start(n);
        self.nodes.get_mut(&id(n)).unwrap().standby = true;
        self.until("registration", |w| w.state.cfg.members.contains_key(&id(n)));
    }

    fn op(&self, n: u64) -> &crate::node::master::state::Operation {
        &self.state.operations[&n]
    }

    /// As `at_rest`, but nodes that left are gone.
    fn settled(&self) -> bool {
        self.at_rest() && self.state.cfg.slots.iter().all(|s| s.phase == Phase::Serving)
    }

    fn leads(&self, n: u8) -> usize {
        self.state.cfg.slots.iter().filter(|s| s.primary.as_ref().is_some_and(|p| p.id == id(n))).count()
    }

    fn is_up(&self, n: u8) -> bool {
        self.state.cfg.members.get(&id(n)).is_some_and(|m| m.state == NodeState::Up)
    }

    /// Primaries led by each node that is up differ by at most so many.
    fn is_even(&self, by: usize) -> bool {
        let up = self.state.cfg.members.iter().filter(|(_, m)| m.state == NodeState::Up);
        let led: Vec<usize> = up.map(|(i, _)| self.leads(i.as_str()[1..].parse().unwrap())).collect();
        led.iter().max().unwrap() - led.iter().min().unwrap() <= by
    }
}

#[test]
fn a_node_added_by_name_gets_exactly_what_was_planned() {
    for seed in 0..10 {
        let mut w = World::formed(seed, 3);
        let out = wish(OperationKind::ScaleOut, &[4]);
        // Planned before it is there.
        let plan = w.plan(&out);
        assert!(plan.slots_total > 0 && plan.moves.iter().any(|m| m.to == id(4)));
        assert_eq!(w.apply(&out, Some(&plan)).unwrap_err(), "NO_SUCH_NODE");
        w.standby(4);
        w.run(500);
        assert_eq!(w.member(4), NodeState::Standby);
        let accepted = w.apply(&out, Some(&plan)).unwrap();
        assert_eq!((accepted.operation, &accepted.plan.moves), (Some(1), &plan.moves));
        w.until("scale-out", |w| w.settled());
        let op = w.op(1);
        assert_eq!(
            (op.state, op.slots_done, op.slots_total),
            (OperationState::Done, plan.slots_total, plan.slots_total)
        );
        assert!(w.is_even(2), "{:?}", w.state.primaries());
        assert_eq!((w.state.lost_total, w.events("node-dead")), (0, 0));
        // Nothing more is to be moved.
        assert_eq!(w.apply(&wish(OperationKind::Rebalance, &[]), None).unwrap_err(), "NOTHING_TO_DO");
        assert_eq!(w.apply(&out, None).unwrap_err(), "NOTHING_TO_DO");
    }
}

#[test]
fn a_node_that_joins_by_itself_gets_its_share() {
    let mut w = World::formed(1, 3);
    w.start(4);
    w.until("scale-out", |w| w.is_up(4) && w.settled());
    assert_eq!(w.op(1).kind, OperationKind::ScaleOut);
    assert!(w.is_even(2), "{:?}", w.state.primaries());
}

#[test]
fn a_drained_node_leaves_and_nothing_dies() {
    for seed in 0..10 {
        let mut w = World::formed(seed, 4);
        let away = wish(OperationKind::ScaleIn, &[2]);
        let plan = w.plan(&away);
        let before = w.leads(2);
        let moved: u64 =
            plan.moves.iter().filter(|m| m.role == crate::proto::operation::Role::Primary).map(|m| m.slots).sum();
        assert_eq!(moved as usize, before, "only what it leads moves");
        w.apply(&away, Some(&plan)).unwrap();
        // Asked again, it is the same.
        let again = w.order(Message::ShutdownCache(ShutdownCache { node: id(2), cfg_index: 0 }));
        assert!(matches!(again, Message::Accepted(a) if a.operation == Some(1)));
        w.until("scale-in", |w| w.settled());
        assert_eq!((w.member(2), w.op(1).state), (NodeState::Left, OperationState::Done));
        assert_eq!(w.op(1).slots_done, plan.slots_total);
        assert_eq!((w.state.lost_total, w.events("node-dead"), w.events("node-left")), (0, 0, 1));
        assert!(w.state.cfg.slots.iter().all(|s| s.insync.iter().all(|r| r.node.id != id(2))));
    }
}

/// A node says it when it is told to end, and again with its next heartbeat: the first may not be on record by then.
#[test]
fn asked_twice_at_once_a_node_leaves_once() {
    let mut w = World::formed(3, 4);
    let mut ask = |envelope: u64| {
        let message = Message::ShutdownCache(ShutdownCache { node: id(2), cfg_index: 0 });
        let event = Event::Operator { conn: OPERATOR, id: envelope, by: "n2".into(), message };
        let commands = w.brain.step(w.now, &w.state, 0, event);
        commands.iter().filter(|c| matches!(c, Command::Propose { .. })).count()
    };
    assert_eq!((ask(5), ask(6)), (1, 0));
}

#[test]
fn down_to_one_and_no_further() {
    let mut w = World::formed(1, 3);
    for n in [3, 2] {
        w.apply(&wish(OperationKind::ScaleIn, &[n]), None).unwrap();
        w.until("scale-in", |w| {
            w.member(n) == NodeState::Left && w.state.operations.values().all(|o| !o.state.is_open())
        });
        assert!(w.state.cfg.slots.iter().all(|s| s.phase == Phase::Serving && s.learners.is_empty()));
    }
    assert_eq!((w.leads(1), w.state.lost_total, w.health()), (SLOTS_OF_TEST, 0, Health::Degraded));
    let last = wish(OperationKind::ScaleIn, &[1]);
    assert_eq!(w.apply(&last, None).unwrap_err(), "LAST_NODE");
    // A second node gets backups, then half of the slots, by changing roles.
    w.start(2);
    w.until("two again", |w| w.settled());
    assert!(w.is_even(2), "{:?}", w.state.primaries());
}

#[test]
fn a_plan_that_is_no_longer_true_is_refused() {
    let mut w = World::formed(1, 3);
    w.standby(4);
    let out = wish(OperationKind::ScaleOut, &[4]);
    let plan = w.plan(&out);
    w.kill(3);
    w.until("death", |w| w.member(3) == NodeState::Dead);
    w.until("rebuild", |w| w.health() == Health::Ok);
    assert_eq!(w.apply(&out, Some(&plan)).unwrap_err(), "STALE_PLAN");
    let plan = w.plan(&out);
    w.apply(&out, Some(&plan)).unwrap();
    w.until("scale-out", |w| w.settled());
    assert_eq!(w.apply(&wish(OperationKind::ScaleIn, &[9]), None).unwrap_err(), "NO_SUCH_NODE");
    assert_eq!(w.apply(&wish(OperationKind::ScaleIn, &[3]), None).unwrap_err(), "NO_SUCH_NODE");
}

#[test]
fn force_is_refused_where_it_would_lose_something() {
    let mut w = World::formed(1, 2);
    w.kill(2);
    w.until("death", |w| w.member(2) == NodeState::Dead);
    w.start(3);
    w.copy_ms = 5000;
    w.until("a third node", |w| w.state.cfg.members.contains_key(&id(3)));
    let force = Wish { force: true, ..wish(OperationKind::ScaleIn, &[1]) };
    assert_eq!(w.apply(&force, None).unwrap_err(), "SOLE_HOLDER");
    w.copy_ms = 20;
    w.until("rebuild", |w| w.settled());
    w.start(4);
    w.until("a fourth node", |w| w.is_up(4) && w.settled());
    let accepted = w.apply(&force, None).unwrap();
    assert_eq!(accepted.operation, None);
    w.kill(1);
    w.until("rebuild", |w| w.settled());
    assert_eq!((w.member(1), w.state.lost_total), (NodeState::Left, 0));
}

#[test]
fn backups_move_first_then_primaries_and_one_operation_at_a_time() {
    let mut w = World::formed(3, 3);
    w.standby(4);
    w.standby(5);
    w.apply(&wish(OperationKind::ScaleOut, &[4]), None).unwrap();
    let second = w.apply(&wish(OperationKind::ScaleOut, &[5]), None).unwrap();
    assert_eq!(second.operation, Some(2));
    assert_eq!((w.op(2).state, w.member(5)), (OperationState::Planned, NodeState::Standby));
    w.until("the plan", |w| w.op(1).moves.is_some());
    let goals = crate::node::master::moves::Goals::new(w.op(1).moves.as_ref().unwrap(), SLOTS_OF_TEST);
    w.until("the first handover", |w| w.state.cfg.slots.iter().any(|s| s.phase == Phase::Handover));
    for (ix, s) in w.state.cfg.slots.iter().enumerate() {
        if let Some((_, Some(to))) = &goals.get(ix).unwrap().backup {
            assert!(s.insync.iter().any(|r| &r.node.id == to), "a primary moved before this backup");
        }
    }
    w.until("both", |w| w.settled());
    assert!(w.leads(5) > 0 && w.is_even(2), "{:?}", w.state.primaries());
}

#[test]
fn deaths_in_the_middle_are_planned_around() {
    for seed in 0..30 {
        for victim in 1..=4u8 {
            let mut w = World::formed(seed, 3);
            w.standby(4);
            w.copy_ms = 100;
            w.apply(&wish(OperationKind::ScaleOut, &[4]), None).unwrap();
            let wait = w.rng.random_range(0..900);
            w.run(wait);
            w.kill(victim);
            w.until("the death", |w| w.member(victim) == NodeState::Dead);
            let was_open = w.op(1).state.is_open();
            w.until("everything", |w| w.member(victim) == NodeState::Dead && w.settled());
            assert_eq!(w.state.lost_total, 0, "seed {seed}, victim {victim}");
            assert!(!was_open || w.is_even(2), "seed {seed}, victim {victim}: {:?}", w.state.primaries());
        }
    }
}

#[test]
fn a_drain_survives_leaders_and_weather() {
    for seed in 0..30 {
        let mut w = World::formed(seed, 4);
        w.weather = STORM;
        // As a node that wants to leave: again and again.
        while w.state.operations.is_empty() {
            let message = Message::ShutdownCache(ShutdownCache { node: id(2), cfg_index: 0 });
            w.hear(Event::Operator { conn: OPERATOR, id: 5, by: "n2".into(), message });
            w.run(500);
        }
        for _ in 0..3 {
            let wait = w.rng.random_range(0..1500);
            w.run(wait);
            w.elect();
        }
        w.weather = CALM;
        w.until("scale-in", |w| w.member(2) == NodeState::Left && w.settled());
        assert_eq!((w.state.lost_total, w.events("node-dead")), (0, 0), "seed {seed}");
    }
}

#[test]
fn what_is_under_way_is_finished_by_cancel_and_pause() {
    for seed in 0..20 {
        for pause in [false, true] {
            let mut w = World::formed(seed, 3);
            w.standby(4);
            w.copy_ms = 100;
            w.apply(&wish(OperationKind::ScaleOut, &[4]), None).unwrap();
            let wait = w.rng.random_range(0..700);
            w.run(wait);
            if w.op(1).state != OperationState::Running {
                continue;
            }
            let which = crate::proto::control::OperationId { operation: 1 };
            if pause {
                w.order(Message::Pause(which));
                w.run(3000);
                assert_eq!(w.op(1).state, OperationState::Paused);
                assert!(w.state.cfg.slots.iter().all(|s| s.learners.is_empty() && s.phase == Phase::Serving));
                w.order(Message::Resume(which));
            } else {
                w.order(Message::Cancel(which));
                w.until("the cancel", |w| w.op(1).state == OperationState::Cancelled);
                w.until("rest", |w| w.settled() || w.member(4) == NodeState::Joining);
                // Something may have been moved: the rest follows when somebody asks for it.
                w.until("rest", |w| w.settled());
                let _ = w.apply(&wish(OperationKind::Rebalance, &[]), None);
            }
            w.until("the end", |w| w.settled() && w.is_even(2));
            assert_eq!(w.state.lost_total, 0);
        }
    }
}

#[test]
fn a_handover_that_hangs_is_taken_back_and_tried_again() {
    let mut w = World::formed(1, 3);
    w.standby(4);
    w.nodes.get_mut(&id(1)).unwrap().clings = true;
    w.apply(&wish(OperationKind::ScaleOut, &[4]), None).unwrap();
    let n1 = |s: &SlotState| s.primary.as_ref().is_some_and(|p| p.id == id(1));
    w.until("a handover", |w| w.state.cfg.slots.iter().any(|s| n1(s) && s.phase == Phase::Handover));
    w.until("its end", |w| !w.state.cfg.slots.iter().any(|s| n1(s) && s.phase == Phase::Handover));
    assert!(w.brain.figures().retries > 0);
    w.nodes.get_mut(&id(1)).unwrap().clings = false;
    w.until("scale-out", |w| w.settled());
    assert!(w.is_even(2));
}

#[test]
fn a_copy_that_hangs_is_given_up_and_planned_anew() {
    let mut w = World::formed(1, 4);
    w.copy_ms = u64::MAX;
    w.kill(4);
    w.until("copies", |w| w.state.cfg.slots.iter().any(|s| !s.learners.is_empty()));
    let learners = |w: &World| -> BTreeMap<usize, u64> {
        w.state.cfg.slots.iter().enumerate().filter_map(|(ix, s)| Some((ix, s.learners.first()?.since))).collect()
    };
    let first = learners(&w);
    w.run(moves::STUCK_MS - 5000);
    assert_eq!(learners(&w), first, "given up too soon");
    w.run(10_000);
    assert!(first.iter().all(|(ix, since)| learners(&w).get(ix) != Some(since)), "still the same copies");
    w.copy_ms = 20;
    w.until("rebuild", |w| w.settled());
}
