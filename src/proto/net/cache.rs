//! A small Redis Cluster client for the command line: finds the node of a key, follows MOVED, and waits out failovers.
//!
//! What a server refused for certain (MOVED, CLUSTERDOWN, TRYAGAIN) and what never reached it is tried again until the
//! deadline. A write whose reply was lost, or was INDETERMINATE, is never sent twice: it ends as [`CacheError::Unknown`].

use std::collections::HashMap;
use std::time::Duration;

use rand::seq::{IndexedRandom, SliceRandom};
use tokio::time::{Instant, sleep, timeout_at};

use super::client::{Repeat, Tried, jitter};
use super::resp_conn::{RespConn, RespError};
use super::{is_addr, plain};
use crate::proto::slot::{SLOTS, Slot};
use crate::proto::value::Value;

/// A node that takes longer to accept is taken for gone until the next try.
pub const CONNECT_WAIT: Duration = Duration::from_millis(500);
/// A node that takes longer to answer a read is asked again, or another in its place: it may be paused.
pub const READ_WAIT: Duration = Duration::from_secs(2);
/// A write's reply is waited for longer: the node itself gives up (CLUSTERDOWN, INDETERMINATE) within 5 s.
pub const WRITE_WAIT: Duration = Duration::from_secs(6);
/// All tries together: a pause or partition is over within 3.5 s, with a rebuild of connections after it.
pub const TOTAL_WAIT: Duration = Duration::from_secs(10);
/// First and longest pause between tries that were refused.
const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_millis(500);
/// Redirects followed at once; beyond, nodes disagree and a pause lets them settle.
const HOPS_MAX: u32 = 3;
/// The slot map is asked for again at most so often on account of MOVED.
const REFRESH_EVERY: Duration = Duration::from_millis(250);
/// Nodes kept from one slot map: twice the largest cluster that is planned for.
const NODES_MAX: usize = 2048;

/// How long to try.
#[derive(Debug, Clone, Copy)]
pub struct Waits {
    /// For one connection.
    pub connect: Duration,
    /// For the reply to a command that may be repeated.
    pub read: Duration,
    /// For the reply to one that may not.
    pub write: Duration,
    /// For all tries together: none starts after it. A write under way keeps its own time, since to cut it short would turn
    /// its outcome into an unknown one.
    pub total: Duration,
    /// Also writes that were refused for certain are tried again. That is safe; without it the refusal is the answer.
    pub retry_writes: bool,
}

impl Default for Waits {
    fn default() -> Self {
        Self { connect: CONNECT_WAIT, read: READ_WAIT, write: WRITE_WAIT, total: TOTAL_WAIT, retry_writes: true }
    }
}

/// Why a command has no reply.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// No node could be connected to. Nothing happened.
    #[error("no cache node can be reached: {0}")]
    Unreachable(Tried),
    /// The node said no, the last time it was asked: its text, code first. Nothing happened.
    #[error("{0}")]
    Refused(String),
    /// It was handed over and its reply lost, or the node itself can't tell: it may or may not have happened.
    #[error("the write may or may not have been applied: {addr}: {why}")]
    Unknown {
        /// Who had it.
        addr: String,
        /// How its reply was lost.
        why: String,
    },
    /// A reply of a kind that the command does not have.
    #[error("an unexpected reply from {addr}")]
    Reply {
        /// Who sent it.
        addr: String,
    },
}

impl CacheError {
    /// The first word of a refusal: `OOM`, `CLUSTERDOWN`, `ERR`.
    pub fn code(&self) -> Option<&str> {
        match self {
            CacheError::Refused(text) => text.split(' ').next(),
            _ => None,
        }
    }
}

/// A primary as CLUSTER SLOTS names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Primary {
    /// host:port.
    pub addr: String,
    /// Its 40 hex digits; empty while known from a MOVED only.
    pub id: String,
}

/// Who serves which slot.
#[derive(Debug, Clone)]
pub struct SlotMap {
    primaries: Vec<Primary>,
    owners: Vec<Option<u16>>,
}

