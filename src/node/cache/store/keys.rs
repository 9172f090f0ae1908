//! The one place where entry, heap, index, order, timer and books change together.

use super::entry::Entry;
use super::evict::Position;
use super::expiry::DueHead;
use super::lru::Lru;
use super::memory::cost_of;
use super::pool::NIL;
use super::table::Table;
use super::{Role, Store};
use crate::node::cache::effect::{Deadline, Ttl};
use crate::proto::slot::{SLOTS, Slot};

/// A slot without keys has no body.
pub(super) const NO_BODY: u16 = u16::MAX;
/// Records moved per freed one at most: as holes are bounded, one is enough but for rounding.
const TIDY_MAX: usize = 2;
/// Cleared slots' keys given back for every key that is added.
const WASTE_PER_KEY: usize = 2;
/// Bodies of cleared slots kept at once: with one for each slot they are below [`NO_BODY`].
const WASTE_MAX: usize = 3 * SLOTS - 1;
/// Keys given back at once where there are more.
const WASTE_SLICE: usize = 1024;

/// What a slot with keys consists of.
#[derive(Debug)]
pub(super) struct Body {
    /// Whose it is, or was.
    pub slot: Slot,
    /// The slot was cleared: what is in here is nobody's and goes bit by bit.
    pub is_waste: bool,
    pub table: Table,
    pub lru: Lru,
    pub bytes: u64,
    pub keys: u32,
    /// Keys with a deadline.
    pub timers: u32,
    pub due: DueHead,
    pub position: Position,
}

impl Body {
    fn new(slot: Slot) -> Self {
        Self {
            slot,
            is_waste: false,
            table: Table::default(),
            lru: Lru::default(),
            bytes: 0,
            keys: 0,
            timers: 0,
            due: NIL,
            position: Position::default(),
        }
    }
}

impl Store {
    pub(super) fn body(&self, slot: Slot) -> Option<&Body> {
        self.bodies.get(self.body_of[slot.ix()] as usize)
    }

    /// The slot that an entry is a key of; none if that was cleared.
    pub(super) fn slot_of(&self, e: &Entry) -> Option<Slot> {
        Some(&self.bodies[e.body as usize]).filter(|b| !b.is_waste).map(|b| b.slot)
    }

    pub(super) fn hash(&self, key: &[u8]) -> u32 {
        xxhash_rust::xxh3::xxh3_64_with_seed(key, self.seed) as u32
    }

    /// The key's entry, or [`NIL`].
    pub(super) fn find(&self, slot: Slot, hash: u32, key: &[u8]) -> u32 {
        let Some(body) = self.body(slot) else { return NIL };
        body.table.find(&self.entries, hash, |e| self.heap.key(e.place()) == key)
    }

    pub(super) fn key(&self, at: u32) -> &[u8] {
        self.heap.key(self.entries[at].place())
    }

    pub(super) fn value(&mut self, at: u32) -> &[u8] {
        self.heap.value(self.entries[at].place(), &mut self.scratch)
    }

    pub(super) fn deadline(&self, at: u32) -> Option<Deadline> {
        let timer = self.entries[at].timer;
        (timer != NIL).then(|| Deadline(self.wheel.deadline_ms(timer)))
    }

    /// Counts as an access.
    pub(super) fn bump(&mut self, at: u32) {
        let e = &mut self.entries[at];
        e.accessed = self.tick.0;
        let body = &mut self.bodies[e.body as usize];
        body.lru.bump(&mut self.entries, at);
    }

    /// The key holds this value. `at` is its entry if it has one.
    pub(super) fn put(&mut self, slot: Slot, hash: u32, at: u32, key: &[u8], value: &[u8], ttl: Ttl) {
        let at = if at == NIL { self.add(slot, hash, key, value) } else { self.overwrite(at, key, value) };
        match ttl {
            Ttl::Keep => {}
            Ttl::None => self.set_deadline(at, None),
            Ttl::At(d) => self.set_deadline(at, Some(d)),
        }
    }

