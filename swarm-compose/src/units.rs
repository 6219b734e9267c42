//! Pure: reads and writes durations, sizes and CPU shares as Go and the docker CLI do.

/// Nanoseconds of one unit of a duration.
const UNITS: [(&str, f64); 8] = [
    ("ns", 1.0),
    ("us", 1e3),
    ("µs", 1e3),
    ("μs", 1e3),
    ("ms", 1e6),
    ("s", 1e9),
    ("m", 60e9),
    ("h", 3600e9),
];

/// Go's `time.ParseDuration`: `1h2m3.5s`, a sign, or a bare `0`. In nanoseconds.
pub(crate) fn parse_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
            return None;
        }
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        total = total.checked_add(whole.checked_mul(*scale as i128)?)?;
        if !fraction.is_empty() {
            // Exact for everything that a nanosecond can tell.
            let part: f64 = format!("0.{fraction}").parse().ok()?;
            total += (part * scale) as i128;
        }
        rest = tail;
    }
    i64::try_from(if negative { -total } else { total }).ok()
}

/// Go's `time.Duration.String`: `1h2m3.5s`, `1.5ms`, `0s`.
pub(crate) fn duration_text(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let nanos = nanos.unsigned_abs();
    let decimal = |value: u64, scale: u64| {
        let digits = scale.ilog10() as usize;
        let fraction = format!("{:0digits$}", value % scale);
        let fraction = fraction.trim_end_matches('0');
        let point = if fraction.is_empty() || scale == 1 { "" } else { "." };
        let fraction = if scale == 1 { "" } else { fraction };
        format!("{}{point}{fraction}", value / scale)
    };
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{sign}{nanos}ns"),
        1_000..1_000_000 => format!("{sign}{}µs", decimal(nanos, 1_000)),
        1_000_000..1_000_000_000 => format!("{sign}{}ms", decimal(nanos, 1_000_000)),
        _ => {
            let minutes = nanos / 60_000_000_000;
            let seconds = decimal(nanos % 60_000_000_000, 1_000_000_000);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{sign}{seconds}s"),
                (0, minutes) => format!("{sign}{minutes}m{seconds}s"),
                (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

/// A size in bytes: `50M`, `1.5 GiB`, `100`. Units are powers of 1024 in any case.
pub(crate) fn parse_bytes(text: &str) -> Result<i64, String> {
    let invalid = || format!("invalid size: '{text}'");
    let last =
        text.rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ').ok_or_else(invalid)?;
    let (number, suffix) = text.split_at(last + 1);
    let number = number.strip_suffix(' ').unwrap_or(number);
    let size: f64 = number
        .parse()
        .map_err(|_| format!("strconv.ParseFloat: parsing {number:?}: invalid syntax"))?;
    if size < 0.0 {
        return Err(invalid());
    }
    let suffix = suffix.to_lowercase();
    let bad_suffix = || format!("invalid suffix: '{suffix}'");
    let mut letters = suffix.chars();
    let power = match letters.next() {
        None => return Ok(size as i64),
        Some('b') if suffix.len() == 1 => return Ok(size as i64),
        Some(letter) => "kmgtp".find(letter).ok_or_else(bad_suffix)?,
    };
    match letters.as_str() {
        "" | "b" | "ib" => Ok((size * 1024_f64.powi(power as i32 + 1)) as i64),
        _ => Err(bad_suffix()),
    }
}

/// CPU shares in billionths, exactly: `0.5`, `1e-3`, `1/4`. More than nine decimals are refused.
pub(crate) fn parse_cpus(text: &str) -> Result<i64, String> {
    let invalid = || format!("failed to parse {text} as a rational number");
    let (top, bottom) = match text.split_once('/') {
        Some((top, bottom)) => {
            let whole = |part: &str| part.parse::<i128>().map_err(|_| invalid());
            (whole(top)?, whole(bottom)?)
        }
        None => decimal(text).ok_or_else(invalid)?,
    };
    if bottom == 0 {
        return Err(invalid());
    }
    let nano = top.checked_mul(1_000_000_000).ok_or_else(invalid)?;
    if nano % bottom != 0 {
        return Err("value is too precise".to_owned());
    }
    i64::try_from(nano / bottom).map_err(|_| invalid())
}

/// A decimal number with an optional exponent, as a fraction.
fn decimal(text: &str) -> Option<(i128, i128)> {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let unsigned = whole.strip_prefix(['+', '-']).unwrap_or(whole);
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if !digits(unsigned) || !digits(fraction) || unsigned.is_empty() && fraction.is_empty() {
        return None;
    }
    let top: i128 = format!("{whole}{fraction}").parse().ok()?;
    let power = exponent.parse::<i32>().ok()?.checked_sub(fraction.len().try_into().ok()?)?;
    let scale = 10_i128.checked_pow(power.unsigned_abs())?;
    if power < 0 { Some((top, scale)) } else { Some((top.checked_mul(scale)?, 1)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        for (text, nanos) in [
            ("1h2m3s4ms5us6ns", Some(3_723_004_005_006)),
            ("1.5h", Some(5_400_000_000_000)),
            ("-5s", Some(-5_000_000_000)),
            ("0", Some(0)),
            (".5s", Some(500_000_000)),
            ("1µs", Some(1_000)),
            ("100", None),
            ("1d", None),
            ("5S", None),
            ("", None),
            ("s", None),
            (".s", None),
        ] {
            assert_eq!(parse_duration(text), nanos, "{text}");
        }
        for text in ["0s", "1h2m3.5s", "1m0s", "1h0m0s", "1.5ms", "100ns", "2.05µs", "-10s"] {
            assert_eq!(duration_text(parse_duration(text).unwrap()), text);
        }
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, bytes) in [
            ("100", 100),
            ("50M", 52_428_800),
            ("50mb", 52_428_800),
            ("1.5GiB", 1_610_612_736),
            ("1 k", 1024),
            ("7b", 7),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for (text, problem) in [
            ("", "invalid size: ''"),
            ("-1", "invalid size: '-1'"),
            ("5x", "invalid suffix: 'x'"),
            ("5bb", "invalid suffix: 'bb'"),
        ] {
            assert_eq!(parse_bytes(text), Err(problem.to_owned()), "{text}");
        }
    }

    #[test]
    fn cpus_are_rational() {
        for (text, nano) in [("0.5", 500_000_000), ("1e-3", 1_000_000), ("1/4", 250_000_000)] {
            assert_eq!(parse_cpus(text), Ok(nano), "{text}");
        }
        for text in ["", "1e", "1e99", "1e-2147483648", "1.5/2", "1/0", "170141183460469231731687"]
        {
            assert!(parse_cpus(text).is_err(), "{text}");
        }
        assert_eq!(parse_cpus("1/3"), Err("value is too precise".to_owned()));
        assert_eq!(parse_cpus("abc"), Err("failed to parse abc as a rational number".to_owned()));
    }
}
