//! Who beats and who does not. Each heartbeat drops the node's old timer and sets a new one; nothing of this enters the log.
//!
//! ```text
//!   beat ──▶ armed ── 1.25 s ──▶ suspect ── 1.25 s ──▶ expired (dead by its timer)
//!              │ connection ends
//!              └──▶ probed ── refused ──▶ probed again ── refused ──▶ proven (its process is gone)
//!                     ├── open ──▶ probed anew, for 500 ms: the port of a process that is being killed closes a moment later
//!                     └── anything else, or a beat ──▶ armed
//! ```

use std::collections::{BTreeMap, VecDeque};

use super::brain::{ConnId, ProbeOutcome};
use crate::node::clock::Mono;
use crate::proto::id::{NodeId, Ref};
use crate::proto::stats::{CopyStats, NodeStats};
use crate::proto::status::HEARTBEAT_GAPS;
use crate::proto::view::Config;

/// Silence after which a node is suspect, milliseconds: five beats.
pub const SUSPECT_MS: u64 = 1250;
/// Silence after which a node is dead, milliseconds: ten beats.
pub const DEAD_MS: u64 = 2500;
/// Refusals in a row that prove a process gone whose connection ended: one may meet a listener's restart.
pub const FAST_REFUSALS: u32 = 2;
/// Between the two, milliseconds: both fit into the 100 ms of PROTOCOL section 7.
pub const FAST_GAP_MS: u64 = 50;
/// After a connection ended a port that is still open is tried again for this long, milliseconds. The kernel closes a killed
/// process's descriptors one by one, and a probe may come between the connection and the listener. Who lives beats by then.
pub const FAST_OPEN_MS: u64 = 500;
/// A probe without an answer is given up after this, milliseconds; its node falls back to its timer.
pub const FAST_WAIT_MS: u64 = 500;

/// The heartbeats of all live members.
#[derive(Debug, Default)]
pub struct Heartbeats {
    beats: BTreeMap<NodeId, Beat>,
}

/// One node's.
#[derive(Debug)]
pub struct Beat {
    node: Ref,
    conn: Option<ConnId>,
    /// As received, for people; none before the first.
    last: Option<Mono>,
    /// What the timer counts from.
    armed: Mono,
    gaps_ms: VecDeque<u64>,
    stats: NodeStats,
    cfg_index: u64,
    fast: Option<Fast>,
    suspect: bool,
}

/// Its connection ended and its peer address is being probed.
#[derive(Debug)]
struct Fast {
    since: Mono,
    refusals: u32,
    next: Mono,
    awaited: bool,
    proven_at: Option<Mono>,
}

/// What the timers say of the live members.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Refused twice after their connection ended.
    pub proven: Vec<Ref>,
    /// Silent for [`DEAD_MS`]; the longest silent first.
    pub expired: Vec<Ref>,
    /// Silent for [`SUSPECT_MS`], or being probed: not to be promoted if another can be.
    pub suspects: Vec<Ref>,
    /// When the first of `proven` was.
    pub proven_at: Option<Mono>,
    /// Some other node's probes are under way.
    pub undecided: bool,
}

impl Heartbeats {
    /// Follows the configuration: a timer for every live member, none for others.
    pub fn follow(&mut self, now: Mono, cfg: &Config) {
        self.beats.retain(|_, b| cfg.is_live(&b.node));
        for id in cfg.members.keys() {
            let Some(node) = cfg.current(id).filter(|n| cfg.is_live(n)) else { continue };
            if self.beats.get(id).is_none_or(|b| b.node != node) {
                self.beats.insert(id.clone(), Beat::new(node, now));
            }
        }
    }

    /// Starts every timer anew: the leader was away and judges nobody for that time.
    pub fn rearm(&mut self, now: Mono) {
        for b in self.beats.values_mut() {
            b.armed = b.armed.max(now);
            b.fast = None;
        }
    }

    /// Drops everything, with leadership.
    pub fn clear(&mut self) {
        self.beats.clear();
    }

    /// Drops the node's old timer and sets a new one. False: it is not a live member.
    pub fn beat(&mut self, node: &Ref, conn: ConnId, at: Mono, cfg_index: u64, stats: NodeStats) -> bool {
        let Some(b) = self.of_mut(node) else { return false };
        if let Some(last) = b.last {
            if b.gaps_ms.len() == HEARTBEAT_GAPS {
                b.gaps_ms.pop_front();
            }
            b.gaps_ms.push_back(at.ms_since(last));
        }
        b.last = b.last.max(Some(at));
        b.armed = b.armed.max(at);
        b.conn = Some(conn);
        b.cfg_index = cfg_index;
        b.stats = stats;
        b.fast = None;
        true
    }

