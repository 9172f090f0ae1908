//! The only I/O of `proto`: control connections, a client that follows REFRESH_MASTER, the WATCH link, a cluster client.

pub mod cache;
pub mod client;
pub mod conn;
#[cfg(test)]
pub(crate) mod fake;
pub mod resp_conn;
pub mod watch;

/// The longest host:port: a DNS name, a colon and a port.
const ADDR_LEN_MAX: usize = 253 + 1 + 5;

/// Whether this looks like host:port; addresses come from the wire, are printed, and are connected to.
pub fn is_addr(addr: &str) -> bool {
    addr.len() <= ADDR_LEN_MAX
        && addr.bytes().all(|b| b.is_ascii_graphic())
        && addr.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

/// Text from the wire, fit for a terminal or a log: control characters escaped.
pub fn plain(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let escaped = c.is_control().then(|| c.escape_default());
            escaped.into_iter().flatten().chain((!c.is_control()).then_some(c))
        })
        .collect()
}
