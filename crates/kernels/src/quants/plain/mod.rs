//! Plain numbers, one a block: floats and integers of any width, met by float activations.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "aarch64")]
mod neon;

use std::marker::PhantomData;

use half::{bf16, f16};
use metallic_gguf::GgmlType;

use crate::block::{Bytes, FloatBlock};
use crate::gemm::{Column, FloatPanel, Gemm, Rows};
use crate::isa::Isa;
use crate::quants::bits;
use crate::registry::{Dot, Encode, QuantOps, each_row};

/// A number of `N` bytes.
pub(super) trait Number<const N: usize>: Sized + 'static {
    /// The type of a row of them.
    const TYPE: GgmlType;
    /// Makes a row from floats, for the types that models are stored in.
    const ENCODE: Option<Encode> = None;

    /// Row × activations on AVX2: the compiler's own vectorisation, unless there is a better one.
    #[cfg(target_arch = "x86_64")]
    const DOT_AVX2: fn(&[u8], &[f32], &mut [f32]) = |row, x, out| {
        Isa::Avx2.run(
            #[inline(always)]
            || dot::<Self, N>(row, x, out),
        );
    };

    /// Row × activations on NEON, likewise; the baseline of its architecture has it.
    #[cfg(target_arch = "aarch64")]
    const DOT_NEON: fn(&[u8], &[f32], &mut [f32]) = dot::<Self, N>;

    /// GEMM, for the types that models are stored in.
    const GEMM: fn(Isa) -> Option<Gemm> = |_| None;

    /// The nearest float.
    fn to_f32(bytes: [u8; N]) -> f32;
}

impl Number<4> for f32 {
    const TYPE: GgmlType = GgmlType::F32;
    const ENCODE: Option<Encode> = Some(|x, row| encode(x, row, f32::to_le_bytes));
    const GEMM: fn(Isa) -> Option<Gemm> = Gemm::of_floats::<Run<f32, 4>>;
    #[cfg(target_arch = "aarch64")]
    const DOT_NEON: fn(&[u8], &[f32], &mut [f32]) = neon::dot_f32;

    #[inline(always)]
    fn to_f32(bytes: [u8; 4]) -> f32 {
        f32::from_le_bytes(bytes)
    }
}

impl Number<2> for f16 {
    const TYPE: GgmlType = GgmlType::F16;
    const ENCODE: Option<Encode> = Some(|x, row| encode(x, row, |x| f16::from_f32(x).to_le_bytes()));
    const GEMM: fn(Isa) -> Option<Gemm> = Gemm::of_floats::<Run<f16, 2>>;
    #[cfg(target_arch = "x86_64")]
    const DOT_AVX2: fn(&[u8], &[f32], &mut [f32]) = |row, x, out| {
        // SAFETY: only `ops` uses this, where an `Isa::Avx2` proves that this CPU can.
        unsafe { avx2::dot_f16(row, x, out) }
    };
    #[cfg(target_arch = "aarch64")]
    const DOT_NEON: fn(&[u8], &[f32], &mut [f32]) = neon::dot_f16;

    #[inline(always)]
    fn to_f32(bytes: [u8; 2]) -> f32 {
        bits::half(bytes)
    }
}

impl Number<2> for bf16 {
    const TYPE: GgmlType = GgmlType::BF16;
    const ENCODE: Option<Encode> = Some(|x, row| encode(x, row, |x| bf16::from_f32(x).to_le_bytes()));
    const GEMM: fn(Isa) -> Option<Gemm> = Gemm::of_floats::<Run<bf16, 2>>;
    #[cfg(target_arch = "x86_64")]
    const DOT_AVX2: fn(&[u8], &[f32], &mut [f32]) = |row, x, out| {
        // SAFETY: only `ops` uses this, where an `Isa::Avx2` proves that this CPU can.
        unsafe { avx2::dot_bf16(row, x, out) }
    };
    #[cfg(target_arch = "aarch64")]
    const DOT_NEON: fn(&[u8], &[f32], &mut [f32]) = neon::dot_bf16;

    #[inline(always)]
    fn to_f32(bytes: [u8; 2]) -> f32 {
        bf16::from_le_bytes(bytes).to_f32()
    }
}

/// 32 numbers, one beside the other.
#[derive(Clone, Copy)]
#[repr(C)]
struct Run<T, const N: usize> {
    bytes: [[u8; N]; 32],
    number: PhantomData<T>,
}

// SAFETY: an array of bytes: alignment 1, no padding, every bit pattern valid.
unsafe impl<T: Copy + 'static, const N: usize> Bytes for Run<T, N> {}

impl FloatBlock for Run<f32, 4> {
    const DIGITS: u32 = f32::MANTISSA_DIGITS;

    #[inline(always)]
    fn expand<R: Rows<Self>>(rows: &R, panel: &mut FloatPanel) {
        for (i, panel) in panel.0.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            for (panel, column) in panel.iter_mut().zip(rows.columns(16 * i)) {
                R::Column::store_floats(column.float(), panel);
            }
        }
    }
}

