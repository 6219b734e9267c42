//! Pure: how a changed specification reaches the tasks: slot after slot, watched, and back again
//! when too many fail (SwarmKit: `orchestrator/update`).
//!
//! SwarmKit's updater is a goroutine with workers; what it has seen dies with its leader. Here the
//! roll-out is read from the store each time: which tasks it made ([`Task::rollout`]), when they
//! ran and ended, which failures it has counted and out of how many slots ([`UpdateStatus`]). A
//! slot is *in flight* from the moment its new task is made until that runs (or fails) and the
//! configured delay has passed since, which is how long it would occupy one of SwarmKit's workers.
//!
//! Three differences are deliberate. A task that was told to stop, or whose node was lost, is no
//! failure of the update. Slots that do not run are updated first. And where SwarmKit's updater
//! waits in silence for a task that never starts, the status says which one, and why.

use std::sync::Arc;
use std::time::Duration;

use swarm_core::control::{Ctx, Key, Plan, Planner};
use swarm_core::model::{
    FailureAction, Service, ServiceMode, Task, TaskId, TaskState, UpdateConfig, UpdateOrder,
    UpdateState, UpdateStatus, defaults,
};
use swarm_core::store::{Change, Event, Object, Snapshot};
use swarm_core::time::{Nanos, Timestamp};

use super::clean::Clean;
use super::global::Eligible;
use super::restart::Repair;
use super::slots::{Maker, Place, Slot, Slots, rank};
use super::{node_differs, restart, service_matters, services_on, task_matters};

/// Rolls changed specifications out, and back.
///
/// The API clears `update_status` in the same write as it changes a specification, which cancels
/// whatever was going on; this planner sets it when there are tasks to replace. A roll-out that
/// was paused stays so until the specification changes again.
#[derive(Clone, Copy, Debug, Default)]
pub struct Update;

impl Planner for Update {
    fn name(&self) -> &'static str {
        "update"
    }

    fn dirty(&self, event: &Event, keys: &mut Vec<Key>) {
        match event.object() {
            Object::Service(service) if !service.spec.mode.is_job() && service_matters(event) => {
                keys.push(Key::Service(service.id));
            }
            Object::Task(task) if task_matters(event) || complains(event) => {
                keys.push(Key::Service(task.service_id));
            }
            Object::Node(node) if node_differs(event) => keys.push(Key::Node(node.id)),
            _ => {}
        }
    }

    fn keys(&self, view: &Snapshot, keys: &mut Vec<Key>) {
        let services = view.services.iter().filter(|service| !service.spec.mode.is_job());
        keys.extend(services.map(|service| Key::Service(service.id)));
    }

    fn plan(&self, view: &Snapshot, key: &Key, ctx: &mut Ctx<'_>) -> Plan {
        let mut plan = Plan::none();
        match key {
            Key::Service(id) => {
                if let Some(service) = view.services.get(*id) {
                    plan_service(view, service, ctx, &mut plan);
                }
            }
            // Which tasks are up to date depends on their nodes in two cases only.
            Key::Node(id) => {
                let depends = |service: &&Arc<Service>| {
                    is_global(service) || !service.spec.task.constraints().is_empty()
                };
                for service in services_on(view, *id).filter(depends) {
                    plan_service(view, service, ctx, &mut plan);
                }
            }
            _ => {}
        }
        plan
    }
}

/// Whether a task of a roll-out says what keeps it from running, or no longer does.
fn complains(event: &Event) -> bool {
    let (Some(old), Some(new)) = (event.old_task(), event.new_task()) else { return true };
    new.rollout.is_some() && old.status.err != new.status.err
}

fn is_global(service: &Service) -> bool {
    matches!(service.spec.mode, ServiceMode::Global(_))
}

fn plan_service(view: &Snapshot, service: &Arc<Service>, ctx: &mut Ctx<'_>, plan: &mut Plan) {
    let state = service.update_status.as_ref().map(|status| status.state);
    let paused = matches!(state, Some(UpdateState::Paused | UpdateState::RollbackPaused));
    if paused || service.pending_delete || service.spec.mode.is_job() {
        return;
    }
    let slots = Slots::of(view, service);
    let mut survey = Survey::new(view, service, &slots, ctx.now);
    if !is_active(state) && survey.dirty.is_empty() && survey.begun.is_empty() {
        return;
    }
    let mut status = open(service.update_status.clone(), &survey, ctx.now);
    let rollout = Rollout::new(service, status.state == UpdateState::RollbackStarted);
    let mut changed = None;
    if let Some(task) = rollout.count_failures(&survey, &mut status) {
        let service = changed.insert(Service::clone(service));
        rollout.halt(task, &mut status, service, ctx.now);
        // If it goes back, that begins once the specification has its new version.
        plan.look_again(ctx.now);
    } else {
        rollout.advance(view, service, &mut survey, &mut status, ctx, plan);
        complain(&survey, &mut status, ctx.now, plan);
    }
    if service.update_status.as_ref() != Some(&status) {
        plan.because(Key::Service(service.id), status.message.clone());
        let mut changed = changed.unwrap_or_else(|| Service::clone(service));
        changed.update_status = Some(status);
        plan.changes.push(Change::update(changed));
    }
}

