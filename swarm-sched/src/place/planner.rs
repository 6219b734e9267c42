//! Pure: which waiting tasks are placed together, when, and what is written about it.

use std::borrow::Cow;
use std::cell::LazyCell;
use std::cmp::Reverse;
use std::sync::Arc;

use swarm_core::control::{Ctx, Key, Plan, Planner};
use swarm_core::id::IdMap;
use swarm_core::model::{ServiceId, Task, TaskId, TaskState, TaskStatus};
use swarm_core::scheduler::{Placed, PlacementView, Placements, Scheduler};
use swarm_core::store::{Change, Event, Object, Snapshot};
use swarm_core::time::Timestamp;

use super::StrategyScheduler;
use super::load::occupies;
use super::priority;

/// The message of a task that waits for a node.
pub(super) const PENDING: &str = "pending task scheduling";
/// The message of a task that got one.
pub(super) const ASSIGNED: &str = "scheduler assigned task to node";
/// The message of a global task whose node can take it.
const CONFIRMED: &str = "scheduler confirmed task can run on preassigned node";

/// Gives pending tasks their nodes.
///
/// [`Key::Service`]: the service has new pending tasks. [`Key::Cluster`]: room may have come up
/// somewhere, so every task that was refused is looked at again; costs nothing while none waits.
pub struct Place {
    scheduler: Arc<dyn Scheduler>,
}

impl Default for Place {
    fn default() -> Self {
        Self::new(Arc::new(StrategyScheduler::default()))
    }
}

impl Place {
    /// A planner that asks this scheduler.
    #[must_use]
    pub fn new(scheduler: Arc<dyn Scheduler>) -> Self {
        Self { scheduler }
    }

    /// Places the waiting tasks of one service, as many as there is room for.
    fn place_service(&self, service: ServiceId, ctx: &mut Ctx<'_>, run: &mut Run<'_>) {
        let owner = run.view.services.get(service).cloned();
        if owner.is_none() && !service.is_nil() {
            return;
        }
        for tasks in groups(&run.view, service) {
            if run.is_full(ctx) {
                return;
            }
            run.stage(ctx.now);
            let service = owner.as_ref();
            let asked = PlacementView { snapshot: &run.view, service, tasks: &tasks };
            let answer = self.scheduler.place(&asked, ctx);
            run.last = changes(&tasks, answer, ctx.now);
            run.last.truncate(ctx.room - run.staged.len());
        }
    }
}

/// A plan in the making: one group of tasks sees where the ones before it went.
struct Run<'a> {
    view: Cow<'a, Snapshot>,
    /// What `view` shows already.
    staged: Vec<Change>,
    /// What the last group did: staged only if another group follows.
    last: Vec<Change>,
}

impl<'a> Run<'a> {
    fn on(view: &'a Snapshot) -> Self {
        Self { view: Cow::Borrowed(view), staged: Vec::new(), last: Vec::new() }
    }

    fn stage(&mut self, now: Timestamp) {
        if self.last.is_empty() {
            return;
        }
        let staged = self.view.to_mut().stage_all(self.last.iter().cloned(), now);
        debug_assert!(
            staged.iter().all(Result::is_ok),
            "a placement on a fresh view is legal: {staged:?}"
        );
        self.staged.append(&mut self.last);
    }

    fn is_full(&self, ctx: &Ctx<'_>) -> bool {
        self.staged.len() + self.last.len() >= ctx.room
    }

    fn into_changes(mut self) -> Vec<Change> {
        if self.staged.is_empty() {
            return self.last;
        }
        self.staged.append(&mut self.last);
        self.staged
    }
}

impl Planner for Place {
    fn name(&self) -> &'static str {
        "place"
    }

    fn dirty(&self, event: &Event, keys: &mut Vec<Key>) {
        match (&event.old, &event.new) {
            // A task began to wait. A refusal, before which it waited too, is no news.
            (old, Some(Object::Task(task))) if is_waiting(task) && !was_waiting(old) => {
                keys.push(Key::Service(task.service_id));
            }
            (Some(Object::Task(old)), new) => {
                let frees = |new: &Object| match new {
                    Object::Task(new) => !occupies(new) || old.is_wanted() != new.is_wanted(),
                    _ => true,
                };
                if occupies(old) && new.as_ref().is_none_or(frees) {
                    keys.push(Key::Cluster);
                }
            }
            (None, Some(Object::Node(_))) | (Some(Object::Node(_)), None) => {
                keys.push(Key::Cluster);
            }
            (Some(Object::Node(old)), Some(Object::Node(new))) => {
                let same = old.spec == new.spec
                    && old.description == new.description
                    && old.status == new.status
                    && old.role == new.role;
                if !same {
                    keys.push(Key::Cluster);
                }
            }
            // Strategy, topology, affinity and priority are labels.
            (Some(Object::Service(old)), Some(Object::Service(new)))
                if old.spec.labels != new.spec.labels =>
            {
                keys.push(Key::Service(new.id));
            }
            (Some(Object::Cluster(old)), Some(Object::Cluster(new)))
                if old.spec.labels != new.spec.labels =>
            {
                keys.push(Key::Cluster);
            }
            _ => {}
        }
    }

    fn keys(&self, view: &Snapshot, keys: &mut Vec<Key>) {
        self.scheduler.follow(view);
        let services = waiting_services(view);
        // In order of priority, if there is any, and not in that of the keys.
        let priority = |service: Option<&ServiceId>| service.map(|id| priority::by_id(view, *id));
        if priority(services.first()) == priority(services.last()) {
            keys.extend(services.into_iter().map(Key::Service));
        } else {
            keys.push(Key::Cluster);
        }
    }

    fn plan(&self, view: &Snapshot, key: &Key, ctx: &mut Ctx<'_>) -> Plan {
        let mut run = Run::on(view);
        let mut plan = Plan::none();
        match key {
            Key::Service(service) => self.place_service(*service, ctx, &mut run),
            Key::Cluster => {
                for service in waiting_services(view) {
                    if run.is_full(ctx) {
                        break;
                    }
                    self.place_service(service, ctx, &mut run);
                }
            }
            _ => {}
        }
        plan.changes = run.into_changes();
        // What was left for lack of room is looked at again.
        plan.is_full(ctx);
        plan.settled = true;
        plan
    }
}

