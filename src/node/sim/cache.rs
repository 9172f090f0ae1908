//! A cache node's process: the real [`Node`], sessions, talks, links and copies, with a simulated network around them.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use rand::Rng;
use tokio::sync::{Notify, mpsc};

use super::net::{Beacon, Clock, ConnId, Hello, MS, Net, Packet, Timer, Who, enter, leave};
use crate::node::cache::beacon::{ANSWER_MAX, BEACON_EVERY, REDIAL, give_promise, take_answer};
use crate::node::cache::beat::{
    BEAT_EVERY, Ended, HANDOVER_LOOK, Masters, Next, READY_EVERY, RETRY, SILENCE_MAX, Talk,
};
use crate::node::cache::copy::{self, Copying};
use crate::node::cache::link::{self, Outgoing};
use crate::node::cache::node::{Inbound, Node};
use crate::node::cache::peer::PeerRef;
use crate::node::cache::replica::{CATCH_UP, Replica};
use crate::node::cache::session::Session;
use crate::node::cache::shard::{Turn, lock};
use crate::node::cache::slot::Leased;
use crate::node::cache::store::Store;
use crate::node::cache::wire::{GREETING_MAX, Inbox};
use crate::node::clock::Mono;
use crate::node::config::NodeConfig;
use crate::node::mutant::{self, Mutant};
use crate::proto::control::{LearnerReady, Message};
use crate::proto::frame::{self, Frame};
use crate::proto::id::{HomeId, Incarnation, NodeId, Ref};
use crate::proto::slot::Slot;

/// Between two dials of a link, milliseconds; the real one backs off from 20 to 500.
const LINK_REDIAL_MS: u64 = 100;
/// Quotas and expiry, milliseconds.
const HOUSE_MS: u64 = 100;
/// Chunks of a copy queued in one go.
const COPY_STEPS: usize = 4;

/// One process of a cache node, over all of its starts.
pub struct Proc {
    pub ix: usize,
    pub id: NodeId,
    pub home: HomeId,
    pub clock: Clock,
    pub running: bool,
    /// It does nothing before: paused, frozen, or slow.
    pub busy_until: u64,
    /// Each event may take it up to so many milliseconds.
    pub slow_ms: u64,
    /// Counts starts and lives; timers of earlier ones are void.
    pub gen_no: u64,
    pub life: Option<Box<Life>>,
    pub standby: bool,
    pub masters: Masters,
    slots: usize,
    /// The highest leader it has heard of, to see that this never falls.
    pub led_by: Option<crate::proto::id::LeaderId>,
    /// It ended by itself, and why.
    pub ended: Option<String>,
    /// It ended because it was told so as a member of nothing (I11).
    /// And at which configuration.
    pub drained: Option<(Ref, u64)>,
    /// Lives that ended because a view said so, with all they held.
    pub dropped: Vec<Ref>,
}

/// One life.
pub struct Life {
    pub node: Arc<Node>,
    arrivals: mpsc::UnboundedReceiver<PeerRef>,
    registered: bool,
    talk: Option<TalkState>,
    peers: BTreeMap<Ref, Box<Task>>,
    inbound: BTreeMap<ConnId, In>,
    sessions: BTreeMap<ConnId, Talker>,
    /// What is being handled wakes nobody.
    idle: bool,
}

struct TalkState {
    conn: ConnId,
    addr: String,
    heard: Mono,
    report_at: bool,
    looking: bool,
}

/// What runs for one peer: the beacon, the link and the copies.
struct Task {
    peer: PeerRef,
    beacon: Asker,
    link: Link,
    copying: Copying,
}

#[derive(Default)]
struct Asker {
    conn: Option<ConnId>,
    token: u64,
    n: u64,
    sent: Mono,
    begun: Mono,
    state: Asking,
}

#[derive(Default, PartialEq, Eq)]
enum Asking {
    #[default]
    Off,
    Waiting,
    Pulling,
    Resting,
}

#[derive(Default)]
struct Link {
    conn: Option<ConnId>,
    token: u64,
    welcome: bool,
    inbox: Inbox,
    out: Outgoing,
}

/// A connection that a peer opened.
enum In {
    Beacon { from: Ref, owed: Option<u64> },
    Stranger { from: Ref, acked: u64, inbox: Inbox, state: Arc<std::sync::Mutex<Inbound>>, since: Mono },
    Data { replica: Replica, behind: Option<(u64, Mono)> },
}

/// A client's connection.
struct Talker {
    session: Session,
    waiter: Arc<crate::node::cache::clients::Client>,
    unread: Vec<u8>,
    /// The clocks as it last looked at them.
    looked: Turn,
}

