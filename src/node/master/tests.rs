//! Masters in one process, over real sockets, with nodes that only talk to them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::run_on;
use crate::node::config::MasterConfig;
use crate::proto::control::{
    AddCacheServer, Added, Empty, Incoming, KeepAlive, Message, RefreshIp, RefreshMaster, StopOrder, SwitchMaster,
};
use crate::proto::id::{ClusterId, HomeId, Incarnation, LeaderId, MasterId, NodeId, Ref};
use crate::proto::net::conn::Conn;
use crate::proto::stats::NodeStats;
use crate::proto::status::{NodeState, WatchView};
use crate::proto::view::{Absorbed, Config};

/// Generous: these tests are about what happens, not how fast.
const LONG: Duration = Duration::from_secs(60);
/// As a node beats.
const BEAT: Duration = Duration::from_millis(100);

fn id(n: usize) -> MasterId {
    MasterId::new(&format!("m{n}")).unwrap()
}

struct Master {
    task: JoinHandle<anyhow::Result<()>>,
    stop: Arc<Notify>,
}

struct Masters {
    peers: Vec<(MasterId, String)>,
    dirs: Vec<TempDir>,
    running: Vec<Option<Master>>,
}

impl Masters {
    async fn start(n: usize) -> Self {
        let mut listeners = Vec::new();
        for _ in 0..n {
            listeners.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
        }
        let addrs = listeners.iter().enumerate().map(|(i, l)| (id(i + 1), l.local_addr().unwrap().to_string()));
        let mut m = Self {
            peers: addrs.collect(),
            dirs: (0..n).map(|_| tempfile::tempdir().unwrap()).collect(),
            running: Vec::new(),
        };
        for (i, listener) in listeners.into_iter().enumerate() {
            m.running.push(Some(m.run(i, listener)));
        }
        m
    }

