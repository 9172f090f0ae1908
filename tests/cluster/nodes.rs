//! Nodes that die, stop, are cut off or come back; and those that come twice.

use std::time::{Duration, Instant};

use cachectl::proto::control::{Empty, Message};
use cachectl::proto::slot::{SLOTS, Slot};
use cachectl::proto::status::{Health, NodeState};
use cachectl::proto::value::Value;
use cachectl::proto::view::SlotState;

use super::alone;
use super::client::{Client, Outcome};
use super::fleet::{Fleet, Plan, is, is_backed, node};
use super::load::Shape;

/// Operations that must be acknowledged before and after each fault: the load is real.
const SOME: u64 = 300;

#[test]
fn s01_primary_killed() {
    let _alone = alone();
    let mut f = Fleet::up();
    let load = f.load(Shape::default());
    load.wait_more(SOME);
    let (primary, backup) = f.holders("k");
    f.kill(&primary);
    let killed = Instant::now();
    f.wait("it to be given up", |v| is(v, &primary, NodeState::Dead));
    let noticed = killed.elapsed();
    let v = f.wait("its slots backed elsewhere", |v| is(v, &primary, NodeState::Dead) && is_backed(v));
    assert_eq!(v.status.slots.lost_total, 0);
    assert_eq!(f.holders("k").0, backup, "the backup leads now");
    load.wait_more(SOME);
    let done = load.end();
    let cause = &f.events_of("node-dead")[0].text;
    println!("noticed after {noticed:?}: {cause}; {}", done.line());
    done.check(&mut f.client());
}

#[test]
fn s02_backup_killed() {
    let _alone = alone();
    let mut f = Fleet::up();
    let load = f.load(Shape::default());
    load.wait_more(SOME);
    let (primary, backup) = f.holders("k");
    let mut c = f.client().patient(Duration::from_secs(15));
    assert!(matches!(c.set("k", b"before"), Outcome::Answer(_)), "it knows where the key is");
    f.kill(&backup);
    // The write waits for the backup, then for the news of its death; it never fails.
    assert!(matches!(c.set("k", b"v"), Outcome::Answer(_)), "the primary goes on alone once it may");
    let v = f.wait("its slots backed elsewhere", |v| is(v, &backup, NodeState::Dead) && is_backed(v));
    assert_eq!(v.status.slots.lost_total, 0);
    let (now, other) = f.holders("k");
    assert_eq!(now, primary);
    assert!(other != primary && other != backup);
    load.wait_more(SOME);
    let done = load.end();
    println!("{}", done.line());
    done.check(&mut c);
    assert_eq!(c.get("k").as_deref(), Some(&b"v"[..]));
}

#[test]
fn s03_primary_paused_5_s_and_resumed() {
    let _alone = alone();
    let f = Fleet::up();
    let before = f.wait_ok();
    let load = f.load(Shape::default());
    load.wait_more(SOME);
    let (primary, backup) = f.holders("k");
    f.pause(&primary);
    std::thread::sleep(Duration::from_secs(5));
    f.wait("it to be given up", |v| is(v, &primary, NodeState::Dead));
    assert_eq!(f.holders("k").0, backup);
    f.resume(&primary);
    let v = f.wait_all();
    assert_ne!(node(&v, &primary).incarnation, node(&before, &primary).incarnation, "it was fenced");
    assert_eq!(v.status.slots.lost_total, 0);
    load.wait_more(SOME);
    let done = load.end();
    println!("{}", done.line());
    done.check(&mut f.client());
}

#[test]
fn s04_primary_cut_from_masters_only() {
    let _alone = alone();
    let f = Fleet::up();
    let load = f.load(Shape::default());
    load.wait_more(SOME);
    let (primary, backup) = f.holders("k");
    f.net.cut(&[&primary], &["m1", "m2", "m3"]);
    let v = f.wait("its slots backed elsewhere", |v| is(v, &primary, NodeState::Dead) && is_backed(v));
    assert_eq!(v.status.slots.lost_total, 0);
    assert_eq!(f.holders("k").0, backup);
    // No master tells it anything, but it knows who has its slots: whoever asks is not kept waiting.
    let (cut, mut c) = (f.node_addr(&primary), f.client());
    super::common::wait_for("the one cut off to say where the key is", || {
        let said = c.ask_node(cut, &[b"GET", b"k"]).ok()?;
        matches!(said, Value::Error(e) if e.ends_with(&f.node_addr(&backup).to_string())).then_some(())
    });
    load.wait_more(SOME);
    f.net.heal();
    let v = f.wait_all();
    assert_eq!(v.status.slots.lost_total, 0);
    load.wait_more(SOME);
    let done = load.end();
    println!("{}", done.line());
    done.check(&mut f.client());
}

