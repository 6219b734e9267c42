//! Pure: the tasks of a service by the place that they fill, and what a new task looks like.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use swarm_core::control::Ctx;
use swarm_core::model::{
    NodeFailures, NodeId, Service, ServiceAnnotations, Task, TaskState, TaskStatus, Version,
};
use swarm_core::store::{Snapshot, Touched};
use swarm_core::time::Timestamp;

use super::restart;
use crate::place::failures;

/// What a task stands for: a numbered slot, or in the global modes a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// A slot: from 1, in a job from 0.
    Slot(u64),
    /// A node.
    Node(NodeId),
}

impl Place {
    fn of(task: &Task, global: bool) -> Self {
        if global { Self::Node(task.node_id.unwrap_or_default()) } else { Self::Slot(task.slot) }
    }
}

/// The tasks of one service, grouped by place. Tasks that shall be removed fill no place: they
/// are left out.
///
/// Planners pass over all places of a service for each event of it, and most of these are
/// [calm](Slot::is_calm). What tells that lies side by side, so that they need not fetch the tasks.
/// Nor are all of these fetched and sorted again for an event of a few: the places of those lie
/// beside the others, until there are many.
pub(super) struct Slots {
    sorted: Arc<Sorted>,
    /// The places whose tasks changed after they had been sorted, with all their tasks: maybe none.
    since: BTreeMap<Place, Vec<Arc<Task>>>,
}

/// The tasks as they were at one time.
struct Sorted {
    tasks: Vec<Arc<Task>>,
    places: Vec<Known>,
    /// The first calm task, which most are [like](Slot::alike).
    sample: Option<Arc<Task>>,
    global: bool,
}

/// A place, and what is known of its tasks.
struct Known {
    place: Place,
    /// The first task of the next place.
    end: usize,
    calm: Option<Calm>,
}

/// Of the one task of a calm place.
#[derive(Clone, Copy)]
struct Calm {
    node: Option<NodeId>,
    alike: bool,
}

impl Slots {
    /// The tasks of a service. Those that look at them in one step share what the first has sorted.
    pub(super) fn of(view: &Snapshot, service: &Service) -> Arc<Self> {
        let global = service.spec.mode.is_global();
        let sort = || Self::from_tasks(view.tasks_of(service.id).cloned(), global);
        let slots = view.derived_of(service.id, |before: Option<(&Self, &[Touched])>| {
            let followed = before.and_then(|(slots, changes)| slots.follow(changes, view, service));
            followed.unwrap_or_else(sort)
        });
        // A service does not change its mode; were it otherwise, this would be of the mode before.
        let slots = if slots.sorted.global == global { slots } else { Arc::new(sort()) };
        debug_assert!(slots.iter().eq(sort().iter()), "what was followed is what would be sorted");
        slots
    }

    pub(super) fn from_tasks(tasks: impl Iterator<Item = Arc<Task>>, global: bool) -> Self {
        let left = tasks.filter(|task| task.desired_state != TaskState::Remove);
        let tasks = if global {
            sorted(left, |task| task.node_id.unwrap_or_default())
        } else {
            sorted(left, |task| task.slot)
        };
        let sample = tasks.iter().find(|task| is_calm(task)).cloned();
        let same =
            |one: &Arc<Task>, other: &Arc<Task>| Place::of(one, global) == Place::of(other, global);
        let mut end = 0;
        let places = tasks.chunk_by(same).map(|tasks| {
            end += tasks.len();
            let calm = Calm::of(tasks, sample.as_deref());
            Known { place: Place::of(&tasks[0], global), end, calm }
        });
        let places = places.collect();
        let sorted = Arc::new(Sorted { tasks, places, sample, global });
        Self { sorted, since: BTreeMap::new() }
    }

    /// The same after a few tasks have changed: none, if to sort all is no more work.
    fn follow(&self, changes: &[Touched], view: &Snapshot, service: &Service) -> Option<Self> {
        let place = |task: &Touched| match self.sorted.global {
            true => Place::Node(task.node.unwrap_or_default()),
            false => Place::Slot(task.slot),
        };
        let mut since = self.since.clone();
        for changed in changes.iter().map(place).collect::<BTreeSet<_>>() {
            let known = self.at(changed).iter().map(|task| task.id);
            let touched = changes.iter().filter(|task| place(task) == changed).map(|task| task.id);
            let ids: BTreeSet<_> = known.chain(touched).collect();
            let tasks = ids.into_iter().filter_map(|id| view.tasks.of(service.id, id));
            let mut tasks: Vec<_> = tasks
                .filter(|task| task.desired_state != TaskState::Remove)
                .filter(|task| Place::of(task, self.sorted.global) == changed)
                .cloned()
                .collect();
            tasks.sort_by_key(|task| age(task));
            since.insert(changed, tasks);
        }
        let few = 8 + self.sorted.places.len() / 8;
        (since.len() <= few).then(|| Self { sorted: self.sorted.clone(), since })
    }

