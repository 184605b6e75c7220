//! The unit that multiplies tiles (AMX): its registers are eight tiles of 16 rows of 64 bytes.

use std::arch::asm;
use std::marker::PhantomData;

use super::super::numbers::{Bf16, Bf16Panel, Bf16Tile};
use super::super::{Group, Products, TILES};
use crate::isa::Isa;

/// Tiles that are set up on this thread, until it is dropped: what tile registers hold is the thread's own.
pub(crate) struct Tiles(PhantomData<*const ()>);

/// What LDTILECFG reads (Intel's Architecture Instruction Set Extensions, chapter 3): the same shape for all tiles.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

const _: () = assert!(size_of::<Configuration>() == 64);

static WHOLE: Configuration = Configuration {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

impl Tiles {
    /// Sets them up.
    ///
    /// # Panics
    /// If `isa` has none.
    pub(crate) fn new(isa: Isa) -> Self {
        assert!(isa == Isa::Amx, "{isa} has no tiles");
        // SAFETY: an `Isa::Amx` proves that the CPU has tiles and that this process may use them; the instruction reads the 64
        // bytes of the static.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const WHOLE, options(nostack, preserves_flags)) };
        Tiles(PhantomData)
    }

    /// Multiplies a group. All tokens of a tile, whether they are there or not: a product takes as long for fewer.
    pub(super) fn multiply(&self, group: Group<'_, Bf16>, out: &mut [Products]) {
        let Group { n_blocks: n, panels, tiles, stride, adds, .. } = group;
        assert!(n > 0 && panels.len().is_multiple_of(n), "whole panels");
        // A panel without a second is multiplied twice: there is one at most, the last of a matrix.
        let panels = [panels[..n].as_ptr(), panels[panels.len() - n..].as_ptr()];
        match out {
            // SAFETY: the tiles are set up; both panels and the tile have `n` blocks.
            [out] => unsafe { one(panels, tiles[..n].as_ptr(), n, adds, out) },
            [_, _] => {
                let tiles = [tiles[..n].as_ptr(), tiles[stride..][..n].as_ptr()];
                // SAFETY: likewise, and both tiles.
                unsafe { two(panels, tiles, n, adds, out.as_mut_ptr()) };
            }
            _ => unreachable!("at most {TILES} tiles"),
        }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: they were set up on this thread, which this can't leave.
        unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) };
    }
}

/// `out[p][t][r] = Σ tile[..][t] · panels[p][..][r]`, and what `out` has before where that is to be added to.
///
/// # Safety
/// Tiles are set up on this thread, and there are `n` of each, one at least.
unsafe fn one(
    panels: [*const Bf16Panel; 2],
    tile: *const Bf16Tile,
    n: usize,
    adds: bool,
    out: &mut Products,
) {
    // SAFETY: as promised, the loads are of `n` times 16 rows of 64 bytes each; so are loads and stores of products.
    unsafe {
        asm!(
            "test {adds:e}, {adds:e}",
            "jz 3f",
            "tileloadd tmm0, [{out} + {stride}]",
            "tileloadd tmm1, [{out} + {stride} + 1024]",
            "jmp 2f",
            "3:",
            "tilezero tmm0",
            "tilezero tmm1",
            "2:",
            "tileloadd tmm4, [{tile} + {stride}]",
            "tileloadd tmm6, [{a} + {stride}]",
            "tileloadd tmm7, [{b} + {stride}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "add {tile}, 1024",
            "add {a}, 1024",
            "add {b}, 1024",
            "dec {n}",
            "jnz 2b",
            "tilestored [{out} + {stride}], tmm0",
            "tilestored [{out} + {stride} + 1024], tmm1",
            tile = inout(reg) tile => _,
            a = inout(reg) panels[0] => _,
            b = inout(reg) panels[1] => _,
            n = inout(reg) n => _,
            adds = in(reg) u32::from(adds),
            stride = in(reg) 64_usize,
            out = in(reg) out.as_mut_ptr(),
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// The same for two tiles, so that each load is met twice: the unit takes 16 cycles for a product, and loading from the
/// second-level cache more than half of that. A token's sums are added in the same order.
///
/// # Safety
/// As there, and `out` has the products of two tiles.
unsafe fn two(
    panels: [*const Bf16Panel; 2],
    tiles: [*const Bf16Tile; 2],
    n: usize,
    adds: bool,
    out: *mut Products,
) {
    // SAFETY: as above.
    unsafe {
        asm!(
            "test {adds:e}, {adds:e}",
            "jz 3f",
            "tileloadd tmm0, [{out} + {stride}]",
            "tileloadd tmm1, [{out} + {stride} + 1024]",
            "tileloadd tmm2, [{out} + {stride} + 2048]",
            "tileloadd tmm3, [{out} + {stride} + 3072]",
            "jmp 2f",
            "3:",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tileloadd tmm4, [{x} + {stride}]",
            "tileloadd tmm6, [{a} + {stride}]",
            "tileloadd tmm7, [{b} + {stride}]",
            "tileloadd tmm5, [{y} + {stride}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {x}, 1024",
            "add {y}, 1024",
            "add {a}, 1024",
            "add {b}, 1024",
            "dec {n}",
            "jnz 2b",
            "tilestored [{out} + {stride}], tmm0",
            "tilestored [{out} + {stride} + 1024], tmm1",
            "tilestored [{out} + {stride} + 2048], tmm2",
            "tilestored [{out} + {stride} + 3072], tmm3",
            x = inout(reg) tiles[0] => _,
            y = inout(reg) tiles[1] => _,
            a = inout(reg) panels[0] => _,
            b = inout(reg) panels[1] => _,
            n = inout(reg) n => _,
            adds = in(reg) u32::from(adds),
            stride = in(reg) 64_usize,
            out = in(reg) out,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}
