//! The CPU: `metallic-kernels` on a pool of threads.

mod experts;
mod mixers;
mod products;
mod rows;

use std::ops::Range;

use memmap2::MmapMut;
use metallic_kernels::activation;
use metallic_kernels::attention::{self, AttentionBuf, KvLayout, KvPages, KvView};
use metallic_kernels::matmul::{self, ActivationBuf};
use metallic_kernels::pool::ThreadPool;
use metallic_kernels::rope::{self, RopeParams};
use metallic_kernels::{Isa, norm};
use smallvec::SmallVec;

use self::experts::ExpertWork;
use self::products::{CpuMatrix, Job, Stream};
use self::rows::{rows_of_span, split, split_rows};
use super::routing::sigmoid;
use super::{
    Activation, AttentionParams, AttentionShape, Backend, BackendBytes, ByteSink, ByteSource, CausalConv,
    Columns, DeltaNet, ExpertNeeds, Experts, Input, Mamba2, MatmulJob, Needs, Norm, RopeConfig, Span,
    Temperature, Tokens,
};
use crate::error::{Error, Result};
use crate::memory::{ExpertCache, Lease, Leased, MatrixData, StreamStats, Tier, WeightStream, slab};

/// Computes with the weights where they lie in memory, and with chunks of those that don't as they arrive.
pub struct Cpu {
    pool: ThreadPool,
    isa: Isa,
    activations: ActivationBuf,
    attention: AttentionBuf,
    stream: Option<Stream>,
    experts: Option<ExpertWork>,
    ram: Tier,
    /// Of `activations` and `attention`.
    leases: [Option<Lease>; 2],
}

/// Activations or a vector of weights.
pub type Floats = Leased<Vec<f32>>;

/// Keys and values of one layer, in pages.
pub struct CpuKvLayer {
    layout: KvLayout,
    keys: Leased<MmapMut>,
    values: Leased<MmapMut>,
}

/// The rotations of one batch: cosines and sines of every row's position.
pub struct CpuRope {
    rope: rope::Rope,
    angles: Floats,
}

impl Cpu {
    /// Starts `n_threads` threads that use the kernels of `isa`, with no limit on memory.
    ///
    /// # Errors
    /// [`Error::Threads`] if the system refuses.
    pub fn new(n_threads: usize, isa: Isa) -> Result<Self> {
        let pool = ThreadPool::new(n_threads).map_err(|source| Error::Threads { n_threads, source })?;
        let (activations, attention) = (ActivationBuf::new(isa), AttentionBuf::default());
        let (ram, leases) = (Tier::ram(None), [None, None]);
        Ok(Self { pool, isa, activations, attention, stream: None, experts: None, ram, leases })
    }

    /// The same with something that brings in weights, and places for experts to stay in.
    #[must_use]
    pub(crate) fn with_stream(self, weights: WeightStream, experts: ExpertCache) -> Self {
        Self { stream: Some(Stream { weights, experts }), ..self }
    }

    /// Bytes that one of `n_threads` threads with the kernels of `isa` takes beside weights, caches and buffers.
    pub fn bytes_with(n_threads: usize, isa: Isa, needs: &Needs<'_>) -> BackendBytes {
        let Needs { n_rows, row_len, attention, n_positions, ropes, experts, .. } = *needs;
        let rotations = ropes.iter().map(|rope| rope_bytes(rope, n_rows));
        BackendBytes {
            inputs: ActivationBuf::reserved_bytes(isa, n_threads, n_rows, row_len),
            attention: AttentionBuf::reserved_bytes(isa, n_threads, attention.iter().copied(), n_positions),
            experts: experts.map_or(0, |needs| ExpertWork::bytes(n_rows, &needs)),
            rotations: rotations.fold(0, u64::saturating_add),
            stacks: ThreadPool::stack_bytes(n_threads),
            kernel: ThreadPool::kernel_bytes(n_threads),
            copies: 0,
            slots: 0,
        }
    }
}

/// Bytes that [`Backend::rope`] allocates.
fn rope_bytes(config: &RopeConfig, max_rows: usize) -> u64 {
    (config.n_rot as u64).saturating_mul(max_rows as u64).saturating_mul(size_of::<f32>() as u64)
}

