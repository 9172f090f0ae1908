//! Every `cachectl …` that a page, a help text or a hint shows can be typed: each is parsed by the real command line. README's
//! two minutes are run as they stand.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use cachectl::cli::args::Cli;
use clap::CommandFactory;
use clap::error::ErrorKind;

use crate::common::wait_for;
use crate::sandbox::{Ran, Sandbox};

/// What words in capitals stand for; one that is not here can't be told from a mistake.
const PLACEHOLDERS: &[(&str, &str)] = &[
    ("COMMAND", "status"),
    ("FILE", "/dev/null"),
    ("HOST", "10.0.0.1"),
    ("HOST:PORT", "10.0.0.1:7101"),
    ("ID", "17"),
    ("KEY", "k"),
    ("MASTER", "m1"),
    ("NAME", "demo"),
    ("NODE", "n1"),
    ("SHELL", "bash"),
    ("VALUE", "v"),
];

/// Pages with fewer commands than this were not read, but missed.
const COMMANDS_MIN: usize = 60;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// One command and where it stands.
struct Shown {
    at: String,
    words: Vec<String>,
}

/// Splits as a shell would, up to a comment, a pipe, a redirection or the end of the command.
fn shell_words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '\\') => word.get_or_insert_default().extend(chars.next()),
            (None, '#') if word.is_none() => break,
            (None, '|' | '>' | '<' | ';' | '&' | ')') => {
                // The number of what is redirected.
                word = word.filter(|w| c != '>' || !w.bytes().all(|b| b.is_ascii_digit()));
                break;
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// The words of a command line that calls this program, which may stand behind a prompt, `sudo` or variables.
fn called(line: &str) -> Option<Vec<String>> {
    let mut words = shell_words(line.trim().trim_start_matches("$ "));
    if words.starts_with(&["cargo".into(), "run".into()]) {
        words = words.split_off(words.iter().position(|w| w == "--")? + 1);
        words.insert(0, "cachectl".into());
    }
    let first = words.iter().position(|w| w != "sudo" && !w.contains('='))?;
    (words[first] == "cachectl" || words[first].ends_with("/cachectl")).then(|| words.split_off(first))
}

/// Commands in Markdown: lines of code blocks, and code within text.
fn in_markdown(text: &str, at: &str, found: &mut Vec<Shown>) {
    let (mut block, mut drawing) = (false, false);
    let mut joined = String::new();
    for (n, line) in text.lines().enumerate() {
        let at = format!("{at}:{}", n + 1);
        if let Some(language) = line.trim_start().strip_prefix("```") {
            block = !block;
            // What has no language is a drawing, unless it begins with a command.
            drawing = block && language.is_empty() && text.lines().nth(n + 1).is_none_or(|l| called(l).is_none());
        } else if block && !drawing {
            // A line that ends in a backslash goes on.
            joined.push_str(line.trim_end().trim_end_matches('\\'));
            if line.trim_end().ends_with('\\') {
                continue;
            }
            let line = std::mem::take(&mut joined);
            // systemd's and a container file's way to say what runs.
            let line = line.split_once("ExecStart=").map_or(line.as_str(), |(_, rest)| rest);
            found.extend(called(line).map(|words| Shown { at, words }));
        } else if !block {
            in_code(line, &at, found);
        }
    }
}

/// Commands in backquotes.
fn in_code(line: &str, at: &str, found: &mut Vec<Shown>) {
    for code in line.split('`').skip(1).step_by(2) {
        if let Some(start) = code.find("cachectl ").filter(|&i| i == 0 || !code[..i].ends_with(['/', '-', '.'])) {
            let words = called(&code[start..]).into_iter();
            found.extend(words.map(|words| Shown { at: at.to_owned(), words }));
        }
    }
}

fn files(dir: &str, extension: &str) -> Vec<PathBuf> {
    let mut all = Vec::new();
    let mut dirs = vec![root().join(dir)];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())).flatten() {
            let path = entry.path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|e| e == extension) {
                all.push(path);
            }
        }
    }
    assert!(!all.is_empty(), "no {extension} in {dir}");
    all
}

