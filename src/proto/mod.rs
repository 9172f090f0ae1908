//! The words that all rooms share: ids, slots, the ring, configurations, messages and codecs. No I/O outside `net`.

pub mod args;
pub mod control;
pub mod error;
pub mod event;
pub mod id;
pub mod net;
pub mod reply;
pub mod slot;
pub mod stats;
pub mod status;
pub mod view;
