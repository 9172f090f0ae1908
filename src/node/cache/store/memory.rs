//! What keys cost, and who may use how much: one [`Budget`] for the node, one [`Ledger`] for each shard.
//!
//! Invariants, at any instant and over all shards: `primary + backup + unowned = total ≤ limit`; a command changes nothing
//! unless its reservation fits the primary quota and, where the slot has a backup, the credit of that peer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::heap;
use super::{NeedRoom, Role, Scope};

/// Accounted bytes of an item beside its place in the heap: its bucket. What bounded holes take is within the promise that the
/// resident size is at most 1.1 × limit + 16 MiB.
const BUCKET: u64 = 6;
/// Accounted bytes of a timer.
const TIMER: u64 = 24;
/// What a key's first deadline takes at most.
pub const DEADLINE_COST_MAX: u64 = TIMER + heap::TIMED_GROWTH_MAX;
/// Groups of slots that share a backup peer: as many as a byte names, 0 = without backup.
const GROUPS: usize = 256;

/// What an item is accounted as, with a deadline (`timed`) or without: a pure function of what copies agree on, so that a primary
/// knows what its backups hold. It is what the item really takes: its size class, not its length.
pub fn cost(key_len: usize, value_len: usize, timed: bool) -> u64 {
    heap::footprint(key_len, value_len, timed) + BUCKET + if timed { TIMER } else { 0 }
}

/// What a key with this value costs at most: with a deadline.
pub fn cost_of(key_len: usize, value_len: usize) -> u64 {
    cost(key_len, value_len, true)
}

#[derive(Debug, Default)]
struct Group {
    used: AtomicU64,
    credit: AtomicU64,
}

/// A node's memory in sum, shared by its shards. All figures are accounted bytes; `used` figures include reservations.
#[derive(Debug)]
pub struct Budget {
    limit: u64,
    primary_quota: AtomicU64,
    primary_quota_target: AtomicU64,
    taking_in: AtomicBool,
    total: AtomicU64,
    primary: AtomicU64,
    backup: AtomicU64,
    groups: Vec<Group>,
}

/// Adds if the sum stays within the limit; else says how much it lacks.
fn try_add(to: &AtomicU64, bytes: u64, limit: u64) -> Result<(), u64> {
    to.fetch_update(Relaxed, Relaxed, |used| used.checked_add(bytes).filter(|&sum| sum <= limit))
        .map(|_| ())
        .map_err(|used| used.saturating_add(bytes).saturating_sub(limit))
}

