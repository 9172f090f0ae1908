//! What a server tells a probe or a scraper over HTTP, on the port it has anyway: `GET /metrics`, `/healthz`, `/readyz`.
//!
//! The exposition is written here and not by an exporter crate: the counts live in the data path's own atomics and in the
//! applied state, and a registry would keep a second copy of each, or need as much code to read them as the format has rules.

pub mod exposition;
pub mod http;
pub mod process;
