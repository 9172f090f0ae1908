//! Whole groups in one process, over real sockets and real files.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use serde_json::value::{RawValue, to_raw_value};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::node::master::entry::{Act, Answer, Entry};
use crate::node::master::raft::disk::{Change, Disk, RedbDisk};
use crate::node::master::raft::link::envelope;
use crate::node::master::raft::{Consensus, Gate, Options, ProposeError, SNAPSHOT_EVERY, StartError, TransferError};
use crate::proto::control::Envelope;
use crate::proto::event::Severity;
use crate::proto::id::{ClusterId, MasterId};
use crate::proto::net::conn::Conn;

/// Generous: these tests are about what happens, not how fast.
const LONG: Duration = Duration::from_secs(60);

fn id(n: usize) -> MasterId {
    MasterId::from(n as u64)
}

fn note(text: String) -> Entry {
    let act = Act::Note { severity: Severity::Info, kind: "test".into(), subject: String::new(), text };
    Entry { at_ms: 1, by: None, act }
}

/// A disk that is full once it is told so.
struct Fillable(RedbDisk, Arc<AtomicBool>);

impl Disk for Fillable {
    fn commit(&mut self, changes: &[Change]) -> io::Result<()> {
        if self.1.load(Ordering::SeqCst) {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        self.0.commit(changes)
    }
}

/// A master: Raft and the task that feeds it lines.
struct Master {
    raft: Consensus,
    full: Arc<AtomicBool>,
    serving: JoinHandle<()>,
}

impl Master {
    /// As if by kill -9: nothing is flushed, its connections end.
    async fn kill(self) {
        self.serving.abort();
        drop(self.serving.await);
        self.raft.core.raft.shutdown().await.unwrap();
    }
}

async fn serve(listener: TcpListener, raft: Consensus) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let raft = raft.clone();
        connections.spawn(async move {
            let (mut reader, writer) = Conn::new(stream).unwrap().into_split();
            let writer = Arc::new(tokio::sync::Mutex::new(writer));
            let mut calls = tokio::task::JoinSet::new();
            while let Ok(Some(line)) = reader.next_line().await {
                let (raft, writer) = (raft.clone(), writer.clone());
                calls.spawn(async move {
                    let e: Envelope<&RawValue> = serde_json::from_slice(&line).unwrap();
                    let (kind, data) = match raft.serve(&e.machine, e.cluster_id, &e.kind, e.data).await {
                        Ok(data) => (e.kind.as_str(), data),
                        Err(failure) => ("ERROR", to_raw_value(&failure).unwrap()),
                    };
                    let line = envelope(&id(0), None, kind, e.id, &data);
                    drop(writer.lock().await.send_line(&line).await);
                });
            }
        });
    }
}

struct Group {
    dirs: Vec<TempDir>,
    peers: Vec<(MasterId, String)>,
    masters: Vec<Option<Master>>,
    snapshot_every: u64,
}

impl Group {
    async fn new(n: usize, snapshot_every: u64) -> Self {
        let mut listeners = Vec::new();
        for _ in 0..n {
            listeners.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
        }
        let peers = listeners.iter().enumerate().map(|(i, l)| (id(i + 1), l.local_addr().unwrap().to_string()));
        let mut group = Self {
            dirs: (0..n).map(|_| tempfile::tempdir().unwrap()).collect(),
            peers: peers.collect(),
            masters: (0..n).map(|_| None).collect(),
            snapshot_every,
        };
        for (i, listener) in listeners.into_iter().enumerate() {
            group.masters[i] = Some(group.start_on(i, listener).await.unwrap());
        }
        group
    }

    /// With a cluster named: without one, the state takes no notes.
    async fn named(n: usize, snapshot_every: u64) -> Self {
        let group = Self::new(n, snapshot_every).await;
        group.name().await;
        group
    }

    async fn name(&self) {
        let act = Act::Init { cluster_id: ClusterId(7), cluster: "t".into(), backups: 1 };
        self.apply(Entry { at_ms: 1, by: None, act }).await;
    }

    async fn start_on(&self, i: usize, listener: TcpListener) -> Result<Master, StartError> {
        let options = Options {
            me: id(i + 1),
            peers: self.peers.clone(),
            dir: self.dirs[i].path().to_owned(),
            snapshot_every: self.snapshot_every,
        };
        let full = Arc::new(AtomicBool::new(false));
        let flag = full.clone();
        let raft = Consensus::start_with(options, |disk| Fillable(disk, flag)).await?;
        let serving = tokio::spawn(serve(listener, raft.clone()));
        Ok(Master { raft, full, serving })
    }

