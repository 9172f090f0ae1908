//! What goes into the Raft log. Every entry names what it expects (incarnations, `cver`s), so that retries, duplicates and
//! late leaders do no harm: what differs is skipped, the rest applies.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::proto::error::Failure;
use crate::proto::event::{Event, Severity};
use crate::proto::id::{ClusterId, HomeId, Incarnation, LeaderId, NodeId, Ref};
use crate::proto::operation::OperationKind;
use crate::proto::plan::Move;
use crate::proto::slot::Slot;

/// Consecutive slots that are all expected to stand at `cver`. `last` is included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// First slot.
    pub first: Slot,
    /// Last slot.
    pub last: Slot,
    /// What each of them must stand at for the change to apply.
    pub cver: u64,
}

/// One step of one slot (PROTOCOL section 8).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// The primary shall copy the slot to `node`.
    AddLearner {
        /// A live member that is nothing of the slot yet.
        node: Ref,
    },
    /// The learner is counted and holds everything: it is in sync.
    PromoteLearner {
        /// Who.
        learner: Ref,
        /// The entry that made it a learner; a later one is another copy.
        since: u64,
    },
    /// The primary shall give the slot to `to`.
    Handover {
        /// An in-sync backup.
        to: Ref,
    },
    /// The primary has relinquished: `to` leads, without a wait.
    Switch {
        /// The target that the handover named.
        to: Ref,
    },
    /// The handover is off; the primary resumes.
    Abort,
    /// A learner or an in-sync backup leaves the slot.
    RemoveMember {
        /// Never the primary.
        node: Ref,
    },
    /// A stalling primary leaves the slot; an in-sync backup is promoted as after a death.
    Depose {
        /// The primary; refused if nobody else is in sync.
        node: Ref,
    },
}

/// One step for many slots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotChange {
    /// The step.
    pub change: Change,
    /// Which slots, and what they are expected to stand at.
    pub runs: Vec<Run>,
    /// How many moves of the entry's operation each slot that applies completes: two where primary and backup swap roles.
    #[serde(default)]
    pub completes: u8,
}

/// The first hand-out of consecutive slots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// First slot.
    pub first: Slot,
    /// Last slot.
    pub last: Slot,
    /// Who serves.
    pub primary: Ref,
    /// In sync at once, since both are empty.
    pub backups: Vec<Ref>,
}

/// Orphan slots that get a new, empty holder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandedOut {
    /// Which slots, and what they are expected to stand at.
    pub run: Run,
    /// The new primary.
    pub to: Ref,
    /// Its backup, in sync at once: both are empty.
    #[serde(default)]
    pub backup: Option<Ref>,
    /// Nobody can hold a lease of an earlier primary any more: no wait. Only where the slots were given up by plan.
    #[serde(default)]
    pub clean: bool,
}

/// What happens to an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum OperationStep {
    /// It begins; the answer carries its id. One rebuild is open at a time, and one scale operation runs at a time.
    Create {
        /// What for.
        kind: OperationKind,
        /// The nodes it is about.
        nodes: Vec<NodeId>,
        /// Slot moves in all.
        slots_total: u64,
        /// Digest of the moves as they were planned; 0 = none.
        moves_digest: u64,
    },
    /// New figures; `None` leaves a figure as it is.
    Progress {
        /// Which operation.
        id: u64,
        /// Slot moves in all, planned anew.
        slots_total: Option<u64>,
        /// Why it waits; empty = it goes on.
        reason: Option<String>,
    },
    /// It ends.
    Finish {
        /// Which operation.
        id: u64,
        /// False = failed.
        done: bool,
        /// Why it failed.
        reason: Option<String>,
    },
    /// An operator pauses it.
    Pause {
        /// Which operation.
        id: u64,
    },
    /// An operator lets it go on.
    Resume {
        /// Which operation.
        id: u64,
    },
    /// An operator ends it. What is under way is finished first.
    Cancel {
        /// Which operation.
        id: u64,
    },
    /// It was cancelled and nothing of it is under way any more.
    Cancelled {
        /// Which operation.
        id: u64,
    },
    /// What it moves from here on, planned for these members.
    Plan {
        /// Which operation.
        id: u64,
        /// All that is left to do.
        moves: Vec<Move>,
        /// Digest of the members it was planned for: others, and it is planned anew.
        members: u64,
    },
    /// Keys and bytes copied for it so far.
    Copied {
        /// Which operation.
        id: u64,
        /// Keys.
        keys: u64,
        /// Bytes.
        bytes: u64,
    },
}

/// What a node says when it registers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Registration {
    /// Name and life.
    pub node: Ref,
    /// Its state directory.
    pub home: HomeId,
    /// Client address, host:port.
    pub addr: String,
    /// Peer address, host:port, bound before it registered.
    pub peer_addr: String,
    /// Failure domain; empty if none.
    #[serde(default)]
    pub zone: String,
    /// Share of slots relative to the others.
    pub weight: f64,
    /// Hold nothing until added by name.
    #[serde(default)]
    pub standby: bool,
    /// The life of this name that it follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follows: Option<Incarnation>,
}

/// An entry of the Raft log: what happens, when (wall time at the proposer, for people), and who asked for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Wall time at the leader that proposed it, milliseconds since 1970.
    pub at_ms: u64,
    /// The operator's machine, where an operator asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// What happens.
    pub act: Act,
}

