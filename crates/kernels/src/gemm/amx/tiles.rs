//! The unit that multiplies tiles (AMX): its registers are eight tiles of 16 rows of 64 bytes.

use std::arch::asm;
use std::marker::PhantomData;

use super::super::Product;
use super::super::numbers::{Bf16Panel, Bf16Tile};
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

    /// Products of one or two panels with a tile of tokens.
    pub(super) fn multiply(&self, panels: &[Bf16Panel], tile: &[Bf16Tile], out: &mut [Product]) {
        let (first, second) = panels.split_at(tile.len());
        assert!(panels.len() == out.len() * tile.len(), "as many panels as products");
        match out {
            // SAFETY: the tiles are set up; each panel is as long as the tile.
            [a] => unsafe { one(first.as_ptr(), tile.as_ptr(), tile.len(), a) },
            // SAFETY: likewise.
            [a, b] => unsafe { two([first.as_ptr(), second.as_ptr()], tile.as_ptr(), tile.len(), [a, b]) },
            _ => unreachable!("at most two panels"),
        }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: they were set up on this thread, which this can't leave.
        unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) };
    }
}

/// `out[t][r] = Σ tile[..][t] · panel[..][r]`.
///
/// # Safety
/// Tiles are set up on this thread, and there are `n` of both.
unsafe fn one(panel: *const Bf16Panel, tile: *const Bf16Tile, n: usize, out: &mut Product) {
    if n == 0 {
        return *out = Product::default();
    }
    // SAFETY: as promised, the loads are of `n` times 16 rows of 64 bytes each; the store is of the product's 16 rows.
    unsafe {
        asm!(
            "tilezero tmm0",
            "2:",
            "tileloadd tmm2, [{tile} + {stride}]",
            "tileloadd tmm3, [{panel} + {stride}]",
            "tdpbf16ps tmm0, tmm2, tmm3",
            "add {tile}, 1024",
            "add {panel}, 1024",
            "dec {n}",
            "jnz 2b",
            "tilestored [{out} + {stride}], tmm0",
            tile = inout(reg) tile => _,
            panel = inout(reg) panel => _,
            n = inout(reg) n => _,
            stride = in(reg) 64_usize,
            out = in(reg) out.as_mut_ptr(),
            out("tmm0") _, out("tmm2") _, out("tmm3") _,
            options(nostack),
        );
    }
}

/// The same for two panels, which share each load of tokens.
///
/// # Safety
/// As there.
unsafe fn two(panels: [*const Bf16Panel; 2], tile: *const Bf16Tile, n: usize, out: [&mut Product; 2]) {
    let [first, second] = out;
    if n == 0 {
        *first = Product::default();
        return *second = Product::default();
    }
    // SAFETY: as above.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "2:",
            "tileloadd tmm2, [{tile} + {stride}]",
            "tileloadd tmm3, [{a} + {stride}]",
            "tdpbf16ps tmm0, tmm2, tmm3",
            "tileloadd tmm4, [{b} + {stride}]",
            "tdpbf16ps tmm1, tmm2, tmm4",
            "add {tile}, 1024",
            "add {a}, 1024",
            "add {b}, 1024",
            "dec {n}",
            "jnz 2b",
            "tilestored [{out_a} + {stride}], tmm0",
            "tilestored [{out_b} + {stride}], tmm1",
            tile = inout(reg) tile => _,
            a = inout(reg) panels[0] => _,
            b = inout(reg) panels[1] => _,
            n = inout(reg) n => _,
            stride = in(reg) 64_usize,
            out_a = in(reg) first.as_mut_ptr(),
            out_b = in(reg) second.as_mut_ptr(),
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm4") _,
            options(nostack),
        );
    }
}
