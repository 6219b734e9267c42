//! B3: what a task refers to exists when it is made, and it is erased only when it has ended, never
//! reached a node, or its node is gone; a secret goes only when no service refers to it.
//!
//! Different from SwarmKit's sentence: a node is removed in one write and its tasks are given up by a
//! planner in the next.

use swarm_core::model::{ContainerSpec, Secret, Service, TaskState};
use swarm_core::store::{Object, Snapshot};

use super::{Invariant, Step, steps};
use crate::sim::World;

pub(super) struct References;

impl Invariant for References {
    fn name(&self) -> &'static str {
        "B3"
    }

    fn after_step(&mut self, world: &World) -> Result<(), String> {
        steps(world).try_for_each(|step| check(&step))
    }
}

fn check(step: &Step<'_>) -> Result<(), String> {
    for event in &step.commit.events {
        match (&event.old, &event.new) {
            (None, Some(Object::Task(task)))
                if !task.service_id.is_nil()
                    && step.after.services.get(task.service_id).is_none() =>
            {
                return Err(format!("{} is made for a service that is gone", task.name()));
            }
            (_, Some(Object::Task(task))) => {
                let mut places = task.networks.iter();
                let gone = |id| step.after.networks.get(id).is_none();
                let allocates = task.status.state == TaskState::Pending;
                if allocates && places.any(|place| gone(place.network.id)) {
                    return Err(format!("{} is in a network that is gone", task.name()));
                }
            }
            (Some(Object::Task(task)), None) => {
                let node = task.node_id.and_then(|node| step.entry.before.nodes.get(node));
                let state = task.status.state;
                if state >= TaskState::Assigned && !state.is_terminal() && node.is_some() {
                    return Err(format!("{} is erased while it is {state}", task.name()));
                }
            }
            (Some(Object::Secret(secret)), None) => unreferenced(step.after, secret)?,
            _ => {}
        }
    }
    Ok(())
}

fn unreferenced(view: &Snapshot, gone: &Secret) -> Result<(), String> {
    let container = |service: &Service| -> Option<ContainerSpec> {
        (!service.pending_delete).then(|| service.spec.task.container.clone())?
    };
    for service in view.services.iter() {
        let refers = container(service).is_some_and(|container| {
            container.secrets.iter().any(|reference| reference.secret_id == gone.id)
        });
        if refers {
            let (secret, service) = (&gone.spec.name, &service.spec.name);
            return Err(format!("{secret} is erased while {service} refers to it"));
        }
    }
    Ok(())
}
