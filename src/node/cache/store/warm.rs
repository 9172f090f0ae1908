//! Brings what the next commands will need into the CPU's caches: a lookup is a chain of loads, each of which waits for the one
//! before; the chains of several keys can wait at the same time.

use super::policy::Windows;
use super::pool::NIL;
use super::{Eviction, Store, prefetch};
use crate::proto::slot::Slot;

/// Keys warmed at once: a core keeps about so many loads in flight, and what is warmed must still be there when it is used.
pub const WARM_MAX: usize = 16;
/// Cache lines of an item that are asked for behind its header's; longer ones are read in a row, which the CPU notices by itself.
const REST_LINES: usize = 8;

/// A key to look ahead for, and what was found out on the way.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'k> {
    /// The asker's number for it.
    pub n: usize,
    /// Its slot.
    pub slot: Slot,
    key: &'k [u8],
    /// Its hash in the store of that slot, if that has keys.
    pub hash: Option<u32>,
    /// Its item, or one in front of that.
    at: u32,
    /// It is its item.
    found: bool,
}

impl<'k> Wanted<'k> {
    /// None in particular.
    pub const NONE: Self = Self::new(0, Slot(0), &[]);

    /// Nothing is known of it yet.
    pub const fn new(n: usize, slot: Slot, key: &'k [u8]) -> Self {
        Self { n, slot, key, hash: None, at: NIL, found: false }
    }

    /// Its item is not found yet; worth the last of [`STEPS`].
    pub fn is_sought(&self) -> bool {
        !self.found
    }

    /// It was looked for to the end of its bucket, and is not there.
    #[inline(always)]
    fn is_new(&self) -> bool {
        !self.found && self.at == NIL && self.hash.is_some()
    }
}

/// The steps of looking ahead, for keys of several shards: each is done for all keys before the next, so that what it asked for is
/// there or on its way. Between two steps the store may change: what a step rests on may be gone, and then it asks for the wrong
/// memory.
pub const STEPS: [Step; 5] = [Store::to_body, Store::to_bucket, Store::to_item, Store::to_rest, Store::to_end];
/// What follows where lists or the index are likely to change ([`Store::changes`]).
pub const MORE_STEPS: [Step; 2] = [Store::to_neighbours, Store::to_moved];

/// One of them.
pub type Step = fn(&Store, &mut Wanted<'_>);

impl Store {
    /// Looks ahead for keys of commands that are about to run; changes nothing. Worth it for two keys and more. `first` and
    /// `last` are done with each key beside the first step and the fifth.
    #[inline]
    pub fn warm(&self, wanted: &mut [Wanted<'_>], first: impl Fn(&Wanted<'_>), last: impl Fn(&Wanted<'_>)) {
        for w in &mut *wanted {
            first(w);
            self.to_body(w);
        }
        wanted.iter_mut().for_each(|w| self.to_bucket(w));
        wanted.iter_mut().for_each(|w| self.to_item(w));
        wanted.iter_mut().for_each(|w| self.to_rest(w));
        let mut more = false;
        for w in &mut *wanted {
            self.to_end(w);
            more |= self.changes(w);
            last(w);
        }
        if more {
            wanted.iter_mut().for_each(|w| self.to_neighbours(w));
            wanted.iter_mut().for_each(|w| self.to_moved(w));
        }
    }

    #[inline(always)]
    fn to_body(&self, w: &mut Wanted<'_>) {
        if let Some(body) = self.body(w.slot) {
            prefetch::one(body);
            w.hash = Some(self.hash(w.key));
        }
    }

    #[inline(always)]
    fn to_bucket(&self, w: &mut Wanted<'_>) {
        if let (Some(hash), Some(body)) = (w.hash, self.body(w.slot)) {
            body.table.prefetch(hash);
        }
    }

    #[inline(always)]
    fn to_item(&self, w: &mut Wanted<'_>) {
        if let (Some(hash), Some(body)) = (w.hash, self.body(w.slot)) {
            w.at = body.table.first(hash);
            self.heap.prefetch_head(w.at);
            if self.reorders() {
                self.heap.prefetch_head(body.order.newest());
            }
        }
    }

    /// Which item it is, its header tells; a third of them have another one in front.
    #[inline(always)]
    fn to_rest(&self, w: &mut Wanted<'_>) {
        if let (Some(hash), false, Some(head)) = (w.hash, w.found, self.heap.glimpse(w.at)) {
            w.found = head.hash() == hash;
            if w.found {
                self.heap.prefetch_rest(w.at, &head, REST_LINES);
            } else {
                w.at = head.chain;
                self.heap.prefetch_head(w.at);
            }
        }
    }

    /// The same once more; of a key that is not there, what is changed when it is put in.
    #[inline(always)]
    fn to_end(&self, w: &mut Wanted<'_>) {
        self.to_rest(w);
        if w.is_new()
            && let Some(body) = self.body(w.slot)
        {
            body.table.prefetch_split();
            self.heap.prefetch_head(body.order.newest());
        }
    }

    /// What a use moves in the list, and a new key in the index.
    #[inline(always)]
    fn to_neighbours(&self, w: &mut Wanted<'_>) {
        if w.is_new()
            && let Some(body) = self.body(w.slot)
        {
            self.heap.prefetch_head(body.table.next_split());
        } else if self.reorders()
            && let Some(head) = self.heap.glimpse(w.at)
            && self.windows.late(head.body().into(), head.accessed(), self.tick)
        {
            self.heap.prefetch_head(head.newer);
            self.heap.prefetch_head(head.older);
        }
    }

    /// Of the bucket that a new key splits, the item behind its first.
    #[inline(always)]
    fn to_moved(&self, w: &mut Wanted<'_>) {
        if w.is_new()
            && let Some(body) = self.body(w.slot)
            && let Some(head) = self.heap.glimpse(body.table.next_split())
        {
            self.heap.prefetch_head(head.chain);
        }
    }

    /// Whether a list or an index is likely to change when this key is used; known when its item is found, or after [`STEPS`].
    #[inline(always)]
    pub fn changes(&self, w: &Wanted<'_>) -> bool {
        self.reorders() || w.is_new()
    }

    /// Whether a use is likely to move a key in its slot's list.
    fn reorders(&self) -> bool {
        self.eviction == Eviction::Lru && self.windows != Windows::LONGEST
    }
}
