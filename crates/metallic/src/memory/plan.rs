//! What a model will hold in memory, item by item, before anything is allocated.

use crate::backend::KvType;
use crate::error::{Error, Result};
use crate::model::config::ModelConfig;
use crate::model::kv_cache::{PAGE_LEN, layout};
use crate::model::scratch::ScratchSizes;

/// How a model is to be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanRequest {
    /// Positions that each sequence may hold.
    pub n_ctx: usize,
    /// Sequences at the same time.
    pub n_sequences: usize,
    /// Rows of a forward pass.
    pub n_batch: usize,
    /// What keys and values are kept as.
    pub kv_type: KvType,
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
    /// The files, where they are read into memory.
    pub(crate) slab: u64,
    /// Copied, because the file has the other byte order.
    pub(crate) copied: u64,
    /// Norms and biases, copied as floats.
    pub(crate) vectors: u64,
}

/// What a backend needs beside weights, cache and buffers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BackendBytes {
    /// For the inputs of products.
    pub(crate) inputs: u64,
    /// For attention.
    pub(crate) attention: u64,
}

impl MemoryPlan {
    /// Plans for a model on a backend that takes so many bytes for its products and for attention. Pure:
    /// neither reads nor allocates.
    ///
    /// # Errors
    /// A size beyond the address space.
    pub(crate) fn new(
        config: &ModelConfig,
        weights: WeightBytes,
        backend: BackendBytes,
        request: PlanRequest,
    ) -> Result<Self> {
        let too_large = || Error::TooLarge { what: "the KV cache" };
        let n_pages =
            request.n_ctx.div_ceil(PAGE_LEN).checked_mul(request.n_sequences).ok_or_else(too_large)?;
        let mut plan = Self { request, n_pages, ledger: Vec::new() };

        plan.charge("weights", weights.mapped, true, "matrices, where they lie in the file");
        plan.charge("model files", weights.slab, false, "read into memory");
        plan.charge("weights in the other byte order", weights.copied, false, "swapped copies");
        plan.charge("norms and biases", weights.vectors, false, "as 32-bit floats");

        let mut page_bytes = 0usize;
        for layer in &config.layers {
            for bytes in layout(&layer.attention, request.kv_type)?.page_bytes() {
                page_bytes = page_bytes.checked_add(bytes).ok_or_else(too_large)?;
            }
        }
        let kv_bytes = n_pages.checked_mul(page_bytes).ok_or_else(too_large)?;
        let reason = format!(
            "{n_pages} pages of {PAGE_LEN} positions, {} bytes each, as {}",
            page_bytes / PAGE_LEN,
            request.kv_type
        );
        plan.charge("KV cache", kv_bytes as u64, false, &reason);

        for (what, len) in ScratchSizes::new(config, request.n_batch)?.lines() {
            let reason = format!("{len} floats for {} rows", request.n_batch);
            plan.charge(what, len as u64 * 4, false, &reason);
        }
        plan.charge(
            "inputs of products",
            backend.inputs,
            false,
            "quantized activations and expanded weights",
        );
        plan.charge("attention", backend.attention, false, "tiles of queries and sums of steps");
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
