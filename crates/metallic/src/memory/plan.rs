//! What a model will hold in memory, item by item, before anything is allocated.

use super::expert_places::{ExpertTensor, share};
use super::placement::{Placement, Role, place};
use super::slab;
use super::stream::WeightStream;
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
    /// Bytes that the process may hold; `None` for as many as the model takes.
    pub ram_bytes: Option<u64>,
    /// Chunks that are read ahead or in use, where weights are streamed.
    pub n_slots: usize,
    /// Bytes of a chunk at most; `None` for a size that goes with the budget.
    pub chunk_bytes: Option<usize>,
    /// Whether the files are read into memory where all of them fit, instead of being used in their maps.
    pub in_slab: bool,
}

/// Code, stacks, and what the allocator and small things take: an estimate on the safe side. Peaks within control groups
/// were below the whole ledger.
const PROGRAM_BYTES: u64 = 16 << 20;

/// Bytes of a tokenizer for each byte of metadata: its tables of tokens and merges.
const TOKENIZER_FACTOR: u64 = 4;

/// Chunks are not made larger than this: with a few under way, disks gain nothing from it.
const MAX_CHUNK_BYTES: u64 = 4 << 20;

/// Nor smaller, but for a test: each costs the disk and the threads a fixed time.
const MIN_CHUNK_BYTES: u64 = 128 << 10;

/// The slots of a small budget take one part of so many.
const SLOTS_SHARE: u64 = 16;

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

/// A matrix of weights, and where it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatrixBytes {
    /// The tensor.
    pub name: String,
    /// Its bytes in the file.
    pub bytes: u64,
    /// Where it is while the model runs.
    pub placement: Placement,
    /// Of experts that are swapped in, how many can stay in memory.
    pub cache: Option<ExpertPlaces>,
}

/// Room for some experts of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpertPlaces {
    /// Experts that the tensor has.
    pub n_experts: usize,
    /// Experts that there is room for.
    pub n_places: usize,
}

/// How weights are swapped in, where not all stay in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamPlan {
    /// Chunks that are read ahead or in use.
    pub n_slots: usize,
    /// Bytes of a chunk at most, if a row is not longer.
    pub chunk_bytes: usize,
    /// Bytes of the longest row that is read by itself.
    pub max_row_bytes: usize,
}

/// An itemised list of every large thing a model holds, and a place for every matrix. Loading allocates just that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// How the model is to be used.
    pub request: PlanRequest,
    /// Pages of the KV cache, in every layer.
    pub n_pages: usize,
    /// The list.
    pub ledger: Vec<LedgerLine>,
    /// The matrices, in the order in which they are looked for in the file.
    pub matrices: Vec<MatrixBytes>,
    /// How weights are swapped in, where not all stay in memory.
    pub stream: Option<StreamPlan>,
}

/// What the plan needs to know of the weights.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct WeightBytes {
    /// Those that can be used as the file holds them.
    pub(crate) matrices: Vec<MatrixSize>,
    /// Bytes of all files, which an all-resident slab takes.
    pub(crate) files: u64,
    /// Copied, because the file has the other byte order.
    pub(crate) copied: u64,
    /// Norms and biases, copied as floats.
    pub(crate) vectors: u64,
    /// Metadata, of which the vocabulary is the most.
    pub(crate) metadata: u64,
}

/// A matrix in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MatrixSize {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) bytes: u64,
    pub(crate) row_bytes: u64,
    /// 0 if it is not a tensor of experts.
    pub(crate) n_experts: usize,
}

/// What a backend needs beside weights, cache and buffers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BackendBytes {
    /// For the inputs of products.
    pub(crate) inputs: u64,
    /// For attention.
    pub(crate) attention: u64,
}

const KV_CACHE: &str = "KV cache";

impl MemoryPlan {
    /// Plans for a model on a backend that takes so many bytes for its products and for attention. Pure:
    /// neither reads nor allocates.
    ///
    /// # Errors
    /// A size beyond the address space; [`Error::BudgetTooSmall`].
    pub(crate) fn new(
        config: &ModelConfig,
        weights: &WeightBytes,
        backend: BackendBytes,
        request: PlanRequest,
    ) -> Result<Self> {
        let too_large = || Error::TooLarge { what: "the KV cache" };
        let n_pages =
            request.n_ctx.div_ceil(PAGE_LEN).checked_mul(request.n_sequences).ok_or_else(too_large)?;
        let mut plan = Self { request, n_pages, ledger: Vec::new(), matrices: Vec::new(), stream: None };

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
        plan.charge(KV_CACHE, kv_bytes as u64, false, &reason);

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
        plan.charge("tokenizer", weights.metadata * TOKENIZER_FACTOR, false, "tables of tokens, estimated");
        plan.charge("program", PROGRAM_BYTES, false, "code, stacks and small things");
        plan.place_weights(weights)?;
        Ok(plan)
    }

