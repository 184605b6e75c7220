//! Where a lexeme that takes all characters it has room for would change what a grammar derives.
//!
//! It would where one text has two readings, in one of which the lexeme goes on with a character, and in the other ends before
//! it. So all pairs of readings of the same text are followed, character by character, as long as both may be the same text.
//! Where two differ like that, the lexeme that goes on has to be cut, so that another begins there.
//!
//! Readings are those of a regular grammar that is made of the true one: after a rule, it goes on wherever any mention of that
//! rule goes on, and what is repeated is repeated without end. It has all readings of the true one and a few more. Those may
//! cost a cut that was not needed, which changes no answer.

use std::collections::{HashMap, HashSet};

use super::lexemes::{Lexemes, Part, Place};
use super::parser::wrong;
use super::{Class, Node, Syntax, TokenSet, Vocabulary};
use crate::error::Result;

/// Characters in lexemes, each counted as often as it is written out, that are followed at most.
const MAX_POSITIONS: usize = 1 << 14;

/// Classes of characters at most: a table says of each two whether they meet.
const MAX_CLASSES: usize = 1 << 11;

/// How often two characters that may follow each other, or be at the same place of a text, are looked at.
const MAX_STEPS: usize = 1 << 24;

/// The places at which lexemes have to be cut; `None` if there is too much to look at.
///
/// # Errors
/// [`Error::Grammar`](crate::Error::Grammar), of a token where a text could come that reads the same.
pub(super) fn differences(
    syntax: &Syntax<'_>,
    rules: &[usize],
    lexemes: &Lexemes,
    vocabulary: Vocabulary<'_>,
) -> Result<Option<Vec<Place>>> {
    Readings::of(syntax, rules, lexemes, vocabulary).map_or(Ok(None), Readings::differences)
}

/// The regular grammar: which characters of which lexemes may follow each other.
struct Readings<'a, 's> {
    syntax: &'a Syntax<'s>,
    lexemes: &'a Lexemes,
    vocabulary: Vocabulary<'a>,
    /// Whether two classes have a character in common.
    classes_meet: Vec<Vec<bool>>,
    positions: Vec<Position>,
    /// Places between lexemes.
    states: Vec<State>,
    /// The state that an answer begins in.
    begin: usize,
    n_steps: usize,
}

/// A character or token of a lexeme. A rule that is mentioned twice has each of its characters at two positions.
struct Position {
    what: What,
    /// What may follow in the same lexeme, and where it would be cut to begin anew with that.
    next: Vec<(usize, Place)>,
    /// The state after the lexeme, if it may end here.
    end: Option<usize>,
}

#[derive(Clone, Copy)]
enum What {
    /// A class.
    Char(usize),
    Token {
        tokens: TokenSet,
        at: usize,
    },
}

#[derive(Default)]
struct State {
    /// First positions of lexemes that may begin here.
    starts: Vec<usize>,
    /// States that are reached without a character.
    same: Vec<usize>,
}

/// Where a part of a lexeme may begin and end.
struct Ends {
    first: Vec<usize>,
    last: Vec<usize>,
    may_be_empty: bool,
}

impl<'a, 's> Readings<'a, 's> {
    /// `None` if they are too many to follow.
    fn of(
        syntax: &'a Syntax<'s>,
        rules: &[usize],
        lexemes: &'a Lexemes,
        vocabulary: Vocabulary<'a>,
    ) -> Option<Self> {
        if syntax.classes.len() > MAX_CLASSES {
            return None;
        }
        let classes = &syntax.classes;
        let classes_meet = classes.iter().map(|a| classes.iter().map(|b| meets(a, b)).collect()).collect();
        let mut readings = Self {
            syntax,
            lexemes,
            vocabulary,
            classes_meet,
            positions: Vec::new(),
            states: Vec::new(),
            begin: 0,
            n_steps: 0,
        };
        // A rule's first and last state.
        let mut states: HashMap<usize, (usize, usize)> = HashMap::new();
        let between = || rules.iter().copied().filter(|rule| !lexemes.is_whole(syntax.rules[*rule].body()));
        for rule in between() {
            states.insert(rule, (readings.state(), readings.state()));
        }
        for rule in between() {
            let (start, end) = states[&rule];
            let last = readings.add(syntax.rules[rule].body(), start, &states)?;
            readings.states[last].same.push(end);
        }
        readings.begin = states[&syntax.root].0;
        Some(readings)
    }

