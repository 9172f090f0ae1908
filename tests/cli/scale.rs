//! Scale out and in on real processes: plans, questions, what `up` remembers, and every key still there.

use crate::common::wait_for;
use crate::sandbox::{Sandbox, runs};

fn ids(s: &Sandbox) -> Vec<String> {
    let mut all: Vec<String> = s.pids("demo").into_iter().map(|(id, _)| id).filter(|id| id.starts_with('n')).collect();
    all.sort();
    all
}

fn primary_slots(s: &Sandbox, node: &str) -> u64 {
    let status = s.run(&["status", "-o", "json"]).json();
    let nodes = status["nodes"].as_array().unwrap();
    nodes.iter().find(|n| n["id"] == node).map_or(0, |n| n["primary_slots"].as_u64().unwrap())
}

#[test]
fn a_node_comes_and_goes_and_every_key_stays() {
    let s = Sandbox::new();
    s.up(&["--masters", "1", "--nodes", "2"]).exits(0);
    for i in 0..30 {
        s.run(&["set", &format!("k{i}"), &format!("v{i}")]).exits(0);
    }
    let doc = s.run(&["add", "--dry-run", "-o", "json"]).exits(0).json();
    assert_eq!(
        (doc["state"].as_str(), doc["plan"]["wish"]["nodes"][0].as_str()),
        (Some("planned"), Some("n3")),
        "{doc}"
    );
    assert!(doc["plan"]["slots_total"].as_u64() > Some(0) && doc["plan"]["moves"][0]["to"] == "n3", "{doc}");
    assert_eq!(ids(&s), ["n1", "n2"], "a dry run starts nothing");
    let doc = s.run(&["add", "-o", "json"]).exits(0).json();
    assert_eq!((doc["state"].as_str(), doc["started"][0].as_str()), (Some("done"), Some("n3")), "{doc}");
    assert_eq!(ids(&s), ["n1", "n2", "n3"]);
    assert!(primary_slots(&s, "n3") > 16384 / 4);
    s.run(&["check"]).exits(0);
    // Without a yes nothing leaves.
    assert_eq!(s.run(&["remove", "n3", "-o", "json"]).exits(5).error().0, "NOT_CONFIRMED");
    let plan = s.run(&["remove", "n3", "--dry-run"]).exits(0);
    assert!(plan.out.contains("scale-in n3") && plan.out.contains("primary"), "{}", plan.out);
    let (code, _, hint) = s.run(&["remove", "n33", "-y", "-o", "json"]).exits(1).error();
    assert!(code == "NO_SUCH_NODE" && hint.contains("did you mean n3?"), "{code} {hint}");
    let n3 = s.pids("demo").into_iter().find(|(id, _)| id == "n3").unwrap().1;
    let doc = s.run(&["remove", "n3", "-y", "-o", "json"]).exits(0).json();
    assert_eq!(doc["state"], "done", "{doc}");
    assert!(!runs(n3), "it returns when the process is gone");
    for i in 0..30 {
        assert_eq!(s.run(&["get", &format!("k{i}")]).exits(0).out, format!("v{i}\n"));
    }
    // One that left is not revived, not even by name; `add` brings it back.
    s.up(&[]).exits(0);
    assert_eq!(ids(&s), ["n1", "n2"]);
    assert_eq!(s.run(&["start", "n3", "-o", "json"]).exits(1).error().0, "REMOVED");
    s.run(&["rebalance"]).exits(0);
    s.run(&["add", "n3"]).exits(0);
    assert_eq!(ids(&s), ["n1", "n2", "n3"]);
    let history = s.run(&["events", "-o", "json"]).exits(0).out;
    assert!(history.contains("\"by\":\""), "who asked is on record: {history}");
    s.run(&["down"]).exits(0);
}

#[test]
fn the_last_node_stays() {
    let s = Sandbox::new();
    s.up(&["--masters", "1", "--nodes", "1"]).exits(0);
    let (code, _, hint) = s.run(&["remove", "n1", "-y", "-o", "json"]).exits(5).error();
    assert_eq!(code, "LAST_NODE", "{hint}");
    s.run(&["add", "3", "n7"]).exits(2);
    s.run(&["add", "0"]).exits(2);
    let away = ["add", "2", "--masters-addr", "127.0.0.1:1"];
    assert_eq!(s.run(&[&away[..], &["-o", "json"]].concat()).exits(2).error().0, "USAGE");
    s.run(&["down"]).exits(0);
}

#[test]
fn one_whose_removal_nobody_waited_for_is_not_revived() {
    let s = Sandbox::new();
    s.up(&["--masters", "1", "--nodes", "3"]).exits(0);
    let n3 = s.pids("demo").into_iter().find(|(id, _)| id == "n3").unwrap().1;
    s.run(&["remove", "n3", "-y", "--no-wait"]).exits(0);
    wait_for("n3 to leave", || {
        let status = s.run(&["status", "-o", "json"]).json();
        let left = |n: &serde_json::Value| n["id"] == "n3" && n["state"] == "left";
        (!runs(n3) && status["nodes"].as_array()?.iter().any(left)).then_some(())
    });
    s.run(&["down"]).exits(0);
    s.up(&[]).exits(0);
    assert_eq!(ids(&s), ["n1", "n2"]);
    // Where one node is left there is nowhere to keep backups, and nothing to wait for.
    s.run(&["remove", "n2", "-y"]).exits(0);
    let again = s.up(&[]).exits(0);
    assert!(again.out.contains("already running and degraded"), "{}", again.out);
    s.run(&["down"]).exits(0);
    s.up(&[]).exits(0);
    assert_eq!(ids(&s), ["n1"]);
    s.run(&["down"]).exits(0);
}

#[test]
fn a_name_is_no_way_out_of_the_clusters_directory() {
    let s = Sandbox::new();
    s.up(&["--masters", "1", "--nodes", "1"]).exits(0);
    for name in ["..", ".", ".x", "-x"] {
        s.run(&["add", "--", name]).exits(2);
    }
    assert!(s.home("demo").join("data/m1").is_dir() && s.home("demo").join("logs").is_dir());
    s.run(&["down"]).exits(0);
}