    /// Adds the lines of the weights: as they are if there is room for all of them, else some in memory and slots for
    /// the others.
    fn place_weights(&mut self, weights: &WeightBytes) -> Result<()> {
        let fixed = self.total_bytes();
        let total: u64 = weights.matrices.iter().map(|matrix| matrix.bytes).sum();
        let whole = if self.request.in_slab { weights.files } else { total };
        let budget = self.request.ram_bytes.unwrap_or(u64::MAX);
        if fixed.saturating_add(whole) <= budget {
            self.keep(weights, |_| Placement::Resident);
            if self.request.in_slab {
                self.charge("model files", whole, false, "read into memory");
            } else {
                self.charge("weights", whole, true, "matrices, where they lie in the file");
            }
            return Ok(());
        }
        let PlanRequest { n_slots, n_ctx, n_batch, kv_type, .. } = self.request;
        let max_row_bytes =
            weights.matrices.iter().map(|matrix| matrix.row_bytes).max().unwrap_or(0) as usize;
        let stream = |chunk_bytes: u64| {
            let chunk_bytes = (chunk_bytes as usize).max(max_row_bytes);
            StreamPlan { n_slots, chunk_bytes, max_row_bytes }
        };
        let least = stream(self.request.chunk_bytes.map_or(MIN_CHUNK_BYTES, |bytes| bytes as u64));
        let floor = fixed.saturating_add(WeightStream::slot_bytes(least));
        let Some(rest) = budget.checked_sub(floor) else {
            return Err(Error::BudgetTooSmall {
                budget_bytes: budget,
                floor_bytes: floor.min(fixed.saturating_add(whole)),
                n_ctx,
                n_batch,
                kv_type,
            });
        };
        let stream = if self.request.chunk_bytes.is_some() {
            least
        } else {
            let share = (budget / SLOTS_SHARE).min(rest / 2) / n_slots as u64;
            stream(share.clamp(MIN_CHUNK_BYTES, MAX_CHUNK_BYTES))
        };
        let slots = WeightStream::slot_bytes(stream);
        let capacity = budget - fixed - slots;
        let in_slab = |matrix: &MatrixSize| slab::bytes_for(matrix.bytes as usize) as u64;
        let sizes: Vec<_> = weights.matrices.iter().map(|matrix| (matrix.role, in_slab(matrix))).collect();
        let mut placements = place(&sizes, capacity);
        // Experts stay by use, and not by layer.
        for ((role, _), placement) in sizes.iter().zip(&mut placements) {
            if let Role::Experts(_) = role {
                *placement = Placement::Streamed;
            }
        }
        self.keep(weights, |i| placements[i]);
        let resident = sizes.iter().zip(&placements).filter(|(_, place)| **place == Placement::Resident);
        let resident: u64 = resident.map(|((_, bytes), _)| bytes).sum();
        let reason = format!("of {total} bytes of matrices, those that there is room for");
        self.charge("resident weights", resident, false, &reason);
        let reason = format!("{n_slots} for chunks of {} bytes, one for a row", stream.chunk_bytes);
        self.charge("slots", slots, false, &reason);
        self.cache_experts(weights, capacity - resident);
        self.stream = Some(stream);
        Ok(())
    }

    /// Gives experts that are swapped in places to stay, as far as there is room.
    fn cache_experts(&mut self, weights: &WeightBytes, capacity: u64) {
        let mut matrices = Vec::new();
        let mut tensors = Vec::new();
        for (size, matrix) in weights.matrices.iter().zip(&mut self.matrices) {
            if let Role::Experts(layer) = size.role {
                let n_experts = size.n_experts;
                tensors.push(ExpertTensor { layer, n_experts, expert_bytes: size.bytes / n_experts as u64 });
                matrices.push(matrix);
            }
        }
        let (mut bytes, mut n_kept, mut n_all) = (0, 0, 0);
        for ((n_places, tensor), matrix) in share(&tensors, capacity).into_iter().zip(&tensors).zip(matrices)
        {
            let n_experts = tensor.n_experts;
            matrix.cache = (n_places > 0).then_some(ExpertPlaces { n_experts, n_places });
            bytes += n_places as u64 * tensor.expert_bytes;
            (n_kept, n_all) = (n_kept + n_places, n_all + n_experts);
        }
        let reason = format!("{n_kept} of {n_all} matrices of experts, kept as they are used");
        self.charge("expert cache", bytes, false, &reason);
    }

    fn keep(&mut self, weights: &WeightBytes, placement: impl Fn(usize) -> Placement) {
        let matrices = weights.matrices.iter().enumerate();
        self.matrices = matrices
            .map(|(i, matrix)| MatrixBytes {
                name: matrix.name.clone(),
                bytes: matrix.bytes,
                placement: placement(i),
                cache: None,
            })
            .collect();
    }

    /// Bytes of the matrices that are placed so.
    pub fn placed_bytes(&self, placement: Placement) -> u64 {
        self.matrices.iter().filter(|matrix| matrix.placement == placement).map(|matrix| matrix.bytes).sum()
    }

    /// Bytes of the KV cache.
    pub(crate) fn kv_bytes(&self) -> u64 {
        self.ledger.iter().filter(|line| line.what == KV_CACHE).map(|line| line.bytes).sum()
    }

    /// Bytes of all lines.
    pub fn total_bytes(&self) -> u64 {
        self.ledger.iter().map(|line| line.bytes).sum()
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
