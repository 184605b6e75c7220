//! How fast a plan will run, and what bounds it: arithmetic on the plan and on what the machine can do.
//!
//! Reading the disk, reading memory and computing go on at the same time, so a pass over the weights takes as long as
//! the slowest of the three. All that is left out takes less than a few hundredths where a model is not tiny: attention
//! over a long past, single rows of the token embedding, the barriers between operations.

use super::placement::Placement;
use super::plan::{MatrixBytes, MemoryPlan, Usage};
use crate::model::config::ModelConfig;

/// Tokens of the prompt that a prediction is for, if the context holds as many.
const PROMPT_TOKENS: usize = 512;

/// Of the rate at which threads read plain memory, the kernels of one token reach this share: they made 0.83 to 0.94
/// of it with weights of every size from 90 MB to 4 GB.
const KERNEL_SHARE: f64 = 0.9;

/// An operation of attention takes as long as so many of a product: it multiplies floats of 16 or 32 bits where a
/// product multiplies integers of 8, and there is the softmax.
const ATTENTION_COST: f64 = 3.0;

/// Bytes of memory that each value of a product in a large batch moves on its way through norms, gates and
/// residuals, which are computed between products.
const RESULT_BYTES: f64 = 16.0;

/// What a machine can do in a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Bytes that the disk brings.
    pub disk_bytes: f64,
    /// Bytes that the threads read from memory together.
    pub memory_bytes: f64,
    /// Operations, two for a multiplication and its addition, of products of many tokens.
    pub prefill_ops: f64,
    /// Operations of a token's products with weights that are in the cache.
    pub decode_ops: f64,
}

/// What a speed is bounded by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Weights that are swapped in.
    Disk,
    /// Reading weights from memory.
    Memory,
    /// Arithmetic.
    Compute,
}

/// The speed of something, and how long each part of it would take by itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// Tokens that it is for.
    pub n_tokens: usize,
    /// Seconds of reading the disk.
    pub disk_s: f64,
    /// Seconds of reading memory.
    pub memory_s: f64,
    /// Seconds of computing.
    pub compute_s: f64,
}

/// What a prompt takes beside the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PromptWork {
    /// Its length.
    pub n_tokens: usize,
    /// Multiplications, each with its addition, of attention in all layers.
    pub attention: u64,
}

impl PromptWork {
    /// For a prompt at the beginning of a context of `n_ctx`.
    pub(super) fn new(config: &ModelConfig, n_ctx: usize) -> Self {
        let n_tokens = n_ctx.min(PROMPT_TOKENS);
        let layers = config.layers.iter().filter_map(|layer| layer.mixer.attention()).map(|attention| {
            let of_position =
                attention.n_head.saturating_mul(attention.key_length.saturating_add(attention.value_length));
            let window = attention.window.unwrap_or(usize::MAX);
            let n_positions: usize = (1..=n_tokens).map(|position| position.min(window)).sum();
            of_position.saturating_mul(n_positions) as u64
        });
        Self { n_tokens, attention: layers.fold(0, u64::saturating_add) }
    }
}

impl MemoryPlan {
    /// How fast a prompt is read at the beginning of a context, as many tokens as a small context holds and at most
    /// 512, in batches; logits are taken of the last token.
    pub fn predict_prefill(&self, rates: &Rates) -> Prediction {
        let PromptWork { n_tokens, attention } = self.prompt;
        let n_batch = self.request.n_batch;
        let mut work = Work::default();
        for start in (0..n_tokens).step_by(n_batch) {
            let n_rows = n_batch.min(n_tokens - start);
            work.add_pass(&self.matrices, n_rows, usize::from(start + n_rows == n_tokens));
        }
        let products = work.multiply_adds + ATTENTION_COST * attention as f64;
        let between = RESULT_BYTES * work.results / rates.memory_bytes;
        work.take(n_tokens, rates, 2.0 * products / rates.prefill_ops + between)
    }

