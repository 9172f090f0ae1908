//! A client connection without its waits: bytes in, all whole commands run, bytes out. Replies leave in order of arrival; a reply
//! that rests on something unconfirmed holds back itself and what follows it, and a parked command holds back those behind it.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::around;
use super::clients::Client;
use super::command::{self, ConnCtx, ConnState, ErrorReply, Keyed, Kind, NodeCtx, Spec, error};
use super::heat::SAMPLE;
use super::host::NodeHost;
use super::node::Node;
use super::peer::BACKLOG_MAX;
use super::shard::{Ran, Turn, lock};
use super::slot::Held;
use super::spare::{KEEP, leave_spare, take_spare};
use super::store::{WARM_MAX, Wanted};
use crate::node::clock::Mono;
use crate::node::mutant::{self, Mutant};
use crate::proto::args::Args;
use crate::proto::json;
use crate::proto::reply::Reply;
use crate::proto::resp::{Decoder, Glance, Glancer, Limits};
use crate::proto::slot::Slot;
use crate::proto::view::Phase;

/// Replies of one connection that may wait for confirmation; above it, it is not read.
const HELD_MAX: usize = 4096;
/// Bytes of replies of one connection not yet taken by its socket, and of those that wait for confirmation; above it, it is not
/// read, and what was read does not run.
const OUT_MAX: usize = 1 << 20;
/// Replies that may leave are kept back for those behind them that a backup is about to confirm, up to so many bytes: one write
/// instead of two. Only until the connection is woken, which the next sweep does at the latest.
const KEEP_BACK_MAX: usize = 16 << 10;
/// What is read at once.
const READ_SIZE: usize = 32 << 10;
/// How long a command may be parked before it is refused with CLUSTERDOWN, milliseconds (PROTOCOL 6).
const PARK_MAX_MS: u64 = 4000;
/// How long a reply may be held before it is INDETERMINATE, milliseconds (PROTOCOL 6).
const HELD_MAX_MS: u64 = 5000;

/// A command with an argument longer than this is timed, bytes.
const HEAVY: usize = 64 << 10;

/// Whether a command carries much: its value is its last or its third word.
fn heavy(args: Args<'_>) -> bool {
    args.end() > HEAVY
        && [args.len().saturating_sub(1), 2].iter().any(|i| args.get(*i).is_some_and(|a| a.len() > HEAVY))
}

/// A browser that was made to speak to this port (Redis closes on the same two words): what follows is not to be run.
fn is_http(args: Args<'_>) -> bool {
    let name = args.get(0).unwrap_or_default();
    name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:")
}

/// What a reply rests on.
enum Rests {
    /// On nothing more.
    Nothing,
    /// On one slot.
    One { slot: Slot, pterm: u64, seq: u64, wrote: bool },
    /// On all of these writes (FLUSHALL).
    Many(Vec<(Slot, u64, u64)>),
}

struct HeldReply {
    rests: Rests,
    len: usize,
    since: Mono,
    json: Option<u64>,
}

/// A connection apart from its socket: bytes in, commands run, bytes out. Only reading and flushing are lent one.
pub struct Session {
    input: Input,
    pub(super) core: Core,
}

/// Bytes read and not yet run.
struct Input {
    decoder: Decoder,
    glancer: Glancer,
    buf: Vec<u8>,
    /// Bytes of `buf` before this are done with.
    start: usize,
    /// Commands that were looked ahead for, and how many of them have run.
    ahead: Vec<Ahead>,
    ran: usize,
    /// The decoder holds a whole command of so many bytes that has not run yet.
    whole: Option<usize>,
    /// There was no room for more replies: commands may be here that could run.
    is_cut: bool,
    /// First byte of the connection was `{`: JSON lines.
    json: Option<JsonLines>,
}

/// A command that is about to run.
pub struct Ahead {
    glance: Glance,
    first: Option<First>,
}

/// What is known of a command's second word (most commands' first key).
#[derive(Clone, Copy)]
pub struct First {
    /// Its slot.
    pub slot: Slot,
    /// Its hash in the store of that slot, where it was asked for ahead.
    pub hash: Option<u32>,
}

