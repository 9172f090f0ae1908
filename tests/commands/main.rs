//! The commands against a real redis-server 7.0: the same command lines on both sides, replies compared byte by byte.
//!
//! Differences that are meant, and where they are let pass:
//! - remaining TTLs may differ by what the two clocks differ ([`CLOCK_SLACK_MS`]);
//! - the order of KEYS, SCAN and the lists of COMMAND; SCAN's cursors;
//! - OBJECT ENCODING follows from the value alone, not from the commands that made it; MEMORY USAGE has its own cost;
//! - server commands tell of another server: for these, shapes and field names are compared.

mod generate;
mod node;
mod redis;
mod resp;

use std::collections::BTreeSet;

use cachectl::node::cache::command::Host;
use node::MiniNode;
use redis::{RedisConn, RedisServer};
use resp::Value;

/// How far apart the two sides may see a deadline, milliseconds. Far less than the steps in which the tests set TTLs, and far
/// more than any stall between the two executions of a command.
const CLOCK_SLACK_MS: i64 = 600_000;

/// Both sides, one connection each.
struct Pair {
    ours: MiniNode,
    theirs: RedisConn,
    done: Vec<String>,
}

impl Pair {
    fn new(server: &RedisServer, resp3: bool) -> Self {
        let mut pair = Self { ours: MiniNode::new(), theirs: server.connect(), done: Vec::new() };
        pair.theirs.send(&[b"FLUSHALL"]);
        if resp3 {
            pair.theirs.send(&[b"HELLO", b"3"]);
            pair.ours.send(&[b"HELLO", b"3"]);
        }
        pair
    }

    /// Both replies.
    fn both(&mut self, words: &[&[u8]]) -> (Vec<u8>, Vec<u8>) {
        let show = |w: &&[u8]| format!("\"{}\" ", w[..w.len().min(80)].escape_ascii());
        self.done.push(words.iter().map(show).collect());
        (self.ours.send(words), self.theirs.send(words))
    }

    /// Runs one command on both sides and compares.
    fn same(&mut self, words: &[&[u8]]) {
        let (ours, theirs) = self.both(words);
        let unit = match words[0].to_ascii_lowercase().as_slice() {
            b"ttl" | b"expiretime" => 1000,
            b"pttl" | b"pexpiretime" => 1,
            _ => 0,
        };
        if ours == theirs || (unit > 0 && close(&ours, &theirs, unit)) {
            return;
        }
        let tail = self.done.len().saturating_sub(40);
        panic!(
            "replies differ\n  ours:   {}\n  theirs: {}\nafter:\n{}",
            ours.escape_ascii(),
            theirs.escape_ascii(),
            self.done[tail..].join("\n")
        );
    }

    /// Runs a command line, split at spaces; `""` is an empty argument.
    fn line(&mut self, line: &str) {
        let words: Vec<&[u8]> = line.split(' ').map(|w| if w == "\"\"" { b"" } else { w.as_bytes() }).collect();
        self.same(&words);
    }
}

fn close(ours: &[u8], theirs: &[u8], unit: i64) -> bool {
    match (resp::parse(ours).int(), resp::parse(theirs).int()) {
        (Some(a), Some(b)) => a > 0 && b > 0 && a.abs_diff(b) as i64 * unit <= CLOCK_SLACK_MS,
        _ => false,
    }
}

fn in_both_protocols(test: impl Fn(&mut Pair)) {
    let server = RedisServer::start();
    for resp3 in [false, true] {
        test(&mut Pair::new(&server, resp3));
    }
}

#[test]
fn hand_picked_lines_get_the_same_replies() {
    in_both_protocols(|pair| {
        for line in include_str!("lines.txt").lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
            pair.line(line);
        }
    });
}

