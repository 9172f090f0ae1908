//! Scale-out and scale-in under paced load: what clients notice, and how fast data moves. `cargo bench --bench moves`.
//!
//! A round is a fresh cluster of three masters and three nodes with `MOVES_KEYS` (1,000,000) keys of 100 bytes, under
//! `MOVES_RATE` (5,000; 0 = nobody) operations a second in all, half of them writes: `add`, `add`, `remove`, `remove`, one after
//! the other, or the first `MOVES_STEPS` (4) of them. `MOVES_ROUNDS` (5) rounds; medians over them. Latency is counted from when
//! an operation was due (open loop).
//!
//! With `MOVES_PEERS=1` every round ends with the same scale-out from three primaries to four by somebody else, on the same machine
//! in the same minute: without load Valkey's `CLUSTER MIGRATESLOTS`, under load `redis-cli --cluster rebalance`.
//!
//! The connections are those of one client, as an application has them: MOVED is followed once, and makes a task of its own ask
//! for the slot map again; every other error counts. A round fails
//! if a client met an error or an acknowledged write is gone, if other slots moved than were planned, or if what an operation
//! says of itself ever falls or ends elsewhere than at all of it.

#[path = "../../tests/common/mod.rs"]
mod common;
mod peers;

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use cachectl::proto::control::{Empty, Message};
use cachectl::proto::net::client::{MasterClient, Repeat, Waits};
use cachectl::proto::value::Value;
use common::{Cluster, Once, text};
use peers::Peer;
use serde_json::Value as Json;

const CLIENTS: usize = 16;
const SIZE: usize = 100;
/// The load alone, before anything moves.
const QUIET: Duration = Duration::from_secs(10);
/// Between two looks at an operation; how long it took is said by its events.
const LOOK: Duration = Duration::from_millis(200);
/// Looks until one gives up: minutes.
const LOOKS_MAX: usize = 1500;
/// The client asks for the slot map at most so often.
const MAP_EVERY: Duration = Duration::from_millis(200);
/// The four steps of a round: command, its argument, nodes before and after.
const STEPS: [(&str, &str, u32, u32); 4] =
    [("add", "1", 3, 4), ("add", "1", 4, 5), ("remove", "n5", 5, 4), ("remove", "n4", 4, 3)];
const PHASES: usize = STEPS.len() + 1;
/// What a client's p99 during a move may come to (issue: reconfiguration, line 4), milliseconds.
const P99_MAX_MS: f64 = 3.0;

fn key(n: usize) -> String {
    format!("key:{n:012}")
}

fn value(n: usize, version: u64) -> Vec<u8> {
    format!("{n}:{version}:{:x>SIZE$}", "").into_bytes()[..SIZE].to_vec()
}

/// What a client saw: microseconds by phase, errors, and what it wrote last.
#[derive(Default)]
struct Seen {
    latencies: [Vec<u32>; PHASES],
    errors: Vec<String>,
    acked: HashMap<usize, u64>,
}

struct Load {
    stop: Arc<AtomicBool>,
    phase: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Seen>>,
    mapper: JoinHandle<()>,
}

impl Load {
    fn start(c: &Cluster, keys: usize, rate: usize) -> Load {
        let (stop, phase) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let clients = if rate == 0 { 0 } else { CLIENTS };
        let every = Duration::from_secs(1) * CLIENTS as u32 / rate.max(1) as u32;
        let mut mapper = Once::new((1..=5).map(|n| c.node_addr(n)).collect());
        mapper.map(c.node_addr(1)).expect("a slot map");
        let (moved, moves) = channel();
        let threads = (0..clients)
            .map(|w| {
                let (stop, phase, mut client, moved) = (stop.clone(), phase.clone(), mapper.another(), moved.clone());
                std::thread::spawn(move || {
                    let mut seen = Seen::default();
                    let mut random = 0x9e37_79b9_u64 + w as u64;
                    let mut due = Instant::now() + every * w as u32 / CLIENTS as u32;
                    for version in 1.. {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        due += every;
                        sleep(due.saturating_duration_since(Instant::now()));
                        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                        // Each client has keys of its own, so that it knows what it must read.
                        let n = (random >> 33) as usize % (keys / CLIENTS) * CLIENTS + w;
                        if let Err(e) = one(&mut client, n, version, &mut seen) {
                            seen.errors.push(format!("{}: {e}", key(n)));
                        }
                        if let Some(to) = client.moved.take() {
                            moved.send(to).expect("someone who maps");
                        }
                        let took = due.elapsed().as_micros().min(u128::from(u32::MAX)) as u32;
                        seen.latencies[phase.load(Ordering::Relaxed)].push(took);
                    }
                    seen
                })
            })
            .collect();
        drop(moved);
        let mapper = std::thread::spawn(move || {
            while let Ok(to) = moves.recv() {
                mapper.map(to).expect("a slot map");
                sleep(MAP_EVERY);
                while moves.try_recv().is_ok() {}
            }
        });
        Load { stop, phase, threads, mapper }
    }

