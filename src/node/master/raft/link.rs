//! One connection to another master: requests by id, answers in any order, reconnects with backoff, gives up on silence.

use std::collections::HashMap;
use std::time::Duration;

use rand::Rng;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::proto::control::{ENVELOPE_V, Envelope};
use crate::proto::error::Failure;
use crate::proto::id::{ClusterId, MasterId};
use crate::proto::net::conn::Conn;

/// Requests waiting for the connection's task. Raft has a handful in flight to each peer; more means that it hangs.
const QUEUE: usize = 64;
/// Requests sent and not yet answered, abandoned ones included; beyond, new ones fail at once.
const IN_FLIGHT_MAX: usize = 256;
/// How long a connect may take: longer than a SYN and its first retry on one network, shorter than an election.
const CONNECT_WITHIN: Duration = Duration::from_millis(400);
/// First wait after a failed connect: masters that start together find each other at once.
const BACKOFF_FIRST: Duration = Duration::from_millis(10);
/// Longest wait: well below an election's timeout, so that a master that comes back is heard before it campaigns.
const BACKOFF_MAX: Duration = Duration::from_millis(300);
/// A connection with unanswered requests and no byte for so long is cut: TCP itself would try for minutes.
const SILENCE_MAX: Duration = Duration::from_millis(1500);
/// How often silence and abandoned requests are looked for.
const SWEEP: Duration = Duration::from_millis(250);

/// Why a request to another master came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No connection, or it ended first. Whether the request arrived is unknown.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// No answer in time. Whether the request arrived is unknown.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The other master said no.
    #[error(transparent)]
    Refused(#[from] Failure),
    /// It answered something else.
    #[error("an answer that makes no sense: {0}")]
    Garbled(String),
}

/// What travels in `data`: the addressee is named, so that a request that ends up at another process is noticed there.
#[derive(Debug, Serialize, serde::Deserialize)]
pub struct Addressed<T> {
    /// For whom.
    pub to: MasterId,
    /// What.
    pub rpc: T,
}

struct Call {
    kind: &'static str,
    data: Box<RawValue>,
    reply: oneshot::Sender<Result<Box<RawValue>, CallError>>,
}

/// A handle on the connection to one other master. Clones share it; it ends with the last of them.
#[derive(Clone, Debug)]
pub struct Link {
    to: MasterId,
    addr: String,
    calls: mpsc::Sender<Call>,
}

impl Link {
    /// Starts the connection's task. It connects when there is something to send.
    pub fn spawn(me: MasterId, to: MasterId, addr: String, cluster: watch::Receiver<Option<ClusterId>>) -> Self {
        let (calls, rx) = mpsc::channel(QUEUE);
        let task = Task { me, to: to.clone(), addr: addr.clone(), cluster, calls: rx, next_id: 0 };
        tokio::spawn(task.run());
        Self { to, addr, calls }
    }

    /// Whom it leads to.
    pub fn to(&self) -> &MasterId {
        &self.to
    }

    /// host:port.
    pub fn addr(&self) -> &str {
        &self.addr
    }

    /// Sends a request and waits for its answer.
    pub async fn call<Q: Serialize, A: DeserializeOwned>(
        &self,
        kind: &'static str,
        rpc: Q,
        within: Duration,
    ) -> Result<A, CallError> {
        let data = serde_json::value::to_raw_value(&Addressed { to: self.to.clone(), rpc })
            .map_err(|e| CallError::Garbled(e.to_string()))?;
        let (reply, answer) = oneshot::channel();
        self.calls
            .try_send(Call { kind, data, reply })
            .map_err(|_| CallError::Unreachable("too many requests wait".into()))?;
        let raw = tokio::time::timeout(within, answer)
            .await
            .map_err(|_| CallError::Timeout(within))?
            .map_err(|_| CallError::Unreachable("the connection ended".into()))??;
        serde_json::from_str(raw.get()).map_err(|e| CallError::Garbled(e.to_string()))
    }
}

struct Task {
    me: MasterId,
    to: MasterId,
    addr: String,
    cluster: watch::Receiver<Option<ClusterId>>,
    calls: mpsc::Receiver<Call>,
    next_id: u64,
}

