//! What may happen to a cluster, and what the masters must make of it.

use super::*;

#[test]
fn a_cluster_forms_when_all_expected_nodes_are_there() {
    let mut w = World::new(1, 2, params());
    w.run(1000);
    assert!(!w.state.is_formed(), "the third may still come");
    w.start(3);
    let ms = w.until("formation", |w| w.at_rest());
    assert!(ms < 1000, "{ms}");
    assert_eq!(w.state.cfg.members.values().filter(|m| m.state == NodeState::Up).count(), 3);
    assert!(w.state.primaries().values().all(|n| (20..=23).contains(n)), "{:?}", w.state.primaries());
    assert_eq!(w.events("formed"), 1);
}

#[test]
fn fewer_nodes_form_a_cluster_when_the_wait_is_over() {
    let mut w = World::new(1, 1, params());
    let ms = w.until("formation", |w| w.state.is_formed());
    assert!(ms >= 3000, "{ms}");
    w.run(500);
    assert_eq!(w.health(), Health::Degraded, "one node, one backup asked for");
    assert!(w.state.operations.is_empty(), "nobody can take a backup, so nothing is begun");
    // The second one takes the backups.
    w.start(2);
    w.until("rebuild", |w| w.at_rest());
    assert_eq!(w.events("rebuilt"), 1);
}

#[test]
fn without_backups_one_node_is_enough() {
    let mut w = World::new(1, 1, BrainParams { backups: 0, expect_nodes: 1, ..params() });
    w.until("formation", |w| w.health() == Health::Ok);
    assert!(w.state.cfg.slots.iter().all(|s| s.insync.len() == 1));
}

#[test]
fn a_killed_node_is_replaced_at_once_and_its_copies_are_rebuilt() {
    let mut w = World::formed(1, 3);
    w.kill(2);
    let ms = w.until("death", |w| w.member(2) == NodeState::Dead);
    assert!(ms <= 300, "{ms}");
    assert!(w.state.cfg.slots.iter().all(|s| s.phase == Phase::Serving));
    assert_eq!(w.health(), Health::Degraded);
    w.until("rebuild", |w| w.at_rest());
    assert_eq!(w.state.lost_total, 0);
    let op = w.state.operations.values().next().unwrap();
    assert_eq!((op.state, op.slots_done), (OperationState::Done, op.slots_total));
}

#[test]
fn a_paused_node_is_suspect_then_dead_then_comes_back_as_a_new_life() {
    let mut w = World::formed(1, 3);
    w.pause(2, true);
    w.run(SUSPECT_MS + 100);
    assert_eq!((w.health(), w.events("node-suspect")), (Health::Degraded, 1));
    let ms = w.until("death", |w| w.member(2) == NodeState::Dead);
    assert!((DEAD_MS - SUSPECT_MS - 400..=DEAD_MS - SUSPECT_MS + 200).contains(&ms), "{ms}");
    w.until("rebuild", |w| w.health() == Health::Ok);
    w.pause(2, false);
    w.until("return", |w| w.at_rest());
    assert_eq!((w.state.lost_total, w.events("node-back")), (0, 0));
}

#[test]
fn a_short_pause_is_forgiven() {
    let mut w = World::formed(1, 3);
    w.pause(2, true);
    w.run(2000);
    w.pause(2, false);
    w.run(2000);
    assert_eq!((w.member(2), w.events("node-dead"), w.events("node-recovered")), (NodeState::Up, 0, 1));
}

#[test]
fn a_process_started_again_ends_its_old_life_at_once() {
    let mut w = World::formed(1, 3);
    // The connection's end is not noticed, as after a power cut.
    w.nodes.get_mut(&id(2)).unwrap().conn = None;
    w.start(2);
    w.until("the new life", |w| w.state.cfg.members[&id(2)].incarnation == Incarnation(w.nodes[&id(2)].life));
    assert_eq!(w.events("node-dead"), 1);
    w.until("rebuild", |w| w.at_rest());
    assert_eq!(w.state.lost_total, 0);
}