#[test]
fn bytes_of_any_kind_are_kept_and_quoted_alike() {
    in_both_protocols(|pair| {
        let all: Vec<u8> = (0..=255).collect();
        for words in [
            &[&b"SET"[..], &all, &all][..],
            &[b"GET", &all],
            &[b"APPEND", &all, b"\0\r\n"],
            &[b"GETRANGE", &all, b"0", b"-1"],
            &[b"STRLEN", &all],
            &[b"no\r\nsuch\0thing", b"a\r\nb", b"c\0d", b"\xff"],
            &[&[b'x'; 300], &[b'y'; 300], b"z"],
            &[b"nope", &[b'y'; 100], &[b'y'; 100], b"z"],
            &[b"nope", b"", b""],
            &[b"", b"a"],
            &[b"CLIENT", b"no\r\nsuch\0thing"],
            &[b"CLIENT", &[b'x'; 300]],
            &[b"CONFIG", b"\xff", b"a"],
            &[b"EXPIRE", &all, b"1", b"\xff\r\n"],
            &[b"INCRBY", &all, b"\0"],
            &[b"INCRBY", &all, b"1\0"],
            &[b"SET", b"n", b"1\0"],
            &[b"INCR", b"n"],
            &[b"INCRBYFLOAT", b"n", b"1"],
            &[b"INCRBYFLOAT", b"m", b"1\0"],
            &[b"CLIENT", b"SETNAME", b"a\0b"],
            &[b"CLIENT", b"SETNAME", b"\x7f"],
            &[b"CLIENT", b"SETNAME", b"ok~!"],
            &[b"CLIENT", b"GETNAME"],
            &[b"HELLO", b"2", b"\xff\0"],
        ] {
            pair.same(words);
        }
    });
}

#[test]
fn random_command_lines_get_the_same_replies() {
    let server = RedisServer::start();
    for seed in 0..60 {
        let mut pair = Pair::new(&server, seed % 2 == 1);
        let mut source = generate::Source::new(seed);
        for _ in 0..250 {
            let words = source.command();
            pair.same(&words.iter().map(Vec::as_slice).collect::<Vec<_>>());
        }
        for key in generate::KEYS {
            pair.same(&[b"GET", key]);
            pair.same(&[b"PEXPIRETIME", key]);
        }
        pair.same(&[b"DBSIZE"]);
    }
}

#[test]
fn floats_add_up_to_the_same_digits() {
    let server = RedisServer::start();
    let mut pair = Pair::new(&server, false);
    let mut source = generate::Source::new(7);
    for _ in 0..4000 {
        let (a, b) = (source.float(), source.float());
        pair.same(&[b"SET", b"f", &a]);
        pair.same(&[b"INCRBYFLOAT", b"f", &b]);
        pair.same(&[b"GET", b"f"]);
    }
}

#[test]
fn globs_match_the_same_keys() {
    let server = RedisServer::start();
    let mut pair = Pair::new(&server, false);
    let mut source = generate::Source::new(11);
    let mut keys: BTreeSet<Vec<u8>> = (0..150).map(|_| source.word(b"ab-]^[\\*?c\xff\x00", 5)).collect();
    keys.insert(Vec::new());
    for key in &keys {
        pair.same(&[b"SET", key, b""]);
    }
    for _ in 0..3000 {
        let pattern = source.word(b"ab-]^[\\*?c\xff**[[", 7);
        let (ours, theirs) = pair.both(&[b"KEYS", &pattern]);
        assert_eq!(resp::parse(&ours).sorted(), resp::parse(&theirs).sorted(), "{}", pattern.escape_ascii());
    }
}

#[test]
fn a_full_node_evicts_or_refuses_and_never_does_half_a_command() {
    let mut evicted = 0;
    for seed in 100..130 {
        let mut node = MiniNode::with_memory(4096);
        let mut source = generate::Source::new(seed);
        for n in 0..300 {
            if n % 5 == 0 {
                let key = format!("{{k}}{}", n % 25);
                node.send(&[b"APPEND", key.as_bytes(), &vec![b'x'; 37 * (n % 31)]]);
            }
            let words = source.command();
            let reply = node.send(&words.iter().map(Vec::as_slice).collect::<Vec<_>>());
            resp::parse(&reply);
        }
        node.host.for_each_store(&mut |store| evicted += store.totals().evicted);
        assert!(node.send(&[b"SET", b"k", &[b'x'; 5000]]).starts_with(b"-OOM command not allowed"));
        assert!(node.send(&[b"MSET", b"{k}1", &[b'x'; 3000], b"{k}2", &[b'x'; 3000]]).starts_with(b"-OOM "));
    }
    assert!(evicted > 1000, "hardly ever full: the test does not test");
}

