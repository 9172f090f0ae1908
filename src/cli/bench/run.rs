//! One run: fill, warm up, load, look at everything again; progress meanwhile, the report at the end.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use indicatif::{ProgressBar, ProgressStyle};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::args::LoadArgs;
use super::codec::Codec;
use super::report::{
    Generator, Latency, Load, NodeDoc, Report, SCHEMA, Second, Servers, Settings, TargetDoc, Verify, per_mops, show_us,
    us,
};
use super::source::{Phase, Plan};
use super::stats::{Counts, Reading};
use super::target::{Form, Target};
use super::usage::{Usage, own_cpu_s};
use super::verify::{Ledger, VALUE_MIN};
use super::worker::{self, Gate, Left, Shared};
use crate::cli::error::{CliError, CmdResult, Exit};
use crate::cli::output::Out;
use crate::cli::units::show_count;

/// `--duration` unless said otherwise.
const DURATION: Duration = Duration::from_secs(10);
/// A fill's pipeline is at least this, so that it is over soon.
const FILL_PIPELINE: usize = 16;
/// How often it is looked whether workers are done, and whether the slot table is to be asked for again.
const LOOK: Duration = Duration::from_millis(20);
/// How often it is looked whether all workers are connected.
const GATE_LOOK: Duration = Duration::from_millis(1);
/// A slot table is asked for at most so often.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// Descriptors besides the connections.
const DESCRIPTORS: u64 = 64;
/// The most keys that are verified: each costs 8 bytes here.
const VERIFY_KEYS_MAX: u64 = 500_000_000;

/// Loads the servers at `seeds`; `pids` are theirs, as far as known.
pub async fn run(out: &Out, args: &LoadArgs, seeds: Vec<String>, pids: Vec<u32>) -> CmdResult {
    let plan = plan(args)?;
    let form = match (args.cluster, args.single) {
        (true, _) => Form::Cluster,
        (_, true) => Form::Single,
        _ => Form::Auto,
    };
    let target = Target::find(seeds, form, args.protocol).await?;
    let limit = getrlimit(Resource::Nofile);
    let need = plan.clients as u64 + DESCRIPTORS;
    if limit.current.is_some_and(|n| n < need) {
        // Where it may not be raised, connections fail and are counted.
        let _ =
            setrlimit(Resource::Nofile, Rlimit { current: limit.maximum.map(|m| m.min(need)).or(Some(need)), ..limit });
    }
    let evicted = if args.verify { target.evicted().await } else { 0 };
    let before = Usage::of(&pids);
    let mut run = Run {
        out,
        ledgers: Vec::new(),
        shared: Arc::new(Shared {
            gate: Gate::default(),
            codec: Codec::new(args.protocol, &plan.prefix),
            timeout_ns: args.timeout.as_nanos() as u64,
            stop: AtomicBool::new(false),
            plan,
            target,
        }),
        interrupted: false,
        unverified: 0,
        verified: Vec::new(),
        pids,
    };
    let mut load = None;
    if args.load {
        let fill = run.fill().await?;
        load = Some(Load {
            ops: fill.window.total().sets.count(),
            seconds: fill.seconds,
            ops_per_s: fill.rate(),
            errors: fill.errors(),
        });
    }
    let until = match (args.duration, args.requests) {
        (None, Some(_)) => None,
        (d, _) => Some(d.unwrap_or(DURATION) + args.warmup),
    };
    let phase = Phase::Mix { until_ns: until.map(|d| d.as_nanos() as u64), requests: args.requests, rate: args.rate };
    let mix = run.phase(phase, args.warmup, "running").await?;
    if args.verify && !run.interrupted {
        run.phase(Phase::Sweep, Duration::ZERO, "verifying").await?;
    }
    let report = run.report(args, load, mix, before, evicted).await;
    if out.json() {
        out.document(&report)?;
    } else {
        out.raw(report.text(out).as_bytes())?;
    }
    ended(out, &report, run.interrupted)
}

