//! Methods of strings.

use minijinja::value::Tuple;
use minijinja::{Error, State, Value};
use unicode_normalization::UnicodeNormalization;

use super::super::arguments::{Arguments, type_error};
use super::super::bounds::charge;
use super::super::numbers::decimal_digit;
use super::super::operators::kind;
use super::super::python_repr::is_printable;
use super::super::sequences::items;
use super::Method;

type Result<T> = std::result::Result<T, Error>;

/// What a string is made into, or asked for: methods without parameters.
macro_rules! plain {
    ($name:literal, $method:expr) => {
        ($name, &[], |_, value, _| {
            let method: fn(&str) -> _ = $method;
            Ok(Value::from(method(value.as_str().unwrap_or_default())))
        })
    };
}

/// Methods that look at each character, of which there must be one.
macro_rules! all_are {
    ($name:literal, $is:expr) => {
        plain!($name, |text| {
            let is: fn(char) -> bool = $is;
            !text.is_empty() && text.chars().all(is)
        })
    };
}

pub(super) const METHODS: &[Method] = &[
    plain!("upper", |text| text.to_uppercase()),
    plain!("lower", |text| text.to_lowercase()),
    plain!("casefold", |text| text.chars().map(folded).collect::<String>()),
    plain!("swapcase", swapcase),
    plain!("capitalize", capitalize),
    plain!("title", title),
    plain!("isascii", |text| text.is_ascii()),
    plain!("isupper", |text| text.chars().any(char::is_uppercase) && !text.chars().any(char::is_lowercase)),
    plain!("islower", |text| text.chars().any(char::is_lowercase) && !text.chars().any(char::is_uppercase)),
    plain!("istitle", is_title),
    plain!("isidentifier", |text| {
        !text.starts_with(|c: char| c.is_numeric())
            && !text.is_empty()
            && text.chars().all(|c| c.is_alphanumeric() || c == '_')
    }),
    plain!("isprintable", |text| text.chars().all(is_printable)),
    all_are!("isspace", is_space),
    all_are!("isalpha", char::is_alphabetic),
    all_are!("isalnum", char::is_alphanumeric),
    all_are!("isnumeric", char::is_numeric),
    all_are!("isdigit", |c| c.is_ascii_digit() || "⁰¹²³⁴⁵⁶⁷⁸⁹₀₁₂₃₄₅₆₇₈₉".contains(c) || is_decimal(c)),
    all_are!("isdecimal", is_decimal),
    ("strip", &["/chars"], |_, value, arguments| stripped(value, arguments, true, true)),
    ("lstrip", &["/chars"], |_, value, arguments| stripped(value, arguments, true, false)),
    ("rstrip", &["/chars"], |_, value, arguments| stripped(value, arguments, false, true)),
    ("removeprefix", &["/prefix"], |_, value, arguments| {
        let text = of(value);
        Ok(Value::from(text.strip_prefix(arguments.text(0)?).unwrap_or(text)))
    }),
    ("removesuffix", &["/suffix"], |_, value, arguments| {
        let text = of(value);
        Ok(Value::from(text.strip_suffix(arguments.text(0)?).unwrap_or(text)))
    }),
    ("center", &["/width", "/fill"], |state, value, arguments| {
        justified(state, value, arguments, |n, width| n / 2 + (n & width & 1))
    }),
    ("ljust", &["/width", "/fill"], |state, value, arguments| justified(state, value, arguments, |_, _| 0)),
    ("rjust", &["/width", "/fill"], |state, value, arguments| justified(state, value, arguments, |n, _| n)),
    ("zfill", &["/width"], zfill),
    ("expandtabs", &["tabsize"], expandtabs),
    ("startswith", &["/prefix", "/start", "/end"], |_, value, arguments| {
        has_end(value, arguments, |text, part| text.starts_with(part))
    }),
    ("endswith", &["/suffix", "/start", "/end"], |_, value, arguments| {
        has_end(value, arguments, |text, part| text.ends_with(part))
    }),
    ("find", &["/text", "/start", "/end"], |_, value, arguments| {
        Ok(Value::from(place(value, arguments, |text, part| text.find(part))?.map_or(-1, |at| at as i64)))
    }),
    ("rfind", &["/text", "/start", "/end"], |_, value, arguments| {
        Ok(Value::from(place(value, arguments, |text, part| text.rfind(part))?.map_or(-1, |at| at as i64)))
    }),
    ("index", &["/text", "/start", "/end"], |_, value, arguments| {
        place(value, arguments, |text, part| text.find(part))?.map(Value::from).ok_or_else(not_found)
    }),
    ("rindex", &["/text", "/start", "/end"], |_, value, arguments| {
        place(value, arguments, |text, part| text.rfind(part))?.map(Value::from).ok_or_else(not_found)
    }),
    ("count", &["/text", "/start", "/end"], |_, value, arguments| {
        let Some((part, _)) = part(value, arguments)? else { return Ok(Value::from(0)) };
        let wanted = arguments.text(0)?;
        let n = if wanted.is_empty() { part.chars().count() + 1 } else { part.matches(wanted).count() };
        Ok(Value::from(n))
    }),
    ("replace", &["/old", "/new", "count"], |state, value, arguments| {
        let count = usize::try_from(arguments.integer(2, -1)?).ok();
        replaced(state, of(value), arguments.text(0)?, arguments.text(1)?, count).map(Value::from)
    }),
    ("split", &["sep", "maxsplit"], |_, value, arguments| {
        let parts = split(of(value), arguments.optional_text(0)?, arguments.integer(1, -1)?)?;
        Ok(Value::from(parts))
    }),
    ("rsplit", &["sep", "maxsplit"], |_, value, arguments| {
        let parts = rsplit(of(value), arguments.optional_text(0)?, arguments.integer(1, -1)?)?;
        Ok(Value::from(parts))
    }),
    ("splitlines", &["keepends"], |_, value, arguments| Ok(Value::from(lines(of(value), arguments.flag(0))))),
    ("partition", &["/sep"], |_, value, arguments| {
        let (text, separator) = (of(value), separator(arguments)?);
        let parts = text.split_once(separator).map_or([text, "", ""], |(a, b)| [a, separator, b]);
        Ok(Value::from(Tuple::from(parts.map(Value::from))))
    }),
    ("rpartition", &["/sep"], |_, value, arguments| {
        let (text, separator) = (of(value), separator(arguments)?);
        let parts = text.rsplit_once(separator).map_or(["", "", text], |(a, b)| [a, separator, b]);
        Ok(Value::from(Tuple::from(parts.map(Value::from))))
    }),
    ("join", &["/items"], |state, value, arguments| {
        let separator = of(value);
        let mut out = String::new();
        for (index, item) in items(state, arguments.value(0)?)?.iter().enumerate() {
            let item =
                item.as_str().ok_or_else(|| type_error(format!("join: {} is no string", kind(item))))?;
            let separator = if index > 0 { separator } else { "" };
            charge(state, separator.len() + item.len())?;
            out.extend([separator, item]);
        }
        Ok(Value::from(out))
    }),
    ("format_map", &["/values"], |state, value, arguments| {
        let values = arguments.value(0)?;
        let pairs =
            items(state, values)?.into_iter().map(|key| Ok((key.to_string(), values.get_item(&key)?)));
        let by_name = pairs.collect::<Result<Vec<_>>>()?.into_iter().collect();
        super::super::str_format::format(state, of(value), &[], &by_name).map(Value::from)
    }),
];

