//! The planner's figures (PROTOCOL 2), its rules as properties over random clusters and changes.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::figures::{cluster_slots_bytes, counts, max_over_mean, max_over_mean_after_a_death, moved};
use super::*;
use crate::proto::ring::sane_weight;

/// What operators run, plus what divides badly.
const SIZES: [usize; 14] = [1, 2, 3, 4, 5, 6, 7, 10, 16, 20, 33, 50, 64, 100];
/// The longest dotted address, so that reply sizes are worst cases.
const IP: &str = "192.168.100.100";

fn node(i: usize) -> PlanNode {
    let id = NodeId::new(&format!("n{i}")).unwrap();
    PlanNode { id, zone: String::new(), host: "127.0.0.1".into(), weight: 1.0, accepts: true }
}

fn cluster(n: usize) -> Vec<PlanNode> {
    (1..=n).map(node).collect()
}

fn balance(nodes: &[PlanNode], current: &[Placement]) -> Plan {
    plan(nodes, current, 1, Mode::Balance)
}

fn formed(nodes: &[PlanNode]) -> Vec<Placement> {
    balance(nodes, &[]).target
}

fn primary_moves(plan: &Plan) -> usize {
    plan.moves.iter().filter(|m| m.what == Role::Primary).map(Move::slots).sum()
}

#[test]
fn loads_are_even_and_a_death_is_borne() {
    for n in SIZES {
        let nodes = cluster(n);
        let table = formed(&nodes);
        assert!(max_over_mean(&nodes, &table, Role::Primary) <= 1.02, "primaries of {n} nodes");
        assert!(max_over_mean(&nodes, &table, Role::Backup) <= 1.02, "backups of {n} nodes");
        assert!(max_over_mean_after_a_death(&nodes, &table) <= 1.25, "a death among {n} nodes");
        assert!(table.iter().all(|p| p.primary.is_some() && (p.backup.is_some() || n == 1) && p.primary != p.backup));
    }
}

#[test]
fn of_three_nodes_two_back_the_third_half_and_half() {
    let table = formed(&cluster(3));
    for p in 1..=3 {
        let of_one: Vec<_> = table.iter().filter(|x| x.primary == Some(node(p).id)).cloned().collect();
        for b in (1..=3).filter(|&b| b != p) {
            let share = counts(&of_one, Role::Backup)[&node(b).id] as f64 / of_one.len() as f64;
            assert!((0.45..=0.55).contains(&share), "n{b} backs {share} of n{p}");
        }
    }
}

#[test]
fn a_new_node_gets_its_share_and_little_else_moves() {
    for n in SIZES {
        let before = formed(&cluster(n));
        let nodes = cluster(n + 1);
        let planned = balance(&nodes, &before);
        let share = SLOTS as f64 / (n + 1) as f64;
        assert!(primary_moves(&planned) as f64 <= 1.05 * share, "{n} nodes and one more");
        assert!(moved(&before, &planned.target, Role::Backup) as f64 <= 1.25 * share, "backups of {n} and one more");
        let new = node(n + 1).id;
        assert!(counts(&planned.target, Role::Primary)[&new] as f64 >= (0.95 * share).floor());
        assert!(counts(&planned.target, Role::Backup)[&new] as f64 >= (0.95 * share).floor());
        assert!(max_over_mean(&nodes, &planned.target, Role::Primary) <= 1.02);
        assert!(max_over_mean_after_a_death(&nodes, &planned.target) <= 1.25);
    }
}

#[test]
fn removing_a_node_moves_only_what_it_held() {
    for n in SIZES.into_iter().filter(|&n| n > 1) {
        let mut nodes = cluster(n);
        let before = formed(&nodes);
        nodes[n / 2].accepts = false;
        let leaving = nodes[n / 2].id.clone();
        let planned = balance(&nodes, &before);
        for m in planned.moves.iter().filter(|m| m.what == Role::Primary) {
            assert_eq!(m.from.as_ref(), Some(&leaving), "{n} nodes: {m:?}");
        }
        assert_eq!(primary_moves(&planned), counts(&before, Role::Primary)[&leaving]);
        assert!(planned.target.iter().all(|p| p.primary != Some(leaving.clone()) && p.backup != Some(leaving.clone())));
        assert!(max_over_mean(&nodes, &planned.target, Role::Primary) <= 1.02);
    }
}

