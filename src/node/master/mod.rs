//! A master: Raft decides what happened (`state`), the leader's brain decides what shall happen next.
//!
//! ```text
//!  sockets, timers ──Event──▶ brain ──Command::Propose──▶ Raft ──Entry──▶ state (on every master)
//!   (api)  (runtime)           ▲                                            │
//!      ▲                       └────────────── Proposed, Applied ◀──────────┤
//!      └──────────────────── views, configurations, who leads (feed) ◀──────┘
//! ```

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, bail};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use self::api::Hub;
use self::brain::{Brain, BrainParams};
use self::feed::Feed;
use self::peers::Roll;
use self::raft::{Consensus, Options, SNAPSHOT_EVERY};
use self::runtime::{Ended, Runtime};
use crate::node::clock::Mono;
use crate::node::config::MasterConfig;
use crate::node::home::Home;
use crate::proto::id::MasterId;

mod api;
pub mod brain;
pub mod entry;
pub mod evidence;
mod feed;
pub mod heartbeat;
mod metrics;
pub mod moves;
pub mod operation;
mod peers;
pub mod raft;
pub mod report;
mod runtime;
pub mod state;
#[cfg(test)]
mod tests;

/// Messages waiting for the runtime's task; a connection whose message finds no room is not read on meanwhile.
const INBOX: usize = 4096;

/// Runs a master until `shutdown`, until the cluster is stopped by plan, or until its disk fails; blocks.
///
/// All tasks share one thread, but a plan (`operation::target`) leaves them to another one while it is made: however long it takes,
/// and however little CPU there is for it, the other masters hear of their leader meanwhile. A leader whose first plan took a
/// second was voted out before it could propose it, and so was the next one, for ever.
pub fn run(config: MasterConfig, shutdown: impl Future<Output = ()> + Send + 'static) -> anyhow::Result<()> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime =
        builder.worker_threads(1).thread_name("master").enable_all().build().context("can't start threads")?;
    let master = async move {
        let listener = TcpListener::bind(config.listen);
        let listener = listener.await.with_context(|| format!("can't listen on {}", config.listen))?;
        run_on(listener, config, shutdown).await
    };
    runtime.block_on(runtime.spawn(master)).context("the master's task ended badly")?
}

/// As [`run`] where a runtime is there already, on a listener that is bound; `config.listen` is not looked at.
pub async fn run_on(
    listener: TcpListener,
    config: MasterConfig,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let listen = listener.local_addr().context("the listener has no address")?;
    raise_descriptors();
    // Held until the end: two processes on one log would each believe that they are this master.
    let _home = Home::open(&config.data)?;
    let peers = match config.peers.is_empty() {
        true => vec![(config.id.clone(), listen.to_string())],
        false => config.peers.clone(),
    };
    let options = Options {
        me: config.id.clone(),
        peers: peers.clone(),
        dir: config.data.clone(),
        snapshot_every: SNAPSHOT_EVERY,
    };
    let raft = Consensus::start(options).await?;
    tracing::info!(master = %config.id, %listen, "master starts");
    let warnings = exposed(&config.id, listen);
    let (inbox, mut inputs) = mpsc::channel(INBOX);
    let (closing, closed) = watch::channel(false);
    let feed = Feed::new(config.id.clone(), raft.clone(), peers.clone());
    let hub = Arc::new(Hub { raft: raft.clone(), feed, inbox, ready: AtomicBool::new(false), closing: closed });
    let serving = tokio::spawn(api::serve(listener, hub.clone()));
    let roll = Roll::default();
    let calling = tokio::spawn(roll.clone().call(raft.clone()));
    let brain = Brain::new(params(&config, &peers), Mono::now());
    let mut runtime = Runtime::new(config.id.clone(), brain, hub, roll, warnings);
    let end = tokio::select! {
        end = runtime.run(&mut inputs) => Some(end),
        () = shutdown => None,
    };
    if end.is_none() {
        // Nobody reads what comes in any more, but a full inbox would stop Raft's lines behind it.
        tokio::select! {
            () = runtime.farewell() => {}
            _ = async { while inputs.recv().await.is_some() {} } => {}
        }
    }
    closing.send_replace(true);
    drop(inputs);
    if let Err(e) = serving.await {
        tracing::error!(error = %e, "the accepting task ended badly");
    }
    calling.abort();
    raft.shutdown().await;
    match end {
        Some(Ended::RaftStopped(why)) => bail!("this master can't go on: {why}"),
        Some(Ended::ByPlan) => tracing::info!(master = %config.id, "stopped by plan"),
        None => tracing::info!(master = %config.id, "master ends"),
    }
    Ok(())
}

fn params(config: &MasterConfig, peers: &[(MasterId, String)]) -> BrainParams {
    let host = |addr: &str| addr.rsplit_once(':').map_or_else(String::new, |(host, _)| host.to_owned());
    let mine = peers.iter().find(|(id, _)| *id == config.id).map(|(_, addr)| host(addr));
    let others = peers.iter().filter(|(id, _)| *id != config.id);
    BrainParams {
        me: config.id.clone(),
        others: others.map(|(id, addr)| (id.clone(), Some(host(addr)) != mine)).collect(),
        cluster: config.cluster.clone(),
        backups: config.backups,
        expect_nodes: config.expect_nodes,
        form_wait_ms: u64::try_from(config.form_wait.as_millis()).unwrap_or(u64::MAX),
        refused_is_death: config.refused_is_death,
    }
}

/// What `status` shows of a master that strangers can reach.
fn exposed(me: &MasterId, listen: SocketAddr) -> Vec<String> {
    if listen.ip().is_loopback() {
        return Vec::new();
    }
    let warning = format!("{me} listens beyond loopback without authentication");
    tracing::warn!(%listen, "{warning}");
    vec![warning]
}

/// Every node, watcher and master is a descriptor, and the usual soft limit is below the number of connections allowed.
fn raise_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(e) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(error = %e, "the limit of open files stays as it is");
    }
}
