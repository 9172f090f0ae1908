//! The order of eviction: exact within a slot, near an exact LRU over all of them, and warm at a backup.

use std::collections::{BTreeMap, HashMap};

use super::*;

/// An exact LRU of so many keys.
#[derive(Default)]
struct Exact {
    used: HashMap<u32, u64>,
    order: BTreeMap<u64, u32>,
    time: u64,
}

impl Exact {
    fn hit(&mut self, key: u32, capacity: usize) -> bool {
        self.time += 1;
        let before = self.used.insert(key, self.time);
        if let Some(t) = before {
            self.order.remove(&t);
        }
        self.order.insert(self.time, key);
        if self.order.len() > capacity
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.used.remove(&oldest);
        }
        before.is_some()
    }
}

/// Draws from a Zipf distribution by its cumulated weights.
struct Zipf(Vec<f64>);

impl Zipf {
    fn new(n: u32, exponent: f64) -> Self {
        let mut sum = 0.0;
        Self(
            (1..=n)
                .map(|i| {
                    sum += f64::from(i).powf(-exponent);
                    sum
                })
                .collect(),
        )
    }

    fn draw(&self, random: &mut Random) -> u32 {
        let u = (random.next() >> 11) as f64 / (1u64 << 53) as f64 * self.0[self.0.len() - 1];
        self.0.partition_point(|&w| w < u) as u32
    }
}

/// Miss ratios of (the store, an exact LRU), percent, when a miss fills the cache, as caches are used.
/// `paced`: it is looked ten times a second how long keys are kept.
fn miss_ratios(
    (keys, capacity): (u32, usize),
    exponent: f64,
    ops_per_ms: u64,
    paced: bool,
    name: impl Fn(u32) -> String,
) -> (f64, f64) {
    let ops = 10 * capacity as u64 + 50_000;
    let cost = cost_of(name(0).len(), 10);
    let mut store = Store::with_seed(Budget::new(cost * capacity as u64), 42);
    (0..SLOTS as u16).for_each(|s| store.set_role(Slot(s), Role::Primary { backed_at: 0 }));
    let (zipf, mut random) = (Zipf::new(keys, exponent), Random(7));
    let (mut exact, mut missed, mut missed_exact, mut counted) = (Exact::default(), 0u32, 0u32, 0u32);
    for op in 0..ops {
        let (now, id) = (at(op / ops_per_ms), zipf.draw(&mut random));
        if paced && op % (100 * ops_per_ms) == 0 {
            store.pace(now);
        }
        let key = name(id);
        let slot = Slot::of_key(key.as_bytes());
        let hit = get(&mut store, key.as_bytes(), now).is_some();
        let hit_exact = exact.hit(id, capacity);
        let mut fx = Effects::default();
        if !hit {
            loop {
                let mut txn = store.txn(slot, now, &mut fx);
                let Err(need) = txn.reserve(cost) else { break txn.set(key.as_bytes(), &[0; 10], Ttl::None) };
                let (slot, key) = store.victim(need).unwrap();
                store.txn(slot, now, &mut fx).evict(&key);
            }
        }
        if op > ops / 2 {
            counted += 1;
            missed += u32::from(!hit);
            missed_exact += u32::from(!hit_exact);
        }
    }
    let percent = |n: u32| f64::from(n) * 100.0 / f64::from(counted);
    (percent(missed), percent(missed_exact))
}

#[test]
fn misses_are_within_a_point_of_an_exact_lru() {
    // Many keys in each slot; one or two; fewer keys than slots; and so fast that a tick of the clock is half the cache.
    for (keys, capacity, exponent, tags, ops_per_ms) in [
        (50_000, 5_000, 0.99, 64, 1),
        (50_000, 20_000, 0.9, 16_384, 10),
        (50_000, 3_000, 0.8, 16_384, 1),
        (50_000, 3_000, 1.2, 16_384, 1),
        (50_000, 3_000, 0.99, 16_384, 100),
    ] {
        for paced in [false, true] {
            let name = |id| format!("{{{:05}}}{id:08}", id % tags);
            let (ours, exact) = miss_ratios((keys, capacity), exponent, ops_per_ms, paced, name);
            println!(
                "{keys} keys, zipf {exponent}, {tags} tags, room for {capacity}, paced {paced}: {ours:.2} % missed, exact {exact:.2} %"
            );
            assert!(ours <= exact + 1.0, "{ours} {exact}");
        }
    }
}