    fn end(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Seen::default();
        for t in self.threads {
            let seen = t.join().expect("a client");
            all.acked.extend(seen.acked);
            all.errors.extend(seen.errors);
            all.latencies.iter_mut().zip(seen.latencies).for_each(|(a, b)| a.extend(b));
        }
        self.mapper.join().expect("whoever maps");
        all
    }
}

/// One operation: a write, or a read of what is known of the key.
fn one(client: &mut Once, n: usize, version: u64, seen: &mut Seen) -> Result<(), String> {
    let key = key(n);
    let key = key.as_bytes();
    if version.is_multiple_of(2) {
        let v = value(n, version);
        return match client.call(key, &[b"SET", key, &v])? {
            Value::Simple(_) => {
                seen.acked.insert(n, version);
                Ok(())
            }
            other => Err(format!("{other:?}")),
        };
    }
    match client.call(key, &[b"GET", key])? {
        Value::Bulk(got) => match seen.acked.get(&n) {
            Some(v) if got[..] != value(n, *v) => Err(format!("{got:?} is not what was written at {v}")),
            None if got.len() != SIZE => Err(format!("{got:?} was never written")),
            _ => Ok(()),
        },
        other => Err(format!("{other:?}")),
    }
}

fn p99_ms(latencies: &mut [u32]) -> f64 {
    latencies.sort_unstable();
    latencies.get(latencies.len() * 99 / 100).map_or(0.0, |us| f64::from(*us) / 1000.0)
}

fn median(mut v: Vec<f64>) -> f64 {
    v.sort_by(f64::total_cmp);
    v[v.len() / 2]
}

fn json(c: &Cluster, args: &[&str]) -> Result<Json, String> {
    let out = c.run(args);
    if !out.status.success() {
        return Err(format!("{args:?}: {}{}", text(&out.stdout), text(&out.stderr)));
    }
    serde_json::from_slice(&out.stdout).map_err(|e| format!("{args:?}: {e}"))
}

fn number(v: &Json, path: &str) -> u64 {
    v.pointer(path).and_then(Json::as_u64).unwrap_or(0)
}

/// Primary slots by node.
fn primaries(s: &Json) -> HashMap<String, u64> {
    let nodes = s["nodes"].as_array().into_iter().flatten();
    nodes.map(|n| (n["id"].as_str().unwrap_or_default().to_owned(), number(n, "/primary_slots"))).collect()
}

/// Asks the masters on one connection: a process for every look would be a load of its own, on processors that the cluster and
/// its clients share.
struct Watcher {
    runtime: tokio::runtime::Runtime,
    client: MasterClient,
}

impl Watcher {
    fn new(c: &Cluster) -> Watcher {
        let masters = (1..=3).map(|m| format!("127.0.0.1:{}", c.base + m));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        Watcher { runtime, client: MasterClient::new("moves", masters, Waits::default()) }
    }

    fn status(&mut self) -> Result<Json, String> {
        match self.runtime.block_on(self.client.request(&Message::StatusRequest(Empty {}), Repeat::Safe)) {
            Ok(Message::StatusView(view)) => serde_json::to_value(view.status).map_err(|e| e.to_string()),
            other => Err(format!("STATUS: {other:?}")),
        }
    }

