//! INFO: the node in numbers, in Redis's sections and field names.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use super::REDIS_VERSION;
use super::context::NodeCtx;
use super::error::ErrorReply;
use super::host::{Facts, Settings};
use super::parse::is;
use super::spec::{Spec, acl, flag};
use crate::node::health::process::Process;

pub(super) const COMMANDS: &[Spec] = &[Spec::node("info", -1, info)
    .with(flag::LOADING | flag::STALE, acl::DANGEROUS)
    .tips(&["nondeterministic_output", "request_policy:all_shards", "response_policy:special"])
    .doc("server", "1.0.0", "[<section> ...]", "The node in numbers.")];

/// What the sections are written from.
struct Source<'a> {
    facts: Facts,
    settings: Settings,
    run_id: String,
    port: u16,
    process: Process,
    /// Wall time, microseconds since 1970.
    now_us: u128,
    out: &'a mut String,
}

type Section = (&'static str, bool, fn(&mut Source<'_>));

/// Name, whether INFO alone shows it, body.
const SECTIONS: &[Section] = &[
    ("server", true, server),
    ("clients", true, clients),
    ("memory", true, memory),
    ("persistence", true, persistence),
    ("stats", true, stats),
    ("replication", true, replication),
    ("cpu", true, cpu),
    ("commandstats", false, commandstats),
    ("errorstats", true, errorstats),
    ("cluster", true, cluster),
    ("keyspace", true, keyspace),
];

/// Writes one `name:value` line. Writing to a String can't fail.
macro_rules! field {
    ($s:expr, $($arg:tt)*) => {{
        let _ = write!($s.out, $($arg)*);
        $s.out.push_str("\r\n");
    }};
}

fn info(c: &mut NodeCtx<'_, '_>) -> Result<(), ErrorReply> {
    let args = c.args;
    let asked = |name: &str, by_default: bool| {
        (args.len() == 1 && by_default)
            || args
                .iter_from(1)
                .any(|a| is(a, name) || is(a, "all") || is(a, "everything") || (by_default && is(a, "default")))
    };
    let view = c.host.cluster();
    let mut text = String::with_capacity(4096);
    let mut source = Source {
        facts: c.host.facts(),
        settings: c.host.settings(),
        run_id: format!("{:016x}{:024x}", view.me().incarnation.0, view.config().cluster_id.0),
        port: view.client_addr().1,
        process: Process::read(),
        now_us: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros()),
        out: &mut text,
    };
    for &(name, by_default, body) in SECTIONS {
        if asked(name, by_default) {
            if !source.out.is_empty() {
                source.out.push_str("\r\n");
            }
            let title = format!("{}{}", name[..1].to_ascii_uppercase(), &name[1..]);
            // CPU is the one name that Redis writes in capitals.
            field!(source, "# {}", if name == "cpu" { "CPU" } else { &title });
            body(&mut source);
        }
    }
    c.out.verbatim(&text);
    Ok(())
}

fn server(s: &mut Source<'_>) {
    let up = s.facts.uptime_ms / 1000;
    field!(s, "redis_version:{REDIS_VERSION}");
    field!(s, "redis_mode:cluster");
    field!(s, "cachectl_version:{}", env!("CARGO_PKG_VERSION"));
    field!(s, "os:{} {}", std::env::consts::OS, std::env::consts::ARCH);
    field!(s, "arch_bits:{}", usize::BITS);
    field!(s, "process_id:{}", std::process::id());
    field!(s, "run_id:{}", s.run_id);
    field!(s, "tcp_port:{}", s.port);
    field!(s, "server_time_usec:{}", s.now_us);
    field!(s, "uptime_in_seconds:{up}");
    field!(s, "uptime_in_days:{}", up / 86400);
    field!(s, "io_threads_active:{}", u8::from(s.facts.threads > 1));
}

fn clients(s: &mut Source<'_>) {
    field!(s, "connected_clients:{}", s.facts.stats.clients);
    field!(s, "maxclients:{}", s.settings.maxclients);
    field!(s, "blocked_clients:{}", s.facts.parked);
    field!(s, "tracking_clients:0");
}

