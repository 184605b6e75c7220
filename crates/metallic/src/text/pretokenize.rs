//! Normalises a text and splits it into words, within which byte-pair merges happen.
//!
//! How to split is a property of the vocabulary: the file names it (`tokenizer.ggml.pre`), and the table in
//! [`pre_types`](super::pre_types) says what the name means. Patterns run on regex-automata: it takes linear
//! time whatever the text, which a backtracking engine does not. It has no look-ahead; those that the
//! patterns need are at their end, `\s+(?!\S)|\s+`, where white space before a word leaves its last character to the
//! word, and in numbers, of which the digits that follow count. These are done by hand.

use std::borrow::Cow;
use std::ops::Range;

use regex_automata::meta::Regex;
use regex_automata::{Anchored, Input, Match};

use super::pre_types::{BY_ARCHITECTURE, DEFAULT, PRE_TYPES, PreType, Step};
use super::unicode_form::Form;
use super::vocabulary::Alphabet;

/// Bytes for the states that a pattern's automaton keeps. With the Unicode classes in these patterns, a text
/// in many scripts visits thousands; too few means building them again and again.
const AUTOMATON_CACHE_BYTES: usize = 8 << 20;

/// How texts are normalised and split for one vocabulary.
pub(super) struct PreTokenizer {
    form: Form,
    splitters: Vec<Splitter>,
    /// Whether a word that is a token is that token, even if merging would not make it.
    pub(super) ignore_merges: bool,
    /// Whether texts start with BOS, if the file does not say.
    pub(super) add_bos: bool,
    /// How the vocabulary writes bytes.
    pub(super) alphabet: Alphabet,
}

impl PreTokenizer {
    /// What a file's `tokenizer.ggml.pre` names, or else what its architecture has. A name that is not known is a warning,
    /// and the default is used; so it is for files that name none and are of another architecture.
    pub(super) fn new(name: Option<&str>, architecture: Option<&str>) -> Self {
        let of_architecture = || {
            let &(architecture, name) = BY_ARCHITECTURE.iter().find(|&&(of, _)| architecture == Some(of))?;
            tracing::info!("no pre-tokenizer is named; {name:?} is used, which is that of {architecture}");
            Some(name)
        };
        let name = name.or_else(of_architecture);
        let found = PRE_TYPES.iter().find(|of| name.is_some_and(|name| of.names.contains(&name)));
        if found.is_none() {
            let name = name.unwrap_or("(none)");
            tracing::warn!(
                "pre-tokenizer {name:?} is not known; the default is used, so the model may see \
                            other tokens than it was trained on"
            );
        }
        PreTokenizer::from_type(found.unwrap_or(&DEFAULT))
    }

    fn from_type(of: &PreType) -> Self {
        let &PreType { names: _, form, steps, ignore_merges, add_bos, alphabet } = of;
        PreTokenizer {
            form,
            splitters: steps.iter().map(Splitter::new).collect(),
            ignore_merges,
            add_bos,
            alphabet,
        }
    }

    /// The text as the vocabulary has it, which is what is split.
    pub(super) fn normalize<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let text = self.form.of(text);
        // In vocabularies of text, `▁` is a space.
        match self.alphabet {
            Alphabet::SentencePiece if text.contains('▁') => Cow::Owned(text.replace('▁', " ")),
            _ => text,
        }
    }

    /// Hands out the words of a text in order. Together they are the text.
    pub(super) fn split<'t>(&self, text: &'t str, emit: &mut dyn FnMut(&'t str)) {
        split(&self.splitters, text, emit);
    }
}

/// A [`Step`], ready to run.
struct Splitter {
    pattern: Regex,
    ending: Ending,
}

/// What a step does beside its pattern.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// Nothing.
    None,
    /// White space matches too; before a word, all but its last character.
    Spaces,
    /// The same, and it is cut to lengths that are powers of two.
    SpacesByPowers,
    /// Matches are cut before every three digits from the right, and from what is around them.
    IsolatedThousands,
    /// Matches are cut before every three digits from the right.
    Thousands,
}

/// The longest piece of white space that is cut by powers, in characters.
const MAX_POWER: usize = 512;

