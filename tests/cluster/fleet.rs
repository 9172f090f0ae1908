//! A cluster of real processes, each on a host of its own, and everything that can be done to it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use cachectl::proto::control::{self, Empty, Message, RefreshIp};
use cachectl::proto::event::Event;
use cachectl::proto::id::NodeId;
use cachectl::proto::operation::{Apply, OperationKind, PlanView, Wish};
use cachectl::proto::slot::{SLOTS, Slot};
use cachectl::proto::status::{Health, NodeState, NodeStatus, WatchView};
use cachectl::proto::view::{Phase, Replica, SlotState, View};
use rustix::process::Signal;

use super::client::Client;
use super::common::{CACHECTL, signal};
use super::load::{Load, Shape};
use super::net::{Host, Net};

/// Every master's port, on its own host.
pub const MASTER_PORT: u16 = 7101;
/// Every node's port for clients, on its own host.
pub const NODE_PORT: u16 = 7201;
/// Every node's port for peers.
pub const PEER_PORT: u16 = 17201;
/// A paused or cut-off master is not waited for longer than this when it is asked.
const ASK_MAX: Duration = Duration::from_millis(800);

/// How long a cluster may take to get over a fault before its test fails: far more than any healthy one, also where other work
/// leaves it a twentieth of two cores.
const RECOVERY: Duration = Duration::from_secs(180);

/// Of each process's log, a failed test shows so much.
const LOG_LINES: usize = 150;

/// What a test's cluster consists of.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Masters, 1 or 3.
    pub masters: usize,
    /// Nodes that start with it.
    pub nodes: usize,
    /// Hosts for nodes that are started later.
    pub spare: usize,
    /// Flags of every node.
    pub node_flags: &'static [&'static str],
    /// What load and faults are drawn from.
    pub seed: u64,
}

impl Default for Plan {
    fn default() -> Self {
        Plan { masters: 3, nodes: 3, spare: 0, node_flags: &[], seed: seed() }
    }
}

