//! What one node without masters costs and how even it is. `cargo bench --bench engine -- [memory] [growth] [threads] [pauses]`;
//! all of them if none is named. The server has one core, whatever loads it another (`threads`: both have both).
//!
//! - `memory`: resident bytes of an empty node, of an item beyond its key and value, of an idle connection.
//! - `growth`: CPU of a GET at 10,000,000 keys beside 10,000, and on 10,000 connections beside 50; the latter also of a bare echo
//!   (`peers/echo.rs`), which is the kernel's part of it.
//! - `threads`: CPU of an operation with two threads beside one, and what an idle node uses.
//! - `pauses`: p99.9 of paced GETs while the node is filled, while a million keys expire at once, while it evicts, and while
//!   FLUSHALL empties it, beside quiet. Latency is counted from when an operation was due (open loop). What a host took from this
//!   machine meanwhile (steal) is said: no server answers then.
//!
//! Settings by environment: `ENGINE_RUNS` (5) of everything, medians with their spread; `ENGINE_SCALE` (1.0) of all counts;
//! `ENGINE_CACHECTL` names another binary, as `just engine` does with the release.

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "peers/echo.rs"]
mod echo;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use cachectl::proto::resp::encode_command;
use cachectl::proto::value::Value;
use common::Raw;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::Value as Json;

/// How long a server may take to listen.
const START: Duration = Duration::from_secs(20);
/// What is due in the background (a shrinking table, what allocators give back) has happened by then.
const SETTLE: Duration = Duration::from_secs(2);
/// Idle connections looked at.
const IDLE: usize = 5000;
/// Connections that ask, and how many GETs a second they send together. Each waits for one reply at a time: with so many they keep
/// the pace up to 8 ms a reply, and what they show is the replies' time and no queue of their own.
const PACED: usize = 32;
const PACED_RATE: u32 = 4000;
/// What a p99.9 may come to in any case (issue: data path, line 5), milliseconds.
const PAUSE_MAX_MS: f64 = 3.0;
/// Commands sent at once by this program's own loads.
const BATCH: usize = 500;

