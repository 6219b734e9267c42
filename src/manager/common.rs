//! Pure: what many nodes are told alike, found once for all of them: networks with who is in them,
//! and the published ports.
//!
//! Every node is told of every published port, so that a commit that concerns one has all sessions
//! look at what they have told. What they look at is the same for each.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use swarm_core::model::{
    Endpoint, NetworkId, Node, PortConfig, PublishMode, Service, Task, TaskState,
};
use swarm_core::network::{Backend, NetworkView, Peer, PublishedPort, ServiceRecord};
use swarm_core::protocol::ItemKey;
use swarm_core::store::Snapshot;

/// Published ports, by their keys.
pub type Ports = BTreeMap<ItemKey, PublishedPort>;

/// What nodes are told alike of one view, each part found when it is first asked for.
#[derive(Default)]
pub struct Common {
    view: Snapshot,
    ports: OnceLock<Arc<Ports>>,
    networks: Mutex<BTreeMap<NetworkId, Option<Arc<NetworkView>>>>,
    /// The ports of the view before: if they are the same, they stay the same allocation, and
    /// sessions see at once that there is nothing to tell.
    former: Option<Arc<Ports>>,
}

impl Common {
    /// Of this view.
    #[must_use]
    pub fn of(view: &Snapshot) -> Self {
        Self { view: view.clone(), ..Self::default() }
    }

    /// Brings it to a view of the same store.
    pub fn advance(this: &mut Arc<Self>, view: &Snapshot) {
        if this.view.version() != view.version() {
            let former = this.ports.get().or(this.former.as_ref()).cloned();
            *this = Arc::new(Self { former, ..Self::of(view) });
        }
    }

    /// The view that it is of.
    #[must_use]
    pub fn view(&self) -> &Snapshot {
        &self.view
    }

    /// Every published port of the cluster with the tasks behind it.
    #[must_use]
    pub fn ports(&self) -> Arc<Ports> {
        let find = || {
            let ports = published_ports(&self.view);
            let former = self.former.clone().filter(|former| **former == ports);
            former.unwrap_or_else(|| Arc::new(ports))
        };
        self.ports.get_or_init(find).clone()
    }

    /// A network and who is in it, if there is such a network.
    #[must_use]
    pub fn network(&self, id: NetworkId) -> Option<Arc<NetworkView>> {
        let mut networks = self.networks.lock().unwrap_or_else(PoisonError::into_inner);
        let find = || network_view(&self.view, id).map(Arc::new);
        networks.entry(id).or_insert_with(find).clone()
    }
}

/// A task that answers for its service: it runs, and is meant to go on.
fn answers(task: &Task) -> bool {
    task.status.state == TaskState::Running && task.is_wanted()
}

fn network_view(view: &Snapshot, id: NetworkId) -> Option<NetworkView> {
    let network = view.networks.get(id)?.clone();
    let mut peers = BTreeMap::new();
    let mut services: BTreeMap<_, ServiceRecord> = BTreeMap::new();
    for task in view.tasks_in(id).filter(|task| task.holds_resources()) {
        let Some(node) = task.node_id.and_then(|node| view.nodes.get(node)) else { continue };
        peers.entry(node.id).or_insert_with(|| peer(node));
        let Some(place) = task.networks.iter().find(|place| place.network.id == id) else {
            continue;
        };
        let record = services.entry(task.service_id).or_insert_with(|| ServiceRecord {
            service: task.service_id,
            names: vec![task.annotations.name.clone()],
            virtual_ip: view.services.get(task.service_id).and_then(|s| virtual_ip(s, id)),
            backends: Vec::new(),
        });
        for alias in &place.aliases {
            if !record.names.contains(alias) {
                record.names.push(alias.clone());
            }
        }
        if answers(task) {
            record.backends.extend(place.addresses.first().map(|address| Backend {
                task: task.id,
                node: node.id,
                address: without_mask(address),
            }));
        }
    }
    let (peers, services) = (peers.into_values().collect(), services.into_values().collect());
    Some(NetworkView { network, peers, services })
}

fn peer(node: &Node) -> Peer {
    let engine = node.description.as_ref().map(|d| d.engine.engine_id.clone());
    Peer { node: node.id, addr: node.status.addr.clone(), engine: engine.unwrap_or_default() }
}

fn virtual_ip(service: &Service, network: NetworkId) -> Option<String> {
    let endpoint = service.endpoint.as_ref()?;
    let ip = endpoint.virtual_ips.iter().find(|ip| ip.network_id == network)?;
    Some(without_mask(&ip.addr))
}

fn without_mask(cidr: &str) -> String {
    cidr.split('/').next().unwrap_or_default().to_owned()
}

/// Every published port with the tasks behind it.
fn published_ports(view: &Snapshot) -> Ports {
    let mut ports = Ports::new();
    for service in view.services.iter().filter(|service| !service.pending_delete) {
        let Some(endpoint) = &service.endpoint else { continue };
        for port in ingress(endpoint) {
            let backends =
                view.tasks_of(service.id).filter(|task| answers(task)).filter_map(|task| {
                    let at = task.status.endpoints.iter().find(|endpoint| {
                        endpoint.target_port == port.target_port
                            && endpoint.protocol == port.protocol
                    })?;
                    Some(Backend {
                        task: task.id,
                        node: task.node_id?,
                        address: at.address.clone(),
                    })
                });
            let published = PublishedPort {
                service: service.id,
                port: port.published_port,
                protocol: port.protocol,
                backends: backends.collect(),
            };
            ports.insert(ItemKey::Port(port.published_port, port.protocol), published);
        }
    }
    ports
}

/// What of an endpoint every node answers for.
pub(super) fn ingress(endpoint: &Endpoint) -> impl Iterator<Item = &PortConfig> {
    endpoint
        .ports
        .iter()
        .filter(|port| port.publish_mode == PublishMode::Ingress && port.published_port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm_core::id::IdSource;
    use swarm_core::store::Object;

    #[test]
    fn ports_that_did_not_change_are_the_same_allocation() {
        let mut ids = IdSource::seeded(1);
        let mut service = Service { id: ids.next(), ..Service::default() };
        let port = PortConfig { target_port: 80, published_port: 8080, ..PortConfig::default() };
        service.endpoint = Some(Arc::new(Endpoint { ports: vec![port], ..Endpoint::default() }));
        let node = Object::from(Node { id: ids.next(), ..Node::default() });
        let view =
            |version, objects| Snapshot::from_objects(swarm_core::model::Version(version), objects);
        let mut common = Arc::new(Common::of(&view(1, vec![service.clone().into()])));
        let first = common.ports();
        assert_eq!(first.len(), 1);
        // Nobody asked at version 2.
        Common::advance(&mut common, &view(2, vec![service.clone().into()]));
        Common::advance(&mut common, &view(3, vec![service.clone().into(), node]));
        assert!(Arc::ptr_eq(&common.ports(), &first));
        service.pending_delete = true;
        Common::advance(&mut common, &view(4, vec![service.into()]));
        assert!(common.ports().is_empty());
    }
}
