//! What lies at an item's place, little endian:
//!
//! ```text
//!    0  u64  hash : 24, last access : 23, marked : 1, body : 16
//!    8  u32  next in its bucket
//!   12  u32  neighbour towards the most recently used end of the slot's list
//!   16  u32  neighbour towards the least recently used end
//!   20  u32  key's length : 12, value's length : 12, kind : 2, timed : 1; all ones = a hole
//!  (24  u32  its deadline's timer, where timed)
//!            key and value; of other kinds than inline a u32: where these are
//! ```

/// Bytes before timer, key and value.
pub const HEADER: usize = 24;
const META: usize = 0;
const CHAIN: usize = 8;
const NEWER: usize = 12;
const OLDER: usize = 16;
pub const LENS: usize = 20;
/// Bytes of a number behind the header: a timer, a handle.
pub const WORD: usize = 4;

/// Bits of a key's hash that are kept: beyond 16 million keys of one slot its buckets grow longer instead of more.
pub const HASH_BITS: u32 = 24;
const ACCESSED_BITS: u32 = 23;
const MARKED: u64 = 1 << (HASH_BITS + ACCESSED_BITS);
const LEN_BITS: u32 = 12;

/// What the last access was counted in goes round at this.
pub const ACCESSED_END: u32 = 1 << ACCESSED_BITS;

/// The lengths, the kind and whether there is a timer, of an item; a hole has none of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lens(pub u32);

/// Where key and value are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Behind the header.
    Inline,
    /// In a run.
    Run,
    /// In pieces.
    Big,
    /// Nowhere: the place is free.
    Hole,
}

impl Lens {
    /// A free place.
    pub const HOLE: Self = Self(u32::MAX);

    /// Of an item whose key and value are behind its header.
    pub fn inline(key_len: usize, value_len: usize, timed: bool) -> Self {
        Self(key_len as u32 | (value_len as u32) << LEN_BITS | u32::from(timed) << 26)
    }

    /// Of an item whose key and value are elsewhere.
    pub fn outer(kind: Kind, timed: bool) -> Self {
        Self((kind as u32) << 24 | u32::from(timed) << 26)
    }

    #[inline(always)]
    pub fn kind(self) -> Kind {
        match self.0 >> 24 & 3 {
            0 => Kind::Inline,
            1 => Kind::Run,
            2 => Kind::Big,
            _ => Kind::Hole,
        }
    }

    #[inline(always)]
    pub fn timed(self) -> bool {
        self.0 >> 26 & 1 != 0
    }

    /// Of the key, if that is inline.
    #[inline(always)]
    pub fn key_len(self) -> usize {
        (self.0 & ((1 << LEN_BITS) - 1)) as usize
    }

    /// Of the value, if that is inline.
    #[inline(always)]
    pub fn value_len(self) -> usize {
        (self.0 >> LEN_BITS & ((1 << LEN_BITS) - 1)) as usize
    }

    /// Where key and value begin, or what says where they are.
    #[inline(always)]
    pub fn payload(self) -> usize {
        HEADER + usize::from(self.timed()) * WORD
    }

    /// Bytes of the item at its place.
    pub fn size(self) -> usize {
        self.payload() + if self.kind() == Kind::Inline { self.key_len() + self.value_len() } else { WORD }
    }
}

/// An item's header.
#[derive(Debug, Clone, Copy)]
pub struct Head {
    meta: u64,
    /// Next in its bucket.
    pub chain: u32,
    /// Neighbour towards the most recently used end of the slot's list.
    pub newer: u32,
    /// Neighbour towards the least recently used end.
    pub older: u32,
    /// What else there is to know.
    pub lens: Lens,
}

impl Head {
    /// Of an item that nothing points at yet.
    pub fn new(hash: u32, accessed: u32, body: u16, lens: Lens) -> Self {
        let meta = u64::from(hash) | u64::from(accessed % ACCESSED_END) << HASH_BITS | u64::from(body) << 48;
        Self { meta, chain: u32::MAX, newer: u32::MAX, older: u32::MAX, lens }
    }

