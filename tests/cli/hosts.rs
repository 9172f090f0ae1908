//! A cluster file that describes hosts: checked, printed as environments, and a cluster started from these over IPv6.

use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::process::{Child, Stdio};

use crate::common::{Raw, text, wait_for};
use crate::sandbox::{Ran, Sandbox};

/// Ends what a test started by hand.
struct Children(Vec<Child>);

impl Drop for Children {
    fn drop(&mut self) {
        for c in &mut self.0 {
            let _ = c.kill();
        }
        for c in &mut self.0 {
            let _ = c.wait();
        }
    }
}

#[test]
fn the_example_of_many_hosts_is_sound() {
    let s = Sandbox::new();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/cluster.toml");
    let ran = s.run(&["config", "check", file]).exits(0);
    assert!(ran.out.contains("5 hosts, 3 masters, 5 nodes"), "{}", ran.out);
    assert!(ran.out.contains("\n10.0.3.1: cachectl node --id n5 --listen 10.0.3.1:7201"), "{}", ran.out);
    assert!(!ran.err.contains("warning"), "{}", ran.err);
    let doc = s.run(&["config", "check", file, "-o", "json"]).exits(0).json();
    assert_eq!(doc["cluster"]["hosts"].as_array().map(Vec::len), Some(5), "{doc}");
    assert_eq!(doc["processes"].as_array().map(Vec::len), Some(8), "{doc}");
    assert_eq!(doc["processes"][7]["env"]["CACHECTL_ZONE"], "c", "{doc}");
    let env = s.run(&["config", "check", file, "--env", "n3"]).exits(0).out;
    assert!(env.contains("CACHECTL_LISTEN=10.0.2.1:7201\n") && env.contains("CACHECTL_MEMORY=8gb\n"), "{env}");
    let (code, _, hint) = s.run(&["config", "check", file, "--env", "n33", "-o", "json"]).exits(1).error();
    assert_eq!(code, "NO_PROCESS");
    assert!(hint.contains("did you mean n3?"), "{hint}");
    // It is not one for `up`.
    let ran = s.up(&["--config", file, "-o", "json"]).exits(2);
    assert!(ran.error().2.contains("config check"), "{}", ran.err);
    assert!(!s.state().exists());
    // What is wrong with it is said with the file's name and the host.
    let wrong = s.dir.path().join("wrong.toml");
    let text = std::fs::read_to_string(file).unwrap();
    std::fs::write(&wrong, text.replace("zone = \"c\"", "zoen = \"c\"")).unwrap();
    let ran = s.run(&["config", "check", wrong.to_str().unwrap()]).exits(2);
    assert!(ran.err.contains("wrong.toml:") && ran.err.contains("zoen"), "{}", ran.err);
    std::fs::write(&wrong, text.replace("zone = \"c\"", "zone = \"a\"")).unwrap();
    let ran = s.run(&["config", "check", wrong.to_str().unwrap()]).exits(0);
    assert!(ran.err.contains("warning: zone a has 2 of 3 masters"), "{}", ran.err);
}

