//! Commands that read and write values: GET, SET and their relatives.

use super::VALUE_MAX;
use super::context::{Keyed, read};
use super::error::{ErrorReply, SYNTAX, Stop, TOO_LONG, wrong_arity};
use super::parse::{self, ExpireUnit, int_arg, is, positive_expire};
use super::spec::{KeySpec, Spec, acl, flag};
use crate::node::cache::effect::Ttl;
use crate::node::cache::store::{NeedRoom, Txn, cost_of};

const READ: u16 = flag::READONLY;
const WRITE: u16 = flag::WRITE;
const GROW: u16 = flag::WRITE | flag::DENYOOM;
const FAST: u16 = flag::FAST;

pub(super) const COMMANDS: &[Spec] = &[
    Spec::keyed("append", 3, append)
        .with(GROW | FAST, acl::STRING)
        .at(&[KeySpec::one(1, &["RW", "insert"])])
        .complexity("O(N) with N bytes of the new value")
        .doc("string", "2.0.0", "<key> <value>", "Adds bytes to the end of a value."),
    Spec::keyed("get", 2, get)
        .with(READ | FAST, acl::STRING)
        .at(&[KeySpec::one(1, &["RO", "access"])])
        .doc("string", "1.0.0", "<key>", "The value of a key."),
    Spec::keyed("getdel", 2, getdel)
        .with(WRITE | FAST, acl::STRING)
        .at(&[KeySpec::one(1, &["RW", "access", "delete"])])
        .doc("string", "6.2.0", "<key>", "The value of a key, which is deleted."),
    Spec::keyed("getex", -2, getex)
        .with(WRITE | FAST, acl::STRING)
        .at(&[KeySpec::one(1, &["RW", "access", "update"])])
        .doc(
            "string",
            "6.2.0",
            "<key> [EX seconds | PX milliseconds | EXAT unix-seconds | PXAT unix-milliseconds | PERSIST]",
            "The value of a key, whose expiry is set or removed.",
        ),
    Spec::keyed("getrange", 4, getrange)
        .with(READ, acl::STRING)
        .at(&[KeySpec::one(1, &["RO", "access"])])
        .complexity("O(N) with N bytes returned")
        .doc("string", "2.4.0", "<key> <start> <end>", "A part of a value; negative offsets count from its end."),
    Spec::keyed("getset", 3, getset)
        .with(GROW | FAST, acl::STRING)
        .at(&[KeySpec::one(1, &["RW", "access", "update"])])
        .doc("string", "1.0.0", "<key> <value>", "Sets a key and returns its old value."),
    Spec::keyed("mget", -2, mget)
        .with(READ | FAST, acl::STRING)
        .at(&[KeySpec::rest(1, &["RO", "access"])])
        .tips(&["request_policy:multi_shard"])
        .complexity("O(N) with N keys")
        .doc("string", "1.0.0", "<key> [<key> ...]", "The values of several keys of one slot."),
    Spec::keyed("mset", -3, mset)
        .with(GROW, acl::STRING)
        .at(&[KeySpec::rest(2, &["OW", "update"])])
        .tips(&["request_policy:multi_shard", "response_policy:all_succeeded"])
        .complexity("O(N) with N keys")
        .doc("string", "1.0.1", "<key> <value> [<key> <value> ...]", "Sets several keys of one slot at once."),
    Spec::keyed("msetnx", -3, msetnx)
        .with(GROW, acl::STRING)
        .at(&[KeySpec::rest(2, &["OW", "insert"])])
        .tips(&["request_policy:multi_shard", "response_policy:agg_min"])
        .complexity("O(N) with N keys")
        .doc("string", "1.0.1", "<key> <value> [<key> <value> ...]", "Sets several keys of one slot, or none if one exists."),
    Spec::keyed("psetex", 4, psetex)
        .with(GROW, acl::STRING)
        .at(&[KeySpec::one(1, &["OW", "update"])])
        .doc("string", "2.6.0", "<key> <milliseconds> <value>", "Sets a key that expires."),
    Spec::keyed("set", -3, set)
        .with(GROW, acl::STRING)
        .at(&[KeySpec::one(1, &["RW", "access", "update", "variable_flags"])])
        .doc(
            "string",
            "1.0.0",
            "<key> <value> [NX | XX] [GET] [EX seconds | PX milliseconds | EXAT unix-seconds | PXAT unix-milliseconds | KEEPTTL]",
            "Sets a key.",
        ),
    Spec::keyed("setex", 4, setex)
        .with(GROW, acl::STRING)
        .at(&[KeySpec::one(1, &["OW", "update"])])
        .doc("string", "2.0.0", "<key> <seconds> <value>", "Sets a key that expires."),
    Spec::keyed("setnx", 3, setnx)
        .with(GROW | FAST, acl::STRING)
        .at(&[KeySpec::one(1, &["OW", "insert"])])
        .doc("string", "1.0.0", "<key> <value>", "Sets a key that does not exist."),
    Spec::keyed("setrange", 4, setrange)
        .with(GROW, acl::STRING)
        .at(&[KeySpec::one(1, &["RW", "update"])])
        .complexity("O(N) with N bytes of the new value")
        .doc("string", "2.2.0", "<key> <offset> <value>", "Overwrites a part of a value, filling any gap with zero bytes."),
    Spec::keyed("strlen", 2, strlen)
        .with(READ | FAST, acl::STRING)
        .at(&[KeySpec::one(1, &["RO"])])
        .doc("string", "2.2.0", "<key>", "The length of a value, bytes."),
    Spec::keyed("substr", 4, getrange)
        .with(READ, acl::STRING)
        .at(&[KeySpec::one(1, &["RO", "access"])])
        .complexity("O(N) with N bytes returned")
        .doc("string", "1.0.0", "<key> <start> <end>", "The old name of GETRANGE."),
];

