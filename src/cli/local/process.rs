//! Who a process is, so that no other is ever signalled: its pid alone may have been reused since.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// How often a wait for processes to end looks again: a fraction of what an exit takes.
const LOOK: Duration = Duration::from_millis(5);

/// A process of this boot: pid and start time together are never used twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Process id.
    pub pid: u32,
    /// Clock ticks from boot to its start (`/proc/PID/stat`, field 22).
    pub start_time: u64,
    /// Which boot: ticks begin again at the next one.
    pub boot_id: String,
}

impl Identity {
    /// Of a process that runs now.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = Stat::read(pid)?;
        Some(Self { pid, start_time: stat.start_time, boot_id: boot_id().to_owned() })
    }

    /// Whether that very process still runs; one that ended and was not waited for does not.
    pub fn alive(&self) -> bool {
        self.boot_id == boot_id() && Stat::read(self.pid).is_some_and(|s| s.start_time == self.start_time && !s.ended())
    }

    /// Whether that very process stands still (SIGSTOP).
    pub fn paused(&self) -> bool {
        self.alive() && Stat::read(self.pid).is_some_and(|s| matches!(s.state, b'T' | b't'))
    }

    /// Signals that very process and no other: the pidfd pins the pid before the start time is compared.
    pub fn signal(&self, signal: Signal) -> rustix::io::Result<()> {
        let gone = rustix::io::Errno::SRCH;
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw).ok_or(gone)?;
        let fd = pidfd_open(pid, PidfdFlags::empty())?;
        if !self.alive() {
            return Err(gone);
        }
        pidfd_send_signal(&fd, signal)
    }
}

/// Waits until none of them runs; those that still do at the deadline are returned.
pub async fn wait_gone<'a>(all: impl Iterator<Item = &'a Identity>, within: Duration) -> Vec<&'a Identity> {
    let end = Instant::now() + within;
    let mut left: Vec<&Identity> = all.collect();
    loop {
        left.retain(|p| p.alive());
        if left.is_empty() || Instant::now() >= end {
            return left;
        }
        tokio::time::sleep(LOOK).await;
    }
}

struct Stat {
    state: u8,
    threads: u64,
    start_time: u64,
}

impl Stat {
    /// Whether it only waits to be waited for. While other threads of it still end, so does what it holds: ports, locks.
    fn ended(&self) -> bool {
        self.state == b'X' || (self.state == b'Z' && self.threads <= 1)
    }

    fn read(pid: u32) -> Option<Self> {
        Self::parse(&std::fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    /// `pid (name) state …`: the name may hold blanks and parentheses, so fields are counted from the last `)`.
    fn parse(text: &[u8]) -> Option<Self> {
        /// Fields 20 and 22, counted from field 3, the first after the name.
        const THREADS: usize = 20 - 3;
        const START_TIME: usize = 22 - 3;
        let close = text.iter().rposition(|b| *b == b')')?;
        let rest = std::str::from_utf8(text.get(close + 2..)?).ok()?;
        let mut fields = rest.split_ascii_whitespace();
        let state = *fields.next()?.as_bytes().first()?;
        let threads = fields.nth(THREADS - 1)?.parse().ok()?;
        let start_time = fields.nth(START_TIME - THREADS - 1)?.parse().ok()?;
        Some(Self { state, threads, start_time })
    }
}

fn boot_id() -> &'static str {
    static ID: OnceLock<String> = OnceLock::new();
    ID.get_or_init(|| {
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|s| s.trim().to_owned()).unwrap_or_default()
    })
}

/// The program's name of a process, for words.
pub fn comm(pid: u32) -> Option<String> {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).ok().map(|s| s.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_from_the_last_parenthesis() {
        let line = b"42 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 987654 20 21";
        let s = Stat::parse(line).unwrap();
        assert_eq!((s.state, s.threads, s.start_time), (b'S', 17, 987_654));
        assert!(!s.ended() && !Stat { state: b'Z', ..s }.ended());
        assert!(Stat { state: b'Z', threads: 1, start_time: 1 }.ended());
        assert!(Stat::parse(b"42 (a").is_none());
        assert!(Stat::parse(b"42 (a) S 1").is_none());
    }

    #[test]
    fn a_reused_pid_is_another_process() {
        let me = Identity::of(std::process::id()).unwrap();
        assert!(me.alive());
        let other = Identity { start_time: me.start_time + 1, ..me.clone() };
        assert!(!other.alive());
        assert_eq!(other.signal(Signal::TERM), Err(rustix::io::Errno::SRCH));
        let earlier_boot = Identity { boot_id: "x".into(), ..me };
        assert!(!earlier_boot.alive());
    }

    #[test]
    fn an_ended_child_is_gone_and_a_running_one_can_be_signalled() {
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let id = Identity::of(child.id()).unwrap();
        assert!(id.alive());
        id.signal(Signal::KILL).unwrap();
        let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        // Not waited for: a zombie counts as gone.
        assert!(rt.block_on(wait_gone([&id].into_iter(), Duration::from_secs(30))).is_empty());
        child.wait().unwrap();
        assert!(!id.alive());
    }
}
