//! The masters: real brains over an oracle in Raft's place, which loses leaders, forgets outcomes and commits twice.

use std::collections::BTreeMap;
use std::rc::Rc;

use rand::Rng;

use super::cache::node_at;
use super::net::{Clock, ConnId, MS, Net, Packet, Timer, Who};
use super::world::Deed;
use crate::node::master::brain::{Brain, BrainParams, Command, Event, Outcome, ProbeOutcome, TICK_MS, Token};
use crate::node::master::entry::{Act, Answer, Applied, Entry};
use crate::node::master::report::iplist;
use crate::node::master::state::State;
use crate::proto::control::{Message, RefreshIp, RefreshMaster, ShutdownCache, StopOrder};
use crate::proto::id::{ClusterId, LeaderId, MasterId, Ref};

/// How long a proposal is waited for, milliseconds, as in the runtime.
const PROPOSE_MS: u64 = 5000;
/// Elections begin so long after the leader was last heard, milliseconds.
const ELECTION_MS: (u64, u64) = (750, 1000);
/// Between two looks at who reaches whom, milliseconds.
pub const RAFT_MS: u64 = 25;

/// One master's process.
pub struct Master {
    pub ix: usize,
    pub id: MasterId,
    pub clock: Clock,
    pub running: bool,
    pub busy_until: u64,
    pub gen_no: u64,
    pub brain: Brain,
    params: BrainParams,
    /// Entries applied.
    applied: usize,
    /// What Raft last told its brain.
    pub led: Option<LeaderId>,
    /// Who it thinks leads.
    knows: Option<LeaderId>,
    announced: Option<LeaderId>,
    quorum_at: u64,
    conns: BTreeMap<ConnId, Line>,
    nodes: BTreeMap<Ref, ConnId>,
    /// When each life was last heard, true time.
    pub beats: BTreeMap<Ref, u64>,
    /// When it last became leader.
    pub led_since: u64,
    ticking: bool,
    next_conn: ConnId,
}

#[derive(Default)]
struct Line {
    stands_at: Option<u64>,
}

/// A proposal that waits for a majority.
#[derive(Debug)]
pub struct Proposal {
    pub master: usize,
    pub gen_no: u64,
    pub token: Token,
    pub entry: Entry,
    pub told: bool,
    pub twice: bool,
    pub since: u64,
}

/// Raft's place: one log, at most one leader whose proposals are accepted.
pub struct Oracle {
    /// After each entry; the first is the empty state.
    pub states: Vec<Rc<State>>,
    pub leader: Option<usize>,
    pub leader_since: u64,
    term: u64,
    lost_at: Option<u64>,
    patience: u64,
    pending: Vec<Proposal>,
    pub unknown: f64,
    pub twice: f64,
    /// The longest a commit takes, milliseconds.
    pub commit_ms: u64,
}

/// An entry was committed.
pub struct Committed {
    pub entry: Entry,
    pub done: Applied,
    pub before: Rc<State>,
    pub after: Rc<State>,
}

pub struct Masters {
    pub all: Vec<Master>,
    pub oracle: Oracle,
    cluster: u64,
    /// Of one event's handling; the world checks and empties it.
    pub committed: Vec<Committed>,
    /// Deaths that brains proposed, to be judged (I15).
    pub judged: Vec<(usize, Vec<Ref>)>,
    /// What operators were told.
    pub told: Vec<(u64, Message)>,
    /// A script is at work: brains propose nothing but what it lets through.
    pub lets: Option<fn(&Act) -> bool>,
}

