//! Model files, opened and loaded with errors and progress fit for a terminal.

use std::fmt;
use std::io;
use std::path::Path;

use metallic::loader::DEFAULT_MAX_CONTEXT;
use metallic::model::ModelConfig;
use metallic::text::{EncodeOptions, Tokenizer};
use metallic::{Error, GgufFile, GgufLoader, LoadMode, MemoryBudget, MemoryPlan, Model};

use crate::args::{ComputeArgs, EngineArgs, Load, OpOffload, RateArgs};
use crate::budget;
use crate::failure::{Failure, Kind, Result};
use crate::gpu::{self, GpuCounters};
use crate::placing::{self, Decided};
use crate::rates::MachineRates;
use crate::terminal::{Terminal, human_bytes};

/// What to make of output, once the model's file has changed.
pub(crate) const VOID: &str = "what was printed is void";

/// Opens a model, all its shards if it has several.
pub(crate) fn open(path: &Path) -> Result<GgufFile> {
    GgufFile::open(path).map(guarded).map_err(unreadable)
}

/// Opens one file by itself, even if it is a shard of a model.
pub(crate) fn open_alone(path: &Path) -> Result<GgufFile> {
    GgufFile::open_alone(path).map(guarded).map_err(unreadable)
}

/// Has the file named and an exit code of its own if it is cut short while it is mapped: the system would end the process
/// without a word.
#[cfg(unix)]
fn guarded(file: GgufFile) -> GgufFile {
    let message = |path: &Path| {
        let path = crate::failure::one_line(&path.display().to_string());
        format!(
            "error: {path} was cut short while it was in use: {VOID}: run it again when the file is whole\n"
        )
    };
    if let Err(error) = file.exit_on_bus_error(Kind::ModelChanged as u8, message) {
        tracing::warn!("if the model's file is cut short, nothing will say so: {error}");
    }
    file
}

/// On other systems a mapped file can't be cut short.
#[cfg(not(unix))]
fn guarded(file: GgufFile) -> GgufFile {
    file
}

/// Opens a model to look at it: of a model whose other shards are not here, the shard that is.
pub(crate) fn open_for_inspection(path: &Path, terminal: &Terminal) -> Result<GgufFile> {
    match GgufFile::open(path) {
        Err(Error::Open { path: other, .. }) if other != path => {
            terminal.note(format_args!("showing this shard alone: {} can't be opened", other.display()));
            open_alone(path)
        }
        opened => opened.map(guarded).map_err(unreadable),
    }
}

/// How most commands make a context shorter.
pub(crate) const SMALLER_CONTEXT: &str = "a smaller -c";

/// To count the tokens of a text up to this long takes little: 44 bytes for each of its own, if it is one word.
const MAX_SMALL_TEXT_BYTES: usize = 32 << 10;

/// A model that is planned and can be loaded.
pub(crate) struct Planned {
    loader: GgufLoader<'static>,
    config: ModelConfig,
    pub(crate) plan: MemoryPlan,
    /// What this machine can do, if that was measured to make the plan.
    pub(crate) rates: Option<MachineRates>,
    pub(crate) gpu_counters: GpuCounters,
}

impl Planned {
    /// Plans as the arguments say, within a budget. `shorter` is what makes the context so; what this machine can do is
    /// measured where the plan depends on it, but for what is `given`.
    pub(crate) fn new(
        file: GgufFile,
        args: &EngineArgs,
        budget: Option<MemoryBudget>,
        shorter: &str,
        given: &RateArgs,
        terminal: &Terminal,
    ) -> Result<Self> {
        let loader = loader(file, args, budget)?;
        // There may be none, where a GPU has room and main memory has not.
        let on_cpu = args.compute.leaves_gpu_open().then(|| loader.plan().ok()).flatten();
        let (loader, gpu_counters) = gpu::offload(loader, &args.compute)?;
        let plan = |loader: &GgufLoader<'_>| {
            loader.plan().map_err(|error| cannot_plan(error, loader.file().path(), args, budget, shorter))
        };
        let first = plan(&loader)?;
        let on_cpu = on_cpu.as_ref().map(|(_, plan)| plan);
        let Decided { loader, rates, is_as_before } =
            placing::decide(loader, &first.1, on_cpu, args, given, terminal)?;
        let (config, plan) = if is_as_before { first } else { plan(&loader)? };
        if let OpOffload::From(_) = args.compute.op_offload
            && plan.lent_bytes() == 0
            && !plan.devices.is_empty()
        {
            tracing::warn!("--op-offload has no effect: the GPU computes all networks");
        }
        Ok(Self { loader, config, plan, rates, gpu_counters })
    }

    pub(crate) fn file(&self) -> &GgufFile {
        self.loader.file()
    }

    /// Makes the model ready to run.
    pub(crate) fn load(self, args: &EngineArgs, terminal: &Terminal) -> Result<Model> {
        let Self { loader, config, plan, .. } = self;
        note_what_is_smaller(&config, &plan, args, terminal);
        warn_of_length(&config, plan.request.capacity.n_ctx);
        let path = loader.file().path().to_owned();
        let bar = terminal.byte_bar("loading", 0);
        let progress = bar.clone();
        let loader = loader.progress(move |done, total| {
            progress.set_length(total);
            progress.set_position(done);
        });
        let model = loader.load_planned(config, &plan);
        bar.finish_and_clear();
        model.map_err(|e| unusable(&path, e))
    }
}

