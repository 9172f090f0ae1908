//! Raft's state machine: the cluster's state in memory, its snapshots in a file, restored as snapshot + log after a restart.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use openraft::alias::{SnapshotMetaOf, SnapshotOf};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use xxhash_rust::xxh3::xxh3_64;

use super::disk::OpenError;
use super::types::{Outcome, RaftLogId, RaftMembership, Request, TypeConfig};
use crate::node::master::state::State;
use crate::proto::event::Severity;
use crate::proto::id::{ClusterId, HomeId, MasterId};

/// The snapshot's name in the data directory.
const FILE: &str = "snapshot.json";
/// Where it is written before it takes that name, so that a crash leaves the old one whole.
const FILE_NEW: &str = "snapshot.new";
/// Raised when the file's layout changes.
const FORMAT: u32 = 1;
/// The largest snapshot taken in, bytes: 16384 slots that differ all, a thousand events and operations, ten times over.
pub const SNAPSHOT_MAX: usize = 128 << 20;

/// All that entries change.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Replica {
    /// The last entry applied, blank ones included.
    pub applied: Option<RaftLogId>,
    /// Who votes.
    pub membership: RaftMembership,
    /// The state directory each master takes part with.
    pub homes: BTreeMap<MasterId, HomeId>,
    /// The cluster.
    pub state: State,
}

/// How far the applied state is: changes with every entry, cheap to compare.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mark {
    /// Raft index of the last entry applied.
    pub applied: u64,
    /// The configuration's index.
    pub cfg_index: u64,
    /// Number of the last event.
    pub event_seq: u64,
}

impl Replica {
    fn cluster_id(&self) -> Option<ClusterId> {
        Some(self.state.cfg.cluster_id).filter(|id| *id != ClusterId(0))
    }

    fn mark(&self) -> Mark {
        Mark {
            applied: self.applied.as_ref().map_or(0, |id| id.index),
            cfg_index: self.state.cfg.cfg_index,
            event_seq: self.state.event_seq,
        }
    }
}

/// The applied state as others read it.
#[derive(Clone)]
pub struct Shared {
    /// Readers keep what they look at and not the lock: planning takes long, and Raft applies meanwhile.
    replica: Arc<RwLock<Arc<Replica>>>,
    mark: Arc<watch::Sender<Mark>>,
    cluster: Arc<watch::Sender<Option<ClusterId>>>,
}

impl Shared {
    fn new(replica: Replica) -> Self {
        let mark = watch::Sender::new(replica.mark());
        let cluster = watch::Sender::new(replica.cluster_id());
        Self { replica: Arc::new(RwLock::new(Arc::new(replica))), mark: Arc::new(mark), cluster: Arc::new(cluster) }
    }

    /// Looks at the state as it is now. A closure, so that nobody holds it over an await: applying would copy it each time.
    pub fn read<T>(&self, f: impl FnOnce(&Replica) -> T) -> T {
        // Applying never panics (`State::apply`), so a poisoned lock means a copy did; the state is whole.
        let replica = self.replica.read().unwrap_or_else(PoisonError::into_inner).clone();
        f(&replica)
    }

    /// How far it is, and when that changes.
    pub fn mark(&self) -> watch::Receiver<Mark> {
        self.mark.subscribe()
    }

    /// The cluster's id, once it is known.
    pub fn cluster(&self) -> watch::Receiver<Option<ClusterId>> {
        self.cluster.subscribe()
    }

    fn change<T>(&self, f: impl FnOnce(&mut Replica) -> T) -> T {
        f(Arc::make_mut(&mut self.replica.write().unwrap_or_else(PoisonError::into_inner)))
    }

    fn announce(&self) {
        let (mark, cluster) = self.read(|r| (r.mark(), r.cluster_id()));
        self.cluster.send_if_modified(|c| std::mem::replace(c, cluster) != cluster);
        self.mark.send_replace(mark);
    }
}

/// A snapshot that is on disk: what it covers, and its bytes.
type Kept = (SnapshotMetaOf<TypeConfig>, Bytes);

/// Applies entries; makes, takes and keeps snapshots. Clones share everything.
#[derive(Clone)]
pub struct Machine {
    shared: Shared,
    file: Arc<SnapshotFile>,
    current: Arc<Mutex<Option<Kept>>>,
}

impl Machine {
    /// Opens the directory's snapshot, if there is one, and stands where it stood.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        let mut file = SnapshotFile { dir: dir.to_owned(), newest: Mutex::new(None) };
        let (replica, current) = match file.load()? {
            None => (Replica::default(), None),
            Some(bytes) => {
                let damaged = |e: serde_json::Error| OpenError::Damaged { path: dir.join(FILE), why: e.to_string() };
                let replica: Replica = serde_json::from_slice(&bytes).map_err(damaged)?;
                let meta = meta(&replica);
                file.newest = Mutex::new(meta.last_log_id.clone());
                (replica, Some((meta, bytes)))
            }
        };
        Ok(Self { shared: Shared::new(replica), file: Arc::new(file), current: Arc::new(Mutex::new(current)) })
    }

    /// The applied state.
    pub fn shared(&self) -> Shared {
        self.shared.clone()
    }

    async fn keep(&self, meta: SnapshotMetaOf<TypeConfig>, bytes: Bytes) -> io::Result<()> {
        let (file, data, id) = (self.file.clone(), bytes.clone(), meta.last_log_id.clone());
        tokio::task::spawn_blocking(move || file.store(id, &data)).await.map_err(io::Error::other)??;
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_none_or(|(m, _)| m.last_log_id <= meta.last_log_id) {
            *current = Some((meta, bytes));
        }
        Ok(())
    }
}

