//! One slot's rules as tables: who may serve, what is confirmed, what is taken, what is dropped.

use std::cell::Cell;
use std::rc::Rc;

use super::*;
use crate::proto::id::{Incarnation, NodeId};
use crate::proto::view::Replica;

#[derive(Debug, Clone, Default)]
struct Handle(Rc<Cell<Lease>>);

impl Leased for Handle {
    fn lease(&self) -> Lease {
        self.0.get()
    }
}

type Repl = SlotRepl<Handle, u32>;

fn node(n: u64) -> Ref {
    Ref { id: NodeId::new(&format!("n{n}")).unwrap(), incarnation: Incarnation(n) }
}

fn replicas(all: &[(u64, u64)]) -> Vec<Replica> {
    all.iter().map(|&(n, since)| Replica { node: node(n), since }).collect()
}

fn state(index: u64, pterm: u64, primary: u64, insync: &[(u64, u64)], learners: &[(u64, u64)]) -> SlotState {
    SlotState {
        pterm,
        cver: index,
        phase: Phase::Serving,
        primary: Some(node(primary)),
        insync: replicas(insync),
        learners: replicas(learners),
        ..SlotState::default()
    }
}

const T: Mono = Mono(1_000_000_000_000);
const SLOT: Slot = Slot(7);

fn take(r: &mut Repl, s: &SlotState, me: u64, promised: Mono, lease: &Handle) -> Change {
    r.reconfigure(s, &node(me), T, |_| promised, |_| lease.clone())
}

fn leased(cfg_index: u64) -> Handle {
    Handle(Rc::new(Cell::new(Lease { until: T.plus_ms(400), cfg_index })))
}

fn formed() -> (Repl, Handle) {
    let mut r = Repl::default();
    let lease = leased(10);
    let s = SlotState { clean: true, ..state(10, 10, 1, &[(1, 10), (2, 10)], &[]) };
    take(&mut r, &s, 1, Mono(0), &lease);
    (r, lease)
}

#[test]
fn a_lease_counts_only_in_time_and_from_a_view_at_or_above_the_pterm() {
    let (r, lease) = formed();
    assert_eq!(r.serving(T), Serving::Until(T.plus_ms(400)));
    assert_eq!(r.serving(T.plus_ms(400)), Serving::Wait);
    lease.0.set(Lease { until: T.plus_ms(400), cfg_index: 9 });
    assert_eq!(r.serving(T), Serving::Wait);
}

#[test]
fn who_is_to_be_asked_is_kept_and_what_it_grants_is_looked_at_each_time() {
    let until = |ms| Serving::Until(T.plus_ms(ms));
    let gone = Lease::default();
    let (mut r, lease) = formed();
    assert!(!r.knows_lessor());
    assert_eq!(r.serving_a_command(T), until(400));
    assert!(r.knows_lessor());
    lease.0.set(Lease { until: T.plus_ms(500), cfg_index: 10 });
    assert_eq!(r.serving_a_command(T.plus_ms(1)), until(500));
    assert_eq!(r.serving_a_command(T.plus_ms(500)), Serving::Wait);
    lease.0.set(Lease { until: T.plus_ms(500), cfg_index: 9 });
    assert_eq!(r.serving_a_command(T), Serving::Wait);
    lease.0.set(Lease { until: T.plus_ms(500), cfg_index: 10 });
    assert_eq!(r.serving_a_command(T), until(500));
    // Alone it needs nobody's.
    let mut r = Repl::default();
    take(&mut r, &SlotState { clean: true, ..state(10, 10, 1, &[(1, 10)], &[]) }, 1, Mono(0), &lease);
    assert_eq!(r.serving_a_command(T), Serving::Until(Mono(u64::MAX)));
    assert!(r.knows_lessor());
    assert_eq!(r.serving_a_command(T.plus_ms(900)), Serving::Until(Mono(u64::MAX)));
    // A learner that is counted, and a member of another configuration, are looked at before anything else is served.
    let (mut r, lease) = formed();
    take(&mut r, &state(11, 10, 1, &[(1, 10), (2, 10)], &[(3, 11)]), 1, Mono(0), &lease);
    let stream = r.open_copy(SLOT, &node(3), 11).unwrap().0;
    assert_eq!(r.serving_a_command(T), until(400));
    assert!(r.count_learner(&node(3), &stream, T).is_some());
    lease.0.set(gone);
    assert_eq!(r.serving_a_command(T), Serving::Wait);
    lease.0.set(Lease { until: T.plus_ms(400), cfg_index: 11 });
    assert_eq!(r.serving_a_command(T), until(400));
    assert!(!r.knows_lessor(), "of several all are looked at");
    take(&mut r, &state(20, 20, 2, &[(1, 10), (2, 10)], &[]), 1, Mono(0), &lease);
    assert_eq!(r.serving_a_command(T), Serving::No);
    // Nor is anything once it is being given away.
    let (mut r, lease) = formed();
    take(&mut r, &handover(20, 2, &BOTH), 1, Mono(0), &lease);
    lease.0.set(Lease { until: T.plus_ms(400), cfg_index: 20 });
    assert_eq!(r.serving_a_command(T), until(400));
    assert_eq!(r.relinquish(T, 20), Some((20, 0)));
    assert_eq!(r.serving_a_command(T), Serving::Wait);
}

