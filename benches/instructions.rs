//! User-space instructions per command, from its bytes to its reply's: decoder, dispatch, slot, store, encoder, without sockets.
//! `cargo bench --bench instructions` counts them under `valgrind --tool=callgrind` and compares them with
//! `benches/instructions.json`; `-- --check` fails where one costs over 3 % more, `-- --write` makes the counts the budget.
//!
//! Each number is the difference between two runs of different length, divided by the difference: start-up and filling fall out.
//! Counts depend on the compiler, the C library and the processor's features; where those differ from what the budget was made
//! with, the comparison is printed and fails nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use cachectl::node::cache::node::Node;
use cachectl::node::cache::session::Session;
use cachectl::node::config::{Eviction, NodeConfig};
use cachectl::proto::id::{Incarnation, Ref};
use cachectl::proto::resp::encode_command;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

/// Keys in the store.
const KEYS: u64 = 20_000;
const VALUE: usize = 100;
/// Keys of one slot, for MGET.
const TAGGED: u64 = 1000;
/// Rounds whose replies are looked at closely; fewer than the shorter run has.
const CHECKED: u64 = TAGGED + 500;
/// Rounds of the two runs whose difference counts.
const SHORT: u64 = 2_000;
const LONG: u64 = 12_000;
/// How much more than its budget a command may cost, in thousandths.
const SLACK: u64 = 30;

/// What is counted: its name, commands sent at once, and the n-th batch of bytes.
type Case = (&'static str, u64, fn(u64) -> Vec<u8>);

const CASES: [Case; 8] = [
    ("GET hit", 1, |n| get(n)),
    ("GET miss", 1, |n| command(&[b"GET", format!("gone:{:012}", n % KEYS).as_bytes()])),
    ("SET over", 1, |n| set(n)),
    ("INCR", 1, |n| command(&[b"INCR", format!("count:{:06}", n % 1000).as_bytes()])),
    ("DEL miss", 1, |n| command(&[b"DEL", format!("gone:{:012}", n % KEYS).as_bytes()])),
    ("MGET 16", 1, mget),
    ("GET hit, pipeline 16", 16, |n| (0..16).flat_map(|i| get(n * 16 + i)).collect()),
    ("SET over, pipeline 16", 16, |n| (0..16).flat_map(|i| set(n * 16 + i)).collect()),
];

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Budget {
    /// What the counts depend on.
    made_with: String,
    /// Instructions a command.
    instructions: BTreeMap<String, u64>,
}

fn key(n: u64) -> String {
    // Neighbours in time are no neighbours in the store.
    format!("key:{:012}", n.wrapping_mul(7919) % KEYS)
}

fn command(args: &[&[u8]]) -> Vec<u8> {
    encode_command(args)
}

fn get(n: u64) -> Vec<u8> {
    command(&[b"GET", key(n).as_bytes()])
}

fn set(n: u64) -> Vec<u8> {
    command(&[b"SET", key(n).as_bytes(), &[b'v'; VALUE]])
}

fn mget(n: u64) -> Vec<u8> {
    let keys: Vec<String> = (0..16).map(|i| format!("{{m}}{:012}", (n * 16 + i) % TAGGED)).collect();
    let args: Vec<&[u8]> = std::iter::once(&b"MGET"[..]).chain(keys.iter().map(String::as_bytes)).collect();
    command(&args)
}

fn node() -> Arc<Node> {
    let id = "n1".parse().expect("a name");
    let config = NodeConfig {
        id,
        listen: ([127, 0, 0, 1], 7201).into(),
        peer_listen: ([127, 0, 0, 1], 17_201).into(),
        announce: None,
        masters: Vec::new(),
        data: PathBuf::new(),
        memory: 1 << 30,
        threads: 1,
        zone: String::new(),
        weight: 1.0,
        eviction: Eviction::default(),
        standby: false,
        drain_timeout: Duration::ZERO,
        insecure_bind: false,
        standalone: true,
    };
    let me = Ref { id: config.id.clone(), incarnation: Incarnation(1) };
    Arc::new(Node::new(me, config, mpsc::unbounded_channel().0))
}

/// One run: fills the store, then so many batches of one case.
fn run(case: &Case, rounds: u64) {
    let node = node();
    let admitted = node.clients.admit(10, String::new(), String::new(), -1, 0);
    let (state, client) = admitted.expect("there is room for one client");
    let mut session = Session::new(node.clone(), state, client);
    let mut replies = Vec::new();
    let mut asked = 0;
    let mut ask = |bytes: &[u8], commands: u64| {
        session.feed(bytes);
        assert!(session.turn(node.turn()), "nothing lapses without peers");
        replies.clear();
        session.output_to(&mut replies);
        assert!(replies.first().is_some_and(|b| *b != b'-'), "{:?}", String::from_utf8_lossy(&replies));
        asked += 1;
        // Looked at closely before the counted rounds: looking costs more than answering.
        if asked <= KEYS + CHECKED {
            let lines = replies.iter().filter(|b| **b == b'\n').count() as u64;
            assert!(lines >= commands, "{:?}", String::from_utf8_lossy(&replies));
        }
    };
    for n in 0..KEYS {
        ask(&set(n), 1);
    }
    for n in 0..TAGGED {
        ask(&command(&[b"SET", format!("{{m}}{n:012}").as_bytes(), &[b'v'; VALUE]]), 1);
    }
    // What is asked is made before: only answering it counts, and the harness's share is the same for all.
    let batches: Vec<Vec<u8>> = (0..rounds).map(case.2).collect();
    for batch in &batches {
        ask(batch, case.1);
    }
}

/// As [`run`], without the commands: what the harness itself costs.
fn idle(case: &Case, rounds: u64) {
    let batches: Vec<Vec<u8>> = (0..rounds).map(case.2).collect();
    std::hint::black_box(batches);
}

fn collected(case: usize, rounds: u64, what: &str) -> Result<u64, String> {
    let me = std::env::current_exe().map_err(|e| e.to_string())?;
    let out = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(me)
        .args(["--run", what, &case.to_string(), &rounds.to_string()])
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("valgrind is needed (Debian: apt-get install valgrind): {e}"))?;
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    let count = text.lines().find_map(|l| l.split("Collected :").nth(1)?.trim().parse().ok());
    count.filter(|_| out.status.success()).ok_or_else(|| format!("the run failed:\n{text}"))
}

