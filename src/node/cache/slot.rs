//! One slot's replication as this node sees it: pure, no sockets, no clock, no randomness (ARCHITECTURE: replication).
//!
//! ```text
//!            FORM / hand-out / promotion (pterm changes)
//!   None ───────────────▶ Primary ──── config: another primary ───▶ InSync | Learner | None
//!     │                      ▲
//!     │ ADD_LEARNER          │ NODE_DEAD, SWITCH (data kept: same `since`)
//!     ▼                      │
//!   Learner ── PROMOTE ──▶ InSync ── REMOVE_MEMBER ──▶ None (data dropped only now)
//!                            │
//!                            └── last one dies, this was it ──▶ Holder (data kept until NODE_BACK or hand-out)
//! ```
//!
//! A handover (PROTOCOL 8.4), as the two ends see it. Only a newer view ends it: SWITCH, or serving again under the old primary.
//!
//! ```text
//!  primary:  serves ── L, and all that answer, know of it ──▶ parked ── all of ack_set confirmed ──▶ relinquished, repeated
//!  L:        parks what comes ── SWITCH ──▶ Primary, serves once leases are held    (abort: answers MOVED again)
//! ```
//!
//! A copy, as the primary counts it: `Wanted → Copying → Counted → Ready`. Counted: the learner is in `ack_set`, SYNC_END is on
//! its way; from then on the copy is never restarted. Ready: it confirmed SYNC_END; LEARNER_READY is repeated until the view
//! shows it in sync.

use std::collections::VecDeque;

use crate::node::clock::Mono;
use crate::node::mutant::{self, Mutant};
use crate::proto::frame::{Refusal, Stream};
use crate::proto::id::Ref;
use crate::proto::slot::Slot;
use crate::proto::view::{Phase, SlotState};

/// How long a promise binds the one who gave it, milliseconds (PROTOCOL 6).
pub const PROMISE_MS: u64 = 600;
/// How long the one who asked may rely on it, counted from the moment it asked.
pub const LEASE_MS: u64 = 500;

/// What this node is to a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rank {
    /// Nothing; holds no keys of it.
    #[default]
    None,
    /// Serves it.
    Primary,
    /// Holds every acknowledged write.
    InSync,
    /// Is being copied to.
    Learner,
    /// Orphan slot whose last holder this is: keeps the data, serves nothing.
    Holder,
}

/// Where the copy to a target stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// In sync by configuration: no copy needed.
    Live,
    /// To be copied; gets no items yet.
    Wanted,
    /// Session open: gets items and chunks; not counted.
    Copying,
    /// In `ack_set`; SYNC_END under way.
    Counted,
    /// SYNC_END confirmed.
    Ready,
}

/// Another node this primary streams to. `P` is the runtime's (or simulator's) handle of a peer.
#[derive(Debug, Clone)]
pub struct Target<P> {
    /// The handle.
    pub peer: P,
    /// Which life of which node.
    pub node: Ref,
    /// Its ADD_LEARNER.
    pub since: u64,
    /// Where its copy stands.
    pub stage: Stage,
    /// Highest seq it confirmed at this pterm.
    pub acked: u64,
    /// It refused an item: never confirms again at this (pterm, since); complained of until removed.
    pub broken: bool,
    /// What was copied to it.
    pub copied: CopySum,
}

/// Count and digest of a copy, as long as nothing was written meanwhile: then they are the slot's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CopySum {
    /// The slot's seq when the copy began.
    pub seq: u64,
    /// Keys copied so far.
    pub keys: u64,
    /// The sum of their digests.
    pub digest: u64,
}

impl CopySum {
    /// So many more keys were copied while the slot stood at `seq`.
    pub fn add(&mut self, seq: u64, keys: u64, digest: u64) {
        // Once something was written in between, what was copied adds up to nothing any more.
        self.keys = if self.seq == seq { self.keys + keys } else { u64::MAX };
        self.digest = self.digest.wrapping_add(digest);
    }

    /// The digest of the slot as it stands now, if it is known.
    pub fn digest_of(&self, seq: u64, keys: u64) -> Option<u64> {
        ((self.seq, self.keys) == (seq, keys)).then_some(self.digest)
    }
}

