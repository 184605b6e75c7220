//! Files that must be refused, each with the error it must give.
//!
//! The first table has the files that broke other readers; what is not here of the published cases concerns
//! programs around a reader (network requests, RPC), or is a file that must be accepted (`reading.rs`).

use metallic_gguf::{ByteOrder, Error, GgmlType, Gguf};

use crate::raw::{ARRAY, F32, I32, RawFile, STRING, U8, U32, U64, tensor_type};
use crate::reading::nested;

pub(crate) struct Fixture {
    pub(crate) name: &'static str,
    pub(crate) bytes: Vec<u8>,
    expected: Error,
}

fn fixture(name: &'static str, file: RawFile, expected: Error) -> Fixture {
    Fixture { name, bytes: file.build(), expected }
}

/// The error for a tensor that ends past the end of a file.
fn outside(name: &'static str, file: RawFile, tensor: &str, offset: u64, n_bytes: u64) -> Fixture {
    let bytes = file.build();
    let (data_start, file_bytes) = (file.data_start() as u64, bytes.len() as u64);
    let expected = Error::OutsideFile { tensor: tensor.into(), offset, n_bytes, data_start, file_bytes };
    Fixture { name, bytes, expected }
}

fn truncated(reading: &str, offset: u64, needed: u64, available: u64) -> Error {
    Error::Truncated { reading: reading.into(), offset, needed, available }
}

fn shape_overflow(shape: &[u64]) -> Error {
    Error::ShapeOverflow { tensor: "t".into(), shape: shape.to_vec() }
}

fn one_tensor(dims: &[u64], tensor_type: u32, offset: u64) -> RawFile {
    RawFile::new().tensor("t", dims, tensor_type, offset)
}

fn with_alignment(value: impl FnOnce(&mut crate::raw::Bytes) -> &mut crate::raw::Bytes) -> RawFile {
    RawFile::new().key("general.alignment", value)
}

/// Files that broke other readers.
pub(crate) fn published() -> Vec<Fixture> {
    let mut fixtures = counts_and_lengths();
    fixtures.extend(tensor_sizes());
    fixtures.extend(tensor_places());
    fixtures.extend(alignments());
    fixtures
}

fn counts_and_lengths() -> Vec<Fixture> {
    let mut many_tensors = RawFile::new();
    many_tensors.n_tensors = u64::MAX;
    let mut many_keys = RawFile::new();
    many_keys.n_keys = 1 << 61;
    let mut first_key = RawFile::new();
    first_key.n_keys = 1;
    // A length where the first key should be, and `more` bytes.
    let long_key =
        |length: u64, more: usize| [first_key.build(), length.to_le_bytes().into(), vec![0; more]].concat();
    let arrays = |element_type: u32, len: u64| {
        RawFile::new().key("k", |b| b.u32(ARRAY).u32(element_type).length(len).raw(&[0; 32]))
    };
    let too_long = |len: u64| Error::ArrayTooLong { key: "k".into(), len, available: 32 };
    vec![
        Fixture {
            name: "CVE-2024-39720: four bytes",
            bytes: b"GGUF".to_vec(),
            expected: truncated("the header", 4, 4, 0),
        },
        fixture(
            "CVE-2024-21802: number of tensors times size wraps",
            many_tensors,
            Error::CountTooLarge { what: "tensors", count: u64::MAX, available: 8 },
        ),
        fixture(
            "CVE-2024-23496: number of keys times size wraps",
            many_keys,
            Error::CountTooLarge { what: "metadata keys", count: 1 << 61, available: 0 },
        ),
        Fixture {
            name: "ollama #17032: 36 bytes",
            bytes: long_key(i64::MAX as u64, 4),
            expected: Error::CountTooLarge { what: "metadata keys", count: 1, available: 12 },
        },
        Fixture {
            name: "ollama #17042: length of a key that no signed integer holds",
            bytes: long_key(1 << 63, 8),
            expected: truncated("metadata key number 0", 32, 1 << 63, 8),
        },
        fixture(
            "CVE-2024-21825: string length plus one wraps",
            RawFile::new().key("k", |b| b.u32(STRING).length(u64::MAX)),
            truncated("the value of key \"k\"", 45, u64::MAX, 0),
        ),
        fixture("CVE-2024-21836: array length times size wraps", arrays(U64, 1 << 61), too_long(1 << 61)),
        fixture(
            "hrx-system #278: array extent wraps to a small one, so elements are read as tensors",
            arrays(U32, (1 << 62) + 1),
            too_long((1 << 62) + 1),
        ),
        fixture("ggml #1516: an array of 2^30 bytes in a small file", arrays(U8, 1 << 30), too_long(1 << 30)),
        fixture("CVE-2026-27940: array of 2^40 strings", arrays(STRING, 1 << 40), too_long(1 << 40)),
        fixture(
            "ggml #1516: a string of 2^30 bytes in a small file",
            RawFile::new().key("k", |b| b.u32(STRING).length(1 << 30)),
            truncated("the value of key \"k\"", 45, 1 << 30, 0),
        ),
    ]
}