impl SlotMap {
    /// One node has all slots (a server that is no cluster).
    fn single(addr: &str) -> Self {
        let primaries = vec![Primary { addr: addr.to_owned(), id: String::new() }];
        Self { primaries, owners: vec![Some(0); SLOTS] }
    }

    /// Reads a CLUSTER SLOTS reply; `asked` is the node that sent it, whose host stands for an empty one.
    pub fn parse(reply: &Value, asked: &str) -> Option<Self> {
        let mut map = Self { primaries: Vec::new(), owners: vec![None; SLOTS] };
        for range in reply.items()? {
            let [first, last, primary, ..] = range.items()? else { return None };
            let (first, last) = (usize::try_from(first.int()?).ok()?, usize::try_from(last.int()?).ok()?);
            let [host, port, rest @ ..] = primary.items()? else { return None };
            let host = std::str::from_utf8(host.bytes().unwrap_or_default()).ok()?;
            let addr = absolute(&format!("{host}:{}", port.int()?), asked)?;
            let id = rest.first().and_then(Value::bytes).and_then(|b| std::str::from_utf8(b).ok());
            let id = id.filter(|id| id.bytes().all(|b| b.is_ascii_alphanumeric())).unwrap_or_default();
            let owner = map.intern(&addr, id)?;
            map.owners.get_mut(first..=last)?.fill(Some(owner));
        }
        Some(map)
    }

    fn intern(&mut self, addr: &str, id: &str) -> Option<u16> {
        if let Some(i) = self.primaries.iter().position(|p| p.addr == addr) {
            return u16::try_from(i).ok();
        }
        if self.primaries.len() == NODES_MAX {
            return None;
        }
        self.primaries.push(Primary { addr: addr.to_owned(), id: id.to_owned() });
        u16::try_from(self.primaries.len() - 1).ok()
    }

    fn moved(&mut self, slot: Slot, addr: &str) {
        if let (Some(owner), Some(entry)) = (self.intern(addr, ""), self.owners.get_mut(slot.ix())) {
            *entry = Some(owner);
        }
    }

    /// Who serves a slot, if anybody.
    pub fn primary(&self, slot: Slot) -> Option<&Primary> {
        let owner = (*self.owners.get(slot.ix())?)?;
        self.primaries.get(usize::from(owner))
    }

    /// All that serve slots, or were named as such.
    pub fn primaries(&self) -> &[Primary] {
        &self.primaries
    }
}

/// host:port with the asked node's host where it is empty (Redis: "the host you reached me by").
fn absolute(addr: &str, asked: &str) -> Option<String> {
    let addr = match addr.rsplit_once(':')? {
        ("", port) => format!("{}:{port}", asked.rsplit_once(':')?.0),
        _ => addr.to_owned(),
    };
    is_addr(&addr).then_some(addr)
}