fn counts() -> Result<BTreeMap<String, u64>, String> {
    let mut out = BTreeMap::new();
    for (ix, (name, commands, _)) in CASES.iter().enumerate() {
        let per = |what: &str| -> Result<u64, String> {
            Ok(collected(ix, LONG, what)?.saturating_sub(collected(ix, SHORT, what)?) / (LONG - SHORT))
        };
        out.insert((*name).to_owned(), per("all")?.saturating_sub(per("idle")?) / commands);
    }
    Ok(out)
}

/// The compiler, the C library and what of the processor the fast string routines look at.
fn made_with() -> String {
    let first = |program: &str, arg: &str| {
        let out = Command::new(program).arg(arg).output().ok();
        out.map(|o| String::from_utf8_lossy(&o.stdout).lines().next().unwrap_or_default().to_owned())
            .unwrap_or_default()
    };
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let has = |f: &str| flags.lines().find(|l| l.starts_with("flags")).is_some_and(|l| l.split(' ').any(|w| w == f));
    let features: Vec<&str> = ["avx2", "bmi2", "erms", "fsrm"].into_iter().filter(|f| has(f)).collect();
    format!("{}; {}; {}", first("rustc", "-V"), first("ldd", "--version"), features.join(" "))
}

fn measure(check: bool, write: bool) -> Result<bool, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.json");
    let budget: Budget = std::fs::read(&path)
        .map_err(|e| e.to_string())
        .and_then(|b| serde_json::from_slice(&b).map_err(|e| e.to_string()))
        .unwrap_or_default();
    let now = Budget { made_with: made_with(), instructions: counts()? };
    println!("{:<24} {:>12} {:>8} {:>7}", "instructions a command", "now", "budget", "ratio");
    let mut over = Vec::new();
    for (name, n) in &now.instructions {
        let was = budget.instructions.get(name).copied().unwrap_or(0);
        println!("{name:<24} {n:>12} {was:>8} {:>7.3}", *n as f64 / was.max(1) as f64);
        if n * 1000 > was * (1000 + SLACK) {
            over.push(name.as_str());
        }
    }
    if write {
        let text = serde_json::to_string_pretty(&now).map_err(|e| e.to_string())?;
        std::fs::write(&path, text + "\n").map_err(|e| e.to_string())?;
        return Ok(true);
    }
    if now.made_with != budget.made_with {
        println!("the budget was made with: {}\nthis is:                  {}", budget.made_with, now.made_with);
        println!("not comparable: nothing fails");
        return Ok(true);
    }
    if !over.is_empty() {
        println!("over budget by more than {} %: {}", SLACK / 10, over.join(", "));
    }
    Ok(over.is_empty() || !check)
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if let [_, run_, what, case, rounds] = args.as_slice()
        && run_ == "--run"
    {
        let (case, rounds) = (case.parse::<usize>().unwrap_or(0), rounds.parse().unwrap_or(0));
        if what == "idle" {
            idle(&CASES[case], rounds)
        } else {
            run(&CASES[case], rounds)
        }
        return ExitCode::SUCCESS;
    }
    let has = |flag: &str| args.iter().any(|a| a == flag);
    match measure(has("--check"), has("--write")) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}
