//! One generator thread: an epoll loop over its connections, no allocation and no system call of its own for an operation.
//!
//! ```text
//! source ─▶ the owner's queue ─▶ a connection with room ─write─▶ ─read─▶ skim ─▶ counts, source
//!              ▲                                                          │
//!              └──────────────────── MOVED, ASK: once ────────────────────┘
//! ```
//!
//! Closed loop: a connection whose last answer came draws its next batch. What it draws for another node waits there, up to a
//! bound; beyond it a draw is dropped, so that a slow node slows its own share only. Open loop: operations are due by the
//! clock, wait in their node's queue, and their latency counts from when they were due, so that a stall is seen by all that
//! should have been sent meanwhile.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;
use socket2::{Domain, Protocol as Tcp, Socket, Type};

use super::codec::{Codec, Kind, Reply, Skimmed};
use super::source::{Next, Op, Phase, Plan, Source};
use super::stats::{Counts, NodeCounts};
use super::target::{NOBODY, Table, Target, redirection};
use super::verify::{Ledger, Wrote};

/// What one read asks for at least, bytes.
const READ: usize = 64 << 10;
/// Operations that may wait for another node's connections in closed loop: enough to keep those busy.
const QUEUE_MAX: usize = 1024;
/// Operations that may wait in open loop, each 48 bytes; what is due beyond counts as UNSENT.
const BACKLOG_MAX: usize = 4 << 20;
/// Draws on behalf of one connection before it waits for another's.
const DRAWS_MAX: usize = 256;
/// Clocks of connections are looked at this often.
const LOOK: Duration = Duration::from_millis(20);
/// A connection that failed is tried again after so long.
const AGAIN_NS: u64 = 100_000_000;
/// After the end of a phase, answers and second looks are waited for so long.
const DRAIN_NS: u64 = 10_000_000_000;
/// Connections get so long before the first operation; those that take longer join later.
const CONNECT: Duration = Duration::from_secs(2);
/// Without an answer for so long a phase that has no end of its own is given up.
const STUCK_NS: u64 = 30_000_000_000;
/// How often a worker looks whether all are there.
const GATE_LOOK: Duration = Duration::from_micros(200);
/// Events taken at once.
const EVENTS: usize = 256;

/// What all workers of a run share.
#[derive(Debug)]
pub struct Shared {
    /// The load.
    pub plan: Plan,
    /// Whom it goes to.
    pub target: Target,
    /// How it is spelt.
    pub codec: Codec,
    /// An answer that takes longer ends its connection, nanoseconds.
    pub timeout_ns: u64,
    /// Nothing new is to be sent.
    pub stop: AtomicBool,
    /// Workers and whoever measures begin together, once all are connected.
    pub gate: Gate,
}

/// Opens once all are there.
#[derive(Debug, Default)]
pub struct Gate {
    there: AtomicUsize,
    open: AtomicBool,
}

impl Gate {
    /// How many wait.
    pub fn there(&self) -> usize {
        self.there.load(Ordering::Acquire)
    }

    /// Lets those that wait pass.
    pub fn open(&self) {
        self.open.store(true, Ordering::Release);
    }

    /// For the next phase, when nobody is there.
    pub fn close(&self) {
        self.there.store(0, Ordering::Release);
        self.open.store(false, Ordering::Release);
    }

    fn pass(&self) {
        self.there.fetch_add(1, Ordering::AcqRel);
        while !self.open.load(Ordering::Acquire) {
            std::thread::sleep(GATE_LOOK);
        }
    }
}

/// What a worker leaves behind.
#[derive(Debug, Default)]
pub struct Left {
    /// Versions of its keys.
    pub ledger: Option<Ledger>,
    /// Keys whose second look was never answered.
    pub unverified: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Connecting,
    Up,
    /// Tried again then.
    Down(u64),
}

struct Lane {
    node: u16,
    stream: Option<TcpStream>,
    state: State,
    /// What is under way; none = an ASKING.
    flight: VecDeque<Option<Op>>,
    out: Vec<u8>,
    written: usize,
    /// The beginning of a reply, and how long it will be at least.
    rest: Vec<u8>,
    need: usize,
    /// When something last went well.
    alive: u64,
    watched: bool,
    ready: bool,
}

