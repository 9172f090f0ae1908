//! `cachectl bench`: its counts are the servers' counts, its checks find what is planted, its open loop sees a stall.

use std::net::TcpListener;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use cachectl::cli::bench::report::Report;
use cachectl::proto::slot::Slot;

use crate::common::{Raw, signal, wait_for};
use crate::fake_cache::{FakeCache, bulk, truth};
use crate::sandbox::{Ran, Sandbox};

fn report(ran: &Ran) -> Report {
    serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{e}: {}\n{}", ran.out, ran.err))
}

fn bench(s: &Sandbox, fake: &FakeCache, more: &[&str]) -> Ran {
    let addr = fake.addr.to_string();
    let mut all = vec!["bench", "-o", "json", "--addr", &addr];
    all.extend_from_slice(more);
    s.run(&all)
}

/// Calls of a command as a node counts them.
fn calls(node: std::net::SocketAddr, command: &str) -> u64 {
    let reply = Raw::connect(node).unwrap().call(&[b"INFO", b"commandstats"]).unwrap();
    let text = String::from_utf8(reply.bytes().unwrap().to_vec()).unwrap();
    let line = text.lines().find_map(|l| l.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.map_or(0, |l| l.split(',').next().unwrap().parse().unwrap())
}

#[test]
fn a_clusters_counts_are_the_generators() {
    let s = Sandbox::new();
    s.up(&["--nodes", "3", "--masters", "1"]).exits(0);
    let load = ["--keys", "2000", "--clients", "6", "--pipeline", "4", "--load", "--verify"];
    let mut args = vec!["bench", "-o", "json", "--requests", "20000", "--distribution", "zipf:0.9", "--threads", "2"];
    args.extend(load);
    let ran = s.run(&args).exits(0);
    let r = report(&ran);
    assert_eq!((r.schema, r.kind.as_str(), r.ops, r.errors_total), (1, "bench", 20_000, 0), "{:?}", r.errors);
    assert!(r.target.cluster && r.target.server.starts_with("cachectl "), "{:?}", r.target);
    assert_eq!(r.get.ops + r.set.ops, r.ops);
    assert_eq!((r.hits, r.misses), (r.get.ops, 0), "every key was loaded");
    assert_eq!(r.load.as_ref().map(|l| (l.ops, l.errors)), Some((2000, 0)));
    assert_eq!(r.nodes.len(), 3);
    assert_eq!(r.nodes.iter().map(|n| n.ops).sum::<u64>(), r.ops);
    assert!(r.nodes.iter().all(|n| n.ops > 1000 && n.p99_us.is_some()), "{:?}", r.nodes);
    let verify = r.verify.as_ref().unwrap();
    assert!(verify.is_clean(), "{verify:?}");
    assert_eq!(verify.checked, r.get.ops + 2000, "each read, and each key once more");
    assert_eq!(r.servers.as_ref().map(|s| s.pids.len()), Some(3));
    assert!(r.generator.cpu_s > 0.0);
    // The nodes' own counts, of all that was sent.
    let sum = |c: &str| (1..=3).map(|n| calls(([127, 0, 0, 1], s.base + 100 + n).into(), c)).sum::<u64>();
    assert_eq!(r.follows, 0, "no slot moved");
    assert_eq!((sum("set"), sum("get")), (2000 + r.set.ops, r.get.ops + 2000));

    // Two results side by side, and as a table.
    let (a, b) = (s.dir.path().join("a.json"), s.dir.path().join("b.json"));
    std::fs::write(&a, &ran.out).unwrap();
    let slower = Report { ops_per_s: r.ops_per_s / 2.0, ..r.clone() };
    std::fs::write(&b, serde_json::to_vec(&slower).unwrap()).unwrap();
    let (a, b) = (a.to_str().unwrap(), b.to_str().unwrap());
    let doc = s.run(&["bench", "compare", a, b, "-o", "json"]).exits(0).json();
    let figure = &doc["figures"][0];
    assert_eq!(figure["figure"], "ops/s");
    assert!((figure["ratio"].as_f64().unwrap() - 0.5).abs() < 1e-9, "{doc}");
    assert_eq!(doc["differ"].as_array().map(Vec::len), Some(0));
    let table = s.run(&["bench", "compare", a, b]).exits(0).out;
    assert!(table.contains("0.50×"), "{table}");
    s.run(&["bench", "compare", a, "/nonexistent"]).exits(1);

    let table = s.run(&["bench", "--requests", "500", "--keys", "100"]).exits(0).out;
    assert!(table.contains("P99.9") && table.contains("CPU s per M ops"), "{table}");
}

#[test]
fn a_write_that_is_forgotten_is_found() {
    let forgotten = AtomicBool::new(false);
    // After a hundred writes one key is dropped, once.
    let fake = FakeCache::start(move |store, args| {
        let answer = truth(store, args);
        if store.sets > 100 && args[0] == b"GET" && !forgotten.swap(true, Ordering::Relaxed) {
            store.keys.remove(&args[1]);
        }
        Some(answer)
    });
    let s = Sandbox::new();
    let ran =
        bench(&s, &fake, &["--verify", "--load", "--keys", "200", "--requests", "2000", "--ratio", "0:1"]).exits(3);
    let v = report(&ran).verify.unwrap();
    assert_eq!((v.lost, v.stale, v.corrupt), (1, 0, 0), "{v:?}");
    assert!(v.examples[0].contains("acknowledged write is gone"), "{v:?}");
}

#[test]
fn a_stale_read_and_a_wrong_value_are_found() {
    let reads = AtomicU64::new(0);
    let fake = FakeCache::start(move |store, args| {
        if args[0] != b"GET" {
            return None;
        }
        // The fiftieth read says that there is no such key, the hundredth shows another key's value.
        match reads.fetch_add(1, Ordering::Relaxed) {
            50 => Some(b"$-1\r\n".to_vec()),
            100 => store.keys.iter().find(|(k, _)| **k != args[1]).map(|(_, v)| bulk(v)),
            _ => None,
        }
    });
    let s = Sandbox::new();
    let ran = bench(&s, &fake, &["--verify", "--load", "--keys", "200", "--requests", "2000"]).exits(3);
    let v = report(&ran).verify.unwrap();
    assert_eq!((v.lost, v.stale, v.corrupt), (0, 1, 1), "{v:?}");
}

#[test]
fn an_honest_cache_is_believed() {
    let fake = FakeCache::start(|_, _| None);
    let s = Sandbox::new();
    let ran =
        bench(&s, &fake, &["--verify", "--keys", "50", "--requests", "5000", "--size", "32-200", "--threads", "2"]);
    let r = report(&ran.exits(0));
    assert!(r.misses > 0, "nothing was loaded");
    let store = fake.store.lock().unwrap();
    assert_eq!(store.sets, r.set.ops);
    let v = r.verify.unwrap();
    assert_eq!((v.checked, store.gets), (store.gets, r.get.ops + store.keys.len() as u64));
}

#[test]
fn a_moved_key_is_followed_once_and_is_no_error() {
    // Two nodes; the first says it has all slots, and the second has the odd ones.
    let (first, second) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let (port, there) = (first.local_addr().unwrap().port(), second.local_addr().unwrap());
    let odd = |key: &[u8]| Slot::of_key(key).0 % 2 == 1;
    let a = FakeCache::on(first, move |_, args| match args[0].as_slice() {
        b"INFO" => Some(bulk(b"redis_version:7.0.0\r\ncluster_enabled:1\r\n")),
        b"CLUSTER" => Some(format!("*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$0\r\n\r\n:{port}\r\n").into_bytes()),
        _ if odd(&args[1]) => Some(format!("-MOVED {} {there}\r\n", Slot::of_key(&args[1])).into_bytes()),
        _ => None,
    });
    let b = FakeCache::on(second, move |_, args| (!odd(&args[1])).then(|| b"-ERR not mine\r\n".to_vec()));
    let s = Sandbox::new();
    let r = report(&bench(&s, &a, &["--keys", "500", "--requests", "5000", "--load", "--clients", "4"]).exits(0));
    assert_eq!((r.ops, r.errors_total), (5000, 0), "{:?}", r.errors);
    assert_eq!(r.nodes.len(), 2);
    let (a, b) = (a.store.lock().unwrap(), b.store.lock().unwrap());
    assert_eq!(a.sets + b.sets, r.set.ops + 500);
    assert!(b.gets > 0 && a.gets > 0, "{} {}", a.gets, b.gets);
}

#[test]
fn a_key_that_is_sent_around_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let me = listener.local_addr().unwrap();
    let fake = FakeCache::on(listener, move |_, args| match args[0].as_slice() {
        b"INFO" => Some(bulk(b"cluster_enabled:1\r\n")),
        b"CLUSTER" => Some(format!("*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$0\r\n\r\n:{}\r\n", me.port()).into_bytes()),
        b"GET" => Some(format!("-MOVED 5 {me}\r\n").into_bytes()),
        _ => None,
    });
    let s = Sandbox::new();
    let r = report(&bench(&s, &fake, &["--requests", "1100", "--keys", "10", "--clients", "2"]).exits(0));
    assert_eq!(r.errors.get("MOVED").copied(), Some(1100 - r.set.ops), "{:?}", r.errors);
    assert_eq!((r.follows, r.get.ops), (1100 - r.set.ops, 0));
}