#[test]
fn the_last_two_become_one() {
    let mut nodes = cluster(2);
    let before = formed(&nodes);
    nodes[1].accepts = false;
    let planned = balance(&nodes, &before);
    assert!(planned.target.iter().all(|p| p.primary == Some(node(1).id) && p.backup.is_none()));
    nodes[0].accepts = false;
    assert_eq!(balance(&nodes, &before).moves, [], "with nobody to give to, everyone keeps what they have");
}

#[test]
fn a_rebuild_leaves_primaries_and_valid_backups_alone() {
    for n in SIZES.into_iter().filter(|&n| n > 2) {
        let before = formed(&cluster(n));
        let dead = node(1).id;
        let survivors = cluster(n)[1..].to_vec();
        let promoted = after_death(&before, &dead);
        let planned = plan(&survivors, &promoted, 1, Mode::Rebuild);
        assert!(planned.moves.iter().all(|m| m.what == Role::Backup && m.from.is_none() && m.to.is_some()));
        assert!(planned.target.iter().all(|p| p.backup.is_some() && p.primary != p.backup));
        assert!(max_over_mean(&survivors, &planned.target, Role::Backup) <= 1.1, "{n} nodes");
        // The table of before the death says the same but for who is named as gone.
        assert_eq!(plan(&survivors, &before, 1, Mode::Rebuild).target, planned.target);
    }
}

#[test]
fn replies_stay_small_through_many_changes() {
    // Each list is a walk: true adds a node, false removes one of the old.
    for (n, limit_kib, seeds) in [(10, 64, 6), (100, 256, 2)] {
        for seed in 0..seeds {
            let mut nodes = cluster(n);
            let mut table = formed(&nodes);
            for step in 0..20_usize {
                let dice = xxhash_rust::xxh3::xxh3_64(&[seed, step as u8]) as usize;
                if dice.is_multiple_of(2) {
                    nodes.push(node(n + 1 + step));
                } else {
                    nodes.remove(dice / 2 % nodes.len());
                }
                let before = table;
                table = balance(&nodes, &before).target;
                let bytes = cluster_slots_bytes(&table, IP, 65535);
                assert!(bytes <= limit_kib << 10, "{bytes} bytes at {} nodes, step {step}", nodes.len());
                assert!(max_over_mean(&nodes, &table, Role::Primary) <= 1.02);
                assert!(max_over_mean_after_a_death(&nodes, &table) <= 1.25);
            }
        }
    }
}

#[test]
fn the_size_of_a_reply_is_what_redis_would_send() {
    let one = vec![Placement { primary: Some(node(1).id), backup: None }; SLOTS];
    let reply = concat!(
        "*1\r\n*3\r\n:0\r\n:16383\r\n*4\r\n$9\r\n127.0.0.1\r\n:7101\r\n",
        "$40\r\n0123456789012345678901234567890123456789\r\n*0\r\n"
    );
    assert_eq!(cluster_slots_bytes(&one, "127.0.0.1", 7101), reply.len());
}

#[test]
fn a_backup_is_in_another_zone_where_that_is_possible() {
    for zones in [2, 3, 4] {
        let nodes: Vec<_> = (1..=12).map(|i| PlanNode { zone: format!("z{}", i % zones), ..node(i) }).collect();
        let zone = |id: &Option<NodeId>| nodes.iter().find(|n| Some(&n.id) == id.as_ref()).map(|n| n.zone.clone());
        let table = formed(&nodes);
        assert!(table.iter().all(|p| zone(&p.primary) != zone(&p.backup)), "{zones} zones");
        assert!(max_over_mean(&nodes, &table, Role::Backup) <= 1.02);
        assert!(max_over_mean_after_a_death(&nodes, &table) <= 1.25);
        // Labels that come later count too.
        let unlabelled = formed(&cluster(12));
        let moved = balance(&nodes, &unlabelled).target;
        assert!(moved.iter().all(|p| zone(&p.primary) != zone(&p.backup)), "{zones} zones, labelled later");
    }
}