/// What commands work on.
pub(super) struct Core {
    pub(super) node: Arc<Node>,
    pub(super) state: ConnState,
    pub(super) client: Arc<Client>,
    parked_since: Option<Mono>,
    out: Vec<u8>,
    written: usize,
    held: VecDeque<HeldReply>,
    held_bytes: Vec<u8>,
    scratch: Vec<u8>,
    reply: Vec<u8>,
    pub(super) closing: bool,
    /// What could have left in the turn before was kept back.
    kept_back: bool,
    tally: Tally,
    /// Commands of this turn, by [`CLASSES`](super::stats::CLASSES).
    ran: [u64; 3],
    /// The last turn ran several.
    many: bool,
    /// Counts commands, to pick a sample.
    tick: u32,
}

/// Commands of one kind in a row, counted at the node all at once: every core would otherwise fight for the same counters.
#[derive(Default)]
struct Tally {
    spec: Option<&'static Spec>,
    calls: u64,
    failed: u64,
}

impl Tally {
    fn add(&mut self, node: &Node, spec: &'static Spec, failed: bool) {
        if !self.spec.is_some_and(|s| std::ptr::eq(s, spec)) {
            self.flush(node);
            self.spec = Some(spec);
        }
        self.calls += 1;
        self.failed += u64::from(failed);
    }

    fn flush(&mut self, node: &Node) {
        if let Some(spec) = self.spec.take() {
            node.calls.count(spec, self.calls, self.failed);
            *self = Self::default();
        }
    }
}

#[derive(Default)]
struct JsonLines {
    decoder: json::LineDecoder,
    /// A command that was parked.
    pending: Option<json::Request>,
}

/// What became of one command.
enum Step {
    Done,
    Parked,
}

impl Session {
    /// For a connection that was admitted.
    pub fn new(node: Arc<Node>, state: ConnState, client: Arc<Client>) -> Self {
        let id = state.id;
        let input = Input {
            decoder: Decoder::new(Limits::default()),
            glancer: Glancer::default(),
            buf: Vec::new(),
            start: 0,
            ahead: Vec::new(),
            ran: 0,
            whole: None,
            is_cut: false,
            json: None,
        };
        let core = Core {
            node,
            state,
            client,
            parked_since: None,
            out: Vec::new(),
            written: 0,
            held: VecDeque::new(),
            held_bytes: Vec::new(),
            scratch: Vec::new(),
            reply: Vec::new(),
            closing: false,
            kept_back: false,
            tally: Tally::default(),
            ran: [0; 3],
            many: false,
            tick: id as u32,
        };
        Self { input, core }
    }

    /// Whether what was read is one command whose key others' keys may be asked for with; it is noted for that.
    pub(super) fn wants(&mut self) -> bool {
        let Session { input, core } = self;
        if input.json.is_some() || core.closing || core.parked_since.is_some() {
            return false;
        }
        if !input.ahead.is_empty() || !input.look_ahead(&core.node) {
            return false;
        }
        if input.ahead.len() > 1 {
            around::pipelines_run();
            return false;
        }
        let Some(key) = input.ahead[0].glance.second(&input.buf[input.start..]) else { return false };
        let slot = Slot::of_key(key);
        input.ahead[0].first = Some(First { slot, hash: None });
        around::note(slot, key)
    }

    /// Reads what the socket has; nothing of a buffer is held while nothing is there.
    pub(super) fn poll_read(&mut self, stream: &mut TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // A read that does not fill the buffer counts as the last for now, so that no second one asks in vain.
        self.input.make_room();
        let read = pin!(stream.read_buf(&mut self.input.buf)).poll(cx);
        if read.is_pending() {
            self.input.give_back();
        }
        read.map_ok(|n| {
            self.core.node.counters.bytes_in.add(n as u64);
            n
        })
    }

    /// Leaves to other connections what it has nothing in.
    pub(super) fn give_back(&mut self) {
        self.input.give_back();
        leave_spare(&mut self.core.out, |all| &mut all.out);
        // What one large value needed.
        for buf in [&mut self.core.reply, &mut self.core.scratch] {
            if buf.capacity() > KEEP {
                *buf = Vec::new();
            }
        }
    }