#[test]
fn a_copy_adds_up_only_while_nothing_is_written() {
    let (mut r, lease) = formed();
    take(&mut r, &state(11, 10, 1, &[(1, 10), (2, 10)], &[(3, 11)]), 1, Mono(0), &lease);
    r.commit();
    let stream = r.open_copy(SLOT, &node(3), 11).unwrap().0;
    assert_eq!(r.copied_mut(&node(3), &stream), Some(&mut CopySum { seq: 1, keys: 0, digest: 0 }));
    let seq = r.seq();
    r.copied_mut(&node(3), &stream).unwrap().add(seq, 2, 5);
    r.copied_mut(&node(3), &stream).unwrap().add(seq, 3, 7);
    assert_eq!(r.copied_mut(&node(3), &stream).unwrap().digest_of(1, 5), Some(12));
    assert_eq!(r.copied_mut(&node(3), &stream).unwrap().digest_of(1, 6), None);
    let seq = r.commit();
    r.copied_mut(&node(3), &stream).unwrap().add(seq, 0, 0);
    assert_eq!(r.copied_mut(&node(3), &stream).unwrap().digest_of(1, 5), None);
    assert_eq!(r.copied_mut(&node(3), &stream).unwrap().digest_of(2, 5), None);
}

#[test]
fn a_write_is_confirmed_by_its_backup_at_this_pterm_and_since_only() {
    let (mut r, _) = formed();
    assert_eq!(r.commit(), 1);
    assert!(r.must_hold());
    r.wait_for(1, 77);
    let stream = |pterm, since| Stream { slot: SLOT, pterm, since };
    assert_eq!(r.on_ack(&node(2), &stream(9, 10), Sent::Item(1)), Acked::Nothing);
    assert_eq!(r.on_ack(&node(2), &stream(10, 9), Sent::Item(1)), Acked::Nothing);
    assert_eq!(r.on_ack(&node(3), &stream(10, 10), Sent::Item(1)), Acked::Nothing);
    assert_eq!(r.held(10, 1), Held::Pending);
    assert_eq!(r.on_ack(&node(2), &stream(10, 10), Sent::Item(1)), Acked::Confirmed);
    assert_eq!(r.confirmed_waiters().collect::<Vec<_>>(), [77]);
    assert_eq!(r.held(10, 1), Held::Confirmed);
}

