//! Pure: what an executor and a network driver need for one task, put together from what the
//! manager assigned.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use swarm_core::executor::{Assignment, ExecError};
use swarm_core::model::{
    Blob, ConfigId, ConfigReference, ContainerSpec, Driver, FileTarget, NetworkId, NodeDescription,
    NodeId, PublishMode, SecretBytes, SecretId, SecretReference, Task, TaskEndpoint, claims_env,
};
use swarm_core::network::{Attachment, NetworkView, NodeNetwork, PublishedPort};
use swarm_core::protocol::{Item, ItemKey};
use swarm_core::template::{Context, Functions, TemplateError};

/// Everything beside tasks that is assigned to a node.
#[derive(Clone, Debug, Default)]
pub struct Shelf {
    secrets: BTreeMap<SecretId, Payload<SecretBytes>>,
    configs: BTreeMap<ConfigId, Payload<Blob>>,
    networks: BTreeMap<NetworkId, Arc<NetworkView>>,
    ports: BTreeMap<ItemKey, PublishedPort>,
}

/// The bytes of a secret or config, and how they are expanded for each task.
#[derive(Clone, Debug)]
struct Payload<T> {
    bytes: T,
    templating: Option<Driver>,
}

impl Shelf {
    /// Takes an item in; whether the node's networks changed by it. Tasks are not kept here.
    pub fn put(&mut self, item: Item) -> bool {
        let key = item.key();
        match item {
            Item::Task(_) => false,
            Item::Secret { id, bytes, templating } => {
                self.secrets.insert(id, Payload { bytes, templating });
                false
            }
            Item::Config { id, bytes, templating } => {
                self.configs.insert(id, Payload { bytes, templating });
                false
            }
            Item::Network(view) => {
                let id = view.network.id;
                self.networks.insert(id, view.clone()).is_none_or(|old| old != view)
            }
            Item::Port(port) => self.ports.insert(key, port.clone()).is_none_or(|old| old != port),
        }
    }

