//! The store: openraft's own suite, order of fsync and acknowledgement, damage, restarts.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::TypeConfigExt;
use openraft::{EntryPayload, StorageError};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::node::master::raft::disk::{self, Change, Disk, OpenError, RedbDisk};
use crate::node::master::raft::log::LogStore;
use crate::node::master::raft::machine::Machine;
use crate::node::master::raft::types::{RaftEntry, RaftLogId, RaftVote, Request, TypeConfig};
use crate::proto::id::{HomeId, MasterId};

/// openraft's suite numbers its masters.
impl From<u64> for MasterId {
    fn from(n: u64) -> Self {
        MasterId::new(&format!("m{n}")).unwrap()
    }
}

fn m1() -> MasterId {
    MasterId::from(1)
}

fn open(dir: &Path) -> LogStore {
    let (disk, loaded) = RedbDisk::open(dir, &m1()).unwrap();
    LogStore::new(loaded, disk::spawn(disk).unwrap())
}

/// The file is free again only when the disk's thread has ended.
async fn reopen(dir: &Path, old: LogStore) -> LogStore {
    old.flush().await.unwrap();
    drop(old);
    for _ in 0..1000 {
        if let Ok((disk, loaded)) = RedbDisk::open(dir, &m1()) {
            return LogStore::new(loaded, disk::spawn(disk).unwrap());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the file stayed locked");
}

fn log_id(term: u64, index: u64) -> RaftLogId {
    openraft::testing::log_id::<TypeConfig>(term, m1(), index)
}

fn entry(term: u64, index: u64) -> RaftEntry {
    let request = Request::Admit { master: MasterId::from(index), home: HomeId(index + 1) };
    RaftEntry { log_id: log_id(term, index), payload: EntryPayload::Normal(request) }
}

/// Appends without waiting; the task ends when the entries are acknowledged.
async fn start_append(log: &mut LogStore, entries: Vec<RaftEntry>) -> JoinHandle<io::Result<()>> {
    let (tx, rx) = TypeConfig::oneshot();
    log.append(entries, IOFlushed::signal(tx)).await.unwrap();
    tokio::spawn(async move { rx.await.unwrap() })
}

async fn append(log: &mut LogStore, entries: Vec<RaftEntry>) -> io::Result<()> {
    start_append(log, entries).await.await.unwrap()
}

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, Machine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, Machine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let (log, machine) = (open(dir.path()), Machine::open(dir.path()).unwrap());
        Ok((dir, log, machine))
    }
}

#[test]
fn openrafts_suite_passes() {
    TypeConfig::run(async { Suite::test_all(Builder).await.unwrap() });
}

/// A disk that waits for permission before each commit, notes what it committed, and fails when told to.
struct Slow {
    inner: RedbDisk,
    /// Told when a commit begins.
    asked: std::sync::mpsc::Sender<()>,
    permits: std::sync::mpsc::Receiver<io::Result<()>>,
    committed: Arc<Mutex<Vec<Vec<Change>>>>,
}

impl Disk for Slow {
    fn commit(&mut self, changes: &[Change]) -> io::Result<()> {
        // A test that does not look has dropped the other end.
        let _ = self.asked.send(());
        self.permits.recv().map_err(io::Error::other)??;
        self.inner.commit(changes)?;
        self.committed.lock().unwrap().push(changes.to_vec());
        Ok(())
    }
}

type Committed = Arc<Mutex<Vec<Vec<Change>>>>;

fn slow(dir: &Path) -> (LogStore, std::sync::mpsc::Sender<io::Result<()>>, Committed, std::sync::mpsc::Receiver<()>) {
    let (inner, loaded) = RedbDisk::open(dir, &m1()).unwrap();
    let (permit, permits) = std::sync::mpsc::channel();
    let (asked, begun) = std::sync::mpsc::channel();
    let committed = Committed::default();
    let disk = Slow { inner, asked, permits, committed: committed.clone() };
    (LogStore::new(loaded, disk::spawn(disk).unwrap()), permit, committed, begun)
}