#[test]
fn a_refusal_confirms_nothing_ever_again() {
    let (mut r, _) = formed();
    r.commit();
    let stream = Stream { slot: SLOT, pterm: 10, since: 10 };
    assert!(r.on_refuse(&node(2), &stream, Refusal::Gap(1)));
    assert_eq!(r.on_ack(&node(2), &stream, Sent::Item(1)), Acked::Nothing);
    assert!(r.must_hold());
}

/// COUNTEREXAMPLES 13: an empty ack_set after losing the slot.
#[test]
fn losing_the_slot_is_no_confirmation() {
    let (mut r, lease) = formed();
    r.commit();
    let change = take(&mut r, &state(20, 20, 2, &[(2, 10)], &[]), 1, Mono(0), &lease);
    assert!(change.wake && change.wipe);
    assert_eq!(r.held(10, 1), Held::Lost);
    assert_eq!(r.serving(T), Serving::No);
}

#[test]
fn what_was_confirmed_before_the_loss_may_still_be_answered() {
    let (mut r, lease) = formed();
    r.commit();
    r.on_ack(&node(2), &Stream { slot: SLOT, pterm: 10, since: 10 }, Sent::Item(1));
    r.commit();
    take(&mut r, &state(20, 20, 2, &[(2, 10)], &[]), 1, Mono(0), &lease);
    assert_eq!((r.held(10, 1), r.held(10, 2)), (Held::Confirmed, Held::Lost));
}

#[test]
fn the_backups_death_completes_what_waited_for_it() {
    let (mut r, lease) = formed();
    r.commit();
    let change = take(&mut r, &state(20, 10, 1, &[(1, 10)], &[]), 1, Mono(0), &lease);
    assert!(change.wake && !change.wipe);
    assert_eq!(r.held(10, 1), Held::Confirmed);
    assert_eq!(r.serving(T), Serving::Until(Mono(u64::MAX)));
}

#[test]
fn a_promoted_backup_waits_out_its_promise_and_keeps_its_data() {
    let mut r = Repl::default();
    let lease = leased(10);
    let s = SlotState { clean: true, ..state(10, 10, 1, &[(1, 10), (2, 10)], &[]) };
    take(&mut r, &s, 2, Mono(0), &lease);
    assert_eq!(r.on_item(&Stream { slot: SLOT, pterm: 10, since: 10 }, 1), Accept::Apply);
    r.applied();
    let change = take(&mut r, &state(20, 20, 2, &[(2, 10)], &[]), 2, T.plus_ms(350), &lease);
    assert!(!change.wipe && !change.barrier);
    assert_eq!(r.serving(T.plus_ms(349)), Serving::Wait);
    assert!(matches!(r.serving(T.plus_ms(350)), Serving::Until(_)));
    assert_eq!(r.seq(), 1);
}

/// COUNTEREXAMPLES 2: the promise binds whatever this node came to believe since.
#[test]
fn a_promise_outlives_the_belief_it_was_given_under() {
    let mut r = Repl::default();
    let lease = leased(10);
    take(&mut r, &state(10, 10, 1, &[(1, 10)], &[(3, 10)]), 3, Mono(0), &lease);
    take(&mut r, &state(20, 20, 2, &[(2, 10)], &[(3, 10)]), 3, T.plus_ms(500), &lease);
    let s = state(30, 30, 3, &[(3, 10)], &[]);
    r.reconfigure(&s, &node(3), T, |_| T.plus_ms(100), |_| lease.clone());
    assert_eq!(r.serving(T.plus_ms(499)), Serving::Wait);
    assert!(matches!(r.serving(T.plus_ms(500)), Serving::Until(_)));
}

