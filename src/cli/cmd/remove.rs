//! `cachectl remove`: scale in. Drains nodes, then they stop; `--force` declares them dead instead.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::Ctx;
use super::plan::{ASK, Applied, Errand, stale};
use super::process::Local;
use crate::cli::args::RemoveArgs;
use crate::cli::error::{CliError, CmdResult, Exit};
use crate::cli::link::{self, unanswered};
use crate::cli::local::lock::{LOCK_WAIT, Lock};
use crate::cli::local::state::{Home, Process};
use crate::cli::names;
use crate::cli::output::escape;
use crate::cli::progress::Progress;
use crate::cli::prompt::confirm;
use crate::cli::units::show_ms;
use crate::proto::id::NodeId;
use crate::proto::operation::{OperationKind, Wish};
use crate::proto::status::NodeState;

/// How long a node that is drained may take to end; it settles what it owes its clients first.
const GONE: Duration = Duration::from_secs(60);
/// Between two looks at it.
const LOOK: Duration = Duration::from_millis(50);

/// Runs it.
pub async fn run(ctx: &Ctx, args: &RemoveArgs) -> CmdResult {
    let reach = ctx.reach_running()?;
    let mut errand = Errand::new(ctx, reach.name.clone(), reach.masters.clone());
    let local = reach.members.is_some().then(|| Local::of(ctx, "`remove`")).transpose()?;
    let mut nodes: Vec<NodeId> = Vec::new();
    args.nodes.iter().for_each(|n| {
        if !nodes.contains(n) {
            nodes.push(n.clone())
        }
    });
    let status = link::status(&mut errand.client).await.map_err(unanswered)?.status;
    for n in &nodes {
        if !status.nodes.iter().any(|s| s.id == n.as_str()) {
            let known: Vec<&str> = status.nodes.iter().map(|s| s.id.as_str()).collect();
            return Err(names::unknown("NO_SUCH_NODE", "node", n.as_str(), known));
        }
    }
    let wish = Wish {
        kind: OperationKind::ScaleIn,
        nodes: nodes.clone(),
        force: args.force,
        accept_data_loss: args.accept_data_loss,
    };
    let plan = errand.plan(&wish).await?;
    if args.dry_run || plan.is_none() {
        return errand.planned(plan);
    }
    let Some(plan) = plan else { return Ok(Exit::Done) };
    errand.show(&plan)?;
    let list = nodes.iter().map(|n| n.as_str()).collect::<Vec<_>>().join(", ");
    confirm(ctx, &question(args, &list))?;
    // With --yes nobody looked at the plan; what may lose data is bound to it all the same.
    let bound = !ctx.yes || args.force || args.accept_data_loss;
    let applied = match bound {
        true => errand.apply(plan).await?,
        false => errand.apply_latest(plan).await.map(|(operation, plan)| Applied::Accepted(operation, plan))?,
    };
    let (operation, plan) = match applied {
        Applied::Accepted(operation, plan) => (operation, plan),
        Applied::Stale(now) => {
            // What was confirmed is another thing than this.
            ctx.out.say("the plan is now:");
            errand.show(&now)?;
            return Err(stale());
        }
    };
    let processes: Vec<Process> = match &local {
        Some(l) => nodes.iter().filter_map(|n| l.running.process(n.as_str()).cloned()).collect(),
        None => Vec::new(),
    };
    if args.force {
        // One that was declared dead and still lives would come back as a new life of itself.
        for p in processes.iter().filter(|p| p.identity.alive()) {
            let _ = p.identity.signal(Signal::KILL);
        }
        if local.is_none() {
            ctx.out.say(&format!("if {list} still runs somewhere, end it there: else it comes back as a new node"));
        }
    }
    let (state, exit) = errand.wait(operation, args.no_wait).await?;
    if exit == Exit::Done && !args.no_wait {
        gone(ctx, &mut errand, &nodes, &processes).await?;
        if let Some(l) = &local {
            forget(ctx, &l.home, &nodes)?;
        }
    }
    errand.tell(&state, operation, Some(plan))?;
    if !ctx.out.json() && exit == Exit::Done && !args.no_wait {
        ctx.out.line(&format!("{list} removed in {}", show_ms(errand.elapsed_ms())))?;
    }
    Ok(exit)
}

fn question(args: &RemoveArgs, list: &str) -> String {
    match (args.force, args.accept_data_loss) {
        (false, false) => format!("Drain {list} and stop it?"),
        (false, true) => format!("Drain {list} and stop it, also where the last copy of something goes?"),
        (true, false) => format!("Declare {list} dead? It is not drained."),
        (true, true) => format!("Declare {list} dead, also where the last copy of something goes?"),
    }
}

/// Waits until the cluster and this machine agree that they are gone.
async fn gone(ctx: &Ctx, errand: &mut Errand<'_>, nodes: &[NodeId], processes: &[Process]) -> Result<(), CliError> {
    let progress = Progress::spinner(&ctx.out);
    let mut client = link::masters(&errand.masters, ASK);
    let end = Instant::now() + GONE;
    loop {
        let status = link::status(&mut client).await.map_err(unanswered)?.status;
        let here = nodes.iter().find(|n| {
            status.nodes.iter().any(|s| s.id == n.as_str() && !matches!(s.state, NodeState::Left | NodeState::Dead))
        });
        let waiting = match (here, processes.iter().find(|p| p.identity.alive())) {
            (None, None) => return Ok(()),
            (Some(n), _) => format!("{n} has not left yet"),
            (None, Some(p)) => format!("{} (pid {}) has not ended yet", escape(&p.id), p.identity.pid),
        };
        if Instant::now() >= end {
            return Err(CliError::timed_out(waiting)
                .hint("`cachectl status` shows its state; `cachectl logs` what it waits for"));
        }
        progress.show(&waiting);
        tokio::time::sleep(LOOK).await;
    }
}

/// Records that they left, so that `up` does not revive them.
fn forget(ctx: &Ctx, home: &Home, nodes: &[NodeId]) -> Result<(), CliError> {
    let _lock = Lock::take(&home.lock_path(), "remove", &ctx.out, LOCK_WAIT)?;
    let left = |id: &str| nodes.iter().any(|n| n.as_str() == id);
    if let Some(mut members) = home.members()? {
        members.members.iter_mut().filter(|m| left(&m.id)).for_each(|m| m.removed = true);
        home.put_members(&members)?;
    }
    let mut running = home.running()?;
    running.processes.retain(|p| !left(&p.id) || p.identity.alive());
    home.put_running(&running)
}
