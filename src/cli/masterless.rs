//! The status of a cluster without masters, pieced together from what its nodes say of themselves: they serve on.

use std::collections::BTreeMap;
use std::time::Duration;

use super::cmd::Reach;
use super::local::state::{Member, Role};
use crate::proto::net::cache::{CacheClient, Route, Waits};
use crate::proto::net::client::Repeat;
use crate::proto::slot::{SLOTS, Slot};
use crate::proto::status::{Health, MasterStatus, NodeState, NodeStatus, STATUS_SCHEMA, SlotTotals, Status};

/// How long one node may take; those that run answer in milliseconds.
const ASK: Duration = Duration::from_millis(500);
/// Hexadecimal digits of an incarnation, with which a node's `run_id` begins.
const INCARNATION_DIGITS: usize = 16;
/// What the reader has to know of such a status.
const WARNING: &str =
    "no master answers: this is what the nodes say of themselves; backups and states of nodes are not known";

/// Asks the recorded nodes; none if no node answers.
pub async fn status(reach: &Reach) -> Option<Status> {
    let members = reach.members.as_ref()?;
    let waits = Waits { connect: ASK, read: ASK, write: ASK, total: ASK, retry_writes: false };
    let mut client = CacheClient::new(reach.nodes.iter().cloned(), waits);
    let map = client.slot_map().await.ok()?.clone();
    let mut owned: BTreeMap<String, u64> = BTreeMap::new();
    for slot in 0..SLOTS {
        if let Some(p) = map.primary(Slot(slot as u16)) {
            *owned.entry(p.addr.clone()).or_default() += 1;
        }
    }
    let mut nodes = Vec::new();
    let (mut serving, mut epoch) = (0, 0);
    for m in members.of(Role::Node) {
        let slots = owned.get(&m.addr).copied().unwrap_or(0);
        let info = ask(&mut client, &m.addr, &[b"INFO"]).await;
        if info.is_some() {
            serving += slots;
        }
        if let Some(cluster) = ask(&mut client, &m.addr, &[b"CLUSTER", b"INFO"]).await {
            epoch = epoch.max(number(&cluster, "cluster_current_epoch"));
        }
        nodes.push(node(m, slots, info));
    }
    if nodes.iter().all(|n| n.state != NodeState::Up) {
        return None;
    }
    Some(Status {
        schema: STATUS_SCHEMA,
        cluster: reach.name.clone(),
        cluster_id: String::new(),
        state: if serving == SLOTS as u64 { Health::Degraded } else { Health::Down },
        epoch,
        term: 0,
        leader: None,
        masters: absent_masters(reach),
        nodes,
        slots: SlotTotals { total: SLOTS as u64, serving, ..SlotTotals::default() },
        operations: Vec::new(),
        warnings: vec![WARNING.to_owned()],
    })
}

/// The masters that did not answer.
pub fn absent_masters(reach: &Reach) -> Vec<MasterStatus> {
    let known: Vec<(String, String)> = match &reach.members {
        Some(m) => m.of(Role::Master).map(|m| (m.id.clone(), m.addr.clone())).collect(),
        None => reach.masters.iter().map(|a| (String::new(), a.clone())).collect(),
    };
    let absent =
        |(id, addr)| MasterStatus { id, addr, role: "unreachable".into(), alive: false, last_log: 0, applied: 0 };
    known.into_iter().map(absent).collect()
}

type Fields = BTreeMap<String, String>;

/// One node's `key:value` lines.
async fn ask(client: &mut CacheClient, addr: &str, command: &[&[u8]]) -> Option<Fields> {
    let (value, _) = client.call(command, Route::Node(addr), Repeat::Safe).await.ok()?;
    Some(fields(std::str::from_utf8(value.bytes()?).ok()?))
}

fn fields(text: &str) -> Fields {
    text.lines().filter_map(|l| l.split_once(':')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

fn number(fields: &Fields, name: &str) -> u64 {
    fields.get(name).and_then(|v| v.parse().ok()).unwrap_or(0)
}

fn node(m: &Member, slots: u64, info: Option<Fields>) -> NodeStatus {
    // One that does not answer is suspect: only a leader may call it dead.
    let state = if info.is_some() { NodeState::Up } else { NodeState::Suspect };
    let f = info.unwrap_or_default();
    let (hits, misses) = (number(&f, "keyspace_hits"), number(&f, "keyspace_misses"));
    // db0:keys=10,expires=0,…
    let keys = f.get("db0").and_then(|v| v.strip_prefix("keys=")?.split(',').next()?.parse().ok()).unwrap_or(0);
    NodeStatus {
        id: m.id.clone(),
        addr: m.addr.clone(),
        incarnation: f.get("run_id").and_then(|id| id.get(..INCARNATION_DIGITS)).unwrap_or_default().to_owned(),
        state,
        heartbeat_age_ms: None,
        heartbeat_gaps_ms: Vec::new(),
        zone: m.zone.clone(),
        weight: 1.0,
        primary_slots: slots,
        backup_slots: 0,
        primary_keys: keys,
        backup_keys: number(&f, "backup_keys"),
        primary_bytes: number(&f, "used_memory_primary"),
        backup_bytes: number(&f, "used_memory_backup"),
        memory_limit: number(&f, "maxmemory"),
        ops_per_s: number(&f, "instantaneous_ops_per_sec") as f64,
        hit_ratio: (hits + misses > 0).then(|| hits as f64 / (hits + misses) as f64),
        evicted: number(&f, "evicted_keys"),
        expired: number(&f, "expired_keys"),
        clients: number(&f, "connected_clients"),
        p99_us: None,
        p50_us: None,
        errors: number(&f, "total_error_replies"),
        hot_slots: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_says_is_read_and_what_it_leaves_out_is_nothing() {
        let text = "# Server\r\nrun_id:7d49566a4da0d29d000000007a19f6cda231cb52\r\nused_memory_primary:12\r\n\
                    maxmemory:268435456\r\nkeyspace_hits:3\r\nkeyspace_misses:1\r\ndb0:keys=10,expires=2\r\n";
        let m = Member {
            id: "n1".into(),
            role: Role::Node,
            addr: "127.0.0.1:1".into(),
            peer_addr: None,
            zone: String::new(),
            removed: false,
            stopped: false,
        };
        let n = node(&m, 5, Some(fields(text)));
        assert_eq!((n.state, n.incarnation.as_str(), n.primary_keys), (NodeState::Up, "7d49566a4da0d29d", 10));
        assert_eq!((n.primary_bytes, n.memory_limit, n.hit_ratio), (12, 268_435_456, Some(0.75)));
        let n = node(&m, 5, None);
        assert_eq!((n.state, n.hit_ratio), (NodeState::Suspect, None));
    }
}
