//! The same scale-out, from three primaries to four, by others: Valkey's `CLUSTER MIGRATESLOTS` (9.0 and later) and redis-cli's
//! `--cluster rebalance`. Primaries only: what backups cost is ours alone.

use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::common::{CACHECTL, text};
use super::{LOOK, LOOKS_MAX, SIZE};

/// The first of four ports: out of the way of those that are given out by chance.
const PORT: u16 = 25_300;
const SERVERS: u16 = 4;
/// How often it is asked whether a migration has ended.
const ASK: Duration = Duration::from_millis(20);
/// How long a cluster's parts may take to know each other.
const GOSSIP: Duration = Duration::from_secs(3);

/// Who moves, and how.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// `valkey-server`, all of it at once.
    MigrateSlots,
    /// `redis-server`, slot by slot.
    Rebalance,
}

impl Peer {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Peer::MigrateSlots => "valkey-server CLUSTER MIGRATESLOTS",
            Peer::Rebalance => "redis-cli --cluster rebalance",
        }
    }

    fn program(self) -> &'static str {
        match self {
            Peer::MigrateSlots => "valkey-server",
            Peer::Rebalance => "redis-server",
        }
    }
}

/// Processes that end with this.
struct Running(Vec<Child>);

impl Drop for Running {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn output(program: &str, args: &[&str]) -> Result<String, String> {
    let out = Command::new(program).args(args).output().map_err(|e| format!("{program}: {e}"))?;
    match out.status.success() {
        true => Ok(text(&out.stdout).trim().to_owned()),
        false => Err(format!("{program} {args:?}: {}{}", text(&out.stdout), text(&out.stderr))),
    }
}

fn ask(server: u16, args: &[&str]) -> Result<String, String> {
    output("redis-cli", &[&["-p", &(PORT + server).to_string()], args].concat())
}

fn keys_of(server: u16) -> Result<u64, String> {
    ask(server, &["dbsize"])?.parse().map_err(|e| format!("dbsize: {e}"))
}

/// Keys a second that come to an empty fourth primary, `rate` operations a second running beside it.
pub fn keys_per_second(peer: Peer, keys: usize, rate: usize) -> Result<f64, String> {
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let mut running = Running(Vec::new());
    for server in 0..SERVERS {
        let home = dir.path().join(server.to_string());
        std::fs::create_dir(&home).map_err(|e| e.to_string())?;
        let child = Command::new(peer.program())
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--cluster-enabled", "yes"])
            .args(["--port", &(PORT + server).to_string(), "--dir", &home.display().to_string()])
            .stdout(Stdio::null())
            .spawn()
            .map_err(|e| format!("{}: {e}", peer.program()))?;
        running.0.push(child);
    }
    let first = format!("127.0.0.1:{PORT}");
    wait("all servers", || Ok((0..SERVERS).all(|s| ask(s, &["ping"]).is_ok_and(|pong| pong == "PONG"))))?;
    let three: Vec<String> = (0..3).map(|s| format!("127.0.0.1:{}", PORT + s)).collect();
    let create: Vec<&str> =
        ["--cluster", "create"].into_iter().chain(three.iter().map(String::as_str)).chain(["--cluster-yes"]).collect();
    output("redis-cli", &create)?;
    sleep(GOSSIP);
    let (n, size) = (keys.to_string(), SIZE.to_string());
    let bench = ["bench", "-o", "json", "--addr", &first, "--keys", &n, "--size", &size];
    output(CACHECTL, &[&bench[..], &["--load", "--requests", "1", "--pipeline", "16"]].concat())?;
    ask(3, &["cluster", "meet", "127.0.0.1", &PORT.to_string()])?;
    sleep(GOSSIP);
    if rate > 0 {
        let rate = rate.to_string();
        let load = Command::new(CACHECTL)
            .args(bench)
            .args(["--ratio", "1:1", "--rate", &rate, "--duration", "10m"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        running.0.push(load.map_err(|e| e.to_string())?);
        sleep(GOSSIP);
    }
    let began = Instant::now();
    match peer {
        Peer::MigrateSlots => {
            migrate_slots()?;
            wait("the migrations", || Ok((0..3).all(|s| migrations_left(s) == Ok(0))))?;
        }
        Peer::Rebalance => {
            output("redis-cli", &["--cluster", "rebalance", &first, "--cluster-use-empty-masters"])?;
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let came = keys_of(3)?;
    if came < keys as u64 / 5 {
        return Err(format!("only {came} keys came to the fourth server"));
    }
    Ok(came as f64 / seconds)
}

/// A quarter of each primary's slots goes to the fourth.
fn migrate_slots() -> Result<(), String> {
    let to = ask(3, &["cluster", "myid"])?;
    for server in 0..3 {
        let me = ask(server, &["cluster", "myid"])?;
        let nodes = ask(server, &["cluster", "nodes"])?;
        let mine = nodes.lines().find(|l| l.starts_with(&me)).and_then(|l| l.split(' ').nth(8)).unwrap_or_default();
        let (from, end) = mine.split_once('-').ok_or_else(|| format!("no slots: {nodes}"))?;
        let number = |text: &str| text.parse::<u32>().map_err(|e| format!("{text}: {e}"));
        let (from, end) = (number(from)?, number(end)?);
        let last = from + (end - from).div_ceil(4) - 1;
        let said =
            ask(server, &["cluster", "migrateslots", "slotsrange", &from.to_string(), &last.to_string(), "node", &to])?;
        if said != "OK" {
            return Err(format!("CLUSTER MIGRATESLOTS: {said}"));
        }
    }
    Ok(())
}

/// Migrations of a server that have not ended well.
fn migrations_left(server: u16) -> Result<usize, String> {
    let said = ask(server, &["cluster", "getslotmigrations"])?;
    let count = |word: &str| said.lines().filter(|l| l.trim() == word).count();
    if count("failed") + count("cancelled") > 0 {
        return Err(said);
    }
    Ok(count("name") - count("success"))
}

fn wait(what: &str, done: impl Fn() -> Result<bool, String>) -> Result<(), String> {
    for _ in 0..LOOKS_MAX * (LOOK.as_millis() / ASK.as_millis()) as usize {
        if done()? {
            return Ok(());
        }
        sleep(ASK);
    }
    Err(format!("gave up waiting for {what}"))
}
