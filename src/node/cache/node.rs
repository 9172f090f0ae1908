//! What the threads of one life of a node share, and how it takes in a new configuration (on the control thread only).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, RwLock};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::time::timeout;
use tracing::{info, warn};

use super::beat::Looks;
use super::calls::Calls;
use super::clients::Clients;
use super::command::{ClusterView, Settings, Slowlog};
use super::heat::Heat;
use super::peer::{BACKLOG_MAX, Granted, Peer, PeerRef};
use super::shard::{self, Shard, Turn, lock};
use super::slot::Rank;
use super::stats::Counters;
use super::store::{Budget, Now, Scope, Store, Wanted};
use crate::node::clock::{Mono, wall_ms};
use crate::node::config::NodeConfig;
use crate::node::mutant::{self, Mutant};
use crate::proto::frame::Refusal;
use crate::proto::id::{ClusterId, Ref};
use crate::proto::slot::{SLOTS, Slot};
use crate::proto::status::NodeState;
use crate::proto::table::SlotTable;
use crate::proto::view::{Absorbed, Config, Phase, SlotState, View};

/// How far the wall clock may drift from the derived one before it is corrected, milliseconds: far more than reading jitter,
/// far less than a person notices.
const WALL_STEP_MS: u64 = 500;
/// Redis's own default: a connection costs a descriptor and its buffers.
const CLIENTS_MAX: u32 = 10_000;
/// Redis's own defaults.
const SLOW_US: i64 = 10_000;
const SLOWLOG_LEN: u64 = 128;
/// Slots of a new view that a shard takes in before it lets waiting commands have a turn, and how long that turn is at least.
const RECONFIGURE_SLICE: usize = 128;
const RECONFIGURE_GAP: Duration = Duration::from_micros(20);
/// Keys evicted under one lock when a share has shrunk; the rest follows at the next tick.
const SHRINK_SLICE: usize = 1024;
/// Groups are a byte; 0 is "no backup". More peers than this share group numbers, which only makes eviction less exact.
const GROUPS: usize = 255;
/// Shards for each of several threads; one thread has one.
const SHARDS_PER_THREAD: usize = 2;

/// One life of a cache node.
pub struct Node {
    /// Who this is.
    pub me: Ref,
    /// How it was started.
    pub config: NodeConfig,
    /// Keys and replication.
    pub shards: Vec<Mutex<Shard>>,
    /// Memory in sum.
    pub budget: Arc<Budget>,
    /// Counters.
    pub counters: Counters,
    /// Client connections.
    pub clients: Clients,
    view: RwLock<Arc<Config>>,
    /// `cfg_index` of the view; changes after every slot took it in.
    pub cfg_index: watch::Sender<u64>,
    peers: Mutex<BTreeMap<Ref, PeerRef>>,
    /// Peers whose link and beacon are to be started.
    new_peers: mpsc::UnboundedSender<PeerRef>,
    /// Data frames taken from each peer.
    pub inbound: Mutex<BTreeMap<Ref, Arc<Mutex<Inbound>>>>,
    /// Someone showed a view or asks for more than this node has: pull from the masters.
    pub behind: Notify,
    /// Some learner holds everything: report it.
    pub ready: Notify,
    /// A link's backlog passed its bound: clients are not read until it drains.
    pub backlogged: AtomicBool,
    /// Some view showed this life as a member.
    was_member: AtomicBool,
    /// This life is over: its incarnation is dead to the masters.
    pub fenced: watch::Sender<bool>,
    /// The configuration that said so, and with it who has its slots now.
    fenced_by: OnceLock<Arc<Config>>,
    /// The one that ended the life before this one: where clients are sent until this life knows a configuration.
    pub former: Option<Arc<Config>>,
    /// A planned stop was ordered and everything is halted.
    pub stopped: AtomicBool,
    /// Slots this node is primary of and shall give away.
    pub giving: Mutex<Vec<Slot>>,
    /// Slots this node is primary of and copies to somebody.
    pub teaching: Mutex<Vec<Slot>>,
    /// This process was asked to end: it wants to be drained first.
    pub leaving: watch::Sender<bool>,
    /// The masters let this life go by plan.
    left: AtomicBool,
    own_quota: AtomicU64,
    /// The configuration the quotas follow from.
    quotas_of: AtomicU64,
    /// Over the last second, an f64's bits.
    pub ops_per_s: AtomicU64,
    /// When this life began.
    pub started: Mono,
    /// What CONFIG SET may change.
    pub settings: Mutex<Settings>,
    /// SLOWLOG.
    pub slowlog: Mutex<Slowlog>,
    /// Commands slower than this are noted, nanoseconds.
    pub slow_ns: AtomicU64,
    /// What is asked for most.
    pub heat: Heat,
    /// What is counted of commands.
    pub calls: Calls,
    /// The configuration as clients are told of it, and its `cfg_index`.
    pub cluster_cache: Mutex<Option<(u64, Arc<ClusterView>)>>,
    wall_offset: AtomicU64,
    /// Streams begun to any peer in this life.
    sessions: AtomicU64,
    /// Since when this node looks for stalled peers without a break.
    pub looks: Mutex<Looks>,
}

