//! How a node becomes a member: by making a cluster, by joining one, or by coming back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use swarm_core::id::IdSource;
use swarm_core::model::{Availability, NodeRole};
use swarm_core::store::{Batch, CommitError, Leadership, Store};
use swarm_core::time::{Clock as _, SystemClock};
use tokio::net::TcpListener;
use tracing::{info, warn};

use super::config::{OpenStore, StoreFactory, StorePlace};
use super::runtime::Place;
use super::{Membership, Node, RaftStores, address, interfaces, status};
use crate::error::{ApiError, Code};
use crate::http::{InitRequest, JoinRequest, LocalStatus};
use crate::identity::token::JoinToken;
use crate::identity::{Authority, Credentials, Identity, KeyRequest, NodeIdentity};
use crate::manager::Manager;
use crate::manager::bootstrap::NewCluster;
use crate::rpc::client;
use crate::worker::Worker;

/// How long a new manager may take until it can write.
const LEADER_WITHIN: Duration = Duration::from_secs(20);
/// The pauses between two attempts to join.
const JOIN_PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
const CERTIFICATES: &str = "certificates";

/// A node's running parts while it is a member.
pub(super) struct Member {
    membership: Membership,
    worker: Worker,
    managing: Option<Managing>,
}

/// What a manager has beside its worker.
struct Managing {
    manager: Manager,
    close: futures_util::future::BoxFuture<'static, ()>,
}

impl Member {
    pub(super) fn membership(&self) -> &Membership {
        &self.membership
    }

    /// Stops everything; tasks keep running.
    pub(super) async fn stop(self) {
        self.worker.stop().await;
        stop_managing(self.managing).await;
    }

    /// Stops everything and removes this node's tasks.
    pub(super) async fn leave(self) {
        self.worker.leave().await;
        stop_managing(self.managing).await;
    }
}

async fn stop_managing(managing: Option<Managing>) {
    if let Some(Managing { manager, close }) = managing {
        manager.stop().await;
        close.await;
    }
}

/// An attempt to join, checked as far as it can be without a manager.
pub(super) struct Attempt {
    remotes: Vec<String>,
    token: String,
    availability: Availability,
    listen: SocketAddr,
    advertise: SocketAddr,
}

impl Node {
    /// Takes up a membership that the state directory holds.
    pub(super) async fn resume(&self, membership: Membership) -> Result<Member, ApiError> {
        let dir = self.dir.path(CERTIFICATES);
        let identity =
            NodeIdentity::load(&dir).map_err(|e| status::local("this node's certificate", e))?;
        let identity = identity.ok_or_else(|| {
            let text = "swarm.json names a swarm but there is no certificate: leave it with \
                        \"docker swarm leave --force\" and join again";
            ApiError::plain(Code::Unknown, text)
        })?;
        if identity.certificate().not_after < SystemClock.now() {
            return Err(status::certificates_expired());
        }
        let credentials =
            Credentials::new(identity).map_err(|e| status::local("this node's certificate", e))?;
        let managing = match membership.manager {
            true => {
                let listener = bind(&membership.listen).await?;
                let opened = self.open_store(&membership, false).await?;
                Some((opened, listener))
            }
            false => None,
        };
        self.run_member(membership, &credentials, managing).await
    }

    /// Makes this node the first manager of a new cluster.
    pub(super) async fn create_cluster(&self, request: InitRequest) -> Result<Member, ApiError> {
        let (listen, advertise) = self.addresses(&request.listen_addr, &request.advertise_addr)?;
        let listener = bind(&listen.to_string()).await?;
        let (listen, advertise) = with_real_port(&listener, listen, advertise);
        self.dir.forget().map_err(|e| status::local("the state directory cannot be cleared", e))?;
        let mut ids = IdSource::random();
        let now = SystemClock.now();
        let broken = |error: crate::identity::IdentityError| {
            status::local("no certificate could be made", error)
        };
        let authority = Authority::create(now).map_err(broken)?;
        let identity = Identity { node: ids.next(), role: NodeRole::Manager, cluster: ids.next() };
        let expiry = request.spec.ca_config.node_cert_expiry.duration();
        let key = KeyRequest::generate().map_err(broken)?;
        let certificate = authority.issue(&key.csr, &identity, expiry, now).map_err(broken)?;
        let own =
            NodeIdentity::new(authority.root().clone(), certificate, key.key).map_err(broken)?;
        own.save(&self.dir.path(CERTIFICATES)).map_err(broken)?;

        let raft_id = 1 + ids.below(u64::MAX - 1);
        let membership = Membership {
            cluster: identity.cluster,
            node: identity.node,
            manager: true,
            raft_id,
            listen: listen.to_string(),
            advertise: advertise.to_string(),
            managers: vec![advertise.to_string()],
        };
        let opened = self.open_store(&membership, true).await?;
        let digest = authority.root().digest();
        let objects = NewCluster {
            id: identity.cluster,
            spec: request.spec,
            addr_pool: request.default_addr_pool,
            subnet_size: request.subnet_size,
            data_path_port: request.data_path_port,
            root_ca: authority.stored(),
            tls_info: authority.root().tls_info().map_err(broken)?,
            join_tokens: swarm_core::model::JoinTokens {
                worker: JoinToken::generate(digest, &mut rand::rng()).expose(),
                manager: JoinToken::generate(digest, &mut rand::rng()).expose(),
                ..Default::default()
            },
            node: identity.node,
            raft_id,
            advertise: advertise.to_string(),
            availability: request.availability,
        };
        let batch = Batch::new(now, objects.changes(&mut ids));
        commit_when_leading(&*opened.store, batch).await?;
        self.dir
            .remember(&membership)
            .map_err(|e| status::local("the membership was not kept", e))?;
        info!(node = %membership.node, cluster = %membership.cluster, "a new swarm");
        let credentials = Credentials::new(own).map_err(broken)?;
        self.run_member(membership, &credentials, Some((opened, listener))).await
    }

