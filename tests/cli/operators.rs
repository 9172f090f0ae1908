//! What operators ask and order: check, operations, forget, events, logs; their documents and exit codes.

use rustix::process::Signal;
use serde_json::Value as Json;

use crate::common::{signal, wait_for};
use crate::sandbox::Sandbox;

#[test]
fn check_compares_what_primaries_and_backups_hold() {
    let s = Sandbox::new();
    s.up(&["--masters", "1", "--nodes", "3"]).exits(0);
    for i in 0..30 {
        s.run(&["set", &format!("k{i}"), "v", "--ttl", "1h"]).exits(0);
    }
    let doc = s.run(&["check", "-o", "json"]).exits(0).json();
    assert_eq!((doc["schema"].as_u64(), doc["state"].as_str()), (Some(1), Some("ok")), "{doc}");
    assert_eq!((doc["compared"].as_u64(), doc["keys"].as_u64()), (Some(16384), Some(30)), "{doc}");
    assert!(s.run(&["check"]).exits(0).out.contains("16384/16384 slots covered"));
    // A holder that says nothing: its slots can't be compared in time. Quicker than its death is noticed.
    s.run(&["chaos", "pause", "m1", "n1"]).exits(0);
    s.run(&["check", "--timeout", "1s"]).exits(3);
    s.run(&["chaos", "resume", "m1", "n1"]).exits(0);
    s.run(&["chaos", "kill", "n1", "n2"]).exits(0);
    // Whatever had no other holder is covered by nobody.
    wait_for("the loss to be seen", || {
        let doc = s.run(&["check", "--timeout", "1s", "-o", "json"]);
        (doc.code == 3 && doc.json()["uncovered"].as_u64() > Some(0)).then_some(())
    });
    s.run(&["down"]).exits(0);
    s.run(&["check"]).exits(3);
}

#[test]
fn operations_are_listed_and_unknown_ones_named() {
    let s = Sandbox::new();
    s.up(&["--masters", "1", "--nodes", "2"]).exits(0);
    let none = s.run(&["ops", "-o", "json"]).exits(0).json();
    assert_eq!((none["schema"].as_u64(), none["operations"].as_array().map(Vec::len)), (Some(1), Some(0)), "{none}");
    s.run(&["chaos", "kill", "n2"]).exits(0);
    s.run(&["start", "n2"]).exits(0);
    let list = wait_for("a rebuild", || {
        let list = s.run(&["ops", "ls", "-o", "json"]).exits(0).json();
        list["operations"].as_array().is_some_and(|o| o.iter().any(|o| o["kind"] == "rebuild")).then_some(list)
    });
    let id = list["operations"][0]["id"].to_string();
    let one = s.run(&["ops", "show", &format!("#{id}"), "-o", "json"]).exits(0).json();
    assert_eq!(one["operation"]["id"].to_string(), id);
    for field in ["kind", "state", "slots_total", "slots_done", "rate_bytes_per_s", "eta_ms", "reason", "retries"] {
        assert!(one["operation"].get(field).is_some(), "{field} is not in {one}");
    }
    let shown = s.run(&["ops", "show", &id]).exits(0).out;
    assert!(shown.contains(&format!("operation #{id}")) && shown.contains("slots"), "{shown}");
    for words in [["ops", "show", "99"], ["ops", "pause", "99"], ["ops", "cancel", "99"]] {
        let (code, message, _) = s.run(&[&words[..], &["-o", "json"]].concat()).exits(1).error();
        assert_eq!((code.as_str(), message.as_str()), ("NO_SUCH_OPERATION", "there is no operation #99"));
    }
    s.run(&["ops", "show", "x"]).exits(2);
    s.run(&["down"]).exits(0);
}

#[test]
fn what_loses_data_is_refused_without_a_word_and_the_record_says_who_did_it() {
    let s = Sandbox::new();
    s.up(&["--masters", "1", "--nodes", "2"]).exits(0);
    assert_eq!(s.run(&["forget", "n2", "-o", "json"]).exits(5).error().0, "DATA_LOSS");
    assert_eq!(s.run(&["forget", "n2", "--accept-data-loss", "-o", "json"]).exits(5).error().0, "NOT_CONFIRMED");
    let (code, _, hint) = s.run(&["forget", "n22", "--accept-data-loss", "-y", "-o", "json"]).exits(1).error();
    assert_eq!(code, "NO_SUCH_NODE");
    assert!(hint.contains("did you mean n2?"), "{hint}");
    // Both holders of everything die, and nobody is sure that they are gone: paused, they don't refuse.
    s.run(&["chaos", "pause", "n1", "n2"]).exits(0);
    wait_for("both to be given up", || {
        let status = s.run(&["status", "-o", "json"]).json();
        (status["slots"]["orphan"].as_u64() > Some(0)).then_some(())
    });
    let mut c = s.command(&["forget", "n2", "--accept-data-loss", "-y"]);
    let ran: crate::sandbox::Ran = c.env("USER", "ana\u{1b}[2J").output().unwrap().into();
    ran.exits(0);
    let history = s.run(&["events", "-o", "json"]).exits(0).out;
    let events: Vec<Json> = history.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let by = |e: &Json| e["by"].as_str().unwrap_or_default().to_owned();
    assert!(events.iter().any(|e| by(e).starts_with("ana2J@") || by(e) == "ana2J"), "{history}");
    let shown = s.run(&["events"]).exits(0).out;
    assert!(shown.contains("(asked for by ana2J") && !shown.contains('\x1b'), "{shown}");
    s.run(&["chaos", "resume", "n1", "n2"]).exits(0);
    s.run(&["down"]).exits(0);
}

