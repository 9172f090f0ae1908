//! The cluster file's hosts: which master and which node run where, how each is started, and what is unwise about it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use super::args;
use super::cluster_file::ClusterFile;
use super::local::ports::PEER_OFFSET;

/// Where a master listens unless its host says otherwise.
const MASTER_PORT: u16 = 7101;
/// Where a node listens for clients unless its host says otherwise; for peers [`PEER_OFFSET`] above.
const NODE_PORT: u16 = 7201;
/// The most hosts a file may name: as many as the planner's figures are tested for.
const HOSTS_MAX: usize = 1000;

/// One `[[hosts]]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Name or address that all others reach it by.
    pub addr: String,
    /// The name of the master that runs there, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master: Option<String>,
    /// The name of the cache node that runs there, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Failure domain: a backup is kept in another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Its node's memory, if not the file's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    /// Its node's share of the slots, relative to the others'.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
    /// Its node's data-path threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
    /// Its master's port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master_port: Option<u16>,
    /// Its node's port for clients; peers' is 10000 above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_port: Option<u16>,
}

/// One process that the file asks for.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Process {
    /// Its name.
    pub id: String,
    /// `master` or `node`.
    pub role: &'static str,
    /// The host it runs on.
    pub host: String,
    /// Where it is reached.
    pub addr: String,
    /// Its failure domain.
    pub zone: String,
    /// What starts it there.
    pub command: Vec<String>,
    /// The same as variables, for a unit's or a container's environment file.
    pub env: BTreeMap<String, String>,
}

impl Host {
    fn check(&self) -> Result<(), String> {
        args::host(&self.addr).map_err(|e| format!("addr: {e}"))?;
        let name = |key: &str, id: &Option<String>| match id {
            Some(id) => crate::proto::id::NodeId::new(id).map(drop).map_err(|e| format!("{key}: {e}")),
            None => Ok(()),
        };
        name("master", &self.master)?;
        name("node", &self.node)?;
        if self.master.is_none() && self.node.is_none() {
            return Err("it runs nothing: say `master = \"m1\"`, `node = \"n1\"` or both".into());
        }
        let of_node = [
            ("memory", self.memory.is_some()),
            ("weight", self.weight.is_some()),
            ("threads", self.threads.is_some()),
            ("node_port", self.node_port.is_some()),
        ];
        if let Some((key, _)) = of_node.iter().find(|(_, said)| *said && self.node.is_none()) {
            return Err(format!("{key}: no node runs there"));
        }
        if self.master_port.is_some() && self.master.is_none() {
            return Err("master_port: no master runs there".into());
        }
        if [self.master_port, self.node_port].contains(&Some(0)) {
            return Err("a port is 1 to 65535".into());
        }
        if self.node_port.is_some_and(|p| p.checked_add(PEER_OFFSET).is_none()) {
            return Err(format!("node_port: it leaves no room for the peer port {PEER_OFFSET} above it"));
        }
        let said = |key: &str, checked: Result<(), String>| checked.map_err(|e| format!("{key}: {e}"));
        said("memory", self.memory.as_deref().map_or(Ok(()), |m| args::parse_memory(m).map(drop)))?;
        said("weight", self.weight.map_or(Ok(()), |w| args::weight(&w.to_string()).map(drop)))?;
        said("threads", self.threads.map_or(Ok(()), |n| args::threads(&n.to_string()).map(drop)))?;
        said("zone", self.zone.as_deref().map_or(Ok(()), |z| args::zone(z).map(drop)))
    }

    /// Where its own processes listen: at its address, or everywhere if that is a name, which may mean loopback at home.
    fn listens(&self) -> IpAddr {
        self.addr.parse().unwrap_or(Ipv4Addr::UNSPECIFIED.into())
    }

    fn at(&self, port: u16) -> String {
        match self.addr.parse::<IpAddr>() {
            Ok(ip) => std::net::SocketAddr::from((ip, port)).to_string(),
            Err(_) => format!("{}:{port}", self.addr),
        }
    }

    fn listen_at(&self, port: u16) -> String {
        std::net::SocketAddr::from((self.listens(), port)).to_string()
    }

