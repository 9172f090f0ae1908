//! What a worker is to do next: fill, load, or read everything again. Pure; time and randomness come in from outside.

use std::collections::VecDeque;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::codec::Kind;
use super::keys::{Distribution, Draw};
use super::stats::Verified;
use super::verify::{self, Ledger, Verdict, Wrote};

/// A wrong read is looked at again after so long, nanoseconds: longer than any failover's stale view may be shown.
const AGAIN_NS: u64 = 1_000_000_000;
/// Draws of a key that has an operation already, before it is said that none is free.
const DRAWS_MAX: usize = 16;

/// What the load is, the same for all workers.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Connections in all.
    pub clients: usize,
    /// Operations under way on each.
    pub pipeline: usize,
    /// Generator threads.
    pub threads: usize,
    /// Writes to reads.
    pub ratio: (u32, u32),
    /// Keys, numbered from 0.
    pub keys: u64,
    /// What stands before a key's number.
    pub prefix: String,
    /// Lengths of values, bytes, both ends included.
    pub size: (usize, usize),
    /// Which keys.
    pub distribution: Distribution,
    /// Of the random numbers.
    pub seed: u64,
    /// Every value is checked; this run's number.
    pub verify: Option<u32>,
}

/// One stage of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Phase {
    /// Each key is written once.
    Fill,
    /// The mix.
    Mix {
        /// Nothing new after this, nanoseconds from the start.
        until_ns: Option<u64>,
        /// So many operations over all workers.
        requests: Option<u64>,
        /// Operations a second over all workers, whatever the answers; none = as fast as answers come.
        rate: Option<f64>,
    },
    /// Each key that was written is read once.
    Sweep,
}

/// One operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Op {
    /// The key's number.
    pub id: u64,
    /// Read or write.
    pub kind: Kind,
    /// Length of the value of a write.
    pub len: u32,
    /// Version of the value of a write that is verified.
    pub version: u32,
    /// When it was due (open loop) or first sent, nanoseconds from the start.
    pub since: u64,
    /// It was sent on once already.
    pub followed: bool,
    /// ASKING goes before it.
    pub asking: bool,
    /// A wrong read's second look.
    again: bool,
}

/// What is next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// This.
    Op(Op),
    /// Nothing now: every key drawn has an operation under way.
    Later,
    /// Nothing any more.
    Done,
}

/// One worker's operations.
#[derive(Debug)]
pub struct Source {
    phase: Phase,
    me: u64,
    of: u64,
    draw: Draw,
    random: SmallRng,
    ratio: (u32, u32),
    size: (usize, usize),
    left: u64,
    until_ns: u64,
    cursor: u64,
    /// How many keys are this worker's.
    share: u64,
    ledger: Option<Ledger>,
    again: VecDeque<(u64, u64)>,
    filler: Vec<u8>,
}

impl Source {
    /// For worker `me`; a ledger comes from the phase before.
    pub fn new(plan: &Plan, phase: Phase, me: usize, ledger: Option<Ledger>) -> Self {
        let (me, of) = (me as u64, plan.threads as u64);
        let share = (plan.keys + of - 1 - me) / of;
        let (until_ns, requests) = match phase {
            Phase::Mix { until_ns, requests, .. } => (until_ns, requests),
            _ => (None, None),
        };
        // Where values are verified a key has one worker; else every worker draws from all, as other generators do.
        let drawn = if plan.verify.is_some() { share } else { plan.keys };
        let mut random = SmallRng::seed_from_u64(plan.seed ^ (me << 32) ^ u64::from(phase != Phase::Fill));
        let filler = (0..plan.size.1).map(|_| random.random_range(b'!'..=b'~')).collect();
        Self {
            phase,
            me,
            of,
            draw: Draw::new(plan.distribution, drawn),
            random,
            ratio: plan.ratio,
            size: plan.size,
            left: requests.map_or(u64::MAX, |n| n / of + u64::from(me < n % of)),
            until_ns: until_ns.unwrap_or(u64::MAX),
            cursor: 0,
            share,
            ledger: plan.verify.map(|run| ledger.unwrap_or_else(|| Ledger::new(run, share as usize))),
            again: VecDeque::new(),
            filler,
        }
    }

