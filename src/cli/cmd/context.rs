//! `cachectl context`: which cluster commands mean.

use serde::Serialize;

use super::{Ctx, ls, unknown_cluster};
use crate::cli::args::ContextCommand;
use crate::cli::context::{self, Said};
use crate::cli::error::{CmdResult, Exit};
use crate::cli::local::state::Home;

/// Runs it.
pub fn run(ctx: &Ctx, command: Option<&ContextCommand>) -> CmdResult {
    match command {
        None | Some(ContextCommand::Ls) => {
            let exit = ls::run(ctx)?;
            let by = match ctx.target.said {
                Said::Flag => "a flag says so",
                Said::Env => "CACHECTL_NAME or CACHECTL_MASTERS_ADDR says so",
                Said::File => "the configuration file says so",
                Said::Context => "the last `up` or `context use` said so",
                Said::Default => "nobody said otherwise",
            };
            let whom = if ctx.target.masters.is_empty() {
                format!("cluster {}", ctx.target.name)
            } else {
                format!("the cluster of {}", ctx.target.masters.join(", "))
            };
            ctx.out.say(&format!("commands mean {whom}: {by}"));
            Ok(exit)
        }
        Some(ContextCommand::Use { cluster }) => {
            if Home::of(cluster)?.members()?.is_none() {
                return Err(unknown_cluster(cluster, Said::Flag));
            }
            context::choose_current(cluster)?;
            if ctx.out.json() {
                #[derive(Serialize)]
                struct Doc<'a> {
                    context: &'a str,
                }
                ctx.out.document(&Doc { context: cluster })?;
            } else {
                ctx.out.say(&format!("commands now mean cluster {cluster}"));
            }
            Ok(Exit::Done)
        }
    }
}
