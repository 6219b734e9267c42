//! Pure: the tasks, kept together by service, with what finds them otherwise.
//!
//! Nearly every decision reads all tasks of one service, and nearly every commit writes tasks of
//! few services. So a task lies beside the others of its service: reading them walks neighbours,
//! and a commit copies few leaves. Every other way to a task names its service as well:
//!
//! | map | from | to | written when |
//! |---|---|---|---|
//! | `rows` | service, id | the task | it changes |
//! | `owners` | id | its service | it comes or goes |
//! | `by_node` | node, id | its service | it gets its node, or goes |
//! | `by_network` | network, id | its service | its networks change |
//! | `unassigned` | service, id | | it begins or ceases to wait for a node |
//! | `removed` | service, id | | it is to be removed, or goes |
//!
//! All maps are persistent: a clone costs nothing, a change copies the path to one entry. Those that
//! are not in order of service are [`Layered`], so that staging a decision does not copy what is
//! scattered. The invariant, which `audit` holds against every commit: a task is in each map exactly where its
//! own fields say.

use std::sync::Arc;

use imbl::ordmap::DiffItem;
use imbl::{OrdMap, OrdSet};

use super::layered::{Layer, Layered};
use super::tables::{Row, first_with, range};
use crate::model::{NetworkId, NodeId, ServiceId, Task, TaskId, TaskState};

/// The tasks.
#[derive(Clone, Default)]
pub struct TaskTable {
    rows: OrdMap<(ServiceId, TaskId), Row<Task>>,
    owners: Layered<TaskId, ServiceId>,
    by_node: Layered<(NodeId, TaskId), ServiceId>,
    by_network: Layered<(NetworkId, TaskId), ServiceId>,
    /// Tasks below `assigned`: few at any time, and looked for often.
    unassigned: OrdSet<(ServiceId, TaskId)>,
    removed: OrdSet<(ServiceId, TaskId)>,
}

impl TaskTable {
    /// The task with this id. O(log n).
    #[must_use]
    pub fn get(&self, id: TaskId) -> Option<&Arc<Task>> {
        self.of(*self.owners.get(&id)?, id)
    }

    /// The task with this id, if it is one of this service: half the price of [`get`](Self::get).
    #[must_use]
    pub fn of(&self, service: ServiceId, id: TaskId) -> Option<&Arc<Task>> {
        self.rows.get(&(service, id)).map(|row| &row.0)
    }