fn of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn not_found() -> Error {
    type_error("index: the text is not in the string")
}

fn separator(arguments: &Arguments) -> Result<&str> {
    match arguments.text(0)? {
        "" => Err(type_error("an empty separator divides nothing")),
        separator => Ok(separator),
    }
}

/// White space as Python has it, which counts the separators of ASCII.
pub(in super::super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1C'..='\x1F').contains(&c)
}

fn is_decimal(c: char) -> bool {
    decimal_digit(c).is_some()
}

pub(in super::super) fn capitalize(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| capital(first) + &chars.as_str().to_lowercase())
}

/// A character as it begins a word: Unicode's title case. Of those that become several, the others stay small.
fn capital(c: char) -> String {
    let mut upper = c.to_uppercase();
    let several = upper.len() > 1;
    match c {
        'ŉ' => upper.collect(),
        'Ǆ'..='ǆ' => "ǅ".to_owned(),
        'Ǉ'..='ǉ' => "ǈ".to_owned(),
        'Ǌ'..='ǌ' => "ǋ".to_owned(),
        'Ǳ'..='ǳ' => "ǲ".to_owned(),
        // Georgian has capitals, but does not begin words with them.
        'ა'..='ჿ' => c.to_string(),
        // Greek's iota stays below its letter.
        '\u{1F80}'..='\u{1FFF}' if several => {
            upper.map(|c| if c == '\u{399}' { '\u{345}' } else { c }).nfc().collect()
        }
        _ => upper.next().into_iter().chain(upper.flat_map(char::to_lowercase)).collect(),
    }
}

