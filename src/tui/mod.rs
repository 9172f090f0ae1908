//! The manager on the screen.