#[test]
fn a_full_node_still_overwrites_shrinks_and_renames() {
    let mut node = MiniNode::with_memory(8192);
    let big = [b'x'; 6000];
    assert_eq!(node.send(&[b"SET", b"{k}1", &big]), b"+OK\r\n");
    assert_eq!(node.send(&[b"SET", b"{k}1", &[b'y'; 6000]]), b"+OK\r\n");
    assert_eq!(node.send(&[b"RENAME", b"{k}1", b"{k}2"]), b"+OK\r\n");
    assert_eq!(node.send(&[b"STRLEN", b"{k}2"]), b":6000\r\n");
    // Shrinks, then grows by more than is free: what it gave back is what it takes.
    assert_eq!(node.send(&[b"MSET", b"{k}2", b"", b"{k}2", &big, b"{k}3", b"v"]), b"+OK\r\n");
    assert_eq!(node.send(&[b"SETRANGE", b"{k}2", b"0", &big]), b":6000\r\n");
    assert_eq!(node.send(&[b"EXISTS", b"{k}2", b"{k}3"]), b":2\r\n");
}

/// All keys that a full SCAN returns, and how many calls it took.
fn scan_all(mut send: impl FnMut(&[&[u8]]) -> Vec<u8>, options: &[&[u8]]) -> (Vec<Vec<u8>>, usize) {
    let (mut keys, mut cursor, mut calls) = (Vec::new(), b"0".to_vec(), 0);
    loop {
        let words: Vec<&[u8]> = [&b"SCAN"[..], &cursor].into_iter().chain(options.iter().copied()).collect();
        let reply = resp::parse(&send(&words));
        calls += 1;
        keys.extend(reply.items()[1].items().iter().map(|k| k.bulk().to_vec()));
        cursor = reply.items()[0].bulk().to_vec();
        if cursor == b"0" {
            return (keys, calls);
        }
        assert!(calls < 100_000, "a SCAN that does not end");
    }
}

#[test]
fn scan_finds_the_same_keys() {
    in_both_protocols(|pair| {
        for i in 0..500 {
            let key = if i % 2 == 0 { format!("key:{i}") } else { format!("{{tag}}:{i}") };
            pair.same(&[b"SET", key.as_bytes(), b"v"]);
        }
        let all: [&[&[u8]]; 7] = [
            &[],
            &[b"COUNT", b"1"],
            &[b"COUNT", b"1000000"],
            &[b"MATCH", b"*9", b"count", b"7"],
            &[b"TYPE", b"string"],
            &[b"TYPE", b"hash"],
            &[b"MATCH", b"*", b"TYPE", b"STRING", b"COUNT", b"100"],
        ];
        for options in all {
            let (ours, calls) = scan_all(|w| pair.ours.send(w), options);
            let (theirs, _) = scan_all(|w| pair.theirs.send(w), options);
            let set: BTreeSet<_> = ours.iter().collect();
            assert_eq!(set.len(), ours.len(), "nothing changed, so no key may come twice");
            assert_eq!(set, theirs.iter().collect(), "{options:?}");
            if options.is_empty() {
                assert!(calls >= 500 / 20, "so few calls for 500 keys: COUNT is not kept");
            }
        }
        pair.same(&[b"DBSIZE"]);
        let (ours, theirs) = pair.both(&[b"KEYS", b"*"]);
        assert_eq!(resp::parse(&ours).sorted(), resp::parse(&theirs).sorted());
        let some = resp::parse(&pair.ours.send(&[b"RANDOMKEY"]));
        assert_eq!(pair.ours.send(&[b"EXISTS", some.bulk()]), b":1\r\n");
        pair.line("FLUSHALL");
        pair.line("RANDOMKEY");
        pair.line("DBSIZE");
    });
}

#[test]
fn only_primary_slots_are_walked() {
    let mut node = MiniNode::new();
    for i in 0..50 {
        node.send(&[b"SET", format!("k{i}").as_bytes(), b"v"]);
    }
    node.send(&[b"SET", b"{gone}a", b"v"]);
    node.send(&[b"SET", b"{gone}b", b"v"]);
    node.give_away(cachectl::proto::slot::Slot::of_key(b"gone"));
    let slot = resp::parse(&node.send(&[b"CLUSTER", b"KEYSLOT", b"gone"])).int().unwrap().to_string();
    assert_eq!(node.send(&[b"DBSIZE"]), b":50\r\n");
    assert_eq!(resp::parse(&node.send(&[b"KEYS", b"*"])).items().len(), 50);
    assert_eq!(scan_all(|w| node.send(w), &[]).0.len(), 50);
    assert_eq!(node.send(&[b"CLUSTER", b"COUNTKEYSINSLOT", slot.as_bytes()]), b":0\r\n");
    assert_eq!(node.send(&[b"CLUSTER", b"GETKEYSINSLOT", slot.as_bytes(), b"9"]), b"*0\r\n");
}

