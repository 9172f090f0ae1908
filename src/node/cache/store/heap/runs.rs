//! Runs of bytes in arenas of one size: best fit, neighbours joined, and where holes add up the runs of an arena slide together
//! or move out of it. A run's handle stays when it moves.

use std::collections::BTreeSet;

use super::super::pool::NIL;

/// Bytes of one arena: large enough that 64 KiB values fill it to 97 %, small against the least memory a node is given.
const ARENA: u32 = 2 << 20;
/// Runs begin and end at multiples of this.
const GRAIN: usize = 64;
/// Wasted bytes (resident and in no run) that are left be before an arena slides together, which costs up to an arena's copy:
/// one in so many, and so many.
const SLIDE_DIVISOR: u64 = 32;
const SLIDE_MIN: u64 = ARENA as u64 / 8;
/// Wasted bytes that are left be before an arena is emptied and given back.
const EMPTY_DIVISOR: u64 = 16;
const EMPTY_MIN: u64 = ARENA as u64 / 8;

/// Bytes that a run of `len` takes.
pub fn round(len: usize) -> usize {
    len.next_multiple_of(GRAIN)
}

#[derive(Debug, Clone, Copy)]
struct Run {
    arena: u32,
    at: u32,
    /// Bytes asked for; [`NIL`] = a free handle.
    len: u32,
}

/// A run or a gap.
#[derive(Debug, Clone, Copy)]
struct Tile {
    at: u32,
    size: u32,
    /// [`NIL`] = a gap.
    run: u32,
}

#[derive(Debug, Default)]
struct Arena {
    /// As long as it was ever used; the rest of its capacity was never touched and is not resident.
    bytes: Vec<u8>,
    /// In order and without space between; two gaps are never neighbours.
    tiles: Vec<Tile>,
    /// Bytes of all gaps.
    free: u32,
}

/// All runs.
#[derive(Debug, Default)]
pub struct Runs {
    runs: Vec<Run>,
    free_handles: Vec<u32>,
    arenas: Vec<Arena>,
    free_arenas: Vec<u32>,
    /// (size, arena, at), without those of the arena that is being emptied.
    gaps: BTreeSet<(u32, u32, u32)>,
    /// Bytes of all runs.
    used: u64,
    /// Bytes of arenas that were ever used, and so are resident.
    touched: u64,
    /// Its runs are moving out.
    emptying: Option<u32>,
}

impl Runs {
    /// The run's bytes.
    pub fn bytes(&self, run: u32) -> &[u8] {
        let Run { arena, at, len } = self.runs[run as usize];
        &self.arenas[arena as usize].bytes[at as usize..(at + len) as usize]
    }

    /// From an offset of the run on, to its end or beyond.
    #[inline(always)]
    pub fn tail(&self, run: u32, offset: usize) -> &[u8] {
        let Run { arena, at, .. } = self.runs[run as usize];
        &self.arenas[arena as usize].bytes[at as usize + offset..]
    }

    /// The same.
    #[inline(always)]
    pub fn tail_mut(&mut self, run: u32, offset: usize) -> &mut [u8] {
        let Run { arena, at, .. } = self.runs[run as usize];
        &mut self.arenas[arena as usize].bytes[at as usize + offset..]
    }

    /// The same, of what need not be a run.
    #[inline(always)]
    pub fn get(&self, run: u32, offset: usize) -> Option<&[u8]> {
        let Run { arena, at, .. } = *self.runs.get(run as usize)?;
        self.arenas.get(arena as usize)?.bytes.get(at as usize + offset..)
    }

    /// The run's bytes.
    pub fn bytes_mut(&mut self, run: u32) -> &mut [u8] {
        let Run { arena, at, len } = self.runs[run as usize];
        &mut self.arenas[arena as usize].bytes[at as usize..(at + len) as usize]
    }

    /// A run of so many bytes, at most an arena; what is in it is left over.
    pub fn alloc(&mut self, len: usize) -> u32 {
        let size = round(len) as u32;
        let (arena, at) = self.find(size);
        let run = Run { arena, at, len: len as u32 };
        let handle = match self.free_handles.pop() {
            Some(handle) => {
                self.runs[handle as usize] = run;
                handle
            }
            None => {
                self.runs.push(run);
                (self.runs.len() - 1) as u32
            }
        };
        self.occupy(arena, at, size, handle);
        handle
    }

    /// Changes the length if the run takes the same room afterwards; whether it did.
    pub fn resize(&mut self, run: u32, len: usize) -> bool {
        let r = &mut self.runs[run as usize];
        let fits = round(len) == round(r.len as usize);
        if fits {
            r.len = len as u32;
        }
        fits
    }

    /// Copies bytes from a place in one run to a place in another (or the same).
    pub fn copy(&mut self, (from, at): (u32, usize), (to, into): (u32, usize), len: usize) {
        let (from, to) = (self.runs[from as usize], self.runs[to as usize]);
        self.copy_bytes((from.arena, from.at as usize + at), (to.arena, to.at as usize + into), len);
    }