    fn run(&self, i: usize, listener: TcpListener) -> Master {
        let config = MasterConfig {
            cluster: "test".into(),
            id: id(i + 1),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            peers: self.peers.clone(),
            data: self.dirs[i].path().to_owned(),
            expect_nodes: 1,
            form_wait: LONG,
            backups: 0,
            refused_is_death: false,
            insecure_bind: false,
        };
        let stop = Arc::new(Notify::new());
        let told = stop.clone();
        // A runtime of its own, as in a process of its own: aborting it leaves nothing running.
        let task = tokio::task::spawn_blocking(move || {
            let own = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let listener = listener.into_std().unwrap();
            own.block_on(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                run_on(listener, config, async move { told.notified().await }).await
            })
        });
        Master { task, stop }
    }

    /// By signal: it may say farewell.
    async fn stop(&mut self, i: usize) {
        let master = self.running[i].take().unwrap();
        master.stop.notify_one();
        master.task.await.unwrap().unwrap();
    }

    fn addr(&self, i: usize) -> &str {
        &self.peers[i].1
    }

    /// Which one leads, as they say themselves.
    async fn leader(&self) -> usize {
        let deadline = Instant::now() + LONG;
        loop {
            for i in 0..self.running.len() {
                if self.running[i].is_none() {
                    continue;
                }
                let mut c = Client::connect(self.addr(i)).await;
                c.send(2, &Message::StatusRequest(Empty {})).await;
                if let Message::StatusView(v) = c.answer(2).await
                    && v.status.leader == Some(id(i + 1).to_string())
                {
                    return i;
                }
            }
            assert!(Instant::now() < deadline, "nobody leads");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

struct Client {
    conn: Conn,
    name: String,
    cluster: Option<ClusterId>,
}

impl Client {
    async fn connect(addr: &str) -> Self {
        Self { conn: Conn::connect(addr, LONG).await.unwrap(), name: "test".into(), cluster: None }
    }

    async fn send(&mut self, id: u64, message: &Message) {
        self.conn.writer.send(&self.name, self.cluster, id, message).await.unwrap();
    }

    async fn recv(&mut self) -> Incoming {
        timeout(LONG, self.conn.reader.recv()).await.expect("nothing comes").unwrap().expect("closed")
    }

    /// The answer to a request; what is pushed in between is passed over.
    async fn answer(&mut self, id: u64) -> Message {
        loop {
            let incoming = self.recv().await;
            if incoming.id == id {
                return incoming.message.unwrap();
            }
        }
    }

    async fn error(&mut self, id: u64) -> String {
        match self.answer(id).await {
            Message::Error(f) => f.code,
            other => panic!("no error: {other:?}"),
        }
    }

    async fn raw(&mut self, line: &str) {
        self.conn.writer.send_line(line.as_bytes()).await.unwrap();
    }
}

/// A node that holds nothing and says what it is asked for.
struct Node {
    me: Ref,
    home: HomeId,
    follows: Option<Incarnation>,
    peer: TcpListener,
    client: Client,
    config: Config,
    leader: Option<LeaderId>,
}

impl Node {
    /// Registers with whoever leads.
    async fn join(name: &str, masters: &Masters) -> Self {
        let me = Ref { id: NodeId::new(name).unwrap(), incarnation: Incarnation::random() };
        let peer = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = Client::connect(masters.addr(0)).await;
        let mut node =
            Self { me, home: HomeId::random(), follows: None, peer, client, config: Config::default(), leader: None };
        node.register(masters).await;
        node
    }

    async fn register(&mut self, masters: &Masters) {
        let deadline = Instant::now() + LONG;
        for at in (0..masters.peers.len()).cycle() {
            assert!(Instant::now() < deadline, "nobody takes the node");
            if masters.running[at].is_none() {
                continue;
            }
            self.client = Client::connect(masters.addr(at)).await;
            let hello = AddCacheServer {
                node: self.me.clone(),
                home: self.home,
                addr: "127.0.0.1:1".into(),
                peer_addr: self.peer.local_addr().unwrap().to_string(),
                zone: String::new(),
                weight: 1.0,
                standby: false,
                follows: self.follows,
            };
            self.client.send(1, &Message::AddCacheServer(hello)).await;
            match self.client.answer(1).await {
                Message::Added(Added { view, cluster_id, .. }) => {
                    self.client.cluster = Some(cluster_id);
                    assert_ne!(self.config.absorb(&view), Absorbed::Foreign);
                    return;
                }
                Message::LastLife(last) => self.follows = Some(last.node.incarnation),
                Message::RefreshMaster(_) | Message::Error(_) => sleep(Duration::from_millis(20)).await,
                other => panic!("{other:?}"),
            }
        }
    }

    async fn beat(&mut self) {
        let beat = KeepAlive {
            node: self.me.clone(),
            cfg_index: self.config.cfg_index,
            leader: self.leader.clone(),
            stats: NodeStats::default(),
        };
        self.client.send(1, &Message::KeepAlive(beat)).await;
    }

    /// Takes in what comes until `f` holds; beats meanwhile.
    async fn until(&mut self, what: &str, mut f: impl FnMut(&Node) -> bool) {
        let deadline = Instant::now() + LONG;
        let mut next_beat = Instant::now();
        while !f(self) {
            assert!(Instant::now() < deadline, "never: {what}");
            if Instant::now() >= next_beat {
                self.beat().await;
                next_beat = Instant::now() + BEAT;
            }
            if let Ok(incoming) = timeout_at(next_beat, self.client.conn.reader.recv()).await {
                let incoming = incoming.unwrap().expect("closed");
                match incoming.message.unwrap() {
                    Message::RefreshIp(RefreshIp { view: Some(view), .. }) => {
                        let absorbed = self.config.absorb(&view);
                        assert!(matches!(absorbed, Absorbed::New | Absorbed::Old), "{absorbed:?}");
                    }
                    Message::KeepAliveAck(ack) => self.leader = Some(ack.leader),
                    _ => {}
                }
            }
        }
    }
}

fn slots_of(config: &Config, node: &Ref) -> usize {
    config.slots.iter().filter(|s| s.primary.as_ref() == Some(node)).count()
}

async fn view(c: &mut Client) -> WatchView {
    c.send(3, &Message::StatusRequest(Empty {})).await;
    match c.answer(3).await {
        Message::StatusView(v) => *v,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_registers_beats_and_is_dead_after_silence() {
    let masters = Masters::start(1).await;
    let mut node = Node::join("n1", &masters).await;
    let me = node.me.clone();
    node.until("it has all slots", |n| slots_of(&n.config, &me) == 16384).await;
    node.until("it is acknowledged", |n| n.leader.is_some()).await;
    let mut watcher = Client::connect(masters.addr(0)).await;
    let v = view(&mut watcher).await;
    assert_eq!(v.status.nodes[0].state, NodeState::Up);
    assert!(v.status.nodes[0].heartbeat_age_ms.is_some());
    // Silent from here on, its connection open.
    let silent = Instant::now();
    let deadline = Instant::now() + LONG;
    while view(&mut watcher).await.status.nodes[0].state != NodeState::Dead {
        assert!(Instant::now() < deadline, "never declared dead");
        sleep(Duration::from_millis(20)).await;
    }
    assert!(silent.elapsed() > Duration::from_millis(2300), "dead before its timer: {:?}", silent.elapsed());
    assert_eq!(view(&mut watcher).await.status.slots.orphan, 16384);
    drop(node);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_follows_refresh_master_when_the_leader_ends() {
    let mut masters = Masters::start(3).await;
    let mut node = Node::join("n1", &masters).await;
    let me = node.me.clone();
    node.until("it has all slots", |n| slots_of(&n.config, &me) == 16384).await;
    let first = masters.leader().await;
    // One connection to a follower: it must hear of the next leader without asking.
    let follower = (first + 1) % 3;
    let mut listener = Client::connect(masters.addr(follower)).await;
    listener.send(5, &Message::Watch(Empty {})).await;
    let Message::RefreshMaster(told) = listener.answer(5).await else {
        panic!("a follower that knows a leader redirects")
    };
    assert_eq!(told.addr.as_deref(), Some(masters.addr(first)));
    masters.stop(first).await;
    let deadline = Instant::now() + LONG;
    let next = loop {
        assert!(Instant::now() < deadline, "never told who leads");
        if let Ok(Message::RefreshMaster(RefreshMaster { leader: Some(leader), addr: Some(addr), .. })) =
            listener.recv().await.message
            && Some(&leader) > told.leader.as_ref()
        {
            break addr;
        }
    };
    node.client = Client { cluster: node.client.cluster, ..Client::connect(&next).await };
    node.leader = None;
    node.until("the new leader acknowledges", |n| n.leader.is_some()).await;
    assert!(node.leader > told.leader);
    assert_eq!(slots_of(&node.config, &me), 16384);
    let mut client = Client::connect(&next).await;
    let v = view(&mut client).await;
    assert_eq!(v.status.nodes[0].state, NodeState::Up, "a new leader judged before its own timer ran");
    let gone = |v: &WatchView| v.status.masters.iter().any(|m| m.id == id(first + 1).as_str() && !m.alive);
    let deadline = Instant::now() + LONG;
    while !gone(&view(&mut client).await) {
        assert!(Instant::now() < deadline, "the old leader is still shown as alive");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_switches_masters() {
    let masters = Masters::start(3).await;
    let first = masters.leader().await;
    let to = id((first + 1) % 3 + 1);
    let mut c = Client::connect(masters.addr(first)).await;
    c.send(8, &Message::SwitchMaster(SwitchMaster { to: Some(MasterId::new("m9").unwrap()) })).await;
    assert_eq!(c.error(8).await, "NO_SUCH_MASTER");
    c.send(9, &Message::SwitchMaster(SwitchMaster { to: Some(to.clone()) })).await;
    assert_eq!(c.answer(9).await, Message::Ok(Empty {}));
    assert_eq!(id(masters.leader().await + 1), to);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_gets_the_whole_first_and_every_event_in_sequence() {
    let masters = Masters::start(1).await;
    let mut w = Client::connect(masters.addr(0)).await;
    masters.leader().await;
    w.send(4, &Message::Watch(Empty {})).await;
    let mut seqs = Vec::new();
    let mut whole = false;
    let mut node = Node::join("n1", &masters).await;
    let me = node.me.clone();
    node.until("it has all slots", |n| slots_of(&n.config, &me) == 16384).await;
    let last = {
        let mut c = Client::connect(masters.addr(0)).await;
        view(&mut c).await.events.last().unwrap().seq
    };
    while seqs.last() != Some(&last) {
        let Message::StatusView(v) = w.answer(4).await else { panic!("no view") };
        whole |= v.slots.is_some();
        assert!(whole, "the first view has the table");
        seqs.extend(v.events.iter().map(|e| e.seq));
    }
    assert_eq!(seqs, (1..=last).collect::<Vec<_>>());
    // And they go on coming, at least one a second, though nothing happens.
    for _ in 0..3 {
        let next = timeout(Duration::from_secs(10), w.answer(4)).await.unwrap();
        assert!(matches!(next, Message::StatusView(v) if v.slots.is_none() && v.events.is_empty()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planned_stop_ends_all_masters() {
    let mut masters = Masters::start(3).await;
    let mut node = Node::join("n1", &masters).await;
    let me = node.me.clone();
    node.until("it has all slots", |n| slots_of(&n.config, &me) == 16384).await;
    let leader = masters.leader().await;
    let mut c = Client::connect(masters.addr(leader)).await;
    c.send(7, &Message::ClusterStop(Empty {})).await;
    // The node is told to stop, and confirms.
    let deadline = Instant::now() + LONG;
    loop {
        assert!(Instant::now() < deadline, "never told to stop");
        node.beat().await;
        if let Ok(Ok(Some(Incoming { message: Ok(Message::Stop(order)), .. }))) =
            timeout(BEAT, node.client.conn.reader.recv()).await
        {
            let confirm = StopOrder { cfg_index: order.cfg_index, node: Some(me.clone()) };
            node.client.send(0, &Message::Stop(confirm)).await;
            break;
        }
    }
    assert_eq!(c.answer(7).await, Message::Ok(Empty {}));
    for master in masters.running.iter_mut().map(|m| m.take().unwrap()) {
        timeout(LONG, master.task).await.expect("a master runs on").unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_unknown_stays_what_is_broken_or_foreign_does_not() {
    let masters = Masters::start(1).await;
    masters.leader().await;
    let mut c = Client::connect(masters.addr(0)).await;
    c.raw(r#"{"v":1,"machine":"x","type":"DANCE","id":6,"data":{}}"#).await;
    assert_eq!(c.error(6).await, "UNKNOWN_TYPE");
    c.cluster = Some(ClusterId(1));
    c.send(7, &Message::StatusRequest(Empty {})).await;
    assert_eq!(c.error(7).await, "FOREIGN_CLUSTER");
    c.cluster = None;
    c.raw("").await;
    c.send(8, &Message::RefreshIp(RefreshIp { have: 0, iplist: vec![], view: None })).await;
    assert!(matches!(c.answer(8).await, Message::RefreshIp(RefreshIp { view: Some(_), .. })));
    // Raft's lines are for masters.
    c.raw(r#"{"v":1,"machine":"m7","type":"VOTE","id":9,"data":{"to":"m1","rpc":{}}}"#).await;
    assert_eq!(c.error(9).await, "UNKNOWN_MASTER");
    c.raw("hello").await;
    assert_eq!(c.error(0).await, "BAD_LINE");
    assert!(matches!(timeout(LONG, c.conn.reader.recv()).await.unwrap(), Ok(None)), "the connection stays");
}

async fn http(addr: &str, request: &str) -> String {
    let mut s = TcpStream::connect(addr).await.unwrap();
    s.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(LONG, s.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_and_half_closed_connections_are_answered() {
    let masters = Masters::start(1).await;
    masters.leader().await;
    let ok = http(masters.addr(0), "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(ok.starts_with("HTTP/1.1 200 OK\r\n") && ok.ends_with("\r\n\r\nok\n"), "{ok}");
    let no = http(masters.addr(0), "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(no.starts_with("HTTP/1.1 404"), "{no}");
    // As `printf … | nc -N` does.
    let mut s = TcpStream::connect(masters.addr(0)).await.unwrap();
    s.write_all(b"{\"v\":1,\"machine\":\"nc\",\"type\":\"STATUS\",\"id\":1,\"data\":{}}\n").await.unwrap();
    s.shutdown().await.unwrap();
    let mut answer = String::new();
    timeout(LONG, s.read_to_string(&mut answer)).await.unwrap().unwrap();
    let lines: Vec<Json> = answer.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let view = lines.iter().find(|l| l["id"] == 1).unwrap();
    assert_eq!(view["type"], json!("VIEW"));
    assert_eq!(view["data"]["status"]["leader"], json!("m1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_asks_and_does_not_read_is_cut_off() {
    let masters = Masters::start(1).await;
    masters.leader().await;
    let mut s = TcpStream::connect(masters.addr(0)).await.unwrap();
    let ask = b"{\"v\":1,\"machine\":\"x\",\"type\":\"STATUS\",\"id\":1,\"data\":{}}\n".repeat(100);
    let cut = timeout(LONG, async { while s.write_all(&ask).await.is_ok() {} }).await;
    assert!(cut.is_ok(), "its answers pile up without a bound");
    masters.leader().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_in_use_is_refused() {
    let masters = Masters::start(1).await;
    masters.leader().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let second = masters.run(0, listener);
    let e = timeout(LONG, second.task).await.unwrap().unwrap().unwrap_err();
    assert!(e.to_string().contains("in use"), "{e:#}");
}

impl Drop for Masters {
    fn drop(&mut self) {
        // Blocking tasks outlive their handles: a test that ends must not leave masters running.
        self.running.iter().flatten().for_each(|m| m.stop.notify_one());
    }
}