#[test]
fn keys_that_stay_are_scanned_whatever_comes_and_goes() {
    let mut node = MiniNode::new();
    let stay: BTreeSet<Vec<u8>> = (0..300).map(|i| format!("{{t{}}}stay:{i}", i % 4).into_bytes()).collect();
    for key in &stay {
        node.send(&[b"SET", key, b"v"]);
    }
    let (mut seen, mut cursor, mut n) = (BTreeSet::new(), b"0".to_vec(), 0u32);
    loop {
        let reply = resp::parse(&node.send(&[b"SCAN", &cursor, b"COUNT", b"5"]));
        seen.extend(reply.items()[1].items().iter().map(|k| k.bulk().to_vec()));
        cursor = reply.items()[0].bulk().to_vec();
        if cursor == b"0" {
            break;
        }
        for _ in 0..8 {
            n += 1;
            node.send(&[b"SET", format!("{{t{}}}come:{n}", n % 4).as_bytes(), b"v"]);
            if n > 40 {
                node.send(&[b"DEL", format!("{{t{}}}come:{}", (n - 40) % 4, n - 40).as_bytes()]);
            }
        }
        assert!(n < 1_000_000, "a SCAN that does not end");
    }
    let missed: Vec<_> = stay.difference(&seen).map(|k| k.escape_ascii().to_string()).collect();
    assert!(missed.is_empty(), "missed {missed:?}");
}

#[test]
fn commands_describe_themselves_as_redis_does() {
    let server = RedisServer::start();
    let mut pair = Pair::new(&server, true);
    let names: Vec<&str> = cachectl::node::cache::command::top_level().iter().map(|s| s.name).collect();
    for name in names {
        let (ours, theirs) = pair.both(&[b"COMMAND", b"INFO", name.as_bytes()]);
        let (ours, theirs) = (resp::parse(&ours), resp::parse(&theirs));
        compare_descriptions(&ours.items()[0], &theirs.items()[0]);
    }
    // What Redis has since 7.2, and so is unknown to the one that is compared with; and CLUSTER DIGEST, which is cachectl's own.
    let newer: BTreeSet<String> = ["client|no-touch", "client|setinfo", "cluster|digest"].map(str::to_owned).into();
    let listed = |v: Vec<u8>| resp::parse(&v).items().iter().map(Value::text).collect::<BTreeSet<_>>();
    let (ours, theirs) = pair.both(&[b"COMMAND", b"LIST"]);
    let (ours, theirs) = (listed(ours), listed(theirs));
    assert_eq!(ours.difference(&theirs).cloned().collect::<BTreeSet<_>>(), newer);
    for filter in [&b"ACLCAT"[..], b"PATTERN"] {
        for by in [&b"write"[..], b"dangerous", b"connection", b"c*", b"*|help", b"nope"] {
            let words = [b"COMMAND", &b"LIST"[..], b"FILTERBY", filter, by];
            let (a, b) = pair.both(&words);
            let shared: BTreeSet<_> = listed(b).intersection(&ours).cloned().collect();
            let known: BTreeSet<_> = listed(a).difference(&newer).cloned().collect();
            assert_eq!(known, shared, "{}", by.escape_ascii());
        }
    }
    for name in &ours {
        let docs = resp::parse(&pair.ours.send(&[b"COMMAND", b"DOCS", name.as_bytes()])).pairs();
        assert_eq!(docs.len(), 1);
        let fields: Vec<_> = docs[0].1.pairs().into_iter().map(|(k, _)| k.text()).collect();
        assert!(fields.starts_with(&["summary", "since", "group", "complexity"].map(str::to_owned)), "{fields:?}");
    }
    // Whatever can be typed here has its token in Redis too, so that a client's hints are right.
    let is_container = |name: &String| ours.iter().any(|n| n.starts_with(&format!("{name}|")));
    for name in ours.difference(&newer).filter(|n| !is_container(n)) {
        let (a, b) = pair.both(&[b"COMMAND", b"DOCS", name.as_bytes()]);
        let tokens = |v: Vec<u8>| {
            let mut found = BTreeSet::new();
            tokens(&resp::parse(&v), &mut found);
            found
        };
        let (a, b) = (tokens(a), tokens(b));
        assert!(a.is_subset(&b), "{name}: {a:?}, Redis has {b:?}");
    }
}