    /// Checks what can be checked of a join before any manager is asked.
    pub(super) fn prepare_join(&self, request: &JoinRequest) -> Result<Attempt, ApiError> {
        if request.remote_addrs.is_empty() {
            return Err(ApiError::plain(
                Code::InvalidArgument,
                "at least 1 RemoteAddr is required to join",
            ));
        }
        request
            .join_token
            .parse::<JoinToken>()
            .map_err(|_| ApiError::plain(Code::Unknown, "invalid join token"))?;
        let (listen, advertise) = self.addresses(&request.listen_addr, &request.advertise_addr)?;
        let remote = |addr: &String| match addr.rsplit_once(':') {
            Some(_) => addr.clone(),
            None => format!("{addr}:{}", swarm_core::model::defaults::LISTEN_PORT),
        };
        Ok(Attempt {
            remotes: request.remote_addrs.iter().map(remote).collect(),
            token: request.join_token.clone(),
            availability: request.availability,
            listen,
            advertise,
        })
    }

    /// Joins, trying again while no manager answers; a refusal is final.
    pub(super) async fn join_until_it_works(&self, attempt: Attempt) -> Result<(), ApiError> {
        let mut pause = JOIN_PAUSES.0;
        loop {
            match self.join_once(&attempt).await {
                Ok(()) => return Ok(()),
                Err(error) if error.code == Code::Unavailable => {
                    warn!(%error, retry_in = ?pause, "no manager could be joined yet");
                    self.view().status.error = error.to_string();
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(JOIN_PAUSES.1);
                }
                Err(error) => {
                    self.view().status = LocalStatus::default();
                    return Err(error);
                }
            }
        }
    }

