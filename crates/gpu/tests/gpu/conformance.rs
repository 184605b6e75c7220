//! Each operation on the device against the same on the CPU.

use metallic::backend::{
    Activation, AttentionParams, AttentionShape, Backend, Columns, Cpu, Input, KvLayout, KvType, MatmulJob,
    Norm, NormKind, RopeConfig, RopePairs, Span, Temperature, Tokens,
};
use metallic::memory::{MatrixBytes, MatrixData, SharedBytes};
use metallic::{GgmlType, Isa};

use crate::{gpu, nmse};

/// Of operations on floats.
pub(crate) const MAX_NMSE: f64 = 1e-10;

/// Of products with blocks: the CPU rounds their inputs to 8 bits.
const MAX_NMSE_OF_BLOCKS: f64 = 3e-4;

/// Of keys and values as bfloat16: the CPU rounds queries and weights to such as well.
const MAX_NMSE_OF_BF16: f64 = 1e-4;

/// Numbers between -1 and 1, the same every time.
pub(crate) fn random(seed: u32, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    std::iter::repeat_with(next).take(len).collect()
}

pub(crate) fn buffer<B: Backend>(backend: &mut B, values: &[f32]) -> B::Buffer {
    let mut buffer = backend.buffer("a test", values.len()).unwrap();
    backend.write(values, &mut buffer).unwrap();
    buffer
}

pub(crate) fn values<B: Backend>(backend: &mut B, buffer: &B::Buffer, len: usize) -> Vec<f32> {
    let mut values = vec![0.0; len];
    backend.read(buffer, 0, &mut values).unwrap();
    values
}

/// Something that is computed by a backend, whichever it is.
pub(crate) trait Computation {
    fn run<B: Backend>(&self, backend: &mut B) -> Vec<f32>;
}

pub(crate) fn compare(name: &str, bound: f64, computation: &impl Computation) {
    let Some(mut gpu) = gpu() else { return };
    let expected = computation.run(&mut Cpu::new(1, Isa::Scalar).unwrap());
    let found = computation.run(&mut gpu);
    let error = nmse(&found, &expected);
    println!("{name}: {error:.2e}");
    assert!(error <= bound, "{name}: {error:.2e}\n{:?}\n{:?}", &found[..8], &expected[..8]);
}

struct Elementwise;

impl Computation for Elementwise {
    fn run<B: Backend>(&self, b: &mut B) -> Vec<f32> {
        const LEN: usize = 700;
        let (input, other) = (random(1, LEN), buffer(b, &random(2, LEN)));
        let scaled: Vec<f32> = input.iter().map(|x| 12.0 * x).collect();
        let mut all = Vec::new();
        for activation in [
            Activation::Silu,
            Activation::GeluTanh,
            Activation::GeluErf,
            Activation::Relu,
            Activation::ReluSquared,
            Activation::Sigmoid,
            Activation::Identity,
            Activation::ClampedSwish,
        ] {
            let mut x = buffer(b, &scaled);
            b.activate(activation, &mut x, LEN);
            all.extend(values(b, &x, LEN));
            let mut x = buffer(b, &scaled);
            b.gate(activation, &other, &mut x, LEN - 1);
            all.extend(values(b, &x, LEN));
        }
        let mut x = buffer(b, &input);
        b.add(&mut x, &other, 0.3, LEN);
        b.clamp(&mut x, 0.5, LEN);
        b.softcap(&mut x, 0.4, LEN);
        b.scale(&mut x, 7.0, 100);
        let divisors = buffer(b, &random(3, 70));
        b.divide_rows(&mut x, 9, &divisors);
        b.clear(&mut x, 30);
        all.extend(values(b, &x, LEN));
        all
    }
}

#[test]
fn values_one_by_one() {
    compare("element-wise", MAX_NMSE, &Elementwise);
}

struct Rows;

impl Computation for Rows {
    fn run<B: Backend>(&self, b: &mut B) -> Vec<f32> {
        let x = buffer(b, &random(4, 60));
        let mut out = buffer(b, &random(5, 60));
        let from = Columns { first: 2, stride: 10 };
        b.copy_columns(&x, from, &mut out, Columns { first: 1, stride: 7 }, 5, 6);
        let mut gathered = b.buffer("rows", 30).unwrap();
        b.gather_rows(&out, &[5, 0, 5], 10, &mut gathered);
        let scores = buffer(b, &random(22, 3));
        b.gate_rows(&scores, &mut gathered, 2, 10);
        let temperature = Temperature { scale: 0.7, length: 100 };
        b.warm(temperature, &[99, 1000, 205], &mut gathered, 10);
        b.warm(temperature, &[0, 1], &mut gathered, 10);
        let mut all = values(b, &out, 60);
        all.extend(values(b, &gathered, 30));
        all
    }
}

#[test]
fn rows_by_number() {
    compare("rows", MAX_NMSE, &Rows);
}

