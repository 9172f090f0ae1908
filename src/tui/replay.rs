//! A recorded incident: lines of JSON that `jq` reads, written while one watches, played back with time in one's hands.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::event::{LinkEvent, Now};
use crate::proto::control::{LINE_MAX, RefreshMaster};
use crate::proto::status::WatchView;

/// The number in a recording's first line.
const FORMAT: u32 = 1;
/// A recording ends by itself here, bytes: days of a busy cluster, but not a full disk.
const RECORD_MAX: u64 = 4 << 30;
/// A longer recording is played up to here, lines: a day of four views a second.
const LINES_MAX: usize = 400_000;
/// Steps of speed.
const SPEEDS: [u32; 7] = [1, 2, 4, 8, 16, 32, 64];

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    cachectl_recording: u32,
    cluster: String,
}

/// Any other line.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Line {
    /// Milliseconds since the recording began, on a clock that never goes back.
    t_ms: u64,
    /// Wall time, milliseconds since 1970.
    at_ms: u64,
    #[serde(flatten)]
    what: What,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
enum What {
    Connected { addr: String },
    View { view: Box<WatchView> },
    Hint { hint: RefreshMaster },
    Lost { addr: String, why: String, next_try_ms: u64 },
}

impl From<&LinkEvent> for What {
    fn from(e: &LinkEvent) -> Self {
        match e.clone() {
            LinkEvent::Connected { addr } => What::Connected { addr },
            LinkEvent::View(view) => What::View { view },
            LinkEvent::MasterHint(hint) => What::Hint { hint },
            LinkEvent::Lost { addr, why, next_try_ms } => What::Lost { addr, why, next_try_ms },
        }
    }
}

impl From<What> for LinkEvent {
    fn from(w: What) -> Self {
        match w {
            What::Connected { addr } => LinkEvent::Connected { addr },
            What::View { view } => LinkEvent::View(view),
            What::Hint { hint } => LinkEvent::MasterHint(hint),
            What::Lost { addr, why, next_try_ms } => LinkEvent::Lost { addr, why, next_try_ms },
        }
    }
}

/// Writes a recording.
#[derive(Debug)]
pub struct Recorder {
    out: BufWriter<File>,
    begun_ms: Option<u64>,
    written: u64,
}

impl Recorder {
    /// Begins a new file; one that exists is not touched.
    pub fn create(path: &Path, cluster: &str) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        let mut out = BufWriter::new(file);
        let head = Head { cachectl_recording: FORMAT, cluster: cluster.to_owned() };
        writeln!(out, "{}", serde_json::to_string(&head)?)?;
        out.flush()?;
        Ok(Self { out, begun_ms: None, written: 0 })
    }

    /// Writes what the link said.
    pub fn put(&mut self, now: Now, event: &LinkEvent) -> io::Result<()> {
        let begun = *self.begun_ms.get_or_insert(now.mono_ms);
        let line = Line { t_ms: now.mono_ms.saturating_sub(begun), at_ms: now.wall_ms, what: event.into() };
        let line = serde_json::to_string(&line)?;
        self.written += line.len() as u64 + 1;
        if self.written > RECORD_MAX {
            return Err(io::Error::other(format!("the recording has reached {RECORD_MAX} bytes")));
        }
        writeln!(self.out, "{line}")?;
        self.out.flush()
    }
}

/// How playing is steered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Playing {
    /// Hold, or go on.
    Pause,
    /// To the next view, or the one before.
    Step {
        /// Onwards in time.
        on: bool,
    },
    /// So many milliseconds on, or back.
    Jump(i64),
    /// To a part of the whole, in thousandths.
    To(u16),
    /// Twice as fast, or half.
    Speed {
        /// Faster.
        up: bool,
    },
}

/// Where a recording is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Played {
    /// Wall time of the first line, of now, and of the last line, milliseconds.
    pub begin_ms: u64,
    /// Now.
    pub at_ms: u64,
    /// The end.
    pub end_ms: u64,
    /// Views so far, and in all.
    pub views: (usize, usize),
    /// It stands still.
    pub paused: bool,
    /// How many times faster than life.
    pub speed: u32,
    /// It went back: forget all that was shown.
    pub back: bool,
}

/// Plays a recording.
#[derive(Debug)]
pub struct Player {
    lines: Vec<Line>,
    /// The first line not given out yet.
    next: usize,
    /// Time in the recording, milliseconds.
    t_ms: u64,
    paused: bool,
    speed: u32,
    /// The reader's own clock when time last passed.
    real_ms: Option<u64>,
    back: bool,
    /// Views in all.
    views: usize,
    /// The cluster's name.
    pub cluster: String,
}

impl Player {
    /// Reads a recording. Errors name the line.
    pub fn open(path: &Path, speed: u32) -> anyhow::Result<Self> {
        Self::read(BufReader::new(File::open(path)?), speed)
    }

