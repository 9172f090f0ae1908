//! Slots that move while processes die: each kill is aimed at a step of the move, as the masters' table shows it.

use std::time::{Duration, Instant};

use cachectl::proto::operation::OperationKind;
use cachectl::proto::slot::{SLOTS, Slot};
use cachectl::proto::status::{Health, NodeState};
use cachectl::proto::view::{Phase, SlotState};

use super::alone;
use super::client::Client;
use super::common::PATIENCE;
use super::fleet::{Fleet, PEER_PORT, Plan, is, is_backed, node, slots_of};
use super::load::{Load, Shape};
use super::proxy::{Proxy, Slow};

const SOME: u64 = 300;
/// One way to a node that is far away: there and back it is well within a lease.
const FAR: Duration = Duration::from_millis(50);

/// Steps of PROTOCOL section 8, as a table shows them.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Step {
    /// ADD_LEARNER is committed, copies run.
    Copying,
    /// Learners were promoted, nobody left yet.
    InSync,
    /// HANDOVER is committed, SWITCH is not.
    Handover,
}

/// A slot at that step, and between whom.
fn at_step(slots: &[SlotState], step: Step) -> Option<&SlotState> {
    slots.iter().find(|s| match step {
        Step::Copying => !s.learners.is_empty(),
        Step::InSync => s.insync.len() > 2,
        Step::Handover => s.phase == Phase::Handover,
    })
}

/// Looks until some slot is at that step while every slot has its backup, so that a kill there is a single fault; none if
/// moves ended without being seen so.
fn catch(f: &Fleet, step: Step) -> Option<SlotState> {
    let end = Instant::now() + PATIENCE;
    let mut quiet = 0;
    while Instant::now() < end && quiet < 20 {
        let asked = Instant::now();
        if let Some(v) = f.view() {
            let slots = slots_of(&v);
            if is_backed(&v)
                && let Some(s) = at_step(&slots, step)
            {
                return Some(s.clone());
            }
            quiet = if v.status.operations.iter().any(|o| is_open(&o.state)) { 0 } else { quiet + 1 };
        }
        // Watching must not be the load that keeps moves from going on.
        std::thread::sleep((asked.elapsed() * 3).max(Duration::from_millis(10)));
    }
    None
}

fn is_open(state: &str) -> bool {
    matches!(state, "planned" | "running" | "paused")
}

/// Everybody who runs has a share, everything is backed, no operation is open.
fn settled(f: &Fleet, nodes: &[&str]) -> cachectl::proto::status::WatchView {
    f.wait("moves to end", |v| {
        let share = |n: &&str| is(v, n, NodeState::Up) && node(v, n).primary_slots > 0;
        v.status.state == Health::Ok
            && nodes.iter().all(share)
            && !v.status.operations.iter().any(|o| is_open(&o.state))
    })
}

fn check(f: &Fleet, load: Load, said: &str) {
    load.wait_more(SOME);
    let done = load.end();
    println!("{said}; {}", done.line());
    assert_eq!(f.wait("figures", |v| v.status.leader.is_some()).status.slots.lost_total, 0);
    done.check(&mut f.client());
}

/// Enough in memory that a copy takes its time.
fn fill(c: &mut Client, n: usize) {
    let value = vec![b'x'; 1000];
    let commands: Vec<Vec<Vec<u8>>> =
        (0..n).map(|i| vec![b"SET".to_vec(), format!("fill{i}").into_bytes(), value.clone()]).collect();
    c.call_all(&commands);
}

const BIG: &[&str] = &["--memory", "256mb"];

#[test]
fn s17_leader_killed_at_each_step_of_a_move() {
    let _alone = alone();
    let mut f = Fleet::start(Plan { spare: 1, node_flags: BIG, ..Plan::default() });
    fill(&mut f.client(), 12_000);
    let load = f.load(Shape { clients: 4, ..Shape::default() });
    load.wait_more(SOME);
    f.run("n4");
    let mut met = Vec::new();
    for step in [Step::Copying, Step::InSync, Step::Handover, Step::Copying] {
        if catch(&f, step).is_none() {
            continue;
        }
        met.push(step);
        let old = f.leader();
        f.kill(&old);
        f.wait("another leader", |v| v.status.leader.as_ref().is_some_and(|l| *l != old));
        f.run(&old);
        f.wait("all masters", |v| v.status.masters.iter().all(|m| m.alive));
    }
    settled(&f, &["n1", "n2", "n3", "n4"]);
    assert!(met.contains(&Step::Copying), "{met:?}");
    assert!(f.events_of("node-dead").is_empty());
    check(&f, load, &format!("the leader was killed at {met:?}"));
}

