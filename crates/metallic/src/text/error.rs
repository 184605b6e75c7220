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

    /// Two arrays of the vocabulary that must be equally long are not.
    #[error("the vocabulary has {n_tokens} tokens, but {found} entries in {key:?}")]
    LengthMismatch { key: &'static str, n_tokens: usize, found: usize },

    /// The vocabulary has no tokens, or more than ids can number.
    #[error("a vocabulary of {n_tokens} tokens can't be used")]
    BadSize { n_tokens: usize },

    /// A token's text is not UTF-8.
    #[error("the text of token {id} is not valid UTF-8: {}", text.escape_ascii())]
    PieceNotUtf8 { id: usize, text: Vec<u8> },

    /// A token is said to stand for a byte, but its text is not of the form `<0x0A>`.
    #[error("token {id} should stand for a byte, but its text {text:?} is not of the form \"<0x0A>\"")]
    BadByteToken { id: usize, text: String },

    /// A token type that the format does not define.
    #[error("token {id} has type {found}; types 1 to 6 exist")]
    BadTokenType { id: usize, found: i64 },

    /// A key names a token that the vocabulary does not have.
    #[error("{key:?} is {id}, but the vocabulary has {n_tokens} tokens")]
    IdOutOfRange { key: &'static str, id: u32, n_tokens: usize },

    /// A merge is not two pieces with a space between them.
    #[error("merge number {index}, {merge:?}, is not two pieces separated by a space")]
    BadMerge { index: usize, merge: String },

    /// A merge joins pieces, or makes one, that the vocabulary does not have.
    #[error("merge number {index}, {merge:?}, needs a piece that is not in the vocabulary")]
    UnknownMerge { index: usize, merge: String },

    /// A token's score is no number, or an infinite one where scores are added.
    #[error("the score of token {id} is not a finite number")]
    BadScore { id: usize },

    /// The tokens are too many, or too long, to be searched for.
    #[error("the vocabulary's tokens can't be searched for: {reason}")]
    TooManyPieces { reason: String },

    /// A token's text breaks off within an escape, or an escape is no number.
    #[error(
        "the text of token {id}, {text:?}, has a backslash that is not followed by a character or two hexadecimal digits"
    )]
    BadEscape { id: usize, text: String },

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
