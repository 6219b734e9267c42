//! Pure: what clients see of the stored objects. Each view names the members that are shown, so
//! that a new member is hidden until somebody decides otherwise; it borrows and copies nothing.
//! The one place where secrets are kept out of responses.

use std::sync::LazyLock;

use serde::{Serialize, Serializer};
use swarm_core::id::Id;
use swarm_core::model::{
    Cluster, ClusterId, ClusterSpec, Config, ConfigId, ConfigSpec, Driver, Endpoint,
    GenericResource, IpamConfig, IpamOptions, JobStatus, JoinTokens, Labels, ManagerStatus,
    Network, NetworkAttachment, NetworkId, NetworkSpec, Node, NodeDescription, NodeId, NodeSpec,
    NodeStatus, Secret, SecretId, Service, ServiceId, ServiceSpec, ServiceStatus, Task, TaskId,
    TaskSpec, TaskState, TaskStatus, TlsInfo, UpdateStatus, Version,
};
use swarm_core::store::Snapshot;
use swarm_core::time::Timestamp;

fn is_none<T>(value: &Option<T>) -> bool {
    value.is_none()
}

/// A service.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ServiceView<'a> {
    #[serde(rename = "ID")]
    id: ServiceId,
    version: Version,
    created_at: Timestamp,
    updated_at: Timestamp,
    spec: &'a ServiceSpec,
    #[serde(skip_serializing_if = "is_none")]
    previous_spec: Option<&'a ServiceSpec>,
    endpoint: &'a Endpoint,
    #[serde(skip_serializing_if = "is_none")]
    update_status: Option<&'a UpdateStatus>,
    #[serde(skip_serializing_if = "is_none")]
    service_status: Option<ServiceStatus>,
    #[serde(skip_serializing_if = "is_none")]
    job_status: Option<&'a JobStatus>,
    #[serde(skip_serializing_if = "str::is_empty")]
    stalled: &'a str,
}

impl<'a> ServiceView<'a> {
    pub(super) fn new(service: &'a Service, status: Option<ServiceStatus>) -> Self {
        static NOT_YET: LazyLock<Endpoint> = LazyLock::new(Endpoint::default);
        Self {
            id: service.id,
            version: service.version,
            created_at: service.created_at,
            updated_at: service.updated_at,
            spec: &service.spec,
            previous_spec: service.previous_spec.as_deref(),
            endpoint: service.endpoint.as_deref().unwrap_or(&NOT_YET),
            update_status: service.update_status.as_ref(),
            service_status: status,
            job_status: service.job_status.as_ref(),
            stalled: &service.stalled,
        }
    }

    /// The same with another specification.
    pub(super) fn with_spec(self, spec: &'a ServiceSpec) -> Self {
        Self { spec, ..self }
    }
}

/// A task.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct TaskView<'a> {
    #[serde(rename = "ID")]
    id: TaskId,
    version: Version,
    created_at: Timestamp,
    updated_at: Timestamp,
    labels: &'a Labels,
    spec: &'a TaskSpec,
    #[serde(rename = "ServiceID", skip_serializing_if = "Id::is_nil")]
    service_id: ServiceId,
    #[serde(skip_serializing_if = "is_zero")]
    slot: u64,
    #[serde(rename = "NodeID", skip_serializing_if = "is_none")]
    node_id: Option<NodeId>,
    status: &'a TaskStatus,
    desired_state: TaskState,
    #[serde(rename = "NetworksAttachments", skip_serializing_if = "Vec::is_empty")]
    networks: Vec<AttachmentView<'a>>,
    #[serde(skip_serializing_if = "<[GenericResource]>::is_empty")]
    generic_resources: &'a [GenericResource],
    #[serde(skip_serializing_if = "is_none")]
    job_iteration: Option<Version>,
    volumes: (),
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl<'a> TaskView<'a> {
    pub(super) fn new(task: &'a Task, view: &'a Snapshot) -> Self {
        Self {
            id: task.id,
            version: task.version,
            created_at: task.created_at,
            updated_at: task.updated_at,
            labels: &task.labels,
            spec: &task.spec,
            service_id: task.service_id,
            slot: task.slot,
            node_id: task.node_id,
            status: &task.status,
            desired_state: task.desired_state,
            networks: task.networks.iter().map(|place| AttachmentView::new(place, view)).collect(),
            generic_resources: &task.generic_resources,
            job_iteration: task.job_iteration,
            volumes: (),
        }
    }
}

