//! `cachectl start`, `stop`, `restart` and `chaos`: single processes of a local cluster.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde::Serialize;

use super::{Ctx, rolling, unknown_cluster};
use crate::cli::args::{ChaosCommand, RestartArgs, StartArgs, StopArgs};
use crate::cli::error::{CliError, CmdResult, Exit};
use crate::cli::link;
use crate::cli::local::inherit;
use crate::cli::local::lock::{LOCK_WAIT, Lock};
use crate::cli::local::member::check_ports;
use crate::cli::local::process::{Identity, wait_gone};
use crate::cli::local::settle::{Goal, Settle};
use crate::cli::local::spawn;
use crate::cli::local::state::{Home, Member, Members, Process, Role, Running};
use crate::cli::names;
use crate::cli::progress::Progress;
use crate::cli::prompt::confirm;
use crate::cli::units::show_ms;
use crate::proto::status::Status;

/// How long the system may take to end or to pause a process that it was told to.
const SIGNALLED: Duration = Duration::from_secs(10);
/// How long the masters may take to say how the cluster is before something is done to it.
const ASK: Duration = Duration::from_secs(2);

/// A local cluster, as recorded.
pub struct Local {
    /// Its directory.
    pub home: Home,
    /// What it consists of.
    pub members: Members,
    /// What `up` started.
    pub running: Running,
}

impl Local {
    /// The one that is meant; it must be on this machine.
    pub fn of(ctx: &Ctx, what: &str) -> Result<Self, CliError> {
        let t = &ctx.target;
        if !t.masters.is_empty() {
            return Err(CliError::failed("NOT_LOCAL", format!("{what} works on local clusters only"))
                .hint("do it where the process runs, or name a local cluster with --name"));
        }
        let home = Home::of(&t.name)?;
        let Some(members) = home.members()? else {
            return Err(unknown_cluster(&t.name, t.said));
        };
        let running = home.running()?;
        Ok(Self { home, members, running })
    }

    /// The members of these names, in this order; an unknown name is an error before anything is done.
    pub fn members_named(&self, who: &[String]) -> Result<Vec<Member>, CliError> {
        let mut all: Vec<Member> = Vec::new();
        for name in who {
            let Some(m) = self.members.members.iter().find(|m| m.id == *name) else {
                let known: Vec<&str> = self.members.active().map(|m| m.id.as_str()).collect();
                return Err(names::unknown("NO_PROCESS", "process", name, known));
            };
            if m.removed {
                return Err(CliError::failed("REMOVED", format!("{name} left cluster {} by plan", self.home.name))
                    .hint(format!("`cachectl add {name}` brings it back")));
            }
            if !all.contains(m) {
                all.push(m.clone());
            }
        }
        Ok(all)
    }

    /// The process of a member, which must run.
    pub fn process(&self, m: &Member) -> Result<Process, CliError> {
        match self.running.process(&m.id) {
            Some(p) if p.identity.alive() => Ok(p.clone()),
            _ => Err(CliError::failed("NOT_RUNNING", format!("{} does not run", m.id))
                .hint(format!("`cachectl start {}` starts it", m.id))),
        }
    }

    /// How the cluster is, if a master says so.
    pub async fn status(&self) -> Option<Status> {
        let mut client = link::masters(&self.members.addrs(Role::Master), ASK);
        link::status(&mut client).await.ok().map(|v| v.status)
    }

    /// Whether these are all nodes that run.
    fn are_all_nodes(&self, who: &[Member]) -> bool {
        let nodes = || self.members.of(Role::Node);
        let runs = |m: &Member| self.running.process(&m.id).is_some_and(|p| p.identity.alive());
        who.iter().any(|m| m.role == Role::Node) && nodes().filter(|m| runs(m)).all(|m| who.contains(m))
    }
}

/// What was done to one process.
#[derive(Debug, Serialize)]
pub struct Done {
    id: String,
    pid: u32,
    ms: u64,
}

fn report(ctx: &Ctx, local: &Local, action: &str, words: &str, all: &[Done]) -> CmdResult {
    if ctx.out.json() {
        #[derive(Serialize)]
        struct Doc<'a> {
            schema: u32,
            cluster: &'a str,
            action: &'a str,
            processes: &'a [Done],
        }
        ctx.out.document(&Doc { schema: 1, cluster: &local.home.name, action, processes: all })?;
    } else {
        for d in all {
            ctx.out.line(&format!("{} (pid {}) {words} in {}", d.id, d.pid, show_ms(d.ms)))?;
        }
    }
    Ok(Exit::Done)
}

