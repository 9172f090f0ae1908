//! Members: who registers, who dies, who comes back, who leaves; what that does to the slot table (PROTOCOL sections 3 and 7).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::node::master::entry::{Answer, Registration};
use crate::node::mutant::{self, Mutant};
use crate::proto::error::Failure;
use crate::proto::event::Severity;
use crate::proto::id::{Incarnation, NodeId, Ref};
use crate::proto::operation::OperationKind;
use crate::proto::status::NodeState;
use crate::proto::view::{Member, Phase, SlotState};

use super::slots::{self, Burial};
use super::{Apply, BURIED_KEPT, Gone, Holder, State, Stopped};

/// Most members on record: what the planner is measured for.
pub const MEMBERS_MAX: usize = 1000;
/// The longest address, bytes: a DNS name and a port.
pub const ADDR_MAX: usize = 262;
/// The longest zone name, bytes.
pub const ZONE_MAX: usize = 64;
/// The greatest weight: beyond it one node's virtual nodes alone would cut the ring to pieces.
pub const WEIGHT_MAX: f64 = 100.0;
/// The least weight that still gives a node a virtual node.
pub const WEIGHT_MIN: f64 = 0.01;

/// How a node's life ended, for the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Dead,
    /// As dead, but the node is not wanted back.
    Removed,
    ByPlan,
}

impl State {
    pub(super) fn register(&mut self, cx: &mut Apply<'_>, r: &Registration) {
        cx.done.answer = match self.try_register(cx, r) {
            Ok(()) => Answer::Done,
            Err(failure) => Answer::Refused(failure),
        };
    }

    fn try_register(&mut self, cx: &mut Apply<'_>, r: &Registration) -> Result<(), Failure> {
        check(r)?;
        if self.cfg.stopping && self.stopped.is_none() {
            return Err(Failure::new("STOPPING", "the cluster is being stopped"));
        }
        let fenced = || Failure::new("FENCED", format!("this life of {} is over", r.node.id));
        if self.buried.contains(&r.node) {
            return Err(fenced());
        }
        let known = self.cfg.members.get(&r.node.id).cloned();
        match &known {
            Some(m) if m.incarnation == r.node.incarnation => {
                if !self.cfg.is_live(&r.node) {
                    return Err(fenced());
                }
                return self.refresh(cx, m, r);
            }
            Some(m) => {
                let old = Ref { id: r.node.id.clone(), incarnation: m.incarnation };
                if self.cfg.is_live(&old) && m.home != r.home {
                    return Err(Failure::new("ID_IN_USE", format!("a live node is called {} already", r.node.id))
                        .hint("give this node another --id, or stop the other one"));
                }
                // Said before a later life registered, by a process that may be dead: it ends nobody.
                if r.follows != Some(m.incarnation) && !mutant::is(Mutant::LateRegistration) {
                    return Err(Failure::new("OTHER_LIFE", format!("another life of {} came first", r.node.id)));
                }
                if self.cfg.is_live(&old) {
                    if mutant::is(Mutant::IgnoreIncarnation) {
                        self.rename(&old, &r.node);
                    }
                    self.bury(cx, std::slice::from_ref(&old), &[], End::Dead, "a new process runs in its home");
                }
            }
            None if self.cfg.members.len() >= MEMBERS_MAX => {
                return Err(Failure::new("TOO_MANY", format!("a cluster has at most {MEMBERS_MAX} nodes"))
                    .hint("forget nodes that are gone: cachectl forget NODE"));
            }
            None => {}
        }
        for (old, holder) in &mut self.holders {
            if old.id == r.node.id && holder.home == r.home {
                holder.gone = Some(Gone::NewLife);
            }
        }
        let state =
            if r.standby && !self.admitted.contains(&r.node.id) { NodeState::Standby } else { NodeState::Joining };
        self.cfg.members.insert(
            r.node.id.clone(),
            Member {
                incarnation: r.node.incarnation,
                home: r.home,
                addr: r.addr.clone(),
                peer_addr: r.peer_addr.clone(),
                state,
                zone: r.zone.clone(),
                weight: r.weight,
            },
        );
        self.cfg.stopping = false;
        cx.done.cfg_changed = true;
        let again = if known.is_some() { "again " } else { "" };
        cx.event(
            self,
            Severity::Info,
            "node-joined",
            r.node.id.as_str(),
            format!("{} joined {again}from {}", r.node.id, r.addr),
        );
        Ok(())
    }

