//! One shard: its keys and the replication of its slots, behind one short lock. No I/O: bytes go to peers' queues.

use std::ops::{Index, IndexMut};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use super::effect::{Effect, Effects, Ttl};
use super::peer::PeerRef;
use super::slot::{Acked, Change, Held, Rank, Sent, Serving, SlotRepl, Stage, Target};
use super::store::{Digest, MORE_STEPS, NeedRoom, Now, Role, STEPS, Scope, Store, Txn, WARM_MAX, Wanted, prefetch};
use super::waiter::Waiter;
use crate::node::clock::Mono;
use crate::node::mutant::{self, Mutant};
use crate::proto::frame::{Refusal, Stream};
use crate::proto::id::Ref;
use crate::proto::slot::Slot;
use crate::proto::view::{Config, SlotState};

/// Copied bytes per chunk: small enough that the shard's lock is held briefly and live items are not delayed behind it.
pub const CHUNK_BYTES: usize = 16 << 10;
/// Keys evicted at once to make room for one command; a command that needs more than this is refused with OOM.
const EVICT_MAX: usize = 1 << 20;

/// The clocks, read once per loop turn.
#[derive(Debug, Clone, Copy)]
pub struct Turn {
    /// For leases.
    pub mono: Mono,
    /// For TTLs.
    pub now: Now,
}

/// What became of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ran {
    /// Its reply may leave, if it is still before `until`.
    Done {
        /// Checked after executing.
        until: Mono,
    },
    /// Its reply may leave once this is confirmed (writes: without a look at `until`).
    Held {
        /// Under which primacy.
        pterm: u64,
        /// What it rests on.
        seq: u64,
        /// It changed something.
        wrote: bool,
        /// Checked after executing.
        until: Mono,
    },
    /// Not for a moment.
    Park,
    /// This node is not primary of the slot.
    Elsewhere,
    /// No room, and nothing left to evict.
    Oom,
}

/// One slot's replication, with what it is among real peers.
pub type Repl = SlotRepl<PeerRef, Arc<Waiter>>;

/// Every n-th slot's replication.
struct Slots {
    own: Vec<Repl>,
    every: usize,
}

impl Slots {
    fn place(&self, slot: Slot) -> usize {
        // A division is dearer than a branch that always goes the same way.
        if self.every == 1 { slot.ix() } else { slot.ix() / self.every }
    }
}

impl Index<Slot> for Slots {
    type Output = Repl;

    fn index(&self, slot: Slot) -> &Repl {
        &self.own[self.place(slot)]
    }
}

impl IndexMut<Slot> for Slots {
    fn index_mut(&mut self, slot: Slot) -> &mut Repl {
        let at = self.place(slot);
        &mut self.own[at]
    }
}

/// One shard of a node, on cache lines of its own: its neighbours are other threads'.
#[repr(align(64))]
pub struct Shard {
    /// Keys and values.
    pub store: Store,
    /// Replication of its slots.
    slots: Slots,
    /// What this shard was last configured to.
    pub config: Arc<Config>,
    fx: Effects,
    /// Planned stop or fenced: nothing is served any more.
    pub halted: bool,
}

impl Shard {
    /// Empty, of one of `every` shards that `slots` are dealt out to in turn; standalone nodes serve every slot alone.
    pub fn new(store: Store, slots: usize, every: usize, standalone: bool) -> Self {
        let slot = || if standalone { SlotRepl::standalone() } else { SlotRepl::default() };
        let mut shard = Self {
            store,
            slots: Slots { own: (0..slots.div_ceil(every)).map(|_| slot()).collect(), every },
            config: Arc::default(),
            fx: Effects::default(),
            halted: false,
        };
        if standalone {
            for s in 0..slots {
                shard.store.set_role(Slot(s as u16), Role::Primary { backed_at: 0 });
            }
        }
        shard
    }

    /// For mutants.
    #[cfg(test)]
    pub fn slot_mut(&mut self, slot: Slot) -> &mut Repl {
        &mut self.slots[slot]
    }

    /// All its slots' replication.
    pub fn repls(&self) -> impl Iterator<Item = &Repl> {
        self.slots.own.iter()
    }

    /// One slot's replication.
    pub fn slot(&self, slot: Slot) -> &Repl {
        &self.slots[slot]
    }