/// What load and faults are drawn from: `CACHECTL_SEED`, else fresh; printed with a failure.
fn seed() -> u64 {
    std::env::var("CACHECTL_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random)
}

/// The cluster.
pub struct Fleet {
    /// Its network.
    pub net: Net,
    /// What it was made from.
    pub plan: Plan,
    dir: tempfile::TempDir,
    processes: BTreeMap<String, Child>,
    /// Environment by process, kept over restarts.
    pub env: BTreeMap<String, Vec<(String, String)>>,
}

impl Fleet {
    /// Three masters, three nodes, all slots backed.
    pub fn up() -> Fleet {
        Fleet::start(Plan::default())
    }

    /// This, all slots backed.
    pub fn start(plan: Plan) -> Fleet {
        let mut f = Fleet::prepare(plan);
        f.start_all();
        f.wait_ok();
        f
    }

    /// Hosts and directories, nothing started.
    pub fn prepare(plan: Plan) -> Fleet {
        let masters = (1..=plan.masters).map(|i| format!("m{i}"));
        let nodes = (1..=plan.nodes + plan.spare).map(|i| format!("n{i}"));
        let names: Vec<String> = masters.chain(nodes).chain(["c1".into(), "c2".into()]).collect();
        let dir = tempfile::tempdir().expect("a temporary directory");
        println!("seed {}, logs in {}", plan.seed, dir.path().display());
        Fleet { net: Net::new(&names), plan, dir, processes: BTreeMap::new(), env: BTreeMap::new() }
    }

    /// Starts every process that does not run.
    pub fn start_all(&mut self) {
        for name in self.masters().into_iter().chain(self.nodes()) {
            if !self.runs(&name) {
                self.run(&name);
            }
        }
    }

    /// The same, but for one.
    pub fn start_all_but(&mut self, but: &str) {
        for name in self.masters().into_iter().chain(self.nodes()).filter(|n| n != but) {
            if !self.runs(&name) {
                self.run(&name);
            }
        }
    }

    /// Names of the masters.
    pub fn masters(&self) -> Vec<String> {
        (1..=self.plan.masters).map(|i| format!("m{i}")).collect()
    }

    /// Names of the nodes that start with the cluster.
    pub fn nodes(&self) -> Vec<String> {
        (1..=self.plan.nodes).map(|i| format!("n{i}")).collect()
    }

    /// A host.
    pub fn host(&self, name: &str) -> &Host {
        self.net.host(name)
    }

    /// Where clients reach a node.
    pub fn node_addr(&self, name: &str) -> SocketAddr {
        self.host(name).at(NODE_PORT)
    }

    /// Where clients reach all nodes, spare ones too.
    pub fn node_addrs(&self) -> Vec<SocketAddr> {
        (1..=self.plan.nodes + self.plan.spare).map(|i| self.node_addr(&format!("n{i}"))).collect()
    }

    /// `host:port,…` of all masters.
    pub fn masters_addr(&self) -> String {
        let all: Vec<String> = self.masters().iter().map(|m| self.host(m).at(MASTER_PORT).to_string()).collect();
        all.join(",")
    }

    /// A process's state directory.
    pub fn data(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A client on the host that belongs to no process.
    pub fn client(&self) -> Client {
        Client::new(self.host("c1"), self.node_addrs())
    }

    /// Load from there.
    pub fn load(&self, shape: Shape) -> Load {
        Load::start(self.host("c1"), &self.node_addrs(), self.plan.seed, shape)
    }

    /// Starts a process: `m1`, `n2`.
    pub fn run(&mut self, name: &str) {
        self.run_at(name, name, &[]);
    }

    /// Starts a process on some host, from a directory of that host's name, with more flags.
    pub fn run_at(&mut self, name: &str, at: &str, flags: &[&str]) {
        let child = self.spawn(name, at, flags);
        self.processes.insert(at.to_owned(), child);
    }

    fn spawn(&self, name: &str, at: &str, flags: &[&str]) -> Child {
        let host = self.host(at);
        let mut c = host.command(CACHECTL);
        if name.starts_with('m') {
            let peers: Vec<String> =
                self.masters().iter().map(|m| format!("{m}={}", self.host(m).at(MASTER_PORT))).collect();
            let expect = self.plan.nodes.to_string();
            c.args(["master", "--listen", &host.at(MASTER_PORT).to_string(), "--peers", &peers.join(",")]);
            c.args(["--expect-nodes", &expect, "--form-wait", "20s", "--cluster", "test"]);
        } else {
            c.args(["node", "--listen", &host.at(NODE_PORT).to_string()]);
            c.args(["--peer-listen", &host.at(PEER_PORT).to_string(), "--masters-addr", &self.masters_addr()]);
            c.args(self.plan.node_flags);
        }
        let data = self.data(at);
        std::fs::create_dir_all(&data).expect("a state directory");
        let log = File::options().create(true).append(true).open(self.log_path(at)).expect("a log file");
        c.args(["--id", name, "--insecure-bind", "--data"]).arg(data).args(flags);
        c.envs(self.env.get(at).into_iter().flatten().cloned()).env("HOME", self.dir.path());
        c.stdout(log.try_clone().expect("a log file")).stderr(log).spawn().expect("setpriv and nsenter of util-linux")
    }

    fn log_path(&self, at: &str) -> PathBuf {
        self.dir.path().join(format!("{at}.log"))
    }

    /// Where a process reads how far its wall clock is off.
    pub fn clock_file(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.clock"))
    }

    /// What a process has logged.
    pub fn log(&self, at: &str) -> String {
        std::fs::read_to_string(self.log_path(at)).unwrap_or_default()
    }

    /// Whether it runs (or is paused).
    pub fn runs(&mut self, name: &str) -> bool {
        self.processes.get_mut(name).is_some_and(|c| matches!(c.try_wait(), Ok(None)))
    }

    /// Waits until a process has ended by itself; its exit code.
    pub fn wait_end(&mut self, name: &str) -> Option<i32> {
        let child = self.processes.get_mut(name).expect("a process");
        let status = super::common::wait_for("a process to end", || child.try_wait().ok().flatten());
        self.processes.remove(name);
        status.code()
    }

    /// kill -9; returns once it is gone.
    pub fn kill(&mut self, name: &str) {
        self.kill_all(&[name]);
    }

    /// kill -9 of several at once.
    pub fn kill_all(&mut self, names: &[&str]) {
        for name in names {
            self.signal(name, Signal::KILL);
        }
        for name in names {
            let mut child = self.processes.remove(*name).expect("it runs");
            child.wait().expect("a child");
        }
    }

    /// SIGSTOP.
    pub fn pause(&self, name: &str) {
        self.signal(name, Signal::STOP);
    }

    /// SIGCONT.
    pub fn resume(&self, name: &str) {
        self.signal(name, Signal::CONT);
    }

    /// Any signal.
    pub fn signal(&self, name: &str, sig: Signal) {
        let child = self.processes.get(name).unwrap_or_else(|| panic!("{name} does not run"));
        signal(child.id() as i32, sig);
    }

    /// One request to one master, from the clients' host.
    pub fn ask(&self, master: &str, message: &Message) -> Option<Message> {
        self.ask_from("c1", "test", master, message)
    }

    /// One request to one master, from any host, under any name.
    pub fn ask_from(&self, host: &str, machine: &str, master: &str, message: &Message) -> Option<Message> {
        let mut stream = self.host(host).connect(self.host(master).at(MASTER_PORT)).ok()?;
        stream.set_read_timeout(Some(ASK_MAX)).ok()?;
        stream.write_all(&control::encode(machine, None, 7, message)).ok()?;
        let mut lines = BufReader::new(stream);
        loop {
            let mut line = Vec::new();
            lines.read_until(b'\n', &mut line).ok().filter(|n| *n > 0)?;
            let incoming = control::decode(&line).ok()?;
            if incoming.id == 7 {
                return incoming.message.ok();
            }
        }
    }

    /// One request to whoever leads, asked until it is answered.
    pub fn request(&self, message: &Message) -> Message {
        super::common::wait_for("the leader's answer", || {
            self.masters().iter().find_map(|m| match self.ask(m, message)? {
                Message::RefreshMaster(_) => None,
                Message::Error(f) if matches!(f.code.as_str(), "NOT_LEADER" | "UNKNOWN") => None,
                answer => Some(answer),
            })
        })
    }

    /// What an operation would do.
    pub fn plan(&self, kind: OperationKind, nodes: &[&str]) -> PlanView {
        match self.request(&Message::Plan(wish(kind, nodes))) {
            Message::Planned(p) => *p,
            other => panic!("PLAN was answered with {other:?}"),
        }
    }

    /// Begins an operation.
    pub fn apply(&self, kind: OperationKind, nodes: &[&str]) {
        match self.request(&Message::Apply(Apply { wish: wish(kind, nodes), epoch: None, moves_digest: None })) {
            Message::Accepted(_) => {}
            other => panic!("APPLY was answered with {other:?}"),
        }
    }

    /// Why an operation is refused.
    pub fn refused(&self, kind: OperationKind, nodes: &[&str]) -> String {
        match self.request(&Message::Apply(Apply { wish: wish(kind, nodes), epoch: None, moves_digest: None })) {
            Message::Error(f) => f.code,
            other => panic!("APPLY was answered with {other:?}"),
        }
    }

    /// What one master shows; none if it does not answer or sends elsewhere.
    pub fn view_of(&self, master: &str) -> Option<WatchView> {
        match self.ask(master, &Message::StatusRequest(Empty {}))? {
            Message::StatusView(v) => Some(*v),
            _ => None,
        }
    }

    /// What a leader shows, else what any master shows.
    pub fn view(&self) -> Option<WatchView> {
        let mut best: Option<WatchView> = None;
        for m in self.masters() {
            let Some(v) = self.view_of(&m) else { continue };
            if v.status.leader.is_some() {
                return Some(v);
            }
            best.get_or_insert(v);
        }
        best
    }

    /// Waits until a view is so.
    pub fn wait(&self, what: &str, f: impl Fn(&WatchView) -> bool) -> WatchView {
        let end = Instant::now() + RECOVERY;
        let mut last = None;
        while Instant::now() < end {
            let asked = Instant::now();
            if let Some(v) = self.view() {
                if f(&v) {
                    return v;
                }
                last = Some(v);
            }
            // Watching must not be the load that keeps it from recovering.
            std::thread::sleep((asked.elapsed() * 3).max(Duration::from_millis(40)));
        }
        let seen = last.map_or("nothing".into(), |v| describe(&v));
        panic!("gave up waiting for {what}; last seen: {seen}\nslots at work:\n{}", self.unrest());
    }

    /// The slots that are not just served by a primary and a backup, alike ones in one line.
    fn unrest(&self) -> String {
        let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
        for s in self.slots() {
            if s.phase != Phase::Serving || s.insync.len() != 2 || !s.learners.is_empty() {
                let names = |of: &[Replica]| of.iter().map(|r| r.node.to_string()).collect::<Vec<_>>().join(" ");
                let primary = s.primary.as_ref().map(ToString::to_string);
                let line = format!(
                    "{:?} of {primary:?} to {:?}, in sync {}, learners {}",
                    s.phase,
                    s.handover_to.map(|r| r.to_string()),
                    names(&s.insync),
                    names(&s.learners)
                );
                *kinds.entry(line).or_default() += 1;
            }
        }
        kinds.into_iter().map(|(line, n)| format!("  {n} x {line}\n")).collect()
    }

    /// Waits until every slot has a primary and a backup, and everybody is there.
    pub fn wait_ok(&self) -> WatchView {
        self.wait("ok", |v| v.status.state == Health::Ok && v.status.leader.is_some())
    }

    /// Waits until all is ok and every node that started with the cluster is up.
    pub fn wait_all(&self) -> WatchView {
        let nodes = self.nodes();
        self.wait("everybody back", |v| {
            v.status.state == Health::Ok && v.status.leader.is_some() && nodes.iter().all(|n| is(v, n, NodeState::Up))
        })
    }

    /// The same, with no node's life as it was.
    pub fn wait_new_lives(&self, before: &WatchView) -> WatchView {
        let nodes = self.nodes();
        self.wait("everybody in a new life", |v| {
            let renewed = |n: &String| is(v, n, NodeState::Up) && node(v, n).incarnation != node(before, n).incarnation;
            v.status.state == Health::Ok && v.status.leader.is_some() && nodes.iter().all(renewed)
        })
    }

    /// Who leads.
    pub fn leader(&self) -> String {
        self.wait("a leader", |v| v.status.leader.is_some()).status.leader.expect("waited for")
    }

    /// All slots as a master knows them.
    pub fn slots(&self) -> Vec<SlotState> {
        let ask = Message::RefreshIp(RefreshIp { have: 0, iplist: Vec::new(), view: None });
        let view: View = super::common::wait_for("the slot table", || {
            self.masters().iter().find_map(|m| match self.ask(m, &ask)? {
                Message::RefreshIp(RefreshIp { view, .. }) => view,
                _ => None,
            })
        });
        let mut slots = vec![SlotState::default(); SLOTS];
        for r in view.slots {
            slots[r.first.ix()..=r.last.ix()].fill(r.state);
        }
        slots
    }

    /// A slot as a master knows it.
    pub fn slot(&self, slot: Slot) -> SlotState {
        self.slots().swap_remove(slot.ix())
    }

    /// Primary and backup of a key.
    pub fn holders(&self, key: &str) -> (String, String) {
        let s = self.slot(Slot::of_key(key.as_bytes()));
        let primary = s.primary.as_ref().expect("a primary").id.to_string();
        let backup = s.backups().next().expect("a backup").node.id.to_string();
        (primary, backup)
    }

    /// A key whose primary and backup are these.
    pub fn key_at(&self, primary: &str, backup: Option<&str>) -> String {
        let slots = self.slots();
        (0..2000)
            .map(|i| format!("at{i}"))
            .find(|k| {
                let s = &slots[Slot::of_key(k.as_bytes()).ix()];
                let is = |n: &str, r: &cachectl::proto::id::Ref| r.id.as_str() == n;
                s.primary.as_ref().is_some_and(|p| is(primary, p))
                    && backup.is_none_or(|b| s.backups().any(|r| is(b, &r.node)))
            })
            .unwrap_or_else(|| panic!("no slot of {primary} backed by {backup:?}"))
    }

    /// Everything that happened, as the masters tell it.
    pub fn events(&self) -> Vec<Event> {
        self.wait("events", |v| v.status.leader.is_some()).events
    }

    /// Events of one kind.
    pub fn events_of(&self, kind: &str) -> Vec<Event> {
        self.events().into_iter().filter(|e| e.kind == kind).collect()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for child in self.processes.values_mut() {
            let _ = child.kill();
        }
        for child in self.processes.values_mut() {
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("seed {}", self.plan.seed);
            for f in std::fs::read_dir(self.dir.path()).into_iter().flatten().flatten() {
                if f.path().extension().is_some_and(|e| e == "log") {
                    let text = std::fs::read_to_string(f.path()).unwrap_or_default();
                    let lines: Vec<&str> = text.lines().collect();
                    eprintln!(
                        "--- {}\n{}",
                        f.path().display(),
                        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
                    );
                }
            }
        }
    }
}

fn wish(kind: OperationKind, nodes: &[&str]) -> Wish {
    let nodes = nodes.iter().map(|n| NodeId::new(n).expect("a name")).collect();
    Wish { kind, nodes, force: false, accept_data_loss: false }
}

/// The slot table of a view.
pub fn slots_of(v: &WatchView) -> Vec<SlotState> {
    let mut slots = vec![SlotState::default(); SLOTS];
    for r in v.slots.iter().flatten() {
        slots[r.first.ix()..=r.last.ix()].fill(r.state.clone());
    }
    slots
}

/// One node in a view.
pub fn node<'a>(v: &'a WatchView, id: &str) -> &'a NodeStatus {
    v.status.nodes.iter().find(|n| n.id == id).unwrap_or_else(|| panic!("no {id} in {}", describe(v)))
}

