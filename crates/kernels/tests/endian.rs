//! Big-endian files: which bytes of a block change places.

use metallic_kernels::{GgmlType, Isa, registry};

mod common;
use common::Random;

/// The fields of more than one byte, as (offset, bytes of one, how many), from the structs of ggml's
/// `ggml-common.h`; where ggml declares bytes but reads and writes a wider integer (`qh` of Q5_0 and Q5_1,
/// `qs` of IQ2_XXS, the end of `qs` of IQ3_XXS, `scales` of IQ1_M), that integer.
fn wide_fields(ggml_type: GgmlType) -> &'static [(usize, usize, usize)] {
    match ggml_type {
        GgmlType::F64 | GgmlType::I64 => &[(0, 8, 1)],
        GgmlType::F32 | GgmlType::I32 => &[(0, 4, 1)],
        GgmlType::F16 | GgmlType::BF16 | GgmlType::I16 => &[(0, 2, 1)],
        GgmlType::I8 | GgmlType::MXFP4 | GgmlType::NVFP4 => &[],
        GgmlType::Q1_0 | GgmlType::Q2_0 | GgmlType::Q4_0 | GgmlType::Q8_0 | GgmlType::IQ4_NL => &[(0, 2, 1)],
        GgmlType::Q4_1 | GgmlType::Q8_1 | GgmlType::Q4_K | GgmlType::Q5_K => &[(0, 2, 2)],
        GgmlType::Q5_0 => &[(0, 2, 1), (2, 4, 1)],
        GgmlType::Q5_1 => &[(0, 2, 2), (4, 4, 1)],
        GgmlType::Q2_K => &[(80, 2, 2)],
        GgmlType::Q3_K => &[(108, 2, 1)],
        GgmlType::Q6_K => &[(208, 2, 1)],
        GgmlType::Q8_K => &[(0, 4, 1), (260, 2, 16)],
        GgmlType::IQ1_S => &[(0, 2, 1), (34, 2, 8)],
        GgmlType::IQ1_M => &[(48, 2, 4)],
        GgmlType::IQ2_XXS => &[(0, 2, 1), (2, 4, 16)],
        GgmlType::IQ2_XS => &[(0, 2, 1), (2, 2, 32)],
        GgmlType::IQ2_S | GgmlType::IQ3_S => &[(0, 2, 1)],
        GgmlType::IQ3_XXS => &[(0, 2, 1), (66, 4, 8)],
        GgmlType::IQ4_XS => &[(0, 2, 2)],
        GgmlType::TQ1_0 => &[(52, 2, 1)],
        GgmlType::TQ2_0 => &[(64, 2, 1)],
    }
}

#[test]
fn wide_fields_are_reversed_and_the_rest_stays() {
    for &ggml_type in GgmlType::ALL {
        let row = Random(1).bytes(3 * ggml_type.block_bytes());
        let mut expected = row.clone();
        for block in expected.chunks_exact_mut(ggml_type.block_bytes()) {
            for &(offset, width, count) in wide_fields(ggml_type) {
                block[offset..][..width * count].chunks_exact_mut(width).for_each(<[u8]>::reverse);
            }
        }
        for isa in Isa::available() {
            let swap_bytes = registry::ops(ggml_type, isa).swap_bytes;
            let mut swapped = row.clone();
            swap_bytes(&mut swapped);
            assert_eq!(swapped, expected, "{ggml_type}");
            swap_bytes(&mut swapped);
            assert_eq!(swapped, row, "{ggml_type}, twice");
        }
    }
}