/// Makes room for `key` to hold `len` bytes. The first bound is cheap; only when it does not fit is it counted what an
/// overwrite would give back.
pub(super) fn reserve_value(txn: &mut Txn<'_>, key: &[u8], len: usize) -> Result<(), NeedRoom> {
    let cost = cost_of(key.len(), len);
    if txn.reserve(cost).is_ok() {
        return Ok(());
    }
    let held = txn.meta(key).map_or(0, |m| m.cost);
    txn.reserve(cost.saturating_sub(held))
}

/// Makes room for several pairs at once.
fn reserve_pairs<'a>(
    txn: &mut Txn<'_>,
    pairs: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
) -> Result<(), NeedRoom> {
    let cost = |(k, v): (&[u8], &[u8])| cost_of(k.len(), v.len());
    if txn.reserve(pairs.clone().map(cost).sum()).is_ok() {
        return Ok(());
    }
    let mut growth = 0;
    for (k, v) in pairs {
        growth += cost((k, v)).saturating_sub(txn.meta(k).map_or(0, |m| m.cost));
    }
    // A key given twice may shrink before it grows again; then what it gave back is what it takes.
    txn.reserve(growth)?;
    txn.pool();
    Ok(())
}

/// Sets the key until a point in wall time, which may have passed.
fn set_until(txn: &mut Txn<'_>, key: &[u8], value: &[u8], until_ms: Option<i64>, keep_ttl: bool) {
    let now = txn.now();
    match until_ms {
        None => txn.set(key, value, if keep_ttl { Ttl::Keep } else { Ttl::None }),
        Some(at) if has_passed(at, now.wall_ms) => {
            txn.del(key);
        }
        Some(at) => txn.set(key, value, Ttl::At(now.deadline_at_wall(at))),
    }
}

/// Whether a point in wall time is not in the future any more.
pub(super) fn has_passed(at_ms: i64, wall_ms: u64) -> bool {
    at_ms <= i64::try_from(wall_ms).unwrap_or(i64::MAX)
}

