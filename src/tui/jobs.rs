//! What was begun from here and is not over: it is followed, view by view, until its end can be told. Closing a dialog, or
//! losing the masters half way, loses none of it: what became of an order whose answer was lost is read from the cluster.

use super::dialog::handle::{ask_plan, order};
use super::dialog::{self, Deed};
use super::effect::Effect;
use super::escape::clean;
use super::model::{Model, Tone, is_open};
use super::number;
use super::request::{KeyAnswer, KeyWish, LocalAnswer, LocalWish, Refusal};
use crate::proto::control::Message;
use crate::proto::operation::{Apply, OperationKind, PlanView, Wish};
use crate::proto::status::{NodeState, OperationStatus};

/// Things followed at a time: more than one person begins.
const JOBS_MAX: usize = 16;
/// How long a started process has to register, milliseconds: a slow disk and an election.
const JOIN_MS: u64 = 60_000;
/// How long a new leader may take to lead, milliseconds: the command line's default.
const SWITCH_MS: u64 = 10_000;
/// How long after the masters are back a lost order may still turn up, milliseconds: an entry is committed by then or never.
const LOST_MS: u64 = 5_000;
/// Nodes asked first for a slot map.
const SEEDS_MAX: usize = 8;
/// The masters' word for a plan that no longer holds.
const STALE_PLAN: &str = "STALE_PLAN";

/// A plan that was agreed to.
#[derive(Debug, Clone, PartialEq)]
pub struct Agreed {
    /// What is wished for.
    pub wish: Wish,
    /// The epoch of the plan that was seen.
    pub epoch: u64,
    /// Its digest.
    pub digest: String,
}

/// Something under way.
#[derive(Debug, Clone, PartialEq)]
pub enum Job {
    /// Processes are being started on this machine.
    Starting {
        /// Their request.
        request: u64,
        /// What follows.
        agreed: Agreed,
    },
    /// They run and must show up among the nodes.
    Joining {
        /// What follows.
        agreed: Agreed,
        /// Since when, monotonic milliseconds.
        since_ms: u64,
    },
    /// The leader was told to do it.
    Applying {
        /// The order.
        request: u64,
        /// What.
        agreed: Agreed,
        /// The newest operation before.
        newest: u64,
    },
    /// The order's answer was lost.
    Lost {
        /// What was ordered.
        agreed: Agreed,
        /// The newest operation before.
        newest: u64,
        /// Since when a leader is heard again, monotonic milliseconds.
        heard_ms: Option<u64>,
    },
    /// The operation runs.
    Following {
        /// Which.
        operation: u64,
    },
    /// Leadership is being handed over.
    Switching {
        /// The order.
        request: u64,
        /// From whom.
        from: String,
        /// To whom.
        to: String,
        /// Since when, monotonic milliseconds.
        since_ms: u64,
    },
    /// An order whose answer is all there is to know.
    Ordering {
        /// The order.
        request: u64,
        /// What to say when it is done.
        done: String,
    },
    /// A process is being touched.
    Touching {
        /// The request.
        request: u64,
        /// What, in words.
        what: String,
    },
    /// A key is being written or deleted.
    Keying {
        /// The request.
        request: u64,
        /// Which.
        key: String,
    },
}

/// Whether one more can be begun.
pub fn room(model: &Model) -> Result<(), String> {
    if model.jobs.len() < JOBS_MAX {
        Ok(())
    } else {
        Err(format!("{JOBS_MAX} things are under way: wait for one to end"))
    }
}

/// The newest operation's number.
fn newest(model: &Model) -> u64 {
    model.live.iter().flat_map(|c| &c.status.operations).map(|o| o.id).max().unwrap_or(0)
}

/// `scale-out n4`.
fn wish_in_words(wish: &Wish) -> String {
    let names: Vec<&str> = wish.nodes.iter().take(4).map(|n| n.as_str()).collect();
    let more = if wish.nodes.len() > names.len() { " …" } else { "" };
    format!("{} {}{more}", wish.kind.as_str(), names.join(" ")).trim_end().to_owned()
}