fn ended(out: &Out, report: &Report, interrupted: bool) -> CmdResult {
    if report.verify.as_ref().is_some_and(|v| !v.is_clean()) {
        return Ok(Exit::NotOk);
    }
    if interrupted {
        return Ok(Exit::Detached);
    }
    if report.ops == 0 {
        let what = report.errors.iter().max_by_key(|(_, n)| **n).map_or("no answer", |(code, _)| code.as_str());
        return Err(CliError::failed("NOTHING_DONE", format!("no operation succeeded: {what}"))
            .hint("is that a cache that takes GET and SET? `cachectl status` shows a cluster's state"));
    }
    if report.errors.contains_key("UNSENT") {
        out.warn(
            "the servers did not keep up with the rate: what was never sent is counted as UNSENT, not in the latencies",
        );
    }
    Ok(Exit::Done)
}

fn plan(args: &LoadArgs) -> Result<Plan, CliError> {
    if args.verify && args.size.0 < VALUE_MIN {
        return Err(CliError::usage(format!("--verify needs values of at least {VALUE_MIN} bytes"))
            .hint(format!("say --size {VALUE_MIN} or more")));
    }
    if args.verify && args.keys > VERIFY_KEYS_MAX {
        return Err(CliError::usage(format!("--verify takes at most {VERIFY_KEYS_MAX} keys")).hint("say fewer --keys"));
    }
    if args.threads > args.clients {
        return Err(CliError::usage(format!(
            "{} threads have nothing to do with {} clients",
            args.threads, args.clients
        ))
        .hint("say more --clients or fewer --threads"));
    }
    Ok(Plan {
        clients: args.clients as usize,
        pipeline: args.pipeline as usize,
        threads: args.threads as usize,
        ratio: args.ratio,
        keys: args.keys,
        prefix: args.prefix.clone(),
        size: args.size,
        distribution: args.distribution,
        seed: args.seed,
        verify: args.verify.then(rand::random),
    })
}

/// What a phase measured.
struct Measured {
    window: Reading,
    seconds: f64,
    own_cpu_s: f64,
    servers: Usage,
    timeline: Vec<Second>,
}

impl Measured {
    fn rate(&self) -> f64 {
        if self.seconds > 0.0 { self.window.total().both().count() as f64 / self.seconds } else { 0.0 }
    }

    fn errors(&self) -> u64 {
        self.window.errors.values().sum()
    }
}

struct Run<'a> {
    out: &'a Out,
    shared: Arc<Shared>,
    ledgers: Vec<Option<Ledger>>,
    interrupted: bool,
    unverified: u64,
    verified: Vec<Arc<Counts>>,
    pids: Vec<u32>,
}

