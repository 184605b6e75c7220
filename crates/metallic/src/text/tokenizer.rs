//! From text to token ids and back, as a file's metadata say.

use metallic_gguf::{Gguf, Metadata};

use super::bpe::Bpe;
use super::error::TokenizerError;
use super::footprint;
use super::infill::{self, InfillTokens};
use super::keys::Keys;
use super::least_tokens;
use super::pretokenize::PreTokenizer;
use super::rwkv::Rwkv;
use super::special::{Part, SpecialTokens};
use super::spm::Spm;
use super::stop_tokens;
use super::unigram::Unigram;
use super::vocabulary::{Alphabet, TokenType, Vocabulary};
use super::wordpiece::WordPiece;

/// The longest text that is encoded at once. It bounds memory: one word of this length takes about 3 GB.
/// It is far more than any context holds.
pub const MAX_TEXT_BYTES: usize = 64 << 20;

/// The values of `tokenizer.ggml.model` that have a tokenizer here.
const SUPPORTED: &str = "gpt2, llama, gemma4, bert, t5, plamo2, rwkv";

/// A vocabulary and the rules by which text becomes its tokens.
///
/// Ids are `u32`, from 0 to [`n_vocab`](Tokenizer::n_vocab) − 1. Encoding gives exactly what the vocabulary's
/// publisher's tokenizer gives.
pub struct Tokenizer {
    vocabulary: Vocabulary,
    model: Model,
    special: SpecialTokens,
    bos: Option<u32>,
    eos: Option<u32>,
    add_bos: bool,
    add_eos: bool,
    stop_tokens: Vec<u32>,
    infill: Option<InfillTokens>,
}

enum Model {
    Bpe(Bpe),
    Spm(Spm),
    WordPiece(WordPiece),
    Unigram(Unigram),
    Plamo(Unigram),
    Rwkv(Rwkv),
}

impl Model {
    fn encoder<'a>(&'a self, vocabulary: &'a Vocabulary) -> Box<dyn Encoder + 'a> {
        match self {
            Model::Bpe(bpe) => Box::new(bpe.encoder(vocabulary)),
            Model::Spm(spm) => Box::new(spm.encoder(vocabulary)),
            Model::WordPiece(wordpiece) => Box::new(wordpiece.encoder(vocabulary)),
            Model::Unigram(unigram) | Model::Plamo(unigram) => Box::new(unigram.encoder(vocabulary)),
            Model::Rwkv(rwkv) => Box::new(rwkv.encoder(vocabulary)),
        }
    }

    /// Whether texts start with BOS and end with EOS, if the file does not say.
    fn adds(&self) -> (bool, bool) {
        match self {
            Model::Bpe(bpe) => (bpe.adds_bos(), false),
            Model::Spm(_) => (true, false),
            Model::WordPiece(_) => (true, true),
            Model::Unigram(_) => (false, true),
            Model::Plamo(_) | Model::Rwkv(_) => (false, false),
        }
    }
}

/// What encodes the parts of one text that have no special tokens.
pub(super) trait Encoder {
    /// Appends the ids of a part. `starts` says whether it begins the text or follows a special token: there a
    /// space prefix belongs. Between calls, `out` may only grow.
    fn encode(&mut self, text: &str, starts: bool, out: &mut Vec<u32>) -> Result<(), TokenizerError>;
}

/// What [`Tokenizer::encode`] does beside the text itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Whether BOS begins the text where the vocabulary wants it. A text that begins with it gets no second one.
    pub add_bos: bool,
    /// Whether EOS ends the text where the vocabulary wants it. A text that ends with it gets no second one.
    pub add_eos: bool,
    /// Whether the names of control tokens in the text, such as `<|im_start|>`, become these tokens. For text
    /// from outside this must be off; for a rendered chat template it must be on.
    pub parse_special: bool,
}

impl Default for EncodeOptions {
    /// BOS and EOS as the vocabulary wants them; control tokens are not parsed.
    fn default() -> Self {
        EncodeOptions { add_bos: true, add_eos: true, parse_special: false }
    }
}

impl Tokenizer {
    /// Reads the tokenizer of a file (the keys `tokenizer.ggml.*`).
    ///
    /// A pre-tokenizer that is not known is logged as a warning that names it, and the default is used. So is what a
    /// file has wrong without doing harm, such as a special token that the vocabulary does not have.
    ///
    /// # Errors
    /// [`TokenizerError::NoTokenizer`] if the file says that it has none, [`TokenizerError::UnsupportedModel`] if
    /// its tokenizer is of a kind that is not known here (the model can still run on ids), and one variant for each way in which the data can be wrong.
    pub fn from_gguf(gguf: &Gguf<'_>) -> Result<Self, TokenizerError> {
        Tokenizer::from_metadata(&gguf.metadata())
    }

