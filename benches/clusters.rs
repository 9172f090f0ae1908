//! What a synchronous backup costs: three nodes with one, three without, and three primaries of every other cluster on PATH with an
//! asynchronous replica each, one after the other, all of a cluster's nodes on one core and the generator on another.
//! `cargo bench --bench clusters`, or `just clusters`.
//!
//! Printed is the CPU of all nodes together, seconds per million operations: medians of `CLUSTERS_RUNS` (5) rounds with their
//! spread, and the medians of the rounds' ratios. Other settings: `CLUSTERS_KEYS` (1000000), `CLUSTERS_SIZE` (100) bytes a
//! value, `CLUSTERS_SECONDS` (3) a measurement, `CLUSTERS_CORES` (0,1) for the nodes and the generator.

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
const WARMUP: &str = "1s";
/// Pipeline and SET:GET of every measurement.
const LOADS: [(&str, &str); 4] = [("1", "0:1"), ("1", "1:10"), ("16", "0:1"), ("16", "1:10")];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Backed,
    Alone,
    Other(&'static str),
}

impl Who {
    fn name(self) -> &'static str {
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
    nodes: usize,
    generator: usize,
}

impl Settings {
    fn read() -> Result<Self, String> {
        let var = |name: &str, own: &str| std::env::var(name).unwrap_or_else(|_| own.to_owned());
        let number = |name: &str, own: &str| var(name, own).parse::<usize>().map_err(|e| format!("{name}: {e}"));
        let cores = var("CLUSTERS_CORES", "0,1");
        let (nodes, generator) = cores.split_once(',').ok_or("CLUSTERS_CORES is NODES,GENERATOR")?;
        let core = |text: &str| text.parse::<usize>().map_err(|e| format!("CLUSTERS_CORES: {text}: {e}"));
        Ok(Self {
            keys: number("CLUSTERS_KEYS", "1000000")?.to_string(),
            size: number("CLUSTERS_SIZE", "100")?.to_string(),
            time: format!("{}s", number("CLUSTERS_SECONDS", "3")?),
            runs: number("CLUSTERS_RUNS", "5")?.max(1),
            nodes: core(nodes)?,
            generator: core(generator)?,
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

/// One measurement of each load, by `bench`, which makes a command of its arguments.
fn loads(s: &Settings, bench: impl Fn(&[&str]) -> Command) -> Result<Vec<f64>, String> {
    let run = |more: &[&str]| -> Result<Json, String> {
        let given = ["bench", "-o", "json", "--keys", &s.keys, "--size", &s.size];
        let doc: Json =
            serde_json::from_str(&said(&mut bench(&[&given, more].concat()))?).map_err(|e| e.to_string())?;
        match doc["errors_total"].as_u64() {
            Some(0) => Ok(doc),
            _ => Err(format!("errors: {}", doc["errors"])),
        }
    };
    pin(s.generator)?;
    run(&["--load", "--requests", "1", "--pipeline", "16"])?;
    let measure = |(pipeline, ratio): (&str, &str)| {
        let doc = run(&["--pipeline", pipeline, "--ratio", ratio, "--duration", &s.time, "--warmup", WARMUP])?;
        doc["servers"]["cpu_s_per_mops"].as_f64().ok_or_else(|| format!("no CPU is told: {}", doc["servers"]))
    };
    LOADS.into_iter().map(measure).collect()
}

fn measure(who: Who, s: &Settings) -> Result<Vec<f64>, String> {
    pin(s.nodes)?;
    match who {
        Who::Backed | Who::Alone => {
            let backups = if who == Who::Backed { "1" } else { "0" };
            let c = Cluster::up(&["--nodes", "3", "--backups", backups, "--memory", "2gb"]);
            loads(s, |args| c.command(args))
        }
        Who::Other(program) => {
            let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
            let (servers, addr) = others(program, dir.path())?;
            let pids: Vec<String> =
                servers.0.iter().flat_map(|c| ["--server-pid".into(), c.id().to_string()]).collect();
            loads(s, |args| {
                let mut bench = Command::new(CACHECTL);
                bench.args(args).args(["--cluster", "--addr", &addr]).args(&pids);
                bench
            })
        }
    }
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn run() -> Result<(), String> {
    let s = Settings::read()?;
    let on_path = |program: &&str| Command::new(program).arg("--version").output().is_ok();
    let mut all = vec![Who::Backed, Who::Alone];
    all.extend(["redis-server", "valkey-server"].into_iter().filter(on_path).map(Who::Other));
    let mut rounds: Vec<Vec<Vec<f64>>> = Vec::new();
    for round in 1..=s.runs {
        eprintln!("round {round} of {}", s.runs);
        rounds.push(all.iter().map(|who| measure(*who, &s)).collect::<Result<_, _>>()?);
    }
    println!(
        "{} keys, {} B values, three primaries on core {}, generator on core {}; CPU s of all nodes per M ops, median of {} \
         (spread), × = the first to this one, median of rounds",
        s.keys, s.size, s.nodes, s.generator, s.runs
    );
    for (load, (pipeline, ratio)) in LOADS.into_iter().enumerate() {
        println!("pipeline {pipeline}, SET:GET {ratio}");
        for (at, who) in all.iter().enumerate() {
            let of: Vec<f64> = rounds.iter().map(|r| r[at][load]).collect();
            let (low, high) = of.iter().fold((f64::MAX, 0f64), |(l, h), x| (l.min(*x), h.max(*x)));
            let ratio = median(rounds.iter().map(|r| r[0][load] / r[at][load]).collect());
            println!("  {:28} {:7.3} ({low:.3}–{high:.3})  {ratio:.2}×", who.name(), median(of));
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