    /// The next operation.
    pub fn next(&mut self, now: u64) -> Next {
        if let Some(&(due, id)) = self.again.front()
            && due <= now
        {
            self.again.pop_front();
            return Next::Op(Op { again: true, ..self.op(id, Kind::Get) });
        }
        match self.phase {
            Phase::Fill => {
                if self.cursor == self.share {
                    return Next::Done;
                }
                let id = self.cursor * self.of + self.me;
                self.cursor += 1;
                Next::Op(self.taken(id, Kind::Set))
            }
            Phase::Sweep => {
                let Some(ledger) = &self.ledger else { return Next::Done };
                while self.cursor < self.share && !ledger.touched(self.cursor as usize) {
                    self.cursor += 1;
                }
                if self.cursor == self.share {
                    return self.at_end();
                }
                let id = self.cursor * self.of + self.me;
                self.cursor += 1;
                Next::Op(self.taken(id, Kind::Get))
            }
            Phase::Mix { .. } => {
                if self.left == 0 || now >= self.until_ns || self.share == 0 {
                    return self.at_end();
                }
                let Some(id) = self.free_key() else { return Next::Later };
                self.left -= 1;
                let (sets, gets) = self.ratio;
                let kind = if self.random.random_range(0..sets + gets) < sets { Kind::Set } else { Kind::Get };
                Next::Op(self.taken(id, kind))
            }
        }
    }

    /// Second looks that are not due yet keep a phase open.
    fn at_end(&self) -> Next {
        if self.again.is_empty() { Next::Done } else { Next::Later }
    }

    fn free_key(&mut self) -> Option<u64> {
        let Some(ledger) = &mut self.ledger else { return Some(self.draw.next(&mut self.random)) };
        (0..DRAWS_MAX).find_map(|_| {
            let n = self.draw.next(&mut self.random);
            ledger.take(n as usize).then_some(n * self.of + self.me)
        })
    }

    fn op(&self, id: u64, kind: Kind) -> Op {
        Op { id, kind, len: 0, version: 0, since: 0, followed: false, asking: false, again: false }
    }

    fn taken(&mut self, id: u64, kind: Kind) -> Op {
        let mut op = self.op(id, kind);
        let key = self.local(id);
        if let Some(ledger) = &mut self.ledger {
            ledger.take(key);
            if kind == Kind::Set {
                op.version = ledger.next_version(key);
            }
        }
        if kind == Kind::Set {
            let (low, high) = self.size;
            op.len = if low == high { low as u32 } else { self.random.random_range(low..=high) as u32 };
        }
        op
    }

    fn local(&self, id: u64) -> usize {
        (id / self.of) as usize
    }

    /// Appends the value of a write.
    pub fn value(&self, op: &Op, out: &mut Vec<u8>) {
        match &self.ledger {
            Some(ledger) => verify::value(ledger.head(op.id, op.version), op.len as usize, out),
            None => out.extend_from_slice(&self.filler[..op.len as usize]),
        }
    }

    /// An operation is not sent after all.
    pub fn unsent(&mut self, op: &Op) {
        self.left = self.left.saturating_add(1);
        self.ended(op, Wrote::Refused);
    }

    /// A write ended, or a read without an answer.
    pub fn ended(&mut self, op: &Op, how: Wrote) {
        let key = self.local(op.id);
        let Some(ledger) = &mut self.ledger else { return };
        if op.kind == Kind::Set {
            ledger.wrote(key, op.version, how);
        }
        ledger.free(key);
    }

    /// A read got no answer. Where it has to be known what a key holds, it is read again.
    pub fn unread(&mut self, op: &Op, now: u64) {
        if self.ledger.is_some() && (op.again || self.phase == Phase::Sweep) {
            self.again.push_back((now + AGAIN_NS, op.id));
        } else {
            self.ended(op, Wrote::Refused);
        }
    }

    /// A read ended.
    pub fn saw(&mut self, op: &Op, bytes: Option<&[u8]>, now: u64, verified: &Verified) {
        let key = self.local(op.id);
        let Some(ledger) = &mut self.ledger else { return };
        let verdict = ledger.saw(key, op.id, bytes);
        verified.checked.one();
        if verdict == Verdict::Wrong {
            self.again.push_back((now + AGAIN_NS, op.id));
            return;
        }
        ledger.free(key);
        let (count, what) = match verdict {
            Verdict::Right | Verdict::Wrong => return,
            Verdict::Stale => (&verified.stale, "an older state was read, a second later the right one"),
            Verdict::Lost => (&verified.lost, "an acknowledged write is gone"),
            Verdict::Corrupt => (&verified.corrupt, "the value is nobody's"),
        };
        count.one();
        verified.example(|| format!("key number {}: {what}", op.id));
    }

    /// Whether all of the phase must be done, rather than what there is time for.
    pub fn exhaustive(&self) -> bool {
        !matches!(self.phase, Phase::Mix { .. })
    }

    /// Until when new operations come, nanoseconds from the start.
    pub fn until(&self) -> u64 {
        self.until_ns
    }

