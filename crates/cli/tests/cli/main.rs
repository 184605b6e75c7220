//! The program as its users meet it: arguments in, output, one error line and an exit code out.
#![allow(clippy::unwrap_used)] // a test's helpers may panic like the test

mod align;
mod alphabet;
mod answers;
mod args;
mod bad_files;
#[cfg(feature = "serve")]
mod batch;
mod bench;
mod budget;
#[cfg(unix)]
mod chat;
#[cfg(all(unix, feature = "hub"))]
mod fake_hub;
#[cfg(feature = "gpu")]
mod gpu;
mod guard;
#[cfg(all(unix, feature = "hub"))]
mod hub_names;
mod inspect;
mod json;
mod odd_files;
mod output;
mod plan;
mod prompt_cache;
#[cfg(unix)]
mod pull;
#[cfg(all(unix, feature = "hub"))]
mod pull_hub;
mod question;
mod run;
mod sandbox;
#[cfg(unix)]
mod store;
#[cfg(unix)]
mod terminal;
mod text;
