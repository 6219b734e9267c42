//! A node that becomes a manager or a worker when it is told to, as a Docker Engine does, and
//! remembers it across restarts.

mod address;
mod config;
mod interfaces;
mod member;
mod runtime;
mod runtimes;
mod state;
mod status;
mod store;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use swarm_core::model::{NodeDescription, NodeId};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

pub use config::{NodeConfig, OpenStore, Parts, StoreFactory, StorePlace};
pub use runtime::{Engine, Place, Runtime};
pub use runtimes::{AutoRuntime, DockerRuntime, MemoryRuntime, ProcessRuntime};
pub use state::{Membership, StateDir};
pub use store::{MemoryStores, RaftStores};

use crate::error::ApiError;
use crate::http::{
    InitRequest, JoinRequest, LocalNode, LocalState, LocalStatus, RemoteManager, UnlockRequest,
};
use crate::manager::control::Control;
use member::Member;

/// How long a client waits for `init` and `join`.
const CLIENT_WAITS: Duration = Duration::from_secs(20);
/// The pauses between two attempts to take a place up again.
const RESUME_PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// A node: in no swarm, a worker, or a manager.
pub struct Node {
    config: NodeConfig,
    dir: StateDir,
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
        let dir = StateDir::open(&config.state_dir)?;
        let node = Arc::new_cyclic(|me| Self {
            config,
            dir,
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
        match self.dir.membership() {
            Ok(None) => {}
            Ok(Some(membership)) => {
                info!(node = %membership.node, cluster = %membership.cluster, "resuming");
                match self.resume(membership).await {
                    Ok(resumed) => *member = Some(resumed),
                    Err(error) => self.is_broken(&error),
                }
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
        matches!(self.status().state, LocalState::Pending | LocalState::Error)
    }

    /// Whether leaving would erase a manager's store, whether or not that can be used now.
    fn manages(&self) -> bool {
        self.status().control_available
            || self.dir.membership().map_or(true, |place| place.is_some_and(|place| place.manager))
    }

    /// Stops the node; its tasks keep running and are taken up again by the next start.
    pub async fn stop(&self) {
        self.joining().cancel();
        if let Some(member) = self.member.lock().await.take() {
            member.stop().await;
        }
        *self.view() = View::default();
    }

    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn joining(&self) -> MutexGuard<'_, CancellationToken> {
        self.joining.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_broken(&self, reason: &dyn std::fmt::Display) {
        error!(%reason, "this node cannot take its place in the swarm");
        self.view().status = LocalStatus {
            state: LocalState::Error,
            error: reason.to_string(),
            ..Default::default()
        };
    }

    /// Tells the API what this node is now.
    fn is_member(&self, membership: &Membership, control: Option<Arc<Control>>) {
        let manager = |addr: &String| RemoteManager { addr: addr.clone(), ..Default::default() };
        let mut remote_managers: Vec<_> = membership.managers.iter().map(manager).collect();
        if membership.manager {
            remote_managers = vec![RemoteManager {
                node_id: membership.node,
                addr: membership.advertise.clone(),
                ..Default::default()
            }];
        }
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
}

#[async_trait]
impl LocalNode for Node {
    fn status(&self) -> LocalStatus {
        self.view().status.clone()
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
        if let Some(member) = member.take() {
            member.leave().await;
        }
        *self.view() = View::default();
        self.dir
            .forget()
            .map_err(|error| status::local("the state directory was not cleared", error))
    }

    async fn unlock(&self, _: UnlockRequest) -> Result<(), ApiError> {
        Err(status::not_locked())
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
