//! Pure: whether a node can take a task at all. The filters are SwarmKit's (`scheduler/filter.go`),
//! in SwarmKit's order; what is ours comes after them.
//!
//! A scheduler of one's own can use them, as this one does:
//!
//! ```
//! use swarm_core::control::Ctx;
//! use swarm_core::scheduler::{PlacementView, Placements, Refused, Scheduler};
//! use swarm_sched::place::{explain::Refusals, filter::Demand, load::NodeLoad, loads::Loads};
//!
//! /// The first node that suits, of those that miss the fewest soft affinities.
//! struct FirstFit;
//!
//! impl Scheduler for FirstFit {
//!     fn place(&self, view: &PlacementView<'_>, _: &mut Ctx<'_>) -> Placements {
//!         let mut answer = Placements::default();
//!         let Some(first) = view.tasks.first() else { return answer };
//!         // They all ask for the same.
//!         let mut demand = match Demand::of(first, view.service, view.snapshot) {
//!             Ok(demand) => demand,
//!             Err(error) => {
//!                 let why = error.to_string();
//!                 answer.refused.extend(view.tasks.iter().map(|it| refused(it, why.clone())));
//!                 return answer;
//!             }
//!         };
//!         let mut loads = Loads::of(view.snapshot);
//!         for task in view.tasks {
//!             let mut refusals = Refusals::default();
//!             // A task of a global service has its node already.
//!             let may = |load: &&NodeLoad| task.node_id.is_none_or(|node| node == load.node.id);
//!             let suits = |load: &&NodeLoad| {
//!                 demand.check(load).map_err(|filter| refusals.count(filter)).is_ok()
//!             };
//!             let nodes = loads.iter().filter(may).filter(suits);
//!             let best = nodes.min_by_key(|load| demand.missed_on(load)).map(|load| load.node.id);
//!             match best.and_then(|node| demand.settle(task, node, &mut loads)) {
//!                 Some(placed) => answer.placed.push(placed),
//!                 None => answer.refused.push(refused(task, refusals.no_suitable_node())),
//!             }
//!         }
//!         answer
//!     }
//! }
//!
//! fn refused(task: &swarm_core::model::Task, why: String) -> Refused {
//!     Refused { task: task.id, why }
//! }
//!
//! swarm_core::conformance::scheduler::suite(|| Box::new(FirstFit));
//! ```
//!
//! What cannot be used apart from [`FilterScheduler`](super::FilterScheduler) are placement preferences
//! and the bound on the skew ([`TOPOLOGY_LABEL`](super::TOPOLOGY_LABEL)): the scheduler above knows
//! neither. One that only adds to what there is asks a
//! [`StrategyScheduler`](super::StrategyScheduler) and changes its answer; then nothing is lost
//! (`examples/custom_scheduler.rs`).

use std::sync::Arc;

use swarm_core::model::{
    Availability, Mount, MountType, NodeId, NodeState, Platform, PortProtocol, Resources, Service,
    ServiceId, Task,
};
use swarm_core::scheduler::Placed;
use swarm_core::store::Snapshot;

use super::affinity::{Affinities, AffinityError};
use super::constraint::{Constraint, parse_all};
use super::load::{NodeLoad, host_ports, reservation};
use super::loads::Loads;
use super::shape::Needs;

/// What can make a node unsuitable, in the order of the checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// The node is not ready or not active.
    Ready,
    /// The reservation does not fit.
    Resource,
    /// A volume, network or log driver is missing.
    Plugin,
    /// A placement constraint does not hold.
    Constraint,
    /// The image does not run there.
    Platform,
    /// A host port is taken.
    HostPort,
    /// The node has as many tasks of the service as it may have.
    MaxReplicas,
    /// A cluster volume that the task mounts cannot be had there. There is no kind of object for
    /// cluster volumes yet, so none can be had anywhere.
    Volume,
    /// The tasks that it has, or has not, are not those to be near. (Ours, as in Swarm v1.)
    Affinity,
}

impl Filter {
    /// Every filter, in order.
    pub const ALL: [Self; 9] = [
        Self::Ready,
        Self::Resource,
        Self::Plugin,
        Self::Constraint,
        Self::Platform,
        Self::HostPort,
        Self::MaxReplicas,
        Self::Volume,
        Self::Affinity,
    ];
}