/// Whether the node is there and in this state.
pub fn is(v: &WatchView, id: &str, state: NodeState) -> bool {
    v.status.nodes.iter().any(|n| n.id == id && n.state == state)
}

/// All slots serve and have their backup, whoever else is missing.
pub fn is_backed(v: &WatchView) -> bool {
    v.status.leader.is_some() && v.status.slots.serving == v.status.slots.total && v.status.slots.solo == 0
}

/// A view in a few lines, for a failing test.
pub fn describe(v: &WatchView) -> String {
    let s = &v.status;
    let mut out = format!("{:?} leader {:?} epoch {} term {} {:?}\n", s.state, s.leader, s.epoch, s.term, s.slots);
    for n in &s.nodes {
        let _ = writeln!(
            out,
            "  {} {} {:?} primary {} backup {} age {:?}",
            n.id, n.incarnation, n.state, n.primary_slots, n.backup_slots, n.heartbeat_age_ms
        );
    }
    for m in &s.masters {
        let _ = writeln!(out, "  {} {} alive {}", m.id, m.role, m.alive);
    }
    for o in s.operations.iter().filter(|o| o.state != "done") {
        let _ = writeln!(out, "  {o:?}");
    }
    for e in v.events.iter().rev().take(25).rev() {
        let _ = writeln!(out, "  {} {:?} {} {}", e.at_ms, e.severity, e.kind, e.text);
    }
    out
}
