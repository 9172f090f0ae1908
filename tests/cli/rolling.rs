//! `restart --rolling` of three masters and five nodes under writers: nobody is refused anything, nothing is lost.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cachectl::proto::slot::{SLOTS, Slot};
use cachectl::proto::value::Value;

use crate::common::{Raw, Routed, wait_for};
use crate::sandbox::{Sandbox, runs};

const WRITERS: usize = 8;
/// Between two writes of one writer: two cores carry eight processes and all of them.
const REST: Duration = Duration::from_millis(20);
const NODES: u16 = 5;

/// Sends each write once and follows MOVED once; asks who holds what at first and when it was told MOVED, as real clients do. What
/// certainly was not sent (nobody listens, the connection was closed
/// before) is asked of another node; whatever else is not OK is an error.
struct Writer {
    nodes: Vec<SocketAddr>,
    open: HashMap<SocketAddr, Raw>,
    slots: Vec<SocketAddr>,
}

impl Writer {
    fn new(nodes: &[SocketAddr]) -> Writer {
        Writer { nodes: nodes.to_vec(), open: HashMap::new(), slots: vec![nodes[0]; SLOTS] }
    }

    /// A connection to whoever is thought to have the slot, or to the next one that listens.
    fn connection(&mut self, slot: usize) -> Result<&mut Raw, String> {
        for _ in 0..self.nodes.len() {
            let at = self.slots[slot];
            if self.open.get(&at).is_some_and(Raw::has_ended) {
                self.open.remove(&at);
            }
            if !self.open.contains_key(&at) {
                match Raw::connect(at) {
                    Ok(raw) => drop(self.open.insert(at, raw)),
                    Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
                        let next = self.nodes.iter().position(|n| *n == at).map_or(0, |i| i + 1);
                        self.slots[slot] = self.nodes[next % self.nodes.len()];
                        continue;
                    }
                    Err(e) => return Err(format!("connect: {e}")),
                }
            }
            return Ok(self.open.get_mut(&at).expect("it was opened"));
        }
        Err("no node listens".into())
    }

    /// Who holds what, as this node knows it.
    fn learn(&mut self, from: SocketAddr) {
        let Some(raw) = self.open.get_mut(&from).filter(|r| !r.has_ended()) else { return };
        let Ok(Value::Array(runs)) = raw.call(&[b"CLUSTER", b"SLOTS"]) else { return };
        for r in &runs {
            let Some([Value::Int(first), Value::Int(last), holder, ..]) = r.items() else { continue };
            let Some([host, Value::Int(port), ..]) = holder.items() else { continue };
            let ip = host.bytes().and_then(|b| std::str::from_utf8(b).ok()).and_then(|t| t.parse().ok());
            let Some(ip) = ip else { continue };
            self.slots[*first as usize..=*last as usize].fill(SocketAddr::new(ip, *port as u16));
        }
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let slot = Slot::of_key(key).ix();
        for last in [false, true] {
            match self.connection(slot)?.call(&[b"SET", key, value]) {
                Ok(Value::Simple(s)) if s == "OK" => {
                    if last {
                        self.learn(self.slots[slot]);
                    }
                    return Ok(());
                }
                Ok(Value::Error(e)) if e.starts_with("MOVED ") && !last => {
                    self.slots[slot] = e.rsplit(' ').next().and_then(|a| a.parse().ok()).ok_or(e)?;
                }
                Ok(other) => return Err(format!("{other:?}")),
                Err(e) => return Err(format!("no answer of {}: {:?}", self.slots[slot], e.kind())),
            }
        }
        unreachable!("the second turn always returns")
    }
}

#[test]
#[ignore = "eight processes one by one take a minute or two; `just rolling` runs it"]
fn three_masters_and_five_nodes_restart_and_no_client_notices() {
    let s = Sandbox::new();
    s.up(&["--masters", "3", "--nodes", &NODES.to_string()]).exits(0);
    let nodes: Vec<SocketAddr> = (1..=NODES).map(|n| ([127, 0, 0, 1], s.base + 100 + n).into()).collect();
    let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let begun = Instant::now();
    let writers: Vec<_> = (0..WRITERS)
        .map(|w| {
            let (mut writer, stop, written) = (Writer::new(&nodes), stop.clone(), written.clone());
            std::thread::spawn(move || {
                let (mut acked, mut errors) = (Vec::new(), BTreeMap::<String, u64>::new());
                if writer.connection(0).is_ok() {
                    writer.learn(writer.slots[0]);
                }
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let key = format!("w{w}:{n}");
                    match writer.set(key.as_bytes(), key.as_bytes()) {
                        Ok(()) => acked.push(key),
                        Err(e) => {
                            eprintln!("{:.3} s: {e}", begun.elapsed().as_secs_f64());
                            *errors.entry(e).or_default() += 1;
                        }
                    }
                    written.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(REST);
                }
                (acked, errors)
            })
        })
        .collect();
    wait_for("the writers to be on their way", || (written.load(Ordering::Relaxed) > 500).then_some(()));
    let before = s.pids("demo");
    let began = Instant::now();
    let ran = s.run(&["restart", "--rolling", "-o", "json"]);
    if ran.code != 0 {
        eprintln!("{}", s.run(&["events"]).out);
    }
    let doc = ran.exits(0).json();
    let took = began.elapsed();
    stop.store(true, Ordering::Relaxed);
    let (mut acked, mut errors) = (Vec::new(), BTreeMap::<String, u64>::new());
    for w in writers {
        let (keys, seen) = w.join().unwrap();
        acked.extend(keys);
        seen.into_iter().for_each(|(e, n)| *errors.entry(e).or_default() += n);
    }
    println!(
        "rolling restart of {} processes: {:.2} minutes; {} writes acknowledged, errors {errors:?}",
        before.len(),
        took.as_secs_f64() / 60.0,
        acked.len()
    );
    assert_eq!(doc["processes"].as_array().map(Vec::len), Some(before.len()));
    for (id, old) in &before {
        let (_, new) = s.pids("demo").into_iter().find(|(i, _)| i == id).unwrap();
        assert!(!runs(*old) && runs(new), "{id}");
    }
    assert!(errors.is_empty(), "clients saw errors: {errors:?}");
    let mut reader = Routed::new(nodes);
    let lost = acked.iter().filter(|k| reader.get(k.as_bytes()).as_deref() != Some(k.as_bytes())).count();
    assert_eq!(lost, 0, "of {} acknowledged writes", acked.len());
    let status = s.run(&["status", "-o", "json"]).exits(0).json();
    assert_eq!(status["slots"]["lost_total"], 0, "{status}");
    s.run(&["check"]).exits(0);
}
