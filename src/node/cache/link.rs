//! The sending end of the one ordered stream to a peer: dials, resumes, flushes once per loop turn, takes acks and quotas.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::sleep;
use tracing::{debug, warn};

use super::node::Node;
use super::peer::{Credit, InFlight, PeerRef};
use super::shard::lock;
use super::slot::Acked;
use super::store::WARM_MAX;
use super::wire::{self, Inbox};
use crate::node::clock::Mono;
use crate::proto::frame::{self, Frame, Purpose, Refusal};

/// First and longest wait between two dials.
const REDIAL: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));
/// How old the sender's clock on a connection may get, milliseconds: the error of a shipped TTL.
const NOW_STEP_MS: u64 = 2;

/// Keeps the link to a peer up until it is no member any more.
pub async fn run(node: Arc<Node>, peer: PeerRef) {
    let mut wait = REDIAL.0;
    while !peer.gone.load(Ordering::Acquire) {
        match connect(&node, &peer).await {
            Ok((stream, inbox)) => {
                debug!(peer = %peer.node, "link up");
                wait = REDIAL.0;
                let why = Link::new(&node, &peer, inbox).serve(stream).await;
                debug!(peer = %peer.node, error = %why, "link down");
            }
            Err(e) => debug!(peer = %peer.node, error = %e, "no link"),
        }
        sleep(wait).await;
        wait = (wait * 2).min(REDIAL.1);
    }
}

async fn connect(node: &Node, peer: &PeerRef) -> io::Result<(TcpStream, Inbox)> {
    let acked = lock(&peer.queue).acked();
    let hello = Frame::Hello {
        cluster: node.cluster(),
        from: node.me.clone(),
        to: peer.node.clone(),
        purpose: Purpose::Data,
        acked,
    };
    let mut stream = wire::dial(&peer.addr, &hello).await?;
    let mut inbox = Inbox::default();
    let welcome = async {
        while !take_welcome(node, peer, &mut inbox)? {
            inbox.fill(&mut stream).await?;
        }
        Ok::<(), io::Error>(())
    };
    tokio::time::timeout(wire::GREETING_MAX, welcome).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    Ok((stream, inbox))
}

/// Takes the answer to HELLO: what the receiver took so far is acked, the rest goes out again. False: it is not whole yet.
pub fn take_welcome(node: &Node, peer: &PeerRef, inbox: &mut Inbox) -> io::Result<bool> {
    loop {
        match inbox.frame().map_err(io::Error::other)? {
            Some(Frame::Refuse { link_seq, why }) => on_refuse(node, peer, link_seq, why),
            Some(Frame::Welcome { received }) => {
                on_ack(node, peer, received, &mut Vec::new());
                lock(&peer.queue).rewind();
                return Ok(true);
            }
            Some(_) => return Err(wire::refused("unwelcome")),
            None => return Ok(false),
        }
    }
}

struct Link<'a> {
    node: &'a Node,
    peer: &'a PeerRef,
    inbox: Inbox,
    done: Vec<InFlight>,
    out: Outgoing,
}

/// What goes out before the queue: only ever started at a frame's boundary.
#[derive(Debug, Default)]
pub struct Outgoing {
    head: Vec<u8>,
    /// The clock last told.
    clock: u64,
}

