//! `cachectl ops`: operations, how far they are, and what to do with them.

use serde::Serialize;

use super::Ctx;
use super::plan::ASK;
use crate::cli::args::OpsCommand;
use crate::cli::error::{CliError, CmdResult, Exit};
use crate::cli::link::{self, unanswered};
use crate::cli::output::{Out, Table, Tone, escape};
use crate::cli::units::{show_count, show_ms, show_size};
use crate::proto::control::{Message, OperationId};
use crate::proto::net::client::Repeat;
use crate::proto::operation::{OperationState, Role};
use crate::proto::status::{OperationStatus, Status};

/// Cells of a pair's gauge.
const GAUGE: usize = 20;

#[derive(Debug, Serialize)]
struct List<'a> {
    schema: u32,
    cluster: &'a str,
    operations: &'a [OperationStatus],
}

#[derive(Debug, Serialize)]
struct One<'a> {
    schema: u32,
    cluster: &'a str,
    operation: &'a OperationStatus,
}

/// Runs it.
pub async fn run(ctx: &Ctx, command: Option<&OpsCommand>) -> CmdResult {
    let reach = ctx.reach_running()?;
    let mut client = link::masters(&reach.masters, ASK);
    let order = match command {
        None | Some(OpsCommand::Ls | OpsCommand::Show(_)) => None,
        Some(OpsCommand::Pause(a)) => Some((a.id, Message::Pause(OperationId { operation: a.id }), "pauses")),
        Some(OpsCommand::Resume(a)) => Some((a.id, Message::Resume(OperationId { operation: a.id }), "goes on")),
        Some(OpsCommand::Cancel(a)) => Some((a.id, Message::Cancel(OperationId { operation: a.id }), "ends")),
    };
    if let Some((id, message, word)) = &order {
        let status = link::status(&mut client).await.map_err(unanswered)?.status;
        find(&status, *id)?;
        // To pause what is paused does no harm.
        client.request(message, Repeat::Safe).await.map_err(unanswered)?;
        ctx.out.say(&format!("operation #{id} {word}"));
    }
    let status = link::status(&mut client).await.map_err(unanswered)?.status;
    let id = match (command, &order) {
        (Some(OpsCommand::Show(a)), _) => Some(a.id),
        (_, Some((id, ..))) => Some(*id),
        _ => None,
    };
    let out = &ctx.out;
    match id {
        None if out.json() => {
            out.document(&List { schema: 1, cluster: &status.cluster, operations: &status.operations })?;
        }
        None if status.operations.is_empty() => out.say("no operations"),
        None => out.raw(list(out, &status.operations).as_bytes())?,
        Some(id) => {
            let op = find(&status, id)?;
            if out.json() {
                out.document(&One { schema: 1, cluster: &status.cluster, operation: op })?;
            } else {
                out.raw(detail(out, op).as_bytes())?;
            }
        }
    }
    Ok(Exit::Done)
}

fn find(status: &Status, id: u64) -> Result<&OperationStatus, CliError> {
    status.operations.iter().find(|o| o.id == id).ok_or_else(|| {
        let ids: Vec<String> = status.operations.iter().map(|o| format!("#{}", o.id)).collect();
        let e = CliError::failed("NO_SUCH_OPERATION", format!("there is no operation #{id}"));
        match ids.is_empty() {
            true => e.hint("there is none: `cachectl add`, `remove` and `rebalance` make them"),
            false => e.hint(format!("there are {}; of those that ended only the last ten are kept", ids.join(", "))),
        }
    })
}

fn tone(state: &str) -> Option<Tone> {
    match OperationState::parse(state)? {
        OperationState::Running => Some(Tone::Strong),
        OperationState::Done => Some(Tone::Good),
        OperationState::Failed => Some(Tone::Bad),
        OperationState::Paused | OperationState::Cancelled => Some(Tone::Warn),
        OperationState::Planned => None,
    }
}

fn eta(op: &OperationStatus) -> String {
    if op.eta_ms == 0 { "-".into() } else { show_ms(op.eta_ms) }
}

fn list(out: &Out, all: &[OperationStatus]) -> String {
    let mut t = Table::new(&["ID", "KIND", "STATE", "NODES", ">SLOTS", ">DONE", ">RATE", ">ETA", "REASON"]);
    for o in all {
        let rate = if o.rate_bytes_per_s == 0 { "-".into() } else { format!("{}/s", show_size(o.rate_bytes_per_s)) };
        t.row(&[
            (&format!("#{}", o.id), None),
            (&o.kind, None),
            (&o.state, tone(&o.state)),
            (&o.nodes.join(","), None),
            (&o.slots_total.to_string(), None),
            (&format!("{}%", percent(o.slots_done, o.slots_total)), None),
            (&rate, None),
            (&eta(o), None),
            (o.reason.as_deref().unwrap_or(""), None),
        ]);
    }
    t.render(out, "")
}

