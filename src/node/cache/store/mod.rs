//! The keys and values of one shard, slot by slot.
//!
//! A [`Store`] knows nothing of the network. Commands change it through a [`Txn`], which records every change as an
//! [`Effect`] for the backups; backups apply those effects.
//!
//! ```text
//!   slot ─▶ body: table ──hash──▶ item (24 bytes, key, value) in the heap's slabs; large: ──▶ runs, pieces
//!               order ◀─────────▶   │
//!                 due ◀── timer ◀───┘
//!   ledger ─▶ budget (the node's)      candidates ─▶ victim
//! ```
//!
//! Everything is found by a `u32`, so there is no unsafe code, and any item can be moved to where there is a hole: the
//! resident size follows the accounted size down as well as up. No operation takes time in proportion to what is stored but
//! [`Store::digest`] and [`Store::scan`], which are per slot: tables grow by a bucket at a time, arrays by a chunk, timers move
//! in bounded steps, and cleared slots are given back bit by bit ([`Store::dispose`]).
//!
//! * Rooms: `heap` `pool` (items and timers), `table` `expiry` `due` (what finds them), `memory` `evict` `policy`
//!   `touches` (how much, who goes, what backups hear of recency), `keys` (all of these changed together), `txn` (commands), `warm`
//!   (looking ahead for a batch of them).
//! * The order of eviction is exact within a slot (`policy`) and sampled between slots (`evict`).
//! * Accounted bytes are what an item takes by its lengths ([`cost`]), the same on every node. With one shard of 256 MiB the
//!   resident size stays within 0.91 to 1.10 of the limit through every size and shift of sizes in `benches/store.rs`, with the
//!   system's allocator; a shard of only 16 MiB adds up to 5 % of rounding, one of 64 MiB 1 %.
//! * A backup's keys never go by themselves: timers of slots that are not primary fire into a list that waits for promotion.

mod due;
mod evict;
mod expiry;
mod heap;
mod keys;
mod memory;
mod policy;
mod pool;
pub mod prefetch;
mod table;
mod touches;
mod txn;
mod warm;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

pub use memory::{Budget, cost, cost_of};
pub use policy::Eviction;
pub use txn::Txn;
pub use warm::{MORE_STEPS, STEPS, WARM_MAX, Wanted};

use self::due::DueSlots;
use self::evict::{Candidates, Drawn, Random};
use self::expiry::{Step, Wheel};
use self::heap::{HEADER, Heap};
use self::keys::{Body, NO_BODY};
use self::memory::{DEADLINE_COST_MAX, Ledger};
use self::policy::{ACCESS_MS, Tick, Windows};
use self::pool::NIL;
use self::touches::Touches;
use super::effect::{Deadline, Effect, Effects, Malformed, Reader, Ttl};
use crate::proto::slot::{SLOTS, Slot};

/// Timers moved per due key asked for: each level of the wheel moves a timer once on its way.
const STEPS_PER_KEY: usize = 4;
/// Draws at entries before a random key is taken from a random slot: enough unless under 1 in 20 is a primary's.
const RANDOM_KEY_DRAWS: usize = 64;

/// Windows in the time that keys are kept for, at least.
const WINDOWS_KEPT: u32 = 16;

/// Buckets that a walk asks for ahead.
const SCAN_AHEAD: usize = 8;

/// Scratch memory above this is given back after a command, bytes: one huge value must not pin its size for ever.
const SCRATCH_KEEP: usize = 1 << 20;

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
        (d.0 as i128 + self.wall_ms as i128 - self.mono_ms as i128).clamp(0, i64::MAX as i128) as i64
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
    /// Since the last access, milliseconds (to 256).
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

/// One shard in numbers; counters count from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Keys in primary slots.
    pub primary_keys: u64,
    /// Their accounted bytes.
    pub primary_bytes: u64,
    /// Keys in backup slots.
    pub backup_keys: u64,
    /// Their accounted bytes.
    pub backup_bytes: u64,
    /// Lookups that found their key.
    pub hits: u64,
    /// Lookups that did not.
    pub misses: u64,
    /// Keys dropped for memory.
    pub evicted: u64,
    /// Keys dropped at their deadline.
    pub expired: u64,
}

/// Whose keys must go to make room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Keys of any primary slot: the node's own quota is short.
    Own,
    /// Keys of this group: its backup's credit is short.
    Group(u8),
    /// It is too much even for an empty node: nobody's keys would help.
    Nobody,
}

