//! A divided grammar as llguidance's: lexemes are regular expressions, and all else symbols with rules.

use std::collections::{HashMap, HashSet};

use llguidance::api::{GrammarInit, SkipSpec};
use llguidance::derivre::{ExprRef, RegexAst};
use llguidance::earley::lexerspec::LexerSpec;
use llguidance::earley::{Grammar, SymIdx, SymbolProps};

use super::lexemes::{Lexemes, Part};
use super::{Node, Syntax, TokenSet, Vocabulary};
use crate::engine::grammar::unusable;
use crate::error::Result;

/// Symbols on the right of rules. Where a text has many readings, llguidance takes time with the third power of them for a
/// character.
const MAX_PARTS: usize = 1500;

pub(super) fn build(
    syntax: &Syntax<'_>,
    lexemes: &Lexemes,
    vocabulary: Vocabulary<'_>,
) -> Result<GrammarInit> {
    let mut lexer = LexerSpec::new().map_err(unusable)?;
    // Nothing is skipped between lexemes.
    let nothing = SkipSpec::unbounded(RegexAst::NoMatch);
    let grammar_id = lexer.setup_lexeme_class_with_skip(nothing).map_err(unusable)?;
    let props = SymbolProps { grammar_id, ..SymbolProps::default() };
    let mut grammar = Grammar::new(None);
    let start = grammar.fresh_symbol_ext("start", SymbolProps { is_start: true, ..props.clone() });
    let mut builder = Builder {
        syntax,
        lexemes,
        vocabulary,
        props,
        lexer,
        grammar,
        regexes: vec![None; syntax.nodes.len()],
        classes: vec![None; syntax.classes.len()],
        terminals: HashMap::new(),
        rules: vec![None; syntax.rules.len()],
        known: HashSet::new(),
        n_parts: 0,
        todo: Vec::new(),
    };
    let root = builder.rule(syntax.root)?;
    builder.derives(start, vec![root])?;
    while let Some((symbol, node)) = builder.todo.pop() {
        let body = builder.node(node)?;
        builder.derives(symbol, vec![body])?;
    }
    Ok(GrammarInit::Internal(builder.grammar, builder.lexer))
}

struct Builder<'a, 's> {
    syntax: &'a Syntax<'s>,
    lexemes: &'a Lexemes,
    vocabulary: Vocabulary<'a>,
    props: SymbolProps,
    lexer: LexerSpec,
    grammar: Grammar,
    /// Of nodes and classes that are written down already.
    regexes: Vec<Option<ExprRef>>,
    classes: Vec<Option<ExprRef>>,
    terminals: HashMap<ExprRef, SymIdx>,
    rules: Vec<Option<SymIdx>>,
    known: HashSet<(SymIdx, Vec<SymIdx>)>,
    /// Symbols on the right of rules.
    n_parts: usize,
    /// Symbols of rules whose bodies are not written down yet.
    todo: Vec<(SymIdx, usize)>,
}

impl Builder<'_, '_> {
    fn rule(&mut self, rule: usize) -> Result<SymIdx> {
        if let Some(symbol) = self.rules[rule] {
            return Ok(symbol);
        }
        let symbol = self.fresh();
        self.rules[rule] = Some(symbol);
        self.todo.push((symbol, self.syntax.rules[rule].body()));
        Ok(symbol)
    }

    /// A symbol for a part of a rule.
    fn node(&mut self, node: usize) -> Result<SymIdx> {
        if self.lexemes.is_whole(node) {
            let regex = self.regex(node)?;
            return self.terminal(regex);
        }
        let syntax = self.syntax;
        match &syntax.nodes[node] {
            Node::Char(_) => {
                let regex = self.regex(node)?;
                self.terminal(regex)
            }
            Node::Token { tokens, .. } => self.token(*tokens),
            Node::Sequence(nodes) => {
                let mut symbols = Vec::new();
                for part in self.lexemes.parts(node, nodes) {
                    symbols.push(match part {
                        Part::Other(node) => self.node(node)?,
                        Part::Lexeme { nodes, .. } => {
                            let regex = self.concatenation(nodes)?;
                            self.terminal(regex)?
                        }
                    });
                }
                self.joined(symbols)
            }
            Node::Choice(options) => {
                let choice = self.fresh();
                for option in options {
                    let option = self.node(*option)?;
                    self.derives(choice, vec![option])?;
                }
                Ok(choice)
            }
            Node::Repeat { node, min, max } => {
                let repeated = self.node(*node)?;
                let first = self.exactly(repeated, *min)?;
                let rest = match max {
                    None => self.any_number(repeated)?,
                    Some(max) => self.at_most(repeated, max - min)?,
                };
                self.joined(vec![first, rest])
            }
            Node::Rule(rule) => self.rule(*rule),
        }
    }

    /// The regular expression of a lexeme.
    fn regex(&mut self, node: usize) -> Result<ExprRef> {
        if let Some(regex) = self.regexes[node] {
            return Ok(regex);
        }
        let syntax = self.syntax;
        let regex = match &syntax.nodes[node] {
            Node::Char(class) => self.class(*class)?,
            Node::Sequence(nodes) => self.concatenation(nodes)?,
            Node::Choice(options) => {
                let options = self.each(options)?;
                self.expression(RegexAst::Or(options))?
            }
            Node::Repeat { node, min, max } => {
                let repeated = RegexAst::ExprRef(self.regex(*node)?);
                self.expression(RegexAst::Repeat(Box::new(repeated), *min, max.unwrap_or(u32::MAX)))?
            }
            Node::Rule(rule) => self.regex(syntax.rules[*rule].body())?,
            Node::Token { .. } => return Err(unusable("a token is no part of a lexeme")),
        };
        self.regexes[node] = Some(regex);
        Ok(regex)
    }