    /// The tasks of a place.
    fn at(&self, place: Place) -> &[Arc<Task>] {
        if let Some(tasks) = self.since.get(&place) {
            return tasks;
        }
        let places = &self.sorted.places;
        let Ok(found) = places.binary_search_by_key(&place, |known| known.place) else {
            return &[];
        };
        let start = found.checked_sub(1).map_or(0, |before| places[before].end);
        &self.sorted.tasks[start..places[found].end]
    }

    /// A task that shall run and does, or will, or did when the tasks were sorted: what is said of it
    /// holds for all places that are [alike](Slot::alike).
    pub(super) fn sample(&self) -> Option<&Arc<Task>> {
        self.sorted.sample.as_ref()
    }

    /// As many places as have tasks, or a few more.
    pub(super) fn len(&self) -> usize {
        self.sorted.places.len() + self.since.len()
    }

    /// The places that have tasks, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Slot<'_>> {
        let mut start = 0;
        let mut sorted = self.sorted.places.iter().map(move |known| {
            let tasks = &self.sorted.tasks[start..known.end];
            start = known.end;
            Slot { place: known.place, tasks, known: known.calm }
        });
        let sample = self.sample().map(|sample| &**sample);
        let mut since = self.since.iter().map(move |(place, tasks)| Slot {
            place: *place,
            tasks,
            known: Calm::of(tasks, sample),
        });
        let (mut next, mut newer) = (sorted.next(), since.next());
        let merged = std::iter::from_fn(move || {
            let order = match (&next, &newer) {
                (Some(next), Some(newer)) => next.place.cmp(&newer.place),
                (Some(_), None) => Ordering::Less,
                (None, _) => Ordering::Greater,
            };
            if order.is_lt() {
                return std::mem::replace(&mut next, sorted.next());
            }
            if order.is_eq() {
                next = sorted.next();
            }
            std::mem::replace(&mut newer, since.next())
        });
        merged.filter(|slot| !slot.tasks.is_empty())
    }
}

impl Calm {
    /// What is known of a place's one task, if it has one that is calm.
    fn of(tasks: &[Arc<Task>], sample: Option<&Task>) -> Option<Self> {
        match tasks {
            [task] if is_calm(task) => {
                let alike = sample.is_some_and(|sample| are_alike(task, sample));
                Some(Self { node: task.node_id, alike })
            }
            _ => None,
        }
    }
}

/// Tasks by the order of a key, and among those of the same key the latest run last, in it the newest.
fn sorted<K: Ord>(
    tasks: impl Iterator<Item = Arc<Task>>,
    key: impl Fn(&Task) -> K,
) -> Vec<Arc<Task>> {
    // Keys side by side: comparing them in place would fetch two tasks for each comparison.
    let mut tasks: Vec<_> = tasks.map(|task| (key(&task), task)).collect();
    tasks.sort_by(|(one, _), (other, _)| one.cmp(other));
    for same in tasks.chunk_by_mut(|(one, _), (other, _)| one == other) {
        if same.len() > 1 {
            same.sort_by_key(|(_, task)| age(task));
        }
    }
    tasks.into_iter().map(|(_, task)| task).collect()
}

/// In which order the tasks of a place were made. The times alone do not say: a new leader's clock
/// may be behind the one before.
fn age(task: &Task) -> impl Ord + use<> {
    (task.job_iteration, task.turn, task.created_at, task.id)
}

/// Whether a task shall run, now and not later, has not ended, and may stay as far as it was told.
fn is_calm(task: &Task) -> bool {
    task.is_wanted()
        && task.desired_state != TaskState::Ready
        && !task.status.state.is_terminal()
        && task.eviction.is_none()
}

/// Whether two tasks were made from the same specification by the same roll-out, and reach the network
/// in the same way: by looking at what they share, so not of all that are.
fn are_alike(one: &Task, other: &Task) -> bool {
    let same_endpoint = match (&one.endpoint, &other.endpoint) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (one, other) => one.is_none() && other.is_none(),
    };
    Arc::ptr_eq(&one.spec, &other.spec)
        && same_endpoint
        && one.rollout == other.rollout
        && one.registry_auth == other.registry_auth
}