impl Talker {
    fn turn(&mut self, node: &Node) -> bool {
        let before = std::mem::replace(&mut self.looked, node.turn());
        let stale = mutant::is(Mutant::NoLeaseCheckAfterRead);
        self.session.turn(if stale { before } else { self.looked })
    }
}

pub fn addr(ix: usize) -> (String, String) {
    (format!("10.0.0.{}:7000", ix + 1), format!("10.0.0.{}:7100", ix + 1))
}

pub fn node_at(addr: &str) -> Option<usize> {
    addr.strip_prefix("10.0.0.")?.split(':').next()?.parse::<usize>().ok()?.checked_sub(1)
}

pub fn master_at(addr: &str) -> Option<usize> {
    addr.strip_prefix('m')?.split(':').next()?.parse::<usize>().ok()?.checked_sub(1)
}

fn called(n: &Notify) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    matches!(pin!(n.notified()).poll(&mut cx), Poll::Ready(()))
}

impl Proc {
    pub fn new(net: &mut Net, ix: usize, masters: usize, slots: usize, drift: f64) -> Self {
        let addrs = (0..masters).map(|m| format!("m{}:1", m + 1)).collect();
        Self {
            ix,
            id: NodeId::new(&format!("n{}", ix + 1)).unwrap(),
            home: HomeId(1000 + ix as u64),
            clock: Clock::new(&mut net.rng, drift),
            running: false,
            busy_until: 0,
            slow_ms: 0,
            gen_no: 0,
            life: None,
            standby: false,
            masters: Masters::new(addrs),
            slots,
            led_by: None,
            ended: None,
            drained: None,
            dropped: Vec::new(),
        }
    }

    pub fn who(&self) -> Who {
        Who::Node(self.ix)
    }

    fn true_time(&self, net: &Net, local_ns: u64) -> u64 {
        net.now + self.clock.true_ns(local_ns)
    }

    fn timer_ms(&self, net: &mut Net, ms: u64, timer: Timer) {
        let late = if net.chance(0.05) { net.ms(0, 15) } else { net.rng.random_range(0..MS / 2) };
        let when = self.true_time(net, ms * MS) + late;
        net.timer(when, self.who(), self.gen_no, timer);
    }

    /// The process starts.
    pub fn start(&mut self, net: &mut Net) {
        self.running = true;
        self.ended = None;
        self.busy_until = net.now;
        let addrs: Vec<String> = self.masters.all().to_vec();
        self.masters = Masters::new(addrs);
        self.led_by = None;
        self.begin(net);
    }

    /// The process is gone with all it held.
    pub fn kill(&mut self, net: &mut Net) {
        self.running = false;
        self.gen_no += 1;
        self.life = None;
        net.vanish(self.who());
    }

    /// A life begins, empty.
    fn begin(&mut self, net: &mut Net) {
        self.gen_no += 1;
        let me = Ref { id: self.id.clone(), incarnation: Incarnation(net.rng.random_range(1..u64::MAX)) };
        let (client, peer) = addr(self.ix);
        let config = NodeConfig {
            listen: client.parse().unwrap(),
            peer_listen: peer.parse().unwrap(),
            standby: self.standby,
            ..NodeConfig::example(self.id.clone())
        };
        let (tx, arrivals) = mpsc::unbounded_channel();
        let seed = net.rng.random();
        enter(&self.clock, net.now, None);
        let node = Arc::new(Node::sized(me, config, tx, self.slots, |b| Store::with_seed(b, seed)));
        leave(&self.clock, net.now);
        net.note(None, || format!("{}: life {:?} begins", self.who(), node.me));
        self.life = Some(Box::new(Life {
            node,
            arrivals,
            registered: false,
            talk: None,
            peers: BTreeMap::new(),
            inbound: BTreeMap::new(),
            sessions: BTreeMap::new(),
            idle: false,
        }));
        self.timer_ms(net, 0, Timer::Masters);
        self.timer_ms(net, HOUSE_MS, Timer::Tick);
    }

    /// How it stands with its peers, for traces of what hangs.
    pub fn describe(&self) -> String {
        let Some(life) = &self.life else { return format!("{} has no life", self.who()) };
        let mut text = format!("{} stands at {}", life.node.me, *life.node.cfg_index.borrow());
        for t in life.peers.values() {
            let queue = lock(&t.peer.queue);
            text += &format!(
                "; {}: link {:?} welcome {} backlog {} acked {} jobs {:?} uncounted {} {:?}",
                t.peer.node,
                t.link.conn,
                t.link.welcome,
                queue.backlog(),
                queue.acked(),
                lock(&t.peer.jobs),
                lock(&t.peer.uncounted).len(),
                *lock(&t.peer.credit),
            );
        }
        text
    }

