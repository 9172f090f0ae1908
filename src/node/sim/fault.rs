//! What breaks: kills, pauses, cuts, slow links and processes, broken connections, masters that go and come.

use rand::Rng;

use super::net::{Happening, MS, Who};
use super::world::{Deed, World};
use crate::node::master::state::Operation;
use crate::proto::control::{Forget, Message, OperationId, ShutdownCache, SwitchMaster};
use crate::proto::id::HomeId;
use crate::proto::operation::{Apply, OperationKind, Wish};

/// The last fault comes at most so many milliseconds after the beginning.
const FAULTS_MS: u64 = 45_000;

/// One event of the plan.
#[derive(Debug, Clone)]
pub enum Fault {
    /// A node's process starts, where it does not run.
    Start(usize),
    /// As [`Fault::Start`], with an empty state directory.
    StartElsewhere(usize),
    Kill(usize),
    /// Stands still for so many milliseconds while the clock runs on.
    Pause(Who, u64),
    /// Each event takes a node up to so many milliseconds, 0 = as usual.
    Slow(usize, u64),
    /// One way, for so many milliseconds.
    Cut(Vec<(Who, Who)>, u64),
    Heal(Vec<(Who, Who)>),
    /// A link takes so many milliseconds longer; 0 = as usual.
    Delay(Who, Who, u64),
    /// Some connections break.
    Reset(Who),
    KillMaster(usize),
    StartMaster(usize),
    /// An operator moves leadership.
    Switchover,
    /// An operator gives up on a node.
    Forget(usize),
    /// An operator drains a node.
    Drain(usize),
    /// An operator evens the load out.
    Rebalance,
    /// An operator does this to some open operation: 0 pauses, 1 resumes, 2 cancels it.
    Steer(u8),
}

/// How much of everything a run has.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// The last fault, milliseconds after the beginning.
    pub end_ms: u64,
    masters_too: bool,
}

impl World {
    /// Draws up what goes wrong in this run.
    pub fn draw_plan(&mut self) {
        let net = &mut self.net;
        let begin_ms = 4000;
        let every_ms = [400, 1200, 3000, 8000][net.rng.random_range(0..4)];
        self.plan = Plan { end_ms: FAULTS_MS, masters_too: net.chance(0.6) };
        let mut at = begin_ms;
        while at < self.plan.end_ms {
            at += self.net.rng.random_range(1..=2 * every_ms);
            let fault = self.draw();
            for (late, f) in fault {
                let when = (at + late).min(self.plan.end_ms) * MS;
                self.net.at(when, Happening::World(Deed::Fault(f)));
            }
        }
    }

    fn any_node(&mut self) -> usize {
        self.net.rng.random_range(0..self.shape.nodes)
    }

