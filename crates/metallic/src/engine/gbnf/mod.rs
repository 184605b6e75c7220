//! Grammars in GBNF, the notation of llama.cpp, as llguidance takes them.
//!
//! GBNF derives an answer character by character. llguidance reads one by *lexemes*, each of which takes as many characters
//! as it can, and parses those with Earley's algorithm. Were each character a lexeme, both would derive the same, but a mask
//! would parse the text of every token of the vocabulary. So as much of a grammar as can be is one lexeme, where that
//! provably changes nothing: `lexemes` divides a grammar, `readings` finds where that would change something, and `builder` writes
//! down what was found.
//!
//! Not done: answers with characters that end in another token's middle, of which llama.cpp allows some by mistake; rules
//! that end only with the limit of tokens, which it takes.

mod builder;
mod lexemes;
mod parser;
mod readings;

use std::ops::RangeInclusive;

use llguidance::api::GrammarInit;
use llguidance::toktrie::TokTrie;

use crate::error::Result;

/// What a grammar may name tokens of.
#[derive(Clone, Copy)]
pub(super) struct Vocabulary<'a> {
    pub(super) trie: &'a TokTrie,
    /// Those that end an answer, which no part of one may be.
    pub(super) stop_tokens: &'a [u32],
}

/// What llguidance makes a form of.
///
/// Goes as deep as parts of the grammar are inside each other, at most as often as its text has characters.
///
/// # Errors
/// [`Error::Grammar`](crate::Error::Grammar), with the place in the text and what is wrong there.
pub(super) fn compile(text: &str, vocabulary: Vocabulary<'_>) -> Result<GrammarInit> {
    let syntax = parser::parse(text, vocabulary)?;
    let lexemes = lexemes::divide(&syntax, vocabulary)?;
    builder::build(&syntax, &lexemes, vocabulary)
}

/// A grammar as it is written.
struct Syntax<'a> {
    text: &'a str,
    /// Parts of a rule are next to each other, each after those that it consists of; the last is all of the rule.
    nodes: Vec<Node>,
    rules: Vec<Rule>,
    classes: Vec<Class>,
    /// Which rule derives an answer.
    root: usize,
}

struct Rule {
    /// Where its name is, in bytes.
    at: usize,
    name: String,
    nodes: std::ops::Range<usize>,
}

impl Rule {
    fn body(&self) -> usize {
        self.nodes.end - 1
    }
}

/// A part of a rule. Those that it consists of are given by number.
enum Node {
    /// A character of a class.
    Char(usize),
    /// A token; where it is written, in bytes.
    Token { tokens: TokenSet, at: usize },
    /// One after the other.
    Sequence(Vec<usize>),
    /// One of several.
    Choice(Vec<usize>),
    /// So many times.
    Repeat { node: usize, min: u32, max: Option<u32> },
    /// What a rule derives.
    Rule(usize),
}

/// Ranges of code points, in order, apart from each other, and without surrogates, which are no characters.
type Class = Vec<(u32, u32)>;

/// A token, or all others.
#[derive(Clone, Copy, PartialEq, Eq)]
struct TokenSet {
    id: u32,
    negated: bool,
}

impl TokenSet {
    /// Those of the set, but for the ends of answers: where one may come, the grammar doesn't say.
    fn ranges(self, vocabulary: Vocabulary<'_>) -> Vec<RangeInclusive<u32>> {
        if !self.negated {
            return vec![self.id..=self.id];
        }
        let mut without: Vec<u32> = vocabulary.stop_tokens.iter().copied().chain([self.id]).collect();
        without.sort_unstable();
        without.dedup();
        let mut ranges = Vec::new();
        let mut start = 0;
        for id in without.into_iter().chain([vocabulary.trie.vocab_size() as u32]) {
            if start < id {
                ranges.push(start..=id - 1);
            }
            start = id + 1;
        }
        ranges
    }
}

/// Where in a text a byte is, as people count.
fn place(text: &str, at: usize) -> String {
    let before = &text[..at];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("line {line}, column {column}")
}

#[cfg(test)]
mod tests;
