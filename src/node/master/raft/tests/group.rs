//! Whole groups.
