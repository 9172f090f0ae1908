//! The cluster as Redis Cluster clients are told of it.
//!
//! Only primaries are announced and every node is a `master` (PROTOCOL section 5): a node is primary of some slots and backup
//! of others, and clients keep one role per address. The replies are pure functions of the configuration; [`ClusterView`] keeps
//! them serialized until the next one.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128};

use crate::proto::id::{NodeId, Ref};
use crate::proto::reply::{Proto, Reply};
use crate::proto::slot::SLOTS;
use crate::proto::status::NodeState;
use crate::proto::view::Config;

/// The length of a node id in Redis Cluster, hex digits.
pub const REDIS_ID_LEN: usize = 40;

/// The id that Redis Cluster clients know a node by: 40 hex digits made from its name, so that every node tells the same one,
/// and a node that restarts under its name keeps it.
pub fn redis_id(node: &NodeId) -> String {
    let name = node.as_str().as_bytes();
    // Any fixed seed other than 0 makes the last digits independent of the first.
    let tail = xxh3_64_with_seed(name, 1) >> 32;
    format!("{:032x}{tail:08x}", xxh3_128(name))
}

/// `[::1]:7201` as Redis writes it, `::1:7201`; other addresses as they are.
pub fn unbracketed(addr: &str) -> String {
    let (host, port) = split(addr);
    format!("{host}:{port}")
}

fn split(addr: &str) -> (&str, u16) {
    let (host, port) = addr.rsplit_once(':').unwrap_or((addr, ""));
    (host.trim_start_matches('[').trim_end_matches(']'), port.parse().unwrap_or(0))
}

/// A run of slots with one primary. `last` is included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run<'a> {
    first: usize,
    last: usize,
    primary: &'a Ref,
}

fn runs(config: &Config) -> Vec<Run<'_>> {
    let mut out: Vec<Run<'_>> = Vec::new();
    for (i, slot) in config.slots.iter().enumerate() {
        let Some(primary) = &slot.primary else {
            continue;
        };
        match out.last_mut() {
            Some(run) if run.last + 1 == i && run.primary.id == primary.id => run.last = i,
            _ => out.push(Run { first: i, last: i, primary }),
        }
    }
    out
}

/// The reply to CLUSTER SLOTS: per run of slots its first, its last and its primary.
pub fn cluster_slots(config: &Config, proto: Proto) -> Vec<u8> {
    let runs: Vec<_> =
        runs(config).into_iter().filter_map(|run| Some((run, config.members.get(&run.primary.id)?))).collect();
    let mut buf = Vec::new();
    let mut out = Reply::new(&mut buf, proto);
    out.array(runs.len());
    for (run, member) in runs {
        let (host, port) = split(&member.addr);
        out.array(3);
        out.int(run.first as i64);
        out.int(run.last as i64);
        out.array(4);
        out.bulk(host.as_bytes());
        out.int(i64::from(port));
        out.bulk(redis_id(&run.primary.id).as_bytes());
        out.map(0);
    }
    buf
}

/// The reply to CLUSTER SHARDS: every node is a shard of its own.
pub fn cluster_shards(config: &Config, proto: Proto) -> Vec<u8> {
    let mut slots: BTreeMap<&NodeId, Vec<(usize, usize)>> = BTreeMap::new();
    for run in runs(config) {
        slots.entry(&run.primary.id).or_default().push((run.first, run.last));
    }
    let members: Vec<_> = config.members.iter().filter(|(_, m)| m.state != NodeState::Left).collect();
    let mut buf = Vec::new();
    let mut out = Reply::new(&mut buf, proto);
    out.array(members.len());
    for (id, member) in members {
        let (host, port) = split(&member.addr);
        let runs = slots.get(id).map_or(&[][..], Vec::as_slice);
        out.map(2);
        out.bulk(b"slots");
        out.array(2 * runs.len());
        for &(first, last) in runs {
            out.int(first as i64);
            out.int(last as i64);
        }
        out.bulk(b"nodes");
        out.array(1);
        out.map(7);
        out.bulk(b"id");
        out.bulk(redis_id(id).as_bytes());
        out.bulk(b"port");
        out.int(i64::from(port));
        out.bulk(b"ip");
        out.bulk(host.as_bytes());
        out.bulk(b"endpoint");
        out.bulk(host.as_bytes());
        out.bulk(b"role");
        out.bulk(b"master");
        out.bulk(b"replication-offset");
        out.int(0);
        out.bulk(b"health");
        out.bulk(if member.state == NodeState::Dead { b"failed" } else { b"online" });
    }
    buf
}