#[tokio::test]
async fn nothing_is_acknowledged_before_its_commit_returned() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, permit, committed, begun) = slow(dir.path());
    let first = start_append(&mut log, vec![entry(1, 0)]).await;
    // The first commit holds this entry alone; what follows waits for the second.
    begun.recv().unwrap();
    // Readable at once, as openraft asks, and not acknowledged.
    assert_eq!(log.try_get_log_entries(0..9).await.unwrap().len(), 1);
    let mut rest = Vec::new();
    for i in 1..50 {
        rest.push(start_append(&mut log, vec![entry(1, i)]).await);
    }
    let mut voter = log.clone();
    let vote = RaftVote { leader_id: log_id(2, 0).leader_id, committed: false };
    let saved = vote.clone();
    let voting = tokio::spawn(async move { voter.save_vote(&saved).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!first.is_finished() && !voting.is_finished(), "acknowledged without a commit");
    assert_eq!(log.read_vote().await.unwrap(), None, "a vote is read before it is durable");
    assert!(committed.lock().unwrap().is_empty());

    permit.send(Ok(())).unwrap();
    first.await.unwrap().unwrap();
    assert_eq!(committed.lock().unwrap().len(), 1);
    assert!(!voting.is_finished());
    for _ in 0..50 {
        drop(permit.send(Ok(())));
    }
    for rx in rest {
        rx.await.unwrap().unwrap();
    }
    voting.await.unwrap().unwrap();
    assert_eq!(log.read_vote().await.unwrap(), Some(vote));
    // What queued up during the first commit went into one more, or two if the vote came after its batch was cut.
    assert!(committed.lock().unwrap().len() <= 3, "no group commit: {}", committed.lock().unwrap().len());
}

#[tokio::test]
async fn after_a_failed_commit_nothing_is_acknowledged_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, permit, committed, _) = slow(dir.path());
    permit.send(Ok(())).unwrap();
    append(&mut log, vec![entry(1, 0)]).await.unwrap();
    permit.send(Err(io::Error::from(io::ErrorKind::StorageFull))).unwrap();
    permit.send(Ok(())).unwrap();
    assert_eq!(append(&mut log, vec![entry(1, 1)]).await.unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(append(&mut log, vec![entry(1, 2)]).await.unwrap_err().kind(), io::ErrorKind::StorageFull);
    let vote = RaftVote { leader_id: log_id(2, 0).leader_id, committed: false };
    assert!(log.save_vote(&vote).await.is_err());
    assert_eq!(committed.lock().unwrap().len(), 1);
    drop((log, permit));
    // What was acknowledged is there; what was not is not.
    let mut log = {
        let dir = dir.path().to_owned();
        let (disk, loaded) = loop {
            match RedbDisk::open(&dir, &m1()) {
                Ok(x) => break x,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        LogStore::new(loaded, disk::spawn(disk).unwrap())
    };
    assert_eq!(log.try_get_log_entries(..).await.unwrap(), vec![entry(1, 0)]);
    assert_eq!(log.read_vote().await.unwrap(), None);
}

#[tokio::test]
async fn a_restart_finds_log_vote_marks_and_home() {
    let dir = tempfile::tempdir().unwrap();
    let home = RedbDisk::open(dir.path(), &m1()).unwrap().1.home;
    let mut log = open(dir.path());
    append(&mut log, (0..1000).map(|i| entry(1, i)).collect()).await.unwrap();
    log.truncate_after(Some(log_id(1, 899))).await.unwrap();
    append(&mut log, (900..950).map(|i| entry(2, i)).collect()).await.unwrap();
    log.purge(log_id(1, 99)).await.unwrap();
    let vote = RaftVote { leader_id: log_id(7, 0).leader_id, committed: true };
    log.save_vote(&vote).await.unwrap();
    log.save_committed(Some(log_id(1, 880))).await.unwrap();
    log.admit().await.unwrap();

    let mut log = reopen(dir.path(), log).await;
    let want: Vec<_> = (100..900).map(|i| entry(1, i)).chain((900..950).map(|i| entry(2, i))).collect();
    assert_eq!(log.try_get_log_entries(..).await.unwrap(), want);
    assert_eq!(log.read_vote().await.unwrap(), Some(vote));
    assert_eq!(log.read_committed().await.unwrap(), Some(log_id(1, 880)));
    let state = log.get_log_state().await.unwrap();
    assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(log_id(1, 99)), Some(log_id(2, 949))));
    drop(log);
    let loaded = loop {
        match RedbDisk::open(dir.path(), &m1()) {
            Ok((_, loaded)) => break loaded,
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    assert_eq!((loaded.home, loaded.admitted), (home, true));
}

#[tokio::test]
async fn the_committed_mark_never_runs_ahead_of_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    append(&mut log, vec![entry(1, 0)]).await.unwrap();
    log.save_committed(Some(log_id(1, 5))).await.unwrap();
    let mut log = reopen(dir.path(), log).await;
    assert_eq!(log.read_committed().await.unwrap(), None);
}

#[tokio::test]
async fn appends_are_cut_to_what_a_line_can_carry() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    let big = |i| {
        let act = crate::node::master::entry::Act::Note {
            severity: crate::proto::event::Severity::Info,
            kind: "test".into(),
            subject: String::new(),
            text: "x".repeat(1 << 20),
        };
        let e = crate::node::master::entry::Entry { at_ms: 0, by: None, act };
        RaftEntry { log_id: log_id(1, i), payload: EntryPayload::Normal(Request::Entry(Box::new(e))) }
    };
    append(&mut log, (0..5).map(big).collect()).await.unwrap();
    let some = log.limited_get_log_entries(0, 5).await.unwrap();
    assert_eq!(some.len(), 1, "two of a mebibyte and their JSON are more than two mebibytes");
    assert_eq!(log.limited_get_log_entries(3, 2).await.unwrap(), vec![]);
}

