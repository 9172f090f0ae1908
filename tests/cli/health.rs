//! HTTP on the ports that servers have anyway: probes, metrics that equal a client's own counts, and nothing for browsers to abuse.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::common::{Raw, wait_for};
use crate::sandbox::Sandbox;

/// Sends bytes, closes nothing, reads to the end.
fn exchange(port: u16, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(bytes).unwrap();
    let mut text = Vec::new();
    // A connection that is closed with bytes unread ends with a reset: what came before it counts.
    let mut chunk = [0; 4096];
    while let Ok(n @ 1..) = stream.read(&mut chunk) {
        text.extend_from_slice(&chunk[..n]);
    }
    String::from_utf8(text).unwrap()
}

/// Status line and body.
pub fn get(port: u16, path: &str, accept: &str) -> (String, String) {
    let text = exchange(port, format!("GET {path} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n").as_bytes());
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {text}"));
    let length = head.lines().find_map(|l| l.strip_prefix("Content-Length: ")).unwrap();
    assert_eq!(length.parse::<usize>().unwrap(), body.len());
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

pub type Samples = BTreeMap<String, f64>;

/// Reads the text format and holds it to the rules that promtool's lint knows.
fn parse(text: &str, open: bool) -> Samples {
    let mut samples = Samples::new();
    let (mut helped, mut typed) = (BTreeSet::new(), BTreeMap::<String, String>::new());
    let body = match open {
        true => text.strip_suffix("# EOF\n").expect("OpenMetrics ends with EOF"),
        false => text,
    };
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# ") {
            let [word, name, more] = rest.splitn(3, ' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
            match word {
                "HELP" => assert!(helped.insert(name.to_owned()) && !more.is_empty(), "{line}"),
                "TYPE" => assert!(typed.insert(name.into(), more.into()).is_none() && helped.contains(name), "{line}"),
                "UNIT" => assert!(open && name.ends_with(&format!("_{more}")), "{line}"),
                _ => panic!("{line}"),
            }
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
        let name = series.split('{').next().unwrap();
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{line}");
        let stems = ["_total", "_bucket", "_sum", "_count"].map(|s| name.strip_suffix(s));
        let of = |n: &str| typed.get(n).map(String::as_str);
        let kind = of(name).or_else(|| stems.iter().flatten().find_map(|s| of(s)));
        let kind = kind.unwrap_or_else(|| panic!("no TYPE before {line}"));
        assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
        assert!(!(kind == "gauge" && ["_total", "_count", "_sum"].iter().any(|s| name.ends_with(s))), "{line}");
        if let Some(labels) = series.strip_prefix(name).filter(|l| !l.is_empty()) {
            assert!(labels.starts_with('{') && labels.ends_with("\"}") && labels.contains("=\""), "{line}");
        }
        let value: f64 = value.parse().unwrap_or_else(|e| panic!("{e}: {line}"));
        assert!(kind != "counter" || value >= 0.0, "{line}");
        assert!(samples.insert(series.to_owned(), value).is_none(), "twice: {line}");
    }
    // Buckets rise, and the last is the count.
    let mut last: BTreeMap<String, f64> = BTreeMap::new();
    for line in body.lines().filter(|l| l.contains("_bucket{")) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (head, le) = series.split_once(",le=").unwrap();
        let value: f64 = value.parse().unwrap();
        assert!(last.insert(head.to_owned(), value).is_none_or(|before| before <= value), "{line}");
        if le == "\"+Inf\"}" {
            assert_eq!(samples[&format!("{}}}", head.replace("_bucket", "_count"))], value, "{line}");
        }
    }
    samples
}

pub const OPEN: &str = "application/openmetrics-text; version=1.0.0";

pub fn scrape(port: u16) -> Samples {
    let (code, body) = get(port, "/metrics", OPEN);
    assert_eq!(code, "HTTP/1.1 200 OK");
    parse(&body, true)
}

