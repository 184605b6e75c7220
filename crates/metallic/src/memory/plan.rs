//! What a model will hold in memory, item by item, before anything is allocated.

use crate::error::{Error, Result};
use crate::model::config::ModelConfig;
use crate::model::kv_cache::PAGE_LEN;
use crate::model::scratch::ScratchSizes;

/// Bytes of a cached key or value: IEEE half precision.
const KV_VALUE_BYTES: usize = 2;

/// How a model is to be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanRequest {
    /// Positions that each sequence may hold.
    pub n_ctx: usize,
    /// Sequences at the same time.
    pub n_sequences: usize,
    /// Rows of a forward pass.
    pub n_batch: usize,
}

/// One thing that takes memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerLine {
    /// What it is.
    pub what: String,
    /// Its size.
    pub bytes: u64,
    /// Whether it is a mapped part of the file, which the system may drop and read again, or allocated.
    pub mapped: bool,
    /// Where the size comes from.
    pub reason: String,
}

/// An itemised list of every large thing a model holds. Loading allocates just that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// How the model is to be used.
    pub request: PlanRequest,
    /// Pages of the KV cache, in every layer.
    pub n_pages: usize,
    /// The list.
    pub ledger: Vec<LedgerLine>,
}

/// What the plan needs to know of the weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WeightBytes {
    /// Used where they lie in the file.
    pub(crate) mapped: u64,
    /// Copied, because the file has the other byte order.
    pub(crate) copied: u64,
    /// Norms and biases, copied as floats.
    pub(crate) vectors: u64,
}

impl MemoryPlan {
    /// Plans for a model on a backend that takes `input_bytes` for the inputs of its products. Pure: neither
    /// reads nor allocates.
    ///
    /// # Errors
    /// A size beyond the address space.
    pub(crate) fn new(
        config: &ModelConfig,
        weights: WeightBytes,
        input_bytes: u64,
        request: PlanRequest,
    ) -> Result<Self> {
        let too_large = || Error::TooLarge { what: "the KV cache" };
        let n_pages =
            request.n_ctx.div_ceil(PAGE_LEN).checked_mul(request.n_sequences).ok_or_else(too_large)?;
        let mut plan = Self { request, n_pages, ledger: Vec::new() };

        plan.charge("weights", weights.mapped, true, "matrices, where they lie in the file");
        plan.charge("weights in the other byte order", weights.copied, false, "swapped copies");
        plan.charge("norms and biases", weights.vectors, false, "as 32-bit floats");

        let mut position_bytes = 0usize;
        for layer in &config.layers {
            let a = &layer.attention;
            let values = a.key_length.checked_add(a.value_length).and_then(|n| n.checked_mul(a.n_head_kv));
            let bytes = values.and_then(|n| n.checked_mul(KV_VALUE_BYTES));
            position_bytes = bytes.and_then(|n| n.checked_add(position_bytes)).ok_or_else(too_large)?;
        }
        let kv_bytes = n_pages.checked_mul(PAGE_LEN).and_then(|n| n.checked_mul(position_bytes));
        let reason = format!("{n_pages} pages of {PAGE_LEN} positions, {position_bytes} bytes each, as F16");
        plan.charge("KV cache", kv_bytes.ok_or_else(too_large)? as u64, false, &reason);

        for (what, len) in ScratchSizes::new(config, request.n_batch)?.lines() {
            let reason = format!("{len} floats for {} rows", request.n_batch);
            plan.charge(what, len as u64 * 4, false, &reason);
        }
        plan.charge("inputs of products", input_bytes, false, "quantized activations and expanded weights");
        Ok(plan)
    }

    fn charge(&mut self, what: &str, bytes: u64, mapped: bool, reason: &str) {
        if bytes > 0 {
            let (what, reason) = (what.to_owned(), reason.to_owned());
            self.ledger.push(LedgerLine { what, bytes, mapped, reason });
        }
    }

    /// Bytes that are allocated, as opposed to mapped.
    pub fn allocated_bytes(&self) -> u64 {
        self.ledger.iter().filter(|line| !line.mapped).map(|line| line.bytes).sum()
    }

    /// Bytes of the file that are mapped.
    pub fn mapped_bytes(&self) -> u64 {
        self.ledger.iter().filter(|line| line.mapped).map(|line| line.bytes).sum()
    }
}
