//! Copies slots to a learner, a window at a time, in the one ordered stream that carries live items too; paced, so that the
//! clients of both ends notice little of it.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};

use super::node::Node;
use super::peer::PeerRef;
use super::shard::lock;
use crate::proto::frame::Stream;

/// How often copies that wait for a lease or for quota are tried again.
const RETRY: Duration = Duration::from_millis(20);

/// Where clients are served a copy rests after so many bytes, on average, so that they never wait for much more than this in front
/// of them.
const BURST_BYTES: u64 = 16 << 10;

/// The pace of all copies that leave a thread. Whoever rests holds it, so that their bursts come one by one and never in a row.
pub type Paced = Rc<Mutex<Pace>>;

/// Runs for as long as the peer is a member.
pub async fn run(node: Arc<Node>, peer: PeerRef, paced: Paced) {
    let mut copying = Copying::default();
    let mut demand = Demand::default();
    let mut rested_at = 0;
    while !peer.gone.load(Ordering::Acquire) {
        match copying.step(&node, &peer) {
            Step::Sent => {
                node.counters.copies.fetch_add(1, Ordering::Relaxed);
                let copied = peer.copied.bytes.load(Ordering::Relaxed);
                let is_asked = demand.is_there(node.counters.commands.get(), Instant::now());
                if copied.saturating_sub(rested_at) >= BURST_BYTES && is_asked {
                    // What was too much this time is less the next; what was copied while nobody asked is not made up for.
                    rested_at = (rested_at + BURST_BYTES).max(copied.saturating_sub(BURST_BYTES));
                    let mut pace = paced.lock().await;
                    let (rest, began) = (pace.rest(), Instant::now());
                    sleep(rest).await;
                    pace.rested(rest, began.elapsed());
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

/// How long a thread rests between two bursts of its copies where clients ask something: the longer the later it gets to run, for
/// its clients wait as long. Grows by half of itself at once and shrinks slowly, as a sender's window does the other way round.
#[derive(Debug)]
pub struct Pace {
    rest_ms: u64,
    /// Rests in a row that were not late.
    in_time: u32,
}

/// The shortest rest, milliseconds: with the burst above, at most 8 MiB a second from a thread.
const REST_MIN_MS: u64 = 2;
/// The longest: copying never stops.
const REST_MAX_MS: u64 = 32;
/// A rest that took so much longer than asked for was late: a timer's rounding, and half of what clients may wait.
const LATE: Duration = Duration::from_micros(2000);
/// After so many rests in time they get shorter.
const IN_TIME: u32 = 4;
/// Without a command for so long nobody asks anything.
const QUIET: Duration = Duration::from_millis(100);

/// Whether clients ask anything at all: only for them is work in the background spread out.
#[derive(Debug, Default)]
pub struct Demand {
    commands: u64,
    asked: Option<Instant>,
}

impl Demand {
    /// `commands` is how many were served so far.
    pub fn is_there(&mut self, commands: u64, now: Instant) -> bool {
        if commands != self.commands {
            self.commands = commands;
            self.asked = Some(now);
        }
        self.asked.is_some_and(|at| now.duration_since(at) < QUIET)
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self { rest_ms: REST_MIN_MS, in_time: 0 }
    }
}

impl Pace {
    /// How long to rest now.
    pub fn rest(&self) -> Duration {
        Duration::from_millis(self.rest_ms)
    }

    /// A rest took so long.
    pub fn rested(&mut self, asked: Duration, took: Duration) {
        if took > asked + LATE {
            self.in_time = 0;
            self.rest_ms = (self.rest_ms + self.rest_ms.div_ceil(2)).min(REST_MAX_MS);
        } else {
            self.in_time += 1;
            if self.in_time >= IN_TIME {
                self.in_time = 0;
                self.rest_ms = (self.rest_ms - 1).max(REST_MIN_MS);
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

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn copies_rest_for_clients_and_for_nobody_else() {
        let mut demand = Demand::default();
        let start = Instant::now();
        assert!(!demand.is_there(0, start));
        assert!(demand.is_there(1, start));
        assert!(demand.is_there(1, start + QUIET / 2));
        assert!(!demand.is_there(1, start + QUIET));
    }

    #[test]
    fn rests_grow_fast_and_shrink_slowly_within_their_bounds() {
        let mut pace = Pace::default();
        let mut rests = Vec::new();
        for _ in 0..10 {
            let rest = pace.rest();
            rests.push(rest);
            pace.rested(rest, rest + LATE + MS);
        }
        assert_eq!(rests.iter().map(Duration::as_millis).collect::<Vec<_>>(), [2, 3, 5, 8, 12, 18, 27, 32, 32, 32]);
        for _ in 0..IN_TIME * REST_MAX_MS as u32 {
            pace.rested(MS, MS + LATE);
        }
        assert_eq!(pace.rest(), MS * 2);
    }
}
