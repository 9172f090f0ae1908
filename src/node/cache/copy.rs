//! Copies slots to a learner, a window at a time, in the one ordered stream that carries live items too.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::timeout;

use super::node::Node;
use super::peer::PeerRef;
use super::shard::lock;

/// How often copies that wait for a lease or for quota are tried again.
const RETRY: Duration = Duration::from_millis(20);

/// Runs for as long as the peer is a member.
pub async fn run(node: Arc<Node>, peer: PeerRef) {
    while !peer.gone.load(Ordering::Acquire) {
        let waiting = !lock(&peer.uncounted).is_empty();
        let job = peer.quota_known.load(Ordering::Acquire).then(|| lock(&peer.jobs).pop_front()).flatten();
        let Some(slot) = job else {
            let idle = if waiting || !lock(&peer.jobs).is_empty() { RETRY } else { Duration::from_secs(1) };
            let _ = timeout(idle, peer.copy_wake.notified()).await;
            count_again(&node, &peer);
            continue;
        };
        room(&peer).await;
        let turn = node.turn();
        let opened = {
            let mut shard = lock(node.shard(slot));
            // The slot's bytes count against the peer's quota from here on.
            shard.shrink(turn, usize::MAX);
            shard.open_copy(slot, &peer)
        };
        let Some(stream) = opened else { continue };
        let mut cursor = 0;
        loop {
            let next = lock(node.shard(slot)).copy_chunk(&peer, &stream, cursor);
            match next {
                Some(0) | None => break,
                Some(next) => cursor = next,
            }
            room(&peer).await;
            tokio::task::yield_now().await;
        }
    }
}

/// Waits until another chunk may be on its way.
async fn room(peer: &PeerRef) {
    while !lock(&peer.queue).copy_room() && !peer.gone.load(Ordering::Acquire) {
        let _ = timeout(RETRY, peer.copy_wake.notified()).await;
    }
}

fn count_again(node: &Node, peer: &PeerRef) {
    let streams = std::mem::take(&mut *lock(&peer.uncounted));
    let turn = node.turn();
    for stream in streams {
        if !lock(node.shard(stream.slot)).count(peer, &stream, turn) {
            lock(&peer.uncounted).push(stream);
        }
    }
}
