//! From the state to the next entries: who takes which slot. Pure; the planner says where to, this room says in what steps.

use std::collections::{BTreeMap, BTreeSet};

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::block_in_place;

use super::entry::{Change, HandedOut, Placed, Run, SlotChange};
use super::state::State;
use crate::proto::id::{NodeId, Ref};
use crate::proto::kinds::Kinds;
use crate::proto::plan::{self, Mode, Placement, PlanNode};
use crate::proto::slot::Slot;
use crate::proto::status::NodeState;
use crate::proto::view::{Config, Phase, Replica, SlotState};

/// Slots being copied from one primary at a time: many, since most are small, but not so many that a death in the middle
/// throws much copying away.
pub const COPIES_PER_PRIMARY: usize = 1024;

/// Runs of slots in one hand-out at most, so that its entry stays well below what Raft takes; the rest follows.
pub const HANDED_OUT_MAX: usize = 8192;

/// What the slot table still wants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// Slots with fewer in-sync backups than asked for.
    pub solo: u64,
    /// Those of them that have no learner under way either.
    pub lacking: Vec<usize>,
    /// Slots with a learner, by primary.
    pub copies: BTreeMap<NodeId, usize>,
    /// Slots with more members than asked for.
    pub surplus: Vec<usize>,
    /// Slots that nobody holds.
    pub orphans: u64,
    /// Slots on their way from one primary to another.
    pub handovers: Vec<usize>,
    /// Some slot was handed out once.
    pub formed: bool,
}

/// Slots that are alike.
struct Kind {
    slots: usize,
    backups: usize,
}

/// Looks the slot table over.
pub fn survey(cfg: &Config) -> Survey {
    let wanted = usize::from(cfg.backups);
    let mut out = Survey::default();
    let mut kinds = Kinds::default();
    for (ix, s) in cfg.slots.iter().enumerate() {
        let kind = kinds.of(s, 0, |s| Kind { slots: 0, backups: s.backups().count() });
        kind.slots += 1;
        if s.primary.is_none() {
            continue;
        }
        if s.phase == Phase::Handover {
            out.handovers.push(ix);
        }
        let all = kind.backups + s.learners.len();
        if all < wanted {
            out.lacking.push(ix);
        } else if all > wanted {
            out.surplus.push(ix);
        }
    }
    for kind in kinds.iter() {
        let (s, Kind { slots, backups }) = (kind.state, &kind.value);
        out.formed |= s.pterm != 0;
        match &s.primary {
            None => out.orphans += *slots as u64,
            Some(primary) => {
                out.solo += if *backups < wanted { *slots as u64 } else { 0 };
                if !s.learners.is_empty() {
                    *out.copies.entry(primary.id.clone()).or_default() += slots;
                }
            }
        }
    }
    out
}

/// Whether a member may be given slots.
pub fn may_hold(state: NodeState) -> bool {
    matches!(state, NodeState::Joining | NodeState::Up)
}

/// The live members as the planner sees them; those in `shunned` keep what they have and are given nothing.
pub fn plan_nodes(cfg: &Config, shunned: &BTreeSet<NodeId>) -> Vec<PlanNode> {
    let live = |(id, m): &(&NodeId, &crate::proto::view::Member)| {
        cfg.is_live(&Ref { id: (*id).clone(), incarnation: m.incarnation })
    };
    cfg.members
        .iter()
        .filter(live)
        .map(|(id, m)| PlanNode {
            id: id.clone(),
            zone: m.zone.clone(),
            host: host(&m.peer_addr).to_owned(),
            weight: m.weight,
            accepts: may_hold(m.state) && !shunned.contains(id),
        })
        .collect()
}

/// The host part of host:port, also of `[::1]:1`.
pub fn host(addr: &str) -> &str {
    addr.rsplit_once(':').map_or(addr, |(host, _)| host)
}

/// Who holds what, copies under way counted as done.
fn current(cfg: &Config) -> Vec<Placement> {
    let of = |s: &SlotState| Placement {
        primary: s.primary.as_ref().map(|p| p.id.clone()),
        backup: s.backups().chain(&s.learners).next().map(|r| r.node.id.clone()),
    };
    cfg.slots.iter().map(|s| of(s)).collect()
}

/// [`plan::target`]. It may take longer than an election where there is little CPU or a node for every slot: where this thread has
/// other tasks, another one goes on with them meanwhile.
pub fn target(nodes: &[PlanNode], current: &[Placement], backups: u8, mode: Mode) -> Vec<Placement> {
    let plan = || plan::target(nodes, current, backups, mode);
    match Handle::try_current() {
        Ok(runtime) if runtime.runtime_flavor() == RuntimeFlavor::MultiThread => block_in_place(plan),
        _ => plan(),
    }
}

/// The first hand-out of all slots. Empty if nobody may hold any.
pub fn formation(state: &State) -> Vec<Placed> {
    let cfg = &state.cfg;
    let empty = vec![Placement::default(); cfg.slots.len()];
    let target = target(&plan_nodes(cfg, &BTreeSet::new()), &empty, cfg.backups, Mode::Balance);
    let mut out: Vec<Placed> = Vec::new();
    for (ix, p) in target.iter().enumerate() {
        let Some(primary) = p.primary.as_ref().and_then(|id| cfg.current(id)) else { continue };
        let backups: Vec<Ref> = p.backup.as_ref().and_then(|id| cfg.current(id)).into_iter().collect();
        let slot = Slot(ix as u16);
        let full = out.len() == HANDED_OUT_MAX;
        match out.last_mut() {
            Some(r) if r.last.ix() + 1 == ix && r.primary == primary && r.backups == backups => r.last = slot,
            Some(_) if full => break,
            _ => out.push(Placed { first: slot, last: slot, primary, backups }),
        }
    }
    out
}

