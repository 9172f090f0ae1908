//! Operations as records: which is open, which runs, how far each is. What they do to slots is the brain's.

use crate::node::master::entry::{Answer, OperationStep};
use crate::node::master::moves::is_outdated;
use crate::proto::error::Failure;
use crate::proto::event::Severity;
use crate::proto::id::NodeId;
use crate::proto::operation::{OperationKind, OperationState};
use crate::proto::plan::Move;

use super::{Apply, Operation, State};

/// Open operations; more are refused, since a queue nobody can oversee helps nobody.
pub const OPERATIONS_OPEN_MAX: usize = 64;
/// Closed operations kept for `ops show`.
pub const OPERATIONS_CLOSED_KEPT: usize = 50;

impl State {
    pub(super) fn operation(&mut self, cx: &mut Apply<'_>, step: &OperationStep) {
        let index = cx.index;
        let answer = match step {
            OperationStep::Create { kind, nodes, slots_total, moves_digest } => {
                self.create_operation(cx, *kind, nodes, *slots_total, *moves_digest)
            }
            OperationStep::Progress { id, slots_total, reason } => self.steer(*id, |op| {
                if let Some(total) = slots_total {
                    op.slots_total = (*total).max(op.slots_done);
                }
                if let Some(reason) = reason {
                    op.reason = (!reason.is_empty()).then(|| reason.clone());
                }
                Ok(None)
            }),
            // Proposed before one of its nodes came, or came back: that one has nothing yet.
            OperationStep::Finish { id, done: true, .. }
                if self.operations.get(id).is_some_and(|op| is_outdated(&self.cfg, op)) =>
            {
                refused("OUTDATED", "the members changed since it was planned".to_owned())
            }
            OperationStep::Finish { id, done, reason } => {
                let to = if *done { OperationState::Done } else { OperationState::Failed };
                let answer = self.steer(*id, |op| {
                    op.reason = reason.clone();
                    if *done {
                        // What was planned and became needless (its node died) is not missing.
                        op.slots_total = op.slots_done;
                    }
                    Ok(Some(to))
                });
                self.close(cx, *id, &answer);
                answer
            }
            OperationStep::Cancel { id } => {
                let answer = self.steer(*id, |op| match (op.kind, op.state) {
                    (OperationKind::Rebuild, _) => {
                        Err(Failure::new("UNSAFE", "a rebuild makes slots safe and can't be cancelled")
                            .hint("pause it instead: cachectl ops pause ID"))
                    }
                    // Nothing of it was begun.
                    _ if !op.started => Ok(Some(OperationState::Cancelled)),
                    _ => {
                        op.cancelling = true;
                        op.reason = Some("cancelled: what is under way is finished first".into());
                        Ok(Some(OperationState::Running))
                    }
                });
                self.close(cx, *id, &answer);
                answer
            }
            OperationStep::Cancelled { id } => {
                let answer = self.steer(*id, |op| {
                    op.reason = None;
                    Ok(op.cancelling.then_some(OperationState::Cancelled))
                });
                self.close(cx, *id, &answer);
                answer
            }
            OperationStep::Plan { id, moves, members } => self.steer(*id, |op| {
                op.slots_total = op.slots_done + count(moves);
                op.moves = Some(moves.clone());
                op.members = *members;
                op.planned_at = index;
                Ok(None)
            }),
            OperationStep::Copied { id, keys, bytes } => self.steer(*id, |op| {
                (op.keys_done, op.bytes_done) = (*keys, *bytes);
                Ok(None)
            }),
            OperationStep::Pause { id } => self.steer(*id, |op| match op.cancelling {
                true => Err(Failure::new("CLOSED", "it is being cancelled")),
                false => Ok(Some(OperationState::Paused)),
            }),
            OperationStep::Resume { id } => {
                self.steer(*id, |op| Ok((op.state == OperationState::Paused).then_some(OperationState::Planned)))
            }
        };
        if let (Answer::Done, OperationStep::Pause { id } | OperationStep::Resume { id }) = (&answer, step) {
            let verb = if matches!(step, OperationStep::Pause { .. }) { "paused" } else { "resumed" };
            cx.event(self, Severity::Info, "operation", &id.to_string(), format!("operation {id} {verb}"));
        }
        cx.done.answer = answer;
        self.start_next(cx);
    }

    /// Adds to the moves done of an operation, if it is still known.
    pub(super) fn count_moves(&mut self, op: Option<u64>, moves: u64) {
        if let Some(op) = op.and_then(|id| self.operations.get_mut(&id)) {
            op.slots_done = op.slots_done.saturating_add(moves);
            op.slots_total = op.slots_total.max(op.slots_done);
        }
    }

