//! A cache node: primary and backup LRUs, clients, peers.

pub mod command;
pub mod effect;
pub mod store;
