//! One command's work in one slot: every change is recorded as an effect.

use super::memory::DEADLINE_COST_MAX;
use super::pool::NIL;
use super::{Meta, NeedRoom, Now, Role, Scope, Store};
use crate::node::cache::effect::{Deadline, Effect, Effects, Ttl};
use crate::proto::slot::Slot;

/// One command's work in one slot of which this node is primary.
pub struct Txn<'a> {
    pub(super) store: &'a mut Store,
    pub(super) slot: Slot,
    pub(super) now: Now,
    pub(super) fx: &'a mut Effects,
    /// Of the only key, if it is known.
    pub(super) hash: Option<u32>,
}

impl Txn<'_> {
    /// Works on one key alone, whose hash is known from [`Store::warm`].
    pub fn knowing(self, hash: Option<u32>) -> Self {
        Self { hash, ..self }
    }

    /// The clocks of this turn.
    pub fn now(&self) -> Now {
        self.now
    }

    /// Must be called before the first change of a command that may add bytes, with an upper bound of the cost of all it will
    /// add ([`cost_of`](super::cost_of) per key). Fails before anything was changed.
    pub fn reserve(&mut self, bytes: u64) -> Result<(), NeedRoom> {
        if self.store.heap.is_full(bytes) {
            return Err(NeedRoom { bytes, scope: Scope::Nobody });
        }
        self.store.ledger.reserve(self.store.roles[self.slot.ix()], bytes)
    }

    /// From here to the end of the command, bytes that it frees are kept for what it adds: for commands that shrink or delete
    /// before they grow, whose reservation counts on that.
    pub fn pool(&mut self) {
        self.store.ledger.pool(self.store.roles[self.slot.ix()]);
    }

    /// The item of a key that is there and not past its deadline, or [`NIL`]; and its hash.
    #[inline]
    fn live(&mut self, key: &[u8]) -> (u32, u32) {
        let hash = self.hash.unwrap_or_else(|| self.store.hash(key));
        debug_assert_eq!(hash, self.store.hash(key));
        let (at, timed) = self.store.look_up(self.slot, hash, key);
        if timed && self.store.deadline(at).is_some_and(|d| d.0 <= self.now.mono_ms) {
            self.store.remove(at);
            self.store.counters.expired += 1;
            self.fx.push(Effect::Del(key));
            return (NIL, hash);
        }
        (at, hash)
    }

    fn find(&mut self, key: &[u8]) -> Option<u32> {
        Some(self.live(key).0).filter(|&at| at != NIL)
    }

    /// Counts a lookup.
    #[inline]
    fn access(&mut self, key: &[u8]) -> Option<u32> {
        let (at, hash) = self.live(key);
        let store = &mut *self.store;
        if at == NIL {
            store.counters.misses += 1;
            return None;
        }
        store.counters.hits += 1;
        if store.bump(at) && matches!(store.roles[self.slot.ix()], Role::Primary { backed_at: 1.. }) {
            store.touches.note(at, hash);
        }
        Some(at)
    }

    /// The value; counts as an access. A key past its deadline is deleted (and that shipped) and missing.
    #[inline]
    pub fn get(&mut self, key: &[u8]) -> Option<&[u8]> {
        let at = self.access(key)?;
        Some(self.store.value(at))
    }

    /// The value, without counting as an access or a hit (write commands that look first).
    pub fn peek(&mut self, key: &[u8]) -> Option<&[u8]> {
        let at = self.find(key)?;
        Some(self.store.value(at))
    }

    /// What is known of the key, without counting as an access.
    pub fn meta(&mut self, key: &[u8]) -> Option<Meta> {
        let at = self.find(key)?;
        let store = &*self.store;
        Some(Meta {
            len: store.heap.lens(at).1,
            deadline: store.deadline(at),
            idle_ms: store.idle_ms(at),
            cost: store.cost(at),
        })
    }

    /// Counts as an access (TOUCH); whether the key exists.
    pub fn touch(&mut self, key: &[u8]) -> bool {
        self.access(key).is_some()
    }

    /// The key holds this value.
    pub fn set(&mut self, key: &[u8], value: &[u8], ttl: Ttl) {
        let (at, hash) = self.live(key);
        self.fx.push(Effect::Set(key, value, ttl));
        self.store.put(self.slot, hash, at, key, value, ttl);
    }

    /// The key is gone; whether it was there.
    pub fn del(&mut self, key: &[u8]) -> bool {
        let Some(at) = self.find(key) else { return false };
        self.store.remove(at);
        self.fx.push(Effect::Del(key));
        true
    }

    /// As [`Txn::del`], to make room: counts as an eviction.
    pub fn evict(&mut self, key: &[u8]) -> bool {
        let there = self.del(key);
        self.store.counters.evicted += u64::from(there);
        there
    }

    /// Makes room for a deadline, before the first change: it may be the key's first.
    pub fn reserve_deadline(&mut self) -> Result<(), NeedRoom> {
        self.reserve(DEADLINE_COST_MAX)
    }

    /// Sets (or with `None` removes) the deadline; whether the key exists. A deadline already past deletes it. Room for it was
    /// reserved ([`Txn::reserve_deadline`]).
    pub fn expire(&mut self, key: &[u8], deadline: Option<Deadline>) -> bool {
        let Some(at) = self.find(key) else { return false };
        if deadline.is_some_and(|d| d.0 <= self.now.mono_ms) {
            self.store.remove(at);
            self.fx.push(Effect::Del(key));
        } else {
            self.store.set_deadline(at, deadline);
            self.fx.push(Effect::Expire(key, deadline.map_or(Ttl::None, Ttl::At)));
        }
        true
    }
}