/// Does what a plan says. On a local cluster the new nodes' processes are started first.
pub fn apply(model: &mut Model, plan: &PlanView) -> Vec<Effect> {
    if let Err(why) = room(model) {
        model.tell(Tone::Alert, why);
        return Vec::new();
    }
    let agreed = Agreed { wish: plan.wish.clone(), epoch: plan.epoch, digest: plan.moves_digest.clone() };
    let missing: Vec<String> =
        agreed.wish.nodes.iter().map(ToString::to_string).filter(|n| !is_member(model, n)).collect();
    if agreed.wish.kind == OperationKind::ScaleOut && model.setup.local && !missing.is_empty() {
        let request = model.next_request();
        model.tell(Tone::Done, format!("starting {}", missing.join(" ")));
        model.jobs.push(Job::Starting { request, agreed });
        return vec![Effect::Local { id: request, wish: LocalWish::StartStandby(missing) }];
    }
    send(model, agreed)
}

fn is_member(model: &Model, name: &str) -> bool {
    let gone = |s: NodeState| matches!(s, NodeState::Left | NodeState::Dead);
    model.live.as_ref().is_some_and(|c| c.status.nodes.iter().any(|n| n.id == name && !gone(n.state)))
}

fn send(model: &mut Model, agreed: Agreed) -> Vec<Effect> {
    let message = Message::Apply(Apply {
        wish: agreed.wish.clone(),
        epoch: Some(agreed.epoch),
        moves_digest: Some(agreed.digest.clone()),
    });
    // Once it was accepted the same order means something else, so a lost answer is not asked for again.
    let order = order(model, message, false);
    let newest = newest(model);
    model.jobs.push(Job::Applying { request: order.id, agreed, newest });
    vec![Effect::Order(order)]
}

/// Reads, writes or deletes a key through the node that has it.
pub fn touch_key(model: &mut Model, key: &str, wish: KeyWish) -> Vec<Effect> {
    let id = model.next_request();
    let mut seeds: Vec<String> = Vec::new();
    if let Some(c) = &model.live {
        let up = c.status.nodes.iter().filter(|n| !matches!(n.state, NodeState::Dead | NodeState::Left));
        seeds.extend(up.take(SEEDS_MAX).map(|n| n.addr.clone()));
    }
    if wish == KeyWish::Look {
        if model.keys.key != key {
            model.keys.found = None;
            model.keys.scroll = 0;
        }
        model.keys.error = None;
        key.clone_into(&mut model.keys.key);
        model.keys.request = Some(id);
    } else {
        model.jobs.push(Job::Keying { request: id, key: key.to_owned() });
    }
    vec![Effect::Key { id, seeds, key: key.to_owned(), wish }]
}

/// An answer from the leader.
pub fn ordered(model: &mut Model, id: u64, answer: Result<Box<Message>, Refusal>) -> Vec<Effect> {
    let is_it = |j: &Job| match j {
        Job::Applying { request, .. } | Job::Switching { request, .. } | Job::Ordering { request, .. } => {
            *request == id
        }
        _ => false,
    };
    let Some(at) = model.jobs.iter().position(is_it) else { return Vec::new() };
    match (model.jobs.remove(at), answer) {
        (Job::Applying { agreed, newest, .. }, answer) => return applied(model, agreed, newest, answer),
        (Job::Switching { request, from, to, since_ms }, Err(r)) => {
            if r.unknown || r.code.is_empty() {
                // Who leads in the end is seen in the views.
                model.jobs.push(Job::Switching { request, from, to, since_ms });
            } else {
                model.tell(Tone::Alert, format!("{from} still leads: {}", r.text));
            }
        }
        (job @ Job::Switching { .. }, Ok(_)) => {
            model.jobs.push(job);
            return viewed(model);
        }
        (Job::Ordering { done, .. }, Ok(_)) => model.tell(Tone::Done, done),
        (Job::Ordering { .. }, Err(r)) if r.unknown => {
            model.tell(Tone::Alert, format!("outcome unknown: {}; the operation's state tells", r.text));
        }
        (Job::Ordering { .. }, Err(r)) => model.tell(Tone::Alert, r.text),
        (other, _) => model.jobs.push(other),
    }
    Vec::new()
}

