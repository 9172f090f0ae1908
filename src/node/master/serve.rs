//! tmp runtime
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::time::Duration;

use anyhow::Context;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{interval, timeout};
use tracing::{debug, info, warn};

use super::brain::{Brain, BrainParams, Command, Event, Outcome, ProbeOutcome, TICK_MS};
use super::raft::{Consensus, Options, ProposeError, SNAPSHOT_EVERY};
use super::report::{self, RaftFacts};
use crate::node::clock::{Mono, wall_ms};
use crate::node::config::MasterConfig;
use crate::node::home::Home;
use crate::proto::control::{self, *};
use crate::proto::id::{ClusterId, MasterId, Ref};
use crate::proto::net::conn::LineReader;
use crate::proto::status::MasterStatus;

enum In {
    Open(u64, mpsc::UnboundedSender<Vec<u8>>),
    Line(u64, Mono, Vec<u8>),
    Closed(u64),
    Event(Event),
}

struct Conn {
    out: mpsc::UnboundedSender<Vec<u8>>,
    node: Option<Ref>,
    watch: Option<(u64, report::Cursor, Mono)>,
    told: u64,
}

pub async fn run(config: MasterConfig, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
    let home = Home::open(&config.data)?;
    let listener =
        TcpListener::bind(config.listen).await.with_context(|| format!("can't listen on {}", config.listen))?;
    let mut peers = config.peers.clone();
    if peers.is_empty() {
        peers.push((config.id.clone(), config.listen.to_string()));
    }
    let raft = Consensus::start(Options {
        me: config.id.clone(),
        peers: peers.clone(),
        dir: config.data.clone(),
        snapshot_every: SNAPSHOT_EVERY,
    })
    .await?;
    info!(id = %config.id, listen = %config.listen, "master starts");
    let _home = home;
    let (tx, mut rx) = mpsc::unbounded_channel::<In>();
    tokio::spawn(accept(listener, tx.clone(), raft.clone()));
    let host = |a: &str| a.rsplit_once(':').map(|(h, _)| h.to_owned()).unwrap_or_default();
    let my_host = peers.iter().find(|p| p.0 == config.id).map(|p| host(&p.1)).unwrap_or_default();
    let params = BrainParams {
        me: config.id.clone(),
        others: peers.iter().filter(|p| p.0 != config.id).map(|p| (p.0.clone(), host(&p.1) != my_host)).collect(),
        cluster: config.cluster.clone(),
        backups: config.backups,
        expect_nodes: config.expect_nodes,
        form_wait_ms: config.form_wait.as_millis() as u64,
        refused_is_death: config.refused_is_death,
    };
    let mut m = Master {
        brain: Brain::new(params, Mono::now()),
        conns: HashMap::new(),
        raft: raft.clone(),
        me: config.id.clone(),
        peers,
        tx,
        led: None,
        exit: false,
    };
    let mut tick = interval(Duration::from_millis(TICK_MS));
    let mut changes = raft.changes();
    let mut mark = raft.mark();
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(i) = rx.recv() => m.input(i),
            _ = tick.tick() => { m.leadership(); m.step(Event::Tick); m.watchers(); }
            () = changes.changed() => m.leadership(),
            Ok(()) = mark.changed() => { mark.borrow_and_update(); m.step(Event::Applied); m.push(); }
        }
        if m.exit {
            tokio::time::sleep(Duration::from_millis(200)).await;
            break;
        }
    }
    raft.shutdown().await;
    Ok(())
}

async fn accept(listener: TcpListener, tx: mpsc::UnboundedSender<In>, raft: Consensus) {
    let mut next = 0u64;
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        next += 1;
        tokio::spawn(conn(next, stream, tx.clone(), raft.clone()));
    }
}

