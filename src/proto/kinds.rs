//! What slots have in common, worked out once for all that share one state: the table has thousands of slots and few states.

use std::ptr;
use std::sync::Arc;

use super::view::SlotState;

/// Places in which a state's number is looked for first; a power of two.
const PLACES: usize = 256;
/// A place that holds none.
const NONE: u32 = u32::MAX;

/// A value for every kind of slot: slots that share their state are of one kind, within a `tag` of the caller's. Told by address
/// and never by content, so that two kinds may be alike; a kind that lost its place is begun anew.
#[derive(Debug)]
pub struct Kinds<'a, T> {
    places: [u32; PLACES],
    known: Vec<Kind<'a, T>>,
}

/// One kind.
#[derive(Debug)]
pub struct Kind<'a, T> {
    /// What all slots of it are.
    pub state: &'a SlotState,
    /// What else they have in common.
    pub tag: usize,
    /// What is worked out of them.
    pub value: T,
}

impl<T> Default for Kinds<'_, T> {
    fn default() -> Self {
        Self { places: [NONE; PLACES], known: Vec::new() }
    }
}

impl<'a, T> Kinds<'a, T> {
    /// The value of a slot's kind; made when it is not known.
    pub fn of(&mut self, slot: &'a Arc<SlotState>, tag: usize, make: impl FnOnce(&'a SlotState) -> T) -> &mut T {
        let state: &'a SlotState = slot;
        // Allocations lie at multiples of 16 bytes; a state takes a dozen times as much.
        let address = ptr::from_ref(state) as usize >> 4;
        let place = (address ^ address >> 8 ^ tag.wrapping_mul(31)) % PLACES;
        let n = self.places[place] as usize;
        let is_known = self.known.get(n).is_some_and(|k| ptr::eq(k.state, state) && k.tag == tag);
        let n = if is_known { n } else { self.known.len() };
        if !is_known {
            self.places[place] = n as u32;
            self.known.push(Kind { state, tag, value: make(state) });
        }
        &mut self.known[n].value
    }

    /// All kinds, in the order in which they were met.
    pub fn iter(&self) -> impl Iterator<Item = &Kind<'a, T>> {
        self.known.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(pterm: u64) -> Arc<SlotState> {
        Arc::new(SlotState { pterm, ..SlotState::default() })
    }

    #[test]
    fn every_slot_counts_once_whatever_loses_its_place() {
        // More states than places, each met again and again.
        let states: Vec<_> = (0..1000).map(state).collect();
        let slots: Vec<_> = (0..5000).map(|n| states[n * 7 % 1000].clone()).collect();
        let mut kinds: Kinds<'_, u64> = Kinds::default();
        slots.iter().for_each(|s| *kinds.of(s, 0, |_| 0) += 1);
        let mut sums = vec![0; 1000];
        kinds.iter().for_each(|k| sums[k.state.pterm as usize] += k.value);
        assert_eq!(sums, vec![5; 1000]);
    }

    #[test]
    fn slots_that_share_a_state_are_worked_out_once() {
        let (a, b) = (state(1), state(2));
        let mut kinds = Kinds::default();
        let mut made = 0;
        for slot in [&a, &b, &a, &a, &b] {
            let value = *kinds.of(slot, 0, |s| {
                made += 1;
                s.pterm
            });
            assert_eq!(value, slot.pterm);
        }
        assert_eq!(made, 2);
        assert_eq!(*kinds.of(&a, 5, |_| 9), 9, "another tag is another kind");
        assert_eq!(kinds.iter().map(|k| (k.state.pterm, k.tag)).collect::<Vec<_>>(), [(1, 0), (2, 0), (1, 5)]);
    }
}
