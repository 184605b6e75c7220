//! Where every matrix is to be: in a device's memory, in main memory, on the disk, or partly here and partly there; with what
//! brings it to who computes.

use std::collections::BTreeSet;

use super::{DeviceNeeds, ExpertPlaces, FileBytes, Holder, MatrixPlan, MemoryPlan, Placement, PlanRequest};
use super::{StageNeeds, WeightBytes, placement};
use crate::error::{Error, Result};
use crate::memory::expert_places::{self, ExpertTensor};
use crate::memory::{BLOCK_BYTES, EXPERT_CACHE, MAX_READ_BYTES, StreamPlan, WeightStream, slab};
use crate::model::Capacity;
use crate::model::weights::MatrixRole;

/// Chunks are not made larger than this, with which a slot, a block longer, is as long as a request and two huge pages.
const MAX_CHUNK_BYTES: usize = MAX_READ_BYTES - BLOCK_BYTES;

/// Where there is little room there are fewer slots, down to this, before chunks are made smaller than two huge pages:
/// with so many the disk does not stop while one is in use.
const MIN_SLOTS: usize = 4;

/// Nor smaller, but for a test: each costs the disk and the threads a fixed time.
const MIN_CHUNK_BYTES: usize = 128 << 10;

/// The slots of a small budget take one part of so many.
const SLOTS_SHARE: u64 = 16;

const SLOTS_OF_DEVICE: &str = "for weights on their way in from main memory";

impl MemoryPlan {
    /// Adds the lines of a device's weights, which it has room for beside `fixed` bytes, or which are swapped in to `slots`.
    pub(super) fn place_on_device(
        &mut self,
        device: &DeviceNeeds,
        weights: &WeightBytes,
        fixed: u64,
        slots: u64,
    ) {
        let total: u64 = weights.matrices.iter().map(|matrix| matrix.bytes).sum();
        let for_lent = if device.lent.is_empty() { 0 } else { slots };
        let has_room = fixed.saturating_add(for_lent).saturating_add(total) <= device.budget_bytes;
        // Slots are no smaller.
        let is_tiny = for_lent == 0 && total <= slots;
        if !device.may_swap || has_room || is_tiny {
            self.charge("weights", total, Holder::Loading, "matrices, as they lie in the file");
            self.charge("slots", for_lent, Holder::Loading, SLOTS_OF_DEVICE);
            return;
        }
        let room = device.budget_bytes.saturating_sub(fixed.saturating_add(slots));
        let sizes: Vec<_> = weights.matrices.iter().map(|matrix| (matrix.role, matrix.bytes)).collect();
        let rooms = placement::share_on_device(&sizes, room);
        let left = room - rooms.iter().sum::<u64>();
        let is_here = |matrix: &MatrixPlan| matrix.device == Some(device.number);
        for (matrix, room) in self.matrices.iter_mut().filter(|matrix| is_here(matrix)).zip(rooms) {
            matrix.n_on_device = room / matrix.weights.row_bytes();
        }
        let of_device = self.matrices.iter_mut().filter(|matrix| is_here(matrix));
        let mut experts: Vec<_> = of_device.filter(|matrix| matrix.experts().is_some()).collect();
        cache_experts(&mut experts, left);
        for matrix in experts {
            let Some(ExpertTensor { n_experts, expert_bytes, .. }) = matrix.experts() else { continue };
            let n_places = matrix.cache.map_or(0, |cache| cache.n_places);
            if n_places == n_experts {
                (matrix.n_on_device, matrix.cache) = (matrix.weights.n_rows, None);
            } else {
                // Devices copy whole words.
                let n_places = if expert_bytes.is_multiple_of(4) { n_places } else { 0 };
                matrix.cache = Some(ExpertPlaces { n_experts, n_places });
            }
        }
        let of_device = self.matrices.iter().filter(|matrix| is_here(matrix));
        let resident = of_device.clone().map(MatrixPlan::device_bytes).sum();
        let (cached, reason) = cached_bytes(of_device);
        let resident_reason = format!("of {total} bytes of matrices, those that there is room for");
        self.charge("resident weights", resident, Holder::Loading, &resident_reason);
        self.charge(EXPERT_CACHE, cached, Holder::Loading, &reason);
        self.charge("slots", slots, Holder::Loading, SLOTS_OF_DEVICE);
    }

