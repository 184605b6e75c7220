//! What a plan says that a device will hold is what it holds, to the byte.

use std::path::Path;

use metallic::backend::conformance::nmse;
use metallic::backend::{Backend, KvLayout, KvType};
use metallic::memory::Tier;
use metallic::model::Usage;
use metallic::plan::Offload;
use metallic::{Error, GgufFile, GgufLoader, MemoryBudget, Model};
use metallic_gpu::Gpu;

use crate::gpu_within;
use crate::oracles::{MAX_NMSE, floats, logits, oracles, tokens};
use crate::real_models::model;

/// A model that a device computes as much of as its memory has room for.
struct Fitted {
    model: Model,
    vram: Tier,
    device_bytes: u64,
    /// Matrices of weights that the device has.
    n_on_device: usize,
    /// Bytes of weights that the CPU reads for a token.
    left_to_cpu: f64,
}

/// `None` where there is no device.
fn fit(path: &Path, limit: Option<u64>) -> Option<metallic::Result<Fitted>> {
    let (gpu, vram) = gpu_within(limit)?;
    let loader = GgufLoader::new(GgufFile::open(path).unwrap()).kv_type(KvType::F32);
    let loader = loader.context_length(256).batch(32).sequences(2).offload(gpu, Offload::AUTO);
    let fitted = loader.plan().and_then(|(config, plan)| {
        let device_bytes = plan.device_bytes(0);
        let n_on_device = plan.matrices.iter().filter(|matrix| matrix.device == Some(0)).count();
        let of_cpu = plan.matrices.iter().filter(|matrix| matrix.device.is_none());
        let bytes = of_cpu.map(|matrix| match matrix.weights.usage {
            Usage::Whole | Usage::Logits => matrix.weights.bytes as f64,
            Usage::Experts { n_used, n_expert } => {
                matrix.weights.bytes as f64 * n_used as f64 / n_expert as f64
            }
            Usage::Row => 0.0,
        });
        let left_to_cpu = bytes.sum();
        let model = loader.load_planned(config, &plan)?;
        Ok(Fitted { model, vram, device_bytes, n_on_device, left_to_cpu })
    });
    Some(fitted)
}

/// From a device with room for all, to one that lacks a byte of that, and so on to one that has no room for a part.
#[test]
fn devices_hold_what_is_planned() {
    let Some(root) = oracles() else { return };
    let tokens = tokens(&root);
    for name in ["llama-dense", "gpt-oss-moe", "mamba2-dense", "qwen3next-moe"] {
        let path = root.join(format!("archs2/{name}.gguf"));
        let expected = floats(path.with_extension("logits.f32"));
        let (mut limit, mut left_before) = (None, 0.0);
        let floor = loop {
            let Some(fitted) = fit(&path, limit) else { return };
            let mut fitted = match fitted {
                Ok(fitted) => fitted,
                Err(Error::DeviceTooSmall { floor_bytes, budget_bytes, .. }) => {
                    assert_eq!(Some(budget_bytes), limit, "{name}");
                    assert!(floor_bytes > budget_bytes, "{name}");
                    break floor_bytes;
                }
                Err(error) => panic!("{name} in {limit:?}: {error}"),
            };
            let error = nmse(&logits(&mut fitted.model, &tokens).unwrap(), &expected);
            println!(
                "{name} in {limit:?}: {} bytes, {} matrices, {} left, {error:.2e}",
                fitted.device_bytes, fitted.n_on_device, fitted.left_to_cpu
            );
            assert!(error < MAX_NMSE, "{name}: {error:.2e}");
            assert_eq!(fitted.vram.used_bytes(), fitted.device_bytes, "{name}");
            assert!(limit.is_none_or(|limit| fitted.device_bytes <= limit), "{name}");
            if limit.is_none() {
                assert_eq!(fitted.left_to_cpu, 0.0, "{name}");
                // The same again with just as much as that.
                limit = Some(fitted.device_bytes);
                let exact = fit(&path, limit).expect("a device").unwrap();
                assert_eq!(exact.vram.used_bytes(), fitted.device_bytes, "{name}");
                assert_eq!(exact.n_on_device, fitted.n_on_device, "{name}");
            }
            assert!(fitted.left_to_cpu >= left_before, "{name}: less room leaves the CPU no less");
            left_before = fitted.left_to_cpu;
            limit = Some(fitted.device_bytes - 1);
            drop(fitted.model);
            assert_eq!(fitted.vram.used_bytes(), 0, "{name}: all comes back");
        };
        let least = fit(&path, Some(floor)).expect("a device").unwrap();
        assert_eq!(least.vram.used_bytes(), floor, "{name}");
        assert!(least.n_on_device > 0, "{name}");
    }
}