impl Splitter {
    fn new(step: &Step) -> Self {
        let (patterns, ending): (&[&str], _) = match step {
            Step::Isolate(pattern) => (&[pattern], Ending::None),
            Step::IsolateWithSpaces(pattern) => (&[pattern, r"\s+"], Ending::Spaces),
            Step::IsolateWithSpacesByPowers(pattern) => (&[pattern, r"\s+"], Ending::SpacesByPowers),
            Step::IsolateThousands(patterns) => (*patterns, Ending::IsolatedThousands),
            Step::CutThousands => (&[r"\d+"], Ending::Thousands),
        };
        Splitter { pattern: compile(patterns), ending }
    }

    /// Hands out the pieces of a text in order. Together they are the text; some may be empty.
    fn split<'t>(&self, text: &'t str, emit: &mut dyn FnMut(&'t str)) {
        let mut at = 0;
        let mut cut = |to| emit(&text[std::mem::replace(&mut at, to)..to]);
        let mut searched = 0;
        while let Some(found) = self.next_match(text, searched) {
            let Range { start, end } = found.range();
            searched = end;
            if self.ending == Ending::IsolatedThousands && !self.is_last(&found) {
                continue;
            }
            let isolated = self.ending != Ending::Thousands;
            if isolated {
                cut(start);
            }
            match self.ending {
                Ending::SpacesByPowers if self.is_last(&found) => {
                    powers(&text[start..end]).for_each(|offset| cut(start + offset));
                }
                Ending::IsolatedThousands | Ending::Thousands => {
                    thousands(&text[start..end]).for_each(|offset| cut(start + offset));
                }
                _ => {}
            }
            if isolated {
                cut(end);
            }
        }
        cut(text.len());
    }

    /// The next match from `at` on, which is not empty.
    fn next_match(&self, text: &str, at: usize) -> Option<Match> {
        if at == text.len() {
            return None;
        }
        let input = Input::new(text).range(at..);
        let has_spaces = matches!(self.ending, Ending::Spaces | Ending::SpacesByPowers);
        // A pattern with spaces matches almost everywhere, and then looking for the start is work for nothing.
        let here = has_spaces.then(|| self.pattern.search(&input.clone().anchored(Anchored::Yes)));
        let found = here.flatten().or_else(|| self.pattern.search(&input))?;
        if has_spaces && self.is_last(&found) && found.end() < text.len() {
            let last = text[found.range()].char_indices().next_back().map_or(0, |(at, _)| at);
            if last > 0 {
                return Some(Match::new(found.pattern(), found.start()..found.start() + last));
            }
        }
        Some(found)
    }

    /// Whether this is a match of the step's last pattern: for some, white space.
    fn is_last(&self, found: &Match) -> bool {
        found.pattern().as_usize() + 1 == self.pattern.pattern_len()
    }
}

/// Where in a number each three digits from its right begin.
fn thousands(number: &str) -> impl Iterator<Item = usize> {
    let n_digits = number.chars().count();
    let digits = number.char_indices().enumerate();
    digits.filter_map(move |(index, (offset, _))| (n_digits - index).is_multiple_of(3).then_some(offset))
}

/// Where the pieces of white space begin whose lengths are powers of two, the longest first.
fn powers(spaces: &str) -> impl Iterator<Item = usize> {
    let mut n_left = spaces.chars().count();
    let mut offsets = spaces.char_indices().map(|(offset, _)| offset);
    let mut n_between = 0;
    std::iter::from_fn(move || {
        let offset = offsets.nth(n_between)?;
        let len = (1 << n_left.ilog2()).min(MAX_POWER);
        n_left -= len;
        n_between = len - 1;
        Some(offset)
    })
}

/// Builds a search for patterns of ours, which are valid.
pub(super) fn compile(patterns: &[&str]) -> Regex {
    let config = Regex::config().hybrid_cache_capacity(AUTOMATON_CACHE_BYTES);
    Regex::builder().configure(config).build_many(patterns).expect("the patterns are valid")
}

