//! `cachectl add`: scale out. On a local cluster it starts the processes; elsewhere they were started on standby.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Ctx;
use super::foreground::Stop;
use super::plan::Errand;
use super::process::Local;
use crate::cli::args::{AddArgs, CountOrNode, LOCAL_NODES_MAX};
use crate::cli::error::{CliError, CmdResult, Exit};
use crate::cli::link::{self, unanswered};
use crate::cli::local::inherit;
use crate::cli::local::lock::{LOCK_WAIT, Lock};
use crate::cli::local::member::{self, check_ports, free};
use crate::cli::local::settle::{Goal, Settle};
use crate::cli::local::spawn::{self, Spawned};
use crate::cli::local::state::{Member, Members, Role};
use crate::cli::names;
use crate::cli::output::escape;
use crate::cli::progress::Progress;
use crate::cli::units::show_ms;
use crate::proto::id::NodeId;
use crate::proto::operation::{OperationKind, PlanView, Wish};
use crate::proto::status::{NodeState, Status};

/// How long a new process may take until the masters know it.
const REGISTERED: Duration = Duration::from_secs(30);

/// Runs it.
pub async fn run(ctx: &Ctx, args: &AddArgs) -> CmdResult {
    let (count, names) = asked(&args.what)?;
    let reach = ctx.reach_running()?;
    let mut errand = Errand::new(ctx, reach.name.clone(), reach.masters.clone());
    let (operation, plan) = if reach.members.is_some() {
        match on_this_machine(ctx, &mut errand, count, &names, args.dry_run).await? {
            Step::Plan(plan) => return errand.planned(plan),
            Step::Detached => return Ok(Exit::Detached),
            Step::Accepted(operation, plan) => (operation, plan),
        }
    } else {
        if count.is_some() {
            return Err(CliError::usage("only a local cluster's nodes can be started from here").hint(
                "start `cachectl node` where it shall run: it joins by itself; started with --standby it waits for `cachectl add NODE`",
            ));
        }
        let status = link::status(&mut errand.client).await.map_err(unanswered)?.status;
        registered(&status, &names)?;
        let plan = errand.plan(&wish(names)).await?;
        let Some(plan) = plan.clone().filter(|_| !args.dry_run) else { return errand.planned(plan) };
        errand.show(&plan)?;
        errand.apply_latest(plan).await?
    };
    let (state, exit) = errand.wait(operation, args.no_wait).await?;
    let nodes: Vec<String> = plan.wish.nodes.iter().map(ToString::to_string).collect();
    errand.tell(&state, operation, Some(plan))?;
    if !ctx.out.json() && matches!(state.as_str(), "done" | "nothing-to-do") {
        ctx.out.line(&format!("{} added in {}", nodes.join(", "), show_ms(errand.elapsed_ms())))?;
    }
    Ok(exit)
}

/// A count, or names.
fn asked(what: &[CountOrNode]) -> Result<(Option<usize>, Vec<NodeId>), CliError> {
    let mut names = Vec::new();
    let mut count = None;
    for w in what {
        match w {
            CountOrNode::Count(n) if what.len() == 1 => count = Some(*n),
            CountOrNode::Count(n) => {
                return Err(CliError::usage(format!("{n} stands beside other words"))
                    .hint("say either how many nodes, or which"));
            }
            CountOrNode::Node(n) if !names.contains(n) => names.push(n.clone()),
            CountOrNode::Node(_) => {}
        }
    }
    Ok((count.or(names.is_empty().then_some(1)), names))
}

fn wish(nodes: Vec<NodeId>) -> Wish {
    Wish { kind: OperationKind::ScaleOut, nodes, force: false, accept_data_loss: false }
}

/// Elsewhere a node that nobody started can't be added.
fn registered(status: &Status, names: &[NodeId]) -> Result<(), CliError> {
    for name in names {
        if !status.nodes.iter().any(|n| n.id == name.as_str() && lives(n.state)) {
            let known = status.nodes.iter().filter(|n| n.state == NodeState::Standby).map(|n| n.id.as_str());
            return Err(names::unknown("NO_SUCH_NODE", "registered node", name.as_str(), known.collect::<Vec<_>>())
                .hint(format!(
                    "start it where it shall run: `cachectl node --id {name} --standby --masters-addr HOST:PORT`; what waits on standby shows in `cachectl status`"
                )));
        }
    }
    Ok(())
}

fn lives(state: NodeState) -> bool {
    !matches!(state, NodeState::Dead | NodeState::Left)
}

enum Step {
    Plan(Option<PlanView>),
    Detached,
    Accepted(Option<u64>, PlanView),
}

