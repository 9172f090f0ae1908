//! `cachectl logs`: what the processes of a local cluster wrote, as one.

use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::{Ctx, unknown_cluster};
use crate::cli::args::LogsArgs;
use crate::cli::error::{CliError, CmdResult, Exit};
use crate::cli::local::logs::{Filter, Follower, Level, Line, processes, read};
use crate::cli::local::state::Home;
use crate::cli::names;
use crate::cli::output::{Out, Tone, escape};
use crate::cli::time::rfc3339;

/// How many lines are shown unless said otherwise: some screens.
const TAIL: usize = 100;
/// How often growing logs are looked at: well below what a person notices.
pub const FOLLOW: Duration = Duration::from_millis(100);

/// Runs it.
pub async fn run(ctx: &Ctx, args: &LogsArgs) -> CmdResult {
    if !ctx.target.masters.is_empty() {
        return Err(CliError::failed("NOT_LOCAL", "only a local cluster's logs are on this machine")
            .hint("look where its processes run, or name a local cluster with --name"));
    }
    let home = Home::of(&ctx.target.name)?;
    let known = processes(&home);
    if known.is_empty() {
        return Err(unknown_cluster(&ctx.target.name, ctx.target.said));
    }
    let who = match args.who.iter().find(|w| !known.contains(w)) {
        Some(w) => {
            return Err(names::unknown("NO_PROCESS", "log of", w, known.iter().map(String::as_str)));
        }
        None if args.who.is_empty() => known,
        None => args.who.clone(),
    };
    let filter = Filter {
        since: args.since.map(|d| rfc3339(SystemTime::now().checked_sub(d).unwrap_or(SystemTime::UNIX_EPOCH))),
        tail: args.tail.or(if args.since.is_some() { None } else { Some(TAIL) }),
        level: args.level,
        grep: args.grep.clone(),
    };
    // Placed before the read: a line between the two would otherwise be lost; now it may come twice at worst.
    let mut follower = Follower::at_end(&home, &who);
    let printer = Printer::new(&who);
    printer.print(&ctx.out, &read(&home, &who, &filter))?;
    if !args.follow {
        return Ok(Exit::Done);
    }
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        tokio::select! {
            _ = &mut interrupt => return Ok(Exit::Detached),
            () = tokio::time::sleep(FOLLOW) => {
                let mut lines = follower.read();
                lines.retain(|l| filter.wants(l));
                printer.print(&ctx.out, &lines)?;
            }
        }
    }
}

/// Prints lines with their process before them.
#[derive(Debug)]
pub struct Printer {
    width: usize,
}

impl Printer {
    /// For these processes.
    pub fn new(who: &[String]) -> Self {
        Self { width: who.iter().map(String::len).max().unwrap_or(0) }
    }

    /// All lines in one write.
    pub fn print(&self, out: &Out, lines: &[Line]) -> Result<(), CliError> {
        if lines.is_empty() {
            return Ok(());
        }
        let mut text = String::new();
        for line in lines {
            if out.json() {
                #[derive(Serialize)]
                struct Doc<'a> {
                    who: &'a str,
                    time: &'a str,
                    level: Level,
                    line: &'a str,
                }
                let doc = Doc { who: &line.who, time: &line.stamp, level: line.level, line: &line.text };
                text.push_str(&serde_json::to_string(&doc).unwrap_or_default());
            } else {
                let who = format!("{:<w$} |", line.who, w = self.width);
                let tone = match line.level {
                    Level::Error => Tone::Bad,
                    Level::Warn => Tone::Warn,
                    _ => Tone::Dim,
                };
                text.push_str(&format!("{} {}", out.paint(tone, &who), escape(&line.text)));
            }
            text.push('\n');
        }
        out.raw(text.as_bytes())
    }
}
