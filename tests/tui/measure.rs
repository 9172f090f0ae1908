//! What the screen costs, measured on a real (pseudo) terminal. Run by hand against a build with optimization:
//!
//! ```text
//!   cargo build --release --locked
//!   CACHECTL_MEASURED=target/release/cachectl cargo test --locked --test tui measure -- --ignored --nocapture --test-threads 1
//! ```

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use cachectl::proto::control::{Message, encode};
use cachectl::proto::slot::SLOTS;
use cachectl::proto::status::WatchView;
use cachectl::proto::view::SlotState;

use crate::common::free_block;
use crate::fixture::{self, mix};
use crate::terminal::OnTerminal;

/// How long is measured.
const LONG: Duration = Duration::from_secs(60);
/// After the screen is there: its first frames and the first two minutes' rates are not what is asked about.
const SETTLE: Duration = Duration::from_secs(5);
/// Views a second at most, as masters push them.
const VIEW_EVERY: Duration = Duration::from_millis(250);
/// Of one core.
const IDLE_MAX: f64 = 0.005;
const LOAD_MAX: f64 = 0.05;
const FRAMES_MAX: f64 = 20.0;

fn program() -> String {
    let path = std::env::var("CACHECTL_MEASURED").unwrap_or_else(|_| env!("CARGO_BIN_EXE_cachectl").to_owned());
    let path = std::fs::canonicalize(path).expect("CACHECTL_MEASURED is a program");
    path.to_string_lossy().into_owned()
}

/// Time on a core of all threads so far, from the scheduler's own books.
fn on_core(process: &Path) -> Duration {
    let tasks = std::fs::read_dir(process.join("task")).expect("it runs");
    let ns = |task: PathBuf| -> Option<u64> {
        std::fs::read_to_string(task.join("schedstat")).ok()?.split(' ').next()?.parse().ok()
    };
    Duration::from_nanos(tasks.filter_map(|t| ns(t.ok()?.path())).sum())
}

struct Cost {
    cores: f64,
    frames: f64,
    bytes: f64,
}

fn measure(what: &str, t: &OnTerminal) -> Cost {
    std::thread::sleep(SETTLE);
    let process = t.pid();
    let (begun, core, (bytes, frames)) = (Instant::now(), on_core(&process), t.drawn());
    std::thread::sleep(LONG);
    let (took, core_after, (bytes_after, frames_after)) = (begun.elapsed(), on_core(&process), t.drawn());
    let per_s = |n: f64| n / took.as_secs_f64();
    let cost = Cost {
        cores: per_s((core_after - core).as_secs_f64()),
        frames: per_s((frames_after - frames) as f64),
        bytes: per_s((bytes_after - bytes) as f64),
    };
    println!(
        "{what}: {:.2} % of a core, {:.1} frames/s, {:.0} bytes/s written, over {took:.0?}",
        cost.cores * 100.0,
        cost.frames,
        cost.bytes
    );
    cost
}

#[test]
#[ignore = "a measurement of a minute, of a build with optimization"]
fn measure_idle_against_three_nodes() {
    let program = program();
    let home = tempfile::tempdir().expect("a temporary directory");
    let base = free_block().to_string();
    let name = format!("idle-{base}");
    let cachectl = |args: &[&str]| {
        let mut c = Command::new(&program);
        c.env("XDG_STATE_HOME", home.path()).env("XDG_CONFIG_HOME", home.path()).args(["--name", &name]).args(args);
        c.output().expect("it runs")
    };
    let up = cachectl(&["up", "--base-port", &base, "--wait", "120s"]);
    assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
    let home_path = home.path().display();
    let line =
        format!("export XDG_STATE_HOME={home_path} XDG_CONFIG_HOME={home_path}; exec {program} --name {name} tui");
    let t = OnTerminal::run(&line, (120, 36));
    t.see("LIVE", 0);
    let cost = measure("idle, 3 nodes, 120x36", &t);
    let alive = t.pid().exists();
    drop(t);
    let down = cachectl(&["down", "--yes", "--purge"]);
    assert!(down.status.success() && alive);
    assert!(cost.cores <= IDLE_MAX && cost.frames <= 2.0, "idle is one small redraw a second");
}

