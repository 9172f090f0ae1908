//! `cachectl tui`: the manager on the screen, or a picture of it.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};

use super::{Ctx, Reach, hand};
use crate::cli::args::TuiArgs;
use crate::cli::context::{self, Said};
use crate::cli::error::{CliError, CmdResult, Exit};
use crate::cli::local::spawn::this_program;
use crate::cli::output::{Color, escape};
use crate::proto::net::watch::{LinkEvent, WatchLink};
use crate::proto::status::WatchView;
use crate::tui::event::Now;
use crate::tui::replay::Player;
use crate::tui::snapshot::snapshot_of;
use crate::tui::{DemoProgress, NoTerminal, StartDemo, TuiOptions};

/// How long a picture waits for its first view; longer than an election.
const FIRST_VIEW: Duration = Duration::from_secs(3);
/// Of what a demo's start prints, this much is read, bytes: one document.
const DEMO_OUTPUT_MAX: u64 = 1 << 20;

/// Runs it.
pub async fn run(ctx: &Ctx, args: &TuiArgs) -> CmdResult {
    if let (Some(screen), Some(file)) = (args.snapshot, &args.replay) {
        let player = Player::open(file, 1).map_err(|e| unplayable(file, &e))?;
        let picture = snapshot_of(player.all(), screen, args.size, args.format, args.theme, args.ascii);
        return ctx.out.line(picture.trim_end_matches('\n')).map(|()| Exit::Done);
    }
    let reach = match ctx.reach() {
        Ok(reach) => Some(reach),
        // A recording needs no cluster.
        Err(_) if args.replay.is_some() => None,
        // Nobody named a cluster and there is none: the start screen says how to get one.
        Err(_) if args.snapshot.is_none() && matches!(ctx.target.said, Said::Default | Said::Context) => None,
        Err(e) => return Err(e),
    };
    if let (Some(screen), Some(reach)) = (args.snapshot, &reach) {
        let views = gather(reach, args.gather).await?;
        let views = views.into_iter().map(|(now, v)| (now, LinkEvent::View(Box::new(v))));
        let picture = snapshot_of(views, screen, args.size, args.format, args.theme, args.ascii);
        return ctx.out.line(picture.trim_end_matches('\n')).map(|()| Exit::Done);
    }
    let program = program(ctx);
    let local = reach.as_ref().filter(|r| r.members.is_some()).map(|_| hand::local(ctx));
    let (masters, cluster) = reach.map_or((Vec::new(), None), |r| (r.masters, Some(r.name)));
    let options = TuiOptions {
        masters,
        cluster,
        read_only: args.read_only,
        ascii: args.ascii,
        theme: args.theme,
        no_color: ctx.color == Color::Never,
        mouse: args.mouse,
        fps: args.fps,
        start_demo: Some(start_demo(ctx.target.name.clone())),
        local,
        program,
        record: args.record.clone(),
        replay: args.replay.clone().map(|file| (file, args.speed)),
        panic_key: std::env::var_os("CACHECTL_TEST_PANIC_KEY").is_some(),
    };
    match crate::tui::run(options).await {
        Ok(()) => Ok(Exit::Done),
        Err(e) if e.is::<NoTerminal>() => Err(CliError::failed("NO_TERMINAL", e.to_string())
            .hint("`cachectl status` and `cachectl status --watch` print without a terminal")),
        Err(e) => Err(e.into()),
    }
}

/// How a command line that means the same cluster begins, wherever it is typed.
fn program(ctx: &Ctx) -> String {
    let t = &ctx.target;
    match (t.masters.is_empty(), t.said) {
        (false, _) => format!("cachectl --masters-addr {}", t.masters.join(",")),
        // What nobody had to say here nobody has to say there.
        (true, Said::Default | Said::Context) => "cachectl".to_owned(),
        (true, _) => format!("cachectl --name {}", t.name),
    }
}

fn unplayable(file: &Path, e: &anyhow::Error) -> CliError {
    CliError::failed("RECORDING", format!("{} can't be played: {e}", file.display()))
        .hint("`cachectl tui --record FILE` makes a recording")
}

/// The views of so long, each with its time; at least one.
async fn gather(reach: &Reach, long: Duration) -> Result<Vec<(Now, WatchView)>, CliError> {
    let mut link = WatchLink::start("cli", reach.masters.iter().cloned());
    let begun = Instant::now();
    let mut views = Vec::new();
    let mut why = String::from("none said anything");
    loop {
        let left = if views.is_empty() { FIRST_VIEW } else { long }.saturating_sub(begun.elapsed());
        match tokio::time::timeout(left, link.recv()).await {
            Ok(LinkEvent::View(view)) => {
                let wall_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
                views.push((Now { mono_ms: begun.elapsed().as_millis() as u64, wall_ms }, *view));
            }
            Ok(LinkEvent::Lost { addr, why: w, .. }) => why = format!("{addr}: {w}"),
            Ok(_) => {}
            Err(_) if views.is_empty() => {
                return Err(CliError::Failed(
                    Exit::NotOk,
                    crate::proto::error::Failure::new("UNREACHABLE", format!("no master answers ({why})")),
                )
                .hint(context::nobody_answers()));
            }
            Err(_) => return Ok(views),
        }
    }
}

/// The start screen's `u`: this program's own `up`, in a process of its own, so that none of its words reach the screen.
fn start_demo(name: String) -> StartDemo {
    Box::new(move |progress| {
        let name = name.clone();
        Box::pin(async move { tokio::task::spawn_blocking(move || up(&name, &progress)).await? })
    })
}

fn up(name: &str, progress: &DemoProgress) -> anyhow::Result<Vec<String>> {
    let mut child = Command::new(this_program())
        .args(["up", "--name", name, "-o", "json", "--color", "never"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start `cachectl up`")?;
    let mut last = String::new();
    // Its words come first, its document at its end: read in this order neither pipe fills up.
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr.take(DEMO_OUTPUT_MAX)).lines() {
            let line = line?;
            if !line.trim().is_empty() {
                last = line;
                progress.say(escape(&last));
            }
        }
    }
    let mut text = String::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(DEMO_OUTPUT_MAX).read_to_string(&mut text)?;
    }
    let status = child.wait()?;
    if !status.success() {
        let message = serde_json::from_str::<serde_json::Value>(&last)
            .ok()
            .and_then(|doc| Some(doc.get("error")?.get("message")?.as_str()?.to_owned()));
        bail!("{}", escape(&message.unwrap_or(last)));
    }
    let doc: serde_json::Value = serde_json::from_str(&text).context("`cachectl up` printed no document")?;
    let masters = doc.get("masters").and_then(|m| m.as_array()).context("`cachectl up` named no masters")?;
    Ok(masters.iter().filter_map(|m| Some(m.get("addr")?.as_str()?.to_owned())).collect())
}
