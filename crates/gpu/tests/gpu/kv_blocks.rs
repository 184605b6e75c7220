//! Keys and values as Q8_0: what is stored against what the CPU's encoder makes of it, and attention against the CPU's over
//! floats that were encoded and decoded there. (Over blocks the CPU rounds queries as well, so it is no measure.)

use metallic::backend::{AttentionParams, AttentionShape, Backend, Cpu, KvLayout, KvType, Span};
use metallic::{GgmlType, Isa};
use metallic_kernels::registry;

use crate::conformance::{MAX_NMSE, buffer, random, values};
use crate::{gpu, nmse};

const BLOCK_LEN: usize = 32;
const PAGE_LEN: usize = 128;

/// Positions of the longer of two sequences.
const N: usize = 300;

/// Rows of both: the shorter has the last ones.
const N_ROWS: usize = N + 33;

/// Lengths of heads of keys and of values.
const LENGTHS: [[usize; 2]; 8] =
    [[32, 64], [64, 32], [64, 64], [80, 80], [96, 96], [128, 128], [256, 256], [23, 33]];

const N_HEAD_KV: usize = 2;

/// How many rows go in a pass: odd beginnings and ends, single ones, and pages that are crossed.
const PIECES: [usize; 9] = [1, 1, 3, 122, 4, 1, 130, 7, 31];

/// Rows as the CPU encodes and decodes them, each head filled up with zeros to whole blocks.
fn rounded(rows: &[f32], head_len: usize) -> Vec<f32> {
    let ops = registry::ops(GgmlType::Q8_0, Isa::Scalar);
    let encode = ops.encode.expect("a type that can be made");
    let padded_len = head_len.next_multiple_of(BLOCK_LEN);
    let mut blocks = vec![0; padded_len / BLOCK_LEN * GgmlType::Q8_0.block_bytes()];
    let heads = rows.chunks_exact(head_len).flat_map(|head| {
        let mut padded = head.to_vec();
        padded.resize(padded_len, 0.0);
        encode(&padded, &mut blocks);
        (ops.decode)(&blocks, &mut padded);
        padded.truncate(head_len);
        padded
    });
    heads.collect()
}

/// Attention over two sequences that were stored in pieces, taking turns.
fn attend<B: Backend>(
    backend: &mut B,
    kv_type: KvType,
    shape: AttentionShape,
    keys: &[f32],
    rows: &[f32],
) -> Vec<f32> {
    let AttentionShape { n_head, key_length, value_length, .. } = shape;
    let layout = KvLayout::new(kv_type, PAGE_LEN, N_HEAD_KV, key_length, value_length).unwrap();
    let mut kv = backend.kv_layer(&layout, 5).unwrap();
    backend.reserve_attention(&[(n_head, layout)], N).unwrap();
    let (keys, rows) = (buffer(backend, keys), buffer(backend, rows));
    let queries = buffer(backend, &random(30, N_ROWS * n_head * key_length));
    let mut out = backend.buffer("attention", N_ROWS * n_head * value_length).unwrap();
    let long =
        |start, n_rows| Span { first_row: start, n_rows, start, pages: &[4, 1, 2], slot: 0, in_tiles: false };
    let short =
        |start, n_rows| Span { first_row: N + start, n_rows, start, pages: &[3], slot: 1, in_tiles: false };
    let (mut start, mut start_of_short) = (0, 0);
    for n_rows in PIECES {
        backend.store_kv(&mut kv, &long(start, n_rows), &keys, &rows);
        start += n_rows;
        let n_rows = n_rows.min(N_ROWS - N - start_of_short);
        backend.store_kv(&mut kv, &short(start_of_short, n_rows), &keys, &rows);
        start_of_short += n_rows;
    }
    assert_eq!([start, start_of_short], [N, N_ROWS - N]);
    let params = AttentionParams { shape, sinks: None };
    for span in [long(0, N), short(0, N_ROWS - N)] {
        backend.attention(&params, &kv, &span, &queries, &mut out);
    }
    values(backend, &out, N_ROWS * n_head * value_length)
}

