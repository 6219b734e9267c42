//! The certificate authority over the cluster's store: who shows a join token becomes a node.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use swarm_core::id::IdSource;
use swarm_core::model::{
    Cluster, Node, NodeId, NodeRole, NodeSpec, NodeState, NodeStatus, SecretBytes,
};
use swarm_core::store::{Batch, Change, CommitError, Store};
use swarm_core::time::Clock;
use tracing::info;

use super::{Authority, Identity, IdentityError, token};
use crate::error::{ApiError, Code};
use crate::rpc::message::{IssueRequest, Issued, ManagerEntry, Managers, RenewRequest};
use crate::rpc::service::{CaService, ControlService, Membership, Peer};

/// What a node that shows the manager token is told.
const ONE_MANAGER: &str = "this swarm has one manager and cannot take another one yet: join as a \
                           worker, with the token of \"docker swarm join-token worker\"";

/// Issues and renews certificates, with what the store knows: tokens, root, removed nodes.
pub struct StoreAuthority {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    ids: Mutex<IdSource>,
    admits_managers: bool,
}

impl StoreAuthority {
    /// An authority over this store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, ids: IdSource) -> Self {
        Self { store, clock, ids: Mutex::new(ids), admits_managers: false }
    }

    /// Lets nodes join as managers too. Only for a manager that can take them into its management
    /// group: others refuse the manager token, so that no node waits for a place that never comes.
    #[must_use]
    pub fn admit_managers(mut self) -> Self {
        self.admits_managers = true;
        self
    }

    fn cluster(&self) -> Result<Arc<Cluster>, ApiError> {
        let text = "the cluster is not initialised here yet: try again";
        let cluster = self.store.snapshot().cluster().cloned();
        cluster.ok_or_else(|| ApiError::rpc(Code::Unavailable, text))
    }

    fn certify(
        &self,
        cluster: &Cluster,
        csr: &str,
        identity: Identity,
    ) -> Result<Issued, ApiError> {
        let authority = Authority::load(&cluster.root_ca).map_err(internal)?;
        let expiry = cluster.spec.ca_config.node_cert_expiry.duration();
        let certificate = authority
            .issue(csr, &identity, expiry, self.clock.now())
            .map_err(|error| ApiError::rpc(Code::InvalidArgument, error.to_string()))?;
        let Identity { node, role, cluster } = identity;
        Ok(Issued { node, cluster, role, certificate })
    }
}

/// The role that a token gives. Both are compared whatever the first comparison says.
fn role(cluster: &Cluster, presented: &SecretBytes) -> Result<NodeRole, ApiError> {
    let manager = token::matches(&cluster.join_tokens.manager, presented.expose());
    let worker = token::matches(&cluster.join_tokens.worker, presented.expose());
    match (manager, worker) {
        (true, _) => Ok(NodeRole::Manager),
        (false, true) => Ok(NodeRole::Worker),
        (false, false) => Err(ApiError::rpc(
            Code::InvalidArgument,
            "A valid join token is necessary to join this cluster",
        )),
    }
}

#[allow(clippy::needless_pass_by_value)]
fn internal(error: IdentityError) -> ApiError {
    ApiError::rpc(Code::Unknown, error.to_string())
}

#[allow(clippy::needless_pass_by_value)]
fn not_written(error: CommitError) -> ApiError {
    ApiError::rpc(Code::Unavailable, error.to_string())
}

#[async_trait]
impl CaService for StoreAuthority {
    async fn root(&self) -> Result<String, ApiError> {
        Ok(self.cluster()?.root_ca.certificate.clone())
    }

    /// The certificate is made before the node is written, so that a damaged request leaves no
    /// node behind; it leaves this manager only after the node was.
    async fn issue(&self, request: IssueRequest, peer: Peer) -> Result<Issued, ApiError> {
        let cluster = self.cluster()?;
        let role = role(&cluster, &request.token)?;
        if role == NodeRole::Manager && !self.admits_managers {
            return Err(ApiError::rpc(Code::Unimplemented, ONE_MANAGER));
        }
        let id: NodeId = self.ids.lock().unwrap_or_else(PoisonError::into_inner).next();
        let identity = Identity { node: id, role, cluster: cluster.id };
        let issued = self.certify(&cluster, &request.csr, identity)?;
        let addr =
            if request.addr.is_empty() { peer.remote.ip().to_string() } else { request.addr };
        let node = Node {
            id,
            cluster_id: cluster.id,
            role,
            spec: NodeSpec { role, availability: request.availability, ..NodeSpec::default() },
            status: NodeStatus { state: NodeState::Unknown, addr, ..NodeStatus::default() },
            ..Node::default()
        };
        let batch = Batch::new(self.clock.now(), vec![Change::create(node)]);
        self.store.commit(batch).await.map_err(not_written)?;
        info!(node = %id, ?role, remote = %peer.remote, "node joined");
        Ok(issued)
    }

    async fn renew(&self, request: RenewRequest, peer: Identity) -> Result<Issued, ApiError> {
        let cluster = self.cluster()?;
        let Some(node) = self.store.snapshot().nodes.get(peer.node).cloned() else {
            let text = format!("node {} not found", peer.node);
            return Err(ApiError::rpc(Code::NotFound, text));
        };
        let identity = Identity { node: node.id, role: node.role, cluster: cluster.id };
        self.certify(&cluster, &request.csr, identity)
    }
}

#[async_trait]
impl ControlService for StoreAuthority {
    async fn managers(&self) -> Result<Managers, ApiError> {
        let view = self.store.snapshot();
        let mut managers: Vec<ManagerEntry> = view
            .nodes
            .iter()
            .filter_map(|node| {
                let status = node.manager_status.as_ref()?;
                Some(ManagerEntry {
                    node: node.id,
                    addr: status.addr.clone(),
                    leader: status.leader,
                    reachability: status.reachability,
                })
            })
            .collect();
        managers.sort_by_key(|manager| !manager.leader);
        Ok(Managers { managers })
    }
}

impl Membership for StoreAuthority {
    /// A node is removed while its certificate is listed as refused. That it is not in the store
    /// says less: this manager may lag behind the one that let it join.
    fn is_removed(&self, node: NodeId) -> bool {
        let view = self.store.snapshot();
        let listed = |cluster: &Arc<Cluster>| {
            cluster.blacklist.iter().any(|refused| refused.node_id == node)
        };
        view.cluster().is_some_and(listed)
    }
}
