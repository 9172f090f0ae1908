//! What a command's body gets to work with, by the kind of the command.

use super::conn::ConnState;
use super::error::{ErrorReply, Stop};
use super::host::Host;
use super::spec::Spec;
use crate::node::cache::store::{NeedRoom, Txn};
use crate::proto::args::Args;
use crate::proto::reply::Reply;

/// The body of a command on keys of one slot.
pub type KeyedFn = fn(&mut Keyed<'_, '_>) -> Result<(), Stop>;
/// The body of a command on the connection.
pub type ConnFn = fn(&mut ConnCtx<'_, '_>) -> Result<(), ErrorReply>;
/// The body of a command on the node.
pub type NodeFn = fn(&mut NodeCtx<'_, '_>) -> Result<(), ErrorReply>;

/// Scratch memory above this is given back after a command, bytes: one huge APPEND must not pin its size for ever.
pub const SCRATCH_KEEP: usize = 64 << 10;

/// One command at work in one slot.
pub struct Keyed<'a, 'r> {
    /// Which.
    pub spec: &'static Spec,
    /// With what.
    pub args: Args<'a>,
    /// The slot.
    pub txn: Txn<'a>,
    /// The reply.
    pub out: &'a mut Reply<'r>,
    /// Who asks.
    pub conn: &'a mut ConnState,
    /// For values under change; its content means nothing between commands.
    pub scratch: &'a mut Vec<u8>,
}

impl Keyed<'_, '_> {
    /// Runs the body; errors become the reply.
    ///
    /// On `Err` nothing was written and nothing changed but keys whose deadline had passed: their DELs are in the
    /// transaction's effects already and must be kept while the command is run again.
    pub fn run(&mut self, body: KeyedFn) -> Result<(), NeedRoom> {
        let start = self.out.len();
        let end = body(self);
        if self.scratch.capacity() > SCRATCH_KEEP {
            *self.scratch = Vec::new();
        }
        match end {
            Ok(()) => Ok(()),
            Err(Stop::NeedRoom(need)) => {
                self.out.truncate(start);
                Err(need)
            }
            Err(Stop::Error(e)) => {
                self.out.truncate(start);
                self.out.error_bytes(e.bytes());
                Ok(())
            }
        }
    }
}

/// The value for a reading client: counts as an access unless it asked for CLIENT NO-TOUCH.
pub fn read<'t>(txn: &'t mut Txn<'_>, conn: &ConnState, key: &[u8]) -> Option<&'t [u8]> {
    if conn.no_touch { txn.peek(key) } else { txn.get(key) }
}

/// One command at work on its connection.
pub struct ConnCtx<'a, 'r> {
    /// Which.
    pub spec: &'static Spec,
    /// With what.
    pub args: Args<'a>,
    /// The reply.
    pub out: &'a mut Reply<'r>,
    /// Who asks.
    pub conn: &'a mut ConnState,
}

impl ConnCtx<'_, '_> {
    /// Runs the body; errors become the reply.
    pub fn run(&mut self, body: ConnFn) {
        let start = self.out.len();
        if let Err(e) = body(self) {
            self.out.truncate(start);
            self.out.error_bytes(e.bytes());
        }
    }
}

/// One command at work on the whole node.
pub struct NodeCtx<'a, 'r> {
    /// Which.
    pub spec: &'static Spec,
    /// With what.
    pub args: Args<'a>,
    /// The reply.
    pub out: &'a mut Reply<'r>,
    /// Who asks.
    pub conn: &'a mut ConnState,
    /// The node.
    pub host: &'a mut dyn Host,
}

impl NodeCtx<'_, '_> {
    /// Runs the body; errors become the reply.
    pub fn run(&mut self, body: NodeFn) {
        let start = self.out.len();
        if let Err(e) = body(self) {
            self.out.truncate(start);
            self.out.error_bytes(e.bytes());
        }
    }
}
