//! Pure: the state as persistent tables. A [`Snapshot`] is cloned in constant time; a change
//! copies the path to one row and leaves every other snapshot as it was.

use std::ops::RangeInclusive;
use std::sync::{Arc, Weak};

use imbl::{OrdMap, OrdSet};

use super::index::Kind;
use super::layered::{Layer, Layered};
use super::memo::Touched;
use super::tasks::TaskTable;
use super::{Change, CommitError, Event, Object, ObjectRef};
use crate::id::Id;
use crate::model::{
    Availability, Cluster, Config, Network, NetworkId, Node, NodeId, NodeState, Secret, Service,
    ServiceId, Task, TaskId, TaskState, TaskStatus, Version,
};
use crate::time::Timestamp;

/// An object in its place. Rows are equal when they are the same object, not when their objects
/// look alike: comparing two versions of a table must not look into what they share.
#[derive(Clone)]
pub(super) struct Row<T>(pub(super) Arc<T>);

impl<T> PartialEq for Row<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// The rows of one kind of object, ordered by id, with an index of their names.
#[derive(Clone)]
pub struct Table<T: Kind> {
    rows: Layered<Id<T>, Row<T>>,
    names: OrdMap<Arc<str>, Id<T>>,
}

impl<T: Kind> Default for Table<T> {
    fn default() -> Self {
        Self { rows: Layered::default(), names: OrdMap::new() }
    }
}

impl<T: Kind> Table<T> {
    /// The object with this id. O(log n).
    #[must_use]
    pub fn get(&self, id: Id<T>) -> Option<&Arc<T>> {
        self.rows.get(&id).map(|row| &row.0)
    }

    /// The object with exactly this name. O(log n).
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Arc<T>> {
        self.get(*self.names.get(name)?)
    }

    /// Every object, in order of id.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<T>> {
        self.rows.iter().map(|(_, row)| &row.0)
    }

    /// What was written between another version of this table and this one: each object before
    /// and after, in order of id. O(changes · log n) where one version came from the other.
    pub fn changes_since<'a>(
        &'a self,
        other: &'a Self,
    ) -> impl Iterator<Item = (Option<&'a Arc<T>>, Option<&'a Arc<T>>)> {
        let versions = self.rows.since(&other.rows);
        versions.map(|(old, new)| (old.map(|old| &old.0), new.map(|new| &new.0)))
    }

    /// Every object whose id starts with `prefix`, in order of id. O(log n) to the first.
    pub fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Arc<T>> + 'a {
        first_with(prefix)
            .into_iter()
            .flat_map(|first| self.rows.range(first..=Id::MAX))
            .take_while(move |(id, _)| id.as_str().starts_with(prefix))
            .map(|(_, row)| &row.0)
    }

    /// How many. O(1); of a working copy, O(what is staged · log n).
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.first().is_none()
    }

    fn check_name(&self, object: &T) -> Result<(), CommitError> {
        match object.name() {
            Some(name) if self.names.get(name).is_some_and(|holder| *holder != object.id()) => {
                Err(CommitError::NameTaken { kind: T::WORD, name: name.to_owned() })
            }
            _ => Ok(()),
        }
    }

    fn put(&mut self, layer: Layer, old: Option<&T>, new: Option<&Arc<T>>) {
        let (old_name, new_name) = (old.and_then(Kind::name), new.and_then(|new| new.name()));
        if old_name != new_name {
            old_name.map(|name| self.names.remove(name));
            if let (Some(name), Some(new)) = (new_name, new) {
                self.names.insert(name.into(), new.id());
            }
        }
        match (new, old) {
            (Some(new), _) => self.rows.write(layer, old.is_some(), new.id(), Row(new.clone())),
            (None, Some(old)) => self.rows.remove(layer, &old.id()),
            (None, None) => {}
        }
    }
}

