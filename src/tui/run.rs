//! The runtime around the pure parts: it gathers messages, lets `update` decide, does the effects and paces the frames.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::pin::Pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use rustix::time::{ClockId, clock_gettime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::ask;
use super::effect::Effect;
use super::event::{DemoEvent, LinkEvent, Msg, Now};
use super::model::{Model, Setup, Tone};
use super::replay::{Player, Recorder};
use super::request::Local;
use super::terminal::{self, Input, Tty};
use super::theme::ThemeName;
use super::update::update;
use crate::proto::net::watch::WatchLink;

/// Frames a second at most: faster ones are not seen.
const FPS: u16 = 20;
/// Over SSH, where a frame is a packet or several.
const FPS_SSH: u16 = 10;
/// The most that may be asked for.
const FPS_MAX: u16 = 60;
/// Messages taken in before a frame is drawn, so that a flood of input can't keep the screen still.
const BATCH_MAX: usize = 64;
/// Answers waiting to be taken in: a screen has a handful of questions open at a time.
const ANSWERS_MAX: usize = 64;
/// Steps of a demo's start waiting to be shown; more are dropped, the latest matter.
const DEMO_STEPS_MAX: usize = 16;

/// Standard input or output is no terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the manager needs a terminal on standard input and output; `cachectl status --watch` prints without one")]
pub struct NoTerminal;

/// Where a demo's start says what it does.
#[derive(Debug, Clone)]
pub struct DemoProgress(mpsc::Sender<String>);

impl DemoProgress {
    /// Shows a step. Never waits; a step too many is dropped.
    pub fn say(&self, step: impl Into<String>) {
        let _ = self.0.try_send(step.into());
    }
}

/// Starts a local demo cluster and returns its masters' addresses. Must not block the thread: the screen runs on it.
pub type StartDemo = Box<dyn Fn(DemoProgress) -> DemoFuture>;
type DemoFuture = Pin<Box<dyn Future<Output = anyhow::Result<Vec<String>>>>>;

/// What the caller decides.
#[derive(Default)]
pub struct TuiOptions {
    /// The masters' addresses, host:port; none shows the start screen.
    pub masters: Vec<String>,
    /// The cluster's name, until a view tells it.
    pub cluster: Option<String>,
    /// No action may change anything.
    pub read_only: bool,
    /// Nothing outside ASCII. Also chosen for a Linux console and a locale that is not UTF-8.
    pub ascii: bool,
    /// Colours.
    pub theme: ThemeName,
    /// `--color never`; `NO_COLOR` does the same.
    pub no_color: bool,
    /// Take clicks and the wheel.
    pub mouse: bool,
    /// Frames a second at most; none = 20, over SSH 10.
    pub fps: Option<u16>,
    /// How `u` starts a demo; none = it can't.
    pub start_demo: Option<StartDemo>,
    /// How processes of the cluster are reached, if they are on this machine.
    pub local: Option<Local>,
    /// How a command line that means this cluster begins; empty = `cachectl`.
    pub program: String,
    /// Keeps what is seen in this new file.
    pub record: Option<PathBuf>,
    /// Plays this file instead of watching a cluster; so many times faster than life.
    pub replay: Option<(PathBuf, u32)>,
    /// Tests only: F12 panics.
    pub panic_key: bool,
}

/// Takes the terminal over until the person leaves.
///
/// Errors: [`NoTerminal`], or what the terminal itself said. A server that is gone is no error.
pub async fn run(options: TuiOptions) -> anyhow::Result<()> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Err(NoTerminal.into());
    }
    let env = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    // What is wrong with files is said before the terminal is taken.
    let player = options.replay.as_ref().map(|(path, speed)| {
        Player::open(path, *speed).map_err(|e| e.context(format!("{} can't be played", path.display())))
    });
    let player = player.transpose()?;
    let recorder = options.record.as_ref().map(|path| {
        let cluster = options.cluster.as_deref().unwrap_or_default();
        Recorder::create(path, cluster).with_context(|| format!("{} can't be recorded to", path.display()))
    });
    let recorder = recorder.transpose()?;
    let fps = options.fps.unwrap_or(if env("SSH_CONNECTION").is_some() { FPS_SSH } else { FPS }).clamp(1, FPS_MAX);
    let setup = Setup {
        masters: options.masters.clone(),
        cluster: player.as_ref().map(|p| p.cluster.clone()).or(options.cluster.clone()),
        read_only: options.read_only,
        ascii: options.ascii || !draws_unicode(env),
        theme: options.theme.resolve(options.no_color || env("NO_COLOR").is_some(), env("COLORFGBG").as_deref()),
        can_start_demo: options.start_demo.is_some() && player.is_none(),
        local: options.local.is_some() && player.is_none(),
        program: options.program.clone(),
        panic_key: options.panic_key,
        utc_offset_s: chrono::Local::now().offset().local_minus_utc(),
    };
    let mut signals = Signals::new()?;
    let tty = Tty::take(options.mouse)?;
    let input = Input::start()?;
    let live = player.is_none() && !options.masters.is_empty();
    let link = live.then(|| WatchLink::start("tui", options.masters.iter().cloned()));
    let mut model = Model::new(setup);
    model.size = tty.size()?;
    let (tell, answers) = mpsc::channel(ANSWERS_MAX);
    let mut app = App {
        model,
        tty,
        input,
        link,
        demo: None,
        start_demo: options.start_demo,
        local: options.local,
        tell,
        answers,
        recorder,
        player,
        quit: false,
    };
    app.run(&mut signals, Duration::from_millis(1000 / u64::from(fps))).await
}

