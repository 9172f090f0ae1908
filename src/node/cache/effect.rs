//! What a command did to its slot, as bytes: the unit that is shipped to backups and learners. Effects are shipped, not commands.
//!
//! One command makes one item: all of its effects, applied whole. Layout, little endian:
//! `1 klen:u32 vlen:u32 ttl:u8 deadline:u64 key value` (SET) · `2 klen:u32 key` (DEL) · `3 klen:u32 ttl:u8 deadline:u64 key` (EXPIRE) ·
//! `4` (FLUSH). `ttl`: 0 none, 1 keep, 2 at `deadline`, which is on the sender's clock; the frame around the item says the sender's now.

/// A point on the node's own TTL clock (milliseconds of CLOCK_BOOTTIME); never compared across hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Deadline(pub u64);

/// What SET says of the TTL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ttl {
    /// The key lives until it is deleted.
    None,
    /// As before; none for a new key.
    Keep,
    /// Until then.
    At(Deadline),
}

/// One change of one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect<'a> {
    /// The key holds this value.
    Set(&'a [u8], &'a [u8], Ttl),
    /// The key is gone.
    Del(&'a [u8]),
    /// The key's TTL; `Ttl::None` = persist.
    Expire(&'a [u8], Ttl),
    /// The slot is empty.
    Flush,
}

impl<'a> Effect<'a> {
    /// Which key it changes.
    pub fn key(self) -> Option<&'a [u8]> {
        match self {
            Effect::Set(key, ..) | Effect::Del(key) | Effect::Expire(key, _) => Some(key),
            Effect::Flush => None,
        }
    }
}

/// An empty buffer for effects above this is given back, bytes: one huge value must not pin its size for ever.
pub const KEEP: usize = 1 << 20;

/// The effects of one command in one slot, encoded as they will travel.
#[derive(Debug, Default, Clone)]
pub struct Effects {
    bytes: Vec<u8>,
}

fn put_ttl(out: &mut Vec<u8>, ttl: Ttl) {
    let (tag, at) = match ttl {
        Ttl::None => (0, 0),
        Ttl::Keep => (1, 0),
        Ttl::At(d) => (2, d.0),
    };
    out.push(tag);
    out.extend_from_slice(&at.to_le_bytes());
}

impl Effects {
    /// Nothing happened.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// As they travel.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Ready for the next command; keeps its memory, unless it is much.
    pub fn clear(&mut self) {
        self.bytes.clear();
        if self.bytes.capacity() > KEEP {
            self.bytes = Vec::new();
        }
    }

    /// Adds one.
    pub fn push(&mut self, e: Effect<'_>) {
        let out = &mut self.bytes;
        match e {
            Effect::Set(k, v, ttl) => {
                out.push(1);
                out.extend_from_slice(&(k.len() as u32).to_le_bytes());
                out.extend_from_slice(&(v.len() as u32).to_le_bytes());
                put_ttl(out, ttl);
                out.extend_from_slice(k);
                out.extend_from_slice(v);
            }
            Effect::Del(k) => {
                out.push(2);
                out.extend_from_slice(&(k.len() as u32).to_le_bytes());
                out.extend_from_slice(k);
            }
            Effect::Expire(k, ttl) => {
                out.push(3);
                out.extend_from_slice(&(k.len() as u32).to_le_bytes());
                put_ttl(out, ttl);
                out.extend_from_slice(k);
            }
            Effect::Flush => out.push(4),
        }
    }
}

/// Reads effects back; ends with an error at the first malformed byte.
pub struct Reader<'a>(pub &'a [u8]);

/// The bytes are no effects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed effect")]
pub struct Malformed;

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.0.split_at_checked(n).ok_or(Malformed)?;
        self.0 = rest;
        Ok(head)
    }

    fn u32(&mut self) -> Result<usize, Malformed> {
        let b = self.take(4)?;
        Ok(u32::from_le_bytes(b.try_into().map_err(|_| Malformed)?) as usize)
    }

    fn ttl(&mut self) -> Result<Ttl, Malformed> {
        let tag = self.take(1)?[0];
        let at = u64::from_le_bytes(self.take(8)?.try_into().map_err(|_| Malformed)?);
        match tag {
            0 => Ok(Ttl::None),
            1 => Ok(Ttl::Keep),
            2 => Ok(Ttl::At(Deadline(at))),
            _ => Err(Malformed),
        }
    }

    fn effect(&mut self) -> Result<Effect<'a>, Malformed> {
        match self.take(1)?[0] {
            1 => {
                let (k, v) = (self.u32()?, self.u32()?);
                let ttl = self.ttl()?;
                Ok(Effect::Set(self.take(k)?, self.take(v)?, ttl))
            }
            2 => {
                let k = self.u32()?;
                Ok(Effect::Del(self.take(k)?))
            }
            3 => {
                let k = self.u32()?;
                let ttl = self.ttl()?;
                Ok(Effect::Expire(self.take(k)?, ttl))
            }
            4 => Ok(Effect::Flush),
            _ => Err(Malformed),
        }
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = Result<Effect<'a>, Malformed>;
    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let e = self.effect();
        if e.is_err() {
            self.0 = &[];
        }
        Some(e)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effects_survive_the_wire_and_garbage_is_refused() {
        let all = [
            Effect::Set(b"k", b"v", Ttl::At(Deadline(5))),
            Effect::Set(b"", b"", Ttl::Keep),
            Effect::Del(b"k"),
            Effect::Expire(b"k", Ttl::None),
            Effect::Flush,
        ];
        let mut fx = Effects::default();
        all.iter().for_each(|e| fx.push(*e));
        let back: Result<Vec<_>, _> = Reader(fx.bytes()).collect();
        assert_eq!(back.unwrap(), all);
        for cut in 1..18 {
            assert!(Reader(&fx.bytes()[..cut]).any(|e| e.is_err()));
        }
    }
}
