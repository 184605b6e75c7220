//! A place to compute: the coarse operations that a forward pass is made of.
//!
//! Operations run in the order of the calls. Activations are row-major: one row a token, `width` values a
//! row. A backend knows formats only through [`Backend::Matrix`] and nothing of scheduling; the model calls
//! it and knows nothing of devices.

pub mod conformance;
mod cpu;
mod numbers;
pub(crate) mod routing;

use std::time::Duration;

pub use cpu::{Cpu, Floats};
use metallic_gguf::GgmlType;
pub use metallic_kernels::attention::{KvLayout, KvType};
pub use metallic_kernels::matmul::Tokens;
pub use numbers::{
    Activation, AttentionShape, DeltaNetShape, ExpertGroups, KeyHeads, Mamba2Shape, NormKind, RopeConfig,
    RopePairs, RoutingShape, Scoring, Temperature, Yarn,
};

use crate::error::Result;
use crate::memory::{ExpertStats, MatrixBytes, MatrixData, Places, StreamStats, Tier, WeightStream};

/// Consecutive positions of one sequence in a batch, and where its keys and values are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span<'a> {
    /// First row of the batch that belongs to it.
    pub first_row: usize,
    /// Rows of the batch.
    pub n_rows: usize,
    /// Position of the first row in the sequence.
    pub start: usize,
    /// The pages of the sequence, in order of position.
    pub pages: &'a [u32],
    /// Number of the sequence: where its states are.
    pub slot: usize,
    /// Whether its rows are a prompt's that are multiplied in tiles, as [`Tokens::gemm`]: whoever attends in another way to many
    /// rows asks this, and not how many there are.
    pub in_tiles: bool,
}

/// The input of products, which a backend may make on the way into them.
pub enum Input<'a, B: Backend + ?Sized> {
    /// Rows as they are.
    Rows(&'a B::Buffer),
    /// The norm of each row.
    Norm {
        /// The rows.
        x: &'a B::Buffer,
        /// Their norm.
        norm: Norm<'a, B>,
    },
    /// `activation(gate) · up`.
    Gated {
        /// The non-linear function.
        activation: Activation,
        /// What it is applied to.
        gate: &'a B::Buffer,
        /// The factors.
        up: &'a B::Buffer,
    },
}

/// A norm of rows, each as long as its weights.
pub struct Norm<'a, B: Backend + ?Sized> {
    /// What comes before the weights.
    pub kind: NormKind,
    /// A factor for each value.
    pub weight: &'a B::Buffer,
    /// A summand for each value.
    pub bias: Option<&'a B::Buffer>,
    /// Added to the mean square or variance.
    pub eps: f32,
}

impl<B: Backend + ?Sized> Clone for Norm<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B: Backend + ?Sized> Copy for Norm<'_, B> {}

/// Some columns of rows: where they begin in the first row, and from a row to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Columns {
    /// Values before them.
    pub first: usize,
    /// Values of a row.
    pub stride: usize,
}

impl Columns {
    /// All columns of rows of `len` values.
    pub fn all(len: usize) -> Self {
        Self { first: 0, stride: len }
    }
}

/// A layer's attention.
pub struct AttentionParams<'a, B: Backend + ?Sized> {
    /// Its numbers.
    pub shape: AttentionShape,
    /// A score for each head that belongs to no position.
    pub sinks: Option<&'a B::Buffer>,
}

/// A convolution over time of each channel by itself; see [`CausalConv`](metallic_kernels::recurrent::CausalConv).
pub struct CausalConv<'a, B: Backend + ?Sized> {
    /// `n_channels` times the weights of the last inputs, the oldest first.
    pub kernel: &'a B::Buffer,
    /// A summand for each channel.
    pub bias: Option<&'a B::Buffer>,
    /// What the sums go through.
    pub activation: Activation,
    /// Channels in a row.
    pub n_channels: usize,
}