    pub fn me(&self) -> Option<Ref> {
        self.life.as_ref().map(|l| l.node.me.clone())
    }

    /// Something arrives, or a timer fires.
    pub fn packet(&mut self, net: &mut Net, conn: ConnId, end: usize, packet: Packet, freeze: Option<(u32, u64)>) {
        let Some(mut life) = self.life.take() else { return };
        enter(&self.clock, net.now, freeze);
        // Most of what arrives are beacons that change nothing.
        let beacon = matches!(packet, Packet::Beacon(Beacon::Ask { .. } | Beacon::Ack { .. }));
        life.idle = beacon;
        life.packet(self, net, conn, end, packet);
        self.settle(net, life);
    }

    pub fn timer(&mut self, net: &mut Net, timer: Timer) {
        let Some(mut life) = self.life.take_if(|l| !l.is_void(&timer)) else { return };
        enter(&self.clock, net.now, None);
        life.timer(self, net, timer);
        self.settle(net, life);
    }

    /// Somebody tells it something, for scripts.
    pub fn told(&mut self, net: &mut Net, message: Message) {
        let Some(mut life) = self.life.take() else { return };
        enter(&self.clock, net.now, None);
        life.hear(self, net, message);
        self.settle(net, life);
    }

    /// What the tasks of the process do after an event, until nothing is left to do.
    fn settle(&mut self, net: &mut Net, mut life: Box<Life>) {
        if !std::mem::take(&mut life.idle) {
            life.work(self, net);
        }
        let fenced = *life.node.fenced.borrow();
        if fenced {
            life.talkers(net);
        }
        let end = leave(&self.clock, net.now);
        if end > net.now {
            let ms = (end - net.now) / MS;
            net.note(None, || format!("{}: frozen for {ms} ms", self.who()));
        }
        self.busy_until = self.busy_until.max(end);
        if self.slow_ms > 0 {
            let ms = if net.chance(0.05) { net.ms(0, self.slow_ms * 20) } else { net.ms(0, self.slow_ms) };
            self.busy_until = self.busy_until.max(net.now + ms);
        }
        if let Some(why) = &self.ended {
            let why = why.clone();
            net.note(None, || format!("{}: ends: {why}", self.who()));
            self.kill(net);
        } else if fenced {
            net.note(None, || format!("{}: fenced", self.who()));
            self.dropped.push(life.node.me.clone());
            net.vanish(self.who());
            self.begin(net);
        } else {
            self.life = Some(life);
        }
    }
}

impl Life {
    /// What of the real process sends now leaves when the process gets to it.
    fn out(&self, p: &Proc, net: &Net) -> u64 {
        let local = Mono::now();
        net.now + p.clock.true_ns(local.0.saturating_sub(p.clock.at(net.now).0))
    }

    fn packet(&mut self, p: &mut Proc, net: &mut Net, conn: ConnId, end: usize, packet: Packet) {
        if end == 1 {
            return self.incoming(p, net, conn, packet);
        }
        if self.talk.as_ref().is_some_and(|t| t.conn == conn) {
            match packet {
                Packet::Control(m) => self.hear(p, net, *m),
                _ => self.leave_master(p, net, None),
            }
            return;
        }
        let Some(node) = self.peers.iter().find(|(_, t)| t.beacon.conn == Some(conn) || t.link.conn == Some(conn))
        else {
            net.close(conn, end, net.now);
            return;
        };
        let node = node.0.clone();
        let Some(mut task) = self.peers.remove(&node) else { return };
        if task.beacon.conn == Some(conn) {
            self.beacon_packet(p, net, &mut task, packet);
        } else {
            self.link_packet(p, net, &mut task, packet);
        }
        self.peers.insert(node, task);
    }

    /// A timer of something that went on since.
    fn is_void(&self, timer: &Timer) -> bool {
        match timer {
            Timer::Beacon(node, token) => self.peers.get(node).is_none_or(|t| t.beacon.token != *token),
            Timer::Link(node, token) => self.peers.get(node).is_none_or(|t| t.link.token != *token),
            _ => false,
        }
    }

