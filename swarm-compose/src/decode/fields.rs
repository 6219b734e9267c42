//! Pure: reads the members of a section. The schema has checked the types; what it cannot check
//! is collected as faults, in the docker CLI's words, which name the Go fields.

use std::cell::RefCell;

use crate::model::{Bytes, Duration, Table};
use crate::units;
use crate::value::{Mapping, Node, Value};

/// What could not be read.
#[derive(Debug, Default)]
pub(super) struct Faults(RefCell<Vec<String>>);

impl Faults {
    pub(super) fn add(&self, fault: String) {
        self.0.borrow_mut().push(fault);
    }

    /// Keeps a value, or the fault that stands for it.
    pub(super) fn keep<T: Default>(&self, field: &str, result: Result<T, String>) -> T {
        result.unwrap_or_else(|problem| {
            self.add(format!("error decoding '{field}': {problem}"));
            T::default()
        })
    }

    /// All faults, one a line; nothing if there are none.
    pub(super) fn into_text(self) -> Option<String> {
        let mut faults = self.0.into_inner();
        faults.sort();
        (!faults.is_empty()).then(|| faults.join("\n"))
    }
}

/// The members of one mapping. A section that is missing or empty has none.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    map: Option<&'a Mapping>,
    path: &'a str,
    faults: &'a Faults,
}

impl<'a> Fields<'a> {
    /// `path` is the Go path of the section, with a dot at the end.
    pub(super) fn new(node: Option<&'a Node>, path: &'a str, faults: &'a Faults) -> Self {
        Self { map: node.and_then(|node| node.value.as_map()), path, faults }
    }

    /// The members of an item.
    pub(super) fn within(&self, item: &'a Node) -> Fields<'a> {
        Fields::new(Some(item), "", self.faults)
    }

    /// The same members under another path.
    pub(super) fn at<'b>(&self, path: &'b str) -> Fields<'b>
    where
        'a: 'b,
    {
        Fields { path, ..*self }
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a Node> {
        self.map?.get(key).filter(|node| node.value != Value::Null)
    }

    pub(super) fn section(&self, key: &str, path: &'a str) -> Fields<'a> {
        Fields::new(self.get(key), path, self.faults)
    }

    /// A section that may be there and empty.
    pub(super) fn optional<T>(
        &self,
        key: &str,
        path: &'a str,
        read: impl FnOnce(Fields<'a>) -> T,
    ) -> Option<T> {
        let node = self.get(key)?;
        Some(read(Fields::new(Some(node), path, self.faults)))
    }

    pub(super) fn items(&self, key: &str) -> &'a [Node] {
        match self.get(key).map(|node| &node.value) {
            Some(Value::List(items)) => items,
            _ => &[],
        }
    }

    pub(super) fn text(&self, key: &str) -> String {
        match self.get(key).map(|node| &node.value) {
            None => String::new(),
            Some(Value::Str(text)) => text.clone(),
            Some(other) => {
                let kind = if matches!(other, Value::Int(_)) { "int" } else { "float64" };
                let path = self.path;
                self.faults.add(format!(
                    "'{path}{key}' expected type 'string', got unconvertible type '{kind}'"
                ));
                String::new()
            }
        }
    }

    pub(super) fn flag(&self, key: &str) -> bool {
        self.maybe_flag(key).unwrap_or_default()
    }

    pub(super) fn maybe_flag(&self, key: &str) -> Option<bool> {
        self.get(key).map(|node| node.value == Value::Bool(true))
    }

    /// A list of words; one word alone is a list too.
    pub(super) fn texts(&self, key: &str) -> Vec<String> {
        match self.get(key).map(|node| &node.value) {
            None => Vec::new(),
            Some(Value::List(items)) => items.iter().map(|item| item.value.to_text()).collect(),
            Some(value) => vec![value.to_text()],
        }
    }

    /// A mapping, or a list of `NAME=VALUE`.
    pub(super) fn table(&self, key: &str) -> Table<String> {
        let entries = self.pairs(key).into_iter();
        entries.map(|(name, value)| (name, value.unwrap_or_default())).collect()
    }

    /// As [`Fields::table`], for values that may be missing.
    pub(super) fn pairs(&self, key: &str) -> Table<Option<String>> {
        match self.get(key).map(|node| &node.value) {
            Some(Value::Map(map)) => {
                let text = |value: &Value| (*value != Value::Null).then(|| value.to_text());
                map.iter().map(|(name, node)| (name.clone(), text(&node.value))).collect()
            }
            Some(Value::List(items)) => {
                items.iter().map(|item| split_pair(&item.value.to_text())).collect()
            }
            _ => Table::new(),
        }
    }

    /// A whole number that is not negative. `field` is the Go name of the member.
    pub(super) fn count(&self, key: &str, field: &str) -> Option<u64> {
        let number = self.whole(key)?;
        u64::try_from(number).ok().or_else(|| {
            self.faults
                .add(format!("cannot parse '{}{field}', {number} overflows uint", self.path));
            None
        })
    }

    pub(super) fn number(&self, key: &str) -> i64 {
        self.whole(key).and_then(|number| i64::try_from(number).ok()).unwrap_or_default()
    }

    fn whole(&self, key: &str) -> Option<i128> {
        match self.get(key)?.value {
            Value::Int(number) => Some(number),
            Value::Float(number) => Some(number as i128),
            _ => None,
        }
    }

    pub(super) fn ratio(&self, key: &str) -> f32 {
        match self.get(key).map(|node| &node.value) {
            Some(Value::Int(number)) => *number as f32,
            Some(Value::Float(number)) => *number as f32,
            _ => 0.0,
        }
    }

    pub(super) fn duration(&self, key: &str, field: &str) -> Option<Duration> {
        let text = self.get(key)?.value.to_text();
        let parsed = units::parse_duration(&text).map(Duration);
        let field = format!("{}{field}", self.path);
        parsed.or_else(|| {
            self.faults.add(format!("error decoding '{field}': time: invalid duration {text:?}"));
            None
        })
    }

    pub(super) fn bytes(&self, key: &str) -> Bytes {
        let Some(node) = self.get(key) else { return Bytes::default() };
        let parsed = units::parse_bytes(&node.value.to_text()).map(Bytes);
        self.faults.keep(&format!("{}{key}", self.path), parsed)
    }
}

/// `NAME=VALUE`, or a name alone.
pub(super) fn split_pair(text: &str) -> (String, Option<String>) {
    match text.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (text.to_owned(), None),
    }
}