#[test]
fn where_there_is_room_a_use_moves_nothing_and_still_counts_when_keys_must_go() {
    let mut store = Store::new(Budget::new(1 << 20));
    let slot = Slot(11);
    store.set_role(slot, Role::Primary { backed_at: 1 });
    store.set_credit(1, 1 << 20);
    let mut fx = Effects::default();
    let told = |store: &mut Store| {
        let mut told = Vec::new();
        store.touches(|_, key| told.push(key.to_vec()));
        told
    };
    let oldest = |store: &mut Store, now| {
        store.txn(slot, now, &mut Effects::default());
        store.victim(NeedRoom { bytes: 1, scope: Scope::Own }).unwrap().1
    };
    for key in [b"a", b"b", b"c"] {
        let mut txn = store.txn(slot, at(1), &mut fx);
        assert_eq!(txn.reserve(cost_of(1, 0)), Ok(()));
        txn.set(key, b"", Ttl::None);
    }
    store.pace(at(1));
    assert!(store.txn(slot, at(10_000), &mut fx).get(b"a").is_some());
    assert!(told(&mut store).is_empty());
    assert_eq!(*oldest(&mut store, at(10_001)), *b"b");
    // Its backup hears of it as soon as it matters.
    assert_eq!(told(&mut store), [b"a"]);
    // In another window it is taken to the new end at once.
    assert!(store.txn(slot, at(2_000_001), &mut fx).get(b"b").is_some());
    assert_eq!(told(&mut store), [b"b"]);
    assert_eq!(*oldest(&mut store, at(2_000_002)), *b"c");
}

#[test]
fn a_slot_evicts_its_least_recently_used_first() {
    let mut store = Store::default();
    let slot = Slot(11);
    store.set_role(slot, Role::Primary { backed_at: 0 });
    let mut order: Vec<u32> = (0..500).collect();
    let mut random = Random(3);
    let mut fx = Effects::default();
    for &n in &order {
        store.txn(slot, at(1), &mut fx).set(&n.to_le_bytes(), b"", Ttl::None);
    }
    for _ in 0..5_000 {
        let n = order.remove(evict::below(random.next(), order.len()));
        order.push(n);
        let mut txn = store.txn(slot, at(1), &mut fx);
        match random.next() % 3 {
            0 => drop(txn.get(&n.to_le_bytes())),
            1 => drop(txn.touch(&n.to_le_bytes())),
            _ => txn.set(&n.to_le_bytes(), &vec![0; (random.next() % 100) as usize], Ttl::Keep),
        }
        // Looking is no use.
        let other = order[0].to_le_bytes();
        let mut txn = store.txn(slot, at(1), &mut fx);
        assert!(txn.peek(&other).is_some() && txn.meta(&other).is_some());
    }
    for n in order {
        let (s, key) = store.victim(NeedRoom { bytes: 1, scope: Scope::Own }).unwrap();
        assert_eq!((s, &*key), (slot, n.to_le_bytes().as_slice()));
        store.txn(slot, at(1), &mut fx).evict(&key);
    }
    assert_eq!(store.victim(NeedRoom { bytes: 1, scope: Scope::Own }), None);
}

/// SIEVE of one slot, as the paper writes it.
#[derive(Default)]
struct Paper {
    /// Oldest first; whether each was visited.
    queue: Vec<(u32, bool)>,
    hand: usize,
}

impl Paper {
    fn used(&mut self, key: u32) {
        match self.queue.iter_mut().find(|(k, _)| *k == key) {
            Some((_, visited)) => *visited = true,
            None => self.queue.push((key, false)),
        }
    }

    fn evict(&mut self) -> u32 {
        loop {
            if self.hand >= self.queue.len() {
                self.hand = 0;
            }
            let (key, visited) = &mut self.queue[self.hand];
            if !std::mem::replace(visited, false) {
                let key = *key;
                self.queue.remove(self.hand);
                return key;
            }
            self.hand += 1;
        }
    }

    fn delete(&mut self, key: u32) {
        let Some(at) = self.queue.iter().position(|(k, _)| *k == key) else { return };
        self.queue.remove(at);
        self.hand -= usize::from(at < self.hand);
    }
}

#[test]
fn sieve_evicts_whom_the_paper_does() {
    let mut store = Store::default().with_eviction(Eviction::Sieve);
    let slot = Slot(11);
    store.set_role(slot, Role::Primary { backed_at: 0 });
    let (mut paper, mut random, mut fx) = (Paper::default(), Random(5), Effects::default());
    for _ in 0..20_000 {
        let n = (random.next() % 300 * (random.next() % 3) / 2) as u32;
        let key = n.to_le_bytes();
        let mut txn = store.txn(slot, at(1), &mut fx);
        match random.next() % 8 {
            0 => {
                txn.del(&key);
                paper.delete(n);
            }
            1 | 2 => {
                // Also with another size or a deadline, so that items move.
                let ttl = if random.next() % 4 == 0 { Ttl::At(Deadline(9_999)) } else { Ttl::Keep };
                txn.set(&key, &vec![0; (random.next() % 100) as usize], ttl);
                paper.used(n);
            }
            3 if paper.queue.len() > 100 => {
                let (s, victim) = store.victim(NeedRoom { bytes: 1, scope: Scope::Own }).unwrap();
                assert_eq!((s, &*victim), (slot, paper.evict().to_le_bytes().as_slice()));
                store.txn(slot, at(1), &mut fx).evict(&victim);
            }
            _ => {
                if txn.get(&key).is_some() {
                    paper.used(n);
                }
            }
        }
    }
}

