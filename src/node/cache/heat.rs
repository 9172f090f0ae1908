//! Which slots and keys are asked for most, from a sample of the commands on keys.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use xxhash_rust::xxh3::xxh3_64;

use super::shard::lock;
use crate::proto::slot::{SLOTS, Slot};
use crate::proto::stats::HotSlot;

/// One command in so many is looked at, on each connection.
pub const SAMPLE: u32 = 16;
/// Keys that are counted at once: the more, the surer the first ten.
const KEYS: usize = 64;
/// A longer key is counted by its beginning.
const KEY_MAX: usize = 128;
/// Slots that a heartbeat names at most: a hot spot is a few slots, or it is the whole node.
const HOT_SLOTS: usize = 8;
/// A slot is hot from so many times its even share on, and from so many samples: less is chance.
const HOT_TIMES: f64 = 4.0;
const HOT_SAMPLES: u32 = 16;
/// Counts are halved so often, seconds: what was hot a minute ago hardly counts.
const HALF_LIFE_S: u64 = 10;

/// Samples by slot and by key.
#[derive(Debug)]
pub struct Heat {
    slots: Box<[AtomicU32]>,
    keys: Mutex<Sketch>,
    hot: Mutex<Vec<HotSlot>>,
}

impl Default for Heat {
    fn default() -> Self {
        Self { slots: (0..SLOTS).map(|_| AtomicU32::new(0)).collect(), keys: Mutex::default(), hot: Mutex::default() }
    }
}

impl Heat {
    /// A sampled command on a key.
    pub fn touch(&self, slot: Slot, key: &[u8]) {
        if let Some(n) = self.slots.get(slot.ix()) {
            n.fetch_add(1, Ordering::Relaxed);
        }
        // Another thread is at it: one sample more or less means nothing.
        if let Ok(mut keys) = self.keys.try_lock() {
            keys.touch(&key[..key.len().min(KEY_MAX)]);
        }
    }

    /// Called once a second, with the seconds since the start and what counts the slots that this node serves.
    pub fn second(&self, n: u64, serves: impl FnOnce() -> usize) {
        *lock(&self.hot) = self.find_hot(serves);
        if n.is_multiple_of(HALF_LIFE_S) {
            self.slots.iter().for_each(|s| s.store(s.load(Ordering::Relaxed) / 2, Ordering::Relaxed));
            lock(&self.keys).halve();
        }
    }

    /// The slots that stood out when the last second ended, hottest first.
    pub fn hot(&self) -> Vec<HotSlot> {
        lock(&self.hot).clone()
    }

    fn find_hot(&self, serves: impl FnOnce() -> usize) -> Vec<HotSlot> {
        let counts: Vec<u32> = self.slots.iter().map(|n| n.load(Ordering::Relaxed)).collect();
        let all: f64 = counts.iter().map(|n| f64::from(*n)).sum();
        if all == 0.0 {
            return Vec::new();
        }
        let even = all / serves().max(1) as f64;
        let bar = (even * HOT_TIMES).max(f64::from(HOT_SAMPLES));
        let mut hot: Vec<(usize, u32)> = counts.into_iter().enumerate().filter(|(_, n)| f64::from(*n) >= bar).collect();
        hot.sort_by_key(|(slot, n)| (std::cmp::Reverse(*n), *slot));
        hot.truncate(HOT_SLOTS);
        // Three digits are more than a sample knows, and short in every heartbeat.
        let share = |n: u32| (f64::from(n) / all * 1000.0).round() / 1000.0;
        hot.into_iter().map(|(slot, n)| HotSlot { slot: slot as u16, share: share(n) }).collect()
    }

    /// The slots that were asked for lately, with their share of all samples.
    pub fn slots(&self) -> Vec<(u16, f64)> {
        let counts: Vec<u32> = self.slots.iter().map(|n| n.load(Ordering::Relaxed)).collect();
        let all: u64 = counts.iter().map(|n| u64::from(*n)).sum();
        let hot = counts.into_iter().enumerate().filter(|(_, n)| *n > 0);
        hot.map(|(s, n)| (s as u16, f64::from(n) / all as f64)).collect()
    }

    /// The hottest keys, hottest first, with their share of all samples (at most; a share may be too high by 1/64).
    pub fn keys(&self, n: usize) -> Vec<(Vec<u8>, f64)> {
        lock(&self.keys).top(n)
    }
}

/// The most frequent of a stream in bounded memory (Space-Saving: Metwally, Agrawal and El Abbadi, "Efficient Computation of
/// Frequent and Top-k Elements in Data Streams", 2005): a key that is not counted takes the place and the count of the rarest.
#[derive(Debug, Default)]
struct Sketch {
    /// Of the keys, side by side: most samples are of keys that are not counted, and all that is known of them is compared first.
    hashes: Vec<u32>,
    counts: Vec<u64>,
    keys: Vec<Vec<u8>>,
    /// No count is below.
    least: u64,
    /// Where one may be that is no higher: all before it are.
    from: usize,
    all: u64,
}

