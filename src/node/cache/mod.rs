//! A cache node: primary and backup LRUs, clients, peers.

pub mod effect;
pub mod store;
pub mod peer;
pub mod slot;
pub mod shard;