    fn zone(&self) -> &str {
        self.zone.as_deref().unwrap_or_default()
    }
}

/// Checks the hosts of a file by themselves and together.
pub fn check(file: &ClusterFile) -> Result<(), String> {
    if file.hosts.len() > HOSTS_MAX {
        return Err(format!("hosts: {} of them, at most {HOSTS_MAX}", file.hosts.len()));
    }
    let local = [
        ("masters", file.masters.is_some()),
        ("nodes", file.nodes.is_some()),
        ("base_port", file.base_port.is_some()),
        ("zones", !file.zones.is_empty()),
    ];
    if let Some((key, _)) = local.iter().find(|(_, said)| *said) {
        return Err(format!(
            "{key}: it describes a cluster on one machine, and [[hosts]] one on many: keep one of them"
        ));
    }
    for (i, h) in file.hosts.iter().enumerate() {
        h.check().map_err(|e| format!("hosts[{i}] ({}): {e}", super::output::escape(&h.addr)))?;
    }
    let masters: Vec<&Host> = file.hosts.iter().filter(|h| h.master.is_some()).collect();
    if !matches!(masters.len(), 1 | 3 | 5) {
        return Err(format!("{} hosts have a master: a group is 1, 3 or 5", masters.len()));
    }
    if file.hosts.iter().all(|h| h.node.is_none()) {
        return Err("no host has a node: nothing would hold data".into());
    }
    let (mut names, mut addrs) = (BTreeSet::new(), BTreeSet::new());
    for p in processes(file) {
        if !addrs.insert(p.addr.clone()) {
            return Err(format!("{} is at {}, where another one is", p.id, p.addr));
        }
        if !names.insert(p.id.clone()) {
            return Err(format!("{} is named twice", p.id));
        }
    }
    Ok(())
}

/// What runs where: masters first, each as the file orders them.
pub fn processes(file: &ClusterFile) -> Vec<Process> {
    let masters: Vec<(&Host, &String, u16)> =
        file.hosts.iter().filter_map(|h| Some((h, h.master.as_ref()?, h.master_port.unwrap_or(MASTER_PORT)))).collect();
    let nodes = file.hosts.iter().filter_map(|h| Some((h, h.node.as_ref()?, h.node_port.unwrap_or(NODE_PORT))));
    let expect = nodes.clone().count().to_string();
    let peers: Vec<String> = masters.iter().map(|(h, id, port)| format!("{id}={}", h.at(*port))).collect();
    let reach: Vec<String> = masters.iter().map(|(h, _, port)| h.at(*port)).collect();
    let made = |h: &Host, role: &'static str, id: &str, port: u16, more: Vec<(&str, Option<String>)>| {
        let mut said = vec![("id", Some(id.to_owned())), ("listen", Some(h.listen_at(port)))];
        said.extend(more);
        let mut command = vec!["cachectl".to_owned(), role.to_owned()];
        let mut env = BTreeMap::new();
        for (flag, value) in said.into_iter().filter_map(|(flag, value)| Some((flag, value?))) {
            command.extend([format!("--{flag}"), value.clone()]);
            env.insert(variable(flag), value);
        }
        if !h.listens().is_loopback() {
            command.push("--insecure-bind".into());
            env.insert(variable("insecure-bind"), "1".into());
        }
        let (id, host, addr, zone) = (id.to_owned(), h.addr.clone(), h.at(port), h.zone().to_owned());
        Process { id, role, host, addr, zone, command, env }
    };
    let mut all: Vec<Process> = masters
        .iter()
        .map(|(h, id, port)| {
            let more = vec![
                ("peers", Some(peers.join(","))),
                ("cluster", file.name.clone()),
                ("expect-nodes", Some(expect.clone())),
                ("backups", file.backups.map(|b| b.to_string())),
            ];
            made(h, "master", id, *port, more)
        })
        .collect();
    all.extend(nodes.map(|(h, id, port)| {
        let named = h.addr.parse::<IpAddr>().is_err();
        let more = vec![
            ("masters-addr", Some(reach.join(","))),
            ("announce-addr", named.then(|| h.addr.clone())),
            ("memory", h.memory.clone().or_else(|| file.memory.clone())),
            ("eviction", file.eviction.map(|e| e.to_string())),
            ("zone", h.zone.clone().filter(|z| !z.is_empty())),
            ("weight", h.weight.map(|w| w.to_string())),
            ("threads", h.threads.map(|n| n.to_string())),
        ];
        made(h, "node", id, port, more)
    }));
    all
}

