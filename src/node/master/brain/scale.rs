//! What operators ask for: PLAN shows an operation, APPLY begins it as it was shown; nodes that join by themselves get theirs.

use std::collections::BTreeMap;

use super::{Asker, Brain, Purpose, Turn, plain};
use crate::node::master::entry::{Act, OperationStep};
use crate::node::master::moves::{Goals, planned_nodes};
use crate::node::master::operation::may_hold;
use crate::node::master::state::{State, count};
use crate::proto::control::Message;
use crate::proto::error::Failure;
use crate::proto::id::{NodeId, Ref};
use crate::proto::operation::{Accepted, Apply, OperationKind, PlanView, PlannedMove, Role, Wish};
use crate::proto::plan::Plan;
use crate::proto::status::NodeState;
use crate::proto::view::SlotState;

/// Nodes one operation names at most; more hide what it does.
const NODES_MAX: usize = 100;

impl Brain {
    pub(super) fn plan_wish(&mut self, t: &mut Turn<'_>, asker: Asker, wish: &Wish) {
        let message = match check(t.state, wish, false) {
            Ok(()) => Message::Planned(Box::new(self.plan_view(t.state, wish))),
            Err(failure) => Message::Error(failure),
        };
        t.reply(asker, message);
    }

    pub(super) fn apply_wish(&mut self, t: &mut Turn<'_>, asker: Asker, by: &str, apply: &Apply) {
        let (state, wish) = (t.state, &apply.wish);
        if let Err(failure) = check(state, wish, true) {
            return t.reply(asker, Message::Error(failure));
        }
        let plan = self.plan_view(state, wish);
        let open = state.operations.iter().filter(|(_, o)| o.state.is_open() && !o.cancelling);
        let mut same = open.filter(|(_, o)| o.kind == wish.kind && wish.nodes.iter().all(|n| o.nodes.contains(n)));
        if wish.kind != OperationKind::Rebalance
            && let Some((id, _)) = same.next()
        {
            // Asked twice: by a node that repeats itself, or after an answer that was lost.
            let accepted = Accepted { operation: Some(*id), plan };
            return t.reply(asker, Message::Accepted(Box::new(accepted)));
        }
        let twin = |p: &Purpose| {
            let Purpose::Applied { plan, .. } = p else { return false };
            plan.wish.kind == wish.kind && wish.nodes.iter().all(|n| plan.wish.nodes.contains(n))
        };
        if self.is_busy(twin) {
            // A second drain of one life would be begun when the first is done, and take its next life.
            return t.fail(asker, "TRY_AGAIN", "the same is being put on record");
        }
        if apply.moves_digest.as_ref().is_some_and(|d| *d != plan.moves_digest) {
            let was = apply.epoch.map_or_else(String::new, |e| format!(" at epoch {e}"));
            let failure = Failure::new("STALE_PLAN", format!("the plan made{was} would do something else now"));
            return t.reply(asker, Message::Error(failure.hint("look at the new plan and apply that")));
        }
        let act = if removes_at_once(state, wish) {
            Act::Remove { nodes: wish.nodes.iter().filter_map(|id| state.cfg.current(id)).collect() }
        } else {
            let waits = wish.nodes.iter().any(|id| state.cfg.members.get(id).is_some_and(|m| m.state != NodeState::Up));
            if plan.slots_total == 0 && wish.kind != OperationKind::ScaleIn && !waits {
                let failure = Failure::new("NOTHING_TO_DO", "the slots are where this would put them");
                return t.reply(asker, Message::Error(failure));
            }
            create(wish.kind, &wish.nodes, &plan)
        };
        self.propose_for(t, Purpose::Applied { asker, plan: Box::new(plan) }, act, Some(plain(by)));
    }

    /// A node that joined by itself gets its share: one operation for all that joined by now.
    pub(super) fn welcome(&mut self, t: &mut Turn<'_>) {
        let state = t.state;
        let seen = Some(state.cfg.cfg_index);
        let busy = self.is_busy(|p| matches!(p, Purpose::Welcome));
        if !self.survey.formed || self.survey.orphans > 0 || self.welcomed == seen || busy {
            return;
        }
        let named = |id: &NodeId| state.operations.values().any(|o| o.state.is_open() && o.nodes.contains(id));
        let joining = state.cfg.members.iter().filter(|(id, m)| m.state == NodeState::Joining && !named(id));
        let nodes: Vec<NodeId> = joining.map(|(id, _)| id.clone()).take(NODES_MAX).collect();
        self.welcomed = seen;
        if nodes.is_empty() {
            return;
        }
        let wish = Wish { kind: OperationKind::ScaleOut, nodes, force: false, accept_data_loss: false };
        let plan = self.plan_view(state, &wish);
        if plan.slots_total > 0 {
            self.welcomed = None;
            let act = create(wish.kind, &wish.nodes, &plan);
            self.propose(t, Purpose::Welcome, act);
        }
    }

