//! From token ids that arrive one by one to text that can be shown at once.

use super::tokenizer::Tokenizer;

/// Turns tokens into text as they arrive.
///
/// A token may hold a part of a character. What is given out is always whole characters; a part waits for the
/// tokens after it. Bytes that can't become a character are given out as U+FFFD, as soon as that is certain.
/// Control tokens have no text, but for those that are asked for.
#[derive(Clone, Debug)]
pub struct StreamDecoder {
    /// The beginning of a character: at most three bytes.
    pending: Vec<u8>,
    /// Whether a leading space is still to be taken away, that encoding has put before the text.
    at_start: bool,
    /// Control tokens that have text.
    shown: Vec<u32>,
}

impl StreamDecoder {
    /// For tokens that begin a text, such as a chat model's answer. With vocabularies that encode a text as if
    /// it began with a space, that space is taken away.
    pub fn new(tokenizer: &Tokenizer) -> Self {
        StreamDecoder { pending: Vec::new(), at_start: tokenizer.adds_space_prefix(), shown: Vec::new() }
    }

    /// For tokens that go on with a text, such as the completion of a prompt. A leading space belongs to them.
    pub fn continuing() -> Self {
        StreamDecoder { pending: Vec::new(), at_start: false, shown: Vec::new() }
    }

    /// The same, with the text of these control tokens.
    pub fn showing(mut self, control_tokens: Vec<u32>) -> Self {
        self.shown = control_tokens;
        self
    }

    /// Takes the next token, and gives the text that is complete with it, which may be empty. An id that the
    /// vocabulary does not have has no text.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> String {
        let piece = tokenizer.piece(id).unwrap_or_default();
        if !tokenizer.is_control(id) {
            self.push_bytes(piece)
        } else if self.shown.contains(&id) {
            self.finish() + &String::from_utf8_lossy(piece)
        } else {
            String::new()
        }
    }

    /// Ends the text. If it ends within a character, that is U+FFFD.
    pub fn finish(&mut self) -> String {
        let rest = std::mem::take(&mut self.pending);
        String::from_utf8_lossy(&rest).into_owned()
    }

    fn push_bytes(&mut self, piece: &[u8]) -> String {
        if piece.is_empty() {
            return String::new();
        }
        let piece = if std::mem::take(&mut self.at_start) {
            piece.strip_prefix(b" ").unwrap_or(piece)
        } else {
            piece
        };
        self.pending.extend_from_slice(piece);
        let complete = self.pending.len() - incomplete_len(&self.pending);
        let text = String::from_utf8_lossy(&self.pending[..complete]).into_owned();
        self.pending.drain(..complete);
        text
    }
}

/// How many bytes at the end begin a character that the next bytes could complete.
fn incomplete_len(bytes: &[u8]) -> usize {
    match bytes.utf8_chunks().last() {
        // Of the invalid sequences only the last can be a beginning; the others are followed by something.
        Some(last) if !last.invalid().is_empty() => match std::str::from_utf8(last.invalid()) {
            Err(e) if e.error_len().is_none() => last.invalid().len(),
            _ => 0,
        },
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(pieces: &[&[u8]], at_start: bool) -> (Vec<String>, String) {
        let mut decoder = StreamDecoder { pending: Vec::new(), at_start, shown: Vec::new() };
        let texts = pieces.iter().map(|piece| decoder.push_bytes(piece)).collect();
        (texts, decoder.finish())
    }

    #[test]
    fn every_split_of_a_text_gives_the_text_in_whole_characters() {
        let text = "aé世\u{1F30D}\u{10FFFF}!";
        let bytes = text.as_bytes();
        for first in 0..=bytes.len() {
            for second in first..=bytes.len() {
                let (texts, rest) =
                    decode(&[&bytes[..first], &bytes[first..second], &bytes[second..]], false);
                assert_eq!(texts.concat() + &rest, text);
            }
        }
        let bytewise: Vec<&[u8]> = bytes.chunks(1).collect();
        let (texts, rest) = decode(&bytewise, false);
        assert_eq!(texts.iter().filter(|text| !text.is_empty()).count(), text.chars().count());
        assert_eq!((texts.concat(), rest.as_str()), (text.to_owned(), ""));
    }

    #[test]
    fn what_cannot_become_a_character_is_replaced_at_once() {
        assert_eq!(decode(&[b"\xFF", b"a"], false).0, ["\u{FFFD}", "a"]);
        assert_eq!(decode(&[b"\xE4", b"a"], false).0, ["", "\u{FFFD}a"]);
        assert_eq!(decode(&[b"\xF0\x9F", b"\xE4\xB8", b"\x96"], false).0, ["", "\u{FFFD}", "世"]);
        assert_eq!(decode(&[b"\x80"], false).0, ["\u{FFFD}"]);
        assert_eq!(decode(&[b"\xED", b"\xA0"], false).0, ["", "\u{FFFD}\u{FFFD}"], "no surrogates");
        assert_eq!(decode(&[b"a\xF0\x9F\x8C"], false), (vec!["a".to_owned()], "\u{FFFD}".to_owned()));
    }

    #[test]
    fn any_bytes_in_any_pieces_give_what_they_give_at_once() {
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 16
        };
        for _ in 0..2000 {
            // Bytes near the borders of the UTF-8 classes.
            let alphabet = b"a\x7F\x80\x9F\xA0\xBF\xC1\xC2\xE0\xE4\xED\xEF\xF0\xF1\xF4\xF5";
            let bytes: Vec<u8> = (0..12).map(|_| alphabet[next() as usize % alphabet.len()]).collect();
            let at = next() as usize % 12;
            let (texts, rest) = decode(&[&bytes[..at], &bytes[at..]], false);
            assert_eq!(texts.concat() + &rest, String::from_utf8_lossy(&bytes), "{bytes:x?} at {at}");
        }
    }

    #[test]
    fn one_space_is_taken_from_the_start() {
        assert_eq!(decode(&[b"", b"  a", b" b"], true).0, ["", " a", " b"]);
        assert_eq!(decode(&[b"a", b" b"], true).0, ["a", " b"]);
        assert_eq!(decode(&[b" a"], false).0, [" a"]);
    }
}
