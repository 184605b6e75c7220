//! From a file to a model: hyper-parameters, plan, weights.

use metallic_gguf::{ByteOrder, GgmlType, Gguf, Tensor};
use metallic_kernels::Isa;
use tracing::{debug, info};

use super::decoder::Decoder;
use super::weights::{self, WeightSource};
use super::{Model, config::ModelConfig};
use super::{arch, kv_cache};
use crate::backend::{Backend, Cpu, KvType, MatrixBytes, MatrixData};
use crate::cores::default_threads;
use crate::error::{Error, Result};
use crate::memory::{
    BackendBytes, CachedTensor, ExpertCache, ExpertPlaces, ExpertPolicy, GgufFile, MatrixSize, MemoryBudget,
    MemoryPlan, Placement, PlanRequest, Resident, Role, WeightBytes, WeightStream, lock_memory,
};

/// Longest context that is allocated unless a longer one is asked for, in tokens.
pub const DEFAULT_MAX_CONTEXT: usize = 4096;
/// Rows of a forward pass unless another number is asked for.
pub const DEFAULT_BATCH: usize = 512;

/// Chunks of weights that are read ahead or in use, where weights are streamed.
pub const DEFAULT_SLOTS: usize = 8;
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
    /// In memory of their own, on huge pages, into which the files are read at load.
    Slab,
}

