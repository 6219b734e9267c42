//! Pure: what has to be allocated, when, and what is written about it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use swarm_core::control::{Ctx, Key, Plan, Planner};
use swarm_core::model::{
    Endpoint, Network, NetworkId, NetworkSpec, Service, ServiceId, Task, TaskState, TaskStatus,
};
use swarm_core::network::{Allocation, InUse, NetError, NetworkDriver, OVERLAY, allocate_overlay};
use swarm_core::store::{Change, Event, Object, Snapshot};

use super::desk::{Desk, holds_addresses};
use super::{Stall, ipam};

/// The message of a task that has everything but a node.
const PENDING: &str = "pending task scheduling";
/// How soon to try again what found nothing left.
const RETRY: Duration = Duration::from_secs(5);
/// Networks that every node has by itself: nothing is allocated for them.
const NODE_LOCAL: [&str; 5] = ["host", "bridge", "null", "macvlan", "ipvlan"];

type Allocator = dyn Fn(&NetworkSpec, &InUse) -> Result<Allocation, NetError> + Send + Sync;

/// Allocates networks, service endpoints and the addresses of new tasks.
///
/// [`Key::Network`]: the network needs ranges, or is to be erased. [`Key::Service`]: its ports and
/// virtual addresses, and its tasks that are `new`; the nil service stands for tasks without one.
pub struct Allocate {
    drivers: BTreeMap<String, Arc<Allocator>>,
}

impl Default for Allocate {
    /// With one driver, `overlay`, which allocates VXLAN identifiers.
    fn default() -> Self {
        let overlay: Arc<Allocator> = Arc::new(allocate_overlay);
        Self { drivers: BTreeMap::from([(OVERLAY.to_owned(), overlay)]) }
    }
}

impl Allocate {
    /// Adds a driver, in the place of one of the same name.
    #[must_use]
    pub fn driver(mut self, driver: Arc<dyn NetworkDriver>) -> Self {
        let name = driver.name().to_owned();
        let allocator: Arc<Allocator> = Arc::new(move |spec, in_use| driver.allocate(spec, in_use));
        self.drivers.insert(name, allocator);
        self
    }

    fn plan_network(
        &self,
        view: &Snapshot,
        network: &Arc<Network>,
        plan: &mut Plan,
        ctx: &Ctx<'_>,
    ) {
        if network.pending_delete {
            if !is_referenced(view, network.id) {
                plan.changes.push(Change::remove(network.id));
            }
            return;
        }
        if network.driver_state.is_some() {
            return;
        }
        let mut new = Network::clone(network);
        match self.allocate(view, network) {
            Ok(allocation) => {
                new.driver_state = Some(allocation.state);
                new.ipam = allocation.ipam;
                new.stalled.clear();
            }
            Err(stall) => {
                new.stalled = stall.to_string();
                plan.because(Key::Network(network.id), new.stalled.clone());
                plan.look_again(ctx.now + RETRY);
            }
        }
        if new != **network {
            plan.changes.push(Change::update(new));
        }
    }

    fn allocate(&self, view: &Snapshot, network: &Network) -> Result<Allocation, Stall> {
        let spec = &network.spec;
        let name = if spec.driver.name.is_empty() { OVERLAY } else { &spec.driver.name };
        let Some(driver) = self.drivers.get(name) else {
            if !NODE_LOCAL.contains(&name) && spec.scope != "local" {
                return Err(Stall::NoDriver(name.to_owned()));
            }
            let mut local = Allocation::default();
            local.state.name = name.to_owned();
            return Ok(local);
        };
        let others: Vec<&Network> =
            view.networks.iter().map(Arc::as_ref).filter(|other| other.id != network.id).collect();
        let states = others.iter().filter_map(|other| {
            let state = other.driver_state.as_ref()?;
            (state.name == name).then(|| (other.id, state.clone()))
        });
        let in_use = InUse { states: states.collect() };
        let mut allocation = driver(spec, &in_use)
            .map_err(|why| Stall::Driver { driver: name.to_owned(), why: why.to_string() })?;
        if allocation.state.name.is_empty() {
            allocation.state.name = name.to_owned();
        }
        if allocation.wants_addresses {
            let wanted = allocation.ipam.as_ref().or(spec.ipam.as_ref());
            let cluster = view.cluster().map(Arc::as_ref);
            allocation.ipam = Some(ipam::ranges_for(wanted, cluster, &others)?);
        }
        Ok(allocation)
    }
}