    fn plan_view(&mut self, state: &State, wish: &Wish) -> PlanView {
        let cfg = &state.cfg;
        let mut view = PlanView {
            wish: wish.clone(),
            epoch: cfg.cfg_index,
            moves_digest: String::new(),
            moves: Vec::new(),
            slots_total: 0,
            bytes: 0,
            estimate_ms: None,
            warnings: Vec::new(),
        };
        if removes_at_once(state, wish) {
            view.moves_digest = format!("{:016x}", crate::proto::plan::digest(&[]));
            view.warnings = losses(state, wish);
            return view;
        }
        let nodes = planned_nodes(cfg, wish.kind, &wish.nodes);
        let plan = self.planner.plan(cfg, &Goals::default(), &nodes);
        let mut pairs: BTreeMap<(Role, Option<NodeId>, NodeId), PlannedMove> = BTreeMap::new();
        for m in &plan.moves {
            let Some(to) = &m.to else { continue };
            let key = (m.what, m.from.clone(), to.clone());
            let pair = pairs.entry(key).or_insert_with(|| PlannedMove {
                role: m.what,
                from: m.from.clone(),
                to: to.clone(),
                runs: Vec::new(),
                slots: 0,
                keys: 0,
                bytes: 0,
            });
            pair.runs.push((m.first, m.last));
            pair.slots += m.slots() as u64;
        }
        // A node that held the slot already, as it does where roles are swapped, needs no copy.
        let mut copied: BTreeMap<(Role, Option<NodeId>, NodeId), u64> = BTreeMap::new();
        for m in plan.moves.iter().filter(|m| m.to.is_some()) {
            let held = |s: &SlotState| s.insync.iter().any(|r| Some(&r.node.id) == m.to.as_ref());
            let copies = cfg.slots.range(m.first.ix(), m.last.ix()).filter(|s| !held(s)).count() as u64;
            if let Some(to) = &m.to {
                *copied.entry((m.what, m.from.clone(), to.clone())).or_default() += copies;
            }
        }
        for (key, pair) in &mut pairs {
            let (keys, bytes) = self.share(state, pair.role, pair.from.as_ref());
            pair.keys = (keys * pair.slots as f64) as u64;
            pair.bytes = (bytes * pair.slots as f64) as u64;
            view.bytes += (bytes * copied.get(key).copied().unwrap_or(0) as f64) as u64;
        }
        view.moves_digest = format!("{:016x}", plan.digest);
        view.slots_total = count(&plan.moves);
        view.moves = pairs.into_values().collect();
        view.estimate_ms = self.moves.last_rate().map(|rate| view.bytes.saturating_mul(1000) / rate);
        view.warnings = warnings(cfg.backups, &plan, &nodes);
        view
    }

    /// Keys and bytes in a slot of this giver, on average.
    fn share(&self, state: &State, role: Role, from: Option<&NodeId>) -> (f64, f64) {
        let Some(node) = from.and_then(|id| state.cfg.current(id)) else { return (0.0, 0.0) };
        let Some(beat) = self.heartbeats.of(&node) else { return (0.0, 0.0) };
        let stats = beat.stats();
        let slots = |of: &dyn Fn(&SlotState) -> bool| {
            state.cfg.slots.counts().filter(|(s, _)| of(s)).map(|(_, n)| n as usize).sum::<usize>()
        };
        match role {
            Role::Primary => {
                let led = slots(&|s| s.primary.as_ref() == Some(&node));
                per_slot(stats.primary_keys, stats.primary_bytes, led)
            }
            Role::Backup => {
                let backed = slots(&|s| s.backups().any(|r| r.node == node));
                per_slot(stats.backup_keys, stats.backup_bytes, backed)
            }
        }
    }
}

fn per_slot(keys: u64, bytes: u64, slots: usize) -> (f64, f64) {
    let slots = slots.max(1) as f64;
    (keys as f64 / slots, bytes as f64 / slots)
}

fn create(kind: OperationKind, nodes: &[NodeId], plan: &PlanView) -> Act {
    let moves_digest = u64::from_str_radix(&plan.moves_digest, 16).unwrap_or(0);
    Act::Operation(OperationStep::Create { kind, nodes: nodes.to_vec(), slots_total: plan.slots_total, moves_digest })
}

