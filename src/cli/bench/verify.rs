//! What a run may believe: every value says whose it is (run, key, version), and each key's register says which versions a read
//! may show. Pure: the engine tells what it sent and what came back.
//!
//! ```text
//! free ──write──▶ busy ──acked────────▶ free   acked = version
//!      ──read───▶ busy ──refused──────▶ free   it never ran
//!                      ──unknown──────▶ free   may still come true, once, at any time
//!                      ──read, right──▶ free
//!                      ──read, wrong──▶ again after a moment ──right──▶ free   the first read was stale
//!                                                            ──wrong──▶ free   an acknowledged write is lost
//! ```
//!
//! A key has one operation under way at a time and one worker that touches it, so that a read must show exactly the last
//! acknowledged version or one whose outcome was never heard. That is what linearizability asks of one register.

use std::collections::HashMap;

/// Digits of the head of a value: run, key and version in hexadecimal.
const HEAD: usize = 8 + 16 + 8;
/// The shortest value that can be verified, bytes.
pub const VALUE_MIN: usize = HEAD;
/// Bits of a register that flag.
const BUSY: u32 = 1 << 31;

/// A value's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Which run wrote it.
    pub run: u32,
    /// Under which key.
    pub id: u64,
    /// The how-manieth write of that key.
    pub version: u32,
}

/// Appends the value of `len` bytes that this version of a key has.
pub fn value(seen: Seen, len: usize, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut hex = |n: u64, digits: u32| {
        (0..digits).rev().for_each(|i| out.push(HEX[(n >> (4 * i)) as usize & 15]));
    };
    hex(u64::from(seen.run), 8);
    hex(seen.id, 16);
    hex(u64::from(seen.version), 8);
    out.extend((HEAD..len).map(|i| filler(seen, i)));
}

fn filler(seen: Seen, i: usize) -> u8 {
    b'!' + ((seen.id.wrapping_mul(7) + u64::from(seen.version) * 13 + i as u64) % 90) as u8
}

/// Reads a value; none if a byte of it is not as [`value`] writes it.
pub fn read(bytes: &[u8]) -> Option<Seen> {
    let head = std::str::from_utf8(bytes.get(..HEAD)?).ok()?;
    let hex = |from: usize, to: usize| u64::from_str_radix(&head[from..to], 16).ok();
    let seen = Seen { run: hex(0, 8)? as u32, id: hex(8, 24)?, version: hex(24, HEAD)? as u32 };
    let intact = bytes.iter().enumerate().skip(HEAD).all(|(i, b)| *b == filler(seen, i));
    intact.then_some(seen)
}

/// What a read means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may be.
    Right,
    /// It may not be: to be read again after a moment.
    Wrong,
    /// Wrong before, right now: that read was stale.
    Stale,
    /// Wrong twice: the write is gone.
    Lost,
    /// The bytes are no value of that key.
    Corrupt,
}

/// How a write ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrote {
    /// Acknowledged.
    Acked,
    /// It certainly did not run.
    Refused,
    /// Nobody knows.
    Unknown,
}

#[derive(Debug, Clone, Copy, Default)]
struct Register {
    /// The version a read must show; 0 = what was there before the run.
    acked: u32,
    /// The last version sent, and whether an operation is under way.
    last: u32,
}

/// The registers of one worker's keys.
#[derive(Debug, Default)]
pub struct Ledger {
    run: u32,
    registers: Vec<Register>,
    /// Versions whose outcome was never heard and that were not seen yet.
    unknown: HashMap<usize, Vec<u32>>,
    /// Read wrongly once.
    suspects: HashMap<usize, ()>,
}

impl Ledger {
    /// For `keys` keys of a run of this number; nothing is written yet.
    pub fn new(run: u32, keys: usize) -> Self {
        Self { run, registers: vec![Register::default(); keys], ..Self::default() }
    }

    /// How many keys.
    pub fn len(&self) -> usize {
        self.registers.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.registers.is_empty()
    }

    /// Whether anything was ever acknowledged, or may have happened, to a key.
    pub fn touched(&self, key: usize) -> bool {
        self.registers[key].last & !BUSY != 0
    }

    /// Takes a key for an operation; false if it has one.
    pub fn take(&mut self, key: usize) -> bool {
        let free = self.registers[key].last & BUSY == 0;
        self.registers[key].last |= BUSY;
        free
    }

    /// Gives a key back: the operation ended, or was never sent.
    pub fn free(&mut self, key: usize) {
        self.registers[key].last &= !BUSY;
    }

    /// The version that a write of a taken key is to carry.
    pub fn next_version(&mut self, key: usize) -> u32 {
        self.registers[key].last += 1;
        self.registers[key].last & !BUSY
    }

    /// The head of a value of this run.
    pub fn head(&self, id: u64, version: u32) -> Seen {
        Seen { run: self.run, id, version }
    }

    /// A write ended.
    pub fn wrote(&mut self, key: usize, version: u32, how: Wrote) {
        match how {
            Wrote::Acked => self.registers[key].acked = version,
            Wrote::Refused => {}
            Wrote::Unknown => self.unknown.entry(key).or_default().push(version),
        }
    }

