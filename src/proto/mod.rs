//! The words that all rooms share: ids, slots, the ring, configurations, messages and codecs. No I/O outside `net`.

pub mod args;
pub mod control;
pub mod error;
pub mod event;
pub mod frame;
pub mod id;
pub mod json;
pub mod kinds;
pub mod net;
pub mod operation;
pub mod plan;
pub mod reply;
pub mod resp;
pub mod ring;
pub mod slot;
pub mod stats;
pub mod status;
pub mod table;
pub mod value;
pub mod view;
