//! Text in and out: tokenizers, chat templates, and decoding of tokens as they arrive.

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