/// What was taken from one sender: survives its connections.
#[derive(Debug, Default)]
pub struct Inbound {
    /// Only the newest connection may bring frames.
    pub generation: u64,
    /// Last `link_seq` taken or refused, of the newest session.
    pub received: u64,
    /// Refused frames that the sender may not have been told of.
    pub refusals: Vec<(u64, Refusal)>,
}

impl Node {
    /// A life that knows no configuration yet. New peers are announced on the channel.
    pub fn new(me: Ref, config: NodeConfig, new_peers: mpsc::UnboundedSender<PeerRef>) -> Self {
        let eviction = config.eviction;
        let node = Self::sized(me, config, new_peers, SLOTS, |budget| Store::new(budget).with_eviction(eviction));
        // An empty node is short of nothing: no use need reorder anything yet.
        node.pace();
        node
    }

    /// As [`Node::new`], with fewer slots and stores of the caller's making: for simulations.
    pub fn sized(
        me: Ref,
        config: NodeConfig,
        new_peers: mpsc::UnboundedSender<PeerRef>,
        slots: usize,
        store: impl Fn(Arc<Budget>) -> Store,
    ) -> Self {
        // With one shard per thread they would often wait for each other; with many, every pipeline locks many, and a lock that
        // another core held last costs as much as a short wait.
        let count = if config.threads == 1 { 1 } else { config.threads * SHARDS_PER_THREAD };
        let budget = Budget::new(config.memory);
        let standalone = config.standalone;
        let shards =
            (0..count).map(|_| Mutex::new(Shard::new(store(budget.clone()), slots, count, standalone))).collect();
        let view = if standalone { standalone_view(&me, &config) } else { Config::empty(ClusterId(0), slots) };
        let settings = Settings {
            maxmemory: config.memory,
            eviction: config.eviction,
            maxclients: CLIENTS_MAX,
            timeout_s: 0,
            slowlog_slower_than_us: SLOW_US,
            slowlog_max_len: SLOWLOG_LEN,
        };
        let calls = Calls::new(config.threads);
        let node = Self {
            me,
            config,
            shards,
            budget,
            counters: Counters::default(),
            clients: Clients::default(),
            view: RwLock::new(Arc::new(Config::empty(ClusterId(0), slots))),
            cfg_index: watch::Sender::new(view.cfg_index),
            peers: Mutex::default(),
            new_peers,
            inbound: Mutex::default(),
            behind: Notify::new(),
            ready: Notify::new(),
            was_member: AtomicBool::new(false),
            backlogged: AtomicBool::new(false),
            fenced: watch::Sender::new(false),
            fenced_by: OnceLock::new(),
            former: None,
            stopped: AtomicBool::new(false),
            giving: Mutex::default(),
            teaching: Mutex::default(),
            leaving: watch::Sender::new(false),
            left: AtomicBool::new(false),
            own_quota: AtomicU64::new(0),
            quotas_of: AtomicU64::new(0),
            ops_per_s: AtomicU64::new(0),
            started: Mono::now(),
            settings: Mutex::new(settings),
            slowlog: Mutex::new(Slowlog::new(settings.slowlog_max_len)),
            slow_ns: AtomicU64::new(settings.slowlog_slower_than_us as u64 * 1000),
            heat: Heat::default(),
            calls,
            cluster_cache: Mutex::default(),
            wall_offset: AtomicU64::new(wall_ms().saturating_sub(Mono::now().0 / 1_000_000)),
            sessions: AtomicU64::new(0),
            looks: Mutex::default(),
        };
        if standalone {
            node.budget.set_primary_quota(node.config.memory);
            node.publish(Arc::new(view), false);
        }
        node
    }

    /// The shard a slot lives in.
    pub fn shard(&self, slot: Slot) -> &Mutex<Shard> {
        &self.shards[slot.ix() % self.shards.len()]
    }

