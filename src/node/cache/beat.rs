//! The node's side of the masters: registers, beats every 250 ms, follows REFRESH_MASTER, pulls configurations, reports
//! ready learners and stalled members. When its masters are gone it keeps serving and keeps trying all it knows, for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tracing::{debug, info, warn};

use super::node::Node;
use super::shard::lock;
use super::slot::{Leased, Rank};
use crate::node::clock::Mono;
use crate::node::mutant::{self, Mutant};
use crate::proto::control::{
    AddCacheServer, Complain, KeepAlive, LearnerReady, Message, RefreshIp, RefreshMaster, Relinquish, ShutdownCache,
    StopOrder,
};
use crate::proto::id::{HomeId, Incarnation, LeaderId, NodeId, Ref};
use crate::proto::net::conn::{Conn, ConnError, LineReader, LineWriter};
use crate::proto::slot::Slot;
use crate::proto::stats::{CopyStats, NodeStats};

/// Between two heartbeats (PROTOCOL 4).
pub const BEAT_EVERY: Duration = Duration::from_millis(250);
/// A master that acks nothing for so long is left for another.
pub const SILENCE_MAX: Duration = Duration::from_millis(1000);
/// How long a connect to a master may take.
const CONNECT_MAX: Duration = Duration::from_millis(500);
/// Between two tries, when no master leads.
pub const RETRY: Duration = Duration::from_millis(20);
/// A member of `ack_set` that neither confirms nor renews its lease for so long is complained of (PROTOCOL 6).
const STALL_MS: u64 = 2000;
/// Looks for stalled peers further apart than this, milliseconds, were interrupted: this process was paused, or no master was
/// there to complain to. Nobody is blamed for that time.
const AWAY_MS: u64 = 1000;
/// A name that another live node has is waited for so long, milliseconds: twice what it takes to give up a silent node.
const IN_USE_MS: u64 = 5000;
/// Slots that become ready are gathered for so long: thousands do at once while a node is rebuilt.
pub const READY_EVERY: Duration = Duration::from_millis(20);
/// Slots in one LEARNER_READY or RELINQUISH: bounds the line.
const READY_MAX: usize = 8192;
/// While slots are given away they are looked at so often: clients wait for it.
pub const HANDOVER_LOOK: Duration = Duration::from_millis(2);
/// What a leader answers to a node that wants to leave and never can.
const CANT_LEAVE: [&str; 3] = ["LAST_NODE", "SOLE_HOLDER", "NO_SUCH_NODE"];

/// Why the masters' side ended.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// The masters refuse this node for good.
    #[error("the masters refuse this node: {0}")]
    Refused(String),
    /// A planned stop: everything is halted and confirmed.
    #[error("stopped by plan")]
    Stopped,
    /// Drained: a member of no slot, and told to go.
    #[error("drained")]
    Drained,
    /// It asked to be drained, and that can't be.
    #[error("this node can't be drained: {0}")]
    CantLeave(String),
}

/// What this node knows of the masters; outlives connections and lives.
#[derive(Debug, Clone)]
pub struct Masters {
    addrs: Vec<String>,
    next: usize,
    leader: Option<LeaderId>,
    hint: Option<String>,
    /// Since when they say that another live node has this one's name.
    in_use_since: Option<Mono>,
    /// The last life of this name that they told of.
    last_life: Option<Incarnation>,
}

impl Masters {
    /// Those given at the start.
    pub fn new(addrs: Vec<String>) -> Self {
        Self { addrs, next: 0, leader: None, hint: None, in_use_since: None, last_life: None }
    }

    /// Where to try next.
    pub fn pick(&mut self) -> String {
        if let Some(addr) = self.hint.take() {
            return addr;
        }
        self.next = (self.next + 1) % self.addrs.len().max(1);
        self.addrs.get(self.next).cloned().unwrap_or_default()
    }

    /// All that are known.
    pub fn all(&self) -> &[String] {
        &self.addrs
    }

    /// The next try goes there.
    pub fn follow(&mut self, addr: String) {
        self.hint = Some(addr);
    }

    /// The highest leader heard of.
    pub fn leader(&self) -> Option<&LeaderId> {
        self.leader.as_ref()
    }

    /// Takes a REFRESH_MASTER in; the address to go to, if it is news.
    fn learn(&mut self, m: &RefreshMaster) -> Option<String> {
        for (_, addr) in &m.masters {
            if !self.addrs.contains(addr) {
                self.addrs.push(addr.clone());
            }
        }
        if m.leader < self.leader {
            return None;
        }
        self.leader.clone_from(&m.leader);
        m.addr.clone()
    }
}

