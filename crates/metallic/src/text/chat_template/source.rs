//! Writes a template anew for the engine: line ends as Jinja reads them, [expressions](super::expression) that
//! compute as Python does, tags that the engine lacks, and limits on what a hostile template can do to the stack.
//!
//! The engine's fuel bounds work and strings, but not how deep an expression nests or how often a list contains
//! itself, and both can overflow the stack. So tags are short ([`MAX_TAG_TOKENS`]), and every value that is
//! given a name passes a filter that refuses deep ones ([`super::bounds`]).

use super::bounds::BOUNDED;
use super::expression::{Code, Parser};
use super::lexer;

/// The longest template. The longest published one has 17 KB.
pub const MAX_TEMPLATE_BYTES: usize = 256 << 10;

/// The most words between `{%` and `%}` or `{{` and `}}`; each may be one level of nesting. The longest
/// published tag has a hundred.
const MAX_TAG_TOKENS: usize = 1024;

/// What is wrong with a template, and in which line.
#[derive(Debug)]
pub(super) struct SourceError {
    pub(super) reason: String,
    pub(super) line: usize,
}

/// The template as the engine gets it.
pub(super) fn prepare(source: &str) -> Result<String, SourceError> {
    if source.len() > MAX_TEMPLATE_BYTES {
        let reason = format!("it has {} bytes; at most {MAX_TEMPLATE_BYTES} are accepted", source.len());
        return Err(SourceError { reason, line: 1 });
    }
    // All line ends are one to Jinja, in strings, too.
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut writer = Writer { out: String::with_capacity(2 * source.len()), macros: Vec::new() };
    let mut at = 0;
    while let Some(start) = next_tag(&source[at..]) {
        writer.out.push_str(&source[at..at + start]);
        at += start;
        let len = writer.tag(&source[at..]).map_err(|reason| {
            let line = 1 + source[..at].matches('\n').count();
            SourceError { reason, line }
        })?;
        at += len;
    }
    Ok(writer.out + &source[at..])
}

fn next_tag(text: &str) -> Option<usize> {
    text.match_indices('{')
        .map(|(at, _)| at)
        .find(|&at| matches!(text.as_bytes().get(at + 1), Some(b'%' | b'{' | b'#')))
}

struct Writer {
    out: String,
    /// Those that are open.
    macros: Vec<OpenMacro>,
}

/// A macro whose end has not come.
struct OpenMacro {
    name: String,
    parameters: Vec<String>,
    /// Where in the output further parameters go.
    parameters_end: usize,
    /// Whether it asks for arguments that it has no parameter for.
    collects: bool,
}

impl Writer {
    /// Writes the tag that the text begins with, and gives its length.
    fn tag(&mut self, text: &str) -> Result<usize, String> {
        if text.starts_with("{#") {
            let len = text.find("#}").ok_or("a comment has no end")? + 2;
            self.out.push_str(&text[..len]);
            return Ok(len);
        }
        let (open, end) = if text.starts_with("{%") { ("{%", "%}") } else { ("{{", "}}") };
        let mark = text[2..].chars().next().filter(|mark| matches!(mark, '-' | '+'));
        let begin = 2 + usize::from(mark.is_some());
        let (tokens, len) = lexer::read(&text[begin..], end)?;
        let len = begin + len;
        if tokens.len() > MAX_TAG_TOKENS {
            return Err(format!("a tag has more than {MAX_TAG_TOKENS} words"));
        }
        let end_mark = text[..len - 2].chars().last().filter(|mark| matches!(mark, '-' | '+'));
        let end_mark = end_mark.filter(|_| len - 2 > begin);
        let trims = |mark: Option<char>| mark.map_or(String::new(), String::from);
        // Lines that the tag goes over are kept, so that errors name the right one.
        let lines = "\n".repeat(text[..len].matches('\n').count());
        let tail = format!("{lines}{}{end}", trims(end_mark));

        let mut parser = Parser::new(tokens);
        let asks = ["varargs", "kwargs"].iter().any(|name| parser.mentions(name, 0, None));
        if let Some(within) = self.macros.last_mut() {
            within.collects |= asks;
        }
        self.out.push_str(&format!("{open}{} ", trims(mark)));
        if open == "{{" {
            let code = parser.tuple()?;
            parser.end()?;
            self.out.push_str(&format!("{code} {tail}"));
            return Ok(len);
        }
        if parser.take_word("raw") {
            parser.end()?;
            // Jinja leaves the line after it as it is, other than after other tags.
            let tail = if end_mark.is_none() { "+%}" } else { &tail[..] };
            self.out.push_str(&format!("raw {tail}"));
            let content = &text[len..];
            let n_content = end_of_raw(content).ok_or("`raw` has no end")?;
            self.out.push_str(&content[..n_content]);
            return Ok(len + n_content);
        }
        let statements = self.statement(&mut parser)?;
        parser.end()?;
        self.out.push_str(&format!("{} {tail}", statements.join(" %}{% ")));
        Ok(len)
    }