    /// Takes bytes that came another way than by a socket.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.input.make_room();
        self.input.buf.extend_from_slice(bytes);
    }

    /// What is to be written; it counts as written.
    #[cfg(test)]
    pub fn output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.core.out)
    }

    /// The same, behind what is in `to`.
    pub fn output_to(&mut self, to: &mut Vec<u8>) {
        to.append(&mut self.core.out);
    }

    /// See [`Core::reads`].
    #[cfg(test)]
    pub fn reads(&self) -> bool {
        self.core.reads()
    }

    /// One loop turn at the time given: lets go of replies that are decided, runs what came in. False: the lease lapsed while
    /// commands ran, what they read may be stale, and nothing of this turn may leave.
    pub fn turn(&mut self, turn: Turn) -> bool {
        take_spare(&mut self.core.out, |all| &mut all.out);
        self.core.release(turn);
        let until = self.execute(turn);
        let now = Mono::now();
        self.core.account(turn, now);
        now < until || mutant::is(Mutant::NoLeaseCheckAfterRead)
    }

    /// Whether commands that were read can run now: there was no room for their replies, and now there is.
    pub(super) fn goes_on(&self) -> bool {
        self.input.is_cut && self.core.has_room() && self.core.parked_since.is_none()
    }

    /// Runs all whole commands that there is room for; until when what they did may be told.
    fn execute(&mut self, turn: Turn) -> Mono {
        let mut until = Mono(u64::MAX);
        let (input, core) = (&mut self.input, &mut self.core);
        input.is_cut = false;
        while !core.closing {
            if !core.has_room() {
                input.is_cut = true;
                break;
            }
            if input.json.is_none() && input.whole.is_none() && input.buf.get(input.start) == Some(&b'{') {
                input.json = Some(JsonLines::default());
            }
            let step = match input.json.is_some() {
                true => input.json_command(core, turn, &mut until),
                false => input.resp_command(core, turn, &mut until),
            };
            match step {
                None => break,
                Some(Step::Parked) => {
                    core.parked_since.get_or_insert(turn.mono);
                    break;
                }
                Some(Step::Done) => {
                    core.parked_since = None;
                }
            }
        }
        until
    }
}

/// However it ends, also with its thread.
impl Drop for Session {
    fn drop(&mut self) {
        self.core.node.clients.leave(self.core.state.id);
    }
}

impl Input {
    /// Forgets what is done with.
    fn compact(&mut self) {
        if self.start == self.buf.len() {
            self.buf.clear();
        } else if self.start > 0 {
            self.buf.drain(..self.start);
        }
        self.start = 0;
        self.ahead.clear();
        self.ran = 0;
    }

    /// Room for what is read next.
    fn make_room(&mut self) {
        self.compact();
        let need = self.decoder.need(self.buf.len()).max(READ_SIZE);
        take_spare(&mut self.buf, |all| &mut all.input);
        self.buf.reserve(need);
    }

    /// Holds what it needs and no more.
    fn give_back(&mut self) {
        self.compact();
        leave_spare(&mut self.ahead, |all| &mut all.ahead);
        leave_spare(&mut self.buf, |all| &mut all.input);
        // The rest of a large argument is on its way: room for it is kept.
        let is_wide = self.buf.capacity() >= READ_SIZE && self.buf.capacity() / 2 > self.buf.len();
        if is_wide && self.decoder.need(self.buf.len()) < READ_SIZE {
            let mut whole = std::mem::take(&mut self.buf);
            self.buf = whole.as_slice().into();
            whole.clear();
            leave_spare(&mut whole, |all| &mut all.input);
        }
    }

    /// Looks ahead for the next commands; whether for any. Where several are here, their keys are asked for together before the first
    /// runs, so that the waits for memory overlap.
    fn look_ahead(&mut self, node: &Node) -> bool {
        if self.whole.is_some() || !self.decoder.is_between() {
            return false;
        }
        self.ahead.clear();
        self.ran = 0;
        take_spare(&mut self.ahead, |all| &mut all.ahead);
        let mut at = self.start;
        while self.ahead.len() < WARM_MAX
            && let Some(glance) = self.buf.get(at..).and_then(|bytes| self.glancer.glance(bytes))
        {
            at += glance.len;
            self.ahead.push(Ahead { glance, first: None });
        }
        if self.ahead.len() > 1 {
            self.warm(node);
        }
        !self.ahead.is_empty()
    }

