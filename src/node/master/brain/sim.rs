//! A small deterministic world around one brain: an oracle for the log (which delays, repeats and loses outcomes), nodes
//! that beat, copy, die and return. After every entry the invariants of the state are checked.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::node::master::entry::Applied;
use crate::node::master::heartbeat::{DEAD_MS, SUSPECT_MS};
use crate::node::master::report::{RaftFacts, status};
use crate::node::master::state::tests::check_step;
use crate::proto::control::{AddCacheServer, Complain, KeepAlive, LearnerReady, Relinquish, ShutdownCache};
use crate::proto::id::{HomeId, Incarnation};
use crate::proto::operation::OperationState;
use crate::proto::stats::NodeStats;
use crate::proto::status::{Health, MasterStatus, NodeState};
use crate::proto::view::{Config, Phase, SlotState};

mod moving;
mod scenarios;

const SLOTS_OF_TEST: usize = 64;
const BEAT_MS: u64 = 250;
const STEP_MS: u64 = 5;
/// The connection operators ask on.
const OPERATOR: ConnId = 1 << 40;
/// Generous: a scenario that takes longer has hung.
const LIMIT_MS: u64 = 60_000;

fn m(name: &str) -> MasterId {
    MasterId::new(name).unwrap()
}

fn id(n: u8) -> NodeId {
    NodeId::new(&format!("n{n}")).unwrap()
}

fn params() -> BrainParams {
    BrainParams {
        me: m("m1"),
        others: vec![(m("m2"), false), (m("m3"), false)],
        cluster: "sim".into(),
        backups: 1,
        expect_nodes: 3,
        form_wait_ms: 3000,
        refused_is_death: true,
    }
}

/// How unreliable the oracle is.
#[derive(Debug, Clone, Copy)]
struct Weather {
    commit_ms: (u64, u64),
    /// The outcome is never told, the entry may be committed all the same.
    unknown: f64,
    /// The entry is committed twice.
    twice: f64,
}

const CALM: Weather = Weather { commit_ms: (1, 3), unknown: 0.0, twice: 0.0 };
const STORM: Weather = Weather { commit_ms: (1, 120), unknown: 0.1, twice: 0.1 };

#[derive(Debug)]
struct Node {
    life: u64,
    running: bool,
    paused: bool,
    /// Cut off from the leader, not from others.
    cut: bool,
    conn: Option<ConnId>,
    connect_at: Mono,
    joined: bool,
    view: Option<Rc<Config>>,
    beat_at: Mono,
    report_at: Mono,
    last_beat: Mono,
    /// Since when a copy is under way: slot, learner, since.
    copies: BTreeMap<(usize, Ref, u64), Mono>,
    standby: bool,
    follows: Option<Incarnation>,
    /// It gives nothing up, as if its backup never confirmed.
    clings: bool,
}

enum Happening {
    Commit { token: Token, entry: Entry, told: bool },
    ToBrain(Event),
    View { node: NodeId, life: u64, cfg: Rc<Config> },
    Stop { node: NodeId, life: u64 },
    Shutdown { node: NodeId, life: u64, cfg_index: u64 },
}

struct World {
    now: Mono,
    rng: SmallRng,
    weather: Weather,
    state: State,
    brain: Brain,
    params: BrainParams,
    term: u64,
    led_since: Mono,
    nodes: BTreeMap<NodeId, Node>,
    queue: BTreeMap<(Mono, u64), Happening>,
    seq: u64,
    conns: u64,
    lives: u64,
    /// Heard of the brain and not carried out.
    said: Vec<Command>,
    copy_ms: u64,
    exited: bool,
    tick_at: Mono,
    /// Heartbeats that were acknowledged.
    acks: u64,
    /// An operator gave up on a holder that may live.
    given_up: bool,
    /// What operators were told.
    told: Vec<Message>,
}

impl World {
    fn new(seed: u64, nodes: u8, params: BrainParams) -> Self {
        let now = Mono(0).plus_ms(1_000_000);
        let mut w = World {
            now,
            rng: SmallRng::seed_from_u64(seed),
            weather: CALM,
            state: State::new(SLOTS_OF_TEST),
            brain: Brain::new(params.clone(), now),
            params,
            term: 0,
            led_since: now,
            nodes: BTreeMap::new(),
            queue: BTreeMap::new(),
            seq: 0,
            conns: 0,
            lives: 0,
            said: Vec::new(),
            copy_ms: 20,
            exited: false,
            tick_at: now,
            acks: 0,
            given_up: false,
            told: Vec::new(),
        };
        w.elect();
        for n in 1..=nodes {
            w.start(n);
        }
        w
    }

