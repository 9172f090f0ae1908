//! One run: masters, nodes, clients and what happens to them, a step at a time, with the invariants looked at after each.

use std::collections::{BTreeMap, VecDeque};

use rand::Rng;

use super::cache::Proc;
use super::check::{Checks, Violation};
use super::client::{Client, Keys};
use super::fault::{Fault, Plan};
use super::masters::{Masters, Proposal, RAFT_MS};
use super::net::{ConnId, Happening, MS, Net, Packet, Timer, Who};
use crate::node::master::brain::{Outcome, ProbeOutcome, Token};
use crate::node::master::entry::Entry;
use crate::proto::control::Message;
use crate::proto::id::{MasterId, Ref};
use crate::proto::view::SlotState;

/// Between two looks at whether what is waited for has come, milliseconds.
const LOOK_MS: u64 = 5;

/// What the world itself does when its time has come.
#[derive(Debug)]
pub enum Deed {
    /// Raft looks around.
    Raft,
    /// A proposal reaches the log.
    Append(Box<Proposal>),
    /// An entry is committed once more.
    Again(Box<Entry>),
    /// An outcome is told late.
    Outcome { master: usize, gen_no: u64, token: Token, outcome: Box<Outcome> },
    /// A follower hears of what was committed.
    Follow(usize),
    /// Leadership is handed over.
    Elect(usize),
    /// A connect to a peer port is tried, from one master for another.
    Probe { master: usize, gen_no: u64, from: Option<usize>, to: Option<usize>, node: Ref, via: Option<MasterId> },
    /// Its answer.
    Probed { master: usize, gen_no: u64, node: Ref, via: Option<MasterId>, outcome: ProbeOutcome },
    /// A control message that comes a second time.
    Ghost { master: usize, gen_no: u64, conn: ConnId, message: Box<Message> },
    /// Something breaks, or heals.
    Fault(Fault),
    /// A process that was busy gets to what waits for it.
    Wake(Who),
}

/// How a run is made.
#[derive(Debug, Clone)]
pub struct Shape {
    pub slots: usize,
    pub nodes: usize,
    pub masters: usize,
    pub clients: usize,
    pub keys_per_slot: usize,
    pub drift: f64,
    /// Chance that a node is frozen in the middle of handling what a client sent.
    pub freeze: f64,
}

pub struct World {
    pub net: Net,
    pub shape: Shape,
    pub masters: Masters,
    pub nodes: Vec<Proc>,
    pub clients: Vec<Client>,
    pub keys: Keys,
    pub checks: Checks,
    pub plan: Plan,
    /// The node that the last step was about.
    pub touched: Option<usize>,
    /// What waits for busy processes, in order.
    deferred: BTreeMap<Who, VecDeque<Happening>>,
}

impl World {
    pub fn new(seed: u64, shape: Shape, trace: bool) -> Self {
        let mut net = Net::new(seed, trace);
        let masters = Masters::new(&mut net, shape.masters, shape.slots, shape.nodes, shape.drift);
        let nodes: Vec<Proc> =
            (0..shape.nodes).map(|ix| Proc::new(&mut net, ix, shape.masters, shape.slots, shape.drift)).collect();
        let clients = (0..shape.clients).map(|ix| Client::new(ix, net.rng.random_range(20..250))).collect();
        let keys = Keys::new(shape.slots, shape.keys_per_slot);
        let checks = Checks::new(shape.slots);
        let mut w = Self {
            net,
            shape,
            masters,
            nodes,
            clients,
            keys,
            checks,
            plan: Plan::default(),
            touched: None,
            deferred: BTreeMap::new(),
        };
        w.net.at(0, Happening::World(Deed::Raft));
        for ix in 0..w.nodes.len() {
            let when = w.net.ms(0, 300);
            w.net.at(when, Happening::World(Deed::Fault(Fault::Start(ix))));
        }
        for ix in 0..w.clients.len() {
            let when = w.net.ms(500, 3000);
            w.net.timer(when, Who::Client(ix), 0, Timer::Tick);
        }
        w
    }

