//! SIEVE (Zhang et al., NSDI 2024): keys stay in the order they came in; a use only marks one. A hand walks from the oldest to the
//! newest and round again: it spares what is marked, once, and the first that is not marked goes. What came last and was never
//! asked for again goes soon, what is asked for stays, and a hit changes nothing but the item itself.

use super::super::heap::Heap;
use super::super::pool::NIL;
use super::{List, Policy, Tick};

/// A hand passes so many marked keys at most for one that goes; then the one it has reached goes, marked or not. Else the first
/// eviction after all keys of a slot were used would look at each of them.
const PASSED_MAX: usize = 256;

/// SIEVE.
#[derive(Debug)]
pub struct Sieve;

impl Policy for Sieve {
    #[inline(always)]
    fn used(_: &mut List, heap: &mut Heap, at: u32, late: bool) -> bool {
        let known = heap.head(at).marked();
        if !known {
            heap.set_marked(at, true);
        }
        late || !known
    }

    fn first(list: &mut List, heap: &mut Heap, _: Tick, _: impl FnMut(u32)) -> u32 {
        let mut at = start(list);
        for _ in 0..PASSED_MAX {
            if at == NIL || !heap.head(at).marked() {
                break;
            }
            at = after(list, heap, at);
        }
        at
    }

    fn choose(list: &mut List, heap: &mut Heap, at: u32) {
        let mut passed = start(list);
        while passed != at && passed != NIL {
            heap.set_marked(passed, false);
            passed = after(list, heap, passed);
        }
        list.hand = at;
    }
}

fn start(list: &List) -> u32 {
    if list.hand == NIL { list.oldest() } else { list.hand }
}

/// The next newer one, or the oldest after the newest.
fn after(list: &List, heap: &Heap, at: u32) -> u32 {
    match heap.head(at).newer {
        NIL => list.oldest(),
        newer => newer,
    }
}