fn applied(model: &mut Model, agreed: Agreed, newest: u64, answer: Result<Box<Message>, Refusal>) -> Vec<Effect> {
    let what = wish_in_words(&agreed.wish);
    match answer {
        Ok(message) => match *message {
            Message::Accepted(a) => match a.operation {
                Some(id) => {
                    model.tell(Tone::Done, format!("op #{id} accepted: {what}, {}", moves_in_words(&a.plan)));
                    model.migrations.selected = Some(id);
                    model.jobs.push(Job::Following { operation: id });
                }
                None => model.tell(Tone::Done, format!("{what}: there was nothing to do")),
            },
            other => model.tell(Tone::Alert, format!("{what}: a strange answer: {}", other.kind())),
        },
        Err(r) if r.unknown => {
            model.tell(Tone::Alert, format!("{what}: outcome unknown; the masters will be asked when they are back"));
            model.jobs.push(Job::Lost { agreed, newest, heard_ms: None });
        }
        Err(r) if r.code == STALE_PLAN && model.dialog.is_none() => {
            let deed = match agreed.wish.kind {
                OperationKind::ScaleOut => Deed::ScaleOut,
                OperationKind::ScaleIn => Deed::ScaleIn,
                OperationKind::Rebalance | OperationKind::Rebuild => Deed::Rebalance,
            };
            let mut d = dialog::open(model, deed);
            d.can = true;
            d.error = Some("the ring changed since that plan: this is the plan now".to_owned());
            return ask_plan(model, d, agreed.wish);
        }
        Err(r) => model.tell(Tone::Alert, format!("{what} was refused: {}", r.text)),
    }
    Vec::new()
}

/// `2730 slot moves from 5 nodes`.
pub fn moves_in_words(plan: &PlanView) -> String {
    let mut givers: Vec<&str> = plan.moves.iter().filter_map(|m| m.from.as_ref()).map(|n| n.as_str()).collect();
    givers.sort_unstable();
    givers.dedup();
    let s = if givers.len() == 1 { "" } else { "s" };
    format!("{} slot moves from {} node{s}", number::exact(plan.slots_total), givers.len())
}

/// An answer from whoever runs the local cluster.
pub fn local(model: &mut Model, id: u64, answer: Result<LocalAnswer, String>) -> Vec<Effect> {
    let is_it = |j: &Job| match j {
        Job::Starting { request, .. } | Job::Touching { request, .. } => *request == id,
        _ => false,
    };
    let Some(at) = model.jobs.iter().position(is_it) else { return Vec::new() };
    match (model.jobs.remove(at), answer) {
        (Job::Starting { agreed, .. }, Ok(_)) => {
            let since_ms = model.now.mono_ms;
            model.jobs.push(Job::Joining { agreed, since_ms });
            return viewed(model);
        }
        (Job::Starting { agreed, .. }, Err(why)) => {
            model.tell(Tone::Alert, format!("{}: {why}", wish_in_words(&agreed.wish)));
        }
        (Job::Touching { what, .. }, Ok(LocalAnswer::Done(words))) => {
            model.tell(Tone::Done, if words.is_empty() { what } else { words });
        }
        (Job::Touching { what, .. }, Ok(LocalAnswer::Lines(_))) => model.tell(Tone::Done, what),
        (Job::Touching { what, .. }, Err(why)) => model.tell(Tone::Alert, format!("{what}: {why}")),
        (other, _) => model.jobs.push(other),
    }
    Vec::new()
}

/// An answer from a cache node.
pub fn keyed(model: &mut Model, id: u64, answer: Result<KeyAnswer, Refusal>) -> Vec<Effect> {
    let ascii = model.setup.ascii;
    if model.keys.request == Some(id) {
        model.keys.request = None;
        match answer {
            Ok(KeyAnswer::Found(mut found)) => {
                found.addr = clean(&found.addr, ascii);
                model.keys.found = Some(found);
                model.keys.found_at_ms = model.now.wall_ms;
            }
            Ok(_) => {}
            Err(r) => {
                model.keys.found = None;
                model.keys.error = Some(clean(&r.text, ascii));
            }
        }
        return Vec::new();
    }
    let Some(at) = model.jobs.iter().position(|j| matches!(j, Job::Keying { request, .. } if *request == id)) else {
        return Vec::new();
    };
    let Job::Keying { key, .. } = model.jobs.remove(at) else { return Vec::new() };
    let shown = if key.chars().count() > 40 { "the key".to_owned() } else { key.clone() };
    match answer {
        Ok(KeyAnswer::Set) => model.tell(Tone::Done, format!("{shown} is set, at its backup too")),
        Ok(KeyAnswer::Deleted(true)) => model.tell(Tone::Done, format!("{shown} is deleted")),
        Ok(KeyAnswer::Deleted(false)) => model.tell(Tone::Alert, format!("{shown} was not there")),
        Ok(KeyAnswer::Found(_)) => {}
        Err(r) if r.unknown => model.tell(Tone::Alert, format!("{shown}: {}", r.text)),
        Err(r) => model.tell(Tone::Alert, format!("{shown} is as it was: {}", r.text)),
    }
    // What is in it now is read, whatever was said.
    touch_key(model, &key, KeyWish::Look)
}

