//! What `/metrics` says, read by Prometheus's own parsers, held to promtool's lint, and counted beside a client's own count.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use cachectl::proto::resp::encode_command;
use cachectl::proto::value::{ReplyDecoder, Value};
use serde::Deserialize;

use crate::common::tool::{require, run};
use crate::common::{PATIENCE, wait_for};
use crate::health::{OPEN, Samples, get, scrape};
use crate::sandbox::Sandbox;

const LIMIT: Duration = Duration::from_secs(300);

/// Reads a scrape with the parser of its format; one JSON document of all families.
const READ: &str = "
import json, sys
from prometheus_client import parser, openmetrics
import prometheus_client.openmetrics.parser
read = {'plain': parser, 'open': openmetrics.parser}[sys.argv[1]].text_string_to_metric_families
text = open(sys.argv[2], encoding='utf-8').read()
print(json.dumps([{'name': f.name, 'kind': f.type, 'unit': f.unit, 'help': f.documentation,
    'samples': [[s.name, s.labels, s.value] for s in f.samples]} for f in read(text)]))
";

#[derive(Debug, Deserialize)]
struct Family {
    name: String,
    kind: String,
    unit: String,
    help: String,
    samples: Vec<(String, BTreeMap<String, String>, f64)>,
}

/// Python with prometheus_client importable, which is fetched once if the machine lacks it.
fn python() -> Command {
    let program = require("python3", "apt-get install python3 python3-pip");
    let target: PathBuf = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../ci/python");
    let command = || {
        let mut command = Command::new(&program);
        let given = std::env::var_os("PYTHONPATH").unwrap_or_default();
        let path = std::iter::once(target.clone()).chain(std::env::split_paths(&given));
        command.env("PYTHONPATH", std::env::join_paths(path).unwrap());
        command
    };
    if !run(command().args(["-c", "import prometheus_client"]), LIMIT).status.success() {
        let mut pip = command();
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"]);
        run(pip.arg(&target).arg("prometheus_client>=0.20,<1"), LIMIT)
            .expect_success("fetching prometheus_client (by hand: python3 -m pip install prometheus_client)");
    }
    command()
}

fn families(s: &Sandbox, format: &str, text: &str) -> Vec<Family> {
    let file = s.dir.path().join("scrape.txt");
    std::fs::write(&file, text).unwrap();
    let done = run(python().args(["-c", READ, format]).arg(&file), LIMIT).expect_success("prometheus_client");
    serde_json::from_str(&done.stdout).unwrap_or_else(|e| panic!("{e}: {}", done.stdout))
}

/// What `promtool check metrics` would say.
fn lint(all: &[Family]) -> Vec<String> {
    /// Units that a name may not be in, with the base unit instead.
    const ODD: &[&str] = &[
        "milliseconds",
        "microseconds",
        "nanoseconds",
        "minutes",
        "hours",
        "days",
        "kilobytes",
        "megabytes",
        "kibibytes",
        "mebibytes",
        "bits",
        "percent",
        "celsius_degrees",
    ];
    const SHORT: &[&str] = &["s", "ms", "us", "ns", "sec", "b", "kb", "mb", "gb", "m", "h", "d"];
    const KINDS: &[&str] = &["counter", "gauge", "histogram", "summary", "untyped"];
    let mut said = Vec::new();
    let mut names = BTreeSet::new();
    for f in all {
        let mut say = |what: &str| said.push(format!("{}: {what}", f.name));
        if !names.insert(&f.name) {
            say("twice");
        }
        if f.help.trim().is_empty() {
            say("no help");
        }
        if f.samples.is_empty() {
            continue;
        }
        let words: Vec<&str> = f.name.split('_').collect();
        if words.iter().any(|w| ODD.contains(w)) {
            say("not in a base unit");
        }
        if words.iter().any(|w| SHORT.contains(w)) {
            say("a unit is abbreviated");
        }
        if words.iter().any(|w| KINDS.contains(w)) {
            say("its kind is in its name");
        }
        if f.name.bytes().any(|b| b.is_ascii_uppercase() || b == b':') {
            say("camel case or a colon");
        }
        if !f.unit.is_empty() && !f.name.ends_with(&format!("_{}", f.unit)) {
            say("its unit is not the last word");
        }
        match f.kind.as_str() {
            // The parsers take `_total` off a counter's name.
            "counter" if !f.samples.iter().all(|(n, _, v)| n.ends_with("_total") && *v >= 0.0) => say("no _total"),
            "gauge" if ["_total", "_count", "_sum", "_bucket"].iter().any(|e| f.name.ends_with(e)) => {
                say("a reserved end")
            }
            "counter" | "gauge" | "histogram" => {}
            _ => say("of no kind"),
        }
        for (_, labels, _) in &f.samples {
            if f.kind != "histogram" && labels.contains_key("le") || labels.contains_key("quantile") {
                say("a reserved label");
            }
            if labels.keys().any(|l| l.bytes().any(|b| b.is_ascii_uppercase())) {
                say("a label in camel case");
            }
        }
    }
    said
}

