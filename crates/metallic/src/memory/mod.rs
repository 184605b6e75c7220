//! Where bytes live: the files they come from, how many there may be, the plan that is made before anything is
//! allocated, and what brings those in that have no place of their own.

mod budget;
#[cfg(unix)]
mod bus_error;
#[cfg(target_os = "linux")]
mod control_groups;
mod direct;
mod expert_cache;
mod expert_places;
mod file_stamp;
mod ledger;
mod lock;
mod placement;
mod plan;
mod prediction;
mod read_rate;
mod reader;
pub(crate) mod slab;
mod source;
mod stream;

pub use budget::{BudgetSource, MemoryBudget};
#[cfg(target_os = "linux")]
pub use control_groups::peak_bytes as control_group_peak_bytes;
pub use expert_cache::ExpertStats;
pub(crate) use expert_cache::{CachedTensor, ExpertCache};
pub use expert_places::ExpertPolicy;
pub use file_stamp::FileChange;
pub(crate) use file_stamp::FileStamp;
pub use ledger::{Lease, Leased, Tier};
pub(crate) use lock::lock_memory;
pub use placement::Placement;
pub(crate) use placement::Role;
pub(crate) use plan::{BackendBytes, COPIES, WeightBytes};
pub use plan::{ExpertPlaces, Holder, LedgerLine, MatrixBytes, MemoryPlan, PlanRequest, StreamPlan, Usage};
pub use prediction::{Bound, Prediction, PromptWork, Rates};
pub use read_rate::stream_rate;
pub use reader::{FileRange, ReaderKind};
pub(crate) use source::Resident;
pub use source::{GgufFile, SharedBytes};
pub use stream::StreamStats;
pub(crate) use stream::{StreamedRows, WeightStream};
