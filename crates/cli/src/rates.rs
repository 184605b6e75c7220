//! What this machine can do, measured briefly: what predictions are made from.

use std::time::{Duration, Instant};

use metallic::backend::{Backend, Cpu, Input, MatmulJob, Needs, SwapNeeds, Tokens};
use metallic::loader::stream_rate;
use metallic::memory::{MatrixBytes, MatrixData, SharedBytes};
use metallic::model::Usage;
use metallic::plan::{DeviceRates, MemoryPlan, Rates};
use metallic::{GgmlType, GgufFile, Isa};

use crate::args::{ComputeArgs, EngineArgs, RateArgs};
use crate::bench::bandwidth;
use crate::budget;
use crate::cost::per_second;
use crate::failure::{Failure, Kind, Result};
use crate::gpu::{self, Gpu};
use crate::model_file;
use crate::terminal::Terminal;

/// How long the disk is read: long enough for its queues to fill.
const DISK_TIME: Duration = Duration::from_millis(500);

/// How long products are computed, of each kind.
const PRODUCT_TIME: Duration = Duration::from_millis(100);

/// Tokens of the products that stand for a prompt's, if a batch has as many.
const MAX_TOKENS: usize = 512;

/// Rows of the matrices that stand for the model's.
const MAX_ROWS: u64 = 4096;

/// Bytes of weights that stand for a GPU's, and rows that they are at most.
const GPU_BYTES: u64 = 64 << 20;
const GPU_ROWS: u64 = 1 << 20;

/// Products that a GPU is given before it is waited for, at most: starting one takes as long as some of them.
const GPU_CALLS: usize = 64;

/// Weights of a token's products, for each thread: they lie in the second-level cache.
const CACHED_BYTES: u64 = 512 << 10;

/// What a plan's speeds depend on. `None` is a rate that could not be measured, or is not needed: the disk's where nothing is
/// swapped in.
#[derive(Clone, Debug)]
pub(crate) struct MachineRates {
    pub(crate) disk_bytes: Option<f64>,
    pub(crate) memory_bytes: Option<f64>,
    pub(crate) prefill_ops: Option<f64>,
    pub(crate) decode_ops: Option<f64>,
    /// Of products of a token of each sequence.
    pub(crate) together_ops: Option<f64>,
    /// Of each GPU, where some compute.
    pub(crate) gpus: Vec<GpuRates>,
}

/// Those of a GPU.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct GpuRates {
    pub(crate) link_bytes: Option<f64>,
    pub(crate) memory_bytes: Option<f64>,
    pub(crate) prefill_ops: Option<f64>,
    /// What copies within its memory read and write, which no product exceeds.
    pub(crate) copy_bytes: Option<f64>,
}

impl MachineRates {
    /// The rates that a plan's speeds are predicted from, if all that it needs are known.
    pub(crate) fn for_plan(&self, plan: &MemoryPlan) -> Option<Rates> {
        let disk_bytes = if plan.stream.is_some() { self.disk_bytes? } else { f64::INFINITY };
        let of_gpu = |gpu: &GpuRates| {
            let GpuRates { link_bytes, memory_bytes, prefill_ops, .. } = *gpu;
            Some(DeviceRates {
                link_bytes: link_bytes?,
                memory_bytes: memory_bytes?,
                prefill_ops: prefill_ops?,
            })
        };
        let gpus = self.gpus.iter().take(plan.devices.len());
        Some(Rates {
            disk_bytes,
            memory_bytes: self.memory_bytes?,
            prefill_ops: self.prefill_ops?,
            decode_ops: self.decode_ops?,
            together_ops: self.together_ops?,
            devices: gpus.map(of_gpu).collect::<Option<_>>()?,
        })
    }
}