/// One place and its tasks, of which there is at least one.
#[derive(Clone, Copy)]
pub(super) struct Slot<'a> {
    pub(super) place: Place,
    /// The oldest first.
    pub(super) tasks: &'a [Arc<Task>],
    known: Option<Calm>,
}

/// The same place with the very same tasks.
impl PartialEq for Slot<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.place == other.place
            && self.tasks.len() == other.tasks.len()
            && self.tasks.iter().zip(other.tasks).all(|(one, other)| Arc::ptr_eq(one, other))
    }
}

impl<'a> Slot<'a> {
    /// Whether nothing is to be done about the place unless its node is [lost](Snapshot::is_lost) or
    /// the service changes: it has one task, which shall run, and does or will.
    pub(super) fn is_calm(&self, view: &Snapshot) -> bool {
        let lost = |node| view.is_lost(node);
        self.known.is_some_and(|known| !known.node.is_some_and(lost))
    }

    /// Whether it has one task alone, which has not ended and shall not.
    pub(super) fn has_one(&self) -> bool {
        self.known.is_some()
    }

    /// Whether its one task shall run, and is up to date if the [sample](Slots::sample) is.
    pub(super) fn alike(&self) -> bool {
        self.known.is_some_and(|known| known.alike)
    }

    /// The task that was made last.
    pub(super) fn newest(&self) -> &'a Arc<Task> {
        self.tasks.last().expect("a slot has a task")
    }

    /// Where this version of the service failed lately, as far as the place remembers. A task that has
    /// its node already need not know.
    pub(super) fn failures(&self, version: Version, now: Timestamp) -> Vec<NodeFailures> {
        match self.place {
            Place::Slot(_) => failures::inherited(self.tasks, version, now),
            Place::Node(_) => Vec::new(),
        }
    }

    /// The tasks that shall run, or have run as they should: usually one, two while one takes over
    /// from the other.
    pub(super) fn wanted(&self) -> impl DoubleEndedIterator<Item = &'a Arc<Task>> + use<'a> {
        self.tasks.iter().filter(|task| task.is_wanted())
    }

    /// Whether the place is taken: by a task that shall run, or by one that ended for good and
    /// that its restart policy leaves at that.
    pub(super) fn is_taken(&self, now: Timestamp) -> bool {
        self.known.is_some()
            || self.wanted().next().is_some()
            || !restart::should_restart(self.newest(), now)
    }
}

/// The better of two tasks to keep in a place: one that runs, then the newer one.
pub(super) fn rank(task: &Task) -> impl Ord + use<> {
    (task.status.state == TaskState::Running, age(task))
}

/// What a task is to become once nothing keeps it waiting: the tasks of a job's run shall complete.
pub(super) fn goal(job_iteration: Option<Version>) -> TaskState {
    if job_iteration.is_some() { TaskState::Complete } else { TaskState::Running }
}

/// Makes tasks of a service. What they share, they share.
pub(super) struct Maker {
    common: Task,
}

impl Maker {
    pub(super) fn new(view: &Snapshot, service: &Service) -> Self {
        let annotations = ServiceAnnotations {
            name: service.spec.name.clone(),
            labels: service.spec.labels.clone(),
            ..Default::default()
        };
        let default = view.cluster().and_then(|it| it.spec.task_defaults.log_driver.clone());
        let log_driver = default.filter(|_| service.spec.task.log_driver.is_none());
        let job_iteration = service.job_iteration();
        let common = Task {
            spec: service.spec.task.clone(),
            service_id: service.id,
            desired_state: goal(job_iteration),
            job_iteration,
            log_driver,
            spec_version: service.version,
            annotations: Arc::new(annotations),
            registry_auth: service.registry_auth.clone(),
            ..Task::default()
        };
        Self { common }
    }

    /// A new task that shall run at once, in a place that may have had others.
    pub(super) fn task(&self, place: Place, former: Option<Slot<'_>>, ctx: &mut Ctx<'_>) -> Task {
        let (slot, node_id) = match place {
            Place::Slot(slot) => (slot, None),
            Place::Node(node) => (0, Some(node)),
        };
        Task {
            id: ctx.ids.beside(self.common.service_id),
            created_at: ctx.now,
            updated_at: ctx.now,
            slot,
            turn: former.map_or(0, |slot| slot.newest().turn + 1),
            failures: former
                .map_or_else(Vec::new, |slot| slot.failures(self.common.spec_version, ctx.now)),
            node_id,
            status: TaskStatus::new(TaskState::New, ctx.now, "created"),
            ..self.common.clone()
        }
    }
}
