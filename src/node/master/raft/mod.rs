//! Consensus among the masters: openraft behind one type, [`Consensus`], so that nothing outside this room knows openraft.
//!
//! ```text
//!  propose ──▶ openraft ──▶ log (mirror in memory) ──▶ disk (redb, one thread, fsync) ──▶ acknowledged
//!                │   ▲
//!    link ◀──────┘   └────── serve ◀── api (lines from other masters, if the gate is open: formation)
//!                │
//!                └──▶ machine (State, in memory; snapshots in a file) ──▶ read, mark
//! ```
//!
//! One term may have several leaders, told apart by name: a leader is the pair (term, name). A proposal whose outcome this
//! room does not know for certain is [`ProposeError::Unknown`]. A disk that fails stops Raft here; the other masters go on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openraft::async_runtime::{Instant as _, WatchReceiver};
use openraft::error::{ClientWriteError, Fatal, RaftError};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};
use openraft::{Raft, ReadPolicy, ServerState, SnapshotPolicy};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use self::link::{Addressed, Link};
use self::log::LogStore;
use self::machine::{Machine, Mark, Replica, Shared};
use self::network::{
    APPEND, Admission, Admitted, Assembly, HELLO, Hello, HelloReply, Network, PRE_VOTE, PROPOSE, SNAPSHOT,
    SnapshotPiece, TRANSFER_LEADER, VOTE,
};
use self::types::{Outcome, Request, TypeConfig, leader_id};
use super::entry::{Applied, Entry};
use crate::proto::error::Failure;
use crate::proto::id::{ClusterId, HomeId, LeaderId, MasterId};

pub mod disk;
mod formation;
pub mod link;
pub mod log;
pub mod machine;
pub mod network;
pub mod types;

/// Milliseconds between a leader's heartbeats.
const HEARTBEAT_MS: u64 = 100;
/// openraft adds to these the leader's lease, which is the larger of them: elections begin 750 to 1000 ms after the last
/// heartbeat, inside PROTOCOL's 500 to 1000.
const ELECTION_MS: (u64, u64) = (250, 500);
/// A leader not heard for so long is no leader to redirect to, and one that hears no majority for so long does not lead.
pub const LEADER_SILENCE: Duration = Duration::from_millis(1000);
/// Entries between snapshots: replaying so many takes a moment, and keeping them takes little memory.
pub const SNAPSHOT_EVERY: u64 = 256;
/// Entries kept below a snapshot, so that a follower that was away for a moment needs no snapshot.
const LOG_KEEP: u64 = 1024;
/// A log of so many bytes is compacted before [`SNAPSHOT_EVERY`]: it is held in memory, and entries that name many runs of
/// slots are large.
const LOG_BYTES_MAX: usize = 32 << 20;
/// How often the log's size is looked at.
const COMPACT_EVERY: Duration = Duration::from_secs(1);
/// The largest entry, bytes of JSON: with its envelope it must fit a line.
const ENTRY_MAX: usize = 4 << 20;
/// How long the leader may take to put a master's directory on record.
const ADMIT_WITHIN: Duration = Duration::from_secs(2);
/// How long the successor may take to say that it is there, before leadership is handed to it.
const SUCCESSOR_WITHIN: Duration = Duration::from_millis(500);

/// What a master's Raft is told at its start.
#[derive(Debug, Clone)]
pub struct Options {
    /// This master.
    pub me: MasterId,
    /// All masters with host:port, this one among them.
    pub peers: Vec<(MasterId, String)>,
    /// The data directory; the caller holds its lock.
    pub dir: PathBuf,
    /// [`SNAPSHOT_EVERY`] outside tests.
    pub snapshot_every: u64,
}

/// Why Raft did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory.
    #[error(transparent)]
    Open(#[from] disk::OpenError),
    /// `peers` make no sense.
    #[error("{0}")]
    Peers(String),
    /// Something else, in openraft's words.
    #[error("Raft does not start: {0}")]
    Raft(String),
}

/// What became of a proposal that was not applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Certainly not accepted.
    #[error("this master does not lead")]
    NotLeader {
        /// Who does, as far as known.
        leader: Option<LeaderId>,
    },
    /// It may be committed, now or later: read again, then decide.
    #[error("the outcome is unknown")]
    Unknown,
    /// Certainly not accepted: it does not fit.
    #[error("an entry of {0} bytes is too large")]
    TooLarge(usize),
    /// Raft has ended here. Unless it never ran, the outcome is unknown too.
    #[error("Raft has stopped")]
    Stopped,
}

