//! Nodes that register, beat, and come back.

use super::{Asker, Brain, PROPOSALS_MAX, Purpose, Stage, Turn};
use crate::node::clock::Mono;
use crate::node::master::entry::{Act, Answer, Registration};
use crate::node::master::report::iplist;
use crate::node::master::state::State;
use crate::node::mutant::{self, Mutant};
use crate::proto::control::{AddCacheServer, Added, KeepAlive, KeepAliveAck, LastLife, Message};
use crate::proto::id::Ref;

impl Brain {
    /// Re-arms the node's timer and acknowledges, whoever it is: a node that is no member learns that from the
    /// configuration it then pulls.
    pub(super) fn keep_alive(&mut self, t: &mut Turn<'_>, asker: Asker, at: Mono, msg: KeepAlive) {
        let (now, state) = (t.now, t.state);
        // Said at once: a node that waits here for an ack is silent to the leader meanwhile.
        let Some(leader) = self.leading(now).cloned() else { return t.redirect(asker) };
        // A clock read before this step can't be ahead of it; if it is, it is no receipt.
        let at = at.min(now);
        let live = self.heartbeats.beat(&msg.node, asker.conn, at, msg.cfg_index, msg.stats);
        let ack = KeepAliveAck { leader, cfg_index: state.cfg.cfg_index };
        t.reply(asker, Message::KeepAliveAck(ack));
        if !live && knows_its_death(state, &msg.node, msg.cfg_index) {
            self.claim(t, &msg.node, None);
        }
    }

    pub(super) fn register(&mut self, t: &mut Turn<'_>, asker: Asker, msg: AddCacheServer) {
        let (now, state) = (t.now, t.state);
        if self.stage == Stage::Ended {
            return t.fail(asker, "STOPPING", "the cluster is being stopped");
        }
        if self.leading(now).is_none() {
            return t.redirect(asker);
        }
        if self.pending.len() >= PROPOSALS_MAX {
            return t.fail(asker, "TRY_AGAIN", "too many requests are under way");
        }
        let node = msg.node.clone();
        let registered = state.cfg.is_live(&node)
            && state.cfg.members.get(&node.id).is_some_and(|m| {
                m.home == msg.home
                    && m.addr == msg.addr
                    && m.peer_addr == msg.peer_addr
                    && m.zone == msg.zone
                    && m.weight == msg.weight
            });
        if registered {
            // Said again, to a new leader perhaps: nothing for the log.
            return self.joined(t, asker, &node, Answer::Done);
        }
        if state.holders.get(&node).is_some_and(|h| h.gone.is_none()) {
            return self.claim(t, &node, Some(asker));
        }
        if state.buried.contains(&node) {
            // Known without asking the log: a fenced node may ask often.
            return t.fail(asker, "FENCED", &format!("this life of {} is over", node.id));
        }
        let known = state.cfg.members.get(&node.id).filter(|m| m.incarnation != node.incarnation);
        if let Some(m) = known.filter(|m| msg.follows != Some(m.incarnation)) {
            let last = Ref { id: node.id.clone(), incarnation: m.incarnation };
            // Another process with this name is told so by the log.
            let is_taken = state.cfg.is_live(&last) && m.home != msg.home;
            if !is_taken && !mutant::is(Mutant::LateRegistration) {
                return t.reply(asker, Message::LastLife(LastLife { node: last }));
            }
        }
        let registration = Registration {
            node: msg.node,
            home: msg.home,
            addr: msg.addr,
            peer_addr: msg.peer_addr,
            zone: msg.zone,
            weight: msg.weight,
            standby: msg.standby,
            follows: msg.follows,
        };
        self.propose(t, Purpose::Register { asker, node }, Act::Register(registration));
    }

    /// A dead life that is the last holder of orphan slots says that it lives.
    fn claim(&mut self, t: &mut Turn<'_>, node: &Ref, answer: Option<Asker>) {
        let state = t.state;
        let may_return = state.holders.get(node).is_some_and(|h| h.gone.is_none());
        let under_way =
            self.is_busy(|p| matches!(p, Purpose::Back { node: n, answer: a } if n == node && *a == answer));
        if may_return && !under_way && self.pending.len() < PROPOSALS_MAX {
            self.propose(t, Purpose::Back { node: node.clone(), answer }, Act::NodeBack { node: node.clone() });
        }
    }

    /// Tells a node what became of its registration.
    pub(super) fn joined(&mut self, t: &mut Turn<'_>, asker: Asker, node: &Ref, answer: Answer) {
        let (now, state) = (t.now, t.state);
        let message = match answer {
            Answer::Refused(failure) => Message::Error(failure),
            Answer::Done | Answer::Operation(_) => {
                self.follow(t);
                self.heartbeats.registered(node, asker.conn, now);
                Message::Added(Added {
                    cluster_id: state.cfg.cluster_id,
                    operation: None,
                    iplist: iplist(&state.cfg),
                    view: state.cfg.full(),
                })
            }
        };
        t.reply(asker, message);
    }
}

/// Whether a node stands at a configuration that shows it dead: an older beat of it, read late, claims nothing.
fn knows_its_death(state: &State, node: &Ref, cfg_index: u64) -> bool {
    state.holders.contains_key(node)
        && state.cfg.slots.iter().any(|s| s.last_holder.as_ref() == Some(node) && s.pterm <= cfg_index)
}
