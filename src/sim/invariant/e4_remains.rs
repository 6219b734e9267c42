//! E4: at rest nothing is left over: of every slot as many ended tasks as history keeps, of removed
//! services and tasks nothing at all, neither in the store nor on a machine.

use std::collections::BTreeMap;
use std::time::Duration;

use swarm_core::executor::Found;
use swarm_core::model::{NodeState, Service, ServiceId, Task, TaskState, defaults};
use swarm_core::store::Snapshot;

use swarm_core::model::TaskId;
use swarm_core::time::Timestamp;

use super::{Invariant, Place, steps};
use crate::sim::World;
use crate::sim::host::Host;

/// What was erased less long ago may still be there.
const ON_ITS_WAY: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(super) struct Remains {
    /// Tasks that were erased lately, and when.
    erased: BTreeMap<TaskId, Timestamp>,
}

impl Invariant for Remains {
    fn name(&self) -> &'static str {
        "E4"
    }

    fn after_step(&mut self, world: &World) -> Result<(), String> {
        for step in steps(world) {
            for event in step.commit.events.iter().filter(|event| event.new.is_none()) {
                if let Some(task) = event.old_task() {
                    self.erased.insert(task.id, world.now());
                }
            }
        }
        Ok(())
    }

    fn at_rest(&mut self, world: &World) -> Result<(), String> {
        let state = world.state();
        self.erased.retain(|_, at| world.now().since(*at) < ON_ITS_WAY);
        history(&state)?;
        for task in state.tasks.iter() {
            let removed = task.desired_state == TaskState::Remove
                || state.services.get(task.service_id).is_none();
            if removed && !is_out_of_reach(&state, task) {
                return Err(format!("{} shall be removed and is not", task.name()));
            }
            let gone = task.node_id.is_some_and(|node| state.nodes.get(node).is_none());
            if gone && !task.status.state.is_terminal() {
                return Err(format!("{} is a ghost of a node that is gone", task.name()));
            }
        }
        for service in state.services.iter().filter(|service| service.pending_delete) {
            if state.tasks_of(service.id).next().is_none() {
                return Err(format!("service {} is empty and not erased", service.spec.name));
            }
        }
        for network in state.networks.iter().filter(|network| network.pending_delete) {
            let tasks = state.tasks_in(network.id).next().is_some();
            if !tasks && state.services_in(network.id).next().is_none() {
                return Err(format!("network {} is unused and not erased", network.spec.name));
            }
        }
        let hosts = world.hosts().iter().filter(|host| !host.is_lost());
        hosts.into_iter().try_for_each(|host| self.machine(&state, world.now(), host))
    }
}

/// Whether nobody can say that a task has stopped: its node is down.
fn is_out_of_reach(view: &Snapshot, task: &Task) -> bool {
    let node = task.node_id.and_then(|node| view.nodes.get(node));
    node.is_some_and(|node| node.status.state == NodeState::Down)
}

fn history(view: &Snapshot) -> Result<(), String> {
    let mut ended: BTreeMap<(ServiceId, Place), usize> = BTreeMap::new();
    for task in view.tasks.iter().filter(|task| task.status.state.is_terminal()) {
        let service = view.services.get(task.service_id);
        let counts = task.desired_state != TaskState::Remove
            && !service.is_some_and(|service| completed(service, task));
        if counts {
            *ended.entry((task.service_id, Place::of(view, task))).or_default() += 1;
        }
    }
    for ((id, place), ended) in ended {
        let Some(service) = view.services.get(id) else { continue };
        let Some(limit) = limit(view, service) else { continue };
        // The newest stays in any case: it says what became of its slot.
        if ended > limit.max(1) {
            return Err(format!(
                "{} keeps {ended} ended tasks in slot {}, where {limit} are to be kept",
                service.spec.name, place.slot
            ));
        }
    }
    Ok(())
}

/// What a job has completed in its present run is kept whatever the limit.
fn completed(service: &Service, task: &Task) -> bool {
    service.job_iteration().is_some()
        && task.job_iteration == service.job_iteration()
        && task.status.state == TaskState::Complete
}

fn limit(view: &Snapshot, service: &Service) -> Option<usize> {
    let policy = service.spec.task.restart_policy.as_ref();
    let attempts = policy.and_then(|policy| policy.max_attempts).filter(|most| *most > 0);
    let set = view.cluster().and_then(|it| it.spec.orchestration.task_history_retention_limit);
    let limit = match attempts {
        Some(most) => i64::try_from(most).unwrap_or(i64::MAX).saturating_add(1),
        None => set.unwrap_or(defaults::TASK_HISTORY),
    };
    usize::try_from(limit).ok()
}

impl Remains {
    /// A machine has containers of its own tasks alone, and the journal no more than they.
    fn machine(&self, view: &Snapshot, now: Timestamp, host: &Host) -> Result<(), String> {
        for (id, container) in &host.machine.containers {
            let Some(task) = view.tasks.get(*id) else {
                if self.erased.contains_key(id) {
                    continue;
                }
                return Err(format!("{} has a container of {id}, which is erased", host.name));
            };
            if task.node_id != Some(host.id) {
                return Err(format!(
                    "{} has a container of {}, another's task",
                    host.name,
                    task.name()
                ));
            }
            let wanted =
                task.desired_state <= TaskState::Complete && !task.status.state.is_terminal();
            // A move that began just now: the old task is stopping.
            let moves = view
                .tasks_of(task.service_id)
                .any(|heir| heir.relieves == Some(*id) && now.since(heir.created_at) < ON_ITS_WAY);
            if container.state == Found::Running && !wanted && !moves {
                return Err(format!("{} still runs on {}", task.name(), host.name));
            }
        }
        let stray = host
            .journal
            .keys()
            .find(|id| view.tasks.get(**id).is_none() && !self.erased.contains_key(id));
        match stray {
            Some(id) => Err(format!("the journal of {} has {id}, which is erased", host.name)),
            None => Ok(()),
        }
    }
}