    fn copy_bytes(&mut self, (from, at): (u32, usize), (to, into): (u32, usize), len: usize) {
        match self.arenas.get_disjoint_mut([from as usize, to as usize]) {
            Ok([from, to]) => to.bytes[into..into + len].copy_from_slice(&from.bytes[at..at + len]),
            // One and the same arena.
            Err(_) => self.arenas[from as usize].bytes.copy_within(at..at + len, into),
        }
    }

    /// Gives a run back.
    pub fn free(&mut self, run: u32) {
        let Run { arena, at, .. } = std::mem::replace(&mut self.runs[run as usize], Run { arena: 0, at: 0, len: NIL });
        self.free_handles.push(run);
        self.vacate(arena, at);
        self.give_back();
    }

    /// Where a run of this size can be: the smallest gap, else a gap made by sliding, else a new arena.
    fn find(&mut self, size: u32) -> (u32, u32) {
        if let Some(spot) = self.best_fit(size) {
            return spot;
        }
        if self.wasted() > self.used / SLIDE_DIVISOR + SLIDE_MIN
            && let Some(spot) = self.slide_for(size)
        {
            return spot;
        }
        let arena = self.free_arenas.pop().unwrap_or_else(|| {
            self.arenas.push(Arena::default());
            (self.arenas.len() - 1) as u32
        });
        let a = &mut self.arenas[arena as usize];
        a.bytes.reserve_exact(ARENA as usize);
        a.tiles.push(Tile { at: 0, size: ARENA, run: NIL });
        a.free = ARENA;
        self.gaps.insert((ARENA, arena, 0));
        (arena, 0)
    }

    fn wasted(&self) -> u64 {
        self.touched - self.used
    }

    fn best_fit(&self, size: u32) -> Option<(u32, u32)> {
        self.gaps.range((size, 0, 0)..).next().map(|&(_, arena, at)| (arena, at))
    }

    /// Slides the arena with the most free bytes together, if that makes room.
    fn slide_for(&mut self, size: u32) -> Option<(u32, u32)> {
        let arena = self.most(|a| a.free).filter(|&a| self.arenas[a as usize].free >= size)?;
        Some((arena, self.slide(arena)))
    }

    /// The arena with the most of something; not the one that is being emptied.
    fn most(&self, of: impl Fn(&Arena) -> u32) -> Option<u32> {
        let of = |a: u32| of(&self.arenas[a as usize]);
        (0..self.arenas.len() as u32).filter(|&a| of(a) > 0 && self.emptying != Some(a)).max_by_key(|&a| of(a))
    }

    /// Moves an arena's runs to its front; where the one gap is then.
    fn slide(&mut self, arena: u32) -> u32 {
        let Self { runs, arenas, gaps, .. } = self;
        let a = &mut arenas[arena as usize];
        let mut end = 0;
        a.tiles.retain_mut(|tile| {
            if tile.run == NIL {
                gaps.remove(&(tile.size, arena, tile.at));
                return false;
            }
            if tile.at != end {
                a.bytes.copy_within(tile.at as usize..(tile.at + tile.size) as usize, end as usize);
                tile.at = end;
                runs[tile.run as usize].at = end;
            }
            end += tile.size;
            true
        });
        a.tiles.push(Tile { at: end, size: ARENA - end, run: NIL });
        gaps.insert((ARENA - end, arena, end));
        end
    }

    /// Puts a run into the gap that begins at `at`.
    fn occupy(&mut self, arena: u32, at: u32, size: u32, run: u32) {
        let a = &mut self.arenas[arena as usize];
        let i = a.index(at);
        let gap = a.tiles[i];
        self.gaps.remove(&(gap.size, arena, at));
        a.tiles[i] = Tile { at, size, run };
        if gap.size > size {
            a.tiles.insert(i + 1, Tile { at: at + size, size: gap.size - size, run: NIL });
            self.gaps.insert((gap.size - size, arena, at + size));
        }
        a.free -= size;
        self.used += u64::from(size);
        let end = (at + size) as usize;
        if a.bytes.len() < end {
            self.touched += (end - a.bytes.len()) as u64;
            a.bytes.resize(end, 0);
        }
    }

    /// Makes the run that begins at `at` a gap, one with its neighbours; an arena without runs goes.
    fn vacate(&mut self, arena: u32, at: u32) {
        let listed = self.emptying != Some(arena);
        let a = &mut self.arenas[arena as usize];
        let mut i = a.index(at);
        let size = a.tiles[i].size;
        a.free += size;
        self.used -= u64::from(size);
        a.tiles[i].run = NIL;
        if let Some(&next) = a.tiles.get(i + 1).filter(|t| t.run == NIL) {
            self.gaps.remove(&(next.size, arena, next.at));
            a.tiles[i].size += next.size;
            a.tiles.remove(i + 1);
        }
        if i > 0 && a.tiles[i - 1].run == NIL {
            let before = a.tiles[i - 1];
            self.gaps.remove(&(before.size, arena, before.at));
            a.tiles[i - 1].size += a.tiles[i].size;
            a.tiles.remove(i);
            i -= 1;
        }
        let gap = a.tiles[i];
        if listed {
            self.gaps.insert((gap.size, arena, gap.at));
        }
    }

