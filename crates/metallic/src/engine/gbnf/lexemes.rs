//! Which parts of a grammar are one lexeme each.
//!
//! A reader by lexemes gives each all characters that it has room for, and never takes one back. That is what the grammar
//! derives where no text has two readings, in one of which a lexeme goes on with a character, and in the other ends before
//! it. So at first all that refers to no rule in a circle is as long a lexeme as it can be. Then all pairs of readings of
//! the same text are followed, as far as they can be told apart: where two differ like that, the lexeme that goes on is cut
//! in two there, and it begins anew. Lexemes of one character each differ nowhere.
//!
//! Readings are followed through a regular approximation, which may go on after a rule wherever any mention of it does and
//! repeats what is repeated at all without end: it has all readings, and a few more, which may cost a lexeme and change no
//! answer.

use std::collections::{HashMap, HashSet};

use super::parser::wrong;
use super::{Node, Syntax, TokenSet, Vocabulary};
use crate::error::Result;

/// Characters of a lexeme at most, once all that it refers to is written out: as many as a text may have.
const MAX_CHARS: u32 = 1 << 17;

/// Repetitions inside each other in a lexeme: each is looked at for each of its characters.
const MAX_REPETITIONS: u32 = 64;

/// Characters of lexemes that are followed, classes of them, and how often one after another is looked at. Beyond,
/// characters are lexemes by themselves: right, but slow.
const MAX_POSITIONS: usize = 1 << 14;
const MAX_CLASSES: usize = 1 << 11;
const MAX_STEPS: usize = 1 << 24;

/// Times that readings are followed anew, after cuts. All that are found at a time are made, so a few are enough.
const MAX_ROUNDS: usize = 32;

/// How lexemes and what is between them are found again.
pub(super) struct Lexemes {
    /// Of each node, whether it is a lexeme or part of one.
    whole: Vec<bool>,
    cuts: Cuts,
}

/// Where lexemes end that need not: at which part of a sequence, or before each time of a repetition.
#[derive(Default)]
struct Cuts {
    everywhere: bool,
    places: HashSet<Place>,
}

/// A node, and before which part of it.
type Place = (usize, usize);

impl Cuts {
    fn has(&self, place: Place) -> bool {
        self.everywhere || self.places.contains(&place)
    }
}

/// What a sequence or a choice has beside each other.
pub(super) enum Part<'a> {
    /// One lexeme, of some parts; which of all is the first.
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

    /// Lexemes of a sequence, and what is between them.
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
/// [`Error::Grammar`](crate::Error::Grammar), of a rule that derives no text that ends, of a grammar that derives none but the
/// empty one, and of a token where a text could come that reads the same.
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
        let found = Readings::of(syntax, &order, &lexemes, vocabulary)
            .map(Readings::differences)
            .transpose()?
            .flatten();
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

/// Of a grammar whose readings were too many to follow.
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

    /// Each rule derives some text that ends, and that of an answer is not always empty: for which there is no answer.
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

    /// What holds of nodes, given what is known to hold of others, until nothing more is found.
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

    /// Of each node, whether it is a lexeme or part of one.
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

/// How texts can be read: which characters of which lexemes may follow each other.
struct Readings<'a, 's> {
    syntax: &'a Syntax<'s>,
    lexemes: &'a Lexemes,
    vocabulary: Vocabulary<'a>,
    /// Which classes have a character in common.
    classes_meet: Vec<Vec<bool>>,
    positions: Vec<Position>,
    /// Places between lexemes.
    states: Vec<State>,
    /// The state that an answer begins in.
    begin: usize,
    n_steps: usize,
}

/// A character or token of a lexeme, as often as it is written out.
struct Position {
    what: What,
    /// What may follow in the same lexeme, and where that would be cut.
    next: Vec<(usize, Place)>,
    /// The state after the lexeme, where it may end here.
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
        order: &Order,
        lexemes: &'a Lexemes,
        vocabulary: Vocabulary<'a>,
    ) -> Option<Self> {
        if syntax.classes.len() > MAX_CLASSES {
            return None;
        }
        let meets = |a: &super::Class, b: &super::Class| {
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
        };
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
        let rules: Vec<_> =
            order.all().filter(|rule| !lexemes.is_whole(syntax.rules[*rule].body())).collect();
        for rule in &rules {
            states.insert(*rule, (readings.state(), readings.state()));
        }
        for rule in rules {
            let (start, end) = states[&rule];
            let last = readings.add(syntax.rules[rule].body(), start, &states)?;
            readings.states[last].same.push(end);
        }
        readings.begin = states[&syntax.root].0;
        Some(readings)
    }

    /// The places at which a lexeme is to be cut; `None` if there is too much to look at.
    ///
    /// # Errors
    /// [`Error::Grammar`](crate::Error::Grammar), of a token that a text can't be told from.
    fn differences(mut self) -> Result<Option<Vec<Place>>> {
        let mut cuts = HashSet::new();
        // Pairs of positions at which two readings of one text may be, whose lexemes began at the same character.
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

    /// Takes note of all pairs of positions that the same character can be at; `None` if there are too many.
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

    /// Whether a text that begins with a character of the class may begin with one of the tokens, or they with it.
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

    /// Adds a part after a state; the state after it.
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

    /// The same of some parts of a sequence, the first of which has a number.
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