#[test]
fn a_hand_passes_so_many_and_no_more() {
    let mut store = Store::default().with_eviction(Eviction::Sieve);
    let slot = Slot(11);
    store.set_role(slot, Role::Primary { backed_at: 0 });
    let mut fx = Effects::default();
    for n in 0..1000u32 {
        store.txn(slot, at(1), &mut fx).set(&n.to_le_bytes(), b"", Ttl::None);
        store.txn(slot, at(1), &mut fx).get(&n.to_le_bytes());
    }
    let mut victims = Vec::new();
    for _ in 0..3 {
        let (_, key) = store.victim(NeedRoom { bytes: 1, scope: Scope::Own }).unwrap();
        victims.push(u32::from_le_bytes((*key).try_into().unwrap()));
        store.txn(slot, at(1), &mut fx).evict(&key);
    }
    assert_eq!(victims, [256, 513, 770]);
}

#[test]
fn what_primaries_hear_of_recency_reaches_the_backup() {
    let (mut primary, mut backup) = (Store::default(), Store::default());
    let (slot, solo) = (Slot(1), Slot(2));
    primary.set_role(slot, Role::Primary { backed_at: 3 });
    primary.set_role(solo, Role::Primary { backed_at: 0 });
    backup.set_role(slot, Role::Backup);
    for n in 0..100u32 {
        let mut fx = Effects::default();
        primary.txn(slot, at(1_000), &mut fx).set(&n.to_le_bytes(), b"", Ttl::None);
        backup.apply(slot, fx.bytes(), at(1_000), 1_000).unwrap();
        primary.txn(solo, at(1_000), &mut fx).set(&n.to_le_bytes(), b"", Ttl::None);
    }
    let mut fx = Effects::default();
    for _ in 0..500 {
        for n in 0..10u32 {
            assert!(primary.txn(slot, at(2_000), &mut fx).get(&n.to_le_bytes()).is_some());
            assert!(primary.txn(solo, at(2_000), &mut fx).get(&n.to_le_bytes()).is_some());
        }
    }
    // A noted key that is gone, and a note's place that has another key.
    primary.txn(slot, at(2_000), &mut fx).del(&3u32.to_le_bytes());
    primary.txn(slot, at(2_000), &mut fx).set(b"new", b"", Ttl::None);
    let mut told = Vec::new();
    primary.touches(|s, key| told.push((s, key.to_vec())));
    told.sort();
    let mut want: Vec<_> = (0..10u32).filter(|&n| n != 3).map(|n| (slot, n.to_le_bytes().to_vec())).collect();
    want.sort();
    assert_eq!(told, want);
    primary.touches(|_, _| panic!("told twice"));
    backup.expired(at(2_000), 0);
    for (slot, key) in told {
        backup.touch_backup(slot, &key);
    }
    backup.set_role(slot, Role::Primary { backed_at: 0 });
    // The warm keys go last.
    for _ in 0..91 {
        let (slot, key) = backup.victim(NeedRoom { bytes: 1, scope: Scope::Own }).unwrap();
        let n = u32::from_le_bytes(key.as_ref().try_into().unwrap());
        assert!(n >= 10 || n == 3, "{n} is warm");
        backup.txn(slot, at(3_000), &mut fx).evict(&key);
    }
    assert_eq!(backup.totals().primary_keys, 9);
}

#[test]
fn slots_that_were_drawn_ahead_lose_no_key_once_they_are_no_candidates() {
    for scope in [Scope::Own, Scope::Group(1)] {
        let mut store = Store::default();
        let mut fx = Effects::default();
        for slot in (0..64).map(Slot) {
            store.set_role(slot, Role::Primary { backed_at: 1 });
            for n in 0..8u32 {
                store.txn(slot, at(1), &mut fx).set(&n.to_le_bytes(), b"", Ttl::None);
            }
        }
        let mut evict = |store: &mut Store| {
            let (slot, key) = store.victim(NeedRoom { bytes: 1, scope })?;
            assert!(store.txn(slot, at(2), &mut fx).evict(&key));
            Some(slot.0)
        };
        // Before each eviction one goes, is emptied, or changes its group.
        for slot in (0..48).map(Slot) {
            match slot.0 % 3 {
                0 => store.set_role(slot, Role::Backup),
                1 => store.clear_slot(slot),
                _ => store.set_role(slot, Role::Primary { backed_at: 3 }),
            }
            let n = evict(&mut store).unwrap();
            assert!(n > slot.0 || n % 3 == 2 && scope == Scope::Own, "{n} lost a key after {slot}");
        }
        while evict(&mut store).is_some() {}
        let left: u64 = (0..64).filter(|n| n % 3 == 2).map(|n| store.slot_stats(Slot(n)).keys).sum();
        assert_eq!(store.totals().primary_keys, if scope == Scope::Own { 0 } else { left });
    }
}
