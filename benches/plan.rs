//! The planner's figures (PROTOCOL 2), printed: evenness, moves, inheritance, reply sizes, time. `cargo bench --bench plan`.

use std::time::{Duration, Instant};

use cachectl::proto::id::NodeId;
use cachectl::proto::plan::figures::{cluster_slots_bytes, max_over_mean, max_over_mean_after_a_death, moved, runs};
use cachectl::proto::plan::{Mode, Placement, Plan, PlanNode, Role, plan};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// Longest dotted address, so that the sizes are worst cases.
const IP: &str = "192.168.100.100";

fn node(i: usize) -> PlanNode {
    let id = NodeId::new(&format!("n{i}")).expect("a plain name");
    PlanNode { id, zone: String::new(), host: format!("h{i}"), weight: 1.0, accepts: true }
}

fn timed(nodes: &[PlanNode], current: &[Placement]) -> (Plan, Duration) {
    let start = Instant::now();
    let planned = plan(nodes, current, 1, Mode::Balance);
    (planned, start.elapsed())
}

fn row(what: &str, nodes: &[PlanNode], table: &[Placement], before: &[Placement], took: Duration) {
    println!(
        "{what:<22} {:>5} {:>9.4} {:>9.4} {:>9.4} {:>8} {:>8} {:>6} {:>9.1} {:>9.1}",
        nodes.len(),
        max_over_mean(nodes, table, Role::Primary),
        max_over_mean(nodes, table, Role::Backup),
        max_over_mean_after_a_death(nodes, table),
        moved(before, table, Role::Primary),
        moved(before, table, Role::Backup),
        runs(table),
        cluster_slots_bytes(table, IP, 65535) as f64 / 1024.0,
        took.as_secs_f64() * 1000.0,
    );
}

fn main() {
    println!(
        "{:<22} {:>5} {:>9} {:>9} {:>9} {:>8} {:>8} {:>6} {:>9} {:>9}",
        "", "nodes", "max/mean", "backups", "death", "moved p", "moved b", "runs", "SLOTS KiB", "ms"
    );
    for n in [1, 2, 3, 4, 5, 6, 7, 8, 10, 16, 20, 32, 50, 64, 100, 200, 500, 1000] {
        let nodes: Vec<_> = (1..=n).map(node).collect();
        let (formed, took) = timed(&nodes, &[]);
        row("form", &nodes, &formed.target, &[], took);
        let more: Vec<_> = (1..=n + 1).map(node).collect();
        let (grown, took) = timed(&more, &formed.target);
        row("  add one", &more, &grown.target, &formed.target, took);
        if n > 1 {
            let fewer: Vec<_> = nodes[1..].to_vec();
            let (shrunk, took) = timed(&fewer, &formed.target);
            row("  n1 is gone", &fewer, &shrunk.target, &formed.target, took);
        }
    }
    for (n, limit) in [(10, 64), (100, 256)] {
        for seed in 0..5 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut nodes: Vec<_> = (1..=n).map(node).collect();
            let mut table = plan(&nodes, &[], 1, Mode::Balance).target;
            let (mut next, mut worst) = (n + 1, 0);
            for _ in 0..20 {
                if rng.random_bool(0.5) {
                    nodes.push(node(next));
                    next += 1;
                } else if let Some(gone) = nodes.choose(&mut rng).map(|n| n.id.clone()) {
                    nodes.retain(|n| n.id != gone);
                }
                let before = table;
                let (planned, took) = timed(&nodes, &before);
                table = planned.target;
                worst = worst.max(cluster_slots_bytes(&table, IP, 65535));
                if std::env::args().any(|a| a == "--every-step") {
                    row("    step", &nodes, &table, &before, took);
                }
            }
            row(&format!("20 changes, seed {seed}"), &nodes, &table, &[], Duration::ZERO);
            println!("{:<22} largest SLOTS {:.1} KiB of {limit}", "", worst as f64 / 1024.0);
        }
    }
}
