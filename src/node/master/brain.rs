//! The leader's decisions: `step(now, state, wall_ms, event) -> commands`. No I/O, no clock, no randomness.

//!
//! ```text
//!              BecameLeader             own entry applied (and the cluster named)           STOPPED applied
//!  following ───────────────▶ electing ───────────────────────────────────────▶ leading ───────────────────▶ ended
//!      ▲                         │                                                 │
//!      └──── LostLeadership ─────┴─────────────────────────────────────────────────┘
//!
//!  leading, at every step:  probe ▸ judge deaths ▸ form ▸ hand out orphans ▸ judge stalls ▸ promote ▸ rebuild ▸ welcome
//!                           ▸ move slots ▸ settle
//! ```
//!
//! Each of these reads the applied state, proposes at most one entry at a time and waits for its outcome. An outcome that
//! stays unknown is no harm: entries are compare-and-swap, and the next step reads the state again.

use std::collections::{BTreeMap, BTreeSet};

use super::entry::{Act, Answer, Entry, OperationStep};
use super::evidence::Trials;
use super::heartbeat::Heartbeats;
use super::moves::Planner;
use super::operation::{Survey, may_hold, survey};
use super::state::{BACKUPS_MAX, State};
use crate::node::clock::Mono;
use crate::proto::control::{Empty, Message};
use crate::proto::error::Failure;
use crate::proto::event::Severity;
use crate::proto::id::{ClusterId, LeaderId, MasterId, NAME_MAX, NodeId, Ref};
use crate::proto::operation::{Accepted, Apply, OperationKind, PlanView, Wish};
use crate::proto::slot::Slot;

mod death;
mod form;
mod join;
mod message;
mod moves;
mod rebuild;
mod scale;
#[cfg(test)]
mod sim;
mod stall;
mod stop;

pub use message::{BrainParams, Command, ConnId, Event, Outcome, PROBE_TIMEOUT_MS, ProbeOutcome, TICK_MS, Token};
pub use moves::Figures;

/// Without an answer of a majority for this long a leader neither acknowledges nor decides, milliseconds (section 7).
pub const QUORUM_MS: u64 = 1000;
/// A leader whose own loop was late by more than this judges nobody for that time, milliseconds.
pub const LATE_MS: u64 = 500;
/// A proposal without an outcome for this long counts as unknown, milliseconds; the runtime answers much sooner.
pub const PROPOSAL_MS: u64 = 10_000;
/// After a proposal that Raft refused or did not answer the brain proposes nothing for this long, milliseconds: a loop of
/// refusals would starve the heartbeats.
pub const RETRY_MS: u64 = 100;
/// Proposals under way; beyond it requests are told to come back, so that a storm of registrations stays bounded.
pub const PROPOSALS_MAX: usize = 4096;

/// The leader's brain; it sleeps while another master leads.
#[derive(Debug)]
pub struct Brain {
    params: BrainParams,
    stage: Stage,
    /// When a majority was last known to answer.
    quorum_at: Mono,
    /// No majority for [`QUORUM_MS`]: said once.
    cut_off: bool,
    /// When the brain last ran, to notice that it was late.
    last_step: Mono,
    next_token: Token,
    pending: BTreeMap<Token, Pending>,
    heartbeats: Heartbeats,
    trials: Trials,
    /// Nothing is proposed before: Raft refused, or did not answer.
    retry_at: Mono,
    /// The slot table looked over, and at which `cfg_index`.
    survey: Survey,
    surveyed: Option<u64>,
    /// Since when there are nodes that may hold slots: the waits of formation and whole restart count from here.
    holders_since: Option<Mono>,
    mass: Option<death::MassCheck>,
    ready: BTreeMap<Slot, rebuild::Ready>,
    /// Since when copies that are done gather, to be promoted together.
    gathers_since: Option<Mono>,
    /// What the last fruitless search for learners saw, so that it is not repeated at every tick.
    fruitless: Option<(u64, BTreeSet<NodeId>)>,
    stalls: stall::Stalls,
    moves: moves::Moves,
    planner: Planner,
    /// The configuration at which joined nodes were last looked for.
    welcomed: Option<u64>,
    stop: Option<stop::Stop>,
}

#[derive(Debug, Clone, PartialEq)]
enum Stage {
    Following,
    /// Its own entry is not applied yet: predecessors' entries may still come.
    Electing {
        leader: LeaderId,
        fresh: ClusterId,
    },
    Leading {
        leader: LeaderId,
        since: Mono,
    },
    /// STOPPED is committed and the end was ordered.
    Ended,
}

