//! What the screen may do to the processes of a local cluster: the commands of this program, done for it in silence.

use std::process::{Command, Stdio};
use std::rc::Rc;

use anyhow::{Context, bail};

use super::{Ctx, add};
use crate::cli::error::CliError;
use crate::cli::local::logs::{self, Filter};
use crate::cli::local::spawn::this_program;
use crate::cli::local::state::Home;
use crate::cli::output::escape;
use crate::proto::id::NodeId;
use crate::tui::{Local, LocalAnswer, LocalWish, ProcessAct};

/// Lines of a log that are handed over.
const LOG_LINES: usize = 500;

/// The hand for the cluster that a command means.
pub fn local(ctx: &Ctx) -> Local {
    let mut ctx = ctx.clone();
    // Its words would land on the screen.
    (ctx.out.quiet, ctx.yes) = (true, true);
    Rc::new(move |wish| {
        let ctx = ctx.clone();
        Box::pin(async move { tokio::task::spawn_blocking(move || grant(&ctx, wish)).await? })
    })
}

fn grant(ctx: &Ctx, wish: LocalWish) -> anyhow::Result<LocalAnswer> {
    match wish {
        LocalWish::StartStandby(names) => {
            let names: Vec<NodeId> = names.iter().map(|n| NodeId::new(n)).collect::<Result<_, _>>()?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(add::start_standby(ctx, &names)).map_err(in_words)?;
            Ok(LocalAnswer::Done(String::new()))
        }
        LocalWish::Act(act, who) => run(&ctx.target.name, act, &who).map(LocalAnswer::Done),
        LocalWish::Logs(who) => {
            let home = Home::of(&ctx.target.name).map_err(in_words)?;
            if !logs::processes(&home).contains(&who) {
                bail!("{} has no log here: it was not started from this machine", escape(&who));
            }
            let lines = logs::read(&home, &[who], &Filter { tail: Some(LOG_LINES), ..Filter::default() });
            Ok(LocalAnswer::Lines(lines.into_iter().map(|l| l.text).collect()))
        }
    }
}

fn in_words(e: CliError) -> anyhow::Error {
    match e {
        CliError::Failed(_, f) => anyhow::anyhow!("{f}"),
        CliError::Closed => anyhow::anyhow!("nobody reads what it says"),
    }
}

/// `chaos kill n2` and its like, in a process of its own, as a person would have typed it.
fn run(name: &str, act: ProcessAct, who: &str) -> anyhow::Result<String> {
    let words: &[&str] = match act {
        ProcessAct::Kill => &["chaos", "kill"],
        ProcessAct::Pause => &["chaos", "pause"],
        ProcessAct::Resume => &["chaos", "resume"],
        ProcessAct::Restart => &["restart"],
    };
    let out = Command::new(this_program())
        .args(["--name", name, "--yes", "--color", "never", "--output", "table"])
        .args(words)
        .arg(who)
        .stdin(Stdio::null())
        .output()
        .context("cannot start this program again")?;
    let first = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        escape(text.lines().find(|l| !l.trim().is_empty()).unwrap_or_default()).into_owned()
    };
    if out.status.success() { Ok(first(&out.stdout)) } else { bail!("{}", first(&out.stderr)) }
}