/// The options of SET and GETEX.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Options<'a> {
    nx: bool,
    xx: bool,
    get: bool,
    keep_ttl: bool,
    persist: bool,
    expire: Option<(ExpireUnit, &'a [u8])>,
}

/// Reads them from `from` on. SET and GETEX differ in what they know.
fn options<'a>(c: &Keyed<'a, '_>, from: usize, is_set: bool) -> Result<Options<'a>, ErrorReply> {
    let mut o = Options::default();
    let mut i = from;
    while let Some(word) = c.args.get(i) {
        let next = c.args.get(i + 1);
        let unit = [("ex", parse::EX), ("px", parse::PX), ("exat", parse::EXAT), ("pxat", parse::PXAT)]
            .into_iter()
            .find(|(name, _)| is(word, name));
        let other_unit = |unit| o.expire.is_some_and(|(u, _)| u != unit);
        if is_set && is(word, "nx") && !o.xx {
            o.nx = true;
        } else if is_set && is(word, "xx") && !o.nx {
            o.xx = true;
        } else if is_set && is(word, "get") {
            o.get = true;
        } else if is_set && is(word, "keepttl") && o.expire.is_none() {
            o.keep_ttl = true;
        } else if !is_set && is(word, "persist") && o.expire.is_none() {
            o.persist = true;
        } else if let (Some((_, unit)), Some(next)) = (unit, next)
            && !(o.keep_ttl || o.persist || other_unit(unit))
        {
            o.expire = Some((unit, next));
            i += 1;
        } else {
            return Err(SYNTAX);
        }
        i += 1;
    }
    Ok(o)
}

impl Options<'_> {
    fn until_ms(&self, c: &Keyed<'_, '_>) -> Result<Option<i64>, ErrorReply> {
        self.expire.map(|(unit, arg)| positive_expire(arg, unit, c.txn.now(), c.spec.name)).transpose()
    }
}

fn get(c: &mut Keyed<'_, '_>) -> Result<(), Stop> {
    let args = c.args;
    let value = read(&mut c.txn, c.conn, &args[1]);
    c.out.bulk_or_null(value);
    Ok(())
}

fn set(c: &mut Keyed<'_, '_>) -> Result<(), Stop> {
    let args = c.args;
    let (key, value) = (&args[1], &args[2]);
    if args.len() == 3 {
        reserve_value(&mut c.txn, key, value.len())?;
        c.txn.set(key, value, Ttl::None);
        c.out.ok();
        return Ok(());
    }
    let o = options(c, 3, true)?;
    let until = o.until_ms(c)?;
    let blocked = (o.nx || o.xx) && c.txn.peek(key).is_some() != o.xx;
    if !blocked {
        reserve_value(&mut c.txn, key, value.len())?;
    }
    if o.get {
        c.out.bulk_or_null(read(&mut c.txn, c.conn, key));
    }
    if !blocked {
        set_until(&mut c.txn, key, value, until, o.keep_ttl);
    }
    match (o.get, blocked) {
        (true, _) => {}
        (false, true) => c.out.null(),
        (false, false) => c.out.ok(),
    }
    Ok(())
}

fn setnx(c: &mut Keyed<'_, '_>) -> Result<(), Stop> {
    let args = c.args;
    let (key, value) = (&args[1], &args[2]);
    let free = c.txn.peek(key).is_none();
    if free {
        reserve_value(&mut c.txn, key, value.len())?;
        c.txn.set(key, value, Ttl::None);
    }
    c.out.int(i64::from(free));
    Ok(())
}

fn setex(c: &mut Keyed<'_, '_>) -> Result<(), Stop> {
    set_expiring(c, parse::EX)
}

fn psetex(c: &mut Keyed<'_, '_>) -> Result<(), Stop> {
    set_expiring(c, parse::PX)
}

