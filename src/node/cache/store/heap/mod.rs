//! Where keys and values lie. Nothing here depends on the moods of the process's allocator: what an item takes is a pure
//! function of its lengths ([`footprint`]), and freed space is given back by moving items, so that the resident size follows
//! the accounted size whatever sizes come and go.
//!
//! ```text
//!            ≤ 4 KiB                       ≤ 128 KiB                      above
//!   slabs: a class per size ──64 KiB──▶ runs: best fit in 2 MiB ◀──64 KiB── big: in pieces, put together to be read
//!          (last item fills a hole)           arenas (slide together)
//! ```

mod big;
mod runs;
mod slabs;

use big::Bigs;
use runs::Runs;
use slabs::Slabs;

use super::prefetch;

/// A run's items carry the length of the key in front.
const RUN_HEADER: usize = 4;
/// Bytes, header included, from which on an item is stored in pieces: 16 of them would still fill an arena to 94 %.
const BIG_MIN: usize = 128 << 10;
/// Class numbers of what is not in slabs.
const RUN: u8 = u8::MAX - 1;
const BIG: u8 = u8::MAX;

/// Where one item lies. Changes only as [`Heap::tidy`] and [`Heap::replace`] say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Slab class, or that it is a run or big.
    pub class: u8,
    /// Where in it.
    pub at: u32,
}

/// Bytes that an item of these lengths takes here.
pub fn footprint(key_len: usize, value_len: usize) -> u64 {
    let len = key_len + value_len;
    let bytes = if let Some(class) = slabs::class_for(len) {
        slabs::size_of_class(class)
    } else if len + RUN_HEADER < BIG_MIN {
        runs::round(len + RUN_HEADER)
    } else {
        big::footprint(key_len, value_len)
    };
    bytes as u64
}

/// Keys and values.
#[derive(Debug, Default)]
pub struct Heap {
    slabs: Slabs,
    runs: Runs,
    bigs: Bigs,
}

impl Heap {
    /// Takes an item in. `owner` is told again by [`Heap::tidy`] when the item moves.
    pub fn insert(&mut self, owner: u32, key: &[u8], value: &[u8]) -> Place {
        let len = key.len() + value.len();
        if let Some(class) = slabs::class_for(len) {
            return Place { class, at: self.slabs.insert(&mut self.runs, class, owner, key, value) };
        }
        if len + RUN_HEADER >= BIG_MIN {
            return Place { class: BIG, at: self.bigs.insert(&mut self.runs, key, value) };
        }
        let at = self.runs.alloc(len + RUN_HEADER);
        let to = self.runs.bytes_mut(at);
        to[..RUN_HEADER].copy_from_slice(&(key.len() as u32).to_le_bytes());
        to[RUN_HEADER..][..key.len()].copy_from_slice(key);
        to[RUN_HEADER + key.len()..].copy_from_slice(value);
        Place { class: RUN, at }
    }

    /// The key.
    pub fn key(&self, place: Place) -> &[u8] {
        match place.class {
            BIG => self.bigs.key(place.at),
            _ => self.whole(place).0,
        }
    }

    /// The value. A big one is put together in `scratch`.
    pub fn value<'a>(&'a self, place: Place, scratch: &'a mut Vec<u8>) -> &'a [u8] {
        match place.class {
            BIG => {
                scratch.clear();
                self.bigs.read(&self.runs, place.at, scratch);
                scratch
            }
            _ => self.whole(place).1,
        }
    }

    /// Asks for an item's first lines ahead of its use.
    pub fn prefetch(&self, place: Place, lines: usize) {
        match place.class {
            BIG => {}
            RUN => prefetch::lines(self.runs.bytes(place.at), lines),
            class => prefetch::lines(self.slabs.bytes(&self.runs, class, place.at), lines),
        }
    }

    /// The lengths of key and value.
    pub fn lens(&self, place: Place) -> (usize, usize) {
        match place.class {
            BIG => self.bigs.lens(place.at),
            _ => {
                let (key, value) = self.whole(place);
                (key.len(), value.len())
            }
        }
    }

