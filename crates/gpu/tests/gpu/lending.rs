//! Networks that the CPU computes are swapped in for long prompts: those have the bits of a model whose networks are on the device,
//! and all else those of one whose networks are not.

use std::path::Path;

use metallic::backend::KvType;
use metallic::memory::{MemoryBudget, Tier};
use metallic::plan::{MemoryPlan, Offload};
use metallic::{Error, GgufFile, GgufLoader, Model};

use crate::gpu_within;
use crate::oracles::{generated, logits, oracles, tokens};
use crate::real_models::model;

/// A dense one, one with experts, and one with states and shared experts.
const MODELS: [&str; 3] = ["llama-dense", "gpt-oss-moe", "qwen3next-moe"];

/// The last layer and the head are on the device.
const LAST: Offload = Offload { n_layers: Some(1), swaps: false, n_cpu_moe: 0 };

/// Where a prompt is long.
const LONG: usize = 24;

/// Bytes of small models that the disk brings at a time: less than a matrix, and more than a row.
const CHUNK_BYTES: usize = 8000;

/// A model that lends networks to a device, if it is to. `None` where there is no device.
fn load(
    path: &Path,
    long: Option<usize>,
    vram: Option<u64>,
    ram: Option<u64>,
) -> Option<metallic::Result<(Model, MemoryPlan, Tier)>> {
    let (gpu, vram) = gpu_within(vram)?;
    let loader = GgufLoader::new(GgufFile::open(path).unwrap()).kv_type(KvType::F32);
    let mut loader = loader.context_length(128).batch(32).offload(gpu, LAST).lend_for_prompts(long);
    if let Some(ram) = ram {
        loader = loader.budget(MemoryBudget::given(ram)).slots(2, CHUNK_BYTES);
    }
    let loaded = loader.plan().and_then(|(config, plan)| {
        let model = loader.load_planned(config, &plan)?;
        Ok((model, plan, vram))
    });
    Some(loaded)
}

/// A model whose last layer, head, and all networks are on a device.
fn with_all_networks_there(path: &Path) -> Model {
    let (gpu, _) = gpu_within(None).unwrap();
    let loader = GgufLoader::new(GgufFile::open(path).unwrap()).kv_type(KvType::F32);
    let n_layers = loader.plan().unwrap().0.layers.len();
    let is_there = move |part: usize| part > 2 * (n_layers - 1) || (part > 0 && part.is_multiple_of(2));
    loader.context_length(128).batch(32).place(gpu, is_there).load().unwrap()
}

fn swapped_bytes(model: &Model) -> u64 {
    model.device_stats().unwrap().swapped_bytes
}

#[test]
fn long_prompts_borrow_networks_and_nothing_else_does() {
    let Some(root) = oracles() else { return };
    let tokens = &tokens(&root)[..LONG + 9];
    for name in MODELS {
        let path = root.join(format!("archs2/{name}.gguf"));
        let Some(usual) = load(&path, None, None, None) else { return };
        let (mut usual, without, _) = usual.unwrap();
        let mut there = with_all_networks_there(&path);
        let (mut model, plan, vram) = load(&path, Some(LONG), None, None).unwrap().unwrap();
        assert_eq!((without.lent_bytes(), without.long_prompts_from()), (0, None), "{name}");
        assert_eq!(plan.long_prompts_from(), Some(LONG), "{name}");
        assert_eq!(plan.total_bytes() - without.total_bytes(), 0, "{name}: main memory has them once");
        assert_eq!(vram.used_bytes(), plan.device_bytes(0), "{name}");

        let answer = &tokens[..4];
        assert!(generated(&mut model, answer) == generated(&mut usual, answer), "{name}: an answer");
        let short = &tokens[..LONG - 1];
        assert!(logits(&mut model, short).unwrap() == logits(&mut usual, short).unwrap(), "{name}: short");
        assert_eq!(swapped_bytes(&model), 0, "{name}");
        // In two batches.
        let expected = logits(&mut there, tokens).unwrap();
        assert!(logits(&mut model, tokens).unwrap() == expected, "{name}: long");
        println!("{name}: {} bytes lent, {} swapped in", plan.lent_bytes(), swapped_bytes(&model));
        assert_eq!(swapped_bytes(&model), 2 * plan.lent_bytes(), "{name}");
        assert!(generated(&mut model, answer) == generated(&mut usual, answer), "{name}: an answer after it");

        // So many bytes are enough.
        let exact = (plan.device_bytes(0), plan.total_bytes());
        let (mut model, plan, _) = load(&path, Some(LONG), Some(exact.0), Some(exact.1)).unwrap().unwrap();
        assert_eq!((plan.device_bytes(0), plan.total_bytes(), plan.streamed_bytes()), (exact.0, exact.1, 0));
        assert!(logits(&mut model, tokens).unwrap() == expected, "{name}");

        // And with the rest on the disk, which the CPU reads for answers and the device for long prompts.
        let floor = match load(&path, Some(LONG), None, Some(0)).unwrap() {
            Err(Error::BudgetTooSmall { floor_bytes, .. }) => floor_bytes,
            other => panic!("{name}: no error of the budget, but {:?}", other.err()),
        };
        for ram in [floor, floor.midpoint(exact.1)] {
            let (mut model, plan, _) = load(&path, Some(LONG), None, Some(ram)).unwrap().unwrap();
            println!("{name} in {ram}: {} from the disk", plan.streamed_bytes());
            assert!(plan.total_bytes() <= ram && plan.streamed_bytes() > 0, "{name} in {ram}");
            for _ in 0..2 {
                assert!(generated(&mut model, answer) == generated(&mut usual, answer), "{name} in {ram}");
                assert!(logits(&mut model, tokens).unwrap() == expected, "{name} in {ram}");
            }
        }
    }
}

/// Matrices of several chunks.
#[test]
fn a_real_model_lends_its_networks() {
    let Some(path) = model("SmolLM2-135M-Instruct.Q4_1.gguf") else { return };
    let tokens: Vec<u32> = (0..24).map(|i| 100 + 37 * i).collect();
    let Some(lending) = load(&path, Some(24), None, None) else { return };
    let (mut lending, plan, _) = lending.unwrap();
    assert!(plan.lent_bytes() > 40 << 20, "{} are lent", plan.lent_bytes());
    let expected = logits(&mut with_all_networks_there(&path), &tokens).unwrap();
    assert!(logits(&mut lending, &tokens).unwrap() == expected);
    assert_eq!(swapped_bytes(&lending), plan.lent_bytes());
}
