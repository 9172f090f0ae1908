//! Dense arrays of small records addressed by `u32`: freed places are filled first, and when there are too many of them the
//! last records move into them, so that memory follows the number of records down as well as up.

/// No index: end of a list, nothing there.
pub const NIL: u32 = u32::MAX;
/// One freed place in so many is left be: moving records at once would cost cache misses on every delete, 3 % costs nothing.
const SLACK_DIVISOR: u32 = 32;
/// So many freed places are left be in any case: below that there is nothing to win.
const SLACK_MIN: u32 = 16;
/// Stale notes kept before they are sorted out; amortises the sorting.
const STALE_MAX: usize = 64;
/// Records per chunk. Only the last chunk is ever reallocated, so growth copies 1.5 MiB at most.
const CHUNK: usize = 1 << CHUNK_BITS;
/// Small in tests, so that chunks come and go there.
const CHUNK_BITS: u32 = if cfg!(test) { 5 } else { 16 };
/// Records that a chunk begins with: an empty shard shall cost next to nothing.
const CHUNK_START: usize = CHUNK / 32;

/// The freed places of a dense array. A note may be stale (its place was cut off or is used again): places are asked before
/// they are believed.
#[derive(Debug, Default)]
pub struct Holes {
    notes: Vec<u32>,
    count: u32,
}

impl Holes {
    /// How many there are.
    #[cfg(test)]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// A place was freed.
    pub fn push(&mut self, at: u32, is_hole: impl Fn(u32) -> bool) {
        self.count += 1;
        self.notes.push(at);
        if self.notes.len() > 2 * self.count as usize + STALE_MAX {
            self.notes.sort_unstable();
            self.notes.dedup();
            self.notes.retain(|&at| is_hole(at));
            self.notes.shrink_to(2 * self.notes.len());
        }
    }

    /// The freed place to use next: the last freed one, which is likely in the CPU's cache.
    pub fn pop(&mut self, is_hole: impl Fn(u32) -> bool) -> Option<u32> {
        while self.count > 0 {
            let at = self.notes.pop()?;
            if is_hole(at) {
                self.count -= 1;
                return Some(at);
            }
        }
        self.notes.clear();
        None
    }

    /// A freed place was cut off the end of the array.
    pub fn cut(&mut self) {
        self.count -= 1;
    }

    /// Whether there are too many for an array of `len` places.
    pub fn excess(&self, len: u32) -> bool {
        self.count > len / SLACK_DIVISOR + SLACK_MIN
    }
}

/// A record that can say that it is none.
pub trait Record: Copy {
    /// What a freed place holds.
    const VACANT: Self;
    /// Whether the place is free.
    fn is_vacant(&self) -> bool;
}

/// The array.
#[derive(Debug)]
pub struct Pool<T> {
    chunks: Vec<Vec<T>>,
    holes: Holes,
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), holes: Holes::default() }
    }
}

fn split(at: u32) -> (usize, usize) {
    ((at >> CHUNK_BITS) as usize, at as usize & (CHUNK - 1))
}

fn get<T>(chunks: &[Vec<T>], at: u32) -> Option<&T> {
    let (chunk, pos) = split(at);
    chunks.get(chunk)?.get(pos)
}

impl<T: Record> Pool<T> {
    /// Places, freed ones included.
    pub fn len(&self) -> u32 {
        self.chunks.last().map_or(0, |last| (((self.chunks.len() - 1) << CHUNK_BITS) + last.len()) as u32)
    }

    /// Records held.
    #[cfg(test)]
    pub fn live(&self) -> u32 {
        self.len() - self.holes.count()
    }

    /// The record at an index that may have been freed since.
    pub fn get(&self, at: u32) -> Option<&T> {
        get(&self.chunks, at).filter(|r| !r.is_vacant())
    }