/// Why leadership was not handed over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// Only the leader can.
    #[error("this master does not lead")]
    NotLeader {
        /// Who does, as far as known.
        leader: Option<LeaderId>,
    },
    /// No such master.
    #[error("there is no master {0}")]
    NoSuchMaster(String),
    /// Nobody to hand it to.
    #[error("no other master answers")]
    NoCandidate,
    /// Leadership did not move within the time given. It may yet.
    #[error("leadership did not move in time")]
    Timeout,
    /// Raft has ended here.
    #[error("Raft has stopped")]
    Stopped,
}

/// A master as the leader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Voter {
    /// Its name.
    pub id: MasterId,
    /// host:port.
    pub addr: String,
    /// Last index known to be in its log; only a leader knows that of others.
    pub matched: Option<u64>,
    /// Since its last answer; zero for this master itself, none if never or if this master does not lead.
    pub age: Option<Duration>,
}

/// Raft's facts, at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaftStatus {
    /// Who leads, if a leader was heard within [`LEADER_SILENCE`]; this master, if it leads.
    pub leader: Option<LeaderId>,
    /// The term.
    pub term: u64,
    /// This master was elected, has applied an entry of its own term, and heard a majority within [`LEADER_SILENCE`].
    pub leading: bool,
    /// Last index in the log; 0 if empty.
    pub last_log: u64,
    /// Last index applied; 0 if none.
    pub applied: u64,
    /// Since a majority last answered this leader; none if it is none.
    pub quorum_age: Option<Duration>,
    /// All masters, by name.
    pub voters: Vec<Voter>,
    /// Whether this master takes part.
    pub gate: Gate,
    /// Why Raft has ended here, if it has.
    pub stopped: Option<String>,
}

/// Whether a master takes part in votes (see [`formation`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// Not yet.
    Closed,
    /// Yes.
    Open,
    /// Never again with this directory.
    Refused,
}

/// One master's part in the group. Clones share it.
#[derive(Clone)]
pub struct Consensus {
    core: Arc<Core>,
}

struct Core {
    me: MasterId,
    peers: BTreeMap<MasterId, String>,
    home: HomeId,
    raft: Raft<TypeConfig, Machine>,
    log: LogStore,
    shared: Shared,
    links: Arc<BTreeMap<MasterId, Link>>,
    gate: watch::Sender<Gate>,
    /// The last leader whose entries or heartbeats were taken in, and when.
    heard: Mutex<Option<(LeaderId, Instant)>>,
    assembly: tokio::sync::Mutex<Assembly>,
}

impl Consensus {
    /// Opens the data directory and takes part. The caller feeds it what other masters send ([`Consensus::serve`]).
    pub async fn start(options: Options) -> Result<Self, StartError> {
        Self::start_with(options, |disk| disk).await
    }

