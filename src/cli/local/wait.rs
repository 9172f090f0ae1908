//! Waits until a cluster is ok, and says what is missing meanwhile.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::time::timeout;

use super::state::{Members, Role};
use crate::cli::link;
use crate::proto::net::client::MasterClient;
use crate::proto::net::resp_conn::{RespConn, RespError};
use crate::proto::status::{Health, NodeState, Status};

/// Between two questions: a cluster forms in some hundred milliseconds, so this is what `up` may lose at its end.
const POLL: Duration = Duration::from_millis(10);
/// How long one question may take before the children are looked at again; shorter than the client's own pause between
/// rounds, which is made for clusters that run.
const ASK: Duration = Duration::from_millis(100);

/// Asks the masters of a cluster how far it is.
pub struct Waiter {
    client: MasterClient,
    nodes: BTreeSet<String>,
    started: BTreeSet<String>,
    masters: usize,
    last: Option<Status>,
    /// Nodes whose clients do not see every slot yet.
    unaware: Vec<String>,
}

impl Waiter {
    /// For these members.
    pub fn new(members: &Members) -> Self {
        Self {
            client: link::once(&members.addrs(Role::Master), ASK),
            nodes: members.of(Role::Node).map(|m| m.id.clone()).collect(),
            started: BTreeSet::new(),
            masters: members.of(Role::Master).count(),
            last: None,
            unaware: Vec::new(),
        }
    }

    /// These were started just now: they are waited for, whatever they were before. Others that are on their way out are not.
    pub fn with_started<'a>(mut self, ids: impl Iterator<Item = &'a str>) -> Self {
        self.started = ids.map(str::to_owned).collect();
        self
    }

    /// Asks once and breathes; true when the cluster is ok with all its members.
    pub async fn poll(&mut self) -> bool {
        let begun = Instant::now();
        if let Ok(view) = link::status(&mut self.client).await {
            self.last = Some(view.status);
        }
        if self.done() {
            self.ask_nodes().await;
            if self.unaware.is_empty() {
                return true;
            }
        }
        tokio::time::sleep(POLL.saturating_sub(begun.elapsed())).await;
        false
    }

    /// The masters know first: a client that comes right after `up` must find the whole table at any node.
    async fn ask_nodes(&mut self) {
        let Some(status) = &self.last else { return };
        let asked = status.nodes.iter().filter(|n| n.state == NodeState::Up && self.nodes.contains(&n.id));
        let answers =
            join_all(asked.map(async |n| (n.id.clone(), timeout(ASK, knows_every_slot(&n.addr)).await))).await;
        self.unaware = answers.into_iter().filter(|(_, a)| !matches!(a, Ok(Ok(true)))).map(|(id, _)| id).collect();
    }

    /// The last answer.
    pub fn status(&self) -> Option<&Status> {
        self.last.as_ref()
    }

    /// Whether the last answer says that all is well.
    fn done(&self) -> bool {
        let well = |s: &Status| s.state == Health::Ok || self.nodes.len() == 1 && lacks_only_backups(s);
        self.last.as_ref().is_some_and(|s| well(s) && self.absent(s).is_empty())
    }

    /// Members that are not up.
    fn absent<'a>(&'a self, s: &Status) -> Vec<&'a str> {
        let state = |id: &str| s.nodes.iter().find(|n| n.id == id).map(|n| n.state);
        let is_there = |id: &&str| match state(id) {
            Some(NodeState::Up) => true,
            Some(NodeState::Draining | NodeState::Left) => !self.started.contains(*id),
            _ => false,
        };
        self.nodes.iter().map(String::as_str).filter(|id| !is_there(id)).collect()
    }

    /// How far it is, on one line.
    pub fn progress(&self) -> String {
        let Some(s) = &self.last else {
            return "waiting for a master to answer".to_owned();
        };
        let up = self.nodes.len() - self.absent(s).len();
        let alive = s.masters.iter().filter(|m| m.alive).count();
        let backed = s.slots.serving.saturating_sub(s.slots.solo);
        format!(
            "masters {alive}/{}  nodes {up}/{}  slots {}/{} serving, {backed} backed",
            self.masters,
            self.nodes.len(),
            s.slots.serving,
            s.slots.total
        )
    }

    /// What keeps it from being ok.
    pub fn missing(&self) -> String {
        let Some(s) = &self.last else {
            return "no master answers".into();
        };
        let mut all = Vec::new();
        if s.leader.is_none() {
            all.push("no master leads".to_owned());
        }
        let away: Vec<&str> = s.masters.iter().filter(|m| !m.alive).map(|m| m.id.as_str()).collect();
        if !away.is_empty() {
            all.push(format!("master {} is away", away.join(", ")));
        }
        let absent = self.absent(s);
        if !absent.is_empty() {
            all.push(format!("node {} is not up", absent.join(", ")));
        }
        if s.slots.serving < s.slots.total {
            all.push(format!("{} of {} slots do not serve", s.slots.total - s.slots.serving, s.slots.total));
        }
        if s.slots.solo > 0 {
            all.push(format!("{} slots lack their backup", s.slots.solo));
        }
        if self.done() && !self.unaware.is_empty() {
            all.push(format!("node {} does not answer with every slot yet", self.unaware.join(", ")));
        }
        if all.is_empty() { format!("the cluster is {:?}", s.state).to_lowercase() } else { all.join("; ") }
    }
}