    fn warm(&mut self, node: &Node) {
        let mut at = self.start;
        let mut keys = [Wanted::NONE; WARM_MAX];
        let mut n = 0;
        for (i, ahead) in self.ahead.iter().enumerate() {
            if let Some(key) = ahead.glance.second(&self.buf[at..]) {
                let slot = Slot::of_key(key);
                keys[n] = Wanted::new(i, slot, key);
                n += 1;
            }
            at += ahead.glance.len;
        }
        node.warm(&mut keys[..n]);
        for w in &keys[..n] {
            self.ahead[w.n].first = Some(First { slot: w.slot, hash: w.hash });
        }
    }

    fn resp_command(&mut self, core: &mut Core, turn: Turn, until: &mut Mono) -> Option<Step> {
        if self.ran < self.ahead.len() || self.look_ahead(&core.node) {
            let Ahead { glance, first } = &self.ahead[self.ran];
            let args = glance.args(&self.buf[self.start..]);
            let step = core.command(args, *first, turn, until, None);
            if let Step::Done = step {
                self.start += glance.len;
                self.ran += 1;
            }
            return Some(step);
        }
        let whole = match self.whole {
            Some(n) => n,
            None => match self.decoder.next(&self.buf[self.start..]) {
                Ok(Some(n)) => n,
                Ok(None) => {
                    self.start += self.decoder.discard();
                    return None;
                }
                Err(e) => {
                    let mut text = Vec::new();
                    Reply::new(&mut text, core.state.proto).error(&format!("ERR {e}"));
                    core.node.counters.erred(&text);
                    core.queue(&text, Rests::Nothing, turn, None);
                    core.closing = true;
                    return None;
                }
            },
        };
        self.whole = Some(whole);
        let args = self.decoder.args(&self.buf[self.start..self.start + whole]);
        let step = core.command(args, None, turn, until, None);
        if let Step::Done = step {
            self.whole = None;
            self.start += whole;
        }
        Some(step)
    }

    fn json_command(&mut self, core: &mut Core, turn: Turn, until: &mut Mono) -> Option<Step> {
        let lines = self.json.as_mut()?;
        let machine = core.node.me.id.as_str();
        let request = match lines.pending.take() {
            Some(r) => r,
            None => {
                let rest = &self.buf[self.start..];
                let len = match lines.decoder.next(rest) {
                    Ok(Some(len)) => len,
                    Ok(None) => return None,
                    Err(failure) => {
                        let line = json::answer_failure(machine, 0, &failure);
                        core.queue(&line, Rests::Nothing, turn, None);
                        core.closing = true;
                        return None;
                    }
                };
                self.start += len;
                match json::Request::parse(&rest[..len]) {
                    Ok(Some(r)) => r,
                    Ok(None) => return Some(Step::Done),
                    Err(refusal) => {
                        let line = json::answer_failure(machine, refusal.id, &refusal.failure);
                        core.queue(&line, Rests::Nothing, turn, None);
                        core.closing = refusal.close;
                        return Some(Step::Done);
                    }
                }
            }
        };
        let step = core.command(request.args(), None, turn, until, Some(request.id));
        if let Step::Parked = step {
            lines.pending = Some(request);
        }
        Some(step)
    }
}

impl Core {
    /// Counts what a turn ran.
    fn account(&mut self, turn: Turn, now: Mono) {
        let ran = std::mem::take(&mut self.ran);
        let all = ran.iter().sum();
        self.many = all > 1;
        if all == 0 {
            return;
        }
        let (node, took) = (&self.node, now.0.saturating_sub(turn.mono.0));
        node.counters.commands.add(all);
        for (class, n) in node.counters.classes.iter().zip(ran).filter(|(_, n)| *n > 0) {
            class.record(took, n);
        }
        self.client.active(turn.now.mono_ms, self.state.last_cmd);
        self.tally.flush(node);
        // Only what was held went to peers.
        if !self.held.is_empty() && node.largest_backlog() > BACKLOG_MAX {
            node.backlogged.store(true, Ordering::Release);
        }
    }

    /// No reply is held and no command is parked.
    pub(super) fn is_idle(&self) -> bool {
        self.held.is_empty() && self.parked_since.is_none()
    }