    fn read(input: impl BufRead, speed: u32) -> anyhow::Result<Self> {
        let mut input = input;
        let mut text = Vec::new();
        let mut read = |input: &mut dyn BufRead| -> anyhow::Result<Option<Vec<u8>>> {
            text.clear();
            // One byte more than a line may have, so that too long a one shows.
            let n = io::Read::take(input, 2 * LINE_MAX as u64).read_until(b'\n', &mut text)?;
            Ok((n > 0).then(|| std::mem::take(&mut text)))
        };
        let head = read(&mut input)?.unwrap_or_default();
        let head: Head = serde_json::from_slice(&head)
            .map_err(|_| anyhow::anyhow!("this is no recording of cachectl: its first line is another"))?;
        anyhow::ensure!(head.cachectl_recording == FORMAT, "a recording of a newer cachectl");
        let mut lines: Vec<Line> = Vec::new();
        while let Some(text) = read(&mut input)? {
            if lines.len() == LINES_MAX || !text.ends_with(b"\n") {
                // Cut off in the middle of a line: whoever wrote it was killed.
                break;
            }
            let line: Line =
                serde_json::from_slice(&text).map_err(|e| anyhow::anyhow!("line {}: {e}", lines.len() + 2))?;
            let t_ms = line.t_ms.max(lines.last().map_or(0, |l| l.t_ms));
            lines.push(Line { t_ms, ..line });
        }
        anyhow::ensure!(!lines.is_empty(), "nothing was recorded in it");
        let views = lines.iter().filter(|l| matches!(l.what, What::View { .. })).count();
        let speed = speed.clamp(SPEEDS[0], SPEEDS[SPEEDS.len() - 1]);
        let cluster = head.cluster;
        Ok(Self { lines, next: 0, t_ms: 0, paused: false, speed, real_ms: None, back: false, views, cluster })
    }

