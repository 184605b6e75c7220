//! The plain numbers that keys and values are kept as, and how each instruction set widens them.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// A number of a KV cache.
pub(super) trait Element: Copy + Default + 'static {
    /// Bytes of a number.
    const BYTES: usize = size_of::<Self>();

    /// Its value.
    fn to_f32(self) -> f32;
    /// Rounds each to the nearest number.
    fn round(x: &[f32], out: &mut [Self]);
    /// Its bytes in memory.
    fn write(self, to: &mut [u8]);

    /// Eight numbers as floats.
    ///
    /// # Safety
    /// There are 8 numbers at `from`, at any alignment, and the CPU has AVX2 and F16C.
    #[cfg(target_arch = "x86_64")]
    unsafe fn load_256(from: *const u8) -> __m256;

    /// The numbers whose bit is set as floats, in the other lanes 0.
    ///
    /// # Safety
    /// Those numbers are at `from`, at any alignment, and the CPU has AVX-512 with BW and VL.
    #[cfg(target_arch = "x86_64")]
    unsafe fn load_512(from: *const u8, lanes: __mmask16) -> __m512;
}

// SAFETY (of all the loads below): the caller promises the numbers and the instructions.

impl Element for f32 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }

    #[inline(always)]
    fn round(x: &[f32], out: &mut [f32]) {
        out.copy_from_slice(x);
    }

    #[inline(always)]
    fn write(self, to: &mut [u8]) {
        to.copy_from_slice(&self.to_ne_bytes());
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load_256(from: *const u8) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_loadu_ps(from.cast()) }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load_512(from: *const u8, lanes: __mmask16) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_maskz_loadu_ps(lanes, from.cast()) }
    }
}

impl Element for f16 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self.to_f32()
    }

    #[inline(always)]
    fn round(x: &[f32], out: &mut [f16]) {
        out.convert_from_f32_slice(x);
    }

    #[inline(always)]
    fn write(self, to: &mut [u8]) {
        to.copy_from_slice(&self.to_ne_bytes());
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load_256(from: *const u8) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load_512(from: *const u8, lanes: __mmask16) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(lanes, from.cast())) }
    }
}

impl Element for bf16 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self.to_f32()
    }

    #[inline(always)]
    fn round(x: &[f32], out: &mut [bf16]) {
        out.convert_from_f32_slice(x);
    }

    #[inline(always)]
    fn write(self, to: &mut [u8]) {
        to.copy_from_slice(&self.to_ne_bytes());
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load_256(from: *const u8) -> __m256 {
        // SAFETY: as above.
        unsafe {
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load_512(from: *const u8, lanes: __mmask16) -> __m512 {
        // SAFETY: as above.
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, from.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
    }
}
