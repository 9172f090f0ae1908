//! The master's port: nodes, operators and other masters, one JSON object a line; HTTP for probes and scrapers.
//!
//! Each connection is one task. What it reads it answers itself (views, configurations, Raft) or hands to the runtime's one
//! task; what it writes it takes from a bounded outbox and from the feed, as fast as the peer reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde_json::value::RawValue;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::brain::{ConnId, Event};
use super::feed::{Cursor, Feed, Frame};
use super::metrics;
use super::peers;
use super::raft::Consensus;
use crate::node::clock::Mono;
use crate::node::health::http;
use crate::proto::control::{self, Envelope, Incoming, Message, RefreshMaster, ShutdownCache};
use crate::proto::error::Failure;
use crate::proto::net::conn::{BACKLOG_MAX, Conn, ConnError, LineReader, LineWriter};
use crate::proto::net::plain;

/// Connections at once: a thousand nodes, their operators and watchers, and room for those that are being replaced.
const CONNECTIONS_MAX: usize = 4096;
/// Streams of views at once: people and dashboards, each costs four lines a second.
const WATCHERS_MAX: usize = 256;
/// Answers waiting for a peer to read them; more than it can have asked for.
const OUTBOX_LINES: usize = 1024;
/// Requests of other masters under way on one connection: Raft has a handful.
const CALLS_MAX: usize = 64;
/// After a failed accept (no descriptors left), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long answers are waited for after the peer closed its side, as `nc` does at the end of its input.
const LINGER: Duration = Duration::from_secs(30);
/// How long a peer may take to read the last lines when the master ends.
const FLUSH_WITHIN: Duration = Duration::from_millis(500);
/// How often it is looked whether the last answer is out, once the peer has closed its side.
const FINISH_LOOK: Duration = Duration::from_millis(5);
/// A connection idle for so long is probed, and so often: a peer whose host vanished does not hold it for ever.
const IDLE_PROBE: Duration = Duration::from_secs(10);
/// Probes without an answer after which it ends.
const IDLE_PROBES: u32 = 3;
/// Lines of an HTTP request that are read before it is answered.
const HTTP_LINES_MAX: usize = 100;
/// How long an HTTP client may take to say them.
const HTTP_WITHIN: Duration = Duration::from_secs(5);

/// What connections tell the runtime's task.
pub enum Input {
    /// A connection may be answered.
    Opened {
        /// Its number.
        conn: ConnId,
        /// How.
        line: Line,
    },
    /// A message came in.
    Said {
        /// On which connection.
        conn: ConnId,
        /// When it was read from the socket.
        at: Mono,
        /// The sender's name, as claimed.
        machine: String,
        /// To echo.
        id: u64,
        /// What it says.
        message: Message,
    },
    /// A connection's peer has closed it, or it failed; answers that are due may still be sent.
    Ended {
        /// Which.
        conn: ConnId,
    },
    /// Nothing more can be sent on it.
    Closed {
        /// Which.
        conn: ConnId,
    },
    /// A view of this moment, please.
    Frame(oneshot::Sender<Arc<Frame>>),
    /// The leader ends the cluster: end too, once the entry at this index is applied.
    End {
        /// Of STOPPED.
        index: u64,
        /// Whether it will.
        answer: oneshot::Sender<bool>,
    },
    /// Something the brain waits for.
    Event(Event),
}

/// What all connections share.
pub struct Hub {
    /// Raft.
    pub raft: Consensus,
    /// What is sent unasked.
    pub feed: Feed,
    /// The runtime's task.
    pub inbox: mpsc::Sender<Input>,
    /// The brain leads: Raft elected this master, and its own first entry is applied.
    pub ready: AtomicBool,
    /// True once the master ends: connections send what they have and close.
    pub closing: watch::Receiver<bool>,
}

/// A connection as the runtime sees it.
#[derive(Clone)]
pub struct Line {
    outbox: Outbox,
    taste: watch::Sender<Taste>,
}

impl Line {
    /// Queues a line, newline included. A peer that does not read its answers loses its connection.
    pub fn send(&self, line: Bytes) {
        self.outbox.send(line);
    }

