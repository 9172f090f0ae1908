//! Where items lie: what is known of a key, the key and its value. Nothing here depends on the moods of the process's allocator:
//! what an item takes is a pure function of its lengths and of whether it has a deadline ([`footprint`]), and freed space is
//! given back by moving items, so that the resident size follows the accounted size whatever sizes come and go.
//!
//! ```text
//!               every item                          above 4 KiB                   above 128 KiB
//!   slabs: a class per size ──64 KiB──▶ runs    key and value: best fit   ◀──64 KiB── big: in pieces, put
//!          (last item fills a hole)             in 2 MiB arenas that             together to be read
//!                                               slide together
//! ```
//!
//! Small items lie at their place as a whole, so that a lookup waits for the memory of its bucket and of its item and of nothing
//! else. Of large ones the header alone is there, and where the rest is.

mod big;
mod item;
mod runs;
mod slabs;

use big::Bigs;
use runs::Runs;
use slabs::Slabs;

pub use item::{ACCESSED_END, HASH_BITS, HEADER, Head, Link};
use item::{Kind, LENS, Lens, WORD, put_u32, u32_at};

use super::pool::NIL;

/// A run's items carry the length of the key in front.
const RUN_HEADER: usize = WORD;
/// Bytes, header included, from which on an item is stored in pieces: 16 of them would still fill an arena to 94 %.
const BIG_MIN: usize = 128 << 10;
/// No deadline makes an item's footprint grow by more than this: its number, and a class of places or a run's rounding.
pub const TIMED_GROWTH_MAX: u64 = (slabs::SIZE_MAX / 16 + 2 * slabs::STEP) as u64;

fn kind_for(key_len: usize, value_len: usize, timed: bool) -> Kind {
    let len = key_len + value_len;
    if HEADER + usize::from(timed) * WORD + len <= slabs::SIZE_MAX {
        Kind::Inline
    } else if len + RUN_HEADER < BIG_MIN {
        Kind::Run
    } else {
        Kind::Big
    }
}

fn lens_for(key_len: usize, value_len: usize, timed: bool) -> Lens {
    match kind_for(key_len, value_len, timed) {
        Kind::Inline => Lens::inline(key_len, value_len, timed),
        kind => Lens::outer(kind, timed),
    }
}

/// The class of what fits a slab, as all items' places do.
fn class_of(lens: Lens) -> u8 {
    slabs::class_for(lens.size()).unwrap_or_default()
}

/// Bytes that an item of these lengths takes here, with a deadline or without.
pub fn footprint(key_len: usize, value_len: usize, timed: bool) -> u64 {
    let lens = lens_for(key_len, value_len, timed);
    let outer = match lens.kind() {
        Kind::Inline | Kind::Hole => 0,
        Kind::Run => runs::round(key_len + value_len + RUN_HEADER),
        Kind::Big => big::footprint(key_len, value_len),
    };
    (slabs::size_of_class(class_of(lens)) + outer) as u64
}

/// Items. One that changes its size may lie elsewhere afterwards: whoever knows its place is to be told.
#[derive(Debug, Default)]
pub struct Heap {
    slabs: Slabs,
    runs: Runs,
    bigs: Bigs,
    /// Where a small item is while it changes its shape.
    aside: Vec<u8>,
}

impl Heap {
    /// Takes an item in, with the fields of `hash`, `accessed` and `body`, and with room for a timer where `timed`.
    pub fn insert(&mut self, id: (u32, u32, u16), key: &[u8], value: &[u8], timed: bool) -> u32 {
        let lens = lens_for(key.len(), value.len(), timed);
        let outer = self.put_outer(lens.kind(), key, value);
        let at = self.slabs.alloc(class_of(lens));
        Head::new(id.0, id.1, id.2, lens).write(self.slabs.bytes_mut(at));
        self.write_rest(at, lens, (key, value), NIL, outer);
        at
    }

    /// Its header.
    #[inline(always)]
    pub fn head(&self, at: u32) -> Head {
        Head::read(self.slabs.bytes(at))
    }

    /// What lies there, if anything does: for those who remember a place from before and need not be right.
    #[inline(always)]
    pub fn glimpse(&self, at: u32) -> Option<Head> {
        self.slabs.bytes_at(at).filter(|bytes| bytes.len() >= HEADER).map(Head::read)
    }

    /// The item of a key and its hash in the chain that begins at `at`, or [`NIL`]; and whether there is room for a timer.
    #[inline(always)]
    pub fn find(&self, mut at: u32, hash: u32, key: &[u8]) -> (u32, bool) {
        while at != NIL {
            let bytes = self.slabs.bytes(at);
            let head = Head::read(bytes);
            if head.hash() == hash && self.key_of(bytes, head.lens) == key {
                return (at, head.lens.timed());
            }
            at = head.chain;
        }
        (NIL, false)
    }

