//! The slot table: which state each slot is in. There are thousands of slots and few states, so that a slot holds the number of its
//! state: a copy of the table is soon made, and what all slots of a state have in common is worked out once.

use std::collections::HashMap;
use std::fmt;
use std::ops::{Index, Range};
use std::sync::Arc;

use super::view::SlotState;

/// States that no slot is in any more are dropped when there are so many more states than after the last time.
const STALE_MAX: usize = 256;
/// More can't be told apart. Slots are fewer, so that there is room whenever stale states are dropped.
const STATES_MAX: usize = u16::MAX as usize;

/// Which state each slot is in, by the slot's number.
#[derive(Clone, Default)]
pub struct SlotTable {
    /// The number of each slot's state.
    of: Vec<u16>,
    /// States by number; some may be nobody's, and two alike.
    states: Vec<Arc<SlotState>>,
    /// How many there were when stale ones were dropped last.
    kept: usize,
}

/// What slots come to, worked out once for each state.
#[derive(Debug)]
pub struct PerState<'a, T> {
    of: &'a [u16],
    values: Vec<T>,
}

impl<T> PerState<'_, T> {
    /// Of all slots in order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.of.iter().map(|&n| &self.values[usize::from(n)])
    }
}

impl<T> Index<usize> for PerState<'_, T> {
    type Output = T;

    fn index(&self, slot: usize) -> &T {
        &self.values[usize::from(self.of[slot])]
    }
}

impl SlotTable {
    /// So many slots of one state; 16384 in a cluster, fewer in simulations.
    pub fn new(slots: usize, state: SlotState) -> Self {
        Self { of: vec![0; slots], states: vec![Arc::new(state)], kept: 1 }
    }

    /// How many slots there are.
    pub fn len(&self) -> usize {
        self.of.len()
    }

    /// Whether it was never filled.
    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// The state of a slot, if there is such a slot.
    pub fn get(&self, slot: usize) -> Option<&Arc<SlotState>> {
        self.of.get(slot).map(|&n| &self.states[usize::from(n)])
    }

    /// The states of all slots in order.
    pub fn iter(&self) -> Iter<'_> {
        self.run(&self.of)
    }

    /// The states of the slots from `first` to `last`; none if there aren't so many slots.
    pub fn range(&self, first: usize, last: usize) -> Iter<'_> {
        self.run(self.of.get(first..=last).unwrap_or_default())
    }

    fn run<'a>(&'a self, of: &'a [u16]) -> Iter<'a> {
        Iter { of: of.iter(), states: &self.states }
    }

    /// What slots come to. Also asked of states that no slot is in: it changes nothing.
    pub fn each<T>(&self, of: impl Fn(&SlotState) -> T) -> PerState<'_, T> {
        PerState { of: &self.of, values: self.states.iter().map(|s| of(s)).collect() }
    }

    /// Every state that slots are in, and how many slots those are.
    pub fn counts(&self) -> impl Iterator<Item = (&SlotState, u64)> {
        let mut counts = vec![0; self.states.len()];
        self.of.iter().for_each(|&n| counts[usize::from(n)] += 1);
        self.states.iter().map(|s| &**s).zip(counts).filter(|(_, n)| *n > 0)
    }

    /// Puts a slot in this state.
    pub fn set(&mut self, slot: usize, state: Arc<SlotState>) {
        // Slots are changed one after the other, and many alike.
        let n = match self.states.last() {
            Some(last) if Arc::ptr_eq(last, &state) => self.states.len() - 1,
            _ => self.push(state),
        };
        self.of[slot] = n as u16;
    }

    /// Puts these slots in this state.
    pub fn fill(&mut self, slots: Range<usize>, state: Arc<SlotState>) {
        self.fill_runs(std::iter::once(slots), state);
    }

    /// Puts all these slots in this state.
    pub fn fill_runs(&mut self, runs: impl IntoIterator<Item = Range<usize>>, state: Arc<SlotState>) {
        let n = self.push(state) as u16;
        runs.into_iter().for_each(|slots| self.of[slots].fill(n));
    }

    /// Changes the state of one slot.
    pub fn update(&mut self, slot: usize, change: impl FnOnce(&mut SlotState)) {
        let mut state = SlotState::clone(&self[slot]);
        change(&mut state);
        self.set(slot, Arc::new(state));
    }

    fn push(&mut self, state: Arc<SlotState>) -> usize {
        if self.states.len() >= STATES_MAX {
            self.renumber(|_| false);
        }
        self.states.push(state);
        self.states.len() - 1
    }

    /// Gives states for which `fresh` holds one number where they are alike, and drops those that no slot is in.
    pub fn share(&mut self, fresh: impl Fn(&SlotState) -> bool) {
        self.renumber(fresh);
    }

    /// Drops states that no slot is in, where there are many.
    pub fn tidy(&mut self) {
        if self.states.len() > self.kept + STALE_MAX {
            self.renumber(|_| false);
        }
    }

    fn renumber(&mut self, fresh: impl Fn(&SlotState) -> bool) {
        const UNKNOWN: u16 = u16::MAX;
        let Self { of, states: old, .. } = self;
        let mut to = vec![UNKNOWN; old.len()];
        let mut states: Vec<Arc<SlotState>> = Vec::new();
        let mut known: HashMap<&SlotState, u16> = HashMap::new();
        for n in of {
            let to = &mut to[usize::from(*n)];
            if *to == UNKNOWN {
                let state = &old[usize::from(*n)];
                let next = states.len() as u16;
                *to = if fresh(state) { *known.entry(state).or_insert(next) } else { next };
                if *to == next {
                    states.push(state.clone());
                }
            }
            *n = *to;
        }
        self.kept = states.len();
        self.states = states;
    }
}

