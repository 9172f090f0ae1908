//! The order of use of one slot's keys: a list through the entries, exact.

use super::entry::Entry;
use super::pool::{NIL, Pool};

/// One slot's list.
#[derive(Debug, Clone, Copy)]
pub struct Lru {
    newest: u32,
    oldest: u32,
}

impl Default for Lru {
    fn default() -> Self {
        Self { newest: NIL, oldest: NIL }
    }
}

impl Lru {
    /// The least recently used entry, or [`NIL`].
    pub fn oldest(&self) -> u32 {
        self.oldest
    }

    /// The most recently used entry, or [`NIL`].
    pub fn newest(&self) -> u32 {
        self.newest
    }

    /// Puts an entry in as the most recently used.
    pub fn push(&mut self, entries: &mut Pool<Entry>, at: u32) {
        let e = &mut entries[at];
        (e.newer, e.older) = (NIL, self.newest);
        match std::mem::replace(&mut self.newest, at) {
            NIL => self.oldest = at,
            second => entries[second].newer = at,
        }
    }

    /// Takes an entry out.
    pub fn unlink(&mut self, entries: &mut Pool<Entry>, at: u32) {
        let Entry { newer, older, .. } = entries[at];
        self.point(entries, (newer, older), (older, newer));
    }

    /// Makes an entry the most recently used.
    pub fn bump(&mut self, entries: &mut Pool<Entry>, at: u32) {
        if self.newest != at {
            self.unlink(entries, at);
            self.push(entries, at);
        }
    }

    /// An entry has moved.
    pub fn relink(&mut self, entries: &mut Pool<Entry>, to: u32) {
        let Entry { newer, older, .. } = entries[to];
        self.point(entries, (newer, older), (to, to));
    }

    /// Makes the neighbours (or the ends) point elsewhere: what lies older of `newer`, what lies newer of `older`.
    fn point(&mut self, entries: &mut Pool<Entry>, (newer, older): (u32, u32), (down, up): (u32, u32)) {
        match newer {
            NIL => self.newest = down,
            at => entries[at].older = down,
        }
        match older {
            NIL => self.oldest = up,
            at => entries[at].newer = up,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_exact() {
        let mut entries = Pool::<Entry>::default();
        let mut lru = Lru::default();
        let at: Vec<u32> = (0..4).map(|i| entries.insert(Entry::new(i, 0, 0))).collect();
        at.iter().for_each(|&i| lru.push(&mut entries, i));
        lru.bump(&mut entries, at[0]);
        lru.bump(&mut entries, at[0]);
        lru.bump(&mut entries, at[2]);
        lru.unlink(&mut entries, at[0]);
        let mut order = Vec::new();
        while lru.oldest() != NIL {
            let oldest = lru.oldest();
            order.push(entries[oldest].hash);
            lru.unlink(&mut entries, oldest);
        }
        assert_eq!(order, [1, 3, 2]);
        assert_eq!(lru.newest, NIL);
    }
}