fn tensor_sizes() -> Vec<Fixture> {
    const MAX: u64 = i64::MAX as u64;
    let dims = |n_dims: u64| Error::TooManyDims { tensor: "t".into(), n_dims, limit: 4 };
    let mut most_dims = one_tensor(&[1], tensor_type::F32, 0).build();
    most_dims[33..37].copy_from_slice(&u32::MAX.to_le_bytes());
    let unknown = |id| Error::UnsupportedType {
        tensor: "t".into(),
        id,
        what: "which no known version of the format defines",
    };
    vec![
        fixture("CVE-2024-23605: five dimensions", one_tensor(&[1; 5], tensor_type::F32, 0), dims(5)),
        Fixture {
            name: "CVE-2024-23605: 2^32 - 1 dimensions",
            bytes: most_dims,
            expected: dims(u32::MAX.into()),
        },
        fixture("CVE-2024-23605: type past the last", one_tensor(&[1], 43, 0), unknown(43)),
        fixture("CVE-2026-27940: negative type", one_tensor(&[1], u32::MAX, 0), unknown(u32::MAX)),
        fixture(
            "llama.cpp #27203: (INT64_MAX, 2) wraps",
            one_tensor(&[MAX, 2], tensor_type::F32, 0),
            shape_overflow(&[MAX, 2]),
        ),
        fixture(
            "llama.cpp #27203: (2^32, 2^32) wraps to 0",
            one_tensor(&[1 << 32, 1 << 32], tensor_type::I8, 0),
            shape_overflow(&[1 << 32, 1 << 32]),
        ),
        fixture(
            "a product that wraps, behind a zero",
            one_tensor(&[1 << 32, 0, 1 << 32], tensor_type::I8, 0),
            shape_overflow(&[1 << 32, 0, 1 << 32]),
        ),
        fixture(
            "llama.cpp #25378, gguf-rs #15: a product of three wraps to 2^32",
            one_tensor(&[1 << 40, 1 << 28, (1 << 28) + 1], tensor_type::I8, 0),
            shape_overflow(&[1 << 40, 1 << 28, (1 << 28) + 1]),
        ),
        fixture(
            "CVE-2026-33298: elements fit 64 bits, bytes wrap to 0",
            one_tensor(&[1 << 62], tensor_type::F32, 0),
            shape_overflow(&[1 << 62]),
        ),
        outside(
            "CVE-2026-33298: an exabyte in a small file",
            one_tensor(&[1 << 58], tensor_type::F32, 0).data(&[0; 64]),
            "t",
            0,
            1 << 60,
        ),
        fixture(
            "gguf-tools #25: a row that is not whole blocks, though the product is",
            one_tensor(&[16, 2], tensor_type::Q4_0, 0),
            Error::PartialBlock { tensor: "t".into(), ggml_type: GgmlType::Q4_0, row_len: 16, block_len: 32 },
        ),
        fixture(
            "ik_llama.cpp #2437: a type of a fork, by name",
            one_tensor(&[256], 146, 0),
            Error::UnsupportedType { tensor: "t".into(), id: 146, what: "IQ4_KSS of the ik_llama.cpp fork" },
        ),
        fixture(
            "a type removed from the format, by name",
            one_tensor(&[32], 31, 0),
            Error::UnsupportedType {
                tensor: "t".into(),
                id: 31,
                what: "Q4_0_4_4, Q4_0_4_8 or Q4_0_8_8, removed from the format: \
                       use the Q4_0 file of this model",
            },
        ),
    ]
}

