//! What clients did and saw, and whether one register per key can explain it (Wing and Gong's search, with a memo).

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;

/// The most operations on one key: each is a bit of the search's state.
pub const OPS_MAX: usize = 128;

/// What was asked of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// SET.
    Set(u64),
    /// SET NX.
    SetNx(u64),
    /// DEL.
    Del,
    /// GET.
    Get,
}

/// What the answer said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// SET: OK.
    Done,
    /// SET NX: it was set; DEL: it was there.
    Did(bool),
    /// GET.
    Value(Option<u64>),
    /// It certainly did not happen.
    Fail,
    /// Nobody can tell.
    Unknown,
}

/// One operation of one client.
#[derive(Debug, Clone)]
pub struct Event {
    /// Which client.
    pub process: u32,
    /// On which key.
    pub key: String,
    /// What.
    pub op: Op,
    /// When it was sent, nanoseconds since the history's start.
    pub invoked: u64,
    /// When the answer was read, likewise.
    pub returned: u64,
    /// The answer.
    pub said: Said,
}

/// Checks every key on its own; the text shows the history of each that no register explains.
pub fn violations(events: &[Event]) -> Vec<String> {
    let mut keys: BTreeMap<&str, Vec<&Event>> = BTreeMap::new();
    for e in events {
        keys.entry(&e.key).or_default().push(e);
    }
    let mut out = Vec::new();
    for (key, mut events) in keys {
        events.sort_by_key(|e| e.invoked);
        if !linearizable(&events) {
            let mut text = format!("no order of these operations on {key} explains all answers:\n");
            for e in events {
                let ms = |ns: u64| ns as f64 / 1e6;
                let _ = writeln!(
                    text,
                    "  client {:3}  {:10.3} .. {:10.3} ms  {:?} -> {:?}",
                    e.process,
                    ms(e.invoked),
                    ms(e.returned),
                    e.op,
                    e.said
                );
            }
            out.push(text);
        }
    }
    out
}

/// Whether some order of the operations, each at one instant between its call and its answer, gives every answer. What is
/// unknown may have happened at any time after its call, or never.
pub fn linearizable(sorted: &[&Event]) -> bool {
    let ops: Vec<&Event> = sorted
        .iter()
        .copied()
        .filter(|e| e.said != Said::Fail && !(e.said == Said::Unknown && e.op == Op::Get))
        .collect();
    assert!(ops.len() <= OPS_MAX, "{} operations on one key: the search holds {OPS_MAX}", ops.len());
    let known = ops.iter().enumerate().filter(|(_, e)| e.said != Said::Unknown).fold(0u128, |m, (i, _)| m | 1 << i);
    let mut seen: HashSet<(u128, Option<u64>)> = HashSet::new();
    let mut open = vec![(0u128, None)];
    while let Some((done, state)) = open.pop() {
        if done & known == known {
            return true;
        }
        // Nothing can come after the answer of an operation that has not come yet.
        let deadline = ops.iter().enumerate().filter(|(i, e)| done & (1 << i) == 0 && e.said != Said::Unknown);
        let deadline = deadline.map(|(_, e)| e.returned).min().unwrap_or(u64::MAX);
        for (i, e) in ops.iter().enumerate() {
            if e.invoked > deadline {
                break;
            }
            if done & (1 << i) == 0
                && let Some(next) = apply(state, e)
                && seen.insert((done | 1 << i, next))
            {
                open.push((done | 1 << i, next));
            }
        }
    }
    false
}

/// The register after this operation; none if it can't have answered so.
fn apply(state: Option<u64>, e: &Event) -> Option<Option<u64>> {
    match (e.op, e.said) {
        (Op::Set(v), Said::Done | Said::Unknown) => Some(Some(v)),
        (Op::SetNx(v), Said::Unknown) => Some(state.or(Some(v))),
        (Op::SetNx(v), Said::Did(true)) => state.is_none().then_some(Some(v)),
        (Op::SetNx(_), Said::Did(false)) => state.is_some().then_some(state),
        (Op::Del, Said::Unknown) => Some(None),
        (Op::Del, Said::Did(did)) => (did == state.is_some()).then_some(None),
        (Op::Get, Said::Value(v)) => (v == state).then_some(state),
        (op, said) => panic!("{op:?} can't say {said:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn e(process: u32, invoked: u64, returned: u64, op: Op, said: Said) -> Event {
        Event { process, key: "k".into(), op, invoked, returned, said }
    }

    fn explained(events: &[Event]) -> bool {
        violations(events).is_empty()
    }

    #[test]
    fn a_value_read_before_and_after_is_fine() {
        use Op::*;
        assert!(explained(&[
            e(1, 0, 10, Set(1), Said::Done),
            e(2, 5, 6, Get, Said::Value(None)),
            e(2, 7, 12, Get, Said::Value(Some(1))),
        ]));
    }

    #[test]
    fn a_lost_write_a_stale_read_and_a_read_back_in_time_are_not() {
        use Op::*;
        assert!(!explained(&[e(1, 0, 10, Set(1), Said::Done), e(2, 11, 12, Get, Said::Value(None))]), "lost");
        let twice = [e(1, 0, 1, Set(1), Said::Done), e(1, 2, 3, Set(2), Said::Done)];
        assert!(!explained(&[twice[0].clone(), twice[1].clone(), e(2, 4, 5, Get, Said::Value(Some(1)))]), "stale");
        assert!(
            !explained(&[
                e(1, 0, 100, Set(1), Said::Done),
                e(2, 1, 2, Get, Said::Value(Some(1))),
                e(3, 3, 4, Get, Said::Value(None)),
            ]),
            "back in time"
        );
    }

    #[test]
    fn what_is_unknown_may_happen_late_or_never_but_not_twice() {
        use Op::*;
        let unknown = e(1, 0, 5, Set(1), Said::Unknown);
        assert!(explained(&[unknown.clone(), e(2, 10, 11, Get, Said::Value(None))]));
        assert!(explained(&[
            unknown.clone(),
            e(2, 10, 11, Get, Said::Value(None)),
            e(2, 12, 13, Get, Said::Value(Some(1)))
        ]));
        assert!(!explained(&[
            unknown,
            e(2, 10, 11, Get, Said::Value(Some(1))),
            e(2, 12, 13, Del, Said::Did(true)),
            e(2, 14, 15, Get, Said::Value(Some(1))),
        ]));
    }

    #[test]
    fn what_failed_never_shows() {
        use Op::*;
        assert!(!explained(&[e(1, 0, 1, Set(1), Said::Fail), e(2, 2, 3, Get, Said::Value(Some(1)))]));
    }

    #[test]
    fn only_one_of_two_takes_a_free_name() {
        use Op::*;
        let (a, b) = (e(1, 0, 9, SetNx(1), Said::Did(true)), e(2, 0, 9, SetNx(2), Said::Did(true)));
        assert!(!explained(&[a.clone(), b.clone()]));
        assert!(explained(&[a, b, e(3, 0, 9, Del, Said::Did(true))]));
    }

    #[test]
    fn a_full_key_with_many_at_once_is_searched_in_time() {
        // 16 clients at a time; every eighth write unknown.
        let mut events = Vec::new();
        for i in 0..OPS_MAX as u64 {
            let (from, to) = (i / 16 * 100, i / 16 * 100 + 50 + i % 16);
            let said = if i % 8 == 0 { Said::Unknown } else { Said::Done };
            events.push(e(i as u32 % 16, from, to, Op::Set(i), said));
        }
        assert!(explained(&events));
    }
}