    /// Between two heartbeats it said what it copied to one node: as if the last one had said so.
    pub fn copied(&mut self, node: &Ref, to: CopyStats) {
        if let Some(b) = self.of_mut(node) {
            b.stats.copies.retain(|c| c.to != to.to);
            b.stats.copies.push(to);
        }
    }

    /// It registered: alive, on this connection.
    pub fn registered(&mut self, node: &Ref, conn: ConnId, now: Mono) {
        if let Some(b) = self.of_mut(node) {
            b.conn = Some(conn);
            b.armed = b.armed.max(now);
            b.fast = None;
        }
    }

    /// A connection ended; if it was a node's newest one, the node is to be probed.
    pub fn conn_ended(&mut self, conn: ConnId, now: Mono) {
        if let Some(b) = self.beats.values_mut().find(|b| b.conn == Some(conn)) {
            b.conn = None;
            b.fast = Some(Fast { since: now, refusals: 0, next: now, awaited: false, proven_at: None });
        }
    }

    /// The nodes whose next probe is due; each is then awaited.
    pub fn due_probes(&mut self, now: Mono) -> Vec<Ref> {
        let mut due = Vec::new();
        for b in self.beats.values_mut() {
            let Some(f) = b.fast.as_mut().filter(|f| f.next <= now && f.proven_at.is_none()) else { continue };
            if f.awaited {
                b.fast = None;
                continue;
            }
            f.awaited = true;
            f.next = now.plus_ms(FAST_WAIT_MS);
            due.push(b.node.clone());
        }
        due
    }

    /// What a probe met. Only refusals in a row prove anything.
    pub fn probed(&mut self, node: &Ref, outcome: ProbeOutcome, now: Mono) {
        let Some(b) = self.of_mut(node) else { return };
        let Some(f) = b.fast.as_mut().filter(|f| f.awaited) else { return };
        f.awaited = false;
        f.next = now.plus_ms(FAST_GAP_MS);
        match outcome {
            ProbeOutcome::Refused => f.refusals += 1,
            ProbeOutcome::Open if now.ms_since(f.since) < FAST_OPEN_MS => f.refusals = 0,
            ProbeOutcome::Open | ProbeOutcome::Other => {
                b.fast = None;
                return;
            }
        }
        if f.refusals >= FAST_REFUSALS {
            f.proven_at = Some(now);
        }
    }

    /// Judges everybody at this moment.
    pub fn judge(&self, now: Mono) -> Verdict {
        let mut v = Verdict::default();
        let mut expired = Vec::new();
        for b in self.beats.values() {
            let silent = now.ms_since(b.armed);
            let probing = b.fast.as_ref();
            if let Some(at) = probing.and_then(|f| f.proven_at) {
                v.proven_at = Some(v.proven_at.map_or(at, |first| first.min(at)));
                v.proven.push(b.node.clone());
            } else if silent >= DEAD_MS {
                expired.push((std::cmp::Reverse(silent), b.node.clone()));
            } else if silent >= SUSPECT_MS || probing.is_some() {
                v.suspects.push(b.node.clone());
                v.undecided |= probing.is_some();
            }
        }
        expired.sort();
        v.expired = expired.into_iter().map(|(_, n)| n).collect();
        v
    }

    /// Nodes that became suspect, or stopped being so, since this was last asked.
    pub fn turned(&mut self, now: Mono) -> Vec<(Ref, bool)> {
        let mut out = Vec::new();
        for b in self.beats.values_mut() {
            let suspect = now.ms_since(b.armed) >= SUSPECT_MS;
            if suspect != b.suspect {
                b.suspect = suspect;
                out.push((b.node.clone(), suspect));
            }
        }
        out
    }

    /// Whether this life is silent for so long that people shall see it as suspect.
    pub fn is_suspect(&self, node: &Ref, now: Mono) -> bool {
        self.of(node).is_some_and(|b| now.ms_since(b.armed) >= SUSPECT_MS)
    }

    /// Whether it is suspect, or its connection ended and it was not heard since: no one to give slots to.
    pub fn is_doubtful(&self, node: &Ref, now: Mono) -> bool {
        self.is_suspect(node, now) || self.of(node).is_some_and(|b| b.fast.is_some())
    }

    /// Whether this life was heard since the leader began.
    pub fn was_heard(&self, node: &Ref) -> bool {
        self.of(node).is_some_and(|b| b.last.is_some() || b.conn.is_some())
    }