fn tensor_places() -> Vec<Fixture> {
    let overlap = |name, second_offset| {
        let file = RawFile::new()
            .tensor("t", &[64], tensor_type::I8, 0)
            .tensor("u", &[64], tensor_type::I8, second_offset)
            .data(&[0; 128]);
        fixture(name, file, Error::Overlap { first: "t".into(), second: "u".into() })
    };
    vec![
        outside(
            "CVE-2025-53630: sizes whose sum wraps to 0",
            one_tensor(&[1 << 63], tensor_type::I8, 0).tensor("u", &[1 << 63], tensor_type::I8, 1 << 63),
            "t",
            0,
            1 << 63,
        ),
        outside(
            "CVE-2026-27940: the start of the data plus an offset wraps",
            one_tensor(&[32], tensor_type::I8, u64::MAX - 31).data(&[0; 32]),
            "t",
            u64::MAX - 31,
            32,
        ),
        outside(
            "CVE-2026-7482: a shape larger than the data",
            one_tensor(&[1 << 20], tensor_type::F32, 0).data(&[0; 64]),
            "t",
            0,
            4 << 20,
        ),
        outside(
            "llama.cpp #6774: the last byte is missing",
            one_tensor(&[64], tensor_type::I8, 0).data(&[0; 63]),
            "t",
            0,
            64,
        ),
        outside(
            "llama.cpp #27056: the same of an adapter",
            RawFile::new()
                .key("general.type", |b| b.u32(STRING).string("adapter"))
                .tensor("t", &[64], tensor_type::I8, 0)
                .data(&[0; 63]),
            "t",
            0,
            64,
        ),
        outside(
            "hrx-system #278: the data would start past the end",
            one_tensor(&[1], tensor_type::I8, 0),
            "t",
            0,
            1,
        ),
        outside(
            "a tensor of zero size far outside",
            one_tensor(&[0], tensor_type::I8, 1 << 40).data(&[0; 32]),
            "t",
            1 << 40,
            0,
        ),
        overlap("ik_llama.cpp #2437: tensors too short, their tails in the neighbour", 32),
        overlap("two tensors at one place", 0),
        fixture(
            "an offset that is not aligned",
            one_tensor(&[1], tensor_type::I8, 16).data(&[0; 32]),
            Error::Misaligned { tensor: "t".into(), offset: 16, alignment: 32 },
        ),
    ]
}

fn alignments() -> Vec<Fixture> {
    let bad = |name, alignment: u32| {
        let expected = Error::BadAlignment { alignment: alignment.into(), limit: 1 << 20 };
        fixture(name, with_alignment(|b| b.u32(U32).u32(alignment)), expected)
    };
    let wrong_type = |found: &str| Error::WrongType {
        key: "general.alignment".into(),
        expected: "an integer",
        found: found.into(),
    };
    vec![
        bad("sparkinfer #24: alignment 0", 0),
        bad("alignment that is no power of two", 24),
        bad("ggml #1516: alignment 2^30", 1 << 30),
        bad("llama.cpp #26318: rounding up to the alignment wraps", 1 << 31),
        fixture(
            "llama.cpp #26318: alignment is a string",
            with_alignment(|b| b.u32(STRING).string("32")),
            wrong_type("of type string"),
        ),
        fixture(
            "llama.cpp #26318: alignment is a float",
            with_alignment(|b| b.u32(F32).f32(32.0)),
            wrong_type("of type f32"),
        ),
        fixture(
            "alignment is negative",
            with_alignment(|b| b.u32(I32).i32(-32)),
            Error::OutOfRange { key: "general.alignment".into(), value: "-32".into(), target: "u64" },
        ),
    ]
}