    /// Runs until so many milliseconds after the beginning, or until something is wrong.
    pub fn run_to(&mut self, ms: u64) -> Result<(), Violation> {
        while let Some(what) = self.net.pop(ms * MS) {
            self.happen(what);
            self.look()?;
        }
        Ok(())
    }

    /// Runs until it holds, at most until so many milliseconds after the beginning.
    pub fn until(&mut self, ms: u64, what: &str, done: impl Fn(&World) -> bool) -> Result<(), Violation> {
        let mut looked = None;
        loop {
            // Looking costs more than most of what happens.
            if looked.is_none_or(|at: u64| self.net.now >= at + LOOK_MS * MS) {
                looked = Some(self.net.now);
                if done(self) {
                    return Ok(());
                }
            }
            let Some(next) = self.net.pop(ms * MS) else {
                for p in &self.nodes {
                    self.net.note(None, || p.describe());
                }
                return Err(Violation::new(None, format!("{what} never came: {}", self.checks.unrest(self))));
            };
            self.happen(next);
            self.look()?;
        }
    }

    fn busy(&self, who: Who) -> u64 {
        match who {
            Who::Master(m) => self.masters.all[m].busy_until,
            Who::Node(n) => self.nodes[n].busy_until,
            Who::Client(_) => 0,
        }
    }

    fn running(&self, who: Who) -> bool {
        match who {
            Who::Master(m) => self.masters.all[m].running,
            Who::Node(n) => self.nodes[n].running,
            Who::Client(_) => true,
        }
    }

    fn is_deferred(&self, who: Who) -> bool {
        self.busy(who) > self.net.now || self.deferred.contains_key(&who)
    }

    fn defer(&mut self, who: Who, what: Happening) {
        let busy = self.busy(who);
        let waiting = self.deferred.entry(who).or_insert_with(|| {
            self.net.at(busy, Happening::World(Deed::Wake(who)));
            VecDeque::new()
        });
        waiting.push_back(what);
    }

