//! What the replays of start-ups share: the checks that a client's own parser makes of the replies.

use std::collections::{BTreeMap, BTreeSet};

use crate::common::resp::{Connection, Reply};

/// Checks a HELLO reply the way clients read it; gives nothing else back, for none of them keeps more.
#[track_caller]
pub fn check_hello(reply: &Reply, proto: i64) {
    assert!(matches!((proto, reply), (3, Reply::Map(_)) | (2, Reply::Array(_))), "{reply:?}");
    for text in ["server", "version", "mode", "role"] {
        let value = reply.field(text).unwrap_or_else(|| panic!("no {text} in {reply:?}"));
        assert!(value.text().is_some_and(|s| !s.is_empty()), "{text} is {value:?}");
    }
    assert_eq!(reply.field("proto"), Some(&Reply::Int(proto)));
    assert_eq!(reply.field("mode").and_then(Reply::text), Some("cluster"));
    assert_eq!(reply.field("role").and_then(Reply::text), Some("master"));
    assert!(reply.field("id").is_some_and(|id| id.int() > 0));
    assert!(reply.field("modules").is_some_and(|m| m.elements().is_empty()));
}

/// Checks CLUSTER SLOTS: every slot once, every node a host, a port, a 40-digit id and empty metadata. Gives the addresses of
/// the primaries.
#[track_caller]
pub fn check_cluster_slots(reply: &Reply) -> BTreeSet<String> {
    let mut addrs = BTreeSet::new();
    let mut next = 0;
    let mut ranges: Vec<_> = reply.elements().iter().map(Reply::elements).collect();
    ranges.sort_by_key(|r| r[0].int());
    for range in ranges {
        assert_eq!(range.len(), 3, "first, last and the primary alone: {range:?}");
        assert_eq!(range[0].int(), next, "a hole or an overlap before {range:?}");
        assert!(range[1].int() >= range[0].int());
        next = range[1].int() + 1;
        let node = range[2].elements();
        assert_eq!(node.len(), 4, "{node:?}");
        let host = match &node[0] {
            Reply::Bulk(host) => String::from_utf8(host.clone()).expect("a printable host"),
            other => panic!("the host is {other:?}: Jedis and go-redis want a bulk string"),
        };
        check_id(&node[2]);
        let no_metadata =
            matches!(&node[3], Reply::Array(m) if m.is_empty()) || matches!(&node[3], Reply::Map(m) if m.is_empty());
        assert!(no_metadata, "{node:?}");
        addrs.insert(format!("{host}:{}", node[1].int()));
    }
    assert_eq!(next, 16384, "slots end at {next}");
    addrs
}

/// Checks that a node id has 40 hex digits.
#[track_caller]
pub fn check_id(reply: &Reply) {
    let id = reply.text().unwrap_or_else(|| panic!("a node id is {reply:?}"));
    assert!(id.len() == 40 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id:?} is no node id");
}

/// One line of CLUSTER NODES.
#[derive(Debug)]
pub struct NodeLine {
    /// host:port.
    pub addr: String,
    /// `myself`, `master`, …
    pub flags: Vec<String>,
    /// First and last of each range.
    pub ranges: Vec<(u16, u16)>,
}