/// A state space; see [`Mamba2`](metallic_kernels::recurrent::Mamba2).
pub struct Mamba2<'a, B: Backend + ?Sized> {
    /// Its numbers.
    pub shape: Mamba2Shape,
    /// A rate of decay for each head.
    pub a: &'a B::Buffer,
    /// What passes by the state, for each head.
    pub d: &'a B::Buffer,
    /// For each head.
    pub dt_bias: &'a B::Buffer,
}

/// A gated delta net; see [`DeltaNet`](metallic_kernels::recurrent::DeltaNet).
pub struct DeltaNet<'a, B: Backend + ?Sized> {
    /// Its numbers.
    pub shape: DeltaNetShape,
    /// A rate of decay for each value head.
    pub a: &'a B::Buffer,
    /// For each value head.
    pub dt_bias: &'a B::Buffer,
    /// Added to the square of a query's or key's length.
    pub eps: f32,
}

/// A mixture of experts: networks of which each row is sent to a few.
pub struct Experts<'a, B: Backend + ?Sized> {
    /// How they are chosen.
    pub routing: RoutingShape,
    /// Added to the scores of experts when they are chosen.
    pub choice_bias: Option<&'a B::Buffer>,
    /// The non-linear function of each network.
    pub activation: Activation,
    /// What it is applied to, of each expert.
    pub gate: ExpertMatrix<'a, B>,
    /// The factors, of each.
    pub up: ExpertMatrix<'a, B>,
    /// From the inner layer back, of each.
    pub down: ExpertMatrix<'a, B>,
}

/// One matrix of every expert: rows of a matrix of all.
pub struct ExpertMatrix<'a, B: Backend + ?Sized> {
    /// The matrix of all.
    pub all: &'a B::Matrix,
    /// First row of the first expert.
    pub first: usize,
    /// From one expert's rows to the next one's.
    pub stride: usize,
    /// Rows of one expert.
    pub n_rows: usize,
    /// `n_rows` values for each expert, added to its product.
    pub bias: Option<&'a B::Buffer>,
}

impl<B: Backend + ?Sized> ExpertMatrix<'_, B> {
    /// The rows of one expert.
    pub fn rows(&self, expert: usize) -> std::ops::Range<usize> {
        let first = self.first + expert * self.stride;
        first..first + self.n_rows
    }
}

/// One product of a group that shares an input.
pub struct MatmulJob<'a, B: Backend + ?Sized> {
    /// The weights.
    pub matrix: &'a B::Matrix,
    /// Added to every row of the product; as long as the matrix has rows.
    pub bias: Option<&'a B::Buffer>,
    /// Whether the product is added to what `out` holds or replaces it.
    pub accumulate: bool,
    /// `n_rows(input) × n_rows(matrix)` values.
    pub out: &'a mut B::Buffer,
}

impl<'a, B: Backend + ?Sized> MatmulJob<'a, B> {
    /// A product without a bias that replaces what `out` holds.
    pub fn new(matrix: &'a B::Matrix, out: &'a mut B::Buffer) -> Self {
        Self { matrix, bias: None, accumulate: false, out }
    }
}

/// Takes bytes, each time those that follow.
pub type ByteSink<'a> = &'a mut dyn FnMut(&[u8]) -> Result<()>;

/// Fills room with bytes, each time with those that follow.
pub type ByteSource<'a> = &'a mut dyn FnMut(&mut [u8]) -> Result<()>;

/// What a model asks of a backend beside weights, caches and the buffers of a forward pass.
#[derive(Clone, Copy, Debug)]
pub struct Needs<'a> {
    /// Rows of a batch.
    pub n_rows: usize,
    /// Values of the widest row that a product reads.
    pub row_len: usize,
    /// Of each layer with attention, its query heads and how its keys and values lie.
    pub attention: &'a [(usize, KvLayout)],
    /// Positions of a sequence.
    pub n_positions: usize,
    /// Pages of keys and values in each such layer.
    pub n_pages: usize,
    /// The rotations.
    pub ropes: &'a [&'a RopeConfig],
    /// The experts, if there are any.
    pub experts: Option<ExpertNeeds>,
    /// The matrices, as far as slots for weights that are swapped in depend on them.
    pub swapped: SwapNeeds,
}

