//! Which slot a key belongs to, as in the Redis Cluster specification: `crc16_xmodem(key or its {hash tag}) mod 16384`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The number of slots of a cluster, fixed by the Redis Cluster specification.
pub const SLOTS: usize = 16384;

/// One slot's number, below [`SLOTS`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Slot(pub u16);

impl Slot {
    /// The number as an index.
    pub fn ix(self) -> usize {
        self.0 as usize
    }

    /// The slot of a key; only the part between the first `{` and the next `}` counts, if it is not empty.
    pub fn of_key(key: &[u8]) -> Slot {
        Slot(crc16(hash_tag(key)) % SLOTS as u16)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

fn hash_tag(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|&b| b == b'{') else {
        return key;
    };
    match key[open + 1..].iter().position(|&b| b == b'}') {
        None | Some(0) => key,
        Some(len) => &key[open + 1..open + 1 + len],
    }
}

/// CRC-16/XMODEM: polynomial 0x1021, start 0, not reflected.
const CRC16: [u16; 256] = {
    let mut table = [0u16; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = (i as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 != 0 { (crc << 1) ^ 0x1021 } else { crc << 1 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
};

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, &b| (crc << 8) ^ CRC16[((crc >> 8) ^ u16::from(b)) as usize & 0xff])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        // CLUSTER KEYSLOT of redis-server 7.0.
        assert_eq!(Slot::of_key(b"foo"), Slot(12182));
        assert_eq!(Slot::of_key(b"{user1000}.following"), Slot::of_key(b"user1000"));
        assert_eq!(Slot::of_key(b"foo{}{bar}"), Slot(crc16(b"foo{}{bar}") % 16384));
        assert_eq!(Slot::of_key(b"foo{{bar}}zap"), Slot::of_key(b"{bar"));
        assert_eq!(Slot::of_key(b"foo{bar}{zap}"), Slot::of_key(b"bar"));
    }
}