    /// As [`Consensus::start`], with something between Raft and the disk.
    async fn start_with<D: disk::Disk>(
        options: Options,
        wrap: impl FnOnce(disk::RedbDisk) -> D,
    ) -> Result<Self, StartError> {
        let peers: BTreeMap<MasterId, String> = options.peers.iter().cloned().collect();
        if peers.len() != options.peers.len() {
            return Err(StartError::Peers("a master is named twice in --peers".into()));
        }
        if !peers.contains_key(&options.me) {
            return Err(StartError::Peers(format!("master {} is not among its own --peers", options.me)));
        }
        let (disk, loaded) = disk::RedbDisk::open(&options.dir, &options.me)?;
        let machine = Machine::open(&options.dir)?;
        let home = loaded.home;
        let may_vote = loaded.admitted;
        let sender = disk::spawn(wrap(disk)).map_err(|e| StartError::Raft(e.to_string()))?;
        let log = LogStore::new(loaded, sender);
        let shared = machine.shared();
        let links: BTreeMap<MasterId, Link> = peers
            .iter()
            .filter(|(id, _)| **id != options.me)
            .map(|(id, addr)| (id.clone(), Link::spawn(options.me.clone(), id.clone(), addr.clone(), shared.cluster())))
            .collect();
        let links = Arc::new(links);
        let network = Network::new(options.me.clone(), links.clone());
        let raft =
            Raft::new(options.me.clone(), Arc::new(config(options.snapshot_every)?), network, log.clone(), machine)
                .await
                .map_err(|e| StartError::Raft(e.to_string()))?;
        // Asked of Raft itself: its metrics may not show yet what the log holds.
        let known =
            raft.with_raft_state(|s| s.membership_state.effective().voter_ids().collect::<BTreeSet<MasterId>>());
        let known = known.await.map_err(|e| StartError::Raft(e.to_string()))?;
        if !known.is_empty() && !known.iter().eq(peers.keys()) {
            drop(raft.shutdown().await);
            let names = |ids: Vec<&MasterId>| ids.iter().map(|id| id.as_str()).collect::<Vec<_>>().join(", ");
            return Err(StartError::Peers(format!(
                "this cluster's masters are {}, but --peers names {}: masters are not added or taken away by flags",
                names(known.iter().collect()),
                names(peers.keys().collect()),
            )));
        }
        let gate = if may_vote { Gate::Open } else { Gate::Closed };
        let core = Arc::new(Core {
            me: options.me,
            peers,
            home,
            raft,
            log,
            shared,
            links,
            gate: watch::Sender::new(gate),
            heard: Mutex::new(None),
            assembly: tokio::sync::Mutex::default(),
        });
        tokio::spawn(formation::run(core.clone()));
        tokio::spawn(compact(core.clone()));
        Ok(Self { core })
    }

    /// Puts an entry to the group and waits until it is applied here, at most `within`.
    pub async fn propose(&self, entry: Entry, within: Duration) -> Result<Applied, ProposeError> {
        match self.core.write(Request::Entry(Box::new(entry)), within).await? {
            Outcome::Applied(applied) => Ok(*applied),
            // Cannot be: an entry of ours is answered in kind. Nothing certain can be said of it.
            Outcome::Nothing | Outcome::Admitted(_) => Err(ProposeError::Unknown),
        }
    }

    /// Raft's facts, now.
    pub fn status(&self) -> RaftStatus {
        self.core.status()
    }

    /// Wakes when Raft's facts may have changed (ages grow silently).
    pub fn changes(&self) -> Changes {
        Changes(self.core.raft.metrics())
    }

    /// Looks at the applied state. Applying waits meanwhile.
    pub fn read<T>(&self, f: impl FnOnce(&Replica) -> T) -> T {
        self.core.shared.read(f)
    }

    /// How far the applied state is, and when that changes.
    pub fn mark(&self) -> watch::Receiver<Mark> {
        self.core.shared.mark()
    }

    /// The cluster's id, once it is known.
    pub fn cluster_id(&self) -> Option<ClusterId> {
        *self.core.shared.cluster().borrow()
    }

    /// The connections to the other masters, for other rooms' requests.
    pub fn links(&self) -> &BTreeMap<MasterId, Link> {
        &self.core.links
    }

    /// Asks another master how it is.
    pub async fn hello(&self, to: &MasterId, within: Duration) -> Option<HelloReply> {
        let hello = Hello { voters: self.core.voters() };
        self.core.links.get(to)?.call(HELLO, hello, within).await.ok()
    }

