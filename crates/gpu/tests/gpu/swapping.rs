//! Weights that a device has no room for are swapped in as they are used: the bits are those of a device that has room for all.

use std::path::Path;

use metallic::backend::KvType;
use metallic::memory::Tier;
use metallic::plan::{MemoryPlan, Offload};
use metallic::{Error, GgufFile, GgufLoader, Model};

use crate::gpu_within;
use crate::oracles::{logits, oracles, tokens};
use crate::real_models::model;

/// Two with attention, of which one has experts, one with states, and one with all of them.
const MODELS: [&str; 4] = ["llama-dense", "gpt-oss-moe", "lfm2-dense", "qwen3next-moe"];

/// All layers.
const ALL: Offload = Offload { n_layers: Some(usize::MAX), n_cpu_moe: 0 };

/// A model of which a device computes all layers. `None` where there is no device.
fn load(path: &Path, limit: Option<u64>) -> Option<metallic::Result<(Model, MemoryPlan, Tier)>> {
    let (gpu, vram) = gpu_within(limit)?;
    let loader = GgufLoader::new(GgufFile::open(path).unwrap()).kv_type(KvType::F32);
    let loader = loader.context_length(256).batch(32).offload(gpu, ALL);
    let loaded = loader.plan().and_then(|(config, plan)| {
        let model = loader.load_planned(config, &plan)?;
        Ok((model, plan, vram))
    });
    Some(loaded)
}

/// From a device with room for nothing but what is on its way to one that lacks a byte: what goes first is the embedding, of
/// which the CPU reads rows.
#[test]
fn bits_do_not_depend_on_what_is_swapped_in() {
    let Some(root) = oracles() else { return };
    let tokens = tokens(&root);
    for name in MODELS {
        let path = root.join(format!("archs2/{name}.gguf"));
        let Some(all) = load(&path, None) else { return };
        let (mut model, plan, vram) = all.unwrap();
        assert_eq!((plan.swapped_bytes(), vram.used_bytes()), (0, plan.device_bytes(0)), "{name}");
        let expected = logits(&mut model, &tokens).unwrap();
        drop(model);

        let weights =
            plan.ledger.iter().find(|line| line.what == "weights" && line.device == Some(0)).unwrap();
        let without_weights = plan.device_bytes(0) - weights.bytes;
        let floor_bytes = match load(&path, Some(without_weights)).unwrap() {
            Err(Error::DeviceTooSmall { floor_bytes, .. }) => floor_bytes,
            other => panic!("{name}: no slots in {without_weights}? {:?}", other.err()),
        };
        assert!(floor_bytes < plan.device_bytes(0), "{name}");
        let below = load(&path, Some(floor_bytes - 1)).unwrap();
        assert!(matches!(below, Err(Error::DeviceTooSmall { floor_bytes: same, .. }) if same == floor_bytes));

        let mut most = u64::MAX;
        for step in 0..=4 {
            let limit = floor_bytes + (plan.device_bytes(0) - 1 - floor_bytes) * step / 4;
            let (mut model, plan, vram) = load(&path, Some(limit)).unwrap().unwrap();
            let swapped = plan.swapped_bytes();
            println!("{name} in {limit}: {} bytes, {swapped} swapped in", plan.device_bytes(0));
            assert!(swapped <= most && (step > 0 || swapped > 0), "{name}: {swapped} after {most}");
            most = swapped;
            assert!(vram.used_bytes() == plan.device_bytes(0) && vram.used_bytes() <= limit, "{name}");
            assert!(logits(&mut model, &tokens).unwrap() == expected, "{name} in {limit}");
        }
    }
}

/// Matrices that come in several chunks, of which a part stays.
#[test]
fn a_real_model_has_the_same_bits_in_half_the_memory() {
    let Some(path) = model("SmolLM2-135M-Instruct.Q4_1.gguf") else { return };
    let tokens: Vec<u32> = (0..24).map(|i| 100 + 37 * i).collect();
    let Some(all) = load(&path, None) else { return };
    let (mut whole, plan, _) = all.unwrap();
    let expected = logits(&mut whole, &tokens).unwrap();
    drop(whole);
    let (mut half, plan, vram) = load(&path, Some(plan.device_bytes(0) / 2)).unwrap().unwrap();
    assert!(plan.swapped_bytes() > 30 << 20, "{} are swapped in", plan.swapped_bytes());
    assert_eq!(vram.used_bytes(), plan.device_bytes(0));
    assert!(logits(&mut half, &tokens).unwrap() == expected);
}
