//! The one place where item, index, order, timer and books change together.

use super::evict::Position;
use super::expiry::DueHead;
use super::heap::{HASH_BITS, Head, Heap};
use super::memory::cost;
use super::policy::List;
use super::pool::NIL;
use super::table::Table;
use super::{Role, Store};
use crate::node::cache::effect::{Deadline, Ttl};
use crate::proto::slot::{SLOTS, Slot};

/// A slot without keys has no body.
pub(super) const NO_BODY: u16 = u16::MAX;
/// Items moved per freed one at most: as holes are bounded, one is enough but for rounding.
const TIDY_MAX: usize = 2;
/// Cleared slots' keys given back for every key that is added.
const WASTE_PER_KEY: usize = 2;
/// Bodies of cleared slots kept at once: with one for each slot they are below [`NO_BODY`].
const WASTE_MAX: usize = 3 * SLOTS - 1;
/// Keys given back at once where there are more.
const WASTE_SLICE: usize = 1024;

/// What a slot with keys consists of: one cache line.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Body {
    /// Whose it is, or was.
    pub slot: Slot,
    /// The slot was cleared: what is in here is nobody's and goes bit by bit.
    pub is_waste: bool,
    pub table: Table,
    pub order: List,
    pub bytes: u64,
    pub keys: u32,
    /// Keys with a deadline.
    pub timers: u32,
    pub due: DueHead,
    pub position: Position,
}

const _: () = assert!(size_of::<Body>() == 64);