    /// The secrets that are here.
    pub fn secrets(&self) -> impl Iterator<Item = SecretId> + '_ {
        self.secrets.keys().copied()
    }

    /// Gives an item up; whether the node's networks changed by it.
    pub fn drop(&mut self, key: &ItemKey) -> bool {
        match key {
            ItemKey::Task(_) => false,
            ItemKey::Secret(id) => {
                self.secrets.remove(id);
                false
            }
            ItemKey::Config(id) => {
                self.configs.remove(id);
                false
            }
            ItemKey::Network(id) => self.networks.remove(id).is_some(),
            ItemKey::Port(..) => self.ports.remove(key).is_some(),
        }
    }

    /// The state that the node's networks shall have.
    #[must_use]
    pub fn node_network(&self) -> NodeNetwork {
        NodeNetwork {
            networks: self.networks.values().map(|view| NetworkView::clone(view)).collect(),
            published: self.ports.values().cloned().collect(),
        }
    }

    /// Whether a network is described.
    #[must_use]
    pub fn has_network(&self, id: NetworkId) -> bool {
        self.networks.contains_key(&id)
    }

    /// A task's places in the networks that are described.
    #[must_use]
    pub fn attachments(&self, task: &Task) -> Vec<Attachment> {
        let service = &task.annotations.name;
        let known = task.networks.iter().filter_map(|place| {
            let view = self.networks.get(&place.network.id)?;
            let mut names = vec![service.clone()];
            names.extend(place.aliases.iter().filter(|alias| *alias != service).cloned());
            names.push(format!("tasks.{service}"));
            Some(Attachment {
                task: task.id,
                network: view.network.clone(),
                addresses: place.addresses.clone(),
                names,
                driver_opts: place.driver_opts.clone(),
            })
        });
        known.collect()
    }

    /// What the executor needs, templates expanded.
    ///
    /// # Errors
    /// *Rejected* when the task can never run here; *temporary* while a network that it is
    /// attached to is not described yet.
    pub fn assignment(
        &self,
        task: &Task,
        node: NodeId,
        description: &NodeDescription,
    ) -> Result<Assignment, ExecError> {
        let Some(container) = &task.spec.container else {
            let runtime = if task.spec.runtime.is_empty() { "none" } else { &task.spec.runtime };
            return Err(ExecError::rejected(format!(
                "this node runs containers only, and the task has none (runtime: {runtime})"
            )));
        };
        if let Some(place) = task.networks.iter().find(|place| !self.has_network(place.network.id))
        {
            let id = place.network.id;
            return Err(ExecError::temporary(format!("waiting for network {id}")));
        }
        let context = Context { task, node, description };
        let mut container = context.expand(container).map_err(rejected)?;
        let (secrets, configs) = self.payloads(&context, &container)?;
        container.env.extend(claims_env(&task.generic_resources));
        let mut expanded = task.clone();
        let spec = Arc::make_mut(&mut expanded.spec);
        spec.container = Some(container);
        spec.log_driver = spec.log_driver.take().or_else(|| task.log_driver.as_deref().cloned());
        Ok(Assignment {
            attachments: self.attachments(task),
            task: Arc::new(expanded),
            node,
            secrets,
            configs,
        })
    }

    /// The bytes of a container's secrets and configs, expanded where they are templates.
    fn payloads(
        &self,
        context: &Context<'_>,
        container: &ContainerSpec,
    ) -> Result<Payloads, ExecError> {
        let missing =
            |kind: &str, name: &str| ExecError::rejected(format!("{kind} {name} was not assigned"));
        let secret = |reference: &SecretReference| {
            let payload = self.secrets.get(&reference.secret_id);
            payload.ok_or_else(|| missing("secret", &reference.secret_name))
        };
        let config = |reference: &ConfigReference| {
            let payload = self.configs.get(&reference.config_id);
            payload.ok_or_else(|| missing("config", &reference.config_name))
        };
        let mut functions = Functions { env: &container.env, ..Functions::default() };
        for reference in &container.secrets {
            functions.secrets.push((target(&reference.file), &secret(reference)?.bytes));
        }
        for reference in &container.configs {
            functions.configs.push((target(&reference.file), &config(reference)?.bytes));
        }
        let secrets = container.secrets.iter().map(|reference| {
            let Payload { bytes, templating } = secret(reference)?;
            let Some(templating) = templating else {
                return Ok((reference.clone(), bytes.clone()));
            };
            let place = format!("secret {}", reference.secret_id);
            let bytes = context.payload(&place, templating, bytes.expose(), &functions, true);
            Ok((reference.clone(), bytes.map_err(rejected)?))
        });
        let configs = container.configs.iter().map(|reference| {
            let Payload { bytes, templating } = config(reference)?;
            let Some(templating) = templating else {
                return Ok((reference.clone(), SecretBytes::from(bytes.0.to_vec())));
            };
            let place = format!("config {}", reference.config_id);
            let bytes = context.payload(&place, templating, &bytes.0, &functions, false);
            Ok((reference.clone(), bytes.map_err(rejected)?))
        });
        Ok((secrets.collect::<Result<_, ExecError>>()?, configs.collect::<Result<_, ExecError>>()?))
    }
}

/// References to secrets and to configs, with the bytes that they stand for.
type Payloads = (Vec<(SecretReference, SecretBytes)>, Vec<(ConfigReference, SecretBytes)>);

/// The name of the file that a reference appears as; templates ask by it.
fn target(file: &Option<FileTarget>) -> &str {
    file.as_ref().map_or("", |file| &file.name)
}

fn rejected(error: TemplateError) -> ExecError {
    ExecError::rejected(error.to_string()).caused_by(error)
}

/// Where a task's ingress ports answer, when its networks and not its executor decide that: every
/// such port at the task's first address.
#[must_use]
pub fn endpoints(task: &Task, addresses: &[IpAddr]) -> Vec<TaskEndpoint> {
    let ports = task.endpoint.iter().flat_map(|endpoint| &endpoint.ports);
    let ingress = ports.filter(|port| port.publish_mode == PublishMode::Ingress);
    let at = |address: &IpAddr| {
        let endpoint = |port: &swarm_core::model::PortConfig| TaskEndpoint {
            target_port: port.target_port,
            protocol: port.protocol,
            address: SocketAddr::new(*address, port.target_port).to_string(),
            ..Default::default()
        };
        ingress.map(endpoint).collect()
    };
    addresses.first().map(at).unwrap_or_default()
}

#[cfg(test)]
#[path = "assemble_tests.rs"]
mod tests;