    /// All that was recorded, with its times.
    pub fn all(&self) -> impl Iterator<Item = (Now, LinkEvent)> + '_ {
        self.lines.iter().map(|l| (self.time(l.t_ms), l.what.clone().into()))
    }

    fn end(&self) -> u64 {
        self.lines.last().map_or(0, |l| l.t_ms)
    }

    /// A time of the recording as the model's clock: it begins where nothing is old yet.
    fn time(&self, t_ms: u64) -> Now {
        /// So that two minutes before the beginning still are positive.
        const BEFORE: u64 = 1_000_000;
        let at = self.lines.partition_point(|l| l.t_ms <= t_ms).saturating_sub(1);
        let line = self.lines.get(at);
        let wall = line.map_or(0, |l| l.at_ms.saturating_add(t_ms.saturating_sub(l.t_ms)));
        Now { mono_ms: BEFORE.saturating_add(t_ms), wall_ms: wall }
    }

    /// The model's clock now.
    pub fn now(&self) -> Now {
        self.time(self.t_ms)
    }

    /// Time passed on the reader's own clock: what was said meanwhile, each with its time.
    pub fn pass(&mut self, real_ms: u64) -> Vec<(Now, LinkEvent)> {
        let passed = self.real_ms.map_or(0, |before| real_ms.saturating_sub(before));
        self.real_ms = Some(real_ms);
        if !self.paused {
            self.t_ms = self.t_ms.saturating_add(passed.saturating_mul(u64::from(self.speed))).min(self.end());
        }
        let mut out = Vec::new();
        while let Some(line) = self.lines.get(self.next).filter(|l| l.t_ms <= self.t_ms) {
            out.push((self.time(line.t_ms), line.what.clone().into()));
            self.next += 1;
        }
        out
    }

    /// Milliseconds of the reader's clock until something is said; none while it stands still or is over.
    pub fn due_in_ms(&self) -> Option<u64> {
        let next = self.lines.get(self.next).filter(|_| !self.paused)?;
        Some(next.t_ms.saturating_sub(self.t_ms) / u64::from(self.speed))
    }

    /// Does what the person asked for.
    pub fn steer(&mut self, how: Playing) {
        match how {
            Playing::Pause if !self.paused && self.t_ms >= self.end() => self.go(0),
            Playing::Pause => self.paused = !self.paused,
            Playing::Step { on: true } => {
                self.paused = true;
                let view = self.lines[self.next..].iter().find(|l| matches!(l.what, What::View { .. }));
                self.go(view.map_or(self.end(), |l| l.t_ms));
            }
            Playing::Step { on: false } => {
                self.paused = true;
                let shown = &self.lines[..self.next];
                // The last one is what is shown now.
                let mut views = shown.iter().rev().filter(|l| matches!(l.what, What::View { .. }));
                let now = views.next().map_or(0, |l| l.t_ms);
                let before = views.find(|l| l.t_ms < now).map_or(0, |l| l.t_ms);
                self.go(before);
            }
            Playing::Jump(ms) => self.go(self.t_ms.saturating_add_signed(ms).min(self.end())),
            Playing::To(part) => self
                .go(self.end() / 1000 * u64::from(part.min(1000))
                    + self.end() % 1000 * u64::from(part.min(1000)) / 1000),
            Playing::Speed { up } => {
                let at = SPEEDS.iter().position(|s| *s >= self.speed).unwrap_or(0);
                let to = if up { at + 1 } else { at.saturating_sub(1) };
                self.speed = SPEEDS[to.min(SPEEDS.len() - 1)];
            }
        }
    }

    fn go(&mut self, t_ms: u64) {
        if t_ms < self.t_ms {
            // Views are not undone: it is told again from the beginning.
            self.next = 0;
            self.back = true;
        }
        self.t_ms = t_ms;
    }

    /// Where it is. Says once that it went back.
    pub fn played(&mut self) -> Played {
        let shown = self.lines[..self.next].iter().filter(|l| matches!(l.what, What::View { .. })).count();
        Played {
            begin_ms: self.time(0).wall_ms,
            at_ms: self.now().wall_ms,
            end_ms: self.time(self.end()).wall_ms,
            views: (shown, self.views),
            paused: self.paused || self.t_ms >= self.end(),
            speed: self.speed,
            back: std::mem::take(&mut self.back),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::fixture;

    fn recording(views: u64) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r");
        let mut r = Recorder::create(&path, "demo").unwrap();
        assert!(Recorder::create(&path, "demo").is_err(), "nothing is overwritten");
        for i in 0..views {
            let now = Now { mono_ms: 5_000 + i * 250, wall_ms: fixture::WALL_MS + i * 250 };
            if i == 0 {
                r.put(now, &LinkEvent::Connected { addr: "a:1".into() }).unwrap();
            }
            let mut view = fixture::healthy();
            view.status.epoch += i;
            r.put(now, &LinkEvent::View(Box::new(view))).unwrap();
        }
        std::fs::read(&path).unwrap()
    }

    fn epochs(events: &[(Now, LinkEvent)]) -> Vec<u64> {
        let of = |e: &LinkEvent| if let LinkEvent::View(v) = e { Some(v.status.epoch) } else { None };
        events.iter().filter_map(|(_, e)| of(e)).collect()
    }

    #[test]
    fn what_was_recorded_is_played_in_its_time() {
        let bytes = recording(9);
        let mut p = Player::read(&bytes[..], 4).unwrap();
        assert_eq!(epochs(&p.pass(1_000)), [42]);
        assert!(epochs(&p.pass(1_062)).is_empty());
        assert_eq!(epochs(&p.pass(1_125)), [43, 44], "four times as fast");
        p.steer(Playing::Pause);
        assert_eq!((p.pass(9_000), p.due_in_ms()), (vec![], None));
        p.steer(Playing::Step { on: true });
        assert_eq!(epochs(&p.pass(9_001)), [45]);
        p.steer(Playing::Step { on: false });
        assert!(p.played().back && !p.played().back, "said once");
        assert_eq!(epochs(&p.pass(9_002)), [42, 43, 44], "told again from the beginning");
        p.steer(Playing::Jump(600_000));
        assert_eq!(epochs(&p.pass(9_003)).last(), Some(&50));
        assert_eq!(p.played().views, (9, 9));
        assert_eq!(p.now().wall_ms, fixture::WALL_MS + 2_000);
        p.steer(Playing::To(500));
        assert_eq!(epochs(&p.pass(9_004)), [42, 43, 44, 45, 46]);
        p.steer(Playing::Speed { up: true });
        assert_eq!(p.played().speed, 8);
    }

    #[test]
    fn other_files_are_refused_and_a_cut_off_line_is_no_loss() {
        let bytes = recording(3);
        for (text, says) in [
            (&b"hello\n"[..], "no recording"),
            (b"", "no recording"),
            (b"{\"cachectl_recording\":9,\"cluster\":\"\"}\n", "newer"),
        ] {
            assert!(Player::read(text, 1).unwrap_err().to_string().contains(says));
        }
        let mut p = Player::read(&bytes[..bytes.len() - 40], 1).unwrap();
        p.steer(Playing::Jump(i64::MAX));
        assert_eq!(epochs(&p.pass(0)).len(), 2);
        let mut broken = bytes.clone();
        broken.extend_from_slice(b"{}\n");
        assert!(Player::read(&broken[..], 1).unwrap_err().to_string().starts_with("line 6:"));
    }

    #[test]
    fn every_line_is_json_with_a_type_and_a_time() {
        for line in recording(2).split(|b| *b == b'\n').filter(|l| !l.is_empty()).skip(1) {
            let v: serde_json::Value = serde_json::from_slice(line).unwrap();
            assert!(v["type"].is_string() && v["t_ms"].is_u64() && v["at_ms"].is_u64(), "{v}");
        }
    }
}
