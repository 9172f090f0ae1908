//! Commands that walk all keys of this node: SCAN, KEYS, RANDOMKEY, DBSIZE. Only slots it is primary of count.
//!
//! A SCAN cursor is the slot and the place in the slot, packed. Slots come shard by shard, so that one call locks few shards;
//! each lock is held for a bounded number of keys. A key that is there from start to end is returned at least once, because
//! the store promises so within a slot, and slots don't change places.

use super::context::NodeCtx;
use super::error::{ErrorReply, SYNTAX};
use super::glob;
use super::host::Host;
use super::parse::{cursor, int_arg, is};
use super::spec::{Spec, acl, flag};
use crate::node::cache::store::{Now, Role, Store};
use crate::proto::reply::Reply;
use crate::proto::slot::{SLOTS, Slot};

/// Low bits of a cursor that hold the slot; the rest is the place in the slot, which the store keeps below 2^50.
const SLOT_BITS: u32 = SLOTS.trailing_zeros();
/// Keys a SCAN looks at unless told otherwise.
const SCAN_COUNT: usize = 10;
/// Keys KEYS looks at before it lets others have the shard (a slot is always finished, so that no key comes twice).
const KEYS_SLICE: usize = 1000;

/// Keys RANDOMKEY draws in search of one that has not expired, before it takes the first such.
const RANDOM_DRAWS: usize = 32;

const ALL_SHARDS: &str = "request_policy:all_shards";

pub(super) const COMMANDS: &[Spec] = &[
    Spec::node("dbsize", 1, dbsize)
        .with(flag::READONLY | flag::FAST, acl::KEYSPACE)
        .tips(&[ALL_SHARDS, "response_policy:agg_sum"])
        .doc("server", "1.0.0", "", "How many keys this node is primary of."),
    Spec::node("keys", 2, keys)
        .with(flag::READONLY, acl::KEYSPACE | acl::DANGEROUS)
        .tips(&[ALL_SHARDS, "nondeterministic_output_order"])
        .complexity("O(N) with N keys")
        .doc("generic", "1.0.0", "<pattern>", "All keys of this node that match a pattern."),
    Spec::node("randomkey", 1, randomkey)
        .with(flag::READONLY, acl::KEYSPACE)
        .tips(&[ALL_SHARDS, "nondeterministic_output"])
        .doc("generic", "1.0.0", "", "Some key of this node."),
    Spec::node("scan", -2, scan)
        .with(flag::READONLY, acl::KEYSPACE)
        .tips(&["nondeterministic_output", "request_policy:special"])
        .complexity("O(1) a call, O(N) with N keys in all")
        .doc(
            "generic",
            "2.8.0",
            "<cursor> [MATCH pattern] [COUNT count] [TYPE type]",
            "The keys of this node, a few a call.",
        ),
];

fn is_primary(store: &Store, slot: Slot) -> bool {
    matches!(store.role(slot), Role::Primary { .. })
}

/// Calls `each` with the live keys of a primary slot until it returns false.
pub(super) fn keys_of_slot(store: &Store, slot: Slot, now: Now, each: &mut dyn FnMut(&[u8]) -> bool) {
    if !is_primary(store, slot) {
        return;
    }
    let (mut at, mut go_on) = (0, true);
    loop {
        at = store.scan(slot, at, 1, |key, _, deadline| {
            if go_on && deadline.is_none_or(|d| d.0 > now.mono_ms) {
                go_on = each(key);
            }
        });
        if at == 0 || !go_on {
            return;
        }
    }
}

/// The slots in the order in which they are walked: shard by shard, beginning with slot 0, whose cursor 0 means the start.
struct Order {
    shards: usize,
    first_shard: usize,
}

impl Order {
    fn of(host: &dyn Host) -> Self {
        Self { shards: host.shards().max(1), first_shard: host.shard_of(Slot(0)) }
    }

    /// The next slot of the same shard.
    fn within(&self, host: &dyn Host, slot: Slot, shard: usize) -> Option<Slot> {
        (slot.0 + 1..SLOTS as u16).map(Slot).find(|&s| host.shard_of(s) == shard)
    }

    /// The first slot of the shards after this one.
    fn beyond(&self, host: &dyn Host, shard: usize) -> Option<Slot> {
        let done = (shard + self.shards - self.first_shard) % self.shards;
        (done + 1..self.shards).find_map(|i| {
            let next = (self.first_shard + i) % self.shards;
            (0..SLOTS as u16).map(Slot).find(|&s| host.shard_of(s) == next)
        })
    }
}

/// How far one walk goes.
#[derive(Clone, Copy)]
struct Budget {
    /// Keys to look at.
    keys: usize,
    /// Whether the last slot is walked to its end all the same.
    whole_slots: bool,
}

