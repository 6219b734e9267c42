//! Pure: the first objects of a new cluster.

use swarm_core::id::IdSource;
use swarm_core::model::{
    Availability, Cluster, ClusterId, ClusterSpec, JoinTokens, ManagerStatus, Network, NetworkSpec,
    Node, NodeId, NodeRole, NodeSpec, NodeState, Reachability, RootCa, SecretBytes, TlsInfo,
    defaults,
};
use swarm_core::store::Change;

/// The name of the network of the published ports.
pub const INGRESS: &str = "ingress";

/// What a new cluster is made from.
pub struct NewCluster {
    /// Its id, which the first certificate carries already.
    pub id: ClusterId,
    /// Its settings; zeros take their defaults.
    pub spec: ClusterSpec,
    /// Where networks get their ranges from; empty is 10.0.0.0/8.
    pub addr_pool: Vec<String>,
    /// The mask length of such a range; 0 is 24.
    pub subnet_size: u32,
    /// The UDP port of the data plane; 0 is 4789.
    pub data_path_port: u32,
    /// The root of trust.
    pub root_ca: RootCa,
    /// What clients see of it.
    pub tls_info: TlsInfo,
    /// The tokens that let a node join.
    pub join_tokens: JoinTokens,
    /// What unlocks the managers; absent without autolock.
    pub unlock_key: Option<SecretBytes>,
    /// The first manager.
    pub node: NodeId,
    /// Its id among the raft members.
    pub raft_id: u64,
    /// What others use to reach it: `ADDRESS:PORT`.
    pub advertise: String,
    /// Whether it takes tasks.
    pub availability: Availability,
}

impl NewCluster {
    /// The cluster, its first node and the ingress network.
    #[must_use]
    pub fn changes(self, ids: &mut IdSource) -> Vec<Change> {
        let node = Node {
            id: self.node,
            cluster_id: self.id,
            role: NodeRole::Manager,
            spec: NodeSpec {
                role: NodeRole::Manager,
                availability: self.availability,
                ..NodeSpec::default()
            },
            status: swarm_core::model::NodeStatus {
                state: NodeState::Unknown,
                addr: host(&self.advertise),
                ..Default::default()
            },
            manager_status: Some(ManagerStatus {
                leader: true,
                reachability: Reachability::Reachable,
                addr: self.advertise,
                raft_id: self.raft_id,
                ..ManagerStatus::default()
            }),
            ..Node::default()
        };
        let ingress = Network {
            id: ids.next(),
            spec: NetworkSpec {
                name: INGRESS.to_owned(),
                ingress: true,
                scope: "swarm".to_owned(),
                ..NetworkSpec::default()
            },
            ..Network::default()
        };
        let mut spec = with_defaults(self.spec);
        spec.encryption_config.auto_lock_managers = self.unlock_key.is_some();
        let cluster = Cluster {
            id: self.id,
            spec,
            default_addr_pool: self.addr_pool,
            subnet_size: or(self.subnet_size, defaults::SUBNET_SIZE),
            data_path_port: or(self.data_path_port, defaults::DATA_PATH_PORT),
            root_ca: self.root_ca,
            tls_info: self.tls_info,
            join_tokens: self.join_tokens,
            unlock_key: self.unlock_key,
            ..Cluster::default()
        };
        vec![Change::create(cluster), Change::create(node), Change::create(ingress)]
    }
}

fn host(addr: &str) -> String {
    addr.parse::<std::net::SocketAddr>()
        .map_or_else(|_| addr.to_owned(), |addr| addr.ip().to_string())
}

fn or<T: Default + PartialEq>(value: T, default: T) -> T {
    if value == T::default() { default } else { value }
}

/// The settings with every zero replaced by its default, as the engine does for `swarm init`.
#[must_use]
pub fn with_defaults(mut spec: ClusterSpec) -> ClusterSpec {
    let default = defaults::cluster_spec();
    spec.name = default.name;
    let (orchestration, default_orchestration) = (&mut spec.orchestration, default.orchestration);
    orchestration.task_history_retention_limit = orchestration
        .task_history_retention_limit
        .or(default_orchestration.task_history_retention_limit);
    let raft = &mut spec.raft;
    raft.snapshot_interval = or(raft.snapshot_interval, default.raft.snapshot_interval);
    raft.keep_old_snapshots = raft.keep_old_snapshots.or(default.raft.keep_old_snapshots);
    raft.log_entries_for_slow_followers =
        or(raft.log_entries_for_slow_followers, default.raft.log_entries_for_slow_followers);
    raft.election_tick = or(raft.election_tick, default.raft.election_tick);
    raft.heartbeat_tick = or(raft.heartbeat_tick, default.raft.heartbeat_tick);
    spec.dispatcher.heartbeat_period =
        or(spec.dispatcher.heartbeat_period, default.dispatcher.heartbeat_period);
    spec.ca_config.node_cert_expiry =
        or(spec.ca_config.node_cert_expiry, default.ca_config.node_cert_expiry);
    spec
}
