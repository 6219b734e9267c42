//! Pure: tasks that want to be near others, or away from them: Swarm v1's expressions.

use std::sync::Arc;

use swarm_core::model::{NodeId, Service, ServiceId, Task};
use swarm_core::store::Snapshot;

use super::constraint::label_of;
use super::load::{NodeLoad, occupies};

/// The label of a service that holds affinities, several with `;` between them. As in Swarm v1 they may
/// also stand in the environment of the container, as `affinity:…` or `constraint:…`.
///
/// | expression | the node |
/// |---|---|
/// | `service==db` | has a task of that service, by name or id |
/// | `service!=web` | has none; with the service's own name: one task for each node |
/// | `image==redis*` | has a task of an image of that name |
/// | `container==db.1.*` | has a task of that name or id |
/// | `LABEL==VALUE` | has a task with that label, of the service or of the container |
/// | `node==a*`, `constraint:node==a*` | has that host name or id |
/// | `node.labels.disk==ssd`, `constraint:storage==ssd` | has that label; `constraint:` means its engine's |
///
/// `*` stands for any text. `~` after the operator makes it soft: `image==~redis*` prefers such
/// nodes where there are some, before any strategy is asked. v1's regular expressions (`/…/`) are
/// refused, as is everything else that cannot be read: the task says so.
pub const AFFINITY_LABEL: &str = "swarm.affinity";

/// An affinity that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AffinityError {
    /// Neither `==` nor `!=` is in it, or one side is missing.
    #[error("affinity {0:?} cannot be read: KEY==VALUE or KEY!=VALUE is expected, with ~ if soft")]
    Shape(String),
    /// A regular expression.
    #[error("affinity {0:?} has a regular expression, which is not supported: use *")]
    Regex(String),
}

/// The affinities of tasks of one service, resolved against one view.
#[derive(Clone, Debug, Default)]
pub(super) struct Affinities(Vec<Affinity>);

#[derive(Clone, Debug)]
struct Affinity {
    equal: bool,
    soft: bool,
    to: Target,
}

/// What a node is looked at for.
#[derive(Clone, Debug)]
enum Target {
    /// Tasks of any of these services.
    Services(Vec<ServiceId>),
    /// One of these nodes, on which tasks of that name or id are, in order of id.
    Tasks(String, Vec<NodeId>),
    /// The host name or id.
    Node(String),
    /// A label, by its descriptor.
    Label(String, String),
}

impl Affinities {
    /// Those of a task of a service. O(services) for each expression, nothing without any.
    pub(super) fn of(
        task: &Task,
        service: Option<&Arc<Service>>,
        view: &Snapshot,
    ) -> Result<Self, AffinityError> {
        let labels = service.and_then(|service| service.spec.labels.get(AFFINITY_LABEL));
        let in_label = labels.into_iter().flat_map(|text| text.split(';'));
        let in_label = in_label.map(str::trim).filter(|text| !text.is_empty());
        let env = task.spec.container.iter().flat_map(|container| &container.env);
        let in_env = env
            .map(String::as_str)
            .filter(|text| text.starts_with("affinity:") || text.starts_with("constraint:"));
        in_label
            .chain(in_env)
            .map(|text| Affinity::read(text, view))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the node meets what is hard.
    pub(super) fn hold_on(&self, load: &NodeLoad) -> bool {
        self.0.iter().filter(|affinity| !affinity.soft).all(|affinity| affinity.holds_on(load))
    }

    /// How much of what is soft the node does not meet.
    pub(super) fn missed_on(&self, load: &NodeLoad) -> usize {
        self.0.iter().filter(|affinity| affinity.soft && !affinity.holds_on(load)).count()
    }

    /// A task was given a node: those after it may be meant to be near it, or not to.
    pub(super) fn settled(&mut self, task: &Task, node: NodeId) {
        for affinity in &mut self.0 {
            let Target::Tasks(pattern, nodes) = &mut affinity.to else { continue };
            let Err(at) = nodes.binary_search(&node) else { continue };
            if is_called(pattern, &Task { node_id: Some(node), ..task.clone() }) {
                nodes.insert(at, node);
            }
        }
    }
}

impl Affinity {
    fn read(text: &str, view: &Snapshot) -> Result<Self, AffinityError> {
        let shape = || AffinityError::Shape(text.to_owned());
        let (on_node, rest) = match text.split_once(':') {
            Some(("constraint", rest)) => (true, rest),
            Some(("affinity", rest)) => (false, rest),
            _ => (false, text),
        };
        let (equal, (key, value)) = (rest.split_once("==").map(|sides| (true, sides)))
            .or_else(|| rest.split_once("!=").map(|sides| (false, sides)))
            .ok_or_else(shape)?;
        let (soft, value) = match value.trim().strip_prefix('~') {
            Some(value) => (true, value),
            None => (false, value.trim()),
        };
        let key = key.trim();
        if key.is_empty() || value.is_empty() {
            return Err(shape());
        }
        if value.len() > 1 && value.starts_with('/') && value.ends_with('/') {
            return Err(AffinityError::Regex(text.to_owned()));
        }
        let to = match key {
            "node" => Target::Node(value.to_owned()),
            _ if on_node => Target::Label(format!("engine.labels.{key}"), value.to_owned()),
            _ if key.starts_with("node.labels.") || key.starts_with("engine.labels.") => {
                Target::Label(key.to_owned(), value.to_owned())
            }
            "container" => Target::Tasks(value.to_owned(), nodes(view, value)),
            _ => Target::Services(services(view, key, value)),
        };
        Ok(Self { equal, soft, to })
    }

