//! One `up` or `down` at a time on one cluster.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use super::state;
use crate::cli::error::CliError;
use crate::cli::output::{Out, escape};

/// How long a second command waits for the first: longer than an `up` or a `down` takes when all is well.
pub const LOCK_WAIT: Duration = Duration::from_secs(15);
/// How often it tries again.
const LOCK_RETRY: Duration = Duration::from_millis(20);
/// How long it waits before it says for whom.
const LOCK_PATIENCE: Duration = Duration::from_millis(300);
/// The longest holder's note that is read, bytes.
const NOTE_MAX: u64 = 200;

/// Held while a command changes a local cluster; the file goes when it is dropped.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    /// Waits its turn. Blocks the thread: nothing else is to be done meanwhile.
    pub fn take(path: &Path, command: &str, out: &Out, within: Duration) -> Result<Self, CliError> {
        let start = Instant::now();
        let mut told = false;
        loop {
            // Again each time: the holder before may have removed the directory too.
            if let Some(dir) = path.parent() {
                let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
                made.map_err(|e| state::io_error("create", dir, &e))?;
            }
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
            let file = match file {
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                file => file.map_err(|e| state::io_error("open", path, &e))?,
            };
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                // The holder before may have removed the very file that was just locked: then it locks nobody out.
                Ok(()) if same_file(&file, path) => {
                    let _ = file.set_len(0);
                    let _ = write!(&file, "{} {command}", std::process::id());
                    return Ok(Self { path: path.into(), _file: file });
                }
                Ok(()) => continue,
                Err(rustix::io::Errno::AGAIN) => {}
                Err(e) => return Err(state::io_error("lock", path, &e.into())),
            }
            let holder = holder(path);
            if start.elapsed() >= within {
                return Err(CliError::failed("LOCKED", format!("{holder} is still at work on this cluster"))
                    .hint("wait until it is done, then try again"));
            }
            if !told && start.elapsed() >= LOCK_PATIENCE {
                told = true;
                out.say(&format!("waiting for {holder}, which is at work on this cluster"));
            }
            std::thread::sleep(LOCK_RETRY);
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Removed while still locked, so that who opens it next makes a new one.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn same_file(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(a), Ok(b)) => a.ino() == b.ino() && a.dev() == b.dev(),
        _ => false,
    }
}

/// `cachectl up (pid 123)`, as its holder wrote it.
fn holder(path: &Path) -> String {
    let mut note = String::new();
    let _ = File::open(path).map(|f| f.take(NOTE_MAX).read_to_string(&mut note));
    match note.trim().split_once(' ') {
        Some((pid, command)) => format!("`cachectl {}` (pid {})", escape(command), escape(pid)),
        None => "another cachectl".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::{Color, Format};

    #[test]
    fn the_second_waits_is_told_for_whom_and_the_file_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let out = Out::new(Format::Table, Color::Never, true, false);
        let first = Lock::take(&path, "up", &out, LOCK_WAIT).unwrap();
        let e = Lock::take(&path, "down", &out, Duration::ZERO).unwrap_err();
        let CliError::Failed(_, f) = e else { panic!() };
        assert!(f.message.contains("`cachectl up`"), "{f:?}");
        assert!(f.message.contains(&std::process::id().to_string()), "{f:?}");
        drop(first);
        assert!(!path.exists());
        drop(Lock::take(&path, "down", &out, LOCK_WAIT).unwrap());
    }

    #[test]
    fn two_never_hold_it_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let inside = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| {
                    let out = Out::new(Format::Table, Color::Never, true, false);
                    for _ in 0..20 {
                        let lock = Lock::take(&path, "up", &out, Duration::from_secs(60)).unwrap();
                        assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                        std::thread::yield_now();
                        inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                        drop(lock);
                    }
                });
            }
        });
    }
}