    /// Looks until something holds.
    fn wait(&mut self, what: &str, f: impl Fn(&Json) -> bool) -> Result<Json, String> {
        for _ in 0..LOOKS_MAX {
            let s = self.status()?;
            if f(&s) {
                return Ok(s);
            }
            sleep(LOOK);
        }
        Err(format!("gave up waiting for {what}: {}", self.status()?))
    }
}

/// What one operation came to.
struct Moved {
    seconds: f64,
    /// Copied: to a new primary or to a new backup.
    keys: u64,
    bytes: u64,
}

/// One step, watched to its end.
fn step(c: &Cluster, watcher: &mut Watcher, command: &str, arg: &str) -> Result<Moved, String> {
    let before = primaries(&watcher.status()?);
    let accepted = json(c, &[command, arg, "--no-wait", "--yes", "-o", "json"])?;
    let id = number(&accepted, "/operation");
    let planned = number(&accepted, "/plan/slots_total");
    let mut last = (0, 0);
    let done = loop {
        let s = watcher.status()?;
        let s = s["operations"].as_array().into_iter().flatten().find(|o| o["id"] == id).cloned().unwrap_or_default();
        let now = (number(&s, "/slots_done"), number(&s, "/keys_done"));
        if now.0 < last.0 || now.1 < last.1 || now.0 > planned || number(&s, "/slots_total") != planned {
            return Err(format!("progress went from {last:?} to {s}, {planned} slots were planned"));
        }
        last = now;
        match s["state"].as_str() {
            Some("done") => break s,
            Some("planned" | "running") => sleep(LOOK),
            _ => return Err(format!("it is {s}")),
        }
    };
    let seconds = took(c, id)?;
    if last.0 != planned || number(&done, "/bytes_left") != 0 {
        return Err(format!("{planned} slot moves were planned: {done}"));
    }
    // What every node gained or lost is what the plan said.
    let mut expected = before;
    for m in accepted["plan"]["moves"].as_array().into_iter().flatten().filter(|m| m["role"] == "primary") {
        let end = |f: &str| m[f].as_str().unwrap_or_default().to_owned();
        *expected.entry(end("from")).or_default() -= number(m, "/slots");
        *expected.entry(end("to")).or_default() += number(m, "/slots");
    }
    expected.retain(|_, n| *n > 0);
    watcher.wait("ok, with the planned primaries", |s| {
        let mut now = primaries(s);
        now.retain(|_, n| *n > 0);
        now == expected && s["state"] == "ok"
    })?;
    Ok(Moved { seconds, keys: number(&done, "/keys_done"), bytes: number(&done, "/bytes_done") })
}

/// Seconds from the moment that an operation was accepted to its end, as the leader put them on record. As for the others, what a
/// new server takes to start and to be known is not part of it.
fn took(c: &Cluster, id: u64) -> Result<f64, String> {
    let out = c.run(&["events", "-o", "json"]);
    let events: Vec<Json> = text(&out.stdout).lines().filter_map(|l| serde_json::from_str(l).ok()).collect();
    let id = id.to_string();
    let at = |word: &str| {
        let said = |e: &&Json| e["text"].as_str().is_some_and(|t| t.contains(word));
        let found = events.iter().filter(|e| e["kind"] == "operation" && e["subject"] == id.as_str()).find(said);
        found.map(|e| number(e, "/at_ms")).ok_or_else(|| format!("no event says {word} of operation {id}"))
    };
    Ok(at(" done")?.saturating_sub(at(" accepted")?) as f64 / 1e3)
}

