//! Single processes of a local cluster: faults on purpose, stop, start, restart, and all of them one by one.

use crate::common::wait_for;
use crate::sandbox::{Sandbox, runs};

fn pid(s: &Sandbox, who: &str) -> u32 {
    s.pids("demo").into_iter().find(|(id, _)| id == who).unwrap().1
}

/// `R`, `S`, `T`, … of a process.
fn state(pid: u32) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
}

#[test]
fn faults_meet_the_named_processes_and_no_others() {
    let s = Sandbox::new();
    s.up(&["--masters", "1", "--nodes", "2"]).exits(0);
    let (m1, n1, n2) = (pid(&s, "m1"), pid(&s, "n1"), pid(&s, "n2"));
    let doc = s.run(&["chaos", "pause", "n2", "-o", "json"]).exits(0).json();
    assert_eq!((doc["action"].as_str(), doc["processes"][0]["pid"].as_u64()), (Some("pause"), Some(u64::from(n2))));
    assert_eq!((state(n2), state(n1) == 'T', state(m1) == 'T'), ('T', false, false));
    s.run(&["chaos", "resume", "n2"]).exits(0);
    assert_ne!(state(n2), 'T');
    // One unknown name, and nothing is done to the others.
    let ran = s.run(&["chaos", "kill", "n1", "m11", "-o", "json"]).exits(1);
    let (code, message, hint) = ran.error();
    assert_eq!((code.as_str(), message.as_str()), ("NO_PROCESS", "there is no process m11"));
    assert!(hint.contains("did you mean m1?"), "{hint}");
    assert!(runs(n1));
    s.run(&["chaos", "kill", "n1", "m1"]).exits(0);
    assert!(!runs(n1) && !runs(m1) && runs(n2));
    assert_eq!(s.run(&["chaos", "pause", "n1", "-o", "json"]).exits(1).error().0, "NOT_RUNNING");
    assert_eq!(s.run(&["stop", "m1", "-o", "json"]).exits(1).error().0, "NOT_RUNNING");
    s.run(&["start", "m1", "n1"]).exits(0);
    assert!(runs(pid(&s, "m1")) && runs(pid(&s, "n1")) && pid(&s, "n1") != n1);
    // A pid that was used again is somebody else's.
    let path = s.home("demo").join("cluster.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut stranger = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    let swapped = text.replace(&format!("\"pid\": {}", pid(&s, "n1")), &format!("\"pid\": {}", stranger.id()));
    assert_ne!(swapped, text);
    std::fs::write(&path, swapped).unwrap();
    for words in [&["chaos", "kill", "n1"][..], &["chaos", "pause", "n1"], &["stop", "n1", "-y"]] {
        s.run(words).exits(1);
        assert!(runs(stranger.id()) && state(stranger.id()) != 'T');
    }
    std::fs::write(&path, text).unwrap();
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    s.run(&["down"]).exits(0);
}

#[test]
fn one_is_stopped_started_and_restarted() {
    let s = Sandbox::new();
    s.up(&["--masters", "1", "--nodes", "3"]).exits(0);
    s.run(&["set", "k", "v"]).exits(0);
    let before = s.pids("demo");
    s.run(&["stop", "n3"]).exits(0);
    assert!(!runs(pid(&s, "n3")));
    assert_eq!(s.run(&["get", "k"]).exits(0).out, "v\n");
    let doc = s.run(&["start", "n3", "-o", "json"]).exits(0).json();
    assert_eq!(doc["processes"][0]["id"], "n3");
    assert!(s.run(&["start", "n3"]).exits(0).err.contains("runs already"));
    // `up` waits until its copies are back.
    s.up(&[]).exits(0);
    s.run(&["restart", "n1", "m1"]).exits(0);
    for who in ["n1", "n3", "m1"] {
        let old = before.iter().find(|(id, _)| id == who).unwrap().1;
        assert!(!runs(old) && runs(pid(&s, who)), "{who}");
    }
    assert_eq!(s.run(&["get", "k"]).exits(0).out, "v\n");
    s.run(&["stop"]).exits(2);
    s.run(&["restart"]).exits(2);
    s.run(&["restart", "n1", "--rolling"]).exits(2);
    s.run(&["chaos", "pause", "n1", "--masters-addr", "127.0.0.1:1"]).exits(1);
    s.run(&["down"]).exits(0);
    assert_eq!(s.run(&["start", "n1", "-o", "json"]).exits(1).error().0, "NOT_RUNNING");
    // It is known to be stopped: nobody is asked in vain.
    for words in [&["get", "k"][..], &["where", "k"], &["ops"], &["add", "1"]] {
        let (code, text, _) = s.run(&[words, &["-o", "json"]].concat()).exits(3).error();
        assert_eq!((code.as_str(), text.as_str()), ("UNREACHABLE", "the local cluster demo is stopped"), "{words:?}");
    }
}

