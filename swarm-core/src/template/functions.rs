//! Pure: the functions that templates can call: Go's own, `join`, and for secrets and configs
//! `secret`, `config` and `env` (SwarmKit: `template/context.go`).

use std::cmp::Ordering;

use zeroize::Zeroizing;

use super::eval::{Bytes, Value, is_true, kind, printed};
use super::{Functions, Problem};

/// Calls a function. Arguments come in order, what a pipeline hands on last.
pub(super) fn call<'a>(
    name: &str,
    args: Vec<Value<'a>>,
    functions: Option<&'a Functions<'a>>,
) -> Result<Value<'a>, Problem> {
    match (name, functions) {
        ("secret" | "config" | "env", None) => Err(undefined(name)),
        ("secret", Some(functions)) => {
            let target = only_text(name, &args)?;
            let bytes = functions.secrets.iter().find(|(known, _)| **known == *target);
            let bytes = bytes.map(|(_, bytes)| bytes.expose().to_vec());
            bytes
                .map(|bytes| Value::Text(Zeroizing::new(bytes)))
                .ok_or_else(|| absent(name, &target))
        }
        ("config", Some(functions)) => {
            let target = only_text(name, &args)?;
            let bytes = functions.configs.iter().find(|(known, _)| **known == *target);
            let bytes = bytes.map(|(_, bytes)| bytes.0.to_vec());
            bytes
                .map(|bytes| Value::Text(Zeroizing::new(bytes)))
                .ok_or_else(|| absent(name, &target))
        }
        ("env", Some(functions)) => {
            let wanted = only_text(name, &args)?;
            let pairs = functions.env.iter().filter_map(|entry| entry.split_once('='));
            let value = pairs.into_iter().find(|(known, _)| *known == wanted);
            Ok(super::eval::text(value.map_or("", |(_, value)| value)))
        }
        _ => plain(name, args),
    }
}

fn undefined(name: &str) -> Problem {
    format!("function {name:?} not defined").into()
}

fn absent(kind: &str, target: &str) -> Problem {
    format!("{kind} target {target} not found").into()
}

fn plain<'a>(name: &str, mut args: Vec<Value<'a>>) -> Result<Value<'a>, Problem> {
    match name {
        "join" => join(&args),
        "index" => index(&args),
        "len" => match &args[..] {
            [Value::Text(text)] => count(text.len()),
            [Value::Labels(labels)] => count(labels.len()),
            [other] => Err(format!("len of {}", kind(other)).into()),
            _ => Err(wrong_number(name)),
        },
        "not" => match &args[..] {
            [value] => Ok(Value::Bool(!is_true(value))),
            _ => Err(wrong_number(name)),
        },
        "and" | "or" => {
            let decides = |value: &Value<'_>| is_true(value) == (name == "or");
            let at = args.iter().position(decides).unwrap_or(args.len().saturating_sub(1));
            if args.is_empty() { Err(wrong_number(name)) } else { Ok(args.swap_remove(at)) }
        }
        "eq" | "ne" | "lt" | "le" | "gt" | "ge" => compare(name, &args).map(Value::Bool),
        "print" | "println" => print(&args, name == "println"),
        "printf" => printf(&args),
        "html" | "js" | "urlquery" => escape(name, &args),
        "slice" => slice(&args),
        // Nothing that templates see can be called.
        "call" => Err("call of what is no function".into()),
        _ => Err(undefined(name)),
    }
}

fn wrong_number(name: &str) -> Problem {
    format!("wrong number of args for {name}").into()
}

fn count<'a>(number: usize) -> Result<Value<'a>, Problem> {
    Ok(Value::Int(i64::try_from(number).unwrap_or(i64::MAX)))
}

fn only_text(name: &str, args: &[Value<'_>]) -> Result<String, Problem> {
    match args {
        [Value::Text(text)] => Ok(String::from_utf8_lossy(text).into_owned()),
        [other] => {
            Err(format!("wrong type for value; expected string; got {}", kind(other)).into())
        }
        _ => Err(wrong_number(name)),
    }
}

fn join<'a>(args: &[Value<'_>]) -> Result<Value<'a>, Problem> {
    let texts = args.iter().map(|arg| match arg {
        Value::Text(text) => Ok(text.as_slice()),
        other => Err(format!("wrong type for value; expected string; got {}", kind(other)).into()),
    });
    let texts = texts.collect::<Result<Vec<_>, Problem>>()?;
    let (separator, parts) = texts.split_first().ok_or_else(|| wrong_number("join"))?;
    Ok(Value::Text(Zeroizing::new(parts.join(*separator))))
}

fn index<'a>(args: &[Value<'a>]) -> Result<Value<'a>, Problem> {
    match args {
        [value] => Ok(value.clone()),
        // As in Go, `index` answers an absent key with the empty text.
        [Value::Labels(labels), Value::Text(key)] => {
            let key = std::str::from_utf8(key).unwrap_or_default();
            Ok(super::eval::text(labels.get(key).map_or("", String::as_str)))
        }
        [Value::Labels(_), other] => Err(format!("cannot index map with {}", kind(other)).into()),
        [other, ..] => Err(format!("can't index item of {}", kind(other)).into()),
        [] => Err(wrong_number("index")),
    }
}

