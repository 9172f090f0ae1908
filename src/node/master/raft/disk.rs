//! The log's file: one redb database per master, written by one thread that fsyncs a batch before it acknowledges any of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use openraft::storage::IOFlushed;
use redb::{Builder, Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot};

use super::types::{RaftEntry, RaftLogId, RaftVote, TypeConfig};
use crate::proto::id::{HomeId, MasterId};

/// The database's name in the data directory.
const FILE: &str = "raft.redb";
/// Raised when the file's layout changes; an older or newer file is refused rather than misread.
const FORMAT: u32 = 1;
/// redb's page cache, bytes. Reads are served from the mirror in memory, so the file is only ever written.
const CACHE_BYTES: usize = 4 << 20;
/// Jobs waiting for the disk. Raft itself has few writes in flight; this bounds memory when the disk hangs.
const QUEUE: usize = 1024;
/// Jobs put into one commit: what queued up during the fsync before. Bounds the size of a transaction.
const GROUP_MAX: usize = 256;

/// Log index → entry, JSON.
const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
/// The names below → value, JSON.
const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
const KEY_FORMAT: &str = "format";
const KEY_MASTER: &str = "master";
const KEY_HOME: &str = "home";
const KEY_VOTE: &str = "vote";
const KEY_COMMITTED: &str = "committed";
const KEY_PURGED: &str = "purged";
const KEY_ADMITTED: &str = "admitted";

/// The data directory can't be used. The text says which file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The operating system refused.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not a log, or damaged beyond what a crash can do.
    #[error(
        "{path} is damaged: {why}; do not delete it while the other masters run on: \
         replace this master under a new id, or restore the file"
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What was found.
        why: String,
    },
    /// The directory belongs to another master.
    #[error("{path} belongs to master {owner}, not to {me}; give each master its own --data")]
    Foreign {
        /// Which file.
        path: PathBuf,
        /// Whose it is.
        owner: String,
        /// Who asked.
        me: MasterId,
    },
}

/// What a write does to the file.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// An entry of the log.
    Put(u64, Vec<u8>),
    /// Who was voted for.
    Vote(Vec<u8>),
    /// What is known to be committed.
    Committed(Vec<u8>),
    /// Drop this entry and all after it.
    TruncateFrom(u64),
    /// Drop this entry and all before it; its id stays on record.
    PurgeTo(u64, Vec<u8>),
    /// This master may vote.
    Admitted,
}

/// Where batches go; tests put a disk in between that delays or fails.
pub trait Disk: Send + 'static {
    /// Makes all of it durable, or none. When this returns, a power cut loses nothing of it.
    fn commit(&mut self, changes: &[Change]) -> io::Result<()>;
}

/// Whom to tell that a job is durable.
pub enum Done {
    /// Raft, about entries.
    Flushed(IOFlushed<TypeConfig>),
    /// A caller that waits.
    Reply(oneshot::Sender<io::Result<()>>),
}

/// Changes that go into one commit together.
pub struct Job {
    /// In order.
    pub changes: Vec<Change>,
    /// Told after the commit returned, and not before.
    pub done: Done,
}

impl Done {
    fn tell(self, result: io::Result<()>) {
        match self {
            Done::Flushed(f) => f.io_completed(result),
            // Nobody waits any more: the caller gave up, the write stands.
            Done::Reply(tx) => drop(tx.send(result)),
        }
    }
}

/// What the file held when it was opened.
#[derive(Debug)]
pub struct Loaded {
    /// Drawn when the file was made: names this very directory.
    pub home: HomeId,
    /// Whether this master was ever allowed to vote with it.
    pub admitted: bool,
    /// Who was voted for.
    pub vote: Option<RaftVote>,
    /// What was known to be committed.
    pub committed: Option<RaftLogId>,
    /// The last entry dropped in favour of a snapshot.
    pub purged: Option<RaftLogId>,
    /// The log, with each entry's size in bytes as stored.
    pub entries: BTreeMap<u64, (usize, RaftEntry)>,
}