impl<P> Target<P> {
    /// Whether replies wait for it.
    pub fn in_ack_set(&self) -> bool {
        matches!(self.stage, Stage::Live | Stage::Counted | Stage::Ready)
    }

    /// Whether items go to it.
    pub fn gets_items(&self) -> bool {
        self.stage != Stage::Wanted
    }
}

/// What a peer's promise is worth now: until when, and at which configuration it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lease {
    /// Counted from the moment the beacon left.
    pub until: Mono,
    /// The answerer's cfg_index.
    pub cfg_index: u64,
}

/// Gives the lease a peer granted.
pub trait Leased {
    /// As last answered.
    fn lease(&self) -> Lease;
}

/// Whether a command may run now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serving {
    /// Yes, if what it did is still before this time when looked at *after* executing.
    Until(Mono),
    /// Not for a moment: park.
    Wait,
    /// Not here: MOVED or CLUSTERDOWN.
    No,
}

/// Whether a held reply may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// All of `ack_set` confirmed.
    Confirmed,
    /// Not yet.
    Pending,
    /// This node stopped being primary first: a write is INDETERMINATE, a read is asked again.
    Lost,
}

/// What the receiver makes of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accept {
    /// The next one: apply it.
    Apply,
    /// Had it: confirm again.
    Dup,
    /// Not to be taken.
    Refuse(Refusal),
}

/// What a new configuration changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Change {
    /// The keys of the slot must be dropped.
    pub wipe: bool,
    /// The rank changed.
    pub rank: bool,
    /// Primary at a new pterm with members that must confirm it: ship an empty item.
    pub barrier: bool,
    /// Held replies may have been decided.
    pub wake: bool,
    /// Some target waits to be copied to.
    pub copy: bool,
}

/// What an ack led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acked {
    /// Nothing to do.
    Nothing,
    /// `confirmed` rose: wake who waits.
    Confirmed,
    /// The last chunk arrived: count the learner and send SYNC_END.
    Copied,
    /// SYNC_END was confirmed: report LEARNER_READY.
    Ready,
}

/// What kind of frame was acked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// A live item with this seq.
    Item(u64),
    /// OPEN or a chunk that is not the last.
    Chunk,
    /// The last chunk.
    LastChunk,
    /// SYNC_END, which covers everything up to this seq.
    End(u64),
}

/// A slot that its primary is to give away.
#[derive(Debug, Clone)]
struct Giving {
    to: Ref,
    /// The `cver` at which this handover was first seen: from there on its target parks.
    asked: u64,
}

/// One slot. `W` wakes someone whose reply is held. What every command looks at lies in one cache line, for a node has
/// thousands of slots and a command comes to any of them; the rest has a place of its own, from the first time it is needed.
#[derive(Debug)]
#[repr(align(64))]
pub struct SlotRepl<P, W> {
    rank: Rank,
    /// As backup: this node is the target of a handover.
    receiving: bool,
    /// As primary, during a handover: nothing runs any more, whatever becomes of the target's lease: RELINQUISH may be on its way.
    parked: bool,
    pterm: u64,
    seq: u64,
    confirmed: u64,
    lessors: Lessors,
    /// The one, if there is one alone.
    lessor: Option<P>,
    targets: Box<[Target<P>]>,
    rare: Option<Box<Rare<W>>>,
}

/// Who a serving primary's lease comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lessors {
    /// It has changed since: to be looked at anew, and whether it serves at all.
    Unknown,
    /// Nobody, it serves alone.
    Nobody,
    /// One member of `ack_set`.
    One,
    /// More of them.
    Several,
}

/// What of a slot is looked at when it is written to, or changes hands.
#[derive(Debug)]
struct Rare<W> {
    cver: u64,
    since: u64,
    /// As learner: the pterm whose OPEN was taken.
    opened: u64,
    believed: Option<Ref>,
    /// Promises given to former believed primaries bind until then.
    covered_until: Mono,
    /// As primary: nothing is served before.
    serve_after: Mono,
    past: (u64, u64),
    /// As primary, during a handover.
    giving: Option<Giving>,
    waiters: VecDeque<(u64, W)>,
    /// It was the target of a handover, for a mutant.
    #[cfg(test)]
    was_receiving: bool,
}