fn is_active(state: Option<UpdateState>) -> bool {
    matches!(state, Some(UpdateState::Updating | UpdateState::RollbackStarted))
}

/// The status of a roll-out under way: the one that is, or one that begins.
fn open(status: Option<UpdateStatus>, survey: &Survey<'_>, now: Timestamp) -> UpdateStatus {
    let mut status = status.unwrap_or_else(|| UpdateStatus {
        message: "update in progress".to_owned(),
        ..UpdateStatus::default()
    });
    status.started_at.get_or_insert(now);
    let dirty = u64::try_from(survey.dirty.len()).unwrap_or(u64::MAX);
    if status.completed_at.take().is_some() {
        // Tasks that were out of reach when it ended, such as those of a paused node.
        let (state, message) = match status.state {
            UpdateState::RollbackCompleted => {
                (UpdateState::RollbackStarted, "rollback in progress")
            }
            _ => (UpdateState::Updating, "update in progress"),
        };
        status.state = state;
        message.clone_into(&mut status.message);
        status.total += dirty;
    }
    if status.total == 0 {
        status.total = dirty + u64::try_from(survey.made.len()).unwrap_or(0);
    }
    status
}

/// The last task that a roll-out made for a slot.
struct Made {
    task: Arc<Task>,
    /// When it first ran, or ended before it did.
    arrived: Option<Timestamp>,
}

/// Where the slots of a service stand.
#[derive(Default)]
struct Survey<'a> {
    /// The slots to replace, in the order in which that is to happen.
    dirty: Vec<Slot<'a>>,
    /// The slots whose new task failed while the old one still runs, with that new task. One try
    /// for each: what comes after it is for the restart policy to say.
    failed: Vec<(Slot<'a>, &'a Arc<Task>)>,
    /// The slots that were replaced so far.
    made: Vec<Made>,
    /// Slots that an earlier roll-out had in hand, start-first, when it was cut short: the task that
    /// is up to date, and what it is to relieve.
    begun: Vec<(&'a Arc<Task>, Vec<&'a Arc<Task>>)>,
    /// Tasks that the roll-out made and that ended on their own, the earliest end first.
    ended: Vec<Arc<Task>>,
}

impl<'a> Survey<'a> {
    fn new(view: &Snapshot, service: &Service, slots: &'a Slots, now: Timestamp) -> Self {
        let mut clean = Clean::new(view, service);
        let eligible = is_global(service).then(|| Eligible::new(service));
        let started = service.update_status.as_ref().and_then(|status| status.started_at);
        let mut survey = Self::default();
        let plain = |task: &Arc<Task>| {
            (started.is_none() || task.rollout != started) && clean.is_plain(task)
        };
        let plain = slots.sample().is_some_and(plain);
        for slot in slots.iter().filter(|slot| !plain || !slot.alike()) {
            let reach = match (slot.place, &eligible) {
                (Place::Node(node), Some(eligible)) => {
                    view.nodes.get(node).is_some_and(|node| eligible.takes_tasks(node))
                }
                _ => true,
            };
            survey.slot(view, slot, (slot.is_taken(now), reach), started, &mut clean);
        }
        for made in &mut survey.made {
            if made.arrived.is_some_and(|at| restart::is_misdated(at, now)) {
                made.arrived = Some(Timestamp::ZERO);
            }
        }
        survey.dirty.sort_by_key(|slot| {
            (slot.wanted().any(|task| task.status.state == TaskState::Running), slot.place)
        });
        survey.ended.sort_by_key(|task| (task.ended_at, task.id));
        survey
    }

