//! Members of a local cluster: the names and ports they get, and whether their ports are theirs.

use super::ports;
use super::state::{Member, Role, Running};
use crate::cli::error::CliError;

/// A recorded cluster keeps its ports, so another block is no way out.
const IN_THE_WAY: &str =
    "end that process; or `cachectl down --purge` forgets this cluster, and the next `up` takes a free block";

/// The i-th master of a cluster, counted from 1.
pub fn master(base: u16, i: usize) -> Member {
    Member {
        id: format!("m{i}"),
        role: Role::Master,
        addr: format!("127.0.0.1:{}", ports::master(base, i)),
        peer_addr: None,
        zone: String::new(),
        removed: false,
        stopped: false,
    }
}

/// A node on the i-th pair of ports, counted from 1.
pub fn node(id: &str, base: u16, i: usize, zone: &str) -> Member {
    let port = ports::node(base, i);
    Member {
        id: id.into(),
        role: Role::Node,
        addr: format!("127.0.0.1:{port}"),
        peer_addr: Some(format!("127.0.0.1:{}", port + ports::PEER_OFFSET)),
        zone: zone.into(),
        removed: false,
        stopped: false,
    }
}

/// Somebody else sits on a port.
pub fn port_taken(port: u16) -> CliError {
    CliError::failed("PORT_TAKEN", format!("port {port} is taken by {}", ports::blame(port)))
        .hint("end that process, or choose another block with --base-port (without it the next free one is taken)")
}

fn member_ports(m: &Member) -> impl Iterator<Item = u16> {
    [Some(&m.addr), m.peer_addr.as_ref()]
        .into_iter()
        .flatten()
        .filter_map(|a| a.rsplit_once(':')?.1.parse().ok())
        .collect::<Vec<u16>>()
        .into_iter()
}

/// Whether nobody sits on its ports.
pub fn free(m: &Member) -> bool {
    member_ports(m).all(ports::is_free)
}

/// A recorded member's ports are its own; somebody else may sit on them all the same.
pub fn check_ports(m: &Member, running: &Running) -> Result<(), CliError> {
    for port in member_ports(m) {
        if !ports::is_free(port) {
            // One of ours that ended a moment ago may still be in the kernel's hands.
            let ours =
                ports::listener_pid(port).is_some_and(|pid| running.processes.iter().any(|p| p.identity.pid == pid));
            if !ours {
                return Err(port_taken(port).hint(IN_THE_WAY));
            }
        }
    }
    Ok(())
}
