//! Commands on keys whatever they hold: DEL, EXISTS, RENAME, COPY, OBJECT, MEMORY USAGE and the like.

use super::context::Keyed;
use super::error::{ErrorReply, NO_SUCH_KEY, SYNTAX, Stop};
use super::parse::{i32_arg, int, int_arg, is};
use super::spec::{KeySpec, Spec, acl, flag};
use crate::node::cache::effect::Ttl;
use crate::node::cache::store::cost_of;

/// Databases a Redis has unless told otherwise; beyond them COPY … DB has a text of its own.
const REDIS_DATABASES: i32 = 16;
/// The longest value that Redis keeps in one piece with its object, bytes.
const EMBSTR_MAX: usize = 44;
/// The longest value that Redis tries to read as an integer, bytes.
const INT_LEN_MAX: usize = 20;

const WRITE: u16 = flag::WRITE;
const READ: u16 = flag::READONLY;
const FAST: u16 = flag::FAST;
const SECOND: &[KeySpec] = &[KeySpec::one(2, &["RO"])];
const NONDETERMINISTIC: &[&str] = &["nondeterministic_output"];
const SUM_OF_SHARDS: &[&str] = &["request_policy:multi_shard", "response_policy:agg_sum"];

const OBJECT: &[Spec] = &[
    Spec::keyed("object|encoding", 3, encoding).with(READ, acl::KEYSPACE).at(SECOND).tips(NONDETERMINISTIC).doc(
        "generic",
        "2.2.3",
        "<key>",
        "How Redis would keep the value: int, embstr or raw.",
    ),
    Spec::keyed("object|freq", 3, freq).with(READ, acl::KEYSPACE).at(SECOND).tips(NONDETERMINISTIC).doc(
        "generic",
        "4.0.0",
        "<key>",
        "Access frequency: not kept, since eviction goes by recency.",
    ),
    Spec::conn("object|help", 2, super::introspect::help).with(flag::LOADING | flag::STALE, acl::KEYSPACE).doc(
        "generic",
        "6.2.0",
        "",
        "This text.",
    ),
    Spec::keyed("object|idletime", 3, idletime).with(READ, acl::KEYSPACE).at(SECOND).tips(NONDETERMINISTIC).doc(
        "generic",
        "2.2.3",
        "<key>",
        "Since the last access, seconds.",
    ),
    Spec::keyed("object|refcount", 3, refcount).with(READ, acl::KEYSPACE).at(SECOND).tips(NONDETERMINISTIC).doc(
        "generic",
        "2.2.3",
        "<key>",
        "References to the value: 1, since values are not shared.",
    ),
];

const MEMORY: &[Spec] = &[
    Spec::conn("memory|help", 2, super::introspect::help).with(flag::LOADING | flag::STALE, 0).doc(
        "server",
        "4.0.0",
        "",
        "This text.",
    ),
    Spec::keyed("memory|usage", -3, memory_usage).with(READ, 0).at(SECOND).doc(
        "server",
        "4.0.0",
        "<key> [SAMPLES <count>]",
        "Bytes a key is accounted as: key, value and overhead.",
    ),
];