impl Masters {
    pub fn new(net: &mut Net, count: usize, slots: usize, nodes: usize, drift: f64) -> Self {
        let id = |m: usize| MasterId::new(&format!("m{}", m + 1)).unwrap();
        let elsewhere = net.chance(0.5);
        let all = (0..count)
            .map(|ix| {
                let params = BrainParams {
                    me: id(ix),
                    others: (0..count).filter(|m| *m != ix).map(|m| (id(m), elsewhere)).collect(),
                    cluster: "sim".into(),
                    backups: 1,
                    expect_nodes: nodes,
                    form_wait_ms: 3000,
                    refused_is_death: true,
                };
                let clock = Clock::new(&mut net.rng, drift);
                Master {
                    ix,
                    id: id(ix),
                    brain: Brain::new(params.clone(), clock.at(net.now)),
                    clock,
                    running: true,
                    busy_until: 0,
                    gen_no: 1,
                    params,
                    applied: 0,
                    led: None,
                    knows: None,
                    announced: None,
                    quorum_at: net.now,
                    conns: BTreeMap::new(),
                    nodes: BTreeMap::new(),
                    beats: BTreeMap::new(),
                    led_since: 0,
                    ticking: false,
                    next_conn: 1 << 40,
                }
            })
            .collect();
        let stormy = net.chance(0.4);
        let oracle = Oracle {
            states: vec![Rc::new(State::new(slots))],
            leader: None,
            leader_since: 0,
            term: 0,
            lost_at: Some(0),
            patience: 0,
            pending: Vec::new(),
            unknown: if stormy { 0.05 } else { 0.0 },
            twice: if stormy { 0.05 } else { 0.0 },
            commit_ms: if stormy { 120 } else { 3 },
        };
        Self {
            all,
            oracle,
            cluster: net.rng.random_range(1..u64::MAX),
            committed: Vec::new(),
            judged: Vec::new(),
            told: Vec::new(),
            lets: None,
        }
    }

    /// The applied state, all that is committed.
    pub fn truth(&self) -> &Rc<State> {
        &self.oracle.states[self.oracle.states.len() - 1]
    }

    fn reach(&self, net: &Net, a: usize, b: usize) -> bool {
        let awake = |m: usize| self.all[m].running && self.all[m].busy_until <= net.now;
        a == b && awake(a)
            || awake(a)
                && awake(b)
                && !net.is_cut(Who::Master(a), Who::Master(b))
                && !net.is_cut(Who::Master(b), Who::Master(a))
    }

    fn has_majority(&self, net: &Net, m: usize) -> bool {
        (0..self.all.len()).filter(|&o| self.reach(net, m, o)).count() * 2 > self.all.len()
    }

    /// Who leads, reaches a majority, and has applied everything.
    pub fn leads(&self, net: &Net) -> Option<usize> {
        let l = self.oracle.leader?;
        let m = &self.all[l];
        (self.has_majority(net, l) && m.brain.leading(m.clock.at(net.now)).is_some()).then_some(l)
    }

    pub fn kill(&mut self, net: &mut Net, ix: usize) {
        let m = &mut self.all[ix];
        m.running = false;
        m.gen_no += 1;
        m.conns.clear();
        m.nodes.clear();
        net.vanish(Who::Master(ix));
        if self.oracle.leader == Some(ix) {
            self.depose(net);
        }
    }

    pub fn start(&mut self, net: &mut Net, ix: usize) {
        let m = &mut self.all[ix];
        m.running = true;
        m.busy_until = net.now;
        m.brain = Brain::new(m.params.clone(), m.clock.at(net.now));
        m.led = None;
        m.knows = None;
        m.announced = None;
        m.ticking = false;
        m.quorum_at = net.now;
    }

    fn depose(&mut self, net: &mut Net) {
        self.oracle.leader = None;
        self.oracle.lost_at = Some(net.now);
        self.oracle.patience = net.ms(ELECTION_MS.0, ELECTION_MS.1);
    }

    /// Raft's own life: who reaches whom, elections, followers that catch up, proposals that waited.
    pub fn raft(&mut self, net: &mut Net) {
        for m in 0..self.all.len() {
            if self.has_majority(net, m) {
                self.all[m].quorum_at = net.now;
            }
        }
        if let Some(l) = self.oracle.leader {
            if self.has_majority(net, l) {
                self.oracle.lost_at = None;
            } else if self.oracle.lost_at.is_none() {
                self.oracle.lost_at = Some(net.now);
                self.oracle.patience = net.ms(ELECTION_MS.0, ELECTION_MS.1);
            }
        }
        if let Some(at) = self.oracle.lost_at
            && net.now.saturating_sub(at) >= self.oracle.patience
        {
            let fit: Vec<usize> = (0..self.all.len()).filter(|&m| self.has_majority(net, m)).collect();
            if !fit.is_empty() {
                let to = fit[net.rng.random_range(0..fit.len())];
                self.elect(net, to);
            }
        }
        for m in 0..self.all.len() {
            self.look(net, m);
        }
        let pending = std::mem::take(&mut self.oracle.pending);
        for p in pending {
            self.append(net, p);
        }
    }

