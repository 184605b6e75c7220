//! Filters of text and of numbers.

use minijinja::value::{Kwargs, Rest, Tuple, ValueKind};
use minijinja::{Error, State, Value};

use super::super::arguments::{Arguments, integer, type_error};
use super::super::bounds::charge;
use super::super::methods::strings;
use super::super::numbers::{self, Number};
use super::super::operators::kind;
use super::super::printf;
use super::super::python_repr;

type Result<T> = std::result::Result<T, Error>;

/// The text of any value, as most filters of text take it.
pub(super) fn soft(state: &State<'_, '_>, value: &Value) -> Result<String> {
    python_repr::text(state, value)
}

/// A text made of another: what was marked as safe stays so.
fn as_safe_as(value: &Value, text: String) -> Value {
    if value.is_safe() { Value::from_safe_string(text) } else { Value::from(text) }
}

pub(super) fn upper(state: &mut State<'_, '_>, value: &Value, _: &Arguments) -> Result<Value> {
    Ok(as_safe_as(value, soft(state, value)?.to_uppercase()))
}

pub(super) fn lower(state: &mut State<'_, '_>, value: &Value, _: &Arguments) -> Result<Value> {
    Ok(as_safe_as(value, soft(state, value)?.to_lowercase()))
}

pub(super) fn capitalize(state: &mut State<'_, '_>, value: &Value, _: &Arguments) -> Result<Value> {
    Ok(as_safe_as(value, strings::capitalize(&soft(state, value)?)))
}

/// Each word with a capital; words end at white space, a dash or an opening bracket.
pub(super) fn title(state: &mut State<'_, '_>, value: &Value, _: &Arguments) -> Result<Value> {
    let text = soft(state, value)?;
    let words = text.split_inclusive(|c: char| strings::is_space(c) || "-({[<".contains(c));
    // It has large letters where the method has those of Unicode's title case.
    let word = |word: &str| {
        let n_first = word.chars().next().map_or(0, char::len_utf8);
        word[..n_first].to_uppercase() + &word[n_first..].to_lowercase()
    };
    Ok(as_safe_as(value, words.map(word).collect()))
}

pub(super) fn string(state: &mut State<'_, '_>, value: &Value, _: &Arguments) -> Result<Value> {
    Ok(if value.as_str().is_some() { value.clone() } else { Value::from(soft(state, value)?) })
}

pub(super) fn trim(state: &mut State<'_, '_>, value: &Value, arguments: &Arguments) -> Result<Value> {
    let text = soft(state, value)?;
    Ok(as_safe_as(value, strings::strip(&text, arguments.optional_text(0)?, true, true).to_owned()))
}

pub(super) fn center(state: &mut State<'_, '_>, value: &Value, arguments: &Arguments) -> Result<Value> {
    let (text, width) = (soft(state, value)?, arguments.integer(0, 80)?);
    strings::justify(state, &text, width, " ", |n, width| n / 2 + (n & width & 1)).map(Value::from)
}

pub(super) fn replace(state: &mut State<'_, '_>, value: &Value, arguments: &Arguments) -> Result<Value> {
    let count = match arguments.given(2) {
        Some(_) => usize::try_from(arguments.integer(2, -1)?).ok(),
        None => None,
    };
    let (text, old, new) =
        (soft(state, value)?, soft(state, arguments.value(0)?)?, soft(state, arguments.value(1)?)?);
    Ok(as_safe_as(value, strings::replaced(state, &text, &old, &new, count)?))
}

pub(super) fn word_count(state: &mut State<'_, '_>, value: &Value, _: &Arguments) -> Result<Value> {
    let text = soft(state, value)?;
    let words = text.split(|c: char| !(c.is_alphanumeric() || c == '_'));
    Ok(Value::from(words.filter(|word| !word.is_empty()).count()))
}

