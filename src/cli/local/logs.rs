//! Log files of a cluster's processes, read as one: merged by time, each line with its process.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::state::Home;
use crate::cli::logging::{LOG_FILES_KEPT, log_path, old_log_path};
use crate::cli::time::rfc3339;

/// `2026-01-31T12:34:56.123456Z`
const STAMP_LEN: usize = 27;
/// The longest line that is shown whole, bytes; a longer one is cut, so that one endless line costs no memory.
const LINE_MAX: usize = 64 << 10;
/// Bytes read from one file in one turn of following.
const FOLLOW_CHUNK: u64 = 1 << 20;

/// How grave a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Something failed.
    Error,
    /// Worth a look.
    Warn,
    /// What happens in the normal course.
    Info,
    /// For those who look for a fault.
    Debug,
    /// Everything.
    Trace,
}

/// One line of one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// When, as text that sorts; of the line before, where this one has none.
    pub stamp: String,
    /// Which process.
    pub who: String,
    /// How grave; of the line before, where this one does not say. A panic says nothing, and is grave.
    pub level: Level,
    /// The whole line, as written.
    pub text: String,
}

/// Which lines are wanted.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Not before this time.
    pub since: Option<String>,
    /// The last so many only.
    pub tail: Option<usize>,
    /// This grave or graver.
    pub level: Option<Level>,
    /// With this text in them.
    pub grep: Option<String>,
}

impl Filter {
    /// Whether a line is wanted, whatever its time.
    pub fn wants(&self, line: &Line) -> bool {
        self.level.is_none_or(|l| line.level <= l) && self.grep.as_ref().is_none_or(|g| line.text.contains(g.as_str()))
    }
}

/// The time a line begins with.
fn stamp_of(line: &str) -> Option<&str> {
    let s = line.get(..STAMP_LEN)?;
    let b = s.as_bytes();
    (b[4] == b'-' && b[10] == b'T' && b[STAMP_LEN - 1] == b'Z').then_some(s)
}

/// The level that follows the time.
fn level_of(line: &str) -> Option<Level> {
    match line.get(STAMP_LEN..)?.split_ascii_whitespace().next()? {
        "ERROR" => Some(Level::Error),
        "WARN" => Some(Level::Warn),
        "INFO" => Some(Level::Info),
        "DEBUG" => Some(Level::Debug),
        "TRACE" => Some(Level::Trace),
        _ => None,
    }
}

/// All processes of which a log exists.
pub fn processes(home: &Home) -> Vec<String> {
    let mut all: Vec<String> = std::fs::read_dir(home.logs())
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|e| Some(e.file_name().to_str()?.strip_suffix(".log")?.to_owned()))
        .collect();
    all.sort();
    all
}

/// What is written by now, oldest first.
pub fn read(home: &Home, who: &[String], filter: &Filter) -> Vec<Line> {
    let mut all = Vec::new();
    for id in who {
        let mut last = Last { lines: VecDeque::new(), max: filter.tail };
        for age in (1..=LOG_FILES_KEPT).rev() {
            last.file(id, &old_log_path(&home.logs(), id, age), filter);
        }
        last.file(id, &log_path(&home.logs(), id), filter);
        last.file(id, &home.stderr_path(id), filter);
        all.extend(last.lines);
    }
    // Stable, so that lines of one process stay in order.
    all.sort_by(|a, b| a.stamp.cmp(&b.stamp));
    if let Some(tail) = filter.tail {
        all.drain(..all.len().saturating_sub(tail));
    }
    all
}

struct Last {
    lines: VecDeque<Line>,
    max: Option<usize>,
}

