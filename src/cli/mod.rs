//! The commands of the terminal.

pub mod args;
pub mod bench;
pub mod cluster_file;
pub mod cmd;
pub mod complete;
pub mod context;
pub mod error;
pub mod hosts;
pub mod link;
pub mod local;
pub mod logging;
pub mod masterless;
pub mod names;
pub mod output;
pub mod progress;
pub mod prompt;
pub mod time;
pub mod units;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use self::args::{Cli, Command};
use self::cmd::Ctx;
use self::context::{Target, UserConfig};
use self::error::{CliError, CmdResult, Exit};
use self::output::{Color, Format, Out};

/// Parses, runs, and says how it ended.
pub fn main() -> ExitCode {
    // A shell asks what may come next: answered, and done.
    complete::answer();
    let words: Vec<OsString> = std::env::args_os().collect();
    // What can be known before the line is parsed, so that a usage error has the form that was asked for.
    let guess = guess(&words);
    let (out, result) = match Cli::try_parse_from(&words) {
        Ok(cli) => run(cli, guess),
        Err(e) => (guess, parse_error(&guess, &e)),
    };
    match result {
        Ok(exit) => exit.into(),
        Err(CliError::Closed) => Exit::Done.into(),
        Err(CliError::Failed(exit, failure)) => {
            out.failure(exit, &failure);
            exit.into()
        }
    }
}

fn run(cli: Cli, guess: Out) -> (Out, CmdResult) {
    let g = &cli.globals;
    let config = match UserConfig::load() {
        Ok(config) => config,
        Err(e) => return (guess, Err(e)),
    };
    let format = g.output.or(config.output).unwrap_or_default();
    let color = g.color.or(config.color).unwrap_or_default();
    let out = Out::new(format, color, g.quiet, g.verbose);
    let result =
        Target::resolve(g, &config).and_then(|target| dispatch(cli.command, Ctx { out, target, color, yes: g.yes }));
    (out, result)
}

fn dispatch(command: Option<Command>, ctx: Ctx) -> CmdResult {
    let Some(command) = command else {
        return bare(&ctx.out);
    };
    match command {
        // Servers make their own runtimes.
        Command::Master(a) => cmd::master::run(&ctx, &a),
        Command::Node(a) => cmd::node::run(&ctx, &a),
        Command::Ls => cmd::ls::run(&ctx),
        Command::Context(a) => cmd::context::run(&ctx, a.command.as_ref()),
        Command::Config(a) => cmd::config::run(&ctx, &a.command),
        Command::Completion(a) => cmd::completion::run(&ctx, a.shell),
        Command::Man(a) => cmd::man::run(&ctx, &a),
        other => {
            // One thread: a command waits for the network most of the time, and threads cost its start.
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|e| CliError::failed("RUNTIME", format!("cannot start: {e}")))?;
            runtime.block_on(async {
                match other {
                    Command::Up(a) => cmd::up::run(&ctx, &a).await,
                    Command::Down(a) => cmd::down::run(&ctx, &a).await,
                    Command::Status(a) => cmd::status::run(&ctx, &a).await,
                    Command::Tui(a) => cmd::tui::run(&ctx, &a).await,
                    Command::Add(a) => cmd::add::run(&ctx, &a).await,
                    Command::Remove(a) => cmd::remove::run(&ctx, &a).await,
                    Command::Rebalance(a) => cmd::rebalance::run(&ctx, &a).await,
                    Command::Ops(a) => cmd::ops::run(&ctx, a.command.as_ref()).await,
                    Command::Forget(a) => cmd::forget::run(&ctx, &a).await,
                    Command::Start(a) => cmd::process::start(&ctx, &a).await,
                    Command::Stop(a) => cmd::process::stop(&ctx, &a).await,
                    Command::Restart(a) => cmd::process::restart(&ctx, &a).await,
                    Command::Chaos(a) => cmd::process::chaos(&ctx, &a.command).await,
                    Command::Switchover(a) => cmd::switchover::run(&ctx, &a).await,
                    Command::Get(a) => cmd::get::run(&ctx, &a).await,
                    Command::Set(a) => cmd::set::run(&ctx, &a).await,
                    Command::Del(a) => cmd::del::run(&ctx, &a).await,
                    Command::Ttl(a) => cmd::ttl::run(&ctx, &a).await,
                    Command::Incr(a) => cmd::incr::run(&ctx, &a).await,
                    Command::Where(a) => cmd::whereis::run(&ctx, &a).await,
                    Command::Bench(a) => cmd::bench::run(&ctx, &a).await,
                    Command::Events(a) => cmd::events::run(&ctx, &a).await,
                    Command::Logs(a) => cmd::logs::run(&ctx, &a).await,
                    Command::Check(a) => cmd::check::run(&ctx, &a).await,
                    Command::Master(_)
                    | Command::Node(_)
                    | Command::Ls
                    | Command::Context(_)
                    | Command::Config(_)
                    | Command::Completion(_)
                    | Command::Man(_) => Ok(Exit::Done),
                }
            })
        }
    }
}