#[test]
fn hosts_count_where_there_are_no_zones() {
    let nodes: Vec<_> = (1..=6).map(|i| PlanNode { host: format!("h{}", i % 3), ..node(i) }).collect();
    let host = |id: &Option<NodeId>| nodes.iter().find(|n| Some(&n.id) == id.as_ref()).map(|n| n.host.clone());
    assert!(formed(&nodes).iter().all(|p| host(&p.primary) != host(&p.backup)));
}

/// Slots that are backed in their primary's zone, if nodes of two zones accept.
fn in_one_zone(nodes: &[PlanNode], table: &[Placement]) -> usize {
    let zone = |id: &Option<NodeId>| {
        let node = nodes.iter().find(|n| Some(&n.id) == id.as_ref());
        node.map(|n| n.zone.as_str()).filter(|z| !z.is_empty())
    };
    let accepting: BTreeSet<&str> =
        nodes.iter().filter(|n| n.accepts && !n.zone.is_empty()).map(|n| n.zone.as_str()).collect();
    let near = |p: &&Placement| zone(&p.primary).is_some() && zone(&p.primary) == zone(&p.backup);
    if accepting.len() < 2 { 0 } else { table.iter().filter(near).count() }
}

#[test]
fn uneven_zones_back_each_other() {
    for sizes in [&[1, 5][..], &[1, 2], &[2, 2, 1], &[1, 1, 4], &[3, 1, 1, 1]] {
        let zones = sizes.iter().enumerate().flat_map(|(z, &n)| std::iter::repeat_n(format!("z{z}"), n));
        let nodes: Vec<_> = zones.enumerate().map(|(i, zone)| PlanNode { zone, ..node(i + 1) }).collect();
        let table = formed(&nodes);
        assert_eq!(in_one_zone(&nodes, &table), 0, "{sizes:?}");
        // Each zone backs as much as it can be asked to: its part of what others lead, never more than all of it.
        for (z, _) in sizes.iter().enumerate() {
            let of_zone =
                |id: &Option<NodeId>| nodes.iter().any(|n| Some(&n.id) == id.as_ref() && n.zone == format!("z{z}"));
            let led = table.iter().filter(|p| of_zone(&p.primary)).count();
            let backs = table.iter().filter(|p| of_zone(&p.backup)).count();
            assert!(led + backs <= SLOTS, "{sizes:?}: zone {z} leads {led}, backs {backs}");
        }
        // Within a zone loads are even.
        let backs = counts(&table, Role::Backup);
        for zone in sizes.iter().enumerate().map(|(z, _)| format!("z{z}")) {
            let of: Vec<usize> =
                nodes.iter().filter(|n| n.zone == zone).map(|n| backs.get(&n.id).copied().unwrap_or(0)).collect();
            let (least, most) = (of.iter().min().expect("nodes"), of.iter().max().expect("nodes"));
            assert!(*most as f64 <= *least as f64 * 1.1 + 2.0, "{sizes:?}: {zone} {of:?}");
        }
        assert_eq!(balance(&nodes, &table).moves, [], "{sizes:?}");
        // A zone goes as a whole: every slot has one holder left, and what they lead is backed elsewhere again.
        for gone in 0..sizes.len() {
            let gone = format!("z{gone}");
            let (lost, left): (Vec<_>, Vec<_>) = nodes.iter().cloned().partition(|n| n.zone == gone);
            let mut after = table.clone();
            for n in &lost {
                after = after_death(&after, &n.id);
            }
            assert!(after.iter().all(|p| p.primary.is_some()), "{sizes:?} without {gone}");
            let rebuilt = plan(&left, &after, 1, Mode::Rebuild).target;
            assert_eq!(in_one_zone(&left, &rebuilt), 0, "{sizes:?} without {gone}");
            let back = balance(&nodes, &rebuilt).target;
            assert_eq!(in_one_zone(&nodes, &back), 0, "{sizes:?} with {gone} back");
        }
    }
}

