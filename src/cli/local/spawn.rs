//! Starts one process of a local cluster: detached, with nothing inherited, its words in the logs directory.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use super::process::Identity;
use super::state::{Home, Member, Members, Process, Role, io_error};
use crate::cli::error::CliError;
use crate::cli::logging::log_path;
use crate::cli::output::escape_lines;

/// How long the masters wait for all nodes before they hand the slots to fewer: a node that dies at its start ends `up` long
/// before, so this only meets a machine that is very busy.
const FORM_WAIT: Duration = Duration::from_secs(10);
/// How much of the end of a log is looked at for last words, bytes.
const LAST_WORDS_BYTES: u64 = 8 << 10;
/// How many lines of it an error shows.
const LAST_WORDS_LINES: usize = 8;
/// A stderr file that grew beyond this is begun again, bytes: it only holds last words.
const STDERR_MAX: u64 = 1 << 20;

/// A child, and where its log began.
#[derive(Debug)]
pub struct Spawned {
    /// As recorded.
    pub process: Process,
    child: Child,
    log: (PathBuf, u64),
    stderr: (PathBuf, u64),
}

impl Spawned {
    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<String> {
        match self.child.try_wait() {
            Ok(Some(status)) => Some(status.to_string()),
            _ => None,
        }
    }

    /// Whether a Ctrl-C ended it.
    pub fn interrupted(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(how)) if how.signal() == Some(Signal::INT.as_raw()))
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The last lines that it wrote itself, ready for a terminal.
    pub fn last_words(&self) -> String {
        let text = [&self.log, &self.stderr].map(|(path, from)| tail(path, *from)).concat();
        let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
        let from = lines.len().saturating_sub(LAST_WORDS_LINES);
        escape_lines(&lines[from..].join("\n")).into_owned()
    }
}

/// A process that ended while the cluster was still forming, with its last words.
pub fn first_crash(children: &mut [Spawned]) -> Option<CliError> {
    for c in children {
        if let Some(how) = c.ended() {
            let words = c.last_words();
            let p = &c.process;
            let text = match words.is_empty() {
                true => format!("{} {} ended at its start ({how}) without a word", p.role.word(), p.id),
                false => format!("{} {} ended at its start ({how}); its last words:\n{words}", p.role.word(), p.id),
            };
            return Some(CliError::failed("START_FAILED", text).hint("what this `up` had started was ended again"));
        }
    }
    None
}

/// Waits for children as they end, as long as this process lives: it may live long, and they would stay behind as zombies.
pub fn reap(mut children: Vec<Spawned>) {
    /// How soon a zombie goes; nobody waits for it.
    const LOOK: Duration = Duration::from_millis(200);
    std::thread::spawn(move || {
        while !children.is_empty() {
            children.retain_mut(|c| c.ended().is_none());
            std::thread::sleep(LOOK);
        }
    });
}

/// The program to start: this one. When its file was replaced meanwhile, what still runs here is started all the same.
pub fn this_program() -> PathBuf {
    match std::env::current_exe() {
        Ok(path) if path.exists() => path,
        _ => PathBuf::from("/proc/self/exe"),
    }
}

/// Starts a member; a node on standby holds nothing until it is added.
pub fn spawn(program: &Path, home: &Home, members: &Members, who: &Member, standby: bool) -> Result<Spawned, CliError> {
    let log = log_path(&home.logs(), &who.id);
    let log_from = size(&log);
    let stderr_path = home.stderr_path(&who.id);
    let stderr = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&stderr_path)
        .map_err(|e| io_error("open", &stderr_path, &e))?;
    if stderr.metadata().is_ok_and(|m| m.len() > STDERR_MAX) {
        let _ = stderr.set_len(0);
    }
    let stderr_from = size(&stderr_path);
    let stdout = stderr.try_clone().map_err(|e| io_error("open", &stderr_path, &e))?;

    let mut command = Command::new(program);
    command
        .arg0("cachectl")
        .args(arguments(home, members, who, standby))
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr)
        // Holds no directory of the person's busy.
        .current_dir("/")
        // Ctrl-C on the terminal is for `up`, not for its cluster.
        .process_group(0);
    for (name, _) in std::env::vars_os() {
        // What steers this command must not steer its children: they are told everything in flags.
        if name.to_str().is_some_and(|n| n.starts_with("CACHECTL_") && n != "CACHECTL_LOG") {
            command.env_remove(name);
        }
    }
    let mut child = command.spawn().map_err(|e| {
        CliError::failed("SPAWN", format!("cannot start {} {}: {e}", who.role.word(), who.id))
            .hint(format!("is {} still there and executable?", program.display()))
    })?;
    let Some(identity) = Identity::of(child.id()) else {
        let _ = child.kill();
        let _ = child.wait();
        return Err(CliError::failed("SPAWN", format!("cannot see process {} in /proc", child.id()))
            .hint("local clusters need a mounted /proc"));
    };
    let process = Process {
        id: who.id.clone(),
        role: who.role,
        identity,
        addr: who.addr.clone(),
        peer_addr: who.peer_addr.clone(),
    };
    Ok(Spawned { process, child, log: (log, log_from), stderr: (stderr_path, stderr_from) })
}

