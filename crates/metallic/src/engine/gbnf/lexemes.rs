//! Divides a grammar into lexemes that are as long as they can be.
//!
//! A reader by lexemes gives each all characters that it has room for, and never takes one back. So at first each part of the
//! grammar that refers to no rule in a circle is one lexeme, or part of a longer one. Then `readings` finds where a lexeme
//! that takes all it can would take what belongs to the next: there it is cut in two. That is done again until nothing is
//! found. It comes to an end, because lexemes of one character each are always right.

use std::collections::{HashMap, HashSet};

use super::parser::wrong;
use super::{Node, Syntax, Vocabulary, readings};
use crate::error::Result;

/// Characters of a lexeme at most, once all that it refers to is written out: as many as a text may have.
const MAX_CHARS: u32 = 1 << 17;

/// Repetitions inside each other in a lexeme: each is looked at for each of its characters.
const MAX_REPETITIONS: u32 = 64;

/// Times that differing readings are looked for, each time after the cuts that the last found. A few are enough, because all
/// cuts that are found at a time are made. After so many, characters are lexemes by themselves.
const MAX_ROUNDS: usize = 32;

/// Which parts of a grammar are lexemes.
pub(super) struct Lexemes {
    /// Whether each node is a lexeme or part of one.
    whole: Vec<bool>,
    cuts: Cuts,
}

/// Where lexemes end although they could go on.
#[derive(Default)]
struct Cuts {
    everywhere: bool,
    places: HashSet<Place>,
}

/// Where a lexeme can be cut: a sequence, and before which of its parts; or a repetition and 0, before each of its times.
pub(super) type Place = (usize, usize);

impl Cuts {
    fn has(&self, place: Place) -> bool {
        self.everywhere || self.places.contains(&place)
    }
}

/// What a sequence consists of, one after the other.
pub(super) enum Part<'a> {
    /// Nodes that are one lexeme together, and where in the sequence the first of them is.
    Lexeme {
        nodes: &'a [usize],
        first: usize,
    },
    Other(usize),
}

impl Lexemes {
    pub(super) fn is_whole(&self, node: usize) -> bool {
        self.whole[node]
    }

    /// The lexemes of a sequence and what is between them.
    pub(super) fn parts<'a>(&self, sequence: usize, nodes: &'a [usize]) -> Vec<Part<'a>> {
        let mut parts = Vec::new();
        let mut at = 0;
        while at < nodes.len() {
            let first = at;
            at += 1;
            if !self.whole[nodes[first]] {
                parts.push(Part::Other(nodes[first]));
                continue;
            }
            while at < nodes.len() && self.whole[nodes[at]] && !self.cuts.has((sequence, at)) {
                at += 1;
            }
            parts.push(Part::Lexeme { nodes: &nodes[first..at], first });
        }
        parts
    }
}

/// Divides a grammar into lexemes.
///
/// # Errors
/// [`Error::Grammar`](crate::Error::Grammar), of a rule all of whose texts are endless, of a grammar that derives nothing but
/// the empty text, and of a token where a text could come that reads the same.
pub(super) fn divide(syntax: &Syntax<'_>, vocabulary: Vocabulary<'_>) -> Result<Lexemes> {
    let order = Order::of(syntax);
    order.check_texts(syntax)?;
    let mut cuts = Cuts::default();
    let mut n_rounds = 0;
    loop {
        cuts.everywhere |= n_rounds == MAX_ROUNDS;
        n_rounds += 1;
        let whole = order.whole(syntax, &cuts);
        let lexemes = Lexemes { whole, cuts };
        if lexemes.whole[syntax.rules[syntax.root].body()] || lexemes.cuts.everywhere {
            check_tokens_alone(syntax, &order, &lexemes)?;
            return Ok(lexemes);
        }
        let rules: Vec<usize> = order.all().collect();
        let found = readings::differences(syntax, &rules, &lexemes, vocabulary)?;
        cuts = lexemes.cuts;
        match found {
            Some(places) if places.is_empty() => {
                return Ok(Lexemes { whole: order.whole(syntax, &cuts), cuts });
            }
            Some(places) => cuts.places.extend(places),
            None => cuts.everywhere = true,
        }
    }
}

/// Refuses tokens in a grammar whose readings were too many to follow: nobody knows what else could come in their places.
fn check_tokens_alone(syntax: &Syntax<'_>, order: &Order, lexemes: &Lexemes) -> Result<()> {
    if !lexemes.cuts.everywhere {
        return Ok(());
    }
    for node in order.all().flat_map(|rule| &syntax.nodes[syntax.rules[rule].nodes.clone()]) {
        if let Node::Token { at, .. } = node {
            return Err(wrong(syntax.text, *at, "a grammar of this size may not have tokens"));
        }
    }
    Ok(())
}

/// The rules that an answer may need.
struct Order {
    /// Those that refer to no rule in a circle, each after those that it refers to.
    straight: Vec<usize>,
    circular: Vec<usize>,
}

