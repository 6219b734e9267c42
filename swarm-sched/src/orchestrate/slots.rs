//! Pure: the tasks of a service by the place that they fill, and what a new task looks like.

use std::sync::Arc;

use swarm_core::control::Ctx;
use swarm_core::model::{
    Driver, NodeId, Service, ServiceAnnotations, Task, TaskState, TaskStatus, Version,
};
use swarm_core::store::Snapshot;
use swarm_core::time::Timestamp;

use super::restart;

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
pub(super) struct Slots {
    tasks: Vec<Arc<Task>>,
    global: bool,
}

impl Slots {
    /// The tasks of a service. Those that look at them in one step share what the first has sorted.
    pub(super) fn of(view: &Snapshot, service: &Service) -> Arc<Self> {
        let global = service.spec.mode.is_global();
        let sort = || Self::from_tasks(view.tasks_of(service.id).cloned(), global);
        let slots = view.derived_of(service.id, sort);
        // A service does not change its mode; were it otherwise, this would be of the mode before.
        if slots.global == global { slots } else { Arc::new(sort()) }
    }

    pub(super) fn from_tasks(tasks: impl Iterator<Item = Arc<Task>>, global: bool) -> Self {
        let left = |task: &Arc<Task>| task.desired_state != TaskState::Remove;
        let mut tasks: Vec<_> = tasks.filter(left).collect();
        // Keys side by side: comparing them in place would fetch two tasks for each comparison.
        tasks.sort_by_cached_key(|task| {
            (Place::of(task, global), task.job_iteration, task.created_at, task.id)
        });
        Self { tasks, global }
    }

    /// The places that have tasks, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Slot<'_>> {
        let global = self.global;
        self.tasks
            .chunk_by(move |one, other| Place::of(one, global) == Place::of(other, global))
            .map(move |tasks| Slot { place: Place::of(&tasks[0], global), tasks })
    }
}

/// One place and its tasks, of which there is at least one.
#[derive(Clone, Copy)]
pub(super) struct Slot<'a> {
    pub(super) place: Place,
    /// The oldest first.
    pub(super) tasks: &'a [Arc<Task>],
}

impl<'a> Slot<'a> {
    /// The task that was made last.
    pub(super) fn newest(&self) -> &'a Arc<Task> {
        self.tasks.last().expect("a slot has a task")
    }

    /// The tasks that shall run, or have run as they should: usually one, two while one takes over
    /// from the other.
    pub(super) fn wanted(&self) -> impl DoubleEndedIterator<Item = &'a Arc<Task>> + use<'a> {
        self.tasks.iter().filter(|task| task.is_wanted())
    }

    /// Whether the place is taken: by a task that shall run, or by one that ended for good and
    /// that its restart policy leaves at that.
    pub(super) fn is_taken(&self, now: Timestamp) -> bool {
        self.wanted().next().is_some() || !restart::should_restart(self.newest(), now)
    }
}

/// The better of two tasks to keep in a place: one that runs, then the newer one.
pub(super) fn rank(task: &Task) -> (bool, Timestamp, swarm_core::model::TaskId) {
    (task.status.state == TaskState::Running, task.created_at, task.id)
}

/// What a task is to become once nothing keeps it waiting: the tasks of a job's run shall complete.
pub(super) fn goal(job_iteration: Option<Version>) -> TaskState {
    if job_iteration.is_some() { TaskState::Complete } else { TaskState::Running }
}

/// Makes tasks of a service. What they share, they share.
pub(super) struct Maker<'a> {
    service: &'a Service,
    annotations: Arc<ServiceAnnotations>,
    log_driver: Option<Driver>,
}

impl<'a> Maker<'a> {
    pub(super) fn new(view: &Snapshot, service: &'a Service) -> Self {
        let annotations = ServiceAnnotations {
            name: service.spec.name.clone(),
            labels: service.spec.labels.clone(),
            ..Default::default()
        };
        let default = view.cluster().and_then(|it| it.spec.task_defaults.log_driver.clone());
        let log_driver = default.filter(|_| service.spec.task.log_driver.is_none());
        Self { service, annotations: Arc::new(annotations), log_driver }
    }

    /// A new task that shall run at once.
    pub(super) fn task(&self, place: Place, ctx: &mut Ctx<'_>) -> Task {
        let (slot, node_id) = match place {
            Place::Slot(slot) => (slot, None),
            Place::Node(node) => (0, Some(node)),
        };
        let job_iteration = self.service.job_iteration();
        Task {
            id: ctx.ids.next(),
            created_at: ctx.now,
            updated_at: ctx.now,
            spec: self.service.spec.task.clone(),
            service_id: self.service.id,
            slot,
            node_id,
            status: TaskStatus::new(TaskState::New, ctx.now, "created"),
            desired_state: goal(job_iteration),
            job_iteration,
            log_driver: self.log_driver.clone(),
            spec_version: self.service.version,
            annotations: self.annotations.clone(),
            registry_auth: self.service.registry_auth.clone(),
            ..Task::default()
        }
    }
}