    fn concatenation(&mut self, nodes: &[usize]) -> Result<ExprRef> {
        let parts = self.each(nodes)?;
        self.expression(RegexAst::Concat(parts))
    }

    fn each(&mut self, nodes: &[usize]) -> Result<Vec<RegexAst>> {
        nodes.iter().map(|node| Ok(RegexAst::ExprRef(self.regex(*node)?))).collect()
    }

    fn class(&mut self, class: usize) -> Result<ExprRef> {
        if let Some(regex) = self.classes[class] {
            return Ok(regex);
        }
        let ranges = self.syntax.classes[class].iter();
        let ranges: String = ranges.map(|(low, high)| format!(r"\x{{{low:X}}}-\x{{{high:X}}}")).collect();
        let regex = self.expression(RegexAst::Regex(format!("[{ranges}]")))?;
        self.classes[class] = Some(regex);
        Ok(regex)
    }

    fn expression(&mut self, regex: RegexAst) -> Result<ExprRef> {
        self.lexer.regex_builder.mk(&regex).map_err(unusable)
    }

    /// A symbol for a lexeme. One that may be empty is nothing, or one that may not.
    fn terminal(&mut self, regex: ExprRef) -> Result<SymIdx> {
        if let Some(symbol) = self.terminals.get(&regex) {
            return Ok(*symbol);
        }
        let symbol = self.fresh();
        self.terminals.insert(regex, symbol);
        if !self.lexer.regex_builder.is_nullable(regex) {
            let lexeme = RegexAst::ExprRef(regex);
            let lexeme = self.lexer.add_greedy_lexeme(String::new(), lexeme, false, None, usize::MAX);
            let lexeme = lexeme.map_err(unusable)?;
            self.grammar.make_terminal(symbol, lexeme, &self.lexer).map_err(unusable)?;
            return Ok(symbol);
        }
        self.derives(symbol, Vec::new())?;
        let some = [regex, ExprRef::NON_EMPTY_BYTE_STRING].map(RegexAst::ExprRef);
        let some = self.expression(RegexAst::And(some.into()))?;
        if some != ExprRef::NO_MATCH && regex != ExprRef::EMPTY_STRING {
            let some = self.terminal(some)?;
            self.derives(symbol, vec![some])?;
        }
        Ok(symbol)
    }

    fn token(&mut self, tokens: TokenSet) -> Result<SymIdx> {
        let symbol = self.fresh();
        let ranges = tokens.ranges(self.vocabulary);
        let lexeme = self.lexer.add_special_token(String::new(), ranges).map_err(unusable)?;
        self.grammar.make_terminal(symbol, lexeme, &self.lexer).map_err(unusable)?;
        Ok(symbol)
    }

    /// `n` times: of pairs, so that few symbols are enough.
    fn exactly(&mut self, symbol: SymIdx, n: u32) -> Result<SymIdx> {
        match n {
            0 => self.joined(Vec::new()),
            1 => Ok(symbol),
            _ => {
                let pair = self.joined(vec![symbol, symbol])?;
                let pairs = self.exactly(pair, n / 2)?;
                self.joined(if n.is_multiple_of(2) { vec![pairs] } else { vec![pairs, symbol] })
            }
        }
    }

    /// `n` times at most: as many pairs as there are, and one more if there is; all pairs may be as many as `n` has.
    fn at_most(&mut self, symbol: SymIdx, n: u32) -> Result<SymIdx> {
        if n == 0 {
            return self.joined(Vec::new());
        }
        let one = self.fresh();
        self.derives(one, Vec::new())?;
        self.derives(one, vec![symbol])?;
        if n == 1 {
            return Ok(one);
        }
        let pair = self.joined(vec![symbol, symbol])?;
        let fewer = self.at_most(pair, (n - 1) / 2)?;
        let result = self.fresh();
        self.derives(result, vec![fewer, one])?;
        if n.is_multiple_of(2) {
            let all = self.exactly(pair, n / 2)?;
            self.derives(result, vec![all])?;
        }
        Ok(result)
    }

    /// The one before comes first, which takes Earley's algorithm the least.
    fn any_number(&mut self, symbol: SymIdx) -> Result<SymIdx> {
        let result = self.fresh();
        self.derives(result, Vec::new())?;
        self.derives(result, vec![result, symbol])?;
        Ok(result)
    }

    fn joined(&mut self, symbols: Vec<SymIdx>) -> Result<SymIdx> {
        if let [only] = symbols[..] {
            return Ok(only);
        }
        let result = self.fresh();
        self.derives(result, symbols)?;
        Ok(result)
    }

    /// Takes note of a rule, unless it is there already.
    fn derives(&mut self, symbol: SymIdx, symbols: Vec<SymIdx>) -> Result<()> {
        if !self.known.insert((symbol, symbols.clone())) {
            return Ok(());
        }
        self.n_parts += symbols.len();
        if self.n_parts > MAX_PARTS {
            return Err(unusable("it has too many parts beside those that are regular expressions"));
        }
        self.grammar.add_rule(symbol, symbols).map_err(unusable)
    }

    fn fresh(&mut self) -> SymIdx {
        self.grammar.fresh_symbol_ext("part", self.props.clone())
    }
}