#[test]
fn metrics_equal_a_clients_own_counts() {
    let s = Sandbox::new();
    s.up(&["--nodes", "1", "--masters", "1"]).exits(0);
    let (client, peer, master) = (s.base + 101, s.base + 10_101, s.base + 1);
    let mut raw = Raw::connect(SocketAddr::from(([127, 0, 0, 1], client))).unwrap();
    let before = scrape(peer);
    for i in 0..10 {
        raw.call(&[b"SET", format!("k{i}").as_bytes(), b"not a number"]).unwrap();
    }
    for i in 0..25 {
        raw.call(&[b"GET", format!("k{i}").as_bytes()]).unwrap();
    }
    for _ in 0..3 {
        raw.call(&[b"INCR", b"k1"]).unwrap();
    }
    raw.call(&[b"NOSUCH"]).unwrap();
    raw.call(&[b"DEL", b"k9"]).unwrap();
    // A turn is accounted for when its replies are out.
    raw.call(&[b"PING"]).unwrap();
    let after = wait_for("the last turn's account", || {
        let after = scrape(peer);
        (after["cachectl_command_duration_seconds_count{class=\"other\"}"] >= 2.0).then_some(after)
    });
    let rose = |name: &str| after.get(name).copied().unwrap_or(0.0) - before.get(name).copied().unwrap_or(0.0);
    for (command, n) in [("set", 10.0), ("get", 25.0), ("incr", 3.0), ("del", 1.0), ("ping", 1.0)] {
        assert_eq!(rose(&format!("cachectl_commands_total{{command=\"{command}\"}}")), n, "{command}");
    }
    assert_eq!(rose("cachectl_failed_commands_total{command=\"incr\"}"), 3.0);
    assert_eq!(rose("cachectl_error_replies_total{code=\"ERR\"}"), 4.0);
    assert_eq!(rose("cachectl_keyspace_misses_total"), 15.0);
    assert_eq!(rose("cachectl_command_duration_seconds_count{class=\"read\"}"), 25.0);
    assert_eq!(rose("cachectl_command_duration_seconds_count{class=\"write\"}"), 14.0);
    assert_eq!(after["cachectl_keys{role=\"primary\"}"], 9.0);
    assert_eq!(after["cachectl_slots{role=\"primary\"}"], 16384.0);
    assert_eq!((after["cachectl_connected_clients"], after["cachectl_ready"]), (1.0, 1.0));
    assert!(after["process_resident_memory_bytes"] > 1e6 && after["process_cpu_seconds_total"] > 0.0);
    assert!(rose("cachectl_network_receive_bytes_total") > 500.0);

    // INFO says the same.
    let info = raw.call(&[b"INFO", b"everything"]).unwrap();
    let info = String::from_utf8(info.bytes().unwrap().to_vec()).unwrap();
    assert!(info.contains("errorstat_ERR:count=4\r\n"), "{info}");
    let get_line =
        info.lines().find(|l| l.starts_with("cmdstat_get:calls=25,usec=")).unwrap_or_else(|| panic!("{info}"));
    assert!(!get_line.contains("usec=0,"), "{get_line}");
    let list = raw.call(&[b"CLIENT", b"LIST"]).unwrap();
    let list = String::from_utf8(list.bytes().unwrap().to_vec()).unwrap();
    let fd: i32 = list.split(" fd=").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(fd > 2, "{list}");

    // Both formats, both servers, and the probes.
    let (code, plain) = get(peer, "/metrics", "*/*");
    assert_eq!(code, "HTTP/1.1 200 OK");
    assert!(parse(&plain, false).contains_key("cachectl_commands_total{command=\"set\"}"));
    for path in ["/healthz", "/readyz"] {
        assert_eq!(get(peer, path, "*/*"), ("HTTP/1.1 200 OK".into(), "ok\n".into()), "{path}");
        assert_eq!(get(master, path, "*/*"), ("HTTP/1.1 200 OK".into(), "ok\n".into()), "{path}");
    }
    assert!(get(peer, "/", "*/*").0.contains("404"));
    let m = scrape(master);
    assert_eq!((m["cachectl_raft_leader"], m["cachectl_nodes{state=\"up\"}"]), (1.0, 1.0));
    assert_eq!(m["cachectl_cluster_slots{state=\"serving\"}"], 16384.0);
    assert_eq!(m["cachectl_cluster_state{state=\"ok\"}"], 1.0);
    parse(&get(master, "/metrics", "*/*").1, false);
}

