//! Pure: the small words of a script's text: times, sizes, counts, quotes.

use std::time::Duration;

use crate::sim::script::Count;

const UNITS: [(&str, u128); 6] = [
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// The words of a line: a quoted one may hold spaces, and `#` begins a comment.
pub(super) fn split(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match letters.next() {
                        Some('"') => break,
                        Some('\\') => word.extend(letters.next()),
                        Some(letter) => word.push(letter),
                        None => return Err(format!("the quote of {word:?} does not end")),
                    }
                }
            }
            '#' if word.is_none() => break,
            space if space.is_whitespace() => words.extend(word.take()),
            letter => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    Ok(words)
}

/// A word as [`split`] reads it.
pub(super) fn quoted(word: &str) -> String {
    let plain = |letter: char| !letter.is_whitespace() && !matches!(letter, '"' | '\\' | '#');
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\"")),
    }
}

/// As Go writes durations, without the parts that are 0: `1m30s`, `250ms`, `0s`.
pub(super) fn duration_text(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let mut text = String::new();
    let (hours, minutes) = (nanos / UNITS[0].1, nanos % UNITS[0].1 / UNITS[1].1);
    let rest = nanos % UNITS[1].1;
    if hours > 0 {
        text += &format!("{hours}h");
    }
    if minutes > 0 {
        text += &format!("{minutes}m");
    }
    if rest > 0 || text.is_empty() {
        let small = (1..UNITS[2].1).contains(&rest) && text.is_empty();
        let (unit, size) = UNITS[if small { 3 } else { 2 }];
        text += &format!("{}{unit}", decimal_text(rest, size));
    }
    text
}

pub(super) fn duration(word: &str) -> Result<Duration, String> {
    let wrong = || format!("{word:?} is no time: write 90s, 1m30s or 250ms");
    let mut rest = word;
    let mut nanos = 0_u128;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, after) = rest.split_at(number);
        let unit = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let (_, size) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        nanos += decimal(number, *size).ok_or_else(wrong)?;
        rest = after;
    }
    match u64::try_from(nanos) {
        Ok(nanos) if !word.is_empty() => Ok(Duration::from_nanos(nanos)),
        _ => Err(wrong()),
    }
}

/// So many `unit`s as a decimal number: `decimal_text(1500, 1000)` is `1.5`.
pub(super) fn decimal_text(amount: u128, unit: u128) -> String {
    let digits = unit.ilog10() as usize;
    let text = format!("{}.{:0digits$}", amount / unit, amount % unit);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// What [`decimal_text`] writes; absent where it is no number, or too fine for the unit.
pub(super) fn decimal(text: &str, unit: u128) -> Option<u128> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let mut amount = whole.parse::<u64>().ok().map(u128::from)? * unit;
    let mut place = unit;
    for digit in part.chars() {
        let exact = place.is_multiple_of(10);
        place /= 10;
        amount += u128::from(digit.to_digit(10).filter(|digit| exact || *digit == 0)?) * place;
    }
    Some(amount)
}

/// As Docker reads sizes: `64m`, `3g`.
pub(super) fn bytes_text(bytes: i64) -> String {
    for (shift, unit) in [(30, "g"), (20, "m"), (10, "k")] {
        if bytes != 0 && bytes % (1 << shift) == 0 {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    format!("{bytes}b")
}

pub(super) fn bytes(word: &str) -> Result<i64, String> {
    let digits = word.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &word[digits.len()..] {
        "" | "b" => Some(1),
        "k" => Some(1 << 10),
        "m" => Some(1 << 20),
        "g" => Some(1 << 30),
        _ => None,
    };
    let number = digits.parse::<i64>().ok();
    let bytes = unit.zip(number).and_then(|(unit, number)| number.checked_mul(unit));
    bytes.ok_or_else(|| format!("{word:?} is no size: write 64m or 3g"))
}

/// A number, or what can be read from one.
pub(super) fn number<T: std::str::FromStr>(word: &str) -> Result<T, String> {
    word.parse().map_err(|_| format!("{word:?} is not a number that fits here"))
}

/// `30%`.
pub(super) fn percent(word: &str) -> Result<u64, String> {
    let number = word.strip_suffix('%').and_then(|number| number.parse().ok());
    number
        .filter(|percent| *percent <= 100)
        .ok_or_else(|| format!("{word:?} is no share: write 30%"))
}

/// `4`, `3-5` or `3+`.
pub(super) fn count_text(count: Count) -> String {
    match count {
        Count { least, most } if least == most => least.to_string(),
        Count { least, most: u64::MAX } => format!("{least}+"),
        Count { least, most } => format!("{least}-{most}"),
    }
}

pub(super) fn count(word: &str) -> Result<Count, String> {
    let number = |digits: &str| digits.parse::<u64>().ok();
    let count = match (word.strip_suffix('+'), word.split_once('-')) {
        (Some(least), _) => number(least).map(|least| Count { least, most: u64::MAX }),
        (_, Some((least, most))) => {
            number(least).zip(number(most)).map(|(least, most)| Count { least, most })
        }
        _ => number(word).map(Count::from),
    };
    count.ok_or_else(|| format!("{word:?} is no count: write 4, 3-5 or 3+"))
}

/// `key=value`.
pub(super) fn pair(word: &str) -> Result<(&str, &str), String> {
    word.split_once('=').ok_or_else(|| format!("{word:?} lacks a `=`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_they_are_written() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "0.000001ms"),
            (250_000_000, "250ms"),
            (1_500_000_000, "1.5s"),
            (90_000_000_000, "1m30s"),
            (3_600_000_000_000, "1h"),
            (3_600_000_001_000, "1h0.000001s"),
            (3_723_004_000_000, "1h2m3.004s"),
        ] {
            let it = Duration::from_nanos(nanos);
            assert_eq!((duration_text(it).as_str(), duration(text)), (text, Ok(it)));
        }
        for wrong in ["", "5", "5 s", "s", "1.5.2s", "0.1ns", "5x", "-5s"] {
            assert!(duration(wrong).is_err(), "{wrong:?} is read as a time");
        }
    }

    #[test]
    fn sizes_and_decimals_are_read_as_they_are_written() {
        for (size, text) in [(0, "0b"), (5, "5b"), (64 << 20, "64m"), (3 << 30, "3g")] {
            assert_eq!((bytes_text(size).as_str(), bytes(text)), (text, Ok(size)));
        }
        assert_eq!(decimal_text(1_234, 1_000), "1.234");
        assert_eq!(decimal("1.2345", 1_000), None, "finer than the unit");
        assert!(bytes("64x").is_err() && bytes("m").is_err());
    }

    #[test]
    fn quotes_hold_spaces_and_a_hash_begins_a_comment() {
        let words = split(r#" a "b c" --d="e \"f\"" g#h # i"#).unwrap();
        assert_eq!(words, ["a", "b c", "--d=e \"f\"", "g#h"]);
        for word in ["", "plain", "two words", "\"", "a#b", "back\\slash"] {
            assert_eq!(split(&quoted(word)).unwrap(), [word]);
        }
        assert!(split("\"open").is_err());
    }

    #[test]
    fn counts_are_numbers_ranges_or_open() {
        for text in ["4", "3-5", "3+"] {
            assert_eq!(count_text(count(text).unwrap()), text);
        }
        assert!(count("many").is_err() && count("-3").is_err());
    }
}
