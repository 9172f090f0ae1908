//! Whom the load goes to: the nodes, who serves which slot, and looking again when that changed.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::codec::Protocol;
use super::stats::lock;
use crate::cli::error::{CliError, Exit};
use crate::proto::error::Failure;
use crate::proto::net::cache::SlotMap;
use crate::proto::net::resp_conn::{RespConn, RespError};
use crate::proto::slot::{SLOTS, Slot};
use crate::proto::value::Value;

/// How long a server may take to accept a connection or to say who serves what.
const ASK: Duration = Duration::from_secs(2);
/// Nodes that are taken in at most: more than any cluster has, fewer than a hostile server can name.
const NODES_MAX: usize = 1024;

/// What workers share of the servers.
#[derive(Debug)]
pub struct Target {
    table: Mutex<Table>,
    version: AtomicU64,
    /// A worker found the table wrong or a node gone.
    pub stale: AtomicBool,
    /// Keys are spread over slots.
    pub cluster: bool,
    /// What the server calls itself.
    pub server: String,
    /// Asked first.
    seeds: Vec<String>,
}

/// The nodes, in the order they became known, and the owner of each slot.
#[derive(Debug, Clone, Default)]
pub struct Table {
    /// host:port as announced, and resolved.
    pub nodes: Vec<(String, SocketAddr)>,
    /// By slot; [`NOBODY`] where nobody serves it. Empty for a single server.
    pub owners: Vec<u16>,
}

/// A slot that nobody serves.
pub const NOBODY: u16 = u16::MAX;

impl Table {
    fn intern(&mut self, addr: &str) -> Option<u16> {
        if let Some(i) = self.nodes.iter().position(|(a, _)| a == addr) {
            return u16::try_from(i).ok();
        }
        let resolved = addr.to_socket_addrs().ok()?.next()?;
        if self.nodes.len() >= NODES_MAX {
            return None;
        }
        self.nodes.push((addr.to_owned(), resolved));
        u16::try_from(self.nodes.len() - 1).ok()
    }

    /// Who serves a key.
    pub fn owner(&self, key: &[u8]) -> u16 {
        if self.owners.is_empty() { 0 } else { self.owners[Slot::of_key(key).ix()] }
    }

    /// Whether a node serves anything.
    pub fn serves(&self, node: u16) -> bool {
        self.owners.is_empty() || self.owners.contains(&node)
    }
}

/// How servers are to be spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As the server says.
    Auto,
    /// By slots.
    Cluster,
    /// All keys to one.
    Single,
}

impl Target {
    /// Asks the servers who they are.
    pub async fn find(seeds: Vec<String>, form: Form, protocol: Protocol) -> Result<Self, CliError> {
        let mut why = "no address".to_owned();
        for seed in &seeds {
            match ask(seed, form, protocol).await {
                Ok((table, cluster, server)) => {
                    return Ok(Self {
                        table: Mutex::new(table),
                        version: AtomicU64::new(1),
                        stale: AtomicBool::new(false),
                        cluster,
                        server,
                        seeds,
                    });
                }
                Err(e) => why = format!("{seed}: {e}"),
            }
        }
        Err(CliError::Failed(Exit::NotOk, Failure::new("UNREACHABLE", format!("no server to load: {why}")))
            .hint("`cachectl up` starts a cluster; --addr HOST:PORT means another server"))
    }

    /// The table as it is.
    pub fn table(&self) -> Table {
        lock(&self.table).clone()
    }

    /// Rises when the table changes.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// A server named the owner of a slot; its number in the table.
    pub fn moved(&self, slot: u16, addr: &str, for_good: bool) -> Option<u16> {
        let mut table = lock(&self.table);
        let before = table.nodes.len();
        let node = table.intern(addr)?;
        let mut changed = table.nodes.len() != before;
        if for_good && let Some(owner) = table.owners.get_mut(usize::from(slot)) {
            changed |= std::mem::replace(owner, node) != node;
        }
        if changed {
            self.version.fetch_add(1, Ordering::Release);
        }
        Some(node)
    }

    /// Looks again who serves what; asks whoever answers.
    pub async fn look_again(&self) {
        if !self.cluster {
            return;
        }
        let known = self.table().nodes.into_iter().map(|(a, _)| a);
        for addr in self.seeds.clone().into_iter().chain(known) {
            let Ok(map) = slots(&addr).await else { continue };
            let mut table = lock(&self.table);
            if fill(&mut table, &map) {
                self.version.fetch_add(1, Ordering::Release);
            }
            return;
        }
    }

