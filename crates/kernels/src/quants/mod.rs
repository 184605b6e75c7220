//! One folder a format; this file is the list of them.

mod bits;
mod plain;
mod q4_0;
mod q4_1;
mod q4_k;
mod q5_0;
mod q6_k;
mod q8_0;
mod rounding;
mod scalar;

use half::f16;
use metallic_gguf::GgmlType;

use crate::isa::Isa;
use crate::registry::QuantOps;

/// One line a format.
pub(crate) fn ops(ggml_type: GgmlType, isa: Isa) -> QuantOps {
    match ggml_type {
        GgmlType::F32 => plain::ops::<f32, 4>(isa),
        GgmlType::F16 => plain::ops::<f16, 2>(isa),
        GgmlType::Q4_0 => q4_0::ops(isa),
        GgmlType::Q4_1 => q4_1::ops(isa),
        GgmlType::Q5_0 => q5_0::ops(isa),
        GgmlType::Q8_0 => q8_0::ops(isa),
        GgmlType::Q4_K => q4_k::ops(isa),
        GgmlType::Q6_K => q6_k::ops(isa),
        _ => unimplemented!(),
    }
}