impl Backend for Cpu {
    type Buffer = Floats;
    type Matrix = CpuMatrix;
    type KvLayer = CpuKvLayer;
    type Rope = CpuRope;

    fn description(&self) -> String {
        format!("CPU, {}, {} threads", self.isa, self.pool.n_threads())
    }

    fn arithmetic(&self) -> String {
        self.isa.name().to_owned()
    }

    fn bytes(&self, needs: &Needs<'_>) -> BackendBytes {
        Self::bytes_with(self.pool.n_threads(), self.isa, needs)
    }

    fn memory(&self) -> Option<&Tier> {
        None
    }

    fn charge_to(&mut self, ram: &Tier) {
        self.ram = ram.clone();
    }

    fn reserve_inputs(&mut self, n_rows: usize, row_len: usize) -> Result<()> {
        let n_threads = self.pool.n_threads();
        let bytes = ActivationBuf::reserved_bytes(self.isa, n_threads, n_rows, row_len);
        self.leases[0] = Some(self.ram.lease("inputs of products", bytes)?);
        self.activations.reserve(n_threads, n_rows, row_len);
        Ok(())
    }

    fn reserve_attention(&mut self, layers: &[(usize, KvLayout)], n_positions: usize) -> Result<()> {
        let n_threads = self.pool.n_threads();
        let bytes = AttentionBuf::reserved_bytes(self.isa, n_threads, layers.iter().copied(), n_positions);
        self.leases[1] = Some(self.ram.lease("attention", bytes)?);
        for (n_head, layout) in layers {
            self.attention.reserve(self.isa, n_threads, *n_head, layout, n_positions);
        }
        Ok(())
    }

    fn reserve_experts(&mut self, n_rows: usize, needs: &ExpertNeeds) -> Result<()> {
        self.experts = Some(ExpertWork::new(&self.ram, n_rows, needs)?);
        Ok(())
    }

    fn buffer(&self, what: &'static str, len: usize) -> Result<Floats> {
        self.ram.zeros(what, len)
    }

    fn matrix(&self, data: MatrixData) -> Result<CpuMatrix> {
        let chunk_bytes = self.stream.as_ref().map_or(0, |stream| stream.weights.chunk_bytes());
        Ok(CpuMatrix::new(data, self.isa, chunk_bytes))
    }

    fn matrix_rows(&self, matrix: &CpuMatrix, rows: Range<usize>) -> CpuMatrix {
        matrix.rows(rows)
    }

    fn kv_layer(&self, layout: &KvLayout, n_pages: usize) -> Result<CpuKvLayer> {
        let slab = |page_bytes: usize| {
            let bytes = page_bytes.checked_mul(n_pages);
            slab::zeros(&self.ram, "the KV cache", bytes.ok_or(Error::TooLarge { what: "the KV cache" })?)
        };
        let [keys, values] = layout.page_bytes();
        Ok(CpuKvLayer { layout: *layout, keys: slab(keys)?, values: slab(values)? })
    }

    fn rope(&self, config: &RopeConfig, factors: Option<&[f32]>, max_rows: usize) -> Result<CpuRope> {
        let params = RopeParams {
            pairs: config.pairs,
            n_rot: config.n_rot,
            base: config.freq_base,
            scale: config.freq_scale,
            factors,
            attn_factor: config.attn_factor,
            yarn: config.yarn,
        };
        let angles = self.ram.zeros("rotations", config.n_rot * max_rows)?;
        Ok(CpuRope { rope: rope::Rope::new(&params), angles })
    }

    fn write(&mut self, values: &[f32], buffer: &mut Floats) -> Result<()> {
        buffer[..values.len()].copy_from_slice(values);
        Ok(())
    }

    fn read(&mut self, buffer: &Floats, first: usize, values: &mut [f32]) -> Result<()> {
        values.copy_from_slice(&buffer[first..][..values.len()]);
        Ok(())
    }

    fn will_use(&mut self, matrix: &CpuMatrix) {
        if let (Some(rows), Some(stream)) = (&matrix.streamed, &mut self.stream)
            && stream.experts.get(rows.range).is_none()
        {
            stream.weights.announce(rows);
        }
    }

    fn forget_uses(&mut self) {
        if let Some(stream) = &mut self.stream {
            stream.weights.forget();
            stream.experts.forget();
        }
    }

