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

/// In the harmony format, which has these, `<|end|>` is between the parts of one answer.
const HARMONY: [&str; 2] = ["<|return|>", "<|call|>"];

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
    let is_harmony = HARMONY.iter().all(|&name| has(name));
    let ends = |&(&name, _): &(&&str, _)| !(is_harmony && name == "<|end|>");
    ids.extend(NAMES.iter().zip(named).filter(ends).filter_map(|(_, id)| id));
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}
