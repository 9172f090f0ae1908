//! A raw client: each command is sent once, MOVED is followed once, nothing else is ever repeated.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use cachectl::proto::resp::encode_command;
use cachectl::proto::slot::{SLOTS, Slot};
use cachectl::proto::value::Value;

use super::common::{PATIENCE, Raw};
use super::net::Host;

/// An answer that takes longer is not waited for. Shorter than a server may take (5 s), so that load goes on elsewhere.
pub const ANSWER_MAX: Duration = Duration::from_secs(3);
/// Keys asked for at once when everything is read back.
const BATCH: usize = 256;

/// What became of one command.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It ran, and this is its answer.
    Answer(Value),
    /// It certainly did not run.
    Fail(String),
    /// Nobody can tell.
    Unknown(String),
}

/// One connection to each node, opened when needed.
pub struct Client {
    host: Host,
    nodes: Vec<SocketAddr>,
    open: BTreeMap<SocketAddr, Raw>,
    slots: Vec<SocketAddr>,
    answer_max: Duration,
}

impl Client {
    /// On this host; knows these nodes, learns who holds what by being told MOVED.
    pub fn new(host: &Host, nodes: Vec<SocketAddr>) -> Client {
        let slots = vec![nodes[0]; SLOTS];
        Client { host: host.clone(), nodes, open: BTreeMap::new(), slots, answer_max: ANSWER_MAX }
    }

    /// Waits this long for each answer.
    pub fn patient(mut self, answer_max: Duration) -> Client {
        self.answer_max = answer_max;
        self
    }

    fn conn(&mut self, at: SocketAddr) -> io::Result<&mut Raw> {
        if !self.open.contains_key(&at) {
            let raw = Raw::over(self.host.connect(at)?, self.answer_max)?;
            self.open.insert(at, raw);
        }
        self.open.get_mut(&at).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Ask someone else about this slot next time.
    fn turn_away(&mut self, slot: usize, from: SocketAddr) {
        let at = self.nodes.iter().position(|n| *n == from).map_or(0, |i| i + 1);
        self.slots[slot] = self.nodes[at % self.nodes.len()];
    }

    /// One command on one key.
    pub fn call(&mut self, key: &[u8], args: &[&[u8]]) -> Outcome {
        let slot = Slot::of_key(key).ix();
        for last in [false, true] {
            let at = self.slots[slot];
            let conn = match self.conn(at) {
                Ok(c) => c,
                Err(e) => {
                    self.turn_away(slot, at);
                    return Outcome::Fail(format!("connect: {:?}", e.kind()));
                }
            };
            match conn.call(args) {
                Ok(Value::Error(e)) => match (moved(&e), last) {
                    (Some(to), false) => self.slots[slot] = to,
                    (Some(to), true) => {
                        self.slots[slot] = to;
                        return Outcome::Fail(e);
                    }
                    _ if e.starts_with("INDETERMINATE") => return Outcome::Unknown(e),
                    _ => return Outcome::Fail(e),
                },
                Ok(v) => return Outcome::Answer(v),
                Err(e) => {
                    self.open.remove(&at);
                    self.turn_away(slot, at);
                    return Outcome::Unknown(format!("connection: {:?}", e.kind()));
                }
            }
        }
        unreachable!("the second turn always returns")
    }

    /// Whether this SET was acknowledged.
    pub fn set(&mut self, key: &str, value: &[u8]) -> Outcome {
        self.call(key.as_bytes(), &[b"SET", key.as_bytes(), value])
    }

    /// Reads, again and again until some node answers.
    pub fn get(&mut self, key: &str) -> Option<Vec<u8>> {
        self.get_all(&[key.to_owned()]).remove(0)
    }

    /// The values of all keys, read in batches; asks on until every one is answered.
    pub fn get_all(&mut self, keys: &[String]) -> Vec<Option<Vec<u8>>> {
        let commands: Vec<Vec<Vec<u8>>> = keys.iter().map(|k| vec![b"GET".to_vec(), k.clone().into_bytes()]).collect();
        let value = |answer| match answer {
            Value::Bulk(b) => Some(b),
            Value::Null => None,
            other => panic!("GET said {other:?}"),
        };
        self.call_all(&commands).into_iter().map(value).collect()
    }

    /// Commands on one key each (their first argument), in batches; repeats each until it is answered without an error, so only
    /// for those that may run twice.
    pub fn call_all(&mut self, commands: &[Vec<Vec<u8>>]) -> Vec<Value> {
        let slots: Vec<usize> = commands.iter().map(|c| Slot::of_key(&c[1]).ix()).collect();
        let mut found: Vec<Option<Value>> = vec![None; commands.len()];
        let mut last = None;
        let end = Instant::now() + PATIENCE;
        loop {
            let mut by_node: BTreeMap<SocketAddr, Vec<usize>> = BTreeMap::new();
            for (i, slot) in slots.iter().enumerate().filter(|(i, _)| found[*i].is_none()) {
                by_node.entry(self.slots[*slot]).or_default().push(i);
            }
            if by_node.is_empty() {
                return found.into_iter().flatten().collect();
            }
            let mut more = false;
            for (at, all) in by_node {
                for batch in all.chunks(BATCH) {
                    match self.ask(at, commands, batch) {
                        Ok(answers) => {
                            for (i, answer) in batch.iter().zip(answers) {
                                if let Value::Error(e) = answer {
                                    if let Some(to) = moved(&e) {
                                        self.slots[slots[*i]] = to;
                                    }
                                    last = Some(e);
                                } else {
                                    found[*i] = Some(answer);
                                    more = true;
                                }
                            }
                        }
                        Err(e) => {
                            last = Some(e.to_string());
                            self.open.remove(&at);
                            batch.iter().for_each(|i| self.turn_away(slots[*i], at));
                        }
                    }
                }
            }
            let left = found.iter().filter(|f| f.is_none()).count();
            assert!(left == 0 || Instant::now() < end, "{left} of {} get no answer: {last:?}", commands.len());
            if !more {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    fn ask(&mut self, at: SocketAddr, commands: &[Vec<Vec<u8>>], batch: &[usize]) -> io::Result<Vec<Value>> {
        let mut out = Vec::new();
        for i in batch {
            let args: Vec<&[u8]> = commands[*i].iter().map(Vec::as_slice).collect();
            out.extend(encode_command(&args));
        }
        let conn = self.conn(at)?;
        conn.send(&out)?;
        batch.iter().map(|_| conn.reply()).collect()
    }

    /// One command to one node, whoever it is about.
    pub fn ask_node(&mut self, at: SocketAddr, args: &[&[u8]]) -> io::Result<Value> {
        let answer = self.conn(at)?.call(args);
        if answer.is_err() {
            self.open.remove(&at);
        }
        answer
    }
}

/// Where a MOVED points.
fn moved(e: &str) -> Option<SocketAddr> {
    e.strip_prefix("MOVED ")?.rsplit(' ').next()?.parse().ok()
}
