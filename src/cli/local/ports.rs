//! Ports of local clusters: a block of 200 each, which ones a cluster needs, and who sits on a taken one.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use super::process;

/// Ports that belong to one cluster, from its base on.
pub const BLOCK: u16 = 200;
/// The first cluster's base.
pub const BASE_FIRST: u16 = 7100;
/// Below it ports need privileges.
pub const BASE_MIN: u16 = 1024;
/// Above it peer ports would not fit.
pub const BASE_MAX: u16 = u16::MAX - PEER_OFFSET - BLOCK + 1;
/// From a node's client port to its peer port.
pub const PEER_OFFSET: u16 = 10_000;
/// From the base to the nodes' ports; masters begin right after the base.
const NODES_OFFSET: u16 = 100;

/// The port of the i-th master, counted from 1.
pub fn master(base: u16, i: usize) -> u16 {
    base + i as u16
}

/// The client port of the i-th node, counted from 1.
pub fn node(base: u16, i: usize) -> u16 {
    base + NODES_OFFSET + i as u16
}

/// The bases to try, in order.
pub fn bases() -> impl Iterator<Item = u16> {
    (BASE_FIRST..=BASE_MAX).step_by(BLOCK as usize)
}

/// Whether two clusters' blocks share a port, peer ports included.
pub fn overlap(a: u16, b: u16) -> bool {
    let touch = |x: u32, y: u32| x < y + u32::from(BLOCK) && y < x + u32::from(BLOCK);
    let (a, b, offset) = (u32::from(a), u32::from(b), u32::from(PEER_OFFSET));
    touch(a, b) || touch(a + offset, b) || touch(a, b + offset)
}

/// Whether a listener could be bound there now. Bound and never listening, so that two who ask at once don't meet.
pub fn is_free(port: u16) -> bool {
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))
        .and_then(|s| {
            // As servers do: a port whose old connections only linger is free.
            s.set_reuse_address(true)?;
            s.bind(&addr.into())
        })
        .is_ok()
}

/// Held while a cluster is being started in a block that was free: the block's own base port, which no process of the
/// cluster uses, keeps another `up` (also another user's) from choosing the same block before the processes listen.
#[derive(Debug)]
pub struct Claim(#[allow(dead_code)] TcpListener);

impl Claim {
    /// Claims a block, unless somebody else does.
    pub fn take(base: u16) -> Option<Self> {
        TcpListener::bind((Ipv4Addr::LOCALHOST, base)).ok().map(Self)
    }
}

/// Who listens on a loopback port, in words: `redis-server (pid 123)`.
pub fn blame(port: u16) -> String {
    let listeners = listeners();
    let Some(inode) = listeners.get(&port) else {
        return "a connection of another process".into();
    };
    match owner(inode) {
        Some(pid) => match process::comm(pid) {
            Some(name) => format!("{} (pid {pid})", crate::cli::output::escape(&name)),
            None => format!("pid {pid}"),
        },
        None => "a process of another user".into(),
    }
}

/// The pid that listens on a loopback port, where it can be seen.
pub fn listener_pid(port: u16) -> Option<u32> {
    owner(listeners().get(&port)?)
}

/// Listening ports and the inodes of their sockets.
fn listeners() -> HashMap<u16, String> {
    let mut all = HashMap::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        all.extend(std::fs::read_to_string(table).unwrap_or_default().lines().skip(1).filter_map(parse_listener));
    }
    all
}

/// `sl local remote st … uid timeout inode`; state 0A is LISTEN.
fn parse_listener(line: &str) -> Option<(u16, String)> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    if *fields.get(3)? != "0A" {
        return None;
    }
    let (_, port) = fields.get(1)?.rsplit_once(':')?;
    Some((u16::from_str_radix(port, 16).ok()?, (*fields.get(9)?).to_owned()))
}

/// The process that holds a socket, if it may be looked at.
fn owner(inode: &str) -> Option<u32> {
    let wanted = format!("socket:[{inode}]");
    let pids = std::fs::read_dir("/proc").ok()?.flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    for pid in pids {
        let Ok(fds) = std::fs::read_dir(format!("/proc/{pid}/fd")) else {
            continue;
        };
        if fds.flatten().any(|fd| std::fs::read_link(fd.path()).is_ok_and(|t| t.as_os_str() == wanted.as_str())) {
            return Some(pid);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_do_not_touch() {
        let all: Vec<u16> = bases().collect();
        assert_eq!(&all[..3], [7100, 7300, 7500]);
        for (i, a) in all.iter().enumerate() {
            assert!(overlap(*a, *a));
            assert!(overlap(*a, a + 1));
            for b in &all[i + 1..] {
                // Blocks may meet only where one's peer ports are another's client ports.
                assert_eq!(overlap(*a, *b), b - a == PEER_OFFSET, "{a} {b}");
            }
        }
        assert_eq!(u32::from(BASE_MAX) + u32::from(PEER_OFFSET) + u32::from(BLOCK) - 1, 65535);
        assert_eq!((master(7100, 1), node(7100, 1), node(7100, 99)), (7101, 7201, 7299));
    }

    #[test]
    fn a_taken_port_is_seen_and_blamed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(!is_free(port));
        assert_eq!(listener_pid(port), Some(std::process::id()));
        assert!(blame(port).contains(&format!("(pid {})", std::process::id())), "{}", blame(port));
    }

    #[test]
    fn a_block_is_claimed_once() {
        // Some base that is free now; a port may be taken by others at any time, so look until one is had.
        let (base, claim) = bases().find_map(|b| Some((b, Claim::take(b)?))).unwrap();
        assert!(Claim::take(base).is_none());
        drop(claim);
    }

    #[test]
    fn only_listeners_count() {
        let line =
            "   0: 0100007F:1BBD 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1 0";
        assert_eq!(parse_listener(line), Some((7101, "4242".into())));
        assert_eq!(parse_listener(&line.replace(" 0A ", " 01 ")), None);
        assert_eq!(parse_listener("garbage"), None);
    }
}