    /// The configuration in force.
    pub fn view(&self) -> Arc<Config> {
        self.view.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// The configuration that ended this life, if one did.
    pub fn fenced_by(&self) -> Option<Arc<Config>> {
        self.fenced_by.get().cloned()
    }

    /// Who had a slot when the life before this one ended, if somebody else: cut off from the masters, this node may not be told
    /// for long.
    pub fn former_addr(&self, slot: Slot) -> Option<&str> {
        let former = self.former.as_ref()?;
        let primary = former.slots.get(slot.ix())?.primary.as_ref().filter(|p| p.id != self.me.id)?;
        Some(&former.member(primary)?.addr)
    }

    /// The cluster, once known.
    pub fn cluster(&self) -> ClusterId {
        self.view().cluster_id
    }

    /// Reads the clocks.
    pub fn turn(&self) -> Turn {
        let mono = Mono::now();
        let mono_ms = mono.0 / 1_000_000;
        Turn { mono, now: Now { mono_ms, wall_ms: mono_ms + self.wall_offset.load(Ordering::Relaxed) } }
    }

    /// Follows the wall clock where it was set; called a few times a second.
    pub fn follow_wall_clock(&self) {
        let derived = self.turn().now.wall_ms;
        let real = wall_ms();
        if real.abs_diff(derived) > WALL_STEP_MS {
            self.wall_offset.store(real.saturating_sub(Mono::now().0 / 1_000_000), Ordering::Relaxed);
        }
    }

    /// All peers that are members now.
    pub fn peers(&self) -> Vec<PeerRef> {
        lock(&self.peers).values().cloned().collect()
    }

    /// The handle of a peer, made when first asked for.
    fn peer(&self, node: &Ref, view: &Config) -> PeerRef {
        let mut peers = lock(&self.peers);
        let former = match peers.get(node) {
            Some(p) if !p.gone.load(Ordering::Acquire) => return p.clone(),
            former => former.cloned(),
        };
        let addr = view.member(node).map(|m| m.peer_addr.clone()).unwrap_or_default();
        let used: Vec<u8> = peers.values().map(|p| p.group).collect();
        let group = (1..=GROUPS as u8).find(|g| !used.contains(g)).unwrap_or(1);
        // The number may have been another's: its credit does not go on.
        self.budget.set_credit(group, 0);
        let p = Arc::new(Peer::new(node.clone(), addr, group));
        lock(&p.queue).begin(self.sessions.fetch_add(1, Ordering::Relaxed) + 1);
        if let Some(former) = former {
            // It was given up and came back: its links have ended, what was promised to it still binds.
            p.promised_before(former.promised());
        }
        peers.insert(node.clone(), p.clone());
        // The receiver lives as long as this life; afterwards nobody needs links.
        let _ = self.new_peers.send(p.clone());
        p
    }

    /// A peer by name and life, if it is one.
    pub fn known_peer(&self, node: &Ref) -> Option<PeerRef> {
        lock(&self.peers).get(node).cloned()
    }

    /// Unacked bytes towards the slowest peer.
    pub fn largest_backlog(&self) -> usize {
        lock(&self.peers).values().map(|p| lock(&p.queue).backlog()).max().unwrap_or(0)
    }

    /// Clients are read again once no peer is far behind: one that was may have caught up, or be a member no more. They wait for
    /// this, so sweeps call it.
    pub fn judge_backlog(&self) {
        if self.backlogged.load(Ordering::Acquire) && self.largest_backlog() <= BACKLOG_MAX {
            self.backlogged.store(false, Ordering::Release);
            info!("no peer is far behind any more: clients are read again");
        }
    }

    /// Waits until this view, or a newer one, is taken in; whether it was in time.
    pub async fn reaches(&self, cfg_index: u64, within: Duration) -> bool {
        let mut known = self.cfg_index.subscribe();
        // An error is a node that ends.
        matches!(timeout(within, known.wait_for(|index| *index >= cfg_index)).await, Ok(Ok(_)))
    }

    /// Takes a view in, slot by slot, whoever brought it.
    pub fn absorb(&self, view: &View) -> Absorbed {
        let old = self.view();
        let mut new = (*old).clone();
        let absorbed = new.absorb(view);
        if absorbed != Absorbed::New {
            if absorbed == Absorbed::Gap {
                self.behind.notify_one();
            }
            return absorbed;
        }
        let live = new.is_live(&self.me);
        if !live && new.member(&self.me).is_some_and(|m| m.state == NodeState::Left) {
            // Drained or removed by plan: this process is not wanted back, under no new life either.
            self.left.store(true, Ordering::Release);
            // One that was drained serves nothing anyway, and says where things are until it ends.
            if !self.is_drained() {
                self.halt();
            }
            return absorbed;
        }
        if !live && (self.was_member.load(Ordering::Acquire) || new.member(&self.me).is_some()) {
            // The last holder of orphan slots keeps them and claims them back; anyone else starts anew, empty.
            let holds = new.slots.iter().any(|s| s.last_holder.as_ref() == Some(&self.me));
            if !holds || mutant::is(Mutant::FencedHolderWipes) {
                warn!(epoch = new.cfg_index, "fenced: the masters declared this incarnation dead");
                self.halt();
                // Nobody else sets it, and it is said only once.
                let _ = self.fenced_by.set(Arc::new(new));
                self.fenced.send_replace(true);
                return absorbed;
            }
            warn!(epoch = new.cfg_index, "declared dead, but the last holder of orphan slots: claiming them back");
        }
        self.was_member.fetch_or(live, Ordering::AcqRel);
        // From here on slots and shares don't belong together, until shares follow from the new view too.
        self.quotas_of.store(0, Ordering::Release);
        self.budget.set_taking_in(true);
        let new = Arc::new(new);
        let now = Mono::now();
        for node in new.members.keys().filter_map(|id| new.current(id)).filter(|r| *r != self.me && new.is_live(r)) {
            self.peer(&node, &new);
        }
        let promised = |r: &Ref| self.known_peer(r).map_or(Mono(0), |p| p.promised());
        let mut copies: BTreeMap<Ref, Vec<Slot>> = BTreeMap::new();
        let (mut gained, mut lost) = (0u32, 0u32);
        for (n, shard) in self.shards.iter().enumerate() {
            let mine = (n..new.slots.len()).step_by(self.shards.len());
            let changed: Vec<usize> = mine.filter(|&s| is_changed(&old, &new, s)).collect();
            lock(shard).config = new.clone();
            for (i, &s) in changed.iter().enumerate() {
                if i > 0 && i.is_multiple_of(RECONFIGURE_SLICE) {
                    // Whoever waits for the shard needs longer to wake than to lock it again takes here.
                    std::thread::sleep(RECONFIGURE_GAP);
                }
                let mut shard = lock(shard);
                let slot = Slot(s as u16);
                let was = shard.slot(slot).rank();
                let change = shard.reconfigure(slot, &new.slots[s], &self.me, now, promised, |r| self.peer(r, &new));
                let is = shard.slot(slot).rank();
                gained += u32::from(is == Rank::Primary && was != Rank::Primary);
                lost += u32::from(is != Rank::Primary && was == Rank::Primary);
                if change.copy {
                    for t in shard.slot(slot).targets().iter().filter(|t| t.stage == super::slot::Stage::Wanted) {
                        copies.entry(t.node.clone()).or_default().push(slot);
                    }
                }
            }
        }
        if gained + lost > 0 {
            info!(epoch = new.cfg_index, gained, lost, "primary slots changed");
        }
        let (mut giving, mut teaching) = (Vec::new(), Vec::new());
        let duties = new.slots.each(|s| {
            let leads = s.primary.as_ref() == Some(&self.me);
            (leads && s.phase == Phase::Handover, leads && !s.learners.is_empty())
        });
        for (ix, &(gives, teaches)) in duties.iter().enumerate() {
            if gives {
                giving.push(Slot(ix as u16));
            }
            if teaches {
                teaching.push(Slot(ix as u16));
            }
        }
        *lock(&self.giving) = giving;
        *lock(&self.teaching) = teaching;
        // At once when leases at this view are waited for, to serve or to give away, not at the next tick.
        let urgent = gained > 0 || self.is_giving();
        self.publish(new.clone(), urgent);
        for (node, slots) in copies {
            let peer = self.peer(&node, &new);
            lock(&peer.jobs).extend(slots);
            peer.copy_wake.notify_one();
        }
        self.drop_peers(&new);
        self.requota();
        absorbed
    }

    fn publish(&self, new: Arc<Config>, urgent: bool) {
        for shard in &self.shards {
            lock(shard).config = new.clone();
        }
        let index = new.cfg_index;
        *self.view.write().unwrap_or_else(std::sync::PoisonError::into_inner) = new;
        self.cfg_index.send_replace(index);
        if urgent {
            lock(&self.peers).values().for_each(|p| p.beacon_wake.notify_one());
        }
        self.clients.nudge_all();
    }

    /// Peers that are members no more: links end. Their promises stay known for as long as they bind.
    fn drop_peers(&self, view: &Config) {
        let now = Mono::now();
        lock(&self.peers).retain(|node, p| {
            let keep = view.is_live(node);
            if !keep && !p.gone.swap(true, Ordering::AcqRel) {
                // It will never say that it stays within less, and what it had here is wiped or this node's own by now.
                *lock(&p.quota) = Granted::default();
                p.wake.notify_one();
                p.beacon_wake.notify_one();
                p.copy_wake.notify_one();
                // The connection from it ends too: it speaks of a life that is over.
                p.quota_wake.notify_one();
            }
            keep || p.promised() > now
        });
        // A life that is dead may be back, and go on where it was.
        lock(&self.inbound).retain(|node, _| view.member(node).is_some());
    }

    /// Shares the memory limit out anew: by slots, primaries and backups alike (ARCHITECTURE: memory).
    pub fn requota(&self) {
        let view = self.view();
        let mut mine = 0u64;
        let mut theirs: BTreeMap<&Ref, u64> = BTreeMap::new();
        for (s, slots) in view.slots.counts() {
            match &s.primary {
                Some(p) if *p == self.me => mine += slots,
                Some(p) if s.replica(&self.me).is_some() => *theirs.entry(p).or_default() += slots,
                // Nobody else has it: what a last holder evicts before it is back is lost.
                None if s.last_holder.as_ref() == Some(&self.me) => mine += slots,
                _ => {}
            }
        }
        let all = mine + theirs.values().sum::<u64>();
        let share = |slots: u64| (u128::from(self.config.memory) * u128::from(slots) / u128::from(all.max(1))) as u64;
        for p in self.peers() {
            let mut quota = lock(&p.quota);
            quota.target = theirs.get(&p.node).map_or(0, |&n| share(n));
            quota.view = view.cfg_index;
        }
        self.own_quota.store(share(mine), Ordering::Relaxed);
        self.quotas_of.store(view.cfg_index, Ordering::Release);
        self.settle_quotas();
        self.budget.set_taking_in(false);
        for p in self.peers() {
            p.quota_wake.notify_one();
            self.fit(&p);
        }
    }

    /// Tells peers what they may use: first those who get less; more is given only from what is free.
    pub fn settle_quotas(&self) {
        if self.config.standalone || self.quotas_of() == 0 {
            return;
        }
        // Who is gone uses nothing any more: it can't ack that it makes room.
        let peers: Vec<PeerRef> = self.peers().into_iter().filter(|p| !p.gone.load(Ordering::Acquire)).collect();
        let mut held: u64 = peers.iter().map(|p| lock(&p.quota).held).sum();
        let own_target = self.own_quota.load(Ordering::Relaxed);
        // The own quota shrinks at once but counts as taken until the keys are gone.
        let own = own_target.min(self.config.memory.saturating_sub(held));
        self.budget.set_primary_quota(own);
        self.budget.set_primary_quota_target(own_target);
        held += own.max(self.budget.primary_used());
        for p in &peers {
            let mut q = lock(&p.quota);
            let tell = if q.target <= q.held {
                q.target
            } else {
                let more = (q.target - q.held).min(self.config.memory.saturating_sub(held));
                held += more;
                q.held += more;
                q.held
            };
            if tell != q.told {
                q.told = tell;
                drop(q);
                p.quota_wake.notify_one();
            }
        }
    }

    /// The configuration that the quotas follow from; 0 before the first, and while a newer one is taken in.
    pub fn quotas_of(&self) -> u64 {
        self.quotas_of.load(Ordering::Acquire)
    }

    /// Evicts what this node holds above its share at a peer, once that share is final.
    pub fn fit(&self, peer: &PeerRef) {
        let credit = *lock(&peer.credit);
        // Asked under the shard's lock: it and the shares must still be of one view.
        let over = || match self.quotas_of() {
            view if view > 0 && view == credit.cfg_index => {
                self.budget.group_used(peer.group).saturating_sub(credit.target)
            }
            _ => 0,
        };
        if over() > 0 {
            let turn = self.turn();
            for shard in &self.shards {
                lock(shard).shrink(Scope::Group(peer.group), over, turn, SHRINK_SLICE);
            }
        }
        let mut credit = lock(&peer.credit);
        if credit.owed && self.budget.group_used(peer.group) <= credit.bytes {
            credit.owed = false;
            drop(credit);
            peer.quota_met.store(true, Ordering::Release);
            peer.wake.notify_one();
        }
    }

    /// See [`Store::pace`](super::store::Store::pace).
    pub fn pace(&self) {
        let now = self.turn().now;
        self.shards.iter().for_each(|shard| lock(shard).store.pace(now));
    }

    /// Evicts what primaries hold above this node's own share of its memory.
    pub fn fit_own(&self) {
        if self.config.standalone {
            return;
        }
        let over = || match self.quotas_of() {
            0 => 0,
            _ => self.budget.primary_used().saturating_sub(self.own_quota.load(Ordering::Relaxed)),
        };
        if over() > 0 {
            let turn = self.turn();
            for shard in &self.shards {
                lock(shard).shrink(Scope::Own, over, turn, SHRINK_SLICE);
            }
        }
    }

    /// A peer stays within a quota from here on.
    pub fn on_quota_ack(&self, peer: &PeerRef, bytes: u64) {
        let mut q = lock(&peer.quota);
        if bytes == q.told && bytes < q.held {
            q.held = bytes;
            drop(q);
            self.settle_quotas();
        }
    }

    /// Looks ahead for keys of commands that are about to run.
    pub fn warm(&self, wanted: &mut [Wanted<'_>]) {
        shard::warm(&self.shards, wanted);
    }

    /// Looks ahead for what acks of these slots' items will change.
    pub fn warm_acked(&self, slots: impl Iterator<Item = Slot> + Clone) {
        shard::warm_acked(&self.shards, slots);
    }

    /// The masters say that this life is over. Believed at once if no view showed it as a member yet: then it holds nothing. A
    /// member finds out from a view, for it may be the last that holds some slots.
    pub fn told_fenced(&self) {
        if !self.was_member.load(Ordering::Acquire) {
            warn!("fenced before any configuration showed this life as a member");
            self.halt();
            self.fenced.send_replace(true);
        }
    }

    /// Whether some slot is to be given away.
    pub fn is_giving(&self) -> bool {
        !lock(&self.giving).is_empty()
    }

    /// Whether the masters let this life go by plan.
    pub fn left(&self) -> bool {
        self.left.load(Ordering::Acquire)
    }

    /// Whether the view shows this life as being drained.
    pub fn is_draining(&self) -> bool {
        self.view().member(&self.me).is_some_and(|m| m.state == NodeState::Draining)
    }

    /// Whether the view shows that this life is being drained and holds nothing any more.
    pub fn is_drained(&self) -> bool {
        let view = self.view();
        let holds = |s: &SlotState| s.replica(&self.me).is_some() || s.last_holder.as_ref() == Some(&self.me);
        let leaves = view.member(&self.me).is_some_and(|m| matches!(m.state, NodeState::Draining | NodeState::Left));
        leaves && !view.slots.iter().any(|s| holds(s))
    }

    /// Stops serving for good (planned stop, fenced).
    pub fn halt(&self) {
        self.shards.iter().for_each(|s| lock(s).halt());
        self.clients.nudge_all();
    }
}

fn is_changed(old: &Config, new: &Config, slot: usize) -> bool {
    let (Some(old), Some(new)) = (old.slots.get(slot), new.slots.get(slot)) else { return true };
    // What a delta leaves be is the same record, not an equal one: most slots are not even looked at.
    !Arc::ptr_eq(old, new) && old.cver != new.cver
}

/// What a node without masters believes: itself, primary of everything.
fn standalone_view(me: &Ref, config: &NodeConfig) -> Config {
    use crate::proto::id::HomeId;
    use crate::proto::view::{Member, Replica};
    let slot = SlotState {
        pterm: 1,
        cver: 1,
        phase: Phase::Serving,
        primary: Some(me.clone()),
        insync: vec![Replica { node: me.clone(), since: 1 }],
        ..SlotState::default()
    };
    let member = Member {
        incarnation: me.incarnation,
        home: HomeId(0),
        addr: config.announced().0,
        peer_addr: config.announced().1,
        state: NodeState::Up,
        zone: String::new(),
        weight: 1.0,
    };
    Config {
        cluster_id: ClusterId::random(),
        cfg_index: 1,
        backups: 0,
        stopping: false,
        members: [(me.id.clone(), member)].into(),
        slots: SlotTable::new(SLOTS, slot),
    }
}
