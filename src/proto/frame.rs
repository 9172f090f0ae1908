//! Binary frames between cache nodes: `len:u32 kind:u8 payload`, little endian. `len` counts kind and payload.
//!
//! A peer connection opens with HELLO, which names both lives, the cluster and the purpose. **Beacon** connections carry leases
//! and views; **data** connections carry one ordered stream of items and copies one way, and acks and quotas the other.
//! Every data frame has a `link_seq`, counted per pair of lives, so that a broken connection resumes where it ended.

use super::id::{ClusterId, Incarnation, NodeId, Ref};
use super::slot::Slot;

/// The largest frame, bytes: a 512 MiB value with its key and head.
pub const FRAME_MAX: usize = (512 << 20) + (64 << 10);
/// The version in HELLO; another one is refused.
pub const FRAME_V: u8 = 1;
/// What a frame's length and kind take.
const HEAD: usize = 5;

/// What a peer connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Leases and views.
    Beacon,
    /// Items, copies, acks.
    Data,
}

/// Which stream of one slot an item belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stream {
    /// Which slot.
    pub slot: Slot,
    /// Raft index at which the sender became primary.
    pub pterm: u64,
    /// Raft index of the receiver's ADD_LEARNER.
    pub since: u64,
}

/// Why a data frame was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The receiver knows a newer primary, or is no such member.
    Stale,
    /// A seq is missing; the one expected.
    Gap(u64),
    /// The receiver did not learn of this configuration in time.
    Behind,
    /// It would pass the receiver's memory limit.
    Full,
    /// The copy does not match its digest.
    Digest,
    /// The effects are malformed.
    Malformed,
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame<'a> {
    /// First on every connection, from the one who dialled.
    Hello {
        /// Whose.
        cluster: ClusterId,
        /// Who dials.
        from: Ref,
        /// Who is meant.
        to: Ref,
        /// What for.
        purpose: Purpose,
        /// The last `link_seq` whose ack the dialler saw; refusals after it are told again.
        acked: u64,
    },
    /// HELLO was good; on data connections, the last `link_seq` taken from this sender.
    Welcome {
        /// Resume after this.
        received: u64,
    },
    /// HELLO was not good: another life, another cluster.
    Unwelcome,
    /// A lease is asked for.
    Beacon {
        /// Echoed.
        n: u64,
        /// Where the sender stands.
        cfg_index: u64,
    },
    /// The promise was given.
    BeaconAck {
        /// Of which beacon.
        n: u64,
        /// Where the one who promises stands.
        cfg_index: u64,
    },
    /// The taker is behind.
    Pull {
        /// What it has.
        have: u64,
    },
    /// A view, JSON.
    View(&'a [u8]),
    /// The sender's TTL clock at this (re)send, for all that follows on this connection.
    Now(u64),
    /// Empty the slot and expect `next_seq`.
    Open {
        /// Place in the link.
        link_seq: u64,
        /// Of what.
        stream: Stream,
        /// The seq of the first live item to come.
        next_seq: u64,
    },
    /// One command's effects.
    Item {
        /// Place in the link.
        link_seq: u64,
        /// Of what.
        stream: Stream,
        /// Rises by one within a slot.
        seq: u64,
        /// `node/cache/effect.rs` lays them out.
        effects: &'a [u8],
    },
    /// Entries as they are now, while copying.
    Chunk {
        /// Place in the link.
        link_seq: u64,
        /// Of what.
        stream: Stream,
        /// SET effects.
        effects: &'a [u8],
    },
    /// SYNC_END: everything up to `seq` was sent; the receiver compares.
    End {
        /// Place in the link.
        link_seq: u64,
        /// Of what.
        stream: Stream,
        /// Live items up to here are in.
        seq: u64,
        /// Keys.
        count: u64,
        /// Of keys, values, has-TTL.
        digest: u64,
    },
    /// All of the link up to here was taken or refused.
    Ack {
        /// Cumulative.
        link_seq: u64,
    },
    /// This one was not taken; precedes the ack that covers it.
    Refuse {
        /// Which.
        link_seq: u64,
        /// Why.
        why: Refusal,
    },
    /// The receiver keeps so many bytes for this sender's slots.
    Quota {
        /// Accounted bytes it may use now.
        bytes: u64,
        /// Accounted bytes that are its share; more than `bytes` while others still have to make room.
        target: u64,
        /// The configuration the share follows from.
        cfg_index: u64,
    },
    /// The sender stays within that quota from here on.
    QuotaAck {
        /// Accounted bytes.
        bytes: u64,
    },
    /// Recently read keys of one slot, so that a promoted LRU is warm: `len:u16 key` each.
    Touch {
        /// Which slot.
        slot: Slot,
        /// The keys.
        keys: &'a [u8],
    },
}

/// The bytes are no frame; the connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed peer frame")]
pub struct BadFrame;

fn put_ref(out: &mut Vec<u8>, r: &Ref) {
    out.push(r.id.as_str().len() as u8);
    out.extend_from_slice(r.id.as_str().as_bytes());
    out.extend_from_slice(&r.incarnation.0.to_le_bytes());
}