fn read(path: &Path) -> (String, String) {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    (path.strip_prefix(root()).unwrap().display().to_string(), text)
}

/// Puts something for each placeholder, `[optional]` parts as they are, and drops `…`.
fn filled(words: &[String]) -> Vec<String> {
    let fill = |w: &String| {
        let bare = w.trim_matches(['[', ']']);
        let stands = PLACEHOLDERS.iter().find(|(p, _)| *p == bare.trim_end_matches('…'));
        stands.map_or_else(|| bare.to_owned(), |(_, value)| (*value).to_owned())
    };
    words.iter().filter(|w| *w != "…" && *w != "...").map(fill).collect()
}

/// Whether all words are names of commands, one within the other.
fn names_a_command(words: &[String]) -> bool {
    let mut at = Cli::command();
    words[1..].iter().all(|w| match at.find_subcommand(w).cloned() {
        Some(sub) => {
            at = sub;
            true
        }
        None => false,
    })
}

fn check(found: &[Shown]) {
    let mut wrong = Vec::new();
    for shown in found {
        let words = filled(&shown.words);
        match Cli::command().try_get_matches_from(&words) {
            Ok(_) => {}
            Err(e) if matches!(e.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {}
            // A family named as a whole, as in `cachectl ops`, takes any of its commands.
            Err(e) if e.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {}
            // Named, not shown: `cachectl remove` with nothing behind it means the command, not a line to type.
            Err(e) if e.kind() == ErrorKind::MissingRequiredArgument && names_a_command(&words) => {}
            Err(e) if e.kind() == ErrorKind::MissingSubcommand && names_a_command(&words) => {}
            Err(e) => wrong.push(format!("{}: {}\n    {}", shown.at, shown.words.join(" "), e.to_string().trim())),
        }
    }
    assert!(wrong.is_empty(), "{} of {} commands can't be typed:\n{}", wrong.len(), found.len(), wrong.join("\n"));
}

#[test]
fn every_command_that_a_page_shows_can_be_typed() {
    let mut found = Vec::new();
    let mut pages: Vec<PathBuf> = ["README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "demo/README.md"]
        .iter()
        .map(|p| root().join(p))
        .chain(files("docs", "md"))
        .collect();
    pages.sort();
    for page in &pages {
        let (name, text) = read(page);
        in_markdown(&text, &name, &mut found);
    }
    // Headings of docs/json.md name several commands at once: ``## `cachectl add`, `remove` ``.
    for (n, line) in read(&root().join("docs/json.md")).1.lines().enumerate() {
        for more in line.strip_prefix("## `cachectl ").into_iter().flat_map(|l| l.trim_end_matches('`').split("`, `")) {
            let words = shell_words(&format!("cachectl {more}"));
            found.push(Shown { at: format!("docs/json.md:{}", n + 1), words });
        }
    }
    assert!(found.len() >= COMMANDS_MIN, "only {} commands found: the search is broken", found.len());
    check(&found);
}

#[test]
fn every_command_that_units_and_scripts_run_can_be_typed() {
    let mut found = Vec::new();
    for path in files("deploy", "service").into_iter().chain([root().join("deploy/Containerfile")]) {
        let (name, text) = read(&path);
        let text = text.replace("\\\n", " ");
        for (n, line) in text.lines().enumerate() {
            let at = format!("{name}:{}", n + 1);
            let line = line.trim_start_matches("ExecStart=").trim_start_matches("RUN ");
            // ENTRYPOINT ["cachectl"] and CMD ["up", …] are JSON; `${X}` and `%i` are filled in by who runs it.
            let list = ["ENTRYPOINT ", "CMD "].iter().find_map(|p| line.strip_prefix(p));
            let words: Option<Vec<String>> = match list {
                Some(json) => {
                    let mut words: Vec<String> = serde_json::from_str(json).unwrap_or_else(|e| panic!("{at}: {e}"));
                    if !words[0].ends_with("cachectl") {
                        words.insert(0, "cachectl".into());
                    }
                    Some(words)
                }
                None => called(&line.replace("%i", "x1")),
            };
            found.extend(words.map(|words| Shown { at, words }));
        }
    }
    assert!(found.len() >= 3, "only {} commands found in deploy/", found.len());
    let units = found.len();
    // The tour's own `run`, and what it calls for answers.
    let (name, text) = read(&root().join("demo/tour.sh"));
    for (n, line) in text.lines().enumerate() {
        let line = line.trim();
        let line = match line.strip_prefix("run ") {
            Some(rest) => format!("cachectl {rest}"),
            None => match line.split_once("\"$cachectl\" ") {
                Some((_, rest)) if !rest.starts_with("\"$@\"") => format!("cachectl {rest}"),
                _ => continue,
            },
        };
        let line = line.replace("${patience}s", "60s").replace("$i", "1").replace("$new", "n4");
        found.push(Shown { at: format!("{name}:{}", n + 1), words: shell_words(&line) });
    }
    let (name, text) = read(&root().join("justfile"));
    for (n, line) in text.lines().enumerate() {
        let words = called(&line.replace("$s", "overview"));
        found.extend(words.map(|words| Shown { at: format!("{name}:{}", n + 1), words }));
    }
    assert!(found.len() >= units + 12, "the tour's commands were not found");
    check(&found);
}

#[test]
fn the_units_are_sound() {
    crate::common::tool::require("systemd-analyze", "apt-get install systemd");
    let dir = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new("systemd-analyze");
    command.args(["verify", "--man=no"]);
    for path in files("deploy", "service") {
        // It looks whether the program is there.
        let unit = dir.path().join(path.file_name().unwrap());
        std::fs::write(&unit, read(&path).1.replace("/usr/local/bin/cachectl", crate::common::CACHECTL)).unwrap();
        command.arg(unit);
    }
    let done = crate::common::tool::run(&mut command, std::time::Duration::from_secs(60));
    let done = done.expect_success("systemd-analyze verify");
    assert_eq!(done.stderr, "");
}

#[test]
fn every_command_that_help_and_hints_show_can_be_typed() {
    fn walk(command: &mut clap::Command, path: &str, found: &mut Vec<Shown>) {
        let help = command.render_long_help().to_string();
        for line in help.lines().filter(|l| !l.trim_start().starts_with("Usage:")) {
            in_code(line, &format!("{path} --help"), found);
            for rest in line.match_indices("cachectl completion").map(|(i, _)| &line[i..]) {
                found.push(Shown { at: format!("{path} --help"), words: shell_words(rest) });
            }
        }
        for sub in command.get_subcommands_mut() {
            let path = format!("{path} {}", sub.get_name());
            walk(sub, &path, found);
        }
    }
    let mut found = Vec::new();
    let mut command = Cli::command();
    command.build();
    walk(&mut command, "cachectl", &mut found);
    assert!(found.len() >= 4, "{}", found.len());
    // Words that the program prints: hints in its sources. `{name}` stands for a node.
    let helped = found.len();
    for path in files("src", "rs") {
        let (name, text) = read(&path);
        // What may come before a command's own words, and what is put together elsewhere, is no line to type.
        let foreign = |l: &&str| l.trim_start().starts_with("//") || l.contains("`cachectl {}`");
        for (n, line) in text.lines().enumerate().filter(|(_, l)| !foreign(l)) {
            let mut line = line.to_owned();
            while let Some((a, b)) = line.find('{').and_then(|a| Some((a, a + line[a..].find('}')?))) {
                line.replace_range(a..=b, "1");
            }
            in_code(&line, &format!("{name}:{}", n + 1), &mut found);
        }
    }
    assert!(found.len() >= helped + 40, "only {} hints found", found.len() - helped);
    check(&found);
}

#[test]
fn words_are_split_as_a_shell_does() {
    let words = |t: &str| shell_words(t).join("|");
    assert_eq!(words("cachectl set k 'a b' # why"), "cachectl|set|k|a b");
    assert_eq!(words("cachectl man add | man -l -"), "cachectl|man|add");
    assert_eq!(words(r#"cachectl set k "a#b" --ttl 10s"#), "cachectl|set|k|a#b|--ttl|10s");
    assert_eq!(words("cachectl logs 2> /dev/null"), "cachectl|logs");
    assert_eq!(called("$ sudo A=b cachectl up").unwrap().join(" "), "cachectl up");
    assert_eq!(called("cargo run --release -- up --tui").unwrap().join(" "), "cachectl up --tui");
    assert!(called("redis-cli -c set cachectl 1").is_none());
    // What can't be typed is found.
    let wrong = Shown { at: "here".into(), words: shell_words("cachectl statsu") };
    assert!(std::panic::catch_unwind(|| check(&[wrong])).is_err());
}

/// What is added to a line of README so that it ends on a busy machine, and soon.
fn more(command: &str) -> &'static [&'static str] {
    match command {
        "up" => &["--wait", "120s"],
        "bench" => &["--duration", "2s", "--keys", "5000"],
        _ => &[],
    }
}

#[test]
fn the_two_minutes_of_readme_run_as_they_stand() {
    let s = Sandbox::new();
    let (_, text) = read(&root().join("README.md"));
    let section = text.split("## Two minutes").nth(1).expect("README's section");
    let block = section.split("```console\n").nth(1).and_then(|t| t.split("```").next()).expect("its code");
    let port = (s.base + 101).to_string();
    let mut ran = Vec::new();
    let mut expected: Vec<(String, String)> = Vec::new();
    for line in block.lines() {
        let Some(line) = line.strip_prefix("$ ") else {
            // What the line before it printed.
            let (command, out) = expected.last_mut().expect("a command first");
            assert_eq!(out.trim(), line.trim(), "{command}");
            continue;
        };
        let line = line.replace("7201", &port);
        let words = shell_words(&line);
        let out = match words[0].as_str() {
            "redis-cli" => {
                crate::common::tool::require("redis-cli", "apt-get install redis-tools");
                let done = std::process::Command::new("redis-cli").args(&words[1..]).output().unwrap();
                assert!(done.status.success(), "{line}");
                crate::common::text(&done.stdout)
            }
            "cachectl" => run_shown(&s, &words[1..]),
            other => panic!("{other} in README's two minutes is not known here"),
        };
        ran.push(words[1].clone());
        expected.push((line, out));
    }
    assert!(ran.len() >= 10 && ran.contains(&"down".to_owned()), "{ran:?}");
    s.assert_nothing_left("demo", &[]);
}

/// Runs one line; what waits for a person or for ever is only begun.
fn run_shown(s: &Sandbox, words: &[String]) -> String {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut all = words.clone();
    all.extend(more(words[0]));
    let mut command = s.command(&all);
    command.env("CACHECTL_BASE_PORT", s.base.to_string()).env("CACHECTL_YES", "1");
    if words == ["tui"] {
        // Without a terminal it says so; tests/tui has one.
        let ran: Ran = command.output().unwrap().into();
        assert!(ran.err.contains("terminal"), "{}", ran.err);
        ran.exits(1);
        return String::new();
    }
    if words.contains(&"-f") {
        let file = s.dir.path().join("followed");
        let out = std::fs::File::create(&file).unwrap();
        let mut child = command.stdout(out).stderr(Stdio::null()).spawn().unwrap();
        wait_for("the first lines", || std::fs::metadata(&file).ok().filter(|m| m.len() > 0));
        assert!(child.try_wait().unwrap().is_none(), "{words:?} follows");
        child.kill().unwrap();
        child.wait().unwrap();
        return String::new();
    }
    let ran: Ran = command.output().unwrap().into();
    ran.exits(0).out
}
