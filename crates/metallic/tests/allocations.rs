//! The token loop allocates nothing: a forward pass for a token never (where weights are streamed nothing large), a
//! step of the engine only the text that it hands out. A program of its own, without the test harness, since all
//! threads' allocations are counted, and the harness makes some when a test takes a minute.

#![allow(clippy::unwrap_used, reason = "a test fails where it panics")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use metallic::memory::MemoryBudget;
use metallic::model::{Piece, Role};
use metallic::sampling::SamplingParams;
use metallic::text::Tokenizer;
use metallic::{Engine, Error, Event, GgufFile, GgufLoader, Request, testing};

#[allow(dead_code, reason = "other tests use more of it")]
#[path = "models/oracles.rs"]
mod oracles;
use oracles::{Oracles, model};

/// The system's allocator, and how often it was asked for memory and for how much at most.
struct Counting {
    n: AtomicUsize,
    most_bytes: AtomicUsize,
}

#[global_allocator]
static ALLOCATOR: Counting = Counting { n: AtomicUsize::new(0), most_bytes: AtomicUsize::new(0) };

impl Counting {
    fn count(&self, n_bytes: usize) {
        self.n.fetch_add(1, Ordering::Relaxed);
        self.most_bytes.fetch_max(n_bytes, Ordering::Relaxed);
    }
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.count(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.count(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        self.count(new_size);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

/// How often `work` asked for memory, on whatever thread.
fn allocations(work: impl FnOnce()) -> usize {
    let before = ALLOCATOR.n.load(Ordering::Relaxed);
    ALLOCATOR.most_bytes.store(0, Ordering::Relaxed);
    work();
    ALLOCATOR.n.load(Ordering::Relaxed) - before
}

/// Tokens before counting begins: buffers find their sizes.
const N_WARM: usize = 4;

fn main() {
    // As the harness has it, other tests may be asked for.
    const NAME: &str = "the_token_loop_allocates_nothing";
    let mut filters = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).peekable();
    if filters.peek().is_some() && !filters.any(|filter| NAME.contains(&filter)) {
        return;
    }
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 1, "the count counts");
    let folder = tempfile::tempdir().unwrap();
    let tiny = folder.path().join("tiny.gguf");
    std::fs::write(&tiny, testing::tiny_model().unwrap()).unwrap();

    engine_steps(GgufFile::open(&tiny).unwrap());
    let oracles = Oracles::find();
    let architectures = oracles.iter().flat_map(|oracles| {
        let names = oracles.supported().into_iter().filter(|name| name.starts_with("archs/")); // the others are their twins
        names.map(|name| oracles.path(&format!("{name}.gguf")))
    });
    // The second has quantized weights.
    for path in
        [Some(tiny), model("SmolLM2-135M-Instruct.Q4_1.gguf")].into_iter().flatten().chain(architectures)
    {
        let loader = || GgufLoader::new(GgufFile::open(&path).unwrap()).threads(2);
        forward_passes(&path, loader());
        forward_passes(&path, within_half(loader));
    }
}

/// With a budget half way between the least and what the model takes.
fn within_half<'p>(loader: impl Fn() -> GgufLoader<'p>) -> GgufLoader<'p> {
    let (_, plan) = loader().plan().unwrap();
    let loader = || loader().context_length(plan.request.capacity.n_ctx).batch(plan.request.capacity.n_batch);
    let within = |ram| loader().budget(MemoryBudget::given(ram));
    let Err(Error::BudgetTooSmall { floor_bytes, .. }) = within(0).plan() else {
        panic!("a budget of nothing")
    };
    within(floor_bytes.midpoint(plan.total_bytes()))
}

/// What threads that wait for each other may allocate where weights are streamed.
const SMALL_BYTES: usize = 1 << 10;

/// Decodes across the border of a page of keys and values.
fn forward_passes(path: &Path, loader: GgufLoader<'_>) {
    let mut model = loader.load().unwrap();
    let streams = model.stream_stats().is_some();
    let sequence = model.create_sequence();
    let (n_ctx, mut next) = (model.n_ctx().min(264), 1);
    let mut decode = |positions: std::ops::Range<usize>| {
        for start in positions {
            let tokens = [next];
            let piece = Piece { sequence, start, tokens: &tokens, role: Role::Generated, logits: 0..1 };
            let sink = &mut |_, logits: &mut [f32]| {
                next =
                    (0..).zip(&*logits).fold((0, f32::MIN), |a, (i, &x)| if x > a.1 { (i, x) } else { a }).0;
            };
            model.forward(&[piece], sink).unwrap();
        }
    };
    decode(0..N_WARM);
    let n = allocations(|| decode(N_WARM..n_ctx));
    let most_bytes = ALLOCATOR.most_bytes.load(Ordering::Relaxed);
    if streams {
        assert!(most_bytes <= SMALL_BYTES, "{}: {most_bytes} at once", path.display());
    } else {
        assert_eq!(n, 0, "{}", path.display());
    }
}

/// Answers two requests at a time: a step allocates only each text, as its tokens complete it and as it is
/// handed out.
fn engine_steps(file: GgufFile) {
    let tokenizer = Tokenizer::from_gguf(&file.gguf()).unwrap();
    let model = GgufLoader::new(file).threads(2).sequences(2).load().unwrap();
    let mut engine = Engine::new(model, tokenizer);
    for prompt in [vec![256, 65, 66], vec![256, 97]] {
        // Of ASCII alone each token is a text; what is no UTF-8 is written anew.
        let logit_bias = (128..=testing::END_OF_TURN).map(|id| (id, f32::NEG_INFINITY)).collect();
        let sampling = SamplingParams { seed: Some(1), logit_bias, ..SamplingParams::default() };
        engine.submit(Request { sampling, ..Request::new(prompt) }).unwrap();
    }
    let mut n_texts = 0;
    let mut step = |engine: &mut Engine| {
        engine.step(&mut |event| n_texts += usize::from(matches!(event, Event::Text { .. })))
    };
    for _ in 0..N_WARM {
        assert!(step(&mut engine), "more to say");
    }
    let mut n_steps = 0;
    let n_allocations = allocations(|| {
        while n_steps < 100 && step(&mut engine) {
            n_steps += 1;
        }
    });
    assert!(n_steps > 20 && n_allocations <= 2 * n_texts, "{n_allocations} for {n_texts} in {n_steps} steps");
}