#[derive(Debug)]
struct Pending {
    purpose: Purpose,
    since: Mono,
}

/// What a proposal is for; most purposes have one under way at a time, so that each is decided on what the last one made.
#[derive(Debug, Clone, PartialEq)]
enum Purpose {
    Elected,
    Init,
    Register {
        asker: Asker,
        node: Ref,
    },
    Back {
        node: Ref,
        answer: Option<Asker>,
    },
    Dead(Vec<Ref>),
    Form,
    HandOut,
    Settle,
    Learners,
    Promote,
    Removals,
    Stall,
    Operation,
    /// An entry of the scale operation itself.
    Scale,
    /// Its slots' next steps.
    Moves,
    /// SWITCH and ABORT.
    Switch,
    /// Copies that hang.
    Stuck,
    /// An operation for nodes that joined by themselves.
    Welcome,
    Left(Ref),
    Applied {
        asker: Asker,
        plan: Box<PlanView>,
    },
    Stopping,
    Stopped,
    Note,
    /// Leadership goes on once it is on record who asked for it.
    HandOver {
        asker: Asker,
        to: Option<MasterId>,
    },
    Ordered {
        asker: Asker,
    },
}

/// One step: what it sees and what it says.
struct Turn<'a> {
    now: Mono,
    wall_ms: u64,
    state: &'a State,
    commands: Vec<Command>,
}

/// Who waits for an answer: a connection and the envelope's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Asker {
    conn: ConnId,
    id: u64,
}

impl Turn<'_> {
    fn say(&mut self, command: Command) {
        self.commands.push(command);
    }

    fn reply(&mut self, to: Asker, message: Message) {
        self.say(Command::Reply { conn: to.conn, id: to.id, message: Box::new(message) });
    }

    fn fail(&mut self, to: Asker, code: &str, message: &str) {
        self.reply(to, Message::Error(Failure::new(code, message)));
    }

    fn redirect(&mut self, to: Asker) {
        self.say(Command::Redirect { conn: to.conn, id: to.id });
    }
}

impl Brain {
    /// A brain that does not lead yet.
    pub fn new(params: BrainParams, now: Mono) -> Self {
        Self {
            params,
            stage: Stage::Following,
            quorum_at: now,
            cut_off: false,
            last_step: now,
            next_token: 1,
            pending: BTreeMap::new(),
            heartbeats: Heartbeats::default(),
            trials: Trials::default(),
            retry_at: now,
            survey: Survey::default(),
            surveyed: None,
            holders_since: None,
            mass: None,
            ready: BTreeMap::new(),
            gathers_since: None,
            fruitless: None,
            stalls: stall::Stalls::default(),
            moves: moves::Moves::default(),
            planner: Planner::default(),
            welcomed: None,
            stop: None,
        }
    }

    /// Takes an event in and says what to do. `state` is the newest applied one, `wall_ms` is for the record only.
    pub fn step(&mut self, now: Mono, state: &State, wall_ms: u64, event: Event) -> Vec<Command> {
        let mut turn = Turn { now, wall_ms, state, commands: Vec::new() };
        if now.ms_since(self.last_step) > LATE_MS + TICK_MS {
            self.heartbeats.rearm(now);
        }
        self.last_step = self.last_step.max(now);
        // Heartbeats come by the thousand and decide nothing by themselves.
        let decides = !matches!(event, Event::KeepAlive { .. } | Event::Quorum { .. });
        self.hear(&mut turn, event);
        if decides {
            self.drive(&mut turn);
        }
        turn.commands
    }

    /// Who leads, if this master does and a majority answers it.
    pub fn leading(&self, now: Mono) -> Option<&LeaderId> {
        match &self.stage {
            Stage::Leading { leader, .. } if self.has_quorum(now) => Some(leader),
            _ => None,
        }
    }

    /// The heartbeats as this leader receives them; empty on a follower.
    pub fn heartbeats(&self) -> &Heartbeats {
        &self.heartbeats
    }

