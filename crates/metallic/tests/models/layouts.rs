//! Tensors that some files have in one piece and others in parts: the same weights give the same bits.

use metallic::gguf::Gguf;
use metallic::testing::edited;
use metallic::{Error, GgufFile, GgufLoader};

use crate::oracles::Oracles;

fn logits(bytes: &[u8], tokens: &[u32]) -> Vec<f32> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, bytes).expect("a file");
    let mut model =
        GgufLoader::new(GgufFile::open(&path).expect("a model")).threads(2).load().expect("a model");
    let mut all = Vec::new();
    model.evaluate(tokens, 0..tokens.len(), &mut |_, logits| all.extend_from_slice(logits)).expect("logits");
    all
}

/// Early files of Qwen 3 Next have the inputs of a delta net key head after key head: query, key, values, gates.
#[test]
fn inputs_of_delta_nets_may_lie_by_key_head() {
    const HEAD: usize = 128;
    const N_KEY_HEAD: usize = 2;
    let Some(oracles) = Oracles::find() else { return };
    let tokens = oracles.tokens();
    let bytes = oracles.read("archs/qwen3next-moe.gguf");
    let gguf = Gguf::parse(&bytes).expect("an oracle");
    let tensor = |name: &str| gguf.tensor(&format!("blk.0.{name}.weight")).expect("a tensor");
    let (split, gate, all) = (tensor("attn_qkv"), tensor("attn_gate"), tensor("ssm_in"));
    let head_bytes = HEAD * split.n_bytes() as usize / split.n_rows() as usize;
    let of = |data: &[u8], head: usize| data[head * head_bytes..][..head_bytes].to_vec();
    let by_key_head: Vec<u8> = (0..N_KEY_HEAD)
        .flat_map(|head| {
            let q_k_v = [0, 1, 2].map(|part| of(split.data(), part * N_KEY_HEAD + head));
            [q_k_v.concat(), of(gate.data(), head)].concat()
        })
        .collect();
    assert_eq!(by_key_head.len(), all.data().len());
    let mut merged = bytes.clone();
    merged[all.file_offset() as usize..][..by_key_head.len()].copy_from_slice(&by_key_head);
    let parts = [("blk.0.attn_qkv.weight", None), ("blk.0.attn_gate.weight", None)];
    let merged = edited(&merged, &[], &parts).expect("a model");
    assert!(logits(&merged, &tokens) == logits(&bytes, &tokens));
}

/// A file needs the factors of rotation of the context that it is used with, and only those.
#[test]
fn factors_of_rotation_are_those_that_the_context_asks_for() {
    const SHORT: &str = "rope_factors_short.weight";
    const LONG: &str = "rope_factors_long.weight";
    let Some(oracles) = Oracles::find() else { return };
    for name in ["phi3-dense", "phimoe-moe"] {
        let bytes = oracles.read(&format!("archs2/{name}.gguf")); // trained for a context of 256
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("model.gguf");
        let missing = |changes: &[(&str, Option<&[u64]>)], n_ctx: usize| {
            std::fs::write(&path, edited(&bytes, &[], changes).expect("a model")).expect("a file");
            let loader = GgufLoader::new(GgufFile::open(&path).expect("a model")).context_length(n_ctx);
            match loader.plan() {
                Err(Error::MissingRopeFactors { name, original_context: 256, .. }) => Some(name),
                other => other.map(|_| None).expect("a plan"),
            }
        };
        let long_alone: &[(&str, Option<&[u64]>)] = &[(SHORT, None), (LONG, Some(&[8]))];
        let found =
            [missing(&[], 256), missing(&[], 257), missing(long_alone, 256), missing(long_alone, 257)];
        assert_eq!(found, [None, Some(LONG), Some(SHORT), None], "{name}");
        assert_eq!(missing(&[(SHORT, None)], 257), None, "{name}: a model without factors");
    }
}
