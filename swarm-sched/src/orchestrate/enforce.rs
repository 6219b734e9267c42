//! Pure: tasks whose node no longer fits them (SwarmKit: `orchestrator/constraintenforcer`).

use std::collections::BTreeMap;

use swarm_core::control::{Ctx, Key, Plan, Planner};
use swarm_core::model::{
    Availability, GenericResource, Node, Resources, Service, ServiceId, Task, TaskState,
    UpdateState,
};
use swarm_core::scheduler::Overcommit;
use swarm_core::store::{Change, Event, Object, Snapshot};

use super::clean::Fit;

/// Evicts tasks from active nodes whose constraints or reservations the node no longer satisfies
/// after it changed: they stop, and are rejected then. What comes after them is for their restart
/// policy to say. Among tasks that no longer fit together, the older ones stay.
#[derive(Clone, Copy, Debug, Default)]
pub struct Enforce {
    counts: Overcommit,
}

impl Enforce {
    /// For the cluster of a [`Scheduler`](swarm_core::scheduler::Scheduler) that
    /// [counts](swarm_core::scheduler::Scheduler::counts) so much of what nodes report as there:
    /// what it places must not be evicted for that.
    #[must_use]
    pub fn new(counts: Overcommit) -> Self {
        Self { counts }
    }
}

impl Planner for Enforce {
    fn name(&self) -> &'static str {
        "enforce"
    }

    fn dirty(&self, event: &Event, keys: &mut Vec<Key>) {
        // Even one that is as it was: that it was written after a service makes that one's constraints count.
        if let Object::Node(node) = event.object() {
            keys.push(Key::Node(node.id));
        }
    }

    fn keys(&self, view: &Snapshot, keys: &mut Vec<Key>) {
        keys.extend(view.nodes.iter().map(|node| Key::Node(node.id)));
    }

    fn plan(&self, view: &Snapshot, key: &Key, ctx: &mut Ctx<'_>) -> Plan {
        let mut plan = Plan::none();
        if let Key::Node(id) = key
            && let Some(node) = view.nodes.get(*id)
            && node.spec.availability == Availability::Active
        {
            plan_node(view, node, self.counts, ctx, &mut plan);
        }
        plan
    }
}

fn plan_node(view: &Snapshot, node: &Node, counts: Overcommit, ctx: &Ctx<'_>, plan: &mut Plan) {
    let mut fits = Fits { view, node, known: BTreeMap::new() };
    let mut left = node.description.as_ref().map(|known| {
        let mut left = known.resources.clone();
        left.nano_cpus = counts.cpus_of(left.nano_cpus);
        left.memory_bytes = counts.memory_of(left.memory_bytes);
        left
    });
    let mut tasks: Vec<_> = view.tasks_on(node.id).filter(|task| is_concerned(task)).collect();
    tasks.sort_unstable_by_key(|task| (task.created_at, task.id));
    for task in tasks {
        if fits.constraints(task) && left.as_mut().is_none_or(|left| claim(left, task)) {
            continue;
        }
        if plan.is_full(ctx) {
            return;
        }
        let text = format!("node {} no longer meets its constraints", node.display_name());
        plan.because(Key::Task(task.id), text);
        let eviction = Some("assigned node no longer meets constraints".to_owned());
        plan.changes.push(Change::update(Task { eviction, ..Task::clone(task) }));
    }
}

/// Whether a task shall run and was given to its node: what was not is the scheduler's to check.
fn is_concerned(task: &Task) -> bool {
    let state = task.status.state;
    task.is_wanted()
        && task.eviction.is_none()
        && state >= TaskState::Assigned
        && !state.is_terminal()
}

/// The constraints of the services on one node.
struct Fits<'a> {
    view: &'a Snapshot,
    node: &'a Node,
    known: BTreeMap<ServiceId, Option<bool>>,
}

impl Fits<'_> {
    /// Whether the node satisfies a task's constraints: its service's present ones, because a
    /// change of the placement alone does not replace tasks that it leaves where they are. Only
    /// while a change may still be on its way to the tasks do their own count: what does not fit
    /// the new ones is replaced by the roll-out, at its pace.
    fn constraints(&mut self, task: &Task) -> bool {
        let (view, node) = (self.view, self.node);
        let settled = self.known.entry(task.service_id).or_insert_with(|| {
            let service = view.services.get(task.service_id);
            let service = service.filter(|service| is_settled(service, node))?;
            Some(Fit::new(service.spec.task.constraints()).matches(node))
        });
        settled.unwrap_or_else(|| Fit::new(task.spec.constraints()).matches(node))
    }
}

/// Whether it is the node that changed last, and not the service.
fn is_settled(service: &Service, node: &Node) -> bool {
    let state = service.update_status.as_ref().map(|status| status.state);
    let at_rest =
        matches!(state, None | Some(UpdateState::Completed | UpdateState::RollbackCompleted));
    at_rest && node.revision > service.version
}

/// Takes a task's reservations from what the node has left; `false` if they are more than that.
fn claim(left: &mut Resources, task: &Task) -> bool {
    let requirements = task.spec.resources.as_ref();
    let (cpus, memory) = requirements
        .and_then(|requirements| requirements.reservations.as_ref())
        .map_or((0, 0), |reserved| (reserved.nano_cpus, reserved.memory_bytes));
    if cpus > left.nano_cpus || memory > left.memory_bytes {
        return false;
    }
    let mut generic = left.generic.clone();
    for held in &task.generic_resources {
        if !has(&generic, held) {
            return false;
        }
        take(&mut generic, held);
    }
    left.generic = generic;
    left.nano_cpus -= cpus;
    left.memory_bytes -= memory;
    true
}

fn has(generic: &[GenericResource], held: &GenericResource) -> bool {
    match (&held.named, &held.discrete) {
        (Some(_), _) => generic.contains(held),
        (_, Some(held)) => generic
            .iter()
            .filter_map(|it| it.discrete.as_ref())
            .any(|it| it.kind == held.kind && it.value >= held.value),
        _ => true,
    }
}

fn take(generic: &mut Vec<GenericResource>, held: &GenericResource) {
    match &held.discrete {
        Some(held) => {
            let amounts = generic.iter_mut().filter_map(|it| it.discrete.as_mut());
            for amount in amounts.filter(|amount| amount.kind == held.kind) {
                amount.value -= held.value;
            }
        }
        None => generic.retain(|it| it != held),
    }
}