impl<W> Default for Rare<W> {
    fn default() -> Self {
        Self {
            cver: 0,
            since: 0,
            opened: 0,
            believed: None,
            covered_until: Mono(0),
            serve_after: Mono(0),
            past: (0, 0),
            giving: None,
            waiters: VecDeque::new(),
            #[cfg(test)]
            was_receiving: false,
        }
    }
}

impl<P, W> Default for SlotRepl<P, W> {
    fn default() -> Self {
        Self {
            rank: Rank::None,
            receiving: false,
            parked: false,
            pterm: 0,
            seq: 0,
            confirmed: 0,
            lessors: Lessors::Unknown,
            lessor: None,
            targets: Box::default(),
            rare: None,
        }
    }
}

impl<P, W> SlotRepl<P, W> {
    fn rare(&self) -> Option<&Rare<W>> {
        self.rare.as_deref()
    }

    fn rare_mut(&mut self) -> &mut Rare<W> {
        self.rare.get_or_insert_default()
    }
}

impl<P: Leased, W> SlotRepl<P, W> {
    /// A slot served alone, without masters (`--standalone`).
    pub fn standalone() -> Self {
        Self { rank: Rank::Primary, pterm: 1, ..Self::default() }
    }

    /// What this node is to it.
    pub fn rank(&self) -> Rank {
        self.rank
    }

    /// Raft index at which the primary last changed, as known here.
    pub fn pterm(&self) -> u64 {
        self.pterm
    }

    /// Raft index of the slot's last change, as known here.
    pub fn cver(&self) -> u64 {
        self.rare().map_or(0, |r| r.cver)
    }

    /// Last seq assigned (primary) or applied (others).
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// What all of `ack_set` confirmed at this pterm.
    pub fn confirmed(&self) -> u64 {
        self.confirmed
    }

    /// Those streamed to.
    pub fn targets(&self) -> &[Target<P>] {
        &self.targets
    }

    /// The stream to a target.
    pub fn stream(&self, slot: Slot, since: u64) -> Stream {
        Stream { slot, pterm: self.pterm, since }
    }

    /// can_serve: primary, not handing over, promises waited out, a lease from every member of `ack_set`.
    pub fn serving(&self, now: Mono) -> Serving {
        if self.rank != Rank::Primary {
            // The target of a handover is about to be primary: who comes early waits rather than being sent back.
            return if self.receiving { Serving::Wait } else { Serving::No };
        }
        if self.parked || now < self.serve_after() {
            return Serving::Wait;
        }
        let mut until = Mono(u64::MAX);
        for t in self.targets.iter().filter(|t| t.in_ack_set()) {
            let lease = t.peer.lease();
            // A peer behind this pterm may still believe in a former primary: its promise does not cover the slot.
            let behind = lease.cfg_index < self.pterm && !mutant::is(Mutant::LeaseBehindPterm);
            if behind || lease.until <= now {
                return Serving::Wait;
            }
            until = until.min(lease.until);
        }
        Serving::Until(until)
    }

    /// The same for a command. Where one member alone is to be asked, it is known who: a node has thousands of slots, and their
    /// targets are memory that a command would have to wait for.
    #[inline]
    pub fn serving_a_command(&mut self, now: Mono) -> Serving
    where
        P: Clone,
    {
        match (self.lessors, &self.lessor) {
            (Lessors::Nobody, _) => return Serving::Until(Mono(u64::MAX)),
            (Lessors::One, Some(peer)) => {
                let lease = peer.lease();
                if now < lease.until && lease.cfg_index >= self.pterm {
                    return Serving::Until(lease.until);
                }
            }
            _ => {}
        }
        let serving = self.serving(now);
        if let (Serving::Until(_), Lessors::Unknown) = (serving, self.lessors) {
            let mut members = self.targets.iter().filter(|t| t.in_ack_set());
            (self.lessors, self.lessor) = match (members.next(), members.next()) {
                (None, _) => (Lessors::Nobody, None),
                (Some(t), None) => (Lessors::One, Some(t.peer.clone())),
                _ => (Lessors::Several, None),
            };
        }
        serving
    }

