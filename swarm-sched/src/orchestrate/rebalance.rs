//! Pure: which running task moves to a node that has less to do. Off unless a manager is given this
//! planner: Swarm never moves a task that runs, so that a node that joins stays empty.
//!
//! # Which, and when it stops
//!
//! A move is worth making if the task's service is then spread more evenly: its present node has at
//! least two more of the service's tasks than the other. Or if all is as even as before for the
//! service, and the nodes are more even in all their tasks. The sum of squares of the first kind of
//! counts, and then of the second, falls with each move. So there is an end, whatever the cluster,
//! and from there on nothing moves. Where a task would go the scheduler says, which is asked as if
//! the task were new: every filter, preference and affinity holds for moves as for anything else.
//!
//! That end needs tasks that stay. One that ends again and again is placed anew each time, and the
//! scheduler sends it away from where it kept failing: whoever made room for it would move for ever.
//! So a move must be worth it for all tasks, and also for those alone that have shown that they last,
//! which is the sum that falls: they have run for five minutes, or were moved after that. Whatever
//! makes others end, failure or success, shows in this, and history need not remember it.
//!
//! # What is left alone
//!
//! - Services that keep something on their nodes (volumes, binds), unless their label
//!   `swarm.rebalance` is `true`, and those for which it is `false`.
//! - Services in the global modes, jobs, and those whose strategy, by their label `swarm.strategy` or
//!   the cluster's, is not called `spread`.
//! - A service of which a task does not run or has not shown that it lasts, or that is being updated:
//!   one task of a service moves at a time, and only when all others do their work.
//! - A task that has run for less than five minutes or the interval, and a service of which a move
//!   has failed, until it is updated or that is history.
//!
//! # How
//!
//! As the service's updates: stop-first, or start-first, where the old task runs until the new one
//! does. [`Task::relieves`] names the old task. It is also the record of the move, by which a new
//! leader knows when the next may begin.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use swarm_core::control::{Ctx, Key, Plan, Planner};
use swarm_core::model::{
    Availability, MountType, NodeId, NodeState, Service, ServiceMode, Task, TaskState, TaskStatus,
    UpdateOrder, UpdateState,
};
use swarm_core::scheduler::{PlacementView, Scheduler};
use swarm_core::store::{Change, Event, Object, Snapshot};

use super::clean::Clean;
use super::slots::{Maker, Slot, Slots};
use super::{node_differs, restart};
use crate::place::{STRATEGY_LABEL, load::occupies};

/// The label of a service that says whether its tasks may be moved.
pub const REBALANCE_LABEL: &str = "swarm.rebalance";

/// A task that has run for so long is taken for one that stays: by then no failure of its slot counts
/// against a node any more.
const LASTING: Duration = crate::place::failures::MEMORY;

/// Moves running tasks to where there is less to do, a few at a time.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use swarm_sched::{default_planners, orchestrate::Rebalance, place::StrategyScheduler};
/// let scheduler = Arc::new(StrategyScheduler::default());
/// let mut planners = default_planners([], scheduler.clone());
/// // Two moves at most, and then a minute's rest.
/// planners.push(Arc::new(Rebalance::new(scheduler, 2, Duration::from_secs(60))));
/// ```
///
/// Which services want to be even it knows by the label `swarm.strategy` alone, not by who places. So
/// under a scheduler that ignores the label ([`FilterScheduler`](crate::place::FilterScheduler)), or
/// that has another strategy by the name `spread`, what that strategy placed is moved as well, wherever
/// it is more even and the scheduler would put the task there by now. Services with any other
/// name in the label stay where they are.
///
/// To look for moves takes time in proportion to all tasks. It is done when a node changes, by the
/// controller's sweep, and once for each interval while there is something to move.
pub struct Rebalance {
    scheduler: Arc<dyn Scheduler>,
    moves: usize,
    interval: Duration,
}

impl Rebalance {
    /// At most so many moves begin together, and none within the interval after. The scheduler is the one that places tasks.
    #[must_use]
    pub fn new(scheduler: Arc<dyn Scheduler>, moves: usize, interval: Duration) -> Self {
        Self { scheduler, moves, interval }
    }
}

