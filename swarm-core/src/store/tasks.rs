//! Pure: the tasks, kept together by service, with what finds them otherwise.
//!
//! Nearly every decision reads all tasks of one service, and nearly every commit writes tasks of
//! few services. So the tasks of a service lie together, in a [`Group`]: reading them walks
//! neighbours, a commit copies few leaves, and a group that is the very same in two views tells that
//! nothing in it was written between them. Every other way to a task names its service as well:
//!
//! | map | from | to | written when |
//! |---|---|---|---|
//! | `groups` | service | its group | a task of it changes |
//! | in a group | id | the task; whether it waits for a node, whether it is to be removed | it changes |
//! | `waiting`, `removed` | service | | its group begins or ceases to have such tasks |
//! | `owners` | id | its service | it comes or goes |
//! | `by_node` | node, id | its service | it gets its node, or goes |
//! | `by_network` | network, id | its service | its networks change |
//!
//! All maps are persistent: a clone costs nothing, a change copies the path to one entry. What is
//! staged lies in a layer of its own over each ([`Layered`], [`Lists`]), so that to show a decision to
//! the next planner copies nothing but a small group. (`owners` is nearly in that order: planners draw the ids of a service's tasks
//! [beside](crate::id::IdSource::beside) its own. No map relies on it.) The invariant, which `audit`
//! holds against commits: a task is in each map exactly where its own fields say.

use std::any::Any;
use std::sync::{Arc, LazyLock};

use super::group::{Group, is_removed, waits};
use super::layered::{Layer, Layered};
use super::lists::Lists;
use super::memo::Touched;
use super::tables::{Row, first_with};
use crate::model::{Network, NetworkId, Node, NodeId, ServiceId, Task, TaskId};

/// The tasks.
#[derive(Clone, Default)]
pub struct TaskTable {
    groups: Layered<ServiceId, Row<Group>>,
    open: Option<Open>,
    len: usize,
    /// The services some of whose tasks are below `assigned`: few at any time, and looked for often.
    waiting: Layered<ServiceId, ()>,
    removed: Layered<ServiceId, ()>,
    owners: Layered<TaskId, ServiceId>,
    by_node: Lists<Node>,
    by_network: Lists<Network>,
}

/// What a service has that has none.
static NO_TASKS: LazyLock<Arc<Group>> = LazyLock::new(Arc::default);

