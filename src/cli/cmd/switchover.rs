//! `cachectl switchover`: hands the masters' leadership over.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::Ctx;
use crate::cli::args::SwitchoverArgs;
use crate::cli::error::{CliError, CmdResult, Exit};
use crate::cli::link::{self, unanswered};
use crate::cli::names;
use crate::cli::units::show_ms;
use crate::proto::control::{Message, SwitchMaster};
use crate::proto::id::MasterId;
use crate::proto::net::client::{ClientError, Repeat};
use crate::proto::status::Status;

/// Between two looks at who leads.
const LOOK: Duration = Duration::from_millis(10);
/// How long one look may take.
const ASK: Duration = Duration::from_millis(500);

/// Runs it.
pub async fn run(ctx: &Ctx, args: &SwitchoverArgs) -> CmdResult {
    let reach = ctx.reach_running()?;
    let (from, to, ms) = hand_over(&reach.masters, args.to.as_ref(), args.timeout).await?;
    if from == to {
        ctx.out.say(&format!("{from} leads already"));
    }
    tell(ctx, &from, &to, ms)
}

/// Hands leadership over, to whom it is said or to the most caught-up; from whom, to whom, milliseconds.
pub async fn hand_over(
    masters: &[String],
    to: Option<&MasterId>,
    timeout: Duration,
) -> Result<(String, String, u64), CliError> {
    let begun = Instant::now();
    let end = begun + timeout;
    let left = || end.saturating_duration_since(Instant::now());
    let late = |what: &str| {
        CliError::timed_out(format!("{what} within {}", show_ms(timeout.as_millis() as u64)))
            .hint("`cachectl status` shows who leads now")
    };
    let mut client = link::masters(masters, timeout);
    let old = loop {
        match link::status(&mut client).await {
            Ok(v) if v.status.leader.is_some() => break v.status,
            Ok(_) if left().is_zero() => return Err(late("no master led")),
            Ok(_) => tokio::time::sleep(LOOK).await,
            Err(_) if left() < LOOK => return Err(late("no master led")),
            Err(e) => return Err(unanswered(e)),
        }
    };
    let from = old.leader.clone().unwrap_or_default();
    if let Some(to) = to {
        if !old.masters.iter().any(|m| m.id == to.as_str()) {
            return Err(names::unknown("NO_MASTER", "master", to.as_str(), old.masters.iter().map(|m| m.id.as_str())));
        }
        if to.as_str() == from {
            return Ok((from.clone(), from, 0));
        }
    }
    if old.masters.len() < 2 {
        return Err(CliError::failed("SINGLE_MASTER", "there is no other master to hand leadership to")
            .hint("a cluster with 3 masters can switch"));
    }
    // Named in every case: an order that says whom is done once that one leads, however often it is heard.
    let to = match to {
        Some(to) => to.clone(),
        None => most_caught_up(&old, &from).ok_or_else(|| {
            CliError::failed("NO_OTHER_MASTER", "no other master answers")
                .hint("`cachectl status` shows which are away")
        })?,
    };
    match client.request(&Message::SwitchMaster(SwitchMaster { to: Some(to.clone()) }), Repeat::Safe).await {
        // Whoever answered, or did not, while leadership moved: who leads in the end is seen below.
        Ok(_) | Err(ClientError::Unknown { .. } | ClientError::Timeout(_)) => {}
        Err(e) => return Err(unanswered(e)),
    }
    let mut watcher = link::once(masters, ASK);
    loop {
        if let Ok(view) = link::status(&mut watcher).await
            && view.status.leader.as_deref() == Some(to.as_str())
        {
            return Ok((from, to.to_string(), begun.elapsed().as_millis() as u64));
        }
        if left().is_zero() {
            return Err(late(&format!("leadership did not go from {from} to {to}")));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Who has most of the log; of equals the first by name.
fn most_caught_up(status: &Status, leader: &str) -> Option<MasterId> {
    let others = status.masters.iter().filter(|m| m.id != leader && m.alive);
    let best = others.max_by(|a, b| a.last_log.cmp(&b.last_log).then_with(|| b.id.cmp(&a.id)))?;
    MasterId::new(&best.id).ok()
}

fn tell(ctx: &Ctx, from: &str, to: &str, ms: u64) -> CmdResult {
    if ctx.out.json() {
        #[derive(Serialize)]
        struct Doc<'a> {
            schema: u32,
            from: &'a str,
            to: &'a str,
            ms: u64,
        }
        ctx.out.document(&Doc { schema: 1, from, to, ms })?;
    } else {
        ctx.out.line(&format!("{from} → {to} in {ms} ms"))?;
    }
    Ok(Exit::Done)
}
