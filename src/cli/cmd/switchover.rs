//! `cachectl switchover`: hands the masters' leadership over.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::Ctx;
use crate::cli::args::SwitchoverArgs;
use crate::cli::error::{CliError, CmdResult, Exit};
use crate::cli::link::{self, unanswered};
use crate::proto::control::{Message, SwitchMaster};
use crate::proto::net::client::{ClientError, Repeat};

/// Between two looks at who leads.
const LOOK: Duration = Duration::from_millis(10);
/// How long one look may take.
const ASK: Duration = Duration::from_millis(500);

/// Runs it.
pub async fn run(ctx: &Ctx, args: &SwitchoverArgs) -> CmdResult {
    let reach = ctx.reach()?;
    let begun = Instant::now();
    let end = begun + args.timeout;
    let left = || end.saturating_duration_since(Instant::now());
    let late = |what: &str| {
        CliError::timed_out(format!("{what} within {:?}", args.timeout)).hint("`cachectl status` shows who leads now")
    };
    let mut client = link::masters(&reach.masters, args.timeout);
    let old = loop {
        match link::status(&mut client).await {
            Ok(v) if v.status.leader.is_some() => break v.status,
            Ok(_) if left().is_zero() => return Err(late("no master led")),
            Ok(_) => tokio::time::sleep(LOOK).await,
            Err(e) => return Err(unanswered(e)),
        }
    };
    let from = old.leader.clone().unwrap_or_default();
    if let Some(to) = &args.to {
        if !old.masters.iter().any(|m| m.id == to.as_str()) {
            let known: Vec<&str> = old.masters.iter().map(|m| m.id.as_str()).collect();
            return Err(CliError::failed("NO_MASTER", format!("there is no master {to}"))
                .hint(format!("there are {}", known.join(", "))));
        }
        if to.as_str() == from {
            ctx.out.say(&format!("{from} leads already"));
            return tell(ctx, &from, &from, 0);
        }
    }
    if old.masters.len() < 2 {
        return Err(CliError::failed("SINGLE_MASTER", "there is no other master to hand leadership to")
            .hint("a cluster with 3 masters can switch"));
    }
    let order = Message::SwitchMaster(SwitchMaster { to: args.to.clone() });
    match client.request(&order, Repeat::Unsafe).await {
        // The leader that hands over may close before it answers: the outcome is seen below.
        Ok(_) | Err(ClientError::Unknown { .. }) => {}
        Err(e) => return Err(unanswered(e)),
    }
    let mut watcher = link::once(&reach.masters, ASK);
    loop {
        if let Ok(view) = link::status(&mut watcher).await
            && let Some(now) = view.status.leader.filter(|_| view.status.term > old.term)
            && now != from
            && args.to.as_ref().is_none_or(|to| to.as_str() == now)
        {
            return tell(ctx, &from, &now, begun.elapsed().as_millis() as u64);
        }
        if left().is_zero() {
            return Err(late(&format!("leadership did not leave {from}")));
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn tell(ctx: &Ctx, from: &str, to: &str, ms: u64) -> CmdResult {
    if ctx.out.json() {
        #[derive(Serialize)]
        struct Doc<'a> {
            from: &'a str,
            to: &'a str,
            ms: u64,
        }
        ctx.out.document(&Doc { from, to, ms })?;
    } else {
        ctx.out.line(&format!("{from} → {to} in {ms} ms"))?;
    }
    Ok(Exit::Done)
}