#[test]
fn without_backups_none_is_placed() {
    let planned = plan(&cluster(3), &[], 0, Mode::Balance);
    assert!(planned.target.iter().all(|p| p.backup.is_none()));
    let with = formed(&cluster(3));
    assert!(plan(&cluster(3), &with, 0, Mode::Balance).target.iter().all(|p| p.backup.is_none()));
}

#[test]
fn slots_that_nobody_holds_wait_for_a_balance() {
    let mut table = formed(&cluster(3));
    table[100..200].fill(Placement::default());
    let rebuild = plan(&cluster(3), &table, 1, Mode::Rebuild);
    assert_eq!(rebuild.moves, []);
    let balance = balance(&cluster(3), &table);
    assert!(balance.target[100..200].iter().all(|p| p.primary.is_some()));
}

#[test]
fn the_digest_is_of_the_moves() {
    let before = formed(&cluster(3));
    let (a, b) = (balance(&cluster(4), &before), balance(&cluster(5), &before));
    assert_eq!(a.digest, balance(&cluster(4), &before).digest);
    assert_ne!(a.digest, b.digest);
    let no_moves = balance(&cluster(3), &before);
    assert_eq!((no_moves.moves.len(), no_moves.digest), (0, balance(&cluster(4), &a.target).digest));
}

#[test]
fn moves_are_the_difference() {
    let before = formed(&cluster(5));
    let planned = balance(&cluster(7), &before);
    let mut table = before;
    for m in &planned.moves {
        for placement in &mut table[m.first.ix()..=m.last.ix()] {
            let place = match m.what {
                Role::Primary => &mut placement.primary,
                Role::Backup => &mut placement.backup,
            };
            assert_eq!(*place, m.from);
            *place = m.to.clone();
        }
    }
    assert_eq!(table, planned.target);
}

/// One change of a cluster.
#[derive(Debug, Clone)]
enum Change {
    Add { weight: f64, zone: u8 },
    Drain(usize),
    Die(usize),
    Rebuild,
}

fn change() -> impl Strategy<Value = Change> {
    let weight = prop_oneof![3 => Just(1.0), 1 => 0.25_f64..4.0];
    prop_oneof![
        4 => (weight, 0_u8..3).prop_map(|(weight, zone)| Change::Add { weight, zone }),
        2 => any::<usize>().prop_map(Change::Drain),
        2 => any::<usize>().prop_map(Change::Die),
        1 => Just(Change::Rebuild),
    ]
}

