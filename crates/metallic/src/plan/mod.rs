//! What a model will hold in memory, item by item, before anything is allocated.

pub(crate) mod offload;
mod placement;
mod prediction;
#[cfg(test)]
mod tests;

pub use offload::Offload;
pub use placement::Placement;
pub use prediction::{Bound, DeviceRates, Prediction, PromptWork, Rates};

use std::collections::{BTreeSet, HashSet};

use crate::backend::BackendBytes;
use crate::error::{Error, Result};
use crate::memory::expert_places::{self, ExpertTensor};
use crate::memory::{BLOCK_BYTES, EXPERT_CACHE, MAX_READ_BYTES, StreamPlan, WeightStream, slab};
use crate::model::Capacity;
use crate::model::boundary::{BOUNDARY, Boundary};
use crate::model::cache::{self, CacheSize};
use crate::model::census::{Usage, WeightMatrix};
use crate::model::config::ModelConfig;
use crate::model::history::{HISTORY, History};
use crate::model::kv_cache::PAGE_LEN;
use crate::model::part::{Parts, mixer_of, network_of};
use crate::model::route::Routes;
use crate::model::scratch::{LOGITS_OF_A_ROW, ScratchSizes};
use crate::model::weights::MatrixRole;

/// How a model is to be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanRequest {
    /// How much it is to hold.
    pub capacity: Capacity,
    /// Bytes that the process may hold; `None` for as many as the model takes.
    pub ram_bytes: Option<u64>,
    /// Chunks that are read ahead or in use, where weights are streamed; at most, if their size is not given.
    pub n_slots: usize,
    /// Bytes of a chunk at most; `None` for a number and a size of slots that go with the budget.
    pub chunk_bytes: Option<usize>,
    /// Whether the files are read into memory instead of being used in their maps; in a plan, if there is room for them.
    pub in_slab: bool,
}

/// Code, the stack of the thread that asks, and what the allocator and small things take: `metallic run` was measured to take 7 to 9 MB beside the
/// other lines.
const PROGRAM_BYTES: u64 = 12 << 20;

/// Chunks are not made larger than this, with which a slot, a block longer, is as long as a request and two huge pages.
const MAX_CHUNK_BYTES: usize = MAX_READ_BYTES - BLOCK_BYTES;

/// Where there is little room there are fewer slots, down to this, before chunks are made smaller than two huge pages:
/// with so many the disk does not stop while one is in use.
const MIN_SLOTS: usize = 4;

/// Nor smaller, but for a test: each costs the disk and the threads a fixed time.
const MIN_CHUNK_BYTES: usize = 128 << 10;

/// The slots of a small budget take one part of so many.
const SLOTS_SHARE: u64 = 16;

/// One thing that takes memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerLine {
    /// What it is.
    pub what: String,
    /// Its size.
    pub bytes: u64,
    /// Who takes it.
    pub holder: Holder,
    /// The device whose own memory it is, by its number; `None` for main memory.
    pub device: Option<usize>,
    /// Where the size comes from.
    pub reason: String,
}

/// Who takes the memory of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// Loading allocates it.
    Loading,
    /// It is a mapped part of the file, which the system may drop and read again.
    Map,
    /// The program allocates it beside the model.
    Program,
    /// The system keeps it for the process, outside the process's own pages.
    Kernel,
}

impl Holder {
    /// Lower-case name.
    pub const fn name(self) -> &'static str {
        match self {
            Holder::Loading => "loading",
            Holder::Map => "map",
            Holder::Program => "program",
            Holder::Kernel => "kernel",
        }
    }
}

/// A matrix of weights, and where it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatrixPlan {
    /// The matrix.
    pub weights: WeightMatrix,
    /// The device that computes with it, by its number; `None` for the CPU.
    pub device: Option<usize>,
    /// Leading rows that are in the device's own memory.
    pub n_on_device: u64,
    /// The device that long prompts meet it on, where it is brought for them; `None` if they meet it where answers do.
    pub lent_to: Option<usize>,
    /// Where the others are while the model runs.
    pub placement: Placement,
    /// Of experts that are swapped in, how many can stay with what computes: in main memory, or in the device's. `None` where a
    /// device has all.
    pub cache: Option<ExpertPlaces>,
}