#[test]
fn s18_primary_backup_and_target_killed_at_each_step_of_a_move() {
    let _alone = alone();
    let mut f = Fleet::start(Plan { nodes: 4, spare: 1, node_flags: BIG, ..Plan::default() });
    fill(&mut f.client(), 8000);
    let load = f.load(Shape { clients: 4, ..Shape::default() });
    load.wait_more(SOME);
    f.run("n5");
    let mut met = Vec::new();
    // Who is killed starts again and is given a share again, which is the next move.
    for (who, step) in [
        ("target", Step::Copying),
        ("primary", Step::Copying),
        ("backup", Step::Copying),
        ("target", Step::Handover),
        ("primary", Step::Handover),
    ] {
        let Some(s) = catch(&f, step) else { continue };
        let primary = s.primary.as_ref().map(|r| r.id.to_string());
        let target = match step {
            Step::Handover => s.handover_to.as_ref(),
            _ => s.learners.first().map(|r| &r.node),
        };
        let target = target.map(|r| r.id.to_string());
        let backup = s.backups().map(|r| r.node.id.to_string()).find(|b| Some(b) != target.as_ref());
        let victim = match who {
            "target" => target,
            "primary" => primary,
            _ => backup,
        };
        let Some(victim) = victim else { continue };
        f.kill(&victim);
        met.push((who, step));
        f.wait("it given up and all backed", |v| is(v, &victim, NodeState::Dead) && is_backed(v));
        f.run(&victim);
        f.wait("it back", |v| is(v, &victim, NodeState::Up) || is(v, &victim, NodeState::Joining));
    }
    settled(&f, &["n1", "n2", "n3", "n4", "n5"]);
    assert!(met.len() >= 3, "only {met:?}");
    check(&f, load, &format!("killed {met:?}"));
}

#[test]
fn s19_an_unrelated_failover_during_switch() {
    let _alone = alone();
    let mut f = Fleet::prepare(Plan { nodes: 4, spare: 1, ..Plan::default() });
    // A handover is over in a few milliseconds; where the target is far away it can be met.
    let via = f.host("c2").clone();
    let far: Vec<Proxy> = ["n1", "n2", "n3", "n4"]
        .into_iter()
        .flat_map(|n| [("n5", n), (n, "n5")])
        .map(|(from, to)| Proxy::bytes(f.host(from), f.host(to).at(PEER_PORT), &via, f.plan.seed))
        .collect();
    far.iter().for_each(|p| p.slow(Slow { delay: FAR, loss: 0.0 }));
    f.start_all();
    f.wait_ok();
    let load = f.load(Shape::default());
    load.wait_more(SOME);
    f.run("n5");
    let mut met = 0;
    for _ in 0..3 {
        let Some(s) = catch(&f, Step::Handover) else { break };
        let between = [&s.primary, &s.handover_to].map(|r| r.as_ref().map(|r| r.id.to_string()));
        let victim = ["n1", "n2", "n3", "n4"].into_iter().find(|n| !between.contains(&Some((*n).to_owned())));
        let victim = victim.expect("someone else");
        f.kill(victim);
        met += 1;
        f.wait("it given up and all backed", |v| is(v, victim, NodeState::Dead) && is_backed(v));
        f.run(victim);
        f.wait("it back", |v| is(v, victim, NodeState::Up) || is(v, victim, NodeState::Joining));
    }
    settled(&f, &["n1", "n2", "n3", "n4", "n5"]);
    assert!(met > 0, "no handover was seen");
    check(&f, load, &format!("{met} failovers in a handover of others"));
}

