//! What a master answers over HTTP on its port: metrics, whether it lives, whether it knows a leader.

use super::raft::Consensus;
use crate::node::health::exposition::{Exposition, Format, Type};
use crate::node::health::process::Process;
use crate::proto::status::{Health, NodeState, Status};

const STATES: [NodeState; 7] = [
    NodeState::Standby,
    NodeState::Joining,
    NodeState::Up,
    NodeState::Suspect,
    NodeState::Draining,
    NodeState::Dead,
    NodeState::Left,
];

/// Whether it can answer for the cluster: somebody leads, as far as it knows.
pub fn ready(raft: &Consensus) -> Result<(), &'static str> {
    let status = raft.status();
    match (&status.stopped, &status.leader) {
        (Some(_), _) => Err("Raft has stopped\n"),
        (None, None) => Err("no master leads, as far as this one knows\n"),
        (None, Some(_)) => Ok(()),
    }
}

/// The metrics; `status` is what this master would show people.
pub fn expose(format: Format, raft: &Consensus, status: Option<&Status>, watchers: usize) -> String {
    let mut e = Exposition::new(format);
    Process::read().expose(&mut e);
    let facts = raft.status();
    let bit = |b: bool| f64::from(u8::from(b));
    e.family("cachectl_ready", Type::Gauge, "1 if it knows who leads.").sample(&[], bit(ready(raft).is_ok()));
    e.family("cachectl_raft_leader", Type::Gauge, "1 if this master leads.").sample(&[], bit(facts.leading));
    e.family("cachectl_watchers", Type::Gauge, "Streams of views.").sample(&[], watchers as f64);
    if let Some(s) = status {
        cluster(&mut e, s);
    }
    e.finish()
}

fn cluster(e: &mut Exposition, s: &Status) {
    e.family("cachectl_raft_term", Type::Gauge, "Raft's term.").sample(&[], s.term as f64);
    e.family("cachectl_epoch", Type::Gauge, "Raft index of the last change of members or slots.")
        .sample(&[], s.epoch as f64);
    e.family("cachectl_cluster_state", Type::Gauge, "1 for the state the cluster is in.");
    for (word, state) in [("ok", Health::Ok), ("degraded", Health::Degraded), ("down", Health::Down)] {
        e.sample(&[("state", word)], f64::from(u8::from(s.state == state)));
    }
    e.family("cachectl_master_alive", Type::Gauge, "1 if the master answers.");
    for m in &s.masters {
        e.sample(&[("master", &m.id)], f64::from(u8::from(m.alive)));
    }
    e.family("cachectl_raft_applied_index", Type::Gauge, "Last index applied, by master, as far as known.");
    for m in &s.masters {
        e.sample(&[("master", &m.id)], m.applied as f64);
    }
    e.family("cachectl_cluster_slots", Type::Gauge, "Slots of the cluster; solo ones lack a backup, orphans a holder.")
        .sample(&[("state", "serving")], s.slots.serving as f64)
        .sample(&[("state", "solo")], s.slots.solo as f64)
        .sample(&[("state", "orphan")], s.slots.orphan as f64);
    e.family("cachectl_slots_lost", Type::Counter, "Slots handed out empty after their data was lost.")
        .sample(&[], s.slots.lost_total as f64);
    e.family("cachectl_nodes", Type::Gauge, "Cache nodes by state.");
    for state in STATES {
        let word = format!("{state:?}").to_lowercase();
        e.sample(&[("state", &word)], s.nodes.iter().filter(|n| n.state == state).count() as f64);
    }
    e.family("cachectl_node_heartbeat_age_seconds", Type::Gauge, "Since the node's last heartbeat, at the leader.");
    for n in &s.nodes {
        if let Some(ms) = n.heartbeat_age_ms {
            e.sample(&[("node", &n.id)], ms as f64 / 1e3);
        }
    }
    e.family("cachectl_node_slots", Type::Gauge, "Slots by node and role.");
    for n in &s.nodes {
        e.sample(&[("node", &n.id), ("role", "primary")], n.primary_slots as f64);
        e.sample(&[("node", &n.id), ("role", "backup")], n.backup_slots as f64);
    }
    e.family("cachectl_node_commands_per_second", Type::Gauge, "Commands a second, as the node last said.");
    for n in &s.nodes {
        e.sample(&[("node", &n.id)], n.ops_per_s);
    }
    e.family("cachectl_operations_open", Type::Gauge, "Operations planned, running or paused.");
    let open = s.operations.iter().filter(|o| matches!(o.state.as_str(), "planned" | "running" | "paused")).count();
    e.sample(&[], open as f64);
}
