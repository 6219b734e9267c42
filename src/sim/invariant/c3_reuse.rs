//! C3: an address is given out only when no container has it any more on a node of the cluster; a
//! network is erased only when nothing refers to it.
//!
//! Looks at the containers, not at what was reported of them. A node that was removed is no node of
//! the cluster: it is refused, and starts anew. What rests is a preference and no promise.

use std::net::Ipv4Addr;
use std::sync::Arc;

use swarm_core::executor::Found;
use swarm_core::model::{Network, NetworkId, Service, TaskId};
use swarm_core::store::{Object, Snapshot};

use super::c1_addresses::{holds, ip};
use super::{Invariant, steps};
use crate::sim::World;

pub(super) struct Reuse;

impl Invariant for Reuse {
    fn name(&self) -> &'static str {
        "C3"
    }

    fn after_step(&mut self, world: &World) -> Result<(), String> {
        for step in steps(world) {
            for event in &step.commit.events {
                match (&event.old, &event.new) {
                    (Some(Object::Network(gone)), None) => unreferenced(step.after, gone)?,
                    (Some(Object::Task(old)), Some(Object::Task(new)))
                        if old.networks.is_empty() && !new.networks.is_empty() =>
                    {
                        for place in &new.networks {
                            let addresses = place.addresses.iter().filter_map(|addr| ip(addr));
                            for addr in addresses {
                                let given = (place.network.id, addr);
                                free(world, step.after, given, Some(new.id))?;
                            }
                        }
                    }
                    (Some(Object::Service(old)), Some(Object::Service(new))) => {
                        for given in fresh(old, new) {
                            free(world, step.after, given, None)?;
                        }
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

/// The virtual addresses that a service got just now.
fn fresh(old: &Arc<Service>, new: &Arc<Service>) -> Vec<(NetworkId, Ipv4Addr)> {
    let ips = |service: &Service| -> Vec<_> {
        let ips = service.endpoint.iter().flat_map(|endpoint| &endpoint.virtual_ips);
        ips.filter_map(|vip| Some((vip.network_id, ip(&vip.addr)?))).collect()
    };
    let old = ips(old);
    ips(new).into_iter().filter(|ip| !old.contains(ip)).collect()
}

/// Whether no running container has an address.
fn free(
    world: &World,
    view: &Snapshot,
    (network, given): (NetworkId, Ipv4Addr),
    to: Option<TaskId>,
) -> Result<(), String> {
    let members = world.hosts().iter().filter(|host| view.nodes.get(host.id).is_some());
    for host in members {
        for container in host.machine.containers.values() {
            if container.state != Found::Running || Some(container.task.id) == to {
                continue;
            }
            let places = container.task.networks.iter();
            let mut places = places.filter(|place| place.network.id == network);
            let has = |addr: &String| ip(addr) == Some(given);
            if places.any(|place| place.addresses.iter().any(has)) {
                let new = to.and_then(|id| view.tasks.get(id)).map(|task| task.name());
                return Err(format!(
                    "{given} is given to {} while {} runs on {} with it",
                    new.as_deref().unwrap_or("a service"),
                    container.task.name(),
                    host.name
                ));
            }
        }
    }
    Ok(())
}

fn unreferenced(view: &Snapshot, gone: &Network) -> Result<(), String> {
    let alive = |service: &&Arc<Service>| !service.pending_delete;
    if let Some(service) = view.services_in(gone.id).find(alive) {
        let name = &service.spec.name;
        return Err(format!("{} is erased while service {name} refers to it", gone.spec.name));
    }
    let mut tasks = view.tasks_in(gone.id);
    match tasks.find(|task| holds(view, task)) {
        Some(task) => Err(format!("{} is erased while {} is in it", gone.spec.name, task.name())),
        None => Ok(()),
    }
}
