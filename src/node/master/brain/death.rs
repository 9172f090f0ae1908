//! Who is dead: by its timer, by two refusals, or neither yet because it may be the leader that is cut off.

use std::collections::{BTreeMap, BTreeSet};

use super::moves::is_drained;
use super::{Brain, Command, ConnId, ProbeOutcome, Purpose, Turn};
use crate::node::clock::Mono;
use crate::node::master::entry::Act;
use crate::node::master::heartbeat::{FAST_REFUSALS, Verdict};
use crate::proto::event::Severity;
use crate::proto::id::{MasterId, NodeId, Ref};
use crate::proto::status::NodeState;

/// A proven death waits this long for others whose probes are under way, milliseconds: deaths known together go together.
pub const GATHER_MS: u64 = 20;
/// Before a mass death the other masters have this long to say whom they reach, milliseconds.
pub const MASS_WAIT_MS: u64 = 1000;
/// The master that reaches more has this long to take over, milliseconds, before the leader decides alone.
pub const MASS_TRANSFER_MS: u64 = 3000;

/// More than half of the nodes fell silent at once. It may be the leader that is cut off, so all masters try their ports.
#[derive(Debug)]
pub(super) struct MassCheck {
    since: Mono,
    /// Whom each master tried, none = this one, and what it met.
    met: BTreeMap<(NodeId, Option<MasterId>), ProbeOutcome>,
    asked: BTreeSet<NodeId>,
    transferred: Option<Mono>,
}

impl Brain {
    pub(super) fn conn_ended(&mut self, now: Mono, conn: ConnId) {
        if self.params.refused_is_death {
            self.heartbeats.conn_ended(conn, now);
        }
    }

    /// Sends the probes that are due: of nodes whose connection ended, and of the last holders of orphan slots.
    pub(super) fn send_probes(&mut self, t: &mut Turn<'_>) {
        let (now, state) = (t.now, t.state);
        for node in self.heartbeats.due_probes(now) {
            if let Some(m) = state.cfg.member(&node) {
                t.say(Command::Probe { addr: m.peer_addr.clone(), node, via: None });
            }
        }
        if !self.params.refused_is_death {
            return;
        }
        for node in self.trials.due(now) {
            let Some(holder) = state.holders.get(&node) else { continue };
            let via = std::iter::once(None).chain(self.elsewhere().into_iter().map(Some));
            for via in via {
                t.say(Command::Probe { node: node.clone(), addr: holder.peer_addr.clone(), via });
            }
        }
    }

    /// Masters on other hosts than this one.
    pub(super) fn elsewhere(&self) -> Vec<MasterId> {
        self.params.others.iter().filter(|(_, elsewhere)| *elsewhere).map(|(m, _)| m.clone()).collect()
    }

    pub(super) fn probed(&mut self, now: Mono, node: &Ref, outcome: ProbeOutcome, via: Option<MasterId>) {
        if let Some(mass) = &mut self.mass
            && mass.asked.contains(&node.id)
        {
            mass.met.insert((node.id.clone(), via.clone()), outcome);
        }
        if via.is_none() {
            self.heartbeats.probed(node, outcome, now);
        }
        self.trials.probed(node, outcome, via, now);
    }

    /// Tells people who fell silent and who is heard again.
    pub(super) fn note_suspects(&mut self, t: &mut Turn<'_>) {
        let now = t.now;
        for (node, suspect) in self.heartbeats.turned(now) {
            let (severity, kind, text) = if suspect {
                let ms = self.heartbeats.silent_ms(&node, now);
                (Severity::Warn, "node-suspect", format!("{} is suspect: no heartbeat for {ms} ms", node.id))
            } else {
                (Severity::Info, "node-recovered", format!("{} beats again", node.id))
            };
            let note = Act::Note { severity, kind: kind.into(), subject: node.id.to_string(), text };
            self.propose(t, Purpose::Note, note);
        }
    }

