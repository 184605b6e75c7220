//! Prepares a template's text for the engine: what transformers has beyond Jinja, and limits on what a hostile
//! template can do to the stack.
//!
//! The engine's fuel bounds work and strings, but not how deep an expression nests or how often a list contains
//! itself, and both can overflow the stack. So tags are short ([`MAX_TAG_CODE_BYTES`]), and every value that is
//! given a name passes a filter that refuses deep ones ([`super::functions::BOUNDED`]).

/// The longest template. The longest published one has 17 KB.
const MAX_TEMPLATE_BYTES: usize = 256 << 10;

/// The longest code between `{%` and `%}` or `{{` and `}}`, strings not counted. The longest published one has
/// 300 bytes; each byte may be one level of nesting.
const MAX_TAG_CODE_BYTES: usize = 1024;

/// The template as the engine gets it, or why it does not.
pub(super) fn prepare(source: &str) -> Result<String, String> {
    if source.len() > MAX_TEMPLATE_BYTES {
        return Err(format!("it has {} bytes; at most {MAX_TEMPLATE_BYTES} are accepted", source.len()));
    }
    let mut out = String::with_capacity(source.len() + source.len() / 8);
    let mut rest = source;
    while let Some(start) = next_tag(rest) {
        out.push_str(&rest[..start]);
        rest = &rest[start..];
        let (len, code_bytes) = if rest.starts_with("{#") {
            (rest.find("#}").map_or(rest.len(), |end| end + 2), 0)
        } else {
            measure(rest)
        };
        if code_bytes > MAX_TAG_CODE_BYTES {
            let line = 1 + source[..source.len() - rest.len()].matches('\n').count();
            return Err(format!("the tag in line {line} is longer than {MAX_TAG_CODE_BYTES} bytes"));
        }
        let (tag, after) = rest.split_at(len);
        rewrite(tag, &mut out);
        rest = after;
        if statement(tag) == Some("raw") {
            let end = end_of_raw(rest);
            out.push_str(&rest[..end]);
            rest = &rest[end..];
        }
    }
    Ok(out + rest)
}

fn next_tag(text: &str) -> Option<usize> {
    text.match_indices('{')
        .map(|(at, _)| at)
        .find(|&at| matches!(text.as_bytes().get(at + 1), Some(b'%' | b'{' | b'#')))
}

/// The length of the tag that the text starts with, and of what in it is not a string.
fn measure(text: &str) -> (usize, usize) {
    let bytes = text.as_bytes();
    let end = if bytes[1] == b'%' { b'%' } else { b'}' };
    let (mut at, mut code_bytes, mut braces) = (2, 0, 0usize);
    while at < bytes.len() {
        match bytes[at] {
            quote @ (b'\'' | b'"') => at = end_of_string(bytes, at + 1, quote),
            byte if byte == end && braces == 0 && bytes.get(at + 1) == Some(&b'}') => {
                return (at + 2, code_bytes);
            }
            byte => {
                braces = match byte {
                    b'{' => braces + 1,
                    b'}' => braces.saturating_sub(1),
                    _ => braces,
                };
                at += 1;
            }
        }
        code_bytes += 1;
    }
    (bytes.len(), code_bytes)
}