/// A hundred nodes under load with three operations: every number of every view is another, slots move in each.
fn busy(n: u64, ring: &[(u64, u64)]) -> WatchView {
    let mut v = fixture::busy();
    let template = v.status.operations[0].clone();
    v.status.nodes = (1..=100).map(fixture::node).collect();
    for (i, node) in v.status.nodes.iter_mut().enumerate() {
        let noise = mix(n * 1000 + i as u64);
        node.ops_per_s = 5_000.0 + (noise % 9_000) as f64;
        node.p99_us = Some(1_000 + noise % 3_000);
        node.p50_us = Some(100 + noise % 300);
        node.heartbeat_age_ms = Some(noise % 250);
        node.heartbeat_gaps_ms = (0..24).map(|b| 240 + mix(n + b + i as u64) % 40).collect();
        node.evicted += n * 30;
        node.clients = 30 + noise % 20;
    }
    v.status.operations = (1..=3)
        .map(|id| {
            let mut o = template.clone();
            (o.id, o.slots_total, o.slots_done) = (id, 9_000, (n * id * 7) % 9_000);
            o.rate_bytes_per_s = 30_000_000 + mix(n * id) % 9_000_000;
            o
        })
        .collect();
    v.status.epoch = 42 + n;
    // Some slots have moved on since the last view.
    let moved = (n as usize * 37) % SLOTS;
    let slots: Vec<SlotState> = ring
        .iter()
        .enumerate()
        .map(|(i, (p, b))| if i < moved { fixture::serving(*b, Some(*p)) } else { fixture::serving(*p, Some(*b)) })
        .collect();
    fixture::count(&mut v.status, &slots, true);
    v.slots = Some(fixture::pack(&slots));
    let mut event = v.events.pop().expect("the fixture has events");
    (event.seq, event.text) = (10 + n, format!("slots {moved}-{} committed, epoch {}", moved + 36, 42 + n));
    v.events = vec![event];
    v
}

/// A master that pushes such views as fast as masters do.
fn feed() -> String {
    let ring = fixture::ring(100);
    // Made beforehand: this process shares the machine with what it measures.
    let lines: Vec<Vec<u8>> =
        (0..40).map(|n| encode("m1", None, 0, &Message::StatusView(Box::new(busy(n, &ring))))).collect();
    let size = lines.iter().map(Vec::len).sum::<usize>() / lines.len();
    println!("a view of 100 nodes and 3 operations is {} KiB, 4 a second", size >> 10);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("bound").to_string();
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            push(&stream, &lines);
        }
    });
    addr
}

/// Epochs only rise: after the last line the number within it is raised in place, digits stay as many.
fn push(stream: &TcpStream, lines: &[Vec<u8>]) {
    let mut asked = String::new();
    if BufReader::new(stream).read_line(&mut asked).is_err() {
        return;
    }
    let mut out = stream;
    let mut epoch = 1_000;
    loop {
        for line in lines {
            let next = Instant::now() + VIEW_EVERY;
            epoch += 1;
            let text = String::from_utf8_lossy(line);
            let (before, after) = text.split_once("\"epoch\":").expect("a field");
            let rest = after.trim_start_matches(|c: char| c.is_ascii_digit());
            let line = format!("{before}\"epoch\":{epoch}{rest}");
            if out.write_all(line.as_bytes()).is_err() {
                return;
            }
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    }
}

#[test]
#[ignore = "a measurement of a minute, of a build with optimization"]
fn measure_a_hundred_nodes_under_load() {
    for (size, keys) in [((120, 36), "1"), ((200, 60), "2")] {
        let addr = feed();
        let mut t = OnTerminal::run(&format!("exec {} --masters-addr {addr} tui", program()), size);
        t.see("LIVE", 0);
        t.press(keys);
        let cost = measure(&format!("100 nodes, 3 operations, {}x{}, screen {keys}", size.0, size.1), &t);
        assert!(t.text().contains("/100 up") || keys == "2", "the feed is shown");
        assert!(cost.cores <= LOAD_MAX && cost.frames <= FRAMES_MAX);
    }
}
