//! What people see: the status document and the views of WATCH, built from the applied state, the leader's heartbeat table
//! and what Raft says of the masters.

use std::collections::BTreeMap;

use super::brain::Figures;
use super::heartbeat::Heartbeats;
use super::state::{Operation, State};
use crate::node::clock::Mono;
use crate::proto::control::IpListEntry;
use crate::proto::event::Event;
use crate::proto::id::{LeaderId, NodeId, Ref};
use crate::proto::kinds::Kinds;
use crate::proto::operation::Role;
use crate::proto::stats::NodeStats;
use crate::proto::status::{
    Health, MasterStatus, NodeState, NodeStatus, OperationStatus, PairStatus, STATUS_SCHEMA, SlotTotals, Status,
    WatchView,
};
use crate::proto::view::{Config, Member};

/// Closed operations shown beside the open ones.
pub const CLOSED_SHOWN: usize = 10;

/// What Raft says of the masters.
#[derive(Debug, Clone, Default)]
pub struct RaftFacts {
    /// The current term.
    pub term: u64,
    /// Who leads, if anybody is known to.
    pub leader: Option<LeaderId>,
    /// All masters, this one among them.
    pub masters: Vec<MasterStatus>,
    /// What people should know of the masters.
    pub warnings: Vec<String>,
}

/// The status document. `beats` is the leader's table and the moment to judge it at; without it ages are unknown.
pub fn status(state: &State, beats: Option<(&Heartbeats, Mono)>, facts: &RaftFacts) -> Status {
    let cfg = &state.cfg;
    let (slots, roles) = totals(state);
    let nodes: Vec<NodeStatus> =
        cfg.members.iter().map(|(id, m)| node(id, m, roles.get(id).copied().unwrap_or_default(), beats)).collect();
    let exposed = nodes
        .iter()
        .zip(cfg.members.iter())
        .filter(|(_, (id, m))| beats.and_then(|(b, _)| b.of(&life(id, m))).is_some_and(|b| b.stats().insecure_bind));
    let mut warnings = facts.warnings.clone();
    warnings.extend(exposed.map(|(n, _)| format!("{} listens beyond loopback without authentication", n.id)));
    let suspect = nodes.iter().any(|n| n.state == NodeState::Suspect);
    let away = facts.leader.is_none() || facts.masters.iter().any(|m| !m.alive);
    let state_of = if slots.serving < slots.total {
        Health::Down
    } else if slots.solo > 0 || suspect || away {
        Health::Degraded
    } else {
        Health::Ok
    };
    Status {
        schema: STATUS_SCHEMA,
        cluster: state.cluster.clone(),
        cluster_id: cfg.cluster_id.to_string(),
        state: state_of,
        epoch: cfg.cfg_index,
        term: facts.term,
        leader: facts.leader.as_ref().map(|l| l.id.to_string()),
        masters: facts.masters.clone(),
        nodes,
        slots,
        operations: operations(state),
        warnings,
    }
}

/// All members, as the original design lists them.
pub fn iplist(cfg: &Config) -> Vec<IpListEntry> {
    let entry = |(id, m): (&NodeId, &Member)| IpListEntry {
        id: id.clone(),
        addr: m.addr.clone(),
        incarnation: m.incarnation,
        state: m.state,
    };
    cfg.members.iter().map(entry).collect()
}

/// How far one WATCH stream has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cursor {
    cfg_index: Option<u64>,
    event_seq: u64,
}

impl Cursor {
    /// The next view of the stream: the slot table if it changed, and the events since the last view.
    pub fn advance(&mut self, status: Status, state: &State) -> WatchView {
        let changed = self.cfg_index != Some(state.cfg.cfg_index);
        let slots = changed.then(|| state.cfg.ranges(|_| true));
        let events: Vec<Event> = state.events.iter().filter(|e| e.seq > self.event_seq).cloned().collect();
        *self = Cursor { cfg_index: Some(state.cfg.cfg_index), event_seq: state.event_seq };
        WatchView { status, slots, events }
    }
}

/// Slots a node is primary and in-sync backup of.
#[derive(Debug, Clone, Copy, Default)]
struct Roles {
    primary: u64,
    backup: u64,
}

fn totals(state: &State) -> (SlotTotals, BTreeMap<NodeId, Roles>) {
    let cfg = &state.cfg;
    let mut roles: BTreeMap<NodeId, Roles> = cfg.members.keys().map(|id| (id.clone(), Roles::default())).collect();
    let mut t = SlotTotals { total: cfg.slots.len() as u64, lost_total: state.lost_total, ..SlotTotals::default() };
    for (s, n) in cfg.slots.counts() {
        let Some(primary) = &s.primary else {
            t.orphan += if s.pterm == 0 { 0 } else { n };
            continue;
        };
        t.serving += if cfg.is_live(primary) { n } else { 0 };
        t.solo += if s.backups().count() < usize::from(cfg.backups) { n } else { 0 };
        if let Some(r) = roles.get_mut(&primary.id) {
            r.primary += n;
        }
        for b in s.backups() {
            if let Some(r) = roles.get_mut(&b.node.id) {
                r.backup += n;
            }
        }
    }
    (t, roles)
}

