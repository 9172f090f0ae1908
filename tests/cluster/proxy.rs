//! A fault proxy in one direction of one pair: what a host sends to an address goes through it. It takes that address over on
//! the sender's host, so neither end is configured for it, and everybody else still reaches the real one. Refusals of the
//! real address are not told apart from a lost connection, so it stands where no refusal is evidence.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::net::Host;

/// How long a lost packet holds up everything behind it on a connection: TCP's first retransmission.
const RETRANSMIT: Duration = Duration::from_millis(220);
/// Bytes under way on one connection; more are not read.
const WINDOW: usize = 4 << 20;

/// What is done to whole lines.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mangle {
    /// Share of lines sent twice.
    pub duplicate: f64,
    /// Share of lines sent behind the next one.
    pub reorder: f64,
    /// Each line waits up to this long.
    pub delay: Duration,
}

/// What is done to bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Slow {
    /// Each piece comes so much later.
    pub delay: Duration,
    /// Share of pieces that are lost first, and come once more.
    pub loss: f64,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Lines,
    Bytes,
}

struct Shared {
    kind: Kind,
    over: AtomicBool,
    mangle: Mutex<Mangle>,
    slow: Mutex<Slow>,
    duplicated: AtomicU64,
    reordered: AtomicU64,
    seed: AtomicU64,
}

/// Stands between until it is dropped.
pub struct Proxy {
    shared: Arc<Shared>,
    host: Host,
    real: SocketAddr,
}

impl Proxy {
    /// For connections that carry lines: whole lines are mangled. Clean until told otherwise.
    pub fn lines(from: &Host, to: SocketAddr, via: &Host, seed: u64) -> Proxy {
        Proxy::start(Kind::Lines, from, to, via, seed)
    }

    /// For any connections: a slow link that loses packets.
    pub fn bytes(from: &Host, to: SocketAddr, via: &Host, seed: u64) -> Proxy {
        Proxy::start(Kind::Bytes, from, to, via, seed)
    }

    fn start(kind: Kind, from: &Host, to: SocketAddr, via: &Host, seed: u64) -> Proxy {
        let listener = from.impersonate(to).expect("the address, on the sender's host");
        listener.set_nonblocking(true).expect("a listener");
        let shared = Arc::new(Shared {
            kind,
            over: AtomicBool::new(false),
            mangle: Mutex::default(),
            slow: Mutex::default(),
            duplicated: AtomicU64::new(0),
            reordered: AtomicU64::new(0),
            seed: AtomicU64::new(seed),
        });
        let (s, via) = (shared.clone(), via.clone());
        std::thread::spawn(move || {
            while !s.over.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((near, _)) => {
                        let (s, via) = (s.clone(), via.clone());
                        std::thread::spawn(move || s.join(near, &via, to));
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(2)),
                }
            }
        });
        Proxy { shared, host: from.clone(), real: to }
    }

    /// From here on.
    pub fn mangle(&self, how: Mangle) {
        *self.shared.mangle.lock().expect("no thread panicked") = how;
    }

    /// From here on.
    pub fn slow(&self, how: Slow) {
        *self.shared.slow.lock().expect("no thread panicked") = how;
    }

    /// Lines sent twice, and lines sent behind a later one.
    pub fn counts(&self) -> (u64, u64) {
        (self.shared.duplicated.load(Ordering::Relaxed), self.shared.reordered.load(Ordering::Relaxed))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        self.host.impersonate_no_more(self.real.ip());
    }
}

impl Shared {
    /// One connection, both ways, until either end closes.
    fn join(self: Arc<Self>, near: TcpStream, via: &Host, to: SocketAddr) {
        let Ok(far) = via.connect(to) else { return };
        let _ = near.set_nonblocking(false);
        let _ = near.set_nodelay(true);
        let (Ok(near2), Ok(far2)) = (near.try_clone(), far.try_clone()) else { return };
        let back = self.clone();
        std::thread::spawn(move || back.pump(far2, near2));
        self.pump(near, far);
    }

    fn pump(&self, mut from: TcpStream, mut to: TcpStream) {
        let rng = SmallRng::seed_from_u64(self.seed.fetch_add(1, Ordering::Relaxed));
        match self.kind {
            Kind::Lines => self.lines(rng, &mut from, &mut to),
            Kind::Bytes => self.bytes(rng, &mut from, &mut to),
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }

    fn lines(&self, mut rng: SmallRng, from: &mut TcpStream, to: &mut TcpStream) {
        let _ = from.set_read_timeout(Some(Duration::from_millis(20)));
        let (mut buf, mut held): (Vec<u8>, Option<Vec<u8>>) = (Vec::new(), None);
        let mut part = [0; 64 << 10];
        loop {
            let idle = match from.read(&mut part) {
                Ok(0) => return,
                Ok(n) => {
                    buf.extend_from_slice(&part[..n]);
                    false
                }
                Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => true,
                Err(_) => return,
            };
            if self.over.load(Ordering::Relaxed) {
                return;
            }
            let mut out = Vec::new();
            while let Some(end) = buf.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = buf.drain(..=end).collect();
                let how = *self.mangle.lock().expect("no thread panicked");
                if how.delay > Duration::ZERO {
                    std::thread::sleep(how.delay.mul_f64(rng.random::<f64>().powi(3)));
                }
                if held.is_none() && rng.random_bool(how.reorder) {
                    held = Some(line);
                    continue;
                }
                out.extend_from_slice(&line);
                if rng.random_bool(how.duplicate) {
                    self.duplicated.fetch_add(1, Ordering::Relaxed);
                    out.extend_from_slice(&line);
                }
                if let Some(late) = held.take() {
                    self.reordered.fetch_add(1, Ordering::Relaxed);
                    out.extend_from_slice(&late);
                }
            }
            // Nothing came behind it: late is all it can be.
            if idle && let Some(late) = held.take() {
                out.extend_from_slice(&late);
            }
            if to.write_all(&out).is_err() {
                return;
            }
        }
    }

    fn bytes(&self, mut rng: SmallRng, from: &mut TcpStream, to: &mut TcpStream) {
        let (tx, rx) = std::sync::mpsc::channel::<(Instant, Vec<u8>)>();
        let Ok(mut out) = to.try_clone() else { return };
        let under_way = Arc::new(AtomicU64::new(0));
        let left = under_way.clone();
        let writer = std::thread::spawn(move || {
            for (due, part) in rx {
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                if out.write_all(&part).is_err() {
                    let _ = out.shutdown(Shutdown::Both);
                    return;
                }
                left.fetch_sub(part.len() as u64, Ordering::Relaxed);
            }
        });
        let mut part = [0; 16 << 10];
        // What comes behind a lost piece waits for it: a connection keeps its order.
        let mut free = Instant::now();
        while let Ok(n) = from.read(&mut part) {
            if n == 0 || self.over.load(Ordering::Relaxed) {
                break;
            }
            let how = *self.slow.lock().expect("no thread panicked");
            let lost = rng.random_bool(how.loss);
            let due = Instant::now() + how.delay + if lost { RETRANSMIT } else { Duration::ZERO };
            free = free.max(due);
            while under_way.load(Ordering::Relaxed) > WINDOW as u64 && !writer.is_finished() {
                std::thread::sleep(Duration::from_millis(1));
            }
            under_way.fetch_add(n as u64, Ordering::Relaxed);
            if tx.send((free, part[..n].to_vec())).is_err() {
                break;
            }
        }
        drop(tx);
        let _ = writer.join();
    }
}
