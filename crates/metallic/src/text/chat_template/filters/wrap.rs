//! Filters that break text or values into lines.

use minijinja::value::ValueKind;
use minijinja::{Error, State, Value};

use super::super::arguments::{Arguments, type_error};
use super::super::bounds::{bounded, charge};
use super::super::operators::sorted;
use super::super::python_repr::repr;
use super::super::sequences::{is_dict, is_list, items};
use super::text::string_of;

type Result<T> = std::result::Result<T, Error>;

/// Each line of the text in lines of at most a width, as Python's `textwrap` breaks them.
pub(super) fn words(state: &mut State<'_, '_>, value: &Value, arguments: &Arguments) -> Result<Value> {
    let text = string_of("wordwrap", value)?;
    let is_on = |at| arguments.get(at).is_none_or(Value::is_true);
    let width = usize::try_from(arguments.integer(0, 79)?).ok().filter(|&width| width > 0);
    let width = width.ok_or_else(|| type_error("wordwrap: the width must be positive"))?;
    let separator = arguments.optional_text(2)?.unwrap_or("\n");
    charge(state, text.len().saturating_mul(1 + separator.len() / width))?;
    let lines = text.lines().map(|line| wrapped(line, width, is_on(1), is_on(3)).join(separator));
    Ok(Value::from(lines.collect::<Vec<_>>().join(separator)))
}

fn wrapped(line: &str, width: usize, breaks_words: bool, at_hyphens: bool) -> Vec<String> {
    let mut chunks = chunks(line, at_hyphens);
    chunks.reverse();
    let n_chars = |text: &String| text.chars().count();
    let is_blank = |chunk: &mut String| chunk.trim().is_empty();
    let mut lines = Vec::new();
    while !chunks.is_empty() {
        // No line but the first begins with white space, and none ends with it.
        if !lines.is_empty() {
            chunks.pop_if(is_blank);
        }
        let (mut out, mut room) = (Vec::new(), width);
        while let Some(chunk) = chunks.pop_if(|chunk| n_chars(chunk) <= room) {
            room -= n_chars(&chunk);
            out.push(chunk);
        }
        // A word that is longer than a line is cut, or has a line of its own.
        if let Some(chunk) = chunks.pop_if(|chunk| n_chars(chunk) > width) {
            if breaks_words {
                let at = chunk.char_indices().nth(room).map_or(chunk.len(), |(at, _)| at);
                let hyphen = if at_hyphens { chunk[..at].rfind('-').filter(|&at| at > 0) } else { None };
                let at = hyphen.map_or(at, |hyphen| hyphen + 1);
                out.push(chunk[..at].to_owned());
                chunks.push(chunk[at..].to_owned());
            } else if out.is_empty() {
                out.push(chunk);
            } else {
                chunks.push(chunk);
            }
        }
        out.pop_if(is_blank);
        if !out.is_empty() {
            lines.push(out.concat());
        }
    }
    lines
}

/// White space, and words, which end after a hyphen between letters.
fn chunks(line: &str, at_hyphens: bool) -> Vec<String> {
    let mut chunks: Vec<String> = Vec::new();
    let chars: Vec<char> = line.chars().collect();
    for (at, &c) in chars.iter().enumerate() {
        let is_letter =
            |at: Option<usize>| at.and_then(|at| chars.get(at)).is_some_and(|c| c.is_alphabetic());
        let after_hyphen = at_hyphens
            && at > 0
            && chars[at - 1] == '-'
            && is_letter(at.checked_sub(2))
            && is_letter(at.checked_sub(3))
            && is_letter(Some(at));
        let continues = at > 0 && (chars[at - 1] == ' ') == (c == ' ') && !after_hyphen;
        match chunks.last_mut() {
            Some(last) if continues => last.push(c),
            _ => chunks.push(String::from(c)),
        }
    }
    chunks
}

/// The value in lines of at most this width, as Python's `pprint` writes it.
const PRETTY_WIDTH: usize = 80;

pub(super) fn pretty(state: &mut State<'_, '_>, value: &Value, _: &Arguments) -> Result<Value> {
    let value = in_order(state, &bounded(state, value.clone(), false)?)?;
    pretty_at(state, &value, 0, 0).map(Value::from)
}

/// The value with its dictionaries in the order of their keys.
fn in_order(state: &State<'_, '_>, value: &Value) -> Result<Value> {
    if is_dict(value) {
        let keys = items(state, value)?;
        let keys = sorted(state, keys.clone(), Clone::clone).unwrap_or(keys);
        let pairs = keys.into_iter().map(|key| Ok((key.clone(), in_order(state, &value.get_item(&key)?)?)));
        return Ok(Value::from_pairs(pairs.collect::<Result<Vec<_>>>()?));
    }
    if is_list(value) {
        let items = items(state, value)?;
        return items.iter().map(|item| in_order(state, item)).collect::<Result<Vec<_>>>().map(Value::from);
    }
    Ok(value.clone())
}

/// A value that begins in a column, and has something after it in its last line.
fn pretty_at(state: &State<'_, '_>, value: &Value, column: usize, n_after: usize) -> Result<String> {
    let line = repr(state, value)?;
    let fits = line.chars().count() + n_after + column <= PRETTY_WIDTH;
    if fits || !matches!(value.kind(), ValueKind::Map | ValueKind::Seq) {
        return Ok(line);
    }
    charge(state, line.len() + column)?;
    let (open, close) = if is_dict(value) {
        ("{", "}")
    } else if value.is_tuple() {
        ("(", ")")
    } else {
        ("[", "]")
    };
    let items = items(state, value)?;
    let mut lines = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let n_after = if index + 1 == items.len() { n_after + 1 } else { 1 };
        lines.push(if is_dict(value) {
            let key = repr(state, item)?;
            let column = column + 1 + key.chars().count() + 2;
            format!("{key}: {}", pretty_at(state, &value.get_item(item)?, column, n_after)?)
        } else {
            pretty_at(state, item, column + 1, n_after)?
        });
    }
    let between = format!(",\n{}", " ".repeat(column + 1));
    Ok(format!("{open}{}{close}", lines.join(&between)))
}