/// There is no room; nothing was done. The caller evicts ([`Store::victim`]) and runs the command again, or answers OOM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NeedRoom {
    /// Accounted bytes that are lacking.
    pub bytes: u64,
    /// Where.
    pub scope: Scope,
}

/// Why effects were not applied; none of them was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// See [`Malformed`].
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// They would pass the node's memory limit.
    #[error("no room for these effects")]
    Full,
}

#[derive(Debug, Default)]
struct Counters {
    hits: u64,
    misses: u64,
    evicted: u64,
    expired: u64,
}

/// One shard's keys.
#[derive(Debug)]
pub struct Store {
    heap: Heap,
    roles: Vec<Role>,
    /// Which body a slot has; [`NO_BODY`] = no keys.
    body_of: Vec<u16>,
    bodies: Vec<Body>,
    free_bodies: Vec<u16>,
    /// Bodies of cleared slots, oldest first.
    waste: VecDeque<u16>,
    /// How many buckets of the oldest are empty.
    drained: usize,
    wheel: Wheel,
    due_slots: DueSlots,
    candidates: Candidates,
    drawn: Drawn,
    eviction: Eviction,
    ledger: Ledger,
    touches: Touches,
    counters: Counters,
    random: Random,
    /// Of the hash, so that nobody can choose keys that share a bucket.
    seed: u64,
    /// Of the turn.
    tick: Tick,
    /// The first use in each moves a key ([`Store::pace`]).
    windows: Windows,
    /// Keys evicted when it was looked last.
    evicted_before: u64,
    /// Where a big value is put together to be read.
    scratch: Vec<u8>,
}

impl Default for Store {
    /// One without a limit.
    fn default() -> Self {
        Self::new(Budget::unlimited())
    }
}

impl Store {
    /// An empty shard of a node with this budget.
    pub fn new(budget: Arc<Budget>) -> Self {
        Self::with_seed(budget, rand::random())
    }

    /// As [`Store::new`], but what depends on chance (hashes, the order of a scan, samples) depends on the seed alone.
    pub fn with_seed(budget: Arc<Budget>, seed: u64) -> Self {
        Self {
            heap: Heap::default(),
            roles: vec![Role::None; SLOTS],
            body_of: vec![NO_BODY; SLOTS],
            bodies: Vec::new(),
            free_bodies: Vec::new(),
            waste: VecDeque::new(),
            drained: 0,
            wheel: Wheel::default(),
            due_slots: DueSlots::default(),
            candidates: Candidates::default(),
            drawn: Drawn::default(),
            eviction: Eviction::default(),
            ledger: Ledger::new(budget),
            touches: Touches::default(),
            counters: Counters::default(),
            random: Random(seed),
            seed,
            tick: Tick::default(),
            windows: Windows::None,
            evicted_before: 0,
            scratch: Vec::new(),
        }
    }

    /// Evicts by another policy than the default; before anything is stored.
    pub fn with_eviction(self, eviction: Eviction) -> Self {
        Self { eviction, ..self }
    }

    /// The node's budget.
    pub fn budget(&self) -> &Arc<Budget> {
        self.ledger.budget()
    }

    fn begin(&mut self, now: Now) {
        self.tick = Tick::of(now.mono_ms);
        self.ledger.settle();
        if self.scratch.capacity() > SCRATCH_KEEP {
            self.scratch = Vec::new();
        }
    }

    /// Gives back what the last command reserved and did not use. The next one does too: this is for a shard that falls idle.
    pub fn settle(&mut self) {
        self.ledger.settle();
    }

    /// Opens one command's work in one slot.
    pub fn txn<'a>(&'a mut self, slot: Slot, now: Now, fx: &'a mut Effects) -> Txn<'a> {
        self.begin(now);
        Txn { store: self, slot, now, fx, hash: None }
    }

