//! Jinja's expressions in the engine's syntax, with operators that do as Python's.
//!
//! The engine's own operators know neither `'%d' % 1` nor that `1 < 'a'` is an error, and write numbers in joined
//! text their own way. So each becomes a filter of [`super::operators`]: `a + b` is written `a|py_add(b)`, and
//! nothing is left to the engine's precedence.

use super::lexer::Token;
use super::methods;

/// How deep an expression may nest. Published templates nest less than ten deep.
const MAX_DEPTH: usize = 40;

/// Reads the words of a tag from the first to the last.
pub(super) struct Parser<'s> {
    tokens: Vec<Token<'s>>,
    at: usize,
    depth: usize,
}

/// The engine's code, or what is wrong.
pub(super) type Code = Result<String, String>;

impl<'s> Parser<'s> {
    pub(super) fn new(tokens: Vec<Token<'s>>) -> Self {
        Parser { tokens, at: 0, depth: 0 }
    }

    pub(super) fn peek(&self) -> Option<&Token<'s>> {
        self.tokens.get(self.at)
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.at == self.tokens.len()
    }

    /// How many words have been read.
    pub(super) fn place(&self) -> usize {
        self.at
    }

    /// Whether a name is anywhere in the tag from a place up to where it is read, or to its end.
    pub(super) fn mentions(&self, name: &str, from: usize, to: Option<usize>) -> bool {
        self.tokens[from..to.unwrap_or(self.tokens.len())].contains(&Token::Name(name))
    }

    pub(super) fn take(&mut self, operator: &str) -> bool {
        self.take_if(|token| matches!(token, Token::Operator(found) if *found == operator))
    }

    pub(super) fn take_word(&mut self, word: &str) -> bool {
        self.take_if(|token| matches!(token, Token::Name(found) if *found == word))
    }

    fn take_if(&mut self, is_it: impl Fn(&Token<'s>) -> bool) -> bool {
        let is_it = self.peek().is_some_and(is_it);
        self.at += usize::from(is_it);
        is_it
    }

    pub(super) fn expect(&mut self, operator: &str) -> Result<(), String> {
        if self.take(operator) { Ok(()) } else { Err(format!("{operator:?} is missing{}", self.before())) }
    }

    pub(super) fn name(&mut self) -> Result<&'s str, String> {
        match self.peek() {
            Some(&Token::Name(name)) => {
                self.at += 1;
                Ok(name)
            }
            _ => Err(format!("a name is missing{}", self.before())),
        }
    }

    pub(super) fn end(&self) -> Result<(), String> {
        if self.is_at_end() { Ok(()) } else { Err(format!("the end of the tag is missing{}", self.before())) }
    }

    fn before(&self) -> String {
        match self.peek() {
            None => String::new(),
            Some(Token::Name(name)) => format!(" before {name:?}"),
            Some(Token::Operator(operator)) => format!(" before {operator:?}"),
            Some(Token::Text(_)) => " before a string".to_owned(),
            Some(Token::Integer(_) | Token::Float(_)) => " before a number".to_owned(),
        }
    }

    fn deeper(&mut self, parse: impl FnOnce(&mut Self) -> Code) -> Code {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("an expression is nested more than {MAX_DEPTH} deep"));
        }
        let code = parse(self);
        self.depth -= 1;
        code
    }

    /// `a, b`: what stands in a tag by itself. One expression without a comma is not a tuple.
    pub(super) fn tuple(&mut self) -> Code {
        self.items(Self::expression)
    }

    /// What a loop goes through, which has no condition of its own: the loop has.
    pub(super) fn tuple_without_condition(&mut self) -> Code {
        self.items(Self::any)
    }

    fn items(&mut self, item: fn(&mut Self) -> Code) -> Code {
        let mut items = vec![item(self)?];
        let mut is_tuple = false;
        while self.take(",") {
            is_tuple = true;
            let ends = matches!(self.peek(), None | Some(Token::Operator(")" | "=" | "]")))
                || matches!(self.peek(), Some(Token::Name("in" | "recursive" | "if")));
            if ends {
                break;
            }
            items.push(item(self)?);
        }
        Ok(if is_tuple { format!("({},)", items.join(", ")) } else { items.swap_remove(0) })
    }

    /// Any expression.
    pub(super) fn expression(&mut self) -> Code {
        self.deeper(|parser| {
            let mut code = parser.any()?;
            while parser.take_word("if") {
                let condition = parser.any()?;
                let other = if parser.take_word("else") {
                    format!(" else {}", parser.expression()?)
                } else {
                    String::new()
                };
                code = format!("({code} if {condition}{other})");
            }
            Ok(code)
        })
    }

    /// One of several that holds.
    pub(super) fn any(&mut self) -> Code {
        self.joined("or", |parser| parser.joined("and", Self::negation))
    }

    fn joined(&mut self, word: &str, part: impl Fn(&mut Self) -> Code) -> Code {
        let mut parts = vec![part(self)?];
        while self.take_word(word) {
            parts.push(part(self)?);
        }
        Ok(if parts.len() == 1 {
            parts.swap_remove(0)
        } else {
            format!("({})", parts.join(&format!(" {word} ")))
        })
    }

    fn negation(&mut self) -> Code {
        if self.take_word("not") {
            return self.deeper(|parser| Ok(format!("(not {})", parser.negation()?)));
        }
        self.comparison()
    }

    /// `a < b < c`, which is `a < b and b < c`.
    fn comparison(&mut self) -> Code {
        let mut left = self.sum()?;
        let mut parts = Vec::new();
        while let Some(operator) = self.comparison_operator() {
            let right = self.sum()?;
            parts.push(match operator {
                "not in" => format!("(not ({left}|py_in({right})))"),
                "==" | "!=" => format!("({left} {operator} {right})"),
                _ => format!("({left}|{operator}({right}))"),
            });
            left = right;
        }
        Ok(match parts.len() {
            0 => left,
            1 => parts.swap_remove(0),
            _ => format!("({})", parts.join(" and ")),
        })
    }

    fn comparison_operator(&mut self) -> Option<&'static str> {
        let (operator, n_tokens) = match (self.peek()?, self.tokens.get(self.at + 1)) {
            (Token::Operator("=="), _) => ("==", 1),
            (Token::Operator("!="), _) => ("!=", 1),
            (Token::Operator("<"), _) => ("py_lt", 1),
            (Token::Operator("<="), _) => ("py_le", 1),
            (Token::Operator(">"), _) => ("py_gt", 1),
            (Token::Operator(">="), _) => ("py_ge", 1),
            (Token::Name("in"), _) => ("py_in", 1),
            (Token::Name("not"), Some(Token::Name("in"))) => ("not in", 2),
            _ => return None,
        };
        self.at += n_tokens;
        Some(operator)
    }

    fn sum(&mut self) -> Code {
        self.chain(&[("+", "py_add"), ("-", "py_sub")], Self::concatenation)
    }

    fn concatenation(&mut self) -> Code {
        let first = self.product()?;
        let mut parts = Vec::new();
        while self.take("~") {
            parts.push(self.product()?);
        }
        Ok(if parts.is_empty() { first } else { format!("({first}|py_concat({}))", parts.join(", ")) })
    }

    fn product(&mut self) -> Code {
        let operators = [("*", "py_mul"), ("/", "py_div"), ("//", "py_floordiv"), ("%", "py_mod")];
        self.chain(&operators, |parser| parser.chain(&[("**", "py_pow")], |parser| parser.unary(true)))
    }

    /// Operators of one rank, from left to right. All are written as filters of the first operand, so that a
    /// long sum does not nest.
    fn chain(&mut self, operators: &[(&str, &str)], operand: impl Fn(&mut Self) -> Code) -> Code {
        let mut code = operand(self)?;
        let mut is_alone = true;
        while let Some((_, filter)) = operators.iter().find(|(operator, _)| self.take(operator)) {
            code = format!("{code}|{filter}({})", operand(self)?);
            is_alone = false;
        }
        Ok(if is_alone { code } else { format!("({code})") })
    }

    fn unary(&mut self, with_filters: bool) -> Code {
        let sign = [("-", "py_neg"), ("+", "py_pos")].into_iter().find(|(sign, _)| self.take(sign));
        let code = match sign {
            Some((_, filter)) => self.deeper(|parser| Ok(format!("({}|{filter})", parser.unary(false)?)))?,
            None => self.primary()?,
        };
        let code = self.postfix(code)?;
        if with_filters { self.filters_and_tests(code) } else { Ok(code) }
    }

    fn primary(&mut self) -> Code {
        let token = self.peek().ok_or("the tag ends too early")?.clone();
        let before = self.before();
        self.at += 1;
        match token {
            Token::Name(name) => Ok(match name {
                "true" | "True" => "true".to_owned(),
                "false" | "False" => "false".to_owned(),
                "none" | "None" => "none".to_owned(),
                "and" | "else" | "if" | "in" | "is" | "not" | "or" => {
                    return Err(format!("a value is missing{before}"));
                }
                _ => name.to_owned(),
            }),
            Token::Integer(number) => Ok(format!("({number})")),
            Token::Float(number) if number.is_finite() => Ok(format!("({number:?})")),
            Token::Float(_) => Ok("('inf'|float)".to_owned()),
            Token::Text(mut text) => {
                while let Some(Token::Text(more)) = self.peek() {
                    text.push_str(more);
                    self.at += 1;
                }
                Ok(quoted(&text))
            }
            Token::Operator("(") => self.deeper(Self::parentheses),
            Token::Operator("[") => {
                self.deeper(|parser| Ok(format!("[{}]", parser.list("]", Self::expression)?)))
            }
            Token::Operator("{") => {
                self.deeper(|parser| Ok(format!("{{{}}}", parser.list("}", Self::pair)?)))
            }
            Token::Operator(_) => Err(format!("a value is missing{before}")),
        }
    }

    fn parentheses(&mut self) -> Code {
        if self.take(")") {
            return Ok("()".to_owned());
        }
        let code = self.tuple()?;
        self.expect(")")?;
        Ok(format!("({code})"))
    }

    fn pair(&mut self) -> Code {
        let key = self.expression()?;
        self.expect(":")?;
        Ok(format!("{key}: {}", self.expression()?))
    }

    /// Items with commas between them, up to the bracket that closes the list.
    fn list(&mut self, close: &str, item: fn(&mut Self) -> Code) -> Code {
        let mut items = Vec::new();
        while !self.take(close) {
            if !items.is_empty() {
                self.expect(",")?;
                if self.take(close) {
                    break;
                }
            }
            items.push(item(self)?);
        }
        Ok(items.join(", "))
    }

    fn postfix(&mut self, mut code: String) -> Code {
        loop {
            if self.take(".") {
                code = self.attribute(&code)?;
            } else if self.take("[") {
                code = self.subscript(&code)?;
            } else if self.take("(") {
                code = format!("{code}({})", self.arguments()?);
            } else {
                return Ok(code);
            }
        }
    }

    fn attribute(&mut self, code: &str) -> Code {
        if let Some(&Token::Integer(index)) = self.peek() {
            self.at += 1;
            return Ok(format!("{code}[{index}]"));
        }
        let name = self.name()?;
        let is_call = self.peek() == Some(&Token::Operator("("));
        Ok(if !is_call && methods::is_method(name) {
            format!("({code}|py_attr('{name}'))")
        } else {
            format!("{code}.{name}")
        })
    }

    fn subscript(&mut self, code: &str) -> Code {
        self.deeper(|parser| {
            let bound = |parser: &mut Self| match parser.peek() {
                Some(Token::Operator(":" | "]")) => Ok("none".to_owned()),
                _ => parser.expression(),
            };
            if parser.peek() != Some(&Token::Operator(":")) {
                let index = parser.tuple()?;
                if parser.take("]") {
                    return Ok(format!("{code}[{index}]"));
                }
                parser.expect(":")?;
                return parser.slice(code, index, bound);
            }
            parser.expect(":")?;
            parser.slice(code, "none".to_owned(), bound)
        })
    }

    /// What follows the first colon of a slice.
    fn slice(&mut self, code: &str, start: String, bound: impl Fn(&mut Self) -> Code) -> Code {
        let stop = bound(self)?;
        let step = if self.take(":") { bound(self)? } else { "none".to_owned() };
        self.expect("]")?;
        Ok(format!("({code}|py_slice({start}, {stop}, {step}))"))
    }

    /// The arguments of a call, after its opening parenthesis.
    fn arguments(&mut self) -> Code {
        self.deeper(|parser| parser.list(")", Self::argument))
    }

    fn argument(&mut self) -> Code {
        for splat in ["**", "*"] {
            if self.take(splat) {
                return Ok(format!("{splat}{}", self.expression()?));
            }
        }
        if let (Some(&Token::Name(name)), Some(Token::Operator("="))) =
            (self.peek(), self.tokens.get(self.at + 1))
        {
            self.at += 2;
            return Ok(format!("{name}={}", self.expression()?));
        }
        self.expression()
    }

    fn filters_and_tests(&mut self, mut code: String) -> Code {
        loop {
            if self.take("|") {
                code = format!("{code}|{}", self.filter()?);
            } else if self.take_word("is") {
                code = self.test(&code)?;
            } else if self.take("(") {
                code = format!("({code})({})", self.arguments()?);
            } else {
                return Ok(code);
            }
        }
    }

    /// A filter's name and arguments.
    pub(super) fn filter(&mut self) -> Code {
        let mut code = self.dotted_name()?;
        if self.take("(") {
            code = format!("{code}({})", self.arguments()?);
        }
        Ok(code)
    }

    fn dotted_name(&mut self) -> Code {
        let mut name = self.name()?.to_owned();
        while self.take(".") {
            name = format!("{name}.{}", self.name()?);
        }
        Ok(name)
    }

    fn test(&mut self, code: &str) -> Code {
        let not = if self.take_word("not") { "not " } else { "" };
        let name = self.dotted_name()?;
        let arguments = match self.peek() {
            Some(Token::Operator("(")) => {
                self.at += 1;
                format!("({})", self.arguments()?)
            }
            Some(Token::Name("else" | "or" | "and")) | None => String::new(),
            Some(Token::Name("is")) => return Err("two tests with `is` follow each other".to_owned()),
            Some(Token::Name(_) | Token::Text(_) | Token::Integer(_) | Token::Float(_))
            | Some(Token::Operator("[" | "{")) => {
                let argument = self.primary()?;
                format!("({})", self.postfix(argument)?)
            }
            Some(Token::Operator(_)) => String::new(),
        };
        Ok(format!("({code} is {not}{name}{arguments})"))
    }
}

