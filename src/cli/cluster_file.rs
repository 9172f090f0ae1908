//! The cluster file, in TOML with the flags' own limits: a cluster on this machine as the flags of `up` say it, or one on many
//! hosts.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::args;
use super::context;
use super::error::CliError;
use super::hosts::{self, Host};
use crate::node::config::Eviction;

/// `--masters` unless said otherwise: the smallest group that outlives one.
pub const MASTERS: usize = 3;
/// `--nodes` unless said otherwise.
pub const NODES: usize = 3;
/// `--backups` unless said otherwise.
pub const BACKUPS: u8 = 1;

/// The cluster file: what the flags say, in TOML.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClusterFile {
    /// The cluster's name.
    pub name: Option<String>,
    /// How many masters.
    pub masters: Option<usize>,
    /// How many cache nodes.
    pub nodes: Option<usize>,
    /// Backups of each slot.
    pub backups: Option<u8>,
    /// Memory of each node, as `--memory` takes it.
    pub memory: Option<String>,
    /// Who goes when a node's memory is full, as `--eviction` takes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eviction: Option<Eviction>,
    /// First port of its block.
    pub base_port: Option<u16>,
    /// Failure domains, dealt out to the nodes in turn.
    pub zones: Vec<String>,
    /// The hosts of a cluster that is not on this machine alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<Host>,
}

/// What may stand in it.
pub const KEYS: [&str; 9] =
    ["name", "masters", "nodes", "backups", "memory", "eviction", "base_port", "zones", "hosts"];

impl ClusterFile {
    /// Reads and checks one.
    pub fn read(path: &Path) -> Result<Self, CliError> {
        let text = std::fs::read_to_string(path).map_err(|e| {
            CliError::usage(format!("cannot read {}: {e}", path.display())).hint("--config takes a cluster file (TOML)")
        })?;
        Self::parse(&text, path)
    }

    /// Checks what was read.
    pub fn parse(text: &str, path: &Path) -> Result<Self, CliError> {
        let file: ClusterFile = context::parse_toml(text, path, &KEYS)?;
        // The same limits as the flags have.
        let checks = [
            ("name", file.name.as_deref().map(|n| args::cluster_name(n).map(drop))),
            ("masters", file.masters.map(|n| args::masters_count(&n.to_string()).map(drop))),
            ("nodes", file.nodes.map(|n| args::nodes_count(&n.to_string()).map(drop))),
            ("backups", file.backups.map(|n| if n <= 1 { Ok(()) } else { Err("0 or 1".into()) })),
            ("memory", file.memory.as_deref().map(|m| args::parse_memory(m).map(drop))),
            ("base_port", file.base_port.map(|p| args::base_port(&p.to_string()).map(drop))),
            ("zones", Some(file.zones.iter().try_for_each(|z| args::zone(z).map(drop)))),
        ];
        for (key, check) in checks {
            if let Some(Err(e)) = check {
                return Err(CliError::usage(format!("{}: {key}: {e}", path.display())));
            }
        }
        if !file.hosts.is_empty() {
            hosts::check(&file).map_err(|e| CliError::usage(format!("{}: {e}", path.display())))?;
        }
        Ok(file)
    }

    /// What `up` makes of it.
    pub fn words(&self) -> String {
        let or = |n: Option<usize>, default: usize| n.unwrap_or(default);
        let name = self.name.as_deref().unwrap_or(context::DEFAULT_NAME);
        if !self.hosts.is_empty() {
            let count = |is: fn(&Host) -> bool| self.hosts.iter().filter(|h| is(h)).count();
            let (masters, nodes) = (count(|h| h.master.is_some()), count(|h| h.node.is_some()));
            return format!("cluster {name}: {} hosts, {masters} masters, {nodes} nodes", self.hosts.len());
        }
        let mut text =
            format!("cluster {name}: {} masters, {} nodes", or(self.masters, MASTERS), or(self.nodes, NODES));
        let backups = if or(self.nodes, NODES) == 1 { 0 } else { self.backups.unwrap_or(BACKUPS) };
        text.push_str(if backups == 0 { ", no backups" } else { ", 1 backup of each slot" });
        if let Some(memory) = &self.memory {
            text.push_str(&format!(", {memory} a node"));
        }
        if let Some(eviction) = self.eviction {
            text.push_str(&format!(", evicting by {eviction}"));
        }
        if let Some(port) = self.base_port {
            text.push_str(&format!(", ports from {port}"));
        }
        if !self.zones.is_empty() {
            text.push_str(&format!(", zones {}", self.zones.join(", ")));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::error::Exit;

    #[test]
    fn a_cluster_file_has_the_limits_of_the_flags() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            ClusterFile::read(&path)
        };
        let f = read("name = 'x'\nmasters = 1\nnodes = 2\nmemory = '64mb'\neviction = 'sieve'\nzones = ['a', 'b']\n")
            .unwrap();
        assert_eq!((f.masters, f.nodes, f.memory.as_deref()), (Some(1), Some(2), Some("64mb")));
        assert_eq!(f.eviction, Some(Eviction::Sieve));
        for bad in [
            "eviction = 'LRU'",
            "masters = 2",
            "nodes = 0",
            "backups = 2",
            "memory = 'x'",
            "base_port = 1",
            "name = '../x'",
            "zones=['a b']",
        ] {
            let CliError::Failed(exit, f) = read(bad).unwrap_err() else { panic!() };
            assert_eq!(exit, Exit::Usage, "{bad}");
            assert!(f.message.contains("c.toml"), "{f:?}");
        }
        assert_eq!(
            f.words(),
            "cluster x: 1 masters, 2 nodes, 1 backup of each slot, 64mb a node, evicting by sieve, zones a, b"
        );
        let CliError::Failed(_, f) = read("node = 3").unwrap_err() else { panic!() };
        assert_eq!(f.hint.as_deref(), Some("did you mean `nodes`?"));
    }
}