impl MatrixPlan {
    /// Who reads what the devices' own memory lacks: devices by their number, or the CPU.
    pub(crate) fn readers(&self) -> impl Iterator<Item = Option<usize>> {
        std::iter::once(self.device).chain(self.lent_to.map(Some))
    }

    /// Of experts that a token uses some of, how many there are, and the bytes of one.
    fn expert(&self) -> Option<(usize, u64)> {
        match (self.weights.role, self.weights.usage) {
            (MatrixRole::Experts(_), Usage::Experts { n_expert, .. }) => {
                Some((n_expert as usize, self.weights.bytes / n_expert))
            }
            _ => None,
        }
    }

    /// Those in the device's own memory, but for places of experts.
    pub fn device_bytes(&self) -> u64 {
        self.n_on_device * self.weights.row_bytes()
    }

    /// Those that main memory, or the disk, has for whoever computes.
    pub fn host_bytes(&self) -> u64 {
        self.weights.bytes - self.device_bytes()
    }

    /// Those that stay in main memory: of whole rows, the first after the device's.
    pub fn resident_bytes(&self) -> u64 {
        match self.placement {
            Placement::Resident => self.host_bytes(),
            Placement::Split { n_resident } => n_resident * self.weights.row_bytes(),
            Placement::Streamed | Placement::ByRow => 0,
        }
    }

    /// Those that are read from the disk a chunk at a time.
    pub fn streamed_bytes(&self) -> u64 {
        match self.placement {
            Placement::ByRow => 0,
            Placement::Resident | Placement::Split { .. } | Placement::Streamed => {
                self.host_bytes() - self.resident_bytes()
            }
        }
    }
}

/// Room for some experts of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpertPlaces {
    /// Experts that the tensor has.
    pub n_experts: usize,
    /// Experts that there is room for.
    pub n_places: usize,
}

/// An itemised list of every large thing a model holds, and a place for every matrix. Loading allocates just that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// How the model is to be used.
    pub request: PlanRequest,
    /// The list.
    pub ledger: Vec<LedgerLine>,
    /// The matrices, in the order in which they are looked for in the file; last those that are copied.
    pub matrices: Vec<MatrixPlan>,
    /// How weights are swapped in, where not all stay in memory.
    pub stream: Option<StreamPlan>,
    /// What a prompt takes beside the weights, for predictions.
    pub prompt: PromptWork,
    /// The devices that compute parts, beside the CPU.
    pub devices: Vec<DevicePlan>,
    /// The stage of each part.
    pub(crate) routes: Routes,
}

/// What a device computes, in its own memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevicePlan {
    /// Its number.
    pub number: usize,
    /// What it is.
    pub description: String,
    /// Bytes of its memory that may be taken.
    pub budget_bytes: u64,
    /// Layers of the model.
    pub n_layers: usize,
    /// Of how many it computes the mixer.
    pub n_mixers: usize,
    /// And of how many the network.
    pub n_networks: usize,
    /// Of how many it computes the network for long prompts alone.
    pub n_lent: usize,
    /// Whether it looks up the tokens' embeddings.
    pub embedding: bool,
    /// Whether it computes the logits.
    pub head: bool,
}

/// What the plan needs to know of a stage: parts of the model on one backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StageNeeds {
    /// All that it computes, for whatever is read.
    pub(crate) parts: Parts,
    /// Its own: those that it computes for answers, too.
    pub(crate) weights: WeightBytes,
    pub(crate) backend: BackendBytes,
    /// The device, where its memory is not main memory.
    pub(crate) device: Option<DeviceNeeds>,
}

/// What it needs to know of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeviceNeeds {
    pub(crate) number: usize,
    /// What it is.
    pub(crate) description: String,
    /// Bytes of its memory that may be taken.
    pub(crate) budget_bytes: u64,
    /// Whether weights that it has no room for are swapped in.
    pub(crate) may_swap: bool,
    /// Matrices that are brought to it for long prompts, by their names.
    pub(crate) lent: HashSet<String>,
}

/// What it needs to know of the weights.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct WeightBytes {
    /// Those that can be used as the file holds them, in the order in which they are looked for.
    pub(crate) matrices: Vec<WeightMatrix>,
    /// Those that are copied, because the file has the other byte order.
    pub(crate) copied: Vec<WeightMatrix>,
    /// Norms and biases, copied as floats.
    pub(crate) vectors: u64,
}