    /// Adds the lines of the weights that devices have no room for: as they are if main memory has room for all of them, else
    /// some in memory, and slots for the others, for each backend that they are read for.
    pub(super) fn place_weights(&mut self, stages: &[StageNeeds], files: FileBytes) -> Result<()> {
        let fixed = self.total_bytes();
        let bytes =
            |stage: &StageNeeds| -> u64 { stage.weights.matrices.iter().map(|matrix| matrix.bytes).sum() };
        let in_memory = stages.iter().filter(|stage| stage.device.is_none());
        let swapped = self.swapped_bytes();
        let total: u64 = in_memory.clone().map(bytes).sum::<u64>() + swapped;
        let budget = self.request.ram_bytes.unwrap_or(u64::MAX);
        let fits = |bytes: u64| fixed.saturating_add(bytes) <= budget;
        // A copy of what a device has would be read for nothing.
        self.request.in_slab &= self.devices.is_empty() && fits(files.all);
        if self.request.in_slab {
            self.charge("model files", files.all, Holder::Loading, "read into memory");
            return Ok(());
        }
        if fits(total) {
            self.charge("weights", total, Holder::Map, "matrices, where they lie in the file");
            return Ok(());
        }
        let Some(StageNeeds { weights, .. }) = stages.first() else { return Ok(()) };
        let others = in_memory.skip(1).map(bytes).sum::<u64>();
        self.charge("weights of other stages", others, Holder::Map, "matrices, where they lie in the file");
        self.place_in_part(weights, total - others, budget)
    }

    /// The same where memory lacks room for some of the first stage's `weights` and of what devices swap in, `total` bytes.
    fn place_in_part(&mut self, weights: &WeightBytes, total: u64, budget: u64) -> Result<()> {
        let fixed = self.total_bytes();
        let PlanRequest { n_slots, chunk_bytes, capacity, .. } = self.request;
        let Capacity { n_ctx, n_batch, kv_type, .. } = capacity;
        let n_of_first = weights.matrices.len();
        let (of_first, of_others) = self.matrices.split_at_mut(n_of_first);
        let swapped =
            of_others.iter_mut().filter(|matrix| matrix.device.is_some() && matrix.host_bytes() > 0);
        let mut hosted: Vec<_> = of_first.iter_mut().chain(swapped).collect();
        let readers: BTreeSet<_> = hosted.iter().flat_map(|matrix| matrix.readers()).collect();
        let n_streams = readers.len();
        let row_bytes = hosted.iter().map(|matrix| matrix.weights.row_bytes());
        let max_row_bytes = row_bytes.max().unwrap_or(0) as usize;
        let (least_slots, least_chunk) = match chunk_bytes {
            Some(bytes) => (n_slots, bytes),
            None => (MIN_SLOTS.min(n_slots), MIN_CHUNK_BYTES),
        };
        let least =
            StreamPlan { n_slots: least_slots, chunk_bytes: least_chunk.max(max_row_bytes), max_row_bytes };
        let floor = fixed.saturating_add(n_streams as u64 * WeightStream::slot_bytes(least));
        let Some(rest) = budget.checked_sub(floor) else {
            return Err(Error::BudgetTooSmall {
                budget_bytes: budget,
                floor_bytes: floor.min(fixed.saturating_add(total)),
                n_ctx,
                n_batch,
                kv_type,
            });
        };
        let (stream, for_slots) = if chunk_bytes.is_some() {
            (least, WeightStream::slot_bytes(least))
        } else {
            slots_within(least, n_slots, budget / n_streams as u64, rest / n_streams as u64)
        };
        let room = budget - fixed - n_streams as u64 * for_slots;
        let in_slab = |bytes: u64| slab::bytes_for(bytes as usize) as u64;
        let size = |matrix: &MatrixPlan| (host_role(matrix), in_slab(matrix.host_bytes()));
        let sizes: Vec<_> = hosted.iter().map(|matrix| size(matrix)).collect();
        let rooms = placement::share(&sizes, room);
        for ((matrix, (role, bytes)), room) in hosted.iter_mut().zip(&sizes).zip(rooms) {
            let n_resident = slab::longest_in(room as usize) as u64 / matrix.weights.row_bytes();
            matrix.placement = match (room == *bytes, n_resident, role) {
                (true, ..) => Placement::Resident,
                (_, 1.., _) => Placement::Split { n_resident },
                (_, 0, MatrixRole::Embedding) => Placement::ByRow,
                (_, 0, _) => Placement::Streamed,
            };
        }
        let resident = hosted.iter().map(|matrix| matrix.resident_bytes()).filter(|bytes| *bytes > 0);
        let resident = resident.map(in_slab).sum();
        let reason = format!("of {total} bytes of matrices, those that there is room for");
        self.charge("resident weights", resident, Holder::Loading, &reason);
        let StreamPlan { n_slots, chunk_bytes, .. } = stream;
        let each = if n_streams > 1 { format!(", for each of {n_streams} backends") } else { String::new() };
        let reason = format!("{n_slots} for chunks of {chunk_bytes} bytes, one for a row{each}");
        let for_slots = n_streams as u64 * WeightStream::slot_bytes(stream);
        self.charge("slots", for_slots, Holder::Loading, &reason);
        let experts = self.matrices[..n_of_first].iter_mut();
        let mut experts: Vec<_> = experts.filter(|matrix| matrix.experts().is_some()).collect();
        cache_experts(&mut experts, room - resident);
        let (cached, reason) = cached_bytes(self.matrices[..n_of_first].iter());
        self.charge(EXPERT_CACHE, cached, Holder::Loading, &reason);
        self.stream = Some(stream);
        Ok(())
    }
}

