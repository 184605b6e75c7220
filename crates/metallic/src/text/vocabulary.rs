//! The tokens of a vocabulary: their bytes, their types, and the search for a piece's id.

use hashbrown::{DefaultHashBuilder, HashTable};
use metallic_gguf::{Array, FromValue};
use std::hash::BuildHasher;

use super::byte_level;
use super::error::TokenizerError;
use super::keys::{Faults, Keys};

/// Stands for "no token" where an id is expected; never a valid id.
pub(super) const NO_TOKEN: u32 = u32::MAX;

/// What a token is for, as `tokenizer.ggml.token_type` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenType {
    /// A piece of text.
    Normal,
    /// What stands for text that the vocabulary can't express.
    Unknown,
    /// A mark such as the beginning of a text; it has no text of its own.
    Control,
    /// A piece that is kept whole wherever its text occurs.
    UserDefined,
    /// A number without a use.
    Unused,
    /// One byte.
    Byte,
}

impl TokenType {
    pub(super) fn from_id(id: i64) -> Option<Self> {
        Some(match id {
            1 => TokenType::Normal,
            2 => TokenType::Unknown,
            3 => TokenType::Control,
            4 => TokenType::UserDefined,
            5 => TokenType::Unused,
            6 => TokenType::Byte,
            _ => return None,
        })
    }
}

/// How a vocabulary writes the bytes of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alphabet {
    /// One printable character for each byte: see [`byte_level`].
    ByteLevel,
    /// As text, with `▁` (U+2581) for a space: SentencePiece.
    SentencePiece,
    /// As text: PLaMo 2.
    Text,
    /// As Python writes bytes, `\\n` and `\\xff`: RWKV.
    Escaped,
}

impl Alphabet {
    /// Appends the bytes that a piece stands for. `false` if text can't become this piece, because it has
    /// characters that the alphabet has not.
    pub(super) fn decode_into(self, piece: &str, out: &mut Vec<u8>) -> bool {
        match self {
            Alphabet::ByteLevel => byte_level::decode_into(piece, out),
            Alphabet::SentencePiece => {
                for (i, part) in piece.split('▁').enumerate() {
                    if i > 0 {
                        out.push(b' ');
                    }
                    out.extend_from_slice(part.as_bytes());
                }
                true
            }
            Alphabet::Text => {
                out.extend_from_slice(piece.as_bytes());
                true
            }
            Alphabet::Escaped => unescape_into(piece, out),
        }
    }
}

/// Appends the bytes that Python's notation for bytes stands for. `false` if it breaks off, or a number is none.
fn unescape_into(piece: &str, out: &mut Vec<u8>) -> bool {
    let mut rest = piece.bytes();
    while let Some(byte) = rest.next() {
        let meant = if byte == b'\\' {
            match rest.next() {
                Some(b't') => Some(b'\t'),
                Some(b'n') => Some(b'\n'),
                Some(b'r') => Some(b'\r'),
                Some(b'x') => hex_byte(&[rest.next(), rest.next()].map(Option::unwrap_or_default)),
                itself => itself,
            }
        } else {
            Some(byte)
        };
        match meant {
            Some(byte) => out.push(byte),
            None => return false,
        }
    }
    true
}

/// The tokens, by id and by piece.
pub(super) struct Vocabulary {
    /// The bytes of all tokens, one after the other.
    bytes: Vec<u8>,
    /// Where in `bytes` each token ends.
    ends: Vec<u32>,
    types: Vec<TokenType>,
    /// Ids of the pieces that text can become, by their bytes.
    pieces: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// The token of type `Byte` for each byte.
    byte_tokens: [u32; 256],
}

/// What tokens may have wrong. They keep their numbers.
#[derive(Default)]
struct BadTokens {
    not_utf8: Faults,
    escapes: Faults,
    bytes: Faults,
}

impl BadTokens {
    fn tell(self) {
        self.not_utf8.tell("token(s) whose text is not UTF-8, which no text becomes");
        self.escapes.tell(
            "token(s) with a backslash that neither a character nor two hexadecimal digits follow, which no text becomes",
        );
        self.bytes
            .tell("token(s) of type byte whose text is not of the form \"<0x0A>\", which are taken as text");
    }
}