    /// Waits until all that was committed before this call is applied here. Only a leader can say so.
    pub async fn barrier(&self, within: Duration) -> Result<(), ProposeError> {
        match timeout(within, self.core.raft.ensure_linearizable(ReadPolicy::ReadIndex)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(RaftError::APIError(_))) => Err(ProposeError::NotLeader { leader: self.core.leader() }),
            Ok(Err(RaftError::Fatal(_))) => Err(ProposeError::Stopped),
            Err(_) => Err(ProposeError::Unknown),
        }
    }

    /// Hands leadership to `to`, or to the most caught-up other master; says who leads then. `to` leading already is success.
    pub async fn transfer_leader(&self, to: Option<MasterId>, within: Duration) -> Result<LeaderId, TransferError> {
        let deadline = Instant::now() + within;
        let status = self.status();
        let Some(leader) = status.leader.clone().filter(|_| status.leading) else {
            return Err(TransferError::NotLeader { leader: status.leader });
        };
        let target = match to {
            Some(to) if !self.core.peers.contains_key(&to) => {
                return Err(TransferError::NoSuchMaster(to.to_string()));
            }
            Some(to) => to,
            None => status
                .voters
                .iter()
                .filter(|v| v.id != self.core.me && v.age.is_some_and(|age| age < LEADER_SILENCE))
                .max_by_key(|v| (v.matched, std::cmp::Reverse(v.age)))
                .map(|v| v.id.clone())
                .ok_or(TransferError::NoCandidate)?,
        };
        if target == self.core.me {
            return Ok(leader);
        }
        // openraft's leader stops accepting entries once it was told to hand over, whether or not anybody takes over.
        if !self.hello(&target, SUCCESSOR_WITHIN).await.is_some_and(|a| a.open) {
            return Err(TransferError::NoCandidate);
        }
        self.core.raft.trigger().transfer_leader(target).await.map_err(|_| TransferError::Stopped)?;
        let mut changes = self.changes();
        loop {
            let now = self.status();
            if now.stopped.is_some() {
                return Err(TransferError::Stopped);
            }
            if let Some(new) = now.leader
                && new > leader
            {
                return Ok(new);
            }
            if timeout_at(deadline, changes.changed()).await.is_err() {
                return Err(TransferError::Timeout);
            }
        }
    }

    /// Whether a line of this type is Raft's.
    pub fn serves(kind: &str) -> bool {
        matches!(kind, VOTE | PRE_VOTE | APPEND | SNAPSHOT | TRANSFER_LEADER | HELLO | PROPOSE)
    }

    /// Answers a line from another master. `from` and `cluster_id` are the envelope's.
    pub async fn serve(
        &self,
        from: &str,
        cluster_id: Option<ClusterId>,
        kind: &str,
        data: &RawValue,
    ) -> Result<Box<RawValue>, Failure> {
        self.core.check(from, cluster_id)?;
        self.core.serve(kind, data).await
    }

    /// Whether a line that claims to come from another master may: its name is known and its cluster is this one.
    pub fn check(&self, from: &str, cluster_id: Option<ClusterId>) -> Result<(), Failure> {
        self.core.check(from, cluster_id)
    }

    /// Ends Raft here; what is durable stays so.
    pub async fn shutdown(&self) {
        if let Err(e) = self.core.raft.shutdown().await {
            tracing::warn!(error = %e, "Raft ended badly");
        }
        if let Err(e) = self.core.log.flush().await {
            tracing::warn!(error = %e, "the committed mark was not written; the next start replays less");
        }
    }
}

/// Wakes when Raft's facts may have changed.
pub struct Changes(openraft::alias::WatchReceiverOf<TypeConfig, openraft::RaftMetrics<TypeConfig>>);

impl Changes {
    /// Waits for the next change; for ever, once Raft has ended.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

fn config(snapshot_every: u64) -> Result<openraft::Config, StartError> {
    openraft::Config {
        heartbeat_interval: HEARTBEAT_MS,
        election_timeout_min: ELECTION_MS.0,
        election_timeout_max: ELECTION_MS.1,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(snapshot_every),
        max_in_snapshot_log_to_keep: LOG_KEEP.min(snapshot_every / 2),
        replication_lag_threshold: snapshot_every * 2,
        // A master that was cut off asks before it raises the term, so its return disturbs nobody.
        enable_pre_vote: Some(true),
        // A leader that restarts must be elected again: what it knows may be behind.
        enable_leader_restore: Some(false),
        // Entries travel while they are being fsynced here: a commit takes one fsync's time, not two.
        broadcast_submitted_on_append: Some(true),
        ..openraft::Config::default()
    }
    .validate()
    .map_err(|e| StartError::Raft(e.to_string()))
}

/// Keeps the log short in bytes; openraft keeps it short in entries.
async fn compact(core: Arc<Core>) {
    loop {
        sleep(COMPACT_EVERY).await;
        let metrics = core.raft.metrics().borrow_watched().clone();
        if metrics.running_state.is_err() {
            return;
        }
        if core.log.bytes() <= LOG_BYTES_MAX {
            continue;
        }
        let (applied, snapshot) = (metrics.last_applied.map(|id| id.index), metrics.snapshot.map(|id| id.index));
        // First a snapshot of all that is applied, then what it covers goes, the usual rest included.
        let trigger = core.raft.trigger();
        let asked = match snapshot {
            Some(upto) if metrics.purged.is_none_or(|id| id.index < upto) => trigger.purge_log(upto).await,
            _ if snapshot < applied => trigger.snapshot().await,
            _ => Ok(()),
        };
        if asked.is_err() {
            return;
        }
    }
}

impl Core {
    fn voters(&self) -> Vec<MasterId> {
        self.peers.keys().cloned().collect()
    }

