//! Pure: which published port belongs to which service.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use swarm_core::model::{EndpointSpec, PortConfig, PortProtocol, PublishMode, Service, ServiceId};
use swarm_core::store::Snapshot;

use super::Stall;

/// Where ports come from that no one chose (SwarmKit: `portallocator.go`).
const AUTOMATIC: RangeInclusive<u16> = 30_000..=32_767;

/// A published port that another service has. Its text is Swarm's.
#[derive(Clone, Debug)]
pub struct PortConflict {
    /// The port.
    pub port: u16,
    /// The transport.
    pub protocol: PortProtocol,
    /// How the other service publishes it.
    pub mode: PublishMode,
    /// The other service.
    pub owner: Arc<Service>,
}

impl fmt::Display for PortConflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, id) = (&self.owner.spec.name, self.owner.id);
        let how = match self.mode {
            PublishMode::Ingress => "an ingress",
            PublishMode::Host => "a host-published",
        };
        write!(f, "port '{}' is already in use by service '{name}' ({id}) as {how} port", self.port)
    }
}

/// The first port of an endpoint that collides with what another service has or asks for: with
/// an ingress port always, with a host port if one side is ingress. (Two host ports of one number
/// get along on different nodes; the scheduler sees to that.) For the API, which refuses such a
/// specification; `service` is nil for a service that is about to be created.
#[must_use]
pub fn port_conflict(
    view: &Snapshot,
    service: ServiceId,
    spec: &EndpointSpec,
) -> Option<PortConflict> {
    if !spec.ports.iter().any(|port| port.published_port != 0) {
        return None;
    }
    others(view, service).find_map(|owner| {
        let asked = owner.spec.endpoint.iter().flat_map(|endpoint| &endpoint.ports);
        conflict_with(owner, asked.chain(held(owner)), &spec.ports)
    })
}

fn conflict_with<'a>(
    owner: &Arc<Service>,
    theirs: impl Iterator<Item = &'a PortConfig>,
    ours: &[PortConfig],
) -> Option<PortConflict> {
    let collides = |their: &PortConfig, our: &PortConfig| {
        let both_host =
            their.publish_mode == PublishMode::Host && our.publish_mode == PublishMode::Host;
        our.published_port != 0
            && our.published_port == their.published_port
            && our.protocol == their.protocol
            && !both_host
    };
    let mut theirs = theirs;
    let their = theirs.find(|their| ours.iter().any(|our| collides(their, our)))?;
    Some(PortConflict {
        port: their.published_port,
        protocol: their.protocol,
        mode: their.publish_mode,
        owner: owner.clone(),
    })
}

/// The other services that count: one that is marked for removal has given its ports up.
fn others(view: &Snapshot, service: ServiceId) -> impl Iterator<Item = &Arc<Service>> {
    view.services.iter().filter(move |other| other.id != service && !other.pending_delete)
}

/// What was allocated to a service.
fn held(service: &Service) -> impl Iterator<Item = &PortConfig> {
    service.endpoint.iter().flat_map(|endpoint| &endpoint.ports)
}

/// Whether any port of these is published on every node.
pub(super) fn any_ingress(ports: &[PortConfig]) -> bool {
    ports.iter().any(|port| port.publish_mode == PublishMode::Ingress)
}

/// The ports of a service with every ingress port numbered: as asked for, else as it was before,
/// else the lowest free one of the automatic range.
///
/// # Errors
/// [`Stall::Port`] while another service holds one, [`Stall::NoPort`].
pub(super) fn numbered(view: &Snapshot, service: &Service) -> Result<Vec<PortConfig>, Stall> {
    let mut ports = service.spec.endpoint.as_ref().map_or(&[][..], |spec| &spec.ports).to_vec();
    refuse_conflicts(view, service, &ports)?;
    let ingress_zero =
        |port: &PortConfig| port.publish_mode == PublishMode::Ingress && port.published_port == 0;
    let mut mine: BTreeSet<(PortProtocol, u16)> = (ports.iter())
        .filter(|port| port.published_port != 0)
        .map(|port| (port.protocol, port.published_port))
        .collect();
    for port in ports.iter_mut().filter(|port| ingress_zero(port)) {
        let former = held(service).find(|former| {
            is_same_port(former, port) && !mine.contains(&(former.protocol, former.published_port))
        });
        port.published_port = former.map_or(0, |former| former.published_port);
        if port.published_port != 0 {
            mine.insert((port.protocol, port.published_port));
        }
    }
    if ports.iter().any(ingress_zero) {
        let taken = everything(view, service.id);
        for port in ports.iter_mut().filter(|port| ingress_zero(port)) {
            let free = |number: &u16| {
                let key = (port.protocol, *number);
                !taken.contains(&key) && !mine.contains(&key)
            };
            port.published_port = AUTOMATIC.into_iter().find(free).ok_or(Stall::NoPort)?;
            mine.insert((port.protocol, port.published_port));
        }
    }
    Ok(ports)
}

/// Ports that were not this service's own before must not be any other's.
fn refuse_conflicts(view: &Snapshot, service: &Service, ports: &[PortConfig]) -> Result<(), Stall> {
    let own = |port: &&PortConfig| {
        held(service).any(|held| {
            held.published_port == port.published_port
                && held.protocol == port.protocol
                && held.publish_mode == port.publish_mode
        })
    };
    let new: Vec<PortConfig> = ports.iter().filter(|port| !own(port)).cloned().collect();
    if !new.iter().any(|port| port.published_port != 0) {
        return Ok(());
    }
    let conflict =
        others(view, service.id).find_map(|owner| conflict_with(owner, held(owner), &new));
    conflict.map_or(Ok(()), |conflict| Err(Stall::Port(conflict.to_string())))
}

/// Whether an allocated port answers the same wish (SwarmKit: name, transport and target).
fn is_same_port(former: &PortConfig, wanted: &PortConfig) -> bool {
    former.publish_mode == PublishMode::Ingress
        && former.name == wanted.name
        && former.protocol == wanted.protocol
        && former.target_port == wanted.target_port
}

/// Every port number that another service has or asks for.
fn everything(view: &Snapshot, service: ServiceId) -> BTreeSet<(PortProtocol, u16)> {
    others(view, service)
        .flat_map(|other| {
            other.spec.endpoint.iter().flat_map(|endpoint| &endpoint.ports).chain(held(other))
        })
        .map(|port| (port.protocol, port.published_port))
        .collect()
}