    /// Queues the answer to a request.
    pub fn answer(&self, line: Bytes) {
        self.outbox.send(line);
        self.outbox.owed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).ok();
    }

    /// It is a node's, and stands at this configuration: newer ones are pushed from here on.
    pub fn stands_at(&self, cfg_index: u64) {
        self.taste.send_if_modified(|t| {
            let new = t.config.is_none();
            t.config = Some(cfg_index);
            new
        });
    }
}

/// Where a connection's answers go; bounded, and the connection ends when the bound is met.
#[derive(Clone)]
struct Outbox {
    lines: mpsc::Sender<Bytes>,
    /// Bytes queued.
    bytes: Arc<AtomicUsize>,
    /// Requests that the runtime has yet to answer.
    owed: Arc<AtomicUsize>,
    overflow: Arc<Notify>,
}

impl Outbox {
    fn new() -> (Self, mpsc::Receiver<Bytes>) {
        let (lines, rx) = mpsc::channel(OUTBOX_LINES);
        (Self { lines, bytes: Arc::default(), owed: Arc::default(), overflow: Arc::default() }, rx)
    }

    fn send(&self, line: Bytes) {
        let len = line.len();
        let queued = self.bytes.fetch_add(len, Ordering::Relaxed) + len;
        if queued > BACKLOG_MAX || self.lines.try_send(line).is_err() {
            self.overflow.notify_one();
        }
    }

    fn is_idle(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) == 0 && self.owed.load(Ordering::Relaxed) == 0
    }
}

/// Accepts until the master ends; returns when all connections have.
pub async fn serve(listener: TcpListener, hub: Arc<Hub>) {
    let mut connections = JoinSet::new();
    let mut closing = hub.closing.clone();
    let mut next: ConnId = 0;
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(e) => {
                    tracing::warn!(error = %e, "can't accept connections");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
            Some(ended) = connections.join_next() => {
                if let Err(e) = ended {
                    tracing::error!(error = %e, "a connection's task ended badly");
                }
                continue;
            }
            () = closed(&mut closing) => break,
        };
        if connections.len() >= CONNECTIONS_MAX {
            tracing::warn!(max = CONNECTIONS_MAX, "too many connections");
            continue;
        }
        next += 1;
        connections.spawn(connection(next, stream, hub.clone()));
    }
    drop(listener);
    drop(timeout(FLUSH_WITHIN, async { while connections.join_next().await.is_some() {} }).await);
}

async fn connection(n: ConnId, stream: TcpStream, hub: Arc<Hub>) {
    let alive = TcpKeepalive::new().with_time(IDLE_PROBE).with_interval(IDLE_PROBE).with_retries(IDLE_PROBES);
    drop(SockRef::from(&stream).set_tcp_keepalive(&alive));
    let Ok(conn) = Conn::new(stream) else { return };
    let (reader, writer) = conn.into_split();
    let (outbox, lines) = Outbox::new();
    let (taste, tastes) = watch::channel(Taste::default());
    let line = Line { outbox: outbox.clone(), taste: taste.clone() };
    if hub.inbox.send(Input::Opened { conn: n, line }).await.is_err() {
        return;
    }
    let mut ear = Ear { n, hub: hub.clone(), outbox: outbox.clone(), taste, calls: JoinSet::new() };
    let mut speaking = Box::pin(Mouth { hub: hub.clone(), writer, lines, outbox, tastes }.run());
    let heard = tokio::select! {
        heard = ear.run(reader) => Some(heard),
        () = &mut speaking => None,
    };
    // Said before the last answers are written: a node's end is a matter of milliseconds.
    drop(hub.inbox.send(Input::Ended { conn: n }).await);
    if let Some(Ok(())) = heard {
        let linger = async {
            while ear.calls.join_next().await.is_some() {}
            ear.taste.send_modify(|t| t.finish = true);
            std::future::pending::<()>().await
        };
        tokio::select! {
            () = linger => {}
            () = &mut speaking => {}
            () = sleep(LINGER) => {}
        }
    }
    drop(hub.inbox.send(Input::Closed { conn: n }).await);
}

/// What a connection wants to be sent unasked.
#[derive(Debug, Clone, Default)]
struct Taste {
    /// It speaks this protocol, and is no master: tell it who leads.
    leader: bool,
    /// It is a node's, and stands at this configuration.
    config: Option<u64>,
    /// It watches: the request's id.
    watch: Option<u64>,
    /// Nothing more is to come but what is queued.
    finish: bool,
}

