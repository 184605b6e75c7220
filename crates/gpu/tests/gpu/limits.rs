//! What must be an error that names it, and what must be given back.

use metallic::backend::{Backend, Input, KvLayout, KvType, MatmulJob, Tokens};
use metallic::memory::{MatrixBytes, MatrixData, SharedBytes};
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
    let Some((mut gpu, vram)) = gpu_within(Some(40 << 20)) else { return };
    let before = vram.used_bytes();
    let buffer = gpu.buffer("a buffer", 1000).unwrap();
    let weights = gpu.matrix(matrix(GgmlType::Q4_0, 64, 10)).unwrap();
    assert_eq!(vram.used_bytes() - before, 4000 + 360);
    match gpu.buffer("too much", 10 << 20) {
        Err(Error::OverBudget { what: "too much", tier: "vram", .. }) => {}
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("more than there is"),
    }
    let part = gpu.matrix_rows(&weights, 2..5);
    // Uploads hold what they are to be copied to.
    gpu.read(&buffer, 0, &mut [0.0; 1000]).unwrap();
    drop((buffer, weights));
    assert_eq!(vram.used_bytes() - before, 360, "rows keep their matrix");
    drop(part);
    assert_eq!(vram.used_bytes(), before);
    println!("{:?} reserved for {before} bytes", gpu.device().reserved_bytes());
}

/// More rows than a dimension of a dispatch has groups, and where the device binds no more than 128 MiB, two buffers.
#[test]
fn a_matrix_may_be_larger_than_what_the_device_binds() {
    const ROW_LEN: usize = 512;
    const N_ROWS: usize = 70_000;
    const MARKED: [usize; 5] = [0, 1, 65_535, 65_536, N_ROWS - 1];
    // So small that sums are exact in any order.
    let mark = |row: usize| (row % 1000 + 1) as f32;
    let Some(mut gpu) = gpu() else { return };
    let mut bytes = vec![0; 4 * ROW_LEN * N_ROWS];
    for row in MARKED {
        let weight = mark(row).to_le_bytes();
        bytes[4 * ROW_LEN * row..][..4 * ROW_LEN]
            .chunks_exact_mut(4)
            .for_each(|at| at.copy_from_slice(&weight));
    }
    let bytes = MatrixBytes::in_memory(SharedBytes::new(bytes));
    let data = MatrixData { ggml_type: GgmlType::F32, row_len: ROW_LEN, n_rows: N_ROWS, bytes };
    let matrix = gpu.matrix(data).unwrap();
    let mut x = gpu.buffer("x", 2 * ROW_LEN).unwrap();
    gpu.write(&[1.0; 2 * ROW_LEN], &mut x).unwrap();
    let mut out = gpu.buffer("out", 2 * N_ROWS).unwrap();
    let mut jobs = [MatmulJob::new(&matrix, &mut out)];
    gpu.matmul(&Input::Rows(&x), Tokens { gemv: 1, gemm: 1 }, &mut jobs).unwrap();
    let mut found = vec![0.0; 2 * N_ROWS];
    gpu.read(&out, 0, &mut found).unwrap();
    for (i, found) in found.iter().enumerate() {
        let row = i % N_ROWS;
        let expected = if MARKED.contains(&row) { mark(row) * ROW_LEN as f32 } else { 0.0 };
        assert_eq!(*found, expected, "row {row}");
    }
    let mut rows = gpu.buffer("rows", MARKED.len() * ROW_LEN).unwrap();
    gpu.embed(&matrix, &MARKED.map(|row| row as u32), 1.0, &mut rows).unwrap();
    let mut found = vec![0.0; MARKED.len() * ROW_LEN];
    gpu.read(&rows, 0, &mut found).unwrap();
    for (row, found) in MARKED.iter().zip(found.chunks_exact(ROW_LEN)) {
        assert!(found.iter().all(|x| *x == mark(*row)), "row {row}");
    }
}

/// What is written to be read by an operation is not written over by the next, nor by what is submitted before its end.
#[test]
fn many_operations_in_many_submissions_keep_their_notes() {
    let Some(mut gpu) = gpu() else { return };
    let counters = gpu.counters();
    let mut x = gpu.buffer("x", 4).unwrap();
    gpu.write(&[1.0, 2.0, 3.0, 4.0], &mut x).unwrap();
    let mut sum = gpu.buffer("a sum", 1).unwrap();
    let mut expected = 0.0;
    for i in 0..700_u32 {
        let (from, weight) = (i * 7 % 4, (i % 11) as f32);
        let mut row = gpu.buffer("a row", 1).unwrap();
        gpu.gather_rows(&x, &[from], 1, &mut row);
        gpu.add(&mut sum, &row, weight, 1);
        expected += weight * (from as f32 + 1.0);
    }
    let mut found = [0.0];
    gpu.read(&sum, 0, &mut found).unwrap();
    println!("{:?}", counters.stats());
    assert_eq!(found, [expected]);
}

/// The operation that may not fail keeps its error for the one that may.
#[test]
fn an_error_waits_for_a_call_that_returns_it() {
    let Some(mut gpu) = gpu() else { return };
    let matrix = gpu.matrix(matrix(GgmlType::F32, 4, 2)).unwrap();
    let x = gpu.buffer("x", 4).unwrap();
    // More rows than an operation can be told.
    let rows = vec![0; (1 << 20) + 1];
    let mut out = gpu.buffer("out", rows.len()).unwrap();
    gpu.gather_rows(&x, &rows, 1, &mut out);
    gpu.clear(&mut out, 4);
    let error = gpu.read(&out, 0, &mut [0.0; 4]).unwrap_err();
    assert!(matches!(error, Error::Backend { .. }), "{error}");
    gpu.embed(&matrix, &[0], 1.0, &mut out).unwrap();
}

#[test]
fn what_no_kernel_does_is_refused_at_load() {
    let Some(gpu) = gpu() else { return };
    let error = gpu.matrix(matrix(GgmlType::Q8_K, 256, 1)).err().expect("no kernel for Q8_K");
    assert!(matches!(error, Error::Backend { .. }), "{error}");
    let layout = KvLayout::new(KvType::Q4_0, 256, 1, 64, 64).unwrap();
    let error = gpu.kv_layer(&layout, 1).err().expect("no kernel for keys as Q4_0");
    assert!(matches!(error, Error::Backend { .. }), "{error}");
}
