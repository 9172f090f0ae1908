//! The slot table as the screen needs it: who holds what, in a few bytes a slot, with a letter for every owner.

use std::collections::HashMap;

use crate::proto::slot::{SLOTS, Slot};
use crate::proto::view::{Phase, SlotRange, SlotState};

/// No node.
pub const NOBODY: u16 = u16::MAX;
/// Slots in one cell of the map: 16384 slots fit 8 rows of 32 cells.
pub const CELL_SLOTS: usize = 64;
/// Cells of the map.
pub const CELLS: usize = SLOTS / CELL_SLOTS;
/// More names than any cluster has; beyond it letters are dealt anew, so names of the past can't fill memory.
const OWNERS_MAX: usize = 4096;

/// One slot in brief. Nodes are places in [`SlotTable::names`], or [`NOBODY`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Brief {
    /// Who serves it.
    pub primary: u16,
    /// The first in-sync member but the primary.
    pub backup: u16,
    /// Who would be primary if the primary died now.
    pub heir: u16,
    /// The first node being copied to.
    pub learner: u16,
    /// Who is primary next, while it is handed over.
    pub next: u16,
    /// What it is doing.
    pub phase: Phase,
}

const EMPTY: Brief =
    Brief { primary: NOBODY, backup: NOBODY, heir: NOBODY, learner: NOBODY, next: NOBODY, phase: Phase::Orphan };

/// Which copy a picture shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Copies {
    /// Who serves.
    #[default]
    Primary,
    /// Who stands in.
    Backup,
}

impl Brief {
    /// Who holds this copy.
    pub fn holder(&self, copies: Copies) -> u16 {
        match copies {
            Copies::Primary => self.primary,
            Copies::Backup => self.backup,
        }
    }

    /// Whether this copy is about to live elsewhere: the slot is being handed over, or is copied to a new node although
    /// its set is complete (a copy to fill a gap moves nothing).
    pub fn leaving(&self) -> bool {
        self.next != NOBODY || (self.learner != NOBODY && self.backup != NOBODY)
    }

    /// Where this copy goes, as far as the table tells.
    pub fn coming(&self) -> u16 {
        if self.next != NOBODY { self.next } else { self.learner }
    }
}

/// What one node holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Holding {
    /// Slots it is primary of.
    pub primary: u32,
    /// Slots it is an in-sync backup of.
    pub backup: u32,
    /// Runs of consecutive slots it is primary of.
    pub runs: u32,
    /// Slots being copied or handed to it.
    pub coming: u32,
}

/// Where the slots of a node would go if it died now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Forecast {
    /// New primaries and how many slots each gets, most first.
    pub to: Vec<(u16, u32)>,
    /// Slots whose only copy would be gone.
    pub lost: u32,
    /// Slots of others that would lose their backup.
    pub bare: u32,
}

/// One cell of the map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapCell {
    /// Who holds most of it.
    pub holder: u16,
    /// Some of it is about to leave.
    pub leaving: bool,
    /// Some of it is served by nobody.
    pub orphan: bool,
}

/// Everything about all slots.
#[derive(Debug, Clone, PartialEq)]
pub struct SlotTable {
    /// Owners in the order they were first seen; a node keeps its place, so its letter and colour never change hands.
    pub names: Vec<String>,
    /// What each owner holds, by place.
    pub holdings: Vec<Holding>,
    places: HashMap<String, u16>,
    briefs: Vec<Brief>,
    ranges: Vec<SlotRange>,
}

impl Default for SlotTable {
    fn default() -> Self {
        Self {
            names: Vec::new(),
            holdings: Vec::new(),
            places: HashMap::new(),
            briefs: vec![EMPTY; SLOTS],
            ranges: Vec::new(),
        }
    }
}