    /// Another master leads. What was not committed by then is committed now or never.
    pub fn elect(&mut self, net: &mut Net, to: usize) {
        for p in std::mem::take(&mut self.oracle.pending) {
            if net.chance(0.5) {
                self.commit(net, &p.entry);
            }
        }
        self.oracle.term += 1;
        self.oracle.leader = Some(to);
        self.oracle.leader_since = net.now;
        self.oracle.lost_at = None;
        net.note(None, || format!("raft: m{} is elected", to + 1));
    }

    fn leader_id(&self, l: usize) -> LeaderId {
        LeaderId { term: self.oracle.term, id: self.all[l].id.clone() }
    }

    /// What Raft tells a master's runtime, as `Runtime::look`.
    fn look(&mut self, net: &mut Net, ix: usize) {
        let m = &self.all[ix];
        if !m.running || m.busy_until > net.now {
            return;
        }
        if let Some(l) = self.oracle.leader
            && self.reach(net, ix, l)
        {
            let id = self.leader_id(l);
            self.all[ix].knows = Some(id);
            self.catch_up(net, ix);
        }
        let m = &self.all[ix];
        let fresh = net.now.saturating_sub(m.quorum_at) < m.clock.true_ns(1000 * MS);
        let lead = m.knows.clone().filter(|k| k.id == m.id && fresh);
        if lead != m.led {
            let before = std::mem::replace(&mut self.all[ix].led, lead.clone());
            if before.is_some() {
                self.step(net, ix, Event::LostLeadership);
            }
            if let Some(leader) = lead {
                self.all[ix].led_since = net.now;
                let fresh_cluster_id = ClusterId(self.cluster);
                self.step(net, ix, Event::BecameLeader { leader, fresh_cluster_id });
                if !self.all[ix].ticking {
                    self.all[ix].ticking = true;
                    self.tick_later(net, ix);
                }
            }
        }
        let m = &self.all[ix];
        if m.led.is_none() && m.knows.is_some() && m.knows != m.announced {
            self.announce(net, ix);
        }
    }

    fn tick_later(&self, net: &mut Net, ix: usize) {
        let m = &self.all[ix];
        let when = net.now + m.clock.true_ns(TICK_MS * MS);
        net.timer(when, Who::Master(ix), m.gen_no, Timer::Tick);
    }

    pub fn tick(&mut self, net: &mut Net, ix: usize) {
        if self.all[ix].led.is_none() {
            self.all[ix].ticking = false;
            return;
        }
        self.tick_later(net, ix);
        let m = &self.all[ix];
        let age_ms = m.clock.at(net.now).ms_since(m.clock.at(m.quorum_at));
        self.step(net, ix, Event::Quorum { age_ms });
        self.step(net, ix, Event::Tick);
    }

    pub fn catch_up(&mut self, net: &mut Net, ix: usize) {
        let newest = self.oracle.states.len() - 1;
        if self.all[ix].applied < newest {
            self.all[ix].applied = newest;
            self.step(net, ix, Event::Applied);
            self.push(net, ix);
        }
    }

    /// Sends the newest configuration to nodes that stand at an older one.
    fn push(&mut self, net: &mut Net, ix: usize) {
        let state = self.oracle.states[self.all[ix].applied].clone();
        let behind: Vec<(ConnId, u64)> = self.all[ix]
            .conns
            .iter_mut()
            .filter_map(|(conn, line)| {
                let have = line.stands_at.filter(|&at| at < state.cfg.cfg_index)?;
                line.stands_at = Some(state.cfg.cfg_index);
                Some((*conn, have))
            })
            .collect();
        for (conn, have) in behind {
            self.say(net, ix, conn, refresh_ip(&state, have));
        }
    }

