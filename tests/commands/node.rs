//! A node in miniature: the commands over plain stores, without sockets or peers. Every change is also shipped to a second
//! store, as to a backup, so that effects are checked along with replies.

use std::cell::RefCell;
use std::sync::Arc;

use cachectl::node::cache::command::context::KeyedFn;
use cachectl::node::cache::command::host::{Facts, Host, Settings};
use cachectl::node::cache::command::{
    self, ClientInfo, ClusterView, ConnCtx, ConnState, ErrorReply, Keyed, Kind, NodeCtx, Slowlog, Spec, error,
};
use cachectl::node::cache::effect::{Effect, Effects, Reader};
use cachectl::node::cache::store::{Budget, Eviction, Now, Role, Store};
use cachectl::node::clock::{Mono, wall_ms};
use cachectl::proto::args::Args;
use cachectl::proto::id::{ClusterId, HomeId, Incarnation, NodeId, Ref};
use cachectl::proto::reply::{Proto, Reply};
use cachectl::proto::slot::{SLOTS, Slot};
use cachectl::proto::status::NodeState;
use cachectl::proto::view::{Config, Member, Phase, SlotState};

/// More than one, so that walks over several shards are part of every test.
const SHARDS: usize = 3;

/// The whole node but its connections.
pub struct MiniHost {
    shards: Vec<RefCell<Store>>,
    backups: Vec<RefCell<Store>>,
    view: Arc<ClusterView>,
    settings: Settings,
    slowlog: Slowlog,
    clients: Vec<ClientInfo>,
    pub killed: Vec<u64>,
}

fn now() -> Now {
    Now { mono_ms: Mono::now().0 / 1_000_000, wall_ms: wall_ms() }
}

impl MiniHost {
    fn store(&self, slot: Slot) -> &RefCell<Store> {
        &self.shards[self.shard_of(slot)]
    }
}

impl Host for MiniHost {
    fn now(&self) -> Now {
        now()
    }

    fn cluster(&self) -> Arc<ClusterView> {
        self.view.clone()
    }

    fn shards(&self) -> usize {
        SHARDS
    }

    fn shard_of(&self, slot: Slot) -> usize {
        (slot.ix() + 1) % SHARDS
    }

    fn with_shard(&self, shard: usize, f: &mut dyn FnMut(&mut Store)) {
        f(&mut self.shards[shard].borrow_mut());
    }

    fn flush_all(&mut self) -> Result<(), ErrorReply> {
        for stores in [&self.shards, &self.backups] {
            for store in stores {
                (0..SLOTS as u16).for_each(|s| store.borrow_mut().clear_slot(Slot(s)));
            }
        }
        Ok(())
    }

    fn facts(&self) -> Facts {
        let mut facts = Facts::default();
        self.for_each_store(&mut |store| {
            facts.stats.primary_keys += (0..SLOTS as u16).map(|s| store.slot_stats(Slot(s)).keys).sum::<u64>();
        });
        facts
    }

    fn reset_stats(&mut self) {}

    fn settings(&self) -> Settings {
        self.settings
    }

    fn apply_settings(&mut self, settings: Settings) -> Result<(), String> {
        self.settings = settings;
        self.slowlog.set_max_len(settings.slowlog_max_len);
        Ok(())
    }

    fn clients(&self) -> Vec<ClientInfo> {
        self.clients.clone()
    }

    fn kill_clients(&mut self, which: &dyn Fn(&ClientInfo) -> bool) -> usize {
        let (gone, left): (Vec<_>, Vec<_>) = std::mem::take(&mut self.clients).into_iter().partition(|c| which(c));
        self.clients = left;
        self.killed.extend(gone.iter().map(|c| c.id));
        gone.len()
    }

    fn slowlog(&mut self, f: &mut dyn FnMut(&mut Slowlog)) {
        f(&mut self.slowlog);
    }
}

/// A node with one client.
pub struct MiniNode {
    pub host: MiniHost,
    pub conn: ConnState,
    pub budget: Arc<Budget>,
    fx: Effects,
    scratch: Vec<u8>,
}

impl MiniNode {
    /// Empty, primary of all slots.
    pub fn new() -> Self {
        Self::with_memory(u64::MAX)
    }

    /// With so many accounted bytes for keys; its backup has all it needs.
    pub fn with_memory(limit: u64) -> Self {
        let me = Ref { id: NodeId::new("n1").expect("a name"), incarnation: Incarnation(7) };
        let mut config = Config::empty(ClusterId(1), SLOTS);
        config.cfg_index = 1;
        let held = SlotState { primary: Some(me.clone()), phase: Phase::Serving, ..SlotState::default() };
        config.slots.fill(0..SLOTS, Arc::new(held));
        let member = Member {
            incarnation: me.incarnation,
            home: HomeId(1),
            addr: "127.0.0.1:7201".into(),
            peer_addr: "127.0.0.1:17201".into(),
            state: NodeState::Up,
            zone: String::new(),
            weight: 1.0,
        };
        config.members.insert(me.id.clone(), member);
        let stores = |role: Role, budget: Arc<Budget>| {
            let store = || {
                let mut store = Store::new(budget.clone());
                (0..SLOTS as u16).for_each(|s| store.set_role(Slot(s), role));
                RefCell::new(store)
            };
            (0..SHARDS).map(|_| store()).collect::<Vec<_>>()
        };
        let budget = Budget::new(limit);
        let conn = ConnState::new(3, "127.0.0.1:50000".into(), "127.0.0.1:7201".into(), now().mono_ms);
        let host = MiniHost {
            shards: stores(Role::Primary { backed_at: 0 }, budget.clone()),
            backups: stores(Role::Backup, Budget::unlimited()),
            view: Arc::new(ClusterView::new(Arc::new(config), me, "127.0.0.1:7201".into(), "127.0.0.1:17201".into())),
            settings: Settings {
                maxmemory: 2 << 30,
                eviction: Eviction::Lru,
                maxclients: 10_000,
                timeout_s: 0,
                slowlog_slower_than_us: 10_000,
                slowlog_max_len: 128,
            },
            slowlog: Slowlog::new(128),
            clients: vec![conn.info(now().mono_ms)],
            killed: Vec::new(),
        };
        Self { host, budget, conn, fx: Effects::default(), scratch: Vec::new() }
    }

