//! Brings what the next commands will need into the CPU's caches: a lookup is a chain of loads, each of which waits for the one
//! before; the chains of several keys can wait at the same time.

use super::policy::Windows;
use super::pool::NIL;
use super::{Eviction, Store, prefetch};
use crate::proto::slot::Slot;

/// Keys warmed at once: a core keeps about so many loads in flight, and what is warmed must still be there when it is used.
pub const WARM_MAX: usize = 16;
/// Cache lines of an item that are asked for; longer ones are read in a row, which the CPU notices by itself.
const ITEM_LINES: usize = 4;

/// A key to look ahead for: a number for it, its slot, the key.
pub type Wanted<'k> = (usize, Slot, &'k [u8]);

impl Store {
    /// Looks ahead for up to [`WARM_MAX`] keys of commands that are about to run, and tells their hashes; changes nothing. Worth
    /// it for two keys and more.
    pub fn warm<'k>(&self, keys: impl Iterator<Item = Wanted<'k>>, mut tell: impl FnMut(usize, u32)) {
        // Step by step for all keys: by the time of one step, what the step before asked for is there or on its way.
        let mut hashes = [(NO_BODY_AT, 0); WARM_MAX];
        let mut n = 0;
        for (i, slot, key) in keys.take(WARM_MAX) {
            let at = usize::from(self.body_of[slot.ix()]);
            if let Some(body) = self.bodies.get(at) {
                prefetch::one(body);
                hashes[n] = (at, self.hash(key));
                tell(i, hashes[n].1);
                n += 1;
            }
        }
        let bodies = hashes[..n].iter().filter_map(|&(at, hash)| Some((self.bodies.get(at)?, hash)));
        for (body, hash) in bodies.clone() {
            body.table.prefetch(hash);
        }
        let mut at = [(NIL, 0); WARM_MAX];
        for (at, (body, hash)) in at.iter_mut().zip(bodies) {
            *at = (body.table.first(hash), hash);
            self.heap.prefetch(at.0, ITEM_LINES);
            if self.reorders() {
                self.heap.prefetch(body.order.newest(), 1);
            }
        }
        for (at, hash) in &mut at[..n] {
            if *at != NIL {
                let head = self.heap.head(*at);
                if head.hash() != *hash {
                    *at = head.chain;
                    self.heap.prefetch(*at, ITEM_LINES);
                }
            }
        }
        // What a use moves in the list.
        if !self.reorders() {
            return;
        }
        for &(at, _) in &at[..n] {
            if at != NIL {
                let head = self.heap.head(at);
                if self.windows.late(head.body().into(), head.accessed(), self.tick) {
                    self.heap.prefetch(head.newer, 1);
                    self.heap.prefetch(head.older, 1);
                }
            }
        }
    }

    /// Whether a use is likely to move a key in its slot's list.
    fn reorders(&self) -> bool {
        self.eviction == Eviction::Lru && self.windows != Windows::LONGEST
    }
}

/// No body has this index.
const NO_BODY_AT: usize = usize::MAX;
