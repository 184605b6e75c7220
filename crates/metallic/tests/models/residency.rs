//! Where the weights are makes no difference: the same bits whatever stays in memory and whatever is swapped in, in
//! chunks of whatever size, by whatever reader.

use metallic::memory::{ExpertPolicy, MemoryBudget, ReaderKind};
use metallic::model::{Piece, Role};
use metallic::plan::{MatrixPlan, MemoryPlan, Placement};
use metallic::{Error, GgufFile, GgufLoader, Model, testing};

use crate::containers::write_shards;
use crate::oracles::{Oracles, is_full, model};

/// Slots, and bytes of a chunk: from a row at a time to more than any matrix here.
const SLOTS: [(usize, usize); 4] = [(1, 1), (2, 1000), (3, 20_000), (8, 4 << 20)];

fn logits(model: &mut Model, tokens: &[u32]) -> Vec<f32> {
    let mut all = Vec::new();
    model.evaluate(tokens, 0..tokens.len(), &mut |_, logits| all.extend_from_slice(logits)).expect("logits");
    // As an answer, too: it goes another way than a prompt.
    let sequence = model.create_sequence();
    let piece = Piece { sequence, start: 0, tokens, role: Role::Generated, logits: 0..tokens.len() };
    model.forward(&[piece], &mut |_, logits| all.extend_from_slice(logits)).expect("logits");
    model.release_sequence(sequence);
    all
}

/// The least budget, and the one that holds everything.
fn limits(loader: &GgufLoader<'_>, at_least: GgufLoader<'_>) -> (u64, u64) {
    let everything = loader.plan().expect("a plan").1.total_bytes();
    match at_least.plan() {
        Err(Error::BudgetTooSmall { floor_bytes, budget_bytes: 0, .. }) => (floor_bytes, everything),
        other => panic!("{:?} is no floor", other.map(|(_, plan)| plan)),
    }
}

/// A model, and the plan that it was loaded as.
fn load(loader: GgufLoader<'_>) -> (Model, MemoryPlan) {
    let (config, plan) = loader.plan().expect("a budget that is enough");
    (loader.load_planned(config, &plan).expect("a model within its budget"), plan)
}

fn check(name: &str, loader: &dyn Fn() -> GgufLoader<'static>, tokens: &[u32]) {
    let expected = logits(&mut loader().load().expect("a model"), tokens);
    let readers: Vec<ReaderKind> = ReaderKind::available().collect();
    // In turns, so that each number of slots meets each reader.
    let mut readers = readers.iter().copied().cycle();
    for (i, (n_slots, chunk_bytes)) in (1..).zip(SLOTS) {
        let with = |ram: u64| loader().slots(n_slots, chunk_bytes).budget(MemoryBudget::given(ram));
        let (floor, everything) = limits(&loader(), with(0));
        assert!(with(floor - 1).plan().is_err(), "{name}: less than the floor");
        let part = |i: u64, n: u64| floor + everything.saturating_sub(floor) * i / n;
        let gating = [floor, part(i, SLOTS.len() as u64 + 1), everything];
        let all = (0..=6).map(|i| part(i, 6));
        let budgets: Vec<u64> = if is_full() { all.collect() } else { gating.to_vec() };
        for ram in budgets {
            let reader = readers.next().expect("threads at least");
            let (mut model, plan) = load(with(ram).reader(reader));
            assert!(plan.total_bytes() <= ram, "{name}: {} of {ram} bytes", plan.total_bytes());
            let what = format!("{n_slots} x {chunk_bytes}, {ram} bytes, {}", reader.name());
            assert!(logits(&mut model, tokens) == expected, "{name}: {what}");
            check_stats(name, &model, &plan, reader);
        }
    }
}

