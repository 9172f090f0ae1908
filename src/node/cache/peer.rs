//! Another node as seen from here: the lease it granted, the promise given to it, and the queue of the one ordered stream to it.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::Notify;

use super::effect::KEEP;
use super::slot::{LEASE_MS, Lease, Leased, PROMISE_MS, Sent};
use crate::node::clock::Mono;
use crate::proto::frame::{self, Frame, Stream};
use crate::proto::id::Ref;
use crate::proto::slot::Slot;

/// Unconfirmed bytes towards one peer above which clients are no longer read: what a stalled backup may cost in memory.
pub const BACKLOG_MAX: usize = 64 << 20;
/// Copied bytes that may be on their way to one peer, so that live items behind them are not delayed for long.
pub const COPY_WINDOW: usize = 256 << 10;

/// A frame on its way, to be acted on when its ack comes.
#[derive(Debug, Clone, Copy)]
pub struct InFlight {
    /// Bytes in the queue.
    len: usize,
    /// Whose.
    pub stream: Stream,
    /// What.
    pub sent: Sent,
    /// It was not taken: its ack confirms nothing.
    pub refused: bool,
}

impl InFlight {
    fn is_copy(&self) -> bool {
        !matches!(self.sent, Sent::Item(_))
    }
}

/// `link_seq`s of one session: more than any can send.
const SESSION_SPAN: u64 = 1 << 40;

/// Frames not yet acked, whole, from `acked + 1` on; resent from there on a new connection.
#[derive(Debug, Default)]
pub struct Queue {
    bytes: VecDeque<u8>,
    frames: VecDeque<InFlight>,
    /// `link_seq` of the last frame acked.
    acked: u64,
    /// Bytes of `bytes` written to the current connection.
    written: usize,
    /// The first whole frames that cover `written`: how many, and where the last of them ends.
    begun: (usize, usize),
    copying: usize,
    scratch: Vec<u8>,
}

impl Queue {
    /// A stream begins, this life's `session`th. Its numbers are above those of all before, so that a receiver that knows of an
    /// earlier one neither takes it for that one nor waits for what came in between.
    pub fn begin(&mut self, session: u64) {
        self.acked = session * SESSION_SPAN;
    }

    fn next_seq(&self) -> u64 {
        self.acked + self.frames.len() as u64 + 1
    }

    fn push(&mut self, stream: Stream, sent: Sent, make: impl FnOnce(u64) -> Frame<'static>) {
        let frame = make(self.next_seq());
        self.push_frame(stream, sent, &frame);
    }

    fn push_frame(&mut self, stream: Stream, sent: Sent, frame: &Frame<'_>) {
        self.scratch.clear();
        frame::put(&mut self.scratch, frame);
        let entry = InFlight { len: self.scratch.len(), stream, sent, refused: false };
        if entry.is_copy() {
            self.copying += entry.len;
        }
        self.bytes.extend(&self.scratch);
        self.frames.push_back(entry);
        if self.scratch.capacity() > KEEP {
            self.scratch = Vec::new();
        }
    }

    /// One command's effects.
    pub fn item(&mut self, stream: Stream, seq: u64, effects: &[u8]) {
        let link_seq = self.next_seq();
        self.push_frame(stream, Sent::Item(seq), &Frame::Item { link_seq, stream, seq, effects });
    }

    /// Start of a copy.
    pub fn open(&mut self, stream: Stream, next_seq: u64) {
        self.push(stream, Sent::Chunk, |link_seq| Frame::Open { link_seq, stream, next_seq });
    }

    /// A piece of a copy.
    pub fn chunk(&mut self, stream: Stream, effects: &[u8], last: bool) {
        let link_seq = self.next_seq();
        let sent = if last { Sent::LastChunk } else { Sent::Chunk };
        self.push_frame(stream, sent, &Frame::Chunk { link_seq, stream, effects });
    }

    /// SYNC_END.
    pub fn end(&mut self, stream: Stream, seq: u64, count: u64, digest: u64) {
        self.push(stream, Sent::End(seq), |link_seq| Frame::End { link_seq, stream, seq, count, digest });
    }

