//! Load that remembers: unique keys, registers under a history, counters; and what must hold of it afterwards.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cachectl::proto::value::Value;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::client::{ANSWER_MAX, Client, Outcome};
use super::common::wait_for;
use super::history::{self, Event, Op, Said};
use super::net::Host;

/// Registers in use at a time, all over the ring.
const REGISTERS: u64 = 24;
/// Operations on one register before the load goes on to a fresh one; the final read comes on top.
const OPS_PER_REGISTER: u64 = 80;
/// Counters, all over the ring.
const COUNTERS: u64 = 12;

/// Every fourth client waits for an answer longer than any fault lasts: what a paused server says late counts too.
const LONG_ANSWER: Duration = Duration::from_secs(15);

/// How an answer that took longer than its client waited is counted.
pub const IMPATIENT: &str = "unknown: connection: WouldBlock";

/// What clients do.
#[derive(Debug, Clone)]
pub struct Shape {
    /// How many, each one operation at a time.
    pub clients: usize,
    /// Rest after each operation: two cores carry a cluster and its load.
    pub rest: Duration,
    /// Bytes of each unique key's value, at least.
    pub value_len: usize,
    /// What of keys begins with: several loads on one cluster differ in it.
    pub prefix: &'static str,
}

impl Default for Shape {
    fn default() -> Self {
        Shape { clients: 8, rest: Duration::from_millis(1), value_len: 0, prefix: "" }
    }
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// Acknowledged so far.
    acked: AtomicU64,
    registers: AtomicU64,
    writers: AtomicU64,
}

/// What one client saw.
#[derive(Default)]
struct Seen {
    unique: Vec<String>,
    events: Vec<Event>,
    /// Counter → acknowledged values.
    counted: BTreeMap<u64, Vec<i64>>,
    uncertain: BTreeMap<u64, u64>,
    errors: BTreeMap<String, u64>,
    ops: u64,
}

/// Clients at work.
pub struct Load {
    shape: Shape,
    began: Instant,
    shared: Arc<Shared>,
    threads: Vec<std::thread::JoinHandle<Seen>>,
}

/// What they saw, once they have ended.
pub struct Done {
    shape: Shape,
    began: Instant,
    seen: Vec<Seen>,
    /// Operations in all.
    pub ops: u64,
    /// Acknowledged unique keys.
    pub acked: usize,
    /// Errors and unknown outcomes by their text's first words.
    pub errors: BTreeMap<String, u64>,
}

impl Load {
    /// Begins on one host.
    pub fn start(host: &Host, nodes: &[SocketAddr], seed: u64, shape: Shape) -> Load {
        let mut load = Load { shape, began: Instant::now(), shared: Arc::default(), threads: Vec::new() };
        for _ in 0..load.shape.clients {
            load.join(host, nodes, seed);
        }
        load
    }

    /// One more client, possibly on another host.
    pub fn join(&mut self, host: &Host, nodes: &[SocketAddr], seed: u64) {
        let n = self.shared.writers.fetch_add(1, Ordering::Relaxed);
        let mut worker = Worker {
            n,
            rng: SmallRng::seed_from_u64(seed.wrapping_mul(1_000_003).wrapping_add(n)),
            client: Client::new(host, nodes.to_vec()).patient(if n % 4 == 3 { LONG_ANSWER } else { ANSWER_MAX }),
            shape: self.shape.clone(),
            began: self.began,
            shared: self.shared.clone(),
            seen: Seen::default(),
        };
        self.threads.push(std::thread::spawn(move || {
            while !worker.shared.stop.load(Ordering::Relaxed) {
                worker.turn();
                std::thread::sleep(worker.shape.rest);
            }
            worker.seen
        }));
    }

    /// Acknowledged so far.
    pub fn acked(&self) -> u64 {
        self.shared.acked.load(Ordering::Relaxed)
    }

    /// Waits until `n` more operations were acknowledged.
    pub fn wait_more(&self, n: u64) {
        let from = self.acked();
        wait_for("the load to go on", || (self.acked() >= from + n).then_some(()));
    }