    /// Keys evicted so far, over all nodes that say so.
    pub async fn evicted(&self) -> u64 {
        let mut sum = 0;
        for (addr, _) in self.table().nodes {
            sum += info(&addr, "stats").await.and_then(|text| field(&text, "evicted_keys")?.parse().ok()).unwrap_or(0);
        }
        sum
    }
}

/// Puts the owners of a map in place; whether anything changed.
fn fill(table: &mut Table, map: &SlotMap) -> bool {
    let owners = (0..SLOTS as u16)
        .map(|s| map.primary(Slot(s)).and_then(|p| table.intern(&p.addr)).unwrap_or(NOBODY))
        .collect::<Vec<_>>();
    let changed = owners != table.owners;
    table.owners = owners;
    changed
}

async fn ask(seed: &str, form: Form, protocol: Protocol) -> Result<(Table, bool, String), String> {
    let mut table = Table::default();
    if protocol == Protocol::Memcached {
        RespConn::connect(seed, ASK).await.map_err(|e| e.to_string())?;
        table.intern(seed).ok_or("can't be resolved")?;
        return Ok((table, false, "memcached".into()));
    }
    let text = info(seed, "server").await;
    let server = match text
        .as_deref()
        .map(|t| (field(t, "cachectl_version"), field(t, "valkey_version"), field(t, "redis_version")))
    {
        Some((Some(v), _, _)) => format!("cachectl {v}"),
        Some((_, Some(v), _)) => format!("valkey {v}"),
        Some((_, _, Some(v))) => format!("redis {v}"),
        _ => "unknown".into(),
    };
    let cluster = match form {
        Form::Single => false,
        Form::Cluster => true,
        Form::Auto => info(seed, "cluster").await.is_some_and(|t| field(&t, "cluster_enabled") == Some("1")),
    };
    if !cluster {
        RespConn::connect(seed, ASK).await.map_err(|e| e.to_string())?;
        table.intern(seed).ok_or("can't be resolved")?;
        return Ok((table, false, server));
    }
    let map = slots(seed).await.map_err(|e| e.to_string())?;
    fill(&mut table, &map);
    if table.nodes.is_empty() {
        return Err("no slot is served".into());
    }
    Ok((table, true, server))
}

async fn slots(addr: &str) -> Result<SlotMap, RespError> {
    let reply = call(addr, &[b"CLUSTER", b"SLOTS"]).await?;
    SlotMap::parse(&reply, addr).ok_or(RespError::Closed)
}

async fn info(addr: &str, section: &str) -> Option<String> {
    let reply = call(addr, &[b"INFO", section.as_bytes()]).await.ok()?;
    String::from_utf8(reply.bytes()?.to_vec()).ok()
}

async fn call(addr: &str, args: &[&[u8]]) -> Result<Value, RespError> {
    tokio::time::timeout(ASK, async { RespConn::connect(addr, ASK).await?.call(args).await })
        .await
        .map_err(|_| RespError::ConnectTimeout(ASK))?
}

/// A field of INFO.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|l| l.trim_end().strip_prefix(name)?.strip_prefix(':'))
}

/// `5 10.0.0.1:7201` of a MOVED or ASK.
pub fn redirection(text: &str) -> Option<(u16, &str)> {
    let mut words = text.split(' ');
    let slot = words.next()?.parse().ok().filter(|s| usize::from(*s) < SLOTS)?;
    let addr = words.next()?;
    (words.next().is_none() && addr.rsplit_once(':').is_some_and(|(host, _)| !host.is_empty())).then_some((slot, addr))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirections_are_read_and_junk_is_not() {
        assert_eq!(redirection("5 127.0.0.1:7201"), Some((5, "127.0.0.1:7201")));
        for bad in ["", "5", "5 :7201", "16384 h:1", "x h:1", "5 h:1 more"] {
            assert_eq!(redirection(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_table_takes_in_nodes_and_gives_keys_to_owners() {
        let mut t = Table::default();
        assert_eq!(t.intern("127.0.0.1:1"), Some(0));
        assert_eq!(t.owner(b"foo"), 0, "a single server has all");
        t.owners = vec![NOBODY; SLOTS];
        assert_eq!(t.intern("127.0.0.1:2"), Some(1));
        t.owners[12182] = 1;
        assert_eq!(t.owner(b"foo"), 1);
        assert!(t.serves(1) && !t.serves(0));
        assert_eq!(t.intern("127.0.0.1:1"), Some(0));
    }
}
