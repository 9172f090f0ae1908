//! The steps of one slot: what each expects and what it makes of the slot. False or `None` means skipped, nothing changed.

use std::collections::BTreeMap;

use crate::node::master::entry::Change;
use crate::node::mutant::{self, Mutant};
use crate::proto::id::{NodeId, Ref};
use crate::proto::view::{Phase, Replica, SlotState};

/// Most members of one slot: primary, backup, and a successor being copied for each.
pub const REPLICAS_MAX: usize = 4;

/// How many slots each node is primary of; promotions go to the node with the fewest.
pub type Primaries = BTreeMap<NodeId, u32>;

/// Does one step of a slot whose `cver` was found as expected.
pub fn change(
    slot: &mut SlotState,
    index: u64,
    step: &Change,
    is_live: impl Fn(&Ref) -> bool,
    primaries: &mut Primaries,
) -> bool {
    let applies = match step {
        Change::AddLearner { node } => {
            let fits = slot.phase != Phase::Orphan
                && is_live(node)
                && slot.insync.len() + slot.learners.len() < REPLICAS_MAX
                && !slot.insync.iter().chain(&slot.learners).any(|r| r.node.id == node.id);
            if fits {
                slot.learners.push(Replica { node: node.clone(), since: index });
            }
            fits
        }
        Change::PromoteLearner { learner, since } => {
            let at = slot.learners.iter().position(|r| &r.node == learner && r.since == *since);
            if let Some(at) = at {
                let replica = slot.learners.remove(at);
                slot.insync.push(replica);
            }
            at.is_some()
        }
        Change::Handover { to } => {
            let fits = slot.phase == Phase::Serving && slot.in_sync(to) && slot.primary.as_ref() != Some(to);
            if fits {
                slot.phase = Phase::Handover;
                slot.handover_to = Some(to.clone());
            }
            fits
        }
        Change::Switch { to } => {
            let fits = slot.phase == Phase::Handover && slot.handover_to.as_ref() == Some(to) && slot.in_sync(to);
            if fits {
                lead(slot, index, to.clone(), primaries);
                slot.clean = true;
            }
            fits
        }
        Change::Abort => {
            let fits = slot.phase == Phase::Handover;
            if fits {
                abort(slot);
            }
            fits
        }
        Change::RemoveMember { node } => {
            let fits = slot.primary.as_ref() != Some(node) && slot.replica(node).is_some();
            if fits {
                drop_member(slot, node);
            }
            fits
        }
        Change::Depose { node } => {
            let fits = slot.primary.as_ref() == Some(node) && slot.backups().next().is_some();
            if fits {
                drop_member(slot, node);
                promote(slot, index, &[], primaries);
            }
            fits
        }
    };
    if applies {
        slot.cver = index;
    }
    applies
}

/// What a death made of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Burial {
    /// None of the dead was a member.
    Untouched,
    /// Only learners died.
    LostLearner,
    /// A backup died; the primary goes on.
    LostBackup,
    /// The primary died; an in-sync member leads.
    Promoted,
    /// No in-sync member is left.
    Orphaned,
}

/// Whether one of these is a member of the slot.
pub fn concerns(slot: &SlotState, dead: &BTreeMap<Ref, usize>) -> bool {
    slot.insync.iter().chain(&slot.learners).any(|r| dead.contains_key(&r.node))
}

/// Takes the dead out of a slot and promotes where the primary was among them (PROTOCOL section 7). `dead` gives each its
/// place in the list of the dead: the in-sync member that comes last is the last holder, as if they had died in that order.
/// With `by_plan` what a slot held is given up without loss, so nobody is remembered as its holder.
pub fn bury(
    slot: &mut SlotState,
    index: u64,
    dead: &BTreeMap<Ref, usize>,
    avoid: &[Ref],
    by_plan: bool,
    primaries: &mut Primaries,
) -> Burial {
    let is_dead = |r: &Replica| dead.contains_key(&r.node);
    let insync_dead = slot.insync.iter().filter(|r| is_dead(r)).count();
    if insync_dead == 0 && !slot.learners.iter().any(is_dead) {
        return Burial::Untouched;
    }
    slot.cver = index;
    slot.learners.retain(|r| !is_dead(r));
    if insync_dead == 0 {
        return Burial::LostLearner;
    }
    let last = slot.insync.iter().filter_map(|r| Some((dead.get(&r.node)?, r))).max_by_key(|(at, r)| (*at, &r.node));
    let last = last.map(|(_, r)| r.clone());
    slot.insync.retain(|r| !dead.contains_key(&r.node));
    if slot.insync.is_empty() {
        orphan(slot, index, if by_plan { None } else { last }, primaries);
        return Burial::Orphaned;
    }
    if slot.handover_to.as_ref().is_some_and(|to| dead.contains_key(to)) {
        abort(slot);
    }
    if slot.primary.as_ref().is_some_and(|p| dead.contains_key(p)) {
        promote(slot, index, avoid, primaries);
        return Burial::Promoted;
    }
    Burial::LostBackup
}

