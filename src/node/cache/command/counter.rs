//! Commands that add to a number: INCR, DECR and their relatives. The result is what is stored and shipped.

use super::context::Keyed;
use super::error::{ErrorReply, NOT_FLOAT, NOT_INTEGER, Stop};
use super::extended::Extended;
use super::parse::{int, int_arg};
use super::spec::{KeySpec, Spec, acl, flag};
use super::string::reserve_value;
use crate::node::cache::effect::Ttl;

const KEY: &[KeySpec] = &[KeySpec::one(1, &["RW", "access", "update"])];
const FLAGS: u16 = flag::WRITE | flag::DENYOOM | flag::FAST;

pub(super) const COMMANDS: &[Spec] = &[
    Spec::keyed("decr", 2, |c| add(c, -1)).with(FLAGS, acl::STRING).at(KEY).doc(
        "string",
        "1.0.0",
        "<key>",
        "Takes one from a number.",
    ),
    Spec::keyed("decrby", 3, decrby).with(FLAGS, acl::STRING).at(KEY).doc(
        "string",
        "1.0.0",
        "<key> <decrement>",
        "Takes from a number.",
    ),
    Spec::keyed("incr", 2, |c| add(c, 1)).with(FLAGS, acl::STRING).at(KEY).doc(
        "string",
        "1.0.0",
        "<key>",
        "Adds one to a number.",
    ),
    Spec::keyed("incrby", 3, |c| add(c, int_arg(&c.args[2])?)).with(FLAGS, acl::STRING).at(KEY).doc(
        "string",
        "1.0.0",
        "<key> <increment>",
        "Adds to a number.",
    ),
    Spec::keyed("incrbyfloat", 3, incrbyfloat).with(FLAGS, acl::STRING).at(KEY).doc(
        "string",
        "2.6.0",
        "<key> <increment>",
        "Adds to a number with decimals.",
    ),
];

fn decrby(c: &mut Keyed<'_, '_>) -> Result<(), Stop> {
    const OVERFLOW: ErrorReply = ErrorReply::text("ERR decrement would overflow");
    let by = int_arg(&c.args[2])?.checked_neg().ok_or(OVERFLOW)?;
    add(c, by)
}

fn add(c: &mut Keyed<'_, '_>, by: i64) -> Result<(), Stop> {
    const OVERFLOW: ErrorReply = ErrorReply::text("ERR increment or decrement would overflow");
    let args = c.args;
    let key = &args[1];
    let old = match c.txn.peek(key) {
        None => 0,
        Some(value) => int(value).ok_or(NOT_INTEGER)?,
    };
    let new = old.checked_add(by).ok_or(OVERFLOW)?;
    let mut digits = itoa::Buffer::new();
    let text = digits.format(new).as_bytes();
    reserve_value(&mut c.txn, key, text.len())?;
    c.txn.set(key, text, Ttl::Keep);
    c.out.int(new);
    Ok(())
}

fn incrbyfloat(c: &mut Keyed<'_, '_>) -> Result<(), Stop> {
    const NOT_FINITE: ErrorReply = ErrorReply::text("ERR increment would produce NaN or Infinity");
    let args = c.args;
    let key = &args[1];
    let old = match c.txn.peek(key) {
        None => Extended::ZERO,
        Some(value) => Extended::parse(value).ok_or(NOT_FLOAT)?,
    };
    let by = Extended::parse(&args[2]).ok_or(NOT_FLOAT)?;
    let new = old.plus(by).filter(|n| n.is_finite()).ok_or(NOT_FINITE)?;
    let text = new.to_text();
    reserve_value(&mut c.txn, key, text.len())?;
    c.txn.set(key, text.as_bytes(), Ttl::Keep);
    c.out.bulk(text.as_bytes());
    Ok(())
}
