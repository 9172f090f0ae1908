//! The node as commands see it: what INFO, CONFIG, CLIENT, CLUSTER, SCAN and FLUSHALL work on.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::command::{
    ClientInfo, ClusterView, CommandCount, ConnState, ErrorReply, Facts, Held, Host, Settings, Slowlog, Spec,
};
use super::node::Node;
use super::shard::{Ran, Turn, lock};
use super::slot::Rank;
use super::stats::Sum;
use super::store::{Now, Store};
use super::waiter::Waiter;
use crate::node::clock::Mono;
use crate::proto::args::Args;
use crate::proto::slot::{SLOTS, Slot};

/// A slow log that wants commands faster than this has all of them timed; what is timed otherwise (a sample, what may be slow
/// by its nature, what carries much) leaves nothing out that takes longer.
const TIME_ALL_NS: u64 = 1_000_000;

/// One command's access to the node.
pub struct NodeHost<'a> {
    node: &'a Arc<Node>,
    waiter: &'a Arc<Waiter>,
    turn: Turn,
    /// Until when what it did may be told.
    pub until: Mono,
    holds: Vec<(Slot, u64, u64)>,
    park: bool,
}

impl<'a> NodeHost<'a> {
    /// For one command of one connection.
    pub fn new(node: &'a Arc<Node>, waiter: &'a Arc<Waiter>, turn: Turn) -> Self {
        Self { node, waiter, turn, until: Mono(u64::MAX), holds: Vec::new(), park: false }
    }

    /// What the reply rests on; `None` = the command is to be parked and run again.
    pub fn end(self) -> Option<Vec<(Slot, u64, u64)>> {
        (!self.park).then_some(self.holds)
    }
}

impl Host for NodeHost<'_> {
    fn now(&self) -> Now {
        self.turn.now
    }

    fn cluster(&self) -> Arc<ClusterView> {
        self.node.cluster_view()
    }

    fn shards(&self) -> usize {
        self.node.shards.len()
    }

    fn shard_of(&self, slot: Slot) -> usize {
        slot.ix() % self.node.shards.len()
    }

    fn with_shard(&self, shard: usize, f: &mut dyn FnMut(&mut Store)) {
        f(&mut lock(&self.node.shards[shard]).store);
    }

    fn held(&self, slot: Slot) -> Held {
        let shard = lock(self.node.shard(slot));
        let repl = shard.slot(slot);
        let role = match repl.rank() {
            Rank::None => "none",
            Rank::Primary => "primary",
            Rank::InSync => "backup",
            Rank::Learner => "learner",
            Rank::Holder => "holder",
        };
        let (keys, digest) = (shard.store.slot_stats(slot).keys, shard.store.digest(slot));
        Held { role, pterm: repl.pterm(), seq: repl.seq(), keys, digest }
    }

    fn flush_all(&mut self) -> Result<(), ErrorReply> {
        for s in (0..SLOTS).map(|s| Slot(s as u16)) {
            let ran = lock(self.node.shard(s)).flush(s, self.turn, self.waiter);
            match ran {
                Ran::Done { until } => self.until = self.until.min(until),
                Ran::Held { pterm, seq, until, .. } => {
                    self.until = self.until.min(until);
                    self.holds.push((s, pterm, seq));
                }
                // Emptying a slot twice is emptying it once: the whole command runs again.
                Ran::Park => self.park = true,
                Ran::Elsewhere | Ran::Oom => {}
            }
        }
        Ok(())
    }

    fn facts(&self) -> Facts {
        let c = &self.node.counters;
        Facts {
            stats: self.node.stats(),
            uptime_ms: Mono::now().ms_since(self.node.started),
            threads: self.node.config.threads,
            maxclients: self.settings().maxclients,
            connections_total: c.connections.load(Ordering::Relaxed),
            connections_rejected: c.rejected.load(Ordering::Relaxed),
            net_in_bytes: c.bytes_in.get(),
            net_out_bytes: c.bytes_out.get(),
            parked: self.node.clients.waiting(),
            keys_with_ttl: self.node.shards.iter().map(|s| lock(s).store.primary_timers()).sum(),
            commands: self.node.command_counts(),
            errors: c.error_codes(),
        }
    }

    fn reset_stats(&mut self) {
        self.node.reset_stats();
    }

    fn settings(&self) -> Settings {
        *lock(&self.node.settings)
    }

    fn apply_settings(&mut self, settings: Settings) -> Result<(), String> {
        self.node.apply_settings(settings)
    }

    fn clients(&self) -> Vec<ClientInfo> {
        self.node.clients.list(self.turn.now.mono_ms)
    }

    fn kill_clients(&mut self, which: &dyn Fn(&ClientInfo) -> bool) -> usize {
        self.node.clients.kill(self.turn.now.mono_ms, which)
    }

    fn slowlog(&mut self, f: &mut dyn FnMut(&mut Slowlog)) {
        f(&mut lock(&self.node.slowlog));
    }
}

impl Node {
    /// The configuration as clients are told of it, built once per configuration.
    pub fn cluster_view(&self) -> Arc<ClusterView> {
        let config = self.view();
        let mut cached = lock(&self.cluster_cache);
        match &*cached {
            Some((index, view)) if *index == config.cfg_index => view.clone(),
            _ => {
                let view = Arc::new({
                    let (addr, peer_addr) = self.config.announced();
                    ClusterView::new(config.clone(), self.me.clone(), addr, peer_addr)
                });
                *cached = Some((config.cfg_index, view.clone()));
                view
            }
        }
    }

    fn command_counts(&self) -> Vec<CommandCount> {
        let counts = self.calls.iter().map(|(spec, c)| CommandCount {
            name: spec.name,
            calls: c.calls,
            usec: c.usec(),
            failed: c.failed,
            rejected: 0,
        });
        counts.collect()
    }

    fn reset_stats(&self) {
        self.calls.reset();
        for shard in &self.shards {
            lock(shard).store.reset_stats();
        }
        let c = &self.counters;
        [&c.commands, &c.bytes_in, &c.bytes_out].into_iter().for_each(Sum::reset);
        for n in [&c.errors, &c.connections, &c.rejected] {
            n.store(0, Ordering::Relaxed);
        }
        c.forget_codes();
    }

    fn apply_settings(&self, new: Settings) -> Result<(), String> {
        let mut settings = lock(&self.settings);
        if new.maxmemory != settings.maxmemory {
            return Err("the memory limit is set by --memory at the node's start".into());
        }
        *settings = new;
        lock(&self.slowlog).set_max_len(new.slowlog_max_len);
        self.slow_ns.store(
            u64::try_from(new.slowlog_slower_than_us).map_or(u64::MAX, |us| us.saturating_mul(1000)),
            Ordering::Relaxed,
        );
        Ok(())
    }

    /// Whether every command is to be timed, for the slow log's sake.
    pub fn times_all(&self) -> bool {
        self.slow_ns.load(Ordering::Relaxed) < TIME_ALL_NS
    }

    /// A command that was timed took `ns`.
    pub fn timed(&self, spec: &Spec, state: &ConnState, args: Args<'_>, ns: u64) {
        self.calls.timed(spec, ns);
        if ns >= self.slow_ns.load(Ordering::Relaxed) {
            let at_s = self.turn().now.wall_ms / 1000;
            lock(&self.slowlog).push(args, at_s, ns / 1000, &state.addr, &state.name);
        }
    }
}
