//! The screen from outside: whole pictures against files, and everything at once against random messages.

mod colour;
mod fixture;
mod handling;
mod hostile;
mod pictures;
mod random;
mod terminal;