    /// How fast the first tokens of a context are generated, one at a time.
    pub fn predict_decode(&self, rates: &Rates) -> Prediction {
        let mut work = Work::default();
        work.add_pass(&self.matrices, 1, 1);
        work.take(1, rates, 2.0 * work.multiply_adds / rates.decode_ops)
    }
}

impl Prediction {
    /// Tokens in a second.
    pub fn tokens_per_s(&self) -> f64 {
        self.n_tokens as f64 / self.disk_s.max(self.memory_s).max(self.compute_s)
    }

    /// What takes longest.
    pub fn bound(&self) -> Bound {
        if self.disk_s >= self.memory_s.max(self.compute_s) {
            Bound::Disk
        } else if self.memory_s >= self.compute_s {
            Bound::Memory
        } else {
            Bound::Compute
        }
    }
}

impl Bound {
    /// Lower-case name.
    pub const fn name(self) -> &'static str {
        match self {
            Bound::Disk => "disk",
            Bound::Memory => "memory",
            Bound::Compute => "compute",
        }
    }
}

/// What some passes over the weights take.
#[derive(Clone, Copy, Debug, Default)]
struct Work {
    streamed_bytes: f64,
    /// Of all weights that are used: what is streamed is read from memory, too, once it is there.
    bytes: f64,
    multiply_adds: f64,
    /// Values of products.
    results: f64,
}

impl Work {
    /// Adds a pass for `n_tokens`, of which `n_logits` give logits.
    fn add_pass(&mut self, matrices: &[MatrixBytes], n_tokens: usize, n_logits: usize) {
        for matrix in matrices {
            // What is read of the matrix, how much of it meets a token, and how many tokens it meets.
            let (part, share, n_rows) = match matrix.usage {
                Usage::Whole => (1.0, 1.0, n_tokens),
                Usage::Logits if n_logits > 0 => (1.0, 1.0, n_logits),
                Usage::Experts { n_used, n_expert } => {
                    let share = n_used as f64 / n_expert as f64;
                    (part_of_experts(share, n_tokens), share, n_tokens)
                }
                Usage::Logits | Usage::Row => continue,
            };
            let bytes = part * matrix.bytes as f64;
            self.bytes += bytes;
            if matrix.placement == Placement::Streamed {
                self.streamed_bytes += bytes;
            }
            self.multiply_adds += share * n_rows as f64 * matrix.n_weights as f64;
            self.results += share * n_rows as f64 * matrix.n_rows as f64;
        }
    }

    fn take(self, n_tokens: usize, rates: &Rates, compute_s: f64) -> Prediction {
        let disk_s = if self.streamed_bytes > 0.0 { self.streamed_bytes / rates.disk_bytes } else { 0.0 };
        Prediction { n_tokens, disk_s, memory_s: self.bytes / (KERNEL_SHARE * rates.memory_bytes), compute_s }
    }
}