    /// Ends it.
    pub fn end(self) -> Done {
        self.shared.stop.store(true, Ordering::Relaxed);
        let seen: Vec<Seen> = self.threads.into_iter().map(|t| t.join().expect("a client")).collect();
        let mut errors = BTreeMap::new();
        for (e, n) in seen.iter().flat_map(|s| &s.errors) {
            *errors.entry(e.clone()).or_default() += n;
        }
        Done {
            shape: self.shape,
            began: self.began,
            ops: seen.iter().map(|s| s.ops).sum(),
            acked: seen.iter().map(|s| s.unique.len()).sum(),
            seen,
            errors,
        }
    }
}

struct Worker {
    n: u64,
    rng: SmallRng,
    client: Client,
    shape: Shape,
    began: Instant,
    shared: Arc<Shared>,
    seen: Seen,
}

impl Worker {
    fn turn(&mut self) {
        self.seen.ops += 1;
        match self.rng.random_range(0..100) {
            0..45 => self.unique(),
            45..85 => self.register(),
            _ => self.count(),
        }
    }

    fn note(&mut self, outcome: &Outcome) {
        let text = match outcome {
            Outcome::Answer(_) => {
                self.shared.acked.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Outcome::Fail(e) => format!("failed: {}", class(e)),
            Outcome::Unknown(e) => format!("unknown: {}", class(e)),
        };
        *self.seen.errors.entry(text).or_default() += 1;
    }

    fn unique(&mut self) {
        let key = format!("{}u{}:{}", self.shape.prefix, self.n, self.seen.ops);
        let outcome = self.client.set(&key, value_of(&key, self.shape.value_len).as_bytes());
        self.note(&outcome);
        match outcome {
            Outcome::Answer(Value::Simple(s)) if s == "OK" => self.seen.unique.push(key),
            Outcome::Answer(other) => panic!("SET said {other:?}"),
            _ => {}
        }
    }

    fn register(&mut self) {
        let turn = self.shared.registers.fetch_add(1, Ordering::Relaxed);
        let key = register(self.shape.prefix, turn);
        let value = (self.n << 40) | self.seen.ops;
        let op = match self.rng.random_range(0..10) {
            0..4 => Op::Get,
            4..7 => Op::Set(value),
            7 => Op::SetNx(value),
            8 => Op::Del,
            _ => Op::Get,
        };
        let (k, v) = (key.as_bytes(), value.to_string());
        let invoked = self.began.elapsed().as_nanos() as u64;
        let outcome = match op {
            Op::Set(_) => self.client.call(k, &[b"SET", k, v.as_bytes()]),
            Op::SetNx(_) => self.client.call(k, &[b"SET", k, v.as_bytes(), b"NX"]),
            Op::Del => self.client.call(k, &[b"DEL", k]),
            Op::Get => self.client.call(k, &[b"GET", k]),
        };
        let returned = self.began.elapsed().as_nanos() as u64;
        self.note(&outcome);
        let said = match (op, outcome) {
            (_, Outcome::Fail(_)) => Said::Fail,
            (_, Outcome::Unknown(_)) => Said::Unknown,
            (Op::Set(_), Outcome::Answer(Value::Simple(_))) => Said::Done,
            (Op::SetNx(_), Outcome::Answer(v)) => Said::Did(v != Value::Null),
            (Op::Del, Outcome::Answer(Value::Int(n))) => Said::Did(n == 1),
            (Op::Get, Outcome::Answer(Value::Null)) => Said::Value(None),
            (Op::Get, Outcome::Answer(Value::Bulk(b))) => Said::Value(Some(number(&b))),
            (op, outcome) => panic!("{op:?} said {outcome:?}"),
        };
        self.seen.events.push(Event { process: self.n as u32, key, op, invoked, returned, said });
    }

    fn count(&mut self) {
        let n = self.rng.random_range(0..COUNTERS);
        let key = counter(self.shape.prefix, n);
        let outcome = self.client.call(key.as_bytes(), &[b"INCR", key.as_bytes()]);
        self.note(&outcome);
        match outcome {
            Outcome::Answer(Value::Int(v)) => self.seen.counted.entry(n).or_default().push(v),
            Outcome::Answer(other) => panic!("INCR said {other:?}"),
            Outcome::Unknown(_) => *self.seen.uncertain.entry(n).or_default() += 1,
            Outcome::Fail(_) => {}
        }
    }
}

impl Done {
    /// Whatever was acknowledged is there, every register can be explained, counters are within bounds. `judged` leaves out
    /// keys of which a loss was declared.
    pub fn check_but(&self, client: &mut Client, judged: impl Fn(&str) -> bool) {
        let unique: Vec<String> = self.seen.iter().flat_map(|s| &s.unique).filter(|k| judged(k)).cloned().collect();
        assert!(!unique.is_empty(), "nothing was acknowledged: {:?}", self.errors);
        let found = client.get_all(&unique);
        let lost: Vec<&String> = unique
            .iter()
            .zip(&found)
            .filter(|(k, v)| v.as_deref() != Some(value_of(k, self.shape.value_len).as_bytes()))
            .map(|(k, _)| k)
            .collect();
        assert!(
            lost.is_empty(),
            "{} of {} acknowledged writes are gone: {:?}; errors seen: {:?}",
            lost.len(),
            unique.len(),
            &lost[..lost.len().min(5)],
            self.errors
        );
        self.check_registers(client, &judged);
        self.check_counters(client, &judged);
    }