    fn slot(
        &mut self,
        view: &Snapshot,
        slot: Slot<'a>,
        (taken, reach): (bool, bool),
        started: Option<Timestamp>,
        clean: &mut Clean<'_>,
    ) {
        let of_rollout = |task: &Task| started.is_some() && task.rollout == started;
        let mut made = None;
        for task in slot.tasks.iter().filter(|task| of_rollout(task)) {
            if !clean.is_clean(task) {
                continue;
            }
            made = Some(task);
            if restart::ended_on_its_own(task) {
                self.ended.push(task.clone());
            }
        }
        let stands = slot.wanted().map(|task| clean.is_clean(task)).reduce(|a, b| a || b);
        let stands = stands.unwrap_or_else(|| clean.is_clean(slot.newest()));
        match made.filter(|task| restart::ended_on_its_own(task)) {
            // A node that takes no tasks is left alone; what was begun on it is still under way.
            // One that was emptied is left to whoever fills it.
            _ if !taken || !reach || stands => {}
            None => self.dirty.push(slot),
            Some(failed) => self.failed.push((slot, failed)),
        }
        if made.is_none() && stands && slot.wanted().count() > 1 {
            let (heirs, others): (Vec<&Arc<Task>>, Vec<_>) =
                slot.wanted().partition(|task| clean.is_clean(task));
            // Without others one relieves its like, which is no roll-out.
            made = heirs.first().copied().filter(|_| !others.is_empty());
            self.begun.extend(made.map(|heir| (heir, others)));
        }
        if let Some(task) = made {
            let given_up = !task.is_wanted() && (!taken || restart::has_stopped(view, task));
            let arrived = task.running_since.or(task.ended_at);
            let arrived = arrived.or_else(|| given_up.then_some(task.created_at));
            self.made.push(Made { task: task.clone(), arrived });
        }
    }
}

/// How the roll-out of one service goes about it.
struct Rollout {
    back: bool,
    parallelism: usize,
    delay: Duration,
    action: FailureAction,
    monitor: Duration,
    ratio: f32,
    order: UpdateOrder,
}

impl Rollout {
    fn new(service: &Service, back: bool) -> Self {
        let spec = &service.spec;
        let config = if back { &spec.rollback_config } else { &spec.update_config };
        let config: UpdateConfig = config.clone().unwrap_or_else(defaults::update_config);
        let monitor = config.monitor.map(Nanos::duration).filter(|monitor| !monitor.is_zero());
        Self {
            back,
            parallelism: match config.parallelism {
                0 => usize::MAX,
                limit => usize::try_from(limit).unwrap_or(usize::MAX),
            },
            delay: config.delay.duration(),
            action: config.failure_action.unwrap_or(FailureAction::Pause),
            monitor: monitor.unwrap_or(defaults::UPDATE_MONITOR),
            ratio: config.max_failure_ratio,
            order: config.order.unwrap_or(UpdateOrder::StopFirst),
        }
    }

    /// Counts the failures that are new, and names the one that is too many.
    fn count_failures(&self, survey: &Survey<'_>, status: &mut UpdateStatus) -> Option<TaskId> {
        if self.action == FailureAction::Continue {
            return None;
        }
        for task in &survey.ended {
            if status.failed.contains(&task.id) || !self.is_early(task) {
                continue;
            }
            status.failed.push(task.id);
            #[allow(clippy::cast_precision_loss)] // a ratio of counts
            let ratio = status.failed.len() as f32 / status.total.max(1) as f32;
            if ratio > self.ratio {
                return Some(task.id);
            }
        }
        None
    }

    /// Whether a task ended before it ran, or while it was watched.
    fn is_early(&self, task: &Task) -> bool {
        let (Some(ran), Some(ended)) = (task.running_since, task.ended_at) else { return true };
        ended.since(ran) <= self.monitor
    }

    /// Stops the roll-out: it pauses or goes back. Going back never goes back again.
    fn halt(&self, task: TaskId, status: &mut UpdateStatus, service: &mut Service, now: Timestamp) {
        let because = format!("due to failure or early termination of task {task}");
        if self.back {
            status.state = UpdateState::RollbackPaused;
            status.message = format!("rollback paused {because}");
            return;
        }
        match service.previous_spec.take() {
            Some(previous) if self.action == FailureAction::Rollback => {
                service.spec = *previous;
                service.registry_auth = service.previous_registry_auth.take();
                // Later than the update's start, even within one instant: tasks are told apart
                // by it.
                let began =
                    status.started_at.map_or(now, |at| now.max(at + Duration::from_nanos(1)));
                *status = UpdateStatus {
                    state: UpdateState::RollbackStarted,
                    started_at: Some(began),
                    message: format!("update rolled back {because}"),
                    ..UpdateStatus::default()
                };
            }
            previous => {
                service.previous_spec = previous;
                status.state = UpdateState::Paused;
                status.message = format!("update paused {because}");
            }
        }
    }

