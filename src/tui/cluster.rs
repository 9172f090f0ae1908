//! What the masters said, cleaned and bounded once, where it is taken in: nothing behind this has to distrust a name.

use std::collections::{BTreeMap, VecDeque};

use super::escape::{clean, natural};
use super::history::History;
use super::slots::SlotTable;
use crate::proto::event::Event;
use crate::proto::status::{HEARTBEAT_GAPS, NodeStatus, Status};
use crate::proto::view::SlotRange;

/// Nodes taken in from one view: more than the planner is measured for, so that a broken peer can't fill memory.
const NODES_MAX: usize = 2_000;
/// Operations taken in: the open ones and the last ten, with room.
const OPERATIONS_MAX: usize = 100;
/// Hot slots taken in of a node: it names no more.
const HOT_SLOTS_MAX: usize = 8;
/// Masters taken in.
const MASTERS_MAX: usize = 16;
/// Nodes named in one operation.
const OPERATION_NODES_MAX: usize = 64;
/// Warnings taken in.
const WARNINGS_MAX: usize = 20;
/// Events kept: an hour of a busy cluster.
pub const EVENTS_MAX: usize = 2_000;
/// Pairs taken in of one operation: every two of 100 nodes in both roles would be more, and no screen shows them.
const PAIRS_MAX: usize = 1_000;

/// What the masters said, made safe to draw.
#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    /// The latest status, cleaned and bounded.
    pub status: Status,
    /// When it came, monotonic milliseconds.
    pub received_ms: u64,
    /// The slot table.
    pub table: SlotTable,
    /// What happened, oldest first.
    pub events: VecDeque<Event>,
    /// Events that were never seen, by their numbers.
    pub events_missed: u64,
    /// Events that were seen and had to make room for newer ones.
    pub events_dropped: u64,
    /// When each master was last said to be alive, monotonic milliseconds.
    pub masters_seen: BTreeMap<String, u64>,
    /// The last two minutes.
    pub history: History,
}

impl Cluster {
    /// A cluster of which nothing but this is known.
    pub(super) fn new(status: Status) -> Self {
        Self {
            status,
            received_ms: 0,
            table: SlotTable::default(),
            events: VecDeque::new(),
            events_missed: 0,
            events_dropped: 0,
            masters_seen: BTreeMap::new(),
            history: History::default(),
        }
    }

    /// Takes the parts of a view in: a status that is clean already, a slot table if it changed, new events.
    pub(super) fn renew(
        &mut self,
        now_ms: u64,
        status: Status,
        slots: Option<Vec<SlotRange>>,
        events: Vec<Event>,
        ascii: bool,
    ) {
        self.received_ms = now_ms;
        self.history.record(now_ms, &status);
        let mut names: Vec<&str> = status.nodes.iter().map(|n| n.id.as_str()).collect();
        names.sort_by(|a, b| natural(a, b));
        self.table.know(names.into_iter());
        if let Some(slots) = slots {
            self.table.replace(slots);
        }
        for event in events {
            self.take_event(event, ascii);
        }
        self.masters_seen.retain(|id, _| status.masters.iter().any(|m| &m.id == id));
        for m in status.masters.iter().filter(|m| m.alive) {
            self.masters_seen.insert(m.id.clone(), now_ms);
        }
        self.status = status;
    }

    fn take_event(&mut self, mut e: Event, ascii: bool) {
        let last = self.events.back().map(|b| b.seq);
        // A stream that starts again repeats what was seen; a gap in the numbers is something nobody saw.
        if last.is_some_and(|last| e.seq <= last) {
            return;
        }
        if let Some(last) = last {
            self.events_missed = self.events_missed.saturating_add(e.seq - last - 1);
        }
        for text in [&mut e.kind, &mut e.subject, &mut e.text] {
            *text = clean(text, ascii);
        }
        e.by = e.by.map(|by| clean(&by, ascii));
        self.events.push_back(e);
        while self.events.len() > EVENTS_MAX {
            self.events.pop_front();
            self.events_dropped = self.events_dropped.saturating_add(1);
        }
    }
}

/// Bytes a node holds, of both kinds.
pub fn memory_used(n: &NodeStatus) -> u64 {
    n.primary_bytes.saturating_add(n.backup_bytes)
}

/// The part of its memory that a node uses; 0 without a limit.
pub fn memory_share(n: &NodeStatus) -> f64 {
    if n.memory_limit == 0 { 0.0 } else { memory_used(n) as f64 / n.memory_limit as f64 }
}

/// Makes all texts safe to draw and bounds all lists.
pub(super) fn clean_status(mut s: Status, ascii: bool) -> Status {
    let fix = |text: &mut String| *text = clean(text, ascii);
    s.nodes.truncate(NODES_MAX);
    s.operations.truncate(OPERATIONS_MAX);
    s.masters.truncate(MASTERS_MAX);
    s.warnings.truncate(WARNINGS_MAX);
    fix(&mut s.cluster);
    fix(&mut s.cluster_id);
    s.leader.iter_mut().for_each(fix);
    s.warnings.iter_mut().for_each(fix);
    for m in &mut s.masters {
        [&mut m.id, &mut m.addr, &mut m.role].into_iter().for_each(fix);
    }
    for n in &mut s.nodes {
        [&mut n.id, &mut n.addr, &mut n.incarnation, &mut n.zone].into_iter().for_each(fix);
        let surplus = n.heartbeat_gaps_ms.len().saturating_sub(HEARTBEAT_GAPS);
        n.heartbeat_gaps_ms.drain(..surplus);
        n.hot_slots.truncate(HOT_SLOTS_MAX);
    }
    for o in &mut s.operations {
        o.nodes.truncate(OPERATION_NODES_MAX);
        [&mut o.kind, &mut o.state].into_iter().for_each(fix);
        o.nodes.iter_mut().for_each(fix);
        o.reason.iter_mut().for_each(fix);
        o.pairs.truncate(PAIRS_MAX);
        for p in &mut o.pairs {
            p.from.iter_mut().for_each(fix);
            fix(&mut p.to);
        }
    }
    s
}
