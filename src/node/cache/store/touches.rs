//! Uses that changed the order of eviction, for the backups: a promoted one has nearly the same order then.

use super::pool::NIL;

/// Uses noted between two drains, a tenth of a second apart; then the oldest are forgotten.
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