#[test]
fn prometheus_reads_every_scrape_and_its_lint_is_clean() {
    let s = Sandbox::new();
    s.up(&["--masters", "3", "--nodes", "2"]).exits(0);
    for i in 0..20 {
        s.run(&["set", &format!("k{i}"), "v"]).exits(0);
    }
    s.run(&["get", "none"]).exits(1);
    for port in [s.base + 1, s.base + 2, s.base + 10_101, s.base + 10_102] {
        let open = families(&s, "open", &get(port, "/metrics", OPEN).1);
        let plain = families(&s, "plain", &get(port, "/metrics", "text/plain").1);
        assert!(open.len() > 10, "{port}: {open:?}");
        let clean: [String; 0] = [];
        assert_eq!(lint(&open), clean, "{port}");
        assert_eq!(lint(&plain), clean, "{port}");
        // Both formats say the same, family by family.
        let shape = |all: &[Family]| -> BTreeMap<String, (String, usize)> {
            all.iter().map(|f| (f.name.clone(), (f.kind.clone(), f.samples.len()))).collect()
        };
        let (open, plain) = (shape(&open), shape(&plain));
        for (name, (kind, _)) in &open {
            assert_eq!(plain.get(name).map(|(k, _)| k), Some(kind), "{port}: {name}");
        }
    }
    // The lint sees what is wrong.
    let bad = "# HELP x_ms A time.\n# TYPE x_ms gauge\nx_ms 1\n# TYPE y_gauge gauge\ny_gauge 1\n";
    let said = lint(&families(&s, "plain", bad)).join("; ");
    for part in ["x_ms: a unit is abbreviated", "y_gauge: no help", "y_gauge: its kind"] {
        assert!(said.contains(part), "{said}");
    }
}

/// A client that counts for itself.
#[derive(Default)]
struct Count {
    sent: u64,
    received: u64,
    commands: BTreeMap<String, u64>,
    failed: BTreeMap<String, u64>,
    errors: BTreeMap<String, u64>,
    hits: u64,
    misses: u64,
    connections: u64,
}

struct Counted {
    stream: TcpStream,
    decoder: ReplyDecoder,
    buf: Vec<u8>,
}

impl Counted {
    fn connect(count: &mut Count, port: u16) -> Counted {
        let stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        count.connections += 1;
        Counted { stream, decoder: ReplyDecoder::new(), buf: Vec::new() }
    }

    fn call(&mut self, count: &mut Count, args: &[&[u8]]) -> Value {
        let name = String::from_utf8(args[0].to_ascii_lowercase()).unwrap();
        let bytes = encode_command(args);
        self.stream.write_all(&bytes).unwrap();
        count.sent += bytes.len() as u64;
        let value = loop {
            let (used, value) = self.decoder.next(&self.buf).unwrap();
            self.buf.drain(..used);
            if let Some(v) = value {
                break v;
            }
            let mut part = [0; 16 << 10];
            let n = self.stream.read(&mut part).unwrap();
            assert!(n > 0, "{name}: the connection ended");
            count.received += n as u64;
            self.buf.extend_from_slice(&part[..n]);
        };
        match &value {
            Value::Error(e) => {
                *count.errors.entry(e.split(' ').next().unwrap().into()).or_default() += 1;
                if !e.contains("unknown command") {
                    *count.failed.entry(name.clone()).or_default() += 1;
                    *count.commands.entry(name).or_default() += 1;
                }
            }
            v => {
                *count.commands.entry(name.clone()).or_default() += 1;
                if name == "get" {
                    *(if *v == Value::Null { &mut count.misses } else { &mut count.hits }) += 1;
                }
            }
        }
        value
    }
}

/// Requests for commands that there are not.
const UNKNOWN: u64 = 5;

/// Counters that no client can count, each with its reason.
const UNCOUNTED: &[(&str, &str)] = &[("process_cpu_seconds_total", "the kernel's")];