/// Every `token` of a document of COMMAND DOCS, however deep.
fn tokens(v: &Value, found: &mut BTreeSet<String>) {
    match v {
        Value::Map(pairs) => pairs.iter().for_each(|(k, v)| {
            if matches!(k, Value::Bulk(_, Some(word)) if word == b"token") {
                found.insert(v.text());
            }
            tokens(v, found);
        }),
        Value::List(_, Some(items)) => {
            for pair in items.windows(2) {
                if matches!(&pair[0], Value::Bulk(_, Some(word)) if word == b"token") {
                    found.insert(pair[1].text());
                }
            }
            items.iter().for_each(|item| tokens(item, found));
        }
        _ => {}
    }
}

/// All but subcommands we lack, remarks on keys, and the order of sets must be equal.
fn compare_descriptions(ours: &Value, theirs: &Value) {
    let (ours, theirs) = (ours.items(), theirs.items());
    let name = ours[0].text();
    for i in 0..8 {
        let (a, b) = (ours[i].clone().sorted(), theirs[i].clone().sorted());
        assert_eq!(a, b, "field {i} of {name}");
    }
    let without_notes = |v: &Value| -> Vec<Value> {
        let strip = |spec: &Value| {
            let kept = spec.pairs().into_iter().filter(|(k, _)| k.text() != "notes").collect();
            Value::Map(kept).sorted()
        };
        v.items().iter().map(strip).collect()
    };
    assert_eq!(without_notes(&ours[8]), without_notes(&theirs[8]), "keys of {name}");
    for sub in ours[9].items() {
        if let Some(same) = theirs[9].items().iter().find(|t| t.items()[0] == sub.items()[0]) {
            compare_descriptions(sub, same);
        }
    }
}

#[test]
fn values_are_encoded_as_redis_would() {
    in_both_protocols(|pair| {
        for value in
            ["", "1", "-1", "9223372036854775807", "9223372036854775808", "01", "abc", &"x".repeat(44), &"x".repeat(45)]
        {
            pair.same(&[b"SET", b"k", value.as_bytes()]);
            pair.same(&[b"OBJECT", b"ENCODING", b"k"]);
            pair.same(&[b"OBJECT", b"REFCOUNT", b"k"]);
        }
    });
}

/// The names of `key=value` fields or `key:value` lines, in order.
fn field_names(text: &str, mark: char) -> Vec<String> {
    let parts = text.split(if mark == '=' { ' ' } else { '\n' });
    parts.filter_map(|p| Some(p.trim().split_once(mark)?.0.to_owned())).collect()
}

#[test]
fn server_commands_have_the_shape_of_redis() {
    in_both_protocols(|pair| {
        // CLIENT LIST: the fields of 7.0 in order, then those of 7.2.
        let (ours, theirs) = pair.both(&[b"CLIENT", b"INFO"]);
        let (ours, theirs) = (resp::parse(&ours).text(), resp::parse(&theirs).text());
        let mut want = field_names(&theirs, '=');
        want.extend(["lib-name", "lib-ver"].map(str::to_owned));
        assert_eq!(field_names(&ours, '='), want);

        // INFO: sections in Redis's order; fields are Redis's but for a few of our own.
        let (ours, theirs) = pair.both(&[b"INFO", b"everything"]);
        let (ours, theirs) = (resp::parse(&ours).text(), resp::parse(&theirs).text());
        let own =
            ["cachectl_version", "used_memory_rss_peak", "used_memory_primary", "used_memory_backup", "backup_keys"];
        let known: BTreeSet<_> = field_names(&theirs, ':').into_iter().collect();
        for field in field_names(&ours, ':') {
            assert!(known.contains(&field) || own.contains(&field.as_str()), "{field} is no field of Redis");
        }
        let titles = |t: &str| t.lines().filter(|l| l.starts_with('#')).map(str::to_owned).collect::<Vec<_>>();
        let shared: Vec<_> = titles(&theirs).into_iter().filter(|t| titles(&ours).contains(t)).collect();
        assert_eq!(titles(&ours), shared);
        for section in ["server", "CLIENTS", "memory", "stats", "cpu", "cluster", "keyspace", "nope"] {
            let (ours, theirs) = pair.both(&[b"INFO", section.as_bytes()]);
            assert_eq!(titles(&resp::parse(&ours).text()), titles(&resp::parse(&theirs).text()), "{section}");
        }

        // HELLO, TIME, CLUSTER: keys and kinds.
        let (ours, theirs) = pair.both(&[b"HELLO"]);
        let keep =
            |v: Vec<u8>| resp::parse(&v).pairs().into_iter().filter(|(k, _)| k.text() != "id").collect::<Vec<_>>();
        assert_eq!(keep(ours), keep(theirs));
        for words in [&[&b"TIME"[..]][..], &[b"CLUSTER", b"SHARDS"], &[b"CLUSTER", b"SLOTS"], &[b"CLUSTER", b"MYID"]] {
            let (ours, theirs) = pair.both(words);
            assert_eq!(kinds(&resp::parse(&ours)), kinds(&resp::parse(&theirs)), "{words:?}");
        }
        let (ours, theirs) = pair.both(&[b"CLUSTER", b"INFO"]);
        assert_eq!(field_names(&resp::parse(&ours).text(), ':'), field_names(&resp::parse(&theirs).text(), ':'));
        let (ours, theirs) = pair.both(&[b"CLUSTER", b"NODES"]);
        let columns = |v: &[u8]| resp::parse(v).text().split_whitespace().count();
        assert_eq!(columns(&ours), columns(&theirs));
    });
}

