//! What a node runs while it is a member, and how it becomes one: by making a cluster or by coming back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use swarm_core::id::IdSource;
use swarm_core::model::{Cluster, JoinTokens, NodeId, NodeRole, SecretBytes};
use swarm_core::store::{Batch, CommitError, Leadership, Store};
use swarm_core::time::{Clock as _, SystemClock};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::autolock::{Following, Protected};
use super::config::{OpenStore, StoreFactory, StorePlace};
use super::runtime::{Engine, Place};
use super::seat::new_raft_id;
use super::{Membership, Node, RaftStores, address, interfaces, root, status};
use crate::error::{ApiError, Code};
use crate::http::InitRequest;
use crate::identity::token::JoinToken;
use crate::identity::{Credentials, Identity, IdentityError, UnlockKey};
use crate::manager::Manager;
use crate::manager::bootstrap::NewCluster;
use crate::manager::group::Replicated;
use crate::worker::Worker;

/// How long a new manager may take until it can write.
const LEADER_WITHIN: Duration = Duration::from_secs(20);

/// A node's running parts while it is a member.
pub(super) struct Member {
    pub(super) membership: Membership,
    pub(super) credentials: Arc<Credentials>,
    pub(super) worker: Worker,
    pub(super) managing: Option<Managing>,
}

/// What a manager has beside its worker.
pub(super) struct Managing {
    pub(super) manager: Manager,
    /// Its place in the group, where its store is one of several.
    pub(super) member: Option<Replicated>,
    /// Cancelled when it stops.
    pub(super) over: CancellationToken,
    /// Keeps the node's lock as the cluster says.
    following: Following,
    close: futures_util::future::BoxFuture<'static, ()>,
}

impl Managing {
    /// Stops, and has another manager lead before.
    pub(super) async fn stop(self) {
        self.over.cancel();
        if let Some(member) = &self.member {
            member.raft.hand_over().await;
        }
        self.following.stop().await;
        self.manager.stop().await;
        self.close.await;
    }
}

impl Member {
    pub(super) fn membership(&self) -> &Membership {
        &self.membership
    }

    /// Stops everything; tasks keep running.
    pub(super) async fn stop(self) {
        self.worker.stop().await;
        if let Some(managing) = self.managing {
            managing.stop().await;
        }
    }

    /// Stops everything and removes this node's tasks.
    pub(super) async fn leave(self) {
        self.worker.leave().await;
        if let Some(managing) = self.managing {
            managing.stop().await;
        }
    }
}

impl Node {
    /// Takes up a membership that the state directory holds, or says why the node is not there.
    pub(super) async fn resume_into(
        &self,
        member: &mut Option<Member>,
        membership: Membership,
    ) -> Result<NodeId, ApiError> {
        let id = membership.node;
        let resumed = self.resume(membership).await;
        *member = Some(resumed.inspect_err(|error| self.is_broken(error))?);
        Ok(id)
    }

    /// Takes up a membership that the state directory holds.
    async fn resume(&self, membership: Membership) -> Result<Member, ApiError> {
        if self.lock.is_locked().map_err(|e| status::local("this node's lock", e))? {
            return Err(status::locked());
        }
        self.seal_as_locked(membership.manager)?;
        let identity =
            self.certificates.load().map_err(|e| status::local("this node's certificate", e))?;
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
        let membership = self.where_it_is_now(membership)?;
        let mut membership = membership;
        let managing = match membership.manager {
            true if membership.begins_anew => {
                Some(self.begin_anew(&mut membership, &credentials).await?)
            }
            true => {
                self.begin_start(&mut membership, &credentials).await?;
                Some(self.start_managing(&membership, &credentials, None).await?)
            }
            false => None,
        };
        self.run_member(membership, credentials, managing).await
    }

    /// The membership with the addresses that this node was started with, if it was told any: a
    /// manager may move.
    fn where_it_is_now(&self, known: Membership) -> Result<Membership, ApiError> {
        let mut now = known.clone();
        if let Some(listen) = self.config.listen.filter(|listen| listen.port() != 0) {
            now.listen = listen.to_string();
        }
        if self.config.advertise.is_some() || now.listen != known.listen {
            let (_, advertise) = self.addresses(&now.listen, "")?;
            if advertise.port() != 0 {
                now.advertise = advertise.to_string();
            }
        }
        if now != known {
            info!(from = %known.advertise, to = %now.advertise, "this node's address changed");
            self.dir.remember(&now).map_err(|e| status::local("the membership was not kept", e))?;
        }
        Ok(now)
    }