fn var(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

fn cachectl() -> String {
    var("ENGINE_CACHECTL", common::CACHECTL)
}

/// So many, at the scale asked for.
fn scaled(n: u64) -> u64 {
    let scale: f64 = var("ENGINE_SCALE", "1").parse().expect("ENGINE_SCALE is a number");
    (n as f64 * scale) as u64
}

/// A node without masters; it ends with this.
struct Node {
    child: Child,
    addr: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Node {
    fn start(cores: &str, flags: &[&str]) -> Result<Node, String> {
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        let port = common::free_port();
        let (listen, data) = (format!("127.0.0.1:{port}"), dir.path().join("node").display().to_string());
        let node = ["node", "--standalone", "--log", "warn", "--listen", &listen, "--data", &data];
        let answers = |addr| Raw::connect(addr).and_then(|mut c| c.call(&[b"PING"])).is_ok();
        Self::run(cores, &[&[&cachectl()[..]], &node[..], flags].concat(), port, dir, answers)
    }

    /// A bare echo that knows the lengths of commands and nothing else, in place of a node.
    fn echo(cores: &str, size: usize) -> Result<Node, String> {
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        let me = std::env::current_exe().map_err(|e| e.to_string())?.display().to_string();
        let port = common::free_port();
        let listens = |addr| Raw::connect(addr).is_ok();
        Self::run(cores, &[&me, ECHO, &port.to_string(), &size.to_string()], port, dir, listens)
    }

    fn run(
        cores: &str,
        program: &[&str],
        port: u16,
        dir: tempfile::TempDir,
        is_up: impl Fn(SocketAddr) -> bool,
    ) -> Result<Node, String> {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut taskset = Command::new("taskset");
        taskset.args(["-c", cores]).args(program).stdin(Stdio::null()).stdout(Stdio::null());
        let child = taskset.spawn().map_err(|e| format!("taskset: {e}"))?;
        let mut node = Node { child, addr, _dir: dir };
        let end = Instant::now() + START;
        while !is_up(addr) {
            if let Ok(Some(status)) = node.child.try_wait() {
                return Err(format!("the server ended: {status}"));
            }
            if Instant::now() > end {
                return Err("the server does not listen".into());
            }
            sleep(Duration::from_millis(10));
        }
        Ok(node)
    }

    /// Resident bytes.
    fn rss(&self) -> f64 {
        sleep(SETTLE);
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap_or_default();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(f64::NAN) * 1024.0
    }

    /// CPU seconds so far.
    fn cpu(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let ticks = after_name.split(' ').skip(12).take(2).filter_map(|f| f.parse::<f64>().ok()).sum::<f64>();
        ticks / rustix::param::clock_ticks_per_second() as f64
    }

    /// The generator, on these cores, as an unimportant process: what is paced beside it comes first.
    fn generator(&self, cores: &str, args: &[&str]) -> Command {
        let mut c = Command::new("nice");
        c.args(["-n", "19", "taskset", "-c", cores, &cachectl(), "bench", "-o", "json", "--single"]);
        c.args(["--addr", &self.addr.to_string(), "--server-pid", &self.child.id().to_string()]).args(args);
        c
    }

    fn load(&self, cores: &str, args: &[&str]) -> Result<Json, String> {
        let out = self.generator(cores, args).output().map_err(|e| format!("taskset: {e}"))?;
        let doc: Json = serde_json::from_slice(&out.stdout).map_err(|_| common::text(&out.stderr))?;
        match doc["errors_total"].as_u64() {
            Some(0) => Ok(doc),
            _ => Err(format!("errors: {}", doc["errors"])),
        }
    }

    fn fill(&self, keys: u64, size: u64) -> Result<(), String> {
        let (keys, size) = (keys.to_string(), size.to_string());
        let fill = ["--keys", &keys, "--size", &size, "--pipeline", "16", "--load", "--requests", "1"];
        self.load("1", &fill).map(drop)
    }

    fn ask(&self, command: &[&[u8]]) -> Result<Value, String> {
        Raw::connect(self.addr).and_then(|mut c| c.call(command)).map_err(|e| e.to_string())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One run's number, and the most it may be in that run.
type Figure = (f64, Option<f64>);

/// Rows of figures: what is measured, its unit, its runs.
#[derive(Default)]
struct Figures {
    rows: Vec<(String, &'static str, Vec<Figure>)>,
}

impl Figures {
    /// One run's number; `goal` is the most it may be.
    fn put(&mut self, name: &str, unit: &'static str, goal: Option<f64>, value: f64) {
        println!("  {name}: {value:.2} {unit}");
        match self.rows.iter_mut().find(|(n, ..)| n == name) {
            Some((.., values)) => values.push((value, goal)),
            None => self.rows.push((name.to_owned(), unit, vec![(value, goal)])),
        }
    }

    fn print(&self) -> bool {
        let mut all_met = true;
        for (name, unit, runs) in &self.rows {
            let mut sorted: Vec<f64> = runs.iter().map(|(value, _)| *value).collect();
            sorted.sort_by(f64::total_cmp);
            let (low, middle, high) = (sorted[0], sorted[sorted.len() / 2], sorted[sorted.len() - 1]);
            // A goal may depend on the run: each is held to its own.
            let of = runs.iter().filter(|(_, goal)| goal.is_some()).count();
            let within = runs.iter().filter(|(value, goal)| goal.is_some_and(|goal| *value <= goal)).count();
            let least = runs.iter().filter_map(|(_, goal)| *goal).fold(f64::INFINITY, f64::min);
            let met = 2 * within > of || of == 0;
            all_met &= met;
            let verdict = if met { "met" } else { "NOT MET" };
            let verdict = match of {
                0 => String::new(),
                _ => format!("; at most {least:.2} (its lowest goal), {within} of {of} runs: {verdict}"),
            };
            println!("{name}: {middle:.2} {unit} ({low:.2}-{high:.2}){verdict}");
        }
        all_met
    }
}

fn memory(out: &mut Figures) -> Result<(), String> {
    let node = Node::start("0", &["--memory", "8gb"])?;
    out.put("an empty node", "MiB", Some(8.0), node.rss() / f64::from(1 << 20));
    let before = node.rss();
    let mut idle = Vec::new();
    for _ in 0..IDLE {
        let mut c = Raw::connect(node.addr).map_err(|e| e.to_string())?;
        c.call(&[b"PING"]).map_err(|e| e.to_string())?;
        idle.push(c);
    }
    out.put("an idle connection", "KiB", Some(4.0), (node.rss() - before) / IDLE as f64 / 1024.0);
    drop(idle);
    for (items, size, goal) in [(1_000_000, 100, 48.0), (5_000_000, 32, 33.0)] {
        let items = scaled(items);
        let node = Node::start("0", &["--memory", "8gb"])?;
        let before = node.rss();
        node.fill(items, size)?;
        let beyond = (node.rss() - before) / items as f64 - 16.0 - size as f64;
        out.put(&format!("beyond key and value, 16 B + {size} B, {items} items"), "B", Some(goal), beyond);
    }
    Ok(())
}

/// CPU microseconds of an operation under some load.
fn cost(node: &Node, cores: &str, more: &[&str]) -> Result<f64, String> {
    let doc = node.load(cores, &[&["--duration", "5s", "--warmup", "1s"], more].concat())?;
    doc["servers"]["cpu_s_per_mops"].as_f64().ok_or_else(|| "no CPU was measured".into())
}

fn growth(out: &mut Figures) -> Result<(), String> {
    let (few, many) = (scaled(10_000), scaled(10_000_000));
    let mut at = Vec::new();
    for keys in [few, many] {
        let node = Node::start("0", &["--memory", "8gb"])?;
        node.fill(keys, 100)?;
        let (keys, mut costs) = (keys.to_string(), Vec::new());
        for pipeline in ["1", "16"] {
            costs.push(cost(&node, "1", &["--ratio", "0:1", "--keys", &keys, "--pipeline", pipeline])?);
        }
        at.push(costs);
    }
    for (ix, pipeline) in [1, 16].iter().enumerate() {
        let name = format!("CPU of a GET at {many} keys beside {few}, pipeline {pipeline}");
        out.put(&name, "x", Some(1.5), at[1][ix] / at[0][ix]);
    }
    let node = Node::start("0", &["--memory", "8gb"])?;
    let keys = scaled(1_000_000);
    node.fill(keys, 100)?;
    let keys = keys.to_string();
    let cost = |node: &Node, clients: &str| cost(node, "1", &["--keys", &keys, "--clients", clients]);
    let (few, many) = (cost(&node, "50")?, cost(&node, "9900")?);
    out.put("CPU of an operation on 9900 connections beside 50", "x", Some(1.3), many / few);
    let echo = Node::echo("0", 100)?;
    out.put("the same of a bare echo", "x", None, cost(&echo, "9900")? / cost(&echo, "50")?);
    Ok(())
}

fn threads(out: &mut Figures) -> Result<(), String> {
    let keys = scaled(1_000_000);
    let mut seen = Vec::new();
    for threads in ["1", "2"] {
        let node = Node::start("0,1", &["--memory", "4gb", "--threads", threads])?;
        node.fill(keys, 100)?;
        let doc = node.load("0,1", &["--keys", &keys.to_string(), "--duration", "5s", "--warmup", "1s"])?;
        let figure = |what: &str| doc.pointer(what).and_then(Json::as_f64).unwrap_or(f64::NAN);
        seen.push((figure("/servers/cpu_s_per_mops"), figure("/ops_per_s")));
        out.put(
            &format!("operations a second, {threads} threads, two cores with the generator"),
            "",
            None,
            seen[seen.len() - 1].1,
        );
        sleep(SETTLE);
        let before = node.cpu();
        sleep(Duration::from_secs(5));
        out.put(
            &format!("CPU of an idle node, {threads} threads"),
            "%",
            Some(1.0),
            (node.cpu() - before) / 5.0 * 100.0,
        );
    }
    out.put("CPU of an operation, two threads beside one", "x", Some(1.15), seen[1].0 / seen[0].0);
    Ok(())
}

/// GETs of known keys at an even pace; microseconds each took since it was due.
struct Paced {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<Vec<u32>, String>>>,
}

impl Paced {
    fn start(addr: SocketAddr) -> Paced {
        let stop = Arc::new(AtomicBool::new(false));
        let every = Duration::from_secs(1) * PACED as u32 / PACED_RATE;
        let threads = (0..PACED as u32)
            .map(|w| {
                let stop = stop.clone();
                std::thread::spawn(move || {
                    // Beside the generator, before which they come; the node has its core for itself.
                    let mut core = CpuSet::new();
                    core.set(1);
                    sched_setaffinity(None, &core).map_err(|e| e.to_string())?;
                    let mut c = Raw::connect(addr).map_err(|e| e.to_string())?;
                    let mut due = Instant::now() + every * w / PACED as u32;
                    let mut took = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        due += every;
                        sleep(due.saturating_duration_since(Instant::now()));
                        c.call(&[b"GET", b"paced"]).map_err(|e| e.to_string())?;
                        took.push(due.elapsed().as_micros().min(u128::from(u32::MAX)) as u32);
                    }
                    Ok(took)
                })
            })
            .collect();
        Paced { stop, threads }
    }

    /// The p99.9, milliseconds.
    fn end(self) -> Result<f64, String> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for t in self.threads {
            all.extend(t.join().map_err(|_| "a client panicked")??);
        }
        all.sort_unstable();
        Ok(f64::from(all[all.len() * 999 / 1000]) / 1000.0)
    }
}

/// Commands, sent at an easy pace from a thread of its own.
fn send(node: &Node, commands: impl Iterator<Item = Vec<u8>>) -> Result<(), String> {
    let mut c = Raw::connect(node.addr).map_err(|e| e.to_string())?;
    let mut commands = commands.peekable();
    while commands.peek().is_some() {
        let batch: Vec<Vec<u8>> = commands.by_ref().take(BATCH).collect();
        c.send(&batch.concat()).map_err(|e| e.to_string())?;
        for _ in &batch {
            if let Value::Error(e) = c.reply().map_err(|e| e.to_string())? {
                return Err(format!("{e:?}"));
            }
        }
    }
    Ok(())
}

/// What a host gave to others of this machine's CPUs so far, milliseconds; 0 where none says so.
fn stolen_ms() -> u64 {
    const STEAL: usize = 8;
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let all = stat.lines().next().and_then(|cpu| cpu.split_whitespace().nth(STEAL)).and_then(|n| n.parse().ok());
    all.unwrap_or(0) * 1000 / rustix::param::clock_ticks_per_second()
}

fn pauses(out: &mut Figures) -> Result<(), String> {
    let many = scaled(10_000_000);
    let node = Node::start("0", &["--memory", "8gb"])?;
    let mut quiet = 0.0;
    let mut during = |node: &Node, what: &str, f: &mut dyn FnMut() -> Result<(), String>| {
        let before = stolen_ms();
        let paced = Paced::start(node.addr);
        let done = f();
        let p999 = paced.end()?;
        done?;
        match stolen_ms() - before {
            0 => {}
            ms => println!("  {ms} ms of CPU went elsewhere, {what}"),
        }
        if what == "quiet" {
            quiet = p999;
        }
        let goal = (what != "quiet").then_some((3.0 * quiet).max(PAUSE_MAX_MS));
        out.put(&format!("p99.9 of GETs, {what}"), "ms", goal, p999);
        Ok::<(), String>(())
    };
    node.ask(&[b"SET", b"paced", b"here"])?;
    let rest = |seconds: u64| {
        sleep(Duration::from_secs(seconds));
        Ok(())
    };
    during(&node, "quiet", &mut || rest(5))?;
    during(&node, &format!("0 to {many} keys"), &mut || node.fill(many, 100))?;
    during(&node, &format!("FLUSHALL of {many} keys"), &mut || {
        sleep(Duration::from_millis(500));
        node.ask(&[b"FLUSHALL"])?;
        // What follows it is paced too: the memory goes back slice by slice.
        node.ask(&[b"SET", b"paced", b"here"])?;
        rest(4)
    })?;
    let expiring = scaled(1_000_000);
    let at = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_err(|e| e.to_string())?;
    let at = (at.as_millis() as u64 + 15_000).to_string();
    let set =
        |n: u64| encode_command(&[b"SET", format!("expires:{n:08}").as_bytes(), &[b'x'; 100], b"PXAT", at.as_bytes()]);
    send(&node, (0..expiring).map(set))?;
    let size = |node: &Node| match node.ask(&[b"DBSIZE"]) {
        Ok(Value::Int(n)) => Ok(n),
        other => Err(format!("DBSIZE: {other:?}")),
    };
    if size(&node)? <= expiring as i64 {
        return Err("some expired before all were there".into());
    }
    // From just before they do until all are gone.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_err(|e| e.to_string())?;
    sleep(Duration::from_millis(at.parse::<u64>().unwrap_or(0).saturating_sub(now.as_millis() as u64 + 200)));
    during(&node, &format!("{expiring} keys expire at once"), &mut || {
        while size(&node)? > 1 {
            sleep(Duration::from_millis(50));
        }
        Ok(())
    })?;
    drop(node);
    let node = Node::start("0", &["--memory", "512mb"])?;
    node.fill(scaled(5_000_000), 100)?;
    node.ask(&[b"SET", b"paced", b"here"])?;
    during(&node, "evicting at the limit", &mut || {
        let keys = scaled(20_000_000).to_string();
        let more = ["--keys", &keys, "--size", "100", "--ratio", "1:0", "--pipeline", "16", "--duration", "8s"];
        node.load("1", &more).map(drop)
    })?;
    Ok(())
}

type Part = fn(&mut Figures) -> Result<(), String>;

/// The word by which this program runs itself as an echo: `echo PORT BYTES`.
const ECHO: &str = "echo";

const PARTS: [(&str, Part); 4] = [("memory", memory), ("growth", growth), ("threads", threads), ("pauses", pauses)];

fn run() -> Result<bool, String> {
    // Cargo's own word.
    let asked: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    if let [ECHO, port, size] = asked.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        let numbers = port.parse().ok().zip(size.parse().ok());
        let (port, size) = numbers.ok_or("echo PORT BYTES")?;
        return echo::serve(port, size).map(|()| true).map_err(|e| e.to_string());
    }
    if let Some(bad) = asked.iter().find(|a| !PARTS.iter().any(|(name, _)| name == a)) {
        return Err(format!("no part is called {bad}"));
    }
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).map_err(|e| e.to_string())?;
    let runs: usize = var("ENGINE_RUNS", "5").parse().map_err(|e| format!("ENGINE_RUNS: {e}"))?;
    let mut figures = Figures::default();
    for n in 1..=runs.max(1) {
        for (name, part) in PARTS.iter().filter(|(name, _)| asked.is_empty() || asked.iter().any(|a| a == name)) {
            println!("run {n}, {name}");
            part(&mut figures)?;
        }
    }
    println!();
    Ok(figures.print())
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            println!("FAILED: {why}");
            ExitCode::FAILURE
        }
    }
}
