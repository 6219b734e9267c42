//! What clients do with networks (SwarmKit: `controlapi/network.go`).

use std::sync::Arc;

use swarm_core::model::{Network, NetworkId, NetworkSpec, PublishMode, Service, validate};
use swarm_core::store::{Change, Snapshot};

use super::find::Find as _;
use super::{Control, precondition};
use crate::error::{ApiError, Code};

/// Names that every engine has networks of its own for.
const PREDEFINED: [&str; 5] = ["bridge", "host", "none", "default", "nat"];

impl Control {
    /// Creates a network.
    ///
    /// # Errors
    /// What is wrong with the specification, or that the name is taken.
    pub async fn create_network(&self, spec: NetworkSpec) -> Result<NetworkId, ApiError> {
        let id = self.new_id();
        self.transact(|view| {
            let mut spec = spec.clone();
            if PREDEFINED.contains(&spec.name.as_str()) {
                let text = format!("{} is a pre-defined network and cannot be created", spec.name);
                return Err(ApiError::plain(Code::PermissionDenied, text));
            }
            if view.networks.named(&spec.name).is_some() {
                let text = format!("network with name {} already exists", spec.name);
                return Err(ApiError::plain(Code::AlreadyExists, text));
            }
            driver(&spec)?;
            validate::network(&spec)?;
            let ingress = view.networks.iter().find(|n| n.spec.ingress && !n.pending_delete);
            if let Some(other) = ingress.filter(|_| spec.ingress) {
                let text = format!("ingress network ({}) is already present", other.id);
                return Err(ApiError::rpc(Code::AlreadyExists, text));
            }
            "swarm".clone_into(&mut spec.scope);
            let network = Network { id, spec, ..Default::default() };
            Ok((vec![Change::create(network)], id))
        })
        .await
    }

    /// Removes a network: gone for every client at once, erased once no task holds an address.
    ///
    /// # Errors
    /// That it does not exist or is in use.
    pub async fn remove_network(&self, word: &str) -> Result<(), ApiError> {
        self.transact(|view| {
            let network = view.find_network(word)?;
            unused(view, &network)?;
            let change = match view.tasks_in(network.id).next() {
                None => Change::Remove(network.id.into(), Some(network.revision)),
                Some(_) => {
                    Change::update(Network { pending_delete: true, ..Network::clone(&network) })
                }
            };
            Ok((vec![change], ()))
        })
        .await
    }
}

fn driver(spec: &NetworkSpec) -> Result<(), ApiError> {
    match spec.driver.name.as_str() {
        "" | "overlay" => Ok(()),
        local @ ("bridge" | "host" | "null" | "macvlan" | "ipvlan") => Err(ApiError::plain(
            Code::Unimplemented,
            format!(
                "networks of driver {local} belong to one engine: this manager creates overlay networks only"
            ),
        )),
        other => Err(ApiError::plain(Code::NotFound, format!("plugin {other:?} not found"))),
    }
}

fn unused(view: &Snapshot, network: &Network) -> Result<(), ApiError> {
    let alive = |service: &&Arc<Service>| !service.pending_delete;
    if network.spec.ingress {
        let published = |service: &&Arc<Service>| {
            let mut ports = service.spec.endpoint.iter().flat_map(|endpoint| &endpoint.ports);
            ports.any(|port| port.publish_mode == PublishMode::Ingress)
        };
        return match view.services.iter().filter(alive).find(published) {
            None => Ok(()),
            Some(service) => Err(precondition(format!(
                "ingress network cannot be removed because service {} depends on it",
                service.id
            ))),
        };
    }
    if let Some(service) = view.services_in(network.id).find(alive) {
        let text = format!("network {} is in use by service {}", network.id, service.id);
        return Err(precondition(text));
    }
    let mut tasks = view.tasks_in(network.id);
    let held =
        tasks.find(|task| view.shows(task) && task.is_wanted() && !task.status.state.is_terminal());
    match held {
        None => Ok(()),
        Some(task) => {
            Err(precondition(format!("network {} is in use by task {}", network.id, task.id)))
        }
    }
}