/// Whoever streams says so, and has read all that is not resident; of experts, perhaps not all were asked for.
fn check_stats(name: &str, model: &Model, plan: &MemoryPlan, reader: ReaderKind) {
    let Some(stats) = model.stream_stats() else {
        return assert_eq!(plan.stream, None, "{name}");
    };
    let streamed = plan.streamed_bytes();
    assert_eq!(stats.reader, reader, "{name}");
    assert!(stats.read_bytes >= streamed || name.contains("moe"), "{name}: {stats:?}");
}

#[test]
fn logits_have_the_same_bits_whatever_is_streamed() {
    let Some(oracles) = Oracles::find() else { return };
    let tokens = oracles.tokens();
    for name in oracles.supported() {
        let path = oracles.path(&format!("{name}.gguf"));
        let loader = || GgufLoader::new(GgufFile::open(&path).expect("an oracle")).threads(2).batch(64);
        check(&name, &loader, &tokens);
    }
}

/// Cached experts are the ones that would have been read: from a place for a few to places for all, whichever stay, with
/// whole experts or a few rows in a chunk.
#[test]
fn logits_have_the_same_bits_whichever_experts_are_cached() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("mixture.gguf");
    std::fs::write(&path, testing::tiny_mixture().expect("a model")).expect("a file");
    let tokens: Vec<u32> = (0..16).map(|i| i * 7 % 256).collect();
    let rates = check_cached("tiny mixture", &path, &tokens);
    let some = |is: fn(f64) -> bool| rates.iter().any(|rate| is(*rate));
    assert!(some(|rate| rate < 0.5) && some(|rate| rate > 0.5), "{rates:?}");
    if let Some(oracles) = Oracles::find() {
        for name in oracles.supported().into_iter().filter(|name| name.ends_with("-moe")) {
            let rates = check_cached(&name, &oracles.path(&format!("{name}.gguf")), &oracles.tokens());
            assert!(rates.iter().any(|rate| *rate > 0.0), "{name}: {rates:?}");
        }
    }
}

/// Returns the shares of bytes that were found in the cache.
fn check_cached(name: &str, path: &std::path::Path, tokens: &[u32]) -> Vec<f64> {
    let loader = || {
        let file = GgufFile::open(path).expect("a model");
        GgufLoader::new(file).threads(2).context_length(64).batch(64)
    };
    let expected = logits(&mut loader().load().expect("a model"), tokens);
    let mut rates = Vec::new();
    for policy in ExpertPolicy::ALL {
        for (n_slots, chunk_bytes) in [(2, 5000), (3, 20_000)] {
            let with = |ram: u64| {
                loader().expert_policy(policy).slots(n_slots, chunk_bytes).budget(MemoryBudget::given(ram))
            };
            let (floor, everything) = limits(&loader(), with(0));
            for ram in (0..=4).map(|i| floor + (everything.saturating_sub(floor + 1)) * i / 4) {
                let (mut model, plan) = load(with(ram));
                assert!(plan.total_bytes() <= ram, "{name}: {} of {ram} bytes", plan.total_bytes());
                assert!(
                    logits(&mut model, tokens) == expected,
                    "{name}: {policy}, {chunk_bytes}, {ram} bytes"
                );
                // Again, with what has stayed.
                assert!(
                    logits(&mut model, tokens) == expected,
                    "{name}: {policy}, {chunk_bytes}, {ram} bytes"
                );
                let experts = model.stream_stats().expect("streams").experts;
                let cached = plan.ledger.iter().any(|line| line.what == "expert cache");
                assert_eq!(experts.hits > 0, cached, "{name}: {experts:?}");
                rates.extend(experts.hit_rate());
            }
        }
    }
    rates
}

#[test]
fn a_split_model_is_streamed_from_all_its_shards() {
    let Some(oracles) = Oracles::find() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let paths = write_shards(&oracles.read("archs/qwen3-dense.gguf"), 300_000, folder.path());
    assert!(paths.len() >= 3, "{paths:?}");
    let loader = || GgufLoader::new(GgufFile::open(&paths[0]).expect("shards")).threads(2).batch(64);
    check("shards", &loader, &oracles.tokens());
}