impl Sketch {
    fn touch(&mut self, key: &[u8]) {
        self.all += 1;
        let hash = xxh3_64(key) as u32;
        let mut alike = self.hashes.iter().enumerate().filter(|(_, h)| **h == hash);
        if let Some((ix, _)) = alike.find(|(ix, _)| self.keys[*ix] == key) {
            self.counts[ix] += 1;
            return;
        }
        if self.keys.len() < KEYS {
            self.hashes.push(hash);
            self.counts.push(1);
            self.keys.push(key.to_vec());
            (self.least, self.from) = (1, 0);
            return;
        }
        let ix = self.rarest();
        self.hashes[ix] = hash;
        self.counts[ix] += 1;
        self.keys[ix].clear();
        self.keys[ix].extend_from_slice(key);
    }

    /// Counts only grow between two halvings, so that all are looked at once for every step that the least of them takes.
    fn rarest(&mut self) -> usize {
        if let Some(ix) = (self.from..self.counts.len()).find(|ix| self.counts[*ix] <= self.least) {
            self.from = ix;
            return ix;
        }
        self.least = self.counts.iter().copied().min().unwrap_or(0);
        self.from = self.counts.iter().position(|n| *n == self.least).unwrap_or(0);
        self.from
    }

    fn halve(&mut self) {
        self.all /= 2;
        let left: Vec<(Vec<u8>, u64)> =
            self.keys.drain(..).zip(self.counts.drain(..)).map(|(k, n)| (k, n / 2)).collect();
        (self.keys, self.counts) = left.into_iter().filter(|(_, n)| *n > 0).unzip();
        self.hashes = self.keys.iter().map(|k| xxh3_64(k) as u32).collect();
        (self.least, self.from) = (0, 0);
    }

    fn top(&self, n: usize) -> Vec<(Vec<u8>, f64)> {
        let mut top: Vec<(Vec<u8>, u64)> = self.keys.iter().cloned().zip(self.counts.iter().copied()).collect();
        top.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        top.truncate(n);
        top.into_iter().map(|(k, n)| (k, n as f64 / self.all.max(1) as f64)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_makes_room_is_always_the_rarest() {
        let mut sketch = Sketch::default();
        let mut random = 7u64;
        for n in 0..20_000u32 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let key = (random >> 40) as u32 % 200;
            let known = sketch.keys.iter().any(|k| **k == key.to_le_bytes());
            let least = sketch.counts.iter().copied().min().unwrap_or(0);
            let full = sketch.keys.len() == KEYS;
            sketch.touch(&key.to_le_bytes());
            if !known && full {
                let ix = sketch.keys.iter().position(|k| **k == key.to_le_bytes()).unwrap();
                assert_eq!(sketch.counts[ix], least + 1);
            }
            if n % 3000 == 2999 {
                sketch.halve();
            }
            assert_eq!(sketch.hashes.len(), sketch.counts.len());
        }
        assert!(sketch.counts.iter().sum::<u64>() <= sketch.all + KEYS as u64);
    }

    #[test]
    fn the_hottest_keys_are_found_among_many() {
        let heat = Heat::default();
        for i in 0..100_000u32 {
            let key = match i % 10 {
                0..3 => "first".to_owned(),
                3..5 => "second".to_owned(),
                _ => format!("cold{i}"),
            };
            heat.touch(Slot::of_key(key.as_bytes()), key.as_bytes());
        }
        let top = heat.keys(2);
        assert_eq!((top[0].0.as_slice(), top[1].0.as_slice()), (&b"first"[..], &b"second"[..]));
        assert!((0.30..0.32).contains(&top[0].1), "{}", top[0].1);
        let slots = heat.slots();
        let hottest = slots.iter().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
        assert_eq!(Slot(hottest.0), Slot::of_key(b"first"));
        assert!((slots.iter().map(|s| s.1).sum::<f64>() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn only_slots_far_above_their_share_are_hot() {
        let heat = Heat::default();
        let touch = |slot: u16, times: u32| (0..times).for_each(|_| heat.touch(Slot(slot), b"k"));
        let hot = || {
            heat.second(1, || 100);
            heat.hot().into_iter().map(|h| (h.slot, h.share)).collect::<Vec<_>>()
        };
        assert_eq!(hot(), [], "nothing was asked for");
        (0..100).for_each(|slot| touch(slot, 20));
        assert_eq!(hot(), [], "all alike");
        touch(7, 1000);
        touch(9, 480);
        assert_eq!(hot(), [(7, 0.293), (9, 0.144)]);
        (200..300).for_each(|slot| touch(slot, 1000));
        assert!(hot().len() <= HOT_SLOTS);
        let few = Heat::default();
        (0..HOT_SAMPLES - 1).for_each(|_| few.touch(Slot(3), b"k"));
        few.second(1, || 100);
        assert_eq!(few.hot(), [], "too few to tell");
        few.touch(Slot(3), b"k");
        few.second(2, || 100);
        assert_eq!(few.hot(), [HotSlot { slot: 3, share: 1.0 }]);
    }

    #[test]
    fn what_was_hot_cools_down_and_memory_stays_bounded() {
        let heat = Heat::default();
        (0..1000).for_each(|_| heat.touch(Slot(1), b"old"));
        (1..=100).for_each(|s| heat.second(s, || 5461));
        (0..100).for_each(|_| heat.touch(Slot(2), &[b'x'; 100_000]));
        let top = heat.keys(10);
        assert_eq!(top[0].0.len(), KEY_MAX);
        assert!(heat.keys(usize::MAX).len() <= KEYS);
        assert!(heat.slots().iter().all(|(s, share)| *s == 2 && *share == 1.0));
    }
}
