//! One folder a format; this file is the list of them.
//!
//! Beside the formats: [`scalar`] has the operations they share, [`bits`] the layouts, [`codebooks`] the
//! tables of the IQ formats and [`rounding`] the way from floats to integers.

/// Operations of a format with the kernels of its folder, `dot` of the modules named, in place of those that
/// come with it.
macro_rules! with_kernels {
    (@ $ops:ident avx2) => {
        match $ops.isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => QuantOps {
                dot: crate::registry::Dot::Q8(|rows, x, n, out| {
                    // SAFETY: an `Isa::Avx2` proves that this CPU has what the kernel is compiled for.
                    crate::registry::each_row(rows, x, n, out, |row, x, out| unsafe { avx2::dot(row, x, out) });
                }),
                ..$ops
            },
            _ => $ops,
        }
    };
    (@ $ops:ident avx512) => {
        match $ops.isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Amx => QuantOps {
                // SAFETY: both prove that this CPU has what the kernel is compiled for.
                dot: crate::registry::Dot::Q8Groups(|rows, x, n, out| unsafe { avx512::dot(rows, x, n, out) }),
                ..$ops
            },
            _ => $ops,
        }
    };
    (@ $ops:ident neon) => {
        match $ops.isa {
            #[cfg(target_arch = "aarch64")]
            Isa::Neon | Isa::NeonI8mm => QuantOps {
                dot: crate::registry::Dot::Q8(|rows, x, n, out| {
                    // SAFETY: both prove that this CPU has what the kernel is compiled for.
                    crate::registry::each_row(rows, x, n, out, |row, x, out| unsafe { neon::dot(row, x, out) });
                }),
                ..$ops
            },
            _ => $ops,
        }
    };
    ($ops:expr, $($isa:ident),+) => {{
        let ops: QuantOps = $ops;
        $(let ops = with_kernels!(@ ops $isa);)+
        ops
    }};
}

#[cfg(target_arch = "x86_64")]
mod avx2;
mod bits;
mod codebooks;
#[cfg(target_arch = "aarch64")]
mod neon;
mod rounding;
mod scalar;

mod iq1_m;
mod iq1_s;
mod iq2_s;
mod iq2_xs;
mod iq2_xxs;
mod iq3_s;
mod iq3_xxs;
mod iq4_nl;
mod iq4_xs;
mod mxfp4;
mod nvfp4;
mod plain;
mod q1_0;
mod q2_0;
mod q2_k;
mod q3_k;
mod q4_0;
mod q4_1;
mod q4_k;
mod q5_0;
mod q5_1;
mod q5_k;
mod q6_k;
mod q8_0;
mod q8_1;
mod q8_k;
mod tq1_0;
mod tq2_0;

pub(crate) use bits::half;
use half::{bf16, f16};
use metallic_gguf::GgmlType;

use crate::isa::Isa;
use crate::registry::{Codes, QuantOps};

/// What the codes of a format stand for; `None` where weights are numbers.
pub(crate) fn codes(ggml_type: GgmlType) -> Option<Codes> {
    let (weights, per_code) = match ggml_type {
        GgmlType::IQ4_NL | GgmlType::IQ4_XS => (iq4_nl::LEVELS.to_vec(), 1),
        GgmlType::MXFP4 | GgmlType::NVFP4 => (mxfp4::DOUBLED_E2M1.to_vec(), 1),
        _ => codebooks::weights(ggml_type)?,
    };
    Some(Codes { weights, per_code })
}

/// One line a format.
pub(crate) fn ops(ggml_type: GgmlType, isa: Isa) -> QuantOps {
    match ggml_type {
        GgmlType::F32 => plain::ops::<f32, 4>(isa),
        GgmlType::F16 => plain::ops::<f16, 2>(isa),
        GgmlType::Q4_0 => q4_0::ops(isa),
        GgmlType::Q4_1 => q4_1::ops(isa),
        GgmlType::Q5_0 => q5_0::ops(isa),
        GgmlType::Q5_1 => q5_1::ops(isa),
        GgmlType::Q8_0 => q8_0::ops(isa),
        GgmlType::Q8_1 => q8_1::ops(isa),
        GgmlType::Q2_K => q2_k::ops(isa),
        GgmlType::Q3_K => q3_k::ops(isa),
        GgmlType::Q4_K => q4_k::ops(isa),
        GgmlType::Q5_K => q5_k::ops(isa),
        GgmlType::Q6_K => q6_k::ops(isa),
        GgmlType::Q8_K => q8_k::ops(isa),
        GgmlType::IQ2_XXS => iq2_xxs::ops(isa),
        GgmlType::IQ2_XS => iq2_xs::ops(isa),
        GgmlType::IQ3_XXS => iq3_xxs::ops(isa),
        GgmlType::IQ1_S => iq1_s::ops(isa),
        GgmlType::IQ4_NL => iq4_nl::ops(isa),
        GgmlType::IQ3_S => iq3_s::ops(isa),
        GgmlType::IQ2_S => iq2_s::ops(isa),
        GgmlType::IQ4_XS => iq4_xs::ops(isa),
        GgmlType::I8 => plain::ops::<i8, 1>(isa),
        GgmlType::I16 => plain::ops::<i16, 2>(isa),
        GgmlType::I32 => plain::ops::<i32, 4>(isa),
        GgmlType::I64 => plain::ops::<i64, 8>(isa),
        GgmlType::F64 => plain::ops::<f64, 8>(isa),
        GgmlType::IQ1_M => iq1_m::ops(isa),
        GgmlType::BF16 => plain::ops::<bf16, 2>(isa),
        GgmlType::TQ1_0 => tq1_0::ops(isa),
        GgmlType::TQ2_0 => tq2_0::ops(isa),
        GgmlType::MXFP4 => mxfp4::ops(isa),
        GgmlType::NVFP4 => nvfp4::ops(isa),
        GgmlType::Q1_0 => q1_0::ops(isa),
        GgmlType::Q2_0 => q2_0::ops(isa),
    }
}
