//! CLIENT: what a connection says of itself, and what it may know and do of others.

use super::conn::{ClientInfo, ConnState, ReplyMode, is_plain};
use super::context::{ConnCtx, NodeCtx};
use super::error::{ErrorReply, SYNTAX, quoted};
use super::parse::{int, is};
use super::spec::{Spec, acl, flag};
use super::{USER, introspect};

const PLAIN: u16 = flag::NOSCRIPT | flag::LOADING | flag::STALE;
const ADMIN: u16 = flag::ADMIN | PLAIN;
const NONDETERMINISTIC: &[&str] = &["nondeterministic_output"];

const fn conn(name: &'static str, arity: i16, body: super::context::ConnFn) -> Spec {
    Spec::conn(name, arity, body).with(PLAIN, acl::CONNECTION)
}

const SUBCOMMANDS: &[Spec] = &[
    conn("client|caching", 3, caching).doc(
        "connection",
        "6.0.0",
        "(YES|NO)",
        "Part of TRACKING, which is not supported.",
    ),
    conn("client|getname", 2, getname).doc("connection", "2.6.9", "", "The name of this connection."),
    conn("client|getredir", 2, getredir).doc(
        "connection",
        "6.0.0",
        "",
        "Part of TRACKING, which is not supported: -1.",
    ),
    Spec::conn("client|help", 2, introspect::help).with(flag::LOADING | flag::STALE, acl::CONNECTION).doc(
        "connection",
        "5.0.0",
        "",
        "This text.",
    ),
    conn("client|id", 2, id).doc("connection", "5.0.0", "", "The number of this connection."),
    Spec::node("client|info", 2, info).with(PLAIN, acl::CONNECTION).tips(NONDETERMINISTIC).doc(
        "connection",
        "6.2.0",
        "",
        "This connection's line of LIST.",
    ),
    Spec::node("client|kill", -3, kill).with(ADMIN, acl::CONNECTION).complexity("O(N) with N connections").doc(
        "connection",
        "2.4.0",
        "(<ip:port> | [ID id] [TYPE type] [USER user] [ADDR ip:port] [LADDR ip:port] [SKIPME yes|no])",
        "Closes connections.",
    ),
    Spec::node("client|list", -2, list)
        .with(ADMIN, acl::CONNECTION)
        .tips(NONDETERMINISTIC)
        .complexity("O(N) with N connections")
        .doc("connection", "2.4.0", "[TYPE type] [ID id ...]", "One line a connection."),
    Spec::conn("client|no-evict", 3, no_evict).with(ADMIN, acl::CONNECTION).doc(
        "connection",
        "7.0.0",
        "(ON|OFF)",
        "Accepted; connections are not evicted.",
    ),
    conn("client|no-touch", 3, no_touch).doc(
        "connection",
        "7.2.0",
        "(ON|OFF)",
        "Whether reads of this connection leave recency alone.",
    ),
    conn("client|reply", 3, reply).doc("connection", "3.2.0", "(ON|OFF|SKIP)", "Which commands are answered."),
    conn("client|setinfo", 4, setinfo).doc(
        "connection",
        "7.2.0",
        "(LIB-NAME|LIB-VER) <value>",
        "What library speaks here.",
    ),
    conn("client|setname", 3, setname).doc("connection", "2.6.9", "<name>", "Names this connection."),
    conn("client|tracking", -3, tracking).doc("connection", "6.0.0", "(ON|OFF)", "Not supported; OFF is accepted."),
    conn("client|trackinginfo", 2, trackinginfo).doc("connection", "6.2.0", "", "Tracking is off."),
];

pub(super) const COMMANDS: &[Spec] =
    &[Spec::container("client", SUBCOMMANDS).doc("connection", "2.4.0", "", "About connections.")];

fn id(c: &mut ConnCtx<'_, '_>) -> Result<(), ErrorReply> {
    c.out.int(c.conn.id as i64);
    Ok(())
}

fn getname(c: &mut ConnCtx<'_, '_>) -> Result<(), ErrorReply> {
    c.out.bulk_or_null(Some(c.conn.name.as_slice()).filter(|n| !n.is_empty()));
    Ok(())
}

