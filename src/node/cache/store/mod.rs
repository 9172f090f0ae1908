//! The keys and values of one shard, slot by slot. (A plain first body behind the interface that stays.)
//!
//! A [`Store`] knows nothing of the network. Commands change it through a [`Txn`], which records every change as an
//! [`Effect`] for the backups; backups apply those effects.

use std::collections::BTreeMap;

use super::effect::{Deadline, Effect, Effects, Malformed, Reader, Ttl};
use crate::proto::slot::{SLOTS, Slot};

/// The clocks as read once per loop turn, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// CLOCK_BOOTTIME: what deadlines are kept in.
    pub mono_ms: u64,
    /// Since 1970, derived so that it moves with `mono_ms` between corrections.
    pub wall_ms: u64,
}

impl Now {
    /// A wall-clock point (EXPIREAT) on the TTL clock.
    pub fn deadline_at_wall(self, wall_ms: i64) -> Deadline {
        Deadline((self.mono_ms as i128 + wall_ms as i128 - self.wall_ms as i128).clamp(0, i64::MAX as i128) as u64)
    }

    /// The wall-clock point of a deadline (EXPIRETIME).
    pub fn wall_of(self, d: Deadline) -> i64 {
        (d.0 as i128 + self.wall_ms as i128 - self.mono_ms as i128) as i64
    }
}

/// What a slot's bytes are counted as, and which peer holds its other copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Role {
    /// Not held here.
    #[default]
    None,
    /// In the primary LRU; `backed_at` is the group of slots that share one backup peer (0 = no backup).
    Primary { backed_at: u8 },
    /// In the backup LRU (also while being copied to).
    Backup,
}

/// What is known of a key beside its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// Length of the value, bytes.
    pub len: usize,
    /// When it expires, if it does.
    pub deadline: Option<Deadline>,
    /// Since the last access, milliseconds.
    pub idle_ms: u64,
    /// Accounted bytes: key, value and overhead.
    pub cost: u64,
}

/// One slot in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SlotStats {
    /// Keys held.
    pub keys: u64,
    /// Accounted bytes held.
    pub bytes: u64,
}

/// Accounted bytes of an entry beyond key and value; the same on every node, so that a primary knows what its backups hold.
pub const ENTRY_OVERHEAD: u64 = 64;

/// What an entry is accounted as: a pure function of lengths, the same on every node.
pub fn cost_of(key_len: usize, value_len: usize) -> u64 {
    key_len as u64 + value_len as u64 + ENTRY_OVERHEAD
}

#[derive(Default)]
struct Entry {
    value: Vec<u8>,
    deadline: Option<Deadline>,
    touched_ms: u64,
}

/// One shard's keys.
pub struct Store {
    slots: Vec<BTreeMap<Box<[u8]>, Entry>>,
    roles: Vec<Role>,
}

impl Default for Store {
    fn default() -> Self {
        Self::new()
    }
}

impl Store {
    /// An empty one.
    pub fn new() -> Self {
        Self { slots: (0..SLOTS).map(|_| BTreeMap::new()).collect(), roles: vec![Role::None; SLOTS] }
    }

    /// Opens one command's work in one slot.
    pub fn txn<'a>(&'a mut self, slot: Slot, now: Now, fx: &'a mut Effects) -> Txn<'a> {
        Txn { store: self, slot, now, fx }
    }

    /// Applies a primary's effects here (backup, learner). `sender_now_ms` is the sender's TTL clock when it (re)sent:
    /// a deadline becomes what remains of it, at least 1 ms. Nothing is applied if any of it is malformed.
    pub fn apply(&mut self, slot: Slot, item: &[u8], now: Now, sender_now_ms: u64) -> Result<(), Malformed> {
        let here = |ttl: Ttl| match ttl {
            Ttl::At(d) => Ttl::At(Deadline(now.mono_ms + d.0.saturating_sub(sender_now_ms).max(1))),
            other => other,
        };
        let all: Vec<Effect<'_>> = Reader(item).collect::<Result<_, _>>()?;
        for e in all {
            let keys = &mut self.slots[slot.ix()];
            match e {
                Effect::Set(k, v, ttl) => {
                    let old = keys.get(k).and_then(|e| e.deadline);
                    let deadline = match here(ttl) {
                        Ttl::None => None,
                        Ttl::Keep => old,
                        Ttl::At(d) => Some(d),
                    };
                    keys.insert(k.into(), Entry { value: v.to_vec(), deadline, touched_ms: now.mono_ms });
                }
                Effect::Del(k) => {
                    keys.remove(k);
                }
                Effect::Expire(k, ttl) => {
                    if let Some(e) = keys.get_mut(k) {
                        e.deadline = match here(ttl) {
                            Ttl::At(d) => Some(d),
                            _ => None,
                        };
                    }
                }
                Effect::Flush => keys.clear(),
            }
        }
        Ok(())
    }

    /// Drops all keys of a slot, recording nothing.
    pub fn clear_slot(&mut self, slot: Slot) {
        self.slots[slot.ix()].clear();
    }

    /// What the slot's bytes are counted as from now on.
    pub fn set_role(&mut self, slot: Slot, role: Role) {
        self.roles[slot.ix()] = role;
    }

    /// What the slot's bytes are counted as.
    pub fn role(&self, slot: Slot) -> Role {
        self.roles[slot.ix()]
    }