/// Reads.
struct Ear {
    n: ConnId,
    hub: Arc<Hub>,
    outbox: Outbox,
    taste: watch::Sender<Taste>,
    calls: JoinSet<()>,
}

/// Whether the connection goes on, or ends once what is due is written.
#[derive(PartialEq, Eq)]
enum Heard {
    Go,
    Finish,
}

impl Ear {
    /// Until the peer closes or breaks the protocol; answers may still be due then.
    async fn run(&mut self, mut reader: LineReader<OwnedReadHalf>) -> Result<(), Gone> {
        let calls = Arc::new(Semaphore::new(CALLS_MAX));
        let mut first = true;
        loop {
            let line = match reader.next_line().await {
                Ok(Some(line)) => line,
                Ok(None) => return Ok(()),
                Err(e) => {
                    self.refuse(&e);
                    return Ok(());
                }
            };
            let at = Mono::now();
            if std::mem::take(&mut first) && http::is_http(&line) {
                self.http(&line, &mut reader).await;
                return Ok(());
            }
            if !line.trim_ascii().is_empty() && self.hear(at, &line, &calls).await? == Heard::Finish {
                return Ok(());
            }
            while self.calls.try_join_next().is_some() {}
        }
    }

    /// Says why the connection ends, where somebody is left to hear it.
    fn refuse(&self, e: &ConnError) {
        if let Some(failure) = e.failure() {
            self.answer(0, &Message::Error(failure));
        }
    }

    fn answer(&self, id: u64, message: &Message) {
        self.outbox.send(self.hub.feed.encode(id, message));
    }

    async fn hear(&mut self, at: Mono, line: &[u8], calls: &Arc<Semaphore>) -> Result<Heard, Gone> {
        // Other masters' lines first: they are the most frequent, and no `Message`.
        if let Ok(e) = serde_json::from_slice::<Envelope<&RawValue>>(line)
            && e.v == control::ENVELOPE_V
            && (Consensus::serves(&e.kind) || peers::serves(&e.kind))
        {
            self.call(e, calls).await;
            return Ok(Heard::Go);
        }
        let incoming = match control::decode(line) {
            Ok(incoming) => incoming,
            Err(failure) => {
                self.answer(0, &Message::Error(failure));
                return Ok(Heard::Finish);
            }
        };
        self.taste.send_if_modified(|t| !std::mem::replace(&mut t.leader, true));
        self.message(at, incoming).await?;
        Ok(Heard::Go)
    }

    /// A request of another master, in a task of its own: an APPEND waits for the disk, and heartbeats must not.
    async fn call(&mut self, e: Envelope<&RawValue>, calls: &Arc<Semaphore>) {
        let Ok(permit) = calls.clone().acquire_owned().await else { return };
        let (hub, outbox, id) = (self.hub.clone(), self.outbox.clone(), e.id);
        let (kind, from, cluster_id, data) = (e.kind, e.machine, e.cluster_id, e.data.to_owned());
        self.calls.spawn(async move {
            let served = if peers::serves(&kind) {
                peers::serve(&hub, &from, cluster_id, &kind, &data).await
            } else {
                hub.raft.serve(&from, cluster_id, &kind, &data).await
            };
            outbox.send(match served {
                Ok(data) => hub.feed.line(&kind, id, &data),
                Err(failure) => hub.feed.encode(id, &Message::Error(failure)),
            });
            drop(permit);
        });
    }

