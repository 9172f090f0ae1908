//! A test's own cluster of real processes, a raw RESP client without retries, and waiting for conditions instead of times.

#![allow(dead_code, reason = "each test target uses a part of it")]

pub mod resp;
pub mod tool;

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cachectl::proto::resp::encode_command;
use cachectl::proto::slot::{SLOTS, Slot};
use cachectl::proto::value::{ReplyDecoder, Value};
use serde_json::Value as Json;

/// The binary under test.
pub const CACHECTL: &str = env!("CARGO_BIN_EXE_cachectl");
/// How long a condition may take to come true before the test fails: far beyond any healthy time, also on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Waits until `f` gives something.
pub fn wait_for<T>(what: &str, mut f: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(t) = f() {
            return t;
        }
        assert!(Instant::now() < end, "gave up waiting for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A port that is free now, as is the one 10,000 above it, where a node's peers connect.
pub fn free_port() -> u16 {
    let free = || TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok().map(|a| a.port());
    let fits = |port: &u16| port.checked_add(10_000).is_some_and(|p| TcpListener::bind(("127.0.0.1", p)).is_ok());
    (0..1000).filter_map(|_| free()).find(fits).expect("a free port")
}

/// A block of 200 ports (and their +10000) that is free now and that no other test of this machine takes at once.
pub fn free_block() -> u16 {
    for _ in 0..200 {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let base = 12_000 + ((std::process::id() * 7 + n) % 50) as u16 * 200;
        let taken = |p: u16| TcpListener::bind(("127.0.0.1", p)).is_err();
        let lock = std::env::temp_dir().join(format!("cachectl-test-block-{base}-{}", std::process::id()));
        let claim = std::env::temp_dir().join(format!("cachectl-test-block-{base}"));
        // A claim names its process: one whose process is gone is taken over.
        if let Ok(pid) = std::fs::read_to_string(&claim)
            && Path::new("/proc").join(pid.trim()).exists()
        {
            continue;
        }
        if (1..=9).any(|i| taken(base + i)) || (101..=120).any(|i| taken(base + i) || taken(base + 10_000 + i)) {
            continue;
        }
        if std::fs::write(&lock, std::process::id().to_string()).is_ok() && std::fs::rename(&lock, &claim).is_ok() {
            return base;
        }
    }
    panic!("no free block of ports");
}

/// A cluster of a test; everything of it ends with it.
pub struct Cluster {
    /// Holds state and config.
    pub dir: tempfile::TempDir,
    /// Its name.
    pub name: String,
    /// Its first port.
    pub base: u16,
}

impl Cluster {
    /// A name, a directory and ports, nothing started.
    pub fn prepare() -> Cluster {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = tempfile::tempdir().expect("a temporary directory");
        Cluster { dir, name: format!("t{}-{n}", std::process::id()), base: free_block() }
    }

    /// `up` with these flags, which must succeed.
    pub fn up(flags: &[&str]) -> Cluster {
        let c = Cluster::prepare();
        c.start(flags);
        c
    }

    /// `up`, which must succeed.
    pub fn start(&self, flags: &[&str]) {
        let base = self.base.to_string();
        let mut args = vec!["up", "--base-port", &base, "--wait", "60s"];
        args.extend_from_slice(flags);
        let out = self.run(&args);
        assert!(out.status.success(), "up failed: {}\n{}", text(&out.stderr), self.logs());
    }

    /// Any command on this cluster.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut c = Command::new(CACHECTL);
        c.args(args)
            .env("CACHECTL_NAME", &self.name)
            .env("XDG_STATE_HOME", self.dir.path().join("state"))
            .env("XDG_CONFIG_HOME", self.dir.path().join("config"))
            .stdin(Stdio::null());
        c
    }

    /// Runs a command to its end.
    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("cachectl runs")
    }

    /// Where `up` keeps this cluster.
    pub fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state/cachectl").join(&self.name)
    }

    /// The client address of node `n` (from 1).
    pub fn node_addr(&self, n: u16) -> SocketAddr {
        ([127, 0, 0, 1], self.base + 100 + n).into()
    }

    /// The status document; none while nothing answers.
    pub fn status(&self) -> Option<Json> {
        let out = self.run(&["status", "-o", "json"]);
        serde_json::from_slice(&out.stdout).ok()
    }

    /// Waits for a status for which `f` holds.
    pub fn wait_status(&self, what: &str, f: impl Fn(&Json) -> bool) -> Json {
        let mut last = None;
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Some(s) = self.status() {
                if f(&s) {
                    return s;
                }
                last = Some(s);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("gave up waiting for {what}; last status: {last:#?}\n{}", self.logs());
    }

    /// The recorded pid of a process: `m1`, `n2`.
    pub fn pid(&self, who: &str) -> i32 {
        self.find_pid(who).unwrap_or_else(|| panic!("no pid of {who} in {}", self.state_dir().display()))
    }

    /// Looks through what `up` recorded for an object named `who` that has a pid.
    pub fn find_pid(&self, who: &str) -> Option<i32> {
        fn walk(v: &Json, who: &str) -> Option<i32> {
            match v {
                Json::Object(o) => {
                    let named = o.get("id").or_else(|| o.get("name")).and_then(Json::as_str) == Some(who);
                    let pid = o.get("pid").or_else(|| o.get("process").and_then(|p| p.get("pid")));
                    if let (true, Some(pid)) = (named, pid.and_then(Json::as_i64)) {
                        return Some(pid as i32);
                    }
                    if let Some(pid) = o.get(who).and_then(|o| o.get("pid")).and_then(Json::as_i64) {
                        return Some(pid as i32);
                    }
                    o.values().find_map(|v| walk(v, who))
                }
                Json::Array(a) => a.iter().find_map(|v| walk(v, who)),
                _ => None,
            }
        }
        let text = std::fs::read(self.state_dir().join("cluster.json")).ok()?;
        walk(&serde_json::from_slice(&text).ok()?, who)
    }

    /// kill -9.
    pub fn kill(&self, who: &str) {
        signal(self.pid(who), rustix::process::Signal::KILL);
    }

    /// The last lines of all logs, for a failing test's report.
    pub fn logs(&self) -> String {
        let mut out = String::new();
        let Ok(dir) = std::fs::read_dir(self.state_dir().join("logs")) else { return out };
        for f in dir.flatten() {
            let text = std::fs::read_to_string(f.path()).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            out += &format!("--- {}\n{}\n", f.path().display(), lines[lines.len().saturating_sub(30)..].join("\n"));
        }
        out
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        let _ = self.run(&["down", "--yes", "--purge"]);
        let _ = std::fs::remove_file(std::env::temp_dir().join(format!("cachectl-test-block-{}", self.base)));
    }
}

