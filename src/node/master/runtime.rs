//! The runtime's one task: everything that happens becomes an event of the brain, everything the brain wants is done here.
//! It never waits for a socket or the disk; what takes time runs in tasks of its own and comes back as an event.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::api::{Hub, Input, Line};
use super::brain::{Brain, Command, ConnId, Event, Outcome, TICK_MS};
use super::feed::{Frame, VIEW_EVERY};
use super::peers::{self, Roll};
use super::raft::machine::Mark;
use super::raft::{ProposeError, RaftStatus, TransferError};
use super::report::{self, RaftFacts};
use crate::node::clock::{Mono, wall_ms};
use crate::proto::control::{Empty, Message, ShutdownCache, StopOrder};
use crate::proto::error::Failure;
use crate::proto::id::{ClusterId, LeaderId, MasterId, Ref};

/// How long an entry may take to be applied before its outcome counts as unknown: longer than an election.
const PROPOSE_WITHIN: Duration = Duration::from_secs(5);
/// How long leadership may take to move when an operator moves it.
const TRANSFER_WITHIN: Duration = Duration::from_secs(8);
/// How long it may take when this master is told to end: the others would elect one themselves soon after.
const FAREWELL_WITHIN: Duration = Duration::from_millis(600);
/// A view this young is as good as a new one.
const FRAME_FRESH: Duration = Duration::from_millis(10);
/// How long a master that was told to end waits for the entry that says so.
const END_WITHIN: Duration = Duration::from_millis(1500);

/// Why the runtime's task ended.
#[derive(Debug)]
pub enum Ended {
    /// The cluster was stopped by plan.
    ByPlan,
    /// Raft can't go on here; the text says why.
    RaftStopped(String),
}

/// Everything of the one task.
pub struct Runtime {
    me: MasterId,
    brain: Brain,
    hub: Arc<Hub>,
    roll: Roll,
    warnings: Vec<String>,
    lines: HashMap<ConnId, Line>,
    /// Which connection is which node's.
    nodes: HashMap<Ref, ConnId>,
    /// As it was last looked at.
    status: RaftStatus,
    /// What the brain was told of its leading.
    led: Option<LeaderId>,
    /// Who was last announced to lead.
    announced: Option<LeaderId>,
    frame: Option<(Instant, Mark, Arc<Frame>)>,
    ended: Option<oneshot::Receiver<()>>,
}

impl Runtime {
    /// Not running yet. `warnings` are shown in every status.
    pub fn new(me: MasterId, brain: Brain, hub: Arc<Hub>, roll: Roll, warnings: Vec<String>) -> Self {
        let status = hub.raft.status();
        Self {
            me,
            brain,
            hub,
            roll,
            warnings,
            lines: HashMap::new(),
            nodes: HashMap::new(),
            status,
            led: None,
            announced: None,
            frame: None,
            ended: None,
        }
    }