struct Norms(NormKind);

impl Computation for Norms {
    fn run<B: Backend>(&self, b: &mut B) -> Vec<f32> {
        const WIDTH: usize = 600;
        let mut x = buffer(b, &random(6, 3 * WIDTH));
        let (weight, bias) = (buffer(b, &random(7, WIDTH)), buffer(b, &random(8, WIDTH)));
        let mut out = buffer(b, &random(9, 3 * WIDTH));
        let plain = Norm { kind: self.0, weight: &weight, bias: None, eps: 1e-5 };
        let biased = Norm { bias: Some(&bias), ..plain };
        b.norm(&biased, &x, 2, &mut out);
        b.add_norm(&plain, &x, 3, 0.7, &mut out);
        b.norm_in_place(&plain, &mut x, 3, 1);
        b.norm_in_place(&biased, &mut x, 3, 5);
        let mut all = values(b, &out, 3 * WIDTH);
        all.extend(values(b, &x, 3 * WIDTH));
        all
    }
}

#[test]
fn norms() {
    compare("RMS norm", MAX_NMSE, &Norms(NormKind::Rms));
    compare("layer norm", MAX_NMSE, &Norms(NormKind::Layer));
}

struct Products {
    ggml_type: GgmlType,
    row_len: usize,
}

impl Products {
    /// Blocks of random numbers whose scale is the half-precision number 2⁻⁷ or so, and floats.
    fn bytes(&self, n_rows: usize) -> Vec<u8> {
        let weights = random(10, self.row_len * n_rows);
        match self.ggml_type {
            GgmlType::F32 => weights.iter().flat_map(|x| x.to_le_bytes()).collect(),
            GgmlType::F16 => {
                weights.iter().flat_map(|x| metallic_kernels::f16::from_f32(*x).to_le_bytes()).collect()
            }
            ggml_type => {
                let block = ggml_type.block_bytes();
                let random = weights.iter().map(|x| x.to_bits().to_le_bytes()[1]);
                let n_bytes = self.row_len / ggml_type.block_len() * block * n_rows;
                let mut bytes: Vec<u8> = random.cycle().take(n_bytes).collect();
                bytes
                    .chunks_exact_mut(block)
                    .enumerate()
                    .for_each(|(i, block)| block[..2].copy_from_slice(&[i as u8, 0x20]));
                bytes
            }
        }
    }
}

impl Computation for Products {
    fn run<B: Backend>(&self, b: &mut B) -> Vec<f32> {
        const N_ROWS: usize = 37;
        const N_TOKENS: usize = 3;
        let Self { ggml_type, row_len } = *self;
        let bytes = MatrixBytes::in_memory(SharedBytes::new(self.bytes(N_ROWS)));
        let matrix = b.matrix(MatrixData { ggml_type, row_len, n_rows: N_ROWS, bytes }).unwrap();
        b.reserve_inputs(N_TOKENS, row_len).unwrap();
        let (x, up) =
            (buffer(b, &random(11, N_TOKENS * row_len)), buffer(b, &random(12, N_TOKENS * row_len)));
        let (weight, bias) = (buffer(b, &random(13, row_len)), buffer(b, &random(14, N_ROWS)));
        let norm = Norm { kind: NormKind::Rms, weight: &weight, bias: None, eps: 1e-5 };
        let tokens = Tokens { gemv: N_TOKENS, gemm: 0 };
        let mut out = buffer(b, &random(15, N_TOKENS * N_ROWS));
        let mut second = buffer(b, &random(16, N_TOKENS * N_ROWS));
        let adding =
            |out| MatmulJob::<B> { bias: Some(&bias), accumulate: true, ..MatmulJob::new(&matrix, out) };
        b.matmul(&Input::Rows(&x), tokens, &mut [MatmulJob::new(&matrix, &mut out)]).unwrap();
        let mut jobs = [adding(&mut second), adding(&mut out)];
        b.matmul(&Input::Norm { x: &x, norm }, tokens, &mut jobs).unwrap();
        let gated = Input::Gated { activation: Activation::Silu, gate: &x, up: &up };
        b.matmul(&gated, tokens, &mut [MatmulJob { accumulate: true, ..MatmulJob::new(&matrix, &mut out) }])
            .unwrap();
        let some = b.matrix_rows(&b.matrix_rows(&matrix, 5..30), 3..20);
        let mut of_some = b.buffer("products", N_TOKENS * 17).unwrap();
        b.matmul(&Input::Rows(&x), tokens, &mut [MatmulJob::new(&some, &mut of_some)]).unwrap();
        let mut embedded = b.buffer("rows", N_TOKENS * row_len).unwrap();
        b.embed(&some, &[16, 0, 9], 3.0, &mut embedded).unwrap();
        let mut all = values(b, &out, N_TOKENS * N_ROWS);
        all.extend(values(b, &second, N_TOKENS * N_ROWS));
        all.extend(values(b, &of_some, N_TOKENS * 17));
        all.extend(values(b, &embedded, N_TOKENS * row_len));
        all
    }
}

