//! The unit that multiplies tiles (AMX): its registers are eight tiles of up to 16 rows of 64 bytes.

use std::arch::asm;
use std::arch::x86_64::*;
use std::marker::PhantomData;
use std::mem::transmute;

use crate::isa::Isa;

/// Rows of a tile.
pub(crate) const ROWS: usize = 16;

/// Bytes of a row: 16 floats, or 16 pairs of bfloat16.
pub(crate) const ROW_BYTES: usize = 64;

/// Tiles that are set up on this thread, until it is dropped: what tile registers hold is the thread's own.
pub(crate) struct Tiles {
    /// Pairs and columns.
    shape: [usize; 2],
    thread: PhantomData<*const ()>,
}

/// What LDTILECFG reads (Intel's Architecture Instruction Set Extensions, chapter 3).
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

const _: () = assert!(size_of::<Configuration>() == 64);

/// A matrix of bfloat16, or two that are multiplied together: the left one row by row, the right one by pairs of rows.
#[derive(Clone, Copy)]
pub(crate) struct Operand {
    pub(crate) start: *const u8,
    /// Bytes from a row of a tile to the next.
    pub(crate) stride: usize,
    /// Bytes from a tile to the one that is multiplied next, of the same rows or columns of the result.
    pub(crate) step: usize,
    /// Bytes from a tile to that of the second.
    pub(crate) second: usize,
}

/// Two times two tiles of results.
#[derive(Clone, Copy)]
pub(crate) struct Sums {
    pub(crate) start: *mut f32,
    /// Bytes from a row of a tile to the next.
    pub(crate) stride: usize,
    /// Bytes to the tile of the second right operand.
    pub(crate) right: usize,
    /// Bytes to that of the second left operand.
    pub(crate) below: usize,
}

/// An instruction of the unit. All tiles are named as written to, and nothing but such instructions uses any: what one leaves in
/// a tile is there for the next.
macro_rules! instruction {
    ($code:literal $($operands:tt)*) => {
        asm!(
            $code
            $($operands)*,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack, preserves_flags),
        )
    };
}

impl Tiles {
    /// Sets up whole ones: operands have 16 pairs in common, and the right ones 16 columns.
    ///
    /// # Panics
    /// If `isa` has none.
    pub(crate) fn new(isa: Isa) -> Self {
        assert!(isa == Isa::Amx, "{isa} has no tiles");
        let tiles = Tiles { shape: [ROWS; 2], thread: PhantomData };
        tiles.configure();
        tiles
    }

    /// Sets up operands that have `pairs` pairs of bfloat16 in common, and `columns` columns on the right. What tiles hold is lost.
    ///
    /// # Panics
    /// If a number is not between 1 and 16.
    pub(crate) fn shape(&mut self, pairs: usize, columns: usize) {
        let shape = [pairs, columns];
        assert!(shape.iter().all(|n| (1..=ROWS).contains(n)), "tiles of up to 16 rows");
        if self.shape != shape {
            self.shape = shape;
            self.configure();
        }
    }

