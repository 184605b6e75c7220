//! The tokens of filling in: what models that were trained to do it are given before and after a gap.

use std::collections::HashMap;

use super::error::TokenizerError;
use super::keys::Keys;
use super::vocabulary::{TokenType, Vocabulary};

/// The tokens before the parts of a text with a gap, in the order that they are given: `prefix` and what is before the gap,
/// `suffix` and what is after it, `middle`, and then the model says what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InfillTokens {
    /// Before what comes before the gap.
    pub prefix: u32,
    /// Before what comes after it.
    pub suffix: u32,
    /// Before what is in it.
    pub middle: u32,
}

/// Keys of the three, those of older files last.
const KEYS: [[&str; 3]; 2] = [
    ["fim_pre_token_id", "fim_suf_token_id", "fim_mid_token_id"],
    ["prefix_token_id", "suffix_token_id", "middle_token_id"],
];

/// What the published formats call them: Qwen, StarCoder, SantaCoder, CodeLlama, DeepSeek and GLM. Many files have the tokens
/// and no keys for them.
const NAMES: [[&str; 3]; 7] = [
    ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"],
    ["<fim_prefix>", "<fim_suffix>", "<fim_middle>"],
    ["<fim-prefix>", "<fim-suffix>", "<fim-middle>"],
    ["▁<PRE>", "▁<SUF>", "▁<MID>"],
    ["<PRE>", "<SUF>", "<MID>"],
    ["<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"],
    ["<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>"],
];

/// Reads them of a vocabulary that has all three.
pub(super) fn read(
    keys: &Keys<'_, '_>,
    vocabulary: &Vocabulary,
) -> Result<Option<InfillTokens>, TokenizerError> {
    for names in KEYS {
        let [prefix, suffix, middle] = names.map(|key| keys.token_id(vocabulary.len(), key));
        if let (Some(prefix), Some(suffix), Some(middle)) = (prefix?, suffix?, middle?) {
            return Ok(Some(InfillTokens { prefix, suffix, middle }));
        }
    }
    let is_special = |of: &TokenType| *of != TokenType::Normal && *of != TokenType::Byte;
    let special = vocabulary.iter().filter(|(_, of, _)| is_special(of));
    let ids: HashMap<&[u8], u32> = special.map(|(id, _, text)| (text, id)).collect();
    let find = |name: &str| ids.get(name.as_bytes()).copied();
    Ok(NAMES.iter().find_map(|[prefix, suffix, middle]| {
        Some(InfillTokens { prefix: find(prefix)?, suffix: find(suffix)?, middle: find(middle)? })
    }))
}
