//! The notation: from a text to rules and their parts.

use std::collections::HashMap;

use super::{Class, Node, Rule, Syntax, TokenSet, Vocabulary, place};
use crate::engine::grammar::unusable;
use crate::error::{Error, Result};

/// Groups inside each other: those of people have a few, those made of schemas one for each character of a key.
const MAX_DEPTH: usize = 2048;

/// Times that a part may be asked for: more than an answer has tokens.
const MAX_REPETITIONS: u32 = 1_000_000;

/// The last code point that there is.
const MAX_CODE_POINT: u32 = 0x10_FFFF;

/// Code points that are no characters.
const SURROGATES: (u32, u32) = (0xD800, 0xDFFF);

/// The rules of a text, each of which is there, is there once, and derives some text that ends.
///
/// # Errors
/// [`Error::Grammar`], with the place and what is wrong there.
pub(super) fn parse<'a>(text: &'a str, vocabulary: Vocabulary<'_>) -> Result<Syntax<'a>> {
    let mut parser = Parser {
        text,
        at: 0,
        depth: 0,
        vocabulary,
        nodes: Vec::new(),
        names: HashMap::new(),
        found: Vec::new(),
        classes: HashMap::new(),
    };
    parser.space(true);
    while parser.peek().is_some() {
        parser.rule()?;
    }
    parser.finish()
}

struct Parser<'a, 'v> {
    text: &'a str,
    /// How many bytes are read.
    at: usize,
    depth: usize,
    vocabulary: Vocabulary<'v>,
    nodes: Vec<Node>,
    /// Numbers of rules, in the order that they are named.
    names: HashMap<&'a str, usize>,
    found: Vec<Found<'a>>,
    classes: HashMap<Class, usize>,
}

/// A rule that is named.
struct Found<'a> {
    name: &'a str,
    /// Where it is named first.
    named_at: usize,
    rule: Option<Rule>,
}

