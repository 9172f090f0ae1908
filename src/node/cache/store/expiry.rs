//! Which keys are past their deadline: a hierarchical timing wheel (Varghese and Lauck 1987) over all of time.
//!
//! A timer lies on the level of the highest digit (base 64) in which its tick differs from the wheel's present; so every
//! occupied bucket lies ahead, the next one is found from bitmaps, and an idle wheel costs nothing. Timers move down a level
//! when their bucket's time has come, a bounded number at a time. What fires goes to its slot's list of due timers and waits
//! there: for the next [`Store::expired`](super::Store::expired) where the slot is primary, for its promotion where it isn't.

use super::pool::{NIL, Pool, Record};

/// Milliseconds per tick of the wheel.
pub const TICK_MS: u64 = 16;
const BITS: u32 = 6;
const BUCKETS: usize = 1 << BITS;
/// Enough for every tick that a `u64` of milliseconds has.
const LEVELS: usize = (u64::BITS - TICK_MS.ilog2()).div_ceil(BITS) as usize;
/// The end of time, which the levels just cover.
const LAST_TICK: u64 = u64::MAX / TICK_MS;
/// The list of a timer that has fired: its slot's.
const DUE: u16 = u16::MAX;

/// A key's deadline.
#[derive(Debug, Clone, Copy)]
pub struct Timer {
    /// Milliseconds on the node's TTL clock.
    pub deadline_ms: u64,
    /// Whose: the item.
    pub entry: u32,
    prev: u32,
    next: u32,
    list: u16,
}

impl Record for Timer {
    const VACANT: Self = Self { deadline_ms: 0, entry: NIL, prev: NIL, next: NIL, list: DUE };

    fn is_vacant(&self) -> bool {
        self.entry == NIL
    }
}

/// All deadlines of a shard.
#[derive(Debug)]
pub struct Wheel {
    timers: Pool<Timer>,
    heads: [[u32; BUCKETS]; LEVELS],
    occupied: [u64; LEVELS],
    /// The tick up to which everything has fired or is in the bucket being drained.
    present: u64,
    /// The bucket whose time has come: nothing else moves before it is empty.
    draining: Option<(usize, usize)>,
}

/// A timer that has another number now.
#[derive(Debug, Clone, Copy)]
pub struct MovedTimer {
    /// The number.
    pub to: u32,
    /// Whose it is.
    pub entry: u32,
    /// It is the head of its slot's list.
    pub due_head: bool,
}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing: no time is due.
    Idle,
    /// A timer came nearer.
    Moved,
    /// A timer's time has come; it is in no list until [`Wheel::push_due`].
    Fired {
        /// Which.
        timer: u32,
        /// Whose.
        entry: u32,
    },
}

impl Default for Wheel {
    fn default() -> Self {
        Self {
            timers: Pool::default(),
            heads: [[NIL; BUCKETS]; LEVELS],
            occupied: [0; LEVELS],
            present: 0,
            draining: None,
        }
    }
}

/// The head of a slot's list of due timers.
pub type DueHead = u32;

impl Wheel {
    /// Milliseconds on the TTL clock.
    pub fn deadline_ms(&self, timer: u32) -> u64 {
        self.timers[timer].deadline_ms
    }

    /// Starts a timer; fires at or after its deadline, at most a tick late if asked in time. `due` is its slot's list.
    pub fn start(&mut self, entry: u32, deadline_ms: u64, due: &mut DueHead) -> u32 {
        let timer = self.timers.insert(Timer { deadline_ms, entry, ..Timer::VACANT });
        if self.place(timer) {
            self.push_due(timer, due);
        }
        timer
    }

    /// Stops a timer.
    pub fn stop(&mut self, timer: u32, due: &mut DueHead) {
        self.unlink(timer, due);
        self.timers.remove(timer);
    }

    /// Gives a timer another deadline.
    pub fn restart(&mut self, timer: u32, deadline_ms: u64, due: &mut DueHead) {
        self.unlink(timer, due);
        self.timers[timer].deadline_ms = deadline_ms;
        if self.place(timer) {
            self.push_due(timer, due);
        }
    }

    /// The timer's item lies elsewhere.
    pub fn set_entry(&mut self, timer: u32, entry: u32) {
        self.timers[timer].entry = entry;
    }

