//! The load generator behind `cachectl bench`, for cachectl, Redis, Valkey and memcached alike.
//!
//! ```text
//! args ─▶ run ─▶ target     who the servers are, and who serves which slot
//!          │ ─▶ worker ×N  an epoll loop each: source ─▶ codec ─▶ sockets ─▶ codec ─▶ stats
//!          │                 source draws operations (keys), verify judges what came back
//!          └─▶ report      the table, the document; compare sets two side by side
//! ```

pub mod args;
pub mod codec;
pub mod compare;
pub mod histogram;
pub mod keys;
pub mod report;
pub mod run;
pub mod source;
pub mod stats;
pub mod target;
pub mod usage;
pub mod verify;
pub mod worker;