fn put_stream(out: &mut Vec<u8>, s: &Stream) {
    out.extend_from_slice(&s.slot.0.to_le_bytes());
    out.extend_from_slice(&s.pterm.to_le_bytes());
    out.extend_from_slice(&s.since.to_le_bytes());
}

/// Appends one frame.
pub fn put(out: &mut Vec<u8>, frame: &Frame<'_>) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    let u64s = |out: &mut Vec<u8>, kind: u8, ns: &[u64]| {
        out.push(kind);
        ns.iter().for_each(|n| out.extend_from_slice(&n.to_le_bytes()));
    };
    match frame {
        Frame::Hello { cluster, from, to, purpose, acked } => {
            out.extend_from_slice(&[1, FRAME_V]);
            out.extend_from_slice(&cluster.0.to_le_bytes());
            put_ref(out, from);
            put_ref(out, to);
            out.push(match purpose {
                Purpose::Beacon => 0,
                Purpose::Data => 1,
            });
            out.extend_from_slice(&acked.to_le_bytes());
        }
        Frame::Welcome { received } => u64s(out, 2, &[*received]),
        Frame::Unwelcome => out.push(3),
        Frame::Beacon { n, cfg_index } => u64s(out, 4, &[*n, *cfg_index]),
        Frame::BeaconAck { n, cfg_index } => u64s(out, 5, &[*n, *cfg_index]),
        Frame::Pull { have } => u64s(out, 6, &[*have]),
        Frame::View(json) => {
            out.push(7);
            out.extend_from_slice(json);
        }
        Frame::Now(ms) => u64s(out, 8, &[*ms]),
        Frame::Open { link_seq, stream, next_seq } => {
            u64s(out, 9, &[*link_seq]);
            put_stream(out, stream);
            out.extend_from_slice(&next_seq.to_le_bytes());
        }
        Frame::Item { link_seq, stream, seq, effects } => {
            u64s(out, 10, &[*link_seq]);
            put_stream(out, stream);
            out.extend_from_slice(&seq.to_le_bytes());
            out.extend_from_slice(effects);
        }
        Frame::Chunk { link_seq, stream, effects } => {
            u64s(out, 11, &[*link_seq]);
            put_stream(out, stream);
            out.extend_from_slice(effects);
        }
        Frame::End { link_seq, stream, seq, count, digest } => {
            u64s(out, 12, &[*link_seq]);
            put_stream(out, stream);
            for n in [seq, count, digest] {
                out.extend_from_slice(&n.to_le_bytes());
            }
        }
        Frame::Ack { link_seq } => u64s(out, 13, &[*link_seq]),
        Frame::Refuse { link_seq, why } => {
            let (tag, n) = match why {
                Refusal::Stale => (0, 0),
                Refusal::Gap(n) => (1, *n),
                Refusal::Behind => (2, 0),
                Refusal::Full => (3, 0),
                Refusal::Digest => (4, 0),
                Refusal::Malformed => (5, 0),
            };
            u64s(out, 14, &[*link_seq, tag, n]);
        }
        Frame::Quota { bytes, target, cfg_index } => u64s(out, 15, &[*bytes, *target, *cfg_index]),
        Frame::QuotaAck { bytes } => u64s(out, 16, &[*bytes]),
        Frame::Touch { slot, keys } => {
            out.push(17);
            out.extend_from_slice(&slot.0.to_le_bytes());
            out.extend_from_slice(keys);
        }
    }
    let len = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&len.to_le_bytes());
}

struct Cut<'a>(&'a [u8]);

impl<'a> Cut<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], BadFrame> {
        let (head, rest) = self.0.split_at_checked(n).ok_or(BadFrame)?;
        self.0 = rest;
        Ok(head)
    }
    fn u8(&mut self) -> Result<u8, BadFrame> {
        Ok(self.take(1)?[0])
    }
    fn u64(&mut self) -> Result<u64, BadFrame> {
        Ok(u64::from_le_bytes(self.take(8)?.try_into().map_err(|_| BadFrame)?))
    }
    fn slot(&mut self) -> Result<Slot, BadFrame> {
        let n = u16::from_le_bytes(self.take(2)?.try_into().map_err(|_| BadFrame)?);
        if usize::from(n) < super::slot::SLOTS { Ok(Slot(n)) } else { Err(BadFrame) }
    }
    fn node(&mut self) -> Result<Ref, BadFrame> {
        let len = self.u8()?;
        let id = std::str::from_utf8(self.take(len.into())?).map_err(|_| BadFrame)?;
        Ok(Ref { id: NodeId::new(id).map_err(|_| BadFrame)?, incarnation: Incarnation(self.u64()?) })
    }
    fn stream(&mut self) -> Result<Stream, BadFrame> {
        Ok(Stream { slot: self.slot()?, pterm: self.u64()?, since: self.u64()? })
    }
}

