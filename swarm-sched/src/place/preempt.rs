//! Pure: which tasks stop for others of higher priority that find no node.
//!
//! Off unless the cluster asks for it. A task that found no node, and that nothing which is stopping
//! anyway makes room for, gets a node *promised*: the tasks that have to leave are told to, and in
//! the same commit the node is the new task's, although that waits there, pending, until they have
//! stopped. So nobody else can take the room meanwhile, least of all those who left; and a new leader
//! finds all of it in the store.
//!
//! Why this comes to an end: only strictly lower priorities leave, so a task can never take back what
//! was taken for it; what comes after a task that left, or for which others left and which did not last
//! ([`Task::displaced`]), makes nobody leave; and those who leave do not matter more, added up, than who
//! comes.
//!
//! Which tasks leave is chosen by the filters of this crate (`victims`), and whether that helps is
//! for the cluster's [`Scheduler`] to say: it is asked about a view without them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use swarm_core::control::{Ctx, Key, Plan, Planner};
use swarm_core::model::{
    GenericResource, Labels, NodeId, ServiceId, Task, TaskId, TaskState, TaskStatus,
};
use swarm_core::scheduler::{Placed, PlacementView, Placements, Scheduler};
use swarm_core::store::{Change, Event, Object, Snapshot};

use super::future::{Future, is_stopping, stage};
use super::load::{NodeLoad, occupies};
use super::planner::{ASSIGNED, PENDING};
use super::priority;
use super::scheduler::wishes;
use super::victims::{Sacrifice, Victim, cheapest};

/// The cluster's label that allows tasks to be stopped for others: how many may be on their way out
/// at the same time. 0, what cannot be read, and no label mean none. (Set it to 0 to end it: an update
/// of the cluster without any labels keeps the old ones, as in Swarm.)
pub const PREEMPTION_LABEL: &str = "swarm.preemption";

/// How many nodes are tried for a task before it waits on.
const NODES_TRIED: usize = 8;

/// Stops tasks for others of higher priority, where the cluster's label `swarm.preemption` allows it.
/// Services say theirs in the label `swarm.priority`.
///
/// [`Key::Cluster`]: a task found no node, or may be given up. [`Key::Node`]: tasks that make room
/// there have stopped.
pub struct Preempt {
    scheduler: Arc<dyn Scheduler>,
    pub(super) memory: Mutex<Future>,
}

impl Preempt {
    /// A planner that asks this scheduler, which must be the one that places tasks, and counts on every
    /// node what that counts.
    #[must_use]
    pub fn new(scheduler: Arc<dyn Scheduler>) -> Self {
        let memory = Mutex::new(Future::new(scheduler.counts()));
        Self { scheduler, memory }
    }

    fn ask(&self, view: &Snapshot, tasks: &[Arc<Task>], ctx: &mut Ctx<'_>) -> Placements {
        let service = tasks.first().and_then(|task| view.services.get(task.service_id));
        self.scheduler.place(&PlacementView { snapshot: view, service, tasks }, ctx)
    }

    /// Gives a node to the tasks that it was promised to, once nothing is in their way. A node that
    /// does not suit any more is given up, and the task with it: its service makes another.
    fn keep_promises(&self, view: &Snapshot, node: NodeId, ctx: &mut Ctx<'_>, plan: &mut Plan) {
        let promised = view.tasks_on(node).filter(|task| task.is_promised());
        for task in promised {
            if plan.is_full(ctx) {
                return;
            }
            if task.room_from.iter().any(|id| view.tasks.get(*id).is_some_and(|it| occupies(it))) {
                continue;
            }
            let mut world = view.clone();
            let unbound = Task { room_from: Vec::new(), ..Task::clone(task) };
            stage(&mut world, Change::update(unbound.clone()), ctx.now);
            let answer = self.ask(&world, &[Arc::new(unbound)], ctx);
            if let Some(placed) = answer.placed.into_iter().next() {
                let status = TaskStatus::new(TaskState::Assigned, ctx.now, ASSIGNED);
                let generic_resources = placed.generic;
                let task = Task { status, generic_resources, ..Task::clone(task) };
                plan.changes.push(Change::update(task));
            } else if !view.tasks_on(node).any(|task| is_stopping(task)) {
                plan.because(Key::Task(task.id), "the node that was promised to it does not suit");
                plan.changes.push(Change::Desire(task.id, TaskState::Shutdown));
            }
        }
    }
}

