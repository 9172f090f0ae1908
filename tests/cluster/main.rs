//! Faults on real processes, one scenario a test: what a client saw acknowledged is there afterwards, and every answer can be
//! explained by one register per key.

mod client;
#[path = "../common/mod.rs"]
mod common;
mod data;
mod fleet;
mod history;
mod load;
mod masters;
mod mix;
mod moves;
mod net;
mod nodes;
mod proxy;
mod times;
mod zones;

/// One cluster under load at a time: two cores carry no more, and a fault test must not be another's fault.
static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn alone() -> std::sync::MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
