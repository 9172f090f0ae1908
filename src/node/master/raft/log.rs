//! Raft's log store: reads come from a mirror in memory, writes go to the disk's thread and count once they are fsynced.
//!
//! The mirror holds the whole unpurged log; snapshots keep that short (see `SNAPSHOT_EVERY` and `LOG_BYTES_MAX`).

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use tokio::sync::{mpsc, oneshot};

use super::disk::{Change, Done, Job, Loaded, json};
use super::types::{RaftEntry, RaftLogId, RaftVote, TypeConfig};

/// How many bytes of entries travel in one APPEND: well below a line's limit, JSON around it included.
const APPEND_BYTES_MAX: usize = 2 << 20;

/// The log and the vote of one master. Clones share them.
#[derive(Clone)]
pub struct LogStore {
    mirror: Arc<Mutex<Mirror>>,
    disk: mpsc::Sender<Job>,
}

struct Mirror {
    vote: Option<RaftVote>,
    committed: Option<RaftLogId>,
    /// `committed` moved since it was last sent to the disk.
    committed_dirty: bool,
    purged: Option<RaftLogId>,
    entries: BTreeMap<u64, (usize, RaftEntry)>,
    /// Of all entries together, as stored.
    bytes: usize,
}

impl Mirror {
    fn put(&mut self, size: usize, entry: RaftEntry) {
        self.bytes += size;
        if let Some((old, _)) = self.entries.insert(entry.log_id.index, (size, entry)) {
            self.bytes -= old;
        }
    }

    /// Takes `gone` for what was cut off.
    fn cut(&mut self, gone: BTreeMap<u64, (usize, RaftEntry)>) {
        self.bytes -= gone.values().map(|(size, _)| size).sum::<usize>();
    }

    fn last(&self) -> Option<RaftLogId> {
        self.entries.values().next_back().map(|(_, e)| e.log_id.clone()).or_else(|| self.purged.clone())
    }

    /// The committed mark rides along with other writes: it is a shortcut for restarts, not worth an fsync of its own.
    /// Never ahead of the log, or a restart would look for entries that are not there.
    fn take_committed(&mut self) -> Option<RaftLogId> {
        if !self.committed_dirty || self.committed > self.last() {
            return None;
        }
        self.committed_dirty = false;
        self.committed.clone()
    }
}

impl LogStore {
    /// Over what the disk held and the disk's thread.
    pub fn new(loaded: Loaded, disk: mpsc::Sender<Job>) -> Self {
        let mirror = Mirror {
            vote: loaded.vote,
            committed: loaded.committed,
            committed_dirty: false,
            purged: loaded.purged,
            bytes: loaded.entries.values().map(|(size, _)| size).sum(),
            entries: loaded.entries,
        };
        Self { mirror: Arc::new(Mutex::new(mirror)), disk }
    }

    /// The highest index in the log, purged entries included.
    pub fn last_index(&self) -> Option<u64> {
        self.lock().last().map(|id| id.index)
    }

    /// How much the log takes, bytes as stored.
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// Puts on record that this master may vote.
    pub async fn admit(&self) -> io::Result<()> {
        self.write(vec![Change::Admitted]).await
    }

    /// Writes what would otherwise wait for the next entry.
    pub async fn flush(&self) -> io::Result<()> {
        self.write(Vec::new()).await
    }

    fn lock(&self) -> MutexGuard<'_, Mirror> {
        // The guarded code only moves values about; a panic in it leaves nothing half done.
        self.mirror.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn write(&self, mut changes: Vec<Change>) -> io::Result<()> {
        if let Some(id) = self.lock().take_committed() {
            changes.push(Change::Committed(json(&id)?));
        }
        if changes.is_empty() {
            return Ok(());
        }
        let (tx, rx) = oneshot::channel();
        self.disk.send(Job { changes, done: Done::Reply(tx) }).await.map_err(|_| gone())?;
        rx.await.map_err(|_| gone())?
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the disk's thread is gone")
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<RaftEntry>> {
        // BTreeMap::range panics on reversed bounds; such a range is simply empty.
        if let (Bound::Included(&a), Bound::Excluded(&b)) = (range.start_bound(), range.end_bound())
            && a >= b
        {
            return Ok(Vec::new());
        }
        Ok(self.lock().entries.range(range).map(|(_, (_, e))| e.clone()).collect())
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<RaftEntry>> {
        let mirror = self.lock();
        let mut bytes = 0;
        let mut out = Vec::new();
        for (size, entry) in mirror.entries.range(start..end.max(start)).map(|(_, v)| v) {
            bytes += size;
            if bytes > APPEND_BYTES_MAX && !out.is_empty() {
                break;
            }
            out.push(entry.clone());
        }
        Ok(out)
    }

    async fn read_vote(&mut self) -> io::Result<Option<RaftVote>> {
        Ok(self.lock().vote.clone())
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let mirror = self.lock();
        Ok(LogState { last_purged_log_id: mirror.purged.clone(), last_log_id: mirror.last() })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &RaftVote) -> io::Result<()> {
        self.write(vec![Change::Vote(json(vote)?)]).await?;
        self.lock().vote = Some(vote.clone());
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<RaftLogId>) -> io::Result<()> {
        let mut mirror = self.lock();
        mirror.committed = committed;
        mirror.committed_dirty = true;
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<RaftLogId>> {
        Ok(self.lock().committed.clone())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = RaftEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut changes = Vec::new();
        let mut mirrored = Vec::new();
        for entry in entries {
            let bytes = json(&entry)?;
            mirrored.push((bytes.len(), entry));
            changes.push(Change::Put(mirrored[mirrored.len() - 1].1.log_id.index, bytes));
        }
        let committed = {
            let mut mirror = self.lock();
            mirrored.into_iter().for_each(|(size, entry)| mirror.put(size, entry));
            mirror.take_committed()
        };
        if let Some(id) = committed {
            changes.push(Change::Committed(json(&id)?));
        }
        match self.disk.send(Job { changes, done: Done::Flushed(callback) }).await {
            Ok(()) => Ok(()),
            Err(_) => Err(gone()),
        }
    }

    async fn truncate_after(&mut self, last_log_id: Option<RaftLogId>) -> io::Result<()> {
        let from = last_log_id.map_or(0, |id| id.index + 1);
        {
            let mut mirror = self.lock();
            let gone = mirror.entries.split_off(&from);
            mirror.cut(gone);
        }
        self.write(vec![Change::TruncateFrom(from)]).await
    }

    async fn purge(&mut self, log_id: RaftLogId) -> io::Result<()> {
        let id = json(&log_id)?;
        let index = log_id.index;
        {
            let mut mirror = self.lock();
            let kept = mirror.entries.split_off(&(index + 1));
            let gone = std::mem::replace(&mut mirror.entries, kept);
            mirror.cut(gone);
            mirror.purged = Some(log_id);
        }
        self.write(vec![Change::PurgeTo(index, id)]).await
    }
}