    /// Replaces as many slots as may be in flight, or completes the roll-out after the last.
    fn advance(
        &self,
        view: &Snapshot,
        service: &Service,
        survey: &mut Survey<'_>,
        status: &mut UpdateStatus,
        ctx: &mut Ctx<'_>,
        plan: &mut Plan,
    ) {
        for (slot, failed) in &survey.failed {
            if plan.is_full(ctx) {
                return;
            }
            take_over(view, service, *slot, failed, ctx, plan);
        }
        for (heir, others) in &survey.begun {
            if plan.is_full(ctx) {
                return;
            }
            // It is this roll-out's now. Where that stops first, nothing but the others may make
            // room for it (SwarmKit: `useExistingTask`).
            plan.changes
                .push(Change::update(Task { rollout: status.started_at, ..Task::clone(heir) }));
            let stop_first = self.order == UpdateOrder::StopFirst;
            let stop = |task: &&Arc<Task>| Change::Desire(task.id, TaskState::Shutdown);
            plan.changes.extend(others.iter().filter(|_| stop_first).map(stop));
        }
        let free_at = |made: &Made| made.arrived.map(|at| at + self.delay);
        let is_free = |made: &&Made| free_at(made).is_some_and(|at| at <= ctx.now);
        let in_flight = survey.made.len() - survey.made.iter().filter(is_free).count();
        for at in survey.made.iter().filter_map(free_at).filter(|at| *at > ctx.now) {
            plan.look_again(at);
        }
        if survey.dirty.is_empty() && in_flight == 0 {
            let last = survey.made.iter().filter_map(free_at).max();
            let watch = if self.delay >= self.monitor { self.delay + SECOND } else { self.monitor };
            match last.map(|last| last + watch).filter(|end| *end > ctx.now) {
                Some(end) => plan.look_again(end),
                None => self.complete(status, ctx.now),
            }
            return;
        }
        let maker = Maker::new(view, service);
        let free = self.parallelism.saturating_sub(in_flight);
        for slot in survey.dirty.iter().take(free) {
            if plan.is_full(ctx) {
                return;
            }
            let mut new = maker.task(slot.place, Some(*slot), ctx);
            new.rollout = status.started_at;
            self.replace(view, *slot, new, ctx.now, plan);
        }
    }

    fn replace(
        &self,
        view: &Snapshot,
        slot: Slot<'_>,
        mut new: Task,
        now: Timestamp,
        plan: &mut Plan,
    ) {
        let old = slot.wanted().max_by_key(|task| rank(task));
        if self.order == UpdateOrder::StopFirst || old.is_none() {
            restart::start(view, &mut new, now, (slot, old.unwrap_or(slot.newest())), now);
            let stop = |task: &Arc<Task>| Change::Desire(task.id, TaskState::Shutdown);
            plan.changes.extend(slot.wanted().map(stop));
        } else {
            new.displaced = restart::is_displaced(view, slot, &new);
        }
        plan.changes.push(Change::create(new));
    }

    fn complete(&self, status: &mut UpdateStatus, now: Timestamp) {
        let (state, message) = if self.back {
            (UpdateState::RollbackCompleted, "rollback completed")
        } else {
            (UpdateState::Completed, "update completed")
        };
        status.state = state;
        message.clone_into(&mut status.message);
        status.completed_at = Some(now);
    }
}

/// The failure of a slot's new task was tolerated: the old one makes room all the same, and the
/// next new one comes after the restart delay. If there is to be none, the old one stays.
fn take_over(
    view: &Snapshot,
    service: &Service,
    slot: Slot<'_>,
    failed: &Task,
    ctx: &mut Ctx<'_>,
    plan: &mut Plan,
) {
    let Some(old) = slot.wanted().next() else { return };
    if !restart::should_restart(failed, ctx.now) {
        return;
    }
    let mut new = Repair::new(view, service).replacement(slot, failed, ctx);
    new.start_after_stop_of = Some(old.id);
    new.desired_state = TaskState::Ready;
    plan.changes.extend(slot.wanted().map(|task| Change::Desire(task.id, TaskState::Shutdown)));
    plan.changes.push(Change::create(new));
}

const SECOND: Duration = Duration::from_secs(1);

/// What follows the message of a roll-out that waits for a task.
const WAITING: &str = "; waiting for task ";

/// After so long without running, a task is worth a word even if nothing says what is wrong.
const SILENCE: Duration = Duration::from_secs(60);

/// Says in the message what keeps the roll-out from going on, in the words of the first task that
/// it waits for, and takes that back once it goes on. (SwarmKit waits in silence.)
fn complain(survey: &Survey<'_>, status: &mut UpdateStatus, now: Timestamp, plan: &mut Plan) {
    let waits = survey.made.iter().filter(|made| made.arrived.is_none()).map(|made| &made.task);
    let mut silent = None;
    let mut stuck = None;
    for task in waits {
        if !task.status.err.is_empty() {
            stuck = Some(format!("{WAITING}{}: {}", task.id, task.status.err));
            break;
        }
        if task.created_at + SILENCE <= now {
            let seconds = SILENCE.as_secs();
            silent.get_or_insert_with(|| {
                format!("{WAITING}{}, which does not run after {seconds} seconds", task.id)
            });
        } else {
            plan.look_again(task.created_at + SILENCE);
        }
    }
    let base = status.message.split(WAITING).next().unwrap_or_default();
    status.message = format!("{base}{}", stuck.or(silent).unwrap_or_default());
}
