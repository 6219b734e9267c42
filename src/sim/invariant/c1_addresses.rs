//! C1: within a network no address repeats among gateway, virtual addresses and tasks; all are in
//! its range; ranges do not overlap and identifiers do not repeat.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use swarm_core::model::{Network, NetworkId, Task};
use swarm_core::store::{Event, Object, Snapshot};
use swarm_sched::allocate::ipam::Cidr;

use super::{Invariant, steps};
use crate::sim::World;

pub(super) struct Addresses;

impl Invariant for Addresses {
    fn name(&self) -> &'static str {
        "C1"
    }

    fn after_step(&mut self, world: &World) -> Result<(), String> {
        for step in steps(world) {
            let mut touched = BTreeSet::new();
            step.commit.events.iter().for_each(|event| allocated(event, &mut touched));
            let networks = touched.iter().filter_map(|id| step.after.networks.get(*id));
            for network in networks {
                unique(step.after, network)?;
            }
            let changed = |event: &Event| matches!(event.new, Some(Object::Network(_)));
            if step.commit.events.iter().any(changed) {
                apart(step.after)?;
            }
        }
        Ok(())
    }
}

/// The networks in which an event allocated something.
fn allocated(event: &Event, touched: &mut BTreeSet<NetworkId>) {
    match (&event.old, &event.new) {
        (_, Some(Object::Network(network))) => {
            touched.insert(network.id);
        }
        (old, Some(Object::Service(new))) => {
            let same = matches!(old, Some(Object::Service(old)) if old.endpoint == new.endpoint);
            let ips = new.endpoint.iter().flat_map(|endpoint| &endpoint.virtual_ips);
            touched.extend(ips.filter(|_| !same).map(|ip| ip.network_id));
        }
        (old, Some(Object::Task(new))) => {
            let same = matches!(old, Some(Object::Task(old)) if old.networks == new.networks);
            touched.extend(new.networks.iter().filter(|_| !same).map(|place| place.network.id));
        }
        _ => {}
    }
}

/// Whether an address is the task's: until it has ended, its node is gone, or it was given up
/// before it had one.
pub(super) fn holds(view: &Snapshot, task: &Task) -> bool {
    !task.status.state.is_terminal()
        && match task.node_id {
            Some(node) => view.nodes.get(node).is_some(),
            None => task.is_wanted(),
        }
}

pub(super) fn ip(cidr: &str) -> Option<Ipv4Addr> {
    cidr.split('/').next()?.parse().ok()
}

pub(super) fn ranges(network: &Network) -> Vec<Cidr> {
    let configs = network.ipam.iter().flat_map(|ipam| &ipam.configs);
    configs.filter_map(|config| config.subnet.parse().ok()).collect()
}

fn unique(view: &Snapshot, network: &Network) -> Result<(), String> {
    let ranges = ranges(network);
    let mut held: BTreeMap<Ipv4Addr, String> = BTreeMap::new();
    let mut take = |addr: &str, whose: String| {
        let Some(addr) = ip(addr) else { return Err(format!("{addr} of {whose} is no address")) };
        if !ranges.iter().any(|range| range.contains(addr.into())) {
            return Err(format!("{addr} of {whose} is not in {}", network.spec.name));
        }
        match held.insert(addr, whose.clone()) {
            Some(other) => Err(format!("{addr} is that of {other} and of {whose}")),
            None => Ok(()),
        }
    };
    for config in network.ipam.iter().flat_map(|ipam| &ipam.configs) {
        take(&config.gateway, format!("the gateway of {}", network.spec.name))?;
    }
    for service in view.services.iter() {
        let ips = service.endpoint.iter().flat_map(|endpoint| &endpoint.virtual_ips);
        for ip in ips.filter(|ip| ip.network_id == network.id) {
            take(&ip.addr, format!("service {}", service.spec.name))?;
        }
    }
    for task in view.tasks_in(network.id).filter(|task| holds(view, task)) {
        let places = task.networks.iter().filter(|place| place.network.id == network.id);
        for addr in places.flat_map(|place| &place.addresses) {
            take(addr, task.name())?;
        }
    }
    Ok(())
}

fn apart(view: &Snapshot) -> Result<(), String> {
    let mut held: Vec<(Cidr, &str)> = Vec::new();
    let mut states = BTreeMap::new();
    for network in view.networks.iter() {
        let name = network.spec.name.as_str();
        for range in ranges(network).into_iter().filter(|_| network.driver_state.is_some()) {
            if let Some((other, whose)) = held.iter().find(|(other, _)| other.overlaps(range)) {
                return Err(format!("{range} of {name} overlaps {other} of {whose}"));
            }
            held.push((range, name));
        }
        let id = network.driver_state.as_ref().filter(|state| !state.options.is_empty());
        if let Some(other) = id.and_then(|state| states.insert(state.options.clone(), name)) {
            return Err(format!("{name} and {other} have the same identifier"));
        }
    }
    Ok(())
}
