//! What `update` asks the world to do. It does nothing itself.

use super::replay::Playing;
use super::request::{KeyWish, LocalWish, Order};

/// One request to the runtime.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Leave the screen.
    Quit,
    /// Put this text on the clipboard (OSC 52).
    Copy(String),
    /// Draw everything anew, whatever the terminal is thought to show.
    Repaint,
    /// Stop this process as Ctrl-Z does in any other program.
    Suspend,
    /// Start a demo cluster on this machine.
    StartDemo,
    /// Watch these masters from now on.
    Watch(Vec<String>),
    /// Ask the leader. Answered by `Msg::Ordered`.
    Order(Order),
    /// Ask the node that has a key. Answered by `Msg::Keyed`.
    Key {
        /// The number that the answer carries.
        id: u64,
        /// Addresses of nodes to begin with.
        seeds: Vec<String>,
        /// Which key.
        key: String,
        /// What of it.
        wish: KeyWish,
    },
    /// Ask whoever runs the local cluster. Answered by `Msg::Local`.
    Local {
        /// The number that the answer carries.
        id: u64,
        /// What.
        wish: LocalWish,
    },
    /// Write a new file. Answered by `Msg::Written`.
    Write {
        /// Where.
        path: String,
        /// What.
        text: String,
    },
    /// Steer the recording that is played.
    Play(Playing),
    /// Tests only: panic, to see that the terminal is given back.
    Panic,
}