    /// One slot in numbers.
    pub fn slot_stats(&self, slot: Slot) -> SlotStats {
        let keys = &self.slots[slot.ix()];
        SlotStats { keys: keys.len() as u64, bytes: keys.iter().map(|(k, e)| cost_of(k.len(), e.value.len())).sum() }
    }

    /// Walks a slot from `cursor` (0 = start), calling `each` with key, value and deadline until about `max_bytes` were seen;
    /// returns the next cursor, 0 at the end. A key present from start to end is seen at least once, whatever else changes.
    pub fn scan(
        &self,
        slot: Slot,
        cursor: u64,
        max_bytes: usize,
        mut each: impl FnMut(&[u8], &[u8], Option<Deadline>),
    ) -> u64 {
        let mut seen = 0;
        for (n, (k, e)) in self.slots[slot.ix()].iter().enumerate().skip(cursor as usize) {
            if seen >= max_bytes {
                return n as u64;
            }
            seen += k.len() + e.value.len();
            each(k, &e.value, e.deadline);
        }
        0
    }

    /// Order-independent digest of keys, values and has-TTL (no deadlines, no recency); equal at equal (pterm, seq).
    pub fn digest(&self, slot: Slot) -> u64 {
        self.slots[slot.ix()].iter().fold(0u64, |sum, (k, e)| {
            let mut bytes = (k.len() as u64).to_le_bytes().to_vec();
            bytes.extend_from_slice(k);
            bytes.extend_from_slice(&e.value);
            bytes.push(u8::from(e.deadline.is_some()));
            sum.wrapping_add(xxhash_rust::xxh3::xxh3_64(&bytes))
        })
    }
}

/// One command's work in one slot of which this node is primary.
pub struct Txn<'a> {
    store: &'a mut Store,
    slot: Slot,
    now: Now,
    fx: &'a mut Effects,
}

/// There is no room for so many more bytes; nothing was done. The caller evicts and runs the command again, or answers OOM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NeedRoom(pub u64);

impl Txn<'_> {
    /// The clocks of this turn.
    pub fn now(&self) -> Now {
        self.now
    }

    /// Must be called before the first change of a command that may add bytes, with an upper bound of the cost of all it will
    /// add ([`cost_of`] per key). Fails before anything was changed.
    pub fn reserve(&mut self, _bytes: u64) -> Result<(), NeedRoom> {
        Ok(())
    }

    fn live(&mut self, key: &[u8]) -> Option<&mut Entry> {
        let now = self.now.mono_ms;
        let keys = &mut self.store.slots[self.slot.ix()];
        if keys.get(key)?.deadline.is_some_and(|d| d.0 <= now) {
            keys.remove(key);
            self.fx.push(Effect::Del(key));
            return None;
        }
        keys.get_mut(key)
    }

    /// The value; counts as an access. A key past its deadline is deleted (and that shipped) and missing.
    pub fn get(&mut self, key: &[u8]) -> Option<&[u8]> {
        let now = self.now.mono_ms;
        let e = self.live(key)?;
        e.touched_ms = now;
        Some(&e.value)
    }

    /// The value, without counting as an access or a hit (write commands that look first).
    pub fn peek(&mut self, key: &[u8]) -> Option<&[u8]> {
        self.live(key).map(|e| e.value.as_slice())
    }

    /// What is known of the key, without counting as an access.
    pub fn meta(&mut self, key: &[u8]) -> Option<Meta> {
        let now = self.now.mono_ms;
        let e = self.live(key)?;
        Some(Meta {
            len: e.value.len(),
            deadline: e.deadline,
            idle_ms: now.saturating_sub(e.touched_ms),
            cost: cost_of(key.len(), e.value.len()),
        })
    }

    /// Counts as an access (TOUCH); whether the key exists.
    pub fn touch(&mut self, key: &[u8]) -> bool {
        self.get(key).is_some()
    }

    /// The key holds this value.
    pub fn set(&mut self, key: &[u8], value: &[u8], ttl: Ttl) {
        let old = self.live(key).and_then(|e| e.deadline);
        let deadline = match ttl {
            Ttl::None => None,
            Ttl::Keep => old,
            Ttl::At(d) => Some(d),
        };
        self.fx.push(Effect::Set(key, value, ttl));
        self.store.slots[self.slot.ix()]
            .insert(key.into(), Entry { value: value.to_vec(), deadline, touched_ms: self.now.mono_ms });
    }

    /// The key is gone; whether it was there.
    pub fn del(&mut self, key: &[u8]) -> bool {
        let there = self.live(key).is_some();
        if there {
            self.store.slots[self.slot.ix()].remove(key);
            self.fx.push(Effect::Del(key));
        }
        there
    }

    /// Sets (or with `None` removes) the deadline; whether the key exists. A deadline already past deletes it.
    pub fn expire(&mut self, key: &[u8], deadline: Option<Deadline>) -> bool {
        let now = self.now.mono_ms;
        if self.live(key).is_none() {
            return false;
        }
        match deadline {
            Some(d) if d.0 <= now => {
                self.del(key);
            }
            _ => {
                if let Some(e) = self.live(key) {
                    e.deadline = deadline;
                }
                self.fx.push(Effect::Expire(key, deadline.map_or(Ttl::None, Ttl::At)));
            }
        }
        true
    }
}