    /// Makes this node the first manager of a new cluster.
    pub(super) async fn create_cluster(&self, request: InitRequest) -> Result<Member, ApiError> {
        let now = SystemClock.now();
        let root_ca = root::of_new_cluster(&request.spec.ca_config, now)?;
        let (listen, advertise) = self.addresses(&request.listen_addr, &request.advertise_addr)?;
        let listener = bind(&listen.to_string()).await?;
        let (listen, advertise) = with_real_port(&listener, listen, advertise);
        let mut ids = IdSource::random();
        let identity = Identity { node: ids.next(), role: NodeRole::Manager, cluster: ids.next() };
        let mut spec = request.spec.clone();
        let cluster = Cluster { root_ca, spec: spec.clone(), ..Cluster::default() };
        let broken = |error: IdentityError| status::local("no certificate could be made", error);
        let own = root::certified(&cluster, &identity).await.map_err(broken)?;
        // They are in the root now.
        spec.ca_config.signing_ca_cert.clear();
        spec.ca_config.signing_ca_key.clear();
        self.dir.forget().map_err(|e| status::local("the state directory cannot be cleared", e))?;
        let unlock_key = self.new_lock(&request)?;
        self.certificates.save(&own).map_err(broken)?;

        let raft_id = new_raft_id();
        let membership = Membership {
            cluster: identity.cluster,
            node: identity.node,
            manager: true,
            raft_id,
            listen: listen.to_string(),
            advertise: advertise.to_string(),
            managers: vec![advertise.to_string()],
            recovery: 0,
            begins_anew: false,
            start: 0,
            heard_start: 0,
        };
        let root = own.root().clone();
        let credentials = Credentials::new(own).map_err(broken)?;
        let opened = self.open_store(&membership, &credentials, true).await?;
        let token = || JoinToken::generate(root.digest(), &mut rand::rng()).expose();
        let objects = NewCluster {
            id: identity.cluster,
            spec,
            addr_pool: request.default_addr_pool,
            subnet_size: request.subnet_size,
            data_path_port: request.data_path_port,
            root_ca: cluster.root_ca,
            tls_info: root.tls_info().map_err(broken)?,
            join_tokens: JoinTokens { worker: token(), manager: token(), ..Default::default() },
            unlock_key,
            node: identity.node,
            raft_id,
            advertise: advertise.to_string(),
            availability: request.availability,
        };
        let batch = Batch::new(now, objects.changes(&mut ids));
        until_leading(&*opened.store).await;
        commit_first(&*opened.store, batch).await?;
        self.dir
            .remember(&membership)
            .map_err(|e| status::local("the membership was not kept", e))?;
        info!(node = %membership.node, cluster = %membership.cluster, "a new swarm");
        let managing =
            self.start_managing(&membership, &credentials, Some((opened, listener))).await?;
        self.run_member(membership, credentials, Some(managing)).await
    }

