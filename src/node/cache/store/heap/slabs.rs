//! Places of a few fixed sizes, a class per size: chunks of equal places, full but for a few holes. What lies in a place says
//! [`item`](super::item) by item; a place's number stays while it is used, whatever moves around it.

use super::super::pool::Holes;
use super::super::prefetch;
use super::item::{HEADER, Head, LENS, Lens, put_u32, u32_at};
use super::runs::Runs;

/// Bytes of a chunk of a class with many items. Each class wastes half its last chunk on average, so a class begins with small
/// chunks: the waste stays a few percent of what it holds.
const CHUNK: usize = 64 << 10;
/// Bytes of the first chunks.
const CHUNK_MIN: usize = 8 << 10;
/// After so many chunks of a size they double.
const CHUNKS_PER_SIZE: usize = 8;
/// Largest place; beyond it the steps between classes would be wider than a sixteenth.
pub const SIZE_MAX: usize = CHUNK / 16;
const SIZE_MIN: usize = HEADER;
/// Sizes are multiples of this.
pub const STEP: usize = 8;
/// Classes up to here are one step apart, from here on a sixteenth.
const FINE_MAX: usize = 128;
/// A place's number is `chunk << AT_BITS | offset / STEP`.
const AT_BITS: u32 = (CHUNK / STEP).ilog2();
/// Chunks that have numbers: of a shard, 32 GiB.
const CHUNKS_MAX: usize = 1 << (u32::BITS - AT_BITS);
/// Chunks that are kept for what one command may still add.
const CHUNKS_SPARE: usize = CHUNKS_MAX / 64;

const fn next_size(size: usize) -> usize {
    if size < FINE_MAX {
        return size + STEP;
    }
    // Sizes divide a chunk with next to nothing left over.
    let per_chunk = (CHUNK / size * 16).div_ceil(17);
    let next = CHUNK / per_chunk / STEP * STEP;
    if next > size { next } else { size + STEP }
}

const CLASSES: usize = {
    let (mut n, mut size) = (1, SIZE_MIN);
    while size < SIZE_MAX {
        size = next_size(size);
        n += 1;
    }
    n
};

const SIZES: [u16; CLASSES] = {
    let mut sizes = [SIZE_MIN as u16; CLASSES];
    let mut i = 1;
    while i < CLASSES {
        sizes[i] = next_size(sizes[i - 1] as usize) as u16;
        i += 1;
    }
    sizes
};

/// The class of a size, by steps.
const CLASS_OF: [u8; SIZE_MAX / STEP + 1] = {
    let mut of = [0; SIZE_MAX / STEP + 1];
    let (mut i, mut class) = (0, 0);
    while i < of.len() {
        while (SIZES[class] as usize) < i * STEP {
            class += 1;
        }
        of[i] = class as u8;
        i += 1;
    }
    of
};

/// The class of an item of so many bytes, header included; none if it is too large for slabs.
pub fn class_for(size: usize) -> Option<u8> {
    CLASS_OF.get(size.div_ceil(STEP)).copied()
}

/// Bytes that each item of the class takes.
pub fn size_of_class(class: u8) -> usize {
    SIZES[class as usize] as usize
}

/// Places in a class's chunk, by the number of the chunk.
fn places(size: usize, chunk: usize) -> u32 {
    let doublings = (chunk / CHUNKS_PER_SIZE).min(CHUNK.ilog2() as usize - CHUNK_MIN.ilog2() as usize);
    ((CHUNK_MIN << doublings) / size) as u32
}

#[derive(Debug, Default)]
struct Class {
    /// Runs.
    chunks: Vec<u32>,
    /// Places in all chunks but the last.
    before_last: u32,
    /// Places in use or freed in the last chunk.
    fill: u32,
    holes: Holes,
}

/// Of which class a chunk is, and which of its chunks.
#[derive(Debug, Clone, Copy)]
struct Chunk {
    class: u8,
    index: u32,
}