pub(super) const COMMANDS: &[Spec] = &[
    Spec::keyed("copy", -3, copy)
        .with(WRITE | flag::DENYOOM, acl::KEYSPACE)
        .at(&[KeySpec::one(1, &["RO", "access"]), KeySpec::one(2, &["OW", "update"])])
        .complexity("O(N) with N bytes of value")
        .doc("generic", "6.2.0", "<source> <destination> [DB 0] [REPLACE]", "Copies a key to another of its slot."),
    Spec::keyed("del", -2, del)
        .with(WRITE, acl::KEYSPACE)
        .at(&[KeySpec::rest(1, &["RM", "delete"])])
        .tips(SUM_OF_SHARDS)
        .complexity("O(N) with N keys")
        .doc("generic", "1.0.0", "<key> [<key> ...]", "Deletes keys of one slot."),
    Spec::keyed("exists", -2, exists)
        .with(READ | FAST, acl::KEYSPACE)
        .at(&[KeySpec::rest(1, &["RO"])])
        .tips(SUM_OF_SHARDS)
        .complexity("O(N) with N keys")
        .doc("generic", "1.0.0", "<key> [<key> ...]", "How many of these keys of one slot exist."),
    Spec::container("memory", MEMORY).doc("server", "4.0.0", "", "About memory."),
    Spec::container("object", OBJECT).doc("generic", "2.2.3", "", "About a value."),
    Spec::keyed("rename", 3, rename)
        .with(WRITE, acl::KEYSPACE)
        .at(&[KeySpec::one(1, &["RW", "access", "delete"]), KeySpec::one(2, &["OW", "update"])])
        .complexity("O(N) with N bytes of value")
        .doc("generic", "1.0.0", "<key> <newkey>", "Gives a key another name in its slot."),
    Spec::keyed("renamenx", 3, rename)
        .with(WRITE | FAST, acl::KEYSPACE)
        .at(&[KeySpec::one(1, &["RW", "access", "delete"]), KeySpec::one(2, &["OW", "insert"])])
        .complexity("O(N) with N bytes of value")
        .doc("generic", "1.0.0", "<key> <newkey>", "Gives a key another name in its slot, unless that is taken."),
    Spec::keyed("touch", -2, touch)
        .with(READ | FAST, acl::KEYSPACE)
        .at(&[KeySpec::rest(1, &["RO"])])
        .tips(SUM_OF_SHARDS)
        .complexity("O(N) with N keys")
        .doc("generic", "3.2.1", "<key> [<key> ...]", "Counts as an access of each key; how many exist."),
    Spec::keyed("type", 2, type_of).with(READ | FAST, acl::KEYSPACE).at(&[KeySpec::one(1, &["RO"])]).doc(
        "generic",
        "1.0.0",
        "<key>",
        "The type of a value: string, or none.",
    ),
    Spec::keyed("unlink", -2, del)
        .with(WRITE | FAST, acl::KEYSPACE)
        .at(&[KeySpec::rest(1, &["RM", "delete"])])
        .tips(SUM_OF_SHARDS)
        .complexity("O(N) with N keys")
        .doc("generic", "4.0.0", "<key> [<key> ...]", "Deletes keys of one slot, as DEL does."),
];

/// Counts the keys for which `hit` holds, one after the other.
fn count(c: &mut Keyed<'_, '_>, mut hit: impl FnMut(&mut Keyed<'_, '_>, &[u8]) -> bool) -> Result<(), Stop> {
    let mut n = 0;
    for key in c.args.iter_from(1) {
        n += i64::from(hit(c, key));
    }
    c.out.int(n);
    Ok(())
}

fn del(c: &mut Keyed<'_, '_>) -> Result<(), Stop> {
    count(c, |c, key| c.txn.del(key))
}

fn exists(c: &mut Keyed<'_, '_>) -> Result<(), Stop> {
    count(c, |c, key| c.txn.peek(key).is_some())
}

fn touch(c: &mut Keyed<'_, '_>) -> Result<(), Stop> {
    count(c, |c, key| c.txn.touch(key))
}

fn type_of(c: &mut Keyed<'_, '_>) -> Result<(), Stop> {
    let args = c.args;
    let there = c.txn.peek(&args[1]).is_some();
    c.out.simple(if there { "string" } else { "none" });
    Ok(())
}

fn rename(c: &mut Keyed<'_, '_>) -> Result<(), Stop> {
    let args = c.args;
    let (from, to) = (&args[1], &args[2]);
    let only_new = c.spec.name == "renamenx";
    let Some(meta) = c.txn.meta(from) else {
        return Err(NO_SUCH_KEY.into());
    };
    let taken = c.txn.meta(to);
    if only_new && taken.is_some() {
        c.out.int(0);
        return Ok(());
    }
    if from != to {
        let freed = meta.cost + taken.map_or(0, |m| m.cost);
        c.txn.reserve(cost_of(to.len(), meta.len).saturating_sub(freed))?;
        c.scratch.clear();
        c.scratch.extend_from_slice(c.txn.get(from).unwrap_or_default());
        // Deleted first, so that the value is never accounted twice and a full node can rename too.
        c.txn.pool();
        c.txn.del(from);
        c.txn.set(to, c.scratch, meta.deadline.map_or(Ttl::None, Ttl::At));
    }
    if only_new {
        c.out.int(1)
    } else {
        c.out.ok()
    }
    Ok(())
}