/// A group that is being written, and lies outside of its map until that is done: commits and plans
/// write many tasks of one service in a row.
#[derive(Clone)]
pub(super) struct Open {
    layer: Layer,
    service: ServiceId,
    group: Arc<Group>,
    /// What it was when it was opened: its size, whether tasks wait, whether any are to be removed.
    before: (usize, bool, bool),
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
        self.group(service)?.get(id)
    }

    fn group(&self, service: ServiceId) -> Option<&Group> {
        match &self.open {
            Some(open) if open.service == service => Some(&open.group),
            _ => self.groups.get(&service).map(|row| &*row.0),
        }
    }

    /// Every task, in order of id. [`by_service`](Self::by_service) is several times faster.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.owners.iter().filter_map(|(id, service)| self.of(*service, *id))
    }

    /// Every task, in order of service, and then of id.
    pub fn by_service(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.groups.iter().flat_map(|(_, row)| row.0.values())
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
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Says what was written between another version of this table and this one: each task before
    /// and after, in order of service and id. O(changes · log n) where one version came from the
    /// other.
    pub fn for_each_since(
        &self,
        other: &Self,
        mut each: impl FnMut(Option<&Arc<Task>>, Option<&Arc<Task>>),
    ) {
        for (old, new) in self.groups.since(&other.groups) {
            let [old, new] = [old, new].map(|row| row.map_or(&**NO_TASKS, |row| &*row.0));
            new.for_each_since(old, &mut each);
        }
    }

    pub(super) fn of_service(&self, service: ServiceId) -> impl Iterator<Item = &Arc<Task>> {
        self.group(service).into_iter().flat_map(Group::values)
    }

    /// See [`Snapshot::derived_of`](super::Snapshot::derived_of).
    pub(super) fn derived_of<T: Any + Send + Sync>(
        &self,
        service: ServiceId,
        derive: impl FnOnce(Option<(&T, &[Touched])>) -> T,
    ) -> Arc<T> {
        match self.group(service) {
            Some(group) => group.derived(derive),
            None => Arc::new(derive(None)),
        }
    }

    pub(super) fn on_node(&self, node: NodeId) -> impl Iterator<Item = &Arc<Task>> {
        self.by_node.of(node).filter_map(|(id, service)| self.of(service, id))
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.by_node.holders()
    }

    pub(super) fn in_network(&self, network: NetworkId) -> impl Iterator<Item = &Arc<Task>> {
        self.by_network.of(network).filter_map(|(id, service)| self.of(service, id))
    }

    pub(super) fn to_remove(&self) -> impl Iterator<Item = &Arc<Task>> {
        let groups = self.removed.iter().filter_map(|(service, ())| self.group(*service));
        groups.flat_map(Group::removed)
    }

    pub(super) fn to_remove_of(&self, service: ServiceId) -> impl Iterator<Item = &Arc<Task>> {
        self.group(service).into_iter().flat_map(Group::removed)
    }

    pub(super) fn services_waiting(&self) -> impl Iterator<Item = ServiceId> {
        self.waiting.iter().map(|(service, ())| *service)
    }

    pub(super) fn waiting(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.services_waiting().flat_map(|service| self.waiting_of(service))
    }

    pub(super) fn waiting_of(&self, service: ServiceId) -> impl Iterator<Item = &Arc<Task>> {
        self.group(service).into_iter().flat_map(Group::waiting)
    }

    /// Whether a task is what is stored, and listed wherever it belongs. `old` is what it was before
    /// it was written: what a write left alone was looked at when that was written.
    pub(super) fn is_indexed(&self, old: Option<&Task>, task: &Task) -> bool {
        let Some(group) = self.group(task.service_id) else { return false };
        if old.is_some_and(|old| lists(old) == lists(task)) {
            return true;
        }
        self.owners.get(&task.id) == Some(&task.service_id)
            && group.lists(task)
            && (!waits(task) || self.waiting.contains(&task.service_id))
            && (!is_removed(task) || self.removed.contains(&task.service_id))
            && task.node_id.is_none_or(|node| self.by_node.contains(node, task.id))
    }

    /// Puts a task in the place of another of the same id, in every map.
    pub(super) fn put(&mut self, layer: Layer, old: Option<&Task>, new: Option<&Arc<Task>>) {
        let stays = |old: &Task| new.is_some_and(|new| new.service_id == old.service_id);
        if let Some(old) = old.filter(|old| !stays(old)) {
            self.edit(layer, old.service_id).remove(layer, old);
        }
        if let Some(new) = new {
            let old = old.filter(|old| stays(old));
            self.edit(layer, new.service_id).put(layer, old, new);
        }
        // Most writes end here: a task whose place in the other maps stays as it is.
        if let (Some(old), Some(new)) = (old, new)
            && stays(old)
            && old.node_id == new.node_id
            && old.networks == new.networks
        {
            return;
        }
        self.unlist(layer, old, new);
        self.list(layer, old, new);
    }

    /// Opens a group to be changed, unless it is the one that is open. Who is about to write a task
    /// opens first, and then reads it at half the price.
    pub(super) fn open(&mut self, layer: Layer, service: ServiceId) -> &mut Open {
        if self.open.as_ref().is_none_or(|open| open.service != service) {
            self.close();
            let row = self.groups.take(layer, &service, || Row(NO_TASKS.clone()));
            let group = row.map_or_else(|| NO_TASKS.clone(), |row| row.0);
            let before = group.sizes();
            self.open = Some(Open { layer, service, group, before });
        }
        self.open.as_mut().expect("it was opened")
    }

    fn edit(&mut self, layer: Layer, service: ServiceId) -> &mut Group {
        Arc::make_mut(&mut self.open(layer, service).group)
    }

    /// Puts the open group back: it comes with its first task and goes with its last.
    pub(super) fn close(&mut self) {
        let Some(Open { layer, service, mut group, before }) = self.open.take() else { return };
        // What nobody wrote to is shared as it was.
        Arc::get_mut(&mut group).into_iter().for_each(|group| group.close(layer));
        let after = group.sizes();
        self.len = self.len + after.0 - before.0;
        list(&mut self.waiting, layer, service, (before.1, after.1));
        list(&mut self.removed, layer, service, (before.2, after.2));
        if after.0 > 0 {
            self.groups.write(layer, before.0 > 0, service, Row(group));
        } else {
            self.groups.remove(layer, &service);
        }
    }

    /// Takes a task out of the maps in which it no longer belongs.
    fn unlist(&mut self, layer: Layer, old: Option<&Task>, new: Option<&Arc<Task>>) {
        let Some(old) = old else { return };
        let same = new.filter(|new| new.service_id == old.service_id);
        if new.is_none() {
            self.owners.remove(layer, &old.id);
        }
        if let Some(node) = old.node_id
            && same.is_none_or(|new| new.node_id != Some(node))
        {
            self.by_node.remove(layer, node, old.id);
        }
        for network in networks(old) {
            if same.is_none_or(|new| networks(new).all(|other| other != network)) {
                self.by_network.remove(layer, network, old.id);
            }
        }
    }

    /// Puts a task into the maps in which it was not.
    fn list(&mut self, layer: Layer, old: Option<&Task>, new: Option<&Arc<Task>>) {
        let Some(new) = new else { return };
        let (service, id) = (new.service_id, new.id);
        let same = old.filter(|old| old.service_id == service);
        if same.is_none() {
            self.owners.write(layer, false, id, service);
        }
        if let Some(node) = new.node_id
            && same.is_none_or(|old| old.node_id != Some(node))
        {
            self.by_node.insert(layer, node, id, service);
        }
        for network in networks(new) {
            if same.is_none_or(|old| networks(old).all(|other| other != network)) {
                self.by_network.insert(layer, network, id, service);
            }
        }
    }
}

/// Puts a service into a set, or takes it out, where it was not so before.
fn list(
    set: &mut Layered<ServiceId, ()>,
    layer: Layer,
    service: ServiceId,
    (before, after): (bool, bool),
) {
    match (before, after) {
        (false, true) => set.write(layer, false, service, ()),
        (true, false) => set.remove(layer, &service),
        _ => {}
    }
}

/// What decides in which maps a task is, its networks apart.
fn lists(task: &Task) -> (ServiceId, Option<NodeId>, bool, bool) {
    (task.service_id, task.node_id, waits(task), is_removed(task))
}

fn networks(task: &Task) -> impl Iterator<Item = NetworkId> {
    task.networks.iter().map(|place| place.network.id)
}
