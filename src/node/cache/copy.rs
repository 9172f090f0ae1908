//! Copies slots to a learner, a window at a time, in the one ordered stream that carries live items too; paced, so that the
//! clients of both ends notice little of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::node::Node;
use super::peer::PeerRef;
use super::shard::lock;
use crate::proto::frame::Stream;

/// How often copies that wait for a lease or for quota are tried again.
const RETRY: Duration = Duration::from_millis(20);

/// A copy rests after so many bytes, so that clients of either end never wait for more than this in front of them.
const BURST_BYTES: u64 = 16 << 10;
/// For so long: with the burst above, at most 16 MiB a second to a peer.
const REST: Duration = Duration::from_millis(1);

/// Runs for as long as the peer is a member.
pub async fn run(node: Arc<Node>, peer: PeerRef) {
    let mut copying = Copying::default();
    let mut rested_at = 0;
    while !peer.gone.load(Ordering::Acquire) {
        match copying.step(&node, &peer) {
            Step::Sent => {
                let copied = peer.copied.bytes.load(Ordering::Relaxed);
                if copied.saturating_sub(rested_at) >= BURST_BYTES {
                    rested_at = copied;
                    sleep(REST).await;
                } else {
                    tokio::task::yield_now().await;
                }
            }
            Step::Full => drop(timeout(RETRY, peer.copy_wake.notified()).await),
            Step::Idle { soon } => {
                let idle = if soon { RETRY } else { Duration::from_secs(1) };
                drop(timeout(idle, peer.copy_wake.notified()).await);
                count_again(&node, &peer);
            }
        }
    }
}

/// The copies to one peer, one slot after another. No I/O: chunks go into the peer's queue.
#[derive(Debug, Default)]
pub struct Copying {
    /// The slot being copied, and how far it is.
    current: Option<(Stream, u64)>,
}

/// What one step of copying came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Something was queued, or skipped.
    Sent,
    /// The window is full.
    Full,
    /// Nothing may be copied now.
    Idle {
        /// Something waits for a lease or for quota.
        soon: bool,
    },
}

impl Copying {
    /// Opens the next copy or queues its next chunk.
    pub fn step(&mut self, node: &Node, peer: &PeerRef) -> Step {
        let room = lock(&peer.queue).copy_room();
        if let Some((stream, cursor)) = self.current {
            if !room {
                return Step::Full;
            }
            let next = lock(node.shard(stream.slot)).copy_chunk(peer, &stream, cursor);
            self.current = next.filter(|next| *next != 0).map(|next| (stream, next));
            return Step::Sent;
        }
        let waiting = !lock(&peer.uncounted).is_empty();
        if !may_open(node, peer) || lock(&peer.jobs).is_empty() {
            return Step::Idle { soon: waiting || !lock(&peer.jobs).is_empty() };
        }
        if !room {
            return Step::Full;
        }
        if let Some(slot) = lock(&peer.jobs).pop_front() {
            let opened = lock(node.shard(slot)).open_copy(slot, peer);
            self.current = opened.map(|stream| (stream, 0));
        }
        Step::Sent
    }
}

/// Whether the peer has shared out its memory by this view and what is to be copied fits: a copy reserves before it sends.
fn may_open(node: &Node, peer: &PeerRef) -> bool {
    let credit = *lock(&peer.credit);
    credit.cfg_index >= *node.cfg_index.borrow() && node.budget.group_used(peer.group) <= credit.bytes
}

/// Counts learners whose copy arrived before their lease was held.
pub fn count_again(node: &Node, peer: &PeerRef) {
    let streams = std::mem::take(&mut *lock(&peer.uncounted));
    let turn = node.turn();
    for stream in streams {
        if !lock(node.shard(stream.slot)).count(peer, &stream, turn) {
            lock(&peer.uncounted).push(stream);
        }
    }
}