/// What was given of the rates that a plan's speeds depend on, and for the rest what is measured, within the plan's budget.
pub(crate) fn measure(
    given: &RateArgs,
    args: &EngineArgs,
    file: &GgufFile,
    plan: &MemoryPlan,
    terminal: &Terminal,
) -> Result<MachineRates> {
    const GIGA: f64 = 1e9;
    let (isa, n_threads) = (args.compute.isa(), model_file::n_threads(args));
    let room_bytes = budget::room(plan);
    let bar = terminal.step_bar("measuring this machine", 5);
    let rate = |given: Option<f64>, measure: &dyn Fn() -> Result<Option<f64>>| {
        bar.tick();
        let rate = given.map_or_else(measure, |giga| Ok(Some(giga * GIGA)));
        bar.inc(1);
        rate
    };
    let product = |phase| {
        let product = Product::typical(file, plan, phase, n_threads)?.within(room_bytes, n_threads, isa);
        let Some(product) = product else { return Ok(None) };
        product.operations_a_second(n_threads, isa).map_err(|e| model_file::unusable(file.path(), e))
    };
    // In this order: an allocator may keep for a while what products took.
    let n_sequences = plan.request.capacity.n_sequences;
    let disk_bytes = rate(given.disk_gb_s, &|| disk(file, plan))?;
    let memory_bytes = rate(given.memory_gb_s, &|| bandwidth::measure(n_threads, room_bytes))?;
    let prefill_ops = rate(given.prefill_gop_s, &|| product(Phase::Prefill))?;
    let decode_ops = rate(given.decode_gop_s, &|| product(Phase::Decode { n_tokens: 1 }))?;
    let together = || match n_sequences {
        1 => Ok(decode_ops),
        n_tokens => product(Phase::Decode { n_tokens: n_tokens as u64 }),
    };
    let mut rates = MachineRates {
        disk_bytes,
        memory_bytes,
        prefill_ops,
        decode_ops,
        together_ops: rate(given.together_gop_s, &together)?,
        gpus: Vec::new(),
    };
    let n_gpus = plan.devices.len();
    if n_gpus > 0 {
        let of_gpus = [&given.link_gb_s, &given.gpu_memory_gb_s, &given.gpu_prefill_gop_s];
        if of_gpus.iter().any(|rates| rates.len() > 1 && rates.len() != n_gpus) {
            let what = format!("a rate of GPUs has several numbers, and there are {n_gpus} GPUs");
            return Err(Failure::new(Kind::Usage, what).advice("give one for each, or one for all"));
        }
        rates.gpus = if of_gpus.iter().any(|rates| rates.is_empty()) {
            on_gpus(&args.compute, file, plan, n_threads)?
        } else {
            vec![GpuRates::default(); n_gpus]
        };
        for (i, gpu) in rates.gpus.iter_mut().enumerate() {
            let or = |given: &[f64], measured: Option<f64>| {
                given.get(i).or(given.last()).map(|giga| giga * GIGA).or(measured)
            };
            gpu.link_bytes = or(&given.link_gb_s, gpu.link_bytes);
            gpu.memory_bytes = or(&given.gpu_memory_gb_s, gpu.memory_bytes);
            gpu.prefill_ops = or(&given.gpu_prefill_gop_s, gpu.prefill_ops);
        }
    }
    bar.finish_and_clear();
    Ok(rates)
}

/// What each GPU of a plan does, in products like the model's, which are made within the budget of main memory.
pub(crate) fn on_gpus(
    args: &ComputeArgs,
    file: &GgufFile,
    plan: &MemoryPlan,
    n_threads: usize,
) -> Result<Vec<GpuRates>> {
    let decode = Product::typical(file, plan, Phase::Decode { n_tokens: 1 }, n_threads)?;
    let prefill = Product::typical(file, plan, Phase::Prefill, n_threads)?;
    let host_bytes = budget::room(plan);
    let on_gpu = |gpu: &mut Gpu| -> Result<GpuRates> {
        let unusable = |e| model_file::unusable(file.path(), e);
        let room_bytes = gpu::room_bytes(gpu).min(host_bytes);
        let mut rates = GpuRates::default();
        // As long as no cache helps, and so that starting it takes no part of the time.
        let row_bytes = decode.row_bytes();
        let n_rows = (GPU_BYTES.min(room_bytes / 2) / row_bytes).min(GPU_ROWS) as usize;
        if n_rows > 0 {
            let timed = Product { n_rows, ..decode }.time_on(gpu, GPU_CALLS).map_err(unusable)?;
            let bytes = n_rows as f64 * row_bytes as f64;
            rates.link_bytes = per_second(bytes, timed.upload);
            rates.memory_bytes = per_second(bytes, timed.product);
        }
        if prefill.bytes() < room_bytes {
            let timed = prefill.time_on(gpu, GPU_CALLS).map_err(unusable)?;
            rates.prefill_ops = per_second(prefill.n_ops(), timed.product);
        }
        rates.copy_bytes = gpu::copy_rate(gpu)?;
        Ok(rates)
    };
    gpu::measure(args, on_gpu)
}

