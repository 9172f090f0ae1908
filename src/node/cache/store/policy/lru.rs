//! The least recently used key goes first. A use takes the key to the new end of its slot's list, but only the first use in a
//! window of time ([`Store::pace`](super::super::Store::pace) says how long they are): a hit on a key that is asked for all the time
//! writes to that key alone and needs no memory of its neighbours. A key that comes to the old end with a time of last use that is
//! newer than its neighbour's was used when windows were long, and is taken to the new end there.

use super::super::heap::Heap;
use super::super::pool::NIL;
use super::{List, Policy, Tick};

/// Keys taken from the old end to the new one per look at a slot at most: they are spread over many looks, and nobody waits long.
pub const RENEWED_MAX: usize = 8;

/// Least recently used.
#[derive(Debug)]
pub struct Lru;

impl Policy for Lru {
    #[inline(always)]
    fn used(list: &mut List, heap: &mut Heap, at: u32, late: bool) -> bool {
        if late {
            list.renew(heap, at);
        }
        late
    }

    fn first(list: &mut List, heap: &mut Heap, tick: Tick, mut renewed: impl FnMut(u32)) -> u32 {
        for _ in 0..RENEWED_MAX {
            let at = list.oldest();
            if at == NIL {
                break;
            }
            let head = heap.head(at);
            let age = tick.age_of(head.accessed());
            if head.newer == NIL || age >= tick.age_of(heap.head(head.newer).accessed()) {
                break;
            }
            list.renew(heap, at);
            renewed(at);
        }
        list.oldest()
    }

    fn choose(_: &mut List, _: &mut Heap, _: u32) {}
}