    fn stream_stats(&self) -> Option<StreamStats> {
        let stats =
            |stream: &Stream| StreamStats { experts: stream.experts.stats(), ..stream.weights.stats() };
        self.stream.as_ref().map(stats)
    }

    fn embed(&mut self, table: &CpuMatrix, ids: &[u32], scale: f32, out: &mut Floats) -> Result<()> {
        for (&id, out) in ids.iter().zip(out.chunks_exact_mut(table.row_len)) {
            self.decode_row(table, id as usize, out)?;
            if scale != 1.0 {
                activation::scale(out, scale);
            }
        }
        Ok(())
    }

    fn matmul(
        &mut self,
        input: &Input<'_, Self>,
        tokens: Tokens,
        jobs: &mut [MatmulJob<'_, Self>],
    ) -> Result<()> {
        let Some(row_len) = jobs.first().map(|job| job.matrix.row_len).filter(|_| tokens.count() > 0) else {
            return Ok(());
        };
        let mut jobs: SmallVec<[Job<'_>; 4]> = jobs.iter_mut().map(Job::of).collect();
        self.multiply(&rows_of(input, tokens.count() * row_len), tokens, &mut jobs)
    }

    fn experts(
        &mut self,
        experts: &Experts<'_, Self>,
        scores: &mut Floats,
        x: &Floats,
        tokens: Tokens,
        out: &mut Floats,
    ) -> Result<()> {
        self.mix_experts(experts, scores, x, tokens, out)
    }

    fn norm(&mut self, norm: &Norm<'_, Self>, x: &Floats, n_rows: usize, out: &mut Floats) {
        let len = n_rows * norm.weight.len();
        kernel_norm(norm).write_rows(&self.pool, self.isa, &x[..len], &mut out[..len]);
    }

    fn norm_in_place(&mut self, norm: &Norm<'_, Self>, x: &mut Floats, n_rows: usize, n_parts: usize) {
        let (isa, width) = (self.isa, norm.weight.len());
        let (norm, part_len) = (kernel_norm(norm), width / n_parts);
        split_rows(&self.pool, &mut x[..n_rows * width], width, &|_, row| {
            for (i, part) in row.chunks_exact_mut(part_len).enumerate() {
                let of_part = i * part_len..(i + 1) * part_len;
                let bias = norm.bias.map(|bias| &bias[of_part.clone()]);
                norm::Norm { weight: &norm.weight[of_part], bias, ..norm }.write_over(isa, part);
            }
        });
    }

    fn add_norm(&mut self, norm: &Norm<'_, Self>, x: &Floats, n_rows: usize, scale: f32, acc: &mut Floats) {
        let (isa, width, norm) = (self.isa, norm.weight.len(), kernel_norm(norm));
        split_rows(&self.pool, &mut acc[..n_rows * width], width, &|row, acc| {
            norm.add(isa, &x[row * width..][..width], scale, acc);
        });
    }

    fn rope_positions(&mut self, rope: &mut CpuRope, positions: &[u32]) {
        let CpuRope { rope, angles } = rope;
        for (&position, angles) in positions.iter().zip(angles.chunks_exact_mut(rope.n_rot().max(1))) {
            rope.angles(position as usize, angles);
        }
    }

    fn rotate(&mut self, rope: &CpuRope, x: &mut Floats, n_rows: usize, n_heads: usize, head_len: usize) {
        let (width, n_rot) = (n_heads * head_len, rope.rope.n_rot());
        split_rows(&self.pool, &mut x[..n_rows * width], width, &|row, x| {
            rope.rope.rotate(&rope.angles[row * n_rot..][..n_rot], x, head_len);
        });
    }

    fn store_kv(&mut self, kv: &mut CpuKvLayer, span: &Span<'_>, keys: &Floats, values: &Floats) {
        let (layout, [key_length, value_length]) = (kv.layout, kv.layout.head_dims());
        let of_span = |length: usize| rows_of_span(span, layout.n_head_kv() * length);
        let (keys, values) = (&keys[of_span(key_length)], &values[of_span(value_length)]);
        let mut pages = KvPages { layout, keys: &mut kv.keys, values: &mut kv.values, table: span.pages };
        pages.store(&self.pool, self.isa, span.start, keys, values);
    }

    fn copy_page(&mut self, kv: &mut CpuKvLayer, from: u32, to: u32) {
        let CpuKvLayer { layout, keys, values } = kv;
        for (pages, n_bytes) in [keys, values].into_iter().zip(layout.page_bytes()) {
            let from = from as usize * n_bytes;
            pages.copy_within(from..from + n_bytes, to as usize * n_bytes);
        }
    }

    fn save_page(&mut self, kv: &CpuKvLayer, page: u32, sink: ByteSink<'_>) -> Result<()> {
        let CpuKvLayer { layout, keys, values } = kv;
        let mut parts = [keys, values].into_iter().zip(layout.page_bytes());
        parts.try_for_each(|(pages, n_bytes)| sink(&pages[page as usize * n_bytes..][..n_bytes]))
    }

    fn load_page(&mut self, kv: &mut CpuKvLayer, page: u32, source: ByteSource<'_>) -> Result<()> {
        let CpuKvLayer { layout, keys, values } = kv;
        let mut parts = [keys, values].into_iter().zip(layout.page_bytes());
        parts.try_for_each(|(pages, n_bytes)| source(&mut pages[page as usize * n_bytes..][..n_bytes]))
    }

    fn attention(
        &mut self,
        params: &AttentionParams<'_, Self>,
        kv: &CpuKvLayer,
        span: &Span<'_>,
        queries: &Floats,
        out: &mut Floats,
    ) {
        let AttentionShape { n_head, key_length, value_length, scale, softcap, window, alibi } = params.shape;
        let params = attention::AttentionParams {
            n_head,
            scale,
            softcap,
            window,
            alibi,
            sinks: params.sinks.map(|sinks| &sinks[..]),
        };
        let rows = &queries[rows_of_span(span, n_head * key_length)];
        let queries = attention::Queries { rows, first: span.start, in_tiles: span.in_tiles };
        let out = &mut out[rows_of_span(span, n_head * value_length)];
        let view = KvView { layout: kv.layout, keys: &kv.keys, values: &kv.values, table: span.pages };
        let buf = &mut self.attention;
        attention::attention(&self.pool, self.isa, &params, queries, &view, buf, out);
    }

    fn activate(&mut self, activation: Activation, x: &mut Floats, len: usize) {
        let isa = self.isa;
        split(&self.pool, &mut x[..len], &|_, x| activation::activate(isa, activation, x));
    }

    fn clear(&mut self, x: &mut Floats, len: usize) {
        x[..len].fill(0.0);
    }

    fn add(&mut self, acc: &mut Floats, x: &Floats, scale: f32, len: usize) {
        split(&self.pool, &mut acc[..len], &|first, acc| {
            activation::add_scaled(acc, scale, &x[first..][..acc.len()]);
        });
    }

    fn gate(&mut self, activation: Activation, gate: &Floats, x: &mut Floats, len: usize) {
        let isa = self.isa;
        split(&self.pool, &mut x[..len], &|first, x| {
            activation::gate_in_place(isa, activation, &gate[first..][..x.len()], x);
        });
    }

    fn clamp(&mut self, x: &mut Floats, limit: f32, len: usize) {
        split(&self.pool, &mut x[..len], &|_, x| x.iter_mut().for_each(|x| *x = x.clamp(-limit, limit)));
    }

    fn scale(&mut self, x: &mut Floats, factor: f32, len: usize) {
        split(&self.pool, &mut x[..len], &|_, x| activation::scale(x, factor));
    }

    fn gate_rows(&mut self, scores: &Floats, x: &mut Floats, n_rows: usize, width: usize) {
        for (x, &score) in x.chunks_exact_mut(width).zip(&scores[..n_rows]) {
            activation::scale(x, sigmoid(score));
        }
    }

    fn warm(&mut self, temperature: Temperature, positions: &[u32], x: &mut Floats, width: usize) {
        for (x, &position) in x.chunks_exact_mut(width).zip(positions) {
            let factor = temperature.at(position as usize);
            if factor != 1.0 {
                activation::scale(x, factor);
            }
        }
    }

    fn divide_rows(&mut self, x: &mut Floats, n_rows: usize, divisors: &Floats) {
        let width = divisors.len();
        split_rows(&self.pool, &mut x[..n_rows * width], width, &|_, x| {
            x.iter_mut().zip(&divisors[..]).for_each(|(x, divisor)| *x /= divisor);
        });
    }

    fn copy_columns(
        &mut self,
        from: &Floats,
        from_columns: Columns,
        to: &mut Floats,
        to_columns: Columns,
        len: usize,
        n_rows: usize,
    ) {
        for row in 0..n_rows {
            let from = &from[from_columns.first + row * from_columns.stride..][..len];
            to[to_columns.first + row * to_columns.stride..][..len].copy_from_slice(from);
        }
    }

    fn softcap(&mut self, x: &mut Floats, cap: f32, len: usize) {
        let isa = self.isa;
        split(&self.pool, &mut x[..len], &|_, x| activation::softcap(isa, x, cap));
    }

    fn gather_rows(&mut self, x: &Floats, rows: &[u32], width: usize, out: &mut Floats) {
        for (&row, out) in rows.iter().zip(out.chunks_exact_mut(width)) {
            out.copy_from_slice(&x[row as usize * width..][..width]);
        }
    }

    fn causal_conv(
        &mut self,
        conv: &CausalConv<'_, Self>,
        history: &mut Floats,
        span: &Span<'_>,
        x: &Floats,
        out: &mut Floats,
    ) {
        let conv = mixers::conv(conv);
        let n_channels = conv.n_channels;
        let rows = rows_of_span(span, n_channels);
        let history = mixers::state_of(history, span, conv.kernel.len() - n_channels);
        conv.run(&self.pool, self.isa, history, &x[rows.clone()], &mut out[rows]);
    }

    fn mamba2(
        &mut self,
        mixer: &Mamba2<'_, Self>,
        state: &mut Floats,
        span: &Span<'_>,
        x_b_c: &Floats,
        dt: &Floats,
        by_head: &mut Floats,
        out: &mut Floats,
    ) {
        if span.n_rows == 0 {
            return;
        }
        let (shape, mixer) = (mixer.shape, mixers::mamba2(mixer));
        let rows = rows_of_span(span, shape.inner());
        let by_head = &mut by_head[..rows.len()];
        let state = mixers::state_of(state, span, mixer.state_len());
        let x_b_c = &x_b_c[rows_of_span(span, shape.n_channels())];
        let dt = &dt[rows_of_span(span, shape.n_head)];
        mixer.run(&self.pool, self.isa, state, x_b_c, dt, by_head);
        mixers::rows_from_heads(&self.pool, by_head, shape.head_dim, span.n_rows, &mut out[rows]);
    }

    fn delta_net(
        &mut self,
        net: &DeltaNet<'_, Self>,
        state: &mut Floats,
        span: &Span<'_>,
        q_k_v: &mut Floats,
        rates: [&Floats; 2],
        by_head: &mut Floats,
        out: &mut Floats,
    ) {
        if span.n_rows == 0 {
            return;
        }
        let (shape, net) = (net.shape, mixers::delta_net(net));
        let rows = rows_of_span(span, shape.inner());
        let by_head = &mut by_head[..rows.len()];
        let state = mixers::state_of(state, span, net.state_len());
        let q_k_v = &mut q_k_v[rows_of_span(span, shape.n_channels())];
        let [beta, alpha] = rates.map(|rates| &rates[rows_of_span(span, shape.n_value_head)]);
        net.run(&self.pool, self.isa, state, q_k_v, beta, alpha, by_head);
        mixers::rows_from_heads(&self.pool, by_head, shape.value_dim, span.n_rows, &mut out[rows]);
    }
}

/// The norm, of slices.
fn kernel_norm<'a>(norm: &Norm<'a, Cpu>) -> norm::Norm<'a> {
    let Norm { kind, weight, bias, eps } = *norm;
    norm::Norm { kind, weight, bias: bias.map(|bias| &bias[..]), eps }
}

/// The first `len` values of an input.
fn rows_of<'a>(input: &Input<'a, Cpu>, len: usize) -> matmul::Input<'a> {
    match *input {
        Input::Rows(x) => matmul::Input::Rows(&x[..len]),
        Input::Norm { x, norm } => matmul::Input::Norm { x: &x[..len], norm: kernel_norm(&norm) },
        Input::Gated { activation, gate, up } => {
            matmul::Input::Gated { activation, gate: &gate[..len], up: &up[..len] }
        }
    }
}
