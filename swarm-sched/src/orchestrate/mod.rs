//! Which tasks there shall be: one planner for each question, over the same facts.
//!
//! | planner | question |
//! |---|---|
//! | [`Orphans`] | which tasks are given up with their node |
//! | [`Enforce`] | which tasks their node no longer fits |
//! | [`Replicated`] | as many tasks as asked for, each replaced as its restart policy says |
//! | [`Global`] | one task on every eligible node, replaced likewise |
//! | [`Jobs`] | the same for tasks that are to complete, in as many runs as asked for |
//! | [`Update`] | which tasks a changed specification replaces next |
//! | [`Reap`] | what can be erased |
//! | [`Rebalance`], on request | what moves to where there is less to do |
//!
//! A task is never changed into another one: it is told to stop, and a new one is made. Planners
//! tell tasks what to do with [`Change::Desire`](swarm_core::store::Change::Desire) alone, which
//! cannot conflict with what agents report at the same time.

mod clean;
mod enforce;
mod global;
mod jobs;
mod orphans;
mod reap;
mod rebalance;
mod replicated;
mod restart;
mod slots;
mod update;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use swarm_core::control::Planner;
use swarm_core::model::{NodeId, Service, Task, TaskState};
use swarm_core::scheduler::Overcommit;
use swarm_core::store::{Event, Object, Snapshot};

pub use enforce::Enforce;
pub use global::Global;
pub use jobs::Jobs;
pub use orphans::Orphans;
pub use reap::Reap;
pub use rebalance::{REBALANCE_LABEL, Rebalance};
pub use replicated::Replicated;
pub use update::Update;

/// The planners of this module in the order in which they run, for a scheduler that counts so much
/// of what nodes report as there.
#[must_use]
pub fn planners(counts: Overcommit) -> Vec<Arc<dyn Planner>> {
    vec![
        Arc::new(Orphans),
        Arc::new(Enforce::new(counts)),
        Arc::new(Replicated),
        Arc::new(Global),
        Arc::new(Jobs),
        Arc::new(Update),
        Arc::new(Reap),
    ]
}

/// Whether a task is what its service asks for now, so that an update would leave it alone: what
/// the API's `_up-to-date` filter means (SwarmKit: `IsTaskDirty`, negated). A task without a
/// service is not.
#[must_use]
pub fn is_up_to_date(view: &Snapshot, task: &Task) -> bool {
    let service = view.services.get(task.service_id);
    service.is_some_and(|service| clean::Clean::new(view, service).is_clean(task))
}

/// Whether an event about a task can change which tasks its service needs: it appears, goes, ends,
/// is wanted otherwise, has to leave its node, becomes another roll-out's, or runs as part of one.
fn task_matters(event: &Event) -> bool {
    let (Some(old), Some(new)) = (event.old_task(), event.new_task()) else { return true };
    let moved = old.status.state != new.status.state;
    let takes_over = new.rollout.is_some() || new.relieves.is_some();
    let took_over = new.status.state == TaskState::Running && takes_over;
    old.desired_state != new.desired_state
        || old.eviction != new.eviction
        || old.rollout != new.rollout
        || (moved && (took_over || new.status.state.is_terminal()))
}

/// Whether an event about a service can change which tasks it needs: anything but how it can be
/// reached.
fn service_matters(event: &Event) -> bool {
    let (Some(Object::Service(old)), Some(Object::Service(new))) = (&event.old, &event.new) else {
        return true;
    };
    old.version != new.version
        || old.pending_delete != new.pending_delete
        || old.update_status != new.update_status
        || old.job_status != new.job_status
        || old.registry_auth != new.registry_auth
        || old.previous_spec.is_some() != new.previous_spec.is_some()
        || old.spec != new.spec
}

/// Whether an event about a node can change which tasks fit it.
fn node_differs(event: &Event) -> bool {
    let (Some(Object::Node(old)), Some(Object::Node(new))) = (&event.old, &event.new) else {
        return true;
    };
    node_matters(event)
        || old.spec != new.spec
        || old.description != new.description
        || old.role != new.role
        || old.status.addr != new.status.addr
}

/// Whether an event about a node can change whether its tasks can stay.
fn node_matters(event: &Event) -> bool {
    let (Some(Object::Node(old)), Some(Object::Node(new))) = (&event.old, &event.new) else {
        return true;
    };
    old.spec.availability != new.spec.availability || old.status.state != new.status.state
}

/// The services that have tasks on a node.
fn services_on(view: &Snapshot, node: NodeId) -> impl Iterator<Item = &Arc<Service>> {
    let tasks = view.tasks_on(node);
    let services: BTreeMap<_, _> = tasks
        .filter_map(|task| view.services.get(task.service_id))
        .map(|service| (service.id, service))
        .collect();
    services.into_values()
}