/// Applies the first step to the text, and the others to each of the pieces that it gives.
fn split<'t>(splitters: &[Splitter], text: &'t str, emit: &mut dyn FnMut(&'t str)) {
    match splitters.split_first() {
        _ if text.is_empty() => {}
        None => emit(text),
        Some((first, rest)) => first.split(text, &mut |piece| split(rest, piece, emit)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn words(name: &str, text: &str) -> Vec<String> {
        let pre_tokenizer = PreTokenizer::new(Some(name), None);
        let mut words = Vec::new();
        pre_tokenizer.split(&pre_tokenizer.normalize(text), &mut |word| words.push(word.to_owned()));
        words
    }

    #[test]
    fn all_patterns_compile_and_keep_every_character() {
        let text = "Hello  world'll\n\n \t\n x 12345 ½²世界,ก็ e\u{301}ЁЖ!!?\u{a0}\u{2003}…。 <|im_end|>\r\n  \u{1F469}‍🚒  ";
        for of in PRE_TYPES.iter().chain([&DEFAULT]) {
            let pre_tokenizer = PreTokenizer::from_type(of);
            for splitter in &pre_tokenizer.splitters {
                assert_eq!(splitter.pattern.find(""), None, "{:?} must not match nothing", of.names);
            }
            for start in text.char_indices().map(|(at, _)| at) {
                let mut words = Vec::new();
                pre_tokenizer.split(&text[start..], &mut |word| words.push(word));
                assert_eq!(words.concat(), text[start..], "{:?}", of.names);
                assert!(words.iter().all(|word| !word.is_empty()), "{:?}", of.names);
            }
        }
    }

    // What the `tokenizers` package does with the publishers' definitions (`tools/golden_tokens.py`).
    #[test]
    fn words_are_those_of_another_program() {
        #[derive(serde::Deserialize)]
        struct Golden {
            texts: Vec<String>,
            words: HashMap<String, Vec<String>>,
            forms: HashMap<String, String>,
        }
        let golden = include_str!("../../tests/text/words.json");
        let golden: Golden = serde_json::from_str(golden).expect("the file of answers");
        for (name, expected) in &golden.words {
            for (text, expected) in golden.texts.iter().zip(expected) {
                assert_eq!(words(name, text).join("¦"), *expected, "{name}");
            }
        }
        for of in PRE_TYPES {
            assert!(of.names.iter().any(|&name| golden.words.contains_key(name)), "{:?}", of.names);
            for &name in of.names {
                let form = match golden.forms.get(name).map(String::as_str) {
                    Some("NFC") => Form::Nfc,
                    Some("NFKC") => Form::Nfkc,
                    Some(other) => panic!("{name} has {other}"),
                    None => Form::AsItIs,
                };
                assert_eq!(of.form, form, "{name}");
            }
        }
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = PRE_TYPES.iter().flat_map(|of| of.names).collect();
        let n_names = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), n_names);
        assert!(BY_ARCHITECTURE.iter().all(|(_, name)| names.contains(&name)));
    }

    // What the published patterns give, by hand.
    #[test]
    fn splits_as_the_patterns_say() {
        assert_eq!(
            words("gpt-2", "I'll  go \n 42,then"),
            ["I", "'ll", " ", " go", " \n", " 42", ",", "then"]
        );
        assert_eq!(words("gpt-2", "a\tb  \n"), ["a", "\t", "b", "  \n"]);
        assert_eq!(
            words("llama-bpe", "I'LL go\n\n x 12345"),
            ["I", "'LL", " go", "\n\n", " x", " ", "123", "45"]
        );
        assert_eq!(words("qwen2", "x=12\n  y"), ["x", "=", "1", "2", "\n", " ", " y"]);
        assert_eq!(words("smollm", "a 12"), ["a", " ", "1", "2"]);
        assert_eq!(words("gpt-4o", "HelloWorld ABCdef's"), ["Hello", "World", " ABCdef's"]);
        assert_eq!(words("kimi-k2", "a世界b"), ["a", "世界", "b"]);
    }

    #[test]
    fn a_long_run_of_anything_takes_linear_time() {
        let time = |n_bytes: usize| {
            let start = std::time::Instant::now();
            for unit in ["a", " ", "\n", " a", "!", "1", "é", "e\u{301}", "\u{301}", "  \n x"] {
                for name in ["gpt-2", "llama-bpe", "deepseek-llm", "gpt-4o", "qwen2"] {
                    let text = unit.repeat(n_bytes / unit.len());
                    assert!(words(name, &text).concat().len() <= text.len());
                }
            }
            start.elapsed().as_secs_f64()
        };
        let (short, long) = (time(8_000), time(64_000));
        // 8 times the text takes 8 times as long, or 64 times where the time is quadratic.
        assert!(long < 32.0 * short, "{short} s and {long} s");
    }
}
