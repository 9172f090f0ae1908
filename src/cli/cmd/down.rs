//! `cachectl down`: stops a local cluster and leaves no process, socket, lock or pid file behind.

use std::io::IsTerminal;

use serde::Serialize;

use super::Ctx;
use crate::cli::args::DownArgs;
use crate::cli::context::{self, Said};
use crate::cli::error::{CliError, CmdResult, Exit};
use crate::cli::local::lock::{LOCK_WAIT, Lock};
use crate::cli::local::state::{Home, io_error};
use crate::cli::local::{left, stop};

/// Runs it.
pub async fn run(ctx: &Ctx, args: &DownArgs) -> CmdResult {
    let t = &ctx.target;
    if t.said == Said::Flag && !t.masters.is_empty() {
        return Err(CliError::usage("`down` stops a local cluster; --masters-addr means one that runs elsewhere")
            .hint("name a local cluster with --name; `cachectl ls` lists them"));
    }
    let home = Home::of(&t.name)?;
    if !matches!(t.said, Said::Flag | Said::Env) {
        let running: Vec<String> = Home::all()
            .into_iter()
            .filter(|h| h.running().is_ok_and(|r| r.alive().next().is_some()))
            .map(|h| h.name)
            .collect();
        if running.len() > 1 && !std::io::stdin().is_terminal() {
            return Err(CliError::usage(format!("{} clusters run: {}", running.len(), running.join(", ")))
                .hint(format!("say which one: `cachectl down --name {}`", running[0])));
        }
        if home.dir.exists() {
            let why = match t.said {
                Said::File => "the configuration file names it",
                Said::Context => "it is the context",
                _ => "no other is named",
            };
            ctx.out.say(&format!("stopping cluster {} ({why})", home.name));
        }
    }
    if !home.dir.exists() {
        return report(ctx, &home, 0, false);
    }
    stop(ctx, &home, args.purge).await
}

/// Stops a cluster that has a directory, and with `purge` removes that.
pub async fn stop(ctx: &Ctx, home: &Home, purge: bool) -> CmdResult {
    let lock = Lock::take(&home.lock_path(), "down", &ctx.out, LOCK_WAIT)?;
    let running = home.running()?;
    // Later nobody can be asked any more. A record that cannot be read or written is no reason not to stop.
    if let Ok(Some(members)) = home.members() {
        let _ = left::note(home, &members, &running).await;
    }
    let stopped = stop::stop(home, &running, &ctx.out).await?;
    if ctx.out.verbose {
        ctx.out.say(&format!(
            "{} ended by plan, {} by SIGTERM, {} by SIGKILL",
            stopped.by_plan, stopped.by_term, stopped.by_kill
        ));
    }
    let nothing_recorded = matches!(home.members(), Ok(None));
    if purge {
        std::fs::remove_dir_all(&home.dir).map_err(|e| io_error("remove", &home.dir, &e))?;
        context::forget_current(&home.name);
    }
    drop(lock);
    if nothing_recorded {
        // Only what this command itself made is empty and goes.
        let _ = std::fs::remove_dir(&home.dir);
    }
    report(ctx, home, stopped.running, purge)
}

fn report(ctx: &Ctx, home: &Home, processes: usize, purged: bool) -> CmdResult {
    if ctx.out.json() {
        #[derive(Serialize)]
        struct Doc<'a> {
            cluster: &'a str,
            stopped: usize,
            purged: bool,
        }
        ctx.out.document(&Doc { cluster: &home.name, stopped: processes, purged })?;
        return Ok(Exit::Done);
    }
    let name = &home.name;
    ctx.out.say(&match (processes, purged) {
        (0, false) => format!("nothing to stop: no process of cluster {name} runs"),
        (0, true) => format!("no process of cluster {name} ran; its logs and data are removed"),
        (n, true) => format!("cluster {name} is down: {n} processes ended, its logs and data are removed"),
        (n, false) => format!(
            "cluster {name} is down: {n} processes ended; `cachectl up --name {name}` starts it again, `cachectl logs --name {name}` shows what was"
        ),
    });
    Ok(Exit::Done)
}