fn round(keys: usize, rate: usize, steps: usize, out: &mut [Vec<[f64; 4]>]) -> Result<(), String> {
    let c = Cluster::up(&["--memory", "1gb"]);
    let (n, size) = (keys.to_string(), SIZE.to_string());
    let fill = ["bench", "--load", "--keys", &n, "--size", &size, "--requests", "1", "--pipeline", "16", "-q"];
    json(&c, &[&fill[..], &["-o", "json"]].concat())?;
    let mut watcher = Watcher::new(&c);
    let load = Load::start(&c, keys, rate);
    sleep(QUIET);
    let mut moved = Vec::new();
    for (ix, (command, arg, ..)) in STEPS.iter().take(steps).enumerate() {
        load.phase.store(ix + 1, Ordering::Relaxed);
        moved.push(step(&c, &mut watcher, command, arg)?);
    }
    let s = c.status().ok_or("no status")?;
    let mut seen = load.end();
    if number(&s, "/slots/lost_total") != 0 {
        return Err(format!("{}", s["slots"]));
    }
    if !seen.errors.is_empty() {
        return Err(format!("{} errors of clients: {:?}", seen.errors.len(), &seen.errors[..seen.errors.len().min(5)]));
    }
    let mut client = Once::new((1..=5).map(|n| c.node_addr(n)).collect());
    for (n, version) in &seen.acked {
        let key = key(*n);
        match client.call(key.as_bytes(), &[b"GET", key.as_bytes()])? {
            Value::Bulk(got) if got[..] == value(*n, *version) => {}
            other => return Err(format!("{key}: {other:?}, not what was acknowledged at {version}")),
        }
    }
    let operations: usize = seen.latencies.iter().map(Vec::len).sum();
    let quiet = p99_ms(&mut seen.latencies[0]);
    println!(
        "  {operations} operations, {} keys written and read back, no error; quiet p99 {quiet:.2} ms",
        seen.acked.len()
    );
    for (ix, m) in moved.iter().enumerate() {
        let p99 = p99_ms(&mut seen.latencies[ix + 1]);
        let (keys_s, mb_s) = (m.keys as f64 / m.seconds, m.bytes as f64 / m.seconds / 1e6);
        let (command, arg, from, to) = STEPS[ix];
        println!(
            "    {command} {arg} ({from} to {to} nodes): {:.2} s, {} keys, {keys_s:.0} keys/s, {mb_s:.1} MB/s, p99 {p99:.2} ms",
            m.seconds, m.keys
        );
        out[ix].push([m.seconds, keys_s, p99, quiet]);
    }
    Ok(())
}

fn main() -> ExitCode {
    let var = |name: &str, own: usize| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(own);
    let (keys, rate, rounds) = (var("MOVES_KEYS", 1_000_000), var("MOVES_RATE", 5000), var("MOVES_ROUNDS", 5));
    let steps = var("MOVES_STEPS", STEPS.len()).clamp(1, STEPS.len());
    let peer = (var("MOVES_PEERS", 0) > 0).then_some(if rate == 0 { Peer::MigrateSlots } else { Peer::Rebalance });
    let mut beside = Vec::new();
    let mut out = vec![Vec::new(); STEPS.len()];
    for n in 1..=rounds {
        println!("round {n}: {keys} keys, {rate} operations a second");
        if let Err(why) = round(keys, rate, steps, &mut out) {
            println!("  FAILED: {why}");
            return ExitCode::FAILURE;
        }
        match peer.map(|peer| peers::keys_per_second(peer, keys, rate)).transpose() {
            Ok(speed) => beside.extend(speed),
            Err(why) => {
                println!("  FAILED: {why}");
                return ExitCode::FAILURE;
            }
        }
    }
    let mut failed = false;
    for ((command, arg, from, to), rows) in STEPS.iter().zip(&out).take(steps) {
        let of = |i: usize| median(rows.iter().map(|r| r[i]).collect());
        let (seconds, keys_s, p99, quiet) = (of(0), of(1), of(2), of(3));
        let fits = p99 <= (3.0 * quiet).max(P99_MAX_MS);
        failed |= !fits;
        println!(
            "{command} {arg} ({from} to {to} nodes), median of {rounds}: {seconds:.2} s, {keys_s:.0} keys/s, p99 {p99:.2} ms beside \
             {quiet:.2} quiet: {}",
            if fits { "within max(3 x quiet, 3 ms)" } else { "TOO LONG" }
        );
    }
    if let Some(peer) = peer {
        let ours: Vec<f64> = out[0].iter().map(|r| r[1]).collect();
        let primaries: Vec<f64> = out[0].iter().map(|r| keys as f64 / 4.0 / r[0]).collect();
        let (ours, primaries, theirs) = (median(ours), median(primaries), median(beside));
        println!(
            "3 to 4: {ours:.0} keys/s copied ({primaries:.0} primary keys/s), {}: {theirs:.0} keys/s; {:.2} x ({:.2} x)",
            peer.name(),
            ours / theirs,
            primaries / theirs
        );
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
