//! What go-redis sends at start-up, byte for byte, and what its parser needs of the replies.
//!
//! From the sources of v9.7.0 (`redis.go` initConn, `osscluster.go` loadState, `command.go` readReply) and v9.19.0 (CLIENT
//! MAINT_NOTIFICATIONS, COMMAND at every start). go-redis waits for HELLO, then sends in pipelines.

use super::replay::{check_cluster_slots, check_command_table, check_hello, check_works, replay};
use super::{NODES, cluster, node_addrs};
use crate::common::resp::{Connection, Reply};

const HELLO: &[u8] = b"*2\r\n$5\r\nhello\r\n$1\r\n3\r\n";
const SETINFO: &[u8] = b"*4\r\n$6\r\nclient\r\n$7\r\nsetinfo\r\n$8\r\nLIB-NAME\r\n$19\r\ngo-redis(,go1.23.2)\r\n\
    *4\r\n$6\r\nclient\r\n$7\r\nsetinfo\r\n$7\r\nLIB-VER\r\n$5\r\n9.7.0\r\n";
const CLUSTER_SLOTS: &[u8] = b"*2\r\n$7\r\ncluster\r\n$5\r\nslots\r\n";
/// With ClusterOptions.ReadOnly, RouteByLatency or RouteRandomly.
const READONLY: &[u8] = b"*1\r\n$8\r\nreadonly\r\n";
const COMMAND: &[u8] = b"*1\r\n$7\r\ncommand\r\n";
const MAINT_NOTIFICATIONS: &[u8] = b"*5\r\n$6\r\nclient\r\n$19\r\nmaint_notifications\r\n$2\r\non\r\n\
    $20\r\nmoving-endpoint-type\r\n$11\r\ninternal-ip\r\n";

#[test]
fn starts_as_version_9_7() {
    let cluster = cluster();
    let bytes = [HELLO, SETINFO, CLUSTER_SLOTS].concat();
    for addr in node_addrs(&cluster) {
        let (connection, replies) = replay(&addr, &bytes, 4);
        check_hello(&replies[0], 3);
        assert!(replies[1].is_ok() && replies[2].is_ok(), "{replies:?}");
        let addrs = check_cluster_slots(&replies[3]);
        assert_eq!(addrs.len(), usize::from(NODES));
        assert!(addrs.contains(&addr));
        check_works(connection, &addrs, "go");
    }
}

#[test]
fn reads_the_command_table_and_may_be_read_only() {
    let cluster = cluster();
    let addr = cluster.node_addr(1).to_string();
    let (_, replies) = replay(&addr, &[HELLO, READONLY, COMMAND].concat(), 3);
    assert!(replies[1].is_ok(), "{:?}", replies[1]);
    let table = check_command_table(&replies[2]);
    // Arity, first key, last key, step: routing rests on them.
    for (name, spec) in
        [("get", (2, 1, 1, 1)), ("set", (-3, 1, 1, 1)), ("del", (-2, 1, -1, 1)), ("mset", (-3, 1, -1, 2))]
    {
        assert_eq!(table.get(name), Some(&spec), "{name}");
    }
}

#[test]
fn survives_what_newer_versions_ask_for() {
    let cluster = cluster();
    let addr = cluster.node_addr(1).to_string();
    let (mut connection, replies) = replay(&addr, &[HELLO, MAINT_NOTIFICATIONS].concat(), 2);
    // An error is fine, and means "not supported"; a closed connection is not.
    assert!(matches!(&replies[1], Reply::Error(e) if e.starts_with("ERR ")), "{:?}", replies[1]);
    assert_eq!(connection.call(&["ping"]).expect("the connection stays").text(), Some("PONG"));
}

#[test]
fn falls_back_to_resp2() {
    let cluster = cluster();
    let mut connection = Connection::open(cluster.node_addr(1)).expect("a connection");
    let refused = connection.call(&["hello", "4"]).expect("a reply");
    assert!(matches!(&refused, Reply::Error(e) if e.starts_with("NOPROTO")), "{refused:?}");
    connection.send_raw(CLUSTER_SLOTS).expect("the server reads");
    check_cluster_slots(&connection.read().expect("a reply"));
}
