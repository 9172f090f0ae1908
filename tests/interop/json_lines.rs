//! The client protocol in JSON lines, as a script with `nc` and `jq` speaks it, on the port that speaks RESP too.

use serde_json::{Value, json};

use super::{cluster, node_addrs};
use crate::common::resp::Connection;

struct Session {
    connection: Connection,
    last_id: u64,
}

impl Session {
    fn open(addr: &str) -> Self {
        Self { connection: Connection::open(addr).expect("a connection"), last_id: 0 }
    }

    /// One request, one answer; the envelope is checked here.
    #[track_caller]
    fn ask(&mut self, kind: &str, data: Value) -> (String, Value) {
        self.last_id += 1;
        let line = json!({"v": 1, "machine": "script", "type": kind, "id": self.last_id, "data": data});
        self.connection.send_raw(format!("{line}\n").as_bytes()).expect("the server reads");
        let answer = self.answer();
        assert_eq!(answer["id"], self.last_id, "{answer}");
        (answer["type"].as_str().expect("a type").to_owned(), answer["data"].clone())
    }

    #[track_caller]
    fn answer(&mut self) -> Value {
        let line = self.connection.read_line().expect("an answer");
        let answer: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert_eq!(answer["v"], 1, "{line}");
        assert!(answer["machine"].as_str().is_some_and(|m| m.starts_with('n')), "{line}");
        answer
    }
}

/// A session with the primary of a key, found as a script finds it: by being told MOVED.
#[track_caller]
fn session_for(addrs: &[String], key: &str) -> Session {
    let mut session = Session::open(&addrs[0]);
    let (kind, data) = session.ask("GET", json!({"key": key}));
    if kind == "ERROR" {
        assert_eq!(data["code"], "MOVED", "{data}");
        assert!(data["slot"].as_u64().is_some_and(|s| s < 16384), "{data}");
        let addr = data["addr"].as_str().expect("an address");
        assert!(addrs.iter().any(|a| a == addr), "{addr} is none of {addrs:?}");
        session = Session::open(addr);
    }
    session
}

#[test]
fn sets_gets_and_deletes() {
    let cluster = cluster();
    let addrs = node_addrs(&cluster);
    for i in 0..6 {
        let key = format!("json:{i}");
        let mut session = session_for(&addrs, &key);
        assert_eq!(session.ask("SET", json!({"key": key, "value": "wért\n\"", "ttl_ms": 100_000})).0, "OK");
        assert_eq!(session.ask("GET", json!({"key": key})), ("VALUE".into(), json!({"value": "wért\n\""})));
        let (kind, ttl) = session.ask("TTL", json!({"key": key}));
        assert!(kind == "INTEGER" && ttl["value"].as_i64().is_some_and(|t| (1..=100).contains(&t)), "{kind} {ttl}");
        assert_eq!(session.ask("DEL", json!({"key": key})), ("INTEGER".into(), json!({"value": 1})));
        assert_eq!(session.ask("GET", json!({"key": key})), ("VALUE".into(), json!({"value": null})));
    }
}

#[test]
fn carries_bytes_that_are_not_utf8() {
    let cluster = cluster();
    let addrs = node_addrs(&cluster);
    let mut session = session_for(&addrs, "json:bytes");
    assert_eq!(session.ask("SET", json!({"key": "json:bytes", "value_b64": "//79AA=="})).0, "OK");
    assert_eq!(session.ask("GET", json!({"key": "json:bytes"})), ("VALUE".into(), json!({"value_b64": "//79AA=="})));
    // The same bytes in RESP.
    let addr = addrs.iter().find_map(|a| {
        let mut resp = Connection::open(a).ok()?;
        let reply = resp.call(&["GET", "json:bytes"]).ok()?;
        (reply == crate::common::resp::Reply::Bulk(vec![0xff, 0xfe, 0xfd, 0])).then_some(a)
    });
    assert!(addr.is_some(), "no node answers the bytes in RESP");
}

#[test]
fn an_unknown_type_stays_and_a_broken_line_closes() {
    let cluster = cluster();
    let addrs = node_addrs(&cluster);
    let mut session = Session::open(&addrs[0]);
    let (kind, data) = session.ask("DANCE", json!({}));
    assert_eq!((kind.as_str(), data["code"].is_string()), ("ERROR", true), "{data}");
    let (kind, _) = session.ask("SET", json!({"key": 7}));
    assert_eq!(kind, "ERROR", "a key is text");
    assert_eq!(session.ask("PING", json!({})).0, "VALUE", "the connection stays");

    session.connection.send_raw(b"{\"v\":1,\"machine\":\n").expect("the server reads");
    let answer = session.answer();
    assert_eq!(answer["type"], "ERROR", "{answer}");
    assert!(session.connection.is_closed_by_peer().expect("an end"), "a broken line ends the connection");
}

#[test]
fn many_lines_in_one_piece_are_answered_in_order() {
    let cluster = cluster();
    let addrs = node_addrs(&cluster);
    let mut session = session_for(&addrs, "{json}");
    let set = |i: u64| json!({"v": 1, "machine": "s", "type": "SET", "id": i, "data": {"key": format!("{{json}}{i}"), "value": "x"}});
    let lines: String = (1..=200).map(|i| format!("{}\n", set(i))).collect();
    session.connection.send_raw(lines.as_bytes()).expect("the server reads");
    for i in 1..=200 {
        let answer = session.answer();
        assert_eq!((&answer["type"], &answer["id"]), (&json!("OK"), &json!(i)), "{answer}");
    }
}