/// The text of CLUSTER NODES. A node that is no member yet sees itself all the same.
pub fn cluster_nodes(config: &Config, me: &NodeId, my_addr: &str, my_peer_addr: &str) -> String {
    let mut slots: BTreeMap<&NodeId, String> = BTreeMap::new();
    for run in runs(config) {
        let s = slots.entry(&run.primary.id).or_default();
        // Writing to a String can't fail.
        let _ = match run.first == run.last {
            true => write!(s, " {}", run.first),
            false => write!(s, " {}-{}", run.first, run.last),
        };
    }
    let mut out = String::new();
    let mut line = |id: &NodeId, addr: &str, peer_addr: &str, failed: bool| {
        let ((host, port), (_, bus)) = (split(addr), split(peer_addr));
        let hostname = if host.parse::<IpAddr>().is_err() { format!(",{host}") } else { String::new() };
        let flags = match (id == me, failed) {
            (true, _) => "myself,master",
            (false, false) => "master",
            (false, true) => "master,fail",
        };
        let link = if failed && id != me { "disconnected" } else { "connected" };
        let _ = writeln!(
            out,
            "{} {host}:{port}@{bus}{hostname} {flags} - 0 0 {} {link}{}",
            redis_id(id),
            config.cfg_index,
            slots.get(id).map_or("", String::as_str),
        );
    };
    if !config.members.contains_key(me) {
        line(me, my_addr, my_peer_addr, false);
    }
    for (id, member) in &config.members {
        if member.state != NodeState::Left || id == me {
            line(id, &member.addr, &member.peer_addr, member.state == NodeState::Dead);
        }
    }
    out
}

/// The text of CLUSTER INFO: `ok` when every slot has a primary.
pub fn cluster_info(config: &Config) -> String {
    let assigned = config.slots.iter().filter(|s| s.primary.is_some()).count();
    let size = {
        let mut ids: Vec<&NodeId> = runs(config).into_iter().map(|run| &run.primary.id).collect();
        ids.sort_unstable();
        ids.dedup();
        ids.len()
    };
    let known = config.members.values().filter(|m| m.state != NodeState::Left).count();
    let state = if assigned == SLOTS { "ok" } else { "fail" };
    let epoch = config.cfg_index;
    // There is no gossip bus, so there is nothing that its message counters could count.
    format!(
        "cluster_state:{state}\r\ncluster_slots_assigned:{assigned}\r\ncluster_slots_ok:{assigned}\r\n\
         cluster_slots_pfail:0\r\ncluster_slots_fail:0\r\ncluster_known_nodes:{known}\r\ncluster_size:{size}\r\n\
         cluster_current_epoch:{epoch}\r\ncluster_my_epoch:{epoch}\r\ncluster_stats_messages_sent:0\r\n\
         cluster_stats_messages_received:0\r\ntotal_cluster_links_buffer_limit_exceeded:0\r\n"
    )
}

/// How many backups in sync every slot of this node has at least: what WAIT answers once a write is acknowledged.
pub fn backups_held(config: &Config, me: &NodeId) -> usize {
    let mine = config.slots.iter().filter(|s| s.primary.as_ref().is_some_and(|p| &p.id == me));
    mine.map(|s| s.backups().count()).min().unwrap_or(0)
}

/// One configuration with the replies made from it. The runtime makes a new one when the configuration changes.
#[derive(Debug)]
pub struct ClusterView {
    config: Arc<Config>,
    me: Ref,
    addr: String,
    peer_addr: String,
    slots: [OnceLock<Vec<u8>>; 2],
    shards: [OnceLock<Vec<u8>>; 2],
    nodes: OnceLock<String>,
    info: OnceLock<String>,
    backups: OnceLock<usize>,
}