impl Planner for Rebalance {
    fn name(&self) -> &'static str {
        "rebalance"
    }

    fn dirty(&self, event: &Event, keys: &mut Vec<Key>) {
        // What services and tasks do changes their balance too. But they do so all the time, and to
        // look at everything each time would be dear for what can wait for the sweep.
        let matters = match (event.object(), event.old_task(), event.new_task()) {
            (Object::Node(_), ..) => node_differs(event),
            // A move begins.
            (_, None, Some(task)) => task.relieves.is_some(),
            _ => false,
        };
        if matters {
            keys.push(Key::Cluster);
        }
    }

    fn keys(&self, _: &Snapshot, keys: &mut Vec<Key>) {
        keys.push(Key::Cluster);
    }

    fn plan(&self, view: &Snapshot, key: &Key, ctx: &mut Ctx<'_>) -> Plan {
        let mut plan = Plan::none();
        if *key != Key::Cluster {
            return plan;
        }
        let survey = Survey::of(view, self.interval, ctx);
        if survey.unsettled || !survey.candidates.is_empty() {
            plan.look_again(ctx.now + self.interval);
        }
        if !survey.moved {
            self.choose(view, survey, ctx, &mut plan);
        }
        plan
    }
}

/// The tasks that nodes have.
#[derive(Clone, Default)]
struct Counts(BTreeMap<NodeId, usize>);

impl Counts {
    fn of(&self, node: NodeId) -> usize {
        self.0.get(&node).copied().unwrap_or(0)
    }

    fn add(&mut self, node: NodeId) {
        *self.0.entry(node).or_default() += 1;
    }

    fn moved(&mut self, from: NodeId, to: NodeId) {
        self.0.entry(from).and_modify(|count| *count -= 1);
        self.add(to);
    }
}

/// What one node has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Load {
    service: usize,
    /// Of all tasks, those that last.
    lasting: usize,
    all: usize,
}

impl Load {
    /// Whether it is better by one task there more and one here fewer: of the service, else of all,
    /// and then of those that last too.
    fn should_lose_one_to(self, there: Self) -> bool {
        let better = |here, more| (there.service + 1, more + 1) < (self.service, here);
        better(self.all, there.all) && better(self.lasting, there.lasting)
    }
}

/// What nodes have that take tasks.
#[derive(Default)]
struct Totals {
    all: Counts,
    lasting: Counts,
}

impl Totals {
    fn load(&self, service: &Counts, node: NodeId) -> Load {
        let [service, lasting, all] = [service, &self.lasting, &self.all].map(|it| it.of(node));
        Load { service, lasting, all }
    }

    fn moved(&mut self, from: NodeId, to: NodeId) {
        self.all.moved(from, to);
        self.lasting.moved(from, to);
    }
}

/// A service of which one task might move.
struct Candidate<'a> {
    service: &'a Arc<Service>,
    slot_tasks: Vec<Arc<Task>>,
    counts: Counts,
    from: NodeId,
    /// How much more its present node has than the least: of the service, and of all.
    gap: (usize, usize),
}

/// Where things stand.
#[derive(Default)]
struct Survey<'a> {
    /// Tasks that shall run.
    totals: Totals,
    /// A move began within the interval.
    moved: bool,
    /// Something may be movable once it runs, or has run for long enough.
    unsettled: bool,
    candidates: Vec<Candidate<'a>>,
}

impl<'a> Survey<'a> {
    fn of(view: &'a Snapshot, interval: Duration, ctx: &Ctx<'_>) -> Self {
        let mut survey = Self::default();
        for node in view.nodes.iter() {
            let takes = node.status.state == NodeState::Ready
                && node.spec.availability == Availability::Active;
            if takes {
                // What completed its part of a job shall have run, and takes no room.
                let counts = |task: &&Arc<Task>| task.is_wanted() && occupies(task);
                let wanted = || view.tasks_on(node.id).filter(counts);
                let lasting = wanted().filter(|task| lasts(task, ctx));
                survey.totals.lasting.0.insert(node.id, lasting.count());
                survey.totals.all.0.insert(node.id, wanted().count());
            }
        }
        let recent = |task: &&Arc<Task>| {
            let since = ctx.now.since(task.created_at);
            task.relieves.is_some()
                && since < interval
                && !restart::is_misdated(task.created_at, ctx.now)
        };
        for service in view.services.iter() {
            survey.moved |= view.tasks_of(service.id).any(|task| recent(&task));
            if may_move(view, service) {
                survey.service(view, service, interval, ctx);
            }
        }
        survey.candidates.sort_by_key(|it| (std::cmp::Reverse(it.gap), it.service.id));
        survey
    }

