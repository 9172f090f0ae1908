//! The cluster file: what the flags of `up` say, in TOML, with the flags' own limits.

use std::path::Path;

use serde::Deserialize;

use super::args;
use super::context;
use super::error::CliError;

/// The cluster file: what the flags say, in TOML.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
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
    /// First port of its block.
    pub base_port: Option<u16>,
    /// Failure domains, dealt out to the nodes in turn.
    pub zones: Vec<String>,
}

/// What may stand in it.
pub const KEYS: [&str; 7] = ["name", "masters", "nodes", "backups", "memory", "base_port", "zones"];

impl ClusterFile {
    /// Reads and checks one.
    pub fn read(path: &Path) -> Result<Self, CliError> {
        let text = std::fs::read_to_string(path).map_err(|e| {
            CliError::usage(format!("cannot read {}: {e}", path.display())).hint("--config takes a cluster file (TOML)")
        })?;
        let file: ClusterFile = context::parse_toml(&text, path, &KEYS)?;
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
        Ok(file)
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
        let f = read("name = 'x'\nmasters = 1\nnodes = 2\nmemory = '64mb'\nzones = ['a', 'b']\n").unwrap();
        assert_eq!((f.masters, f.nodes, f.memory.as_deref()), (Some(1), Some(2), Some("64mb")));
        for bad in [
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
        let CliError::Failed(_, f) = read("node = 3").unwrap_err() else { panic!() };
        assert_eq!(f.hint.as_deref(), Some("did you mean `nodes`?"));
    }
}
