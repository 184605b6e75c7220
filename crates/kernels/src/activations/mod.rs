//! Activations in 8 bits, as every integer kernel takes them.
//!
//! One form serves all weight formats, so an input is quantized once however many matrices read it.
//! One scale per 32 values: a scale per 256, as ggml's Q8_K has it, doubles the error and saves 2–4 %.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

use crate::isa::Isa;

/// Values in an activation block.
pub const Q8_LEN: usize = 32;

/// 32 activations: `x[i] ≈ scale · quants[i]`.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub struct Q8Block {
    /// The step: largest magnitude / 127.
    pub scale: f32,
    /// Sums of the first and of the second 16 quants, for formats with a minimum or an offset.
    pub sums: [i16; 2],
    /// The values, −127 … 127.
    pub quants: [i8; Q8_LEN],
}

impl Q8Block {
    /// A block of zeros.
    pub const ZERO: Q8Block = Q8Block { scale: 0.0, sums: [0; 2], quants: [0; Q8_LEN] };

    /// Sum of all 32 quants.
    #[inline]
    pub fn sum(&self) -> i32 {
        i32::from(self.sums[0]) + i32::from(self.sums[1])
    }
}

/// Activation blocks in a group.
pub const GROUP_BLOCKS: usize = 8;

/// 256 activations as the AVX-512 kernels load them: what [`GROUP_BLOCKS`] blocks say, each kind of
/// number beside its like, those of a half of block `i` at its [`lane`].
///
/// What a row has beyond whole groups comes in pairs of blocks. Each makes a group, four times the same:
/// kernels then meet four rows with it. A last block without a partner is followed by zeros.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C, align(64))]
pub struct Q8Group {
    /// Four values of each half at its lane: the first of all halves, then the second, and so on.
    pub quants: [[[i8; 4]; 2 * GROUP_BLOCKS]; 4],
    /// The step of each half of a block, which is the block's.
    pub scales: [f32; 2 * GROUP_BLOCKS],
    /// The sum of each half.
    pub sums: [f32; 2 * GROUP_BLOCKS],
    /// −128 times the same, which takes off what quants plus 128 have too much.
    pub offsets: [i32; 2 * GROUP_BLOCKS],
}

/// Where a group has the numbers of a half, 0 or 1, of one of its blocks: what is left of the order of
/// registers that are added up in pairs.
///
/// ```text
/// lane    0 1 2 3   4 5 6 7   8 9 10 11   12 13 14 15
/// block   0 2 4 6   0 2 4 6   1 3  5  7    1  3  5  7
/// half    0 0 0 0   1 1 1 1   0 0  0  0    1  1  1  1
/// ```
pub const fn lane(block: usize, half: usize) -> usize {
    block / 2 + 4 * half + block % 2 * 8
}

/// Groups that a row of so many blocks takes: one for every eight, and one for every two of the rest.
pub const fn n_groups(n_blocks: usize) -> usize {
    n_blocks / GROUP_BLOCKS + (n_blocks % GROUP_BLOCKS).div_ceil(2)
}

impl Q8Group {
    /// A group of zeros.
    pub const ZERO: Q8Group = Q8Group {
        quants: [[[0; 4]; 2 * GROUP_BLOCKS]; 4],
        scales: [0.0; 2 * GROUP_BLOCKS],
        sums: [0.0; 2 * GROUP_BLOCKS],
        offsets: [0; 2 * GROUP_BLOCKS],
    };

    fn set(&mut self, i: usize, block: &Q8Block) {
        for (half, sum) in block.sums.into_iter().enumerate() {
            let (lane, fours) = (lane(i, half), block.quants.as_chunks::<4>().0);
            self.quants.iter_mut().zip(&fours[4 * half..]).for_each(|(quants, four)| quants[lane] = *four);
            self.scales[lane] = block.scale;
            self.sums[lane] = sum.into();
            self.offsets[lane] = -128 * i32::from(sum);
        }
    }
}

