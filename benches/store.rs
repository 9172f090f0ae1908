//! What the store costs: nanoseconds per operation, resident bytes per item, and the resident size against the limit when
//! sizes vary and shift. `cargo bench --bench store [SCENARIO…]`; each scenario runs in a process of its own.

use std::process::{Command, ExitCode};
use std::sync::Arc;

use cachectl::node::cache::effect::{Deadline, Effects, Ttl};
use cachectl::node::cache::store::{Budget, Now, Role, Store, WARM_MAX, Wanted, cost, cost_of};
use cachectl::proto::slot::{SLOTS, Slot};

/// What is run when nothing is named.
const ALL: &[&str] = &[
    "speed 32",
    "speed 100",
    "ttl 100",
    "churn 100 100",
    "churn 1024 1024",
    "churn 4096 4096",
    "churn 10000 10000",
    "churn 65536 65536",
    "churn 100 65536",
    "churn 5000 120000",
    "churn 100 1000000",
    "shift",
    "churn 100 65536 16",
    "shift 16",
    "empty",
];
const ITEMS: usize = 1_000_000;
const KEY_LEN: usize = 16;
const LIMIT: u64 = 256 << 20;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Evenly over the magnitudes from `low` to `high`.
    fn len(&mut self, low: usize, high: usize) -> usize {
        (low as f64 * (high as f64 / low as f64).powf(self.unit())) as usize
    }
}

fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 4096
}

fn key(id: u64) -> [u8; KEY_LEN] {
    let mut key = [b'0'; KEY_LEN];
    let (mut id, mut at) = (id, KEY_LEN);
    while id > 0 {
        at -= 1;
        key[at] = b'0' + (id % 10) as u8;
        id /= 10;
    }
    key
}

fn store(budget: Arc<Budget>) -> Store {
    let mut store = Store::new(budget);
    (0..SLOTS as u16).for_each(|s| store.set_role(Slot(s), Role::Primary { backed_at: 1 }));
    store.set_credit(1, u64::MAX);
    store
}

/// As a shard writes: reserve, evict while there is no room, set.
fn set(store: &mut Store, fx: &mut Effects, key: &[u8], value: &[u8], ttl: Ttl, now: Now) {
    let slot = Slot::of_key(key);
    loop {
        fx.clear();
        let mut txn = store.txn(slot, now, fx);
        match txn.reserve(cost_of(key.len(), value.len())) {
            Ok(()) => return txn.set(key, value, ttl),
            Err(need) => {
                let Some((slot, key)) = store.victim(need) else { return };
                store.txn(slot, now, fx).evict(&key);
            }
        }
    }
}

/// Of this thread on a CPU, nanoseconds: other people's load on the machine stays out.
fn cpu_ns() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

fn time(what: &str, n: usize, mut f: impl FnMut(usize)) {
    let start = cpu_ns();
    (0..n).for_each(&mut f);
    println!("  {what:<22} {:>7.0} ns", (cpu_ns() - start) as f64 / n as f64);
}

fn speed(value_len: usize, ttl: bool) {
    let before = resident();
    let limit = ITEMS as u64 * cost(KEY_LEN, value_len, ttl) + cost_of(KEY_LEN, value_len);
    let (mut store, mut fx, mut random) =
        (store(Budget::new(limit)), Effects::default(), Random(88_172_645_463_325_252));
    let value = vec![7; value_len];
    let now = |n: usize| Now { mono_ms: 1 + n as u64 / 500, wall_ms: 0 };
    let ttl_of = |n: usize| if ttl { Ttl::At(Deadline(100_000 + n as u64)) } else { Ttl::None };
    println!("{ITEMS} items of {KEY_LEN} + {value_len} bytes{}:", if ttl { " with a TTL" } else { "" });
    time("set, new", ITEMS, |n| set(&mut store, &mut fx, &key(n as u64), &value, ttl_of(n), now(n)));
    let per_item = (resident() - before) as f64 / ITEMS as f64;
    let mut pick = |n: usize| key(random.next() % n as u64);
    let mut found = 0;
    time("get, hit", ITEMS, |n| {
        let key = pick(ITEMS);
        found += store.txn(Slot::of_key(&key), now(ITEMS + n), &mut fx).get(&key).map_or(0, <[u8]>::len);
    });
    assert_eq!(found, ITEMS * value_len);
    let mut ahead: Vec<[u8; KEY_LEN]> = Vec::new();
    time("get, hit, 16 ahead", ITEMS, |n| {
        if ahead.is_empty() {
            ahead.extend((0..WARM_MAX).map(|_| pick(ITEMS)));
            let mut wanted: Vec<_> = ahead.iter().map(|key| Wanted::new(0, Slot::of_key(key), key)).collect();
            store.warm(&mut wanted, |_| (), |_| ());
        }
        let key = ahead.pop().unwrap_or_default();
        assert!(store.txn(Slot::of_key(&key), now(ITEMS + n), &mut fx).get(&key).is_some());
    });
    time("get, miss", ITEMS, |n| {
        let key = key((ITEMS + n) as u64);
        assert!(store.txn(Slot::of_key(&key), now(2 * ITEMS + n), &mut fx).get(&key).is_none());
    });
    time("set, same length", ITEMS, |n| set(&mut store, &mut fx, &pick(ITEMS), &value, Ttl::Keep, now(3 * ITEMS + n)));
    time("set, evicting", ITEMS, |n| {
        set(&mut store, &mut fx, &key((ITEMS + n) as u64), &value, ttl_of(n), now(4 * ITEMS + n));
    });
    if ttl {
        let now = Now { mono_ms: 100_000_000, wall_ms: 0 };
        let (mut gone, mut longest, all) = (0, 0, cpu_ns());
        loop {
            let start = cpu_ns();
            let due = store.expired(now, 128);
            longest = longest.max(cpu_ns() - start);
            if due.is_empty() && store.totals().primary_keys == 0 {
                break;
            }
            for (slot, key) in due {
                fx.clear();
                gone += usize::from(store.txn(slot, now, &mut fx).peek(&key).is_none());
            }
        }
        println!("  {:<22} {:>7.0} ns", "expire", (cpu_ns() - all) as f64 / gone as f64);
        println!("  {:<22} {:>7} ns for at most 128 keys", "longest slice", longest);
        return;
    }
    time("del", ITEMS / 2, |n| {
        let key = key((ITEMS + n) as u64);
        fx.clear();
        store.txn(Slot::of_key(&key), now(5 * ITEMS + n), &mut fx).del(&key);
    });
    println!(
        "  resident per item      {per_item:>7.1} bytes, accounted {}; half of them deleted: {:.1} bytes",
        cost(KEY_LEN, value_len, false),
        (resident() - before) as f64 / store.totals().primary_keys as f64
    );
}

