//! A network of a test's own: every process on a host (network namespace) of its own, all on one switch, any direction
//! between any two of them cut and healed at will.
//!
//! A cut is a wrong hardware address: the sender's packets leave and nobody takes them, as behind a broken switch. That works
//! on open connections and on new ones, one way at a time, and needs nothing of the kernel but namespaces and a bridge.
//! A refused connection still comes from the host itself, so that refusals stay evidence.

use std::fs::File;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// How long a client's connect may take: a cut drops it silently.
const CONNECT_MAX: Duration = Duration::from_millis(1000);
/// What all namespaces of these tests begin with; the process id follows.
const PREFIX: &str = "cctf";

static NEXT: AtomicU32 = AtomicU32::new(0);

/// One host.
#[derive(Debug, Clone)]
pub struct Host {
    /// `m1`, `n2`, `c1`.
    pub name: String,
    /// Where it is reached. What it opens itself comes from another address, so that others can take this one for
    /// a proxy of theirs and still answer it.
    pub ip: IpAddr,
    from: IpAddr,
    ns: String,
    mac: String,
}

/// All hosts of one test; gone when it is dropped.
#[derive(Debug)]
pub struct Net {
    hosts: Vec<Host>,
    all: Vec<String>,
}

impl Net {
    /// A switch with these hosts on it.
    pub fn new(names: &[String]) -> Net {
        sweep();
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let tag = format!("{PREFIX}{}-{n}", std::process::id());
        let switch = format!("{tag}-switch");
        let hosts: Vec<Host> = names
            .iter()
            .enumerate()
            .map(|(i, name)| Host {
                name: name.clone(),
                ip: Ipv4Addr::new(10, 77, 1, i as u8 + 1).into(),
                from: Ipv4Addr::new(10, 77, 0, i as u8 + 1).into(),
                ns: format!("{tag}-{name}"),
                mac: format!("02:00:00:00:00:{:02x}", i + 1),
            })
            .collect();
        let net =
            Net { all: std::iter::once(switch.clone()).chain(hosts.iter().map(|h| h.ns.clone())).collect(), hosts };
        let mut script = String::new();
        for ns in &net.all {
            script += &format!("netns add {ns}\n");
        }
        for (i, h) in net.hosts.iter().enumerate() {
            script += &format!(
                "link add name eth0 netns {} address {} type veth peer name p{i} netns {switch}\n",
                h.ns, h.mac
            );
        }
        ip(None, &script);
        let ports: String =
            (0..net.hosts.len()).map(|i| format!("link set p{i} master sw\nlink set p{i} up\n")).collect();
        ip(Some(&switch), &format!("link add sw type bridge\nlink set sw up\n{ports}"));
        for h in &net.hosts {
            let known: String = net.hosts.iter().filter(|o| o.ip != h.ip).map(|o| neighbour(o, &o.mac)).collect();
            ip(
                Some(&h.ns),
                &format!(
                    "addr add {}/24 dev eth0\naddr add {}/32 dev eth0\nlink set lo up\nlink set eth0 up\n\
                 route add 10.77.1.0/24 dev eth0 src {}\n{known}",
                    h.from, h.ip, h.from
                ),
            );
        }
        net
    }

    /// A host by name.
    pub fn host(&self, name: &str) -> &Host {
        self.hosts.iter().find(|h| h.name == name).unwrap_or_else(|| panic!("no host {name}"))
    }

    /// All of them.
    pub fn names(&self) -> Vec<String> {
        self.hosts.iter().map(|h| h.name.clone()).collect()
    }

    /// Nothing that `from` sends reaches `to` any more.
    pub fn cut_one_way(&self, from: &str, to: &str) {
        let to = self.host(to);
        // An address that no host has.
        ip(Some(&self.host(from).ns), &neighbour(to, "02:00:00:00:de:ad"));
    }

