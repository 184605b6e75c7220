//! Where bytes live: the files they come from, how many there may be, the plan that is made before anything is
//! allocated, and what brings those in that have no place of their own.

mod budget;
#[cfg(target_os = "linux")]
mod control_groups;
mod direct;
mod ledger;
mod placement;
mod plan;
mod prediction;
mod reader;
pub(crate) mod slab;
mod source;
mod stream;

pub use budget::{BudgetSource, MemoryBudget};
pub use ledger::{Lease, Leased, Tier};
pub use placement::Placement;
pub(crate) use placement::Role;
pub(crate) use plan::{BackendBytes, COPIES, WeightBytes};
pub use plan::{Holder, LedgerLine, MatrixBytes, MemoryPlan, PlanRequest, StreamPlan, Usage};
pub use prediction::{Bound, Prediction, PromptWork, Rates};
pub use reader::{FileRange, ReaderKind};
pub(crate) use source::Resident;
pub use source::{GgufFile, SharedBytes};
pub use stream::{StreamStats, stream_rate};
pub(crate) use stream::{StreamedRows, WeightStream};