/// Nothing was asked for: help, and where to begin.
fn bare(out: &Out) -> CmdResult {
    let help = Cli::command().render_help();
    let text = if out.color_out() { help.ansi().to_string() } else { help.to_string() };
    out.raw(format!("{text}\nTry `cachectl up` to start a local cluster.\n").as_bytes())?;
    Ok(Exit::Done)
}

/// Help and version are no errors; the rest is a usage error, in the form that was asked for.
fn parse_error(out: &Out, e: &clap::Error) -> CmdResult {
    let rendered = e.render();
    if matches!(e.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        let text = if out.color_out() { rendered.ansi().to_string() } else { rendered.to_string() };
        out.raw(text.as_bytes())?;
        return Ok(Exit::Done);
    }
    let (message, hint) = usage_words(&rendered.to_string());
    Err(CliError::usage(message).hint(hint))
}

/// clap says what, a tip, the usage and the way to help in paragraphs; here the first is the error, the rest is the hint.
fn usage_words(text: &str) -> (String, String) {
    let body = text.strip_prefix("error: ").unwrap_or(text).trim();
    let message = body.split("\n\n").next().unwrap_or(body);
    let tip = body.lines().find_map(|l| l.trim().strip_prefix("tip: ")).map(|t| format!("{t}; "));
    let command = body.lines().find_map(|l| l.strip_prefix("Usage: ")).unwrap_or("cachectl");
    let words: Vec<&str> = command.split(' ').take_while(|w| w.starts_with(|c: char| c.is_ascii_lowercase())).collect();
    (message.to_owned(), format!("{}see `{} --help`", tip.unwrap_or_default(), words.join(" ")))
}

/// Reads `-o` and `--color` out of a line that may not parse.
fn guess(words: &[OsString]) -> Out {
    let words: Vec<&str> = words.iter().skip(1).filter_map(|w| w.to_str()).take_while(|w| *w != "--").collect();
    let value = |long: &str, short: &str| {
        words.iter().enumerate().rev().find_map(|(i, w)| {
            let after = |p: &str| w.strip_prefix(p).filter(|_| !p.is_empty());
            if *w == long || (!short.is_empty() && *w == short) {
                words.get(i + 1).map(ToString::to_string)
            } else {
                after(&format!("{long}=")).or_else(|| after(short)).map(|v| v.trim_start_matches('=').to_owned())
            }
        })
    };
    let env = |v: &str| std::env::var(v).ok();
    let format = match value("--output", "-o").or_else(|| env("CACHECTL_OUTPUT")).as_deref() {
        Some("json") => Format::Json,
        _ => Format::Table,
    };
    let color = match value("--color", "").or_else(|| env("CACHECTL_COLOR")).as_deref() {
        Some("always") => Color::Always,
        Some("never") => Color::Never,
        _ => Color::Auto,
    };
    Out::new(format, color, false, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_usage_error_is_one_sentence_and_a_hint() {
        let words = |line: &[&str]| {
            let e = Cli::try_parse_from(std::iter::once("cachectl").chain(line.iter().copied())).unwrap_err();
            usage_words(&e.render().to_string())
        };
        let (message, hint) = words(&["statsu"]);
        assert_eq!(message, "unrecognized subcommand 'statsu'");
        assert!(hint.contains("'status'") && hint.ends_with("see `cachectl --help`"), "{hint}");
        let (message, hint) = words(&["up", "--masters", "2"]);
        assert!(message.ends_with("1, 3 or 5 masters"), "{message}");
        assert_eq!(hint, "see `cachectl --help`");
        let (message, hint) = words(&["get"]);
        assert!(message.contains("<KEY>"), "{message}");
        assert_eq!(hint, "see `cachectl get --help`");
    }

    #[test]
    fn the_form_of_errors_is_known_before_the_line_parses() {
        let json = |line: &str| guess(&line.split(' ').map(OsString::from).collect::<Vec<_>>()).json();
        for line in ["cachectl -o json nope", "cachectl nope --output=json", "cachectl up -ojson", "cachectl x -o=json"]
        {
            assert!(json(line), "{line}");
        }
        for line in ["cachectl nope", "cachectl set k -- -o json", "cachectl -o table nope"] {
            assert!(!json(line), "{line}");
        }
    }
}
