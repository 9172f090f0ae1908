//! Who may vote for the first time: how a new cluster forms, and why a master whose directory was wiped stays out.
//!
//! A master that lost its directory forgot its votes and the entries it acknowledged; were it to vote, two leaders could
//! share a term and committed entries could vanish. So a master whose directory is **blank** (no entry beyond the static
//! membership at index 0, which is the same everywhere) keeps its **gate** closed: it neither votes nor takes entries.
//!
//! ```text
//!              all others blank, or a majority of blank ones and FORM_PATIENCE passed
//!   closed ───────────────────────────────────────────────────────────────────────────▶ open   (a new cluster)
//!     │  others have a log: the leader puts (master, home id) on record through Raft,
//!     │  or finds it there already ──────────────────────────────────────────────────▶ open   (it comes late)
//!     └─ another home is on record for this name ────────────────────────────────────▶ refused (it was wiped)
//! ```
//!
//! The home id is drawn when a directory is made, so a wiped one has another. An open gate is fsynced before the first
//! vote, so a restart needs no questions. Every master that votes goes on record, by itself, as soon as a leader is there.
//!
//! What this does not see: a master wiped while a second one has never been started and the third, which alone has the
//! log, is down. After [`FORM_PATIENCE`] the first two would form a cluster of their own; waiting for ever for a master
//! that may not come would be the other choice, and operators of etcd expect a majority to do.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use openraft::BasicNode;
use tokio::time::{Instant, sleep};

use super::network::{Admission, Admitted, HELLO, Hello, HelloReply, PROPOSE};
use super::{Core, Gate};
use crate::proto::id::MasterId;

/// How often the others are asked while a cluster may be about to form: start-up time is made of this.
const ASK_EVERY: Duration = Duration::from_millis(15);
/// How often after [`FORM_PATIENCE`].
const ASK_LATER: Duration = Duration::from_millis(250);
/// How long all masters are waited for before a majority of blank ones forms a cluster.
pub const FORM_PATIENCE: Duration = Duration::from_secs(3);
/// How long each master leaves it to the one before it, in order of names, to begin the first election.
const BEGIN_AFTER: Duration = Duration::from_secs(1);
/// How long one question may take.
const ASK_WITHIN: Duration = Duration::from_millis(500);
/// How often a master that is kept out says so in its log.
const REMIND_EVERY: Duration = Duration::from_secs(60);

/// What the answers of the others allow a blank master.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Nothing yet; for the log.
    Wait(&'static str),
    /// There is a cluster: its leader decides.
    AskLeader(MasterId),
    /// There is none: this master may vote for the first leader.
    Open,
}

/// `others` is how many masters there are besides this one.
fn judge(others: usize, answers: &[HelloReply], waited: Duration) -> Verdict {
    if answers.iter().any(|a| !a.blank) {
        return match answers.iter().find_map(|a| a.leader.clone()) {
            Some(leader) => Verdict::AskLeader(leader.id),
            None => Verdict::Wait("the others have a log and no leader yet"),
        };
    }
    if answers.len() == others {
        return Verdict::Open;
    }
    let majority = answers.len() + 1 > others.div_ceil(2);
    match (majority, waited >= FORM_PATIENCE) {
        (true, true) => Verdict::Open,
        (true, false) => Verdict::Wait("waiting for the masters that do not answer yet"),
        (false, _) => Verdict::Wait("no majority of masters answers"),
    }
}

/// Runs until this master's directory is on record and a leader is there or soon will be; for ever while it is kept out.
pub(super) async fn run(core: std::sync::Arc<Core>) {
    let started = Instant::now();
    let mut reminded: Option<Instant> = None;
    let mut kicked = false;
    loop {
        if core.status().stopped.is_some() {
            return;
        }
        let on_record = core.shared.read(|r| r.homes.get(&core.me).copied());
        match on_record {
            // Once a leader is heard, or this master's turn to call for one has passed, elections go by their timers.
            Some(home) if home != core.home => core.refuse(),
            Some(_) if kicked || core.leader().is_some() || started.elapsed() > BEGIN_AFTER => return,
            _ => {}
        }
        let answers = ask(&core).await;
        let gate = *core.gate.borrow();
        match gate {
            Gate::Open => {
                if let Some(leader) = core.leader() {
                    record(&core, &leader.id).await;
                } else if !kicked && may_begin(&core, &answers, started.elapsed()) {
                    kicked = true;
                    begin(&core).await;
                }
            }
            Gate::Closed => match judge(core.links.len(), &answers, started.elapsed()) {
                Verdict::Open => {
                    core.open().await;
                    continue;
                }
                Verdict::AskLeader(leader) => {
                    if record(&core, &leader).await {
                        core.open().await;
                        continue;
                    }
                }
                Verdict::Wait(why) => {
                    if started.elapsed() > FORM_PATIENCE && reminded.is_none_or(|t| t.elapsed() > REMIND_EVERY) {
                        reminded = Some(Instant::now());
                        tracing::warn!(master = %core.me, why, "not voting yet");
                    }
                }
            },
            Gate::Refused => {
                if reminded.is_none_or(|t| t.elapsed() > REMIND_EVERY) {
                    reminded = Some(Instant::now());
                    tracing::error!(
                        master = %core.me,
                        "this master's directory is not the one the cluster knows it by: it was emptied or replaced. \
                         It does not vote; restore the directory or replace the master under a new id"
                    );
                }
            }
        }
        if *core.gate.borrow() != Gate::Refused && started.elapsed() < FORM_PATIENCE {
            sleep(ASK_EVERY).await;
        } else {
            sleep(ASK_LATER).await;
        }
    }
}