/// A view came in: what of all this is over, and what comes next.
pub fn viewed(model: &mut Model) -> Vec<Effect> {
    let mut effects = Vec::new();
    for job in std::mem::take(&mut model.jobs) {
        if let Some(job) = turn(model, job, &mut effects) {
            model.jobs.push(job);
        }
    }
    effects
}

fn operation(model: &Model, of: impl Fn(&OperationStatus) -> bool) -> Option<OperationStatus> {
    model.live.as_ref()?.status.operations.iter().find(|o| of(o)).cloned()
}

/// One step of a job; none when it is over.
fn turn(model: &mut Model, job: Job, effects: &mut Vec<Effect>) -> Option<Job> {
    let now = model.now.mono_ms;
    let leader = model.live.as_ref().and_then(|c| c.status.leader.clone());
    match job {
        Job::Joining { agreed, since_ms } => {
            if agreed.wish.nodes.iter().all(|n| is_member(model, n.as_str())) {
                effects.extend(send(model, agreed));
                return None;
            }
            if now.saturating_sub(since_ms) > JOIN_MS {
                let what = wish_in_words(&agreed.wish);
                model
                    .tell(Tone::Alert, format!("{what}: started, but not registered within {}", number::span(JOIN_MS)));
                return None;
            }
            Some(Job::Joining { agreed, since_ms })
        }
        Job::Lost { agreed, newest, heard_ms } => {
            let names: Vec<&str> = agreed.wish.nodes.iter().map(|n| n.as_str()).collect();
            let kind = agreed.wish.kind.as_str();
            let found = operation(model, |o| {
                o.id > newest && o.kind == kind && names.iter().all(|n| o.nodes.iter().any(|m| m == n))
            });
            if let Some(o) = found {
                model.tell(Tone::Done, format!("op #{} was accepted after all: {}", o.id, wish_in_words(&agreed.wish)));
                return turn(model, Job::Following { operation: o.id }, effects);
            }
            let heard_ms = leader.map(|_| heard_ms.unwrap_or(now));
            if heard_ms.is_some_and(|h| now.saturating_sub(h) > LOST_MS) {
                model.tell(Tone::Alert, format!("{} was not accepted: nothing was begun", wish_in_words(&agreed.wish)));
                return None;
            }
            Some(Job::Lost { agreed, newest, heard_ms })
        }
        Job::Following { operation: id } => {
            let Some(o) = operation(model, |o| o.id == id) else { return Some(Job::Following { operation: id }) };
            if is_open(&o) {
                return Some(Job::Following { operation: id });
            }
            let what = format!("op #{id} {} {}", o.kind, o.nodes.join(" "));
            match (o.state.as_str(), &o.reason) {
                ("done", _) => model.tell(Tone::Done, format!("{what} is done")),
                (state, Some(reason)) => model.tell(Tone::Alert, format!("{what} {state}: {reason}")),
                (state, None) => model.tell(Tone::Alert, format!("{what} {state}")),
            }
            None
        }
        Job::Switching { request, from, to, since_ms } => {
            let took = now.saturating_sub(since_ms);
            if leader.as_ref() == Some(&to) {
                model.tell(Tone::Done, format!("{to} leads: {from} handed over in {took} ms"));
                return None;
            }
            if took > SWITCH_MS {
                let who = leader.unwrap_or_else(|| "nobody".to_owned());
                let span = number::span(SWITCH_MS);
                model
                    .tell(Tone::Alert, format!("leadership did not go from {from} to {to} within {span}: {who} leads"));
                return None;
            }
            Some(Job::Switching { request, from, to, since_ms })
        }
        other => Some(other),
    }
}

/// What is under way whose outcome nobody knows, in words: for the screen while the masters are away.
pub fn unknown(model: &Model) -> Vec<String> {
    model
        .jobs
        .iter()
        .filter_map(|j| match j {
            Job::Lost { agreed, .. } => {
                Some(format!("{}: outcome unknown, will be asked when masters are back", wish_in_words(&agreed.wish)))
            }
            _ => None,
        })
        .collect()
}
