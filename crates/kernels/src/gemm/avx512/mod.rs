//! Register tiles in AVX-512 with VNNI: two panels by some tokens at a time.
//!
//! Where registers are 512 bits wide in the core, too, loads are what bounds a tile: each load of a token's
//! activations should meet as many weights as there are registers for.

mod columns;
mod floats;
mod quants;

use std::arch::x86_64::*;

use super::{PANELS, Product};
pub(super) use columns::Avx512Rows;
pub(super) use floats::{expand_block as expand_floats, floats};
pub(super) use quants::{expand_block as expand_quants, quants};

/// The products of one kind of numbers.
trait Kernel {
    type Panel;
    type Tile;

    /// Blocks that all tokens meet before the next: those of two panels and a tile stay in the first-level cache.
    const STEP_BLOCKS: usize;
    /// How far blocks are asked for before they are met: not so far that they crowd out those before them.
    const BLOCKS_AHEAD: usize;

    /// Adds the products of some blocks of `P` panels and of `T` tokens to their sums, and returns these.
    ///
    /// # Safety
    /// This CPU has AVX-512 with VNNI.
    unsafe fn add<const P: usize, const T: usize>(
        part: &Part<'_, Self, P>,
        sums: [[__m512; P]; T],
    ) -> [[__m512; P]; T]
    where
        Self: Sized;
}

/// [`Functions::multiply`](super::Functions::multiply), for `AT_ONCE` tokens at a time. A token's result is the same
/// whatever other tokens and panels there are.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn multiply<K: Kernel, const AT_ONCE: usize>(
    panels: &[K::Panel],
    tile: &[K::Tile],
    n: usize,
    out: &mut [Product],
) {
    let (first, second) = panels.split_at(tile.len());
    match out {
        [a] => multiply_panels::<K, 1, AT_ONCE>([first], tile, n, [a]),
        [a, b] => multiply_panels::<K, 2, AT_ONCE>([first, second], tile, n, [a, b]),
        _ => unreachable!("at most {PANELS}"),
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn multiply_panels<K: Kernel, const P: usize, const AT_ONCE: usize>(
    panels: [&[K::Panel]; P],
    tile: &[K::Tile],
    n: usize,
    mut out: [&mut Product; P],
) {
    for step in (0..tile.len()).step_by(K::STEP_BLOCKS) {
        let blocks = step..tile.len().min(step + K::STEP_BLOCKS);
        let (panels, tile) = (panels.map(|panel| &panel[blocks.clone()]), &tile[blocks.clone()]);
        let mut first = 0;
        while first < n {
            let part = Part::<K, P> { panels, tile, first, begins: step == 0 };
            first += match n - first {
                1 | 2 => part.add_to::<2>(&mut out),
                3 | 4 => part.add_to::<4>(&mut out),
                _ => part.add_to::<AT_ONCE>(&mut out),
            };
        }
    }
}

/// Some blocks of panels and of the tokens from `first` on.
struct Part<'a, K: Kernel, const P: usize> {
    panels: [&'a [K::Panel]; P],
    tile: &'a [K::Tile],
    first: usize,
    /// Whether they are the first blocks, and there are no sums yet to add to.
    begins: bool,
}

impl<K: Kernel, const P: usize> Part<'_, K, P> {
    /// Adds to the sums of `T` tokens, and returns how many they are.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    fn add_to<const T: usize>(&self, out: &mut [&mut Product; P]) -> usize {
        let mut sums = [[_mm512_setzero_ps(); P]; T];
        if !self.begins {
            for t in 0..T {
                for p in 0..P {
                    sums[t][p] = load_floats(&out[p][self.first + t]);
                }
            }
        }
        // SAFETY: this CPU has what this is compiled for.
        let sums = unsafe { K::add(self, sums) };
        for t in 0..T {
            for p in 0..P {
                // SAFETY: writes the 16 floats of the reference, at any alignment.
                unsafe { _mm512_storeu_ps(out[p][self.first + t].as_mut_ptr(), sums[t][p]) };
            }
        }
        T
    }

    /// Block `i` of the panels and of the tile. The first tokens to meet it ask for one that comes later.
    #[inline(always)]
    fn block(&self, i: usize) -> ([&K::Panel; P], &K::Tile) {
        let mut panels = [&self.panels[0][i]; P];
        for (block, panel) in panels.iter_mut().zip(self.panels) {
            *block = &panel[i];
        }
        let tile = &self.tile[i];
        if self.first == 0 {
            prefetch(tile, K::BLOCKS_AHEAD);
            panels.iter().for_each(|panel| prefetch(*panel, K::BLOCKS_AHEAD));
        }
        (panels, tile)
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_floats(x: &[f32; 16]) -> __m512 {
    // SAFETY: reads the 16 floats of the reference, at any alignment.
    unsafe { _mm512_loadu_ps(x.as_ptr()) }
}

/// Asks for the lines of the block that comes so many blocks after `block`. Tiles of long rows come from the
/// third-level cache, and each page of memory holds so few blocks that the hardware's look-ahead helps little.
#[inline(always)]
fn prefetch<T>(block: &T, n_blocks: usize) {
    let ahead = std::ptr::from_ref(block).wrapping_add(n_blocks).cast::<i8>();
    for line in 0..size_of::<T>() / 64 {
        // SAFETY: a prefetch of any address is harmless, and every x86-64 has it.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(64 * line)) };
    }
}