    fn timer(&mut self, p: &mut Proc, net: &mut Net, timer: Timer) {
        self.idle = matches!(timer, Timer::Beacon(..));
        let current = |t: &Option<TalkState>, conn: ConnId| t.as_ref().is_some_and(|t| t.conn == conn);
        match timer {
            Timer::Masters if self.talk.is_none() => self.call_master(p, net),
            Timer::Beat(conn) if current(&self.talk, conn) => {
                if mutant::is(Mutant::SoloByItself) {
                    self.go_solo();
                }
                let heard = self.talk.as_ref().map_or(Mono(0), |t| t.heard);
                if Mono::now().ms_since(heard) > SILENCE_MAX.as_millis() as u64 {
                    return self.leave_master(p, net, None);
                }
                p.timer_ms(net, BEAT_EVERY.as_millis() as u64, Timer::Beat(conn));
                self.talk(p, net, |t| t.tick());
            }
            Timer::Register(conn) if current(&self.talk, conn) => drop(self.talk(p, net, |t| t.register())),
            Timer::Report(conn) if current(&self.talk, conn) => {
                if let Some(t) = &mut self.talk {
                    t.report_at = false;
                }
                self.talk(p, net, |t| t.report_ready());
            }
            Timer::Relinquish(conn) if current(&self.talk, conn) => {
                if let Some(t) = &mut self.talk {
                    t.looking = false;
                }
                self.talk(p, net, |t| t.relinquish());
            }
            Timer::Beacon(node, token) => self.with_task(&node, |life, task| {
                if task.beacon.token == token {
                    life.beacon_due(p, net, task);
                }
            }),
            Timer::Link(node, token) => self.with_task(&node, |life, task| {
                if task.link.token == token {
                    life.link_due(p, net, task);
                }
            }),
            Timer::Tick => {
                let node = self.node.clone();
                node.judge_backlog();
                node.clients.nudge_all();
                node.settle_quotas();
                node.fit_own();
                node.peers().iter().for_each(|peer| node.fit(peer));
                for shard in &node.shards {
                    lock(shard).expire(node.turn(), 64);
                }
                p.timer_ms(net, HOUSE_MS, Timer::Tick);
            }
            _ => {}
        }
    }

    fn with_task(&mut self, node: &Ref, f: impl FnOnce(&mut Self, &mut Task)) {
        if let Some(mut task) = self.peers.remove(node) {
            f(self, &mut task);
            self.peers.insert(node.clone(), task);
        }
    }

    // Masters.

    fn call_master(&mut self, p: &mut Proc, net: &mut Net) {
        let addr = p.masters.pick();
        let Some(m) = master_at(&addr) else { return p.timer_ms(net, 20, Timer::Masters) };
        let at = self.out(p, net);
        let conn = net.dial(p.who(), Who::Master(m), Hello::Control, at);
        self.talk = Some(TalkState { conn, addr, heard: Mono::now(), report_at: false, looking: false });
        self.talk(p, net, |t| t.begin());
        p.timer_ms(net, 0, Timer::Beat(conn));
    }

    fn leave_master(&mut self, p: &mut Proc, net: &mut Net, to: Option<String>) {
        if let Some(t) = self.talk.take() {
            net.close(t.conn, 0, net.now);
        }
        if let Some(to) = to {
            p.masters.follow(to);
        }
        p.timer_ms(net, RETRY.as_millis() as u64, Timer::Masters);
    }