/// What it needs to know of the files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FileBytes {
    /// All of them, which an all-resident slab takes.
    pub(crate) all: u64,
    /// Metadata, of which the vocabulary is the most.
    pub(crate) metadata: u64,
    /// What a tokenizer makes of them.
    pub(crate) tokenizer: u64,
}

/// Where the weights of a file in the other byte order are.
pub(crate) const COPIES: &str = "swapped copies";

const KV_CACHE: &str = "KV cache";

const HEADER: &str = "header";

const SLOTS_OF_DEVICE: &str = "for weights on their way in from main memory";

const STATES: &str = "recurrent states";

/// Bytes of a sampler for each token of the vocabulary: a candidate's id and logit, and its probability.
const CANDIDATE_BYTES: u64 = 12;

impl MemoryPlan {
    /// Plans for a model that is computed in these stages, the CPU first. Pure: neither reads nor allocates.
    ///
    /// # Errors
    /// A size beyond the address space; [`Error::BudgetTooSmall`].
    pub(crate) fn new(
        config: &ModelConfig,
        stages: &[StageNeeds],
        routes: Routes,
        files: FileBytes,
        request: PlanRequest,
    ) -> Result<Self> {
        use Holder::{Loading, Map, Program};
        let Capacity { n_ctx, n_sequences, n_batch, .. } = request.capacity;
        let devices = || stages.iter().filter_map(|stage| stage.device.as_ref());
        let lent_to =
            |name: &str| devices().find(|device| device.lent.contains(name)).map(|device| device.number);
        let matrices = |of: fn(&WeightBytes) -> &Vec<WeightMatrix>| {
            stages.iter().flat_map(move |stage| {
                let device = stage.device.as_ref().map(|device| device.number);
                of(&stage.weights).iter().map(move |weights| MatrixPlan {
                    weights: weights.clone(),
                    device,
                    n_on_device: device.map_or(0, |_| weights.n_rows),
                    lent_to: if device.is_none() { lent_to(&weights.name) } else { None },
                    placement: Placement::Resident,
                    cache: None,
                })
            })
        };
        let matrices = matrices(|weights| &weights.matrices).chain(matrices(|weights| &weights.copied));
        let (matrices, prompt) = (matrices.collect(), PromptWork::new(config, n_ctx));
        let mut plan =
            Self { request, ledger: Vec::new(), matrices, stream: None, prompt, devices: Vec::new(), routes };

        for stage in stages {
            plan.charge_stage(config, stage)?;
        }
        if !config.can_be_cut_back() {
            let reason = "to be read again where a sequence is cut back";
            plan.charge(HISTORY, History::bytes(n_ctx, n_sequences), Loading, reason);
        }
        let n_floats = Boundary::len(config, &plan.routes, n_batch)? as u64;
        let reason = format!("{n_floats} floats for {n_batch} rows, of one cut after another");
        plan.charge(BOUNDARY, 4 * n_floats, Loading, &reason);
        let candidates = (config.n_vocab as u64).saturating_mul(CANDIDATE_BYTES);
        let candidates = candidates.saturating_mul(n_sequences as u64);
        plan.charge("sampling", candidates, Program, "candidates of each sequence");
        plan.charge("tokenizer", files.tokenizer, Program, "tables of tokens and merges");
        plan.charge("program", PROGRAM_BYTES, Program, "code and small things");
        plan.charge(HEADER, files.metadata, Map, "names and vocabulary, where they lie in the file");
        plan.place_weights(stages, files)?;
        Ok(plan)
    }