impl<'a> Parser<'a, '_> {
    /// `name ::= …`, to the end of its line.
    fn rule(&mut self) -> Result<()> {
        let (at, name) = (self.at, self.name());
        if name.is_empty() {
            return Err(self.expected("a rule's name, of letters, digits and dashes"));
        }
        let index = self.named(name, at);
        if self.found[index].rule.is_some() {
            return Err(self.wrong(at, format!("the rule `{name}` is there twice")));
        }
        self.space(false);
        if !self.takes("::=") {
            return Err(self.expected("`::=`"));
        }
        self.space(true);
        let first = self.nodes.len();
        self.choice(false)?;
        if !self.takes("\r\n") && !self.takes("\n") && !self.takes("\r") && self.peek().is_some() {
            return Err(self.expected("the end of the line, or a part of a rule"));
        }
        self.space(true);
        let nodes = first..self.nodes.len();
        self.found[index].rule = Some(Rule { at, name: name.to_owned(), nodes });
        Ok(())
    }

    /// `… | …`: in a group, over several lines.
    fn choice(&mut self, in_group: bool) -> Result<usize> {
        let mut options = vec![self.sequence(in_group)?];
        while self.takes("|") {
            self.space(true);
            options.push(self.sequence(in_group)?);
        }
        Ok(if let [only] = options[..] { only } else { self.push(Node::Choice(options)) })
    }

    fn sequence(&mut self, in_group: bool) -> Result<usize> {
        let mut parts = Vec::new();
        while let Some(c) = self.peek() {
            let at = self.at;
            let part = match c {
                '"' => self.literal()?,
                '[' => self.class()?,
                '.' => {
                    self.at += 1;
                    let any = self.class_of(vec![(0, MAX_CODE_POINT)]);
                    self.push(Node::Char(any))
                }
                '<' | '!' => self.token()?,
                '(' => self.group()?,
                '*' | '+' | '?' | '{' => {
                    let Some(node) = parts.pop() else {
                        return Err(self.wrong(at, format!("nothing before `{c}` that it could repeat")));
                    };
                    let (min, max) = self.repetitions()?;
                    self.push(Node::Repeat { node, min, max })
                }
                c if is_of_name(c) => {
                    let name = self.name();
                    let rule = self.named(name, at);
                    self.push(Node::Rule(rule))
                }
                _ => break,
            };
            self.space(in_group);
            parts.push(part);
        }
        // A node even of one part, so that the rule's last node is all of it.
        Ok(self.push(Node::Sequence(parts)))
    }

    /// `( … )`
    fn group(&mut self) -> Result<usize> {
        let at = self.at;
        if self.depth == MAX_DEPTH {
            return Err(self.wrong(at, format!("more than {MAX_DEPTH} groups inside each other")));
        }
        self.at += 1;
        self.depth += 1;
        self.space(true);
        let node = self.choice(true)?;
        if !self.takes(")") {
            return Err(match self.peek() {
                None => self.wrong(at, "the group has no end"),
                Some(_) => self.expected("`)`, or a part of a rule"),
            });
        }
        self.depth -= 1;
        Ok(node)
    }

    /// `"…"`
    fn literal(&mut self) -> Result<usize> {
        let start = self.at;
        self.at += 1;
        let mut chars = Vec::new();
        while !self.takes("\"") {
            let at = self.at;
            let Some(code) = self.code_point()? else {
                return Err(self.wrong(start, "the text has no end"));
            };
            if char::from_u32(code).is_none() {
                return Err(self.wrong(at, format!("U+{code:04X} is no character")));
            }
            let class = self.class_of(vec![(code, code)]);
            chars.push(self.push(Node::Char(class)));
        }
        Ok(self.push(Node::Sequence(chars)))
    }

    /// `[…]`
    fn class(&mut self) -> Result<usize> {
        let start = self.at;
        self.at += 1;
        let negated = self.takes("^");
        let mut ranges = Vec::new();
        while !self.takes("]") {
            let at = self.at;
            let no_end = |parser: &Self| parser.wrong(start, "the class has no end");
            let Some(first) = self.code_point()? else { return Err(no_end(self)) };
            let mut last = first;
            // A dash before the end is itself.
            if self.rest().starts_with('-') && !self.rest().starts_with("-]") {
                self.at += 1;
                let Some(code) = self.code_point()? else { return Err(no_end(self)) };
                last = code;
            }
            if last < first {
                return Err(self.wrong(at, "the range's end is before its start"));
            }
            ranges.push((first, last));
        }
        if ranges.is_empty() {
            return Err(self.wrong(start, "the class has no characters"));
        }
        ranges.sort_unstable();
        if negated {
            ranges = others(&ranges);
        }
        let ranges = characters(&ranges);
        if ranges.is_empty() {
            return Err(self.wrong(start, "the class has no characters"));
        }
        let class = self.class_of(ranges);
        Ok(self.push(Node::Char(class)))
    }

    /// `<text>` or `<[id]>`, or `!` before one for all others.
    fn token(&mut self) -> Result<usize> {
        let at = self.at;
        let negated = self.takes("!");
        let start = self.at;
        if !self.takes("<") {
            return Err(self.expected("a token, as `<text>` or `<[id]>`"));
        }
        let Some(n_bytes) = self.rest().find(['>', '\n']).filter(|end| self.rest()[*end..].starts_with('>'))
        else {
            return Err(self.wrong(start, "the token has no end"));
        };
        self.at += n_bytes + 1;
        let written = &self.text[start..self.at];
        let trie = self.vocabulary.trie;
        let id = match written.strip_prefix("<[").and_then(|rest| rest.strip_suffix("]>")) {
            Some(id) => {
                let id = id.parse().ok().filter(|id| (*id as usize) < trie.vocab_size());
                id.ok_or_else(|| {
                    self.wrong(start, format!("{written}: the vocabulary has {}", trie.vocab_size()))
                })?
            }
            None => {
                let id =
                    trie.get_special_token(written).or_else(|| trie.token_id_at_bytes(written.as_bytes()));
                id.ok_or_else(|| self.wrong(start, format!("the vocabulary has no token `{written}`")))?
            }
        };
        if !negated && self.vocabulary.stop_tokens.contains(&id) {
            return Err(self.wrong(start, format!("{written} ends an answer, and can be no part of one")));
        }
        if trie.token(id).is_empty() {
            return Err(self.wrong(start, format!("{written} has no text")));
        }
        Ok(self.push(Node::Token { tokens: TokenSet { id, negated }, at }))
    }

    /// `*`, `+`, `?`, `{m}`, `{m,}` or `{m,n}`.
    fn repetitions(&mut self) -> Result<(u32, Option<u32>)> {
        for (mark, times) in [("*", (0, None)), ("+", (1, None)), ("?", (0, Some(1)))] {
            if self.takes(mark) {
                return Ok(times);
            }
        }
        let at = self.at;
        self.at += 1;
        self.space(false);
        let min = self.number()?;
        self.space(false);
        let mut max = Some(min);
        if self.takes(",") {
            self.space(false);
            max = if self.rest().starts_with('}') { None } else { Some(self.number()?) };
            self.space(false);
        }
        if !self.takes("}") {
            return Err(self.expected("`}`"));
        }
        if max.is_some_and(|max| max < min) {
            return Err(self.wrong(at, "more times at least than at most"));
        }
        Ok((min, max))
    }

    fn number(&mut self) -> Result<u32> {
        let at = self.at;
        let n_digits = self.rest().bytes().take_while(u8::is_ascii_digit).count();
        if n_digits == 0 {
            return Err(self.expected("a number"));
        }
        self.at += n_digits;
        let number = self.text[at..self.at].parse().ok().filter(|number| *number <= MAX_REPETITIONS);
        number.ok_or_else(|| self.wrong(at, format!("more than {MAX_REPETITIONS} times")))
    }

    /// A code point of a literal or a class, as itself or by an escape; `None` at the end of the text.
    fn code_point(&mut self) -> Result<Option<u32>> {
        let at = self.at;
        let Some(c) = self.peek() else { return Ok(None) };
        self.at += c.len_utf8();
        if c != '\\' {
            return Ok(Some(c.into()));
        }
        let Some(escaped) = self.peek() else { return Ok(None) };
        self.at += escaped.len_utf8();
        let n_digits = match escaped {
            'n' => return Ok(Some('\n'.into())),
            'r' => return Ok(Some('\r'.into())),
            't' => return Ok(Some('\t'.into())),
            '\\' | '"' | '[' | ']' | '-' => return Ok(Some(escaped.into())),
            'x' => 2,
            'u' => 4,
            'U' => 8,
            _ => return Err(self.wrong(at, format!("`\\{escaped}` is no escape"))),
        };
        let digits =
            self.rest().get(..n_digits).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        let Some(code) = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()) else {
            return Err(self.wrong(at, format!("`\\{escaped}` needs {n_digits} hexadecimal digits")));
        };
        if code > MAX_CODE_POINT {
            return Err(self.wrong(at, format!("U+{code:04X} is no character")));
        }
        self.at += n_digits;
        Ok(Some(code))
    }

    /// Letters, digits and dashes, as many as there are.
    fn name(&mut self) -> &'a str {
        let text = self.text;
        let rest = &text[self.at..];
        let name = &rest[..rest.find(|c| !is_of_name(c)).unwrap_or(rest.len())];
        self.at += name.len();
        name
    }

    /// The number of a rule that is named here.
    fn named(&mut self, name: &'a str, named_at: usize) -> usize {
        let found = &mut self.found;
        *self.names.entry(name).or_insert_with(|| {
            found.push(Found { name, named_at, rule: None });
            found.len() - 1
        })
    }

    fn class_of(&mut self, ranges: Class) -> usize {
        let next = self.classes.len();
        *self.classes.entry(characters(&ranges)).or_insert(next)
    }

    fn push(&mut self, node: Node) -> usize {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// Spaces, tabs and comments, and ends of lines where a rule goes on after them.
    fn space(&mut self, with_lines: bool) {
        while let Some(c) = self.peek() {
            match c {
                '#' => {
                    let rest = self.rest();
                    self.at += rest.find(['\r', '\n']).unwrap_or(rest.len());
                }
                ' ' | '\t' => self.at += 1,
                '\r' | '\n' if with_lines => self.at += 1,
                _ => return,
            }
        }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn takes(&mut self, text: &str) -> bool {
        let there = self.rest().starts_with(text);
        if there {
            self.at += text.len();
        }
        there
    }

    fn expected(&self, what: &str) -> Error {
        let found = match self.peek() {
            None => "the end".to_owned(),
            Some('\r' | '\n') => "the end of the line".to_owned(),
            Some(c) => format!("`{c}`"),
        };
        self.wrong(self.at, format!("{found}, where {what} is expected"))
    }

    fn wrong(&self, at: usize, what: impl AsRef<str>) -> Error {
        wrong(self.text, at, what)
    }

    /// The rules, once all are read.
    fn finish(self) -> Result<Syntax<'a>> {
        let Self { text, nodes, names, found, classes, .. } = self;
        let mut rules = Vec::new();
        for Found { name, named_at, rule } in found {
            let missing = || wrong(text, named_at, format!("there is no rule `{name}`"));
            rules.push(rule.ok_or_else(missing)?);
        }
        let root = *names
            .get("root")
            .ok_or_else(|| unusable("there is no rule `root`, which a grammar begins with"))?;
        let mut classes: Vec<_> = classes.into_iter().collect();
        classes.sort_unstable_by_key(|(_, index)| *index);
        let classes = classes.into_iter().map(|(class, _)| class).collect();
        Ok(Syntax { text, nodes, rules, classes, root })
    }
}

pub(super) fn wrong(text: &str, at: usize, what: impl AsRef<str>) -> Error {
    unusable(format!("{}: {}", place(text, at), what.as_ref()))
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-'
}

/// The code points between ranges that are in order.
fn others(ranges: &[(u32, u32)]) -> Class {
    let mut others = Vec::new();
    let mut next = 0;
    for (first, last) in ranges {
        if next < *first {
            others.push((next, first - 1));
        }
        next = next.max(last + 1);
    }
    if next <= MAX_CODE_POINT {
        others.push((next, MAX_CODE_POINT));
    }
    others
}

/// The characters of ranges that are in order: ranges that meet become one, and surrogates are left out.
fn characters(ranges: &[(u32, u32)]) -> Class {
    let mut joined: Class = Vec::new();
    for (first, last) in ranges {
        match joined.last_mut() {
            Some(before) if *first <= before.1 + 1 => before.1 = before.1.max(*last),
            _ => joined.push((*first, *last)),
        }
    }
    let (low, high) = SURROGATES;
    let parts = joined
        .into_iter()
        .flat_map(|(first, last)| [(first, last.min(low - 1)), (first.max(high + 1), last)]);
    parts.filter(|(first, last)| first <= last).collect()
}
