//! The slow log: the last commands that took longer than a threshold (SLOWLOG).

use std::collections::VecDeque;

use crate::proto::args::Args;

/// Arguments kept of one command; what was left off is counted in the last one. As in Redis, so that tools read it alike.
pub const ARGS_MAX: usize = 32;
/// Bytes kept of one argument; what was cut off is counted at its end.
pub const ARG_BYTES_MAX: usize = 128;
/// Entries kept, whatever `slowlog-max-len` says: an entry is up to 4 KiB, so this is a bound of 64 MiB.
pub const LEN_HARD_MAX: u64 = 16 << 10;

/// One slow command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlowEntry {
    /// Rises by one, also over RESET.
    pub id: u64,
    /// When it was executed, seconds since 1970.
    pub at_s: u64,
    /// How long it took, microseconds.
    pub usec: u64,
    /// The command, cut to [`ARGS_MAX`] and [`ARG_BYTES_MAX`].
    pub args: Vec<Vec<u8>>,
    /// The client's address, host:port.
    pub addr: String,
    /// The client's name.
    pub name: Vec<u8>,
}

/// The last slow commands, newest first.
#[derive(Debug)]
pub struct Slowlog {
    entries: VecDeque<SlowEntry>,
    next_id: u64,
    max_len: u64,
}

impl Slowlog {
    /// Keeps the last `max_len`, at most [`LEN_HARD_MAX`].
    pub fn new(max_len: u64) -> Self {
        Self { entries: VecDeque::new(), next_id: 0, max_len: max_len.min(LEN_HARD_MAX) }
    }

    /// `slowlog-max-len` changed.
    pub fn set_max_len(&mut self, max_len: u64) {
        self.max_len = max_len.min(LEN_HARD_MAX);
        self.entries.truncate(self.max_len as usize);
    }

    /// Notes one command.
    pub fn push(&mut self, args: Args<'_>, at_s: u64, usec: u64, addr: &str, name: &[u8]) {
        let id = self.next_id;
        self.next_id += 1;
        if self.max_len == 0 {
            return;
        }
        self.entries.truncate(self.max_len as usize - 1);
        self.entries.push_front(SlowEntry {
            id,
            at_s,
            usec,
            args: cut(args),
            addr: addr.to_owned(),
            name: name.to_vec(),
        });
    }

    /// Newest first.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = &SlowEntry> {
        self.entries.iter()
    }

    /// How many it holds.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Forgets all; ids rise on.
    pub fn reset(&mut self) {
        self.entries.clear();
    }
}

fn cut(args: Args<'_>) -> Vec<Vec<u8>> {
    let kept = if args.len() > ARGS_MAX { ARGS_MAX - 1 } else { args.len() };
    let mut out: Vec<Vec<u8>> = args
        .iter_from(0)
        .take(kept)
        .map(|arg| match arg.split_at_checked(ARG_BYTES_MAX) {
            Some((head, rest)) if !rest.is_empty() => {
                let mut v = head.to_vec();
                v.extend_from_slice(format!("... ({} more bytes)", rest.len()).as_bytes());
                v
            }
            _ => arg.to_vec(),
        })
        .collect();
    if kept < args.len() {
        out.push(format!("... ({} more arguments)", args.len() - kept).into_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(log: &mut Slowlog, words: &[&str]) {
        let buf = words.concat();
        let mut at = 0;
        let ranges: Vec<(u32, u32)> = words
            .iter()
            .map(|w| {
                let start = at;
                at += w.len() as u32;
                (start, at)
            })
            .collect();
        log.push(Args::new(buf.as_bytes(), &ranges), 1, 2, "127.0.0.1:1", b"");
    }

    #[test]
    fn entries_and_their_arguments_are_bounded() {
        let mut log = Slowlog::new(2);
        let long = "x".repeat(200);
        push(&mut log, &["GET", &long]);
        let many = vec!["k"; 40];
        push(&mut log, &many);
        push(&mut log, &["PING"]);
        assert_eq!(log.entries().map(|e| e.id).collect::<Vec<_>>(), [2, 1]);
        let many = &log.entries().nth(1).unwrap().args;
        assert_eq!(many.len(), ARGS_MAX);
        assert_eq!(many[31], b"... (9 more arguments)");
        log.reset();
        push(&mut log, &["GET", &long]);
        let first = log.entries().next().unwrap();
        assert_eq!(first.id, 3);
        assert_eq!(first.args[1].len(), ARG_BYTES_MAX + "... (72 more bytes)".len());
        log.set_max_len(0);
        push(&mut log, &["PING"]);
        assert!(log.is_empty());
    }
}
