//! How long a local cluster takes to come up, to get over a death, and to change masters, and what its clients see of it.
//! `cargo bench --bench recovery [-- PART…]`; all parts without names. Every part fails if an acknowledged write is gone.
//!
//! Settings by environment: `RECOVERY_ROUNDS` (0 = as many as each part has by itself), `RECOVERY_WRITERS` (200).
//!
//! | part | round | prints |
//! |---|---|---|
//! | `up` | a fresh `up`, then `down` | seconds until it returned; shares of the nodes |
//! | `cycles` | `up`, `down` of one cluster in a row | what was left behind |
//! | `node` | a fresh cluster under writers, kill -9 of a node | seconds until every probed slot of it took a write, until `ok` |
//! | `pause` | the same, SIGSTOP | the same |
//! | `restart` | kill -9 of a node, started at once under its id | what the new life answered |
//! | `leader` | kill -9 of the leading master under writers | seconds until `status` shows another; errors of clients |
//! | `masters` | all masters killed under writers, away 30 s, started | errors of clients, deaths declared |
//! | `switchover` | `switchover` under writers | milliseconds of the command; errors of clients |

#[path = "../tests/common/mod.rs"]
mod common;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value as Json;

use common::{Cluster, Routed, Wrote, signal, text, wait_for};

/// A writer rests so long after each write: two cores carry the cluster and all of them.
const REST: Duration = Duration::from_millis(20);
/// Keys whose slots are probed after a death, a node.
const PROBES: usize = 64;
/// A probe waits for an answer no longer.
const PROBE_MAX: Duration = Duration::from_millis(500);
const NODES: u16 = 3;

type Part = fn(&Settings) -> Result<(), String>;

const PARTS: [(&str, Part); 8] = [
    ("up", up),
    ("cycles", cycles),
    ("node", |s| deaths(s, Signal::KILL)),
    ("pause", |s| deaths(s, Signal::STOP)),
    ("restart", restart),
    ("leader", leader),
    ("masters", masters),
    ("switchover", switchover),
];

struct Settings {
    rounds: usize,
    writers: usize,
}

impl Settings {
    fn rounds(&self, own: usize) -> usize {
        if self.rounds == 0 { own } else { self.rounds }
    }
}

/// Writers of unique keys that keep what was acknowledged and repeat nothing.
struct Writers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Seen>>,
}

#[derive(Default)]
struct Seen {
    acked: Vec<String>,
    errors: BTreeMap<String, u64>,
}

impl Writers {
    fn start(c: &Cluster, n: usize) -> Writers {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..n)
            .map(|w| {
                let (stop, mut client) = (stop.clone(), Routed::new(addrs(c)));
                std::thread::spawn(move || {
                    let mut seen = Seen::default();
                    for n in 0.. {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        let key = format!("w{w}:{n}");
                        match client.set(key.as_bytes(), key.as_bytes()) {
                            Wrote::Acknowledged => seen.acked.push(key),
                            other => {
                                let what = format!("{other:?}: {}", client.last_error.take().unwrap_or_default());
                                *seen.errors.entry(what).or_default() += 1;
                            }
                        }
                        sleep(REST);
                    }
                    seen
                })
            })
            .collect();
        Writers { stop, threads }
    }

    fn end(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Seen::default();
        for t in self.threads {
            let seen = t.join().expect("a writer");
            all.acked.extend(seen.acked);
            for (e, n) in seen.errors {
                *all.errors.entry(e).or_default() += n;
            }
        }
        all
    }
}

impl Seen {
    /// Every acknowledged write is there.
    fn check(&self, c: &Cluster) -> Result<(), String> {
        let mut client = Routed::new(addrs(c));
        let lost = self.acked.iter().filter(|k| client.get(k.as_bytes()).as_deref() != Some(k.as_bytes())).count();
        if lost > 0 {
            return Err(format!("{lost} of {} acknowledged writes are gone", self.acked.len()));
        }
        Ok(())
    }

    fn no_errors(&self) -> Result<(), String> {
        if self.errors.is_empty() { Ok(()) } else { Err(format!("clients saw errors: {:?}", self.errors)) }
    }
}

fn addrs(c: &Cluster) -> Vec<SocketAddr> {
    (1..=NODES).map(|n| c.node_addr(n)).collect()
}

fn is_ok(s: &Json) -> bool {
    s["state"] == "ok" && s["leader"].is_string()
}

fn ok(c: &Cluster) -> Json {
    c.wait_status("ok", is_ok)
}

fn number(s: &Json, path: &str) -> u64 {
    s.pointer(path).and_then(Json::as_u64).unwrap_or(0)
}

fn line(what: &str, mut values: Vec<f64>, unit: &str) {
    values.sort_by(f64::total_cmp);
    let at = |q: f64| values[((values.len() - 1) as f64 * q).round() as usize];
    println!("  {what}: median {:.3} {unit}, least {:.3}, worst {:.3} of {}", at(0.5), at(0.0), at(1.0), values.len());
}