/// The real file.
pub struct RedbDisk {
    db: Database,
}

impl RedbDisk {
    /// Opens the file of a master, making it if the directory has none.
    pub fn open(dir: &Path, me: &MasterId) -> Result<(RedbDisk, Loaded), OpenError> {
        let path = dir.join(FILE);
        let io = |source| OpenError::Io { path: path.clone(), source };
        let damaged = |why: String| OpenError::Damaged { path: path.clone(), why };
        let db = Builder::new().set_cache_size(CACHE_BYTES).create(&path).map_err(|e| match e {
            // A file that ends before it should is damaged, too, not one that can't be read.
            redb::DatabaseError::Storage(redb::StorageError::Io(e))
                if !matches!(e.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
            {
                io(e)
            }
            e => damaged(e.to_string()),
        })?;
        // The file's name must survive a power cut too.
        File::open(dir).and_then(|d| d.sync_all()).map_err(io)?;
        let mut disk = RedbDisk { db };
        let loaded = match disk.read(me).map_err(|e| damaged(e.to_string()))? {
            Found::Log(loaded) => *loaded,
            Found::Of(owner) => return Err(OpenError::Foreign { path, owner, me: me.clone() }),
            Found::Format(f) => return Err(damaged(format!("its format is {f}, this program knows {FORMAT}"))),
            Found::Nothing => disk.create(me).map_err(io)?,
        };
        let first = loaded.purged.as_ref().map_or(0, |p| p.index + 1);
        for (expected, found) in (first..).zip(loaded.entries.keys()) {
            if expected != *found {
                return Err(damaged(format!("entry {expected} is missing before entry {found}")));
            }
        }
        Ok((disk, loaded))
    }

    fn create(&mut self, me: &MasterId) -> io::Result<Loaded> {
        let home = HomeId::random();
        let txn = self.begin()?;
        {
            txn.open_table(LOG).map_err(io::Error::other)?;
            let mut meta = txn.open_table(META).map_err(io::Error::other)?;
            for (key, value) in [(KEY_FORMAT, json(&FORMAT)?), (KEY_MASTER, json(me)?), (KEY_HOME, json(&home)?)] {
                meta.insert(key, value.as_slice()).map_err(redb_io)?;
            }
        }
        commit(txn)?;
        Ok(Loaded { home, admitted: false, vote: None, committed: None, purged: None, entries: BTreeMap::new() })
    }

    fn read(&self, me: &MasterId) -> Result<Found, Box<dyn std::error::Error>> {
        let txn = self.db.begin_read()?;
        let meta = match txn.open_table(META) {
            Ok(t) => t,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Found::Nothing),
            Err(e) => return Err(e.into()),
        };
        let format: u32 = get(&meta, KEY_FORMAT)?.ok_or("no format")?;
        if format != FORMAT {
            return Ok(Found::Format(format));
        }
        let owner: String = get(&meta, KEY_MASTER)?.ok_or("no master")?;
        if owner != me.as_str() {
            return Ok(Found::Of(owner));
        }
        let mut entries = BTreeMap::new();
        for row in txn.open_table(LOG)?.iter()? {
            let (index, bytes) = row?;
            let (index, bytes) = (index.value(), bytes.value());
            let entry: RaftEntry = serde_json::from_slice(bytes).map_err(|e| format!("entry {index}: {e}"))?;
            if entry.log_id.index != index {
                return Err(format!("entry {index} says it is {}", entry.log_id.index).into());
            }
            entries.insert(index, (bytes.len(), entry));
        }
        Ok(Found::Log(Box::new(Loaded {
            home: get(&meta, KEY_HOME)?.ok_or("no home id")?,
            admitted: get(&meta, KEY_ADMITTED)?.unwrap_or(false),
            vote: get(&meta, KEY_VOTE)?,
            committed: get(&meta, KEY_COMMITTED)?,
            purged: get(&meta, KEY_PURGED)?,
            entries,
        })))
    }