    /// Nothing in the log that a majority could have agreed on: at most the static membership.
    fn blank(&self) -> bool {
        self.log.last_index().unwrap_or(0) == 0
    }

    fn leader(&self) -> Option<LeaderId> {
        self.status().leader
    }

    async fn open(&self) {
        match self.log.admit().await {
            Ok(()) => drop(self.gate.send_replace(Gate::Open)),
            Err(e) => tracing::error!(error = %e, "the data directory can't be written; this master does not vote"),
        }
    }

    fn refuse(&self) {
        if self.gate.send_replace(Gate::Refused) != Gate::Refused {
            self.raft.runtime_config().elect(false);
        }
    }

    async fn write(&self, request: Request, within: Duration) -> Result<Outcome, ProposeError> {
        let size = serde_json::to_vec(&request).map_or(usize::MAX, |b| b.len());
        if size > ENTRY_MAX {
            return Err(ProposeError::TooLarge(size));
        }
        match timeout(within, self.raft.client_write(request)).await {
            Ok(Ok(response)) => Ok(response.data),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) => {
                Err(ProposeError::NotLeader { leader: self.leader() })
            }
            Ok(Err(RaftError::APIError(_))) | Err(_) => Err(ProposeError::Unknown),
            Ok(Err(RaftError::Fatal(_))) => Err(ProposeError::Stopped),
        }
    }

    async fn admit(&self, a: Admission) -> Result<Admitted, Failure> {
        let on_record = self.shared.read(|r| r.homes.get(&a.master).copied());
        if let Some(home) = on_record {
            return Ok(Admitted { admitted: home == a.home });
        }
        match self.write(Request::Admit { master: a.master, home: a.home }, ADMIT_WITHIN).await {
            Ok(Outcome::Admitted(admitted)) => Ok(Admitted { admitted }),
            Ok(_) => Err(Failure::new("UNKNOWN", "the outcome is unknown")),
            Err(e) => Err(Failure::new("NOT_LEADER", e.to_string())),
        }
    }

    fn status(&self) -> RaftStatus {
        let m = self.raft.metrics().borrow_watched().clone();
        let elected = m.state == ServerState::Leader;
        let mine = leader_id(&m.vote.leader_id);
        let quorum_age = match (elected, &m.last_quorum_acked) {
            (false, _) => None,
            (true, _) if self.peers.len() == 1 => Some(Duration::ZERO),
            (true, Some(t)) => Some(t.elapsed()),
            (true, None) => None,
        };
        // The first entry of a term is the leader's own; applied, it carries all that was committed before.
        let own_applied = m.last_applied.as_ref().is_some_and(|id| id.leader_id == m.vote.leader_id);
        let stopped = match &m.running_state {
            Ok(()) => None,
            Err(Fatal::Stopped) => Some("stopped".to_owned()),
            Err(e) => Some(e.to_string()),
        };
        let leading = elected && own_applied && stopped.is_none() && quorum_age.is_some_and(|age| age < LEADER_SILENCE);
        let leader = if elected {
            leading.then_some(mine)
        } else {
            let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone();
            heard.filter(|(id, at)| at.elapsed() < LEADER_SILENCE && id.term >= m.current_term).map(|(id, _)| id)
        };
        let last_log = m.last_log_index.unwrap_or(0);
        let voters = self.peers.iter().map(|(id, addr)| {
            let me = *id == self.me;
            let matched = m.replication.as_ref().and_then(|r| r.get(id)).and_then(|id| id.as_ref().map(|id| id.index));
            let age = m.heartbeat.as_ref().and_then(|h| h.get(id)).and_then(|t| t.as_ref().map(|t| t.elapsed()));
            Voter {
                id: id.clone(),
                addr: addr.clone(),
                matched: if me { Some(last_log) } else { matched },
                age: if me { Some(Duration::ZERO) } else { age },
            }
        });
        RaftStatus {
            leader,
            term: m.current_term,
            leading,
            last_log,
            applied: m.last_applied.as_ref().map_or(0, |id| id.index),
            quorum_age,
            voters: voters.collect(),
            gate: *self.gate.borrow(),
            stopped,
        }
    }