impl Budget {
    /// Of so many bytes, all of which primaries may use until a quota is set. No peer has granted credit yet.
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self {
            limit,
            primary_quota: AtomicU64::new(limit),
            primary_quota_target: AtomicU64::new(limit),
            taking_in: AtomicBool::new(false),
            total: AtomicU64::default(),
            primary: AtomicU64::default(),
            backup: AtomicU64::default(),
            groups: (0..GROUPS).map(|_| Group::default()).collect(),
        })
    }

    /// Without a limit, for tests and tools.
    pub fn unlimited() -> Arc<Self> {
        Self::new(u64::MAX)
    }

    /// What the node may use in all.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// What primary slots may use.
    pub fn primary_quota(&self) -> u64 {
        self.primary_quota.load(Relaxed)
    }

    /// See [`Budget::primary_quota`].
    pub fn set_primary_quota(&self, bytes: u64) {
        self.primary_quota.store(bytes, Relaxed);
    }

    /// What primary slots shall be able to use once peers have made room.
    pub fn primary_quota_target(&self) -> u64 {
        self.primary_quota_target.load(Relaxed)
    }

    /// Whether a new configuration is being taken in: slots and shares don't belong together, and what is short may not be.
    pub fn is_taking_in(&self) -> bool {
        self.taking_in.load(Relaxed)
    }

    /// See [`Budget::is_taking_in`]. Said before the first shard is locked for it, and taken back after the last.
    pub fn set_taking_in(&self, on: bool) {
        self.taking_in.store(on, Relaxed);
    }

    /// See [`Budget::primary_quota_target`].
    pub fn set_primary_quota_target(&self, bytes: u64) {
        self.primary_quota_target.store(bytes, Relaxed);
    }

    /// What the peer that backs a group lets the group's slots use there; nothing until it said so.
    pub fn credit(&self, group: u8) -> u64 {
        if group == 0 { u64::MAX } else { self.groups[group as usize].credit.load(Relaxed) }
    }

    /// See [`Budget::credit`].
    pub fn set_credit(&self, group: u8, bytes: u64) {
        self.groups[group as usize].credit.store(bytes, Relaxed);
    }

    /// Bytes of primary slots.
    pub fn primary_used(&self) -> u64 {
        self.primary.load(Relaxed)
    }

    /// Bytes of backup slots.
    pub fn backup_used(&self) -> u64 {
        self.backup.load(Relaxed)
    }

    /// Bytes of all slots.
    pub fn used(&self) -> u64 {
        self.total.load(Relaxed)
    }

    /// Bytes of primary slots in a group.
    pub fn group_used(&self, group: u8) -> u64 {
        self.groups[group as usize].used.load(Relaxed)
    }

    /// What primaries hold above the quota, or above what backups leave of the limit.
    fn primary_excess(&self) -> u64 {
        self.primary_used().saturating_sub(self.primary_quota()).max(self.used().saturating_sub(self.limit))
    }

    /// What a group holds above its credit.
    fn group_excess(&self, group: u8) -> u64 {
        self.group_used(group).saturating_sub(self.credit(group))
    }

    /// Takes bytes for a slot of this role if they fit everywhere; else takes none.
    fn try_take(&self, role: Role, bytes: u64) -> Result<(), NeedRoom> {
        if bytes == 0 {
            // What adds nothing needs no room, whatever others hold too much.
            return Ok(());
        }
        let fits_ever = match role {
            Role::Primary { backed_at } => {
                bytes <= self.primary_quota()
                    && bytes <= self.credit(backed_at)
                    && bytes <= self.limit.saturating_sub(self.backup_used())
            }
            Role::Backup | Role::None => false,
        };
        let lack = |scope| move |bytes| NeedRoom { bytes, scope: if fits_ever { scope } else { Scope::Nobody } };
        try_add(&self.total, bytes, self.limit).map_err(lack(Scope::Own))?;
        match role {
            Role::None => {}
            Role::Backup => {
                self.backup.fetch_add(bytes, Relaxed);
            }
            Role::Primary { backed_at } => {
                if let Err(lacking) = try_add(&self.primary, bytes, self.primary_quota()) {
                    self.total.fetch_sub(bytes, Relaxed);
                    return Err(lack(Scope::Own)(lacking));
                }
                if let Err(lacking) = try_add(&self.groups[backed_at as usize].used, bytes, self.credit(backed_at)) {
                    self.total.fetch_sub(bytes, Relaxed);
                    self.primary.fetch_sub(bytes, Relaxed);
                    return Err(lack(Scope::Group(backed_at))(lacking));
                }
            }
        }
        Ok(())
    }

    fn change(&self, role: Role, change: impl Fn(&AtomicU64)) {
        match role {
            Role::None => {}
            Role::Backup => change(&self.backup),
            Role::Primary { backed_at } => {
                change(&self.primary);
                change(&self.groups[backed_at as usize].used);
            }
        }
    }

    fn take(&self, role: Role, bytes: u64) {
        self.total.fetch_add(bytes, Relaxed);
        self.change(role, |sum| _ = sum.fetch_add(bytes, Relaxed));
    }

    fn give(&self, role: Role, bytes: u64) {
        self.total.fetch_sub(bytes, Relaxed);
        self.change(role, |sum| _ = sum.fetch_sub(bytes, Relaxed));
    }

    fn recast(&self, from: Role, to: Role, bytes: u64) {
        self.change(from, |sum| _ = sum.fetch_sub(bytes, Relaxed));
        self.change(to, |sum| _ = sum.fetch_add(bytes, Relaxed));
    }
}

