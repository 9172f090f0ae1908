//! The only I/O of `proto`: control connections, a client that follows REFRESH_MASTER, the WATCH link, a cluster client.

pub mod conn;