    /// See [`differences`].
    fn differences(mut self) -> Result<Option<Vec<Place>>> {
        let mut cuts = HashSet::new();
        // Where two readings of one text may be at the same time, in lexemes that began at the same character.
        let mut pairs = HashSet::new();
        let mut todo = Vec::new();
        let mut starts: HashMap<usize, Vec<usize>> = HashMap::new();
        let begin = self.reached(self.begin);
        let none: &[usize] = &[];
        if self.pair(&begin, &begin, &mut pairs, &mut todo)?.is_none() {
            return Ok(None);
        }
        while let Some((a, b)) = todo.pop() {
            for position in [a, b] {
                if let Some(end) = self.positions[position].end {
                    starts.entry(end).or_insert_with(|| self.reached(end));
                }
            }
            let ends = [a, b].map(|p| self.positions[p].end.map_or(none, |end| &starts[&end]));
            let nexts: [Vec<usize>; 2] =
                [a, b].map(|p| self.positions[p].next.iter().map(|(to, _)| *to).collect());
            let within = self.pair(&nexts[0], &nexts[1], &mut pairs, &mut todo)?;
            let across = self.pair(ends[0], ends[1], &mut pairs, &mut todo)?;
            if within.is_none() || across.is_none() {
                return Ok(None);
            }
            for (goes_on, ends) in [(a, ends[1]), (b, ends[0])] {
                for (to, place) in &self.positions[goes_on].next {
                    self.n_steps += ends.len();
                    for start in ends {
                        if self.meet(*to, *start)? {
                            cuts.insert(*place);
                            break;
                        }
                    }
                }
            }
            if self.n_steps > MAX_STEPS {
                return Ok(None);
            }
        }
        Ok(Some(cuts.into_iter().collect()))
    }

    /// Notes all pairs of positions that the same character can be at; `None` if there are too many to look at.
    fn pair(
        &mut self,
        some: &[usize],
        others: &[usize],
        pairs: &mut HashSet<(usize, usize)>,
        todo: &mut Vec<(usize, usize)>,
    ) -> Result<Option<()>> {
        self.n_steps = self.n_steps.saturating_add(some.len().saturating_mul(others.len()));
        if self.n_steps > MAX_STEPS {
            return Ok(None);
        }
        for a in some {
            for b in others {
                let pair = (*a.min(b), *a.max(b));
                if !pairs.contains(&pair) && self.meet(*a, *b)? {
                    pairs.insert(pair);
                    todo.push(pair);
                }
            }
        }
        Ok(Some(()))
    }

    /// Whether the same character, or token, can be at both positions.
    fn meet(&self, a: usize, b: usize) -> Result<bool> {
        let unclear = |at: usize| {
            Err(wrong(
                self.syntax.text,
                at,
                "what this token stands for may come here in another way as well",
            ))
        };
        match (self.positions[a].what, self.positions[b].what) {
            (What::Char(a), What::Char(b)) => Ok(self.classes_meet[a][b]),
            (What::Token { tokens, at }, What::Char(class))
            | (What::Char(class), What::Token { tokens, at }) => {
                if self.may_be_text(tokens, class) {
                    unclear(at)
                } else {
                    Ok(false)
                }
            }
            (What::Token { tokens: a, at }, What::Token { tokens: b, .. }) => match (a.negated, b.negated) {
                _ if a == b => Ok(true),
                (false, false) => Ok(false),
                (true, true) => unclear(at),
                (true, false) | (false, true) => {
                    if a.id == b.id {
                        Ok(false)
                    } else {
                        unclear(at)
                    }
                }
            },
        }
    }

    /// Whether a text that begins with a character of the class could begin with one of the tokens, or one of them with it.
    fn may_be_text(&self, tokens: TokenSet, class: usize) -> bool {
        let trie = self.vocabulary.trie;
        if tokens.negated {
            return true;
        }
        // The bytes of a control token are none of any text.
        if trie.is_special_token(tokens.id) {
            return false;
        }
        let first = trie.token(tokens.id).utf8_chunks().next();
        let first = first.and_then(|chunk| chunk.valid().chars().next());
        first.is_none_or(|c| {
            self.syntax.classes[class].iter().any(|(low, high)| (*low..=*high).contains(&c.into()))
        })
    }

    fn state(&mut self) -> usize {
        self.states.push(State::default());
        self.states.len() - 1
    }

