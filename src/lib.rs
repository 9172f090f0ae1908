//! cachectl: a terminal-first manager of a distributed cache. This page is the table of contents.
//!
//! Arrows run one way: `proto ← node`, `proto ← tui`, `{proto, node, tui} ← cli ← main`.

// Lets files that unit tests and integration tests share say `cachectl::` in both.
#[cfg(test)]
extern crate self as cachectl;

pub mod cli;
pub mod node;
pub mod proto;
pub mod tui;