/// What a process is told: everything, so that `ps` shows what it is and no default has to agree.
fn arguments(home: &Home, members: &Members, who: &Member, standby: bool) -> Vec<OsString> {
    let mut args: Vec<OsString> = vec![who.role.word().into()];
    let mut flag = |name: &str, value: OsString| args.extend([OsString::from(format!("--{name}")), value]);
    flag("id", who.id.clone().into());
    flag("listen", who.addr.clone().into());
    flag("data", home.data(&who.id).into());
    flag("log-dir", home.logs().into());
    match who.role {
        Role::Master => {
            let peers: Vec<String> = members.of(Role::Master).map(|m| format!("{}={}", m.id, m.addr)).collect();
            flag("peers", peers.join(",").into());
            flag("cluster", members.name.clone().into());
            flag("expect-nodes", members.of(Role::Node).count().to_string().into());
            flag("form-wait", format!("{}ms", FORM_WAIT.as_millis()).into());
            flag("backups", members.backups.to_string().into());
        }
        Role::Node => {
            if let Some(peer) = &who.peer_addr {
                flag("peer-listen", peer.clone().into());
            }
            flag("masters-addr", members.addrs(Role::Master).join(",").into());
            flag("memory", members.memory.to_string().into());
            flag("eviction", members.eviction.name().into());
            if !who.zone.is_empty() {
                flag("zone", who.zone.clone().into());
            }
            if standby {
                args.push("--standby".into());
            }
        }
    }
    args
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |m| m.len())
}

fn tail(path: &Path, from: u64) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let end = file.metadata()?.len();
        file.seek(SeekFrom::Start(from.max(end.saturating_sub(LAST_WORDS_BYTES))))?;
        let mut bytes = Vec::new();
        file.take(LAST_WORDS_BYTES).read_to_end(&mut bytes)?;
        if bytes.last().is_some_and(|b| *b != b'\n') {
            bytes.push(b'\n');
        }
        Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::args::{Cli, Command as Words};

    #[test]
    fn children_are_told_what_this_program_understands() {
        let home = Home { name: "x".into(), dir: "/tmp/x".into() };
        let mut members = Members::new("x", 7100, 1, 64 << 20);
        let member = |id: &str, role, port: u16| Member {
            id: id.into(),
            role,
            addr: format!("127.0.0.1:{port}"),
            peer_addr: (role == Role::Node).then(|| format!("127.0.0.1:{}", port + 10_000)),
            zone: if role == Role::Node { "a".into() } else { String::new() },
            removed: false,
            stopped: false,
        };
        members.members = vec![member("m1", Role::Master, 7101), member("n1", Role::Node, 7201)];
        let parse = |i: usize| {
            let args = arguments(&home, &members, &members.members[i], i == 1);
            Cli::try_parse_from(std::iter::once(OsString::from("cachectl")).chain(args)).unwrap()
        };
        match parse(0).command {
            Some(Words::Master(m)) => {
                assert_eq!((m.expect_nodes, m.backups, m.form_wait), (1, 1, FORM_WAIT));
                assert_eq!(m.peers.len(), 1);
                assert_eq!(m.server.log_dir.as_deref(), Some(Path::new("/tmp/x/logs")));
            }
            other => panic!("{other:?}"),
        }
        let cli = parse(1);
        assert_eq!(cli.globals.masters_addr, ["127.0.0.1:7101"]);
        match cli.command {
            Some(Words::Node(n)) => {
                assert_eq!((n.memory, n.zone.as_str(), n.standby), (64 << 20, "a", true));
                assert_eq!(n.peer_listen.as_deref(), Some("127.0.0.1:17201"));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn last_words_are_the_last_and_of_this_run_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m1.log");
        std::fs::write(&path, "old\nnew 1\nnew 2").unwrap();
        assert_eq!(tail(&path, 4), "new 1\nnew 2\n");
        assert_eq!(tail(&dir.path().join("none"), 0), "");
    }
}