impl Last {
    fn file(&mut self, id: &str, path: &Path, filter: &Filter) {
        let Ok(file) = File::open(path) else {
            return;
        };
        // Lines without a time of their own (a panic's) stand where the file was last written.
        let mut stamp = file.metadata().and_then(|m| m.modified()).map(rfc3339).unwrap_or_default();
        let mut level = Level::Error;
        let mut reader = BufReader::new(file);
        let mut bytes = Vec::new();
        while let Some(text) = next_line(&mut reader, &mut bytes) {
            if let Some(s) = stamp_of(&text) {
                stamp = s.to_owned();
                level = level_of(&text).unwrap_or(level);
            }
            if filter.since.as_ref().is_some_and(|since| stamp < *since) {
                continue;
            }
            let line = Line { stamp: stamp.clone(), who: id.into(), level, text };
            if !filter.wants(&line) {
                continue;
            }
            self.lines.push_back(line);
            if self.max.is_some_and(|max| self.lines.len() > max) {
                self.lines.pop_front();
            }
        }
    }
}

/// The next line without its end; what is beyond [`LINE_MAX`] comes as a line of its own.
fn next_line(reader: &mut impl BufRead, bytes: &mut Vec<u8>) -> Option<String> {
    bytes.clear();
    match reader.take(LINE_MAX as u64).read_until(b'\n', bytes) {
        Ok(n) if n > 0 => {
            let end = bytes.trim_ascii_end().len();
            Some(String::from_utf8_lossy(&bytes[..end]).into_owned())
        }
        _ => None,
    }
}

/// Follows the logs as they grow, across rotations.
#[derive(Debug)]
pub struct Follower {
    files: Vec<Followed>,
}

#[derive(Debug)]
struct Followed {
    who: String,
    path: PathBuf,
    open: Option<(u64, File)>,
    partial: Vec<u8>,
    stamp: String,
    level: Level,
}

impl Follower {
    /// From the present end of each log on.
    pub fn at_end(home: &Home, who: &[String]) -> Self {
        let mut f = Self::new(home, who);
        for file in &mut f.files {
            file.skip();
        }
        f
    }

    fn new(home: &Home, who: &[String]) -> Self {
        let files = who
            .iter()
            .flat_map(|id| [(id, log_path(&home.logs(), id)), (id, home.stderr_path(id))])
            .map(|(id, path)| Followed {
                who: id.clone(),
                path,
                open: None,
                partial: Vec::new(),
                stamp: String::new(),
                level: Level::Error,
            })
            .collect();
        Self { files }
    }

    /// What was written since, oldest first.
    pub fn read(&mut self) -> Vec<Line> {
        let mut all: Vec<Line> = self.files.iter_mut().flat_map(Followed::read).collect();
        all.sort_by(|a, b| a.stamp.cmp(&b.stamp));
        all
    }
}

impl Followed {
    fn skip(&mut self) {
        use std::io::{Seek, SeekFrom};
        if let Ok(mut file) = File::open(&self.path)
            && let Ok(meta) = file.metadata()
            && file.seek(SeekFrom::End(0)).is_ok()
        {
            self.open = Some((meta.ino(), file));
        }
    }

    fn read(&mut self) -> Vec<Line> {
        let mut lines = Vec::new();
        if self.drain(&mut lines) {
            return lines;
        }
        // All of the old file is read: only now look whether another took its place.
        let now = std::fs::metadata(&self.path).map(|m| m.ino()).ok();
        if now.is_some() && now != self.open.as_ref().map(|(ino, _)| *ino) {
            self.open = File::open(&self.path).ok().and_then(|f| Some((f.metadata().ok()?.ino(), f)));
            self.drain(&mut lines);
        }
        lines
    }

