//! `cachectl config check`: reads a file as the commands do that use it, and says what it comes to.

use std::path::Path;

use serde::Serialize;

use super::Ctx;
use crate::cli::args::ConfigCommand;
use crate::cli::cluster_file::{self, ClusterFile};
use crate::cli::context::{self, UserConfig};
use crate::cli::error::{CliError, CmdResult, Exit};
use crate::cli::hosts::{self, Process};
use crate::cli::names::unknown;

#[derive(Debug, Serialize)]
struct Doc<'a> {
    schema: u32,
    file: String,
    /// `cluster` or `user`.
    kind: &'a str,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<ClusterFile>,
    /// What runs on which host, and how it is started.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    processes: Vec<Process>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// Runs it.
pub fn run(ctx: &Ctx, command: &ConfigCommand) -> CmdResult {
    let ConfigCommand::Check { file, env } = command;
    let text = std::fs::read_to_string(file).map_err(|e| {
        CliError::usage(format!("cannot read {}: {e}", file.display())).hint("name a file that is there")
    })?;
    let path = file.display().to_string();
    if is_users(&text) {
        UserConfig::parse(&text, file)?;
        let (processes, warnings) = (Vec::new(), Vec::new());
        let doc = Doc { schema: 1, file: path, kind: "user", ok: true, cluster: None, processes, warnings };
        return tell(ctx, &doc, "a configuration file for commands");
    }
    let cluster = ClusterFile::parse(&text, file)?;
    let words = cluster.words();
    let (processes, warnings) = (hosts::processes(&cluster), hosts::warnings(&cluster));
    if let Some(who) = env {
        return environment(ctx, &processes, who);
    }
    tell(
        ctx,
        &Doc { schema: 1, file: path, kind: "cluster", ok: true, cluster: Some(cluster), processes, warnings },
        &words,
    )
}

/// What systemd's EnvironmentFile= and a container's --env-file read.
fn environment(ctx: &Ctx, processes: &[Process], who: &str) -> CmdResult {
    let Some(p) = processes.iter().find(|p| p.id == who) else {
        let e = unknown("NO_PROCESS", "process", who, processes.iter().map(|p| p.id.as_str()));
        return Err(if processes.is_empty() { e.hint("only a file with [[hosts]] says what runs where") } else { e });
    };
    if ctx.out.json() {
        ctx.out.document(&p.env)?;
    } else {
        p.env.iter().try_for_each(|(name, value)| ctx.out.line(&format!("{name}={value}")))?;
    }
    Ok(Exit::Done)
}

/// Only the user's configuration has these; a key that both have says nothing.
fn is_users(text: &str) -> bool {
    let table: toml::Table = toml::from_str(text).unwrap_or_default();
    let only = |key: &str| context::USER_KEYS.contains(&key) && !cluster_file::KEYS.contains(&key);
    table.keys().any(|k| only(k)) && !table.keys().any(|k| cluster_file::KEYS.contains(&k.as_str()) && k != "name")
}

fn tell(ctx: &Ctx, doc: &Doc<'_>, words: &str) -> CmdResult {
    if ctx.out.json() {
        ctx.out.document(doc)?;
    } else {
        ctx.out.line(&format!("{} is ok: {words}", Path::new(&doc.file).display()))?;
        for p in &doc.processes {
            ctx.out.line(&format!("{}: {}", p.host, p.command.join(" ")))?;
        }
        doc.warnings.iter().for_each(|w| ctx.out.warn(w));
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_follows_from_the_keys() {
        assert!(is_users("output = 'json'\nname = 'x'\n"));
        assert!(!is_users("name = 'x'\n"));
        assert!(!is_users("nodes = 3\noutput = 'json'\n"));
        assert!(!is_users("nodes = \n"));
    }
}