/// Whether the wish can be done at all; `apply` = it is to be done now, so whom it names must be there.
fn check(state: &State, wish: &Wish, apply: bool) -> Result<(), Failure> {
    let cfg = &state.cfg;
    let no_such = |id: &NodeId| Failure::new("NO_SUCH_NODE", format!("no live node {id}"));
    if cfg.stopping {
        return Err(Failure::new("BUSY", "the cluster is being stopped"));
    }
    if !state.is_formed() {
        return Err(Failure::new("BUSY", "the slots were not handed out yet").hint("wait until the cluster is ok"));
    }
    if wish.nodes.len() > NODES_MAX {
        return Err(Failure::new("BAD_DATA", format!("one operation names at most {NODES_MAX} nodes")));
    }
    let member = |id: &NodeId| cfg.members.get(id).filter(|_| cfg.current(id).is_some_and(|n| cfg.is_live(&n)));
    let elsewhere = |kind: OperationKind, id: &NodeId| {
        let other =
            |o: &&crate::node::master::state::Operation| o.state.is_open() && o.kind != kind && o.nodes.contains(id);
        state.operations.iter().find(|(_, o)| other(o)).map(|(op, _)| *op)
    };
    for id in &wish.nodes {
        if let Some(op) = elsewhere(wish.kind, id).filter(|_| !wish.force) {
            return Err(Failure::new("BUSY", format!("operation {op} is about {id}"))
                .hint(format!("wait for it, or cancel it: cachectl ops cancel {op}")));
        }
    }
    match wish.kind {
        OperationKind::Rebuild => Err(Failure::new("UNSUPPORTED", "rebuilds begin by themselves")),
        OperationKind::Rebalance if wish.nodes.is_empty() => Ok(()),
        OperationKind::Rebalance => Err(Failure::new("BAD_DATA", "a rebalance is about all nodes")),
        _ if wish.nodes.is_empty() => Err(Failure::new("NO_SUCH_NODE", "no node is named")),
        OperationKind::ScaleOut => match wish.nodes.iter().find(|id| apply && member(id).is_none()) {
            Some(id) => Err(no_such(id).hint("start it first")),
            None => Ok(()),
        },
        OperationKind::ScaleIn => {
            if let Some(id) = wish.nodes.iter().find(|id| member(id).is_none()) {
                return Err(no_such(id).hint("a dead node is forgotten: cachectl forget NODE"));
            }
            if wish.accept_data_loss {
                return Ok(());
            }
            if leaves_nobody(state, wish) {
                return Err(Failure::new("LAST_NODE", "no node is left to take the slots")
                    .hint("add a node first, or say --accept-data-loss"));
            }
            let lost = if wish.force { only_there(state, wish) } else { 0 };
            if lost > 0 {
                return Err(Failure::new("SOLE_HOLDER", format!("{lost} slots are held by nobody else"))
                    .hint("wait for their rebuild, drain instead of --force, or say --accept-data-loss"));
            }
            Ok(())
        }
    }
}

fn leaves_nobody(state: &State, wish: &Wish) -> bool {
    !state.cfg.members.iter().any(|(id, m)| may_hold(m.state) && !wish.nodes.contains(id))
}

/// Slots in sync nowhere but on the nodes of the wish.
fn only_there(state: &State, wish: &Wish) -> usize {
    let there = |r: &crate::proto::view::Replica| wish.nodes.contains(&r.node.id);
    state.cfg.slots.iter().filter(|s| s.primary.is_some() && s.insync.iter().all(there)).count()
}

/// Whether nodes are declared dead rather than drained: by force, or since nobody could take what they hold.
fn removes_at_once(state: &State, wish: &Wish) -> bool {
    wish.kind == OperationKind::ScaleIn && (wish.force || leaves_nobody(state, wish))
}

fn losses(state: &State, wish: &Wish) -> Vec<String> {
    let member = |n: &Ref| wish.nodes.contains(&n.id);
    let lost = only_there(state, wish);
    let touched = state.cfg.slots.iter().filter(|s| s.insync.iter().any(|r| member(&r.node))).count();
    let mut out = vec![format!("{} slots lose a copy at once and are rebuilt from the other one", touched - lost)];
    if lost > 0 {
        out.push(format!("{lost} slots are held by nobody else: what is in them is lost"));
    }
    out
}

fn warnings(backups: u8, plan: &Plan, nodes: &[crate::proto::plan::PlanNode]) -> Vec<String> {
    let mut out = Vec::new();
    let alone = plan.target.iter().filter(|p| backups > 0 && p.primary.is_some() && p.backup.is_none()).count();
    if alone > 0 {
        out.push(format!("{alone} slots will have no backup: there is no other node to hold it"));
    }
    let stays = plan.moves.iter().filter(|m| m.what == Role::Primary && m.to.is_none());
    let stays: usize = stays.map(crate::proto::plan::Move::slots).sum();
    if stays > 0 {
        out.push(format!("{stays} slots stay where they are: there is no other node to lead them"));
    }
    let zones: BTreeMap<&NodeId, &str> = nodes.iter().map(|n| (&n.id, n.zone.as_str())).collect();
    let zone = |id: &Option<NodeId>| id.as_ref().and_then(|id| zones.get(id).copied()).filter(|z| !z.is_empty());
    let near = plan.target.iter().filter(|p| zone(&p.primary).is_some() && zone(&p.primary) == zone(&p.backup)).count();
    if near > 0 {
        out.push(format!("{near} slots will have primary and backup in one zone"));
    }
    out
}
