//! Raft's messages over the links: how they go out, and what a master does with those that come in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::alias::{SnapshotMetaOf, SnapshotOf};
use openraft::error::{RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{Backoff, RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft::{BasicNode, OptionalSend};
use serde::{Deserialize, Serialize};

use super::link::{CallError, Link};
use super::machine::SNAPSHOT_MAX;
use super::types::{RaftVote, TypeConfig};
use crate::proto::error::Failure;
use crate::proto::id::{HomeId, LeaderId, MasterId};

/// Raft: vote for me.
pub const VOTE: &str = "VOTE";
/// Raft: would you vote for me?
pub const PRE_VOTE: &str = "PRE_VOTE";
/// Raft: entries, or none as a heartbeat.
pub const APPEND: &str = "APPEND";
/// Raft: a piece of a snapshot.
pub const SNAPSHOT: &str = "SNAPSHOT";
/// Raft: lead in my place.
pub const TRANSFER_LEADER: &str = "TRANSFER_LEADER";
/// Who are you, and have you a log? Asked before a first vote, and to see who is there.
pub const HELLO: &str = "HELLO";
/// Put my state directory on record.
pub const PROPOSE: &str = "PROPOSE";

/// How long entries may take to be on the other's disk. A slow disk is no reason to send them twice.
const APPEND_WITHIN: Duration = Duration::from_secs(2);
/// How long a piece of a snapshot may take; with the last piece the snapshot is written and taken in.
const SNAPSHOT_WITHIN: Duration = Duration::from_secs(15);
/// A piece of a snapshot, bytes: small enough that heartbeats on the same connection do not wait for it.
const SNAPSHOT_PIECE: usize = 256 << 10;
/// Waits between tries to replicate to a master that does not answer, milliseconds; the last one for ever. A master
/// that comes back must be caught up before it campaigns.
const BACKOFF_MS: [u64; 5] = [10, 25, 50, 100, 200];

/// A piece of a snapshot; it is JSON text and travels as such.
#[derive(Debug, Serialize, Deserialize)]
pub struct SnapshotPiece {
    /// The leader's.
    pub vote: RaftVote,
    /// What the whole covers.
    pub meta: SnapshotMetaOf<TypeConfig>,
    /// Bytes of the whole.
    pub total: usize,
    /// Where this piece begins.
    pub offset: usize,
    /// The piece.
    pub text: String,
}

/// Introduces a master to another.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Hello {
    /// Whom it knows as masters, itself among them, ascending: all must have been given the same.
    pub voters: Vec<MasterId>,
}

/// The answer to [`Hello`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HelloReply {
    /// As in the question.
    pub voters: Vec<MasterId>,
    /// It holds nothing that a majority could have agreed on.
    pub blank: bool,
    /// It votes.
    pub open: bool,
    /// Who leads, if it hears a leader.
    pub leader: Option<LeaderId>,
    /// Last index in its log.
    pub last_log: u64,
    /// Last index applied.
    pub applied: u64,
}

/// Asks the leader to put a directory on record.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Admission {
    /// Whose.
    pub master: MasterId,
    /// Which.
    pub home: HomeId,
}

/// The answer to [`Admission`].
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Admitted {
    /// False: another directory is on record for this master.
    pub admitted: bool,
}

/// Makes openraft's clients from the links.
#[derive(Clone)]
pub struct Network {
    me: MasterId,
    links: Arc<BTreeMap<MasterId, Link>>,
}

impl Network {
    /// Over the links to all other masters.
    pub fn new(me: MasterId, links: Arc<BTreeMap<MasterId, Link>>) -> Self {
        Self { me, links }
    }
}

/// openraft's client for one other master.
pub struct Peer {
    me: MasterId,
    target: MasterId,
    /// None: a voter of the log that this master was not told of.
    link: Option<Link>,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: MasterId, _node: &BasicNode) -> Peer {
        // Addresses come from `--peers`, not from the log: they may have changed since.
        Peer { me: self.me.clone(), link: self.links.get(&target).cloned(), target }
    }
}

