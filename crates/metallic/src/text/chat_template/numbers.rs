//! Arithmetic as Python does it, with integers of up to 128 bits.

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Value};

use super::arguments::type_error;

/// An integer or a float. Booleans are integers.
#[derive(Clone, Copy, Debug)]
pub(super) enum Number {
    Integer(i128),
    Float(f64),
}

use Number::{Float, Integer};

impl Number {
    pub(super) fn of(value: &Value) -> Option<Self> {
        match value.kind() {
            ValueKind::Bool => Some(Integer(i128::from(value.is_true()))),
            ValueKind::Number if value.is_integer() => i128::try_from(value.clone()).ok().map(Integer),
            ValueKind::Number => f64::try_from(value.clone()).ok().map(Float),
            _ => None,
        }
    }

    pub(super) fn as_f64(self) -> f64 {
        match self {
            Integer(number) => number as f64,
            Float(number) => number,
        }
    }

    pub(super) fn into_value(self) -> Value {
        match self {
            Integer(number) => i64::try_from(number).map_or_else(|_| Value::from(number), Value::from),
            Float(number) => Value::from(number),
        }
    }

    pub(super) fn add(self, other: Self) -> Result<Self, Error> {
        self.with(other, i128::checked_add, |a, b| a + b)
    }

    pub(super) fn sub(self, other: Self) -> Result<Self, Error> {
        self.with(other, i128::checked_sub, |a, b| a - b)
    }

    pub(super) fn mul(self, other: Self) -> Result<Self, Error> {
        self.with(other, i128::checked_mul, |a, b| a * b)
    }

    pub(super) fn neg(self) -> Result<Self, Error> {
        Ok(match self {
            Integer(number) => Integer(number.checked_neg().ok_or_else(too_large)?),
            Float(number) => Float(-number),
        })
    }

    pub(super) fn div(self, other: Self) -> Result<Self, Error> {
        Ok(Float(self.as_f64() / other.not_zero()?.as_f64()))
    }

    pub(super) fn floordiv(self, other: Self) -> Result<Self, Error> {
        self.with(
            other.not_zero()?,
            |a, b| floor(a, b).map(|(quotient, _)| quotient),
            |a, b| float_floor(a, b).0,
        )
    }

    pub(super) fn modulo(self, other: Self) -> Result<Self, Error> {
        self.with(other.not_zero()?, |a, b| floor(a, b).map(|(_, rest)| rest), |a, b| float_floor(a, b).1)
    }

    pub(super) fn pow(self, other: Self) -> Result<Self, Error> {
        if let (Integer(base), Integer(exponent @ 0..)) = (self, other) {
            let power = match base {
                0 | 1 => Some(if exponent == 0 { 1 } else { base }),
                -1 => Some(if exponent % 2 == 0 { 1 } else { -1 }),
                _ => u32::try_from(exponent).ok().and_then(|exponent| base.checked_pow(exponent)),
            };
            return power.map(Integer).ok_or_else(too_large);
        }
        let (base, exponent) = (self.as_f64(), other.as_f64());
        if base == 0.0 && exponent < 0.0 {
            return Err(type_error("zero has no negative power"));
        }
        let power = base.powf(exponent);
        if power.is_nan() && !base.is_nan() && !exponent.is_nan() {
            return Err(type_error("complex numbers are not supported"));
        }
        if power.is_infinite() && base.is_finite() && exponent.is_finite() {
            return Err(type_error("a number is too large"));
        }
        Ok(Float(power))
    }

    fn not_zero(self) -> Result<Self, Error> {
        if self.as_f64() == 0.0 { Err(type_error("division by zero")) } else { Ok(self) }
    }

    fn with(
        self,
        other: Self,
        integers: impl Fn(i128, i128) -> Option<i128>,
        floats: impl Fn(f64, f64) -> f64,
    ) -> Result<Self, Error> {
        match (self, other) {
            (Integer(a), Integer(b)) => integers(a, b).map(Integer).ok_or_else(too_large),
            (a, b) => Ok(Float(floats(a.as_f64(), b.as_f64()))),
        }
    }
}

fn too_large() -> Error {
    Error::new(ErrorKind::InvalidOperation, "an integer has more than 128 bits")
}

/// The quotient, rounded down, and what is left.
fn floor(a: i128, b: i128) -> Option<(i128, i128)> {
    let (quotient, rest) = (a.checked_div(b)?, a.checked_rem(b)?);
    Some(if rest != 0 && (rest < 0) != (b < 0) { (quotient - 1, rest + b) } else { (quotient, rest) })
}