    fn add(&mut self, slot: Slot, hash: u32, key: &[u8], value: &[u8]) -> u32 {
        // What is added is paid for with waste, so that the resident size never grows on top of it.
        self.dispose(WASTE_PER_KEY);
        let ix = self.ensure_body(slot);
        let at = self.entries.insert(Entry::new(hash, ix, self.tick.0));
        let place = self.heap.insert(at, key, value);
        self.entries[at].set_place(place);
        let cost = cost_of(key.len(), value.len());
        let body = &mut self.bodies[ix as usize];
        body.keys += 1;
        body.bytes += cost;
        body.table.link(&mut self.entries, at, body.keys);
        body.lru.push(&mut self.entries, at);
        self.ledger.change(self.roles[slot.ix()], 1, cost as i64);
        at
    }

    /// Where the entry is afterwards.
    fn overwrite(&mut self, at: u32, key: &[u8], value: &[u8]) -> u32 {
        let e = self.entries[at];
        let old = e.place();
        let growth = cost_of(key.len(), value.len()) as i64 - self.cost(at) as i64;
        let place = self.heap.replace(old, at, key, value);
        self.entries[at].set_place(place);
        self.bump(at);
        if growth != 0 {
            let body = &mut self.bodies[e.body as usize];
            body.bytes = body.bytes.wrapping_add_signed(growth);
            self.ledger.change(self.roles[body.slot.ix()], 0, growth);
        }
        if old.class != place.class {
            self.tidy_heap(old.class);
        }
        at
    }

    /// Accounted bytes.
    pub(super) fn cost(&self, at: u32) -> u64 {
        let (key_len, value_len) = self.heap.lens(self.entries[at].place());
        cost_of(key_len, value_len)
    }

    pub(super) fn set_deadline(&mut self, at: u32, deadline: Option<Deadline>) {
        let Entry { body, timer, .. } = self.entries[at];
        let body = &mut self.bodies[body as usize];
        let slot = body.slot;
        body.timers = body.timers + u32::from(deadline.is_some()) - u32::from(timer != NIL);
        let due = &mut body.due;
        match (deadline, timer) {
            (None, NIL) => {}
            (None, _) => {
                self.entries[at].timer = NIL;
                self.wheel.stop(timer, due);
                self.tidy_timers();
            }
            (Some(d), NIL) => self.entries[at].timer = self.wheel.start(at, d.0, due),
            (Some(d), _) => self.wheel.restart(timer, d.0, due),
        }
        if deadline.is_some() {
            self.queue_due(slot);
        }
    }

    /// The slot's due keys are to be told, if there are any and it is primary.
    pub(super) fn queue_due(&mut self, slot: Slot) {
        let due = self.body(slot).is_some_and(|b| b.due != NIL);
        if due && matches!(self.roles[slot.ix()], Role::Primary { .. }) {
            self.due_slots.push(slot);
        }
    }

    /// The key is gone.
    pub(super) fn remove(&mut self, at: u32) {
        let e = self.entries[at];
        let cost = self.cost(at);
        let body = &mut self.bodies[e.body as usize];
        let (slot, is_waste) = (body.slot, body.is_waste);
        body.keys -= 1;
        body.bytes -= cost;
        body.lru.unlink(&mut self.entries, at);
        body.table.unlink(&mut self.entries, at, body.keys);
        if e.timer != NIL {
            self.wheel.stop(e.timer, &mut body.due);
            body.timers -= 1;
        }
        let empty = body.keys == 0;
        self.heap.remove(e.place());
        self.entries.remove(at);
        if !is_waste {
            self.ledger.change(self.roles[slot.ix()], -1, -(cost as i64));
        }
        if empty {
            if !is_waste {
                self.detach(slot);
            }
            self.free_bodies.push(e.body);
        }
        self.tidy_heap(e.place().class);
        self.tidy_entries();
        if e.timer != NIL {
            self.tidy_timers();
        }
    }

    fn tidy_heap(&mut self, class: u8) {
        for _ in 0..TIDY_MAX {
            let Some((owner, place)) = self.heap.tidy(class) else { return };
            self.entries[owner].set_place(place);
        }
    }