    /// Keeps the waste in bounds: drops arenas without runs, and moves one run out of the most wasteful one where holes add up.
    fn give_back(&mut self) {
        if self.emptying.is_none() {
            if self.wasted() <= self.used / EMPTY_DIVISOR + EMPTY_MIN {
                return;
            }
            let Some(arena) = self.most(Arena::wasted) else { return };
            self.emptying = Some(arena);
            let Self { arenas, gaps, .. } = self;
            arenas[arena as usize].gaps().for_each(|t| {
                gaps.remove(&(t.size, arena, t.at));
            });
        }
        let Some(arena) = self.emptying else { return };
        let last = self.arenas[arena as usize].tiles.iter().rev().find(|t| t.run != NIL).copied();
        let Some(tile) = last else {
            // Empty: its memory goes.
            self.touched -= self.arenas[arena as usize].bytes.len() as u64;
            self.arenas[arena as usize] = Arena::default();
            self.free_arenas.push(arena);
            self.emptying = None;
            return;
        };
        let Some((to, at)) = self.best_fit(tile.size).or_else(|| self.slide_for(tile.size)) else {
            // Nowhere to go: it stays in use.
            self.emptying = None;
            let Self { arenas, gaps, .. } = self;
            gaps.extend(arenas[arena as usize].gaps().map(|t| (t.size, arena, t.at)));
            return;
        };
        self.occupy(to, at, tile.size, tile.run);
        self.copy_bytes((arena, tile.at as usize), (to, at as usize), tile.size as usize);
        let run = &mut self.runs[tile.run as usize];
        (run.arena, run.at) = (to, at);
        self.vacate(arena, tile.at);
    }
}

impl Arena {
    fn index(&self, at: u32) -> usize {
        self.tiles.partition_point(|t| t.at < at)
    }

    /// Resident and in no run.
    fn wasted(&self) -> u32 {
        (self.bytes.len() as u32 + self.free).saturating_sub(ARENA)
    }

    fn gaps(&self) -> impl Iterator<Item = &Tile> {
        self.tiles.iter().filter(|t| t.run == NIL)
    }
}

#[cfg(test)]
impl Runs {
    /// Everything adds up.
    pub fn check(&self) {
        let (mut touched, mut used, mut gaps) = (0, 0, BTreeSet::new());
        for (i, a) in self.arenas.iter().enumerate().filter(|(_, a)| !a.tiles.is_empty()) {
            let (mut at, mut after_gap, mut here) = (0, false, 0);
            for t in &a.tiles {
                assert_eq!(t.at, at);
                at += t.size;
                if t.run == NIL {
                    assert!(!after_gap);
                    here += t.size;
                    if self.emptying != Some(i as u32) {
                        gaps.insert((t.size, i as u32, t.at));
                    }
                } else {
                    let run = self.runs[t.run as usize];
                    assert_eq!((run.arena, run.at, round(run.len as usize) as u32), (i as u32, t.at, t.size));
                    used += u64::from(t.size);
                }
                after_gap = t.run == NIL;
            }
            assert_eq!((at, here), (ARENA, a.free));
            touched += a.bytes.len() as u64;
            assert_eq!(a.wasted(), a.bytes.len() as u32 - (ARENA - here));
        }
        assert_eq!((touched, used), (self.touched, self.used));
        assert_eq!(gaps, self.gaps);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes shift and few runs survive each shift: arenas must go, and the bytes must stay.
    #[test]
    fn holes_stay_within_their_bound_when_sizes_shift() {
        let mut runs = Runs::default();
        let mut held: Vec<(u32, u8, usize)> = Vec::new();
        let mut random = 7u64;
        let mut dice = |n: usize| {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (random >> 33) as usize % n
        };
        let total = 48 << 20;
        let mut sum = 0;
        for (low, high) in [(5_000, 9_000), (65_552, 65_553), (10_000, 20_000), (100_000, 131_000), (5_000, 131_000)] {
            let mut put = 0;
            while put < 2 * total {
                let len = low + dice(high - low);
                while sum + len > total {
                    let (run, tag, was) = held.swap_remove(dice(held.len()));
                    assert!(runs.bytes(run).iter().all(|&b| b == tag) && runs.bytes(run).len() == was);
                    runs.free(run);
                    sum -= was;
                }
                let run = runs.alloc(len);
                let tag = dice(256) as u8;
                runs.bytes_mut(run).fill(tag);
                held.push((run, tag, len));
                sum += len;
                put += len;
            }
            runs.check();
            let resident: usize = runs.arenas.iter().map(|a| a.bytes.len()).sum();
            assert!(resident as u64 <= runs.used + runs.used / 12 + u64::from(ARENA), "{resident} {}", runs.used);
        }
        for (run, tag, _) in held.drain(..) {
            assert!(runs.bytes(run).iter().all(|&b| b == tag));
            runs.free(run);
        }
        runs.check();
        assert!(runs.arenas.iter().filter(|a| a.bytes.capacity() > 0).count() <= 1);
    }
}
