//! A command's arguments as ranges into the read buffer: no allocation per command.

use std::ops::Index;

/// The arguments of one command, the command's name first. Never empty.
#[derive(Clone, Copy)]
pub struct Args<'a> {
    buf: &'a [u8],
    ranges: &'a [(u32, u32)],
}

impl<'a> Args<'a> {
    /// `ranges` are (start, end) offsets into `buf`.
    pub fn new(buf: &'a [u8], ranges: &'a [(u32, u32)]) -> Self {
        Self { buf, ranges }
    }

    /// How many, the name included.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Whether there is not even a name.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Where the last one ends: none is longer.
    #[inline]
    pub fn end(&self) -> usize {
        self.ranges.last().map_or(0, |&(_, end)| end as usize)
    }

    /// The argument at `i`, if there is one.
    pub fn get(&self, i: usize) -> Option<&'a [u8]> {
        let &(start, end) = self.ranges.get(i)?;
        self.buf.get(start as usize..end as usize)
    }

    /// The command that begins at argument `n` (COMMAND GETKEYS); empty if there is none.
    pub fn skip(self, n: usize) -> Self {
        Self { buf: self.buf, ranges: self.ranges.get(n..).unwrap_or_default() }
    }

    /// All of them from `from` on.
    pub fn iter_from(self, from: usize) -> impl Iterator<Item = &'a [u8]> {
        (from..self.len()).filter_map(move |i| self.get(i))
    }
}

impl Index<usize> for Args<'_> {
    type Output = [u8];
    fn index(&self, i: usize) -> &[u8] {
        let (start, end) = self.ranges[i];
        &self.buf[start as usize..end as usize]
    }
}