fn memory(s: &mut Source<'_>) {
    let used = s.facts.stats.primary_bytes + s.facts.stats.backup_bytes;
    let rss = s.process.rss_bytes;
    let peak = s.process.rss_peak_bytes;
    field!(s, "used_memory:{used}");
    field!(s, "used_memory_human:{}", human(used));
    field!(s, "used_memory_rss:{rss}");
    field!(s, "used_memory_rss_human:{}", human(rss));
    field!(s, "used_memory_rss_peak:{peak}");
    field!(s, "used_memory_primary:{}", s.facts.stats.primary_bytes);
    field!(s, "used_memory_backup:{}", s.facts.stats.backup_bytes);
    field!(s, "maxmemory:{}", s.settings.maxmemory);
    field!(s, "maxmemory_human:{}", human(s.settings.maxmemory));
    field!(s, "maxmemory_policy:allkeys-{}", s.settings.eviction);
    let ratio = if used == 0 { 0.0 } else { rss as f64 / used as f64 };
    field!(s, "mem_fragmentation_ratio:{ratio:.2}");
}

/// Nothing is kept on disk; the fields say so to tools that look.
fn persistence(s: &mut Source<'_>) {
    field!(s, "loading:0");
    field!(s, "rdb_bgsave_in_progress:0");
    field!(s, "aof_enabled:0");
    field!(s, "aof_rewrite_in_progress:0");
}

fn stats(s: &mut Source<'_>) {
    let stats = s.facts.stats.clone();
    field!(s, "total_connections_received:{}", s.facts.connections_total);
    field!(s, "total_commands_processed:{}", stats.commands);
    field!(s, "instantaneous_ops_per_sec:{:.0}", stats.ops_per_s);
    field!(s, "total_net_input_bytes:{}", s.facts.net_in_bytes);
    field!(s, "total_net_output_bytes:{}", s.facts.net_out_bytes);
    field!(s, "rejected_connections:{}", s.facts.connections_rejected);
    field!(s, "expired_keys:{}", stats.expired);
    field!(s, "evicted_keys:{}", stats.evicted);
    field!(s, "keyspace_hits:{}", stats.hits);
    field!(s, "keyspace_misses:{}", stats.misses);
    field!(s, "total_error_replies:{}", stats.errors);
}

fn replication(s: &mut Source<'_>) {
    field!(s, "role:master");
    field!(s, "connected_slaves:0");
    field!(s, "master_replid:{}", s.run_id);
    field!(s, "master_repl_offset:0");
    field!(s, "backup_keys:{}", s.facts.stats.backup_keys);
}

fn cpu(s: &mut Source<'_>) {
    field!(s, "used_cpu_sys:{:.6}", s.process.cpu_sys_s);
    field!(s, "used_cpu_user:{:.6}", s.process.cpu_user_s);
}

fn commandstats(s: &mut Source<'_>) {
    for n in std::mem::take(&mut s.facts.commands) {
        let each = if n.calls == 0 { 0.0 } else { n.usec as f64 / n.calls as f64 };
        field!(
            s,
            "cmdstat_{}:calls={},usec={},usec_per_call={each:.2},rejected_calls={},failed_calls={}",
            n.name,
            n.calls,
            n.usec,
            n.rejected,
            n.failed
        );
    }
}

fn errorstats(s: &mut Source<'_>) {
    for (code, count) in std::mem::take(&mut s.facts.errors) {
        field!(s, "errorstat_{code}:count={count}");
    }
}

fn cluster(s: &mut Source<'_>) {
    field!(s, "cluster_enabled:1");
}

fn keyspace(s: &mut Source<'_>) {
    let keys = s.facts.stats.primary_keys;
    if keys > 0 {
        field!(s, "db0:keys={keys},expires={},avg_ttl=0", s.facts.keys_with_ttl);
    }
}

/// As Redis shortens sizes.
fn human(bytes: u64) -> String {
    match bytes {
        0..0x400 => format!("{bytes}B"),
        0x400..0x10_0000 => format!("{:.2}K", bytes as f64 / f64::from(1 << 10)),
        0x10_0000..0x4000_0000 => format!("{:.2}M", bytes as f64 / f64::from(1 << 20)),
        _ => format!("{:.2}G", bytes as f64 / f64::from(1 << 30)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shortened_as_redis_does() {
        for (bytes, want) in [(0, "0B"), (1023, "1023B"), (1024, "1.00K"), (1 << 20, "1.00M"), (3 << 30, "3.00G")] {
            assert_eq!(human(bytes), want);
        }
    }
}
