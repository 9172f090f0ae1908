//! What the views said over the last two minutes, one bucket a second. Bounded; a second without a view stays empty,
//! so that a chart never draws a line through time nobody measured.

use std::collections::{BTreeMap, VecDeque};

use crate::proto::status::{NodeStatus, Status};

/// How far back charts go, seconds: two minutes fit one braille column each on a 120-column screen.
pub const HISTORY_S: usize = 120;

/// Rates are taken over at least this long, milliseconds: shorter ones jump with every view.
const RATE_WINDOW_MS: u64 = 1000;

/// Views further apart than this give no rate, milliseconds: it would be an average over an outage.
const RATE_GAP_MAX_MS: u64 = 10_000;

/// What one second was like.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Bucket {
    second: u64,
    views: u32,
    ops_sum: f64,
    p50_us: Option<u64>,
    p99_us: Option<u64>,
}

/// One line of a chart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Series {
    /// Commands a second, all nodes.
    Ops,
    /// Median service time of the slowest node, microseconds.
    P50,
    /// 99th percentile of the slowest node, microseconds.
    P99,
}

/// Counters of one life of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Counters {
    evicted: u64,
    expired: u64,
    errors: u64,
}

/// How fast the cluster's counters rise, per second; none until two views tell.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Rates {
    /// Keys dropped for memory.
    pub evicted: Option<f64>,
    /// Keys dropped at their deadline.
    pub expired: Option<f64>,
    /// Error replies.
    pub errors: Option<f64>,
}

/// Two minutes of the cluster.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct History {
    buckets: VecDeque<Bucket>,
    base: BTreeMap<(String, String), Counters>,
    base_ms: u64,
    rates: Rates,
}

impl History {
    /// Takes a view in, as of `now_ms` on the caller's monotonic clock.
    pub fn record(&mut self, now_ms: u64, status: &Status) {
        self.record_bucket(now_ms / 1000, status);
        self.record_rates(now_ms, &status.nodes);
    }

    fn record_bucket(&mut self, second: u64, status: &Status) {
        let ops = total_ops(&status.nodes);
        let p50 = status.nodes.iter().filter_map(|n| n.p50_us).max();
        let p99 = status.nodes.iter().filter_map(|n| n.p99_us).max();
        match self.buckets.back_mut() {
            Some(b) if b.second >= second => {
                b.views = b.views.saturating_add(1);
                b.ops_sum += ops;
                b.p50_us = b.p50_us.max(p50);
                b.p99_us = b.p99_us.max(p99);
            }
            _ => self.buckets.push_back(Bucket { second, views: 1, ops_sum: ops, p50_us: p50, p99_us: p99 }),
        }
        while self.buckets.len() > HISTORY_S {
            self.buckets.pop_front();
        }
    }

    fn record_rates(&mut self, now_ms: u64, nodes: &[NodeStatus]) {
        let elapsed = now_ms.saturating_sub(self.base_ms);
        if !self.base.is_empty() && elapsed < RATE_WINDOW_MS {
            return;
        }
        let now: BTreeMap<_, _> = nodes
            .iter()
            .map(|n| {
                let c = Counters { evicted: n.evicted, expired: n.expired, errors: n.errors };
                ((n.id.clone(), n.incarnation.clone()), c)
            })
            .collect();
        if self.base.is_empty() || elapsed > RATE_GAP_MAX_MS {
            self.rates = Rates::default();
        } else {
            // Only lives seen at both ends count: a new one starts at 0 and would look like a fall, or a burst.
            let rise = |field: fn(&Counters) -> u64| {
                let sum: f64 = now
                    .iter()
                    .filter_map(|(who, c)| self.base.get(who).map(|b| field(c).saturating_sub(field(b)) as f64))
                    .sum();
                Some(sum * 1000.0 / elapsed.max(1) as f64)
            };
            self.rates =
                Rates { evicted: rise(|c| c.evicted), expired: rise(|c| c.expired), errors: rise(|c| c.errors) };
        }
        self.base = now;
        self.base_ms = now_ms;
    }

    /// How fast counters rise.
    pub fn rates(&self) -> Rates {
        self.rates
    }

    /// The last [`HISTORY_S`] seconds up to `now_ms`, oldest first; none where no view came.
    pub fn series(&self, series: Series, now_ms: u64) -> Vec<Option<f64>> {
        let mut out = vec![None; HISTORY_S];
        let last = now_ms / 1000;
        for b in &self.buckets {
            let Some(ago) = last.checked_sub(b.second).filter(|ago| *ago < HISTORY_S as u64) else { continue };
            let value = match series {
                Series::Ops => Some(b.ops_sum / f64::from(b.views.max(1))),
                Series::P50 => b.p50_us.map(|v| v as f64),
                Series::P99 => b.p99_us.map(|v| v as f64),
            };
            out[HISTORY_S - 1 - ago as usize] = value.filter(|v| v.is_finite());
        }
        out
    }
}

/// Commands a second of all nodes; what is not a number counts as 0.
pub fn total_ops(nodes: &[NodeStatus]) -> f64 {
    nodes.iter().map(|n| n.ops_per_s).filter(|v| v.is_finite() && *v > 0.0).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::fixture;

    #[test]
    fn it_is_bounded_and_keeps_holes() {
        let mut h = History::default();
        let status = fixture::healthy().status;
        for s in (0..1000).filter(|s| *s != 990) {
            h.record(s * 1000, &status);
            h.record(s * 1000 + 400, &status);
        }
        let ops = h.series(Series::Ops, 999_900);
        assert_eq!(ops.len(), HISTORY_S);
        assert_eq!(h.buckets.len(), HISTORY_S);
        assert_eq!(ops[HISTORY_S - 1 - 9], None, "second 990 had no view");
        assert_eq!(ops[HISTORY_S - 1], Some(total_ops(&status.nodes)), "a second is averaged, not summed");
        assert!(h.series(Series::P99, 5_000_000).iter().all(Option::is_none), "all too old");
    }

    #[test]
    fn rates_ignore_new_lives() {
        let mut h = History::default();
        let mut status = fixture::healthy().status;
        status.nodes.truncate(2);
        for n in &mut status.nodes {
            n.evicted = 100;
        }
        h.record(0, &status);
        assert_eq!(h.rates().evicted, None);
        status.nodes[0].evicted = 300;
        status.nodes[1].evicted = 5;
        status.nodes[1].incarnation = "another".into();
        h.record(2000, &status);
        assert_eq!(h.rates().evicted, Some(100.0));
        status.nodes[0].evicted = 0;
        h.record(3000, &status);
        assert_eq!(h.rates().evicted, Some(0.0), "a counter that falls is a restart, not a negative rate");
        h.record(60_000, &status);
        assert_eq!(h.rates().evicted, None, "no average over an outage");
    }

    #[test]
    fn hostile_numbers_do_no_harm() {
        let mut h = History::default();
        let mut status = fixture::healthy().status;
        status.nodes[0].ops_per_s = f64::NAN;
        status.nodes[1].ops_per_s = f64::INFINITY;
        status.nodes[1].evicted = u64::MAX;
        h.record(u64::MAX, &status);
        h.record(0, &status);
        assert!(h.series(Series::Ops, u64::MAX).iter().flatten().all(|v| v.is_finite()));
    }
}
