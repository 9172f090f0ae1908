//! Brings what the next commands will need into the CPU's caches: a lookup is a chain of loads, each of which waits for the one
//! before; the chains of several keys can wait at the same time.

use std::hint::black_box;

use super::Store;
use super::pool::NIL;
use crate::proto::slot::Slot;

/// Keys warmed at once: a core keeps about so many loads in flight, and what is warmed must still be there when it is used.
pub const WARM_MAX: usize = 16;

impl Store {
    /// Looks ahead for up to [`WARM_MAX`] keys of commands that are about to run; changes nothing. Worth it for two keys and more.
    pub fn warm<'k>(&self, keys: impl Iterator<Item = (Slot, &'k [u8])>) {
        let mut at = [NIL; WARM_MAX];
        let mut hashes = [(Slot(0), 0); WARM_MAX];
        let mut n = 0;
        for (slot, key) in keys.take(WARM_MAX) {
            hashes[n] = (slot, self.hash(key));
            n += 1;
        }
        // Step by step for all keys, so that only the steps depend on each other: bucket, first entry, next entry, the rest.
        for (at, &(slot, hash)) in at.iter_mut().zip(&hashes[..n]) {
            *at = self.body(slot).map_or(NIL, |body| body.table.first(hash));
        }
        for (at, &(_, hash)) in at.iter_mut().zip(&hashes[..n]) {
            if let Some(other) = self.entries.get(*at).filter(|e| e.hash != hash) {
                *at = other.chain;
            }
        }
        let mut rest = [None; WARM_MAX];
        for (rest, &at) in rest.iter_mut().zip(&at[..n]) {
            *rest = self.entries.get(at).map(|e| (e.place(), e.newer, e.older));
        }
        let mut used = 0;
        for (place, newer, older) in rest.into_iter().flatten() {
            used ^= self.heap.key(place).first().map_or(0, |&b| u32::from(b));
            used ^= self.entries.get(newer).map_or(0, |e| e.older) ^ self.entries.get(older).map_or(0, |e| e.newer);
        }
        black_box(used);
    }
}