impl Planner for Allocate {
    fn name(&self) -> &'static str {
        "allocate"
    }

    fn dirty(&self, event: &Event, keys: &mut Vec<Key>) {
        match (&event.old, &event.new) {
            (_, Some(Object::Network(network))) => keys.push(Key::Network(network.id)),
            (old, Some(Object::Service(new))) => match old {
                Some(Object::Service(old)) if same_endpoint(old, new) => {}
                _ => keys.push(Key::Service(new.id)),
            },
            (Some(Object::Service(old)), None) => {
                let networks = old.endpoint.iter().flat_map(|endpoint| &endpoint.virtual_ips);
                keys.extend(networks.map(|ip| Key::Network(ip.network_id)));
                let wishes = old.spec.task.networks.iter().chain(&old.spec.networks);
                keys.extend(wishes.filter_map(|wish| wish.target.parse().ok().map(Key::Network)));
            }
            (None, Some(Object::Task(task))) if is_new(task) => {
                keys.push(Key::Service(task.service_id));
            }
            (Some(Object::Task(old)), new) => {
                let new = match new {
                    Some(Object::Task(new)) => Some(new),
                    _ => None,
                };
                // Its addresses may be what others wait for, or what keeps a network alive.
                let ended = new.is_none_or(|new| new.status.state.is_terminal());
                if ended && !old.networks.is_empty() {
                    keys.push(Key::Service(old.service_id));
                }
                if ended && !old.status.state.is_terminal() {
                    keys.extend(old.networks.iter().map(|place| Key::Network(place.network.id)));
                }
            }
            _ => {}
        }
    }

    fn keys(&self, view: &Snapshot, keys: &mut Vec<Key>) {
        keys.extend(view.networks.iter().map(|network| Key::Network(network.id)));
        keys.push(Key::Service(ServiceId::NIL));
        keys.extend(view.services.iter().map(|service| Key::Service(service.id)));
    }

    fn plan(&self, view: &Snapshot, key: &Key, ctx: &mut Ctx<'_>) -> Plan {
        let mut plan = Plan::none();
        match key {
            Key::Network(id) => {
                if let Some(network) = view.networks.get(*id) {
                    self.plan_network(view, network, &mut plan, ctx);
                }
            }
            Key::Service(id) if id.is_nil() => {
                let mut desk = Desk::new(view, ctx.now);
                allocate_tasks(view, None, Ok(None), &mut desk, &mut plan, ctx);
            }
            Key::Service(id) => match view.services.get(*id) {
                Some(service) if !service.pending_delete => {
                    plan_service(view, service, &mut plan, ctx)
                }
                _ => {}
            },
            _ => {}
        }
        plan.settled = true;
        plan
    }
}

fn plan_service(view: &Snapshot, service: &Arc<Service>, plan: &mut Plan, ctx: &Ctx<'_>) {
    let mut desk = Desk::new(view, ctx.now);
    let endpoint = desk.endpoint(service);
    let (endpoint, stalled) = match endpoint {
        Ok(endpoint) => {
            let kept = service.endpoint.as_ref().filter(|kept| ***kept == endpoint);
            let endpoint = kept.cloned().unwrap_or_else(|| Arc::new(endpoint));
            (Ok(Some(endpoint)), String::new())
        }
        Err(stall) => {
            let text = stall.to_string();
            plan.because(Key::Service(service.id), text.clone());
            plan.look_again(ctx.now + RETRY);
            (Err(stall), text)
        }
    };
    let held = match &endpoint {
        Ok(endpoint) => endpoint,
        Err(_) => &service.endpoint,
    };
    if *held != service.endpoint || stalled != service.stalled {
        let mut new = service.clone();
        let service = Arc::make_mut(&mut new);
        (service.endpoint, service.stalled) = (held.clone(), stalled);
        plan.changes.push(Change::update(new));
    }
    allocate_tasks(view, Some(service), endpoint, &mut desk, plan, ctx);
}

/// Makes a service's new tasks pending, or says on each of them why not.
fn allocate_tasks(
    view: &Snapshot,
    service: Option<&Arc<Service>>,
    endpoint: Result<Option<Arc<Endpoint>>, Stall>,
    desk: &mut Desk<'_>,
    plan: &mut Plan,
    ctx: &Ctx<'_>,
) {
    let owner = service.map_or(ServiceId::NIL, |service| service.id);
    let mut tasks: Vec<_> =
        view.tasks_unassigned_of(owner).filter(|task| is_new(task) && task.is_wanted()).collect();
    tasks.sort_by_key(|task| (task.slot, task.id));
    for task in tasks {
        if plan.is_full(ctx) {
            return;
        }
        let allocated = endpoint.clone().and_then(|endpoint| {
            let service = service.map(Arc::as_ref);
            let networks = desk.attachments(task, service, endpoint.as_deref())?;
            Ok((endpoint, networks))
        });
        // Copied to where it stays: a task is large enough not to be moved about.
        let mut new = task.clone();
        match allocated {
            Ok((endpoint, networks)) => {
                let new = Arc::make_mut(&mut new);
                new.endpoint = endpoint;
                new.networks = networks;
                new.status = TaskStatus::new(TaskState::Pending, ctx.now, PENDING);
            }
            Err(stall) => {
                plan.look_again(ctx.now + RETRY);
                let err = stall.to_string();
                if err == task.status.err {
                    continue;
                }
                let new = Arc::make_mut(&mut new);
                new.status.err = err;
                new.status.timestamp = ctx.now;
            }
        }
        plan.changes.push(Change::update(new));
    }
}

fn is_new(task: &Task) -> bool {
    task.status.state == TaskState::New
}

/// Whether nothing that the allocation of a service depends on, or that it writes, differs.
fn same_endpoint(old: &Service, new: &Service) -> bool {
    old.pending_delete == new.pending_delete
        && old.stalled == new.stalled
        && old.endpoint == new.endpoint
        && old.spec.endpoint == new.spec.endpoint
        && old.spec.networks == new.spec.networks
        && old.spec.task.networks == new.spec.task.networks
}

/// Whether a service or a task that holds addresses keeps a network from being erased.
fn is_referenced(view: &Snapshot, network: NetworkId) -> bool {
    view.services_in(network).next().is_some()
        || view.tasks_in(network).any(|task| holds_addresses(view, task))
}