#[test]
fn after_a_read_that_failed_the_next_pass_is_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("mixture.gguf");
    let bytes = testing::tiny_mixture().expect("a model");
    std::fs::write(&path, &bytes).expect("a file");
    let loader =
        || GgufLoader::new(GgufFile::open(&path).expect("a model")).threads(1).context_length(64).batch(16);
    let least = limits(&loader(), loader().budget(MemoryBudget::given(0))).0;
    let mut model = loader().budget(MemoryBudget::given(least)).load().expect("a model within its budget");
    let tokens: Vec<u32> = (65..75).collect();
    let sequence = model.create_sequence();
    // Not by `evaluate`, which would refuse a file that was written to.
    let mut pass = || {
        let mut all = Vec::new();
        let role = Role::Prompt { len: tokens.len() };
        let piece = Piece { sequence, start: 0, tokens: &tokens, role, logits: 0..tokens.len() };
        model.forward(&[piece], &mut |_, logits| all.extend_from_slice(logits)).map(|()| all)
    };
    let expected = pass().expect("logits");
    let file = std::fs::File::options().write(true).open(&path).expect("the file");
    file.set_len(bytes.len() as u64 / 2).expect("half of it");
    assert!(matches!(pass(), Err(Error::Stream { .. })));
    std::fs::write(&path, bytes).expect("the file, as the reader knows it by its handle");
    assert!(pass().expect("logits") == expected);
    let evaluated = model.evaluate(&tokens, 0..1, &mut |_, _| panic!("logits of a file that was written to"));
    assert!(matches!(evaluated, Err(Error::FileChanged { .. })), "{evaluated:?}");
    // Told of all tokens before any runs.
    let beyond: Vec<u32> = (0..60).chain([u32::MAX]).collect();
    let evaluated = model.evaluate(&beyond, 0..60, &mut |_, _| panic!("logits before the error"));
    assert!(matches!(evaluated, Err(Error::TokenOutOfRange { id: u32::MAX, .. })), "{evaluated:?}");
}

#[test]
fn a_real_model_streams_each_byte_once_a_pass() {
    let Some(path) = model("SmolLM2-135M-Instruct.Q4_1.gguf") else { return };
    let loader = || {
        let file = GgufFile::open(&path).expect("a model");
        GgufLoader::new(file).threads(2).context_length(256).batch(64)
    };
    let tokens: Vec<u32> = (100..140).collect();
    let mut all = loader().load().expect("a model");
    let (floor, everything) = limits(&loader(), loader().budget(MemoryBudget::given(0)));
    for ram in [floor, (floor + everything) / 2, everything - 1] {
        let (mut model, plan) = load(loader().budget(MemoryBudget::given(ram)));
        let streamed = plan.streamed_bytes();
        assert!(streamed > 0 && plan.total_bytes() <= ram);
        let is_split = |matrix: &MatrixPlan| matches!(matrix.placement, Placement::Split { .. });
        let n_split = plan.matrices.iter().filter(|matrix| is_split(matrix)).count();
        assert_eq!(n_split, usize::from(ram > floor), "what is left goes to a part of a matrix");
        for position in 0..3 {
            let before = model.stream_stats().expect("streams").read_bytes;
            let mut found = Vec::new();
            model
                .evaluate(&tokens, 39..40, &mut |_, logits| found.extend_from_slice(logits))
                .expect("logits");
            let mut expected = Vec::new();
            all.evaluate(&tokens, 39..40, &mut |_, logits| expected.extend_from_slice(logits))
                .expect("logits");
            assert!(found == expected, "{ram} bytes");
            // Its head is the token embedding, of which a row a token is read as well.
            let read = model.stream_stats().expect("streams").read_bytes - before;
            let rows = 40 * 576 * 2; // a weight takes at most two bytes
            assert!((streamed..=streamed + rows).contains(&read), "pass {position}: {read} of {streamed}");
        }
    }
}