async fn conn(n: u64, stream: TcpStream, tx: mpsc::UnboundedSender<In>, raft: Consensus) {
    let _ = stream.set_nodelay(true);
    let (r, mut w) = stream.into_split();
    let (out, mut outs) = mpsc::unbounded_channel::<Vec<u8>>();
    tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        while let Some(l) = outs.recv().await {
            if w.write_all(&l).await.is_err() {
                return;
            }
        }
    });
    let _ = tx.send(In::Open(n, out.clone()));
    let mut reader = LineReader::new(r);
    while let Ok(Some(line)) = reader.next_line().await {
        let at = Mono::now();
        if let Ok(e) = serde_json::from_slice::<Envelope<&serde_json::value::RawValue>>(&line)
            && Consensus::serves(&e.kind)
        {
            let (raft, out, kind, from, cluster, id) =
                (raft.clone(), out.clone(), e.kind.clone(), e.machine.clone(), e.cluster_id, e.id);
            let data = e.data.to_owned();
            tokio::spawn(async move {
                let line = match raft.serve(&from, cluster, &kind, &data).await {
                    Ok(d) => {
                        let env = Envelope {
                            v: ENVELOPE_V,
                            machine: "m".to_owned(),
                            cluster_id: raft.cluster_id(),
                            kind,
                            id,
                            data: d,
                        };
                        let mut l = serde_json::to_vec(&env).unwrap_or_default();
                        l.push(b'\n');
                        l
                    }
                    Err(f) => control::encode("m", raft.cluster_id(), id, &Message::Error(f)),
                };
                let _ = out.send(line);
            });
            continue;
        }
        if tx.send(In::Line(n, at, line.to_vec())).is_err() {
            return;
        }
    }
    let _ = tx.send(In::Closed(n));
}

struct Master {
    brain: Brain,
    conns: HashMap<u64, Conn>,
    raft: Consensus,
    me: MasterId,
    peers: Vec<(MasterId, String)>,
    tx: mpsc::UnboundedSender<In>,
    led: Option<crate::proto::id::LeaderId>,
    exit: bool,
}

impl Master {
    fn input(&mut self, i: In) {
        match i {
            In::Open(n, out) => {
                self.conns.insert(n, Conn { out, node: None, watch: None, told: 0 });
            }
            In::Closed(n) => {
                self.conns.remove(&n);
                self.step(Event::ConnEnded { conn: n });
            }
            In::Event(e) => self.step(e),
            In::Line(n, at, line) => self.line(n, at, &line),
        }
    }

    fn send(&self, n: u64, id: u64, m: &Message) {
        if let Some(c) = self.conns.get(&n) {
            let _ = c.out.send(control::encode(self.me.as_str(), self.raft.cluster_id(), id, m));
        }
    }

    fn master_msg(&self) -> Message {
        let s = self.raft.status();
        let addr = s.leader.as_ref().and_then(|l| self.peers.iter().find(|p| p.0 == l.id)).map(|p| p.1.clone());
        Message::RefreshMaster(RefreshMaster { leader: s.leader, addr, masters: self.peers.clone() })
    }

