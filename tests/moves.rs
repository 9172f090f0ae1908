//! Scale-out and scale-in on real processes under load: no client error, nothing lost, exactly the planned slots moved; and
//! deaths in the middle of it.

mod common;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use cachectl::proto::control::{Empty, Message, OperationId};
use cachectl::proto::id::NodeId;
use cachectl::proto::net::client::{MasterClient, Repeat, Waits};
use cachectl::proto::operation::{Accepted, Apply, OperationKind, PlanView, Wish};
use cachectl::proto::value::Value;
use common::{CACHECTL, Cluster, Once as Client, PATIENCE, wait_for};
use serde_json::Value as Json;

/// One cluster under load at a time: two cores carry no more, and a fault test must not be another's fault.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> std::sync::MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Between two commands of a client: this is about errors, not speed, and the cluster needs the processors too.
const PACE: Duration = Duration::from_millis(4);

/// A node that the test starts itself; ends with it.
struct Extra(Child);

impl Extra {
    fn start(c: &Cluster, n: u16, flags: &[&str]) -> Extra {
        let (id, listen) = (format!("n{n}"), c.node_addr(n).to_string());
        let masters: Vec<String> = (1..=3).map(|m| format!("127.0.0.1:{}", c.base + m)).collect();
        let data = c.dir.path().join(&id);
        let log = std::fs::File::create(c.dir.path().join(format!("{id}.log"))).expect("a log file");
        let child = Command::new(CACHECTL)
            .args(["node", "--id", &id, "--listen", &listen, "--masters-addr", &masters.join(",")])
            .args(["--data", &data.to_string_lossy(), "--memory", "256MB"])
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("cachectl runs");
        Extra(child)
    }

    fn signal(&self, signal: rustix::process::Signal) {
        common::signal(self.0.id() as i32, signal);
    }

    /// Waits until the process ended by itself.
    fn ended(mut self) -> std::process::ExitStatus {
        wait_for("a node's end", || self.0.try_wait().expect("a child"))
    }
}

impl Drop for Extra {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What asks the masters: all there may be, of which the first three are always there.
fn masters_of(c: &Cluster) -> (tokio::runtime::Runtime, MasterClient) {
    let masters = (1..=5).map(|m| format!("127.0.0.1:{}", c.base + m));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    (runtime, MasterClient::new("test", masters, Waits::default()))
}

/// Asks the masters.
fn ask(c: &Cluster, message: &Message) -> Result<Message, String> {
    let (runtime, mut client) = masters_of(c);
    match runtime.block_on(client.request(message, Repeat::Unsafe)) {
        Ok(m) => Ok(m),
        Err(cachectl::proto::net::client::ClientError::Refused(f)) => Err(f.code),
        Err(e) => panic!("{e}"),
    }
}

fn wish(kind: OperationKind, nodes: &[&str]) -> Wish {
    let nodes = nodes.iter().map(|n| NodeId::new(n).expect("a name")).collect();
    Wish { kind, nodes, force: false, accept_data_loss: false }
}

fn plan(c: &Cluster, wish: &Wish) -> PlanView {
    match ask(c, &Message::Plan(wish.clone())) {
        Ok(Message::Planned(plan)) => *plan,
        other => panic!("PLAN: {other:?}"),
    }
}

fn apply(c: &Cluster, plan: &PlanView) -> Accepted {
    let apply =
        Apply { wish: plan.wish.clone(), epoch: Some(plan.epoch), moves_digest: Some(plan.moves_digest.clone()) };
    match ask(c, &Message::Apply(apply)) {
        Ok(Message::Accepted(a)) => *a,
        other => panic!("APPLY: {other:?}"),
    }
}

fn addrs(c: &Cluster) -> Vec<SocketAddr> {
    (1..=6).map(|i| c.node_addr(i)).collect()
}

/// Connections of one client that keep what was acknowledged. MOVED is followed once; every other error counts.
struct Load {
    stop: Arc<AtomicBool>,
    acked: Arc<Mutex<HashMap<String, String>>>,
    threads: Vec<JoinHandle<()>>,
    done: Arc<AtomicU64>,
    errors: Arc<Mutex<Vec<String>>>,
}

impl Load {
    fn start(c: &Cluster, writers: usize) -> Load {
        let mut load = Load {
            stop: Arc::default(),
            acked: Arc::default(),
            threads: Vec::new(),
            done: Arc::default(),
            errors: Arc::default(),
        };
        let all = Client::new(addrs(c));
        for w in 0..writers {
            let mut client = all.another();
            let (stop, acked) = (load.stop.clone(), load.acked.clone());
            let (done, errors) = (load.done.clone(), load.errors.clone());
            load.threads.push(std::thread::spawn(move || {
                let mut mine = HashMap::new();
                for i in 0u64.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    // Keys are written again and again, and read back now and then.
                    let (key, value) = (format!("w{w}:{}", i % 2000), format!("v{w}:{i}"));
                    match client.call(key.as_bytes(), &[b"SET", key.as_bytes(), value.as_bytes()]) {
                        Ok(_) => drop(mine.insert(key.clone(), value)),
                        Err(e) => errors.lock().expect("no poison").push(format!("SET {key}: {e}")),
                    }
                    if i % 4 == 3
                        && let Some(want) = mine.get(&key)
                    {
                        match client.call(key.as_bytes(), &[b"GET", key.as_bytes()]) {
                            Ok(Value::Bulk(got)) if &got[..] == want.as_bytes() => {}
                            other => {
                                errors.lock().expect("no poison").push(format!("GET {key}: {other:?}, not {want}"))
                            }
                        }
                    }
                    // As an application's one client does: who was sent on asks where everything is, for all.
                    if let Some(Err(e)) = client.moved.take().map(|to| client.map(to)) {
                        errors.lock().expect("no poison").push(format!("CLUSTER SLOTS: {e}"));
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(PACE);
                }
                acked.lock().expect("no poison").extend(mine);
            }));
        }
        load
    }

