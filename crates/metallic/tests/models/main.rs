//! Whole models against answers that were computed elsewhere.

mod architectures;
mod consistency;
mod containers;
mod oracles;
mod real_models;
mod residency;
