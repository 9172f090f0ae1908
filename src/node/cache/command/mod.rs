//! The commands clients may send, with Redis 7's replies and error texts.
//!
//! ```text
//! args ─▶ resolve ─▶ Spec ─▶ slot(args) ─▶ Kind::Keyed  under the slot's lock, over a Txn     ┐
//!           │ Err(ErrorReply)              Kind::Conn   over the connection's state           ├─▶ Reply
//!           ▼                              Kind::Node   over the Host (whole node)            ┘
//! ```
//!
//! One static table feeds dispatch, COMMAND, HELP and the key positions that routing rests on. What is not in it gets Redis's
//! unknown-command text. Where values, times and errors are concerned, replies are those of Redis 7.0, byte for byte;
//! `tests/commands` compares them with a real one and names the differences.

pub mod client;
pub mod cluster;
pub mod config;
pub mod conn;
pub mod connection;
pub mod context;
pub mod counter;
pub mod error;
pub mod expire;
pub mod extended;
pub mod glob;
pub mod host;
pub mod info;
pub mod introspect;
pub mod key;
pub mod parse;
pub mod scan;
pub mod server;
pub mod slowlog;
pub mod spec;
pub mod string;
pub mod topology;
mod usage;

use std::sync::LazyLock;

pub use conn::{ClientInfo, ConnState, ReplyMode};
pub use context::{ConnCtx, Keyed, KeyedFn, NodeCtx};
pub use error::ErrorReply;
pub use host::{CommandCount, Facts, Held, Host, Settings};
pub use slowlog::Slowlog;
pub use spec::{CrossSlot, Kind, Spec, flag};
pub use topology::ClusterView;

use crate::proto::args::Args;

/// The version of Redis whose replies these are, as HELLO and INFO tell it.
pub const REDIS_VERSION: &str = "7.0.15";
/// The longest value, bytes: Redis's proto-max-bulk-len.
pub const VALUE_MAX: usize = 512 << 20;
/// The one user there is.
const USER: &str = "default";

const FAMILIES: &[&[Spec]] = &[
    client::COMMANDS,
    cluster::COMMANDS,
    config::COMMANDS,
    connection::COMMANDS,
    counter::COMMANDS,
    expire::COMMANDS,
    info::COMMANDS,
    introspect::COMMANDS,
    key::COMMANDS,
    scan::COMMANDS,
    server::COMMANDS,
    string::COMMANDS,
];

/// Buckets of the name table: a power of two, several times the number of commands, so that most names hit at once.
const BUCKETS: usize = 512;

/// A name's number, its length and its command's index; all zeros = vacant.
#[derive(Clone, Copy, Default)]
struct Bucket {
    packed: u64,
    len: u8,
    spec: u16,
}

struct Table {
    /// Commands by name; behind them all subcommands.
    specs: Vec<Spec>,
    commands: usize,
    /// Where each name's hash leads; a taken bucket passes on to the next.
    buckets: Box<[Bucket; BUCKETS]>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let mut specs: Vec<Spec> = FAMILIES.concat();
    specs.sort_unstable_by_key(|s| s.name);
    let commands = specs.len();
    for i in 0..commands {
        specs.extend_from_slice(specs[i].subcommands);
    }
    let mut buckets = Box::new([Bucket::default(); BUCKETS]);
    for (i, spec) in specs.iter_mut().enumerate() {
        spec.index = i as u16;
        spec.packed = packed(spec.name.as_bytes());
        if i < commands {
            let (packed, len) = (spec.packed, spec.name.len());
            let mut at = bucket(packed, len);
            while buckets[at].packed != 0 {
                at = (at + 1) % BUCKETS;
            }
            buckets[at] = Bucket { packed, len: len as u8, spec: i as u16 };
        }
    }
    Table { specs, commands, buckets }
});

/// Names of up to this length are compared as one number.
const SHORT: usize = 8;
/// What makes letters small, whatever their case.
const SMALL: u64 = 0x2020_2020_2020_2020;

/// A short name of letters as a number, the same in any case; 0 is no name's. No other bytes give the number of letters.
#[inline]
fn packed(name: &[u8]) -> u64 {
    let n = name.len().min(SHORT);
    let number = |bytes: &[u8; 4]| u64::from(u32::from_le_bytes(*bytes));
    // A copy of so few bytes would be a call.
    let bytes = match *name {
        [] => 0,
        [a] => number(&[a, 0, 0, 0]),
        [a, b] => number(&[a, b, 0, 0]),
        [a, b, c] => number(&[a, b, c, 0]),
        // Two halves that may overlap.
        _ => match (name[..n].first_chunk(), name[..n].last_chunk()) {
            (Some(low), Some(high)) => number(low) | number(high) << (8 * (n - 4)),
            _ => 0,
        },
    };
    // Zeros behind the name stay: no byte of it is one then.
    bytes | SMALL.checked_shr(8 * (SHORT - n) as u32).unwrap_or(0)
}

fn bucket(packed: u64, len: usize) -> usize {
    ((packed ^ len as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - BUCKETS.ilog2())) as usize
}

/// Every command and subcommand, each at its [`Spec::index`].
pub fn all() -> &'static [Spec] {
    &TABLE.specs
}