    fn begin(&mut self) -> io::Result<redb::WriteTransaction> {
        let mut txn = self.db.begin_write().map_err(io::Error::other)?;
        txn.set_durability(Durability::Immediate).map_err(io::Error::other)?;
        Ok(txn)
    }
}

enum Found {
    Nothing,
    Format(u32),
    Of(String),
    Log(Box<Loaded>),
}

impl Disk for RedbDisk {
    fn commit(&mut self, changes: &[Change]) -> io::Result<()> {
        let txn = self.begin()?;
        {
            let mut log = txn.open_table(LOG).map_err(io::Error::other)?;
            let mut meta = txn.open_table(META).map_err(io::Error::other)?;
            let mut set = |key: &str, value: &[u8]| meta.insert(key, value).map(drop).map_err(redb_io);
            for change in changes {
                match change {
                    Change::Put(index, bytes) => drop(log.insert(index, bytes.as_slice()).map_err(redb_io)?),
                    Change::Vote(v) => set(KEY_VOTE, v)?,
                    Change::Committed(v) => set(KEY_COMMITTED, v)?,
                    Change::Admitted => set(KEY_ADMITTED, b"true")?,
                    Change::TruncateFrom(from) => log.retain_in::<u64, _>(*from.., |_, _| false).map_err(redb_io)?,
                    Change::PurgeTo(upto, id) => {
                        log.retain_in::<u64, _>(..=*upto, |_, _| false).map_err(redb_io)?;
                        set(KEY_PURGED, id)?;
                    }
                }
            }
        }
        commit(txn)
    }
}

fn commit(txn: redb::WriteTransaction) -> io::Result<()> {
    txn.commit().map_err(|e| match e {
        redb::CommitError::Storage(e) => redb_io(e),
        e => io::Error::other(e),
    })
}

/// Starts the thread that owns the disk. It ends when every sender is gone.
pub fn spawn(disk: impl Disk) -> io::Result<mpsc::Sender<Job>> {
    let (tx, rx) = mpsc::channel(QUEUE);
    std::thread::Builder::new().name("raft-disk".into()).spawn(move || run(disk, rx))?;
    Ok(tx)
}

fn run(mut disk: impl Disk, mut rx: mpsc::Receiver<Job>) {
    // After a failed commit nothing may be acknowledged any more: what the file holds is unknown until it is reopened.
    let mut failed: Option<(io::ErrorKind, String)> = None;
    while let Some(first) = rx.blocking_recv() {
        let mut jobs = vec![first];
        while jobs.len() < GROUP_MAX {
            match rx.try_recv() {
                Ok(job) => jobs.push(job),
                Err(_) => break,
            }
        }
        if failed.is_none() {
            let changes: Vec<Change> = jobs.iter_mut().flat_map(|j| std::mem::take(&mut j.changes)).collect();
            if let Err(e) = disk.commit(&changes) {
                tracing::error!(error = %e, "the Raft log can't be written; this master steps aside");
                failed = Some((e.kind(), e.to_string()));
            }
        }
        for job in jobs {
            job.done.tell(match &failed {
                None => Ok(()),
                Some((kind, text)) => Err(io::Error::new(*kind, text.clone())),
            });
        }
    }
}

/// A value as the file holds it.
pub fn json<T: serde::Serialize>(value: &T) -> io::Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

fn get<T: DeserializeOwned>(
    meta: &impl ReadableTable<&'static str, &'static [u8]>,
    key: &str,
) -> Result<Option<T>, Box<dyn std::error::Error>> {
    let Some(bytes) = meta.get(key)? else { return Ok(None) };
    Ok(Some(serde_json::from_slice(bytes.value()).map_err(|e| format!("{key}: {e}"))?))
}

/// Keeps the operating system's own error (a full disk, say) instead of burying it in redb's.
fn redb_io(e: redb::StorageError) -> io::Error {
    match e {
        redb::StorageError::Io(e) => e,
        e => io::Error::other(e),
    }
}
