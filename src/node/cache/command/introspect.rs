//! Commands about commands: COMMAND, and the HELP of every container. All of it comes from the one table.

use super::context::ConnCtx;
use super::error::{ErrorReply, SYNTAX};
use super::parse::is;
use super::spec::{KeySpec, Spec, acl, flag};
use super::{containers_of, find, glob, top_level, usage};
use crate::proto::args::Args;
use crate::proto::reply::Reply;

const FLAGS: u16 = flag::LOADING | flag::STALE;
const ORDER: &[&str] = &["nondeterministic_output_order"];

const fn sub(name: &'static str, arity: i16, body: super::context::ConnFn) -> Spec {
    Spec::conn(name, arity, body).with(FLAGS, acl::CONNECTION).complexity("O(N) with N commands")
}

const SUBCOMMANDS: &[Spec] = &[
    sub("command|count", 2, count).complexity("O(1)").doc("server", "2.8.13", "", "How many commands there are."),
    sub("command|docs", -2, docs).tips(ORDER).doc(
        "server",
        "7.0.0",
        "[<command-name> ...]",
        "What people are told of commands.",
    ),
    sub("command|getkeys", -4, getkeys).doc("server", "2.8.13", "<full-command>", "The keys of a command."),
    sub("command|getkeysandflags", -4, getkeysandflags).doc(
        "server",
        "7.0.0",
        "<full-command>",
        "The keys of a command, and what it does to each.",
    ),
    sub("command|help", 2, help).complexity("O(1)").doc("server", "5.0.0", "", "This text."),
    sub("command|info", -2, info).tips(ORDER).doc(
        "server",
        "2.8.13",
        "[<command-name> ...]",
        "What programs are told of commands.",
    ),
    sub("command|list", -2, list).tips(ORDER).doc(
        "server",
        "7.0.0",
        "[FILTERBY (MODULE name | ACLCAT category | PATTERN pattern)]",
        "The names of commands.",
    ),
];

pub(super) const COMMANDS: &[Spec] = &[sub("command", -1, all).containing(SUBCOMMANDS).tips(ORDER).doc(
    "server",
    "2.8.13",
    "",
    "What programs are told of all commands.",
)];

/// `<CONTAINER> HELP`: every subcommand with its arguments, then its line.
pub(super) fn help(c: &mut ConnCtx<'_, '_>) -> Result<(), ErrorReply> {
    let Some(container) = containers_of(c.spec) else {
        return Err(SYNTAX);
    };
    c.out.array(1 + 2 * container.subcommands.len());
    c.out.simple(&format!(
        "{} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        container.name.to_ascii_uppercase()
    ));
    for sub in container.subcommands {
        let name = sub.own_name().to_ascii_uppercase();
        c.out.simple(format!("{name} {}", sub.doc.usage).trim_end());
        c.out.simple(&format!("    {}", sub.doc.summary));
    }
    Ok(())
}

fn count(c: &mut ConnCtx<'_, '_>) -> Result<(), ErrorReply> {
    c.out.int(top_level().len() as i64);
    Ok(())
}

fn all(c: &mut ConnCtx<'_, '_>) -> Result<(), ErrorReply> {
    c.out.array(top_level().len());
    top_level().iter().for_each(|spec| describe(c.out, spec));
    Ok(())
}

fn info(c: &mut ConnCtx<'_, '_>) -> Result<(), ErrorReply> {
    if c.args.len() == 2 {
        return all(c);
    }
    c.out.array(c.args.len() - 2);
    for name in c.args.iter_from(2) {
        match find(name) {
            Some(spec) => describe(c.out, spec),
            None => c.out.null(),
        }
    }
    Ok(())
}

fn describe(out: &mut Reply<'_>, spec: &Spec) {
    out.array(10);
    out.bulk(spec.name.as_bytes());
    out.int(i64::from(spec.arity));
    simple_set(out, spec.flag_names());
    out.int(i64::from(spec.first_key));
    out.int(i64::from(spec.last_key));
    out.int(i64::from(spec.step));
    simple_set(out, spec.acl_names());
    out.set(spec.tips.len());
    spec.tips.iter().for_each(|tip| out.bulk(tip.as_bytes()));
    out.set(spec.keys.len());
    spec.keys.iter().for_each(|keys| describe_keys(out, keys));
    out.set(spec.subcommands.len());
    spec.subcommands.iter().for_each(|sub| describe(out, sub));
}

fn simple_set(out: &mut Reply<'_>, names: impl Iterator<Item = &'static str> + Clone) {
    out.set(names.clone().count());
    names.for_each(|name| out.simple(name));
}