    fn service(
        &mut self,
        view: &Snapshot,
        service: &'a Arc<Service>,
        interval: Duration,
        ctx: &Ctx<'_>,
    ) {
        let slots = Slots::of(view, service);
        let mut clean = Clean::new(view, service);
        let mut counts = Counts::default();
        let mut movable: BTreeMap<NodeId, Slot<'_>> = BTreeMap::new();
        let running = slots.iter().filter_map(|slot| {
            let mut wanted = slot.wanted();
            let task = wanted.next().filter(|_| wanted.next().is_none())?;
            let node = task.node_id.filter(|_| task.status.state == TaskState::Running)?;
            clean.is_clean(task).then_some((slot, task, node))
        });
        let mut whole = true;
        for (slot, task, node) in running.collect::<Vec<_>>() {
            counts.add(node);
            whole &= lasts(task, ctx);
            let settled = has_run(task, interval.max(LASTING), ctx);
            self.unsettled |= !settled;
            if settled && self.totals.all.0.contains_key(&node) {
                // The last of them: the first replica is often the one that others depend on.
                movable.insert(node, slot);
            }
        }
        let mut tasks = slots.iter().flat_map(|slot| slot.tasks);
        if tasks.any(|task| has_failed_to_relieve(task) && clean.is_same(task)) {
            return;
        }
        let replicas = usize::try_from(service.spec.mode.replicas().unwrap_or(0));
        if !whole || replicas != Ok(counts.0.values().sum()) {
            self.unsettled = true;
            return;
        }
        let load = |node: &NodeId| self.totals.load(&counts, *node);
        let Some((from, slot)) = movable.into_iter().max_by_key(|(node, _)| load(node)) else {
            return;
        };
        let here = load(&from);
        let better =
            self.totals.all.0.keys().map(load).filter(|there| here.should_lose_one_to(*there));
        let Some(there) = better.min() else { return };
        let gap = (here.service - there.service, here.all.saturating_sub(there.all));
        let slot_tasks = slot.tasks.to_vec();
        self.candidates.push(Candidate { service, slot_tasks, counts, from, gap });
    }
}

/// Whether a task counts as one that stays where it is.
fn lasts(task: &Task, ctx: &Ctx<'_>) -> bool {
    task.relieves.is_some() || has_run(task, LASTING, ctx)
}

fn has_run(task: &Task, time: Duration, ctx: &Ctx<'_>) -> bool {
    task.running_since.is_some_and(|at| at + time <= ctx.now)
}

/// Whether tasks of a service may be moved at all, now.
fn may_move(view: &Snapshot, service: &Service) -> bool {
    let labels = &service.spec.labels;
    let cluster = view.cluster().and_then(|cluster| cluster.spec.labels.get(STRATEGY_LABEL));
    let strategy = labels.get(STRATEGY_LABEL).or(cluster);
    let mounts = service.spec.task.container.iter().flat_map(|container| &container.mounts);
    let keeps = |kind| !matches!(kind, MountType::Tmpfs | MountType::Image);
    let allowed = match labels.get(REBALANCE_LABEL).map(String::as_str) {
        Some("true") => true,
        Some(_) => false,
        None => !mounts.map(|mount| mount.kind).any(keeps),
    };
    let state = service.update_status.as_ref().map(|status| status.state);
    let rests = !state.is_some_and(|state| {
        !matches!(state, UpdateState::Completed | UpdateState::RollbackCompleted)
    });
    allowed
        && rests
        && !service.pending_delete
        && matches!(service.spec.mode, ServiceMode::Replicated(_))
        && strategy.is_none_or(|strategy| strategy == "spread")
}

