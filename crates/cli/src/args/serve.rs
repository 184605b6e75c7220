//! The flags of `metallic serve`, by llama-server's names.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use super::EngineArgs;
use crate::fetch::ModelName;

#[derive(Debug, Args)]
#[command(after_help = "\
Clients of OpenAI's API are told http://127.0.0.1:8080/v1 as its address; without --api-key any key will do.

Examples:
  metallic serve smollm2
  curl http://127.0.0.1:8080/v1/chat/completions -d '{\"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}]}'
  metallic serve model.gguf --host 0.0.0.0 --api-key-file keys.txt --ram 8GiB --parallel 4")]
pub(crate) struct ServeArgs {
    /// The model: a file, a short name, hf:… or pypi:…
    #[arg(value_name = "MODEL")]
    pub(crate) model: ModelName,

    /// Address to listen at; 0.0.0.0 for all of this machine
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub(crate) host: String,

    /// Port to listen on; 0 for any that is free
    #[arg(long, value_name = "N", default_value_t = 8080)]
    pub(crate) port: u16,

    /// Name that requests give for the model [default: as it is given here, of a file its name without .gguf]
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

    /// Origin of web pages that may ask, such as https://chat.example, or *; may be given more than once
    #[arg(long, value_name = "ORIGIN")]
    pub(crate) cors_origin: Vec<String>,

    /// Serve no page for browsers
    #[arg(long)]
    pub(crate) no_web: bool,

    /// Seconds that answers have to end once Ctrl-C or SIGTERM says to stop; a second one stops at once
    #[arg(long, value_name = "N", default_value_t = 30)]
    pub(crate) drain: u32,

    /// Use this chat template instead of the model's: a name, or a file
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) chat_template: Option<OsString>,

    #[command(flatten)]
    pub(crate) engine: EngineArgs,
}