#[test]
fn a_cluster_from_a_file_runs_over_ipv6() {
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        println!("this machine has no IPv6 loopback: nothing to try");
        return;
    }
    let s = Sandbox::new();
    let file = s.dir.path().join("six.toml");
    let hosts = (1..=3).map(|i| {
        let (master, node) = (s.base + i, s.base + 100 + i);
        format!(
            "[[hosts]]\naddr = '::1'\nmaster = 'm{i}'\nnode = 'n{i}'\nzone = 'z{i}'\nmaster_port = {master}\nnode_port = {node}\n"
        )
    });
    std::fs::write(&file, format!("name = 'six'\nmemory = '64mb'\n{}", hosts.collect::<String>())).unwrap();
    let file = file.to_str().unwrap();
    let doc = s.run(&["config", "check", file, "-o", "json"]).exits(0).json();
    let mut children = Children(Vec::new());
    for p in doc["processes"].as_array().unwrap() {
        let (id, role) = (p["id"].as_str().unwrap(), p["role"].as_str().unwrap());
        // As a unit would: the role on its command line, all else in its environment file.
        let env = s.run(&["config", "check", file, "--env", id]).exits(0).out;
        let log = std::fs::File::create(s.dir.path().join(format!("{id}.log"))).unwrap();
        let mut c = s.command(&[role]);
        c.envs(env.lines().map(|l| l.split_once('=').unwrap())).env("CACHECTL_DATA", s.dir.path().join(id));
        children.0.push(c.stdout(Stdio::null()).stderr(log).spawn().unwrap());
    }
    let masters: Vec<String> = (1..=3).map(|i| format!("[::1]:{}", s.base + i)).collect();
    let masters = masters.join(",");
    let run = |words: &[&str]| -> Ran { s.run(&[words, &["--masters-addr", &masters]].concat()) };
    let is_ok = |want: usize| {
        let ran = run(&["status", "-o", "json"]);
        let up = ran.json()["nodes"].as_array().map_or(0, |n| n.iter().filter(|n| n["state"] == "up").count());
        (ran.code == 0 && up == want).then(|| ran.json())
    };
    let status = wait_for("a cluster that is ok", || is_ok(3));
    assert_eq!(status["cluster"], "six");
    assert_eq!(status["nodes"][0]["addr"], format!("[::1]:{}", s.base + 101));
    assert!(run(&["status"]).exits(0).out.contains(&format!("[::1]:{}", s.base + 101)));

    // Keys all over the ring, through whatever node a client asks first.
    for i in 0..20 {
        run(&["set", &format!("k{i}"), &format!("v{i}")]).exits(0);
    }
    for i in 0..20 {
        assert_eq!(run(&["get", &format!("k{i}")]).exits(0).out, format!("v{i}\n"));
    }
    let place = run(&["where", "k1", "-o", "json"]).exits(0).json();
    assert!(place["primary"]["addr"].as_str().unwrap().starts_with("[::1]:"), "{place}");
    // MOVED names an IPv6 address as Redis does, without brackets; clients take the last colon.
    let other = (1..=3).map(|i| s.base + 100 + i).find(|p| place["primary"]["addr"] != format!("[::1]:{p}")).unwrap();
    let mut raw = Raw::connect(SocketAddr::from((Ipv6Addr::LOCALHOST, other))).unwrap();
    let moved = format!("{:?}", raw.call(&[b"GET", b"k1"]).unwrap());
    let port = place["primary"]["addr"].as_str().unwrap().rsplit_once(':').unwrap().1.to_owned();
    assert!(moved.contains("MOVED ") && moved.contains(&format!(" ::1:{port}")), "{moved}");
    let slots = format!("{:?}", raw.call(&[b"CLUSTER", b"NODES"]).unwrap());
    assert!(!slots.is_empty());

    // Other clients, the generator, and everything that steers.
    crate::common::tool::require("redis-cli", "apt-get install redis-tools");
    let seed = (s.base + 101).to_string();
    let cli = std::process::Command::new("redis-cli").args(["-c", "-h", "::1", "-p", &seed, "get", "k7"]).output();
    assert_eq!(text(&cli.unwrap().stdout).trim(), "v7");
    let bench =
        run(&["bench", "--requests", "2000", "--keys", "200", "--clients", "6", "--load", "--verify", "-o", "json"]);
    let report = bench.exits(0).json();
    assert_eq!(
        (report["errors_total"].as_u64(), report["nodes"].as_array().map(Vec::len)),
        (Some(0), Some(3)),
        "{report}"
    );
    assert_eq!(report["follows"], 0, "{report}");
    let (from, to) = {
        let doc = run(&["switchover", "-o", "json"]).exits(0).json();
        (doc["from"].as_str().unwrap().to_owned(), doc["to"].as_str().unwrap().to_owned())
    };
    assert_ne!(from, to);
    run(&["check"]).exits(0);
    run(&["rebalance", "--dry-run"]).exits(0);

    // A node dies; the others notice and go on.
    children.0[5].kill().unwrap();
    children.0[5].wait().unwrap();
    wait_for("ok without n3", || is_ok(2));
    for i in 0..20 {
        assert_eq!(run(&["get", &format!("k{i}")]).exits(0).out, format!("v{i}\n"));
    }
    let lost = run(&["status", "-o", "json"]).exits(0).json()["slots"]["lost_total"].clone();
    assert_eq!(lost, 0);
}
