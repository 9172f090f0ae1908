//! Raft's tests: the store against openraft's suite and faults, then whole groups in one process.

mod group;
mod store;
