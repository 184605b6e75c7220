//! What keys and values are kept as: how far each type's logits are from those of 32-bit floats, and what it
//! takes of memory.

use metallic::backend::KvType;
use metallic::backend::conformance::nmse;
use metallic::{GgufFile, GgufLoader, testing};

/// Positions: more than a page.
const N: usize = 300;

fn loader(folder: &tempfile::TempDir) -> GgufLoader<'static> {
    let path = folder.path().join("tiny.gguf");
    std::fs::write(&path, testing::tiny_model().expect("a model")).expect("room for it");
    GgufLoader::new(GgufFile::open(&path).expect("a valid file")).threads(2)
}

/// Logits of every position of a text of letters and spaces.
fn logits(folder: &tempfile::TempDir, kv_type: KvType) -> Vec<f32> {
    let tokens: Vec<u32> = (0..N as u32).map(|i| 32 + (i * i + 7 * i) % 90).collect();
    let mut model = loader(folder).kv_type(kv_type).load().expect("a model that runs");
    let mut all = Vec::new();
    model.evaluate(&tokens, 0..N, &mut |_, logits| all.extend_from_slice(logits)).expect("logits");
    all
}

#[test]
fn logits_are_as_near_to_exact_ones_as_the_type_allows() {
    let folder = tempfile::tempdir().unwrap();
    let expected = logits(&folder, KvType::F32);
    // The square of half a step relative to a value, with room for what layers make of it: nothing less
    // would be a type of fewer bits, and nothing at all another type than was asked for.
    for (kv_type, bound) in
        [(KvType::F16, 1e-6), (KvType::BF16, 5e-5), (KvType::Q8_0, 2e-4), (KvType::Q4_0, 5e-2)]
    {
        let error = nmse(&logits(&folder, kv_type), &expected);
        println!("{kv_type}: {error:e}");
        assert!(error > bound / 1e3 && error < bound, "{kv_type}: {error:e}");
    }
}

#[test]
fn the_plan_charges_what_each_type_takes() {
    let folder = tempfile::tempdir().unwrap();
    // 2 layers of 2 heads, keys and values of 8 numbers, two pages of 256 positions; blocks hold 32 numbers.
    let rows = 2 * 2 * 2 * 2 * 256;
    for (kv_type, row_bytes) in
        [(KvType::F32, 32), (KvType::F16, 16), (KvType::BF16, 16), (KvType::Q8_0, 34), (KvType::Q4_0, 18)]
    {
        let (_, plan) = loader(&folder).kv_type(kv_type).plan().unwrap();
        let line = plan.ledger.iter().find(|line| line.what == "KV cache").expect("a line for the cache");
        assert_eq!(line.bytes, rows * row_bytes, "{kv_type}");
        assert!(line.reason.ends_with(kv_type.name()), "{}", line.reason);
    }
}
