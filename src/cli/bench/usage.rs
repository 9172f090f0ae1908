//! What processes cost, as the kernel counts it: the generator's own CPU, and CPU and memory of the servers on this machine.

use std::fs;

use rustix::time::{ClockId, clock_gettime};

/// CPU seconds of this process so far, all threads, user and kernel.
pub fn own_cpu_s() -> f64 {
    let t = clock_gettime(ClockId::ProcessCPUTime);
    t.tv_sec as f64 + t.tv_nsec as f64 / 1e9
}

/// Some processes at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// CPU seconds so far, user and kernel.
    pub cpu_s: f64,
    /// Resident bytes.
    pub rss_bytes: u64,
}

impl Usage {
    /// Of these processes together; one that is gone counts as nothing.
    pub fn of(pids: &[u32]) -> Self {
        let mut all = Usage::default();
        for pid in pids {
            let text = |name| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
            let one = Self::parse(&text("stat"), &text("statm"));
            all.cpu_s += one.cpu_s;
            all.rss_bytes += one.rss_bytes;
        }
        all
    }

    fn parse(stat: &str, statm: &str) -> Self {
        // The second field, the program's name, may hold spaces; it ends with the last bracket. utime and stime are the
        // 14th and 15th.
        let fields: Vec<&str> = stat.rsplit_once(')').map_or(vec![], |(_, rest)| rest.split_whitespace().collect());
        let ticks = |n: usize| fields.get(n - 3).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
        let pages = statm.split(' ').nth(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        Self {
            cpu_s: (ticks(14) + ticks(15)) as f64 / rustix::param::clock_ticks_per_second().max(1) as f64,
            rss_bytes: pages * rustix::param::page_size() as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_read_right() {
        let tick = 1.0 / rustix::param::clock_ticks_per_second() as f64;
        let got = Usage::parse("7 (a b) c) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 1", "900 3 1 1 0 1 0\n");
        assert!((got.cpu_s - 300.0 * tick).abs() < 1e-9);
        assert_eq!(got.rss_bytes, 3 * rustix::param::page_size() as u64);
        assert_eq!(Usage::parse("", ""), Usage::default());
        assert!(Usage::of(&[std::process::id()]).rss_bytes > 0);
    }

    #[test]
    fn own_cpu_rises_with_work() {
        let before = own_cpu_s();
        let mut x = 1u64;
        while own_cpu_s() <= before {
            x = std::hint::black_box(x.wrapping_mul(3));
        }
    }
}
