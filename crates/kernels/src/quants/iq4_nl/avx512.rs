//! IQ4_NL in AVX-512.

use super::{BlockIQ4_NL, LEVELS};
use crate::activations::Q8Group;
use crate::x86_512::*;

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn dot(rows: &[u8], x: &[Q8Group], n_tokens: usize, out: &mut [f32]) {
    dot_rows(rows, x, n_tokens, out, |blocks: &[BlockIQ4_NL; 8]| {
        let bytes = fours_of_lanes(load_each(|i| &blocks[i].qs), |block, _| 4 * block);
        let d = halves_of_18(blocks);
        Weights::new(levels(&RAISED, nibbles(bytes, |_, half| half == 1)), d)
    });
}

/// The levels plus 128.
pub(in crate::quants) const RAISED: [u8; 16] = raised(&LEVELS, 128);