    fn line(&mut self, n: u64, at: Mono, line: &[u8]) {
        let incoming = match control::decode(line) {
            Ok(i) => i,
            Err(f) => {
                self.send(n, 0, &Message::Error(f));
                self.conns.remove(&n);
                return;
            }
        };
        let id = incoming.id;
        let msg = match incoming.message {
            Ok(m) => m,
            Err(f) => return self.send(n, id, &Message::Error(f)),
        };
        let leading = self.raft.status().leading;
        match msg {
            Message::StatusRequest(_) | Message::Watch(_) if !leading && self.raft.status().leader.is_some() => {
                let m = self.master_msg();
                self.send(n, id, &m);
            }
            Message::StatusRequest(_) => {
                let v = self.view(&mut report::Cursor::default());
                self.send(n, id, &Message::StatusView(Box::new(v)));
            }
            Message::Watch(_) => {
                let mut c = report::Cursor::default();
                let v = self.view(&mut c);
                self.send(n, id, &Message::StatusView(Box::new(v)));
                if let Some(conn) = self.conns.get_mut(&n) {
                    conn.watch = Some((id, c, Mono::now()));
                }
            }
            Message::RefreshIp(r) => {
                let (view, iplist) = self
                    .raft
                    .read(|s| (s.state.cfg.since(r.have.min(s.state.cfg.cfg_index)), report::iplist(&s.state.cfg)));
                self.send(n, id, &Message::RefreshIp(RefreshIp { have: 0, iplist, view: Some(view) }));
            }
            _ if !leading => {
                let m = self.master_msg();
                self.send(n, id, &m);
            }
            Message::KeepAlive(k) => {
                if let Some(c) = self.conns.get_mut(&n) {
                    c.node = Some(k.node.clone());
                    c.told = c.told.max(k.cfg_index);
                }
                self.step(Event::KeepAlive { conn: n, id, at, msg: k });
            }
            Message::AddCacheServer(a) => {
                if let Some(c) = self.conns.get_mut(&n) {
                    c.node = Some(a.node.clone());
                }
                self.step(Event::Register { conn: n, id, msg: a });
            }
            Message::LearnerReady(l) => self.step(Event::LearnerReady(l)),
            Message::Complain(c) => self.step(Event::Complain(c)),
            Message::Stop(StopOrder { node: Some(node), .. }) => self.step(Event::StopConfirmed { node }),
            message => self.step(Event::Operator { conn: n, id, by: incoming.machine, message }),
        }
    }

    fn leadership(&mut self) {
        let s = self.raft.status();
        let lead = s.leading.then(|| s.leader.clone()).flatten();
        if lead != self.led {
            let was = std::mem::replace(&mut self.led, lead.clone());
            match lead {
                Some(leader) => self.step(Event::BecameLeader { leader, fresh_cluster_id: ClusterId::random() }),
                None if was.is_some() => self.step(Event::LostLeadership),
                None => {}
            }
        }
        if let Some(age) = s.quorum_age {
            self.step(Event::Quorum { age_ms: age.as_millis() as u64 });
        }
    }

    fn step(&mut self, e: Event) {
        let cmds = self.raft.read(|s| self.brain.step(Mono::now(), &s.state, wall_ms(), e));
        for c in cmds {
            self.command(c);
        }
    }

    fn command(&mut self, c: Command) {
        let tx = self.tx.clone();
        match c {
            Command::Propose { token, entry } => {
                let raft = self.raft.clone();
                tokio::spawn(async move {
                    let outcome = match raft.propose(*entry, Duration::from_secs(2)).await {
                        Ok(a) => Outcome::Applied(a),
                        Err(ProposeError::NotLeader { .. } | ProposeError::TooLarge(_)) => Outcome::NotLeader,
                        Err(e) => {
                            warn!(error = %e, "proposal");
                            Outcome::Unknown
                        }
                    };
                    let _ = tx.send(In::Event(Event::Proposed { token, outcome }));
                });
            }
            Command::Probe { node, addr, via } => {
                tokio::spawn(async move {
                    let outcome = if via.is_some() {
                        ProbeOutcome::Other
                    } else {
                        match timeout(Duration::from_millis(100), TcpStream::connect(&addr)).await {
                            Ok(Ok(_)) => ProbeOutcome::Open,
                            Ok(Err(e)) if e.kind() == std::io::ErrorKind::ConnectionRefused => ProbeOutcome::Refused,
                            _ => ProbeOutcome::Other,
                        }
                    };
                    let _ = tx.send(In::Event(Event::ProbeResult { node, outcome, via }));
                });
            }
            Command::Reply { conn, id, message } => self.send(conn, id, &message),
            Command::Redirect { conn, id } => {
                let m = self.master_msg();
                self.send(conn, id, &m);
            }
            Command::Push => self.push(),
            Command::AnnounceMaster => {
                let m = self.master_msg();
                let all: Vec<u64> = self.conns.keys().copied().collect();
                for n in all {
                    if self.conns[&n].node.is_some() || self.conns[&n].watch.is_some() {
                        self.send(n, 0, &m);
                    }
                }
            }
            Command::OrderStop { cfg_index, nodes } => {
                let to: Vec<u64> = self
                    .conns
                    .iter()
                    .filter(|(_, c)| c.node.as_ref().is_some_and(|n| nodes.contains(n)))
                    .map(|(n, _)| *n)
                    .collect();
                for n in to {
                    self.send(n, 0, &Message::Stop(StopOrder { cfg_index, node: None }));
                }
            }
            Command::Transfer { to, answer } => {
                let raft = self.raft.clone();
                let out = answer.and_then(|(n, id)| Some((self.conns.get(&n)?.out.clone(), id)));
                let me = self.me.clone();
                let peers = self.peers.clone();
                tokio::spawn(async move {
                    let r = raft.transfer_leader(to, Duration::from_secs(5)).await;
                    if let Some((out, id)) = out {
                        let m = match r {
                            Ok(l) => {
                                let addr = peers.iter().find(|p| p.0 == l.id).map(|p| p.1.clone());
                                Message::RefreshMaster(RefreshMaster { leader: Some(l), addr, masters: peers })
                            }
                            Err(e) => Message::Error(crate::proto::error::Failure::new("NOT_SWITCHED", e.to_string())),
                        };
                        let _ = out.send(control::encode(me.as_str(), raft.cluster_id(), id, &m));
                    }
                });
            }
            Command::StepDown => debug!("step down"),
            Command::Exit { .. } => self.exit = true,
        }
    }

