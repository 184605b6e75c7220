//! Which tokens end an answer.

use std::collections::BTreeMap;

use metallic_gguf::Array;

use super::error::TokenizerError;
use super::keys::Keys;
use super::vocabulary::{TokenType, Vocabulary};

/// Keys that name such a token beside EOS: the end of a turn, of a message, of a file of code, nothing to fill in.
const KEYS: [&str; 5] =
    ["eot_token_id", "eom_token_id", "fim_sep_token_id", "fim_rep_token_id", "fim_pad_token_id"];

/// What the published formats call such a token. Many files have the token and no key for it.
const NAMES: &[(Of, &[&str])] = &[
    (
        Of::AnyType,
        &[
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
        ],
    ),
    // Where Gemma 4 waits for what a tool says; where code models leave a file, or were given nothing to fill in.
    (
        Of::Special,
        &[
            "<|tool_response>",
            "<|file_sep|>",
            "<|repo_name|>",
            "<|fim_repo|>",
            "<|fim_pad|>",
            "<fim_pad>",
            "<fim-pad>",
        ],
    ),
    // Text has `</s>` as well: it is an ordinary piece to Qwen, and user-defined to Gemma 3 and Phi 3.
    (Of::Control, &["<eos>", "</s>", "<|eos|>", "<|plamo:eos|>", "<reponame>", "<fim-repo>"]),
];

/// Of which type a token of such a name must be. What is an end in one vocabulary is a piece of text in another.
#[derive(Clone, Copy)]
enum Of {
    /// No text has the name by chance, and some files have the token as an ordinary piece.
    AnyType,
    /// Control or user-defined.
    Special,
    Control,
}

impl Of {
    fn includes(self, of: TokenType) -> bool {
        match self {
            Of::AnyType => true,
            Of::Special => matches!(of, TokenType::Control | TokenType::UserDefined),
            Of::Control => of == TokenType::Control,
        }
    }
}

/// The formats in which `<|end|>` is between the parts of one answer, by the tokens that end it there: harmony (gpt-oss)
/// and Solar's.
const END_IS_BETWEEN: [[&str; 2]; 2] = [["<|return|>", "<|call|>"], ["<|flush|>", "<|calls|>"]];

/// Reads the stop tokens of a vocabulary, in ascending order.
pub(super) fn read(
    keys: &Keys<'_, '_>,
    vocabulary: &Vocabulary,
    eos: Option<u32>,
) -> Result<Vec<u32>, TokenizerError> {
    let mut ids = Vec::from_iter(eos);
    if let Some(list) = keys.optional::<Array<'_>>("eos_token_ids")? {
        // As ollama writes what a publisher's generation_config.json has.
        let in_vocabulary = |id: &u32| (*id as usize) < vocabulary.len();
        ids.extend(list.values::<u32>().filter_map(Result::ok).filter(in_vocabulary));
    }
    for key in KEYS {
        ids.extend(keys.token_id(vocabulary.len(), key)?);
    }
    let mut named = BTreeMap::new();
    for (id, of, text) in vocabulary.iter() {
        if let Some(name) = name_of(of, text)
            // Of a piece of text and a token that text can't become, the latter is meant.
            && (of != TokenType::Normal || !named.contains_key(name))
        {
            named.insert(name, id);
        }
    }
    if END_IS_BETWEEN.iter().any(|names| names.iter().all(|name| named.contains_key(name))) {
        named.remove("<|end|>");
    }
    ids.extend(named.into_values());
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

/// The name that such a token is known by, if its text is one.
fn name_of(of: TokenType, text: &[u8]) -> Option<&'static str> {
    if !matches!(text.first(), Some(b'<' | b'[' | b'_')) {
        return None; // as almost all of a vocabulary
    }
    let names = NAMES.iter().filter(|(types, _)| types.includes(of)).flat_map(|(_, names)| *names);
    names.copied().find(|name| name.as_bytes() == text)
}
