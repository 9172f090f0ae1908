//! The clock that last accesses are kept in.

use super::super::heap::ACCESSED_END;

/// Milliseconds per tick of the clock that last accesses are kept in. It goes round in 25 days; a key left alone for half of
/// that looks just used to other slots, which harms nobody: within a slot the order is exact.
pub const ACCESS_MS: u64 = 256;

/// That clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tick(pub u32);

impl Tick {
    /// Of a time on the TTL clock.
    pub fn of(mono_ms: u64) -> Self {
        Tick((mono_ms / ACCESS_MS) as u32 % ACCESSED_END)
    }

    /// Ticks since an access; none if that lies ahead.
    pub fn age_of(self, accessed: u32) -> u32 {
        let age = self.0.wrapping_sub(accessed) % ACCESSED_END;
        if age > ACCESSED_END / 2 { 0 } else { age }
    }
}
