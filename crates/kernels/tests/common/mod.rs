//! What the kernel tests share: reproducible numbers and a measure of disagreement.
#![allow(dead_code, reason = "each test program uses its part")]

use metallic_kernels::activations::{Q8Block, Q8Group, group_q8, n_groups};
use metallic_kernels::registry::Dots;
use metallic_kernels::{Dot, Isa, QuantOps};

/// A reproducible source of numbers (SplitMix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    pub(crate) fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n.div_ceil(8)).flat_map(|_| self.bits().to_le_bytes()).take(n).collect()
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }

    /// Between −1 and 1.
    pub(crate) fn float(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub(crate) fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.float()).collect()
    }
}

/// The output function of SplitMix64.
pub(crate) fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The largest |a − b|.
pub(crate) fn largest_difference(a: &[f32], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(&a, b)| (f64::from(a) - b).abs()).fold(0.0, |m, d| if d <= m { m } else { d })
}

/// Whether all weights are finite, and so far from overflow that a sum of products is finite too.
pub(crate) fn is_sane(ops: &QuantOps, row: &[u8]) -> bool {
    let mut weights = vec![0.0; row.len() / ops.ggml_type.block_bytes() * ops.ggml_type.block_len()];
    (ops.decode)(row, &mut weights);
    weights.iter().all(|w| w.abs() < 1e20)
}

/// The instruction sets whose products take activations in 8 bits, and floats as they are: all but AMX, which takes both as
/// bfloat16.
pub(crate) fn exact_isas() -> impl Iterator<Item = Isa> {
    Isa::available().into_iter().filter(|isa| isa.name() != "amx")
}

/// The product of one row with one token.
pub(crate) fn one<X>(dots: Dots<X>, row: &[u8], x: &[X]) -> f32 {
    let mut out = [f32::NAN];
    dots(row, x, 1, &mut out);
    out[0]
}

/// The product of a row with quantized activations, in whichever layout the format's kernel takes them;
/// `None` for formats that take floats.
pub(crate) fn dot_q8(ops: &QuantOps, row: &[u8], x: &[Q8Block]) -> Option<f32> {
    match ops.dot {
        Dot::F32(_) => None,
        Dot::Q8(dots) => Some(one(dots, row, x)),
        Dot::Q8Groups(dots) => {
            let mut groups = vec![Q8Group::ZERO; n_groups(x.len())];
            group_q8(x, &mut groups);
            Some(one(dots, row, &groups))
        }
    }
}

/// Rows of random bytes whose weights are sane: every bit pattern of a format's integers occurs.
pub(crate) fn random_rows(ops: &QuantOps, row_len: usize, n_rows: usize, random: &mut Random) -> Vec<u8> {
    let (block_len, block_bytes) = (ops.ggml_type.block_len(), ops.ggml_type.block_bytes());
    let mut rows = Vec::new();
    while rows.len() < n_rows * row_len / block_len * block_bytes {
        let block: Vec<u8> = (0..block_bytes).map(|_| random.bits() as u8).collect();
        if is_sane(ops, &block) {
            rows.extend(block);
        }
    }
    rows
}