    /// Applies a primary's effects here (backup, learner). `sender_now_ms` is the sender's TTL clock when it (re)sent:
    /// a deadline becomes what remains of it, at least 1 ms. Nothing is applied if any of it is malformed or does not fit.
    pub fn apply(&mut self, slot: Slot, item: &[u8], now: Now, sender_now_ms: u64) -> Result<(), ApplyError> {
        self.begin(now);
        let role = self.roles[slot.ix()];
        let mut bound = 0;
        for e in Reader(item) {
            match e? {
                Effect::Set(key, value, _) => bound += cost_of(key.len(), value.len()),
                Effect::Expire(_, Ttl::At(_)) => bound += DEADLINE_COST_MAX,
                _ => {}
            }
        }
        if bound > 0 && self.heap.is_full(bound) {
            return Err(ApplyError::Full);
        }
        if self.ledger.reserve(role, bound).is_err() {
            // The bound forgets what is replaced and deleted.
            let peak = self.peak_growth(slot, item)?;
            self.ledger.reserve(role, peak).map_err(|_| ApplyError::Full)?;
        }
        let here = |ttl: Ttl| match ttl {
            Ttl::At(d) => Ttl::At(Deadline(now.mono_ms.saturating_add(d.0.saturating_sub(sender_now_ms).max(1)))),
            other => other,
        };
        for e in Reader(item) {
            let e = e?;
            let (hash, at) = match e {
                Effect::Set(key, ..) | Effect::Del(key) | Effect::Expire(key, _) => {
                    let hash = self.hash(key);
                    (hash, self.find(slot, hash, key))
                }
                Effect::Flush => (0, NIL),
            };
            match e {
                Effect::Set(key, value, ttl) => self.put(slot, hash, at, key, value, here(ttl)),
                Effect::Flush => self.clear_slot(slot),
                _ if at == NIL => {}
                Effect::Del(_) => self.remove(at),
                Effect::Expire(_, ttl) => match here(ttl) {
                    Ttl::At(d) => self.set_deadline(at, Some(d)),
                    Ttl::None | Ttl::Keep => self.set_deadline(at, None),
                },
            }
        }
        self.ledger.settle();
        Ok(())
    }

    /// By how many bytes the slot will at most have grown while these effects are applied one after another.
    fn peak_growth(&self, slot: Slot, item: &[u8]) -> Result<u64, Malformed> {
        // Lengths of key and value, and whether there is a deadline.
        type Shape = Option<(usize, usize, bool)>;
        let mut changed = std::collections::HashMap::<&[u8], Shape>::new();
        let (mut growth, mut peak) = (0i64, 0);
        let mut flushed = false;
        for e in Reader(item) {
            let e = e?;
            let key = match e {
                Effect::Set(key, ..) | Effect::Del(key) | Effect::Expire(key, _) => key,
                Effect::Flush => {
                    changed.clear();
                    flushed = true;
                    growth = -(self.slot_stats(slot).bytes as i64);
                    continue;
                }
            };
            let before = changed.get(key).copied().unwrap_or_else(|| match self.find(slot, self.hash(key), key) {
                at if at == NIL || flushed => None,
                at => Some(self.heap.lens(at)),
            });
            let timed = |ttl| match ttl {
                Ttl::Keep => before.is_some_and(|(.., timed)| timed),
                Ttl::None => false,
                Ttl::At(_) => true,
            };
            let after = match e {
                Effect::Set(key, value, ttl) => Some((key.len(), value.len(), timed(ttl))),
                Effect::Expire(_, ttl) => before.map(|(k, v, _)| (k, v, matches!(ttl, Ttl::At(_)))),
                Effect::Del(_) | Effect::Flush => None,
            };
            let cost = |shape: Shape| shape.map_or(0, |(k, v, timed)| cost(k, v, timed) as i64);
            growth += cost(after) - cost(before);
            peak = peak.max(growth);
            changed.insert(key, after);
        }
        Ok(peak as u64)
    }

    /// What the slot's bytes are counted as from now on.
    pub fn set_role(&mut self, slot: Slot, role: Role) {
        let old = self.roles[slot.ix()];
        if old == role {
            return;
        }
        self.delist(slot);
        self.roles[slot.ix()] = role;
        self.enlist(slot);
        let SlotStats { keys, bytes } = self.slot_stats(slot);
        self.ledger.recast(old, role, keys, bytes);
        self.queue_due(slot);
    }

    /// What the slot's bytes are counted as.
    pub fn role(&self, slot: Slot) -> Role {
        self.roles[slot.ix()]
    }

    /// One slot in numbers.
    pub fn slot_stats(&self, slot: Slot) -> SlotStats {
        self.body(slot).map_or(SlotStats::default(), |b| SlotStats { keys: u64::from(b.keys), bytes: b.bytes })
    }

    /// This shard in numbers.
    pub fn totals(&self) -> Totals {
        let (primary, backup) = (self.ledger.primary(), self.ledger.backup());
        let Counters { hits, misses, evicted, expired } = self.counters;
        Totals {
            primary_keys: primary.keys,
            primary_bytes: primary.bytes,
            backup_keys: backup.keys,
            backup_bytes: backup.bytes,
            hits,
            misses,
            evicted,
            expired,
        }
    }

