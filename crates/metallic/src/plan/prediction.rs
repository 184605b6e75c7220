//! How fast a plan will run, and what bounds it: arithmetic on the plan and on what the machine can do.
//!
//! Matrices are used one after the other, each for as long as reading it from memory or computing takes. Meanwhile the
//! disk fills slots in the same order, one chunk at a time, until none is free. Experts are not read before their router. What
//! is left out takes less than a few hundredths where a model is not tiny: attention over a long past, single rows of the
//! token embedding, the barriers between operations.

use std::collections::VecDeque;

use super::{ExpertPlaces, MatrixPlan, MemoryPlan};
use crate::memory::StreamPlan;
use crate::model::config::ModelConfig;
use crate::model::route::Route;
use crate::model::{Role, Usage};

/// Tokens of the prompt that a prediction is for, if the context holds as many.
const PROMPT_TOKENS: usize = 512;

/// Of the rate at which threads read plain memory, the kernels of one token reach this share: they made 0.83 to 0.94
/// of it with weights of every size from 90 MB to 4 GB.
const KERNEL_SHARE: f64 = 0.9;

/// An operation of attention takes as long as so many of a product: it multiplies floats of 16 or 32 bits where a
/// product multiplies integers of 8, and there is the softmax. Not measured by itself, but rounded to what fits.
const ATTENTION_COST: f64 = 3.0;

/// Bytes of memory that each value of a product in a large batch moves on its way through norms, gates and
/// residuals, which are computed between products. Rounded to what fits, too.
const RESULT_BYTES: f64 = 16.0;

/// Bytes of memory that the copy of a byte moves: what is written is read before.
const COPY_BYTES: f64 = 3.0;

/// No prompt is called long that has fewer tokens: with them, what a prediction leaves out takes a part of the time.
const LEAST_LONG_PROMPT: usize = 32;

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
    /// What the device does that computes some parts; of several, what each does. Needed where a plan has one.
    pub device: Option<DeviceRates>,
}

/// What a device with memory of its own can do in a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DeviceRates {
    /// Bytes that come to it from main memory.
    pub link_bytes: f64,
    /// Bytes of its own memory that a token's products read, whatever bounds those.
    pub memory_bytes: f64,
    /// Operations, two for a multiplication and its addition, of products of many tokens.
    pub prefill_ops: f64,
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
    /// Weights that are swapped from main memory to a device.
    Link,
    /// A device's products with weights in its memory, of a token.
    DeviceMemory,
    /// A device's arithmetic.
    DeviceCompute,
}

