//! The flags of `cachectl bench`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueHint};

use super::codec::Protocol;
use super::keys::Distribution;
use crate::cli::args::host_port;
use crate::cli::units::{parse_duration, parse_size};

/// Connections at most: as many as a node takes.
const CLIENTS_MAX: u64 = 10_000;
/// Operations under way on a connection at most.
const PIPELINE_MAX: u64 = 4096;
/// Generator threads at most.
const THREADS_MAX: u64 = 64;
/// Keys at most: their numbers have twelve digits.
const KEYS_MAX: u64 = 1_000_000_000_000;
/// The longest value, bytes.
const SIZE_MAX: u64 = 64 << 20;

/// `bench`
#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct BenchArgs {
    /// What to do with results
    #[command(subcommand)]
    pub command: Option<BenchCommand>,
    /// The load.
    #[command(flatten)]
    pub load: LoadArgs,
}

/// `bench …`
#[derive(Debug, Clone, Subcommand)]
pub enum BenchCommand {
    /// Compare two results of `bench -o json`
    Compare {
        /// The one that counts as 1
        #[arg(value_hint = ValueHint::FilePath)]
        a: PathBuf,
        /// The other
        #[arg(value_hint = ValueHint::FilePath)]
        b: PathBuf,
    },
}

/// The load.
#[derive(Debug, Clone, Args)]
pub struct LoadArgs {
    /// A server to load instead of the cluster's nodes: cachectl, Redis, Valkey (repeat for more seeds)
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', value_parser = host_port)]
    pub addr: Vec<String>,
    /// Route by slots [default: if the server says it is a cluster]
    #[arg(long, conflicts_with = "single")]
    pub cluster: bool,
    /// Send every key to the one server
    #[arg(long)]
    pub single: bool,
    /// What the server speaks
    #[arg(long, value_name = "NAME", default_value = "resp", requires = "addr")]
    pub protocol: Protocol,
    /// Connections in all, dealt out over the nodes
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=CLIENTS_MAX))]
    pub clients: u64,
    /// Operations under way on each connection
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=PIPELINE_MAX))]
    pub pipeline: u64,
    /// Generator threads
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=THREADS_MAX))]
    pub threads: u64,
    /// Writes to reads
    #[arg(long, value_name = "SET:GET", default_value = "1:10", value_parser = ratio)]
    pub ratio: (u32, u32),
    /// How many keys
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=KEYS_MAX))]
    pub keys: u64,
    /// What stands before a key's twelve digits
    #[arg(long, value_name = "TEXT", default_value = "key:", value_parser = prefix)]
    pub prefix: String,
    /// Length of values in bytes, or LOW-HIGH for even lengths between
    #[arg(long, value_name = "BYTES", default_value = "100", value_parser = size)]
    pub size: (usize, usize),
    /// Which keys: uniform, zipf:THETA, or hot:KEYS:OPS as in hot:10%:90%
    #[arg(long, value_name = "HOW", default_value = "uniform")]
    pub distribution: Distribution,
    /// How long [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub duration: Option<Duration>,
    /// How many operations, instead of how long
    #[arg(long, value_name = "N", conflicts_with = "duration", value_parser = clap::value_parser!(u64).range(1..))]
    pub requests: Option<u64>,
    /// Open loop: so many operations a second, latency counted from when each was due
    #[arg(long, value_name = "OPS_PER_S", value_parser = rate)]
    pub rate: Option<f64>,
    /// Run for so long before measuring
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_duration)]
    pub warmup: Duration,
    /// Write every key once before
    #[arg(long)]
    pub load: bool,
    /// Check every value: exit 3 if an acknowledged write is lost or an older state is read
    #[arg(long)]
    pub verify: bool,
    /// An answer that takes longer ends its connection
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub timeout: Duration,
    /// Of the random numbers
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Processes whose CPU and memory to measure [default: the nodes of a local cluster]
    #[arg(long, value_name = "PID", value_delimiter = ',')]
    pub server_pid: Vec<u32>,
}

fn ratio(text: &str) -> Result<(u32, u32), String> {
    let parse = |t: &str| t.parse::<u32>().ok().filter(|n| *n <= 1_000_000);
    match text.split_once(':').and_then(|(s, g)| parse(s).zip(parse(g))) {
        Some((sets, gets)) if sets + gets > 0 => Ok((sets, gets)),
        _ => Err("a ratio looks like 1:10 (SET:GET)".into()),
    }
}

/// Keys travel in memcached's text protocol too: no blanks, no controls, at most 250 bytes there.
fn prefix(text: &str) -> Result<String, String> {
    if text.len() <= 200 && text.bytes().all(|b| b.is_ascii_graphic()) {
        Ok(text.to_owned())
    } else {
        Err("a prefix is at most 200 printable characters without blanks".into())
    }
}

fn size(text: &str) -> Result<(usize, usize), String> {
    let parse = |t: &str| {
        parse_size(t).and_then(|n| match n {
            n if n <= SIZE_MAX => Ok(n as usize),
            _ => Err("a value is at most 64mb here".to_owned()),
        })
    };
    let (low, high) = match text.split_once('-') {
        Some((low, high)) => (parse(low)?, parse(high)?),
        None => (parse(text)?, parse(text)?),
    };
    if low <= high { Ok((low, high)) } else { Err("a range of sizes looks like 100-1000".into()) }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(r) if r.is_finite() && (0.01..=1e8).contains(&r) => Ok(r),
        _ => Err("a rate is operations a second, as in 20000".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_loads() {
        assert_eq!(ratio("1:10"), Ok((1, 10)));
        assert_eq!(ratio("0:1"), Ok((0, 1)));
        assert_eq!(size("100"), Ok((100, 100)));
        assert_eq!(size("32-1kb"), Ok((32, 1024)));
        assert_eq!(rate("2000"), Ok(2000.0));
        for bad in ["0:0", "1", "a:b", "1:-1"] {
            assert!(ratio(bad).is_err(), "{bad}");
        }
        for bad in ["10-5", "x", "1gb", "-5"] {
            assert!(size(bad).is_err(), "{bad}");
        }
        assert!(rate("0").is_err() && rate("nan").is_err());
        assert!(prefix("a b").is_err() && prefix("{tag}:").is_ok());
    }
}
