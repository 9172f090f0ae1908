//! Slots with keys to be expired, each once, in turn.

use std::collections::VecDeque;

use crate::proto::slot::{SLOTS, Slot};

/// The queue.
#[derive(Debug)]
pub struct DueSlots {
    queue: VecDeque<Slot>,
    queued: Vec<u64>,
}

impl Default for DueSlots {
    fn default() -> Self {
        Self { queue: VecDeque::new(), queued: vec![0; SLOTS / 64] }
    }
}

impl DueSlots {
    /// How many.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Puts a slot at the end, unless it is queued.
    pub fn push(&mut self, slot: Slot) {
        let (word, bit) = (&mut self.queued[slot.ix() / 64], 1 << (slot.ix() % 64));
        if *word & bit == 0 {
            *word |= bit;
            self.queue.push_back(slot);
        }
    }

    /// The slot whose turn it is.
    pub fn pop(&mut self) -> Option<Slot> {
        let slot = self.queue.pop_front()?;
        self.queued[slot.ix() / 64] &= !(1 << (slot.ix() % 64));
        Some(slot)
    }
}
