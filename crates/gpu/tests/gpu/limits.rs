//! What must be an error that names it, and what must be given back.

use metallic::backend::{Backend, KvLayout, KvType, MatrixBytes, MatrixData};
use metallic::memory::SharedBytes;
use metallic::{Error, GgmlType};
use metallic_gpu::{Choice, Device};

use crate::{gpu, gpu_within};

fn matrix(ggml_type: GgmlType, row_len: usize, n_rows: usize) -> MatrixData {
    let n_bytes = row_len / ggml_type.block_len() * ggml_type.block_bytes() * n_rows;
    let bytes = MatrixBytes::in_memory(SharedBytes::new(vec![0; n_bytes]));
    MatrixData { ggml_type, row_len, n_rows, bytes }
}

#[test]
fn devices_are_listed() {
    for adapter in metallic_gpu::adapters() {
        println!("{adapter}\n  {adapter:?}");
    }
    match Device::open(Choice::Name("no such device")) {
        Err(metallic_gpu::Error::NotOne { n_matches: 0, .. }) => {}
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("a device of that name"),
    }
}

#[test]
fn memory_is_charged_before_it_is_asked_for_and_comes_back() {
    let Some((gpu, vram)) = gpu_within(Some(40 << 20)) else { return };
    let before = vram.used_bytes();
    let buffer = gpu.buffer("a buffer", 1000).unwrap();
    let weights = gpu.matrix(matrix(GgmlType::Q4_0, 64, 10)).unwrap();
    assert_eq!(vram.used_bytes() - before, 4000 + 368, "to 16 bytes");
    match gpu.buffer("too much", 10 << 20) {
        Err(Error::OverBudget { what: "too much", tier: "vram", .. }) => {}
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("more than there is"),
    }
    let part = gpu.matrix_rows(&weights, 2..5);
    drop((buffer, weights));
    assert_eq!(vram.used_bytes() - before, 368, "rows keep their matrix");
    drop(part);
    assert_eq!(vram.used_bytes(), before);
    println!("{:?} reserved for {before} bytes", gpu.device().reserved_bytes());
}

#[test]
fn what_no_kernel_does_is_refused_at_load() {
    let Some(gpu) = gpu() else { return };
    let error = gpu.matrix(matrix(GgmlType::IQ1_S, 256, 1)).err().expect("no kernel for IQ1_S");
    assert!(matches!(error, Error::Backend { .. }), "{error}");
    let layout = KvLayout::new(KvType::Q4_0, 256, 1, 64, 64).unwrap();
    let error = gpu.kv_layer(&layout, 1).err().expect("no kernel for keys as Q4_0");
    assert!(matches!(error, Error::Backend { .. }), "{error}");
}
