//! The words of what stands between `{{` and `}}`, or `{%` and `%}`, as Jinja's lexer finds them.

/// A word of a tag.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token<'s> {
    Name(&'s str),
    Text(String),
    Integer(u128),
    Float(f64),
    Operator(&'static str),
}

/// The longest first.
const OPERATORS: [&str; 26] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<",
    "=", ".", ":", "|", ",", ";",
];

/// The words of a tag and how long it is: `code` begins after its opening, and its end is `%}` or `}}`.
pub(super) fn read<'s>(code: &'s str, end: &str) -> Result<(Vec<Token<'s>>, usize), String> {
    let (mut tokens, mut at, mut n_open) = (Vec::new(), 0, 0usize);
    loop {
        let rest = &code[at..];
        let Some(first) = rest.chars().next() else { return Err("a tag has no end".to_owned()) };
        let mark = usize::from(first == '-' || first == '+' && end == "%}");
        if n_open == 0 && rest[mark..].starts_with(end) {
            return Ok((tokens, at + mark + end.len()));
        }
        at += match first {
            _ if first.is_whitespace() => first.len_utf8(),
            '\'' | '"' => {
                let (text, len) = text(rest)?;
                tokens.push(Token::Text(text));
                len
            }
            '0'..='9' => {
                // After a dot, digits are an index: `x.0.1` has no float in it.
                let is_index = tokens.last() == Some(&Token::Operator("."));
                let (token, len) = number(rest, is_index)?;
                tokens.push(token);
                len
            }
            _ if is_of_name(first) => {
                let len = rest.find(|c| !is_of_name(c)).unwrap_or(rest.len());
                tokens.push(Token::Name(&rest[..len]));
                len
            }
            _ => {
                let operator = OPERATORS.into_iter().find(|operator| rest.starts_with(operator));
                let operator = operator.ok_or_else(|| format!("{first:?} is not expected"))?;
                match operator {
                    "(" | "[" | "{" => n_open += 1,
                    ")" | "]" | "}" => {
                        n_open =
                            n_open.checked_sub(1).ok_or_else(|| format!("{operator:?} closes nothing"))?;
                    }
                    _ => {}
                }
                tokens.push(Token::Operator(operator));
                operator.len()
            }
        };
    }
}

fn is_of_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// A number and its length. Digits may have underscores between them.
fn number(rest: &str, is_index: bool) -> Result<(Token<'static>, usize), String> {
    let too_large = || "an integer has more than 128 bits".to_owned();
    let bytes = rest.as_bytes();
    let radix = match bytes.get(1).map(u8::to_ascii_lowercase) {
        Some(b'x') => 16,
        Some(b'o') => 8,
        Some(b'b') => 2,
        _ => 10,
    };
    if bytes[0] == b'0' && radix != 10 {
        let len = 2 + rest[2..].find(|c: char| !c.is_digit(radix) && c != '_').unwrap_or(rest.len() - 2);
        let len = 2 + single_underscores(&rest[2..len]).len();
        let digits = rest[2..len].replace('_', "");
        if digits.is_empty() {
            return Err(format!("{:?} has no digits", &rest[..2]));
        }
        return Ok((Token::Integer(u128::from_str_radix(&digits, radix).map_err(|_| too_large())?), len));
    }
    let digits = |from: usize| {
        let len = rest[from..].find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(rest.len() - from);
        let starts = rest[from..].starts_with(|c: char| c.is_ascii_digit());
        if starts { from + single_underscores(&rest[from..from + len]).len() } else { from }
    };
    let whole = digits(0);
    let mut len = whole;
    if !is_index {
        if bytes.get(len) == Some(&b'.') && digits(len + 1) > len + 1 {
            len = digits(len + 1);
        }
        if matches!(bytes.get(len), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(bytes.get(len + 1), Some(b'+' | b'-')));
            let exponent = len + 1 + sign;
            len = if exponent < rest.len() && digits(exponent) > exponent { digits(exponent) } else { len };
        }
    }
    let text = rest[..len].replace('_', "");
    let token = if len == whole {
        if text.starts_with('0') && text.contains(|c| c != '0') {
            return Err(format!("the integer {text} begins with a zero"));
        }
        Token::Integer(text.parse().map_err(|_| too_large())?)
    } else {
        Token::Float(text.parse().map_err(|_| format!("{text:?} is no number"))?)
    };
    Ok((token, len))
}

