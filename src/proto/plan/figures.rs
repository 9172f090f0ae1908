//! What a table is like from outside: how even, how it bears a death, how long its CLUSTER SLOTS reply is.

use std::collections::HashMap;

use super::{NodeId, Placement, PlanNode, Role, after_death};
use crate::proto::ring::sane_weight;

fn holder(placement: &Placement, role: Role) -> Option<&NodeId> {
    match role {
        Role::Primary => placement.primary.as_ref(),
        Role::Backup => placement.backup.as_ref(),
    }
}

/// How many slots each node has in a role.
pub fn counts(table: &[Placement], role: Role) -> HashMap<&NodeId, usize> {
    let mut counts = HashMap::new();
    for id in table.iter().filter_map(|p| holder(p, role)) {
        *counts.entry(id).or_default() += 1;
    }
    counts
}

/// The fullest node's slots over its share by weight, among nodes that accept; 1 = perfectly even.
pub fn max_over_mean(nodes: &[PlanNode], table: &[Placement], role: Role) -> f64 {
    let counts = counts(table, role);
    let accepting = || nodes.iter().filter(|n| n.accepts);
    let total: f64 = accepting().map(|n| sane_weight(n.weight)).sum();
    accepting()
        .map(|n| {
            let share = table.len() as f64 * sane_weight(n.weight) / total;
            counts.get(&n.id).copied().unwrap_or(0) as f64 / share
        })
        .fold(0.0, f64::max)
}

/// The worst of [`max_over_mean`] of primaries over the survivors right after any one death.
pub fn max_over_mean_after_a_death(nodes: &[PlanNode], table: &[Placement]) -> f64 {
    let worst = |dead: &PlanNode| {
        let survivors: Vec<PlanNode> = nodes.iter().filter(|n| n.id != dead.id).cloned().collect();
        max_over_mean(&survivors, &after_death(table, &dead.id), Role::Primary)
    };
    nodes.iter().map(worst).fold(0.0, f64::max)
}

/// In how many slots a role has another holder than before, counting only slots that had one.
pub fn moved(before: &[Placement], after: &[Placement], role: Role) -> usize {
    let changed = |(a, b): &(&Placement, &Placement)| holder(a, role).is_some() && holder(a, role) != holder(b, role);
    before.iter().zip(after).filter(changed).count()
}

/// In how many stretches of consecutive slots the primaries lie.
pub fn runs(table: &[Placement]) -> usize {
    table.chunk_by(|a, b| a.primary == b.primary).filter(|run| run[0].primary.is_some()).count()
}

/// Bytes of the CLUSTER SLOTS reply in RESP2, as Redis 7 writes it: per run first, last and one node of address, port,
/// 40-digit id and empty metadata.
pub fn cluster_slots_bytes(table: &[Placement], ip: &str, port: u16) -> usize {
    let node = format!("*4\r\n${}\r\n{ip}\r\n:{port}\r\n$40\r\n{}\r\n*0\r\n", ip.len(), "0".repeat(40));
    let mut bytes = format!("*{}\r\n", runs(table)).len();
    let mut first = 0;
    for run in table.chunk_by(|a, b| a.primary == b.primary) {
        if run[0].primary.is_some() {
            bytes += format!("*3\r\n:{first}\r\n:{}\r\n{node}", first + run.len() - 1).len();
        }
        first += run.len();
    }
    bytes
}