    /// A read ended with this value (none = no such key). After [`Verdict::Wrong`] the key stays taken until it is read again.
    pub fn saw(&mut self, key: usize, id: u64, bytes: Option<&[u8]>) -> Verdict {
        let seen = match bytes {
            None => None,
            Some(bytes) => match read(bytes) {
                Some(seen) if seen.id == id => Some(seen),
                // Before its first write a key may hold anything.
                _ if self.registers[key].acked == 0 => return Verdict::Right,
                _ => return Verdict::Corrupt,
            },
        };
        // What another run wrote is as good as nothing.
        let version = seen.filter(|s| s.run == self.run).map_or(0, |s| s.version);
        let late = self.unknown.get_mut(&key).and_then(|all| {
            let at = all.iter().position(|v| *v == version)?;
            Some(all.swap_remove(at))
        });
        let register = &mut self.registers[key];
        let right = version == register.acked || late.is_some();
        let suspect = self.suspects.remove(&key).is_some();
        if right {
            register.acked = version;
            return if suspect { Verdict::Stale } else { Verdict::Right };
        }
        if suspect {
            // Counted once: from here on this is what the key holds.
            register.acked = version;
            return Verdict::Lost;
        }
        self.suspects.insert(key, ());
        Verdict::Wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(run: u32, id: u64, version: u32) -> Vec<u8> {
        let mut out = Vec::new();
        value(Seen { run, id, version }, 100, &mut out);
        out
    }

    /// One write of key 3 (number 33), taken and freed as the engine does.
    fn write(l: &mut Ledger, how: Wrote) -> u32 {
        assert!(l.take(3));
        let v = l.next_version(3);
        l.wrote(3, v, how);
        l.free(3);
        v
    }

    fn see(l: &mut Ledger, version: Option<u32>) -> Verdict {
        let bytes = version.map(|v| bytes(9, 33, v));
        l.saw(3, 33, bytes.as_deref())
    }

    #[test]
    fn a_value_says_whose_it_is_and_shows_every_changed_byte() {
        let good = bytes(9, 33, 5);
        assert_eq!(good.len(), 100);
        assert_eq!(read(&good), Some(Seen { run: 9, id: 33, version: 5 }));
        for i in 0..good.len() {
            let mut bad = good.clone();
            bad[i] ^= 1;
            assert_ne!(read(&bad), read(&good), "byte {i}");
        }
        assert_eq!(read(&good[..HEAD - 1]), None);
        let mut shortest = Vec::new();
        value(Seen { run: 1, id: 2, version: 3 }, VALUE_MIN, &mut shortest);
        assert_eq!(read(&shortest), Some(Seen { run: 1, id: 2, version: 3 }));
    }

    #[test]
    fn a_read_shows_the_last_acknowledged_write() {
        let mut l = Ledger::new(9, 10);
        assert_eq!(see(&mut l, None), Verdict::Right, "nothing was written");
        assert_eq!(l.saw(3, 33, Some(b"from before")), Verdict::Right);
        assert_eq!(l.saw(3, 33, Some(&bytes(8, 33, 70))), Verdict::Right, "another run's");
        assert!(!l.touched(3));
        write(&mut l, Wrote::Acked);
        write(&mut l, Wrote::Acked);
        assert_eq!(see(&mut l, Some(2)), Verdict::Right);
        assert!(l.touched(3) && !l.touched(4));
        assert_eq!(l.saw(3, 33, Some(&bytes(9, 34, 2))), Verdict::Corrupt, "another key's");
        assert_eq!(l.saw(3, 33, Some(b"junk")), Verdict::Corrupt);
    }

    #[test]
    fn wrong_once_is_stale_and_wrong_twice_is_lost() {
        let mut l = Ledger::new(9, 10);
        write(&mut l, Wrote::Acked);
        write(&mut l, Wrote::Acked);
        assert_eq!(see(&mut l, Some(1)), Verdict::Wrong);
        assert_eq!(see(&mut l, Some(2)), Verdict::Stale);
        assert_eq!(see(&mut l, None), Verdict::Wrong);
        assert_eq!(see(&mut l, None), Verdict::Lost);
        assert_eq!(see(&mut l, None), Verdict::Right, "counted once");
        assert_eq!(see(&mut l, Some(2)), Verdict::Wrong, "a lost write does not come back");
        assert_eq!(see(&mut l, None), Verdict::Stale);
        write(&mut l, Wrote::Acked);
        assert_eq!(l.saw(3, 33, Some(&bytes(8, 33, 3))), Verdict::Wrong, "another run's value is not it");
        assert_eq!(l.saw(3, 33, Some(&bytes(8, 33, 3))), Verdict::Lost);
    }

    #[test]
    fn an_unheard_write_may_come_true_once_at_any_time() {
        let mut l = Ledger::new(9, 10);
        write(&mut l, Wrote::Acked);
        write(&mut l, Wrote::Unknown);
        assert_eq!(see(&mut l, Some(1)), Verdict::Right, "it has not yet");
        write(&mut l, Wrote::Acked);
        assert_eq!(see(&mut l, Some(3)), Verdict::Right);
        assert_eq!(see(&mut l, Some(2)), Verdict::Right, "it does now, over the later one");
        assert_eq!(see(&mut l, Some(2)), Verdict::Right);
        assert_eq!(see(&mut l, Some(3)), Verdict::Wrong, "what it overwrote is gone");
        assert_eq!(see(&mut l, Some(2)), Verdict::Stale);
        let refused = write(&mut l, Wrote::Refused);
        assert_eq!(see(&mut l, Some(refused)), Verdict::Wrong, "a refused write never shows");
    }

    #[test]
    fn a_key_has_one_operation_at_a_time() {
        let mut l = Ledger::new(9, 10);
        assert!(l.take(0) && !l.take(0) && l.take(1));
        assert_eq!(l.next_version(0), 1);
        l.free(0);
        assert!(l.take(0));
        assert_eq!(l.next_version(0), 2);
    }
}
