//! The metadata keys of one architecture, and what most architectures make of them.
//!
//! Here are the getters, which check what any model must hold to; the other files say what keys mean: `transformer` those
//! of whole models, `attention`, `rope`, `experts` and `state` those of their parts.

mod attention;
mod experts;
mod rope;
mod state;
mod transformer;
mod validate;

use std::cell::RefCell;
use std::collections::HashSet;

use metallic_gguf::{FromValue, Gguf, MAX_LAYERS, Metadata, Value, ValueType};

use crate::error::{Error, Result};

pub(super) use rope::unstretched;
pub(super) use state::StateHeads;
pub(super) use validate::validate;

/// The widest of anything in a model, far above every model's: products of two widths can't overflow.
const MAX_WIDTH: usize = 1 << 24;

/// The metadata of one architecture: `block_count` stands for `llama.block_count`.
pub(super) struct Keys<'a, 'g> {
    gguf: &'a Gguf<'g>,
    metadata: Metadata<'a>,
    architecture: &'a str,
    n_vocab: usize,
    /// What was asked for, without the architecture's name.
    read: RefCell<HashSet<String>>,
}

impl<'a, 'g> Keys<'a, 'g> {
    /// The vocabulary is as large as the embedding has rows; so the file's list of tokens, or its key, must be.
    pub(super) fn new(gguf: &'a Gguf<'g>, architecture: &'a str) -> Result<Self> {
        let name = "token_embd.weight";
        let tensor = gguf.tensor(name).ok_or_else(|| Error::missing_tensor(name))?;
        let n_vocab =
            usize::try_from(tensor.n_rows()).map_err(|_| Error::TooLarge { what: "the token embedding" })?;
        let (metadata, read) = (gguf.metadata(), RefCell::default());
        let keys = Self { gguf, metadata, architecture, n_vocab, read };
        let tokens = "tokenizer.ggml.tokens";
        let (key, n_tokens) = match keys.metadata.get(tokens) {
            Some(Value::Array(list)) => (tokens.to_owned(), Some(list.len())),
            _ => (keys.full("vocab_size"), keys.optional("vocab_size")?),
        };
        if let Some(n_tokens) = n_tokens.filter(|n| *n != n_vocab) {
            return Err(Error::Vocabulary { key, n_tokens, n_rows: n_vocab });
        }
        Ok(keys)
    }

    /// The key with the architecture's name, as the file has it. Takes note that it was asked for.
    fn full(&self, key: &str) -> String {
        self.read.borrow_mut().insert(key.to_owned());
        format!("{}.{key}", self.architecture)
    }

    /// Keys that the file has of this architecture and that no code has asked for, with their values.
    pub(super) fn unread(&self) -> Vec<(&'a str, Value<'a>)> {
        let read = self.read.borrow();
        let own = |key: &'a str| key.strip_prefix(self.architecture)?.strip_prefix('.');
        let unread = |(key, value)| Some((own(key).filter(|key| !read.contains(*key))?, value));
        self.metadata.iter().filter_map(unread).collect()
    }

    pub(super) fn required<T: FromValue<'a>>(&self, key: &str) -> Result<T> {
        Ok(self.metadata.required(&self.full(key))?)
    }

    pub(super) fn optional<T: FromValue<'a>>(&self, key: &str) -> Result<Option<T>> {
        Ok(self.metadata.optional(&self.full(key))?)
    }

    /// One value for each layer, from a scalar or an array.
    fn per_layer<T: FromValue<'a> + Clone>(&self, key: &str) -> Result<Option<Vec<T>>> {
        Ok(self.metadata.per_layer(&self.full(key), self.block_count()?)?)
    }

    /// A flag for each layer, as booleans or numbers.
    fn flags(&self, key: &str, element_type: ValueType) -> Result<Vec<bool>> {
        match element_type {
            ValueType::Bool => Ok(self.per_layer(key)?.unwrap_or_default()),
            _ => {
                let flags = self.per_layer::<u32>(key)?.unwrap_or_default();
                Ok(flags.into_iter().map(|flag| flag != 0).collect())
            }
        }
    }

    pub(super) fn invalid(&self, key: &str, value: impl ToString, rule: &'static str) -> Error {
        Error::Config { key: self.full(key), value: value.to_string(), rule }
    }

    /// Whether the file has a key.
    pub(super) fn has(&self, key: &str) -> bool {
        self.metadata.get(&self.full(key)).is_some()
    }

    /// Whether the file has a tensor: for what a publisher leaves to the model.
    pub(super) fn has_tensor(&self, name: &str) -> bool {
        self.gguf.tensor(name).is_some()
    }

    /// A count that must be at least one.
    pub(super) fn count(&self, key: &str) -> Result<usize> {
        match self.required(key)? {
            0 => Err(self.invalid(key, 0, "it must be at least 1")),
            n => Ok(n),
        }
    }

    /// A count of values, heads or layers that some model could have.
    pub(super) fn width(&self, key: &str) -> Result<usize> {
        self.checked_width(key, self.required(key)?)
    }

    /// The same where the key may be absent.
    pub(super) fn optional_width(&self, key: &str) -> Result<Option<usize>> {
        self.optional(key)?.map(|n| self.checked_width(key, n)).transpose()
    }

    fn checked_width(&self, key: &str, n: usize) -> Result<usize> {
        if (1..=MAX_WIDTH).contains(&n) {
            Ok(n)
        } else {
            Err(self.invalid(key, n, "it must be at least 1, and no model has more than 16777216"))
        }
    }

    /// A positive number, 1 where the key is absent or 0.
    pub(super) fn factor(&self, key: &str) -> Result<f32> {
        match self.optional::<f32>(key)?.unwrap_or(0.0) {
            0.0 => Ok(1.0),
            factor if factor.is_finite() && factor > 0.0 => Ok(factor),
            factor => Err(self.invalid(key, factor, "it must be a positive number")),
        }
    }

    fn epsilon(&self, key: &str) -> Result<f32> {
        let eps: f32 = self.required(key)?;
        if eps.is_finite() && eps >= 0.0 {
            Ok(eps)
        } else {
            Err(self.invalid(key, eps, "it must be a positive number"))
        }
    }

    /// Layers in the file, those that only guess further tokens among them.
    fn block_count(&self) -> Result<usize> {
        match self.count("block_count")? {
            n if n <= MAX_LAYERS => Ok(n),
            n => Err(self.invalid("block_count", n, "no model has more than 65536 layers")),
        }
    }

    /// Layers that run.
    pub(super) fn n_layers(&self) -> Result<usize> {
        let (n, key) = (self.block_count()?, "nextn_predict_layers");
        let n_guess = self.optional(key)?.unwrap_or(0);
        n.checked_sub(n_guess)
            .filter(|n| *n > 0)
            .ok_or_else(|| self.invalid(key, n_guess, "it must be below block_count"))
    }
}
