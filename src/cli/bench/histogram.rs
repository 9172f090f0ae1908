//! Latencies in log-linear buckets, 128 to each power of two (after HdrHistogram, Gil Tene): a quantile is within 0.4 % of the
//! value it stands for. One thread writes, any may read at the same time.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bits of a value that are kept: 2^7 buckets to each power of two above 2^8, one to each value below.
const BITS: u32 = 8;
/// Buckets within one power of two.
const HALF: usize = 1 << (BITS - 1);
/// Values above are counted as this, nanoseconds: 2^40, 18 minutes.
const TOP: u32 = 40;
const BUCKETS: usize = (TOP - BITS + 2) as usize * HALF;

/// Counts by nanoseconds.
#[derive(Debug)]
pub struct Histogram {
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
    max: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
            max: AtomicU64::new(0),
        }
    }
}

fn bucket(ns: u64) -> usize {
    let ns = ns.min((1 << TOP) - 1);
    let shift = 64 - BITS - (ns | ((1 << BITS) - 1)).leading_zeros();
    shift as usize * HALF + (ns >> shift) as usize
}

/// The middle of a bucket.
fn middle(bucket: usize) -> u64 {
    let shift = (bucket / HALF).saturating_sub(1);
    let low = ((bucket - shift * HALF) as u64) << shift;
    low + ((1u64 << shift) >> 1)
}

/// One writer: a load and a store cost less than a locked add.
fn add(to: &AtomicU64, n: u64) {
    to.store(to.load(Ordering::Relaxed) + n, Ordering::Relaxed);
}

impl Histogram {
    /// It took so long. Only the owning thread calls this.
    pub fn record(&self, ns: u64) {
        add(&self.counts[bucket(ns)], 1);
        add(&self.sum, ns);
        if ns > self.max.load(Ordering::Relaxed) {
            self.max.store(ns, Ordering::Relaxed);
        }
    }
}

/// A reading of histograms, added up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sum {
    counts: Vec<u64>,
    n: u64,
    sum: u64,
    max: u64,
}

impl Default for Sum {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], n: 0, sum: 0, max: 0 }
    }
}

impl Sum {
    /// Adds what one holds now.
    pub fn add(&mut self, h: &Histogram) {
        for (to, from) in self.counts.iter_mut().zip(&h.counts) {
            let n = from.load(Ordering::Relaxed);
            *to += n;
            self.n += n;
        }
        self.sum += h.sum.load(Ordering::Relaxed);
        self.max = self.max.max(h.max.load(Ordering::Relaxed));
    }

    /// Adds another reading.
    pub fn merge(&mut self, other: &Sum) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(to, from)| *to += from);
        self.n += other.n;
        self.sum += other.sum;
        self.max = self.max.max(other.max);
    }

    /// What came since an earlier reading of the same histograms. The largest value is known to a bucket's width only,
    /// unless it came since.
    pub fn since(&self, earlier: &Sum) -> Sum {
        let counts: Vec<u64> = self.counts.iter().zip(&earlier.counts).map(|(a, b)| a - b).collect();
        let last = counts.iter().rposition(|&n| n > 0);
        let max = match last {
            None => 0,
            Some(b) if b == bucket(self.max) => self.max,
            Some(b) => middle(b),
        };
        Sum { counts, n: self.n - earlier.n, sum: self.sum.wrapping_sub(earlier.sum), max }
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.n
    }

    /// The mean, nanoseconds; none of nothing.
    pub fn mean(&self) -> Option<f64> {
        (self.n > 0).then(|| self.sum as f64 / self.n as f64)
    }

    /// The largest, nanoseconds.
    pub fn max(&self) -> Option<u64> {
        (self.n > 0).then_some(self.max)
    }

    /// The smallest value that at least the share `q` (0–1) of all does not exceed, nanoseconds.
    pub fn quantile(&self, q: f64) -> Option<u64> {
        let rank = (self.n as f64 * q).ceil().max(1.0) as u64;
        let mut seen = 0;
        let at = self.counts.iter().position(|n| {
            seen += n;
            *n > 0 && seen >= rank
        })?;
        // A bucket's middle may lie above the largest value in it.
        Some(middle(at).min(self.max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl IntoIterator<Item = u64>) -> Sum {
        let h = Histogram::default();
        values.into_iter().for_each(|v| h.record(v));
        let mut sum = Sum::default();
        sum.add(&h);
        sum
    }

    #[test]
    fn buckets_cover_all_values_in_order_and_stay_narrow() {
        let mut last = 0;
        for exponent in 0..TOP {
            for part in 0..1000u64 {
                let v = (1u64 << exponent) + ((1u64 << exponent) * part / 1000);
                let b = bucket(v);
                assert!(b >= last && b < BUCKETS, "{v}");
                last = b;
                let off = middle(b).abs_diff(v) as f64;
                assert!(off <= v as f64 * 0.004 + 0.5, "{v} is shown as {}", middle(b));
            }
        }
        assert_eq!(bucket(u64::MAX), bucket((1 << TOP) - 1));
        assert_eq!(bucket(0), 0);
    }

    #[test]
    fn quantiles_agree_with_the_sorted_values() {
        let mut x = 1u64;
        let mut values: Vec<u64> = (0..50_000)
            .map(|_| {
                x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                1_000 + (x >> 40) * (x >> 60)
            })
            .collect();
        let sum = of(values.iter().copied());
        values.sort_unstable();
        for q in [0.001, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999, 1.0] {
            let want = values[((values.len() as f64 * q).ceil() as usize).max(1) - 1] as f64;
            let got = sum.quantile(q).unwrap() as f64;
            assert!((got - want).abs() <= want * 0.004 + 1.0, "{q}: {got} for {want}");
        }
        assert_eq!(sum.max(), values.last().copied());
        let mean = values.iter().sum::<u64>() as f64 / values.len() as f64;
        assert!((sum.mean().unwrap() - mean).abs() < 1e-6);
        assert_eq!(Sum::default().quantile(0.5), None);
        assert_eq!(of([7]).quantile(0.5), Some(7));
    }

    #[test]
    fn a_window_holds_what_came_since() {
        let h = Histogram::default();
        h.record(1_000_000_000);
        let mut before = Sum::default();
        before.add(&h);
        (0..10).for_each(|_| h.record(1000));
        let mut after = Sum::default();
        after.add(&h);
        let window = after.since(&before);
        assert_eq!(window.count(), 10);
        assert!(window.max().unwrap().abs_diff(1000) <= 4);
        assert_eq!(window.mean(), Some(1000.0));
        let mut both = window.clone();
        both.merge(&before);
        assert_eq!(both.count(), 11);
        assert_eq!(both.max(), Some(1_000_000_000));
    }
}
