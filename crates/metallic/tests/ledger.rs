//! The plan's ledger against what the kernel says that the process took, and what a tokenizer is expected to take
//! against what it allocates. A test binary of its own, with one test, since all threads' memory is counted.

#![allow(clippy::unwrap_used, reason = "a test fails where it panics")]
#![cfg(all(target_os = "linux", target_env = "gnu"))]

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use metallic::model::{LogitsOf, Piece, Role};
use metallic::plan::{Holder, MemoryPlan};
use metallic::sampling::{Sampler, SamplingParams};
use metallic::text::Tokenizer;
use metallic::{Error, GgufFile, GgufLoader, LoadMode, MemoryBudget, Model, testing};

#[allow(dead_code, reason = "other tests use more of it")]
#[path = "models/oracles.rs"]
mod oracles;
use oracles::{Oracles, model};

/// The system's allocator, and how many bytes it has given out.
struct Counting(AtomicUsize);

#[global_allocator]
static ALLOCATOR: Counting = Counting(AtomicUsize::new(0));

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.0.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        self.0.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Pages that the process has to itself, stacks and all: `Anonymous` of `/proc/self/smaps_rollup` (proc(5)), with what
/// the allocator holds for later given back.
fn anonymous_bytes() -> u64 {
    // SAFETY: it only returns free memory to the system.
    unsafe { libc::malloc_trim(0) };
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Anonymous:")).unwrap();
    let kib: u64 = line.trim().strip_suffix("kB").unwrap().trim().parse().unwrap();
    kib << 10
}

/// What the allocator may keep beside, in parts of pages for each thread: it differs from run to run, and shows only
/// where all is small.
const ALLOCATOR_BYTES: u64 = 256 << 10;

/// The part of the ledger that stays untouched at most, where each thread of a few gets work, and where many share few
/// CPUs: work goes to whoever asks first, and a thread that never gets some never touches its buffers.
const IDLE: f64 = 0.02;
const IDLE_OF_MANY: f64 = 0.12;

#[test]
fn what_is_taken_is_what_the_ledger_says() {
    // SAFETY: it only says from which size on allocations are maps of their own, which are given back when freed.
    let status = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, 64 << 10) };
    assert_eq!(status, 1);
    let folder = tempfile::tempdir().unwrap();
    let tiny = folder.path().join("tiny.gguf");
    std::fs::write(&tiny, testing::tiny_model().unwrap()).unwrap();
    // Keys and values of long sequences make it large enough to be measured. The first time is for stacks.
    let mut warm = GgufLoader::new(GgufFile::open(&tiny).unwrap()).threads(2).load().unwrap();
    fill(&mut warm, 0);
    drop(warm);
    check(&tiny, IDLE, &|loader| loader.threads(2).context_length(8192).sequences(8).batch(512));
    let models = ["SmolLM2-135M-Instruct.Q4_1.gguf", "gemma-3-270m-q4_k_m.gguf"].map(model);
    for path in models.iter().flatten() {
        check(path, IDLE, &|loader| loader.threads(2).context_length(256).batch(64));
    }
    // Last, as the C library keeps the stacks of threads that have ended, and gives them back when it likes.
    check(&tiny, IDLE_OF_MANY, &|loader| loader.threads(100).context_length(512).batch(64));
    for path in models.iter().flatten() {
        let loader = GgufLoader::new(GgufFile::open(path).unwrap());
        compare(path, IDLE_OF_MANY, loader.threads(100).context_length(256).batch(16));
    }
    if let Some(oracles) = Oracles::find() {
        tokenizers(&oracles.path("tokenizers"));
    }
}