/// Bytes a second that the weights which a plan streams come at; `None` if there are none.
pub(crate) fn disk(file: &GgufFile, plan: &MemoryPlan) -> Result<Option<f64>> {
    stream_rate(file, plan, DISK_TIME).map_err(|e| model_file::unusable(file.path(), e))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Prefill,
    /// Of so many tokens, each of another sequence.
    Decode {
        n_tokens: u64,
    },
}

/// A product of a size.
#[derive(Clone, Copy)]
struct Product {
    phase: Phase,
    ggml_type: GgmlType,
    row_len: usize,
    n_rows: usize,
    n_tokens: usize,
}

impl Product {
    /// The one that most multiplications of a phase are like: of the commonest type and, within it, shape.
    fn typical(file: &GgufFile, plan: &MemoryPlan, phase: Phase, n_threads: usize) -> Result<Self> {
        let gguf = file.gguf();
        let mut kinds: Vec<(Self, u64)> = Vec::new();
        for matrix in plan.matrices.iter().map(|matrix| &matrix.weights) {
            let n_batch = match phase {
                Phase::Prefill => plan.request.capacity.n_batch.min(MAX_TOKENS) as u64,
                Phase::Decode { n_tokens } => n_tokens,
            };
            let (n_parts, n_tokens, weights) = match matrix.usage {
                Usage::Whole => (1, n_batch, matrix.n_weights),
                Usage::Logits if phase != Phase::Prefill => (1, n_batch, matrix.n_weights),
                Usage::Experts { n_used, n_expert } => {
                    (n_expert, n_batch * n_used / n_expert, matrix.n_weights / n_expert * n_used)
                }
                Usage::Logits | Usage::Row => continue,
            };
            let Some(tensor) = gguf.tensor(&matrix.name) else { continue };
            let (row_len, row_bytes) = (matrix.n_weights / matrix.n_rows, matrix.row_bytes());
            let n_rows = match phase {
                Phase::Prefill => MAX_ROWS.min(matrix.n_rows / n_parts),
                Phase::Decode { .. } => n_threads as u64 * CACHED_BYTES / row_bytes,
            };
            let [row_len, n_rows, n_tokens] = [row_len, n_rows.max(1), n_tokens.max(1)].map(|n| n as usize);
            let kind = Self { phase, ggml_type: tensor.ggml_type(), row_len, n_rows, n_tokens };
            match kinds.iter_mut().find(|(known, _)| known.is_like(&kind)) {
                Some((_, sum)) => *sum += weights,
                None => kinds.push((kind, weights)),
            }
        }
        let of_type = |ggml_type: GgmlType| -> u64 {
            kinds.iter().filter(|(kind, _)| kind.ggml_type == ggml_type).map(|(_, weights)| weights).sum()
        };
        let best = kinds.iter().map(|(kind, weights)| (of_type(kind.ggml_type), *weights)).enumerate();
        let best = best.max_by_key(|(_, weights)| *weights).map(|(i, _)| i);
        match best {
            Some(i) => Ok(kinds.swap_remove(i).0),
            None => Err(Failure::new(Kind::BadModel, "the model has no matrices")),
        }
    }

    fn is_like(&self, other: &Self) -> bool {
        (self.ggml_type, self.row_len, self.n_rows) == (other.ggml_type, other.row_len, other.n_rows)
    }

