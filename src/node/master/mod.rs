//! A master: Raft decides what happened (`state`), the leader's brain decides what shall happen next.
//!
//! ```text
//!  sockets, timers ──Event──▶ brain ──Command::Propose──▶ Raft ──Entry──▶ state (on every master)
//!                              ▲                                            │
//!                              └────────────── Proposed, Applied ◀──────────┘
//! ```

pub mod brain;
pub mod entry;
pub mod evidence;
pub mod heartbeat;
pub mod operation;
pub mod raft;
pub mod report;
mod serve;
pub mod state;
pub use serve::run;