    fn configure(&self) {
        let [pairs, columns] = self.shape;
        let (left, right, n) = ((4 * pairs) as u16, (4 * columns) as u16, pairs as u8);
        let configuration = Configuration {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            row_bytes: [right, right, right, right, left, left, right, right, 0, 0, 0, 0, 0, 0, 0, 0],
            rows: [16, 16, 16, 16, 16, 16, n, n, 0, 0, 0, 0, 0, 0, 0, 0],
        };
        // SAFETY: `new` asked for an `Isa::Amx`, which proves that the CPU has tiles and that this process may use them; the
        // instruction reads the 64 bytes.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &raw const configuration, options(nostack, preserves_flags))
        };
    }

    /// The products of `n` tiles of two left operands (one, where not `TWO`) and two right ones, added to what is at `from`, or to
    /// zero. Those of one side pass by the first-level cache, where the others stay: the left ones, where `LEFT_PASSES`. What is to
    /// be done `meanwhile` is called before each of the `n`, and uses no tiles.
    ///
    /// # Safety
    /// All tiles are memory to read, and those at `to` to write, as large as they were set up.
    #[inline(always)]
    pub(crate) unsafe fn product<const TWO: bool, const LEFT_PASSES: bool>(
        &self,
        n: usize,
        mut left: Operand,
        mut right: Operand,
        from: Option<Sums>,
        to: Sums,
        mut meanwhile: impl FnMut(usize),
    ) {
        // SAFETY: the tiles are set up, and the caller promises the memory.
        unsafe {
            if let Some(from) = from {
                Self::load_passing::<0>(from.start.cast(), from.stride);
                Self::load_passing::<1>(from.start.byte_add(from.right).cast(), from.stride);
                if TWO {
                    Self::load_passing::<2>(from.start.byte_add(from.below).cast(), from.stride);
                    Self::load_passing::<3>(from.start.byte_add(from.below + from.right).cast(), from.stride);
                }
            } else {
                instruction!("tilezero tmm0");
                instruction!("tilezero tmm1");
                instruction!("tilezero tmm2");
                instruction!("tilezero tmm3");
            }
            for i in 0..n {
                meanwhile(i);
                let load_left = |second| {
                    let from = left.start.wrapping_add(if second { left.second } else { 0 });
                    match (second, LEFT_PASSES) {
                        (false, false) => Self::load::<4>(from, left.stride),
                        (false, true) => Self::load_passing::<4>(from, left.stride),
                        (true, false) => Self::load::<5>(from, left.stride),
                        (true, true) => Self::load_passing::<5>(from, left.stride),
                    }
                };
                load_left(false);
                let second = right.start.wrapping_add(right.second);
                if LEFT_PASSES {
                    Self::load::<6>(right.start, right.stride);
                    Self::load::<7>(second, right.stride);
                } else {
                    Self::load_passing::<6>(right.start, right.stride);
                    Self::load_passing::<7>(second, right.stride);
                }
                if TWO {
                    load_left(true);
                }
                instruction!("tdpbf16ps tmm0, tmm4, tmm6");
                instruction!("tdpbf16ps tmm1, tmm4, tmm7");
                if TWO {
                    instruction!("tdpbf16ps tmm2, tmm5, tmm6");
                    instruction!("tdpbf16ps tmm3, tmm5, tmm7");
                }
                left.start = left.start.wrapping_add(left.step);
                right.start = right.start.wrapping_add(right.step);
            }
            Self::store::<0>(to.start, to.stride);
            Self::store::<1>(to.start.byte_add(to.right), to.stride);
            if TWO {
                Self::store::<2>(to.start.byte_add(to.below), to.stride);
                Self::store::<3>(to.start.byte_add(to.below + to.right), to.stride);
            }
        }
    }

    #[inline(always)]
    unsafe fn load<const TILE: u8>(from: *const u8, stride: usize) {
        // SAFETY: the caller's.
        unsafe {
            instruction!("tileloadd tmm{tile}, [{from} + {stride}]", tile = const TILE, from = in(reg) from, stride = in(reg) stride);
        }
    }

    /// The same with the hint that the memory is not loaded again soon.
    #[inline(always)]
    unsafe fn load_passing<const TILE: u8>(from: *const u8, stride: usize) {
        // SAFETY: the caller's.
        unsafe {
            instruction!("tileloaddt1 tmm{tile}, [{from} + {stride}]", tile = const TILE, from = in(reg) from, stride = in(reg) stride);
        }
    }

    #[inline(always)]
    unsafe fn store<const TILE: u8>(to: *mut f32, stride: usize) {
        // SAFETY: the caller's.
        unsafe {
            instruction!("tilestored [{to} + {stride}], tmm{tile}", tile = const TILE, to = in(reg) to, stride = in(reg) stride);
        }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: they were set up on this thread, which this can't leave.
        unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) };
    }
}

/// Rounds 32 floats to a row of a tile.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
pub(crate) fn store_rounded(low: __m512, high: __m512, to: &mut [u16; 32]) {
    let rounded = _mm512_cvtne2ps_pbh(high, low);
    // SAFETY: writes the 64 bytes of the reference; the types have the same bits.
    unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), transmute::<__m512bh, __m512i>(rounded)) };
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn load(x: &[f32; 16]) -> __m512 {
    // SAFETY: reads the 16 floats of the reference, at any alignment.
    unsafe { _mm512_loadu_ps(x.as_ptr()) }
}