pub(super) fn set_name(conn: &mut ConnState, name: &[u8]) -> Result<(), ErrorReply> {
    if !is_plain(name) {
        return Err(ErrorReply::text("ERR Client names cannot contain spaces, newlines or special characters."));
    }
    conn.name = name.to_vec();
    Ok(())
}

fn setname(c: &mut ConnCtx<'_, '_>) -> Result<(), ErrorReply> {
    set_name(c.conn, &c.args[2])?;
    c.out.ok();
    Ok(())
}

fn setinfo(c: &mut ConnCtx<'_, '_>) -> Result<(), ErrorReply> {
    let (what, value) = (&c.args[2], &c.args[3]);
    let field = if is(what, "lib-name") {
        &mut c.conn.lib_name
    } else if is(what, "lib-ver") {
        &mut c.conn.lib_ver
    } else {
        return Err(ErrorReply::of(&[b"ERR Unrecognized option '", quoted(what, what.len()), b"'"]));
    };
    if !is_plain(value) {
        return Err(ErrorReply::of(&[
            b"ERR ",
            quoted(what, what.len()),
            b" cannot contain spaces, newlines or special characters.",
        ]));
    }
    *field = value.to_vec();
    c.out.ok();
    Ok(())
}

fn on_off(word: &[u8]) -> Result<bool, ErrorReply> {
    match () {
        () if is(word, "on") => Ok(true),
        () if is(word, "off") => Ok(false),
        () => Err(SYNTAX),
    }
}

fn no_evict(c: &mut ConnCtx<'_, '_>) -> Result<(), ErrorReply> {
    c.conn.no_evict = on_off(&c.args[2])?;
    c.out.ok();
    Ok(())
}

fn no_touch(c: &mut ConnCtx<'_, '_>) -> Result<(), ErrorReply> {
    c.conn.no_touch = on_off(&c.args[2])?;
    c.out.ok();
    Ok(())
}

fn reply(c: &mut ConnCtx<'_, '_>) -> Result<(), ErrorReply> {
    let word = &c.args[2];
    c.conn.reply = if is(word, "on") {
        ReplyMode::On
    } else if is(word, "off") {
        ReplyMode::Off
    } else if is(word, "skip") {
        if c.conn.reply == ReplyMode::Off { ReplyMode::Off } else { ReplyMode::SkipNext }
    } else {
        return Err(SYNTAX);
    };
    // Taken back by `ConnState::settle` unless replies are on.
    c.out.ok();
    Ok(())
}

fn tracking(c: &mut ConnCtx<'_, '_>) -> Result<(), ErrorReply> {
    if on_off(&c.args[2])? {
        return Err(ErrorReply::text("ERR CLIENT TRACKING is not supported"));
    }
    c.out.ok();
    Ok(())
}

fn trackinginfo(c: &mut ConnCtx<'_, '_>) -> Result<(), ErrorReply> {
    c.out.map(3);
    c.out.bulk(b"flags");
    c.out.set(1);
    c.out.bulk(b"off");
    c.out.bulk(b"redirect");
    c.out.int(-1);
    c.out.bulk(b"prefixes");
    c.out.array(0);
    Ok(())
}

fn caching(_: &mut ConnCtx<'_, '_>) -> Result<(), ErrorReply> {
    Err(ErrorReply::text(
        "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled",
    ))
}

fn getredir(c: &mut ConnCtx<'_, '_>) -> Result<(), ErrorReply> {
    c.out.int(-1);
    Ok(())
}

/// Whether clients of this type are listed: all that connect here are normal ones.
fn is_normal(name: &[u8]) -> Result<bool, ErrorReply> {
    if is(name, "normal") {
        return Ok(true);
    }
    if ["master", "slave", "replica", "pubsub"].iter().any(|t| is(name, t)) {
        return Ok(false);
    }
    Err(ErrorReply::of(&[b"ERR Unknown client type '", quoted(name, name.len()), b"'"]))
}

fn info(c: &mut NodeCtx<'_, '_>) -> Result<(), ErrorReply> {
    let mine = c.host.clients().into_iter().find(|i| i.id == c.conn.id);
    let mut mine = mine.unwrap_or_default();
    stamp(&mut mine, c);
    c.out.verbatim(&format!("{}\n", mine.line()));
    Ok(())
}

