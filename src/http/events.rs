//! `/events`: what happened to the cluster's objects, from the store's own history (moby:
//! `daemon/events.go`). Events older than that history are gone.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use serde::Serialize;
use swarm_core::model::{Labels, Node as ClusterNode, Service, Version};
use swarm_core::store::{Commit, Event, Object, Store, Watch};
use swarm_core::time::{Clock, Timestamp};

use super::error::internal;
use super::filter::Filters;
use super::query::Query;
use super::{Node, control};
use crate::error::ApiError;

/// `GET /events`
pub(super) async fn events(State(node): Node, query: Query) -> Result<Response, ApiError> {
    let filters = Filters::read_any(&query)?;
    let control = control(&*node)?;
    let (since, until) = (bound(&query, "since")?, bound(&query, "until")?);
    let snapshot = control.store.snapshot();
    let from = if since.is_some() { oldest(&*control.store) } else { snapshot.version() };
    let feed = Feed {
        watch: control.store.watch(from),
        store: control.store.clone(),
        clock: control.clock.clone(),
        filters,
        since: since.unwrap_or(Timestamp::ZERO),
        until,
        // Removals carry no time of their own; they take that of the commit before.
        time: since.unwrap_or_else(|| control.clock.now()),
        ready: VecDeque::new(),
    };
    let lines = stream::unfold(feed, |mut feed| async move {
        let line = feed.next().await?;
        Some((Ok::<_, std::convert::Infallible>(line), feed))
    });
    Ok(([(header::CONTENT_TYPE, "application/json")], Body::from_stream(lines)).into_response())
}

/// Seconds since 1970, with or without a fraction: `1795165896` or `1795165896.000000001`.
pub(super) fn unix_time(text: &str) -> Option<Timestamp> {
    let (secs, fraction) = text.split_once('.').unwrap_or((text, ""));
    let nanos: i64 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    let secs: i64 = secs.parse().ok()?;
    Some(Timestamp::from_nanos(secs.checked_mul(1_000_000_000)?.checked_add(nanos)?))
}

fn bound(query: &Query, key: &str) -> Result<Option<Timestamp>, ApiError> {
    match query.get(key) {
        "" => Ok(None),
        text => unix_time(text)
            .map(Some)
            .ok_or_else(|| internal(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))),
    }
}

/// The earliest version that the history reaches back to.
fn oldest(store: &dyn Store) -> Version {
    match store.watch(Version(0)).try_next() {
        Ok(_) => Version(0),
        Err(lagged) => lagged.oldest,
    }
}

/// One client's view of the history.
struct Feed {
    watch: Watch,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    filters: Filters,
    since: Timestamp,
    until: Option<Timestamp>,
    time: Timestamp,
    ready: VecDeque<Bytes>,
}

impl Feed {
    /// The next line; `None` once `until` has passed.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some(line);
            }
            match self.watch.try_next() {
                Ok(Some(commit)) => {
                    if !self.take(&commit) {
                        return None;
                    }
                    continue;
                }
                // The client was too slow: it goes on from here.
                Err(_) => self.watch = self.store.watch(self.store.snapshot().version()),
                Ok(None) => {}
            }
            let left = self.until.map(|until| until.since(self.clock.now()));
            let next = match left {
                None => self.watch.next().await,
                Some(left) if left.is_zero() => return None,
                Some(left) => tokio::time::timeout(left, self.watch.next()).await.ok()?,
            };
            if let Ok(commit) = next
                && !self.take(&commit)
            {
                return None;
            }
        }
    }

    /// Renders a commit; `false` when it is later than `until`.
    fn take(&mut self, commit: &Commit) -> bool {
        let times = commit.events.iter().filter_map(|event| event.new.as_ref().map(updated_at));
        self.time = times.max().unwrap_or(self.time);
        if self.until.is_some_and(|until| self.time > until) {
            return false;
        }
        if self.time >= self.since {
            let told = commit.events.iter().filter_map(|event| tell(event, self.time));
            let wanted = told.filter(|message| message.fits(&self.filters));
            self.ready.extend(wanted.map(|message| message.line()));
        }
        true
    }
}