    /// Reads one chunk; true if there may be more.
    fn drain(&mut self, lines: &mut Vec<Line>) -> bool {
        let Some((_, file)) = &mut self.open else {
            return false;
        };
        let mut chunk = Vec::new();
        let n = file.take(FOLLOW_CHUNK).read_to_end(&mut chunk).unwrap_or(0) as u64;
        for b in chunk {
            if b == b'\n' || self.partial.len() >= LINE_MAX {
                let text = String::from_utf8_lossy(self.partial.trim_ascii_end()).into_owned();
                self.partial.clear();
                match stamp_of(&text) {
                    Some(s) => {
                        self.stamp = s.to_owned();
                        self.level = level_of(&text).unwrap_or(self.level);
                    }
                    None if self.stamp.is_empty() => self.stamp = rfc3339(std::time::SystemTime::now()),
                    None => {}
                }
                lines.push(Line { stamp: self.stamp.clone(), who: self.who.clone(), level: self.level, text });
            }
            if b != b'\n' {
                self.partial.push(b);
            }
        }
        n == FOLLOW_CHUNK
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn home() -> (tempfile::TempDir, Home) {
        let dir = tempfile::tempdir().unwrap();
        let home = Home { name: "x".into(), dir: dir.path().join("x") };
        home.create().unwrap();
        (dir, home)
    }

    fn texts(lines: &[Line]) -> Vec<&str> {
        lines.iter().map(|l| l.text.rsplit(' ').next().unwrap()).collect()
    }

    fn ids() -> Vec<String> {
        vec!["m1".into(), "n1".into()]
    }

    #[test]
    fn lines_of_all_are_merged_by_time_and_cut() {
        let (_dir, home) = home();
        let at = |s: u32| format!("2026-01-01T00:00:{s:02}.000000Z  INFO");
        std::fs::write(old_log_path(&home.logs(), "m1", 1), format!("{} a\n", at(1))).unwrap();
        std::fs::write(log_path(&home.logs(), "m1"), format!("{} b\n  more c\n{} e\n", at(2), at(4))).unwrap();
        std::fs::write(log_path(&home.logs(), "n1"), format!("{} d\n", at(3))).unwrap();
        assert_eq!(processes(&home), ["m1", "n1"]);
        let all = read(&home, &ids(), &Filter::default());
        assert_eq!(texts(&all), ["a", "b", "c", "d", "e"]);
        let since = Filter { since: Some(at(2)[..STAMP_LEN].into()), tail: None, ..Filter::default() };
        assert_eq!(texts(&read(&home, &ids(), &since)), ["b", "c", "d", "e"]);
        let tail = Filter { since: None, tail: Some(2), ..Filter::default() };
        assert_eq!(texts(&read(&home, &ids(), &tail)), ["d", "e"]);
        // What is not wanted does not count among the last.
        let b = Filter { grep: Some("INFO b".into()), tail: Some(1), ..Filter::default() };
        assert_eq!(texts(&read(&home, &ids(), &b)), ["b"]);
    }

    #[test]
    fn only_lines_this_grave_and_what_follows_them() {
        let (_dir, home) = home();
        let at = |s: u32, level: &str| format!("2026-01-01T00:00:{s:02}.000000Z {level:>5} x:");
        let text = format!("{} a\n{} b\n  more\n{} c\n", at(1, "INFO"), at(2, "ERROR"), at(3, "WARN"));
        std::fs::write(log_path(&home.logs(), "m1"), text).unwrap();
        std::fs::write(home.stderr_path("n1"), "panicked\n").unwrap();
        let level = |l| Filter { level: Some(l), ..Filter::default() };
        assert_eq!(texts(&read(&home, &ids(), &level(Level::Warn))), ["b", "more", "c", "panicked"]);
        assert_eq!(texts(&read(&home, &ids(), &level(Level::Error))), ["b", "more", "panicked"]);
        assert_eq!(read(&home, &ids(), &level(Level::Trace)).len(), 5);
    }

    #[test]
    fn following_sees_new_lines_once_and_across_a_rotation() {
        let (_dir, home) = home();
        let path = log_path(&home.logs(), "m1");
        std::fs::write(&path, "old\n").unwrap();
        let mut f = Follower::at_end(&home, &ids());
        assert!(f.read().is_empty());
        let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"one\nhal").unwrap();
        assert_eq!(texts(&f.read()), ["one"]);
        file.write_all(b"f\nlast\n").unwrap();
        std::fs::rename(&path, old_log_path(&home.logs(), "m1", 1)).unwrap();
        std::fs::write(&path, "new\n").unwrap();
        // A log that did not exist before counts from its beginning.
        std::fs::write(log_path(&home.logs(), "n1"), "born\n").unwrap();
        let lines = f.read();
        assert_eq!(texts(&lines), ["half", "last", "new", "born"]);
        assert!(f.read().is_empty());
    }
}