/// The arguments printed one after the other, for use inside another language.
fn escape<'a>(name: &str, args: &[Value<'_>]) -> Result<Value<'a>, Problem> {
    let Value::Text(plain) = print(args, false)? else { return Err(wrong_number(name)) };
    let plain = String::from_utf8_lossy(&plain);
    let mut out = Zeroizing::new(String::with_capacity(plain.len()));
    for c in plain.chars() {
        match (name, c) {
            ("html", '"') => out.push_str("&#34;"),
            ("html", '\'') => out.push_str("&#39;"),
            ("html", '&') => out.push_str("&amp;"),
            ("html", '<') => out.push_str("&lt;"),
            ("html", '>') => out.push_str("&gt;"),
            ("html", '\0') => out.push('\u{fffd}'),
            ("js", '\\' | '"' | '\'') => out.extend(['\\', c]),
            ("js", '<' | '>' | '&' | '=') => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            ("js", c) if c < ' ' => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            ("urlquery", ' ') => out.push('+'),
            ("urlquery", c) if !(c.is_ascii_alphanumeric() || "-_.~".contains(c)) => {
                let mut bytes = [0; 4];
                for byte in c.encode_utf8(&mut bytes).bytes() {
                    out.push_str(&format!("%{byte:02X}"));
                }
            }
            _ => out.push(c),
        }
    }
    Ok(super::eval::text(&out))
}

/// `slice TEXT FROM TO`, in bytes; what is left out is the beginning or the end.
fn slice<'a>(args: &[Value<'_>]) -> Result<Value<'a>, Problem> {
    let Some((Value::Text(text), bounds)) = args.split_first() else {
        return Err("can't slice what is no string".into());
    };
    let bound = |at: usize, default: usize| match bounds.get(at) {
        None => Ok(default),
        Some(Value::Int(number)) => usize::try_from(*number)
            .ok()
            .filter(|number| *number <= text.len())
            .ok_or_else(|| Problem::from(format!("index out of range: {number}"))),
        Some(other) => Err(format!("cannot index slice/array with {}", kind(other)).into()),
    };
    if bounds.len() > 2 {
        return Err("cannot 3-index slice a string".into());
    }
    let (from, to) = (bound(0, 0)?, bound(1, text.len())?);
    let part = text.get(from..to).ok_or_else(|| format!("invalid slice index: {from} > {to}"))?;
    Ok(Value::Text(Zeroizing::new(part.to_vec())))
}

fn compare(name: &str, args: &[Value<'_>]) -> Result<bool, Problem> {
    let Some((first, others)) = args.split_first().filter(|(_, others)| !others.is_empty()) else {
        return Err("missing argument for comparison".into());
    };
    if name != "eq" && others.len() > 1 {
        return Err(wrong_number(name));
    }
    for other in others {
        let order = match (first, other) {
            (Value::Text(a), Value::Text(b)) => a.as_slice().cmp(b.as_slice()),
            (Value::Int(a), Value::Int(b)) => a.cmp(b),
            (Value::Bool(a), Value::Bool(b)) if matches!(name, "eq" | "ne") => a.cmp(b),
            _ => return Err("incompatible types for comparison".into()),
        };
        let holds = match name {
            "eq" => order == Ordering::Equal,
            "ne" => order != Ordering::Equal,
            "lt" => order == Ordering::Less,
            "le" => order != Ordering::Greater,
            "gt" => order == Ordering::Greater,
            _ => order != Ordering::Less,
        };
        if holds {
            return Ok(true);
        }
    }
    Ok(false)
}

fn print<'a>(args: &[Value<'_>], line: bool) -> Result<Value<'a>, Problem> {
    let mut pieces: Vec<Bytes> = Vec::new();
    for (at, value) in args.iter().enumerate() {
        // Without a line, Go puts a space between two values of which neither is a text.
        let is_text = |at: usize| matches!(args[at], Value::Text(_));
        if at > 0 && (line || (!is_text(at) && !is_text(at - 1))) {
            pieces.push(Zeroizing::new(vec![b' ']));
        }
        pieces.push(printed(value)?);
    }
    if line {
        pieces.push(Zeroizing::new(vec![b'\n']));
    }
    Ok(Value::Text(whole(&pieces)))
}

fn whole(pieces: &[Bytes]) -> Bytes {
    let size = pieces.iter().map(|piece| piece.len()).sum();
    let mut whole = Zeroizing::new(Vec::with_capacity(size));
    pieces.iter().for_each(|piece| whole.extend_from_slice(piece));
    whole
}

/// `printf` with the verbs `%s`, `%v`, `%d`, `%q`, `%t` and `%%`.
fn printf<'a>(args: &[Value<'_>]) -> Result<Value<'a>, Problem> {
    let Some((Value::Text(format), args)) = args.split_first() else {
        return Err(wrong_number("printf"));
    };
    let format = String::from_utf8_lossy(format).into_owned();
    let mut args = args.iter();
    let mut pieces: Vec<Bytes> = Vec::new();
    let mut rest = format.as_str();
    while let Some((before, after)) = rest.split_once('%') {
        pieces.push(Zeroizing::new(before.as_bytes().to_vec()));
        let verb = after.chars().next().unwrap_or(' ');
        rest = &after[verb.len_utf8().min(after.len())..];
        if verb == '%' {
            pieces.push(Zeroizing::new(vec![b'%']));
            continue;
        }
        let value = args.next().ok_or_else(|| format!("printf: no value for %{verb}"))?;
        let fits = match verb {
            'v' => true,
            's' | 'q' => matches!(value, Value::Text(_)),
            'd' => matches!(value, Value::Int(_)),
            't' => matches!(value, Value::Bool(_)),
            _ => return Err(format!("printf: %{verb} is not supported").into()),
        };
        if !fits {
            return Err(format!("printf: %{verb} does not print {}", kind(value)).into());
        }
        let text = printed(value)?;
        pieces.push(match verb {
            'q' => Zeroizing::new(format!("{:?}", String::from_utf8_lossy(&text)).into_bytes()),
            _ => text,
        });
    }
    if args.next().is_some() {
        return Err("printf: more values than verbs".into());
    }
    pieces.push(Zeroizing::new(rest.as_bytes().to_vec()));
    Ok(Value::Text(whole(&pieces)))
}