fn was_waiting(old: &Option<Object>) -> bool {
    matches!(old, Some(Object::Task(task)) if is_waiting(task))
}

/// Whether a task waits for a node, or for a word that its node can take it.
fn is_waiting(task: &Task) -> bool {
    task.status.state == TaskState::Pending && task.is_wanted() && !task.is_promised()
}

/// The services with tasks that wait for a node, the highest priority first.
fn waiting_services(view: &Snapshot) -> Vec<ServiceId> {
    let waits =
        |service: &ServiceId| view.tasks_unassigned_of(*service).any(|task| is_waiting(task));
    let mut services: Vec<_> = view.services_unassigned().filter(waits).collect();
    services.sort_by_cached_key(|service| Reverse(priority::by_id(view, *service)));
    services
}

/// A service's waiting tasks, those that ask for the same together, in order of slot.
fn groups(view: &Snapshot, service: ServiceId) -> Vec<Vec<Arc<Task>>> {
    let mut groups: Vec<Vec<Arc<Task>>> = Vec::new();
    for task in view.tasks_unassigned_of(service).filter(|task| is_waiting(task)) {
        match groups.iter_mut().find(|group| alike(&group[0], task)) {
            Some(group) => group.push(task.clone()),
            None => groups.push(vec![task.clone()]),
        }
    }
    for tasks in &mut groups {
        tasks.sort_by_key(|task| (task.slot, task.node_id, task.id));
    }
    groups.sort_by_key(|tasks| (tasks[0].spec_version, tasks[0].slot, tasks[0].id));
    groups
}

/// Whether two tasks of a service ask for the same. Those of one version of its specification have
/// what was allocated for them besides, and that can differ: between the two the service may have
/// been rolled back, to a version with other ports. Tasks of no service have no version in common.
fn alike(a: &Task, b: &Task) -> bool {
    let (ours, theirs) = (a.networks.iter(), b.networks.iter());
    // What was allocated at one time is shared: then it need not be compared.
    let same_endpoint = match (&a.endpoint, &b.endpoint) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b) || a == b,
        (a, b) => a.is_none() && b.is_none(),
    };
    a.spec_version == b.spec_version
        && (!a.service_id.is_nil() || a.spec == b.spec)
        && same_endpoint
        && ours.map(|place| place.network.id).eq(theirs.map(|place| place.network.id))
}

/// What to write about a scheduler's answer; nothing about a refusal that stands there already.
fn changes(tasks: &[Arc<Task>], answer: Placements, now: Timestamp) -> Vec<Change> {
    // Answers come in the order of the tasks, as a rule.
    let by_id = || tasks.iter().map(|task| (task.id, task)).collect::<IdMap<TaskId, _>>();
    let (mut next, by_id) = (tasks.iter(), LazyCell::new(by_id));
    let mut find = |id: TaskId| {
        let expected = next.next().filter(|task| task.id == id);
        expected.or_else(|| by_id.get(&id).copied())
    };
    let mut changes = Vec::with_capacity(tasks.len());
    changes.extend(
        answer
            .placed
            .into_iter()
            .filter_map(|placed| Some(Change::update(assigned(find(placed.task)?, placed, now)))),
    );
    changes.extend(answer.refused.into_iter().filter_map(|refused| {
        let task = find(refused.task)?;
        let known = task.status.err == refused.why && task.status.message == PENDING;
        (!known).then(|| {
            let mut new = task.clone();
            let task = Arc::make_mut(&mut new);
            task.status = TaskStatus::new(TaskState::Pending, now, PENDING);
            task.status.err = refused.why;
            Change::update(new)
        })
    }));
    changes
}

fn assigned(task: &Arc<Task>, placed: Placed, now: Timestamp) -> Arc<Task> {
    let message = if task.node_id.is_some() { CONFIRMED } else { ASSIGNED };
    let mut new = task.clone();
    let task = Arc::make_mut(&mut new);
    task.node_id.get_or_insert(placed.node);
    task.generic_resources = placed.generic;
    task.status = TaskStatus::new(TaskState::Assigned, now, message);
    new
}
