//! `cachectl up --foreground`: all logs on the terminal until Ctrl-C, which is `down`.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::logs::{FOLLOW, Printer};
use super::{Ctx, down};
use crate::cli::error::{CliError, CmdResult, Exit};
use crate::cli::local::logs::{Filter, Follower, processes, read};
use crate::cli::local::spawn::Spawned;
use crate::cli::local::state::Home;

/// The signals that ask this command to end: Ctrl-C, `kill`, and the loss of its terminal.
pub struct Stop([Signal; 3]);

impl Stop {
    /// From now on they no longer end the process.
    pub fn watch() -> Result<Self, CliError> {
        let one = |kind| signal(kind).map_err(|e| CliError::failed("SIGNALS", format!("cannot watch signals: {e}")));
        Ok(Self([one(SignalKind::interrupt())?, one(SignalKind::terminate())?, one(SignalKind::hangup())?]))
    }

    /// Resolves when one of them came.
    pub async fn asked(&mut self) {
        let [a, b, c] = &mut self.0;
        tokio::select! {
            _ = a.recv() => {}
            _ = b.recv() => {}
            _ = c.recv() => {}
        }
    }
}

/// Runs until a signal or until nothing of the cluster runs.
pub async fn run(ctx: &Ctx, home: &Home, mut children: Vec<Spawned>) -> CmdResult {
    let mut stop = Stop::watch()?;
    let who = processes(home);
    let mut follower = Follower::at_end(home, &who);
    let printer = Printer::new(&who);
    ctx.out.say("all logs follow; Ctrl-C stops the cluster\n");
    /// Lines of the start that are shown first.
    const TAIL: usize = 20;
    let first = read(home, &who, &Filter { tail: Some(TAIL), ..Filter::default() });
    let mut shown = printer.print(&ctx.out, &first);
    let mut running = home.running()?;
    loop {
        tokio::select! {
            () = stop.asked() => break,
            () = tokio::time::sleep(FOLLOW) => {}
        }
        if shown.is_ok() {
            shown = printer.print(&ctx.out, &follower.read());
        }
        // Waited for, so that none stays behind as a zombie of this process.
        children.retain_mut(|c| match c.ended() {
            Some(how) => {
                ctx.out.warn(&format!("{} ended ({how}); `cachectl up` starts it again", c.process.id));
                false
            }
            None => true,
        });
        if running.alive().next().is_none() {
            // Another `up` may have started them anew; a `down` elsewhere has not.
            running = home.running()?;
            if running.alive().next().is_none() {
                ctx.out.say(&format!("nothing of cluster {} runs any more", home.name));
                return Ok(Exit::Done);
            }
        }
    }
    ctx.out.say("");
    let result = down::stop(ctx, home, false).await;
    let _ = printer.print(&ctx.out, &follower.read());
    for c in &mut children {
        c.ended();
    }
    result
}
