//! What the kernel knows of this process, and its metrics by Prometheus's common names.

use std::fs;

use super::exposition::{Exposition, Type};

/// Zeros where the kernel does not say.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct Process {
    /// Resident bytes.
    pub rss_bytes: u64,
    /// The most there ever were.
    pub rss_peak_bytes: u64,
    /// CPU in user mode, seconds.
    pub cpu_user_s: f64,
    /// CPU in the kernel, seconds.
    pub cpu_sys_s: f64,
}

impl Process {
    /// Now.
    pub fn read() -> Self {
        let text = |name| fs::read_to_string(name).unwrap_or_default();
        Self::parse(&text("/proc/self/status"), &text("/proc/self/stat"), rustix::param::clock_ticks_per_second())
    }

    fn parse(status: &str, stat: &str, ticks_per_s: u64) -> Self {
        let kib = |name: &str| {
            let line = status.lines().find_map(|l| l.strip_prefix(name));
            line.and_then(|l| l.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0) << 10
        };
        // The second field, the program's name, may hold spaces; it ends with the last bracket. utime and stime are the
        // 14th and 15th.
        let fields: Vec<&str> = stat.rsplit_once(')').map_or(vec![], |(_, rest)| rest.split_whitespace().collect());
        let ticks = |n: usize| fields.get(n - 3).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
        let seconds = |n| ticks(n) as f64 / ticks_per_s.max(1) as f64;
        Self { rss_bytes: kib("VmRSS"), rss_peak_bytes: kib("VmHWM"), cpu_user_s: seconds(14), cpu_sys_s: seconds(15) }
    }

    /// Puts them into an exposition, with the version of the program.
    pub fn expose(&self, e: &mut Exposition) {
        e.family("cachectl_build_info", Type::Gauge, "Always 1; the version is a label.")
            .sample(&[("version", env!("CARGO_PKG_VERSION"))], 1.0);
        e.family("process_cpu_seconds", Type::Counter, "CPU time, user and kernel.")
            .sample(&[], self.cpu_user_s + self.cpu_sys_s);
        e.family("process_resident_memory_bytes", Type::Gauge, "Resident memory.").sample(&[], self.rss_bytes as f64);
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            e.family("process_open_fds", Type::Gauge, "Open file descriptors.").sample(&[], open.count() as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_read_right() {
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 1 0 1 1 1";
        let want = Process { rss_bytes: 1 << 20, rss_peak_bytes: 2 << 20, cpu_user_s: 2.5, cpu_sys_s: 0.5 };
        assert_eq!(Process::parse(status, stat, 100), want);
        assert_eq!(Process::parse("", "", 0), Process::default());
        assert!(Process::read().rss_bytes > 0);
    }
}
