//! Pure: tasks that run to completion, each as often as its job is run (SwarmKit:
//! `orchestrator/jobs`).
//!
//! A job's *run* (its iteration) is a number that the API moves with every change of the service.
//! A run's tasks carry it; those of earlier runs are given up. Within a run each slot, counted
//! from 0, or in global mode each eligible node, is to see one task end well. How one that fails is
//! replaced is for its restart policy to say, with the same facts and delays as for every other
//! service.
//!
//! SwarmKit looks at a job when one of its tasks ends, and then fills slots that a policy had given
//! up; a node that joins, goes down or is drained it does not notice. Here what is given up stays
//! so for this run, and nodes count at once, as they do for services that are no jobs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use swarm_core::control::{Ctx, Key, Plan, Planner};
use swarm_core::model::{ReplicatedJobMode, Service, ServiceMode, Task, TaskState};
use swarm_core::store::{Change, Event, Object, Snapshot};

use super::restart::{self, Repair};
use super::slots::{Place, Slot, Slots};
use super::{global, node_differs, service_matters, services_on, task_matters};

/// Runs jobs, replicated and global.
///
/// A replicated job has at most as many tasks at work as it may have at the same time, those that
/// wait to be started again included, and no more in all than it still has to complete. A global
/// job has one on every eligible node, also on one that joins later.
#[derive(Clone, Copy, Debug, Default)]
pub struct Jobs;

impl Planner for Jobs {
    fn name(&self) -> &'static str {
        "jobs"
    }

    fn dirty(&self, event: &Event, keys: &mut Vec<Key>) {
        match event.object() {
            Object::Service(service) if is_job(service) && service_matters(event) => {
                keys.push(Key::Service(service.id))
            }
            Object::Task(task) if task.job_iteration.is_some() && task_matters(event) => {
                keys.push(Key::Service(task.service_id));
            }
            Object::Node(node) if node_differs(event) => keys.push(Key::Node(node.id)),
            _ => {}
        }
    }

    fn keys(&self, view: &Snapshot, keys: &mut Vec<Key>) {
        let jobs = view.services.iter().filter(|service| is_job(service));
        keys.extend(jobs.map(|service| Key::Service(service.id)));
    }

    fn plan(&self, view: &Snapshot, key: &Key, ctx: &mut Ctx<'_>) -> Plan {
        let mut plan = Plan::none();
        match key {
            Key::Service(id) => {
                if let Some(service) = view.services.get(*id).filter(|service| is_job(service)) {
                    plan_service(view, service, ctx, &mut plan);
                }
            }
            Key::Node(id) => {
                let global = |service: &Service| is_job(service) && service.spec.mode.is_global();
                global::plan_node(view, *id, global, ctx, &mut plan);
                if restart::is_unusable(view.nodes.get(*id).map(Arc::as_ref)) {
                    let jobs = services_on(view, *id).filter(|service| is_job(service));
                    for service in jobs.filter(|service| !service.spec.mode.is_global()) {
                        plan_service(view, service, ctx, &mut plan);
                    }
                }
            }
            _ => {}
        }
        plan
    }
}

fn is_job(service: &Service) -> bool {
    service.spec.mode.is_job() && !service.pending_delete
}

/// Whether the task of a place has completed its part of a job's run: it is not replaced, whatever
/// the restart policy. A service that is no job never is done.
pub(super) fn is_done(slot: Slot<'_>) -> bool {
    completions(slot).next().is_some()
}

fn completions<'a>(slot: Slot<'a>) -> impl Iterator<Item = &'a Arc<Task>> {
    let completed = |task: &&Arc<Task>| task.status.state == TaskState::Complete;
    slot.tasks.iter().filter(|task| task.job_iteration.is_some()).filter(completed)
}

/// Leaves one completion in a place that is done. A task that was replaced because its node was
/// lost may still complete: then what took its place is not needed, and must not be counted.
pub(super) fn leave_completion(slot: Slot<'_>, plan: &mut Plan) {
    let first = completions(slot).min_by_key(|task| (task.ended_at, task.id));
    let surplus = slot.tasks.iter().filter(|task| {
        let may_count =
            task.status.state == TaskState::Complete || !task.status.state.is_terminal();
        may_count && first.is_some_and(|first| first.id != task.id)
    });
    plan.changes.extend(surplus.map(|task| Change::Desire(task.id, TaskState::Remove)));
}

