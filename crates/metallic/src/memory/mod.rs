//! Where bytes live: the files they come from, and the plan that is made before anything is allocated.

mod plan;
pub(crate) mod slab;
mod source;

pub(crate) use plan::{BackendBytes, WeightBytes};
pub use plan::{LedgerLine, MemoryPlan, PlanRequest};
pub use source::{GgufFile, SharedBytes};
