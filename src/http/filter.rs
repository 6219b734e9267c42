//! Pure: the `filters` parameter: which objects a list shows.

use std::collections::BTreeMap;

use serde_json::Value;
use swarm_core::model::Labels;

use super::error::bad;
use super::query::Query;
use crate::error::ApiError;

/// Values by key: the values of one key are alternatives, the keys must all hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    /// Reads `{"key": {"value": true}}` and `{"key": ["value"]}`, and refuses unknown keys.
    pub(super) fn read(query: &Query, known: &[&str]) -> Result<Self, ApiError> {
        let filters = Self::read_any(query)?;
        match filters.0.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => Err(bad(format!("invalid filter '{key}'"))),
            None => Ok(filters),
        }
    }

    /// The same with any key.
    pub(super) fn read_any(query: &Query) -> Result<Self, ApiError> {
        let text = query.get("filters");
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let refusal = || bad("invalid filter");
        let Ok(Value::Object(keys)) = serde_json::from_str(text) else { return Err(refusal()) };
        let mut filters = BTreeMap::new();
        for (key, values) in keys {
            let values = match values {
                Value::Object(map) => map.into_iter().map(|(value, _)| value).collect(),
                Value::Array(list) => list
                    .into_iter()
                    .map(|value| value.as_str().map(str::to_owned).ok_or_else(refusal))
                    .collect::<Result<Vec<_>, _>>()?,
                Value::Null => Vec::new(),
                _ => return Err(refusal()),
            };
            if !values.is_empty() {
                filters.insert(key, values);
            }
        }
        Ok(Self(filters))
    }

    /// The values of a key; empty where it is absent.
    pub(super) fn get(&self, key: &str) -> &[String] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    /// Whether one of a key's values fits, or there are none.
    pub(super) fn any(&self, key: &str, fits: impl Fn(&str) -> bool) -> bool {
        let values = self.get(key);
        values.is_empty() || values.iter().any(|value| fits(value))
    }

    /// Whether `text` starts with one of a key's values.
    pub(super) fn prefix(&self, key: &str, text: &str) -> bool {
        self.any(key, |value| text.starts_with(value))
    }

    /// Whether `text` is one of a key's values.
    pub(super) fn exact(&self, key: &str, text: &str) -> bool {
        self.any(key, |value| text == value)
    }

    /// Whether the labels have every wanted `name` or `name=value`.
    pub(super) fn labels(&self, key: &str, labels: &Labels) -> bool {
        self.get(key).iter().all(|wanted| match wanted.split_once('=') {
            Some((name, value)) => labels.get(name).is_some_and(|held| held == value),
            None => labels.contains_key(wanted),
        })
    }

    /// The values of a key as Docker's words; an unknown one is the engine's 500.
    pub(super) fn words<T: std::str::FromStr>(&self, key: &str) -> Result<Vec<T>, ApiError> {
        let word = |value: &String| {
            value
                .parse()
                .map_err(|_| super::error::internal(format!("Invalid {key} filter: '{value}'")))
        };
        self.get(key).iter().map(word).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Filters, ApiError> {
        let query = Query::new(vec![("filters".into(), text.into())]);
        Filters::read(&query, &["name", "label"])
    }

    #[test]
    fn both_clients_forms_are_read_and_unknown_keys_refused() {
        let go = read(r#"{"name":{"a":true,"b":false}}"#).expect("Go's form");
        assert_eq!(go, read(r#"{"name":["a","b"]}"#).expect("Python's form"));
        assert!(go.prefix("name", "abc") && go.exact("name", "b") && !go.prefix("name", "c"));
        assert_eq!(read(r#"{"bogus":["a"]}"#).unwrap_err().message, "invalid filter 'bogus'");
        assert_eq!(read("nope").unwrap_err().message, "invalid filter");
        assert_eq!(read("{}"), Ok(Filters::default()));
    }

    #[test]
    fn labels_must_all_be_there() {
        let labels = Labels::from([("a".into(), "1".into()), ("b".into(), String::new())]);
        assert!(read(r#"{"label":["a=1","b"]}"#).unwrap().labels("label", &labels));
        assert!(!read(r#"{"label":["a=1","c"]}"#).unwrap().labels("label", &labels));
    }
}