    fn tidy_entries(&mut self) {
        for _ in 0..TIDY_MAX {
            let Some((from, to)) = self.entries.tidy() else { return };
            let e = self.entries[to];
            let body = &mut self.bodies[e.body as usize];
            body.table.relink(&mut self.entries, from, to);
            body.lru.relink(&mut self.entries, to);
            self.heap.set_owner(e.place(), to);
            if e.timer != NIL {
                self.wheel.set_entry(e.timer, to);
            }
        }
    }

    fn tidy_timers(&mut self) {
        for _ in 0..TIDY_MAX {
            let Some(moved) = self.wheel.tidy() else { return };
            let e = &mut self.entries[moved.entry];
            e.timer = moved.to;
            if moved.due_head {
                self.bodies[e.body as usize].due = moved.to;
            }
        }
    }

    fn ensure_body(&mut self, slot: Slot) -> u16 {
        if self.body_of[slot.ix()] != NO_BODY {
            return self.body_of[slot.ix()];
        }
        let body = Body::new(slot);
        let ix = match self.free_bodies.pop() {
            Some(ix) => {
                self.bodies[ix as usize] = body;
                ix
            }
            None => {
                self.bodies.push(body);
                (self.bodies.len() - 1) as u16
            }
        };
        self.body_of[slot.ix()] = ix;
        self.enlist(slot);
        ix
    }

    /// The slot has no keys any more; which body it had.
    fn detach(&mut self, slot: Slot) -> u16 {
        self.delist(slot);
        std::mem::replace(&mut self.body_of[slot.ix()], NO_BODY)
    }

    /// Drops all keys of a slot, recording nothing. They are gone at once, and their memory is free for others; it is given back
    /// bit by bit ([`Store::dispose`]).
    pub fn clear_slot(&mut self, slot: Slot) {
        let Some(&Body { keys, bytes, .. }) = self.body(slot) else { return };
        let ix = self.detach(slot);
        self.bodies[ix as usize].is_waste = true;
        self.ledger.change(self.roles[slot.ix()], -i64::from(keys), -(bytes as i64));
        self.waste.push_back(ix);
        // Numbers of bodies are few.
        while self.waste.len() > WASTE_MAX {
            self.dispose(WASTE_SLICE);
        }
    }

    /// Gives back the memory of up to `max` keys of cleared slots; whether there are more.
    pub fn dispose(&mut self, max: usize) -> bool {
        for _ in 0..max {
            let Some(&ix) = self.waste.front() else { return false };
            let body = &self.bodies[ix as usize];
            if body.keys == 1 {
                self.waste.pop_front();
            }
            self.remove(body.lru.oldest());
        }
        !self.waste.is_empty()
    }

    /// Puts a slot with keys among the candidates of eviction, if it is primary.
    pub(super) fn enlist(&mut self, slot: Slot) {
        let (ix, Role::Primary { backed_at }) = (self.body_of[slot.ix()], self.roles[slot.ix()]) else { return };
        if let Some(body) = self.bodies.get_mut(ix as usize) {
            body.position = Position {
                all: self.candidates.all.insert(slot.0),
                group: self.candidates.groups.entry(backed_at).or_default().insert(slot.0),
            };
        }
    }

    /// Undoes [`Store::enlist`].
    pub(super) fn delist(&mut self, slot: Slot) {
        let Role::Primary { backed_at } = self.roles[slot.ix()] else { return };
        let Some(Position { all, group }) = self.body(slot).map(|b| b.position) else { return };
        if let Some(moved) = self.candidates.all.remove(all) {
            self.bodies[self.body_of[moved as usize] as usize].position.all = all;
        }
        if let Some(drawer) = self.candidates.groups.get_mut(&backed_at) {
            if let Some(moved) = drawer.remove(group) {
                self.bodies[self.body_of[moved as usize] as usize].position.group = group;
            }
            if drawer.slots().is_empty() {
                self.candidates.groups.remove(&backed_at);
            }
        }
    }
}
