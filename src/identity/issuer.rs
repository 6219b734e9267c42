//! The certificate authority over the cluster's store: who shows a join token becomes a node.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use swarm_core::id::IdSource;
use swarm_core::model::{
    Cluster, Node, NodeId, NodeRole, NodeSpec, NodeState, NodeStatus, SecretBytes,
};
use swarm_core::store::{Batch, Change, CommitError, Store};
use swarm_core::time::{Clock, Timestamp};
use tracing::info;

use super::external::{self, ExternalAuthority};
use super::{Identity, IdentityError, NodeCertificate, TrustRoot, token};
use crate::error::{ApiError, Code};
use crate::rpc::message::{IssueRequest, Issued, ManagerEntry, Managers, RenewRequest};
use crate::rpc::service::{CaService, ControlService, Membership, Peer, Standing};

/// What a node that shows the manager token is told where the store is not replicated.
const ONE_MANAGER: &str = "this swarm keeps its state in one manager and takes no other: join as a \
                           worker, with the token of \"docker swarm join-token worker\"";

/// How often a write is tried while the node changes under it.
const ATTEMPTS: usize = 16;

/// Issues and renews certificates, with what the store knows: tokens, root, removed nodes.
pub struct StoreAuthority {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    ids: Mutex<IdSource>,
    external: Option<Arc<dyn ExternalAuthority>>,
    admits_managers: bool,
}

impl StoreAuthority {
    /// An authority over this store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, ids: IdSource) -> Self {
        Self { store, clock, ids: Mutex::new(ids), external: None, admits_managers: false }
    }

    /// Who signs where the cluster names authorities outside it. Without any, its own key must be
    /// in the store.
    #[must_use]
    pub fn external(mut self, external: Arc<dyn ExternalAuthority>) -> Self {
        self.external = Some(external);
        self
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

    /// The certificate, and when it expires.
    async fn certify(
        &self,
        cluster: &Cluster,
        csr: &str,
        identity: Identity,
    ) -> Result<(Issued, Timestamp), ApiError> {
        let external = self.external.as_deref();
        let issued = external::issue(cluster, external, csr, &identity, self.clock.now()).await;
        let certificate = issued.map_err(not_issued)?;
        let trusted = TrustRoot::parse(&cluster.root_ca.trusted());
        let read = trusted.and_then(|root| NodeCertificate::from_pem(&certificate, &root));
        let expires = read.map_err(not_issued)?.not_after;
        let Identity { node, role, cluster } = identity;
        Ok((Issued { node, cluster, role, certificate }, expires))
    }

    /// Writes down until when a node's certificates hold, before it gets the latest: should it be
    /// removed, they are refused for that long.
    async fn note_expiry(&self, id: NodeId, expires: Timestamp) -> Result<(), ApiError> {
        for _ in 0..ATTEMPTS {
            let Some(node) = self.store.snapshot().nodes.get(id).cloned() else {
                return Err(unknown(id));
            };
            if node.certificate_expires >= Some(expires) {
                return Ok(());
            }
            let node = Node { certificate_expires: Some(expires), ..Node::clone(&node) };
            let batch = Batch::new(self.clock.now(), vec![Change::update(node)]);
            match self.store.commit(batch).await {
                Ok(_) => return Ok(()),
                Err(CommitError::Conflict { .. } | CommitError::Missing(_)) => {
                    self.store.barrier().await.map_err(not_written)?;
                }
                Err(error) => return Err(not_written(error)),
            }
        }
        Err(ApiError::rpc(Code::Unavailable, "the node changes too often: try again"))
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

fn unknown(node: NodeId) -> ApiError {
    ApiError::rpc(Code::NotFound, format!("node {node} not found"))
}

#[allow(clippy::needless_pass_by_value)]
fn not_issued(error: IdentityError) -> ApiError {
    let code = match error {
        IdentityError::Request(_) => Code::InvalidArgument,
        IdentityError::External { .. } => Code::Unavailable,
        _ => Code::Unknown,
    };
    ApiError::rpc(code, error.to_string())
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
    /// node behind; it leaves this manager only after the node was. Only then does a rotation of
    /// the root wait for the node: one that went by meanwhile makes another certificate necessary.
    async fn issue(&self, request: IssueRequest, peer: Peer) -> Result<Issued, ApiError> {
        // Whoever holds no token costs the leader nothing.
        role(&*self.cluster()?, &request.token)?;
        self.store.barrier().await.map_err(not_written)?;
        let cluster = self.cluster()?;
        let role = role(&cluster, &request.token)?;
        if role == NodeRole::Manager && !self.admits_managers {
            return Err(ApiError::rpc(Code::Unimplemented, ONE_MANAGER));
        }
        let id: NodeId = self.ids.lock().unwrap_or_else(PoisonError::into_inner).next();
        let identity = Identity { node: id, role, cluster: cluster.id };
        let (issued, expires) = self.certify(&cluster, &request.csr, identity).await?;
        let addr =
            if request.addr.is_empty() { peer.remote.ip().to_string() } else { request.addr };
        let node = Node {
            id,
            cluster_id: cluster.id,
            role,
            spec: NodeSpec { role, availability: request.availability, ..NodeSpec::default() },
            status: NodeStatus { state: NodeState::Unknown, addr, ..NodeStatus::default() },
            certificate_expires: Some(expires),
            ..Node::default()
        };
        let batch = Batch::new(self.clock.now(), vec![Change::create(node)]);
        self.store.commit(batch).await.map_err(not_written)?;
        info!(node = %id, ?role, remote = %peer.remote, "node joined");
        let now = self.cluster()?;
        if now.root_ca.certificate == cluster.root_ca.certificate {
            return Ok(issued);
        }
        self.certify(&now, &request.csr, identity).await.map(|(issued, _)| issued)
    }

    /// The role is the leader's word, not what this manager last heard.
    async fn renew(&self, request: RenewRequest, peer: Identity) -> Result<Issued, ApiError> {
        self.store.barrier().await.map_err(not_written)?;
        let cluster = self.cluster()?;
        let node = self.store.snapshot().nodes.get(peer.node).cloned();
        let node = node.ok_or_else(|| unknown(peer.node))?;
        let identity = Identity { node: node.id, role: node.role, cluster: cluster.id };
        let (issued, expires) = self.certify(&cluster, &request.csr, identity).await?;
        self.note_expiry(node.id, expires).await?;
        Ok(issued)
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
    fn standing(&self, node: NodeId) -> Standing {
        let view = self.store.snapshot();
        let listed = |cluster: &Arc<Cluster>| {
            cluster.blacklist.iter().any(|refused| refused.node_id == node)
        };
        if view.cluster().is_some_and(listed) {
            return Standing::Removed;
        }
        view.nodes.get(node).map_or(Standing::Unknown, |node| Standing::Member(node.role))
    }
}
