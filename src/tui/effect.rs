//! What `update` asks the world to do. It does nothing itself.

/// One request to the runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
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
}