/// One operation: the steps it takes (PROTOCOL section 8), and each pair of nodes with its gauge.
fn detail(out: &Out, o: &OperationStatus) -> String {
    let state = match tone(&o.state) {
        Some(tone) => out.paint(tone, &o.state).into_owned(),
        None => escape(&o.state).into_owned(),
    };
    let mut text = format!(
        "operation #{}  {} {}  {state}\n",
        o.id,
        out.paint(Tone::Strong, &escape(&o.kind)),
        escape(&o.nodes.join(", "))
    );
    text.push_str(&format!(
        "slots   {} {}/{}  {}%\n",
        gauge(o.slots_done, 0, o.slots_total),
        o.slots_done,
        o.slots_total,
        percent(o.slots_done, o.slots_total)
    ));
    text.push_str(&format!(
        "copied  {} keys, {}; {} left, {}/s, eta {}; {} batches tried again\n",
        show_count(o.keys_done as f64),
        show_size(o.bytes_done),
        show_size(o.bytes_left),
        show_size(o.rate_bytes_per_s),
        eta(o),
        o.retries
    ));
    if let Some(reason) = &o.reason {
        text.push_str(&format!("{} {}\n", out.paint(Tone::Warn, "reason "), escape(reason)));
    }
    // Deals come with backups first; a death with primaries first, which are promoted at once and need no step of it.
    let order = [Role::Backup, Role::Primary];
    let mut step = 0;
    for role in order {
        let pairs: Vec<_> = o.pairs.iter().filter(|p| p.role == role).collect();
        if pairs.is_empty() {
            continue;
        }
        step += 1;
        let title = match role {
            Role::Backup => "backups: copy, then in sync, then the old one drops them",
            Role::Primary => "primaries: copy, then in sync, then hand over",
        };
        text.push_str(&format!("\n{step}. {title}\n"));
        let mut t = Table::new(&["FROM", "TO", "", ">DONE", ">NOW", ">OF"]);
        for p in pairs {
            t.row(&[
                (p.from.as_deref().unwrap_or("-"), None),
                (&p.to, None),
                (&gauge(p.slots_done, p.slots_running, p.slots_total), None),
                (&p.slots_done.to_string(), None),
                (&p.slots_running.to_string(), None),
                (&p.slots_total.to_string(), None),
            ]);
        }
        text.push_str(&t.render(out, "   "));
    }
    text
}

/// `━` is done, `╸` under way, `─` still to do.
fn gauge(done: u64, running: u64, total: u64) -> String {
    let cells = |n: u64| if total == 0 { 0 } else { (n.min(total) as usize * GAUGE) / total as usize };
    let full = cells(done);
    let half = cells(done.saturating_add(running)).max(full + usize::from(running > 0)).min(GAUGE) - full.min(GAUGE);
    format!("{}{}{}", "━".repeat(full), "╸".repeat(half), "─".repeat(GAUGE - full - half))
}

/// How much is done; nothing of nothing is 0.
pub fn percent(done: u64, total: u64) -> u64 {
    (done.min(total) * 100).checked_div(total).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::{operation, status};
    use super::*;
    use crate::cli::output::{Color, Format};
    use crate::proto::status::PairStatus;

    #[test]
    fn a_gauge_is_as_wide_whatever_it_shows() {
        for (done, running, total) in
            [(0, 0, 0), (0, 1, 1), (5, 3, 9), (9, 9, 9), (10, 0, 9), (u64::MAX, u64::MAX, 1), (8, 1, 9)]
        {
            assert_eq!(gauge(done, running, total).chars().count(), GAUGE, "{done} {running} {total}");
        }
        assert_eq!(gauge(1, 1, 2), "━━━━━━━━━━╸╸╸╸╸╸╸╸╸╸");
        assert_eq!(gauge(0, 1, 1000), "╸───────────────────");
    }

    #[test]
    fn one_operation_shows_steps_and_pairs() {
        let mut o = status(&operation(17, "running", 4)).operations.remove(0);
        let pair = |role, done| PairStatus {
            role,
            from: Some("n1".into()),
            to: "n4".into(),
            slots_total: 4,
            slots_done: done,
            slots_running: 1,
        };
        o.pairs = vec![pair(Role::Primary, 1), pair(Role::Backup, 3)];
        o.reason = Some("n4 \u{1b}[2J".into());
        let text = detail(&Out::new(Format::Table, Color::Never, false, false), &o);
        assert!(!text.contains('\x1b'), "{text}");
        for part in [
            "operation #17  scale-out n4  running",
            "4/8  50%",
            "1. backups",
            "2. primaries",
            "n1    n4  ━━━━━━━━━━━━━━━╸╸╸╸╸     3",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
    }

    #[test]
    fn an_unknown_number_names_the_known() {
        let CliError::Failed(_, f) = find(&status(&operation(3, "done", 8)), 4).unwrap_err() else { panic!() };
        assert_eq!((f.code.as_str(), f.message.as_str()), ("NO_SUCH_OPERATION", "there is no operation #4"));
        assert!(f.hint.unwrap().contains("#3"));
    }
}