    /// Three nodes, all slots served and backed up.
    fn formed(seed: u64, nodes: u8) -> Self {
        let mut w = Self::new(seed, nodes, BrainParams { expect_nodes: nodes.into(), ..params() });
        w.until("formation", |w| w.health() == Health::Ok);
        w
    }

    /// Starts a process with a new life.
    fn start(&mut self, n: u8) {
        self.lives += 1;
        let life = self.lives;
        let node = Node {
            life,
            running: true,
            paused: false,
            cut: false,
            conn: None,
            connect_at: self.now.plus_ms(self.rng.random_range(1..20)),
            joined: false,
            view: None,
            beat_at: self.now,
            report_at: self.now,
            last_beat: self.now,
            copies: BTreeMap::new(),
            standby: false,
            follows: None,
            clings: false,
        };
        self.nodes.insert(id(n), node);
    }

    fn kill(&mut self, n: u8) {
        let node = self.nodes.get_mut(&id(n)).unwrap();
        node.running = false;
        if let Some(conn) = node.conn.take() {
            self.later(1, Happening::ToBrain(Event::ConnEnded { conn }));
        }
    }

    fn pause(&mut self, n: u8, paused: bool) {
        self.nodes.get_mut(&id(n)).unwrap().paused = paused;
    }

    fn cut(&mut self, n: u8, cut: bool) {
        self.nodes.get_mut(&id(n)).unwrap().cut = cut;
    }

    /// Another master leads; it starts with a new brain. What was not committed by then is committed now or never.
    fn elect(&mut self) {
        for (key, h) in std::mem::take(&mut self.queue) {
            match h {
                Happening::Commit { entry, .. } if self.rng.random_bool(0.5) => drop(self.commit(&entry)),
                Happening::Commit { .. } | Happening::ToBrain(_) => {}
                other => drop(self.queue.insert(key, other)),
            }
        }
        self.term += 1;
        self.led_since = self.now;
        self.brain = Brain::new(self.params.clone(), self.now);
        for node in self.nodes.values_mut() {
            node.conn = None;
            node.joined = false;
            node.connect_at = self.now.plus_ms(self.rng.random_range(20..200));
        }
        let leader = LeaderId { term: self.term, id: self.params.me.clone() };
        self.hear(Event::BecameLeader { leader, fresh_cluster_id: ClusterId(77) });
    }

    fn later(&mut self, ms: u64, h: Happening) {
        self.seq += 1;
        self.queue.insert((self.now.plus_ms(ms), self.seq), h);
    }

    fn commit(&mut self, entry: &Entry) -> Applied {
        let before = self.state.clone();
        let index = self.state.applied + self.rng.random_range(1..3);
        let done = self.state.apply(index, entry);
        check_step(&before, &self.state, entry, &done);
        if matches!(entry.act, Act::HandOut { .. }) && !self.given_up {
            self.judge_loss(&before);
        }
        done
    }

