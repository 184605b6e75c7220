//! Which tokens end an answer.

use metallic_gguf::Metadata;

use super::error::TokenizerError;
use super::tokenizer::read_id;
use super::vocabulary::{TokenType, Vocabulary};

/// Keys that name such a token: end of text, of a turn, of a message.
const KEYS: [&str; 3] =
    ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];

/// What the published chat formats call such a token. Many files have the token and no key for it.
const NAMES: &[&str] = &[
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|eot|>",
    "<|eom|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<|end_of_turn|>",
    "<|endofturn|>",
    "<|END_OF_TURN_TOKEN|>",
    "<end_of_turn>",
    "<turn|>",
    "<end_of_utterance>",
    "<｜end▁of▁sentence｜>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "[e~[",
];

/// The formats in which `<|end|>` is between the parts of one answer, by the tokens that end it there: harmony (gpt-oss)
/// and Solar's.
const END_IS_BETWEEN: [[&str; 2]; 2] = [["<|return|>", "<|call|>"], ["<|flush|>", "<|calls|>"]];

/// Reads the stop tokens of a vocabulary, in ascending order.
pub(super) fn read(metadata: &Metadata<'_>, vocabulary: &Vocabulary) -> Result<Vec<u32>, TokenizerError> {
    let mut ids = Vec::new();
    for key in KEYS {
        ids.extend(read_id(metadata, vocabulary, key)?);
    }
    // Some files have these as ordinary pieces.
    let mut named: Vec<Option<u32>> = NAMES.iter().map(|name| vocabulary.find(name.as_bytes())).collect();
    for (id, of, text) in vocabulary.iter() {
        if of != TokenType::Normal
            && let Some(at) = NAMES.iter().position(|name| name.as_bytes() == text)
        {
            named[at] = Some(id);
        }
    }
    let has = |name| NAMES.iter().zip(&named).any(|(&other, id)| other == name && id.is_some());
    let is_between = END_IS_BETWEEN.iter().any(|names| names.iter().all(|&name| has(name)));
    let ends = |&(&name, _): &(&&str, _)| !(is_between && name == "<|end|>");
    ids.extend(NAMES.iter().zip(named).filter(ends).filter_map(|(_, id)| id));
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}
