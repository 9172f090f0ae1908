//! Counters and the latency histogram of a node: written with relaxed atomics by the data path, read by the heartbeat.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::shard::lock;

/// Buckets: 4 per power of two up to 2^40 ns (18 minutes); a quantile is off by at most 1/8 of its value.
const BUCKETS: usize = 160;
/// Powers of two that a histogram is shown by, nanoseconds: 4 µs to 8.6 s.
const BOUNDS: std::ops::RangeInclusive<usize> = 12..=33;
/// Codes of errors that are kept apart; a code can come from a bug only, but a map must have an end.
const CODES_MAX: usize = 64;
/// How many past seconds the percentiles look at.
const WINDOW_S: usize = 5;

/// Threads that count without meeting another one's cache lines; the ninth meets the first.
pub const STRIPES: usize = 8;

thread_local! {
    static STRIPE: Cell<usize> = const { Cell::new(0) };
}

/// This thread counts where others don't.
pub fn count_apart(thread: usize) {
    STRIPE.set(thread % STRIPES);
}

/// Where this thread counts, below [`STRIPES`].
pub fn stripe() -> usize {
    STRIPE.get()
}

/// A sum that threads add to side by side.
#[derive(Debug, Default)]
pub struct Sum([Line<AtomicU64>; STRIPES]);

/// On cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Line<T>(T);

impl Sum {
    /// So many more.
    pub fn add(&self, n: u64) {
        self.0[STRIPE.get()].0.fetch_add(n, Ordering::Relaxed);
    }

    /// What all threads added.
    pub fn get(&self) -> u64 {
        self.0.iter().map(|line| line.0.load(Ordering::Relaxed)).sum()
    }

    /// From 0 again.
    pub fn reset(&self) {
        self.0.iter().for_each(|line| line.0.store(0, Ordering::Relaxed));
    }
}

/// Service times, nanoseconds, log-linear.
#[derive(Debug)]
pub struct Histogram {
    now: [Line<Counts>; STRIPES],
    past: Mutex<Past>,
}

/// What one thread counted.
#[derive(Debug)]
struct Counts {
    buckets: [AtomicU64; BUCKETS],
    sum_ns: AtomicU64,
}

impl Default for Counts {
    fn default() -> Self {
        Self { buckets: std::array::from_fn(|_| AtomicU64::new(0)), sum_ns: AtomicU64::new(0) }
    }
}

#[derive(Debug)]
struct Past {
    seen: [u64; BUCKETS],
    seconds: [[u64; BUCKETS]; WINDOW_S],
    at: usize,
    /// Seconds since anything was counted.
    idle_s: usize,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            now: Default::default(),
            past: Mutex::new(Past { seen: [0; BUCKETS], seconds: [[0; BUCKETS]; WINDOW_S], at: 0, idle_s: WINDOW_S }),
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
        let own = &self.now[STRIPE.get()].0;
        own.buckets[bucket(ns)].fetch_add(n, Ordering::Relaxed);
        own.sum_ns.fetch_add(ns.saturating_mul(n), Ordering::Relaxed);
    }

    /// What all threads counted in a bucket.
    fn count(&self, bucket: usize) -> u64 {
        self.now.iter().map(|own| own.0.buckets[bucket].load(Ordering::Relaxed)).sum()
    }

    /// Since the start: how many took less than each bound, bounds in nanoseconds; how many in all, and their sum.
    pub fn cumulative(&self) -> (Vec<(u64, u64)>, u64, u64) {
        let counts: Vec<u64> = (0..BUCKETS).map(|b| self.count(b)).collect();
        let below = |log: usize| counts[..log * 4].iter().sum();
        let buckets = BOUNDS.map(|log| (1u64 << log, below(log))).collect();
        let sum_ns = self.now.iter().fold(0u64, |sum, own| sum.wrapping_add(own.0.sum_ns.load(Ordering::Relaxed)));
        (buckets, counts.iter().sum(), sum_ns)
    }

    /// Called once a second: moves the window on.
    pub fn second(&self) {
        let mut p = lock(&self.past);
        let at = (p.at + 1) % WINDOW_S;
        p.at = at;
        let mut sum = 0;
        for b in 0..BUCKETS {
            let n = self.count(b);
            p.seconds[at][b] = n - p.seen[b];
            sum += p.seconds[at][b];
            p.seen[b] = n;
        }
        p.idle_s = if sum == 0 { (p.idle_s + 1).min(WINDOW_S) } else { 0 };
    }

    /// Counts of the window, added to `sums`.
    fn window(&self, sums: &mut [u64; BUCKETS]) {
        let p = lock(&self.past);
        if p.idle_s >= WINDOW_S {
            return;
        }
        for second in &p.seconds {
            sums.iter_mut().zip(second).for_each(|(sum, n)| *sum += n);
        }
    }
}

