//! Pure: as many tasks as a replicated service asks for (SwarmKit: `orchestrator/replicated`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use swarm_core::control::{Ctx, Key, Plan, Planner};
use swarm_core::model::{Service, ServiceMode, TaskState};
use swarm_core::store::{Change, Event, Object, Snapshot};
use swarm_core::time::Timestamp;

use super::restart::{self, Repair};
use super::slots::{Place, Slot, Slots};
use super::{node_matters, service_matters, services_on, task_matters};

/// Fills missing slots from the lowest number up, empties those beyond the number of replicas,
/// and replaces tasks that ended or lost their node, as their restart policy asks.
///
/// Works for whole services, and for nodes: when one becomes unusable, every service that has
/// tasks there is looked at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Replicated;

impl Planner for Replicated {
    fn name(&self) -> &'static str {
        "replicated"
    }

    fn dirty(&self, event: &Event, keys: &mut Vec<Key>) {
        match event.object() {
            Object::Service(service) if is_replicated(service) && service_matters(event) => {
                keys.push(Key::Service(service.id));
            }
            Object::Task(task) if task_matters(event) => keys.push(Key::Service(task.service_id)),
            Object::Node(node) if node_matters(event) => keys.push(Key::Node(node.id)),
            _ => {}
        }
    }

    fn keys(&self, view: &Snapshot, keys: &mut Vec<Key>) {
        let replicated = view.services.iter().filter(|service| is_replicated(service));
        keys.extend(replicated.map(|service| Key::Service(service.id)));
    }

    fn plan(&self, view: &Snapshot, key: &Key, ctx: &mut Ctx<'_>) -> Plan {
        let mut plan = Plan::none();
        match key {
            Key::Service(id) => {
                if let Some(service) = view.services.get(*id) {
                    plan_service(view, service, ctx, &mut plan);
                }
                // What waits for its start is looked at again for the time of it.
                if let Some(at) = next_start(&plan, ctx.now) {
                    plan.look_again(at);
                }
                plan.settled = true;
            }
            Key::Node(id) if restart::is_unusable(view.nodes.get(*id).map(Arc::as_ref)) => {
                for service in services_on(view, *id) {
                    plan_service(view, service, ctx, &mut plan);
                }
                // The node may be back by then: each service looks for itself.
                plan.settled = next_start(&plan, ctx.now).is_none();
            }
            _ => {}
        }
        plan
    }
}

/// When the first of a plan's new tasks may start that wait for their start.
fn next_start(plan: &Plan, now: Timestamp) -> Option<Timestamp> {
    let starts = plan.changes.iter().filter_map(|change| match change {
        Change::Create(Object::Task(task)) if task.desired_state == TaskState::Ready => {
            Some(restart::held_until(task, now).unwrap_or(now))
        }
        _ => None,
    });
    starts.min()
}

fn is_replicated(service: &Service) -> bool {
    matches!(service.spec.mode, ServiceMode::Replicated(_))
}

fn plan_service(view: &Snapshot, service: &Service, ctx: &mut Ctx<'_>, plan: &mut Plan) {
    let Some(replicas) = service.spec.mode.replicas().filter(|_| !service.pending_delete) else {
        return;
    };
    let slots = Slots::of(view, service);
    let (mut taken, mut free) = (Vec::with_capacity(slots.len()), BTreeMap::new());
    for slot in slots.iter() {
        if slot.is_taken(ctx.now) {
            taken.push(slot);
        } else {
            free.insert(slot.place, slot);
        }
    }
    let replicas = usize::try_from(replicas).unwrap_or(usize::MAX);
    if taken.len() > replicas {
        let surplus = surplus(&taken, replicas);
        taken.retain(|slot| !surplus.contains(&slot.place));
        let surplus = slots.iter().filter(|slot| surplus.contains(&slot.place));
        remove(surplus, ctx, plan);
    }
    let mut repair = Repair::new(view, service);
    for slot in &taken {
        if plan.is_full(ctx) {
            return;
        }
        repair.slot(*slot, ctx, plan);
    }
    let missing = replicas.saturating_sub(taken.len());
    fill(&mut repair, &taken, &mut free, missing, ctx, plan);
    remove(free.into_values(), ctx, plan);
}

/// Makes tasks for the lowest slots that are not taken. One that had tasks goes on from them.
fn fill(
    repair: &mut Repair<'_>,
    taken: &[Slot<'_>],
    free: &mut BTreeMap<Place, Slot<'_>>,
    missing: usize,
    ctx: &mut Ctx<'_>,
    plan: &mut Plan,
) {
    let mut taken = taken.iter().map(|slot| slot.place).peekable();
    let vacant = (1..).map(Place::Slot).filter(|place| taken.next_if_eq(place).is_none());
    for place in vacant.take(missing) {
        if plan.is_full(ctx) {
            return;
        }
        let task = repair.fresh(place, free.remove(&place), ctx);
        plan.changes.push(Change::create(task));
    }
}

/// The slots to empty so that `keep` are left: those without exactly one task on a node first,
/// then on the nodes with the most tasks of the service; among equals those that do not run, then
/// the highest number, because the first replica is often the one that others depend on.
fn surplus(taken: &[Slot<'_>], keep: usize) -> BTreeSet<Place> {
    let mut ranked: Vec<_> = taken.iter().collect();
    ranked.sort_by_key(|slot| {
        let runs = slot.wanted().any(|task| task.status.state == TaskState::Running);
        (!runs, slot.place)
    });
    let mut on_node = BTreeMap::new();
    let mut nth: Vec<(usize, Place)> = Vec::with_capacity(ranked.len());
    for slot in ranked {
        let mut wanted = slot.wanted();
        let only = wanted.next().filter(|_| wanted.next().is_none());
        let copy = only.and_then(|task| task.node_id).map_or(usize::MAX, |node| {
            let copies = on_node.entry(node).or_insert(0_usize);
            *copies += 1;
            *copies
        });
        nth.push((copy, slot.place));
    }
    nth.sort_by_key(|(copy, _)| *copy);
    nth.into_iter().skip(keep).map(|(_, place)| place).collect()
}

/// Has every task of the slots removed: emptied slots leave no history.
fn remove<'a>(slots: impl Iterator<Item = Slot<'a>>, ctx: &Ctx<'_>, plan: &mut Plan) {
    // The newest of each first: what is left of the slot goes on its account.
    for task in slots.flat_map(|slot| slot.tasks.iter().rev()) {
        if plan.is_full(ctx) {
            return;
        }
        plan.changes.push(Change::Desire(task.id, TaskState::Remove));
    }
}
