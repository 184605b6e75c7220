//! Memory taken by parsing is bounded by the size of the file, whatever its counts and lengths say.
//!
//! A program of its own with one test, because it counts what the whole program allocates.

use std::alloc::System;
use std::fs;
use std::path::Path;

use cap::Cap;
use metallic_gguf::{ByteOrder, Gguf};

use crate::raw::{RawFile, U8, tensor_type};

#[allow(dead_code)] // the other test program uses the rest
#[path = "format/raw.rs"]
mod raw;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Bytes allocated for a byte of the file, at most, counting what lists give up as they grow. The worst
/// files are those of the shortest keys and tensors.
const PER_BYTE: usize = 32;

/// For errors and empty containers.
const ALWAYS: usize = 4096;

/// Whether the file parses.
fn check(name: &str, bytes: &[u8]) -> bool {
    let before = ALLOCATOR.total_allocated();
    let parsed = Gguf::parse(bytes);
    let taken = ALLOCATOR.total_allocated() - before;
    assert!(taken <= bytes.len() * PER_BYTE + ALWAYS, "{name}: {taken} bytes for a file of {}", bytes.len());
    parsed.is_ok()
}

#[test]
fn memory_is_bounded_by_the_size_of_the_file() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    for seed in fs::read_dir(seeds).expect("seeds") {
        let path = seed.expect("seed").path();
        check(&path.to_string_lossy(), &fs::read(&path).expect("readable"));
    }
    let short_name = |i: u32| [i >> 12, i >> 6, i].map(|digit| b'0' + (digit % 64) as u8);
    let file = RawFile::with_encoding(1, ByteOrder::Little);
    let keys = (0..10_000).fold(file.clone(), |file, i| file.key(short_name(i), |b| b.u32(U8).u8(0)));
    assert!(check("many keys", &keys.build()));
    let tensors = (0..10_000).fold(file, |file, i| file.tensor(short_name(i), &[0], tensor_type::I8, 0));
    assert!(check("many tensors", &tensors.build()));
}