/// How long something takes, and how long each part of it would take by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Prediction {
    /// Tokens that it is for.
    pub n_tokens: usize,
    /// Seconds in all.
    pub seconds: f64,
    /// Seconds of reading the disk.
    pub disk_s: f64,
    /// Seconds of reading memory.
    pub memory_s: f64,
    /// Seconds of computing.
    pub compute_s: f64,
    /// Seconds of bringing weights from main memory to a device.
    pub link_s: f64,
    /// Seconds of a device that reads its own memory.
    pub device_memory_s: f64,
    /// Seconds of a device that computes.
    pub device_compute_s: f64,
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
    ///
    /// # Panics
    /// If a device computes parts and [`Rates::device`] is `None`; so do the others.
    pub fn predict_prefill(&self, rates: &Rates) -> Prediction {
        let PromptWork { n_tokens, attention } = self.prompt;
        let n_batch = self.request.capacity.n_batch;
        let attention_s = |ops: f64, share: f64| 2.0 * ATTENTION_COST * share * attention as f64 / ops;
        // Of the layers, which share has its attention on devices.
        let on_devices: f64 =
            self.devices.iter().map(|device| device.n_mixers as f64 / device.n_layers as f64).sum();
        let [here, there] = match rates.device {
            Some(rates) => [1.0 - on_devices, attention_s(rates.prefill_ops, on_devices)],
            None => [1.0, 0.0],
        };
        let here = attention_s(rates.prefill_ops, here);
        let mut pipeline = Pipeline::new(self.stream, rates, rates.prefill_ops);
        let route = self.routes.of(Role::Prompt { len: n_tokens });
        for start in (0..n_tokens).step_by(n_batch) {
            let n_rows = n_batch.min(n_tokens - start);
            pipeline.pass(&self.matrices, route, n_rows, usize::from(start + n_rows == n_tokens));
        }
        let Prediction { seconds, compute_s, device_compute_s, .. } = pipeline.total;
        Prediction {
            n_tokens,
            seconds: seconds + here + there,
            compute_s: compute_s + here,
            device_compute_s: device_compute_s + there,
            ..pipeline.total
        }
    }

    /// The fewest tokens of a prompt, a power of two, for which it is faster to have networks brought to the device that they are
    /// lent to: that takes as long for a few tokens as for a batch. `None` if no batch has as many, or if none are lent. Only powers of
    /// two, so that rates which are measured again mostly give the same.
    ///
    /// # Panics
    /// As [`predict_prefill`](Self::predict_prefill).
    pub fn lending_pays_from(&self, rates: &Rates) -> Option<usize> {
        let seconds = |route, n_tokens| {
            let mut pipeline = Pipeline::new(self.stream, rates, rates.prefill_ops);
            pipeline.pass(&self.matrices, route, n_tokens, 1);
            pipeline.total.seconds
        };
        let mut lengths = std::iter::successors(Some(LEAST_LONG_PROMPT), |n_tokens| n_tokens.checked_mul(2))
            .take_while(|n_tokens| *n_tokens <= self.request.capacity.n_batch);
        lengths.find(|&n_tokens| seconds(Route::LongPrompt, n_tokens) < seconds(Route::Usual, n_tokens))
    }

    /// How fast the first tokens of a context are generated, one at a time. Of experts that are cached as many are found
    /// as if each were wanted as often: no choice of the cache finds more then, and tokens that prefer some find more.
    ///
    /// # Panics
    /// As [`predict_prefill`](Self::predict_prefill).
    pub fn predict_decode(&self, rates: &Rates) -> Prediction {
        self.decode(Pipeline::new(self.stream, rates, rates.decode_ops))
    }

    /// The same if all experts are found that there is room for: what a cache can do at best. `None` if none are cached.
    ///
    /// # Panics
    /// As [`predict_prefill`](Self::predict_prefill).
    pub fn predict_best_decode(&self, rates: &Rates) -> Option<Prediction> {
        let pipeline = Pipeline { finds_most: true, ..Pipeline::new(self.stream, rates, rates.decode_ops) };
        self.matrices.iter().any(|matrix| matrix.cache.is_some()).then(|| self.decode(pipeline))
    }

    fn decode(&self, mut pipeline: Pipeline) -> Prediction {
        // The first token leaves the slots as every later one finds them.
        pipeline.pass(&self.matrices, Route::Usual, 1, 1);
        let first = pipeline.total;
        pipeline.pass(&self.matrices, Route::Usual, 1, 1);
        Prediction { n_tokens: 1, seconds: pipeline.total.seconds - first.seconds, ..first }
    }
}

impl Prediction {
    /// Tokens in a second.
    pub fn tokens_per_s(&self) -> f64 {
        self.n_tokens as f64 / self.seconds
    }

    /// What takes longest.
    pub fn bound(&self) -> Bound {
        let parts = [
            (Bound::Compute, self.compute_s),
            (Bound::Memory, self.memory_s),
            (Bound::DeviceCompute, self.device_compute_s),
            (Bound::DeviceMemory, self.device_memory_s),
            (Bound::Link, self.link_s),
            (Bound::Disk, self.disk_s),
        ];
        let longest = parts.into_iter().max_by(|(_, a), (_, b)| a.total_cmp(b));
        longest.map_or(Bound::Compute, |(bound, _)| bound)
    }
}

