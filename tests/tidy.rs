//! The house rules that a machine can check: arrows between rooms, a `//!` on every file, sizes, words, dependencies, origins.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Longer files hide more than one concern.
const LINES_MAX: usize = 1000;
/// Files that may be longer, each with its reason.
const LONG: &[(&str, &str)] = &[];
/// Files that may hold `unsafe`, each with its reason; its proof stands in the file.
const UNSAFE: &[(&str, &str)] = &[
    (
        "src/cli/local/inherit.rs",
        "marks inherited descriptors close-on-exec by their numbers, which no safe call takes",
    ),
    ("src/node/cache/store/prefetch.rs", "asks the CPU for memory ahead of its use, for which there is no safe call"),
    ("src/node/pages.rs", "lets go of code that only the start needed, by an address range, which no safe call takes"),
];

/// Rooms that a room may not name: arrows run `proto ← node`, `proto ← tui`, `{proto, node, tui} ← cli ← main`.
const WALLS: &[(&str, &[&str])] =
    &[("src/proto/", &["node", "tui", "cli"]), ("src/node/", &["tui", "cli"]), ("src/tui/", &["node", "cli"])];

/// What the notes that cachectl began as call things; each must be findable in ARCHITECTURE.md.
const ORIGIN: &[&str] = &[
    "consistentHash",
    "epoll",
    "safeQueue",
    "json",
    "threadPool",
    "addTask",
    "log",
    "state-machine replies",
    "状态机回复",
    "timer",
    "KEEP_ALIVE",
    "主动扩容",
    "ADD_CACHE_SERVER",
    "iplist",
    "主动缩容",
    "SHUTDOWN_CACHE",
    "被动缩容",
    "REFLESH_IP",
    "REFRESH_IP",
    "Master 容灾",
    "REFLESH_MASTER",
    "REFRESH_MASTER",
    "client GET",
    "client SET",
    "KEY_VALUE_RESPONSE",
    "KEY_VALUE_RESPONSE_BACK",
    "many sends, one event",
    "close unseen after send",
    "readv",
    "the master dies, a heartbeat fails",
    "misses the master's answer",
    "did not update the iplist",
    "epoll_wait",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn collect(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())) {
        let path = entry.expect("a directory entry").path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// Every Rust file of the project, by its path from the root.
fn sources() -> BTreeMap<String, String> {
    let mut files = Vec::new();
    for dir in ["src", "tests", "benches"].map(|d| root().join(d)) {
        collect(&dir, &mut files);
    }
    assert!(files.len() > 20, "only {} files found: the walk is broken", files.len());
    let name = |p: &Path| p.strip_prefix(root()).expect("below the root").to_string_lossy().replace('\\', "/");
    files.iter().map(|p| (name(p), std::fs::read_to_string(p).expect("a readable source"))).collect()
}

/// A file's code: comments and the insides of string literals are left out, so that words in them don't count.
fn code(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    let mut in_name = false;
    while let Some(c) = rest.chars().next() {
        let until = |end: Option<usize>| end.unwrap_or(rest.len());
        let skip = if rest.starts_with("//") {
            until(rest.find('\n'))
        } else if rest.starts_with("/*") {
            until(rest.find("*/").map(|i| i + 2))
        } else if let Some(close) = raw_string(rest).filter(|_| !in_name) {
            let open = rest.find('"').unwrap_or(0) + 1;
            until(rest[open..].find(&close).map(|i| open + i + close.len()))
        } else if c == '"' {
            string_end(rest)
        } else if rest.starts_with("'\"'") {
            3
        } else {
            in_name = c.is_alphanumeric() || c == '_';
            out.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        };
        // Lines stay countable.
        out.extend(rest[..skip].chars().filter(|&c| c == '\n'));
        rest = &rest[skip..];
        in_name = false;
    }
    out
}

/// If a raw string begins here: what closes it.
fn raw_string(rest: &str) -> Option<String> {
    let hashes = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r'))?;
    let count = hashes.bytes().take_while(|&b| b == b'#').count();
    hashes[count..].starts_with('"').then(|| format!("\"{}", "#".repeat(count)))
}

fn string_end(rest: &str) -> usize {
    let mut escaped = false;
    for (i, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return i + 1,
            _ => {}
        }
    }
    rest.len()
}

