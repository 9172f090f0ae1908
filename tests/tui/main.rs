//! The screen from outside: whole pictures against files, and everything at once against random messages.

mod fixture;
mod handling;
mod pictures;
mod random;
mod terminal;