#[test]
fn s20_a_move_under_the_highest_write_rate_to_the_moving_slots() {
    let _alone = alone();
    let mut f = Fleet::start(Plan { spare: 1, ..Plan::default() });
    f.run_at("n4", "n4", &["--standby"]);
    f.wait("n4 on standby", |v| is(v, "n4", NodeState::Standby));
    let plan = f.plan(OperationKind::ScaleOut, &["n4"]);
    let moving = |s: Slot| plan.moves.iter().any(|m| m.runs.iter().any(|(a, b)| (*a..=*b).contains(&s)));
    let tags: Vec<String> =
        (0..).map(|i| format!("{{{i}}}")).filter(|t| moving(Slot::of_key(t.as_bytes()))).take(64).collect();
    let load = f.load(Shape { clients: 24, rest: Duration::ZERO, tags, ..Shape::default() });
    load.wait_more(SOME * 4);
    let began = (Instant::now(), load.acked());
    f.apply(OperationKind::ScaleOut, &["n4"]);
    let v = settled(&f, &["n1", "n2", "n3", "n4"]);
    let took = began.0.elapsed();
    let rate = (load.acked() - began.1) as f64 / took.as_secs_f64();
    assert!(node(&v, "n4").primary_slots > SLOTS as u64 / 5);
    load.wait_more(SOME);
    let done = load.end();
    println!("moved in {took:?} under {rate:.0} operations a second to the moving slots; {}", done.line());
    done.check(&mut f.client());
    done.assert_undisturbed();
}

#[test]
fn s21_target_restarted_in_mid_copy() {
    let _alone = alone();
    let mut f = Fleet::start(Plan { spare: 1, node_flags: BIG, ..Plan::default() });
    fill(&mut f.client(), 12_000);
    let load = f.load(Shape { clients: 4, ..Shape::default() });
    load.wait_more(SOME);
    f.run("n4");
    assert!(catch(&f, Step::Copying).is_some(), "the copy was too quick to be met");
    f.kill("n4");
    f.run("n4");
    settled(&f, &["n1", "n2", "n3", "n4"]);
    check(&f, load, "the target came back empty");
}

#[test]
fn s27_drain_3_2_1_with_a_kill_and_the_last_node_refused() {
    let _alone = alone();
    let mut f = Fleet::start(Plan { node_flags: BIG, ..Plan::default() });
    fill(&mut f.client(), 12_000);
    let load = f.load(Shape { clients: 4, ..Shape::default() });
    load.wait_more(SOME);
    // One that is killed while it drains: its slots are backed, nothing is lost.
    f.apply(OperationKind::ScaleIn, &["n3"]);
    let met = catch(&f, Step::Handover).or_else(|| catch(&f, Step::Copying)).is_some();
    if f.runs("n3") {
        f.kill("n3");
    }
    f.wait("two nodes with everything", |v| {
        let gone = is(v, "n3", NodeState::Dead) || is(v, "n3", NodeState::Left);
        gone && is_backed(v) && !v.status.operations.iter().any(|o| is_open(&o.state))
    });
    load.wait_more(SOME);
    f.apply(OperationKind::ScaleIn, &["n2"]);
    assert_eq!(f.wait_end("n2"), Some(0), "a drained node ends by itself");
    let v = f.wait("one node with everything", |v| {
        is(v, "n2", NodeState::Left) && !v.status.operations.iter().any(|o| is_open(&o.state))
    });
    assert_eq!(v.status.state, Health::Degraded);
    assert_eq!(v.status.slots.serving, SLOTS as u64);
    assert_eq!(f.refused(OperationKind::ScaleIn, &["n1"]), "LAST_NODE");
    assert!(f.runs("n1"));
    check(&f, load, if met { "killed while it drained" } else { "drained before the kill" });
}

#[test]
fn s28_add_and_death_of_one_node_racing() {
    let _alone = alone();
    let mut f = Fleet::start(Plan { spare: 1, ..Plan::default() });
    let load = f.load(Shape::default());
    load.wait_more(SOME);
    f.run("n4");
    f.kill("n2");
    f.wait("three with everything", |v| {
        is(v, "n2", NodeState::Dead) && is_backed(v) && is(v, "n4", NodeState::Up) && node(v, "n4").primary_slots > 0
    });
    // The same with the one that is added.
    f.run("n2");
    f.wait("it is known", |v| is(v, "n2", NodeState::Joining) || is(v, "n2", NodeState::Up));
    f.kill("n2");
    f.wait("three with everything", |v| is(v, "n2", NodeState::Dead) && is_backed(v));
    f.run("n2");
    settled(&f, &["n1", "n2", "n3", "n4"]);
    check(&f, load, "added and died");
}