    fn say(&self, net: &mut Net, ix: usize, conn: ConnId, m: Message) {
        let late = if net.chance(0.02) { net.ms(1, 30) } else { 0 };
        let at = net.now.max(self.all[ix].busy_until) + late;
        net.send(conn, 1, Packet::Control(Box::new(m)), at);
    }

    fn who_leads(&self, net: &Net, ix: usize) -> RefreshMaster {
        let m = &self.all[ix];
        let ready = m.brain.leading(m.clock.at(net.now)).is_some();
        let leader = m.knows.clone().filter(|k| k.id != m.id || ready);
        let masters: Vec<(MasterId, String)> =
            self.all.iter().map(|m| (m.id.clone(), format!("m{}:1", m.ix + 1))).collect();
        let addr = leader.as_ref().and_then(|l| masters.iter().find(|(id, _)| *id == l.id)).map(|(_, a)| a.clone());
        RefreshMaster { leader, addr, masters }
    }

    fn announce(&mut self, net: &mut Net, ix: usize) {
        let who = self.who_leads(net, ix);
        self.all[ix].announced.clone_from(&who.leader);
        for conn in self.all[ix].conns.keys().copied().collect::<Vec<_>>() {
            self.say(net, ix, conn, Message::RefreshMaster(who.clone()));
        }
    }

    /// Something arrives at a master's port.
    pub fn packet(&mut self, net: &mut Net, ix: usize, conn: ConnId, packet: Packet) {
        match packet {
            Packet::Dial(_) => {
                self.all[ix].conns.insert(conn, Line::default());
            }
            Packet::Closed => {
                let m = &mut self.all[ix];
                m.conns.remove(&conn);
                m.nodes.retain(|_, c| *c != conn);
                self.step(net, ix, Event::ConnEnded { conn });
            }
            Packet::Control(m) => {
                let twice = net.chance(0.01) && !matches!(*m, Message::AddCacheServer(_) | Message::RefreshIp(_));
                if twice {
                    // Control messages may be repeated, and late.
                    let when = net.now + net.ms(0, 3000);
                    let gen_no = self.all[ix].gen_no;
                    net.at(
                        when,
                        super::net::Happening::World(Deed::Ghost { master: ix, gen_no, conn, message: m.clone() }),
                    );
                }
                self.said(net, ix, conn, *m);
            }
            _ => {}
        }
    }

    pub fn said(&mut self, net: &mut Net, ix: usize, conn: ConnId, message: Message) {
        let event = match message {
            Message::RefreshIp(ask) => {
                let state = self.oracle.states[self.all[ix].applied].clone();
                let base = if ask.have > state.cfg.cfg_index { 0 } else { ask.have };
                return self.say(net, ix, conn, refresh_ip(&state, base));
            }
            Message::KeepAlive(msg) => {
                let m = &mut self.all[ix];
                if let Some(line) = m.conns.get_mut(&conn) {
                    line.stands_at.get_or_insert(msg.cfg_index);
                }
                m.nodes.insert(msg.node.clone(), conn);
                m.beats.insert(msg.node.clone(), net.now);
                let at = m.clock.at(net.now);
                Event::KeepAlive { conn, id: 1, at, msg }
            }
            Message::AddCacheServer(msg) => {
                self.all[ix].nodes.insert(msg.node.clone(), conn);
                Event::Register { conn, id: 1, msg }
            }
            Message::LearnerReady(msg) => Event::LearnerReady(msg),
            Message::Complain(msg) => Event::Complain(msg),
            Message::Relinquish(msg) => {
                for (slot, cver, seq) in &msg.slots {
                    net.note(Some(slot.0), || format!("m{}: {} gives up: cver {cver} seq {seq}", ix + 1, msg.primary));
                }
                Event::Relinquish(msg)
            }
            Message::ShutdownCache(ShutdownCache { node: id, cfg_index: 1.. }) => {
                let mut known = self.all[ix].nodes.iter();
                let Some(node) = known.find(|(n, c)| n.id == id && **c == conn).map(|(n, _)| n.clone()) else { return };
                Event::Gone { node }
            }
            Message::Stop(StopOrder { node: Some(node), .. }) => Event::StopConfirmed { node },
            message => Event::Operator { conn, id: 1, by: "sim".into(), message },
        };
        self.step(net, ix, event);
    }