    /// Whether more is to be read now; tells the sweeps whether this connection waits for anything.
    pub(super) fn reads(&self) -> bool {
        let backlog = self.node.backlogged.load(Ordering::Acquire);
        self.node.clients.waits(&self.client, !self.is_idle() || backlog);
        !self.closing && self.parked_since.is_none() && self.has_room() && !backlog
    }

    fn has_room(&self) -> bool {
        self.held.len() < HELD_MAX && self.held_bytes.len() < OUT_MAX && self.out.len() - self.written < OUT_MAX
    }

    /// Whether what may leave waits for what is held behind it, once.
    pub(super) fn keeps_back(&mut self) -> bool {
        let little = !self.out.is_empty() && self.written == 0 && self.out.len() < KEEP_BACK_MAX;
        self.kept_back = little && !self.held.is_empty() && !self.kept_back;
        self.kept_back
    }

    /// Whether what may leave answers more than one command of this turn.
    pub(super) fn answers_many(&self) -> bool {
        self.many && !self.out.is_empty()
    }

    /// Writes what may leave; whether the socket is full.
    pub(super) fn flush(&mut self, stream: &TcpStream) -> io::Result<bool> {
        while self.written < self.out.len() {
            match stream.try_write(&self.out[self.written..]) {
                Ok(n) => {
                    self.written += n;
                    self.node.counters.bytes_out.add(n as u64);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    // What was taken goes once that is cheap: who reads slowly and asks on would let it grow for ever.
                    if self.written > self.out.len() / 2 {
                        self.out.drain(..self.written);
                        self.written = 0;
                    }
                    return Ok(true);
                }
                Err(e) => return Err(e),
            }
        }
        self.out.clear();
        self.written = 0;
        Ok(false)
    }

    /// Runs one command and answers it, unless it is to be parked.
    /// `first` is what is known of its second word already.
    fn command(
        &mut self,
        args: Args<'_>,
        first: Option<First>,
        turn: Turn,
        until: &mut Mono,
        json: Option<u64>,
    ) -> Step {
        // Where nothing is before it, the reply is written where it leaves from.
        let direct = json.is_none() && self.held.is_empty();
        let mut buf = std::mem::take(if direct { &mut self.out } else { &mut self.reply });
        if !direct {
            buf.clear();
        }
        let base = buf.len();
        let proto = self.state.proto;
        let spec = match command::resolve(args, self.state.last_cmd) {
            Ok(spec) => spec,
            Err(_) if json.is_none() && is_http(args) => {
                tracing::warn!(
                    client = self.state.addr,
                    "HTTP on the client port: the connection is closed unanswered"
                );
                self.closing = true;
                *(if direct { &mut self.out } else { &mut self.reply }) = buf;
                self.out.truncate(self.written);
                return Step::Done;
            }
            Err(e) => {
                self.ran[2] += 1;
                self.refuse(&mut buf, &e);
                self.node.counters.erred(&buf[base..]);
                return self.end(buf, base, Rests::Nothing, turn, json);
            }
        };
        self.state.last_cmd = Some(spec);
        self.tick = self.tick.wrapping_add(1);
        let sampled = self.tick.is_multiple_of(SAMPLE);
        // Reading a clock costs a tenth of a small command: only what may be slow, and a sample, is timed.
        let started = (sampled || spec.may_be_slow() || heavy(args) || self.node.times_all()).then(Mono::now);
        let step = match spec.kind {
            Kind::Keyed(body) => self.keyed((spec, body), args, first, turn, until, &mut buf),
            Kind::Conn(body) => {
                let mut out = Reply::new(&mut buf, proto);
                ConnCtx { spec, args, out: &mut out, conn: &mut self.state }.run(body);
                self.closing |= self.state.close_after_reply;
                self.client.publish(&self.state);
                Some(Rests::Nothing)
            }
            Kind::Node(body) => {
                let mut out = Reply::new(&mut buf, proto);
                let mut host = NodeHost::new(&self.node, &self.client.waiter, turn);
                NodeCtx { spec, args, out: &mut out, conn: &mut self.state, host: &mut host }.run(body);
                *until = (*until).min(host.until);
                match host.end() {
                    None => None,
                    Some(holds) if holds.is_empty() => Some(Rests::Nothing),
                    Some(holds) => Some(Rests::Many(holds)),
                }
            }
            Kind::Container => {
                self.refuse(&mut buf, &error::SYNTAX);
                Some(Rests::Nothing)
            }
        };
        let rests = match step {
            Some(rests) => rests,
            None if self.parked_since.is_some_and(|since| turn.mono.ms_since(since) >= PARK_MAX_MS) => {
                buf.truncate(base);
                self.refuse(&mut buf, &error::CLUSTERDOWN);
                Rests::Nothing
            }
            None => {
                buf.truncate(base);
                *(if direct { &mut self.out } else { &mut self.reply }) = buf;
                return Step::Parked;
            }
        };
        let failed = buf.get(base) == Some(&b'-');
        if failed {
            self.node.counters.erred(&buf[base..]);
        }
        self.tally.add(&self.node, spec, failed);
        self.ran[spec.class()] += 1;
        if let Some(started) = started {
            self.node.timed(spec, &self.state, args, Mono::now().0.saturating_sub(started.0));
        }
        if sampled && let Some(key) = spec.first_key_of(args) {
            self.node.heat.touch(Slot::of_key(key), key);
        }
        self.end(buf, base, rests, turn, json)
    }