    /// No more new operations.
    pub fn stop(&mut self) {
        self.left = 0;
        self.until_ns = 0;
        self.cursor = self.share;
    }

    /// Keys that were to be looked at again and were not, and the ledger for the next phase.
    pub fn finish(mut self) -> (u64, Option<Ledger>) {
        let left = self.again.len() as u64;
        for (_, id) in std::mem::take(&mut self.again) {
            let key = self.local(id);
            if let Some(ledger) = &mut self.ledger {
                ledger.free(key);
            }
        }
        (left, self.ledger)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn plan(verify: bool) -> Plan {
        Plan {
            clients: 1,
            pipeline: 1,
            threads: 3,
            ratio: (1, 10),
            keys: 100,
            prefix: "key:".into(),
            size: (40, 60),
            distribution: Distribution::Uniform,
            seed: 1,
            verify: verify.then_some(9),
        }
    }

    fn mix(requests: u64) -> Phase {
        Phase::Mix { until_ns: None, requests: Some(requests), rate: None }
    }

    fn take(s: &mut Source, now: u64) -> Op {
        match s.next(now) {
            Next::Op(op) => op,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_fill_writes_each_key_once() {
        let mut seen = HashSet::new();
        for me in 0..3 {
            let mut s = Source::new(&plan(false), Phase::Fill, me, None);
            while let Next::Op(op) = s.next(0) {
                assert!(seen.insert(op.id) && op.kind == Kind::Set && (40..=60).contains(&op.len));
                let mut out = Vec::new();
                s.value(&op, &mut out);
                assert_eq!(out.len(), op.len as usize);
            }
        }
        assert_eq!(seen.len(), 100);
    }

    #[test]
    fn a_mix_keeps_its_ratio_and_its_number() {
        let mut sets = 0;
        let mut all = 0;
        for me in 0..3 {
            let mut s = Source::new(&plan(false), mix(11_000), me, None);
            while let Next::Op(op) = s.next(0) {
                all += 1;
                sets += usize::from(op.kind == Kind::Set);
            }
        }
        assert_eq!(all, 11_000);
        assert!((850..1150).contains(&sets), "{sets} of 11000 at 1:10");
        let timed = Phase::Mix { until_ns: Some(50), requests: None, rate: None };
        let mut s = Source::new(&plan(false), timed, 0, None);
        assert!(matches!(s.next(49), Next::Op(_)));
        assert_eq!(s.next(50), Next::Done);
    }

    #[test]
    fn a_verified_key_has_one_operation_and_one_worker() {
        let mut s = Source::new(&plan(true), mix(1000), 1, None);
        let mut ids = HashSet::new();
        while let Next::Op(op) = s.next(0) {
            assert!(ids.insert(op.id), "{} twice at once", op.id);
            assert_eq!(op.id % 3, 1);
        }
        assert!(ids.len() > 20 && ids.len() <= 33, "{}", ids.len());
    }

    #[test]
    fn a_wrong_read_is_looked_at_again_before_the_phase_ends() {
        let verified = Verified::default();
        let mut s = Source::new(&plan(true), Phase::Fill, 0, None);
        let mut written = 0;
        while let Next::Op(op) = s.next(0) {
            s.ended(&op, Wrote::Acked);
            written += 1;
        }
        let (_, ledger) = s.finish();
        let mut s = Source::new(&plan(true), Phase::Sweep, 0, ledger);
        let first = take(&mut s, 0);
        s.saw(&first, None, 0, &verified);
        let mut rest = 0;
        while let Next::Op(op) = s.next(1) {
            let mut bytes = Vec::new();
            s.value(&Op { version: 1, len: 40, ..op }, &mut bytes);
            s.saw(&op, Some(&bytes), 1, &verified);
            rest += 1;
        }
        assert_eq!(rest + 1, written);
        assert_eq!(s.next(AGAIN_NS - 1), Next::Later);
        let again = take(&mut s, AGAIN_NS);
        assert_eq!(again.id, first.id);
        s.unread(&again, AGAIN_NS);
        assert_eq!(s.next(AGAIN_NS + 1), Next::Later, "an answer is wanted");
        let again = take(&mut s, 2 * AGAIN_NS);
        s.saw(&again, None, 2 * AGAIN_NS, &verified);
        assert_eq!(s.next(u64::MAX), Next::Done);
        assert_eq!((verified.lost.get(), verified.stale.get(), verified.corrupt.get()), (1, 0, 0));
        assert_eq!(verified.checked.get(), written + 1);
        assert_eq!(verified.examples().len(), 1);
    }
}