#[test]
fn what_stop_ended_is_missing_and_up_starts_it() {
    let s = Sandbox::new();
    s.up(&["--masters", "1", "--nodes", "3"]).exits(0);
    s.run(&["stop", "n3"]).exits(0);
    let up = s.up(&[]).exits(0);
    assert!(up.err.contains("starting what is missing: n3"), "{}", up.err);
    assert!(runs(pid(&s, "n3")));
    s.run(&["stop", "n2"]).exits(0);
    s.run(&["down"]).exits(0);
    s.up(&[]).exits(0);
    assert!(["n1", "n2", "n3"].iter().all(|n| runs(pid(&s, n))));
    s.run(&["down"]).exits(0);
}

#[test]
fn the_only_node_is_not_ended_without_a_yes() {
    let s = Sandbox::new();
    s.up(&["--masters", "1", "--nodes", "1"]).exits(0);
    for words in [&["stop", "n1"][..], &["restart", "n1"], &["restart", "--rolling"]] {
        let (code, message, hint) = s.run(&[words, &["-o", "json"]].concat()).exits(5).error();
        assert_eq!(code, "NOT_CONFIRMED");
        assert!(message.contains("lost") && hint.contains("-y"), "{message} {hint}");
    }
    assert!(runs(pid(&s, "n1")));
    s.run(&["stop", "n1", "-y"]).exits(0);
    s.run(&["down"]).exits(0);
}

#[test]
fn all_restart_one_by_one_and_keep_what_they_hold() {
    let s = Sandbox::new();
    s.up(&[]).exits(0);
    for i in 0..50 {
        s.run(&["set", &format!("k{i}"), &format!("v{i}")]).exits(0);
    }
    let before = s.pids("demo");
    let doc = s.run(&["restart", "--rolling", "-o", "json"]).exits(0).json();
    let order: Vec<&str> = doc["processes"].as_array().unwrap().iter().map(|p| p["id"].as_str().unwrap()).collect();
    assert_eq!((order.len(), &order[..3]), (6, &["n1", "n2", "n3"][..]));
    for (id, old) in &before {
        assert!(!runs(*old) && runs(pid(&s, id)), "{id}");
    }
    let status = s.run(&["status", "-o", "json"]).exits(0).json();
    assert_eq!(status["slots"]["lost_total"], 0, "{status}");
    for i in 0..50 {
        assert_eq!(s.run(&["get", &format!("k{i}")]).exits(0).out, format!("v{i}\n"));
    }
    // A cluster that is not ok is left alone.
    s.run(&["chaos", "kill", "m1", "m2"]).exits(0);
    // The survivor may be the one that led, and knows of it a moment later.
    wait_for("the survivor to know", || (s.run(&["status", "--timeout", "1s"]).code != 0).then_some(()));
    let ran = s.run(&["restart", "--rolling", "--timeout", "1s", "-o", "json"]).exits(3);
    assert_eq!(ran.error().0, "NOT_OK");
    s.run(&["down"]).exits(0);
}
