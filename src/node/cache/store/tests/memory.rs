//! Quotas, credit, the hard limit, and the books under random role changes.

use proptest::prelude::*;

use super::*;

const LIMIT: u64 = 200_000;

/// Writes as a shard does: reserves, evicts while it must; whether it was written.
fn write(store: &mut Store, slot: Slot, key: &[u8], value: &[u8], now: Now) -> bool {
    loop {
        let mut fx = Effects::default();
        let mut txn = store.txn(slot, now, &mut fx);
        match txn.reserve(cost_of(key.len(), value.len())) {
            Ok(()) => {
                txn.set(key, value, Ttl::None);
                return true;
            }
            Err(need) => {
                let Some((victim, key)) = store.victim(need) else { return false };
                assert!(store.txn(victim, now, &mut fx).evict(&key));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn nobody_ever_uses_more_than_is_theirs(
        steps in prop::collection::vec((0..8u8, 0..30u8, 0..60u8, 0..20_000usize), 1..500),
        seed: u64,
    ) {
        let budget = Budget::new(LIMIT);
        let mut store = Store::with_seed(budget.clone(), seed);
        let mut neighbour = Store::with_seed(budget.clone(), !seed);
        let mut now_ms = 0;
        for (n, (what, s, k, len)) in steps.into_iter().enumerate() {
            now_ms += 7;
            let (slot, key) = (Slot(u16::from(s)), [k]);
            match what {
                0 => {
                    let group = k % 4;
                    let role = [Role::None, Role::Backup, Role::Primary { backed_at: group }][len % 3];
                    store.set_role(slot, role);
                }
                1 if k < 10 => store.set_primary_quota(len as u64 * 10),
                1 => store.set_credit(k % 4, len as u64 * 10),
                2 | 3 if store.role(slot) == Role::Backup => {
                    let mut fx = Effects::default();
                    (0..k % 5).for_each(|i| fx.push(Effect::Set(&[i], &vec![0; len], Ttl::None)));
                    fx.push(Effect::Del(&[k % 5]));
                    let (before, used) = (store.digest(slot), budget.used());
                    match store.apply(slot, fx.bytes(), at(now_ms), 0) {
                        Ok(()) => {}
                        Err(e) => {
                            prop_assert_eq!(e, ApplyError::Full);
                            prop_assert_eq!((store.digest(slot), budget.used()), (before, used));
                            prop_assert!(used + u64::from(k % 5) * cost_of(1, len) > LIMIT);
                        }
                    }
                }
                4 => {
                    // Another shard of the node takes its part.
                    neighbour.set_role(slot, Role::Primary { backed_at: k % 2 });
                    write(&mut neighbour, slot, &key, &vec![1; len / 4], at(now_ms));
                }
                _ if matches!(store.role(slot), Role::Primary { .. }) => {
                    let Role::Primary { backed_at } = store.role(slot) else { unreachable!() };
                    let done = write(&mut store, slot, &key, &vec![2; len], at(now_ms));
                    prop_assert_eq!(done, get(&mut store, slot, &key, at(now_ms)) == Some(vec![2; len]));
                    if done {
                        prop_assert!(budget.primary_used() <= budget.primary_quota());
                        prop_assert!(budget.group_used(backed_at) <= budget.credit(backed_at));
                    }
                }
                _ => {}
            }
            prop_assert!(budget.used() <= LIMIT);
            if n % 16 == 0 {
                neighbour.settle();
                store.settle();
                let sum = store.totals().primary_bytes + neighbour.totals().primary_bytes;
                prop_assert_eq!(budget.primary_used(), sum);
            }
        }
        // Alone, the books agree to the byte.
        (0..SLOTS as u16).for_each(|s| neighbour.clear_slot(Slot(s)));
        neighbour.settle();
        audit(&mut store);
    }
}

fn get(store: &mut Store, slot: Slot, key: &[u8], now: Now) -> Option<Vec<u8>> {
    store.txn(slot, now, &mut Effects::default()).peek(key).map(<[u8]>::to_vec)
}

#[test]
fn the_short_group_pays_and_nobody_else() {
    let mut store = Store::new(Budget::new(LIMIT));
    for s in 0..20 {
        store.set_role(Slot(s), Role::Primary { backed_at: 1 + (s % 2) as u8 });
    }
    assert!(!write(&mut store, Slot(0), b"k", b"", at(1)), "no credit was granted yet");
    store.set_credit(1, 10_000);
    store.set_credit(2, 1_000_000);
    for n in 0..400u32 {
        assert!(write(&mut store, Slot((n % 20) as u16), &n.to_le_bytes(), &[0; 100], at(1 + u64::from(n))));
    }
    store.settle();
    let budget = store.budget().clone();
    assert_eq!(
        store.totals().primary_keys,
        200 + (10_000 - (cost_of(4, 100) - cost(4, 100, false))) / cost(4, 100, false)
    );
    assert!(budget.group_used(1) <= 10_000);
    assert_eq!(budget.group_used(2), 200 * cost(4, 100, false));
    // The credit shrinks: exactly the surplus is named, and of the group alone.
    store.set_credit(2, 5_000);
    store.settle();
    let excess = store.excess().unwrap();
    assert_eq!(excess, NeedRoom { bytes: 200 * cost(4, 100, false) - 5_000, scope: Scope::Group(2) });
    while let Some(need) = store.excess() {
        let (slot, key) = store.victim(need).unwrap();
        assert_eq!(store.role(slot), Role::Primary { backed_at: 2 });
        store.txn(slot, at(9_999), &mut Effects::default()).evict(&key);
    }
    assert!(budget.group_used(2) <= 5_000 && budget.group_used(2) > 5_000 - cost(4, 100, false));
    audit(&mut store);
}

#[test]
fn what_can_never_fit_evicts_nothing() {
    let mut store = Store::new(Budget::new(LIMIT));
    let slot = Slot(5);
    store.set_role(slot, Role::Primary { backed_at: 0 });
    assert!(write(&mut store, slot, b"k", b"v", at(1)));
    assert!(!write(&mut store, slot, b"big", &vec![0; LIMIT as usize], at(1)));
    store.set_primary_quota(50_000);
    assert!(!write(&mut store, slot, b"big", &vec![0; 60_000], at(1)));
    assert_eq!((store.slot_stats(slot).keys, store.totals().evicted), (1, 0));
}

#[test]
fn what_adds_nothing_needs_no_room_however_much_is_held() {
    let budget = Budget::new(LIMIT);
    let mut store = Store::new(budget.clone());
    let slot = Slot(5);
    store.set_role(slot, Role::Primary { backed_at: 1 });
    store.set_credit(1, LIMIT);
    assert!(write(&mut store, slot, b"k", b"v", at(1)));
    store.set_credit(1, 0);
    let mut fx = Effects::default();
    let mut txn = store.txn(slot, at(1), &mut fx);
    assert_eq!(txn.reserve(0), Ok(()));
    assert!(txn.reserve(1).is_err());
}

#[test]
fn backups_are_never_victims() {
    let mut store = Store::new(Budget::new(LIMIT));
    let (own, other) = (Slot(1), Slot(2));
    store.set_role(own, Role::Primary { backed_at: 0 });
    store.set_role(other, Role::Backup);
    let mut fx = Effects::default();
    fx.push(Effect::Set(b"theirs", &vec![0; 150_000], Ttl::None));
    store.apply(other, fx.bytes(), at(1), 1).unwrap();
    for n in 0..1_000u32 {
        assert!(write(&mut store, own, &n.to_le_bytes(), &[0; 1_000], at(2)));
    }
    assert_eq!(store.slot_stats(other).keys, 1);
    assert!(store.totals().evicted > 900);
    // Replacing what is there needs no second room.
    store.apply(other, fx.bytes(), at(1), 1).unwrap();
    fx.push(Effect::Set(b"more", &vec![0; 150_000], Ttl::None));
    assert_eq!(store.apply(other, fx.bytes(), at(1), 1), Err(ApplyError::Full));
}

#[test]
fn shards_in_threads_share_one_limit() {
    const SHARDS: u16 = 4;
    let budget = Budget::new(LIMIT);
    budget.set_primary_quota(LIMIT * 3 / 4);
    let stores: Vec<Store> = std::thread::scope(|scope| {
        let shard = |n: u16| {
            let (store, budget) = (Store::with_seed(budget.clone(), n.into()), budget.clone());
            scope.spawn(move || work(n, store, &budget))
        };
        let threads: Vec<_> = (0..SHARDS).map(shard).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let sum = |f: fn(Totals) -> u64| stores.iter().map(|s| f(s.totals())).sum::<u64>();
    assert_eq!(budget.primary_used(), sum(|t| t.primary_bytes));
    assert_eq!(budget.backup_used(), sum(|t| t.backup_bytes));
    assert!(sum(|t| t.evicted) > 0);

    fn work(n: u16, mut store: Store, budget: &Budget) -> Store {
        let (own, theirs) = (Slot(2 * n), Slot(2 * n + 1));
        store.set_role(own, Role::Primary { backed_at: 0 });
        store.set_role(theirs, Role::Backup);
        let mut random = Random(n.into());
        for i in 0..3_000 {
            let (key, value) = (random.next().to_le_bytes(), vec![0; (random.next() % 3_000) as usize]);
            write(&mut store, own, &key, &value, at(i));
            let mut fx = Effects::default();
            fx.push(Effect::Set(&[key[0] % 4], &value, Ttl::None));
            let applied = store.apply(theirs, fx.bytes(), at(i), 0);
            assert!(matches!(applied, Ok(()) | Err(ApplyError::Full)));
            assert!(budget.used() <= LIMIT && budget.primary_used() <= budget.primary_quota());
        }
        store.settle();
        store
    }
}

#[test]
fn an_unused_reservation_is_given_back() {
    let mut store = Store::new(Budget::new(LIMIT));
    let slot = Slot(5);
    store.set_role(slot, Role::Primary { backed_at: 0 });
    let mut fx = Effects::default();
    let mut txn = store.txn(slot, at(1), &mut fx);
    txn.reserve(100_000).unwrap();
    assert_eq!(txn.reserve(LIMIT), Err(NeedRoom { bytes: 100_000, scope: Scope::Own }));
    txn.set(b"k", b"v", Ttl::None);
    assert_eq!(store.budget().used(), 100_000);
    store.settle();
    assert_eq!(store.budget().used(), cost(1, 1, false));
}
