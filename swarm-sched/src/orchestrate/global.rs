//! Pure: one task of a global service on every eligible node (SwarmKit: `orchestrator/global`).

use std::collections::BTreeMap;
use std::sync::Arc;

use swarm_core::control::{Ctx, Key, Plan, Planner};
use swarm_core::model::{
    Availability, Node, NodeId, Service, ServiceId, ServiceMode, Task, TaskState,
};
use swarm_core::store::{Change, Event, Object, Snapshot};

use super::clean::Fit;
use super::restart::{self, Repair};
use super::slots::{Place, Slot, Slots};
use super::{jobs, node_differs, service_matters, task_matters};

/// Which nodes a global service is for.
pub(super) struct Eligible(Fit);

impl Eligible {
    pub(super) fn new(service: &Service) -> Self {
        Self(Fit::new(service.spec.task.constraints()))
    }

    /// Whether the service's task may stay on the node: it is neither down nor drained, and
    /// satisfies the constraints.
    fn keeps_tasks(&self, node: &Node) -> bool {
        !restart::is_unusable(Some(node)) && self.0.matches(node)
    }

    /// Whether the node may also get a new task: a paused node neither gets one nor has its own
    /// updated.
    pub(super) fn takes_tasks(&self, node: &Node) -> bool {
        node.spec.availability == Availability::Active && self.keeps_tasks(node)
    }
}

/// Gives every eligible node its task of each global service, and stops the tasks of nodes that
/// are no longer eligible. Tasks are made for their node; the scheduler only checks that it fits.
///
/// Works for whole services, and for nodes: a change of one concerns every global service there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Global;

impl Planner for Global {
    fn name(&self) -> &'static str {
        "global"
    }

    fn dirty(&self, event: &Event, keys: &mut Vec<Key>) {
        match event.object() {
            Object::Service(service) if is_global(service) && service_matters(event) => {
                keys.push(Key::Service(service.id))
            }
            Object::Task(task) if task_matters(event) => keys.push(Key::Service(task.service_id)),
            Object::Node(node) if node_differs(event) => keys.push(Key::Node(node.id)),
            _ => {}
        }
    }

    fn keys(&self, view: &Snapshot, keys: &mut Vec<Key>) {
        keys.extend(view.services_global().map(|service| Key::Service(service.id)));
    }

    fn plan(&self, view: &Snapshot, key: &Key, ctx: &mut Ctx<'_>) -> Plan {
        let mut plan = Plan::none();
        match key {
            Key::Service(id) => {
                if let Some(service) = view.services.get(*id).filter(|it| is_global(it)) {
                    plan_service(view, service, &Slots::of(view, service), ctx, &mut plan);
                }
            }
            Key::Node(id) => plan_node(view, *id, is_global, ctx, &mut plan),
            _ => {}
        }
        plan
    }
}

fn is_global(service: &Service) -> bool {
    matches!(service.spec.mode, ServiceMode::Global(_)) && !service.pending_delete
}

/// Looks after every node for one service, whose tasks `slots` are: in a job those of its run.
pub(super) fn plan_service(
    view: &Snapshot,
    service: &Service,
    slots: &Slots,
    ctx: &mut Ctx<'_>,
    plan: &mut Plan,
) {
    let mut of_node: BTreeMap<_, _> = slots.iter().map(|slot| (slot.place, slot)).collect();
    let mut keeper = Keeper::new(view, service);
    for node in view.nodes.iter() {
        if plan.is_full(ctx) {
            return;
        }
        let slot = of_node.remove(&Place::Node(node.id));
        keeper.node(node.id, Some(node), slot, ctx, plan);
    }
    // What is left is on nodes that are gone.
    for slot in of_node.into_values() {
        if plan.is_full(ctx) {
            return;
        }
        if jobs::is_done(slot) { jobs::leave_completion(slot, plan) } else { stop(slot, plan) }
    }
}

/// Looks after one node for every service that is `concerned`.
pub(super) fn plan_node(
    view: &Snapshot,
    id: NodeId,
    concerned: fn(&Service) -> bool,
    ctx: &mut Ctx<'_>,
    plan: &mut Plan,
) {
    let node = view.nodes.get(id);
    let mut tasks: BTreeMap<ServiceId, Vec<Arc<Task>>> = BTreeMap::new();
    for task in view.tasks_on(id) {
        tasks.entry(task.service_id).or_default().push(task.clone());
    }
    for service in view.services_global().filter(|service| concerned(service)) {
        if plan.is_full(ctx) {
            return;
        }
        let tasks = tasks.remove(&service.id).unwrap_or_default().into_iter();
        let current = tasks.filter(|task| task.job_iteration == service.job_iteration());
        let slots = Slots::from_tasks(current, true);
        Keeper::new(view, service).node(id, node, slots.iter().next(), ctx, plan);
    }
}

fn stop(slot: Slot<'_>, plan: &mut Plan) {
    let tasks = slot.wanted();
    plan.changes.extend(tasks.map(|task| Change::Desire(task.id, TaskState::Shutdown)));
}

/// Keeps the nodes of one service in order. Lives for one plan.
struct Keeper<'a> {
    eligible: Eligible,
    repair: Repair<'a>,
}

impl<'a> Keeper<'a> {
    fn new(view: &'a Snapshot, service: &'a Service) -> Self {
        Self { eligible: Eligible::new(service), repair: Repair::new(view, service) }
    }

    fn node(
        &mut self,
        id: NodeId,
        node: Option<&Arc<Node>>,
        slot: Option<Slot<'_>>,
        ctx: &mut Ctx<'_>,
        plan: &mut Plan,
    ) {
        if let Some(slot) = slot.filter(|slot| jobs::is_done(*slot)) {
            return jobs::leave_completion(slot, plan);
        }
        if !node.is_some_and(|node| self.eligible.keeps_tasks(node)) {
            return slot.into_iter().for_each(|slot| stop(slot, plan));
        }
        let takes_tasks = node.is_some_and(|node| self.eligible.takes_tasks(node));
        self.repair.replace = takes_tasks;
        match slot {
            Some(slot) if is_taken(slot, ctx) => self.repair.slot(slot, ctx, plan),
            _ if !takes_tasks => {}
            slot => {
                let task = self.repair.fresh(Place::Node(id), slot, ctx);
                plan.changes.push(Change::create(task));
            }
        }
    }
}

/// Whether a node has its task: one that shall run, or one that ended on its own and is not to be
/// replaced. One that was stopped because its node was drained or lost comes back with the node,
/// whatever its restart policy.
fn is_taken(slot: Slot<'_>, ctx: &Ctx<'_>) -> bool {
    slot.wanted().next().is_some()
        || (restart::ended_on_its_own(slot.newest()) && slot.is_taken(ctx.now))
}
