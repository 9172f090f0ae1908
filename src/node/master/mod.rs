//! A master.
