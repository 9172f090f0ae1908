//! What is recorded of a local cluster below `$XDG_STATE_HOME/cachectl/NAME/`.
//!
//! `members.json` says what the cluster consists of; it stays after `down`, so that the next `up` starts the same cluster.
//! `cluster.json` says which processes `up` started; it goes with them. `logs/` and `data/` belong to the processes.

use std::fs::{self, DirBuilder};
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::process::Identity;
use crate::cli::args::cluster_name;
use crate::cli::context::xdg;
use crate::cli::error::CliError;
use crate::node::config::Eviction;

/// The number in `schema` of both files.
const SCHEMA: u32 = 1;

/// Master or cache node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Votes on the configuration.
    Master,
    /// Holds data.
    Node,
}

impl Role {
    /// The word, which is also the subcommand.
    pub fn word(self) -> &'static str {
        match self {
            Role::Master => "master",
            Role::Node => "node",
        }
    }
}

/// One process that belongs to a cluster, running or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its name.
    pub id: String,
    /// What it is.
    pub role: Role,
    /// Where it listens: a master for everybody, a node for clients.
    pub addr: String,
    /// Where a node listens for its peers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_addr: Option<String>,
    /// Failure domain of a node; empty if none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub zone: String,
    /// It left by plan: `up` does not revive it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub removed: bool,
    /// `stop` ended it: `up` starts it again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stopped: bool,
}

/// What a cluster consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The cluster's name.
    pub name: String,
    /// First port of its block.
    pub base_port: u16,
    /// Backups per slot at its formation.
    pub backups: u8,
    /// Memory of each node, bytes.
    pub memory: u64,
    /// Who goes when a node's memory is full.
    #[serde(default)]
    pub eviction: Eviction,
    /// Masters first, then nodes, in order.
    pub members: Vec<Member>,
}

impl Members {
    /// Starts a record.
    pub fn new(name: &str, base_port: u16, backups: u8, memory: u64) -> Self {
        Self {
            schema: SCHEMA,
            name: name.into(),
            base_port,
            backups,
            memory,
            eviction: Eviction::default(),
            members: Vec::new(),
        }
    }

    /// Those of a role that were not removed.
    pub fn of(&self, role: Role) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(move |m| m.role == role && !m.removed)
    }

    /// Addresses of a role, in order.
    pub fn addrs(&self, role: Role) -> Vec<String> {
        self.of(role).map(|m| m.addr.clone()).collect()
    }

    /// All that were not removed.
    pub fn active(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|m| !m.removed)
    }
}

/// One process that `up` started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its member's name.
    pub id: String,
    /// What it is.
    pub role: Role,
    /// Which process, beyond doubt.
    #[serde(flatten)]
    pub identity: Identity,
    /// As its member's.
    pub addr: String,
    /// As its member's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_addr: Option<String>,
}

/// The processes that `up` started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The cluster's name.
    pub name: String,
    /// One entry a member that was started; the latest wins.
    pub processes: Vec<Process>,
}

impl Running {
    /// Nothing runs.
    pub fn none(name: &str) -> Self {
        Self { schema: SCHEMA, name: name.into(), processes: Vec::new() }
    }

    /// The process recorded for a member.
    pub fn process(&self, id: &str) -> Option<&Process> {
        self.processes.iter().find(|p| p.id == id)
    }

    /// Records a process in place of what was recorded for its member.
    pub fn put(&mut self, process: Process) {
        self.processes.retain(|p| p.id != process.id);
        self.processes.push(process);
    }

    /// Those that run now.
    pub fn alive(&self) -> impl Iterator<Item = &Process> {
        self.processes.iter().filter(|p| p.identity.alive())
    }
}

/// One cluster's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    /// The cluster's name.
    pub name: String,
    /// `$XDG_STATE_HOME/cachectl/NAME`.
    pub dir: PathBuf,
}

impl Home {
    /// `$XDG_STATE_HOME/cachectl`; none without a home directory.
    pub fn root() -> Option<PathBuf> {
        Some(xdg("XDG_STATE_HOME", ".local/state")?.join("cachectl"))
    }

    /// A cluster's, whether it exists or not.
    pub fn of(name: &str) -> Result<Self, CliError> {
        Ok(Self { name: name.into(), dir: Self::root().ok_or_else(no_home)?.join(name) })
    }