#[test]
fn products_with_every_type() {
    for (ggml_type, row_len, bound) in [
        (GgmlType::F32, 321, MAX_NMSE),
        (GgmlType::F16, 323, MAX_NMSE),
        (GgmlType::Q4_0, 32 * 11, MAX_NMSE_OF_BLOCKS),
        (GgmlType::Q8_0, 32 * 11, MAX_NMSE_OF_BLOCKS),
    ] {
        compare(ggml_type.name(), bound, &Products { ggml_type, row_len });
    }
}

struct Rotations(RopePairs);

impl Computation for Rotations {
    fn run<B: Backend>(&self, b: &mut B) -> Vec<f32> {
        let config = RopeConfig {
            pairs: self.0,
            n_rot: 12,
            freq_base: 10_000.0,
            freq_scale: 0.5,
            attn_factor: 1.1,
            yarn: None,
        };
        let mut rope = b.rope(&config, None, 3).unwrap();
        let mut x = buffer(b, &random(17, 3 * 4 * 16));
        b.rope_positions(&mut rope, &[3, 0, 120_000]);
        b.rotate(&rope, &mut x, 3, 4, 16);
        // The angles of another batch, before the first was submitted.
        b.rope_positions(&mut rope, &[7]);
        b.rotate(&rope, &mut x, 1, 4, 16);
        values(b, &x, 3 * 4 * 16)
    }
}

#[test]
fn rotations() {
    compare("adjacent pairs", MAX_NMSE, &Rotations(RopePairs::Adjacent));
    compare("pairs of halves", MAX_NMSE, &Rotations(RopePairs::Halves));
}

struct Attention {
    kv_type: KvType,
    shape: AttentionShape,
    n_head_kv: usize,
    sinks: bool,
}

impl Computation for Attention {
    fn run<B: Backend>(&self, b: &mut B) -> Vec<f32> {
        const N: usize = 300;
        let AttentionShape { n_head, key_length, value_length, .. } = self.shape;
        let (n_head_kv, sinks) = (self.n_head_kv, self.sinks);
        let layout = KvLayout::new(self.kv_type, 256, n_head_kv, key_length, value_length).unwrap();
        let mut kv = b.kv_layer(&layout, 4).unwrap();
        b.reserve_attention(&[(n_head, layout)], N).unwrap();
        let keys = buffer(b, &random(18, N * n_head_kv * key_length));
        let rows = buffer(b, &random(19, N * n_head_kv * value_length));
        let queries = buffer(b, &random(20, N * n_head * key_length));
        let mut out = b.buffer("attention", N * n_head * value_length).unwrap();
        let sinks = sinks.then(|| buffer(b, &random(21, n_head)));
        let params = AttentionParams { shape: self.shape, sinks: sinks.as_ref() };
        // Two sequences in a batch: one in two pages that are not in order, in two steps, and a short one.
        for (first_row, n_rows, start, pages) in
            [(0, 260, 0, &[3, 1][..]), (260, 20, 0, &[0]), (280, 20, 260, &[3, 1])]
        {
            let span = Span { first_row, n_rows, start, pages, slot: 0, in_tiles: false };
            b.store_kv(&mut kv, &span, &keys, &rows);
            b.attention(&params, &kv, &span, &queries, &mut out);
        }
        values(b, &out, N * n_head * value_length)
    }
}

#[test]
fn attention_of_every_kind() {
    let plain = AttentionShape {
        n_head: 6,
        key_length: 24,
        value_length: 16,
        scale: 1.5,
        window: None,
        softcap: None,
        alibi: None,
    };
    let odd = AttentionShape { n_head: 3, key_length: 23, value_length: 15, ..plain };
    for (name, n_head_kv, sinks, shape) in [
        ("attention", 2, false, plain),
        ("attention with odd heads", 1, false, odd),
        ("attention in a window", 2, false, AttentionShape { window: Some(70), ..plain }),
        ("attention with capped scores", 2, false, AttentionShape { softcap: Some(2.0), ..plain }),
        ("attention with linear biases", 2, false, AttentionShape { alibi: Some(8.0), ..plain }),
        ("attention with sinks", 2, true, plain),
    ] {
        for (kv_type, bound) in
            [(KvType::F32, MAX_NMSE), (KvType::F16, MAX_NMSE), (KvType::BF16, MAX_NMSE_OF_BF16)]
        {
            // Rows that end within a word have no kernels.
            if shape == odd && kv_type != KvType::F32 {
                continue;
            }
            compare(&format!("{name}, {kv_type}"), bound, &Attention { kv_type, shape, n_head_kv, sinks });
        }
    }
}