    /// Starts a master that was killed, on its old address.
    async fn start(&mut self, i: usize) {
        let addr: SocketAddr = self.peers[i].1.parse().unwrap();
        let deadline = Instant::now() + LONG;
        loop {
            // The killed one's file lock and port are let go when its last task has ended.
            if let Ok(listener) = TcpListener::bind(addr).await
                && let Ok(master) = self.start_on(i, listener).await
            {
                self.masters[i] = Some(master);
                return;
            }
            assert!(Instant::now() < deadline, "master {i} does not start");
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn kill(&mut self, i: usize) {
        self.masters[i].take().unwrap().kill().await;
    }

    fn raft(&self, i: usize) -> &Consensus {
        &self.masters[i].as_ref().unwrap().raft
    }

    fn alive(&self) -> impl Iterator<Item = (usize, &Consensus)> {
        self.masters.iter().enumerate().filter_map(|(i, m)| Some((i, &m.as_ref()?.raft)))
    }

    /// The one that leads, once there is one.
    async fn leader(&self) -> usize {
        let deadline = Instant::now() + LONG;
        loop {
            if let Some((i, _)) = self.alive().find(|(_, r)| r.status().leading) {
                return i;
            }
            assert!(Instant::now() < deadline, "no leader: {:?}", self.states());
            sleep(Duration::from_millis(5)).await;
        }
    }

    fn states(&self) -> Vec<String> {
        self.alive().map(|(i, r)| format!("{i}: {:?}", r.status())).collect()
    }

    /// Proposes to whoever leads until it is applied, as a client does whose entry may be put twice.
    async fn put(&self, text: &str) {
        self.apply(note(text.into())).await;
    }

    async fn apply(&self, entry: Entry) {
        let deadline = Instant::now() + LONG;
        loop {
            let leader = self.leader().await;
            match self.raft(leader).propose(entry.clone(), Duration::from_secs(5)).await {
                Ok(done) => return assert_eq!(done.answer, Answer::Done),
                Err(ProposeError::TooLarge(n)) => panic!("{n}"),
                Err(_) => assert!(Instant::now() < deadline, "nothing is accepted: {:?}", self.states()),
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn until(&self, what: &str, mut f: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + LONG;
        while !f(self) {
            assert!(Instant::now() < deadline, "never: {what}: {:?}", self.states());
            sleep(Duration::from_millis(10)).await;
        }
    }
}

fn texts(raft: &Consensus) -> Vec<String> {
    raft.read(|r| r.state.events.iter().filter(|e| e.kind == "test").map(|e| e.text.clone()).collect())
}

fn applied(raft: &Consensus) -> u64 {
    raft.status().applied
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lone_master_leads_and_remembers() {
    let mut g = Group::named(1, SNAPSHOT_EVERY).await;
    assert_eq!(g.leader().await, 0);
    let done = g.raft(0).propose(note("a".into()), LONG).await.unwrap();
    g.raft(0).barrier(LONG).await.unwrap();
    g.until("it is seen", |g| g.raft(0).status().applied >= done.index).await;
    assert_eq!(g.raft(0).transfer_leader(None, LONG).await, Err(TransferError::NoCandidate));
    let state = g.raft(0).read(|r| r.state.clone());
    assert_eq!(texts(g.raft(0)), ["a"]);
    g.kill(0).await;
    g.start(0).await;
    g.leader().await;
    assert_eq!(g.raft(0).read(|r| r.state.clone()), state);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_elect_replicate_lose_the_leader_and_elect_again() {
    let mut g = Group::named(3, SNAPSHOT_EVERY).await;
    let first = g.leader().await;
    for i in 0..20 {
        g.put(&format!("before {i}")).await;
    }
    let told = g.raft(first).status().leader.unwrap();
    g.until("all know the leader and the entries", |g| {
        g.alive().all(|(_, r)| r.status().leader.as_ref() == Some(&told) && applied(r) == applied(g.raft(first)))
    })
    .await;
    // A follower refuses with certainty, and says who leads.
    let follower = (first + 1) % 3;
    assert_eq!(
        g.raft(follower).propose(note("x".into()), LONG).await,
        Err(ProposeError::NotLeader { leader: Some(told.clone()) })
    );
    g.kill(first).await;
    let second = g.leader().await;
    assert_ne!(first, second);
    assert!(g.raft(second).status().leader.unwrap() > told);
    g.put("after").await;
    g.start(first).await;
    g.until("the old leader follows and has everything", |g| {
        texts(g.raft(first)) == texts(g.raft(second)) && texts(g.raft(first)).last().is_some_and(|t| t == "after")
    })
    .await;
    assert!(!texts(g.raft(first)).contains(&"x".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_entries_and_a_snapshot_survive_a_restart_and_reach_one_who_was_away() {
    let mut g = Group::named(3, 300).await;
    g.put("first").await;
    let away = (g.leader().await + 1) % 3;
    g.kill(away).await;
    let leader = g.leader().await;
    let mut puts = tokio::task::JoinSet::new();
    for i in 0..1000 {
        let raft = g.raft(leader).clone();
        puts.spawn(async move { raft.propose(note(format!("{i}")), LONG).await });
    }
    while let Some(put) = puts.join_next().await {
        put.unwrap().unwrap();
    }
    let snapshot = |dir: &Path| dir.join("snapshot.json").exists();
    g.until("a snapshot is made and the log below it dropped", |g| {
        snapshot(g.dirs[leader].path()) && g.raft(leader).purged().is_some_and(|i| i > 300)
    })
    .await;
    g.start(away).await;
    g.until("the one who was away has everything", |g| texts(g.raft(away)) == texts(g.raft(leader))).await;
    assert!(snapshot(g.dirs[away].path()), "it came as a snapshot");

    let state = g.raft(leader).read(|r| r.state.clone());
    for i in 0..3 {
        g.kill(i).await;
    }
    for i in 0..3 {
        g.start(i).await;
    }
    g.put("again").await;
    g.until("all are back", |g| g.alive().all(|(_, r)| texts(r).last().is_some_and(|t| t == "again"))).await;
    for (_, r) in g.alive() {
        r.read(|r| {
            assert_eq!(r.state.event_seq, state.event_seq + 1);
            assert!(r.state.events.iter().rev().skip(1).eq(state.events.iter().rev().take(r.state.events.len() - 1)));
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_master_neither_votes_nor_counts() {
    let mut g = Group::named(3, SNAPSHOT_EVERY).await;
    g.put("kept").await;
    g.until("every directory is on record", |g| g.alive().all(|(_, r)| r.read(|r| r.homes.len() == 3))).await;
    let leader = g.leader().await;
    let (wiped, other) = ((leader + 1) % 3, (leader + 2) % 3);
    g.kill(wiped).await;
    g.dirs[wiped] = tempfile::tempdir().unwrap();
    g.start(wiped).await;
    g.until("it learns that it is not wanted", |g| g.raft(wiped).status().gate == Gate::Refused).await;
    g.put("with two").await;
    // Without the leader, only the wiped one could make a majority with the other: there must be none.
    g.kill(leader).await;
    sleep(Duration::from_secs(4)).await;
    assert!(g.alive().all(|(_, r)| !r.status().leading), "{:?}", g.states());
    assert_eq!(texts(g.raft(wiped)), Vec::<String>::new(), "it took entries");
    g.start(leader).await;
    g.put("back").await;
    g.until("the others have all of it", |g| texts(g.raft(other)) == ["kept", "with two", "back"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_comes_late_for_the_first_time_is_let_in() {
    let mut g = Group::new(3, SNAPSHOT_EVERY).await;
    // Taken away before anything was agreed on, its directory with it: as if it had never been started.
    g.kill(2).await;
    g.dirs[2] = tempfile::tempdir().unwrap();
    g.name().await;
    g.put("by two").await;
    if g.raft(0).read(|r| r.homes.contains_key(&id(3))) {
        return; // It was on record already: this run is the test above.
    }
    g.start(2).await;
    g.until("it has everything", |g| texts(g.raft(2)) == ["by two"]).await;
    g.kill(0).await;
    g.put("by the late one and the second").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_goes_where_it_is_sent() {
    let g = Group::named(3, SNAPSHOT_EVERY).await;
    g.put("a").await;
    let first = g.leader().await;
    let me = id(first + 1);
    let old = g.raft(first).status().leader.unwrap();
    assert_eq!(g.raft(first).transfer_leader(Some(me), LONG).await, Ok(old.clone()));
    assert_eq!(g.raft(first).transfer_leader(Some(id(9)), LONG).await, Err(TransferError::NoSuchMaster("m9".into())));
    let follower = (first + 1) % 3;
    assert!(matches!(
        g.raft(follower).transfer_leader(None, LONG).await,
        Err(TransferError::NotLeader { leader: Some(l) }) if l == old
    ));
    let new = g.raft(first).transfer_leader(Some(id(follower + 1)), LONG).await.unwrap();
    assert!(new > old && new.id == id(follower + 1), "{new:?}");
    g.put("b").await;
    let second = g.leader().await;
    assert_eq!(second, follower);
    let third = g.raft(second).transfer_leader(None, LONG).await.unwrap();
    assert!(third > new && third.id != new.id);
    g.put("c").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_hears_no_majority_does_not_lead() {
    let mut g = Group::named(3, SNAPSHOT_EVERY).await;
    g.put("a").await;
    let leader = g.leader().await;
    g.kill((leader + 1) % 3).await;
    g.kill((leader + 2) % 3).await;
    g.until("it notices", |g| !g.raft(leader).status().leading).await;
    assert_eq!(g.raft(leader).status().leader, None);
    let refused = g.raft(leader).propose(note("lost".into()), Duration::from_secs(3)).await.unwrap_err();
    assert!(matches!(refused, ProposeError::NotLeader { .. } | ProposeError::Unknown), "{refused:?}");
    g.start((leader + 1) % 3).await;
    g.put("b").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_makes_a_leader_step_aside() {
    let g = Group::named(3, SNAPSHOT_EVERY).await;
    g.put("a").await;
    let leader = g.leader().await;
    g.masters[leader].as_ref().unwrap().full.store(true, Ordering::SeqCst);
    let result = g.raft(leader).propose(note("b".into()), Duration::from_secs(5)).await;
    g.until("it says that it stopped", |g| g.raft(leader).status().stopped.is_some()).await;
    g.until("another leads", |g| g.alive().any(|(i, r)| i != leader && r.status().leading)).await;
    g.put("c").await;
    let next = g.leader().await;
    assert_ne!(next, leader);
    // Acknowledged entries are there; the one in doubt is there or not, once.
    let texts = texts(g.raft(next));
    assert!(texts == ["a", "c"] && result.is_err() || texts == ["a", "b", "c"], "{texts:?} {result:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_and_wrong_addresses_are_refused() {
    let g = Group::named(1, SNAPSHOT_EVERY).await;
    let g3 = Group::named(3, SNAPSHOT_EVERY).await;
    g3.put("a").await;
    let hello = |to: usize| {
        let text = format!(r#"{{"to":"m{to}","rpc":{{"voters":[]}}}}"#);
        RawValue::from_string(text).unwrap()
    };
    let code = |r: Result<_, crate::proto::error::Failure>| r.map(|_: Box<RawValue>| ()).unwrap_err().code;
    assert_eq!(code(g.raft(0).serve("m7", None, "HELLO", &hello(1)).await), "UNKNOWN_MASTER");
    assert_eq!(code(g3.raft(0).serve("m2", None, "HELLO", &hello(2)).await), "WRONG_MASTER");
    assert_eq!(code(g3.raft(0).serve("m2", None, "VOTE", &hello(1)).await), "BAD_DATA");
    let leader = g3.leader().await;
    let other = (leader + 1) % 3 + 1;
    let from = format!("m{other}");
    let foreign = g3.raft(leader).serve(&from, Some(ClusterId(8)), "HELLO", &hello(leader + 1)).await;
    assert_eq!(code(foreign), "FOREIGN_CLUSTER");
    g3.raft(leader).serve(&from, Some(ClusterId(7)), "HELLO", &hello(leader + 1)).await.unwrap();
}

impl Consensus {
    fn purged(&self) -> Option<u64> {
        let metrics = self.core.raft.metrics().borrow_watched().clone();
        metrics.purged.map(|id| id.index)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_of_many_bytes_is_compacted_early() {
    let mut g = Group::named(1, SNAPSHOT_EVERY).await;
    for i in 0..40 {
        g.put(&format!("{i} {}", "x".repeat(1 << 20))).await;
    }
    g.until("the log is short again", |g| g.raft(0).core.log.bytes() < super::super::LOG_BYTES_MAX).await;
    let state = g.raft(0).read(|r| r.state.clone());
    g.kill(0).await;
    g.start(0).await;
    g.leader().await;
    assert!(g.raft(0).read(|r| r.state == state));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_looks_at_the_state_for_long_holds_nothing_up() {
    let g = Group::named(1, SNAPSHOT_EVERY).await;
    g.put("before").await;
    let raft = g.raft(0).clone();
    let (looks, looking) = std::sync::mpsc::channel();
    let (done, ended) = std::sync::mpsc::channel();
    // As a brain that plans does.
    let reader = std::thread::spawn(move || {
        raft.read(|r| {
            looks.send(()).unwrap();
            ended.recv_timeout(LONG).expect("the entry is applied meanwhile");
            r.state.events.len()
        })
    });
    looking.recv().unwrap();
    g.put("meanwhile").await;
    let after = g.raft(0).read(|r| r.state.events.len());
    done.send(()).unwrap();
    assert_eq!(reader.join().unwrap() + 1, after, "what it looks at stays as it was");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn masters_are_not_added_by_flags() {
    let mut g = Group::named(1, SNAPSHOT_EVERY).await;
    // Until its membership is on disk there is nothing that flags could contradict.
    g.leader().await;
    g.kill(0).await;
    g.peers.push((id(2), "127.0.0.1:1".into()));
    g.peers.push((id(3), "127.0.0.1:2".into()));
    let deadline = Instant::now() + LONG;
    let e = loop {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        match g.start_on(0, listener).await {
            Err(StartError::Peers(e)) => break e,
            Err(e) => assert!(Instant::now() < deadline, "{e}"),
            Ok(_) => panic!("started"),
        }
        sleep(Duration::from_millis(20)).await;
    };
    assert!(e.contains("masters are m1") && e.contains("names m1, m2, m3"), "{e}");
}
