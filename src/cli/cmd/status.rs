//! `cachectl status`: how the cluster is, on one screen.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use super::{Ctx, Reach};
use crate::cli::args::StatusArgs;
use crate::cli::context;
use crate::cli::error::{CmdResult, Exit};
use crate::cli::output::{Out, Table, Tone, escape};
use crate::cli::units::{show_count, show_ms, show_size};
use crate::cli::{link, masterless};
use crate::proto::net::client::{ClientError, MasterClient};
use crate::proto::slot::SLOTS;
use crate::proto::status::{
    Health, MasterStatus, NodeState, NodeStatus, OperationStatus, STATUS_SCHEMA, SlotTotals, Status,
};

/// How long the masters may take to say how the cluster is; longer than an election, in which none answers.
const ASK: Duration = Duration::from_secs(3);

/// Runs it.
pub async fn run(ctx: &Ctx, args: &StatusArgs) -> CmdResult {
    let reach = ctx.reach()?;
    let mut client = link::masters(&reach.masters, ASK);
    match args.watch {
        None => {
            let (status, why) = look(&mut client, &reach).await;
            show(&ctx.out, &status)?;
            if let Some(why) = why.filter(|_| !ctx.out.json()) {
                ctx.out.say(&format!("{why}\nhint: {}", context::nobody_answers()));
            }
            Ok(if status.state == Health::Ok { Exit::Done } else { Exit::NotOk })
        }
        Some(every) => watch(&ctx.out, &reach, &mut client, every).await,
    }
}

async fn watch(out: &Out, reach: &Reach, client: &mut MasterClient, every: Duration) -> CmdResult {
    /// Home, and clear to the end of the screen: redrawn in place, without the flicker of an empty screen.
    const HOME: &str = "\x1b[H\x1b[J";
    let redraw = !out.json() && std::io::stdout().is_terminal();
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    let mut first = true;
    loop {
        let begun = Instant::now();
        let (status, why) = tokio::select! {
            _ = &mut interrupt => return Ok(Exit::Detached),
            seen = look(client, reach) => seen,
        };
        if out.json() {
            out.document(&status)?;
        } else {
            let mut text = if redraw {
                HOME.to_owned()
            } else if first {
                String::new()
            } else {
                "\n".to_owned()
            };
            text.push_str(&screen(out, &status));
            if let Some(why) = why {
                text.push_str(&format!("{}\n", escape(&why.to_string())));
            }
            out.raw(text.as_bytes())?;
        }
        first = false;
        tokio::select! {
            _ = &mut interrupt => return Ok(Exit::Detached),
            () = tokio::time::sleep(every.saturating_sub(begun.elapsed())) => {}
        }
    }
}

/// The status from a master, else from a node that still has a view; else `unreachable`, with the reason.
async fn look(client: &mut MasterClient, reach: &Reach) -> (Status, Option<ClientError>) {
    let why = match link::status(client).await {
        Ok(view) => return (view.status, None),
        Err(e) => e,
    };
    match masterless::status(reach).await {
        Some(status) => (status, None),
        None => (unreachable(reach), Some(why)),
    }
}

/// What can be said of a cluster that does not answer.
fn unreachable(reach: &Reach) -> Status {
    Status {
        schema: STATUS_SCHEMA,
        cluster: reach.name.clone(),
        cluster_id: String::new(),
        state: Health::Unreachable,
        epoch: 0,
        term: 0,
        leader: None,
        masters: masterless::absent_masters(reach),
        nodes: Vec::new(),
        slots: SlotTotals { total: SLOTS as u64, ..SlotTotals::default() },
        operations: Vec::new(),
        warnings: Vec::new(),
    }
}

fn show(out: &Out, status: &Status) -> Result<(), crate::cli::error::CliError> {
    if out.json() { out.document(status) } else { out.raw(screen(out, status).as_bytes()) }
}

