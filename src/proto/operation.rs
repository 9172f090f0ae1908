//! Operations as operators ask for them, see their plan, and follow them.
//!
//! PLAN shows what an operation would do and does nothing. APPLY does it, bound to the epoch and the digest that the plan
//! named: at a later epoch the plan is made again, and refused (`STALE_PLAN`) unless it comes out the same.

use serde::{Deserialize, Serialize};

use super::id::NodeId;
use super::slot::Slot;

/// What an operation is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OperationKind {
    /// New nodes get their share.
    ScaleOut,
    /// Nodes are drained, then leave.
    ScaleIn,
    /// Slots without a backup get one.
    Rebuild,
    /// Shares are evened out.
    Rebalance,
}

impl OperationKind {
    /// The word in `status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ScaleOut => "scale-out",
            Self::ScaleIn => "scale-in",
            Self::Rebuild => "rebuild",
            Self::Rebalance => "rebalance",
        }
    }

    /// Reads the word in `status`.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::ScaleOut, Self::ScaleIn, Self::Rebuild, Self::Rebalance].into_iter().find(|k| k.as_str() == word)
    }
}

/// Where an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OperationState {
    /// Queued behind another one.
    Planned,
    /// Under way.
    Running,
    /// An operator paused it.
    Paused,
    /// Complete.
    Done,
    /// Given up; `reason` says why.
    Failed,
    /// An operator ended it; what was committed stays.
    Cancelled,
}

impl OperationState {
    /// The word in `status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Reads the word in `status`.
    pub fn parse(word: &str) -> Option<Self> {
        use OperationState::*;
        [Planned, Running, Paused, Done, Failed, Cancelled].into_iter().find(|s| s.as_str() == word)
    }

    /// Whether something is still to do.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Planned | Self::Running | Self::Paused)
    }
}

/// What shall be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// Never `Rebuild`, which the leader begins by itself.
    pub kind: OperationKind,
    /// Scale-out: whom to give a share (in PLAN a name that is not registered yet is planned for as a new node of weight 1);
    /// scale-in: whom to drain; rebalance: none.
    #[serde(default)]
    pub nodes: Vec<NodeId>,
    /// Scale-in: declare them dead instead of draining them.
    #[serde(default)]
    pub force: bool,
    /// Go on also where the last copy of something goes.
    #[serde(default)]
    pub accept_data_loss: bool,
}

/// What moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The slot's primary.
    Primary,
    /// Its backup.
    Backup,
}

/// Slots that move from one node to another in one role.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedMove {
    /// In which role.
    pub role: Role,
    /// Who gives; none where nobody held that role.
    pub from: Option<NodeId>,
    /// Who takes.
    pub to: NodeId,
    /// Which slots: first and last of each run, both included, ascending.
    pub runs: Vec<(Slot, Slot)>,
    /// How many.
    pub slots: u64,
    /// Keys in them, as the giver's share lets one guess.
    #[serde(default)]
    pub keys: u64,
    /// Accounted bytes in them, likewise.
    #[serde(default)]
    pub bytes: u64,
}

/// A plan: the answer to PLAN, and what a refused APPLY brings back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanView {
    /// What was asked for.
    pub wish: Wish,
    /// The epoch it was made at.
    pub epoch: u64,
    /// What it comes to: equal moves, equal digest. Hex.
    pub moves_digest: String,
    /// All moves; a slot whose primary and backup move counts twice.
    pub moves: Vec<PlannedMove>,
    /// Slot moves in all.
    pub slots_total: u64,
    /// Accounted bytes to copy, as far as known.
    pub bytes: u64,
    /// How long that takes at the rate of the last copies, milliseconds; none = unknown.
    pub estimate_ms: Option<u64>,
    /// What the operator should know: a slot that will have no backup, a zone that cannot be kept apart.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// Do it as it was planned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Apply {
    /// What shall be done.
    pub wish: Wish,
    /// The epoch of the plan that the operator saw; none = whatever the plan is now.
    #[serde(default)]
    pub epoch: Option<u64>,
    /// Its digest.
    #[serde(default)]
    pub moves_digest: Option<String>,
}

/// The answer to APPLY.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Accepted {
    /// The operation to follow; none = there was nothing to do.
    pub operation: Option<u64>,
    /// What it will do.
    pub plan: PlanView,
}