impl Chunk {
    const NONE: Self = Self { class: u8::MAX, index: 0 };
}

/// All classes.
#[derive(Debug)]
pub struct Slabs {
    runs: Runs,
    classes: Vec<Class>,
    /// By run.
    chunks: Vec<Chunk>,
    /// How many of them there are; the highest number is below the most there ever were.
    held: usize,
}

impl Default for Slabs {
    fn default() -> Self {
        let classes = (0..CLASSES).map(|_| Class::default()).collect();
        Self { runs: Runs::default(), classes, chunks: Vec::new(), held: 0 }
    }
}

#[inline(always)]
fn split(at: u32) -> (u32, usize) {
    (at >> AT_BITS, (at as usize & ((1 << AT_BITS) - 1)) * STEP)
}

fn join(run: u32, offset: usize) -> u32 {
    run << AT_BITS | (offset / STEP) as u32
}

impl Class {
    /// Places in use or freed.
    fn len(&self) -> u32 {
        self.before_last + self.fill
    }

    fn last(&self, size: usize) -> Option<u32> {
        Some(join(*self.chunks.last()?, (self.fill as usize).checked_sub(1)? * size))
    }
}

/// Whether the place is one of the class, in use or freed.
fn is_place(class: u8, c: &[u32], fill: u32, chunks: &[Chunk], at: u32) -> bool {
    let (run, offset) = split(at);
    let size = size_of_class(class);
    let Some(chunk) = chunks.get(run as usize).filter(|chunk| chunk.class == class) else { return false };
    let (index, last) = (chunk.index as usize, c.len() - 1);
    let fill = if index == last { fill } else { places(size, index) };
    offset % size == 0 && offset / size < fill as usize
}

impl Slabs {
    /// From an item's first byte on; where it ends, it says itself.
    #[inline(always)]
    pub fn bytes(&self, at: u32) -> &[u8] {
        let (run, offset) = split(at);
        self.runs.tail(run, offset)
    }

    /// The same.
    #[inline(always)]
    pub fn bytes_mut(&mut self, at: u32) -> &mut [u8] {
        let (run, offset) = split(at);
        self.runs.tail_mut(run, offset)
    }

    /// What lies there, if anything does.
    #[inline(always)]
    pub fn bytes_at(&self, at: u32) -> Option<&[u8]> {
        let (run, offset) = split(at);
        self.runs.get(run, offset)
    }

    /// Asks for an item's header ahead of its use.
    #[inline(always)]
    pub fn prefetch_head(&self, at: u32) {
        if let Some(head) = self.bytes_at(at).and_then(|bytes| bytes.get(..HEADER)) {
            prefetch::ends(head);
        }
    }

    /// Asks for what of an item lies behind its header's line.
    #[inline(always)]
    pub fn prefetch_rest(&self, at: u32, size: usize, lines: usize) {
        if let Some(item) = self.bytes_at(at).and_then(|bytes| bytes.get(..size)) {
            prefetch::lines(prefetch::beyond_line(item), lines);
        }
    }

    /// Asks for an item's first lines ahead of its use.
    #[inline(always)]
    pub fn prefetch(&self, at: u32, lines: usize) {
        if let Some(bytes) = self.bytes_at(at) {
            prefetch::lines(bytes, lines);
        }
    }

    /// With so many bytes more there may be more chunks than can be told apart.
    pub fn is_full(&self, bytes: u64) -> bool {
        self.held as u64 + bytes / (CHUNK / 2) as u64 >= (CHUNKS_MAX - CHUNKS_SPARE) as u64
    }