impl Bound {
    /// Lower-case name.
    pub const fn name(self) -> &'static str {
        match self {
            Bound::Disk => "disk",
            Bound::Memory => "memory",
            Bound::Compute => "compute",
            Bound::Link => "link",
            Bound::DeviceMemory => "GPU memory",
            Bound::DeviceCompute => "GPU compute",
        }
    }
}

/// Passes over the weights: what is in memory is used at once, the rest as the disk brings it.
struct Pipeline {
    rates: Rates,
    /// Operations a second of this kind of pass.
    ops: f64,
    chunk_bytes: f64,
    /// Whether tokens want the experts that are cached.
    finds_most: bool,
    /// When each slot is free, in the order in which they are filled.
    slots: VecDeque<f64>,
    /// When the disk is free.
    disk: f64,
    /// When all is done, and the parts so far.
    total: Prediction,
}

impl Pipeline {
    fn new(stream: Option<StreamPlan>, rates: &Rates, ops: f64) -> Self {
        let (n_slots, chunk_bytes) = stream.map_or((0, 0), |stream| (stream.n_slots, stream.chunk_bytes));
        Self {
            rates: *rates,
            ops,
            chunk_bytes: chunk_bytes as f64,
            finds_most: false,
            slots: (0..n_slots).map(|_| 0.0).collect(),
            disk: 0.0,
            total: Prediction::default(),
        }
    }

    /// A pass on a route for `n_tokens`, of which `n_logits` give logits.
    fn pass(&mut self, matrices: &[MatrixPlan], route: Route, n_tokens: usize, n_logits: usize) {
        let mut is_routed = false;
        for matrix in matrices {
            let weights = &matrix.weights;
            let was_routed =
                std::mem::replace(&mut is_routed, matches!(weights.usage, Usage::Experts { .. }));
            if is_routed && !was_routed {
                // Which experts are wanted is known only now.
                self.disk = self.disk.max(self.total.seconds);
            }
            // What is read of the matrix, how much of it meets a token, and how many tokens it meets.
            let (part, share, n_rows) = match weights.usage {
                Usage::Whole => (1.0, 1.0, n_tokens),
                Usage::Logits if n_logits > 0 => (1.0, 1.0, n_logits),
                Usage::Experts { n_used, n_expert } => {
                    let share = n_used as f64 / n_expert as f64;
                    (part_of_experts(share, n_tokens), share, n_tokens)
                }
                Usage::Logits | Usage::Row => continue,
            };
            let (bytes, n_rows) = (part * weights.bytes as f64, share * n_rows as f64);
            let is_lent = route == Route::LongPrompt && matrix.lent_to.is_some();
            if matrix.device.is_some() || is_lent {
                self.on_device(matrix, bytes, n_rows, n_tokens > 1);
                continue;
            }
            let mut compute_s = 2.0 * n_rows * weights.n_weights as f64 / self.ops;
            if n_tokens > 1 {
                compute_s += RESULT_BYTES * n_rows * weights.n_rows as f64 / self.rates.memory_bytes;
            }
            // What is streamed is read from memory, too, once it is there.
            let memory_s = bytes / (KERNEL_SHARE * self.rates.memory_bytes);
            self.total.memory_s += memory_s;
            self.total.compute_s += compute_s;
            let seconds = memory_s.max(compute_s);
            let (kept, copied) = match matrix.cache {
                Some(cache) => self.found(cache, part),
                None => (matrix.resident_bytes() as f64 / weights.bytes as f64, 0.0),
            };
            let copy_s = COPY_BYTES * copied * weights.bytes as f64 / self.rates.memory_bytes;
            self.total.memory_s += copy_s;
            self.total.seconds += kept * seconds;
            if kept < 1.0 {
                self.swap_in((1.0 - kept) * bytes, (1.0 - kept) * seconds + copy_s);
            }
        }
    }