fn life(id: &NodeId, m: &Member) -> Ref {
    Ref { id: id.clone(), incarnation: m.incarnation }
}

fn node(id: &NodeId, m: &Member, roles: Roles, beats: Option<(&Heartbeats, Mono)>) -> NodeStatus {
    let life = life(id, m);
    let beat = beats.and_then(|(table, now)| Some((table.of(&life)?, now)));
    let suspect = m.state == NodeState::Up && beats.is_some_and(|(table, now)| table.is_suspect(&life, now));
    let none = NodeStats::default();
    let stats = beat.map_or(&none, |(b, _)| b.stats());
    let lookups = stats.hits + stats.misses;
    NodeStatus {
        id: id.to_string(),
        addr: m.addr.clone(),
        incarnation: m.incarnation.to_string(),
        state: if suspect { NodeState::Suspect } else { m.state },
        heartbeat_age_ms: beat.and_then(|(b, now)| b.age_ms(now)),
        heartbeat_gaps_ms: beat.map(|(b, _)| b.gaps_ms().collect()).unwrap_or_default(),
        zone: m.zone.clone(),
        weight: m.weight,
        primary_slots: roles.primary,
        backup_slots: roles.backup,
        primary_keys: stats.primary_keys,
        backup_keys: stats.backup_keys,
        primary_bytes: stats.primary_bytes,
        backup_bytes: stats.backup_bytes,
        memory_limit: stats.memory_limit,
        ops_per_s: stats.ops_per_s,
        hit_ratio: (lookups > 0).then(|| stats.hits as f64 / lookups as f64),
        evicted: stats.evicted,
        expired: stats.expired,
        clients: stats.clients,
        p99_us: stats.p99_us,
        p50_us: stats.p50_us,
        errors: stats.errors,
        hot_slots: stats.hot_slots.clone(),
    }
}

/// The open ones and the last closed ones, by id.
fn operations(state: &State) -> Vec<OperationStatus> {
    let closed = state.operations.values().filter(|o| !o.state.is_open()).count();
    let mut hidden = closed.saturating_sub(CLOSED_SHOWN);
    let mut out = Vec::new();
    for (id, o) in &state.operations {
        if !o.state.is_open() && hidden > 0 {
            hidden -= 1;
            continue;
        }
        out.push(operation(*id, o, &state.cfg));
    }
    out
}

fn operation(id: u64, o: &Operation, cfg: &Config) -> OperationStatus {
    OperationStatus {
        id,
        kind: o.kind.as_str().to_owned(),
        state: o.state.as_str().to_owned(),
        nodes: o.nodes.iter().map(ToString::to_string).collect(),
        slots_total: o.slots_total,
        slots_done: o.slots_done,
        keys_done: o.keys_done,
        bytes_done: o.bytes_done,
        bytes_left: 0,
        rate_bytes_per_s: 0,
        eta_ms: 0,
        reason: o.reason.clone(),
        pairs: pairs(o, cfg),
        retries: 0,
    }
}

/// What an operation has left to move as it was last planned, between whom, and how far that is.
fn pairs(o: &Operation, cfg: &Config) -> Vec<PairStatus> {
    let mut slots: BTreeMap<(Role, Option<&NodeId>, &NodeId), Kinds<'_, u64>> = BTreeMap::new();
    for m in o.moves.iter().flatten() {
        let Some(to) = &m.to else { continue };
        let kinds = slots.entry((m.what, m.from.as_ref(), to)).or_default();
        for s in cfg.slots.range(m.first.ix(), m.last.ix()) {
            *kinds.of(s, 0, |_| 0) += 1;
        }
    }
    let pair = |((what, from, to), kinds): ((Role, Option<&NodeId>, &NodeId), Kinds<'_, u64>)| {
        let mut pair = PairStatus {
            role: what,
            from: from.map(ToString::to_string),
            to: to.to_string(),
            slots_total: 0,
            slots_done: 0,
            slots_running: 0,
        };
        for kind in kinds.iter() {
            let s = kind.state;
            let leads = s.primary.as_ref().is_some_and(|p| &p.id == to);
            let done = match what {
                Role::Primary => leads,
                Role::Backup => !leads && s.insync.iter().any(|r| &r.node.id == to),
            };
            let under_way = s.learners.iter().any(|r| &r.node.id == to)
                || s.handover_to.as_ref().is_some_and(|h| &h.id == to && what == Role::Primary);
            pair.slots_total += kind.value;
            pair.slots_done += if done { kind.value } else { 0 };
            pair.slots_running += if !done && under_way { kind.value } else { 0 };
        }
        pair
    };
    slots.into_iter().map(pair).collect()
}

