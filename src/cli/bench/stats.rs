//! What workers count while they run: one writer a cell, read by whoever shows progress.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::codec::Kind;
use super::histogram::{Histogram, Sum};

/// Different error texts that are kept apart; a server can invent any number.
const CODES_MAX: usize = 32;
/// Examples of wrong reads that are kept for the report.
const EXAMPLES_MAX: usize = 5;

/// A lock whose holder may have panicked; what it guards is counters.
pub fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A counter with one writer.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// One more.
    pub fn one(&self) {
        self.0.store(self.0.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// How many.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One worker's counts of one node.
#[derive(Debug, Default)]
pub struct NodeCounts {
    /// Reads answered, by latency.
    pub gets: Histogram,
    /// Writes acknowledged, by latency.
    pub sets: Histogram,
    /// Reads that found a value.
    pub hits: Count,
    /// Reads that found none.
    pub misses: Count,
    /// Operations sent on to another node by MOVED or ASK.
    pub follows: Count,
    /// Operations that failed.
    pub errors: Count,
}

impl NodeCounts {
    /// An operation was answered after `ns`.
    pub fn answered(&self, kind: Kind, ns: u64) {
        match kind {
            Kind::Get => self.gets.record(ns),
            Kind::Set => self.sets.record(ns),
        }
    }
}

/// What `--verify` counts.
#[derive(Debug, Default)]
pub struct Verified {
    /// Reads compared.
    pub checked: Count,
    /// Reads that showed an older state and later the right one.
    pub stale: Count,
    /// Acknowledged writes that were gone twice.
    pub lost: Count,
    /// Values that were nobody's.
    pub corrupt: Count,
    /// Writes whose outcome was never heard.
    pub unknown: Count,
    examples: Mutex<Vec<String>>,
}

impl Verified {
    /// Keeps an example of what went wrong.
    pub fn example(&self, text: impl FnOnce() -> String) {
        let mut all = lock(&self.examples);
        if all.len() < EXAMPLES_MAX {
            all.push(text());
        }
    }

    /// Those kept.
    pub fn examples(&self) -> Vec<String> {
        lock(&self.examples).clone()
    }
}

/// One worker's counts.
#[derive(Debug, Default)]
pub struct Counts {
    nodes: Mutex<Vec<Arc<NodeCounts>>>,
    errors: Mutex<BTreeMap<String, u64>>,
    /// What `--verify` found.
    pub verified: Verified,
}

impl Counts {
    /// Those of a node, by its number in the table of nodes.
    pub fn node(&self, n: usize) -> Arc<NodeCounts> {
        let mut all = lock(&self.nodes);
        while all.len() <= n {
            all.push(Arc::default());
        }
        all[n].clone()
    }

    /// An operation failed for this reason.
    pub fn failed(&self, code: &str) {
        let mut all = lock(&self.errors);
        let code = if all.len() >= CODES_MAX && !all.contains_key(code) { "OTHER" } else { code };
        *all.entry(code.to_owned()).or_default() += 1;
    }
}

/// Sums over all workers at one moment.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    /// By node.
    pub nodes: Vec<NodeReading>,
    /// By code.
    pub errors: BTreeMap<String, u64>,
}

/// One node's.
#[derive(Debug, Clone, Default)]
pub struct NodeReading {
    /// Reads.
    pub gets: Sum,
    /// Writes.
    pub sets: Sum,
    /// As in [`NodeCounts`].
    pub hits: u64,
    /// As in [`NodeCounts`].
    pub misses: u64,
    /// As in [`NodeCounts`].
    pub follows: u64,
    /// As in [`NodeCounts`].
    pub errors: u64,
}

impl NodeReading {
    /// Reads and writes.
    pub fn both(&self) -> Sum {
        let mut sum = self.gets.clone();
        sum.merge(&self.sets);
        sum
    }

    fn add(&mut self, c: &NodeCounts) {
        self.gets.add(&c.gets);
        self.sets.add(&c.sets);
        self.hits += c.hits.get();
        self.misses += c.misses.get();
        self.follows += c.follows.get();
        self.errors += c.errors.get();
    }

    fn merge(&mut self, o: &NodeReading) {
        self.gets.merge(&o.gets);
        self.sets.merge(&o.sets);
        self.hits += o.hits;
        self.misses += o.misses;
        self.follows += o.follows;
        self.errors += o.errors;
    }

    fn since(&self, o: &NodeReading) -> NodeReading {
        NodeReading {
            gets: self.gets.since(&o.gets),
            sets: self.sets.since(&o.sets),
            hits: self.hits - o.hits,
            misses: self.misses - o.misses,
            follows: self.follows - o.follows,
            errors: self.errors - o.errors,
        }
    }
}

impl Reading {
    /// Now.
    pub fn of(all: &[Arc<Counts>]) -> Self {
        let mut reading = Reading::default();
        for counts in all {
            let nodes: Vec<_> = lock(&counts.nodes).clone();
            if reading.nodes.len() < nodes.len() {
                reading.nodes.resize_with(nodes.len(), NodeReading::default);
            }
            reading.nodes.iter_mut().zip(&nodes).for_each(|(to, from)| to.add(from));
            for (code, n) in &*lock(&counts.errors) {
                *reading.errors.entry(code.clone()).or_default() += n;
            }
        }
        reading
    }

    /// What came since an earlier one of the same workers.
    pub fn since(&self, earlier: &Reading) -> Reading {
        let none = NodeReading::default();
        let nodes = self.nodes.iter().enumerate();
        let errors = self.errors.iter().map(|(code, n)| (code.clone(), n - earlier.errors.get(code).unwrap_or(&0)));
        Reading {
            nodes: nodes.map(|(i, n)| n.since(earlier.nodes.get(i).unwrap_or(&none))).collect(),
            errors: errors.filter(|(_, n)| *n > 0).collect(),
        }
    }

    /// All nodes together.
    pub fn total(&self) -> NodeReading {
        let mut total = NodeReading::default();
        self.nodes.iter().for_each(|n| total.merge(n));
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_add_up_and_subtract() {
        let all = [Arc::new(Counts::default()), Arc::new(Counts::default())];
        all[0].node(1).answered(Kind::Get, 1000);
        all[0].failed("MOVED");
        let before = Reading::of(&all);
        all[1].node(0).answered(Kind::Set, 5000);
        all[1].node(1).hits.one();
        all[0].failed("OOM");
        let since = Reading::of(&all).since(&before);
        assert_eq!(since.total().both().count(), 1);
        assert_eq!(since.total().sets.max(), Some(5000));
        assert_eq!((since.nodes[1].hits, since.nodes[0].hits), (1, 0));
        assert_eq!(since.errors.into_iter().collect::<Vec<_>>(), [("OOM".to_owned(), 1)]);
    }

    #[test]
    fn a_server_can_not_fill_the_memory_with_error_codes() {
        let counts = Counts::default();
        (0..1000).for_each(|i| counts.failed(&format!("E{i}")));
        let all = Reading::of(&[Arc::new(counts)]).errors;
        assert_eq!(all.len(), CODES_MAX + 1);
        assert_eq!(all["OTHER"], 1000 - CODES_MAX as u64);
    }
}