    /// An operator asks the master that leads.
    pub fn operator(&mut self, net: &mut Net, ix: usize, message: Message) {
        self.all[ix].next_conn += 1;
        let conn = self.all[ix].next_conn;
        self.step(net, ix, Event::Operator { conn, id: 1, by: "operator".into(), message });
    }

    fn step(&mut self, net: &mut Net, ix: usize, event: Event) {
        let m = &mut self.all[ix];
        let now = m.clock.at(net.now);
        let state = self.oracle.states[m.applied].clone();
        let commands = m.brain.step(now, &state, now.0 / MS, event);
        for c in commands {
            self.obey(net, ix, c);
        }
    }

    fn obey(&mut self, net: &mut Net, ix: usize, command: Command) {
        let gen_no = self.all[ix].gen_no;
        match command {
            Command::Propose { token, entry } if self.lets.is_some_and(|lets| !lets(&entry.act)) => {
                // The script will not have it: nothing comes of it.
                let answer = Answer::Done;
                let index = self.truth().applied;
                let done = Applied { index, cfg_changed: false, skipped: Vec::new(), events: Vec::new(), answer };
                let outcome = Box::new(Outcome::Applied(done));
                let deed = Deed::Outcome { master: ix, gen_no, token, outcome };
                net.at(net.now + 5 * MS, super::net::Happening::World(deed));
            }
            Command::Propose { token, entry } => {
                if let crate::node::master::entry::Act::NodeDead { dead, .. } = &entry.act {
                    self.judged.push((ix, dead.clone()));
                }
                let unknown = self.oracle.unknown;
                let told = !net.chance(unknown);
                let p = self.oracle.twice;
                let twice = net.chance(p);
                let most = self.oracle.commit_ms;
                let when = net.now + net.ms(0, most) + MS / 5;
                let p = Proposal { master: ix, gen_no, token, entry: *entry, told, twice, since: net.now };
                net.at(when, super::net::Happening::World(Deed::Append(Box::new(p))));
            }
            Command::Probe { node, addr, via } => {
                let from = match &via {
                    None => Some(ix),
                    Some(m) => self.all.iter().find(|o| o.id == *m && self.reach(net, ix, o.ix)).map(|o| o.ix),
                };
                let when = net.now + net.ms(1, 5);
                net.at(
                    when,
                    super::net::Happening::World(Deed::Probe {
                        master: ix,
                        gen_no,
                        from,
                        to: node_at(&addr),
                        node,
                        via,
                    }),
                );
            }
            Command::Reply { conn, message, .. } => {
                let message = *message;
                if let Some(line) = self.all[ix].conns.get_mut(&conn) {
                    if let Message::Added(added) = &message {
                        line.stands_at = Some(added.view.cfg_index);
                    }
                    self.say(net, ix, conn, message);
                } else if conn > 1 << 40 {
                    self.told.push((conn, message));
                }
            }
            Command::Redirect { conn, .. } => {
                let who = self.who_leads(net, ix);
                self.say(net, ix, conn, Message::RefreshMaster(who));
            }
            Command::Push | Command::StepDown => {}
            Command::AnnounceMaster => self.announce(net, ix),
            Command::OrderStop { cfg_index, nodes } => {
                for node in nodes {
                    if let Some(conn) = self.all[ix].nodes.get(&node).copied() {
                        self.say(net, ix, conn, Message::Stop(StopOrder { cfg_index, node: None }));
                    }
                }
            }
            Command::OrderShutdown { cfg_index, nodes } => {
                for node in nodes {
                    if let Some(conn) = self.all[ix].nodes.get(&node).copied() {
                        let order = ShutdownCache { node: node.id, cfg_index };
                        self.say(net, ix, conn, Message::ShutdownCache(order));
                    }
                }
            }
            Command::Transfer { to, .. } => {
                let fit: Vec<usize> = (0..self.all.len())
                    .filter(|&m| m != ix && self.reach(net, ix, m) && self.has_majority(net, m))
                    .filter(|&m| to.as_ref().is_none_or(|to| self.all[m].id == *to))
                    .collect();
                if self.oracle.leader == Some(ix) && !fit.is_empty() {
                    let to = fit[net.rng.random_range(0..fit.len())];
                    let when = net.now + net.ms(1, 20);
                    net.at(when, super::net::Happening::World(Deed::Elect(to)));
                }
            }
            Command::Exit { .. } => {}
        }
    }

