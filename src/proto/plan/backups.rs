//! Who holds the copy of which slot: not the primary, another zone or host where possible, within bounds, and spread so
//! that after any one death no survivor is crushed.
//!
//! ```text
//! keep what is valid ─▶ place what is missing ─▶ thin pairs ─▶ fill needy nodes ─▶ shed surplus ─▶ cross zones
//! ```
//!
//! A *pair* is a primary and one of its backups: its count is what the backup inherits when the primary dies. In a
//! rebuild only the first two steps run.

use std::cmp::Reverse;

use super::Mode;
use super::field::{Bounds, Field, NOBODY, SAME_ZONE, ceil};
use crate::proto::ring::VNODES;

/// After any one death no survivor may lead more than this times its share of what then is (PROTOCOL 2).
const AFTER_DEATH: f64 = 1.25;
/// Rounds of mending; what one step does can open room for another. Two are enough in all that was tried.
const ROUNDS: usize = 16;
/// Swaps tried in one plan, so that odd zones cannot make it slow: each looks at the whole table once or twice.
const SWAPS_MAX: usize = 512;

/// Brings `backup` in order. `before` is who led each slot until now.
pub(super) fn place(field: &Field<'_>, primary: &[u32], before: &[u32], backup: &mut [u32], mode: Mode) {
    // A copy leaves a draining node only where somebody can take it.
    let drain = mode == Mode::Balance && field.total > 0.0;
    for (slot, b) in backup.iter_mut().enumerate() {
        let p = primary[slot];
        if p == NOBODY || (drain && !field.accepts(*b)) {
            *b = NOBODY;
        } else if *b == p {
            // The backup leads now; who led holds the data, so swapping the roles copies nothing.
            let swap = before[slot] != p && field.accepts(before[slot]);
            *b = if swap { before[slot] } else { NOBODY };
        }
    }
    if field.total == 0.0 {
        return;
    }
    let mut work = Work::new(field, primary, backup);
    work.place_missing(mode);
    if mode == Mode::Rebuild {
        return;
    }
    for _ in 0..ROUNDS {
        let changes = work.changes;
        work.thin_pairs();
        work.fill_needy();
        work.shed();
        work.cross_zones();
        if work.changes == changes {
            break;
        }
    }
}

/// Consecutive slots with one primary and one backup.
#[derive(Debug, Clone, Copy)]
struct Run {
    first: usize,
    len: usize,
    primary: u32,
    backup: u32,
}

struct Work<'a, 'b> {
    field: &'a Field<'a>,
    primary: &'a [u32],
    backup: &'b mut [u32],
    /// Slots each node leads.
    leads: Vec<u32>,
    /// Slots each node backs.
    load: Vec<u32>,
    bounds: Vec<Bounds>,
    /// The shares of all that may back a node's slots, together.
    fair_for: Vec<f64>,
    /// Slots given to another backup so far.
    changes: usize,
    swaps_left: usize,
}

impl<'a, 'b> Work<'a, 'b> {
    fn new(field: &'a Field<'a>, primary: &'a [u32], backup: &'b mut [u32]) -> Self {
        let leads = field.loads(primary);
        let mut bounds: Vec<Bounds> = field.backup_shares(&leads).into_iter().map(Bounds::around).collect();
        if backup.iter().all(|&b| b == NOBODY) {
            // Nothing is copied yet, so evenness is free.
            bounds.iter_mut().for_each(|b| b.high = ceil(b.fair));
        }
        let may = |p: u32, b: u32| p != b && field.domain(p, b) < SAME_ZONE;
        let fair_of = |p: u32| -> f64 {
            bounds.iter().enumerate().filter(|&(b, _)| may(p, b as u32)).map(|(_, bounds)| bounds.fair).sum()
        };
        let fair_for = (0..field.len() as u32).map(|p| fair_of(p).max(1e-9)).collect();
        let load = field.loads(backup);
        Self { field, primary, backup, leads, load, bounds, fair_for, changes: 0, swaps_left: SWAPS_MAX }
    }