/// The rooms of this crate that code names, as `crate::room`, `crate::{room, …}` or `cachectl::room`.
fn rooms_named(code: &str) -> Vec<String> {
    let word = |s: &str| s.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut rooms = Vec::new();
    for (at, prefix) in code.match_indices("crate::").chain(code.match_indices("cachectl::")) {
        let rest = &code[at + prefix.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            rooms.push(word(rest));
            continue;
        };
        let mut depth = 0;
        let mut item = String::new();
        for c in group.chars() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => rooms.push(word(&std::mem::take(&mut item))),
                _ if depth == 0 => item.push(c),
                _ => {}
            }
        }
        rooms.push(word(&item));
    }
    rooms
}

fn has_word(code: &str, word: &str) -> bool {
    let part_of_name = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    code.match_indices(word).any(|(at, _)| {
        !part_of_name(code[..at].chars().next_back()) && !part_of_name(code[at + word.len()..].chars().next())
    })
}

#[test]
fn the_scanner_sees_code_and_nothing_else() {
    let source = "use crate::{node, proto::{cli, x}, tui::y};\n// crate::a\nlet s = \"crate::b \\\" crate::c\";\n\
                  let r = r#\"crate::d \" crate::e\"#; /* crate::f */ let q = '\"'; let raw = super\"crate::h\"; crate::g();\n";
    assert_eq!(rooms_named(&code(source)), ["node", "proto", "tui", "g"]);
    assert_eq!(code(source).lines().count(), source.lines().count());
    assert!(has_word("unsafe { }", "unsafe") && !has_word("unsafe_code", "unsafe"));
}

#[test]
fn arrows_run_one_way() {
    let mut wrong = Vec::new();
    for (file, source) in sources() {
        for (room, forbidden) in WALLS.iter().filter(|(room, _)| file.starts_with(room)) {
            let named = rooms_named(&code(&source)).into_iter().filter(|n| forbidden.contains(&n.as_str()));
            wrong.extend(named.map(|n| format!("{file} names {n}, which nothing in {room} may")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_says_what_it_is_for() {
    for (file, source) in sources() {
        let first = source.lines().next().unwrap_or_default();
        let says = first.strip_prefix("//! ").is_some_and(|s| s.len() > 10);
        assert!(says, "{file} begins with {first:?}, not with `//!` and what it is for");
    }
}

#[test]
fn files_hold_one_concern() {
    let sources = sources();
    for (file, source) in &sources {
        let (lines, listed) = (source.lines().count(), LONG.iter().any(|(f, _)| f == file));
        assert!(listed || lines <= LINES_MAX, "{file} has {lines} lines, more than {LINES_MAX}");
        assert!(!listed || lines > LINES_MAX, "{file} is short again: take it off the list of long files");
    }
    assert!(LONG.iter().all(|(f, _)| sources.contains_key(*f)), "a file on the list of long files is gone");
}

#[test]
fn nothing_is_left_undone() {
    for (file, source) in sources() {
        let code = code(&source);
        for word in ["todo", "unimplemented", "dbg"] {
            let used = code.match_indices(&format!("{word}!")).any(|(at, _)| has_word(&code[at..], word));
            assert!(!used, "{file} holds {word}!");
        }
    }
}

#[test]
fn unsafe_code_stays_in_its_rooms() {
    let sources = sources();
    for (file, source) in &sources {
        let listed = UNSAFE.iter().any(|(f, _)| f == file);
        let holds = has_word(&code(source), "unsafe");
        assert_eq!(holds, listed, "{file}: it and the list of files that may hold `unsafe` disagree");
    }
    assert!(UNSAFE.iter().all(|(f, _)| sources.contains_key(*f)), "a file on the list of unsafe ones is gone");
}

#[test]
fn every_dependency_has_its_reason() {
    let manifest: toml::Table = read("Cargo.toml").parse().expect("Cargo.toml is TOML");
    let architecture = read("ARCHITECTURE.md");
    // Rows look like: | `name` | reason |
    let reasons: BTreeMap<&str, &str> = architecture
        .lines()
        .filter_map(|l| l.strip_prefix("| `")?.split_once("` | "))
        .map(|(name, reason)| (name, reason.trim_end_matches('|').trim()))
        .collect();
    for section in ["dependencies", "dev-dependencies"] {
        for name in manifest[section].as_table().expect("a table").keys() {
            let reason = reasons.get(name.as_str()).copied().unwrap_or_default();
            assert!(!reason.is_empty(), "{name} has no row with its reason in ARCHITECTURE.md: | `{name}` | why |");
        }
    }
}

#[test]
fn the_original_design_is_findable() {
    let architecture = read("ARCHITECTURE.md");
    let missing: Vec<_> = ORIGIN.iter().filter(|word| !architecture.contains(**word)).collect();
    assert!(missing.is_empty(), "not in ARCHITECTURE.md: {missing:?}");
}
