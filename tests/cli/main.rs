//! The command line from outside: names, flags, streams, exit codes, and what `up` and `down` leave behind.

#[path = "../common/mod.rs"]
mod common;

mod cluster;
mod data;
mod failures;
mod sandbox;
mod words;