/// What weights that are swapped in ask of a backend's slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SwapNeeds {
    /// Bytes of the longest row: a slot holds whole rows.
    pub row_bytes: usize,
    /// Bytes of the largest matrix: of no use is a slot that is larger.
    pub matrix_bytes: usize,
}

/// What experts ask of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpertNeeds {
    /// Experts of a layer.
    pub n_expert: usize,
    /// Those that a row is sent to.
    pub n_used: usize,
    /// Values of a row.
    pub n_embd: usize,
    /// Values of an expert's inner layer.
    pub n_ff: usize,
}

/// Bytes that a backend takes for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendBytes {
    /// For the inputs of products.
    pub inputs: u64,
    /// For attention.
    pub attention: u64,
    /// For experts.
    pub experts: u64,
    /// For the positions' rotations.
    pub rotations: u64,
    /// For the stacks of its threads.
    pub stacks: u64,
    /// What the system keeps for its threads.
    pub kernel: u64,
    /// For copies between main memory and memory of its own.
    pub copies: u64,
    /// For slots in memory of its own, where weights are swapped into it.
    pub slots: u64,
}

/// How often a device was given work, and waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceStats {
    /// Kernels that were started.
    pub n_dispatches: u64,
    /// Submissions of them.
    pub n_submissions: u64,
    /// Times that the host waited for the device.
    pub n_waits: u64,
    /// Bytes of weights that were swapped into its memory.
    pub swapped_bytes: u64,
    /// What its cache of experts was asked for.
    pub experts: ExpertStats,
    /// Kernels that were compiled, or taken from those that an earlier run has compiled.
    pub n_compiled: u64,
    /// How long that took.
    pub compile_time: Duration,
}

impl DeviceStats {
    /// What was added since `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            n_dispatches: self.n_dispatches - before.n_dispatches,
            n_submissions: self.n_submissions - before.n_submissions,
            n_waits: self.n_waits - before.n_waits,
            swapped_bytes: self.swapped_bytes - before.swapped_bytes,
            experts: self.experts.since(before.experts),
            n_compiled: self.n_compiled - before.n_compiled,
            compile_time: self.compile_time - before.compile_time,
        }
    }

    /// With another device's.
    #[must_use]
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            n_dispatches: self.n_dispatches + other.n_dispatches,
            n_submissions: self.n_submissions + other.n_submissions,
            n_waits: self.n_waits + other.n_waits,
            swapped_bytes: self.swapped_bytes + other.swapped_bytes,
            experts: self.experts.and(other.experts),
            n_compiled: self.n_compiled + other.n_compiled,
            compile_time: self.compile_time + other.compile_time,
        }
    }
}

/// A place to compute.
///
/// Sizes are checked when a model is loaded; an operation whose buffers are too short panics. One over no rows, values or
/// tokens does nothing. [`conformance`] checks all of it.
pub trait Backend: Send {
    /// Activations or a vector of weights: `f32` values.
    type Buffer: Send;
    /// A matrix of weights in its own type. Cloning shares the weights.
    type Matrix: Clone + Send;
    /// Keys and values of one layer.
    type KvLayer: Send;
    /// The rotations of one [`RopeConfig`].
    type Rope: Send;