    /// A proposal reaches the log, or waits for a majority, or is refused.
    pub fn append(&mut self, net: &mut Net, p: Proposal) {
        let alive = self.all[p.master].gen_no == p.gen_no;
        if self.oracle.leader != Some(p.master) || !alive {
            if alive {
                let outcome = if net.chance(0.5) { Outcome::NotLeader } else { Outcome::Unknown };
                self.outcome(net, p.master, p.gen_no, p.token, outcome);
            }
            return;
        }
        if !self.has_majority(net, p.master) {
            if net.now.saturating_sub(p.since) > PROPOSE_MS * MS && p.told {
                self.outcome(net, p.master, p.gen_no, p.token, Outcome::Unknown);
                self.oracle.pending.push(Proposal { told: false, ..p });
            } else {
                self.oracle.pending.push(p);
            }
            return;
        }
        if !p.told {
            // The outcome is never heard; the entry may be committed all the same.
            let late = net.ms(100, 600);
            let when = net.now + late;
            let unknown = Deed::Outcome {
                master: p.master,
                gen_no: p.gen_no,
                token: p.token,
                outcome: Box::new(Outcome::Unknown),
            };
            net.at(when, super::net::Happening::World(unknown));
            if net.chance(0.5) {
                return;
            }
        }
        let done = self.commit(net, &p.entry);
        if p.twice {
            let when = net.now + net.ms(0, 1000);
            net.at(when, super::net::Happening::World(Deed::Again(Box::new(p.entry.clone()))));
        }
        let ix = p.master;
        self.catch_up(net, ix);
        if p.told {
            self.step(net, ix, Event::Proposed { token: p.token, outcome: Outcome::Applied(done) });
        }
        for m in 0..self.all.len() {
            if m != ix {
                let when = net.now + net.ms(1, 15);
                net.at(when, super::net::Happening::World(Deed::Follow(m)));
            }
        }
    }

    pub fn outcome(&mut self, net: &mut Net, ix: usize, gen_no: u64, token: Token, outcome: Outcome) {
        if self.all[ix].gen_no == gen_no {
            self.step(net, ix, Event::Proposed { token, outcome });
        }
    }

    /// A follower hears of what was committed.
    pub fn follow(&mut self, net: &mut Net, ix: usize) {
        if let Some(l) = self.oracle.leader
            && self.reach(net, ix, l)
        {
            self.catch_up(net, ix);
        }
    }

    pub fn commit(&mut self, net: &mut Net, entry: &Entry) -> Applied {
        let before = self.truth().clone();
        let mut state = (*before).clone();
        let index = state.applied + net.rng.random_range(1..3);
        let done = state.apply(index, entry);
        let after = Rc::new(state);
        self.oracle.states.push(after.clone());
        self.committed.push(Committed { entry: entry.clone(), done: done.clone(), before, after });
        done
    }

    /// What a connect to a peer port met.
    pub fn probed(
        &mut self,
        net: &mut Net,
        ix: usize,
        gen_no: u64,
        node: Ref,
        via: Option<MasterId>,
        outcome: ProbeOutcome,
    ) {
        if self.all[ix].gen_no == gen_no {
            self.step(net, ix, Event::ProbeResult { node, outcome, via });
        }
    }
}

fn refresh_ip(state: &State, have: u64) -> Message {
    Message::RefreshIp(RefreshIp { have: 0, iplist: iplist(&state.cfg), view: Some(state.cfg.since(have)) })
}
