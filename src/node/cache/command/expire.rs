//! Commands about when keys expire.

use super::context::Keyed;
use super::error::{ErrorReply, Stop, quoted};
use super::parse::{self, ExpireUnit, any_expire, is};
use super::spec::{KeySpec, Spec, acl, flag};
use super::string::has_passed;

const UPDATE: &[KeySpec] = &[KeySpec::one(1, &["RW", "update"])];
const ACCESS: &[KeySpec] = &[KeySpec::one(1, &["RO", "access"])];
const WRITE: u16 = flag::WRITE | flag::FAST;
const READ: u16 = flag::READONLY | flag::FAST;
const NONDETERMINISTIC: &[&str] = &["nondeterministic_output"];

pub(super) const COMMANDS: &[Spec] = &[
    Spec::keyed("expire", -3, |c| expire(c, parse::EX)).with(WRITE, acl::KEYSPACE).at(UPDATE).doc(
        "generic",
        "1.0.0",
        "<key> <seconds> [NX | XX | GT | LT]",
        "Makes a key expire in so many seconds.",
    ),
    Spec::keyed("expireat", -3, |c| expire(c, parse::EXAT)).with(WRITE, acl::KEYSPACE).at(UPDATE).doc(
        "generic",
        "1.2.0",
        "<key> <unix-seconds> [NX | XX | GT | LT]",
        "Makes a key expire at a point in time.",
    ),
    Spec::keyed("expiretime", 2, |c| ttl(c, parse::EXAT)).with(READ, acl::KEYSPACE).at(ACCESS).doc(
        "generic",
        "7.0.0",
        "<key>",
        "When a key expires, seconds since 1970; -1 never, -2 no such key.",
    ),
    Spec::keyed("persist", 2, persist).with(WRITE, acl::KEYSPACE).at(UPDATE).doc(
        "generic",
        "2.2.0",
        "<key>",
        "Lets a key live on.",
    ),
    Spec::keyed("pexpire", -3, |c| expire(c, parse::PX)).with(WRITE, acl::KEYSPACE).at(UPDATE).doc(
        "generic",
        "2.6.0",
        "<key> <milliseconds> [NX | XX | GT | LT]",
        "Makes a key expire in so many milliseconds.",
    ),
    Spec::keyed("pexpireat", -3, |c| expire(c, parse::PXAT)).with(WRITE, acl::KEYSPACE).at(UPDATE).doc(
        "generic",
        "2.6.0",
        "<key> <unix-milliseconds> [NX | XX | GT | LT]",
        "Makes a key expire at a point in time.",
    ),
    Spec::keyed("pexpiretime", 2, |c| ttl(c, parse::PXAT)).with(READ, acl::KEYSPACE).at(ACCESS).doc(
        "generic",
        "7.0.0",
        "<key>",
        "When a key expires, milliseconds since 1970; -1 never, -2 no such key.",
    ),
    Spec::keyed("pttl", 2, |c| ttl(c, parse::PX)).with(READ, acl::KEYSPACE).at(ACCESS).tips(NONDETERMINISTIC).doc(
        "generic",
        "2.6.0",
        "<key>",
        "How long a key still lives, milliseconds; -1 for ever, -2 no such key.",
    ),
    Spec::keyed("ttl", 2, |c| ttl(c, parse::EX)).with(READ, acl::KEYSPACE).at(ACCESS).tips(NONDETERMINISTIC).doc(
        "generic",
        "1.0.0",
        "<key>",
        "How long a key still lives, seconds; -1 for ever, -2 no such key.",
    ),
];

/// On which present deadline a new one is set.
#[derive(Debug, Default, Clone, Copy)]
struct Condition {
    nx: bool,
    xx: bool,
    gt: bool,
    lt: bool,
}

impl Condition {
    fn parse(c: &Keyed<'_, '_>) -> Result<Self, ErrorReply> {
        let mut cond = Condition::default();
        for word in c.args.iter_from(3) {
            let options = [("nx", &mut cond.nx), ("xx", &mut cond.xx), ("gt", &mut cond.gt), ("lt", &mut cond.lt)];
            match options.into_iter().find(|(name, _)| is(word, name)) {
                Some((_, set)) => *set = true,
                None => return Err(ErrorReply::of(&[b"ERR Unsupported option ", quoted(word, word.len())])),
            }
        }
        if cond.nx && (cond.xx || cond.gt || cond.lt) {
            return Err(ErrorReply::text("ERR NX and XX, GT or LT options at the same time are not compatible"));
        }
        if cond.gt && cond.lt {
            return Err(ErrorReply::text("ERR GT and LT options at the same time are not compatible"));
        }
        Ok(cond)
    }

    /// Both in wall time; no deadline counts as later than every other.
    fn allows(self, old: Option<i64>, new: i64) -> bool {
        !(self.nx && old.is_some()
            || self.xx && old.is_none()
            || self.gt && old.is_none_or(|old| new <= old)
            || self.lt && old.is_some_and(|old| new >= old))
    }
}

fn expire(c: &mut Keyed<'_, '_>, unit: ExpireUnit) -> Result<(), Stop> {
    let args = c.args;
    let key = &args[1];
    let condition = Condition::parse(c)?;
    let now = c.txn.now();
    let at = any_expire(&args[2], unit, now, c.spec.name)?;
    let Some(meta) = c.txn.meta(key) else {
        c.out.int(0);
        return Ok(());
    };
    if !condition.allows(meta.deadline.map(|d| now.wall_of(d)), at) {
        c.out.int(0);
        return Ok(());
    }
    if has_passed(at, now.wall_ms) {
        c.txn.del(key);
    } else {
        if meta.deadline.is_none() {
            c.txn.reserve_deadline()?;
        }
        c.txn.expire(key, Some(now.deadline_at_wall(at)));
    }
    c.out.int(1);
    Ok(())
}

fn persist(c: &mut Keyed<'_, '_>) -> Result<(), Stop> {
    let args = c.args;
    let had = c.txn.meta(&args[1]).is_some_and(|m| m.deadline.is_some());
    if had {
        c.txn.expire(&args[1], None);
    }
    c.out.int(i64::from(had));
    Ok(())
}

fn ttl(c: &mut Keyed<'_, '_>, unit: ExpireUnit) -> Result<(), Stop> {
    let args = c.args;
    let now = c.txn.now();
    let n = match c.txn.meta(&args[1]).map(|m| m.deadline) {
        None => -2,
        Some(None) => -1,
        Some(Some(deadline)) => {
            let ms = if unit.absolute { now.wall_of(deadline) } else { deadline.0.saturating_sub(now.mono_ms) as i64 };
            if unit.seconds { ms.saturating_add(500) / 1000 } else { ms }
        }
    };
    c.out.int(n);
    Ok(())
}
