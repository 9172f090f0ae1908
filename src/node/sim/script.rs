//! The schedules that broke drafts of the protocol, step by step: uniform random walks miss some of them. Each holds, and with
//! its rule switched off ends in the violation that the rule is there for. N1 is primary, N2 its backup in sync, N3 spare.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::check::Violation;
use super::fault::Fault;
use super::linear::Op;
use super::net::{MS, Who};
use super::world::{Shape, World};
use super::{REST_MS, said};
use crate::node::cache::shard::lock;
use crate::node::cache::slot::{Serving, Stage};
use crate::node::clock::simulated;
use crate::node::master::entry::{Act, Change, Entry, HandedOut, Run, SlotChange};
use crate::node::mutant::{self, Mutant};
use crate::proto::control::{AddCacheServer, Message, RefreshIp, RefreshMaster};
use crate::proto::id::{Incarnation, Ref};
use crate::proto::slot::Slot;
use crate::proto::view::{SlotState, View};

type Done = Result<(), Violation>;
type Schedule = fn(&mut Script<'_>) -> Done;

/// One of them.
pub struct Scripted {
    pub name: &'static str,
    /// The rule that forbids a bad end.
    pub rule: Mutant,
    /// What that is; one of several, where that depends on delays.
    pub end: &'static str,
    masters: usize,
    schedule: Schedule,
}

const fn one(name: &'static str, rule: Mutant, end: &'static str, schedule: Schedule) -> Scripted {
    Scripted { name, rule, end, masters: 1, schedule }
}

/// All of them.
pub const SCRIPTS: &[Scripted] = &[
    one("an empty hand-out without a wait", Mutant::NoWaitAfterHandOut, "I1", empty_hand_out),
    one("a promotion chain faster than the promise", Mutant::ReadyUnderPromise, "I1", promotion_chain),
    one("a lease from a peer behind pterm", Mutant::LeaseBehindPterm, "I1", lease_behind_pterm),
    one("LEARNER_READY without since", Mutant::ReadyWithoutSince, "I3|I4", ready_without_since),
    one("RELINQUISH without cver", Mutant::OldRelinquish, "I7", old_relinquish),
    one("no wait, remembered", Mutant::NoWaitRemembered, "I1", no_wait_remembered),
    one("a copy session by node alone", Mutant::SessionByNode, "I3", session_by_node),
    one("a copy restarted after LEARNER_READY", Mutant::RestartCopy, "I7", restarted_copy),
    one("a fenced holder wipes", Mutant::FencedHolderWipes, "I3", fenced_holder),
    one("a former member comes back", Mutant::FormerMemberReturns, "panicked", former_member),
    one("a write before the promise is over", Mutant::NoPromiseWait, "I1", write_under_promise),
    one("survivors keep their tails", Mutant::KeepTails, "I7", tails),
    one("an empty ack_set after losing the slot", Mutant::EmptyAckSet, "not linearizable", empty_ack_set),
    one("configurations from masters only", Mutant::PullFromMastersOnly, "in vain for", masters_gone),
    one("a lease looked at before reading", Mutant::NoLeaseCheckAfterRead, "not linearizable", stale_clock),
    one("a registration read late", Mutant::LateRegistration, "handed out empty", late_registration),
    one("a hand-out slept through", Mutant::OldDataReturns, "not linearizable", slept_through),
    Scripted { masters: 3, ..one("a lower leader", Mutant::LowerLeader, "I5", lower_leader) },
];

/// A world at rest, and the hand that moves it.
pub struct Script<'w> {
    w: &'w mut World,
    /// Places of N1, N2, N3.
    n: [usize; 3],
}

/// Plays a schedule, with a rule off or none, and lets the world come to rest; the trace as well.
pub fn perform(script: &Scripted, seed: u64, mutant: Option<Mutant>) -> (Done, Vec<String>) {
    mutant::set(mutant);
    let masters = script.masters;
    let shape = Shape { slots: 1, nodes: 3, masters, clients: 1, keys_per_slot: 1, drift: 0.0, freeze: 0.0 };
    let mut w = World::new(seed, shape, true);
    let played = catch_unwind(AssertUnwindSafe(|| {
        let mut s = Script::begin(&mut w)?;
        (script.schedule)(&mut s)?;
        s.end()
    }));
    simulated::set(None);
    mutant::set(None);
    let result = played.unwrap_or_else(|panic| Err(Violation::new(None, said(&*panic))));
    let lines = w.net.trace.take().unwrap_or_default();
    (result, lines.into_iter().map(|(at, _, text)| format!("{:>9.3} {text}", at as f64 / MS as f64)).collect())
}