fn shape([key_length, value_length]: [usize; 2], n_head: usize, window: Option<usize>) -> AttentionShape {
    AttentionShape { n_head, key_length, value_length, scale: 0.7, window, softcap: None, alibi: None }
}

/// Ordinary numbers, and rows of those that rounding is hard for: halves, where the scale is 1; zeros; scales that are no
/// normal number in half precision, too small for one, and large.
fn hard(seed: u32, head_len: usize) -> Vec<f32> {
    let mut rows = random(seed, N_ROWS * N_HEAD_KV * head_len);
    for (i, head) in rows.chunks_exact_mut(head_len).enumerate() {
        match i % 9 {
            1 => {
                for (j, x) in head.iter_mut().enumerate() {
                    let half = (j * 7 % 127) as f32 + 0.5;
                    *x = if j % BLOCK_LEN == 0 { 127.0 } else { half * [1.0, -1.0][j % 2] };
                }
            }
            3 => head.fill(0.0),
            5 => head.iter_mut().for_each(|x| *x *= 1e-4),
            6 => head.iter_mut().for_each(|x| *x *= 1e-7),
            7 => head.iter_mut().for_each(|x| *x *= 3e5),
            8 => head[0] *= 50.0,
            _ => {}
        }
    }
    rows
}

/// A query that sees its own position alone gives the value that was stored there.
#[test]
fn values_are_rounded_as_on_the_cpu() {
    for lengths in LENGTHS {
        let Some(mut gpu) = gpu() else { return };
        let head_len = lengths[1];
        let (keys, rows) = (random(31, N_ROWS * N_HEAD_KV * lengths[0]), hard(32, head_len));
        let found = attend(&mut gpu, KvType::Q8_0, shape(lengths, N_HEAD_KV, Some(1)), &keys, &rows);
        let expected = rounded(&rows, head_len);
        let n_other = found.iter().zip(&expected).filter(|(found, expected)| found != expected).count();
        println!("values of {head_len}: {n_other} of {} are others", found.len());
        if gpu.device().report().is_software() {
            assert_eq!(n_other, 0, "values of {head_len}");
        }
        // Devices may divide less exactly than the CPU, which takes what is nearly a half to its other side.
        for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let block = i % head_len / BLOCK_LEN * BLOCK_LEN + i / head_len * head_len;
            let end = (block + BLOCK_LEN).min(i / head_len * head_len + head_len);
            let largest = rows[block..end].iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
            // A step, and what a scale that is no normal number is off by.
            let bound = 1.01 * largest / 127.0 + 127.0 * f32::powi(2.0, -24);
            assert!((found - expected).abs() <= bound, "{i} of {head_len}: {found} for {expected}");
        }
    }
}

#[test]
fn attention_is_that_over_rounded_keys_and_values() {
    for lengths in LENGTHS {
        for window in [None, Some(45)] {
            let Some(mut gpu) = gpu() else { return };
            let rows = |seed, i: usize| random(seed, N_ROWS * N_HEAD_KV * lengths[i]);
            let (keys, rows) = (rows(33, 0), rows(34, 1));
            let shape = shape(lengths, 3 * N_HEAD_KV, window);
            let found = attend(&mut gpu, KvType::Q8_0, shape, &keys, &rows);
            let [keys, rows] = [rounded(&keys, lengths[0]), rounded(&rows, lengths[1])];
            let mut cpu = Cpu::new(1, Isa::Scalar).unwrap();
            let expected = attend(&mut cpu, KvType::F32, shape, &keys, &rows);
            let error = nmse(&found, &expected);
            println!("heads of {lengths:?}, window {window:?}: {error:.2e}");
            assert!(error <= MAX_NMSE, "heads of {lengths:?}, window {window:?}: {error:.2e}");
        }
    }
}
