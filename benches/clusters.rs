//! What a synchronous backup costs: three nodes with one, three without, and three primaries of every other cluster on PATH with an
//! asynchronous replica each, all nodes on one core and the generator on another. `cargo bench --bench clusters`, or `just clusters`.
//!
//! What a machine gives changes by a quarter within minutes where others share it. So all clusters run and are full before any
//! is measured, and then each has a short turn after the other, many times: ratios are of turns next to each other.
//!
//! Printed is the CPU of all nodes together, seconds per million operations: medians of all turns with their spread, and the
//! medians of the turns' ratios. `CLUSTERS_RUNS` (2) rounds with clusters started anew, in an order turned round each time;
//! `CLUSTERS_TURNS` (5) in each, `CLUSTERS_SECONDS` (2) a turn. Other settings: `CLUSTERS_KEYS` (1000000), `CLUSTERS_SIZE`
//! (100) bytes a value, `CLUSTERS_CORES` (0,1) for the nodes and the generator, `CLUSTERS_LOADS` (1/0:1,1/1:10,16/0:1,16/1:10)
//! pipelines and SET:GET, `CLUSTERS_PEERS` (redis-server,valkey-server) beside ours, none if empty.

#[path = "../tests/common/mod.rs"]
mod common;

use std::process::{Child, Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::{CACHECTL, Cluster, free_port, text};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::Value as Json;

/// How long servers may take to listen.
const START: Duration = Duration::from_secs(20);
/// A cluster's parts know each other by then, and replicas are copied.
const GOSSIP: Duration = Duration::from_secs(4);
/// Before anything is counted.
const WARMUP: &str = "500ms";

#[derive(Clone, PartialEq, Eq)]
enum Who {
    Backed,
    Alone,
    Other(String),
}

impl Who {
    fn name(&self) -> &str {
        match self {
            Who::Backed => "cachectl, a backup in sync",
            Who::Alone => "cachectl, no backup",
            Who::Other(program) => program,
        }
    }
}

struct Settings {
    keys: String,
    size: String,
    time: String,
    runs: usize,
    turns: usize,
    nodes: usize,
    generator: usize,
    /// Pipeline and SET:GET of every measurement.
    loads: Vec<(String, String)>,
    peers: Vec<String>,
}

impl Settings {
    fn read() -> Result<Self, String> {
        let var = |name: &str, own: &str| std::env::var(name).unwrap_or_else(|_| own.to_owned());
        let number = |name: &str, own: &str| var(name, own).parse::<usize>().map_err(|e| format!("{name}: {e}"));
        let cores = var("CLUSTERS_CORES", "0,1");
        let (nodes, generator) = cores.split_once(',').ok_or("CLUSTERS_CORES is NODES,GENERATOR")?;
        let core = |text: &str| text.parse::<usize>().map_err(|e| format!("CLUSTERS_CORES: {text}: {e}"));
        let loads = var("CLUSTERS_LOADS", "1/0:1,1/1:10,16/0:1,16/1:10");
        let load = |text: &str| text.split_once('/').map(|(pipeline, ratio)| (pipeline.to_owned(), ratio.to_owned()));
        let loads: Option<Vec<_>> = loads.split(',').map(load).collect();
        let peers = var("CLUSTERS_PEERS", "redis-server,valkey-server");
        Ok(Self {
            keys: number("CLUSTERS_KEYS", "1000000")?.to_string(),
            size: number("CLUSTERS_SIZE", "100")?.to_string(),
            time: format!("{}s", number("CLUSTERS_SECONDS", "2")?),
            runs: number("CLUSTERS_RUNS", "2")?.max(1),
            turns: number("CLUSTERS_TURNS", "5")?.max(1),
            nodes: core(nodes)?,
            generator: core(generator)?,
            loads: loads.ok_or("CLUSTERS_LOADS is PIPELINE/SET:GET,…")?,
            peers: peers.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
        })
    }
}

/// What is started from now on runs on this core.
fn pin(core: usize) -> Result<(), String> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).map_err(|e| format!("core {core}: {e}"))
}

/// Servers that end with this.
struct Servers(Vec<Child>);