/// COUNTEREXAMPLES 1: an empty hand-out waits, for a cut-off primary may still hold a dead one's lease.
#[test]
fn an_empty_hand_out_and_a_return_wait_600_ms() {
    let lease = leased(10);
    let mut fresh = Repl::default();
    take(&mut fresh, &state(10, 10, 3, &[(3, 10)], &[]), 3, Mono(0), &lease);
    assert_eq!(fresh.serving(T.plus_ms(PROMISE_MS - 1)), Serving::Wait);
    assert!(matches!(fresh.serving(T.plus_ms(PROMISE_MS)), Serving::Until(_)));

    let (mut back, _) = formed();
    back.commit();
    let orphan = SlotState { pterm: 20, cver: 20, last_holder: Some(node(1)), held_since: 10, ..SlotState::default() };
    let change = take(&mut back, &orphan, 1, Mono(0), &lease);
    assert!(!change.wipe, "the only copy is kept");
    assert_eq!(back.rank(), Rank::Holder);
    let returned = SlotState { returned: true, ..state(30, 30, 1, &[(1, 10)], &[]) };
    let change = take(&mut back, &returned, 1, Mono(0), &lease);
    assert!(!change.wipe);
    assert_eq!(back.seq(), 1);
    assert_eq!(back.serving(T.plus_ms(PROMISE_MS - 1)), Serving::Wait);
}

/// A former holder that is handed the slot empty starts empty, whatever it jumped over.
#[test]
fn a_hand_out_is_empty_also_for_a_former_holder() {
    let (mut r, lease) = formed();
    r.commit();
    let orphan = SlotState { pterm: 20, cver: 20, last_holder: Some(node(1)), held_since: 10, ..SlotState::default() };
    take(&mut r, &orphan, 1, Mono(0), &lease);
    assert!(take(&mut r, &state(60, 60, 1, &[(1, 60)], &[]), 1, Mono(0), &lease).wipe);
    assert_eq!((r.seq(), r.serving(T.plus_ms(PROMISE_MS - 1))), (0, Serving::Wait));
}

/// Who slept through an empty hand-out to itself and its own death holds what was handed out: nothing.
#[test]
fn what_a_former_membership_left_is_not_what_a_last_holder_holds() {
    let (mut r, lease) = formed();
    r.commit();
    let last_holder = Some(node(1));
    let orphan = SlotState { pterm: 50, cver: 50, last_holder, held_since: 40, ..SlotState::default() };
    assert!(take(&mut r, &orphan, 1, Mono(0), &lease).wipe);
    assert_eq!((r.rank(), r.seq()), (Rank::Holder, 0));
    let returned = SlotState { returned: true, ..state(60, 60, 1, &[(1, 40)], &[]) };
    assert!(!take(&mut r, &returned, 1, Mono(0), &lease).wipe, "it is empty already");
}

#[test]
fn a_copy_is_counted_only_with_a_lease_and_ready_only_after_sync_end() {
    let (mut r, lease) = formed();
    r.commit();
    take(&mut r, &state(20, 10, 1, &[(1, 10)], &[(3, 20)]), 1, Mono(0), &lease);
    assert!(!r.must_hold(), "a learner that is not counted holds nothing up");
    let (stream, next) = r.open_copy(SLOT, &node(3), 20).unwrap();
    assert_eq!((next, r.open_copy(SLOT, &node(3), 20)), (2, None));
    r.commit();
    assert!(!r.must_hold());
    assert_eq!(r.on_ack(&node(3), &stream, Sent::LastChunk), Acked::Copied);
    lease.0.set(Lease::default());
    assert_eq!(r.count_learner(&node(3), &stream, T), None);
    lease.0.set(Lease { until: T.plus_ms(1), cfg_index: 10 });
    assert_eq!(r.count_learner(&node(3), &stream, T), Some(2));
    assert_eq!(r.ready_learners(T).count(), 0);
    r.commit();
    assert!(r.must_hold(), "a counted learner is waited for");
    assert_eq!(r.on_ack(&node(3), &stream, Sent::End(2)), Acked::Ready);
    assert_eq!(r.ready_learners(T).collect::<Vec<_>>(), [(&node(3), 20, 20)]);
    assert_eq!(r.on_ack(&node(3), &stream, Sent::Item(3)), Acked::Confirmed);
    // In sync by configuration: the same stream goes on.
    take(&mut r, &state(30, 10, 1, &[(1, 10), (3, 20)], &[]), 1, Mono(0), &lease);
    r.commit();
    assert!(r.must_hold());
    assert_eq!(r.on_ack(&node(3), &stream, Sent::Item(4)), Acked::Confirmed);
}