    #[inline(always)]
    fn key_of<'a>(&'a self, bytes: &'a [u8], lens: Lens) -> &'a [u8] {
        match lens.kind() {
            Kind::Inline => &bytes[lens.payload()..][..lens.key_len()],
            _ => self.outer(bytes, lens).0,
        }
    }

    /// The header of what may be gone.
    pub fn get(&self, at: u32) -> Option<Head> {
        self.slabs.get(at)
    }

    /// Its neighbour is another one.
    #[inline(always)]
    pub fn set(&mut self, at: u32, link: Link, to: u32) {
        put_u32(self.slabs.bytes_mut(at), link as usize, to);
    }

    /// It was used now; its header before that.
    #[inline(always)]
    pub fn used(&mut self, at: u32, tick: u32) -> Head {
        let bytes = self.slabs.bytes_mut(at);
        let before = Head::read(bytes);
        let mut head = before;
        head.set_accessed(tick);
        head.write_meta(bytes);
        before
    }

    /// A policy marks it, or takes the mark away.
    pub fn set_marked(&mut self, at: u32, marked: bool) {
        let bytes = self.slabs.bytes_mut(at);
        let mut head = Head::read(bytes);
        head.set_marked(marked);
        head.write_meta(bytes);
    }

    /// Its deadline's timer, or [`NIL`].
    #[inline(always)]
    pub fn timer(&self, at: u32) -> u32 {
        let bytes = self.slabs.bytes(at);
        if Lens(u32_at(bytes, LENS)).timed() { u32_at(bytes, HEADER) } else { NIL }
    }

    /// Its timer has this number; there is room for it.
    pub fn set_timer(&mut self, at: u32, timer: u32) {
        let bytes = self.slabs.bytes_mut(at);
        debug_assert!(Lens(u32_at(bytes, LENS)).timed());
        put_u32(bytes, HEADER, timer);
    }

    /// The key.
    #[inline(always)]
    pub fn key(&self, at: u32) -> &[u8] {
        let bytes = self.slabs.bytes(at);
        self.key_of(bytes, Lens(u32_at(bytes, LENS)))
    }

    /// The value. A big one is put together in `scratch`.
    #[inline(always)]
    pub fn value<'a>(&'a self, at: u32, scratch: &'a mut Vec<u8>) -> &'a [u8] {
        let bytes = self.slabs.bytes(at);
        let lens = Lens(u32_at(bytes, LENS));
        match lens.kind() {
            Kind::Inline => &bytes[lens.payload() + lens.key_len()..][..lens.value_len()],
            Kind::Big => {
                scratch.clear();
                self.bigs.read(&self.runs, handle(bytes, lens), scratch);
                scratch
            }
            _ => self.outer(bytes, lens).1,
        }
    }

    /// The key of what is not inline, and its value if that is in one piece.
    fn outer(&self, bytes: &[u8], lens: Lens) -> (&[u8], &[u8]) {
        let handle = handle(bytes, lens);
        if lens.kind() == Kind::Big {
            return (self.bigs.key(handle), &[]);
        }
        let (len, rest) = self.runs.bytes(handle).split_at(RUN_HEADER);
        rest.split_at(u32_at(len, 0) as usize)
    }

    /// The lengths of key and value, and whether there is room for a timer.
    pub fn lens(&self, at: u32) -> (usize, usize, bool) {
        let bytes = self.slabs.bytes(at);
        let lens = Lens(u32_at(bytes, LENS));
        let (key_len, value_len) = match lens.kind() {
            Kind::Inline => (lens.key_len(), lens.value_len()),
            Kind::Big => self.bigs.lens(handle(bytes, lens)),
            _ => {
                let (key, value) = self.outer(bytes, lens);
                (key.len(), value.len())
            }
        };
        (key_len, value_len, lens.timed())
    }

    /// Asks for an item's header ahead of its use; there need not be one.
    #[inline(always)]
    pub fn prefetch_head(&self, at: u32) {
        self.slabs.prefetch_head(at);
    }

    /// Asks for the lines behind the header's.
    #[inline(always)]
    pub fn prefetch_rest(&self, at: u32, head: &Head, lines: usize) {
        self.slabs.prefetch_rest(at, head.lens.size(), lines);
    }

    /// Asks for an item's first lines ahead of its use; there need not be one.
    #[inline(always)]
    pub fn prefetch(&self, at: u32, lines: usize) {
        self.slabs.prefetch(at, lines);
    }