/// Asks all others at once; those that answer nonsense count as absent.
async fn ask(core: &Core) -> Vec<HelloReply> {
    let hello = Hello { voters: core.voters() };
    let asked = core.links.values().map(|link| {
        let hello = hello.clone();
        async move {
            let reply: HelloReply = link.call(HELLO, &hello, ASK_WITHIN).await.ok()?;
            if reply.voters != hello.voters {
                tracing::error!(
                    peer = %link.to(), theirs = ?reply.voters, ours = ?hello.voters,
                    "two masters were started with different --peers"
                );
                return None;
            }
            Some(reply)
        }
    });
    join_all(asked).await.into_iter().flatten().collect()
}

/// Whether it is this master's turn to start the first election of this life: at once for the first by name, once a
/// majority votes, so that the vote does not meet closed gates; later for the others, should the first have died.
fn may_begin(core: &Core, answers: &[HelloReply], waited: Duration) -> bool {
    let voters = core.voters();
    let rank = voters.iter().position(|v| v == &core.me).unwrap_or(voters.len()) as u32;
    let open = answers.iter().filter(|a| a.open).count() + 1;
    open > voters.len() / 2 && waited >= BEGIN_AFTER * rank
}

/// Stands for election; on a fresh cluster by writing the first entry, which in openraft includes that.
async fn begin(core: &Core) {
    let begun = if core.raft.is_initialized().await.unwrap_or(true) {
        // Does no harm where a leader exists: nobody grants a pre-vote while he hears one.
        core.raft.trigger().elect(true).await.map_err(|e| e.to_string())
    } else {
        let members: BTreeMap<MasterId, BasicNode> =
            core.peers.iter().map(|(id, addr)| (id.clone(), BasicNode::new(addr))).collect();
        core.raft.initialize(members).await.map_err(|e| e.to_string())
    };
    if let Err(why) = begun {
        tracing::warn!(master = %core.me, why, "the first election did not begin");
    }
}

/// Has the leader put this master's directory on record. True if it is.
async fn record(core: &Core, leader: &MasterId) -> bool {
    let admission = Admission { master: core.me.clone(), home: core.home };
    let admitted = if leader == &core.me {
        core.admit(admission).await.ok()
    } else {
        match core.links.get(leader) {
            Some(link) => link.call(PROPOSE, &admission, ASK_WITHIN).await.ok(),
            None => None,
        }
    };
    match admitted {
        Some(Admitted { admitted: false }) => {
            core.refuse();
            false
        }
        Some(Admitted { admitted: true }) => true,
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::id::LeaderId;

    fn answer(blank: bool, leader: Option<&str>) -> HelloReply {
        let leader = leader.map(|id| LeaderId { term: 3, id: MasterId::new(id).unwrap() });
        HelloReply { voters: Vec::new(), blank, open: !blank, refused: false, leader, last_log: 0, applied: 0 }
    }

    #[test]
    fn a_blank_master_votes_only_where_no_log_can_be() {
        let soon = Duration::from_millis(1);
        let blank = || answer(true, None);
        assert_eq!(judge(2, &[blank(), blank()], soon), Verdict::Open);
        assert_eq!(judge(0, &[], soon), Verdict::Open);
        assert!(matches!(judge(2, &[blank()], soon), Verdict::Wait(_)));
        assert_eq!(judge(2, &[blank()], FORM_PATIENCE), Verdict::Open);
        assert!(matches!(judge(2, &[], FORM_PATIENCE * 9), Verdict::Wait(_)));
        assert!(matches!(judge(4, &[blank()], FORM_PATIENCE), Verdict::Wait(_)));
        assert_eq!(judge(4, &[blank(), blank()], FORM_PATIENCE), Verdict::Open);
        // One log among the answers is enough to stay out, however long it takes.
        assert!(matches!(judge(2, &[blank(), answer(false, None)], FORM_PATIENCE * 9), Verdict::Wait(_)));
        let leader = Verdict::AskLeader(MasterId::new("m1").unwrap());
        assert_eq!(judge(2, &[blank(), answer(false, Some("m1"))], soon), leader);
    }
}
