//! Unicode's normal forms. A letter with an accent can be one character or two, and a vocabulary that was made of
//! normalised text knows only one of both.

use std::borrow::Cow;

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick, is_nfkc_quick};

/// The form that a text is brought into before it is split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// None: the text stays as it is.
    AsItIs,
    /// Letters and their accents become one character where there is one.
    Nfc,
    /// The same, and variants of a character, such as `ﬁ` and `²`, become what they are variants of.
    Nfkc,
}

impl Form {
    /// The text in this form; itself if it has it already.
    pub(super) fn of(self, text: &str) -> Cow<'_, str> {
        match self {
            Form::AsItIs => Cow::Borrowed(text),
            Form::Nfc if all_below(text, FIRST_NOT_NFC) => Cow::Borrowed(text),
            Form::Nfc if is_nfc_quick(text.chars()) == IsNormalized::Yes => Cow::Borrowed(text),
            Form::Nfc => Cow::Owned(text.nfc().collect()),
            Form::Nfkc if all_below(text, FIRST_NOT_NFKC) => Cow::Borrowed(text),
            Form::Nfkc if is_nfkc_quick(text.chars()) == IsNormalized::Yes => Cow::Borrowed(text),
            Form::Nfkc => Cow::Owned(text.nfkc().collect()),
        }
    }
}

/// The first byte of U+0300. No text of characters before it is changed by NFC.
const FIRST_NOT_NFC: u8 = 0xCC;

/// The first byte of U+00A0, which NFKC makes a space.
const FIRST_NOT_NFKC: u8 = 0xC2;

/// Whether all bytes are below a limit: what most texts pass, and faster than a look at each character.
fn all_below(text: &str, limit: u8) -> bool {
    text.as_bytes().chunks(64).all(|bytes| bytes.iter().fold(0, |most, &byte| byte.max(most)) < limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quick_way_changes_no_form() {
        let alone = ('\0'..='\u{2FFFF}').map(String::from);
        let marked = ('\0'..='\u{3100}').map(|c| format!("x{c}\u{301}"));
        for text in alone.chain(marked) {
            assert_eq!(Form::Nfc.of(&text), text.nfc().collect::<String>(), "{text:?}");
            assert_eq!(Form::Nfkc.of(&text), text.nfkc().collect::<String>(), "{text:?}");
        }
    }

    #[test]
    fn text_that_has_its_form_is_not_copied() {
        let is_borrowed = |form: Form, text| matches!(form.of(text), Cow::Borrowed(_));
        for text in ["", "plain", "Grüße, Łódź", "Tiếng Việt", "한국어 世界 ガ", "☃👩‍🚒"]
        {
            assert!(is_borrowed(Form::Nfc, text), "{text:?}");
            assert!(is_borrowed(Form::Nfkc, text), "{text:?}");
        }
        assert!(is_borrowed(Form::Nfc, "ﬁ²½") && is_borrowed(Form::AsItIs, "e\u{301}"));
    }
}
