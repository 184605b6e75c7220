//! From a file to a model: hyper-parameters, plan, weights.

use std::panic::resume_unwind;
use std::thread;

use metallic_gguf::{GgmlType, Gguf, Tensor};
use metallic_kernels::Isa;
use tracing::{debug, info};

mod planning;
mod read_rate;
mod stages;

pub use read_rate::stream_rate;

use self::planning::Planning;
use self::stages::{Place, StageLoad};
use crate::backend::{Backend, Cpu, KvType};
use crate::cores::default_threads;
use crate::error::{Error, Result};
use crate::memory::{
    CachedTensor, ExpertCache, ExpertPolicy, FileStamp, GgufFile, MemoryBudget, ReaderKind, Resident, Tier,
    WeightStream, lock_memory,
};
use crate::model::census::Census;
use crate::model::part::Parts;
use crate::model::{Capacity, Model, ModelConfig, read_config, unused};
use crate::plan::{ExpertPlaces, FileBytes, Holder, MatrixPlan, MemoryPlan, Offload, PlanRequest, Rates};
use crate::text::Tokenizer;

/// Longest context that is allocated unless a longer one is asked for, in tokens.
pub const DEFAULT_MAX_CONTEXT: usize = 4096;
/// Rows of a forward pass unless another number is asked for.
pub const DEFAULT_BATCH: usize = 512;

/// Chunks of weights that are read ahead or in use, where weights are streamed: with so many the disk goes on reading
/// while a layer is computed whose weights are resident. A small budget makes them fewer.
pub const DEFAULT_SLOTS: usize = 16;
/// A small budget makes the context shorter than the default, but no shorter than this.
const MIN_CONTEXT: usize = 512;
/// A small budget makes batches smaller than the default, but no smaller than this.
const MIN_BATCH: usize = 32;

/// Where weights lie while a model runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LoadMode {
    /// In the mapped file: nothing is copied, and the system may drop what isn't used.
    #[default]
    Map,
    /// In memory of their own, on huge pages, into which the files are read at load, if the budget has room for them.
    Slab,
}

/// Loads a model from a file, step by step.
pub struct GgufLoader<'p> {
    file: GgufFile,
    n_ctx: Option<usize>,
    n_sequences: usize,
    n_batch: Option<usize>,
    guesses: bool,
    n_threads: usize,
    kv_type: Option<KvType>,
    isa: Isa,
    mode: LoadMode,
    budget: Option<MemoryBudget>,
    n_slots: usize,
    chunk_bytes: Option<usize>,
    reader: Option<ReaderKind>,
    expert_policy: ExpertPolicy,
    locks_memory: bool,
    others: Vec<Other>,
    long_prompts_from: Option<usize>,
    rates: Option<Rates>,
    progress: Option<Box<dyn FnMut(u64, u64) + 'p>>,
}

/// A backend beside the CPU, and which parts are its.
struct Other {
    backend: Box<dyn Place>,
    takes: Takes,
}

/// The parts that a backend computes.
enum Takes {
    These(Box<dyn Fn(usize) -> bool + Send>),
    /// As its memory has room.
    Fitting(Offload),
}

impl<'p> GgufLoader<'p> {
    /// A loader with the defaults: one sequence of the file's context length but at most
    /// [`DEFAULT_MAX_CONTEXT`], batches of [`DEFAULT_BATCH`], [`default_threads`] threads, the
    /// best instruction set, weights in the mapped file.
    pub fn new(file: GgufFile) -> Self {
        Self {
            file,
            n_ctx: None,
            n_sequences: 1,
            n_batch: None,
            guesses: false,
            n_threads: default_threads(),
            kv_type: None,
            isa: Isa::best(),
            mode: LoadMode::default(),
            budget: None,
            n_slots: DEFAULT_SLOTS,
            chunk_bytes: None,
            reader: None,
            expert_policy: ExpertPolicy::default(),
            locks_memory: false,
            others: Vec::new(),
            long_prompts_from: None,
            rates: None,
            progress: None,
        }
    }

