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
    // Nearly all keys are short and have none: eight bytes are looked at together. A zero byte in `x` borrows from above itself
    // ("Hacker's Delight", 6-1); a byte behind a hit may pass for one, which does no harm here.
    const ONES: u64 = 0x0101_0101_0101_0101;
    let mut eights = key.chunks_exact(8);
    let may_have = eights.any(|b| {
        let x = u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]) ^ (ONES * b'{' as u64);
        x.wrapping_sub(ONES) & !x & (ONES << 7) != 0
    });
    if !may_have && !key[key.len() & !7..].contains(&b'{') {
        return key;
    }
    let Some(open) = memchr::memchr(b'{', key) else {
        return key;
    };
    match memchr::memchr(b'}', &key[open + 1..]) {
        None | Some(0) => key,
        Some(len) => &key[open + 1..open + 1 + len],
    }
}

/// CRC-16/XMODEM: polynomial 0x1021, start 0, not reflected. `CRC16[n][b]` is what byte `b` comes to when `n` zero bytes follow
/// it, so that eight bytes are looked up side by side ("slicing-by-8", Kounavis and Berry 2005).
const CRC16: [[u16; 256]; 8] = {
    let mut table = [[0u16; 256]; 8];
    let mut i = 0;
    while i < 256 {
        let mut crc = (i as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 != 0 { (crc << 1) ^ 0x1021 } else { crc << 1 };
            bit += 1;
        }
        table[0][i] = crc;
        i += 1;
    }
    let mut n = 1;
    while n < 8 {
        let mut i = 0;
        while i < 256 {
            let crc = table[n - 1][i];
            table[n][i] = (crc << 8) ^ table[0][(crc >> 8) as usize];
            i += 1;
        }
        n += 1;
    }
    table
};

fn crc16(bytes: &[u8]) -> u16 {
    let mut eights = bytes.chunks_exact(8);
    let mut crc = 0u16;
    for b in &mut eights {
        let [high, low] = crc.to_be_bytes();
        crc = CRC16[7][usize::from(b[0] ^ high)]
            ^ CRC16[6][usize::from(b[1] ^ low)]
            ^ CRC16[5][usize::from(b[2])]
            ^ CRC16[4][usize::from(b[3])]
            ^ CRC16[3][usize::from(b[4])]
            ^ CRC16[2][usize::from(b[5])]
            ^ CRC16[1][usize::from(b[6])]
            ^ CRC16[0][usize::from(b[7])];
    }
    let step = |crc: u16, &b: &u8| (crc << 8) ^ CRC16[0][usize::from((crc >> 8) as u8 ^ b)];
    eights.remainder().iter().fold(crc, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        let key: Vec<u8> = (0u32..100).map(|i| (i * 7 + 3) as u8).collect();
        for len in 0..key.len() {
            let plain = key[..len].iter().fold(0u16, |crc, &b| {
                (0..8).fold(crc ^ (u16::from(b) << 8), |c, _| if c & 0x8000 != 0 { (c << 1) ^ 0x1021 } else { c << 1 })
            });
            assert_eq!(crc16(&key[..len]), plain, "{len} bytes");
        }
        // CLUSTER KEYSLOT of redis-server 7.0.
        assert_eq!(Slot::of_key(b"foo"), Slot(12182));
        assert_eq!(Slot::of_key(b"{user1000}.following"), Slot::of_key(b"user1000"));
        assert_eq!(Slot::of_key(b"foo{}{bar}"), Slot(crc16(b"foo{}{bar}") % 16384));
        assert_eq!(Slot::of_key(b"foo{{bar}}zap"), Slot::of_key(b"{bar"));
        assert_eq!(Slot::of_key(b"foo{bar}{zap}"), Slot::of_key(b"bar"));
        for before in 0..40 {
            for after in 0..20 {
                let key = [vec![b'z'; before], b"{bar}".to_vec(), vec![0xfb; after]].concat();
                assert_eq!(Slot::of_key(&key), Slot::of_key(b"bar"), "{before} {after}");
            }
        }
    }
}