/// Whether the terminal can be expected to draw Unicode, by what the environment says.
fn draws_unicode(env: impl Fn(&str) -> Option<String>) -> bool {
    if env("TERM").is_some_and(|t| t == "linux" || t == "dumb") {
        return false;
    }
    // The first that is set decides, as in setlocale(3); where none is, terminals of today do.
    match ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(|name| env(name)) {
        Some(locale) => {
            let locale = locale.to_ascii_lowercase();
            locale.contains("utf-8") || locale.contains("utf8")
        }
        None => true,
    }
}

/// Signals that end the screen, and those that follow a change of hands.
struct Signals {
    terminate: Signal,
    hangup: Signal,
    interrupt: Signal,
    resized: Signal,
    continued: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            resized: signal(SignalKind::window_change())?,
            continued: signal(SignalKind::from_raw(rustix::process::Signal::CONT.as_raw()))?,
        })
    }
}

/// A demo that starts.
struct Starting {
    future: DemoFuture,
    steps: mpsc::Receiver<String>,
}

struct App {
    model: Model,
    tty: Tty,
    input: Input,
    link: Option<WatchLink>,
    demo: Option<Starting>,
    start_demo: Option<StartDemo>,
    local: Option<Local>,
    /// Given to every task that asks.
    tell: mpsc::Sender<Msg>,
    answers: mpsc::Receiver<Msg>,
    recorder: Option<Recorder>,
    player: Option<Player>,
    quit: bool,
}

impl App {
    async fn run(&mut self, signals: &mut Signals, frame: Duration) -> anyhow::Result<()> {
        self.pass_time()?;
        let mut drawn = Instant::now();
        self.tty.draw(&self.model)?;
        let mut dirty = false;
        while !self.quit {
            let wake = if dirty { drawn + frame } else { Instant::now() + self.idle_for() };
            let msg = tokio::select! {
                () = sleep_until(wake) => None,
                msg = self.input.events.recv() => Some(msg.unwrap_or(Msg::Terminate)),
                event = said(&mut self.link) => Some(Msg::Link(event)),
                answer = self.answers.recv() => answer,
                event = demo_event(&mut self.demo) => Some(Msg::Demo(event)),
                _ = signals.terminate.recv() => Some(Msg::Terminate),
                _ = signals.hangup.recv() => Some(Msg::Terminate),
                _ = signals.interrupt.recv() => Some(Msg::Terminate),
                _ = signals.resized.recv() => { let (w, h) = self.tty.size()?; Some(Msg::Resize(w, h)) }
                _ = signals.continued.recv() => { self.tty.retake()?; Some(Msg::Repaint) }
            };
            // Before anything is drawn or read again: a terminal that hung up may not say so by a signal.
            if terminal::is_gone() {
                return Ok(());
            }
            self.pass_time()?;
            if let Some(msg) = msg {
                self.record(&msg)?;
                self.take_in(msg)?;
                for _ in 0..BATCH_MAX {
                    let Ok(msg) = self.input.events.try_recv() else { break };
                    self.take_in(msg)?;
                }
            }
            dirty = true;
            if !self.quit && drawn.elapsed() >= frame {
                self.tty.draw(&self.model)?;
                drawn = Instant::now();
                dirty = false;
            }
        }
        Ok(())
    }

    /// Time went on; in a recording so did what was recorded.
    fn pass_time(&mut self) -> anyhow::Result<()> {
        let Some(player) = &mut self.player else { return self.take_in(Msg::Tick(now())) };
        let events = player.pass(now().mono_ms);
        let (played, end) = (player.played(), player.now());
        self.take_in(Msg::Played(played))?;
        for (now, event) in events {
            self.take_in(Msg::Tick(now))?;
            self.take_in(Msg::Link(event))?;
        }
        self.take_in(Msg::Tick(end))
    }

    /// Keeps what the link says. A disk that is full ends the recording, not the screen.
    fn record(&mut self, msg: &Msg) -> anyhow::Result<()> {
        let (Some(recorder), Msg::Link(event)) = (&mut self.recorder, msg) else { return Ok(()) };
        if let Err(why) = recorder.put(now(), event) {
            self.recorder = None;
            self.model.tell(Tone::Alert, format!("the recording ended: {why}"));
        }
        Ok(())
    }