#[test]
fn both_holders_killed_is_one_loss_told_once() {
    let mut w = World::formed(1, 4);
    let held: Vec<usize> = (0..SLOTS_OF_TEST)
        .filter(|ix| {
            let s = &w.state.cfg.slots[*ix];
            s.insync.iter().all(|r| r.node.id == id(1) || r.node.id == id(2))
        })
        .collect();
    assert!(!held.is_empty());
    w.kill(1);
    w.kill(2);
    w.until("deaths", |w| w.member(1) == NodeState::Dead && w.member(2) == NodeState::Dead);
    let orphans = w.state.cfg.slots.iter().filter(|s| s.phase == Phase::Orphan).count();
    assert_eq!((orphans, w.health()), (held.len(), Health::Down));
    // Evidence takes its second.
    let ms = w.until("hand-out", |w| w.state.cfg.slots.iter().all(|s| s.phase == Phase::Serving));
    assert!(ms >= 900, "{ms}");
    assert_eq!((w.state.lost_total, w.events("slots-lost")), (held.len() as u64, 1));
    w.until("rebuild", |w| w.at_rest());
}

#[test]
fn deaths_known_together_go_together() {
    for seed in 0..20 {
        let mut w = World::formed(seed, 5);
        w.kill(1);
        w.kill(2);
        w.until("deaths", |w| w.events("node-dead") > 0);
        let indices: BTreeSet<u64> = w.state.events.iter().filter(|e| e.kind == "node-dead").map(|e| e.index).collect();
        assert_eq!((w.events("node-dead"), indices.len()), (2, 1), "seed {seed}");
    }
}

#[test]
fn of_two_that_die_together_the_silent_one_is_the_last_holder() {
    let mut w = World::formed(1, 5);
    w.run(300);
    w.pause(1, true);
    w.run(DEAD_MS - 450);
    let before = w.state.cfg.slots.clone();
    // An entry is under way while one is found gone and the other's timer ends.
    w.weather.commit_ms = (600, 600);
    w.kill(3);
    w.run(110);
    w.kill(2);
    w.until("deaths", |w| w.events("node-dead") == 3);
    w.weather = CALM;
    let of = |a: u8, b: u8| -> Vec<usize> {
        let pair = BTreeSet::from([id(a), id(b)]);
        let held = |s: &SlotState| s.insync.iter().map(|r| r.node.id.clone()).collect::<BTreeSet<_>>() == pair;
        before.iter().enumerate().filter(|(_, s)| held(s)).map(|(ix, _)| ix).collect()
    };
    let silent = w.state.cfg.current(&id(1));
    assert!(!of(1, 2).is_empty() && !of(2, 3).is_empty());
    assert!(of(1, 2).iter().all(|ix| w.state.cfg.slots[*ix].last_holder == silent));
    // It was only paused: what it held is not lost, but what was held by nobody else is.
    w.pause(1, false);
    w.until("return", |w| w.at_rest());
    assert_eq!((w.state.lost_total, w.events("node-back")), (of(2, 3).len() as u64, 1));
}

#[test]
fn a_beat_from_before_its_death_claims_nothing() {
    let mut w = World::formed(1, 2);
    let before = w.state.cfg.cfg_index;
    let holder = w.state.cfg.current(&id(1)).unwrap();
    w.kill(2);
    w.until("death", |w| w.member(2) == NodeState::Dead);
    w.kill(1);
    w.until("orphans", |w| w.member(1) == NodeState::Dead);
    let now = w.now;
    let mut beat = |cfg_index| {
        let msg = KeepAlive { node: holder.clone(), cfg_index, leader: None, stats: NodeStats::default() };
        let said = w.brain.step(now, &w.state, 0, Event::KeepAlive { conn: 1, id: 1, at: now, msg });
        said.iter().filter(|c| matches!(c, Command::Propose { .. })).count()
    };
    // Read late from a dead process's socket.
    assert_eq!(beat(before), 0);
    assert_eq!(beat(w.state.cfg.cfg_index), 1);
}

#[test]
fn backups_no_longer_asked_for_are_taken_out() {
    let mut w = World::formed(1, 3);
    w.commit(&Entry { at_ms: 0, by: None, act: Act::SetBackups { backups: 0 } });
    w.until("removal", |w| w.state.cfg.slots.iter().all(|s| s.insync.len() == 1));
    assert_eq!(w.health(), Health::Ok);
    w.commit(&Entry { at_ms: 0, by: None, act: Act::SetBackups { backups: 1 } });
    w.until("rebuild", |w| w.at_rest());
}

#[test]
fn a_paused_last_holder_keeps_its_slots_and_returns_with_them() {
    let mut w = World::formed(1, 2);
    w.kill(2);
    w.until("death", |w| w.member(2) == NodeState::Dead);
    w.pause(1, true);
    w.until("orphans", |w| w.member(1) == NodeState::Dead);
    // A new node is there and may hold slots, but an open port proves that the holder lives.
    w.start(3);
    w.run(8000);
    assert!(w.state.cfg.slots.iter().all(|s| s.phase == Phase::Orphan));
    w.pause(1, false);
    w.until("return", |w| w.at_rest());
    assert_eq!((w.state.lost_total, w.events("node-back"), w.events("slots-lost")), (0, 1, 0));
}

