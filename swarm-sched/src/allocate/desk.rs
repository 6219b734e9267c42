//! Pure: allocates for one service and its tasks, on one view.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use swarm_core::model::{
    Endpoint, EndpointMode, Network, NetworkAttachment, NetworkAttachmentConfig, NetworkId,
    NetworkRef, Service, ServiceSpec, Task, VirtualIp,
};
use swarm_core::store::Snapshot;
use swarm_core::time::Timestamp;

use super::Stall;
use super::ipam::{Addresses, is_of};
use super::ports::{any_ingress, numbered};

/// How long after its holder's end an address is given out only if no other is left.
const REST: Duration = Duration::from_secs(30);

/// Hands out addresses during one plan.
pub(super) struct Desk<'a> {
    view: &'a Snapshot,
    now: Timestamp,
    /// Networks that something was taken from: what is in use there, this plan's takings included.
    open: BTreeMap<NetworkId, Addresses>,
}

impl<'a> Desk<'a> {
    pub(super) fn new(view: &'a Snapshot, now: Timestamp) -> Self {
        Self { view, now, open: BTreeMap::new() }
    }

    /// How a service can be reached; what it has already, it keeps.
    ///
    /// # Errors
    /// [`Stall`]: then it keeps all that it has.
    pub(super) fn endpoint(&mut self, service: &Service) -> Result<Endpoint, Stall> {
        let spec = service.spec.endpoint.clone().unwrap_or_default();
        let ports = numbered(self.view, service)?;
        let mut virtual_ips = Vec::new();
        if spec.mode.unwrap_or_default() == EndpointMode::Vip {
            let ingress = any_ingress(&ports).then(|| self.ingress()).transpose()?;
            let others: Vec<_> = wishes(&service.spec, &service.spec.task.networks)
                .iter()
                .map(|wish| self.network(wish))
                .collect::<Result<_, _>>()?;
            for network in ingress.into_iter().chain(others) {
                let known = virtual_ips.iter().any(|ip: &VirtualIp| ip.network_id == network.id);
                if network.ipam.is_some() && !known {
                    virtual_ips.push(self.virtual_ip(service, network)?);
                }
            }
        } else if any_ingress(&ports) {
            self.ingress()?;
        }
        Ok(Endpoint { spec, ports, virtual_ips, ..Endpoint::default() })
    }

    fn virtual_ip(&mut self, service: &Service, network: &Network) -> Result<VirtualIp, Stall> {
        let held = service.endpoint.iter().flat_map(|endpoint| &endpoint.virtual_ips);
        let kept =
            held.filter(|ip| ip.network_id == network.id).find(|ip| is_of(network, &ip.addr));
        if let Some(kept) = kept {
            return Ok(kept.clone());
        }
        let addr = self.take(network)?;
        Ok(VirtualIp { network_id: network.id, addr, ..VirtualIp::default() })
    }

    /// A task's places in networks: the ingress network if its service publishes there, then those
    /// of its own specification.
    ///
    /// # Errors
    /// [`Stall`].
    pub(super) fn attachments(
        &mut self,
        task: &Task,
        service: Option<&Service>,
        endpoint: Option<&Endpoint>,
    ) -> Result<Vec<NetworkAttachment>, Stall> {
        let publishes = endpoint.is_some_and(|endpoint| any_ingress(&endpoint.ports));
        let ingress = publishes.then(|| self.ingress()).transpose()?;
        let nothing = NetworkAttachmentConfig::default();
        let own = service
            .map_or(&task.spec.networks[..], |service| wishes(&service.spec, &task.spec.networks));
        let mut wanted: Vec<_> = ingress.map(|network| (network, &nothing)).into_iter().collect();
        for wish in own {
            let network = self.network(wish)?;
            if !wanted.iter().any(|(known, _)| known.id == network.id) {
                wanted.push((network, wish));
            }
        }
        wanted.into_iter().map(|(network, wish)| self.attachment(network, wish)).collect()
    }

    fn attachment(
        &mut self,
        network: &Network,
        wish: &NetworkAttachmentConfig,
    ) -> Result<NetworkAttachment, Stall> {
        let addresses = match network.ipam {
            Some(_) => vec![self.take(network)?],
            None => Vec::new(),
        };
        Ok(NetworkAttachment {
            network: NetworkRef { id: network.id, ..NetworkRef::default() },
            addresses,
            aliases: wish.aliases.clone(),
            driver_opts: wish.driver_opts.clone(),
            ..NetworkAttachment::default()
        })
    }

    fn network(&self, wish: &NetworkAttachmentConfig) -> Result<&'a Arc<Network>, Stall> {
        let networks = &self.view.networks;
        let id = wish.target.parse::<NetworkId>().ok();
        let found = id.and_then(|id| networks.get(id)).or_else(|| networks.named(&wish.target));
        allocated(found.ok_or_else(|| Stall::NoNetwork(wish.target.clone()))?)
    }

    fn ingress(&self) -> Result<&'a Arc<Network>, Stall> {
        let mut networks = self.view.networks.iter();
        let found = networks.find(|network| network.spec.ingress && !network.pending_delete);
        allocated(found.ok_or(Stall::NoIngress)?)
    }

    fn take(&mut self, network: &Network) -> Result<String, Stall> {
        let (view, now) = (self.view, self.now);
        self.open.entry(network.id).or_insert_with(|| in_use(view, network, now)).take()
    }
}

fn allocated(network: &Arc<Network>) -> Result<&Arc<Network>, Stall> {
    if network.driver_state.is_some() {
        return Ok(network);
    }
    let (name, why) = (network.spec.name.clone(), network.stalled.clone());
    Err(Stall::Unallocated { name, why })
}

/// The networks that a task shall be in: before API 1.25 they stood beside the task.
fn wishes<'a>(
    spec: &'a ServiceSpec,
    own: &'a [NetworkAttachmentConfig],
) -> &'a [NetworkAttachmentConfig] {
    if own.is_empty() { &spec.networks } else { own }
}

/// Whether a task's addresses cannot be given to another: until its executor has confirmed the
/// stop, or its node is gone, or it was given up without ever reaching a node.
pub(super) fn holds_addresses(view: &Snapshot, task: &Task) -> bool {
    !task.status.state.is_terminal()
        && match task.node_id {
            Some(node) => view.nodes.get(node).is_some(),
            None => task.is_wanted(),
        }
}

fn in_use(view: &Snapshot, network: &Network, now: Timestamp) -> Addresses {
    let mut addresses = Addresses::of(network);
    for service in view.services_in(network.id) {
        let held = service.endpoint.iter().flat_map(|endpoint| &endpoint.virtual_ips);
        held.filter(|ip| ip.network_id == network.id).for_each(|ip| addresses.occupy(&ip.addr));
    }
    for task in view.tasks_in(network.id) {
        let holds = holds_addresses(view, task);
        let ended = task.ended_at.filter(|ended| now.since(*ended) < REST);
        let places = task.networks.iter().filter(|place| place.network.id == network.id);
        for addr in places.flat_map(|place| &place.addresses) {
            match ended {
                _ if holds => addresses.occupy(addr),
                Some(ended) => addresses.rest(addr, ended),
                None => {}
            }
        }
    }
    addresses
}