/// COUNTEREXAMPLES 4: removed and added again is another copy.
#[test]
fn a_learner_added_again_starts_from_nothing() {
    let (mut r, lease) = formed();
    take(&mut r, &state(20, 10, 1, &[(1, 10)], &[(3, 20)]), 1, Mono(0), &lease);
    let (old, _) = r.open_copy(SLOT, &node(3), 20).unwrap();
    take(&mut r, &state(40, 10, 1, &[(1, 10)], &[(3, 40)]), 1, Mono(0), &lease);
    assert_eq!(r.on_ack(&node(3), &old, Sent::LastChunk), Acked::Nothing);
    assert_eq!(r.wanted().map(|t| t.since), Some(40));
    let mut l = Repl::default();
    take(&mut l, &state(20, 10, 1, &[(1, 10)], &[(3, 20)]), 3, Mono(0), &lease);
    l.on_open(&old, 1);
    assert_eq!(l.on_item(&old, 1), Accept::Apply);
    assert!(take(&mut l, &state(40, 10, 1, &[(1, 10)], &[(3, 40)]), 3, Mono(0), &lease).wipe);
    assert_eq!(l.on_item(&old, 1), Accept::Refuse(Refusal::Stale));
    let new = Stream { since: 40, ..old };
    assert_eq!(l.on_item(&new, 1), Accept::Refuse(Refusal::Gap(0)), "not before its session opens");
}

#[test]
fn items_are_taken_once_in_order_and_never_after_a_gap() {
    let mut r = Repl::default();
    let lease = leased(10);
    take(&mut r, &state(10, 10, 1, &[(1, 10), (2, 10)], &[]), 2, Mono(0), &lease);
    let stream = Stream { slot: SLOT, pterm: 10, since: 10 };
    assert_eq!(r.on_item(&stream, 1), Accept::Apply);
    r.applied();
    assert_eq!(r.on_item(&stream, 1), Accept::Dup);
    assert_eq!(r.on_item(&stream, 3), Accept::Refuse(Refusal::Gap(2)));
    assert_eq!(r.on_item(&Stream { pterm: 9, ..stream }, 2), Accept::Refuse(Refusal::Stale));
}

#[test]
fn a_new_primary_with_members_confirms_nothing_before_they_answer() {
    let mut r = Repl::default();
    let lease = leased(20);
    take(&mut r, &state(10, 10, 1, &[(1, 10), (2, 10)], &[]), 2, Mono(0), &lease);
    let stream = Stream { slot: SLOT, pterm: 10, since: 10 };
    r.on_item(&stream, 1);
    r.applied();
    let switched = SlotState { clean: true, ..state(20, 20, 2, &[(1, 10), (2, 10)], &[]) };
    let change = take(&mut r, &switched, 2, T.plus_ms(300), &lease);
    assert!(change.barrier && r.must_hold());
    assert!(matches!(r.serving(T), Serving::Until(_)), "SWITCH needs no wait");
    assert_eq!(r.commit(), 2, "the barrier is an item of its own");
    assert_eq!(r.on_ack(&node(1), &Stream { pterm: 20, ..stream }, Sent::Item(2)), Acked::Confirmed);
}

fn handover(index: u64, to: u64, insync: &[(u64, u64)]) -> SlotState {
    SlotState { phase: Phase::Handover, handover_to: Some(node(to)), ..state(index, 10, 1, insync, &[]) }
}

fn serves(r: &Repl) -> bool {
    matches!(r.serving(T), Serving::Until(_))
}

const BOTH: [(u64, u64); 2] = [(1, 10), (2, 10)];

