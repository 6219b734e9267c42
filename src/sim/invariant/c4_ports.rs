//! C4: no two services hold one published port of one protocol, unless both publish it on the hosts
//! of their tasks alone; and there no two tasks of a node hold it.
//!
//! A service that is marked for removal has given its ports up (docs/differences.md, S15).

use std::collections::BTreeMap;

use swarm_core::model::{NodeId, PortConfig, PortProtocol, PublishMode, Service, Task, TaskState};
use swarm_core::store::{Object, Snapshot};

use super::{Invariant, steps};
use crate::sim::World;

pub(super) struct Ports;

impl Invariant for Ports {
    fn name(&self) -> &'static str {
        "C4"
    }

    fn after_step(&mut self, world: &World) -> Result<(), String> {
        for step in steps(world) {
            for event in &step.commit.events {
                match &event.new {
                    Some(Object::Service(service)) => of_service(step.after, service)?,
                    Some(Object::Task(task)) if task.status.state == TaskState::Assigned => {
                        if let Some(node) = task.node_id {
                            on_node(step.after, node)?;
                        }
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

fn held(service: &Service) -> impl Iterator<Item = &PortConfig> {
    let ports = service.endpoint.iter().flat_map(|endpoint| &endpoint.ports);
    ports.filter(|port| port.published_port != 0)
}

fn of_service(view: &Snapshot, service: &Service) -> Result<(), String> {
    if service.pending_delete {
        return Ok(());
    }
    let others = view.services.iter().filter(|it| it.id != service.id && !it.pending_delete);
    for other in others {
        for mine in held(service) {
            let collides = held(other).any(|their| {
                their.published_port == mine.published_port
                    && their.protocol == mine.protocol
                    && (their.publish_mode == PublishMode::Ingress
                        || mine.publish_mode == PublishMode::Ingress)
            });
            if collides {
                return Err(format!(
                    "{} and {} both hold port {}",
                    service.spec.name, other.spec.name, mine.published_port
                ));
            }
        }
    }
    Ok(())
}

fn host_ports(task: &Task) -> impl Iterator<Item = (PortProtocol, u16)> + '_ {
    let ports = task.endpoint.iter().flat_map(|endpoint| &endpoint.ports);
    ports
        .filter(|port| port.publish_mode == PublishMode::Host && port.published_port != 0)
        .map(|port| (port.protocol, port.published_port))
}

fn on_node(view: &Snapshot, node: NodeId) -> Result<(), String> {
    let mut holders = BTreeMap::new();
    let on = view
        .tasks_on(node)
        .filter(|task| (TaskState::Assigned..=TaskState::Running).contains(&task.status.state));
    for task in on {
        for port in host_ports(task) {
            if let Some(other) = holders.insert(port, task.name()) {
                let name = task.name();
                return Err(format!("{name} and {other} share host port {} of a node", port.1));
            }
        }
    }
    Ok(())
}