fn plan_service(view: &Snapshot, service: &Service, ctx: &mut Ctx<'_>, plan: &mut Plan) {
    let run = service.job_iteration();
    let (current, earlier): (Vec<_>, Vec<_>) =
        view.tasks_of(service.id).cloned().partition(|task| task.job_iteration == run);
    let slots = Slots::from_tasks(current.into_iter(), service.spec.mode.is_global());
    // SwarmKit keeps what earlier runs of a replicated job ended, as history.
    let global = service.spec.mode.is_global();
    let given_up = earlier.iter().filter(|task| {
        task.desired_state != TaskState::Remove && (global || !task.status.state.is_terminal())
    });
    for task in given_up {
        if plan.is_full(ctx) {
            return;
        }
        plan.changes.push(Change::Desire(task.id, TaskState::Remove));
    }
    match &service.spec.mode {
        ServiceMode::ReplicatedJob(job) => {
            let survey = Replicated::survey(Repair::new(view, service), &slots, ctx, plan);
            if let Some(survey) = survey {
                survey.fill(job, ctx, plan);
            }
        }
        _ => global::plan_service(view, service, &slots, ctx, plan),
    }
}

/// Where the slots of a replicated job stand. Lives for one plan.
struct Replicated<'a> {
    repair: Repair<'a>,
    /// Slots that need no new task: done, given up, or with a task.
    taken: BTreeSet<Place>,
    /// How many of these have a task that is at work, or will be.
    open: u64,
    /// Slots whose tasks were stopped, by what else plans here: they are filled again.
    vacant: BTreeMap<Place, Slot<'a>>,
}

impl<'a> Replicated<'a> {
    /// Looks after every slot that has tasks; `None` if there is no room for all of that.
    fn survey(
        repair: Repair<'a>,
        slots: &'a Slots,
        ctx: &mut Ctx<'_>,
        plan: &mut Plan,
    ) -> Option<Self> {
        let mut survey = Self { repair, taken: BTreeSet::new(), open: 0, vacant: BTreeMap::new() };
        for slot in slots.iter() {
            if plan.is_full(ctx) {
                return None;
            }
            if is_done(slot) {
                leave_completion(slot, plan);
            } else if slot.wanted().next().is_some() {
                survey.repair.slot(slot, ctx, plan);
                survey.open += u64::from(survey.stays_open(slot, ctx));
            } else if restart::should_restart(slot.newest(), ctx.now) {
                survey.vacant.insert(slot.place, slot);
                continue;
            }
            survey.taken.insert(slot.place);
        }
        Some(survey)
    }

    /// Whether a slot with a task that shall run has one afterwards as well.
    fn stays_open(&self, slot: Slot<'_>, ctx: &Ctx<'_>) -> bool {
        let mut wanted = slot.wanted();
        let last = wanted.next_back();
        last.is_some_and(|last| {
            !self.repair.is_failing(last) || restart::should_restart(last, ctx.now)
        }) || wanted.any(|task| !self.repair.is_failing(task))
    }

    /// Makes tasks for the lowest slots that need one, as many as may be at work.
    fn fill(&self, job: &ReplicatedJobMode, ctx: &mut Ctx<'_>, plan: &mut Plan) {
        let total = job.total_completions();
        let taken = u64::try_from(self.taken.len()).unwrap_or(u64::MAX);
        let missing =
            total.saturating_sub(taken).min(job.max_concurrent().saturating_sub(self.open));
        let missing = usize::try_from(missing).unwrap_or(usize::MAX);
        let vacant = (0..total).map(Place::Slot).filter(|place| !self.taken.contains(place));
        for place in vacant.take(missing) {
            if plan.is_full(ctx) {
                return;
            }
            let task = self.repair.fresh(place, self.vacant.get(&place).copied(), ctx);
            plan.changes.push(Change::create(task));
        }
    }
}
