//! Counters and the latency histogram of a node: written with relaxed atomics by the data path, read by the heartbeat.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::shard::lock;

/// Buckets: 4 per power of two up to 2^40 ns (18 minutes); a quantile is off by at most 1/8 of its value.
const BUCKETS: usize = 160;
/// How many past seconds the percentiles look at.
const WINDOW_S: usize = 5;

/// Service times, nanoseconds, log-linear.
#[derive(Debug)]
pub struct Histogram {
    now: [AtomicU64; BUCKETS],
    past: Mutex<Past>,
}

#[derive(Debug)]
struct Past {
    seen: [u64; BUCKETS],
    seconds: [[u64; BUCKETS]; WINDOW_S],
    at: usize,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            now: std::array::from_fn(|_| AtomicU64::new(0)),
            past: Mutex::new(Past { seen: [0; BUCKETS], seconds: [[0; BUCKETS]; WINDOW_S], at: 0 }),
        }
    }
}

fn bucket(ns: u64) -> usize {
    let ns = ns.max(4);
    let log = 63 - ns.leading_zeros() as usize;
    let quarter = (ns >> (log - 2)) as usize & 3;
    (log * 4 + quarter).min(BUCKETS - 1)
}

fn middle_us(bucket: usize) -> u64 {
    let (log, quarter) = (bucket / 4, bucket as u64 % 4);
    let low = (4 + quarter) << log.saturating_sub(2);
    let width = 1u64 << log.saturating_sub(2);
    (low + width / 2).div_ceil(1000)
}

impl Histogram {
    /// `n` commands took so long.
    pub fn record(&self, ns: u64, n: u64) {
        self.now[bucket(ns)].fetch_add(n, Ordering::Relaxed);
    }

    /// Called once a second: moves the window on.
    pub fn second(&self) {
        let mut p = lock(&self.past);
        let at = (p.at + 1) % WINDOW_S;
        p.at = at;
        for b in 0..BUCKETS {
            let n = self.now[b].load(Ordering::Relaxed);
            p.seconds[at][b] = n - p.seen[b];
            p.seen[b] = n;
        }
    }

    /// The quantile (0–1) over the window, microseconds; none without traffic.
    pub fn quantile_us(&self, q: f64) -> Option<u64> {
        let p = lock(&self.past);
        let sums: Vec<u64> = (0..BUCKETS).map(|b| p.seconds.iter().map(|s| s[b]).sum()).collect();
        let all: u64 = sums.iter().sum();
        let rank = (all as f64 * q).ceil().max(1.0) as u64;
        let mut seen = 0;
        (all > 0).then(|| {
            let b = sums.iter().position(|n| {
                seen += n;
                seen >= rank
            });
            middle_us(b.unwrap_or(BUCKETS - 1))
        })
    }
}

/// What a node counts.
#[derive(Debug, Default)]
pub struct Counters {
    /// Commands executed.
    pub commands: AtomicU64,
    /// Error replies sent.
    pub errors: AtomicU64,
    /// Client connections ever accepted.
    pub connections: AtomicU64,
    /// Client connections refused for `CLIENTS_MAX`.
    pub rejected: AtomicU64,
    /// Bytes read from clients.
    pub bytes_in: AtomicU64,
    /// Bytes written to clients.
    pub bytes_out: AtomicU64,
    /// Service times.
    pub latency: Histogram,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_an_eighth() {
        let h = Histogram::default();
        assert_eq!(h.quantile_us(0.5), None);
        for us in 1..=1000u64 {
            h.record(us * 1000, 1);
        }
        h.second();
        for (q, want) in [(0.5, 500.0), (0.99, 990.0)] {
            let got = h.quantile_us(q).unwrap() as f64;
            assert!((got - want).abs() <= want / 8.0 + 1.0, "{q}: {got}");
        }
        for _ in 0..WINDOW_S {
            h.second();
        }
        assert_eq!(h.quantile_us(0.5), None, "old seconds leave the window");
    }
}