/// `chaos`
pub async fn chaos(ctx: &Ctx, command: &ChaosCommand) -> CmdResult {
    let local = Local::of(ctx, "`chaos`")?;
    let (who, signal, action, words) = match command {
        ChaosCommand::Kill(w) => (&w.who, Signal::KILL, "kill", "killed"),
        ChaosCommand::Pause(w) => (&w.who, Signal::STOP, "pause", "paused"),
        ChaosCommand::Resume(w) => (&w.who, Signal::CONT, "resume", "resumed"),
    };
    let all = local.members_named(who)?.iter().map(|m| local.process(m)).collect::<Result<Vec<_>, _>>()?;
    let mut done = Vec::new();
    // All are signalled before any is waited for: faults that shall meet must meet.
    let begun = Instant::now();
    for p in &all {
        send(p, signal)?;
    }
    for p in &all {
        let reached = |id: &Identity| match signal {
            Signal::KILL => !id.alive(),
            Signal::STOP => id.paused() || !id.alive(),
            _ => !id.paused(),
        };
        while !reached(&p.identity) {
            if begun.elapsed() >= SIGNALLED {
                return Err(CliError::timed_out(format!("{} was signalled and is not {words} yet", p.id))
                    .hint("is it stuck on a disk? `cachectl ls -o json` shows its pid"));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        done.push(Done { id: p.id.clone(), pid: p.identity.pid, ms: begun.elapsed().as_millis() as u64 });
    }
    report(ctx, &local, action, words, &done)
}

fn send(p: &Process, signal: Signal) -> Result<(), CliError> {
    p.identity.signal(signal).map_err(|e| match e {
        rustix::io::Errno::SRCH => CliError::failed("NOT_RUNNING", format!("{} has ended meanwhile", p.id))
            .hint(format!("`cachectl start {}` starts it", p.id)),
        e => CliError::failed("SIGNAL", format!("cannot signal {} (pid {}): {e}", p.id, p.identity.pid))
            .hint("is it another user's process?"),
    })
}

/// `stop`
pub async fn stop(ctx: &Ctx, args: &StopArgs) -> CmdResult {
    let local = Local::of(ctx, "`stop`")?;
    let members = local.members_named(&args.who)?;
    let all = members.iter().map(|m| local.process(m)).collect::<Result<Vec<_>, _>>()?;
    sure(ctx, &local, &members, "Stop").await?;
    {
        let _lock = Lock::take(&local.home.lock_path(), "stop", &ctx.out, LOCK_WAIT)?;
        local.home.stopping(&members)?;
    }
    let mut done = Vec::new();
    for p in &all {
        done.push(end(ctx, p, args.timeout).await?);
    }
    report(ctx, &local, "stop", "stopped", &done)
}

/// What only one node holds is lost with it, unless it hands it over in time.
async fn sure(ctx: &Ctx, local: &Local, who: &[Member], verb: &str) -> Result<(), CliError> {
    if !who.iter().any(|m| m.role == Role::Node) {
        return Ok(());
    }
    if local.are_all_nodes(who) {
        let lost = format!("No other node runs: what cluster {} holds is lost.", local.home.name);
        return confirm(ctx, &format!("{lost} {verb} all the same?"));
    }
    match local.status().await.map_or(0, |s| s.slots.solo) {
        0 => Ok(()),
        n => confirm(ctx, &format!("{n} slots have no backup now, and may be lost. {verb} all the same?")),
    }
}

/// SIGTERM, which lets a node hand its slots over and a leading master its leadership; then waits.
pub async fn end(ctx: &Ctx, p: &Process, within: Duration) -> Result<Done, CliError> {
    let begun = Instant::now();
    send(p, Signal::TERM)?;
    if p.identity.paused() {
        // One that stands still would end only once it goes on.
        let _ = p.identity.signal(Signal::CONT);
    }
    let progress = Progress::spinner(&ctx.out);
    /// Between two lines of progress.
    const SHOW: Duration = Duration::from_millis(100);
    loop {
        let left = within.saturating_sub(begun.elapsed());
        if wait_gone(std::iter::once(&p.identity), SHOW.min(left)).await.is_empty() {
            break;
        }
        if left.is_zero() {
            return Err(CliError::timed_out(format!(
                "{} did not end within {}",
                p.id,
                show_ms(within.as_millis() as u64)
            ))
            .hint(format!(
                "it is told to end and may still hand over; `cachectl chaos kill {}` ends it at once",
                p.id
            )));
        }
        progress.show(&format!("{} hands over and ends", p.id));
    }
    Ok(Done { id: p.id.clone(), pid: p.identity.pid, ms: begun.elapsed().as_millis() as u64 })
}

/// `start`
pub async fn start(ctx: &Ctx, args: &StartArgs) -> CmdResult {
    let local = Local::of(ctx, "`start`")?;
    let all = local.members_named(&args.who)?;
    if local.running.alive().next().is_none() {
        return Err(CliError::failed("NOT_RUNNING", format!("nothing of cluster {} runs", local.home.name))
            .hint(format!("`cachectl up --name {}` starts all of it", local.home.name)));
    }
    let mut missing = Vec::new();
    for m in all {
        if local.process(&m).is_ok() {
            ctx.out.say(&format!("{} runs already", m.id));
        } else {
            missing.push(m);
        }
    }
    let before = local.status().await;
    let done = begin(ctx, &local, missing, Goal::TakesPart, before.as_ref(), args.timeout).await?;
    report(ctx, &local, "start", "started", &done)
}

/// Starts these and waits until they take part, or until the cluster is ok with them.
pub async fn begin(
    ctx: &Ctx,
    local: &Local,
    who: Vec<Member>,
    goal: Goal,
    before: Option<&Status>,
    within: Duration,
) -> Result<Vec<Done>, CliError> {
    if who.is_empty() {
        return Ok(Vec::new());
    }
    inherit::close_on_exec();
    let began = Instant::now();
    let lock = Lock::take(&local.home.lock_path(), "start", &ctx.out, LOCK_WAIT)?;
    // Read again under the lock: another command may have started it meanwhile.
    let mut running = local.home.running()?;
    let mut children = Vec::new();
    for m in &who {
        if running.process(&m.id).is_some_and(|p| p.identity.alive()) {
            continue;
        }
        check_ports(m, &running)?;
        let child = spawn::spawn(&spawn::this_program(), &local.home, &local.members, m, false)?;
        running.put(child.process.clone());
        children.push(child);
        local.home.put_running(&running)?;
    }
    local.home.begun(&who.iter().collect::<Vec<_>>())?;
    drop(lock);
    let progress = Progress::spinner(&ctx.out);
    let settle = Settle::new(&local.members, who.clone(), goal, before);
    settle.wait(&mut children, began + within, &progress).await?;
    drop(progress);
    let ms = began.elapsed().as_millis() as u64;
    let pid = |m: &Member| running.process(&m.id).map_or(0, |p| p.identity.pid);
    Ok(who.iter().map(|m| Done { id: m.id.clone(), pid: pid(m), ms }).collect())
}

/// `restart`
pub async fn restart(ctx: &Ctx, args: &RestartArgs) -> CmdResult {
    let local = Local::of(ctx, "`restart`")?;
    if args.rolling {
        let done = rolling::run(ctx, &local, args.timeout).await?;
        return report(ctx, &local, "restart", "restarted", &done);
    }
    let all = local.members_named(&args.who)?;
    let mut done = Vec::new();
    for (i, m) in all.iter().enumerate() {
        sure(ctx, &local, std::slice::from_ref(m), "Restart").await?;
        // The next one only once this one's copies are where they belong.
        let goal = if i + 1 < all.len() { Goal::Ok } else { Goal::TakesPart };
        done.push(again(ctx, &local, m, goal, args.timeout).await?);
    }
    report(ctx, &local, "restart", "restarted", &done)
}

/// Ends one, if it runs, and starts it.
pub async fn again(ctx: &Ctx, local: &Local, m: &Member, goal: Goal, within: Duration) -> Result<Done, CliError> {
    let begun = Instant::now();
    let before = local.status().await;
    let running = local.home.running()?;
    if let Some(p) = running.process(&m.id).filter(|p| p.identity.alive()) {
        end(ctx, p, within).await?;
    }
    let mut done = begin(ctx, local, vec![m.clone()], goal, before.as_ref(), within).await?;
    let mut one = done.pop().ok_or_else(|| CliError::failed("BUG", "nothing was started"))?;
    one.ms = begun.elapsed().as_millis() as u64;
    Ok(one)
}