impl Outgoing {
    /// Writes what is queued; whether the socket is full.
    pub fn flush(
        &mut self,
        peer: &PeerRef,
        mut write: impl FnMut(&[io::IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<bool> {
        let Self { head, clock } = self;
        let mut queue = lock(&peer.queue);
        loop {
            let (a, b) = queue.pending();
            if head.is_empty() && queue.at_boundary() {
                let now = Mono::now().0 / 1_000_000;
                if !a.is_empty() && now >= *clock + NOW_STEP_MS {
                    *clock = now;
                    frame::put(head, &Frame::Now(now));
                }
                // Behind every DEL that made it true.
                if a.is_empty() && peer.quota_met.swap(false, Ordering::AcqRel) {
                    frame::put(head, &Frame::QuotaAck { bytes: lock(&peer.credit).bytes });
                }
            }
            if head.is_empty() && a.is_empty() {
                return Ok(false);
            }
            let parts = [io::IoSlice::new(head), io::IoSlice::new(a), io::IoSlice::new(b)];
            match write(&parts) {
                Ok(n) => {
                    let of_head = n.min(head.len());
                    head.drain(..of_head);
                    queue.wrote(n - of_head);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(e) => return Err(e),
            }
        }
    }
}

impl<'a> Link<'a> {
    fn new(node: &'a Node, peer: &'a PeerRef, inbox: Inbox) -> Self {
        Self { node, peer, inbox, done: Vec::new(), out: Outgoing::default() }
    }

    async fn serve(mut self, stream: TcpStream) -> io::Error {
        // The quota may have come in one piece with the welcome: nothing else need ever arrive if it is not taken now, for
        // without a quota nothing is written and so nothing acked.
        if let Err(e) = take(self.node, self.peer, &mut self.inbox, &mut self.done) {
            return e;
        }
        loop {
            if self.peer.gone.load(Ordering::Acquire) {
                return wire::refused("no member any more");
            }
            let written = self.out.flush(self.peer, |parts| stream.try_write_vectored(parts));
            let blocked = match written {
                Ok(blocked) => blocked,
                Err(e) => return e,
            };
            let interest = if blocked { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
            tokio::select! {
                ready = stream.ready(interest) => match ready {
                    Err(e) => return e,
                    Ok(r) if r.is_readable() => {
                        if let Err(e) = self.read(&stream) {
                            return e;
                        }
                    }
                    Ok(_) => {}
                },
                () = self.peer.wake.notified() => {}
            }
        }
    }

    /// Reads what arrived and takes it.
    fn read(&mut self, stream: &TcpStream) -> io::Result<()> {
        match self.inbox.try_fill(stream) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => take(self.node, self.peer, &mut self.inbox, &mut self.done),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(e) => Err(e),
        }
    }
}

/// Takes what was read.
pub fn take(node: &Node, peer: &PeerRef, inbox: &mut Inbox, done: &mut Vec<InFlight>) -> io::Result<()> {
    let (mut acked, mut quota) = (None, None);
    while let Some(f) = inbox.frame().map_err(io::Error::other)? {
        match f {
            Frame::Ack { link_seq } => acked = Some(link_seq),
            Frame::Refuse { link_seq, why } => on_refuse(node, peer, link_seq, why),
            Frame::Quota { bytes, target, cfg_index } => {
                quota = Some(Credit { bytes, target, cfg_index, owed: true });
            }
            _ => return Err(io::Error::other(frame::BadFrame)),
        }
    }
    if let Some(link_seq) = acked {
        on_ack(node, peer, link_seq, done);
    }
    if let Some(credit) = quota {
        *lock(&peer.credit) = credit;
        node.budget.set_credit(peer.group, credit.bytes);
        node.fit(peer);
        peer.copy_wake.notify_one();
        node.clients.nudge_all();
    }
    Ok(())
}

fn on_refuse(node: &Node, peer: &PeerRef, link_seq: u64, why: Refusal) {
    let Some(stream) = lock(&peer.queue).refuse(link_seq) else { return };
    if lock(node.shard(stream.slot)).on_refuse(peer, &stream, why) {
        warn!(peer = %peer.node, slot = %stream.slot, ?why, "a backup refused an item; it will be replaced");
        peer.broken.store(true, Ordering::Release);
    } else {
        node.behind.notify_one();
    }
}

fn on_ack(node: &Node, peer: &PeerRef, link_seq: u64, done: &mut Vec<InFlight>) {
    done.clear();
    lock(&peer.queue).ack(link_seq, done);
    if done.is_empty() {
        return;
    }
    peer.progress_ms.store(Mono::now().0 / 1_000_000, Ordering::Relaxed);
    let turn = node.turn();
    let mut copied = false;
    for batch in done.chunks(WARM_MAX) {
        // Each is of another slot as a rule: their memory is waited for together.
        node.warm_acked(batch.iter().map(|f| f.stream.slot));
        for f in batch {
            copied |= !matches!(f.sent, super::slot::Sent::Item(_));
            match lock(node.shard(f.stream.slot)).on_ack(peer, &f.stream, f.sent, turn) {
                Acked::Copied => lock(&peer.uncounted).push(f.stream),
                Acked::Ready => node.ready.notify_one(),
                _ => {}
            }
        }
    }
    if copied {
        peer.copy_wake.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    use super::*;
    use crate::node::cache::node::Inbound;
    use crate::node::cache::peer::{Peer, Queue};
    use crate::node::cache::replica::Replica as Receiver;
    use crate::node::cache::shard::Ran;
    use crate::node::cache::store::{NeedRoom, Scope, Txn};
    use crate::node::config::NodeConfig;
    use crate::proto::id::{ClusterId, HomeId, Incarnation, NodeId, Ref};
    use crate::proto::slot::SLOTS;
    use crate::proto::slot::Slot;
    use crate::proto::status::NodeState;
    use crate::proto::view::{Config, Member, Phase, Replica, SlotRange, SlotState, View};

    fn life(id: &str) -> Ref {
        Ref { id: NodeId::new(id).unwrap(), incarnation: Incarnation(1) }
    }

    fn node() -> Arc<Node> {
        let example = NodeConfig::example(NodeId::new("n1").unwrap());
        let config = NodeConfig { memory: 1 << 20, ..example };
        Arc::new(Node::new(life("n1"), config, mpsc::unbounded_channel().0))
    }

    async fn next_frame(stream: &mut TcpStream, buf: &mut Vec<u8>) -> Vec<u8> {
        loop {
            if let Some((_, len)) = frame::take(buf).unwrap() {
                return buf.drain(..len).collect();
            }
            assert_ne!(stream.read_buf(buf).await.unwrap(), 0, "the link ended");
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_quota_in_one_piece_with_the_welcome_is_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let (node, peer) = (node(), Arc::new(Peer::new(life("n2"), addr, 1)));
        let link = tokio::spawn(run(node.clone(), peer.clone()));

        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buf = Vec::new();
        next_frame(&mut stream, &mut buf).await;
        let mut both = Vec::new();
        frame::put(&mut both, &Frame::Welcome { received: 0 });
        frame::put(&mut both, &Frame::Quota { bytes: 4096, target: 4096, cfg_index: 1 });
        stream.write_all(&both).await.unwrap();

        let answer = tokio::time::timeout(Duration::from_secs(60), next_frame(&mut stream, &mut buf)).await;
        let answer = answer.expect("the quota was not taken");
        assert!(matches!(frame::take(&answer), Ok(Some((Frame::QuotaAck { bytes: 4096 }, _)))));
        assert_eq!(lock(&peer.credit).bytes, 4096);
        link.abort();
    }

    fn view(index: u64, n2: NodeState) -> View {
        let mut cfg = Config::empty(ClusterId(7), SLOTS);
        cfg.cfg_index = index;
        for (id, state) in [("n1", NodeState::Up), ("n2", n2)] {
            let r = life(id);
            let member = Member {
                incarnation: r.incarnation,
                home: HomeId(1),
                addr: "127.0.0.1:1".into(),
                peer_addr: "127.0.0.1:2".into(),
                state,
                zone: String::new(),
                weight: 1.0,
            };
            cfg.members.insert(r.id, member);
        }
        cfg.since(0)
    }

    #[test]
    fn a_peer_that_comes_back_gets_new_links_and_its_promise_binds_on() {
        let node = node();
        node.absorb(&view(1, NodeState::Up));
        let first = node.known_peer(&life("n2")).unwrap();
        first.promise(Mono::now());
        lock(&first.quota).held = 4096;
        let promised = first.promised();
        // The promise keeps the handle known, but its links have ended.
        node.absorb(&view(2, NodeState::Dead));
        assert!(first.gone.load(Ordering::Acquire));
        assert_eq!(lock(&first.quota).held, 0, "nobody else waits for its share");
        node.absorb(&view(3, NodeState::Up));
        let second = node.known_peer(&life("n2")).unwrap();
        assert!(!second.gone.load(Ordering::Acquire), "its links run");
        assert_eq!(second.promised(), promised);
        assert!(lock(&second.queue).acked() > lock(&first.queue).acked(), "another session");
    }

    #[test]
    fn a_connection_from_before_a_death_says_nothing_of_shares_after_it() {
        let node = node();
        node.absorb(&view(1, NodeState::Up));
        let before = node.known_peer(&life("n2")).unwrap();
        let mut receiver = Receiver::welcome(node.clone(), before, Arc::default(), 0, Inbox::default());
        let told = |r: &mut Receiver| {
            r.out.clear();
            r.tell_quota();
            match frame::take(&r.out) {
                Ok(Some((Frame::Quota { cfg_index, .. }, _))) => Some(cfg_index),
                _ => None,
            }
        };
        assert_eq!(told(&mut receiver), Some(1));
        // It is declared dead and comes back: what it may use is told by its new connection alone.
        node.absorb(&view(2, NodeState::Dead));
        node.absorb(&view(3, NodeState::Up));
        assert!(receiver.is_over());
        assert_eq!(told(&mut receiver), None, "a share of nothing would cost it its keys");
        let after = node.known_peer(&life("n2")).unwrap();
        let mut receiver = Receiver::welcome(node.clone(), after, Arc::default(), 0, Inbox::default());
        assert_eq!(told(&mut receiver), Some(3));
    }

    #[test]
    fn nobodys_keys_go_while_a_peer_makes_room() {
        let node = node();
        let replica = |id: &str| Replica { node: life(id), since: 1 };
        let held_by = |primary: &str, index: u64| SlotState {
            pterm: index,
            cver: index,
            phase: Phase::Serving,
            clean: true,
            primary: Some(life(primary)),
            insync: if primary == "n1" { vec![replica("n1")] } else { vec![replica("n1"), replica("n2")] },
            ..SlotState::default()
        };
        // It backs everything, so all its memory is the other's.
        let mut first = view(1, NodeState::Up);
        let range = |a: u16, b: u16, state| SlotRange { first: Slot(a), last: Slot(b), state };
        first.slots = vec![range(0, 16383, held_by("n2", 1))];
        node.absorb(&first);
        let peer = node.known_peer(&life("n2")).unwrap();
        assert_eq!(lock(&peer.quota).held, node.config.memory);
        // Then half of it is its own; until the other has made room, a shortage is no reason to drop anything.
        let mut second = view(2, NodeState::Up);
        second.slots = vec![range(0, 8191, held_by("n1", 2)), range(8192, 16383, held_by("n2", 1))];
        node.absorb(&second);
        let short = || {
            let slot = Slot(0);
            let need = |scope| move |_: Txn<'_>| Err(NeedRoom { bytes: 1, scope });
            let mut shard = lock(node.shard(slot));
            let own = shard.run(slot, node.turn(), &Arc::default(), need(Scope::Own));
            (own, shard.run(slot, node.turn(), &Arc::default(), need(Scope::Nobody)))
        };
        assert!(matches!(short(), (Ran::Park, Ran::Park)));
        let told = lock(&peer.quota).told;
        assert!(told < node.config.memory);
        node.on_quota_ack(&peer, told);
        assert!(matches!(short(), (Ran::Oom, Ran::Oom)), "now it is one");
        // While a view is taken in, what a peer grants by it may be too little for slots that have not come to it yet.
        node.budget.set_taking_in(true);
        assert!(matches!(short(), (Ran::Park, Ran::Park)));
        let group = |_: Txn<'_>| Err(NeedRoom { bytes: 1, scope: Scope::Group(peer.group) });
        let run = || lock(node.shard(Slot(0))).run(Slot(0), node.turn(), &Arc::default(), group);
        assert_eq!(run(), Ran::Park);
        node.budget.set_taking_in(false);
        assert_eq!(run(), Ran::Oom);
    }

    #[test]
    fn another_session_starts_anew_and_the_same_one_goes_on() {
        let node = node();
        node.absorb(&view(1, NodeState::Up));
        let peer = node.known_peer(&life("n2")).unwrap();
        let state: Arc<std::sync::Mutex<Inbound>> = Arc::default();
        let welcome = |acked: u64| {
            let r = Receiver::welcome(node.clone(), peer.clone(), state.clone(), acked, Inbox::default());
            match frame::take(&r.out) {
                Ok(Some((Frame::Welcome { received }, _))) => received,
                other => panic!("{other:?}"),
            }
        };
        let base = lock(&peer.queue).acked();
        assert_eq!(welcome(base), base, "nothing came yet");
        lock(&state).received = base + 57;
        assert_eq!(welcome(base + 40), base + 57, "acks were lost, frames were not");
        let mut next = Queue::default();
        next.begin(2);
        assert_eq!(welcome(next.acked()), next.acked(), "frames of the new session are not taken for old ones");
    }
}
