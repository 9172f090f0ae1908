//! A server's state directory: made private, held by an exclusive lock for as long as the process lives, marked with a random
//! `home` id that tells "the same process came back" from "another one took the name".

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, flock};

use crate::proto::id::HomeId;

/// An open state directory; the lock ends with it.
#[derive(Debug)]
pub struct Home {
    /// Its mark.
    pub id: HomeId,
    _lock: File,
}

impl Home {
    /// Makes the directory if needed (0700), takes its lock, reads or draws its mark.
    pub fn open(dir: &Path) -> anyhow::Result<Home> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .with_context(|| format!("can't make the state directory {}", dir.display()))?;
        let path = dir.join("lock");
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("can't open {}", path.display()))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut who = String::new();
            let _ = lock.read_to_string(&mut who);
            bail!("{} is in use by another process (pid {})", dir.display(), who.trim());
        }
        lock.set_len(0)?;
        writeln!(lock, "{}", std::process::id())?;
        let mark = dir.join("home");
        let id = match fs::read_to_string(&mark) {
            Ok(text) => text.trim().parse().with_context(|| format!("{} holds no home id", mark.display()))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let id = HomeId::random();
                // Whole or not at all: a torn mark would look like another home.
                let draft = dir.join("home.new");
                let mut f = File::create(&draft)?;
                writeln!(f, "{id}")?;
                f.sync_all()?;
                fs::rename(&draft, &mark)?;
                id
            }
            Err(e) => return Err(e).with_context(|| format!("can't read {}", mark.display())),
        };
        Ok(Home { id, _lock: lock })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_at_a_time_and_one_mark_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("n1");
        let first = Home::open(&path).unwrap();
        let err = Home::open(&path).unwrap_err().to_string();
        assert!(err.contains("in use by another process"), "{err}");
        let id = first.id;
        drop(first);
        assert_eq!(Home::open(&path).unwrap().id, id);
    }
}