    /// Hands a process what waited for it, one thing a step.
    fn wake(&mut self, who: Who) {
        let busy = self.busy(who);
        if busy > self.net.now && self.running(who) {
            return self.net.at(busy, Happening::World(Deed::Wake(who)));
        }
        let Some(mut waiting) = self.deferred.remove(&who) else { return };
        let first = waiting.pop_front();
        if let Some(first) = first {
            self.happen(first);
        }
        if !waiting.is_empty() {
            self.deferred.insert(who, waiting);
            let next = self.busy(who).max(self.net.now);
            self.net.at(next, Happening::World(Deed::Wake(who)));
        }
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Arrive { conn, end, packet } => {
                let Some(who) = self.net.end_of(conn, end) else { return };
                if !self.running(who) {
                    if matches!(packet, Packet::Dial(_)) {
                        self.net.refuse(conn);
                    }
                    return;
                }
                if self.is_deferred(who) {
                    return self.defer(who, Happening::Arrive { conn, end, packet });
                }
                self.net.taken(conn, end, &packet);
                self.arrive(who, conn, end, packet);
            }
            Happening::Timer { who, life, timer } => {
                if !self.running(who) {
                    return;
                }
                if self.is_deferred(who) {
                    return self.defer(who, Happening::Timer { who, life, timer });
                }
                self.timer(who, life, timer);
            }
            Happening::World(deed) => self.deed(deed),
        }
    }

    fn arrive(&mut self, who: Who, conn: ConnId, end: usize, packet: Packet) {
        self.touch(who);
        match who {
            Who::Master(m) => self.masters.packet(&mut self.net, m, conn, packet),
            Who::Node(n) => {
                let freeze = self.shape.freeze;
                let hit = matches!(packet, Packet::Bytes(_)) && self.net.chance(freeze);
                let freeze = hit.then(|| (self.net.rng.random_range(0..8), self.net.rng.random_range(100..4000)));
                self.nodes[n].packet(&mut self.net, conn, end, packet, freeze);
            }
            Who::Client(c) => {
                let nodes = self.nodes.len();
                self.clients[c].packet(&mut self.net, &mut self.keys, nodes, conn, packet);
            }
        }
    }

    fn touch(&mut self, who: Who) {
        if let Who::Node(n) = who {
            self.touched = Some(n);
        }
    }

    fn timer(&mut self, who: Who, life: u64, timer: Timer) {
        self.touch(who);
        match who {
            Who::Master(m) => {
                if self.masters.all[m].gen_no == life {
                    self.masters.tick(&mut self.net, m);
                }
            }
            Who::Node(n) => {
                if self.nodes[n].gen_no == life {
                    self.nodes[n].timer(&mut self.net, timer);
                }
            }
            Who::Client(c) => {
                let nodes = self.nodes.len();
                match timer {
                    Timer::Give(token) => self.clients[c].give_up(&mut self.net, &mut self.keys, token),
                    _ => self.clients[c].tick(&mut self.net, &mut self.keys, nodes),
                }
            }
        }
    }

    fn deed(&mut self, deed: Deed) {
        let net = &mut self.net;
        match deed {
            Deed::Raft => {
                net.at(net.now + RAFT_MS * MS, Happening::World(Deed::Raft));
                self.masters.raft(net);
            }
            Deed::Append(p) => self.masters.append(net, *p),
            Deed::Again(entry) => drop(self.masters.commit(net, &entry)),
            Deed::Outcome { master, gen_no, token, outcome } => {
                self.masters.outcome(net, master, gen_no, token, *outcome);
            }
            Deed::Follow(m) => self.masters.follow(net, m),
            Deed::Elect(m) => self.masters.elect(net, m),
            Deed::Probe { master, gen_no, from, to, node, via } => {
                let outcome = match (from, to) {
                    (Some(from), Some(to)) => {
                        let (a, b) = (Who::Master(from), Who::Node(to));
                        match () {
                            () if net.is_cut(a, b) || net.is_cut(b, a) => ProbeOutcome::Other,
                            () if self.nodes.get(to).is_some_and(|n| n.running) => ProbeOutcome::Open,
                            () => ProbeOutcome::Refused,
                        }
                    }
                    _ => ProbeOutcome::Other,
                };
                let wait = if outcome == ProbeOutcome::Other { net.ms(90, 100) } else { net.ms(0, 3) };
                let answer = Deed::Probed { master, gen_no, node, via, outcome };
                net.at(net.now + wait, Happening::World(answer));
            }
            Deed::Probed { master, gen_no, node, via, outcome } => {
                self.masters.probed(net, master, gen_no, node, via, outcome);
            }
            Deed::Ghost { master, gen_no, conn, message } => {
                if self.masters.all[master].gen_no == gen_no {
                    self.masters.said(net, master, conn, *message);
                }
            }
            Deed::Fault(f) => self.strike(f),
            Deed::Wake(who) => self.wake(who),
        }
    }

    /// Looks at the invariants after a step.
    pub fn look(&mut self) -> Result<(), Violation> {
        let committed = std::mem::take(&mut self.masters.committed);
        for c in &committed {
            let at = self.net.now;
            self.net.note(None, || format!("committed at {}: {}", c.done.index, super::check::brief(&c.entry.act)));
            for (ix, (old, new)) in c.before.cfg.slots.iter().zip(&c.after.cfg.slots).enumerate() {
                if old != new {
                    self.net.note(Some(ix as u16), || super::check::brief_slot(new));
                }
            }
            self.checks.committed(c, at, &mut self.keys, &self.nodes)?;
        }
        for (m, dead) in std::mem::take(&mut self.masters.judged) {
            self.checks.judged(self.net.now, &self.masters, m, &dead, &self.nodes)?;
        }
        self.masters.told.clear();
        for p in &mut self.nodes {
            if let Some((node, at)) = p.drained.take() {
                let truth = self.masters.truth();
                // If the drain was cancelled, it may have become a learner behind its back, or got a slot empty: it dies as such.
                let held = |s: &SlotState| s.insync.iter().any(|r| r.node == node && r.since <= at);
                if let Some(ix) = truth.cfg.slots.iter().position(|s| held(s)) {
                    return Err(Violation::new(Some(ix as u16), format!("I11: {node} stopped in sync in slot {ix}")));
                }
            }
        }
        Checks::step(self)
    }
}