    /// A product on a device, which reads `bytes`. What has no room there is brought first, all of it but for experts that a
    /// device knows to be wanted, and by the queue that computes: the two don't overlap.
    fn on_device(&mut self, matrix: &MatrixPlan, bytes: f64, n_rows: f64, is_prompt: bool) {
        let rates = self.rates.device.expect(DEVICE_RATES);
        // Both were measured as whole products, so the one has what is read in it and the other what is computed.
        let seconds = if is_prompt {
            2.0 * n_rows * matrix.weights.n_weights as f64 / rates.prefill_ops
        } else {
            bytes / rates.memory_bytes
        };
        let part = if is_prompt { &mut self.total.device_compute_s } else { &mut self.total.device_memory_s };
        *part += seconds;
        let [all, host] = [matrix.weights.bytes, matrix.host_bytes()].map(|bytes| bytes as f64);
        let brought = match matrix.cache.filter(|_| matrix.device.is_some()) {
            Some(cache) => bytes * (1.0 - self.found(cache, bytes / all).0),
            None => host,
        };
        let link_s = brought / rates.link_bytes;
        self.total.link_s += link_s;
        let of_disk = matrix.streamed_bytes() as f64 / host.max(1.0);
        let streamed = brought * of_disk;
        let there = seconds * streamed / all + link_s * of_disk;
        self.total.seconds += seconds + link_s - there;
        if streamed > 0.0 {
            self.swap_in(streamed, there);
        }
    }

    /// Where a `part` of all experts is wanted, the share of it that has a place, and the part of all that is copied to
    /// the places of some that are not wanted.
    fn found(&self, ExpertPlaces { n_experts, n_places }: ExpertPlaces, part: f64) -> (f64, f64) {
        let places = n_places as f64 / n_experts as f64;
        let found = if self.finds_most { (places / part).min(1.0) } else { places };
        (found, (part * (1.0 - found)).min(places * (1.0 - part)))
    }

    /// Reads a matrix by chunks, each to the next slot once that is free, and uses each once it is there.
    fn swap_in(&mut self, bytes: f64, seconds: f64) {
        let disk_s = bytes / self.rates.disk_bytes;
        self.total.disk_s += disk_s;
        let n_chunks = (bytes / self.chunk_bytes).ceil();
        for _ in 0..n_chunks as usize {
            let free = self.slots.pop_front().unwrap_or(self.total.seconds);
            self.disk = self.disk.max(free) + disk_s / n_chunks;
            self.total.seconds = self.total.seconds.max(self.disk) + seconds / n_chunks;
            self.slots.push_back(self.total.seconds);
        }
    }
}

/// The condition of predictions.
const DEVICE_RATES: &str = "a plan with a device is predicted with rates of one";

