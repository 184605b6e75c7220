//! The keys of a tokenizer, read as far as what is in them can be used.
//!
//! Vocabularies are written by many programs, and some hold things that nobody meant: a special token that does not
//! exist, a list with more entries than tokens, merges of pieces that were left out. Where the rest is as good as
//! before, that is a warning, once for each thing; where text would become other tokens, it stays an error. llama.cpp
//! loads what is loaded here. What a file says and no code reads is a warning too, for text may become other tokens.

use std::cell::RefCell;
use std::collections::HashSet;

use metallic_gguf::{Array, Error as GgufError, FromValue, Metadata, Value};

use super::error::TokenizerError;

/// What the keys begin with.
const PREFIX: &str = "tokenizer.ggml.";

/// Keys that change neither tokens nor ends: marks that only training puts into texts, what other kinds of
/// tokenizers would read, and what the model itself needs.
const HARMLESS: &[&str] = &[
    "add_sep_token",
    "added_tokens",
    "cls_token_id",
    "mask_token_id",
    "merges",
    "padding_token_id",
    "pre",
    "scores",
    "seperator_token_id",
    "token_type_count",
];

/// The metadata of a tokenizer: `tokens` stands for `tokenizer.ggml.tokens`. Notes which keys are read.
pub(super) struct Keys<'m, 'a> {
    metadata: &'m Metadata<'a>,
    read: RefCell<HashSet<&'static str>>,
}

impl<'m, 'a> Keys<'m, 'a> {
    pub(super) fn new(metadata: &'m Metadata<'a>) -> Self {
        Keys { metadata, read: RefCell::default() }
    }

    fn full(&self, key: &'static str) -> String {
        self.read.borrow_mut().insert(key);
        format!("{PREFIX}{key}")
    }

    pub(super) fn has(&self, key: &'static str) -> bool {
        self.metadata.get(&self.full(key)).is_some()
    }

    pub(super) fn required<T: FromValue<'a>>(&self, key: &'static str) -> Result<T, TokenizerError> {
        Ok(self.metadata.required(&self.full(key))?)
    }

    pub(super) fn optional<T: FromValue<'a>>(&self, key: &'static str) -> Result<Option<T>, TokenizerError> {
        Ok(self.metadata.optional(&self.full(key))?)
    }

    /// The token that a key names. One that the vocabulary does not have is none.
    pub(super) fn token_id(&self, n_tokens: usize, key: &'static str) -> Result<Option<u32>, TokenizerError> {
        let full = self.full(key);
        let id = match self.metadata.optional::<u32>(&full) {
            Ok(Some(id)) if id as usize >= n_tokens => id.to_string(),
            Err(GgufError::OutOfRange { value, .. }) => value,
            found => return Ok(found?),
        };
        tracing::warn!(
            "{full:?} is {id}, which is none of the vocabulary's {n_tokens} tokens; it is left out"
        );
        Ok(None)
    }

    /// A flag. Some files have a number in its place.
    pub(super) fn flag(&self, key: &'static str) -> Result<Option<bool>, TokenizerError> {
        let full = self.full(key);
        let Some(value) = self.metadata.get(&full) else { return Ok(None) };
        let Ok(number) = i64::from_value(&full, value) else {
            return Ok(Some(bool::from_value(&full, value)?));
        };
        let flag = number != 0;
        tracing::warn!("{full:?} is the number {number} instead of a flag; it is taken as {flag}");
        Ok(Some(flag))
    }

    /// The entries of a list that has one for each token. More than those are left out.
    pub(super) fn of_tokens(
        &self,
        n_tokens: usize,
        key: &'static str,
    ) -> Result<Option<impl Iterator<Item = Value<'a>> + use<'a>>, TokenizerError> {
        let Some(array) = self.optional::<Array<'a>>(key)? else { return Ok(None) };
        let found = array.len();
        if found < n_tokens {
            return Err(TokenizerError::LengthMismatch { key, n_tokens, found });
        }
        if found > n_tokens {
            let full = self.full(key);
            tracing::warn!("{full:?} has {found} entries for {n_tokens} tokens; the last ones are left out");
        }
        Ok(Some(array.iter().take(n_tokens)))
    }

    /// Warns of keys that were not read though they may change what text becomes, or where an answer ends.
    pub(super) fn warn_of_unread(&self) {
        let read = self.read.borrow();
        let unread = |(key, value): (&'a str, Value<'a>)| {
            let own = key.strip_prefix(PREFIX)?;
            let is_known = read.contains(own) || HARMLESS.contains(&own) || value == Value::Bool(false);
            (!is_known).then_some(key)
        };
        let unread: Vec<_> = self.metadata.iter().filter_map(unread).collect();
        if !unread.is_empty() {
            let keys = unread.join(", ");
            tracing::warn!(
                "the file has keys that may change its tokens, and no code reads for a tokenizer of its kind: {keys}"
            );
        }
    }
}

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

    /// Warns of them, if there are any. `what` says what entries these are, and what becomes of them.
    pub(super) fn tell(self, what: &str) {
        if let Some((number, text)) = self.first {
            tracing::warn!("the vocabulary has {} {what}; the first is number {number}, {text:?}", self.n);
        }
    }
}