#[test]
fn where_refusals_prove_nothing_orphans_wait_for_the_same_home() {
    let mut w = World::new(1, 3, BrainParams { refused_is_death: false, ..params() });
    w.until("formation", |w| w.at_rest());
    w.kill(1);
    w.kill(2);
    w.run(DEAD_MS - 300);
    assert_eq!(w.events("node-dead"), 0);
    w.until("deaths", |w| w.member(1) == NodeState::Dead && w.member(2) == NodeState::Dead);
    w.run(8000);
    let holders: BTreeSet<NodeId> = w.state.holders.keys().map(|h| h.id.clone()).collect();
    assert!(!holders.is_empty() && w.state.lost_total == 0);
    w.start(1);
    w.start(2);
    w.until("rebuild", |w| w.at_rest());
    assert_eq!(w.events("slots-lost"), 1);
}

#[test]
fn a_whole_restart_is_one_loss_event() {
    for seed in 0..5 {
        let mut w = World::formed(seed, 3);
        for n in 1..=3 {
            w.kill(n);
        }
        // The masters went too.
        w.elect();
        w.run(700);
        for n in 1..=3 {
            w.start(n);
            w.run(300);
        }
        w.until("everything", |w| w.at_rest());
        assert_eq!((w.state.lost_total, w.events("slots-lost")), (SLOTS_OF_TEST as u64, 1));
        assert!(w.state.primaries().values().all(|n| (20..=23).contains(n)), "{:?}", w.state.primaries());
    }
}

#[test]
fn a_whole_restart_waits_for_who_is_missing_but_not_for_ever() {
    let mut w = World::formed(1, 3);
    for n in 1..=3 {
        w.kill(n);
    }
    w.elect();
    w.start(1);
    let ms =
        w.until("hand-out", |w| w.state.lost_total > 0 && w.state.cfg.slots.iter().all(|s| s.phase == Phase::Serving));
    assert!((4500..6500).contains(&ms), "{ms}");
}

#[test]
fn a_planned_stop_loses_nothing() {
    let mut w = World::formed(1, 3);
    w.hear(Event::Operator { conn: OPERATOR, id: 5, by: "cli".into(), message: Message::ClusterStop(Empty {}) });
    let ms = w.until("exit", |w| w.exited);
    assert!(ms < 1000, "{ms}");
    for n in 1..=3 {
        w.kill(n);
    }
    assert!(w.state.cfg.members.values().all(|m| m.state == NodeState::Left));
    w.run(5000);
    assert_eq!(w.events("node-dead"), 0);
    // Everything starts again.
    w.elect();
    w.start(1);
    w.run(400);
    w.start(2);
    w.run(400);
    assert!(w.state.primaries().is_empty(), "the third is awaited");
    w.start(3);
    w.until("service", |w| w.at_rest());
    assert_eq!((w.state.lost_total, w.events("slots-lost"), w.events("node-dead")), (0, 0, 0));
    assert!(w.state.primaries().values().all(|n| (20..=23).contains(n)), "{:?}", w.state.primaries());
}

#[test]
fn a_stop_goes_on_under_a_new_leader_and_ends_without_the_silent() {
    let mut w = World::formed(1, 3);
    w.pause(3, true);
    w.hear(Event::Operator { conn: OPERATOR, id: 5, by: "cli".into(), message: Message::ClusterStop(Empty {}) });
    w.until("stopping", |w| w.state.cfg.stopping);
    w.elect();
    let ms = w.until("exit", |w| w.exited);
    assert!(ms < stop::CONFIRM_MS, "{ms}");
    assert_eq!(w.member(1), NodeState::Left);
    assert_eq!(w.member(3), NodeState::Up, "it did not confirm: a member still");
    assert_eq!(w.state.lost_total, 0);
}

