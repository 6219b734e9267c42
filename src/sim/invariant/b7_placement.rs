//! B7: a task is given to a node that is ready, active, satisfies its constraints, is of a platform
//! that its image runs on, and has not as many tasks of the service as it may have; its container
//! starts with its secrets and configs in it and attached to its networks. At rest none is left on an
//! active node that satisfies neither its own constraints nor its service's. B8: what the tasks of a
//! node reserve is no more than it has.
//!
//! Nodes change while a plan is on its way, so one that changed a moment ago is not held against the
//! planner. Host ports are C4's. The other half of B8, that what a scheduler keeps equals what the
//! state says, is in [`b8_memory`](super::b8_memory).

use std::collections::BTreeMap;

use swarm_core::model::{
    Availability, Node, NodeId, NodeState, Platform, Task, TaskSpec, TaskState,
};
use swarm_core::store::{Object, Snapshot};
use swarm_core::time::Timestamp;
use swarm_sched::place::constraint;

use super::{Invariant, PLAN_ON_ITS_WAY, Started, steps};
use crate::sim::World;
use crate::sim::host::Host;
use crate::sim::machine::Container;

#[derive(Default)]
pub(super) struct Placement {
    changed: BTreeMap<NodeId, Timestamp>,
    started: Started,
}

impl Invariant for Placement {
    fn name(&self) -> &'static str {
        "B7"
    }

    fn after_step(&mut self, world: &World) -> Result<(), String> {
        for step in steps(world) {
            for event in &step.commit.events {
                if let Some(Object::Node(node)) = &event.new {
                    self.changed.insert(node.id, world.now());
                }
                let Some(task) = event.new_task() else { continue };
                let placed = task.status.state == TaskState::Assigned
                    && event.old_task().is_some_and(|it| it.status.state < TaskState::Assigned);
                let Some(node) = task.node_id.filter(|_| placed) else { continue };
                let Some(node) = step.after.nodes.get(node) else { continue };
                let changed = self.changed.get(&node.id);
                if changed.is_none_or(|at| world.now().since(*at) > PLAN_ON_ITS_WAY) {
                    suits(node, task)?;
                }
                has_room(step.after, node, task)?;
            }
        }
        let started = self.started.since_last(world);
        started.into_iter().try_for_each(|(host, container)| is_complete(host, container))
    }

    fn at_rest(&mut self, world: &World) -> Result<(), String> {
        let state = world.state();
        let placed = state.tasks.iter().filter(|task| {
            let reached = (TaskState::Assigned..=TaskState::Running).contains(&task.status.state);
            task.is_wanted() && reached
        });
        placed.into_iter().try_for_each(|task| stays(&state, task))
    }
}

fn fits(node: &Node, spec: &TaskSpec) -> bool {
    let constraints = constraint::parse_all(spec.constraints()).unwrap_or_default();
    constraints.iter().all(|constraint| constraint.matches(node))
}

fn stays(view: &Snapshot, task: &Task) -> Result<(), String> {
    let node = task.node_id.and_then(|node| view.nodes.get(node));
    let node = node.filter(|node| node.spec.availability == Availability::Active);
    let (Some(node), Some(service)) = (node, view.services.get(task.service_id)) else {
        return Ok(());
    };
    match fits(node, &task.spec) || fits(node, &service.spec.task) {
        true => Ok(()),
        false => Err(format!("{} stays where its constraints do not allow it", task.name())),
    }
}

fn suits(node: &Node, task: &Task) -> Result<(), String> {
    let against = |why: &str| Err(format!("{} is given to a node that {why}", task.name()));
    if node.status.state != NodeState::Ready {
        return against("is not ready");
    }
    if node.spec.availability != Availability::Active {
        return against("is not active");
    }
    if !fits(node, &task.spec) {
        return against("does not satisfy its constraints");
    }
    let platforms = task.spec.placement.as_ref().map_or(&[][..], |it| &it.platforms);
    let has = node.description.as_ref().map(|description| &description.platform);
    let runs = |platform: &Platform| {
        has.is_some_and(|has| {
            (platform.os.is_empty() || platform.os == has.os)
                && (platform.architecture.is_empty() || architecture(platform) == architecture(has))
        })
    };
    match platforms.is_empty() || platforms.iter().any(runs) {
        true => Ok(()),
        false => against("is of another platform"),
    }
}

/// Kernels and registries have two names for the same thing.
fn architecture(platform: &Platform) -> &str {
    match platform.architecture.as_str() {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Whether a container that was started has what its task refers to.
fn is_complete(host: &Host, container: &Container) -> Result<(), String> {
    let task = &container.task;
    let spec = task.spec.container.as_ref();
    let mut secrets = spec.into_iter().flat_map(|spec| &spec.secrets);
    let mut configs = spec.into_iter().flat_map(|spec| &spec.configs);
    let mut networks = task.networks.iter();
    let lacks = if secrets.any(|it| !container.secrets.contains(&it.secret_id)) {
        "a secret"
    } else if configs.any(|it| !container.configs.contains(&it.config_id)) {
        "a config"
    } else if networks.any(|it| !container.networks.contains(&it.network.id)) {
        "a network"
    } else {
        return Ok(());
    };
    Err(format!("{} starts on {} without {lacks}", task.name(), host.name))
}

fn has_room(view: &Snapshot, node: &Node, task: &Task) -> Result<(), String> {
    let there =
        |task: &Task| (TaskState::Assigned..=TaskState::Running).contains(&task.status.state);
    let on = || view.tasks_on(node.id).filter(|task| there(task));
    let most = task.spec.placement.as_ref().map_or(0, |placement| placement.max_replicas);
    // Of two versions in one commit the earlier is placed first: it saw nothing of the later one.
    let unseen = |other: &Task| {
        other.spec_version > task.spec_version && other.status.state == TaskState::Assigned
    };
    let same = on().filter(|other| other.service_id == task.service_id && other.is_wanted());
    let same = same.filter(|other| !unseen(other));
    if most > 0 && same.count() as u64 > most {
        return Err(format!("{} is one too many of its service on its node", task.name()));
    }
    let (mut cpus, mut memory) = (0, 0);
    for other in on() {
        let wanted = other.spec.resources.as_ref().and_then(|it| it.reservations.as_ref());
        cpus += wanted.map_or(0, |wanted| wanted.nano_cpus);
        memory += wanted.map_or(0, |wanted| wanted.memory_bytes);
    }
    let has = node.description.as_ref().map(|node| &node.resources);
    match has.is_none_or(|has| cpus <= has.nano_cpus && memory <= has.memory_bytes) {
        true => Ok(()),
        false => Err(format!("with {} its node is reserved beyond what it has", task.name())),
    }
}
