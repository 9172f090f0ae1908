//! Everything that can happen to the screen, as one closed type. Time is a message too, so that `update` stays pure.

use crossterm::event::{KeyEvent, MouseEvent};

use crate::proto::control::Message;
pub use crate::proto::net::watch::LinkEvent;
use crate::tui::replay::Played;
use crate::tui::request::{KeyAnswer, LocalAnswer, Refusal};

/// What the time is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// A clock that never goes back, milliseconds from an arbitrary start.
    pub mono_ms: u64,
    /// Wall time, milliseconds since 1970; for people only.
    pub wall_ms: u64,
}

/// What a local demo cluster reports while it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DemoEvent {
    /// A step, in words.
    Progress(String),
    /// It runs; these are its masters.
    Started(Vec<String>),
    /// It does not, and why.
    Failed(String),
}

/// Everything that can happen.
#[derive(Debug, Clone, PartialEq)]
pub enum Msg {
    /// Time went on. Sent before every other message.
    Tick(Now),
    /// A key was pressed.
    Key(KeyEvent),
    /// The mouse did something (only with `--mouse`).
    Mouse(MouseEvent),
    /// Text was pasted.
    Paste(String),
    /// The terminal has this many columns and rows.
    Resize(u16, u16),
    /// The screen was taken over by something else and is ours again.
    Repaint,
    /// From the masters.
    Link(LinkEvent),
    /// From a demo cluster that starts.
    Demo(DemoEvent),
    /// The leader's answer to a request.
    Ordered(u64, Result<Box<Message>, Refusal>),
    /// A cache node's.
    Keyed(u64, Result<KeyAnswer, Refusal>),
    /// That of whoever runs the local cluster.
    Local(u64, Result<LocalAnswer, String>),
    /// A file was written, or not.
    Written(String, Result<(), String>),
    /// Where the recording is that is played; if it went back, all that was shown is forgotten first.
    Played(Played),
    /// SIGTERM, SIGHUP or SIGINT came, or the terminal went away.
    Terminate,
}
