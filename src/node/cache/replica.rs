//! The receiving end of a peer's stream: applies items and copies in order, acks once per read, tells the peer its quota.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::debug;

use super::effect::Reader;
use super::node::{Inbound, Node};
use super::peer::{Granted, PeerRef};
use super::shard::lock;
use super::store::{Now, WARM_MAX, Wanted};
use super::wire::{self, Inbox};
use crate::proto::frame::{self, BadFrame, Frame, Refusal, Stream};
use crate::proto::id::Ref;

/// How long a frame of a configuration not known here yet may hold up its link.
pub const CATCH_UP: Duration = Duration::from_secs(5);
/// Refusals remembered for a sender that did not see them; above it the oldest connection's worth is dropped with the link.
const REFUSALS_MAX: usize = 1 << 16;
/// After a read of so many bytes, which is a copy's, clients of this thread have their turn first.
const MUCH: usize = 8 << 10;

/// Serves one data connection of a peer that was greeted already.
pub async fn serve(node: Arc<Node>, from: Ref, acked: u64, mut stream: TcpStream, inbox: Inbox) {
    let state = lock(&node.inbound).entry(from.clone()).or_default().clone();
    let peer = match peer_of(&node, &from).await {
        Some(p) => p,
        None => return debug!(peer = %from, "a peer this node does not know of"),
    };
    use tokio::io::AsyncWriteExt;
    let mut replica = Replica::welcome(node, peer, state, acked, inbox);
    if let Err(e) = stream.write_all(&std::mem::take(&mut replica.out)).await {
        return debug!(peer = %from, error = %e, "greeting failed");
    }
    if let Err(e) = replica.run(stream).await {
        debug!(peer = %from, error = %e, "replica link ended");
    }
}

/// The sender may be a member that this node has not learned of yet.
async fn peer_of(node: &Node, from: &Ref) -> Option<PeerRef> {
    let mut index = node.cfg_index.subscribe();
    let found = timeout(CATCH_UP, async {
        loop {
            if let Some(p) = node.known_peer(from) {
                return Some(p);
            }
            node.behind.notify_one();
            index.changed().await.ok()?;
        }
    });
    found.await.ok().flatten()
}

/// One data connection from a peer.
pub struct Replica {
    node: Arc<Node>,
    peer: PeerRef,
    state: Arc<std::sync::Mutex<Inbound>>,
    generation: u64,
    /// Bytes that came.
    pub inbox: Inbox,
    /// The sender's TTL clock.
    clock: u64,
    /// Bytes to be sent.
    pub out: Vec<u8>,
    /// The quota that this connection was told last.
    told: Option<(u64, u64, u64)>,
}

impl Replica {
    /// A connection that said HELLO; it takes over from older ones. What it is told is in `out`.
    pub fn welcome(
        node: Arc<Node>,
        peer: PeerRef,
        state: Arc<std::sync::Mutex<Inbound>>,
        acked: u64,
        inbox: Inbox,
    ) -> Self {
        let (generation, out) = {
            let mut s = lock(&state);
            s.generation += 1;
            if acked > s.received {
                // Another session than the one known here: the sender, or this node, held the other for dead in between.
                s.received = acked;
            }
            s.refusals.retain(|(link_seq, _)| *link_seq > acked);
            let mut out = Vec::new();
            for (link_seq, why) in &s.refusals {
                frame::put(&mut out, &Frame::Refuse { link_seq: *link_seq, why: *why });
            }
            frame::put(&mut out, &Frame::Welcome { received: s.received });
            (s.generation, out)
        };
        Self { node, peer, state, generation, inbox, clock: 0, out, told: None }
    }

    async fn run(mut self, stream: TcpStream) -> io::Result<()> {
        loop {
            if self.is_over() {
                return Ok(());
            }
            self.tell_quota();
            while !self.out.is_empty() {
                match stream.try_write(&self.out) {
                    Ok(n) => drop(self.out.drain(..n)),
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => stream.writable().await?,
                    Err(e) => return Err(e),
                }
            }
            tokio::select! {
                ready = stream.ready(Interest::READABLE) => {
                    ready?;
                    match self.inbox.try_fill(&stream) {
                        Ok(0) => return Ok(()),
                        Ok(n) => {
                            while let Some(behind) = self.take()? {
                                if !self.catch_up(behind).await {
                                    return Err(wire::refused("configuration did not arrive"));
                                }
                            }
                            if n >= MUCH {
                                // Others of this thread have their turn before more of a copy is taken in.
                                tokio::task::yield_now().await;
                            }
                        }
                        Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                        Err(e) => return Err(e),
                    }
                }
                () = self.peer.quota_wake.notified() => {}
            }
        }
    }

    /// The peer is no member any more, or a newer connection took over: this one ends.
    pub fn is_over(&self) -> bool {
        if lock(&self.state).generation != self.generation {
            // It may have been woken in the newer one's place.
            self.peer.quota_wake.notify_one();
            return true;
        }
        self.peer.gone.load(Ordering::Acquire)
    }

    /// Tells the peer its quota, if that changed.
    pub fn tell_quota(&mut self) {
        let quota = *lock(&self.peer.quota);
        let now = Some((quota.told, quota.target, quota.view));
        // What a share follows from is kept with it: a share of nothing, said of a view that gives one, would cost the peer its keys.
        if quota.view > 0 && self.told != now {
            self.told = now;
            let Granted { told, target, view, .. } = quota;
            frame::put(&mut self.out, &Frame::Quota { bytes: told, target, cfg_index: view });
        }
    }

