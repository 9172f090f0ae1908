//! Programs from outside that a test needs, and running any program with an end.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Finds a program on PATH, or fails with the command that installs it: a missing client must not look like a pass.
pub fn require(program: &str, install: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|p| p.is_file())
        .unwrap_or_else(|| panic!("`{program}` is needed for this test and not on PATH. Install it: {install}"))
}

/// What a program did.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// All it wrote to stdout; not UTF-8 is replaced.
    pub stdout: String,
    /// All it wrote to stderr, likewise.
    pub stderr: String,
}

impl Finished {
    /// The exit code; a signal counts as -1.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }

    /// Panics with everything it said unless it ended with 0.
    #[track_caller]
    pub fn expect_success(self, what: &str) -> Self {
        assert!(
            self.status.success(),
            "{what} ended with {}\nstdout:\n{}\nstderr:\n{}",
            self.status,
            self.stdout,
            self.stderr
        );
        self
    }
}

/// Runs a program to its end, killing it once `limit` has passed. Its output goes through files: a pipe that a stray
/// grandchild keeps open would hang the test instead of failing it.
pub fn run(command: &mut Command, limit: Duration) -> Finished {
    let dir = tempfile::tempdir().expect("a directory for output");
    let (out, err) = (dir.path().join("out"), dir.path().join("err"));
    let file = |path| File::create(path).expect("an output file");
    command.stdin(Stdio::null()).stdout(file(&out)).stderr(file(&err));
    let mut child = command.spawn().unwrap_or_else(|e| panic!("{command:?} does not start: {e}"));
    let start = Instant::now();
    let read = |path| String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned();
    loop {
        if let Some(status) = child.try_wait().expect("our own child") {
            return Finished { status, stdout: read(&out), stderr: read(&err) };
        }
        if start.elapsed() > limit {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{command:?} still ran after {limit:?}\nstdout:\n{}\nstderr:\n{}", read(&out), read(&err));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