/// The state of the cluster at one version: immutable for its holders, cloned in constant time.
///
/// A planner works on a clone of its own, to which it [`stage`](Self::stage)s what it decided.
#[derive(Clone, Default)]
pub struct Snapshot {
    version: Version,
    /// The cluster object: one, once the cluster is initialised.
    pub clusters: Table<Cluster>,
    /// The nodes.
    pub nodes: Table<Node>,
    /// The services.
    pub services: Table<Service>,
    /// The tasks.
    pub tasks: TaskTable,
    /// The networks.
    pub networks: Table<Network>,
    /// The secrets.
    pub secrets: Table<Secret>,
    /// The configs.
    pub configs: Table<Config>,
    services_by_network: OrdSet<(NetworkId, ServiceId)>,
    services_global: OrdSet<ServiceId>,
    /// The nodes that are down or drained, and those that tasks name and that are not there.
    nodes_lost: OrdSet<NodeId>,
    /// Of a working copy: where it stands.
    staged: Option<Place>,
}

/// What staging a change did: nothing, where it had nothing to say; or why it cannot be.
pub type Staged = Result<Option<Event>, CommitError>;

/// Where a working copy stands: at a place that no other had before something was staged on it.
#[derive(Clone)]
struct Place {
    /// What was staged on the way here. Where this lies names the place.
    written: Arc<Vec<Staged>>,
    /// The place before.
    from: Option<Mark>,
}

/// A place in the life of one working copy. Copies of it share the place until something is staged
/// on one of them. Keeps nothing that was staged there.
#[derive(Clone, Debug)]
pub struct Mark(Weak<Vec<Staged>>);

/// How a change is written: as a commit, or staged on a planner's working copy.
#[derive(Clone, Copy)]
pub(super) struct Stamp {
    pub(super) at: Timestamp,
    /// Absent while staging: revisions stay what the writer read.
    pub(super) version: Option<Version>,
}

impl Stamp {
    fn layer(self) -> Layer {
        if self.version.is_some() { Layer::Base } else { Layer::Staged }
    }
}

/// The smallest id that can start with a prefix; `None` if none can, or if the prefix is empty.
pub(super) fn first_with<T: ?Sized>(prefix: &str) -> Option<Id<T>> {
    let padded = format!("{prefix:0<25}");
    padded.parse().ok().filter(|_| !prefix.is_empty())
}

fn all<T: ?Sized>() -> RangeInclusive<Id<T>> {
    Id::MIN..=Id::MAX
}

pub(super) fn range<A: Copy, T: ?Sized>(key: A) -> RangeInclusive<(A, Id<T>)> {
    (key, *all::<T>().start())..=(key, *all::<T>().end())
}

impl Snapshot {
    /// The commit that this is the state after.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The cluster object, once the cluster is initialised.
    #[must_use]
    pub fn cluster(&self) -> Option<&Arc<Cluster>> {
        self.clusters.rows.first().map(|(_, row)| &row.0)
    }

