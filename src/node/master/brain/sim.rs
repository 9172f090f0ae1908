//! A small deterministic world around one brain: an oracle for the log (which delays, repeats and loses outcomes), nodes
//! that beat, copy, die and return. After every entry the invariants of the state are checked.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::node::master::entry::{Applied, OperationState};
use crate::node::master::heartbeat::{DEAD_MS, SUSPECT_MS};
use crate::node::master::report::{RaftFacts, status};
use crate::node::master::state::tests::check_step;
use crate::proto::control::{AddCacheServer, Complain, KeepAlive, LearnerReady};
use crate::proto::id::{HomeId, Incarnation};
use crate::proto::stats::NodeStats;
use crate::proto::status::{Health, MasterStatus, NodeState};
use crate::proto::view::{Config, Phase};

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
}

enum Happening {
    Commit { token: Token, entry: Entry, told: bool },
    ToBrain(Event),
    View { node: NodeId, life: u64, cfg: Rc<Config> },
    Stop { node: NodeId, life: u64 },
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
                    standby: false,
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
            let msg = LearnerReady { primary: me.clone(), learner, slots };
            self.later(1, Happening::ToBrain(Event::LearnerReady(msg)));
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

#[test]
fn a_cluster_forms_when_all_expected_nodes_are_there() {
    let mut w = World::new(1, 2, params());
    w.run(1000);
    assert!(!w.state.is_formed(), "the third may still come");
    w.start(3);
    let ms = w.until("formation", |w| w.at_rest());
    assert!(ms < 1000, "{ms}");
    assert_eq!(w.state.cfg.members.values().filter(|m| m.state == NodeState::Up).count(), 3);
    assert!(w.state.primaries().values().all(|n| (20..=23).contains(n)), "{:?}", w.state.primaries());
    assert_eq!(w.events("formed"), 1);
}

#[test]
fn fewer_nodes_form_a_cluster_when_the_wait_is_over() {
    let mut w = World::new(1, 1, params());
    let ms = w.until("formation", |w| w.state.is_formed());
    assert!(ms >= 3000, "{ms}");
    w.run(500);
    assert_eq!(w.health(), Health::Degraded, "one node, one backup asked for");
    assert!(w.state.operations.is_empty(), "nobody can take a backup, so nothing is begun");
    // The second one takes the backups.
    w.start(2);
    w.until("rebuild", |w| w.at_rest());
    assert_eq!(w.events("rebuilt"), 1);
}

#[test]
fn without_backups_one_node_is_enough() {
    let mut w = World::new(1, 1, BrainParams { backups: 0, expect_nodes: 1, ..params() });
    w.until("formation", |w| w.health() == Health::Ok);
    assert!(w.state.cfg.slots.iter().all(|s| s.insync.len() == 1));
}

#[test]
fn a_killed_node_is_replaced_at_once_and_its_copies_are_rebuilt() {
    let mut w = World::formed(1, 3);
    w.kill(2);
    let ms = w.until("death", |w| w.member(2) == NodeState::Dead);
    assert!(ms <= 300, "{ms}");
    assert!(w.state.cfg.slots.iter().all(|s| s.phase == Phase::Serving));
    assert_eq!(w.health(), Health::Degraded);
    w.until("rebuild", |w| w.at_rest());
    assert_eq!(w.state.lost_total, 0);
    let op = w.state.operations.values().next().unwrap();
    assert_eq!((op.state, op.slots_done), (OperationState::Done, op.slots_total));
}

#[test]
fn a_paused_node_is_suspect_then_dead_then_comes_back_as_a_new_life() {
    let mut w = World::formed(1, 3);
    w.pause(2, true);
    w.run(SUSPECT_MS + 100);
    assert_eq!((w.health(), w.events("node-suspect")), (Health::Degraded, 1));
    let ms = w.until("death", |w| w.member(2) == NodeState::Dead);
    assert!((DEAD_MS - SUSPECT_MS - 400..=DEAD_MS - SUSPECT_MS + 200).contains(&ms), "{ms}");
    w.until("rebuild", |w| w.health() == Health::Ok);
    w.pause(2, false);
    w.until("return", |w| w.at_rest());
    assert_eq!((w.state.lost_total, w.events("node-back")), (0, 0));
}

#[test]
fn a_short_pause_is_forgiven() {
    let mut w = World::formed(1, 3);
    w.pause(2, true);
    w.run(2000);
    w.pause(2, false);
    w.run(2000);
    assert_eq!((w.member(2), w.events("node-dead"), w.events("node-recovered")), (NodeState::Up, 0, 1));
}

#[test]
fn a_process_started_again_ends_its_old_life_at_once() {
    let mut w = World::formed(1, 3);
    // The connection's end is not noticed, as after a power cut.
    w.nodes.get_mut(&id(2)).unwrap().conn = None;
    w.start(2);
    w.until("the new life", |w| w.state.cfg.members[&id(2)].incarnation == Incarnation(w.nodes[&id(2)].life));
    assert_eq!(w.events("node-dead"), 1);
    w.until("rebuild", |w| w.at_rest());
    assert_eq!(w.state.lost_total, 0);
}

#[test]
fn both_holders_killed_is_one_loss_told_once() {
    let mut w = World::formed(1, 4);
    let held: Vec<usize> = (0..SLOTS_OF_TEST)
        .filter(|ix| {
            let s = &w.state.cfg.slots[*ix];
            s.insync.iter().all(|r| r.node.id == id(1) || r.node.id == id(2))
        })
        .collect();
    assert!(!held.is_empty());
    w.kill(1);
    w.kill(2);
    w.until("deaths", |w| w.member(1) == NodeState::Dead && w.member(2) == NodeState::Dead);
    let orphans = w.state.cfg.slots.iter().filter(|s| s.phase == Phase::Orphan).count();
    assert_eq!((orphans, w.health()), (held.len(), Health::Down));
    // Evidence takes its second.
    let ms = w.until("hand-out", |w| w.state.cfg.slots.iter().all(|s| s.phase == Phase::Serving));
    assert!(ms >= 900, "{ms}");
    assert_eq!((w.state.lost_total, w.events("slots-lost")), (held.len() as u64, 1));
    w.until("rebuild", |w| w.at_rest());
}

#[test]
fn a_paused_last_holder_keeps_its_slots_and_returns_with_them() {
    let mut w = World::formed(1, 2);
    w.kill(2);
    w.until("death", |w| w.member(2) == NodeState::Dead);
    w.pause(1, true);
    w.until("orphans", |w| w.member(1) == NodeState::Dead);
    // A new node is there and may hold slots, but an open port proves that the holder lives.
    w.start(3);
    w.run(8000);
    assert!(w.state.cfg.slots.iter().all(|s| s.phase == Phase::Orphan));
    w.pause(1, false);
    w.until("return", |w| w.at_rest());
    assert_eq!((w.state.lost_total, w.events("node-back"), w.events("slots-lost")), (0, 1, 0));
}

#[test]
fn where_refusals_prove_nothing_orphans_wait_for_the_same_home() {
    let mut w = World::new(1, 3, BrainParams { refused_is_death: false, ..params() });
    w.until("formation", |w| w.at_rest());
    w.kill(1);
    w.kill(2);
    w.run(DEAD_MS - 300);
    assert_eq!(w.events("node-dead"), 0);
    w.until("deaths", |w| w.member(1) == NodeState::Dead && w.member(2) == NodeState::Dead);
    w.run(8000);
    let holders: BTreeSet<NodeId> = w.state.holders.keys().map(|h| h.id.clone()).collect();
    assert!(!holders.is_empty() && w.state.lost_total == 0);
    w.start(1);
    w.start(2);
    w.until("rebuild", |w| w.at_rest());
    assert_eq!(w.events("slots-lost"), 1);
}

#[test]
fn a_whole_restart_is_one_loss_event() {
    for seed in 0..5 {
        let mut w = World::formed(seed, 3);
        for n in 1..=3 {
            w.kill(n);
        }
        // The masters went too.
        w.elect();
        w.run(700);
        for n in 1..=3 {
            w.start(n);
            w.run(300);
        }
        w.until("everything", |w| w.at_rest());
        assert_eq!((w.state.lost_total, w.events("slots-lost")), (SLOTS_OF_TEST as u64, 1));
        assert!(w.state.primaries().values().all(|n| (20..=23).contains(n)), "{:?}", w.state.primaries());
    }
}

#[test]
fn a_whole_restart_waits_for_who_is_missing_but_not_for_ever() {
    let mut w = World::formed(1, 3);
    for n in 1..=3 {
        w.kill(n);
    }
    w.elect();
    w.start(1);
    let ms =
        w.until("hand-out", |w| w.state.lost_total > 0 && w.state.cfg.slots.iter().all(|s| s.phase == Phase::Serving));
    assert!((4500..6500).contains(&ms), "{ms}");
}

#[test]
fn a_planned_stop_loses_nothing() {
    let mut w = World::formed(1, 3);
    w.hear(Event::Operator { conn: OPERATOR, id: 5, by: "cli".into(), message: Message::ClusterStop(Empty {}) });
    let ms = w.until("exit", |w| w.exited);
    assert!(ms < 1000, "{ms}");
    for n in 1..=3 {
        w.kill(n);
    }
    assert!(w.state.cfg.members.values().all(|m| m.state == NodeState::Left));
    w.run(5000);
    assert_eq!(w.events("node-dead"), 0);
    // Everything starts again.
    w.elect();
    w.start(1);
    w.run(400);
    w.start(2);
    w.run(400);
    assert!(w.state.primaries().is_empty(), "the third is awaited");
    w.start(3);
    w.until("service", |w| w.at_rest());
    assert_eq!((w.state.lost_total, w.events("slots-lost"), w.events("node-dead")), (0, 0, 0));
    assert!(w.state.primaries().values().all(|n| (20..=23).contains(n)), "{:?}", w.state.primaries());
}

#[test]
fn a_stop_goes_on_under_a_new_leader_and_ends_without_the_silent() {
    let mut w = World::formed(1, 3);
    w.pause(3, true);
    w.hear(Event::Operator { conn: OPERATOR, id: 5, by: "cli".into(), message: Message::ClusterStop(Empty {}) });
    w.until("stopping", |w| w.state.cfg.stopping);
    w.elect();
    let ms = w.until("exit", |w| w.exited);
    assert!(ms < stop::CONFIRM_MS, "{ms}");
    assert_eq!(w.member(1), NodeState::Left);
    assert_eq!(w.member(3), NodeState::Up, "it did not confirm: a member still");
    assert_eq!(w.state.lost_total, 0);
}

#[test]
fn a_backup_that_stalls_is_replaced() {
    let mut w = World::formed(1, 3);
    let lives: Vec<Ref> = (1..=3).map(|n| w.state.cfg.current(&id(n)).unwrap()).collect();
    let complain = |from: usize, about: usize| {
        Event::Complain(Complain { from: lives[from].clone(), about: lives[about].clone(), for_ms: stall::STALL_MS })
    };
    // Two complain of n3; n3, as primary, complains of one of them.
    w.hear(complain(0, 2));
    w.hear(complain(1, 2));
    w.hear(complain(2, 0));
    w.run(1000);
    assert_eq!(w.events("stalled"), 3);
    let held = w.state.cfg.slots.iter().filter(|s| s.replica(&lives[2]).is_some());
    let with_n2 = held.filter(|s| s.primary.as_ref() == Some(&lives[2])).all(|s| s.in_sync(&lives[1]));
    assert!(with_n2, "n3 leads only where its partner did not stall with it");
    assert!(w.state.cfg.slots.iter().all(|s| s.phase == Phase::Serving));
    assert_eq!(w.state.lost_total, 0);
    // Too short a stall, or one of oneself, is nothing.
    let before = w.state.cfg.cfg_index;
    w.hear(Event::Complain(Complain { from: lives[0].clone(), about: lives[1].clone(), for_ms: 1999 }));
    w.hear(complain(0, 0));
    w.run(400);
    assert!(w.state.cfg.cfg_index == before || w.events("stalled") == 3);
    w.until("rebuild", |w| w.health() == Health::Ok);
}

#[test]
fn a_leader_that_is_cut_off_hands_over_instead_of_burying_everybody() {
    let mut w = World::formed(1, 3);
    for n in 1..=3 {
        w.cut(n, true);
    }
    w.run(DEAD_MS + death::MASS_WAIT_MS + 1000);
    assert_eq!(w.events("node-dead"), 0);
    let transfers = w.said.iter().filter(|c| matches!(c, Command::Transfer { to: Some(_), answer: None })).count();
    assert_eq!(transfers, 1);
    // Nobody took over: then it decides alone, once.
    w.until("deaths", |w| w.events("node-dead") == 3);
}

#[test]
fn nodes_that_all_hang_are_dead_although_their_ports_are_open() {
    let mut w = World::formed(1, 3);
    for n in 1..=3 {
        w.pause(n, true);
    }
    w.until("deaths", |w| w.events("node-dead") == 3);
    assert!(!w.said.iter().any(|c| matches!(c, Command::Transfer { .. })));
}

#[test]
fn without_a_majority_it_neither_acknowledges_nor_decides() {
    let mut w = World::formed(1, 3);
    w.run(500);
    let acks = w.acks;
    assert!(acks > 0);
    // Ticks go on, Raft hears nobody.
    let start = w.now;
    let mut proposals = 0;
    for k in 1..=200u64 {
        let now = start.plus_ms(k * TICK_MS);
        let said = w.brain.step(now, &w.state, 0, Event::Tick);
        if k * TICK_MS > QUORUM_MS {
            proposals += said.iter().filter(|c| matches!(c, Command::Propose { .. })).count();
            let me = w.state.cfg.current(&id(1)).unwrap();
            let msg = KeepAlive { node: me, cfg_index: 1, leader: None, stats: NodeStats::default() };
            assert!(w.brain.step(now, &w.state, 0, Event::KeepAlive { conn: 1, id: 1, at: now, msg }).is_empty());
        }
    }
    assert_eq!(proposals, 0);
    assert!(w.brain.leading(start.plus_ms(200 * TICK_MS)).is_none());
    // Heard again: everybody gets a whole timer.
    let now = start.plus_ms(201 * TICK_MS);
    w.brain.step(now, &w.state, 0, Event::Quorum { age_ms: 0 });
    assert_eq!(w.brain.heartbeats().judge(now.plus_ms(DEAD_MS - 1)).expired, vec![]);
    assert_eq!(w.brain.heartbeats().judge(now.plus_ms(DEAD_MS)).expired.len(), 3);
}

#[test]
fn a_leader_that_was_itself_late_judges_nobody_for_it() {
    let mut w = World::formed(1, 3);
    w.now = w.now.plus_ms(20_000);
    w.hear(Event::Quorum { age_ms: 0 });
    w.hear(Event::Tick);
    w.run(1000);
    assert_eq!(w.events("node-dead"), 0);
}

#[test]
fn leadership_moves_only_to_masters_that_exist() {
    let mut w = World::formed(1, 3);
    let mut ask = |to: Option<&str>| {
        let message = Message::SwitchMaster(crate::proto::control::SwitchMaster { to: to.map(m) });
        let event = Event::Operator { conn: OPERATOR, id: 5, by: "cli".into(), message };
        w.brain.step(w.now, &w.state, 0, event).remove(0)
    };
    assert!(matches!(ask(None), Command::Transfer { to: None, answer: Some((OPERATOR, 5)) }));
    assert!(matches!(ask(Some("m2")), Command::Transfer { to: Some(_), .. }));
    assert!(matches!(ask(Some("m1")), Command::Reply { message, .. } if matches!(*message, Message::Ok(_))));
    assert!(matches!(ask(Some("m9")), Command::Reply { message, .. } if matches!(*message, Message::Error(_))));
}

#[test]
fn an_operator_gives_up_on_a_holder_and_answers_for_it() {
    use crate::proto::control::Forget;
    let mut w = World::formed(1, 2);
    w.kill(2);
    w.until("death", |w| w.member(2) == NodeState::Dead);
    w.pause(1, true);
    w.until("orphans", |w| w.member(1) == NodeState::Dead);
    w.start(3);
    w.run(6000);
    let forget = |accept_data_loss| Message::Forget(Forget { node: id(1), accept_data_loss });
    assert!(matches!(w.order(forget(false)), Message::Error(f) if f.code == "UNSAFE"));
    w.given_up = true;
    assert_eq!(w.order(forget(true)), Message::Ok(Empty {}));
    w.until("hand-out", |w| w.state.lost_total == SLOTS_OF_TEST as u64);
    let event = w.state.events.iter().find(|e| e.kind == "node-forgotten").unwrap();
    assert_eq!(event.by.as_deref(), Some("cli[2J"), "no control characters in the record");
    // The holder lived after all: it is nobody now, and comes again as somebody new.
    w.pause(1, false);
    w.until("rebuild", |w| w.at_rest());
}

#[test]
fn a_rebuild_can_be_paused_but_not_cancelled() {
    use crate::proto::control::OperationId;
    let mut w = World::formed(1, 4);
    w.copy_ms = 3000;
    w.kill(4);
    w.until("rebuild", |w| !w.state.operations.is_empty());
    let operation = *w.state.operations.keys().next().unwrap();
    assert!(matches!(w.order(Message::Cancel(OperationId { operation })), Message::Error(f) if f.code == "UNSAFE"));
    assert_eq!(w.order(Message::Pause(OperationId { operation })), Message::Ok(Empty {}));
    w.kill(3);
    w.until("death", |w| w.member(3) == NodeState::Dead);
    let lacking = |w: &World| w.state.cfg.slots.iter().filter(|s| s.insync.len() == 1 && s.learners.is_empty()).count();
    let waits = lacking(&w);
    assert!(waits > 0);
    w.start(3);
    w.run(6000);
    assert_eq!(lacking(&w), waits, "nothing new is begun");
    assert_eq!(w.order(Message::Resume(OperationId { operation })), Message::Ok(Empty {}));
    w.start(4);
    w.until("rebuild", |w| w.at_rest());
}

/// Faults at random over an unreliable log; in the end everything runs, all are up, and what was lost was told.
#[test]
fn storms_pass() {
    for seed in 0..25 {
        let mut w = World::formed(seed, 4);
        w.weather = STORM;
        w.copy_ms = 200;
        for _ in 0..12 {
            let n = w.rng.random_range(1..=4);
            match w.rng.random_range(0..8) {
                0 => w.kill(n),
                1 => w.pause(n, true),
                2 => w.pause(n, false),
                3 => w.cut(n, true),
                4 => w.cut(n, false),
                5 => w.elect(),
                _ => {
                    if !w.nodes[&id(n)].running {
                        w.start(n);
                    }
                }
            }
            let ms = w.rng.random_range(100..5000);
            w.run(ms);
        }
        for n in 1..=4 {
            w.pause(n, false);
            w.cut(n, false);
            if !w.nodes[&id(n)].running {
                w.start(n);
            }
        }
        w.until("rest under a storm", |w| w.health() == Health::Ok);
        w.weather = CALM;
        w.until("rest", |w| w.at_rest());
        assert_eq!(w.state.lost_total > 0, w.events("slots-lost") > 0, "seed {seed}");
    }
}