/// Reads the frame at the start of `buf`: what it is and how many bytes it took; `None` = more bytes are needed.
pub fn take(buf: &[u8]) -> Result<Option<(Frame<'_>, usize)>, BadFrame> {
    let Some(head) = buf.get(..4) else { return Ok(None) };
    let len = u32::from_le_bytes(head.try_into().map_err(|_| BadFrame)?) as usize;
    if len == 0 || len > FRAME_MAX {
        return Err(BadFrame);
    }
    let Some(body) = buf.get(HEAD - 1..4 + len) else { return Ok(None) };
    let mut c = Cut(body);
    let frame = match c.u8()? {
        1 => {
            if c.u8()? != FRAME_V {
                return Err(BadFrame);
            }
            let cluster = ClusterId(c.u64()?);
            let (from, to) = (c.node()?, c.node()?);
            let purpose = match c.u8()? {
                0 => Purpose::Beacon,
                1 => Purpose::Data,
                _ => return Err(BadFrame),
            };
            Frame::Hello { cluster, from, to, purpose, acked: c.u64()? }
        }
        2 => Frame::Welcome { received: c.u64()? },
        3 => Frame::Unwelcome,
        4 => Frame::Beacon { n: c.u64()?, cfg_index: c.u64()? },
        5 => Frame::BeaconAck { n: c.u64()?, cfg_index: c.u64()? },
        6 => Frame::Pull { have: c.u64()? },
        7 => Frame::View(std::mem::take(&mut c.0)),
        8 => Frame::Now(c.u64()?),
        9 => Frame::Open { link_seq: c.u64()?, stream: c.stream()?, next_seq: c.u64()? },
        10 => {
            let (link_seq, stream, seq) = (c.u64()?, c.stream()?, c.u64()?);
            Frame::Item { link_seq, stream, seq, effects: std::mem::take(&mut c.0) }
        }
        11 => {
            let (link_seq, stream) = (c.u64()?, c.stream()?);
            Frame::Chunk { link_seq, stream, effects: std::mem::take(&mut c.0) }
        }
        12 => Frame::End { link_seq: c.u64()?, stream: c.stream()?, seq: c.u64()?, count: c.u64()?, digest: c.u64()? },
        13 => Frame::Ack { link_seq: c.u64()? },
        14 => {
            let (link_seq, tag, n) = (c.u64()?, c.u64()?, c.u64()?);
            let why = match tag {
                0 => Refusal::Stale,
                1 => Refusal::Gap(n),
                2 => Refusal::Behind,
                3 => Refusal::Full,
                4 => Refusal::Digest,
                5 => Refusal::Malformed,
                _ => return Err(BadFrame),
            };
            Frame::Refuse { link_seq, why }
        }
        15 => Frame::Quota { bytes: c.u64()?, target: c.u64()?, cfg_index: c.u64()? },
        16 => Frame::QuotaAck { bytes: c.u64()? },
        17 => Frame::Touch { slot: c.slot()?, keys: std::mem::take(&mut c.0) },
        _ => return Err(BadFrame),
    };
    if c.0.is_empty() { Ok(Some((frame, 4 + len))) } else { Err(BadFrame) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn samples() -> Vec<Frame<'static>> {
        let r = |n: &str| Ref { id: NodeId::new(n).unwrap(), incarnation: Incarnation(9) };
        let stream = Stream { slot: Slot(16383), pterm: 7, since: 5 };
        let mut all = vec![
            Frame::Hello { cluster: ClusterId(3), from: r("n1"), to: r("n2"), purpose: Purpose::Data, acked: 6 },
            Frame::Welcome { received: 4 },
            Frame::Unwelcome,
            Frame::Beacon { n: 1, cfg_index: 2 },
            Frame::BeaconAck { n: 1, cfg_index: 2 },
            Frame::Pull { have: 0 },
            Frame::View(b"{}"),
            Frame::Now(77),
            Frame::Open { link_seq: 1, stream, next_seq: 4 },
            Frame::Item { link_seq: 2, stream, seq: 4, effects: b"abc" },
            Frame::Chunk { link_seq: 3, stream, effects: b"" },
            Frame::End { link_seq: 4, stream, seq: 9, count: 1, digest: u64::MAX },
            Frame::Ack { link_seq: 4 },
            Frame::Quota { bytes: 1, target: 2, cfg_index: 3 },
            Frame::QuotaAck { bytes: 1 },
            Frame::Touch { slot: Slot(0), keys: b"\x01\x00k" },
        ];
        for why in
            [Refusal::Stale, Refusal::Gap(8), Refusal::Behind, Refusal::Full, Refusal::Digest, Refusal::Malformed]
        {
            all.push(Frame::Refuse { link_seq: 1, why });
        }
        all
    }

    #[test]
    fn frames_survive_the_wire_and_wait_for_their_last_byte() {
        for f in samples() {
            let mut buf = Vec::new();
            put(&mut buf, &f);
            assert_eq!(take(&buf), Ok(Some((f.clone(), buf.len()))));
            for cut in 0..buf.len() {
                assert_eq!(take(&buf[..cut]), Ok(None), "{f:?} cut at {cut}");
            }
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = take(&bytes);
        }
    }
}