fn up(settings: &Settings) -> Result<(), String> {
    let (mut took, mut uneven) = (Vec::new(), 0.0f64);
    for _ in 0..settings.rounds(10) {
        let c = Cluster::prepare();
        let began = Instant::now();
        c.start(&[]);
        took.push(began.elapsed().as_secs_f64());
        let s = c.status().ok_or("no status")?;
        if !is_ok(&s) || number(&s, "/slots/serving") != 16384 {
            return Err(format!("not ok right after up: {s}"));
        }
        for node in s["nodes"].as_array().into_iter().flatten() {
            for share in ["primary_slots", "backup_slots"] {
                let third = 16384.0 / f64::from(NODES);
                uneven = uneven.max((node[share].as_f64().unwrap_or(0.0) / third - 1.0).abs());
            }
        }
    }
    line("up to serving, all backed", took, "s");
    println!("  farthest from a third of the slots: {:.2} %", uneven * 100.0);
    Ok(())
}

fn cycles(settings: &Settings) -> Result<(), String> {
    let c = Cluster::prepare();
    let mut took = Vec::new();
    for n in 0..settings.rounds(20) {
        let began = Instant::now();
        c.start(&[]);
        took.push(began.elapsed().as_secs_f64());
        let s = ok(&c);
        if number(&s, "/slots/lost_total") != 0 {
            return Err(format!("round {n}: a loss was declared"));
        }
        let pids: Vec<i32> = ["m1", "m2", "m3", "n1", "n2", "n3"].iter().filter_map(|p| c.find_pid(p)).collect();
        let out = c.run(&["down", "--yes"]);
        if !out.status.success() {
            return Err(format!("down failed: {}", text(&out.stderr)));
        }
        if let Some(pid) = pids.iter().find(|p| runs(**p)) {
            return Err(format!("round {n}: process {pid} is left"));
        }
    }
    line("up again", took, "s");
    let mut left: Vec<String> = std::fs::read_dir(c.state_dir())
        .into_iter()
        .flatten()
        .flatten()
        .map(|f| f.file_name().to_string_lossy().into_owned())
        .collect();
    left.sort();
    println!("  left in the state directory: {}", left.join(" "));
    Ok(())
}

/// Whether a process is there; one that ended and waits for its parent to notice has no command line any more.
fn runs(pid: i32) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}

/// Keys that a node holds.
fn probes(c: &Cluster, victim: usize) -> Vec<String> {
    let mut client = Routed::new(addrs(c));
    let mut keys = Vec::new();
    for n in 0.. {
        let key = format!("probe{n}");
        if client.set(key.as_bytes(), b"before") == Wrote::Acknowledged && client.holder(key.as_bytes()) == victim {
            keys.push(key);
        }
        if keys.len() == PROBES {
            break;
        }
    }
    keys
}

fn deaths(settings: &Settings, how: Signal) -> Result<(), String> {
    let (mut writable, mut all_ok, mut acked) = (Vec::new(), Vec::new(), 0);
    for round in 0..settings.rounds(20) {
        let c = Cluster::up(&[]);
        let victim = round % usize::from(NODES);
        let name = format!("n{}", victim + 1);
        let mut pending = probes(&c, victim);
        let writers = Writers::start(&c, settings.writers);
        sleep(Duration::from_secs(1));
        // A key is asked for at the first of these until it is seen elsewhere: not at one that will never say a word.
        let mut nodes = addrs(&c);
        nodes.rotate_left((victim + 1) % usize::from(NODES));
        let (mut client, pid) = (Routed::new(nodes).patient(PROBE_MAX), c.pid(&name));
        let began = Instant::now();
        signal(pid, how);
        while !pending.is_empty() {
            if began.elapsed() > common::PATIENCE {
                return Err(format!("round {round}: {} of {name}'s slots take no writes", pending.len()));
            }
            pending.retain(|k| client.set(k.as_bytes(), b"after") != Wrote::Acknowledged);
            sleep(Duration::from_millis(2));
        }
        writable.push(began.elapsed().as_secs_f64());
        let s = c.wait_status("ok without the node", |s| {
            is_ok(s) && s["nodes"].as_array().into_iter().flatten().any(|n| n["id"] == *name && n["state"] == "dead")
        });
        all_ok.push(began.elapsed().as_secs_f64());
        signal(pid, Signal::CONT);
        let seen = writers.end();
        acked += seen.acked.len();
        if number(&s, "/slots/lost_total") != 0 || number(&s, "/slots/serving") != 16384 {
            return Err(format!("round {round}: {}", s["slots"]));
        }
        seen.check(&c)?;
    }
    line("every slot writable again", writable, "s");
    line("ok again, with new backups", all_ok, "s");
    println!("  {acked} writes acknowledged, none gone");
    Ok(())
}