/// Whether a node shows its clients an owner for every slot.
async fn knows_every_slot(addr: &str) -> Result<bool, RespError> {
    let reply = RespConn::connect(addr, ASK).await?.call(&[b"CLUSTER", b"INFO"]).await?;
    Ok(reply.bytes().is_some_and(|text| text.starts_with(b"cluster_state:ok")))
}

/// All serves, and nothing but backups is missing: of a cluster of one node there is no more to wait for.
fn lacks_only_backups(s: &Status) -> bool {
    s.leader.is_some() && s.slots.serving == s.slots.total && s.masters.iter().all(|m| m.alive)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::local::state::Member;

    fn status(text: &str) -> Status {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn what_is_missing_is_named() {
        let mut members = Members::new("x", 7100, 1, 1 << 20);
        for (id, role) in [("m1", Role::Master), ("n1", Role::Node), ("n2", Role::Node)] {
            members.members.push(Member {
                id: id.into(),
                role,
                addr: "127.0.0.1:1".into(),
                peer_addr: None,
                zone: String::new(),
                removed: false,
                stopped: false,
            });
        }
        let mut w = Waiter::new(&members);
        assert_eq!(w.missing(), "no master answers");
        w.last = Some(status(
            r#"{"schema":1,"cluster":"x","cluster_id":"1","state":"down","epoch":1,"term":1,"leader":null,
            "masters":[{"id":"m1","addr":"a","role":"follower","alive":false,"last_log":1,"applied":1}],"nodes":[],
            "slots":{"total":16384,"serving":0,"solo":0,"orphan":0,"lost_total":0},"operations":[]}"#,
        ));
        let text = w.missing();
        for part in ["no master leads", "master m1 is away", "node n1, n2 is not up", "16384 of 16384 slots"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(!w.done());
        let s = w.last.as_mut().unwrap();
        s.state = Health::Ok;
        assert!(!w.done(), "ok without its nodes is not what was asked for");
        let node = |id: &str, state: &str| {
            let text = format!(
                r#"{{"id":"{id}","addr":"a","incarnation":"1","state":"{state}","heartbeat_age_ms":1,"heartbeat_gaps_ms":[],"zone":"",
                "weight":1.0,"primary_slots":0,"backup_slots":0,"primary_keys":0,"backup_keys":0,"primary_bytes":0,"backup_bytes":0,
                "memory_limit":1,"ops_per_s":0.0,"hit_ratio":null,"evicted":0,"expired":0,"clients":0,"p99_us":null}}"#
            );
            serde_json::from_str(&text).unwrap()
        };
        w.last.as_mut().unwrap().nodes = vec![node("n1", "up"), node("n2", "draining")];
        assert!(w.done(), "who leaves is not waited for");
        assert!(!w.with_started(["n2"].into_iter()).done(), "unless it was started just now");
    }
}
