//! What COMMAND DOCS says of a command's arguments: read from the line that HELP shows, so that there is one description.
//!
//! ```text
//!   <name>  NAME  NAME value  [optional]  (a | b)  [<name> ...]        seq := item*      group := seq ('|' seq)*
//! ```

use super::spec::Spec;
use crate::proto::reply::Reply;

/// Arguments that are keys, where a command has keys at all.
const KEYS: &[&str] = &["key", "newkey", "source", "destination"];
const INTEGERS: &[&str] = &[
    "seconds",
    "milliseconds",
    "count",
    "slot",
    "offset",
    "start",
    "end",
    "increment",
    "decrement",
    "cursor",
    "index",
    "first",
    "last",
    "numreplicas",
    "timeout",
    "id",
    "0",
];

/// One argument, or several in a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arg {
    name: String,
    kind: &'static str,
    token: Option<&'static str>,
    optional: bool,
    multiple: bool,
    within: Vec<Arg>,
}

impl Arg {
    fn new(name: &str, kind: &'static str) -> Self {
        let name = name.to_ascii_lowercase();
        Self { name, kind, token: None, optional: false, multiple: false, within: Vec::new() }
    }

    fn value(word: &str) -> Self {
        let name = word.trim_matches(['<', '>']);
        let kind = match name {
            _ if KEYS.contains(&name) => "key",
            "pattern" => "pattern",
            _ if name.starts_with("unix-") => "unix-time",
            _ if INTEGERS.contains(&name) => "integer",
            _ => "string",
        };
        Self::new(name, kind)
    }

    fn group(kind: &'static str, within: Vec<Arg>) -> Self {
        Self { within, ..Self::new(if kind == "oneof" { "choice" } else { "group" }, kind) }
    }
}

/// The arguments of a usage line.
pub fn arguments(usage: &'static str) -> Vec<Arg> {
    let mut words = Words { rest: usage, dots: false };
    words.sequence()
}

struct Words {
    rest: &'static str,
    /// `...` stood in the group that is being read.
    dots: bool,
}

fn is_token(word: &str) -> bool {
    word.bytes().all(|b| b.is_ascii_uppercase() || b == b'-')
}

impl Words {
    /// The next word or sign, which stays.
    fn peek(&mut self) -> Option<&'static str> {
        self.rest = self.rest.trim_start();
        let first = self.rest.chars().next()?;
        let len = match first {
            '[' | ']' | '(' | ')' | '|' => 1,
            _ => self.rest.find([' ', '[', ']', '(', ')', '|']).unwrap_or(self.rest.len()),
        };
        Some(&self.rest[..len])
    }

    fn next(&mut self) -> Option<&'static str> {
        let word = self.peek()?;
        self.rest = &self.rest[word.len()..];
        Some(word)
    }

    fn sequence(&mut self) -> Vec<Arg> {
        let mut out: Vec<Arg> = Vec::new();
        while let Some(word) = self.peek() {
            match word {
                "]" | ")" | "|" => break,
                "..." => self.dots = true,
                "[" => {
                    self.next();
                    self.optional(&mut out);
                    continue;
                }
                "(" => {
                    self.next();
                    out.push(self.choice());
                    continue;
                }
                word if is_token(word) => {
                    self.next();
                    let arg = self.behind_token(word);
                    out.push(Arg { token: Some(word), ..arg });
                    continue;
                }
                word => out.push(Arg::value(word)),
            }
            self.next();
        }
        out
    }

    /// What a token stands before: a value, a choice, or nothing.
    fn behind_token(&mut self, token: &'static str) -> Arg {
        match self.peek() {
            Some("(") => {
                self.next();
                Arg { name: token.to_ascii_lowercase(), ..self.choice() }
            }
            Some(word) if !matches!(word, "[" | "]" | ")" | "|" | "...") && !is_token(word) => {
                self.next();
                let mut words = vec![word];
                // `SKIPME yes|no`: what may stand there, word by word.
                while self.rest.starts_with('|') {
                    self.next();
                    words.extend(self.next());
                }
                match words[..] {
                    [word] => Arg::value(word),
                    _ => Arg::new(&words.join("/"), "string"),
                }
            }
            _ => Arg::new(token, "pure-token"),
        }
    }

    /// Up to the closing sign: one argument, several as a block, or alternatives.
    fn choice(&mut self) -> Arg {
        let mut all: Vec<Arg> = Vec::new();
        loop {
            let mut seq = self.sequence();
            all.push(match seq.len() {
                1 => seq.remove(0),
                _ => Arg::group("block", seq),
            });
            match self.next() {
                Some("|") => {}
                _ => break,
            }
        }
        if all.len() == 1 { all.remove(0) } else { Arg::group("oneof", all) }
    }

    fn optional(&mut self, out: &mut Vec<Arg>) {
        let outer = std::mem::take(&mut self.dots);
        let arg = self.choice();
        let again = std::mem::replace(&mut self.dots, outer);
        let repeated = if arg.kind == "block" { arg.within.clone() } else { vec![arg.clone()] };
        if again && out.ends_with(&repeated) {
            // `<key> <value> [<key> <value> ...]` is one block that may be repeated.
            let first = out.len() - repeated.len();
            let mut tail = out.split_off(first);
            let arg = if tail.len() == 1 { tail.remove(0) } else { Arg::group("block", tail) };
            out.push(Arg { multiple: true, ..arg });
        } else {
            out.push(Arg { optional: true, multiple: again, ..arg });
        }
    }
}

