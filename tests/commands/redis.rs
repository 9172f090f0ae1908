//! A real redis-server of one node in cluster mode, holding all slots: what replies are compared with.

use std::io::{BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::resp::{self, Value};

/// How long a server may take to start and to call its cluster sound: generous, since machines differ.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Ports that were free when looked at may be taken when bound.
const PORT_TRIES: usize = 20;

/// A running server; ends with the value.
pub struct RedisServer {
    child: Child,
    port: u16,
    _dir: TempDir,
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl RedisServer {
    /// Starts one and waits until it serves all slots.
    pub fn start() -> Self {
        let server = (0..PORT_TRIES).find_map(|_| Self::try_start()).expect("a redis-server that starts");
        let mut conn = server.connect();
        let give = conn.send(&[b"CLUSTER", b"ADDSLOTSRANGE", b"0", b"16383"]);
        assert_eq!(give, b"+OK\r\n", "{}", give.escape_ascii());
        let limit = Instant::now() + START_LIMIT;
        while !conn.call(&[b"CLUSTER", b"INFO"]).text().contains("cluster_state:ok") {
            assert!(Instant::now() < limit, "redis-server never called its cluster sound");
            sleep(Duration::from_millis(20));
        }
        server
    }

    fn try_start() -> Option<Self> {
        // Its bus takes the port 10,000 above; both must be free.
        let port = rand::random_range(20_000..45_000u16);
        for p in [port, port + 10_000] {
            TcpListener::bind(("127.0.0.1", p)).ok()?;
        }
        let dir = tempfile::tempdir().expect("a temporary directory");
        let options = [
            "--bind 127.0.0.1 --appendonly no --cluster-enabled yes --cluster-config-file nodes.conf --daemonize no",
            "--maxmemory 2gb --maxmemory-policy allkeys-lru --protected-mode no --loglevel warning",
        ];
        let child = Command::new("redis-server")
            .arg("--port")
            .arg(port.to_string())
            .args(["--save", ""])
            .args(options.iter().flat_map(|o| o.split(' ')))
            .arg("--dir")
            .arg(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("redis-server 7.0 is needed ({e}): apt-get install -y redis-server"));
        let mut server = Self { child, port, _dir: dir };
        let limit = Instant::now() + START_LIMIT;
        loop {
            if server.child.try_wait().expect("wait").is_some() {
                return None;
            }
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some(server);
            }
            assert!(Instant::now() < limit, "redis-server never listened");
            sleep(Duration::from_millis(10));
        }
    }

    /// A new connection.
    pub fn connect(&self) -> RedisConn {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).expect("connect");
        stream.set_nodelay(true).expect("nodelay");
        stream.set_read_timeout(Some(START_LIMIT)).expect("timeout");
        RedisConn { stream: BufReader::new(stream) }
    }
}

/// One client connection.
pub struct RedisConn {
    stream: BufReader<TcpStream>,
}

impl RedisConn {
    /// Sends one command; the bytes of its reply.
    pub fn send(&mut self, words: &[&[u8]]) -> Vec<u8> {
        let mut buf = format!("*{}\r\n", words.len()).into_bytes();
        for w in words {
            buf.extend_from_slice(format!("${}\r\n", w.len()).as_bytes());
            buf.extend_from_slice(w);
            buf.extend_from_slice(b"\r\n");
        }
        self.stream.get_mut().write_all(&buf).expect("write");
        let mut tee = Tee { from: &mut self.stream, seen: Vec::new() };
        resp::read(&mut tee).expect("a reply");
        tee.seen
    }

    /// Sends one command; its reply.
    pub fn call(&mut self, words: &[&[u8]]) -> Value {
        resp::parse(&self.send(words))
    }
}

/// Keeps what was read.
struct Tee<'a> {
    from: &'a mut BufReader<TcpStream>,
    seen: Vec<u8>,
}

impl std::io::Read for Tee<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = self.from.read(buf)?;
        self.seen.extend_from_slice(&buf[..n]);
        Ok(n)
    }
}

impl std::io::BufRead for Tee<'_> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        self.from.fill_buf()
    }

    fn consume(&mut self, n: usize) {
        let taken = self.from.buffer()[..n].to_vec();
        self.seen.extend_from_slice(&taken);
        self.from.consume(n);
    }
}