/// What must hold of every plan, whatever came before.
fn check(nodes: &[PlanNode], current: &[Placement], planned: &Plan, mode: Mode) -> Result<(), TestCaseError> {
    let total: f64 = nodes.iter().filter(|n| n.accepts).map(|n| sane_weight(n.weight)).sum();
    let slots = current.len() as f64;
    let live = |id: &Option<NodeId>| nodes.iter().any(|n| Some(&n.id) == id.as_ref());
    let accepting = nodes.iter().filter(|n| n.accepts).count();
    let leads = counts(&planned.target, Role::Primary);
    for (slot, (now, then)) in current.iter().zip(&planned.target).enumerate() {
        prop_assert!(then.primary.is_none() || live(&then.primary), "slot {slot} is given to the dead");
        prop_assert!(then.backup.is_none() || then.backup != then.primary, "slot {slot} is backed by its primary");
        if mode == Mode::Balance && accepting > 0 {
            prop_assert!(then.primary.is_some());
            prop_assert!(then.backup.is_some() || accepting == 1);
        }
        if mode == Mode::Rebuild && live(&now.primary) {
            prop_assert_eq!(&now.primary, &then.primary);
            prop_assert!(!live(&now.backup) || now.backup == then.backup);
        }
    }
    match mode {
        Mode::Balance => prop_assert_eq!(in_one_zone(nodes, &planned.target), 0),
        Mode::Rebuild => prop_assert!(in_one_zone(nodes, &planned.target) <= in_one_zone(nodes, current)),
    }
    if mode == Mode::Balance {
        for n in nodes.iter().filter(|n| n.accepts) {
            let share = slots * sane_weight(n.weight) / total;
            let has = leads.get(&n.id).copied().unwrap_or(0);
            prop_assert!(has as f64 <= (1.02 * share).ceil(), "{} leads {has}, its share is {share}", n.id);
        }
    }
    let mut reversed: Vec<_> = nodes.to_vec();
    reversed.reverse();
    prop_assert_eq!(&plan(&reversed, current, 1, mode), planned);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_rules_hold(
        start in 1_usize..12,
        zoned in any::<bool>(),
        slots in prop_oneof![Just(64_usize), Just(1024), Just(4096)],
        changes in prop::collection::vec(change(), 1..12),
    ) {
        let mut nodes = cluster(start);
        let mut next = start + 1;
        let mut table = plan(&nodes, &vec![Placement::default(); slots], 1, Mode::Balance).target;
        for change in changes {
            let mut mode = Mode::Balance;
            match change {
                Change::Add { weight, zone } => {
                    let zone = if zoned { format!("z{zone}") } else { String::new() };
                    nodes.push(PlanNode { weight, zone, ..node(next) });
                    next += 1;
                }
                Change::Drain(i) if nodes.len() > 1 => {
                    let i = i % nodes.len();
                    nodes[i].accepts = false;
                }
                Change::Die(i) if nodes.len() > 1 => {
                    let dead = nodes.remove(i % nodes.len());
                    table = after_death(&table, &dead.id);
                    mode = Mode::Rebuild;
                }
                _ => mode = Mode::Rebuild,
            }
            let planned = plan(&nodes, &table, 1, mode);
            check(&nodes, &table, &planned, mode)?;
            if nodes.iter().any(|n| n.accepts) {
                prop_assert_eq!(&plan(&nodes, &planned.target, 1, mode).moves, &[], "planned twice");
            }
            table = planned.target;
            let gone: Vec<_> = nodes.iter().filter(|n| !n.accepts).map(|n| n.id.clone()).collect();
            if mode == Mode::Balance && gone.len() < nodes.len() {
                nodes.retain(|n| n.accepts);
            }
        }
    }

    #[test]
    fn with_equal_nodes_every_figure_holds_after_any_changes(
        start in 1_usize..16,
        changes in prop::collection::vec(prop_oneof![Just(None), any::<usize>().prop_map(Some)], 1..10),
    ) {
        let mut nodes = cluster(start);
        let mut next = start + 1;
        let mut table = formed(&nodes);
        for change in changes {
            let n = nodes.len();
            let leaving = change.filter(|_| n > 1).map(|i| nodes[i % n].id.clone());
            match &leaving {
                Some(id) => nodes.iter_mut().filter(|n| &n.id == id).for_each(|n| n.accepts = false),
                None => {
                    nodes.push(node(next));
                    next += 1;
                }
            }
            let planned = balance(&nodes, &table);
            match leaving {
                Some(id) => {
                    prop_assert_eq!(primary_moves(&planned), counts(&table, Role::Primary)[&id]);
                    nodes.retain(|n| n.accepts);
                }
                None => prop_assert!(primary_moves(&planned) as f64 <= 1.05 * SLOTS as f64 / (n + 1) as f64),
            }
            prop_assert!(max_over_mean(&nodes, &planned.target, Role::Primary) <= 1.02);
            prop_assert!(max_over_mean(&nodes, &planned.target, Role::Backup) <= 1.02 || nodes.len() == 1);
            prop_assert!(max_over_mean_after_a_death(&nodes, &planned.target) <= 1.25);
            table = planned.target;
        }
    }
}
