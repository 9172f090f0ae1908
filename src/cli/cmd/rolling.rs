//! `cachectl restart --rolling`: every process of a local cluster, one by one, without a client noticing.
//!
//! ```text
//!  ok? ──▶ node: SIGTERM, hands over, starts, ok again ──▶ next … ──▶ followers ──▶ switchover ──▶ the master that led
//! ```

use std::time::{Duration, Instant};

use super::process::{Done, Local, again};
use super::{Ctx, switchover};
use crate::cli::error::{CliError, Exit};
use crate::cli::local::settle::{Goal, settled};
use crate::cli::local::state::{Member, Role};
use crate::cli::progress::Progress;
use crate::cli::prompt::confirm;
use crate::proto::error::Failure;
use crate::proto::id::MasterId;
use crate::proto::status::Status;

/// Between two looks at a cluster that is not at rest yet.
const LOOK: Duration = Duration::from_millis(100);

/// Restarts all; each step may take `within`.
pub async fn run(ctx: &Ctx, local: &Local, within: Duration) -> Result<Vec<Done>, CliError> {
    let status = at_rest(ctx, local, within).await?;
    let nodes: Vec<Member> = local.members.of(Role::Node).cloned().collect();
    if nodes.len() == 1 {
        confirm(ctx, "There is one node: what it holds is lost when it restarts. Restart it?")?;
    }
    let masters: Vec<Member> = local.members.of(Role::Master).cloned().collect();
    let total = nodes.len() + masters.len();
    let mut done = Vec::new();
    for m in &nodes {
        ctx.out.say(&format!("{}/{total} node {}", done.len() + 1, m.id));
        done.push(again(ctx, local, m, Goal::Ok, within).await?);
    }
    let leader = local.status().await.and_then(|s| s.leader).or(status.leader);
    // The one that leads comes last, so that leadership moves once.
    let (last, followers): (Vec<Member>, Vec<Member>) =
        masters.into_iter().partition(|m| Some(&m.id) == leader.as_ref());
    for m in followers.iter().chain(&last) {
        at_rest(ctx, local, within).await?;
        let leads = local.status().await.and_then(|s| s.leader);
        if leads.as_ref() == Some(&m.id) && total > nodes.len() + 1 {
            let (from, to, ms) =
                switchover::hand_over(&local.members.addrs(Role::Master), None::<&MasterId>, within).await?;
            ctx.out.say(&format!("leadership went from {from} to {to} in {ms} ms"));
        }
        ctx.out.say(&format!("{}/{total} master {}", done.len() + 1, m.id));
        done.push(again(ctx, local, m, Goal::Ok, within).await?);
    }
    Ok(done)
}

/// Waits until the cluster is ok and nothing moves; a cluster that is not gets nothing done to it.
async fn at_rest(ctx: &Ctx, local: &Local, within: Duration) -> Result<Status, CliError> {
    let end = Instant::now() + within;
    let progress = Progress::spinner(&ctx.out);
    loop {
        let missing = match local.status().await {
            None => "no master answers".to_owned(),
            Some(s) => match settled(&s) {
                Ok(()) if s.leader.is_some() => return Ok(s),
                Ok(()) => "no master leads".into(),
                Err(missing) => missing,
            },
        };
        if Instant::now() >= end {
            return Err(CliError::Failed(
                Exit::NotOk,
                Failure::new("NOT_OK", format!("cluster {} is not ok: {missing}", local.home.name)),
            )
            .hint("only a cluster that is ok can lose one process after the other: look at `cachectl status`"));
        }
        progress.show(&missing);
        tokio::time::sleep(LOOK).await;
    }
}