/// Runs until the life ends.
pub async fn run(node: Arc<Node>, home: HomeId, masters: &mut Masters) -> Ended {
    let mut registered = false;
    let mut fenced = node.fenced.subscribe();
    loop {
        let addr = masters.pick();
        let conn = match Conn::connect(&addr, CONNECT_MAX).await {
            Ok(c) => c,
            Err(e) => {
                debug!(%addr, error = %e, "no master here");
                sleep(RETRY).await;
                continue;
            }
        };
        let (reader, writer) = conn.into_split();
        let mut talk = Talk::new(node.clone(), home, masters, addr.clone(), &mut registered);
        tokio::select! {
            end = serve(&mut talk, reader, writer) => match end {
                Ok(Next::Go(to)) => {
                    debug!(from = %addr, %to, "following the leader");
                    masters.follow(to);
                }
                Ok(Next::Leave) => debug!(%addr, "leaving this master for another"),
                Ok(Next::End(why)) => return why,
                Err(e) => debug!(%addr, error = %e, "master connection ended"),
            },
            _ = fenced.wait_for(|f| *f) => std::future::pending().await,
        }
        sleep(RETRY).await;
    }
}

/// When this node last looked for stalled peers, and since when it does so without a break.
#[derive(Debug, Default)]
pub struct Looks {
    last: Mono,
    since: Mono,
}

impl Looks {
    /// It looks now. Since when a peer's silence is the peer's.
    fn look(&mut self, now: Mono) -> Mono {
        if now.ms_since(self.last) > AWAY_MS {
            self.since = now;
        }
        self.last = now;
        self.since
    }
}

/// What is to be done with a connection.
#[derive(Debug)]
pub enum Next {
    /// The leader is there.
    Go(String),
    /// Another master may know more.
    Leave,
    /// This life has no more to say to masters.
    End(Ended),
}

/// One connection to a master without its socket: messages in, messages out. No I/O.
pub struct Talk<'a> {
    node: Arc<Node>,
    home: HomeId,
    masters: &'a mut Masters,
    addr: String,
    registered: &'a mut bool,
    /// To be sent, in order.
    pub out: Vec<Message>,
    /// The master was not ready: register again after [`RETRY`].
    pub register_soon: bool,
    /// The RELINQUISH said since the last tick: slot → cver.
    said: BTreeMap<Slot, u64>,
    /// Learners reported since then: slot, who, `cver`, `since`.
    reported: BTreeSet<(Slot, Ref, u64, u64)>,
}