#[test]
fn a_backup_that_stalls_is_replaced() {
    let mut w = World::formed(1, 3);
    let lives: Vec<Ref> = (1..=3).map(|n| w.state.cfg.current(&id(n)).unwrap()).collect();
    let complain = |from: usize, about: usize| {
        Event::Complain(Complain { from: lives[from].clone(), about: lives[about].clone(), for_ms: stall::STALL_MS })
    };
    let before = w.state.cfg.slots.clone();
    // Two complain of n3; n3, as primary, complains of one of them.
    w.hear(complain(0, 2));
    w.hear(complain(1, 2));
    w.hear(complain(2, 0));
    w.run(1000);
    assert_eq!(w.events("stalled"), 3);
    for (old, new) in before.iter().zip(&w.state.cfg.slots) {
        let pair = |p: usize, b: usize| old.primary.as_ref() == Some(&lives[p]) && old.in_sync(&lives[b]);
        if pair(0, 2) || pair(1, 2) {
            assert_eq!((&new.primary, new.in_sync(&lives[2])), (&old.primary, false), "the stalling backup goes");
        } else if pair(2, 0) {
            assert_eq!(new.primary.as_ref(), Some(&lives[0]), "of a pair, who more complain of goes");
        } else {
            assert_eq!(new.primary, old.primary);
        }
    }
    assert!(w.state.cfg.slots.iter().all(|s| s.phase == Phase::Serving));
    assert_eq!(w.state.lost_total, 0);
    // Too short a stall, or one of oneself, is nothing.
    let before = w.state.cfg.cfg_index;
    w.hear(Event::Complain(Complain { from: lives[0].clone(), about: lives[1].clone(), for_ms: 1999 }));
    w.hear(complain(0, 0));
    w.run(400);
    assert!(w.state.cfg.cfg_index == before || w.events("stalled") == 3);
    w.until("rebuild", |w| w.health() == Health::Ok);
}

#[test]
fn a_leader_that_is_cut_off_hands_over_instead_of_burying_everybody() {
    let mut w = World::formed(1, 3);
    for n in 1..=3 {
        w.cut(n, true);
    }
    w.run(DEAD_MS + death::MASS_WAIT_MS + 1000);
    assert_eq!(w.events("node-dead"), 0);
    let transfers = w.said.iter().filter(|c| matches!(c, Command::Transfer { to: Some(_), answer: None })).count();
    assert_eq!(transfers, 1);
    // Nobody took over: then it decides alone, once.
    w.until("deaths", |w| w.events("node-dead") == 3);
}

#[test]
fn nodes_that_all_hang_are_dead_although_their_ports_are_open() {
    let mut w = World::formed(1, 3);
    for n in 1..=3 {
        w.pause(n, true);
    }
    w.until("deaths", |w| w.events("node-dead") == 3);
    assert!(!w.said.iter().any(|c| matches!(c, Command::Transfer { .. })));
}

#[test]
fn without_a_majority_it_neither_acknowledges_nor_decides() {
    let mut w = World::formed(1, 3);
    w.run(500);
    let acks = w.acks;
    assert!(acks > 0);
    // Ticks go on, Raft hears nobody.
    let start = w.now;
    let mut proposals = 0;
    for k in 1..=200u64 {
        let now = start.plus_ms(k * TICK_MS);
        let said = w.brain.step(now, &w.state, 0, Event::Tick);
        if k * TICK_MS > QUORUM_MS {
            proposals += said.iter().filter(|c| matches!(c, Command::Propose { .. })).count();
            let me = w.state.cfg.current(&id(1)).unwrap();
            let msg = KeepAlive { node: me, cfg_index: 1, leader: None, stats: NodeStats::default() };
            let said = w.brain.step(now, &w.state, 0, Event::KeepAlive { conn: 1, id: 1, at: now, msg });
            assert!(matches!(said[..], [Command::Redirect { conn: 1, id: 1 }]), "{said:?}");
        }
    }
    assert_eq!(proposals, 0);
    assert!(w.brain.leading(start.plus_ms(200 * TICK_MS)).is_none());
    // Heard again: everybody gets a whole timer.
    let now = start.plus_ms(201 * TICK_MS);
    w.brain.step(now, &w.state, 0, Event::Quorum { age_ms: 0 });
    assert_eq!(w.brain.heartbeats().judge(now.plus_ms(DEAD_MS - 1)).expired, vec![]);
    assert_eq!(w.brain.heartbeats().judge(now.plus_ms(DEAD_MS)).expired.len(), 3);
}

#[test]
fn a_leader_that_was_itself_late_judges_nobody_for_it() {
    let mut w = World::formed(1, 3);
    w.now = w.now.plus_ms(20_000);
    w.hear(Event::Quorum { age_ms: 0 });
    w.hear(Event::Tick);
    w.run(1000);
    assert_eq!(w.events("node-dead"), 0);
}