    /// One mishap, with its end.
    fn draw(&mut self) -> Vec<(u64, Fault)> {
        let n = self.any_node();
        let who = Who::Node(n);
        let rng = &mut self.net.rng;
        let masters = if self.plan.masters_too { 122 } else { 75 };
        match rng.random_range(0..masters) {
            0..12 => {
                let back = match rng.random_range(0..4) {
                    0 => rng.random_range(1..200),
                    1 => rng.random_range(200..3000),
                    _ => rng.random_range(1000..15_000),
                };
                let start = if rng.random_bool(0.15) { Fault::StartElsewhere(n) } else { Fault::Start(n) };
                vec![(0, Fault::Kill(n)), (back, start)]
            }
            12..16 => {
                // A node and another go within moments.
                let o = rng.random_range(0..self.shape.nodes);
                let gap = rng.random_range(0..1500);
                let back = rng.random_range(0..12_000);
                vec![
                    (0, Fault::Kill(n)),
                    (gap, Fault::Kill(o)),
                    (gap + back, Fault::Start(n)),
                    (gap + back + rng.random_range(0..3000), Fault::Start(o)),
                ]
            }
            16..30 => vec![(0, Fault::Pause(who, rng.random_range(50..6000)))],
            30..34 => {
                let ms = rng.random_range(500..8000);
                (0..self.shape.nodes).map(|o| (0, Fault::Pause(Who::Node(o), ms))).collect()
            }
            34..38 => {
                let ms = rng.random_range(1..8);
                vec![(0, Fault::Slow(n, ms)), (rng.random_range(500..5000), Fault::Slow(n, 0))]
            }
            38..60 => {
                let ms = match rng.random_range(0..3) {
                    0 => rng.random_range(50..700),
                    1 => rng.random_range(500..3000),
                    _ => rng.random_range(2000..9000),
                };
                vec![(0, Fault::Cut(self.draw_cut(n), ms))]
            }
            60..66 => {
                let o = self.net.rng.random_range(0..self.shape.nodes);
                let to = if self.net.chance(0.7) { Who::Node(o) } else { Who::Master(0) };
                let (ms, during) = (self.net.rng.random_range(20..400), self.net.rng.random_range(500..6000));
                vec![(0, Fault::Delay(who, to, ms)), (during, Fault::Delay(who, to, 0))]
            }
            66..75 => vec![(0, Fault::Reset(who))],
            75..81 => {
                let m = rng.random_range(0..self.shape.masters);
                vec![(0, Fault::KillMaster(m)), (rng.random_range(50..6000), Fault::StartMaster(m))]
            }
            81..88 => {
                let m = rng.random_range(0..self.shape.masters);
                vec![(0, Fault::Pause(Who::Master(m), rng.random_range(50..7000)))]
            }
            88..93 => {
                let back = rng.random_range(1000..9000);
                let all = 0..self.shape.masters;
                all.clone()
                    .map(|m| (0, Fault::KillMaster(m)))
                    .chain(all.map(|m| (back, Fault::StartMaster(m))))
                    .collect()
            }
            93..100 => vec![(0, Fault::Switchover)],
            100..112 => vec![(0, Fault::Drain(n)), (rng.random_range(2000..9000), Fault::Start(n))],
            112..118 => vec![(0, Fault::Rebalance)],
            _ => vec![(0, Fault::Steer(0)), (rng.random_range(100..2000), Fault::Steer(rng.random_range(1..3)))],
        }
    }

    /// Which ways are cut around a node: all, one way, from masters only, from peers only, a group.
    fn draw_cut(&mut self, n: usize) -> Vec<(Who, Who)> {
        let me = Who::Node(n);
        let masters: Vec<Who> = (0..self.shape.masters).map(Who::Master).collect();
        let peers: Vec<Who> = (0..self.shape.nodes).filter(|o| *o != n).map(Who::Node).collect();
        let rng = &mut self.net.rng;
        let others: Vec<Who> = match rng.random_range(0..6) {
            0 => masters,
            1 => peers,
            2 => vec![peers[rng.random_range(0..peers.len())]],
            3 => vec![masters[rng.random_range(0..masters.len())]],
            4 if self.shape.masters > 1 => {
                // Masters among themselves.
                let m = masters[rng.random_range(0..masters.len())];
                return masters.iter().filter(|o| **o != m).flat_map(|o| [(m, *o), (*o, m)]).collect();
            }
            _ => masters.into_iter().chain(peers).collect(),
        };
        let ways = rng.random_range(0..4);
        others
            .into_iter()
            .flat_map(|o| match ways {
                0 => vec![(me, o)],
                1 => vec![(o, me)],
                _ => vec![(me, o), (o, me)],
            })
            .collect()
    }

