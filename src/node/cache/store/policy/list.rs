//! One slot's keys in a row, through the items: what all policies keep their order in.

use super::super::heap::{Head, Heap, Link};
use super::super::pool::NIL;

/// One slot's list.
#[derive(Debug, Clone, Copy)]
pub struct List {
    newest: u32,
    oldest: u32,
    /// Where a policy that walks along the list is; [`NIL`] = it begins at the oldest.
    pub hand: u32,
}

impl Default for List {
    fn default() -> Self {
        Self { newest: NIL, oldest: NIL, hand: NIL }
    }
}

impl List {
    /// The item at the old end, or [`NIL`].
    pub fn oldest(&self) -> u32 {
        self.oldest
    }

    /// The item at the new end, or [`NIL`].
    pub fn newest(&self) -> u32 {
        self.newest
    }

    /// Puts an item in at the new end.
    pub fn push(&mut self, heap: &mut Heap, at: u32) {
        heap.set(at, Link::Newer, NIL);
        heap.set(at, Link::Older, self.newest);
        match std::mem::replace(&mut self.newest, at) {
            NIL => self.oldest = at,
            second => heap.set(second, Link::Newer, at),
        }
    }

    /// Takes an item out. A hand that points at it moves on to the next newer one.
    pub fn unlink(&mut self, heap: &mut Heap, at: u32) {
        let Head { newer, older, .. } = heap.head(at);
        if self.hand == at {
            self.hand = newer;
        }
        self.point(heap, (newer, older), (older, newer));
    }

    /// Takes an item to the new end.
    pub fn renew(&mut self, heap: &mut Heap, at: u32) {
        if self.newest != at {
            self.unlink(heap, at);
            self.push(heap, at);
        }
    }

    /// An item has moved.
    pub fn relink(&mut self, heap: &mut Heap, from: u32, to: u32) {
        let Head { newer, older, .. } = heap.head(to);
        if self.hand == from {
            self.hand = to;
        }
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
    fn a_hand_follows_what_moves_and_passes_what_goes() {
        let mut heap = Heap::default();
        let mut list = List::default();
        let at: Vec<u32> = (0..3).map(|i| heap.insert((i, 0, 0), &[], &[], false)).collect();
        at.iter().for_each(|&i| list.push(&mut heap, i));
        list.hand = at[1];
        list.unlink(&mut heap, at[0]);
        assert_eq!(list.hand, at[1]);
        list.unlink(&mut heap, at[1]);
        assert_eq!(list.hand, at[2]);
        list.unlink(&mut heap, at[2]);
        assert_eq!(list.hand, NIL);
    }

    #[test]
    fn the_order_is_exact() {
        let mut heap = Heap::default();
        let mut list = List::default();
        let at: Vec<u32> = (0..4).map(|i| heap.insert((i, 0, 0), &[], &[], false)).collect();
        at.iter().for_each(|&i| list.push(&mut heap, i));
        list.renew(&mut heap, at[0]);
        list.renew(&mut heap, at[0]);
        list.renew(&mut heap, at[2]);
        list.unlink(&mut heap, at[0]);
        let mut order = Vec::new();
        while list.oldest() != NIL {
            let oldest = list.oldest();
            order.push(heap.head(oldest).hash());
            list.unlink(&mut heap, oldest);
        }
        assert_eq!(order, [1, 3, 2]);
        assert_eq!(list.newest, NIL);
    }
}