/// Keys and their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sum {
    /// How many keys.
    pub keys: u64,
    /// Accounted bytes.
    pub bytes: u64,
}

/// A shard's own books. Every byte is in the budget before it is here, and leaves here first.
#[derive(Debug)]
pub struct Ledger {
    budget: Arc<Budget>,
    /// Taken from the budget for this role and not used yet.
    held: u64,
    held_for: Role,
    /// Bytes freed go to `held`: what a command replaces is its own to use until the end.
    pooling: bool,
    primary: Sum,
    backup: Sum,
    unowned: Sum,
}

impl Ledger {
    /// Of an empty shard.
    pub fn new(budget: Arc<Budget>) -> Self {
        let none = Sum::default();
        Self { budget, held: 0, held_for: Role::None, pooling: false, primary: none, backup: none, unowned: none }
    }

    /// The node's.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// Keys and bytes of primary slots.
    pub fn primary(&self) -> Sum {
        self.primary
    }

    /// Keys and bytes of backup slots.
    pub fn backup(&self) -> Sum {
        self.backup
    }

    fn sum(&mut self, role: Role) -> &mut Sum {
        match role {
            Role::None => &mut self.unowned,
            Role::Primary { .. } => &mut self.primary,
            Role::Backup => &mut self.backup,
        }
    }

    /// Makes sure that so many bytes can be added to a slot of this role, on top of what was reserved before. From here to
    /// [`Ledger::settle`], what is freed in slots of this role is reserved too.
    pub fn reserve(&mut self, role: Role, bytes: u64) -> Result<(), NeedRoom> {
        if self.held > 0 && self.held_for != role {
            self.settle();
        }
        self.budget.try_take(role, bytes)?;
        self.held += bytes;
        self.held_for = role;
        self.pooling = true;
        Ok(())
    }

    /// From here to [`Ledger::settle`], bytes that this role frees are kept for what it adds.
    pub fn pool(&mut self, role: Role) {
        if self.held_for != role {
            self.settle();
        }
        self.held_for = role;
        self.pooling = true;
    }

    /// Gives back what was reserved and not used.
    pub fn settle(&mut self) {
        self.pooling = false;
        let held = std::mem::take(&mut self.held);
        if held > 0 {
            self.budget.give(self.held_for, held);
        }
    }

    /// A slot of this role changed by so many keys and bytes.
    pub fn change(&mut self, role: Role, keys: i64, bytes: i64) {
        let sum = self.sum(role);
        sum.keys = sum.keys.wrapping_add_signed(keys);
        sum.bytes = sum.bytes.wrapping_add_signed(bytes);
        let n = bytes.unsigned_abs();
        if bytes < 0 {
            if self.pooling && role == self.held_for {
                self.held += n;
            } else {
                self.budget.give(role, n);
            }
        } else {
            let reserved = if role == self.held_for { n.min(self.held) } else { 0 };
            self.held -= reserved;
            if n > reserved {
                debug_assert!(self.budget.limit == u64::MAX, "{} bytes more than were reserved", n - reserved);
                self.budget.take(role, n - reserved);
            }
        }
    }

    /// A slot's role changed.
    pub fn recast(&mut self, from: Role, to: Role, keys: u64, bytes: u64) {
        self.settle();
        let sum = self.sum(from);
        sum.keys -= keys;
        sum.bytes -= bytes;
        let sum = self.sum(to);
        sum.keys += keys;
        sum.bytes += bytes;
        self.budget.recast(from, to, bytes);
    }

    /// What this node holds too much of, among the groups that `here` names.
    pub fn excess(&self, mut here: impl Iterator<Item = u8>) -> Option<NeedRoom> {
        let own = self.budget.primary_excess();
        if own > 0 {
            return Some(NeedRoom { bytes: own, scope: Scope::Own });
        }
        here.find_map(|g| match self.budget.group_excess(g) {
            0 => None,
            bytes => Some(NeedRoom { bytes, scope: Scope::Group(g) }),
        })
    }
}
