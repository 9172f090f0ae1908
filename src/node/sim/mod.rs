//! The deterministic simulator: whole clusters on one thread, thousands of runs, each from a seed (PROTOCOL section 9).
//!
//! ```text
//!   net: time, queue, connections ──▶ masters: real Brain and State over an oracle log
//!     ▲   delays, cuts, breaks    ──▶ cache: real Node, Session, Talk, Replica, Copying, Queue
//!     │                           ──▶ client: real RESP, histories
//!   fault, script: what goes wrong      check: I1–I15 after each step ▸ linear: each key's history at the end
//! ```
//!
//! What is real: everything that decides, down to the bytes of peer frames and RESP. What is not: sockets, threads (a process
//! handles one event at a time, but may be frozen in the middle of one), Raft (an oracle that loses leaders, forgets outcomes
//! and commits twice) and disks.
//!
//! `CACHECTL_SEED=7 cargo test --lib sim::one_seed -- --nocapture` replays a seed and prints its trace;
//! `CACHECTL_SEEDS=500` says how many [`tests::fresh_seeds`] runs.

mod cache;
mod check;
mod client;
mod fault;
mod linear;
mod masters;
mod net;
mod script;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use self::check::{Checks, Violation};
use self::net::MS;
use self::world::{Shape, World};
use crate::node::clock::simulated;
use crate::node::mutant::{self, Mutant};

/// The least length of a run, milliseconds.
const RUN_MS: u64 = 60_000;
/// After the last fault a cluster has so long to be at rest, milliseconds: an orphan's wait, a death, a rebuild, and then some.
const REST_MS: u64 = 60_000;
/// Lines of a trace.
const TRACE_LINES: usize = 55;

/// What a run came to.
#[derive(Debug, Default, Clone, Copy)]
pub struct Summary {
    pub events: u64,
    pub operations: u64,
    pub lost: u64,
    pub undecided: u64,
    pub digest: u64,
}

fn shape(seed: u64) -> Shape {
    let mut rng = SmallRng::seed_from_u64(seed ^ 0x5eed);
    Shape {
        slots: rng.random_range(1..=4),
        nodes: [3, 3, 4, 4, 5][rng.random_range(0..5)],
        masters: if rng.random_bool(0.3) { 1 } else { 3 },
        clients: rng.random_range(2..=4),
        keys_per_slot: rng.random_range(2..=4),
        drift: if rng.random_bool(0.5) { 0.05 } else { 0.0 },
        freeze: if rng.random_bool(0.5) { 0.0 } else { 0.001 },
    }
}

/// Runs one seed to its end.
fn play(w: &mut World) -> Result<Summary, Violation> {
    w.draw_plan();
    w.run_to(w.plan.end_ms)?;
    w.heal();
    // Operators look every few seconds.
    for at in (RUN_MS - 10_000..RUN_MS + REST_MS / 2).step_by(5000) {
        w.run_to(at)?;
        if at >= RUN_MS && w.checks.unrest(w).is_empty() {
            break;
        }
        w.give_up_holders();
    }
    w.until(RUN_MS + REST_MS, "rest", |w| w.checks.unrest(w).is_empty())?;
    w.finish()
}

impl World {
    /// Lets the clients finish, reads every key, and judges all histories.
    fn finish(&mut self) -> Result<Summary, Violation> {
        self.clients.iter_mut().for_each(|c| c.paused = true);
        let end = self.net.now / MS + REST_MS;
        self.until(end, "the clients' last answers", |w| w.clients.iter().all(client::Client::is_idle))?;
        let nodes = self.nodes.len();
        self.clients[0].read_all(&mut self.net, &self.keys, nodes);
        self.until(end, "the last reads", |w| w.clients[0].is_idle())?;
        let undecided = Checks::end(self)?;
        Ok(Summary {
            events: self.net.events,
            operations: self.clients.iter().map(|c| c.done).sum(),
            lost: self.checks.lost,
            undecided,
            digest: self.net.digest,
        })
    }
}

/// What a panic said.
fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
    format!("panicked: {}", text.unwrap_or_default())
}

/// Runs a seed; what went wrong, and the trace if asked for.
pub fn run(seed: u64, mutant: Option<Mutant>, trace: bool) -> (Result<Summary, Violation>, Vec<String>) {
    mutant::set(mutant);
    let mut w = World::new(seed, shape(seed), trace);
    let played = catch_unwind(AssertUnwindSafe(|| play(&mut w)));
    simulated::set(None);
    mutant::set(None);
    let result = played.unwrap_or_else(|panic| Err(Violation::new(None, said(&*panic))));
    let (slot, until) = result.as_ref().err().map_or((None, u64::MAX), |v| (v.slot, v.at));
    let lines = w.net.trace.take().unwrap_or_default();
    let all = std::env::var_os("CACHECTL_ALL").is_some();
    let fits = |s: &Option<u16>| all || s.is_none() || slot.is_none() || *s == slot;
    let kept: Vec<String> = lines
        .into_iter()
        .filter(|(at, s, _)| fits(s) && *at <= until)
        .map(|(at, _, text)| format!("{:>9.3} {text}", at as f64 / MS as f64))
        .collect();
    (result, kept)
}

#[cfg(test)]
mod tests;
