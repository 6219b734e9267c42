//! A node that becomes a manager or a worker when it is told to, as a Docker Engine does, and
//! remembers it across restarts.

mod address;
mod anew;
mod autolock;
mod backup;
mod config;
mod interfaces;
mod join;
mod lock;
mod member;
mod root;
mod runtime;
mod runtimes;
mod seat;
mod start;
mod state;
mod status;
#[cfg(test)]
mod stopped_tests;
mod store;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use swarm_core::model::{NodeDescription, NodeId};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

pub use config::{NodeConfig, OpenStore, Parts, SealStore, StoreFactory, StorePlace};
pub use runtime::{Engine, Place, Runtime};
pub use runtimes::{AutoRuntime, DockerRuntime, MemoryRuntime, ProcessRuntime};
pub use state::{Membership, StateDir};
pub use store::{MemoryStores, RaftStores};

use crate::error::{ApiError, Code};
use crate::http::{
    Backup, InitRequest, JoinRequest, LOCKED, LocalNode, LocalState, LocalStatus, RemoteManager,
    UnlockRequest,
};
use crate::identity::{IdentityError, IdentityFiles, UnlockKey};
use crate::manager::control::Control;
use lock::Lock;
use member::{Managing, Member};

/// How long a client waits for `init` and `join`.
const CLIENT_WAITS: Duration = Duration::from_secs(20);
/// The pauses between two attempts to take a place up again.
const RESUME_PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// A node: in no swarm, a worker, or a manager.
pub struct Node {
    config: NodeConfig,
    dir: StateDir,
    lock: Arc<Lock>,
    certificates: IdentityFiles,
    /// Has the certificate renewed at once.
    renew: Arc<Notify>,
    /// Held while the membership changes.
    member: tokio::sync::Mutex<Option<Member>>,
    view: Mutex<View>,
    /// Ends an attempt to join, or to take a place up again, that goes on in the background.
    joining: Mutex<CancellationToken>,
    me: Weak<Self>,
}

/// What the API reads at once, whatever goes on.
#[derive(Default)]
struct View {
    status: LocalStatus,
    control: Option<Arc<Control>>,
}

impl Node {
    /// Starts a node. If it was a member of a swarm it is one again; should that fail, the node
    /// still starts, its status says what is wrong, and it tries again until it works: a disk may
    /// be full, or an engine not be up yet.
    ///
    /// # Errors
    /// When the state directory cannot be used.
    pub async fn start(config: NodeConfig) -> io::Result<Arc<Self>> {
        let disk = config.disk.clone();
        let dir = StateDir::open(disk.clone(), &config.state_dir)?;
        let lock = Arc::new(Lock::new(disk.clone(), config.state_dir.clone()));
        let certificates = IdentityFiles::with(disk, dir.path("certificates"), None);
        let node = Arc::new_cyclic(|me| Self {
            config,
            dir,
            lock,
            certificates,
            renew: Arc::default(),
            member: tokio::sync::Mutex::default(),
            view: Mutex::default(),
            joining: Mutex::default(),
            me: me.clone(),
        });
        node.take_place().await;
        if node.status().state == LocalState::Error {
            node.keep_trying();
        }
        Ok(node)
    }

    /// Takes up the membership that the state directory holds, if it holds one.
    async fn take_place(&self) {
        let mut member = self.member.lock().await;
        if member.is_some() {
            return;
        }
        match self.dir.membership() {
            Ok(None) => self.lock.forget(),
            Ok(Some(_)) if self.lock.is_locked().unwrap_or(false) => self.is_locked(),
            Ok(Some(membership)) => {
                info!(node = %membership.node, cluster = %membership.cluster, "resuming");
                // What went wrong is what the node shows.
                let _ = self.resume_into(&mut member, membership).await;
            }
            Err(error) => self.is_broken(&error),
        }
    }