    /// What must never be: a new life in the place of the old one.
    fn rename(&mut self, old: &Ref, new: &Ref) {
        for ix in 0..self.cfg.slots.len() {
            self.cfg.slots.update(ix, |s| {
                let all = s.insync.iter_mut().chain(&mut s.learners).map(|r| &mut r.node);
                all.chain(&mut s.primary).filter(|n| *n == old).for_each(|n| n.clone_from(new));
            });
        }
    }

    /// The same life says again who it is. Its peer address is evidence (section 7) and stays what it was.
    fn refresh(&mut self, cx: &mut Apply<'_>, old: &Member, r: &Registration) -> Result<(), Failure> {
        if old.home != r.home || old.peer_addr != r.peer_addr {
            return Err(Failure::new("BAD_REGISTRATION", "one life has one home and one peer address"));
        }
        if let Some(m) = self.cfg.members.get_mut(&r.node.id)
            && (m.addr != r.addr || m.zone != r.zone || m.weight != r.weight)
        {
            m.addr.clone_from(&r.addr);
            m.zone.clone_from(&r.zone);
            m.weight = r.weight;
            cx.done.cfg_changed = true;
        }
        Ok(())
    }

    pub(super) fn node_dead(&mut self, cx: &mut Apply<'_>, dead: &[Ref], avoid: &[Ref], cause: &str) {
        if self.cfg.stopping && self.stopped.is_none() {
            cx.refuse("STOPPING", "nobody is declared dead during a planned stop");
            return;
        }
        self.bury(cx, dead, avoid, End::Dead, cause);
    }

    /// Ends these lives, those of them that are live. Slots go as `slots::bury` says.
    fn bury(&mut self, cx: &mut Apply<'_>, dead: &[Ref], avoid: &[Ref], end: End, cause: &str) {
        let dead: BTreeMap<Ref, usize> =
            dead.iter().enumerate().filter(|(_, d)| self.cfg.is_live(d)).map(|(i, d)| (d.clone(), i)).collect();
        if dead.is_empty() {
            return;
        }
        cx.done.cfg_changed = true;
        let by_plan = end == End::ByPlan;
        let mut tallies: BTreeMap<Ref, Tally> = dead.keys().map(|d| (d.clone(), Tally::default())).collect();
        let mut orphaned = 0u64;
        let mut primaries = self.primaries();
        let former = self.buried.back().cloned();
        let concerned: Vec<bool> = self.cfg.slots.each(|s| slots::concerns(s, &dead)).iter().copied().collect();
        for ix in (0..concerned.len()).filter(|ix| concerned[*ix]) {
            let mut slot = SlotState::clone(&self.cfg.slots[ix]);
            let before = slot.primary.clone();
            let burial = slots::bury(&mut slot, cx.index, &dead, avoid, by_plan, &mut primaries);
            let of_primary = before.and_then(|p| tallies.get_mut(&p));
            match (burial, of_primary) {
                (Burial::Promoted, Some(tally)) => tally.promoted += 1,
                (Burial::Orphaned, tally) => {
                    orphaned += 1;
                    if mutant::is(Mutant::FormerMemberReturns) {
                        slot.last_holder = former.clone().or(slot.last_holder.take());
                    }
                    if let Some(tally) = tally {
                        tally.orphaned += 1;
                    }
                    if let Some(holder) = &slot.last_holder
                        && let Some(m) = self.cfg.members.get(&holder.id)
                    {
                        self.holders.entry(holder.clone()).or_insert_with(|| Holder {
                            home: m.home,
                            peer_addr: m.peer_addr.clone(),
                            gone: None,
                        });
                    }
                }
                _ => {}
            }
            self.cfg.slots.set(ix, Arc::new(slot));
        }
        for node in dead.keys() {
            if let Some(m) = self.cfg.members.get_mut(&node.id) {
                m.state = if end == End::Dead { NodeState::Dead } else { NodeState::Left };
            }
            self.buried.push_back(node.clone());
            while self.buried.len() > BURIED_KEPT {
                self.buried.pop_front();
            }
            if !by_plan {
                let t = &tallies[node];
                let text =
                    format!("{} is dead ({cause}): {} slots promoted, {} orphaned", node.id, t.promoted, t.orphaned);
                cx.event(self, Severity::Error, "node-dead", node.id.as_str(), text);
            }
        }
        if orphaned > 0 && !by_plan {
            let text = format!("{orphaned} slots have no holder left and answer CLUSTERDOWN");
            cx.event(self, Severity::Error, "slots-orphaned", "", text);
        }
    }

    /// Declares nodes dead on an operator's word. Their processes find themselves gone by plan, and end.
    pub(super) fn remove(&mut self, cx: &mut Apply<'_>, nodes: &[Ref]) {
        if self.cfg.stopping {
            return cx.refuse("STOPPING", "the cluster is being stopped");
        }
        self.bury(cx, nodes, &[], End::Removed, "removed by force");
        for node in nodes.iter().filter(|n| !self.cfg.is_live(n)) {
            self.admitted.remove(&node.id);
        }
    }