impl Body {
    fn new(slot: Slot) -> Self {
        Self {
            slot,
            is_waste: false,
            table: Table::default(),
            order: List::default(),
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

    /// The slot that an item is a key of; none if that was cleared.
    pub(super) fn slot_of(&self, item: &Head) -> Option<Slot> {
        Some(&self.bodies[item.body() as usize]).filter(|b| !b.is_waste).map(|b| b.slot)
    }

    pub(super) fn hash(&self, key: &[u8]) -> u32 {
        xxhash_rust::xxh3::xxh3_64_with_seed(key, self.seed) as u32 & ((1 << HASH_BITS) - 1)
    }

    /// The key's item, or [`NIL`].
    pub(super) fn find(&self, slot: Slot, hash: u32, key: &[u8]) -> u32 {
        self.look_up(slot, hash, key).0
    }

    /// The key's item, or [`NIL`]; and whether it may have a deadline.
    #[inline]
    pub(super) fn look_up(&self, slot: Slot, hash: u32, key: &[u8]) -> (u32, bool) {
        let Some(body) = self.body(slot) else { return (NIL, false) };
        self.heap.find(body.table.first(hash), hash, key)
    }

    pub(super) fn key(&self, at: u32) -> &[u8] {
        self.heap.key(at)
    }

    #[inline]
    pub(super) fn value(&mut self, at: u32) -> &[u8] {
        self.heap.value(at, &mut self.scratch)
    }

    pub(super) fn deadline(&self, at: u32) -> Option<Deadline> {
        let timer = self.heap.timer(at);
        (timer != NIL).then(|| Deadline(self.wheel.deadline_ms(timer)))
    }

    fn body_of_item(&self, at: u32) -> usize {
        usize::from(self.heap.head(at).body())
    }

    /// Counts as an access; whether it matters to who keeps the same order.
    #[inline]
    pub(super) fn bump(&mut self, at: u32) -> bool {
        let before = self.heap.used(at, self.tick.0);
        let late = self.windows.late(before.body().into(), before.accessed(), self.tick);
        let order = &mut self.bodies[usize::from(before.body())].order;
        self.eviction.used(order, &mut self.heap, at, late)
    }

    /// Counts as an access that matters.
    pub(super) fn renew(&mut self, at: u32) {
        let before = self.heap.used(at, self.tick.0);
        self.eviction.used(&mut self.bodies[usize::from(before.body())].order, &mut self.heap, at, true);
    }

    /// The key holds this value. `at` is its item if it has one.
    pub(super) fn put(&mut self, slot: Slot, hash: u32, at: u32, key: &[u8], value: &[u8], ttl: Ttl) {
        let timed = match ttl {
            Ttl::Keep => at != NIL && self.heap.timer(at) != NIL,
            Ttl::None => false,
            Ttl::At(_) => true,
        };
        let at = if at == NIL {
            self.add(slot, hash, key, value, timed)
        } else {
            if !timed {
                self.stop_timer(at);
            }
            self.overwrite(at, key, value, timed)
        };
        if let Ttl::At(d) = ttl {
            self.start_timer(at, d);
        }
    }

    fn add(&mut self, slot: Slot, hash: u32, key: &[u8], value: &[u8], timed: bool) -> u32 {
        // What is added is paid for with waste, so that the resident size never grows on top of it.
        self.dispose(WASTE_PER_KEY);
        let ix = self.ensure_body(slot);
        let at = self.heap.insert((hash, self.tick.0, ix), key, value, timed);
        let cost = cost(key.len(), value.len(), timed);
        let body = &mut self.bodies[ix as usize];
        body.keys += 1;
        body.bytes += cost;
        body.table.link(&mut self.heap, at, body.keys);
        body.order.push(&mut self.heap, at);
        self.ledger.change(self.roles[slot.ix()], 1, cost as i64);
        at
    }

    /// Where the item is afterwards.
    fn overwrite(&mut self, at: u32, key: &[u8], value: &[u8], timed: bool) -> u32 {
        let growth = cost(key.len(), value.len(), timed) as i64 - self.cost(at) as i64;
        let to = self.reshape(at, |heap| heap.replace(at, key, value, timed));
        self.bump(to);
        self.count_growth(to, growth);
        to
    }

    /// Lets `change` change an item, which may lie elsewhere afterwards: where.
    fn reshape(&mut self, at: u32, change: impl FnOnce(&mut Heap) -> u32) -> u32 {
        let class = self.heap.class(at);
        let to = change(&mut self.heap);
        if to != at {
            self.relink(at, to);
            self.tidy_heap(class);
        }
        to
    }

    fn count_growth(&mut self, at: u32, growth: i64) {
        if growth != 0 {
            let body = self.body_of_item(at);
            let body = &mut self.bodies[body];
            body.bytes = body.bytes.wrapping_add_signed(growth);
            self.ledger.change(self.roles[body.slot.ix()], 0, growth);
        }
    }

    /// Accounted bytes.
    pub(super) fn cost(&self, at: u32) -> u64 {
        let (key_len, value_len, timed) = self.heap.lens(at);
        cost(key_len, value_len, timed)
    }

    pub(super) fn set_deadline(&mut self, at: u32, deadline: Option<Deadline>) {
        let (key_len, value_len, timed) = self.heap.lens(at);
        let then = deadline.is_some();
        if !then {
            self.stop_timer(at);
        }
        let mut to = at;
        if timed != then {
            to = self.reshape(at, |heap| heap.set_timed(at, then));
            let growth = cost(key_len, value_len, then) as i64 - cost(key_len, value_len, timed) as i64;
            self.count_growth(to, growth);
        }
        if let Some(d) = deadline {
            self.start_timer(to, d);
        }
    }

    /// The item, which has room for a timer, is due then.
    fn start_timer(&mut self, at: u32, deadline: Deadline) {
        let (body, timer) = (self.body_of_item(at), self.heap.timer(at));
        let body = &mut self.bodies[body];
        if timer == NIL {
            let timer = self.wheel.start(at, deadline.0, &mut body.due);
            body.timers += 1;
            self.heap.set_timer(at, timer);
        } else {
            self.wheel.restart(timer, deadline.0, &mut body.due);
        }
        let slot = body.slot;
        self.queue_due(slot);
    }

    /// The item's timer, if it has one, is gone; its room stays.
    fn stop_timer(&mut self, at: u32) {
        let timer = self.heap.timer(at);
        if timer == NIL {
            return;
        }
        self.heap.set_timer(at, NIL);
        let body = self.body_of_item(at);
        let body = &mut self.bodies[body];
        self.wheel.stop(timer, &mut body.due);
        body.timers -= 1;
        self.tidy_timers();
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
        self.stop_timer(at);
        // Charged as one with a timer until it goes.
        let cost = self.cost(at);
        let ix = self.heap.head(at).body();
        let body = &mut self.bodies[ix as usize];
        let (slot, is_waste) = (body.slot, body.is_waste);
        body.keys -= 1;
        body.bytes -= cost;
        let empty = body.keys == 0;
        if !is_waste {
            body.order.unlink(&mut self.heap, at);
            body.table.unlink(&mut self.heap, at, body.keys);
            self.ledger.change(self.roles[slot.ix()], -1, -(cost as i64));
        } else if empty {
            body.table = Table::default();
        }
        let class = self.heap.remove(at);
        if empty {
            if !is_waste {
                self.detach(slot);
            }
            self.free_bodies.push(ix);
        }
        self.tidy_heap(class);
    }

    /// Moves what keeps a class of places from shrinking.
    fn tidy_heap(&mut self, class: u8) {
        for _ in 0..TIDY_MAX {
            let Some((from, to)) = self.heap.tidy(class) else { return };
            self.relink(from, to);
        }
    }

    /// An item has moved: whoever knows its place is told.
    fn relink(&mut self, from: u32, to: u32) {
        let body = self.body_of_item(to);
        let body = &mut self.bodies[body];
        body.table.relink(&mut self.heap, from, to);
        if !body.is_waste {
            body.order.relink(&mut self.heap, from, to);
        }
        let timer = self.heap.timer(to);
        if timer != NIL {
            self.wheel.set_entry(timer, to);
        }
    }

    fn tidy_timers(&mut self) {
        for _ in 0..TIDY_MAX {
            let Some(moved) = self.wheel.tidy() else { return };
            self.heap.set_timer(moved.entry, moved.to);
            if moved.due_head {
                let body = self.body_of_item(moved.entry);
                self.bodies[body].due = moved.to;
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

    /// Gives back the memory of up to `max` keys of cleared slots; whether there are more. Nobody asks for these keys: their order
    /// is not kept up, and they are taken bucket by bucket, so that the memory of several is waited for together.
    pub fn dispose(&mut self, max: usize) -> bool {
        for _ in 0..max {
            let Some(&ix) = self.waste.front() else { return false };
            let body = &mut self.bodies[ix as usize];
            let at = body.table.drain(&self.heap, &mut self.drained);
            if body.keys == 1 {
                self.waste.pop_front();
                self.drained = 0;
            }
            self.remove(at);
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