fn set_expiring(c: &mut Keyed<'_, '_>, unit: ExpireUnit) -> Result<(), Stop> {
    let args = c.args;
    let until = positive_expire(&args[2], unit, c.txn.now(), c.spec.name)?;
    reserve_value(&mut c.txn, &args[1], args[3].len())?;
    set_until(&mut c.txn, &args[1], &args[3], Some(until), false);
    c.out.ok();
    Ok(())
}

fn getset(c: &mut Keyed<'_, '_>) -> Result<(), Stop> {
    let args = c.args;
    reserve_value(&mut c.txn, &args[1], args[2].len())?;
    c.out.bulk_or_null(c.txn.get(&args[1]));
    c.txn.set(&args[1], &args[2], Ttl::None);
    Ok(())
}

fn getdel(c: &mut Keyed<'_, '_>) -> Result<(), Stop> {
    let args = c.args;
    c.out.bulk_or_null(c.txn.get(&args[1]));
    c.txn.del(&args[1]);
    Ok(())
}

fn getex(c: &mut Keyed<'_, '_>) -> Result<(), Stop> {
    let args = c.args;
    let key = &args[1];
    let o = options(c, 2, false)?;
    let now = c.txn.now();
    // As in Redis, the time is judged only once there is a key to give it to.
    let Some(meta) = c.txn.meta(key) else {
        c.out.bulk_or_null(read(&mut c.txn, c.conn, key));
        return Ok(());
    };
    let until = o.until_ms(c)?;
    if until.is_some() && meta.deadline.is_none() {
        c.txn.reserve_deadline()?;
    }
    c.out.bulk_or_null(read(&mut c.txn, c.conn, key));
    match until {
        Some(at) if has_passed(at, now.wall_ms) => {
            c.txn.del(key);
        }
        Some(at) => {
            c.txn.expire(key, Some(now.deadline_at_wall(at)));
        }
        None if o.persist && meta.deadline.is_some() => {
            c.txn.expire(key, None);
        }
        None => {}
    }
    Ok(())
}

fn mget(c: &mut Keyed<'_, '_>) -> Result<(), Stop> {
    c.out.array(c.args.len() - 1);
    for key in c.args.iter_from(1) {
        let value = read(&mut c.txn, c.conn, key);
        c.out.bulk_or_null(value);
    }
    Ok(())
}

/// The pairs of MSET and MSETNX.
fn pairs<'a>(c: &Keyed<'a, '_>) -> Result<impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone + use<'a>, ErrorReply> {
    let args = c.args;
    if args.len().is_multiple_of(2) {
        return Err(wrong_arity(c.spec.name));
    }
    Ok((1..args.len()).step_by(2).filter_map(move |i| args.get(i).zip(args.get(i + 1))))
}

fn mset(c: &mut Keyed<'_, '_>) -> Result<(), Stop> {
    let pairs = pairs(c)?;
    reserve_pairs(&mut c.txn, pairs.clone())?;
    for (key, value) in pairs {
        c.txn.set(key, value, Ttl::None);
    }
    c.out.ok();
    Ok(())
}

fn msetnx(c: &mut Keyed<'_, '_>) -> Result<(), Stop> {
    let pairs = pairs(c)?;
    let free = pairs.clone().all(|(key, _)| c.txn.peek(key).is_none());
    if free {
        reserve_pairs(&mut c.txn, pairs.clone())?;
        for (key, value) in pairs {
            c.txn.set(key, value, Ttl::None);
        }
    }
    c.out.int(i64::from(free));
    Ok(())
}