    fn check(&self, from: &str, cluster_id: Option<ClusterId>) -> Result<(), Failure> {
        if !self.links.keys().any(|id| id.as_str() == from) {
            return Err(Failure::new("UNKNOWN_MASTER", format!("{from:?} is not among this master's --peers")));
        }
        match (cluster_id, *self.shared.cluster().borrow()) {
            (Some(theirs), Some(ours)) if theirs != ours => {
                Err(Failure::new("FOREIGN_CLUSTER", format!("this is cluster {ours}, not {theirs}")))
            }
            _ => Ok(()),
        }
    }

    async fn serve(&self, kind: &str, data: &RawValue) -> Result<Box<RawValue>, Failure> {
        match kind {
            HELLO => {
                let _: Hello = self.addressed(data)?;
                answer(&self.hello())
            }
            PROPOSE => answer(&self.admit(self.addressed(data)?).await?),
            _ if *self.gate.borrow() != Gate::Open => {
                Err(Failure::new("NOT_ADMITTED", format!("master {} does not vote (yet)", self.me)))
            }
            VOTE => answer(&self.raft.vote(self.addressed(data)?).await.map_err(stopped)?),
            PRE_VOTE => answer(&self.raft.pre_vote(self.addressed(data)?).await.map_err(stopped)?),
            APPEND => {
                let rpc: AppendEntriesRequest<TypeConfig> = self.addressed(data)?;
                let leader = leader_id(&rpc.vote.leader_id);
                let reply = self.raft.append_entries(rpc).await.map_err(stopped)?;
                if !matches!(reply, AppendEntriesResponse::HigherVote(_)) {
                    self.hear(leader);
                }
                answer(&reply)
            }
            TRANSFER_LEADER => answer(&self.raft.handle_transfer_leader(self.addressed(data)?).await.map_err(stopped)?),
            SNAPSHOT => {
                let piece: SnapshotPiece = self.addressed(data)?;
                let vote = piece.vote.clone();
                let leader = leader_id(&vote.leader_id);
                let whole = self.assembly.lock().await.take(piece)?;
                let reply = match whole {
                    None => None,
                    Some(snapshot) => {
                        Some(self.raft.install_full_snapshot(vote.clone(), snapshot).await.map_err(stopped)?)
                    }
                };
                if reply.as_ref().is_none_or(|r| r.vote == vote) {
                    self.hear(leader);
                }
                answer(&reply)
            }
            other => Err(Failure::new("UNKNOWN_TYPE", format!("no message type {other:?} among masters"))),
        }
    }

    fn hello(&self) -> HelloReply {
        let status = self.status();
        HelloReply {
            voters: self.voters(),
            blank: self.blank(),
            open: status.gate == Gate::Open,
            refused: status.gate == Gate::Refused,
            leader: status.leader,
            last_log: status.last_log,
            applied: status.applied,
        }
    }

    fn hear(&self, leader: LeaderId) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.as_ref().is_none_or(|(id, _)| *id <= leader) {
            *heard = Some((leader, Instant::now()));
        }
    }

    fn addressed<T: DeserializeOwned>(&self, data: &RawValue) -> Result<T, Failure> {
        let a: Addressed<T> = serde_json::from_str(data.get()).map_err(|e| Failure::new("BAD_DATA", e.to_string()))?;
        if a.to != self.me {
            return Err(Failure::new("WRONG_MASTER", format!("this is master {}, not {}", self.me, a.to)));
        }
        Ok(a.rpc)
    }
}

fn answer<T: Serialize>(value: &T) -> Result<Box<RawValue>, Failure> {
    serde_json::value::to_raw_value(value).map_err(|e| Failure::new("INTERNAL", e.to_string()))
}

fn stopped(e: impl std::fmt::Display) -> Failure {
    Failure::new("STOPPED", format!("Raft has stopped here: {e}"))
}

#[cfg(test)]
mod tests;