    /// The engine's tags for one of Jinja's.
    fn statement(&mut self, parser: &mut Parser<'_>) -> Result<Vec<String>, String> {
        let word = parser.name()?;
        Ok(vec![match word {
            "if" | "elif" => format!("{word} {}", parser.tuple()?),
            "for" => for_loop(parser)?,
            "set" => set(parser)?,
            "with" => with(parser)?,
            "macro" => return self.open_macro(parser),
            "endmacro" => return Ok(self.end_macro()),
            "call" => return call_block(parser),
            "filter" => format!("filter {}", filters(parser)?),
            "autoescape" => format!("autoescape {}", parser.expression()?),
            "block" => {
                let name = parser.name()?;
                while parser.take_word("scoped") || parser.take_word("required") {}
                format!("block {name}")
            }
            "endblock" => {
                let _ = parser.name(); // it may be named, and need not be
                "endblock".to_owned()
            }
            // A tag for training, which marks what the assistant says, and renders its body.
            "generation" => "with".to_owned(),
            "endgeneration" => "endwith".to_owned(),
            "else" | "endif" | "endfor" | "endset" | "endwith" | "endcall" | "endfilter"
            | "endautoescape" | "endraw" | "break" | "continue" => word.to_owned(),
            "include" | "import" | "from" | "extends" => {
                return Err(format!("`{word}` needs other templates, and a chat template has none"));
            }
            _ => return Err(format!("the tag {word:?} is not known")),
        }])
    }

    fn open_macro(&mut self, parser: &mut Parser<'_>) -> Result<Vec<String>, String> {
        let name = parser.name()?;
        parser.expect("(")?;
        let Parameters { names, code, late } = Parameters::read(parser)?;
        let head = format!("macro {name}({code}");
        let parameters_end = self.out.len() + head.len();
        self.macros.push(OpenMacro {
            name: name.to_owned(),
            parameters: names,
            parameters_end,
            collects: false,
        });
        Ok([vec![head + ")"], late].concat())
    }

    /// Ends a macro. The engine gives one only what it has parameters for, so where it asks for the rest it
    /// gets two more, and its name stands for [something that collects](super::globals).
    fn end_macro(&mut self) -> Vec<String> {
        let mut statements = vec!["endmacro".to_owned()];
        if let Some(OpenMacro { name, parameters, parameters_end, collects: true }) = self.macros.pop() {
            let more = if parameters.is_empty() { "" } else { ", " };
            self.out.insert_str(parameters_end, &format!("{more}varargs=(), kwargs={{}}"));
            let names: Vec<_> = parameters.iter().map(|name| format!("'{name}'")).collect();
            statements.push(format!("set {name} = {name}|py_collect([{}])", names.join(", ")));
        }
        statements
    }
}

fn call_block(parser: &mut Parser<'_>) -> Result<Vec<String>, String> {
    let (parameters, late) = if parser.take("(") {
        let Parameters { code, late, .. } = Parameters::read(parser)?;
        (format!("({code})"), late)
    } else {
        (String::new(), Vec::new())
    };
    Ok([vec![format!("call{parameters} {}", parser.expression()?)], late].concat())
}

fn for_loop(parser: &mut Parser<'_>) -> Code {
    let target = target(parser)?;
    if !parser.take_word("in") {
        return Err("`for` has no `in`".to_owned());
    }
    let mut code = format!("for {target} in {}|py_iter", parser.tuple_without_condition()?);
    if parser.take_word("if") {
        code.push_str(&format!(" if {}", parser.expression()?));
    }
    if parser.take_word("recursive") {
        code.push_str(" recursive");
    }
    Ok(code)
}

fn set(parser: &mut Parser<'_>) -> Code {
    let target = target(parser)?;
    if parser.take("=") {
        let into_namespace = target.contains('.');
        let unpacked = if target.contains(',') { "|py_unpack" } else { "" };
        return Ok(format!("set {target} = {}|{BOUNDED}({into_namespace}){unpacked}", parser.tuple()?));
    }
    if parser.take("|") {
        return Ok(format!("set {target} | {}", filters(parser)?));
    }
    Ok(format!("set {target}"))
}

fn with(parser: &mut Parser<'_>) -> Code {
    // All values are computed before the first name is given one.
    let (mut values, mut names) = (Vec::new(), Vec::new());
    while !parser.is_at_end() {
        if !values.is_empty() {
            parser.expect(",")?;
        }
        let target = target(parser)?;
        let target =
            if target.contains(',') && !target.starts_with('(') { format!("({target})") } else { target };
        parser.expect("=")?;
        let value = format!("py_value{}", values.len());
        names.push(format!("{target} = {value}"));
        values.push(format!("{value} = {}|{BOUNDED}(false)", parser.expression()?));
    }
    values.append(&mut names);
    Ok(["with", &values.join(", ")].join(" ").trim_end().to_owned())
}

