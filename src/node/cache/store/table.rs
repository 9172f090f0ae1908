//! One slot's hash index: buckets of `u32` chains through the items, grown and shrunk one bucket at a time (linear hashing,
//! Litwin 1980), so that no write ever pays for a whole table.
//!
//! A table of `n` buckets, `p` the largest power of two not above `n`: bucket `b < n - p` is split, its other half is `b + p`.
//! The cursor walks the `p` unsplit buckets in the order of their reversed bits, as Redis's SCAN does, so that what was
//! visited stays a range of reversed hashes however the table grows and shrinks: nothing that stays is missed.

use super::heap::{HASH_BITS, Heap, Link};
use super::pool::NIL;
use super::prefetch;

/// Buckets that are never given up while the slot has keys.
const BUCKETS_MIN: usize = 4;
/// More than hashes tell apart would stay empty.
const BUCKETS_MAX: usize = 1 << HASH_BITS;
/// Cache lines of an item that a walk asks for ahead.
const SCAN_LINES: usize = 3;
/// Buckets ahead of the one being drained whose first items are asked for.
const DRAIN_AHEAD: usize = 8;
/// Buckets are reserved a quarter at a time: reallocation stays rare, and little is reserved in vain.
const RESERVE_DIVISOR: usize = 4;

/// The index. Empty, it owns no memory.
#[derive(Debug, Default)]
pub struct Table {
    buckets: Vec<u32>,
}

fn bucket(n: usize, hash: u32) -> usize {
    let mask = n.next_power_of_two() - 1;
    let b = hash as usize & mask;
    if b < n { b } else { b & (mask >> 1) }
}

/// Of a table of `n` buckets: those that a cursor stands for (the second need not be there), and the cursor after it.
fn visited(n: usize, cursor: u64) -> ([usize; 2], u64) {
    let p = 1usize << n.ilog2();
    let cursor = cursor as u32;
    let low = cursor as usize & (p - 1);
    let mask = (p - 1) as u32;
    ([low, low + p], u64::from((cursor | !mask).reverse_bits().wrapping_add(1).reverse_bits()))
}

impl Table {
    /// Asks for the bucket of this hash ahead of its use.
    pub fn prefetch(&self, hash: u32) {
        if !self.buckets.is_empty() {
            prefetch::one(&self.buckets[bucket(self.buckets.len(), hash)]);
        }
    }

    /// Asks for the bucket that the next new key splits, and for where its other half goes.
    pub fn prefetch_split(&self) {
        if let (Some(bucket), Some(last)) = (self.buckets.get(self.split_at()), self.buckets.last()) {
            prefetch::one(bucket);
            prefetch::one(last);
        }
    }

    /// The first item in that bucket, or [`NIL`].
    pub fn next_split(&self) -> u32 {
        self.buckets.get(self.split_at()).copied().unwrap_or(NIL)
    }

    fn split_at(&self) -> usize {
        let n = self.buckets.len();
        n.checked_ilog2().map_or(0, |log| n - (1 << log))
    }

    /// The first item where one of this hash would be, or [`NIL`].
    pub fn first(&self, hash: u32) -> u32 {
        if self.buckets.is_empty() { NIL } else { self.buckets[bucket(self.buckets.len(), hash)] }
    }

    /// Puts an item in; `keys` counts it already.
    pub fn link(&mut self, heap: &mut Heap, at: u32, keys: u32) {
        if self.buckets.len() < (keys as usize).clamp(BUCKETS_MIN, BUCKETS_MAX) {
            self.split(heap);
        }
        let b = bucket(self.buckets.len(), heap.head(at).hash());
        heap.set(at, Link::Chain, std::mem::replace(&mut self.buckets[b], at));
    }

    /// Takes an item out; `keys` doesn't count it any more.
    pub fn unlink(&mut self, heap: &mut Heap, at: u32, keys: u32) {
        let head = heap.head(at);
        self.point_from(heap, at, head.hash(), head.chain);
        if keys == 0 {
            self.buckets = Vec::new();
        } else {
            // Two, as the bound falls by two.
            for _ in 0..2 {
                if self.buckets.len() > BUCKETS_MIN.max(2 * keys as usize) {
                    self.merge(heap);
                }
            }
        }
    }

    /// Takes out the next item of a table that nobody looks keys up in any more, or [`NIL`]; buckets before `cursor` are empty. What
    /// is left can still move.
    pub fn drain(&mut self, heap: &Heap, cursor: &mut usize) -> u32 {
        if *cursor == 0 {
            self.buckets.iter().take(DRAIN_AHEAD).for_each(|&at| heap.prefetch(at, 1));
        }
        while let Some(&at) = self.buckets.get(*cursor) {
            if at != NIL {
                self.buckets[*cursor] = heap.head(at).chain;
                return at;
            }
            *cursor += 1;
            if let Some(&ahead) = self.buckets.get(*cursor + DRAIN_AHEAD) {
                heap.prefetch(ahead, 1);
            }
        }
        NIL
    }

    /// An item has moved.
    pub fn relink(&mut self, heap: &mut Heap, from: u32, to: u32) {
        self.point_from(heap, from, heap.head(to).hash(), to);
    }

    /// Makes what points at an item (its bucket or its neighbour) point elsewhere.
    fn point_from(&mut self, heap: &mut Heap, at: u32, hash: u32, to: u32) {
        let b = bucket(self.buckets.len(), hash);
        let (mut before, mut next) = (NIL, self.buckets[b]);
        while next != at {
            before = next;
            next = heap.head(next).chain;
        }
        if before == NIL {
            self.buckets[b] = to;
        } else {
            heap.set(before, Link::Chain, to);
        }
    }

