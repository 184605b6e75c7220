//! Whole models against answers that were computed elsewhere.

mod architectures;
mod oracles;
mod real_models;
