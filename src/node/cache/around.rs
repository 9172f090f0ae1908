//! What connections of a thread that read a single command each do for one another: what their keys need of memory is asked for
//! together, as a pipeline's is.

use std::cell::RefCell;
use std::future::poll_fn;
use std::task::Poll;

use super::node::Node;
use super::store::{WARM_MAX, Wanted};
use crate::proto::slot::Slot;

/// Connections that wait for each other at most, and the longest key they do it for, bytes.
const AROUND_MAX: usize = 64;
const AROUND_KEY_MAX: usize = 256;
/// Who waited for others in vain or saw a pipeline: so many turns of this thread's connections go without.
const ALONE_TURNS: u32 = 64;

thread_local! {
    static AROUND: RefCell<Around> = RefCell::default();
}

/// Keys that connections of a thread have read commands for and not run yet: what they need of memory is asked for together,
/// as a pipeline's is.
#[derive(Default)]
struct Around {
    /// Slots, and where keys end in `bytes`.
    keys: Vec<(Slot, usize)>,
    bytes: Vec<u8>,
    /// So many turns nobody waits for others: the last who did was alone, or others run pipelines.
    alone: u32,
}

/// Pipelines run on this thread: the end of the line is far behind them.
pub fn pipelines_run() {
    AROUND.with_borrow_mut(|around| around.alone = ALONE_TURNS);
}

/// Notes the key of a command that was read; whether it is worth waiting for others.
pub fn note(slot: Slot, key: &[u8]) -> bool {
    AROUND.with_borrow_mut(|around| {
        around.alone = around.alone.saturating_sub(1);
        let worth = around.alone == 0 && key.len() <= AROUND_KEY_MAX && around.keys.len() < AROUND_MAX;
        if worth {
            around.bytes.extend_from_slice(key);
            around.keys.push((slot, around.bytes.len()));
        }
        worth
    })
}

/// Lets those connections of the thread go first that can do something.
pub async fn others_first() {
    let mut waited = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        // To the end of the line; what there is of events need not be looked at again for that.
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Asks for what the wanted keys need, for the first who is back: the others find nothing to do.
pub fn warm_wanted(node: &Node) {
    AROUND.with_borrow_mut(|around| {
        let Around { keys, bytes, alone } = around;
        if keys.len() == 1 {
            *alone = ALONE_TURNS;
        } else {
            let mut from = 0;
            let mut wanted = [Wanted::NONE; WARM_MAX];
            for batch in keys.chunks(WARM_MAX) {
                for (to, &(slot, end)) in wanted.iter_mut().zip(batch) {
                    *to = Wanted::new(0, slot, &bytes[from..end]);
                    from = end;
                }
                node.warm(&mut wanted[..batch.len()]);
            }
        }
        keys.clear();
        bytes.clear();
    });
}