#[test]
fn logs_are_filtered_by_level_text_and_process() {
    let s = Sandbox::new();
    s.up(&["--masters", "1", "--nodes", "2"]).exits(0);
    s.run(&["chaos", "kill", "n2"]).exits(0);
    let warned = wait_for("a warning", || {
        let lines = s.run(&["logs", "--level", "warn", "-o", "json"]).exits(0).out;
        (!lines.is_empty()).then_some(lines)
    });
    for line in warned.lines() {
        let doc: Json = serde_json::from_str(line).unwrap();
        assert!(["warn", "error"].contains(&doc["level"].as_str().unwrap()), "{doc}");
    }
    let some = s.run(&["logs", "--tail", "100000", "--grep", "cachectl::node"]).exits(0).out;
    let all = s.run(&["logs", "--tail", "100000"]).exits(0).out;
    assert!(!some.is_empty() && some.lines().all(|l| l.contains("cachectl::node")), "{some}");
    assert!(some.lines().count() <= all.lines().count());
    assert_eq!(s.run(&["logs", "--grep", "no such text anywhere"]).exits(0).out, "");
    s.run(&["logs", "--level", "loud"]).exits(2);
    s.run(&["down"]).exits(0);
}

#[test]
fn a_switchover_says_from_whom_to_whom_and_ends_in_time() {
    let s = Sandbox::new();
    s.up(&["--nodes", "1", "--backups", "0"]).exits(0);
    let ran = s.run(&["switchover"]).exits(0);
    let line = ran.out.trim();
    assert!(line.contains(" → ") && line.ends_with(" ms"), "{line}");
    let doc = s.run(&["switchover", "-o", "json"]).exits(0).json();
    assert_eq!(doc["schema"], 1);
    assert!(doc["from"] != doc["to"] && doc["ms"].is_u64(), "{doc}");
    let (code, _, hint) = s.run(&["switchover", "--to", "M2", "-o", "json"]).exits(1).error();
    assert_eq!(code, "NO_MASTER");
    assert!(hint.contains("did you mean m2?"), "{hint}");
    s.run(&["switchover", "--timeout", "0"]).exits(4);
    // A master that stands still can't take over.
    let leader = s.run(&["status", "-o", "json"]).json()["leader"].as_str().unwrap().to_owned();
    let other = ["m1", "m2", "m3"].into_iter().find(|m| *m != leader).unwrap();
    let pid = s.pids("demo").into_iter().find(|(id, _)| id == other).unwrap().1;
    signal(pid as i32, Signal::STOP);
    // Refused, or it passes its time: in no case a success.
    let ran = s.run(&["switchover", "--to", other, "--timeout", "2s"]);
    assert!([1, 4].contains(&ran.code), "{} {}", ran.code, ran.err);
    signal(pid as i32, Signal::CONT);
    s.run(&["down"]).exits(0);
}

#[test]
fn a_file_is_checked_before_it_is_used() {
    let s = Sandbox::new();
    let path = |name: &str, text: &str| {
        let path = s.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let good = path("good.toml", "name = 'x'\nnodes = 5\nzones = ['a', 'b']\n");
    let ran = s.run(&["config", "check", &good]).exits(0);
    assert!(ran.out.contains("5 nodes") && ran.out.contains("zones a, b"), "{}", ran.out);
    let doc = s.run(&["config", "check", &good, "-o", "json"]).exits(0).json();
    assert_eq!(
        (doc["ok"].as_bool(), doc["kind"].as_str(), doc["cluster"]["nodes"].as_u64()),
        (Some(true), Some("cluster"), Some(5))
    );
    let user = path("user.toml", "output = 'json'\ncolor = 'never'\n");
    assert_eq!(s.run(&["config", "check", &user, "-o", "json"]).exits(0).json()["kind"], "user");
    for bad in ["nodse = 3\n", "nodes = 0\n", "output = 'xml'\n", "nodes = [\n"] {
        let (code, message, hint) = s.run(&["config", "check", &path("bad.toml", bad), "-o", "json"]).exits(2).error();
        assert!(code == "USAGE" && message.contains("bad.toml") && !hint.is_empty(), "{message}");
    }
    s.run(&["config", "check", "/no/such/file"]).exits(2);
}