/// Whether a task that was to take over never ran.
fn has_failed_to_relieve(task: &Task) -> bool {
    task.relieves.is_some() && task.running_since.is_none() && !task.is_wanted()
}

impl Rebalance {
    /// Makes as many of the moves that are worth it as may be made.
    fn choose(&self, view: &Snapshot, survey: Survey<'_>, ctx: &mut Ctx<'_>, plan: &mut Plan) {
        let Survey { mut totals, candidates, .. } = survey;
        let (mut view, mut left) = (view.clone(), self.moves);
        for mut candidate in candidates {
            if left == 0 {
                return;
            }
            let from = candidate.from;
            let Some((then, new, to)) = self.try_move(&view, &candidate, ctx) else { continue };
            let load = |node| totals.load(&candidate.counts, node);
            if !load(from).should_lose_one_to(load(to)) {
                continue;
            }
            explain(&view, &candidate, (&new, to), &totals, plan);
            candidate.counts.moved(from, to);
            totals.moved(from, to);
            let old = new.relieves.unwrap_or_default();
            if new.desired_state == TaskState::Ready {
                plan.changes.push(Change::Desire(old, TaskState::Shutdown));
            }
            plan.changes.push(Change::create(new));
            view = then;
            left -= 1;
        }
    }

    /// Where the task would go if it were new, the task that would go there, and the view then.
    fn try_move(
        &self,
        view: &Snapshot,
        candidate: &Candidate<'_>,
        ctx: &mut Ctx<'_>,
    ) -> Option<(Snapshot, Task, NodeId)> {
        let Candidate { service, slot_tasks, .. } = candidate;
        let slots = Slots::from_tasks(slot_tasks.iter().cloned(), false);
        let slot = slots.iter().next()?;
        let old = slot.wanted().next()?;
        let mut new = Maker::new(view, service).task(slot.place, Some(slot), ctx);
        new.relieves = Some(old.id);
        new.restarts.clone_from(&old.restarts);
        let mut then = view.clone();
        if order(service) == UpdateOrder::StopFirst {
            then.stage(Change::Desire(old.id, TaskState::Shutdown), ctx.now).ok()?;
            restart::start(view, &mut new, ctx.now, (slot, old), ctx.now);
            new.desired_state = TaskState::Ready;
        }
        let mut probe = Task { networks: old.networks.clone(), ..new.clone() };
        probe.endpoint.clone_from(&old.endpoint);
        probe.status = TaskStatus::new(TaskState::Pending, ctx.now, "");
        let tasks = [Arc::new(probe)];
        then.stage(Change::Create(Object::Task(tasks[0].clone())), ctx.now).ok()?;
        let asked = PlacementView { snapshot: &then, service: Some(service), tasks: &tasks };
        let placed = self.scheduler.place(&asked, ctx).placed.pop()?;
        let mut probe = Task::clone(&tasks[0]);
        probe.node_id = Some(placed.node);
        probe.status.state = TaskState::Assigned;
        then.stage(Change::update(probe), ctx.now).ok()?;
        Some((then, new, placed.node))
    }
}

fn order(service: &Service) -> UpdateOrder {
    let config = service.spec.update_config.as_ref();
    config.and_then(|config| config.order).unwrap_or(UpdateOrder::StopFirst)
}

fn explain(
    view: &Snapshot,
    candidate: &Candidate<'_>,
    (new, to): (&Task, NodeId),
    totals: &Totals,
    plan: &mut Plan,
) {
    let Candidate { service, counts, from, .. } = candidate;
    let says = |node: NodeId| {
        let name =
            view.nodes.get(node).map_or("a node that is gone", |node| node.spec.name.as_str());
        format!(
            "{name} ({} of {}, {} in all)",
            counts.of(node),
            service.spec.name,
            totals.all.of(node)
        )
    };
    let old = new.relieves.unwrap_or_default();
    let text = format!("{old} moves from {} to {}", says(*from), says(to));
    plan.because(Key::Task(new.id), text);
}