impl ClusterView {
    /// `addr` and `peer_addr` are what this node announces, host:port. Replies are made when first asked for.
    pub fn new(config: Arc<Config>, me: Ref, addr: String, peer_addr: String) -> Self {
        Self {
            config,
            me,
            addr,
            peer_addr,
            slots: [const { OnceLock::new() }; 2],
            shards: [const { OnceLock::new() }; 2],
            nodes: OnceLock::new(),
            info: OnceLock::new(),
            backups: OnceLock::new(),
        }
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// This node.
    pub fn me(&self) -> &Ref {
        &self.me
    }

    /// Where clients reach this node, host and port.
    pub fn client_addr(&self) -> (&str, u16) {
        split(&self.addr)
    }

    /// See [`cluster_slots`].
    pub fn slots(&self, proto: Proto) -> &[u8] {
        self.slots[proto as usize].get_or_init(|| cluster_slots(&self.config, proto))
    }

    /// See [`cluster_shards`].
    pub fn shards(&self, proto: Proto) -> &[u8] {
        self.shards[proto as usize].get_or_init(|| cluster_shards(&self.config, proto))
    }

    /// See [`cluster_nodes`].
    pub fn nodes(&self) -> &str {
        self.nodes.get_or_init(|| cluster_nodes(&self.config, &self.me.id, &self.addr, &self.peer_addr))
    }

    /// See [`cluster_info`].
    pub fn info(&self) -> &str {
        self.info.get_or_init(|| cluster_info(&self.config))
    }

    /// See [`backups_held`].
    pub fn backups_held(&self) -> usize {
        *self.backups.get_or_init(|| backups_held(&self.config, &self.me.id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::id::{ClusterId, HomeId, Incarnation};
    use crate::proto::view::{Member, Phase, SlotState};

    fn node(id: &str) -> Ref {
        Ref { id: NodeId::new(id).unwrap(), incarnation: Incarnation(1) }
    }

    fn config(addrs: &[(&str, &str)]) -> Config {
        let mut c = Config::empty(ClusterId(1), SLOTS);
        c.cfg_index = 9;
        for (i, (id, addr)) in addrs.iter().enumerate() {
            c.members.insert(
                NodeId::new(id).unwrap(),
                Member {
                    incarnation: Incarnation(1),
                    home: HomeId(1),
                    addr: (*addr).into(),
                    peer_addr: format!("127.0.0.1:{}", 17201 + i),
                    state: NodeState::Up,
                    zone: String::new(),
                    weight: 1.0,
                },
            );
        }
        c
    }

    fn give(c: &mut Config, slots: std::ops::Range<usize>, to: &str) {
        let held = SlotState { primary: Some(node(to)), phase: Phase::Serving, ..SlotState::default() };
        c.slots.fill(slots, Arc::new(held));
    }

    #[test]
    fn node_ids_are_forty_hex_digits_and_differ() {
        let ids: Vec<String> = (0..100).map(|i| redis_id(&NodeId::new(&format!("n{i}")).unwrap())).collect();
        assert!(ids.iter().all(|id| id.len() == REDIS_ID_LEN && id.bytes().all(|b| b.is_ascii_hexdigit())));
        assert_eq!(ids.iter().collect::<std::collections::BTreeSet<_>>().len(), 100);
        // Clients keep ids over restarts and upgrades, so the function may never change.
        assert_eq!(redis_id(&NodeId::new("n1").unwrap()), redis_id(&NodeId::new("n1").unwrap()));
    }

    #[test]
    fn runs_end_where_the_primary_changes() {
        let mut c = config(&[("n1", "127.0.0.1:7201"), ("n2", "127.0.0.1:7202")]);
        give(&mut c, 0..100, "n1");
        give(&mut c, 100..101, "n2");
        give(&mut c, 200..SLOTS, "n1");
        c.slots.update(50, |s| s.pterm = 7);
        let got: Vec<_> = runs(&c).iter().map(|r| (r.first, r.last, r.primary.id.as_str())).collect();
        assert_eq!(got, [(0, 99, "n1"), (100, 100, "n2"), (200, SLOTS - 1, "n1")]);
        let id = |n: &str| redis_id(&NodeId::new(n).unwrap());
        assert_eq!(
            cluster_nodes(&c, &NodeId::new("n2").unwrap(), "", ""),
            format!(
                "{} 127.0.0.1:7201@17201 master - 0 0 9 connected 0-99 200-16383\n\
                 {} 127.0.0.1:7202@17202 myself,master - 0 0 9 connected 100\n",
                id("n1"),
                id("n2")
            )
        );
        assert!(cluster_info(&c).starts_with("cluster_state:fail\r\ncluster_slots_assigned:16285\r\n"));
        give(&mut c, 101..200, "n2");
        assert!(cluster_info(&c).starts_with("cluster_state:ok\r\ncluster_slots_assigned:16384\r\n"));
        assert!(cluster_info(&c).contains("cluster_known_nodes:2\r\ncluster_size:2\r\n"));
    }

    #[test]
    fn dead_nodes_fail_gone_ones_vanish_and_strangers_see_themselves() {
        let mut c = config(&[("n1", "127.0.0.1:7201"), ("n2", "cache-2.example:7202"), ("n3", "[::1]:7203")]);
        give(&mut c, 0..SLOTS, "n1");
        c.members.get_mut(&NodeId::new("n2").unwrap()).unwrap().state = NodeState::Dead;
        let me = NodeId::new("n9").unwrap();
        let text = cluster_nodes(&c, &me, "127.0.0.1:7209", "127.0.0.1:17209");
        let lines: Vec<&str> = text.lines().map(|l| l.split_once(' ').unwrap().1).collect();
        assert_eq!(
            lines,
            [
                "127.0.0.1:7209@17209 myself,master - 0 0 9 connected",
                "127.0.0.1:7201@17201 master - 0 0 9 connected 0-16383",
                "cache-2.example:7202@17202,cache-2.example master,fail - 0 0 9 disconnected",
                "::1:7203@17203 master - 0 0 9 connected",
            ]
        );
        c.members.get_mut(&NodeId::new("n2").unwrap()).unwrap().state = NodeState::Left;
        assert_eq!(cluster_nodes(&c, &me, "a:1", "a:2").lines().count(), 3);
        assert_eq!(unbracketed("[::1]:7203"), "::1:7203");
    }

    #[test]
    fn wait_counts_the_least_backed_slot() {
        let mut c = config(&[("n1", "127.0.0.1:7201"), ("n2", "127.0.0.1:7202")]);
        let (n1, n2) = (NodeId::new("n1").unwrap(), NodeId::new("n2").unwrap());
        give(&mut c, 0..8, "n1");
        let replica = |id: &str| crate::proto::view::Replica { node: node(id), since: 1 };
        (0..8).for_each(|slot| c.slots.update(slot, |s| s.insync = vec![replica("n1"), replica("n2")]));
        assert_eq!((backups_held(&c, &n1), backups_held(&c, &n2)), (1, 0));
        c.slots.update(3, |s| drop(s.insync.pop()));
        assert_eq!(backups_held(&c, &n1), 0);
    }

    #[test]
    fn the_slot_table_is_told_in_both_protocols() {
        let mut c = config(&[("n1", "127.0.0.1:7201")]);
        give(&mut c, 0..SLOTS, "n1");
        let id = redis_id(&NodeId::new("n1").unwrap());
        let want = |meta: &str| {
            format!("*1\r\n*3\r\n:0\r\n:16383\r\n*4\r\n$9\r\n127.0.0.1\r\n:7201\r\n$40\r\n{id}\r\n{meta}\r\n")
        };
        assert_eq!(cluster_slots(&c, Proto::Resp2), want("*0").as_bytes());
        assert_eq!(cluster_slots(&c, Proto::Resp3), want("%0").as_bytes());
        let shards = String::from_utf8(cluster_shards(&c, Proto::Resp3)).unwrap();
        assert!(
            shards.starts_with(
                "*1\r\n%2\r\n$5\r\nslots\r\n*2\r\n:0\r\n:16383\r\n$5\r\nnodes\r\n*1\r\n%7\r\n$2\r\nid\r\n"
            )
        );
    }
}
