//! Where bytes live: the files they come from, how many there may be, who has taken how many, and what brings those in
//! that have no place of their own. What each is for, only those above this know.

mod budget;
#[cfg(unix)]
mod bus_error;
#[cfg(target_os = "linux")]
mod control_groups;
mod direct;
mod expert_cache;
pub(crate) mod expert_places;
mod file_stamp;
mod ledger;
mod lock;
mod matrix;
mod reader;
pub(crate) mod slab;
mod source;
mod stream;

pub use budget::{BudgetSource, MemoryBudget};
#[cfg(target_os = "linux")]
pub use control_groups::peak_bytes as control_group_peak_bytes;
pub(crate) use direct::{BLOCK_BYTES, DirectFile};
pub use expert_cache::ExpertStats;
pub(crate) use expert_cache::{CachedTensor, EXPERT_CACHE, ExpertCache};
pub use expert_places::{ExpertPolicy, Places, Residence};
pub(crate) use file_stamp::FileStamp;
pub use ledger::{Lease, Leased, Tier};
pub(crate) use lock::lock_memory;
pub use matrix::{MatrixBytes, MatrixData};
pub(crate) use reader::MAX_READ_BYTES;
pub use reader::{FileRange, ReaderKind, Slot};
pub(crate) use source::Resident;
pub use source::{GgufFile, SharedBytes};
pub use stream::{StreamPlan, StreamStats, StreamedRows, WeightStream};