impl Task {
    async fn run(mut self) {
        let mut backoff = BACKOFF_FIRST;
        let mut not_before = Instant::now();
        let mut why = String::new();
        while let Some(call) = self.calls.recv().await {
            if call.reply.is_closed() {
                continue;
            }
            if Instant::now() < not_before {
                drop(call.reply.send(Err(CallError::Unreachable(why.clone()))));
                continue;
            }
            match Conn::connect(&self.addr, CONNECT_WITHIN).await {
                Ok(conn) => {
                    let since = Instant::now();
                    why = self.converse(conn, call).await;
                    tracing::debug!(peer = %self.to, why, "connection to a master ended");
                    // A peer that accepts and hangs up at once is no better than one that refuses.
                    if since.elapsed() > BACKOFF_MAX {
                        backoff = BACKOFF_FIRST;
                    }
                }
                Err(e) => {
                    why = e.to_string();
                    drop(call.reply.send(Err(CallError::Unreachable(why.clone()))));
                }
            }
            // Jitter, so that masters do not keep meeting each other's backoff.
            not_before = Instant::now() + backoff.mul_f64(rand::rng().random_range(0.5..1.0));
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// Serves one connection until it ends; says why it did. Requests without an answer fail as their handles drop.
    async fn converse(&mut self, conn: Conn, first: Call) -> String {
        let (mut reader, mut writer) = conn.into_split();
        let mut pending: HashMap<u64, oneshot::Sender<Result<Box<RawValue>, CallError>>> = HashMap::new();
        // Since when the peer owes an answer and has said nothing at all.
        let mut waiting_since: Option<Instant> = None;
        let mut sweep = tokio::time::interval(SWEEP);
        let mut next = Some(first);
        loop {
            if let Some(call) = next.take() {
                if pending.len() >= IN_FLIGHT_MAX {
                    drop(call.reply.send(Err(CallError::Unreachable("too many requests in flight".into()))));
                } else {
                    self.next_id += 1;
                    if let Err(e) = writer.queue_line(&self.line(self.next_id, &call)) {
                        return e.to_string();
                    }
                    pending.insert(self.next_id, call.reply);
                    waiting_since.get_or_insert_with(Instant::now);
                }
            }
            tokio::select! {
                line = reader.next_line() => match line {
                    Ok(Some(line)) => {
                        waiting_since = None;
                        if let Err(e) = answer(&line, &mut pending) {
                            return e;
                        }
                        if !pending.is_empty() {
                            waiting_since = Some(Instant::now());
                        }
                    }
                    Ok(None) => return "closed by the peer".into(),
                    Err(e) => return e.to_string(),
                },
                call = self.calls.recv() => match call {
                    Some(call) => next = Some(call),
                    None => return "no longer needed".into(),
                },
                sent = writer.flush(), if writer.backlog() > 0 => if let Err(e) = sent {
                    return e.to_string();
                },
                _ = sweep.tick() => {
                    pending.retain(|_, reply| !reply.is_closed());
                    if waiting_since.is_some_and(|t| t.elapsed() > SILENCE_MAX) {
                        return "silent".into();
                    }
                }
            }
        }
    }

    fn line(&self, id: u64, call: &Call) -> Vec<u8> {
        envelope(&self.me, *self.cluster.borrow(), call.kind, id, &call.data)
    }
}

/// A line of this protocol whose payload is serialised already, without its newline.
pub fn envelope(me: &MasterId, cluster_id: Option<ClusterId>, kind: &str, id: u64, data: &RawValue) -> Vec<u8> {
    let envelope = Envelope { v: ENVELOPE_V, machine: me.to_string(), cluster_id, kind: kind.to_owned(), id, data };
    // Serialising our own types into memory cannot fail: no map has a non-string key.
    serde_json::to_vec(&envelope).unwrap_or_default()
}

fn answer(
    line: &[u8],
    pending: &mut HashMap<u64, oneshot::Sender<Result<Box<RawValue>, CallError>>>,
) -> Result<(), String> {
    let e: Envelope<&RawValue> = serde_json::from_slice(line).map_err(|e| format!("a broken line: {e}"))?;
    // An answer nobody waits for any more is dropped, and so is what was not asked for (REFRESH_MASTER).
    if let Some(reply) = pending.remove(&e.id) {
        let result = if e.kind == "ERROR" {
            Err(match serde_json::from_str::<Failure>(e.data.get()) {
                Ok(failure) => CallError::Refused(failure),
                Err(e) => CallError::Garbled(e.to_string()),
            })
        } else {
            Ok(e.data.to_owned())
        };
        drop(reply.send(result));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    const LONG: Duration = Duration::from_secs(30);

    fn link(addr: String) -> Link {
        let (m1, m2) = (MasterId::new("m1").unwrap(), MasterId::new("m2").unwrap());
        Link::spawn(m1, m2, addr, watch::channel(None).1)
    }

    async fn accept(listener: &TcpListener) -> Conn {
        Conn::new(listener.accept().await.unwrap().0).unwrap()
    }

    async fn request(conn: &mut Conn) -> (u64, u64) {
        let line = conn.reader.next_line().await.unwrap().unwrap();
        let e: Envelope<Addressed<u64>> = serde_json::from_slice(&line).unwrap();
        assert_eq!((e.machine.as_str(), e.kind.as_str(), e.data.to.as_str()), ("m1", "ASK", "m2"));
        (e.id, e.data.rpc)
    }

    async fn reply(conn: &mut Conn, id: u64, value: u64) {
        let data = RawValue::from_string(value.to_string()).unwrap();
        let line = envelope(&MasterId::new("m2").unwrap(), None, "ASK", id, &data);
        conn.writer.send_line(&line).await.unwrap();
    }

    #[tokio::test]
    async fn answers_find_their_requests_in_any_order() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let link = link(listener.local_addr().unwrap().to_string());
        let server = tokio::spawn(async move {
            let mut conn = accept(&listener).await;
            let (first, second) = (request(&mut conn).await, request(&mut conn).await);
            reply(&mut conn, 999, 0).await;
            reply(&mut conn, second.0, second.1 * 10).await;
            reply(&mut conn, first.0, first.1 * 10).await;
            conn
        });
        let (a, b) = tokio::join!(link.call::<u64, u64>("ASK", 1, LONG), link.call::<u64, u64>("ASK", 2, LONG));
        assert_eq!((a, b), (Ok(10), Ok(20)));
        drop(server.await.unwrap());
    }

    #[tokio::test]
    async fn a_silent_peer_is_left_and_a_new_connection_made() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let link = link(listener.local_addr().unwrap().to_string());
        let server = tokio::spawn(async move {
            let mut silent = accept(&listener).await;
            request(&mut silent).await;
            let mut next = accept(&listener).await;
            loop {
                let (id, value) = request(&mut next).await;
                reply(&mut next, id, value).await;
            }
        });
        assert_eq!(link.call::<u64, u64>("ASK", 1, SWEEP).await, Err(CallError::Timeout(SWEEP)));
        let end = Instant::now() + LONG;
        while link.call::<u64, u64>("ASK", 2, SWEEP).await != Ok(2) {
            assert!(Instant::now() < end, "still talking to the silent one");
        }
        server.abort();
    }

    #[tokio::test]
    async fn who_is_not_there_fails_fast_and_is_found_when_it_comes() {
        let addr = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
        let link = link(addr.clone());
        assert!(matches!(link.call::<u64, u64>("ASK", 1, LONG).await, Err(CallError::Unreachable(_))));
        let listener = TcpListener::bind(&addr).await.unwrap();
        let server = tokio::spawn(async move {
            let mut conn = accept(&listener).await;
            loop {
                let (id, value) = request(&mut conn).await;
                reply(&mut conn, id, value).await;
            }
        });
        let end = Instant::now() + LONG;
        while link.call::<u64, u64>("ASK", 3, LONG).await != Ok(3) {
            assert!(Instant::now() < end, "never found");
            tokio::time::sleep(BACKOFF_FIRST).await;
        }
        server.abort();
    }
}