/// Plans, starts the processes on standby, and applies; the lock keeps other commands away until the cluster has accepted.
async fn on_this_machine(
    ctx: &Ctx,
    errand: &mut Errand<'_>,
    count: Option<usize>,
    names: &[NodeId],
    dry_run: bool,
) -> Result<Step, CliError> {
    inherit::close_on_exec();
    let mut local = Local::of(ctx, "`add`")?;
    let lock = Lock::take(&local.home.lock_path(), "add", &ctx.out, LOCK_WAIT)?;
    // Read under the lock: another command may have changed it meanwhile.
    local = Local::of(ctx, "`add`")?;
    let status = link::status(&mut errand.client).await.map_err(unanswered)?.status;
    let chosen = choose(&local.members, &status, count, names)?;
    let fresh: Vec<Member> =
        chosen.iter().filter(|m| local.running.process(&m.id).is_none_or(|p| !p.identity.alive())).cloned().collect();
    let mut nodes: Vec<NodeId> = names.to_vec();
    if nodes.is_empty() {
        nodes = chosen.iter().filter_map(|m| NodeId::new(&m.id).ok()).collect();
    }
    let Some(plan) = errand.plan(&wish(nodes)).await? else { return Ok(Step::Plan(None)) };
    if dry_run {
        return Ok(Step::Plan(Some(plan)));
    }
    errand.show(&plan)?;
    let mut stop = Stop::watch()?;
    let mut children = Vec::new();
    let before = local.members.clone();
    let accepted = tokio::select! {
        accepted = go(ctx, errand, &mut local, &fresh, &mut children, &status, plan) => accepted.map(Some),
        () = stop.asked() => Ok(None),
    };
    if !matches!(accepted, Ok(Some(_))) {
        undo(&mut local, before, &mut children);
    }
    drop(lock);
    match accepted? {
        Some((operation, plan)) => Ok(Step::Accepted(operation, plan)),
        None => {
            ctx.out.say("nothing was added; what was started was ended again");
            Ok(Step::Detached)
        }
    }
}

async fn go(
    ctx: &Ctx,
    errand: &mut Errand<'_>,
    local: &mut Local,
    fresh: &[Member],
    children: &mut Vec<Spawned>,
    status: &Status,
    plan: PlanView,
) -> Result<(Option<u64>, PlanView), CliError> {
    let started = start_all(local, fresh, children);
    errand.started.extend(children.iter().map(|c| c.process.id.clone()));
    started?;
    if !fresh.is_empty() {
        let progress = Progress::spinner(&ctx.out);
        let settle = Settle::new(&local.members, fresh.to_vec(), Goal::TakesPart, Some(status));
        settle.wait(children, Instant::now() + REGISTERED, &progress).await?;
    }
    errand.apply_latest(plan).await
}

/// Starts these nodes on standby and does not wait for them: for the screen, which sees them come and applies their plan.
pub async fn start_standby(ctx: &Ctx, names: &[NodeId]) -> Result<(), CliError> {
    inherit::close_on_exec();
    let mut local = Local::of(ctx, "`add`")?;
    let _lock = Lock::take(&local.home.lock_path(), "add", &ctx.out, LOCK_WAIT)?;
    // Read under the lock: another command may have changed it meanwhile.
    local = Local::of(ctx, "`add`")?;
    let mut client = link::masters(&local.members.addrs(Role::Master), REGISTERED);
    let status = link::status(&mut client).await.map_err(unanswered)?.status;
    let runs = |m: &Member| local.running.process(&m.id).is_some_and(|p| p.identity.alive());
    let fresh: Vec<Member> = choose(&local.members, &status, None, names)?.into_iter().filter(|m| !runs(m)).collect();
    let before = local.members.clone();
    let mut children = Vec::new();
    let started = start_all(&mut local, &fresh, &mut children);
    if started.is_err() {
        undo(&mut local, before, &mut children);
    }
    spawn::reap(children);
    started
}

fn start_all(local: &mut Local, fresh: &[Member], children: &mut Vec<Spawned>) -> Result<(), CliError> {
    for m in fresh {
        check_ports(m, &local.running)?;
        local.members.members.retain(|old| old.id != m.id);
        local.members.members.push(m.clone());
    }
    local.home.put_members(&local.members)?;
    for m in fresh {
        let child = spawn::spawn(&spawn::this_program(), &local.home, &local.members, m, true)?;
        local.running.put(child.process.clone());
        children.push(child);
        local.home.put_running(&local.running)?;
    }
    Ok(())
}

/// Ends what was started for nothing, and forgets it.
fn undo(local: &mut Local, before: Members, children: &mut Vec<Spawned>) {
    for c in children.iter_mut() {
        c.kill();
        let _ = std::fs::remove_dir_all(local.home.data(&c.process.id));
    }
    local.running.processes.retain(|p| !children.iter().any(|c| c.process.id == p.id));
    children.clear();
    // What cannot be written is caught by start times, and by `up`, which asks who left.
    let _ = local.home.put_running(&local.running);
    let _ = local.home.put_members(&before);
}