impl Drop for Servers {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn said(command: &mut Command) -> Result<String, String> {
    let out = command.output().map_err(|e| format!("{command:?}: {e}"))?;
    match out.status.success() {
        true => Ok(text(&out.stdout).to_owned()),
        false => Err(format!("{command:?}: {}{}", text(&out.stdout), text(&out.stderr))),
    }
}

/// Three primaries with a replica each; one's address.
fn others(program: &str, dir: &std::path::Path) -> Result<(Servers, String), String> {
    let (mut running, mut addrs) = (Servers(Vec::new()), Vec::new());
    for n in 0..6 {
        let (port, home) = (free_port(), dir.join(n.to_string()));
        std::fs::create_dir(&home).map_err(|e| e.to_string())?;
        let child = Command::new(program)
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--cluster-enabled", "yes"])
            .args(["--port", &port.to_string(), "--dir", &home.display().to_string()])
            .stdout(Stdio::null())
            .spawn();
        running.0.push(child.map_err(|e| format!("{program}: {e}"))?);
        let end = Instant::now() + START;
        while said(Command::new("redis-cli").args(["-p", &port.to_string(), "ping"])).is_err() {
            if Instant::now() > end {
                return Err(format!("{program} does not listen"));
            }
            sleep(Duration::from_millis(20));
        }
        addrs.push(format!("127.0.0.1:{port}"));
    }
    let create = ["--cluster", "create", "--cluster-replicas", "1", "--cluster-yes"];
    said(Command::new("redis-cli").args(create).args(&addrs))?;
    sleep(GOSSIP);
    Ok((running, addrs.swap_remove(0)))
}

/// A cluster that is running, or its processes one by one.
enum Running {
    Ours(Box<Cluster>),
    Others { servers: Servers, addr: String, _dir: tempfile::TempDir },
}

impl Running {
    fn start(who: &Who, s: &Settings) -> Result<Self, String> {
        pin(s.nodes)?;
        let own =
            |backups| Running::Ours(Box::new(Cluster::up(&["--nodes", "3", "--backups", backups, "--memory", "2gb"])));
        Ok(match who {
            Who::Backed => own("1"),
            Who::Alone => own("0"),
            Who::Other(program) => {
                let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
                let (servers, addr) = others(program, dir.path())?;
                Running::Others { servers, addr, _dir: dir }
            }
        })
    }

    /// One run of the generator; its document.
    fn bench(&self, s: &Settings, more: &[&str]) -> Result<Json, String> {
        pin(s.generator)?;
        let given = ["bench", "-o", "json", "--keys", &s.keys, "--size", &s.size];
        let args = [&given, more].concat();
        let mut bench = match self {
            Running::Ours(c) => c.command(&args),
            Running::Others { servers, addr, .. } => {
                let mut bench = Command::new(CACHECTL);
                bench.args(args).args(["--cluster", "--addr", addr]);
                bench.args(servers.0.iter().flat_map(|c| ["--server-pid".into(), c.id().to_string()]));
                bench
            }
        };
        let doc: Json = serde_json::from_str(&said(&mut bench)?).map_err(|e| e.to_string())?;
        match doc["errors_total"].as_u64() {
            Some(0) => Ok(doc),
            _ => Err(format!("errors: {}", doc["errors"])),
        }
    }
}

/// Of each load and cluster what its turns cost, added to `costs`.
fn measure(all: &[Who], s: &Settings, costs: &mut [Vec<Vec<f64>>], reversed: bool) -> Result<(), String> {
    // Who is started later may be given better memory.
    let mut order: Vec<usize> = (0..all.len()).collect();
    if reversed {
        order.reverse();
    }
    let mut running = Vec::new();
    for &at in &order {
        let cluster = Running::start(&all[at], s)?;
        cluster.bench(s, &["--load", "--requests", "1", "--pipeline", "16"])?;
        running.push((at, cluster));
    }
    for ((pipeline, ratio), costs) in s.loads.iter().zip(costs) {
        for turn in 1..=s.turns {
            eprintln!("pipeline {pipeline}, SET:GET {ratio}, turn {turn} of {}", s.turns);
            for (at, cluster) in &running {
                let more = ["--pipeline", pipeline, "--ratio", ratio, "--duration", &s.time, "--warmup", WARMUP];
                let doc = cluster.bench(s, &more)?;
                let cost = doc["servers"]["cpu_s_per_mops"].as_f64();
                costs[*at].push(cost.ok_or_else(|| format!("no CPU is told: {}", doc["servers"]))?);
            }
        }
    }
    Ok(())
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn run() -> Result<(), String> {
    let s = Settings::read()?;
    let on_path = |program: &&String| Command::new(program).arg("--version").output().is_ok();
    let mut all = vec![Who::Backed, Who::Alone];
    all.extend(s.peers.iter().filter(on_path).cloned().map(Who::Other));
    let mut costs = vec![vec![Vec::new(); all.len()]; s.loads.len()];
    for round in 1..=s.runs {
        eprintln!("round {round} of {}", s.runs);
        measure(&all, &s, &mut costs, round % 2 == 0)?;
    }
    println!(
        "{} keys, {} B values, three primaries on core {}, generator on core {}; CPU s of all nodes per M ops, median of {} × {} \
         turns (spread), × = the first to this one, median of turns",
        s.keys, s.size, s.nodes, s.generator, s.runs, s.turns
    );
    for ((pipeline, ratio), costs) in s.loads.iter().zip(costs) {
        println!("pipeline {pipeline}, SET:GET {ratio}");
        for (who, of) in all.iter().zip(&costs) {
            let (low, high) = of.iter().fold((f64::MAX, 0f64), |(l, h), x| (l.min(*x), h.max(*x)));
            let ratio = median(costs[0].iter().zip(of).map(|(first, this)| first / this).collect());
            println!("  {:28} {:7.3} ({low:.3}–{high:.3})  {ratio:.2}×", who.name(), median(of.clone()));
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}
