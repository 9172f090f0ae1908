//! The least recently used key goes first. Exact: a use takes the key to the new end of its slot's list.

use super::super::heap::Heap;
use super::{List, Policy};

/// Least recently used.
#[derive(Debug)]
pub struct Lru;

impl Policy for Lru {
    #[inline(always)]
    fn used(list: &mut List, heap: &mut Heap, at: u32) {
        list.renew(heap, at);
    }

    fn first(list: &List, _: &Heap) -> u32 {
        list.oldest()
    }

    fn choose(_: &mut List, _: &mut Heap, _: u32) {}
}