    async fn message(&mut self, at: Mono, incoming: Incoming) -> Result<(), Gone> {
        let Incoming { machine, cluster_id, id, message } = incoming;
        if let (Some(theirs), Some(ours)) = (cluster_id, self.hub.raft.cluster_id())
            && theirs != ours
        {
            let why = format!("this is cluster {ours}, not {theirs}");
            let failure = Failure::new("FOREIGN_CLUSTER", why).hint("check the addresses of the masters");
            self.answer(id, &Message::Error(failure));
            return Ok(());
        }
        let message = match message {
            Ok(message) => message,
            Err(failure) => {
                self.answer(id, &Message::Error(failure));
                return Ok(());
            }
        };
        match &message {
            Message::StatusRequest(_) => return self.status(id).await,
            Message::Watch(_) => return self.watch(id),
            Message::RefreshIp(ask) => {
                self.outbox.send(self.hub.feed.answer(ask.have, id));
                return Ok(());
            }
            Message::KeepAlive(_)
            | Message::LearnerReady(_)
            | Message::Relinquish(_)
            | Message::Complain(_)
            | Message::Stop(_)
            | Message::ShutdownCache(ShutdownCache { cfg_index: 1.., .. }) => {}
            _ => drop(self.outbox.owed.fetch_add(1, Ordering::Relaxed)),
        }
        self.hub.inbox.send(Input::Said { conn: self.n, at, machine, id, message }).await.map_err(|_| Gone)
    }

    /// Where to go instead, if another master is known to lead.
    fn elsewhere(&self) -> Option<RefreshMaster> {
        let status = self.hub.raft.status();
        (!status.leading).then(|| peers::who_leads(&self.hub)).filter(|m| m.leader.is_some())
    }

    async fn status(&mut self, id: u64) -> Result<(), Gone> {
        if let Some(there) = self.elsewhere() {
            self.answer(id, &Message::RefreshMaster(there));
            return Ok(());
        }
        let (tx, rx) = oneshot::channel();
        self.hub.inbox.send(Input::Frame(tx)).await.map_err(|_| Gone)?;
        let frame = rx.await.map_err(|_| Gone)?;
        self.outbox.send(self.hub.feed.view(&frame, &mut Cursor::default(), id));
        Ok(())
    }

    fn watch(&mut self, id: u64) -> Result<(), Gone> {
        if let Some(there) = self.elsewhere() {
            self.answer(id, &Message::RefreshMaster(there));
        } else if self.hub.feed.watchers() >= WATCHERS_MAX {
            let failure = Failure::new("TOO_MANY_WATCHERS", format!("{WATCHERS_MAX} watch already"));
            self.answer(id, &Message::Error(failure));
        } else {
            self.taste.send_modify(|t| t.watch = Some(id));
        }
        Ok(())
    }

    /// Answers one HTTP request and is done.
    async fn http(&self, line: &[u8], reader: &mut LineReader<OwnedReadHalf>) {
        // Read to its end, or closing would reset the connection under the answer.
        let mut headers = Vec::new();
        let rest = async {
            while headers.len() < HTTP_LINES_MAX {
                match reader.next_line().await {
                    Ok(Some(line)) if !line.is_empty() => headers.push(line),
                    _ => return,
                }
            }
        };
        drop(timeout(HTTP_WITHIN, rest).await);
        let answer = match http::parse(line, headers.iter().map(|l| l.as_ref())) {
            Ok(request) => self.tell(&request).await,
            Err(refused) => refused,
        };
        self.outbox.send(Bytes::from(answer));
    }

    async fn tell(&self, request: &http::Request) -> Vec<u8> {
        let raft = &self.hub.raft;
        match request.path.as_str() {
            "/healthz" if raft.status().stopped.is_none() => request.ok("ok\n"),
            "/healthz" => request.unavailable("Raft has stopped\n"),
            "/readyz" => match metrics::ready(raft) {
                Ok(()) => request.ok("ok\n"),
                Err(why) => request.unavailable(why),
            },
            "/metrics" => {
                let (tx, rx) = oneshot::channel();
                let asked = self.hub.inbox.send(Input::Frame(tx)).await.is_ok();
                let frame = if asked { timeout(HTTP_WITHIN, rx).await.ok().and_then(Result::ok) } else { None };
                let status = frame.and_then(|f| f.status());
                request.metrics(&metrics::expose(request.format, raft, status.as_ref(), self.hub.feed.watchers()))
            }
            _ => request.not_found("this port speaks NDJSON; over HTTP there are /metrics, /healthz and /readyz\n"),
        }
    }
}

/// The runtime's task has ended.
struct Gone;

/// Writes.
struct Mouth {
    hub: Arc<Hub>,
    writer: LineWriter<OwnedWriteHalf>,
    lines: mpsc::Receiver<Bytes>,
    outbox: Outbox,
    tastes: watch::Receiver<Taste>,
}

