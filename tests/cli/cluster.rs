//! Local clusters as real processes: started, found again, stopped, and nothing left behind.

use std::collections::BTreeSet;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::common::{CACHECTL, signal, text, wait_for};
use crate::sandbox::{Ran, Sandbox, runs};

fn ids(pids: &[(String, u32)]) -> BTreeSet<&str> {
    pids.iter().map(|(id, _)| id.as_str()).collect()
}

#[test]
fn up_tells_all_and_again_is_already_running() {
    let s = Sandbox::new();
    let first = s.up(&[]).exits(0);
    let port = s.base + 101;
    for part in [
        format!("redis-cli -c -p {port}"),
        format!("export REDIS_URL=redis://127.0.0.1:{port}"),
        format!("127.0.0.1:{}", s.base + 1),
    ] {
        assert!(first.out.contains(&part), "{part} is not in {}", first.out);
    }
    let before = s.pids("demo");
    assert_eq!(ids(&before), BTreeSet::from(["m1", "m2", "m3", "n1", "n2", "n3"]));
    // The context is the cluster now: no name needed.
    let status = s.run(&["status", "-o", "json"]).exits(0).json();
    assert_eq!((status["state"].as_str(), status["slots"]["serving"].as_u64()), (Some("ok"), Some(16384)));
    assert!(s.run(&["ps"]).exits(0).out.contains("ok"));
    let again = s.run(&["up", "--nodes", "7"]).exits(0);
    assert!(again.out.contains("already running"), "{}", again.out);
    assert!(again.err.contains("--nodes 7"), "what is ignored is said: {}", again.err);
    assert_eq!(s.pids("demo"), before);
    assert_eq!(s.run(&["up", "-o", "json"]).exits(0).json()["already_running"], true);
    s.run(&["down"]).exits(0);
    s.assert_nothing_left("demo", &before);
    assert!(s.home("demo").join("logs/m1.log").exists(), "logs stay");
    let s3 = s.run(&["status", "-o", "json"]).exits(3);
    assert_eq!(s3.json()["state"], "unreachable");
    s.run(&["down", "--purge"]).exits(0);
    assert!(!s.home("demo").exists());
    s.run(&["status"]).exits(1);
}

#[test]
fn up_and_down_five_times_leaves_nothing() {
    let s = Sandbox::new();
    for round in 0..5 {
        s.up(&[]).exits(0);
        let pids = s.pids("demo");
        assert_eq!(pids.len(), 6);
        let ran = s.run(&["set", "round", &round.to_string()]).exits(0);
        assert_eq!(ran.out, "OK\n");
        s.run(&["down", "--name", "demo"]).exits(0);
        s.assert_nothing_left("demo", &pids);
    }
}

#[test]
fn what_is_missing_is_started_and_only_that() {
    let s = Sandbox::new();
    s.up(&[]).exits(0);
    let before = s.pids("demo");
    let dead: Vec<&(String, u32)> = before.iter().filter(|(id, _)| ["m2", "n3"].contains(&id.as_str())).collect();
    for (_, pid) in &dead {
        signal(*pid as i32, Signal::KILL);
    }
    for (_, pid) in &dead {
        wait_for("the killed to be gone", || (!runs(*pid)).then_some(()));
    }
    let ran = s.up(&["-o", "json"]).exits(0);
    let doc = ran.json();
    assert_eq!(doc["started"], serde_json::json!(["m2", "n3"]));
    assert_eq!(doc["state"], "ok");
    let after = s.pids("demo");
    for (id, pid) in &after {
        let old = before.iter().find(|(i, _)| i == id).unwrap().1;
        assert_eq!(*pid == old, !["m2", "n3"].contains(&id.as_str()), "{id}");
    }
    // Everything gone at once is a stale record, and the cluster starts anew on the same ports.
    for (_, pid) in &after {
        signal(*pid as i32, Signal::KILL);
    }
    for (_, pid) in &after {
        wait_for("the killed to be gone", || (!runs(*pid)).then_some(()));
    }
    let ran = s.run(&["up", "--wait", "120s"]).exits(0);
    assert!(ran.err.contains("were gone"), "{}", ran.err);
    let pids = s.pids("demo");
    s.run(&["down"]).exits(0);
    s.assert_nothing_left("demo", &pids);
}