impl FloatBlock for Run<f16, 2> {
    const DIGITS: u32 = f16::MANTISSA_DIGITS;

    #[inline(always)]
    fn expand<R: Rows<Self>>(rows: &R, panel: &mut FloatPanel) {
        expand_pairs(rows, panel, |pair| (pair.half(), (pair >> 16).half()));
    }
}

impl FloatBlock for Run<bf16, 2> {
    const DIGITS: u32 = bf16::MANTISSA_DIGITS;

    #[inline(always)]
    fn expand<R: Rows<Self>>(rows: &R, panel: &mut FloatPanel) {
        expand_pairs(rows, panel, |pair| ((pair << 16).float(), (pair & 0xffff_0000).float()));
    }
}

/// Expands numbers of 16 bits, of which a column holds two for each row.
#[inline(always)]
fn expand_pairs<T, R: Rows<Run<T, 2>>>(
    rows: &R,
    panel: &mut FloatPanel,
    widen: impl Fn(R::Column) -> (<R::Column as Column>::Floats, <R::Column as Column>::Floats),
) {
    for (i, panel) in panel.0.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        for (panel, pair) in panel.as_chunks_mut::<2>().0.iter_mut().zip(rows.columns(16 * i)) {
            let (first, second) = widen(pair);
            R::Column::store_floats(first, &mut panel[0]);
            R::Column::store_floats(second, &mut panel[1]);
        }
    }
}

macro_rules! numbers {
    ($($number:ty, $bytes:literal, $ggml_type:ident;)*) => {$(
        impl Number<$bytes> for $number {
            const TYPE: GgmlType = GgmlType::$ggml_type;

            #[inline(always)]
            fn to_f32(bytes: [u8; $bytes]) -> f32 {
                <$number>::from_le_bytes(bytes) as f32
            }
        }
    )*};
}

numbers! {
    f64, 8, F64;
    i8, 1, I8;
    i16, 2, I16;
    i32, 4, I32;
    i64, 8, I64;
}

pub(super) fn ops<T: Number<N>, const N: usize>(isa: Isa) -> QuantOps {
    const { assert!(N == T::TYPE.block_bytes()) };
    let scalar = QuantOps {
        ggml_type: T::TYPE,
        isa: Isa::Scalar,
        decode: decode::<T, N>,
        encode: T::ENCODE,
        swap_bytes: |row| row.as_chunks_mut::<N>().0.iter_mut().for_each(|number| number.reverse()),
        dot: Dot::F32(|rows, x, n, out| each_row(rows, x, n, out, dot::<T, N>)),
        gemm: None,
    };
    match isa {
        Isa::Scalar => scalar,
        #[cfg(target_arch = "aarch64")]
        Isa::Neon | Isa::NeonI8mm => {
            let dot = Dot::F32(|rows, x, n, out| each_row(rows, x, n, out, T::DOT_NEON));
            QuantOps { isa, dot, gemm: (T::GEMM)(isa), ..scalar }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 | Isa::Avx512 | Isa::Amx => {
            let dot = Dot::F32(|rows, x, n, out| each_row(rows, x, n, out, T::DOT_AVX2));
            QuantOps { isa, dot, gemm: (T::GEMM)(isa), ..scalar }
        }
    }
}

fn decode<T: Number<N>, const N: usize>(row: &[u8], out: &mut [f32]) {
    assert_eq!(row.len(), out.len() * N, "output length is the row's length");
    for (number, out) in row.as_chunks::<N>().0.iter().zip(out) {
        *out = T::to_f32(*number);
    }
}

fn encode<const N: usize>(x: &[f32], row: &mut [u8], to_bytes: impl Fn(f32) -> [u8; N]) {
    assert_eq!(row.len(), x.len() * N, "input length is the row's length");
    for (number, x) in row.as_chunks_mut::<N>().0.iter_mut().zip(x) {
        *number = to_bytes(*x);
    }
}

/// Sums kept apart, so that they can share a vector register and their rounding errors stay small.
const LANES: usize = 16;

/// Each token by itself: a row of plain numbers is short enough to stay in the cache, and takes little unpacking.
#[inline(always)]
fn dot<T: Number<N>, const N: usize>(row: &[u8], x: &[f32], out: &mut [f32]) {
    let row_len = row.len() / N;
    assert_eq!(x.len(), out.len() * row_len, "one activation for every weight");
    let (row, row_rest) = row.as_chunks::<N>().0.as_chunks::<LANES>();
    for (x, out) in x.chunks_exact(row_len).zip(out) {
        let (x, x_rest) = x.as_chunks::<LANES>();
        let mut sums = [0.0; LANES];
        for (row, x) in row.iter().zip(x) {
            for (sum, (number, x)) in sums.iter_mut().zip(row.iter().zip(x)) {
                *sum += T::to_f32(*number) * x;
            }
        }
        for (sum, (number, x)) in sums.iter_mut().zip(row_rest.iter().zip(x_rest)) {
            *sum += T::to_f32(*number) * x;
        }
        *out = sums.iter().sum();
    }
}
