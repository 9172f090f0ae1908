//! Three zones, five nodes, a master in each: a whole zone is cut off and healed, another is killed and started again.

use cachectl::proto::id::Ref;
use cachectl::proto::status::NodeState;

use super::alone;
use super::fleet::{Fleet, Plan, is, is_backed, node};
use super::load::Shape;

/// Operations that must be acknowledged before, while and after a zone is lost.
const SOME: u64 = 300;

/// Who is in which zone: two of two nodes, one of a single one, so that who is left is uneven too.
const ZONES: &[(&str, &[&str])] = &[("a", &["m1", "n1", "n2"]), ("b", &["m2", "n3", "n4"]), ("c", &["m3", "n5"])];

fn zone_of(process: &str) -> &'static str {
    ZONES.iter().find(|(_, all)| all.contains(&process)).map(|(z, _)| *z).expect("everyone has a zone")
}

fn nodes_of(zone: &str) -> Vec<&'static str> {
    let (_, all) = ZONES.iter().find(|(z, _)| *z == zone).expect("a zone");
    all.iter().copied().filter(|p| p.starts_with('n')).collect()
}

/// Every slot has a primary and a backup, none in one zone.
fn assert_apart(f: &Fleet, when: &str) {
    let zone = |r: &Ref| zone_of(r.id.as_str());
    for (i, s) in f.slots().iter().enumerate() {
        let primary = s.primary.as_ref().unwrap_or_else(|| panic!("{when}: slot {i} has no primary"));
        let backups: Vec<&Ref> = s.backups().map(|b| &b.node).collect();
        assert!(!backups.is_empty(), "{when}: slot {i} has no backup");
        assert!(backups.iter().all(|b| zone(b) != zone(primary)), "{when}: slot {i} of {primary:?} is at {backups:?}");
    }
}

/// The zone's nodes are given up, and what is left backs everything.
fn wait_lost(f: &Fleet, zone: &str) {
    let nodes = nodes_of(zone);
    let v = f.wait("the zone given up and all backed", |v| {
        nodes.iter().all(|n| is(v, n, NodeState::Dead)) && is_backed(v) && is_quiet(v)
    });
    assert_eq!(v.status.slots.lost_total, 0, "zone {zone} took the last copy of something along");
    assert_apart(f, &format!("without zone {zone}"));
}

/// Everybody is back and has a share.
fn wait_whole(f: &Fleet, when: &str) {
    let all = f.nodes();
    let v = f.wait("everybody back with a share", |v| {
        let share = |n: &String| is(v, n, NodeState::Up) && node(v, n).primary_slots > 0;
        all.iter().all(share) && is_backed(v) && is_quiet(v) && v.status.masters.iter().all(|m| m.alive)
    });
    assert_eq!(v.status.slots.lost_total, 0);
    assert_apart(f, when);
}

fn is_quiet(v: &cachectl::proto::status::WatchView) -> bool {
    !v.status.operations.iter().any(|o| matches!(o.state.as_str(), "planned" | "running" | "paused"))
}

#[test]
fn s32_a_whole_zone_lost_and_healed() {
    let _alone = alone();
    let mut f = Fleet::prepare(Plan { nodes: 5, ..Plan::default() });
    for n in f.nodes() {
        f.env.insert(n.clone(), vec![("CACHECTL_ZONE".into(), zone_of(&n).into())]);
    }
    f.start_all();
    let v = f.wait_ok();
    assert!(v.status.nodes.iter().all(|n| n.zone == zone_of(&n.id)), "{:?}", v.status.nodes);
    assert_apart(&f, "at first");
    let load = f.load(Shape { clients: 4, ..Shape::default() });
    load.wait_more(SOME);

    // Cut off: its processes live on and must notice by themselves. Of the others two share a zone, one is alone.
    let (_, zone_a) = ZONES[0];
    f.net.isolate(zone_a);
    wait_lost(&f, "a");
    load.wait_more(SOME);
    f.net.heal();
    wait_whole(&f, "zone a healed");
    load.wait_more(SOME);

    // Power lost.
    let (_, zone_c) = ZONES[2];
    f.kill_all(zone_c);
    wait_lost(&f, "c");
    load.wait_more(SOME);
    f.start_all();
    wait_whole(&f, "zone c started again");
    load.wait_more(SOME);

    let done = load.end();
    println!("{}", done.line());
    done.check(&mut f.client());
    assert!(f.events_of("node-dead").len() >= 3, "{:?}", f.events_of("node-dead"));
}
