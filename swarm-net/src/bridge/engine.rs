//! The engine's networks: makes, finds and removes those of one cluster, and connects containers.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{
    ContainerInspectResponse, EndpointIpamConfig, EndpointSettings, Ipam, IpamConfig,
    NetworkConnectRequest, NetworkCreateRequest, NetworkDisconnectRequest,
};
use bollard::query_parameters::{ListContainersOptionsBuilder, ListNetworksOptionsBuilder};
use swarm_core::model::{ClusterId, Network, NetworkId, TaskId};
use swarm_core::network::{Attachment, NetError};

/// The labels of the networks that this driver makes.
const CLUSTER_LABEL: &str = "swarm.cluster";
const NETWORK_LABEL: &str = "swarm.network";
/// The label with a container's task, under the name that Docker Swarm gives it.
const TASK_LABEL: &str = "com.docker.swarm.task.id";
/// The engine's own network, into which it puts containers that nobody put elsewhere.
const DEFAULT_NETWORK: &str = "bridge";
/// How often, and with which pauses, a network that another node may be making is looked for.
const RIVAL_LOOKS: u32 = 20;
const RIVAL_PAUSE: Duration = Duration::from_millis(50);

/// A cluster's part of an engine.
#[derive(Clone, Debug)]
pub(super) struct Engine {
    docker: Docker,
    cluster: ClusterId,
    id: String,
}

impl Engine {
    pub(super) async fn connect(host: &str, cluster: ClusterId) -> Result<Self, NetError> {
        let absent =
            |error| NetError::System(format!("no Docker Engine answers at {host}: {error}"));
        let docker = Docker::connect_with_host(host).map_err(absent)?;
        let docker = docker.negotiate_version().await.map_err(absent)?;
        let info = docker.info().await.map_err(absent)?;
        let id = info.id.filter(|id| !id.is_empty()).or(info.name).unwrap_or_default();
        Ok(Self { docker, cluster, id })
    }

    /// The engine's own id.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Makes a network, unless it is there: its name on the engine.
    pub(super) async fn ensure(&self, network: &Network) -> Result<String, NetError> {
        let name = self.name(network.id);
        if self.find(network.id).await? {
            return Ok(name);
        }
        let Err(error) = self.docker.create_network(self.request(network)).await else {
            return Ok(name);
        };
        // Another node of the cluster may be making it: its range is taken then, and it is listed
        // a moment later.
        for _ in 0..RIVAL_LOOKS {
            if self.find(network.id).await? {
                return Ok(name);
            }
            tokio::time::sleep(RIVAL_PAUSE).await;
        }
        Err(failed(&format!("making network {} on the engine", network.spec.name), error))
    }

    /// Connects a container that is not started, at the addresses that the cluster allocated.
    pub(super) async fn attach(&self, want: &Attachment, container: &str) -> Result<(), NetError> {
        let network = self.ensure(&want.network).await?;
        let connected = self.networks_of(container).await?;
        if connected.contains(&network) {
            return Ok(());
        }
        if connected.contains(DEFAULT_NETWORK) {
            self.disconnect(DEFAULT_NETWORK, container).await?;
        }
        let request = NetworkConnectRequest {
            container: container.to_owned(),
            endpoint_config: Some(endpoint(want)),
        };
        match self.docker.connect_network(&network, request).await {
            Ok(()) => Ok(()),
            // An interrupted call of ours came through after all.
            Err(_) if self.networks_of(container).await?.contains(&network) => Ok(()),
            Err(error) => {
                let doing = format!("connecting task {} to {}", want.task, want.network.spec.name);
                Err(failed(&doing, error))
            }
        }
    }

    /// Takes a task's container out of every network of the cluster.
    pub(super) async fn detach(&self, task: TaskId) -> Result<(), NetError> {
        for container in self.containers(format!("{TASK_LABEL}={task}"), "label").await? {
            let ours = format!("{}.", self.prefix());
            for network in self.networks_of(&container).await? {
                if network.starts_with(&ours) {
                    self.disconnect(&network, &container).await?;
                }
            }
        }
        Ok(())
    }

    /// Removes the cluster's networks that nobody wants and no container has, started or about to
    /// be. One that another node of the cluster wants is made again before that node attaches.
    pub(super) async fn remove_unused(&self, wanted: &BTreeSet<NetworkId>) -> Result<(), NetError> {
        for network in self.list(None).await? {
            if wanted.contains(&network) {
                continue;
            }
            let name = self.name(network);
            if !self.containers(name.clone(), "network").await?.is_empty() {
                continue;
            }
            match self.docker.remove_network(&name).await {
                Ok(()) => {}
                // Gone already, or somebody has just connected to it.
                Err(error) if matches!(status(&error), Some(403 | 404)) => {}
                Err(error) => return Err(failed(&format!("removing network {name}"), error)),
            }
        }
        Ok(())
    }

    fn prefix(&self) -> String {
        format!("swarm.{}", self.cluster)
    }