fn nothing(act: &Act) -> bool {
    matches!(act, Act::Register(_))
}

fn promotions(act: &Act) -> bool {
    let promotes = |c: &SlotChange| matches!(c.change, Change::PromoteLearner { .. });
    matches!(act, Act::Change { changes, .. } if changes.iter().all(promotes))
}

fn switches(act: &Act) -> bool {
    let switches = |c: &SlotChange| matches!(c.change, Change::Switch { .. });
    matches!(act, Act::Change { changes, .. } if changes.iter().all(switches))
}

const MASTER: Who = Who::Master(0);
const SLOT: Slot = Slot(0);

impl<'w> Script<'w> {
    /// A cluster at rest; from here on its leader decides nothing by itself.
    fn begin(w: &'w mut World) -> Result<Self, Violation> {
        w.clients.iter_mut().for_each(|c| c.paused = true);
        w.net.spikes = 0.0;
        (w.masters.oracle.unknown, w.masters.oracle.twice, w.masters.oracle.commit_ms) = (0.0, 0.0, 1);
        w.until(REST_MS, "rest", |w| w.checks.unrest(w).is_empty())?;
        let place = |r: Option<&Ref>| w.nodes.iter().position(|p| r.is_some() && p.me().as_ref() == r);
        let slot = &w.masters.truth().cfg.slots[0];
        let n1 = place(slot.primary.as_ref()).unwrap();
        let n2 = place(slot.backups().next().map(|r| &r.node)).unwrap();
        let n3 = (0..3).find(|n| ![n1, n2].contains(n)).unwrap();
        w.masters.lets = Some(nothing);
        let mut s = Self { w, n: [n1, n2, n3] };
        s.run(500)?;
        Ok(s)
    }

    /// Everything heals, and the leader decides again; then all histories are judged.
    fn end(&mut self) -> Done {
        self.w.masters.lets = None;
        self.w.heal();
        for n in 0..3 {
            self.w.strike(Fault::Start(n));
        }
        self.run(10_000)?;
        self.w.give_up_holders();
        let end = self.w.net.now / MS + REST_MS;
        self.w.until(end, "rest", |w| w.checks.unrest(w).is_empty())?;
        self.w.finish().map(drop)
    }

    fn run(&mut self, ms: u64) -> Done {
        self.w.run_to(self.w.net.now / MS + ms)
    }

    /// At most so many milliseconds.
    fn until(&mut self, ms: u64, what: &str, done: impl Fn(&Self) -> bool) -> Done {
        for _ in 0..ms {
            if done(self) {
                return Ok(());
            }
            self.run(1)?;
        }
        Err(Violation::new(None, format!("the script waited in vain for {what}")))
    }

    fn who(&self, n: usize) -> Who {
        Who::Node(self.n[n - 1])
    }

    fn life(&self, n: usize) -> Ref {
        self.w.nodes[self.n[n - 1]].me().unwrap()
    }

    fn slot(&self) -> &SlotState {
        &self.w.masters.truth().cfg.slots[0]
    }

    // What the network does.

    fn cut(&mut self, a: Who, b: Who) {
        self.w.net.cuts.extend([(a, b), (b, a)]);
    }

    fn cut_from_peers(&mut self, n: usize) {
        for o in (1..=3).filter(|o| *o != n) {
            self.cut(self.who(n), self.who(o));
        }
    }

    /// Nobody but clients reaches it.
    fn isolate(&mut self, n: usize) {
        self.cut_from_peers(n);
        self.cut(self.who(n), MASTER);
    }

    fn kill(&mut self, n: usize) {
        self.w.strike(Fault::Kill(self.n[n - 1]));
    }

    fn client(&mut self, n: usize, op: Op) {
        let (w, n) = (&mut *self.w, self.n[n - 1]);
        w.clients[0].ask_at(&mut w.net, &w.keys, n, 0, op);
    }

    /// A write to this node.
    fn set(&mut self, n: usize) {
        let value = self.w.keys.value();
        self.client(n, Op::Set(value));
    }

    /// A write that is acknowledged.
    fn write(&mut self, n: usize) -> Done {
        self.set(n);
        self.until(1000, "OK", |s| s.w.clients[0].is_idle())
    }

    // What the masters do.

    /// An entry is committed; nobody hears of it yet.
    fn log(&mut self, act: Act) -> Done {
        let entry = Entry { at_ms: self.w.net.now / MS, by: Some("script".into()), act };
        let done = self.w.masters.commit(&mut self.w.net, &entry);
        assert!(done.cfg_changed && done.skipped.is_empty(), "{entry:?} does not apply: {done:?}");
        self.w.look()
    }

