//! What masters ask of each other besides Raft: who is there, is a node's port open, end with me.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use super::api::{Hub, Input};
use super::brain::{PROBE_TIMEOUT_MS, ProbeOutcome};
use super::raft::link::Addressed;
use super::raft::network::HelloReply;
use super::raft::{Consensus, Gate, RaftStatus};
use crate::proto::control::RefreshMaster;
use crate::proto::error::Failure;
use crate::proto::id::{ClusterId, MasterId};
use crate::proto::net::is_addr;
use crate::proto::status::MasterStatus;

/// Connect to a node's peer address and say what was met.
const PROBE: &str = "PROBE";
/// The cluster ends by plan: end too.
const END: &str = "END";

/// How often the other masters are asked how they are.
const ASK_EVERY: Duration = Duration::from_millis(400);
/// How long one may take to answer.
const ASK_WITHIN: Duration = Duration::from_millis(400);
/// An answer older than this says nothing any more: two were missed.
const ANSWER_MAX: Duration = Duration::from_millis(1200);
/// How long another master may take for a probe: the probe itself and the way there.
const PROBE_WITHIN: Duration = Duration::from_millis(PROBE_TIMEOUT_MS + 400);
/// How long the other masters are given to end before the leader does.
const END_WITHIN: Duration = Duration::from_secs(2);

/// Whether a line of this type is answered here.
pub fn serves(kind: &str) -> bool {
    matches!(kind, PROBE | END)
}

#[derive(Serialize, Deserialize)]
struct Probe {
    addr: String,
}

#[derive(Serialize, Deserialize)]
enum Met {
    Refused,
    Open,
    Other,
}

#[derive(Serialize, Deserialize)]
struct End {
    index: u64,
}

/// Answers another master.
pub async fn serve(
    hub: &Hub,
    from: &str,
    cluster_id: Option<ClusterId>,
    kind: &str,
    data: &RawValue,
) -> Result<Box<RawValue>, Failure> {
    hub.raft.check(from, cluster_id)?;
    let bad = |e: serde_json::Error| Failure::new("BAD_DATA", e.to_string());
    match kind {
        PROBE => {
            let ask: Addressed<Probe> = serde_json::from_str(data.get()).map_err(bad)?;
            if !is_addr(&ask.rpc.addr) {
                return Err(Failure::new("BAD_DATA", "no address"));
            }
            let met = match probe(&ask.rpc.addr).await {
                ProbeOutcome::Refused => Met::Refused,
                ProbeOutcome::Open => Met::Open,
                ProbeOutcome::Other => Met::Other,
            };
            to_raw_value(&met).map_err(bad)
        }
        END => {
            let ask: Addressed<End> = serde_json::from_str(data.get()).map_err(bad)?;
            let (answer, will) = oneshot::channel();
            drop(hub.inbox.send(Input::End { index: ask.rpc.index, answer }).await);
            match will.await {
                Ok(true) => to_raw_value(&()).map_err(bad),
                _ => Err(Failure::new("NOT_STOPPED", "this master knows of no planned stop")),
            }
        }
        other => Err(Failure::new("UNKNOWN_TYPE", format!("no message type {other:?} among masters"))),
    }
}

/// Connects once and says what was met.
pub async fn probe(addr: &str) -> ProbeOutcome {
    match timeout(Duration::from_millis(PROBE_TIMEOUT_MS), TcpStream::connect(addr)).await {
        Ok(Ok(stream)) if is_self(stream.local_addr().ok(), stream.peer_addr().ok()) => ProbeOutcome::Refused,
        Ok(Ok(_)) => ProbeOutcome::Open,
        Ok(Err(e)) if e.kind() == io::ErrorKind::ConnectionRefused => ProbeOutcome::Refused,
        _ => ProbeOutcome::Other,
    }
}

/// A connect to a free local port may be given that very port as its own, and then meets itself: nobody listens there.
fn is_self(local: Option<SocketAddr>, peer: Option<SocketAddr>) -> bool {
    local.is_some() && local == peer
}