/// Parses CLUSTER NODES as Redis documents it: `id host:port@bus flags primary ping pong epoch link slots…`, all slots once.
#[track_caller]
pub fn check_cluster_nodes(text: &str) -> BTreeMap<String, NodeLine> {
    let mut nodes = BTreeMap::new();
    let mut covered = vec![false; 16384];
    assert!(text.ends_with('\n'), "the last line ends too");
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        assert!(words.len() >= 8, "{line:?}");
        check_id(&Reply::Bulk(words[0].into()));
        let (addr, bus) = words[1].split_once('@').unwrap_or_else(|| panic!("no bus port in {line:?}"));
        let bus = bus.split(',').next().unwrap_or_default();
        assert!(
            bus.parse::<u16>().is_ok() && addr.rsplit(':').next().is_some_and(|p| p.parse::<u16>().is_ok()),
            "{line:?}"
        );
        assert_eq!(words[3], "-", "nobody is a replica: {line:?}");
        assert!(words[4..7].iter().all(|n| n.parse::<u64>().is_ok()), "{line:?}");
        assert_eq!(words[7], "connected", "{line:?}");
        let mut ranges = Vec::new();
        for word in &words[8..] {
            let (first, last) = word.split_once('-').unwrap_or((word, word));
            let (first, last) = (first.parse().expect("a slot"), last.parse().expect("a slot"));
            assert!(first <= last && last < 16384, "{line:?}");
            for slot in first..=last {
                assert!(!std::mem::replace(&mut covered[usize::from(slot)], true), "slot {slot} twice");
            }
            ranges.push((first, last));
        }
        let flags = words[2].split(',').map(str::to_owned).collect();
        nodes.insert(words[0].to_owned(), NodeLine { addr: addr.to_owned(), flags, ranges });
    }
    assert!(covered.iter().all(|c| *c), "slots are missing");
    let mine = nodes.values().filter(|n| n.flags.iter().any(|f| f == "myself")).count();
    assert_eq!(mine, 1, "one node is myself: {nodes:?}");
    assert!(nodes.values().all(|n| n.flags.iter().any(|f| f == "master")), "{nodes:?}");
    nodes
}

/// Checks the entries of a COMMAND reply as go-redis and Redis 7 itself have them: ten elements of fixed types.
#[track_caller]
pub fn check_command_table(reply: &Reply) -> BTreeMap<String, (i64, i64, i64, i64)> {
    let mut table = BTreeMap::new();
    for entry in reply.elements() {
        let entry = entry.elements();
        assert!(matches!(entry.len(), 6 | 7 | 10), "{} elements, clients take 6, 7 or 10", entry.len());
        let name = entry[0].text().expect("a name");
        assert_eq!(name, name.to_lowercase(), "clients look names up in lower case");
        assert!(entry[2].elements().iter().all(|flag| flag.text().is_some()), "{entry:?}");
        table.insert(name.to_owned(), (entry[1].int(), entry[3].int(), entry[4].int(), entry[5].int()));
    }
    table
}

/// Sends the bytes in one piece on one connection and byte by byte on another: the replies must be of the same kinds (ids and
/// times in them differ). Gives the former's.
#[track_caller]
pub fn replay(addr: &str, bytes: &[u8], replies: usize) -> (Connection, Vec<Reply>) {
    let read = |connection: &mut Connection| -> Vec<Reply> {
        (0..replies)
            .map(|i| connection.read().unwrap_or_else(|e| panic!("reply {i} of {replies} from {addr}: {e}")))
            .collect()
    };
    let mut slow = Connection::open(addr).expect("a connection");
    for byte in bytes {
        slow.send_raw(std::slice::from_ref(byte)).expect("the server reads");
    }
    let slowly = read(&mut slow);
    let mut connection = Connection::open(addr).expect("a connection");
    connection.send_raw(bytes).expect("the server reads");
    let at_once = read(&mut connection);
    for (a, b) in slowly.iter().zip(&at_once) {
        let same_kind = std::mem::discriminant(a) == std::mem::discriminant(b);
        assert!(same_kind, "byte by byte: {a:?}\nin one piece: {b:?}");
    }
    (connection, at_once)
}

/// What every start-up ends with: the connection works.
#[track_caller]
pub fn check_works(mut connection: Connection, addrs: &BTreeSet<String>, prefix: &str) {
    let mut held = 0;
    for i in 0..16 {
        let key = format!("{prefix}:{i}");
        match connection.call(&["set", &key, "x"]).expect("a reply to set") {
            reply if reply.is_ok() => {
                held += 1;
                assert_eq!(connection.call(&["get", &key]).expect("a reply to get").text(), Some("x"));
            }
            Reply::Error(e) => {
                let moved = e.strip_prefix("MOVED ").and_then(|rest| rest.split_once(' '));
                assert!(moved.is_some_and(|(_, addr)| addrs.contains(addr)), "{e:?} names none of {addrs:?}");
            }
            other => panic!("SET answered {other:?}"),
        }
    }
    assert!(held > 0, "a primary holds none of 16 keys");
}
