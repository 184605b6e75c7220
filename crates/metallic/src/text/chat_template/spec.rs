//! How a value is laid out in a field: what stands after the colon in `'{:*>+8.2f}'`, and what `'%+8.2f'` says.

use minijinja::formatting::{FormatStyle, format as write};
use minijinja::{Error, State};

use super::arguments::type_error;
use super::bounds::charge;
use super::numbers::Number;

/// A field: its width, and how a number in it is written.
#[derive(Debug, Default)]
pub(super) struct Spec {
    pub(super) fill: Option<char>,
    /// `<`, `>`, `^`, or `=` for room between sign and digits.
    pub(super) align: Option<char>,
    /// `+`, a space, or nothing.
    pub(super) sign: &'static str,
    /// Whether the base is written before the digits, and the point after them.
    pub(super) alternate: bool,
    pub(super) width: usize,
    /// A comma, an underscore, or nothing.
    pub(super) grouping: &'static str,
    pub(super) precision: Option<usize>,
    pub(super) kind: Option<char>,
}

impl Spec {
    /// What `format(value, text)` reads.
    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        let wrong = || type_error(format!("format: {text:?} is no layout"));
        let mut spec = Spec::default();
        let mut rest = text;
        let second = text.chars().nth(1);
        if let (Some(fill), Some(align)) = (text.chars().next(), second.filter(|c| "<>^=".contains(*c))) {
            (spec.fill, spec.align) = (Some(fill), Some(align));
            rest = &text[fill.len_utf8() + 1..];
        } else if let Some(align) = text.chars().next().filter(|c| "<>^=".contains(*c)) {
            spec.align = Some(align);
            rest = &text[1..];
        }
        let take = |rest: &mut &str, choices: &[&'static str]| {
            let found = choices.iter().find(|choice| rest.starts_with(**choice)).copied();
            *rest = &rest[found.map_or(0, str::len)..];
            found.unwrap_or("")
        };
        spec.sign = match take(&mut rest, &["+", "-", " "]) {
            "-" => "",
            sign => sign,
        };
        spec.alternate = !take(&mut rest, &["#"]).is_empty();
        if !take(&mut rest, &["0"]).is_empty() && spec.fill.is_none() {
            spec.fill = Some('0');
            spec.align = spec.align.or(Some('0'));
        }
        spec.width = size(&mut rest).unwrap_or(0);
        spec.grouping = take(&mut rest, &[",", "_"]);
        if !take(&mut rest, &["."]).is_empty() {
            spec.precision = Some(size(&mut rest).ok_or_else(wrong)?);
        }
        let mut kind = rest.chars();
        spec.kind = kind.next();
        if kind.next().is_some() || spec.kind.is_some_and(|kind| !"bcdeEfFgGnosxX%".contains(kind)) {
            return Err(wrong());
        }
        Ok(spec)
    }

    /// A text in the field.
    pub(super) fn text(&self, state: &State<'_, '_>, text: &str) -> Result<String, Error> {
        let is_number = self.kind.is_some_and(|kind| kind != 's');
        if is_number
            || !self.sign.is_empty()
            || self.alternate
            || !self.grouping.is_empty()
            || self.align == Some('=')
        {
            return Err(type_error("format: a string has no sign, digits or groups"));
        }
        let cut: String = match self.precision {
            Some(n) => text.chars().take(n).collect(),
            None => text.to_owned(),
        };
        self.padded(state, "", &cut, '<')
    }

    /// A number in the field.
    pub(super) fn number(&self, state: &State<'_, '_>, number: Number) -> Result<String, Error> {
        charge(state, self.precision.unwrap_or(0))?;
        let (number, kind, percent) = match (self.kind, number) {
            (Some('s'), _) => return Err(type_error("format: a number is no string")),
            (Some('%'), number) => (Number::Float(number.as_f64() * 100.0), Some('f'), "%"),
            (Some('n'), Number::Integer(_)) => (number, Some('d'), ""),
            (Some('n'), Number::Float(_)) => (number, Some('g'), ""),
            (Some(kind @ ('e' | 'E' | 'f' | 'F' | 'g' | 'G')), number) => {
                (Number::Float(number.as_f64()), Some(kind), "")
            }
            (kind, number) => (number, kind, ""),
        };
        let alternate = if self.alternate { "#" } else { "" };
        let precision = self.precision.map_or(String::new(), |n| format!(".{n}"));
        let kind = kind.map_or(String::new(), String::from);
        let zeros = self.align == Some('0') && self.fill == Some('0');
        // Zeros before groups of digits are in groups, too.
        let width =
            if zeros && !self.grouping.is_empty() { format!("0{}", self.width) } else { String::new() };
        charge(state, self.width)?;
        let layout = format!("{{:{}{alternate}{width}{}{precision}{kind}}}", self.sign, self.grouping);
        // The engine leaves out the sign of what is no number.
        let sign = if number.as_f64().is_nan() { self.sign } else { "" };
        let written = write(FormatStyle::StrFormat, &layout, &[number.into_value()])?;
        let written = format!("{sign}{written}{percent}");
        let n_sign = written.find(|c: char| !"+- ".contains(c)).unwrap_or(0);
        let n_base = if self.alternate && "xXob".contains(&kind) && !kind.is_empty() { 2 } else { 0 };
        let (head, digits) = written.split_at(n_sign + n_base);
        self.padded(state, head, digits, '>')
    }

    /// Sign and digits, or text, in the field; `default` is where they go if nothing else is said.
    fn padded(&self, state: &State<'_, '_>, head: &str, text: &str, default: char) -> Result<String, Error> {
        let n_chars = head.chars().count() + text.chars().count();
        let room = self.width.saturating_sub(n_chars);
        let fill = self.fill.unwrap_or(' ');
        charge(state, room.saturating_mul(fill.len_utf8()))?;
        let pad = |n: usize| fill.to_string().repeat(n);
        // A zero before the width sets numbers in after their sign, and text at the left.
        let align = match self.align {
            Some('0') => {
                if default == '>' {
                    '='
                } else {
                    '<'
                }
            }
            align => align.unwrap_or(default),
        };
        Ok(match align {
            '<' => format!("{head}{text}{}", pad(room)),
            '^' => format!("{}{head}{text}{}", pad(room / 2), pad(room - room / 2)),
            '=' => format!("{head}{}{text}", pad(room)),
            _ => format!("{}{head}{text}", pad(room)),
        })
    }
}

/// The digits that a text begins with. So many that they are no number are the largest one.
fn size(rest: &mut &str) -> Option<usize> {
    let len = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (digits, after) = rest.split_at(len);
    *rest = after;
    (len > 0).then(|| digits.parse().unwrap_or(usize::MAX))
}