    /// Runs a command in one slot, ships what it did, and tells when its reply may leave. `command` may be called several times
    /// (after evictions), and must have changed and answered nothing when it returns [`NeedRoom`].
    pub fn run(
        &mut self,
        slot: Slot,
        turn: Turn,
        waiter: &Arc<Waiter>,
        mut command: impl FnMut(Txn<'_>) -> Result<(), NeedRoom>,
    ) -> Ran {
        let until = match self.slots[slot].serving_a_command(turn.mono) {
            _ if self.halted => return Ran::Park,
            Serving::Until(until) => until,
            Serving::Wait => return Ran::Park,
            Serving::No => return Ran::Elsewhere,
        };
        let mut evicted = 0;
        loop {
            self.fx.clear();
            let Err(need) = command(self.store.txn(slot, turn.now, &mut self.fx)) else { break };
            // A lazy expiry on the way is a change of its own.
            self.ship(slot);
            match self.evict(slot, need, turn) {
                Evicted::One if evicted < EVICT_MAX => evicted += 1,
                Evicted::NotYet => return Ran::Park,
                Evicted::One | Evicted::Nothing => return Ran::Oom,
            }
        }
        let wrote = !self.fx.is_empty();
        if wrote {
            self.ship(slot);
        }
        let repl = &mut self.slots[slot];
        if !repl.must_hold() || !wrote && mutant::is(Mutant::NoReadGating) {
            return Ran::Done { until };
        }
        let (pterm, seq) = (repl.pterm(), repl.seq());
        repl.wait_for(seq, waiter.clone());
        Ran::Held { pterm, seq, wrote, until }
    }

    /// Looks ahead for keys of commands that are about to run.
    pub fn warm(&self, wanted: &mut [Wanted<'_>]) {
        self.store.warm(wanted, |w| prefetch::one(&self.slots[w.slot]), |w| self.to_targets(w));
    }

    fn to_targets(&self, w: &Wanted<'_>) {
        if !self.slots[w.slot].knows_lessor() {
            self.to_apart(w.slot);
        }
    }

    /// Asks for all that is known of a slot's replication; its own line is here.
    fn to_apart(&self, slot: Slot) {
        let repl = &self.slots[slot];
        repl.targets().iter().for_each(prefetch::one);
        if let Some(apart) = repl.apart() {
            prefetch::one(apart);
        }
    }

    /// What became of a held reply.
    pub fn held(&self, slot: Slot, pterm: u64, seq: u64) -> Held {
        self.slots[slot].held(pterm, seq)
    }

    /// Gives the recorded effects their seq and queues them towards every target.
    fn ship(&mut self, slot: Slot) {
        if self.fx.is_empty() {
            return;
        }
        Self::ship_bytes(&mut self.slots[slot], slot, self.fx.bytes());
        self.fx.clear();
    }

    fn ship_bytes(repl: &mut Repl, slot: Slot, bytes: &[u8]) {
        let seq = repl.commit();
        for t in repl.targets().iter().filter(|t| t.gets_items()) {
            let stream = repl.stream(slot, t.since);
            lock(&t.peer.queue).item(stream, seq, bytes);
            t.peer.wake.notify_one();
        }
    }

    fn evict(&mut self, slot: Slot, need: NeedRoom, turn: Turn) -> Evicted {
        // While shares move (slots arrived, others still make room) a shortage passes by itself: nobody's keys go for it.
        let view = self.config.cfg_index;
        let moving = |t: &Target<PeerRef>| !lock(&t.peer.credit).is_final(view);
        if need.scope != Scope::Own && self.slots[slot].targets().first().is_some_and(moving) {
            return Evicted::NotYet;
        }
        // What a peer grants by a view, slots that have not come to that view here may be above.
        let budget = self.store.budget();
        if budget.is_taking_in() {
            return Evicted::NotYet;
        }
        // The same of this node's own share, which its peers may still have to make room for.
        if !matches!(need.scope, Scope::Group(_)) && budget.primary_quota() < budget.primary_quota_target() {
            return Evicted::NotYet;
        }
        self.evict_one(need, turn)
    }

    fn evict_one(&mut self, need: NeedRoom, turn: Turn) -> Evicted {
        let Some((victim, key)) = self.store.victim(need) else { return Evicted::Nothing };
        if !matches!(self.slots[victim].serving(turn.mono), Serving::Until(_)) {
            return Evicted::NotYet;
        }
        self.fx.clear();
        self.store.txn(victim, turn.now, &mut self.fx).evict(&key);
        self.ship(victim);
        Evicted::One
    }

    /// Evicts keys of this scope, at most `max`, while `over` tells of bytes above a share.
    pub fn shrink(&mut self, scope: Scope, over: impl Fn() -> u64, turn: Turn, max: usize) {
        for _ in 0..max {
            let bytes = over();
            if bytes == 0 || !matches!(self.evict_one(NeedRoom { bytes, scope }, turn), Evicted::One) {
                return;
            }
        }
    }

    /// Deletes keys past their deadline in slots this node serves, at most `max`; whether there may be more.
    pub fn expire(&mut self, turn: Turn, max: usize) -> bool {
        let mut n = 0;
        for (slot, key) in self.store.expired(turn.now, max) {
            // Nothing is written while a slot is given away, nor under a promise: the deadline is met later, wherever it serves.
            if !matches!(self.slots[slot].serving(turn.mono), Serving::Until(_)) {
                continue;
            }
            n += 1;
            self.fx.clear();
            // Looking is enough: a key past its deadline is deleted by whoever sees it.
            self.store.txn(slot, turn.now, &mut self.fx).peek(&key);
            self.ship(slot);
        }
        n == max || self.store.is_behind(turn.now)
    }

    /// Empties a slot this node serves, as one item; what its reply rests on.
    pub fn flush(&mut self, slot: Slot, turn: Turn, waiter: &Arc<Waiter>) -> Ran {
        let until = match self.slots[slot].serving(turn.mono) {
            _ if self.halted => return Ran::Park,
            Serving::Until(until) => until,
            Serving::Wait => return Ran::Park,
            Serving::No => return Ran::Elsewhere,
        };
        let repl = &mut self.slots[slot];
        if self.store.slot_stats(slot).keys > 0 {
            self.store.clear_slot(slot);
            self.fx.clear();
            self.fx.push(Effect::Flush);
            Self::ship_bytes(repl, slot, self.fx.bytes());
        }
        if !repl.must_hold() {
            return Ran::Done { until };
        }
        let (pterm, seq) = (repl.pterm(), repl.seq());
        repl.wait_for(seq, waiter.clone());
        Ran::Held { pterm, seq, wrote: true, until }
    }

    /// Takes in a slot's new state. Returns what changed; wipes, roles and the barrier are done here.
    pub fn reconfigure(
        &mut self,
        slot: Slot,
        new: &SlotState,
        me: &Ref,
        now: Mono,
        promised: impl Fn(&Ref) -> Mono,
        peer: impl FnMut(&Ref) -> PeerRef,
    ) -> Change {
        let repl = &mut self.slots[slot];
        let change = repl.reconfigure(new, me, now, promised, peer);
        if change.wipe {
            self.store.clear_slot(slot);
        }
        let role = match repl.rank() {
            Rank::None => Role::None,
            Rank::Primary => Role::Primary { backed_at: repl.targets().first().map_or(0, |t| t.peer.group) },
            Rank::InSync | Rank::Learner | Rank::Holder => Role::Backup,
        };
        self.store.set_role(slot, role);
        if change.barrier {
            // Nothing is confirmed at a new pterm until its members answered at it.
            Self::ship_bytes(repl, slot, &[]);
        }
        if change.wake {
            repl.all_waiters().for_each(|w| w.wake());
        }
        change
    }

    /// A frame was acked.
    pub fn on_ack(&mut self, peer: &PeerRef, stream: &Stream, sent: Sent, turn: Turn) -> Acked {
        let repl = &mut self.slots[stream.slot];
        let acked = repl.on_ack(&peer.node, stream, sent);
        match acked {
            Acked::Confirmed | Acked::Ready => repl.confirmed_waiters().for_each(|w| w.wake()),
            Acked::Copied => return if self.count(peer, stream, turn) { Acked::Nothing } else { Acked::Copied },
            Acked::Nothing => {}
        }
        acked
    }

    /// The copy is complete: counts the learner and sends SYNC_END; false = no lease yet, to be tried again.
    pub fn count(&mut self, peer: &PeerRef, stream: &Stream, turn: Turn) -> bool {
        let slot = stream.slot;
        let repl = &mut self.slots[slot];
        let copying = |t: &Target<PeerRef>| t.node == peer.node && t.since == stream.since && t.stage == Stage::Copying;
        if repl.pterm() != stream.pterm || !repl.targets().iter().any(copying) {
            return true;
        }
        let Some(seq) = repl.count_learner(&peer.node, stream, turn.mono) else { return false };
        let keys = self.store.slot_stats(slot).keys;
        let copied = repl.copied_mut(&peer.node, stream).and_then(|c| c.digest_of(seq, keys));
        let digest = copied.unwrap_or_else(|| self.store.digest(slot));
        lock(&peer.queue).end(*stream, seq, keys, digest);
        peer.wake.notify_one();
        true
    }

    /// What RELINQUISH says of a slot that is being given away, if it may be said: (cver, final seq).
    pub fn relinquish(&mut self, slot: Slot, turn: Turn, known: u64) -> Option<(u64, u64)> {
        self.slots[slot].relinquish(turn.mono, known)
    }

    /// A frame was refused; whether the target is broken.
    pub fn on_refuse(&mut self, peer: &PeerRef, stream: &Stream, why: Refusal) -> bool {
        self.slots[stream.slot].on_refuse(&peer.node, stream, why)
    }

    /// Opens the copy of a slot to a learner that waits for it.
    pub fn open_copy(&mut self, slot: Slot, peer: &PeerRef) -> Option<Stream> {
        let repl = &mut self.slots[slot];
        let since = repl.targets().iter().find(|t| t.node == peer.node && t.stage == Stage::Wanted)?.since;
        let (stream, next) = repl.open_copy(slot, &peer.node, since)?;
        lock(&peer.queue).open(stream, next);
        Some(stream)
    }

    /// Sends the next chunk of a copy; the next cursor, 0 = that was the last; `None` = the copy is over for another reason.
    pub fn copy_chunk(&mut self, peer: &PeerRef, stream: &Stream, cursor: u64) -> Option<u64> {
        let repl = &self.slots[stream.slot];
        let alive = repl.pterm() == stream.pterm
            && repl.rank() == Rank::Primary
            && repl
                .targets()
                .iter()
                .any(|t| t.node == peer.node && t.since == stream.since && t.stage == Stage::Copying && !t.broken);
        if !alive {
            return None;
        }
        self.fx.clear();
        let (fx, mut keys, mut digest) = (&mut self.fx, 0, Digest::default());
        let next = self.store.scan(stream.slot, cursor, CHUNK_BYTES, |k, v, deadline| {
            keys += 1;
            digest.add(k, v, deadline.is_some());
            fx.push(Effect::Set(k, v, deadline.map_or(Ttl::None, Ttl::At)));
        });
        let repl = &mut self.slots[stream.slot];
        let seq = repl.seq();
        if let Some(copied) = repl.copied_mut(&peer.node, stream) {
            copied.add(seq, keys, digest.sum());
        }
        peer.copied.keys.fetch_add(keys, Ordering::Relaxed);
        peer.copied.bytes.fetch_add(self.fx.bytes().len() as u64, Ordering::Relaxed);
        lock(&peer.queue).chunk(*stream, self.fx.bytes(), next == 0);
        self.fx.clear();
        peer.wake.notify_one();
        Some(next)
    }

    /// As receiver: a copy opens.
    pub fn on_open(&mut self, stream: &Stream, next_seq: u64) -> super::slot::Accept {
        let accept = self.slots[stream.slot].on_open(stream, next_seq);
        if accept == super::slot::Accept::Apply {
            self.store.clear_slot(stream.slot);
        }
        accept
    }

    /// As receiver: a chunk of a copy.
    pub fn on_chunk(&mut self, stream: &Stream, effects: &[u8], now: Now, sender_now: u64) -> Result<(), Refusal> {
        match self.slots[stream.slot].on_chunk(stream) {
            super::slot::Accept::Apply => self.apply(stream.slot, effects, now, sender_now),
            super::slot::Accept::Dup => Ok(()),
            super::slot::Accept::Refuse(why) => Err(why),
        }
    }

    /// As receiver: an item, applied whole or not at all.
    pub fn on_item(
        &mut self,
        stream: &Stream,
        seq: u64,
        effects: &[u8],
        now: Now,
        sender_now: u64,
    ) -> Result<(), Refusal> {
        match self.slots[stream.slot].on_item(stream, seq) {
            super::slot::Accept::Apply => {
                let effects = if mutant::is(Mutant::HalfAnItem) { first_effect(effects) } else { effects };
                self.apply(stream.slot, effects, now, sender_now)?;
                self.slots[stream.slot].applied();
                Ok(())
            }
            super::slot::Accept::Dup => Ok(()),
            super::slot::Accept::Refuse(why) => Err(why),
        }
    }

    fn apply(&mut self, slot: Slot, effects: &[u8], now: Now, sender_now: u64) -> Result<(), Refusal> {
        use super::store::ApplyError;
        self.store.apply(slot, effects, now, sender_now).map_err(|e| match e {
            ApplyError::Malformed(_) => Refusal::Malformed,
            ApplyError::Full => Refusal::Full,
        })
    }

    /// As receiver: SYNC_END.
    pub fn on_end(&self, stream: &Stream, seq: u64, count: u64, digest: u64) -> Result<(), Refusal> {
        let repl = &self.slots[stream.slot];
        match repl.on_chunk(stream) {
            super::slot::Accept::Refuse(why) => return Err(why),
            _ if repl.seq() != seq => return Err(Refusal::Gap(repl.seq() + 1)),
            _ => {}
        }
        let same = self.store.slot_stats(stream.slot).keys == count && self.store.digest(stream.slot) == digest;
        if same { Ok(()) } else { Err(Refusal::Digest) }
    }

    /// Nothing is served from now on (planned stop, fenced).
    pub fn halt(&mut self) {
        self.halted = true;
        for s in &mut self.slots.own {
            s.all_waiters().for_each(|w| w.wake());
        }
    }
}

/// Half of what an item of several effects is.
fn first_effect(effects: &[u8]) -> &[u8] {
    let mut reader = super::effect::Reader(effects);
    reader.next();
    &effects[..effects.len() - reader.0.len()]
}

enum Evicted {
    One,
    Nothing,
    NotYet,
}

/// Locks, ignoring poison: a panic aborts the process before anyone could see half-changed data.
pub fn lock<T>(m: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    m.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Looks ahead for what acks of these slots' items will change.
pub fn warm_acked(shards: &[Mutex<Shard>], slots: impl Iterator<Item = Slot> + Clone) {
    let shard_of = |slot: Slot| lock(&shards[slot.ix() % shards.len()]);
    slots.clone().for_each(|slot| prefetch::one(&shard_of(slot).slots[slot]));
    slots.for_each(|slot| shard_of(slot).to_apart(slot));
}

/// The step after which most keys are found, and a slot's own line is there.
const KNOWN: usize = STEPS.len() - 2;

/// Looks ahead for keys of several shards, [`WARM_MAX`] at most: a step for all of them, then the next.
pub fn warm(shards: &[Mutex<Shard>], wanted: &mut [Wanted<'_>]) {
    if let [shard] = shards {
        return lock(shard).warm(wanted);
    }
    // Above the key's place its shard, so that a step locks each shard once.
    let mut order = [0; WARM_MAX];
    let order = &mut order[..wanted.len().min(WARM_MAX)];
    order.iter_mut().zip(&*wanted).enumerate().for_each(|(n, (o, w))| *o = (w.slot.ix() % shards.len()) << 8 | n);
    order.sort_unstable();
    let mut each = |only_sought: bool, act: &mut dyn FnMut(&Shard, &mut Wanted<'_>)| {
        for mine in order.chunk_by(|a, b| a >> 8 == b >> 8) {
            // A lock that isn't taken is a line that cores don't fight for.
            let mut shard = None;
            for w in mine.iter().map(|n| n & 0xff) {
                let w = &mut wanted[w];
                if !only_sought || w.is_sought() {
                    act(shard.get_or_insert_with(|| lock(&shards[mine[0] >> 8])), w);
                }
            }
        }
    };
    let mut more = false;
    for (n, step) in STEPS.into_iter().enumerate() {
        each(n > KNOWN, &mut |shard, w| {
            match n {
                0 => prefetch::one(&shard.slots[w.slot]),
                KNOWN => shard.to_targets(w),
                _ => {}
            }
            step(&shard.store, w);
            more |= n >= KNOWN && shard.store.changes(w);
        });
    }
    for step in MORE_STEPS.into_iter().filter(|_| more) {
        each(false, &mut |shard, w| step(&shard.store, w));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::cache::effect::Deadline;
    use crate::proto::slot::SLOTS;

    #[test]
    fn a_crowd_with_one_deadline_is_worked_off_without_a_pause() {
        let mut shard = Shard::new(Store::default(), SLOTS, 1, true);
        let turn = |mono_ms| Turn { mono: Mono(mono_ms * 1_000_000), now: Now { mono_ms, wall_ms: 0 } };
        // Far enough for all to move down several levels of the wheel before the first of them is named.
        let deadline_ms = 10_000_000;
        for n in 0..5_000u32 {
            let ttl = Ttl::At(Deadline(deadline_ms));
            shard.store.txn(Slot(3), turn(77).now, &mut Effects::default()).set(&n.to_le_bytes(), b"", ttl);
        }
        let late = turn(deadline_ms + 1_000);
        while shard.expire(late, 64) {}
        assert_eq!(shard.store.totals().primary_keys, 0);
    }
}