/// A character without its case: what is left of its capital in small letters, but where Unicode has it otherwise.
fn folded(c: char) -> String {
    match c {
        'ı' => c.to_string(),
        'ẞ' => "ss".to_owned(),
        // Cherokee's small letters are the newer ones.
        '\u{13A0}'..='\u{13FD}' | '\u{AB70}'..='\u{ABBF}' => c.to_uppercase().collect(),
        _ => c.to_uppercase().flat_map(char::to_lowercase).collect(),
    }
}

fn swapcase(text: &str) -> String {
    text.chars()
        .map(
            |c| {
                if c.is_uppercase() {
                    c.to_lowercase().collect::<String>()
                } else {
                    c.to_uppercase().collect()
                }
            },
        )
        .collect()
}

fn title(text: &str) -> String {
    let mut in_word = false;
    text.chars()
        .map(|c| {
            let written = if in_word { c.to_lowercase().collect() } else { capital(c) };
            in_word = c.is_alphabetic();
            written
        })
        .collect()
}

fn is_title(text: &str) -> bool {
    let (mut in_word, mut has_word) = (false, false);
    let fits = text.chars().all(|c| {
        let fits = if c.is_uppercase() { !in_word } else { !c.is_lowercase() || in_word };
        in_word = c.is_uppercase() || c.is_lowercase();
        has_word |= in_word;
        fits
    });
    fits && has_word
}

fn stripped(value: &Value, arguments: &Arguments, start: bool, end: bool) -> Result<Value> {
    Ok(Value::from(strip(of(value), arguments.optional_text(0)?, start, end)))
}

/// A text without these characters, or white space, at its ends.
pub(in super::super) fn strip<'t>(text: &'t str, chars: Option<&str>, start: bool, end: bool) -> &'t str {
    let is_stripped = |c: char| chars.map_or_else(|| is_space(c), |chars| chars.contains(c));
    let text = if start { text.trim_start_matches(is_stripped) } else { text };
    if end { text.trim_end_matches(is_stripped) } else { text }
}

fn justified(
    state: &State<'_, '_>,
    value: &Value,
    arguments: &Arguments,
    n_before: fn(usize, usize) -> usize,
) -> Result<Value> {
    arguments.value(0)?;
    let fill = if arguments.get(1).is_some() { arguments.text(1)? } else { " " };
    if fill.chars().count() != 1 {
        return Err(type_error("the text to fill with must be one character"));
    }
    justify(state, of(value), arguments.integer(0, 0)?, fill, n_before).map(Value::from)
}

/// A text in a field of some width; `n_before` says how much of the room goes before it.
pub(in super::super) fn justify(
    state: &State<'_, '_>,
    text: &str,
    width: i64,
    fill: &str,
    n_before: impl Fn(usize, usize) -> usize,
) -> Result<String> {
    let width = usize::try_from(width).unwrap_or(0);
    let room = width.saturating_sub(text.chars().count());
    charge(state, room.saturating_mul(fill.len()))?;
    let before = n_before(room, width);
    Ok(fill.repeat(before) + text + &fill.repeat(room - before))
}

fn zfill(state: &State<'_, '_>, value: &Value, arguments: &Arguments) -> Result<Value> {
    let text = of(value);
    arguments.value(0)?;
    let n_sign = usize::from(text.starts_with(['+', '-']));
    let width = arguments.integer(0, 0)?.saturating_sub(n_sign as i64);
    let digits = justify(state, &text[n_sign..], width, "0", |n, _| n)?;
    Ok(Value::from(format!("{}{digits}", &text[..n_sign])))
}

fn expandtabs(state: &State<'_, '_>, value: &Value, arguments: &Arguments) -> Result<Value> {
    let size = usize::try_from(arguments.integer(0, 8)?).unwrap_or(0);
    let (mut out, mut column) = (String::new(), 0);
    for c in of(value).chars() {
        match c {
            '\t' if size > 0 => {
                let n = size - column % size;
                charge(state, n)?;
                out.push_str(&" ".repeat(n));
                column += n;
            }
            '\t' => {}
            '\n' | '\r' => {
                out.push(c);
                column = 0;
            }
            _ => {
                out.push(c);
                column += 1;
            }
        }
    }
    Ok(Value::from(out))
}

/// The part of a string that `start` and `end` bound, and how many characters are before it.
fn part<'v>(value: &'v Value, arguments: &Arguments) -> Result<Option<(&'v str, usize)>> {
    let text = of(value);
    if arguments.given(1).is_none() && arguments.given(2).is_none() {
        return Ok(Some((text, 0)));
    }
    let len = text.chars().count() as i64;
    let bound = |at: usize, default: i64| {
        let at = if arguments.given(at).is_some() { arguments.integer(at, default)? } else { default };
        Ok::<_, Error>(if at < 0 { (at + len).max(0) } else { at })
    };
    let (start, end) = (bound(1, 0)?, bound(2, len)?.min(len));
    if start > end {
        return Ok(None);
    }
    let byte = |at: i64| text.char_indices().nth(at as usize).map_or(text.len(), |(byte, _)| byte);
    Ok(Some((&text[byte(start)..byte(end)], start as usize)))
}

