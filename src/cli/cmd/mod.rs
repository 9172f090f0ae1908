//! One file a command.

pub mod add;
pub mod bench;
pub mod check;
pub mod completion;
pub mod config;
pub mod context;
pub mod del;
pub mod down;
pub mod events;
pub mod follow;
pub mod foreground;
pub mod forget;
pub mod get;
pub mod hand;
pub mod incr;
pub mod kv;
pub mod logs;
pub mod ls;
pub mod man;
pub mod master;
pub mod node;
pub mod ops;
pub mod plan;
pub mod process;
pub mod rebalance;
pub mod remove;
pub mod rolling;
pub mod server;
pub mod set;
pub mod status;
pub mod switchover;
pub mod ttl;
pub mod tui;
pub mod up;
pub mod whereis;

use super::context::{Said, Target, nobody_answers};
use super::error::{CliError, Exit};
use super::local::state::{Home, Members, Role};
use super::names::near_miss;
use super::output::{Color, Out};
use crate::proto::error::Failure;

/// What every command is given.
#[derive(Debug, Clone)]
pub struct Ctx {
    /// Where words go.
    pub out: Out,
    /// Which cluster is meant.
    pub target: Target,
    /// When to colour, as said.
    pub color: Color,
    /// `--yes`.
    pub yes: bool,
}

/// Where a cluster can be asked.
#[derive(Debug, Clone)]
pub struct Reach {
    /// Its name, as far as known.
    pub name: String,
    /// Addresses of masters.
    pub masters: Vec<String>,
    /// Addresses of nodes, as far as recorded.
    pub nodes: Vec<String>,
    /// What is recorded, if it is a local one.
    pub members: Option<Members>,
}

impl Ctx {
    /// The cluster that is meant, or an error if nobody ever started it.
    pub fn reach(&self) -> Result<Reach, CliError> {
        let t = &self.target;
        if !t.masters.is_empty() {
            return Ok(Reach { name: t.name.clone(), masters: t.masters.clone(), nodes: Vec::new(), members: None });
        }
        let Some(members) = Home::of(&t.name)?.members()? else {
            return Err(unknown_cluster(&t.name, t.said));
        };
        Ok(Reach {
            name: t.name.clone(),
            masters: members.addrs(Role::Master),
            nodes: members.addrs(Role::Node),
            members: Some(members),
        })
    }

    /// As [`Ctx::reach`], of a cluster that runs: nobody is asked in vain where this machine's own cluster is known to be stopped.
    pub fn reach_running(&self) -> Result<Reach, CliError> {
        let reach = self.reach()?;
        if reach.members.is_some() && Home::of(&reach.name)?.running()?.alive().next().is_none() {
            let text = format!("the local cluster {} is stopped", reach.name);
            return Err(CliError::Failed(Exit::NotOk, Failure::new("UNREACHABLE", text)).hint(nobody_answers()));
        }
        Ok(reach)
    }
}

/// No local cluster of that name is recorded.
pub fn unknown_cluster(name: &str, said: Said) -> CliError {
    let e = CliError::failed("NO_CLUSTER", format!("there is no local cluster {name}"));
    match said {
        Said::Default | Said::Context => {
            e.hint("`cachectl up` starts one; --masters-addr reaches one that runs elsewhere")
        }
        _ => {
            let all = Home::all();
            match near_miss(name, all.iter().map(|h| h.name.as_str())) {
                Some(near) => e.hint(format!("did you mean {near}? `cachectl ls` lists all")),
                None => e.hint(format!("`cachectl ls` lists them; `cachectl up --name {name}` starts it")),
            }
        }
    }
}
