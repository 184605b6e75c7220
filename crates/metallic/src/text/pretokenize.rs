//! Splits a text into words, within which byte-pair merges happen.
//!
//! How to split is a property of the vocabulary: the file names it (`tokenizer.ggml.pre`), and the table in
//! [`pre_types`](super::pre_types) says what the name means. Patterns run on regex-automata: it takes linear
//! time whatever the text, which a backtracking engine does not. It has no look-ahead; the only one that the
//! patterns need is at their end, `\s+(?!\S)|\s+`: white space before a word leaves its last character to the
//! word. That is done by hand.

use regex_automata::meta::Regex;
use regex_automata::{Anchored, Input};

use super::pre_types::{DEFAULT, PRE_TYPES, PreType, Step};

/// Bytes for the states that a pattern's automaton keeps. With the Unicode classes in these patterns, a text
/// in many scripts visits thousands; too few means building them again and again.
const AUTOMATON_CACHE_BYTES: usize = 8 << 20;

/// How texts are split for one vocabulary.
pub(super) struct PreTokenizer {
    steps: Vec<Regex>,
    /// Whether a word that is a token is that token, even if merging would not make it.
    pub(super) ignore_merges: bool,
    /// Whether texts start with BOS, if the file does not say.
    pub(super) add_bos: bool,
}

/// White space at the end of a step's pattern matches as this one.
const SPACES: usize = 1;

impl PreTokenizer {
    /// The splitting that a file's `tokenizer.ggml.pre` names. A name that is not known is a warning, and the
    /// default is used; so it is for files that name none.
    pub(super) fn new(name: Option<&str>) -> Self {
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
        let steps = of.steps.iter().map(|step| match *step {
            Step::Isolate(pattern) => compile(&[pattern]),
            Step::IsolateWithSpaces(pattern) => compile(&[pattern, r"\s+"]),
        });
        PreTokenizer { steps: steps.collect(), ignore_merges: of.ignore_merges, add_bos: of.add_bos }
    }

    /// Hands out the words of a text in order. Together they are the text.
    pub(super) fn split<'t>(&self, text: &'t str, emit: &mut dyn FnMut(&'t str)) {
        split(&self.steps, text, emit);
    }
}

/// Builds a search for patterns of ours, which are valid.
pub(super) fn compile(patterns: &[&str]) -> Regex {
    let config = Regex::config().hybrid_cache_capacity(AUTOMATON_CACHE_BYTES);
    Regex::builder().configure(config).build_many(patterns).expect("the patterns are valid")
}

/// Applies the first step to the text, and the others to what each of its matches, and each gap between them,
/// gives.
fn split<'t>(steps: &[Regex], text: &'t str, emit: &mut dyn FnMut(&'t str)) {
    let Some((step, rest)) = steps.split_first() else {
        return emit(text);
    };
    let mut at = 0;
    while let Some((start, end)) = next_match(step, text, at) {
        if at < start {
            split(rest, &text[at..start], emit);
        }
        split(rest, &text[start..end], emit);
        at = end;
    }
    if at < text.len() {
        split(rest, &text[at..], emit);
    }
}

/// The next match from `at` on, which is not empty.
fn next_match(step: &Regex, text: &str, at: usize) -> Option<(usize, usize)> {
    if at == text.len() {
        return None;
    }
    let input = Input::new(text).range(at..);
    // Most patterns match wherever they start, and then looking for the start is work for nothing.
    let found = step.search(&input.clone().anchored(Anchored::Yes)).or_else(|| step.search(&input))?;
    let mut end = found.end();
    if found.pattern().as_usize() == SPACES && end < text.len() {
        let last = text[found.range()].char_indices().next_back().map_or(0, |(at, _)| at);
        if last > 0 {
            end = found.start() + last;
        }
    }
    Some((found.start(), end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words<'t>(name: &str, text: &'t str) -> Vec<&'t str> {
        let mut words = Vec::new();
        PreTokenizer::new(Some(name)).split(text, &mut |word| words.push(word));
        words
    }

    #[test]
    fn all_patterns_compile_and_keep_every_character() {
        let text = "Hello  world'll\n\n \t\n x 12345 ½²世界,ก็ e\u{301}ЁЖ!!?\u{a0}\u{2003}…。 <|im_end|>\r\n  \u{1F469}‍🚒  ";
        for of in PRE_TYPES.iter().chain([&DEFAULT]) {
            let pre_tokenizer = PreTokenizer::from_type(of);
            for step in &pre_tokenizer.steps {
                assert_eq!(step.find(""), None, "{:?} must not match nothing", of.names);
            }
            for start in text.char_indices().map(|(at, _)| at) {
                let mut words = Vec::new();
                pre_tokenizer.split(&text[start..], &mut |word| words.push(word));
                assert_eq!(words.concat(), text[start..], "{:?}", of.names);
                assert!(words.iter().all(|word| !word.is_empty()), "{:?}", of.names);
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
            for unit in ["a", " ", "\n", " a", "!", "1", "é", "  \n x"] {
                for name in ["gpt-2", "llama-bpe", "deepseek-llm", "gpt-4o"] {
                    let text = unit.repeat(n_bytes / unit.len());
                    assert_eq!(words(name, &text).concat().len(), text.len());
                }
            }
            start.elapsed().as_secs_f64()
        };
        let (short, long) = (time(8_000), time(64_000));
        // 8 times the text takes 8 times as long, or 64 times where the time is quadratic.
        assert!(long < 32.0 * short, "{short} s and {long} s");
    }
}
