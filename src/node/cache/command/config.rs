//! CONFIG: the few settings that may change while a node runs, and the fixed ones that clients ask for.

use super::VALUE_MAX;
use super::context::NodeCtx;
use super::error::{ErrorReply, SYNTAX, quoted};
use super::host::Settings;
use super::parse::int;
use super::spec::{Spec, flag};
use super::{glob, introspect};

const ADMIN: u16 = flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE;

const SUBCOMMANDS: &[Spec] = &[
    Spec::node("config|get", -3, get).with(ADMIN, 0).complexity("O(N) with N parameters").doc(
        "server",
        "2.0.0",
        "<pattern> [<pattern> ...]",
        "Parameters that match, with their values.",
    ),
    Spec::conn("config|help", 2, introspect::help).with(flag::LOADING | flag::STALE, 0).doc(
        "server",
        "5.0.0",
        "",
        "This text.",
    ),
    Spec::node("config|resetstat", 2, resetstat).with(ADMIN, 0).doc(
        "server",
        "2.0.0",
        "",
        "Sets the counters of INFO to 0.",
    ),
    Spec::node("config|rewrite", 2, rewrite).with(ADMIN, 0).doc(
        "server",
        "2.8.0",
        "",
        "Refused: a node is configured by its flags.",
    ),
    Spec::node("config|set", -4, set)
        .with(ADMIN, 0)
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
        .complexity("O(N) with N parameters")
        .doc(
            "server",
            "2.0.0",
            "<parameter> <value> [<parameter> <value> ...]",
            "Changes parameters of this node until it restarts: all of them or none.",
        ),
];

