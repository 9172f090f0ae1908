//! The command line from outside: names, flags, streams, exit codes, and what `up` and `down` leave behind.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

#[path = "../common/mod.rs"]
mod common;

mod bench;
mod cluster;
mod data;
mod docs;
mod documents;
mod failures;
mod fake_cache;
mod health;
mod hosts;
mod metrics;
mod operators;
mod processes;
mod rolling;
mod sandbox;
mod scale;
mod shells;
mod words;