#[test]
fn s05_primary_cut_from_its_backup_only() {
    let _alone = alone();
    let f = Fleet::up();
    let load = f.load(Shape::default());
    load.wait_more(SOME);
    let (primary, backup) = f.holders("k");
    f.net.cut(&[&primary], &[&backup]);
    // One of the two leaves the slot; the other takes writes without it, and nobody is given up for it.
    let mut c = f.client().patient(Duration::from_secs(15));
    let wrote = super::common::wait_for("the slot to take a write", || match c.set("k", b"v") {
        Outcome::Answer(_) => Some(true),
        _ => None,
    });
    assert!(wrote);
    let v = f.wait("the pair parted", |v| v.status.leader.is_some());
    assert!(["n1", "n2", "n3"].iter().all(|n| is(&v, n, NodeState::Up)), "both reach the masters: nobody is dead");
    load.wait_more(SOME);
    f.net.heal();
    let v = f.wait_all();
    assert_eq!(v.status.slots.lost_total, 0);
    assert!(f.events_of("node-dead").is_empty());
    let done = load.end();
    println!("{}", done.line());
    done.check(&mut c);
    assert_eq!(c.get("k").as_deref(), Some(&b"v"[..]));
}

#[test]
fn s06_each_one_way_cut() {
    let _alone = alone();
    let f = Fleet::up();
    let load = f.load(Shape::default());
    let mut client = f.client();
    for case in 0..5 {
        load.wait_more(SOME);
        let (primary, backup) = f.holders("k");
        let masters = ["m1", "m2", "m3"];
        match case {
            0 => f.net.cut_one_way(&primary, &backup),
            1 => f.net.cut_one_way(&backup, &primary),
            2 => masters.iter().for_each(|m| f.net.cut_one_way(&primary, m)),
            3 => masters.iter().for_each(|m| f.net.cut_one_way(m, &primary)),
            _ => f.net.cut_one_way(&primary, "c1"),
        }
        std::thread::sleep(Duration::from_millis(3200));
        f.net.heal();
        let v = f.wait_all();
        assert_eq!(v.status.slots.lost_total, 0, "case {case}");
    }
    load.wait_more(SOME);
    let done = load.end();
    println!("{}", done.line());
    done.check(&mut client);
}

#[test]
fn s07_primary_backup_and_a_client_cut_off_together_then_healed() {
    let _alone = alone();
    let f = Fleet::start(Plan { nodes: 4, ..Plan::default() });
    let mut load = f.load(Shape { clients: 6, ..Shape::default() });
    for _ in 0..3 {
        load.join(f.host("c2"), &f.node_addrs(), f.plan.seed);
    }
    load.wait_more(SOME);
    let key = f.key_at("n1", Some("n2"));
    f.net.isolate(&["n1", "n2", "c2"]);
    // Both hold everything of these slots and vouch for each other, so they may go on; nobody else may.
    let mut inside = Client::new(f.host("c2"), f.node_addrs());
    let mut outside = f.client();
    f.wait("both to be given up", |v| is(v, "n1", NodeState::Dead) && is(v, "n2", NodeState::Dead));
    let v = f.wait("their slots to be nobody's", |v| v.status.slots.orphan > 0);
    assert_eq!(v.status.state, Health::Down);
    let served = inside.set(&key, b"inside");
    assert!(!matches!(outside.set(&key, b"outside"), Outcome::Answer(_)), "nobody else may serve it");
    std::thread::sleep(Duration::from_secs(2));
    f.net.heal();
    let v = f.wait_all();
    assert_eq!(v.status.slots.lost_total, 0, "the last holder came back");
    if matches!(served, Outcome::Answer(_)) {
        assert_eq!(outside.get(&key).as_deref(), Some(&b"inside"[..]));
    }
    load.wait_more(SOME);
    let done = load.end();
    println!("inside: {served:?}; {}", done.line());
    done.check(&mut outside);
}

#[test]
fn s12_all_nodes_paused_10_s() {
    let _alone = alone();
    let f = Fleet::up();
    let load = f.load(Shape::default());
    load.wait_more(SOME);
    for n in f.nodes() {
        f.pause(&n);
    }
    std::thread::sleep(Duration::from_secs(10));
    for n in f.nodes() {
        f.resume(&n);
    }
    let v = f.wait_all();
    assert_eq!(v.status.slots.lost_total, 0, "all were only paused: {}", super::fleet::describe(&v));
    load.wait_more(SOME);
    let done = load.end();
    println!("{}", done.line());
    done.check(&mut f.client());
}