impl Run<'_> {
    /// Writes every key once, with a deeper pipeline than the run's.
    async fn fill(&mut self) -> Result<Measured, CliError> {
        let Some(shared) = Arc::get_mut(&mut self.shared) else {
            return Err(CliError::failed("BUG", "a worker outlived its phase"));
        };
        let pipeline = shared.plan.pipeline;
        shared.plan.pipeline = pipeline.max(FILL_PIPELINE);
        let measured = self.phase(Phase::Fill, Duration::ZERO, "loading").await;
        if let Some(shared) = Arc::get_mut(&mut self.shared) {
            shared.plan.pipeline = pipeline;
        }
        measured
    }

    async fn phase(&mut self, phase: Phase, warmup: Duration, word: &str) -> Result<Measured, CliError> {
        let threads = self.shared.plan.threads;
        let counts: Vec<Arc<Counts>> = (0..threads).map(|_| Arc::default()).collect();
        self.verified.extend(counts.iter().cloned());
        self.ledgers.resize_with(threads, || None);
        let mut workers: Vec<JoinHandle<std::io::Result<Left>>> = Vec::new();
        for (me, ledger) in std::mem::take(&mut self.ledgers).into_iter().enumerate() {
            let (shared, counts) = (self.shared.clone(), counts[me].clone());
            let spawned = thread::Builder::new()
                .name(format!("load-{me}"))
                .spawn(move || worker::run(&shared, phase, me, ledger, &counts));
            match spawned {
                Ok(worker) => workers.push(worker),
                Err(e) => {
                    self.shared.stop.store(true, Ordering::Relaxed);
                    self.shared.gate.open();
                    return Err(CliError::failed("BENCH", format!("can't start a generator thread: {e}"))
                        .hint("say fewer --threads"));
                }
            }
        }
        while self.shared.gate.there() < threads {
            tokio::time::sleep(GATE_LOOK).await;
        }
        self.shared.gate.open();
        let measured = self.watch(&counts, &workers, warmup, word).await;
        for w in workers {
            let left = match w.join() {
                Ok(left) => left.map_err(|e| CliError::failed("BENCH", format!("a generator thread failed: {e}")))?,
                Err(_) => return Err(CliError::failed("BUG", "a generator thread panicked")),
            };
            self.unverified += left.unverified;
            self.ledgers.push(left.ledger);
        }
        self.shared.gate.close();
        Ok(measured)
    }

    /// Until all workers are done: a line a second, a fresh slot table when they ask for one, Ctrl-C.
    async fn watch(
        &mut self,
        counts: &[Arc<Counts>],
        workers: &[JoinHandle<std::io::Result<Left>>],
        warmup: Duration,
        word: &str,
    ) -> Measured {
        let mark = || (Instant::now(), own_cpu_s(), Usage::of(&self.pids));
        let begun = Instant::now();
        let mut from = mark();
        let mut base = Reading::default();
        let mut warm = warmup.is_zero();
        let mut progress = Progress::new(self.out, word);
        let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
        let mut asked = Instant::now();
        let mut timeline = Vec::new();
        let mut last = Reading::default();
        while workers.iter().any(|w| !w.is_finished()) {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                _ = &mut interrupt, if !self.interrupted => {
                    self.interrupted = true;
                    self.shared.stop.store(true, Ordering::Relaxed);
                }
            }
            if !warm && begun.elapsed() >= warmup {
                warm = true;
                base = Reading::of(counts);
                last = base.clone();
                from = mark();
            }
            let target = &self.shared.target;
            if asked.elapsed() >= ASK_AGAIN && target.stale.swap(false, Ordering::Relaxed) {
                target.look_again().await;
                asked = Instant::now();
            }
            if warm && from.0.elapsed() >= Duration::from_secs(timeline.len() as u64 + 1) {
                let now = Reading::of(counts);
                let window = now.since(&last);
                last = now;
                let both = window.total().both();
                let second = Second {
                    second: timeline.len() as u64 + 1,
                    ops: both.count(),
                    p99_us: both.quantile(0.99).map(us),
                    errors: window.errors.values().sum(),
                };
                progress.show(&second);
                timeline.push(second);
            }
        }
        progress.finish();
        let to = mark();
        Measured {
            window: Reading::of(counts).since(&base),
            seconds: (to.0 - from.0).as_secs_f64(),
            own_cpu_s: to.1 - from.1,
            servers: Usage { cpu_s: to.2.cpu_s - from.2.cpu_s, rss_bytes: to.2.rss_bytes },
            timeline,
        }
    }

    async fn report(&self, args: &LoadArgs, load: Option<Load>, mix: Measured, before: Usage, evicted: u64) -> Report {
        let plan = &self.shared.plan;
        let target = &self.shared.target;
        let table = target.table();
        let total = mix.window.total();
        let all = total.both();
        let ops = all.count();
        let seconds = mix.seconds;
        let rate = |n: u64| if seconds > 0.0 { n as f64 / seconds } else { 0.0 };
        let nodes = table.nodes.iter().zip(&mix.window.nodes).map(|((addr, _), n)| {
            let both = n.both();
            NodeDoc {
                addr: addr.clone(),
                ops: both.count(),
                ops_per_s: rate(both.count()),
                share: if ops > 0 { both.count() as f64 / ops as f64 } else { 0.0 },
                p50_us: both.quantile(0.5).map(us),
                p99_us: both.quantile(0.99).map(us),
                p99_9_us: both.quantile(0.999).map(us),
                follows: n.follows,
                errors: n.errors,
            }
        });
        let (low, high) = plan.size;
        let verify = match plan.verify {
            Some(_) => Some(self.verdict(target.evicted().await.saturating_sub(evicted))),
            None => None,
        };
        Report {
            schema: SCHEMA,
            kind: "bench".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            at_ms: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64),
            interrupted: self.interrupted,
            target: TargetDoc {
                addrs: table.nodes.iter().map(|(a, _)| a.clone()).collect(),
                cluster: target.cluster,
                server: target.server.clone(),
                protocol: args.protocol,
            },
            settings: Settings {
                clients: plan.clients,
                pipeline: plan.pipeline,
                threads: plan.threads,
                ratio: format!("{}:{}", plan.ratio.0, plan.ratio.1),
                keys: plan.keys,
                size: if low == high { low.to_string() } else { format!("{low}-{high}") },
                distribution: plan.distribution.to_string(),
                rate: args.rate,
                duration_s: args.duration.or(args.requests.is_none().then_some(DURATION)).map(|d| d.as_secs_f64()),
                requests: args.requests,
                warmup_s: args.warmup.as_secs_f64(),
                seed: plan.seed,
            },
            load,
            seconds,
            ops,
            ops_per_s: rate(ops),
            hits: total.hits,
            misses: total.misses,
            follows: total.follows,
            errors_total: mix.errors(),
            errors: mix.window.errors.clone(),
            all: Latency::of(&all),
            get: Latency::of(&total.gets),
            set: Latency::of(&total.sets),
            nodes: nodes.collect(),
            timeline: mix.timeline,
            generator: Generator { cpu_s: mix.own_cpu_s, cpu_s_per_mops: per_mops(mix.own_cpu_s, ops) },
            servers: (!self.pids.is_empty()).then(|| Servers {
                pids: self.pids.clone(),
                cpu_s: mix.servers.cpu_s,
                cpu_s_per_mops: per_mops(mix.servers.cpu_s, ops),
                rss_before_bytes: before.rss_bytes,
                rss_after_bytes: mix.servers.rss_bytes,
            }),
            verify,
        }
    }

    fn verdict(&self, evicted: u64) -> Verify {
        let sum = |f: fn(&Counts) -> u64| self.verified.iter().map(|c| f(c)).sum();
        Verify {
            checked: sum(|c| c.verified.checked.get()),
            stale: sum(|c| c.verified.stale.get()),
            lost: sum(|c| c.verified.lost.get()),
            corrupt: sum(|c| c.verified.corrupt.get()),
            unknown: sum(|c| c.verified.unknown.get()),
            unverified: self.unverified,
            evicted,
            examples: self.verified.iter().flat_map(|c| c.verified.examples()).collect(),
        }
    }
}

/// One line that is redrawn on a terminal; nothing else, since the report says it all again.
struct Progress {
    bar: Option<ProgressBar>,
    word: String,
}

impl Progress {
    fn new(out: &Out, word: &str) -> Self {
        let bar = (!out.quiet && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new_spinner();
            let style = if out.color_err() { "{spinner:.green} {msg}" } else { "{spinner} {msg}" };
            if let Ok(style) = ProgressStyle::with_template(style) {
                bar.set_style(style);
            }
            bar.set_message(word.to_owned());
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self { bar, word: word.to_owned() }
    }

    fn show(&mut self, s: &Second) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!(
                "{}  {}s  {} ops/s  p99 {}  errors {}",
                self.word,
                s.second,
                show_count(s.ops as f64),
                show_us(s.p99_us),
                s.errors
            ));
        }
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
