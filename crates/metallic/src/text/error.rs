//! What can be wrong with a vocabulary or with text to encode.

use metallic_gguf::Error as GgufError;

/// Why a file's tokenizer can't be used, or a text not be encoded.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[allow(missing_docs)] // a field's name and the variant's text say what it is
pub enum TokenizerError {
    /// A key of the tokenizer is missing, or of the wrong type.
    #[error("the file's tokenizer can't be read")]
    Metadata(#[from] GgufError),

    /// The file's tokenizer is of a kind that this version does not have.
    #[error(
        "tokenizer model {model:?} is not supported (supported: {supported}); the model itself can still run \
         on token ids"
    )]
    UnsupportedModel { model: String, supported: &'static str },

    /// The file says that it has no tokenizer.
    #[error("the file has no tokenizer (its kind is \"none\"); the model can still run on token ids")]
    NoTokenizer,

    /// A list has fewer entries than there are tokens.
    #[error("the vocabulary has {n_tokens} tokens, but only {found} entries in \"tokenizer.ggml.{key}\"")]
    LengthMismatch { key: &'static str, n_tokens: usize, found: usize },

    /// The vocabulary has no tokens, or more than ids can number.
    #[error("a vocabulary of {n_tokens} tokens can't be used")]
    BadSize { n_tokens: usize },

    /// A token's score is no number, or an infinite one where scores are added.
    #[error("the score of token {id} is not a finite number")]
    BadScore { id: usize },

    /// The tokens are too many, or too long, to be searched for.
    #[error("the vocabulary's tokens can't be searched for: {reason}")]
    TooManyPieces { reason: String },

    /// The table of replacements (`tokenizer.ggml.precompiled_charsmap`) is not one.
    #[error("\"tokenizer.ggml.precompiled_charsmap\" can't be used: {reason}")]
    BadCharsmap { reason: &'static str },

    /// A text is longer than positions in it can be counted.
    #[error("a text of {n_bytes} bytes is too long to encode at once; the limit is {limit}")]
    TextTooLong { n_bytes: usize, limit: usize },

    /// The vocabulary can't express a byte of the text: neither a token for it nor an unknown token exists.
    #[error("the vocabulary has no token for byte 0x{byte:02X}, and no unknown token")]
    NoToken { byte: u8 },
}