pub(super) const COMMANDS: &[Spec] =
    &[Spec::container("config", SUBCOMMANDS).doc("server", "2.0.0", "", "About settings.")];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Param {
    Fixed(&'static str),
    Bind,
    Port,
    ValueMax,
    MaxClients,
    MaxMemory,
    Policy,
    SlowerThan,
    SlowLen,
    Timeout,
}

/// All parameters, by name. The fixed ones say what a Redis would have to be set to, to behave as a node does.
const PARAMS: &[(&str, Param)] = &[
    ("appendfsync", Param::Fixed("no")),
    ("appendonly", Param::Fixed("no")),
    ("bind", Param::Bind),
    ("cluster-enabled", Param::Fixed("yes")),
    ("cluster-require-full-coverage", Param::Fixed("no")),
    ("databases", Param::Fixed("1")),
    ("hz", Param::Fixed("10")),
    ("maxclients", Param::MaxClients),
    ("maxmemory", Param::MaxMemory),
    ("maxmemory-policy", Param::Policy),
    ("notify-keyspace-events", Param::Fixed("")),
    ("port", Param::Port),
    ("proto-max-bulk-len", Param::ValueMax),
    ("requirepass", Param::Fixed("")),
    ("save", Param::Fixed("")),
    ("slowlog-log-slower-than", Param::SlowerThan),
    ("slowlog-max-len", Param::SlowLen),
    ("timeout", Param::Timeout),
];

impl Param {
    fn show(self, s: &Settings, addr: (&str, u16)) -> String {
        match self {
            Param::Fixed(value) => value.to_owned(),
            Param::Bind => addr.0.to_owned(),
            Param::Port => addr.1.to_string(),
            Param::ValueMax => VALUE_MAX.to_string(),
            Param::MaxClients => s.maxclients.to_string(),
            Param::MaxMemory => s.maxmemory.to_string(),
            Param::Policy => format!("allkeys-{}", s.eviction),
            Param::SlowerThan => s.slowlog_slower_than_us.to_string(),
            Param::SlowLen => s.slowlog_max_len.to_string(),
            Param::Timeout => s.timeout_s.to_string(),
        }
    }

    fn set(self, s: &mut Settings, value: &[u8]) -> Result<(), String> {
        match self {
            Param::MaxClients => s.maxclients = number(value, 1, u32::MAX.into())? as u32,
            Param::MaxMemory => s.maxmemory = memory(value).ok_or("argument must be a memory value")?,
            Param::SlowerThan => s.slowlog_slower_than_us = number(value, -1, i64::MAX)?,
            Param::SlowLen => s.slowlog_max_len = number(value, 0, i64::MAX)? as u64,
            Param::Timeout => s.timeout_s = number(value, 0, i32::MAX.into())? as u32,
            Param::Policy if format!("allkeys-{}", s.eviction).as_bytes() == value => {}
            Param::Fixed(now) if now.as_bytes() == value => {}
            _ => return Err("can't set immutable config".into()),
        }
        Ok(())
    }
}

fn number(value: &[u8], min: i64, max: i64) -> Result<i64, String> {
    let n = int(value).ok_or("argument couldn't be parsed into an integer")?;
    if (min..=max).contains(&n) { Ok(n) } else { Err(format!("argument must be between {min} and {max} inclusive")) }
}

/// `100`, `100b`, `1k` = 1000, `1kb` = 1024, and so on with m and g.
fn memory(value: &[u8]) -> Option<u64> {
    let digits = value.iter().take_while(|b| b.is_ascii_digit()).count();
    let n: u64 = std::str::from_utf8(&value[..digits]).ok()?.parse().ok()?;
    let unit = match value[digits..].to_ascii_lowercase().as_slice() {
        b"" | b"b" => 1,
        b"k" => 1000,
        b"kb" => 1 << 10,
        b"m" => 1_000_000,
        b"mb" => 1 << 20,
        b"g" => 1_000_000_000,
        b"gb" => 1 << 30,
        _ => return None,
    };
    n.checked_mul(unit)
}

fn get(c: &mut NodeCtx<'_, '_>) -> Result<(), ErrorReply> {
    let (settings, view) = (c.host.settings(), c.host.cluster());
    let args = c.args;
    // As in Redis, a parameter that is asked for by name is told under the name as it was written.
    let hits: Vec<_> = PARAMS
        .iter()
        .filter_map(|&(name, param)| {
            let by = args.iter_from(2).find(|p| glob::matches_nocase(p, name.as_bytes()))?;
            Some((if by.iter().any(|b| b"*?[".contains(b)) { name.as_bytes() } else { by }, param))
        })
        .collect();
    c.out.map(hits.len());
    for (name, param) in hits {
        c.out.bulk(name);
        c.out.bulk(param.show(&settings, view.client_addr()).as_bytes());
    }
    Ok(())
}

fn set(c: &mut NodeCtx<'_, '_>) -> Result<(), ErrorReply> {
    let args = c.args;
    if !args.len().is_multiple_of(2) {
        return Err(SYNTAX);
    }
    let failed = |name: &[u8], why: &str| {
        ErrorReply::of(&[
            b"ERR CONFIG SET failed (possibly related to argument '",
            quoted(name, name.len()),
            b"') - ",
            why.as_bytes(),
        ])
    };
    let mut settings = c.host.settings();
    let mut seen: Vec<&str> = Vec::new();
    for i in (2..args.len()).step_by(2) {
        let (name, value) = (&args[i], &args[i + 1]);
        let Some(&(known, param)) = PARAMS.iter().find(|(known, _)| known.as_bytes().eq_ignore_ascii_case(name)) else {
            return Err(ErrorReply::of(&[
                b"ERR Unknown option or number of arguments for CONFIG SET - '",
                quoted(name, name.len()),
                b"'",
            ]));
        };
        if seen.contains(&known) {
            return Err(failed(name, "duplicate parameter"));
        }
        seen.push(known);
        param.set(&mut settings, value).map_err(|why| failed(name, &why))?;
    }
    let last = &args[args.len() - 2];
    c.host.apply_settings(settings).map_err(|why| failed(last, &why))?;
    c.out.ok();
    Ok(())
}

fn resetstat(c: &mut NodeCtx<'_, '_>) -> Result<(), ErrorReply> {
    c.host.reset_stats();
    c.out.ok();
    Ok(())
}

fn rewrite(_: &mut NodeCtx<'_, '_>) -> Result<(), ErrorReply> {
    Err(ErrorReply::text("ERR The server is running without a config file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_has_units_of_both_kinds() {
        for (text, want) in [
            ("0", Some(0)),
            ("100", Some(100)),
            ("1k", Some(1000)),
            ("1KB", Some(1024)),
            ("100mb", Some(100 << 20)),
            ("2g", Some(2_000_000_000)),
            ("2Gb", Some(2 << 30)),
            ("", None),
            ("mb", None),
            ("-1", None),
            ("1tb", None),
            ("18446744073709551615gb", None),
        ] {
            assert_eq!(memory(text.as_bytes()), want, "{text:?}");
        }
    }

    #[test]
    fn the_table_is_sorted_and_has_no_name_twice() {
        assert!(PARAMS.is_sorted_by(|a, b| a.0 < b.0));
    }
}
