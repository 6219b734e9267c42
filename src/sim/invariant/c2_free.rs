//! C2: at rest nothing waits for an address or for a port that nobody has: what the allocator takes
//! for taken is what the state says; and never for a port of a service that is about to go.
//!
//! While things move, an allocator that remembers nothing cannot be wrong otherwise; a leak shows in
//! the end, when a service or a task says that nothing is left.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use swarm_core::model::{Network, Service, ServiceId, Task};
use swarm_core::store::{Object, Snapshot};
use swarm_core::time::Timestamp;

use super::c1_addresses::{holds, ip, ranges};
use super::{Invariant, PLAN_ON_ITS_WAY, steps};
use crate::sim::World;

/// What was freed less long ago may not have been tried again yet.
const ON_ITS_WAY: Duration = Duration::from_secs(90);

#[derive(Default)]
pub(super) struct Free {
    /// When each service that is about to go was marked, by the true time.
    marked: BTreeMap<ServiceId, Timestamp>,
}

impl Invariant for Free {
    fn name(&self) -> &'static str {
        "C2"
    }

    fn after_step(&mut self, world: &World) -> Result<(), String> {
        for step in steps(world) {
            for event in &step.commit.events {
                let Some(Object::Service(service)) = &event.new else { continue };
                if service.pending_delete {
                    self.marked.entry(service.id).or_insert(world.now());
                    continue;
                }
                if let Some(Object::Service(old)) = &event.old
                    && old.stalled == service.stalled
                {
                    continue;
                }
                let known = |at: &Timestamp| world.now().since(*at) > PLAN_ON_ITS_WAY;
                let goes = |other: &Service| self.marked.get(&other.id).is_some_and(known);
                let mut whom = holders(&step.entry.before, service).peekable();
                if whom.peek().is_some() && whom.all(goes) {
                    return Err(format!("{} waits for a service that goes", service.spec.name));
                }
            }
        }
        Ok(())
    }

    fn at_rest(&mut self, world: &World) -> Result<(), String> {
        let state = world.state();
        let services = state.services.iter().filter(|service| !service.pending_delete);
        for service in services {
            if says_taken(service) && holders(&state, service).all(|other| other.pending_delete) {
                return Err(format!("{} waits for a port that is free", service.spec.name));
            }
            address(&state, world.now(), &service.spec.name, &service.stalled)?;
        }
        let waiting = state.tasks.iter().filter(|task| task.is_wanted());
        waiting
            .into_iter()
            .try_for_each(|task| address(&state, world.now(), &task.name(), &task.status.err))
    }
}

fn says_taken(service: &Service) -> bool {
    service.stalled.contains("is already in use by service")
}

/// The services that a service waits for, if it says that a port of its own is another's: those that
/// have one of them, or ask for it.
fn holders<'a>(view: &'a Snapshot, service: &Service) -> impl Iterator<Item = &'a Service> {
    let asked = |service: &Service| -> BTreeSet<u16> {
        let ports = service.spec.endpoint.iter().flat_map(|endpoint| &endpoint.ports);
        let held = service.endpoint.iter().flat_map(|endpoint| &endpoint.ports);
        ports.chain(held).map(|port| port.published_port).filter(|port| *port != 0).collect()
    };
    let (id, waits, mine) = (service.id, says_taken(service), asked(service));
    let others = view.services.iter().filter(move |other| waits && other.id != id);
    others.map(|other| &**other).filter(move |other| !asked(other).is_disjoint(&mine))
}

/// Whether a network that is said to have no address left has none.
fn address(view: &Snapshot, now: Timestamp, who: &str, says: &str) -> Result<(), String> {
    let Some(rest) = says.strip_prefix("no address is left in network ") else { return Ok(()) };
    let name = rest.split(' ').next().unwrap_or_default();
    let Some(network) = view.networks.named(name) else { return Ok(()) };
    let taken = taken(view, now, network);
    let all = ranges(network).into_iter().flat_map(|range| range.hosts());
    match all.map(Ipv4Addr::from).find(|addr| !taken.contains(addr)) {
        Some(free) => Err(format!("{who} waits for an address of {name}, where {free} is free")),
        None => Ok(()),
    }
}

fn taken(view: &Snapshot, now: Timestamp, network: &Network) -> BTreeSet<Ipv4Addr> {
    let recent = |task: &Task| now.since(task.updated_at) < ON_ITS_WAY;
    let gateways = network.ipam.iter().flat_map(|ipam| &ipam.configs).map(|it| &it.gateway);
    let services = view.services.iter().flat_map(|service| &service.endpoint);
    let virtual_ips = services.flat_map(|endpoint| &endpoint.virtual_ips);
    let virtual_ips = virtual_ips.filter(|it| it.network_id == network.id).map(|it| &it.addr);
    let tasks = view.tasks_in(network.id).filter(|task| holds(view, task) || recent(task));
    let places = tasks.flat_map(|task| &task.networks);
    let places = places.filter(|place| place.network.id == network.id);
    let addresses = places.flat_map(|place| &place.addresses);
    gateways.chain(virtual_ips).chain(addresses).filter_map(|addr| ip(addr)).collect()
}
