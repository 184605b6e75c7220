//! The arguments of `metallic run`.

use std::path::PathBuf;

use clap::Args;

use super::SessionArgs;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  metallic run \"What is the capital of France?\"
  git diff | metallic run -m ./coder.gguf
  metallic run --raw -n 32 --temp 0 \"Once upon a time\"
  metallic run -m ./qwen.gguf --tools tools.json --reasoning hide \"Weather in Paris?\" | jq .arguments")]
pub(crate) struct RunArgs {
    /// The prompt [default: read from standard input]
    #[arg(value_name = "PROMPT", conflicts_with = "prompt_flag")]
    pub(crate) prompt: Option<String>,

    /// The prompt, as a flag
    #[arg(short = 'p', long = "prompt", value_name = "PROMPT", id = "prompt_flag")]
    pub(crate) prompt_flag: Option<String>,

    /// Continue the prompt as it stands instead of putting it into the model's chat template
    #[arg(long, conflicts_with_all = ["system", "chat_template", "tools"])]
    pub(crate) raw: bool,

    /// Tell the model of the tools in this file, a JSON list as OpenAI's API has it; calls of them are printed as
    /// lines of JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) tools: Option<PathBuf>,

    // Last: the headings of its groups would take in what comes after.
    #[command(flatten)]
    pub(crate) session: SessionArgs,
}