    fn name(&self, network: NetworkId) -> String {
        format!("{}.{network}", self.prefix())
    }

    fn request(&self, network: &Network) -> NetworkCreateRequest {
        let ranges = network.ipam.iter().flat_map(|ipam| &ipam.configs).map(|range| IpamConfig {
            subnet: some(&range.subnet),
            ip_range: some(&range.range),
            gateway: some(range.gateway.split('/').next().unwrap_or_default()),
            auxiliary_addresses: None,
        });
        let labels = [
            (CLUSTER_LABEL, self.cluster.to_string()),
            (NETWORK_LABEL, network.id.to_string()),
            ("swarm.network.name", network.spec.name.clone()),
        ];
        let mtu = network.spec.driver.options.get_key_value("com.docker.network.driver.mtu");
        NetworkCreateRequest {
            name: self.name(network.id),
            driver: Some("bridge".to_owned()),
            internal: Some(network.spec.internal),
            attachable: Some(network.spec.attachable),
            enable_ipv6: network.spec.ipv6.then_some(true),
            ipam: Some(Ipam { config: Some(ranges.collect()), ..Default::default() }),
            options: mtu.map(|(key, value)| HashMap::from([(key.clone(), value.clone())])),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value)).into()),
            ..Default::default()
        }
    }

    /// The cluster's networks on the engine: all of them, or one.
    async fn list(&self, network: Option<NetworkId>) -> Result<Vec<NetworkId>, NetError> {
        let mut labels = vec![format!("{CLUSTER_LABEL}={}", self.cluster)];
        labels.extend(network.map(|network| format!("{NETWORK_LABEL}={network}")));
        let filters = HashMap::from([("label".to_owned(), labels)]);
        let options = ListNetworksOptionsBuilder::new().filters(&filters).build();
        let networks = self.docker.list_networks(Some(options)).await;
        let networks = networks.map_err(|error| failed("listing networks", error))?;
        let id =
            |network: bollard::models::Network| network.labels?.get(NETWORK_LABEL)?.parse().ok();
        Ok(networks.into_iter().filter_map(id).collect())
    }

    async fn find(&self, network: NetworkId) -> Result<bool, NetError> {
        Ok(!self.list(Some(network)).await?.is_empty())
    }

    /// The containers that match a filter and run, or may yet be started.
    async fn containers(&self, value: String, filter: &str) -> Result<Vec<String>, NetError> {
        let mut filters = HashMap::from([(filter.to_owned(), vec![value])]);
        if filter == "network" {
            let alive = ["created", "running", "paused", "restarting"].map(str::to_owned);
            filters.insert("status".to_owned(), alive.into());
        }
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let containers = self.docker.list_containers(Some(options)).await;
        let containers = containers.map_err(|error| failed("listing containers", error))?;
        Ok(containers.into_iter().filter_map(|container| container.id).collect())
    }

    /// The names of the networks that a container has; none when it is gone.
    async fn networks_of(&self, container: &str) -> Result<BTreeSet<String>, NetError> {
        match self.docker.inspect_container(container, None).await {
            Ok(ContainerInspectResponse { network_settings: Some(settings), .. }) => {
                Ok(settings.networks.unwrap_or_default().into_keys().collect())
            }
            Ok(_) => Ok(BTreeSet::new()),
            Err(error) if status(&error) == Some(404) => Ok(BTreeSet::new()),
            Err(error) => Err(failed(&format!("inspecting container {container}"), error)),
        }
    }

    async fn disconnect(&self, network: &str, container: &str) -> Result<(), NetError> {
        let request =
            NetworkDisconnectRequest { container: container.to_owned(), force: Some(true) };
        match self.docker.disconnect_network(network, request).await {
            Ok(()) => Ok(()),
            Err(_) if !self.networks_of(container).await?.contains(network) => Ok(()),
            Err(error) => Err(failed(&format!("disconnecting from network {network}"), error)),
        }
    }
}

fn endpoint(want: &Attachment) -> EndpointSettings {
    let bare = |address: &String| address.split('/').next().unwrap_or_default().to_owned();
    let (v6, v4): (Vec<_>, Vec<_>) =
        want.addresses.iter().map(bare).partition(|address| address.contains(':'));
    let options = want.driver_opts.clone().into_iter().collect::<HashMap<_, _>>();
    EndpointSettings {
        ipam_config: Some(EndpointIpamConfig {
            ipv4_address: v4.into_iter().next(),
            ipv6_address: v6.into_iter().next(),
            link_local_ips: None,
        }),
        aliases: Some(want.names.clone()),
        driver_opts: (!options.is_empty()).then_some(options),
        ..Default::default()
    }
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn status(error: &Error) -> Option<u16> {
    match error {
        Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

fn failed(doing: &str, error: Error) -> NetError {
    match error {
        Error::DockerResponseServerError { message, .. } => {
            NetError::System(format!("{doing}: {message}"))
        }
        error => NetError::System(format!("{doing}: the engine does not answer: {error}")),
    }
}
