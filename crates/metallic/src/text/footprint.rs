//! How much memory a tokenizer will take, from the lists that a file's header has.

use metallic_gguf::{Array, Metadata};

use super::vocabulary::TokenType;

/// Of the patterns that byte-pair encoding splits texts with and of their automata, for a text in one script.
const PATTERN_BYTES: u64 = 320 << 10;

/// Of the two searches for special tokens, for each byte of their names.
const SEARCH_BYTES: u64 = 4;

/// Halves of a byte that the search for all tokens takes for each byte of their names, of vocabularies that texts are
/// cut by: it took 8 to 10 bytes.
const CUT_HALF_BYTES: u64 = 19;

/// About as many bytes as the tokenizer of these metadata keeps. A list that is missing or no list counts as empty.
pub(super) fn estimate(metadata: &Metadata<'_>) -> u64 {
    let array = |key: &str| metadata.optional::<Array<'_>>(key).ok().flatten();
    let len = |key: &str| array(key).map_or(0, |array| array.len() as u64);
    let model = metadata.optional::<&str>("tokenizer.ggml.model").ok().flatten();
    let is_byte_level = model == Some("gpt2");
    let names =
        || array("tokenizer.ggml.tokens").and_then(|tokens| tokens.strings().ok()).into_iter().flatten();
    let cut = match model {
        Some("bert" | "t5" | "plamo2" | "rwkv") => {
            names().map(|name| CUT_HALF_BYTES * name.len() as u64).sum::<u64>() / 2
        }
        _ => 0,
    };
    let tokens: Vec<u64> = names().map(|text| text_bytes(text, is_byte_level)).collect();
    let types = array("tokenizer.ggml.token_type");
    let special = types.iter().flat_map(|types| types.values::<i64>()).zip(&tokens);
    let special =
        special.filter(|(id, _)| id.as_ref().is_ok_and(|id| is_special(*id))).map(|(_, bytes)| bytes);

    let [end, kind, rank, id, merge] = [4, 1, 4, 4, 16];
    let n_tokens = tokens.len() as u64;
    let text: u64 = tokens.iter().sum();
    let merges = len("tokenizer.ggml.merges");
    let has_ranks = matches!(model, Some("llama" | "t5" | "plamo2"));
    text + n_tokens * (end + kind)
        + table_bytes(n_tokens, id)
        + if merges > 0 { table_bytes(merges, merge) + PATTERN_BYTES } else { 0 }
        + rank * if has_ranks { n_tokens } else { 0 }
        + SEARCH_BYTES * special.sum::<u64>()
        + cut
}

/// Bytes that a token stands for: of a byte-level vocabulary one for each character, else one for each `▁` of three.
fn text_bytes(text: &[u8], is_byte_level: bool) -> u64 {
    let continues = |byte: &&u8| **byte & 0xc0 == 0x80;
    let spared = if is_byte_level {
        text.iter().filter(continues).count()
    } else {
        2 * text.windows(3).filter(|bytes| *bytes == "▁".as_bytes()).count()
    };
    (text.len() - spared) as u64
}

fn is_special(id: i64) -> bool {
    let of = TokenType::from_id(id);
    matches!(of, Some(TokenType::Control | TokenType::Unknown | TokenType::UserDefined))
}

/// Bytes of a hash table: of its entries, which are a power of two and at least an eighth free, each has a byte more.
fn table_bytes(n: u64, entry_bytes: u64) -> u64 {
    (n * 8 / 7).next_power_of_two() * (entry_bytes + 1)
}