    /// Takes all whole frames of what was read; one ack for all. `Some`: the next frame is of this configuration, which is not
    /// known here; it stays in the inbox while this node catches up.
    pub fn take(&mut self) -> io::Result<Option<u64>> {
        let mut last = None;
        let mut needed = None;
        let turn = self.node.turn();
        let mut ahead = 0;
        loop {
            if ahead == 0 {
                self.look_ahead();
                ahead = WARM_MAX;
            }
            ahead -= 1;
            let behind = match self.inbox.frame().map_err(io::Error::other)? {
                None => break,
                Some(Frame::Now(ms)) => {
                    self.clock = ms;
                    continue;
                }
                Some(Frame::QuotaAck { bytes }) => {
                    self.node.on_quota_ack(&self.peer, bytes);
                    continue;
                }
                Some(Frame::Touch { slot, keys }) => {
                    let mut shard = lock(self.node.shard(slot));
                    let mut rest = keys;
                    while let Some((head, tail)) = rest.split_at_checked(2) {
                        let len = usize::from(u16::from_le_bytes([head[0], head[1]]));
                        let Some((key, tail)) = tail.split_at_checked(len) else { break };
                        shard.store.touch_backup(slot, key);
                        rest = tail;
                    }
                    continue;
                }
                Some(f) => {
                    let (link_seq, stream) = place(&f)?;
                    let needs = stream.pterm.max(stream.since);
                    if needs <= *self.node.cfg_index.borrow() {
                        let took =
                            apply(&self.node, &self.state, self.generation, (turn.now, self.clock), link_seq, f)?;
                        if let Err(why) = took {
                            frame::put(&mut self.out, &Frame::Refuse { link_seq, why });
                        }
                        last = Some(link_seq);
                        continue;
                    }
                    needs
                }
            };
            self.inbox.untake();
            needed = Some(behind);
            break;
        }
        if let Some(link_seq) = last {
            frame::put(&mut self.out, &Frame::Ack { link_seq });
        }
        Ok(needed)
    }

    /// Asks for what the next items need of memory, which is waited for together.
    fn look_ahead(&self) {
        let mut wanted = [Wanted::NONE; WARM_MAX];
        let mut n = 0;
        for frame in self.inbox.ahead().take(WARM_MAX) {
            if let Frame::Item { stream, effects, .. } = frame
                && let Some(Ok(effect)) = Reader(effects).next()
                && let Some(key) = effect.key()
            {
                wanted[n] = Wanted::new(n, stream.slot, key);
                n += 1;
            }
        }
        if n > 1 {
            self.node.warm(&mut wanted[..n]);
        }
    }

    async fn catch_up(&self, index: u64) -> bool {
        let mut known = self.node.cfg_index.subscribe();
        let reached = timeout(CATCH_UP, async {
            while *known.borrow_and_update() < index {
                self.node.behind.notify_one();
                let _ = timeout(Duration::from_millis(50), known.changed()).await;
            }
        });
        reached.await.is_ok()
    }
}

fn place(f: &Frame<'_>) -> io::Result<(u64, Stream)> {
    match f {
        Frame::Open { link_seq, stream, .. }
        | Frame::Item { link_seq, stream, .. }
        | Frame::Chunk { link_seq, stream, .. }
        | Frame::End { link_seq, stream, .. } => Ok((*link_seq, *stream)),
        _ => Err(io::Error::other(BadFrame)),
    }
}

/// Applies one frame; the outer error ends the connection, the inner one refuses the frame.
fn apply(
    node: &Node,
    state: &std::sync::Mutex<Inbound>,
    generation: u64,
    (now, clock): (Now, u64),
    link_seq: u64,
    f: Frame<'_>,
) -> io::Result<Result<(), Refusal>> {
    let mut state = lock(state);
    if state.generation != generation {
        return Err(wire::refused("a newer connection of this peer took over"));
    }
    if link_seq <= state.received {
        return Ok(Ok(()));
    }
    if link_seq != state.received + 1 {
        return Err(io::Error::other(BadFrame));
    }
    let took = match f {
        Frame::Open { stream, next_seq, .. } => match lock(node.shard(stream.slot)).on_open(&stream, next_seq) {
            super::slot::Accept::Refuse(why) => Err(why),
            _ => Ok(()),
        },
        Frame::Item { stream, seq, effects, .. } => {
            lock(node.shard(stream.slot)).on_item(&stream, seq, effects, now, clock)
        }
        Frame::Chunk { stream, effects, .. } => {
            node.counters.copies.fetch_add(1, Ordering::Relaxed);
            lock(node.shard(stream.slot)).on_chunk(&stream, effects, now, clock)
        }
        Frame::End { stream, seq, count, digest, .. } => {
            lock(node.shard(stream.slot)).on_end(&stream, seq, count, digest)
        }
        _ => return Err(io::Error::other(BadFrame)),
    };
    state.received = link_seq;
    if let Err(why) = took {
        if state.refusals.len() >= REFUSALS_MAX {
            return Err(wire::refused("too many refusals"));
        }
        state.refusals.push((link_seq, why));
    }
    Ok(took)
}