    fn hear(&mut self, event: Event) {
        let wall = self.now.0 / 1_000_000;
        let commands = self.brain.step(self.now, &self.state, wall, event);
        for c in commands {
            self.obey(c);
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Propose { token, entry } => {
                self.judge_judgement(&entry.act);
                let (from, to) = self.weather.commit_ms;
                let ms = self.rng.random_range(from..=to);
                let unknown = self.rng.random_bool(self.weather.unknown);
                if unknown {
                    self.later(ms + 500, Happening::ToBrain(Event::Proposed { token, outcome: Outcome::Unknown }));
                }
                if self.rng.random_bool(self.weather.twice) {
                    let late = ms + self.rng.random_range(1..1000);
                    self.later(late, Happening::Commit { token, entry: (*entry).clone(), told: false });
                }
                if !unknown || self.rng.random_bool(0.5) {
                    self.later(ms, Happening::Commit { token, entry: *entry, told: !unknown });
                }
            }
            Command::Probe { node, addr, via } => {
                let target = self.nodes.iter().find(|(id, _)| addr_of(id) == addr);
                let outcome = match target {
                    Some((_, n)) if n.cut && via.is_none() => ProbeOutcome::Other,
                    Some((_, n)) if n.running => ProbeOutcome::Open,
                    _ => ProbeOutcome::Refused,
                };
                let ms = self.rng.random_range(1..5);
                self.later(ms, Happening::ToBrain(Event::ProbeResult { node, outcome, via }));
            }
            Command::Push => {
                let cfg = Rc::new(self.state.cfg.clone());
                for (id, life) in self.nodes.iter().map(|(id, n)| (id.clone(), n.life)).collect::<Vec<_>>() {
                    let ms = self.rng.random_range(1..10);
                    self.later(ms, Happening::View { node: id, life, cfg: cfg.clone() });
                }
            }
            Command::Reply { conn, message, .. } => self.reply(conn, *message),
            Command::OrderStop { nodes, .. } => {
                for node in nodes {
                    self.later(3, Happening::Stop { life: node.incarnation.0, node: node.id });
                }
            }
            Command::OrderShutdown { cfg_index, nodes } => {
                for node in nodes {
                    self.later(3, Happening::Shutdown { life: node.incarnation.0, node: node.id, cfg_index });
                }
            }
            Command::Redirect { conn, .. } => {
                let at = self.now.plus_ms(50);
                if let Some(n) = self.nodes.values_mut().find(|n| n.conn == Some(conn)) {
                    n.conn = None;
                    n.connect_at = at;
                }
            }
            Command::Exit { .. } => self.exited = true,
            other => self.said.push(other),
        }
    }

    fn reply(&mut self, conn: ConnId, message: Message) {
        let now = self.now;
        let Some((id, node)) = self.nodes.iter_mut().find(|(_, n)| n.conn == Some(conn)) else {
            if conn == OPERATOR {
                self.told.push(message);
            }
            return;
        };
        match message {
            Message::KeepAliveAck(ack) => {
                self.acks += 1;
                // Behind: it pulls.
                if node.view.as_ref().is_some_and(|v| v.cfg_index < ack.cfg_index) {
                    let view =
                        Happening::View { node: id.clone(), life: node.life, cfg: Rc::new(self.state.cfg.clone()) };
                    self.later(2, view);
                }
            }
            Message::Added(added) => {
                node.joined = true;
                let mut cfg = Config::empty(added.cluster_id, SLOTS_OF_TEST);
                cfg.absorb(&added.view);
                if node.view.as_ref().is_none_or(|v| v.cfg_index < cfg.cfg_index) {
                    node.view = Some(Rc::new(cfg));
                }
            }
            Message::LastLife(last) => {
                node.follows = Some(last.node.incarnation);
                (node.conn, node.connect_at) = (None, now.plus_ms(1));
            }
            // Whatever the error: connect again, later; a fenced life is noticed in the view.
            Message::Error(f) => {
                node.conn = None;
                node.connect_at = now.plus_ms(300);
                if f.code == "FENCED" {
                    self.lives += 1;
                    node.life = self.lives;
                    node.view = None;
                }
            }
            _ => {}
        }
    }

    /// Slots are handed out empty only if the process that held them is gone, not merely silent.
    fn judge_loss(&self, before: &State) {
        for (old, new) in before.cfg.slots.iter().zip(&self.state.cfg.slots) {
            if let (Some(holder), Some(_)) = (&old.last_holder, &new.primary) {
                let n = &self.nodes[&holder.id];
                assert!(!n.running || n.life != holder.incarnation.0, "{holder} lives and its slots were given away");
            }
        }
    }

    /// I15: nobody is declared dead sooner than its timer, counted from the leader's own start; but whose process is gone.
    fn judge_judgement(&self, act: &Act) {
        let Act::NodeDead { dead, .. } = act else { return };
        for d in dead {
            let node = &self.nodes[&d.id];
            let gone = !node.running || node.life != d.incarnation.0;
            let silent = self.now.ms_since(node.last_beat.max(self.led_since));
            assert!(gone || silent >= DEAD_MS, "{d} declared dead after {silent} ms");
        }
    }