    /// Takes the place up in the background, until that works or the node is told something else.
    fn keep_trying(&self) {
        let (node, cancel) = (self.me.clone(), self.joining().clone());
        tokio::spawn(async move {
            let mut pause = RESUME_PAUSES.0;
            loop {
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = cancel.cancelled() => return,
                }
                let Some(node) = node.upgrade() else { return };
                node.take_place().await;
                if node.status().state != LocalState::Error {
                    return;
                }
                pause = (pause * 2).min(RESUME_PAUSES.1);
            }
        });
    }

    /// Whether this node is, or was and will be, in a swarm: what it holds of it is not to be
    /// written over.
    fn has_place(&self) -> bool {
        matches!(self.status().state, LocalState::Pending | LocalState::Error | LocalState::Locked)
    }

    /// Whether leaving would erase a manager's store, whether or not that can be used now.
    fn manages(&self) -> bool {
        self.status().control_available
            || self.dir.membership().map_or(true, |place| place.is_some_and(|place| place.manager))
    }

    /// Stops the node; its tasks keep running and are taken up again by the next start, which may
    /// follow at once.
    pub async fn stop(&self) {
        self.joining().cancel();
        let mut member = self.member.lock().await;
        if let Some(member) = member.take() {
            member.stop().await;
        }
        *self.view() = View::default();
        // Not with the last of those who know the node: work in the background may for a moment.
        self.dir.release();
    }

    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn joining(&self) -> MutexGuard<'_, CancellationToken> {
        self.joining.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_broken(&self, reason: &dyn std::fmt::Display) {
        error!(%reason, "this node cannot take its place in the swarm");
        let (state, error) = (LocalState::Error, reason.to_string());
        *self.view() =
            View { status: LocalStatus { state, error, ..Default::default() }, control: None };
    }

    fn is_locked(&self) {
        info!("this manager is locked: it waits for \"docker swarm unlock\"");
        self.view().status = LocalStatus {
            state: LocalState::Locked,
            error: LOCKED.to_owned(),
            ..Default::default()
        };
    }

    /// Tells the API what this node is now.
    fn is_member(&self, membership: &Membership, control: Option<Arc<Control>>) {
        let manager = |addr: &String| RemoteManager { addr: addr.clone(), ..Default::default() };
        let remote_managers: Vec<_> = membership.managers.iter().map(manager).collect();
        let addr = &membership.advertise;
        let node_addr = addr
            .parse()
            .map_or_else(|_| addr.clone(), |addr: std::net::SocketAddr| addr.ip().to_string());
        *self.view() = View {
            status: LocalStatus {
                node_id: membership.node,
                node_addr,
                state: LocalState::Active,
                control_available: control.is_some(),
                remote_managers,
                ..Default::default()
            },
            control,
        };
    }

    /// Watches a worker's agent: a node that its manager refuses says so in its status.
    fn watch_over(&self, mut ended: tokio::sync::watch::Receiver<Option<String>>) {
        let node = self.me.clone();
        tokio::spawn(async move {
            let Ok(reason) = ended.wait_for(Option::is_some).await else { return };
            if let (Some(node), Some(reason)) = (node.upgrade(), reason.clone()) {
                let mut view = node.view();
                view.status.state = LocalState::Error;
                view.status.error = reason;
            }
        });
    }

    /// Watches a manager's store: where it stops by itself, the whole node stops, as SwarmKit's does.
    /// It is not started again by itself: what was not written may still be read, until the machine
    /// restarts, and a manager must not vote and confirm by that.
    fn watch_store(&self, managing: &Managing) {
        let Some(member) = managing.member.clone() else { return };
        let (over, node) = (managing.over.clone(), self.me.clone());
        tokio::spawn(async move {
            let why = over.run_until_cancelled(member.raft.why_stopped()).await;
            if let (Some(why), Some(node)) = (why, node.upgrade()) {
                node.breaks_off(&over, status::store_stopped(&why)).await;
            }
        });
    }

    /// Stops a manager's node that must not go on, and shows why; unless the manager is over already.
    async fn breaks_off(&self, over: &CancellationToken, reason: String) {
        let mut member = self.member.lock().await;
        if over.is_cancelled() {
            return;
        }
        if let Some(member) = member.take() {
            member.stop().await;
        }
        self.is_broken(&reason);
    }
}

#[async_trait]
impl LocalNode for Node {
    fn status(&self) -> LocalStatus {
        let view = self.view();
        let mut status = view.status.clone();
        if let Some(control) = &view.control {
            // A manager knows them all.
            let nodes = control.store.snapshot();
            let managers = nodes.nodes.iter().filter_map(|node| {
                let addr = node.manager_status.as_ref()?.addr.clone();
                Some(RemoteManager { node_id: node.id, addr, ..Default::default() })
            });
            status.remote_managers = managers.collect();
        }
        status
    }