    /// Positions that each sequence may hold.
    #[must_use]
    pub fn context_length(mut self, n_ctx: usize) -> Self {
        self.n_ctx = Some(n_ctx.max(1));
        self
    }

    /// Sequences that may be cached at the same time.
    #[must_use]
    pub fn sequences(mut self, n_sequences: usize) -> Self {
        self.n_sequences = n_sequences.max(1);
        self
    }

    /// Rows of a forward pass: prompts are read in pieces of this size.
    #[must_use]
    pub fn batch(mut self, n_batch: usize) -> Self {
        self.n_batch = Some(n_batch.max(1));
        self
    }

    /// Whether the plan has room for [looking up guesses](crate::engine::Lookup) of what comes next.
    #[must_use]
    pub fn guesses(mut self, guesses: bool) -> Self {
        self.guesses = guesses;
        self
    }

    /// Threads that compute.
    #[must_use]
    pub fn threads(mut self, n_threads: usize) -> Self {
        self.n_threads = n_threads.max(1);
        self
    }

    /// What keys and values are kept as. By default of 16 bits: bfloat16 where the CPU multiplies it and most
    /// weights are bfloat16 or of fewer bits, so that what attention rounds is of no account; else half precision.
    #[must_use]
    pub fn kv_type(mut self, kv_type: KvType) -> Self {
        self.kv_type = Some(kv_type);
        self
    }

    /// Instruction set of the kernels; must be one of [`Isa::available`].
    #[must_use]
    pub fn isa(mut self, isa: Isa) -> Self {
        self.isa = isa;
        self
    }

    /// Where weights lie while the model runs.
    #[must_use]
    pub fn mode(mut self, mode: LoadMode) -> Self {
        self.mode = mode;
        self
    }

    /// What the process may hold. Weights that there is no room for stay in the file and are swapped in as they
    /// are used. Where no context or batch was asked for, they are made smaller rather than keys, values and buffers
    /// take more than half.
    #[must_use]
    pub fn budget(mut self, budget: MemoryBudget) -> Self {
        self.budget = Some(budget);
        self
    }

    /// How weights are swapped in, where they are: how many chunks at a time, and how large they are at most. By
    /// default up to [`DEFAULT_SLOTS`], of a size that goes with the budget.
    #[must_use]
    pub fn slots(mut self, n_slots: usize, chunk_bytes: usize) -> Self {
        (self.n_slots, self.chunk_bytes) = (n_slots.max(1), Some(chunk_bytes));
        self
    }

    /// What reads the weights that are swapped in: one of [`ReaderKind::available`], by default the first.
    #[must_use]
    pub fn reader(mut self, reader: ReaderKind) -> Self {
        self.reader = Some(reader);
        self
    }

    /// Which experts stay in memory, where there is room for some of those that are swapped in.
    #[must_use]
    pub fn expert_policy(mut self, policy: ExpertPolicy) -> Self {
        self.expert_policy = policy;
        self
    }

    /// Locks all memory of the process once the model is loaded, so that none of it is swapped out. Where the system
    /// refuses, that is logged as a warning.
    #[must_use]
    pub fn lock_memory(mut self, locks_memory: bool) -> Self {
        self.locks_memory = locks_memory;
        self
    }