    /// How long its timer runs already, milliseconds.
    pub fn silent_ms(&self, node: &Ref, now: Mono) -> u64 {
        self.of(node).map_or(0, |b| now.ms_since(b.armed))
    }

    /// One node's beat.
    pub fn of(&self, node: &Ref) -> Option<&Beat> {
        self.beats.get(&node.id).filter(|b| &b.node == node)
    }

    fn of_mut(&mut self, node: &Ref) -> Option<&mut Beat> {
        self.beats.get_mut(&node.id).filter(|b| &b.node == node)
    }
}

impl Beat {
    fn new(node: Ref, now: Mono) -> Self {
        Self {
            node,
            conn: None,
            last: None,
            armed: now,
            gaps_ms: VecDeque::with_capacity(HEARTBEAT_GAPS),
            stats: NodeStats::default(),
            cfg_index: 0,
            fast: None,
            suspect: false,
        }
    }

    /// Milliseconds since the last heartbeat; none before the first.
    pub fn age_ms(&self, now: Mono) -> Option<u64> {
        self.last.map(|at| now.ms_since(at))
    }

    /// The last gaps between heartbeats, oldest first, milliseconds.
    pub fn gaps_ms(&self) -> impl Iterator<Item = u64> + '_ {
        self.gaps_ms.iter().copied()
    }

    /// What the node last said of itself.
    pub fn stats(&self) -> &NodeStats {
        &self.stats
    }

    /// The configuration it last said it stands at.
    pub fn cfg_index(&self) -> u64 {
        self.cfg_index
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::id::{ClusterId, HomeId, Incarnation};
    use crate::proto::status::NodeState;
    use crate::proto::view::Member;

    fn node() -> Ref {
        Ref { id: NodeId::new("n1").unwrap(), incarnation: Incarnation(1) }
    }

    fn cfg(node: &Ref) -> Config {
        let mut cfg = Config::empty(ClusterId(1), 8);
        let member = Member {
            incarnation: node.incarnation,
            home: HomeId(1),
            addr: "127.0.0.1:1".into(),
            peer_addr: "127.0.0.1:2".into(),
            state: NodeState::Up,
            zone: String::new(),
            weight: 1.0,
        };
        cfg.members.insert(node.id.clone(), member);
        cfg
    }

    fn ms(ms: u64) -> Mono {
        Mono(0).plus_ms(ms)
    }

    fn beating(at: u64) -> Heartbeats {
        let mut hb = Heartbeats::default();
        hb.follow(ms(at), &cfg(&node()));
        hb
    }

    fn beat(hb: &mut Heartbeats, at: u64) -> bool {
        hb.beat(&node(), 5, ms(at), 1, NodeStats::default())
    }

    #[test]
    fn silence_makes_suspect_then_expired_to_the_millisecond() {
        let mut hb = beating(0);
        assert!(beat(&mut hb, 1000));
        assert_eq!(hb.judge(ms(1000 + SUSPECT_MS - 1)), Verdict::default());
        assert_eq!(hb.judge(ms(1000 + SUSPECT_MS)).suspects, vec![node()]);
        assert!(hb.judge(ms(1000 + DEAD_MS - 1)).expired.is_empty());
        assert_eq!(hb.judge(ms(1000 + DEAD_MS)).expired, vec![node()]);
        // A beat in the last moment drops the old timer.
        beat(&mut hb, 1000 + DEAD_MS);
        assert_eq!(hb.judge(ms(1000 + DEAD_MS)), Verdict::default());
    }

    #[test]
    fn a_node_never_heard_is_judged_from_when_it_was_armed() {
        let mut hb = beating(100);
        assert!(hb.judge(ms(100 + DEAD_MS - 1)).expired.is_empty());
        hb.rearm(ms(2000));
        assert!(hb.judge(ms(2000 + DEAD_MS - 1)).expired.is_empty());
        assert_eq!(hb.judge(ms(2000 + DEAD_MS)).expired, vec![node()]);
    }

    #[test]
    fn beats_out_of_order_take_no_timer_back() {
        let mut hb = beating(0);
        beat(&mut hb, 1000);
        beat(&mut hb, 900);
        assert_eq!(hb.silent_ms(&node(), ms(1100)), 100);
        assert_eq!(hb.of(&node()).unwrap().age_ms(ms(1100)), Some(100));
    }

    #[test]
    fn what_was_copied_between_beats_counts_until_the_next_says_more() {
        let mut hb = beating(0);
        let copied = |keys| CopyStats { to: NodeId::new("n2").unwrap(), keys, bytes: 10 * keys, waiting: 0 };
        let stats = |keys| NodeStats { copies: vec![copied(keys)], ..NodeStats::default() };
        hb.beat(&node(), 5, ms(250), 1, stats(3));
        hb.copied(&node(), copied(7));
        assert_eq!(hb.of(&node()).unwrap().stats().copies, [copied(7)]);
        assert_eq!(hb.silent_ms(&node(), ms(400)), 150, "it is no heartbeat");
        hb.beat(&node(), 5, ms(500), 1, stats(8));
        assert_eq!(hb.of(&node()).unwrap().stats().copies, [copied(8)]);
    }

    #[test]
    fn the_strip_keeps_the_last_gaps() {
        let mut hb = beating(0);
        for k in 0..30 {
            beat(&mut hb, 250 * k + k);
        }
        let gaps: Vec<u64> = hb.of(&node()).unwrap().gaps_ms().collect();
        assert_eq!(gaps, vec![251; HEARTBEAT_GAPS]);
    }

    #[test]
    fn two_refusals_after_the_connection_ended_prove_it_gone() {
        let mut hb = beating(0);
        beat(&mut hb, 10);
        hb.conn_ended(4, ms(20));
        assert!(hb.due_probes(ms(20)).is_empty(), "another's connection");
        hb.conn_ended(5, ms(20));
        assert_eq!(hb.due_probes(ms(20)), vec![node()]);
        assert!(hb.due_probes(ms(21)).is_empty(), "one at a time");
        hb.probed(&node(), ProbeOutcome::Refused, ms(21));
        assert!(hb.judge(ms(22)).proven.is_empty());
        assert!(hb.judge(ms(22)).undecided);
        assert!(hb.due_probes(ms(21 + FAST_GAP_MS - 1)).is_empty());
        assert_eq!(hb.due_probes(ms(21 + FAST_GAP_MS)), vec![node()]);
        hb.probed(&node(), ProbeOutcome::Refused, ms(80));
        assert_eq!(hb.judge(ms(80)).proven, vec![node()]);
    }

    #[test]
    fn a_port_that_closes_after_the_connection_still_proves_it_gone() {
        let mut hb = beating(0);
        beat(&mut hb, 10);
        hb.conn_ended(5, ms(20));
        for (at, outcome) in [(20, ProbeOutcome::Open), (70, ProbeOutcome::Refused), (120, ProbeOutcome::Refused)] {
            assert!(hb.judge(ms(at)).proven.is_empty());
            assert_eq!(hb.due_probes(ms(at)), vec![node()], "{at}");
            hb.probed(&node(), outcome, ms(at));
        }
        assert_eq!(hb.judge(ms(120)).proven, vec![node()]);
    }

    #[test]
    fn an_open_port_starts_the_count_of_refusals_anew() {
        let mut hb = beating(0);
        beat(&mut hb, 10);
        hb.conn_ended(5, ms(20));
        for (at, outcome) in [(20, ProbeOutcome::Refused), (70, ProbeOutcome::Open), (120, ProbeOutcome::Refused)] {
            hb.due_probes(ms(at));
            hb.probed(&node(), outcome, ms(at));
        }
        assert!(hb.judge(ms(121)).proven.is_empty());
    }

    #[test]
    fn a_port_that_stays_open_a_beat_or_silence_end_the_fast_path() {
        for case in 0..4 {
            let mut hb = beating(0);
            beat(&mut hb, 10);
            hb.conn_ended(5, ms(20));
            hb.due_probes(ms(20));
            hb.probed(&node(), ProbeOutcome::Refused, ms(21));
            hb.due_probes(ms(21 + FAST_GAP_MS));
            match case {
                0 => hb.probed(&node(), ProbeOutcome::Other, ms(90)),
                1 => hb.probed(&node(), ProbeOutcome::Open, ms(20 + FAST_OPEN_MS)),
                2 => assert!(beat(&mut hb, 90)),
                _ => assert!(hb.due_probes(ms(21 + FAST_GAP_MS + FAST_WAIT_MS)).is_empty()),
            }
            hb.probed(&node(), ProbeOutcome::Refused, ms(700));
            assert!(hb.judge(ms(700)).proven.is_empty(), "case {case}");
            assert!(hb.due_probes(ms(701)).is_empty());
        }
    }

    #[test]
    fn another_life_has_another_timer() {
        let mut hb = beating(0);
        let next = Ref { incarnation: Incarnation(2), ..node() };
        assert!(!hb.beat(&next, 6, ms(5), 1, NodeStats::default()));
        hb.follow(ms(500), &cfg(&next));
        assert!(!beat(&mut hb, 600));
        assert_eq!(hb.silent_ms(&next, ms(700)), 200);
    }
}