/// Gives matrices of experts places for some that stay, as far as there is room.
fn cache_experts(matrices: &mut [&mut MatrixPlan], capacity: u64) {
    let tensors: Vec<ExpertTensor> = matrices.iter().filter_map(|matrix| matrix.experts()).collect();
    let places = expert_places::share(&tensors, capacity);
    for ((matrix, ExpertTensor { n_experts, .. }), n_places) in matrices.iter_mut().zip(tensors).zip(places) {
        matrix.cache = (n_places > 0).then_some(ExpertPlaces { n_experts, n_places });
    }
}

/// Bytes of the places of experts, and how many there are, in words.
fn cached_bytes<'a>(matrices: impl Iterator<Item = &'a MatrixPlan>) -> (u64, String) {
    let (mut bytes, mut n_kept, mut n_all) = (0, 0, 0);
    for matrix in matrices {
        let Some(ExpertTensor { n_experts, expert_bytes, .. }) = matrix.experts() else { continue };
        let n_places = matrix.cache.map_or(0, |cache| cache.n_places);
        (n_all, n_kept) = (n_all + n_experts, n_kept + n_places);
        bytes += n_places as u64 * expert_bytes;
    }
    (bytes, format!("{n_kept} of {n_all} matrices of experts, kept as they are used"))
}

/// What a matrix is to main memory: of experts that are swapped to a device all are used, as of another matrix of their layer.
fn host_role(matrix: &MatrixPlan) -> MatrixRole {
    match matrix.weights.role {
        MatrixRole::Experts(layer) if matrix.device.is_some() => MatrixRole::Layer(layer),
        role => role,
    }
}

/// As many slots as go with a budget of which `rest` bytes are left beside the `least` ones, and as large, and how much is
/// set aside for them: not more than a byte for two of the budget, so that more of it never leaves less to the weights.
fn slots_within(least: StreamPlan, max_slots: usize, budget: u64, rest: u64) -> (StreamPlan, u64) {
    let with = |n_slots: usize, chunk_bytes: usize| StreamPlan { n_slots, chunk_bytes, ..least };
    let bytes = |n_slots: usize, chunk_bytes: usize| WeightStream::slot_bytes(with(n_slots, chunk_bytes));
    let largest = MAX_CHUNK_BYTES.max(least.chunk_bytes);
    let floor = WeightStream::slot_bytes(least);
    let aside = (floor + rest / 2).min(budget / SLOTS_SHARE).clamp(floor, bytes(max_slots, largest));
    let n_slots = (least.n_slots..=max_slots).rev().find(|n| bytes(*n, largest) <= aside);
    let n_slots = n_slots.unwrap_or(least.n_slots);
    // The largest that fits: the sizes of slots are multiples of a block.
    let n_blocks = (largest - least.chunk_bytes) / BLOCK_BYTES;
    let mut chunks = (0..=n_blocks).rev().map(|n| least.chunk_bytes + n * BLOCK_BYTES);
    let chunk_bytes = chunks.find(|chunk| bytes(n_slots, *chunk) <= aside);
    (with(n_slots, chunk_bytes.unwrap_or(least.chunk_bytes)), aside)
}
