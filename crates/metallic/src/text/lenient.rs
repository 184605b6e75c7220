//! Reading what a file may have wrong without being refused.
//!
//! Vocabularies are written by many programs, and some hold things that nobody meant: a special token that does not
//! exist, a list with more entries than tokens, merges of pieces that were left out. Where the rest is as good as
//! before, that is a warning, once for each thing; where text would become other tokens, it stays an error. llama.cpp
//! loads what is loaded here.

use metallic_gguf::{Array, Error as GgufError, FromValue, Metadata, Value};

use super::error::TokenizerError;

/// Entries of a list with the same fault, to be told of once.
#[derive(Default)]
pub(super) struct Faults {
    /// Number and text.
    first: Option<(usize, String)>,
    n: usize,
}

impl Faults {
    pub(super) fn add(&mut self, number: usize, text: &[u8]) {
        self.n += 1;
        self.first.get_or_insert_with(|| (number, String::from_utf8_lossy(text).into_owned()));
    }

    /// Warns of them, if there are any. `what` says what entries these are, and what becomes of them: "tokens whose …".
    pub(super) fn tell(self, what: &str) {
        if let Some((number, text)) = self.first {
            tracing::warn!("the vocabulary has {} {what}; the first is number {number}, {text:?}", self.n);
        }
    }
}

/// The token that a key names. One that the vocabulary does not have is none.
pub(super) fn token_id(
    metadata: &Metadata<'_>,
    n_tokens: usize,
    key: &str,
) -> Result<Option<u32>, TokenizerError> {
    let id = match metadata.optional::<u32>(key) {
        Ok(Some(id)) if id as usize >= n_tokens => id.to_string(),
        Err(GgufError::OutOfRange { value, .. }) => value,
        found => return Ok(found?),
    };
    tracing::warn!("{key:?} is {id}, which is none of the vocabulary's {n_tokens} tokens; it is left out");
    Ok(None)
}

/// A flag. Some files have a number in its place.
pub(super) fn flag(metadata: &Metadata<'_>, key: &str) -> Result<Option<bool>, TokenizerError> {
    let Some(value) = metadata.get(key) else { return Ok(None) };
    let Ok(number) = i64::from_value(key, value) else { return Ok(Some(bool::from_value(key, value)?)) };
    let flag = number != 0;
    tracing::warn!("{key:?} is the number {number} instead of a flag; it is taken as {flag}");
    Ok(Some(flag))
}

/// The entries of a list that has one for each token. More than those are left out.
pub(super) fn of_tokens<'a>(
    metadata: &Metadata<'a>,
    n_tokens: usize,
    key: &'static str,
) -> Result<Option<impl Iterator<Item = Value<'a>> + use<'a>>, TokenizerError> {
    let Some(array) = metadata.optional::<Array<'a>>(key)? else { return Ok(None) };
    let found = array.len();
    if found < n_tokens {
        return Err(TokenizerError::LengthMismatch { key, n_tokens, found });
    }
    if found > n_tokens {
        tracing::warn!("{key:?} has {found} entries for {n_tokens} tokens; the last ones are left out");
    }
    Ok(Some(array.iter().take(n_tokens)))
}
