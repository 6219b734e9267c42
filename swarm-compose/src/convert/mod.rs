//! Turns a merged stack into the requests that `docker stack deploy` makes of the engine.
//!
//! A request's body is JSON rather than the model's types, because the docker CLI passes on words
//! that it does not know (an endpoint mode, a propagation) for the engine to judge. Read into the
//! model, the same body is what the engine makes of it.

mod networks;
mod objects;
mod policy;
mod service;
mod volumes;

pub(crate) use networks::{create_networks, external_networks};
pub(crate) use objects::create_objects;
pub(crate) use service::create_service;

use serde_json::{Map, Value as Json};

use crate::model::Table;

/// The label that says which stack an object belongs to.
pub const LABEL_NAMESPACE: &str = "com.docker.stack.namespace";
/// The label that keeps a service's image as the stack file has it, without tag or digest.
pub const LABEL_IMAGE: &str = "com.docker.stack.image";

/// The name of a stack, which begins the names of its objects.
#[derive(Clone, Copy)]
pub(crate) struct Namespace<'a>(pub(crate) &'a str);

impl Namespace<'_> {
    /// The full name of an object, unless it has one of its own.
    pub(crate) fn scope(self, key: &str, own_name: &str) -> String {
        if own_name.is_empty() { format!("{}_{key}", self.0) } else { own_name.to_owned() }
    }

    /// Labels with the stack's own, which nothing in the file can change.
    fn label(self, labels: &Table<String>) -> Json {
        let mut labels = labels.clone();
        labels.insert(LABEL_NAMESPACE.to_owned(), self.0.to_owned());
        table(&labels)
    }
}

fn table(entries: &Table<String>) -> Json {
    entries.iter().map(|(name, value)| (name.clone(), Json::from(value.as_str()))).collect()
}

/// A JSON object under construction that leaves out what is empty, as Go's `omitempty` does.
#[derive(Default)]
struct Body(Map<String, Json>);

impl Body {
    /// Adds a member, unless it is null, zero, false or empty.
    fn with(self, name: &str, value: impl Into<Json>) -> Self {
        let value = value.into();
        let empty = match &value {
            Json::Null => true,
            Json::Bool(value) => !value,
            Json::Number(number) => number.as_f64() == Some(0.0),
            Json::String(text) => text.is_empty(),
            Json::Array(items) => items.is_empty(),
            Json::Object(entries) => entries.is_empty(),
        };
        if empty { self } else { self.always(name, value) }
    }

    /// Adds a member if there is a value, even an empty one.
    fn maybe<T: Into<Json>>(self, name: &str, value: Option<T>) -> Self {
        match value {
            Some(value) => self.always(name, value),
            None => self,
        }
    }

    /// Adds a member.
    fn always(mut self, name: &str, value: impl Into<Json>) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }
}

impl From<Body> for Json {
    fn from(body: Body) -> Self {
        Self::Object(body.0)
    }
}