    /// An entry is committed and pushed.
    fn commit(&mut self, act: Act) -> Done {
        self.log(act)?;
        self.w.masters.catch_up(&mut self.w.net, 0);
        self.run(5)
    }

    fn change(&self, change: Change) -> Act {
        let runs = vec![Run { first: SLOT, last: SLOT, cver: self.slot().cver }];
        Act::Change { op: None, changes: vec![SlotChange { change, runs, completes: 0 }] }
    }

    fn add_learner(&self, n: usize) -> Act {
        self.change(Change::AddLearner { node: self.life(n) })
    }

    fn remove(&self, n: usize) -> Act {
        self.change(Change::RemoveMember { node: self.life(n) })
    }

    fn handover(&self, n: usize) -> Act {
        self.change(Change::Handover { to: self.life(n) })
    }

    fn dead(&self, node: Ref) -> Act {
        Act::NodeDead { dead: vec![node], avoid: Vec::new(), cause: "the script says so".into() }
    }

    fn view(&self) -> View {
        self.w.masters.truth().cfg.since(0)
    }

    /// Somebody hands it a view.
    fn tell(&mut self, n: usize, view: View) -> Done {
        self.say(n, Message::RefreshIp(RefreshIp { have: 0, iplist: Vec::new(), view: Some(view) }))
    }

    /// Its master says something.
    fn say(&mut self, n: usize, m: Message) -> Done {
        let (w, n) = (&mut *self.w, self.n[n - 1]);
        w.nodes[n].told(&mut w.net, m);
        w.touched = Some(n);
        w.look()
    }

    // What can be seen.

    fn serves(&self, n: usize) -> bool {
        let p = &self.w.nodes[self.n[n - 1]];
        p.life.as_ref().is_some_and(|l| {
            let serving = lock(&l.node.shards[0]).slot(SLOT).serving(p.clock.at(self.w.net.now));
            matches!(serving, Serving::Until(_))
        })
    }

    /// Where the copy from one node to another stands.
    fn copies(&self, n: usize, to: usize) -> Option<Stage> {
        let life = self.w.nodes[self.n[n - 1]].life.as_ref()?;
        let shard = lock(&life.node.shards[0]);
        shard.slot(SLOT).targets().iter().find(|t| t.node == self.life(to)).map(|t| t.stage)
    }

    /// N1 was told to give the slot to N2, and has.
    fn relinquished(&mut self) -> Done {
        self.commit(self.handover(2))?;
        self.until(400, "RELINQUISH", |s| !s.serves(1))
    }
}

// 1. N2 promises, N1 holds the lease; N2 is promoted, which N1 doesn't learn, and killed; N3 never promised anything.
fn empty_hand_out(s: &mut Script<'_>) -> Done {
    let (n1, n2, n3) = (s.life(1), s.life(2), s.life(3));
    s.isolate(1);
    s.commit(s.dead(n1))?;
    s.kill(2);
    s.commit(s.dead(n2.clone()))?;
    let run = Run { first: SLOT, last: SLOT, cver: s.slot().cver };
    let runs = vec![HandedOut { run, to: n3, backup: None, clean: false }];
    s.commit(Act::HandOut { gone: vec![n2], runs })?;
    s.run(1000)
}

// 2. N2 is promoted, and makes N3 its backup while it still waits out its promise; then it dies, and N3 promised N1 nothing.
fn promotion_chain(s: &mut Script<'_>) -> Done {
    let (n1, n2) = (s.life(1), s.life(2));
    s.cut(s.who(1), s.who(3));
    s.run(700)?;
    s.isolate(1);
    s.commit(s.dead(n1))?;
    s.w.masters.lets = Some(promotions);
    s.commit(s.add_learner(3))?;
    s.run(150)?;
    s.w.masters.lets = Some(nothing);
    s.kill(2);
    s.commit(s.dead(n2))?;
    s.run(1000)
}

// 3. N1 relinquishes and N2 leads, but N1's promise was given before that; N1 is primary again, and knows it at once.
fn lease_behind_pterm(s: &mut Script<'_>) -> Done {
    s.relinquished()?;
    s.isolate(1);
    let n2 = s.life(2);
    s.commit(s.change(Change::Switch { to: n2.clone() }))?;
    s.cut(s.who(2), MASTER);
    s.log(s.dead(n2))?;
    s.tell(1, s.view())?;
    s.run(500)
}

