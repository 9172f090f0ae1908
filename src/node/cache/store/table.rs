//! One slot's hash index: buckets of `u32` chains through the entries, grown and shrunk one bucket at a time (linear hashing,
//! Litwin 1980), so that no write ever pays for a whole table.
//!
//! A table of `n` buckets, `p` the largest power of two not above `n`: bucket `b < n - p` is split, its other half is `b + p`.
//! The cursor walks the `p` unsplit buckets in the order of their reversed bits, as Redis's SCAN does, so that what was
//! visited stays a range of reversed hashes however the table grows and shrinks: nothing that stays is missed.

use super::entry::Entry;
use super::pool::{NIL, Pool};
use super::prefetch;

/// Buckets that are never given up while the slot has keys.
const BUCKETS_MIN: usize = 4;
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

impl Table {
    /// The entry of this hash for which `same` holds, or [`NIL`].
    pub fn find(&self, entries: &Pool<Entry>, hash: u32, mut same: impl FnMut(&Entry) -> bool) -> u32 {
        let mut at = self.first(hash);
        while at != NIL {
            let e = &entries[at];
            if e.hash == hash && same(e) {
                return at;
            }
            at = e.chain;
        }
        NIL
    }

    /// Asks for the bucket of this hash ahead of its use.
    pub fn prefetch(&self, hash: u32) {
        if !self.buckets.is_empty() {
            prefetch::one(&self.buckets[bucket(self.buckets.len(), hash)]);
        }
    }

    /// The first entry where one of this hash would be, or [`NIL`].
    pub fn first(&self, hash: u32) -> u32 {
        if self.buckets.is_empty() { NIL } else { self.buckets[bucket(self.buckets.len(), hash)] }
    }

    /// Puts an entry in; `keys` counts it already.
    pub fn link(&mut self, entries: &mut Pool<Entry>, at: u32, keys: u32) {
        if self.buckets.len() < BUCKETS_MIN.max(keys as usize) {
            self.split(entries);
        }
        let b = bucket(self.buckets.len(), entries[at].hash);
        entries[at].chain = std::mem::replace(&mut self.buckets[b], at);
    }

    /// Takes an entry out; `keys` doesn't count it any more.
    pub fn unlink(&mut self, entries: &mut Pool<Entry>, at: u32, keys: u32) {
        let Entry { hash, chain, .. } = entries[at];
        *self.pointer_to(entries, at, hash) = chain;
        if keys == 0 {
            self.buckets = Vec::new();
        } else {
            // Two, as the bound falls by two.
            for _ in 0..2 {
                if self.buckets.len() > BUCKETS_MIN.max(2 * keys as usize) {
                    self.merge(entries);
                }
            }
        }
    }

    /// An entry has moved.
    pub fn relink(&mut self, entries: &mut Pool<Entry>, from: u32, to: u32) {
        let hash = entries[to].hash;
        *self.pointer_to(entries, from, hash) = to;
    }

    /// What points at an entry: its bucket or its neighbour.
    fn pointer_to<'a>(&'a mut self, entries: &'a mut Pool<Entry>, at: u32, hash: u32) -> &'a mut u32 {
        let b = bucket(self.buckets.len(), hash);
        let (mut before, mut next) = (NIL, self.buckets[b]);
        while next != at {
            before = next;
            next = entries[next].chain;
        }
        if before == NIL { &mut self.buckets[b] } else { &mut entries[before].chain }
    }

    /// Adds a bucket and moves there what belongs there.
    fn split(&mut self, entries: &mut Pool<Entry>) {
        let n = self.buckets.len();
        if n == self.buckets.capacity() {
            self.buckets.reserve_exact((n / RESERVE_DIVISOR).max(BUCKETS_MIN));
        }
        self.buckets.push(NIL);
        if n == 0 {
            return;
        }
        let low = n - (1 << n.ilog2());
        let mut at = std::mem::replace(&mut self.buckets[low], NIL);
        while at != NIL {
            let e = &mut entries[at];
            let b = bucket(n + 1, e.hash);
            let next = std::mem::replace(&mut e.chain, self.buckets[b]);
            self.buckets[b] = at;
            at = next;
        }
    }

    /// Removes the last bucket and moves what is in it to where it came from.
    fn merge(&mut self, entries: &mut Pool<Entry>) {
        let Some(mut at) = self.buckets.pop() else { return };
        let n = self.buckets.len();
        let low = n - (1 << n.ilog2());
        while at != NIL {
            let e = &mut entries[at];
            let next = std::mem::replace(&mut e.chain, self.buckets[low]);
            self.buckets[low] = at;
            at = next;
        }
        if self.buckets.capacity() > 2 * n {
            self.buckets.shrink_to(n + n / RESERVE_DIVISOR);
        }
    }

    /// Calls `each` with every entry of the buckets that `cursor` stands for; the next cursor, 0 after the last.
    pub fn visit(&self, entries: &Pool<Entry>, cursor: u64, mut each: impl FnMut(u32)) -> u64 {
        let n = self.buckets.len();
        if n == 0 {
            return 0;
        }
        let p = 1usize << n.ilog2();
        let cursor = cursor as u32;
        let low = cursor as usize & (p - 1);
        for b in [low, low + p] {
            let mut at = self.buckets.get(b).copied().unwrap_or(NIL);
            while at != NIL {
                each(at);
                at = entries[at].chain;
            }
        }
        let mask = (p - 1) as u32;
        u64::from((cursor | !mask).reverse_bits().wrapping_add(1).reverse_bits())
    }

    /// The first entry at or after a bucket drawn by `random`.
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
        // A permutation of u32, so that ids have different hashes that collide in buckets.
        let x = (id ^ (id >> 16)).wrapping_mul(0x7feb_352d);
        (x ^ (x >> 15)).wrapping_mul(0x846c_a68b)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]
        /// Everything that is there from a scan's start to its end is seen, whatever comes and goes between its steps.
        #[test]
        fn a_scan_misses_nothing_that_stays(start in 0u32..400, phases in prop::collection::vec((any::<bool>(), 0u32..120), 1..80)) {
            let (mut table, mut entries) = (Table::default(), Pool::<Entry>::default());
            let mut at_of = BTreeMap::new();
            let mut next = 0;
            let mut add = |table: &mut Table, entries: &mut Pool<Entry>, at_of: &mut BTreeMap<u32, u32>| {
                let at = entries.insert(Entry::new(spread(next), 0, 0));
                at_of.insert(next, at);
                table.link(entries, at, at_of.len() as u32);
                next += 1;
            };
            for _ in 0..start {
                add(&mut table, &mut entries, &mut at_of);
            }
            let mut stays: BTreeSet<u32> = at_of.keys().copied().collect();
            let mut seen = BTreeSet::new();
            let (mut cursor, mut step) = (0, 0);
            loop {
                cursor = table.visit(&entries, cursor, |at| {
                    seen.insert(entries[at].hash);
                });
                if cursor == 0 {
                    break;
                }
                // Then the table stays as it is: a scan of a table that keeps shrinking and growing need not end.
                let Some(&(grow, n)) = phases.get(step) else { continue };
                step += 1;
                for _ in 0..n {
                    if grow {
                        add(&mut table, &mut entries, &mut at_of);
                    } else if let Some((id, at)) = at_of.pop_first() {
                        stays.remove(&id);
                        table.unlink(&mut entries, at, at_of.len() as u32);
                        entries.remove(at);
                        while let Some((from, to)) = entries.tidy() {
                            table.relink(&mut entries, from, to);
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
                prop_assert_eq!(table.find(&entries, spread(id), |_| true), at);
            }
        }
    }
}