    fn hear(&mut self, t: &mut Turn<'_>, event: Event) {
        let (now, state) = (t.now, t.state);
        match event {
            Event::Tick | Event::Applied => {}
            Event::BecameLeader { leader, fresh_cluster_id } => {
                self.retire(t);
                if leader.id == self.params.me {
                    self.quorum_at = now;
                    self.stage = Stage::Electing { leader, fresh: fresh_cluster_id };
                }
            }
            Event::LostLeadership => self.retire(t),
            Event::Quorum { age_ms } => self.hear_quorum(t, age_ms),
            Event::KeepAlive { conn, id, at, msg } => self.keep_alive(t, Asker { conn, id }, at, msg),
            Event::ConnEnded { conn } => self.conn_ended(now, conn),
            Event::Register { conn, id, msg } => self.register(t, Asker { conn, id }, msg),
            Event::ProbeResult { node, outcome, via } => self.probed(now, &node, outcome, via),
            Event::LearnerReady(msg) => self.learner_ready(state, &msg),
            Event::Complain(msg) => self.complain(now, state, &msg),
            Event::Relinquish(msg) => self.relinquish(state, &msg),
            Event::Gone { node } => {
                if self.leading(now).is_some() {
                    self.gone(t, &node);
                }
            }
            Event::StopConfirmed { node } => {
                if let Some(stop) = self.stop.as_mut().filter(|_| state.cfg.is_live(&node)) {
                    stop.confirm(node);
                }
            }
            Event::Operator { conn, id, by, message } => self.operator(t, Asker { conn, id }, &by, message),
            Event::Proposed { token, outcome } => self.proposed(t, token, outcome),
        }
    }

    fn hear_quorum(&mut self, t: &mut Turn<'_>, age_ms: u64) {
        let now = t.now;
        let heard = Mono(now.0.saturating_sub(age_ms.saturating_mul(1_000_000)));
        self.quorum_at = self.quorum_at.max(heard);
        let leading = matches!(self.stage, Stage::Leading { .. });
        if leading && self.cut_off && self.has_quorum(now) {
            // It judges nobody for the time it was itself away.
            self.cut_off = false;
            self.heartbeats.rearm(now);
            t.say(Command::AnnounceMaster);
        }
    }

    fn has_quorum(&self, now: Mono) -> bool {
        now.ms_since(self.quorum_at) < QUORUM_MS
    }

    /// Forgets what only a leader knows; those who wait for an answer are sent to the next one.
    fn retire(&mut self, t: &mut Turn<'_>) {
        self.stage = Stage::Following;
        for (_, p) in std::mem::take(&mut self.pending) {
            if let Purpose::Register { asker, .. }
            | Purpose::Back { answer: Some(asker), .. }
            | Purpose::Ordered { asker }
            | Purpose::Applied { asker, .. } = p.purpose
            {
                t.redirect(asker);
            }
        }
        for asker in self.stop.take().into_iter().flat_map(|s| s.waiters) {
            t.redirect(asker);
        }
        self.cut_off = false;
        self.heartbeats.clear();
        self.trials.clear();
        self.surveyed = None;
        self.holders_since = None;
        self.mass = None;
        self.ready.clear();
        self.fruitless = None;
        self.stalls = stall::Stalls::default();
        self.moves = moves::Moves::default();
        self.welcomed = None;
    }

    /// Decides what is to be decided now; what is under way is waited for.
    fn drive(&mut self, t: &mut Turn<'_>) {
        let (now, state) = (t.now, t.state);
        self.expire_proposals(t);
        match &self.stage {
            Stage::Following | Stage::Ended => return,
            Stage::Electing { leader, .. } => {
                if self.retry_at <= now && !self.is_busy(|p| matches!(p, Purpose::Elected | Purpose::Init)) {
                    let act = Act::Elected { leader: leader.clone() };
                    self.propose(t, Purpose::Elected, act);
                }
                return;
            }
            Stage::Leading { .. } => {}
        }
        self.follow(t);
        if !self.has_quorum(now) {
            if !self.cut_off {
                self.cut_off = true;
                t.say(Command::StepDown);
            }
            return;
        }
        self.send_probes(t);
        if now < self.retry_at {
            return;
        }
        if self.stop.is_some() || (state.cfg.stopping && state.stopped.is_none()) {
            self.drive_stop(t);
            return;
        }
        self.note_suspects(t);
        self.judge(t);
        self.form(t);
        self.hand_out(t);
        self.judge_stalls(t);
        self.promote(t);
        self.rebuild(t);
        self.welcome(t);
        self.move_slots(t);
        self.settle(t);
    }