    /// Runs one command; the bytes of its reply.
    pub fn send(&mut self, words: &[&[u8]]) -> Vec<u8> {
        let (mut buf, mut ranges) = (Vec::new(), Vec::new());
        for w in words {
            let start = buf.len() as u32;
            buf.extend_from_slice(w);
            ranges.push((start, buf.len() as u32));
        }
        let args = Args::new(&buf, &ranges);
        let mut reply = Vec::new();
        let mut out = Reply::new(&mut reply, self.conn.proto);
        self.execute(args, &mut out);
        self.conn.settle(&mut out, 0);
        reply
    }

    fn execute(&mut self, args: Args<'_>, out: &mut Reply<'_>) {
        let spec = match command::resolve(args, None) {
            Ok(spec) => spec,
            Err(e) => return out.error_bytes(e.bytes()),
        };
        self.conn.last_cmd = Some(spec);
        let slot = match spec.slot(args) {
            Ok(slot) => slot,
            Err(command::CrossSlot) => return out.error_bytes(error::CROSSSLOT.bytes()),
        };
        match (spec.kind, slot) {
            (Kind::Keyed(body), Some(slot)) => self.execute_keyed(spec, body, args, slot, out),
            (Kind::Conn(body), _) => ConnCtx { spec, args, out, conn: &mut self.conn }.run(body),
            (Kind::Node(body), _) => NodeCtx { spec, args, out, conn: &mut self.conn, host: &mut self.host }.run(body),
            (Kind::Keyed(_) | Kind::Container, _) => panic!("{} without a key or a body", spec.name),
        }
    }

    /// Evicts and runs again for as long as room is lacking, as a shard does.
    fn execute_keyed(&mut self, spec: &'static Spec, body: KeyedFn, args: Args<'_>, slot: Slot, out: &mut Reply<'_>) {
        let now = now();
        loop {
            self.fx.clear();
            let ran = {
                let mut store = self.host.store(slot).borrow_mut();
                let txn = store.txn(slot, now, &mut self.fx);
                let (conn, scratch) = (&mut self.conn, &mut self.scratch);
                Keyed { spec, args, txn, out, conn, scratch }.run(body)
            };
            if ran.is_err() {
                assert!(out.is_empty(), "{}: wrote before it had room", spec.name);
                let expired_only = Reader(self.fx.bytes()).all(|e| matches!(e, Ok(Effect::Del(_))));
                assert!(expired_only, "{}: changed before it had room", spec.name);
            }
            self.ship(slot, now);
            let Err(need) = ran else { return };
            let victim = self.host.store(slot).borrow_mut().victim(need);
            let Some((of, key)) = victim else {
                return out.error_bytes(error::OOM.bytes());
            };
            self.fx.clear();
            self.host.store(of).borrow_mut().txn(of, now, &mut self.fx).evict(&key);
            self.ship(of, now);
        }
    }

    /// Sends what was done to the backup, which must then hold the same.
    fn ship(&mut self, slot: Slot, now: Now) {
        let mut primary = self.host.store(slot).borrow_mut();
        let mut backup = self.host.backups[self.host.shard_of(slot)].borrow_mut();
        backup.apply(slot, self.fx.bytes(), now, now.mono_ms).expect("sound effects");
        assert_eq!(primary.digest(slot), backup.digest(slot), "the backup differs");
        primary.settle();
        assert!(self.budget.used() <= self.budget.limit(), "more memory in use than there is");
    }

    /// Adds a client beside the one that speaks.
    pub fn add_client(&mut self, id: u64, addr: &str) {
        let conn = ConnState::new(id, addr.into(), "127.0.0.1:7201".into(), now().mono_ms);
        self.host.clients.push(conn.info(now().mono_ms));
    }

    /// Notes a slow command.
    pub fn note_slow(&mut self, word: &[u8]) {
        let ranges = [(0, word.len() as u32)];
        self.host.slowlog.push(Args::new(word, &ranges), 1_700_000_000, 12_345, "127.0.0.1:50000", b"joe");
    }

    /// Makes the node primary of one slot less.
    pub fn give_away(&mut self, slot: Slot) {
        self.host.store(slot).borrow_mut().set_role(slot, Role::Backup);
    }

    /// The protocol of the connection.
    pub fn proto(&self) -> Proto {
        self.conn.proto
    }
}
