//! Time. Leases and timers use CLOCK_BOOTTIME (`Instant` stops in suspend); wall time is for people and TTLs of clients.

use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// A point in time on CLOCK_BOOTTIME, nanoseconds. Only differences mean something, and only within one boot of one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mono(pub u64);

impl Mono {
    /// Now.
    pub fn now() -> Self {
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
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}
