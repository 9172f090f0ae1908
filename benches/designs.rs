//! Two designs for a store that several cores share, beside each other: shards behind short locks, which is what a node has, and
//! shards that a core owns, which others ask by message. The real store, no sockets. `cargo bench --bench designs`.
//!
//! Each thread has 25 connections with pipelines of 1 or 16 GETs of 100 bytes; all that a turn of its loop brings is known at once,
//! so that the second design sends one message a turn to each other thread, and one back, which is as few as can be. CPU time of
//! all threads per operation: whoever waits sleeps.

use std::hint::black_box;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use cachectl::node::cache::effect::{Effects, Ttl};
use cachectl::node::cache::store::{Budget, Now, Role, STEPS, Store, WARM_MAX, Wanted};
use cachectl::proto::slot::{SLOTS, Slot};
use rustix::time::{ClockId, clock_gettime};

const KEYS: u64 = 1_000_000;
const VALUE: [u8; 100] = [7; 100];
const CONNECTIONS: usize = 25;
const OPS: usize = 4_000_000;
const ROUNDS: usize = 5;
const NOW: Now = Now { mono_ms: 1, wall_ms: 1 };

type Key = [u8; 16];

fn key(n: u64) -> Key {
    let mut key = *b"key:000000000000";
    let digits = n.to_string();
    key[16 - digits.len()..].copy_from_slice(digits.as_bytes());
    key
}

/// Marsaglia's xorshift.
struct Random(u64);

impl Random {
    fn key(&mut self) -> Key {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        key(self.0 % KEYS)
    }
}

/// Stores that have the slots dealt out among them.
fn stores(n: usize) -> Vec<Store> {
    let mut stores: Vec<Store> = (0..n).map(|_| Store::new(Budget::unlimited())).collect();
    for slot in (0..SLOTS as u16).map(Slot) {
        stores[slot.ix() % n].set_role(slot, Role::Primary { backed_at: 0 });
    }
    let mut fx = Effects::default();
    for key in (0..KEYS).map(key) {
        let slot = Slot::of_key(&key);
        stores[slot.ix() % n].txn(slot, NOW, &mut fx).set(&key, &VALUE, Ttl::None);
    }
    stores
}

fn cpu_ns() -> f64 {
    let t = clock_gettime(ClockId::ProcessCPUTime);
    t.tv_sec as f64 * 1e9 + t.tv_nsec as f64
}

fn get(store: &mut Store, key: &Key, fx: &mut Effects, out: &mut Vec<u8>) {
    out.extend_from_slice(store.txn(Slot::of_key(key), NOW, fx).get(key).unwrap_or_default());
}

fn lock(store: &Mutex<Store>) -> std::sync::MutexGuard<'_, Store> {
    store.lock().expect("nobody panics")
}

/// Nanoseconds of CPU per operation with shards behind locks.
fn locked(threads: usize, shards: usize, pipeline: usize) -> f64 {
    let stores: Vec<Mutex<Store>> = stores(shards).into_iter().map(Mutex::new).collect();
    let shard_of = |slot: Slot| slot.ix() % shards;
    let before = cpu_ns();
    thread::scope(|scope| {
        for t in 0..threads {
            let stores = &stores;
            scope.spawn(move || {
                let (mut random, mut fx, mut out) = (Random(99 + t as u64), Effects::default(), Vec::new());
                let turn = CONNECTIONS * pipeline;
                for _ in 0..OPS / turn {
                    let keys: Vec<Key> = (0..turn).map(|_| random.key()).collect();
                    for batch in keys.chunks(WARM_MAX) {
                        let mut wanted = [Wanted::NONE; WARM_MAX];
                        let wanted = &mut wanted[..batch.len()];
                        for (w, key) in wanted.iter_mut().zip(batch) {
                            *w = Wanted::new(0, Slot::of_key(key), key);
                        }
                        wanted.sort_unstable_by_key(|w| shard_of(w.slot));
                        for step in STEPS {
                            for mine in wanted.chunk_by_mut(|a, b| shard_of(a.slot) == shard_of(b.slot)) {
                                let store = lock(&stores[shard_of(mine[0].slot)]);
                                mine.iter_mut().for_each(|w| step(&store, w));
                            }
                        }
                        for key in batch {
                            get(&mut lock(&stores[shard_of(Slot::of_key(key))]), key, &mut fx, &mut out);
                        }
                    }
                    black_box(&out);
                    out.clear();
                }
            });
        }
    });
    (cpu_ns() - before) / (OPS * threads) as f64
}

