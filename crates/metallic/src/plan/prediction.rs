//! How fast a plan will run, and what bounds it: arithmetic on the plan and on what the machine can do.
//!
//! Matrices are used one after the other, each for as long as reading it from memory or computing takes. Meanwhile the
//! disk fills slots in the same order, one chunk at a time, until none is free. Experts are not read before their router. What
//! is left out takes less than a few hundredths where a model is not tiny: attention over a long past, single rows of the
//! token embedding, the barriers between operations.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use super::{DevicePlan, ExpertPlaces, MatrixPlan, MemoryPlan};
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

/// Tokens of the answer that stands for all answers, after the prompt that predictions are for.
const ANSWER_TOKENS: f64 = 128.0;

/// What a machine can do in a second.
#[derive(Clone, Debug, PartialEq)]
pub struct Rates {
    /// Bytes that the disk brings.
    pub disk_bytes: f64,
    /// Bytes that the threads read from memory together.
    pub memory_bytes: f64,
    /// Operations, two for a multiplication and its addition, of products of many tokens.
    pub prefill_ops: f64,
    /// Operations of a token's products with weights that are in the cache.
    pub decode_ops: f64,
    /// The same of the products of a token of each sequence that the plan has room for, together.
    pub together_ops: f64,
    /// What each device does, by its number; those that compute nothing may be left out.
    pub devices: Vec<DeviceRates>,
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
    /// If [`Rates::devices`] lacks a device that computes; so do the others.
    pub fn predict_prefill(&self, rates: &Rates) -> Prediction {
        let PromptWork { n_tokens, attention } = self.prompt;
        let n_batch = self.request.capacity.n_batch;
        let attention_s = |ops: f64, share: f64| 2.0 * ATTENTION_COST * share * attention as f64 / ops;
        // Of the layers, which share has its attention on a device.
        let shares =
            self.devices.iter().map(|device| (device, device.n_mixers as f64 / device.n_layers as f64));
        let of_device = |(device, share): (&DevicePlan, f64)| {
            if share > 0.0 { attention_s(rates.of_device(device.number).prefill_ops, share) } else { 0.0 }
        };
        let there: f64 = shares.clone().map(of_device).sum();
        let here = attention_s(rates.prefill_ops, 1.0 - shares.map(|(_, share)| share).sum::<f64>());
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
        self.passes(1, Pipeline::new(self.stream, rates, rates.decode_ops))
    }

    /// The same if all experts are found that there is room for: what a cache can do at best. `None` if none are cached.
    ///
    /// # Panics
    /// As [`predict_prefill`](Self::predict_prefill).
    pub fn predict_best_decode(&self, rates: &Rates) -> Option<Prediction> {
        let pipeline = Pipeline { finds_most: true, ..Pipeline::new(self.stream, rates, rates.decode_ops) };
        self.matrices.iter().any(|matrix| matrix.cache.is_some()).then(|| self.passes(1, pipeline))
    }

    /// How fast all sequences that there is room for are gone on with together, a token of each at a time.
    ///
    /// # Panics
    /// As [`predict_prefill`](Self::predict_prefill).
    pub fn predict_together(&self, rates: &Rates) -> Prediction {
        match self.request.capacity.n_sequences {
            0 | 1 => self.predict_decode(rates),
            n_sequences => self.passes(n_sequences, Pipeline::new(self.stream, rates, rates.together_ops)),
        }
    }

    /// Seconds that a prompt and an answer take.
    ///
    /// # Panics
    /// As [`predict_prefill`](Self::predict_prefill).
    pub fn predict_seconds(&self, rates: &Rates) -> f64 {
        self.predict_prefill(rates).seconds + ANSWER_TOKENS * self.predict_decode(rates).seconds
    }

    /// A pass for so many tokens of answers.
    fn passes(&self, n_tokens: usize, mut pipeline: Pipeline<'_>) -> Prediction {
        // The first leaves the slots as every later one finds them.
        pipeline.pass(&self.matrices, Route::Usual, n_tokens, n_tokens);
        let first = pipeline.total;
        pipeline.pass(&self.matrices, Route::Usual, n_tokens, n_tokens);
        Prediction { n_tokens, seconds: pipeline.total.seconds - first.seconds, ..first }
    }
}

impl Rates {
    fn of_device(&self, number: usize) -> &DeviceRates {
        self.devices.get(number).expect("a device that computes is predicted with its rates")
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
struct Pipeline<'a> {
    rates: &'a Rates,
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

impl<'a> Pipeline<'a> {
    fn new(stream: Option<StreamPlan>, rates: &'a Rates, ops: f64) -> Self {
        let (n_slots, chunk_bytes) = stream.map_or((0, 0), |stream| (stream.n_slots, stream.chunk_bytes));
        Self {
            rates,
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
            let lent_to = matrix.lent_to.filter(|_| route == Route::LongPrompt);
            if let Some(device) = matrix.device.or(lent_to) {
                self.on_device(device, matrix, bytes, n_rows, n_tokens > 1);
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
    fn on_device(&mut self, device: usize, matrix: &MatrixPlan, bytes: f64, n_rows: f64, is_prompt: bool) {
        let rates = self.rates.of_device(device);
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

/// The part of a layer's experts that some of the tokens are sent to, if each is sent to any `share` of them.
fn part_of_experts(share: f64, n_tokens: usize) -> f64 {
    1.0 - (1.0 - share).powf(n_tokens as f64)
}
