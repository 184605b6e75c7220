//! Whole models against answers that were computed elsewhere.

mod architectures;
mod bad_input;
mod consistency;
mod containers;
mod cuts;
mod layouts;
mod oracles;
mod real_models;
mod reference;
mod residency;
mod routes;
mod unused;
mod warnings;
