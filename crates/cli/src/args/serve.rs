//! The flags of `metallic serve`, by llama-server's names.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use super::{EngineArgs, SpecArgs};
use crate::fetch::ModelName;

#[derive(Debug, Args)]
#[command(after_help = "\
Clients of OpenAI's API are told http://127.0.0.1:8080/v1 as its address; without --api-key any key will do.

Examples:
  metallic serve smollm2
  curl http://127.0.0.1:8080/v1/chat/completions -d '{\"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}]}'
  metallic serve smollm2 hf:owner/repo:Q4_K_M --ram 16GiB
  metallic serve --models-dir ~/models --manage
  metallic serve model.gguf --host 0.0.0.0 --api-key-file keys.txt --ram 8GiB --parallel 4")]
pub(crate) struct ServeArgs {
    /// Models: files, short names, hf:… or pypi:… The first is loaded at once, the others when they are asked for; one that
    /// nobody uses makes room for another [default: all that were downloaded]
    #[arg(value_name = "MODEL")]
    models: Vec<ModelName>,

    /// The first of them, as a flag
    #[arg(short, long, value_name = "MODEL")]
    model: Option<ModelName>,

    /// Serve the models in a folder, too
    #[arg(long, value_name = "DIR")]
    pub(crate) models_dir: Option<PathBuf>,

    /// Let requests load, unload, download and remove models
    #[arg(long)]
    pub(crate) manage: bool,

    /// The same for requests alone that bring this key; may be given more than once
    #[arg(long, value_name = "KEY")]
    pub(crate) manage_key: Vec<String>,

    /// Load a model with less memory than it would take, where the others are busy with the rest, instead of waiting for them
    #[arg(long)]
    pub(crate) shrink: bool,

    /// Address to listen at; 0.0.0.0 for all of this machine
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub(crate) host: String,

    /// Port to listen on; 0 for any that is free
    #[arg(long, value_name = "N", default_value_t = 8080)]
    pub(crate) port: u16,

    /// Name that requests give for the model, if it is one [default: as it is given here, of a file its name without .gguf]
    #[arg(long, value_name = "NAME")]
    pub(crate) alias: Option<String>,

    /// Requests that are answered at the same time; more of them wait
    #[arg(long, visible_alias = "np", value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) parallel: u16,

    /// Key that requests must bring; may be given more than once
    #[arg(long, value_name = "KEY")]
    pub(crate) api_key: Vec<String>,

    /// File with such keys, one a line
    #[arg(long, value_name = "FILE")]
    pub(crate) api_key_file: Option<PathBuf>,

    /// Use what was read of one key's prompts for no other's: how soon an answer comes tells what others have asked
    #[arg(long)]
    pub(crate) separate_keys: bool,

    /// Origin of web pages that may ask, such as https://chat.example, or *; may be given more than once
    #[arg(long, value_name = "ORIGIN")]
    pub(crate) cors_origin: Vec<String>,

    /// Serve no page for browsers
    #[arg(long)]
    pub(crate) no_web: bool,

    /// Seconds that answers have to end once Ctrl-C or SIGTERM says to stop; a second one stops at once
    #[arg(long, value_name = "N", default_value_t = 30)]
    pub(crate) drain: u32,

    /// Connections that may be open; more wait [default: 128; like the next two less where --ram is small]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub(crate) max_connections: Option<u32>,

    /// Requests that may wait while others are answered; more are told to come back [default: 64]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=256))]
    pub(crate) max_queue: Option<u16>,

    /// Size of a request at most [default: 4MiB]
    #[arg(long, value_name = "SIZE", value_parser = parse_body_size)]
    pub(crate) max_body: Option<u64>,

    /// Tokens of a prompt at most [default: as many as the context holds]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_prompt: Option<u32>,

    /// Seconds that a request may wait for its first token; 0 for any time
    #[arg(long, value_name = "N", default_value_t = 600)]
    pub(crate) first_token_timeout: u32,

    /// Seconds that a request may take in all; 0 for any time
    #[arg(long, value_name = "N", default_value_t = 3600)]
    pub(crate) request_timeout: u32,

    /// Seconds that a connection is kept on which nothing is asked
    #[arg(long, value_name = "N", default_value_t = 75)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) idle_timeout: u32,

    /// Use this chat template instead of the model's: a name, or a file
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) chat_template: Option<OsString>,

    #[command(flatten)]
    pub(crate) speculation: SpecArgs,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
}

impl ServeArgs {
    /// The models that are named.
    pub(crate) fn models(&self) -> Vec<&ModelName> {
        self.model.iter().chain(&self.models).collect()
    }
}

/// A size that a body can have: some room for a question, and less than any machine would read into memory.
fn parse_body_size(text: &str) -> Result<u64, String> {
    match crate::size::parse_size(text)? {
        size @ 4096..=0x4000_0000 => Ok(size),
        _ => Err("it must be from 4KiB to 1GiB".to_owned()),
    }
}