/// The members to start, or that run already, for a count or for names.
fn choose(members: &Members, status: &Status, count: Option<usize>, names: &[NodeId]) -> Result<Vec<Member>, CliError> {
    let mut taken: Vec<Member> = members.of(Role::Node).cloned().collect();
    let mut chosen = Vec::new();
    if let Some(count) = count {
        let held = |id: &str, taken: &[Member]| {
            taken.iter().any(|m| m.id == id) || status.nodes.iter().any(|n| n.id == id && lives(n.state))
        };
        for i in 1..=LOCAL_NODES_MAX {
            let zone = rarest_zone(&taken);
            let m = member::node(&format!("n{i}"), members.base_port, i, &zone);
            if chosen.len() < count && !held(&m.id, &taken) && !taken.iter().any(|t| t.addr == m.addr) && free(&m) {
                taken.push(m.clone());
                chosen.push(m);
            }
        }
        return if chosen.len() == count { Ok(chosen) } else { Err(full(members, count, chosen.len())) };
    }
    for name in names {
        if let Some(m) = taken.iter().find(|m| m.id == name.as_str()) {
            chosen.push(m.clone());
            continue;
        }
        if status.nodes.iter().any(|n| n.id == name.as_str() && lives(n.state)) {
            // Somebody started it by hand; it is added as it is.
            continue;
        }
        let own =
            name.as_str().strip_prefix('n').and_then(|i| i.parse().ok()).filter(|i| (1..=LOCAL_NODES_MAX).contains(i));
        let zone = rarest_zone(&taken);
        let fits = |i: &usize| {
            let m = member::node(name.as_str(), members.base_port, *i, &zone);
            !taken.iter().any(|t| t.addr == m.addr)
        };
        // Names of this form keep to their own ports, so that others come after.
        let i = own.filter(fits).or_else(|| {
            (1..=LOCAL_NODES_MAX).rev().filter(fits).find(|i| free(&member::node("x", members.base_port, *i, "")))
        });
        let Some(i) = i else { return Err(full(members, names.len(), chosen.len())) };
        let m = member::node(name.as_str(), members.base_port, i, &zone);
        taken.push(m.clone());
        chosen.push(m);
    }
    Ok(chosen)
}

fn full(members: &Members, wanted: usize, found: usize) -> CliError {
    CliError::failed(
        "NO_PORTS",
        format!("cluster {} has room for {found} more nodes, not for {wanted}", escape(&members.name)),
    )
    .hint(format!("a local cluster has at most {LOCAL_NODES_MAX} nodes; `cachectl remove` makes room"))
}

/// The failure domain with the fewest nodes, of those that are in use.
fn rarest_zone(nodes: &[Member]) -> String {
    let mut zones: BTreeMap<&str, usize> = BTreeMap::new();
    for m in nodes.iter().filter(|m| !m.zone.is_empty()) {
        *zones.entry(&m.zone).or_default() += 1;
    }
    zones.into_iter().min_by_key(|(_, n)| *n).map(|(z, _)| z.to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::status;
    use super::*;

    fn id(name: &str) -> NodeId {
        NodeId::new(name).unwrap()
    }

    /// Three nodes in two zones, the second of them removed; far from ports that anybody uses.
    fn members() -> Members {
        let mut m = Members::new("x", 1100, 1, 1 << 20);
        for (i, zone) in [(1, "a"), (2, "b"), (3, "a")] {
            m.members.push(member::node(&format!("n{i}"), m.base_port, i, zone));
        }
        m.members[1].removed = true;
        m
    }

    fn ids(all: &[Member]) -> Vec<String> {
        all.iter().map(|m| format!("{} {} {}", m.id, m.addr, m.zone)).collect()
    }

    #[test]
    fn new_nodes_take_the_first_free_names_ports_and_the_rarest_zone() {
        let got = choose(&members(), &status(""), Some(2), &[]).unwrap();
        assert_eq!(ids(&got), ["n2 127.0.0.1:1202 a", "n4 127.0.0.1:1204 a"]);
        let mut two = members();
        two.members[1].removed = false;
        two.members[2].zone = "b".into();
        let got = choose(&two, &status(""), Some(1), &[]).unwrap();
        assert_eq!(ids(&got), ["n4 127.0.0.1:1204 a"]);
    }

    #[test]
    fn a_name_keeps_its_ports_and_one_that_runs_is_not_started() {
        let got = choose(&members(), &status(""), None, &[id("n7"), id("n1"), id("other")]).unwrap();
        assert_eq!(got[0].addr, "127.0.0.1:1207");
        assert_eq!(got[1], members().members[0]);
        assert_eq!((got[2].id.as_str(), got[2].addr.as_str()), ("other", "127.0.0.1:1299"));
        let CliError::Failed(exit, f) = choose(&members(), &status(""), Some(98), &[]).unwrap_err() else { panic!() };
        assert_eq!((exit, f.code.as_str()), (Exit::Failed, "NO_PORTS"));
    }

    #[test]
    fn a_count_or_names_not_both() {
        assert_eq!(asked(&[]).unwrap(), (Some(1), vec![]));
        assert_eq!(asked(&[CountOrNode::Count(3)]).unwrap(), (Some(3), vec![]));
        let n = || CountOrNode::Node(id("n4"));
        assert_eq!(asked(&[n(), n()]).unwrap(), (None, vec![id("n4")]));
        assert!(asked(&[n(), CountOrNode::Count(3)]).is_err());
    }
}