    /// All positions that may come first after a state.
    fn reached(&self, state: usize) -> Vec<usize> {
        let mut seen = HashSet::from([state]);
        let mut todo = vec![state];
        let mut found = Vec::new();
        while let Some(state) = todo.pop() {
            found.extend(&self.states[state].starts);
            todo.extend(self.states[state].same.iter().filter(|same| seen.insert(**same)));
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Adds a node after a state and gives the state after the node; `None` if there is too much to add.
    fn add(&mut self, node: usize, start: usize, rules: &HashMap<usize, (usize, usize)>) -> Option<usize> {
        if self.lexemes.is_whole(node) {
            let ends = self.written_out(node)?;
            return Some(self.lexeme(ends, start));
        }
        let syntax = self.syntax;
        Some(match &syntax.nodes[node] {
            Node::Char(_) | Node::Token { .. } => {
                let ends = self.written_out(node)?;
                self.lexeme(ends, start)
            }
            Node::Sequence(nodes) => {
                let mut state = start;
                for part in self.lexemes.parts(node, nodes) {
                    state = match part {
                        Part::Other(node) => self.add(node, state, rules)?,
                        Part::Lexeme { nodes, first } => {
                            let ends = self.sequence(node, nodes, first)?;
                            self.lexeme(ends, state)
                        }
                    };
                }
                state
            }
            Node::Choice(options) => {
                let end = self.state();
                for option in options {
                    let last = self.add(*option, start, rules)?;
                    self.states[last].same.push(end);
                }
                end
            }
            Node::Repeat { node, min, max } => {
                let (first, end) = (self.state(), self.state());
                self.states[start].same.push(first);
                let last = self.add(*node, first, rules)?;
                self.states[last].same.push(end);
                if *max != Some(1) {
                    self.states[last].same.push(first);
                }
                if *min == 0 {
                    self.states[start].same.push(end);
                }
                end
            }
            Node::Rule(rule) => {
                let (first, last) = rules[rule];
                self.states[start].same.push(first);
                let end = self.state();
                self.states[last].same.push(end);
                end
            }
        })
    }

    /// Makes a part that was written out a lexeme after a state and gives the state after it.
    fn lexeme(&mut self, ends: Ends, start: usize) -> usize {
        let end = self.state();
        self.states[start].starts.extend(ends.first);
        for last in ends.last {
            self.positions[last].end = Some(end);
        }
        if ends.may_be_empty {
            self.states[start].same.push(end);
        }
        end
    }

    /// Positions of a part of a lexeme; `None` if there are too many.
    fn written_out(&mut self, node: usize) -> Option<Ends> {
        let syntax = self.syntax;
        let what = match &syntax.nodes[node] {
            Node::Char(class) => What::Char(*class),
            Node::Token { tokens, at } => What::Token { tokens: *tokens, at: *at },
            Node::Sequence(nodes) => return self.sequence(node, nodes, 0),
            Node::Choice(options) => {
                let mut all = Ends { first: Vec::new(), last: Vec::new(), may_be_empty: false };
                for option in options {
                    let ends = self.written_out(*option)?;
                    all.first.extend(ends.first);
                    all.last.extend(ends.last);
                    all.may_be_empty |= ends.may_be_empty;
                }
                return Some(all);
            }
            Node::Repeat { node: repeated, min, max } => {
                let mut ends = self.written_out(*repeated)?;
                if *max != Some(1) {
                    self.connect(&ends.last, &ends.first, (node, 0))?;
                }
                ends.may_be_empty |= *min == 0;
                return Some(ends);
            }
            Node::Rule(rule) => return self.written_out(syntax.rules[*rule].body()),
        };
        let position = self.positions.len();
        self.positions.push(Position { what, next: Vec::new(), end: None });
        (position < MAX_POSITIONS).then(|| Ends {
            first: vec![position],
            last: vec![position],
            may_be_empty: false,
        })
    }

    /// The same of nodes that follow each other in a sequence, the first of them at `first`.
    fn sequence(&mut self, sequence: usize, nodes: &[usize], first: usize) -> Option<Ends> {
        let mut all = Ends { first: Vec::new(), last: Vec::new(), may_be_empty: true };
        for (at, node) in (first..).zip(nodes) {
            let ends = self.written_out(*node)?;
            self.connect(&all.last, &ends.first, (sequence, at))?;
            if all.may_be_empty {
                all.first.extend(ends.first);
            }
            if !ends.may_be_empty {
                all.last.clear();
            }
            all.last.extend(ends.last);
            all.may_be_empty &= ends.may_be_empty;
            self.n_steps += all.first.len() + all.last.len();
        }
        Some(all)
    }

    /// Lets positions follow others, in one lexeme that can be cut between them.
    fn connect(&mut self, from: &[usize], to: &[usize], place: Place) -> Option<()> {
        self.n_steps = self.n_steps.saturating_add(from.len().saturating_mul(to.len()));
        if self.n_steps > MAX_STEPS {
            return None;
        }
        for position in from {
            self.positions[*position].next.extend(to.iter().map(|to| (*to, place)));
        }
        Some(())
    }
}

/// Whether two classes have a character in common.
fn meets(a: &Class, b: &Class) -> bool {
    let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
    while let (Some(x), Some(y)) = (a.peek(), b.peek()) {
        if x.0 <= y.1 && y.0 <= x.1 {
            return true;
        }
        if x.1 < y.1 {
            a.next()
        } else {
            b.next()
        };
    }
    false
}
