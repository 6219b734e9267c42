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
//! All maps are persistent: a clone costs nothing, a change copies the path to one entry. The
//! invariant, which `audit` holds against every commit: a task is in each map exactly where its
//! own fields say.

use std::ops::Bound;
use std::sync::Arc;

use imbl::ordmap::DiffItem;
use imbl::{OrdMap, OrdSet};

use super::tables::{Row, range};
use crate::model::{NetworkId, NodeId, ServiceId, Task, TaskId, TaskState};

/// The tasks.
#[derive(Clone, Default)]
pub struct TaskTable {
    rows: OrdMap<(ServiceId, TaskId), Row<Task>>,
    owners: OrdMap<TaskId, ServiceId>,
    by_node: OrdMap<(NodeId, TaskId), ServiceId>,
    by_network: OrdMap<(NetworkId, TaskId), ServiceId>,
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
        self.owners.iter().filter_map(|(id, service)| self.of(*service, *id))
    }

    /// Every task, in order of service, and then of id.
    pub fn by_service(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.rows.values().map(|row| &row.0)
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.owners.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.owners.is_empty()
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
            let rest = (Bound::Excluded((node, TaskId::MAX)), Bound::Unbounded);
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

    /// Whether a task is listed wherever it belongs.
    pub(super) fn is_indexed(&self, task: &Task) -> bool {
        let key = (task.service_id, task.id);
        self.owners.get(&task.id) == Some(&task.service_id)
            && waits(task) == self.unassigned.contains(&key)
            && is_removed(task) == self.removed.contains(&key)
            && task.node_id.is_none_or(|node| self.by_node.contains_key(&(node, task.id)))
    }

    /// Puts a task in the place of another of the same id, in every map.
    pub(super) fn put(&mut self, old: Option<&Task>, new: Option<&Arc<Task>>) {
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
        self.unlist(old, new);
        self.list(old, new);
    }

    /// Takes a task out of the maps in which it no longer belongs.
    fn unlist(&mut self, old: Option<&Task>, new: Option<&Arc<Task>>) {
        let Some(old) = old else { return };
        let key = (old.service_id, old.id);
        let same = new.filter(|new| new.service_id == old.service_id);
        if new.is_none() {
            self.owners.remove(&old.id);
        }
        if let Some(node) = old.node_id
            && same.is_none_or(|new| new.node_id != Some(node))
        {
            self.by_node.remove(&(node, old.id));
        }
        for network in networks(old) {
            if same.is_none_or(|new| networks(new).all(|other| other != network)) {
                self.by_network.remove(&(network, old.id));
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
    fn list(&mut self, old: Option<&Task>, new: Option<&Arc<Task>>) {
        let Some(new) = new else { return };
        let (service, id) = (new.service_id, new.id);
        let same = old.filter(|old| old.service_id == service);
        if same.is_none() {
            self.owners.insert(id, service);
        }
        if let Some(node) = new.node_id
            && same.is_none_or(|old| old.node_id != Some(node))
        {
            self.by_node.insert((node, id), service);
        }
        for network in networks(new) {
            if same.is_none_or(|old| networks(old).all(|other| other != network)) {
                self.by_network.insert((network, id), service);
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