    /// Adds a bucket and moves there what belongs there.
    fn split(&mut self, heap: &mut Heap) {
        let n = self.buckets.len();
        if n == self.buckets.capacity() {
            self.buckets.reserve_exact((n / RESERVE_DIVISOR).max(BUCKETS_MIN));
        }
        let low = self.split_at();
        self.buckets.push(NIL);
        if n == 0 {
            return;
        }
        let mut at = std::mem::replace(&mut self.buckets[low], NIL);
        while at != NIL {
            let head = heap.head(at);
            let b = bucket(n + 1, head.hash());
            heap.set(at, Link::Chain, std::mem::replace(&mut self.buckets[b], at));
            at = head.chain;
        }
    }

    /// Removes the last bucket and moves what is in it to where it came from.
    fn merge(&mut self, heap: &mut Heap) {
        let Some(mut at) = self.buckets.pop() else { return };
        let n = self.buckets.len();
        let low = n - (1 << n.ilog2());
        while at != NIL {
            let next = heap.head(at).chain;
            heap.set(at, Link::Chain, std::mem::replace(&mut self.buckets[low], at));
            at = next;
        }
        if self.buckets.capacity() > 2 * n {
            self.buckets.shrink_to(n + n / RESERVE_DIVISOR);
        }
    }

    /// Asks for the first items of the buckets that `cursor` stands for; the next cursor.
    pub fn prefetch_at(&self, heap: &Heap, cursor: u64) -> u64 {
        let n = self.buckets.len();
        if n == 0 {
            return 0;
        }
        let (buckets, next) = visited(n, cursor);
        buckets.into_iter().filter_map(|b| self.buckets.get(b)).for_each(|&at| heap.prefetch(at, SCAN_LINES));
        next
    }

    /// Calls `each` with every item of the buckets that `cursor` stands for; the next cursor, 0 after the last.
    pub fn visit(&self, heap: &Heap, cursor: u64, mut each: impl FnMut(u32)) -> u64 {
        let n = self.buckets.len();
        if n == 0 {
            return 0;
        }
        let (buckets, next) = visited(n, cursor);
        for b in buckets {
            let mut at = self.buckets.get(b).copied().unwrap_or(NIL);
            while at != NIL {
                each(at);
                at = heap.head(at).chain;
            }
        }
        next
    }

    /// The first item at or after a bucket drawn by `random`.
    pub fn pick(&self, random: u64) -> Option<u32> {
        let n = self.buckets.len();
        let from = super::evict::below(random, n);
        (from..n).chain(0..from).map(|b| self.buckets[b]).find(|&at| at != NIL)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    fn spread(id: u32) -> u32 {
        // A permutation of what is kept of a hash, so that ids have different hashes that collide in buckets.
        (id ^ (id >> 12)).wrapping_mul(0x6b_352d) & ((1 << HASH_BITS) - 1)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]
        /// Everything that is there from a scan's start to its end is seen, whatever comes and goes between its steps.
        #[test]
        fn a_scan_misses_nothing_that_stays(start in 0u32..400, phases in prop::collection::vec((any::<bool>(), 0u32..120), 1..80)) {
            let (mut table, mut heap) = (Table::default(), Heap::default());
            let mut at_of = BTreeMap::new();
            let mut next = 0;
            let mut add = |table: &mut Table, heap: &mut Heap, at_of: &mut BTreeMap<u32, u32>| {
                let at = heap.insert((spread(next), 0, 0), &[], &[], false);
                at_of.insert(next, at);
                table.link(heap, at, at_of.len() as u32);
                next += 1;
            };
            for _ in 0..start {
                add(&mut table, &mut heap, &mut at_of);
            }
            let mut stays: BTreeSet<u32> = at_of.keys().copied().collect();
            let mut seen = BTreeSet::new();
            let (mut cursor, mut step) = (0, 0);
            loop {
                cursor = table.visit(&heap, cursor, |at| {
                    seen.insert(heap.head(at).hash());
                });
                if cursor == 0 {
                    break;
                }
                // Then the table stays as it is: a scan of a table that keeps shrinking and growing need not end.
                let Some(&(grow, n)) = phases.get(step) else { continue };
                step += 1;
                for _ in 0..n {
                    if grow {
                        add(&mut table, &mut heap, &mut at_of);
                    } else if let Some((id, at)) = at_of.pop_first() {
                        stays.remove(&id);
                        table.unlink(&mut heap, at, at_of.len() as u32);
                        let class = heap.remove(at);
                        while let Some((from, to)) = heap.tidy(class) {
                            table.relink(&mut heap, from, to);
                            let id = *at_of.iter().find(|&(_, &at)| at == from).unwrap().0;
                            at_of.insert(id, to);
                        }
                    }
                }
                prop_assert!(table.buckets.len() >= at_of.len());
                prop_assert!(table.buckets.len() <= BUCKETS_MIN.max(2 * at_of.len()));
            }
            for id in stays {
                prop_assert!(seen.contains(&spread(id)), "{id} was missed");
            }
            for (&id, &at) in &at_of {
                prop_assert_eq!(heap.find(table.first(spread(id)), spread(id), &[]).0, at);
            }
        }
    }
}