impl Index<usize> for SlotTable {
    type Output = Arc<SlotState>;

    fn index(&self, slot: usize) -> &Arc<SlotState> {
        &self.states[usize::from(self.of[slot])]
    }
}

/// Two tables are alike if their slots are, whatever the numbers.
impl PartialEq for SlotTable {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().zip(other).all(|(a, b)| a == b)
    }
}

impl fmt::Debug for SlotTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self).finish()
    }
}

impl<'a> IntoIterator for &'a SlotTable {
    type Item = &'a Arc<SlotState>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// The states of slots in order.
#[derive(Debug, Clone)]
pub struct Iter<'a> {
    of: std::slice::Iter<'a, u16>,
    states: &'a [Arc<SlotState>],
}

impl<'a> Iterator for Iter<'a> {
    type Item = &'a Arc<SlotState>;

    fn next(&mut self) -> Option<Self::Item> {
        self.of.next().map(|&n| &self.states[usize::from(n)])
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.of.size_hint()
    }
}

impl ExactSizeIterator for Iter<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(pterm: u64) -> SlotState {
        SlotState { pterm, ..SlotState::default() }
    }

    fn pterms(t: &SlotTable) -> Vec<u64> {
        t.iter().map(|s| s.pterm).collect()
    }

    #[test]
    fn slots_are_told_apart_whatever_their_numbers() {
        let mut t = SlotTable::new(6, state(1));
        t.fill_runs([0..2, 4..5], Arc::new(state(2)));
        t.set(5, Arc::new(state(3)));
        t.update(1, |s| s.pterm += 2);
        assert_eq!(pterms(&t), [2, 4, 1, 1, 2, 3]);
        assert_eq!((t.get(5).map(|s| s.pterm), t.get(6), t.len()), (Some(3), None, 6));
        assert_eq!(t.range(1, 2).map(|s| s.pterm).collect::<Vec<_>>(), [4, 1]);
        assert_eq!(t.range(5, 6).count(), 0, "beyond the end there is nothing");
        let doubled = t.each(|s| s.pterm * 2);
        assert_eq!((doubled[1], doubled.iter().sum::<u64>()), (8, 26));
        let mut counts: Vec<_> = t.counts().map(|(s, n)| (s.pterm, n)).collect();
        counts.sort_unstable();
        assert_eq!(counts, [(1, 2), (2, 2), (3, 1), (4, 1)]);
    }

    #[test]
    fn what_is_alike_gets_one_number_where_it_is_fresh() {
        let mut t = SlotTable::new(6, state(1));
        (0..3).for_each(|slot| t.set(slot, Arc::new(state(5))));
        (3..5).for_each(|slot| t.set(slot, Arc::new(state(2))));
        let before = t.clone();
        t.share(|s| s.pterm >= 5);
        assert_eq!(t, before);
        assert!(Arc::ptr_eq(&t[0], &t[2]));
        assert!(!Arc::ptr_eq(&t[3], &t[4]), "what was there before is not looked at");
        t.share(|_| true);
        assert!(Arc::ptr_eq(&t[3], &t[4]));
        assert_eq!((t.states.len(), t.counts().count()), (3, 3));
        assert_ne!(t, SlotTable::new(6, state(1)));
        assert_ne!(t, SlotTable::new(5, state(1)));
    }

    #[test]
    fn numbers_never_run_out() {
        let mut t = SlotTable::new(16384, state(0));
        for round in 1..=9 {
            (0..16384).for_each(|slot| t.set(slot, Arc::new(state(slot as u64 * round))));
        }
        assert!(t.iter().enumerate().all(|(slot, s)| s.pterm == slot as u64 * 9));
    }

    #[test]
    fn stale_states_are_dropped() {
        let mut t = SlotTable::new(4, state(0));
        for n in 0..10_000 {
            t.fill(0..3, Arc::new(state(n)));
            t.tidy();
            assert!(t.states.len() <= 2 + STALE_MAX);
        }
        assert_eq!(pterms(&t), [9999, 9999, 9999, 0]);
    }
}
