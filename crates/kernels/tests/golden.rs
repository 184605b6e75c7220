//! Decoding and encoding are bit-exact with the reference, for every type that it has.
//!
//! `tools/golden.py` made the expectations with PyPI's `gguf`, and says what they are.

mod common;

use common::{Random, mix};
use metallic_kernels::{GgmlType, Isa, QuantOps, registry};

/// As in `tools/golden.py`.
const DIGEST_BLOCKS: usize = 4096;

/// A row and its floats.
struct Record {
    ggml_type: GgmlType,
    bytes: Vec<u8>,
    floats: Vec<f32>,
}

fn records(mut file: &[u8]) -> Vec<Record> {
    let mut take = |n: u32| file.split_off(..n as usize);
    let word = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("4 bytes"));
    let mut records = Vec::new();
    while let Some(id) = take(4) {
        let mut take = |n| take(n).expect("a whole record");
        let (n_bytes, n_floats) = (word(take(4)), word(take(4)));
        records.push(Record {
            ggml_type: GgmlType::from_id(word(id)).expect("an id of the format"),
            bytes: take(n_bytes).to_vec(),
            floats: take(4 * n_floats).chunks(4).map(|bytes| f32::from_bits(word(bytes))).collect(),
        });
    }
    records
}

/// The digest of `what`, decode or encode, of a type.
fn digest_of(what: &str, ggml_type: GgmlType) -> Option<u64> {
    let name = format!("{what} {ggml_type} ");
    let digest = include_str!("golden/digests.txt").lines().find_map(|line| line.strip_prefix(&name))?;
    Some(u64::from_str_radix(digest, 16).expect("a hexadecimal number"))
}

fn digest(values: impl Iterator<Item = u32>) -> u64 {
    values
        .zip(0u64..)
        .fold(0, |sum, (value, position)| sum.wrapping_add(mix(position << 32 | u64::from(value))))
}

/// The bits, all NaNs made equal.
fn bits(x: f32) -> u32 {
    if x.is_nan() { 0x7fc0_0000 } else { x.to_bits() }
}

fn all_ops() -> impl Iterator<Item = QuantOps> {
    GgmlType::ALL
        .iter()
        .flat_map(|&ggml_type| Isa::available().into_iter().map(move |isa| registry::ops(ggml_type, isa)))
}

fn decode(ops: QuantOps, row: &[u8]) -> Vec<f32> {
    let mut out = vec![0.0; row.len() / ops.ggml_type.block_bytes() * ops.ggml_type.block_len()];
    (ops.decode)(row, &mut out);
    out
}

fn encode(ops: QuantOps, x: &[f32]) -> Option<Vec<u8>> {
    let mut row = vec![0xaa; x.len() / ops.ggml_type.block_len() * ops.ggml_type.block_bytes()];
    (ops.encode?)(x, &mut row);
    Some(row)
}

#[test]
fn every_type_decodes_as_the_reference_does() {
    let records = records(include_bytes!("golden/decode.bin"));
    for ops in all_ops() {
        let record = records.iter().find(|record| record.ggml_type == ops.ggml_type);
        let record = record.unwrap_or_else(|| panic!("no vectors for {}", ops.ggml_type));
        let decoded = decode(ops, &record.bytes);
        assert_eq!(decoded.len(), record.floats.len(), "{}", ops.ggml_type);
        for (i, (ours, theirs)) in decoded.iter().zip(&record.floats).enumerate() {
            assert_eq!(bits(*ours), bits(*theirs), "{} weight {i}: {ours} is not {theirs}", ops.ggml_type);
        }
    }
}

#[test]
fn every_type_decodes_thousands_of_random_blocks_as_the_reference_does() {
    for ops in all_ops() {
        let seed = u64::from(ops.ggml_type.id());
        let row = Random(seed).bytes(DIGEST_BLOCKS * ops.ggml_type.block_bytes());
        let ours = digest(decode(ops, &row).into_iter().map(bits));
        assert_eq!(Some(ours), digest_of("decode", ops.ggml_type), "{} on {}", ops.ggml_type, ops.isa);
    }
}

