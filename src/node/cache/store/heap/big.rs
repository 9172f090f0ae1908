//! Values too large for a run: in pieces, so that they fit wherever there is room and leave no holes of their own size behind.

use super::runs::{self, Runs};

/// Bytes of a piece but the last: as large as a slab's chunk, so that each fits the other's gap.
const PIECE: usize = 64 << 10;
/// What is kept beside key and pieces; pieces are 4 bytes each.
const OVERHEAD: usize = 64;

/// Bytes that a big item takes.
pub fn footprint(key_len: usize, value_len: usize) -> usize {
    key_len + runs::round(value_len) + OVERHEAD + value_len / PIECE * 4
}

#[derive(Debug)]
struct Big {
    key: Box<[u8]>,
    value_len: usize,
    pieces: Box<[u32]>,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Bigs {
    items: Vec<Option<Big>>,
    free: Vec<u32>,
}

impl Bigs {
    fn get(&self, at: u32) -> Option<&Big> {
        self.items[at as usize].as_ref()
    }

    /// Takes an item in.
    pub fn insert(&mut self, runs: &mut Runs, key: &[u8], value: &[u8]) -> u32 {
        let piece = |bytes: &[u8]| {
            let run = runs.alloc(bytes.len());
            runs.bytes_mut(run).copy_from_slice(bytes);
            run
        };
        let big =
            Some(Big { key: key.into(), value_len: value.len(), pieces: value.chunks(PIECE).map(piece).collect() });
        match self.free.pop() {
            Some(at) => {
                self.items[at as usize] = big;
                at
            }
            None => {
                self.items.push(big);
                (self.items.len() - 1) as u32
            }
        }
    }

    /// The key.
    pub fn key(&self, at: u32) -> &[u8] {
        self.get(at).map_or(&[], |b| &b.key)
    }

    /// The lengths of key and value.
    pub fn lens(&self, at: u32) -> (usize, usize) {
        self.get(at).map_or((0, 0), |b| (b.key.len(), b.value_len))
    }

    /// Puts the value together.
    pub fn read(&self, runs: &Runs, at: u32, to: &mut Vec<u8>) {
        if let Some(b) = self.get(at) {
            to.reserve_exact(b.value_len);
            b.pieces.iter().for_each(|&run| to.extend_from_slice(runs.bytes(run)));
        }
    }

    /// Gives the item another value if that is as long; whether it did.
    pub fn overwrite(&mut self, runs: &mut Runs, at: u32, value: &[u8]) -> bool {
        let Some(b) = self.get(at).filter(|b| b.value_len == value.len()) else { return false };
        for (&run, bytes) in b.pieces.iter().zip(value.chunks(PIECE)) {
            runs.bytes_mut(run).copy_from_slice(bytes);
        }
        true
    }

    /// Frees an item.
    pub fn remove(&mut self, runs: &mut Runs, at: u32) {
        if let Some(b) = self.items[at as usize].take() {
            b.pieces.iter().for_each(|&run| runs.free(run));
            self.free.push(at);
        }
    }
}