/// Walks on from `from` within the budget, calling `each` with live keys; returns the cursor to go on from, 0 at the end.
fn walk(host: &dyn Host, from: u64, budget: Budget, each: &mut dyn FnMut(&[u8])) -> u64 {
    let now = host.now();
    let order = Order::of(host);
    let mut slot = Slot((from & (SLOTS as u64 - 1)) as u16);
    let mut at = from >> SLOT_BITS;
    let mut left = budget.keys;
    loop {
        let shard = host.shard_of(slot);
        let mut next = None;
        host.with_shard(shard, &mut |store| {
            loop {
                if is_primary(store, slot) && store.slot_stats(slot).keys > 0 {
                    loop {
                        at = store.scan(slot, at, 1, |key, _, deadline| {
                            left = left.saturating_sub(1);
                            if deadline.is_none_or(|d| d.0 > now.mono_ms) {
                                each(key);
                            }
                        });
                        if at == 0 || (left == 0 && !budget.whole_slots) {
                            break;
                        }
                    }
                } else {
                    at = 0;
                }
                if at != 0 {
                    next = Some(slot);
                    return;
                }
                next = order.within(host, slot, shard);
                match next {
                    Some(s) if left > 0 => slot = s,
                    _ => return,
                }
            }
        });
        match next.or_else(|| order.beyond(host, shard)) {
            None => return 0,
            Some(s) if left == 0 => return at << SLOT_BITS | u64::from(s.0),
            Some(s) => slot = s,
        }
    }
}

fn scan(c: &mut NodeCtx<'_, '_>) -> Result<(), ErrorReply> {
    const BAD_CURSOR: ErrorReply = ErrorReply::text("ERR invalid cursor");
    let args = c.args;
    let from = cursor(&args[1]).ok_or(BAD_CURSOR)?;
    let (mut count, mut pattern, mut strings) = (SCAN_COUNT, None, true);
    let mut i = 2;
    while let Some(word) = args.get(i) {
        let value = args.get(i + 1).ok_or(SYNTAX)?;
        if is(word, "count") {
            count = usize::try_from(int_arg(value)?).ok().filter(|&n| n > 0).ok_or(SYNTAX)?;
        } else if is(word, "match") {
            pattern = Some(value);
        } else if is(word, "type") {
            strings = is(value, "string");
        } else {
            return Err(SYNTAX);
        }
        i += 2;
    }
    let (mut body, mut n, proto) = (Vec::new(), 0, c.out.proto());
    let budget = Budget { keys: count, whole_slots: false };
    let next = walk(c.host, from, budget, &mut |key| {
        if strings && pattern.is_none_or(|p| glob::matches(p, key)) {
            Reply::new(&mut body, proto).bulk(key);
            n += 1;
        }
    });
    c.out.array(2);
    c.out.bulk(itoa::Buffer::new().format(next).as_bytes());
    c.out.array(n);
    c.out.raw(&body);
    Ok(())
}

fn keys(c: &mut NodeCtx<'_, '_>) -> Result<(), ErrorReply> {
    let args = c.args;
    let (mut body, mut n, mut at, proto) = (Vec::new(), 0, 0, c.out.proto());
    let budget = Budget { keys: KEYS_SLICE, whole_slots: true };
    loop {
        at = walk(c.host, at, budget, &mut |key| {
            if glob::matches(&args[1], key) {
                Reply::new(&mut body, proto).bulk(key);
                n += 1;
            }
        });
        if at == 0 {
            break;
        }
    }
    c.out.array(n);
    c.out.raw(&body);
    Ok(())
}

/// How many keys each shard is primary of, expired ones that nobody met yet included, as in Redis.
fn key_counts(host: &dyn Host) -> Vec<u64> {
    let mut counts = Vec::new();
    host.for_each_store(&mut |store| counts.push(store.totals().primary_keys));
    counts
}

fn dbsize(c: &mut NodeCtx<'_, '_>) -> Result<(), ErrorReply> {
    let sum: u64 = key_counts(c.host).iter().sum();
    c.out.int(sum as i64);
    Ok(())
}

fn randomkey(c: &mut NodeCtx<'_, '_>) -> Result<(), ErrorReply> {
    let now = c.host.now();
    let counts = key_counts(c.host);
    let sum: u64 = counts.iter().sum();
    let mut found: Option<Vec<u8>> = None;
    for _ in 0..if sum == 0 { 0 } else { RANDOM_DRAWS } {
        let mut pick = rand::random_range(0..sum);
        let shard = counts.iter().position(|&keys| match pick.checked_sub(keys) {
            Some(rest) => {
                pick = rest;
                false
            }
            None => true,
        });
        c.host.with_shard(shard.unwrap_or(0), &mut |store| {
            let key = store.random_key(rand::random()).filter(|&(slot, key)| store.holds(slot, key, now));
            found = key.map(|(_, key)| key.to_vec());
        });
        if found.is_some() {
            break;
        }
    }
    // Nearly all keys that were drawn had expired: the first that has not will do.
    let mut at = 0;
    while sum > 0 && found.is_none() {
        let budget = Budget { keys: KEYS_SLICE, whole_slots: false };
        at = walk(c.host, at, budget, &mut |key| found = Some(found.take().unwrap_or_else(|| key.to_vec())));
        if at == 0 {
            break;
        }
    }
    c.out.bulk_or_null(found.as_deref());
    Ok(())
}
