//! Real sockets, real TLS: who gets in, who does not, and what each hears.

mod frames;
mod joining;
mod link;
mod matrix;
mod members;
mod snapshot;
mod stream;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use swarm_core::executor::LogOptions;
use swarm_core::id::IdSource;
use swarm_core::model::{
    Availability, Cluster, JoinTokens, ManagerStatus, Node, NodeRole, Version, defaults,
};
use swarm_core::protocol::{AgentMessage, ManagerMessage, Settings};
use swarm_core::store::{Batch, Change, MemoryStore, Store as _};
use swarm_core::time::{Clock as _, SystemClock, Timestamp};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::client::{ManagerClient, join};
use super::server::serve;
use super::service::{Services, SessionService};
use crate::error::{ApiError, Code};
use crate::identity::{
    Authority, Credentials, Identity, JoinToken, KeyRequest, NodeIdentity, RootDigest,
    StoreAuthority,
};
use crate::manager::group::NoGroup;
use crate::manager::logs::{LogBroker, LogSelector, TaskLogs};

const HOUR: Duration = Duration::from_secs(3600);

/// Answers every message with the node's own id, so that a test sees whom the manager saw.
struct Echo;

#[async_trait]
impl SessionService for Echo {
    async fn session(
        &self,
        peer: Identity,
        _: SocketAddr,
        mut inbound: BoxStream<'static, Result<AgentMessage, ApiError>>,
        outbound: mpsc::Sender<ManagerMessage>,
    ) {
        while let Some(Ok(_)) = inbound.next().await {
            let managers = vec![peer.node.to_string()];
            let settings = Settings { managers, ..Settings::default() };
            if outbound.send(ManagerMessage::Redirect(settings)).await.is_err() {
                return;
            }
        }
    }
}

/// No task says anything.
struct Silent;

impl LogBroker for Silent {
    fn logs(&self, _: LogSelector, _: LogOptions) -> TaskLogs {
        futures_util::stream::empty().boxed()
    }
}

/// A cluster of one manager behind a real port.
struct World {
    addr: String,
    authority: Authority,
    cluster: Cluster,
    store: Arc<MemoryStore>,
    own: Arc<Credentials>,
    cancel: CancellationToken,
}

impl Drop for World {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

fn token(root: RootDigest) -> JoinToken {
    JoinToken::generate(root, &mut rand::rng())
}

impl World {
    async fn start() -> Self {
        let mut ids = IdSource::random();
        let authority = Authority::create(SystemClock.now()).unwrap();
        let root = authority.root().digest();
        let cluster = Cluster {
            id: ids.next(),
            spec: defaults::cluster_spec(),
            join_tokens: JoinTokens {
                worker: token(root).expose(),
                manager: token(root).expose(),
                ..Default::default()
            },
            root_ca: authority.stored(),
            ..Default::default()
        };
        let manager = Identity { node: ids.next(), role: NodeRole::Manager, cluster: cluster.id };
        let node = Node {
            id: manager.node,
            role: NodeRole::Manager,
            manager_status: Some(ManagerStatus { leader: true, ..Default::default() }),
            ..Default::default()
        };
        let store = Arc::new(MemoryStore::default());
        let changes = vec![Change::create(cluster.clone()), Change::create(node)];
        store.commit(Batch::new(SystemClock.now(), changes)).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let own = Credentials::new(certified(&authority, manager, SystemClock.now())).unwrap();
        let stored = Arc::new(
            StoreAuthority::new(store.clone(), Arc::new(SystemClock), ids).admit_managers(),
        );
        let services = Services {
            ca: stored.clone(),
            sessions: Arc::new(Echo),
            control: stored.clone(),
            group: Arc::new(NoGroup),
            logs: Arc::new(Silent),
            membership: stored,
            clock: Arc::new(SystemClock),
        };
        let cancel = CancellationToken::new();
        tokio::spawn(serve(listener, own.clone(), services, cancel.clone()));
        Self { addr, authority, cluster, store, own, cancel }
    }

    fn worker_token(&self) -> &str {
        &self.cluster.join_tokens.worker
    }

    async fn join(&self, token: &str) -> Result<NodeIdentity, ApiError> {
        join(&self.addr, token, Availability::Active, "").await
    }

    /// A member that this cluster's authority certified at `now`, for an hour.
    fn member(&self, role: NodeRole, now: Timestamp) -> Arc<Credentials> {
        let node = IdSource::random().next();
        let identity = Identity { node, role, cluster: self.cluster.id };
        Credentials::new(certified(&self.authority, identity, now)).unwrap()
    }

    async fn update_cluster(&self, change: impl FnOnce(&mut Cluster)) {
        let mut cluster = self.store.snapshot().cluster().unwrap().as_ref().clone();
        change(&mut cluster);
        let batch = Batch::new(SystemClock.now(), vec![Change::update(cluster)]);
        self.store.commit(batch).await.unwrap();
    }

    fn version(&self) -> Version {
        self.store.snapshot().version()
    }

    /// The server still lets a node join and serves its session.
    async fn assert_serving(&self) {
        let node = self.join(self.worker_token()).await.expect("the manager serves");
        let expected = node.identity().node.to_string();
        let answer = converse(&self.addr, &Credentials::new(node).unwrap()).await;
        assert_eq!(answer, Ok(expected));
    }
}

fn certified(authority: &Authority, identity: Identity, now: Timestamp) -> NodeIdentity {
    let KeyRequest { key, csr } = KeyRequest::generate().unwrap();
    let pem = authority.issue(&csr, &identity, HOUR, now).unwrap();
    NodeIdentity::new(authority.root().clone(), pem, key).unwrap()
}

/// Opens a session, says one thing and returns what the manager echoes, or the refusal.
async fn converse(addr: &str, credentials: &Arc<Credentials>) -> Result<String, ApiError> {
    let (to, mut from) = ManagerClient::connect(addr, credentials).await?.session().await?;
    to.send(AgentMessage::Heartbeat).await.map_err(|_| gone())?;
    match from.next().await {
        Some(Ok(ManagerMessage::Redirect(settings))) => Ok(settings.managers[0].clone()),
        Some(Ok(other)) => panic!("unexpected {other:?}"),
        Some(Err(error)) => Err(error),
        None => Err(gone()),
    }
}

fn gone() -> ApiError {
    ApiError::plain(Code::Unavailable, "the session ended without a word")
}