    /// About as many bytes as [`from_gguf`](Self::from_gguf) keeps, from the sizes of the vocabulary's lists.
    pub fn estimated_bytes(gguf: &Gguf<'_>) -> u64 {
        footprint::estimate(&gguf.metadata())
    }

    fn from_metadata(metadata: &Metadata<'_>) -> Result<Self, TokenizerError> {
        let keys = &Keys::new(metadata);
        let name: &str = keys.required("model")?;
        let pre_tokenizer = match name {
            "gpt2" => {
                let architecture = metadata.optional("general.architecture")?;
                Some(PreTokenizer::new(keys.optional("pre")?, architecture))
            }
            "gemma4" => Some(PreTokenizer::new(Some(name), None)),
            _ => None,
        };
        let alphabet = match (name, &pre_tokenizer) {
            (_, Some(pre_tokenizer)) => pre_tokenizer.alphabet,
            ("llama" | "bert" | "t5", _) => Alphabet::SentencePiece,
            ("plamo2", _) => Alphabet::Text,
            ("rwkv", _) => Alphabet::Escaped,
            ("none" | "no_vocab", _) => return Err(TokenizerError::NoTokenizer),
            _ => {
                return Err(TokenizerError::UnsupportedModel {
                    model: name.to_owned(),
                    supported: SUPPORTED,
                });
            }
        };
        let vocabulary = Vocabulary::read(keys, alphabet)?;
        let id = |key| keys.token_id(vocabulary.len(), key);
        let (mut bos, mut eos) = (id("bos_token_id")?, id("eos_token_id")?);
        let mut unknown = id("unknown_token_id")?;
        if name == "llama" {
            // Old files leave out what SentencePiece does unless told otherwise; llama.cpp has the same defaults.
            let or = |found: Option<u32>, key, default, of| {
                let is_one = !keys.has(key) && vocabulary.token_type(default) == Some(of);
                found.or(is_one.then_some(default))
            };
            unknown = or(unknown, "unknown_token_id", 0, TokenType::Unknown);
            bos = or(bos, "bos_token_id", 1, TokenType::Control);
            eos = or(eos, "eos_token_id", 2, TokenType::Control);
        }
        let model = match (name, pre_tokenizer) {
            (_, Some(pre_tokenizer)) => Model::Bpe(Bpe::read(keys, &vocabulary, pre_tokenizer, unknown)?),
            ("llama", _) => Model::Spm(Spm::read(keys, &vocabulary, unknown)?),
            ("bert", _) => {
                // A text stands between [CLS] and [SEP]; the format spells the key so.
                bos = id("cls_token_id")?.or(bos);
                eos = id("seperator_token_id")?.or(eos);
                Model::WordPiece(WordPiece::read(keys, &vocabulary, unknown)?)
            }
            ("t5", _) => Model::Unigram(Unigram::read(keys, &vocabulary, unknown)?),
            ("plamo2", _) => Model::Plamo(Unigram::read_plamo(keys, &vocabulary, unknown)?),
            _ => Model::Rwkv(Rwkv::new(&vocabulary, unknown)?),
        };
        let (add_bos, add_eos) = model.adds();
        let tokenizer = Tokenizer {
            special: SpecialTokens::read(metadata, &vocabulary)?,
            stop_tokens: stop_tokens::read(keys, &vocabulary, eos)?,
            infill: infill::read(keys, &vocabulary)?,
            model,
            bos,
            eos,
            add_bos: keys.flag("add_bos_token")?.unwrap_or(add_bos),
            add_eos: keys.flag("add_eos_token")?.unwrap_or(add_eos),
            vocabulary,
        };
        keys.warn_of_unread();
        Ok(tokenizer)
    }

