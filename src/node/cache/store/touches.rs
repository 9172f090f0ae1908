//! A sample of recent hits, for the backups: a promoted LRU is then warm. Costs the GET path a draw and now and then a store.

use super::pool::NIL;

/// One hit in so many is noted: a key that is asked for often is noted sooner or later, and only those matter.
pub const TOUCH_SAMPLE: u64 = 8;
/// Hits noted between two drains; then the oldest are forgotten. At 8 per note that is 32 Ki hits, more than a shard serves
/// in the tenth of a second between beacons.
const NOTES: usize = 4096;

/// An item, and its hash to know it again: the place may have another key when the note is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Note {
    /// Which item.
    pub entry: u32,
    /// Its hash.
    pub hash: u32,
}

/// The notes.
#[derive(Debug, Default)]
pub struct Touches {
    ring: Vec<Note>,
    next: usize,
}

impl Touches {
    /// Notes a hit.
    pub fn note(&mut self, entry: u32, hash: u32) {
        debug_assert!(entry != NIL);
        let note = Note { entry, hash };
        if self.ring.len() < NOTES {
            self.ring.push(note);
        } else {
            self.ring[self.next] = note;
        }
        self.next = (self.next + 1) % NOTES;
    }

    /// All notes, each item once; none are left.
    pub fn drain(&mut self) -> Vec<Note> {
        let mut notes = std::mem::take(&mut self.ring);
        self.next = 0;
        notes.sort_unstable();
        notes.dedup();
        notes
    }
}