// 4. N3 is reported, taken out, drops its data and is added again; then the report arrives.
fn ready_without_since(s: &mut Script<'_>) -> Done {
    s.commit(s.add_learner(3))?;
    s.until(1000, "a copy", |s| s.copies(1, 3) == Some(Stage::Ready))?;
    s.write(1)?;
    s.w.net.slow.insert((s.who(1), MASTER), 100);
    s.run(300)?;
    s.w.net.cuts.insert((MASTER, s.who(1)));
    s.cut_from_peers(1);
    s.commit(s.remove(3))?;
    s.commit(s.add_learner(3))?;
    s.w.masters.lets = Some(promotions);
    s.run(300)
}

// 5. Two handovers; N1 has seen only the first, and that one's end once it is no primary any more.
fn old_relinquish(s: &mut Script<'_>) -> Done {
    s.write(1)?;
    s.w.net.slow.insert((s.who(1), MASTER), 60);
    s.relinquished()?;
    s.w.net.cuts.insert((MASTER, s.who(1)));
    s.cut_from_peers(1);
    s.commit(s.change(Change::Abort))?;
    let aborted = s.view();
    s.commit(s.handover(2))?;
    s.w.masters.lets = Some(switches);
    s.run(100)?;
    s.w.masters.lets = Some(nothing);
    s.tell(1, aborted)?;
    s.set(1);
    s.run(20)?;
    s.tell(1, s.view())?;
    s.w.net.cuts.clear();
    s.w.net.resume();
    s.set(2);
    s.run(2000)
}

// 6. N1 relinquishes, the handover is taken back, N1 serves again and is declared dead.
fn no_wait_remembered(s: &mut Script<'_>) -> Done {
    s.relinquished()?;
    s.commit(s.change(Change::Abort))?;
    s.until(400, "N1 to serve", |s| s.serves(1))?;
    s.run(300)?;
    let n1 = s.life(1);
    s.isolate(1);
    s.commit(s.dead(n1))?;
    s.run(1000)
}

// 7. N2 is taken out and added again; N1 learns of both at once.
fn session_by_node(s: &mut Script<'_>) -> Done {
    s.write(1)?;
    s.cut(s.who(2), MASTER);
    s.log(s.remove(2))?;
    s.w.masters.lets = Some(promotions);
    s.commit(s.add_learner(2))?;
    s.run(1000)
}

// 8. N3 is counted and reported; the link to it breaks; the report arrives while N3 is being copied to again.
fn restarted_copy(s: &mut Script<'_>) -> Done {
    s.write(1)?;
    s.commit(s.add_learner(3))?;
    s.until(1000, "a copy", |s| s.copies(1, 3) == Some(Stage::Ready))?;
    s.w.net.slow.insert((s.who(1), MASTER), 600);
    s.run(50)?;
    // The OPEN of another copy arrives in time, all else much later.
    s.w.net.split = Some((s.who(1), s.who(3), 1000));
    s.w.net.break_between(s.who(1), s.who(3));
    s.w.masters.lets = Some(promotions);
    s.run(2000)
}

// 9. N1 wrote alone and is declared dead by mistake: what it holds is the only copy.
fn fenced_holder(s: &mut Script<'_>) -> Done {
    let (n1, n2) = (s.life(1), s.life(2));
    s.kill(2);
    s.commit(s.dead(n2))?;
    s.write(1)?;
    s.commit(s.dead(n1))?;
    s.w.masters.lets = None;
    s.run(8000)
}

// 10. N2 is declared dead by mistake, N1 writes alone and dies: N2 holds less than was acknowledged.
fn former_member(s: &mut Script<'_>) -> Done {
    let (n1, n2) = (s.life(1), s.life(2));
    s.isolate(2);
    s.commit(s.dead(n2))?;
    s.write(1)?;
    s.kill(1);
    s.commit(s.dead(n1))?;
    s.run(500)
}

// 11. N2 is promoted and writes while N1 still reads on the lease that N2 gave it.
fn write_under_promise(s: &mut Script<'_>) -> Done {
    s.write(1)?;
    let n1 = s.life(1);
    s.isolate(1);
    s.commit(s.dead(n1))?;
    s.set(2);
    s.run(1000)
}

// 12. N3 has N1's last write, N2 has not; N1 dies, and N2 leads.
fn tails(s: &mut Script<'_>) -> Done {
    s.write(1)?;
    s.w.masters.lets = Some(promotions);
    s.commit(s.add_learner(3))?;
    let n3 = s.life(3);
    s.until(1000, "a third copy", |s| s.slot().in_sync(&n3))?;
    s.w.masters.lets = Some(nothing);
    s.run(300)?;
    let n1 = s.life(1);
    s.cut(s.who(1), s.who(2));
    s.set(1);
    s.run(10)?;
    s.kill(1);
    s.commit(Act::NodeDead { dead: vec![n1], avoid: vec![n3], cause: "the script says so".into() })?;
    s.set(2);
    s.run(2000)
}