impl Planner for Preempt {
    fn name(&self) -> &'static str {
        "preempt"
    }

    fn dirty(&self, event: &Event, keys: &mut Vec<Key>) {
        fn labels(object: Option<&Object>) -> Option<&Labels> {
            match object {
                Some(Object::Service(service)) => Some(&service.spec.labels),
                _ => None,
            }
        }
        match event.object() {
            Object::Cluster(_) => keys.push(Key::Cluster),
            Object::Node(node) => keys.extend([Key::Node(node.id), Key::Cluster]),
            Object::Service(_) if labels(event.old.as_ref()) != labels(event.new.as_ref()) => {
                keys.push(Key::Cluster);
            }
            Object::Task(task) => {
                let (old, new) = (event.old_task(), event.new_task());
                let of = |is: fn(&Task) -> bool| {
                    (old.is_some_and(|task| is(task)), new.is_some_and(|task| is(task)))
                };
                let (waited, waits) = of(|task| task.status.state < TaskState::Assigned);
                let (held, holds) = of(occupies);
                let (stayed, stays) = of(Task::is_wanted);
                let (was_promised, promised) = of(Task::is_promised);
                let leaves = held && (!holds || stayed != stays);
                if leaves || waited || waits {
                    keys.push(Key::Cluster);
                }
                if leaves || was_promised || promised {
                    keys.extend(task.node_id.map(Key::Node));
                }
            }
            _ => {}
        }
    }

    fn keys(&self, view: &Snapshot, keys: &mut Vec<Key>) {
        // What is followed no further is not to be held on to.
        let mut future = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        if limit(view) == 0 {
            *future = Future::new(self.scheduler.counts());
        } else {
            future.follow(view);
        }
        keys.push(Key::Cluster);
        let promised = view.tasks_unassigned().filter(|task| task.is_promised());
        keys.extend(promised.filter_map(|task| task.node_id).map(Key::Node));
    }

    fn plan(&self, view: &Snapshot, key: &Key, ctx: &mut Ctx<'_>) -> Plan {
        let mut plan = Plan::none();
        match key {
            Key::Node(node) => self.keep_promises(view, *node, ctx, &mut plan),
            Key::Cluster => {
                let most = limit(view);
                if most > 0 && view.tasks_unassigned().any(|task| is_refused(task)) {
                    Search::new(self, view, most).serve(ctx, &mut plan);
                }
            }
            _ => {}
        }
        plan
    }
}

/// How many tasks may be on their way out at the same time.
fn limit(view: &Snapshot) -> usize {
    let label = view.cluster().and_then(|cluster| cluster.spec.labels.get(PREEMPTION_LABEL));
    label.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Whether others may be stopped for a task. Not for one that waits for its own predecessor to stop,
/// and not for one that is [displaced](Task::displaced).
fn is_refused(task: &Task) -> bool {
    let runs = matches!(task.desired_state, TaskState::Running | TaskState::Complete);
    let refused = task.status.state == TaskState::Pending && !task.status.err.is_empty();
    runs && refused && !task.displaced && !task.is_promised() && !task.service_id.is_nil()
}

/// One search for room.
struct Search<'a> {
    planner: &'a Preempt,
    future: MutexGuard<'a, Future>,
    priorities: BTreeMap<ServiceId, i32>,
    /// How many more tasks may be told to leave.
    left: usize,
}

impl<'a> Search<'a> {
    fn new(planner: &'a Preempt, view: &Snapshot, most: usize) -> Self {
        let mut future = planner.memory.lock().unwrap_or_else(PoisonError::into_inner);
        future.follow(view);
        let left = most.saturating_sub(future.leaving());
        let services = view.services.iter().map(|service| service.id);
        let priorities = services.map(|id| (id, priority::by_id(view, id))).collect();
        Self { planner, future, priorities, left }
    }

    fn priority(&self, service: ServiceId) -> i32 {
        self.priorities.get(&service).copied().unwrap_or(0)
    }

    /// The tasks that others may be stopped for, those that ask for the same together, the highest
    /// priority first.
    fn waiting(&self) -> Vec<(i32, Vec<Arc<Task>>)> {
        let mut groups: BTreeMap<_, Vec<Arc<Task>>> = BTreeMap::new();
        for task in self.future.world.tasks_unassigned().filter(|task| is_refused(task)) {
            groups.entry((task.service_id, task.spec_version)).or_default().push(task.clone());
        }
        let lowest = self.priorities.values().min();
        let groups = groups.into_iter().map(|((id, _), group)| (self.priority(id), group));
        let mut groups: Vec<_> = groups.filter(|(priority, _)| Some(priority) > lowest).collect();
        groups.sort_by_key(|(priority, _)| Reverse(*priority));
        for (_, group) in &mut groups {
            group.sort_by_key(|task| (task.slot, task.node_id, task.id));
        }
        groups
    }

    fn serve(&mut self, ctx: &mut Ctx<'_>, plan: &mut Plan) {
        for (priority, group) in self.waiting() {
            if self.left == 0 {
                return;
            }
            // What fits once everything that is stopping has stopped needs nothing but time.
            for placed in self.planner.ask(&self.future.world, &group, ctx).placed {
                if let Some(task) = group.iter().find(|task| task.id == placed.task) {
                    let status = TaskStatus::new(TaskState::Assigned, ctx.now, ASSIGNED);
                    let (node_id, generic_resources) = (Some(placed.node), placed.generic);
                    let task = Task { status, node_id, generic_resources, ..Task::clone(task) };
                    self.future.write(Change::update(task), ctx.now);
                }
            }
            let waits = |task: &&Arc<Task>| {
                let now = self.future.world.tasks.get(task.id);
                now.is_some_and(|now| now.status.state == TaskState::Pending)
            };
            let refused: Vec<_> = group.iter().filter(waits).cloned().collect();
            for task in refused {
                if plan.is_full(ctx) {
                    return;
                }
                match self.sacrifice(&task, priority, ctx) {
                    Some((sacrifice, placed)) => {
                        self.promise(&task, priority, sacrifice, placed.generic, ctx, plan);
                    }
                    // What asks for the same and is not bound to another node finds none either.
                    None if task.node_id.is_none() => break,
                    None => {}
                }
            }
        }
    }

