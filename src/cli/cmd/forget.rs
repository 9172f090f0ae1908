//! `cachectl forget`: gives up on a dead node; what only it held is lost, on the operator's word.

use serde::Serialize;

use super::Ctx;
use super::plan::ASK;
use crate::cli::args::ForgetArgs;
use crate::cli::error::{CliError, CmdResult, Exit};
use crate::cli::link::{self, unanswered};
use crate::cli::names;
use crate::cli::prompt::confirm;
use crate::proto::control::{Forget, Message};
use crate::proto::net::client::Repeat;

/// Runs it.
pub async fn run(ctx: &Ctx, args: &ForgetArgs) -> CmdResult {
    let reach = ctx.reach_running()?;
    let node = &args.node;
    let mut client = link::masters(&reach.masters, ASK);
    let status = link::status(&mut client).await.map_err(unanswered)?.status;
    if !status.nodes.iter().any(|n| n.id == node.as_str()) {
        let known: Vec<&str> = status.nodes.iter().map(|n| n.id.as_str()).collect();
        return Err(names::unknown("NO_SUCH_NODE", "node", node.as_str(), known));
    }
    if !args.accept_data_loss {
        return Err(CliError::refused("DATA_LOSS", format!("what only {node} holds would be lost"))
            .hint(format!("if it never comes back: `cachectl forget {node} --accept-data-loss`")));
    }
    confirm(ctx, &format!("Forget {node}, and what only it holds?"))?;
    let order = Message::Forget(Forget { node: node.clone(), accept_data_loss: true });
    client.request(&order, Repeat::Safe).await.map_err(unanswered)?;
    let lost_before = status.slots.lost_total;
    let after = link::status(&mut client).await.map_err(unanswered)?.status;
    let lost = after.slots.lost_total.saturating_sub(lost_before);
    if ctx.out.json() {
        #[derive(Serialize)]
        struct Doc<'a> {
            schema: u32,
            node: &'a str,
            forgotten: bool,
            slots_lost: u64,
            slots_orphan: u64,
        }
        ctx.out.document(&Doc {
            schema: 1,
            node: node.as_str(),
            forgotten: true,
            slots_lost: lost,
            slots_orphan: after.slots.orphan,
        })?;
    } else {
        ctx.out.line(&format!("{node} is forgotten"))?;
        ctx.out.say(&match after.slots.orphan {
            0 => format!("{lost} slots were handed out empty; `cachectl events` tells which"),
            n => format!("{n} slots have no holder yet; `cachectl status` shows when they serve again"),
        });
    }
    Ok(Exit::Done)
}
