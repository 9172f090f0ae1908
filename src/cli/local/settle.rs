//! Waits until processes that were started take part in their cluster again.

use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::spawn::{Spawned, first_crash};
use super::state::{Member, Members, Role};
use crate::cli::error::CliError;
use crate::cli::link;
use crate::cli::progress::Progress;
use crate::proto::control::{Empty, Message};
use crate::proto::net::client::MasterClient;
use crate::proto::net::conn::Conn;
use crate::proto::net::resp_conn::RespConn;
use crate::proto::operation::OperationState;
use crate::proto::status::{Health, NodeState, Status};

/// Between two looks: a fraction of what a process takes to start.
const LOOK: Duration = Duration::from_millis(25);
/// How long one question may take.
const ASK: Duration = Duration::from_millis(500);
/// Hexadecimal digits of an incarnation, with which a node's `run_id` begins.
const INCARNATION_DIGITS: usize = 16;

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// The cluster knows each of them, as the process that runs now.
    TakesPart,
    /// And the cluster is ok, with nothing left to move.
    Ok,
}

/// Asks the cluster, and the processes themselves, how far they are.
pub struct Settle {
    client: MasterClient,
    who: Vec<Member>,
    goal: Goal,
    /// What the leader's log held before: a master that takes part has it all.
    log: u64,
}

impl Settle {
    /// For these of the members; `before` is the cluster as it was.
    pub fn new(members: &Members, who: Vec<Member>, goal: Goal, before: Option<&Status>) -> Self {
        let log = before.into_iter().flat_map(|s| &s.masters).map(|m| m.last_log).max().unwrap_or(0);
        Self { client: link::once(&members.addrs(Role::Master), ASK), who, goal, log }
    }

    /// Waits; a child that ends meanwhile ends the wait with its last words.
    pub async fn wait(
        mut self,
        children: &mut [Spawned],
        deadline: Instant,
        progress: &Progress<'_>,
    ) -> Result<(), CliError> {
        loop {
            let missing = self.look().await;
            if let Some(e) = first_crash(children) {
                return Err(e.hint("its log may say more: `cachectl logs`"));
            }
            let Err(missing) = missing else { return Ok(()) };
            if Instant::now() >= deadline {
                return Err(CliError::timed_out(format!("not there yet: {missing}"))
                    .hint("it goes on: look at `cachectl status` and `cachectl logs`"));
            }
            progress.show(&missing);
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Nothing is missing, or what is.
    async fn look(&mut self) -> Result<(), String> {
        let status = match link::status(&mut self.client).await {
            Ok(view) if view.status.leader.is_some() => view.status,
            Ok(_) => return Err("no master leads".into()),
            Err(_) => return Err("no master answers".into()),
        };
        for m in &self.who {
            match m.role {
                Role::Master => {
                    let known = status.masters.iter().find(|s| s.id == m.id);
                    if !known.is_some_and(|s| s.alive && s.last_log >= self.log) {
                        return Err(format!("master {} has not caught up", m.id));
                    }
                    // The leader may not have noticed that the one before it is gone.
                    if !matches!(timeout(ASK, follows(&m.addr)).await, Ok(Some(()))) {
                        return Err(format!("master {} knows no leader", m.id));
                    }
                }
                Role::Node => {
                    let own = timeout(ASK, incarnation(&m.addr)).await.ok().flatten();
                    let known = status.nodes.iter().find(|n| n.id == m.id);
                    let here = known.filter(|n| Some(&n.incarnation) == own.as_ref());
                    match here.map(|n| n.state) {
                        Some(NodeState::Up | NodeState::Standby) => {}
                        Some(NodeState::Joining) if self.goal == Goal::TakesPart => {}
                        Some(NodeState::Joining) => return Err(format!("node {} waits for its share", m.id)),
                        _ => return Err(format!("node {} is not registered", m.id)),
                    }
                }
            }
        }
        if self.goal == Goal::Ok { settled(&status) } else { Ok(()) }
    }
}

/// Whether a cluster is ok and at rest.
pub fn settled(s: &Status) -> Result<(), String> {
    if let Some(n) = s.nodes.iter().find(|n| n.state == NodeState::Joining) {
        return Err(format!("node {} waits for its share", n.id));
    }
    let moving =
        |state: &str| matches!(OperationState::parse(state), Some(OperationState::Running | OperationState::Planned));
    if let Some(op) = s.operations.iter().find(|o| moving(&o.state)) {
        return Err(format!("operation #{} ({}) is at {}/{} slots", op.id, op.kind, op.slots_done, op.slots_total));
    }
    match s.state {
        Health::Ok => Ok(()),
        _ if s.slots.serving < s.slots.total => {
            Err(format!("{} of {} slots do not serve", s.slots.total - s.slots.serving, s.slots.total))
        }
        _ if s.slots.solo > 0 => Err(format!("{} slots lack their backup", s.slots.solo)),
        state => Err(format!("the cluster is {state:?}").to_lowercase()),
    }
}

/// Whether a master knows who leads.
async fn follows(addr: &str) -> Option<()> {
    let mut conn = Conn::connect(addr, ASK).await.ok()?;
    conn.writer.send("cli", None, 1, &Message::StatusRequest(Empty {})).await.ok()?;
    loop {
        let said = conn.reader.recv().await.ok()??;
        match said.message.ok()? {
            Message::RefreshMaster(m) if m.leader.is_some() => return Some(()),
            Message::StatusView(v) if v.status.leader.is_some() => return Some(()),
            _ if said.id == 1 => return None,
            _ => {}
        }
    }
}

/// Which life of itself a node says it is.
async fn incarnation(addr: &str) -> Option<String> {
    let reply = RespConn::connect(addr, ASK).await.ok()?.call(&[b"INFO", b"server"]).await.ok()?;
    let text = std::str::from_utf8(reply.bytes()?).ok()?;
    let id = text.lines().find_map(|l| l.strip_prefix("run_id:"))?;
    id.get(..INCARNATION_DIGITS).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rest_means_ok_and_nothing_left_to_move() {
        let mut s: Status = serde_json::from_str(
            r#"{"schema":1,"cluster":"x","cluster_id":"1","state":"ok","epoch":1,"term":1,"leader":"m1","masters":[],"nodes":[],
            "slots":{"total":16384,"serving":16384,"solo":0,"orphan":0,"lost_total":0},
            "operations":[{"id":3,"kind":"rebuild","state":"running","nodes":[],"slots_total":9,"slots_done":4,"keys_done":0,
             "bytes_done":0,"bytes_left":0,"rate_bytes_per_s":0,"eta_ms":0,"reason":null}]}"#,
        )
        .unwrap();
        assert_eq!(settled(&s).unwrap_err(), "operation #3 (rebuild) is at 4/9 slots");
        s.operations[0].state = "paused".into();
        assert_eq!(settled(&s), Ok(()));
        s.state = Health::Degraded;
        s.slots.solo = 7;
        assert_eq!(settled(&s).unwrap_err(), "7 slots lack their backup");
        s.slots.serving = 1;
        assert_eq!(settled(&s).unwrap_err(), "16383 of 16384 slots do not serve");
    }
}