    /// Adds the lines of a stage, but for the matrices that lie where they are.
    fn charge_stage(&mut self, config: &ModelConfig, stage: &StageNeeds) -> Result<()> {
        use Holder::{Kernel, Loading, Program};
        let StageNeeds { parts, weights, backend, device } = stage;
        let n_lines = self.ledger.len();
        let Capacity { n_sequences, n_batch, kv_type, .. } = self.request.capacity;
        let too_large = || Error::TooLarge { what: "the KV cache" };
        let n_pages = self.request.capacity.n_pages()?;
        let copied = weights.copied.iter().map(|matrix| matrix.bytes).sum();
        self.charge(COPIES, copied, Loading, "matrices of a file in the other byte order");
        self.charge("norms and biases", weights.vectors, Loading, "as 32-bit floats");

        let caches: Vec<_> = cache::sizes(config, parts, kv_type)?.into_iter().flatten().collect();
        let sum = |bytes: fn(&CacheSize) -> Option<usize>| {
            caches.iter().try_fold(0_usize, |sum, cache| sum.checked_add(bytes(cache)?)).ok_or_else(too_large)
        };
        let page_bytes = sum(CacheSize::page_bytes)?;
        let kv_bytes = n_pages.checked_mul(page_bytes).ok_or_else(too_large)?;
        let position_bytes = page_bytes / PAGE_LEN;
        let reason =
            format!("{n_pages} pages of {PAGE_LEN} positions, {position_bytes} bytes each, as {kv_type}");
        self.charge(KV_CACHE, kv_bytes as u64, Loading, &reason);
        let state_bytes = sum(CacheSize::state_bytes)?.checked_mul(n_sequences).ok_or_else(too_large)?;
        let reason = format!("{n_sequences} sequences, whatever their length");
        self.charge(STATES, state_bytes as u64, Loading, &reason);

        for (what, len) in ScratchSizes::new(config, parts, n_batch)?.lines() {
            self.charge(what, len as u64 * 4, Loading, &format!("{len} floats for {n_batch} rows"));
        }
        self.charge("rotations", backend.rotations, Loading, "cosines and sines of positions");
        let reason = "quantized activations and expanded weights";
        self.charge("inputs of products", backend.inputs, Loading, reason);
        self.charge("attention", backend.attention, Loading, "tiles of queries and sums of steps");
        self.charge("experts", backend.experts, Loading, "choices, and rows on their way through an expert");
        self.charge("copies", backend.copies, Loading, "to the device, and back");
        if let Some(device) = device {
            let fixed = self.ledger[n_lines..].iter().map(|line| line.bytes).sum();
            self.place_on_device(device, weights, fixed, backend.slots);
            let DeviceNeeds { number, description, budget_bytes, .. } = device.clone();
            self.ledger[n_lines..].iter_mut().for_each(|line| line.device = Some(number));
            let n_layers = config.layers.len();
            let count =
                |part: fn(usize) -> usize| (0..n_layers).filter(|layer| parts.has(part(*layer))).count();
            let lent = self.routes.lent_to(number + 1);
            let n_lent = (0..n_layers).filter(|layer| lent.has(network_of(*layer))).count();
            let (n_mixers, n_networks) = (count(mixer_of), count(network_of) - n_lent);
            let (embedding, head) = (parts.has_embedding(), parts.has_head());
            let plan = DevicePlan {
                number,
                description,
                budget_bytes,
                n_layers,
                n_mixers,
                n_networks,
                n_lent,
                embedding,
                head,
            };
            self.devices.push(plan);
        }
        let n_logits = if parts.has_head() { config.n_vocab as u64 } else { 0 };
        self.charge(LOGITS_OF_A_ROW, n_logits * 4, Loading, "where a sampler takes them");
        self.charge("stacks", backend.stacks, Program, "of the threads that compute");
        self.charge("threads", backend.kernel, Kernel, "what the system keeps for each that computes");
        Ok(())
    }