/// Sends a signal to a process this test's cluster started.
pub fn signal(pid: i32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
    let _ = rustix::process::kill_process(pid, signal);
}

/// Bytes as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A raw connection: sends what it is told, reads one reply each, retries nothing.
pub struct Raw {
    stream: TcpStream,
    decoder: ReplyDecoder,
    buf: Vec<u8>,
}

impl Raw {
    /// Connects; replies are waited for as long as [`PATIENCE`].
    pub fn connect(addr: SocketAddr) -> io::Result<Raw> {
        let stream = TcpStream::connect_timeout(&addr, Duration::from_secs(5))?;
        stream.set_nodelay(true)?;
        Raw::over(stream, PATIENCE)
    }

    /// Over a connection that is there; replies are waited for so long.
    pub fn over(stream: TcpStream, reply_max: Duration) -> io::Result<Raw> {
        stream.set_read_timeout(Some(reply_max))?;
        Ok(Raw { stream, decoder: ReplyDecoder::new(), buf: Vec::new() })
    }

    /// One command, one reply.
    pub fn call(&mut self, args: &[&[u8]]) -> io::Result<Value> {
        self.stream.write_all(&encode_command(args))?;
        self.reply()
    }

    /// Whether the other end has closed it, as far as is known here: what is sent now would not be answered.
    pub fn has_ended(&self) -> bool {
        let looked = self.stream.set_nonblocking(true).and_then(|()| self.stream.peek(&mut [0]));
        let _ = self.stream.set_nonblocking(false);
        match looked {
            Ok(n) => n == 0,
            Err(e) => e.kind() != io::ErrorKind::WouldBlock,
        }
    }

