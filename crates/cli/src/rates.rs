//! What this machine can do, measured briefly: what predictions are made from.

use std::time::{Duration, Instant};

use metallic::backend::{Backend, Cpu, Input, MatmulJob, Needs, Tokens};
use metallic::loader::stream_rate;
use metallic::memory::{MatrixBytes, MatrixData, SharedBytes};
use metallic::model::Usage;
use metallic::plan::{MemoryPlan, Rates};
use metallic::{GgmlType, GgufFile, Isa};

use crate::args::PlanArgs;
use crate::bench::bandwidth;
use crate::budget;
use crate::cost::per_second;
use crate::failure::{Failure, Kind, Result};
use crate::model_file::{self, Planned};
use crate::terminal::Terminal;

/// How long the disk is read: long enough for its queues to fill.
const DISK_TIME: Duration = Duration::from_millis(500);

/// How long products are computed, of each kind.
const PRODUCT_TIME: Duration = Duration::from_millis(100);

/// Tokens of the products that stand for a prompt's, if a batch has as many.
const MAX_TOKENS: usize = 512;

/// Rows of the matrices that stand for the model's.
const MAX_ROWS: u64 = 4096;

/// Weights of a token's products, for each thread: they lie in the second-level cache.
const CACHED_BYTES: u64 = 512 << 10;

/// What a plan's speeds depend on. `None` is a rate that could not be measured, or the disk's where nothing is swapped in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MachineRates {
    pub(crate) disk_bytes: Option<f64>,
    pub(crate) memory_bytes: Option<f64>,
    pub(crate) prefill_ops: Option<f64>,
    pub(crate) decode_ops: Option<f64>,
}

impl MachineRates {
    /// The rates that a plan's speeds are predicted from, if all that it needs are known.
    pub(crate) fn for_plan(&self, plan: &MemoryPlan) -> Option<Rates> {
        // What a GPU does in a second is not measured yet.
        if !plan.devices.is_empty() {
            return None;
        }
        let disk_bytes = if plan.stream.is_some() { self.disk_bytes? } else { f64::INFINITY };
        Some(Rates {
            disk_bytes,
            memory_bytes: self.memory_bytes?,
            prefill_ops: self.prefill_ops?,
            decode_ops: self.decode_ops?,
        })
    }
}

/// What was given of the rates that a plan's speeds depend on, and for the rest what is measured, within the plan's budget.
pub(crate) fn measure(args: &PlanArgs, planned: &Planned, terminal: &Terminal) -> Result<MachineRates> {
    const GIGA: f64 = 1e9;
    let (file, plan) = (planned.file(), &planned.plan);
    let isa = args.engine.compute.isa();
    let n_threads = model_file::n_threads(&args.engine);
    let given = args.rates.clone();
    let room_bytes = budget::room(plan);
    let bar = terminal.step_bar("measuring this machine", 4);
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
    let rates = MachineRates {
        disk_bytes: rate(given.disk_gb_s, &|| disk(planned))?,
        memory_bytes: rate(given.memory_gb_s, &|| bandwidth::measure(n_threads, room_bytes))?,
        prefill_ops: rate(given.prefill_gop_s, &|| product(Phase::Prefill))?,
        decode_ops: rate(given.decode_gop_s, &|| product(Phase::Decode))?,
    };
    bar.finish_and_clear();
    Ok(rates)
}

/// Bytes a second that the weights which a plan streams come at; `None` if there are none.
pub(crate) fn disk(planned: &Planned) -> Result<Option<f64>> {
    let (file, plan) = (planned.file(), &planned.plan);
    stream_rate(file, plan, DISK_TIME).map_err(|e| model_file::unusable(file.path(), e))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Prefill,
    Decode,
}

/// A product of a size.
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
            let n_batch = plan.request.capacity.n_batch.min(MAX_TOKENS) as u64;
            let (n_parts, n_tokens, weights) = match matrix.usage {
                Usage::Whole => (1, n_batch, matrix.n_weights),
                Usage::Logits if phase == Phase::Decode => (1, 1, matrix.n_weights),
                Usage::Experts { n_used, n_expert } => {
                    (n_expert, n_batch * n_used / n_expert, matrix.n_weights / n_expert * n_used)
                }
                Usage::Logits | Usage::Row => continue,
            };
            let Some(tensor) = gguf.tensor(&matrix.name) else { continue };
            let (row_len, row_bytes) = (matrix.n_weights / matrix.n_rows, matrix.row_bytes());
            let (n_tokens, n_rows) = match phase {
                Phase::Prefill => (n_tokens.max(1), MAX_ROWS.min(matrix.n_rows / n_parts)),
                Phase::Decode => (1, n_threads as u64 * CACHED_BYTES / row_bytes),
            };
            let [row_len, n_rows, n_tokens] = [row_len, n_rows.max(1), n_tokens].map(|n| n as usize);
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
            slot_bytes: [0; 2],
        };
        let inputs = (2 * n_tokens * row_len * size_of::<f32>()) as u64
            + Cpu::bytes_with(n_threads, isa, &needs).inputs;
        let of_row = ggml_type.row_bytes(row_len as u64)? + (n_tokens * size_of::<f32>()) as u64;
        let n_rows = room_bytes.saturating_sub(inputs) / of_row;
        (n_rows > 0).then_some(Self { n_rows: self.n_rows.min(n_rows as usize), ..self })
    }

    /// Two operations for each weight and token, by the best of the calls, as the others were disturbed.
    fn operations_a_second(&self, n_threads: usize, isa: Isa) -> metallic::Result<Option<f64>> {
        let &Self { phase, ggml_type, row_len, n_rows, n_tokens } = self;
        let mut cpu = Cpu::new(n_threads, isa)?;
        let row_bytes = ggml_type.row_bytes(row_len as u64).unwrap_or(0) as usize;
        // Any weights do, as long as scales are ordinary numbers: 0x2222 is 0.012 as 16 bits.
        let bytes = MatrixBytes::in_memory(SharedBytes::new(vec![0x22_u8; n_rows * row_bytes]));
        let matrix = cpu.matrix(MatrixData { ggml_type, row_len, n_rows, bytes })?;
        let mut input = cpu.buffer("an input", n_tokens * row_len)?;
        let values: Vec<f32> = (0..n_tokens * row_len).map(|i| (i % 251) as f32 - 125.0).collect();
        cpu.write(&values, &mut input)?;
        let mut out = cpu.buffer("a product", n_tokens * n_rows)?;
        let tokens = match phase {
            Phase::Prefill => Tokens { gemv: 0, gemm: n_tokens },
            Phase::Decode => Tokens { gemv: n_tokens, gemm: 0 },
        };
        let (began, mut best) = (Instant::now(), Duration::MAX);
        while began.elapsed() < PRODUCT_TIME {
            let started = Instant::now();
            cpu.matmul(&Input::Rows(&input), tokens, &mut [MatmulJob::new(&matrix, &mut out)])?;
            best = best.min(started.elapsed());
        }
        Ok(per_second(2.0 * (n_tokens * n_rows * row_len) as f64, best))
    }
}