/// A task's place in a network, with the whole network.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct AttachmentView<'a> {
    network: NetworkInTask<'a>,
    addresses: &'a [String],
}

/// The network of an attachment: whole while it exists, else its id alone.
#[derive(Serialize)]
#[serde(untagged)]
enum NetworkInTask<'a> {
    Whole(ClusterNetworkView<'a>),
    Gone(&'a swarm_core::model::NetworkRef),
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ClusterNetworkView<'a> {
    #[serde(rename = "ID")]
    id: NetworkId,
    version: Version,
    created_at: Timestamp,
    updated_at: Timestamp,
    spec: &'a NetworkSpec,
    #[serde(skip_serializing_if = "is_none")]
    driver_state: Option<&'a Driver>,
    #[serde(rename = "IPAMOptions", skip_serializing_if = "is_none")]
    ipam: Option<&'a IpamOptions>,
}

impl<'a> AttachmentView<'a> {
    fn new(place: &'a NetworkAttachment, view: &'a Snapshot) -> Self {
        let network = match view.networks.get(place.network.id) {
            None => NetworkInTask::Gone(&place.network),
            Some(network) => NetworkInTask::Whole(ClusterNetworkView {
                id: network.id,
                version: network.version,
                created_at: network.created_at,
                updated_at: network.updated_at,
                spec: &network.spec,
                driver_state: network.driver_state.as_ref(),
                ipam: network.ipam.as_ref(),
            }),
        };
        Self { network, addresses: &place.addresses }
    }
}

/// A node.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct NodeView<'a> {
    #[serde(rename = "ID")]
    id: NodeId,
    version: Version,
    created_at: Timestamp,
    updated_at: Timestamp,
    spec: &'a NodeSpec,
    description: &'a NodeDescription,
    status: &'a NodeStatus,
    #[serde(skip_serializing_if = "is_none")]
    manager_status: Option<&'a ManagerStatus>,
}

impl<'a> NodeView<'a> {
    pub(super) fn new(node: &'a Node) -> Self {
        static NOT_YET: LazyLock<NodeDescription> = LazyLock::new(NodeDescription::default);
        Self {
            id: node.id,
            version: node.version,
            created_at: node.created_at,
            updated_at: node.updated_at,
            spec: &node.spec,
            description: node.description.as_ref().unwrap_or(&NOT_YET),
            status: &node.status,
            manager_status: node.manager_status.as_ref(),
        }
    }
}

/// The cluster. `GET /info` shows it without the tokens.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ClusterView<'a> {
    #[serde(rename = "ID")]
    id: ClusterId,
    version: Version,
    created_at: Timestamp,
    updated_at: Timestamp,
    spec: ClusterSpec,
    #[serde(rename = "TLSInfo")]
    tls_info: &'a TlsInfo,
    root_rotation_in_progress: bool,
    default_addr_pool: &'a [String],
    subnet_size: u32,
    data_path_port: u32,
    #[serde(skip_serializing_if = "is_none")]
    join_tokens: Option<&'a JoinTokens>,
}

impl<'a> ClusterView<'a> {
    pub(super) fn new(cluster: &'a Cluster, tokens: bool) -> Self {
        let mut spec = cluster.spec.clone();
        // The certificate is no secret, but a client that sends it back without the key would have
        // the cluster give its key up (SwarmKit: `redactClusters`).
        spec.ca_config.signing_ca_cert = String::new();
        spec.ca_config.signing_ca_key = String::new();
        Self {
            id: cluster.id,
            version: cluster.version,
            created_at: cluster.created_at,
            updated_at: cluster.updated_at,
            spec,
            tls_info: &cluster.tls_info,
            root_rotation_in_progress: cluster.root_rotation_in_progress,
            default_addr_pool: &cluster.default_addr_pool,
            subnet_size: cluster.subnet_size,
            data_path_port: cluster.data_path_port,
            join_tokens: tokens.then_some(&cluster.join_tokens),
        }
    }
}