    #[inline(always)]
    pub fn read(bytes: &[u8]) -> Self {
        let bytes = &bytes[..HEADER];
        Self {
            meta: u64::from(u32_at(bytes, META)) | u64::from(u32_at(bytes, META + 4)) << 32,
            chain: u32_at(bytes, CHAIN),
            newer: u32_at(bytes, NEWER),
            older: u32_at(bytes, OLDER),
            lens: Lens(u32_at(bytes, LENS)),
        }
    }

    #[inline(always)]
    pub fn write(self, bytes: &mut [u8]) {
        let bytes = &mut bytes[..HEADER];
        bytes[META..META + 8].copy_from_slice(&self.meta.to_le_bytes());
        put_u32(bytes, CHAIN, self.chain);
        put_u32(bytes, NEWER, self.newer);
        put_u32(bytes, OLDER, self.older);
        put_u32(bytes, LENS, self.lens.0);
    }

    /// Of what is written already only what says of its use.
    #[inline(always)]
    pub fn write_meta(self, bytes: &mut [u8]) {
        bytes[META..META + 8].copy_from_slice(&self.meta.to_le_bytes());
    }

    /// Of the key: which bucket, and whether it is worth comparing.
    #[inline(always)]
    pub fn hash(&self) -> u32 {
        self.meta as u32 & ((1 << HASH_BITS) - 1)
    }

    /// Last access, in ticks.
    #[inline(always)]
    pub fn accessed(&self) -> u32 {
        (self.meta >> HASH_BITS) as u32 & (ACCESSED_END - 1)
    }

    pub fn set_accessed(&mut self, tick: u32) {
        let at = u64::from(ACCESSED_END - 1) << HASH_BITS;
        self.meta = self.meta & !at | u64::from(tick % ACCESSED_END) << HASH_BITS;
    }

    /// Whether a policy marked it.
    #[inline(always)]
    pub fn marked(&self) -> bool {
        self.meta & MARKED != 0
    }

    pub fn set_marked(&mut self, marked: bool) {
        self.meta = self.meta & !MARKED | if marked { MARKED } else { 0 };
    }

    /// Which body it is in.
    #[inline(always)]
    pub fn body(&self) -> u16 {
        (self.meta >> 48) as u16
    }
}

#[inline(always)]
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut four = [0; 4];
    four.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(four)
}

#[inline(always)]
pub fn put_u32(bytes: &mut [u8], at: usize, n: u32) {
    bytes[at..at + 4].copy_from_slice(&n.to_le_bytes());
}

/// The item's neighbours, by what is changed most.
#[derive(Debug, Clone, Copy)]
pub enum Link {
    /// See [`Head::chain`].
    Chain = CHAIN as isize,
    /// See [`Head::newer`].
    Newer = NEWER as isize,
    /// See [`Head::older`].
    Older = OLDER as isize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_keeps_what_is_written() {
        let mut head = Head::new(0xab_cdef, 0x12_3456, 0xfedc, Lens::inline(4095, 4001, true));
        (head.chain, head.newer, head.older) = (1, 2, 3);
        head.set_accessed(0x7f_0000 + 7);
        head.set_marked(true);
        let mut bytes = [0; HEADER + 3];
        head.write(&mut bytes);
        let read = Head::read(&bytes);
        assert_eq!((read.hash(), read.accessed(), read.body(), read.marked()), (0xab_cdef, 0x7f_0007, 0xfedc, true));
        assert_eq!((read.chain, read.newer, read.older), (1, 2, 3));
        let lens = read.lens;
        assert_eq!((lens.key_len(), lens.value_len(), lens.timed(), lens.kind()), (4095, 4001, true, Kind::Inline));
        assert_eq!(lens.size(), 24 + 4 + 4095 + 4001);
        assert_eq!((Lens::outer(Kind::Big, false).kind(), Lens::outer(Kind::Big, false).size()), (Kind::Big, 28));
        assert_eq!((Lens::HOLE.kind(), Lens::outer(Kind::Run, true).kind()), (Kind::Hole, Kind::Run));
    }
}
