//! F32: plain floats.

use metallic_gguf::GgmlType;

use crate::isa::Isa;
use crate::registry::{Dot, QuantOps};

fn decode(row: &[u8], out: &mut [f32]) {
    let row = row.as_chunks::<4>().0;
    assert_eq!(row.len(), out.len(), "output length is the row's length");
    for (bytes, out) in row.iter().zip(out) {
        *out = f32::from_le_bytes(*bytes);
    }
}

fn dot(row: &[u8], x: &[f32]) -> f32 {
    row.as_chunks::<4>().0.iter().zip(x).map(|(w, x)| f32::from_le_bytes(*w) * x).sum()
}

pub(super) fn ops(_isa: Isa) -> QuantOps {
    QuantOps {
        ggml_type: GgmlType::F32,
        isa: Isa::Scalar,
        decode,
        encode: None,
        swap_bytes: |row| row.as_chunks_mut::<4>().0.iter_mut().for_each(|w| w.reverse()),
        dot: Dot::F32(dot),
    }
}
