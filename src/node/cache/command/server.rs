//! Commands on the whole node that have no file of their own: FLUSHALL, TIME, WAIT, ROLE, SLOWLOG.

use std::time::{SystemTime, UNIX_EPOCH};

use super::context::{ConnCtx, NodeCtx};
use super::error::{ErrorReply, SYNTAX};
use super::introspect;
use super::parse::{int, int_arg, is};
use super::spec::{Spec, acl, flag};

/// Entries SLOWLOG GET shows unless told otherwise.
const SLOWLOG_COUNT: i64 = 10;

const ON_ALL: &[&str] = &["request_policy:all_shards", "response_policy:all_succeeded"];
const SLOWLOG_FLAGS: u16 = flag::ADMIN | flag::LOADING | flag::STALE;

const SLOWLOG: &[Spec] = &[
    Spec::node("slowlog|get", -2, slowlog_get)
        .with(SLOWLOG_FLAGS, 0)
        .tips(&["request_policy:all_nodes", "nondeterministic_output"])
        .complexity("O(N) with N entries")
        .doc(
            "server",
            "2.2.12",
            "[<count>]",
            "The last slow commands (10, -1 = all): id, time, microseconds, arguments, client address, client name.",
        ),
    Spec::conn("slowlog|help", 2, introspect::help).with(flag::LOADING | flag::STALE, 0).doc(
        "server",
        "6.2.0",
        "",
        "This text.",
    ),
    Spec::node("slowlog|len", 2, slowlog_len)
        .with(SLOWLOG_FLAGS, 0)
        .tips(&["request_policy:all_nodes", "response_policy:agg_sum", "nondeterministic_output"])
        .doc("server", "2.2.12", "", "How many slow commands are kept."),
    Spec::node("slowlog|reset", 2, slowlog_reset)
        .with(SLOWLOG_FLAGS, 0)
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
        .doc("server", "2.2.12", "", "Forgets them."),
];

pub(super) const COMMANDS: &[Spec] = &[
    Spec::node("flushall", -1, flush)
        .with(flag::WRITE, acl::KEYSPACE | acl::DANGEROUS)
        .tips(ON_ALL)
        .complexity("O(N) with N keys")
        .doc("server", "1.0.0", "[ASYNC | SYNC]", "Deletes all keys this node is primary of, slot by slot."),
    Spec::node("flushdb", -1, flush)
        .with(flag::WRITE, acl::KEYSPACE | acl::DANGEROUS)
        .tips(ON_ALL)
        .complexity("O(N) with N keys")
        .doc("server", "1.0.0", "[ASYNC | SYNC]", "As FLUSHALL: there is one database."),
    Spec::conn("role", 1, role)
        .with(flag::NOSCRIPT | flag::LOADING | flag::STALE | flag::FAST, acl::ADMIN | acl::DANGEROUS)
        .doc("server", "2.8.12", "", "Every node is a master; backups are not announced."),
    Spec::container("slowlog", SLOWLOG).doc("server", "2.2.12", "", "About slow commands."),
    Spec::conn("time", 1, time)
        .with(flag::LOADING | flag::STALE | flag::FAST, 0)
        .tips(&["nondeterministic_output"])
        .doc("server", "2.6.0", "", "Wall time: seconds since 1970, and microseconds of the second."),
    Spec::node("wait", 3, wait)
        .with(flag::NOSCRIPT, acl::CONNECTION)
        .tips(&["request_policy:all_shards", "response_policy:agg_min"])
        .doc(
            "generic",
            "3.0.0",
            "<numreplicas> <timeout>",
            "How many backups every slot of this node has in sync. Replies leave in order, and those of writes only once \
             all of these confirmed, so there is nothing to wait for.",
        ),
];

fn flush(c: &mut NodeCtx<'_, '_>) -> Result<(), ErrorReply> {
    match (c.args.len(), c.args.get(1)) {
        (1, _) => {}
        (2, Some(word)) if is(word, "sync") || is(word, "async") => {}
        _ => return Err(SYNTAX),
    }
    c.host.flush_all()?;
    c.out.ok();
    Ok(())
}

fn role(c: &mut ConnCtx<'_, '_>) -> Result<(), ErrorReply> {
    c.out.array(3);
    c.out.bulk(b"master");
    // There is no replication stream to have an offset in.
    c.out.int(0);
    c.out.array(0);
    Ok(())
}

fn time(c: &mut ConnCtx<'_, '_>) -> Result<(), ErrorReply> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    c.out.array(2);
    c.out.bulk(now.as_secs().to_string().as_bytes());
    c.out.bulk(now.subsec_micros().to_string().as_bytes());
    Ok(())
}

fn wait(c: &mut NodeCtx<'_, '_>) -> Result<(), ErrorReply> {
    const BAD_TIMEOUT: ErrorReply = ErrorReply::text("ERR timeout is not an integer or out of range");
    const NEGATIVE: ErrorReply = ErrorReply::text("ERR timeout is negative");
    int_arg(&c.args[1])?;
    if int(&c.args[2]).ok_or(BAD_TIMEOUT)? < 0 {
        return Err(NEGATIVE);
    }
    c.out.int(c.host.cluster().backups_held() as i64);
    Ok(())
}

fn slowlog_get(c: &mut NodeCtx<'_, '_>) -> Result<(), ErrorReply> {
    const BAD_COUNT: ErrorReply = ErrorReply::text("ERR count should be greater than or equal to -1");
    let count = match (c.args.len(), c.args.get(2)) {
        (2, _) => SLOWLOG_COUNT,
        (3, Some(n)) => int(n).filter(|&n| n >= -1).ok_or(BAD_COUNT)?,
        _ => {
            return Err(ErrorReply::of(&[
                b"ERR unknown subcommand or wrong number of arguments for '",
                &c.args[1],
                b"'. Try SLOWLOG HELP.",
            ]));
        }
    };
    let out = &mut *c.out;
    c.host.slowlog(&mut |log| {
        let shown = if count < 0 { log.len() } else { log.len().min(count as usize) };
        out.array(shown);
        for e in log.entries().take(shown) {
            out.array(6);
            out.int(e.id as i64);
            out.int(e.at_s as i64);
            out.int(e.usec as i64);
            out.array(e.args.len());
            e.args.iter().for_each(|arg| out.bulk(arg));
            out.bulk(e.addr.as_bytes());
            out.bulk(&e.name);
        }
    });
    Ok(())
}

fn slowlog_len(c: &mut NodeCtx<'_, '_>) -> Result<(), ErrorReply> {
    let mut len = 0;
    c.host.slowlog(&mut |log| len = log.len());
    c.out.int(len as i64);
    Ok(())
}

fn slowlog_reset(c: &mut NodeCtx<'_, '_>) -> Result<(), ErrorReply> {
    c.host.slowlog(&mut |log| log.reset());
    c.out.ok();
    Ok(())
}