    /// A frame was not taken; whose it was.
    pub fn refuse(&mut self, link_seq: u64) -> Option<Stream> {
        let ix = link_seq.checked_sub(self.acked + 1)?;
        let f = self.frames.get_mut(ix as usize)?;
        f.refused = true;
        Some(f.stream)
    }

    /// The last `link_seq` acked.
    pub fn acked(&self) -> u64 {
        self.acked
    }

    /// Takes out what was acked up to `link_seq`, oldest first; what was refused is left out.
    pub fn ack(&mut self, link_seq: u64, out: &mut Vec<InFlight>) {
        while self.acked < link_seq {
            let Some(f) = self.frames.pop_front() else { return };
            self.acked += 1;
            self.written = self.written.saturating_sub(f.len);
            self.begun = (self.begun.0.saturating_sub(1), self.begun.1.saturating_sub(f.len));
            if f.is_copy() {
                self.copying -= f.len;
            }
            self.bytes.drain(..f.len);
            if !f.refused {
                out.push(f);
            }
        }
        // A burst's memory is given back once it is through.
        if self.bytes.is_empty() && self.bytes.capacity() > COPY_WINDOW * 2 {
            self.bytes = VecDeque::new();
        }
    }

    /// A new connection: everything unacked goes out again.
    pub fn rewind(&mut self) {
        self.written = 0;
        self.begun = (0, 0);
    }

    /// What was not yet written to this connection.
    pub fn pending(&self) -> (&[u8], &[u8]) {
        let (a, b) = self.bytes.as_slices();
        if self.written < a.len() { (&a[self.written..], b) } else { (&b[self.written - a.len()..], &[]) }
    }

    /// So many bytes of [`Queue::pending`] were written.
    pub fn wrote(&mut self, n: usize) {
        self.written += n;
        while self.begun.1 < self.written {
            let Some(f) = self.frames.get(self.begun.0) else { return };
            self.begun = (self.begun.0 + 1, self.begun.1 + f.len);
        }
    }

    /// Whether what was written so far ends with a whole frame, so that something else may be put in between.
    pub fn at_boundary(&self) -> bool {
        self.begun.1 == self.written
    }

    /// Unacked bytes.
    pub fn backlog(&self) -> usize {
        self.bytes.len()
    }

    /// Whether another chunk may be sent.
    pub fn copy_room(&self) -> bool {
        self.copying < COPY_WINDOW
    }
}

/// One life of another node.
#[derive(Debug)]
pub struct Peer {
    /// Who.
    pub node: Ref,
    /// Where its peer port is, host:port.
    pub addr: String,
    /// The group its slots are accounted in (`Role::Primary { backed_at }`); 0 is "no backup".
    pub group: u8,
    /// When this handle was made: no lease can be missed before.
    pub made: Mono,
    lease_until: AtomicU64,
    lease_cfg: AtomicU64,
    promised_until: AtomicU64,
    /// The link's stream; lock order: shard, then queue.
    pub queue: Mutex<Queue>,
    /// Wakes the link: something was queued.
    pub wake: Notify,
    /// Wakes copying: window, session or quota may have room again.
    pub copy_wake: Notify,
    /// Wakes the beacon: the view changed.
    pub beacon_wake: Notify,
    /// Wakes the connection from this peer: a quota is to be told.
    pub quota_wake: Notify,
    /// Slots to be copied to it.
    pub jobs: Mutex<VecDeque<Slot>>,
    /// What was copied to it so far.
    pub copied: Copied,
    /// Copies that arrived whole but could not be counted for want of a lease.
    pub uncounted: Mutex<Vec<Stream>>,
    /// When the last ack came, or this peer was made, milliseconds of CLOCK_BOOTTIME.
    pub progress_ms: AtomicU64,
    /// It refused an item of a slot it should hold.
    pub broken: AtomicBool,
    /// What the peer granted for this node's slots there.
    pub credit: Mutex<Credit>,
    /// What this node granted to the peer, and would grant.
    pub quota: Mutex<Granted>,
    /// This node stays within the last quota: to be said behind the DELs that made it so.
    pub quota_met: AtomicBool,
    /// The peer is no member any more: its link ends.
    pub gone: AtomicBool,
}

