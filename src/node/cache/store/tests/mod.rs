//! The store as a whole, held to a model of it, to its books and to its promises.

mod memory;
mod model;
mod recency;
mod semantics;

use std::collections::BTreeMap;

use super::*;

/// A store's books, counted anew from what it holds.
fn audit(store: &mut Store) {
    store.settle();
    let (mut primary, mut backup, mut all) = ((0, 0), (0, 0), 0);
    let mut groups = BTreeMap::<u8, u64>::new();
    let mut candidates = BTreeMap::<u8, Vec<u16>>::new();
    for slot in (0..SLOTS as u16).map(Slot) {
        let (mut keys, mut bytes, mut cursor) = (0, 0, 0);
        loop {
            cursor = store.scan(slot, cursor, usize::MAX, |k, v, deadline| {
                keys += 1;
                bytes += cost(k.len(), v.len(), deadline.is_some());
            });
            if cursor == 0 {
                break;
            }
        }
        assert_eq!(store.slot_stats(slot), SlotStats { keys, bytes });
        all += bytes;
        match store.role(slot) {
            Role::None => {}
            Role::Backup => backup = (backup.0 + keys, backup.1 + bytes),
            Role::Primary { backed_at } => {
                primary = (primary.0 + keys, primary.1 + bytes);
                *groups.entry(backed_at).or_default() += bytes;
                if keys > 0 {
                    candidates.entry(backed_at).or_default().push(slot.0);
                }
            }
        }
    }
    let held: u64 = (0..SLOTS as u16).map(|s| store.slot_stats(Slot(s)).keys).sum();
    assert_eq!(store.dispose(3), u64::from(store.heap.live()) > held);
    assert!(!store.dispose(usize::MAX));
    assert_eq!(u64::from(store.heap.live()), held);
    assert_eq!(store.bodies.len() - store.free_bodies.len(), store.body_of.iter().filter(|b| **b != NO_BODY).count());
    let t = store.totals();
    assert_eq!((t.primary_keys, t.primary_bytes), primary);
    assert_eq!((t.backup_keys, t.backup_bytes), backup);
    let budget = store.budget();
    assert_eq!((budget.primary_used(), budget.backup_used(), budget.used()), (primary.1, backup.1, all));
    for group in 0..=255 {
        assert_eq!(budget.group_used(group), groups.get(&group).copied().unwrap_or(0));
        let mut listed = store.candidates.of(Scope::Group(group)).to_vec();
        listed.sort_unstable();
        assert_eq!(listed, candidates.remove(&group).unwrap_or_default());
    }
}

fn at(mono_ms: u64) -> Now {
    Now { mono_ms, wall_ms: mono_ms.saturating_add(1_700_000_000_000) }
}

fn get(store: &mut Store, key: &[u8], now: Now) -> Option<Vec<u8>> {
    store.txn(Slot::of_key(key), now, &mut Effects::default()).get(key).map(<[u8]>::to_vec)
}