    /// Asks in a task of its own; its answer comes back as a message.
    fn ask(&self, task: impl Future<Output = Msg> + Send + 'static) {
        let tell = self.tell.clone();
        tokio::spawn(async move {
            // Nobody listens any more when the screen was left.
            let _ = tell.send(task.await).await;
        });
    }

    /// How long nothing will change by itself: until the clock's next second, or the link's next state.
    fn idle_for(&self) -> Duration {
        if let Some(player) = &self.player {
            /// A playing bar moves visibly, a standing one need not.
            const BAR_MS: u64 = 200;
            let due = player.due_in_ms().map_or(1000, |ms| ms.min(BAR_MS));
            return Duration::from_millis(due.max(1));
        }
        let now = self.model.now;
        let second = 1000 - now.wall_ms % 1000;
        let link = self.model.link.next_change_ms(now.mono_ms).map_or(second, |at| at - now.mono_ms);
        Duration::from_millis(second.min(link).max(1))
    }

    fn take_in(&mut self, msg: Msg) -> anyhow::Result<()> {
        for effect in update(&mut self.model, msg) {
            match effect {
                Effect::Quit => self.quit = true,
                Effect::Copy(text) => self.tty.copy(&text)?,
                Effect::Repaint => self.tty.forget()?,
                Effect::Suspend => self.tty.suspend()?,
                Effect::Order(order) => {
                    self.ask(async move { Msg::Ordered(order.id, ask::order(order).await) });
                }
                Effect::Key { id, seeds, key, wish } => {
                    self.ask(async move { Msg::Keyed(id, ask::key(seeds, key, wish).await) });
                }
                Effect::Local { id, wish } => {
                    let Some(local) = &self.local else { continue };
                    let future = local(wish);
                    self.ask(async move { Msg::Local(id, future.await.map_err(|e| format!("{e:#}"))) });
                }
                Effect::Write { path, text } => {
                    let result = ask::write(&path, &text);
                    let tell = self.tell.clone();
                    // The queue is longer than what can be open at a time; a note too many is no loss.
                    let _ = tell.try_send(Msg::Written(path, result));
                }
                Effect::Play(how) => {
                    if let Some(player) = &mut self.player {
                        player.steer(how);
                    }
                }
                #[allow(clippy::panic)]
                Effect::Panic => panic!("asked for by a test"),
                Effect::Watch(masters) => self.link = Some(WatchLink::start("tui", masters)),
                Effect::StartDemo => {
                    if let Some(start) = &self.start_demo {
                        let (tx, steps) = mpsc::channel(DEMO_STEPS_MAX);
                        self.demo = Some(Starting { future: start(DemoProgress(tx)), steps });
                    }
                }
            }
        }
        Ok(())
    }
}

/// What the link says next; for ever nothing without one.
async fn said(link: &mut Option<WatchLink>) -> LinkEvent {
    match link {
        Some(link) => link.recv().await,
        None => std::future::pending().await,
    }
}

/// What a starting demo says next; for ever nothing without one.
async fn demo_event(demo: &mut Option<Starting>) -> DemoEvent {
    let Some(starting) = demo else { return std::future::pending().await };
    let event = tokio::select! {
        biased;
        Some(step) = starting.steps.recv() => return DemoEvent::Progress(step),
        result = &mut starting.future => match result {
            Ok(masters) => DemoEvent::Started(masters),
            Err(why) => DemoEvent::Failed(format!("{why:#}")),
        },
    };
    *demo = None;
    event
}

fn now() -> Now {
    // Ages must count the time a laptop slept: a view from before it is old.
    #[cfg(target_os = "linux")]
    let clock = ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    let clock = ClockId::Monotonic;
    let t = clock_gettime(clock);
    let mono_ms = u64::try_from(t.tv_sec).unwrap_or(0) * 1000 + u64::try_from(t.tv_nsec).unwrap_or(0) / 1_000_000;
    let wall_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
    Now { mono_ms, wall_ms }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ascii_is_chosen_where_unicode_can_not_be_expected() {
        let with = |pairs: &'static [(&str, &str)]| {
            draws_unicode(move |name| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
        };
        assert!(with(&[]));
        assert!(with(&[("LANG", "de_DE.UTF-8"), ("TERM", "xterm")]));
        assert!(with(&[("LC_ALL", "C.utf8"), ("LANG", "C")]));
        assert!(!with(&[("LANG", "C")]));
        assert!(!with(&[("LC_ALL", "POSIX"), ("LANG", "de_DE.UTF-8")]));
        assert!(!with(&[("TERM", "linux"), ("LANG", "de_DE.UTF-8")]));
    }
}