    /// Moves one timer if too many places are free.
    pub fn tidy(&mut self) -> Option<MovedTimer> {
        let (_, to) = self.timers.tidy()?;
        let Timer { entry, prev, next, list, .. } = self.timers[to];
        if next != NIL {
            self.timers[next].prev = to;
        }
        if prev != NIL {
            self.timers[prev].next = to;
        } else if list != DUE {
            self.heads[list as usize / BUCKETS][list as usize % BUCKETS] = to;
        }
        Some(MovedTimer { to, entry, due_head: prev == NIL && list == DUE })
    }

    /// The items of a list of due timers.
    pub fn due(&self, head: DueHead) -> impl Iterator<Item = u32> {
        let next = |at: u32| self.timers.get(at);
        std::iter::successors(next(head), move |t| next(t.next)).map(|t| t.entry)
    }

    /// Whether time has not passed up to `now_ms` yet: some timers' have come to be moved.
    pub fn is_behind(&self, now_ms: u64) -> bool {
        self.draining.is_some_and(|(level, bucket)| self.heads[level][bucket] != NIL)
            || self.next().is_some_and(|(.., tick)| tick <= now_ms / TICK_MS)
    }

    /// Lets time pass towards `now_ms`, moving one timer.
    pub fn step(&mut self, now_ms: u64) -> Step {
        let target = now_ms / TICK_MS;
        let (level, bucket) = match self.draining.filter(|&(level, bucket)| self.heads[level][bucket] != NIL) {
            Some(begun) => begun,
            None => {
                let Some((level, bucket, tick)) = self.next().filter(|&(.., tick)| tick <= target) else {
                    self.present = self.present.max(target);
                    return Step::Idle;
                };
                self.present = tick;
                self.draining = Some((level, bucket));
                (level, bucket)
            }
        };
        let timer = self.heads[level][bucket];
        self.unlink(timer, &mut NIL.clone());
        if self.place(timer) { Step::Fired { timer, entry: self.timers[timer].entry } } else { Step::Moved }
    }

    /// The next occupied bucket and the tick at which its time has come.
    fn next(&self) -> Option<(usize, usize, u64)> {
        let level = self.occupied.iter().position(|&bits| bits != 0)?;
        let bucket = self.occupied[level].trailing_zeros();
        let shift = level as u32 * BITS;
        // Above this level the bucket's time agrees with the present; below it the bucket begins at zeros.
        let above = self.present >> (shift + BITS) << (shift + BITS);
        Some((level, bucket as usize, above | u64::from(bucket) << shift))
    }

    /// Puts a fired timer into its slot's list.
    pub fn push_due(&mut self, timer: u32, due: &mut DueHead) {
        let next = std::mem::replace(due, timer);
        self.link(timer, next, DUE);
    }

    /// Puts a timer into its bucket; whether its time has come instead.
    fn place(&mut self, timer: u32) -> bool {
        // Rounded up: not before its deadline.
        let tick = self.timers[timer].deadline_ms.div_ceil(TICK_MS).min(LAST_TICK);
        if tick <= self.present {
            return true;
        }
        let level = ((63 - (tick ^ self.present).leading_zeros()) / BITS) as usize;
        let bucket = (tick >> (level as u32 * BITS)) as usize % BUCKETS;
        self.occupied[level] |= 1 << bucket;
        let next = std::mem::replace(&mut self.heads[level][bucket], timer);
        self.link(timer, next, (level * BUCKETS + bucket) as u16);
        false
    }

    fn link(&mut self, timer: u32, next: u32, list: u16) {
        let t = &mut self.timers[timer];
        (t.prev, t.next, t.list) = (NIL, next, list);
        if next != NIL {
            self.timers[next].prev = timer;
        }
    }

    fn unlink(&mut self, timer: u32, due: &mut DueHead) {
        let Timer { prev, next, list, .. } = self.timers[timer];
        if next != NIL {
            self.timers[next].prev = prev;
        }
        if prev != NIL {
            self.timers[prev].next = next;
        } else if list == DUE {
            *due = next;
        } else {
            let (level, bucket) = (list as usize / BUCKETS, list as usize % BUCKETS);
            self.heads[level][bucket] = next;
            if next == NIL {
                self.occupied[level] &= !(1 << bucket);
            }
        }
    }
}
