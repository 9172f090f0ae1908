//! Every command, effect, role change and passage of time, against the model; scans; expiry.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::model::{Item, Model};
use super::*;

/// Few slots and few keys, so that they meet often.
const TEST_SLOTS: u16 = 3;
const TEST_KEYS: u8 = 12;

#[derive(Debug, Clone)]
enum Op {
    Get(u8),
    Peek(u8),
    Touch(u8),
    Set(u8, usize, u8),
    Del(u8),
    Evict(u8),
    Expire(u8, Option<i64>),
    /// Milliseconds.
    Pass(u64),
    /// At most so many keys.
    Sweep(usize),
    Role(u8),
    Clear,
    Dispose(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let key = 0..TEST_KEYS;
    let len = prop_oneof![8 => 0..200usize, 2 => 3_000..9_000usize, 1 => 120_000..140_000usize];
    prop_oneof![
        4 => key.clone().prop_map(Op::Get),
        1 => key.clone().prop_map(Op::Peek),
        1 => key.clone().prop_map(Op::Touch),
        8 => (key.clone(), len, 0..8u8).prop_map(|(k, len, ttl)| Op::Set(k, len, ttl)),
        3 => key.clone().prop_map(Op::Del),
        1 => key.clone().prop_map(Op::Evict),
        2 => (key, prop::option::of(-50..5_000i64)).prop_map(|(k, in_ms)| Op::Expire(k, in_ms)),
        3 => prop_oneof![0..40u64, 0..3_000u64, 0..10_000_000u64].prop_map(Op::Pass),
        2 => (0..20usize).prop_map(Op::Sweep),
        2 => (0..5u8).prop_map(Op::Role),
        1 => Just(Op::Clear),
        2 => (0..20usize).prop_map(Op::Dispose),
    ]
}

fn ttl_of(n: u8, now_ms: u64) -> Ttl {
    match n {
        0..=3 => Ttl::None,
        4 => Ttl::Keep,
        5 => Ttl::At(Deadline(now_ms + 30)),
        6 => Ttl::At(Deadline(now_ms + 2_000)),
        _ => Ttl::At(Deadline(now_ms + 40_000_000_000)),
    }
}

fn role_of(n: u8) -> Role {
    match n {
        0 => Role::None,
        1 => Role::Backup,
        n => Role::Primary { backed_at: n - 2 },
    }
}

fn content(store: &Store, slot: Slot) -> BTreeMap<Vec<u8>, Item> {
    let (mut all, mut cursor) = (BTreeMap::new(), 0);
    loop {
        cursor = store.scan(slot, cursor, 300, |k, v, deadline| {
            all.insert(k.to_vec(), Item { value: v.to_vec(), deadline });
        });
        if cursor == 0 {
            return all;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    /// The same answers, the same effects, the same content; and a second store that only applies the effects ends up equal.
    #[test]
    fn the_store_does_what_the_model_does(ops in prop::collection::vec((0..TEST_SLOTS, op()), 1..250), seed: u64) {
        let eviction = if seed % 2 == 0 { Eviction::Lru } else { Eviction::Sieve };
        let mut store = Store::with_seed(Budget::unlimited(), seed).with_eviction(eviction);
        let mut backup = Store::with_seed(Budget::unlimited(), !seed);
        let mut models = vec![Model::default(); TEST_SLOTS as usize];
        let mut backup_models = models.clone();
        let mut now_ms = 1_000_000;
        // The backup's host booted at another time.
        let there = |ms: u64| at(ms - 900_000);
        (0..TEST_SLOTS).for_each(|s| backup.set_role(Slot(s), Role::Backup));
        for (n, (s, op)) in ops.into_iter().enumerate() {
            let (slot, now) = (Slot(s), at(now_ms));
            let model = &mut models[s as usize];
            let (mut fx, mut expected) = (Effects::default(), Effects::default());
            let name = |k: u8| [b"key".as_slice(), &vec![b'0' + k; k as usize]].concat();
            let mut txn = store.txn(slot, now, &mut fx);
            match op {
                Op::Get(k) | Op::Peek(k) => {
                    let want = model.live(&name(k), now_ms, &mut expected);
                    let got = if matches!(op, Op::Get(_)) { txn.get(&name(k)) } else { txn.peek(&name(k)) };
                    let want = want.map(|i| i.value.as_slice());
                    prop_assert_eq!(got, want);
                    let meta = txn.meta(&name(k)).map(|m| (m.len, m.deadline, m.cost));
                    let len = |i: &Item| (i.value.len(), i.deadline, cost(name(k).len(), i.value.len(), i.deadline.is_some()));
                    prop_assert_eq!(meta, model.keys.get(&name(k)).map(len));
                }
                Op::Touch(k) => {
                    prop_assert_eq!(txn.touch(&name(k)), model.live(&name(k), now_ms, &mut expected).is_some());
                }
                Op::Set(k, len, ttl) => {
                    let value = vec![n as u8; len];
                    txn.set(&name(k), &value, ttl_of(ttl, now_ms));
                    model.set(&name(k), &value, ttl_of(ttl, now_ms), now_ms, &mut expected);
                }
                Op::Del(k) => prop_assert_eq!(txn.del(&name(k)), model.del(&name(k), now_ms, &mut expected)),
                Op::Evict(k) => prop_assert_eq!(txn.evict(&name(k)), model.del(&name(k), now_ms, &mut expected)),
                Op::Expire(k, in_ms) => {
                    let deadline = in_ms.map(|ms| Deadline(now_ms.saturating_add_signed(ms)));
                    let want = model.expire(&name(k), deadline, now_ms, &mut expected);
                    prop_assert_eq!(txn.expire(&name(k), deadline), want);
                }
                Op::Pass(ms) => now_ms += ms,
                Op::Sweep(max) => {
                    let due = store.expired(now, max);
                    prop_assert!(due.len() <= max);
                    for (slot, key) in due {
                        let primary = matches!(store.role(slot), Role::Primary { .. });
                        prop_assert!(primary);
                        let model = &mut models[slot.ix()];
                        prop_assert!(model.keys[&*key].deadline.unwrap().0 <= now_ms);
                        let mut fx = Effects::default();
                        prop_assert!(store.txn(slot, now, &mut fx).peek(&key).is_none());
                        let mut want = Effects::default();
                        model.live(&key, now_ms, &mut want);
                        prop_assert_eq!(fx.bytes(), want.bytes());
                        backup.apply(slot, fx.bytes(), there(now_ms), now_ms).unwrap();
                        backup_models[slot.ix()].apply(fx.bytes(), there(now_ms).mono_ms, now_ms);
                    }
                }
                Op::Role(r) => store.set_role(slot, role_of(r)),
                Op::Dispose(max) => _ = store.dispose(max),
                Op::Clear => {
                    store.clear_slot(slot);
                    model.keys.clear();
                    fx.push(Effect::Flush);
                    expected.push(Effect::Flush);
                }
            }
            prop_assert_eq!(fx.bytes(), expected.bytes());
            backup.apply(slot, fx.bytes(), there(now_ms), now_ms).unwrap();
            backup_models[slot.ix()].apply(fx.bytes(), there(now_ms).mono_ms, now_ms);
            let model = &models[slot.ix()];
            prop_assert_eq!(store.slot_stats(slot), model.stats());
            prop_assert_eq!(backup.slot_stats(slot).keys, model.stats().keys);
        }
        for (s, (model, backup_model)) in models.iter().zip(&backup_models).enumerate() {
            prop_assert_eq!(&content(&store, Slot(s as u16)), &model.keys);
            prop_assert_eq!(&content(&backup, Slot(s as u16)), &backup_model.keys);
            prop_assert_eq!(store.digest(Slot(s as u16)), model.digest());
            prop_assert_eq!(backup.digest(Slot(s as u16)), model.digest());
        }
        audit(&mut store);
        audit(&mut backup);
    }

    /// A copy by cursor between live writes, as a learner gets it, ends equal.
    #[test]
    fn a_copy_with_writes_between_its_chunks_is_complete(
        first in 0..600u32,
        between in prop::collection::vec(prop::collection::vec((0..900u32, 0..4u8), 0..60), 1..40),
        chunk in 1..3_000usize,
    ) {
        let slot = Slot(77);
        let mut from = Store::default();
        let mut to = Store::default();
        let key = |n: u32| n.to_string().into_bytes();
        for n in 0..first {
            from.txn(slot, at(1), &mut Effects::default()).set(&key(n), b"first", Ttl::None);
        }
        let (mut cursor, mut round) = (0, 0);
        loop {
            let mut fx = Effects::default();
            cursor = from.scan(slot, cursor, chunk, |k, v, d| fx.push(Effect::Set(k, v, d.map_or(Ttl::None, Ttl::At))));
            to.apply(slot, fx.bytes(), at(1), 1).unwrap();
            if cursor == 0 {
                break;
            }
            for &(n, what) in between.get(round).unwrap_or(&Vec::new()) {
                let mut fx = Effects::default();
                let mut txn = from.txn(slot, at(1), &mut fx);
                match what {
                    0 => txn.set(&key(n), &key(round as u32), Ttl::At(Deadline(99))),
                    1 => drop(txn.expire(&key(n), None)),
                    _ => drop(txn.del(&key(n))),
                }
                to.apply(slot, fx.bytes(), at(1), 1).unwrap();
            }
            round += 1;
        }
        prop_assert_eq!(to.slot_stats(slot), from.slot_stats(slot));
        prop_assert_eq!(to.digest(slot), from.digest(slot));
    }
}

#[test]
fn malformed_effects_change_nothing() {
    let mut fx = Effects::default();
    fx.push(Effect::Set(b"k", b"v", Ttl::None));
    let mut store = Store::default();
    let broken = [fx.bytes(), &[9]].concat();
    assert_eq!(store.apply(Slot(1), &broken, at(1), 1), Err(ApplyError::Malformed(Malformed)));
    assert_eq!(store.slot_stats(Slot(1)), SlotStats::default());
}

#[test]
fn a_backup_expires_nothing_until_it_is_promoted() {
    let mut store = Store::default();
    let slots: Vec<Slot> = (0..50).map(Slot).collect();
    let mut fx = Effects::default();
    fx.push(Effect::Set(b"soon", b"", Ttl::At(Deadline(500))));
    fx.push(Effect::Set(b"late", b"", Ttl::At(Deadline(100_000))));
    fx.push(Effect::Set(b"never", b"", Ttl::None));
    for &slot in &slots {
        store.set_role(slot, Role::Backup);
        store.apply(slot, fx.bytes(), at(100), 100).unwrap();
    }
    assert_eq!(store.expired(at(10_000), 1_000), []);
    assert_eq!(store.totals().backup_keys, 150);
    store.set_role(slots[7], Role::Primary { backed_at: 0 });
    assert_eq!(store.expired(at(10_000), 1_000), [(slots[7], b"soon".as_slice().into())]);
    // Named again until it is deleted, and not once it is a backup's again.
    assert_eq!(store.expired(at(10_000), 1_000).len(), 1);
    store.set_role(slots[7], Role::Backup);
    assert_eq!(store.expired(at(10_000), 1_000), []);
    slots.iter().for_each(|&s| store.set_role(s, Role::Primary { backed_at: 1 }));
    let mut named = BTreeSet::new();
    // A few at a time, each slot in its turn.
    for _ in 0..slots.len().div_ceil(9) {
        named.extend(store.expired(at(10_000), 9));
    }
    assert_eq!(named.len(), 50);
    for (slot, key) in named {
        assert_eq!(store.txn(slot, at(10_000), &mut fx).get(&key), None);
    }
    assert_eq!(store.expired(at(10_000), 1_000), []);
    assert_eq!((store.totals().expired, store.totals().primary_keys), (50, 100));
}

#[test]
fn every_deadline_is_found_however_far_and_however_few_at_a_time() {
    let mut store = Store::default();
    let slot = Slot(3);
    store.set_role(slot, Role::Primary { backed_at: 0 });
    let mut deadlines = BTreeMap::new();
    let mut random = Random(5);
    let start = 77_777;
    for n in 0..5_000u32 {
        // Evenly over the magnitudes.
        let far = random.next() >> (random.next() % 64);
        let deadline = Deadline(far.max(start + 1));
        deadlines.insert(n.to_string().into_bytes(), deadline);
        store.txn(slot, at(start), &mut Effects::default()).set(n.to_string().as_bytes(), b"", Ttl::At(deadline));
    }
    let mut now_ms = start;
    while !deadlines.is_empty() {
        now_ms = now_ms.saturating_add(random.next() >> (random.next() % 64));
        loop {
            let due = store.expired(at(now_ms), 10);
            if due.is_empty() && store.wheel.step(now_ms) == Step::Idle {
                break;
            }
            for (slot, key) in due {
                assert!(deadlines.remove(&*key).unwrap().0 <= now_ms);
                assert!(!store.txn(slot, at(now_ms), &mut Effects::default()).touch(&key));
            }
        }
        // At most a tick is left, and at the end of time nothing.
        assert!(deadlines.values().all(|d| d.0 > now_ms.saturating_sub(expiry::TICK_MS)), "{now_ms}");
        if now_ms == u64::MAX {
            break;
        }
    }
    assert!(deadlines.is_empty());
    assert_eq!(store.totals().primary_keys, 0);
}

#[test]
fn keys_can_be_listed_and_drawn() {
    let mut store = Store::default();
    assert_eq!(store.random_key(1), None);
    let slot = Slot(9);
    for n in 0..100u32 {
        store.txn(slot, at(1), &mut Effects::default()).set(&n.to_le_bytes(), b"", Ttl::None);
        store.txn(Slot(10), at(1), &mut Effects::default()).set(&n.to_le_bytes(), b"", Ttl::None);
    }
    assert_eq!(store.keys_in_slot(slot, 7).len(), 7);
    assert_eq!(store.keys_in_slot(slot, 1_000).iter().collect::<BTreeSet<_>>().len(), 100);
    assert_eq!(store.random_key(1), None, "no slot is primary");
    store.set_role(slot, Role::Primary { backed_at: 0 });
    let mut drawn = BTreeSet::new();
    for random in 0..4_000 {
        let (s, key) = store.random_key(random).unwrap();
        assert_eq!(s, slot);
        drawn.insert(key.to_vec());
    }
    assert_eq!(drawn.len(), 100);
}

#[test]
fn warming_changes_nothing() {
    let mut store = Store::default();
    let slot = Slot(4);
    store.set_role(slot, Role::Primary { backed_at: 1 });
    let keys: Vec<String> = (0..40).map(|n| format!("{0:0>1$}", n, n * n * 40 + 2)).collect();
    let wanted = || keys.iter().enumerate().map(|(i, k)| Wanted::new(i, slot, k.as_bytes())).collect::<Vec<_>>();
    for (n, key) in keys.iter().enumerate() {
        let mut wanted = wanted();
        store.warm(&mut wanted, |_| (), |_| ());
        assert!(wanted.iter().zip(&keys).all(|(w, k)| w.hash == (n > 0).then(|| store.hash(k.as_bytes()))));
        store.txn(slot, at(1), &mut Effects::default()).set(key.as_bytes(), b"", Ttl::None);
    }
    let (before, oldest) = (store.totals(), store.victim(NeedRoom { bytes: 1, scope: Scope::Own }));
    let mut all = wanted();
    store.warm(&mut all, |_| (), |_| ());
    assert_eq!((before, oldest), (store.totals(), store.victim(NeedRoom { bytes: 1, scope: Scope::Own })));
    // What was found is gone by the next step.
    let mut all = wanted();
    for step in STEPS.into_iter().chain(MORE_STEPS) {
        all.iter_mut().for_each(|w| step(&store, w));
        store.clear_slot(slot);
        while store.dispose(100) {}
    }
}

#[test]
fn keys_of_any_length_are_told_apart() {
    let mut store = Store::default();
    let slot = Slot(0);
    let keys: Vec<Vec<u8>> = (0..300).map(|n| vec![b'x'; n * n]).collect();
    for (n, key) in keys.iter().enumerate() {
        store.txn(slot, at(1), &mut Effects::default()).set(key, &[n as u8], Ttl::None);
    }
    for (n, key) in keys.iter().enumerate() {
        assert_eq!(store.txn(slot, at(1), &mut Effects::default()).get(key), Some([n as u8].as_slice()));
    }
    audit(&mut store);
}