fn copy(c: &mut Keyed<'_, '_>) -> Result<(), Stop> {
    const NO_SUCH_DB: ErrorReply = ErrorReply::text("ERR DB index is out of range");
    const OTHER_DB: ErrorReply = ErrorReply::text("ERR Copying to another database is not allowed in cluster mode");
    const SAME: ErrorReply = ErrorReply::text("ERR source and destination objects are the same");
    let args = c.args;
    let (from, to) = (&args[1], &args[2]);
    let (mut replace, mut db) = (false, 0);
    let mut i = 3;
    while let Some(word) = args.get(i) {
        match args.get(i + 1) {
            _ if is(word, "replace") => replace = true,
            Some(n) if is(word, "db") => {
                db = i32_arg(n)?;
                if !(0..REDIS_DATABASES).contains(&db) {
                    return Err(NO_SUCH_DB.into());
                }
                i += 1;
            }
            _ => return Err(SYNTAX.into()),
        }
        i += 1;
    }
    if db != 0 {
        return Err(OTHER_DB.into());
    }
    if from == to {
        return Err(SAME.into());
    }
    let Some(meta) = c.txn.meta(from) else {
        c.out.int(0);
        return Ok(());
    };
    let taken = c.txn.meta(to);
    if taken.is_some() && !replace {
        c.out.int(0);
        return Ok(());
    }
    c.txn.reserve(cost_of(to.len(), meta.len).saturating_sub(taken.map_or(0, |m| m.cost)))?;
    c.scratch.clear();
    c.scratch.extend_from_slice(c.txn.get(from).unwrap_or_default());
    c.txn.set(to, c.scratch, meta.deadline.map_or(Ttl::None, Ttl::At));
    c.out.int(1);
    Ok(())
}

fn encoding(c: &mut Keyed<'_, '_>) -> Result<(), Stop> {
    let args = c.args;
    let name: Option<&[u8]> = c.txn.peek(&args[2]).map(|value| match value.len() {
        0..=INT_LEN_MAX if int(value).is_some() => &b"int"[..],
        0..=EMBSTR_MAX => b"embstr",
        _ => b"raw",
    });
    c.out.bulk_or_null(name);
    Ok(())
}

fn freq(c: &mut Keyed<'_, '_>) -> Result<(), Stop> {
    const NOT_KEPT: ErrorReply = ErrorReply::text(
        "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching \
         between policies at runtime LRU and LFU data will take some time to adjust.",
    );
    let args = c.args;
    if c.txn.peek(&args[2]).is_some() {
        return Err(NOT_KEPT.into());
    }
    c.out.null();
    Ok(())
}

fn idletime(c: &mut Keyed<'_, '_>) -> Result<(), Stop> {
    let args = c.args;
    match c.txn.meta(&args[2]) {
        Some(meta) => c.out.int((meta.idle_ms / 1000) as i64),
        None => c.out.null(),
    }
    Ok(())
}

fn refcount(c: &mut Keyed<'_, '_>) -> Result<(), Stop> {
    let args = c.args;
    match c.txn.peek(&args[2]) {
        Some(_) => c.out.int(1),
        None => c.out.null(),
    }
    Ok(())
}

fn memory_usage(c: &mut Keyed<'_, '_>) -> Result<(), Stop> {
    let args = c.args;
    // A value is one piece, so that there is nothing to sample; the option is checked and has no effect.
    match (args.len(), args.get(3), args.get(4)) {
        (3, ..) => {}
        (_, Some(word), Some(n)) if is(word, "samples") => {
            if int_arg(n)? < 0 || args.len() > 5 {
                return Err(SYNTAX.into());
            }
        }
        _ => return Err(SYNTAX.into()),
    }
    match c.txn.meta(&args[2]) {
        Some(meta) => c.out.int(meta.cost as i64),
        None => c.out.null(),
    }
    Ok(())
}
