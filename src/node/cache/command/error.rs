//! The error replies that clients know: Redis's own texts, code first.

use std::borrow::Cow;

use crate::node::cache::store::NeedRoom;
use crate::proto::reply::Reply;
use crate::proto::slot::Slot;

/// How many bytes of an argument an error repeats; Redis cuts at the same length, so that an error stays one short line.
const QUOTED_MAX: usize = 128;

/// An error reply without its leading `-`. May hold bytes that a client sent; [`Reply::error_bytes`] keeps it one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorReply(Cow<'static, [u8]>);

impl ErrorReply {
    /// A fixed text.
    pub const fn text(text: &'static str) -> Self {
        Self(Cow::Borrowed(text.as_bytes()))
    }

    /// A text made of pieces, some of them a client's.
    pub fn of(pieces: &[&[u8]]) -> Self {
        Self(Cow::Owned(pieces.concat()))
    }

    /// What is sent.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Why a command ended before it replied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// Evict and run it again: nothing was changed, nothing written.
    NeedRoom(NeedRoom),
    /// Nothing was changed; this is the reply.
    Error(ErrorReply),
}

impl From<NeedRoom> for Stop {
    fn from(e: NeedRoom) -> Self {
        Stop::NeedRoom(e)
    }
}

impl From<ErrorReply> for Stop {
    fn from(e: ErrorReply) -> Self {
        Stop::Error(e)
    }
}

/// Options that don't fit the command.
pub const SYNTAX: ErrorReply = ErrorReply::text("ERR syntax error");
/// An argument that is no 64-bit integer.
pub const NOT_INTEGER: ErrorReply = ErrorReply::text("ERR value is not an integer or out of range");
/// An argument that is no float.
pub const NOT_FLOAT: ErrorReply = ErrorReply::text("ERR value is not a valid float");
/// RENAME of nothing.
pub const NO_SUCH_KEY: ErrorReply = ErrorReply::text("ERR no such key");
/// A value would pass [`super::VALUE_MAX`].
pub const TOO_LONG: ErrorReply = ErrorReply::text("ERR string exceeds maximum allowed size (proto-max-bulk-len)");

/// The slot's memory is full and nothing can be evicted; nothing was applied.
pub const OOM: ErrorReply = ErrorReply::text("OOM command not allowed when used memory > 'maxmemory'.");
/// The keys of one command are in several slots.
pub const CROSSSLOT: ErrorReply = ErrorReply::text("CROSSSLOT Keys in request don't hash to the same slot");
/// Nobody serves the slot; nothing was applied.
pub const CLUSTERDOWN_SLOT: ErrorReply = ErrorReply::text("CLUSTERDOWN Hash slot not served");
/// This node can't serve now; nothing was applied.
pub const CLUSTERDOWN: ErrorReply = ErrorReply::text("CLUSTERDOWN The cluster is down");
/// The slot is changing hands; nothing was applied.
pub const TRYAGAIN: ErrorReply = ErrorReply::text("TRYAGAIN Multiple keys request during rehashing of slot");
/// The write was applied here, but its backups did not confirm it in time.
pub const INDETERMINATE: ErrorReply = ErrorReply::text("INDETERMINATE the write may or may not have been applied");
/// Sent before closing a connection above `maxclients`.
pub const MAX_CLIENTS: ErrorReply = ErrorReply::text("ERR max number of clients reached");

/// `MOVED slot host:port`: the key's primary is elsewhere; nothing was applied.
pub fn moved(out: &mut Reply<'_>, slot: Slot, addr: &str) {
    out.error(&format!("MOVED {slot} {}", super::cluster::unbracketed(addr)));
}

/// `ERR wrong number of arguments for 'get' command`.
pub fn wrong_arity(name: &str) -> ErrorReply {
    ErrorReply::of(&[b"ERR wrong number of arguments for '", name.as_bytes(), b"' command"])
}

/// `ERR invalid expire time in 'set' command`.
pub fn invalid_expire(name: &str) -> ErrorReply {
    ErrorReply::of(&[b"ERR invalid expire time in '", name.as_bytes(), b"' command"])
}

/// The part of an argument that Redis repeats: up to the first NUL, at most `max` bytes.
pub fn quoted(arg: &[u8], max: usize) -> &[u8] {
    let end = arg.iter().position(|&b| b == 0).unwrap_or(arg.len());
    &arg[..end.min(max)]
}

/// The text for a name that is in no table: it repeats the first arguments, until these fill 128 bytes.
pub fn unknown_command<'a>(name: &[u8], args: impl Iterator<Item = &'a [u8]>) -> ErrorReply {
    let mut seen = Vec::with_capacity(2 * QUOTED_MAX);
    for arg in args {
        if seen.len() >= QUOTED_MAX {
            break;
        }
        let room = QUOTED_MAX - seen.len();
        seen.push(b'\'');
        seen.extend_from_slice(quoted(arg, room));
        seen.extend_from_slice(b"' ");
    }
    ErrorReply::of(&[b"ERR unknown command '", quoted(name, QUOTED_MAX), b"', with args beginning with: ", &seen])
}

/// The text for a container's unknown subcommand.
pub fn unknown_subcommand(container: &[u8], name: &[u8]) -> ErrorReply {
    ErrorReply::of(&[
        b"ERR unknown subcommand '",
        quoted(name, QUOTED_MAX),
        b"'. Try ",
        &quoted(container, QUOTED_MAX).to_ascii_uppercase(),
        b" HELP.",
    ])
}
