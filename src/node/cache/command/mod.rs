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
/// An empty bucket.
const VACANT: u16 = u16::MAX;

struct Table {
    /// Commands by name; behind them all subcommands.
    specs: Vec<Spec>,
    commands: usize,
    /// Where each name's hash leads; a taken bucket passes on to the next.
    buckets: Box<[u16; BUCKETS]>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let mut specs: Vec<Spec> = FAMILIES.concat();
    specs.sort_unstable_by_key(|s| s.name);
    let commands = specs.len();
    for i in 0..commands {
        specs.extend_from_slice(specs[i].subcommands);
    }
    let mut buckets = Box::new([VACANT; BUCKETS]);
    for (i, spec) in specs.iter_mut().enumerate() {
        spec.index = i as u16;
        if i < commands {
            let mut at = bucket(spec.name.as_bytes());
            while buckets[at] != VACANT {
                at = (at + 1) % BUCKETS;
            }
            buckets[at] = i as u16;
        }
    }
    Table { specs, commands, buckets }
});

/// Length, first, middle and last letter, whatever their case, tell nearly all names apart.
fn bucket(name: &[u8]) -> usize {
    let letter = |i: usize| u32::from(name.get(i).copied().unwrap_or(0) | 0x20);
    let len = name.len() as u32;
    let mix = len.wrapping_mul(0x9E37)
        ^ letter(0).wrapping_mul(0x0101_F1B5)
        ^ letter(name.len() / 2).wrapping_mul(0x27D4_EB2F)
        ^ letter(name.len().wrapping_sub(1)).wrapping_mul(0x1656_67B1);
    (mix.wrapping_mul(0x9E37_79B1) >> 23) as usize % BUCKETS
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
    let mut at = bucket(name);
    while let Some(spec) = table.specs.get(usize::from(table.buckets[at])) {
        if spec.name.as_bytes().eq_ignore_ascii_case(name) {
            return Some(spec);
        }
        at = (at + 1) % BUCKETS;
    }
    None
}

impl Spec {
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

/// The command or subcommand that is meant, with a fitting number of arguments; or the error to answer with.
pub fn resolve(args: Args<'_>) -> Result<&'static Spec, ErrorReply> {
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
    fn most_names_hit_their_own_bucket() {
        let direct = top_level().iter().filter(|s| {
            let at = TABLE.buckets[bucket(s.name.as_bytes())];
            usize::from(at) == s.index()
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
