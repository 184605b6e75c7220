//! Model files, opened and loaded with errors and progress fit for a terminal.

use std::io;
use std::path::Path;

use metallic::memory::MemoryPlan;
use metallic::model::{DEFAULT_MAX_CONTEXT, ModelConfig};
use metallic::text::{EncodeOptions, Tokenizer};
use metallic::{Error, GgufFile, GgufLoader, LoadMode, MemoryBudget, Model};

use crate::args::{ComputeArgs, EngineArgs, Load};
use crate::failure::{Failure, Kind, Result};
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

/// A loader set up as the arguments say, within what memory there is.
pub(crate) fn loader<'p>(file: GgufFile, args: &EngineArgs) -> GgufLoader<'p> {
    let ComputeArgs { ram, batch_size, isa, load, kv_type, expert_policy, mlock } = args.compute;
    let budget = ram.map(MemoryBudget::given).or_else(MemoryBudget::auto);
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
    if let Some(n_threads) = args.threads {
        loader = loader.threads(n_threads.into());
    }
    loader
}

/// The plan that a loader makes for the model at `path`.
pub(crate) fn plan(loader: &GgufLoader<'_>, path: &Path) -> Result<(ModelConfig, MemoryPlan)> {
    loader.plan().map_err(|error| match error {
        Error::BudgetTooSmall { budget_bytes, floor_bytes, n_ctx, n_batch, kv_type } => {
            let (budget, floor) = (human_bytes(budget_bytes), human_bytes(floor_bytes));
            Failure::new(Kind::General, format!("can't run {} within {budget}", path.display()))
                .because(format!(
                    "with a context of {n_ctx}, batches of {n_batch} and keys and values as {kv_type} it takes at \
                     least {floor} ({floor_bytes} bytes)"
                ))
                .advice("allow more with --ram, or choose a smaller -c, a smaller -b or another --kv-type")
        }
        error => unusable(path, error),
    })
}

/// Makes an opened model ready to run.
pub(crate) fn load(file: GgufFile, args: &EngineArgs, terminal: &Terminal) -> Result<Model> {
    let path = file.path().to_owned();
    let bar = terminal.byte_bar("loading", 0);
    let loader = loader(file, args).progress(|done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    let (config, plan) = plan(&loader, &path)?;
    note_what_is_smaller(&config, &plan, args, terminal);
    warn_of_length(&config, plan.request.n_ctx);
    let model = loader.load_planned(config, plan);
    bar.finish_and_clear();
    model.map_err(|e| unusable(&path, e))
}

/// Says what the budget has no room for.
fn note_what_is_smaller(config: &ModelConfig, plan: &MemoryPlan, args: &EngineArgs, terminal: &Terminal) {
    let ComputeArgs { ram, load, .. } = args.compute;
    let budget = if ram.is_some() { "--ram" } else { "the memory that is free" };
    let n_ctx = plan.request.n_ctx;
    if args.ctx_size.is_none() && n_ctx < config.context_length.min(DEFAULT_MAX_CONTEXT) {
        terminal
            .note(format_args!("the context is {n_ctx} tokens, to leave room within {budget}; -c sets it"));
    }
    if load == Load::Slab && !plan.request.in_slab {
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

/// A failure to open or parse a file; the error names it.
fn unreadable(error: Error) -> Failure {
    let advice = match &error {
        Error::Open { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            "check who may read it"
        }
        Error::Open { .. } => "check the path",
        _ => "if it should be a model, download it again",
    };
    Failure::of(kind_of(&error), error).advice(advice)
}

/// A failure to use a well-formed file.
pub(crate) fn unusable(path: &Path, error: Error) -> Failure {
    Failure::new(kind_of(&error), format!("can't use {}", path.display())).because(error)
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
