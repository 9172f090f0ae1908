//! The fixed part of every key: 32 bytes, so that one never straddles two cache lines. Key and value lie in the heap.

use super::heap::Place;
use super::pool::{NIL, Record};

/// One key's bookkeeping; everything that points is an index.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// Of the key: which bucket, and whether it is worth comparing.
    pub hash: u32,
    /// Next in its bucket.
    pub chain: u32,
    /// Neighbour towards the most recently used end of the slot's list.
    pub newer: u32,
    /// Neighbour towards the least recently used end.
    pub older: u32,
    /// Last access, in ticks.
    pub accessed: u32,
    /// Its deadline's timer, if it has one.
    pub timer: u32,
    at: u32,
    /// Which body it is in.
    pub body: u16,
    class: u8,
    used: bool,
}

impl Entry {
    /// One that nothing points at yet.
    pub fn new(hash: u32, body: u16, accessed: u32) -> Self {
        Self { hash, body, accessed, used: true, ..Self::VACANT }
    }

    /// Where key and value lie.
    pub fn place(&self) -> Place {
        Place { class: self.class, at: self.at }
    }

    /// They lie elsewhere now.
    pub fn set_place(&mut self, place: Place) {
        (self.class, self.at) = (place.class, place.at);
    }
}

impl Record for Entry {
    const VACANT: Self = Self {
        hash: 0,
        chain: NIL,
        newer: NIL,
        older: NIL,
        accessed: 0,
        timer: NIL,
        at: NIL,
        body: 0,
        class: 0,
        used: false,
    };

    fn is_vacant(&self) -> bool {
        !self.used
    }
}

/// Milliseconds per tick of the coarse clock. As `u32` ticks it goes round in 2.2 years; a key left alone for half of that
/// looks just used, which harms nobody.
pub const TICK_MS: u64 = 16;

/// The coarse clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tick(pub u32);

impl Tick {
    /// Of a time on the TTL clock.
    pub fn of(mono_ms: u64) -> Self {
        Tick((mono_ms / TICK_MS) as u32)
    }

    /// Ticks since an access; none if that lies ahead.
    pub fn age_of(self, accessed: u32) -> u32 {
        let age = self.0.wrapping_sub(accessed);
        if age > u32::MAX / 2 { 0 } else { age }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_half_a_cache_line() {
        assert_eq!(size_of::<Entry>(), 32);
    }
}