/// The part of a layer's experts that some of the tokens are sent to, if each is sent to any `share` of them.
fn part_of_experts(share: f64, n_tokens: usize) -> f64 {
    1.0 - (1.0 - share).powf(n_tokens as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use metallic_gguf::GgmlType;

    use crate::backend::KvType;
    use crate::model::route::Routes;
    use crate::model::weights::MatrixRole;
    use crate::model::{Capacity, WeightMatrix};
    use crate::plan::{Placement, PlanRequest};

    /// Speeds that make a byte or an operation a round number of seconds.
    const RATES: Rates =
        Rates { disk_bytes: 10.0, memory_bytes: 1000.0, prefill_ops: 500.0, decode_ops: 100.0, device: None };

    /// With slots for chunks of 100 bytes.
    fn plan(matrices: &[(u64, u64, Usage, Placement)], n_slots: usize, prompt: PromptWork) -> MemoryPlan {
        let request = PlanRequest {
            capacity: Capacity { n_ctx: 100, n_sequences: 1, n_batch: 40, kv_type: KvType::F16 },
            ram_bytes: None,
            n_slots,
            chunk_bytes: None,
            in_slab: false,
        };
        let matrix = |&(bytes, n_rows, usage, placement): &_| {
            let (name, role) = (String::new(), MatrixRole::Head);
            let ggml_type = GgmlType::Q4_0;
            let weights = WeightMatrix { name, role, ggml_type, bytes, n_weights: 2 * bytes, n_rows, usage };
            MatrixPlan { weights, device: None, n_on_device: 0, lent_to: None, placement, cache: None }
        };
        let matrices = matrices.iter().map(matrix).collect();
        let stream = Some(StreamPlan { n_slots, chunk_bytes: 100, max_row_bytes: 1 });
        MemoryPlan {
            request,
            ledger: Vec::new(),
            matrices,
            stream,
            prompt,
            devices: Vec::new(),
            routes: Routes::one(Vec::new()),
        }
    }

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() <= 1e-9 * expected.abs(), "{found} is not {expected}");
    }

    use Placement::{ByRow, Resident, Streamed};

    const DENSE: [(u64, u64, Usage, Placement); 4] = [
        (5000, 7, Usage::Row, ByRow),
        (900, 3, Usage::Whole, Resident),
        (300, 5, Usage::Whole, Streamed),
        (600, 2, Usage::Logits, Resident),
    ];
    const PROMPT: PromptWork = PromptWork { n_tokens: 100, attention: 1000 };

    #[test]
    fn a_token_waits_for_what_no_slot_was_free_for() {
        // 1800 bytes at nine tenths of the rate; two weights a byte and two operations a weight. So the matrices
        // take 36, 12 and 24 seconds to compute, and the second comes in three chunks of 10 seconds.
        let decode = plan(&DENSE, 3, PROMPT).predict_decode(&RATES);
        close(decode.disk_s, 30.0);
        close(decode.memory_s, 2.0);
        close(decode.compute_s, 72.0);
        close(decode.seconds, 72.0);
        close(decode.tokens_per_s(), 1.0 / 72.0);
        assert_eq!((decode.n_tokens, decode.bound()), (1, Bound::Compute));

        // One slot: the first chunk is there in time, the others are read when the one before has been used.
        close(plan(&DENSE, 1, PROMPT).predict_decode(&RATES).seconds, 72.0 + 20.0);
        // Two: the third is begun 4 seconds after the second would be needed, and read while that is used.
        close(plan(&DENSE, 2, PROMPT).predict_decode(&RATES).seconds, 36.0 + 4.0 + 10.0 + 4.0 + 24.0);
    }

    #[test]
    fn the_bound_is_what_takes_longest() {
        let plan = plan(&DENSE, 3, PROMPT);
        let slow = |disk_bytes, memory_bytes| Rates { disk_bytes, memory_bytes, ..RATES };
        assert_eq!(plan.predict_decode(&slow(1.0, 1000.0)).bound(), Bound::Disk);
        assert_eq!(plan.predict_decode(&slow(10.0, 1.0)).bound(), Bound::Memory);
        assert_eq!(plan.predict_prefill(&slow(0.05, 1000.0)).bound(), Bound::Disk);
        // 300 bytes at one a second, and the use of the last chunk, while the slots are not enough to go on reading.
        let decode = plan.predict_decode(&slow(1.0, 1000.0));
        assert!((300.0..300.0 + 72.0).contains(&decode.seconds), "{decode:?}");
    }

    #[test]
    fn a_prompt_by_hand() {
        // Three batches of 40, 40 and 20; the head meets one token. The disk is never waited for.
        let prefill = plan(&DENSE, 3, PROMPT).predict_prefill(&RATES);
        close(prefill.disk_s, 90.0);
        close(prefill.memory_s, (3.0 * 1200.0 + 600.0) / 900.0);
        let multiply_adds = 100.0 * 2400.0 + 1200.0 + ATTENTION_COST * 1000.0;
        let results = 100.0 * 8.0 + 2.0;
        close(prefill.compute_s, multiply_adds / 250.0 + RESULT_BYTES * results / 1000.0);
        close(prefill.seconds, prefill.compute_s);
        close(prefill.tokens_per_s(), 100.0 / prefill.compute_s);
        assert_eq!((prefill.n_tokens, prefill.bound()), (100, Bound::Compute));
    }

    #[test]
    fn of_experts_those_that_tokens_are_sent_to_are_read() {
        let experts = Usage::Experts { n_used: 2, n_expert: 8 };
        let matrices = [(800, 80, experts, Streamed), (100, 1, Usage::Whole, Resident)];
        let mut plan = plan(&matrices, 2, PromptWork { n_tokens: 2, attention: 0 });
        let decode = plan.predict_decode(&RATES);
        close(decode.disk_s, 20.0);
        close(decode.memory_s, 300.0 / 900.0);
        close(decode.compute_s, 2.0 * 2.0 * 300.0 / 100.0);
        // Two tokens miss an expert with a chance of three quarters squared.
        let prefill = plan.predict_prefill(&RATES);
        close(prefill.disk_s, 800.0 * (1.0 - 9.0 / 16.0) / 10.0);
        close(prefill.compute_s, 2.0 * 2.0 * 2.0 * 300.0 / 500.0 + RESULT_BYTES * 2.0 * 21.0 / 1000.0);
        // With places for six of eight, a quarter is read.
        plan.matrices[0].cache = Some(ExpertPlaces { n_experts: 8, n_places: 6 });
        let cached = plan.predict_decode(&RATES);
        close(cached.disk_s, 5.0);
        close(cached.compute_s, decode.compute_s);
        // Half an expert is copied on average, to one of six places.
        close(cached.memory_s, decode.memory_s + 3.0 * 50.0 / 1000.0);
        // With places for one of the two that are wanted, at best.
        assert_eq!(plan.predict_best_decode(&RATES).unwrap().disk_s, 0.0);
        plan.matrices[0].cache = Some(ExpertPlaces { n_experts: 8, n_places: 1 });
        close(plan.predict_decode(&RATES).disk_s, 20.0 * 7.0 / 8.0);
        close(plan.predict_best_decode(&RATES).unwrap().disk_s, 10.0);
        // With places for all nothing is read, and all is computed.
        plan.matrices[0].cache = Some(ExpertPlaces { n_experts: 8, n_places: 8 });
        close(plan.predict_decode(&RATES).seconds, decode.compute_s);
    }

    #[test]
    fn experts_are_not_read_before_their_router() {
        let experts = Usage::Experts { n_used: 1, n_expert: 1 };
        let router = (50, 1, Usage::Whole, Resident);
        let layer = [router, (100, 1, experts, Streamed)];
        let matrices = [layer, layer].concat();
        let plan = plan(&matrices, 4, PROMPT);
        assert_eq!(plan.predict_best_decode(&RATES), None);
        // Two seconds for each router, then 10 to read the experts and 4 to compute with them.
        close(plan.predict_decode(&RATES).seconds, 2.0 * (2.0 + 10.0 + 4.0));
    }

    #[test]
    fn of_a_split_matrix_the_rest_is_read() {
        let split = Placement::Split { n_resident: 3 };
        let plan = plan(&[(500, 5, Usage::Whole, split)], 4, PROMPT);
        let decode = plan.predict_decode(&RATES);
        close(decode.disk_s, 20.0);
        close(decode.compute_s, 20.0);
        // Three fifths are computed while the chunk after the next is read.
        close(decode.seconds, 20.0);
    }

    #[test]
    fn a_device_has_its_own_rates_and_what_it_lacks_comes_by_the_link() {
        let matrices = [(900, 9, Usage::Whole, Resident), (400, 4, Usage::Whole, Streamed)];
        let mut plan = plan(&matrices, 4, PromptWork { n_tokens: 40, attention: 0 });
        let device = DeviceRates { link_bytes: 50.0, memory_bytes: 300.0, prefill_ops: 4000.0 };
        let rates = Rates { device: Some(device), ..RATES };
        // The CPU has neither, and the device has 500 bytes of the first; the others lie in main memory.
        plan.matrices.iter_mut().for_each(|matrix| matrix.device = Some(0));
        plan.matrices[0].n_on_device = 5;
        let decode = plan.predict_decode(&rates);
        close(decode.device_memory_s, 1300.0 / 300.0);
        close(decode.link_s, 800.0 / 50.0);
        close(decode.disk_s, 40.0);
        assert_eq!((decode.memory_s, decode.compute_s, decode.bound()), (0.0, 0.0, Bound::Disk));
        // The disk reads on while the first is brought and used.
        close(decode.seconds, 40.0);

        plan.matrices[1].placement = Resident;
        let decode = plan.predict_decode(&rates);
        close(decode.seconds, 1300.0 / 300.0 + 800.0 / 50.0);
        assert_eq!(decode.bound(), Bound::Link);
        // 40 tokens, two weights a byte, two operations a weight.
        let prefill = plan.predict_prefill(&rates);
        close(prefill.device_compute_s, 40.0 * 1300.0 * 4.0 / 4000.0);
        close(prefill.seconds, prefill.device_compute_s + 16.0);
        assert_eq!(prefill.bound(), Bound::DeviceCompute);
    }

    #[test]
    fn of_experts_that_a_device_caches_those_come_that_are_missing() {
        let experts = Usage::Experts { n_used: 2, n_expert: 8 };
        let mut plan = plan(&[(800, 80, experts, Resident)], 2, PromptWork { n_tokens: 2, attention: 0 });
        plan.stream = None;
        let device = DeviceRates { link_bytes: 50.0, memory_bytes: 400.0, prefill_ops: 4000.0 };
        let rates = Rates { device: Some(device), ..RATES };
        plan.matrices[0].device = Some(0);
        // Without a cache all of them come, whichever are wanted.
        close(plan.predict_decode(&rates).link_s, 800.0 / 50.0);
        plan.matrices[0].cache = Some(ExpertPlaces { n_experts: 8, n_places: 6 });
        let decode = plan.predict_decode(&rates);
        close(decode.link_s, 50.0 / 50.0);
        close(decode.seconds, 200.0 / 400.0 + 1.0);
        close(plan.predict_best_decode(&rates).unwrap().link_s, 0.0);
        // Half of it lies on the disk.
        plan.stream = Some(StreamPlan { n_slots: 2, chunk_bytes: 100, max_row_bytes: 1 });
        plan.matrices[0].placement = Placement::Split { n_resident: 40 };
        close(plan.predict_decode(&rates).disk_s, 25.0 / 10.0);
    }

    #[test]
    fn lending_pays_once_many_tokens_share_what_is_brought() {
        let matrices = [(1000, 10, Usage::Whole, Resident), (1000, 10, Usage::Whole, Resident)];
        let mut plan = plan(&matrices, 1, PromptWork { n_tokens: 100, attention: 0 });
        (plan.stream, plan.request.capacity.n_batch) = (None, 512);
        // A token takes 8 seconds of the CPU and 1 of the device, to which 1000 bytes take so many seconds.
        let rates = |seconds: f64| {
            let device = DeviceRates { link_bytes: 1000.0 / seconds, memory_bytes: 1e9, prefill_ops: 4000.0 };
            Rates { memory_bytes: 1e9, device: Some(device), ..RATES }
        };
        assert_eq!(plan.lending_pays_from(&rates(1.0)), None, "nothing is lent");
        plan.matrices[0].lent_to = Some(0);
        for (seconds, from) in [(1.0, 32), (7.0 * 32.5, 64), (7.0 * 500.0, 512), (7.0 * 513.0, 0)] {
            assert_eq!(plan.lending_pays_from(&rates(seconds)).unwrap_or(0), from, "{seconds} s");
        }
        plan.request.capacity.n_batch = 31;
        assert_eq!(plan.lending_pays_from(&rates(1.0)), None, "no batch is as long");
    }

    #[test]
    fn what_stays_in_memory_needs_no_disk() {
        let matrices = [(900, 3, Usage::Whole, Resident)];
        let plan = plan(&matrices, 1, PromptWork { n_tokens: 1, attention: 0 });
        let decode = plan.predict_decode(&Rates { disk_bytes: 0.0, ..RATES });
        close(decode.disk_s, 0.0);
        assert_eq!(decode.bound(), Bound::Compute);
    }
}