/// The part of some digits in which underscores stand between two of them.
fn single_underscores(digits: &str) -> &str {
    let len = digits.find("__").unwrap_or(digits.len());
    digits[..len].trim_end_matches('_')
}

/// A string and how long its literal is.
fn text(rest: &str) -> Result<(String, usize), String> {
    let mut chars = rest.char_indices();
    let quote = chars.next().map_or('"', |(_, quote)| quote);
    let mut out = String::new();
    while let Some((at, c)) = chars.next() {
        match c {
            _ if c == quote => return Ok((out, at + 1)),
            '\\' => {
                let n_bytes = escape(&rest[at..], &mut out)?;
                while chars.offset() < at + n_bytes {
                    chars.next();
                }
            }
            _ => out.push(c),
        }
    }
    Err("a string has no end".to_owned())
}

/// Takes an escape, which begins with a backslash, and gives its length. What Python does not know stays as it is.
fn escape(rest: &str, out: &mut String) -> Result<usize, String> {
    let Some(kind) = rest[1..].chars().next() else { return Err("a string has no end".to_owned()) };
    let (digits, radix) = match kind {
        'x' => (2, 16),
        'u' => (4, 16),
        'U' => (8, 16),
        '0'..='7' => return Ok(octal(rest, out)),
        'N' => return Err("\\N{…} in a string is not supported: write \\u and four digits".to_owned()),
        _ => {
            match kind {
                '\n' => {}
                'a' => out.push('\x07'),
                'b' => out.push('\x08'),
                'f' => out.push('\x0C'),
                'n' => out.push('\n'),
                'r' => out.push('\r'),
                't' => out.push('\t'),
                'v' => out.push('\x0B'),
                '\\' | '\'' | '"' => out.push(kind),
                _ => out.extend(['\\', kind]),
            }
            return Ok(1 + kind.len_utf8());
        }
    };
    let hex = |at: usize, digits: usize| {
        let hex = rest.get(at..at + digits).filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
        hex.and_then(|hex| u32::from_str_radix(hex, radix).ok())
    };
    let code = hex(2, digits).ok_or_else(|| format!("an escape \\{kind} needs {digits} digits"))?;
    if let Some(c) = char::from_u32(code) {
        out.push(c);
        return Ok(2 + digits);
    }
    // Two surrogates are one character.
    let low = rest[2 + digits..].starts_with("\\u").then(|| hex(4 + digits, 4)).flatten();
    let pair = low.filter(|_| kind == 'u').map(|low| char::decode_utf16([code as u16, low as u16]).next());
    match pair {
        Some(Some(Ok(c))) => {
            out.push(c);
            Ok(12)
        }
        _ => Err(format!("U+{code:X} in a string is no character")),
    }
}

fn octal(rest: &str, out: &mut String) -> usize {
    let n_digits = rest[1..].bytes().take(3).take_while(|b| (b'0'..=b'7').contains(b)).count();
    let code = u32::from_str_radix(&rest[1..=n_digits], 8).unwrap_or(0);
    out.extend(char::from_u32(code));
    1 + n_digits
}

#[cfg(test)]
mod tests {
    use super::{Token, read};

    fn tokens(code: &str) -> Vec<Token<'_>> {
        read(code, "}}").expect(code).0
    }

    #[test]
    fn numbers_and_strings_are_pythons() {
        use Token::{Float, Integer, Text};
        for (code, expected) in [
            ("1_000}}", Integer(1000)),
            ("0x1F}}", Integer(31)),
            ("0b101}}", Integer(5)),
            ("1e3}}", Float(1000.0)),
            ("2.5E-1}}", Float(0.25)),
            (r"'\x41\101\U0001F600\u00e9\ud83d\ude00\q\'' }}", Text("AA😀é😀\\q'".to_owned())),
            ("'a\\\nb'}}", Text("ab".to_owned())),
        ] {
            assert_eq!(tokens(code), [expected], "{code}");
        }
        assert_eq!(tokens("x.0.1 }}").len(), 5);
        assert_eq!(read("{'a': {}}}} x", "}}").expect("a tag").1, 11);
    }

    #[test]
    fn broken_tags_are_errors() {
        for code in [
            "1",
            "'a",
            "'a\\",
            "'\\x4",
            "'\\ud83d' }}",
            "a ? b }}",
            ") }}",
            "'\\N{DASH}' }}",
            "9".repeat(50).as_str(),
        ] {
            assert!(read(code, "}}").is_err(), "{code}");
        }
    }
}
