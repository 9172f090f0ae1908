//! `cachectl node`: one cache node in the foreground.

use super::{Ctx, server};
use crate::cli::args::NodeArgs;
use crate::cli::error::{CliError, CmdResult, Exit};
use crate::cli::local::ports::PEER_OFFSET;
use crate::cli::logging;
use crate::node::config::NodeConfig;

/// Runs it until SIGTERM, SIGINT or the cluster's own stop.
pub fn run(ctx: &Ctx, args: &NodeArgs) -> CmdResult {
    let config = config(ctx, args)?;
    logging::start(config.id.as_str(), args.server.log_dir.as_deref(), &args.server.log, ctx.out.color_err())?;
    let shutdown = server::shutdown_signal()?;
    let result = crate::node::cache::run(config, shutdown);
    server::end("node", result)?;
    Ok(Exit::Done)
}

fn config(ctx: &Ctx, args: &NodeArgs) -> Result<NodeConfig, CliError> {
    let listen = server::listen_addr("listen", &args.listen)?;
    let peer_listen = match &args.peer_listen {
        Some(text) => server::listen_addr("peer-listen", text)?,
        None => {
            let port = listen.port().checked_add(PEER_OFFSET).ok_or_else(|| {
                CliError::usage(format!(
                    "port {} leaves no room for the peer port {PEER_OFFSET} above it",
                    listen.port()
                ))
                .hint("say which with --peer-listen")
            })?;
            (listen.ip(), port).into()
        }
    };
    for (flag, addr) in [("listen", listen), ("peer-listen", peer_listen)] {
        server::loopback_only(flag, addr, args.server.insecure_bind)?;
    }
    if listen == peer_listen {
        return Err(CliError::usage(format!("--listen and --peer-listen are both {listen}")));
    }
    let masters = if args.standalone {
        Vec::new()
    } else {
        ctx.reach()
            .map_err(|e| e.hint("say where the masters are with --masters-addr, or --standalone to do without"))?
            .masters
    };
    Ok(NodeConfig {
        data: server::data_dir(args.data.as_ref(), "node", args.id.as_str(), listen)?,
        id: args.id.clone(),
        listen,
        peer_listen,
        announce: args.announce_addr.clone(),
        masters,
        memory: args.memory,
        threads: args.threads,
        zone: args.zone.clone(),
        weight: args.weight,
        eviction: args.eviction,
        standby: args.standby,
        drain_timeout: args.drain_timeout,
        insecure_bind: args.server.insecure_bind,
        standalone: args.standalone,
    })
}