/// The kinds of values, and the names in maps, at every depth.
fn kinds(v: &Value) -> String {
    match v {
        Value::Line(tag, _) | Value::Bulk(tag, _) => tag.to_string(),
        Value::List(tag, None) => format!("{tag}-"),
        Value::List(tag, Some(items)) => {
            format!("{tag}[{}]", items.iter().map(kinds).collect::<Vec<_>>().join(" "))
        }
        Value::Map(pairs) => {
            format!(
                "%[{}]",
                pairs.iter().map(|(k, v)| format!("{}={}", k.text(), kinds(v))).collect::<Vec<_>>().join(" ")
            )
        }
    }
}

#[test]
fn settings_change_together_or_not_at_all() {
    in_both_protocols(|pair| {
        for line in [
            "CONFIG SET maxmemory 3gb",
            "CONFIG GET maxmemory",
            "CONFIG SET maxmemory 100mb slowlog-max-len -1",
            "CONFIG GET maxmemory",
            "CONFIG SET maxmemory 2gb timeout 0",
            "CONFIG SET maxmemory x",
            "CONFIG SET maxmemory 2gb maxmemory 3gb",
            "CONFIG SET maxmemory 2gb nope 1",
            "CONFIG SET maxmemory 2gb nope",
            "CONFIG SET timeout -1",
            "CONFIG SET timeout x",
            "CONFIG SET maxclients 0",
            "CONFIG SET slowlog-log-slower-than -1",
            "CONFIG GET slowlog-log-slower-than",
            "CONFIG SET slowlog-log-slower-than 10000",
            "CONFIG SET cluster-enabled no",
            "CONFIG GET save",
            "CONFIG GET maxmemory-policy",
            "CONFIG GET proto-max-bulk-len",
            "CONFIG GET appendonly",
            "CONFIG GET nope",
            "CONFIG GET SAVE save",
            "CONFIG RESETSTAT",
            "CONFIG REWRITE",
            "CONFIG SET",
            "CONFIG GET",
        ] {
            pair.line(line);
        }
        // Redis can change it; here it is what it is.
        let refused = pair.ours.send(&[b"CONFIG", b"SET", b"maxmemory-policy", b"noeviction"]);
        assert!(refused.starts_with(b"-ERR CONFIG SET failed"), "{}", refused.escape_ascii());
        assert_eq!(pair.ours.send(&[b"CONFIG", b"SET", b"maxmemory-policy", b"allkeys-lru"]), b"+OK\r\n");
    });
}