#[test]
fn hot_keys_and_slots_are_found() {
    let s = Sandbox::new();
    s.up(&["--nodes", "1", "--masters", "1"]).exits(0);
    let mut raw = Raw::connect(SocketAddr::from(([127, 0, 0, 1], s.base + 101))).unwrap();
    for i in 0..2000u32 {
        // Two of three are for one key; the sample's stride divides neither.
        let key = if i % 3 == 0 { format!("cold{i}") } else { "hot \"key\"".into() };
        raw.call(&[b"GET", key.as_bytes()]).unwrap();
    }
    let (_, body) = get(s.base + 10_101, "/hotkeys", "*/*");
    let doc: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(doc["keys"][0]["key"], "hot \"key\"", "{doc}");
    assert!(doc["keys"][0]["share"].as_f64().unwrap() > 0.4, "{doc}");
    let (_, body) = get(s.base + 10_101, "/heat", "*/*");
    let doc: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert!(doc["slots"].as_array().unwrap().len() > 1, "{doc}");
}

#[test]
fn a_node_without_masters_lives_and_is_not_ready() {
    let s = Sandbox::new();
    let (listen, data) = (format!("127.0.0.1:{}", s.base + 101), s.dir.path().join("n1"));
    let mut node = s
        .command(&["node", "--listen", &listen, "--masters-addr", "127.0.0.1:1", "--data", data.to_str().unwrap()])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let peer = s.base + 10_101;
    wait_for("the peer port", || TcpStream::connect(("127.0.0.1", peer)).ok());
    assert_eq!(get(peer, "/healthz", "*/*").0, "HTTP/1.1 200 OK");
    let (code, why) = get(peer, "/readyz", "*/*");
    assert_eq!(code, "HTTP/1.1 503 Service Unavailable");
    assert!(why.contains("no master"), "{why}");
    assert_eq!(scrape(peer)["cachectl_ready"], 0.0);
    node.kill().unwrap();
    node.wait().unwrap();
}

#[test]
fn browsers_can_not_be_made_to_write() {
    let s = Sandbox::new();
    s.up(&["--nodes", "1", "--masters", "1"]).exits(0);
    let (client, peer, master) = (s.base + 101, s.base + 10_101, s.base + 1);
    for verb in ["POST", "GET", "PUT"] {
        let request = format!("{verb} / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 14\r\n\r\nSET evil 1\r\n\r\n");
        let answer = exchange(client, request.as_bytes());
        assert!(!answer.contains("+OK"), "{verb}: {answer}");
        assert!(verb != "POST" || answer.is_empty(), "{answer}");
    }
    s.run(&["get", "evil"]).exits(1);
    // Line by line, as a slow browser would.
    let mut stream = TcpStream::connect(("127.0.0.1", client)).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    let mut chunk = [0; 256];
    assert!(stream.read(&mut chunk).unwrap() > 0, "GET with three words is a wrong number of arguments");
    stream.write_all(b"Host: x\r\n").unwrap();
    wait_for("the end of the connection", || (!matches!(stream.read(&mut chunk), Ok(1..))).then_some(()));
    // The other ports answer that they don't take it, and end the connection.
    let post =
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 40\r\n\r\n{\"v\":1,\"machine\":\"x\",\"type\":\"STOP\"}\n";
    for port in [peer, master] {
        let answer = exchange(port, post);
        assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
    }
    assert_eq!(s.run(&["status", "-o", "json"]).exits(0).json()["state"], "ok");
}