fn filters(parser: &mut Parser<'_>) -> Code {
    let mut code = parser.filter()?;
    while parser.take("|") {
        code = format!("{code} | {}", parser.filter()?);
    }
    Ok(code)
}

/// What a value is given to: a name, one in a namespace, or several of them.
fn target(parser: &mut Parser<'_>) -> Code {
    let mut code = String::new();
    let mut n_open = 0;
    loop {
        if parser.take("(") {
            code.push('(');
            n_open += 1;
            continue;
        }
        code.push_str(parser.name()?);
        while parser.take(".") {
            let name = parser.name()?;
            if name.starts_with('_') {
                return Err("a name in a namespace can't begin with an underscore".to_owned());
            }
            code = format!("{code}.{name}");
        }
        while n_open > 0 && parser.take(")") {
            code.push(')');
            n_open -= 1;
        }
        if !parser.take(",") {
            break;
        }
        code.push_str(", ");
    }
    if n_open > 0 { Err("a parenthesis is not closed".to_owned()) } else { Ok(code) }
}

/// A macro's parameters.
struct Parameters {
    names: Vec<String>,
    code: String,
    /// Tags that give values to those whose default mentions a parameter before it, which the engine does not know.
    late: Vec<String>,
}

impl Parameters {
    /// Reads them, after the opening parenthesis.
    fn read(parser: &mut Parser<'_>) -> Result<Self, String> {
        let (mut names, mut codes, mut late): (Vec<String>, _, _) = (Vec::new(), Vec::new(), Vec::new());
        while !parser.take(")") {
            if !names.is_empty() {
                parser.expect(",")?;
            }
            let name = parser.name()?;
            if !parser.take("=") {
                codes.push(name.to_owned());
            } else {
                let start = parser.place();
                let default = parser.expression()?;
                let end = Some(parser.place());
                if names.iter().any(|before| parser.mentions(before, start, end)) {
                    codes.push(format!("{name}=py_not_given"));
                    late.push(format!("if {name} is undefined"));
                    late.push(format!("set {name} = {default}|{BOUNDED}(false)"));
                    late.push("endif".to_owned());
                } else {
                    codes.push(format!("{name}={default}"));
                }
            }
            names.push(name.to_owned());
        }
        Ok(Parameters { names, code: codes.join(", "), late })
    }
}

/// Where the tag that ends a raw part begins.
fn end_of_raw(text: &str) -> Option<usize> {
    let is_end =
        |&at: &usize| text[at + 2..].trim_start_matches(['-', '+']).trim_start().starts_with("endraw");
    text.match_indices("{%").map(|(at, _)| at).find(is_end)
}

#[cfg(test)]
mod tests {
    use super::{BOUNDED, prepare};

    fn prepared(source: &str) -> String {
        prepare(source).unwrap().replace(BOUNDED, "B")
    }

    #[test]
    fn tags_are_written_anew_and_text_is_not() {
        for (source, expected) in [
            ("a{%- set x.y = z == 1 -%}b", "a{%- set x.y = (z == (1))|B(true) -%}b"),
            ("{%set a, b = 1, 2%}", "{% set a, b = ((1), (2),)|B(false)|py_unpack %}"),
            ("{%- generation -%}x{% endgeneration %}", "{%- with -%}x{% endwith %}"),
            ("{% for a, (b, c) in d if a recursive +%}", "{% for a, (b, c) in d|py_iter if a recursive +%}"),
            ("{{ 1\n+ 2 }}\r\nx\r", "{{ ((1)|py_add((2))) \n}}\nx\n"),
            ("{% raw %}{{ {% set x = 1 %}{%- endraw %}", "{% raw +%}{{ {% set x = 1 %}{%- endraw %}"),
            ("{# {% set x = 1 %} #}{ % { {a", "{# {% set x = 1 %} #}{ % { {a"),
            (
                "{% macro f(a) %}{{ varargs }}{% endmacro -%}",
                "{% macro f(a, varargs=(), kwargs={}) %}{{ varargs }}{% endmacro %}\
                 {% set f = f|py_collect(['a']) -%}",
            ),
        ] {
            assert_eq!(prepared(source), expected, "{source}");
        }
    }

    #[test]
    fn what_is_broken_or_too_long_is_refused_with_its_line() {
        for source in
            ["{% set x = 1", "{{ 'a", "{# a", "{% raw %} {% end", "{%", "{% do x %}", "{% include 'a' %}"]
        {
            assert!(prepare(source).is_err(), "{source}");
        }
        assert!(prepare(&format!("{{{{ '{}' }}}}", "-".repeat(10_000))).is_ok());
        let error = prepare(&format!("a\n{{{{ 1{} }}}}", "+1".repeat(10_000))).unwrap_err();
        assert_eq!((error.line, error.reason.contains("1024")), (2, true), "{error:?}");
        assert!(prepare(&"-".repeat(1 << 20)).is_err());
    }
}
