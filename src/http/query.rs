//! Query parameters: versions, and booleans of both of the engine's kinds.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use swarm_core::model::Version;

use super::error::bad;
use crate::error::ApiError;

/// The query of a request; of keys that repeat, the first counts.
#[derive(Clone, Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let pairs = axum::extract::Query::try_from_uri(&parts.uri);
        pairs.map(|axum::extract::Query(pairs)| Self(pairs)).map_err(|error| bad(error.body_text()))
    }
}

impl Query {
    #[cfg(test)]
    pub(super) fn new(pairs: Vec<(String, String)>) -> Self {
        Self(pairs)
    }

    /// A value; empty where the key is absent.
    pub(super) fn get(&self, key: &str) -> &str {
        self.0.iter().find(|(name, _)| name == key).map_or("", |(_, value)| value)
    }

    /// The engine's lenient boolean: false is absent, `0`, `no`, `false` or `none`.
    pub(super) fn flag(&self, key: &str) -> bool {
        !matches!(
            self.get(key).trim().to_ascii_lowercase().as_str(),
            "" | "0" | "no" | "false" | "none"
        )
    }

    /// Go's strict boolean; absent is false.
    pub(super) fn strict(&self, key: &str) -> Result<bool, ApiError> {
        match self.get(key) {
            "" | "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
            other => Err(bad(format!(
                "invalid value for {key}: {other}: strconv.ParseBool: parsing {other:?}: invalid syntax"
            ))),
        }
    }

    /// The version that a client read, of an object of a kind.
    pub(super) fn version(&self, kind: &str) -> Result<Version, ApiError> {
        let text = self.get("version");
        text.parse().map(Version).map_err(|_| match kind {
            "secret" | "config" => bad(format!("invalid {kind} version")),
            _ => bad(format!(
                "invalid {kind} version '{text}': strconv.ParseUint: parsing {text:?}: invalid syntax"
            )),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Query;

    #[test]
    fn both_kinds_of_boolean() {
        let of = |value: &str| Query::new(vec![("k".into(), value.into())]);
        for off in ["", "0", "No", "FALSE", "none"] {
            assert!(!of(off).flag("k"), "{off}");
        }
        assert!(of("maybe").flag("k") && of("True").flag("k"));
        assert_eq!(of("True").strict("k"), Ok(true));
        assert!(of("maybe").strict("k").is_err());
    }
}