fn restart(settings: &Settings) -> Result<(), String> {
    let (mut acked, mut back) = (0, Vec::new());
    for round in 0..settings.rounds(20) {
        let c = Cluster::up(&[]);
        let at = round % usize::from(NODES);
        let name = format!("n{}", at + 1);
        let before = ok(&c)["nodes"][at]["incarnation"].clone();
        let writers = Writers::start(&c, settings.writers);
        sleep(Duration::from_millis(500));
        let began = Instant::now();
        c.kill(&name);
        let out = c.run(&["start", &name]);
        if !out.status.success() {
            return Err(format!("start {name}: {}", text(&out.stderr)));
        }
        let s = c.wait_status("ok with the new life", |s| {
            let mut nodes = s["nodes"].as_array().into_iter().flatten();
            is_ok(s) && s["nodes"][at]["incarnation"] != before && nodes.all(|n| n["state"] == "up")
        });
        back.push(began.elapsed().as_secs_f64());
        let seen = writers.end();
        acked += seen.acked.len();
        if number(&s, "/slots/lost_total") != 0 {
            return Err(format!("round {round}: {}", s["slots"]));
        }
        seen.check(&c).map_err(|e| format!("round {round}: {e}"))?;
    }
    line("ok again, with the new life", back, "s");
    println!("  {acked} writes acknowledged, none gone");
    Ok(())
}

fn leader(settings: &Settings) -> Result<(), String> {
    let (mut took, mut acked) = (Vec::new(), 0);
    for round in 0..settings.rounds(10) {
        let c = Cluster::up(&[]);
        let writers = Writers::start(&c, settings.writers);
        sleep(Duration::from_secs(1));
        let old = ok(&c)["leader"].as_str().unwrap_or_default().to_owned();
        let began = Instant::now();
        c.kill(&old);
        wait_for("another leader", || c.status().filter(|s| s["leader"].as_str().is_some_and(|l| l != old)));
        took.push(began.elapsed().as_secs_f64());
        sleep(Duration::from_secs(3));
        let seen = writers.end();
        acked += seen.acked.len();
        seen.no_errors().map_err(|e| format!("round {round}: {e}"))?;
        seen.check(&c)?;
    }
    line("status shows another leader", took, "s");
    println!("  {acked} writes acknowledged, none gone, no error of a client");
    Ok(())
}

fn masters(settings: &Settings) -> Result<(), String> {
    for _ in 0..settings.rounds(1) {
        let c = Cluster::up(&[]);
        let lives = |s: &Json| -> Vec<Json> {
            s["nodes"].as_array().into_iter().flatten().map(|n| n["incarnation"].clone()).collect()
        };
        let before = lives(&ok(&c));
        let writers = Writers::start(&c, settings.writers);
        sleep(Duration::from_secs(1));
        for m in ["m1", "m2", "m3"] {
            c.kill(m);
        }
        sleep(Duration::from_secs(30));
        let out = c.run(&["start", "m1", "m2", "m3"]);
        if !out.status.success() {
            return Err(format!("start: {}", text(&out.stderr)));
        }
        let after = lives(&ok(&c));
        sleep(Duration::from_secs(5));
        let seen = writers.end();
        if after != before || lives(&ok(&c)) != before {
            return Err(format!("a node was given up: {before:?}, then {after:?}"));
        }
        println!("  masters away for 30 s: {} writes acknowledged, errors {:?}", seen.acked.len(), seen.errors);
        seen.no_errors()?;
        seen.check(&c)?;
    }
    Ok(())
}

fn switchover(settings: &Settings) -> Result<(), String> {
    let c = Cluster::up(&[]);
    let writers = Writers::start(&c, settings.writers);
    let mut took = Vec::new();
    for round in 0..settings.rounds(50) {
        let began = Instant::now();
        let out = c.run(&["switchover", "--yes"]);
        took.push(began.elapsed().as_secs_f64() * 1000.0);
        if !out.status.success() {
            return Err(format!("round {round}: {}", text(&out.stderr)));
        }
    }
    let seen = writers.end();
    line("switchover", took, "ms");
    println!("  {} writes acknowledged, none gone, no error of a client", seen.acked.len());
    seen.no_errors()?;
    seen.check(&c)
}

fn main() -> ExitCode {
    let var = |name: &str, own: usize| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(own);
    let settings = Settings { rounds: var("RECOVERY_ROUNDS", 0), writers: var("RECOVERY_WRITERS", 200) };
    let named: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    if let Some(other) = named.iter().find(|n| !PARTS.iter().any(|(p, _)| p == n)) {
        eprintln!("no part is called {other}; there are: {}", PARTS.map(|(p, _)| p).join(" "));
        return ExitCode::from(2);
    }
    let mut failed = false;
    for (name, part) in PARTS.iter().filter(|(p, _)| named.is_empty() || named.iter().any(|n| n == p)) {
        println!("{name}");
        if let Err(why) = part(&settings) {
            println!("  FAILED: {why}");
            failed = true;
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