/// As [`floor`], with CPython's care for signs and for quotients that rounding brings near an integer.
fn float_floor(a: f64, b: f64) -> (f64, f64) {
    let mut rest = a % b;
    let mut quotient = (a - rest) / b;
    if rest == 0.0 {
        rest = 0.0_f64.copysign(b);
    } else if (rest < 0.0) != (b < 0.0) {
        rest += b;
        quotient -= 1.0;
    }
    if quotient == 0.0 {
        return (0.0_f64.copysign(a / b), rest);
    }
    let floor = quotient.floor();
    (if quotient - floor > 0.5 { floor + 1.0 } else { floor }, rest)
}

/// `round(number, digits)`: to the nearest, of two equally near ones to the even.
pub(super) fn round(number: f64, digits: i64) -> f64 {
    if !number.is_finite() || digits > 300 {
        return number;
    }
    match usize::try_from(digits) {
        // Rust writes the nearest decimal of the exact value, as Python does.
        Ok(digits) => format!("{number:.digits$}").parse().unwrap_or(number),
        Err(_) => {
            let unit = 10f64.powi(i32::try_from(-digits).unwrap_or(i32::MAX));
            if unit.is_infinite() {
                0.0_f64.copysign(number)
            } else {
                (number / unit).round_ties_even() * unit
            }
        }
    }
}

/// The zeros of Unicode's decimal digits, each of which the other nine follow.
const ZEROS: [u32; 66] = [
    0x30, 0x660, 0x6F0, 0x7C0, 0x966, 0x9E6, 0xA66, 0xAE6, 0xB66, 0xBE6, 0xC66, 0xCE6, 0xD66, 0xDE6, 0xE50,
    0xED0, 0xF20, 0x1040, 0x1090, 0x17E0, 0x1810, 0x1946, 0x19D0, 0x1A80, 0x1A90, 0x1B50, 0x1BB0, 0x1C40,
    0x1C50, 0xA620, 0xA8D0, 0xA900, 0xA9D0, 0xA9F0, 0xAA50, 0xABF0, 0xFF10, 0x104A0, 0x10D30, 0x11066,
    0x110F0, 0x11136, 0x111D0, 0x112F0, 0x11450, 0x114D0, 0x11650, 0x116C0, 0x11730, 0x118E0, 0x11950,
    0x11C50, 0x11D50, 0x11DA0, 0x16A60, 0x16AC0, 0x16B50, 0x1D7CE, 0x1D7D8, 0x1D7E2, 0x1D7EC, 0x1D7F6,
    0x1E140, 0x1E2F0, 0x1E950, 0x1FBF0,
];

/// The value of a decimal digit of any script.
pub(super) fn decimal_digit(c: char) -> Option<u32> {
    let code = u32::from(c);
    let before = ZEROS.partition_point(|&zero| zero <= code).checked_sub(1)?;
    Some(code - ZEROS[before]).filter(|&digit| digit < 10)
}

/// A number's text with the digits of ASCII.
fn in_ascii(text: &str) -> String {
    let digit = |c| decimal_digit(c).and_then(|digit| char::from_digit(digit, 10)).unwrap_or(c);
    text.trim().chars().map(digit).collect()
}

/// `int(text, base)`.
pub(super) fn parse_integer(text: &str, base: i64) -> Option<i128> {
    let text = &in_ascii(text)[..];
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let prefix = digits.get(..2).map(str::to_ascii_lowercase);
    let named = match prefix.as_deref() {
        Some("0x") => Some(16),
        Some("0o") => Some(8),
        Some("0b") => Some(2),
        _ => None,
    };
    let (radix, digits) = match (base, named) {
        (0, Some(radix)) => (radix, &digits[2..]),
        (0, None) => (10, digits),
        (base, Some(radix)) if base == i64::from(radix) => (radix, &digits[2..]),
        _ => (u32::try_from(base).ok().filter(|base| (2..=36).contains(base))?, digits),
    };
    let digits = without_underscores(digits)?;
    if !digits.starts_with(|c: char| c.is_digit(radix)) {
        return None;
    }
    let sign = if negative { "-" } else { "" };
    i128::from_str_radix(&format!("{sign}{digits}"), radix).ok()
}

/// `float(text)`.
pub(super) fn parse_float(text: &str) -> Option<f64> {
    without_underscores(&in_ascii(text))?.parse().ok()
}

/// Single underscores may stand between digits.
fn without_underscores(text: &str) -> Option<String> {
    let is_wrong = text.starts_with('_') || text.ends_with('_') || text.contains("__");
    (!is_wrong).then(|| text.replace('_', ""))
}