    /// Starts what makes a node a manager, with what is open already.
    pub(super) async fn start_managing(
        &self,
        membership: &Membership,
        credentials: &Arc<Credentials>,
        open: Option<(OpenStore, TcpListener)>,
    ) -> Result<Managing, ApiError> {
        let (opened, listener) = match open {
            Some(open) => open,
            None => {
                let listener = bind(&membership.listen).await?;
                (self.open_store(membership, credentials, false).await?, listener)
            }
        };
        let mut builder = Manager::builder(opened.store.clone());
        match self.engine(membership).await {
            Ok(Engine { network: Some(network), .. }) => builder = builder.network_driver(network),
            Ok(_) => {}
            Err(error) => {
                // Else the store would keep its directory from the next attempt.
                opened.close.await;
                return Err(error);
            }
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
        if let Some(member) = &opened.member {
            builder = builder.member_of_group(member.clone());
        }
        let manager = builder.serve(credentials.clone(), listener);
        let over = CancellationToken::new();
        let protected = Protected {
            identity: self.certificates.clone(),
            store: opened.keys,
            renew: self.renew.clone(),
        };
        let following = Following::start(self.lock.clone(), opened.store, protected);
        Ok(Managing { manager, member: opened.member, over, following, close: opened.close })
    }

    /// The unlock key of a new cluster with autolock. The node is locked before it has anything
    /// to hide.
    fn new_lock(&self, request: &InitRequest) -> Result<Option<SecretBytes>, ApiError> {
        self.lock.forget();
        let locks = request.auto_lock_managers || request.spec.encryption_config.auto_lock_managers;
        let key = locks.then(UnlockKey::generate);
        if let Some(seal) = key.as_ref().and_then(UnlockKey::seal_key) {
            let locked = self.lock.lock_with(0, seal);
            locked.map_err(|e| status::local("this node's lock", e))?;
        }
        self.seal_as_locked(true)?;
        Ok(key.map(|key| key.stored()))
    }

    /// Puts right what a crash left in another form than the lock says. A worker is not locked.
    pub(super) fn seal_as_locked(&self, manager: bool) -> Result<(), ApiError> {
        let seal = |key| {
            let sealed = self.certificates.seal_with(key);
            sealed.map_err(|e| status::local("this node's certificate", e))
        };
        seal(self.lock.node_key())?;
        if !manager {
            seal(None)?;
            self.lock.remove().map_err(|e| status::local("this node's lock", e))?;
        }
        Ok(())
    }

    /// Starts the worker of a member and tells the API.
    pub(super) async fn run_member(
        &self,
        membership: Membership,
        credentials: Arc<Credentials>,
        managing: Option<Managing>,
    ) -> Result<Member, ApiError> {
        if let Some(managing) = &managing {
            self.keep_seat(&membership, &credentials, managing);
            self.watch_store(managing);
        }
        match self.start_worker(&membership, &credentials).await {
            Ok(worker) => {
                self.watch_over(worker.ended());
                self.follow_role(worker.renewed());
                self.follow_cluster(worker.whereabouts());
                let control = managing.as_ref().map(|managing| managing.manager.control().clone());
                self.is_member(&membership, control);
                Ok(Member { membership, credentials, worker, managing })
            }
            Err(error) => {
                if let Some(managing) = managing {
                    managing.stop().await;
                }
                Err(error)
            }
        }
    }

    async fn start_worker(
        &self,
        membership: &Membership,
        credentials: &Arc<Credentials>,
    ) -> Result<Worker, ApiError> {
        let engine = self.engine(membership).await?;
        let mut worker =
            Worker::builder(credentials.clone(), membership.managers.clone(), engine.executor)
                .hostname(self.config.hostname.clone())
                .labels(self.config.labels.clone())
                .resources(self.config.resources.clone())
                .state_dir(self.dir.path("tasks"))
                .certificates(self.certificates.clone())
                .renew_when(self.renew.clone())
                .addr(host(&membership.advertise))
                .recovery(membership.recovery);
        if let Some(network) = engine.network {
            worker = worker.network(network);
        }
        worker.start().map_err(|error| status::local("the agent's journal cannot be opened", error))
    }

    /// Removes the tasks of a node that is locked or cannot take its place: nobody else will.
    pub(super) async fn purge(&self) {
        let Ok(Some(membership)) = self.dir.membership() else { return };
        let purged = match self.engine(&membership).await {
            Ok(engine) => {
                let networks = engine.network.into_iter().collect();
                let purged = swarm_runtime::agent::purge(engine.executor, networks).await;
                purged.map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = purged {
            warn!(%error, "something of this node's tasks is left");
        }
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

    pub(super) async fn open_store(
        &self,
        membership: &Membership,
        credentials: &Arc<Credentials>,
        new_cluster: bool,
    ) -> Result<OpenStore, ApiError> {
        let place = self.store_place(membership, credentials, new_cluster);
        let opened = match &self.config.parts.store {
            Some(stores) => stores.open(&place).await,
            None => RaftStores.open(&place).await,
        };
        opened.map_err(|error| status::local("the manager's store", error))
    }

    /// Has the store of a manager begin a group of its own.
    pub(super) async fn recover_store(
        &self,
        membership: &Membership,
        credentials: &Arc<Credentials>,
    ) -> Result<(), ApiError> {
        let place = self.store_place(membership, credentials, false);
        let recovered = match &self.config.parts.store {
            Some(stores) => stores.force_new_cluster(&place).await,
            None => RaftStores.force_new_cluster(&place).await,
        };
        recovered.map_err(|error| status::local("the manager's store", error))
    }

    pub(super) fn store_place(
        &self,
        membership: &Membership,
        credentials: &Arc<Credentials>,
        new_cluster: bool,
    ) -> StorePlace {
        StorePlace {
            disk: self.config.disk.clone(),
            dir: self.dir.path("raft"),
            node: membership.node,
            raft_id: membership.raft_id,
            advertise: membership.advertise.clone(),
            credentials: credentials.clone(),
            seal: self.lock.node_key(),
            new_cluster,
        }
    }

    /// The listening and the advertised address: the request's, else this node's own flags.
    pub(super) fn addresses(
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

pub(super) async fn bind(listen: &str) -> Result<TcpListener, ApiError> {
    TcpListener::bind(listen).await.map_err(|error| {
        status::local(&format!("failed to listen on {listen} for the nodes of the swarm"), error)
    })
}

/// The port that the system chose, where none in particular was asked for.
pub(super) fn with_real_port(
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

/// Waits until the store leads, or should have.
pub(super) async fn until_leading(store: &dyn Store) {
    let mut leadership = store.leadership();
    let leading = leadership.wait_for(|now| matches!(now, Leadership::Leader(_)));
    let _ = tokio::time::timeout(LEADER_WITHIN, leading).await;
}

/// Commits what a cluster begins with.
pub(super) async fn commit_first(store: &dyn Store, batch: Batch) -> Result<(), ApiError> {
    let written: Result<_, CommitError> = store.commit(batch).await;
    written.map(|_| ()).map_err(|error| status::local("the new cluster was not written", error))
}
