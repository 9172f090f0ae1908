//! What Jedis sends at start-up, byte for byte, and what its parser needs of the replies.
//!
//! From the sources of v5.2.0 (`Connection.initializeFromClientConfig`, `JedisClusterInfoCache.discoverClusterNodesAndSlots`):
//! no HELLO unless a protocol is asked for; slots with a hole are refused; hosts must be bulk strings, ports integers.

use super::replay::{check_cluster_slots, check_hello, check_works, replay};
use super::{NODES, cluster, node_addrs};

const SETINFO: &[u8] = b"*4\r\n$6\r\nCLIENT\r\n$7\r\nSETINFO\r\n$8\r\nLIB-NAME\r\n$5\r\njedis\r\n\
    *4\r\n$6\r\nCLIENT\r\n$7\r\nSETINFO\r\n$7\r\nLIB-VER\r\n$5\r\n5.2.0\r\n";
const CLUSTER_SLOTS: &[u8] = b"*2\r\n$7\r\nCLUSTER\r\n$5\r\nSLOTS\r\n";
/// With DefaultJedisClientConfig.protocol(RESP3).
const HELLO: &[u8] = b"*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n";
/// What its pool sends before it lends a connection, with testOnBorrow.
const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";

#[test]
fn starts_in_resp2() {
    let cluster = cluster();
    for addr in node_addrs(&cluster) {
        let (connection, replies) = replay(&addr, &[SETINFO, CLUSTER_SLOTS, PING].concat(), 4);
        assert!(replies[0].is_ok() && replies[1].is_ok(), "{replies:?}");
        let addrs = check_cluster_slots(&replies[2]);
        assert_eq!(addrs.len(), usize::from(NODES));
        assert_eq!(replies[3].text(), Some("PONG"));
        check_works(connection, &addrs, "jedis");
    }
}

#[test]
fn starts_in_resp3() {
    let cluster = cluster();
    let addr = cluster.node_addr(2).to_string();
    let (connection, replies) = replay(&addr, &[HELLO, SETINFO, CLUSTER_SLOTS].concat(), 4);
    check_hello(&replies[0], 3);
    let addrs = check_cluster_slots(&replies[3]);
    check_works(connection, &addrs, "jedis");
}