    async fn join_once(&self, attempt: &Attempt) -> Result<(), ApiError> {
        let mut last = None;
        let own_addr = attempt.advertise.ip().to_string();
        for remote in &attempt.remotes {
            match client::join(remote, &attempt.token, attempt.availability, &own_addr).await {
                Ok(identity) => return self.joined(attempt, identity).await,
                Err(error) if error.code == Code::Unavailable => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(status::join_continues))
    }

    async fn joined(&self, attempt: &Attempt, identity: NodeIdentity) -> Result<(), ApiError> {
        let who = identity.identity();
        let broken = |error: crate::identity::IdentityError| {
            status::local("the certificate was not kept", error)
        };
        identity.save(&self.dir.path(CERTIFICATES)).map_err(broken)?;
        let membership = Membership {
            cluster: who.cluster,
            node: who.node,
            manager: false,
            raft_id: 0,
            listen: attempt.listen.to_string(),
            advertise: attempt.advertise.to_string(),
            managers: attempt.remotes.clone(),
        };
        self.dir
            .remember(&membership)
            .map_err(|e| status::local("the membership was not kept", e))?;
        let credentials = Credentials::new(identity).map_err(broken)?;
        let mut member = self.member.lock().await;
        info!(node = %who.node, cluster = %who.cluster, "joined");
        *member = Some(self.run_member(membership, &credentials, None).await?);
        Ok(())
    }

    /// Starts the parts of a member and tells the API.
    async fn run_member(
        &self,
        membership: Membership,
        credentials: &Arc<Credentials>,
        managing: Option<(OpenStore, TcpListener)>,
    ) -> Result<Member, ApiError> {
        let engine = match self.engine(&membership).await {
            Ok(engine) => engine,
            Err(error) => {
                // Else the store would keep its directory from the next attempt.
                if let Some((opened, _)) = managing {
                    opened.close.await;
                }
                return Err(error);
            }
        };
        let managing = managing.map(|(opened, listener)| {
            let mut builder = Manager::builder(opened.store);
            if let Some(network) = &engine.network {
                builder = builder.network_driver(network.clone());
            }
            let parts = &self.config.parts;
            if let Some(scheduler) = &parts.scheduler {
                builder = builder.scheduler(scheduler.clone());
            }
            if let Some(secrets) = &parts.secrets {
                builder = builder.secrets(secrets.clone());
            }
            for planner in &parts.planners {
                builder = builder.planner(planner.clone());
            }
            let manager = builder.serve(credentials.clone(), listener);
            Managing { manager, close: opened.close }
        });
        let mut worker =
            Worker::builder(credentials.clone(), membership.managers.clone(), engine.executor)
                .hostname(self.config.hostname.clone())
                .labels(self.config.labels.clone())
                .resources(self.config.resources.clone())
                .state_dir(self.dir.path("tasks"))
                .certificates(self.dir.path(CERTIFICATES))
                .addr(host(&membership.advertise));
        if let Some(network) = engine.network {
            worker = worker.network(network);
        }
        let worker = match worker.start() {
            Ok(worker) => worker,
            Err(error) => {
                stop_managing(managing).await;
                return Err(status::local("the agent's journal cannot be opened", error));
            }
        };
        self.watch_over(worker.ended());
        let control = managing.as_ref().map(|managing| managing.manager.control().clone());
        self.is_member(&membership, control);
        Ok(Member { membership, worker, managing })
    }

    async fn engine(&self, membership: &Membership) -> Result<super::Engine, ApiError> {
        let advertise: SocketAddr = membership.advertise.parse().map_err(|_| {
            let text = format!("{:?} in swarm.json is not an address", membership.advertise);
            ApiError::plain(Code::Unknown, text)
        })?;
        let place = Place {
            cluster: membership.cluster,
            node: membership.node,
            state_dir: self.dir.path("executor"),
            advertise: advertise.ip(),
        };
        let runtime = &self.config.runtime;
        let name = runtime.name();
        runtime
            .open(&place)
            .await
            .map_err(|error| status::local(&format!("the {name} executor"), error))
    }

    async fn open_store(
        &self,
        membership: &Membership,
        new_cluster: bool,
    ) -> Result<OpenStore, ApiError> {
        let place = StorePlace {
            dir: self.dir.path("raft"),
            node: membership.node,
            raft_id: membership.raft_id,
            advertise: membership.advertise.clone(),
            new_cluster,
        };
        let opened = match &self.config.parts.store {
            Some(stores) => stores.open(&place).await,
            None => RaftStores.open(&place).await,
        };
        opened.map_err(|error| status::local("the manager's store", error))
    }

    /// The listening and the advertised address: the request's, else this node's own flags.
    fn addresses(
        &self,
        listen: &str,
        advertise: &str,
    ) -> Result<(SocketAddr, SocketAddr), ApiError> {
        let interfaces = interfaces::list();
        // What the CLI sends when nobody said anything.
        let unsaid = listen.is_empty() || listen == "0.0.0.0:2377";
        let listen = match self.config.listen {
            Some(own) if unsaid => own,
            _ => address::listen(listen, &interfaces)?,
        };
        let advertise = match &self.config.advertise {
            Some(own) if advertise.is_empty() => own,
            _ => advertise,
        };
        let advertise = address::advertise(advertise, listen, &interfaces)?;
        Ok((listen, advertise))
    }
}

fn host(addr: &str) -> String {
    addr.parse::<SocketAddr>().map_or_else(|_| addr.to_owned(), |addr| addr.ip().to_string())
}

async fn bind(listen: &str) -> Result<TcpListener, ApiError> {
    TcpListener::bind(listen).await.map_err(|error| {
        status::local(&format!("failed to listen on {listen} for the nodes of the swarm"), error)
    })
}

/// The port that the system chose, where none in particular was asked for.
fn with_real_port(
    listener: &TcpListener,
    mut listen: SocketAddr,
    mut advertise: SocketAddr,
) -> (SocketAddr, SocketAddr) {
    let real = listener.local_addr().map_or(listen.port(), |addr| addr.port());
    for addr in [&mut listen, &mut advertise] {
        if addr.port() == 0 {
            addr.set_port(real);
        }
    }
    (listen, advertise)
}

/// Commits the first objects once the store leads.
async fn commit_when_leading(store: &dyn Store, batch: Batch) -> Result<(), ApiError> {
    let mut leadership = store.leadership();
    let leading = leadership.wait_for(|now| matches!(now, Leadership::Leader(_)));
    let _ = tokio::time::timeout(LEADER_WITHIN, leading).await;
    let written: Result<_, CommitError> = store.commit(batch).await;
    written.map(|_| ()).map_err(|error| status::local("the new cluster was not written", error))
}
