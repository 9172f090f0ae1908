//! Evidence that the last holder of orphan slots is gone for good (PROTOCOL section 7): its peer address refuses three
//! times over at least a second, to the leader and to a master on another host where there is one.

use std::collections::BTreeMap;

use super::brain::ProbeOutcome;
use crate::node::clock::Mono;
use crate::proto::id::{MasterId, Ref};

/// Refusals in a row, at least.
pub const REFUSALS: u32 = 3;
/// From the first to the last of them, milliseconds, at least.
pub const SPAN_MS: u64 = 1000;
/// Between two probes of one holder, milliseconds: three of them span a little more than a second.
pub const EVERY_MS: u64 = 520;

/// All holders under trial.
#[derive(Debug, Default)]
pub struct Trials {
    trials: BTreeMap<Ref, Trial>,
}

#[derive(Debug)]
struct Trial {
    next: Mono,
    /// By whom, none = this master; refusals in a row, the first and the last of them.
    refused: BTreeMap<Option<MasterId>, (u32, Mono, Mono)>,
}

impl Trials {
    /// Follows the state: these holders are to be proven gone, no others.
    pub fn follow<'a>(&mut self, now: Mono, holders: impl Iterator<Item = &'a Ref> + Clone) {
        self.trials.retain(|node, _| holders.clone().any(|h| h == node));
        for node in holders {
            self.trials.entry(node.clone()).or_insert_with(|| Trial { next: now, refused: BTreeMap::new() });
        }
    }

    /// Drops everything, with leadership.
    pub fn clear(&mut self) {
        self.trials.clear();
    }

    /// The holders to probe now.
    pub fn due(&mut self, now: Mono) -> Vec<Ref> {
        let mut due = Vec::new();
        for (node, t) in self.trials.iter_mut().filter(|(_, t)| t.next <= now) {
            t.next = now.plus_ms(EVERY_MS);
            due.push(node.clone());
        }
        due
    }

    /// What a probe met. Anything but a refusal starts the count anew.
    pub fn probed(&mut self, node: &Ref, outcome: ProbeOutcome, via: Option<MasterId>, now: Mono) {
        let Some(t) = self.trials.get_mut(node) else { return };
        if outcome == ProbeOutcome::Refused {
            let (count, _, last) = t.refused.entry(via).or_insert((0, now, now));
            *count += 1;
            *last = now;
        } else {
            t.refused.remove(&via);
        }
    }

    /// The holders proven gone. `elsewhere`: masters on other hosts, of whom one must have been refused too.
    pub fn proven(&self, elsewhere: &[MasterId]) -> Vec<Ref> {
        let enough = |t: &Trial, by: Option<MasterId>| {
            t.refused
                .get(&by)
                .is_some_and(|(count, first, last)| *count >= REFUSALS && last.ms_since(*first) >= SPAN_MS)
        };
        let proven = |t: &Trial| {
            enough(t, None) && (elsewhere.is_empty() || elsewhere.iter().any(|m| enough(t, Some(m.clone()))))
        };
        self.trials.iter().filter(|(_, t)| proven(t)).map(|(node, _)| node.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::id::{Incarnation, NodeId};

    fn node() -> Ref {
        Ref { id: NodeId::new("n1").unwrap(), incarnation: Incarnation(1) }
    }

    fn ms(ms: u64) -> Mono {
        Mono(0).plus_ms(ms)
    }

    fn tried(outcomes: &[(u64, ProbeOutcome, Option<&str>)]) -> Trials {
        let mut t = Trials::default();
        t.follow(ms(0), [node()].iter());
        for (at, outcome, via) in outcomes {
            t.probed(&node(), *outcome, via.map(|m| MasterId::new(m).unwrap()), ms(*at));
        }
        t
    }

    #[test]
    fn three_refusals_over_a_second_prove_it() {
        use ProbeOutcome::{Open, Other, Refused};
        let proven = |o: &[(u64, ProbeOutcome, Option<&str>)]| !tried(o).proven(&[]).is_empty();
        assert!(proven(&[(0, Refused, None), (500, Refused, None), (1000, Refused, None)]));
        assert!(!proven(&[(0, Refused, None), (1000, Refused, None)]), "two");
        assert!(!proven(&[(0, Refused, None), (500, Refused, None), (999, Refused, None)]), "too fast");
        for other in [Open, Other] {
            assert!(!proven(&[(0, Refused, None), (500, other, None), (1000, Refused, None), (1500, Refused, None)]));
        }
    }

    #[test]
    fn a_master_on_another_host_must_be_refused_too() {
        use ProbeOutcome::Refused;
        let m2 = [MasterId::new("m2").unwrap(), MasterId::new("m3").unwrap()];
        let mine = [(0, Refused, None), (500, Refused, None), (1000, Refused, None)];
        assert!(tried(&mine).proven(&m2).is_empty());
        let mut both = mine.to_vec();
        both.extend([(0, Refused, Some("m3")), (500, Refused, Some("m3")), (1000, Refused, Some("m3"))]);
        assert_eq!(tried(&both).proven(&m2), vec![node()]);
        assert!(tried(&both[3..]).proven(&m2).is_empty(), "the other's word alone is not enough");
    }

    #[test]
    fn probes_are_spaced() {
        let mut t = tried(&[]);
        assert_eq!(t.due(ms(0)), vec![node()]);
        assert!(t.due(ms(EVERY_MS - 1)).is_empty());
        assert_eq!(t.due(ms(EVERY_MS)), vec![node()]);
    }
}
