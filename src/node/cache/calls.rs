//! What is counted of every command. Each thread counts apart: cores would otherwise fight for the lines of the few commands that
//! everybody sends.

use std::sync::atomic::{AtomicU64, Ordering};

use super::command::{self, Spec};
use super::stats::{STRIPES, stripe};

/// Of all commands.
#[derive(Debug)]
pub struct Calls {
    /// By [`Spec::index`]: of the first thread, and of those that don't count apart.
    first: Box<[Counts]>,
    /// Of the others in turn.
    others: Vec<Box<[Counts]>>,
}

/// Of one command, by one thread.
#[derive(Debug, Default)]
struct Counts {
    calls: AtomicU64,
    failed: AtomicU64,
    /// How many were timed, and how long these took, nanoseconds.
    timed: AtomicU64,
    timed_ns: AtomicU64,
}

/// What is known of one command's calls.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Called {
    /// Executed.
    pub calls: u64,
    /// Of these failed.
    pub failed: u64,
    timed: u64,
    timed_ns: u64,
}

impl Called {
    /// What all calls took, from those that were timed, microseconds.
    pub fn usec(&self) -> u64 {
        let ns = u128::from(self.timed_ns) * u128::from(self.calls) / u128::from(self.timed.max(1));
        u64::try_from(ns / 1000).unwrap_or(u64::MAX)
    }
}

impl Calls {
    /// For so many threads.
    pub fn new(threads: usize) -> Self {
        let none = || command::all().iter().map(|_| Counts::default()).collect();
        Self { first: none(), others: (1..threads.clamp(1, STRIPES)).map(|_| none()).collect() }
    }

    #[inline(always)]
    fn own(&self, spec: &Spec) -> Option<&Counts> {
        let own = self.others.get(stripe().wrapping_sub(1)).unwrap_or(&self.first);
        own.get(spec.index())
    }

    fn all(&self) -> impl Iterator<Item = &[Counts]> {
        std::iter::once(&self.first).chain(&self.others).map(|own| &**own)
    }

    /// So many ran, and so many of them failed.
    #[inline]
    pub fn count(&self, spec: &Spec, calls: u64, failed: u64) {
        if let Some(own) = self.own(spec) {
            own.calls.fetch_add(calls, Ordering::Relaxed);
            if failed > 0 {
                own.failed.fetch_add(failed, Ordering::Relaxed);
            }
        }
    }

    /// One took `ns`.
    pub fn timed(&self, spec: &Spec, ns: u64) {
        if let Some(own) = self.own(spec) {
            own.timed.fetch_add(1, Ordering::Relaxed);
            own.timed_ns.fetch_add(ns, Ordering::Relaxed);
        }
    }

    /// All commands that were called.
    pub fn iter(&self) -> impl Iterator<Item = (&'static Spec, Called)> {
        command::all().iter().map(|spec| (spec, self.of(spec))).filter(|(_, called)| called.calls > 0)
    }

    fn of(&self, spec: &Spec) -> Called {
        let mut all = Called::default();
        for own in self.all().filter_map(|own| own.get(spec.index())) {
            all.calls += own.calls.load(Ordering::Relaxed);
            all.failed += own.failed.load(Ordering::Relaxed);
            all.timed += own.timed.load(Ordering::Relaxed);
            all.timed_ns = all.timed_ns.wrapping_add(own.timed_ns.load(Ordering::Relaxed));
        }
        all
    }

    /// CONFIG RESETSTAT.
    pub fn reset(&self) {
        for own in self.all().flatten() {
            [&own.calls, &own.failed, &own.timed, &own.timed_ns]
                .into_iter()
                .for_each(|n| n.store(0, Ordering::Relaxed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::cache::stats::count_apart;

    #[test]
    fn what_threads_count_apart_is_one_sum() {
        let calls = Calls::new(2);
        let get = command::all().iter().find(|s| s.name == "get").unwrap();
        std::thread::scope(|s| {
            for thread in 0..5 {
                let calls = &calls;
                s.spawn(move || {
                    count_apart(thread);
                    calls.count(get, 10, 1);
                    calls.timed(get, 3000);
                });
            }
        });
        let all: Vec<_> = calls.iter().map(|(spec, c)| (spec.name, c.calls, c.failed, c.usec())).collect();
        assert_eq!(all, [("get", 50, 5, 150)]);
        calls.reset();
        assert_eq!(calls.iter().count(), 0);
    }
}
