//! Large headers take a time that grows with their size, not with its square.

use std::time::{Duration, Instant};

use metallic_gguf::Gguf;

use crate::raw::{ARRAY, RawFile, STRING, U32, tensor_type};

/// The fastest of a few runs, which other work on the machine disturbs least.
fn time<T>(mut run: impl FnMut() -> T) -> Duration {
    let once = |_| {
        let start = Instant::now();
        std::hint::black_box(run());
        start.elapsed()
    };
    (0..5).map(once).min().unwrap()
}

fn with_tensors(n: u64) -> Vec<u8> {
    let file = (0..n).fold(RawFile::new(), |file, i| {
        // Offsets in descending order, so that the check for overlaps has something to sort.
        file.tensor(format!("blk.{i}.attn_q.weight"), &[32], tensor_type::I8, (n - 1 - i) * 32)
    });
    file.data(&vec![0; n as usize * 32]).build()
}

fn with_strings(n: u64) -> Vec<u8> {
    RawFile::new()
        .key("tokens", |b| {
            b.u32(ARRAY).u32(STRING).length(n);
            (0..n).fold(b, |b, i| b.string(i.to_string()))
        })
        .build()
}

/// More than linear time takes on a slow machine; quadratic would take 10^10 steps or more.
const LIMIT: Duration = Duration::from_secs(2);

#[test]
fn a_hundred_thousand_tensors() {
    let bytes = with_tensors(100_000);
    let taken = time(|| {
        let gguf = Gguf::parse(&bytes).unwrap();
        gguf.tensors().filter(|tensor| gguf.tensor(tensor.name()).is_some()).count()
    });
    assert_eq!(Gguf::parse(&bytes).unwrap().tensors().len(), 100_000);
    assert!(taken < LIMIT, "{taken:?}");
}

#[test]
fn an_array_of_a_million_strings() {
    let bytes = with_strings(1_000_000);
    let gguf = Gguf::parse(&bytes).unwrap();
    let strings: Vec<&str> = gguf.metadata().required("tokens").unwrap();
    assert_eq!((strings.len(), strings[999_999]), (1_000_000, "999999"));
    let taken = time(|| {
        let gguf = Gguf::parse(&bytes).unwrap();
        gguf.metadata().required::<Vec<&[u8]>>("tokens").unwrap().len()
    });
    assert!(taken < LIMIT, "{taken:?}");
}

/// A header as large as SmolLM2-135M's: 1.8 MB with 49,152 tokens, 48,900 merges and 272 tensors.
#[test]
fn the_header_of_a_small_model_takes_milliseconds() {
    let file = RawFile::new()
        .key("tokenizer.ggml.tokens", |b| {
            b.u32(ARRAY).u32(STRING).length(49_152);
            (0..49_152).fold(b, |b, i| b.string(format!("{i:07}")))
        })
        .key("tokenizer.ggml.token_type", |b| {
            b.u32(ARRAY).u32(U32).length(49_152);
            (0..49_152).fold(b, |b, i| b.u32(i))
        })
        .key("tokenizer.ggml.merges", |b| {
            b.u32(ARRAY).u32(STRING).length(48_900);
            (0..48_900).fold(b, |b, i| b.string(format!("{i:04} {i:04}")))
        });
    let file = (0..272).fold(file, |file, i| {
        file.tensor(format!("blk.{i}.ffn_down.weight"), &[32, 32], tensor_type::I8, i * 1024)
    });
    let bytes = file.data(&vec![0; 272 * 1024]).build();
    let taken = time(|| Gguf::parse(&bytes).unwrap().tensors().len());
    // Unoptimised builds are given ten times as long.
    let limit = Duration::from_millis(if cfg!(debug_assertions) { 100 } else { 10 });
    assert!(taken < limit, "{taken:?}");
}
