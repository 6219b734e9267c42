//! What a manager implements behind its port. Nothing here knows how calls travel.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use swarm_core::model::NodeId;
use swarm_core::protocol::{AgentMessage, ManagerMessage};
use swarm_core::time::Clock;
use tokio::sync::mpsc;

use super::message::{IssueRequest, Issued, Managers, RenewRequest};
use crate::error::ApiError;
use crate::identity::{Identity, NodeCertificate};

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// What its certificate says, verified by TLS; absent without one.
    pub certificate: Option<NodeCertificate>,
    /// From where.
    pub remote: SocketAddr,
}

/// The certificate authority of the cluster.
#[async_trait]
pub trait CaService: Send + Sync + 'static {
    /// The root certificate, PEM. Public.
    ///
    /// # Errors
    /// [`Code::Unavailable`](crate::error::Code) before the cluster is initialised.
    async fn root(&self) -> Result<String, ApiError>;

    /// Makes a node of whoever shows a join token.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`](crate::error::Code) for a wrong token or a damaged request,
    /// [`Code::Unavailable`](crate::error::Code) when the node cannot be written: try again.
    async fn issue(&self, request: IssueRequest, peer: Peer) -> Result<Issued, ApiError>;

    /// Another certificate for a member, in the role that the cluster gives it now.
    ///
    /// # Errors
    /// [`Code::NotFound`](crate::error::Code) for a node that is not in the cluster any more.
    async fn renew(&self, request: RenewRequest, peer: Identity) -> Result<Issued, ApiError>;
}

/// The agents' streams.
#[async_trait]
pub trait SessionService: Send + Sync + 'static {
    /// Serves one session until it is over. `peer` is verified; what the agent says of itself is
    /// not. `inbound` ends, or yields one error, when the agent goes; dropping `outbound` ends the
    /// stream for the agent. The caller drops the future when the manager stops.
    async fn session(
        &self,
        peer: Identity,
        remote: SocketAddr,
        inbound: BoxStream<'static, Result<AgentMessage, ApiError>>,
        outbound: mpsc::Sender<ManagerMessage>,
    );
}

/// What managers tell each other.
#[async_trait]
pub trait ControlService: Send + Sync + 'static {
    /// The managers, the leader first.
    ///
    /// # Errors
    /// [`Code::Unavailable`](crate::error::Code) before the cluster is initialised.
    async fn managers(&self) -> Result<Managers, ApiError>;
}

/// Who is not a member any more, although a certificate says so.
pub trait Membership: Send + Sync + 'static {
    /// Whether the node was removed.
    fn is_removed(&self, node: NodeId) -> bool;
}

/// Everything behind a manager's port.
#[derive(Clone)]
pub struct Services {
    /// The certificate authority.
    pub ca: Arc<dyn CaService>,
    /// The agents' streams.
    pub sessions: Arc<dyn SessionService>,
    /// The managers' calls.
    pub control: Arc<dyn ControlService>,
    /// Who was removed.
    pub membership: Arc<dyn Membership>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
}