#[test]
fn a_primary_serves_on_until_the_target_and_the_others_know_of_the_handover() {
    let (mut r, lease) = formed();
    take(&mut r, &handover(20, 2, &BOTH), 1, Mono(0), &lease);
    assert_eq!((r.relinquish(T, 20), serves(&r)), (None, true), "the target does not know");
    lease.0.set(Lease { until: T.plus_ms(400), cfg_index: 20 });
    assert_eq!((r.relinquish(T, 19), serves(&r)), (None, true), "somebody else does not");
    assert_eq!((r.relinquish(T, 20), r.serving(T)), (Some((20, 0)), Serving::Wait));
}

#[test]
fn nothing_is_relinquished_before_all_is_confirmed_and_nothing_is_written_after() {
    let (mut r, lease) = formed();
    r.commit();
    take(&mut r, &handover(20, 2, &BOTH), 1, Mono(0), &lease);
    lease.0.set(Lease { until: T.plus_ms(400), cfg_index: 20 });
    assert_eq!((r.relinquish(T, 20), r.serving(T)), (None, Serving::Wait));
    assert_eq!(r.on_ack(&node(2), &Stream { slot: SLOT, pterm: 10, since: 10 }, Sent::Item(1)), Acked::Confirmed);
    assert_eq!(r.relinquish(T, 20), Some((20, 1)));
    // Whatever becomes of the lease, and whoever is slow: it is said again, and stays parked.
    lease.0.set(Lease::default());
    assert_eq!((r.relinquish(T, 0), r.serving(T)), (Some((20, 1)), Serving::Wait));
}

/// COUNTEREXAMPLES 5: what is said carries the view's cver, and only a newer view that shows it serving frees the primary.
#[test]
fn a_primary_that_relinquished_is_freed_by_a_view_only() {
    let (mut r, lease) = formed();
    take(&mut r, &handover(20, 2, &BOTH), 1, Mono(0), &lease);
    lease.0.set(Lease { until: T.plus_ms(400), cfg_index: 20 });
    assert_eq!(r.relinquish(T, 20), Some((20, 0)));
    // Aborted and begun again, unseen: parked still, and what it says now is of the new one.
    take(&mut r, &handover(30, 2, &BOTH), 1, Mono(0), &lease);
    assert_eq!(r.serving(T), Serving::Wait);
    lease.0.set(Lease { until: T.plus_ms(400), cfg_index: 30 });
    assert_eq!(r.relinquish(T, 30), Some((30, 0)));
    take(&mut r, &state(40, 10, 1, &BOTH, &[]), 1, Mono(0), &lease);
    assert_eq!((r.relinquish(T, 40), serves(&r)), (None, true));
}

#[test]
fn the_target_parks_then_serves_and_the_old_primary_stays_in_sync() {
    let lease = leased(20);
    let (mut old, _) = formed();
    let mut new = Repl::default();
    take(&mut new, &SlotState { clean: true, ..state(10, 10, 1, &BOTH, &[]) }, 2, Mono(0), &lease);
    let stream = Stream { slot: SLOT, pterm: 10, since: 10 };
    assert_eq!((old.commit(), new.on_item(&stream, 1)), (1, Accept::Apply));
    new.applied();
    old.on_ack(&node(2), &stream, Sent::Item(1));
    assert_eq!(new.serving(T), Serving::No);
    take(&mut new, &handover(20, 2, &BOTH), 2, Mono(0), &lease);
    assert_eq!(new.serving(T), Serving::Wait, "who comes early waits");
    let switched = SlotState { clean: true, ..state(30, 30, 2, &BOTH, &[]) };
    // Its own promise to the old primary is no hindrance after a switch; a lease from before it is.
    take(&mut new, &switched, 2, T.plus_ms(500), &lease);
    assert_eq!((new.seq(), new.serving(T)), (1, Serving::Wait));
    lease.0.set(Lease { until: T.plus_ms(400), cfg_index: 30 });
    assert!(serves(&new));
    let change = take(&mut old, &switched, 1, Mono(0), &lease);
    assert_eq!(
        (change.wipe, old.rank(), old.serving(T), old.held(10, 1)),
        (false, Rank::InSync, Serving::No, Held::Confirmed)
    );
    // An abort instead: what it parked is sent back.
    let mut other = Repl::default();
    take(&mut other, &state(10, 10, 1, &BOTH, &[]), 2, Mono(0), &lease);
    take(&mut other, &handover(20, 2, &BOTH), 2, Mono(0), &lease);
    take(&mut other, &state(30, 10, 1, &BOTH, &[]), 2, Mono(0), &lease);
    assert_eq!(other.serving(T), Serving::No);
}

