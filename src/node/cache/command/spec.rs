//! What a command is: its name, arity, keys, flags and body. One static table of these feeds dispatch, COMMAND and HELP.

use std::fmt;

use super::context::{ConnFn, KeyedFn, NodeFn};
use crate::proto::args::Args;
use crate::proto::slot::Slot;

/// Flags of a command, as COMMAND INFO names them; the order of the bits is the order of the names there.
pub mod flag {
    /// May change data.
    pub const WRITE: u16 = 1;
    /// Never changes data.
    pub const READONLY: u16 = 1 << 1;
    /// Refused when memory is full and nothing can be evicted.
    pub const DENYOOM: u16 = 1 << 2;
    /// For operators.
    pub const ADMIN: u16 = 1 << 3;
    /// Not from scripts.
    pub const NOSCRIPT: u16 = 1 << 4;
    /// Also while loading.
    pub const LOADING: u16 = 1 << 5;
    /// Also on a stale replica.
    pub const STALE: u16 = 1 << 6;
    /// Constant or logarithmic time.
    pub const FAST: u16 = 1 << 7;
    /// Also before authentication.
    pub const NO_AUTH: u16 = 1 << 8;
    /// Also while a script runs long.
    pub const ALLOW_BUSY: u16 = 1 << 9;

    pub(super) const NAMES: [&str; 10] =
        ["write", "readonly", "denyoom", "admin", "noscript", "loading", "stale", "fast", "no_auth", "allow_busy"];
}

/// ACL categories, as COMMAND INFO names them; the order of the bits is the order of the names there.
pub mod acl {
    /// Works on keys whatever their type.
    pub const KEYSPACE: u16 = 1;
    /// Reads data; follows from [`flag::READONLY`](super::flag::READONLY).
    pub const READ: u16 = 1 << 1;
    /// Writes data; follows from [`flag::WRITE`](super::flag::WRITE).
    pub const WRITE: u16 = 1 << 2;
    /// Works on strings.
    pub const STRING: u16 = 1 << 3;
    /// For operators; follows from [`flag::ADMIN`](super::flag::ADMIN).
    pub const ADMIN: u16 = 1 << 4;
    /// Follows from [`flag::FAST`](super::flag::FAST).
    pub const FAST: u16 = 1 << 5;
    /// Everything that is not fast.
    pub const SLOW: u16 = 1 << 6;
    /// To be given with care.
    pub const DANGEROUS: u16 = 1 << 7;
    /// About the connection.
    pub const CONNECTION: u16 = 1 << 8;

    pub(super) const NAMES: [&str; 9] =
        ["@keyspace", "@read", "@write", "@string", "@admin", "@fast", "@slow", "@dangerous", "@connection"];
}

/// Which arguments are keys, and what is done to them.
#[derive(Debug, Clone, Copy)]
pub struct KeySpec {
    /// Index of the first one.
    pub at: u8,
    /// The last one, counted from `at`; −1 = to the last argument.
    pub last: i8,
    /// From one to the next.
    pub step: u8,
    /// `RO RW OW RM` and what for, as in Redis's key specifications.
    pub flags: &'static [&'static str],
}

impl KeySpec {
    /// One key.
    pub const fn one(at: u8, flags: &'static [&'static str]) -> Self {
        Self { at, last: 0, step: 1, flags }
    }

    /// All arguments from the first on, every `step`th.
    pub const fn rest(step: u8, flags: &'static [&'static str]) -> Self {
        Self { at: 1, last: -1, step, flags }
    }
}

/// What a command works on, and its body.
#[derive(Clone, Copy)]
pub enum Kind {
    /// Keys of one slot: runs under that slot's shard lock, where this node is known to be primary.
    Keyed(KeyedFn),
    /// Only the connection's own state.
    Conn(ConnFn),
    /// The whole node.
    Node(NodeFn),
    /// Nothing by itself: it has subcommands. [`super::resolve`] never returns one.
    Container,
}

/// What people are told of a command (HELP, COMMAND DOCS).
#[derive(Debug, Clone, Copy)]
pub struct Doc {
    /// Its arguments, as HELP shows them.
    pub usage: &'static str,
    /// One line.
    pub summary: &'static str,
    /// The version of Redis that had it first.
    pub since: &'static str,
    /// `string generic connection server cluster`.
    pub group: &'static str,
    /// Time complexity.
    pub complexity: &'static str,
}

/// One command or subcommand.
#[derive(Clone, Copy)]
pub struct Spec {
    /// Lower case; a subcommand's holds its container's: `client|id`.
    pub name: &'static str,
    /// How many arguments, the name included (and the container's); −n = n or more.
    pub arity: i16,
    /// Bits of [`flag`].
    pub flags: u16,
    /// Where its keys are; empty = it has none.
    pub keys: &'static [KeySpec],
    /// Index of the first key; 0 = none.
    pub first_key: i16,
    /// Index of the last key; negative = from the end, −1 the last argument.
    pub last_key: i16,
    /// From key to key.
    pub step: i16,
    /// What routing clients should know, as Redis words it.
    pub tips: &'static [&'static str],
    /// Its body.
    pub kind: Kind,
    /// Its subcommands.
    pub subcommands: &'static [Spec],
    /// What people are told.
    pub doc: Doc,
    acl: u16,
    pub(super) index: u16,
    /// The beginning of its name as a number.
    pub(super) packed: u64,
}

impl fmt::Debug for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Spec {
    /// Its class, as metrics name them: read, write, other.
    pub fn class(&self) -> usize {
        match self.flags {
            f if f & flag::READONLY != 0 => 0,
            f if f & flag::WRITE != 0 => 1,
            _ => 2,
        }
    }