    /// Takes a record in; where it is now.
    pub fn insert(&mut self, record: T) -> u32 {
        let Self { chunks, holes } = self;
        if let Some(at) = holes.pop(|at| get(chunks, at).is_some_and(T::is_vacant)) {
            self[at] = record;
            return at;
        }
        let at = self.len();
        match self.chunks.last_mut() {
            Some(last) if last.len() < CHUNK => {
                if last.len() == last.capacity() {
                    last.reserve_exact(last.len().max(CHUNK_START).min(CHUNK - last.len()));
                }
                last.push(record);
            }
            _ => {
                let mut chunk = Vec::with_capacity(CHUNK_START);
                chunk.push(record);
                self.chunks.push(chunk);
            }
        }
        debug_assert!(at != NIL);
        at
    }

    /// Frees a place.
    pub fn remove(&mut self, at: u32) -> T {
        let was = std::mem::replace(&mut self[at], T::VACANT);
        let Self { chunks, holes } = self;
        holes.push(at, |at| get(chunks, at).is_some_and(T::is_vacant));
        was
    }

    /// Moves one record if too many places are free; from where to where. The caller mends what pointed at it.
    pub fn tidy(&mut self) -> Option<(u32, u32)> {
        loop {
            if !self.holes.excess(self.len()) {
                return None;
            }
            let last = *self.chunks.last()?.last()?;
            if last.is_vacant() {
                self.holes.cut();
                self.cut();
                continue;
            }
            let from = self.len() - 1;
            let Self { chunks, holes } = self;
            let to = holes.pop(|at| get(chunks, at).is_some_and(T::is_vacant))?;
            self[to] = last;
            self.cut();
            return Some((from, to));
        }
    }

    fn cut(&mut self) {
        if let Some(last) = self.chunks.last_mut() {
            last.pop();
            if last.is_empty() {
                self.chunks.pop();
            } else if last.capacity() > 2 * last.len() + CHUNK_START {
                last.shrink_to(last.len() + last.len() / 4);
            }
        }
    }
}

impl<T> std::ops::Index<u32> for Pool<T> {
    type Output = T;
    fn index(&self, at: u32) -> &T {
        let (chunk, pos) = split(at);
        &self.chunks[chunk][pos]
    }
}

impl<T> std::ops::IndexMut<u32> for Pool<T> {
    fn index_mut(&mut self, at: u32) -> &mut T {
        let (chunk, pos) = split(at);
        &mut self.chunks[chunk][pos]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    impl Record for u64 {
        const VACANT: u64 = 0;
        fn is_vacant(&self) -> bool {
            *self == 0
        }
    }

    proptest! {
        #[test]
        fn records_stay_and_places_follow_their_number(steps in prop::collection::vec((any::<u16>(), 0u8..100), 1..3000)) {
            let mut pool = Pool::<u64>::default();
            let (mut at_of, mut order, mut next, mut growing) = (HashMap::new(), Vec::new(), 1u64, true);
            for (pick, dice) in steps {
                // Long phases of growth and of shrinking, so that chunks come and go.
                growing ^= dice == 0;
                if order.is_empty() || (dice < 80) == growing {
                    at_of.insert(next, pool.insert(next));
                    order.push(next);
                    next += 1;
                } else {
                    let gone = order.swap_remove(pick as usize % order.len());
                    prop_assert_eq!(pool.remove(at_of.remove(&gone).unwrap()), gone);
                    while let Some((from, to)) = pool.tidy() {
                        prop_assert_eq!(at_of.insert(pool[to], to), Some(from));
                    }
                }
                prop_assert_eq!(pool.live() as usize, order.len());
                prop_assert!(pool.len() <= pool.live() + pool.len() / SLACK_DIVISOR + SLACK_MIN);
                prop_assert!(pool.holes.notes.len() <= 2 * pool.len() as usize + STALE_MAX);
            }
            for (record, at) in at_of {
                prop_assert_eq!(pool.get(at), Some(&record));
            }
        }
    }
}