/// All lines but the first, and but blank ones, set in by a width or a text.
pub(super) fn indent(state: &mut State<'_, '_>, value: &Value, arguments: &Arguments) -> Result<Value> {
    let by = match arguments.get(0).map(|width| (width.as_str(), integer(width))) {
        None => "    ".to_owned(),
        Some((Some(text), _)) => text.to_owned(),
        Some((None, Some(width))) => {
            let width = usize::try_from(width).unwrap_or(0);
            charge(state, width)?;
            " ".repeat(width)
        }
        Some((None, None)) => return Err(type_error("indent: \"width\" must be an integer or a string")),
    };
    let text = string_of("indent", value)?.to_owned();
    let (first, blank) = (arguments.flag(1), arguments.flag(2));
    charge(state, by.len().saturating_mul(1 + text.matches('\n').count()))?;
    let mut out = String::new();
    let text_and_end = text.clone() + "\n";
    let lines = if blank { text.split('\n').collect::<Vec<_>>() } else { python_lines(&text_and_end) };
    for (index, line) in lines.into_iter().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        if if index == 0 { first } else { blank || !line.is_empty() } {
            out.push_str(&by);
        }
        out.push_str(line);
    }
    Ok(as_safe_as(value, out))
}

/// The text of a value that must be one.
pub(super) fn string_of<'v>(filter: &str, value: &'v Value) -> Result<&'v str> {
    value.as_str().ok_or_else(|| type_error(format!("{filter}: {} is no string", kind(value))))
}

/// The lines of a text, as Python's `splitlines` has them.
fn python_lines(text: &str) -> Vec<&str> {
    let mut lines: Vec<_> = text.split(['\n', '\x0B', '\x0C', '\u{85}', '\u{2028}', '\u{2029}']).collect();
    lines.pop();
    lines.into_iter().map(|line| line.strip_suffix('\r').unwrap_or(line)).collect()
}

/// The text, cut to a length, if it is longer than that and some leeway.
pub(super) fn truncate(_: &mut State<'_, '_>, value: &Value, arguments: &Arguments) -> Result<Value> {
    let size = |at: usize, default: i64| -> Result<usize> {
        let n = if arguments.given(at).is_some() { arguments.integer(at, default)? } else { default };
        usize::try_from(n).map_err(|_| type_error("truncate: a length can't be negative"))
    };
    let (length, leeway) = (size(0, 255)?, size(3, 5)?);
    let end = arguments.optional_text(2)?.unwrap_or("...");
    let n_end = end.chars().count();
    let Some(kept) = length.checked_sub(n_end) else {
        return Err(type_error(format!("truncate: {length} characters have no room for {end:?}")));
    };
    // What has a length may be short enough, whatever it is.
    let longest = length.saturating_add(leeway);
    let is_short = match value.as_str() {
        Some(text) => text.chars().count() <= longest,
        None => value.is_undefined() || value.len().is_some_and(|len| len <= longest),
    };
    if is_short {
        return Ok(value.clone());
    }
    let text = string_of("truncate", value)?;
    let cut: String = text.chars().take(kept).collect();
    // The last word, which may be cut, goes.
    let cut =
        if arguments.flag(1) { &cut[..] } else { cut.rsplit_once(' ').map_or(&cut[..], |(whole, _)| whole) };
    Ok(as_safe_as(value, format!("{cut}{end}")))
}

/// `value|format(…)`: `value % …`.
pub(super) fn format(
    state: &mut State<'_, '_>,
    value: Value,
    by_place: Rest<Value>,
    by_name: Kwargs,
) -> Result<Value> {
    let names: Vec<_> = by_name.args().map(str::to_owned).collect();
    let arguments = if names.is_empty() {
        Value::from(Tuple::from(by_place.to_vec()))
    } else if by_place.is_empty() {
        let pairs = names.into_iter().map(|name| Ok((name.clone(), by_name.get::<Value>(&name)?)));
        Value::from_pairs(pairs.collect::<Result<Vec<_>>>()?)
    } else {
        return Err(type_error("format takes values by place or by name, not both"));
    };
    printf::format(state, &soft(state, &value)?, &arguments).map(Value::from)
}

pub(super) fn abs(_: &mut State<'_, '_>, value: &Value, _: &Arguments) -> Result<Value> {
    match Number::of(value) {
        Some(Number::Integer(number)) if number < 0 => Number::Integer(number).neg().map(Number::into_value),
        Some(Number::Float(number)) => Ok(Value::from(number.abs())),
        Some(number) => Ok(number.into_value()),
        None => Err(type_error(format!("abs: {} is not a number", kind(value)))),
    }
}

