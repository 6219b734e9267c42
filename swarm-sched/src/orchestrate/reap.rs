//! Pure: what is erased: tasks that shall be removed, services after them, history beyond its
//! limit (SwarmKit: `orchestrator/taskreaper`, and the `deallocator` that it never wired up).

use std::sync::Arc;

use swarm_core::control::{Ctx, Key, Plan, Planner};
use swarm_core::model::{Service, ServiceId, ServiceMode, Task, TaskState, Version, defaults};
use swarm_core::store::{Change, Event, Object, Snapshot};

use super::services_on;
use super::slots::{Slot, Slots};

/// Erases in two phases. A task that shall be removed is erased once its agent has confirmed that
/// it stopped (or it never reached an agent, or its node is gone); a service that is marked for
/// removal has its tasks removed and is erased after the last of them. Ended tasks beyond the
/// history limit of their slot are erased, the oldest first.
///
/// A limit that was lowered takes effect when a slot gets its next task, or with the next sweep.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reap;

impl Planner for Reap {
    fn name(&self) -> &'static str {
        "reap"
    }

    fn dirty(&self, event: &Event, keys: &mut Vec<Key>) {
        match event.object() {
            Object::Service(service) if super::service_matters(event) => {
                keys.push(Key::Service(service.id));
            }
            Object::Task(task) if super::task_matters(event) => {
                keys.push(Key::Service(task.service_id));
            }
            Object::Node(node) if event.new.is_none() => keys.push(Key::Node(node.id)),
            _ => {}
        }
    }

    fn keys(&self, view: &Snapshot, keys: &mut Vec<Key>) {
        let removed = view.tasks_to_remove().map(|task| task.service_id);
        let services = view.services.iter().map(|service| service.id);
        keys.extend(services.chain(removed).map(Key::Service));
    }

    fn plan(&self, view: &Snapshot, key: &Key, ctx: &mut Ctx<'_>) -> Plan {
        let mut plan = Plan::none();
        match key {
            Key::Service(id) => plan_service(view, *id, ctx, &mut plan),
            Key::Node(id) if view.nodes.get(*id).is_none() => {
                for service in services_on(view, *id) {
                    plan_service(view, service.id, ctx, &mut plan);
                }
            }
            _ => {}
        }
        plan
    }
}

fn plan_service(view: &Snapshot, id: ServiceId, ctx: &Ctx<'_>, plan: &mut Plan) {
    let service = view.services.get(id);
    // Tasks without a service (attachments of containers to networks) have the nil id for one.
    let gone = service.map_or(!id.is_nil(), |service| service.pending_delete);
    let mut left = 0_usize;
    // As long as the service is there, it is about those that are to be removed.
    let all = (gone || id.is_nil()).then(|| view.tasks_of(id)).into_iter().flatten();
    let some = (!gone && !id.is_nil()).then(|| view.tasks_to_remove_of(id)).into_iter().flatten();
    for task in all.chain(some) {
        if plan.is_full(ctx) {
            return;
        }
        let lost = id.is_nil() && task.status.state == TaskState::Orphaned;
        if !gone && !lost && task.desired_state != TaskState::Remove {
            continue;
        }
        if is_erasable(view, task) {
            plan.changes.push(Change::remove(task.id));
            continue;
        }
        left += 1;
        if task.desired_state != TaskState::Remove {
            plan.changes.push(Change::Desire(task.id, TaskState::Remove));
        }
    }
    let Some(service) = service else { return };
    if service.pending_delete {
        if left == 0 {
            plan.changes.push(Change::remove(id));
        }
    } else {
        reap_history(view, service, ctx, plan);
    }
}

/// Whether no executor can hold anything of the task.
fn is_erasable(view: &Snapshot, task: &Task) -> bool {
    task.status.state < TaskState::Assigned
        || task.status.state.is_terminal()
        || task.node_id.is_some_and(|node| view.nodes.get(node).is_none())
}

fn reap_history(view: &Snapshot, service: &Arc<Service>, ctx: &Ctx<'_>, plan: &mut Plan) {
    let limit = history_limit(view, service);
    let global = matches!(service.spec.mode, ServiceMode::Global(_));
    let slots = Slots::of(view, service);
    for slot in slots.iter() {
        if slot.has_one() {
            continue;
        }
        let node = slot.newest().node_id.filter(|_| global);
        let erased: Vec<_> = if node.is_some_and(|node| view.nodes.get(node).is_none()) {
            slot.tasks.iter().filter(|task| is_history(task)).collect()
        } else if let Some(limit) = limit {
            excess(slot, limit, service.job_iteration()).collect()
        } else {
            continue;
        };
        for task in erased {
            if plan.is_full(ctx) {
                return;
            }
            plan.changes.push(Change::remove(task.id));
        }
    }
}

/// The newest task stays whatever the limit, as does what has completed in the present run of a
/// job: they say whether the slot is done. (SwarmKit never erases a job's history, so that one
/// which fails for ever fills its store.)
fn excess(slot: Slot<'_>, limit: usize, run: Option<Version>) -> impl Iterator<Item = &Arc<Task>> {
    let excess = slot.tasks.len().saturating_sub(limit);
    let older = &slot.tasks[..slot.tasks.len() - 1];
    let counts = move |task: &Task| {
        run.is_some() && task.job_iteration == run && task.status.state == TaskState::Complete
    };
    let erasable = move |task: &&Arc<Task>| is_history(task) && !counts(task);
    older.iter().filter(erasable).take(excess)
}

/// Whether a task has ended, or never will run.
fn is_history(task: &Task) -> bool {
    let state = task.status.state;
    state.is_terminal() || (state < TaskState::Assigned && !task.is_wanted())
}

/// How many tasks a slot keeps, the present one included; absent keeps all.
fn history_limit(view: &Snapshot, service: &Service) -> Option<usize> {
    let policy = service.spec.task.restart_policy.as_ref();
    let attempts = policy.and_then(|policy| policy.max_attempts).filter(|max| *max > 0);
    let limit = attempts.map_or_else(
        || {
            let cluster = view.cluster().map(|cluster| &cluster.spec.orchestration);
            cluster
                .and_then(|settings| settings.task_history_retention_limit)
                .unwrap_or(defaults::TASK_HISTORY)
        },
        |max| i64::try_from(max).unwrap_or(i64::MAX).saturating_add(1),
    );
    usize::try_from(limit).ok()
}