    /// Every cluster of which anything is recorded, by name.
    pub fn all() -> Vec<Home> {
        let Some(root) = Self::root() else {
            return Vec::new();
        };
        let mut all: Vec<Home> = fs::read_dir(&root)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|e| e.file_name().into_string().ok())
            .filter(|n| cluster_name(n).is_ok())
            .map(|n| Home { dir: root.join(&n), name: n })
            .filter(|h| h.members_path().exists() || h.running_path().exists())
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// What the cluster consists of; none if it was never started or was purged.
    pub fn members(&self) -> Result<Option<Members>, CliError> {
        self.read(&self.members_path())
    }

    /// Records what it consists of.
    pub fn put_members(&self, members: &Members) -> Result<(), CliError> {
        write(&self.members_path(), members, true)
    }

    /// Records that these are ended to come back; under the lock.
    pub fn stopping(&self, who: &[Member]) -> Result<(), CliError> {
        self.mark_stopped(true, |m| who.iter().any(|w| w.id == m.id))
    }

    /// Records that these were started again; under the lock.
    pub fn begun(&self, who: &[&Member]) -> Result<(), CliError> {
        self.mark_stopped(false, |m| who.iter().any(|w| w.id == m.id))
    }

    fn mark_stopped(&self, stopped: bool, which: impl Fn(&Member) -> bool) -> Result<(), CliError> {
        let Some(mut members) = self.members()? else { return Ok(()) };
        let mut changed = false;
        for m in members.members.iter_mut().filter(|m| m.role == Role::Node && m.stopped != stopped && which(m)) {
            m.stopped = stopped;
            changed = true;
        }
        if changed { self.put_members(&members) } else { Ok(()) }
    }

    /// The processes that `up` started.
    pub fn running(&self) -> Result<Running, CliError> {
        Ok(self.read(&self.running_path())?.unwrap_or_else(|| Running::none(&self.name)))
    }

    /// Records them. Not synced, since `up` writes it for each process: when the power goes, so do the processes.
    pub fn put_running(&self, running: &Running) -> Result<(), CliError> {
        write_json(&self.running_path(), running)
    }

    /// Forgets what it consists of.
    pub fn remove_members(&self) {
        let _ = fs::remove_file(self.members_path());
    }

    /// Nothing runs any more.
    pub fn remove_running(&self) {
        let _ = fs::remove_file(self.running_path());
    }

    /// Makes the directories that processes need, readable by their owner only.
    pub fn create(&self) -> Result<(), CliError> {
        for dir in [self.dir.clone(), self.logs(), self.dir.join("data")] {
            DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(|e| io_error("create", &dir, &e))?;
        }
        Ok(())
    }

    /// Whether anything but the lock of a command at work is in the directory.
    pub fn holds_more_than_a_lock(&self) -> bool {
        let lock = self.lock_path();
        fs::read_dir(&self.dir).is_ok_and(|mut all| all.any(|e| e.is_ok_and(|e| e.path() != lock)))
    }

    /// Which command is at work.
    pub fn lock_path(&self) -> PathBuf {
        self.dir.join("lock")
    }

    /// Logs of all processes.
    pub fn logs(&self) -> PathBuf {
        self.dir.join("logs")
    }

    /// A member's state directory.
    pub fn data(&self, id: &str) -> PathBuf {
        self.dir.join("data").join(id)
    }

    /// What a process wrote beside its log: the last words of one that could not log.
    pub fn stderr_path(&self, id: &str) -> PathBuf {
        self.logs().join(format!("{id}.stderr"))
    }

    fn members_path(&self) -> PathBuf {
        self.dir.join("members.json")
    }

    fn running_path(&self) -> PathBuf {
        self.dir.join("cluster.json")
    }

    fn read<T: DeserializeOwned>(&self, path: &Path) -> Result<Option<T>, CliError> {
        let text = match fs::read(path) {
            // What is left of a file whose writer lost its power.
            Ok(text) if text.is_empty() => return Ok(None),
            Ok(text) => text,
            Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(e) => return Err(io_error("read", path, &e)),
        };
        serde_json::from_slice(&text).map(Some).map_err(|e| {
            CliError::failed("STATE_DAMAGED", format!("{} is damaged: {e}", path.display())).hint(format!(
                "end the processes of cluster {} if any run, then remove {}",
                self.name,
                self.dir.display()
            ))
        })
    }
}