    fn create_operation(
        &mut self,
        cx: &mut Apply<'_>,
        kind: OperationKind,
        nodes: &[NodeId],
        slots_total: u64,
        moves_digest: u64,
    ) -> Answer {
        if self.cfg.stopping {
            return refused("STOPPING", "the cluster is being stopped");
        }
        if self.operations.values().filter(|o| o.state.is_open()).count() >= OPERATIONS_OPEN_MAX {
            return refused("TOO_MANY", format!("{OPERATIONS_OPEN_MAX} operations are open"));
        }
        let open = self.operations.iter().find(|(_, o)| o.kind == OperationKind::Rebuild && o.state.is_open());
        if let (OperationKind::Rebuild, Some((id, _))) = (kind, open) {
            // A leader that asks twice, not knowing what became of its first proposal, is told the same.
            return Answer::Operation(*id);
        }
        self.operation_seq += 1;
        let id = self.operation_seq;
        self.operations.insert(
            id,
            Operation {
                kind,
                state: OperationState::Planned,
                nodes: nodes.to_vec(),
                slots_total,
                slots_done: 0,
                moves_digest,
                moves: None,
                planned_at: 0,
                members: 0,
                cancelling: false,
                keys_done: 0,
                bytes_done: 0,
                reason: None,
                by: cx.by.map(str::to_owned),
                created_ms: cx.at_ms,
                ended_ms: 0,
                started: false,
            },
        );
        let text = format!("operation {id} {} accepted: {slots_total} slot moves", kind.as_str());
        cx.event(self, Severity::Info, "operation", &id.to_string(), text);
        Answer::Operation(id)
    }

    /// Changes an open operation; `Some` of the change is its new state.
    fn steer(
        &mut self,
        id: u64,
        change: impl FnOnce(&mut Operation) -> Result<Option<OperationState>, Failure>,
    ) -> Answer {
        let Some(op) = self.operations.get_mut(&id) else {
            return refused("NO_SUCH_OPERATION", format!("no operation {id}"));
        };
        if !op.state.is_open() {
            return refused("CLOSED", format!("operation {id} is {}", op.state.as_str()));
        }
        match change(op) {
            Ok(None) => Answer::Done,
            Ok(Some(state)) => {
                op.state = state;
                Answer::Done
            }
            Err(failure) => Answer::Refused(failure),
        }
    }

    fn close(&mut self, cx: &mut Apply<'_>, id: u64, answer: &Answer) {
        let (Answer::Done, Some(op)) = (answer, self.operations.get_mut(&id)) else {
            return;
        };
        if op.state.is_open() {
            return;
        }
        op.moves = None;
        op.ended_ms = cx.at_ms;
        let severity = if op.state == OperationState::Failed { Severity::Error } else { Severity::Info };
        let (kind, state, moves) = (op.kind, op.state, op.slots_done);
        let mut text = format!("operation {id} {} {}: {moves} slot moves", kind.as_str(), state.as_str());
        if let Some(reason) = &op.reason {
            text = format!("{text}; {reason}");
        }
        if state != OperationState::Done {
            let nodes = op.nodes.clone();
            self.enlist(cx, kind, &nodes, false);
        }
        let done_rebuild = kind == OperationKind::Rebuild && state == OperationState::Done;
        cx.event(self, severity, if done_rebuild { "rebuilt" } else { "operation" }, &id.to_string(), text);
        let closed: Vec<u64> = self.operations.iter().filter(|(_, o)| !o.state.is_open()).map(|(id, _)| *id).collect();
        for old in closed.iter().take(closed.len().saturating_sub(OPERATIONS_CLOSED_KEPT)) {
            self.operations.remove(old);
        }
    }

    /// A rebuild runs at once; of scale operations the eldest planned one runs when no other does.
    fn start_next(&mut self, cx: &mut Apply<'_>) {
        let is_rebuild = |o: &Operation| o.kind == OperationKind::Rebuild;
        let mut busy = self.operations.values().any(|o| !is_rebuild(o) && o.has_turn());
        let mut started = Vec::new();
        for (id, op) in self.operations.iter_mut().filter(|(_, o)| o.state == OperationState::Planned) {
            if is_rebuild(op) || !busy {
                busy |= !is_rebuild(op);
                op.state = OperationState::Running;
                op.started = true;
                started.push((*id, op.kind));
            }
        }
        for (id, kind) in started {
            let nodes = self.operations.get(&id).map(|o| o.nodes.clone()).unwrap_or_default();
            self.enlist(cx, kind, &nodes, true);
            cx.event(
                self,
                Severity::Info,
                "operation",
                &id.to_string(),
                format!("operation {id} {} runs", kind.as_str()),
            );
        }
    }
}

/// Slot moves that somebody takes: one that nobody can take is none.
pub fn count(moves: &[Move]) -> u64 {
    moves.iter().filter(|m| m.to.is_some()).map(|m| m.slots() as u64).sum()
}

fn refused(code: &str, message: impl Into<String>) -> Answer {
    Answer::Refused(Failure::new(code, message))
}