    /// Keys with a deadline in primary slots.
    pub fn primary_timers(&self) -> u64 {
        let primary = self.roles.iter().zip(0u16..).filter(|(role, _)| matches!(role, Role::Primary { .. }));
        primary.filter_map(|(_, slot)| self.body(Slot(slot))).map(|b| u64::from(b.timers)).sum()
    }

    /// Counters start again at 0 (CONFIG RESETSTAT).
    pub fn reset_stats(&mut self) {
        self.counters = Counters::default();
    }

    /// See [`Budget::set_primary_quota`].
    pub fn set_primary_quota(&self, bytes: u64) {
        self.budget().set_primary_quota(bytes);
    }

    /// See [`Budget::set_credit`].
    pub fn set_credit(&self, group: u8, bytes: u64) {
        self.budget().set_credit(group, bytes);
    }

    /// What the node holds above a quota or credit, as far as this shard can do something about it.
    pub fn excess(&self) -> Option<NeedRoom> {
        self.ledger
            .excess(self.candidates.groups.keys().copied())
            .filter(|need| !self.candidates.of(need.scope).is_empty())
    }

    /// Looks how long keys are kept now, which says how exact the order of eviction must be: windows are at most a sixteenth of
    /// that, and the longest as long as there is room for much more. To be called now and then; before, every use moves its key.
    pub fn pace(&mut self, now: Now) {
        let tick = Tick::of(now.mono_ms);
        let budget = self.ledger.budget();
        let roomy = budget.primary_used() / 3 < budget.primary_quota() / 4;
        let evicts = std::mem::replace(&mut self.evicted_before, self.counters.evicted) != self.counters.evicted;
        if roomy && !evicts {
            self.windows = Windows::LONGEST;
            return;
        }
        let oldest = evict::draw(self.candidates.of(Scope::Own), &mut self.random)
            .filter_map(|slot| self.bodies.get(self.body_of[slot as usize] as usize))
            .map(|body| tick.age_of(self.heap.head(body.order.oldest()).accessed()));
        self.windows = oldest.max().map_or(Windows::LONGEST, |kept| Windows::up_to(kept / WINDOWS_KEPT));
    }

    /// Keys of primary slots that are past their deadline, at most `max`, to be deleted through [`Store::txn`] (looking at one is
    /// enough). What is not deleted is named again, after the other slots had their turn.
    pub fn expired(&mut self, now: Now, max: usize) -> Vec<(Slot, Box<[u8]>)> {
        self.begin(now);
        for _ in 0..max.saturating_mul(STEPS_PER_KEY) {
            match self.wheel.step(now.mono_ms) {
                Step::Idle => break,
                Step::Moved => {}
                Step::Fired { timer, entry } => {
                    let body = &mut self.bodies[self.heap.head(entry).body() as usize];
                    self.wheel.push_due(timer, &mut body.due);
                    let slot = body.slot;
                    self.queue_due(slot);
                }
            }
        }
        let mut named = Vec::new();
        for _ in 0..self.due_slots.len() {
            if named.len() >= max {
                break;
            }
            let Some(slot) = self.due_slots.pop() else { break };
            self.queue_due(slot);
            let Some(body) = self.body(slot).filter(|_| matches!(self.role(slot), Role::Primary { .. })) else {
                continue;
            };
            let due = self.wheel.due(body.due).take(max - named.len());
            named.extend(due.map(|at| (slot, self.key(at).into())));
        }
        named
    }

    /// Whether [`Store::expired`] moved all the timers it may at once and stands before others whose time has come: a crowd on its
    /// way names nobody for a while.
    pub fn is_behind(&self, now: Now) -> bool {
        self.wheel.is_behind(now.mono_ms)
    }

    /// Hits in primary slots since the last call, a sample, each key once: for [`Store::touch_backup`] at their backups.
    pub fn touches(&mut self, mut each: impl FnMut(Slot, &[u8])) {
        for note in self.touches.drain() {
            let Some(item) = self.heap.get(note.entry).filter(|item| item.hash() == note.hash) else { continue };
            let Some(slot) = self.slot_of(&item) else { continue };
            if matches!(self.roles[slot.ix()], Role::Primary { backed_at: 1.. }) {
                each(slot, self.key(note.entry));
            }
        }
    }