    /// The tasks of a service, in order of id.
    pub fn tasks_of(&self, service: ServiceId) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks.of_service(service)
    }

    /// What somebody derives from the tasks of a service, worked out once for as long as none of
    /// them is written: several planners look at the same tasks in the same way.
    ///
    /// `derive` must depend on these tasks alone. It is given the value from before and the tasks
    /// that are not as they were then, while these are few; it may derive from both what it would
    /// derive from all tasks. One value is kept for a service, so this pays for what is asked for
    /// often; of another type than the one kept it is derived each time.
    pub fn derived_of<T: std::any::Any + Send + Sync>(
        &self,
        service: ServiceId,
        derive: impl FnOnce(Option<(&T, &[Touched])>) -> T,
    ) -> Arc<T> {
        self.tasks.derived_of(service, derive)
    }

    /// The tasks on a node, in order of id.
    pub fn tasks_on(&self, node: NodeId) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks.on_node(node)
    }

    /// Whether a task of this state cannot stay on the node that it names: that is gone, down or
    /// drained. O(log of such nodes), which are few; asked for every task that a planner looks at.
    #[must_use]
    pub fn is_lost(&self, node: NodeId) -> bool {
        self.nodes_lost.contains(&node)
    }

    /// The nodes that tasks name, whether they still exist or not, in order. O(log n) for each.
    pub fn nodes_with_tasks(&self) -> impl Iterator<Item = NodeId> {
        self.tasks.nodes()
    }

    /// The tasks attached to a network, in order of id.
    pub fn tasks_in(&self, network: NetworkId) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks.in_network(network)
    }

    /// The tasks that shall be removed, in order of service.
    pub fn tasks_to_remove(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks.to_remove()
    }

    /// The tasks of a service that shall be removed, in order of id.
    pub fn tasks_to_remove_of(&self, service: ServiceId) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks.to_remove_of(service)
    }

    /// The tasks that no agent has been told of: observed below `assigned`. In order of service.
    pub fn tasks_unassigned(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks.waiting()
    }

    /// The services that have tasks that no agent has been told of, in order of id.
    pub fn services_unassigned(&self) -> impl Iterator<Item = ServiceId> {
        self.tasks.services_waiting()
    }

    /// The tasks of a service that no agent has been told of, in order of id.
    pub fn tasks_unassigned_of(&self, service: ServiceId) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks.waiting_of(service)
    }

    /// The services whose specification names a network, and those that still hold a virtual
    /// address there, in order of id.
    pub fn services_in(&self, network: NetworkId) -> impl Iterator<Item = &Arc<Service>> {
        let ids = self.services_by_network.range(range(network)).map(|(_, id)| *id);
        ids.filter_map(|id| self.services.get(id))
    }

    /// The services in the global modes, in order of id: each node concerns all of them.
    pub fn services_global(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services_global.iter().filter_map(|id| self.services.get(*id))
    }

    /// One object of any kind.
    #[must_use]
    pub fn get(&self, id: ObjectRef) -> Option<Object> {
        Some(match id {
            ObjectRef::Cluster(id) => self.clusters.get(id)?.clone().into(),
            ObjectRef::Node(id) => self.nodes.get(id)?.clone().into(),
            ObjectRef::Service(id) => self.services.get(id)?.clone().into(),
            ObjectRef::Task(id) => self.tasks.get(id)?.clone().into(),
            ObjectRef::Network(id) => self.networks.get(id)?.clone().into(),
            ObjectRef::Secret(id) => self.secrets.get(id)?.clone().into(),
            ObjectRef::Config(id) => self.configs.get(id)?.clone().into(),
        })
    }

    /// The object with the id of this one. A task is looked for where this one says it belongs.
    pub(super) fn like(&self, object: &Object) -> Option<Object> {
        match object {
            Object::Task(task) => {
                let found = self.tasks.of(task.service_id, task.id);
                Some(found.or_else(|| self.tasks.get(task.id))?.clone().into())
            }
            other => self.get(other.id()),
        }
    }

    /// Every object: the cluster, nodes, networks, secrets, configs, services, then tasks.
    pub fn objects(&self) -> impl Iterator<Item = Object> + '_ {
        (self.clusters.iter().cloned().map(Object::from))
            .chain(self.nodes.iter().cloned().map(Object::from))
            .chain(self.networks.iter().cloned().map(Object::from))
            .chain(self.secrets.iter().cloned().map(Object::from))
            .chain(self.configs.iter().cloned().map(Object::from))
            .chain(self.services.iter().cloned().map(Object::from))
            .chain(self.tasks.iter().cloned().map(Object::from))
    }

    /// The state that holds exactly these objects, stamps included.
    #[must_use]
    pub fn from_objects(version: Version, objects: impl IntoIterator<Item = Object>) -> Self {
        let mut snapshot = Self { version, ..Self::default() };
        for object in objects {
            snapshot.put(Layer::Base, None, Some(&object));
        }
        snapshot.close();
        snapshot
    }

    /// Whether a task that was written is listed wherever it belongs.
    pub(super) fn is_indexed(&self, old: Option<&Task>, task: &Task) -> bool {
        self.tasks.is_indexed(old, task)
    }

    /// Writes a decision to a planner's own copy, so that what is decided next sees it. Revisions
    /// stay what they were read at, so the change can be committed as it is.
    ///
    /// # Errors
    /// As [`commit`](super::Store::commit) would fail.
    pub fn stage(&mut self, change: Change, at: Timestamp) -> Result<Option<Event>, CommitError> {
        self.stage_all([change], at)[0].clone()
    }

    /// A copy to [`stage`](Self::stage) on, which stands at a place of its own before that.
    #[must_use]
    pub fn working_copy(&self) -> Self {
        Self { staged: Some(Place { written: Arc::default(), from: None }), ..self.clone() }
    }

    /// Where this working copy stands; nowhere, if it is none and nothing was staged on it.
    #[must_use]
    pub fn mark(&self) -> Option<Mark> {
        self.staged.as_ref().map(|place| Mark(Arc::downgrade(&place.written)))
    }

    /// What was staged on this working copy since it was at a mark, in order, if that is where it is,
    /// or was before the last row of changes. Who expected just that need not look for anything else.
    #[must_use]
    pub fn staged_since(&self, mark: &Mark) -> Option<&[Staged]> {
        if self.mark()?.0.ptr_eq(&mark.0) {
            return Some(&[]);
        }
        let place = self.staged.as_ref()?;
        place.from.as_ref()?.0.ptr_eq(&mark.0).then_some(&place.written[..])
    }

    /// [Stages](Self::stage) one change after the other, faster where they are about the tasks of
    /// one service. One that fails does not keep the others from being staged.
    pub fn stage_all(
        &mut self,
        changes: impl IntoIterator<Item = Change>,
        at: Timestamp,
    ) -> Arc<Vec<Staged>> {
        let stamp = Stamp { at, version: None };
        let staged = changes.into_iter().map(|change| self.apply(change, stamp)).collect();
        self.close();
        let written: Arc<Vec<Staged>> = Arc::new(staged);
        if !written.is_empty() {
            self.staged = Some(Place { written: written.clone(), from: self.mark() });
        }
        written
    }

    /// Applies one change; `None` where an [`Change::Advance`] or [`Change::Desire`]
    /// had nothing to say. [`close`](Self::close) after the last.
    pub(super) fn apply(
        &mut self,
        change: Change,
        stamp: Stamp,
    ) -> Result<Option<Event>, CommitError> {
        match change {
            Change::Create(object) => self.create(object, stamp).map(Some),
            Change::Update(object) => self.update(object, stamp).map(Some),
            Change::Remove(id, revision) => self.remove(id, revision, stamp).map(Some),
            Change::Advance(task, status) => Ok(self.advance(task, *status, stamp)),
            Change::Desire(task, state) => Ok(self.desire(task, state, stamp)),
        }
    }

    /// Ends a row of writes: until then, nobody but the writes reads.
    pub(super) fn close(&mut self) {
        self.tasks.close();
    }

    pub(super) fn set_version(&mut self, version: Version) {
        self.version = version;
    }

    fn create(&mut self, object: Object, stamp: Stamp) -> Result<Event, CommitError> {
        let id = object.id();
        let exists = match id {
            ObjectRef::Task(id) => self.tasks.contains(id),
            id => self.get(id).is_some(),
        };
        if exists {
            return Err(CommitError::Exists(id));
        }
        self.check_name(&object)?;
        let object = stamped(object, None, stamp);
        self.put(stamp.layer(), None, Some(&object));
        Ok(Event { old: None, new: Some(object) })
    }

    fn update(&mut self, mut object: Object, stamp: Stamp) -> Result<Event, CommitError> {
        let id = object.id();
        if let Object::Task(task) = &object {
            self.tasks.open(stamp.layer(), task.service_id);
        }
        let old = self.like(&object).ok_or(CommitError::Missing(id))?;
        check_revision(&old, object.revision())?;
        if let (Object::Task(old), Object::Task(new)) = (&old, &object) {
            check_task(old, new)?;
        }
        if let Object::Task(task) = &mut object
            && task.status.state.is_terminal()
            && task.ended_at.is_none()
        {
            Arc::make_mut(task).ended_at = Some(stamp.at);
        }
        if object.name() != old.name() {
            self.check_name(&object)?;
        }
        let new = stamped(object, Some(&old), stamp);
        self.put(stamp.layer(), Some(&old), Some(&new));
        Ok(Event { old: Some(old), new: Some(new) })
    }

    fn remove(
        &mut self,
        id: ObjectRef,
        revision: Option<Version>,
        stamp: Stamp,
    ) -> Result<Event, CommitError> {
        let old = self.get(id).ok_or(CommitError::Missing(id))?;
        if let Some(expected) = revision {
            check_revision(&old, expected)?;
        }
        self.put(stamp.layer(), Some(&old), None);
        Ok(Event { old: Some(old), new: None })
    }

    fn advance(&mut self, id: TaskId, status: TaskStatus, stamp: Stamp) -> Option<Event> {
        let old = self.tasks.get(id)?.clone();
        let same_state = old.status.state == status.state && old.status != status;
        if !same_state && !old.status.state.may_become(status.state) {
            return None;
        }
        let mut task = Task::clone(&old);
        if status.state == TaskState::Running {
            task.running_since.get_or_insert(stamp.at);
        }
        if status.state.is_terminal() {
            task.ended_at.get_or_insert(stamp.at);
        }
        task.status = evicted(&task, status);
        Some(self.put_task(old, task, stamp))
    }

    fn desire(&mut self, id: TaskId, state: TaskState, stamp: Stamp) -> Option<Event> {
        let old = self.tasks.get(id)?.clone();
        if old.desired_state == state || !state.may_be_desired_after(old.desired_state) {
            return None;
        }
        let mut task = Task::clone(&old);
        task.desired_state = state;
        Some(self.put_task(old, task, stamp))
    }

    fn put_task(&mut self, old: Arc<Task>, new: Task, stamp: Stamp) -> Event {
        let old = Object::Task(old);
        let new = stamped(new.into(), Some(&old), stamp);
        self.put(stamp.layer(), Some(&old), Some(&new));
        Event { old: Some(old), new: Some(new) }
    }

    fn check_name(&self, object: &Object) -> Result<(), CommitError> {
        match object {
            Object::Cluster(_) | Object::Node(_) | Object::Task(_) => Ok(()),
            Object::Service(object) => self.services.check_name(object),
            Object::Network(object) => self.networks.check_name(object),
            Object::Secret(object) => self.secrets.check_name(object),
            Object::Config(object) => self.configs.check_name(object),
        }
    }

    /// Puts an object in the place of another, in its table and in every index.
    fn put<'a>(&mut self, layer: Layer, old: Option<&'a Object>, new: Option<&'a Object>) {
        macro_rules! put {
            ($($kind:ident => $table:ident),*) => {
                match new.or(old) {
                    $(Some(Object::$kind(_)) => {
                        fn of(object: Option<&Object>) -> Option<&Arc<$kind>> {
                            match object {
                                Some(Object::$kind(object)) => Some(object),
                                _ => None,
                            }
                        }
                        self.$table.put(layer, of(old).map(|old| old.as_ref()), of(new));
                    })*
                    Some(Object::Task(_)) | None => {}
                }
            };
        }
        put!(Cluster => clusters, Node => nodes, Service => services,
             Network => networks, Secret => secrets, Config => configs);
        match (old, new) {
            (Some(Object::Task(_)), _) | (_, Some(Object::Task(_))) => {
                let task = |object: Option<&'a Object>| match object {
                    Some(Object::Task(task)) => Some(task),
                    _ => None,
                };
                let (old, new) = (task(old).map(Arc::as_ref), task(new));
                self.tasks.put(layer, old, new);
                let nodes = [old.and_then(|old| old.node_id), new.and_then(|new| new.node_id)];
                if nodes[0] != nodes[1] {
                    // Of a node that is there, its tasks do not say whether it is lost.
                    let there = |node: &NodeId| self.nodes.rows.contains(node);
                    let [left, came] = [
                        nodes[0].filter(|node| self.nodes_lost.contains(node)),
                        nodes[1].filter(|node| !there(node)),
                    ];
                    left.into_iter().chain(came).for_each(|node| self.find_lost(node));
                }
            }
            (Some(Object::Node(node)), _) | (_, Some(Object::Node(node))) => {
                self.find_lost(node.id);
            }
            (Some(Object::Service(_)), _) | (_, Some(Object::Service(_))) => {
                let service = |object: Option<&'a Object>| match object {
                    Some(Object::Service(service)) => Some(&**service),
                    _ => None,
                };
                let (old, new) = (service(old), service(new));
                reindex(
                    &mut self.services_by_network,
                    service_networks(old),
                    service_networks(new),
                );
                reindex(&mut self.services_global, global_service(old), global_service(new));
            }
            _ => {}
        }
    }

    /// Lists a node as lost, or no longer: when it changed, or, if it is not there, its tasks did.
    fn find_lost(&mut self, id: NodeId) {
        let lost = match self.nodes.get(id) {
            Some(node) => {
                node.status.state == NodeState::Down
                    || node.spec.availability == Availability::Drain
            }
            None => self.tasks.on_node(id).next().is_some(),
        };
        if lost != self.nodes_lost.contains(&id) {
            if lost {
                self.nodes_lost.insert(id)
            } else {
                self.nodes_lost.remove(&id)
            };
        }
    }
}