    fn room(&self, n: u32) -> u32 {
        self.bounds[n as usize].high.saturating_sub(self.load[n as usize])
    }

    fn surplus(&self, n: u32) -> u32 {
        self.load[n as usize].saturating_sub(self.bounds[n as usize].high)
    }

    fn spare(&self, n: u32) -> u32 {
        self.load[n as usize].saturating_sub(self.bounds[n as usize].low)
    }

    fn need(&self, n: u32) -> u32 {
        self.bounds[n as usize].fill().saturating_sub(self.load[n as usize])
    }

    fn is_needy(&self, n: u32) -> bool {
        self.load[n as usize] < self.bounds[n as usize].low
    }

    fn fullness(&self, n: u32) -> f64 {
        // A node whose share is nothing (it leads everything) is full.
        f64::from(self.load[n as usize] + 1) / self.bounds[n as usize].fair.max(1e-9)
    }

    fn accepting(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.field.len() as u32).filter(|&n| self.field.accepts(n))
    }

    /// Weight of all that outlive `p`.
    fn weight_without(&self, p: u32) -> f64 {
        (self.field.total - self.field.weight[p as usize]).max(1e-9)
    }

    /// How many of `p`'s slots `b` would back if they were spread evenly over all others.
    fn even(&self, p: u32, b: u32) -> f64 {
        f64::from(self.leads[p as usize]) * self.field.weight[b as usize] / self.weight_without(p)
    }

    /// How many of `p`'s slots `b` may back: what keeps it within [`AFTER_DEATH`] × its share when `p` dies, or its part of
    /// them where zones leave `p` too few others for that.
    fn pair_max(&self, p: u32, b: u32) -> u32 {
        let share = self.field.slots as f64 * self.field.weight[b as usize] / self.weight_without(p);
        let inherits = (share * AFTER_DEATH + 1e-6).floor() - f64::from(self.leads[b as usize]);
        let part = f64::from(self.leads[p as usize]) * self.bounds[b as usize].fair / self.fair_for[p as usize];
        (inherits.max(1.0) as u32).max(ceil(part))
    }

    /// The largest piece of a primary's slots that goes to one backup at a time.
    fn chunk(&self, p: u32) -> usize {
        self.leads[p as usize].div_ceil(VNODES as u32).max(1) as usize
    }

    /// Slots of `p` that each node backs.
    fn pairs_of_primary(&self, p: u32) -> Vec<u32> {
        let mut row = vec![0; self.field.len()];
        for (&q, &b) in self.primary.iter().zip(self.backup.iter()) {
            if q == p && b != NOBODY {
                row[b as usize] += 1;
            }
        }
        row
    }

    /// Slots of each primary that `b` backs.
    fn pairs_of_backup(&self, b: u32) -> Vec<u32> {
        let mut column = vec![0; self.field.len()];
        for (&p, &c) in self.primary.iter().zip(self.backup.iter()) {
            if c == b && p != NOBODY {
                column[p as usize] += 1;
            }
        }
        column
    }

    fn runs(&self, of: impl Fn(u32, u32) -> bool) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for (slot, (&primary, &backup)) in self.primary.iter().zip(self.backup.iter()).enumerate() {
            if !of(primary, backup) {
                continue;
            }
            match runs.last_mut() {
                Some(r) if r.first + r.len == slot && r.primary == primary && r.backup == backup => r.len += 1,
                _ => runs.push(Run { first: slot, len: 1, primary, backup }),
            }
        }
        runs
    }

    fn assign(&mut self, first: usize, len: usize, to: u32) {
        for holder in &mut self.backup[first..first + len] {
            if let Some(l) = self.load.get_mut(*holder as usize) {
                *l -= 1;
            }
            *holder = to;
        }
        self.load[to as usize] += len as u32;
        self.changes += len;
    }

    /// The best other backup for a slot of `p`, given who backs how many of its slots; none without room.
    /// Order: domain, then needy nodes, then the thinnest pair, then the emptiest node, then the name.
    fn choose(&self, p: u32, row: &[u32], domain_max: u8) -> Option<u32> {
        let mut best: Option<((u8, bool, u64, f64), u32)> = None;
        for b in self.accepting() {
            let domain = self.field.domain(p, b);
            if b == p || domain > domain_max || self.room(b) == 0 || row[b as usize] >= self.pair_max(p, b) {
                continue;
            }
            // Eighths of an even spread: finer would prefer a thin pair to an empty node for a slot or two.
            let thin = (f64::from(row[b as usize]) / self.even(p, b).max(1e-9) * 8.0) as u64;
            let key = (domain, !self.is_needy(b), thin, self.fullness(b));
            if best.is_none_or(|(k, _)| key < k) {
                best = Some((key, b));
            }
        }
        best.map(|(_, b)| b)
    }

    /// Gives a backup to every slot that has a primary and none.
    fn place_missing(&mut self, mode: Mode) {
        // Those with fewest places to go first: a large zone's, then a large node's.
        let mut order: Vec<u32> = (0..self.field.len() as u32).collect();
        order.sort_by_cached_key(|&p| (Reverse(self.field.zone_weight(p)), Reverse(self.leads[p as usize]), p));
        for p in order {
            let missing = self.runs(|q, b| q == p && b == NOBODY);
            if missing.is_empty() {
                continue;
            }
            let mut row = self.pairs_of_primary(p);
            for Run { mut first, mut len, .. } in missing {
                while len > 0 {
                    let chosen = self
                        .choose(p, &row, SAME_ZONE - 1)
                        .or_else(|| if mode == Mode::Balance { self.make_room(p, &mut row) } else { None });
                    let (to, most) = match chosen {
                        Some(b) => (b, self.room(b).min(self.pair_max(p, b).saturating_sub(row[b as usize])).max(1)),
                        // No node can take it within all bounds: a copy that crowds is better than none.
                        None => match self.crowd(p) {
                            Some(b) => (b, 1),
                            None => break,
                        },
                    };
                    let take = len.min(self.chunk(p)).min(most as usize);
                    self.assign(first, take, to);
                    row[to as usize] += take as u32;
                    first += take;
                    len -= take;
                }
            }
        }
    }

    /// Who takes a slot of `p` beyond its bounds: not in `p`'s zone if others live, then the emptiest.
    fn crowd(&self, p: u32) -> Option<u32> {
        self.accepting().filter(|&b| b != p).min_by(|&a, &b| {
            let near = |n| self.field.domain(p, n) == SAME_ZONE;
            let room = (self.room(a) == 0).cmp(&(self.room(b) == 0));
            near(a).cmp(&near(b)).then(room).then(self.fullness(a).total_cmp(&self.fullness(b)))
        })
    }

    /// Where only others have room: moves one of their slots from some `b` to a node with room, so that `b` can take one
    /// of `p`'s. Gives `b`.
    fn make_room(&mut self, p: u32, row: &mut [u32]) -> Option<u32> {
        if self.swaps_left == 0 {
            return None;
        }
        self.swaps_left -= 1;
        let spacious: Vec<u32> = self.accepting().filter(|&x| self.room(x) > 0).collect();
        for x in spacious {
            let column = self.pairs_of_backup(x);
            let fits = |q: u32, b: u32| {
                q != NOBODY
                    && q != p
                    && b != NOBODY
                    && self.field.accepts(b)
                    && ![p, x].contains(&b)
                    && q != x
                    && row[b as usize] < self.pair_max(p, b)
                    && column[q as usize] < self.pair_max(q, x)
                    && self.field.domain(q, x) <= self.field.domain(q, b)
            };
            let runs = self.runs(fits);
            let Some(run) = runs.iter().max_by_key(|r| (r.len, Reverse(r.first))) else { continue };
            let open = self.pair_max(run.primary, x) - column[run.primary as usize];
            let take = run.len.min(self.chunk(p)).min(self.room(x).min(open) as usize);
            self.assign(run.first, take, x);
            return Some(run.backup);
        }
        None
    }

    /// No backup may inherit too much from one primary.
    fn thin_pairs(&mut self) {
        for p in 0..self.field.len() as u32 {
            if self.leads[p as usize] == 0 {
                continue;
            }
            let mut row = self.pairs_of_primary(p);
            let thick: Vec<u32> = self.accepting().filter(|&b| row[b as usize] > self.pair_max(p, b)).collect();
            for b in thick {
                let mut runs = self.runs(|q, c| q == p && c == b);
                // Shortest first: they go whole.
                runs.sort_by_key(|r| (Reverse(r.len), r.first));
                while let Some(run) = runs.last_mut() {
                    let excess = row[b as usize].saturating_sub(self.pair_max(p, b)) as usize;
                    if excess == 0 || !self.relocate(run, excess, &mut row, SAME_ZONE - 1) {
                        break;
                    }
                    if run.len == 0 {
                        runs.pop();
                    }
                }
            }
        }
    }

    /// Fills nodes that back too little from the fullest ones; what must be shed anyway goes to them first.
    fn fill_needy(&mut self) {
        let needy: Vec<u32> = self.accepting().filter(|&n| self.is_needy(n)).collect();
        for &to in &needy {
            let mut column = self.pairs_of_backup(to);
            // Donors that had nothing this node may take.
            let mut barren = vec![false; self.field.len()];
            while self.need(to) > 0 {
                let donor = self
                    .accepting()
                    .filter(|n| !barren[*n as usize] && !needy.contains(n) && self.spare(*n) > 0)
                    .min_by(|&a, &b| {
                        let none_over = |n| self.surplus(n) == 0;
                        let fullest = self.fullness(b).total_cmp(&self.fullness(a));
                        none_over(a).cmp(&none_over(b)).then(fullest).then(a.cmp(&b))
                    });
                let Some(from) = donor.filter(|&n| self.fullness(n) > self.fullness(to)) else { break };
                let need: u32 = needy.iter().map(|&n| self.need(n)).sum();
                let surplus: u32 = self.accepting().map(|n| self.surplus(n)).sum();
                let donors = self.accepting().filter(|n| !needy.contains(n) && self.spare(*n) > 0).count() as u32;
                let chunk = self.bounds[to as usize].fill().div_ceil((VNODES as u32).min(donors));
                let beyond = chunk.saturating_sub(self.surplus(from)).min(need.saturating_sub(surplus));
                let amount = (self.surplus(from) + beyond).min(self.spare(from)).min(self.need(to));
                if amount == 0 || !self.take_run(from, to, amount, &mut column) {
                    barren[from as usize] = true;
                }
            }
        }
    }

    /// Takes one run, or part of one, that thickens the taker's pairs least.
    fn take_run(&mut self, from: u32, to: u32, amount: u32, column: &mut [u32]) -> bool {
        let mut best = None;
        for run in self.runs(|p, b| b == from && p != to) {
            let (p, has) = (run.primary, column[run.primary as usize]);
            let open = self.pair_max(p, to).saturating_sub(has);
            let take = run.len.min(amount.min(open) as usize).min(self.chunk(p));
            if take == 0 || self.field.domain(p, to) > self.field.domain(p, from) {
                continue;
            }
            let thin = (f64::from(has) / self.even(p, to).max(1e-9) * 8.0) as u64;
            let key = (thin, Reverse(take), run.first);
            if best.is_none_or(|(k, _, _)| key < k) {
                best = Some((key, run, take));
            }
        }
        let Some((_, run, take)) = best else { return false };
        self.assign(run.first + run.len - take, take, to);
        column[run.primary as usize] += take as u32;
        true
    }

    /// Everyone above `high` gives its surplus to whoever has room.
    fn shed(&mut self) {
        let over: Vec<u32> = self.accepting().filter(|&n| self.surplus(n) > 0).collect();
        for from in over {
            let mut runs = self.runs(|_, b| b == from);
            runs.sort_by_key(|r| (Reverse(r.len), r.first));
            while self.surplus(from) > 0 {
                let Some(run) = runs.pop() else { break };
                let row = self.pairs_of_primary(run.primary);
                // Not across fewer domains than now: the next step would only bring it back.
                let domain = self.field.domain(run.primary, from);
                let Some(to) = self.choose(run.primary, &row, domain) else { continue };
                let open = self.room(to).min(self.pair_max(run.primary, to) - row[to as usize]);
                let take = run.len.min(self.surplus(from).min(open) as usize);
                self.assign(run.first + run.len - take, take, to);
                if take < run.len {
                    runs.push(Run { len: run.len - take, ..run });
                }
            }
        }
    }

    /// Backups on their primary's host go elsewhere where there is room, or swap with another's; those in its zone always do.
    fn cross_zones(&mut self) {
        if !self.field.has_domains() {
            return;
        }
        for p in 0..self.field.len() as u32 {
            let reachable = self.accepting().filter(|&b| b != p).map(|b| self.field.domain(p, b)).min();
            let Some(reachable) = reachable else { continue };
            let near = self.runs(|q, b| q == p && b != NOBODY && self.field.domain(p, b) > reachable);
            for mut run in near {
                while run.len > 0 && self.cross(&mut run) {}
            }
        }
    }

    /// Moves the end of a run into a better domain; false if nobody can take it.
    fn cross(&mut self, run: &mut Run) -> bool {
        let better = self.field.domain(run.primary, run.backup) - 1;
        let mut row = self.pairs_of_primary(run.primary);
        let most = self.chunk(run.primary);
        if self.relocate(run, most, &mut row, better) {
            return true;
        }
        match self.crowd(run.primary).filter(|&b| self.field.domain(run.primary, b) <= better) {
            Some(b) if better == SAME_ZONE - 1 => {
                self.give_end(run, run.len.min(most), b, &mut row);
                true
            }
            _ => false,
        }
    }

    /// Moves up to `most` slots off the end of a run to the best other backup that `domain_max` admits: one with room,
    /// else one that gives a slot of another primary for it. `row` is who backs how many of the primary's slots.
    fn relocate(&mut self, run: &mut Run, most: usize, row: &mut [u32], domain_max: u8) -> bool {
        let (p, b) = (run.primary, run.backup);
        if let Some(to) = self.choose(p, row, domain_max) {
            let open = self.room(to).min(self.pair_max(p, to) - row[to as usize]) as usize;
            self.give_end(run, run.len.min(most).min(open), to, row);
            return true;
        }
        if self.swaps_left == 0 {
            return false;
        }
        self.swaps_left -= 1;
        // (p, b) and (q, x) become (p, x) and (q, b): better for p, no worse for q.
        let column = self.pairs_of_backup(b);
        let fits = |q: u32, x: u32| {
            q != NOBODY
                && x != NOBODY
                && self.field.accepts(x)
                && ![p, b].contains(&x)
                && ![p, b].contains(&q)
                && self.field.domain(p, x) <= domain_max
                && self.field.domain(q, b) <= self.field.domain(q, x)
                && row[x as usize] < self.pair_max(p, x)
                && column[q as usize] < self.pair_max(q, b)
        };
        let Some(other) = self.runs(fits).into_iter().max_by_key(|r| (r.len.min(run.len), Reverse(r.first))) else {
            return false;
        };
        let (q, x) = (other.primary, other.backup);
        let open = (self.pair_max(p, x) - row[x as usize]).min(self.pair_max(q, b) - column[q as usize]) as usize;
        let take = run.len.min(most).min(other.len).min(open);
        self.give_end(run, take, x, row);
        self.assign(other.first, take, b);
        true
    }

    fn give_end(&mut self, run: &mut Run, take: usize, to: u32, row: &mut [u32]) {
        run.len -= take;
        self.assign(run.first + run.len, take, to);
        row[run.backup as usize] -= take as u32;
        row[to as usize] += take as u32;
    }
}