/// Where a command goes.
#[derive(Debug, Clone, Copy)]
pub enum Route<'a> {
    /// To the primary of this key.
    Key(&'a [u8]),
    /// To any node.
    Any,
    /// To this host:port and no other.
    Node(&'a str),
}

/// How one try ended.
enum Outcome {
    Reply(Value),
    /// It did not run.
    NotRun(String),
    /// It was handed over and its reply lost.
    Lost(String),
}

/// A client of the cache nodes. One command at a time.
pub struct CacheClient {
    seeds: Vec<String>,
    map: Option<SlotMap>,
    /// The map is not known to be wrong.
    fresh: bool,
    asked_at: Option<Instant>,
    conns: HashMap<String, RespConn>,
    waits: Waits,
}

impl CacheClient {
    /// A client that finds its nodes through these host:port addresses; it connects with the first command.
    pub fn new(seeds: impl IntoIterator<Item = String>, waits: Waits) -> Self {
        Self {
            seeds: seeds.into_iter().collect(),
            map: None,
            fresh: false,
            asked_at: None,
            conns: HashMap::new(),
            waits,
        }
    }

    /// GET: the value; `None` if the key is missing.
    pub async fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, CacheError> {
        match self.call(&[b"GET", key], Route::Key(key), Repeat::Safe).await? {
            (Value::Null, _) => Ok(None),
            (Value::Bulk(b), _) => Ok(Some(b)),
            (_, addr) => Err(CacheError::Reply { addr }),
        }
    }

    /// SET, with a TTL (rounded up to a millisecond) or none.
    pub async fn set(&mut self, key: &[u8], value: &[u8], ttl: Option<Duration>) -> Result<(), CacheError> {
        let ms = ttl.map(|d| d.as_nanos().div_ceil(1_000_000).max(1).to_string());
        let mut args: Vec<&[u8]> = vec![b"SET", key, value];
        if let Some(ms) = &ms {
            args.extend([&b"PX"[..], ms.as_bytes()]);
        }
        match self.call(&args, Route::Key(key), Repeat::Unsafe).await? {
            (Value::Simple(_), _) => Ok(()),
            (_, addr) => Err(CacheError::Reply { addr }),
        }
    }

    /// DEL of one key: whether it was there.
    pub async fn del(&mut self, key: &[u8]) -> Result<bool, CacheError> {
        Ok(self.int(&[b"DEL", key], key, Repeat::Unsafe).await? > 0)
    }

    /// TTL in seconds as Redis rounds it; -1 = the key has none, -2 = there is no such key.
    pub async fn ttl(&mut self, key: &[u8]) -> Result<i64, CacheError> {
        self.int(&[b"TTL", key], key, Repeat::Safe).await
    }

    /// TTL in milliseconds; -1 and -2 as [`CacheClient::ttl`].
    pub async fn pttl(&mut self, key: &[u8]) -> Result<i64, CacheError> {
        self.int(&[b"PTTL", key], key, Repeat::Safe).await
    }

    /// INCRBY: the new value.
    pub async fn incr(&mut self, key: &[u8], by: i64) -> Result<i64, CacheError> {
        self.int(&[b"INCRBY", key, by.to_string().as_bytes()], key, Repeat::Unsafe).await
    }

    async fn int(&mut self, args: &[&[u8]], key: &[u8], repeat: Repeat) -> Result<i64, CacheError> {
        match self.call(args, Route::Key(key), repeat).await? {
            (Value::Int(n), _) => Ok(n),
            (_, addr) => Err(CacheError::Reply { addr }),
        }
    }

    /// A key's slot, and its primary as CLUSTER SLOTS has it now.
    pub async fn locate(&mut self, key: &[u8]) -> Result<(Slot, Option<Primary>), CacheError> {
        let slot = Slot::of_key(key);
        Ok((slot, self.slot_map().await?.primary(slot).cloned()))
    }

    /// The slot map, asked for anew.
    pub async fn slot_map(&mut self) -> Result<&SlotMap, CacheError> {
        let end = Instant::now() + self.waits.total;
        self.fresh = false;
        loop {
            let tried = self.refresh(end).await;
            if self.fresh {
                break;
            }
            let pause = jitter(BACKOFF_MAX);
            if Instant::now() + pause >= end || tried.0.is_empty() {
                return Err(CacheError::Unreachable(tried));
            }
            sleep(pause).await;
        }
        self.map.as_ref().ok_or_else(|| CacheError::Unreachable(Tried::default()))
    }

    /// Runs a command: its reply, never an error reply, and who sent it.
    pub async fn call(
        &mut self,
        args: &[&[u8]],
        route: Route<'_>,
        repeat: Repeat,
    ) -> Result<(Value, String), CacheError> {
        let end = Instant::now() + self.waits.total;
        let patient = repeat == Repeat::Safe || self.waits.retry_writes;
        let mut backoff = BACKOFF_MIN;
        let mut hops = 0;
        loop {
            let tried = self.refresh_if_due(route, end).await;
            let (why, addr) = match self.target(route) {
                Target::Node(addr) => match self.attempt(&addr, args, repeat, end).await {
                    Outcome::Reply(Value::Error(text)) => match self.judge(&text, &addr) {
                        Verdict::Moved if hops < HOPS_MAX => {
                            hops += 1;
                            continue;
                        }
                        Verdict::Moved | Verdict::Later => (CacheError::Refused(plain(&text)), Some(addr)),
                        Verdict::Unknown if repeat == Repeat::Unsafe => {
                            return Err(CacheError::Unknown { addr, why: plain(&text) });
                        }
                        Verdict::Unknown => (CacheError::Refused(plain(&text)), Some(addr)),
                        Verdict::No => return Err(CacheError::Refused(plain(&text))),
                    },
                    Outcome::Reply(value) => return Ok((value, addr)),
                    Outcome::Lost(why) if repeat == Repeat::Unsafe => return Err(CacheError::Unknown { addr, why }),
                    Outcome::Lost(why) | Outcome::NotRun(why) => {
                        self.fresh = false;
                        (CacheError::Unreachable(Tried(vec![(addr.clone(), why)])), Some(addr))
                    }
                },
                Target::NotServed(slot) => {
                    self.fresh = false;
                    (CacheError::Refused(format!("CLUSTERDOWN Hash slot {slot} not served")), None)
                }
                Target::Nobody if tried.0.is_empty() => return Err(CacheError::Unreachable(tried)),
                Target::Nobody => (CacheError::Unreachable(tried), None),
            };
            // A node that refuses a connection, or no node at all, is waited for as well: it may be on its way back.
            let pause = jitter(backoff);
            if !patient || Instant::now() + pause >= end {
                return Err(why);
            }
            sleep(pause).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
            hops = 0;
            if let Some(addr) = addr {
                tracing::debug!(%addr, %why, "trying again");
            }
        }
    }

    /// One command, one node, one try.
    async fn attempt(&mut self, addr: &str, args: &[&[u8]], repeat: Repeat, end: Instant) -> Outcome {
        let mut conn = match self.connection(addr, end).await {
            Ok(conn) => conn,
            Err(e) => return Outcome::NotRun(e.to_string()),
        };
        let until = match repeat {
            Repeat::Safe => end.min(Instant::now() + self.waits.read),
            Repeat::Unsafe => Instant::now() + self.waits.write,
        };
        conn.queue(args);
        match timeout_at(until, conn.flush()).await {
            Ok(Ok(())) => {}
            // The command was not handed over whole, and half a command is never run.
            Ok(Err(e)) => return Outcome::NotRun(e.to_string()),
            Err(_) => return Outcome::NotRun("does not read".to_owned()),
        }
        match timeout_at(until, conn.recv()).await {
            Ok(Ok(value)) => {
                self.conns.insert(addr.to_owned(), conn);
                Outcome::Reply(value)
            }
            Ok(Err(e)) => Outcome::Lost(e.to_string()),
            Err(_) => Outcome::Lost("no reply in time".to_owned()),
        }
    }

    /// A kept connection if it is still good, else a new one. It is taken out, so that one given up in mid-reply is closed.
    async fn connection(&mut self, addr: &str, end: Instant) -> Result<RespConn, RespError> {
        if let Some(mut conn) = self.conns.remove(addr)
            && !conn.is_stale()
        {
            return Ok(conn);
        }
        RespConn::connect(addr, self.waits.connect.min(end - Instant::now())).await
    }

    fn target(&self, route: Route<'_>) -> Target {
        match (route, &self.map) {
            (Route::Node(addr), _) => Target::Node(addr.to_owned()),
            (_, None) => Target::Nobody,
            (Route::Key(key), Some(map)) => {
                let slot = Slot::of_key(key);
                map.primary(slot).map_or(Target::NotServed(slot), |p| Target::Node(p.addr.clone()))
            }
            (Route::Any, Some(map)) => {
                map.primaries.choose(&mut rand::rng()).map_or(Target::Nobody, |p| Target::Node(p.addr.clone()))
            }
        }
    }

    /// What an error reply means for the command.
    fn judge(&mut self, text: &str, from: &str) -> Verdict {
        let mut words = text.split(' ');
        match words.next() {
            Some("MOVED") => {
                self.fresh = false;
                let slot = words.next().and_then(|s| s.parse().ok()).filter(|&s| usize::from(s) < SLOTS).map(Slot);
                let addr = words.next().and_then(|a| absolute(a, from));
                match (slot, addr, &mut self.map) {
                    (Some(slot), Some(addr), Some(map)) => {
                        map.moved(slot, &addr);
                        Verdict::Moved
                    }
                    _ => Verdict::Later,
                }
            }
            Some("CLUSTERDOWN" | "TRYAGAIN" | "LOADING") => {
                self.fresh = false;
                Verdict::Later
            }
            Some("INDETERMINATE") => Verdict::Unknown,
            _ => Verdict::No,
        }
    }

    /// Asks for the slot map if there is none, or it is known to be wrong and was not asked for just now.
    async fn refresh_if_due(&mut self, route: Route<'_>, end: Instant) -> Tried {
        let recently = self.asked_at.is_some_and(|at| at.elapsed() < REFRESH_EVERY);
        if matches!(route, Route::Node(_)) || self.fresh || (self.map.is_some() && recently) {
            return Tried::default();
        }
        self.refresh(end).await
    }

    /// Asks the nodes, in any order, until one answers. Without an answer the old map stays.
    async fn refresh(&mut self, end: Instant) -> Tried {
        self.asked_at = Some(Instant::now());
        let mut addrs = self.seeds.clone();
        let known = self.map.iter().flat_map(|m| &m.primaries).map(|p| &p.addr);
        addrs.extend(known.filter(|a| !self.seeds.contains(a)).cloned());
        addrs.shuffle(&mut rand::rng());
        let mut tried = Tried::default();
        for addr in addrs {
            if Instant::now() >= end {
                break;
            }
            match self.attempt(&addr, &[b"CLUSTER", b"SLOTS"], Repeat::Safe, end).await {
                Outcome::Reply(Value::Error(text)) if text.contains("cluster support disabled") => {
                    self.map = Some(SlotMap::single(&addr));
                    self.fresh = true;
                    break;
                }
                Outcome::Reply(Value::Error(text)) => tried.0.push((addr, plain(&text))),
                // An empty table comes from a node that has not learned of the cluster yet.
                Outcome::Reply(value) => match SlotMap::parse(&value, &addr).filter(|m| !m.primaries.is_empty()) {
                    Some(map) => {
                        self.conns.retain(|a, _| map.primaries.iter().any(|p| &p.addr == a));
                        self.map = Some(map);
                        self.fresh = true;
                        break;
                    }
                    None => tried.0.push((addr, "knows no slots".to_owned())),
                },
                Outcome::NotRun(why) | Outcome::Lost(why) => tried.0.push((addr, why)),
            }
        }
        tried
    }
}

enum Target {
    Node(String),
    NotServed(Slot),
    /// No slot map.
    Nobody,
}

enum Verdict {
    /// Another node serves it; the map knows.
    Moved,
    /// It did not run; it may, later.
    Later,
    /// It may have run.
    Unknown,
    /// It did not run and never will.
    No,
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::proto::net::fake::{FakeNode, NodeSay, refused_addr};

    fn bulk(s: &str) -> Value {
        Value::Bulk(s.as_bytes().to_vec())
    }

    /// CLUSTER SLOTS of (first, last, host:port).
    fn slots(ranges: &[(u16, u16, &str)]) -> NodeSay {
        let range = |&(first, last, addr): &(u16, u16, &str)| {
            let (host, port) = addr.rsplit_once(':').unwrap();
            let node =
                vec![bulk(host), Value::Int(port.parse().unwrap()), bulk(&"ab".repeat(20)), Value::Array(vec![])];
            Value::Array(vec![Value::Int(first.into()), Value::Int(last.into()), Value::Array(node)])
        };
        NodeSay::Reply(Value::Array(ranges.iter().map(range).collect()))
    }

    fn error(text: &str) -> NodeSay {
        NodeSay::Reply(Value::Error(text.to_owned()))
    }

    fn patient(seeds: &[&str]) -> CacheClient {
        let long = Duration::from_secs(30);
        let waits = Waits { connect: long, read: long, write: long, total: long, retry_writes: true };
        CacheClient::new(seeds.iter().map(|a| (*a).to_owned()), waits)
    }

    fn is(args: &[Vec<u8>], name: &str) -> bool {
        args[0] == name.as_bytes()
    }

    #[tokio::test]
    async fn keys_go_to_their_nodes_and_moved_is_followed() {
        let owner = FakeNode::start(|args| match &args[0][..] {
            b"GET" => NodeSay::Reply(bulk("v")),
            b"SET" => NodeSay::Reply(Value::Simple("OK".into())),
            _ => error("ERR not now"),
        })
        .await;
        // Its table says that it has everything; it has nothing.
        let stale = FakeNode::start(|_| NodeSay::Nothing).await;
        let port: u16 = stale.addr.rsplit_once(':').unwrap().1.parse().unwrap();
        let to = owner.addr.clone();
        stale.rule(move |args| match is(args, "CLUSTER") {
            // An empty host is the one that was asked.
            true => slots(&[(0, 16383, &format!(":{port}"))]),
            false => error(&format!("MOVED {} {to}", Slot::of_key(&args[1]))),
        });
        let mut c = patient(&[&stale.addr]);
        assert_eq!(c.get(b"k").await.unwrap().unwrap(), b"v");
        c.set(b"k", b"v", Some(Duration::from_millis(5))).await.unwrap();
        assert_eq!(owner.heard(), ["GET k", "SET k v PX 5"]);
    }

    #[tokio::test]
    async fn what_was_refused_for_certain_is_tried_again() {
        for refusal in ["CLUSTERDOWN Hash slot not served", "TRYAGAIN soon"] {
            let asked = Arc::new(AtomicUsize::new(0));
            let count = asked.clone();
            let own = Arc::new(std::sync::Mutex::new(String::new()));
            let addr = own.clone();
            let node = FakeNode::start(move |args| {
                if is(args, "CLUSTER") {
                    return slots(&[(0, 16383, &addr.lock().unwrap())]);
                }
                match count.fetch_add(1, Ordering::SeqCst) {
                    0 | 1 => error(refusal),
                    _ => NodeSay::Reply(Value::Int(3)),
                }
            })
            .await;
            *own.lock().unwrap() = node.addr.clone();
            let mut c = patient(&[&refused_addr().await, &node.addr]);
            assert_eq!(c.incr(b"k", 3).await.unwrap(), 3);
            assert_eq!(asked.load(Ordering::SeqCst), 3);

            asked.store(0, Ordering::SeqCst);
            c.waits.retry_writes = false;
            assert_eq!(c.incr(b"k", 3).await.unwrap_err().code(), refusal.split(' ').next());
            assert_eq!(c.ttl(b"k").await.unwrap(), 3, "reads are tried again all the same");
        }
    }

    #[tokio::test]
    async fn a_write_whose_reply_is_lost_is_never_sent_twice() {
        for lose in
            [NodeSay::Close, NodeSay::Nothing, error("INDETERMINATE the write may or may not have been applied")]
        {
            let own = Arc::new(std::sync::Mutex::new(String::new()));
            let (addr, say) = (own.clone(), lose.clone());
            let mut reads = 0;
            let node = FakeNode::start(move |args| match &args[0][..] {
                b"CLUSTER" => slots(&[(0, 16383, &addr.lock().unwrap())]),
                b"GET" => {
                    reads += 1;
                    if reads == 1 { say.clone() } else { NodeSay::Reply(Value::Null) }
                }
                _ => say.clone(),
            })
            .await;
            *own.lock().unwrap() = node.addr.clone();
            let mut c = patient(&[&node.addr]);
            (c.waits.read, c.waits.write) = (Duration::from_secs(2), Duration::from_millis(200));
            let e = c.set(b"k", b"v", None).await.unwrap_err();
            assert!(matches!(e, CacheError::Unknown { .. }), "{lose:?}: {e}");
            // A read is asked again.
            assert_eq!(c.get(b"k").await.unwrap(), None, "{lose:?}");
            assert_eq!(node.heard().iter().filter(|c| c.starts_with("SET")).count(), 1, "{lose:?}");
        }
    }

    #[tokio::test]
    async fn a_kept_connection_that_was_closed_is_not_written_to() {
        let own = Arc::new(std::sync::Mutex::new(String::new()));
        let addr = own.clone();
        let node = FakeNode::start(move |args| match is(args, "CLUSTER") {
            true => slots(&[(0, 16383, &addr.lock().unwrap())]),
            false => NodeSay::Last(Value::Int(1)),
        })
        .await;
        *own.lock().unwrap() = node.addr.clone();
        let mut c = patient(&[&node.addr]);
        for _ in 0..3 {
            assert!(c.del(b"k").await.unwrap());
            // Until the end of the connection has arrived here.
            let conn = c.conns.get_mut(&node.addr).unwrap();
            tokio::time::timeout(Duration::from_secs(30), async {
                while !conn.is_stale() {
                    sleep(Duration::from_millis(5)).await;
                }
            })
            .await
            .unwrap();
        }
    }

    #[tokio::test]
    async fn errors_are_told_apart() {
        let node = FakeNode::start(|args| match &args[0][..] {
            b"CLUSTER" => error("ERR This instance has cluster support disabled"),
            b"GET" => error("WRONGTYPE \u{1b}[2J"),
            _ => NodeSay::Reply(Value::Array(vec![])),
        })
        .await;
        let mut c = patient(&[&node.addr]);
        let e = c.get(b"k").await.unwrap_err();
        assert_eq!((e.code(), e.to_string().as_str()), (Some("WRONGTYPE"), "WRONGTYPE \\u{1b}[2J"));
        assert!(matches!(c.ttl(b"k").await.unwrap_err(), CacheError::Reply { .. }));

        let mut c = patient(&[&refused_addr().await]);
        c.waits.total = Duration::from_millis(300);
        assert!(matches!(c.get(b"k").await.unwrap_err(), CacheError::Unreachable(t) if t.0.len() == 1));
        assert!(matches!(patient(&[]).get(b"k").await.unwrap_err(), CacheError::Unreachable(_)));
    }

    #[tokio::test]
    async fn where_a_key_lives_and_slots_that_nobody_serves() {
        let node = FakeNode::start(|_| slots(&[(0, 8191, "10.0.0.1:7201"), (12182, 12182, "10.0.0.2:7202")])).await;
        let mut c = patient(&[&node.addr]);
        let (slot, primary) = c.locate(b"foo").await.unwrap();
        assert_eq!((slot, primary.unwrap().addr.as_str()), (Slot(12182), "10.0.0.2:7202"));
        let free =
            (0..).map(|i| format!("k{i}")).find(|k| (8192..12000).contains(&Slot::of_key(k.as_bytes()).0)).unwrap();
        assert_eq!(c.locate(free.as_bytes()).await.unwrap().1, None);
        c.waits.total = Duration::from_millis(300);
        assert_eq!(c.get(free.as_bytes()).await.unwrap_err().code(), Some("CLUSTERDOWN"));
    }

    /// Callers spawn them.
    #[test]
    fn futures_are_send() {
        fn is_send(_: impl Send) {}
        let mut c = patient(&[]);
        is_send(c.get(b"k"));
        is_send(c.slot_map());
        let mut masters = crate::proto::net::client::MasterClient::new("t", [], Default::default());
        is_send(masters.request(&crate::proto::control::Message::Ok(Default::default()), Repeat::Safe));
    }

    #[test]
    fn hostile_slot_tables_are_refused() {
        let NodeSay::Reply(good) = slots(&[(0, 16383, "h:1")]) else { panic!() };
        assert_eq!(SlotMap::parse(&good, "a:1").unwrap().primary(Slot(16383)).unwrap().addr, "h:1");
        for (first, last, host, port) in
            [(0, 16384, "h", 1), (-1, 5, "h", 1), (5, 3, "h", 1), (0, 1, "h\u{1b}", 1), (0, 1, "h", 70_000)]
        {
            let node = Value::Array(vec![bulk(host), Value::Int(port)]);
            let table = Value::Array(vec![Value::Array(vec![Value::Int(first), Value::Int(last), node])]);
            assert!(SlotMap::parse(&table, "a:1").is_none(), "{first} {last} {host:?} {port}");
        }
        for junk in [Value::Null, Value::Array(vec![Value::Null]), Value::Array(vec![Value::Array(vec![])])] {
            assert!(SlotMap::parse(&junk, "a:1").is_none());
        }
    }
}
