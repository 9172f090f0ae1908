//! What a run found: the document of `bench -o json` and its table.
//!
//! The document (schema 1): times in microseconds unless the name says otherwise, CPU in seconds per million operations.
//!
//! ```json
//! {"schema":1,"kind":"bench","version":"0.1.0","at_ms":1760000000000,"interrupted":false,
//!  "target":{"addrs":["127.0.0.1:7201"],"cluster":true,"server":"cachectl 0.1.0","protocol":"resp"},
//!  "settings":{"clients":50,"pipeline":1,"threads":1,"ratio":"1:10","keys":1000000,"size":"100","distribution":"uniform",
//!    "rate":null,"duration_s":10.0,"requests":null,"warmup_s":0.0,"seed":1},
//!  "load":{"ops":1000000,"seconds":4.0,"ops_per_s":250000.0,"errors":0},
//!  "seconds":10.0,"ops":1000000,"ops_per_s":100000.0,"hits":900000,"misses":10,"follows":0,"errors":{"OOM":1},"errors_total":1,
//!  "all":{"ops":1000000,"mean_us":480.0,"p50_us":470.0,"p90_us":600.0,"p99_us":900.0,"p99_9_us":1500.0,"p99_99_us":3000.0,"max_us":5000.0},
//!  "get":{…},"set":{…},
//!  "nodes":[{"addr":"127.0.0.1:7201","ops":333333,"ops_per_s":33333.0,"share":0.33,"p50_us":470.0,"p99_us":900.0,"p99_9_us":1500.0,"follows":0,"errors":0}],
//!  "timeline":[{"second":1,"ops":100000,"p99_us":900.0,"errors":0}],
//!  "generator":{"cpu_s":5.0,"cpu_s_per_mops":5.0},
//!  "servers":{"pids":[1,2],"cpu_s":9.0,"cpu_s_per_mops":9.0,"rss_before_bytes":1000000,"rss_after_bytes":200000000},
//!  "verify":{"checked":900000,"stale":0,"lost":0,"corrupt":0,"unknown":0,"unverified":0,"evicted":0,"examples":[]}}
//! ```
//! `load`, `servers` and `verify` are null where there was nothing of the kind; percentiles are null of nothing. `follows` are
//! operations that a MOVED or ASK sent on, once; whatever else a server says is an error. Latency is from the sending (closed
//! loop) or from when the operation was due (open loop). Later versions add fields and keep these.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::codec::Protocol;
use super::histogram::Sum;
use crate::cli::output::{Out, Table, Tone, escape};
use crate::cli::units::{show_count, show_size};

/// The number in `schema`.
pub const SCHEMA: u32 = 1;

/// The whole document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// `bench`.
    pub kind: String,
    /// Of the generator.
    pub version: String,
    /// When it ended, milliseconds since 1970.
    pub at_ms: u64,
    /// Ctrl-C ended it early.
    pub interrupted: bool,
    /// Who was loaded.
    pub target: TargetDoc,
    /// With what.
    pub settings: Settings,
    /// The fill before it.
    pub load: Option<Load>,
    /// How long the measured part took.
    pub seconds: f64,
    /// Operations answered without an error.
    pub ops: u64,
    /// Of these.
    pub ops_per_s: f64,
    /// Reads that found a value.
    pub hits: u64,
    /// Reads that found none.
    pub misses: u64,
    /// Operations sent on by MOVED or ASK.
    pub follows: u64,
    /// Failed operations by code.
    pub errors: BTreeMap<String, u64>,
    /// All of them.
    pub errors_total: u64,
    /// Latency of all.
    pub all: Latency,
    /// Of reads.
    pub get: Latency,
    /// Of writes.
    pub set: Latency,
    /// By node.
    pub nodes: Vec<NodeDoc>,
    /// By second.
    pub timeline: Vec<Second>,
    /// What this process cost.
    pub generator: Generator,
    /// What the servers cost.
    pub servers: Option<Servers>,
    /// What `--verify` found.
    pub verify: Option<Verify>,
}

/// `target`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TargetDoc {
    /// Nodes, as announced.
    pub addrs: Vec<String>,
    /// Keys are spread over slots.
    pub cluster: bool,
    /// Name and version.
    pub server: String,
    /// What was spoken.
    pub protocol: Protocol,
}

