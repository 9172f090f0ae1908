//! Copies slots to a learner, a window at a time, in the one ordered stream that carries live items too; paced, so that the
//! clients of both ends notice little of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::node::Node;
use super::peer::PeerRef;
use super::shard::lock;

/// How often copies that wait for a lease or for quota are tried again.
const RETRY: Duration = Duration::from_millis(20);

/// A copy rests after so many bytes, so that clients of either end never wait for more than this in front of them.
const BURST_BYTES: u64 = 16 << 10;
/// For so long: with the burst above, at most 16 MiB a second to a peer.
const REST: Duration = Duration::from_millis(1);

/// Runs for as long as the peer is a member.
pub async fn run(node: Arc<Node>, peer: PeerRef) {
    let mut rested_at = 0;
    while !peer.gone.load(Ordering::Acquire) {
        let waiting = !lock(&peer.uncounted).is_empty();
        let job = may_open(&node, &peer).then(|| lock(&peer.jobs).pop_front()).flatten();
        let Some(slot) = job else {
            let idle = if waiting || !lock(&peer.jobs).is_empty() { RETRY } else { Duration::from_secs(1) };
            let _ = timeout(idle, peer.copy_wake.notified()).await;
            count_again(&node, &peer);
            continue;
        };
        room(&peer).await;
        let opened = lock(node.shard(slot)).open_copy(slot, &peer);
        let Some(stream) = opened else { continue };
        let mut cursor = 0;
        loop {
            let next = lock(node.shard(slot)).copy_chunk(&peer, &stream, cursor);
            match next {
                Some(0) | None => {
                    pace(&peer, &mut rested_at).await;
                    break;
                }
                Some(next) => cursor = next,
            }
            pace(&peer, &mut rested_at).await;
        }
    }
}

/// Whether the peer has shared out its memory by this view and what is to be copied fits: a copy reserves before it sends.
fn may_open(node: &Node, peer: &PeerRef) -> bool {
    let credit = *lock(&peer.credit);
    credit.cfg_index >= *node.cfg_index.borrow() && node.budget.group_used(peer.group) <= credit.bytes
}

/// Lets clients go first: always a turn of the loop, and a rest after each burst.
async fn pace(peer: &PeerRef, rested_at: &mut u64) {
    let copied = peer.copied.bytes.load(Ordering::Relaxed);
    if copied.saturating_sub(*rested_at) >= BURST_BYTES {
        *rested_at = copied;
        sleep(REST).await;
    } else {
        tokio::task::yield_now().await;
    }
    room(peer).await;
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
