//! How busy each part of the ring is: what a node serves a second, evenly over its slots but for those that its own sample
//! names as hot.

use super::cluster::Cluster;
use super::slots::{CELL_SLOTS, CELLS, NOBODY};
use crate::proto::slot::{SLOTS, Slot};

/// Colours change at these multiples of an even load: half of it is cold, twice is warm, four times is hot.
const COLD: f64 = 0.5;
const WARM: f64 = 2.0;
const HOT: f64 = 4.0;

/// How a part of the ring compares with an even load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Warmth {
    /// Under half of it.
    Cold,
    /// About it.
    Even,
    /// At least twice.
    Warm,
    /// At least four times.
    Hot,
}

/// Commands a second by slot and by cell of the map.
#[derive(Debug, Clone, PartialEq)]
pub struct Heat {
    slots: Vec<f64>,
    cells: Vec<f64>,
    most: f64,
    mean: f64,
}

impl Heat {
    /// What the latest view tells.
    pub fn of(c: &Cluster) -> Self {
        let mut even = vec![0.0; c.table.names.len()];
        let mut hot: Vec<(usize, f64)> = Vec::new();
        for n in &c.status.nodes {
            let Some(place) = c.table.place_of(&n.id) else { continue };
            let held = c.table.holdings.get(usize::from(place)).map_or(0, |h| h.primary);
            let rate = if n.ops_per_s.is_finite() { n.ops_per_s.max(0.0) } else { 0.0 };
            let mut rest = 1.0;
            let mut named = 0;
            for h in &n.hot_slots {
                // A slot that has left since the sample is somebody else's by now.
                let own = usize::from(h.slot) < SLOTS && c.table.brief(Slot(h.slot)).primary == place;
                if !own || !(0.0..=1.0).contains(&h.share) {
                    continue;
                }
                hot.push((usize::from(h.slot), rate * h.share));
                rest -= h.share;
                named += 1;
            }
            if let Some(even) = even.get_mut(usize::from(place)) {
                *even = rate * f64::max(rest, 0.0) / f64::from(held.saturating_sub(named).max(1));
            }
        }
        let of = |slot: usize| match c.table.brief(Slot(slot as u16)).primary {
            NOBODY => 0.0,
            place => even.get(usize::from(place)).copied().unwrap_or(0.0),
        };
        let mut slots: Vec<f64> = (0..SLOTS).map(of).collect();
        for (slot, rate) in hot {
            slots[slot] = rate;
        }
        let cells: Vec<f64> = slots.chunks(CELL_SLOTS).map(|c| c.iter().sum()).collect();
        let most = cells.iter().copied().fold(0.0, f64::max);
        let mean = cells.iter().map(|c| c / CELLS as f64).sum();
        Self { slots, cells, most, mean }
    }

    /// Commands a second of one slot.
    pub fn slot(&self, slot: Slot) -> f64 {
        self.slots.get(slot.ix()).copied().unwrap_or(0.0)
    }

    /// Commands a second of a cell that is drawn at full height: the busiest one's, or twice an even load, so that a
    /// cluster without hot spots is not drawn as one of nothing else.
    pub fn full(&self) -> f64 {
        self.most.max(self.mean * 2.0)
    }

    /// A cell's height, 0 to 1: the square root of its part, so that beside one hot slot the others still differ.
    pub fn height(&self, cell: usize) -> f64 {
        let part = self.cells.get(cell).copied().unwrap_or(0.0) / self.full();
        if part.is_finite() { part.sqrt() } else { 0.0 }
    }

    /// A cell beside an even load.
    pub fn warmth(&self, cell: usize) -> Warmth {
        let times = self.cells.get(cell).copied().unwrap_or(0.0) / self.mean;
        match times {
            t if t >= HOT => Warmth::Hot,
            t if t >= WARM => Warmth::Warm,
            t if t >= COLD => Warmth::Even,
            // Nothing is asked for at all, too.
            _ => Warmth::Cold,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::event::Event;
    use crate::proto::stats::HotSlot;
    use crate::proto::status::WatchView;
    use crate::tui::fixture;

    fn cluster(change: impl Fn(&mut WatchView)) -> Cluster {
        let mut v = fixture::healthy();
        v.status.nodes.iter_mut().for_each(|n| n.ops_per_s = 1000.0);
        change(&mut v);
        let mut c = Cluster::new(v.status.clone());
        c.renew(0, v.status, v.slots, Vec::<Event>::new(), false);
        c
    }

    fn sum(h: &Heat) -> f64 {
        (0..SLOTS as u16).map(|s| h.slot(Slot(s))).sum()
    }

    #[test]
    fn an_even_load_is_nowhere_hot_and_adds_up() {
        let h = Heat::of(&cluster(|_| {}));
        assert!((sum(&h) - 3000.0).abs() < 0.1, "{}", sum(&h));
        for cell in 0..CELLS {
            assert_eq!(h.warmth(cell), Warmth::Even);
            assert!((0.6..0.8).contains(&h.height(cell)));
        }
    }

    #[test]
    fn a_hot_slot_stands_out_and_the_sum_stays() {
        let c = cluster(|_| {});
        let slot = (0..SLOTS as u16).find(|s| c.table.name(c.table.brief(Slot(*s)).primary) == "n2").unwrap();
        let h = Heat::of(&cluster(|v| v.status.nodes[1].hot_slots = vec![HotSlot { slot, share: 0.3 }]));
        assert!((h.slot(Slot(slot)) - 300.0).abs() < 0.1);
        assert!((sum(&h) - 3000.0).abs() < 0.1);
        let cell = usize::from(slot) / CELL_SLOTS;
        assert_eq!((h.warmth(cell), h.height(cell)), (Warmth::Hot, 1.0));
        let stale = Heat::of(&cluster(|v| v.status.nodes[0].hot_slots = vec![HotSlot { slot, share: 0.3 }]));
        assert_eq!(stale.warmth(cell), Warmth::Even, "what left a node is not its heat");
    }

    #[test]
    fn a_busy_node_is_warmer_than_an_idle_one() {
        let c = cluster(|v| v.status.nodes[2].ops_per_s = 20_000.0);
        let h = Heat::of(&c);
        let of = |name: &str| {
            let place = c.table.place_of(name).unwrap();
            let slot = (0..SLOTS as u16).find(|s| c.table.brief(Slot(*s)).primary == place).unwrap();
            h.slot(Slot(slot))
        };
        assert!(of("n3") > 15.0 * of("n1"));
    }

    #[test]
    fn nothing_asked_for_is_cold_and_nonsense_is_harmless() {
        let idle = Heat::of(&cluster(|v| v.status.nodes.iter_mut().for_each(|n| n.ops_per_s = 0.0)));
        assert_eq!((idle.warmth(0), idle.height(0), idle.full()), (Warmth::Cold, 0.0, 0.0));
        for bad in [f64::NAN, f64::INFINITY, -1.0, f64::MAX] {
            let h = Heat::of(&cluster(|v| {
                for n in &mut v.status.nodes {
                    n.ops_per_s = bad;
                    n.hot_slots = vec![HotSlot { slot: u16::MAX, share: bad }, HotSlot { slot: 0, share: bad }];
                }
            }));
            assert!((0..CELLS + 1).all(|c| (0.0..=1.0).contains(&h.height(c))), "{bad}");
        }
    }
}
