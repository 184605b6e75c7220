//! What keys and values are kept as, and how each instruction set brings it to the lanes of a register.
//!
//! Plain numbers become floats. Bfloat16 comes in pairs that stay as they are, two numbers a lane, for there
//! are instructions that multiply pairs: then queries and weights are rounded to bfloat16 too, and two
//! columns of keys, or the values of two positions, are added in one step.

#[cfg(target_arch = "aarch64")]
use std::arch::aarch64::*;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// What becomes one lane of a register.
pub(super) trait Element: Copy + Default + 'static {
    /// Its bytes.
    const BYTES: usize = size_of::<Self>();
    /// Numbers in it.
    const NUMBERS: usize;

    /// A lane: a float, or the bits of a pair.
    fn lane(self) -> f32;
    /// Rounds floats to the nearest numbers, as many as an element has to each; missing ones are 0.
    fn round(x: &[f32], out: &mut [Self]);
    /// Its bytes in memory.
    fn write(self, to: &mut [u8]);

    /// Eight elements as lanes.
    ///
    /// # Safety
    /// There are 8 elements at `from`, at any alignment, and the CPU has AVX2 and F16C.
    #[cfg(target_arch = "x86_64")]
    unsafe fn load_256(from: *const u8) -> __m256;

    /// The elements whose bit is set as lanes, the others as 0.
    ///
    /// # Safety
    /// Those elements are at `from`, at any alignment, and the CPU has AVX-512 with BW and VL.
    #[cfg(target_arch = "x86_64")]
    unsafe fn load_512(from: *const u8, lanes: __mmask16) -> __m512;

    /// Eight elements as lanes.
    ///
    /// # Safety
    /// There are 8 elements at `from`, at any alignment.
    #[cfg(target_arch = "aarch64")]
    unsafe fn load_neon(from: *const u8) -> [float32x4_t; 2];
}

// SAFETY (of all the loads below): the caller promises the elements and the instructions.

impl Element for f32 {
    const NUMBERS: usize = 1;

    #[inline(always)]
    fn lane(self) -> f32 {
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

    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    unsafe fn load_neon(from: *const u8) -> [float32x4_t; 2] {
        // SAFETY: as above.
        unsafe { [vreinterpretq_f32_u8(vld1q_u8(from)), vreinterpretq_f32_u8(vld1q_u8(from.add(16)))] }
    }
}

impl Element for f16 {
    const NUMBERS: usize = 1;

    #[inline(always)]
    fn lane(self) -> f32 {
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

    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    unsafe fn load_neon(from: *const u8) -> [float32x4_t; 2] {
        // SAFETY: as above.
        unsafe {
            let x = vreinterpretq_f16_u8(vld1q_u8(from));
            [vcvt_f32_f16(vget_low_f16(x)), vcvt_high_f32_f16(x)]
        }
    }
}

/// `bf16::from_f32` without its branches, which loops can't be vectorised with.
#[inline(always)]
pub(super) fn nearest(x: f32) -> bf16 {
    let bits = x.to_bits();
    // To the nearest, to the even of two; a number that is none stays so.
    let rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    bf16::from_bits(if x.is_nan() { bits >> 16 | 0x40 } else { rounded } as u16)
}

/// Two bfloat16.
impl Element for [bf16; 2] {
    const NUMBERS: usize = 2;

    #[inline(always)]
    fn lane(self) -> f32 {
        f32::from_bits(u32::from(self[0].to_bits()) | u32::from(self[1].to_bits()) << 16)
    }

    #[inline(always)]
    fn round(x: &[f32], out: &mut [[bf16; 2]]) {
        let (pairs, rest) = x.as_chunks::<2>();
        for (out, x) in out.iter_mut().zip(pairs) {
            *out = x.map(nearest);
        }
        if let ([x], [.., out]) = (rest, out) {
            *out = [nearest(*x), bf16::ZERO];
        }
    }

    #[inline(always)]
    fn write(self, to: &mut [u8]) {
        to.copy_from_slice(&self.lane().to_ne_bytes());
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load_256(from: *const u8) -> __m256 {
        // SAFETY: as above.
        unsafe { f32::load_256(from) }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load_512(from: *const u8, lanes: __mmask16) -> __m512 {
        // SAFETY: as above.
        unsafe { f32::load_512(from, lanes) }
    }

    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    unsafe fn load_neon(from: *const u8) -> [float32x4_t; 2] {
        // SAFETY: as above.
        unsafe { f32::load_neon(from) }
    }
}
