//! `docs/json.md` shows what `-o json` prints: each command is run, and its fields are those of the example.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use crate::sandbox::Sandbox;

/// Fields that stand in a document only where there is something to say.
const OPTIONAL: &[&str] = &["warnings", "pairs", "by", "zone", "peer_addr", "removed", "processes", "hosts"];

/// The example under each heading, by the command's words.
fn examples() -> BTreeMap<String, Json> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/json.md");
    let text = std::fs::read_to_string(path).unwrap();
    let mut all = BTreeMap::new();
    for section in text.split("\n## `cachectl ").skip(1) {
        let (heading, rest) = section.split_once('\n').unwrap();
        let json =
            rest.split("```json\n").nth(1).and_then(|t| t.split("\n```").next()).unwrap_or_else(|| panic!("{heading}"));
        let example: Json = serde_json::from_str(json).unwrap_or_else(|e| panic!("{heading}: {e}"));
        for command in heading.trim_end_matches('`').split("`, `") {
            all.insert(command.to_owned(), example.clone());
        }
    }
    all
}

/// The same fields of the same kinds, all the way down; null may stand for anything.
fn same(command: &str, path: &str, example: &Json, got: &Json) {
    match (example, got) {
        (Json::Object(a), Json::Object(b)) => {
            for key in a.keys().chain(b.keys()) {
                let at = format!("{path}.{key}");
                match (a.get(key), b.get(key)) {
                    (Some(x), Some(y)) => same(command, &at, x, y),
                    _ if OPTIONAL.contains(&key.as_str()) => {}
                    (None, _) => panic!("{command}: {at} is not in the example"),
                    (_, None) => panic!("{command}: {at} is not in {got}"),
                }
            }
        }
        (Json::Array(a), Json::Array(b)) => {
            if let Some(x) = a.first() {
                b.iter().for_each(|y| same(command, &format!("{path}[]"), x, y));
            }
        }
        (Json::Null, _) | (_, Json::Null) => {}
        (a, b) => assert_eq!(std::mem::discriminant(a), std::mem::discriminant(b), "{command}: {path}: {a} and {b}"),
    }
}

#[test]
fn documents_are_as_documented() {
    let s = Sandbox::new();
    let examples = examples();
    let mut seen = Vec::new();
    let mut look = |command: &str, out: &str| {
        let example = examples.get(command).unwrap_or_else(|| panic!("{command} is not in docs/json.md"));
        assert!(!out.trim().is_empty(), "{command} printed nothing");
        for line in out.lines() {
            let got = serde_json::from_str(line).unwrap_or_else(|e| panic!("{command}: {e}: {line}"));
            same(command, "", example, &got);
        }
        seen.push(command.to_owned());
    };
    look("up", &s.up(&["--masters", "3", "--nodes", "2", "-o", "json"]).exits(0).out);
    let mut run =
        |command: &str, words: &[&str]| look(command, &s.run(&[words, &["-o", "json"]].concat()).exits(0).out);
    s.run(&["set", "k", "v"]).exits(0);
    run("get KEY", &["get", "k"]);
    run("where KEY", &["where", "k"]);
    run("status", &["status"]);
    run("ls", &["ls"]);
    run("switchover", &["switchover"]);
    run("check", &["check"]);
    run("chaos pause", &["chaos", "pause", "m3"]);
    run("chaos resume", &["chaos", "resume", "m3"]);
    run("chaos kill", &["chaos", "kill", "n2"]);
    run("start", &["start", "n2"]);
    s.up(&[]).exits(0);
    run("ops", &["ops"]);
    run("ops show ID", &["ops", "show", "1"]);
    run("stop", &["stop", "m3"]);
    s.up(&[]).exits(0);
    run("restart", &["restart", "n2"]);
    s.up(&[]).exits(0);
    run("events", &["events"]);
    run("logs", &["logs", "--tail", "20"]);
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/demo/cluster.toml");
    run("config check FILE", &["config", "check", file]);
    run("down", &["down"]);
    for command in examples.keys().filter(|c| !SCALING.contains(&c.as_str())) {
        assert!(seen.contains(command), "{command} was not run");
    }
}

/// These change what a cluster consists of, and have a test of their own below.
const SCALING: &[&str] = &["add", "remove", "rebalance", "forget NODE", "ops pause", "ops resume", "ops cancel"];

#[test]
fn documents_of_scaling_are_as_documented() {
    let s = Sandbox::new();
    let examples = examples();
    let look = |command: &str, state: Option<&str>, words: &[&str]| {
        let got = s.run(&[words, &["-o", "json"]].concat()).exits(0).json();
        same(command, "", &examples[command], &got);
        assert!(state.is_none_or(|state| got["state"] == state), "{words:?}: {got}");
        got
    };
    s.up(&["--masters", "1", "--nodes", "2"]).exits(0);
    look("add", Some("planned"), &["add", "--dry-run"]);
    let done = look("add", Some("done"), &["add"]);
    assert_eq!(done["started"][0], "n3", "{done}");
    look("rebalance", Some("nothing-to-do"), &["rebalance"]);
    look("remove", Some("planned"), &["remove", "n3", "--dry-run"]);
    look("remove", Some("done"), &["remove", "n3", "-y"]);
    s.run(&["chaos", "kill", "n2"]).exits(0);
    let dead = || {
        let status = s.run(&["status", "-o", "json"]).json();
        let nodes = status["nodes"].as_array()?.iter().any(|n| n["id"] == "n2" && n["state"] == "dead");
        nodes.then_some(())
    };
    crate::common::wait_for("n2 to be given up", dead);
    look("forget NODE", None, &["forget", "n2", "--accept-data-loss", "-y"]);
    s.run(&["down"]).exits(0);
}