    /// The ids that a text becomes. Where the publisher's tokenizer normalises texts or drops white space around special
    /// tokens, so does this, and [`decode`](Self::decode) gives the text so changed.
    ///
    /// # Errors
    /// [`TokenizerError::TextTooLong`] above [`MAX_TEXT_BYTES`]; [`TokenizerError::NoToken`] if the vocabulary
    /// can't express a character, which the vocabularies of real models can.
    pub fn encode(&self, text: &str, options: EncodeOptions) -> Result<Vec<u32>, TokenizerError> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(TokenizerError::TextTooLong { n_bytes: text.len(), limit: MAX_TEXT_BYTES });
        }
        let mut ids = Vec::with_capacity(text.len() / 4 + 2);
        let bos = self.bos.filter(|_| options.add_bos && self.add_bos);
        ids.extend(bos);
        let start = ids.len();
        let mut encoder = self.model.encoder(&self.vocabulary);
        let mut starts = true;
        for part in self.special.split(text, options.parse_special) {
            match part {
                Part::Token(id) => ids.push(id),
                Part::Text(text) => encoder.encode(text, starts, &mut ids)?,
            }
            starts = matches!(part, Part::Token(_));
        }
        let of_text = &ids[start..];
        let eos = self.eos.filter(|eos| options.add_eos && self.add_eos && of_text.last() != Some(eos));
        if bos.is_some() && of_text.first() == bos.as_ref() {
            ids.remove(0);
        }
        ids.extend(eos);
        Ok(ids)
    }

    /// How many tokens a text has at least: enough to refuse one that is far too long before it is encoded, which takes
    /// much memory. Zero where the vocabulary drops parts of a text. White space beside special tokens, which some
    /// vocabularies drop as well, is counted.
    pub fn least_tokens(&self, text: &str) -> usize {
        match self.model {
            Model::Bpe(_) | Model::Spm(_) | Model::Rwkv(_) => least_tokens::of(&self.vocabulary, text),
            Model::WordPiece(_) | Model::Unigram(_) | Model::Plamo(_) => 0,
        }
    }

    /// The text of some ids from the beginning of a text on, without control tokens. What is not UTF-8 becomes
    /// U+FFFD; ids that the vocabulary does not have are left out.
    ///
    /// For ids that arrive one by one, use [`StreamDecoder`](super::StreamDecoder).
    pub fn decode(&self, ids: &[u32]) -> String {
        self.join(ids.iter().filter(|id| !self.is_control(**id)))
    }

    /// The same with control tokens, by their names.
    pub fn decode_with_control(&self, ids: &[u32]) -> String {
        self.join(ids.iter())
    }

    fn join<'a>(&self, ids: impl Iterator<Item = &'a u32>) -> String {
        let pieces = ids.flat_map(|id| self.piece(*id).unwrap_or_default());
        let bytes: Vec<u8> = pieces.copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let prefix = if self.adds_space_prefix() { " " } else { "" };
        text.strip_prefix(prefix).unwrap_or(&text).to_owned()
    }

    /// The bytes that a token stands for, which need not be UTF-8; of a control token, its name. `None` if
    /// there is no such token.
    pub fn piece(&self, id: u32) -> Option<&[u8]> {
        self.vocabulary.piece(id)
    }

    /// What a token is for. `None` if there is no such token.
    pub fn token_type(&self, id: u32) -> Option<TokenType> {
        self.vocabulary.token_type(id)
    }

    /// Whether a token is a mark that is no part of the text, such as BOS.
    pub fn is_control(&self, id: u32) -> bool {
        matches!(self.token_type(id), Some(TokenType::Control | TokenType::Unknown))
    }

    /// The special token of this name, such as `<|im_end|>`: one that text becomes only as a whole.
    pub fn special_token(&self, name: &str) -> Option<u32> {
        let mut parts = self.special.split(name, true);
        match (parts.next(), parts.next()) {
            (Some(Part::Token(id)), None) => Some(id),
            _ => None,
        }
    }

    /// The number of tokens.
    pub fn n_vocab(&self) -> usize {
        self.vocabulary.len()
    }

    /// The token that begins a text.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The token that ends a text.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// Whether [`encode`](Tokenizer::encode) puts BOS before a text.
    pub fn adds_bos(&self) -> bool {
        self.add_bos && self.bos.is_some()
    }

    /// The tokens after which a model has nothing more to say, in ascending order: EOS, the end of a turn, the
    /// end of a message.
    pub fn stop_tokens(&self) -> &[u32] {
        &self.stop_tokens
    }

    /// The tokens around the parts of a text with a gap, where the model was trained to fill one in.
    pub fn infill_tokens(&self) -> Option<InfillTokens> {
        self.infill
    }

    /// Whether a text is encoded as if it began with a space, which decoding takes away again.
    pub(super) fn adds_space_prefix(&self) -> bool {
        match &self.model {
            Model::Spm(spm) => spm.add_space_prefix,
            Model::Unigram(unigram) => unigram.adds_space_prefix(),
            Model::WordPiece(_) => true,
            Model::Bpe(_) | Model::Plamo(_) | Model::Rwkv(_) => false,
        }
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("n_vocab", &self.n_vocab())
            .field("bos", &self.bos)
            .field("eos", &self.eos)
            .field("stop_tokens", &self.stop_tokens)
            .finish_non_exhaustive()
    }
}
