//! Whether a key's history is linearizable: a search over the orders its operations can have taken effect in (Wing and Gong),
//! remembering what was tried.

use std::collections::HashSet;

/// What was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Get,
    Set(i64),
    Del,
    Incr,
    /// SET … NX.
    SetNx(i64),
    /// The slot was handed out empty: what it held is gone.
    Loss,
}

/// What was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// GET: the value. SET: anything. DEL: 0 or 1. INCR: the sum. SET NX: 1 or none.
    Value(Option<i64>),
    /// It may or may not have happened.
    Unknown,
}

/// One operation on one key. What was definitely refused is left out.
#[derive(Debug, Clone, Copy)]
pub struct Event {
    pub op: Op,
    pub reply: Reply,
    pub invoked: u64,
    /// `u64::MAX` where no answer came.
    pub returned: u64,
}

/// Operations of one key that can be judged at once.
pub const OPS_MAX: usize = 192;
/// States looked at before a history counts as undecided.
const STATES_MAX: usize = 400_000;

/// What the search found.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Linearizable,
    Not,
    /// Too much of it is unknown.
    Undecided,
}

type Bits = [u64; OPS_MAX / 64];

fn has(bits: &Bits, i: usize) -> bool {
    bits[i / 64] & 1 << (i % 64) != 0
}

fn with(mut bits: Bits, i: usize) -> Bits {
    bits[i / 64] |= 1 << (i % 64);
    bits
}

/// The state after an operation, if its reply fits.
fn apply(e: &Event, state: Option<i64>) -> Option<Option<i64>> {
    let (next, reply) = match e.op {
        Op::Get => (state, state),
        Op::Set(v) => (Some(v), None),
        Op::Del => (None, Some(i64::from(state.is_some()))),
        Op::Incr => (Some(state.unwrap_or(0) + 1), Some(state.unwrap_or(0) + 1)),
        Op::SetNx(v) if state.is_none() => (Some(v), Some(1)),
        Op::SetNx(_) => (state, None),
        Op::Loss => (None, None),
    };
    let fits = match e.reply {
        Reply::Unknown => true,
        Reply::Value(_) if matches!(e.op, Op::Set(_) | Op::Loss) => true,
        Reply::Value(v) => v == reply,
    };
    fits.then_some(next)
}

/// Judges a history that begins with a missing key.
pub fn judge(history: &[Event]) -> Verdict {
    let mut events: Vec<Event> = history.to_vec();
    // An unanswered read tells nothing.
    events.retain(|e| !(e.reply == Reply::Unknown && e.op == Op::Get));
    events.sort_by_key(|e| e.invoked);
    if events.len() > OPS_MAX {
        return Verdict::Undecided;
    }
    let must = (0..events.len()).filter(|&i| events[i].reply != Reply::Unknown).count();
    let mut seen: HashSet<(Bits, Option<i64>)> = HashSet::new();
    let mut stack: Vec<(Bits, Option<i64>, usize)> = vec![([0; OPS_MAX / 64], None, 0)];
    while let Some((done, state, answered)) = stack.pop() {
        if answered == must {
            return Verdict::Linearizable;
        }
        if seen.len() > STATES_MAX {
            return Verdict::Undecided;
        }
        // What is open may come next if it began before the first open one that was answered had ended.
        let open = (0..events.len()).filter(|&i| !has(&done, i));
        let end = open.clone().filter(|&i| events[i].reply != Reply::Unknown).map(|i| events[i].returned).min();
        let end = end.unwrap_or(u64::MAX);
        // Answered ones last, so that they are tried first.
        let mut next: Vec<usize> = open.filter(|&i| events[i].invoked <= end).collect();
        next.sort_by_key(|&i| (events[i].reply != Reply::Unknown, std::cmp::Reverse(events[i].returned)));
        for i in next {
            let Some(state) = apply(&events[i], state) else { continue };
            let done = with(done, i);
            if seen.insert((done, state)) {
                stack.push((done, state, answered + usize::from(events[i].reply != Reply::Unknown)));
            }
        }
    }
    Verdict::Not
}

/// The first moment at which a history can be told not to be linearizable.
pub fn first_wrong(history: &[Event]) -> u64 {
    let mut ends: Vec<u64> = history.iter().map(|e| e.returned).filter(|r| *r != u64::MAX).collect();
    ends.sort_unstable();
    let wrong_by = |end: u64| {
        let known = history.iter().filter(|e| e.invoked <= end);
        let seen: Vec<Event> = known
            .map(|e| match e.returned > end && e.op != Op::Loss {
                true => Event { reply: Reply::Unknown, returned: u64::MAX, ..*e },
                false => *e,
            })
            .collect();
        judge(&seen) == Verdict::Not
    };
    let at = ends.partition_point(|end| !wrong_by(*end));
    ends.get(at).copied().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn e(op: Op, reply: Reply, invoked: u64, returned: u64) -> Event {
        Event { op, reply, invoked, returned }
    }

    const OK: Reply = Reply::Value(None);

    #[test]
    fn a_stale_read_is_caught() {
        let h = [e(Op::Set(1), OK, 0, 1), e(Op::Set(2), OK, 2, 3), e(Op::Get, Reply::Value(Some(1)), 4, 5)];
        assert_eq!(judge(&h), Verdict::Not);
        let h = [e(Op::Set(1), OK, 0, 1), e(Op::Set(2), OK, 2, 6), e(Op::Get, Reply::Value(Some(1)), 4, 5)];
        assert_eq!(judge(&h), Verdict::Linearizable);
    }

    #[test]
    fn an_unknown_write_may_take_effect_late_but_not_twice() {
        let lost = e(Op::Incr, Reply::Unknown, 0, u64::MAX);
        let h = [lost, e(Op::Get, OK, 1, 2), e(Op::Get, Reply::Value(Some(1)), 3, 4)];
        assert_eq!(judge(&h), Verdict::Linearizable);
        let h = [lost, e(Op::Get, Reply::Value(Some(2)), 3, 4)];
        assert_eq!(judge(&h), Verdict::Not);
        let h = [lost, e(Op::Get, Reply::Value(Some(1)), 1, 2), e(Op::Get, OK, 3, 4)];
        assert_eq!(judge(&h), Verdict::Not);
    }

    #[test]
    fn only_a_loss_empties_a_key() {
        let set = e(Op::Set(1), OK, 0, 1);
        let gone = e(Op::Get, OK, 8, 9);
        assert_eq!(judge(&[set, gone]), Verdict::Not);
        assert_eq!(judge(&[set, e(Op::Loss, OK, 4, 5), gone]), Verdict::Linearizable);
        assert_eq!(judge(&[set, e(Op::Del, Reply::Value(Some(1)), 4, 5), gone]), Verdict::Linearizable);
    }
}
