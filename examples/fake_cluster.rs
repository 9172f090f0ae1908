//! Masters that make everything up, for looking at the screen without a cluster.
//!
//! `cargo run --example fake_cluster` prints an address and streams a cluster in which a node joins, falls silent and
//! comes back, for ever; `… -- watch ADDR… [--ascii] [--theme T]` opens the screen on it; `… -- picture overview 120x36 svg
//! dark` draws it without a terminal.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cachectl::proto::control::{Message, decode, encode};
use cachectl::proto::event::{Event, Severity};
use cachectl::proto::slot::SLOTS;
use cachectl::proto::status::{HEARTBEAT_GAPS, Health, NodeState, OperationStatus, WatchView};
use cachectl::proto::view::{Phase, SlotState};
use cachectl::tui::event::{LinkEvent, Now};
use cachectl::tui::{self, TuiOptions};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

#[path = "../tests/tui/fixture.rs"]
mod fixture;

/// Views a second times this many milliseconds is a second.
const EVERY_MS: u64 = 250;
/// A scale-out, a silence and a quiet while, milliseconds.
const ROUND_MS: u64 = 90_000;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match args.split_first() {
        Some((word, rest)) if word == "watch" => runtime.block_on(watch(rest)),
        Some((word, rest)) if word == "picture" => picture(rest),
        _ => runtime.block_on(serve(args.first().map_or("127.0.0.1:0", String::as_str))),
    }
}

async fn watch(args: &[String]) -> anyhow::Result<()> {
    let after = |flag: &str| args.iter().position(|a| a == flag).and_then(|i| args.get(i + 1));
    let theme = after("--theme").map_or(Ok(Default::default()), |t| t.parse()).map_err(anyhow::Error::msg)?;
    let masters = args.iter().filter(|a| a.contains(':')).cloned().collect();
    let ascii = args.iter().any(|a| a == "--ascii");
    let mouse = args.iter().any(|a| a == "--mouse");
    let start_demo: tui::StartDemo = Box::new(|progress| {
        Box::pin(async move {
            for step in ["3 masters started", "m1 leads", "3 cache nodes joined"] {
                progress.say(step);
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            let addr = listener.local_addr()?.to_string();
            tokio::spawn(accept(listener, addr.clone()));
            Ok(vec![addr])
        })
    });
    tui::run(TuiOptions { masters, ascii, theme, mouse, start_demo: Some(start_demo), ..TuiOptions::default() }).await
}

/// `picture overview 120x36 svg dark`: two minutes of the made-up cluster, drawn without a terminal.
fn picture(args: &[String]) -> anyhow::Result<()> {
    let [screen, size, format, theme, rest @ ..] = args else {
        anyhow::bail!("picture SCREEN WIDTHxHEIGHT text|ansi|svg THEME [ascii] [MILLISECONDS into the round]");
    };
    let (w, h) = size.split_once('x').ok_or_else(|| anyhow::anyhow!("a size is like 120x36"))?;
    let at = rest.iter().find_map(|a| a.parse().ok()).unwrap_or(30_000);
    let rings = (fixture::ring(5), fixture::ring(6));
    let end = fixture::WALL_MS / ROUND_MS * ROUND_MS + at;
    let views: Vec<_> = (0..=120)
        .map(|i| end - (120 - i) * 1000)
        .map(|t| (Now { mono_ms: t, wall_ms: t }, view_at(t, &rings, "127.0.0.1:7101", t == end)))
        .collect();
    let fail = anyhow::Error::msg;
    let picture = tui::snapshot::snapshot_of(
        views.into_iter().map(|(now, v)| (now, LinkEvent::View(Box::new(v)))),
        screen.parse().map_err(fail)?,
        (w.parse()?, h.parse()?),
        format.parse().map_err(fail)?,
        theme.parse().map_err(fail)?,
        rest.iter().any(|a| a == "ascii"),
    );
    print!("{picture}");
    Ok(())
}

async fn serve(addr: &str) -> anyhow::Result<()> {
    let listener = TcpListener::bind(addr).await?;
    let addr = listener.local_addr()?.to_string();
    println!("{addr}");
    accept(listener, addr).await
}

async fn accept(listener: TcpListener, addr: String) -> anyhow::Result<()> {
    let rings = Arc::new((fixture::ring(5), fixture::ring(6)));
    loop {
        let (stream, _) = listener.accept().await?;
        let (rings, addr) = (rings.clone(), addr.clone());
        tokio::spawn(async move {
            // A watcher that leaves is no news.
            let _ = answer(stream, &rings, &addr).await;
        });
    }
}

type Ring = Vec<(u64, u64)>;

async fn answer(stream: TcpStream, rings: &(Ring, Ring), addr: &str) -> anyhow::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    while let Some(line) = lines.next_line().await? {
        match decode(line.as_bytes()).map(|m| m.message) {
            Ok(Ok(Message::Watch(_))) => break,
            Ok(Ok(Message::StatusRequest(_))) => {
                let view = view_at(wall_ms(), rings, addr, true);
                write.write_all(&encode("m1", None, 1, &Message::StatusView(Box::new(view)))).await?;
            }
            _ => {}
        }
    }
    let mut first = true;
    loop {
        let now = wall_ms();
        let view = view_at(now, rings, addr, first || now / 1000 != (now - EVERY_MS) / 1000);
        write.write_all(&encode("m1", None, 0, &Message::StatusView(Box::new(view)))).await?;
        first = false;
        tokio::time::sleep(Duration::from_millis(EVERY_MS)).await;
    }
}

fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// The cluster as it is at a time: everything follows from the clock, so that any number of watchers see the same.
fn view_at(now: u64, (before, after): &(Ring, Ring), addr: &str, with_slots: bool) -> WatchView {
    let t = now % ROUND_MS;
    let round = now / ROUND_MS;
    let mut view = fixture::busy();
    let s = &mut view.status;
    s.masters[0].addr = addr.to_owned();
    s.epoch = 100 * (round % 1000) + t / 1000;
    s.operations.clear();
    let moving: Vec<usize> = (0..SLOTS).filter(|i| after[*i].0 == 6).collect();
    // n6 joins at 10 s, has its share at 50 s, and is gone with the end of the round.
    let joined = t > 10_000;
    let done = if joined { (moving.len() as u64 * (t - 10_000) / 40_000).min(moving.len() as u64) as usize } else { 0 };
    let running = joined && done < moving.len();
    let mut slots: Vec<SlotState> = before.iter().map(|(p, b)| fixture::serving(*p, Some(*b))).collect();
    for (n, &i) in moving.iter().enumerate() {
        let (p, b) = before[i];
        if n < done {
            slots[i] = SlotState { pterm: 100 * round + 42, clean: true, ..fixture::serving(6, Some(p)) };
        } else if running && n < done + 64 {
            slots[i] = SlotState { phase: Phase::Handover, ..fixture::serving(p, Some(b)) };
            slots[i].handover_to = Some(fixture::life(6));
        } else if running && n < done + 500 {
            slots[i].learners = fixture::serving(6, None).insync;
        }
    }
    if !joined {
        s.nodes.truncate(5);
    }
    fixture::count(s, &slots, true);
    sway(s, now);
    let silent = (55_000..61_000).contains(&t);
    if silent {
        let age = t - 55_000 + 100;
        s.nodes[3].heartbeat_age_ms = Some(age);
        s.nodes[3].state = if age > 1250 { NodeState::Suspect } else { NodeState::Up };
    }
    s.state = if silent && t > 56_200 { Health::Degraded } else { Health::Ok };
    if joined {
        s.operations.push(OperationStatus {
            id: 17 + round % 1000,
            kind: "scale-out".into(),
            state: if running { "running" } else { "done" }.into(),
            nodes: vec!["n6".into()],
            slots_total: moving.len() as u64,
            slots_done: done as u64,
            keys_done: done as u64 * 17,
            bytes_done: done as u64 * 300_000,
            bytes_left: (moving.len() - done) as u64 * 300_000,
            rate_bytes_per_s: 20_000_000 + now % 3_000_000,
            eta_ms: if running { 50_000 - t } else { 0 },
            reason: None,
            pairs: Vec::new(),
            retries: 0,
        });
    }
    view.events = events(now, t, round);
    view.slots = with_slots.then(|| fixture::pack(&slots));
    view
}

/// Numbers that move.
fn sway(s: &mut cachectl::proto::status::Status, now: u64) {
    for (i, n) in s.nodes.iter_mut().enumerate() {
        let phase = now as f64 / 9_000.0 + i as f64;
        let noise = (fixture::mix(now / EVERY_MS * 31 + i as u64) % 1000) as f64 / 5_000.0;
        let load = 0.75 + 0.25 * phase.sin() + noise;
        n.ops_per_s *= load;
        n.p50_us = n.p50_us.map(|us| (us as f64 * (0.8 + load / 4.0)) as u64);
        n.p99_us = Some((1_800.0 * (0.6 + load * load / 2.0)) as u64);
        n.state = if n.id == "n6" && n.primary_slots < 2_000 { NodeState::Joining } else { NodeState::Up };
        n.heartbeat_age_ms = Some((now + 61 * i as u64) % 250);
        let beat = now / 250;
        n.heartbeat_gaps_ms = (0..HEARTBEAT_GAPS as u64)
            .map(|k| {
                247 + fixture::mix((beat + k) * 7 + i as u64) % 9
                    + if fixture::mix(beat + k + i as u64).is_multiple_of(37) { 70 } else { 0 }
            })
            .collect();
        n.evicted = now / 40;
        n.expired = now / 90;
    }
}

fn events(now: u64, t: u64, round: u64) -> Vec<Event> {
    let start = now - t;
    let script: [(u64, Severity, &str); 6] = [
        (10_000, Severity::Info, "n6 joined at 127.0.0.1:7206"),
        (10_400, Severity::Info, "op scale-out n6 started: 5 nodes give slots"),
        (50_000, Severity::Info, "op scale-out n6 done"),
        (56_250, Severity::Warn, "n4 suspect: 5 heartbeats missed"),
        (61_000, Severity::Info, "n4 beats again"),
        (89_000, Severity::Info, "n6 left by plan"),
    ];
    script
        .iter()
        .enumerate()
        .filter(|(_, (at, ..))| *at <= t)
        .map(|(i, (at, severity, text))| Event {
            seq: round * script.len() as u64 + i as u64 + 1,
            at_ms: start + at,
            index: i as u64,
            severity: *severity,
            kind: "demo".into(),
            subject: String::new(),
            text: (*text).to_owned(),
            by: None,
        })
        .collect()
}