    fn push(&mut self) {
        let (index, iplist) = self.raft.read(|s| (s.state.cfg.cfg_index, report::iplist(&s.state.cfg)));
        let mut lines: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        for c in self.conns.values_mut().filter(|c| c.node.is_some() && c.told < index) {
            let line = lines.entry(c.told).or_insert_with(|| {
                let view = self.raft.read(|s| s.state.cfg.since(c.told));
                control::encode(
                    self.me.as_str(),
                    self.raft.cluster_id(),
                    0,
                    &Message::RefreshIp(RefreshIp { have: 0, iplist: iplist.clone(), view: Some(view) }),
                )
            });
            let _ = c.out.send(line.clone());
            c.told = index;
        }
    }

    fn view(&self, cursor: &mut report::Cursor) -> crate::proto::status::WatchView {
        let s = self.raft.status();
        let masters = s
            .voters
            .iter()
            .map(|v| MasterStatus {
                id: v.id.to_string(),
                addr: v.addr.clone(),
                role: if s.leader.as_ref().is_some_and(|l| l.id == v.id) {
                    "leader"
                } else if v.id == self.me || v.age.is_some_and(|a| a < Duration::from_secs(1)) {
                    "follower"
                } else {
                    "unreachable"
                }
                .to_owned(),
                alive: v.id == self.me || v.age.is_some_and(|a| a < Duration::from_secs(1)),
                last_log: v.matched.unwrap_or(0),
                applied: v.matched.unwrap_or(0),
            })
            .collect();
        let facts = RaftFacts { term: s.term, leader: s.leader.clone(), masters, warnings: Vec::new() };
        self.raft.read(|r| {
            let beats = s.leading.then(|| (self.brain.heartbeats(), Mono::now()));
            cursor.advance(report::status(&r.state, beats, &facts), &r.state)
        })
    }

    fn watchers(&mut self) {
        let now = Mono::now();
        let due: Vec<u64> = self
            .conns
            .iter()
            .filter(|(_, c)| c.watch.as_ref().is_some_and(|w| now.ms_since(w.2) >= 250))
            .map(|(n, _)| *n)
            .collect();
        for n in due {
            let Some(c) = self.conns.get_mut(&n) else { continue };
            let Some((id, mut cursor, _)) = c.watch.take() else { continue };
            let v = self.view(&mut cursor);
            self.send(n, id, &Message::StatusView(Box::new(v)));
            if let Some(c) = self.conns.get_mut(&n) {
                c.watch = Some((id, cursor, now));
            }
        }
    }
}