    /// Brings everything that mirrors the configuration in line with it.
    fn follow(&mut self, t: &mut Turn<'_>) {
        let (now, state) = (t.now, t.state);
        if self.surveyed == Some(state.cfg.cfg_index) {
            return;
        }
        self.surveyed = Some(state.cfg.cfg_index);
        self.heartbeats.follow(now, &state.cfg);
        self.survey = survey(&state.cfg);
        let open = state.holders.iter().filter(|(_, h)| h.gone.is_none()).map(|(node, _)| node);
        self.trials.follow(now, open);
        let may_hold = state.cfg.members.values().any(|m| may_hold(m.state));
        self.holders_since = self.holders_since.filter(|_| may_hold).or_else(|| may_hold.then_some(now));
        t.say(Command::Push);
    }

    fn propose(&mut self, t: &mut Turn<'_>, purpose: Purpose, act: Act) {
        self.propose_for(t, purpose, act, None);
    }

    fn propose_for(&mut self, t: &mut Turn<'_>, purpose: Purpose, act: Act, by: Option<String>) {
        let now = t.now;
        let token = self.next_token;
        self.next_token += 1;
        self.pending.insert(token, Pending { purpose, since: now });
        t.say(Command::Propose { token, entry: Box::new(Entry { at_ms: t.wall_ms, by, act }) });
    }

    fn is_busy(&self, of: impl Fn(&Purpose) -> bool) -> bool {
        self.pending.values().any(|p| of(&p.purpose))
    }

    fn expire_proposals(&mut self, t: &mut Turn<'_>) {
        let now = t.now;
        let late = |p: &Pending| now.ms_since(p.since) >= PROPOSAL_MS;
        let tokens: Vec<Token> = self.pending.iter().filter(|(_, p)| late(p)).map(|(t, _)| *t).collect();
        for token in tokens {
            self.proposed(t, token, Outcome::Unknown);
        }
    }

    /// A proposal has an outcome. Whatever it was, the next step reads the state again before it decides.
    fn proposed(&mut self, t: &mut Turn<'_>, token: Token, outcome: Outcome) {
        let now = t.now;
        let Some(Pending { purpose, .. }) = self.pending.remove(&token) else { return };
        if !matches!(outcome, Outcome::Applied(_)) {
            self.retry_at = now.plus_ms(RETRY_MS);
        }
        match (purpose, outcome) {
            (
                Purpose::Register { asker, node } | Purpose::Back { answer: Some(asker), node },
                Outcome::Applied(done),
            ) => self.joined(t, asker, &node, done.answer),
            (Purpose::Ordered { asker }, Outcome::Applied(done)) => match done.answer {
                Answer::Refused(failure) => t.reply(asker, Message::Error(failure)),
                Answer::Done | Answer::Operation(_) => t.reply(asker, Message::Ok(Empty {})),
            },
            (Purpose::Applied { asker, plan }, Outcome::Applied(done)) => {
                let operation = match done.answer {
                    Answer::Refused(failure) => return t.reply(asker, Message::Error(failure)),
                    Answer::Operation(id) => Some(id),
                    Answer::Done => None,
                };
                t.reply(asker, Message::Accepted(Box::new(Accepted { operation, plan: *plan })));
            }
            (
                Purpose::Register { asker, .. }
                | Purpose::Back { answer: Some(asker), .. }
                | Purpose::Applied { asker, .. }
                | Purpose::Ordered { asker },
                outcome,
            ) => {
                if outcome == Outcome::NotLeader {
                    t.redirect(asker);
                } else {
                    t.fail(asker, "TRY_AGAIN", "it is not known yet whether this was committed");
                }
            }
            (Purpose::HandOver { asker, .. }, Outcome::NotLeader) => t.redirect(asker),
            // An order is an order, on record or not.
            (Purpose::HandOver { asker, to }, _) => {
                t.say(Command::Transfer { to, answer: Some((asker.conn, asker.id)) });
            }
            (Purpose::Elected, Outcome::Applied(_)) => self.elected(t),
            (Purpose::Init, Outcome::Applied(_)) => self.lead(t),
            _ => {}
        }
    }

    /// The leader's own entry is applied, and so are all before it.
    fn elected(&mut self, t: &mut Turn<'_>) {
        let state = t.state;
        let Stage::Electing { fresh, .. } = &self.stage else { return };
        if state.cfg.cluster_id == ClusterId(0) {
            let init = Act::Init {
                cluster_id: *fresh,
                cluster: self.params.cluster.clone(),
                backups: self.params.backups.min(BACKUPS_MAX),
            };
            self.propose(t, Purpose::Init, init);
        } else {
            self.lead(t);
        }
    }

