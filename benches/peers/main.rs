//! cachectl beside every other cache found on PATH, all on one core, asked in turns by one generator on another.
//! `just bench` or `cargo bench --bench peers`; prints a table and writes it to `target/peers.md`.
//!
//! What a machine gives changes by a quarter within minutes where others share it. So all servers run and are full before any
//! is measured, and then each has a short turn after the other, many times: ratios are of turns next to each other.
//!
//! Settings by environment: `PEERS_RUNS` (2) rounds with servers started anew, `PEERS_TURNS` (5) in each, `PEERS_SECONDS` (2) a
//! turn, `PEERS_KEYS` (1000000), `PEERS_SIZE` (100) bytes a value, `PEERS_PIPELINES` (1,16), `PEERS_CORES` (0,1) for the servers
//! and the generator, `PEERS_ONLY` names of servers (all).
//!
//! The **floor** is `echo.rs`: it reads, counts commands by their length, and writes as many canned replies of the right
//! length. It has no keys. What it costs is the kernel's price of the bytes; nobody goes below it.

#[path = "../../tests/common/mod.rs"]
mod common;
mod echo;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use common::{CACHECTL, free_port};
use serde_json::Value as Json;

/// Before anything is counted.
const WARMUP: &str = "500ms";
/// How long a server may take to listen.
const START: Duration = Duration::from_secs(20);

struct Settings {
    keys: u64,
    seconds: u64,
    runs: usize,
    turns: usize,
    size: u64,
    pipelines: Vec<u64>,
    server_core: String,
    load_core: String,
}

/// The binary of this build; `PEERS_CACHECTL` names another, as `just bench` does with the release.
fn cachectl() -> String {
    var("PEERS_CACHECTL", CACHECTL)
}

fn var(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

impl Settings {
    fn read() -> Result<Self, String> {
        let number = |name: &str, default: &str| {
            var(name, default).parse::<u64>().map_err(|e| format!("{name}: {e}")).map(|n| n.max(1))
        };
        let pipelines: Result<Vec<u64>, _> = var("PEERS_PIPELINES", "1,16").split(',').map(str::parse).collect();
        let cores = var("PEERS_CORES", "0,1");
        let (server_core, load_core) = cores.split_once(',').ok_or("PEERS_CORES is SERVER,GENERATOR")?;
        Ok(Self {
            keys: number("PEERS_KEYS", "1000000")?,
            seconds: number("PEERS_SECONDS", "2")?,
            runs: number("PEERS_RUNS", "2")? as usize,
            turns: number("PEERS_TURNS", "5")? as usize,
            size: number("PEERS_SIZE", "100")?,
            pipelines: pipelines.map_err(|e| format!("PEERS_PIPELINES: {e}"))?,
            server_core: server_core.to_owned(),
            load_core: load_core.to_owned(),
        })
    }
}

/// A server that can be measured.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Server {
    Cachectl,
    Redis(&'static str),
    Memcached,
    Floor,
}

impl Server {
    fn name(self) -> &'static str {
        match self {
            Server::Cachectl => "cachectl",
            Server::Redis(program) => program,
            Server::Memcached => "memcached",
            Server::Floor => "floor",
        }
    }

    fn words(self, port: u16, dir: &str, size: u64) -> Vec<String> {
        let text = match self {
            Server::Cachectl => format!(
                "{} node --standalone --listen 127.0.0.1:{port} --data {dir}/node --memory 4gb --log warn",
                cachectl()
            ),
            Server::Redis(program) => {
                format!("{program} --port {port} --bind 127.0.0.1 --save  --appendonly no --dir {dir}")
            }
            Server::Memcached => format!("memcached -p {port} -U 0 -l 127.0.0.1 -t 1 -m 4096 -u root"),
            Server::Floor => {
                let me = std::env::current_exe().unwrap_or_default();
                format!("{} echo {port} {size}", me.display())
            }
        };
        // Two blanks hold an empty word.
        text.split(' ').map(str::to_owned).collect()
    }
}

