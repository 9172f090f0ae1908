//! What happened in the cluster: made by the replicated state machine, so every master tells the same story in the same order.

use serde::{Deserialize, Serialize};

/// How much an event matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// For the record.
    Info,
    /// Someone may want to look.
    Warn,
    /// Data or service was lost.
    Error,
}

/// One line of the cluster's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Rises by one; gaps mean that the reader missed some.
    pub seq: u64,
    /// Wall time at the leader that proposed it, milliseconds since 1970. For people only.
    pub at_ms: u64,
    /// Raft index of the entry that made it.
    pub index: u64,
    /// How much it matters.
    pub severity: Severity,
    /// Stable: `node-joined node-dead node-back node-left promoted slots-lost rebuilt master-elected operation …`
    pub kind: String,
    /// Who it is about: a node, a master, an operation.
    #[serde(default)]
    pub subject: String,
    /// The sentence people read.
    pub text: String,
    /// Who asked for it, where an operator did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}
