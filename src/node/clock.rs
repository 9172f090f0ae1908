//! Time. Leases and timers use CLOCK_BOOTTIME (`Instant` stops in suspend); wall time is for people and TTLs of clients.

use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// A point in time on CLOCK_BOOTTIME, nanoseconds. Only differences mean something, and only within one boot of one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mono(pub u64);

impl Mono {
    /// Now.
    pub fn now() -> Self {
        #[cfg(test)]
        if let Some(now) = simulated::now() {
            return now;
        }
        let t = clock_gettime(ClockId::Boottime);
        Mono(t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64)
    }

    /// This plus milliseconds.
    pub fn plus_ms(self, ms: u64) -> Self {
        Mono(self.0.saturating_add(ms.saturating_mul(1_000_000)))
    }

    /// Milliseconds from `earlier` to this; 0 if it is later.
    pub fn ms_since(self, earlier: Mono) -> u64 {
        self.0.saturating_sub(earlier.0) / 1_000_000
    }
}

/// Wall time, milliseconds since 1970.
pub fn wall_ms() -> u64 {
    #[cfg(test)]
    if let Some(now) = simulated::now() {
        return simulated::WALL_MS + now.0 / 1_000_000;
    }
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// A clock that the simulator sets, for the code under it that reads the time by itself. Per thread; no part of a release.
#[cfg(test)]
pub mod simulated {
    use std::cell::Cell;

    use super::Mono;

    /// Wall time at the beginning of a simulation.
    pub const WALL_MS: u64 = 1_700_000_000_000;

    thread_local! {
        static NOW: Cell<Option<Mono>> = const { Cell::new(None) };
        static JUMP: Cell<(u32, u64)> = const { Cell::new((0, 0)) };
    }

    /// The time set, if one is.
    pub fn now() -> Option<Mono> {
        let now = NOW.get()?;
        let (reads, ms) = JUMP.get();
        if ms > 0 {
            JUMP.set((reads.saturating_sub(1), if reads == 0 { 0 } else { ms }));
            if reads == 0 {
                NOW.set(Some(now.plus_ms(ms)));
            }
        }
        Some(now)
    }

    /// Sets the time.
    pub fn set(now: Option<Mono>) {
        NOW.set(now);
        JUMP.set((0, 0));
    }

    /// After so many more readings the process is frozen for so many milliseconds.
    pub fn freeze_after(reads: u32, ms: u64) {
        JUMP.set((reads, ms));
    }
}
