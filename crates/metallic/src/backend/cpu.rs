//! The CPU: `metallic-kernels` on a pool of threads.

use std::ops::Range;

use memmap2::MmapMut;
use metallic_kernels::activation::{self, Activation};
use metallic_kernels::attention::{AttentionBuf, AttentionParams, KvLayout, KvPages, KvView};
use metallic_kernels::matmul::{self, ActivationBuf, Matrix, Products};
use metallic_kernels::pool::ThreadPool;
use metallic_kernels::rope::{self, RopeParams};
use metallic_kernels::{Isa, QuantOps, attention, norm, registry};
use smallvec::SmallVec;

use super::{Backend, Input, MatmulJob, MatrixBytes, MatrixData, Span};
use crate::error::{Error, Result};
use crate::memory::{Lease, Leased, SharedBytes, StreamStats, StreamedRows, Tier, WeightStream, slab};
use crate::model::config::{AttentionConfig, RopeConfig};

/// Values below which an element-wise operation costs less than waking the other threads.
const MIN_SHARED_VALUES: usize = 16 << 10;

/// Computes with the weights where they lie in memory, and with chunks of those that don't as they arrive.
pub struct Cpu {
    pool: ThreadPool,
    isa: Isa,
    activations: ActivationBuf,
    attention: AttentionBuf,
    stream: Option<Stream>,
    ram: Tier,
    /// Of `activations` and `attention`.
    leases: [Option<Lease>; 2],
}

/// Activations or a vector of weights.
pub type Floats = Leased<Vec<f32>>;

/// What brings in the weights that are not in memory.
struct Stream {
    weights: WeightStream,
    chunk_bytes: usize,
}

/// A matrix in memory or in a file.
#[derive(Clone)]
pub struct CpuMatrix {
    ops: QuantOps,
    row_len: usize,
    n_rows: usize,
    weights: Weights,
}

/// Where the rows of a matrix are.
#[derive(Clone)]
enum Weights {
    Resident(SharedBytes),
    Streamed(StreamedRows),
}

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
        Ok(Self { pool, isa, activations, attention, stream: None, ram, leases })
    }

    /// The same, with all that it allocates charged to `ram`.
    #[must_use]
    pub fn within(self, ram: Tier) -> Self {
        Self { ram, ..self }
    }

    /// The same with something that brings in weights in chunks of at most `chunk_bytes`, or of a row.
    #[must_use]
    pub(crate) fn with_stream(self, weights: WeightStream, chunk_bytes: usize) -> Self {
        Self { stream: Some(Stream { weights, chunk_bytes }), ..self }
    }

    /// Bytes that [`Backend::reserve_inputs`] allocates.
    pub fn input_bytes(n_threads: usize, isa: Isa, n_rows: usize, row_len: usize) -> u64 {
        ActivationBuf::reserved_bytes(isa, n_threads, n_rows, row_len)
    }

    /// Bytes that [`Backend::reserve_attention`] allocates for `layers`.
    pub fn attention_bytes(
        n_threads: usize,
        layers: impl IntoIterator<Item = (usize, KvLayout)>,
        n_positions: usize,
    ) -> u64 {
        AttentionBuf::reserved_bytes(n_threads, layers, n_positions)
    }

    /// Bytes that [`Backend::rope`] allocates.
    pub fn rope_bytes(config: &RopeConfig, max_rows: usize) -> u64 {
        (config.n_rot as u64).saturating_mul(max_rows as u64).saturating_mul(size_of::<f32>() as u64)
    }
}

impl CpuMatrix {
    /// Rows of this matrix that lie in `bytes`.
    fn view<'a>(&self, bytes: &'a [u8]) -> Matrix<'a> {
        Matrix::new(self.ops, self.row_len, bytes)
    }
}

impl Backend for Cpu {
    type Buffer = Floats;
    type Matrix = CpuMatrix;
    type KvLayer = CpuKvLayer;
    type Rope = CpuRope;

    fn description(&self) -> String {
        format!("CPU, {}, {} threads", self.isa, self.pool.n_threads())
    }

    fn reserve_inputs(&mut self, n_rows: usize, row_len: usize) -> Result<()> {
        let n_threads = self.pool.n_threads();
        let bytes = Self::input_bytes(n_threads, self.isa, n_rows, row_len);
        self.leases[0] = Some(self.ram.lease("inputs of products", bytes)?);
        self.activations.reserve(n_threads, n_rows, row_len);
        Ok(())
    }

    fn reserve_attention(&mut self, layers: &[(usize, KvLayout)], n_positions: usize) -> Result<()> {
        let n_threads = self.pool.n_threads();
        let bytes = Self::attention_bytes(n_threads, layers.iter().copied(), n_positions);
        self.leases[1] = Some(self.ram.lease("attention", bytes)?);
        for (n_head, layout) in layers {
            self.attention.reserve(n_threads, *n_head, layout, n_positions);
        }
        Ok(())
    }

    fn buffer(&self, what: &'static str, len: usize) -> Result<Floats> {
        self.ram.zeros(what, len)
    }