/// The other ways of being malformed.
fn others() -> Vec<Fixture> {
    let u32_key = |key: &[u8]| RawFile::new().key(key, |b| b.u32(U32).u32(1));
    let tensor = |name: &[u8]| RawFile::new().tensor(name, &[1], tensor_type::I8, 0).data(&[0]);
    let mut short_directory = one_tensor(&[1], tensor_type::I8, 0).build();
    short_directory.truncate(short_directory.len() - 8);
    short_directory[8] = 1;
    vec![
        fixture(
            "version 0",
            RawFile::with_encoding(0, ByteOrder::Little),
            Error::UnsupportedVersion { version: 0 },
        ),
        fixture(
            "version 4",
            RawFile::with_encoding(4, ByteOrder::Big),
            Error::UnsupportedVersion { version: 4 },
        ),
        fixture("a key of no characters", u32_key(b""), Error::EmptyKey { index: 0 }),
        fixture(
            "a key too long",
            u32_key(&[b'k'; 65_536]),
            Error::KeyTooLong { index: 0, bytes: 65_536, limit: 65_535 },
        ),
        fixture("a key that is not text", u32_key(&[0xFF]), Error::KeyNotUtf8 { index: 0 }),
        fixture(
            "a key twice",
            u32_key(b"k").key("k", |b| b.u32(U32).u32(1)),
            Error::DuplicateKey { key: "k".into() },
        ),
        fixture(
            "an unknown value type",
            RawFile::new().key("k", |b| b.u32(13).u32(1)),
            Error::UnknownValueType { key: "k".into(), id: 13 },
        ),
        fixture(
            "an unknown element type",
            RawFile::new().key("k", |b| b.u32(ARRAY).u32(u32::MAX).length(0)),
            Error::UnknownValueType { key: "k".into(), id: u32::MAX },
        ),
        fixture(
            "arrays nested too deep",
            RawFile::new().key("k", |b| nested(b, 65)),
            Error::ArrayTooDeep { key: "k".into(), limit: 64 },
        ),
        fixture(
            "arrays nested without end",
            RawFile::new().key("k", |b| nested(b, 100_000)),
            Error::ArrayTooDeep { key: "k".into(), limit: 64 },
        ),
        fixture(
            "a name too long",
            tensor(&[b'n'; 128]),
            Error::TensorNameTooLong { index: 0, bytes: 128, limit: 127 },
        ),
        fixture(
            "a name that is not UTF-8",
            tensor(&[b'n', 0x80]),
            Error::TensorNameNotText { index: 0, name: vec![b'n', 0x80] },
        ),
        fixture(
            "a name with a NUL",
            tensor(b"a\0b"),
            Error::TensorNameNotText { index: 0, name: b"a\0b".to_vec() },
        ),
        fixture(
            "a name twice",
            tensor(b"t").tensor("t", &[0], tensor_type::I8, 0),
            Error::DuplicateTensor { tensor: "t".into() },
        ),
        Fixture {
            name: "a directory cut short",
            bytes: short_directory,
            expected: truncated("the description of tensor number 0", 49, 8, 0),
        },
    ]
}

#[test]
fn each_is_refused_with_its_error() {
    for Fixture { name, bytes, expected } in published().into_iter().chain(others()) {
        assert_eq!(Gguf::parse(&bytes).err(), Some(expected), "{name}");
    }
}

#[test]
fn every_truncation_of_a_file_with_data_is_refused() {
    let bytes = RawFile::new()
        .key("k", |b| b.u32(ARRAY).u32(STRING).length(2).string("a").string("b"))
        .tensor("t", &[4], tensor_type::F32, 0)
        .data(&[0; 16])
        .build();
    assert!(Gguf::parse(&bytes).is_ok());
    for length in 0..bytes.len() {
        assert!(Gguf::parse(&bytes[..length]).is_err(), "{length} of {} bytes", bytes.len());
    }
}

#[test]
fn files_of_other_kinds_are_named() {
    let safetensors = [&60_u64.to_le_bytes()[..], b"{\"w\":"].concat();
    let others: [(&[u8], &str); 7] = [
        (b"lmgg0000", "before GGUF"),
        (b"tjgg0000", "before GGUF"),
        (b"PK\x03\x04....", "PyTorch"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        (b"<!DOCTYPE html>", "web page"),
        (&safetensors, "safetensors"),
        (b"\x7fELF....", "not a GGUF file: it starts with \\x7fELF"),
    ];
    for (bytes, expected) in others {
        let message = Gguf::parse(bytes).unwrap_err().to_string();
        assert!(message.starts_with("not a GGUF file") && message.contains(expected), "{message}");
    }
}

#[test]
fn messages_say_what_and_where() {
    for Fixture { name, bytes, .. } in published().into_iter().chain(others()) {
        let message = Gguf::parse(&bytes).unwrap_err().to_string();
        assert!(message.len() > 20 && !message.contains('\n'), "{name}: {message}");
    }
}
