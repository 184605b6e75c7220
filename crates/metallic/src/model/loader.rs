//! From a file to a model: hyper-parameters, plan, weights.

use metallic_gguf::{ByteOrder, GgmlType, Gguf, Tensor};
use metallic_kernels::Isa;
use tracing::{debug, info};

use super::decoder::Decoder;
use super::weights::{self, WeightSource};
use super::{Model, config::ModelConfig};
use super::{arch, kv_cache};
use crate::backend::{Backend, Cpu, KvType};
use crate::cores::default_threads;
use crate::error::Result;
use crate::memory::{BackendBytes, GgufFile, MemoryPlan, PlanRequest, WeightBytes};

/// Longest context that is allocated unless a longer one is asked for, in tokens.
pub const DEFAULT_MAX_CONTEXT: usize = 4096;
/// Rows of a forward pass unless another number is asked for.
pub const DEFAULT_BATCH: usize = 512;

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
    n_batch: usize,
    n_threads: usize,
    kv_type: Option<KvType>,
    isa: Isa,
    mode: LoadMode,
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
            n_batch: DEFAULT_BATCH,
            n_threads: default_threads(),
            kv_type: None,
            isa: Isa::best(),
            mode: LoadMode::default(),
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
        self.n_batch = n_batch.max(1);
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
        let n_ctx = self.n_ctx.unwrap_or(config.context_length.min(DEFAULT_MAX_CONTEXT));
        let request = PlanRequest {
            n_ctx,
            n_sequences: self.n_sequences,
            n_batch: self.n_batch.min(n_ctx.saturating_mul(self.n_sequences)),
            kv_type: self.kv_type.unwrap_or_else(|| default_kv_type(&gguf, self.isa)),
        };
        let width = config.max_input_width();
        let layers = config
            .layers
            .iter()
            .map(|layer| Ok((layer.attention.n_head, kv_cache::layout(&layer.attention, request.kv_type)?)));
        let layers = layers.collect::<Result<Vec<_>>>()?;
        let backend = BackendBytes {
            inputs: Cpu::input_bytes(self.n_threads, self.isa, request.n_batch, width),
            attention: Cpu::attention_bytes(self.n_threads, layers, n_ctx),
        };
        let mut weight_bytes = census.bytes;
        if self.mode == LoadMode::Slab {
            (weight_bytes.mapped, weight_bytes.slab) = (0, self.file.n_bytes());
        }
        let plan = MemoryPlan::new(&config, weight_bytes, backend, request)?;
        Ok((config, plan))
    }

    /// Loads the model.
    ///
    /// # Errors
    /// What is wrong with the file for this architecture, or what could not be allocated.
    pub fn load(mut self) -> Result<Model> {
        let (config, plan) = self.plan()?;
        let backend = Cpu::new(self.n_threads, self.isa)?;
        match self.mode {
            LoadMode::Map => self.file.will_need(),
            LoadMode::Slab => {
                let (mut done, total) = (0, self.file.n_bytes());
                self.file.read_to_memory(&mut |n_bytes| {
                    done += n_bytes;
                    if let Some(progress) = &mut self.progress {
                        progress(done, total);
                    }
                })?;
            }
        }
        let mut load = Load { backend, file: &self.file };
        let weights = weights::build(&self.file.gguf(), &config, &mut load)?;
        let backend = load.backend;

        info!(
            architecture = config.architecture,
            compute = backend.description(),
            n_ctx = plan.request.n_ctx,
            n_batch = plan.request.n_batch,
            kv_type = plan.request.kv_type.name(),
            mode = ?self.mode,
            mapped_bytes = plan.mapped_bytes(),
            allocated_bytes = plan.allocated_bytes(),
            "loaded"
        );
        for line in &plan.ledger {
            debug!(bytes = line.bytes, reason = line.reason, "{}", line.what);
        }
        let stage = Decoder::new(backend, config.clone(), weights, &plan)?;
        Ok(Model::new(config, plan, Box::new(stage)))
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

    fn matrix(&mut self, tensor: Tensor<'_>) -> Result<()> {
        self.used.insert(tensor.name().to_owned());
        if tensor.byte_order() == ByteOrder::Little {
            self.bytes.mapped += tensor.n_bytes();
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
}

impl<B: Backend> WeightSource for Load<'_, B> {
    type Matrix = B::Matrix;
    type Vector = B::Buffer;

    fn matrix(&mut self, tensor: Tensor<'_>) -> Result<B::Matrix> {
        self.backend.matrix(self.file.matrix(&tensor)?)
    }

    fn vector(&mut self, tensor: Tensor<'_>) -> Result<B::Buffer> {
        let values = self.file.floats(&tensor)?;
        let mut buffer = self.backend.buffer("a vector of weights", values.len())?;
        self.backend.write(&values, &mut buffer);
        Ok(buffer)
    }
}