fn append(c: &mut Keyed<'_, '_>) -> Result<(), Stop> {
    let args = c.args;
    let (key, tail) = (&args[1], &args[2]);
    let held = c.txn.meta(key);
    let len = held.map_or(0, |m| m.len) + tail.len();
    match held {
        None => {
            reserve_value(&mut c.txn, key, len)?;
            c.txn.set(key, tail, Ttl::None);
        }
        Some(_) if tail.is_empty() => {
            c.txn.touch(key);
        }
        Some(held) => {
            if len > VALUE_MAX {
                return Err(TOO_LONG.into());
            }
            c.txn.reserve(cost_of(key.len(), len).saturating_sub(held.cost))?;
            change(c, key, |value| value.extend_from_slice(tail));
        }
    }
    c.out.int(len as i64);
    Ok(())
}

/// Changes a copy of the value and puts it back; the TTL stays. Room was made before.
fn change(c: &mut Keyed<'_, '_>, key: &[u8], edit: impl FnOnce(&mut Vec<u8>)) {
    c.scratch.clear();
    c.scratch.extend_from_slice(c.txn.peek(key).unwrap_or_default());
    edit(c.scratch);
    c.txn.set(key, c.scratch, Ttl::Keep);
}

fn setrange(c: &mut Keyed<'_, '_>) -> Result<(), Stop> {
    const NEGATIVE: ErrorReply = ErrorReply::text("ERR offset is out of range");
    let args = c.args;
    let (key, part) = (&args[1], &args[3]);
    let offset = usize::try_from(int_arg(&args[2])?).map_err(|_| NEGATIVE)?;
    let held = c.txn.meta(key);
    let old_len = held.map_or(0, |m| m.len);
    if part.is_empty() {
        c.out.int(old_len as i64);
        return Ok(());
    }
    let end = offset.checked_add(part.len()).filter(|&end| end <= VALUE_MAX).ok_or(TOO_LONG)?;
    let len = old_len.max(end);
    c.txn.reserve(cost_of(key.len(), len).saturating_sub(held.map_or(0, |m| m.cost)))?;
    change(c, key, |value| {
        value.resize(len, 0);
        value[offset..end].copy_from_slice(part);
    });
    c.out.int(len as i64);
    Ok(())
}

fn strlen(c: &mut Keyed<'_, '_>) -> Result<(), Stop> {
    let args = c.args;
    let len = read(&mut c.txn, c.conn, &args[1]).map_or(0, <[u8]>::len);
    c.out.int(len as i64);
    Ok(())
}

fn getrange(c: &mut Keyed<'_, '_>) -> Result<(), Stop> {
    let args = c.args;
    let (start, end) = (int_arg(&args[2])?, int_arg(&args[3])?);
    let value = read(&mut c.txn, c.conn, &args[1]);
    c.out.bulk(part(value.unwrap_or_default(), start, end));
    Ok(())
}

/// The bytes from `start` to `end`, both included; negative offsets count from the end.
fn part(value: &[u8], start: i64, end: i64) -> &[u8] {
    let len = value.len() as i64;
    // An inverted range that lies wholly before the value stays empty, though both ends would clamp to 0.
    if start < 0 && end < 0 && start > end {
        return &[];
    }
    let absolute = |at: i64| if at < 0 { at.saturating_add(len).max(0) } else { at };
    let (start, end) = (absolute(start), absolute(end).min(len - 1));
    if start > end { &[] } else { &value[start as usize..=end as usize] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_clamp_to_the_value() {
        for (start, end, want) in [
            (0, -1, "hello"),
            (0, 0, "h"),
            (1, 3, "ell"),
            (-3, -1, "llo"),
            (-1, -3, ""),
            (-100, -90, "h"),
            (-90, -100, ""),
            (3, 1, ""),
            (4, 100, "o"),
            (5, 100, ""),
            (i64::MIN, i64::MAX, "hello"),
            (i64::MAX, i64::MIN, ""),
        ] {
            assert_eq!(part(b"hello", start, end), want.as_bytes(), "{start} {end}");
        }
        assert_eq!(part(b"", 0, -1), b"");
        assert_eq!(part(b"", -5, 5), b"");
    }
}
