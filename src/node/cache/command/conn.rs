//! What a node remembers of one client connection, and how CLIENT LIST shows it.

use std::fmt::Write as _;

use super::spec::Spec;
use crate::proto::reply::{Proto, Reply};

/// The longest name or library name a client may give itself, bytes. They live as long as the connection and are repeated in
/// every CLIENT LIST, so they get a bound; Redis has none.
pub const CLIENT_NAME_MAX: usize = 1024;

/// CLIENT REPLY: which commands get a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReplyMode {
    /// All.
    #[default]
    On,
    /// None, until CLIENT REPLY ON.
    Off,
    /// The next one gets none.
    SkipNext,
    /// The one under way gets none.
    Skip,
}

/// One connection's own state.
#[derive(Debug, Clone, Default)]
pub struct ConnState {
    /// Never reused while the process lives.
    pub id: u64,
    /// CLIENT SETNAME; empty = none.
    pub name: Vec<u8>,
    /// CLIENT SETINFO LIB-NAME; empty = none.
    pub lib_name: Vec<u8>,
    /// CLIENT SETINFO LIB-VER; empty = none.
    pub lib_ver: Vec<u8>,
    /// Which protocol its replies are in.
    pub proto: Proto,
    /// The client's address, host:port.
    pub addr: String,
    /// The address it connected to, host:port.
    pub laddr: String,
    /// Its socket's descriptor; 0 where there is none.
    pub fd: i32,
    /// When it connected, milliseconds on [`Now::mono_ms`](crate::node::cache::store::Now::mono_ms).
    pub created_ms: u64,
    /// When its last command arrived, likewise.
    pub active_ms: u64,
    /// Its last command.
    pub last_cmd: Option<&'static Spec>,
    /// CLIENT REPLY.
    pub reply: ReplyMode,
    /// CLIENT NO-EVICT: remembered, without effect.
    pub no_evict: bool,
    /// CLIENT NO-TOUCH: its reads leave the LRU alone.
    pub no_touch: bool,
    /// READONLY: remembered, without effect, since backups answer nothing.
    pub readonly: bool,
    /// ASKING: remembered until the next command, without effect.
    pub asking: bool,
    /// QUIT or CLIENT KILL: close it once this reply has left.
    pub close_after_reply: bool,
}

impl ConnState {
    /// A new connection.
    pub fn new(id: u64, addr: String, laddr: String, now_ms: u64) -> Self {
        Self { id, addr, laddr, created_ms: now_ms, active_ms: now_ms, ..Self::default() }
    }

    /// Ends one command whose reply starts at `start`: takes the reply back if the client wants none, and moves CLIENT REPLY
    /// SKIP on. Call it once for every command, refused ones too.
    pub fn settle(&mut self, out: &mut Reply<'_>, start: usize) {
        self.asking = self.asking && self.last_cmd.is_some_and(|c| c.name == "asking");
        match self.reply {
            ReplyMode::On => {}
            ReplyMode::Off => out.truncate(start),
            ReplyMode::SkipNext => {
                out.truncate(start);
                self.reply = ReplyMode::Skip;
            }
            ReplyMode::Skip => {
                out.truncate(start);
                self.reply = ReplyMode::On;
            }
        }
    }

    /// RESET: as if it had just connected; it keeps its id, age and library.
    pub fn reset(&mut self) {
        self.name.clear();
        self.proto = Proto::Resp2;
        self.reply = ReplyMode::On;
        self.no_evict = false;
        self.no_touch = false;
        self.readonly = false;
        self.asking = false;
    }

    /// A copy for CLIENT LIST; the runtime adds descriptor and buffers.
    pub fn info(&self, now_ms: u64) -> ClientInfo {
        ClientInfo {
            id: self.id,
            addr: self.addr.clone(),
            laddr: self.laddr.clone(),
            fd: self.fd,
            name: self.name.clone(),
            lib_name: self.lib_name.clone(),
            lib_ver: self.lib_ver.clone(),
            age_s: now_ms.saturating_sub(self.created_ms) / 1000,
            idle_s: now_ms.saturating_sub(self.active_ms) / 1000,
            cmd: self.last_cmd.map_or("NULL", |c| c.name),
            proto: self.proto,
            closing: self.close_after_reply,
            readonly: self.readonly,
            no_evict: self.no_evict,
            no_touch: self.no_touch,
            ..ClientInfo::default()
        }
    }
}