// 13. N1's write is unconfirmed when it learns that N2 is primary.
fn empty_ack_set(s: &mut Script<'_>) -> Done {
    s.write(1)?;
    s.w.net.cuts.insert((s.who(1), s.who(2)));
    s.set(1);
    s.run(10)?;
    let n1 = s.life(1);
    s.commit(s.change(Change::Depose { node: n1 }))?;
    s.run(1000)
}

// 14. N2 leads and alone knows it; then there are no masters, and the lease that it needs is N1's, who is behind.
fn masters_gone(s: &mut Script<'_>) -> Done {
    s.relinquished()?;
    let n2 = s.life(2);
    s.log(s.change(Change::Switch { to: n2 }))?;
    s.tell(2, s.view())?;
    s.w.strike(Fault::KillMaster(0));
    s.until(1500, "N2 to serve", |s| s.serves(2))
}

// 15. N1 stands still; N2 is promoted and writes; then N1 reads what a client asked meanwhile.
fn stale_clock(s: &mut Script<'_>) -> Done {
    s.write(1)?;
    let n1 = s.life(1);
    s.isolate(1);
    s.w.strike(Fault::Pause(s.who(1), 3000));
    s.commit(s.dead(n1))?;
    s.until(2000, "N2 to serve", |s| s.serves(2))?;
    s.write(2)?;
    s.client(1, Op::Get);
    s.run(4000)
}

// 16. N1 serves alone; a process that was N1 before it said so to the masters and died, and is heard only now.
fn late_registration(s: &mut Script<'_>) -> Done {
    let n2 = s.life(2);
    s.isolate(2);
    s.commit(s.dead(n2))?;
    s.write(1)?;
    s.w.masters.lets = None;
    let p = &s.w.nodes[s.n[0]];
    let (addr, peer_addr) = super::cache::addr(p.ix);
    let before = Ref { id: p.id.clone(), incarnation: Incarnation(1) };
    let said = AddCacheServer {
        node: before,
        home: p.home,
        addr,
        peer_addr,
        zone: String::new(),
        weight: 1.0,
        standby: false,
        follows: None,
    };
    s.w.masters.said(&mut s.w.net, 0, 1_000_000, Message::AddCacheServer(said));
    s.run(1000)
}

// 17. N3 has a copy and stands still; N1 and N2 die, N3 gets the slot empty and is declared dead, and hears of all that at once.
fn slept_through(s: &mut Script<'_>) -> Done {
    let (n1, n2, n3) = (s.life(1), s.life(2), s.life(3));
    s.write(1)?;
    s.commit(s.add_learner(3))?;
    s.until(1000, "a copy", |s| s.copies(1, 3) == Some(Stage::Ready))?;
    s.w.strike(Fault::Pause(s.who(3), 4000));
    s.kill(1);
    s.log(s.dead(n1))?;
    s.kill(2);
    s.log(s.dead(n2.clone()))?;
    let run = Run { first: SLOT, last: SLOT, cver: s.slot().cver };
    let runs = vec![HandedOut { run, to: n3.clone(), backup: None, clean: false }];
    s.log(Act::HandOut { gone: vec![n2], runs })?;
    s.commit(s.dead(n3))?;
    s.w.masters.lets = None;
    s.run(6000)
}

// 18. N1 follows a new leader, loses it, and finds the former one, which does not know it yet.
fn lower_leader(s: &mut Script<'_>) -> Done {
    let old = s.w.masters.leads(&s.w.net).unwrap();
    let (new, third) = ((old + 1) % 3, (old + 2) % 3);
    s.cut(Who::Master(old), Who::Master(new));
    s.cut(Who::Master(old), Who::Master(third));
    s.run(50)?;
    s.w.masters.elect(&mut s.w.net, new);
    s.run(50)?;
    let leader = s.w.masters.all[new].led.clone();
    assert!(leader.is_some(), "elected, and knows it");
    let addr = Some(format!("m{}:1", new + 1));
    s.say(1, Message::RefreshMaster(RefreshMaster { leader: leader.clone(), addr, masters: Vec::new() }))?;
    s.until(200, "the new leader's ack", |s| s.w.nodes[s.n[0]].led_by == leader)?;
    for m in [new, third] {
        s.cut(s.who(1), Who::Master(m));
    }
    // The next that it tries.
    s.w.nodes[s.n[0]].masters.follow(format!("m{}:1", old + 1));
    s.w.net.break_between(s.who(1), Who::Master(new));
    s.run(1500)
}
