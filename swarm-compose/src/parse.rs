//! Reads YAML into the tree of [`value`](crate::value), and writes it. The only file that knows
//! which YAML library we use.
//!
//! A deserializer forgets what a stack file needs: the line of every key (for errors), and whether
//! a word was quoted (`"0777"` is text, `0777` the number 511). The library does know positions,
//! but reveals them in errors alone. So [`Reader`] takes every scalar by raising an error: the
//! scalar waits in a cell, the library adds the position, and the enclosing mapping or list, which
//! is already past the scalar, goes on. Merge keys and duplicate keys, which the library treats as
//! ordinary keys, are handled here too.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::path::Path;

use base64::Engine as _;
use serde::de::{self, DeserializeSeed, Deserializer, EnumAccess, VariantAccess, Visitor};
use serde::de::{MapAccess, SeqAccess};

use crate::error::{ComposeError, Place};
use crate::scalar;
use crate::value::{Mapping, Node, Value};

/// Reads the first document of a stack file. Its top level is a mapping.
pub(crate) fn parse(file: &Path, source: &str) -> Result<Node, ComposeError> {
    let error =
        |line, problem: String| Err(ComposeError::Yaml { place: Place::new(file, line), problem });
    let lines = source.strip_prefix('\u{feff}').unwrap_or(source).lines().collect();
    let reader = Reader {
        depth: Cell::new(0),
        lines,
        scalar: RefCell::default(),
        problems: RefCell::default(),
    };
    let not_a_mapping = "top-level object must be a mapping";
    let Some(document) = serde_yaml::Deserializer::from_str(source).next() else {
        return error(1, not_a_mapping.to_owned());
    };
    let tree = match NodeSeed(&reader).deserialize(document) {
        Ok(value) => value,
        Err(_) if reader.scalar.borrow().is_some() => Value::Null,
        Err(problem) => {
            let line = problem.location().map_or(0, |at| at.line());
            return error(line, syntax_error(&problem.to_string()));
        }
    };
    let mut problems = reader.problems.into_inner();
    problems.sort_by_key(|problem| problem.line());
    if problems.iter().any(|problem| matches!(problem, Problem::Duplicate { .. })) {
        problems.retain(|problem| matches!(problem, Problem::Duplicate { .. }));
        let lines: Vec<_> = problems.iter().map(|problem| format!("  {problem}")).collect();
        let text = format!("yaml: unmarshal errors:\n{}", lines.join("\n"));
        return error(problems[0].line(), text);
    }
    if let Some(problem) = problems.first() {
        return error(problem.line(), problem.to_string());
    }
    match tree {
        Value::Map(_) => Ok(Node::new(1, tree)),
        _ => error(1, not_a_mapping.to_owned()),
    }
}

/// Writes any data as YAML.
pub(crate) fn to_yaml<T: serde::Serialize>(data: &T) -> Result<String, String> {
    serde_yaml::to_string(data).map_err(|error| error.to_string())
}

/// The library's message in the form in which Go's library gives it. Go counts lines from 0 in
/// the grammar and from 1 in the scanner, and prefers the line where the construct began.
fn syntax_error(message: &str) -> String {
    let (problem, context) = message.split_once(", while ").unwrap_or((message, ""));
    let (text, at) = problem.split_once(" at line ").unwrap_or((problem, ""));
    let at = context.split_once(" at line ").map_or(at, |(_, at)| at);
    let line = at.split(' ').next().and_then(|line| line.parse::<usize>().ok()).unwrap_or(0);
    let scanner = context.starts_with("scanning") || text.contains("token");
    match if scanner { line } else { line.saturating_sub(1) } {
        0 => format!("yaml: {text}"),
        line => format!("yaml: line {line}: {text}"),
    }
}

/// A mistake that does not stop the reading, so that all of a kind are reported together.
#[derive(Debug)]
enum Problem {
    Duplicate { key: String, line: usize, first: usize },
    NotText { key: String, line: usize, top: bool },
    BadMerge { line: usize },
}

impl Problem {
    const fn line(&self) -> usize {
        match self {
            Self::Duplicate { line, .. } | Self::NotText { line, .. } | Self::BadMerge { line } => {
                *line
            }
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Duplicate { key, line, first } => {
                write!(f, "line {line}: mapping key {key:?} already defined at line {first}")
            }
            Self::NotText { key, top, .. } => {
                let consequence = match top {
                    true => "top-level object must be a mapping",
                    false => "json: unsupported type: map[interface {}]interface {}",
                };
                write!(f, "key {key} is not a string; quote it: {consequence}")
            }
            Self::BadMerge { .. } => {
                f.write_str("yaml: map merge requires map or sequence of maps as the value")
            }
        }
    }
}

/// What the visitors share: the text, the scalar on its way up, the mistakes so far.
struct Reader<'s> {
    depth: Cell<usize>,
    lines: Vec<&'s str>,
    scalar: RefCell<Option<Value>>,
    problems: RefCell<Vec<Problem>>,
}

/// How a scalar stands in the text.
enum Style {
    Plain,
    Quoted,
    Binary,
}