impl Counters {
    /// Quantiles (0–1) of service times over the last seconds, microseconds; none without traffic.
    pub fn quantiles_us<const N: usize>(&self, quantiles: [f64; N]) -> [Option<u64>; N] {
        let mut sums = [0; BUCKETS];
        self.classes.iter().for_each(|c| c.window(&mut sums));
        let all: u64 = sums.iter().sum();
        quantiles.map(|q| {
            let rank = (all as f64 * q).ceil().max(1.0) as u64;
            let mut seen = 0;
            (all > 0).then(|| {
                let b = sums.iter().position(|n| {
                    seen += n;
                    seen >= rank
                });
                middle_us(b.unwrap_or(BUCKETS - 1))
            })
        })
    }
}

/// What a node counts.
#[derive(Debug, Default)]
pub struct Counters {
    /// Commands executed.
    pub commands: Sum,
    /// Error replies sent.
    pub errors: AtomicU64,
    /// Client connections ever accepted.
    pub connections: AtomicU64,
    /// Client connections refused for `CLIENTS_MAX`.
    pub rejected: AtomicU64,
    /// Bytes read from clients.
    pub bytes_in: Sum,
    /// Bytes written to clients.
    pub bytes_out: Sum,
    /// Steps of copies, as sender or receiver.
    pub copies: AtomicU64,
    /// Service times by class of command: [`CLASSES`].
    pub classes: [Histogram; 3],
    /// How long replies were held until they were confirmed.
    pub held: Histogram,
    codes: Mutex<BTreeMap<String, u64>>,
}

/// What a command does to data.
pub const CLASSES: [&str; 3] = ["read", "write", "other"];

impl Counters {
    /// An error reply leaves, `-CODE text`.
    pub fn erred(&self, reply: &[u8]) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        let code = reply.get(1..).unwrap_or_default().split(|b| matches!(b, b' ' | b'\r')).next().unwrap_or_default();
        let code = String::from_utf8_lossy(code);
        let mut codes = lock(&self.codes);
        if codes.len() < CODES_MAX || codes.contains_key(&*code) {
            *codes.entry(code.into_owned()).or_default() += 1;
        }
    }

    /// Error replies by code.
    pub fn error_codes(&self) -> Vec<(String, u64)> {
        lock(&self.codes).iter().map(|(code, n)| (code.clone(), *n)).collect()
    }

    /// CONFIG RESETSTAT.
    pub fn forget_codes(&self) {
        lock(&self.codes).clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_kept_exactly() {
        let h = Histogram::default();
        for ns in [1, 4095, 4096, 1 << 20, u64::MAX >> 30] {
            h.record(ns, 1);
        }
        let (buckets, count, sum) = h.cumulative();
        assert_eq!((buckets[0], buckets[1]), ((4096, 2), (8192, 3)));
        assert_eq!(buckets.iter().find(|b| b.0 == 1 << 20).map(|b| b.1), Some(3));
        assert_eq!(buckets.iter().find(|b| b.0 == 1 << 21).map(|b| b.1), Some(4));
        assert_eq!((count, sum), (5, 1 + 4095 + 4096 + (1 << 20) + (u64::MAX >> 30)));
    }

    #[test]
    fn errors_are_told_apart_by_code() {
        let c = Counters::default();
        c.erred(b"-WRONGTYPE Operation\r\n");
        c.erred(b"-ERR x\r\n");
        c.erred(b"-ERR\r\n");
        assert_eq!(c.error_codes(), [("ERR".to_owned(), 2), ("WRONGTYPE".to_owned(), 1)]);
        assert_eq!(c.errors.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn quantiles_are_within_an_eighth() {
        let h = Counters::default();
        assert_eq!(h.quantiles_us([0.5])[0], None);
        for us in 1..=1000u64 {
            h.classes[us as usize % 3].record(us * 1000, 1);
        }
        h.classes.iter().for_each(Histogram::second);
        for (q, want) in [(0.5, 500.0), (0.99, 990.0)] {
            let got = h.quantiles_us([q])[0].unwrap() as f64;
            assert!((got - want).abs() <= want / 8.0 + 1.0, "{q}: {got}");
        }
        for _ in 0..WINDOW_S {
            h.classes.iter().for_each(Histogram::second);
        }
        assert_eq!(h.quantiles_us([0.5])[0], None, "old seconds leave the window");
    }
}
