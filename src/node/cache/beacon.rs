//! Leases: a beacon every 100 ms on a connection of its own, so that data cannot delay it, and at once when a view changes.
//! Runs on the control thread, as configurations do: an answer never claims a view that some slot has not taken in yet.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

use super::node::Node;
use super::peer::PeerRef;
use super::wire::{self, Inbox};
use crate::node::clock::Mono;
use crate::proto::frame::{Frame, Purpose};
use crate::proto::id::Ref;

/// Between two beacons.
pub const BEACON_EVERY: Duration = Duration::from_millis(100);
/// An answer that takes longer is of no use: the lease it would grant is over.
pub const ANSWER_MAX: Duration = Duration::from_millis(super::slot::LEASE_MS);
/// Who is behind gets the view from the masters as a rule; a peer is asked for it after so long. It costs both of them a
/// moment in which clients wait, for every two nodes that are not at the same view.
pub const PULL_AFTER: Duration = Duration::from_millis(20);
/// Between two dials.
pub const REDIAL: Duration = Duration::from_millis(50);

/// Asks a peer for its lease for as long as it is a member.
pub async fn run(node: Arc<Node>, peer: PeerRef) {
    while !peer.gone.load(Ordering::Acquire) {
        if let Err(e) = ask(&node, &peer).await {
            debug!(peer = %peer.node, error = %e, "no beacon");
        }
        sleep(REDIAL).await;
    }
}

async fn ask(node: &Node, peer: &PeerRef) -> io::Result<()> {
    let hello = Frame::Hello {
        cluster: node.cluster(),
        from: node.me.clone(),
        to: peer.node.clone(),
        purpose: Purpose::Beacon,
        acked: 0,
    };
    let mut stream = wire::dial(&peer.addr, &hello).await?;
    let mut inbox = Inbox::default();
    let mut n = 0;
    loop {
        if peer.gone.load(Ordering::Acquire) {
            return Ok(());
        }
        n += 1;
        let begun = Instant::now();
        let cfg_index = *node.cfg_index.borrow();
        let sent = Mono::now();
        wire::send(&mut stream, &Frame::Beacon { n, cfg_index }).await?;
        let answer = timeout(ANSWER_MAX, answer(node, &mut stream, &mut inbox, n));
        let granted = answer.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        if !take_answer(node, peer, sent, granted) {
            if node.reaches(granted, PULL_AFTER).await {
                continue;
            }
            wire::send(&mut stream, &Frame::Pull { have: *node.cfg_index.borrow() }).await?;
            let pulled = timeout(ANSWER_MAX, view(node, &mut stream, &mut inbox));
            pulled.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            continue;
        }
        let rest = BEACON_EVERY.saturating_sub(begun.elapsed());
        let _ = timeout(rest, peer.beacon_wake.notified()).await;
    }
}

/// Takes the answer to a beacon that left at `sent`. False: the peer knows more than this node, and an answer above the own
/// view counts for nothing; its view is to be taken first.
pub fn take_answer(node: &Node, peer: &PeerRef, sent: Mono, cfg_index: u64) -> bool {
    if cfg_index > *node.cfg_index.borrow() {
        return false;
    }
    if peer.granted(sent, cfg_index, Mono::now()) {
        node.clients.nudge_all();
        peer.copy_wake.notify_one();
    }
    true
}

/// Promises what a beacon asks for; what to answer. None: no promise, hence no lease. The view must be taken in before this is
/// answered, and where the sender stands at least reached.
pub fn give_promise(node: &Node, from: &Ref) -> Option<u64> {
    // A peer this node does not hold a record of gets none.
    let peer = node.known_peer(from)?;
    if node.stopped.load(Ordering::Acquire) {
        return None;
    }
    peer.promise(Mono::now());
    Some(*node.cfg_index.borrow())
}

/// Waits for the answer to beacon `n`; the peer may pull this node's view before it answers.
async fn answer(node: &Node, stream: &mut TcpStream, inbox: &mut Inbox, n: u64) -> io::Result<u64> {
    loop {
        match inbox.frame().map_err(io::Error::other)? {
            Some(Frame::BeaconAck { n: of, cfg_index }) if of == n => return Ok(cfg_index),
            Some(Frame::Pull { have }) => send_view(node, stream, have).await?,
            Some(Frame::Unwelcome) => return Err(wire::refused("unwelcome")),
            Some(_) => {}
            None => inbox.fill(stream).await?,
        }
    }
}

async fn view(node: &Node, stream: &mut TcpStream, inbox: &mut Inbox) -> io::Result<()> {
    loop {
        match inbox.frame().map_err(io::Error::other)? {
            Some(Frame::View(json)) => {
                let view = serde_json::from_slice(json).map_err(io::Error::other)?;
                node.absorb(&view);
                return Ok(());
            }
            Some(_) => {}
            None => inbox.fill(stream).await?,
        }
    }
}

async fn send_view(node: &Node, stream: &mut TcpStream, have: u64) -> io::Result<()> {
    let view = node.view();
    // A delta needs exactly its base, and only the asker knows whether it has it: it says so.
    let json = serde_json::to_vec(&view.since(have)).map_err(io::Error::other)?;
    wire::send(stream, &Frame::View(&json)).await
}

/// Answers one peer's beacons.
pub async fn serve(node: Arc<Node>, from: Ref, mut stream: TcpStream, mut inbox: Inbox) {
    if let Err(e) = promise(&node, &from, &mut stream, &mut inbox).await {
        debug!(peer = %from, error = %e, "beacons ended");
    }
}

async fn promise(node: &Node, from: &Ref, stream: &mut TcpStream, inbox: &mut Inbox) -> io::Result<()> {
    loop {
        let asked = match inbox.frame().map_err(io::Error::other)? {
            Some(Frame::Beacon { n, cfg_index }) => Some((n, cfg_index)),
            Some(Frame::Pull { have }) => {
                send_view(node, stream, have).await?;
                None
            }
            Some(_) => None,
            None => {
                inbox.fill(stream).await?;
                None
            }
        };
        let Some((n, cfg_index)) = asked else { continue };
        if !node.reaches(cfg_index, PULL_AFTER).await {
            // Behind: pull from the one that showed it, then answer.
            let have = *node.cfg_index.borrow();
            wire::send(stream, &Frame::Pull { have }).await?;
            timeout(ANSWER_MAX, view(node, stream, inbox))
                .await
                .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        }
        let Some(cfg_index) = give_promise(node, from) else { continue };
        wire::send(stream, &Frame::BeaconAck { n, cfg_index }).await?;
    }
}