impl Reader<'_> {
    /// Sends a scalar up, to come back from [`Reader::take`] with its position.
    fn send<T, E: de::Error>(&self, value: Value) -> Result<T, E> {
        self.scalar.replace(Some(value));
        Err(E::custom(""))
    }

    /// Takes the scalar that `error` carries, with its line; gives the error back if it is real.
    fn take<E: de::Error>(&self, error: E) -> Result<Node, E> {
        let Some(value) = self.scalar.take() else { return Err(error) };
        // The library writes no position at the very beginning.
        let message = error.to_string();
        let at = message.rsplit_once(" at line ").and_then(|(_, at)| at.split_once(" column "));
        let (line, column) = at.map_or((1, 1), |(line, column)| {
            (line.parse().unwrap_or(1), column.parse().unwrap_or(1))
        });
        let value = match value {
            Value::Str(text) => match self.style(line, column) {
                Style::Plain => scalar::resolve(&text),
                Style::Quoted => Value::Str(text),
                Style::Binary => Value::Str(decode(&text)),
            },
            value => value,
        };
        Ok(Node::new(line, value))
    }

    /// The style of the scalar at a position, which may begin with an anchor or a tag.
    fn style(&self, line: usize, column: usize) -> Style {
        let rest = self.lines.get(line - 1).copied().unwrap_or_default();
        let mut rest = rest.char_indices().nth(column - 1).map_or("", |(at, _)| &rest[at..]);
        if rest.starts_with('&') {
            rest = rest.split_once(char::is_whitespace).map_or("", |(_, rest)| rest.trim_start());
        }
        match rest.chars().next() {
            Some('!') if rest.starts_with("!!binary") => Style::Binary,
            Some('\'' | '"' | '|' | '>' | '!') => Style::Quoted,
            _ => Style::Plain,
        }
    }

    /// A mapping from its entries in order: refuses duplicates, applies merge keys.
    fn mapping(&self, entries: Vec<(Node, Node)>) -> Value {
        let mut seen = BTreeMap::new();
        let mut map = Mapping::new();
        let mut merge = None;
        for (key, value) in entries {
            let line = key.line;
            // An unquoted `<<` is a merge key, and still a key that may stand only once.
            let text = key.value.to_text();
            if let Some(first) = seen.insert(text.clone(), line) {
                self.problems.borrow_mut().push(Problem::Duplicate { key: text, line, first });
            } else if matches!(key.value, Value::Str(_)) {
                let value = Node::new(line, value.value);
                match text.as_str() {
                    "<<" => merge = Some(value),
                    _ => drop(map.insert(text, value)),
                }
            } else {
                self.problems.borrow_mut().push(Problem::NotText {
                    key: text,
                    line,
                    top: self.depth.get() == 0,
                });
            }
        }
        if let Some(merge) = merge {
            self.merge(&mut map, merge);
        }
        Value::Map(map)
    }

    /// Adds what `source` has and `map` lacks. Of several sources the first wins.
    fn merge(&self, map: &mut Mapping, source: Node) {
        match source.value {
            Value::Map(entries) => {
                for (key, value) in entries {
                    map.entry(key).or_insert(value);
                }
            }
            Value::List(sources) if sources.iter().all(|item| item.value.as_map().is_some()) => {
                sources.into_iter().for_each(|source| self.merge(map, source));
            }
            _ => self.problems.borrow_mut().push(Problem::BadMerge { line: source.line }),
        }
    }
}