/// What a task asks of its node: read from the task once, checked against many nodes.
pub struct Demand<'a> {
    /// The task's service.
    pub service: ServiceId,
    reservation: Option<&'a Resources>,
    texts: &'a [String],
    constraints: Vec<Constraint>,
    platforms: &'a [Platform],
    plugins: Vec<Plugin<'a>>,
    host_ports: Vec<(PortProtocol, u16)>,
    max_replicas: u64,
    cluster_volumes: bool,
    pub(super) affinities: Affinities,
}

struct Plugin<'a> {
    kind: &'static str,
    name: &'a str,
}

impl<'a> Demand<'a> {
    /// What this task, and so every task of the same specification, asks for: what its own
    /// specification says, and the affinities in the label of its service.
    ///
    /// # Errors
    /// An affinity that cannot be read. The task is refused with these words.
    pub fn of(
        task: &'a Task,
        service: Option<&Arc<Service>>,
        view: &'a Snapshot,
    ) -> Result<Self, AffinityError> {
        let placement = task.spec.placement.as_ref();
        Ok(Self {
            service: task.service_id,
            reservation: reservation(task),
            // The API validated them; what cannot be read even so is no constraint (SwarmKit).
            constraints: parse_all(task.spec.constraints()).unwrap_or_default(),
            texts: task.spec.constraints(),
            platforms: placement.map_or(&[], |placement| &placement.platforms),
            plugins: plugins_of(task, view),
            host_ports: host_ports(task).collect(),
            max_replicas: placement.map_or(0, |placement| placement.max_replicas),
            cluster_volumes: mounts(task).any(|mount| mount.kind == MountType::Cluster),
            affinities: Affinities::of(task, service, view)?,
        })
    }

    /// Whether a node suits, or the first filter that it does not pass.
    ///
    /// # Errors
    /// That filter.
    pub fn check(&self, load: &NodeLoad) -> Result<(), Filter> {
        Filter::ALL
            .into_iter()
            .try_for_each(|filter| if self.passes(filter, load) { Ok(()) } else { Err(filter) })
    }

    /// How many of the soft affinities the node does not meet. The fewer the better, whatever else
    /// speaks for a node.
    #[must_use]
    pub fn missed_on(&self, load: &NodeLoad) -> usize {
        self.affinities.missed_on(load)
    }

    /// Gives a task a node that suits: counts it there, for the tasks after it, and says what it
    /// claims. Nothing if there is no such node.
    pub fn settle(&mut self, task: &Arc<Task>, node: NodeId, loads: &mut Loads) -> Option<Placed> {
        loads.seat(node).map(|seat| self.settle_at(task, seat, loads))
    }

    /// The same by the node's seat.
    pub(super) fn settle_at(&mut self, task: &Arc<Task>, seat: usize, loads: &mut Loads) -> Placed {
        let placed = loads.settle(task, seat);
        self.affinities.settled(task, placed.node);
        placed
    }