    fn holds_on(&self, load: &NodeLoad) -> bool {
        let found = match &self.to {
            Target::Services(services) => {
                services.iter().any(|service| load.active_of(*service) > 0)
            }
            Target::Tasks(_, nodes) => nodes.binary_search(&load.node.id).is_ok(),
            Target::Node(pattern) => {
                let host = load.node.description.as_ref().map_or("", |it| it.hostname.as_str());
                matches(pattern, host) || matches(pattern, load.node.id.as_str())
            }
            Target::Label(descriptor, pattern) => {
                label_of(&load.node, descriptor).is_some_and(|value| matches(pattern, value))
            }
        };
        found == self.equal
    }
}

/// The nodes that have tasks of a name or id that shall run. Looks at every task that there is.
fn nodes(view: &Snapshot, pattern: &str) -> Vec<NodeId> {
    let meant = view.tasks.by_service();
    let meant = meant.filter(|task| occupies(task) && task.is_wanted() && is_called(pattern, task));
    let mut nodes: Vec<_> = meant.filter_map(|task| task.node_id).collect();
    nodes.sort_unstable();
    nodes
}

fn is_called(pattern: &str, task: &Task) -> bool {
    matches(pattern, &task.name()) || matches(pattern, task.id.as_str())
}

/// The services that an expression means.
fn services(view: &Snapshot, key: &str, pattern: &str) -> Vec<ServiceId> {
    let label = |labels: &swarm_core::model::Labels| {
        labels.get(key).is_some_and(|value| matches(pattern, value))
    };
    let means = |service: &Service| {
        let container = service.spec.task.container.as_ref();
        match key {
            "service" => {
                matches(pattern, &service.spec.name) || matches(pattern, service.id.as_str())
            }
            "image" => container.is_some_and(|container| is_image(pattern, &container.image)),
            _ => {
                label(&service.spec.labels)
                    || container.is_some_and(|container| label(&container.labels))
            }
        }
    };
    view.services.iter().filter(|service| means(service)).map(|service| service.id).collect()
}

/// Whether a pattern means an image: with its tag and digest, or without.
fn is_image(pattern: &str, image: &str) -> bool {
    let untagged = image.split('@').next().unwrap_or(image);
    let slash = untagged.rfind('/').map_or(0, |at| at + 1);
    let name = untagged[slash..].find(':').map_or(untagged, |at| &untagged[..slash + at]);
    [image, untagged, name].iter().any(|image| matches(pattern, image))
}

/// Whether a text is as a pattern says, in which `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(text) = text.strip_prefix(start) else { return false };
    let mut pieces: Vec<_> = rest.split('*').collect();
    let last = pieces.pop().unwrap_or("");
    let mut left = text;
    for piece in pieces {
        match left.split_once(piece) {
            Some((_, rest)) => left = rest,
            None => return false,
        }
    }
    left.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        let table = [
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "", true),
            ("a*", "abc", true),
            ("a*", "ba", false),
            ("*c", "abc", true),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abcd", false),
            ("a*a", "a", false),
            ("a**b", "ab", true),
        ];
        for (pattern, text, expected) in table {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn an_image_is_meant_with_or_without_its_tag() {
        for pattern in ["host:5000/redis", "host:5000/redis:7", "host*redis:7@sha256:ab"] {
            assert!(is_image(pattern, "host:5000/redis:7@sha256:ab"), "{pattern}");
        }
        assert!(!is_image("redis", "host:5000/redis:7") && is_image("redis", "redis"));
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for text in ["service", "==a", "service==", "service==~"] {
            let refused = Affinity::read(text, &Snapshot::default()).unwrap_err();
            assert_eq!(refused, AffinityError::Shape(text.to_owned()));
        }
        let regex = Affinity::read("affinity:image==/red.*/", &Snapshot::default());
        assert!(matches!(regex, Err(AffinityError::Regex(_))));
    }
}