    /// Gives an item another value, and room for a timer or none; the timer it has stays where there is room. Where it lies now.
    pub fn replace(&mut self, at: u32, key: &[u8], value: &[u8], timed: bool) -> u32 {
        let (old, timer) = (self.head(at).lens, self.timer(at));
        let lens = lens_for(key.len(), value.len(), timed);
        if old == lens && lens.kind() == Kind::Inline {
            self.slabs.bytes_mut(at)[lens.payload() + key.len()..][..value.len()].copy_from_slice(value);
            return at;
        }
        let outer = match self.overwrite_outer(at, old, lens.kind(), key, value) {
            Some(handle) => handle,
            None => {
                self.drop_outer(at, old);
                self.put_outer(lens.kind(), key, value)
            }
        };
        let to = self.take_place(at, old, lens);
        self.write_rest(to, lens, (key, value), timer, outer);
        to
    }

    /// Makes or takes away the room for a timer. Where it lies now.
    pub fn set_timed(&mut self, at: u32, timed: bool) -> u32 {
        let old = self.head(at).lens;
        if old.timed() == timed {
            return at;
        }
        if old.kind() == Kind::Inline {
            let mut aside = std::mem::take(&mut self.aside);
            aside.clear();
            aside.extend_from_slice(&self.slabs.bytes(at)[old.payload()..old.size()]);
            let (key, value) = aside.split_at(old.key_len());
            let to = self.replace(at, key, value, timed);
            self.aside = aside;
            return to;
        }
        let (key_len, value_len, _) = self.lens(at);
        if kind_for(key_len, value_len, timed) != old.kind() {
            // A run that fits a slab without a timer.
            let bytes = self.runs.bytes(handle(self.slabs.bytes(at), old))[RUN_HEADER..].to_vec();
            let (key, value) = bytes.split_at(key_len);
            return self.replace(at, key, value, timed);
        }
        let (lens, outer) = (Lens::outer(old.kind(), timed), handle(self.slabs.bytes(at), old));
        let to = self.take_place(at, old, lens);
        self.write_rest(to, lens, (&[], &[]), NIL, outer);
        to
    }

    /// Frees an item's place; the class that may have too many holes now.
    pub fn remove(&mut self, at: u32) -> u8 {
        let lens = self.head(at).lens;
        self.drop_outer(at, lens);
        let class = class_of(lens);
        self.slabs.free(class, at);
        class
    }

    /// The class of an item's place.
    pub fn class(&self, at: u32) -> u8 {
        class_of(self.head(at).lens)
    }

    /// Moves one item of the class if it has too many holes: from where to where.
    pub fn tidy(&mut self, class: u8) -> Option<(u32, u32)> {
        self.slabs.tidy(class)
    }

    /// With so many bytes more, items may no longer be told apart. Before that memory is usually used up.
    pub fn is_full(&self, bytes: u64) -> bool {
        self.slabs.is_full(bytes)
    }

    /// An item drawn by `random`, if there is one where it points.
    pub fn pick(&self, random: u64) -> Option<u32> {
        let at = self.slabs.nth(super::evict::below(random, self.slabs.len() as usize) as u32)?;
        self.slabs.get(at).map(|_| at)
    }

    /// Items held.
    #[cfg(test)]
    pub fn live(&self) -> u32 {
        self.slabs.live()
    }

    /// Puts what does not fit a slab elsewhere; its handle.
    fn put_outer(&mut self, kind: Kind, key: &[u8], value: &[u8]) -> u32 {
        match kind {
            Kind::Inline | Kind::Hole => NIL,
            Kind::Run => {
                let run = self.runs.alloc(RUN_HEADER + key.len() + value.len());
                let to = self.runs.bytes_mut(run);
                put_u32(to, 0, key.len() as u32);
                to[RUN_HEADER..][..key.len()].copy_from_slice(key);
                to[RUN_HEADER + key.len()..].copy_from_slice(value);
                run
            }
            Kind::Big => self.bigs.insert(&mut self.runs, key, value),
        }
    }

    /// Puts another value where the old one was, if it takes the same room there: the handle.
    fn overwrite_outer(&mut self, at: u32, old: Lens, kind: Kind, key: &[u8], value: &[u8]) -> Option<u32> {
        if old.kind() != kind || kind == Kind::Inline {
            return None;
        }
        let handle = handle(self.slabs.bytes(at), old);
        if kind == Kind::Big {
            return self.bigs.overwrite(&mut self.runs, handle, value).then_some(handle);
        }
        let fits = self.runs.resize(handle, RUN_HEADER + key.len() + value.len());
        fits.then(|| {
            self.runs.bytes_mut(handle)[RUN_HEADER + key.len()..].copy_from_slice(value);
            handle
        })
    }

    fn drop_outer(&mut self, at: u32, lens: Lens) {
        if lens.kind() == Kind::Inline {
            return;
        }
        let handle = handle(self.slabs.bytes(at), lens);
        match lens.kind() {
            Kind::Big => self.bigs.remove(&mut self.runs, handle),
            _ => self.runs.free(handle),
        }
    }

