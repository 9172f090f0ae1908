//! What the screen asks of others and what comes back: masters, cache nodes, and whoever runs a local cluster.

use std::pin::Pin;
use std::rc::Rc;

use crate::proto::control::Message;
use crate::tui::state::Found;

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Refusal {
    /// The error's code, if a master gave one: `STALE_PLAN`.
    pub code: String,
    /// In words.
    pub text: String,
    /// It may or may not have happened: the answer was lost.
    pub unknown: bool,
}

/// One order or question to the leader.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    /// The number that the answer carries.
    pub id: u64,
    /// Where masters are known to be.
    pub masters: Vec<String>,
    /// What is asked.
    pub message: Box<Message>,
    /// Twice does what once does.
    pub repeatable: bool,
}

/// What is wanted of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyWish {
    /// What is in it.
    Look,
    /// Write it.
    Set {
        /// The value.
        value: String,
        /// Milliseconds to live; none = for ever.
        ttl_ms: Option<u64>,
    },
    /// Delete it.
    Delete,
}

/// What a node answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyAnswer {
    /// What is in it.
    Found(Found),
    /// Written.
    Set,
    /// Deleted; whether it was there.
    Deleted(bool),
}

/// What is wanted of a process on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalWish {
    /// Start these cache nodes; they wait for slots until they are added.
    StartStandby(Vec<String>),
    /// Do something to one process.
    Act(ProcessAct, String),
    /// The end of its log.
    Logs(String),
}

/// What can be done to a process on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessAct {
    /// SIGKILL: it gets no chance to say goodbye.
    Kill,
    /// SIGSTOP: it stands still and holds its connections.
    Pause,
    /// SIGCONT.
    Resume,
    /// End it politely and start it again.
    Restart,
}

impl ProcessAct {
    /// As the command line says it.
    pub fn word(self) -> &'static str {
        match self {
            ProcessAct::Kill => "kill",
            ProcessAct::Pause => "pause",
            ProcessAct::Resume => "resume",
            ProcessAct::Restart => "restart",
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalAnswer {
    /// Done, in words.
    Done(String),
    /// Lines, oldest first.
    Lines(Vec<String>),
}

/// How processes of a local cluster are reached: handed in by the caller, since this room knows only `proto`.
pub type Local = Rc<dyn Fn(LocalWish) -> LocalFuture>;
/// See [`Local`]. Must not block the thread: the screen runs on it.
pub type LocalFuture = Pin<Box<dyn Future<Output = anyhow::Result<LocalAnswer>> + Send>>;