/// The part of a layer's experts that some of the tokens are sent to, if each is sent to any `share` of them. All that are
/// streamed are read: a cache of experts would lessen what is read here.
fn part_of_experts(share: f64, n_tokens: usize) -> f64 {
    1.0 - (1.0 - share).powf(n_tokens as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::KvType;
    use crate::memory::{PlanRequest, StreamPlan};

    /// Speeds that make a byte or an operation a round number of seconds.
    const RATES: Rates =
        Rates { disk_bytes: 10.0, memory_bytes: 1000.0, prefill_ops: 500.0, decode_ops: 100.0 };

    fn plan(matrices: &[(u64, u64, Usage, Placement)], n_batch: usize, prompt: PromptWork) -> MemoryPlan {
        let request = PlanRequest {
            n_ctx: 100,
            n_sequences: 1,
            n_batch,
            kv_type: KvType::F16,
            ram_bytes: None,
            n_slots: 1,
            chunk_bytes: None,
            in_slab: false,
        };
        let matrix = |&(bytes, n_rows, usage, placement): &_| MatrixBytes {
            name: String::new(),
            bytes,
            n_weights: 2 * bytes,
            n_rows,
            usage,
            placement,
            cache: None,
        };
        let matrices = matrices.iter().map(matrix).collect();
        let stream = Some(StreamPlan { n_slots: 1, chunk_bytes: 1, max_row_bytes: 1 });
        MemoryPlan { request, n_pages: 1, ledger: Vec::new(), matrices, stream, prompt }
    }

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() <= 1e-9 * expected.abs(), "{found} is not {expected}");
    }

    #[test]
    fn a_dense_model_by_hand() {
        use Placement::{ByRow, Resident, Streamed};
        let matrices = [
            (5000, 7, Usage::Row, ByRow),
            (900, 3, Usage::Whole, Resident),
            (300, 5, Usage::Whole, Streamed),
            (600, 2, Usage::Logits, Resident),
        ];
        let plan = plan(&matrices, 40, PromptWork { n_tokens: 100, attention: 1000 });

        // 1800 bytes at nine tenths of the rate; two weights a byte and two operations a weight.
        let decode = plan.predict_decode(&RATES);
        close(decode.disk_s, 30.0);
        close(decode.memory_s, 2.0);
        close(decode.compute_s, 72.0);
        close(decode.tokens_per_s(), 1.0 / 72.0);
        assert_eq!((decode.n_tokens, decode.bound()), (1, Bound::Compute));

        // Three batches of 40, 40 and 20; the head meets one token.
        let prefill = plan.predict_prefill(&RATES);
        close(prefill.disk_s, 90.0);
        close(prefill.memory_s, (3.0 * 1200.0 + 600.0) / 900.0);
        let multiply_adds = 100.0 * 2400.0 + 1200.0 + ATTENTION_COST * 1000.0;
        let results = 100.0 * 8.0 + 2.0;
        close(prefill.compute_s, multiply_adds / 250.0 + RESULT_BYTES * results / 1000.0);
        close(prefill.tokens_per_s(), 100.0 / prefill.compute_s);
        assert_eq!(prefill.bound(), Bound::Compute);

        let slow = |disk_bytes, memory_bytes| Rates { disk_bytes, memory_bytes, ..RATES };
        assert_eq!(plan.predict_decode(&slow(1.0, 1000.0)).bound(), Bound::Disk);
        close(plan.predict_decode(&slow(1.0, 1000.0)).tokens_per_s(), 1.0 / 300.0);
        assert_eq!(plan.predict_decode(&slow(10.0, 1.0)).bound(), Bound::Memory);
        assert_eq!(plan.predict_prefill(&slow(0.5, 1000.0)).bound(), Bound::Disk);
    }

    #[test]
    fn of_experts_those_that_tokens_are_sent_to_are_read() {
        let experts = Usage::Experts { n_used: 2, n_expert: 8 };
        let matrices = [(800, 80, experts, Placement::Streamed), (100, 1, Usage::Whole, Placement::Resident)];
        let plan = plan(&matrices, 2, PromptWork { n_tokens: 2, attention: 0 });
        let decode = plan.predict_decode(&RATES);
        close(decode.disk_s, 20.0);
        close(decode.memory_s, 300.0 / 900.0);
        close(decode.compute_s, 2.0 * 2.0 * 300.0 / 100.0);
        // Two tokens miss an expert with a chance of three quarters squared.
        let prefill = plan.predict_prefill(&RATES);
        close(prefill.disk_s, 800.0 * (1.0 - 9.0 / 16.0) / 10.0);
        close(prefill.compute_s, 2.0 * 2.0 * 2.0 * 300.0 / 500.0 + RESULT_BYTES * 2.0 * 21.0 / 1000.0);
    }

    #[test]
    fn what_stays_in_memory_needs_no_disk() {
        let matrices = [(900, 3, Usage::Whole, Placement::Resident)];
        let plan = plan(&matrices, 1, PromptWork { n_tokens: 1, attention: 0 });
        let decode = plan.predict_decode(&Rates { disk_bytes: 0.0, ..RATES });
        close(decode.disk_s, 0.0);
        assert_eq!(decode.bound(), Bound::Compute);
    }
}