/// The whole screen.
fn screen(out: &Out, s: &Status) -> String {
    let mut text = String::new();
    let (word, tone) = match s.state {
        Health::Ok => ("ok", Tone::Good),
        Health::Degraded => ("degraded", Tone::Warn),
        Health::Down => ("down", Tone::Bad),
        Health::Unreachable => ("unreachable", Tone::Bad),
    };
    let leader = s.leader.as_deref().unwrap_or("none");
    text.push_str(&format!(
        "cluster {}  {}  epoch {}  term {}  leader {}\n",
        out.paint(Tone::Strong, &escape(&s.cluster)),
        out.paint(tone, word),
        s.epoch,
        s.term,
        escape(leader)
    ));
    let slots = &s.slots;
    let full = if slots.serving == slots.total { Tone::Good } else { Tone::Bad };
    text.push_str(&format!(
        "slots   {} serving  {}  {}  {}\n",
        out.paint(full, &format!("{}/{}", slots.serving, slots.total)),
        counted(out, slots.solo, "without backup", Tone::Warn),
        counted(out, slots.orphan, "orphan", Tone::Bad),
        counted(out, slots.lost_total, "ever lost", Tone::Bad),
    ));
    text.push('\n');
    text.push_str(&masters(out, &s.masters));
    if !s.nodes.is_empty() {
        text.push('\n');
        text.push_str(&nodes(out, &s.nodes));
    }
    if !s.operations.is_empty() {
        text.push('\n');
        text.push_str(&operations(out, &s.operations));
    }
    for w in &s.warnings {
        text.push_str(&format!("\n{} {}\n", out.paint(Tone::Warn, "warning:"), escape(w)));
    }
    text
}

fn counted(out: &Out, n: u64, what: &str, tone: Tone) -> String {
    let text = format!("{n} {what}");
    if n == 0 { text } else { out.paint(tone, &text).into_owned() }
}

fn masters(out: &Out, all: &[MasterStatus]) -> String {
    let mut t = Table::new(&["MASTER", "ADDRESS", "ROLE", ">LAST LOG", ">APPLIED"]);
    for m in all {
        let tone = match m.role.as_str() {
            "leader" => Some(Tone::Strong),
            _ if !m.alive => Some(Tone::Bad),
            _ => None,
        };
        let number = |n: u64| if m.alive { n.to_string() } else { "-".into() };
        t.row(&[
            (if m.id.is_empty() { "?" } else { &m.id }, None),
            (&m.addr, None),
            (&m.role, tone),
            (&number(m.last_log), None),
            (&number(m.applied), None),
        ]);
    }
    t.render(out, "")
}

fn nodes(out: &Out, all: &[NodeStatus]) -> String {
    let zoned = all.iter().any(|n| !n.zone.is_empty());
    let mut head = vec![
        "NODE", "ADDRESS", "STATE", ">PRIMARY", ">BACKUP", ">KEYS", ">+COPIES", ">MEMORY", ">OF", ">OPS/S", ">HIT%",
        ">P99", ">BEAT",
    ];
    if zoned {
        head.push("ZONE");
    }
    let mut t = Table::new(&head);
    for n in all {
        let (word, tone) = node_state(n.state);
        let hit = n.hit_ratio.filter(|r| r.is_finite()).map_or("-".into(), |r| format!("{:.1}", r * 100.0));
        let p99 = n.p99_us.map_or("-".into(), show_us);
        let beat = n.heartbeat_age_ms.map_or("-".into(), show_ms);
        let cells = [
            (n.id.as_str(), None),
            (&n.addr, None),
            (word, tone),
            (&n.primary_slots.to_string(), None),
            (&n.backup_slots.to_string(), None),
            (&show_count(n.primary_keys as f64), None),
            (&show_count(n.backup_keys as f64), None),
            (&show_size(n.primary_bytes.saturating_add(n.backup_bytes)), None),
            (&show_size(n.memory_limit), None),
            (&show_count(n.ops_per_s), None),
            (&hit, None),
            (&p99, None),
            (&beat, None),
            (&n.zone, None),
        ];
        t.row(&cells[..head.len()]);
    }
    t.render(out, "")
}

fn node_state(state: NodeState) -> (&'static str, Option<Tone>) {
    match state {
        NodeState::Up => ("up", Some(Tone::Good)),
        NodeState::Joining => ("joining", Some(Tone::Warn)),
        NodeState::Suspect => ("suspect", Some(Tone::Warn)),
        NodeState::Draining => ("draining", Some(Tone::Warn)),
        NodeState::Dead => ("dead", Some(Tone::Bad)),
        NodeState::Standby => ("standby", Some(Tone::Dim)),
        NodeState::Left => ("left", Some(Tone::Dim)),
    }
}

fn show_us(us: u64) -> String {
    if us < 1000 { format!("{us}µs") } else { format!("{:.1}ms", us as f64 / 1000.0) }
}