impl Vocabulary {
    /// Reads `tokenizer.ggml.tokens` and `tokenizer.ggml.token_type`.
    pub(super) fn read(keys: &Keys<'_, '_>, alphabet: Alphabet) -> Result<Self, TokenizerError> {
        let tokens: Array<'_> = keys.required("tokens")?;
        let n_tokens = tokens.len();
        if n_tokens == 0 || n_tokens >= NO_TOKEN as usize {
            return Err(TokenizerError::BadSize { n_tokens });
        }
        let types = read_types(keys, n_tokens)?;
        let mut vocabulary = Vocabulary {
            bytes: Vec::new(),
            ends: Vec::with_capacity(n_tokens),
            types,
            pieces: HashTable::with_capacity(n_tokens),
            hasher: DefaultHashBuilder::default(),
            byte_tokens: [NO_TOKEN; 256],
        };
        let (mut normal, mut user_defined) = (Vec::with_capacity(n_tokens), Vec::new());
        let mut bad = BadTokens::default();
        for (id, text) in tokens.strings()?.enumerate() {
            if vocabulary.push(id as u32, text, alphabet, &mut bad)? {
                let is_normal = vocabulary.types[id] == TokenType::Normal;
                if is_normal { &mut normal } else { &mut user_defined }.push(id as u32);
            }
        }
        bad.tell();
        vocabulary.bytes.shrink_to_fit();
        // Where two tokens have the same bytes, the one of ordinary text is what text becomes.
        normal.append(&mut user_defined);
        vocabulary.enter(&normal);
        Ok(vocabulary)
    }

    /// Adds the next token. The answer is whether text can become this token.
    fn push(
        &mut self,
        id: u32,
        text: &[u8],
        alphabet: Alphabet,
        bad: &mut BadTokens,
    ) -> Result<bool, TokenizerError> {
        let start = self.bytes.len();
        let mut of = self.types[id as usize];
        let is_whole = match std::str::from_utf8(text) {
            Ok(text) => {
                of = type_of(of, id, text, alphabet, bad);
                self.decode(id, of, text, alphabet)
            }
            Err(_) => {
                bad.not_utf8.add(id as usize, text);
                of = TokenType::Unused;
                self.bytes.extend_from_slice(text);
                false
            }
        };
        if !is_whole && alphabet == Alphabet::Escaped && of == TokenType::Normal {
            bad.escapes.add(id as usize, text);
            of = TokenType::Unused;
            self.bytes.truncate(start);
            self.bytes.extend_from_slice(text);
        }
        self.types[id as usize] = of;
        let too_large = |_| TokenizerError::BadSize { n_tokens: self.types.len() };
        self.ends.push(u32::try_from(self.bytes.len()).map_err(too_large)?);
        Ok(is_whole && matches!(of, TokenType::Normal | TokenType::UserDefined))
    }

    /// Appends the bytes that a token stands for. `false` if text can't become them.
    fn decode(&mut self, id: u32, of: TokenType, text: &str, alphabet: Alphabet) -> bool {
        match of {
            TokenType::Normal | TokenType::Unused => alphabet.decode_into(text, &mut self.bytes),
            // Files differ in whether spaces of these are written as in other pieces.
            TokenType::UserDefined if alphabet == Alphabet::SentencePiece => {
                alphabet.decode_into(text, &mut self.bytes)
            }
            TokenType::Unknown | TokenType::Control | TokenType::UserDefined => {
                self.bytes.extend_from_slice(text.as_bytes());
                true
            }
            TokenType::Byte => {
                let byte = parse_byte(text);
                self.bytes.extend(byte);
                if let Some(byte) = byte {
                    self.byte_tokens[usize::from(byte)] = id;
                }
                byte.is_some()
            }
        }
    }

    /// Makes pieces findable. Of those with the same bytes, the first is found.
    fn enter(&mut self, ids: &[u32]) {
        let Vocabulary { bytes, ends, pieces, hasher, .. } = self;
        let piece = |id: u32| slice(bytes, ends, id as usize);
        for &id in ids {
            let same = |&other: &u32| piece(other) == piece(id);
            pieces
                .entry(hasher.hash_one(piece(id)), same, |&other| hasher.hash_one(piece(other)))
                .or_insert(id);
        }
    }

    /// The number of tokens.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The bytes of a token; of control tokens, their name.
    pub(super) fn piece(&self, id: u32) -> Option<&[u8]> {
        ((id as usize) < self.len()).then(|| slice(&self.bytes, &self.ends, id as usize))
    }

    /// The type of a token.
    pub(super) fn token_type(&self, id: u32) -> Option<TokenType> {
        self.types.get(id as usize).copied()
    }

    /// The token that text of these bytes becomes, if it becomes one.
    pub(super) fn find(&self, piece: &[u8]) -> Option<u32> {
        let same = |&id: &u32| slice(&self.bytes, &self.ends, id as usize) == piece;
        self.pieces.find(self.hasher.hash_one(piece), same).copied()
    }

    /// The length of the character that `text`, which is UTF-8 and not empty, starts with, and its id.
    pub(super) fn first_char(&self, text: &[u8]) -> (usize, u32) {
        let len = first_char_len(text);
        (len, self.find(&text[..len]).unwrap_or(NO_TOKEN))
    }

