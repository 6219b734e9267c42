//! Pure: what an unquoted YAML word means to Go's `yaml.v3`, and so to the docker CLI.
//!
//! It differs from other readers: `0777` is octal, `1_000` a number, a date becomes Go's text for
//! a time, and `yes` stays a word. Our parser has already recognised the plain cases; this covers
//! what it leaves as text.

use crate::value::Value;

/// The value of an unquoted word.
pub(crate) fn resolve(word: &str) -> Value {
    match word {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Value::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => {
            return Value::Float(f64::INFINITY);
        }
        "-.inf" | "-.Inf" | "-.INF" => return Value::Float(f64::NEG_INFINITY),
        _ => {}
    }
    if !word.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return Value::Str(word.to_owned());
    }
    if let Some(time) = time_text(word) {
        return Value::Str(time);
    }
    let plain = word.replace('_', "");
    if let Some(number) = integer(&plain) {
        return Value::Int(number);
    }
    match plain.parse::<f64>() {
        Ok(number) if is_float(&plain) => Value::Float(number),
        _ => Value::Str(word.to_owned()),
    }
}

/// An integer in Go's notation: `0x`, `0o`, `0b`, and a leading zero for octal.
fn integer(text: &str) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    if !digits.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return None;
    }
    let number = i128::from(u64::from_str_radix(digits, radix).ok()?);
    Some(if negative { -number } else { number })
}

/// Digits with at most one point and one exponent: what YAML calls a float.
fn is_float(text: &str) -> bool {
    let text = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent = exponent.map(|text| text.strip_prefix(['+', '-']).unwrap_or(text));
    digits(whole)
        && digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(|text| !text.is_empty() && digits(text))
}

/// A date, or a date and a time, as Go prints a `time.Time`.
fn time_text(word: &str) -> Option<String> {
    let (date, clock) = match word.split_once(['T', 't', ' ']) {
        Some((date, clock)) => (date, Some(clock)),
        None => (word, None),
    };
    let mut parts = date.split('-');
    let year = parts.next().filter(|year| year.len() == 4)?;
    let (year, month, day) = (number(year)?, number(parts.next()?)?, number(parts.next()?)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 => 28 + u32::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if parts.next().is_some() || !(1..=days).contains(&day) {
        return None;
    }
    let clock = match clock {
        None => "00:00:00 +0000 UTC".to_owned(),
        Some(clock) => clock_text(clock, word.contains(' '))?,
    };
    Some(format!("{year:04}-{month:02}-{day:02} {clock}"))
}

/// The part after the date. The form with a space has no zone; the others need one.
fn clock_text(clock: &str, spaced: bool) -> Option<String> {
    let zone_at = clock.find(['Z', '+', '-']).unwrap_or(clock.len());
    let (time, zone) = clock.split_at(zone_at);
    let zone = match zone {
        "" if spaced => "+0000 UTC".to_owned(),
        "Z" if !spaced => "+0000 UTC".to_owned(),
        _ if !spaced && zone.len() == 6 && zone.as_bytes()[3] == b':' => {
            let offset = zone.replace(':', "");
            number(&offset[1..])?;
            format!("{offset} {offset}")
        }
        _ => return None,
    };
    let (time, fraction) = time.split_once('.').unwrap_or((time, ""));
    let mut parts = time.split(':').map(number);
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    if parts.next().is_some() || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    if !fraction.bytes().all(|b| b.is_ascii_digit()) || fraction.len() > 9 {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    Some(format!("{hour:02}:{minute:02}:{second:02}{point}{fraction} {zone}"))
}

fn number(text: &str) -> Option<u32> {
    if text.is_empty() || text.len() > 4 || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_what_go_reads() {
        for (word, text) in [
            ("0777", "511"),
            ("0o17", "15"),
            ("0x1F", "31"),
            ("1_000", "1000"),
            ("1.50", "1.5"),
            ("1e3", "1000"),
            ("09", "9"),
            ("-0", "0"),
            ("+5", "5"),
            ("0b11", "3"),
            ("yes", "yes"),
            ("10:20", "10:20"),
            ("1.2.3", "1.2.3"),
            ("2020-01-02", "2020-01-02 00:00:00 +0000 UTC"),
            ("2020-01-02T03:04:05Z", "2020-01-02 03:04:05 +0000 UTC"),
            ("2020-01-02T03:04:05.50+02:00", "2020-01-02 03:04:05.5 +0200 +0200"),
            ("2020-13-02", "2020-13-02"),
            ("-", "-"),
            ("12345678901234567890", "12345678901234567890"),
        ] {
            assert_eq!(resolve(word).to_text(), text, "{word}");
        }
    }
}
