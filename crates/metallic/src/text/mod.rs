//! Text in and out: tokenizers, chat templates, and decoding of tokens as they arrive.
//!
//! # Why the tokenizers are our own
//!
//! Two crates were measured against published vocabularies with the ids that they must give (15 files, 46 to
//! 50 texts each), on one core of the machine that the other figures are from:
//!
//! | | exact | Llama 3's vocabulary | Gemma 3's | English, MB/s | its crates |
//! |---|---|---|---|---|---|
//! | `shimmytok` 0.8.4 | 9 of 15 | 241 ms | – | 2–6 | 11 |
//! | `tokenizers` 0.23.2, `fancy-regex` | all 4 tried | 191 ms | 708 ms | 1.5–4 | 72 |
//! | this module | 14 of 14 of its kinds | 100–220 ms | 40 ms | 5–80 | 4 |
//!
//! `tokenizers` gives the right ids. But it is built from JSON or from maps of strings, so a vocabulary of 256,000
//! takes most of a second before the first token; it encodes at a fraction of what is wanted; and SentencePiece
//! vocabularies need merges, half a million, that a GGUF file does not have. Version 1.0 (a release candidate)
//! can't be built from anything but its own JSON. The part that is ours is small: a merging loop (`merge`) and
//! two sets of rules for it (`bpe`, `spm`). What is hard, Unicode classes and searching, is left to
//! `regex-automata` and `aho-corasick`; the tables are `hashbrown`'s, since they are keyed by slices of one buffer.

mod bpe;
mod byte_level;
mod chat_template;
mod error;
mod merge;
mod pre_types;
mod pretokenize;
mod special;
mod spm;
mod stop_matcher;
mod stop_tokens;
mod stream_decoder;
mod tokenizer;
mod vocabulary;

pub use chat_template::{ChatTemplate, MAX_RECURSION, Message, RENDER_FUEL, RenderOptions, TemplateError};
pub use error::TokenizerError;
pub use stop_matcher::StopMatcher;
pub use stream_decoder::StreamDecoder;
pub use tokenizer::{EncodeOptions, MAX_TEXT_BYTES, Tokenizer};
pub use vocabulary::TokenType;