fn service_networks(
    service: Option<&Service>,
) -> impl Iterator<Item = (NetworkId, ServiceId)> + Clone {
    service.into_iter().flat_map(|service| {
        let targets = service.spec.task.networks.iter().chain(&service.spec.networks);
        let held = service.endpoint.iter().flat_map(|endpoint| &endpoint.virtual_ips);
        targets
            .filter_map(|attachment| attachment.target.parse().ok())
            .chain(held.map(|held| held.network_id))
            .map(|network| (network, service.id))
    })
}

fn global_service(service: Option<&Service>) -> impl Iterator<Item = ServiceId> + Clone {
    service.into_iter().filter(|service| service.spec.mode.is_global()).map(|service| service.id)
}

/// Takes keys out of an index and puts others in. They are few: mostly none.
fn reindex<K: Ord + Copy>(
    index: &mut OrdSet<K>,
    old: impl Iterator<Item = K> + Clone,
    new: impl Iterator<Item = K> + Clone,
) {
    for key in old.clone().filter(|key| !new.clone().any(|other| other == *key)) {
        index.remove(&key);
    }
    for key in new.filter(|key| !old.clone().any(|other| other == *key)) {
        index.insert(key);
    }
}

fn check_revision(old: &Object, expected: Version) -> Result<(), CommitError> {
    if old.revision() == expected {
        return Ok(());
    }
    Err(CommitError::Conflict { object: old.id(), expected, stored: old.revision() })
}