fn meta(replica: &Replica) -> SnapshotMetaOf<TypeConfig> {
    SnapshotMetaOf::<TypeConfig> { last_log_id: replica.applied.clone(), last_membership: replica.membership.clone() }
}

fn invalid(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// What an entry does, and what its proposer is told.
fn apply(
    replica: &mut Replica,
    id: RaftLogId,
    payload: EntryPayload<Request, MasterId, openraft::BasicNode>,
) -> Outcome {
    let index = id.index;
    let outcome = match payload {
        EntryPayload::Blank => Outcome::Nothing,
        EntryPayload::Membership(m) => {
            replica.membership = RaftMembership::new(Some(id.clone()), m);
            Outcome::Nothing
        }
        EntryPayload::Normal(Request::Entry(entry)) => {
            let applied = replica.state.apply(index, &entry);
            tracing::debug!(index, act = %entry.act.summary(), skipped = applied.skipped.len(), "applied");
            Outcome::Applied(Box::new(applied))
        }
        EntryPayload::Normal(Request::Admit { master, home }) => {
            Outcome::Admitted(*replica.homes.entry(master).or_insert(home) == home)
        }
    };
    replica.applied = Some(id);
    outcome
}

/// The cluster's history in this master's log, as it happens: what is applied again after a start was told before it.
fn log_events(outcome: &Outcome) {
    static STARTED: LazyLock<SystemTime> = LazyLock::new(SystemTime::now);
    let started = STARTED.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
    let Outcome::Applied(applied) = outcome else { return };
    for e in applied.events.iter().filter(|e| e.at_ms >= started) {
        let by = e.by.as_deref().unwrap_or("-");
        match e.severity {
            Severity::Info => tracing::info!(seq = e.seq, by, "{}", e.text),
            Severity::Warn => tracing::warn!(seq = e.seq, by, "{}", e.text),
            Severity::Error => tracing::error!(seq = e.seq, by, "{}", e.text),
        }
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> io::Result<(Option<RaftLogId>, RaftMembership)> {
        Ok(self.shared.read(|r| (r.applied.clone(), r.membership.clone())))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let outcome = self.shared.change(|replica| apply(replica, entry.log_id, entry.payload));
            log_events(&outcome);
            if let Some(responder) = responder {
                // Announced first: who hears of the outcome may look at once.
                self.shared.announce();
                responder.send(outcome);
            }
        }
        self.shared.announce();
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMetaOf<TypeConfig>, snapshot: Bytes) -> io::Result<()> {
        let replica: Replica = serde_json::from_slice(&snapshot).map_err(invalid)?;
        if replica.applied != meta.last_log_id {
            return Err(invalid("the snapshot is not the one announced"));
        }
        // On disk before in memory: once Raft counts it as installed, the log before it goes.
        self.keep(meta.clone(), snapshot).await?;
        self.shared.change(|r| *r = replica);
        self.shared.announce();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf<TypeConfig, Bytes>>> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(current.clone().map(|(meta, snapshot)| SnapshotOf::<TypeConfig, Bytes> { meta, snapshot }))
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Machine {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<TypeConfig, Bytes>> {
        let replica = self.shared.read(Replica::clone);
        let meta = meta(&replica);
        let bytes = tokio::task::spawn_blocking(move || serde_json::to_vec(&replica))
            .await
            .map_err(io::Error::other)?
            .map_err(invalid)?;
        let snapshot = Bytes::from(bytes);
        self.keep(meta.clone(), snapshot.clone()).await?;
        Ok(SnapshotOf::<TypeConfig, Bytes> { meta, snapshot })
    }
}

/// One line that says what follows, then the snapshot.
struct SnapshotFile {
    dir: PathBuf,
    /// What the file covers. One is written at a time, and never an older one over a newer: a snapshot from the leader
    /// may overtake one that is being built here, and the log below the newer one is gone.
    newest: Mutex<Option<RaftLogId>>,
}

#[derive(Serialize, Deserialize)]
struct Header {
    format: u32,
    bytes: usize,
    xxh3: String,
}

impl SnapshotFile {
    /// Durable when this returns: the old snapshot's log may be dropped.
    fn store(&self, id: Option<RaftLogId>, data: &[u8]) -> io::Result<()> {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if *newest > id {
            return Ok(());
        }
        let header = Header { format: FORMAT, bytes: data.len(), xxh3: digest(data) };
        let new = self.dir.join(FILE_NEW);
        let mut f = File::create(&new)?;
        f.write_all(&serde_json::to_vec(&header).map_err(invalid)?)?;
        f.write_all(b"\n")?;
        f.write_all(data)?;
        f.sync_all()?;
        fs::rename(&new, self.dir.join(FILE))?;
        File::open(&self.dir)?.sync_all()?;
        *newest = id;
        Ok(())
    }

    fn load(&self) -> Result<Option<Bytes>, OpenError> {
        let path = self.dir.join(FILE);
        let file = match fs::read(&path) {
            Ok(bytes) => Bytes::from(bytes),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(OpenError::Io { path, source }),
        };
        match parse(&file) {
            Ok(data) => Ok(Some(data)),
            Err(why) => Err(OpenError::Damaged { path, why }),
        }
    }
}

fn parse(file: &Bytes) -> Result<Bytes, String> {
    let end = memchr::memchr(b'\n', file).ok_or("it has no header")?;
    let header: Header = serde_json::from_slice(&file[..end]).map_err(|e| format!("its header: {e}"))?;
    if header.format != FORMAT {
        return Err(format!("its format is {}, this program knows {FORMAT}", header.format));
    }
    let data = file.slice(end + 1..);
    if data.len() != header.bytes || digest(&data) != header.xxh3 {
        return Err("its checksum does not match".into());
    }
    Ok(data)
}

fn digest(data: &[u8]) -> String {
    format!("{:016x}", xxh3_64(data))
}
