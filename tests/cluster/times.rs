//! How long a cluster on loopback takes to get over a fault; figures with `CACHECTL_REPEAT`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::alone;
use super::common::{Cluster, Routed, Wrote, wait_for};
use serde_json::Value as Json;

fn addrs(c: &Cluster, n: u16) -> Vec<std::net::SocketAddr> {
    (1..=n).map(|i| c.node_addr(i)).collect()
}

fn is_ok(s: &Json) -> bool {
    s["state"] == "ok" && s["slots"]["serving"] == 16384
}

/// Writers of unique keys that keep what was acknowledged.
struct Load {
    stop: Arc<AtomicBool>,
    acked: Arc<Mutex<HashMap<String, String>>>,
    threads: Vec<std::thread::JoinHandle<()>>,
    refused: Arc<AtomicU64>,
    unknown: Arc<AtomicU64>,
    /// The last error of each writer, for a failing test's report.
    errors: Arc<Mutex<Vec<String>>>,
}

impl Load {
    fn start(c: &Cluster, nodes: u16, writers: usize) -> Load {
        let mut load = Load {
            stop: Arc::default(),
            acked: Arc::default(),
            threads: Vec::new(),
            refused: Arc::default(),
            unknown: Arc::default(),
            errors: Arc::default(),
        };
        for w in 0..writers {
            let mut client = Routed::new(addrs(c, nodes));
            let (stop, acked) = (load.stop.clone(), load.acked.clone());
            let (refused, unknown, errors) = (load.refused.clone(), load.unknown.clone(), load.errors.clone());
            load.threads.push(std::thread::spawn(move || {
                let mut mine = Vec::new();
                for i in 0u64.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let (key, value) = (format!("w{w}:{i}"), format!("v{w}:{i}"));
                    match client.set(key.as_bytes(), value.as_bytes()) {
                        Wrote::Acknowledged => mine.push((key, value)),
                        Wrote::Refused => {
                            refused.fetch_add(1, Ordering::Relaxed);
                            std::thread::sleep(Duration::from_millis(2));
                        }
                        Wrote::Unknown => {
                            unknown.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
                errors.lock().expect("no writer panicked").extend(client.last_error.take());
                acked.lock().expect("no writer panicked").extend(mine);
            }));
        }
        load
    }

    /// Ends the writers; what was acknowledged.
    fn end(self) -> HashMap<String, String> {
        self.stop.store(true, Ordering::Relaxed);
        for t in self.threads {
            t.join().expect("a writer");
        }
        std::mem::take(&mut *self.acked.lock().expect("no writer panicked"))
    }
}

fn check_all(c: &Cluster, nodes: u16, acked: &HashMap<String, String>) {
    let mut client = Routed::new(addrs(c, nodes));
    let lost: Vec<&String> = acked
        .iter()
        .filter(|(k, v)| client.get(k.as_bytes()).as_deref() != Some(v.as_bytes()))
        .map(|(k, _)| k)
        .collect();
    assert!(
        lost.is_empty(),
        "{} of {} acknowledged writes are gone: {:?}",
        lost.len(),
        acked.len(),
        &lost[..lost.len().min(5)]
    );
}

/// Repetitions: once in CI; `CACHECTL_REPEAT=20` for the figures of the notes.
fn repeat() -> usize {
    std::env::var("CACHECTL_REPEAT").ok().and_then(|n| n.parse().ok()).unwrap_or(1)
}

fn median(all: &mut [Duration]) -> Duration {
    all.sort();
    all[all.len() / 2]
}

/// Until slots all over the ring took a write again: 48 keys, three for each of 16 clients, tried without pause.
fn writable(c: &Cluster, nodes: u16, since: Instant) -> Duration {
    let nodes = addrs(c, nodes);
    std::thread::scope(|scope| {
        for t in 0..16 {
            let mut client = Routed::new(nodes.clone());
            scope.spawn(move || {
                for i in 0..3 {
                    let key = format!("probe{t}:{i}");
                    let mut took = || (client.set(key.as_bytes(), b"x") == Wrote::Acknowledged).then_some(());
                    wait_for("a slot to take writes", &mut took);
                }
            });
        }
    });
    since.elapsed()
}

#[test]
fn a_killed_node_loses_no_acknowledged_write() {
    let _alone = alone();
    let mut times = Vec::new();
    for round in 0..repeat() {
        let c = Cluster::up(&[]);
        let load = Load::start(&c, 3, 200);
        std::thread::sleep(Duration::from_millis(700));
        let victim = format!("n{}", round % 3 + 1);
        c.kill(&victim);
        let killed = Instant::now();
        let took = writable(&c, 3, killed);
        times.push(took);
        std::thread::sleep(Duration::from_millis(300));
        let acked = load.end();
        assert!(!acked.is_empty());
        let s = c.wait_status("ok on the nodes that are left", is_ok);
        let dead = s["nodes"].as_array().unwrap().iter().find(|n| n["id"] == victim.as_str()).unwrap();
        assert_eq!(dead["state"], "dead");
        assert_eq!(s["slots"]["lost_total"], 0);
        check_all(&c, 3, &acked);
        println!("round {round}: killed {victim}, {} acknowledged, writable again after {took:?}", acked.len());
    }
    let worst = times.iter().max().copied().unwrap();
    println!("kill -9 of a node: writable again, median {:?}, worst {worst:?} of {}", median(&mut times), times.len());
}

#[test]
fn a_leaders_death_disturbs_no_client() {
    let _alone = alone();
    let mut times = Vec::new();
    for round in 0..repeat().min(10) {
        let c = Cluster::up(&[]);
        let before = c.wait_status("a leader", |s| s["leader"].is_string());
        let old = before["leader"].as_str().unwrap().to_owned();
        let load = Load::start(&c, 3, 20);
        std::thread::sleep(Duration::from_millis(300));
        c.kill(&old);
        let killed = Instant::now();
        let after = c.wait_status("a new leader", |s| s["leader"].is_string() && s["leader"] != old.as_str());
        times.push(killed.elapsed());
        assert_eq!(after["state"], "degraded", "a master is away");
        let (refused, unknown, errors) = (load.refused.clone(), load.unknown.clone(), load.errors.clone());
        let acked = load.end();
        assert_eq!(
            (refused.load(Ordering::Relaxed), unknown.load(Ordering::Relaxed)),
            (0, 0),
            "client errors: {:?}",
            errors.lock()
        );
        check_all(&c, 3, &acked);
        println!("round {round}: {old} killed, new leader after {:?}", times.last().unwrap());
    }
    println!("kill -9 of the leader: new leader, median {:?} of {}", median(&mut times), times.len());
}

#[test]
fn all_masters_dead_and_the_data_path_goes_on() {
    let _alone = alone();
    let c = Cluster::up(&[]);
    let before = c.wait_status("ok", is_ok);
    for m in ["m1", "m2", "m3"] {
        c.kill(m);
    }
    let away = Duration::from_secs(if repeat() > 1 { 30 } else { 5 });
    let load = Load::start(&c, 3, 20);
    std::thread::sleep(away);
    let (refused, unknown, errors) = (load.refused.clone(), load.unknown.clone(), load.errors.clone());
    let acked = load.end();
    assert!(!acked.is_empty());
    assert_eq!(
        (refused.load(Ordering::Relaxed), unknown.load(Ordering::Relaxed)),
        (0, 0),
        "client errors: {:?}",
        errors.lock()
    );
    check_all(&c, 3, &acked);
    // `up` starts what is missing.
    c.start(&[]);
    let after = c.wait_status("ok", is_ok);
    for (b, a) in before["nodes"].as_array().unwrap().iter().zip(after["nodes"].as_array().unwrap()) {
        assert_eq!(b["incarnation"], a["incarnation"], "nobody was declared dead for it");
        assert_eq!(a["state"], "up");
    }
    check_all(&c, 3, &acked);
}

#[test]
fn a_node_back_at_once_never_serves_its_empty_memory() {
    let _alone = alone();
    for _ in 0..repeat() {
        let c = Cluster::up(&[]);
        let load = Load::start(&c, 3, 20);
        std::thread::sleep(Duration::from_millis(400));
        let acked = load.end();
        let old = c.wait_status("ok", is_ok)["nodes"][1]["incarnation"].clone();
        c.kill("n2");
        // `up` starts it again at once, under its id and from its directory.
        c.start(&[]);
        let s =
            c.wait_status("n2 as a new life, all slots backed", |s| is_ok(s) && s["nodes"][1]["incarnation"] != old);
        assert_eq!(s["slots"]["lost_total"], 0);
        check_all(&c, 3, &acked);
    }
}
