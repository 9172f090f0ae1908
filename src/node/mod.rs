//! The servers: masters and cache nodes.

pub mod cache;
pub mod clock;
pub mod config;
pub mod health;
pub mod home;
pub mod master;
pub mod mutant;
pub mod pages;
#[cfg(test)]
mod sim;
