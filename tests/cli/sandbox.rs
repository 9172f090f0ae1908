//! A directory of its own for state and configuration, and what is asked of every run of the binary.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value as Json;

use crate::common::{CACHECTL, free_block, text};

/// Runs `cachectl` with nothing of the person's own state; whatever it started is ended with it.
pub struct Sandbox {
    pub dir: tempfile::TempDir,
    pub base: u16,
}

/// How a run ended.
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// The exit code must be this one.
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.out, self.err);
        self
    }

    /// stdout is one JSON document.
    pub fn json(&self) -> Json {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: stdout: {}\nstderr: {}", self.out, self.err))
    }

    /// stderr is an error document: its code, message and hint.
    pub fn error(&self) -> (String, String, String) {
        let doc: Json = serde_json::from_str(self.err.lines().last().unwrap_or_default())
            .unwrap_or_else(|e| panic!("{e}: {}", self.err));
        let field = |name: &str| {
            let text = doc["error"][name].as_str().unwrap_or_else(|| panic!("no {name} in {doc}"));
            assert!(!text.is_empty(), "{doc}");
            text.to_owned()
        };
        (field("code"), field("message"), field("hint"))
    }
}

impl From<Output> for Ran {
    fn from(o: Output) -> Self {
        Ran { code: o.status.code().unwrap_or(-1), out: text(&o.stdout), err: text(&o.stderr) }
    }
}

impl Sandbox {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), base: free_block() }
    }

    /// A command, not yet run.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut c = Command::new(CACHECTL);
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("CACHECTL_") || name == "NO_COLOR" {
                c.env_remove(name);
            }
        }
        c.args(args)
            .env("XDG_STATE_HOME", self.state())
            .env("XDG_CONFIG_HOME", self.dir.path().join("config"))
            .stdin(Stdio::null());
        c
    }

    pub fn run(&self, args: &[&str]) -> Ran {
        self.command(args).output().unwrap().into()
    }

    /// `up` on this sandbox's ports.
    pub fn up(&self, args: &[&str]) -> Ran {
        let base = self.base.to_string();
        let mut all = vec!["up", "--base-port", &base, "--wait", "120s"];
        all.extend_from_slice(args);
        self.run(&all)
    }

    /// `$XDG_STATE_HOME`
    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// A cluster's directory.
    pub fn home(&self, name: &str) -> PathBuf {
        self.state().join("cachectl").join(name)
    }

    /// What `cluster.json` records: name and pid of each process.
    pub fn pids(&self, name: &str) -> Vec<(String, u32)> {
        let Ok(text) = std::fs::read(self.home(name).join("cluster.json")) else {
            return Vec::new();
        };
        let doc: Json = serde_json::from_slice(&text).unwrap();
        let all = doc["processes"].as_array().unwrap();
        all.iter().map(|p| (p["id"].as_str().unwrap().to_owned(), p["pid"].as_u64().unwrap() as u32)).collect()
    }

    /// Asserts that of these processes, and in this cluster's directory, nothing is left that means something is running.
    pub fn assert_nothing_left(&self, name: &str, pids: &[(String, u32)]) {
        for (id, pid) in pids {
            assert!(!runs(*pid), "{id} (pid {pid}) runs still");
        }
        for port in ports(self.base) {
            let bound = std::net::TcpListener::bind(("127.0.0.1", port));
            assert!(bound.is_ok(), "port {port} is still taken");
        }
        let left: Vec<PathBuf> = files(&self.home(name))
            .into_iter()
            .filter(|f| {
                let name = f.file_name().unwrap().to_string_lossy().into_owned();
                name == "cluster.json"
                    || name.contains("lock")
                    || name.contains("pid")
                    || name.contains("sock")
                    || name.contains("tmp")
            })
            .collect();
        assert!(left.is_empty(), "left behind: {left:?}");
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let root = self.state().join("cachectl");
        for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
            if let Some(name) = entry.file_name().to_str().filter(|n| !n.starts_with('.')) {
                let _ = self.run(&["down", "--purge", "--name", name]);
            }
        }
        let _ = std::fs::remove_file(std::env::temp_dir().join(format!("cachectl-test-block-{}", self.base)));
    }
}

/// The ports that a default cluster uses.
fn ports(base: u16) -> impl Iterator<Item = u16> {
    (1..=3).map(move |i| base + i).chain((101..=103).flat_map(move |i| [base + i, base + i + 10_000]))
}

/// Whether a process runs; one that only waits to be waited for does not.
pub fn runs(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest.as_bytes()[0]);
    !matches!(state, Some(b'Z' | b'X') | None)
}

/// Every file below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { all.extend(files(&path)) } else { all.push(path) }
    }
    all
}