/// Less memory than a model takes at least.
#[derive(Debug)]
pub(crate) struct TooLittle {
    reason: String,
    #[cfg_attr(not(feature = "serve"), allow(dead_code, reason = "clients of the server are told it alone"))]
    pub(crate) least_bytes: u64,
}

impl fmt::Display for TooLittle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for TooLittle {}

/// A failure to plan.
fn cannot_plan(
    error: Error,
    path: &Path,
    args: &EngineArgs,
    budget: Option<MemoryBudget>,
    shorter: &str,
) -> Failure {
    let n_threads = n_threads(args);
    match error {
        Error::BudgetTooSmall { floor_bytes, n_ctx, n_batch, kv_type, .. } => {
            let budget =
                budget.map_or(String::new(), |budget| format!("within {}", budget::described(budget)));
            let what = format!("can't run {} {budget}", path.display());
            Failure::new(Kind::General, what)
                .because(TooLittle {
                    least_bytes: floor_bytes,
                    reason: format!(
                        "with a context of {n_ctx}, batches of {n_batch}, {n_threads} threads and keys and values as \
                         {kv_type} it takes at least {} ({floor_bytes} bytes)",
                        human_bytes(floor_bytes)
                    ),
                })
                .advice(format!(
                    "allow more with --ram, or choose {shorter}, a smaller -b or -t or another --kv-type"
                ))
        }
        Error::DeviceTooSmall { budget_bytes, floor_bytes, all, n_ctx, n_batch, kv_type } => {
            let (path, budget) = (path.display(), human_bytes(budget_bytes));
            let what = if all { "the layers asked for take" } else { "the head or half a layer takes" };
            Failure::new(Kind::General, format!("can't run {path} within {budget} of the GPU's memory"))
                .because(format!(
                    "with a context of {n_ctx}, batches of {n_batch} and keys and values as {kv_type} {what} {} \
                     ({floor_bytes} bytes)",
                    human_bytes(floor_bytes)
                ))
                .advice(format!(
                    "allow more with --vram, or choose fewer --gpu-layers, {shorter}, a smaller -b or another --kv-type"
                ))
        }
        error => unusable(path, error),
    }
}

/// Threads that compute.
pub(crate) fn n_threads(args: &EngineArgs) -> usize {
    args.threads.map_or_else(metallic::default_threads, usize::from)
}

/// A loader set up as the arguments say but for devices, within a budget.
fn loader(file: GgufFile, args: &EngineArgs, budget: Option<MemoryBudget>) -> Result<GgufLoader<'static>> {
    args.compute.check_gpu_flags()?;
    let ComputeArgs { batch_size, isa, load, kv_type, expert_policy, mlock, .. } = args.compute;
    let mode = load_mode(load, file.n_bytes(), budget);
    let mut loader = GgufLoader::new(file).mode(mode).expert_policy(expert_policy).lock_memory(mlock);
    if let Some(budget) = budget {
        loader = loader.budget(budget);
    }
    if let Some(batch_size) = batch_size {
        loader = loader.batch(batch_size as usize);
    }
    if let Some(isa) = isa {
        loader = loader.isa(isa);
    }
    if let Some(kv_type) = kv_type {
        loader = loader.kv_type(kv_type);
    }
    if let Some(n_ctx) = args.ctx_size {
        loader = loader.context_length(n_ctx as usize);
    }
    Ok(loader.threads(n_threads(args)).sequences(args.n_sequences).guesses(args.guesses))
}

/// Makes an opened model ready to run within what memory there is.
pub(crate) fn load(file: GgufFile, args: &EngineArgs, terminal: &Terminal) -> Result<Model> {
    let budget = budget::to_run_in(&args.compute);
    Planned::new(file, args, budget, SMALLER_CONTEXT, &RateArgs::default(), terminal)?.load(args, terminal)
}

/// Says what the budget has no room for.
fn note_what_is_smaller(config: &ModelConfig, plan: &MemoryPlan, args: &EngineArgs, terminal: &Terminal) {
    let ComputeArgs { ram, load, .. } = args.compute;
    let budget = if ram.is_some() { "--ram" } else { "the memory that is free" };
    let n_ctx = plan.request.capacity.n_ctx;
    if args.ctx_size.is_none() && n_ctx < config.context_length.min(DEFAULT_MAX_CONTEXT) {
        terminal
            .note(format_args!("the context is {n_ctx} tokens, to leave room within {budget}; -c sets it"));
    }
    if load == Load::Slab && !plan.request.in_slab && plan.devices.is_empty() {
        let instead = match plan.streamed_bytes() {
            0 => "they are used where the file is mapped".to_owned(),
            streamed => format!("{} of the weights are swapped in as they are used", human_bytes(streamed)),
        };
        terminal.note(format_args!("{budget} has no room for the files in a slab: {instead}"));
    }
}