    fn step(&mut self) {
        self.now = self.now.plus_ms(STEP_MS);
        while let Some((&key, _)) = self.queue.iter().next().filter(|((at, _), _)| *at <= self.now) {
            match self.queue.remove(&key).unwrap() {
                Happening::Commit { token, entry, told } => {
                    let done = self.commit(&entry);
                    self.hear(Event::Applied);
                    if told {
                        self.hear(Event::Proposed { token, outcome: Outcome::Applied(done) });
                    }
                }
                Happening::ToBrain(event) => self.hear(event),
                Happening::View { node, life, cfg } => {
                    let n = self.nodes.get_mut(&node).unwrap();
                    let newer = n.view.as_ref().is_none_or(|v| v.cfg_index < cfg.cfg_index);
                    if n.life == life && n.running && !n.paused && n.conn.is_some() && newer {
                        n.view = Some(cfg);
                    }
                }
                Happening::Shutdown { node, life, cfg_index } => {
                    let n = &self.nodes[&node];
                    let knows = n.view.as_ref().is_some_and(|v| v.cfg_index >= cfg_index);
                    if n.life == life && n.running && !n.paused && !n.cut && knows {
                        let me = Ref { id: node.clone(), incarnation: Incarnation(life) };
                        // I11: told to go only when it holds nothing, by what the log says too.
                        assert!(self.state.cfg.slots.iter().all(|s| s.replica(&me).is_none()));
                        // Half of them die before they can say so.
                        if self.rng.random_bool(0.5) {
                            self.later(1, Happening::ToBrain(Event::Gone { node: me }));
                        }
                        let n: u8 = node.as_str()[1..].parse().unwrap();
                        self.kill(n);
                    }
                }
                Happening::Stop { node, life } => {
                    let n = &self.nodes[&node];
                    if n.life == life && n.running && !n.paused && !n.cut {
                        let node = Ref { id: node, incarnation: Incarnation(life) };
                        self.later(2, Happening::ToBrain(Event::StopConfirmed { node }));
                    }
                }
            }
        }
        for id in self.nodes.keys().cloned().collect::<Vec<_>>() {
            self.live(&id);
        }
        if self.tick_at <= self.now {
            self.tick_at = self.now.plus_ms(TICK_MS);
            self.hear(Event::Quorum { age_ms: 0 });
            self.hear(Event::Tick);
        }
    }

    /// One node's turn.
    fn live(&mut self, id: &NodeId) {
        let now = self.now;
        let n = self.nodes.get_mut(id).unwrap();
        if !n.running || n.paused || n.cut {
            return;
        }
        let me = Ref { id: id.clone(), incarnation: Incarnation(n.life) };
        let Some(conn) = n.conn else {
            if n.connect_at <= now {
                self.conns += 1;
                n.conn = Some(self.conns);
                let msg = AddCacheServer {
                    node: me,
                    home: HomeId(1000 + u64::from(id.as_str().as_bytes()[1])),
                    addr: format!("c-{id}:1"),
                    peer_addr: addr_of(id),
                    zone: String::new(),
                    weight: 1.0,
                    standby: n.standby,
                    follows: n.follows,
                };
                let conn = self.conns;
                self.later(1, Happening::ToBrain(Event::Register { conn, id: 1, msg }));
            }
            return;
        };
        if n.beat_at <= now {
            n.beat_at = now.plus_ms(BEAT_MS);
            n.last_beat = now;
            let cfg_index = n.view.as_ref().map_or(0, |v| v.cfg_index);
            let msg = KeepAlive { node: me.clone(), cfg_index, leader: None, stats: NodeStats::default() };
            self.later(0, Happening::ToBrain(Event::KeepAlive { conn, id: 2, at: now, msg }));
        }
        let n = self.nodes.get_mut(id).unwrap();
        let Some(view) = n.view.clone() else { return };
        if n.joined && !view.is_live(&me) && !view.slots.iter().any(|s| s.last_holder.as_ref() == Some(&me)) {
            // Fenced, with nothing to claim: a new life.
            self.lives += 1;
            n.life = self.lives;
            n.view = None;
            n.joined = false;
            n.conn = None;
            n.connect_at = now.plus_ms(50);
            return;
        }
        if n.report_at <= now {
            n.report_at = now.plus_ms(50);
            self.report(&me, &view);
            self.relinquish(&me, &view);
        }
    }