#[test]
fn an_open_loop_sees_a_stall_in_all_it_should_have_sent() {
    const STALL: Duration = Duration::from_millis(1000);
    let (asked, stalled) = (AtomicU64::new(0), AtomicBool::new(false));
    let fake = FakeCache::start(move |_, args| {
        if args[0] == b"GET" && asked.fetch_add(1, Ordering::Relaxed) == 500 && !stalled.swap(true, Ordering::Relaxed) {
            // Under the store's lock: everybody waits.
            std::thread::sleep(STALL);
        }
        None
    });
    let s = Sandbox::new();
    let args = ["--rate", "1000", "--requests", "3000", "--ratio", "0:1", "--keys", "10", "--clients", "2"];
    let r = report(&bench(&s, &fake, &args).exits(0));
    assert_eq!((r.ops, r.errors_total), (3000, 0), "{:?}", r.errors);
    // A thousand of three thousand were due while it slept: at least a third waited, evenly up to the whole stall. With two
    // connections a generator that waits for answers would have seen two slow ones.
    let at = |q: Option<f64>| q.unwrap() / 1000.0;
    assert!(at(r.all.p90_us) >= 650.0, "{:?}", r.all);
    assert!(at(r.all.max_us) >= 990.0, "{:?}", r.all);
    assert!(r.seconds >= 2.9, "{}", r.seconds);
}