/// A model makes little of positions that it never saw.
fn warn_of_length(config: &ModelConfig, n_ctx: usize) {
    let trained = config.context_length;
    if n_ctx > trained {
        tracing::warn!(
            "a context of {n_ctx} is more than the {trained} tokens that the model was trained for: expect little beyond them"
        );
    }
}

/// Where the weights of a model of `n_bytes` are to lie.
fn load_mode(load: Load, n_bytes: u64, budget: Option<MemoryBudget>) -> LoadMode {
    match load {
        Load::Map => LoadMode::Map,
        Load::Slab => LoadMode::Slab,
        Load::Auto => {
            // Half is left for keys and values and for what else runs.
            let has_room = budget.is_some_and(|budget| n_bytes <= budget.ram_bytes / 2);
            if has_room { LoadMode::Slab } else { LoadMode::Map }
        }
    }
}

/// The file's tokenizer.
pub(crate) fn tokenizer(file: &GgufFile) -> Result<Tokenizer> {
    Tokenizer::from_gguf(&file.gguf()).map_err(|e| {
        let what = format!("can't use the tokenizer of {}", file.path().display());
        Failure::new(Kind::BadModel, what).because(e)
    })
}

/// The tokens of a text.
pub(crate) fn encode(tokenizer: &Tokenizer, text: &str, options: EncodeOptions) -> Result<Vec<u32>> {
    let encoded = tokenizer.encode(text, options);
    encoded.map_err(|e| Failure::new(Kind::General, "can't turn the text into tokens").because(e))
}

/// Refuses a text that can't fit a context, before it takes memory to find out how many tokens it has.
pub(crate) fn refuse_too_long(tokenizer: &Tokenizer, text: &str, n_ctx: usize) -> Result<()> {
    // Templates may trim it.
    let text = text.trim();
    let n_tokens = if text.len() > MAX_SMALL_TEXT_BYTES { tokenizer.least_tokens(text) } else { 0 };
    if n_tokens <= n_ctx {
        return Ok(());
    }
    let what = format!("the prompt has at least {n_tokens} tokens, and the context holds {n_ctx}");
    Err(Failure::new(Kind::General, what).advice("shorten it or choose a larger context with -c"))
}

/// A failure to open or parse a file; the error names it.
fn unreadable(error: Error) -> Failure {
    let advice = match &error {
        Error::Open { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            "check who may read it"
        }
        Error::Open { source, .. } if source.kind() == io::ErrorKind::OutOfMemory => {
            "it is mapped, which takes room for all of it in the address space: see `ulimit -v`"
        }
        Error::Open { .. } => "check the path",
        _ => "if it should be a model, download it again",
    };
    Failure::of(kind_of(&error), error).advice(advice)
}

/// A failure to use a well-formed file.
pub(crate) fn unusable(path: &Path, error: Error) -> Failure {
    match error {
        Error::Threads { n_threads, source } => no_threads(n_threads, source),
        error => {
            let advice = gpu::advice(&error).map(str::to_owned);
            let failure = Failure::new(kind_of(&error), format!("can't use {}", path.display()));
            failure.because(error).maybe_advice(advice)
        }
    }
}

/// A failure to start threads that compute.
pub(crate) fn no_threads(n_threads: usize, source: io::Error) -> Failure {
    Failure::of(Kind::General, Error::Threads { n_threads, source }).advice("choose fewer with -t")
}

/// The kind of failure that an error of the engine is.
pub(crate) fn kind_of(error: &Error) -> Kind {
    match error {
        Error::Open { source, .. } => match source.kind() {
            io::ErrorKind::NotFound => Kind::NoModel,
            io::ErrorKind::IsADirectory | io::ErrorKind::InvalidInput => Kind::BadModel,
            _ => Kind::General,
        },
        Error::FileChanged { .. } => Kind::ModelChanged,
        error if gpu::has_lost(error) => Kind::DeviceLost,
        Error::Stream { source, .. } if source.kind() == io::ErrorKind::UnexpectedEof => Kind::ModelChanged,
        Error::Format { .. }
        | Error::Metadata(_)
        | Error::Config { .. }
        | Error::UnsupportedArchitecture { .. }
        | Error::MissingTensors { .. }
        | Error::MissingRopeFactors { .. }
        | Error::UnusedPart { .. }
        | Error::TensorShape { .. }
        | Error::Vocabulary { .. }
        | Error::BrokenLogits { .. } => Kind::BadModel,
        _ => Kind::General,
    }
}
