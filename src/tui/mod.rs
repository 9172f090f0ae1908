//! The manager on the screen.
//!
//! ```text
//!   keys, mouse, signals ─┐                       ┌─▶ effects: quit, copy, order, ask a key, touch a process, play, …
//!   views from masters ───┼─▶ Msg ─▶ update(&mut Model, Msg) ─▶ Model ─▶ screen::draw(&Model, …) ─▶ terminal
//!   answers, time ────────┘        (pure)                               (pure)
//! ```
//!
//! The link to the masters is a task of its own (`proto::net::watch`), and so is every question (`ask`); the screen never
//! waits for the network. This room knows `proto` and nothing else: how a demo is started and how processes of a local
//! cluster are reached is handed in by the caller.

mod ask;
mod chrome;
pub mod cluster;
pub mod dialog;
pub mod effect;
pub mod escape;
pub mod event;
#[cfg(test)]
#[path = "../../tests/tui/fixture.rs"]
mod fixture;
pub mod glyph;
mod heat;
pub mod history;
pub mod jobs;
pub mod keys;
mod layout;
pub mod link;
pub mod model;
mod moving;
pub mod number;
pub mod palette;
mod prompt;
pub mod replay;
pub mod request;
mod run;
pub mod screen;
pub mod slots;
pub mod snapshot;
pub mod state;
mod terminal;
mod terms;
pub mod theme;
pub mod twin;
pub mod update;
pub mod value;
mod widget;

pub use request::{Local, LocalAnswer, LocalFuture, LocalWish, ProcessAct};
pub use run::{DemoProgress, NoTerminal, StartDemo, TuiOptions, run};
pub use snapshot::{Format, snapshot};
