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
        let n = group.n_blocks;
        assert!(n > 0 && group.panels.len().is_multiple_of(n) && group.tiles.len() == out.len() * n);
        // A panel without a second is multiplied twice: there is one at most, the last of a matrix.
        let (a, b) = (&group.panels[..n], &group.panels[group.panels.len() - n..]);
        let panels = [a.as_ptr(), b.as_ptr()];
        match out {
            // SAFETY: the tiles are set up; both panels and the tile have `n` blocks.
            [out] => unsafe { one(panels, group.tiles.as_ptr(), n, out) },
            // SAFETY: likewise, and both tiles.
            [_, _] => unsafe {
                two(panels, [group.tiles.as_ptr(), group.tiles[n..].as_ptr()], n, out.as_mut_ptr());
            },
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

/// `out[p][t][r] = Σ tile[..][t] · panels[p][..][r]`.
///
/// # Safety
/// Tiles are set up on this thread, and there are `n` of each, one at least.
unsafe fn one(panels: [*const Bf16Panel; 2], tile: *const Bf16Tile, n: usize, out: &mut Products) {
    // SAFETY: as promised, the loads are of `n` times 16 rows of 64 bytes each; the stores are of the 16 rows of each product.
    unsafe {
        asm!(
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
unsafe fn two(panels: [*const Bf16Panel; 2], tiles: [*const Bf16Tile; 2], n: usize, out: *mut Products) {
    // SAFETY: as above.
    unsafe {
        asm!(
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
            stride = in(reg) 64_usize,
            out = in(reg) out,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}