#[test]
fn a_half_dead_cluster_goes_down() {
    let s = Sandbox::new();
    s.up(&[]).exits(0);
    let pids = s.pids("demo");
    // No majority is left to plan the stop, and one node does not even listen to signals but SIGKILL.
    for (id, pid) in &pids {
        match id.as_str() {
            "m1" | "m3" => signal(*pid as i32, Signal::KILL),
            "n2" => signal(*pid as i32, Signal::STOP),
            _ => {}
        }
    }
    s.run(&["down"]).exits(0);
    s.assert_nothing_left("demo", &pids);
}

#[test]
fn two_ups_at_once_end_well() {
    let s = Sandbox::new();
    let base = s.base.to_string();
    let spawn = || {
        s.command(&["up", "--base-port", &base, "--wait", "120s", "-o", "json"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let both = [spawn(), spawn()];
    let docs: Vec<_> = both.into_iter().map(|c| Ran::from(c.wait_with_output().unwrap()).exits(0).json()).collect();
    let started: usize = docs.iter().map(|d| d["started"].as_array().unwrap().len()).sum();
    assert_eq!(started, 6, "each process is started once: {docs:?}");
    let pids = s.pids("demo");
    assert_eq!(pids.len(), 6);
    let spawn = || s.command(&["down", "--name", "demo"]).stderr(Stdio::piped()).spawn().unwrap();
    for c in [spawn(), spawn()] {
        Ran::from(c.wait_with_output().unwrap()).exits(0);
    }
    s.assert_nothing_left("demo", &pids);
}

#[test]
fn a_wait_that_passes_says_what_is_missing() {
    let s = Sandbox::new();
    let base = s.base.to_string();
    let ran = s.run(&["up", "--base-port", &base, "--wait", "0", "-o", "json"]).exits(4);
    let (code, message, hint) = ran.error();
    assert_eq!(code, "TIMEOUT");
    assert!(message.contains("not ok after"), "{message}");
    assert!(hint.contains("cachectl down"), "{hint}");
    let pids = s.pids("demo");
    assert_eq!(pids.len(), 6, "what was started is recorded");
    s.up(&[]).exits(0);
    assert_eq!(s.pids("demo"), pids);
    s.run(&["down"]).exits(0);
    s.assert_nothing_left("demo", &pids);
}

#[test]
fn one_node_runs_without_backups_and_says_so() {
    let s = Sandbox::new();
    let ran = s.up(&["--nodes", "1", "--masters", "1"]).exits(0);
    assert!(ran.err.contains("backups"), "{}", ran.err);
    let status = s.run(&["status", "-o", "json"]).exits(0).json();
    assert_eq!(status["nodes"].as_array().unwrap().len(), 1);
    assert_eq!(status["slots"]["solo"], 0);
    s.run(&["switchover"]).exits(1);
}

#[test]
fn children_inherit_nothing_and_have_no_terminal() {
    let s = Sandbox::new();
    let secret = s.dir.path().join("secret");
    std::fs::write(&secret, "x").unwrap();
    let line = format!(
        "exec 9<'{}'; exec '{CACHECTL}' up --base-port {} --wait 120s --nodes 1 --masters 1",
        secret.display(),
        s.base
    );
    let template = s.command(&[]);
    let envs: Vec<_> = template.get_envs().filter_map(|(k, v)| Some((k.to_owned(), v?.to_owned()))).collect();
    let status = Command::new("bash").args(["-c", &line]).envs(envs).stdin(Stdio::null()).status().unwrap();
    assert!(status.success());
    for (id, pid) in s.pids("demo") {
        let mut std_fds = Vec::new();
        for fd in std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
            let target = std::fs::read_link(fd.path()).unwrap_or_default();
            assert_ne!(target, secret, "{id} inherited a descriptor");
            if let Ok(n @ 0..=2) = fd.file_name().to_string_lossy().parse::<u32>() {
                std_fds.push((n, target));
            }
        }
        std_fds.sort();
        assert_eq!(std_fds[0].1.display().to_string(), "/dev/null", "{id}");
        for (n, target) in &std_fds[1..] {
            assert!(target.starts_with(s.home("demo").join("logs")), "{id}: {n} is {}", target.display());
        }
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let group: u32 = stat.rsplit_once(") ").unwrap().1.split(' ').nth(2).unwrap().parse().unwrap();
        assert_eq!(group, pid, "{id} is in a process group of its own");
        assert_eq!(std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap().display().to_string(), "/");
    }
}

#[test]
fn two_clusters_live_side_by_side_and_down_asks_which() {
    let s = Sandbox::new();
    let other = Sandbox::new();
    s.up(&["--name", "one", "--nodes", "1", "--masters", "1"]).exits(0);
    let base = other.base.to_string();
    s.run(&["up", "--name", "two", "--base-port", &base, "--nodes", "1", "--masters", "1", "--wait", "120s"]).exits(0);
    let ls = s.run(&["ls", "-o", "json"]).exits(0).json();
    let names: Vec<&str> = ls.as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["one", "two"]);
    assert!(ls.as_array().unwrap().iter().all(|c| c["state"] == "running"));
    assert_eq!((ls[0]["context"].as_bool(), ls[1]["context"].as_bool()), (Some(false), Some(true)));
    let ran = s.run(&["down"]).exits(2);
    assert!(ran.err.contains("one") && ran.err.contains("two") && ran.err.contains("--name"), "{}", ran.err);
    s.run(&["context", "use", "one"]).exits(0);
    assert_eq!(s.run(&["status", "-o", "json"]).exits(0).json()["cluster"], "one");
    s.run(&["context", "use", "three"]).exits(1);
    s.run(&["down", "--name", "two"]).exits(0);
    let ran = s.run(&["down"]).exits(0);
    assert!(ran.err.contains("one"), "it says which: {}", ran.err);
    assert!(s.pids("one").is_empty() && s.pids("two").is_empty());
}

#[test]
fn without_a_base_port_the_next_free_block_is_taken() {
    let s = Sandbox::new();
    s.run(&["up", "--name", "a", "--nodes", "1", "--masters", "1", "--wait", "120s"]).exits(0);
    s.run(&["up", "--name", "b", "--nodes", "1", "--masters", "1", "--wait", "120s"]).exits(0);
    let ls = s.run(&["ls", "-o", "json"]).exits(0).json();
    let base = |i: usize| ls[i]["base_port"].as_u64().unwrap();
    assert!(base(1) >= base(0) + 200, "{ls}");
    assert_eq!((base(0) % 200, base(1) % 200), (100, 100));
}

#[test]
fn a_cluster_file_describes_a_cluster() {
    let s = Sandbox::new();
    let file = s.dir.path().join("c.toml");
    let text = format!(
        "name = 'filed'\nmasters = 1\nnodes = 2\nmemory = '32mb'\nbase_port = {}\nzones = ['a', 'b']\n",
        s.base
    );
    std::fs::write(&file, text).unwrap();
    let ran = s.run(&["up", "--config", &file.display().to_string(), "--wait", "120s"]).exits(0);
    assert!(ran.out.contains("filed"), "{}", ran.out);
    let status = s.run(&["status", "-o", "json"]).exits(0).json();
    assert_eq!(status["cluster"], "filed");
    let zones: Vec<&str> = status["nodes"].as_array().unwrap().iter().map(|n| n["zone"].as_str().unwrap()).collect();
    assert_eq!(zones, ["a", "b"]);
    assert_eq!(status["nodes"][0]["memory_limit"], 32 << 20);
}

#[test]
fn ctrl_c_in_the_foreground_is_down() {
    let s = Sandbox::new();
    let base = s.base.to_string();
    let mut c = s.command(&["up", "--foreground", "--base-port", &base, "--wait", "120s"]);
    // A group of its own, as a terminal would give it, so that the signal reaches only this command.
    let child = c.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for("the cluster to be ok", || (s.run(&["status", "--name", "demo"]).code == 0).then_some(()));
    let pids = s.pids("demo");
    assert_eq!(pids.len(), 6);
    // `up` holds its lock until it has told that all is well; only then Ctrl-C means `down`.
    wait_for("up to settle", || (!s.home("demo").join("lock").exists()).then_some(()));
    signal(child.id() as i32, Signal::INT);
    let ran = Ran::from(child.wait_with_output().unwrap()).exits(0);
    for who in ["m1 |", "n3 |"] {
        assert!(ran.out.contains(who), "all logs are on the terminal: {}", ran.out);
    }
    s.assert_nothing_left("demo", &pids);
}

#[test]
fn ctrl_c_while_waiting_lets_go() {
    let s = Sandbox::new();
    let base = s.base.to_string();
    // A master that was asked to wait for two more nodes than there are would do; a paused one is simpler: never ok.
    s.up(&[]).exits(0);
    let (_, n1) = s.pids("demo").into_iter().find(|(id, _)| id == "n1").unwrap();
    signal(n1 as i32, Signal::STOP);
    wait_for("the pause to be seen", || (s.run(&["status"]).code == 3).then_some(()));
    let child = s
        .command(&["up", "--base-port", &base, "--wait", "600s"])
        .process_group(0)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for("up to be at work", || s.home("demo").join("lock").exists().then_some(()));
    // Once more until it is heard: the signal may come before `up` listens for it, and then it ends all the same.
    let mut child = child;
    let status = wait_for("up to let go", || {
        signal(child.id() as i32, Signal::INT);
        std::thread::sleep(std::time::Duration::from_millis(50));
        child.try_wait().unwrap()
    });
    assert!(matches!(status.code(), Some(130) | None), "{status}");
    assert!(runs(n1));
    signal(n1 as i32, Signal::CONT);
}

#[test]
fn status_watch_prints_a_line_per_view_until_the_reader_goes() {
    use std::io::{BufRead, BufReader};
    let s = Sandbox::new();
    s.up(&["--nodes", "1", "--masters", "1"]).exits(0);
    let mut child = s.command(&["status", "--watch=50ms", "-o", "json"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for _ in 0..3 {
        let doc: serde_json::Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(doc["state"], "ok");
    }
    drop(lines);
    let code = wait_for("the watch to end", || child.try_wait().unwrap());
    assert_eq!(code.code(), Some(0), "a broken pipe is a success");
}

#[test]
fn logs_are_merged_and_followed() {
    use std::io::{BufRead, BufReader};
    let s = Sandbox::new();
    s.up(&["--nodes", "2", "--masters", "1"]).exits(0);
    let all = s.run(&["logs", "--tail", "1000"]).exits(0).out;
    for who in ["m1 |", "n1 |", "n2 |"] {
        assert!(all.contains(who), "{all}");
    }
    let stamps: Vec<&str> = all
        .lines()
        .filter_map(|l| l.split(" | ").nth(1))
        .filter_map(|l| l.get(..27))
        .filter(|l| l.ends_with('Z'))
        .collect();
    assert!(stamps.len() > 2);
    assert!(stamps.is_sorted(), "{stamps:?}");
    let one = s.run(&["logs", "n1", "--tail", "1"]).exits(0).out;
    assert_eq!(one.lines().count(), 1, "{one}");
    assert!(one.starts_with("n1"), "{one}");
    let doc = s.run(&["logs", "m1", "--tail", "1", "-o", "json"]).exits(0).json();
    assert_eq!(doc["who"], "m1");
    assert!(s.run(&["logs", "m7"]).exits(1).err.contains("m1"));
    let child = s.command(&["logs", "-f", "--tail", "0"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut child = child;
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // What a process writes while it ends is followed.
    let mut down = s.command(&["down"]).stderr(Stdio::piped()).spawn().unwrap();
    assert!(lines.next().unwrap().unwrap().contains(" | "));
    assert!(down.wait().unwrap().success());
    signal(child.id() as i32, Signal::INT);
    assert_eq!(wait_for("the follower to end", || child.try_wait().unwrap()).code(), Some(130));
    assert!(!text(all.as_bytes()).contains('\x1b'));
}

#[test]
fn leadership_is_handed_over() {
    let s = Sandbox::new();
    s.up(&["--nodes", "2"]).exits(0);
    let leader = |s: &Sandbox| s.run(&["status", "-o", "json"]).json()["leader"].as_str().map(str::to_owned);
    let old = leader(&s).unwrap();
    let to = ["m1", "m2", "m3"].into_iter().find(|m| *m != old).unwrap();
    let doc = s.run(&["switchover", "--to", to, "-o", "json"]).exits(0).json();
    assert_eq!((doc["from"].as_str(), doc["to"].as_str()), (Some(old.as_str()), Some(to)));
    assert_eq!(leader(&s).as_deref(), Some(to));
    s.run(&["switchover", "--to", to]).exits(0);
    s.run(&["switchover", "--to", "m9"]).exits(1);
    s.run(&["switchover"]).exits(0);
    assert_ne!(leader(&s).as_deref(), Some(to));
    // The history names who led, and every line is a document.
    let history = s.run(&["events", "-o", "json"]).exits(0).out;
    let events: Vec<serde_json::Value> = history.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert!(events.iter().any(|e| e["kind"] == "master-elected"), "{history}");
    assert!(s.run(&["events", "--since", "1h"]).exits(0).out.lines().count() >= events.len());
}