    /// Appends what stands for a symbol that no piece is: its bytes if the vocabulary has tokens for them,
    /// otherwise the unknown token.
    pub(super) fn fall_back(
        &self,
        symbol: &[u8],
        unknown: Option<u32>,
        out: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        let start = out.len();
        for &byte in symbol {
            let id = self.byte_tokens[usize::from(byte)];
            if id == NO_TOKEN {
                out.truncate(start);
                out.push(unknown.ok_or(TokenizerError::NoToken { byte })?);
                break;
            }
            out.push(id);
        }
        Ok(())
    }

    /// Ids and bytes of the tokens of some types, leaving out the empty ones.
    pub(super) fn texts_of(&self, types: &[TokenType]) -> (Vec<u32>, Vec<&[u8]>) {
        let wanted = self.iter().filter(|(_, of, text)| types.contains(of) && !text.is_empty());
        wanted.map(|(id, _, text)| (id, text)).unzip()
    }

    /// Ids, types and bytes of all tokens.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, TokenType, &[u8])> {
        (0..self.len()).map(|id| (id as u32, self.types[id], slice(&self.bytes, &self.ends, id)))
    }
}

/// The length of the character that `text`, which is UTF-8 and not empty, starts with.
pub(super) fn first_char_len(text: &[u8]) -> usize {
    let is_start = |byte: &u8| !matches!(byte, 0x80..=0xBF);
    text[1..].iter().position(is_start).map_or(text.len(), |more| 1 + more)
}

fn slice<'a>(bytes: &'a [u8], ends: &[u32], id: usize) -> &'a [u8] {
    let start = if id == 0 { 0 } else { ends[id - 1] };
    &bytes[start as usize..ends[id] as usize]
}

/// The type of a token, of which a file says `of`.
fn type_of(of: TokenType, id: u32, text: &str, alphabet: Alphabet, bad: &mut BadTokens) -> TokenType {
    let is_byte = parse_byte(text).is_some();
    match of {
        // Byte-pair files do not tell the bytes of vocabularies of text from their pieces.
        TokenType::Normal if alphabet == Alphabet::SentencePiece && is_byte => TokenType::Byte,
        TokenType::Byte if !is_byte => {
            bad.bytes.add(id as usize, text.as_bytes());
            TokenType::Normal
        }
        of => of,
    }
}

/// Reads `tokenizer.ggml.token_type`. A type that the format does not define, such as 0, is that of text.
fn read_types(keys: &Keys<'_, '_>, n_tokens: usize) -> Result<Vec<TokenType>, TokenizerError> {
    const KEY: &str = "token_type";
    let Some(values) = keys.of_tokens(n_tokens, KEY)? else {
        return Ok(vec![TokenType::Normal; n_tokens]);
    };
    let mut unknown = Faults::default();
    let types = values.enumerate().map(|(id, value)| {
        let found = i64::from_value(KEY, value)?;
        Ok(TokenType::from_id(found).unwrap_or_else(|| {
            unknown.add(id, format!("of type {found}").as_bytes());
            TokenType::Normal
        }))
    });
    let types = types.collect::<Result<_, TokenizerError>>()?;
    unknown.tell("token(s) of a type that the format does not define, which are taken as text");
    Ok(types)
}

/// Reads `tokenizer.ggml.scores`, one a token, and makes of each what is wanted; `None` is a bad score.
pub(super) fn read_scores<T>(
    keys: &Keys<'_, '_>,
    n_tokens: usize,
    make: impl Fn(f32) -> Option<T>,
) -> Result<Vec<T>, TokenizerError> {
    const KEY: &str = "scores";
    let made = |(id, score)| make(score).ok_or(TokenizerError::BadScore { id });
    let Some(values) = keys.of_tokens(n_tokens, KEY)? else {
        tracing::warn!("the file has no \"tokenizer.ggml.{KEY}\": to its tokenizer, all pieces are as good");
        return std::iter::repeat_n(0.0, n_tokens).enumerate().map(made).collect();
    };
    let score = |value| match i32::from_value(KEY, value) {
        Ok(number) => Ok(number as f32), // as some files have them
        Err(_) => f32::from_value(KEY, value),
    };
    values.enumerate().map(|(id, value)| made((id, score(value)?))).collect()
}

fn parse_byte(text: &str) -> Option<u8> {
    hex_byte(text.strip_prefix("<0x")?.strip_suffix('>')?.as_bytes())
}

/// The byte that two hexadecimal digits are.
fn hex_byte(digits: &[u8]) -> Option<u8> {
    let &[high, low] = digits else { return None };
    let value = |digit: u8| char::from(digit).to_digit(16);
    Some((value(high)? << 4 | value(low)?) as u8)
}
