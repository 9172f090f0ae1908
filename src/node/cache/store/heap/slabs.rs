//! Small items, a class per size: chunks of equal places, full but for a few holes.
//!
//! An item is `owner:u32 klen:u16 vlen:u16 key value`, little endian; a hole has the owner [`NIL`].

use super::super::pool::{Holes, NIL};
use super::runs::Runs;
use super::u32_at;

/// Bytes of a chunk of a class with many items. Each class wastes half its last chunk on average, so a class begins with small
/// chunks: the waste stays a few percent of what it holds.
const CHUNK: usize = 64 << 10;
/// Bytes of the first chunks.
const CHUNK_MIN: usize = 8 << 10;
/// After so many chunks of a size they double.
const CHUNKS_PER_SIZE: usize = 8;
const HEADER: usize = 8;
/// Largest item, header included; beyond it the steps between classes would be wider than a sixteenth.
const SIZE_MAX: usize = CHUNK / 16;
const SIZE_MIN: usize = 16;
/// Sizes are multiples of this.
const STEP: usize = 8;
/// Classes up to here are one step apart, from here on a sixteenth.
const FINE_MAX: usize = 128;
/// A place is `chunk << POS_BITS | position`.
const POS_BITS: u32 = (CHUNK / SIZE_MIN).ilog2();

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

/// The class of an item with so many bytes of key and value; none if it is too large for slabs.
pub fn class_for(len: usize) -> Option<u8> {
    CLASS_OF.get(len.checked_add(HEADER)?.div_ceil(STEP)).copied()
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

/// All classes.
#[derive(Debug)]
pub struct Slabs {
    classes: Vec<Class>,
}

impl Default for Slabs {
    fn default() -> Self {
        Self { classes: (0..CLASSES).map(|_| Class::default()).collect() }
    }
}

fn split(at: u32) -> (usize, usize) {
    ((at >> POS_BITS) as usize, at as usize & ((1 << POS_BITS) - 1))
}

fn join(chunk: usize, pos: usize) -> u32 {
    (chunk as u32) << POS_BITS | pos as u32
}

impl Class {
    fn bytes<'a>(&self, runs: &'a Runs, size: usize, at: u32) -> &'a [u8] {
        let (chunk, pos) = split(at);
        &runs.bytes(self.chunks[chunk])[pos * size..][..size]
    }

    fn bytes_mut<'a>(&self, runs: &'a mut Runs, size: usize, at: u32) -> &'a mut [u8] {
        let (chunk, pos) = split(at);
        &mut runs.bytes_mut(self.chunks[chunk])[pos * size..][..size]
    }

    fn is_hole(&self, runs: &Runs, size: usize, at: u32) -> bool {
        is_hole(&self.chunks, self.fill, runs, size, at)
    }

    /// Places in use or freed.
    fn len(&self) -> u32 {
        self.before_last + self.fill
    }

    /// Makes a place at the end.
    fn extend(&mut self, runs: &mut Runs, size: usize) -> u32 {
        let last = self.chunks.len().checked_sub(1);
        if last.is_none_or(|last| self.fill == places(size, last)) {
            self.before_last += self.fill;
            self.fill = 0;
            self.chunks.push(runs.alloc(places(size, self.chunks.len()) as usize * size));
        }
        self.fill += 1;
        join(self.chunks.len() - 1, self.fill as usize - 1)
    }

    /// Cuts the last place off.
    fn cut(&mut self, runs: &mut Runs, size: usize) {
        self.fill -= 1;
        if self.fill == 0
            && let Some(chunk) = self.chunks.pop()
        {
            runs.free(chunk);
            self.fill = self.chunks.len().checked_sub(1).map_or(0, |last| places(size, last));
            self.before_last -= self.fill;
        }
    }
}

fn is_hole(chunks: &[u32], fill: u32, runs: &Runs, size: usize, at: u32) -> bool {
    let (chunk, pos) = split(at);
    let within = chunk + 1 < chunks.len() || (chunk + 1 == chunks.len() && pos < fill as usize);
    within && u32_at(runs.bytes(chunks[chunk]), pos * size) == NIL
}

