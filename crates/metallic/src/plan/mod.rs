//! What a model will hold in memory, item by item, before anything is allocated.

pub(crate) mod offload;
mod placement;
mod prediction;
#[cfg(test)]
mod tests;
mod tiers;

pub use offload::Offload;
pub use placement::Placement;
pub use prediction::{Bound, DeviceRates, Prediction, PromptWork, Rates};

use std::collections::HashSet;

use crate::backend::BackendBytes;
use crate::error::{Error, Result};
use crate::memory::StreamPlan;
use crate::memory::expert_places::ExpertTensor;
use crate::model::Capacity;
use crate::model::boundary::{BOUNDARY, Boundary};
use crate::model::cache::{self, CacheSize};
use crate::model::census::{Usage, WeightMatrix};
use crate::model::config::ModelConfig;
use crate::model::history::{HISTORY, History};
use crate::model::kv_cache::PAGE_LEN;
use crate::model::part::{Parts, mixer_of, network_of};
use crate::model::repeats::{REPEATS, Repeats};
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
    /// Whether there is room for looking up guesses of what comes next.
    pub guesses: bool,
}

/// Code, the stack of the thread that asks, and what the allocator and small things take: `metallic run` was measured to take 7 to 9 MB beside the
/// other lines.
const PROGRAM_BYTES: u64 = 12 << 20;

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

    /// Of experts that a token uses some of, what their tensor is.
    fn experts(&self) -> Option<ExpertTensor> {
        match (self.weights.role, self.weights.usage) {
            (MatrixRole::Experts(layer), Usage::Experts { n_expert, .. }) => {
                let expert_bytes = self.weights.bytes / n_expert;
                Some(ExpertTensor { layer, n_experts: n_expert as usize, expert_bytes })
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
    /// Whether that is main memory, where its bytes count, too.
    pub shares_main_memory: bool,
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
    /// Whether that is main memory.
    pub(crate) shares_main_memory: bool,
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
        // As ids, of those that are answered and once more of those that have ended.
        let token_bytes = (2 * size_of::<u32>() as u64).saturating_mul(n_ctx as u64);
        let token_bytes = token_bytes.saturating_mul(n_sequences as u64);
        plan.charge("tokens", token_bytes, Program, "of prompts and answers, under way and cached");
        if request.guesses {
            let reason = "where each pair of tokens came before";
            plan.charge(REPEATS, Repeats::bytes(n_ctx, n_sequences), Loading, reason);
        }
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
            let DeviceNeeds { number, description, budget_bytes, shares_main_memory, .. } = device.clone();
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
                shares_main_memory,
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

    /// Bytes of main memory: of all its lines, and of those of devices that share it.
    pub fn total_bytes(&self) -> u64 {
        self.lines_of(None).map(|line| line.bytes).sum::<u64>() + self.shared_bytes()
    }

    /// Bytes of main memory that devices have which share it.
    pub(crate) fn shared_bytes(&self) -> u64 {
        let shared = self.devices.iter().filter(|device| device.shares_main_memory);
        shared.map(|device| self.device_bytes(device.number)).sum()
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