    /// The primary says that the key was used: it becomes the most recently used of its slot here too.
    pub fn touch_backup(&mut self, slot: Slot, key: &[u8]) {
        let at = self.find(slot, self.hash(key), key);
        if at != NIL && self.role(slot) == Role::Backup {
            self.renew(at);
        }
    }

    /// Walks a slot from `cursor` (0 = start), calling `each` with key, value and deadline until about `max_bytes` were seen;
    /// returns the next cursor, 0 at the end. A key present from start to end is seen at least once, whatever else changes.
    pub fn scan(
        &self,
        slot: Slot,
        mut cursor: u64,
        max_bytes: usize,
        mut each: impl FnMut(&[u8], &[u8], Option<Deadline>),
    ) -> u64 {
        let Some(body) = self.body(slot) else { return 0 };
        let (mut seen, mut scratch) = (0, Vec::new());
        // Items lie anywhere: those of some buckets are asked for before the first is looked at.
        let (mut ahead, mut asked) = (cursor, 0);
        loop {
            while asked < SCAN_AHEAD && (ahead != 0 || asked == 0) {
                ahead = body.table.prefetch_at(&self.heap, ahead);
                asked += 1;
            }
            cursor = body.table.visit(&self.heap, cursor, |at| {
                let (key, value) = (self.heap.key(at), self.heap.value(at, &mut scratch));
                seen += key.len() + value.len() + HEADER;
                each(key, value, self.deadline(at));
            });
            asked -= 1;
            if cursor == 0 || seen >= max_bytes {
                return cursor;
            }
        }
    }

    /// Some keys of a slot (CLUSTER GETKEYSINSLOT), at most `max`; keys past their deadline may be among them.
    pub fn keys_in_slot(&self, slot: Slot, max: usize) -> Vec<Box<[u8]>> {
        let mut keys = Vec::new();
        let mut cursor = 0;
        while keys.len() < max {
            cursor = self.scan(slot, cursor, 0, |key, _, _| keys.push(key.into()));
            if cursor == 0 {
                break;
            }
        }
        keys.truncate(max);
        keys
    }

    /// A key of a primary slot, drawn by `random`: every key is about equally likely. It may be past its deadline.
    pub fn random_key(&self, random: u64) -> Option<(Slot, &[u8])> {
        let mut random = Random(random);
        for _ in 0..RANDOM_KEY_DRAWS {
            if let Some(at) = self.heap.pick(random.next())
                && let Some(slot) = self.slot_of(&self.heap.head(at))
                && matches!(self.roles[slot.ix()], Role::Primary { .. })
            {
                return Some((slot, self.key(at)));
            }
        }
        let slots = self.candidates.of(Scope::Own);
        let slot = Slot(*slots.get(evict::below(random.next(), slots.len()))?);
        let at = self.body(slot)?.table.pick(random.next())?;
        Some((slot, self.key(at)))
    }

    /// Whether a key is there and not past its deadline; changes nothing.
    pub fn holds(&self, slot: Slot, key: &[u8], now: Now) -> bool {
        let at = self.find(slot, self.hash(key), key);
        at != NIL && self.deadline(at).is_none_or(|d| d.0 > now.mono_ms)
    }

    fn idle_ms(&self, at: u32) -> u64 {
        u64::from(self.tick.age_of(self.heap.head(at).accessed())) * ACCESS_MS
    }

    /// Order-independent digest of keys, values and has-TTL (no deadlines, no recency); equal at equal (pterm, seq).
    pub fn digest(&self, slot: Slot) -> u64 {
        let (mut digest, mut cursor) = (Digest::default(), 0);
        loop {
            cursor = self.scan(slot, cursor, usize::MAX, |key, value, deadline| {
                digest.add(key, value, deadline.is_some());
            });
            if cursor == 0 {
                return digest.sum();
            }
        }
    }
}

/// Of keys and values in any order: the sum of one hash each.
#[derive(Debug, Default)]
pub struct Digest {
    sum: u64,
    scratch: Vec<u8>,
}

impl Digest {
    /// Takes a key in.
    pub fn add(&mut self, key: &[u8], value: &[u8], timed: bool) {
        let bytes = &mut self.scratch;
        bytes.clear();
        bytes.extend_from_slice(&(key.len() as u64).to_le_bytes());
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(value);
        bytes.push(u8::from(timed));
        self.sum = self.sum.wrapping_add(xxhash_rust::xxh3::xxh3_64(bytes));
    }

    /// Of all that was taken in.
    pub fn sum(&self) -> u64 {
        self.sum
    }
}
