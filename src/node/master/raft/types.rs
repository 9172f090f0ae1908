//! The types openraft is instantiated with: who votes, what the log holds, what applying answers.

use std::fmt;

use openraft::BasicNode;
use serde::{Deserialize, Serialize};

use crate::node::master::entry::{Applied, Entry};
use crate::proto::id::{HomeId, LeaderId, MasterId};

openraft::declare_raft_types!(
    /// Masters are named by their lasting names; a leader is the pair (term, name), so one term may have several.
    pub TypeConfig:
        D = Request,
        R = Outcome,
        NodeId = MasterId,
        Node = BasicNode,
);

pub type RaftEntry = openraft::alias::EntryOf<TypeConfig>;
pub type RaftLogId = openraft::alias::LogIdOf<TypeConfig>;
pub type RaftVote = openraft::alias::VoteOf<TypeConfig>;
pub type RaftMembership = openraft::alias::StoredMembershipOf<TypeConfig>;

/// What the log holds, besides openraft's own blank and membership entries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// An entry of the cluster's state.
    Entry(Box<Entry>),
    /// A master and the state directory it takes part with: recorded once, never replaced, so that a master that
    /// comes back with an empty directory is told from one that comes for the first time.
    Admit {
        /// Which master.
        master: MasterId,
        /// Which directory.
        home: HomeId,
    },
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Request::Entry(e) => write!(f, "{e:?}"),
            Request::Admit { master, home } => write!(f, "Admit({master}, {home})"),
        }
    }
}

/// What applying an entry answers to the leader that proposed it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Outcome {
    /// A blank or membership entry.
    Nothing,
    /// An entry of the cluster's state.
    Applied(Box<Applied>),
    /// Whether the directory is the one on record for the master.
    Admitted(bool),
}

/// The pair that names the leader of a vote or log id.
pub fn leader_id(id: &openraft::alias::LeaderIdOf<TypeConfig>) -> LeaderId {
    LeaderId { term: id.term, id: id.node_id.clone() }
}
