//! Clients: real RESP commands, MOVED followed, no retries; what they asked and what they were told, key by key.

use std::collections::{BTreeMap, VecDeque};

use rand::Rng;

use super::cache::node_at;
use super::linear::{Event, Op, Reply};
use super::net::{ConnId, Hello, MS, Net, Packet, Timer, Who};
use crate::proto::slot::Slot;

/// A command without an answer for so long is given up, milliseconds: parked and held ones are answered sooner.
const GIVE_UP_MS: u64 = 12_000;
/// Operations recorded of one key; then only others are used.
pub const OPS_PER_KEY: usize = 110;

/// All keys of a run, and what happened to them.
pub struct Keys {
    pub names: Vec<(String, u16)>,
    pub history: Vec<Vec<Event>>,
    next_value: i64,
}

impl Keys {
    /// `per_slot` keys in each of the first slots.
    pub fn new(slots: usize, per_slot: usize) -> Self {
        let mut names = Vec::new();
        for s in 0..slots {
            let tag = tag(s as u16);
            names.extend((0..per_slot).map(|k| (format!("{{{tag}}}{k}"), s as u16)));
        }
        let history = vec![Vec::new(); names.len()];
        Self { names, history, next_value: 1 }
    }

    pub fn value(&mut self) -> i64 {
        self.next_value += 1_000_000;
        self.next_value
    }
}

/// A hash tag of this slot.
fn tag(slot: u16) -> String {
    (0u32..).map(|n| n.to_string()).find(|t| Slot::of_key(t.as_bytes()) == Slot(slot)).unwrap_or_default()
}

/// One client.
pub struct Client {
    pub ix: usize,
    conns: BTreeMap<usize, Line>,
    /// Which node it believes to serve a slot.
    owners: BTreeMap<u16, usize>,
    token: u64,
    /// Operations in this run.
    pub done: u64,
    /// Operations that were answered with a result, and when the last of each slot was.
    pub served: BTreeMap<u16, u64>,
    pub think_ms: u64,
    pub paused: bool,
}

struct Line {
    conn: ConnId,
    asked: VecDeque<Asked>,
    input: Vec<u8>,
}

/// What an answer is awaited for: one or, for MSET, several keys.
struct Asked {
    token: u64,
    slot: u16,
    ops: Vec<(usize, Op)>,
    mset: bool,
    invoked: u64,
    hops: u32,
}

impl Client {
    pub fn new(ix: usize, think_ms: u64) -> Self {
        Self {
            ix,
            conns: BTreeMap::new(),
            owners: BTreeMap::new(),
            token: 0,
            done: 0,
            served: BTreeMap::new(),
            think_ms,
            paused: false,
        }
    }

    fn who(&self) -> Who {
        Who::Client(self.ix)
    }

    /// The next command, or several at once.
    pub fn tick(&mut self, net: &mut Net, keys: &mut Keys, nodes: usize) {
        if self.paused {
            return;
        }
        let wait = if net.chance(0.3) { net.ms(0, 3) } else { net.ms(0, self.think_ms * 2) };
        let when = net.now + wait;
        net.timer(when, self.who(), 0, Timer::Tick);
        let waiting: usize = self.conns.values().map(|l| l.asked.len()).sum();
        if waiting >= 6 {
            return;
        }
        let n = if net.chance(0.2) { net.rng.random_range(1..4) } else { 1 };
        for _ in 0..n {
            let key = net.rng.random_range(0..keys.names.len());
            if keys.history[key].len() + 8 >= OPS_PER_KEY {
                continue;
            }
            let op = match net.rng.random_range(0..100) {
                0..40 => Op::Get,
                40..65 => Op::Set(keys.value()),
                65..85 => Op::Incr,
                85..93 => Op::Del,
                _ => Op::SetNx(keys.value()),
            };
            let slot = keys.names[key].1;
            let mut ops = vec![(key, op)];
            let mset = matches!(op, Op::Set(_)) && net.chance(0.4);
            if mset {
                let other = keys.names.iter().enumerate().filter(|(k, (_, s))| *s == slot && *k != key).map(|(k, _)| k);
                let others: Vec<usize> = other.filter(|k| keys.history[*k].len() + 8 < OPS_PER_KEY).collect();
                for k in others {
                    ops.push((k, Op::Set(keys.value())));
                }
            }
            self.ask(net, keys, nodes, slot, ops, mset);
        }
    }