enum Message {
    /// By this thread.
    Ask(usize, Vec<Key>),
    /// What was found.
    Answer(Vec<u8>),
    /// Nothing more will be asked by one of them.
    Done,
}

struct Owner {
    me: usize,
    store: Store,
    inbox: Receiver<Message>,
    all: Vec<Sender<Message>>,
    fx: Effects,
    done: usize,
}

impl Owner {
    fn run(&mut self, keys: &[Key], out: &mut Vec<u8>) {
        for batch in keys.chunks(WARM_MAX) {
            let mut wanted = [Wanted::NONE; WARM_MAX];
            let wanted = &mut wanted[..batch.len()];
            for (w, key) in wanted.iter_mut().zip(batch) {
                *w = Wanted::new(0, Slot::of_key(key), key);
            }
            self.store.warm(wanted, |_| (), |_| ());
            batch.iter().for_each(|key| get(&mut self.store, key, &mut self.fx, out));
        }
    }

    /// Takes one message; whether it was an answer.
    fn take(&mut self, out: &mut Vec<u8>) -> bool {
        match self.inbox.recv().expect("everyone lives") {
            Message::Ask(from, keys) => {
                let mut found = Vec::with_capacity(keys.len() * VALUE.len());
                self.run(&keys, &mut found);
                self.all[from].send(Message::Answer(found)).expect("everyone lives");
                false
            }
            Message::Answer(found) => {
                out.extend_from_slice(&found);
                true
            }
            Message::Done => {
                self.done += 1;
                false
            }
        }
    }

    fn work(&mut self, pipeline: usize) {
        let (mut random, mut out) = (Random(99 + self.me as u64), Vec::new());
        let (turn, threads) = (CONNECTIONS * pipeline, self.all.len());
        for _ in 0..OPS / turn {
            let mut keys = vec![Vec::new(); threads];
            for key in (0..turn).map(|_| random.key()) {
                keys[Slot::of_key(&key).ix() % threads].push(key);
            }
            let mine = std::mem::take(&mut keys[self.me]);
            let mut asked = 0;
            for (to, keys) in keys.into_iter().enumerate().filter(|(_, k)| !k.is_empty()) {
                self.all[to].send(Message::Ask(self.me, keys)).expect("everyone lives");
                asked += 1;
            }
            self.run(&mine, &mut out);
            while asked > 0 {
                asked -= usize::from(self.take(&mut out));
            }
            black_box(&out);
            out.clear();
        }
        self.all.iter().for_each(|to| to.send(Message::Done).expect("everyone lives"));
        while self.done < threads {
            self.take(&mut out);
        }
    }
}

/// Nanoseconds of CPU per operation with shards that a thread owns.
fn owned(threads: usize, pipeline: usize) -> f64 {
    let (all, inboxes): (Vec<_>, Vec<_>) = (0..threads).map(|_| channel()).unzip();
    let parts = stores(threads).into_iter().zip(inboxes).enumerate();
    let owners: Vec<Owner> = parts
        .map(|(me, (store, inbox))| Owner { me, store, inbox, all: all.clone(), fx: Effects::default(), done: 0 })
        .collect();
    let before = cpu_ns();
    thread::scope(|scope| {
        for mut owner in owners {
            scope.spawn(move || {
                owner.work(pipeline);
                owner
            });
        }
    });
    (cpu_ns() - before) / (OPS * threads) as f64
}

fn median(mut of: impl FnMut() -> f64) -> (f64, f64, f64) {
    let mut all: Vec<f64> = (0..ROUNDS).map(|_| of()).collect();
    all.sort_by(f64::total_cmp);
    (all[ROUNDS / 2], all[0], all[ROUNDS - 1])
}

fn main() {
    println!("CPU of a GET, nanoseconds, median of {ROUNDS} (lowest-highest)");
    for pipeline in [1, 16] {
        let print = |name: &str, (median, low, high): (f64, f64, f64)| {
            println!("pipeline {pipeline:2}, {name:40} {median:6.0} ({low:.0}-{high:.0})");
        };
        print("one thread, one shard", median(|| locked(1, 1, pipeline)));
        for shards in [2, 4, 8] {
            print(&format!("two threads, {shards} shards behind locks"), median(|| locked(2, shards, pipeline)));
        }
        print("two threads, each owns a shard", median(|| owned(2, pipeline)));
    }
}