/// Lets another master probe.
pub async fn probe_via(raft: &Consensus, via: &MasterId, addr: String) -> ProbeOutcome {
    let Some(link) = raft.links().get(via) else { return ProbeOutcome::Other };
    match link.call(PROBE, Probe { addr }, PROBE_WITHIN).await {
        Ok(Met::Refused) => ProbeOutcome::Refused,
        Ok(Met::Open) => ProbeOutcome::Open,
        Ok(Met::Other) | Err(_) => ProbeOutcome::Other,
    }
}

/// Tells all other masters to end; returns when they said that they do, or had their time.
pub async fn end_all(raft: &Consensus, index: u64) {
    let told = raft.links().values().map(|link| async move {
        // One that has just come back is behind for a moment: ask again.
        loop {
            match link.call::<_, ()>(END, End { index }, END_WITHIN).await {
                Ok(()) => return,
                Err(e) => tracing::debug!(peer = %link.to(), why = %e, "a master does not end yet"),
            }
            sleep(Duration::from_millis(100)).await;
        }
    });
    drop(timeout(END_WITHIN, join_all(told)).await);
}

/// Who leads, as this master knows it; itself only once its brain is ready to answer.
pub fn who_leads(hub: &Hub) -> RefreshMaster {
    let mut status = hub.raft.status();
    if status.leading && !hub.ready.load(Ordering::Relaxed) {
        status.leader = None;
    }
    let masters: Vec<(MasterId, String)> = status.voters.iter().map(|v| (v.id.clone(), v.addr.clone())).collect();
    let addr = status.leader.as_ref().and_then(|l| masters.iter().find(|(id, _)| *id == l.id)).map(|(_, a)| a.clone());
    RefreshMaster { leader: status.leader, addr, masters }
}

/// What the other masters said of themselves, and when.
#[derive(Clone, Default)]
pub struct Roll(Arc<Mutex<BTreeMap<MasterId, (HelloReply, Instant)>>>);

impl Roll {
    /// Asks them for ever.
    pub async fn call(self, raft: Consensus) {
        loop {
            let raft = &raft;
            let asked = raft.links().keys().map(|id| async move { Some((id, raft.hello(id, ASK_WITHIN).await?)) });
            for (id, reply) in join_all(asked).await.into_iter().flatten() {
                self.lock().insert(id.clone(), (reply, Instant::now()));
            }
            sleep(ASK_EVERY).await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<MasterId, (HelloReply, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All masters as `status` shows them, and what people should know of them. A leader goes by what Raft hears, others
    /// by who answers them.
    pub fn masters(&self, me: &MasterId, status: &RaftStatus) -> (Vec<MasterStatus>, Vec<String>) {
        let roll = self.lock();
        let mut warnings = Vec::new();
        let masters = status.voters.iter().map(|v| {
            let own = v.id == *me;
            let said = roll.get(&v.id).filter(|(_, at)| at.elapsed() < ANSWER_MAX).map(|(reply, _)| reply);
            let alive = own || if status.leading { v.age.is_some_and(|a| a < ANSWER_MAX) } else { said.is_some() };
            let refused = if own { status.gate == Gate::Refused } else { said.is_some_and(|s| s.refused) };
            if refused {
                warnings.push(format!(
                    "master {} came with an empty or foreign directory and does not vote: replace it under a new id",
                    v.id
                ));
            }
            let leads = status.leader.as_ref().is_some_and(|l| l.id == v.id);
            MasterStatus {
                id: v.id.to_string(),
                addr: v.addr.clone(),
                role: if leads && alive {
                    "leader"
                } else if alive {
                    "follower"
                } else {
                    "unreachable"
                }
                .to_owned(),
                alive: alive && !refused,
                last_log: v.matched.or(said.map(|s| s.last_log)).unwrap_or(0),
                applied: if own { status.applied } else { said.map_or(0, |s| s.applied) },
            }
        });
        (masters.collect(), warnings)
    }
}