    /// Lets the talk with the master say something.
    fn talk<R>(&mut self, p: &mut Proc, net: &mut Net, f: impl FnOnce(&mut Talk<'_>) -> R) -> Option<R> {
        let state = self.talk.as_ref()?;
        let conn = state.conn;
        let addr = state.addr.clone();
        let mut talk = Talk::new(self.node.clone(), p.home, &mut p.masters, addr, &mut self.registered);
        let r = f(&mut talk);
        let (out, soon) = (std::mem::take(&mut talk.out), talk.register_soon);
        let at = self.out(p, net);
        for m in out {
            if let Message::LearnerReady(LearnerReady { slots, learner, .. }) = &m {
                for (slot, cver, since) in slots {
                    let who = p.who();
                    net.note(Some(slot.0), || format!("{who}: {learner} is ready: cver {cver} since {since}"));
                }
            }
            net.send(conn, 0, Packet::Control(Box::new(m)), at);
        }
        if soon {
            p.timer_ms(net, RETRY.as_millis() as u64, Timer::Register(conn));
        }
        Some(r)
    }

    fn hear(&mut self, p: &mut Proc, net: &mut Net, m: Message) {
        if matches!(m, Message::KeepAliveAck(_) | Message::Added(_))
            && let Some(t) = &mut self.talk
        {
            t.heard = Mono::now();
        }
        match self.talk(p, net, |t| t.take(m)).flatten() {
            None => {}
            Some(Next::Go(to)) => self.leave_master(p, net, Some(to)),
            Some(Next::Leave) => self.leave_master(p, net, None),
            Some(Next::End(Ended::Refused(why))) => p.ended = Some(why),
            Some(Next::End(Ended::Drained)) => {
                p.drained = Some((self.node.me.clone(), *self.node.cfg_index.borrow()));
                p.ended = Some("drained".into());
            }
            Some(Next::End(e)) => p.ended = Some(e.to_string()),
        }
    }

    // Beacons, as beacon.rs asks and answers.

    fn beacon_off(&self, p: &mut Proc, net: &mut Net, task: &mut Task) {
        if let Some(conn) = task.beacon.conn.take() {
            net.close(conn, 0, net.now);
        }
        task.beacon.state = Asking::Off;
        self.beacon_timer(p, net, task, REDIAL.as_millis() as u64);
    }

    fn beacon_timer(&self, p: &mut Proc, net: &mut Net, task: &mut Task, ms: u64) {
        task.beacon.token += 1;
        p.timer_ms(net, ms, Timer::Beacon(task.peer.node.clone(), task.beacon.token));
    }

    fn beacon_due(&mut self, p: &mut Proc, net: &mut Net, task: &mut Task) {
        match task.beacon.state {
            Asking::Off => {
                let Some(to) = node_at(&task.peer.addr) else { return };
                let hello = Hello::Beacon {
                    cluster: self.node.cluster(),
                    from: self.node.me.clone(),
                    to: task.peer.node.clone(),
                };
                task.beacon.conn = Some(net.dial(p.who(), Who::Node(to), hello, self.out(p, net)));
                self.ask(p, net, task);
            }
            Asking::Resting => self.ask(p, net, task),
            // No answer for too long.
            Asking::Waiting | Asking::Pulling => self.beacon_off(p, net, task),
        }
    }

    fn ask(&self, p: &mut Proc, net: &mut Net, task: &mut Task) {
        let Some(conn) = task.beacon.conn else { return };
        task.beacon.n += 1;
        task.beacon.begun = Mono::now();
        let cfg_index = *self.node.cfg_index.borrow();
        task.beacon.sent = Mono::now();
        task.beacon.state = Asking::Waiting;
        let at = self.out(p, net);
        net.send(conn, 0, Packet::Beacon(Beacon::Ask { n: task.beacon.n, cfg_index }), at);
        self.beacon_timer(p, net, task, ANSWER_MAX.as_millis() as u64);
    }

    fn beacon_packet(&mut self, p: &mut Proc, net: &mut Net, task: &mut Task, packet: Packet) {
        let Some(conn) = task.beacon.conn else { return };
        match packet {
            Packet::Beacon(Beacon::Ack { n, cfg_index })
                if n == task.beacon.n && task.beacon.state == Asking::Waiting =>
            {
                let lease = task.peer.lease();
                self.idle = lease.cfg_index == cfg_index && lease.until > Mono::now();
                if !take_answer(&self.node, &task.peer, task.beacon.sent, cfg_index) {
                    let have = *self.node.cfg_index.borrow();
                    task.beacon.state = Asking::Pulling;
                    net.send(conn, 0, Packet::Beacon(Beacon::Pull { have }), self.out(p, net));
                    self.beacon_timer(p, net, task, ANSWER_MAX.as_millis() as u64);
                    return;
                }
                task.beacon.state = Asking::Resting;
                let took = Mono::now().ms_since(task.beacon.begun);
                let rest = (BEACON_EVERY.as_millis() as u64).saturating_sub(took);
                self.beacon_timer(p, net, task, rest);
            }
            Packet::Beacon(Beacon::Pull { .. }) if mutant::is(Mutant::PullFromMastersOnly) => {}
            Packet::Beacon(Beacon::Pull { have }) if task.beacon.state == Asking::Waiting => {
                let view = Arc::new(self.node.view().since(have));
                net.send(conn, 0, Packet::Beacon(Beacon::View(view)), self.out(p, net));
            }
            Packet::Beacon(Beacon::View(view)) if task.beacon.state == Asking::Pulling => {
                self.node.absorb(&view);
                self.ask(p, net, task);
            }
            Packet::Beacon(_) => {}
            _ => {
                task.beacon.conn = None;
                self.beacon_off(p, net, task);
            }
        }
    }

    // Links.

    fn link_off(&self, p: &mut Proc, net: &mut Net, task: &mut Task) {
        if let Some(conn) = task.link.conn.take() {
            net.close(conn, 0, net.now);
        }
        task.link = Link { token: task.link.token + 1, ..Link::default() };
        let ms = net.rng.random_range(20..=LINK_REDIAL_MS);
        p.timer_ms(net, ms, Timer::Link(task.peer.node.clone(), task.link.token));
    }

    fn link_due(&mut self, p: &mut Proc, net: &mut Net, task: &mut Task) {
        if task.link.conn.is_some() {
            if !task.link.welcome {
                self.link_off(p, net, task);
            }
            return;
        }
        let Some(to) = node_at(&task.peer.addr) else { return };
        let hello = Hello::Data {
            cluster: self.node.cluster(),
            from: self.node.me.clone(),
            to: task.peer.node.clone(),
            acked: lock(&task.peer.queue).acked(),
        };
        task.link.conn = Some(net.dial(p.who(), Who::Node(to), hello, self.out(p, net)));
        task.link.token += 1;
        p.timer_ms(net, GREETING_MAX.as_millis() as u64, Timer::Link(task.peer.node.clone(), task.link.token));
    }

    fn link_packet(&mut self, p: &mut Proc, net: &mut Net, task: &mut Task, packet: Packet) {
        let Packet::Bytes(bytes) = packet else {
            task.link.conn = None;
            return self.link_off(p, net, task);
        };
        task.link.inbox.feed(&bytes);
        let node = self.node.clone();
        if !task.link.welcome {
            match link::take_welcome(&node, &task.peer, &mut task.link.inbox) {
                Ok(true) => {
                    task.link.welcome = true;
                    if mutant::is(Mutant::RestartCopy) {
                        self.copy_again(&task.peer);
                    }
                }
                Ok(false) => return,
                Err(_) => return self.link_off(p, net, task),
            }
        }
        if link::take(&node, &task.peer, &mut task.link.inbox, &mut Vec::new()).is_err() {
            self.link_off(p, net, task);
        }
    }

    /// Mutant: members that are silent for two seconds are waited for no more.
    fn go_solo(&self) {
        let silent = self.node.stalled();
        let mut shard = lock(&self.node.shards[0]);
        for (about, _) in silent {
            for s in 0..shard.repls().count() {
                shard.slot_mut(Slot(s as u16)).go_solo(&about);
            }
        }
    }

    /// Mutant: a link that is up again copies again.
    fn copy_again(&self, peer: &PeerRef) {
        let mut shard = lock(&self.node.shards[0]);
        for s in (0..shard.repls().count()).map(|s| Slot(s as u16)) {
            if shard.slot_mut(s).copy_again(&peer.node) {
                lock(&peer.jobs).push_back(s);
            }
        }
    }

    // What others dial.

    fn incoming(&mut self, p: &mut Proc, net: &mut Net, conn: ConnId, packet: Packet) {
        let node = self.node.clone();
        match packet {
            Packet::Dial(Hello::Client) => {
                let looked = node.turn();
                match node.clients.admit(1000, "c".into(), "n".into(), 0, looked.now.mono_ms) {
                    Some((state, client)) => {
                        let session = Session::new(node, state, client.clone());
                        let talker = Talker { session, waiter: client, unread: Vec::new(), looked };
                        self.sessions.insert(conn, talker);
                    }
                    None => net.close(conn, 1, net.now),
                }
            }
            Packet::Dial(Hello::Beacon { cluster, from, to }) => {
                if cluster != node.cluster() || to != node.me || from == node.me {
                    return net.close(conn, 1, net.now);
                }
                self.inbound.insert(conn, In::Beacon { from, owed: None });
            }
            Packet::Dial(Hello::Data { cluster, from, to, acked }) => {
                if cluster != node.cluster() || to != node.me || from == node.me {
                    return net.close(conn, 1, net.now);
                }
                let state = lock(&node.inbound).entry(from.clone()).or_default().clone();
                let stranger = In::Stranger { from, acked, inbox: Inbox::default(), state, since: Mono::now() };
                self.inbound.insert(conn, stranger);
            }
            Packet::Dial(Hello::Control) => net.close(conn, 1, net.now),
            Packet::Beacon(b) => self.promise(p, net, conn, b),
            Packet::Bytes(bytes) => {
                if let Some(t) = self.sessions.get_mut(&conn) {
                    t.unread.extend_from_slice(&bytes);
                    self.talker(p, net, conn);
                    return;
                }
                match self.inbound.get_mut(&conn) {
                    Some(In::Stranger { inbox, .. }) => inbox.feed(&bytes),
                    Some(In::Data { replica, behind }) => {
                        replica.inbox.feed(&bytes);
                        if behind.is_none() {
                            self.replicate(p, net, conn);
                        }
                    }
                    _ => {}
                }
            }
            Packet::Control(_) => {}
            Packet::Closed => {
                self.sessions.remove(&conn);
                self.inbound.remove(&conn);
            }
        }
    }

    fn promise(&mut self, p: &mut Proc, net: &mut Net, conn: ConnId, b: Beacon) {
        let at = self.out(p, net);
        let Some(In::Beacon { from, owed }) = self.inbound.get_mut(&conn) else { return };
        let n = match b {
            Beacon::Ask { n, cfg_index } => {
                let have = *self.node.cfg_index.borrow();
                if cfg_index > have {
                    *owed = Some(n);
                    net.send(conn, 1, Packet::Beacon(Beacon::Pull { have }), at);
                    return;
                }
                n
            }
            Beacon::Pull { have } => {
                if owed.is_none() && !mutant::is(Mutant::PullFromMastersOnly) {
                    let view = Arc::new(self.node.view().since(have));
                    net.send(conn, 1, Packet::Beacon(Beacon::View(view)), at);
                }
                return;
            }
            Beacon::View(view) => {
                let Some(n) = owed.take() else { return };
                self.node.absorb(&view);
                n
            }
            Beacon::Ack { .. } => return,
        };
        if let Some(cfg_index) = give_promise(&self.node, from) {
            let at = self.out(p, net);
            net.send(conn, 1, Packet::Beacon(Beacon::Ack { n, cfg_index }), at);
        }
    }

    /// Takes what a peer's stream brought.
    fn replicate(&mut self, p: &mut Proc, net: &mut Net, conn: ConnId) {
        let Some(In::Data { replica, behind }) = self.inbound.get_mut(&conn) else { return };
        *behind = None;
        match replica.take() {
            Ok(None) => {}
            Ok(Some(index)) => {
                self.node.behind.notify_one();
                *behind = Some((index, Mono::now()));
            }
            Err(_) => {
                self.inbound.remove(&conn);
                net.close(conn, 1, net.now);
                return;
            }
        }
        self.answer(p, net, conn);
    }

    fn answer(&mut self, p: &mut Proc, net: &mut Net, conn: ConnId) {
        let Some(In::Data { replica, .. }) = self.inbound.get_mut(&conn) else { return };
        let out = std::mem::take(&mut replica.out);
        if !out.is_empty() {
            let at = self.out(p, net);
            net.send(conn, 1, Packet::Bytes(out), at);
        }
    }

    // Clients.

    /// One loop turn of a client's connection.
    fn talker(&mut self, p: &mut Proc, net: &mut Net, conn: ConnId) {
        let Some(t) = self.sessions.get_mut(&conn) else { return };
        for _ in 0..4 {
            if t.session.reads() && !t.unread.is_empty() {
                t.session.feed(&t.unread);
                t.unread.clear();
            }
            if !t.turn(&self.node) {
                let who = p.who();
                net.note(None, || format!("{who}: a lease lapsed while commands ran"));
                self.sessions.remove(&conn);
                return net.close(conn, 1, net.now);
            }
            if t.unread.is_empty() {
                break;
            }
        }
        t.session.reads();
        let out = t.session.output();
        if !out.is_empty() {
            let at = self.out(p, net);
            net.send(conn, 1, Packet::Bytes(out), at);
        }
    }

    fn talkers(&mut self, net: &mut Net) {
        for (conn, t) in &mut self.sessions {
            if t.turn(&self.node) {
                let out = t.session.output();
                if !out.is_empty() {
                    net.send(*conn, 1, Packet::Bytes(out), net.now);
                }
            }
        }
    }

    /// What wakes up after an event: new peers, copies, links, connections that wait, requests to masters.
    fn work(&mut self, p: &mut Proc, net: &mut Net) {
        while let Ok(peer) = self.arrivals.try_recv() {
            let node = peer.node.clone();
            let mut task = Task { peer, beacon: Asker::default(), link: Link::default(), copying: Copying::default() };
            self.beacon_timer(p, net, &mut task, 0);
            task.link.token = 1;
            p.timer_ms(net, 0, Timer::Link(node.clone(), 1));
            self.peers.insert(node, Box::new(task));
        }
        let waiting: Vec<ConnId> = self
            .sessions
            .iter()
            .filter(|(_, t)| t.waiter.waiter.waiting.load(std::sync::atomic::Ordering::Relaxed))
            .map(|(c, _)| *c)
            .collect();
        for conn in waiting {
            self.talker(p, net, conn);
        }
        self.inbound_work(p, net);
        let mut peers = std::mem::take(&mut self.peers);
        peers.retain(|_, task| {
            let gone = task.peer.gone.load(std::sync::atomic::Ordering::Acquire);
            if gone {
                for conn in [task.beacon.conn, task.link.conn].into_iter().flatten() {
                    net.close(conn, 0, net.now);
                }
            } else {
                self.peer_work(p, net, task);
            }
            !gone
        });
        self.peers = peers;
        if called(&self.node.behind) {
            self.talk(p, net, |t| t.pull());
        }
        if let Some(t) = &mut self.talk
            && !t.report_at
            && called(&self.node.ready)
        {
            t.report_at = true;
            let conn = t.conn;
            p.timer_ms(net, READY_EVERY.as_millis() as u64, Timer::Report(conn));
        }
        if self.node.is_giving()
            && let Some(t) = self.talk.as_mut().filter(|t| !t.looking)
        {
            t.looking = true;
            let conn = t.conn;
            // Seldom said again: the real talk remembers what it said since the last beat.
            p.timer_ms(net, HANDOVER_LOOK.as_millis() as u64 * 10, Timer::Relinquish(conn));
        }
        if self.node.left() && p.ended.is_none() {
            p.ended = Some("left".into());
        }
        let leader = p.masters.leader().cloned();
        if leader.is_some() {
            p.led_by = leader;
        }
    }

    fn peer_work(&mut self, p: &mut Proc, net: &mut Net, task: &mut Task) {
        copy::count_again(&self.node, &task.peer);
        for _ in 0..COPY_STEPS {
            if task.copying.step(&self.node, &task.peer) != copy::Step::Sent {
                break;
            }
        }
        if task.beacon.state == Asking::Resting && called(&task.peer.beacon_wake) {
            self.ask(p, net, task);
        }
        if let Some(conn) = task.link.conn.filter(|_| task.link.welcome) {
            let mut bytes = Vec::new();
            let flushed = task.link.out.flush(&task.peer, |parts| {
                let before = bytes.len();
                parts.iter().for_each(|part| bytes.extend_from_slice(part));
                Ok(bytes.len() - before)
            });
            if !bytes.is_empty() && flushed.is_ok() {
                let at = self.out(p, net);
                if let Some((from, to, ms)) = net.split
                    && from == p.who()
                    && node_at(&task.peer.addr).map(Who::Node) == Some(to)
                    && let Some(len) = after_open(&bytes)
                {
                    net.split = None;
                    let rest = bytes.split_off(len);
                    net.send(conn, 0, Packet::Bytes(bytes), at);
                    net.slow.insert((from, to), ms);
                    return net.send(conn, 0, Packet::Bytes(rest), at);
                }
                // A stream has no borders: it arrives in pieces.
                let cut = if bytes.len() > 1 && net.chance(0.1) { net.rng.random_range(1..bytes.len()) } else { 0 };
                let rest = bytes.split_off(cut);
                if !bytes.is_empty() {
                    net.send(conn, 0, Packet::Bytes(bytes), at);
                }
                net.send(conn, 0, Packet::Bytes(rest), at);
            }
        }
    }

    fn inbound_work(&mut self, p: &mut Proc, net: &mut Net) {
        let index = *self.node.cfg_index.borrow();
        for conn in self.inbound.keys().copied().collect::<Vec<_>>() {
            match self.inbound.get_mut(&conn) {
                Some(In::Stranger { from, since, .. }) => {
                    if let Some(peer) = self.node.known_peer(from) {
                        let Some(In::Stranger { acked, inbox, state, .. }) = self.inbound.remove(&conn) else {
                            continue;
                        };
                        let replica = Replica::welcome(self.node.clone(), peer, state, acked, inbox);
                        self.inbound.insert(conn, In::Data { replica, behind: None });
                        self.replicate(p, net, conn);
                    } else if Mono::now().ms_since(*since) > CATCH_UP.as_millis() as u64 {
                        self.inbound.remove(&conn);
                        net.close(conn, 1, net.now);
                    } else {
                        self.node.behind.notify_one();
                    }
                }
                Some(In::Data { replica, behind }) => {
                    if replica.is_over() {
                        self.inbound.remove(&conn);
                        net.close(conn, 1, net.now);
                        continue;
                    }
                    replica.tell_quota();
                    match *behind {
                        Some((needs, _)) if needs <= index => self.replicate(p, net, conn),
                        Some((_, since)) if Mono::now().ms_since(since) > CATCH_UP.as_millis() as u64 => {
                            self.inbound.remove(&conn);
                            net.close(conn, 1, net.now);
                        }
                        _ => self.answer(p, net, conn),
                    }
                }
                _ => {}
            }
        }
    }
}

/// Where the first OPEN among these frames ends.
fn after_open(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Ok(Some((frame, len))) = frame::take(&bytes[at..]) {
        at += len;
        if matches!(frame, Frame::Open { .. }) {
            return Some(at);
        }
    }
    None
}
