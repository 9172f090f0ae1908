//! Slots that nobody holds: the first hand-out, and orphans whose last holder is known gone (PROTOCOL section 7).

use super::{Brain, Purpose, Turn};
use crate::node::cache::slot::PROMISE_MS;
use crate::node::clock::Mono;
use crate::node::master::entry::Act;
use crate::node::master::operation::{formation, hand_outs, may_hold};
use crate::node::master::state::State;
use crate::proto::status::NodeState;

/// After a whole restart the known nodes are waited for, milliseconds, so that the first to come does not get everything.
pub const RESTART_WAIT_MS: u64 = 5000;

impl Brain {
    /// Hands all slots out for the first time, once enough nodes are there or the wait for them is over.
    pub(super) fn form(&mut self, t: &mut Turn<'_>) {
        let (now, state) = (t.now, t.state);
        if self.survey.formed || self.is_busy(|p| matches!(p, Purpose::Form)) {
            return;
        }
        let Some(since) = self.holders_since else { return };
        let there = state.cfg.members.values().filter(|m| may_hold(m.state)).count();
        let waited = now.ms_since(since) >= self.params.form_wait_ms;
        if there == 0 || (there < self.params.expect_nodes && !waited) {
            return;
        }
        let placements = formation(state);
        if !placements.is_empty() {
            self.propose(t, Purpose::Form, Act::Form { placements });
        }
    }

    /// Hands out the orphans whose holder is gone; the others stay as they are.
    pub(super) fn hand_out(&mut self, t: &mut Turn<'_>) {
        let (now, state) = (t.now, t.state);
        if !self.survey.formed
            || self.survey.orphans == 0
            || self.is_busy(|p| matches!(p, Purpose::HandOut))
            || self.awaits_known_nodes(now, state)
        {
            return;
        }
        let gone = self.trials.proven(&self.elsewhere());
        // Lives that stopped by plan confirmed that they serve nothing, and their promises to others bound nobody but them:
        // no lease that one of them granted is longer than a promise, and this leader began after they confirmed.
        let over = self.leading_since().is_some_and(|since| now.ms_since(since) > PROMISE_MS);
        let runs = hand_outs(state, &gone, &self.shunned(now, state), over);
        if !runs.is_empty() {
            self.propose(t, Purpose::HandOut, Act::HandOut { gone, runs });
        }
    }

    /// Whether known nodes are missing shortly after the leader began, or after the first node came to a cluster that had
    /// none: they may be on their way, and one hand-out for all is one loss event.
    fn awaits_known_nodes(&self, now: Mono, state: &State) -> bool {
        let Some(since) = self.leading_since().max(self.holders_since) else { return true };
        if now.ms_since(since) >= RESTART_WAIT_MS {
            return false;
        }
        let stopped = state.stopped.iter().flat_map(|s| &s.nodes);
        let missing = stopped.filter(|id| state.cfg.members.get(*id).is_some_and(|m| m.state == NodeState::Left));
        let dead = state.cfg.members.values().filter(|m| m.state == NodeState::Dead);
        let unheard = state.cfg.members.keys().filter(|id| {
            state.cfg.current(id).is_some_and(|n| state.cfg.is_live(&n) && !self.heartbeats.was_heard(&n))
        });
        missing.count() + dead.count() + unheard.count() > 0
    }

    /// Joining nodes for which nothing is to do are up.
    pub(super) fn settle(&mut self, t: &mut Turn<'_>) {
        let state = t.state;
        let idle = self.survey.formed && self.survey.orphans == 0 && self.survey.solo == 0;
        if !idle || self.is_busy(|p| matches!(p, Purpose::Settle)) {
            return;
        }
        let joining = state.cfg.members.iter().filter(|(_, m)| m.state == NodeState::Joining);
        let nodes: Vec<_> = joining.filter_map(|(id, _)| state.cfg.current(id)).collect();
        if !nodes.is_empty() {
            self.propose(t, Purpose::Settle, Act::Settled { nodes });
        }
    }
}