    /// Works on the whole node or on any number of keys.
    pub fn may_be_slow(&self) -> bool {
        !matches!(self.kind, Kind::Keyed(_)) || self.last_key < 0
    }

    /// The first key of a command, if it has one.
    pub fn first_key_of<'a>(&self, args: Args<'a>) -> Option<&'a [u8]> {
        let at = usize::try_from(self.first_key).ok().filter(|at| *at > 0)?;
        args.get(at)
    }

    const fn new(name: &'static str, arity: i16, kind: Kind) -> Self {
        Self {
            name,
            arity,
            flags: 0,
            keys: &[],
            first_key: 0,
            last_key: 0,
            step: 0,
            tips: &[],
            kind,
            subcommands: &[],
            doc: Doc { usage: "", summary: "", since: "", group: "", complexity: "O(1)" },
            acl: 0,
            index: 0,
            packed: 0,
        }
    }

    pub(super) const fn keyed(name: &'static str, arity: i16, body: KeyedFn) -> Self {
        Self::new(name, arity, Kind::Keyed(body))
    }

    pub(super) const fn conn(name: &'static str, arity: i16, body: ConnFn) -> Self {
        Self::new(name, arity, Kind::Conn(body))
    }

    pub(super) const fn node(name: &'static str, arity: i16, body: NodeFn) -> Self {
        Self::new(name, arity, Kind::Node(body))
    }

    pub(super) const fn container(name: &'static str, subcommands: &'static [Spec]) -> Self {
        Self::new(name, -2, Kind::Container).containing(subcommands)
    }

    pub(super) const fn containing(mut self, subcommands: &'static [Spec]) -> Self {
        self.subcommands = subcommands;
        self
    }

    pub(super) const fn with(mut self, flags: u16, acl: u16) -> Self {
        self.flags = flags;
        self.acl = acl;
        self
    }

    pub(super) const fn at(mut self, keys: &'static [KeySpec]) -> Self {
        self.keys = keys;
        self.first_key = keys[0].at as i16;
        self.step = keys[0].step as i16;
        let end = keys[keys.len() - 1];
        self.last_key = if end.last < 0 { end.last as i16 } else { end.at as i16 + end.last as i16 };
        self
    }

    pub(super) const fn tips(mut self, tips: &'static [&'static str]) -> Self {
        self.tips = tips;
        self
    }

    pub(super) const fn doc(
        mut self,
        group: &'static str,
        since: &'static str,
        usage: &'static str,
        summary: &'static str,
    ) -> Self {
        self.doc = Doc { usage, summary, since, group, complexity: self.doc.complexity };
        self
    }

    pub(super) const fn complexity(mut self, complexity: &'static str) -> Self {
        self.doc.complexity = complexity;
        self
    }

    /// Its place in [`super::all`], for tables of counters.
    pub fn index(&self) -> usize {
        self.index as usize
    }

    /// The name without its container's.
    pub fn own_name(&self) -> &'static str {
        self.name.split_once('|').map_or(self.name, |(_, own)| own)
    }

    /// Whether any of these [`flag`]s is set.
    pub fn has(&self, flags: u16) -> bool {
        self.flags & flags != 0
    }

    /// Whether so many arguments fit.
    pub fn takes(&self, len: usize) -> bool {
        let arity = usize::from(self.arity.unsigned_abs());
        if self.arity < 0 { len >= arity } else { len == arity }
    }

    /// The names of its flags.
    pub fn flag_names(&self) -> impl Iterator<Item = &'static str> + Clone {
        names(self.flags, &flag::NAMES)
    }

    /// The names of its ACL categories: its own, and those that follow from its flags.
    pub fn acl_names(&self) -> impl Iterator<Item = &'static str> + Clone {
        let mut acl = self.acl | if self.has(flag::FAST) { acl::FAST } else { acl::SLOW };
        for (flag, implied) in
            [(flag::WRITE, acl::WRITE), (flag::READONLY, acl::READ), (flag::ADMIN, acl::ADMIN | acl::DANGEROUS)]
        {
            if self.has(flag) {
                acl |= implied;
            }
        }
        names(acl, &acl::NAMES)
    }

    /// Which of `len` arguments are keys.
    pub fn key_indices(&self, len: usize) -> impl Iterator<Item = usize> + use<> {
        let first = self.first_key.max(0) as usize;
        let end = if self.last_key < 0 {
            (len + 1).saturating_sub(self.last_key.unsigned_abs() as usize)
        } else {
            (self.last_key as usize + 1).min(len)
        };
        let range = if first == 0 { 0..0 } else { first..end };
        range.step_by(self.step.max(1) as usize)
    }

    /// The key arguments.
    pub fn keys<'a>(&self, args: Args<'a>) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.key_indices(args.len()).filter_map(move |i| args.get(i))
    }

    /// Whether its only key is its second word.
    pub fn has_one_key(&self, args: Args<'_>) -> bool {
        self.first_key == 1 && (self.last_key == 1 || args.len() == 2)
    }

    /// The one slot of all its keys; none if it has no keys.
    pub fn slot(&self, args: Args<'_>) -> Result<Option<Slot>, CrossSlot> {
        let mut keys = self.keys(args);
        let Some(first) = keys.next() else {
            return Ok(None);
        };
        let slot = Slot::of_key(first);
        if keys.any(|k| Slot::of_key(k) != slot) { Err(CrossSlot) } else { Ok(Some(slot)) }
    }
}

/// The keys of one command are in several slots; answered with [`super::error::CROSSSLOT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrossSlot;

fn names(bits: u16, all: &'static [&'static str]) -> impl Iterator<Item = &'static str> + Clone {
    all.iter().enumerate().filter(move |(i, _)| bits & (1 << i) != 0).map(|(_, name)| *name)
}