    /// The same, of all keys.
    pub fn check(&self, client: &mut Client) {
        self.check_but(client, |_| true);
    }

    fn check_registers(&self, client: &mut Client, judged: &impl Fn(&str) -> bool) {
        let mut events: Vec<Event> =
            self.seen.iter().flat_map(|s| &s.events).filter(|e| judged(&e.key)).cloned().collect();
        let keys: Vec<String> = events.iter().map(|e| e.key.clone()).collect::<HashSet<_>>().into_iter().collect();
        let invoked = self.began.elapsed().as_nanos() as u64;
        let found = client.get_all(&keys);
        let returned = self.began.elapsed().as_nanos() as u64;
        for (key, value) in keys.into_iter().zip(found) {
            let said = Said::Value(value.map(|b| number(&b)));
            events.push(Event { process: u32::MAX, key, op: Op::Get, invoked, returned, said });
        }
        let wrong = history::violations(&events);
        assert!(wrong.is_empty(), "{} registers of {} operations: {}", wrong.len(), events.len(), wrong[0]);
    }

    fn check_counters(&self, client: &mut Client, judged: &impl Fn(&str) -> bool) {
        for n in 0..COUNTERS {
            let key = counter(self.shape.prefix, n);
            if !judged(&key) {
                continue;
            }
            let mut acked = HashSet::new();
            for values in self.seen.iter().filter_map(|s| s.counted.get(&n)) {
                assert!(values.windows(2).all(|w| w[0] < w[1]), "{key} fell: {values:?}");
                for v in values {
                    assert!(acked.insert(*v), "{key} was {v} twice");
                }
            }
            let uncertain: u64 = self.seen.iter().filter_map(|s| s.uncertain.get(&n)).sum();
            let value = client.get(&key).map_or(0, |b| number(&b));
            let (low, high) = (acked.len() as u64, acked.len() as u64 + uncertain);
            assert!((low..=high).contains(&value), "{key} is {value}, not within {low}..={high}");
            assert!(acked.iter().all(|v| *v as u64 <= value), "{key} is {value}, and was more");
        }
    }

    /// One line for people.
    pub fn line(&self) -> String {
        format!("{} operations, {} unique keys acknowledged, {:?}", self.ops, self.acked, self.errors)
    }

    /// No client saw an error.
    pub fn assert_undisturbed(&self) {
        assert!(self.errors.is_empty(), "clients were disturbed: {:?}", self.errors);
    }
}

fn register(prefix: &str, turn: u64) -> String {
    let generation = turn / (REGISTERS * OPS_PER_REGISTER);
    format!("{prefix}r{generation}:{}", turn % REGISTERS)
}

fn counter(prefix: &str, n: u64) -> String {
    format!("{prefix}count{n}")
}

/// What a unique key must hold.
fn value_of(key: &str, len: usize) -> String {
    format!("{key}={}", "x".repeat(len))
}

fn number(bytes: &[u8]) -> u64 {
    std::str::from_utf8(bytes).ok().and_then(|t| t.parse().ok()).expect("a number that was written")
}

/// An error's first words, without addresses and numbers.
fn class(e: &str) -> String {
    e.split(' ').take(2).filter(|w| !w.contains(|c: char| c.is_ascii_digit())).collect::<Vec<_>>().join(" ")
}
