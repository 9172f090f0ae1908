//! `cachectl man`: the manual, made of what `--help` says.

use clap::CommandFactory;
use clap_mangen::Man;

use super::Ctx;
use crate::cli::args::{Cli, ManArgs};
use crate::cli::error::{CliError, CmdResult, Exit};
use crate::cli::local::state::io_error;
use crate::cli::names;

/// Runs it.
pub fn run(ctx: &Ctx, args: &ManArgs) -> CmdResult {
    let mut whole = Cli::command();
    whole.build();
    if let Some(dir) = &args.dir {
        std::fs::create_dir_all(dir).map_err(|e| io_error("create", dir, &e))?;
        clap_mangen::generate_to(whole, dir).map_err(|e| io_error("write", dir, &e))?;
        ctx.out.say(&format!("written to {}: `man -M` or `man -l FILE` reads them", dir.display()));
        return Ok(Exit::Done);
    }
    let mut command = &whole;
    for word in &args.command {
        let known: Vec<&str> = command.get_subcommands().filter(|c| !c.is_hide_set()).map(|c| c.get_name()).collect();
        let next = command.get_subcommands().find(|c| c.get_name() == word || c.get_all_aliases().any(|a| a == word));
        command = next.ok_or_else(|| names::unknown("NO_COMMAND", "command", word, known))?;
    }
    let mut page = Vec::new();
    Man::new(command.clone())
        .render(&mut page)
        .map_err(|e| CliError::failed("MAN", format!("cannot write the page: {e}")))?;
    ctx.out.raw(&page)?;
    Ok(Exit::Done)
}
