//! The order of use of one slot's keys: a list through the items, exact.

use super::heap::{ACCESSED_END, Head, Heap, Link};
use super::pool::NIL;

/// Milliseconds per tick of the clock that last accesses are kept in. It goes round in 25 days; a key left alone for half of
/// that looks just used to other slots, which harms nobody: within a slot the order is exact.
pub const ACCESS_MS: u64 = 128;

/// That clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tick(pub u32);

impl Tick {
    /// Of a time on the TTL clock.
    pub fn of(mono_ms: u64) -> Self {
        Tick((mono_ms / ACCESS_MS) as u32 % ACCESSED_END)
    }

    /// Ticks since an access; none if that lies ahead.
    pub fn age_of(self, accessed: u32) -> u32 {
        let age = self.0.wrapping_sub(accessed) % ACCESSED_END;
        if age > ACCESSED_END / 2 { 0 } else { age }
    }
}

/// One slot's list.
#[derive(Debug, Clone, Copy)]
pub struct Lru {
    newest: u32,
    oldest: u32,
}

impl Default for Lru {
    fn default() -> Self {
        Self { newest: NIL, oldest: NIL }
    }
}

impl Lru {
    /// The least recently used item, or [`NIL`].
    pub fn oldest(&self) -> u32 {
        self.oldest
    }

    /// The most recently used item, or [`NIL`].
    pub fn newest(&self) -> u32 {
        self.newest
    }

    /// Puts an item in as the most recently used.
    pub fn push(&mut self, heap: &mut Heap, at: u32) {
        heap.set(at, Link::Newer, NIL);
        heap.set(at, Link::Older, self.newest);
        match std::mem::replace(&mut self.newest, at) {
            NIL => self.oldest = at,
            second => heap.set(second, Link::Newer, at),
        }
    }

    /// Takes an item out.
    pub fn unlink(&mut self, heap: &mut Heap, at: u32) {
        let Head { newer, older, .. } = heap.head(at);
        self.point(heap, (newer, older), (older, newer));
    }

    /// Makes an item the most recently used.
    pub fn bump(&mut self, heap: &mut Heap, at: u32) {
        if self.newest != at {
            self.unlink(heap, at);
            self.push(heap, at);
        }
    }

    /// An item has moved.
    pub fn relink(&mut self, heap: &mut Heap, to: u32) {
        let Head { newer, older, .. } = heap.head(to);
        self.point(heap, (newer, older), (to, to));
    }

    /// Makes the neighbours (or the ends) point elsewhere: what lies older of `newer`, what lies newer of `older`.
    fn point(&mut self, heap: &mut Heap, (newer, older): (u32, u32), (down, up): (u32, u32)) {
        match newer {
            NIL => self.newest = down,
            at => heap.set(at, Link::Older, down),
        }
        match older {
            NIL => self.oldest = up,
            at => heap.set(at, Link::Newer, up),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_exact() {
        let mut heap = Heap::default();
        let mut lru = Lru::default();
        let at: Vec<u32> = (0..4).map(|i| heap.insert((i, 0, 0), &[], &[], false)).collect();
        at.iter().for_each(|&i| lru.push(&mut heap, i));
        lru.bump(&mut heap, at[0]);
        lru.bump(&mut heap, at[0]);
        lru.bump(&mut heap, at[2]);
        lru.unlink(&mut heap, at[0]);
        let mut order = Vec::new();
        while lru.oldest() != NIL {
            let oldest = lru.oldest();
            order.push(heap.head(oldest).hash());
            lru.unlink(&mut heap, oldest);
        }
        assert_eq!(order, [1, 3, 2]);
        assert_eq!(lru.newest, NIL);
    }
}
