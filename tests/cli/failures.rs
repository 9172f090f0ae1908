//! `up` and `down` where something is in the way: words, exit codes, and nothing left behind.

use std::net::TcpListener;
use std::process::Command;

use crate::sandbox::{Sandbox, runs};

#[test]
fn down_on_nothing_is_done() {
    let s = Sandbox::new();
    let ran = s.run(&["down"]).exits(0);
    assert!(ran.err.contains("nothing to stop"), "{}", ran.err);
    assert!(ran.out.is_empty());
    s.run(&["down", "--purge", "--name", "other"]).exits(0);
    assert_eq!(s.run(&["down", "-o", "json"]).exits(0).json()["stopped"], 0);
    assert!(!s.state().exists(), "it must not make directories");
    assert!(s.run(&["ls"]).exits(0).err.contains("cachectl up"));
    assert_eq!(s.run(&["ls", "-o", "json"]).exits(0).json(), serde_json::json!([]));
}

#[test]
fn a_taken_port_is_named_and_nothing_stays() {
    let s = Sandbox::new();
    for port in [s.base + 2, s.base + 101, s.base + 10_103] {
        let holder = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let ran = s.up(&["-o", "json"]).exits(1);
        let (code, message, hint) = ran.error();
        assert_eq!(code, "PORT_TAKEN");
        assert!(message.contains(&format!("port {port} is taken by")), "{message}");
        assert!(message.contains(&format!("(pid {})", std::process::id())), "{message}");
        assert!(hint.contains("--base-port"), "{hint}");
        drop(holder);
        assert!(!s.home("demo").exists(), "a failed first start leaves nothing");
        s.assert_nothing_left("demo", &[]);
    }
}

#[test]
fn a_state_directory_that_cannot_be_is_said() {
    let s = Sandbox::new();
    std::fs::write(s.state(), "a file, not a directory").unwrap();
    let ran = s.up(&["-o", "json"]).exits(1);
    let (code, message, hint) = ran.error();
    assert_eq!(code, "STATE");
    assert!(message.contains(&s.state().display().to_string()), "{message}");
    assert!(!hint.is_empty());
    let mut c = s.command(&["up", "-o", "json"]);
    c.env_remove("XDG_STATE_HOME").env_remove("HOME");
    let ran: crate::sandbox::Ran = c.output().unwrap().into();
    assert_eq!(ran.exits(1).error().0, "NO_HOME");
    s.run(&["down"]).exits(0);
}

#[test]
fn a_damaged_record_is_named_and_nothing_is_signalled() {
    let s = Sandbox::new();
    std::fs::create_dir_all(s.home("demo")).unwrap();
    std::fs::write(s.home("demo").join("cluster.json"), "{").unwrap();
    for line in [&["up", "-o", "json"][..], &["down", "-o", "json"]] {
        let (code, message, hint) = s.run(line).exits(1).error();
        assert_eq!(code, "STATE_DAMAGED");
        assert!(message.contains("cluster.json"), "{message}");
        assert!(hint.contains("demo"), "{hint}");
    }
    assert_eq!(s.run(&["ls", "-o", "json"]).exits(0).json()[0]["state"], "damaged");
    std::fs::remove_dir_all(s.home("demo")).unwrap();
}

/// A record of one node whose pid now belongs to a stranger.
#[test]
fn a_stranger_with_a_recorded_pid_is_left_alone() {
    let s = Sandbox::new();
    let mut stranger = Command::new("sleep").arg("600").spawn().unwrap();
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    std::fs::create_dir_all(s.home("demo")).unwrap();
    let record = serde_json::json!({"schema": 1, "name": "demo", "processes": [{
        "id": "n1", "role": "node", "pid": stranger.id(), "start_time": 1, "boot_id": boot_id.trim(), "addr": "127.0.0.1:1"}]});
    std::fs::write(s.home("demo").join("cluster.json"), record.to_string()).unwrap();
    let ran = s.run(&["down"]).exits(0);
    assert!(ran.err.contains("nothing to stop"), "{}", ran.err);
    assert!(runs(stranger.id()), "a process that `up` did not start was ended");
    assert!(!s.home("demo").join("cluster.json").exists());
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[test]
fn a_process_that_cannot_start_says_why_in_its_own_words() {
    let s = Sandbox::new();
    // In the way of the first master's state directory.
    std::fs::create_dir_all(s.home("demo").join("data")).unwrap();
    std::fs::write(s.home("demo").join("data/m1"), "in the way").unwrap();
    let ran = s.up(&["-o", "json"]).exits(1);
    let (code, message, _) = ran.error();
    assert_eq!(code, "START_FAILED");
    assert!(message.contains("master m1") && message.contains("data/m1"), "{message}");
    s.assert_nothing_left("demo", &[]);
}

#[test]
fn a_cluster_file_is_checked_before_anything_starts() {
    let s = Sandbox::new();
    let file = s.dir.path().join("c.toml");
    let path = file.display().to_string();
    for (text, part) in [
        ("mastres = 3\n", "`masters`"),
        ("nodes = 0\n", "1 to 99"),
        ("name = '../up'\n", "name"),
        ("nodes = \n", "c.toml:1"),
    ] {
        std::fs::write(&file, text).unwrap();
        let ran = s.run(&["up", "--config", &path]).exits(2);
        assert!(ran.err.contains(part), "{text:?}: {}", ran.err);
    }
    assert!(!s.state().exists());
}
