//! How a command ends: the exit code that scripts branch on, and the failure that people read.

use std::process::ExitCode;

use crate::proto::error::Failure;

/// Exit codes, a contract with scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// It failed; an unknown name too.
    Failed = 1,
    /// The command line or the configuration file is wrong.
    Usage = 2,
    /// The cluster is not ok.
    NotOk = 3,
    /// A `--wait` or `--timeout` passed.
    TimedOut = 4,
    /// Refused for safety.
    Refused = 5,
    /// Ctrl-C: the command let go, the cluster goes on.
    Detached = 130,
}

impl From<Exit> for ExitCode {
    fn from(e: Exit) -> Self {
        ExitCode::from(e as u8)
    }
}

/// Why a command did not reach its end.
#[derive(Debug)]
pub enum CliError {
    /// The reader of stdout went away: a success, with nobody left to tell.
    Closed,
    /// Words and an exit code.
    Failed(Exit, Failure),
}

/// What every command returns: even without an error it may exit with another code than 0.
pub type CmdResult = Result<Exit, CliError>;

impl CliError {
    /// Exit 1.
    pub fn failed(code: &str, message: impl Into<String>) -> Self {
        Self::Failed(Exit::Failed, Failure::new(code, message))
    }

    /// Exit 2.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::Failed(Exit::Usage, Failure::new("USAGE", message))
    }

    /// Exit 4.
    pub fn timed_out(message: impl Into<String>) -> Self {
        Self::Failed(Exit::TimedOut, Failure::new("TIMEOUT", message))
    }

    /// Exit 5.
    pub fn refused(code: &str, message: impl Into<String>) -> Self {
        Self::Failed(Exit::Refused, Failure::new(code, message))
    }

    /// Adds what to do next.
    pub fn hint(self, hint: impl Into<String>) -> Self {
        match self {
            Self::Failed(exit, f) => Self::Failed(exit, f.hint(hint)),
            Self::Closed => Self::Closed,
        }
    }
}

impl From<anyhow::Error> for CliError {
    fn from(e: anyhow::Error) -> Self {
        Self::failed("FAILED", format!("{e:#}"))
    }
}

impl From<Failure> for CliError {
    fn from(f: Failure) -> Self {
        // What a server refuses for safety is told apart from what merely failed.
        let exit = match f.code.as_str() {
            "UNSAFE" | "STALE_PLAN" | "LAST_NODE" | "SOLE_HOLDER" => Exit::Refused,
            _ => Exit::Failed,
        };
        Self::Failed(exit, f)
    }
}
