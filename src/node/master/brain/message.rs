//! What the brain hears and says, and what it is told at its start. The runtime carries these between it and the world.

use crate::node::clock::Mono;
use crate::node::master::entry::{Applied, Entry};
use crate::proto::control::{AddCacheServer, Complain, KeepAlive, LearnerReady, Message, Relinquish};
use crate::proto::id::{ClusterId, LeaderId, MasterId, Ref};

/// How often the runtime sends [`Event::Tick`], milliseconds: a fraction of every limit below.
pub const TICK_MS: u64 = 25;
/// How long one probe may take, milliseconds: a refusal comes at once; silence proves nothing.
pub const PROBE_TIMEOUT_MS: u64 = 100;

/// A control connection, as the runtime numbers them; never used twice in one process.
pub type ConnId = u64;
/// Ties a proposal to its outcome.
pub type Token = u64;

/// What a connect to a node's peer address met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// ECONNREFUSED: the host answered that nobody listens.
    Refused,
    /// Somebody accepts.
    Open,
    /// Reset, time-out, unreachable, or the master asked did not answer.
    Other,
}

/// What became of a proposal.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Committed and applied; the state passed along is at least as new.
    Applied(Applied),
    /// Certainly not accepted: this master does not lead.
    NotLeader,
    /// It may or may not be committed, now or later: read again, then decide.
    Unknown,
}

/// What the brain hears.
#[derive(Debug, Clone)]
pub enum Event {
    /// Every [`TICK_MS`].
    Tick,
    /// Raft made this master leader.
    BecameLeader {
        /// Term and name.
        leader: LeaderId,
        /// Drawn by the runtime; used if the cluster has no id yet.
        fresh_cluster_id: ClusterId,
    },
    /// It leads no more.
    LostLeadership,
    /// How long ago a majority of the masters last answered this one; 0 for a lone master.
    Quorum {
        /// Milliseconds.
        age_ms: u64,
    },
    /// A heartbeat.
    KeepAlive {
        /// On which connection.
        conn: ConnId,
        /// The envelope's id.
        id: u64,
        /// When its bytes were read from the socket.
        at: Mono,
        /// What it says.
        msg: KeepAlive,
    },
    /// A connection is gone, whoever's it was.
    ConnEnded {
        /// Which.
        conn: ConnId,
    },
    /// ADD_CACHE_SERVER of a node.
    Register {
        /// On which connection.
        conn: ConnId,
        /// The envelope's id.
        id: u64,
        /// What it says.
        msg: AddCacheServer,
    },
    /// The answer to [`Command::Probe`].
    ProbeResult {
        /// Which life was asked for.
        node: Ref,
        /// What was met.
        outcome: ProbeOutcome,
        /// The master that tried; none = this one.
        via: Option<MasterId>,
    },
    /// A primary reports learners that are counted and hold everything.
    LearnerReady(LearnerReady),
    /// A primary gives slots up to the targets of their handovers.
    Relinquish(Relinquish),
    /// A drained node says that it goes.
    Gone {
        /// Who.
        node: Ref,
    },
    /// A primary reports a member that stalls.
    Complain(Complain),
    /// A node confirms that it stopped serving (STOP).
    StopConfirmed {
        /// Who.
        node: Ref,
    },
    /// A command of an operator.
    Operator {
        /// On which connection.
        conn: ConnId,
        /// The envelope's id.
        id: u64,
        /// The operator's machine name, for the record.
        by: String,
        /// CLUSTER_STOP, SWITCH_MASTER, …
        message: Message,
    },
    /// What became of a proposal.
    Proposed {
        /// Which.
        token: Token,
        /// What.
        outcome: Outcome,
    },
    /// The applied state moved on.
    Applied,
}

/// What the brain wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Put an entry to Raft; answer with [`Event::Proposed`].
    Propose {
        /// To echo.
        token: Token,
        /// What to put.
        entry: Box<Entry>,
    },
    /// Connect to a peer address once, bounded by [`PROBE_TIMEOUT_MS`]; answer with [`Event::ProbeResult`].
    Probe {
        /// Which life is asked for.
        node: Ref,
        /// host:port.
        addr: String,
        /// Let this master try; none = this one.
        via: Option<MasterId>,
    },
    /// Answer on a connection.
    Reply {
        /// Where.
        conn: ConnId,
        /// The envelope's id to echo.
        id: u64,
        /// What.
        message: Box<Message>,
    },
    /// Tell the sender who leads (REFRESH_MASTER).
    Redirect {
        /// Where.
        conn: ConnId,
        /// The envelope's id to echo.
        id: u64,
    },
    /// Send the applied configuration to all nodes (REFRESH_IP).
    Push,
    /// Tell all nodes and watchers who leads (REFRESH_MASTER).
    AnnounceMaster,
    /// Send STOP to these nodes.
    OrderStop {
        /// The configuration that orders it.
        cfg_index: u64,
        /// To whom.
        nodes: Vec<Ref>,
    },
    /// Send SHUTDOWN_CACHE to these nodes, which hold nothing any more.
    OrderShutdown {
        /// The configuration that orders it.
        cfg_index: u64,
        /// To whom.
        nodes: Vec<Ref>,
    },
    /// Hand leadership over; none = to the most caught-up other master.
    Transfer {
        /// To whom.
        to: Option<MasterId>,
        /// An operator's connection and envelope id to answer, if one asked.
        answer: Option<(ConnId, u64)>,
    },
    /// Give leadership up without a successor: no majority answers.
    StepDown,
    /// End this process once the other masters have applied `index` and were told to end, or did not answer for 2 s.
    Exit {
        /// Index of the STOPPED entry.
        index: u64,
    },
}

/// What a brain is told at its start.
#[derive(Debug, Clone)]
pub struct BrainParams {
    /// This master.
    pub me: MasterId,
    /// The other masters, and whether each is on another host than this one.
    pub others: Vec<(MasterId, bool)>,
    /// The cluster's name.
    pub cluster: String,
    /// Backups per slot of a new cluster.
    pub backups: u8,
    /// How many nodes shall register before the first hand-out.
    pub expect_nodes: usize,
    /// After this many milliseconds fewer do.
    pub form_wait_ms: u64,
    /// A refused connection at a node's peer address proves that its process is gone.
    pub refused_is_death: bool,
}