#[test]
fn connections_are_listed_and_killed() {
    let mut node = MiniNode::new();
    node.add_client(8, "127.0.0.1:50008");
    node.add_client(9, "127.0.0.1:50009");
    let ids = |reply: &[u8]| {
        let text = resp::parse(reply).text();
        text.lines().map(|l| l.split_once(' ').unwrap().0.to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&node.send(&[b"CLIENT", b"LIST"])), ["id=3", "id=8", "id=9"]);
    assert_eq!(ids(&node.send(&[b"CLIENT", b"LIST", b"ID", b"9", b"3"])), ["id=3", "id=9"]);
    assert_eq!(ids(&node.send(&[b"CLIENT", b"LIST", b"TYPE", b"pubsub"])), [""; 0]);
    assert_eq!(node.send(&[b"CLIENT", b"KILL", b"127.0.0.1:50008"]), b"+OK\r\n");
    assert_eq!(node.send(&[b"CLIENT", b"KILL", b"127.0.0.1:50008"]), b"-ERR No such client\r\n");
    assert_eq!(node.send(&[b"CLIENT", b"KILL", b"TYPE", b"replica"]), b":0\r\n");
    assert_eq!(node.send(&[b"CLIENT", b"KILL", b"TYPE", b"normal"]), b":1\r\n");
    assert_eq!(node.host.killed, [8, 9]);
    assert!(!node.conn.close_after_reply);
    assert_eq!(node.send(&[b"CLIENT", b"KILL", b"ID", b"3", b"SKIPME", b"no"]), b":1\r\n");
    assert!(node.conn.close_after_reply);
}

#[test]
fn a_connection_is_silent_when_asked_and_as_new_after_reset() {
    let mut node = MiniNode::new();
    assert_eq!(node.send(&[b"CLIENT", b"REPLY", b"OFF"]), b"");
    assert_eq!(node.send(&[b"PING"]), b"");
    assert_eq!(node.send(&[b"nope"]), b"");
    assert_eq!(node.send(&[b"CLIENT", b"REPLY", b"ON"]), b"+OK\r\n");
    assert_eq!(node.send(&[b"CLIENT", b"REPLY", b"SKIP"]), b"");
    assert_eq!(node.send(&[b"PING"]), b"");
    assert_eq!(node.send(&[b"PING"]), b"+PONG\r\n");
    node.send(&[b"HELLO", b"3", b"SETNAME", b"joe"]);
    node.send(&[b"CLIENT", b"NO-TOUCH", b"ON"]);
    node.send(&[b"READONLY"]);
    assert_eq!(node.proto(), cachectl::proto::reply::Proto::Resp3);
    assert_eq!(node.send(&[b"RESET"]), b"+RESET\r\n");
    assert_eq!(node.send(&[b"CLIENT", b"GETNAME"]), b"$-1\r\n");
    assert!(!node.conn.no_touch && !node.conn.readonly);
    assert_eq!(node.send(&[b"ASKING"]), b"+OK\r\n");
    assert!(node.conn.asking);
    node.send(&[b"GET", b"k"]);
    assert!(!node.conn.asking, "ASKING is for one command");
    assert_eq!(node.send(&[b"CLIENT", b"SETINFO", b"LIB-NAME", b"redis-py"]), b"+OK\r\n");
    assert!(resp::parse(&node.send(&[b"CLIENT", b"INFO"])).text().contains(" lib-name=redis-py lib-ver="));
    assert!(node.send(&[b"CLIENT", b"SETINFO", b"LIB-NAME", b"a b"]).starts_with(b"-ERR LIB-NAME cannot contain"));
    assert_eq!(node.send(&[b"QUIT"]), b"+OK\r\n");
    assert!(node.conn.close_after_reply);
}

#[test]
fn slow_commands_are_shown_newest_first() {
    let mut node = MiniNode::new();
    node.note_slow(b"GET");
    node.note_slow(b"KEYS");
    let log = resp::parse(&node.send(&[b"SLOWLOG", b"GET", b"1"]));
    let entry = log.items()[0].items();
    assert_eq!((entry[0].int(), entry[1].int(), entry[2].int()), (Some(1), Some(1_700_000_000), Some(12_345)));
    assert_eq!(entry[3].items()[0].bulk(), b"KEYS");
    assert_eq!((entry[4].text(), entry[5].text()), ("127.0.0.1:50000".into(), "joe".into()));
    assert_eq!(node.send(&[b"SLOWLOG", b"LEN"]), b":2\r\n");
    assert_eq!(node.send(&[b"SLOWLOG", b"RESET"]), b"+OK\r\n");
    assert_eq!(node.send(&[b"SLOWLOG", b"GET", b"-1"]), b"*0\r\n");
}