/// Sorts the blocks of one row into groups.
///
/// # Panics
/// If `groups` is not [`n_groups`] long.
pub fn group_q8(row: &[Q8Block], groups: &mut [Q8Group]) {
    assert_eq!(groups.len(), n_groups(row.len()), "as many groups as the row takes");
    let (whole, rest) = row.as_chunks::<GROUP_BLOCKS>();
    let (groups, pairs) = groups.split_at_mut(whole.len());
    for (blocks, group) in whole.iter().zip(groups) {
        blocks.iter().enumerate().for_each(|(i, block)| group.set(i, block));
    }
    for (blocks, group) in rest.chunks(2).zip(pairs) {
        *group = Q8Group::ZERO;
        for i in 0..GROUP_BLOCKS {
            if let Some(block) = blocks.get(i % 2) {
                group.set(i, block);
            }
        }
    }
}

/// Quantizes `x` into `out`, 32 values a block, rounding half to even.
///
/// A block with a NaN or an infinity gets that as its scale, so the fault shows in every product. Values
/// so small that the step can't be inverted (below 127 · 2⁻¹²⁶) become 0.
///
/// # Panics
/// If `x.len() != 32 * out.len()`.
pub fn quantize_q8(isa: Isa, x: &[f32], out: &mut [Q8Block]) {
    assert_eq!(x.len(), Q8_LEN * out.len(), "one activation block for every 32 values");
    let x = x.as_chunks::<Q8_LEN>().0;
    match isa {
        Isa::Scalar => x.iter().zip(out).for_each(|(x, block)| *block = quantize_block(x)),
        // SAFETY: an `Isa::Avx2` proves that this CPU has what the kernel is compiled for.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 | Isa::Avx512 | Isa::Amx => unsafe { avx2::quantize(x, out) },
        // The plain loops vectorise: NEON is the baseline of its architecture.
        #[cfg(target_arch = "aarch64")]
        Isa::Neon | Isa::NeonI8mm => x.iter().zip(out).for_each(|(x, block)| *block = quantize_block(x)),
    }
}

/// Quantizes a row into groups: as [`quantize_q8`] and [`group_q8`] do it, to the last bit.
///
/// # Panics
/// If `x` isn't a whole number of blocks, or `groups` not [`n_groups`] of that number long.
pub fn quantize_q8_groups(isa: Isa, x: &[f32], groups: &mut [Q8Group]) {
    let (blocks, rest) = x.as_chunks::<Q8_LEN>();
    assert!(rest.is_empty(), "a row is a whole number of blocks");
    assert_eq!(groups.len(), n_groups(blocks.len()), "as many groups as the row takes");
    match isa {
        // SAFETY: both prove that this CPU has what the kernel is compiled for.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Amx => unsafe { avx512::quantize(blocks, groups) },
        _ => {
            let mut groups = groups;
            for x in x.chunks(GROUP_BLOCKS * Q8_LEN) {
                let mut blocks = [Q8Block::ZERO; GROUP_BLOCKS];
                let blocks = &mut blocks[..x.len() / Q8_LEN];
                quantize_q8(isa, x, blocks);
                let (these, after) = groups.split_at_mut(n_groups(blocks.len()));
                group_q8(blocks, these);
                groups = after;
            }
        }
    }
}

fn quantize_block(x: &[f32; Q8_LEN]) -> Q8Block {
    // Magnitudes compare as their bits do, and a NaN's are above all others.
    let largest = x.iter().fold(0, |m, v| v.abs().to_bits().max(m));
    let (scale, inverse) = step(largest);
    let mut block = Q8Block { scale, ..Q8Block::ZERO };
    for (q, v) in block.quants.iter_mut().zip(x) {
        *q = round_ties_even(v * inverse) as i8;
    }
    let (first, second) = block.quants.split_at(Q8_LEN / 2);
    block.sums = [first, second].map(|half| half.iter().map(|&q| i16::from(q)).sum());
    block
}

/// The step for a block whose largest magnitude has these bits, and its inverse; both 0 where there is
/// none, and only the inverse where the step is not finite.
#[inline(always)]
fn step(largest: u32) -> (f32, f32) {
    let mut scale = f32::from_bits(largest) / 127.0;
    if scale < f32::MIN_POSITIVE {
        scale = 0.0;
    }
    (scale, if scale > 0.0 { 1.0 / scale } else { 0.0 })
}

/// Rounds |v| < 2²² to the nearest integer, halves to even: adding 1.5 · 2²³ leaves no bit for a fraction.
/// Unlike `f32::round_ties_even` it is two additions on every CPU, and vectorises.
#[inline(always)]
fn round_ties_even(v: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0;
    (v + MAGIC) - MAGIC
}