/// The same with a real server and a real stall: all its threads stand still. What waits for answers hardly notices.
#[test]
fn a_stopped_server_shows_in_the_tail_of_an_open_loop_alone() {
    const STALL: Duration = Duration::from_secs(2);
    const BEFORE: u64 = 500;
    let s = Sandbox::new();
    let (listen, peer) = (format!("127.0.0.1:{}", s.base + 101), format!("127.0.0.1:{}", s.base + 10_101));
    let data = s.dir.path().join("n1");
    let words = ["node", "--standalone", "--listen", &listen, "--peer-listen", &peer, "--data", data.to_str().unwrap()];
    let mut server = s.command(&words).stderr(Stdio::null()).spawn().unwrap();
    let pid = server.id() as i32;
    let addr = listen.parse().unwrap();
    wait_for("the server", || Raw::connect(addr).ok());
    let stalled = |rate: &[&str]| {
        let before = calls(addr, "get");
        let words = ["bench", "-o", "json", "--addr", &listen, "--clients", "2", "--ratio", "0:1", "--keys", "10"];
        let child =
            s.command(&[&words[..], rate].concat()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        wait_for("the load to be on its way", || (calls(addr, "get") >= before + BEFORE).then_some(()));
        signal(pid, rustix::process::Signal::STOP);
        std::thread::sleep(STALL);
        signal(pid, rustix::process::Signal::CONT);
        let ran: Ran = child.wait_with_output().unwrap().into();
        report(&ran.exits(0))
    };
    // Of 8000 operations 2000 were due while it stood still.
    let open = stalled(&["--rate", "1000", "--requests", "8000"]);
    assert_eq!((open.ops, open.errors_total), (8000, 0), "{:?}", open.errors);
    // Two connections: two operations waited, of tens of thousands.
    let closed = stalled(&["--duration", "10s"]);
    assert_eq!(closed.errors_total, 0, "{:?}", closed.errors);
    assert!(closed.ops > 4000, "{}", closed.ops);
    let s_of = |q: Option<f64>| q.unwrap() / 1e6;
    let stall = STALL.as_secs_f64();
    println!(
        "SIGSTOP {stall} s: open loop p90 {:.3} s, p99.9 {:.3} s, max {:.3} s; closed loop p99.9 {:.6} s, max {:.3} s",
        s_of(open.all.p90_us),
        s_of(open.all.p99_9_us),
        s_of(open.all.max_us),
        s_of(closed.all.p99_9_us),
        s_of(closed.all.max_us)
    );
    assert!(s_of(open.all.p99_9_us) >= stall * 0.97, "{:?}", open.all);
    assert!(s_of(open.all.p90_us) >= stall * 0.5, "{:?}", open.all);
    assert!(s_of(closed.all.max_us) >= stall * 0.97, "{:?}", closed.all);
    assert!(s_of(closed.all.p99_9_us) < stall * 0.5, "{:?}", closed.all);
    server.kill().unwrap();
    server.wait().unwrap();
}

#[test]
fn what_can_not_be_measured_is_said() {
    let s = Sandbox::new();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let e = s.run(&["bench", "--addr", &nobody, "-o", "json"]).exits(3).error();
    assert_eq!(e.0, "UNREACHABLE");
    let e = s.run(&["bench", "--addr", &nobody, "--verify", "--size", "8", "-o", "json"]).exits(2).error();
    assert!(e.1.contains("--verify"), "{e:?}");
    s.run(&["bench", "--ratio", "0:0"]).exits(2);
    s.run(&["bench"]).exits(1);
    let fake = FakeCache::start(|_, args| (args[0] != b"INFO").then(|| b"-NOAUTH log in first\r\n".to_vec()));
    let ran = bench(&s, &fake, &["--requests", "10"]).exits(1);
    assert!(ran.err.contains("NOAUTH"), "{}", ran.err);
}
