//! Many tokens at once: weight rows expanded to 8 bits, panel by panel, and multiplied in register tiles.
//!
//! A *panel* is [`ROWS`] weight rows, their weights as bytes beside their scales. It is made from the
//! file's blocks when it is needed, serves all tokens while it lies in the second-level cache, and is
//! then written over: the model is never held twice. A *tile* is the same for [`TOKENS`] tokens. Their
//! product is summed in registers; where those hold two panels for fewer tokens than a tile has, the sums rest in the
//! first-level cache while the other tokens have their turn:
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
//! Weights that are floats stay floats: panels and tiles then hold 32-bit floats, and a weight is met by each
//! token's broadcast activation in one multiplication and addition.
//!
//! A result depends on its row and its token alone, as everywhere in this crate. But its floats are added
//! in another order than `dot` adds them, so the last bits differ from those of GEMV.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod column;
mod layout;
#[cfg(target_arch = "aarch64")]
mod neon;
mod numbers;
mod work;

pub(crate) use column::{Column, Rows, expand_each, five_bits, four, nibbles};
pub(crate) use layout::Lines;
pub(crate) use numbers::{FloatPanel, Line, PanelBlock};
use numbers::{Floats, Numbers, Quants};
pub(crate) use work::Call;

use crate::block::{FloatBlock, QuantBlock};
use crate::isa::Isa;

/// Weight rows in a panel.
pub(crate) const ROWS: usize = 16;
/// Tokens in a tile.
pub(crate) const TOKENS: usize = 16;

/// A product of a panel and a tile: a row for each token.
pub(crate) type Product = [[f32; ROWS]; TOKENS];

/// The functions of one format on one instruction set.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Gemm {
    Quants(Functions<Quants>),
    Floats(Functions<Floats>),
    #[cfg(target_arch = "x86_64")]
    Bf16(Functions<numbers::Bf16>),
    #[cfg(target_arch = "x86_64")]
    Split(Functions<numbers::Split>),
}

/// See [`Gemm`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Functions<N: Numbers> {
    /// Expands up to [`ROWS`] rows that begin `row_bytes` apart, as many blocks of each as the panel is for:
    /// `(rows, row_bytes, panel)`. What the panel holds for rows that are missing has no meaning.
    expand: fn(&[u8], usize, &mut [N::Panel]),
    /// How the panels are multiplied, where that depends on the format.
    multiply: N::Multiply,
}

/// What is multiplied at once: whole rows of some weights and of some tokens.
pub(crate) struct Group<'a, N: Numbers> {
    /// Up to [`PANELS`], one after another.
    panels: &'a [N::Panel],
    tile: &'a [N::Tile],
    /// Tokens that the tile has.
    n_tokens: usize,
}

/// Multiplies a [`Group`]: `(group, out)`, where `out` has as many products as there are panels.
type Multiply<N> = fn(Group<'_, N>, &mut [Product]);

/// Panels that are multiplied together at most. Where registers are many, a load of activations serves two.
const PANELS: usize = 2;

/// Multiplies one panel after another.
#[inline(always)]
fn one_by_one<P, T>(
    panels: &[P],
    tile: &[T],
    out: &mut [Product],
    multiply: impl Fn(&[P], &[T], &mut Product),
) {
    for (panel, out) in panels.chunks_exact(tile.len()).zip(out) {
        multiply(panel, tile, out);
    }
}

/// How one instruction set multiplies quants.
trait RegisterTile {
    /// [`Multiply`] for formats that have these [`QuantBlock::HALVES`] and [`QuantBlock::MINS`].
    ///
    /// # Safety
    /// This CPU has the instruction set.
    unsafe fn multiply<const HALVES: bool, const MINS: bool>(group: Group<'_, Quants>, out: &mut [Product]);

    /// The one for blocks of type `B`.
    ///
    /// # Safety
    /// As above.
    unsafe fn multiply_of<B: QuantBlock>() -> Multiply<Quants> {
        // SAFETY (of all the calls): the caller's.
        match (B::HALVES, B::MINS) {
            // SAFETY: as above.
            (false, false) => |group, out| unsafe { Self::multiply::<false, false>(group, out) },
            // SAFETY: as above.
            (false, true) => |group, out| unsafe { Self::multiply::<false, true>(group, out) },
            // SAFETY: as above.
            (true, false) => |group, out| unsafe { Self::multiply::<true, false>(group, out) },
            // SAFETY: as above.
            (true, true) => |group, out| unsafe { Self::multiply::<true, true>(group, out) },
        }
    }
}

impl Gemm {
    /// The functions for blocks of type `B`; `None` on plain loops.
    pub(crate) fn of<B: QuantBlock>(isa: Isa) -> Option<Self> {
        match isa {
            Isa::Scalar => None,
            #[cfg(target_arch = "aarch64")]
            // SAFETY: an `Isa::Neon` proves that this CPU has the instruction.
            Isa::Neon => Some(Gemm::Quants(unsafe { neon::quants::<B, neon::Sdot>() })),
            // SAFETY: so does an `Isa::NeonI8mm`.
            #[cfg(target_arch = "aarch64")]
            Isa::NeonI8mm => Some(Gemm::Quants(unsafe { neon::quants::<B, neon::Smmla>() })),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Some(Gemm::Quants(avx2::quants::<B>())),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => Some(Gemm::Quants(avx512::quants::<B>())),
            #[cfg(target_arch = "x86_64")]
            Isa::Amx => Some(Gemm::Bf16(amx::quants::<B>())),
        }
    }

    /// The functions for rows of floats, 32 of them a `B`.
    pub(crate) fn of_floats<B: FloatBlock>(isa: Isa) -> Option<Self> {
        match isa {
            Isa::Scalar => None,
            #[cfg(target_arch = "aarch64")]
            Isa::Neon | Isa::NeonI8mm => Some(Gemm::Floats(neon::floats::<B>())),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Some(Gemm::Floats(avx2::floats::<B>())),
            #[cfg(target_arch = "x86_64")]
            Isa::Amx if B::DIGITS <= 8 => Some(Gemm::Bf16(amx::bf16::<B>())),
            #[cfg(target_arch = "x86_64")]
            Isa::Amx if B::DIGITS <= 16 => Some(Gemm::Split(amx::split::<B>())),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Amx => Some(Gemm::Floats(avx512::floats::<B>())),
        }
    }
}