    /// A place for what the item becomes, with the old header but for its lengths.
    fn take_place(&mut self, at: u32, old: Lens, new: Lens) -> u32 {
        let (from, class) = (class_of(old), class_of(new));
        let mut head = self.head(at);
        head.lens = new;
        let mut to = at;
        if from != class {
            to = self.slabs.alloc(class);
            self.slabs.free(from, at);
        }
        head.write(self.slabs.bytes_mut(to));
        to
    }

    /// Writes what comes behind the header.
    fn write_rest(&mut self, at: u32, lens: Lens, (key, value): (&[u8], &[u8]), timer: u32, outer: u32) {
        let bytes = self.slabs.bytes_mut(at);
        if lens.timed() {
            put_u32(bytes, HEADER, timer);
        }
        let to = &mut bytes[lens.payload()..];
        if lens.kind() == Kind::Inline {
            to[..key.len()].copy_from_slice(key);
            to[key.len()..][..value.len()].copy_from_slice(value);
        } else {
            put_u32(to, 0, outer);
        }
    }
}

/// Where key and value are, of what is not inline.
fn handle(bytes: &[u8], lens: Lens) -> u32 {
    u32_at(bytes, lens.payload())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    struct Known {
        at: u32,
        key: Vec<u8>,
        value: Vec<u8>,
        timer: Option<u32>,
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn items_keep_their_bytes(steps in prop::collection::vec((any::<u16>(), 0usize..40, 0u8..10, any::<u16>()), 1..600)) {
            let mut heap = Heap::default();
            let mut model: HashMap<u32, Known> = HashMap::new();
            for (n, (pick, key_len, kind, seed)) in steps.into_iter().enumerate() {
                let n = n as u32;
                let value_len = match kind {
                    0..=4 => seed as usize % 300,
                    5 => 4000 + seed as usize % 100,
                    6..=7 => seed as usize % 9000,
                    8 => seed as usize,
                    _ => 60_000 + 2 * seed as usize,
                };
                let value = vec![n as u8; value_len];
                let ids: Vec<u32> = model.keys().copied().collect();
                let known = ids.get(pick as usize % ids.len().max(1)).copied();
                match (known, seed % 4) {
                    (Some(id), 0) => {
                        let gone = model.remove(&id).unwrap();
                        let class = heap.remove(gone.at);
                        while let Some((from, to)) = heap.tidy(class) {
                            model.values_mut().find(|k| k.at == from).unwrap().at = to;
                        }
                    }
                    (Some(id), 1) => {
                        let k = model.get_mut(&id).unwrap();
                        // The timer stays if there is room.
                        k.timer = k.timer.filter(|_| n.is_multiple_of(2));
                        k.at = heap.replace(k.at, &k.key, &value, k.timer.is_some());
                        k.value = value;
                    }
                    (Some(id), 2) => {
                        let k = model.get_mut(&id).unwrap();
                        k.timer = if n.is_multiple_of(3) { None } else { Some(n) };
                        k.at = heap.set_timed(k.at, k.timer.is_some());
                        if let Some(timer) = k.timer {
                            heap.set_timer(k.at, timer);
                        }
                    }
                    _ => {
                        let key = vec![b'k'; key_len];
                        let at = heap.insert((n, n + 1, n as u16), &key, &value, n.is_multiple_of(2));
                        let timer = n.is_multiple_of(2).then_some(n + 7);
                        if let Some(timer) = timer {
                            heap.set_timer(at, timer);
                        }
                        model.insert(n, Known { at, key, value, timer });
                    }
                }
                heap.runs.check();
                heap.slabs.check();
                prop_assert_eq!(heap.live() as usize, model.len());
            }
            let mut scratch = Vec::new();
            for (&id, k) in &model {
                let head = heap.head(k.at);
                prop_assert_eq!((head.hash(), head.accessed(), head.body()), (id, id + 1, id as u16));
                prop_assert_eq!(heap.key(k.at), k.key.as_slice());
                prop_assert_eq!(heap.value(k.at, &mut scratch), k.value.as_slice());
                prop_assert_eq!(heap.lens(k.at), (k.key.len(), k.value.len(), k.timer.is_some()));
                prop_assert_eq!(heap.timer(k.at), k.timer.unwrap_or(NIL));
            }
        }
    }

    #[test]
    fn a_footprint_is_near_the_length_and_a_deadline_adds_little() {
        for len in 0..300_000usize {
            let takes = footprint(0, len, false);
            assert!(takes >= len as u64);
            assert!(takes as f64 <= len as f64 * 1.07 + 40.0, "{len} bytes take {takes}");
            let timed = footprint(0, len, true);
            assert!(timed >= takes && timed <= takes + TIMED_GROWTH_MAX, "{len}: {takes} {timed}");
        }
    }
}
