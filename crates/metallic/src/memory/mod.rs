//! Where bytes live: the files they come from, how many there may be, and the plan that is made before anything is allocated.

mod budget;
#[cfg(target_os = "linux")]
mod control_groups;
mod plan;
pub(crate) mod slab;
mod source;

pub use budget::{BudgetSource, MemoryBudget};
pub(crate) use plan::{BackendBytes, WeightBytes};
pub use plan::{LedgerLine, MemoryPlan, PlanRequest};
pub use source::{GgufFile, SharedBytes};
