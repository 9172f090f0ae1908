//! What a server process is told at its start; the CLI fills it in from flags, environment and file.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use super::cache::store::Eviction;
use crate::proto::id::{MasterId, NodeId};

/// One master.
#[derive(Debug, Clone)]
pub struct MasterConfig {
    /// The cluster's name, shown to people; the id is drawn by the first leader.
    pub cluster: String,
    /// Its name.
    pub id: MasterId,
    /// Where it listens: nodes, operators and other masters, all on this port.
    pub listen: SocketAddr,
    /// All masters, itself among them: name and host:port. One master may give none.
    pub peers: Vec<(MasterId, String)>,
    /// Its state directory: Raft log, vote, snapshots, lock.
    pub data: PathBuf,
    /// How many nodes shall register before slots are handed out for the first time; after `form_wait` fewer do.
    pub expect_nodes: usize,
    /// See `expect_nodes`.
    pub form_wait: Duration,
    /// Backups per slot of a new cluster: 0 or 1.
    pub backups: u8,
    /// A refused connection at a node's peer address proves that its process is gone (PROTOCOL 7).
    pub refused_is_death: bool,
    /// Listens beyond loopback on the operator's word.
    pub insecure_bind: bool,
}

/// One cache node.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Its name.
    pub id: NodeId,
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where peers connect.
    pub peer_listen: SocketAddr,
    /// The host others reach it by, if not the one it listens on.
    pub announce: Option<String>,
    /// Masters to register with, host:port; empty = `standalone`.
    pub masters: Vec<String>,
    /// Its state directory: lock, home id.
    pub data: PathBuf,
    /// Bytes that keys, values and overhead of both LRUs may take together.
    pub memory: u64,
    /// Data-path threads.
    pub threads: usize,
    /// Failure domain; empty if none.
    pub zone: String,
    /// Share of slots relative to the others.
    pub weight: f64,
    /// Who goes when memory is short.
    pub eviction: Eviction,
    /// Hold nothing until added by name.
    pub standby: bool,
    /// How long SIGTERM may drain.
    pub drain_timeout: Duration,
    /// Listens beyond loopback on the operator's word.
    pub insecure_bind: bool,
    /// No masters, all slots, no backup.
    pub standalone: bool,
}

impl NodeConfig {
    /// Client and peer address as others reach them, host:port.
    pub fn announced(&self) -> (String, String) {
        let at = |listen: SocketAddr| match &self.announce {
            Some(host) if host.contains(':') => format!("[{host}]:{}", listen.port()),
            Some(host) => format!("{host}:{}", listen.port()),
            None => listen.to_string(),
        };
        (at(self.listen), at(self.peer_listen))
    }
}

#[cfg(test)]
impl NodeConfig {
    /// One that runs nowhere yet.
    pub fn example(id: NodeId) -> Self {
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            id,
            listen: anywhere,
            peer_listen: anywhere,
            announce: None,
            masters: Vec::new(),
            data: "unused".into(),
            memory: 64 << 20,
            threads: 1,
            zone: String::new(),
            weight: 1.0,
            eviction: Eviction::default(),
            standby: false,
            drain_timeout: Duration::from_secs(25),
            insecure_bind: false,
            standalone: false,
        }
    }
}