#[test]
fn s13_primary_and_backup_killed_together() {
    let _alone = alone();
    let mut f = Fleet::start(Plan { nodes: 4, ..Plan::default() });
    let load = f.load(Shape::default());
    load.wait_more(SOME);
    let done = load.end();
    let pair = ["n1", "n2"];
    let of_pair = |s: &SlotState| s.insync.iter().all(|r| pair.contains(&r.node.id.as_str()));
    let gone: Vec<bool> = f.slots().iter().map(of_pair).collect();
    let lost = gone.iter().filter(|g| **g).count() as u64;
    assert!(lost > 0, "some slots are held by these two alone");
    f.kill_all(&pair);
    f.wait("down", |v| v.status.state == Health::Down);
    let v = f.wait("all slots served and backed by the others", is_backed);
    assert_eq!(v.status.slots.lost_total, lost);
    let events = f.events_of("slots-lost");
    assert_eq!(events.len(), 1, "exactly one loss event: {events:?}");
    let mut c = f.client();
    let key = (0..).map(|i| format!("at{i}")).find(|k| gone[Slot::of_key(k.as_bytes()).ix()]).expect("a lost slot");
    assert_eq!(c.get(&key), None, "served again, and empty");
    assert!(matches!(c.set(&key, b"v"), Outcome::Answer(_)));
    println!("{lost} slots lost; {}", done.line());
    done.check_but(&mut c, |k| !gone[Slot::of_key(k.as_bytes()).ix()]);
}

#[test]
fn s14_node_back_within_200_ms_under_the_same_id() {
    let _alone = alone();
    let mut f = Fleet::up();
    let old = node(&f.wait_ok(), "n2").incarnation.clone();
    let load = f.load(Shape::default());
    load.wait_more(SOME);
    f.kill("n2");
    f.run("n2");
    let v = f.wait("n2 as a new life", |v| v.status.state == Health::Ok && node(v, "n2").incarnation != old);
    assert_eq!(v.status.slots.lost_total, 0, "its empty memory was never served");
    load.wait_more(SOME);
    let done = load.end();
    println!("{}", done.line());
    done.check(&mut f.client());
}

#[test]
fn s15_two_processes_with_one_id() {
    let _alone = alone();
    let mut f = Fleet::start(Plan { spare: 1, ..Plan::default() });
    let before = f.wait_ok();
    let load = f.load(Shape::default());
    load.wait_more(SOME);
    // Another host, another directory, the same name.
    f.run_at("n2", "n4", &[]);
    assert_ne!(f.wait_end("n4"), Some(0));
    assert!(f.log("n4").contains("n2"), "it says why: {}", f.log("n4"));
    let v = f.wait_ok();
    assert_eq!(node(&v, "n2").incarnation, node(&before, "n2").incarnation);
    assert_eq!(node(&v, "n2").addr, node(&before, "n2").addr);
    assert!(f.events_of("node-dead").is_empty());
    load.wait_more(SOME);
    let done = load.end();
    println!("{}", done.line());
    done.check(&mut f.client());
    done.assert_undisturbed();
}

#[test]
fn s16_whole_cluster_restarted() {
    let _alone = alone();
    let mut f = Fleet::up();
    let load = f.load(Shape::default());
    load.wait_more(SOME);
    let done = load.end();
    let before = f.wait_ok();
    let all: Vec<String> = f.masters().into_iter().chain(f.nodes()).collect();
    f.kill_all(&all.iter().map(String::as_str).collect::<Vec<_>>());
    f.start_all();
    let v = f.wait_new_lives(&before);
    assert_eq!(v.status.slots.lost_total, SLOTS as u64, "everything was in memory");
    assert_eq!(f.events_of("slots-lost").len(), 1, "one event for all of it");
    let mut c = f.client();
    assert_eq!(c.get("u0:1"), None);
    println!("{}", done.line());

    // By plan it is no loss.
    assert!(matches!(c.set("k", b"v"), Outcome::Answer(_)));
    let leader = f.leader();
    let said = f.ask(&leader, &Message::ClusterStop(Empty {}));
    assert!(said.is_some(), "the leader answers");
    for p in &all {
        assert_eq!(f.wait_end(p), Some(0), "{p} ends by itself");
    }
    f.start_all();
    let v = f.wait_new_lives(&v);
    assert_eq!(v.status.slots.lost_total, SLOTS as u64, "nothing more");
    assert_eq!(f.events_of("slots-lost").len(), 1);
    let load = f.load(Shape { prefix: "again-", ..Shape::default() });
    load.wait_more(SOME);
    load.end().check(&mut f.client());
}
