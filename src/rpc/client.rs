//! Calls to a manager: joining without a certificate, everything else with one.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde::Serialize;
use serde::de::DeserializeOwned;
use swarm_core::model::Availability;
use swarm_core::protocol::{AgentMessage, ManagerMessage};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};

use super::authorize::Method;
use super::codec::Json;
use super::message::{
    Empty, IssueRequest, Issued, JoinGroup, LogsRequest, Managers, RenewRequest, RootCertificate,
};
use super::status::{from_status, unreachable};
use super::{MAX_FROM_MANAGER, MAX_FROM_NODE};
use crate::error::{ApiError, Code};
use crate::identity::tls::{bootstrap_config, joining_config};
use crate::identity::{
    Credentials, IdentityError, JoinToken, KeyRequest, MANAGER_NAME, NodeIdentity, RootDigest,
    TrustRoot,
};
use crate::manager::logs::{TaskLog, TaskLogs};

/// How long a connection may take, handshake included.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// How long a call may take. A session is no call.
const CALL_WITHIN: Duration = Duration::from_secs(5);
/// A silent connection is asked for a sign of life this often; without one it counts as broken.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// Messages to a manager that wait for the connection to take them.
const OUTBOUND: usize = 64;

/// Status reports in one message: about 1 MiB.
const STATUSES_PER_MESSAGE: usize = 2_000;

/// An agent's end of a session: where to send, and what comes back. The stream ends with the
/// session, after at most one error.
pub type AgentSession =
    (mpsc::Sender<AgentMessage>, BoxStream<'static, Result<ManagerMessage, ApiError>>);

/// A connection to one manager. Clones share it.
#[derive(Clone)]
pub struct ManagerClient {
    channel: Grpc<Channel>,
}

impl ManagerClient {
    /// Connects with this node's certificate. Whoever answers must be a manager of this cluster.
    ///
    /// # Errors
    /// [`Code::Unavailable`] when nobody, or no such manager, answers within five seconds. That
    /// the manager refuses the certificate shows at the first call: [`Code::Unauthenticated`].
    pub async fn connect(addr: &str, credentials: &Arc<Credentials>) -> Result<Self, ApiError> {
        Self::connect_with(addr, credentials.client_config()?).await
    }

    /// Connects without a certificate, to a manager that this root signed. Only the calls for
    /// [anyone](super::authorize::Caller::Anyone) work.
    ///
    /// # Errors
    /// As for [`connect`](Self::connect).
    pub async fn anonymous(addr: &str, root: &TrustRoot) -> Result<Self, ApiError> {
        Self::connect_with(addr, joining_config(root)?).await
    }

    async fn connect_with(addr: &str, tls: Arc<ClientConfig>) -> Result<Self, ApiError> {
        let channel = Grpc::new(channel(addr, tls).await?)
            .max_decoding_message_size(MAX_FROM_MANAGER)
            .max_encoding_message_size(MAX_FROM_NODE);
        Ok(Self { channel })
    }

    /// Has a key certified for this node once more.
    ///
    /// # Errors
    /// What the manager answers, or [`Code::Unavailable`].
    pub async fn renew(&self, csr: String) -> Result<Issued, ApiError> {
        self.call(Method::RenewCertificate, RenewRequest { csr }).await
    }

    /// The managers, the leader first. For managers alone.
    ///
    /// # Errors
    /// [`Code::PermissionDenied`] for a worker, or [`Code::Unavailable`].
    pub async fn managers(&self) -> Result<Managers, ApiError> {
        self.call(Method::Managers, Empty {}).await
    }

    /// The output of tasks, as the leader gets it from their agents. A connection that breaks is told
    /// as the last line.
    ///
    /// # Errors
    /// What the manager answers, or [`Code::Unavailable`].
    pub async fn logs(&self, request: LogsRequest) -> Result<TaskLogs, ApiError> {
        let mut channel = self.channel.clone();
        channel.ready().await.map_err(|error| unreachable(&error))?;
        let codec = Json::<LogsRequest, TaskLog>::default();
        let path = PathAndQuery::from_static(Method::Logs.path());
        let opening = channel.server_streaming(tonic::Request::new(request), path, codec);
        let opened = within(CALL_WITHIN, opening).await?.map_err(from_status)?;
        let line = |line: Result<TaskLog, _>| line.unwrap_or_else(|e| Err(from_status(e).message));
        Ok(opened.into_inner().map(line).boxed())
    }

    /// Asks for a place in the managers' group, or says where this manager listens now.
    ///
    /// # Errors
    /// What the manager answers, or [`Code::Unavailable`].
    pub async fn join_group(&self, request: JoinGroup) -> Result<(), ApiError> {
        self.call(Method::JoinGroup, request).await.map(|Empty {}| ())
    }

    /// Opens a session. Dropping both halves ends it.
    ///
    /// # Errors
    /// What the manager answers, or [`Code::Unavailable`].
    pub async fn session(&self) -> Result<AgentSession, ApiError> {
        let mut channel = self.channel.clone();
        channel.ready().await.map_err(|error| unreachable(&error))?;
        let (to, queue) = mpsc::channel(OUTBOUND);
        let messages = ReceiverStream::new(queue).map(split).flat_map(futures_util::stream::iter);
        let request = tonic::Request::new(messages);
        let codec = Json::<AgentMessage, ManagerMessage>::default();
        let path = PathAndQuery::from_static(Method::Session.path());
        let opening = channel.streaming(request, path, codec);
        let opened = within(CALL_WITHIN, opening).await?.map_err(from_status)?;
        let inbound = opened.into_inner().map(|message| message.map_err(from_status));
        Ok((to, inbound.boxed()))
    }

    async fn call<Call, Reply>(&self, method: Method, call: Call) -> Result<Reply, ApiError>
    where
        Call: Serialize + Send + Sync + 'static,
        Reply: DeserializeOwned + Send + Sync + 'static,
    {
        let mut channel = self.channel.clone();
        let path = PathAndQuery::from_static(method.path());
        let calling = async {
            channel.ready().await.map_err(|error| unreachable(&error))?;
            let request = tonic::Request::new(call);
            let codec = Json::<Call, Reply>::default();
            channel.unary(request, path, codec).await.map_err(from_status)
        };
        Ok(within(CALL_WITHIN, calling).await??.into_inner())
    }
}

/// Status reports are independent of each other, and an agent may have very many at once: parts
/// of them keep below the limit of a message.
fn split(message: AgentMessage) -> Vec<AgentMessage> {
    match message {
        AgentMessage::Statuses(all) if all.len() > STATUSES_PER_MESSAGE => all
            .chunks(STATUSES_PER_MESSAGE)
            .map(|part| AgentMessage::Statuses(part.into()))
            .collect(),
        other => vec![other],
    }
}

/// Connects and shakes hands.
pub(super) async fn channel(addr: &str, tls: Arc<ClientConfig>) -> Result<Channel, ApiError> {
    let endpoint = Endpoint::from_shared(format!("http://{addr}"))
        .map_err(|_| {
            let text = format!("{addr:?} is not an address of the form HOST:PORT");
            ApiError::plain(Code::InvalidArgument, text)
        })?
        .connect_timeout(CONNECT_WITHIN)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE);
    let (connector, to) = (TlsConnector::from(tls), addr.to_owned());
    let connect = tower::service_fn(move |_| {
        let (connector, to) = (connector.clone(), to.clone());
        async move {
            let stream = TcpStream::connect(&to).await?;
            stream.set_nodelay(true)?;
            let name = ServerName::try_from(MANAGER_NAME).map_err(std::io::Error::other)?;
            connector.connect(name, stream).await.map(TokioIo::new)
        }
    });
    endpoint.connect_with_connector(connect).await.map_err(|error| {
        let ApiError { code, message, .. } = unreachable(&error);
        ApiError::rpc(code, format!("manager {addr}: {message}"))
    })
}