    /// Runs until the cluster is stopped by plan or Raft fails.
    pub async fn run(&mut self, inbox: &mut mpsc::Receiver<Input>) -> Ended {
        let mut tick = interval(Duration::from_millis(TICK_MS));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut views = interval(VIEW_EVERY);
        views.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut changes, mut mark) = (self.hub.raft.changes(), self.hub.raft.mark());
        loop {
            tokio::select! {
                Some(input) = inbox.recv() => self.input(input),
                _ = tick.tick() => {
                    self.look();
                    self.step(Event::Tick);
                }
                () = changes.changed() => self.look(),
                Ok(()) = mark.changed() => {
                    mark.borrow_and_update();
                    self.look();
                    self.step(Event::Applied);
                }
                _ = views.tick() => self.publish(),
                _ = ended(&mut self.ended) => return Ended::ByPlan,
            }
            if let Some(why) = &self.status.stopped {
                return Ended::RaftStopped(why.clone());
            }
        }
    }

    /// Hands leadership over before this master ends, so that nobody waits for an election.
    pub async fn farewell(&self) {
        if self.hub.raft.status().leading && !self.hub.raft.links().is_empty() {
            match self.hub.raft.transfer_leader(None, FAREWELL_WITHIN).await {
                Ok(to) => tracing::info!(to = %to.id, "leadership handed over"),
                Err(e) => tracing::info!(why = %e, "leadership not handed over"),
            }
        }
    }

    fn input(&mut self, input: Input) {
        match input {
            Input::Opened { conn, line } => drop(self.lines.insert(conn, line)),
            Input::Ended { conn } => {
                self.nodes.retain(|_, c| *c != conn);
                self.step(Event::ConnEnded { conn });
            }
            Input::Closed { conn } => drop(self.lines.remove(&conn)),
            Input::Said { conn, at, machine, id, message } => self.said(conn, at, machine, id, message),
            Input::Frame(answer) => {
                let frame = self.frame();
                drop(answer.send(frame));
            }
            Input::End { index, answer } => self.end(index, answer),
            Input::Event(event) => self.step(event),
        }
    }

    fn said(&mut self, conn: ConnId, at: Mono, machine: String, id: u64, message: Message) {
        let event = match message {
            Message::KeepAlive(msg) => {
                if let Some(line) = self.lines.get(&conn) {
                    line.stands_at(msg.cfg_index);
                }
                self.nodes.insert(msg.node.clone(), conn);
                Event::KeepAlive { conn, id, at, msg }
            }
            Message::AddCacheServer(msg) => {
                self.nodes.insert(msg.node.clone(), conn);
                Event::Register { conn, id, msg }
            }
            Message::LearnerReady(msg) => Event::LearnerReady(msg),
            Message::Complain(msg) => Event::Complain(msg),
            Message::Stop(StopOrder { node: Some(node), .. }) => Event::StopConfirmed { node },
            Message::Relinquish(msg) => Event::Relinquish(msg),
            // From a node, in answer to the leader's own.
            Message::ShutdownCache(ShutdownCache { node: id, cfg_index: 1.. }) => {
                let Some(node) = self.nodes.iter().find(|(n, c)| n.id == id && **c == conn).map(|(n, _)| n.clone())
                else {
                    return;
                };
                Event::Gone { node }
            }
            message => Event::Operator { conn, id, by: machine, message },
        };
        self.step(event);
    }

    /// Looks at Raft and tells the brain what has changed.
    fn look(&mut self) {
        self.status = self.hub.raft.status();
        let leader = self.status.leader.clone();
        let lead = leader.clone().filter(|_| self.status.leading);
        if lead != self.led {
            let before = std::mem::replace(&mut self.led, lead.clone());
            if before.is_some() {
                tracing::info!(master = %self.me, "leads no more");
                self.step(Event::LostLeadership);
            }
            if let Some(leader) = lead {
                tracing::info!(master = %self.me, term = leader.term, "leads");
                self.step(Event::BecameLeader { leader, fresh_cluster_id: ClusterId::random() });
            }
        }
        if let Some(age) = self.status.quorum_age {
            self.step(Event::Quorum { age_ms: age.as_millis() as u64 });
        }
        // This master's own leading is announced by its brain, once it is ready to answer.
        if leader.is_some() && leader != self.announced && self.led.is_none() {
            self.announce();
        }
    }

    fn announce(&mut self) {
        let who = peers::who_leads(&self.hub);
        self.announced.clone_from(&who.leader);
        self.hub.feed.announce(who);
    }

    fn step(&mut self, event: Event) {
        let now = Mono::now();
        let commands = self.hub.raft.read(|r| self.brain.step(now, &r.state, wall_ms(), event));
        self.hub.ready.store(self.brain.leading(now).is_some(), Ordering::Relaxed);
        for command in commands {
            self.obey(command);
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Propose { token, entry } => self.spawn(move |hub| async move {
                let outcome = match hub.raft.propose(*entry, PROPOSE_WITHIN).await {
                    Ok(applied) => Outcome::Applied(applied),
                    Err(ProposeError::NotLeader { .. }) => Outcome::NotLeader,
                    Err(e @ ProposeError::TooLarge(_)) => {
                        tracing::error!(error = %e, "the leader made an entry that can't be stored");
                        Outcome::NotLeader
                    }
                    Err(ProposeError::Unknown | ProposeError::Stopped) => Outcome::Unknown,
                };
                Event::Proposed { token, outcome }
            }),
            Command::Probe { node, addr, via } => self.spawn(move |hub| async move {
                let outcome = match &via {
                    None => peers::probe(&addr).await,
                    Some(master) => peers::probe_via(&hub.raft, master, addr).await,
                };
                Event::ProbeResult { node, outcome, via }
            }),
            Command::Reply { conn, id, message } => self.reply(conn, id, &message),
            Command::Redirect { conn, id } => {
                let there = Message::RefreshMaster(peers::who_leads(&self.hub));
                self.reply(conn, id, &there);
            }
            // Connections of nodes pull what they lack as soon as it is applied.
            Command::Push => {}
            Command::AnnounceMaster => self.announce(),
            Command::OrderStop { cfg_index, nodes } => {
                let order = self.hub.feed.encode(0, &Message::Stop(StopOrder { cfg_index, node: None }));
                let lines = nodes.iter().filter_map(|node| self.lines.get(self.nodes.get(node)?));
                lines.for_each(|line| line.send(order.clone()));
            }
            Command::OrderShutdown { cfg_index, nodes } => {
                for node in nodes {
                    let order = ShutdownCache { node: node.id.clone(), cfg_index };
                    let order = self.hub.feed.encode(0, &Message::ShutdownCache(order));
                    if let Some(line) = self.nodes.get(&node).and_then(|c| self.lines.get(c)) {
                        line.send(order);
                    }
                }
            }
            Command::Transfer { to, answer } => self.transfer(to, answer),
            // Raft's own status says the same (`RaftStatus::leading`), and openraft accepts no entry by then.
            Command::StepDown => tracing::warn!(master = %self.me, "no majority of masters answers; deciding nothing"),
            Command::Exit { index } => {
                let (done, ended) = oneshot::channel();
                self.ended = Some(ended);
                let hub = self.hub.clone();
                tokio::spawn(async move {
                    peers::end_all(&hub.raft, index).await;
                    done.send(()).ok();
                });
            }
        }
    }

    /// Runs something that takes time; its event comes back through the inbox.
    fn spawn<F>(&self, task: impl FnOnce(Arc<Hub>) -> F)
    where
        F: Future<Output = Event> + Send + 'static,
    {
        let task = task(self.hub.clone());
        let inbox = self.hub.inbox.clone();
        tokio::spawn(async move { inbox.send(Input::Event(task.await)).await.ok() });
    }

    fn reply(&mut self, conn: ConnId, id: u64, message: &Message) {
        let Some(line) = self.lines.get(&conn) else { return };
        let bytes = self.hub.feed.encode(id, message);
        match message {
            Message::KeepAliveAck(_) => line.send(bytes),
            _ => line.answer(bytes),
        }
        if let Message::Added(added) = message {
            line.stands_at(added.view.cfg_index);
        }
    }

    fn transfer(&mut self, to: Option<MasterId>, answer: Option<(ConnId, u64)>) {
        let hub = self.hub.clone();
        let line = answer.and_then(|(conn, id)| Some((self.lines.get(&conn)?.clone(), id)));
        tokio::spawn(async move {
            let moved = hub.raft.transfer_leader(to, TRANSFER_WITHIN).await;
            let Some((line, id)) = line else { return };
            let message = match moved {
                Ok(_) => {
                    // The answer is OK and not REFRESH_MASTER, which would send the request on to the new leader.
                    let who = Message::RefreshMaster(peers::who_leads(&hub));
                    line.send(hub.feed.encode(0, &who));
                    Message::Ok(Empty {})
                }
                Err(TransferError::NotLeader { .. }) => Message::RefreshMaster(peers::who_leads(&hub)),
                Err(e) => Message::Error(failure(&e)),
            };
            line.answer(hub.feed.encode(id, &message));
        });
    }

    /// The leader says that the cluster ends. Believed only if the log says so too.
    fn end(&mut self, index: u64, answer: oneshot::Sender<bool>) {
        let (done, ended) = oneshot::channel::<()>();
        let stopped = {
            let hub = self.hub.clone();
            move || hub.raft.read(|r| r.state.stopped.as_ref().is_some_and(|s| s.index == index))
        };
        let mut mark = self.hub.raft.mark();
        if self.ended.is_none() {
            self.ended = Some(ended);
        }
        tokio::spawn(async move {
            let agreed = timeout(END_WITHIN, async {
                while !stopped() {
                    if mark.changed().await.is_err() {
                        return;
                    }
                }
            });
            let agreed = agreed.await.is_ok() && stopped();
            answer.send(agreed).ok();
            if agreed {
                done.send(()).ok();
            }
        });
    }

    fn frame(&mut self) -> Arc<Frame> {
        let mark = *self.hub.raft.mark().borrow();
        if let Some((at, of, frame)) = &self.frame
            && *of == mark
            && at.elapsed() < FRAME_FRESH
        {
            return frame.clone();
        }
        let (masters, mut warnings) = self.roll.masters(&self.me, &self.status);
        warnings.extend(self.warnings.iter().cloned());
        let leads = self.hub.ready.load(Ordering::Relaxed);
        let leader = self.status.leader.clone().filter(|_| leads || !self.status.leading);
        let facts = RaftFacts { term: self.status.term, leader, masters, warnings };
        let beats = leads.then(|| (self.brain.heartbeats(), Mono::now()));
        let figures = leads.then(|| self.brain.figures());
        let frame = self.hub.feed.frame(|state| {
            let mut status = report::status(state, beats, &facts);
            report::progress(&mut status, state, beats, figures);
            status
        });
        self.frame = Some((Instant::now(), mark, frame.clone()));
        frame
    }

    fn publish(&mut self) {
        // Where another master leads, watchers were told to go there.
        if self.hub.feed.watchers() > 0 && (self.led.is_some() || self.status.leader.is_none()) {
            let frame = self.frame();
            self.hub.feed.publish(frame);
        }
    }
}

/// Ends when this master is to end.
async fn ended(ended: &mut Option<oneshot::Receiver<()>>) {
    if let Some(rx) = ended {
        if rx.await.is_ok() {
            return;
        }
        // It was not the end after all.
        *ended = None;
    }
    std::future::pending().await
}

fn failure(e: &TransferError) -> Failure {
    let (code, hint) = match e {
        TransferError::NotLeader { .. } => ("NOT_LEADER", "ask the leader"),
        TransferError::NoSuchMaster(_) => ("NO_SUCH_MASTER", "`cachectl status` lists the masters"),
        TransferError::NoCandidate => ("NO_OTHER_MASTER", "start another master, or wait until it is caught up"),
        TransferError::Timeout => ("TIMEOUT", "`cachectl status` shows who leads now"),
        TransferError::Stopped => ("STOPPED", "look at this master's log"),
    };
    Failure::new(code, e.to_string()).hint(hint)
}