struct Node {
    counts: Arc<NodeCounts>,
    queue: VecDeque<Op>,
    /// Connections with room and nothing to send.
    ready: VecDeque<u32>,
}

/// Runs one phase to its end.
pub fn run(shared: &Shared, phase: Phase, me: usize, ledger: Option<Ledger>, counts: &Arc<Counts>) -> io::Result<Left> {
    let share = shared.plan.clients / shared.plan.threads + usize::from(me < shared.plan.clients % shared.plan.threads);
    let worker = Worker::connected(shared, phase, me, ledger, counts, share);
    shared.gate.pass();
    let mut worker = worker?;
    worker.begun = Instant::now();
    worker.turns(share)?;
    Ok(worker.end())
}

/// When operations are due.
#[derive(Debug)]
struct Pace {
    interval_ns: f64,
    first_ns: f64,
    n: u64,
}

impl Pace {
    /// A worker's part of the rate; the workers' operations fall between each other's.
    fn new(rate: f64, me: usize, of: usize) -> Self {
        let interval_ns = 1e9 * of as f64 / rate;
        Self { interval_ns, first_ns: interval_ns * me as f64 / of as f64, n: 0 }
    }

    fn due(&self) -> u64 {
        (self.first_ns + self.n as f64 * self.interval_ns) as u64
    }
}

struct Worker<'a> {
    shared: &'a Shared,
    counts: Arc<Counts>,
    source: Source,
    pace: Option<Pace>,
    /// A key to find slots by; its digits are overwritten.
    key: Vec<u8>,
    epoll: OwnedFd,
    begun: Instant,
    lanes: Vec<Lane>,
    nodes: Vec<Node>,
    table: Table,
    version: u64,
    buf: Vec<u8>,
    /// Connections to be given something.
    todo: VecDeque<u32>,
    /// Drawn, and its node's queue was full.
    pending: Option<Op>,
    exhausted: bool,
    /// The last draw found every key taken.
    starved: bool,
    /// When the last answer came.
    progress: u64,
}

impl<'a> Worker<'a> {
    /// With its connections made, or on their way.
    fn connected(
        shared: &'a Shared,
        phase: Phase,
        me: usize,
        ledger: Option<Ledger>,
        counts: &Arc<Counts>,
        share: usize,
    ) -> io::Result<Self> {
        let pace = match phase {
            Phase::Mix { rate: Some(rate), .. } => Some(Pace::new(rate, me, shared.plan.threads)),
            _ => None,
        };
        let mut worker = Worker {
            shared,
            counts: counts.clone(),
            source: Source::new(&shared.plan, phase, me, ledger),
            pace,
            key: shared.codec.key(0),
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            begun: Instant::now(),
            lanes: Vec::new(),
            nodes: Vec::new(),
            table: Table::default(),
            version: 0,
            buf: vec![0; READ],
            todo: VecDeque::new(),
            pending: None,
            exhausted: false,
            starved: false,
            progress: 0,
        };
        worker.follow_table(share);
        let mut events = Vec::with_capacity(EVENTS);
        while worker.begun.elapsed() < CONNECT && worker.lanes.iter().any(|l| l.state == State::Connecting) {
            worker.events(&mut events, LOOK)?;
        }
        Ok(worker)
    }
}