    /// Whether [`SlotRepl::serving_a_command`] does without the targets.
    #[inline]
    pub fn knows_lessor(&self) -> bool {
        matches!(self.lessors, Lessors::Nobody | Lessors::One)
    }

    fn forget_lessors(&mut self) {
        (self.lessors, self.lessor) = (Lessors::Unknown, None);
    }

    /// What of it lies apart, to be asked for ahead of its use.
    pub fn apart(&self) -> Option<&(impl Sized + use<P, W>)> {
        self.rare()
    }

    fn serve_after(&self) -> Mono {
        self.rare().map_or(Mono(0), |r| r.serve_after)
    }

    /// Whether this primary is to give the slot away.
    pub fn is_giving(&self) -> bool {
        self.rare().is_some_and(|r| r.giving.is_some())
    }

    /// Parks a slot that is to be given away, once its target parks too and everybody who answers beacons knows of the handover
    /// (`known`: the lowest cfg_index among them), so that no client is sent here and then on. When everything is confirmed:
    /// what RELINQUISH says, (cver, final seq). Once parked only a newer view frees this node, for a RELINQUISH may be
    /// committed at any time.
    pub fn relinquish(&mut self, now: Mono, known: u64) -> Option<(u64, u64)> {
        let rare = self.rare.as_deref()?;
        let giving = rare.giving.as_ref().filter(|_| now >= rare.serve_after)?;
        let knows = |t: &Target<P>| t.node == giving.to && t.peer.lease().cfg_index >= giving.asked;
        if !self.parked && (known < giving.asked || !self.targets.iter().any(knows)) {
            return None;
        }
        let cver = rare.cver;
        self.parked = true;
        self.forget_lessors();
        (self.confirmed >= self.seq).then_some((cver, self.seq))
    }

    /// A command changed the slot: its item's seq.
    pub fn commit(&mut self) -> u64 {
        self.seq += 1;
        self.settle();
        self.seq
    }

    /// Whether a reply resting on everything up to now must be held.
    pub fn must_hold(&self) -> bool {
        self.confirmed < self.seq && !mutant::is(Mutant::AckBeforeBackup)
    }

    /// Remembers whom to wake when `seq` is decided.
    pub fn wait_for(&mut self, seq: u64, who: W) {
        self.rare_mut().waiters.push_back((seq, who));
    }

