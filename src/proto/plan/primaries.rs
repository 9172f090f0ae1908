//! Who serves which slot: a greedy rebalancing that moves only what must move, in runs as long as they come.
//!
//! ```text
//! nobody's slots ─▶ needy nodes, else neighbours on the circle, else the next node clockwise with room
//! above `high`   ─▶ needy nodes, else neighbours, else clockwise
//! below `low`    ◀─ the fullest nodes, in chunks
//! ```
//!
//! A slot given to a neighbour of its run costs no new run, so runs stay long over many changes (Redis issue 10215).

use super::field::{Bounds, Field, NOBODY, ceil};
use crate::proto::ring::VNODES;

/// Brings the table within its bounds.
pub(super) fn balance(field: &Field<'_>, table: &mut [u32]) {
    if field.total == 0.0 {
        // Nobody may be given anything: holders keep what they have.
        return;
    }
    let forming = table.iter().all(|&n| n == NOBODY);
    if forming {
        table.copy_from_slice(&field.ring.owners());
    }
    let slots = field.slots as f64;
    let mut bounds: Vec<Bounds> = field.weight.iter().map(|w| Bounds::around(slots * w / field.total)).collect();
    if forming {
        // Nothing is copied yet, so evenness is free.
        bounds.iter_mut().for_each(|b| b.high = ceil(b.fair));
    }
    let load = field.loads(table);
    let mut work = Work { field, needy: Vec::new(), bounds, load, table };
    work.find_needy();
    work.give_out();
    work.find_needy();
    if forming {
        work.shed_to_neighbours();
        work.find_needy();
    }
    work.fill_needy();
    work.shed_to_neighbours();
}

struct Work<'a, 'b> {
    field: &'a Field<'a>,
    table: &'b mut [u32],
    load: Vec<u32>,
    bounds: Vec<Bounds>,
    /// Nodes that were found below `low` and are not yet filled up to their share.
    needy: Vec<u32>,
}

/// Part of a run and what giving it away does to the number of runs; smallest is best.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Piece {
    /// Runs more (or fewer) than before.
    runs: i32,
    /// Longer is better: negative length.
    shortness: i64,
    /// Tie-break: the distance on the circle that the ring cares about.
    distance: usize,
    first: usize,
    len: usize,
    to: u32,
}

impl Work<'_, '_> {
    fn fullness(&self, n: u32) -> f64 {
        f64::from(self.load[n as usize]) / self.bounds[n as usize].fair
    }

    fn room(&self, n: u32) -> u32 {
        self.bounds[n as usize].high.saturating_sub(self.load[n as usize])
    }

    /// Room up to its share only.
    fn fair_room(&self, n: u32) -> u32 {
        let b = &self.bounds[n as usize];
        b.high.min(ceil(b.fair)).saturating_sub(self.load[n as usize])
    }

    fn surplus(&self, n: u32) -> u32 {
        self.load[n as usize].saturating_sub(self.bounds[n as usize].high)
    }

    fn spare(&self, n: u32) -> u32 {
        self.load[n as usize].saturating_sub(self.bounds[n as usize].low)
    }

    /// How much a needy node still lacks.
    fn need(&self, n: u32) -> u32 {
        self.bounds[n as usize].fill().saturating_sub(self.load[n as usize])
    }