    /// Raw bytes out.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next reply.
    pub fn reply(&mut self) -> io::Result<Value> {
        loop {
            let (used, value) = self.decoder.next(&self.buf).map_err(io::Error::other)?;
            self.buf.drain(..used);
            if let Some(v) = value {
                return Ok(v);
            }
            let mut part = [0; 16 << 10];
            match self.stream.read(&mut part)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => self.buf.extend_from_slice(&part[..n]),
            }
        }
    }
}

/// What became of one write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrote {
    /// OK.
    Acknowledged,
    /// The server said that it did not happen.
    Refused,
    /// Nobody can tell.
    Unknown,
}

/// A client of the whole cluster: one connection a node, follows MOVED once per try, never sends a write again whose outcome is
/// unknown.
pub struct Routed {
    nodes: Vec<SocketAddr>,
    open: Vec<Option<Raw>>,
    slots: Vec<u16>,
    reply_max: Duration,
    /// What the last write that was not acknowledged was told.
    pub last_error: Option<String>,
}

impl Routed {
    /// Knows these nodes; learns the slots by being told MOVED.
    pub fn new(nodes: Vec<SocketAddr>) -> Routed {
        let open = nodes.iter().map(|_| None).collect();
        Routed { nodes, open, slots: vec![0; 16384], reply_max: PATIENCE, last_error: None }
    }

    /// Waits so long for a reply.
    pub fn patient(self, reply_max: Duration) -> Routed {
        Routed { reply_max, ..self }
    }

    /// The node that a key was last seen at, counted from 0.
    pub fn holder(&self, key: &[u8]) -> usize {
        usize::from(self.slots[cachectl::proto::slot::Slot::of_key(key).ix()])
    }

    fn conn(&mut self, n: usize) -> io::Result<&mut Raw> {
        if self.open[n].is_none() {
            let stream = TcpStream::connect_timeout(&self.nodes[n], Duration::from_secs(5))?;
            stream.set_nodelay(true)?;
            self.open[n] = Some(Raw::over(stream, self.reply_max)?);
        }
        self.open[n].as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// One command on one key, at the node its slot was last seen at; follows MOVED at most 4 times.
    pub fn call(&mut self, key: &[u8], args: &[&[u8]]) -> io::Result<Value> {
        let slot = cachectl::proto::slot::Slot::of_key(key).ix();
        for _ in 0..4 {
            let n = usize::from(self.slots[slot]);
            let answer = self.conn(n).and_then(|c| c.call(args));
            match answer {
                Ok(Value::Error(e)) if e.starts_with("MOVED ") => {
                    let to = e.rsplit(' ').next().and_then(|a| a.parse().ok());
                    let Some(at) = to.and_then(|a: SocketAddr| self.nodes.iter().position(|n| *n == a)) else {
                        return Ok(Value::Error(e));
                    };
                    self.slots[slot] = at as u16;
                }
                Ok(v) => return Ok(v),
                Err(e) => {
                    self.open[n] = None;
                    // Ask someone else next time.
                    self.slots[slot] = ((n + 1) % self.nodes.len()) as u16;
                    return Err(e);
                }
            }
        }
        Ok(Value::Error("MOVED in circles".into()))
    }

    /// SET, once.
    pub fn set(&mut self, key: &[u8], value: &[u8]) -> Wrote {
        let answer = self.call(key, &[b"SET", key, value]);
        if !matches!(&answer, Ok(Value::Simple(_))) {
            self.last_error = Some(format!("{answer:?}"));
        }
        match answer {
            Ok(Value::Simple(s)) if s == "OK" => Wrote::Acknowledged,
            Ok(Value::Error(e)) if e.starts_with("INDETERMINATE") => Wrote::Unknown,
            Ok(_) => Wrote::Refused,
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => Wrote::Refused,
            Err(_) => Wrote::Unknown,
        }
    }

    /// GET, again and again until some node answers it.
    pub fn get(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        wait_for("an answer to GET", || match self.call(key, &[b"GET", key]) {
            Ok(Value::Bulk(b)) => Some(Some(b.to_vec())),
            Ok(Value::Null) => Some(None),
            _ => None,
        })
    }
}

/// A client without retries: MOVED is followed once, every other error counts.
pub struct Once {
    nodes: Vec<SocketAddr>,
    open: HashMap<SocketAddr, Raw>,
    slots: Arc<Mutex<Vec<SocketAddr>>>,
    /// Where the last call was sent on to.
    pub moved: Option<SocketAddr>,
}

impl Once {
    /// Believes the first of these nodes to have everything; is sent to these only.
    pub fn new(nodes: Vec<SocketAddr>) -> Once {
        let slots = Arc::new(Mutex::new(vec![nodes[0]; SLOTS]));
        Once { slots, nodes, open: HashMap::new(), moved: None }
    }