/// Gives a slot that nobody holds to `primary`, with `backups` in sync and `learner` to be copied to.
pub fn install(
    slot: &mut SlotState,
    index: u64,
    primary: &Ref,
    backups: &[Ref],
    learner: Option<&Ref>,
    primaries: &mut Primaries,
) {
    let replica = |node: &Ref| Replica { node: node.clone(), since: index };
    *primaries.entry(primary.id.clone()).or_default() += 1;
    *slot = SlotState {
        pterm: index,
        cver: index,
        phase: Phase::Serving,
        clean: false,
        returned: false,
        primary: Some(primary.clone()),
        insync: std::iter::once(primary).chain(backups).map(replica).collect(),
        learners: learner.into_iter().map(replica).collect(),
        handover_to: None,
        last_holder: None,
        held_since: 0,
    };
}

fn abort(slot: &mut SlotState) {
    slot.phase = Phase::Serving;
    slot.handover_to = None;
}

/// Takes a node out of both sets; a handover to it is off.
fn drop_member(slot: &mut SlotState, node: &Ref) {
    slot.insync.retain(|r| &r.node != node);
    slot.learners.retain(|r| &r.node != node);
    if slot.handover_to.as_ref() == Some(node) {
        abort(slot);
    }
}

/// Makes an in-sync member primary; learners stay, their copies start again at the new pterm.
fn lead(slot: &mut SlotState, index: u64, node: Ref, primaries: &mut Primaries) {
    count_lead(primaries, slot.primary.as_ref(), Some(&node));
    slot.primary = Some(node);
    slot.pterm = index;
    slot.phase = Phase::Serving;
    slot.handover_to = None;
    slot.clean = false;
    slot.returned = false;
}

/// A slot's primary was one node and is another, or the same.
pub fn count_lead(primaries: &mut Primaries, was: Option<&Ref>, is: Option<&Ref>) {
    if was == is {
        return;
    }
    if let Some(n) = was.and_then(|was| primaries.get_mut(&was.id)) {
        *n = n.saturating_sub(1);
    }
    if let Some(is) = is {
        *primaries.entry(is.id.clone()).or_default() += 1;
    }
}

/// Chooses a new primary among the in-sync members, who must not be none: the handover's target, else not to be avoided,
/// else fewest primaries, else lowest id. The others become learners, emptied: their tails may differ.
fn promote(slot: &mut SlotState, index: u64, avoid: &[Ref], primaries: &mut Primaries) {
    let target = slot.handover_to.take();
    let rank = |r: &Replica| {
        let load = primaries.get(&r.node.id).copied().unwrap_or(0);
        (Some(&r.node) != target.as_ref(), avoid.contains(&r.node), load, r.node.clone())
    };
    let learners = slot.learners.iter().filter(|_| mutant::is(Mutant::PromoteLearner));
    let Some(best) = slot.insync.iter().chain(learners).min_by_key(|r| rank(r)).cloned() else {
        return;
    };
    slot.learners.retain(|r| r.node != best.node);
    let mut tails = Vec::new();
    for r in slot.insync.drain(..).filter(|r| r.node != best.node) {
        match mutant::is(Mutant::KeepTails) {
            true => tails.push(r),
            false => slot.learners.push(Replica { node: r.node, since: index }),
        }
    }
    slot.insync = tails;
    lead(slot, index, best.node.clone(), primaries);
    slot.insync.push(best);
}

fn orphan(slot: &mut SlotState, index: u64, last: Option<Replica>, primaries: &mut Primaries) {
    count_lead(primaries, slot.primary.as_ref(), None);
    let held_since = last.as_ref().map_or(0, |r| r.since);
    let last_holder = last.map(|r| r.node);
    *slot = SlotState { pterm: index, cver: index, last_holder, held_since, ..SlotState::default() };
}
