//! `cachectl bench`: loads a cluster, or another cache, and says what came of it.

use super::Ctx;
use crate::cli::bench::args::{BenchArgs, BenchCommand};
use crate::cli::bench::{compare, run};
use crate::cli::error::{CliError, CmdResult};
use crate::cli::link::{self, unanswered};
use crate::cli::local::state::{Home, Role};
use crate::proto::net::cache::TOTAL_WAIT;

/// Runs it.
pub async fn run(ctx: &Ctx, args: &BenchArgs) -> CmdResult {
    if let Some(BenchCommand::Compare { a, b }) = &args.command {
        return compare::run(&ctx.out, a, b);
    }
    let (seeds, pids) =
        if args.load.addr.is_empty() { cluster(ctx).await? } else { (args.load.addr.clone(), Vec::new()) };
    let pids = if args.load.server_pid.is_empty() { pids } else { args.load.server_pid.clone() };
    run::run(&ctx.out, &args.load, seeds, pids).await
}

/// Addresses of the nodes of the cluster that is meant; of a local one, their processes too.
async fn cluster(ctx: &Ctx) -> Result<(Vec<String>, Vec<u32>), CliError> {
    let reach = ctx.reach_running()?;
    if reach.members.is_none() {
        let view = link::status(&mut link::masters(&reach.masters, TOTAL_WAIT)).await.map_err(unanswered)?;
        return Ok((view.status.nodes.into_iter().map(|n| n.addr).collect(), Vec::new()));
    }
    let running = Home::of(&reach.name)?.running()?;
    let nodes = running.alive().filter(|p| p.role == Role::Node);
    Ok((reach.nodes, nodes.map(|p| p.identity.pid).collect()))
}