/// A secret, without its bytes.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct SecretView<'a> {
    #[serde(rename = "ID")]
    id: SecretId,
    version: Version,
    created_at: Timestamp,
    updated_at: Timestamp,
    spec: SecretSpecView<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct SecretSpecView<'a> {
    name: &'a str,
    labels: &'a Labels,
    #[serde(skip_serializing_if = "is_none")]
    driver: Option<&'a Driver>,
    #[serde(skip_serializing_if = "is_none")]
    templating: Option<&'a Driver>,
}

impl<'a> SecretView<'a> {
    pub(super) fn new(secret: &'a Secret) -> Self {
        Self {
            id: secret.id,
            version: secret.version,
            created_at: secret.created_at,
            updated_at: secret.updated_at,
            spec: SecretSpecView {
                name: &secret.spec.name,
                labels: &secret.spec.labels,
                driver: secret.spec.driver.as_ref(),
                templating: secret.spec.templating.as_ref(),
            },
        }
    }
}

/// A config.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ConfigView<'a> {
    #[serde(rename = "ID")]
    id: ConfigId,
    version: Version,
    created_at: Timestamp,
    updated_at: Timestamp,
    spec: &'a ConfigSpec,
}

impl<'a> ConfigView<'a> {
    pub(super) fn new(config: &'a Config) -> Self {
        Self {
            id: config.id,
            version: config.version,
            created_at: config.created_at,
            updated_at: config.updated_at,
            spec: &config.spec,
        }
    }
}

/// A network as `/networks` shows it: the engine's form, not the cluster's.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct NetworkView<'a> {
    name: &'a str,
    id: NetworkId,
    created: Timestamp,
    scope: &'static str,
    driver: &'a str,
    #[serde(rename = "EnableIPv4")]
    ipv4: bool,
    #[serde(rename = "EnableIPv6")]
    ipv6: bool,
    #[serde(rename = "IPAM")]
    ipam: IpamView<'a>,
    internal: bool,
    attachable: bool,
    ingress: bool,
    config_from: ConfigFrom,
    config_only: bool,
    containers: (),
    #[serde(serialize_with = "null_when_empty")]
    options: &'a Labels,
    #[serde(serialize_with = "null_when_empty")]
    labels: &'a Labels,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ConfigFrom {
    network: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct IpamView<'a> {
    driver: &'a str,
    #[serde(serialize_with = "null_when_empty")]
    options: &'a Labels,
    config: &'a [IpamConfig],
}

fn null_when_empty<S: Serializer>(labels: &&Labels, serializer: S) -> Result<S::Ok, S::Error> {
    match labels.is_empty() {
        true => serializer.serialize_none(),
        false => labels.serialize(serializer),
    }
}

impl<'a> NetworkView<'a> {
    pub(super) fn new(network: &'a Network) -> Self {
        static NO_DRIVER: LazyLock<Driver> = LazyLock::new(Driver::default);
        let spec = &network.spec;
        let ipam = network.ipam.as_ref().or(spec.ipam.as_ref());
        let ipam_driver = ipam.map_or(&*NO_DRIVER, |ipam| &ipam.driver);
        let named = |driver: &'a str, default| if driver.is_empty() { default } else { driver };
        let state = network.driver_state.as_ref().unwrap_or(&spec.driver);
        Self {
            name: &spec.name,
            id: network.id,
            created: network.created_at,
            scope: "swarm",
            driver: named(&spec.driver.name, "overlay"),
            ipv4: true,
            ipv6: spec.ipv6,
            ipam: IpamView {
                driver: named(&ipam_driver.name, "default"),
                options: &ipam_driver.options,
                config: ipam.map_or(&[], |ipam| &ipam.configs),
            },
            internal: spec.internal,
            attachable: spec.attachable,
            ingress: spec.ingress,
            config_from: ConfigFrom::default(),
            config_only: false,
            containers: (),
            options: &state.options,
            labels: &spec.labels,
        }
    }
}
