//! The manager on the screen.
//!
//! ```text
//!   keys, mouse, signals ─┐                       ┌─▶ effects: quit, copy, suspend, start a demo, watch others
//!   views from masters ───┼─▶ Msg ─▶ update(&mut Model, Msg) ─▶ Model ─▶ screen::draw(&Model, …) ─▶ terminal
//!   time ─────────────────┘        (pure)                               (pure)
//! ```
//!
//! The link to the masters is a task of its own (`proto::net::watch`); the screen never waits for the network.
//! This room knows `proto` and nothing else: how a demo is started is handed in by the caller.

mod chrome;
pub mod cluster;
pub mod effect;
pub mod escape;
pub mod event;
#[cfg(test)]
#[path = "../../tests/tui/fixture.rs"]
mod fixture;
pub mod glyph;
pub mod history;
pub mod keys;
mod layout;
pub mod link;
pub mod model;
pub mod number;
mod run;
pub mod screen;
pub mod slots;
pub mod snapshot;
mod terminal;
pub mod theme;
pub mod update;
mod widget;

pub use run::{DemoProgress, NoTerminal, StartDemo, TuiOptions, run};
pub use snapshot::{Format, snapshot};