fn operations(out: &Out, all: &[OperationStatus]) -> String {
    let mut t = Table::new(&[">OP", "KIND", "STATE", "NODES", ">MOVES", ">KEYS", ">RATE", ">LEFT", "REASON"]);
    for o in all {
        let tone = match o.state.as_str() {
            "running" => Some(Tone::Strong),
            "failed" => Some(Tone::Bad),
            "done" | "cancelled" => Some(Tone::Dim),
            _ => None,
        };
        let running = o.state == "running";
        t.row(&[
            (&format!("#{}", o.id), None),
            (&o.kind, None),
            (&o.state, tone),
            (&o.nodes.join(","), None),
            (&format!("{}/{}", o.slots_done, o.slots_total), None),
            (&show_count(o.keys_done as f64), None),
            (&if running { format!("{}/s", show_size(o.rate_bytes_per_s)) } else { "-".into() }, None),
            (&if running && o.eta_ms > 0 { show_ms(o.eta_ms) } else { "-".into() }, None),
            (o.reason.as_deref().unwrap_or(""), None),
        ]);
    }
    t.render(out, "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::{Color, Format};

    fn sample() -> Status {
        serde_json::from_str(
            r#"{"schema":1,"cluster":"demo","cluster_id":"ab","state":"degraded","epoch":42,"term":7,"leader":"m1",
            "masters":[{"id":"m1","addr":"127.0.0.1:7101","role":"leader","alive":true,"last_log":120,"applied":120},
                       {"id":"m2","addr":"127.0.0.1:7102","role":"unreachable","alive":false,"last_log":0,"applied":0}],
            "nodes":[{"id":"n1","addr":"127.0.0.1:7201","incarnation":"1","state":"up","heartbeat_age_ms":80,
              "heartbeat_gaps_ms":[250],"zone":"","weight":1.0,"primary_slots":5462,"backup_slots":5461,"primary_keys":10,
              "backup_keys":9,"primary_bytes":1000,"backup_bytes":900,"memory_limit":268435456,"ops_per_s":42400.0,
              "hit_ratio":0.918,"evicted":0,"expired":0,"clients":0,"p99_us":1800},
             {"id":"n2","addr":"evil\u001b[2J","incarnation":"1","state":"suspect","heartbeat_age_ms":null,
              "heartbeat_gaps_ms":[],"zone":"","weight":1.0,"primary_slots":1,"backup_slots":0,"primary_keys":0,
              "backup_keys":0,"primary_bytes":18446744073709551615,"backup_bytes":900,"memory_limit":1,"ops_per_s":0.0,
              "hit_ratio":null,"evicted":0,"expired":0,"clients":0,"p99_us":null}],
            "slots":{"total":16384,"serving":16384,"solo":12,"orphan":0,"lost_total":0},
            "operations":[{"id":17,"kind":"scale-out","state":"running","nodes":["n4"],"slots_total":4096,"slots_done":812,
              "keys_done":5,"bytes_done":0,"bytes_left":0,"rate_bytes_per_s":1048576,"eta_ms":41000,"reason":null}]}"#,
        )
        .unwrap()
    }

    #[test]
    fn one_screen_says_it_all_and_nothing_hostile() {
        let out = Out::new(Format::Table, Color::Never, false, false);
        let text = screen(&out, &sample());
        assert!(!text.contains('\x1b'), "{text}");
        for part in [
            "cluster demo  degraded  epoch 42  term 7  leader m1",
            "slots   16384/16384 serving  12 without backup  0 orphan  0 ever lost",
            "m2      127.0.0.1:7102  unreachable",
            "42.4k  91.8  1.8ms  80ms",
            "#17  scale-out  running  n4     812/4096",
            "41s",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
        let width = text.lines().map(|l| l.chars().count()).max().unwrap();
        assert!(width <= 130, "{width}\n{text}");
    }

    #[test]
    fn colour_is_only_added() {
        let plain = screen(&Out::new(Format::Table, Color::Never, false, false), &sample());
        let coloured = screen(&Out::new(Format::Table, Color::Always, false, false), &sample());
        let mut stripped = String::new();
        let mut rest = coloured.as_str();
        while let Some(at) = rest.find("\x1b[") {
            stripped.push_str(&rest[..at]);
            rest = &rest[at..];
            rest = &rest[rest.find('m').unwrap() + 1..];
        }
        stripped.push_str(rest);
        assert!(coloured.len() > plain.len());
        assert_eq!(stripped, plain);
    }
}