    /// A primary reports the learners whose copies are complete.
    fn report(&mut self, me: &Ref, view: &Config) {
        let now = self.now;
        let up: BTreeSet<NodeId> =
            self.nodes.iter().filter(|(_, n)| n.running && !n.paused).map(|(id, _)| id.clone()).collect();
        let n = self.nodes.get_mut(&me.id).unwrap();
        let mut ready: BTreeMap<Ref, Vec<(Slot, u64, u64)>> = BTreeMap::new();
        let mut copies = BTreeMap::new();
        for (ix, s) in view.slots.iter().enumerate().filter(|(_, s)| s.primary.as_ref() == Some(me)) {
            for l in s.learners.iter().filter(|l| up.contains(&l.node.id)) {
                let key = (ix, l.node.clone(), l.since);
                let began = n.copies.get(&key).copied().unwrap_or(now);
                if now.ms_since(began) >= self.copy_ms {
                    ready.entry(l.node.clone()).or_default().push((Slot(ix as u16), s.cver, l.since));
                }
                copies.insert(key, began);
            }
        }
        n.copies = copies;
        for (learner, slots) in ready {
            let msg = LearnerReady { primary: me.clone(), learner, slots, copied: None };
            self.later(1, Happening::ToBrain(Event::LearnerReady(msg)));
        }
    }

    /// A primary gives up what it shall, once the target is there.
    fn relinquish(&mut self, me: &Ref, view: &Config) {
        if self.nodes[&me.id].clings {
            return;
        }
        let there =
            |to: &Ref| self.nodes.get(&to.id).is_some_and(|n| n.running && !n.paused && n.life == to.incarnation.0);
        let gives = |s: &SlotState| s.primary.as_ref() == Some(me) && s.handover_to.as_ref().is_some_and(there);
        let slots: Vec<(Slot, u64, u64)> = view
            .slots
            .iter()
            .enumerate()
            .filter(|(_, s)| gives(s))
            .map(|(ix, s)| (Slot(ix as u16), s.cver, 0))
            .collect();
        if !slots.is_empty() {
            self.later(1, Happening::ToBrain(Event::Relinquish(Relinquish { primary: me.clone(), slots })));
        }
    }

    fn run(&mut self, ms: u64) {
        let end = self.now.plus_ms(ms);
        while self.now < end {
            self.step();
        }
    }

    /// Runs until it holds; the milliseconds that took.
    fn until(&mut self, what: &str, done: impl Fn(&World) -> bool) -> u64 {
        let start = self.now;
        while !done(self) {
            self.step();
            assert!(
                self.now.ms_since(start) < LIMIT_MS,
                "{what} never came: {:?}\n{:#?}",
                self.said,
                self.state.events.iter().rev().take(20).map(|e| e.text.clone()).collect::<Vec<_>>()
            );
        }
        self.now.ms_since(start)
    }

    fn facts(&self) -> RaftFacts {
        RaftFacts {
            term: self.term,
            leader: self.brain.leading(self.now).cloned(),
            masters: vec![MasterStatus {
                id: "m1".into(),
                addr: "127.0.0.1:7101".into(),
                role: "leader".into(),
                alive: true,
                last_log: self.state.applied,
                applied: self.state.applied,
            }],
            warnings: vec![],
        }
    }

    fn health(&self) -> Health {
        status(&self.state, Some((self.brain.heartbeats(), self.now)), &self.facts()).state
    }

    /// An operator asks; what it is told.
    fn order(&mut self, message: Message) -> Message {
        self.told.clear();
        self.hear(Event::Operator { conn: OPERATOR, id: 5, by: "cli\u{1b}[2J".into(), message });
        self.until("an answer", |w| !w.told.is_empty());
        self.told.remove(0)
    }

    fn member(&self, n: u8) -> NodeState {
        self.state.cfg.members[&id(n)].state
    }

    fn events(&self, kind: &str) -> usize {
        self.state.events.iter().filter(|e| e.kind == kind).count()
    }

    /// Everything serves with a backup, nothing is left to do, and everybody is up.
    fn at_rest(&self) -> bool {
        self.health() == Health::Ok
            && self.state.operations.values().all(|o| !o.state.is_open())
            && self.nodes.iter().all(|(id, n)| {
                let me = Ref { id: id.clone(), incarnation: Incarnation(n.life) };
                !n.running || self.state.cfg.member(&me).is_some_and(|m| m.state == NodeState::Up)
            })
            && self.state.cfg.slots.iter().all(|s| s.insync.len() == 2 && s.learners.is_empty())
    }
}

fn addr_of(id: &NodeId) -> String {
    format!("p-{id}:1")
}
