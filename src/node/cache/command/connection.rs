//! Commands on the connection: PING, HELLO, AUTH, RESET and the like. CLIENT has a file of its own.

use super::client::set_name;
use super::context::ConnCtx;
use super::error::{ErrorReply, SYNTAX, quoted, wrong_arity};
use super::parse::{i32_arg, int, is};
use super::spec::{Spec, acl, flag};
use super::{REDIS_VERSION, USER};
use crate::proto::reply::Proto;

const EARLY: u16 = flag::NOSCRIPT | flag::LOADING | flag::STALE | flag::FAST | flag::NO_AUTH | flag::ALLOW_BUSY;

const ACL: &[Spec] = &[
    Spec::conn("acl|help", 2, super::introspect::help).with(flag::LOADING | flag::STALE, 0).doc(
        "server",
        "6.0.0",
        "",
        "This text.",
    ),
    Spec::conn("acl|whoami", 2, whoami).with(flag::NOSCRIPT | flag::LOADING | flag::STALE, 0).doc(
        "server",
        "6.0.0",
        "",
        "The user of this connection: there is one, default.",
    ),
];

pub(super) const COMMANDS: &[Spec] = &[
    Spec::container("acl", ACL).doc("server", "6.0.0", "", "About users."),
    Spec::conn("auth", -2, auth).with(EARLY, acl::CONNECTION).doc(
        "connection",
        "1.0.0",
        "[<username>] <password>",
        "Logs in; there are no passwords yet.",
    ),
    Spec::conn("echo", 2, echo).with(flag::LOADING | flag::STALE | flag::FAST, acl::CONNECTION).doc(
        "connection",
        "1.0.0",
        "<message>",
        "The message.",
    ),
    Spec::conn("hello", -1, hello).with(EARLY, acl::CONNECTION).doc(
        "connection",
        "6.0.0",
        "[<protover> [AUTH username password] [SETNAME name]]",
        "Chooses the protocol and describes the server.",
    ),
    Spec::conn("ping", -1, ping)
        .with(flag::FAST, acl::CONNECTION)
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
        .doc("connection", "1.0.0", "[<message>]", "PONG, or the message."),
    Spec::conn("quit", -1, quit).with(EARLY, acl::CONNECTION).doc(
        "connection",
        "1.0.0",
        "",
        "Closes the connection once all is answered.",
    ),
    Spec::conn("reset", 1, reset).with(EARLY, acl::CONNECTION).doc(
        "connection",
        "6.2.0",
        "",
        "Makes the connection as good as new.",
    ),
    Spec::conn("select", 2, select).with(flag::LOADING | flag::STALE | flag::FAST, acl::CONNECTION).doc(
        "connection",
        "1.0.0",
        "<index>",
        "Chooses the database; there is one, 0.",
    ),
];

fn ping(c: &mut ConnCtx<'_, '_>) -> Result<(), ErrorReply> {
    match (c.args.len(), c.args.get(1)) {
        (1, _) => c.out.simple("PONG"),
        (2, Some(message)) => c.out.bulk(message),
        _ => return Err(wrong_arity(c.spec.name)),
    }
    Ok(())
}

fn echo(c: &mut ConnCtx<'_, '_>) -> Result<(), ErrorReply> {
    c.out.bulk(&c.args[1]);
    Ok(())
}

fn quit(c: &mut ConnCtx<'_, '_>) -> Result<(), ErrorReply> {
    c.conn.close_after_reply = true;
    c.out.ok();
    Ok(())
}

fn reset(c: &mut ConnCtx<'_, '_>) -> Result<(), ErrorReply> {
    c.conn.reset();
    c.out.set_proto(c.conn.proto);
    c.out.simple("RESET");
    Ok(())
}

fn select(c: &mut ConnCtx<'_, '_>) -> Result<(), ErrorReply> {
    if i32_arg(&c.args[1])? != 0 {
        return Err(ErrorReply::text("ERR SELECT is not allowed in cluster mode"));
    }
    c.out.ok();
    Ok(())
}

/// The default user has no password, so any will do; other users don't exist.
fn log_in(user: &[u8]) -> Result<(), ErrorReply> {
    const WRONG: ErrorReply = ErrorReply::text("WRONGPASS invalid username-password pair or user is disabled.");
    if user == USER.as_bytes() { Ok(()) } else { Err(WRONG) }
}

fn auth(c: &mut ConnCtx<'_, '_>) -> Result<(), ErrorReply> {
    match c.args.len() {
        2 => Err(ErrorReply::text(
            "ERR AUTH <password> called without any password configured for the default user. Are you sure your \
             configuration is correct?",
        )),
        3 => {
            log_in(&c.args[1])?;
            c.out.ok();
            Ok(())
        }
        _ => Err(SYNTAX),
    }
}

fn whoami(c: &mut ConnCtx<'_, '_>) -> Result<(), ErrorReply> {
    c.out.bulk(USER.as_bytes());
    Ok(())
}

fn hello(c: &mut ConnCtx<'_, '_>) -> Result<(), ErrorReply> {
    let args = c.args;
    let proto = match args.get(1).map(int) {
        None => c.conn.proto,
        Some(None) => return Err(ErrorReply::text("ERR Protocol version is not an integer or out of range")),
        Some(Some(2)) => Proto::Resp2,
        Some(Some(3)) => Proto::Resp3,
        Some(Some(_)) => return Err(ErrorReply::text("NOPROTO unsupported protocol version")),
    };
    let mut i = 2;
    while let Some(word) = args.get(i) {
        match (args.get(i + 1), args.get(i + 2)) {
            (Some(user), Some(_)) if is(word, "auth") => {
                log_in(user)?;
                i += 3;
            }
            (Some(name), _) if is(word, "setname") => {
                set_name(c.conn, name)?;
                i += 2;
            }
            _ => {
                return Err(ErrorReply::of(&[b"ERR Syntax error in HELLO option '", quoted(word, word.len()), b"'"]));
            }
        }
    }
    c.conn.proto = proto;
    c.out.set_proto(proto);
    c.out.map(7);
    c.out.bulk(b"server");
    c.out.bulk(b"redis");
    c.out.bulk(b"version");
    c.out.bulk(REDIS_VERSION.as_bytes());
    c.out.bulk(b"proto");
    c.out.int(if proto == Proto::Resp3 { 3 } else { 2 });
    c.out.bulk(b"id");
    c.out.int(c.conn.id as i64);
    c.out.bulk(b"mode");
    c.out.bulk(b"cluster");
    c.out.bulk(b"role");
    c.out.bulk(b"master");
    c.out.bulk(b"modules");
    c.out.array(0);
    Ok(())
}
