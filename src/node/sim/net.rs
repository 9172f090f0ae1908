//! Time, the event queue and the network of a simulation: ordered connections that delay, stall, break and are cut one way.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::node::clock::{Mono, simulated};
use crate::proto::control::Message;
use crate::proto::id::{ClusterId, Ref};
use crate::proto::view::View;

/// Nanoseconds in a millisecond.
pub const MS: u64 = 1_000_000;

/// A process of the simulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Who {
    Master(usize),
    Node(usize),
    Client(usize),
}

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Who::Master(n) => write!(f, "m{}", n + 1),
            Who::Node(n) => write!(f, "n{}", n + 1),
            Who::Client(n) => write!(f, "c{}", n + 1),
        }
    }
}

/// A process's own clock: it began somewhere and runs up to 5 % fast or slow.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    offset: u64,
    rate: f64,
}

impl Clock {
    pub fn new(rng: &mut SmallRng, drift: f64) -> Self {
        Self { offset: rng.random_range(1..1_000_000) * 1_000 * MS, rate: 1.0 + rng.random_range(-drift..=drift) }
    }

    /// What it shows at a true time.
    pub fn at(&self, now: u64) -> Mono {
        Mono(self.offset + (now as f64 * self.rate) as u64)
    }

    /// The true length of so many of its nanoseconds.
    pub fn true_ns(&self, ns: u64) -> u64 {
        (ns as f64 / self.rate) as u64
    }
}

pub type ConnId = u64;

/// What a connection is opened for.
#[derive(Debug, Clone)]
pub enum Hello {
    Beacon { cluster: ClusterId, from: Ref, to: Ref },
    Data { cluster: ClusterId, from: Ref, to: Ref, acked: u64 },
    Control,
    Client,
}

/// What travels on beacon connections.
#[derive(Debug, Clone)]
pub enum Beacon {
    Ask { n: u64, cfg_index: u64 },
    Ack { n: u64, cfg_index: u64 },
    Pull { have: u64 },
    View(Arc<View>),
}

/// What arrives at one end of a connection.
#[derive(Debug, Clone)]
pub enum Packet {
    Dial(Hello),
    Bytes(Vec<u8>),
    Beacon(Beacon),
    Control(Box<Message>),
    /// The other end is closed, or nobody listens there.
    Closed,
}

/// The timers of processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Timer {
    /// A node tries the next master.
    Masters,
    /// A node's heartbeat.
    Beat(ConnId),
    /// A node registers again.
    Register(ConnId),
    /// A node reports ready learners.
    Report(ConnId),
    /// A node looks whether what it gives away is confirmed.
    Relinquish(ConnId),
    /// A beacon's next step, if it still stands at this token.
    Beacon(Ref, u64),
    /// A link's next step, likewise.
    Link(Ref, u64),
    /// A node's housekeeping; a leader's tick; a client's next command.
    Tick,
    /// A client waited long enough for this one.
    Give(u64),
}

/// What is to happen.
#[derive(Debug)]
pub enum Happening {
    Arrive {
        conn: ConnId,
        end: usize,
        packet: Packet,
    },
    /// `life` is the generation that set it; another one's is void.
    Timer {
        who: Who,
        life: u64,
        timer: Timer,
    },
    /// Something of the masters' log or of the faults; the world knows.
    World(super::world::Deed),
}

struct Conn {
    ends: [Who; 2],
    open: [bool; 2],
    /// When the last packet towards this end arrives.
    last: [u64; 2],
    /// Packets stuck before a cut.
    stuck: [Vec<Packet>; 2],
}

/// What all processes share: time, chance, the network.
pub struct Net {
    pub now: u64,
    pub rng: SmallRng,
    /// When, in which order, and where among `waiting`.
    queue: BinaryHeap<Reverse<(u64, u64, usize)>>,
    waiting: Vec<Option<Happening>>,
    free: Vec<usize>,
    seq: u64,
    conns: BTreeMap<ConnId, Conn>,
    next_conn: ConnId,
    /// One-way cuts: from, to.
    pub cuts: BTreeSet<(Who, Who)>,
    /// Links with an extra delay, milliseconds.
    pub slow: BTreeMap<(Who, Who), u64>,
    /// Of the next bytes on this way only the first frame arrives in time, all else so many milliseconds late; for scripts.
    pub split: Option<(Who, Who, u64)>,
    /// Every so many packets one takes long.
    pub spikes: f64,
    /// Lines of the trace; kept only when asked for.
    pub trace: Option<Vec<(u64, Option<u16>, String)>>,
    /// Digest of what happened, to see that a seed replays.
    pub digest: u64,
    pub events: u64,
}