    /// The same with no more rows than there is room for; `None` if that is none.
    fn within(self, room_bytes: u64, n_threads: usize, isa: Isa) -> Option<Self> {
        let Self { ggml_type, row_len, n_tokens, .. } = self;
        // The numbers of the input, as they are made and as the backend has them, and what it makes of them.
        let needs = Needs {
            n_rows: n_tokens,
            row_len,
            attention: &[],
            n_positions: 0,
            n_pages: 0,
            ropes: &[],
            experts: None,
            swapped: SwapNeeds::default(),
        };
        let inputs = (2 * n_tokens * row_len * size_of::<f32>()) as u64
            + Cpu::bytes_with(n_threads, isa, &needs).inputs;
        let of_row = ggml_type.row_bytes(row_len as u64)? + (n_tokens * size_of::<f32>()) as u64;
        let n_rows = room_bytes.saturating_sub(inputs) / of_row;
        (n_rows > 0).then_some(Self { n_rows: self.n_rows.min(n_rows as usize), ..self })
    }

    /// Two operations for each weight and token.
    fn n_ops(&self) -> f64 {
        2.0 * (self.n_tokens * self.n_rows * self.row_len) as f64
    }

    fn row_bytes(&self) -> u64 {
        self.ggml_type.row_bytes(self.row_len as u64).unwrap_or(0).max(1)
    }

    /// Of weights, input, with what may be made of it, and output.
    fn bytes(&self) -> u64 {
        let floats = self.n_tokens * (2 * self.row_len + self.n_rows);
        self.n_rows as u64 * self.row_bytes() + 4 * floats as u64
    }

    /// What the CPU does.
    fn operations_a_second(&self, n_threads: usize, isa: Isa) -> metallic::Result<Option<f64>> {
        let timed = self.time_on(&mut Cpu::new(n_threads, isa)?, 1)?;
        Ok(per_second(self.n_ops(), timed.product))
    }

    /// How long a backend takes, by the best of the calls, as the others were disturbed. It is waited for after some of them:
    /// up to `max_calls`, as long as they take little.
    fn time_on<B: Backend>(&self, backend: &mut B, max_calls: usize) -> metallic::Result<Timed> {
        let &Self { phase, ggml_type, row_len, n_rows, n_tokens } = self;
        let n_bytes = n_rows * self.row_bytes() as usize;
        backend.reserve_inputs(n_tokens, row_len)?;
        let mut input = backend.buffer("an input", n_tokens * row_len)?;
        let mut out = backend.buffer("a product", n_tokens * n_rows)?;
        let values: Vec<f32> = (0..n_tokens * row_len).map(|i| (i % 251) as f32 - 125.0).collect();
        backend.write(&values, &mut input)?;
        backend.read(&out, 0, &mut [0.0])?;
        // Any weights do, as long as scales are ordinary numbers: 0x2222 is 0.012 as 16 bits.
        let bytes = MatrixBytes::in_memory(SharedBytes::new(vec![0x22_u8; n_bytes]));
        let started = Instant::now();
        let matrix = backend.matrix(MatrixData { ggml_type, row_len, n_rows, bytes })?;
        backend.read(&out, 0, &mut [0.0])?;
        let upload = started.elapsed();
        let tokens = match phase {
            Phase::Prefill => Tokens { gemv: 0, gemm: n_tokens },
            Phase::Decode { .. } => Tokens { gemv: n_tokens, gemm: 0 },
        };
        let mut time = |n_calls: usize| -> metallic::Result<Duration> {
            let started = Instant::now();
            for _ in 0..n_calls {
                backend.matmul(&Input::Rows(&input), tokens, &mut [MatmulJob::new(&matrix, &mut out)])?;
            }
            backend.read(&out, 0, &mut [0.0])?;
            Ok(started.elapsed())
        };
        // The first may have to be compiled.
        let (mut product, mut n_calls) = (time(1)?, 1);
        let began = Instant::now();
        while began.elapsed() < PRODUCT_TIME {
            let taken = time(n_calls)?;
            product = product.min(taken / n_calls as u32);
            if taken < PRODUCT_TIME / 10 && n_calls < max_calls {
                n_calls *= 2;
            }
        }
        Ok(Timed { upload, product })
    }
}

/// How long it takes to hand over the weights of a product, and to compute it.
struct Timed {
    upload: Duration,
    product: Duration,
}
