//! Text in and out: tokenizers, chat templates, decoding of tokens as they arrive, and what an answer
//! consists of.
//!
//! # Why the tokenizers are our own
//!
//! Two crates were measured against published vocabularies with the ids that they must give (15 files of 46
//! to 50 texts). Times are of the quieter of two runs on a shared two-core machine, so compare rows, not
//! machines; the English is the text of the GPL repeated to 1 MB, which is kind to everything that remembers
//! words.
//!
//! | | exact | build Llama 3, Gemma 3 | English, BPE and SentencePiece | 1 MB of one letter | crates |
//! |---|---|---|---|---|---|
//! | `shimmytok` 0.8.4 | 7 of 15 | 240 ms, – | 2–6, 2 MB/s | – | 14 |
//! | `tokenizers` 0.23.2, `fancy-regex` | 4 of 4 tried | 310, 1300 ms | 2–3, 0.9 MB/s | 0.3–0.5 s | 72 |
//! | this module | 15 of 15 | 160, 52 ms | 21–36, 67–230 MB/s | 0.4–0.6 s | 8 |
//!
//! (`shimmytok` was timed in another run.) On 4 MB of varied source code and prose this module does 15 to 20 MB/s.
//!
//! `tokenizers` gives the right ids. But it is built from maps of strings, so a large vocabulary takes up to a
//! second before the first token; it encodes slower than is wanted; and SentencePiece vocabularies need merges,
//! half a million, that a GGUF file does not have. Version 1.0, a release candidate, can be built from nothing
//! but its own JSON. What is ours is small: a merging loop (`merge`) and two sets of rules for it (`bpe`, `spm`),
//! the longest match (`wordpiece`, `rwkv`) and the best path (`unigram`). What is hard, Unicode and searching, is
//! left to `regex-automata`, `unicode-normalization` and `aho-corasick`; the tables are `hashbrown`'s, for they are
//! keyed by slices of one buffer. None of the eight crates compiles C.

mod answer;
mod bpe;
mod byte_level;
mod charsmap;
mod chat_template;
mod error;
mod footprint;
mod infill;
mod keys;
mod least_tokens;
mod longest;
mod merge;
mod pre_types;
mod pretokenize;
mod rwkv;
mod spacing;
mod special;
mod spm;
mod stop_matcher;
mod stop_tokens;
mod stream_decoder;
mod tokenizer;
mod unicode_form;
mod unigram;
mod vocabulary;
mod wordpiece;
mod words;

pub use answer::{Answer, AnswerFormat, AnswerSplitter, CallFormError, MalformedCall, Part, ToolCall};
pub use chat_template::{
    ChatTemplate, MAX_RECURSION, MAX_TEMPLATE_BYTES, Message, RENDER_FUEL, RenderOptions, TemplateError,
};
pub use error::TokenizerError;
pub use infill::InfillTokens;
pub use stop_matcher::StopMatcher;
pub use stream_decoder::StreamDecoder;
pub use tokenizer::{EncodeOptions, MAX_TEXT_BYTES, Tokenizer};
pub use vocabulary::TokenType;