fn end_of_string(bytes: &[u8], mut at: usize, quote: u8) -> usize {
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

/// What stands between `{%` and `%}`.
fn statement(tag: &str) -> Option<&str> {
    let inner = tag.strip_prefix("{%")?.strip_suffix("%}")?;
    Some(inner.trim_matches(['-', '+']).trim())
}

fn end_of_raw(text: &str) -> usize {
    let is_end = |&(at, _): &(usize, &str)| {
        text[at + 2..].trim_start_matches(['-', '+']).trim_start().starts_with("endraw")
    };
    text.match_indices("{%").find(is_end).map_or(text.len(), |(at, _)| at)
}

fn rewrite(tag: &str, out: &mut String) {
    let rewritten = match statement(tag) {
        // A tag for training, which marks what the assistant says, and renders its body.
        Some("generation") => tag.replacen("generation", "if true", 1),
        Some("endgeneration") => tag.replacen("endgeneration", "endif", 1),
        Some(inner) => match assignment(inner) {
            Some((target, value)) => {
                let (filter, into_namespace) = (super::functions::BOUNDED, target.contains('.'));
                let code = format!(" set {target} = ({value}) | {filter}({into_namespace}) ");
                if joins_safe_text(tag) {
                    escaping(tag, "", &format!("{{%{code}%}}"))
                } else {
                    let (before, after) = trims(tag);
                    format!("{{%{before}{code}{after}%}}")
                }
            }
            None => tag.to_owned(),
        },
        None if tag.starts_with("{{") && joins_safe_text(tag) => {
            // What escaping is done is done by joining; the whole is written as it is.
            let code = tag[2..tag.len() - 2].trim_matches('-');
            escaping(tag, "+", &format!("{{{{ ({code}) | safe }}}}"))
        }
        None => tag.to_owned(),
    };
    out.push_str(&rewritten);
}

/// Whether a tag adds something to the result of the filter `safe`. Python then escapes the other operand for
/// HTML, even where escaping is off: that filter's result is a type of its own, and its `+` does. The
/// engine's does where escaping is on. A result that another tag gave a name to is not followed.
fn joins_safe_text(tag: &str) -> bool {
    let bytes = tag.as_bytes();
    let (mut code, mut at) = (String::new(), 0);
    while at < bytes.len() {
        match bytes[at] {
            quote @ (b'\'' | b'"') => at = end_of_string(bytes, at + 1, quote),
            byte => {
                code.push(char::from(byte));
                at += 1;
            }
        }
    }
    let is_safe = |filter: &str| {
        let after = filter.trim_start().strip_prefix("safe");
        after.is_some_and(|after| !after.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
    };
    tag.ends_with('}') && code.contains('+') && code.split('|').skip(1).any(is_safe)
}

/// The code in place of a tag, with escaping on. The lines around it are left as the tag leaves them; `plain`
/// is the mark for that of a tag without marks.
fn escaping(tag: &str, plain: &'static str, code: &str) -> String {
    let (before, after) = trims(tag);
    let mark = |mark: &'static str| if mark.is_empty() { plain } else { mark };
    format!("{{%{} autoescape 'html' %}}{code}{{% endautoescape {}%}}", mark(before), mark(after))
}

/// The marks for whitespace at both ends of a tag.
fn trims(tag: &str) -> (&'static str, &'static str) {
    let mark = |byte| match byte {
        b'-' => "-",
        b'+' => "+",
        _ => "",
    };
    let bytes = tag.as_bytes();
    (mark(bytes[2]), mark(bytes[bytes.len() - 3]))
}

/// The two sides of `set target = value`.
fn assignment(statement: &str) -> Option<(&str, &str)> {
    let rest = statement
        .strip_prefix("set")
        .filter(|rest| rest.starts_with(|c: char| c.is_ascii_whitespace() || c == '('))?;
    let is_target =
        |c: char| c.is_alphanumeric() || c.is_ascii_whitespace() || matches!(c, '_' | '.' | ',' | '(' | ')');
    let (target, value) = rest.split_once('=')?;
    (target.chars().all(is_target) && !value.starts_with('=')).then_some((target.trim(), value.trim()))
}

#[cfg(test)]
mod tests {
    use super::prepare;

    fn prepared(source: &str) -> String {
        prepare(source).unwrap().replace(super::super::functions::BOUNDED, "B")
    }

    #[test]
    fn only_assignments_and_tags_for_training_change() {
        assert_eq!(prepared("a{%- set x.y = z == 1 -%}b"), "a{%- set x.y = (z == 1) | B(true) -%}b");
        assert_eq!(prepared("{%set a, b = 1, 2%}"), "{% set a, b = (1, 2) | B(false) %}");
        assert_eq!(
            prepared("{{ 'a+'|safe }}{{- 'a'|safe + 'b' }}"),
            "{{ 'a+'|safe }}{%- autoescape 'html' %}{{ ( 'a'|safe + 'b' ) | safe }}{% endautoescape +%}"
        );
        assert_eq!(
            prepared("{% set x = 'a' | safe + 'b' -%}"),
            "{% autoescape 'html' %}{% set x = ('a' | safe + 'b') | B(false) %}{% endautoescape -%}"
        );
        assert_eq!(prepared("{%- generation -%}x{% endgeneration %}"), "{%- if true -%}x{% endif %}");
        for same in [
            "{% set x %}a{% endset %}",
            "{% set x | indent(width=4) %}a{% endset %}",
            "{% if a == 'set x = 1' %}{{ {'a': {'b': '%}'}} }}{% endif %}",
            "{# {% set x = 1 %} #}{ % { {a}",
            "{% raw %}{{ {% set x = 1 %}{%- endraw %}",
            "{{ '%}' ~ \"it's\\\"}}\" }}",
        ] {
            assert_eq!(prepared(same), same);
        }
        assert_eq!(prepared("{% set x = '%}' %}"), "{% set x = ('%}') | B(false) %}");
        for cut in ["{% set x = 1", "{{ 'a", "{# a", "{% raw %} {% end", "{", "{%", "{% set x = '\\"] {
            assert_eq!(prepared(cut), cut);
        }
    }

    #[test]
    fn long_tags_are_refused_but_long_strings_are_not() {
        assert!(prepare(&format!("{{{{ '{}' }}}}", "-".repeat(10_000))).is_ok());
        let error = prepare(&format!("a\n{{{{ {}1 }}}}", "-".repeat(10_000))).unwrap_err();
        assert!(error.contains("line 2"), "{error}");
        assert!(prepare(&"-".repeat(1 << 20)).is_err());
    }
}