    /// Every task, in order of id. [`by_service`](Self::by_service) is several times faster.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.owners
            .range(TaskId::MIN..=TaskId::MAX)
            .filter_map(|(id, service)| self.of(*service, *id))
    }

    /// Every task, in order of service, and then of id.
    pub fn by_service(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.rows.values().map(|row| &row.0)
    }

    /// Every task whose id starts with `prefix`, in order of id. O(log n) to the first.
    pub fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Arc<Task>> + 'a {
        let found = first_with(prefix).map(|first| self.owners.range(first..=TaskId::MAX));
        found
            .into_iter()
            .flatten()
            .take_while(move |(id, _)| id.as_str().starts_with(prefix))
            .filter_map(|(id, service)| self.of(*service, *id))
    }

    pub(super) fn contains(&self, id: TaskId) -> bool {
        self.owners.contains(&id)
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// What was written between another version of this table and this one: each task before
    /// and after, in order of service and id. O(changes · log n) where one version came from the
    /// other.
    pub fn changes_since<'a>(
        &'a self,
        other: &'a Self,
    ) -> impl Iterator<Item = (Option<&'a Arc<Task>>, Option<&'a Arc<Task>>)> {
        other.rows.diff(&self.rows).map(|item| match item {
            DiffItem::Add(_, new) => (None, Some(&new.0)),
            DiffItem::Update { old, new } => (Some(&old.1.0), Some(&new.1.0)),
            DiffItem::Remove(_, old) => (Some(&old.0), None),
        })
    }

    pub(super) fn of_service(&self, service: ServiceId) -> impl Iterator<Item = &Arc<Task>> {
        self.rows.range(range(service)).map(|(_, row)| &row.0)
    }

    pub(super) fn on_node(&self, node: NodeId) -> impl Iterator<Item = &Arc<Task>> {
        self.by_node.range(range(node)).filter_map(|((_, id), service)| self.of(*service, *id))
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = NodeId> {
        let first_after = |node: NodeId| {
            // No task has the largest id.
            let rest = (node, TaskId::MAX)..=(NodeId::MAX, TaskId::MAX);
            self.by_node.range(rest).next().map(|((node, _), _)| *node)
        };
        std::iter::successors(first_after(NodeId::MIN), move |node| first_after(*node))
    }

    pub(super) fn in_network(&self, network: NetworkId) -> impl Iterator<Item = &Arc<Task>> {
        let found = self.by_network.range(range(network));
        found.filter_map(|((_, id), service)| self.of(*service, *id))
    }

    pub(super) fn to_remove(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.removed.iter().filter_map(|(service, id)| self.of(*service, *id))
    }

    pub(super) fn waiting(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.unassigned.iter().filter_map(|(service, id)| self.of(*service, *id))
    }

    pub(super) fn waiting_of(&self, service: ServiceId) -> impl Iterator<Item = &Arc<Task>> {
        let found = self.unassigned.range(range(service));
        found.filter_map(|(service, id)| self.of(*service, *id))
    }

    /// Whether a task is listed wherever it belongs. `old` is what it was before it was written: what
    /// a write left alone was looked at when that was written.
    pub(super) fn is_indexed(&self, old: Option<&Task>, task: &Task) -> bool {
        if old.is_some_and(|old| lists(old) == lists(task)) {
            return true;
        }
        let key = (task.service_id, task.id);
        self.owners.get(&task.id) == Some(&task.service_id)
            && waits(task) == self.unassigned.contains(&key)
            && is_removed(task) == self.removed.contains(&key)
            && task.node_id.is_none_or(|node| self.by_node.contains(&(node, task.id)))
    }

    /// Puts a task in the place of another of the same id, in every map.
    pub(super) fn put(&mut self, layer: Layer, old: Option<&Task>, new: Option<&Arc<Task>>) {
        let key = |task: &Task| (task.service_id, task.id);
        let (old_key, new_key) = (old.map(key), new.map(|new| key(new)));
        if let (Some(key), Some(new)) = (new_key, new) {
            self.rows.insert(key, Row(new.clone()));
        }
        // Most writes end here: a task whose place in the other maps stays as it is.
        if let (Some(old), Some(new)) = (old, new)
            && lists(old) == lists(new)
            && old.networks == new.networks
        {
            return;
        }
        if old_key != new_key {
            old_key.map(|key| self.rows.remove(&key));
        }
        self.unlist(layer, old, new);
        self.list(layer, old, new);
    }

    /// Takes a task out of the maps in which it no longer belongs.
    fn unlist(&mut self, layer: Layer, old: Option<&Task>, new: Option<&Arc<Task>>) {
        let Some(old) = old else { return };
        let key = (old.service_id, old.id);
        let same = new.filter(|new| new.service_id == old.service_id);
        if new.is_none() {
            self.owners.remove(layer, &old.id);
        }
        if let Some(node) = old.node_id
            && same.is_none_or(|new| new.node_id != Some(node))
        {
            self.by_node.remove(layer, &(node, old.id));
        }
        for network in networks(old) {
            if same.is_none_or(|new| networks(new).all(|other| other != network)) {
                self.by_network.remove(layer, &(network, old.id));
            }
        }
        if waits(old) && same.is_none_or(|new| !waits(new)) {
            self.unassigned.remove(&key);
        }
        if is_removed(old) && same.is_none_or(|new| !is_removed(new)) {
            self.removed.remove(&key);
        }
    }

    /// Puts a task into the maps in which it was not.
    fn list(&mut self, layer: Layer, old: Option<&Task>, new: Option<&Arc<Task>>) {
        let Some(new) = new else { return };
        let (service, id) = (new.service_id, new.id);
        let same = old.filter(|old| old.service_id == service);
        if same.is_none() {
            self.owners.insert(layer, id, service);
        }
        if let Some(node) = new.node_id
            && same.is_none_or(|old| old.node_id != Some(node))
        {
            self.by_node.insert(layer, (node, id), service);
        }
        for network in networks(new) {
            if same.is_none_or(|old| networks(old).all(|other| other != network)) {
                self.by_network.insert(layer, (network, id), service);
            }
        }
        if waits(new) && same.is_none_or(|old| !waits(old)) {
            self.unassigned.insert((service, id));
        }
        if is_removed(new) && same.is_none_or(|old| !is_removed(old)) {
            self.removed.insert((service, id));
        }
    }
}

/// What decides in which maps a task is, its networks apart.
fn lists(task: &Task) -> (ServiceId, Option<NodeId>, bool, bool) {
    (task.service_id, task.node_id, waits(task), is_removed(task))
}

fn waits(task: &Task) -> bool {
    task.status.state < TaskState::Assigned
}

fn is_removed(task: &Task) -> bool {
    task.desired_state == TaskState::Remove
}

fn networks(task: &Task) -> impl Iterator<Item = NetworkId> {
    task.networks.iter().map(|place| place.network.id)
}