    /// Runs a command on keys; `None` = park.
    fn keyed(
        &mut self,
        (spec, body): (&'static Spec, command::KeyedFn),
        args: Args<'_>,
        first: Option<First>,
        turn: Turn,
        until: &mut Mono,
        buf: &mut Vec<u8>,
    ) -> Option<Rests> {
        // Of a command on one key, all is known that was found out ahead.
        let first = first.filter(|_| spec.has_one_key(args));
        let slot = match first.map_or_else(|| spec.slot(args), |first| Ok(Some(first.slot))) {
            Ok(Some(slot)) => slot,
            Ok(None) => {
                self.refuse(buf, &error::SYNTAX);
                return Some(Rests::Nothing);
            }
            Err(command::CrossSlot) => {
                self.refuse(buf, &error::CROSSSLOT);
                return Some(Rests::Nothing);
            }
        };
        let mut out = Reply::new(buf, self.state.proto);
        let (state, scratch) = (&mut self.state, &mut self.scratch);
        let mut shard = lock(self.node.shard(slot));
        let hash = first.and_then(|first| first.hash);
        let ran = shard.run(slot, turn, &self.client.waiter, |txn| {
            Keyed { spec, args, txn: txn.knowing(hash), out: &mut out, conn: state, scratch }.run(body)
        });
        match ran {
            Ran::Done { until: u } => {
                *until = (*until).min(u);
                Some(Rests::Nothing)
            }
            Ran::Held { pterm, seq, wrote, until: u } => {
                // A write rests on its confirmation at this pterm, which says as much as a lease.
                if !wrote {
                    *until = (*until).min(u);
                }
                Some(Rests::One { slot, pterm, seq, wrote })
            }
            Ran::Park => None,
            Ran::Oom => {
                drop(shard);
                self.refuse(buf, &error::OOM);
                Some(Rests::Nothing)
            }
            Ran::Elsewhere => {
                let config = shard.config.clone();
                drop(shard);
                // It is about to move: sent to its primary now, the client would soon be sent on from there.
                if config.slots.get(slot.ix()).is_some_and(|s| s.phase == Phase::Handover) {
                    return None;
                }
                self.redirect(&config, slot, buf).then_some(Rests::Nothing)
            }
        }
    }

    /// Answers a command on a slot that is not served here; false = park, for the answer is about to change.
    fn redirect(&self, config: &crate::proto::view::Config, slot: Slot, buf: &mut Vec<u8>) -> bool {
        let mut out = Reply::new(buf, self.state.proto);
        let primary = config.slots.get(slot.ix()).and_then(|s| s.primary.as_ref());
        match primary.and_then(|p| Some((p, config.member(p)?))) {
            Some((p, _)) if *p == self.node.me => return false,
            Some((_, m)) => error::moved(&mut out, slot, &m.addr),
            // Never handed out, as far as known here: the first hand-out is on its way.
            None if config.slots.get(slot.ix()).is_none_or(|s| s.pterm == 0) => match self.node.former_addr(slot) {
                Some(addr) => error::moved(&mut out, slot, addr),
                None => return false,
            },
            None => out.error_bytes(error::CLUSTERDOWN_SLOT.bytes()),
        }
        true
    }

    fn refuse(&self, buf: &mut Vec<u8>, e: &ErrorReply) {
        Reply::new(buf, self.state.proto).error_bytes(e.bytes());
    }

    /// The reply is in `buf` from `base` on; of RESP with nothing held before it, `buf` is what leaves.
    fn end(&mut self, mut buf: Vec<u8>, base: usize, rests: Rests, turn: Turn, json: Option<u64>) -> Step {
        if json.is_none() {
            let mut out = Reply::new(&mut buf, self.state.proto);
            self.state.settle(&mut out, base);
            if self.held.is_empty() {
                if !matches!(rests, Rests::Nothing) {
                    self.hold(&buf[base..], rests, turn, None);
                    buf.truncate(base);
                }
                self.out = buf;
                return Step::Done;
            }
        }
        self.answer(&buf, rests, turn, json);
        self.reply = buf;
        Step::Done
    }

    /// Queues a RESP reply (as a JSON line where the client speaks that).
    fn answer(&mut self, resp: &[u8], rests: Rests, turn: Turn, json: Option<u64>) {
        match json {
            Some(id) => {
                let line = json::answer_resp(self.node.me.id.as_str(), id, resp);
                self.queue(&line, rests, turn, json);
            }
            None => self.queue(resp, rests, turn, None),
        }
    }

    fn queue(&mut self, bytes: &[u8], rests: Rests, turn: Turn, json: Option<u64>) {
        if self.held.is_empty() && matches!(rests, Rests::Nothing) {
            self.out.extend_from_slice(bytes);
            return;
        }
        self.hold(bytes, rests, turn, json);
    }

    fn hold(&mut self, bytes: &[u8], rests: Rests, turn: Turn, json: Option<u64>) {
        self.held_bytes.extend_from_slice(bytes);
        self.held.push_back(HeldReply { rests, len: bytes.len(), since: turn.mono, json });
    }

    /// Lets go of replies that are decided, in order.
    fn release(&mut self, turn: Turn) {
        let mut gone = 0;
        while let Some(first) = self.held.front() {
            let late = turn.mono.ms_since(first.since) >= HELD_MAX_MS;
            let state = match &first.rests {
                Rests::Nothing => Held::Confirmed,
                Rests::One { slot, pterm, seq, .. } => lock(self.node.shard(*slot)).held(*slot, *pterm, *seq),
                Rests::Many(all) => all
                    .iter()
                    .map(|(slot, pterm, seq)| lock(self.node.shard(*slot)).held(*slot, *pterm, *seq))
                    .find(|h| *h != Held::Confirmed)
                    .unwrap_or(Held::Confirmed),
            };
            if state == Held::Pending && !late {
                break;
            }
            let Some(first) = self.held.pop_front() else { break };
            let bytes = &self.held_bytes[gone..gone + first.len];
            gone += first.len;
            if state == Held::Confirmed {
                self.node.counters.held.record(turn.mono.0.saturating_sub(first.since.0), 1);
                self.out.extend_from_slice(bytes);
                continue;
            }
            if first.len == 0 {
                // CLIENT REPLY OFF.
                continue;
            }
            let mut text = Vec::new();
            let config = self.node.view();
            match first.rests {
                Rests::One { slot, wrote: false, .. } if state == Held::Lost => {
                    if !self.redirect(&config, slot, &mut text) {
                        self.refuse(&mut text, &error::CLUSTERDOWN);
                    }
                }
                Rests::One { wrote: false, .. } => self.refuse(&mut text, &error::CLUSTERDOWN),
                _ => self.refuse(&mut text, &error::INDETERMINATE),
            }
            self.node.counters.erred(&text);
            match first.json {
                Some(id) => {
                    let line = json::answer_resp(self.node.me.id.as_str(), id, &text);
                    self.out.extend_from_slice(&line);
                }
                None => self.out.extend_from_slice(&text),
            }
        }
        self.held_bytes.drain(..gone);
        if self.held_bytes.is_empty() && self.held_bytes.capacity() > KEEP {
            self.held_bytes = Vec::new();
        }
    }
}