    /// Computes some of the model's parts on another backend than the CPU. The parts are the embedding, a mixer and a
    /// network for each layer, and the head; `takes` is asked for the number of each, from 0.
    #[must_use]
    pub fn place<B: Backend + 'static>(
        mut self,
        backend: B,
        takes: impl Fn(usize) -> bool + Send + 'static,
    ) -> Self {
        self.others.push(Other { backend: Box::new(backend), takes: Takes::These(Box::new(takes)) });
        self
    }

    /// Computes on a device what its memory has room for, or all that [`Offload`] says: those weights that have no room are
    /// then swapped in as they are used. Of several devices, each takes what those before it have left, in the order in which
    /// they are given or that [`rates`](Self::rates) make best.
    #[must_use]
    pub fn offload<B: Backend + 'static>(mut self, device: B, offload: Offload) -> Self {
        self.others.push(Other { backend: Box::new(device), takes: Takes::Fitting(offload) });
        self
    }

    /// Computes all on the CPU again.
    #[must_use]
    pub fn without_devices(mut self) -> Self {
        self.others.clear();
        self
    }

    /// Lends networks that the CPU computes to the last device for prompts of at least so many tokens: they are swapped in for each
    /// batch of such a prompt, which is faster than the CPU's arithmetic if it has tokens enough. `None`, the default, has the CPU
    /// compute them for all. [`MemoryPlan::lending_pays_from`] says from how many on it is.
    #[must_use]
    pub fn lend_for_prompts(mut self, from: Option<usize>) -> Self {
        self.long_prompts_from = from.map(|from| from.max(1));
        self
    }

    /// Has predictions choose what is open of the parts that devices compute: which of them takes parts first, and which parts. By
    /// default devices take parts in the order in which they were given, so that the CPU reads the fewest bytes for a token.
    #[must_use]
    pub fn rates(mut self, rates: Rates) -> Self {
        self.rates = Some(rates);
        self
    }

    /// Called with bytes done and bytes in all while files are read into memory.
    #[must_use]
    pub fn progress(mut self, progress: impl FnMut(u64, u64) + 'p) -> Self {
        self.progress = Some(Box::new(progress));
        self
    }

    /// The file.
    pub fn file(&self) -> &GgufFile {
        &self.file
    }

    /// What the model will hold in memory, without loading it.
    ///
    /// # Errors
    /// As [`GgufLoader::load`], as far as the file's header can tell.
    pub fn plan(&self) -> Result<(ModelConfig, MemoryPlan)> {
        let gguf = self.file.gguf();
        let config = read_config(&gguf)?;
        let rope_factors = Census::of(&gguf, &config, &Parts::all(config.layers.len()))?.rope_factors;
        let files = FileBytes {
            all: self.file.n_bytes(),
            metadata: self.file.metadata_bytes(),
            tokenizer: Tokenizer::estimated_bytes(&gguf),
        };
        let n_ctx = self.n_ctx.unwrap_or(config.context_length.min(DEFAULT_MAX_CONTEXT));
        if config.learned_positions && n_ctx > config.context_length {
            return Err(Error::ContextTooLong { n_ctx, max: config.context_length });
        }
        let capacity = Capacity {
            n_ctx,
            n_sequences: self.n_sequences,
            // No pass has more rows than all contexts together.
            n_batch: self.n_batch.unwrap_or(DEFAULT_BATCH).min(n_ctx.saturating_mul(self.n_sequences)),
            kv_type: self.kv_type.unwrap_or_else(|| default_kv_type(&gguf, self.isa)),
        };
        let mut request = PlanRequest {
            capacity,
            ram_bytes: self.budget.map(|budget| budget.ram_bytes),
            n_slots: self.n_slots,
            chunk_bytes: self.chunk_bytes,
            in_slab: self.mode == LoadMode::Slab,
            guesses: self.guesses && config.can_be_cut_back(),
        };
        // A small budget makes the defaults smaller, but nothing that was asked for.
        let planning = |request| Planning { config: &config, files, request };
        let way = loop {
            match self.choose(&planning(request)) {
                Err(Error::DeviceTooSmall { .. } | Error::BudgetTooSmall { .. })
                    if self.n_ctx.is_none() && request.capacity.n_ctx > MIN_CONTEXT =>
                {
                    request.capacity.n_ctx = (request.capacity.n_ctx / 2).max(MIN_CONTEXT);
                }
                Err(Error::DeviceTooSmall { .. } | Error::BudgetTooSmall { .. })
                    if self.n_batch.is_none() && request.capacity.n_batch > MIN_BATCH =>
                {
                    request.capacity.n_batch = (request.capacity.n_batch / 2).max(MIN_BATCH);
                }
                chosen => break chosen?,
            }
        };
        while let Some(budget) = request.ram_bytes {
            let plan = planning(request).with_all_in_memory(self, &way)?;
            let (kv, all) = (plan.kv_bytes(), plan.total_bytes());
            let buffers = all - kv - plan.held_bytes(Holder::Map) - plan.shared_bytes();
            if all <= budget {
                break;
            } else if self.n_ctx.is_none() && kv > budget / 4 && request.capacity.n_ctx > MIN_CONTEXT {
                request.capacity.n_ctx = (request.capacity.n_ctx / 2).max(MIN_CONTEXT);
            } else if self.n_batch.is_none() && buffers > budget / 4 && request.capacity.n_batch > MIN_BATCH {
                request.capacity.n_batch = (request.capacity.n_batch / 2).max(MIN_BATCH);
            } else {
                break;
            }
        }
        rope_factors.of_context(request.capacity.n_ctx, &config)?;
        request.capacity.n_batch =
            request.capacity.n_batch.min(request.capacity.n_ctx.saturating_mul(self.n_sequences));
        // What has become smaller leaves room for more.
        let planning = planning(request);
        let plan = planning.plan(self, &self.choose(&planning)?)?;
        Ok((config, plan))
    }

    /// The tensors of experts that a plan has places for.
    fn cached_tensors(&self, plan: &MemoryPlan) -> Result<Vec<CachedTensor>> {
        let gguf = self.file.gguf();
        let places = plan.matrices.iter().filter_map(|matrix| Some((&matrix.weights.name, matrix.cache?)));
        let tensor = |(name, ExpertPlaces { n_experts, n_places }): (&String, _)| {
            let tensor =
                gguf.tensor(name).ok_or_else(|| Error::MissingTensors { names: vec![name.clone()] })?;
            Ok(CachedTensor { range: GgufFile::range(&tensor)?, n_experts, n_places })
        };
        places.map(tensor).collect()
    }

    /// Loads the model.
    ///
    /// # Errors
    /// What is wrong with the file for this architecture, or what could not be allocated.
    pub fn load(self) -> Result<Model> {
        let (config, plan) = self.plan()?;
        self.load_planned(config, &plan)
    }

    /// Loads the model as a [`plan`](Self::plan) of this loader says.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_planned(mut self, config: ModelConfig, plan: &MemoryPlan) -> Result<Model> {
        unused::warn(&self.file.gguf())?;
        let descriptions: Vec<_> = self.others.iter().map(|other| other.backend.description()).collect();
        for (other, description) in self.others.iter().zip(&descriptions) {
            // A device may stand for several.
            let same = (0..descriptions.len()).filter(|i| descriptions[*i] == *description);
            other.backend.check_room(same.map(|i| plan.device_bytes(i)).sum())?;
        }
        let ram = Tier::ram(plan.request.ram_bytes);
        // What others take, and the pages of maps, which come as they are used.
        let elsewhere = plan.total_bytes() - plan.held_bytes(Holder::Loading);
        let elsewhere = ram.lease("the program, its threads, maps, and what devices share", elsewhere)?;
        let mut backend = Cpu::new(self.n_threads, self.isa)?;
        backend.charge_to(&ram);
        let mut resident = Resident::default();
        if let Some(stream) = plan.stream {
            self.file.will_need_little();
            let files = self.file.open_direct()?;
            let parts = plan.matrices.iter().filter(|matrix| matrix.resident_bytes() > 0);
            let part =
                |matrix: &MatrixPlan| matrix.device_bytes()..matrix.device_bytes() + matrix.resident_bytes();
            let parts: Vec<_> = parts.map(|matrix| (matrix.weights.name.as_str(), part(matrix))).collect();
            resident = self.file.read_tensors(
                &ram,
                &files,
                &parts,
                &mut counted(&mut self.progress, plan.resident_bytes()),
            )?;
            if plan.has_stream(None) {
                let experts = ExpertCache::new(self.cached_tensors(plan)?, self.expert_policy, &ram)?;
                let weights = WeightStream::new(files, stream, self.reader, &ram)?;
                backend = backend.with_stream(weights, experts);
            }
        } else if plan.request.in_slab {
            let n_bytes = self.file.n_bytes();
            self.file.read_to_memory(&ram, &mut counted(&mut self.progress, n_bytes))?;
        } else {
            self.file.will_need();
        }
        let of_stage = |stage| StageLoad {
            file: &self.file,
            config: &config,
            parts: plan.routes.parts(stage),
            capacity: plan.request.capacity,
            ram: &ram,
            plan,
            device: stage.checked_sub(1),
            resident: &resident,
            reader: self.reader,
            policy: self.expert_policy,
        };
        let others = std::mem::take(&mut self.others).into_iter().enumerate();
        // Each device by a link of its own, at the same time.
        let stages = thread::scope(|scope| {
            let of_stage = &of_stage;
            let loading = others.map(|(i, other)| {
                let load = move || other.backend.load(of_stage(i + 1));
                let started = thread::Builder::new().spawn_scoped(scope, load);
                started.map_err(|source| Error::Threads { n_threads: 1, source })
            });
            let loading: Vec<_> = loading.collect();
            let first = of_stage(0).load(backend);
            let others = loading
                .into_iter()
                .map(|loading| loading?.join().unwrap_or_else(|panic| resume_unwind(panic)));
            std::iter::once(first).chain(others).collect::<Result<Vec<_>>>()
        })?;

        if Isa::is_refused_tiles() {
            info!("the system does not let this process use the CPU's tiles (AMX): prompts are read without");
        }
        // What was read while it changed is no model.
        let mut stamps = self.file.stamps();
        stamps.iter().try_for_each(FileStamp::check)?;
        if plan.stream.is_none() && plan.request.in_slab {
            // All of it has been copied.
            stamps.clear();
        }
        drop(self.file);
        if self.locks_memory {
            lock_memory();
        }
        let capacity = plan.request.capacity;
        let model = Model::new(config, capacity, stages, plan.routes.clone(), stamps, ram, elsewhere)?;
        info!(
            architecture = model.config().architecture,
            compute = model.description(),
            n_ctx = plan.request.capacity.n_ctx,
            n_batch = plan.request.capacity.n_batch,
            kv_type = plan.request.capacity.kv_type.name(),
            in_slab = plan.request.in_slab,
            budget_bytes = plan.request.ram_bytes,
            budget_from = self.budget.map(|budget| tracing::field::display(budget.source)),
            mapped_bytes = plan.held_bytes(Holder::Map),
            resident_bytes = plan.resident_bytes(),
            streamed_bytes = plan.streamed_bytes(),
            swapped_bytes = plan.swapped_bytes(),
            lent_bytes = plan.lent_bytes(),
            long_prompts_from = plan.long_prompts_from(),
            allocated_bytes = plan.held_bytes(Holder::Loading),
            "loaded"
        );
        for line in &plan.ledger {
            debug!(bytes = line.bytes, reason = line.reason, "{}", line.what);
        }
        Ok(model)
    }
}

/// Calls `progress` with what has been done of `total`, for each piece that is done.
fn counted<'a, 'p>(
    progress: &'a mut Option<Box<dyn FnMut(u64, u64) + 'p>>,
    total: u64,
) -> impl FnMut(u64) + use<'a, 'p> {
    let mut done = 0;
    move |n_bytes| {
        done += n_bytes;
        if let Some(progress) = progress {
            progress(done, total);
        }
    }
}

/// See [`GgufLoader::kv_type`].
fn default_kv_type(gguf: &Gguf<'_>, isa: Isa) -> KvType {
    let bytes = |exact: bool| -> u64 {
        let is_exact = |tensor: &Tensor<'_>| matches!(tensor.ggml_type(), GgmlType::F32 | GgmlType::F16);
        gguf.tensors().filter(|tensor| is_exact(tensor) == exact).map(|tensor| tensor.n_bytes()).sum()
    };
    if isa.prefers_bf16() && bytes(false) > bytes(true) { KvType::BF16 } else { KvType::F16 }
}
