//! A small world around the brain.