    /// Asks for the value of every key; for the end of a run.
    pub fn read_all(&mut self, net: &mut Net, keys: &Keys, nodes: usize) {
        for (k, (_, slot)) in keys.names.iter().enumerate() {
            self.ask(net, keys, nodes, *slot, vec![(k, Op::Get)], false);
        }
    }

    /// Asks one node, for scripts.
    pub fn ask_at(&mut self, net: &mut Net, keys: &Keys, node: usize, key: usize, op: Op) {
        let slot = keys.names[key].1;
        self.owners.insert(slot, node);
        self.ask(net, keys, node + 1, slot, vec![(key, op)], false);
    }

    /// Nothing is awaited.
    pub fn is_idle(&self) -> bool {
        self.conns.values().all(|l| l.asked.is_empty())
    }

    fn ask(&mut self, net: &mut Net, keys: &Keys, nodes: usize, slot: u16, ops: Vec<(usize, Op)>, mset: bool) {
        self.token += 1;
        let asked = Asked { token: self.token, slot, ops, mset, invoked: net.now, hops: 0 };
        let to = match self.owners.get(&slot) {
            Some(n) => *n,
            None => net.rng.random_range(0..nodes),
        };
        let (who, token) = (self.who(), asked.token);
        net.timer(net.now + GIVE_UP_MS * MS, who, 0, Timer::Give(token));
        self.send(net, keys, to, asked);
    }

    fn send(&mut self, net: &mut Net, keys: &Keys, to: usize, asked: Asked) {
        let who = self.who();
        let line = self.conns.entry(to).or_insert_with(|| Line {
            conn: net.dial(who, Who::Node(to), Hello::Client, net.now),
            asked: VecDeque::new(),
            input: Vec::new(),
        });
        let name = |k: usize| keys.names[k].0.clone();
        let (key, op) = asked.ops[0];
        let words: Vec<String> = match op {
            _ if asked.mset => {
                let pairs = asked.ops.iter().flat_map(|(k, op)| match op {
                    Op::Set(v) => [name(*k), v.to_string()],
                    _ => [name(*k), String::new()],
                });
                std::iter::once("MSET".to_owned()).chain(pairs).collect()
            }
            Op::Get => vec!["GET".into(), name(key)],
            Op::Set(v) => vec!["SET".into(), name(key), v.to_string()],
            Op::SetNx(v) => vec!["SET".into(), name(key), v.to_string(), "NX".into()],
            Op::Del => vec!["DEL".into(), name(key)],
            Op::Incr => vec!["INCR".into(), name(key)],
            Op::Loss => return,
        };
        net.note(Some(asked.slot), || format!("{who} → n{}: {} (#{})", to + 1, words.join(" "), asked.token));
        let mut out = format!("*{}\r\n", words.len());
        words.iter().for_each(|w| out.push_str(&format!("${}\r\n{w}\r\n", w.len())));
        line.asked.push_back(asked);
        let conn = line.conn;
        net.send(conn, 0, Packet::Bytes(out.into_bytes()), net.now);
    }

    /// An answer was awaited too long: the connection goes, and with it all that was asked on it.
    pub fn give_up(&mut self, net: &mut Net, keys: &mut Keys, token: u64) {
        let awaits = |l: &Line| l.asked.iter().any(|a| a.token == token);
        let Some(to) = self.conns.iter().find(|(_, l)| awaits(l)).map(|(to, _)| *to) else { return };
        if let Some(line) = self.conns.remove(&to) {
            net.close(line.conn, 0, net.now);
            self.unknown(net, keys, to, line);
        }
    }

