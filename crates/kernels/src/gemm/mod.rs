//! Many tokens at once: weight rows expanded to 8 bits, panel by panel, and multiplied in register tiles.
//!
//! A *panel* is [`ROWS`] weight rows, their weights as bytes beside their scales. It is made from the
//! file's blocks when it is needed, serves all tokens while it lies in the second-level cache, and is
//! then written over: the model is never held twice. A *tile* is the same for [`TOKENS`] tokens. The
//! product of a panel and a tile stays in registers from the first block of the row to the last:
//!
//! ```text
//! for each block of 32:                        w: 8 registers with 4 weights of each of 16 rows
//!     for each token:
//!         i = −128 · sum(x)                    the weights are stored as q + 128
//!         i += w[j] · broadcast(x[4j..])       8 times: 4 products for each row
//!         acc[token] += float(i) · (scales of the rows · scale of x)
//! ```
//!
//! The correction for the offset costs nothing, for a sum must start somewhere. Formats with a scale for
//! each 16 weights take two sums, and formats with minima one more product of floats.
//!
//! A result depends on its row and its token alone, as everywhere in this crate. But its floats are added
//! in another order than `dot` adds them, so the last bits differ from those of a single token.

#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg_attr(
    not(target_arch = "x86_64"),
    expect(dead_code, reason = "no kernel of this architecture takes panels")
)]
mod column;
mod work;

pub(crate) use column::{Column, Rows, expand_each, five_bits, four, nibbles};
pub(crate) use work::{Call, n_blocks};

use crate::activations::{Q8_LEN, Q8Block};
use crate::block::QuantBlock;
use crate::isa::Isa;

/// Weight rows in a panel.
pub(crate) const ROWS: usize = 16;
/// Tokens in a tile.
pub(crate) const TOKENS: usize = 16;

/// 32 weights of each of [`ROWS`] rows.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct PanelBlock {
    /// `quants[j][4r + i]` is weight `4j + i` of row `r`, plus 128.
    quants: [[u8; 4 * ROWS]; Q8_LEN / 4],
    /// Scales of the first and of the second 16 weights of each row.
    pub(crate) scales: [[f32; ROWS]; 2],
    /// Minima of the same.
    mins: [[f32; ROWS]; 2],
}

/// 32 activations of each of [`TOKENS`] tokens.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct TileBlock {
    quants: [[i8; Q8_LEN]; TOKENS],
    scales: [f32; TOKENS],
    /// −128 times the sum of the first 16 quants, of the second 16, of all.
    offsets: [[i32; TOKENS]; 3],
    /// The scale times the same sums.
    sums: [[f32; TOKENS]; 3],
}

/// A product of a panel and a tile: a row for each token.
pub(crate) type Product = [[f32; ROWS]; TOKENS];

/// The functions of one format on one instruction set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gemm {
    /// Expands up to [`ROWS`] rows: `(rows, row_bytes, panel)`. What the panel holds for rows that
    /// are missing has no meaning.
    expand: fn(&[u8], usize, &mut [PanelBlock]),
    /// Multiplies for the first `n` tokens of a tile: `(panel, tile, n, out)`.
    multiply: fn(&[PanelBlock], &[TileBlock], usize, &mut Product),
}

impl Gemm {
    /// The functions for blocks of type `B`; `None` where a product a token is faster.
    pub(crate) fn of<B: QuantBlock>(isa: Isa) -> Option<Self> {
        match isa {
            Isa::Scalar => None,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => None,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => Some(avx512::gemm::<B>()),
        }
    }
}

impl PanelBlock {
    pub(crate) const ZERO: Self =
        Self { quants: [[128; 4 * ROWS]; Q8_LEN / 4], scales: [[0.0; ROWS]; 2], mins: [[0.0; ROWS]; 2] };
}

impl TileBlock {
    pub(crate) const ZERO: Self = Self {
        quants: [[0; Q8_LEN]; TOKENS],
        scales: [0.0; TOKENS],
        offsets: [[0; TOKENS]; 3],
        sums: [[0.0; TOKENS]; 3],
    };

    fn set(&mut self, token: usize, x: &Q8Block) {
        self.quants[token] = x.quants;
        self.scales[token] = x.scale;
        let sums = [i32::from(x.sums[0]), i32::from(x.sums[1]), x.sum()];
        for (i, sum) in sums.into_iter().enumerate() {
            self.offsets[i][token] = -128 * sum;
            self.sums[i][token] = x.scale * sum as f32;
        }
    }
}