    pub(super) fn node_back(&mut self, cx: &mut Apply<'_>, node: &Ref) {
        let is_current = self.cfg.members.get(&node.id).is_some_and(|m| m.incarnation == node.incarnation);
        let may_return = self.holders.get(node).is_some_and(|h| h.gone.is_none());
        if !is_current || self.cfg.is_live(node) || !may_return {
            cx.refuse("FENCED", "this life is not the last holder of any slot");
            return;
        }
        let mut primaries = self.primaries();
        let mut back = 0u64;
        for ix in 0..self.cfg.slots.len() {
            let slot = &self.cfg.slots[ix];
            if slot.phase == Phase::Orphan && slot.last_holder.as_ref() == Some(node) {
                let since = slot.held_since;
                self.cfg.slots.update(ix, |slot| {
                    slots::install(slot, cx.index, node, &[], None, &mut primaries);
                    // Its membership goes on: by this it knows that what it has is the slot's.
                    slot.insync.iter_mut().for_each(|r| r.since = since);
                    slot.returned = true;
                });
                back += 1;
            }
        }
        if let Some(m) = self.cfg.members.get_mut(&node.id) {
            m.state = NodeState::Up;
        }
        self.buried.retain(|b| b != node);
        self.prune_holders();
        cx.done.cfg_changed = true;
        cx.event(self, Severity::Info, "node-back", node.id.as_str(), format!("{} is back with {back} slots", node.id));
    }

    pub(super) fn settled(&mut self, cx: &mut Apply<'_>, nodes: &[Ref]) {
        for node in nodes.iter().filter(|n| self.cfg.is_live(n)).cloned().collect::<Vec<_>>() {
            self.hold(cx, &node);
        }
    }

    /// A joining node that holds something is up.
    pub(super) fn hold(&mut self, cx: &mut Apply<'_>, node: &Ref) {
        if let Some(m) = self.cfg.members.get_mut(&node.id)
            && m.incarnation == node.incarnation
            && m.state == NodeState::Joining
        {
            m.state = NodeState::Up;
            cx.done.cfg_changed = true;
        }
    }

    pub(super) fn admit(&mut self, cx: &mut Apply<'_>, id: &NodeId) {
        let Some(m) = self.cfg.members.get_mut(id) else {
            return cx.refuse("NO_SUCH_NODE", format!("no node {id}"));
        };
        self.admitted.insert(id.clone());
        if m.state == NodeState::Standby {
            m.state = NodeState::Joining;
            cx.done.cfg_changed = true;
        }
    }

    pub(super) fn drain(&mut self, cx: &mut Apply<'_>, id: &NodeId, on: bool) {
        let Some(m) = self.cfg.members.get_mut(id) else {
            return cx.refuse("NO_SUCH_NODE", format!("no node {id}"));
        };
        let to = match (on, m.state) {
            (true, NodeState::Up | NodeState::Joining | NodeState::Standby) => NodeState::Draining,
            (false, NodeState::Draining) => NodeState::Up,
            (true, NodeState::Draining) | (false, NodeState::Up) => return,
            _ => return cx.refuse("NOT_LIVE", format!("{id} is not a live node")),
        };
        m.state = to;
        cx.done.cfg_changed = true;
        let text = if on { format!("{id} is being drained") } else { format!("{id} stays") };
        cx.event(self, Severity::Info, "node-draining", id.as_str(), text);
    }

    /// A scale operation begins, or (off) was given up: standby nodes are admitted, nodes to be removed are drained.
    pub(super) fn enlist(&mut self, cx: &mut Apply<'_>, kind: OperationKind, nodes: &[NodeId], on: bool) {
        for id in nodes {
            let Some(m) = self.cfg.members.get(id) else { continue };
            match (kind, on, m.state) {
                (OperationKind::ScaleOut, true, _) => self.admit(cx, id),
                (OperationKind::ScaleIn, true, NodeState::Up | NodeState::Joining | NodeState::Standby)
                | (OperationKind::ScaleIn, false, NodeState::Draining) => self.drain(cx, id, on),
                _ => {}
            }
        }
    }