/// As COMMAND DOCS writes them.
pub fn write(out: &mut Reply<'_>, spec: &Spec, args: &[Arg]) {
    out.array(args.len());
    for arg in args {
        let has_keys = !spec.keys.is_empty();
        let kind = match arg.kind {
            "key" if !has_keys => "string",
            "integer" if spec.name == "incrbyfloat" => "double",
            kind => kind,
        };
        let flags: Vec<&str> =
            [("optional", arg.optional), ("multiple", arg.multiple)].iter().filter(|f| f.1).map(|f| f.0).collect();
        let fields = [kind == "key", arg.token.is_some(), !flags.is_empty(), !arg.within.is_empty()];
        out.map(2 + fields.iter().filter(|f| **f).count());
        for (field, text) in [("name", arg.name.as_str()), ("type", kind)] {
            out.bulk(field.as_bytes());
            out.bulk(text.as_bytes());
        }
        if kind == "key" {
            out.bulk(b"key_spec_index");
            // The second of two kinds of keys is described second.
            let second = matches!(arg.name.as_str(), "newkey" | "destination") && spec.keys.len() > 1;
            out.int(i64::from(second));
        }
        if let Some(token) = arg.token {
            out.bulk(b"token");
            out.bulk(token.as_bytes());
        }
        if !flags.is_empty() {
            out.bulk(b"flags");
            out.set(flags.len());
            flags.iter().for_each(|f| out.simple(f));
        }
        if !arg.within.is_empty() {
            out.bulk(b"arguments");
            write(out, spec, &arg.within);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names and signs, as short as can be: `?` optional, `*` multiple.
    fn shape(args: &[Arg]) -> String {
        let one = |a: &Arg| {
            let token = a.token.map(|t| format!("{t}:")).unwrap_or_default();
            let within = if a.within.is_empty() { String::new() } else { format!("({})", shape(&a.within)) };
            let (optional, multiple) = (if a.optional { "?" } else { "" }, if a.multiple { "*" } else { "" });
            let what = if a.within.is_empty() { &a.name } else { a.kind };
            format!("{token}{what}{within}{optional}{multiple}")
        };
        args.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn usage_lines_are_read_as_people_do() {
        for (usage, expected) in [
            ("", ""),
            ("<key>", "key"),
            ("<key> [<key> ...]", "key*"),
            ("<key> <value> [<key> <value> ...]", "block(key value)*"),
            ("[<message>]", "message?"),
            ("[<section> ...]", "section?*"),
            ("(ON|OFF)", "oneof(ON:on OFF:off)"),
            ("<cursor> [MATCH pattern] [COUNT count]", "cursor MATCH:pattern? COUNT:count?"),
            (
                "<a> [NX | XX] [GET] [EX seconds | KEEPTTL]",
                "a oneof(NX:nx XX:xx)? GET:get? oneof(EX:seconds KEEPTTL:keepttl)?",
            ),
            ("(<ip:port> | [ID id] [SKIPME yes|no])", "oneof(ip:port block(ID:id? SKIPME:yes/no?))"),
            ("[FILTERBY (MODULE name | PATTERN pattern)]", "FILTERBY:oneof(MODULE:name PATTERN:pattern)?"),
            ("<source> <destination> [DB 0] [REPLACE]", "source destination DB:0? REPLACE:replace?"),
        ] {
            assert_eq!(shape(&arguments(usage)), expected, "{usage}");
        }
    }

    /// The fewest words that fit.
    fn fewest(args: &[Arg]) -> usize {
        let own = |a: &Arg| match a.kind {
            "pure-token" => 1,
            // A command and what it is about.
            _ if a.name == "full-command" => 2,
            "oneof" => {
                usize::from(a.token.is_some())
                    + a.within.iter().map(|w| fewest(std::slice::from_ref(w))).min().unwrap_or(0).max(1)
            }
            "block" => fewest(&a.within),
            _ => 1 + usize::from(a.token.is_some()),
        };
        args.iter().filter(|a| !a.optional).map(own).sum()
    }

    #[test]
    fn every_usage_asks_for_as_many_words_as_the_command_takes() {
        for spec in super::super::top_level().iter().flat_map(|s| std::iter::once(s).chain(s.subcommands)) {
            if !spec.subcommands.is_empty() {
                continue;
            }
            let args = arguments(spec.doc.usage);
            let own = 1 + usize::from(spec.name.contains('|'));
            let more = args.iter().any(|a| a.optional || a.multiple);
            let least = own + fewest(&args);
            let arity = usize::from(spec.arity.unsigned_abs());
            assert!(least >= arity, "{}: {} asks for {least} words, {arity} fit", spec.name, spec.doc.usage);
            assert!(spec.arity < 0 || (least == arity && !more), "{}: {}", spec.name, spec.doc.usage);
        }
    }
}