fn on_path(program: &str) -> bool {
    let dirs: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect();
    dirs.iter().any(|d| d.join(program).is_file())
}

/// A running server; it ends with this.
struct Running {
    child: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Running {
    fn start(server: Server, s: &Settings) -> Result<Self, String> {
        let port = free_port();
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        let child = Command::new("taskset")
            .args(["-c", &s.server_core])
            .args(server.words(port, &dir.path().display().to_string(), s.size))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| format!("taskset: {e}"))?;
        let mut running = Self { child, port, _dir: dir };
        let end = Instant::now() + START;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if let Ok(Some(status)) = running.child.try_wait() {
                return Err(format!("{} ended: {status}", server.name()));
            }
            if Instant::now() > end {
                return Err(format!("{} does not listen", server.name()));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(running)
    }

    /// One run of the generator; its document.
    fn load(&self, server: Server, s: &Settings, more: &[&str]) -> Result<Json, String> {
        let (addr, pid) = (format!("127.0.0.1:{}", self.port), self.child.id().to_string());
        let (keys, size) = (s.keys.to_string(), s.size.to_string());
        let mut c = Command::new("taskset");
        c.args([
            "-c",
            &s.load_core,
            &cachectl(),
            "bench",
            "-o",
            "json",
            "--single",
            "--addr",
            &addr,
            "--server-pid",
            &pid,
        ]);
        c.args(["--keys", &keys, "--size", &size]).args(more);
        if server == Server::Memcached {
            c.args(["--protocol", "memcached"]);
        }
        let out = c.output().map_err(|e| format!("taskset: {e}"))?;
        let doc: Json = serde_json::from_slice(&out.stdout)
            .map_err(|_| format!("{}: {}", server.name(), String::from_utf8_lossy(&out.stderr).trim()))?;
        match doc["errors_total"].as_u64() {
            Some(0) => Ok(doc),
            _ => Err(format!("{}: errors {}", server.name(), doc["errors"])),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Figures by (server, column): one number a round.
type Figures = BTreeMap<(usize, String), Vec<f64>>;

/// Fills all servers, one after the other, and asks them in turns.
fn measure(servers: &[Server], s: &Settings, figures: &mut Figures) -> Result<(), String> {
    let mut put = |at: usize, column: String, value: Option<f64>| {
        if let Some(value) = value {
            figures.entry((at, column)).or_default().push(value);
        }
    };
    let mut all = Vec::new();
    for (at, server) in servers.iter().enumerate() {
        let running = Running::start(*server, s)?;
        let filled = running.load(*server, s, &["--load", "--requests", "1"])?;
        let rss = |when: &str| filled["servers"][when].as_f64();
        let grown = rss("rss_after_bytes").zip(rss("rss_before_bytes")).map(|(a, b)| (a - b) / s.keys as f64);
        // The floor holds nothing.
        put(at, "RSS B/item".into(), grown.filter(|_| *server != Server::Floor));
        all.push(running);
    }
    let time = format!("{}s", s.seconds);
    for p in &s.pipelines {
        for turn in 1..=s.turns {
            eprintln!("pipeline {p}, turn {turn} of {}", s.turns);
            for (at, (running, server)) in all.iter().zip(servers).enumerate() {
                let more = ["--pipeline", &p.to_string(), "--duration", &time, "--warmup", WARMUP];
                let doc = running.load(*server, s, &more)?;
                put(at, format!("CPU s/M ops, P{p}"), doc["servers"]["cpu_s_per_mops"].as_f64());
                put(at, format!("k ops/s, P{p}"), doc["ops_per_s"].as_f64().map(|n| n / 1e3));
                put(at, format!("p50 µs, P{p}"), doc["all"]["p50_us"].as_f64());
                put(at, format!("p99 µs, P{p}"), doc["all"]["p99_us"].as_f64());
                put(at, format!("generator CPU, P{p}"), doc["generator"]["cpu_s_per_mops"].as_f64());
            }
        }
    }
    Ok(())
}

fn median(all: &[f64]) -> f64 {
    let mut all = all.to_vec();
    all.sort_by(f64::total_cmp);
    let n = all.len();
    if n % 2 == 1 { all[n / 2] } else { (all[n / 2 - 1] + all[n / 2]) / 2.0 }
}

/// Rows are figures, columns servers: the median, how far turns lie apart, and the median of each turn's ratio to cachectl's.
fn table(servers: &[Server], s: &Settings, figures: &Figures) -> String {
    let mut text = format!(
        "{} keys, {} B values, SET:GET 1:10, 50 connections, servers on core {}, generator on core {}; median of {} × {} turns of \
         {} s (spread), × = cachectl's beside it, median of turns\n\n|  |",
        s.keys, s.size, s.server_core, s.load_core, s.runs, s.turns, s.seconds
    );
    for server in servers {
        // Writing to a String can't fail.
        let _ = write!(text, " {} |", server.name());
    }
    text.push_str("\n|---|");
    servers.iter().for_each(|_| text.push_str("---:|"));
    let columns: std::collections::BTreeSet<&String> = figures.keys().map(|(_, c)| c).collect();
    for column in columns {
        let _ = write!(text, "\n| {column} |");
        let ours = figures.get(&(0, column.clone()));
        for at in 0..servers.len() {
            let Some(all) = figures.get(&(at, column.clone())) else {
                text.push_str(" – |");
                continue;
            };
            let m = median(all);
            let (low, high) = all.iter().fold((m, m), |(l, h), x| (l.min(*x), h.max(*x)));
            let digits = if m < 10.0 { 3 } else { 0 };
            let _ = write!(text, " {m:.digits$} ({low:.digits$}–{high:.digits$})");
            if let Some(ours) = ours.filter(|_| at > 0) {
                let ratios: Vec<f64> = ours.iter().zip(all).map(|(ours, theirs)| ours / theirs).collect();
                let _ = write!(text, " {:.2}×", median(&ratios));
            }
            text.push_str(" |");
        }
    }
    text.push('\n');
    text
}

fn run() -> Result<(), String> {
    let words: Vec<String> = std::env::args().skip(1).filter(|w| w != "--bench").collect();
    if let [word, port, size] = &words[..]
        && word == "echo"
    {
        let port = port.parse().map_err(|e| format!("{port}: {e}"))?;
        let size = size.parse().map_err(|e| format!("{size}: {e}"))?;
        return echo::serve(port, size).map_err(|e| e.to_string());
    }
    if !on_path("taskset") {
        return Err("taskset (util-linux) is needed to pin processes to cores".into());
    }
    let s = Settings::read()?;
    let only = var("PEERS_ONLY", "");
    let wanted = |server: &Server| only.is_empty() || only.split(',').any(|name| name == server.name());
    let programs = ["redis-server", "valkey-server"].into_iter().filter(|p| on_path(p)).map(Server::Redis);
    let memcached = on_path("memcached").then_some(Server::Memcached);
    let others = programs.chain(memcached).chain([Server::Floor]).filter(wanted);
    let servers: Vec<Server> = std::iter::once(Server::Cachectl).chain(others).collect();
    let mut figures = Figures::new();
    for round in 1..=s.runs {
        eprintln!("round {round} of {}", s.runs);
        measure(&servers, &s, &mut figures)?;
    }
    let text = table(&servers, &s, &figures);
    print!("{text}");
    let path = PathBuf::from(CACHECTL).ancestors().nth(2).map(|d| d.join("peers.md")).ok_or("no target directory")?;
    std::fs::write(&path, &text).map_err(|e| format!("{}: {e}", path.display()))
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
