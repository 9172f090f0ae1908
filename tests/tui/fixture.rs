//! Made-up clusters for tests and for the fake masters: fixed numbers, a believable ring, one fault at a time.

#![allow(dead_code)] // each of its users takes what it needs

use std::sync::LazyLock;

use cachectl::proto::event::{Event, Severity};
use cachectl::proto::id::{Incarnation, NodeId, Ref};
use cachectl::proto::operation::{OperationKind, PlanView, PlannedMove, Role, Wish};
use cachectl::proto::slot::{SLOTS, Slot};
use cachectl::proto::stats::HotSlot;
use cachectl::proto::status::{
    HEARTBEAT_GAPS, Health, MasterStatus, NodeState, NodeStatus, OperationStatus, PairStatus, STATUS_SCHEMA,
    SlotTotals, Status, WatchView,
};
use cachectl::proto::view::{Phase, Replica, SlotRange, SlotState};

/// 2023-11-14 22:13:20 UTC, when everything in here happens.
pub const WALL_MS: u64 = 1_700_000_000_000;

/// Points of each node on the ring.
const VNODES: u64 = 16;

/// Mixes the bits of a number (SplitMix64's finisher).
pub fn mix(n: u64) -> u64 {
    let mut z = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Primary and backup of every slot among nodes `1..=nodes`: arcs between hashed points, no node above its bound.
pub fn ring(nodes: u64) -> Vec<(u64, u64)> {
    let mut points: Vec<(usize, u64)> =
        (1..=nodes).flat_map(|n| (0..VNODES).map(move |v| ((mix(n * 1000 + v) % SLOTS as u64) as usize, n))).collect();
    points.sort_unstable();
    let bound = (SLOTS as f64 * 1.02 / nodes as f64).ceil() as usize;
    let mut load = vec![0; nodes as usize + 1];
    let mut backup_load = vec![0; nodes as usize + 1];
    (0..SLOTS)
        .map(|slot| {
            let at = points.partition_point(|(p, _)| *p <= slot) + points.len() - 1;
            let mut walk = (0..points.len()).map(|i| points[(at + i) % points.len()].1);
            let primary = walk.clone().find(|n| load[*n as usize] < bound).unwrap_or(1);
            load[primary as usize] += 1;
            let backup = walk.find(|n| *n != primary && backup_load[*n as usize] < bound);
            let backup = backup.unwrap_or(primary % nodes + 1);
            backup_load[backup as usize] += 1;
            (primary, backup)
        })
        .collect()
}

/// A life of node `n`.
pub fn life(n: u64) -> Ref {
    Ref { id: NodeId::new(&format!("n{n}")).expect("a plain name"), incarnation: Incarnation(mix(n)) }
}

fn replica(n: u64, since: u64) -> Replica {
    Replica { node: life(n), since }
}

/// A serving slot.
pub fn serving(primary: u64, backup: Option<u64>) -> SlotState {
    SlotState {
        pterm: 31,
        cver: 40,
        phase: Phase::Serving,
        primary: Some(life(primary)),
        insync: std::iter::once(primary).chain(backup).map(|n| replica(n, 12)).collect(),
        ..SlotState::default()
    }
}

/// Packs states into ranges.
pub fn pack(slots: &[SlotState]) -> Vec<SlotRange> {
    let mut out: Vec<SlotRange> = Vec::new();
    for (i, s) in slots.iter().enumerate() {
        match out.last_mut() {
            Some(r) if &r.state == s => r.last = Slot(i as u16),
            _ => out.push(SlotRange { first: Slot(i as u16), last: Slot(i as u16), state: s.clone() }),
        }
    }
    out
}

/// A master in its place.
pub fn master(n: u64, leads: bool) -> MasterStatus {
    MasterStatus {
        id: format!("m{n}"),
        addr: format!("127.0.0.1:{}", 7100 + n),
        role: if leads { "leader" } else { "follower" }.into(),
        alive: true,
        last_log: 120,
        applied: 120,
    }
}

/// A node under load; its numbers follow from its number.
pub fn node(n: u64) -> NodeStatus {
    NodeStatus {
        id: format!("n{n}"),
        addr: format!("127.0.0.1:{}", 7200 + n),
        incarnation: format!("{:016x}", mix(n)),
        state: NodeState::Up,
        heartbeat_age_ms: Some(40 + mix(n) % 180),
        heartbeat_gaps_ms: (0..HEARTBEAT_GAPS as u64).map(|i| 246 + mix(n * 100 + i) % 12).collect(),
        zone: String::new(),
        weight: 1.0,
        primary_slots: 0,
        backup_slots: 0,
        primary_keys: 40_000 + mix(n) % 9_000,
        backup_keys: 39_000 + mix(n + 7) % 9_000,
        primary_bytes: 80_000_000 + mix(n) % 20_000_000,
        backup_bytes: 70_000_000 + mix(n + 3) % 20_000_000,
        memory_limit: 256 << 20,
        ops_per_s: 7_000.0 + (mix(n) % 4_000) as f64,
        hit_ratio: Some(0.88 + (mix(n + 1) % 90) as f64 / 1000.0),
        evicted: 1200 * n,
        expired: 400 * n,
        clients: 36 + n,
        p99_us: Some(1_700 + mix(n) % 500),
        p50_us: Some(190 + mix(n) % 60),
        errors: 0,
        hot_slots: Vec::new(),
    }
}

/// Counts what the table says into the nodes and the totals.
pub fn count(status: &mut Status, slots: &[SlotState], backups: bool) {
    for n in &mut status.nodes {
        let is = |r: &Ref| r.id.as_str() == n.id;
        n.primary_slots = slots.iter().filter(|s| s.primary.as_ref().is_some_and(is)).count() as u64;
        n.backup_slots = slots.iter().filter(|s| s.backups().any(|r| is(&r.node))).count() as u64;
    }
    let serving = slots.iter().filter(|s| s.phase != Phase::Orphan).count() as u64;
    status.slots = SlotTotals {
        total: SLOTS as u64,
        serving,
        solo: slots.iter().filter(|s| backups && s.phase != Phase::Orphan && s.insync.len() < 2).count() as u64,
        orphan: SLOTS as u64 - serving,
        lost_total: 0,
    };
}

fn event(seq: u64, ago_s: u64, severity: Severity, kind: &str, subject: &str, text: &str) -> Event {
    Event {
        seq,
        at_ms: WALL_MS - ago_s * 1000,
        index: seq + 20,
        severity,
        kind: kind.into(),
        subject: subject.into(),
        text: text.into(),
        by: None,
    }
}

fn status(nodes: u64, masters: u64) -> Status {
    Status {
        schema: STATUS_SCHEMA,
        cluster: "demo".into(),
        cluster_id: "5eed5eed5eed5eed".into(),
        state: Health::Ok,
        epoch: 42,
        term: 7,
        leader: Some("m1".into()),
        masters: (1..=masters).map(|n| master(n, n == 1)).collect(),
        nodes: (1..=nodes).map(node).collect(),
        slots: SlotTotals::default(),
        operations: Vec::new(),
        warnings: Vec::new(),
    }
}

/// Three masters, three nodes, nothing wrong.
pub fn healthy() -> WatchView {
    // Made once: tests ask for it by the hundred.
    static VIEW: LazyLock<WatchView> = LazyLock::new(make_healthy);
    VIEW.clone()
}

fn make_healthy() -> WatchView {
    let slots: Vec<SlotState> = ring(3).into_iter().map(|(p, b)| serving(p, Some(b))).collect();
    let mut status = status(3, 3);
    count(&mut status, &slots, true);
    let events = vec![
        event(1, 95, Severity::Info, "master-elected", "m1", "m1 leads, term 7"),
        event(2, 94, Severity::Info, "node-joined", "n1", "n1 joined at 127.0.0.1:7201"),
        event(3, 93, Severity::Info, "node-joined", "n2", "n2 joined at 127.0.0.1:7202"),
        event(4, 92, Severity::Info, "node-joined", "n3", "n3 joined at 127.0.0.1:7203"),
    ];
    WatchView { status, slots: Some(pack(&slots)), events }
}

/// Pairs of an operation that gives node `to` the `moving` slots of `before`; the first `done` of them are committed.
pub fn pairs_to(to: u64, before: &[(u64, u64)], moving: &[usize], done: usize) -> Vec<PairStatus> {
    let nodes = before.iter().map(|(p, _)| *p).max().unwrap_or(0);
    let count = |n: u64, of: &[usize]| of.iter().filter(|i| before[**i].0 == n).count() as u64;
    let running = &moving[done..moving.len().min(done + 64)];
    let mut out: Vec<PairStatus> = (1..=nodes)
        .map(|n| PairStatus {
            role: Role::Primary,
            from: Some(format!("n{n}")),
            to: format!("n{to}"),
            slots_total: count(n, moving),
            slots_done: count(n, &moving[..done]),
            slots_running: count(n, running),
        })
        .filter(|p| p.slots_total > 0)
        .collect();
    // Backups are dealt with first.
    out.extend([2, 4].map(|n| PairStatus {
        role: Role::Backup,
        from: Some(format!("n{n}")),
        to: format!("n{to}"),
        slots_total: 410,
        slots_done: 410,
        slots_running: 0,
    }));
    out
}

/// An operation that is over.
pub fn ended(id: u64, kind: &str, state: &str, nodes: &[&str], slots: u64, reason: Option<&str>) -> OperationStatus {
    OperationStatus {
        id,
        kind: kind.into(),
        state: state.into(),
        nodes: nodes.iter().map(|n| (*n).to_owned()).collect(),
        slots_total: slots,
        slots_done: if state == "done" { slots } else { slots / 3 },
        keys_done: slots * 17,
        bytes_done: slots * 300_000,
        bytes_left: 0,
        rate_bytes_per_s: 0,
        eta_ms: 0,
        reason: reason.map(str::to_owned),
        pairs: Vec::new(),
        retries: 0,
    }
}

fn planned(role: Role, from: u64, to: u64, slots: &[usize]) -> PlannedMove {
    let mut runs: Vec<(Slot, Slot)> = Vec::new();
    for s in slots.iter().map(|s| *s as u16) {
        match runs.last_mut() {
            Some((_, last)) if last.0 + 1 == s => last.0 = s,
            _ => runs.push((Slot(s), Slot(s))),
        }
    }
    let name = |n: u64| NodeId::new(&format!("n{n}")).expect("a plain name");
    PlannedMove {
        role,
        from: Some(name(from)),
        to: name(to),
        runs,
        slots: slots.len() as u64,
        keys: slots.len() as u64 * 14,
        bytes: slots.len() as u64 * 310_000,
    }
}

fn plan(kind: OperationKind, node: &str, moves: Vec<PlannedMove>) -> PlanView {
    PlanView {
        wish: Wish {
            kind,
            nodes: vec![NodeId::new(node).expect("a plain name")],
            force: false,
            accept_data_loss: false,
        },
        epoch: 42,
        moves_digest: "5eed".into(),
        slots_total: moves.iter().map(|m| m.slots).sum(),
        bytes: moves.iter().map(|m| m.bytes).sum(),
        moves,
        estimate_ms: Some(38_000),
        warnings: Vec::new(),
    }
}

/// What adding n4 to three nodes would move.
pub fn plan_out() -> PlanView {
    let (before, after) = (ring(3), ring(4));
    let mut moves = Vec::new();
    for n in 1..=3 {
        let of = |role: Role| -> Vec<usize> {
            let takes = |i: &usize| match role {
                Role::Primary => after[*i].0 == 4 && before[*i].0 == n,
                Role::Backup => after[*i].1 == 4 && before[*i].1 == n,
            };
            (0..SLOTS).filter(takes).collect()
        };
        moves.extend([Role::Primary, Role::Backup].map(|role| planned(role, n, 4, &of(role))));
    }
    moves.retain(|m| m.slots > 0);
    plan(OperationKind::ScaleOut, "n4", moves)
}

/// What draining n2 of three nodes would move.
pub fn plan_in() -> PlanView {
    let before = ring(3);
    let of = |to: u64| -> Vec<usize> { (0..SLOTS).filter(|i| before[*i].0 == 2 && (before[*i].1 == to)).collect() };
    let moves = vec![planned(Role::Primary, 2, 1, &of(1)), planned(Role::Primary, 2, 3, &of(3))];
    let mut plan = plan(OperationKind::ScaleIn, "n2", moves);
    plan.warnings = vec!["two nodes are left: the next one that dies leaves slots without a backup".into()];
    plan
}

/// Six nodes: n4 suspect, n6 joining with its share on the way.
pub fn busy() -> WatchView {
    // Made once: tests ask for it by the hundred.
    static VIEW: LazyLock<WatchView> = LazyLock::new(make_busy);
    VIEW.clone()
}

fn make_busy() -> WatchView {
    let (before, after) = (ring(5), ring(6));
    let moving: Vec<usize> = (0..SLOTS).filter(|i| after[*i].0 == 6).collect();
    let mut slots: Vec<SlotState> = before.iter().map(|(p, b)| serving(*p, Some(*b))).collect();
    let done = moving.len() * 32 / 100;
    for (n, &i) in moving.iter().enumerate() {
        let (p, b) = before[i];
        match n {
            _ if n < done => slots[i] = SlotState { pterm: 42, cver: 42, clean: true, ..serving(6, Some(p)) },
            _ if n < done + 64 => {
                slots[i] = SlotState { cver: 41, phase: Phase::Handover, ..serving(p, Some(b)) };
                slots[i].insync.push(replica(6, 39));
                slots[i].handover_to = Some(life(6));
            }
            _ if n < done + 600 => slots[i].learners = vec![replica(6, 39)],
            _ => {}
        }
    }
    let mut status = status(6, 3);
    status.state = Health::Degraded;
    count(&mut status, &slots, true);
    let n4 = &mut status.nodes[3];
    n4.state = NodeState::Suspect;
    n4.heartbeat_age_ms = Some(1640);
    n4.heartbeat_gaps_ms[HEARTBEAT_GAPS - 1] = 312;
    n4.p99_us = Some(9_400);
    n4.hit_ratio = Some(0.912);
    let n6 = &mut status.nodes[5];
    n6.state = NodeState::Joining;
    n6.heartbeat_gaps_ms.truncate(12);
    n6.hit_ratio = Some(0.715);
    n6.primary_bytes = 30_000_000;
    n6.backup_bytes = 0;
    n6.ops_per_s = 2_900.0;
    // A key that everybody asks for.
    let hot = &slots[9_000];
    for n in &mut status.nodes {
        if hot.primary.as_ref().is_some_and(|r| r.id.as_str() == n.id) {
            n.hot_slots = vec![HotSlot { slot: 9_000, share: 0.3 }];
        }
    }
    status.operations = vec![
        OperationStatus {
            id: 17,
            kind: "scale-out".into(),
            state: "running".into(),
            nodes: vec!["n6".into()],
            slots_total: moving.len() as u64,
            slots_done: done as u64,
            keys_done: 13_200,
            bytes_done: 640 << 20,
            bytes_left: 1_340 << 20,
            rate_bytes_per_s: 32_715_571,
            eta_ms: 41_000,
            reason: None,
            pairs: pairs_to(6, &before, &moving, done),
            retries: 2,
        },
        ended(16, "scale-in", "done", &["n7"], 1_840, None),
        ended(15, "scale-out", "cancelled", &["n8"], 700, Some("by tui")),
        OperationStatus {
            id: 18,
            kind: "rebalance".into(),
            state: "planned".into(),
            nodes: Vec::new(),
            slots_total: 120,
            slots_done: 0,
            keys_done: 0,
            bytes_done: 0,
            bytes_left: 0,
            rate_bytes_per_s: 0,
            eta_ms: 0,
            reason: Some("waits for #17".into()),
            pairs: Vec::new(),
            retries: 0,
        },
    ];
    let events = vec![
        event(1, 250, Severity::Info, "master-elected", "m1", "m1 leads, term 7"),
        event(2, 190, Severity::Info, "node-joined", "n6", "n6 joined at 127.0.0.1:7206"),
        event(3, 189, Severity::Info, "operation", "17", "op #17 scale-out n6 started: 2730 slots from 5 nodes"),
        event(4, 7, Severity::Info, "operation", "17", "slots 3221-3284 n1→n6 committed, epoch 42"),
        event(5, 2, Severity::Warn, "node-suspect", "n4", "n4 suspect: 5 heartbeats missed"),
    ];
    WatchView { status, slots: Some(pack(&slots)), events }
}

/// Three nodes, n2 dead: its slots promoted, a third of them without a backup yet, and a few gone for good.
pub fn lost_one() -> WatchView {
    // Made once: tests ask for it by the hundred.
    static VIEW: LazyLock<WatchView> = LazyLock::new(make_lost_one);
    VIEW.clone()
}

fn make_lost_one() -> WatchView {
    let mut slots: Vec<SlotState> = Vec::with_capacity(SLOTS);
    for (i, (p, b)) in ring(3).into_iter().enumerate() {
        slots.push(match (p, b) {
            (2, _) if i % 1000 == 7 => {
                SlotState { pterm: 50, cver: 50, last_holder: Some(life(2)), ..SlotState::default() }
            }
            (2, b) => SlotState { pterm: 50, cver: 50, learners: vec![replica(4 - b, 51)], ..serving(b, None) },
            (p, 2) => SlotState { cver: 50, learners: vec![replica(4 - p, 51)], ..serving(p, None) },
            (p, b) => serving(p, Some(b)),
        });
    }
    let mut status = status(3, 3);
    status.state = Health::Down;
    status.epoch = 51;
    status.masters[2].alive = false;
    status.masters[2].role = "unreachable".into();
    count(&mut status, &slots, true);
    status.slots.lost_total = 12;
    let n2 = &mut status.nodes[1];
    n2.state = NodeState::Dead;
    n2.heartbeat_age_ms = Some(14_000);
    n2.ops_per_s = 0.0;
    n2.hit_ratio = None;
    n2.p99_us = None;
    n2.p50_us = None;
    n2.clients = 0;
    status.operations = vec![OperationStatus {
        id: 3,
        kind: "rebuild".into(),
        state: "running".into(),
        nodes: vec!["n1".into(), "n3".into()],
        slots_total: 10_900,
        slots_done: 2_100,
        keys_done: 9_000,
        bytes_done: 9_000_000,
        bytes_left: 40_000_000,
        rate_bytes_per_s: 11_000_000,
        eta_ms: 3_600,
        reason: None,
        pairs: Vec::new(),
        retries: 0,
    }];
    status.warnings = vec!["n3 is bound to 0.0.0.0 (--insecure-bind): anyone who reaches it may read and write".into()];
    let events = vec![
        event(7, 14, Severity::Error, "node-dead", "n2", "n2 is dead: its connection ended, its port refuses"),
        event(8, 14, Severity::Info, "promoted", "n2", "5455 slots of n2 promoted: n1 2730, n3 2725"),
        event(9, 3, Severity::Error, "slots-lost", "n2", "6 slots of n2 had no other copy"),
    ];
    WatchView { status, slots: Some(pack(&slots)), events }
}

/// Three elections: an order, a silence, and the one that leads.
pub fn elections() -> WatchView {
    let mut v = healthy();
    let mut ordered = event(8, 60, Severity::Info, "switchover", "m2", "leadership goes from m1 to m2");
    ordered.by = Some("tui".into());
    v.events.extend([
        ordered,
        event(9, 59, Severity::Info, "master-elected", "m2", "m2 leads, term 8"),
        event(10, 12, Severity::Info, "master-elected", "m3", "m3 leads, term 9"),
    ]);
    v.status.leader = Some("m3".into());
    v.status.term = 9;
    v.status.state = Health::Degraded;
    for (i, m) in v.status.masters.iter_mut().enumerate() {
        m.role = ["follower", "unreachable", "leader"][i].into();
        m.alive = i != 1;
        m.last_log = [131, 120, 131][i];
    }
    v
}

/// Names and numbers that no honest cluster sends.
pub fn hostile() -> WatchView {
    let mut v = busy();
    v.status.cluster = "\x1b]0;owned\x07\u{202e}evil\u{200d}日本語クラスタ".into();
    v.status.nodes[0].id = "\x1b[31mn1\x1b[0m\u{9b}2J".into();
    v.status.nodes[1].id = "名前がとても長いノード名前がとても長いノード".into();
    v.status.nodes[2].id = "n".repeat(5000);
    v.status.nodes[3].id = "e\u{301}\u{302}\u{303}\u{200b}\u{feff}".into();
    v.status.nodes[4].id = String::new();
    v.status.nodes[0].addr = "\r\n\t\u{2028}".into();
    for n in &mut v.status.nodes {
        n.ops_per_s = f64::NAN;
        n.hit_ratio = Some(f64::NEG_INFINITY);
        n.heartbeat_age_ms = Some(u64::MAX);
        n.heartbeat_gaps_ms = vec![u64::MAX, 0, 250, 1_000_000, 1];
        n.primary_slots = u64::MAX;
        n.primary_bytes = u64::MAX;
        n.backup_bytes = u64::MAX;
        n.memory_limit = 0;
        n.p99_us = Some(u64::MAX);
        n.evicted = u64::MAX;
        n.clients = u64::MAX;
        n.weight = f64::NAN;
        n.hot_slots = vec![HotSlot { slot: u16::MAX, share: f64::NAN }; 300];
    }
    v.status.epoch = u64::MAX;
    v.status.term = u64::MAX;
    v.status.slots.lost_total = u64::MAX;
    v.status.leader = Some("\u{202e}1m".into());
    v.status.operations[0].nodes = vec!["\x1b[5m".into(); 300];
    v.status.operations[0].slots_done = u64::MAX;
    v.status.operations[0].eta_ms = u64::MAX;
    v.status.operations[0].rate_bytes_per_s = u64::MAX;
    v.status.operations[1].kind = "\u{7}".into();
    for p in &mut v.status.operations[0].pairs {
        p.from = Some("\x1b]0;x\x07\u{202e}".into());
        p.slots_total = u64::MAX;
        p.slots_done = u64::MAX;
        p.slots_running = u64::MAX;
    }
    v.status.masters[1].id = "\u{9b}31m日本".into();
    v.status.masters[1].last_log = u64::MAX;
    v.events[0].text = "\x1b[2J\x1b]52;c;cm0gLXJm\x07 \u{202e}txt.exe".into();
    v.events[1].at_ms = u64::MAX;
    v.events[2].seq = u64::MAX;
    v
}