    /// Something breaks or heals, now.
    pub fn strike(&mut self, f: Fault) {
        let net = &mut self.net;
        if !matches!(f, Fault::Heal(_)) {
            net.note(None, || format!("*** {f:?}"));
        }
        match f {
            Fault::Start(n) => {
                if !self.nodes[n].running {
                    self.nodes[n].start(net);
                }
            }
            Fault::StartElsewhere(n) => {
                if !self.nodes[n].running {
                    self.nodes[n].home = HomeId(net.rng.random_range(10_000..u64::MAX));
                    self.nodes[n].start(net);
                }
            }
            Fault::Kill(n) => {
                if self.nodes[n].running {
                    self.nodes[n].kill(net);
                }
            }
            Fault::Pause(Who::Node(n), ms) => {
                let p = &mut self.nodes[n];
                p.busy_until = p.busy_until.max(net.now + ms * MS);
            }
            Fault::Pause(Who::Master(m), ms) => {
                let p = &mut self.masters.all[m];
                p.busy_until = p.busy_until.max(net.now + ms * MS);
            }
            Fault::Pause(Who::Client(_), _) => {}
            Fault::Slow(n, ms) => self.nodes[n].slow_ms = ms,
            Fault::Cut(ways, ms) => {
                net.cuts.extend(ways.iter().copied());
                net.at(net.now + ms * MS, Happening::World(Deed::Fault(Fault::Heal(ways))));
            }
            Fault::Heal(ways) => {
                net.cuts.retain(|w| !ways.contains(w));
                net.resume();
            }
            Fault::Delay(a, b, ms) => {
                net.slow.insert((a, b), ms);
                net.slow.insert((b, a), ms);
            }
            Fault::Reset(who) => net.break_some(who, 0.5),
            Fault::KillMaster(m) => {
                if self.masters.all[m].running {
                    self.masters.kill(net, m);
                }
            }
            Fault::StartMaster(m) => {
                if !self.masters.all[m].running {
                    self.masters.start(net, m);
                }
            }
            Fault::Switchover => {
                if let Some(l) = self.masters.leads(net) {
                    self.masters.operator(net, l, Message::SwitchMaster(SwitchMaster { to: None }));
                }
            }
            Fault::Forget(n) => {
                let node = self.nodes[n].id.clone();
                self.order(Message::Forget(Forget { node, accept_data_loss: true }));
            }
            Fault::Drain(n) => {
                let node = self.nodes[n].id.clone();
                self.order(Message::ShutdownCache(ShutdownCache { node, cfg_index: 0 }));
            }
            Fault::Rebalance => {
                let kind = OperationKind::Rebalance;
                let wish = Wish { kind, nodes: Vec::new(), force: false, accept_data_loss: false };
                self.order(Message::Apply(Apply { wish, epoch: None, moves_digest: None }));
            }
            Fault::Steer(how) => {
                let open = self.masters.truth().operations.iter().rev().find(|(_, o)| o.state.is_open());
                let Some(operation) = open.map(|(id, _)| *id) else { return };
                let id = OperationId { operation };
                self.order(match how {
                    0 => Message::Pause(id),
                    1 => Message::Resume(id),
                    _ => Message::Cancel(id),
                });
            }
        }
    }

    /// An operator asks the leader, if there is one.
    fn order(&mut self, message: Message) {
        if let Some(l) = self.masters.leads(&self.net) {
            self.masters.operator(&mut self.net, l, message);
        }
    }

    /// Everything works again; who is dead stays dead, but for masters and so many nodes that a backup has a place.
    pub fn heal(&mut self) {
        self.net.note(None, || "*** everything heals".into());
        self.net.cuts.clear();
        self.net.slow.clear();
        self.net.spikes = 0.0;
        self.net.resume();
        self.masters.oracle.unknown = 0.0;
        self.masters.oracle.twice = 0.0;
        for n in 0..self.nodes.len() {
            self.nodes[n].slow_ms = 0;
            if !self.nodes[n].running && (n < 2 || self.net.chance(0.7)) {
                self.strike(Fault::Start(n));
            }
        }
        for m in 0..self.masters.all.len() {
            self.strike(Fault::StartMaster(m));
        }
    }

    /// An operator gives up on what the masters can't prove gone by themselves: holders whose state directory was lost, so that
    /// another process answers at their address.
    pub fn give_up_holders(&mut self) {
        let lost: Vec<usize> = self
            .masters
            .truth()
            .holders
            .keys()
            .filter_map(|h| self.nodes.iter().find(|p| p.id == h.id && (!p.running || p.me().as_ref() != Some(h))))
            .map(|p| p.ix)
            .collect();
        lost.into_iter().for_each(|n| self.strike(Fault::Forget(n)));
        if self.nodes.iter().all(|p| !p.running) {
            // All were drained, or never came back.
            self.strike(Fault::Start(0));
            self.strike(Fault::Start(1));
        }
        let open = self.masters.truth().operations.iter().filter(|(_, o)| o.state.is_open()).map(|(id, _)| *id);
        for operation in open.collect::<Vec<_>>() {
            self.order(Message::Resume(OperationId { operation }));
        }
        // Everyone was drained: the last one stays.
        let blocked = |o: &Operation| o.reason.as_deref().is_some_and(|r| r.starts_with("no other node can take what"));
        let truth = self.masters.truth();
        let blocked = truth.operations.iter().filter(|(_, o)| o.state.is_open() && blocked(o)).map(|(id, _)| *id);
        for operation in blocked.collect::<Vec<_>>() {
            self.order(Message::Cancel(OperationId { operation }));
        }
    }
}
