//! What a shell may complete: words of the command line, and live names of clusters, nodes, masters and operations.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::time::Duration;

use clap::CommandFactory;
use clap_complete::env::{CompleteEnv, EnvCompleter, Shells};
use clap_complete::{ArgValueCompleter, CompletionCandidate};

use super::args::{Cli, Globals, Shell, cluster_name, host_port};
use super::context::{Target, UserConfig};
use super::link;
use super::local::state::{Home, Members, Role};
use crate::proto::status::Status;

/// The variable by which the shell's script asks.
const VARIABLE: &str = "_CACHECTL_COMPLETE";
/// How long the cluster may take to say its names: a person has pressed Tab and waits.
const ASK: Duration = Duration::from_millis(300);

/// Answers a shell that asks, and ends the process; returns if nobody does.
pub fn answer() {
    if std::env::var_os(VARIABLE).is_some() {
        CompleteEnv::with_factory(Cli::command).var(VARIABLE).complete();
    }
}

/// The script that makes a shell ask.
pub fn script(shell: Shell, program: &str) -> std::io::Result<Vec<u8>> {
    let name = match shell {
        Shell::Bash => "bash",
        Shell::Zsh => "zsh",
        Shell::Fish => "fish",
    };
    let mut script = Vec::new();
    let shells = Shells::builtins();
    let completer: &dyn EnvCompleter = shells.completer(name).ok_or(std::io::ErrorKind::Unsupported)?;
    completer.write_registration(VARIABLE, "cachectl", "cachectl", program, &mut script)?;
    Ok(script)
}

/// Local clusters.
pub fn clusters() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| offer(typed, Home::all().into_iter().map(|h| h.name)))
}

/// Nodes of the cluster that is meant.
pub fn nodes() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| offer(typed, names(&[Role::Node])))
}

/// Its masters.
pub fn masters() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| offer(typed, names(&[Role::Master])))
}

/// Both.
pub fn processes() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| offer(typed, names(&[Role::Master, Role::Node])))
}

/// Its operations, with what they are.
pub fn operations() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        let all = status().map(|s| s.operations).unwrap_or_default();
        let typed = typed.to_string_lossy();
        let matching = all.into_iter().filter(|o| o.id.to_string().starts_with(&*typed));
        // The words come from a master, and go to a terminal.
        let words = |text: &str| super::output::escape(text).into_owned();
        matching
            .map(|o| {
                let help = format!("{} {} {}", words(&o.kind), words(&o.nodes.join(",")), words(&o.state));
                CompletionCandidate::new(o.id.to_string()).help(Some(help.into()))
            })
            .collect()
    })
}

fn offer(typed: &OsStr, names: impl IntoIterator<Item = String>) -> Vec<CompletionCandidate> {
    let typed = typed.to_string_lossy();
    // Only names that can be one: nothing else may reach a shell.
    let fit = |n: &String| n.starts_with(&*typed) && crate::proto::id::NodeId::new(n).is_ok();
    names.into_iter().filter(fit).map(CompletionCandidate::new).collect()
}

/// What is recorded on this machine, and what the masters say.
fn names(roles: &[Role]) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    if let Some(members) = recorded() {
        all.extend(members.active().filter(|m| roles.contains(&m.role)).map(|m| m.id.clone()));
    }
    if let Some(s) = status() {
        if roles.contains(&Role::Node) {
            all.extend(s.nodes.into_iter().map(|n| n.id));
        }
        if roles.contains(&Role::Master) {
            all.extend(s.masters.into_iter().map(|m| m.id));
        }
    }
    all
}

/// The cluster that the line means so far.
fn target() -> Option<Target> {
    let words: Vec<String> = std::env::args().skip_while(|w| w != "--").skip(1).collect();
    let said = |flag: &str| {
        let after = |(i, w): (usize, &String)| match w.strip_prefix(flag)? {
            "" => words.get(i + 1).cloned(),
            rest => rest.strip_prefix('=').map(str::to_owned),
        };
        words.iter().enumerate().rev().find_map(after)
    };
    let masters = said("--masters-addr").map(|m| m.split(',').filter_map(|a| host_port(a).ok()).collect());
    let globals = Globals {
        name: said("--name").and_then(|n| cluster_name(&n).ok()),
        masters_addr: masters.unwrap_or_default(),
        ..Globals::default()
    };
    Target::resolve(&globals, &UserConfig::load().ok()?).ok()
}

fn recorded() -> Option<Members> {
    let target = target()?;
    if target.masters.is_empty() { Home::of(&target.name).ok()?.members().ok()? } else { None }
}

fn status() -> Option<Status> {
    let masters = match recorded() {
        Some(members) => members.addrs(Role::Master),
        None => target()?.masters,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    runtime.block_on(async { link::status(&mut link::once(&masters, ASK)).await.ok().map(|v| v.status) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_begin_so_and_only_harmless_ones() {
        let all = ["n1", "n2", "m1", "n3; rm -rf /", "n4\u{1b}"].map(str::to_owned);
        let got = offer(OsStr::new("n"), all);
        assert_eq!(got.iter().map(|c| c.get_value().to_str().unwrap()).collect::<Vec<_>>(), ["n1", "n2"]);
    }

    #[test]
    fn every_shell_has_a_script_that_asks_this_program() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let text = String::from_utf8(script(shell, "/opt/cachectl").unwrap()).unwrap();
            assert!(text.contains(VARIABLE) && text.contains("/opt/cachectl"), "{text}");
        }
    }
}
