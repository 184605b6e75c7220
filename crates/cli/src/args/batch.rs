//! The flags of `metallic batch`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use super::{EngineArgs, SpecArgs};
use crate::fetch::{ModelName, catalogue};

#[derive(Debug, Args)]
#[command(after_help = "\
A line of the input is a request as OpenAI's batch files have them:
  {\"custom_id\": \"a\", \"method\": \"POST\", \"url\": \"/v1/chat/completions\", \"body\": {\"messages\": […], \"max_tokens\": 100}}
The url may also be /v1/completions or /v1/responses; a body has the fields that `metallic serve` takes there, and its model is \
answered by -m's. A line of the output has the custom_id and the response with its status and body, in the order in which answers \
are done; or, for a line that is no request, an error that names the line.

Stopped or killed at any moment, the same command goes on where it was: an answer stands in the output whole or not at all, and once.

Examples:
  metallic batch -m model.gguf in.jsonl -o out.jsonl
  metallic batch -m model.gguf --ram 8GiB --parallel 8 in.jsonl -o out.jsonl")]
pub(crate) struct BatchArgs {
    #[arg(short, long, value_name = "MODEL")]
    #[arg(help = format!("The model: a file, a short name, hf:… or pypi:… [default: {}]", catalogue::DEFAULT.name))]
    pub(crate) model: Option<ModelName>,

    /// File of requests, a line of JSON each
    #[arg(value_name = "INPUT")]
    pub(crate) input: PathBuf,

    /// File of answers; what it has of them already is not asked again
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,

    /// Requests that are answered at the same time [default: 16, or as many as there is memory for]
    #[arg(long, visible_alias = "np", value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) parallel: Option<u16>,

    /// Use this chat template instead of the model's: a name, or a file
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) chat_template: Option<OsString>,

    #[command(flatten)]
    pub(crate) speculation: SpecArgs,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
}
