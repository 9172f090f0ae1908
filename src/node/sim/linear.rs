//! Whether a key's history is linearizable: a search over the orders its operations can have taken effect in (Wing and Gong),
//! remembering what was tried.

use std::collections::HashMap;

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

/// A place in the search: what has taken effect, in whatever order, and what that left.
struct Place {
    /// Of those that were answered.
    known: Bits,
    /// Of those that were not.
    maybe: Bits,
    state: Option<i64>,
    /// All answered ones before this one took effect.
    first: usize,
    /// The last one to take effect was not answered, and nothing rests on it yet.
    bare: bool,
}

/// Judges a history that begins with a missing key. An operation without an answer need not have happened: only orders in
/// which each of them that did makes a difference are looked at, and of two that left the same with the same answers given
/// the one with fewer of them.
pub fn judge(history: &[Event]) -> Verdict {
    let mut events: Vec<Event> = history.to_vec();
    // An unanswered read tells nothing.
    events.retain(|e| !(e.reply == Reply::Unknown && e.op == Op::Get));
    events.sort_by_key(|e| e.invoked);
    if events.len() > OPS_MAX {
        return Verdict::Undecided;
    }
    let (maybe, known): (Vec<usize>, Vec<usize>) = (0..events.len()).partition(|&i| events[i].reply == Reply::Unknown);
    let mut seen: HashMap<(Bits, Option<i64>), Vec<(Bits, bool)>> = HashMap::new();
    let none = [0; OPS_MAX / 64];
    let mut stack = vec![Place { known: none, maybe: none, state: None, first: 0, bare: false }];
    let (mut looked, mut next) = (0, Vec::new());
    while let Some(mut at) = stack.pop() {
        while known.get(at.first).is_some_and(|&i| has(&at.known, i)) {
            at.first += 1;
        }
        if at.first == known.len() {
            return Verdict::Linearizable;
        }
        looked += 1;
        if looked > STATES_MAX {
            return Verdict::Undecided;
        }
        // What is open may come next if it began before the first open one that was answered had ended.
        let mut end = u64::MAX;
        next.clear();
        for &i in known[at.first..].iter().take_while(|&&i| events[i].invoked <= events[known[at.first]].returned) {
            if !has(&at.known, i) {
                end = end.min(events[i].returned);
                next.push(i);
            }
        }
        // Answered ones last, so that they are tried first, the first that ended before all.
        next.sort_unstable_by_key(|&i| std::cmp::Reverse(events[i].returned));
        let (mut incr, mut del) = (false, false);
        for &i in maybe.iter().take_while(|&&i| events[i].invoked <= end) {
            let blind = matches!(events[i].op, Op::Set(_) | Op::Del | Op::Loss);
            let is_open = !has(&at.maybe, i);
            let twin = match events[i].op {
                Op::Incr => said(&mut incr, is_open),
                Op::Del => said(&mut del, is_open),
                _ => false,
            };
            let Some(state) = apply(&events[i], at.state) else { continue };
            // What it finds or leaves makes no difference, or another one does the same.
            if !is_open || twin || state == at.state || at.bare && blind {
                continue;
            }
            visit(&mut seen, &mut stack, Place { maybe: with(at.maybe, i), state, bare: true, ..at });
        }
        for &i in next.iter().filter(|&&i| events[i].invoked <= end) {
            let blind = matches!(events[i].op, Op::Set(_) | Op::Loss);
            let Some(state) = apply(&events[i], at.state).filter(|_| !(at.bare && blind)) else { continue };
            visit(&mut seen, &mut stack, Place { known: with(at.known, i), state, bare: false, ..at });
        }
    }
    Verdict::Not
}

/// Whether it was said before; if not, it is now.
fn said(before: &mut bool, now: bool) -> bool {
    let was = *before;
    *before |= now;
    was
}

/// Puts a place on the stack, unless one was there from which at least as much is possible.
fn visit(seen: &mut HashMap<(Bits, Option<i64>), Vec<(Bits, bool)>>, stack: &mut Vec<Place>, to: Place) {
    let been = seen.entry((to.known, to.state)).or_default();
    let covers = |(maybe, bare): &(Bits, bool)| {
        (to.bare || !bare) && maybe.iter().zip(&to.maybe).all(|(had, has)| had & !has == 0)
    };
    if !been.iter().any(covers) {
        been.push((to.maybe, to.bare));
        stack.push(to);
    }
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
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn e(op: Op, reply: Reply, invoked: u64, returned: u64) -> Event {
        Event { op, reply, invoked, returned }
    }

    const OK: Reply = Reply::Value(None);

    /// Tries all orders.
    fn naive(open: &[Event], state: Option<i64>) -> bool {
        let answered = |e: &&Event| e.reply != Reply::Unknown;
        let end = open.iter().filter(answered).map(|e| e.returned).min();
        let Some(end) = end else { return true };
        (0..open.len()).filter(|&i| open[i].invoked <= end).any(|i| {
            let mut rest = open.to_vec();
            let e = rest.remove(i);
            apply(&e, state).is_some_and(|state| naive(&rest, state))
        })
    }

    #[test]
    fn it_finds_what_trying_all_orders_finds() {
        let mut rng = SmallRng::seed_from_u64(7);
        let mut verdicts = [0, 0];
        for _ in 0..4000 {
            let history: Vec<Event> = (0..rng.random_range(1..8))
                .map(|n| {
                    let invoked = rng.random_range(0..20);
                    let value = || Some(10 * n);
                    let op = match rng.random_range(0..6) {
                        0 | 1 => Op::Get,
                        2 => Op::Set(10 * n),
                        3 => Op::Incr,
                        4 => Op::Del,
                        _ => Op::SetNx(10 * n),
                    };
                    let guess = match op {
                        Op::Get => {
                            [None, Some(10 * rng.random_range(0..4) + rng.random_range(0..2))][rng.random_range(0..2)]
                        }
                        Op::Incr => Some(10 * rng.random_range(0..4) + 1),
                        Op::Del => Some(rng.random_range(0..2)),
                        Op::SetNx(_) => [None, Some(1)][rng.random_range(0..2)],
                        _ => value(),
                    };
                    if rng.random_bool(0.4) {
                        e(op, Reply::Unknown, invoked, u64::MAX)
                    } else {
                        e(op, Reply::Value(guess), invoked, invoked + rng.random_range(1..12))
                    }
                })
                .collect();
            let fits = naive(&history, None);
            verdicts[usize::from(fits)] += 1;
            assert_eq!(judge(&history) == Verdict::Linearizable, fits, "{history:?}");
        }
        assert!(verdicts.iter().all(|n| *n > 400), "{verdicts:?} is no test");
    }

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