/// Fills to the limit and goes on writing; some keys are asked for again and again and stay.
struct Churn {
    shards: Vec<Store>,
    fx: Effects,
    random: Random,
    next: u64,
    before: u64,
}

impl Churn {
    fn new(shards: usize) -> Self {
        let before = resident();
        let budget = Budget::new(LIMIT);
        let shards = (0..shards).map(|_| store(budget.clone())).collect();
        Self { shards, fx: Effects::default(), random: Random(99), next: 0, before }
    }

    fn write(&mut self, low: usize, high: usize, times: u64) {
        let mut written = 0;
        let value = vec![7; high + 1];
        while written < times * LIMIT {
            let len = self.random.len(low, high);
            let now = Now { mono_ms: 1 + self.next / 100, wall_ms: 0 };
            let new = key(self.next);
            let n = Slot::of_key(&new).ix() % self.shards.len();
            set(&mut self.shards[n], &mut self.fx, &new, &value[..len], Ttl::None, now);
            // A tenth of all keys is kept warm, scattered among the others.
            let warm = key(self.random.next() % (self.next / 10 + 1) * 10);
            let slot = Slot::of_key(&warm);
            let n = slot.ix() % self.shards.len();
            let _ = self.shards[n].txn(slot, now, &mut self.fx).get(&warm);
            self.next += 1;
            written += cost_of(KEY_LEN, len);
        }
    }

    fn report(&self, what: &str) {
        let used = self.shards[0].budget().used();
        let keys: u64 = self.shards.iter().map(|s| s.totals().primary_keys).sum();
        let took = (resident() - self.before) as f64;
        println!(
            "  {what:<22} {keys:>8} keys  resident / limit {:.3}  accounted / limit {:.3}",
            took / LIMIT as f64,
            used as f64 / LIMIT as f64
        );
    }
}

fn run(scenario: &str) {
    let mut words = scenario.split(' ');
    let name = words.next().unwrap_or_default();
    let mut number = || words.next().and_then(|w| w.parse().ok()).unwrap_or(100);
    match name {
        "speed" => speed(number(), false),
        "ttl" => speed(number(), true),
        "churn" => {
            let (low, high) = (number(), number());
            let mut churn = Churn::new(words.next().and_then(|w| w.parse().ok()).unwrap_or(1));
            let start = cpu_ns();
            churn.write(low, high, 5);
            churn.report(&format!("values {low} to {high}"));
            println!("  {:>29.0} ns a write and a read", (cpu_ns() - start) as f64 / churn.next as f64);
        }
        "shift" => {
            let mut churn = Churn::new(words.next().and_then(|w| w.parse().ok()).unwrap_or(1));
            for (low, high) in [
                (100, 100),
                (300, 500),
                (1_000, 1_100),
                (4_000, 8_000),
                (65_536, 65_536),
                (100, 200),
                (10_000, 20_000),
                (100_000, 400_000),
                (100, 65_536),
            ] {
                churn.write(low, high, 2);
                churn.report(&format!("then {low} to {high}"));
            }
        }
        "empty" => {
            let before = resident();
            let store = store(Budget::new(LIMIT));
            println!("  an empty store: {} KiB resident", (resident() - before) >> 10);
            drop(store);
        }
        other => println!("no such scenario: {other}"),
    }
}

fn main() -> ExitCode {
    if let Ok(scenario) = std::env::var("STORE_SCENARIO") {
        run(&scenario);
        return ExitCode::SUCCESS;
    }
    let named: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let scenarios = if named.is_empty() { ALL.iter().map(|s| s.to_string()).collect() } else { vec![named.join(" ")] };
    for scenario in scenarios {
        let done = std::env::current_exe().and_then(|exe| Command::new(exe).env("STORE_SCENARIO", &scenario).status());
        if !done.is_ok_and(|status| status.success()) {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
