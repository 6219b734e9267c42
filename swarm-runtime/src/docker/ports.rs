//! Pure: published ports as the engine's port bindings, and the engine's answer as ports.
//!
//! A port in `host` mode is bound to its number on the node. A port in `ingress` mode is bound to
//! a free number of the node's address: that is where every node's load balancer reaches the
//! task, on this engine and from others, without an overlay network.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bollard::models::{PortBinding, PortMap};
use swarm_core::model::{PortConfig, PortProtocol, PublishMode, Task, TaskEndpoint};

/// What one port of a container is published as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Wanted {
    /// The number on the node; 0 takes a free one.
    number: u16,
    ingress: bool,
}

/// The bindings of each `PORT/PROTOCOL`, in the order in which they are asked for: fixed numbers
/// last, so that the free ones are read back from the front.
fn wanted(task: &Task) -> BTreeMap<String, BTreeSet<Wanted>> {
    let mut wanted: BTreeMap<String, BTreeSet<Wanted>> = BTreeMap::new();
    for port in task.endpoint.iter().flat_map(|endpoint| &endpoint.ports) {
        let ingress = port.publish_mode == PublishMode::Ingress;
        let number = if ingress { 0 } else { port.published_port };
        wanted.entry(key(port)).or_default().insert(Wanted { number, ingress });
    }
    wanted
}

fn key(port: &PortConfig) -> String {
    format!("{}/{}", port.target_port, port.protocol)
}

/// The bindings to create a container with.
pub(super) fn bindings(task: &Task, advertise: Option<IpAddr>) -> PortMap {
    let bind = |wanted: &Wanted| {
        // Without an address of its own the node balances for this machine alone.
        let local = wanted.ingress.then_some(IpAddr::V4(Ipv4Addr::LOCALHOST));
        PortBinding {
            host_ip: advertise.or(local).map(|ip| ip.to_string()),
            host_port: Some(wanted.number.to_string()),
        }
    };
    let all = wanted(task);
    all.iter().map(|(key, wanted)| (key.clone(), Some(wanted.iter().map(bind).collect()))).collect()
}

/// What became of a task's ports: the host ports with their numbers, and where ingress ports
/// answer.
pub(super) fn published(
    ports: &[PortConfig],
    actual: &PortMap,
) -> (Vec<PortConfig>, Vec<TaskEndpoint>) {
    let (mut host, mut endpoints) = (Vec::new(), Vec::new());
    let fixed: BTreeSet<(String, u16)> = ports
        .iter()
        .filter(|port| port.publish_mode == PublishMode::Host && port.published_port != 0)
        .map(|port| (key(port), port.published_port))
        .collect();
    let mut seen = BTreeSet::new();
    for port in ports {
        let key = key(port);
        let bound = actual.get(&key).and_then(Option::as_ref);
        let mut bound = bound.into_iter().flatten().filter_map(address);
        let mut free = bound.by_ref().filter(|at| !fixed.contains(&(key.clone(), at.port())));
        match port.publish_mode {
            PublishMode::Host if port.published_port != 0 => host.push(port.clone()),
            PublishMode::Host => {
                if let Some(at) = free.next() {
                    host.push(PortConfig { published_port: at.port(), ..port.clone() });
                }
            }
            PublishMode::Ingress => {
                if let Some(at) = free.last()
                    && seen.insert(key.clone())
                {
                    endpoints.push(TaskEndpoint {
                        target_port: port.target_port,
                        protocol: port.protocol,
                        address: at.to_string(),
                        ..Default::default()
                    });
                }
            }
        }
    }
    (host, endpoints)
}

fn address(binding: &PortBinding) -> Option<SocketAddr> {
    let ip = binding.host_ip.as_deref().filter(|ip| !ip.is_empty()).unwrap_or("0.0.0.0");
    Some(SocketAddr::new(ip.parse().ok()?, binding.host_port.as_deref()?.parse().ok()?))
}

/// The ports of a task in the form that a container's label keeps, for an agent that finds the
/// container after a restart.
pub(super) fn to_label(task: &Task) -> Option<String> {
    let ports = &task.endpoint.as_ref()?.ports;
    (!ports.is_empty()).then(|| serde_json::to_string(ports).unwrap_or_default())
}

/// The reverse of [`to_label`].
pub(super) fn from_label(label: Option<&String>) -> Vec<PortConfig> {
    label.and_then(|label| serde_json::from_str(label).ok()).unwrap_or_default()
}

/// A task in the host's network answers where it listens.
pub(super) fn in_host_network(
    ports: &[PortConfig],
    advertise: Option<IpAddr>,
) -> (Vec<PortConfig>, Vec<TaskEndpoint>) {
    let ip = advertise.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let endpoint = |port: &PortConfig| TaskEndpoint {
        target_port: port.target_port,
        protocol: port.protocol,
        address: SocketAddr::new(ip, port.target_port).to_string(),
        ..Default::default()
    };
    let (host, ingress): (Vec<_>, Vec<_>) =
        ports.iter().partition(|port| port.publish_mode == PublishMode::Host);
    let host = host
        .into_iter()
        .map(|port| PortConfig { published_port: port.target_port, ..port.clone() });
    let balanced = |port: &&&PortConfig| port.protocol != PortProtocol::Sctp;
    (host.collect(), ingress.iter().filter(balanced).map(|port| endpoint(port)).collect())
}