impl Mouth {
    async fn run(mut self) {
        let (mut closing, overflow) = (self.hub.closing.clone(), self.outbox.overflow.clone());
        let end = tokio::select! {
            end = self.speak() => end,
            () = overflow.notified() => Err(ConnError::Backlog),
            () = closed(&mut closing) => Ok(()),
        };
        match end {
            // A line that was cut off in the middle goes on where it stopped.
            Ok(()) => drop(timeout(FLUSH_WITHIN, self.finish()).await),
            Err(e) => tracing::debug!(why = %plain(&e.to_string()), "a connection ended"),
        }
    }

    /// Until an error, or until nothing more is to come.
    async fn speak(&mut self) -> Result<(), ConnError> {
        let hub = self.hub.clone();
        let (mut leader, mut mark) = (hub.feed.leader(), hub.raft.mark());
        let mut frames: Option<watch::Receiver<Option<Arc<Frame>>>> = None;
        let mut cursor = Cursor::default();
        let mut told: Option<u64> = None;
        loop {
            let taste = self.tastes.borrow_and_update().clone();
            if let (Some(id), None) = (taste.watch, &frames) {
                frames = Some(self.first_view(id, &mut cursor).await?);
            }
            if let Some(stands) = taste.config {
                // What it said last was sent before it read what we wrote since, so it never takes `told` back.
                told = Some(told.map_or(stands, |t| t.max(stands)));
            }
            if let Some(have) = told
                && have < mark.borrow_and_update().cfg_index
            {
                let (index, line) = hub.feed.push(have);
                told = Some(index);
                self.write(&line).await?;
                continue;
            }
            tokio::select! {
                biased;
                Some(line) = self.lines.recv() => {
                    self.outbox.bytes.fetch_sub(line.len(), Ordering::Relaxed);
                    self.write(&line).await?;
                }
                Ok(()) = leader.changed(), if taste.leader => {
                    let who = leader.borrow_and_update().clone();
                    let line = hub.feed.encode(0, &Message::RefreshMaster(who));
                    self.write(&line).await?;
                }
                Ok(()) = next_frame(&mut frames) => {
                    let frame = frames.as_mut().and_then(|f| f.borrow_and_update().clone());
                    if let (Some(frame), Some(id)) = (frame, taste.watch) {
                        let line = hub.feed.view(&frame, &mut cursor, id);
                        self.write(&line).await?;
                    }
                }
                Ok(()) = mark.changed(), if told.is_some() => {}
                changed = self.tastes.changed() => if changed.is_err() {
                    return Ok(());
                },
                () = sleep(FINISH_LOOK), if taste.finish && taste.watch.is_none() => if self.outbox.is_idle() {
                    return Ok(());
                },
            }
        }
    }

    /// A stream begins with the whole, at once.
    async fn first_view(
        &mut self,
        id: u64,
        cursor: &mut Cursor,
    ) -> Result<watch::Receiver<Option<Arc<Frame>>>, ConnError> {
        let mut frames = self.hub.feed.frames();
        frames.mark_unchanged();
        let (tx, rx) = oneshot::channel();
        let asked = self.hub.inbox.send(Input::Frame(tx)).await;
        if asked.is_ok()
            && let Ok(frame) = rx.await
        {
            let line = self.hub.feed.view(&frame, cursor, id);
            self.write(&line).await?;
        }
        Ok(frames)
    }

    async fn write(&mut self, line: &[u8]) -> Result<(), ConnError> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        self.writer.send_line(line).await
    }

    /// Writes what is queued, and no more.
    async fn finish(&mut self) -> Result<(), ConnError> {
        self.writer.flush().await?;
        while let Ok(line) = self.lines.try_recv() {
            self.write(&line).await?;
        }
        Ok(())
    }
}

async fn closed(closing: &mut watch::Receiver<bool>) {
    drop(closing.wait_for(|closing| *closing).await);
}

async fn next_frame(frames: &mut Option<watch::Receiver<Option<Arc<Frame>>>>) -> Result<(), watch::error::RecvError> {
    match frames {
        Some(frames) => frames.changed().await,
        None => std::future::pending().await,
    }
}