    /// One line for logs: what computes, with what.
    fn description(&self) -> String;
    /// A name for the way in which results are rounded: backends that give the same bits have the same.
    fn arithmetic(&self) -> String;
    /// Bytes that it takes beside weights, caches and buffers.
    fn bytes(&self, needs: &Needs<'_>) -> BackendBytes;
    /// Whether it can do what is needed, with weights of these types.
    ///
    /// # Errors
    /// What it can't.
    fn check(&self, _needs: &Needs<'_>, _types: &[GgmlType]) -> Result<()> {
        Ok(())
    }
    /// The account of its own memory, where it has any: weights, caches and buffers lie there.
    fn memory(&self) -> Option<&Tier>;
    /// Whether that is main memory all the same, of which a process holds its bytes.
    fn shares_main_memory(&self) -> bool {
        false
    }
    /// Makes sure that its own memory has room now for what a plan has there: others may have taken of it since.
    ///
    /// # Errors
    /// How much room there is.
    fn check_room(&self, _planned_bytes: u64) -> Result<()> {
        Ok(())
    }
    /// Charges what it allocates in main memory from now on to `ram`.
    fn charge_to(&mut self, ram: &Tier);

    /// Makes room for what products need beside their buffers, for inputs of up to `n_rows` rows of `row_len`.
    fn reserve_inputs(&mut self, n_rows: usize, row_len: usize) -> Result<()>;
    /// Makes room for what attention needs beside its buffers, in layers of so many query heads with keys and
    /// values of this layout, at positions below `n_positions`.
    fn reserve_attention(&mut self, layers: &[(usize, KvLayout)], n_positions: usize) -> Result<()>;
    /// Makes room for what experts need beside their buffers, for inputs of up to `n_rows` rows.
    fn reserve_experts(&mut self, n_rows: usize, needs: &ExpertNeeds) -> Result<()>;
    /// Makes slots in memory of its own, to which such weights are swapped in. Those that main memory has no room for come
    /// from `files`.
    fn reserve_slots(&mut self, _needs: &SwapNeeds, _files: Option<WeightStream>) -> Result<()> {
        Ok(())
    }
    /// A buffer of `len` zeros; `what` names it in errors.
    fn buffer(&self, what: &'static str, len: usize) -> Result<Self::Buffer>;
    /// Makes a matrix ready to multiply with.
    fn matrix(&self, data: MatrixData) -> Result<Self::Matrix>;
    /// The same where a backend has room in memory of its own for the rows of `data` alone, which may be none: the `n_more`
    /// after them, which lie in `more`, are brought there through slots as they are used.
    ///
    /// # Panics
    /// Where the backend has no memory of its own.
    fn matrix_swapped(&self, _data: MatrixData, _n_more: usize, _more: MatrixBytes) -> Result<Self::Matrix> {
        unreachable!("main memory is not swapped to")
    }
    /// The same for a matrix of experts, of which there is room for as many as there are places: what a batch is sent to is
    /// brought there, or to a slot, once it is chosen.
    ///
    /// # Panics
    /// As [`matrix_swapped`](Self::matrix_swapped).
    fn matrix_of_experts(&self, _data: MatrixData, _places: Places) -> Result<Self::Matrix> {
        unreachable!("main memory is not swapped to")
    }
    /// Consecutive rows of a matrix, as a matrix; shares the weights.
    fn matrix_rows(&self, matrix: &Self::Matrix, rows: std::ops::Range<usize>) -> Self::Matrix;
    /// Room for `n_pages` pages of keys and values.
    fn kv_layer(&self, layout: &KvLayout, n_pages: usize) -> Result<Self::KvLayer>;
    /// The rotations of `config`, with one factor for each pair of values where the model has them.
    fn rope(&self, config: &RopeConfig, factors: Option<&[f32]>, max_rows: usize) -> Result<Self::Rope>;

    /// Copies `values` to the start of `buffer`.
    fn write(&mut self, values: &[f32], buffer: &mut Self::Buffer) -> Result<()>;
    /// Copies from `buffer`, beginning with its value number `first`. Where operations before this have failed, this
    /// returns their error.
    fn read(&mut self, buffer: &Self::Buffer, first: usize, values: &mut [f32]) -> Result<()>;

    /// The same where only the `n_best` largest values are wanted, and of equals those before: the others may be negative
    /// infinity. If one is infinite or no number, all are as they are.
    fn read_best(
        &mut self,
        buffer: &Self::Buffer,
        first: usize,
        _n_best: usize,
        values: &mut [f32],
    ) -> Result<()> {
        self.read(buffer, first, values)
    }

    /// Says that a matrix will be multiplied with once, after those that this was said of before: one that is
    /// streamed is then read ahead.
    fn will_use(&mut self, matrix: &Self::Matrix);
    /// Takes back what was said of matrices that were not used yet.
    fn forget_uses(&mut self);
    /// What streaming has cost so far; `None` where all weights are in memory.
    fn stream_stats(&self) -> Option<StreamStats>;

    /// How often it was given work so far, where it is a device that has to be.
    fn device_stats(&self) -> Option<DeviceStats> {
        None
    }

    /// `out[i] = scale · table[ids[i]]`. Fails where rows of the table can't be read.
    fn embed(&mut self, table: &Self::Matrix, ids: &[u32], scale: f32, out: &mut Self::Buffer) -> Result<()>;
    /// `out[t] = matrix · input[t] + bias` for each job and each row of the input, each the way that `tokens` says. Fails
    /// where a streamed matrix can't be read.
    fn matmul(
        &mut self,
        input: &Input<'_, Self>,
        tokens: Tokens,
        jobs: &mut [MatmulJob<'_, Self>],
    ) -> Result<()>;
    /// `out[t] += Σ share · down(activation(gate(x[t])) · up(x[t]))` over the experts that row `t` is sent to by the scores
    /// of its router, in the order of their numbers; products the way that `tokens` says. `scores` are used up. Fails where
    /// a streamed matrix can't be read.
    fn experts(
        &mut self,
        experts: &Experts<'_, Self>,
        scores: &mut Self::Buffer,
        x: &Self::Buffer,
        tokens: Tokens,
        out: &mut Self::Buffer,
    ) -> Result<()>;
    /// The norm of each row of `x`.
    fn norm(&mut self, norm: &Norm<'_, Self>, x: &Self::Buffer, n_rows: usize, out: &mut Self::Buffer);
    /// The same in place, of each of `n_parts` equal parts of a row by itself.
    fn norm_in_place(&mut self, norm: &Norm<'_, Self>, x: &mut Self::Buffer, n_rows: usize, n_parts: usize);
    /// `acc[t] += scale · norm(x[t])`.
    fn add_norm(
        &mut self,
        norm: &Norm<'_, Self>,
        x: &Self::Buffer,
        n_rows: usize,
        scale: f32,
        acc: &mut Self::Buffer,
    );
    /// Prepares the rotations for a batch: one position a row.
    fn rope_positions(&mut self, rope: &mut Self::Rope, positions: &[u32]);
    /// Rotates every head of every row.
    fn rotate(
        &mut self,
        rope: &Self::Rope,
        x: &mut Self::Buffer,
        n_rows: usize,
        n_heads: usize,
        head_len: usize,
    );
    /// Writes the keys and values of a span's rows to its pages.
    fn store_kv(
        &mut self,
        kv: &mut Self::KvLayer,
        span: &Span<'_>,
        keys: &Self::Buffer,
        values: &Self::Buffer,
    );
    /// Copies one page to another.
    fn copy_page(&mut self, kv: &mut Self::KvLayer, from: u32, to: u32);
    /// Hands over a page, in pieces: together as many bytes as [`KvLayout::page_bytes`] says, which only
    /// [`load_page`](Self::load_page) need understand.
    fn save_page(&mut self, kv: &Self::KvLayer, page: u32, sink: ByteSink<'_>) -> Result<()>;
    /// Fills a page with what was handed over of one with the same layout.
    fn load_page(&mut self, kv: &mut Self::KvLayer, page: u32, source: ByteSource<'_>) -> Result<()>;
    /// Causal attention of a span's rows over all positions of its sequence up to each row's own.
    fn attention(
        &mut self,
        params: &AttentionParams<'_, Self>,
        kv: &Self::KvLayer,
        span: &Span<'_>,
        queries: &Self::Buffer,
        out: &mut Self::Buffer,
    );
    /// `x = activation(x)`, over the first `len` values.
    fn activate(&mut self, activation: Activation, x: &mut Self::Buffer, len: usize);
    /// `x = 0`, over the first `len` values.
    fn clear(&mut self, x: &mut Self::Buffer, len: usize);
    /// `acc += scale · x`, over the first `len` values.
    fn add(&mut self, acc: &mut Self::Buffer, x: &Self::Buffer, scale: f32, len: usize);
    /// `x = activation(gate) · x`, over the first `len` values.
    fn gate(&mut self, activation: Activation, gate: &Self::Buffer, x: &mut Self::Buffer, len: usize);
    /// Keeps the first `len` values within ± `limit`.
    fn clamp(&mut self, x: &mut Self::Buffer, limit: f32, len: usize);
    /// `x *= factor`, over the first `len` values.
    fn scale(&mut self, x: &mut Self::Buffer, factor: f32, len: usize);
    /// `x[t] *= sigmoid(scores[t])`, rows of `width` values.
    fn gate_rows(&mut self, scores: &Self::Buffer, x: &mut Self::Buffer, n_rows: usize, width: usize);
    /// Multiplies each row with what its position asks for, rows of `width` values.
    fn warm(&mut self, temperature: Temperature, positions: &[u32], x: &mut Self::Buffer, width: usize);
    /// `x[t] /= divisors`, value by value.
    fn divide_rows(&mut self, x: &mut Self::Buffer, n_rows: usize, divisors: &Self::Buffer);
    /// `x = cap · tanh(x / cap)`, over the first `len` values.
    fn softcap(&mut self, x: &mut Self::Buffer, cap: f32, len: usize);
    /// Copies `len` columns of each of `n_rows` rows.
    fn copy_columns(
        &mut self,
        from: &Self::Buffer,
        from_columns: Columns,
        to: &mut Self::Buffer,
        to_columns: Columns,
        len: usize,
        n_rows: usize,
    );
    /// `out[i] = x[rows[i]]`, rows of `width` values.
    fn gather_rows(&mut self, x: &Self::Buffer, rows: &[u32], width: usize, out: &mut Self::Buffer);
    /// Convolves a span's rows, after those that `history` has of its sequence, and keeps the last of them there. At
    /// position 0 there are none.
    fn causal_conv(
        &mut self,
        conv: &CausalConv<'_, Self>,
        history: &mut Self::Buffer,
        span: &Span<'_>,
        x: &Self::Buffer,
        out: &mut Self::Buffer,
    );
    /// Runs a span's rows of inputs and of time steps through the state of its sequence. `by_head` is room for as many
    /// values as `out` gets.
    #[expect(clippy::too_many_arguments, reason = "an operation and its operands")]
    fn mamba2(
        &mut self,
        mixer: &Mamba2<'_, Self>,
        state: &mut Self::Buffer,
        span: &Span<'_>,
        x_b_c: &Self::Buffer,
        dt: &Self::Buffer,
        by_head: &mut Self::Buffer,
        out: &mut Self::Buffer,
    );
    /// Runs a span's rows of queries, keys and values, and of betas and alphas, through the state of its sequence.
    #[expect(clippy::too_many_arguments, reason = "an operation and its operands")]
    fn delta_net(
        &mut self,
        net: &DeltaNet<'_, Self>,
        state: &mut Self::Buffer,
        span: &Span<'_>,
        q_k_v: &mut Self::Buffer,
        rates: [&Self::Buffer; 2],
        by_head: &mut Self::Buffer,
        out: &mut Self::Buffer,
    );
}
