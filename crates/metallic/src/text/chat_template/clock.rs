//! `strftime_now(format)`: the time that a template writes, as C's library does in its own language.

use jiff::civil::DateTime;
use jiff::fmt::strtime;
use minijinja::value::{Kwargs, Rest};
use minijinja::{Error, Value};

use super::arguments::{Arguments, type_error};

/// The function, at a time.
pub(super) fn strftime(now: DateTime) -> Value {
    Value::from_function(move |by_place: Rest<Value>, by_name: Kwargs| {
        let arguments = Arguments::bind("strftime_now", &["format"], &by_place, &by_name)?;
        write(arguments.text(0)?, now)
    })
}

fn write(format: &str, now: DateTime) -> Result<String, Error> {
    let (mut out, mut rest) = (String::new(), format);
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let n_flags = rest.find(|c| !"-_0^#".contains(c)).unwrap_or(rest.len());
        let n_digits = rest[n_flags..].find(|c: char| !c.is_ascii_digit());
        let (flags, after) = rest.split_at(n_digits.map_or(rest.len(), |n| n_flags + n));
        let Some(mut kind) = after.chars().next() else {
            out.push('%');
            out.push_str(flags);
            return Ok(out);
        };
        rest = &after[kind.len_utf8()..];
        // Years of an era and other digits: a language that has none writes the usual ones.
        let of_other = match kind {
            'E' => "cCxXyY",
            'O' => "deHImMSuUVwWy",
            _ => "",
        };
        if let Some(other) = rest.chars().next().filter(|other| of_other.contains(*other)) {
            kind = other;
            rest = &rest[1..];
        }
        out.push_str(&match kind {
            // A time of the place has no zone to name.
            'z' | 'Z' => String::new(),
            '%' => "%".to_owned(),
            'f' => format!("{:06}", now.subsec_nanosecond() / 1000),
            'c' => write("%a %b %e %H:%M:%S %Y", now)?,
            'x' => write("%m/%d/%y", now)?,
            'X' => write("%H:%M:%S", now)?,
            'r' => write("%I:%M:%S %p", now)?,
            'h' => write(&format!("%{flags}b"), now)?,
            _ if "aAbBCdDeFgGHIjklmMnpPRsStTuUVwWyY".contains(kind) => {
                strtime::format(format!("%{flags}{kind}"), now)
                    .map_err(|error| type_error(format!("strftime_now: {error}")))?
            }
            // What C does not know stays as it is.
            _ => format!("%{flags}{kind}"),
        });
    }
    Ok(out + rest)
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_are_written_as_in_c() {
        let now = "2026-01-02T03:04:05.678901".parse().expect("a time");
        for (format, expected) in [
            ("%d %b %Y, %H:%M:%S %A %-d", "02 Jan 2026, 03:04:05 Friday 2"),
            ("%c|%x|%X|%r", "Fri Jan  2 03:04:05 2026|01/02/26|03:04:05|03:04:05 AM"),
            ("%z%Z%%%f %j %U %W %V %G %u %w %y %e", "%678901 002 00 00 01 2026 5 5 26  2"),
            ("%! 100%", "%! 100%"),
            ("%5Y|%Ey|%Od|%OH|%_5d|%05e|%3S|%Ed|%E", "02026|26|02|03|    2|00002|005|%Ed|%E"),
        ] {
            assert_eq!(super::write(format, now).expect(format), expected, "{format}");
        }
    }
}
