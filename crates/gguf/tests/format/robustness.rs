//! No input makes the reader panic, and what it accepts keeps its promises.

use std::fs;
use std::path::Path;

use crate::malformed::published;
use crate::raw::{ARRAY, BOOL, F32, RawFile, STRING, U32, encodings, tensor_type};

#[path = "../../fuzz/src/lib.rs"]
#[allow(unreachable_pub)] // a crate of its own there
mod fuzz;

pub(crate) fn replay(bytes: &[u8]) {
    fuzz::parse(bytes);
    fuzz::getters(bytes);
}

/// A little of everything.
fn small(version: u32, byte_order: metallic_gguf::ByteOrder) -> Vec<u8> {
    RawFile::with_encoding(version, byte_order)
        .alignment(8)
        .key("s", |b| b.u32(STRING).string("é"))
        .key("a", |b| b.u32(ARRAY).u32(STRING).length(2).string("x").string(""))
        .key("n", |b| b.u32(ARRAY).u32(ARRAY).length(2).u32(BOOL).length(1).u8(1).u32(F32).length(1).f32(0.5))
        .key("split.no", |b| b.u32(U32).u32(0))
        .key("split.count", |b| b.u32(U32).u32(1))
        .key("split.tensors.count", |b| b.u32(U32).u32(3))
        .tensor("q", &[32, 2], tensor_type::Q4_0, 0)
        .tensor("f", &[], tensor_type::F32, 40)
        .tensor("0", &[0, 2], tensor_type::I8, 48)
        .data(&[0x5A; 44])
        .build()
}

#[test]
fn every_byte_changed_in_every_bit() {
    for (version, byte_order) in encodings() {
        let good = small(version, byte_order);
        assert!(metallic_gguf::Gguf::parse(&good).is_ok());
        replay(&good);
        for at in 0..good.len() {
            let mut bytes = good.clone();
            let changes = (0..8).map(|bit| good[at] ^ (1 << bit)).chain([0, 0x7F, 0x80, 0xFF]);
            for changed in changes {
                bytes[at] = changed;
                replay(&bytes);
            }
        }
    }
}

#[test]
fn every_length() {
    for (version, byte_order) in encodings() {
        let good = small(version, byte_order);
        for length in 0..=good.len() {
            replay(&good[..length]);
        }
    }
}

#[test]
fn files_that_broke_other_readers() {
    for fixture in published() {
        replay(&fixture.bytes);
    }
}

#[test]
fn the_fuzzers_seeds() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    let mut n_seeds = 0;
    for seed in fs::read_dir(&seeds).unwrap() {
        replay(&fs::read(seed.unwrap().path()).unwrap());
        n_seeds += 1;
    }
    assert!(n_seeds >= 10, "{n_seeds} seeds in {}", seeds.display());
}

/// Writes the seeds anew: `cargo test -p metallic-gguf write_seeds -- --ignored`.
#[test]
#[ignore = "writes into the source tree"]
fn write_seeds() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    for (version, byte_order) in encodings() {
        fs::write(seeds.join(format!("v{version}-{byte_order}")), small(version, byte_order)).unwrap();
    }
    for fixture in published() {
        let name = fixture.name.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        fs::write(seeds.join(name.trim_matches('-')), fixture.bytes).unwrap();
    }
}