/// Where a device has no memory but the host's, its bytes are in both budgets, once.
#[test]
fn what_a_device_shares_counts_in_main_memory() {
    let Some(root) = oracles() else { return };
    let tokens = tokens(&root);
    let Some(device) = crate::device() else { return };
    if device.report().has_own_memory() {
        println!("skipped: {} has memory of its own", device.report());
        return;
    }
    for name in ["llama-dense", "gpt-oss-moe"] {
        let path = root.join(format!("archs2/{name}.gguf"));
        let expected = floats(path.with_extension("logits.f32"));
        let load = |ram: Option<u64>| {
            let vram = Tier::named("vram", Some(1 << 30));
            let gpu = Gpu::new(crate::device().expect("a device"), vram.clone()).expect("a backend");
            let loader = GgufLoader::new(GgufFile::open(&path).unwrap()).kv_type(KvType::F32);
            let mut loader = loader.context_length(256).batch(32).offload(gpu, Offload::AUTO);
            if let Some(ram) = ram {
                loader = loader.budget(MemoryBudget::given(ram));
            }
            let (config, plan) = loader.plan()?;
            let mut model = loader.load_planned(config, &plan)?;
            assert_eq!(vram.used_bytes(), plan.device_bytes(0), "{name}");
            assert_eq!(model.ram().used_bytes(), plan.total_bytes(), "{name}");
            let error = nmse(&logits(&mut model, &tokens).unwrap(), &expected);
            assert!(error < MAX_NMSE, "{name} in {ram:?}: {error:.2e}");
            Ok(plan)
        };
        let all = load(None).unwrap();
        let (on_device, total) = (all.device_bytes(0), all.total_bytes());
        let of_main: u64 =
            all.ledger.iter().filter(|line| line.device.is_none()).map(|line| line.bytes).sum();
        assert_eq!(total, of_main + on_device, "{name}");
        assert_eq!(load(Some(total)).unwrap().device_bytes(0), on_device, "{name}");
        let Err(Error::BudgetTooSmall { floor_bytes, .. }) = load(Some(1 << 20)) else {
            panic!("{name}: a megabyte holds no model")
        };
        assert!(load(Some(floor_bytes)).unwrap().total_bytes() <= floor_bytes, "{name}");
        assert!(matches!(load(Some(floor_bytes - 1)), Err(Error::BudgetTooSmall { .. })), "{name}");
    }
}

/// Of a model whose weights are most of it the device takes what main memory has room for.
#[test]
fn what_a_device_shares_leaves_room_for_the_rest() {
    let Some(path) = model("SmolLM2-135M-Instruct.Q4_1.gguf") else { return };
    let Some(device) = crate::device().filter(|device| !device.report().has_own_memory()) else { return };
    drop(device);
    let plan = |ram: Option<u64>| {
        let gpu = Gpu::new(crate::device().expect("a device"), Tier::named("vram", Some(1 << 30)));
        let loader = GgufLoader::new(GgufFile::open(&path).unwrap()).context_length(512);
        let mut loader = loader.offload(gpu.expect("a backend"), Offload::AUTO);
        if let Some(ram) = ram {
            loader = loader.budget(MemoryBudget::given(ram));
        }
        loader.plan().map(|(_, plan)| plan)
    };
    let all = plan(None).unwrap();
    let mut before = all.device_bytes(0);
    for share in [0.9, 0.8, 0.7] {
        let ram = (all.total_bytes() as f64 * share) as u64;
        let less = plan(Some(ram)).unwrap();
        println!("{} bytes of {ram} on the device, {} streamed", less.device_bytes(0), less.streamed_bytes());
        assert!(less.total_bytes() <= ram && (1..before).contains(&less.device_bytes(0)), "in {ram}");
        before = less.device_bytes(0);
    }
}

/// Whatever the numbers and the lengths of heads: what would take more than its pages is refused.
#[test]
fn keys_and_values_take_the_bytes_of_their_pages() {
    const N_PAGES: usize = 3;
    let Some((gpu, vram)) = gpu_within(None) else { return };
    for kv_type in KvType::ALL {
        let mut taken = Vec::new();
        for [key_len, value_len] in [[64, 64], [80, 96], [23, 16], [24, 15], [23, 15], [1, 1]] {
            let layout = KvLayout::new(kv_type, 256, 2, key_len, value_len).unwrap();
            let before = vram.used_bytes();
            let Ok(_kept) = gpu.kv_layer(&layout, N_PAGES) else { continue };
            taken.push([key_len, value_len]);
            let planned = N_PAGES * layout.page_bytes().iter().sum::<usize>();
            assert_eq!(vram.used_bytes() - before, planned as u64, "{kv_type}, {key_len} and {value_len}");
        }
        // The plan has room for pairs of columns of keys as bfloat16.
        let n_expected = match kv_type {
            KvType::F32 | KvType::Q8_0 => 6,
            KvType::F16 => 2,
            KvType::BF16 => 3,
            KvType::Q4_0 => 0,
        };
        assert_eq!(taken.len(), n_expected, "{kv_type}: {taken:?}");
    }
}