fn write(to: &mut [u8], owner: u32, key: &[u8], value: &[u8]) {
    to[..4].copy_from_slice(&owner.to_le_bytes());
    to[4..6].copy_from_slice(&(key.len() as u16).to_le_bytes());
    to[6..8].copy_from_slice(&(value.len() as u16).to_le_bytes());
    to[HEADER..][..key.len()].copy_from_slice(key);
    to[HEADER + key.len()..][..value.len()].copy_from_slice(value);
}

impl Slabs {
    /// Takes an item in.
    pub fn insert(&mut self, runs: &mut Runs, class: u8, owner: u32, key: &[u8], value: &[u8]) -> u32 {
        let size = size_of_class(class);
        let c = &mut self.classes[class as usize];
        let at = match c.holes.pop(|at| is_hole(&c.chunks, c.fill, runs, size, at)) {
            Some(at) => at,
            None => c.extend(runs, size),
        };
        write(c.bytes_mut(runs, size, at), owner, key, value);
        at
    }

    /// Key and value.
    pub fn item<'a>(&self, runs: &'a Runs, class: u8, at: u32) -> (&'a [u8], &'a [u8]) {
        let bytes = self.classes[class as usize].bytes(runs, size_of_class(class), at);
        let lens = u32_at(bytes, 4);
        let (key_len, value_len) = ((lens & 0xffff) as usize, (lens >> 16) as usize);
        bytes[HEADER..HEADER + key_len + value_len].split_at(key_len)
    }

    /// An item's whole place, header and all.
    pub fn bytes<'a>(&self, runs: &'a Runs, class: u8, at: u32) -> &'a [u8] {
        self.classes[class as usize].bytes(runs, size_of_class(class), at)
    }

    /// Gives an item another value that fits its class.
    pub fn overwrite(&mut self, runs: &mut Runs, class: u8, at: u32, value: &[u8]) {
        let bytes = self.classes[class as usize].bytes_mut(runs, size_of_class(class), at);
        let key_len = (u32_at(bytes, 4) & 0xffff) as usize;
        bytes[6..8].copy_from_slice(&(value.len() as u16).to_le_bytes());
        bytes[HEADER + key_len..][..value.len()].copy_from_slice(value);
    }

    /// The item's owner has another number.
    pub fn set_owner(&mut self, runs: &mut Runs, class: u8, at: u32, owner: u32) {
        let bytes = self.classes[class as usize].bytes_mut(runs, size_of_class(class), at);
        bytes[..4].copy_from_slice(&owner.to_le_bytes());
    }

    /// Makes an item's place a hole.
    pub fn remove(&mut self, runs: &mut Runs, class: u8, at: u32) {
        self.set_owner(runs, class, at, NIL);
        let size = size_of_class(class);
        let Class { chunks, fill, holes, .. } = &mut self.classes[class as usize];
        holes.push(at, |at| is_hole(chunks, *fill, runs, size, at));
    }

    /// Moves the last item of a class into a hole if there are too many: whose it is, and where to.
    pub fn tidy(&mut self, runs: &mut Runs, class: u8) -> Option<(u32, u32)> {
        let size = size_of_class(class);
        let c = &mut self.classes[class as usize];
        loop {
            if !c.holes.excess(c.len()) {
                return None;
            }
            let last = join(c.chunks.len() - 1, c.fill as usize - 1);
            if c.is_hole(runs, size, last) {
                c.holes.cut();
                c.cut(runs, size);
                continue;
            }
            let to = c.holes.pop(|at| is_hole(&c.chunks, c.fill, runs, size, at))?;
            let owner = u32_at(c.bytes(runs, size, last), 0);
            let ((from, at), (chunk, into)) = (split(last), split(to));
            runs.copy((c.chunks[from], at * size), (c.chunks[chunk], into * size), size);
            c.cut(runs, size);
            return Some((owner, to));
        }
    }
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
        for len in 0..=SIZE_MAX - HEADER {
            let class = class_for(len).unwrap();
            assert!(size_of_class(class) >= len + HEADER);
            assert!(class == 0 || size_of_class(class - 1) < len + HEADER);
        }
        assert_eq!(class_for(SIZE_MAX - HEADER + 1), None);
    }
}