    fn matrix(&self, data: MatrixData) -> Result<CpuMatrix> {
        let MatrixData { ggml_type, row_len, n_rows, bytes } = data;
        let weights = match bytes {
            MatrixBytes::Memory(bytes) => Weights::Resident(bytes),
            MatrixBytes::File(range) => {
                let chunk_bytes = self.stream.as_ref().map_or(0, |stream| stream.chunk_bytes);
                Weights::Streamed(StreamedRows::new(range, n_rows, chunk_bytes))
            }
        };
        Ok(CpuMatrix { ops: registry::ops(ggml_type, self.isa), row_len, n_rows, weights })
    }

    fn matrix_rows(&self, matrix: &CpuMatrix, rows: Range<usize>) -> CpuMatrix {
        let n_rows = rows.len();
        let weights = match &matrix.weights {
            Weights::Resident(bytes) => {
                let row_bytes = bytes.len() / matrix.n_rows;
                Weights::Resident(bytes.slice(rows.start * row_bytes..rows.end * row_bytes))
            }
            Weights::Streamed(streamed) => Weights::Streamed(streamed.rows(rows)),
        };
        CpuMatrix { n_rows, weights, ..*matrix }
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

    fn write(&mut self, values: &[f32], buffer: &mut Floats) {
        buffer[..values.len()].copy_from_slice(values);
    }

    fn read(&mut self, buffer: &Floats, first: usize, values: &mut [f32]) {
        values.copy_from_slice(&buffer[first..][..values.len()]);
    }

    fn will_use(&mut self, matrix: &CpuMatrix) {
        if let (Weights::Streamed(rows), Some(stream)) = (&matrix.weights, &mut self.stream) {
            stream.weights.announce(rows);
        }
    }

    fn forget_uses(&mut self) {
        if let Some(stream) = &mut self.stream {
            stream.weights.forget();
        }
    }

    fn stream_stats(&self) -> Option<StreamStats> {
        self.stream.as_ref().map(|stream| stream.weights.stats())
    }

    fn embed(&mut self, table: &CpuMatrix, ids: &[u32], scale: f32, out: &mut Floats) -> Result<()> {
        for (&id, out) in ids.iter().zip(out.chunks_exact_mut(table.row_len)) {
            let id = id as usize;
            match (&table.weights, &mut self.stream) {
                (Weights::Resident(bytes), _) => table.view(bytes).decode_row(id, out),
                (Weights::Streamed(rows), Some(stream)) => {
                    table.view(stream.weights.row(rows.rows(id..id + 1).range)?).decode_row(0, out);
                }
                (Weights::Streamed(_), None) => unreachable!("{NO_STREAM}"),
            }
            if scale != 1.0 {
                activation::scale(out, scale);
            }
        }
        Ok(())
    }

    fn matmul(
        &mut self,
        input: &Input<'_, Self>,
        n_rows: usize,
        jobs: &mut [MatmulJob<'_, Self>],
    ) -> Result<()> {
        let Some(row_len) = jobs.first().map(|job| job.matrix.row_len).filter(|_| n_rows > 0) else {
            return Ok(());
        };
        let input = rows_of(input, n_rows * row_len);
        let mut products = Products::new(&self.pool, &input, n_rows, &mut self.activations);
        // What is in memory first: meanwhile the rest is being read.
        let mut resident: SmallVec<[_; 4]> =
            jobs.iter_mut().filter_map(|job| resident_product(job, n_rows)).collect();
        products.multiply(&mut resident);
        drop(resident);
        for job in jobs {
            let Weights::Streamed(rows) = job.matrix.weights else { continue };
            let Some(stream) = &mut self.stream else { unreachable!("{NO_STREAM}") };
            for chunk in rows.chunks() {
                let slot = stream.weights.next(rows.rows(chunk.clone()).range)?;
                products.multiply(&mut [chunk_product(job, n_rows, slot.chunk(), chunk)]);
                stream.weights.give_back(slot);
            }
        }
        Ok(())
    }

    fn rms_norm(&mut self, x: &Floats, n_rows: usize, weight: &Floats, eps: f32, out: &mut Floats) {
        let (width, len) = (weight.len(), n_rows * weight.len());
        norm::rms_norm_rows(&self.pool, self.isa, &x[..len], width, Some(weight), eps, &mut out[..len]);
    }

    fn rms_norm_in_place(&mut self, x: &mut Floats, n_rows: usize, weight: &Floats, eps: f32) {
        let isa = self.isa;
        split_rows(&self.pool, &mut x[..n_rows * weight.len()], weight.len(), &|_, row| {
            norm::rms_norm_in_place(isa, row, Some(weight), eps);
        });
    }

    fn add_rms_norm(&mut self, acc: &mut Floats, x: &Floats, n_rows: usize, weight: &Floats, eps: f32) {
        let (isa, width) = (self.isa, weight.len());
        split_rows(&self.pool, &mut acc[..n_rows * width], width, &|row, acc| {
            norm::add_rms_norm(isa, acc, &x[row * width..][..width], weight, eps);
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
        let of_span = |length: usize| {
            let width = layout.n_head_kv() * length;
            span.first_row * width..(span.first_row + span.n_rows) * width
        };
        let (keys, values) = (&keys[of_span(key_length)], &values[of_span(value_length)]);
        let mut pages = KvPages { layout, keys: &mut kv.keys, values: &mut kv.values, table: span.pages };
        pages.store(&self.pool, self.isa, span.start, keys, values);
    }

    fn attention(
        &mut self,
        config: &AttentionConfig,
        kv: &CpuKvLayer,
        span: &Span<'_>,
        queries: &Floats,
        out: &mut Floats,
    ) {
        let params = AttentionParams {
            n_head: config.n_head,
            scale: config.scale,
            softcap: config.softcap,
            window: config.window,
        };
        let (in_width, out_width) = (config.n_head * config.key_length, config.n_head * config.value_length);
        let queries = &queries[span.first_row * in_width..][..span.n_rows * in_width];
        let out = &mut out[span.first_row * out_width..][..span.n_rows * out_width];
        let view = KvView { layout: kv.layout, keys: &kv.keys, values: &kv.values, table: span.pages };
        let buf = &mut self.attention;
        attention::attention(&self.pool, self.isa, &params, queries, span.start, &view, buf, out);
    }

    fn activate(&mut self, activation: Activation, x: &mut Floats, len: usize) {
        let isa = self.isa;
        split(&self.pool, &mut x[..len], &|_, x| activation::activate(isa, activation, x));
    }

    fn clear(&mut self, x: &mut Floats, len: usize) {
        x[..len].fill(0.0);
    }

    fn add(&mut self, acc: &mut Floats, x: &Floats, len: usize) {
        split(&self.pool, &mut acc[..len], &|first, acc| activation::add(acc, &x[first..][..acc.len()]));
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

    fn scatter_add_rows(
        &mut self,
        x: &Floats,
        rows: &[u32],
        weights: &[f32],
        width: usize,
        acc: &mut Floats,
    ) {
        for ((&row, &weight), x) in rows.iter().zip(weights).zip(x.chunks_exact(width)) {
            let acc = &mut acc[row as usize * width..][..width];
            acc.iter_mut().zip(x).for_each(|(acc, x)| *acc += weight * x);
        }
    }
}

/// The first `len` values of an input.
fn rows_of<'a>(input: &Input<'a, Cpu>, len: usize) -> matmul::Input<'a> {
    match *input {
        Input::Rows(x) => matmul::Input::Rows(&x[..len]),
        Input::RmsNorm { x, weight, eps } => matmul::Input::RmsNorm { x: &x[..len], weight, eps },
        Input::Gated { activation, gate, up } => {
            matmul::Input::Gated { activation, gate: &gate[..len], up: &up[..len] }
        }
    }
}

/// A matrix is streamed only where the plan says so, and then the loader has made a stream.
const NO_STREAM: &str = "a streamed matrix on a backend without a stream";

/// A job for the first `n_rows` rows of its output, if its matrix is in memory.
fn resident_product<'a>(job: &'a mut MatmulJob<'_, Cpu>, n_rows: usize) -> Option<matmul::MatmulJob<'a>> {
    let Weights::Resident(bytes) = &job.matrix.weights else { return None };
    Some(chunk_product(job, n_rows, bytes, 0..job.matrix.n_rows))
}

/// The part of a job that some rows of its matrix make, which lie in `bytes`.
fn chunk_product<'a>(
    job: &'a mut MatmulJob<'_, Cpu>,
    n_rows: usize,
    bytes: &'a [u8],
    chunk: Range<usize>,
) -> matmul::MatmulJob<'a> {
    let stride = job.matrix.n_rows;
    let out = &mut job.out[..n_rows * stride];
    let mut product = matmul::MatmulJob::chunk(job.matrix.view(bytes), out, stride, chunk.start);
    if let Some(bias) = job.bias {
        product = product.with_bias(&bias[chunk]);
    }
    if job.accumulate { product.accumulating() } else { product }
}

/// `work(first, part)` on contiguous parts of `x`, on all threads where it is long enough.
fn split(pool: &ThreadPool, x: &mut [f32], work: &(dyn Fn(usize, &mut [f32]) + Sync)) {
    if x.len() < MIN_SHARED_VALUES { work(0, x) } else { pool.split_rows(x, 1, work) }
}

/// `work(i, row)` on every row of `x`, on all threads where there are enough.
fn split_rows(pool: &ThreadPool, x: &mut [f32], width: usize, work: &(dyn Fn(usize, &mut [f32]) + Sync)) {
    let rows = |first: usize, x: &mut [f32]| {
        x.chunks_exact_mut(width).enumerate().for_each(|(i, row)| work(first + i, row));
    };
    if x.len() < MIN_SHARED_VALUES { rows(0, x) } else { pool.split_rows(x, width, &rows) }
}