/// The commands alone, by name.
pub fn top_level() -> &'static [Spec] {
    &TABLE.specs[..TABLE.commands]
}

/// The command of this name, in any case; subcommands are found by [`Spec::subcommand`].
pub fn lookup(name: &[u8]) -> Option<&'static Spec> {
    let table = &*TABLE;
    let key = packed(name);
    let mut at = bucket(key, name.len());
    loop {
        let Bucket { packed, len, spec } = table.buckets[at];
        if packed == 0 {
            return None;
        }
        if packed == key && usize::from(len) == name.len() {
            let spec = table.specs.get(usize::from(spec))?;
            if spec.is_called(name) {
                return Some(spec);
            }
        }
        at = (at + 1) % BUCKETS;
    }
}

impl Spec {
    /// Whether this is the name of it, in any case.
    #[inline]
    fn is_called(&self, name: &[u8]) -> bool {
        // Of a short name all is in the number.
        self.name.len() == name.len()
            && self.packed == packed(name)
            && (name.len() <= SHORT || self.name.as_bytes().eq_ignore_ascii_case(name))
    }

    /// Its subcommand of this name, in any case.
    pub fn subcommand(&self, name: &[u8]) -> Option<&'static Spec> {
        let i = self.subcommands.iter().position(|s| s.own_name().as_bytes().eq_ignore_ascii_case(name))?;
        let full = self.subcommands[i].name;
        // The table's copy: it alone has its index.
        all()[TABLE.commands..].iter().find(|s| s.name == full)
    }
}

/// A command (`get`) or a subcommand (`client|id`).
fn find(name: &[u8]) -> Option<&'static Spec> {
    match name.iter().position(|&b| b == b'|') {
        None => lookup(name),
        Some(at) => lookup(&name[..at])?.subcommand(&name[at + 1..]),
    }
}

/// The container of a subcommand.
fn containers_of(sub: &Spec) -> Option<&'static Spec> {
    lookup(sub.name.split_once('|')?.0.as_bytes())
}

/// The command or subcommand that is meant, with a fitting number of arguments; or the error to answer with. It is often the
/// `last` one again.
#[inline]
pub fn resolve(args: Args<'_>, last: Option<&'static Spec>) -> Result<&'static Spec, ErrorReply> {
    if let Some(last) = last
        && matches!(last.kind, Kind::Keyed(_))
        && args.get(0).is_some_and(|name| last.is_called(name))
        && last.takes(args.len())
    {
        return Ok(last);
    }
    look_up(args)
}

fn look_up(args: Args<'_>) -> Result<&'static Spec, ErrorReply> {
    let name = args.get(0).unwrap_or_default();
    let Some(base) = lookup(name) else {
        return Err(error::unknown_command(name, args.iter_from(1)));
    };
    let spec = match args.get(1) {
        Some(sub) if !base.subcommands.is_empty() => {
            base.subcommand(sub).ok_or_else(|| error::unknown_subcommand(name, sub))?
        }
        _ => base,
    };
    if matches!(spec.kind, Kind::Container) || !spec.takes(args.len()) {
        return Err(error::wrong_arity(spec.name));
    }
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_once_whatever_its_case() {
        for (i, spec) in all().iter().enumerate() {
            assert_eq!(spec.index(), i);
            let found = find(spec.name.to_ascii_uppercase().as_bytes()).unwrap();
            assert_eq!(found.index(), i, "{}", spec.name);
            assert_eq!(spec.name, spec.name.to_ascii_lowercase());
            assert!(!spec.doc.summary.is_empty() && !spec.doc.since.is_empty() && !spec.doc.group.is_empty());
        }
        for missing in ["", "ge", "gett", "lpush", "multi", "eval", "subscribe", "debug", "client|id", "\u{e9}"] {
            assert!(lookup(missing.as_bytes()).is_none(), "{missing}");
        }
    }

    #[test]
    fn only_letters_pass_for_letters() {
        for spec in top_level().iter().filter(|s| s.name.len() <= SHORT) {
            assert!(spec.name.bytes().all(|b| b.is_ascii_lowercase()), "{}", spec.name);
            for at in 0..spec.name.len() {
                for byte in 0..=255u8 {
                    let mut name = spec.name.as_bytes().to_vec();
                    name[at] = byte;
                    let same = name.eq_ignore_ascii_case(spec.name.as_bytes());
                    assert_eq!(lookup(&name).is_some_and(|s| s.index() == spec.index()), same, "{name:?}");
                }
            }
        }
        assert!(lookup(&[0; 3]).is_none() && lookup(b"get\0").is_none() && lookup(&[0; 300]).is_none());
    }

    #[test]
    fn most_names_hit_their_own_bucket() {
        let direct = top_level().iter().filter(|s| {
            let name = s.name.as_bytes();
            usize::from(TABLE.buckets[bucket(packed(name), name.len())].spec) == s.index()
        });
        assert!(direct.count() * 10 >= top_level().len() * 8);
    }

    #[test]
    fn keyed_commands_have_keys_and_others_none() {
        for spec in all() {
            assert_eq!(matches!(spec.kind, Kind::Keyed(_)), spec.first_key > 0, "{}", spec.name);
        }
    }
}