    /// Key and value of what is not big.
    fn whole(&self, place: Place) -> (&[u8], &[u8]) {
        if place.class == RUN {
            let (len, rest) = self.runs.bytes(place.at).split_at(RUN_HEADER);
            return rest.split_at(u32_at(len, 0) as usize);
        }
        self.slabs.item(&self.runs, place.class, place.at)
    }

    /// Gives an item another value, in place where it takes the same room.
    pub fn replace(&mut self, place: Place, owner: u32, key: &[u8], value: &[u8]) -> Place {
        let len = key.len() + value.len();
        let in_place = match place.class {
            RUN if slabs::class_for(len).is_none() && self.runs.resize(place.at, len + RUN_HEADER) => {
                self.runs.bytes_mut(place.at)[RUN_HEADER + key.len()..].copy_from_slice(value);
                true
            }
            RUN => false,
            BIG => self.bigs.overwrite(&mut self.runs, place.at, value),
            class if slabs::class_for(len) == Some(class) => {
                self.slabs.overwrite(&mut self.runs, class, place.at, value);
                true
            }
            _ => false,
        };
        if in_place {
            return place;
        }
        self.remove(place);
        self.insert(owner, key, value)
    }

    /// Frees an item's place.
    pub fn remove(&mut self, place: Place) {
        match place.class {
            RUN => self.runs.free(place.at),
            BIG => self.bigs.remove(&mut self.runs, place.at),
            class => self.slabs.remove(&mut self.runs, class, place.at),
        }
    }

    /// Moves one item of the class if its slabs have too many holes: whose, and where to.
    pub fn tidy(&mut self, class: u8) -> Option<(u32, Place)> {
        if class >= RUN {
            return None;
        }
        let (owner, at) = self.slabs.tidy(&mut self.runs, class)?;
        Some((owner, Place { class, at }))
    }

    /// The item's owner has another number from now on.
    pub fn set_owner(&mut self, place: Place, owner: u32) {
        if place.class < RUN {
            self.slabs.set_owner(&mut self.runs, place.class, place.at, owner);
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut four = [0; 4];
    four.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(four)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn items_keep_their_bytes(steps in prop::collection::vec((any::<u16>(), 0usize..40, 0u8..10, any::<u16>()), 1..600)) {
            let mut heap = Heap::default();
            let mut model: HashMap<u32, (Place, Vec<u8>, Vec<u8>)> = HashMap::new();
            for (n, (pick, key_len, kind, seed)) in steps.into_iter().enumerate() {
                let value_len = match kind {
                    0..=5 => seed as usize % 300,
                    6..=7 => seed as usize % 9000,
                    8 => seed as usize,
                    _ => 60_000 + 2 * seed as usize,
                };
                let value = vec![n as u8; value_len];
                let ids: Vec<u32> = model.keys().copied().collect();
                let known = ids.get(pick as usize % ids.len().max(1)).copied();
                match (known, seed % 3) {
                    (Some(id), 0) => {
                        let (place, ..) = model.remove(&id).unwrap();
                        heap.remove(place);
                        while let Some((owner, to)) = heap.tidy(place.class) {
                            model.get_mut(&owner).unwrap().0 = to;
                        }
                    }
                    (Some(id), 1) => {
                        let (place, key, old) = model.get_mut(&id).unwrap();
                        *place = heap.replace(*place, id, key, &value);
                        *old = value;
                    }
                    _ => {
                        let key = vec![b'k'; key_len];
                        model.insert(n as u32, (heap.insert(n as u32, &key, &value), key, value));
                    }
                }
                heap.runs.check();
            }
            let mut scratch = Vec::new();
            for (place, key, value) in model.values() {
                prop_assert_eq!(heap.key(*place), key.as_slice());
                prop_assert_eq!(heap.value(*place, &mut scratch), value.as_slice());
                prop_assert_eq!(heap.lens(*place), (key.len(), value.len()));
            }
        }
    }

    #[test]
    fn a_footprint_is_near_the_length() {
        for len in 0..300_000usize {
            let takes = footprint(0, len) as f64;
            assert!(takes >= len as f64);
            assert!(takes <= len as f64 * 1.07 + 24.0, "{len} bytes take {takes}");
        }
    }
}