/// A string as the engine reads it.
fn quoted(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('\'', "\\'").replace('\n', "\\n");
    format!("'{escaped}'")
}

#[cfg(test)]
mod tests {
    use super::super::lexer;
    use super::Parser;

    fn code(expression: &str) -> Result<String, String> {
        let text = format!("{expression} }}}}");
        let mut parser = Parser::new(lexer::read(&text, "}}")?.0);
        let code = parser.tuple()?;
        parser.end().map(|()| code)
    }

    #[test]
    fn operators_are_filters_in_pythons_order() {
        for (expression, expected) in [
            ("a + b * c - d", "(a|py_add((b|py_mul(c)))|py_sub(d))"),
            ("a + b ~ c", "(a|py_add((b|py_concat(c))))"),
            ("-x|abs", "(x|py_neg)|abs"),
            ("not a in b", "(not (a|py_in(b)))"),
            ("a < b <= c", "((a|py_lt(b)) and (b|py_le(c)))"),
            ("a if b else c if d", "(a if b else (c if d))"),
            ("x is divisibleby 3 and y", "((x is divisibleby((3))) and y)"),
            ("x[1:]", "(x|py_slice((1), none, none))"),
            ("x[::-1].y", "(x|py_slice(none, none, ((1)|py_neg))).y"),
            ("d.items()", "d.items()"),
            ("d.items", "(d|py_attr('items'))"),
            ("'a' 'b\\'c'", "'ab\\'c'"),
            ("f(*a, b=1, **c)", "f(*a, b=(1), **c)"),
            ("1,", "((1),)"),
        ] {
            assert_eq!(code(expression).as_deref(), Ok(expected), "{expression}");
        }
    }

    #[test]
    fn broken_and_deep_expressions_are_errors() {
        let deep = ["(", "[", "-", "not ", "x[", "f(", "{1:", "1 if "].map(|open| open.repeat(1000));
        let broken = ["", "1 +", "a b", "x[1", "f(a", "{1}", "x is a is b", "a.", "|x"].map(str::to_owned);
        for expression in deep.into_iter().chain(broken) {
            assert!(code(&expression).is_err(), "{expression}");
        }
    }
}