impl Worker<'_> {
    fn now(&self) -> u64 {
        self.begun.elapsed().as_nanos() as u64
    }

    fn turns(&mut self, share: usize) -> io::Result<()> {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(EVENTS);
        let (mut looked, mut ended) = (0, None);
        loop {
            let now = self.now();
            if self.version != self.shared.target.version() {
                self.follow_table(share);
            }
            self.arrivals(now);
            if std::mem::take(&mut self.starved) {
                self.wake_all();
            }
            while let Some(lane) = self.todo.pop_front() {
                self.fill(lane as usize, now);
            }
            if now.saturating_sub(looked) >= LOOK.as_nanos() as u64 {
                looked = now;
                self.look(now);
            }
            if self.is_over(now, &mut ended) {
                return Ok(());
            }
            let wait = self.wait(now);
            self.events(&mut events, wait)?;
        }
    }

    fn events(&mut self, events: &mut Vec<epoll::Event>, wait: Duration) -> io::Result<()> {
        let wait = Timespec { tv_sec: 0, tv_nsec: wait.subsec_nanos().into() };
        events.clear();
        match epoll::wait(&self.epoll, spare_capacity(events), Some(&wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        for event in events.iter() {
            let (flags, lane) = (event.flags, event.data.u64() as usize);
            self.event(lane, flags);
        }
        Ok(())
    }

    /// Until the next operation is due, or clocks are looked at again.
    fn wait(&self, now: u64) -> Duration {
        let due = self.pace.as_ref().filter(|_| !self.exhausted).map_or(u64::MAX, Pace::due);
        LOOK.min(Duration::from_nanos(due.saturating_sub(now)))
    }

    fn is_over(&self, now: u64, ended: &mut Option<u64>) -> bool {
        if self.exhausted
            && self.pending.is_none()
            && self.nodes.iter().all(|n| n.queue.is_empty())
            && self.lanes.iter().all(|l| l.flight.is_empty())
        {
            return true;
        }
        // Second looks and late answers are waited for, but not for ever.
        let over = self.exhausted || now >= self.source.until();
        let since = if over { *ended.get_or_insert(now) } else { u64::MAX };
        let stuck = self.source.exhaustive() || self.source.until() == u64::MAX;
        now >= since.saturating_add(DRAIN_NS) || stuck && now >= self.progress + STUCK_NS
    }

    /// Open loop: what is due goes to its node's queue.
    fn arrivals(&mut self, now: u64) {
        let Some(mut pace) = self.pace.take() else { return };
        while !self.exhausted {
            let due = pace.due();
            if due > now {
                break;
            }
            match self.source.next(due) {
                Next::Op(mut op) => {
                    op.since = due;
                    pace.n += 1;
                    let owner = self.owner(op.id);
                    if self.nodes[owner].queue.len() >= BACKLOG_MAX {
                        self.fail(owner, op, "UNSENT", false, now);
                    } else {
                        self.enqueue(owner, op);
                    }
                }
                Next::Later => break,
                Next::Done => self.exhausted = true,
            }
        }
        self.pace = Some(pace);
    }

    /// The node a key belongs to; where nobody serves it, any node may say so.
    fn owner(&mut self, id: u64) -> usize {
        if self.nodes.len() == 1 {
            return 0;
        }
        let at = self.key.len() - super::keys::DIGITS;
        if let Some(place) = self.key[at..].first_chunk_mut() {
            super::keys::digits(id, place);
        }
        match self.table.owner(&self.key) {
            NOBODY => 0,
            owner => usize::from(owner),
        }
    }

    fn enqueue(&mut self, node: usize, op: Op) {
        let n = &mut self.nodes[node];
        n.queue.push_back(op);
        if let Some(lane) = n.ready.pop_front() {
            self.lanes[lane as usize].ready = false;
            self.todo.push_back(lane);
        }
    }

    fn wake_all(&mut self) {
        for node in &mut self.nodes {
            while let Some(lane) = node.ready.pop_front() {
                self.lanes[lane as usize].ready = false;
                self.todo.push_back(lane);
            }
        }
    }

    /// Gives a connection what it has room for, and writes.
    fn fill(&mut self, i: usize, now: u64) {
        let (node, max) = (usize::from(self.lanes[i].node), self.shared.plan.pipeline);
        // In closed loop a batch is answered before the next is sent, as redis-benchmark does it.
        if self.lanes[i].state != State::Up || self.pace.is_none() && !self.lanes[i].flight.is_empty() {
            return;
        }
        while self.lanes[i].flight.len() < max {
            let op = match self.nodes[node].queue.pop_front() {
                Some(op) => Some(op),
                None if self.pace.is_some() => None,
                None => self.draw_for(node, now),
            };
            let Some(op) = op else { break };
            self.send(i, op, now);
        }
        let lane = &mut self.lanes[i];
        let room = if self.pace.is_some() { lane.flight.len() < max } else { lane.flight.is_empty() };
        if room && !lane.ready {
            lane.ready = true;
            self.nodes[node].ready.push_back(i as u32);
        }
        self.write(i);
    }

    fn draw_for(&mut self, node: usize, now: u64) -> Option<Op> {
        for _ in 0..DRAWS_MAX {
            let op = match self.pending.take() {
                Some(op) => op,
                None => match self.source.next(now) {
                    Next::Op(op) => op,
                    Next::Later => return None,
                    Next::Done => {
                        self.exhausted = true;
                        return None;
                    }
                },
            };
            let owner = self.owner(op.id);
            if owner == node {
                return Some(op);
            }
            if self.nodes[owner].queue.len() < QUEUE_MAX {
                self.enqueue(owner, op);
            } else if self.source.exhaustive() {
                self.pending = Some(op);
                return None;
            } else {
                self.unsent(&op);
            }
        }
        None
    }

    /// Dropped: another will be drawn in its place.
    fn unsent(&mut self, op: &Op) {
        self.source.unsent(op);
        self.exhausted = false;
    }

    fn send(&mut self, i: usize, mut op: Op, now: u64) {
        let lane = &mut self.lanes[i];
        if lane.flight.is_empty() {
            lane.alive = now;
        }
        if op.since == 0 {
            op.since = now;
        }
        if op.asking {
            self.shared.codec.asking(&mut lane.out);
            lane.flight.push_back(None);
        }
        match op.kind {
            Kind::Get => self.shared.codec.get(&mut lane.out, op.id),
            Kind::Set => {
                let source = &self.source;
                self.shared.codec.set(&mut lane.out, op.id, op.len as usize, |out| source.value(&op, out));
            }
        }
        lane.flight.push_back(Some(op));
    }

    fn write(&mut self, i: usize) {
        let lane = &mut self.lanes[i];
        let Some(stream) = &mut lane.stream else { return };
        while lane.written < lane.out.len() {
            match stream.write(&lane.out[lane.written..]) {
                Ok(n) => lane.written += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return self.watch(i, true),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.close(i, "CLOSED"),
            }
        }
        lane.out.clear();
        lane.written = 0;
        if lane.watched {
            self.watch(i, false);
        }
    }

    /// Whether room to write is waited for.
    fn watch(&mut self, i: usize, on: bool) {
        let lane = &mut self.lanes[i];
        let Some(stream) = &lane.stream else { return };
        if lane.watched != on {
            lane.watched = on;
            let out = if on { epoll::EventFlags::OUT } else { epoll::EventFlags::empty() };
            // It was added with this descriptor, and is removed with it.
            let _ =
                epoll::modify(&self.epoll, stream, epoll::EventData::new_u64(i as u64), epoll::EventFlags::IN | out);
        }
    }

    fn event(&mut self, i: usize, flags: epoll::EventFlags) {
        if self.lanes[i].state == State::Connecting {
            let ok = self.lanes[i].stream.as_ref().is_some_and(|s| matches!(s.take_error(), Ok(None)));
            if !ok {
                return self.close(i, "REFUSED");
            }
            self.lanes[i].state = State::Up;
            self.watch(i, false);
            self.todo.push_back(i as u32);
            return;
        }
        if flags.contains(epoll::EventFlags::OUT) {
            self.write(i);
        }
        if flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR) {
            self.read(i);
        }
    }

    fn read(&mut self, i: usize) {
        let mut buf = std::mem::take(&mut self.buf);
        let lane = &mut self.lanes[i];
        let mut len = lane.rest.len();
        if buf.len() < (len + READ).max(lane.need) {
            buf.resize((len + READ).max(lane.need), 0);
        }
        buf[..len].copy_from_slice(&lane.rest);
        let got = lane.stream.as_mut().map_or(Ok(0), |s| s.read(&mut buf[len..]));
        match got {
            Ok(0) => self.close(i, "CLOSED"),
            Ok(n) => {
                len += n;
                lane.rest.clear();
                lane.need = 0;
                let now = self.now();
                let mut at = 0;
                loop {
                    match self.shared.codec.skim(&buf[at..len]) {
                        Skimmed::Whole(reply, used) => {
                            at += used;
                            if !self.complete(i, &reply, now) {
                                self.close(i, "PROTOCOL");
                                break;
                            }
                        }
                        Skimmed::Part(need) => {
                            let lane = &mut self.lanes[i];
                            lane.rest.extend_from_slice(&buf[at..len]);
                            lane.need = need;
                            break;
                        }
                        Skimmed::Broken => {
                            self.close(i, "PROTOCOL");
                            break;
                        }
                    }
                }
                self.fill(i, now);
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(_) => self.close(i, "CLOSED"),
        }
        self.buf = buf;
    }

    /// One answer; false if nothing was asked or that is no answer to it.
    fn complete(&mut self, i: usize, reply: &Reply<'_>, now: u64) -> bool {
        let lane = &mut self.lanes[i];
        let Some(entry) = lane.flight.pop_front() else { return false };
        let node = usize::from(lane.node);
        lane.alive = now;
        self.progress = now;
        let Some(op) = entry else { return true };
        match (reply, op.kind) {
            (Reply::Ok, Kind::Set) => {
                self.nodes[node].counts.answered(op.kind, now - op.since);
                self.source.ended(&op, Wrote::Acked);
            }
            (Reply::Value(_) | Reply::Nil, Kind::Get) => {
                let counts = &self.nodes[node].counts;
                counts.answered(op.kind, now - op.since);
                let value = if let Reply::Value(v) = reply { Some(*v) } else { None };
                if value.is_some() {
                    counts.hits.one()
                } else {
                    counts.misses.one()
                }
                self.source.saw(&op, value, now, &self.counts.verified);
            }
            (Reply::Error(text), _) => self.refused(node, op, &String::from_utf8_lossy(text), now),
            _ => {
                self.fail(node, op, "PROTOCOL", true, now);
                return false;
            }
        }
        // A key may have become free.
        self.starved = self.shared.plan.verify.is_some();
        true
    }

    fn refused(&mut self, node: usize, mut op: Op, text: &str, now: u64) {
        let (code, rest) = text.split_once(' ').unwrap_or((text, ""));
        if matches!(code, "MOVED" | "ASK")
            && !op.followed
            && let Some((slot, addr)) = redirection(rest)
            && let Some(there) = self.shared.target.moved(slot, addr, code == "MOVED")
        {
            op.followed = true;
            op.asking = code == "ASK";
            self.nodes[node].counts.follows.one();
            let there = usize::from(there);
            self.know(there + 1);
            self.nodes[there].queue.push_front(op);
            self.wake_all();
            return;
        }
        let code: String = code.chars().take_while(|c| c.is_ascii_uppercase() || *c == '_').collect();
        let code = if code.is_empty() { "ERR" } else { &code };
        self.fail(node, op, code, code == "INDETERMINATE", now);
    }

    fn fail(&mut self, node: usize, op: Op, code: &str, unknown: bool, now: u64) {
        self.nodes[node].counts.errors.one();
        self.counts.failed(code);
        match op.kind {
            Kind::Get => self.source.unread(&op, now),
            Kind::Set => {
                if unknown {
                    self.counts.verified.unknown.one();
                }
                self.source.ended(&op, if unknown { Wrote::Unknown } else { Wrote::Refused });
            }
        }
    }

    /// Ends a connection; what was under way failed, and whether it ran nobody knows.
    fn close(&mut self, i: usize, code: &str) {
        let now = self.now();
        let lane = &mut self.lanes[i];
        if let Some(stream) = lane.stream.take() {
            let _ = epoll::delete(&self.epoll, &stream);
        }
        lane.state = State::Down(now + AGAIN_NS);
        lane.out.clear();
        lane.rest.clear();
        (lane.written, lane.need, lane.watched) = (0, 0, false);
        let node = usize::from(lane.node);
        for op in std::mem::take(&mut lane.flight).into_iter().flatten() {
            self.fail(node, op, code, true, now);
        }
        self.shared.target.stale.store(true, Ordering::Relaxed);
    }

    /// Connections that failed, answers that don't come, keys that became free.
    fn look(&mut self, now: u64) {
        if self.shared.stop.load(Ordering::Relaxed) {
            self.source.stop();
        }
        for i in 0..self.lanes.len() {
            let lane = &self.lanes[i];
            match lane.state {
                State::Down(at) if now >= at && self.table.serves(lane.node) => self.connect(i),
                State::Connecting | State::Up
                    if (!lane.flight.is_empty() || lane.state == State::Connecting)
                        && now.saturating_sub(lane.alive) > self.shared.timeout_ns =>
                {
                    self.close(i, "TIMEOUT");
                }
                _ => {}
            }
        }
        self.wake_all();
    }

    fn connect(&mut self, i: usize) {
        let now = self.now();
        let addr = self.table.nodes[usize::from(self.lanes[i].node)].1;
        self.lanes[i].alive = now;
        match dial(addr) {
            Ok(stream) => {
                let both = epoll::EventFlags::IN | epoll::EventFlags::OUT;
                let added = epoll::add(&self.epoll, &stream, epoll::EventData::new_u64(i as u64), both);
                let lane = &mut self.lanes[i];
                lane.stream = Some(stream);
                lane.state = State::Connecting;
                lane.watched = true;
                if added.is_err() {
                    self.close(i, "CONNECT");
                }
            }
            Err(_) => {
                self.counts.failed("CONNECT");
                self.lanes[i].state = State::Down(now + AGAIN_NS);
                self.shared.target.stale.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Room for so many nodes.
    fn know(&mut self, nodes: usize) {
        while self.nodes.len() < nodes {
            let counts = self.counts.node(self.nodes.len());
            self.nodes.push(Node { counts, queue: VecDeque::new(), ready: VecDeque::new() });
        }
    }

    /// Takes the table in: connections to new nodes, and what waits goes to whom it belongs now.
    fn follow_table(&mut self, share: usize) {
        self.version = self.shared.target.version();
        self.table = self.shared.target.table();
        self.know(self.table.nodes.len());
        let serving: Vec<u16> = (0..self.table.nodes.len() as u16).filter(|n| self.table.serves(*n)).collect();
        for (nth, &node) in serving.iter().enumerate() {
            if self.lanes.iter().any(|l| l.node == node) {
                continue;
            }
            let n = serving.len();
            for _ in 0..(share / n + usize::from(nth < share % n)).max(1) {
                let lane = Lane {
                    node,
                    stream: None,
                    state: State::Down(0),
                    flight: VecDeque::with_capacity(self.shared.plan.pipeline.min(QUEUE_MAX)),
                    out: Vec::new(),
                    written: 0,
                    rest: Vec::new(),
                    need: 0,
                    alive: 0,
                    watched: false,
                    ready: false,
                };
                self.lanes.push(lane);
                self.connect(self.lanes.len() - 1);
            }
        }
        for node in 0..self.nodes.len() {
            for op in std::mem::take(&mut self.nodes[node].queue) {
                // What is asked for is where a server sent it.
                let owner = if op.asking { node } else { self.owner(op.id) };
                self.enqueue(owner, op);
            }
        }
    }

    fn end(mut self) -> Left {
        let now = self.now();
        for i in 0..self.lanes.len() {
            if !self.lanes[i].flight.is_empty() {
                self.close(i, "TIMEOUT");
            }
        }
        let due = self.pace.is_some() || self.source.exhaustive();
        for node in 0..self.nodes.len() {
            for op in std::mem::take(&mut self.nodes[node].queue) {
                // What waits for another node's connections in closed loop was never due.
                if due || op.followed {
                    self.fail(node, op, "UNSENT", false, now);
                } else {
                    self.source.unsent(&op);
                }
            }
        }
        let (unverified, ledger) = self.source.finish();
        Left { ledger, unverified }
    }
}

/// Begins to connect.
fn dial(addr: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Tcp::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&addr.into()) {
        Ok(()) => {}
        Err(e) if e.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
        Err(e) => return Err(e),
    }
    Ok(socket.into())
}