impl Order {
    fn of(syntax: &Syntax<'_>) -> Self {
        let mut needed = vec![false; syntax.rules.len()];
        let mut users: Vec<Vec<usize>> = vec![Vec::new(); syntax.rules.len()];
        let mut n_left = vec![0; syntax.rules.len()];
        let mut todo = vec![syntax.root];
        needed[syntax.root] = true;
        let mut found = Vec::new();
        while let Some(rule) = todo.pop() {
            found.push(rule);
            for other in mentions(syntax, rule) {
                users[other].push(rule);
                n_left[rule] += 1;
                if !std::mem::replace(&mut needed[other], true) {
                    todo.push(other);
                }
            }
        }
        let mut straight: Vec<usize> = found.iter().copied().filter(|rule| n_left[*rule] == 0).collect();
        let mut n_done = 0;
        while let Some(&rule) = straight.get(n_done) {
            n_done += 1;
            for &user in &users[rule] {
                n_left[user] -= 1;
                if n_left[user] == 0 {
                    straight.push(user);
                }
            }
        }
        let circular = found.into_iter().filter(|rule| n_left[*rule] > 0).collect();
        Self { straight, circular }
    }

    fn all(&self) -> impl Iterator<Item = usize> {
        self.straight.iter().chain(&self.circular).copied()
    }

    /// Makes sure that each rule derives a text that ends, and that an answer need not be empty.
    fn check_texts(&self, syntax: &Syntax<'_>) -> Result<()> {
        let ends = self.settled(syntax, |node, ends| match node {
            Node::Char(_) | Node::Token { .. } => true,
            Node::Sequence(parts) => parts.iter().all(|part| ends[*part]),
            Node::Choice(options) => options.iter().any(|option| ends[*option]),
            Node::Repeat { node, min, .. } => *min == 0 || ends[*node],
            Node::Rule(rule) => ends[syntax.rules[*rule].body()],
        });
        if let Some(rule) = self.all().find(|rule| !ends[syntax.rules[*rule].body()]) {
            let rule = &syntax.rules[rule];
            let reason = format!("the rule `{}` goes in a circle: it derives no text that ends", rule.name);
            return Err(wrong(syntax.text, rule.at, reason));
        }
        let has_text = self.settled(syntax, |node, has_text| match node {
            Node::Char(_) | Node::Token { .. } => true,
            Node::Sequence(parts) | Node::Choice(parts) => parts.iter().any(|part| has_text[*part]),
            Node::Repeat { node, max, .. } => *max != Some(0) && has_text[*node],
            Node::Rule(rule) => has_text[syntax.rules[*rule].body()],
        });
        let root = &syntax.rules[syntax.root];
        if has_text[root.body()] {
            Ok(())
        } else {
            Err(wrong(syntax.text, root.at, "the rule `root` derives no text but the empty one"))
        }
    }

    /// Of which nodes something holds that follows from its holding of others.
    fn settled(&self, syntax: &Syntax<'_>, holds: impl Fn(&Node, &[bool]) -> bool) -> Vec<bool> {
        let mut found = vec![false; syntax.nodes.len()];
        let mut users: HashMap<usize, Vec<usize>> = HashMap::new();
        for rule in self.all() {
            mentions(syntax, rule).for_each(|other| users.entry(other).or_default().push(rule));
        }
        let mut todo: Vec<usize> = self.all().collect();
        // The last of it is looked at first.
        todo.reverse();
        while let Some(rule) = todo.pop() {
            let body = syntax.rules[rule].body();
            if found[body] {
                continue;
            }
            for index in syntax.rules[rule].nodes.clone() {
                found[index] = holds(&syntax.nodes[index], &found);
            }
            if found[body] {
                todo.extend(users.get(&rule).into_iter().flatten());
            }
        }
        found
    }

    /// Whether each node is a lexeme or part of one.
    fn whole(&self, syntax: &Syntax<'_>, cuts: &Cuts) -> Vec<bool> {
        let mut whole = vec![false; syntax.nodes.len()];
        // Characters of each, and repetitions inside each other.
        let mut sizes = vec![(0_u32, 0_u32); syntax.nodes.len()];
        for rule in self.all() {
            for index in syntax.rules[rule].nodes.clone() {
                let all = |nodes: &[usize]| {
                    let sizes = nodes.iter().map(|node| sizes[*node]);
                    let size =
                        sizes.fold((0, 0), |(n, depth), size| (size.0.saturating_add(n), depth.max(size.1)));
                    (nodes.iter().all(|node| whole[*node]), size)
                };
                let (is_whole, size) = match &syntax.nodes[index] {
                    Node::Char(_) => (true, (1, 0)),
                    Node::Token { .. } => (false, (1, 0)),
                    Node::Sequence(parts) => {
                        let (is_whole, size) = all(parts);
                        (is_whole && (1..parts.len()).all(|at| !cuts.has((index, at))), size)
                    }
                    Node::Choice(options) => all(options),
                    Node::Repeat { node, .. } => {
                        let (n_chars, depth) = sizes[*node];
                        (whole[*node] && !cuts.has((index, 0)), (n_chars, depth.saturating_add(1)))
                    }
                    // Of rules in a circle, not all are known yet, and none is whole.
                    Node::Rule(rule) => all(&[syntax.rules[*rule].body()]),
                };
                sizes[index] = size;
                whole[index] = is_whole && size.0 <= MAX_CHARS && size.1 <= MAX_REPETITIONS;
            }
        }
        whole
    }
}

/// The rules that one refers to.
fn mentions(syntax: &Syntax<'_>, rule: usize) -> impl Iterator<Item = usize> {
    syntax.nodes[syntax.rules[rule].nodes.clone()].iter().filter_map(|node| match node {
        Node::Rule(other) => Some(*other),
        _ => None,
    })
}