/// One client as others see it.
#[derive(Debug, Clone, Default)]
pub struct ClientInfo {
    /// As CLIENT ID says.
    pub id: u64,
    /// The client's address, host:port.
    pub addr: String,
    /// The address it connected to, host:port.
    pub laddr: String,
    /// File descriptor; −1 if unknown.
    pub fd: i32,
    /// CLIENT SETNAME.
    pub name: Vec<u8>,
    /// CLIENT SETINFO LIB-NAME.
    pub lib_name: Vec<u8>,
    /// CLIENT SETINFO LIB-VER.
    pub lib_ver: Vec<u8>,
    /// Since it connected, seconds.
    pub age_s: u64,
    /// Since its last command arrived, seconds.
    pub idle_s: u64,
    /// Its last command; `NULL` before the first.
    pub cmd: &'static str,
    /// Which protocol.
    pub proto: Proto,
    /// About to be closed.
    pub closing: bool,
    /// READONLY.
    pub readonly: bool,
    /// CLIENT NO-EVICT.
    pub no_evict: bool,
    /// CLIENT NO-TOUCH.
    pub no_touch: bool,
    /// Bytes read and not yet executed.
    pub query_bytes: usize,
    /// Free bytes in its read buffer.
    pub query_free: usize,
    /// Replies not yet sent: how many commands'.
    pub replies_held: usize,
    /// Bytes of replies not yet sent.
    pub reply_bytes: usize,
}

impl ClientInfo {
    fn flags(&self) -> String {
        let mut flags = String::new();
        for (set, letter) in [(self.closing, 'c'), (self.readonly, 'r'), (self.no_evict, 'e'), (self.no_touch, 'T')] {
            if set {
                flags.push(letter);
            }
        }
        if flags.is_empty() { "N".into() } else { flags }
    }

    /// Its line of CLIENT LIST, without the newline. Names hold printable ASCII only, so this is text.
    pub fn line(&self) -> String {
        let text = String::from_utf8_lossy;
        let mut s = String::with_capacity(256);
        // Writing to a String can't fail.
        let _ = write!(
            s,
            "id={} addr={} laddr={} fd={} name={} age={} idle={} flags={} db=0 sub=0 psub=0 ssub=0 multi=-1 qbuf={} \
             qbuf-free={} argv-mem=0 multi-mem=0 rbs={} rbp={} obl={} oll={} omem={} tot-mem={} events=r cmd={} \
             user=default redir=-1 resp={} lib-name={} lib-ver={}",
            self.id,
            self.addr,
            self.laddr,
            self.fd,
            text(&self.name),
            self.age_s,
            self.idle_s,
            self.flags(),
            self.query_bytes,
            self.query_free,
            self.reply_bytes,
            self.reply_bytes,
            self.reply_bytes,
            self.replies_held,
            self.reply_bytes,
            self.query_bytes + self.query_free + self.reply_bytes,
            self.cmd,
            match self.proto {
                Proto::Resp2 => 2,
                Proto::Resp3 => 3,
            },
            text(&self.lib_name),
            text(&self.lib_ver),
        );
        s
    }
}

/// Whether these bytes may stand in CLIENT LIST: printable, no spaces, bounded.
pub fn is_plain(name: &[u8]) -> bool {
    name.len() <= CLIENT_NAME_MAX && name.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skipped_reply_is_the_next_one_only() {
        let mut conn = ConnState { reply: ReplyMode::SkipNext, ..ConnState::default() };
        let mut buf = Vec::new();
        let mut out = Reply::new(&mut buf, Proto::Resp2);
        let sent: Vec<usize> = (0..3)
            .map(|_| {
                let start = out.len();
                out.ok();
                conn.settle(&mut out, start);
                out.len() - start
            })
            .collect();
        // The first is CLIENT REPLY SKIP itself.
        assert_eq!(sent, [0, 0, 5]);
    }

    #[test]
    fn names_stay_in_their_field_of_the_line() {
        for bad in [&b"a b"[..], b"a\nid=1", b"\x1b[2J", b"\xff", &[b'a'; CLIENT_NAME_MAX + 1]] {
            assert!(!is_plain(bad));
        }
        assert!(is_plain(b"worker-1[%]"));
        let line = ClientInfo { id: 7, cmd: "client|list", name: b"w".to_vec(), ..ClientInfo::default() }.line();
        assert!(line.starts_with("id=7 addr= laddr= fd=0 name=w age=0 idle=0 flags=N db=0 "), "{line}");
        assert!(line.contains(" cmd=client|list user=default redir=-1 resp=2 "), "{line}");
    }
}
