//! Where servers log: one file a process, bounded in size and number, written off the serving threads; or stderr by hand.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::SystemTime;

use super::error::CliError;
use super::local::state::io_error;

/// One log file's size, bytes; some 80,000 lines.
pub const LOG_FILE_MAX: u64 = 8 << 20;
/// How many older files are kept: 32 MiB a process with the current one.
pub const LOG_FILES_KEPT: usize = 3;
/// Lines that wait for the disk; beyond it they are dropped and counted rather than hold a server up.
const LOG_QUEUE_LINES: usize = 16_384;

/// Flushes the log at the end; taken by the panic hook, which ends the process without unwinding.
static GUARD: Mutex<Option<WorkerGuard>> = Mutex::new(None);

/// The current log file of a process.
pub fn log_path(dir: &Path, id: &str) -> PathBuf {
    dir.join(format!("{id}.log"))
}

/// An older one; 1 is the youngest.
pub fn old_log_path(dir: &Path, id: &str, age: usize) -> PathBuf {
    dir.join(format!("{id}.log.{age}"))
}

/// Starts logging for a server: into `dir` if one is given, else to stderr. `filter` as in `info,cachectl::node=debug`.
pub fn start(id: &str, dir: Option<&Path>, filter: &str, color: bool) -> Result<(), CliError> {
    let filter = EnvFilter::try_new(filter)
        .map_err(|e| CliError::usage(format!("--log: {e}")).hint("a filter looks like info,cachectl::node=debug"))?;
    let writer: Box<dyn Write + Send> = match dir {
        Some(dir) => Box::new(RotatingFile::open(dir, id)?),
        None => Box::new(io::stderr()),
    };
    let (writer, guard) =
        NonBlockingBuilder::default().buffered_lines_limit(LOG_QUEUE_LINES).lossy(true).finish(writer);
    *GUARD.lock().unwrap_or_else(PoisonError::into_inner) = Some(guard);
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        // Always as many digits, so that lines of several processes sort as text.
        .with_timer(SystemTime)
        .with_ansi(dir.is_none() && color)
        .finish();
    tracing::subscriber::set_global_default(subscriber).map_err(|e| CliError::failed("BUG", e.to_string()))?;
    abort_on_panic();
    Ok(())
}

/// Writes out what waits. Nothing is logged after it.
pub fn finish() {
    drop(GUARD.lock().unwrap_or_else(PoisonError::into_inner).take());
}

/// A server with a lost thread would be half alive: worse than dead, since its peers would wait for it.
fn abort_on_panic() {
    std::panic::set_hook(Box::new(|info| {
        let trace = std::backtrace::Backtrace::capture();
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let payload = info.payload();
        let what = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        tracing::error!(place, what, %trace, "panic: this process ends");
        let _ = writeln!(io::stderr(), "panic at {place}: {what}");
        finish();
        std::process::abort();
    }));
}

/// A file that begins anew when it is full, with a bounded number of older ones.
#[derive(Debug)]
struct RotatingFile {
    dir: PathBuf,
    id: String,
    file: File,
    size: u64,
    max: u64,
}

impl RotatingFile {
    fn open(dir: &Path, id: &str) -> Result<Self, CliError> {
        std::fs::create_dir_all(dir).map_err(|e| io_error("create", dir, &e))?;
        let path = log_path(dir, id);
        let file = append(&path).map_err(|e| io_error("open", &path, &e))?;
        let size = file.metadata().map_or(0, |m| m.len());
        Ok(Self { dir: dir.into(), id: id.into(), file, size, max: LOG_FILE_MAX })
    }

    fn rotate(&mut self) -> io::Result<()> {
        for age in (1..LOG_FILES_KEPT).rev() {
            let _ = std::fs::rename(old_log_path(&self.dir, &self.id, age), old_log_path(&self.dir, &self.id, age + 1));
        }
        let current = log_path(&self.dir, &self.id);
        std::fs::rename(&current, old_log_path(&self.dir, &self.id, 1))?;
        self.file = append(&current)?;
        self.size = 0;
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

impl Write for RotatingFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.size > 0 && self.size + line.len() as u64 > self.max {
            // A directory that was removed costs the rotation, not the line.
            let _ = self.rotate();
        }
        let n = self.file.write(line)?;
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_gives_way_and_old_ones_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let mut f = RotatingFile::open(dir.path(), "n1").unwrap();
        f.max = 10;
        for i in 0..9 {
            f.write_all(format!("line {i}\n").as_bytes()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(log_path(dir.path(), "n1")).unwrap(), "line 8\n");
        assert_eq!(std::fs::read_to_string(old_log_path(dir.path(), "n1", 1)).unwrap(), "line 7\n");
        assert_eq!(std::fs::read_to_string(old_log_path(dir.path(), "n1", LOG_FILES_KEPT)).unwrap(), "line 5\n");
        assert!(!old_log_path(dir.path(), "n1", LOG_FILES_KEPT + 1).exists());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), LOG_FILES_KEPT + 1);
    }
}
