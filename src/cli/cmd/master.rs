//! `cachectl master`: one master in the foreground.

use super::{Ctx, server};
use crate::cli::args::MasterArgs;
use crate::cli::context::{DEFAULT_NAME, Said};
use crate::cli::error::{CliError, CmdResult, Exit};
use crate::cli::logging;
use crate::node::config::MasterConfig;

/// Runs it until SIGTERM, SIGINT or the cluster's own stop.
pub fn run(ctx: &Ctx, args: &MasterArgs) -> CmdResult {
    let config = config(ctx, args)?;
    logging::start(config.id.as_str(), args.server.log_dir.as_deref(), &args.server.log, ctx.out.color_err())?;
    let shutdown = server::shutdown_signal()?;
    let result = crate::node::master::run(config, server::stopped(shutdown));
    server::end("master", result)?;
    Ok(Exit::Done)
}

fn config(ctx: &Ctx, args: &MasterArgs) -> Result<MasterConfig, CliError> {
    let listen = server::listen_addr("listen", &args.listen)?;
    server::loopback_only("listen", listen, args.server.insecure_bind)?;
    let cluster = match (&args.cluster, ctx.target.said) {
        (Some(name), _) => name.clone(),
        (None, Said::Context | Said::Default) => DEFAULT_NAME.into(),
        (None, _) => ctx.target.name.clone(),
    };
    if !args.peers.is_empty() {
        if !args.peers.iter().any(|(id, _)| *id == args.id) {
            return Err(CliError::usage(format!("--peers does not name this master ({})", args.id))
                .hint(format!("--peers lists all masters, as in m1=HOST:PORT,{}={listen}", args.id)));
        }
        let mut ids: Vec<&str> = args.peers.iter().map(|(id, _)| id.as_str()).collect();
        ids.sort_unstable();
        if ids.windows(2).any(|w| w[0] == w[1]) {
            return Err(CliError::usage("--peers names a master twice"));
        }
        if !matches!(ids.len(), 1 | 3 | 5) {
            return Err(CliError::usage(format!("{} masters: a group is 1, 3 or 5", ids.len())));
        }
    }
    Ok(MasterConfig {
        data: server::data_dir(args.data.as_ref(), "master", args.id.as_str(), listen)?,
        cluster,
        id: args.id.clone(),
        listen,
        peers: args.peers.clone(),
        expect_nodes: args.expect_nodes,
        form_wait: args.form_wait,
        backups: args.backups,
        refused_is_death: args.refused_is_death,
        insecure_bind: args.server.insecure_bind,
    })
}