/// Loads a model from a file, step by step.
pub struct GgufLoader<'p> {
    file: GgufFile,
    n_ctx: Option<usize>,
    n_sequences: usize,
    n_batch: Option<usize>,
    n_threads: usize,
    kv_type: Option<KvType>,
    isa: Isa,
    mode: LoadMode,
    budget: Option<MemoryBudget>,
    n_slots: usize,
    chunk_bytes: Option<usize>,
    expert_policy: ExpertPolicy,
    locks_memory: bool,
    progress: Option<Box<dyn FnMut(u64, u64) + 'p>>,
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
            n_threads: default_threads(),
            kv_type: None,
            isa: Isa::best(),
            mode: LoadMode::default(),
            budget: None,
            n_slots: DEFAULT_SLOTS,
            chunk_bytes: None,
            expert_policy: ExpertPolicy::default(),
            locks_memory: false,
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
    /// default [`DEFAULT_SLOTS`], of a size that goes with the budget.
    #[must_use]
    pub fn slots(mut self, n_slots: usize, chunk_bytes: usize) -> Self {
        (self.n_slots, self.chunk_bytes) = (n_slots.max(1), Some(chunk_bytes));
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

    /// Called with bytes done and bytes in all while files are read into memory.
    #[must_use]
    pub fn progress(mut self, progress: impl FnMut(u64, u64) + 'p) -> Self {
        self.progress = Some(Box::new(progress));
        self
    }

    /// What the model will hold in memory, without loading it.
    ///
    /// # Errors
    /// As [`GgufLoader::load`], as far as the file's header can tell.
    pub fn plan(&self) -> Result<(ModelConfig, MemoryPlan)> {
        let gguf = self.file.gguf();
        let config = arch::read_config(&gguf)?;
        let mut census = Census::default();
        weights::build(&gguf, &config, &mut census)?;
        for name in census.unused(&self.file) {
            debug!(tensor = name, "not used by this architecture");
        }
        let mut weights = census.bytes;
        weights.files = self.file.n_bytes();
        weights.metadata = self.file.metadata_bytes();
        let n_ctx = self.n_ctx.unwrap_or(config.context_length.min(DEFAULT_MAX_CONTEXT));
        let mut request = PlanRequest {
            n_ctx,
            n_sequences: self.n_sequences,
            n_batch: self.n_batch.unwrap_or(DEFAULT_BATCH),
            kv_type: self.kv_type.unwrap_or_else(|| default_kv_type(&gguf, self.isa)),
            ram_bytes: self.budget.map(|budget| budget.ram_bytes),
            n_slots: self.n_slots,
            chunk_bytes: self.chunk_bytes,
            in_slab: self.mode == LoadMode::Slab,
        };
        // A small budget makes the defaults smaller, but nothing that was asked for.
        while let Some(budget) = request.ram_bytes {
            let unlimited = PlanRequest { ram_bytes: None, in_slab: false, ..request };
            let plan = self.plan_for(&config, &weights, unlimited)?;
            let (kv, buffers) = (plan.kv_bytes(), plan.allocated_bytes() - plan.kv_bytes());
            if plan.total_bytes() <= budget {
                break;
            } else if self.n_ctx.is_none() && kv > budget / 4 && request.n_ctx > MIN_CONTEXT {
                request.n_ctx = (request.n_ctx / 2).max(MIN_CONTEXT);
            } else if self.n_batch.is_none() && buffers > budget / 4 && request.n_batch > MIN_BATCH {
                request.n_batch = (request.n_batch / 2).max(MIN_BATCH);
            } else {
                break;
            }
        }
        request.n_batch = request.n_batch.min(request.n_ctx.saturating_mul(self.n_sequences));
        let plan = self.plan_for(&config, &weights, request)?;
        Ok((config, plan))
    }

    /// The plan for one way of using the model.
    fn plan_for(
        &self,
        config: &ModelConfig,
        weights: &WeightBytes,
        request: PlanRequest,
    ) -> Result<MemoryPlan> {
        let layers = config
            .layers
            .iter()
            .map(|layer| Ok((layer.attention.n_head, kv_cache::layout(&layer.attention, request.kv_type)?)));
        let layers = layers.collect::<Result<Vec<_>>>()?;
        let width = config.max_input_width();
        let backend = BackendBytes {
            inputs: Cpu::input_bytes(self.n_threads, self.isa, request.n_batch, width),
            attention: Cpu::attention_bytes(self.n_threads, layers, request.n_ctx),
        };
        MemoryPlan::new(config, weights, backend, request)
    }

    /// The tensors of experts that a plan has places for.
    fn cached_tensors(&self, plan: &MemoryPlan) -> Result<Vec<CachedTensor>> {
        let gguf = self.file.gguf();
        let places = plan.matrices.iter().filter_map(|matrix| Some((&matrix.name, matrix.cache?)));
        let tensor = |(name, ExpertPlaces { n_experts, n_places }): (&String, _)| {
            let tensor = gguf.tensor(name).ok_or_else(|| Error::MissingTensor { name: name.clone() })?;
            Ok(CachedTensor { range: GgufFile::range(&tensor)?, n_experts, n_places })
        };
        places.map(tensor).collect()
    }

    /// Loads the model.
    ///
    /// # Errors
    /// What is wrong with the file for this architecture, or what could not be allocated.
    pub fn load(mut self) -> Result<Model> {
        let (config, plan) = self.plan()?;
        let mut backend = Cpu::new(self.n_threads, self.isa)?;
        let mut resident = Resident::default();
        if let Some(stream) = plan.stream {
            self.file.will_need_little();
            let files = self.file.open_direct()?;
            let names = plan.matrices.iter().filter(|matrix| matrix.placement == Placement::Resident);
            let names: Vec<&str> = names.map(|matrix| matrix.name.as_str()).collect();
            resident = self.file.read_tensors(
                &files,
                &names,
                &mut counted(&mut self.progress, plan.placed_bytes(Placement::Resident)),
            )?;
            let experts = ExpertCache::new(self.cached_tensors(&plan)?, self.expert_policy)?;
            let weights = WeightStream::new(files, stream)?;
            backend = backend.with_stream(weights, stream.chunk_bytes, experts);
        } else if self.mode == LoadMode::Slab {
            let n_bytes = self.file.n_bytes();
            self.file.read_to_memory(&mut counted(&mut self.progress, n_bytes))?;
        } else {
            self.file.will_need();
        }
        let streamed = plan.stream.is_some();
        let mut load = Load { backend, file: &self.file, resident, streamed };
        let weights = weights::build(&self.file.gguf(), &config, &mut load)?;
        let backend = load.backend;

        info!(
            architecture = config.architecture,
            compute = backend.description(),
            n_ctx = plan.request.n_ctx,
            n_batch = plan.request.n_batch,
            kv_type = plan.request.kv_type.name(),
            mode = ?self.mode,
            budget_bytes = plan.request.ram_bytes,
            budget_from = self.budget.map(|budget| tracing::field::display(budget.source)),
            mapped_bytes = plan.mapped_bytes(),
            resident_bytes = plan.placed_bytes(Placement::Resident),
            streamed_bytes = plan.placed_bytes(Placement::Streamed),
            allocated_bytes = plan.allocated_bytes(),
            "loaded"
        );
        for line in &plan.ledger {
            debug!(bytes = line.bytes, reason = line.reason, "{}", line.what);
        }
        let stage = Decoder::new(backend, config.clone(), weights, &plan)?;
        let mapped = if plan.mapped_bytes() > 0 { self.file.stamps() } else { Vec::new() };
        drop(self.file);
        if self.locks_memory {
            lock_memory();
        }
        Ok(Model::new(config, plan, Box::new(stage), mapped))
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
    if isa.has_bf16() && bytes(false) > bytes(true) { KvType::BF16 } else { KvType::F16 }
}

/// The first pass over the weights: which there are, and how large.
#[derive(Default)]
struct Census {
    bytes: WeightBytes,
    used: std::collections::HashSet<String>,
}

impl Census {
    fn unused<'a>(&'a self, file: &'a GgufFile) -> impl Iterator<Item = String> + 'a {
        let names = file.gguf().tensors().map(|tensor| tensor.name().to_owned()).collect::<Vec<_>>();
        names.into_iter().filter(|name| !self.used.contains(name))
    }
}

impl WeightSource for Census {
    type Matrix = ();
    type Vector = ();

    fn matrix(&mut self, tensor: Tensor<'_>, role: Role) -> Result<()> {
        self.used.insert(tensor.name().to_owned());
        if tensor.byte_order() == ByteOrder::Little {
            let (name, bytes) = (tensor.name().to_owned(), tensor.n_bytes());
            let n_experts = match role {
                Role::Experts(_) => tensor.shape().get(2).map_or(1, |n| *n as usize),
                _ => 0,
            };
            let row_bytes = bytes / tensor.n_rows();
            self.bytes.matrices.push(MatrixSize { name, role, bytes, row_bytes, n_experts });
        } else {
            self.bytes.copied += tensor.n_bytes();
        }
        Ok(())
    }

    fn vector(&mut self, tensor: Tensor<'_>) -> Result<()> {
        self.used.insert(tensor.name().to_owned());
        self.bytes.vectors += tensor.n_elements() * 4;
        Ok(())
    }
}

/// The second pass: every tensor to the backend.
struct Load<'a, B> {
    backend: B,
    file: &'a GgufFile,
    /// Where some matrices have been read to.
    resident: Resident,
    /// Whether the others stay in the file, instead of being used in its map.
    streamed: bool,
}

impl<B: Backend> WeightSource for Load<'_, B> {
    type Matrix = B::Matrix;
    type Vector = B::Buffer;

    fn matrix(&mut self, tensor: Tensor<'_>, _: Role) -> Result<B::Matrix> {
        let mut data = self.file.matrix(&tensor)?;
        if let Some(bytes) = self.resident.get(tensor.name()) {
            data = MatrixData { bytes: MatrixBytes::Memory(bytes), ..data };
        } else if self.streamed && tensor.byte_order() == ByteOrder::Little {
            data = MatrixData { bytes: MatrixBytes::File(GgufFile::range(&tensor)?), ..data };
        }
        self.backend.matrix(data)
    }

    fn vector(&mut self, tensor: Tensor<'_>) -> Result<B::Buffer> {
        let values = self.file.floats(&tensor)?;
        let mut buffer = self.backend.buffer("a vector of weights", values.len())?;
        self.backend.write(&values, &mut buffer);
        Ok(buffer)
    }
}