    /// The cheapest tasks that would have to leave, and what the scheduler says about it.
    fn sacrifice(
        &self,
        task: &Arc<Task>,
        priority: i32,
        ctx: &mut Ctx<'_>,
    ) -> Option<(Sacrifice, Placed)> {
        let world = &self.future.world;
        let (demand, _) = wishes(task, world.services.get(task.service_id), world).ok()?;
        let may = |load: &&NodeLoad| {
            task.node_id.is_none_or(|id| id == load.node.id)
                && load.services().any(|(service, _)| self.priority(service) < priority)
                && demand.suits(load)
        };
        let nodes = self.future.loads.iter().filter(may);
        let mut found: Vec<_> = nodes
            .filter_map(|load| {
                let lower = self.lower(load.node.id, priority);
                cheapest(load.clone(), &demand, lower, self.left, i64::from(priority))
            })
            .collect();
        found.sort_by_cached_key(Sacrifice::cost);
        found.into_iter().take(NODES_TRIED).find_map(|sacrifice| self.confirm(task, sacrifice, ctx))
    }

    /// The tasks of a node that matter less.
    fn lower(&self, node: NodeId, priority: i32) -> Vec<Victim> {
        let tasks = self.future.world.tasks_on(node);
        let tasks = tasks.filter(|task| occupies(task) && task.is_wanted() && !task.is_promised());
        let known = tasks.filter(|task| !task.service_id.is_nil());
        let victims = known
            .map(|task| Victim { task: task.clone(), priority: self.priority(task.service_id) });
        victims.filter(|victim| victim.priority < priority).collect()
    }

    /// What the scheduler says of the node without these tasks. Those whose leaving it can do without
    /// stay.
    fn confirm(
        &self,
        task: &Arc<Task>,
        mut sacrifice: Sacrifice,
        ctx: &mut Ctx<'_>,
    ) -> Option<(Sacrifice, Placed)> {
        let all = sacrifice.victims.iter().map(|victim| victim.task.id).collect();
        let mut answer = self.without(task, &all, sacrifice.node, ctx)?;
        let mut leaving: BTreeSet<TaskId> = all;
        for victim in sacrifice.victims.iter().rev() {
            let mut fewer = leaving.clone();
            fewer.remove(&victim.task.id);
            if !fewer.is_empty()
                && let Some(placed) = self.without(task, &fewer, sacrifice.node, ctx)
            {
                (leaving, answer) = (fewer, placed);
            }
        }
        sacrifice.victims.retain(|victim| leaving.contains(&victim.task.id));
        Some((sacrifice, answer))
    }

    fn without(
        &self,
        task: &Arc<Task>,
        leaving: &BTreeSet<TaskId>,
        node: NodeId,
        ctx: &mut Ctx<'_>,
    ) -> Option<Placed> {
        let mut world = self.future.world.clone();
        leaving.iter().for_each(|id| stage(&mut world, Change::remove(*id), ctx.now));
        let answer = self.planner.ask(&world, std::slice::from_ref(task), ctx);
        answer.placed.into_iter().find(|placed| placed.node == node)
    }

    /// Tells tasks to leave a node and promises it to another.
    fn promise(
        &mut self,
        task: &Task,
        priority: i32,
        sacrifice: Sacrifice,
        generic_resources: Vec<GenericResource>,
        ctx: &Ctx<'_>,
        plan: &mut Plan,
    ) {
        let Sacrifice { node, victims, .. } = sacrifice;
        self.left -= victims.len();
        let by = self
            .future
            .world
            .services
            .get(task.service_id)
            .map_or("", |service| &service.spec.name);
        let by = if task.slot == 0 { by.to_owned() } else { format!("{by}.{}", task.slot) };
        let why = format!("preempted by {by}, which has the priority {priority}");
        for Victim { task, .. } in &victims {
            let desired_state = TaskState::Shutdown;
            let preempted = Some(why.clone());
            let leaving = Task { desired_state, preempted, ..Task::clone(task) };
            plan.because(Key::Task(task.id), why.clone());
            plan.changes.push(Change::update(leaving));
            self.future.write(Change::remove(task.id), ctx.now);
        }
        let mut promised = Task {
            node_id: Some(node),
            generic_resources,
            room_from: victims.iter().map(|victim| victim.task.id).collect(),
            status: TaskStatus::new(TaskState::Pending, ctx.now, PENDING),
            ..task.clone()
        };
        let (number, s) = (victims.len(), if victims.len() == 1 { "" } else { "s" });
        promised.status.err = format!("waiting for {number} task{s} of lower priority to stop");
        plan.changes.push(Change::update(promised.clone()));
        self.future.write(Change::update(promised), ctx.now);
    }
}
