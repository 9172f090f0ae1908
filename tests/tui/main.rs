//! The screen from outside: whole pictures against files, and everything at once against random messages.

mod colour;
#[path = "../common/mod.rs"]
mod common;
mod fixture;
mod handling;
mod hostile;
mod measure;
mod pictures;
mod random;
mod steering;
mod terminal;
