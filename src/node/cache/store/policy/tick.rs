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

/// Windows of time, of which each use begins one or falls into the same as the use before: what is done at the first use in a
/// window only is never further behind the last use than a window is long. They begin at another time for each slot, so that
/// not all keys are in their first at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Windows {
    /// Every use is the first.
    None,
    /// They are 2^n ticks long.
    Ticks(u32),
}

impl Windows {
    /// The longest, 2^12 ticks: 17 minutes.
    pub const LONGEST: Self = Self::Ticks(12);

    /// Windows of at most so many ticks.
    pub fn up_to(ticks: u32) -> Self {
        ticks.checked_ilog2().map_or(Self::None, |n| Self::Ticks(n.min(12)))
    }

    /// Whether `now` lies in another window of this slot than the use before.
    #[inline(always)]
    pub fn late(self, slot: u32, before: u32, now: Tick) -> bool {
        match self {
            Self::None => true,
            Self::Ticks(n) => (before.wrapping_add(slot) ^ now.0.wrapping_add(slot)) >> n != 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_use_in_a_window_is_late_and_no_other() {
        for (n, slot) in [(0, 0), (3, 5), (8, 16_383)] {
            let windows = Windows::Ticks(n);
            let mut late = 0;
            for now in 1..=1024 {
                late += u32::from(windows.late(slot, now - 1, Tick(now)));
                assert!(!windows.late(slot, now, Tick(now)));
                assert!(windows.late(slot, now, Tick(now + (1 << n))));
            }
            assert_eq!(late, 1024 >> n);
        }
        assert!(Windows::None.late(0, 7, Tick(7)));
        assert_eq!(
            [0, 1, 15, 16, 1 << 20].map(Windows::up_to),
            [Windows::None, Windows::Ticks(0), Windows::Ticks(3), Windows::Ticks(4), Windows::LONGEST]
        );
    }
}