    fn control(&self) -> Option<Arc<Control>> {
        self.view().control.clone()
    }

    async fn description(&self) -> NodeDescription {
        let mut description = self.config.runtime.describe().await.unwrap_or_default();
        if let Some(hostname) = &self.config.hostname {
            description.hostname.clone_from(hostname);
        }
        description.engine.labels.extend(self.config.labels.clone());
        description.resources.generic.extend(self.config.resources.clone());
        description
    }

    async fn init(&self, request: InitRequest) -> Result<NodeId, ApiError> {
        self.dir.hold().map_err(|error| status::local("the state directory", error))?;
        if request.force_new_cluster && (self.has_place() || self.manages()) {
            return self.force_new_cluster(&request).await;
        }
        let mut member = self.member.lock().await;
        if member.is_some() || self.has_place() {
            return Err(status::already_member());
        }
        let created = self.create_cluster(request).await?;
        let id = created.membership().node;
        *member = Some(created);
        Ok(id)
    }

    async fn join(&self, request: JoinRequest) -> Result<(), ApiError> {
        self.dir.hold().map_err(|error| status::local("the state directory", error))?;
        if self.member.lock().await.is_some() || self.has_place() {
            return Err(status::already_member());
        }
        let attempt = self.prepare_join(&request)?;
        let cancel = CancellationToken::new();
        *self.joining() = cancel.clone();
        self.view().status = LocalStatus { state: LocalState::Pending, ..LocalStatus::default() };
        let node = self.me.upgrade().ok_or_else(status::not_member)?;
        // In a task of its own: the attempt outlives a client that waits no longer.
        let joining = tokio::spawn(async move {
            tokio::select! {
                joined = node.join_until_it_works(attempt) => joined,
                () = cancel.cancelled() => Err(status::not_member()),
            }
        });
        match tokio::time::timeout(CLIENT_WAITS, joining).await {
            Ok(Ok(joined)) => joined,
            Ok(Err(error)) => Err(status::local("joining failed", error)),
            Err(_) => Err(status::join_continues()),
        }
    }

    async fn leave(&self, force: bool) -> Result<(), ApiError> {
        if self.status().state == LocalState::Inactive {
            return Err(status::not_member());
        }
        if self.manages() && !force {
            return Err(status::last_manager());
        }
        self.joining().cancel();
        let mut member = self.member.lock().await;
        match member.take() {
            Some(member) => member.leave().await,
            None => self.purge().await,
        }
        *self.view() = View::default();
        self.lock.forget();
        self.dir
            .forget()
            .map_err(|error| status::local("the state directory was not cleared", error))?;
        // There are none: the next ones are plain until a lock says otherwise.
        let open = self.certificates.seal_with(None);
        open.map_err(|error| status::local("the state directory was not cleared", error))
    }

    async fn unlock(&self, request: UnlockRequest) -> Result<(), ApiError> {
        if self.status().state != LocalState::Locked {
            return Err(status::not_locked());
        }
        let key: UnlockKey = request.unlock_key.parse().map_err(|error: IdentityError| {
            ApiError::plain(Code::InvalidArgument, error.to_string())
        })?;
        let fits = key.seal_key().map_or(Ok(false), |key| self.lock.unlock(&key));
        if !fits.map_err(|error| status::local("this node's lock", error))? {
            return Err(status::wrong_key());
        }
        self.take_place().await;
        let status = self.status();
        if status.state == LocalState::Error {
            self.keep_trying();
            return Err(status::local("swarm component could not be started", status.error));
        }
        Ok(())
    }

    async fn backup(&self) -> Result<Backup, ApiError> {
        self.take_backup().await
    }

    async fn look_for(&self, managers: Vec<String>) -> Result<(), ApiError> {
        let member = self.member.lock().await;
        let member = member.as_ref().ok_or_else(status::not_member)?;
        member.worker.ask_first(managers.iter().map(|addr| address::at_usual_port(addr)).collect());
        Ok(())
    }
}

/// Returns when this process is asked to stop: Ctrl-C or SIGTERM.
///
/// # Panics
/// When the operating system does not let signals be watched.
pub async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};
    let mut term = signal(SignalKind::terminate()).expect("signals can be watched");
    let mut interrupt = signal(SignalKind::interrupt()).expect("signals can be watched");
    tokio::select! {
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
    }
}