    pub(super) fn judge(&mut self, t: &mut Turn<'_>) {
        let now = t.now;
        let mut v = self.heartbeats.judge(now);
        if v.proven.is_empty() && v.expired.is_empty() {
            self.mass = None;
            return;
        }
        if self.is_busy(|p| matches!(p, Purpose::Dead(_))) {
            return;
        }
        let gathering = v.undecided && v.proven_at.is_some_and(|at| now.ms_since(at) < GATHER_MS);
        if gathering {
            return;
        }
        // Who was drained and is silent has left: that is no death.
        let (drained, silent): (Vec<Ref>, Vec<Ref>) =
            v.proven.iter().chain(&v.expired).cloned().partition(|n| is_drained(t.state, n));
        for node in &drained {
            self.gone(t, node);
        }
        if silent.is_empty() {
            return;
        }
        v.proven.retain(|n| !drained.contains(n));
        v.expired.retain(|n| !drained.contains(n));
        if self.holds_mass_death(t, &v) {
            v.suspects.append(&mut v.expired);
        }
        let cause = match (v.proven.is_empty(), v.expired.first()) {
            (true, None) => return,
            (false, None) => format!("connection refused {FAST_REFUSALS} times"),
            (true, Some(first)) => format!("no heartbeat for {} ms", self.heartbeats.silent_ms(first, now)),
            (false, Some(_)) => "connection refused, or no heartbeat".to_owned(),
        };
        // Those that may yet return come last: who is refused is gone, who is silent may be paused.
        let dead: Vec<Ref> = v.proven.into_iter().chain(v.expired).collect();
        let act = Act::NodeDead { dead: dead.clone(), avoid: v.suspects, cause };
        self.propose(t, Purpose::Dead(dead), act);
    }

    /// Before deaths by timer that would leave under half of the nodes up, every master tries the silent ones' ports. Where
    /// another reaches one that this one does not, leadership goes there. True: wait.
    fn holds_mass_death(&mut self, t: &mut Turn<'_>, v: &Verdict) -> bool {
        let (now, state) = (t.now, t.state);
        let live = state.cfg.members.values();
        let live = live.filter(|m| matches!(m.state, NodeState::Up | NodeState::Joining | NodeState::Draining)).count();
        let left = live.saturating_sub(v.proven.len() + v.expired.len());
        if v.expired.is_empty() || left * 2 >= live || self.params.others.is_empty() {
            self.mass = None;
            return false;
        }
        let mass = self.mass.get_or_insert_with(|| MassCheck {
            since: now,
            met: BTreeMap::new(),
            asked: BTreeSet::new(),
            transferred: None,
        });
        for node in &v.expired {
            let Some(m) = state.cfg.member(node) else { continue };
            if mass.asked.insert(node.id.clone()) {
                for via in std::iter::once(None).chain(self.params.others.iter().map(|(m, _)| Some(m.clone()))) {
                    t.say(Command::Probe { node: node.clone(), addr: m.peer_addr.clone(), via });
                }
            }
        }
        if let Some(at) = mass.transferred {
            return now.ms_since(at) < MASS_TRANSFER_MS;
        }
        let outcome = |node: &Ref, via: &Option<MasterId>| mass.met.get(&(node.id.clone(), via.clone())).copied();
        // A refusal comes from the node's own host: the way there is open, and its process is gone.
        if v.expired.iter().all(|n| outcome(n, &None) == Some(ProbeOutcome::Refused)) {
            return false;
        }
        let reach = |via: &Option<MasterId>| {
            v.expired
                .iter()
                .filter(|n| {
                    outcome(n, via) == Some(ProbeOutcome::Open) && outcome(n, &None) != Some(ProbeOutcome::Open)
                })
                .count()
        };
        let asked = |via: &Option<MasterId>| v.expired.iter().all(|n| outcome(n, via).is_some());
        let all_said = asked(&None) && self.params.others.iter().all(|(m, _)| asked(&Some(m.clone())));
        if !all_said && now.ms_since(mass.since) < MASS_WAIT_MS {
            return true;
        }
        let best = self.params.others.iter().map(|(m, _)| m).max_by_key(|m| reach(&Some((*m).clone())));
        match best {
            Some(m) if reach(&Some(m.clone())) > 0 => {
                t.say(Command::Transfer { to: Some(m.clone()), answer: None });
                mass.transferred = Some(now);
                true
            }
            // All masters are as blind, or as well off: then it is the nodes.
            _ => false,
        }
    }
}