#[test]
fn every_counter_of_a_node_is_the_clients_own_count() {
    let s = Sandbox::new();
    s.up(&["--nodes", "1", "--masters", "1", "--memory", "2mb", "--eviction", "sieve"]).exits(0);
    let (client, peer) = (s.base + 101, s.base + 10_101);
    let before = scrape(peer);
    let mut count = Count::default();
    let mut conns: Vec<Counted> = (0..3).map(|_| Counted::connect(&mut count, client)).collect();
    let c = &mut count;
    for i in 0..300 {
        conns[i % 3].call(c, &[b"SET", format!("k{i}").as_bytes(), b"not a number"]);
    }
    for i in 0..450 {
        conns[i % 3].call(c, &[b"GET", format!("k{i}").as_bytes()]);
    }
    for i in 0..7 {
        assert!(matches!(conns[0].call(c, &[b"INCR", format!("k{i}").as_bytes()]), Value::Error(_)));
    }
    for _ in 0..UNKNOWN {
        assert!(matches!(conns[1].call(c, &[b"NOSUCH", b"x"]), Value::Error(_)));
    }
    assert!(matches!(conns[1].call(c, &[b"SET", b"k1", b"v", b"NX", b"XX"]), Value::Error(_)));
    assert_eq!(conns[2].call(c, &[b"DEL", b"k299"]), Value::Int(1));
    const BRIEF: u64 = 6;
    for i in 0..BRIEF {
        conns[0].call(c, &[b"SET", format!("brief{i}").as_bytes(), b"v", b"PX", b"20"]);
    }
    for i in 0..BRIEF {
        let key = format!("brief{i}");
        wait_for("a key to expire", || (conns[0].call(c, &[b"GET", key.as_bytes()]) == Value::Null).then_some(()));
    }
    // More than fits: what is not there any more was evicted.
    let value = vec![b'x'; 8000];
    const BIG: u64 = 600;
    for i in 0..BIG {
        let answer = conns[1].call(c, &[b"SET", format!("big{i}").as_bytes(), &value]);
        assert_eq!(answer, Value::Simple("OK".into()));
    }
    let Value::Int(held) = conns[2].call(c, &[b"DBSIZE"]) else { panic!("DBSIZE is a number") };
    let evicted = (300 - 1 + BIG) - held as u64;
    assert!(evicted > BIG / 4, "{held} keys fit");

    let rose = |after: &Samples, name: &str| {
        after.get(name).copied().unwrap_or(0.0) - before.get(name).copied().unwrap_or(0.0)
    };
    // A turn is accounted for when its replies are out. What is no command took its time too.
    let calls: u64 = count.commands.values().sum::<u64>() + UNKNOWN;
    let classes = |after: &Samples| -> f64 {
        let all = after.keys().filter(|k| k.starts_with("cachectl_command_duration_seconds_count"));
        all.map(|k| rose(after, k)).sum()
    };
    let after = wait_for("the last turn's account", || {
        let after = scrape(peer);
        (classes(&after) >= calls as f64
            && rose(&after, "cachectl_network_transmit_bytes_total") >= count.received as f64)
            .then_some(after)
    });
    assert_eq!(classes(&after), calls as f64, "each request is in one histogram");

    let mut expected: BTreeMap<String, u64> = BTreeMap::new();
    for (name, of, label) in [
        ("cachectl_commands_total", &count.commands, "command"),
        ("cachectl_failed_commands_total", &count.failed, "command"),
        ("cachectl_error_replies_total", &count.errors, "code"),
    ] {
        expected.extend(of.iter().map(|(value, n)| (format!("{name}{{{label}=\"{value}\"}}"), *n)));
    }
    for (name, n) in [
        ("cachectl_keyspace_hits_total", count.hits),
        ("cachectl_keyspace_misses_total", count.misses),
        ("cachectl_expired_keys_total", BRIEF),
        ("cachectl_evicted_keys_total", evicted),
        ("cachectl_connections_total", count.connections),
        ("cachectl_rejected_connections_total", 0),
        ("cachectl_network_receive_bytes_total", count.sent),
        ("cachectl_network_transmit_bytes_total", count.received),
    ] {
        expected.insert(name.to_owned(), n);
    }
    for (name, n) in &expected {
        assert_eq!(rose(&after, name), *n as f64, "{name}");
    }
    // No counter rose that is not one of these.
    for name in after.keys().filter(|k| k.split('{').next().is_some_and(|n| n.ends_with("_total"))) {
        let known = expected.contains_key(name) || UNCOUNTED.iter().any(|(n, _)| n == name);
        assert!(known || rose(&after, name) == 0.0, "{name} rose by {}, and no client counts it", rose(&after, name));
    }
    assert_eq!(after["cachectl_keys{role=\"primary\"}"], held as f64);
    let Value::Array(policy) = conns[0].call(&mut count, &[b"CONFIG", b"GET", b"maxmemory-policy"]) else { panic!() };
    assert_eq!(policy[1], Value::Bulk(b"allkeys-sieve".to_vec()));

    // One too many.
    conns[0].call(&mut count, &[b"CONFIG", b"SET", b"maxclients", b"3"]);
    let mut refused = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], client))).unwrap();
    refused.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut said = String::new();
    refused.read_to_string(&mut said).unwrap();
    assert!(said.contains("max number of clients"), "{said}");
    assert_eq!(rose(&scrape(peer), "cachectl_rejected_connections_total"), 1.0);
}