    /// From here on it decides; every timer counts from now.
    fn lead(&mut self, t: &mut Turn<'_>) {
        let now = t.now;
        let Stage::Electing { leader, .. } = &self.stage else { return };
        self.stage = Stage::Leading { leader: leader.clone(), since: now };
        self.quorum_at = now;
        self.surveyed = None;
        t.say(Command::AnnounceMaster);
    }

    /// Since when it leads.
    fn leading_since(&self) -> Option<Mono> {
        match &self.stage {
            Stage::Leading { since, .. } => Some(*since),
            _ => None,
        }
    }

    /// Nodes that get nothing for now: suspects, and those that stalled lately.
    fn shunned(&self, now: Mono, state: &State) -> BTreeSet<NodeId> {
        let suspects = state
            .cfg
            .members
            .keys()
            .filter(|id| state.cfg.current(id).is_some_and(|node| self.heartbeats.is_doubtful(&node, now)));
        suspects.cloned().chain(self.stalls.shunned(now)).collect()
    }

    fn operator(&mut self, t: &mut Turn<'_>, asker: Asker, by: &str, message: Message) {
        let now = t.now;
        if self.leading(now).is_none() {
            return match self.stage {
                Stage::Ended => t.reply(asker, Message::Ok(Empty {})),
                _ => t.redirect(asker),
            };
        }
        if self.pending.len() >= PROPOSALS_MAX {
            return t.fail(asker, "TRY_AGAIN", "too many requests are under way");
        }
        let act = match message {
            Message::ClusterStop(_) => return self.cluster_stop(t, asker, &plain(by)),
            Message::SwitchMaster(m) => return self.switch_master(t, asker, m.to, &plain(by)),
            Message::Plan(wish) => return self.plan_wish(t, asker, &wish),
            Message::Apply(apply) => return self.apply_wish(t, asker, by, &apply),
            Message::ShutdownCache(m) => {
                let nodes = vec![m.node];
                let wish = Wish { kind: OperationKind::ScaleIn, nodes, force: false, accept_data_loss: false };
                return self.apply_wish(t, asker, by, &Apply { wish, epoch: None, moves_digest: None });
            }
            Message::Forget(m) if !m.accept_data_loss => {
                let failure = Failure::new("UNSAFE", format!("what {} held last would be lost", m.node));
                return t.reply(asker, Message::Error(failure.hint("add --accept-data-loss if you answer for that")));
            }
            Message::Forget(m) => Act::Forget { node: m.node },
            Message::Pause(m) => Act::Operation(OperationStep::Pause { id: m.operation }),
            Message::Resume(m) => Act::Operation(OperationStep::Resume { id: m.operation }),
            Message::Cancel(m) => Act::Operation(OperationStep::Cancel { id: m.operation }),
            other => return t.fail(asker, "UNSUPPORTED", &format!("{} is no command for a leader", other.kind())),
        };
        self.propose_for(t, Purpose::Ordered { asker }, act, Some(plain(by)));
    }

    fn switch_master(&mut self, t: &mut Turn<'_>, asker: Asker, to: Option<MasterId>, by: &str) {
        match &to {
            Some(to) if to == &self.params.me => t.reply(asker, Message::Ok(Empty {})),
            _ if self.params.others.is_empty() => {
                t.fail(asker, "NO_OTHER_MASTER", "there is no other master to lead");
            }
            Some(to) if !self.params.others.iter().any(|(m, _)| m == to) => {
                t.fail(asker, "NO_SUCH_MASTER", &format!("no master {to}"));
            }
            _ => {
                let whom = to.as_ref().map_or_else(|| "another".to_owned(), ToString::to_string);
                let text = format!("leadership goes from {} to {whom}", self.params.me);
                let (severity, kind) = (Severity::Info, "switchover".into());
                let note = Act::Note { severity, kind, subject: whom, text };
                self.propose_for(t, Purpose::HandOver { asker, to }, note, Some(by.to_owned()));
            }
        }
    }
}

/// What an operator's machine calls itself, fit for the record: it comes from outside.
fn plain(by: &str) -> String {
    by.chars().filter(char::is_ascii_graphic).take(NAME_MAX).collect()
}
