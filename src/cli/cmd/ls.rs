//! `cachectl ls`: the local clusters and what runs of them.

use serde::Serialize;

use super::Ctx;
use crate::cli::context;
use crate::cli::error::{CmdResult, Exit};
use crate::cli::local::process::Identity;
use crate::cli::local::state::{Home, Role};
use crate::cli::output::{Table, Tone};

#[derive(Debug, Serialize)]
struct Cluster {
    name: String,
    /// `running`, `partly` (some processes are gone), `stopped` or `damaged`.
    state: &'static str,
    context: bool,
    base_port: Option<u16>,
    masters: usize,
    nodes: usize,
    processes: Vec<Proc>,
    state_dir: String,
}

#[derive(Debug, Serialize)]
struct Proc {
    id: String,
    role: Role,
    addr: String,
    #[serde(flatten)]
    identity: Identity,
    alive: bool,
}

/// Runs it.
pub fn run(ctx: &Ctx) -> CmdResult {
    let out = &ctx.out;
    let all = clusters();
    if out.json() {
        out.document(&all)?;
        return Ok(Exit::Done);
    }
    if all.is_empty() {
        out.say("no local clusters; `cachectl up` starts one");
        return Ok(Exit::Done);
    }
    let mut table = Table::new(&["NAME", "STATE", ">MASTERS", ">NODES", "PORTS", "CONTEXT"]);
    for c in &all {
        let tone = match c.state {
            "running" => Tone::Good,
            "stopped" => Tone::Dim,
            _ => Tone::Warn,
        };
        let up = |role| c.processes.iter().filter(|p| p.role == role && p.alive).count();
        let ports = c.base_port.map(|b| format!("{b}-{}", b + crate::cli::local::ports::BLOCK - 1)).unwrap_or_default();
        table.row(&[
            (&c.name, Some(Tone::Strong)),
            (c.state, Some(tone)),
            (&format!("{}/{}", up(Role::Master), c.masters), None),
            (&format!("{}/{}", up(Role::Node), c.nodes), None),
            (&ports, None),
            (if c.context { "*" } else { "" }, None),
        ]);
    }
    out.raw(table.render(out, "").as_bytes())?;
    Ok(Exit::Done)
}

fn clusters() -> Vec<Cluster> {
    let current = context::current();
    Home::all()
        .into_iter()
        .map(|home| {
            let context = current.as_deref() == Some(&home.name);
            let state_dir = home.dir.display().to_string();
            let (Ok(members), Ok(running)) = (home.members(), home.running()) else {
                return Cluster {
                    name: home.name,
                    state: "damaged",
                    context,
                    base_port: None,
                    masters: 0,
                    nodes: 0,
                    processes: Vec::new(),
                    state_dir,
                };
            };
            let processes: Vec<Proc> = running
                .processes
                .into_iter()
                .map(|p| Proc { alive: p.identity.alive(), id: p.id, role: p.role, addr: p.addr, identity: p.identity })
                .collect();
            let count = |role| members.as_ref().map_or(0, |m| m.of(role).count());
            let (masters, nodes) = (count(Role::Master), count(Role::Node));
            let alive = processes.iter().filter(|p| p.alive).count();
            let state = match alive {
                0 => "stopped",
                n if n >= masters + nodes => "running",
                _ => "partly",
            };
            Cluster {
                name: home.name,
                state,
                context,
                base_port: members.map(|m| m.base_port),
                masters,
                nodes,
                processes,
                state_dir,
            }
        })
        .collect()
}
