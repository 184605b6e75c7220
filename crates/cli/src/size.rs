//! Sizes in bytes, as people write them.

/// What a size may end with, in lower case, and the bytes of one.
const UNITS: [(&str, u64); 14] = [
    ("", 1),
    ("b", 1),
    ("k", 1 << 10),
    ("kib", 1 << 10),
    ("kb", 1000),
    ("m", 1 << 20),
    ("mib", 1 << 20),
    ("mb", 1_000_000),
    ("g", 1 << 30),
    ("gib", 1 << 30),
    ("gb", 1_000_000_000),
    ("t", 1 << 40),
    ("tib", 1 << 40),
    ("tb", 1_000_000_000_000),
];

/// Reads a number of bytes: `800000000`, `600MiB`, `1.5G`. K, M, G and T, alone or before iB, are powers of 1024;
/// kB, MB, GB and TB are powers of 1000; capitals make no difference. A fraction of a byte is dropped.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || "it must be a size, such as 4096, 600MiB or 1.5G".to_owned();
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    let name = text[number.len()..].trim_start().to_ascii_lowercase();
    let unit = UNITS.iter().find(|(unit, _)| *unit == name).ok_or_else(wrong)?.1;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let are_digits = |digits: &str| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    if !are_digits(whole) || !are_digits(fraction) {
        return Err(wrong());
    }
    let fraction: f64 = format!("0.{fraction}").parse().map_err(|_| wrong())?;
    let size = whole.parse::<u64>().ok().and_then(|whole| whole.checked_mul(unit));
    let size = size.and_then(|size| size.checked_add((fraction * unit as f64) as u64));
    size.ok_or_else(|| "it is more than any machine has".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_with_every_unit() {
        for (text, bytes) in [
            ("0", 0),
            ("800000000", 800_000_000),
            ("7B", 7),
            ("3K", 3 << 10),
            ("3kib", 3 << 10),
            ("3kB", 3000),
            ("600MiB", 600 << 20),
            ("600 M", 600 << 20),
            ("600MB", 600_000_000),
            ("1.5G", 3 << 29),
            ("1.5gb", 1_500_000_000),
            ("2GiB", 2 << 30),
            ("0.25TiB", 1 << 38),
            ("1TB", 1_000_000_000_000),
            ("1.9", 1),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for text in [
            "", " ", "G", "-1", "+1", "1e9", ".5G", "1.G", "1..5G", "1.5.5G", "0x10", "1GiBs", "1 2", "2Ki",
            "٣", "inf", "1é",
        ] {
            assert!(parse_size(text).is_err(), "{text:?}");
        }
        for text in ["18446744073709551616", "16777216TiB", "99999999999999999999G"] {
            assert!(parse_size(text).unwrap_err().contains("more than"), "{text}");
        }
    }
}