/// The runtime's picture of this very connection may be a command old.
fn stamp(info: &mut ClientInfo, c: &NodeCtx<'_, '_>) {
    let fresh = c.conn.info(c.host.now().mono_ms);
    *info = ClientInfo {
        cmd: c.spec.name,
        fd: info.fd,
        query_bytes: info.query_bytes,
        query_free: info.query_free,
        replies_held: info.replies_held,
        reply_bytes: info.reply_bytes,
        ..fresh
    };
}

fn list(c: &mut NodeCtx<'_, '_>) -> Result<(), ErrorReply> {
    let args = c.args;
    let mut clients = c.host.clients();
    match (args.len(), args.get(2)) {
        (2, _) => {}
        (4, Some(word)) if is(word, "type") => {
            if !is_normal(&args[3])? {
                clients.clear();
            }
        }
        (4.., Some(word)) if is(word, "id") => {
            const BAD_ID: ErrorReply = ErrorReply::text("ERR Invalid client ID");
            let ids: Vec<i64> = args.iter_from(3).map(|id| int(id).ok_or(BAD_ID)).collect::<Result<_, _>>()?;
            clients.retain(|i| ids.iter().any(|&id| u64::try_from(id) == Ok(i.id)));
        }
        _ => return Err(SYNTAX),
    }
    let mut text = String::new();
    for mut client in clients {
        if client.id == c.conn.id {
            stamp(&mut client, c);
        }
        text.push_str(&client.line());
        text.push('\n');
    }
    c.out.verbatim(&text);
    Ok(())
}

/// Which connections CLIENT KILL means.
#[derive(Default)]
struct Filter<'a> {
    id: Option<u64>,
    addr: Option<&'a [u8]>,
    laddr: Option<&'a [u8]>,
    nobody: bool,
    skip_me: bool,
}

impl Filter<'_> {
    fn matches(&self, i: &ClientInfo) -> bool {
        !self.nobody
            && self.id.is_none_or(|id| id == i.id)
            && self.addr.is_none_or(|a| a == i.addr.as_bytes())
            && self.laddr.is_none_or(|a| a == i.laddr.as_bytes())
    }
}

fn kill(c: &mut NodeCtx<'_, '_>) -> Result<(), ErrorReply> {
    let args = c.args;
    let old_form = args.len() == 3;
    let mut filter = Filter { skip_me: !old_form, ..Filter::default() };
    if old_form {
        filter.addr = args.get(2);
    } else {
        let mut i = 2;
        while let Some(word) = args.get(i) {
            let value = args.get(i + 1).ok_or(SYNTAX)?;
            if is(word, "id") {
                let id = int(value).and_then(|id| u64::try_from(id).ok()).filter(|&id| id > 0);
                filter.id = Some(id.ok_or(ErrorReply::text("ERR client-id should be greater than 0"))?);
            } else if is(word, "type") {
                filter.nobody = !is_normal(value)?;
            } else if is(word, "addr") {
                filter.addr = Some(value);
            } else if is(word, "laddr") {
                filter.laddr = Some(value);
            } else if is(word, "user") {
                if value != USER.as_bytes() {
                    return Err(ErrorReply::of(&[b"ERR No such user '", quoted(value, value.len()), b"'"]));
                }
            } else if is(word, "skipme") && is(value, "yes") {
                filter.skip_me = true;
            } else if is(word, "skipme") && is(value, "no") {
                filter.skip_me = false;
            } else {
                return Err(SYNTAX);
            }
            i += 2;
        }
    }
    let me = c.conn.id;
    let mut killed = c.host.kill_clients(&|i| i.id != me && filter.matches(i));
    if !filter.skip_me && filter.matches(&c.conn.info(0)) {
        // The reply still leaves.
        c.conn.close_after_reply = true;
        killed += 1;
    }
    match (old_form, killed) {
        (true, 0) => return Err(ErrorReply::text("ERR No such client")),
        (true, _) => c.out.ok(),
        (false, _) => c.out.int(killed as i64),
    }
    Ok(())
}