/// What happens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Act {
    /// The first entry of every leader, so that all of its predecessors' are committed.
    Elected {
        /// Who leads.
        leader: LeaderId,
    },
    /// The first leader names the cluster; refused ever after.
    Init {
        /// Drawn at random.
        cluster_id: ClusterId,
        /// Shown to people.
        cluster: String,
        /// Backups per slot.
        backups: u8,
    },
    /// A node joins, or says again that it did.
    Register(Registration),
    /// These lives are over: deaths known together go together. Those that may yet return come last, for the last in-sync
    /// member of the list is the one whose return saves a slot.
    NodeDead {
        /// Who.
        dead: Vec<Ref>,
        /// Suspects: promoted only if nobody else is in sync.
        avoid: Vec<Ref>,
        /// For people: why the leader thinks so.
        cause: String,
    },
    /// A node that was only paused or cut off claims the slots it was the last holder of.
    NodeBack {
        /// The same life as before.
        node: Ref,
    },
    /// These joining nodes hold their share, or none is due.
    Settled {
        /// Who.
        nodes: Vec<Ref>,
    },
    /// The first hand-out; applies to slots that never had a holder.
    Form {
        /// Which slots to whom.
        placements: Vec<Placed>,
    },
    /// Steps of slots, judged slot by slot.
    Change {
        /// The operation they belong to.
        op: Option<u64>,
        /// The steps.
        changes: Vec<SlotChange>,
    },
    /// Orphan slots are handed out empty.
    HandOut {
        /// Holders that the leader found gone by their refusals; others must be on record as gone.
        gone: Vec<Ref>,
        /// Which slots to whom.
        runs: Vec<HandedOut>,
    },
    /// Something of an operation.
    Operation(OperationStep),
    /// Backups per slot from now on.
    SetBackups {
        /// 0 or 1.
        backups: u8,
    },
    /// A standby node shall get slots.
    Admit {
        /// Which.
        node: NodeId,
    },
    /// A node shall be emptied, or (off) no longer.
    Drain {
        /// Which.
        node: NodeId,
        /// False = changed our mind.
        on: bool,
    },
    /// A node that is a member of no slot has gone by plan.
    NodeLeft {
        /// Which life.
        node: Ref,
    },
    /// An operator gives up on a dead node and answers for the loss.
    Forget {
        /// Which.
        node: NodeId,
    },
    /// An operator removes nodes without draining them: dead, and not wanted back.
    Remove {
        /// Who.
        nodes: Vec<Ref>,
    },
    /// A planned stop of everything begins: no deaths, no operations, no registrations until `Stopped`.
    Stopping,
    /// These lives have stopped serving and are gone without loss.
    Stopped {
        /// Who confirmed.
        confirmed: Vec<Ref>,
    },
    /// For the record only.
    Note {
        /// How much it matters.
        severity: Severity,
        /// Stable word.
        kind: String,
        /// About whom.
        subject: String,
        /// The sentence.
        text: String,
    },
}

/// What became of an entry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Applied {
    /// Its Raft index.
    pub index: u64,
    /// Members or slots changed.
    pub cfg_changed: bool,
    /// Slots the entry named that did not stand as it expected, ascending.
    pub skipped: Vec<Slot>,
    /// What it gave to tell.
    pub events: Vec<Event>,
    /// What the proposer is told.
    pub answer: Answer,
}

impl Act {
    /// For a log: what it is, and of steps of slots how many there are of each.
    pub fn summary(&self) -> String {
        let Self::Change { changes, .. } = self else { return variant(self) };
        let steps = changes.iter().map(|c| {
            let slots: usize = c.runs.iter().map(|r| (r.last.ix() + 1).saturating_sub(r.first.ix())).sum();
            format!("{} {slots}", variant(&c.change))
        });
        steps.collect::<Vec<_>>().join(", ")
    }
}

/// A variant's name; what is in it may be long and is not looked at.
fn variant(value: &impl fmt::Debug) -> String {
    struct Word(String);
    impl fmt::Write for Word {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            let word = text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
            self.0.push_str(word);
            if word.len() == text.len() { Ok(()) } else { Err(fmt::Error) }
        }
    }
    let mut word = Word(String::new());
    // It ends with an error where the name does.
    let _ = fmt::write(&mut word, format_args!("{value:?}"));
    word.0
}

/// What the proposer is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    /// Applied, but for the slots skipped.
    Done,
    /// The operation's id.
    Operation(u64),
    /// Nothing happened.
    Refused(Failure),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_counts_slots() {
        let run = |first, last| Run { first: Slot(first), last: Slot(last), cver: 1 };
        let change = |change, runs: &[Run]| SlotChange { change, runs: runs.to_vec(), completes: 0 };
        let node = Ref { id: "n1".parse().unwrap(), incarnation: Incarnation(1) };
        let changes =
            vec![change(Change::AddLearner { node }, &[run(0, 9), run(20, 20)]), change(Change::Abort, &[run(5, 5)])];
        assert_eq!(Act::Change { op: None, changes }.summary(), "AddLearner 11, Abort 1");
        assert_eq!(Act::SetBackups { backups: 1 }.summary(), "SetBackups");
        assert_eq!(Act::Operation(OperationStep::Cancelled { id: 7 }).summary(), "Operation");
    }
}