    pub(super) fn node_left(&mut self, cx: &mut Apply<'_>, node: &Ref) {
        if self.cfg.member(node).is_none_or(|m| m.state == NodeState::Left) {
            return cx.refuse("NO_SUCH_NODE", format!("{} is no member", node.id));
        }
        if self.cfg.slots.iter().any(|s| s.replica(node).is_some() || s.last_holder.as_ref() == Some(node)) {
            return cx.refuse("UNSAFE", format!("{} still holds slots", node.id));
        }
        if let Some(m) = self.cfg.members.get_mut(&node.id) {
            m.state = NodeState::Left;
        }
        self.admitted.remove(&node.id);
        if !self.buried.contains(node) {
            self.buried.push_back(node.clone());
        }
        cx.done.cfg_changed = true;
        cx.event(self, Severity::Info, "node-left", node.id.as_str(), format!("{} left by plan", node.id));
    }

    pub(super) fn forget(&mut self, cx: &mut Apply<'_>, id: &NodeId) {
        let Some(current) = self.cfg.current(id) else {
            return cx.refuse("NO_SUCH_NODE", format!("no node {id}"));
        };
        let live = self.cfg.is_live(&current);
        let mut given_up = false;
        for (node, holder) in &mut self.holders {
            // A live node's earlier life may still be cut off somewhere: that one can be given up.
            if &node.id == id && holder.gone.is_none() {
                holder.gone = Some(Gone::Forgotten);
                given_up = true;
            }
        }
        if live && !given_up {
            return cx.refuse("NODE_LIVES", format!("{id} is alive: remove it instead"));
        }
        if !live {
            self.cfg.members.remove(id);
            self.admitted.remove(id);
            cx.done.cfg_changed = true;
        }
        cx.event(self, Severity::Warn, "node-forgotten", id.as_str(), format!("{id} was given up"));
    }

    pub(super) fn stopping(&mut self, cx: &mut Apply<'_>) {
        if self.cfg.stopping {
            return;
        }
        self.cfg.stopping = true;
        self.stopped = None;
        cx.done.cfg_changed = true;
        cx.event(self, Severity::Info, "stopping", "", "a planned stop of the cluster began".to_owned());
    }

    pub(super) fn stopped(&mut self, cx: &mut Apply<'_>, confirmed: &[Ref]) {
        if !self.cfg.stopping || self.stopped.is_some() {
            return cx.refuse("NOT_STOPPING", "no planned stop is under way");
        }
        let confirmed: BTreeSet<Ref> = confirmed.iter().filter(|n| self.cfg.is_live(n)).cloned().collect();
        let missing = self.cfg.members.iter().filter(|(id, m)| {
            let node = Ref { id: (*id).clone(), incarnation: m.incarnation };
            self.cfg.is_live(&node) && !confirmed.contains(&node)
        });
        let missing = missing.map(|(id, _)| id.as_str()).collect::<Vec<_>>().join(", ");
        let confirmed: Vec<Ref> = confirmed.into_iter().collect();
        self.bury(cx, &confirmed, &[], End::ByPlan, "");
        cx.done.cfg_changed = true;
        self.stopped = Some(Stopped { index: cx.index, nodes: confirmed.into_iter().map(|n| n.id).collect() });
        let text = if missing.is_empty() {
            "the cluster was stopped by plan".to_owned()
        } else {
            format!("the cluster was stopped by plan; not confirmed by {missing}")
        };
        cx.event(self, Severity::Info, "stopped", "", text);
    }

    /// Forgets holders that no orphan slot names any more.
    pub(super) fn prune_holders(&mut self) {
        if self.holders.is_empty() {
            return;
        }
        let named: BTreeSet<&Ref> = self.cfg.slots.iter().filter_map(|s| s.last_holder.as_ref()).collect();
        self.holders.retain(|node, _| named.contains(node));
    }
}

/// What a death did to the slots a node was primary of.
#[derive(Debug, Default)]
struct Tally {
    promoted: u64,
    orphaned: u64,
}

/// Refuses what no honest node says: it would be shown to people and routed to by clients.
fn check(r: &Registration) -> Result<(), Failure> {
    let bad = |what: &str| Err(Failure::new("BAD_REGISTRATION", what));
    let plain = |s: &str| s.bytes().all(|b| b.is_ascii_graphic());
    for addr in [&r.addr, &r.peer_addr] {
        if addr.is_empty() || addr.len() > ADDR_MAX || !plain(addr) {
            return bad("an address is host:port");
        }
    }
    if r.zone.len() > ZONE_MAX || !plain(&r.zone) {
        return bad("a zone is at most 64 printable ASCII characters without blanks");
    }
    // NaN fails this too.
    if !(WEIGHT_MIN..=WEIGHT_MAX).contains(&r.weight) {
        return bad("a weight is between 0.01 and 100");
    }
    if r.node.incarnation == Incarnation(0) {
        return bad("an incarnation is never 0");
    }
    Ok(())
}