    /// Nothing between any of these and any of those, in either direction.
    pub fn cut(&self, these: &[&str], those: &[&str]) {
        for a in these {
            for b in those {
                self.cut_one_way(a, b);
                self.cut_one_way(b, a);
            }
        }
    }

    /// These on one side, everybody else on the other.
    pub fn isolate(&self, these: &[&str]) {
        let names = self.names();
        let others: Vec<&str> = names.iter().map(String::as_str).filter(|n| !these.contains(n)).collect();
        self.cut(these, &others);
    }

    /// Every way open again.
    pub fn heal(&self) {
        for h in &self.hosts {
            let known: String = self.hosts.iter().filter(|o| o.ip != h.ip).map(|o| neighbour(o, &o.mac)).collect();
            ip(Some(&h.ns), &known);
        }
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for ns in &self.all {
            remove(ns);
        }
    }
}

impl Host {
    /// An address on this host.
    pub fn at(&self, port: u16) -> SocketAddr {
        (self.ip, port).into()
    }

    /// A command that runs on this host, and that does not outlive this thread.
    pub fn command(&self, program: &str) -> Command {
        let mut c = Command::new("setpriv");
        c.args(["--pdeathsig", "KILL", "nsenter", &format!("--net=/run/netns/{}", self.ns), program]);
        c.stdin(Stdio::null());
        c
    }

    /// Connects from here.
    pub fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let stream = self.inside(|| TcpStream::connect_timeout(&to, CONNECT_MAX))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Listens on an address that others have: what this host sends there comes here instead.
    pub fn impersonate(&self, whom: SocketAddr) -> io::Result<TcpListener> {
        ip(Some(&self.ns), &format!("addr replace {}/32 dev lo\n", whom.ip()));
        self.inside(|| TcpListener::bind(whom))
    }

    /// Ends that.
    pub fn impersonate_no_more(&self, whom: IpAddr) {
        ip(Some(&self.ns), &format!("addr del {whom}/32 dev lo\n"));
    }

    /// Runs `f` on a thread that was moved to this host; sockets that it opens stay here.
    fn inside<T: Send>(&self, f: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        let run = || {
            let ns = File::open(format!("/run/netns/{}", self.ns))?;
            move_into_link_name_space(ns.as_fd(), Some(LinkNameSpaceType::Network))?;
            f()
        };
        std::thread::scope(|s| s.spawn(run).join()).unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
    }
}

fn neighbour(host: &Host, mac: &str) -> String {
    let to = |ip: IpAddr| format!("neigh replace {ip} lladdr {mac} dev eth0 nud permanent\n");
    to(host.ip) + &to(host.from)
}

/// Runs lines of `ip`, all of which must succeed.
fn ip(ns: Option<&str>, lines: &str) {
    let mut c = Command::new("ip");
    if let Some(ns) = ns {
        c.args(["-n", ns]);
    }
    let child = c.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut child = child.expect("`ip` of iproute2 (apt-get install iproute2)");
    child.stdin.take().expect("piped").write_all(lines.as_bytes()).expect("ip reads");
    let out = child.wait_with_output().expect("ip ends");
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "network namespaces need root: {said}\n{lines}");
}

/// Removes a namespace and whatever still runs in it.
fn remove(ns: &str) {
    if let Ok(out) = Command::new("ip").args(["netns", "pids", ns]).output() {
        for pid in String::from_utf8_lossy(&out.stdout).lines().filter_map(|l| l.trim().parse().ok()) {
            super::common::signal(pid, rustix::process::Signal::KILL);
        }
    }
    drop(Command::new("ip").args(["netns", "del", ns]).stderr(Stdio::null()).status());
}

/// Removes what a run of these tests that was killed has left.
fn sweep() {
    let Ok(dir) = std::fs::read_dir("/run/netns") else { return };
    for ns in dir.flatten().filter_map(|e| e.file_name().into_string().ok()) {
        let owner = ns.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|pid| !std::path::Path::new("/proc").join(pid).exists()) {
            remove(&ns);
        }
    }
}
