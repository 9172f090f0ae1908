//! Everything that can happen to the screen, as one closed type. Time is a message too, so that `update` stays pure.

use crossterm::event::{KeyEvent, MouseEvent};

pub use crate::proto::net::watch::LinkEvent;

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
    /// SIGTERM, SIGHUP or SIGINT came, or the terminal went away.
    Terminate,
}