/// New holders for the orphan slots whose last holder is gone: on record, or by `proven`. Slots that were given up by plan are
/// handed out `clean` where every promise from before the stop is `over`.
pub fn hand_outs(state: &State, proven: &[Ref], shunned: &BTreeSet<NodeId>, over: bool) -> Vec<HandedOut> {
    let cfg = &state.cfg;
    let free = |s: &SlotState| {
        s.phase == Phase::Orphan
            && s.last_holder
                .as_ref()
                .is_none_or(|h| proven.contains(h) || state.holders.get(h).is_some_and(|holder| holder.gone.is_some()))
    };
    if !cfg.slots.iter().any(|s| free(s)) {
        return Vec::new();
    }
    let target = target(&plan_nodes(cfg, shunned), &current(cfg), cfg.backups, Mode::Balance);
    let mut out: Vec<HandedOut> = Vec::new();
    for (ix, (s, p)) in cfg.slots.iter().zip(&target).enumerate().filter(|(_, (s, _))| free(s)) {
        let Some(to) = p.primary.as_ref().and_then(|id| cfg.current(id)) else { continue };
        let backup = p.backup.as_ref().and_then(|id| cfg.current(id)).filter(|b| b.id != to.id);
        let clean = over && s.last_holder.is_none();
        let slot = Slot(ix as u16);
        let full = out.len() == HANDED_OUT_MAX;
        match out.last_mut() {
            Some(h)
                if h.run.last.ix() + 1 == ix
                    && h.run.cver == s.cver
                    && (&h.to, &h.backup, h.clean) == (&to, &backup, clean) =>
            {
                h.run.last = slot;
            }
            Some(_) if full => break,
            _ => out.push(HandedOut { run: Run { first: slot, last: slot, cver: s.cver }, to, backup, clean }),
        }
    }
    out
}

/// The next copies to start: slots that lack a backup, as many as their primaries may copy at a time.
pub fn learners(state: &State, survey: &Survey, shunned: &BTreeSet<NodeId>) -> Vec<SlotChange> {
    let cfg = &state.cfg;
    let mut copies = survey.copies.clone();
    let mut room = |s: &SlotState| {
        let Some(primary) = &s.primary else { return false };
        let n = copies.entry(primary.id.clone()).or_default();
        let fits = *n < COPIES_PER_PRIMARY;
        *n += usize::from(fits);
        fits
    };
    let batch: Vec<usize> = survey.lacking.iter().copied().filter(|ix| room(&cfg.slots[*ix])).collect();
    if batch.is_empty() {
        return Vec::new();
    }
    let target = target(&plan_nodes(cfg, shunned), &current(cfg), cfg.backups, Mode::Rebuild);
    let mut by_node: BTreeMap<Ref, Vec<(usize, u64)>> = BTreeMap::new();
    for ix in batch {
        let s = &cfg.slots[ix];
        if let Some(node) = target.get(ix).and_then(|p| p.backup.as_ref()).and_then(|id| cfg.current(id))
            && s.primary.as_ref().is_some_and(|p| p.id != node.id)
        {
            by_node.entry(node).or_default().push((ix, s.cver));
        }
    }
    by_node
        .into_iter()
        .map(|(node, slots)| SlotChange { change: Change::AddLearner { node }, runs: runs(slots), completes: 0 })
        .collect()
}

/// Takes out members that the cluster does not ask for: learners first, then the youngest backup.
pub fn removals(state: &State, survey: &Survey) -> Vec<SlotChange> {
    let wanted = usize::from(state.cfg.backups);
    let mut by_node: BTreeMap<Ref, Vec<(usize, u64)>> = BTreeMap::new();
    for ix in &survey.surplus {
        let s = &state.cfg.slots[*ix];
        let spare = |r: &&Replica| s.handover_to.as_ref() != Some(&r.node);
        let youngest = s.backups().filter(spare).max_by_key(|r| (r.since, r.node.clone()));
        let node = if s.backups().count() > wanted { s.learners.last().or(youngest) } else { s.learners.last() };
        if let Some(r) = node {
            by_node.entry(r.node.clone()).or_default().push((*ix, s.cver));
        }
    }
    by_node
        .into_iter()
        .map(|(node, slots)| SlotChange { change: Change::RemoveMember { node }, runs: runs(slots), completes: 0 })
        .collect()
}

/// Packs ascending slots and what they stand at into runs.
pub fn runs(slots: impl IntoIterator<Item = (usize, u64)>) -> Vec<Run> {
    let mut out: Vec<Run> = Vec::new();
    for (ix, cver) in slots {
        let slot = Slot(ix as u16);
        match out.last_mut() {
            Some(r) if r.last.ix() + 1 == ix && r.cver == cver => r.last = slot,
            _ => out.push(Run { first: slot, last: slot, cver }),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_join_neighbours_that_stand_alike() {
        let run = |first, last, cver| Run { first: Slot(first), last: Slot(last), cver };
        assert_eq!(runs([(1, 5), (2, 5), (3, 6), (5, 6)]), vec![run(1, 2, 5), run(3, 3, 6), run(5, 5, 6)]);
        assert!(runs([]).is_empty());
    }

    #[test]
    fn hosts_are_what_stands_before_the_port() {
        assert_eq!(host("127.0.0.1:17201"), "127.0.0.1");
        assert_eq!(host("[::1]:17201"), "[::1]");
        assert_eq!(host("cache-1.example"), "cache-1.example");
    }
}