fn describe_keys(out: &mut Reply<'_>, keys: &KeySpec) {
    out.map(3);
    out.bulk(b"flags");
    simple_set(out, keys.flags.iter().copied());
    out.bulk(b"begin_search");
    out.map(2);
    out.bulk(b"type");
    out.bulk(b"index");
    out.bulk(b"spec");
    out.map(1);
    out.bulk(b"index");
    out.int(i64::from(keys.at));
    out.bulk(b"find_keys");
    out.map(2);
    out.bulk(b"type");
    out.bulk(b"range");
    out.bulk(b"spec");
    out.map(3);
    out.bulk(b"lastkey");
    out.int(i64::from(keys.last));
    out.bulk(b"keystep");
    out.int(i64::from(keys.step));
    out.bulk(b"limit");
    out.int(0);
}

fn docs(c: &mut ConnCtx<'_, '_>) -> Result<(), ErrorReply> {
    let asked: Vec<&Spec> = match c.args.len() {
        2 => top_level().iter().collect(),
        _ => c.args.iter_from(2).filter_map(find).collect(),
    };
    write_docs(c.out, asked.into_iter());
    Ok(())
}

fn write_docs<'s>(out: &mut Reply<'_>, specs: impl ExactSizeIterator<Item = &'s Spec>) {
    out.map(specs.len());
    for spec in specs {
        out.bulk(spec.name.as_bytes());
        let fields = [
            ("summary", spec.doc.summary),
            ("since", spec.doc.since),
            ("group", spec.doc.group),
            ("complexity", spec.doc.complexity),
        ];
        let arguments = usage::arguments(spec.doc.usage);
        out.map(fields.len() + usize::from(!arguments.is_empty()) + usize::from(!spec.subcommands.is_empty()));
        for (name, text) in fields {
            out.bulk(name.as_bytes());
            out.bulk(text.as_bytes());
        }
        if !arguments.is_empty() {
            out.bulk(b"arguments");
            usage::write(out, spec, &arguments);
        }
        if !spec.subcommands.is_empty() {
            out.bulk(b"subcommands");
            write_docs(out, spec.subcommands.iter());
        }
    }
}

fn list(c: &mut ConnCtx<'_, '_>) -> Result<(), ErrorReply> {
    let args = c.args;
    let with_subs = || top_level().iter().flat_map(|s| std::iter::once(s).chain(s.subcommands));
    let names: Vec<&str> = match (args.len(), args.get(2), args.get(3), args.get(4)) {
        (2, ..) => with_subs().map(|s| s.name).collect(),
        (5, Some(filter), Some(by), Some(value)) if is(filter, "filterby") => {
            if is(by, "module") {
                Vec::new()
            } else if is(by, "aclcat") {
                let in_category = |s: &&Spec| s.acl_names().any(|name| is(value, &name[1..]));
                with_subs().filter(in_category).map(|s| s.name).collect()
            } else if is(by, "pattern") {
                with_subs().filter(|s| glob::matches_nocase(value, s.name.as_bytes())).map(|s| s.name).collect()
            } else {
                return Err(SYNTAX);
            }
        }
        _ => return Err(SYNTAX),
    };
    c.out.array(names.len());
    names.iter().for_each(|name| c.out.bulk(name.as_bytes()));
    Ok(())
}

/// The command that COMMAND GETKEYS is asked about.
fn asked<'a>(c: &ConnCtx<'a, '_>) -> Result<(&'static Spec, Args<'a>), ErrorReply> {
    const UNKNOWN: ErrorReply = ErrorReply::text("ERR Invalid command specified");
    const KEYLESS: ErrorReply = ErrorReply::text("ERR The command has no key arguments");
    const ARITY: ErrorReply = ErrorReply::text("ERR Invalid number of arguments specified for command");
    let args = c.args.skip(2);
    let base = args.get(0).and_then(super::lookup).ok_or(UNKNOWN)?;
    let spec = match args.get(1) {
        Some(sub) if !base.subcommands.is_empty() => base.subcommand(sub).ok_or(UNKNOWN)?,
        _ => base,
    };
    match () {
        () if spec.keys.is_empty() => Err(KEYLESS),
        () if !spec.takes(args.len()) => Err(ARITY),
        () => Ok((spec, args)),
    }
}

fn getkeys(c: &mut ConnCtx<'_, '_>) -> Result<(), ErrorReply> {
    let (spec, args) = asked(c)?;
    c.out.array(spec.keys(args).count());
    spec.keys(args).for_each(|key| c.out.bulk(key));
    Ok(())
}

fn getkeysandflags(c: &mut ConnCtx<'_, '_>) -> Result<(), ErrorReply> {
    let (spec, args) = asked(c)?;
    c.out.array(spec.keys(args).count());
    for i in spec.key_indices(args.len()) {
        let role = spec.keys.iter().rev().find(|k| usize::from(k.at) <= i);
        let flags = match role.map_or(&[][..], |k| k.flags) {
            // SET alone: it reads the key only if it is asked for the old value.
            flags if !flags.contains(&"variable_flags") => flags,
            _ if args.iter_from(3).any(|a| is(a, "get")) => &["RW", "access", "update"],
            _ => &["OW", "update"],
        };
        c.out.array(2);
        c.out.bulk(&args[i]);
        simple_set(c.out, flags.iter().copied());
    }
    Ok(())
}
