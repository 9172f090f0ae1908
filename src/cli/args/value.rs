//! What single values on the command line may be: names, addresses, counts, sizes, times.

use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::cli::units::{parse_duration, parse_size};
use crate::node::config::Eviction;
use crate::proto::id::{MasterId, NodeId};

/// The most nodes a local cluster's block of ports has room for.
pub const LOCAL_NODES_MAX: usize = 99;
/// The smallest `--memory`: below it a node could not hold the stores' own tables.
pub const MEMORY_MIN: u64 = 1 << 20;
/// The most data-path threads of a node; beyond it they only fight for locks.
const THREADS_MAX: usize = 64;

/// A cluster's name is a directory's name too: no leading dot, so that it is neither hidden nor `..`.
pub fn cluster_name(text: &str) -> Result<String, String> {
    match NodeId::new(text) {
        Ok(_) if !text.starts_with(['.', '-']) => Ok(text.to_owned()),
        _ => Err("a cluster's name is 1 to 64 of A-Z a-z 0-9 . _ - and begins with a letter, a digit or _".into()),
    }
}

/// `HOST:PORT`, not looked up yet.
pub fn host_port(text: &str) -> Result<String, String> {
    let text = text.trim();
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0) => Ok(text.to_owned()),
        _ => Err("an address looks like 127.0.0.1:7101".into()),
    }
}

/// A host's name or address, without a port.
pub fn host(text: &str) -> Result<String, String> {
    let name = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    if !text.is_empty() && (name || text.parse::<std::net::Ipv6Addr>().is_ok()) {
        Ok(text.to_owned())
    } else {
        Err("a host looks like 10.0.0.7 or cache-1.example, without a port".into())
    }
}

/// One of `--peers`.
pub fn peer(text: &str) -> Result<(MasterId, String), String> {
    let (id, addr) = text.split_once('=').ok_or("a peer looks like m1=127.0.0.1:7101")?;
    Ok((MasterId::new(id.trim()).map_err(|e| e.to_string())?, host_port(addr)?))
}

/// How many masters may agree: an even one more only adds a voter to wait for.
pub fn masters_count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n @ (1 | 3 | 5)) => Ok(n),
        _ => Err("1, 3 or 5 masters".into()),
    }
}

/// How many nodes a local cluster may have.
pub fn nodes_count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n) if (1..=LOCAL_NODES_MAX).contains(&n) => Ok(n),
        _ => Err(format!("1 to {LOCAL_NODES_MAX} nodes")),
    }
}

/// Where a block of ports may begin.
pub fn base_port(text: &str) -> Result<u16, String> {
    use crate::cli::local::ports::{BASE_MAX, BASE_MIN};
    match text.parse() {
        Ok(p) if (BASE_MIN..=BASE_MAX).contains(&p) => Ok(p),
        _ => Err(format!(
            "a base port is {BASE_MIN} to {BASE_MAX}: peer ports are 10000 above it, and 200 ports belong to a cluster"
        )),
    }
}

/// A node's memory.
pub fn parse_memory(text: &str) -> Result<u64, String> {
    match parse_size(text)? {
        n if n >= MEMORY_MIN => Ok(n),
        _ => Err("a node needs at least 1mb".into()),
    }
}

/// An eviction policy.
pub fn eviction() -> impl TypedValueParser<Value = Eviction> {
    PossibleValuesParser::new(Eviction::ALL.map(Eviction::name)).try_map(|text| text.parse())
}

/// Columns and rows.
pub fn screen_size(text: &str) -> Result<(u16, u16), String> {
    let parse = |text: &str| {
        let (w, h) = text.split_once('x')?;
        Some((w.parse().ok().filter(|w| *w > 0)?, h.parse().ok().filter(|h| *h > 0)?))
    };
    parse(text).ok_or_else(|| "a size looks like 120x36".into())
}

/// Between two looks.
pub fn parse_interval(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        d if d >= Duration::from_millis(50) => Ok(d),
        _ => Err("an interval is at least 50ms".into()),
    }
}

/// How long a key lives.
pub fn parse_ttl(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        d if d >= Duration::from_millis(1) => Ok(d),
        _ => Err("a key lives for at least 1ms".into()),
    }
}

/// A node's data-path threads.
pub fn threads(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n) if (1..=THREADS_MAX).contains(&n) => Ok(n),
        _ => Err(format!("1 to {THREADS_MAX} threads")),
    }
}

/// A node's share relative to the others'.
pub fn weight(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(w) if w.is_finite() && w > 0.0 && w <= 100.0 => Ok(w),
        _ => Err("a weight is above 0 and at most 100".into()),
    }
}

/// A failure domain's name; empty = none.
pub fn zone(text: &str) -> Result<String, String> {
    if text.is_empty() || NodeId::new(text).is_ok() {
        Ok(text.to_owned())
    } else {
        Err("a zone is 1 to 64 of A-Z a-z 0-9 . _ -".into())
    }
}