type Setup<'s> = &'s dyn Fn(GgufLoader<'static>) -> GgufLoader<'static>;

/// Loads a model in every way and at several budgets.
fn check(path: &Path, idle: f64, setup: Setup<'_>) {
    let loader = || setup(GgufLoader::new(GgufFile::open(path).unwrap()));
    compare(path, idle, loader());
    compare(path, idle, loader().mode(LoadMode::Slab));
    let everything = loader().plan().unwrap().1.total_bytes();
    let within = |ram| loader().budget(MemoryBudget::given(ram));
    let Err(Error::BudgetTooSmall { floor_bytes, .. }) = within(0).plan() else {
        panic!("a budget of nothing")
    };
    for i in 0..4 {
        compare(path, idle, within(floor_bytes + (everything - floor_bytes) * i / 4));
    }
}

/// Loads a model, fills all that it has, and compares: at most the part `idle` of the ledger may be untouched.
fn compare(path: &Path, idle: f64, loader: GgufLoader<'_>) {
    let (before, heap) = (anonymous_bytes(), ALLOCATOR.0.load(Ordering::Relaxed));
    let tokenizer = Tokenizer::from_gguf(&GgufFile::open(path).unwrap().gguf()).unwrap();
    let (config, plan) = loader.plan().unwrap();
    let mut model = loader.load_planned(config, &plan).unwrap();
    assert_eq!(model.ram().used_bytes(), plan.total_bytes(), "{}", path.display());
    let samplers: Vec<_> =
        (0..plan.request.capacity.n_sequences).map(|first| fill(&mut model, first)).collect();

    let (taken, ledger) = (anonymous_bytes() - before, itemised(&plan));
    let off = 100.0 * (taken as f64 / ledger as f64 - 1.0);
    println!("{}: {taken} bytes are {off:+.2} % off the ledger", path.display());
    let most = ledger + ledger / 50 + ALLOCATOR_BYTES;
    let least = ledger - (ledger as f64 * idle) as u64 - ALLOCATOR_BYTES;
    assert!((least..most).contains(&taken), "{taken} of {ledger}: {:#?}", plan.ledger);
    drop((tokenizer, model, samplers));
    let left = ALLOCATOR.0.load(Ordering::Relaxed).saturating_sub(heap);
    assert!(left < 64 << 10, "{left} bytes are left of {}", path.display());
}

/// Bytes of all lines but the program's and its engine's, those of maps and those outside the process.
fn itemised(plan: &MemoryPlan) -> u64 {
    let is_elsewhere = |what: &str| ["program", "tokens"].contains(&what);
    plan.ledger
        .iter()
        .filter(|line| ![Holder::Map, Holder::Kernel].contains(&line.holder) && !is_elsewhere(&line.what))
        .map(|line| line.bytes)
        .sum()
}

/// Fills a new sequence to its end, in batches of which the last rows give logits, and samples a token from all.
fn fill(model: &mut Model, first: usize) -> Sampler {
    let sequence = model.create_sequence();
    let tokens: Vec<u32> = (0..model.n_ctx()).map(|i| (first + 7 * i) as u32 % 250).collect();
    let mut sampler = Sampler::new(SamplingParams { top_k: 0, ..SamplingParams::default() }).unwrap();
    for (i, tokens) in tokens.chunks(model.n_batch()).enumerate() {
        let start = i * model.n_batch();
        let logits = tokens.len().saturating_sub(20)..tokens.len();
        let piece = Piece { sequence, start, tokens, role: Role::Prompt { len: model.n_ctx() }, logits };
        let last = model.n_ctx() - 1;
        let mut sink = |of: LogitsOf, logits: &mut [f32]| {
            if of.position == last {
                sampler.sample(logits);
            }
        };
        model.forward(&[piece], &mut sink).unwrap();
    }
    sampler
}

/// Compares what is expected of each tokenizer in a folder with what it takes.
fn tokenizers(folder: &Path) {
    let mut n_checked = 0;
    for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let Ok(file) = GgufFile::open(&path) else { continue };
        let before = ALLOCATOR.0.load(Ordering::Relaxed);
        let Ok(tokenizer) = Tokenizer::from_gguf(&file.gguf()) else { continue };
        tokenizer.encode("Words, and 12 345 numbers.\n", Default::default()).unwrap();
        let taken = (ALLOCATOR.0.load(Ordering::Relaxed) - before) as f64;
        let expected = Tokenizer::estimated_bytes(&file.gguf()) as f64;
        assert!((0.93..1.15).contains(&(expected / taken)), "{}: {expected} of {taken}", path.display());
        n_checked += 1;
    }
    assert!(n_checked > 10);
}