/// The text that a `!!binary` scalar holds; as it stands if it holds none.
fn decode(text: &str) -> String {
    let packed: String = text.split_whitespace().collect();
    let bytes = base64::engine::general_purpose::STANDARD.decode(packed).unwrap_or_default();
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

/// Reads any value.
#[derive(Clone, Copy)]
struct NodeSeed<'r, 's>(&'r Reader<'s>);

impl<'de> DeserializeSeed<'de> for NodeSeed<'_, '_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// Reads a key, which must be a scalar, and so never comes as a value.
#[derive(Clone, Copy)]
struct KeySeed<'r, 's>(&'r Reader<'s>);

impl<'de> DeserializeSeed<'de> for KeySeed<'_, '_> {
    type Value = Infallible;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Infallible, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for KeySeed<'_, '_> {
    type Value = Infallible;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a scalar key")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<Infallible, E> {
        self.0.send(Value::Str(key.to_owned()))
    }
}

impl<'de> Visitor<'de> for NodeSeed<'_, '_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
        self.0.send(Value::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        self.0.send(Value::Int(value.into()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        self.0.send(Value::Int(value.into()))
    }

    fn visit_i128<E: de::Error>(self, value: i128) -> Result<Value, E> {
        self.0.send(Value::Float(value as f64))
    }

    fn visit_u128<E: de::Error>(self, value: u128) -> Result<Value, E> {
        self.0.send(Value::Float(value as f64))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        self.0.send(Value::Float(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Value, E> {
        self.0.send(Value::Str(value.to_owned()))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        self.0.send(Value::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Value, E> {
        self.0.send(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            match items.next_element_seed(self) {
                Ok(None) => return Ok(Value::List(list)),
                Ok(Some(value)) => {
                    let line = first_line(&value);
                    list.push(Node::new(line, value));
                }
                Err(error) => list.push(self.0.take(error)?),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let (known, depth) = (self.0.problems.borrow().len(), self.0.depth.get());
        self.0.depth.set(depth + 1);
        let mut entries = Vec::new();
        loop {
            let key = match map.next_key_seed(KeySeed(self.0)) {
                Ok(None) => break,
                Ok(Some(never)) => match never {},
                Err(error) => self.0.take(error)?,
            };
            let value = match map.next_value_seed(self) {
                Ok(value) => Node::new(key.line, value),
                Err(error) => self.0.take(error)?,
            };
            entries.push((key, value));
        }
        self.0.depth.set(depth);
        let inner = self.0.problems.borrow().len();
        let value = self.0.mapping(entries);
        // Go does not look into a mapping that has duplicate keys: its own problems replace those.
        if self.0.problems.borrow().len() > inner {
            self.0.problems.borrow_mut().drain(known..inner);
        }
        Ok(value)
    }

    /// An application's tag: ignored on collections, and it makes a scalar text.
    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<Value, A::Error> {
        let (_tag, content) = data.variant::<String>()?;
        content.newtype_variant_seed(self).inspect_err(|_| {
            let mut scalar = self.0.scalar.borrow_mut();
            if let Some(value) = scalar.take() {
                let text = if value == Value::Null { "null".to_owned() } else { value.to_text() };
                *scalar = Some(Value::Str(text));
            }
        })
    }
}

/// The line where a collection's content begins.
fn first_line(value: &Value) -> usize {
    match value {
        Value::Map(map) => map.values().map(|node| node.line).min().unwrap_or(0),
        Value::List(list) => list.first().map_or(0, |node| node.line),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(source: &str) -> Result<Node, String> {
        parse(Path::new("s.yml"), source).map_err(|error| error.to_string())
    }

    fn text(source: &str, path: &[&str]) -> String {
        let mut node = &read(source).expect(source);
        for key in path {
            node = node.get(key).unwrap_or_else(|| panic!("{key} in {source}"));
        }
        node.value.to_text()
    }

    #[test]
    fn quoted_words_stay_text_and_plain_ones_do_not() {
        let source = "a: {b: 0777, c: '0777', d: &x \"0777\", e: !!str 0777, f: *x, g: !t 7}";
        let tree = read(source).unwrap();
        let value = |key| tree.get("a").unwrap().get(key).unwrap().value.clone();
        assert_eq!(value("b"), Value::Int(511));
        for key in ["c", "d", "e", "f"] {
            assert_eq!(value(key), Value::Str("0777".to_owned()), "{key}");
        }
        assert_eq!(value("g"), Value::Str("7".to_owned()));
    }

    #[test]
    fn every_key_knows_its_line() {
        let tree = read("a:\n  b: 1\n\n  c:\n    - x\n    - y: 1\n").unwrap();
        let a = tree.get("a").unwrap();
        assert_eq!((a.line, a.get("b").unwrap().line), (1, 2));
        let c = a.get("c").unwrap();
        assert_eq!(c.line, 4);
        let Value::List(items) = &c.value else { panic!("{c:?}") };
        assert_eq!((items[0].line, items[1].line), (5, 6));
    }

    #[test]
    fn merge_keys_fill_in_and_the_first_source_wins() {
        let source = "x: &x {a: 1, b: 1}\ny: &y {b: 2, c: 2}\nz: {<<: [*x, *y], a: 3}\n";
        assert_eq!(text(source, &["z"]), "map[a:3 b:1 c:2]");
        let error = read("z: {<<: 1}").unwrap_err();
        assert!(error.starts_with("s.yml:1: yaml: map merge requires"), "{error}");
    }

    #[test]
    fn duplicate_keys_are_all_reported() {
        let error = read("a: 1\nb:\n  c: 1\n  c: 2\na: 3\n").unwrap_err();
        assert_eq!(
            error,
            "s.yml:5: yaml: unmarshal errors:\n  line 5: mapping key \"a\" already defined at line 1"
        );
    }

    #[test]
    fn keys_must_be_text() {
        let error = read("a:\n  1: x\n").unwrap_err();
        assert!(error.starts_with("s.yml:2: key 1 is not a string"), "{error}");
        assert!(read("a:\n  '1': x\n  on: y\n").is_ok());
    }

    #[test]
    fn what_is_not_yaml_is_refused_with_its_line() {
        let error = read("services:\n\ta: {}\n").unwrap_err();
        assert!(error.starts_with("s.yml:2: yaml: line 2: found character"), "{error}");
        for source in ["", "- a", "text", "&a [*a]"] {
            assert!(read(source).is_err(), "{source:?}");
        }
    }

    #[test]
    fn alias_bombs_are_refused() {
        let mut source = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let alias = format!("*a{}, ", level - 1).repeat(10);
            source += &format!("a{level}: &a{level} [{alias}]\n");
        }
        assert!(read(&source).is_err());
    }
}