#[test]
fn damage_is_told_and_nothing_is_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("raft.redb");
    let garbage = b"this is no database, it is a letter to the operator".repeat(200);
    std::fs::write(&file, &garbage).unwrap();
    let e = RedbDisk::open(dir.path(), &m1()).err().unwrap();
    assert!(matches!(&e, OpenError::Damaged { .. }), "{e}");
    assert!(e.to_string().contains("raft.redb"), "{e}");
    assert_eq!(std::fs::read(&file).unwrap(), garbage);

    let dir = tempfile::tempdir().unwrap();
    drop(RedbDisk::open(dir.path(), &m1()).unwrap());
    let e = RedbDisk::open(dir.path(), &MasterId::from(2)).err().unwrap();
    assert!(matches!(&e, OpenError::Foreign { owner, .. } if owner == "m1"), "{e}");

    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("snapshot.json"), b"{\"format\":1,\"bytes\":3,\"xxh3\":\"0\"}\nabc").unwrap();
    let e = Machine::open(dir.path()).err().unwrap();
    assert!(matches!(&e, OpenError::Damaged { .. }), "{e}");
}

#[test]
fn a_file_cut_short_anywhere_is_damage_or_an_older_state_never_a_panic() {
    let dir = tempfile::tempdir().unwrap();
    {
        let (mut disk, _) = RedbDisk::open(dir.path(), &m1()).unwrap();
        for i in 0..20 {
            disk.commit(&[Change::Put(i, serde_json::to_vec(&entry(1, i)).unwrap())]).unwrap();
        }
    }
    let whole = std::fs::read(dir.path().join("raft.redb")).unwrap();
    for cut in [1, 100, 4096, 5000, 8192, whole.len() / 2, whole.len() - 1] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("raft.redb"), &whole[..cut]).unwrap();
        match RedbDisk::open(dir.path(), &m1()) {
            Err(OpenError::Damaged { .. } | OpenError::Io { .. }) => {}
            Err(e) => panic!("cut at {cut}: {e}"),
            Ok((_, loaded)) => assert!(loaded.entries.len() <= 20),
        }
    }
}