fn updated_at(object: &Object) -> Timestamp {
    match object {
        Object::Cluster(object) => object.updated_at,
        Object::Node(object) => object.updated_at,
        Object::Service(object) => object.updated_at,
        Object::Task(object) => object.updated_at,
        Object::Network(object) => object.updated_at,
        Object::Secret(object) => object.updated_at,
        Object::Config(object) => object.updated_at,
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Actor {
    #[serde(rename = "ID")]
    id: String,
    attributes: Labels,
}

/// One event, as Docker writes it.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Message {
    #[serde(rename = "Type")]
    kind: &'static str,
    action: &'static str,
    actor: Actor,
    #[serde(rename = "scope")]
    scope: &'static str,
    #[serde(rename = "time")]
    time: i64,
    #[serde(rename = "timeNano")]
    time_nano: i64,
}

impl Message {
    fn line(&self) -> Bytes {
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line.into()
    }

    fn fits(&self, filters: &Filters) -> bool {
        let name = self.actor.attributes.get("name").map_or("", String::as_str);
        let of_kind = |kind: &str| {
            let named = |word: &str| word == name || self.actor.id.starts_with(word);
            filters.get(kind).is_empty() || (self.kind == kind && filters.any(kind, named))
        };
        filters.exact("type", self.kind)
            && filters.exact("event", self.action)
            && filters.exact("scope", self.scope)
            && ["service", "node", "network", "secret", "config"].into_iter().all(of_kind)
            // Only an engine has these.
            && ["container", "image", "volume", "plugin", "daemon"]
                .into_iter()
                .all(|kind| filters.get(kind).is_empty())
            && filters.labels("label", &self.actor.attributes)
    }
}

/// What clients are told of a change; nothing about tasks and the cluster, as in Swarm.
fn tell(event: &Event, at: Timestamp) -> Option<Message> {
    let object = event.object();
    let kind = match object {
        Object::Task(_) | Object::Cluster(_) => return None,
        other => other.kind(),
    };
    let action = match (shown(event.old.as_ref()), shown(event.new.as_ref())) {
        (false, true) => "create",
        (true, true) => "update",
        (true, false) => "remove",
        (false, false) => return None,
    };
    let (id, name) = identity(object);
    let mut attributes = Labels::from([("name".to_owned(), name)]);
    if action == "update" {
        differences(event, &mut attributes);
    }
    let time_nano = at.as_nanos();
    let time = time_nano.div_euclid(1_000_000_000);
    Some(Message { kind, action, actor: Actor { id, attributes }, scope: "swarm", time, time_nano })
}

/// Whether clients see the object: what is marked for removal is gone for them.
fn shown(object: Option<&Object>) -> bool {
    object.is_some_and(|object| match object {
        Object::Service(service) => !service.pending_delete,
        Object::Network(network) => !network.pending_delete,
        _ => true,
    })
}

fn identity(object: &Object) -> (String, String) {
    match object {
        Object::Service(it) => (it.id.to_string(), it.spec.name.clone()),
        Object::Network(it) => (it.id.to_string(), it.spec.name.clone()),
        Object::Secret(it) => (it.id.to_string(), it.spec.name.clone()),
        Object::Config(it) => (it.id.to_string(), it.spec.name.clone()),
        Object::Node(it) => {
            let named = !it.spec.name.is_empty() || it.description.is_some();
            (it.id.to_string(), if named { it.display_name().to_owned() } else { String::new() })
        }
        Object::Task(it) => (it.id.to_string(), String::new()),
        Object::Cluster(it) => (it.id.to_string(), String::new()),
    }
}

fn differences(event: &Event, attributes: &mut Labels) {
    match (&event.old, &event.new) {
        (Some(Object::Service(old)), Some(Object::Service(new))) => {
            of_service(old, new, attributes);
        }
        (Some(Object::Node(old)), Some(Object::Node(new))) => of_node(old, new, attributes),
        _ => {}
    }
}

fn note(attributes: &mut Labels, key: &str, old: Option<String>, new: Option<String>) {
    if old == new {
        return;
    }
    for (side, value) in [("old", old), ("new", new)] {
        if let Some(value) = value {
            attributes.insert(format!("{key}.{side}"), value);
        }
    }
}

fn of_service(old: &Service, new: &Service, attributes: &mut Labels) {
    let replicas =
        |service: &Service| service.spec.mode.replicas().map(|number| number.to_string());
    note(attributes, "replicas", replicas(old), replicas(new));
    let image = |service: &Service| service.spec.task.container.as_ref().map(|c| c.image.clone());
    note(attributes, "image", image(old), image(new));
    let state = |service: &Service| service.update_status.as_ref().map(|s| s.state.to_string());
    if new.update_status.is_some() {
        note(attributes, "updatestate", state(old), state(new));
    }
}

fn of_node(old: &ClusterNode, new: &ClusterNode, attributes: &mut Labels) {
    let pairs = [
        ("availability", old.spec.availability.to_string(), new.spec.availability.to_string()),
        ("role", old.spec.role.to_string(), new.spec.role.to_string()),
        ("state", old.status.state.to_string(), new.status.state.to_string()),
    ];
    for (key, old, new) in pairs {
        note(attributes, key, Some(old), Some(new));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_with_a_fraction() {
        assert_eq!(unix_time("12"), Some(Timestamp::from_secs(12)));
        assert_eq!(unix_time("12.000000001"), Some(Timestamp::from_nanos(12_000_000_001)));
        assert_eq!(unix_time("12.5"), Some(Timestamp::from_nanos(12_500_000_000)));
        assert_eq!(unix_time("soon"), None);
    }

    #[test]
    fn a_marked_service_is_removed_for_clients_and_erased_in_silence() {
        let service =
            |pending_delete| Object::from(Service { pending_delete, ..Default::default() });
        let action = |old, new| tell(&Event { old, new }, Timestamp::ZERO).map(|m| m.action);
        assert_eq!(action(None, Some(service(false))), Some("create"));
        assert_eq!(action(Some(service(false)), Some(service(true))), Some("remove"));
        assert_eq!(action(Some(service(true)), None), None);
    }
}