async fn serve(
    talk: &mut Talk<'_>,
    mut reader: LineReader<OwnedReadHalf>,
    mut writer: LineWriter<OwnedWriteHalf>,
) -> Result<Next, ConnError> {
    let mut tick = interval(BEAT_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = Instant::now();
    let mut report_at = None;
    let node = talk.node.clone();
    let mut leaving = node.leaving.subscribe();
    talk.begin();
    loop {
        let cluster = Some(node.cluster()).filter(|c| c.0 != 0);
        for message in talk.out.drain(..) {
            writer.send(node.me.id.as_str(), cluster, 1, &message).await?;
        }
        if std::mem::take(&mut talk.register_soon) {
            sleep(RETRY).await;
            talk.register();
            continue;
        }
        tokio::select! {
            got = reader.recv() => {
                let Some(incoming) = got? else { return Ok(Next::Leave) };
                match incoming.message {
                    Ok(m) => {
                        if matches!(m, Message::KeepAliveAck(_) | Message::Added(_)) {
                            heard = Instant::now();
                        }
                        match talk.take(m) {
                            // A planned stop is confirmed before the connection ends.
                            Some(Next::End(why)) => {
                                for message in talk.out.drain(..) {
                                    writer.send(node.me.id.as_str(), cluster, 1, &message).await?;
                                }
                                return Ok(Next::End(why));
                            }
                            Some(next) => return Ok(next),
                            None => {}
                        }
                    }
                    Err(f) => debug!(addr = talk.addr, error = %f, "a message this node does not know"),
                }
            }
            _ = tick.tick() => {
                if heard.elapsed() > SILENCE_MAX {
                    return Ok(Next::Leave);
                }
                talk.tick();
                if node.left() {
                    return Ok(Next::End(Ended::Drained));
                }
            }
            () = node.behind.notified() => talk.pull(),
            () = sleep(HANDOVER_LOOK), if node.is_giving() => talk.relinquish(),
            Ok(()) = leaving.changed() => talk.ask_to_leave(),
            () = node.ready.notified(), if report_at.is_none() => report_at = Some(Instant::now() + READY_EVERY),
            () = sleep_until(report_at.unwrap_or(heard)), if report_at.is_some() => {
                report_at = None;
                talk.report_ready();
            }
        }
    }
}

impl<'a> Talk<'a> {
    /// For a connection that is open.
    pub fn new(
        node: Arc<Node>,
        home: HomeId,
        masters: &'a mut Masters,
        addr: String,
        registered: &'a mut bool,
    ) -> Self {
        Self {
            node,
            home,
            masters,
            addr,
            registered,
            out: Vec::new(),
            register_soon: false,
            said: BTreeMap::new(),
            reported: BTreeSet::new(),
        }
    }

    fn say(&mut self, message: Message) {
        self.out.push(message);
    }

    /// The connection is open.
    pub fn begin(&mut self) {
        if !*self.registered {
            self.register();
        }
    }

    /// Every [`BEAT_EVERY`].
    pub fn tick(&mut self) {
        if *self.registered {
            self.beat();
            // What no view has answered yet is said again.
            self.said.clear();
            self.reported.clear();
            self.report_ready();
            self.complain();
            self.relinquish();
            self.ask_to_leave();
        }
    }

    /// Says who this is.
    pub fn register(&mut self) {
        let node = self.node.clone();
        let c = &node.config;
        let (addr, peer_addr) = c.announced();
        self.say(Message::AddCacheServer(AddCacheServer {
            node: self.node.me.clone(),
            home: self.home,
            addr,
            peer_addr,
            zone: c.zone.clone(),
            weight: c.weight,
            standby: c.standby,
            follows: self.masters.last_life,
        }));
    }

    fn beat(&mut self) {
        let beat = KeepAlive {
            node: self.node.me.clone(),
            cfg_index: *self.node.cfg_index.borrow(),
            leader: self.masters.leader.clone(),
            stats: self.node.stats(),
        };
        self.say(Message::KeepAlive(beat));
    }

    /// Asks for the configuration.
    pub fn pull(&mut self) {
        let have = *self.node.cfg_index.borrow();
        self.say(Message::RefreshIp(RefreshIp { have, iplist: Vec::new(), view: None }));
    }

    /// Takes what the master says; what to do with the connection, if anything.
    pub fn take(&mut self, m: Message) -> Option<Next> {
        match m {
            Message::Added(a) => {
                *self.registered = true;
                self.masters.in_use_since = None;
                info!(cluster = %a.cluster_id, epoch = a.view.cfg_index, "registered");
                self.node.absorb(&a.view);
                self.beat();
            }
            Message::LastLife(last) if last.node.id == self.node.me.id && last.node != self.node.me => {
                self.masters.last_life = Some(last.node.incarnation);
                self.register();
            }
            Message::KeepAliveAck(ack) => {
                if Some(&ack.leader) < self.masters.leader.as_ref() && !mutant::is(Mutant::LowerLeader) {
                    // A former leader that does not know it yet.
                    return Some(Next::Leave);
                }
                self.masters.leader = Some(ack.leader);
                if ack.cfg_index > *self.node.cfg_index.borrow() {
                    self.pull();
                }
            }
            Message::RefreshIp(RefreshIp { view: Some(view), .. }) => {
                self.node.absorb(&view);
            }
            Message::RefreshMaster(m) => {
                let to = self.masters.learn(&m);
                return match to {
                    Some(to) if to != self.addr => Some(Next::Go(to)),
                    // Nobody leads, or not yet, or one that is known to lead no more: another master may know more.
                    None => Some(Next::Leave),
                    Some(_) => {
                        // It is the one, but was not ready when asked.
                        self.register_soon = !*self.registered;
                        None
                    }
                };
            }
            Message::Stop(order) => return self.stop(order),
            Message::ShutdownCache(order) => return self.go(order),
            Message::Error(f) if *self.node.leaving.borrow() && CANT_LEAVE.contains(&f.code.as_str()) => {
                return Some(Next::End(Ended::CantLeave(f.to_string())));
            }
            Message::Error(f) if f.code == "NOT_A_MEMBER" => {
                *self.registered = false;
                self.register();
            }
            Message::Error(f) if f.code == "FENCED" && !*self.registered => {
                self.node.told_fenced();
                return Some(Next::Leave);
            }
            Message::Error(f) if f.code == "ID_IN_USE" => {
                // It may be this node's own former life, on a host that died: that is over soon.
                let now = Mono::now();
                let since = *self.masters.in_use_since.get_or_insert_with(|| {
                    warn!(addr = self.addr, error = %f, "the name is taken; trying on for a moment");
                    now
                });
                let over = now.ms_since(since) >= IN_USE_MS;
                return Some(if over { Next::End(Ended::Refused(f.to_string())) } else { Next::Leave });
            }
            Message::Error(f) => {
                warn!(addr = self.addr, code = f.code, error = %f, "a master answered with an error");
                if !*self.registered {
                    return Some(Next::Leave);
                }
            }
            _ => {}
        }
        None
    }

    fn stop(&mut self, order: StopOrder) -> Option<Next> {
        if order.cfg_index > *self.node.cfg_index.borrow() {
            // Only a view can order it: pull it; the order is repeated.
            self.pull();
            return None;
        }
        if !self.node.view().stopping {
            return None;
        }
        self.node.stopped.store(true, Ordering::Release);
        self.node.halt();
        let me = self.node.me.clone();
        self.say(Message::Stop(StopOrder { cfg_index: order.cfg_index, node: Some(me) }));
        info!("stopped by plan");
        Some(Next::End(Ended::Stopped))
    }

    /// The leader says that this node is drained. Believed only if its own view says so too.
    fn go(&mut self, order: ShutdownCache) -> Option<Next> {
        if order.node != self.node.me.id {
            return None;
        }
        if order.cfg_index > *self.node.cfg_index.borrow() {
            // Only a view can order it: pull it; the order is repeated.
            self.pull();
            return None;
        }
        if !self.node.is_drained() {
            return None;
        }
        // Not halted: it serves no slot, and whoever still asks is told where they are.
        self.say(Message::ShutdownCache(ShutdownCache { node: order.node, cfg_index: order.cfg_index.max(1) }));
        info!("drained: a member of no slot, leaving");
        Some(Next::End(Ended::Drained))
    }

    /// Asks the leader to drain this node, until the view shows that it does.
    pub fn ask_to_leave(&mut self) {
        if *self.node.leaving.borrow() && *self.registered && !self.node.is_draining() {
            let node = self.node.me.id.clone();
            self.say(Message::ShutdownCache(ShutdownCache { node, cfg_index: 0 }));
        }
    }

    /// Gives up what is ready to be given up and was not said since the last tick.
    pub fn relinquish(&mut self) {
        let mut ready = self.node.relinquished();
        ready.retain(|(slot, cver, _)| self.said.insert(*slot, *cver) != Some(*cver));
        for part in ready.chunks(READY_MAX) {
            let m = Relinquish { primary: self.node.me.clone(), slots: part.to_vec() };
            self.say(Message::Relinquish(m));
        }
    }

    /// Reports learners that are counted and complete and were not reported since the last tick.
    pub fn report_ready(&mut self) {
        let ready = self.node.ready_learners();
        for (learner, mut slots) in ready {
            slots.retain(|(slot, cver, since)| self.reported.insert((*slot, learner.clone(), *cver, *since)));
            if slots.is_empty() {
                continue;
            }
            let copied = self.node.copies().remove(&learner.id);
            for part in slots.chunks(READY_MAX) {
                let (primary, learner) = (self.node.me.clone(), learner.clone());
                let m = LearnerReady { primary, learner, slots: part.to_vec(), copied: copied.clone() };
                self.say(Message::LearnerReady(m));
            }
        }
    }

    fn complain(&mut self) {
        for (about, for_ms) in self.node.stalled() {
            warn!(peer = %about, for_ms, "a backup neither confirms nor renews its lease");
            let from = self.node.me.clone();
            self.say(Message::Complain(Complain { from, about, for_ms }));
        }
    }
}

impl Node {
    /// Slots that this primary gives up: (slot, cver, final seq).
    pub fn relinquished(&self) -> Vec<(Slot, u64, u64)> {
        let turn = self.turn();
        let giving = lock(&self.giving).clone();
        // Who grants no lease is cut off or dead: nobody waits for it, and clients don't ask it.
        let leases = self.peers().into_iter().map(|p| p.lease()).filter(|l| l.until > turn.mono);
        let known = leases.map(|l| l.cfg_index).min().unwrap_or(u64::MAX);
        let look = |slot: Slot| {
            let (cver, seq) = lock(self.shard(slot)).relinquish(slot, turn, known)?;
            Some((slot, cver, seq))
        };
        giving.into_iter().filter_map(look).collect()
    }

    /// Learners that hold everything and are counted: per learner (slot, cver, since).
    pub fn ready_learners(&self) -> BTreeMap<Ref, Vec<(Slot, u64, u64)>> {
        let mut out: BTreeMap<Ref, Vec<(Slot, u64, u64)>> = BTreeMap::new();
        let now = Mono::now();
        for slot in lock(&self.teaching).clone() {
            for (learner, cver, since) in lock(self.shard(slot)).slot(slot).ready_learners(now) {
                out.entry(learner.clone()).or_default().push((slot, cver, since));
            }
        }
        out
    }

    /// Members of some `ack_set` that hold replies up, and for how long, milliseconds.
    pub fn stalled(&self) -> Vec<(Ref, u64)> {
        let now = Mono::now();
        let now_ms = now.0 / 1_000_000;
        let since = lock(&self.looks).look(now);
        let mut out = Vec::new();
        for p in self.peers() {
            let waits = lock(&p.queue).backlog() > 0;
            let quiet = now_ms.saturating_sub(p.progress_ms.load(Ordering::Relaxed)).min(now.ms_since(since));
            if !waits {
                p.progress_ms.store(now_ms, Ordering::Relaxed);
            }
            let unleased = now.ms_since(p.lease().until.max(p.made).max(since));
            let broken = p.broken.load(Ordering::Acquire);
            let stalled = if waits { quiet.max(unleased) } else { unleased };
            if (stalled >= STALL_MS || broken) && self.counts(&p.node) {
                out.push((p.node.clone(), stalled.max(STALL_MS)));
            }
        }
        out
    }

    fn counts(&self, peer: &Ref) -> bool {
        self.shards.iter().any(|shard| {
            lock(shard).repls().any(|slot| {
                slot.rank() == Rank::Primary
                    && slot.targets().iter().any(|t| &t.node == peer && (t.in_ack_set() || t.broken))
            })
        })
    }

    /// How many slots it is primary of, by its view.
    pub fn serves(&self) -> usize {
        self.view().slots.iter().filter(|s| s.primary.as_ref() == Some(&self.me)).count()
    }

    /// For the heartbeat.
    pub fn stats(&self) -> NodeStats {
        let [p50_us, p99_us] = self.counters.quantiles_us([0.5, 0.99]);
        let mut s = NodeStats {
            memory_limit: self.config.memory,
            commands: self.counters.commands.get(),
            ops_per_s: f64::from_bits(self.ops_per_s.load(Ordering::Relaxed)),
            clients: self.clients.count(),
            errors: self.counters.errors.load(Ordering::Relaxed),
            p50_us,
            p99_us,
            insecure_bind: self.config.insecure_bind,
            hot_slots: self.heat.hot(),
            ..NodeStats::default()
        };
        for shard in &self.shards {
            let t = lock(shard).store.totals();
            s.primary_keys += t.primary_keys;
            s.primary_bytes += t.primary_bytes;
            s.backup_keys += t.backup_keys;
            s.backup_bytes += t.backup_bytes;
            s.hits += t.hits;
            s.misses += t.misses;
            s.evicted += t.evicted;
            s.expired += t.expired;
        }
        s.copies = self.copies().into_values().filter(|c| c.bytes + c.keys + c.waiting > 0).collect();
        s
    }

    /// What this primary copied, by whom to.
    fn copies(&self) -> BTreeMap<NodeId, CopyStats> {
        // By name: of a node that came back a former life may still be known, and two sums for one name never come to rest.
        let mut copies: BTreeMap<NodeId, CopyStats> = BTreeMap::new();
        for p in self.peers() {
            let to = || CopyStats { to: p.node.id.clone(), keys: 0, bytes: 0, waiting: 0 };
            let sum = copies.entry(p.node.id.clone()).or_insert_with(to);
            sum.keys += p.copied.keys.load(Ordering::Relaxed);
            sum.bytes += p.copied.bytes.load(Ordering::Relaxed);
            sum.waiting += lock(&p.jobs).len() as u64;
        }
        copies
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_blamed_for_the_time_this_node_was_away() {
        let at = |ms| Mono(0).plus_ms(ms);
        let mut looks = Looks::default();
        assert_eq!(looks.look(at(50_000)), at(50_000), "the first look blames nobody");
        for ms in (50_250..60_000).step_by(250) {
            assert_eq!(looks.look(at(ms)), at(50_000));
        }
        assert_eq!(looks.look(at(65_000)), at(65_000), "paused in between");
        assert_eq!(looks.look(at(65_250)), at(65_000));
    }
}