/// The rules that every writer of a task keeps.
fn check_task(old: &Task, new: &Task) -> Result<(), CommitError> {
    let illegal = |reason: String| Err(CommitError::Illegal { task: old.id, reason });
    if old.desired_state != new.desired_state
        && !new.desired_state.may_be_desired_after(old.desired_state)
    {
        return illegal(format!(
            "desired {} cannot follow {}",
            new.desired_state, old.desired_state
        ));
    }
    if old.status.state != new.status.state && !old.status.state.may_become(new.status.state) {
        return illegal(format!("{} cannot follow {}", new.status.state, old.status.state));
    }
    if old.node_id.is_some() && old.node_id != new.node_id {
        return illegal("its node cannot change".to_owned());
    }
    Ok(())
}

/// The object with a commit's stamps, or unchanged while staging.
fn stamped(object: Object, old: Option<&Object>, stamp: Stamp) -> Object {
    fn one<T: Kind>(mut object: Arc<T>, old: Option<&T>, stamp: Stamp) -> Object
    where
        Arc<T>: Into<Object>,
    {
        if let Some(version) = stamp.version {
            Arc::make_mut(&mut object).stamp(old, version, stamp.at);
        }
        object.into()
    }
    macro_rules! each {
        ($($kind:ident),*) => {
            match (object, old) {
                $((Object::$kind(object), Some(Object::$kind(old))) => one(object, Some(old.as_ref()), stamp),
                  (Object::$kind(object), _) => one(object, None, stamp),)*
            }
        };
    }
    each!(Cluster, Node, Service, Task, Network, Secret, Config)
}

/// What is recorded of a task that was made to leave its node: its end is a rejection, or, where it
/// made room for another, what it was told, with the reason.
fn evicted(task: &Task, status: TaskStatus) -> TaskStatus {
    let ends = status.state.is_terminal() && status.state < TaskState::Rejected;
    match &task.eviction {
        Some(err) if ends => TaskStatus {
            state: TaskState::Rejected,
            message: "task rejected by constraint enforcer".into(),
            err: err.clone(),
            ..status
        },
        _ if ends && status.err.is_empty() => {
            TaskStatus { err: task.preempted.clone().unwrap_or_default(), ..status }
        }
        _ => status,
    }
}