#[test]
fn types_encode_as_the_reference_does() {
    let records = records(include_bytes!("golden/encode.bin"));
    for ops in all_ops().filter(|ops| ops.encode.is_some()) {
        let record = records.iter().find(|record| record.ggml_type == ops.ggml_type);
        let record = record.unwrap_or_else(|| panic!("no vectors for {}", ops.ggml_type));
        let encoded = encode(ops, &record.floats).unwrap();
        assert_eq!(encoded.len(), record.bytes.len(), "{}", ops.ggml_type);
        let blocks =
            |row: &[u8]| row.chunks(ops.ggml_type.block_bytes()).map(<[u8]>::to_vec).collect::<Vec<_>>();
        for (i, (ours, theirs)) in blocks(&encoded).iter().zip(blocks(&record.bytes)).enumerate() {
            assert_eq!(*ours, theirs, "{} block {i}", ops.ggml_type);
        }
    }
}

#[test]
fn types_encode_thousands_of_random_blocks_as_the_reference_does() {
    for ops in all_ops() {
        let x = random_floats(ops.ggml_type.id().into(), DIGEST_BLOCKS * ops.ggml_type.block_len());
        let ours = encode(ops, &x).map(|row| digest(row.into_iter().map(u32::from)));
        assert_eq!(ours, digest_of("encode", ops.ggml_type), "{} on {}", ops.ggml_type, ops.isa);
    }
}

/// `random_floats` of `tools/golden.py`.
fn random_floats(seed: u64, n: usize) -> Vec<f32> {
    let scale = |i: usize| 2f32.powi((i / 256 * 7 % 32) as i32 - 20);
    Random(seed).floats(n).into_iter().enumerate().map(|(i, x)| x * scale(i)).collect()
}

#[test]
fn encoding_accepts_any_float() {
    let odd =
        [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, 1e-45, -1e-45, 1e-38, 0.0, -0.0];
    for ops in all_ops().filter(|ops| ops.encode.is_some()) {
        for (i, &value) in odd.iter().enumerate() {
            let mut x = vec![value; 256];
            decode(ops, &encode(ops, &x).unwrap());
            x[1..].fill(0.5);
            decode(ops, &encode(ops, &x).unwrap());
            x[1] = odd[(i + 1) % odd.len()];
            decode(ops, &encode(ops, &x).unwrap());
        }
    }
}

/// What encoding may lose of a block, as a share of its range: half a step, and the rounding of the scale
/// (and of the minimum) to half precision, 2⁻¹¹ each, times the range.
#[test]
fn encoding_loses_no_more_than_half_a_step() {
    let half_step = |ggml_type| match ggml_type {
        GgmlType::F32 => 0.0,
        GgmlType::F16 => 2f32.powi(-11),
        GgmlType::BF16 => 2f32.powi(-8),
        // Twice the range over 2·(levels − 1); the value at the far end may lose a whole step.
        GgmlType::Q4_0 => 1.0 / 8.0,
        GgmlType::Q5_0 => 1.0 / 16.0,
        GgmlType::Q4_1 => 1.0 / 15.0,
        GgmlType::Q5_1 => 1.0 / 31.0,
        GgmlType::Q8_0 | GgmlType::Q8_1 | GgmlType::Q8_K => 0.5 / 127.0,
        other => panic!("{other} can be encoded: state its bound"),
    };
    for ops in all_ops().filter(|ops| ops.encode.is_some()) {
        let x = Random(1).floats(8192);
        let back = decode(ops, &encode(ops, &x).unwrap());
        let bound =
            half_step(ops.ggml_type) + if ops.ggml_type == GgmlType::F32 { 0.0 } else { 2f32.powi(-10) };
        for (i, (x, back)) in x.iter().zip(&back).enumerate() {
            assert!((x - back).abs() <= bound, "{} value {i}: {x} became {back}", ops.ggml_type);
        }
    }
}