fn variable(flag: &str) -> String {
    format!("CACHECTL_{}", flag.to_uppercase().replace('-', "_"))
}

/// What works and will be regretted.
pub fn warnings(file: &ClusterFile) -> Vec<String> {
    let mut all = Vec::new();
    let masters: Vec<&Host> = file.hosts.iter().filter(|h| h.master.is_some()).collect();
    let nodes: Vec<&Host> = file.hosts.iter().filter(|h| h.node.is_some()).collect();
    let zones: BTreeSet<&str> = file.hosts.iter().map(Host::zone).filter(|z| !z.is_empty()).collect();
    if masters.len() == 1 {
        all.push("there is one master: while it is away nothing can change and no death is noticed".into());
    }
    for zone in &zones {
        let there = masters.iter().filter(|h| h.zone() == *zone).count();
        if masters.len() > 1 && zones.len() > 1 && there * 2 > masters.len() {
            all.push(format!("zone {zone} has {there} of {} masters: without it nobody leads", masters.len()));
        }
    }
    let unlabelled: Vec<&str> =
        nodes.iter().filter(|h| h.zone().is_empty()).filter_map(|h| h.node.as_deref()).collect();
    if !zones.is_empty() && !unlabelled.is_empty() {
        all.push(format!(
            "no zone is given for {}: a backup there may be lost with its primary",
            unlabelled.join(", ")
        ));
    }
    let in_zones: BTreeSet<&str> = nodes.iter().map(|h| h.zone()).filter(|z| !z.is_empty()).collect();
    let weight = |h: &&&Host| h.weight.unwrap_or(1.0);
    let total: f64 = nodes.iter().map(|h| weight(&h)).sum();
    for zone in in_zones.iter().filter(|_| in_zones.len() > 1) {
        let here: f64 = nodes.iter().filter(|h| h.zone() == *zone).map(|h| weight(&h)).sum();
        if here > total / 2.0 + 1e-9 {
            all.push(format!(
                "zone {zone} leads {:.0} % of the slots, and only the others back them: what these have of memory bounds it",
                here * 100.0 / total
            ));
        }
    }
    if nodes.len() == 1 {
        all.push("there is one node: nothing has a backup".into());
    }
    all
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser;

    use super::*;
    use crate::cli::args::{Cli, Command};
    use crate::cli::error::CliError;

    fn parse(text: &str) -> Result<ClusterFile, String> {
        ClusterFile::parse(text, Path::new("c.toml")).map_err(|e| match e {
            CliError::Failed(_, f) => f.message,
            CliError::Closed => panic!("closed"),
        })
    }

    const THREE: &str = "name = 'prod'\nmemory = '8gb'\nbackups = 1\n\
        [[hosts]]\naddr = '10.0.0.1'\nmaster = 'm1'\nnode = 'n1'\nzone = 'a'\n\
        [[hosts]]\naddr = '2001:db8::2'\nmaster = 'm2'\nnode = 'n2'\nzone = 'b'\nmemory = '16gb'\nweight = 2.0\n\
        [[hosts]]\naddr = 'cache-3.example'\nmaster = 'm3'\nnode = 'n3'\nzone = 'c'\nthreads = 2\nnode_port = 7300\n";

    #[test]
    fn hosts_come_to_commands_that_can_be_typed() {
        let file = parse(THREE).unwrap();
        let all = processes(&file);
        assert_eq!(all.iter().map(|p| p.id.as_str()).collect::<Vec<_>>(), ["m1", "m2", "m3", "n1", "n2", "n3"]);
        for p in &all {
            let cli = Cli::try_parse_from(&p.command).unwrap_or_else(|e| panic!("{:?}: {e}", p.command));
            match cli.command {
                Some(Command::Master(m)) => {
                    assert_eq!(
                        m.peers.iter().map(|(_, a)| a.as_str()).collect::<Vec<_>>(),
                        ["10.0.0.1:7101", "[2001:db8::2]:7101", "cache-3.example:7101"]
                    );
                    assert_eq!((m.expect_nodes, m.cluster.as_deref()), (3, Some("prod")));
                }
                Some(Command::Node(n)) => {
                    assert_eq!(cli.globals.masters_addr.len(), 3);
                    assert!(n.server.insecure_bind);
                }
                other => panic!("{other:?}"),
            }
        }
        let said = |i: usize, v: &str| all[i].env.get(v).map(String::as_str);
        assert_eq!(said(4, "CACHECTL_MEMORY"), Some("16gb"));
        assert_eq!(said(3, "CACHECTL_MEMORY"), Some("8gb"));
        assert_eq!(said(4, "CACHECTL_LISTEN"), Some("[2001:db8::2]:7201"));
        // A name may mean loopback on its own host: everywhere is listened, the name is announced.
        assert_eq!(said(5, "CACHECTL_LISTEN"), Some("0.0.0.0:7300"));
        assert_eq!(
            (said(5, "CACHECTL_ANNOUNCE_ADDR"), all[5].addr.as_str()),
            (Some("cache-3.example"), "cache-3.example:7300")
        );
        assert_eq!(warnings(&file), Vec::<String>::new(), "half of the weight in one zone is what others can back");
    }

    #[test]
    fn what_can_not_be_is_refused() {
        let host = |more: &str| format!("[[hosts]]\naddr = '10.0.0.1'\nmaster = 'm1'\nnode = 'n1'\n{more}");
        assert!(parse(&host("")).is_ok());
        for (text, part) in [
            (host("memory = 'x'\n"), "memory"),
            (host("zone = 'a b'\n"), "zone"),
            (host("weight = 0.0\n"), "weight"),
            (host("node_port = 60000\n"), "node_port"),
            (host("ports = 1\n"), "ports"),
            (host("[[hosts]]\naddr = '10.0.0.2'\n"), "runs nothing"),
            (host("[[hosts]]\naddr = '10.0.0.2'\nmaster = 'm2'\n"), "1, 3 or 5"),
            (host("[[hosts]]\naddr = '10.0.0.2'\nnode = 'n1'\n"), "twice"),
            (host("[[hosts]]\naddr = '10.0.0.1'\nnode = 'n2'\n"), "another one"),
            (host("[[hosts]]\naddr = '10.0.0.2:7201'\nnode = 'n2'\n"), "without a port"),
            (format!("nodes = 3\n{}", host("")), "one machine"),
            ("[[hosts]]\naddr = '10.0.0.1'\nmaster = 'm1'\n".into(), "no host has a node"),
            ("[[hosts]]\naddr = '10.0.0.1'\nmaster = 'm1'\nmemory = '1gb'\n".into(), "no node runs there"),
        ] {
            let e = parse(&text).unwrap_err();
            assert!(e.contains(part), "{text}: {e}");
        }
    }

    #[test]
    fn what_will_be_regretted_is_said() {
        let uneven = THREE.replace("zone = 'b'", "zone = 'a'").replace("zone = 'c'", "");
        let said = warnings(&parse(&uneven).unwrap()).join("\n");
        assert!(said.contains("no zone is given for n3"), "{said}");
        let two = THREE.replace("zone = 'b'", "zone = 'a'");
        let said = warnings(&parse(&two).unwrap()).join("\n");
        assert!(said.contains("zone a has 2 of 3 masters") && said.contains("zone a leads 75 %"), "{said}");
        let one = "[[hosts]]\naddr = '::1'\nmaster = 'm1'\nnode = 'n1'\n";
        let said = warnings(&parse(one).unwrap()).join("\n");
        assert!(said.contains("one master") && said.contains("one node"), "{said}");
        assert!(!processes(&parse(one).unwrap())[0].command.contains(&"--insecure-bind".to_owned()));
    }
}