#[test]
fn leadership_moves_only_to_masters_that_exist() {
    let mut w = World::formed(1, 3);
    let mut ask = |to: Option<&str>| {
        let message = Message::SwitchMaster(crate::proto::control::SwitchMaster { to: to.map(m) });
        let event = Event::Operator { conn: OPERATOR, id: 5, by: "cli".into(), message };
        match w.brain.step(w.now, &w.state, 0, event).remove(0) {
            // First it is put on record who asked, then leadership goes.
            Command::Propose { token, entry } => {
                assert!(matches!(entry.act, Act::Note { .. }) && entry.by.as_deref() == Some("cli"));
                let applied = w.commit(&entry);
                let done = Event::Proposed { token, outcome: Outcome::Applied(applied) };
                w.brain.step(w.now, &w.state, 0, done).remove(0)
            }
            other => other,
        }
    };
    assert!(matches!(ask(None), Command::Transfer { to: None, answer: Some((OPERATOR, 5)) }));
    assert!(matches!(ask(Some("m2")), Command::Transfer { to: Some(_), .. }));
    assert!(matches!(ask(Some("m1")), Command::Reply { message, .. } if matches!(*message, Message::Ok(_))));
    assert!(matches!(ask(Some("m9")), Command::Reply { message, .. } if matches!(*message, Message::Error(_))));
}

#[test]
fn an_operator_gives_up_on_a_holder_and_answers_for_it() {
    use crate::proto::control::Forget;
    let mut w = World::formed(1, 2);
    w.kill(2);
    w.until("death", |w| w.member(2) == NodeState::Dead);
    w.pause(1, true);
    w.until("orphans", |w| w.member(1) == NodeState::Dead);
    w.start(3);
    w.run(6000);
    let forget = |accept_data_loss| Message::Forget(Forget { node: id(1), accept_data_loss });
    assert!(matches!(w.order(forget(false)), Message::Error(f) if f.code == "UNSAFE"));
    w.given_up = true;
    assert_eq!(w.order(forget(true)), Message::Ok(Empty {}));
    w.until("hand-out", |w| w.state.lost_total == SLOTS_OF_TEST as u64);
    let event = w.state.events.iter().find(|e| e.kind == "node-forgotten").unwrap();
    assert_eq!(event.by.as_deref(), Some("cli[2J"), "no control characters in the record");
    // The holder lived after all: it is nobody now, and comes again as somebody new.
    w.pause(1, false);
    w.until("rebuild", |w| w.at_rest());
}

#[test]
fn a_rebuild_can_be_paused_but_not_cancelled() {
    use crate::proto::control::OperationId;
    let mut w = World::formed(1, 4);
    w.copy_ms = 3000;
    w.kill(4);
    w.until("rebuild", |w| !w.state.operations.is_empty());
    let operation = *w.state.operations.keys().next().unwrap();
    assert!(matches!(w.order(Message::Cancel(OperationId { operation })), Message::Error(f) if f.code == "UNSAFE"));
    assert_eq!(w.order(Message::Pause(OperationId { operation })), Message::Ok(Empty {}));
    w.kill(3);
    w.until("death", |w| w.member(3) == NodeState::Dead);
    let lacking = |w: &World| w.state.cfg.slots.iter().filter(|s| s.insync.len() == 1 && s.learners.is_empty()).count();
    let waits = lacking(&w);
    assert!(waits > 0);
    w.start(3);
    w.run(6000);
    assert_eq!(lacking(&w), waits, "nothing new is begun");
    assert_eq!(w.order(Message::Resume(OperationId { operation })), Message::Ok(Empty {}));
    w.start(4);
    w.until("rebuild", |w| w.at_rest());
}

/// Faults at random over an unreliable log; in the end everything runs, all are up, and what was lost was told.
#[test]
fn storms_pass() {
    for seed in 0..25 {
        let mut w = World::formed(seed, 4);
        w.weather = STORM;
        w.copy_ms = 200;
        for _ in 0..12 {
            let n = w.rng.random_range(1..=4);
            match w.rng.random_range(0..8) {
                0 => w.kill(n),
                1 => w.pause(n, true),
                2 => w.pause(n, false),
                3 => w.cut(n, true),
                4 => w.cut(n, false),
                5 => w.elect(),
                _ => {
                    if !w.nodes[&id(n)].running {
                        w.start(n);
                    }
                }
            }
            let ms = w.rng.random_range(100..5000);
            w.run(ms);
        }
        for n in 1..=4 {
            w.pause(n, false);
            w.cut(n, false);
            if !w.nodes[&id(n)].running {
                w.start(n);
            }
        }
        w.until("rest under a storm", |w| w.health() == Health::Ok);
        w.weather = CALM;
        w.until("rest", |w| w.at_rest());
        assert_eq!(w.state.lost_total > 0, w.events("slots-lost") > 0, "seed {seed}");
    }
}