/// What only the leader knows of an operation under way: what was copied, how fast, and how long it will take.
pub fn progress(status: &mut Status, state: &State, beats: Option<(&Heartbeats, Mono)>, figures: Option<&Figures>) {
    let Some(f) = figures.filter(|f| f.operation != 0) else { return };
    let Some(o) = status.operations.iter_mut().find(|o| o.id == f.operation) else { return };
    let Some(op) = state.operations.get(&f.operation).filter(|o| o.state.is_open()) else { return };
    o.keys_done = f.keys_done;
    o.bytes_done = f.bytes_done;
    o.retries = f.retries;
    o.rate_bytes_per_s = f.rate_bytes_per_s();
    o.bytes_left = beats.map_or(0, |(table, _)| bytes_left(state, op, table));
    let slots_left = op.slots_total.saturating_sub(op.slots_done);
    let by_bytes = (o.rate_bytes_per_s > 0).then(|| o.bytes_left.saturating_mul(1000) / o.rate_bytes_per_s);
    let by_slots = (f.moves_per_ks() > 0).then(|| slots_left.saturating_mul(1_000_000) / f.moves_per_ks());
    o.eta_ms = by_bytes.max(by_slots).filter(|_| slots_left > 0).unwrap_or(0);
}

/// Copies still to be made, each as large as its primary's slots are on average.
fn bytes_left(state: &State, op: &Operation, table: &Heartbeats) -> u64 {
    let cfg = &state.cfg;
    let led = state.primaries();
    let mut left: BTreeMap<&Ref, u64> = BTreeMap::new();
    match &op.moves {
        Some(moves) => {
            let mut by_target: BTreeMap<&NodeId, Kinds<'_, u64>> = BTreeMap::new();
            for m in moves {
                let Some(to) = &m.to else { continue };
                let kinds = by_target.entry(to).or_default();
                for s in cfg.slots.range(m.first.ix(), m.last.ix()) {
                    *kinds.of(s, 0, |_| 0) += 1;
                }
            }
            for (to, kinds) in &by_target {
                for kind in kinds.iter().filter(|k| !k.state.insync.iter().any(|r| &r.node.id == *to)) {
                    if let Some(p) = &kind.state.primary {
                        *left.entry(p).or_default() += kind.value;
                    }
                }
            }
        }
        None => {
            for (s, slots) in cfg.slots.counts().filter(|(s, _)| s.backups().count() < usize::from(cfg.backups)) {
                if let Some(p) = &s.primary {
                    *left.entry(p).or_default() += slots;
                }
            }
        }
    }
    let bytes = |(node, slots): (&Ref, u64)| {
        let all = table.of(node).map_or(0, |b| b.stats().primary_bytes);
        let of = u64::from(led.get(&node.id).copied().unwrap_or(0)).max(1);
        (u128::from(all) * u128::from(slots) / u128::from(of)) as u64
    };
    left.into_iter().map(bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::master::entry::{Act, Change, OperationStep};
    use crate::node::master::heartbeat::SUSPECT_MS;
    use crate::node::master::state::tests::{Log, id, n};
    use crate::proto::id::MasterId;
    use crate::proto::operation::OperationKind;

    fn facts() -> RaftFacts {
        let master = |id: &str, alive| MasterStatus {
            id: id.into(),
            addr: "127.0.0.1:7101".into(),
            role: "follower".into(),
            alive,
            last_log: 1,
            applied: 1,
        };
        RaftFacts {
            term: 7,
            leader: Some(LeaderId { term: 7, id: MasterId::new("m1").unwrap() }),
            masters: vec![master("m1", true), master("m2", true)],
            warnings: vec![],
        }
    }

    fn health(log: &Log) -> Health {
        status(&log.state, None, &facts()).state
    }

    #[test]
    fn health_is_what_the_worst_of_it_is() {
        let mut log = Log::new();
        assert_eq!(health(&log), Health::Down, "no slot was ever handed out");
        log = Log::formed(2);
        assert_eq!(health(&log), Health::Ok);
        let mut f = facts();
        f.leader = None;
        assert_eq!(status(&log.state, None, &f).state, Health::Degraded);
        f = facts();
        f.masters[1].alive = false;
        assert_eq!(status(&log.state, None, &f).state, Health::Degraded);
        log.dead(&[n(2)]);
        assert_eq!(health(&log), Health::Degraded, "solo");
        log.dead(&[n(1)]);
        assert_eq!(health(&log), Health::Down);
    }

    #[test]
    fn slots_are_counted_by_what_they_are() {
        let mut log = Log::formed(3);
        let s = status(&log.state, None, &facts());
        assert_eq!(s.slots, SlotTotals { total: 8, serving: 8, ..SlotTotals::default() });
        assert_eq!(
            s.nodes.iter().map(|n| (n.primary_slots, n.backup_slots)).collect::<Vec<_>>(),
            [(4, 4), (4, 4), (0, 0)]
        );
        log.dead(&[n(2)]);
        // A learner is no backup yet.
        log.change(Change::AddLearner { node: n(3) }, 0, 3);
        let s = status(&log.state, None, &facts());
        assert_eq!(s.slots, SlotTotals { total: 8, serving: 8, solo: 8, ..SlotTotals::default() });
        assert_eq!((s.nodes[1].state, s.nodes[2].backup_slots), (NodeState::Dead, 0));
        // Without backups asked for nothing is solo.
        log.act(Act::SetBackups { backups: 0 });
        assert_eq!(status(&log.state, None, &facts()).slots.solo, 0);
        log.dead(&[n(1)]);
        let s = status(&log.state, None, &facts());
        assert_eq!(s.slots, SlotTotals { total: 8, orphan: 8, ..SlotTotals::default() });
    }

    #[test]
    fn the_leader_shows_silence_and_ages_others_do_not_know_them() {
        let log = Log::formed(2);
        let t0 = Mono(0).plus_ms(5000);
        let mut beats = Heartbeats::default();
        beats.follow(t0, &log.state.cfg);
        let exposed = NodeStats { insecure_bind: true, hits: 3, misses: 1, ..NodeStats::default() };
        beats.beat(&n(1), 1, t0, 1, exposed);
        beats.beat(&n(2), 2, t0, 1, NodeStats::default());
        beats.beat(
            &n(1),
            1,
            t0.plus_ms(SUSPECT_MS),
            1,
            NodeStats { insecure_bind: true, hits: 3, misses: 1, ..NodeStats::default() },
        );
        let s = status(&log.state, Some((&beats, t0.plus_ms(SUSPECT_MS + 5))), &facts());
        assert_eq!(s.state, Health::Degraded);
        assert_eq!((s.nodes[0].state, s.nodes[1].state), (NodeState::Up, NodeState::Suspect));
        assert_eq!((s.nodes[0].heartbeat_age_ms, s.nodes[1].heartbeat_age_ms), (Some(5), Some(SUSPECT_MS + 5)));
        assert_eq!(s.nodes[0].heartbeat_gaps_ms, vec![SUSPECT_MS]);
        assert_eq!((s.nodes[0].hit_ratio, s.nodes[1].hit_ratio), (Some(0.75), None));
        assert_eq!(s.warnings.len(), 1);
        let s = status(&log.state, None, &facts());
        assert_eq!((s.nodes[1].state, s.nodes[1].heartbeat_age_ms), (NodeState::Up, None));
    }

    #[test]
    fn open_operations_and_the_last_ten_are_shown() {
        let mut log = Log::formed(2);
        for k in 1..=15 {
            let create = OperationStep::Create {
                kind: OperationKind::Rebuild,
                nodes: vec![id(1)],
                slots_total: 4,
                moves_digest: 0,
            };
            log.act(Act::Operation(create));
            log.act(Act::Operation(OperationStep::Finish { id: k, done: k != 15, reason: Some("why".into()) }));
        }
        let create = OperationStep::Create {
            kind: OperationKind::ScaleOut,
            nodes: vec![id(1)],
            slots_total: 4,
            moves_digest: 0,
        };
        log.act(Act::Operation(create));
        let shown = status(&log.state, None, &facts()).operations;
        assert_eq!(shown.iter().map(|o| o.id).collect::<Vec<_>>(), (6..=16).collect::<Vec<_>>());
        assert_eq!((shown[9].state.as_str(), shown[9].reason.as_deref()), ("failed", Some("why")));
        assert_eq!((shown[10].kind.as_str(), shown[10].state.as_str()), ("scale-out", "running"));
    }

    #[test]
    fn a_stream_tells_everything_once() {
        let mut log = Log::formed(2);
        let mut cursor = Cursor::default();
        let first = cursor.advance(status(&log.state, None, &facts()), &log.state);
        assert_eq!(first.events.len() as u64, log.state.event_seq);
        assert_eq!(first.slots.unwrap().len(), 2);
        let second = cursor.advance(status(&log.state, None, &facts()), &log.state);
        assert_eq!((second.slots, second.events.len()), (None, 0));
        log.dead(&[n(2)]);
        let third = cursor.advance(status(&log.state, None, &facts()), &log.state);
        assert!(third.slots.is_some());
        assert_eq!(third.events.iter().map(|e| e.kind.as_str()).collect::<Vec<_>>(), ["node-dead"]);
    }
}