impl Peer {
    async fn call<Q: Serialize, A: serde::de::DeserializeOwned>(
        &self,
        kind: &'static str,
        rpc: Q,
        within: Duration,
        action: RPCTypes,
    ) -> Result<A, RPCError<TypeConfig>> {
        let Some(link) = &self.link else {
            let why = format!("master {} is not among --peers", self.target);
            return Err(Unreachable::from_string(why).into());
        };
        link.call(kind, rpc, within).await.map_err(|e| match e {
            CallError::Timeout(timeout) => {
                Timeout { action, id: self.me.clone(), target: self.target.clone(), timeout }.into()
            }
            e => Unreachable::new(&e).into(),
        })
    }

    async fn send_snapshot(
        &self,
        vote: RaftVote,
        snapshot: SnapshotOf<TypeConfig, Bytes>,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let not_text = |e: std::str::Utf8Error| Unreachable::<TypeConfig>::new(&e);
        let text = std::str::from_utf8(&snapshot.snapshot).map_err(not_text)?;
        let mut offset = 0;
        loop {
            let end = text.floor_char_boundary(offset + SNAPSHOT_PIECE);
            let piece = SnapshotPiece {
                vote: vote.clone(),
                meta: snapshot.meta.clone(),
                total: text.len(),
                offset,
                text: text[offset..end].to_owned(),
            };
            let answer: Option<SnapshotResponse<TypeConfig>> =
                self.call(SNAPSHOT, piece, SNAPSHOT_WITHIN, RPCTypes::InstallSnapshot).await?;
            if let Some(response) = answer {
                return Ok(response);
            }
            if end == text.len() {
                let why = "the snapshot was sent whole and not taken in";
                return Err(Unreachable::from_string(why).into());
            }
            offset = end;
        }
    }
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let from_start = rpc.prev_log_id.is_none();
        let response: AppendEntriesResponse<TypeConfig> =
            self.call(APPEND, rpc, APPEND_WITHIN, RPCTypes::AppendEntries).await?;
        if from_start && response.is_conflict() {
            // openraft takes it for granted that nothing conflicts with the log's beginning.
            return Err(Unreachable::from_string("a conflict before the first entry").into());
        }
        Ok(response)
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.call(VOTE, rpc, option.hard_ttl(), RPCTypes::Vote).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.call(PRE_VOTE, rpc, option.hard_ttl(), RPCTypes::Vote).await
    }

    async fn full_snapshot(
        &mut self,
        vote: RaftVote,
        snapshot: SnapshotOf<TypeConfig, Bytes>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        tokio::select! {
            sent = self.send_snapshot(vote, snapshot) => sent,
            closed = cancel => Err(closed.into()),
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.call(TRANSFER_LEADER, req, option.hard_ttl(), RPCTypes::TransferLeader).await
    }

    fn backoff(&self) -> Option<Backoff> {
        let last = BACKOFF_MS[BACKOFF_MS.len() - 1];
        Some(Backoff::new(BACKOFF_MS.into_iter().chain(std::iter::repeat(last)).map(Duration::from_millis)))
    }
}

/// A snapshot coming in.
#[derive(Default)]
pub struct Assembly {
    meta: Option<SnapshotMetaOf<TypeConfig>>,
    text: String,
}

impl Assembly {
    /// Takes a piece in; the whole snapshot once it is there.
    pub fn take(&mut self, piece: SnapshotPiece) -> Result<Option<SnapshotOf<TypeConfig, Bytes>>, Failure> {
        if piece.offset == 0 {
            *self = Assembly { meta: Some(piece.meta.clone()), text: String::new() };
        }
        if piece.total > SNAPSHOT_MAX {
            return Err(Failure::new("SNAPSHOT_TOO_LARGE", format!("a snapshot is at most {SNAPSHOT_MAX} bytes")));
        }
        let fits = self.meta.as_ref() == Some(&piece.meta)
            && self.text.len() == piece.offset
            && piece.offset + piece.text.len() <= piece.total;
        if !fits {
            return Err(Failure::new("SNAPSHOT_GAP", format!("expected the piece at {}", self.text.len())));
        }
        self.text.push_str(&piece.text);
        if self.text.len() < piece.total {
            return Ok(None);
        }
        let whole = std::mem::take(self);
        Ok(Some(SnapshotOf::<TypeConfig, Bytes> { meta: piece.meta, snapshot: Bytes::from(whole.text) }))
    }
}