    /// A place of the class, with anything in it.
    pub fn alloc(&mut self, class: u8) -> u32 {
        let Self { runs, classes, chunks, held } = self;
        let c = &mut classes[class as usize];
        let is_hole =
            |at| is_place(class, &c.chunks, c.fill, chunks, at) && Lens(u32_at(tail(runs, at), LENS)) == Lens::HOLE;
        if let Some(at) = c.holes.pop(is_hole) {
            return at;
        }
        let size = size_of_class(class);
        let last = c.chunks.len().checked_sub(1);
        if last.is_none_or(|last| c.fill == places(size, last)) {
            c.before_last += c.fill;
            c.fill = 0;
            let index = c.chunks.len();
            let run = runs.alloc(places(size, index) as usize * size);
            // Whoever adds asks first whether it is full: a number that wraps would be another item's.
            assert!((run as usize) < CHUNKS_MAX, "more chunks than have numbers");
            *held += 1;
            if chunks.len() <= run as usize {
                chunks.resize(run as usize + 1, Chunk::NONE);
            }
            chunks[run as usize] = Chunk { class, index: index as u32 };
            c.chunks.push(run);
        }
        c.fill += 1;
        c.last(size).unwrap_or_default()
    }

    /// Makes a place a hole.
    pub fn free(&mut self, class: u8, at: u32) {
        put_u32(self.bytes_mut(at), LENS, Lens::HOLE.0);
        let Self { runs, classes, chunks, .. } = self;
        let Class { chunks: of, fill, holes, .. } = &mut classes[class as usize];
        holes.push(at, |at| is_place(class, of, *fill, chunks, at) && Lens(u32_at(tail(runs, at), LENS)) == Lens::HOLE);
    }

    /// Moves the last item of a class into a hole if there are too many: from where to where.
    pub fn tidy(&mut self, class: u8) -> Option<(u32, u32)> {
        let size = size_of_class(class);
        loop {
            let Self { runs, classes, chunks, .. } = self;
            let c = &mut classes[class as usize];
            if !c.holes.excess(c.len()) {
                return None;
            }
            let last = c.last(size)?;
            let is_hole =
                |at| is_place(class, &c.chunks, c.fill, chunks, at) && Lens(u32_at(tail(runs, at), LENS)) == Lens::HOLE;
            if is_hole(last) {
                c.holes.cut();
                self.cut(class);
                continue;
            }
            let to = c.holes.pop(is_hole)?;
            runs.copy(split(last), split(to), size);
            self.cut(class);
            return Some((last, to));
        }
    }

    /// Cuts the last place of a class off.
    fn cut(&mut self, class: u8) {
        let c = &mut self.classes[class as usize];
        c.fill -= 1;
        if c.fill == 0
            && let Some(run) = c.chunks.pop()
        {
            self.chunks[run as usize] = Chunk::NONE;
            self.held -= 1;
            self.runs.free(run);
            c.fill = c.chunks.len().checked_sub(1).map_or(0, |last| places(size_of_class(class), last));
            c.before_last -= c.fill;
        }
    }

    /// The header of what is at a place; none if there is nothing, or no place has this number any more.
    pub fn get(&self, at: u32) -> Option<Head> {
        let class = self.chunks.get(split(at).0 as usize)?.class;
        let c = self.classes.get(class as usize)?;
        let head = is_place(class, &c.chunks, c.fill, &self.chunks, at).then(|| Head::read(self.bytes(at)))?;
        (head.lens != Lens::HOLE).then_some(head)
    }

    /// All places, freed ones included.
    pub fn len(&self) -> u32 {
        self.classes.iter().map(Class::len).sum()
    }

    /// Items held.
    #[cfg(test)]
    pub fn live(&self) -> u32 {
        self.len() - self.classes.iter().map(|c| c.holes.count()).sum::<u32>()
    }

    /// The n-th of all places, by class.
    pub fn nth(&self, mut n: u32) -> Option<u32> {
        for (c, size) in self.classes.iter().zip(SIZES) {
            if n >= c.len() {
                n -= c.len();
                continue;
            }
            let size = usize::from(size);
            if n >= c.before_last {
                return Some(join(*c.chunks.last()?, (n - c.before_last) as usize * size));
            }
            let mut chunk = 0;
            while n >= places(size, chunk) && chunk < FULL_FROM {
                n -= places(size, chunk);
                chunk += 1;
            }
            let each = places(size, FULL_FROM);
            let run = c.chunks.get(chunk + (n / each) as usize)?;
            return Some(join(*run, (n % each) as usize * size));
        }
        None
    }

