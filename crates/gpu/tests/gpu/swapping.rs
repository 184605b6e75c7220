//! Weights that a device has no room for are swapped in as they are used: the bits are those of a device that has room for all.

use std::path::Path;

use metallic::backend::KvType;
use metallic::memory::{MemoryBudget, Tier};
use metallic::plan::{MemoryPlan, Offload};
use metallic::{Error, GgufFile, GgufLoader, Model};

use crate::gpu_within;
use crate::oracles::{generated, logits, oracles, tokens};
use crate::real_models::model;

/// Two with attention, of which one has experts, one with states, and one with all of them.
const MODELS: [&str; 4] = ["llama-dense", "gpt-oss-moe", "lfm2-dense", "qwen3next-moe"];

/// All layers.
const ALL: Offload = Offload { n_layers: None, swaps: true, n_cpu_moe: 0 };

/// Bytes of small models that the disk brings at a time: less than a matrix, and more than a row.
const CHUNK_BYTES: usize = 8000;

/// Whether a whole model is no larger than the chunks of a real one.
fn is_small(path: &Path) -> bool {
    std::fs::metadata(path).unwrap().len() < 4 << 20
}

/// A model of which a device computes all layers. `None` where there is no device.
fn load(path: &Path, limit: Option<u64>) -> Option<metallic::Result<(Model, MemoryPlan, Tier)>> {
    load_within(path, limit, None)
}

/// The same in a budget of main memory.
fn load_within(
    path: &Path,
    limit: Option<u64>,
    ram: Option<u64>,
) -> Option<metallic::Result<(Model, MemoryPlan, Tier)>> {
    let (gpu, vram) = gpu_within(limit)?;
    let loader = GgufLoader::new(GgufFile::open(path).unwrap()).kv_type(KvType::F32);
    let mut loader = loader.context_length(256).batch(32).offload(gpu, ALL);
    if let Some(ram) = ram {
        loader = loader.budget(MemoryBudget::given(ram));
        if is_small(path) {
            loader = loader.slots(2, CHUNK_BYTES);
        }
    }
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
        // What the device has of a matrix ends inside it.
        let some = floor_bytes.midpoint(plan.device_bytes(0));
        check_disk(name, &path, some, (&tokens, &expected), &[0, 1, 2, 3]);
    }
}

/// What main memory has no room for either comes from the disk: in budgets so many thirds of the way from the least to one
/// that has room for all. Each byte
/// that is streamed is read once a pass.
fn check_disk(name: &str, path: &Path, limit: u64, (tokens, expected): (&[u32], &[f32]), thirds: &[u64]) {
    let within = |ram| load_within(path, Some(limit), Some(ram)).unwrap();
    let everything = load(path, Some(limit)).unwrap().unwrap().1.total_bytes();
    let floor = match within(0) {
        Err(Error::BudgetTooSmall { floor_bytes, .. }) => floor_bytes,
        other => panic!("{name}: no error of the budget, but {:?}", other.err()),
    };
    assert!(floor < everything, "{name}: {floor} of {everything}");
    assert!(within(floor - 1).is_err(), "{name}: less than the floor");
    let mut most = u64::MAX;
    for third in thirds {
        let ram = floor + (everything - floor) * third / 3;
        let (mut model, plan, vram) = within(ram).unwrap();
        let streamed = plan.streamed_bytes();
        println!("{name} in {limit} and {ram} of main memory: {streamed} from the disk");
        assert!(plan.total_bytes() <= ram && vram.used_bytes() == plan.device_bytes(0), "{name}");
        assert!(streamed <= most && (streamed == 0) == (*third == 3), "{name}: {streamed} after {most}");
        most = streamed;
        assert!(logits(&mut model, tokens).unwrap() == expected, "{name} in {limit} and {ram}");
        let read = |model: &Model| model.stream_stats().map_or(0, |stats| stats.read_bytes);
        let before = read(&model);
        // Of one row, in one pass: the head is used once for every few rows of logits.
        let n_rows = tokens.len().min(plan.request.capacity.n_batch);
        let n_logits = expected.len() / tokens.len();
        let of_last = |_: usize, row: &mut [f32]| {
            assert!(row == &expected[(n_rows - 1) * n_logits..][..n_logits], "{name} in {limit} and {ram}");
        };
        model.evaluate(&tokens[..n_rows], n_rows - 1..n_rows, &mut { of_last }).unwrap();
        let per_pass = read(&model) - before;
        // Of an embedding that is streamed, a row a token is read, and of experts those that are wanted.
        let has_cache = plan.matrices.iter().any(|matrix| matrix.cache.is_some());
        let streamed = if has_cache { 0..=streamed } else { streamed..=streamed };
        let rows = plan.matrices.iter().filter(|matrix| matrix.device.is_none());
        let rows = rows.map(|matrix| matrix.weights.row_bytes()).sum::<u64>() * tokens.len() as u64;
        let expected = *streamed.start()..=streamed.end() + rows;
        assert!(expected.contains(&per_pass), "{name}: {per_pass} of {expected:?} a pass");
    }
}

/// Of experts those come that tokens are sent to, and stay as long as there are places, by any policy.
#[test]
fn experts_that_are_used_stay_on_the_device() {
    let Some(root) = oracles() else { return };
    let tokens = &tokens(&root)[..12];
    for name in ["gpt-oss-moe", "qwen3next-moe", "deepseek2-moe"] {
        let path = root.join(format!("archs2/{name}.gguf"));
        let Some(all) = load(&path, None) else { return };
        let (mut whole, plan, _) = all.unwrap();
        let expected = generated(&mut whole, tokens);
        assert_eq!(whole.device_stats().unwrap().experts.hits, 0);
        drop(whole);
        // A byte less than all leaves the embedding to the CPU, and one less than that leaves room for some experts.
        let (_, plan, _) = load(&path, Some(plan.device_bytes(0) - 1)).unwrap().unwrap();
        let Ok((mut model, plan, vram)) = load(&path, Some(plan.device_bytes(0) - 1)).unwrap() else {
            assert_ne!(name, "gpt-oss-moe", "its experts are larger than slots");
            continue;
        };
        assert_eq!(vram.used_bytes(), plan.device_bytes(0), "{name}");
        let of_experts = plan.matrices.iter().filter(|matrix| matrix.cache.is_some());
        let places = of_experts.clone().map(|matrix| matrix.cache.map_or(0, |cache| cache.n_places));
        let (n_places, experts) =
            (places.sum::<usize>(), of_experts.map(|matrix| matrix.host_bytes()).sum::<u64>());
        let others = plan.swapped_bytes() - experts;
        let rounds = [(); 2].map(|()| {
            let before = model.device_stats().unwrap();
            assert!(generated(&mut model, tokens) == expected, "{name}");
            model.device_stats().unwrap().since(before)
        });
        println!("{name}, {n_places} places: {:?}, then {:?}", rounds[0].experts, rounds[1].experts);
        for round in rounds {
            assert_eq!(
                round.swapped_bytes,
                round.experts.miss_bytes + others * tokens.len() as u64,
                "{name}: of experts only those that are wanted"
            );
            assert!(round.experts.miss_bytes < experts * tokens.len() as u64, "{name}");
        }
        assert!(n_places == 0 || rounds[1].experts.hits > 0, "{name}");
        assert!(n_places > 0 || name != "gpt-oss-moe", "{name} has places");
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
    let limit = plan.device_bytes(0);
    drop(half);
    check_disk("SmolLM2", &path, limit, (&tokens, &expected), &[1]);
}