    fn unknown(&mut self, net: &mut Net, keys: &mut Keys, to: usize, line: Line) {
        for a in line.asked {
            net.note(Some(a.slot), || format!("c{} ← n{}: nothing (#{})", self.ix + 1, to + 1, a.token));
            self.owners.remove(&a.slot);
            self.record(net, keys, &a, |_| Some(Reply::Unknown));
        }
    }

    fn record(&mut self, net: &Net, keys: &mut Keys, a: &Asked, reply: impl Fn(Op) -> Option<Reply>) {
        self.done += 1;
        for (k, op) in &a.ops {
            if let Some(reply) = reply(*op) {
                let returned = if reply == Reply::Unknown { u64::MAX } else { net.now };
                keys.history[*k].push(Event { op: *op, reply, invoked: a.invoked, returned });
            }
        }
    }

    /// Something came from a node.
    pub fn packet(&mut self, net: &mut Net, keys: &mut Keys, nodes: usize, conn: ConnId, packet: Packet) {
        let Some(to) = self.conns.iter().find(|(_, l)| l.conn == conn).map(|(to, _)| *to) else { return };
        let Packet::Bytes(bytes) = packet else {
            if let Some(line) = self.conns.remove(&to) {
                self.unknown(net, keys, to, line);
            }
            return;
        };
        if let Some(line) = self.conns.get_mut(&to) {
            line.input.extend_from_slice(&bytes);
        }
        while let Some(line) = self.conns.get_mut(&to) {
            let Some((reply, len)) = parse(&line.input) else { break };
            line.input.drain(..len);
            let Some(a) = line.asked.pop_front() else { break };
            self.answered(net, keys, nodes, to, a, reply);
        }
    }

    fn answered(
        &mut self,
        net: &mut Net,
        keys: &mut Keys,
        nodes: usize,
        to: usize,
        mut a: Asked,
        reply: Result<Option<i64>, String>,
    ) {
        let who = self.who();
        net.note(Some(a.slot), || format!("{who} ← n{}: {reply:?} (#{})", to + 1, a.token));
        match reply {
            Ok(v) => {
                self.owners.insert(a.slot, to);
                self.served.insert(a.slot, net.now);
                self.record(net, keys, &a, |_| Some(Reply::Value(v)));
            }
            Err(e) if e.starts_with("MOVED ") => {
                let owner = e.rsplit(' ').next().and_then(node_at);
                match owner {
                    Some(n) if a.hops < 4 => {
                        self.owners.insert(a.slot, n);
                        a.hops += 1;
                        self.send(net, keys, n, a);
                    }
                    _ => drop(self.owners.remove(&a.slot)),
                }
            }
            Err(e) if e.starts_with("INDETERMINATE") => self.record(net, keys, &a, |_| Some(Reply::Unknown)),
            // It did not run.
            Err(_) => {
                self.done += 1;
                if net.chance(0.5) {
                    self.owners.insert(a.slot, net.rng.random_range(0..nodes));
                }
            }
        }
    }
}

type Parsed = (Result<Option<i64>, String>, usize);

/// One reply and its length, if it is whole.
fn parse(b: &[u8]) -> Option<Parsed> {
    let end = b.windows(2).position(|w| w == b"\r\n")?;
    let text = String::from_utf8_lossy(&b[1..end]).into_owned();
    Some(match b[0] {
        b'-' => (Err(text), end + 2),
        b':' => (Ok(text.parse().ok()), end + 2),
        b'$' if text == "-1" => (Ok(None), end + 2),
        b'$' => {
            let len: usize = text.parse().ok()?;
            let body = b.get(end + 2..end + 2 + len)?;
            let whole = b.get(end + 2 + len + 1).is_some();
            let v = String::from_utf8_lossy(body).parse().ok();
            return whole.then_some((Ok(v), end + 2 + len + 2));
        }
        b'_' => (Ok(None), end + 2),
        // SET … NX that did it says OK as well: 1, where the other outcome is nothing.
        _ => (Ok(Some(1)), end + 2),
    })
}
