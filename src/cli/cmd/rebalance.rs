//! `cachectl rebalance`: evens the nodes' shares out.

use super::Ctx;
use super::plan::Errand;
use crate::cli::args::RebalanceArgs;
use crate::cli::error::{CmdResult, Exit};
use crate::cli::units::show_ms;
use crate::proto::operation::{OperationKind, Wish};

/// Runs it.
pub async fn run(ctx: &Ctx, args: &RebalanceArgs) -> CmdResult {
    let reach = ctx.reach_running()?;
    let mut errand = Errand::new(ctx, reach.name, reach.masters);
    let wish = Wish { kind: OperationKind::Rebalance, nodes: Vec::new(), force: false, accept_data_loss: false };
    let plan = errand.plan(&wish).await?;
    if args.dry_run || plan.is_none() {
        return errand.planned(plan);
    }
    let Some(plan) = plan else { return Ok(Exit::Done) };
    errand.show(&plan)?;
    let (operation, plan) = errand.apply_latest(plan).await?;
    let (state, exit) = errand.wait(operation, args.no_wait).await?;
    errand.tell(&state, operation, Some(plan))?;
    if !ctx.out.json() && state == "done" {
        ctx.out.line(&format!("rebalanced in {}", show_ms(errand.elapsed_ms())))?;
    }
    Ok(exit)
}