    #[cfg(test)]
    pub fn check(&self) {
        assert_eq!(self.held, self.classes.iter().map(|c| c.chunks.len()).sum::<usize>());
        self.runs.check();
    }
}

/// Chunks from this one on are of full size.
const FULL_FROM: usize = (CHUNK.ilog2() - CHUNK_MIN.ilog2()) as usize * CHUNKS_PER_SIZE;

fn tail(runs: &Runs, at: u32) -> &[u8] {
    let (run, offset) = split(at);
    runs.tail(run, offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_rise_by_at_most_a_sixteenth_and_divide_the_chunk() {
        assert_eq!(SIZES[CLASSES - 1] as usize, SIZE_MAX);
        const { assert!(CLASSES < 100) };
        for pair in SIZES.windows(2) {
            let (a, b) = (pair[0] as usize, pair[1] as usize);
            assert!(b > a && b % STEP == 0);
            assert!(b - a <= a / 16 + STEP, "{a} {b}");
            assert!(CHUNK % b < b && CHUNK % b <= CHUNK / 64, "{b}");
        }
        for size in HEADER..=SIZE_MAX {
            let class = class_for(size).unwrap();
            assert!(size_of_class(class) >= size);
            assert!(class == 0 || size_of_class(class - 1) < size);
        }
        assert_eq!(class_for(SIZE_MAX + 1), None);
    }

    #[test]
    fn it_is_full_for_what_is_asked_and_no_longer_once_chunks_are_given_back() {
        let mut slabs = Slabs::default();
        assert!(!slabs.is_full(0));
        let all: Vec<u32> = (0..2000).map(|_| slabs.alloc(CLASSES as u8 - 1)).collect();
        for &at in &all {
            Head::new(1, 0, 0, Lens::inline(0, 0, false)).write(slabs.bytes_mut(at));
        }
        // As if there were others.
        let others = CHUNKS_MAX - CHUNKS_SPARE - 1 - slabs.held;
        slabs.held += others;
        assert!(!slabs.is_full(0) && slabs.is_full(CHUNK as u64));
        slabs.held += 1;
        assert!(slabs.is_full(0));
        for at in all {
            slabs.free(CLASSES as u8 - 1, at);
            while slabs.tidy(CLASSES as u8 - 1).is_some() {}
        }
        assert!(!slabs.is_full(0) && !slabs.is_full(CHUNK as u64));
    }

    #[test]
    fn every_place_is_counted_once() {
        let mut slabs = Slabs::default();
        let mut all: Vec<u32> = Vec::new();
        for n in 0..20_000u32 {
            let class = [0, 3, 70][n as usize % 3];
            let at = slabs.alloc(class);
            Head::new(n & 0xff_ffff, 0, 0, Lens::inline(0, 0, false)).write(slabs.bytes_mut(at));
            all.push(at);
        }
        let mut counted: Vec<u32> = (0..slabs.len()).map(|n| slabs.nth(n).unwrap()).collect();
        assert_eq!(slabs.nth(slabs.len()), None);
        counted.sort_unstable();
        assert!(all.iter().all(|&at| slabs.get(at).is_some()));
        all.sort_unstable();
        assert_eq!(counted, all);
        slabs.free(3, all.iter().copied().find(|&at| slabs.chunks[split(at).0 as usize].class == 3).unwrap());
        assert_eq!(slabs.live() + 1, slabs.len());
        assert_eq!(all.iter().filter(|&&at| slabs.get(at).is_none()).count(), 1);
        // Numbers that are no place's.
        let inside = all[5] + 1;
        assert!(slabs.get(inside).is_none() && slabs.get(u32::MAX).is_none());
    }
}
