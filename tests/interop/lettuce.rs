//! What Lettuce sends at start-up, byte for byte, and what its parser needs of the replies.
//!
//! From the sources of 6.5.5.RELEASE (`RedisHandshake`, `DefaultClusterTopologyRefresh`, `ClusterPartitionParser`,
//! `NodeTopologyView`): the topology comes from CLUSTER NODES and INFO, not from CLUSTER SLOTS.

use std::collections::BTreeSet;

use super::replay::{check_cluster_nodes, check_hello, check_works, replay};
use super::{NODES, cluster, node_addrs};

const HELLO: &[u8] = b"*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n";
const SETINFO: &[u8] = b"*4\r\n$6\r\nCLIENT\r\n$7\r\nSETINFO\r\n$8\r\nlib-name\r\n$7\r\nLettuce\r\n\
    *4\r\n$6\r\nCLIENT\r\n$7\r\nSETINFO\r\n$7\r\nlib-ver\r\n$21\r\n6.5.5.RELEASE/cb02888\r\n";
const SETNAME: &[u8] = b"*3\r\n$6\r\nCLIENT\r\n$7\r\nSETNAME\r\n$30\r\nlettuce#ClusterTopologyRefresh\r\n";
const TOPOLOGY: &[u8] = b"*2\r\n$7\r\nCLUSTER\r\n$5\r\nNODES\r\n*1\r\n$4\r\nINFO\r\n";

#[test]
fn learns_the_topology() {
    let cluster = cluster();
    let mut views = Vec::new();
    for addr in node_addrs(&cluster) {
        let (connection, replies) = replay(&addr, &[HELLO, SETINFO, SETNAME, TOPOLOGY].concat(), 6);
        check_hello(&replies[0], 3);
        assert!(replies[1..4].iter().all(|r| r.is_ok()), "{replies:?}");

        let nodes = check_cluster_nodes(replies[4].text().expect("CLUSTER NODES is text"));
        assert_eq!(nodes.len(), usize::from(NODES));
        let myself = nodes.values().find(|n| n.flags.iter().any(|f| f == "myself")).expect("checked");
        assert_eq!(myself.addr, addr);

        let info = replies[5].text().expect("INFO is text");
        for field in ["redis_version:", "connected_clients:", "master_repl_offset:", "role:master", "cluster_enabled:1"]
        {
            assert!(info.lines().any(|l| l.starts_with(field)), "no {field} in\n{info}");
        }
        let clients = info.lines().find_map(|l| l.strip_prefix("connected_clients:")).expect("checked");
        assert!(clients.trim_end().parse::<i32>().is_ok_and(|n| n > 0), "Lettuce parses {clients:?} as an int");

        let addrs: BTreeSet<String> = nodes.values().map(|n| n.addr.clone()).collect();
        check_works(connection, &addrs, "lettuce");
        views.push(nodes.into_iter().map(|(id, n)| (id, n.addr, n.ranges)).collect::<Vec<_>>());
    }
    assert!(views.windows(2).all(|v| v[0] == v[1]), "the nodes disagree: {views:?}");
}
