//! What a manager implements behind its port. Nothing here knows how calls travel.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use swarm_core::model::{NodeId, NodeRole};
use swarm_core::protocol::{AgentMessage, ManagerMessage};
use swarm_core::time::Clock;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::message::{IssueRequest, Issued, JoinGroup, Managers, RenewRequest};
use super::raft::RaftCall;
use crate::error::ApiError;
use crate::identity::{Identity, NodeCertificate};
use crate::manager::logs::LogBroker;

/// Who calls.
#[derive(Clone, Debug)]
pub struct Peer {
    /// What its certificate says, verified by TLS; absent without one.
    pub certificate: Option<NodeCertificate>,
    /// From where.
    pub remote: SocketAddr,
    /// Cancelled when the certificate opens nothing any more: its end has come, or its root was given up.
    pub retired: CancellationToken,
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

/// A manager's messages in a stream. An error in the place of one, which may not come in or cannot be
/// read, is the last.
pub type RaftCalls = BoxStream<'static, Result<RaftCall, ApiError>>;
/// The answers to a stream, in the order of its messages; an error is the last.
pub type RaftAnswers = BoxStream<'static, Result<Bytes, ApiError>>;

/// The group of managers that share one store.
#[async_trait]
pub trait GroupService: Send + Sync + 'static {
    /// Answers a message of raft.
    ///
    /// # Errors
    /// [`Code::PermissionDenied`](crate::error::Code) for a node that is a manager no more, whatever
    /// it calls itself, [`Code::FailedPrecondition`](crate::error::Code) for a message that is for
    /// another.
    async fn receive(&self, peer: &NodeCertificate, call: RaftCall) -> Result<Bytes, ApiError>;

    /// Answers a stream of messages of raft, each of which is held to what one by itself is held to in
    /// [`receive`](Self::receive) when it comes: a stream that was opened before opens nothing.
    fn stream(&self, peer: NodeCertificate, calls: RaftCalls) -> RaftAnswers;

    /// Writes down that a manager wants to be a member, and where it listens. The leader admits it.
    ///
    /// # Errors
    /// [`Code::Unavailable`](crate::error::Code) when it cannot be written now,
    /// [`Code::FailedPrecondition`](crate::error::Code) when nobody answers at its address.
    async fn join(
        &self,
        peer: &NodeCertificate,
        remote: SocketAddr,
        request: JoinGroup,
    ) -> Result<(), ApiError>;
}

/// What a manager knows of a node, whatever its certificate says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing: this manager may lag behind the one that let it join.
    Unknown,
    /// It is a member, in this role.
    Member(NodeRole),
    /// It was removed.
    Removed,
}

/// Who is a member.
pub trait Membership: Send + Sync + 'static {
    /// What is known of the node.
    fn standing(&self, node: NodeId) -> Standing;
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
    /// The output of tasks.
    pub logs: Arc<dyn LogBroker>,
    /// The managers' group.
    pub group: Arc<dyn GroupService>,
    /// Who is a member.
    pub membership: Arc<dyn Membership>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
}