/// `settings`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Connections.
    pub clients: usize,
    /// Under way on each.
    pub pipeline: usize,
    /// Generator threads.
    pub threads: usize,
    /// SET:GET.
    pub ratio: String,
    /// Keys.
    pub keys: u64,
    /// Length of values, or LOW-HIGH.
    pub size: String,
    /// How keys are drawn.
    pub distribution: String,
    /// Operations a second of an open loop.
    pub rate: Option<f64>,
    /// Asked for.
    pub duration_s: Option<f64>,
    /// Asked for.
    pub requests: Option<u64>,
    /// Not measured before.
    pub warmup_s: f64,
    /// Of the random numbers.
    pub seed: u64,
}

/// `load`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// Keys written.
    pub ops: u64,
    /// How long it took.
    pub seconds: f64,
    /// Of these.
    pub ops_per_s: f64,
    /// Keys not written.
    pub errors: u64,
}

/// `all`, `get`, `set`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Latency {
    pub ops: u64,
    pub mean_us: Option<f64>,
    pub p50_us: Option<f64>,
    pub p90_us: Option<f64>,
    pub p99_us: Option<f64>,
    pub p99_9_us: Option<f64>,
    pub p99_99_us: Option<f64>,
    pub max_us: Option<f64>,
}

/// One of `nodes`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct NodeDoc {
    pub addr: String,
    pub ops: u64,
    pub ops_per_s: f64,
    pub share: f64,
    pub p50_us: Option<f64>,
    pub p99_us: Option<f64>,
    pub p99_9_us: Option<f64>,
    pub follows: u64,
    pub errors: u64,
}

/// One of `timeline`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Second {
    pub second: u64,
    pub ops: u64,
    pub p99_us: Option<f64>,
    pub errors: u64,
}

/// `generator`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Generator {
    pub cpu_s: f64,
    pub cpu_s_per_mops: Option<f64>,
}

/// `servers`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Servers {
    pub pids: Vec<u32>,
    pub cpu_s: f64,
    pub cpu_s_per_mops: Option<f64>,
    pub rss_before_bytes: u64,
    pub rss_after_bytes: u64,
}

/// `verify`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verify {
    /// Reads compared.
    pub checked: u64,
    /// Reads of an older state.
    pub stale: u64,
    /// Acknowledged writes that are gone.
    pub lost: u64,
    /// Values that are nobody's.
    pub corrupt: u64,
    /// Writes whose outcome was never heard; each may show or not.
    pub unknown: u64,
    /// Keys that could not be read at the end.
    pub unverified: u64,
    /// Keys that the servers evicted meanwhile: these are no loss, and look like one.
    pub evicted: u64,
    /// Some of what was wrong.
    pub examples: Vec<String>,
}

impl Verify {
    /// Nothing is wrong, and everything was looked at.
    pub fn is_clean(&self) -> bool {
        self.stale + self.lost + self.corrupt + self.unverified == 0
    }
}

/// Microseconds, to a hundredth.
pub fn us(ns: u64) -> f64 {
    (ns as f64 / 10.0).round() / 100.0
}

impl Latency {
    /// Of a histogram.
    pub fn of(sum: &Sum) -> Self {
        let q = |q| sum.quantile(q).map(us);
        Self {
            ops: sum.count(),
            mean_us: sum.mean().map(|ns| us(ns as u64)),
            p50_us: q(0.5),
            p90_us: q(0.9),
            p99_us: q(0.99),
            p99_9_us: q(0.999),
            p99_99_us: q(0.9999),
            max_us: sum.max().map(us),
        }
    }
}

/// Seconds per million operations; none of nothing.
pub fn per_mops(cpu_s: f64, ops: u64) -> Option<f64> {
    (ops > 0).then(|| cpu_s * 1e6 / ops as f64)
}

/// A time for people, from microseconds.
pub fn show_us(us: Option<f64>) -> String {
    match us {
        None => "-".into(),
        Some(us) if us < 1000.0 => format!("{us:.0}µs"),
        Some(us) if us < 10_000.0 => format!("{:.2}ms", us / 1e3),
        Some(us) if us < 1_000_000.0 => format!("{:.0}ms", us / 1e3),
        Some(us) => format!("{:.2}s", us / 1e6),
    }
}

