//! Tests of the format, one program: what is accepted and what it means, what is refused and why.
#![allow(clippy::unwrap_used)] // helpers of tests, which Clippy does not take for tests

mod getters;
mod malformed;
mod oracles;
mod python;
mod raw;
mod reading;
mod robustness;
mod scale;
mod shards;
mod writing;