async fn within<F: Future>(limit: Duration, future: F) -> Result<F::Output, ApiError> {
    let timed = tokio::time::timeout(limit, future).await;
    timed.map_err(|_| {
        ApiError::rpc(Code::Unavailable, format!("the manager did not answer within {limit:?}"))
    })
}

/// Fetches the root certificate from whoever answers, and believes it only if it has the digest
/// that a join token pins.
///
/// # Errors
/// SwarmKit's `remote CA does not match fingerprint…` for another root; [`Code::Unavailable`]
/// when nobody answers.
pub async fn fetch_root(addr: &str, digest: RootDigest) -> Result<TrustRoot, ApiError> {
    let manager = ManagerClient::connect_with(addr, bootstrap_config()?).await?;
    let root: RootCertificate = manager.call(Method::GetRootCertificate, Empty {}).await?;
    let found = RootDigest::of(&root.pem);
    if found != digest {
        return Err(IdentityError::DigestMismatch { expected: digest, found }.into());
    }
    Ok(TrustRoot::parse(&root.pem)?)
}

/// Asks a manager that this root signed to make a node of this key.
///
/// # Errors
/// What the manager answers, or [`Code::Unavailable`].
pub async fn request_certificate(
    addr: &str,
    root: &TrustRoot,
    request: IssueRequest,
) -> Result<Issued, ApiError> {
    let manager = ManagerClient::anonymous(addr, root).await?;
    manager.call(Method::IssueCertificate, request).await
}

/// Joins a cluster: fetches its root, makes a key, has it certified, and checks the answer.
/// `own_addr` is what the node advertises, without a port; empty leaves it to the manager.
///
/// # Errors
/// `invalid join token` for a malformed one (before anything is sent), SwarmKit's `A valid join
/// token is necessary to join this cluster` for a wrong one, otherwise as for [`fetch_root`] and
/// [`request_certificate`].
///
/// # Cancellation
/// Dropping the future may leave a node in the cluster that never appears: an operator removes it.
pub async fn join(
    addr: &str,
    token: &str,
    availability: Availability,
    own_addr: &str,
) -> Result<NodeIdentity, ApiError> {
    let token: JoinToken = token.parse()?;
    let root = fetch_root(addr, token.root()).await?;
    let KeyRequest { key, csr } = KeyRequest::generate()?;
    let addr_of_node = own_addr.to_owned();
    let request = IssueRequest { csr, token: token.to_secret(), availability, addr: addr_of_node };
    let issued = request_certificate(addr, &root, request).await?;
    Ok(NodeIdentity::new(root, issued.certificate, key)?)
}

/// As the engine says it: bare texts, and 500 for what only the node itself can find wrong.
impl From<IdentityError> for ApiError {
    fn from(error: IdentityError) -> Self {
        Self::plain(Code::Unknown, error.to_string())
    }
}