/// Sums of copies, for the view.
#[derive(Debug, Default)]
pub struct Copied {
    /// Keys sent.
    pub keys: AtomicU64,
    /// Bytes sent.
    pub bytes: AtomicU64,
}

/// Memory a peer keeps for this node's slots there.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Credit {
    /// Accounted bytes to stay within now.
    pub bytes: u64,
    /// The share; evicting is right only above it.
    pub target: u64,
    /// The peer's configuration when it said so; 0 = it said nothing yet.
    pub cfg_index: u64,
    /// It waits to hear that this node stays within `bytes`.
    pub owed: bool,
}

impl Credit {
    /// Whether the peer shared out by this very view and has nothing more to give: what does not fit must be evicted.
    pub fn is_final(&self, cfg_index: u64) -> bool {
        self.cfg_index == cfg_index && self.bytes >= self.target
    }
}

/// Memory promised to a peer's slots here (ARCHITECTURE: memory).
#[derive(Debug, Default, Clone, Copy)]
pub struct Granted {
    /// The most it may believe in.
    pub held: u64,
    /// The last told.
    pub told: u64,
    /// What the slot table of `view` gives it.
    pub target: u64,
    /// The configuration that `target` follows from; 0: none yet, nothing is to be told.
    pub view: u64,
}

impl Peer {
    /// Nothing promised, nothing granted.
    pub fn new(node: Ref, addr: String, group: u8) -> Self {
        let made = Mono::now();
        Self {
            node,
            addr,
            group,
            made,
            lease_until: AtomicU64::new(0),
            lease_cfg: AtomicU64::new(0),
            promised_until: AtomicU64::new(0),
            queue: Mutex::default(),
            wake: Notify::new(),
            copy_wake: Notify::new(),
            beacon_wake: Notify::new(),
            quota_wake: Notify::new(),
            jobs: Mutex::default(),
            copied: Copied::default(),
            uncounted: Mutex::default(),
            progress_ms: AtomicU64::new(made.0 / 1_000_000),
            broken: AtomicBool::new(false),
            credit: Mutex::default(),
            quota: Mutex::default(),
            quota_met: AtomicBool::new(false),
            gone: AtomicBool::new(false),
        }
    }

    /// A beacon of this peer is about to be answered: from `now` on, no slot of which it is believed primary is served here.
    pub fn promise(&self, now: Mono) {
        self.promised_until.fetch_max(now.plus_ms(PROMISE_MS).0, Ordering::AcqRel);
    }

    /// What an earlier handle of this peer had promised.
    pub fn promised_before(&self, until: Mono) {
        self.promised_until.fetch_max(until.0, Ordering::AcqRel);
    }

    /// Until when promises to it bind.
    pub fn promised(&self) -> Mono {
        Mono(self.promised_until.load(Ordering::Acquire))
    }

    /// It answered the beacon that left at `sent`, standing at `cfg_index`. Returns whether no lease was held before.
    pub fn granted(&self, sent: Mono, cfg_index: u64, now: Mono) -> bool {
        let until = sent.plus_ms(LEASE_MS).0;
        // The index first: a reader that sees the longer lease must not pair it with an older index than it came with. The
        // reverse mix (new index, old end) is only shorter.
        let newer = self.lease_cfg.fetch_max(cfg_index, Ordering::AcqRel) < cfg_index;
        let before = self.lease_until.fetch_max(until, Ordering::AcqRel);
        newer || before <= now.0
    }
}

/// How slots hold a peer.
pub type PeerRef = std::sync::Arc<Peer>;

impl Leased for PeerRef {
    fn lease(&self) -> Lease {
        let until = Mono(self.lease_until.load(Ordering::Acquire));
        Lease { until, cfg_index: self.lease_cfg.load(Ordering::Acquire) }
    }
}
