//! The alphabet in which byte-level vocabularies write bytes.
//!
//! Vocabularies of the GPT-2 kind (`tokenizer.ggml.model` = `gpt2`) hold bytes, but are stored in files that
//! want printable text. So each byte has a character: itself if it is printable Latin-1, otherwise one of the
//! 68 from U+0100 on, in order of the bytes (OpenAI's `bytes_to_unicode`). A space is written `Ġ`.

/// The byte that a character of the alphabet stands for.
pub(super) fn byte_of(character: char) -> Option<u8> {
    let code = u32::from(character);
    match code {
        0x100..=0x143 => {
            let nth = (code - 0x100) as u8;
            Some(match nth {
                0..=32 => nth,
                33..=66 => nth - 33 + 0x7F,
                _ => 0xAD,
            })
        }
        _ => u8::try_from(code).ok().filter(|&byte| is_printable(byte)),
    }
}

fn is_printable(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF)
}

/// Appends the bytes that a piece stands for, and says whether all its characters are of the alphabet. A
/// character that is not stands for its own UTF-8.
pub(super) fn decode_into(piece: &str, out: &mut Vec<u8>) -> bool {
    let mut is_pure = true;
    for character in piece.chars() {
        if let Some(byte) = byte_of(character) {
            out.push(byte);
        } else {
            out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            is_pure = false;
        }
    }
    is_pure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_one_character() {
        // The definition, walked: printable bytes are themselves, the others are numbered from U+0100.
        let mut next = 0x100;
        for byte in 0..=255u8 {
            let code = if is_printable(byte) {
                u32::from(byte)
            } else {
                next += 1;
                next - 1
            };
            assert_eq!(byte_of(char::from_u32(code).unwrap()), Some(byte));
        }
        assert_eq!(next, 0x144);
        for outside in ['\u{144}', ' ', '\n', '\u{AD}', '世'] {
            assert_eq!(byte_of(outside), None, "{outside:?}");
        }
    }

    #[test]
    fn pieces_become_bytes() {
        let mut bytes = Vec::new();
        assert!(decode_into("ĠGrÃ¼ÃŁe", &mut bytes));
        assert!(!decode_into("世", &mut bytes));
        assert_eq!(bytes, " Grüße世".as_bytes());
    }
}
