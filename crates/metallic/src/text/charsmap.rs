//! SentencePiece's normalisation: a table of replacements, and what becomes of spaces.
//!
//! `tokenizer.ggml.precompiled_charsmap` is a little-endian `u32`, the size of a trie in bytes; the trie, a
//! double array of `u32` units as the library Darts-clone builds it; and the replacements, each ended by a zero
//! byte. The trie's values are places in the replacements. A file may hold anything there: what points
//! nowhere replaces nothing.

use metallic_gguf::Array;

use super::error::TokenizerError;
use super::keys::Keys;

/// How a vocabulary of the SentencePiece kind changes a text before it is encoded.
pub(super) struct Normalizer {
    units: Vec<Unit>,
    replacements: String,
    /// Whether a text is encoded as if it began with a space.
    pub(super) add_space_prefix: bool,
    /// Whether spaces at both ends go, and of several in a row one stays.
    remove_extra_whitespaces: bool,
}

impl Normalizer {
    /// Reads the rules of a file. Without a table, no character is replaced.
    pub(super) fn read(keys: &Keys<'_, '_>) -> Result<Self, TokenizerError> {
        let blob = match keys.optional::<Array<'_>>("precompiled_charsmap")? {
            // Files hold bytes as signed numbers or as unsigned ones.
            Some(bytes) => bytes
                .values::<i64>()
                .map(|byte| Ok(byte? as u8))
                .collect::<Result<Vec<_>, TokenizerError>>()?,
            None => Vec::new(),
        };
        let (units, replacements) = if blob.is_empty() { Default::default() } else { parse(&blob)? };
        let flag = |key| keys.flag(key);
        Ok(Normalizer {
            units,
            replacements,
            add_space_prefix: flag("add_space_prefix")?.unwrap_or(true),
            remove_extra_whitespaces: flag("remove_extra_whitespaces")?.unwrap_or(false),
        })
    }

    /// The text as the vocabulary's pieces have it. `starts` says whether the space prefix belongs here.
    pub(super) fn normalize(&self, text: &str, starts: bool) -> String {
        let mut out = String::with_capacity(text.len() + text.len() / 8 + 1);
        if starts && self.add_space_prefix {
            out.push(' ');
        }
        let start = out.len();
        let mut rest = text;
        let mut follows_space = true;
        while let Some(first) = rest.chars().next() {
            let (len, replacement) =
                self.replacement(rest).unwrap_or((first.len_utf8(), &rest[..first.len_utf8()]));
            rest = &rest[len..];
            for character in replacement.chars() {
                if self.remove_extra_whitespaces && follows_space && character == ' ' {
                    continue;
                }
                follows_space = character == ' ';
                out.push(if character == '▁' { ' ' } else { character });
            }
        }
        if self.remove_extra_whitespaces {
            out.truncate(out.trim_end_matches(' ').len());
        } else if out.len() == start {
            out.clear(); // nothing is not preceded by a space
        }
        out
    }

    /// What the longest beginning of `text` that the table has is replaced by, and its length.
    fn replacement(&self, text: &str) -> Option<(usize, &str)> {
        let mut at = self.units.first()?.offset();
        let mut longest = None;
        for (i, &byte) in text.as_bytes().iter().enumerate() {
            at ^= usize::from(byte);
            let Some(unit) = self.units.get(at).filter(|unit| unit.label() == u32::from(byte)) else { break };
            at ^= unit.offset();
            if unit.has_leaf() {
                longest = self.units.get(at).map(|leaf| (i + 1, leaf.value()));
            }
        }
        let (len, start) = longest?;
        let found = self.replacements.get(start..)?;
        text.is_char_boundary(len).then_some((len, &found[..found.find('\0')?]))
    }
}

fn parse(blob: &[u8]) -> Result<(Vec<Unit>, String), TokenizerError> {
    let bad = |reason| TokenizerError::BadCharsmap { reason };
    let (size, rest) = blob.split_first_chunk::<4>().ok_or(bad("it is shorter than its header"))?;
    let (trie, replacements) = rest
        .split_at_checked(u32::from_le_bytes(*size) as usize)
        .ok_or(bad("it is shorter than its trie"))?;
    let (units, odd) = trie.as_chunks::<4>();
    if !odd.is_empty() {
        return Err(bad("its trie is not made of 4-byte units"));
    }
    let units = units.iter().map(|unit| Unit(u32::from_le_bytes(*unit))).collect();
    let replacements = String::from_utf8(replacements.to_vec());
    Ok((units, replacements.map_err(|_| bad("its replacements are not UTF-8"))?))
}

/// A node of the trie, or a value.
#[derive(Clone, Copy)]
struct Unit(u32);

impl Unit {
    /// Whether the node has a value, which is where the node's children would be for byte 0.
    fn has_leaf(self) -> bool {
        self.0 >> 8 & 1 == 1
    }

    fn value(self) -> usize {
        (self.0 & 0x7FFF_FFFF) as usize
    }

    /// The byte that leads here; of values, more than a byte.
    fn label(self) -> u32 {
        self.0 & 0x8000_00FF
    }

    /// What the place of the children differs by.
    fn offset(self) -> usize {
        ((self.0 >> 10) << ((self.0 & 0x200) >> 6)) as usize
    }
}