    /// Waits for so many more commands: time passes by work done, not by the clock.
    fn pass(&self, commands: u64) {
        let from = self.done.load(Ordering::Relaxed);
        wait_for("commands", || (self.done.load(Ordering::Relaxed) >= from + commands).then_some(()));
    }

    /// Ends the writers; what was acknowledged, and the errors they met.
    fn end(self) -> (HashMap<String, String>, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        for t in self.threads {
            t.join().expect("a writer");
        }
        let acked = std::mem::take(&mut *self.acked.lock().expect("no poison"));
        let errors = std::mem::take(&mut *self.errors.lock().expect("no poison"));
        (acked, errors)
    }
}

fn check_all(c: &Cluster, acked: &HashMap<String, String>) {
    let mut client = Client::new(addrs(c));
    let mut lost = Vec::new();
    for (key, value) in acked {
        match client.call(key.as_bytes(), &[b"GET", key.as_bytes()]) {
            Ok(Value::Bulk(got)) if &got[..] == value.as_bytes() => {}
            other => lost.push(format!("{key}: {other:?}, not {value}")),
        }
    }
    assert!(lost.is_empty(), "{} of {} are wrong: {:?}", lost.len(), acked.len(), &lost[..lost.len().min(5)]);
}

/// Waits for a status for which `f` holds; asked for on one connection, for a process each time would be a load of its own.
fn wait(c: &Cluster, what: &str, f: impl Fn(&Json) -> bool) -> Json {
    let (runtime, mut client) = masters_of(c);
    let mut last = Json::Null;
    let end = std::time::Instant::now() + PATIENCE * 3;
    while std::time::Instant::now() < end {
        if let Ok(Message::StatusView(view)) =
            runtime.block_on(client.request(&Message::StatusRequest(Empty {}), Repeat::Safe))
        {
            last = serde_json::to_value(view.status).expect("JSON");
            if f(&last) {
                return last;
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let events = common::text(&c.run(&["events"]).stdout);
    panic!("gave up waiting for {what}; last status: {last:#}\n{events}");
}

fn state_of(s: &Json, id: &str) -> String {
    let node = s["nodes"].as_array().into_iter().flatten().find(|n| n["id"] == id);
    node.and_then(|n| n["state"].as_str()).unwrap_or_default().to_owned()
}

fn operation(s: &Json, id: u64) -> Json {
    s["operations"].as_array().into_iter().flatten().find(|o| o["id"] == id).cloned().unwrap_or_default()
}

fn is_ok(s: &Json) -> bool {
    s["state"] == "ok" && s["slots"]["serving"] == 16384
}

fn idle(s: &Json) -> bool {
    let open = |o: &Json| ["planned", "running", "paused"].contains(&o["state"].as_str().unwrap_or_default());
    is_ok(s) && !s["operations"].as_array().into_iter().flatten().any(open)
}

/// Primary slots of the nodes that are up, most and fewest.
fn spread(s: &Json) -> (u64, u64) {
    let up = s["nodes"].as_array().into_iter().flatten().filter(|n| n["state"] == "up");
    let led: Vec<u64> = up.filter_map(|n| n["primary_slots"].as_u64()).collect();
    (led.iter().copied().max().unwrap_or(0), led.iter().copied().min().unwrap_or(0))
}

/// Begins an operation as planned and waits for its end.
fn run(c: &Cluster, wish: &Wish) -> PlanView {
    let plan = plan(c, wish);
    let op = apply(c, &plan).operation.expect("an operation");
    let s = wait(c, &format!("operation {op}"), |s| operation(s, op)["state"] == "done" && idle(s));
    let o = operation(&s, op);
    assert_eq!((&o["slots_done"], &o["slots_total"]), (&plan.slots_total.into(), &plan.slots_total.into()), "{o}");
    plan
}

#[test]
fn out_to_five_and_in_to_three_without_an_error() {
    let _alone = alone();
    let c = Cluster::up(&[]);
    let load = Load::start(&c, 8);
    load.pass(2000);
    let mut extras = Vec::new();
    for n in [4, 5] {
        let id = format!("n{n}");
        let out = wish(OperationKind::ScaleOut, &[&id]);
        let before = plan(&c, &out);
        extras.push(Extra::start(&c, n, &["--standby"]));
        wait(&c, "a standby node", |s| state_of(s, &id) == "standby");
        assert_eq!(plan(&c, &out).moves_digest, before.moves_digest, "planned before it was there");
        let done = run(&c, &out);
        let s = wait(&c, "ok", idle);
        let (most, least) = spread(&s);
        assert!(most as f64 <= 1.02 * f64::from(16384u32.div_ceil(u32::from(n))) + 1.0 && least > 0, "{most} {least}");
        println!("{id} in: {} slot moves; {most} to {least} primaries a node", done.slots_total);
        load.pass(500);
    }
    for n in [5, 4] {
        let id = format!("n{n}");
        let done = run(&c, &wish(OperationKind::ScaleIn, &[&id]));
        let s = wait(&c, "left", |s| state_of(s, &id) == "left" && idle(s));
        assert_eq!(s["slots"]["lost_total"], 0);
        assert!(extras.pop().expect("its process").ended().success());
        println!("{id} out: {} slot moves", done.slots_total);
        load.pass(500);
    }
    let (acked, errors) = load.end();
    assert!(errors.is_empty(), "{} errors: {:?}", errors.len(), &errors[..errors.len().min(10)]);
    check_all(&c, &acked);
    let events = c.run(&["events", "-o", "json"]);
    assert!(!common::text(&events.stdout).contains("node-dead"), "{}", common::text(&events.stdout));
}

#[test]
fn a_leaders_death_in_the_middle_changes_nothing() {
    let _alone = alone();
    let c = Cluster::up(&[]);
    let load = Load::start(&c, 4);
    load.pass(1000);
    let _n4 = Extra::start(&c, 4, &["--standby"]);
    wait(&c, "a standby node", |s| state_of(s, "n4") == "standby");
    let p = plan(&c, &wish(OperationKind::ScaleOut, &["n4"]));
    let op = apply(&c, &p).operation.expect("an operation");
    let s = wait(&c, "its first moves", |s| operation(s, op)["slots_done"].as_u64() > Some(100));
    c.kill(s["leader"].as_str().expect("a leader"));
    let s = wait(&c, "its end", |s| operation(s, op)["state"] == "done" && s["slots"]["solo"] == 0);
    assert_eq!(operation(&s, op)["slots_done"], p.slots_total);
    let (acked, errors) = load.end();
    // A batch between RELINQUISH and SWITCH waits for the next leader; nothing fails for it.
    assert!(errors.is_empty(), "{} errors: {:?}", errors.len(), &errors[..errors.len().min(10)]);
    check_all(&c, &acked);
}

#[test]
fn a_targets_death_in_the_middle_loses_nothing() {
    let _alone = alone();
    let c = Cluster::up(&[]);
    let mut load = Load::start(&c, 4);
    load.pass(1000);
    let n4 = Extra::start(&c, 4, &["--standby"]);
    wait(&c, "a standby node", |s| state_of(s, "n4") == "standby");
    let p = plan(&c, &wish(OperationKind::ScaleOut, &["n4"]));
    let op = apply(&c, &p).operation.expect("an operation");
    let backups: u64 =
        p.moves.iter().filter(|m| m.role == cachectl::proto::operation::Role::Backup).map(|m| m.slots).sum();
    wait(&c, "its first primaries", |s| operation(s, op)["slots_done"].as_u64() > Some(backups + 100));
    n4.signal(rustix::process::Signal::KILL);
    let s = wait(&c, "the end", |s| state_of(s, "n4") == "dead" && idle(s));
    assert_eq!(s["slots"]["lost_total"], 0);
    // Connections to the dead one end, so there are errors: but what was acknowledged before is there.
    load.stop.store(true, Ordering::Relaxed);
    for t in load.threads.drain(..) {
        t.join().expect("a writer");
    }
    let acked = std::mem::take(&mut *load.acked.lock().expect("no poison"));
    let errors = std::mem::take(&mut *load.errors.lock().expect("no poison"));
    let wrong: Vec<&String> = errors.iter().filter(|e| e.starts_with("GET") && e.contains("Ok(")).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    // A write without an answer may have been applied after all: such keys prove nothing.
    let doubtful = |key: &String| errors.iter().any(|e| e.starts_with(&format!("SET {key}:")));
    let acked: HashMap<String, String> = acked.into_iter().filter(|(k, _)| !doubtful(k)).collect();
    assert!(!acked.is_empty());
    check_all(&c, &acked);
}

#[test]
fn a_node_told_to_end_is_drained_first() {
    let _alone = alone();
    let c = Cluster::up(&[]);
    let load = Load::start(&c, 4);
    load.pass(1000);
    // It joins by itself, and gets its share by itself.
    let n4 = Extra::start(&c, 4, &[]);
    wait(&c, "its share", |s| state_of(s, "n4") == "up" && idle(s) && spread(s).1 > 3500);
    n4.signal(rustix::process::Signal::TERM);
    let s = wait(&c, "its leave", |s| state_of(s, "n4") == "left" && idle(s));
    assert_eq!(s["slots"]["lost_total"], 0);
    assert!(n4.ended().success());
    let (acked, errors) = load.end();
    assert!(errors.is_empty(), "{} errors: {:?}", errors.len(), &errors[..errors.len().min(10)]);
    check_all(&c, &acked);
}

/// `rebalance` makes four nodes' shares even, and nothing was lost on the way there.
fn balance_again(c: &Cluster, load: Load, nodes: usize) {
    run(c, &wish(OperationKind::Rebalance, &[]));
    let (most, least) = spread(&wait(c, "ok", idle));
    let even = 16384.0 / nodes as f64;
    assert!(most as f64 <= even * 1.021 && least as f64 >= even * 0.949, "{most} {least}");
    let (acked, errors) = load.end();
    assert!(errors.is_empty(), "{} errors: {:?}", errors.len(), &errors[..errors.len().min(10)]);
    check_all(c, &acked);
}

/// Enough data that no operation is over before anything is said of it: what is under way at a time is a third of it at most.
fn fill(c: &Cluster) {
    let args = ["bench", "--load", "--keys", "1000000", "--size", "200", "--requests", "1", "--pipeline", "16", "-q"];
    let out = c.run(&args);
    assert!(out.status.success(), "{}", common::text(&out.stderr));
}

#[test]
fn pause_resume_and_cancel_leave_a_cluster_that_can_be_balanced() {
    let _alone = alone();
    let c = Cluster::up(&["--memory", "1gb"]);
    fill(&c);
    let load = Load::start(&c, 2);
    let _n4 = Extra::start(&c, 4, &["--standby"]);
    wait(&c, "a standby node", |s| state_of(s, "n4") == "standby");
    let p = plan(&c, &wish(OperationKind::ScaleOut, &["n4"]));
    let op = apply(&c, &p).operation.expect("an operation");
    let which = OperationId { operation: op };
    let done = |s: &Json, op| operation(s, op)["slots_done"].as_u64().unwrap_or(0);
    wait(&c, "its first moves", |s| done(s, op) > 0);
    ask(&c, &Message::Pause(which)).expect("paused");
    let running = |s: &Json| -> u64 {
        let pairs = operation(s, op)["pairs"].as_array().cloned().unwrap_or_default();
        pairs.iter().filter_map(|p| p["slots_running"].as_u64()).sum()
    };
    let s = wait(&c, "the pause", |s| operation(s, op)["state"] == "paused" && running(s) == 0);
    load.pass(500);
    let later = wait(&c, "a status", |_| true);
    assert!(done(&later, op) < p.slots_total && done(&later, op) >= done(&s, op));
    ask(&c, &Message::Resume(which)).expect("resumed");
    let s = wait(&c, "the rest", |s| operation(s, op)["state"] == "done" && idle(s));
    assert_eq!(done(&s, op), p.slots_total);
    let p = plan(&c, &wish(OperationKind::ScaleIn, &["n4"]));
    let op = apply(&c, &p).operation.expect("an operation");
    wait(&c, "the first moves back", |s| done(s, op) > 0);
    ask(&c, &Message::Cancel(OperationId { operation: op })).expect("cancelled");
    let s = wait(&c, "the cancel", |s| operation(s, op)["state"] == "cancelled" && idle(s));
    assert!(done(&s, op) < p.slots_total, "it was done before it could be cancelled");
    assert_eq!(s["slots"]["solo"], 0);
    balance_again(&c, load, 4);
}

/// Kills whoever leads and waits for another; the dead one is begun again and may take its time.
fn lose_the_leader(c: &Cluster) {
    let leader = |s: &Json| s["leader"].as_str().map(str::to_owned);
    let old = leader(&wait(c, "a leader", |s| s["leader"].is_string())).expect("a leader");
    c.kill(&old);
    wait(c, "another leader", |s| leader(s).is_some_and(|l| l != old));
    let out = c.run(&["start", &old]);
    assert!(out.status.success(), "{}", common::text(&out.stderr));
}

#[test]
fn what_was_said_of_an_operation_outlives_its_leader() {
    let _alone = alone();
    // Five: a majority is there while the dead one comes back.
    let c = Cluster::up(&["--masters", "5", "--memory", "1gb"]);
    fill(&c);
    let load = Load::start(&c, 2);
    let new = [4, 5, 6].map(|n| Extra::start(&c, n, &["--standby"]));
    wait(&c, "standby nodes", |s| ["n4", "n5", "n6"].iter().all(|n| state_of(s, n) == "standby"));
    let p = plan(&c, &wish(OperationKind::ScaleOut, &["n4", "n5", "n6"]));
    let op = apply(&c, &p).operation.expect("an operation");
    let which = OperationId { operation: op };
    let done = |s: &Json| operation(s, op)["slots_done"].as_u64().unwrap_or(0);
    wait(&c, "its first moves", |s| done(s) > 0);
    ask(&c, &Message::Pause(which)).expect("paused");
    lose_the_leader(&c);
    let s = wait(&c, "a pause", |s| operation(s, op)["state"] == "paused");
    assert!(done(&s) < p.slots_total, "{}", operation(&s, op));
    ask(&c, &Message::Resume(which)).expect("resumed");
    lose_the_leader(&c);
    let s = wait(&c, "a leader", |s| s["leader"].is_string());
    assert_eq!(operation(&s, op)["state"], "running", "{}", operation(&s, op));
    ask(&c, &Message::Cancel(which)).expect("cancelled");
    lose_the_leader(&c);
    let s = wait(&c, "the cancel", |s| operation(s, op)["state"] == "cancelled" && idle(s));
    assert!(done(&s) < p.slots_total, "{}", operation(&s, op));
    assert_eq!(s["slots"]["lost_total"], 0);
    balance_again(&c, load, 3 + new.len());
}