    /// Takes out those whose seq is confirmed now.
    pub fn confirmed_waiters(&mut self) -> impl Iterator<Item = W> + '_ {
        let confirmed = self.confirmed;
        self.rare.as_mut().into_iter().flat_map(move |rare| {
            let n = rare.waiters.iter().take_while(|(seq, _)| *seq <= confirmed).count();
            rare.waiters.drain(..n).map(|(_, w)| w)
        })
    }

    /// Takes out everybody.
    pub fn all_waiters(&mut self) -> impl Iterator<Item = W> + '_ {
        self.rare.as_mut().into_iter().flat_map(|rare| rare.waiters.drain(..).map(|(_, w)| w))
    }

    /// What became of a reply that rests on `seq` at `pterm`.
    pub fn held(&self, pterm: u64, seq: u64) -> Held {
        let (at, confirmed) =
            if self.rank == Rank::Primary && self.pterm == pterm { (pterm, self.confirmed) } else { self.past() };
        let lost = self.rank != Rank::Primary && mutant::is(Mutant::EmptyAckSet);
        match at == pterm && confirmed >= seq || lost {
            true => Held::Confirmed,
            false if self.rank == Rank::Primary && self.pterm == pterm => Held::Pending,
            false => Held::Lost,
        }
    }

    /// Its last primacy here: the pterm, and what was confirmed at it.
    fn past(&self) -> (u64, u64) {
        self.rare().map_or((0, 0), |r| r.past)
    }

    fn settle(&mut self) -> bool {
        let all = self.targets.iter().filter(|t| t.in_ack_set()).map(|t| t.acked).min().unwrap_or(self.seq);
        let rose = all > self.confirmed;
        self.confirmed = self.confirmed.max(all);
        rose
    }

    fn target_mut(&mut self, node: &Ref, stream: &Stream) -> Option<&mut Target<P>> {
        if self.rank != Rank::Primary || stream.pterm != self.pterm {
            return None;
        }
        self.targets.iter_mut().find(|t| t.since == stream.since && &t.node == node)
    }

    /// A frame of this slot was taken by a target.
    pub fn on_ack(&mut self, node: &Ref, stream: &Stream, sent: Sent) -> Acked {
        let Some(t) = self.target_mut(node, stream) else { return Acked::Nothing };
        if t.broken {
            return Acked::Nothing;
        }
        match (sent, t.stage) {
            (Sent::Item(seq), _) => {
                t.acked = t.acked.max(seq);
                if self.settle() { Acked::Confirmed } else { Acked::Nothing }
            }
            (Sent::LastChunk, Stage::Copying) => Acked::Copied,
            (Sent::End(seq), Stage::Counted) => {
                t.stage = Stage::Ready;
                // Items from before OPEN came with the copy and have no ack of their own.
                t.acked = t.acked.max(seq);
                self.settle();
                Acked::Ready
            }
            _ => Acked::Nothing,
        }
    }

    /// A frame of this slot was refused by a target; whether the target is now broken.
    pub fn on_refuse(&mut self, node: &Ref, stream: &Stream, why: Refusal) -> bool {
        match self.target_mut(node, stream) {
            // Stale: it knows a newer configuration, which this node is about to learn.
            Some(t) if why != Refusal::Stale => {
                t.broken = true;
                true
            }
            _ => false,
        }
    }

    /// The first target that waits for its copy.
    pub fn wanted(&self) -> Option<&Target<P>> {
        self.targets.iter().find(|t| t.stage == Stage::Wanted)
    }

    /// What was copied to a target so far, to be added to.
    pub fn copied_mut(&mut self, node: &Ref, stream: &Stream) -> Option<&mut CopySum> {
        self.target_mut(node, stream).map(|t| &mut t.copied)
    }

    /// Opens the copy session: from now on the learner gets every item. Returns the stream and the first seq it will see.
    pub fn open_copy(&mut self, slot: Slot, node: &Ref, since: u64) -> Option<(Stream, u64)> {
        let stream = self.stream(slot, since);
        let next = self.seq + 1;
        let t = self.target_mut(node, &stream)?;
        (t.stage == Stage::Wanted).then(|| t.stage = Stage::Copying)?;
        t.copied = CopySum { seq: next - 1, ..CopySum::default() };
        Some((stream, next))
    }

    /// Counts a copied learner in `ack_set`, if its lease is held; SYNC_END{seq} is to be sent now.
    pub fn count_learner(&mut self, node: &Ref, stream: &Stream, now: Mono) -> Option<u64> {
        let (seq, pterm) = (self.seq, self.pterm);
        let t = self.target_mut(node, stream)?;
        let lease = t.peer.lease();
        if t.stage != Stage::Copying || lease.until <= now || lease.cfg_index < pterm {
            return None;
        }
        t.stage = Stage::Counted;
        self.forget_lessors();
        // Items before the copy's end are covered by SYNC_END itself; those still on their way confirm themselves.
        Some(seq)
    }

    /// What no node may do: to skip the wait for its promises because of a handover that was taken back.
    fn remembers_handover(&mut self) -> bool {
        #[cfg(test)]
        {
            let receiving = self.receiving;
            let rare = self.rare_mut();
            rare.was_receiving |= receiving;
            rare.was_receiving && mutant::is(Mutant::NoWaitRemembered)
        }
        #[cfg(not(test))]
        false
    }

    /// What no primary may do: to wait no longer for a member that the masters did not take out.
    #[cfg(test)]
    pub fn go_solo(&mut self, without: &Ref) {
        let targets = std::mem::take(&mut self.targets);
        self.targets = targets.into_iter().filter(|t| &t.node != without).collect();
        self.forget_lessors();
        self.settle();
    }

    /// What no primary may do: to copy again what is counted already.
    #[cfg(test)]
    pub fn copy_again(&mut self, to: &Ref) -> bool {
        let counted = |t: &&mut Target<P>| &t.node == to && matches!(t.stage, Stage::Counted | Stage::Ready);
        self.targets.iter_mut().find(counted).map(|t| t.stage = Stage::Wanted).is_some()
    }

    /// Learners to report ready: (learner, cver, since). None before this primary's own promises are over: a learner in sync
    /// could be promoted without having waited for them.
    pub fn ready_learners(&self, now: Mono) -> impl Iterator<Item = (&Ref, u64, u64)> {
        let may_report = now >= self.serve_after() || mutant::is(Mutant::ReadyUnderPromise);
        let may_report = self.rank == Rank::Primary && may_report;
        self.targets
            .iter()
            .filter(move |t| {
                let early = t.stage == Stage::Copying && mutant::is(Mutant::ReadyBeforeAckSet);
                may_report && (t.stage == Stage::Ready || early) && !t.broken
            })
            .map(|t| (&t.node, self.cver(), t.since))
    }

    /// As receiver: OPEN of a copy.
    pub fn on_open(&mut self, stream: &Stream, next_seq: u64) -> Accept {
        match self.receives(stream) {
            Accept::Apply if self.rank == Rank::Learner => {
                self.rare_mut().opened = stream.pterm;
                self.seq = next_seq - 1;
                Accept::Apply
            }
            Accept::Apply => Accept::Refuse(Refusal::Stale),
            other => other,
        }
    }

    /// As receiver: a chunk of a copy.
    pub fn on_chunk(&self, stream: &Stream) -> Accept {
        match self.receives(stream) {
            Accept::Apply if self.rank == Rank::Learner && self.opened() == self.pterm => Accept::Apply,
            Accept::Apply => Accept::Refuse(Refusal::Gap(0)),
            other => other,
        }
    }

    /// As receiver: an item. On `Apply` the caller applies it whole and then calls [`SlotRepl::applied`].
    pub fn on_item(&self, stream: &Stream, seq: u64) -> Accept {
        match self.receives(stream) {
            Accept::Apply => {}
            other => return other,
        }
        if self.rank == Rank::Learner && self.opened() != self.pterm {
            return Accept::Refuse(Refusal::Gap(0));
        }
        if seq == self.seq + 1 {
            Accept::Apply
        } else if seq <= self.seq {
            Accept::Dup
        } else {
            Accept::Refuse(Refusal::Gap(self.seq + 1))
        }
    }

    /// The next item was applied whole.
    pub fn applied(&mut self) {
        self.seq += 1;
    }

    fn opened(&self) -> u64 {
        self.rare().map_or(0, |r| r.opened)
    }

    fn receives(&self, stream: &Stream) -> Accept {
        let member = matches!(self.rank, Rank::InSync | Rank::Learner);
        if member && stream.pterm == self.pterm && self.rare().is_some_and(|r| r.since == stream.since) {
            Accept::Apply
        } else {
            Accept::Refuse(Refusal::Stale)
        }
    }

    /// Takes in what the masters agreed on. `promised` tells until when a promise to a node binds; `peer` gives its handle.
    pub fn reconfigure(
        &mut self,
        new: &SlotState,
        me: &Ref,
        now: Mono,
        promised: impl Fn(&Ref) -> Mono,
        mut peer: impl FnMut(&Ref) -> P,
    ) -> Change {
        let mut change = Change::default();
        if new.cver == self.cver() {
            return change;
        }
        self.forget_lessors();
        let skips_wait = self.remembers_handover();
        let rare = self.rare.get_or_insert_default();
        if rare.believed != new.primary {
            // Drafts: only the first promise binds.
            let covered = rare.covered_until > Mono(0) && mutant::is(Mutant::ReadyUnderPromise);
            if let Some(p) = rare.believed.as_ref().filter(|p| *p != me && !covered) {
                rare.covered_until = rare.covered_until.max(promised(p));
            }
            rare.believed = new.primary.clone();
        }
        let mine = new.replica(me);
        let rank = match mine {
            Some(_) if new.primary.as_ref() == Some(me) => Rank::Primary,
            Some(_) if new.in_sync(me) => Rank::InSync,
            Some(_) => Rank::Learner,
            None if new.phase == Phase::Orphan && new.last_holder.as_ref() == Some(me) => Rank::Holder,
            None => Rank::None,
        };
        let was = self.rank;
        let since = match rank {
            // What is here may be from before an empty hand-out that this node never heard of.
            Rank::Holder => new.held_since,
            _ => mine.map_or(0, |r| r.since),
        };
        let any = mutant::is(Mutant::OldDataReturns) && [was, rank].contains(&Rank::Holder);
        change.wipe = was != Rank::None && (rank == Rank::None || since != rare.since && !any);
        let gives = rank == Rank::Primary && new.handover_to.is_some();
        change.wipe |= gives && mutant::is(Mutant::WipeBeforeSwitch);
        // Fresh by configuration: nothing of the slot is here, nothing is expected.
        if change.wipe || (was == Rank::None && rank != Rank::None) {
            self.seq = 0;
            rare.opened = 0;
            if rank == Rank::InSync && since == new.pterm && !new.clean {
                // Handed out empty with this node as its backup at once. A cut-off primary may hold a dead one's lease, so
                // the new primary waits; this node waits as long, should it be promoted before that wait is over.
                rare.covered_until = rare.covered_until.max(now.plus_ms(PROMISE_MS));
            }
        }
        let lost = was == Rank::Primary && (rank != Rank::Primary || new.pterm != self.pterm);
        if lost {
            rare.past = (self.pterm, self.confirmed);
            self.targets = Box::default();
            change.wake = true;
        }
        let gained = rank == Rank::Primary && (was != Rank::Primary || new.pterm != self.pterm);
        // A handover that follows another one unseen finds this node parked, and leaves it so.
        self.parked &= gives && !gained;
        rare.giving = new.handover_to.as_ref().filter(|_| gives).map(|to| Giving { to: to.clone(), asked: new.cver });
        self.receiving = rank == Rank::InSync && new.handover_to.as_ref() == Some(me);
        self.rank = rank;
        rare.since = since;
        rare.cver = new.cver;
        self.pterm = new.pterm;
        change.rank = was != rank;
        if gained {
            self.confirmed = 0;
            let fresh = was == Rank::Holder || self.seq == 0 && was == Rank::None;
            let hasty = if fresh { Mutant::NoWaitAfterHandOut } else { Mutant::NoPromiseWait };
            rare.serve_after = if new.clean || mutant::is(hasty) || skips_wait {
                Mono(0)
            } else if fresh {
                // Handed out empty, or come back: whoever was primary before may hold a lease this node knows nothing of.
                now.plus_ms(PROMISE_MS)
            } else {
                rare.covered_until
            };
        }
        if rank == Rank::Primary {
            self.retarget(new, me, &mut peer);
            change.wake |= self.settle();
            change.barrier = gained && self.must_hold();
            change.copy = self.wanted().is_some();
        }
        change
    }

    fn retarget(&mut self, new: &SlotState, me: &Ref, peer: &mut impl FnMut(&Ref) -> P) {
        let mut old = std::mem::take(&mut self.targets).into_vec();
        let mut targets = Vec::new();
        let members =
            new.insync.iter().map(|r| (r, Stage::Live)).chain(new.learners.iter().map(|r| (r, Stage::Wanted)));
        for (r, fresh) in members.filter(|(r, _)| &r.node != me) {
            let by_node = mutant::is(Mutant::SessionByNode);
            let known = old.iter().position(|t| t.node == r.node && (t.since == r.since || by_node));
            let mut target = match known {
                Some(i) if old[i].since != r.since => {
                    Target { since: r.since, stage: Stage::Ready, ..old.swap_remove(i) }
                }
                Some(i) => old.swap_remove(i),
                None => Target {
                    peer: peer(&r.node),
                    node: r.node.clone(),
                    since: r.since,
                    stage: fresh,
                    acked: 0,
                    broken: false,
                    copied: CopySum::default(),
                },
            };
            if fresh == Stage::Live {
                target.stage = Stage::Live;
            }
            targets.push(target);
        }
        self.targets = targets.into();
    }
}

const _: () = assert!(size_of::<SlotRepl<std::sync::Arc<()>, ()>>() == 64);

#[cfg(test)]
#[path = "slot_tests.rs"]
mod tests;