    /// Adds the lines of a device's weights, which it has room for beside `fixed` bytes, or which are swapped in to `slots`.
    fn place_on_device(&mut self, device: &DeviceNeeds, weights: &WeightBytes, fixed: u64, slots: u64) {
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
        let mut experts: Vec<_> = of_device.filter(|matrix| matrix.expert().is_some()).collect();
        cache_experts(&mut experts, left);
        for matrix in experts {
            let Some((n_experts, expert_bytes)) = matrix.expert() else { continue };
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
    fn place_weights(&mut self, stages: &[StageNeeds], files: FileBytes) -> Result<()> {
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
        let mut experts: Vec<_> = experts.filter(|matrix| matrix.expert().is_some()).collect();
        cache_experts(&mut experts, room - resident);
        let (cached, reason) = cached_bytes(self.matrices[..n_of_first].iter());
        self.charge(EXPERT_CACHE, cached, Holder::Loading, &reason);
        self.stream = Some(stream);
        Ok(())
    }

    /// Bytes of matrices that stay in main memory.
    pub fn resident_bytes(&self) -> u64 {
        self.matrices.iter().map(MatrixPlan::resident_bytes).sum()
    }

    /// Bytes of matrices that are read from the disk a chunk at a time.
    pub fn streamed_bytes(&self) -> u64 {
        self.matrices.iter().map(MatrixPlan::streamed_bytes).sum()
    }

    /// Bytes of matrices that are swapped to a device for long prompts alone.
    pub fn lent_bytes(&self) -> u64 {
        let lent = self.matrices.iter().filter(|matrix| matrix.lent_to.is_some());
        lent.map(|matrix| matrix.weights.bytes).sum()
    }

    /// Tokens of a prompt from which on some networks of the CPU are swapped to a device for it; `None` if none ever are.
    pub fn long_prompts_from(&self) -> Option<usize> {
        self.routes.long_prompts_from()
    }

    /// Bytes of matrices that are swapped to a device a chunk at a time, from main memory or the disk, whatever is read.
    pub fn swapped_bytes(&self) -> u64 {
        self.matrices.iter().filter(|matrix| matrix.device.is_some()).map(MatrixPlan::host_bytes).sum()
    }

    /// Whether weights are read from the disk, or may be, for the backend of a device, or for the CPU.
    pub(crate) fn has_stream(&self, device: Option<usize>) -> bool {
        let hosted =
            |matrix: &MatrixPlan| matrix.host_bytes() > 0 && matrix.readers().any(|reader| reader == device);
        self.stream.is_some() && self.matrices.iter().any(hosted)
    }

    /// Bytes of the KV cache.
    pub(crate) fn kv_bytes(&self) -> u64 {
        self.line_bytes(KV_CACHE)
    }

    fn line_bytes(&self, what: &str) -> u64 {
        self.lines_of(None).filter(|line| line.what == what).map(|line| line.bytes).sum()
    }

    /// Bytes of all lines of main memory.
    pub fn total_bytes(&self) -> u64 {
        self.lines_of(None).map(|line| line.bytes).sum()
    }

    /// Bytes of all lines of a device's memory.
    pub fn device_bytes(&self, device: usize) -> u64 {
        self.lines_of(Some(device)).map(|line| line.bytes).sum()
    }

    fn lines_of(&self, device: Option<usize>) -> impl Iterator<Item = &LedgerLine> {
        self.ledger.iter().filter(move |line| line.device == device)
    }

    /// Bytes that are taken beside what is loaded: by the program, its threads, and the file's header.
    pub fn beside_bytes(&self) -> u64 {
        self.held_bytes(Holder::Program) + self.held_bytes(Holder::Kernel) + self.line_bytes(HEADER)
    }

    /// Bytes of the lines that somebody takes.
    pub fn held_bytes(&self, holder: Holder) -> u64 {
        self.lines_of(None).filter(|line| line.holder == holder).map(|line| line.bytes).sum()
    }

    fn charge(&mut self, what: &str, bytes: u64, holder: Holder, reason: &str) {
        if bytes > 0 {
            let (what, reason) = (what.to_owned(), reason.to_owned());
            self.ledger.push(LedgerLine { what, bytes, holder, device: None, reason });
        }
    }
}

/// Gives experts that are swapped in places to stay, as far as there is room.
fn cache_experts(matrices: &mut [&mut MatrixPlan], capacity: u64) {
    let tensor = |matrix: &&mut MatrixPlan| {
        let (MatrixRole::Experts(layer), Some((n_experts, expert_bytes))) =
            (matrix.weights.role, matrix.expert())
        else {
            unreachable!("matrices of experts")
        };
        ExpertTensor { layer, n_experts, expert_bytes }
    };
    let tensors: Vec<ExpertTensor> = matrices.iter().map(tensor).collect();
    let places = expert_places::share(&tensors, capacity);
    for ((matrix, ExpertTensor { n_experts, .. }), n_places) in matrices.iter_mut().zip(tensors).zip(places) {
        matrix.cache = (n_places > 0).then_some(ExpertPlaces { n_experts, n_places });
    }
}

/// Bytes of the places of experts, and how many there are, in words.
fn cached_bytes<'a>(matrices: impl Iterator<Item = &'a MatrixPlan>) -> (u64, String) {
    let (mut bytes, mut n_kept, mut n_all) = (0, 0, 0);
    for matrix in matrices {
        let Some((n_experts, expert_bytes)) = matrix.expert() else { continue };
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