pub(super) fn float(_: &mut State<'_, '_>, value: &Value, arguments: &Arguments) -> Result<Value> {
    undefined_is_no_number(value)?;
    let number = match value.as_str() {
        Some(text) => numbers::parse_float(text),
        None => Number::of(value).map(Number::as_f64),
    };
    Ok(number.map_or_else(|| arguments.get(0).cloned().unwrap_or(Value::from(0.0)), Value::from))
}

pub(super) fn int(_: &mut State<'_, '_>, value: &Value, arguments: &Arguments) -> Result<Value> {
    undefined_is_no_number(value)?;
    let cut = |number: f64| (number.abs() < 1e38).then_some(number.trunc() as i128);
    let number = match (value.as_str(), Number::of(value)) {
        (Some(text), _) => {
            let integer = numbers::parse_integer(text, arguments.integer(1, 10)?);
            integer.or_else(|| numbers::parse_float(text).and_then(cut))
        }
        (None, Some(Number::Integer(number))) => Some(number),
        (None, Some(Number::Float(number))) if number.is_infinite() => {
            return Err(type_error("an infinite number is no integer"));
        }
        (None, Some(Number::Float(number))) => cut(number),
        (None, None) => None,
    };
    let default = || arguments.get(0).cloned().unwrap_or(Value::from(0));
    Ok(number.map_or_else(default, |number| Number::Integer(number).into_value()))
}

fn undefined_is_no_number(value: &Value) -> Result<()> {
    if value.is_undefined() { Err(type_error("an undefined value is no number")) } else { Ok(()) }
}

pub(super) fn round(_: &mut State<'_, '_>, value: &Value, arguments: &Arguments) -> Result<Value> {
    let digits = arguments.integer(0, 0)?;
    let number =
        Number::of(value).ok_or_else(|| type_error(format!("round: {} is not a number", kind(value))))?;
    let method = arguments.optional_text(1)?.unwrap_or("common");
    let scaled = |round: fn(f64) -> f64| {
        let unit = 10f64.powi(digits.clamp(-400, 400) as i32);
        Value::from(round(number.as_f64() * unit) / unit)
    };
    Ok(match (method, number) {
        ("common", Number::Float(number)) => Value::from(numbers::round(number, digits)),
        ("common", Number::Integer(_)) if digits >= 0 => number.into_value(),
        ("common", Number::Integer(number)) => {
            let unit = u32::try_from(-digits).ok().and_then(|digits| 10i128.checked_pow(digits));
            let rounded = unit.map_or(0, |unit| round_integer(number, unit));
            Number::Integer(rounded).into_value()
        }
        ("ceil", _) => scaled(f64::ceil),
        ("floor", _) => scaled(f64::floor),
        _ => return Err(type_error("round: the method must be common, ceil or floor")),
    })
}

/// The nearest multiple; of two equally near ones the even.
fn round_integer(number: i128, unit: i128) -> i128 {
    let (below, rest) = (number.div_euclid(unit), number.rem_euclid(unit));
    let up = rest > unit - rest || rest == unit - rest && below % 2 != 0;
    (below + i128::from(up)).saturating_mul(unit)
}

pub(super) fn file_size(_: &mut State<'_, '_>, value: &Value, arguments: &Arguments) -> Result<Value> {
    let bytes = match value.as_str() {
        Some(text) => numbers::parse_float(text),
        None => Number::of(value).map(Number::as_f64),
    };
    let bytes = bytes.ok_or_else(|| type_error("filesizeformat needs a number"))?;
    let (base, units) = if arguments.flag(0) {
        (1024.0, ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"])
    } else {
        (1000.0, ["kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"])
    };
    Ok(Value::from(if bytes == 1.0 {
        "1 Byte".to_owned()
    } else if bytes < base {
        format!("{} Bytes", bytes.trunc())
    } else {
        let mut unit = base;
        let mut name = units[0];
        for next in &units[1..] {
            if bytes < unit * base {
                break;
            }
            (unit, name) = (unit * base, next);
        }
        format!("{:.1} {name}", bytes / unit).replace("NaN", "nan")
    }))
}

/// Whether a value is text for the filters that ignore case.
pub(super) fn folded(value: &Value) -> Value {
    match value.kind() {
        ValueKind::String => Value::from(value.as_str().unwrap_or_default().to_lowercase()),
        _ => value.clone(),
    }
}