impl Net {
    pub fn new(seed: u64, trace: bool) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let spikes = if rng.random_bool(0.5) { 0.0 } else { rng.random_range(0.0..0.02) };
        Self {
            now: 0,
            rng,
            queue: BinaryHeap::new(),
            waiting: Vec::new(),
            free: Vec::new(),
            seq: 0,
            conns: BTreeMap::new(),
            next_conn: 1,
            cuts: BTreeSet::new(),
            slow: BTreeMap::new(),
            split: None,
            spikes,
            trace: trace.then(Vec::new),
            digest: seed,
            events: 0,
        }
    }

    /// A line of the trace, about one slot or about none.
    pub fn note(&mut self, slot: Option<u16>, text: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.trace {
            lines.push((self.now, slot, text()));
        }
    }

    pub fn chance(&mut self, p: f64) -> bool {
        p > 0.0 && self.rng.random_bool(p)
    }

    pub fn ms(&mut self, from: u64, to: u64) -> u64 {
        self.rng.random_range(from * MS..=to * MS)
    }

    pub fn at(&mut self, when: u64, what: Happening) {
        self.seq += 1;
        let place = self.free.pop().unwrap_or(self.waiting.len());
        match self.waiting.get_mut(place) {
            Some(free) => *free = Some(what),
            None => self.waiting.push(Some(what)),
        }
        self.queue.push(Reverse((when.max(self.now), self.seq, place)));
    }

    pub fn timer(&mut self, when: u64, who: Who, life: u64, timer: Timer) {
        self.at(when, Happening::Timer { who, life, timer });
    }

    /// The next thing to happen, if it happens before `end`.
    pub fn pop(&mut self, end: u64) -> Option<Happening> {
        let Reverse((when, seq, place)) = *self.queue.peek()?;
        if when > end {
            self.now = end;
            return None;
        }
        self.queue.pop();
        self.now = when;
        self.events += 1;
        self.digest = self.digest.rotate_left(5) ^ when ^ seq.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.free.push(place);
        self.waiting[place].take()
    }

    pub fn is_cut(&self, from: Who, to: Who) -> bool {
        self.cuts.contains(&(from, to))
    }

    fn delay(&mut self, from: Who, to: Who) -> u64 {
        let base = self.rng.random_range(MS / 20..MS / 2);
        let p = self.spikes;
        let spike = if self.chance(p) { self.ms(1, 80) } else { 0 };
        base + spike + self.slow.get(&(from, to)).copied().unwrap_or(0) * MS
    }

    /// Opens a connection; what is sent on it arrives behind the HELLO.
    pub fn dial(&mut self, from: Who, to: Who, hello: Hello, at: u64) -> ConnId {
        let id = self.next_conn;
        self.next_conn += 1;
        let conn = Conn { ends: [from, to], open: [true, true], last: [0; 2], stuck: Default::default() };
        self.conns.insert(id, conn);
        self.send(id, 0, Packet::Dial(hello), at);
        id
    }

    /// Sends towards the other end.
    pub fn send(&mut self, conn: ConnId, from: usize, packet: Packet, at: u64) {
        let Some(c) = self.conns.get(&conn).filter(|c| c.open[from]) else { return };
        let (a, b) = (c.ends[from], c.ends[1 - from]);
        let delay = self.delay(a, b);
        let cut = self.is_cut(a, b);
        let Some(c) = self.conns.get_mut(&conn) else { return };
        if cut || !c.stuck[1 - from].is_empty() {
            c.stuck[1 - from].push(packet);
            return;
        }
        let when = (at.max(self.now) + delay).max(c.last[1 - from] + 1);
        c.last[1 - from] = when;
        self.at(when, Happening::Arrive { conn, end: 1 - from, packet });
    }

    /// Closes one end; the other hears of it behind what was sent.
    pub fn close(&mut self, conn: ConnId, end: usize, at: u64) {
        self.send(conn, end, Packet::Closed, at);
        self.shut(conn, end);
    }

    fn shut(&mut self, conn: ConnId, end: usize) {
        let Some(c) = self.conns.get_mut(&conn) else { return };
        c.open[end] = false;
        if !c.open[0] && !c.open[1] {
            self.conns.remove(&conn);
        }
    }

    /// Who is at this end, if it is open there.
    pub fn end_of(&self, conn: ConnId, end: usize) -> Option<Who> {
        self.conns.get(&conn).filter(|c| c.open[end]).map(|c| c.ends[end])
    }

    /// A packet is taken at its end: false if nobody is there any more.
    pub fn taken(&mut self, conn: ConnId, end: usize, packet: &Packet) -> bool {
        let open = self.end_of(conn, end).is_some();
        if open && matches!(packet, Packet::Closed) {
            self.shut(conn, end);
        }
        open
    }

    /// Nobody listens at the end that was dialled.
    pub fn refuse(&mut self, conn: ConnId) {
        self.close(conn, 1, self.now);
    }

    /// A process is gone: its ends close.
    pub fn vanish(&mut self, who: Who) {
        let ends: Vec<(ConnId, usize)> = self
            .conns
            .iter()
            .flat_map(|(id, c)| (0..2).filter(|&e| c.ends[e] == who && c.open[e]).map(|e| (*id, e)))
            .collect();
        for (conn, end) in ends {
            self.close(conn, end, self.now);
        }
    }

    /// Breaks some of a process's connections: its own end knows at once, the other after what is on its way.
    pub fn break_some(&mut self, who: Who, share: f64) {
        let ids: Vec<(ConnId, usize)> = self
            .conns
            .iter()
            .filter_map(|(id, c)| (0..2).find(|&e| c.ends[e] == who && c.open[e]).map(|e| (*id, e)))
            .collect();
        for (conn, end) in ids {
            if self.chance(share) {
                let late = self.now + if self.chance(0.5) { self.ms(0, 2000) } else { 0 };
                if let Some(c) = self.conns.get_mut(&conn) {
                    c.last[1 - end] = c.last[1 - end].max(late);
                }
                self.send(conn, end, Packet::Closed, self.now);
                let now = self.now;
                self.at(now, Happening::Arrive { conn, end, packet: Packet::Closed });
            }
        }
    }

    /// Breaks every connection between two processes.
    pub fn break_between(&mut self, a: Who, b: Who) {
        let between = |c: &Conn| c.ends == [a, b] || c.ends == [b, a];
        let ids: Vec<ConnId> = self.conns.iter().filter(|(_, c)| between(c)).map(|(id, _)| *id).collect();
        for conn in ids {
            for end in 0..2 {
                let now = self.now;
                self.at(now, Happening::Arrive { conn, end, packet: Packet::Closed });
            }
        }
    }

    /// What stood before cuts that are no more goes on, after a retransmission's wait.
    pub fn resume(&mut self) {
        let ids: Vec<ConnId> = self.conns.keys().copied().collect();
        for id in ids {
            for end in 0..2 {
                let Some(c) = self.conns.get(&id) else { break };
                if c.stuck[end].is_empty() || self.cuts.contains(&(c.ends[1 - end], c.ends[end])) {
                    continue;
                }
                let mut when = self.now + self.ms(0, 400);
                let Some(c) = self.conns.get_mut(&id) else { break };
                when = when.max(c.last[end] + 1);
                let packets = std::mem::take(&mut c.stuck[end]);
                c.last[end] = when + packets.len() as u64;
                for (n, packet) in packets.into_iter().enumerate() {
                    self.at(when + n as u64, Happening::Arrive { conn: id, end, packet });
                }
            }
        }
    }
}

/// Sets the process's clock for the code under it; `freeze` = after so many readings it stands still for so long.
pub fn enter(clock: &Clock, now: u64, freeze: Option<(u32, u64)>) {
    simulated::set(Some(clock.at(now)));
    if let Some((reads, ms)) = freeze {
        simulated::freeze_after(reads, ms);
    }
}

/// The true time at which the process is through: later than `now` if it was frozen on the way.
pub fn leave(clock: &Clock, now: u64) -> u64 {
    let Some(local) = simulated::now() else { return now };
    simulated::set(None);
    now + clock.true_ns(local.0.saturating_sub(clock.at(now).0))
}