impl Report {
    /// For people.
    pub fn text(&self, out: &Out) -> String {
        let s = &self.settings;
        let mut text = format!(
            "{}  {} {}  {} clients × {}, SET:GET {}, {} keys {}, {} B, {}\n",
            out.paint(Tone::Strong, &escape(&self.target.addrs.join(" "))),
            escape(&self.target.server),
            if self.target.cluster { "cluster" } else { "single" },
            s.clients,
            s.pipeline,
            escape(&s.ratio),
            s.keys,
            escape(&s.distribution),
            escape(&s.size),
            s.rate.map_or("closed loop".into(), |r| format!("open loop at {r}/s")),
        );
        if let Some(l) = &self.load {
            text.push_str(&format!(
                "loaded {} keys in {:.1}s, {}/s, {} errors\n",
                l.ops,
                l.seconds,
                show_count(l.ops_per_s),
                l.errors
            ));
        }
        text.push_str(&self.table().render(out, ""));
        let reads = self.hits + self.misses;
        let ratio = if reads == 0 { "-".into() } else { format!("{:.1}%", self.hits as f64 * 100.0 / reads as f64) };
        text.push_str(&format!("{:.2}s  hits {ratio}  followed {}", self.seconds, self.follows));
        let errors = format!("  errors {}", self.errors_total);
        let tone = if self.errors_total > 0 { Tone::Bad } else { Tone::Good };
        text.push_str(&out.paint(tone, &errors));
        for (code, n) in &self.errors {
            text.push_str(&format!("  {} {n}", escape(code)));
        }
        let per = |x: Option<f64>| x.map_or("-".into(), |x| format!("{x:.3}"));
        text.push_str(&format!("\nCPU s per M ops: generator {}", per(self.generator.cpu_s_per_mops)));
        if let Some(s) = &self.servers {
            text.push_str(&format!(
                "  servers {} ({} processes, {} resident, {} before)",
                per(s.cpu_s_per_mops),
                s.pids.len(),
                show_size(s.rss_after_bytes),
                show_size(s.rss_before_bytes)
            ));
        }
        text.push('\n');
        if let Some(v) = &self.verify {
            let tone = if v.is_clean() { Tone::Good } else { Tone::Bad };
            let line = format!(
                "verified {} reads: {} lost  {} stale  {} corrupt  {} not readable  ({} writes unheard of, {} evicted)",
                v.checked, v.lost, v.stale, v.corrupt, v.unverified, v.unknown, v.evicted
            );
            text.push_str(&out.paint(tone, &line));
            text.push('\n');
            v.examples.iter().for_each(|e| text.push_str(&format!("  {}\n", escape(e))));
        }
        text
    }

    fn table(&self) -> Table {
        let mut table = Table::new(&[
            "", ">OPS/S", ">OPS", ">MEAN", ">P50", ">P90", ">P99", ">P99.9", ">P99.99", ">MAX", ">ERRORS",
        ]);
        let rate = |ops: u64| show_count(if self.seconds > 0.0 { ops as f64 / self.seconds } else { 0.0 });
        for (name, l, errors) in
            [("all", &self.all, Some(self.errors_total)), ("GET", &self.get, None), ("SET", &self.set, None)]
        {
            let cells = [
                name.to_owned(),
                rate(l.ops),
                l.ops.to_string(),
                show_us(l.mean_us),
                show_us(l.p50_us),
                show_us(l.p90_us),
                show_us(l.p99_us),
                show_us(l.p99_9_us),
                show_us(l.p99_99_us),
                show_us(l.max_us),
                errors.map(|n| n.to_string()).unwrap_or_default(),
            ];
            table.row(&cells.each_ref().map(|c| (c.as_str(), None)));
        }
        for n in self.nodes.iter().filter(|_| self.nodes.len() > 1) {
            let cells = [
                n.addr.clone(),
                rate(n.ops),
                n.ops.to_string(),
                String::new(),
                show_us(n.p50_us),
                String::new(),
                show_us(n.p99_us),
                show_us(n.p99_9_us),
                String::new(),
                String::new(),
                n.errors.to_string(),
            ];
            table.row(&cells.each_ref().map(|c| (c.as_str(), None)));
        }
        table
    }
}
