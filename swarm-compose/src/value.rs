//! Pure: the tree that a stack file becomes: plain data, with the line of every entry.

use std::collections::BTreeMap;

/// A mapping of a stack file. Order never matters in one, and the docker CLI sorts its output.
pub(crate) type Mapping = BTreeMap<String, Node>;

/// A value and the line (from 1) of its key or list item.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) line: usize,
    pub(crate) value: Value,
}

/// Equal when the values are: two lines may say the same.
impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

/// What YAML can say, as Go's YAML library (and so the docker CLI) understands it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(String),
    List(Vec<Node>),
    Map(Mapping),
}

impl Node {
    pub(crate) const fn new(line: usize, value: Value) -> Self {
        Self { line, value }
    }

    /// The entry of a mapping; nothing if this is no mapping or has no such entry.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.value.as_map()?.get(key)
    }

    /// Whether the mapping has an entry, even an empty one.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }
}

impl Value {
    pub(crate) const fn as_map(&self) -> Option<&Mapping> {
        match self {
            Self::Map(map) => Some(map),
            _ => None,
        }
    }

    /// The value as Go's `fmt.Sprint` prints it: how the docker CLI turns numbers into text.
    pub(crate) fn to_text(&self) -> String {
        match self {
            Self::Null => "<nil>".to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Int(value) => value.to_string(),
            Self::Float(value) => float_text(*value),
            Self::Str(text) => text.clone(),
            Self::List(items) => {
                let items: Vec<_> = items.iter().map(|item| item.value.to_text()).collect();
                format!("[{}]", items.join(" "))
            }
            Self::Map(map) => {
                let entry =
                    |(key, node): (&String, &Node)| format!("{key}:{}", node.value.to_text());
                format!("map[{}]", map.iter().map(entry).collect::<Vec<_>>().join(" "))
            }
        }
    }

    /// A JSON value for output, with `x-` sections in mind.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match self {
            Self::Null => Json::Null,
            Self::Bool(value) => (*value).into(),
            Self::Int(value) => {
                i64::try_from(*value).map_or_else(|_| (*value as f64).into(), Json::from)
            }
            Self::Float(value) => (*value).into(),
            Self::Str(text) => text.as_str().into(),
            Self::List(items) => items.iter().map(|item| item.value.to_json()).collect(),
            Self::Map(map) => {
                map.iter().map(|(key, node)| (key.clone(), node.value.to_json())).collect()
            }
        }
    }
}

/// Go's `%v` of a float: the shortest digits that read back the same, with an exponent when it is
/// below -4 or from 6 on.
fn float_text(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..6).contains(&exponent) {
        return value.to_string();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_printed_as_go_prints_them() {
        for (value, text) in [
            (1.5, "1.5"),
            (1.0, "1"),
            (1000.0, "1000"),
            (1e6, "1e+06"),
            (1e8, "1e+08"),
            (123_456_789.5, "1.234567895e+08"),
            (0.000_001, "1e-06"),
            (0.0001, "0.0001"),
            (1e21, "1e+21"),
            (f64::INFINITY, "+Inf"),
        ] {
            assert_eq!(float_text(value), text);
        }
    }
}