/// COUNTEREXAMPLES 2: neither ready learners nor handovers before this node's own promises are over.
#[test]
fn under_a_promise_nothing_is_reported_and_nothing_relinquished() {
    let lease = leased(30);
    let mut r = Repl::default();
    take(&mut r, &SlotState { clean: true, ..state(10, 10, 1, &BOTH, &[]) }, 2, Mono(0), &lease);
    take(&mut r, &state(20, 20, 2, &[(2, 10)], &[(3, 20)]), 2, T.plus_ms(300), &lease);
    let (stream, _) = r.open_copy(SLOT, &node(3), 20).unwrap();
    r.on_ack(&node(3), &stream, Sent::LastChunk);
    assert_eq!(r.count_learner(&node(3), &stream, T), Some(0));
    assert_eq!(r.on_ack(&node(3), &stream, Sent::End(0)), Acked::Ready);
    assert_eq!(r.ready_learners(T.plus_ms(299)).count(), 0);
    assert_eq!(r.ready_learners(T.plus_ms(300)).count(), 1);
    let given =
        SlotState { phase: Phase::Handover, handover_to: Some(node(3)), ..state(30, 20, 2, &[(2, 10), (3, 20)], &[]) };
    take(&mut r, &given, 2, Mono(0), &lease);
    assert_eq!(r.relinquish(T.plus_ms(299), 30), None);
    assert_eq!(r.relinquish(T.plus_ms(300), 30), Some((30, 0)));
}

/// A backup that a hand-out made in sync at once waits as its primary does: it promised the lost primary nothing itself, but
/// somebody may have. Where the slot was given up by plan nobody waits.
#[test]
fn a_backup_of_an_empty_hand_out_does_not_cut_its_wait_short() {
    for clean in [false, true] {
        let lease = leased(50);
        let mut r = Repl::default();
        let handed = SlotState { clean, ..state(40, 40, 3, &[(3, 40), (4, 40)], &[]) };
        take(&mut r, &handed, 4, Mono(0), &lease);
        assert_eq!((r.rank(), r.seq()), (Rank::InSync, 0));
        take(&mut r, &state(50, 50, 4, &[(4, 40)], &[]), 4, Mono(0), &lease);
        let waits = r.serving(T.plus_ms(PROMISE_MS - 1)) == Serving::Wait;
        assert_eq!(waits, !clean);
        assert!(matches!(r.serving(T.plus_ms(PROMISE_MS)), Serving::Until(_)));
    }
}

/// A member leaves: its data is dropped once the configuration shows it, and not before.
#[test]
fn data_is_dropped_by_configuration_only() {
    let mut r = Repl::default();
    let lease = leased(10);
    take(&mut r, &state(10, 10, 1, &[(1, 10), (2, 10)], &[]), 2, Mono(0), &lease);
    assert!(!take(&mut r, &state(12, 10, 1, &[(1, 10), (2, 10)], &[(3, 12)]), 2, Mono(0), &lease).wipe);
    assert!(take(&mut r, &state(14, 10, 1, &[(1, 10), (3, 12)], &[]), 2, Mono(0), &lease).wipe);
}
