//! How much a model is to hold and to do at a time: what of its buffers is for the user to choose.

use super::kv_cache::PAGE_LEN;
use crate::backend::KvType;
use crate::error::{Error, Result};

/// How much a model is to hold and to do at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Positions that each sequence may hold.
    pub n_ctx: usize,
    /// Sequences at the same time.
    pub n_sequences: usize,
    /// Rows of a forward pass.
    pub n_batch: usize,
    /// What keys and values are kept as.
    pub kv_type: KvType,
}

impl Capacity {
    /// Pages of the KV cache, in every layer that has one.
    ///
    /// # Errors
    /// [`Error::TooLarge`]: more than can be counted, or positions beyond 32 bits.
    pub fn n_pages(&self) -> Result<usize> {
        let too_large = || Error::TooLarge { what: "the KV cache" };
        u32::try_from(self.n_ctx).map_err(|_| too_large())?;
        self.n_ctx.div_ceil(PAGE_LEN).checked_mul(self.n_sequences).ok_or_else(too_large)
    }
}
