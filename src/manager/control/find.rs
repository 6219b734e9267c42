//! Pure: which object a client means: by full id, else by exact name, else by the beginning of an
//! id (moby: `daemon/cluster/helpers.go`).

use std::sync::Arc;

use swarm_core::model::{Cluster, Config, Network, Node, Secret, Service, Task};
use swarm_core::store::{Kind as _, Snapshot, Table};

use crate::error::{ApiError, Code};

/// No object goes by that name.
fn not_found(kind: &str, word: &str) -> ApiError {
    ApiError::plain(Code::NotFound, format!("{kind} {word} not found"))
}

/// The one candidate: none is "not found", several are ambiguous.
fn only<'a, T: 'a>(
    kind: &str,
    word: &str,
    mut candidates: impl Iterator<Item = &'a Arc<T>>,
) -> Result<Arc<T>, ApiError> {
    let first = candidates.next().ok_or_else(|| not_found(kind, word))?;
    match candidates.count() {
        0 => Ok(first.clone()),
        more => {
            let text = format!("{kind} {word} is ambiguous ({} matches found)", more + 1);
            Err(ApiError::plain(Code::InvalidArgument, text))
        }
    }
}

/// By id, else by one of those that `named` finds, else by the beginning of the id.
fn find<T: swarm_core::store::Kind>(
    table: &Table<T>,
    word: &str,
    named: impl Fn(&Table<T>) -> Vec<Arc<T>>,
    visible: impl Fn(&T) -> bool,
) -> Result<Arc<T>, ApiError> {
    let by_id = word.parse().ok().and_then(|id| table.get(id)).filter(|object| visible(object));
    if let Some(object) = by_id {
        return Ok(object.clone());
    }
    let named = named(table);
    if !named.is_empty() {
        return only(T::WORD, word, named.iter());
    }
    only(T::WORD, word, table.with_prefix(word).filter(|object| visible(object)))
}

/// Finds what clients name; what is marked for removal is gone for them.
pub(crate) trait Find {
    /// A service by id, name, or beginning of an id.
    ///
    /// # Errors
    /// That there is none, or several.
    fn find_service(&self, word: &str) -> Result<Arc<Service>, ApiError>;
    /// A task by id or beginning of an id.
    ///
    /// # Errors
    /// That there is none, or several.
    fn find_task(&self, word: &str) -> Result<Arc<Task>, ApiError>;
    /// A node by id, host name, or beginning of an id.
    ///
    /// # Errors
    /// That there is none, or several.
    fn find_node(&self, word: &str) -> Result<Arc<Node>, ApiError>;
    /// A network by id, name, or beginning of an id.
    ///
    /// # Errors
    /// That there is none, or several.
    fn find_network(&self, word: &str) -> Result<Arc<Network>, ApiError>;
    /// A secret by id, name, or beginning of an id.
    ///
    /// # Errors
    /// That there is none, or several.
    fn find_secret(&self, word: &str) -> Result<Arc<Secret>, ApiError>;
    /// A config by id, name, or beginning of an id.
    ///
    /// # Errors
    /// That there is none, or several.
    fn find_config(&self, word: &str) -> Result<Arc<Config>, ApiError>;
    /// The cluster.
    ///
    /// # Errors
    /// That there is none yet.
    fn the_cluster(&self) -> Result<Arc<Cluster>, ApiError>;
    /// Whether a task is there for clients: the tasks of a removed service go with it.
    fn shows(&self, task: &Task) -> bool;
}

impl Find for Snapshot {
    fn find_service(&self, word: &str) -> Result<Arc<Service>, ApiError> {
        let named = |table: &Table<Service>| table.named(word).cloned().into_iter().collect();
        find(&self.services, word, named, |service| !service.pending_delete)
    }

    fn find_task(&self, word: &str) -> Result<Arc<Task>, ApiError> {
        let shown = |task: &&Arc<Task>| self.shows(task);
        let by_id = word.parse().ok().and_then(|id| self.tasks.get(id)).filter(shown);
        match by_id {
            Some(task) => Ok(task.clone()),
            None => only(Task::WORD, word, self.tasks.with_prefix(word).filter(shown)),
        }
    }

    fn find_node(&self, word: &str) -> Result<Arc<Node>, ApiError> {
        let named = |table: &Table<Node>| {
            let called = |node: &&Arc<Node>| host_name(node) == word;
            table.iter().filter(called).cloned().collect()
        };
        find(&self.nodes, word, named, |_| true)
    }

    fn find_network(&self, word: &str) -> Result<Arc<Network>, ApiError> {
        let named = |table: &Table<Network>| table.named(word).cloned().into_iter().collect();
        find(&self.networks, word, named, |network| !network.pending_delete)
    }

    fn find_secret(&self, word: &str) -> Result<Arc<Secret>, ApiError> {
        let named = |table: &Table<Secret>| table.named(word).cloned().into_iter().collect();
        find(&self.secrets, word, named, |_| true)
    }

    fn find_config(&self, word: &str) -> Result<Arc<Config>, ApiError> {
        let named = |table: &Table<Config>| table.named(word).cloned().into_iter().collect();
        find(&self.configs, word, named, |_| true)
    }

    fn the_cluster(&self) -> Result<Arc<Cluster>, ApiError> {
        let text = "the cluster is not initialised yet";
        self.cluster().cloned().ok_or_else(|| ApiError::plain(Code::Unavailable, text))
    }

    fn shows(&self, task: &Task) -> bool {
        task.service_id.is_nil()
            || self.services.get(task.service_id).is_some_and(|service| !service.pending_delete)
    }
}

/// The name that nodes are found and filtered by: the host's, empty until it is known.
pub(crate) fn host_name(node: &Node) -> &str {
    node.description.as_ref().map_or("", |description| &description.hostname)
}