impl SlotTable {
    /// Gives names their places, in this order; known ones keep theirs.
    pub fn know<'a>(&mut self, names: impl Iterator<Item = &'a str>) {
        for name in names {
            self.place(name);
        }
    }

    fn place(&mut self, name: &str) -> u16 {
        if let Some(p) = self.places.get(name) {
            return *p;
        }
        if self.names.len() >= OWNERS_MAX {
            return NOBODY;
        }
        let p = self.names.len() as u16;
        self.names.push(name.to_owned());
        self.holdings.push(Holding::default());
        self.places.insert(name.to_owned(), p);
        p
    }

    /// The place of a node, if it was ever seen.
    pub fn place_of(&self, name: &str) -> Option<u16> {
        self.places.get(name).copied()
    }

    /// The name at a place.
    pub fn name(&self, place: u16) -> &str {
        self.names.get(usize::from(place)).map_or("none", String::as_str)
    }

    /// The letter at a place: `a` to `z`, then again (colours and the list of owners tell them apart).
    pub fn letter(place: u16) -> char {
        if place == NOBODY { '_' } else { char::from(b'a' + (place % 26) as u8) }
    }

    /// Whether the table was ever filled.
    pub fn known(&self) -> bool {
        !self.ranges.is_empty()
    }

    /// Replaces the table. Ranges outside the slots are cut, reversed ones dropped; of overlapping ones the last wins.
    pub fn replace(&mut self, ranges: Vec<SlotRange>) {
        if self.names.len() >= OWNERS_MAX {
            (self.names, self.holdings, self.places) = Default::default();
        }
        self.briefs.fill(EMPTY);
        let mut kept: Vec<SlotRange> =
            ranges.into_iter().take(SLOTS).filter(|r| r.first <= r.last && r.first.ix() < SLOTS).collect();
        for r in &mut kept {
            r.last = Slot(r.last.0.min(SLOTS as u16 - 1));
            let brief = self.brief_of(&r.state);
            self.briefs[r.first.ix()..=r.last.ix()].fill(brief);
        }
        kept.sort_by_key(|r| r.first);
        self.ranges = kept;
        self.count();
    }

    fn brief_of(&mut self, s: &SlotState) -> Brief {
        let mut of = |r: Option<&crate::proto::id::Ref>| r.map_or(NOBODY, |r| self.place(r.id.as_str()));
        let backup = of(s.backups().next().map(|r| &r.node));
        let next_in_sync = s.handover_to.as_ref().filter(|n| s.in_sync(n));
        Brief {
            primary: of(s.primary.as_ref()),
            backup,
            heir: if next_in_sync.is_some() { of(next_in_sync) } else { backup },
            learner: of(s.learners.first().map(|r| &r.node)),
            next: of(s.handover_to.as_ref()),
            phase: s.phase,
        }
    }

    fn count(&mut self) {
        self.holdings.fill(Holding::default());
        let mut before = NOBODY;
        for b in &self.briefs {
            if let Some(h) = self.holdings.get_mut(usize::from(b.primary)) {
                h.primary += 1;
                h.runs += u32::from(b.primary != before);
            }
            if let Some(h) = self.holdings.get_mut(usize::from(b.backup)) {
                h.backup += 1;
            }
            if let Some(h) = self.holdings.get_mut(usize::from(b.coming())) {
                h.coming += 1;
            }
            before = b.primary;
        }
    }

    /// One slot in brief.
    pub fn brief(&self, slot: Slot) -> Brief {
        self.briefs.get(slot.ix()).copied().unwrap_or(EMPTY)
    }

    /// All that the masters said of a slot.
    pub fn detail(&self, slot: Slot) -> Option<&SlotState> {
        let after = self.ranges.partition_point(|r| r.first <= slot);
        self.ranges[..after].iter().rev().find(|r| r.last >= slot).map(|r| &r.state)
    }

    /// The run of slots around one that have the same holder of this copy, first and last.
    pub fn run(&self, slot: Slot, copies: Copies) -> (Slot, Slot) {
        let holder = self.brief(slot).holder(copies);
        let same = |i: &usize| self.briefs.get(*i).is_some_and(|b| b.holder(copies) == holder);
        let first = (0..slot.ix()).rev().take_while(same).last().unwrap_or(slot.ix());
        let last = (slot.ix()..SLOTS).take_while(same).last().unwrap_or(slot.ix());
        (Slot(first as u16), Slot(last as u16))
    }

    /// Runs of slots with one holder of this copy: first slot, length, holder.
    pub fn runs(&self, copies: Copies) -> Vec<(usize, usize, u16)> {
        let mut out: Vec<(usize, usize, u16)> = Vec::new();
        for (i, b) in self.briefs.iter().enumerate() {
            let holder = b.holder(copies);
            match out.last_mut() {
                Some((_, len, who)) if *who == holder => *len += 1,
                _ => out.push((i, 1, holder)),
            }
        }
        out
    }

    /// One cell of the map.
    pub fn cell(&self, cell: usize, copies: Copies) -> MapCell {
        let first = (cell % CELLS) * CELL_SLOTS;
        let slots = &self.briefs[first..first + CELL_SLOTS];
        let mut votes: Vec<(u16, u32)> = Vec::with_capacity(4);
        for b in slots {
            let holder = b.holder(copies);
            match votes.iter_mut().find(|(who, _)| *who == holder) {
                Some((_, n)) => *n += 1,
                None => votes.push((holder, 1)),
            }
        }
        let holder = votes.iter().max_by_key(|(_, n)| *n).map_or(NOBODY, |(who, _)| *who);
        MapCell {
            holder,
            leaving: slots.iter().any(Brief::leaving),
            orphan: slots.iter().any(|b| b.phase == Phase::Orphan),
        }
    }

    /// Whether slots have a second copy anywhere: the table's own evidence of `--backups 1`.
    pub fn has_backups(&self) -> bool {
        self.briefs.iter().any(|b| b.backup != NOBODY)
    }

    /// What the masters' rule (PROTOCOL section 7) makes of the death of one node: each of its slots goes to the
    /// node it is being handed to if that is in sync, else to an in-sync member.
    pub fn if_dies(&self, place: u16) -> Forecast {
        let mut f = Forecast::default();
        for b in &self.briefs {
            if b.primary == place && place != NOBODY {
                if b.heir == NOBODY {
                    f.lost += 1;
                } else {
                    match f.to.iter_mut().find(|(who, _)| *who == b.heir) {
                        Some((_, n)) => *n += 1,
                        None => f.to.push((b.heir, 1)),
                    }
                }
            } else if b.backup == place && place != NOBODY {
                f.bare += 1;
            }
        }
        f.to.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        f
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::fixture;

    fn table() -> SlotTable {
        let mut t = SlotTable::default();
        t.replace(fixture::healthy().slots.unwrap());
        t
    }

    #[test]
    fn holdings_add_up() {
        let t = table();
        assert_eq!(t.holdings.iter().map(|h| h.primary).sum::<u32>(), SLOTS as u32);
        assert_eq!(t.runs(Copies::Primary).iter().map(|(_, n, _)| n).sum::<usize>(), SLOTS);
        assert_eq!(
            t.holdings.iter().map(|h| h.runs as usize).sum::<usize>(),
            t.runs(Copies::Primary).iter().filter(|(_, _, w)| *w != NOBODY).count()
        );
    }

    #[test]
    fn a_death_is_foretold_from_the_table() {
        let t = table();
        for place in 0..t.names.len() as u16 {
            let f = t.if_dies(place);
            assert_eq!(f.to.iter().map(|(_, n)| n).sum::<u32>() + f.lost, t.holdings[usize::from(place)].primary);
            assert_eq!(f.bare, t.holdings[usize::from(place)].backup);
            assert!(f.to.iter().all(|(who, _)| *who != place));
        }
        assert_eq!(t.if_dies(NOBODY), Forecast::default());
    }

    #[test]
    fn letters_stay_with_their_node() {
        let mut t = table();
        let before = t.names.clone();
        t.replace(fixture::lost_one().slots.unwrap());
        assert_eq!(&t.names[..before.len()], &before[..]);
    }

    #[test]
    fn broken_ranges_are_cut_or_dropped() {
        let mut ranges = fixture::healthy().slots.unwrap();
        let state = ranges[0].state.clone();
        ranges.push(SlotRange { first: Slot(9), last: Slot(3), state: state.clone() });
        ranges.push(SlotRange { first: Slot(16_000), last: Slot(u16::MAX), state: state.clone() });
        ranges.push(SlotRange { first: Slot(40_000), last: Slot(50_000), state });
        let mut t = SlotTable::default();
        t.replace(ranges);
        assert_eq!(t.holdings.iter().map(|h| h.primary).sum::<u32>(), SLOTS as u32);
        assert!(t.detail(Slot(16_383)).is_some());
        assert_eq!(t.brief(Slot(u16::MAX)).primary, NOBODY);
    }

    #[test]
    fn detail_is_of_the_slot_asked_for() {
        let t = table();
        for s in [0, 1, 5461, 5462, 16_383] {
            let d = t.detail(Slot(s)).unwrap();
            assert_eq!(d.primary.as_ref().unwrap().id.as_str(), t.name(t.brief(Slot(s)).primary));
            let (first, last) = t.run(Slot(s), Copies::Primary);
            assert!(first.0 <= s && s <= last.0);
        }
    }
}