    /// What it reserves.
    #[must_use]
    pub fn reservation(&self) -> Option<&'a Resources> {
        self.reservation
    }

    /// Whether the node passes every filter that tasks on it cannot change.
    pub(super) fn suits(&self, load: &NodeLoad) -> bool {
        [Filter::Ready, Filter::Plugin, Filter::Constraint, Filter::Platform, Filter::Volume]
            .into_iter()
            .all(|filter| self.passes(filter, load))
    }

    /// Whether what is left on the node is enough.
    pub(super) fn has_room(&self, load: &NodeLoad) -> bool {
        self.passes(Filter::Resource, load) && self.passes(Filter::HostPort, load)
    }

    /// Whether the tasks that the node has allow one more of the service.
    pub(super) fn may_have_more(&self, load: &NodeLoad) -> bool {
        self.passes(Filter::MaxReplicas, load) && self.passes(Filter::Affinity, load)
    }

    /// What tasks that suit the same nodes have in common.
    pub(super) fn needs(&self) -> Needs {
        let plugins = self.plugins.iter().map(|plugin| (plugin.kind, plugin.name.to_owned()));
        Needs {
            reservation: self.reservation.cloned(),
            constraints: self.texts.to_vec(),
            platforms: self.platforms.to_vec(),
            plugins: plugins.collect(),
            host_ports: self.host_ports.clone(),
            cluster_volumes: self.cluster_volumes,
        }
    }

    /// Whether these are its needs.
    pub(super) fn is_for(&self, needs: &Needs) -> bool {
        self.reservation == needs.reservation.as_ref()
            && self.host_ports == needs.host_ports
            && self.suits_as(needs)
    }

    /// Whether every node that tasks of these needs [suit](Self::suits) suits it too, and no other:
    /// what is needed of the room there may differ.
    pub(super) fn suits_as(&self, needs: &Needs) -> bool {
        let ours = self.plugins.iter().map(|plugin| (plugin.kind, plugin.name));
        self.texts == needs.constraints
            && self.platforms == needs.platforms
            && self.cluster_volumes == needs.cluster_volumes
            && ours.eq(needs.plugins.iter().map(|(kind, name)| (*kind, name.as_str())))
    }

    /// A demand of these needs, for a service that has no tasks anywhere: none has the largest id.
    pub(super) fn from_needs(needs: &'a Needs) -> Self {
        let plugins = needs.plugins.iter().map(|(kind, name)| Plugin { kind, name });
        Self {
            service: ServiceId::MAX,
            reservation: needs.reservation.as_ref(),
            texts: &needs.constraints,
            constraints: parse_all(&needs.constraints).unwrap_or_default(),
            platforms: &needs.platforms,
            plugins: plugins.collect(),
            host_ports: needs.host_ports.clone(),
            max_replicas: 0,
            cluster_volumes: needs.cluster_volumes,
            affinities: Affinities::default(),
        }
    }

    fn passes(&self, filter: Filter, load: &NodeLoad) -> bool {
        let node = &load.node;
        match filter {
            Filter::Ready => {
                node.status.state == NodeState::Ready
                    && node.spec.availability == Availability::Active
            }
            Filter::Resource => self.reservation.is_none_or(|wanted| load.fits(wanted)),
            Filter::Plugin => self.plugins.iter().all(|plugin| plugin.is_on(load)),
            Filter::Constraint => self.constraints.iter().all(|wanted| wanted.matches(node)),
            Filter::Platform => self.runs_on(load),
            Filter::HostPort => {
                self.host_ports.iter().all(|(protocol, port)| load.has_port(*protocol, *port))
            }
            Filter::MaxReplicas => {
                self.max_replicas == 0 || load.active_of(self.service) < self.max_replicas
            }
            Filter::Volume => !self.cluster_volumes,
            Filter::Affinity => self.affinities.hold_on(load),
        }
    }

    fn runs_on(&self, load: &NodeLoad) -> bool {
        if self.platforms.is_empty() {
            return true;
        }
        let Some(node) = &load.node.description else { return false };
        self.platforms.iter().any(|image| {
            let (wanted, actual) = (architecture(image), architecture(&node.platform));
            (wanted.is_empty() || wanted == actual)
                && (image.os.is_empty() || image.os == node.platform.os)
        })
    }
}

impl Plugin<'_> {
    /// A node that reports no plugins at all runs no Docker Engine, and is not judged by them. One
    /// that reports none of the kind is judged by its volume drivers only: old engines report no
    /// log drivers (SwarmKit), and networks may come from outside the engine.
    fn is_on(&self, load: &NodeLoad) -> bool {
        let reported = load.node.description.iter().flat_map(|node| &node.engine.plugins);
        let (mut any, mut of_kind) = (false, false);
        for plugin in reported {
            any = true;
            if plugin.kind != self.kind {
                continue;
            }
            of_kind = true;
            let tag = plugin.name.strip_prefix(self.name);
            if matches!(tag, Some("" | ":latest")) {
                return true;
            }
        }
        !any || (!of_kind && self.kind != "Volume")
    }
}

/// Registries and `uname` have different names for the same processors.
fn architecture(platform: &Platform) -> &str {
    match platform.architecture.as_str() {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn mounts(task: &Task) -> impl Iterator<Item = &Mount> {
    task.spec.container.iter().flat_map(|container| &container.mounts)
}

fn plugins_of<'a>(task: &'a Task, view: &'a Snapshot) -> Vec<Plugin<'a>> {
    let volumes = mounts(task)
        .filter(|mount| mount.kind == MountType::Volume)
        .filter_map(|mount| mount.volume.as_ref()?.driver_config.as_ref())
        .filter(|driver| driver.name != "local")
        .map(|driver| Plugin { kind: "Volume", name: &driver.name });
    let networks = (task.networks.iter())
        .filter_map(|attachment| view.networks.get(attachment.network.id)?.driver_state.as_ref())
        .map(|driver| Plugin { kind: "Network", name: &driver.name });
    let log = (task.spec.log_driver.iter())
        .filter(|driver| driver.name != "none")
        .map(|driver| Plugin { kind: "Log", name: &driver.name });
    volumes.chain(networks).chain(log).filter(|plugin| !plugin.name.is_empty()).collect()
}
