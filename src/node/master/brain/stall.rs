//! Pairs that stall: a primary reports that a member does not confirm or renew its lease. Of the two, the one that more
//! peers complain of goes (PROTOCOL section 6).

use std::collections::{BTreeMap, BTreeSet};

use super::{Brain, Purpose, Turn};
use crate::node::clock::Mono;
use crate::node::master::entry::{Act, Change, SlotChange};
use crate::node::master::operation::runs;
use crate::node::master::state::State;
use crate::proto::control::Complain;
use crate::proto::event::Severity;
use crate::proto::id::{NodeId, Ref};

/// A stall of this length is reported and acted on, milliseconds.
pub const STALL_MS: u64 = 2000;
/// A first complaint waits this long for others, milliseconds, so that the right one of the pair goes.
pub const GATHER_MS: u64 = 250;
/// A complaint not repeated for this long is void, milliseconds.
pub const VOID_MS: u64 = 3000;
/// Who stalled is given nothing for this long, milliseconds: a stall is rarely over at once.
pub const SHUN_MS: u64 = 10_000;

/// What primaries complain of.
#[derive(Debug, Default)]
pub(super) struct Stalls {
    /// (who complains, about whom) → when. Bounded by the square of the live members.
    complaints: BTreeMap<(Ref, Ref), Complaint>,
    shunned: BTreeMap<NodeId, Mono>,
}

#[derive(Debug)]
struct Complaint {
    first: Mono,
    last: Mono,
    /// It still counts against whom it is about, until it is void.
    judged: Option<Mono>,
}

impl Complaint {
    fn is_ripe(&self, now: Mono) -> bool {
        now.ms_since(self.first) >= GATHER_MS && self.judged.is_none_or(|at| now.ms_since(at) >= VOID_MS)
    }
}

impl Stalls {
    /// Nodes that stalled lately.
    pub(super) fn shunned(&self, now: Mono) -> impl Iterator<Item = NodeId> + '_ {
        self.shunned.iter().filter(move |(_, until)| **until > now).map(|(id, _)| id.clone())
    }

    /// A node gets nothing new for a while.
    pub(super) fn shun(&mut self, id: NodeId, now: Mono) {
        self.shunned.insert(id, now.plus_ms(SHUN_MS));
    }

    fn accusers(&self, of: &Ref) -> usize {
        self.complaints.keys().filter(|(_, about)| about == of).map(|(from, _)| from).collect::<BTreeSet<_>>().len()
    }
}

impl Brain {
    pub(super) fn complain(&mut self, now: Mono, state: &State, msg: &Complain) {
        if msg.for_ms < STALL_MS || msg.from == msg.about || self.leading(now).is_none() {
            return;
        }
        if state.cfg.is_live(&msg.from) && state.cfg.is_live(&msg.about) {
            let pair = (msg.from.clone(), msg.about.clone());
            let fresh = Complaint { first: now, last: now, judged: None };
            self.stalls.complaints.entry(pair).or_insert(fresh).last = now;
        }
    }

    pub(super) fn judge_stalls(&mut self, t: &mut Turn<'_>) {
        let (now, state) = (t.now, t.state);
        if self.stalls.complaints.is_empty() && self.stalls.shunned.is_empty() {
            return;
        }
        self.stalls.shunned.retain(|_, until| *until > now);
        self.stalls.complaints.retain(|(from, about), c| {
            now.ms_since(c.last) < VOID_MS && state.cfg.is_live(from) && state.cfg.is_live(about)
        });
        if self.is_busy(|p| matches!(p, Purpose::Stall)) {
            return;
        }
        let ripe = self.stalls.complaints.iter_mut().find(|(_, c)| c.is_ripe(now));
        let Some(((from, about), complaint)) = ripe else { return };
        complaint.judged = Some(now);
        let (from, about) = (from.clone(), about.clone());
        let deposed = self.stalls.accusers(&from) > self.stalls.accusers(&about);
        let led = state.cfg.slots.iter().enumerate().filter(|(_, s)| s.primary.as_ref() == Some(&from));
        let slots: Vec<(usize, u64)> = led
            .filter(|(_, s)| if deposed { s.in_sync(&about) } else { s.replica(&about).is_some() })
            .map(|(ix, s)| (ix, s.cver))
            .collect();
        if slots.is_empty() {
            return;
        }
        let (goes, change) = if deposed {
            (&from, Change::Depose { node: from.clone() })
        } else {
            (&about, Change::RemoveMember { node: about.clone() })
        };
        self.stalls.shun(goes.id.clone(), now);
        let text = format!(
            "{} stalls between {from_id} and {about_id}: {n} slots go on without it",
            goes.id,
            from_id = from.id,
            about_id = about.id,
            n = slots.len()
        );
        let note = Act::Note { severity: Severity::Warn, kind: "stalled".into(), subject: goes.id.to_string(), text };
        let changes = vec![SlotChange { change, runs: runs(slots), completes: 0 }];
        self.propose(t, Purpose::Stall, Act::Change { op: None, changes });
        self.propose(t, Purpose::Note, note);
    }
}