    fn accepting(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.field.len() as u32).filter(|&n| self.field.accepts(n))
    }

    fn find_needy(&mut self) {
        self.needy = self.accepting().filter(|&n| self.load[n as usize] < self.bounds[n as usize].low).collect();
    }

    fn neediest(&mut self) -> Option<u32> {
        let needy = std::mem::take(&mut self.needy);
        self.needy = needy.into_iter().filter(|&n| self.need(n) > 0).collect();
        self.needy.iter().copied().min_by(|&a, &b| self.fullness(a).total_cmp(&self.fullness(b)))
    }

    fn fullest(&self, eligible: impl Fn(u32) -> bool) -> Option<u32> {
        // max_by takes the last of equals; reversed, ties go to the first by name.
        self.accepting()
            .filter(|&n| eligible(n))
            .min_by(|&a, &b| self.fullness(b).total_cmp(&self.fullness(a)).then(a.cmp(&b)))
    }

    fn assign(&mut self, first: usize, len: usize, to: u32) {
        for holder in &mut self.table[first..first + len] {
            if let Some(l) = self.load.get_mut(*holder as usize) {
                *l -= 1;
            }
            *holder = to;
        }
        self.load[to as usize] += len as u32;
    }

    /// Who holds the slots on either side of a run, if they accept.
    fn neighbours(&self, first: usize, len: usize) -> (Option<u32>, Option<u32>) {
        let accepting = |n: &u32| self.field.accepts(*n);
        let left = first.checked_sub(1).map(|i| self.table[i]).filter(accepting);
        (left, self.table.get(first + len).copied().filter(accepting))
    }

    /// Maximal runs of slots whose holder satisfies `of`.
    fn runs(&self, of: impl Fn(u32) -> bool) -> Vec<(usize, usize)> {
        let mut runs: Vec<(usize, usize)> = Vec::new();
        for (slot, &holder) in self.table.iter().enumerate() {
            if !of(holder) {
                continue;
            }
            match runs.last_mut() {
                Some((first, len)) if *first + *len == slot => *len += 1,
                _ => runs.push((slot, 1)),
            }
        }
        runs
    }

    /// The next node clockwise from a slot with room for `len`; if none has, the one with most.
    fn clockwise(&self, from: usize, len: usize) -> Option<u32> {
        let points = self.field.ring.points();
        let start = points.partition_point(|p| (p.slot as usize) < from);
        let mut best: Option<u32> = None;
        for i in 0..points.len() {
            let n = points[(start + i) % points.len()].node;
            let room = self.room(n) as usize;
            if room >= len {
                return Some(n);
            }
            if room > best.map_or(0, |b| self.room(b) as usize) {
                best = Some(n);
            }
        }
        best
    }

    /// Gives out the slots of holders that are gone or draining.
    fn give_out(&mut self) {
        for (mut first, mut len) in self.runs(|n| !self.field.accepts(n)) {
            while len > 0 {
                let (to, take, left) = self.taker(first, len);
                self.assign(if left { first } else { first + len - take }, take, to);
                len -= take;
                if left {
                    first += take;
                }
            }
        }
    }

    /// Who takes how much of an unowned run, and whether from its left end.
    fn taker(&mut self, first: usize, len: usize) -> (u32, usize, bool) {
        let (left, right) = self.neighbours(first, len);
        let ends = [(right, false), (left, true)];
        if let Some(neediest) = self.neediest() {
            // A needy node that touches the run, or that the ring would give it to, costs fewer runs than the neediest.
            let needs = |n: u32| self.needy.contains(&n) && self.need(n) > 0;
            let touching = ends.into_iter().find_map(|(n, at_left)| n.filter(|&n| needs(n)).map(|n| (n, at_left)));
            let proposed = || self.field.ring.owner(first).map(|n| n as u32).filter(|&n| needs(n)).map(|n| (n, true));
            let (to, at_left) = touching.or_else(proposed).unwrap_or((neediest, true));
            return (to, len.min(self.need(to) as usize), at_left);
        }
        for room in [Self::fair_room, Self::room] {
            let fits = ends.into_iter().filter_map(|(n, at_left)| n.map(|n| (n, at_left)));
            // Whole to one side if it fits, clockwise first; else as much as fits on the roomier side.
            let best = fits.min_by_key(|&(n, at_left)| (std::cmp::Reverse((room(self, n) as usize).min(len)), at_left));
            if let Some((to, at_left)) = best.filter(|&(n, _)| room(self, n) > 0) {
                return (to, len.min(room(self, to) as usize), at_left);
            }
        }
        match self.clockwise(first + len, len) {
            Some(to) => (to, len.min(self.room(to).max(1) as usize), false),
            // Not reached while the bounds sum up to all slots; the emptiest is right all the same.
            None => (self.fullest(|_| true).unwrap_or(0), len, true),
        }
    }

    /// Fills every needy node up to its share from the fullest ones; what must be shed anyway goes to them first.
    fn fill_needy(&mut self) {
        while let Some(to) = self.neediest() {
            let donor = |n: u32| self.spare(n) > 0 && !self.needy.contains(&n);
            let Some(from) = self.fullest(|n| donor(n) && self.surplus(n) > 0).or_else(|| self.fullest(donor)) else {
                return;
            };
            if self.fullness(from) <= self.fullness(to) {
                return;
            }
            let need: u32 = self.needy.iter().map(|&n| self.need(n)).sum();
            let surplus: u32 = self.accepting().map(|n| self.surplus(n)).sum();
            // Beyond what it must shed, a donor gives down to where all donors would end up level, or at least a whole
            // chunk, so that few donors are cut at all. What others must shed keeps its place.
            let level = self.level(need);
            let even = f64::from(self.load[from as usize]) - level * self.bounds[from as usize].fair;
            let chunk = self.bounds[to as usize].fill().div_ceil(VNODES as u32);
            let beyond = chunk.max(ceil(even)).saturating_sub(self.surplus(from)).min(need.saturating_sub(surplus));
            let amount = (self.surplus(from) + beyond).min(self.spare(from)).min(self.need(to));
            if amount == 0 {
                return;
            }
            self.carve(from, to, amount as usize);
        }
    }

    /// How full (1 = its share) the donors would be if all of them gave `need` slots evenly.
    fn level(&self, need: u32) -> f64 {
        let mut above = 0.0;
        loop {
            let donors = self.accepting().filter(|n| !self.needy.contains(n) && self.fullness(*n) > above);
            let (load, fair) = donors.fold((0.0, 0.0), |(load, fair), n| {
                (load + f64::from(self.load[n as usize]), fair + self.bounds[n as usize].fair)
            });
            let level = (load - f64::from(need)) / fair;
            // Donors below the level give nothing; leaving them out lowers it, so this ends.
            if fair == 0.0 || level <= above {
                return above;
            }
            above = level;
        }
    }

    /// Moves `amount` slots between two nodes, adding as few runs as possible, near the taker's points.
    fn carve(&mut self, from: u32, to: u32, mut amount: usize) {
        let points: Vec<usize> =
            self.field.ring.points().iter().filter(|p| p.node == to).map(|p| p.slot as usize).collect();
        let behind = |slot: usize| {
            points.iter().map(|&p| if p <= slot { slot - p } else { slot + self.field.slots - p }).min().unwrap_or(0)
        };
        while amount > 0 {
            let mut best: Option<Piece> = None;
            for (first, len) in self.runs(|n| n == from) {
                let (left, right) = self.neighbours(first, len);
                let (left, right) = (left == Some(to), right == Some(to));
                let take = len.min(amount);
                let (runs, at_left) = match take == len {
                    true => (-i32::from(left) - i32::from(right), true),
                    false if left || right => (0, left),
                    false => (1, false),
                };
                let first = if at_left { first } else { first + len - take };
                let piece = Piece { runs, shortness: -(take as i64), distance: behind(first), first, len: take, to };
                if best.as_ref().is_none_or(|b| piece < *b) {
                    best = Some(piece);
                }
            }
            let Some(piece) = best else { return };
            self.assign(piece.first, piece.len, piece.to);
            amount -= piece.len;
        }
    }

    /// Everyone above `high` gives the surplus to the holders beside its runs, else clockwise.
    fn shed_to_neighbours(&mut self) {
        while let Some(from) = self.fullest(|n| self.surplus(n) > 0) {
            let piece = self.best_edge(from).or_else(|| self.far_piece(from));
            let Some(piece) = piece else { return };
            self.assign(piece.first, piece.len, piece.to);
        }
    }

    fn best_edge(&self, from: u32) -> Option<Piece> {
        let surplus = self.surplus(from) as usize;
        let mut best: Option<Piece> = None;
        for (first, len) in self.runs(|n| n == from) {
            let (left, right) = self.neighbours(first, len);
            for (to, at_left) in [(right, false), (left, true)] {
                let Some(to) = to.filter(|&n| self.room(n) > 0) else { continue };
                let take = len.min(surplus).min(self.room(to) as usize);
                let runs = match take == len {
                    true => -1 - i32::from(left == right),
                    false => 0,
                };
                let piece = Piece {
                    runs,
                    shortness: -(take as i64),
                    distance: usize::from(at_left),
                    first: if at_left { first } else { first + len - take },
                    len: take,
                    to,
                };
                if best.as_ref().is_none_or(|b| piece < *b) {
                    best = Some(piece);
                }
            }
        }
        best
    }

    /// A piece for somebody who touches none of the runs.
    fn far_piece(&self, from: u32) -> Option<Piece> {
        let surplus = self.surplus(from) as usize;
        let mut best: Option<Piece> = None;
        for (first, len) in self.runs(|n| n == from) {
            let take = len.min(surplus);
            let Some(to) = self.clockwise(first + len, take) else { continue };
            let take = take.min(self.room(to) as usize);
            let piece = Piece {
                runs: i32::from(take < len),
                shortness: -(take as i64),
                distance: 0,
                first: first + len - take,
                len: take,
                to,
            };
            if best.as_ref().is_none_or(|b| piece < *b) {
                best = Some(piece);
            }
        }
        best
    }
}