/// There is neither `XDG_STATE_HOME` nor `HOME`.
pub fn no_home() -> CliError {
    CliError::failed("NO_HOME", "no directory to keep state in: neither XDG_STATE_HOME nor HOME is an absolute path")
        .hint("set XDG_STATE_HOME to a directory you may write to")
}

/// A file or directory could not be used.
pub fn io_error(verb: &str, path: &Path, e: &std::io::Error) -> CliError {
    let hint = match e.kind() {
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
            "set XDG_STATE_HOME to a directory you may write to"
        }
        std::io::ErrorKind::StorageFull => "make room on that disk",
        std::io::ErrorKind::NotADirectory | std::io::ErrorKind::AlreadyExists => "something else is in the way there",
        _ => "check that directory",
    };
    CliError::failed("STATE", format!("cannot {verb} {}: {e}", path.display())).hint(hint)
}

/// Writes a whole document or nothing: into a file beside it, then renamed. Not synced: it may be lost with the power.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), CliError> {
    write(path, value, false)
}

fn write<T: Serialize>(path: &Path, value: &T, sync: bool) -> Result<(), CliError> {
    let mut text = serde_json::to_vec_pretty(value).map_err(|e| CliError::failed("BUG", e.to_string()))?;
    text.push(b'\n');
    let temporary = path.with_extension(format!("tmp{}", std::process::id()));
    let replace = || {
        if let Some(dir) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        let mut file = fs::File::create(&temporary)?;
        file.write_all(&text)?;
        if sync {
            file.sync_data()?;
        }
        fs::rename(&temporary, path)
    };
    replace().map_err(|e| {
        let _ = fs::remove_file(&temporary);
        io_error("write", path, &e)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home() -> (tempfile::TempDir, Home) {
        let dir = tempfile::tempdir().unwrap();
        let home = Home { name: "demo".into(), dir: dir.path().join("cachectl/demo") };
        (dir, home)
    }

    fn process(id: &str, pid: u32) -> Process {
        Process {
            id: id.into(),
            role: Role::Node,
            identity: Identity { pid, start_time: 7, boot_id: "b".into() },
            addr: "127.0.0.1:7201".into(),
            peer_addr: Some("127.0.0.1:17201".into()),
        }
    }

    #[test]
    fn records_survive_and_processes_lie_flat() {
        let (_dir, home) = home();
        assert_eq!(home.members().unwrap(), None);
        assert!(home.running().unwrap().processes.is_empty());
        let mut running = Running::none("demo");
        running.put(process("n1", 5));
        running.put(process("n1", 6));
        home.put_running(&running).unwrap();
        assert_eq!(home.running().unwrap(), running);
        let text = fs::read_to_string(home.running_path()).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["processes"][0]["pid"], 6);
        assert_eq!(value["processes"][0]["start_time"], 7);
        assert_eq!(value["processes"].as_array().unwrap().len(), 1);
        home.remove_running();
        assert!(home.running().unwrap().processes.is_empty());
    }

    #[test]
    fn a_damaged_file_says_which_and_leaves_no_temporary_behind() {
        let (_dir, home) = home();
        home.create().unwrap();
        home.put_members(&Members::new("demo", 7100, 1, 1 << 20)).unwrap();
        let names: Vec<_> = fs::read_dir(&home.dir).unwrap().flatten().map(|e| e.file_name()).collect();
        assert!(!names.iter().any(|n| n.to_string_lossy().contains("tmp")), "{names:?}");
        fs::write(home.members_path(), b"{").unwrap();
        let CliError::Failed(_, f) = home.members().unwrap_err() else { panic!() };
        assert_eq!(f.code, "STATE_DAMAGED");
        fs::write(home.members_path(), b"").unwrap();
        assert_eq!(home.members().unwrap(), None, "a lost file is no damaged one");
        assert!(f.message.contains("members.json"));
    }

    #[test]
    fn directories_are_private() {
        use std::os::unix::fs::PermissionsExt;
        let (_dir, home) = home();
        home.create().unwrap();
        for d in [home.dir.clone(), home.logs()] {
            assert_eq!(fs::metadata(&d).unwrap().permissions().mode() & 0o777, 0o700, "{}", d.display());
        }
    }
}