    /// Another connection of the same client: what one learns of slots the other knows.
    pub fn another(&self) -> Once {
        Once { slots: self.slots.clone(), nodes: self.nodes.clone(), open: HashMap::new(), moved: None }
    }

    fn at(&mut self, addr: SocketAddr, args: &[&[u8]]) -> Result<Value, String> {
        let mut conn = match self.open.remove(&addr) {
            Some(c) => c,
            None => Raw::connect(addr).map_err(|e| format!("connect {addr}: {e}"))?,
        };
        let answer = conn.call(args).map_err(|e| format!("{addr}: {e}"))?;
        self.open.insert(addr, conn);
        Ok(answer)
    }

    /// One command on one key.
    pub fn call(&mut self, key: &[u8], args: &[&[u8]]) -> Result<Value, String> {
        let slot = Slot::of_key(key).ix();
        let known = self.slots.lock().expect("no thread panicked")[slot];
        let answer = self.at(known, args)?;
        let Value::Error(e) = &answer else { return Ok(answer) };
        let Some(to) = e.strip_prefix("MOVED ").and_then(|_| e.rsplit(' ').next()).and_then(|a| a.parse().ok()) else {
            return Err(e.to_string());
        };
        assert!(self.nodes.contains(&to), "{e}");
        self.slots.lock().expect("no thread panicked")[slot] = to;
        self.moved = Some(to);
        match self.at(to, args)? {
            Value::Error(again) => Err(format!("{e}, then {again}")),
            v => Ok(v),
        }
    }

    /// Takes a node's slot map.
    pub fn map(&mut self, from: SocketAddr) -> Result<(), String> {
        let Value::Array(ranges) = self.at(from, &[b"CLUSTER", b"SLOTS"])? else { return Err("no slot map".into()) };
        for r in &ranges {
            let Value::Array(r) = r else { continue };
            let (Value::Int(first), Value::Int(last), Value::Array(primary)) = (&r[0], &r[1], &r[2]) else { continue };
            let (Value::Bulk(host), Value::Int(port)) = (&primary[0], &primary[1]) else { continue };
            let addr = format!("{}:{port}", String::from_utf8_lossy(host)).parse().map_err(|e| format!("{e}"))?;
            self.slots.lock().expect("no thread panicked")[*first as usize..=*last as usize].fill(addr);
        }
        Ok(())
    }
}
