//! Ends a local cluster: by plan where the masters still can, by signal what is left; only what `up` started.

use std::time::Duration;

use rustix::process::Signal;

use super::process::{Identity, wait_gone};
use super::state::{Home, Process, Role, Running};
use crate::cli::error::CliError;
use crate::cli::link;
use crate::cli::output::Out;
use crate::proto::control::{Empty, Message};
use crate::proto::net::client::{ClientError, Repeat};

/// How long the masters may take to accept a planned stop: an election (1 s) and a commit.
const PLAN_ASK: Duration = Duration::from_secs(3);
/// How long the processes may take to end by plan.
const PLAN_END: Duration = Duration::from_secs(4);
/// How long they may take to end after SIGTERM: nobody is left to hand anything over to.
const TERM_END: Duration = Duration::from_secs(2);
/// How long the system may take to end what got SIGKILL; more means that it hangs in the kernel.
const KILL_END: Duration = Duration::from_secs(10);

/// How many processes ended in which way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stopped {
    /// That ran when the stop began.
    pub running: usize,
    /// By the cluster's own plan.
    pub by_plan: usize,
    /// After SIGTERM.
    pub by_term: usize,
    /// After SIGKILL.
    pub by_kill: usize,
}

/// Stops all processes recorded; afterwards none runs, or it is an error.
pub async fn stop(home: &Home, running: &Running, out: &Out) -> Result<Stopped, CliError> {
    let alive: Vec<&Process> = running.alive().collect();
    let ids = |of: &[&Process]| of.iter().map(|p| p.identity.clone()).collect::<Vec<_>>();
    let all = ids(&alive);
    let mut report = Stopped { running: all.len(), ..Stopped::default() };
    let masters: Vec<String> = alive.iter().filter(|p| p.role == Role::Master).map(|p| p.addr.clone()).collect();
    let mut left: Vec<Identity> = all;
    if !masters.is_empty() {
        match link::masters(&masters, PLAN_ASK).request(&Message::ClusterStop(Empty {}), Repeat::Safe).await {
            Ok(_) => left = rest(&left, PLAN_END).await,
            Err(ClientError::Refused(f)) => out.say(&format!("the masters refused to stop the cluster by plan: {f}")),
            // With a majority of the masters gone there is nobody to plan: signals it is.
            Err(_) => left = rest(&left, Duration::ZERO).await,
        }
    }
    report.by_plan = report.running - left.len();
    for (signal, within, count) in
        [(Signal::TERM, TERM_END, &mut report.by_term), (Signal::KILL, KILL_END, &mut report.by_kill)]
    {
        for p in &left {
            match p.signal(signal) {
                // Gone meanwhile.
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(e) => out.warn(&format!("cannot signal pid {}: {e}", p.pid)),
            }
        }
        let before = left.len();
        left = rest(&left, within).await;
        *count = before - left.len();
    }
    if !left.is_empty() {
        let pids: Vec<String> = left.iter().map(|p| p.pid.to_string()).collect();
        return Err(CliError::failed("STILL_RUNNING", format!("pid {} did not end, even by SIGKILL", pids.join(", ")))
            .hint("are they another user's, or stuck on a disk? `down` again when that is over"));
    }
    clean(home, running);
    Ok(report)
}

async fn rest(of: &[Identity], within: Duration) -> Vec<Identity> {
    wait_gone(of.iter(), within).await.into_iter().cloned().collect()
}

/// Removes what only means something while processes run.
fn clean(home: &Home, running: &Running) {
    home.remove_running();
    // Of those that left earlier too; a record that can't be read says nothing of them.
    let members = home.members().ok().flatten().map(|m| m.members).unwrap_or_default();
    let ids = running.processes.iter().map(|p| &p.id).chain(members.iter().map(|m| &m.id));
    for id in ids {
        let _ = std::fs::remove_file(home.data(id).join("lock"));
    }
}
