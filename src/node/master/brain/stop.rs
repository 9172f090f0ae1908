//! CLUSTER_STOP: everything stops by plan, and nothing of it counts as a loss (PROTOCOL section 7).
//!
//! ```text
//!  STOPPING committed ──▶ STOP to every live node, repeated ──▶ all confirmed, or the wait is over ──▶ STOPPED ──▶ exit
//! ```

use std::collections::BTreeSet;

use super::{Asker, Brain, Command, PROPOSALS_MAX, Purpose, Stage, Turn};
use crate::node::clock::Mono;
use crate::node::master::entry::Act;
use crate::proto::control::{Empty, Message};
use crate::proto::id::Ref;

/// How long nodes may take to settle what they owe their clients and confirm, milliseconds: twice the 5 s after which a
/// write gets INDETERMINATE.
pub const CONFIRM_MS: u64 = 10_000;
/// The order is repeated this often, milliseconds: a node may have missed it while it changed masters.
pub const REPEAT_MS: u64 = 500;

/// A stop under way.
#[derive(Debug)]
pub(super) struct Stop {
    since: Mono,
    next_order: Mono,
    confirmed: BTreeSet<Ref>,
    /// Who asked first, for the record.
    by: Option<String>,
    /// Operators to answer.
    pub(super) waiters: Vec<Asker>,
}

impl Stop {
    fn new(now: Mono, by: Option<String>) -> Self {
        Self { since: now, next_order: now, confirmed: BTreeSet::new(), by, waiters: Vec::new() }
    }

    pub(super) fn confirm(&mut self, node: Ref) {
        self.confirmed.insert(node);
    }
}

impl Brain {
    pub(super) fn cluster_stop(&mut self, t: &mut Turn<'_>, asker: Asker, by: &str) {
        let (now, state) = (t.now, t.state);
        if state.cfg.stopping && state.stopped.is_some() {
            // Stopped before, and nobody has registered since: there is nothing left to stop but the masters.
            t.reply(asker, Message::Ok(Empty {}));
            return self.end(t);
        }
        let stop = self.stop.get_or_insert_with(|| Stop::new(now, Some(by.to_owned())));
        if stop.waiters.len() >= PROPOSALS_MAX {
            return t.fail(asker, "TRY_AGAIN", "too many requests are under way");
        }
        stop.waiters.push(asker);
    }

    /// An operator asked this leader, or one before it, whose STOPPING is applied.
    pub(super) fn drive_stop(&mut self, t: &mut Turn<'_>) {
        let (now, state) = (t.now, t.state);
        let stop = self.stop.get_or_insert_with(|| Stop::new(now, None));
        if !state.cfg.stopping {
            let by = stop.by.clone();
            if !self.is_busy(|p| matches!(p, Purpose::Stopping)) {
                self.propose_for(t, Purpose::Stopping, Act::Stopping, by);
            }
            return;
        }
        if state.stopped.is_some() {
            return self.end(t);
        }
        let live = state.cfg.members.keys().filter_map(|id| state.cfg.current(id)).filter(|n| state.cfg.is_live(n));
        let open: Vec<Ref> = live.filter(|n| !stop.confirmed.contains(n)).collect();
        let verdict = self.heartbeats.judge(now);
        // Who is silent won't confirm; it stays a member with its data.
        let awaited = open.iter().any(|n| !verdict.expired.contains(n) && !verdict.proven.contains(n));
        if awaited && now.ms_since(stop.since) < CONFIRM_MS {
            if stop.next_order <= now {
                stop.next_order = now.plus_ms(REPEAT_MS);
                t.say(Command::OrderStop { cfg_index: state.cfg.cfg_index, nodes: open });
            }
            return;
        }
        let confirmed = stop.confirmed.iter().cloned().collect();
        if !self.is_busy(|p| matches!(p, Purpose::Stopped)) {
            self.propose(t, Purpose::Stopped, Act::Stopped { confirmed });
        }
    }

    /// STOPPED is applied: answers, and ends the masters, this one last.
    pub(super) fn end(&mut self, t: &mut Turn<'_>) {
        let state = t.state;
        let Some(stopped) = &state.stopped else { return };
        for asker in self.stop.take().into_iter().flat_map(|s| s.waiters) {
            t.reply(asker, Message::Ok(Empty {}));
        }
        self.stage = Stage::Ended;
        t.say(Command::Exit { index: stopped.index });
    }
}
