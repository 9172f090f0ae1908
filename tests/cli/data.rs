//! The client commands, against a real cluster.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;

use crate::common::PATIENCE;
use crate::sandbox::{Ran, Sandbox};

#[test]
fn keys_are_written_read_counted_and_found() {
    let s = Sandbox::new();
    // Before any cluster there is nothing to ask.
    s.run(&["get", "k"]).exits(1);
    s.up(&[]).exits(0);

    let missing = s.run(&["get", "hello"]).exits(1);
    assert!(missing.out.is_empty(), "a missing key prints nothing: {}", missing.out);
    assert_eq!(s.run(&["set", "hello", "world"]).exits(0).out, "OK\n");
    assert_eq!(s.run(&["get", "hello"]).exits(0).out, "world\n");
    assert_eq!(s.run(&["get", "hello", "-o", "json"]).exits(0).json()["value"], "world");
    assert_eq!(s.run(&["ttl", "hello"]).exits(0).out, "-1\n");
    assert_eq!(s.run(&["ttl", "nope"]).exits(0).out, "-2\n");
    s.run(&["set", "short", "x", "--ttl", "100"]).exits(0);
    let ttl: i64 = s.run(&["ttl", "short"]).exits(0).out.trim().parse().unwrap();
    assert!((1..=100).contains(&ttl), "{ttl}");

    assert_eq!(s.run(&["incr", "n"]).exits(0).out, "1\n");
    assert_eq!(s.run(&["incr", "n"]).exits(0).out, "2\n");
    let bad = s.run(&["incr", "hello", "-o", "json"]).exits(1);
    assert!(bad.error().1.contains("integer"), "{}", bad.err);
    s.run(&["set", "neg", "-5"]).exits(0);
    assert_eq!(s.run(&["get", "neg"]).exits(0).out, "-5\n");

    // Keys of different slots, some missing.
    for i in 0..20 {
        s.run(&["set", &format!("many{i}"), "v"]).exits(0);
    }
    let mut line = vec!["del".to_owned(), "nope".to_owned()];
    line.extend((0..20).map(|i| format!("many{i}")));
    let line: Vec<&str> = line.iter().map(String::as_str).collect();
    assert_eq!(s.run(&line).exits(0).out, "20\n");

    let place = s.run(&["where", "foo", "-o", "json"]).exits(0).json();
    assert_eq!(place["slot"], 12182);
    let (primary, backup) = (&place["primary"]["id"], &place["backup"]["id"]);
    assert!(primary.is_string() && backup.is_string() && primary != backup, "{place}");
    let table = s.run(&["where", "foo"]).exits(0).out;
    assert!(table.contains("12182") && table.contains(primary.as_str().unwrap()), "{table}");
}

/// What can leave is kept back for what a backup is about to confirm, but not for long.
#[test]
fn a_write_that_is_not_confirmed_does_not_hold_back_a_reply_before_it() {
    let s = Sandbox::new();
    s.up(&[]).exits(0);
    let place = |key: &str| s.run(&["where", key, "-o", "json"]).exits(0).json();
    let of = |key: &str, backup: &str| {
        let place = place(key);
        place["primary"]["id"] == "n1" && place["backup"]["id"] == backup
    };
    let find = |backup: &str| (0..).map(|n| format!("k{n}")).find(|key| of(key, backup)).unwrap();
    let (read, written) = (find("n3"), find("n2"));
    let addr = place(&read)["primary"]["addr"].as_str().unwrap().to_owned();
    let mut client = TcpStream::connect(addr).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    // With nobody to replace the backup the write is never confirmed.
    for who in ["m1", "m2", "m3", "n2"] {
        s.run(&["chaos", "pause", who]).exits(0);
    }
    client.write_all(format!("GET {read}\r\nSET {written} v\r\n").as_bytes()).unwrap();
    let mut got = [0; 64];
    let n = client.read(&mut got).unwrap();
    assert_eq!(String::from_utf8_lossy(&got[..n]), "$-1\r\n");
    for who in ["n2", "m1", "m2", "m3"] {
        s.run(&["chaos", "resume", who]).exits(0);
    }
}

#[test]
fn any_bytes_go_in_and_come_out() {
    let s = Sandbox::new();
    s.up(&["--nodes", "1", "--masters", "1"]).exits(0);
    let value: Vec<u8> = (0..=255u8).cycle().take(300_000).collect();
    let mut child = s.command(&["set", "blob", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&value).unwrap();
    Ran::from(child.wait_with_output().unwrap()).exits(0);
    let mut got = s.command(&["get", "blob"]).output().unwrap().stdout;
    assert_eq!(got.pop(), Some(b'\n'));
    assert!(got == value, "{} bytes came back of {}", got.len(), value.len());
    let doc = s.run(&["get", "blob", "-o", "json"]).exits(0).json();
    assert!(doc["value_b64"].is_string() && doc.get("value").is_none());
}
