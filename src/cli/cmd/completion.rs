//! `cachectl completion`: the script with which a shell asks this program what may come next.

use super::Ctx;
use crate::cli::args::Shell;
use crate::cli::complete;
use crate::cli::error::{CliError, CmdResult, Exit};

/// Runs it.
pub fn run(ctx: &Ctx, shell: Shell) -> CmdResult {
    // Found by PATH when it was now, so that the script outlives an upgrade.
    let called = std::env::args().next().unwrap_or_default();
    let program = match called.contains('/') {
        true => std::env::current_exe().map_or(called, |p| p.display().to_string()),
        false => "cachectl".into(),
    };
    let script = complete::script(shell, &program)
        .map_err(|e| CliError::failed("COMPLETION", format!("no script for this shell: {e}")))?;
    ctx.out.raw(&script)?;
    Ok(Exit::Done)
}