fn place(
    value: &Value,
    arguments: &Arguments,
    find: fn(&str, &str) -> Option<usize>,
) -> Result<Option<usize>> {
    let wanted = arguments.text(0)?;
    let Some((part, n_before)) = part(value, arguments)? else { return Ok(None) };
    Ok(find(part, wanted).map(|at| n_before + part[..at].chars().count()))
}

fn has_end(value: &Value, arguments: &Arguments, has: fn(&str, &str) -> bool) -> Result<Value> {
    let wanted = arguments.value(0)?;
    let part = part(value, arguments)?;
    let has_it = |wanted: &Value| match (wanted.as_str(), part) {
        (Some(wanted), Some((part, _))) => Ok(has(part, wanted)),
        (Some(_), None) => Ok(false),
        (None, _) => Err(type_error(format!("{} is no string to look for", kind(wanted)))),
    };
    if wanted.is_tuple() {
        for wanted in wanted.try_iter()? {
            if has_it(&wanted)? {
                return Ok(Value::from(true));
            }
        }
        return Ok(Value::from(false));
    }
    has_it(wanted).map(Value::from)
}

/// `text.replace(old, new, count)`.
pub(in super::super) fn replaced(
    state: &State<'_, '_>,
    text: &str,
    old: &str,
    new: &str,
    count: Option<usize>,
) -> Result<String> {
    let n_found = if old.is_empty() { text.chars().count() + 1 } else { text.matches(old).count() };
    let n = count.map_or(n_found, |count| count.min(n_found));
    charge(state, n.saturating_mul(new.len()).saturating_add(text.len()))?;
    Ok(text.replacen(old, new, n))
}

fn split(text: &str, separator: Option<&str>, limit: i64) -> Result<Vec<Value>> {
    let n_parts = usize::try_from(limit).map_or(usize::MAX, |limit| limit.saturating_add(1));
    match separator {
        Some("") => Err(type_error("an empty separator divides nothing")),
        Some(separator) => Ok(text.splitn(n_parts, separator).map(Value::from).collect()),
        None => {
            let (mut parts, mut rest) = (Vec::new(), text.trim_start_matches(is_space));
            while !rest.is_empty() {
                let end = if parts.len() + 1 < n_parts { rest.find(is_space) } else { None };
                let (part, after) = rest.split_at(end.unwrap_or(rest.len()));
                parts.push(Value::from(part));
                rest = after.trim_start_matches(is_space);
            }
            Ok(parts)
        }
    }
}

fn rsplit(text: &str, separator: Option<&str>, limit: i64) -> Result<Vec<Value>> {
    let n_parts = usize::try_from(limit).map_or(usize::MAX, |limit| limit.saturating_add(1));
    let mut parts: Vec<Value> = match separator {
        Some("") => return Err(type_error("an empty separator divides nothing")),
        Some(separator) => text.rsplitn(n_parts, separator).map(Value::from).collect(),
        None => {
            let (mut parts, mut rest) = (Vec::new(), text.trim_end_matches(is_space));
            while !rest.is_empty() {
                let at = if parts.len() + 1 < n_parts {
                    rest.char_indices().rfind(|(_, c)| is_space(*c))
                } else {
                    None
                };
                let (before, part) = rest.split_at(at.map_or(0, |(at, c)| at + c.len_utf8()));
                parts.push(Value::from(part));
                rest = before.trim_end_matches(is_space);
            }
            parts
        }
    };
    parts.reverse();
    Ok(parts)
}

fn lines(text: &str, keep_ends: bool) -> Vec<Value> {
    let is_end = |c: char| {
        matches!(c, '\n' | '\r' | '\x0B' | '\x0C' | '\x1C'..='\x1E' | '\u{85}' | '\u{2028}' | '\u{2029}')
    };
    let (mut lines, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        let end = rest.find(is_end);
        let n_end = end.map_or(0, |at| {
            if rest[at..].starts_with("\r\n") {
                2
            } else {
                rest[at..].chars().next().map_or(0, char::len_utf8)
            }
        });
        let end = end.unwrap_or(rest.len());
        lines.push(Value::from(&rest[..if keep_ends { end + n_end } else { end }]));
        rest = &rest[end + n_end..];
    }
    lines
}
