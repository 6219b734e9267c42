//! What a node is told when it starts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use swarm_core::control::Planner;
use swarm_core::model::{GenericResource, Labels, NodeId};
use swarm_core::scheduler::Scheduler;
use swarm_core::secret::SecretStore;
use swarm_core::store::Store;
use swarm_raft::{Backup, Disk, FsDisk, SealKey};

use super::runtime::Runtime;
use crate::identity::Credentials;
use crate::manager::group::Replicated;

/// Opens a manager's store. The default is a [`RaftStore`](swarm_raft::RaftStore) in the node's
/// state directory.
#[async_trait]
pub trait StoreFactory: Send + Sync + 'static {
    /// The store of a manager that starts or restarts.
    ///
    /// # Errors
    /// A sentence for the operator: what is wrong, with which file, and what to do.
    async fn open(&self, place: &StorePlace) -> Result<OpenStore, String>;

    /// Makes the manager at `place` the only one, with every object that its store has. The store is
    /// not open. May be repeated.
    ///
    /// # Errors
    /// A sentence for the operator; by default, that such a store has no other members anyway.
    async fn force_new_cluster(&self, place: &StorePlace) -> Result<(), String> {
        let _ = place;
        Err("this store has no other members: there is nothing to begin anew".to_owned())
    }

    /// Makes a store with a backup in it at `place`, where there is none; it is not opened.
    ///
    /// # Errors
    /// A sentence for the operator; by default, that such a store takes no backups.
    async fn restore(&self, place: &StorePlace, backup: Backup) -> Result<(), String> {
        let (_, _) = (place, backup);
        Err("this manager's store takes no backups".to_owned())
    }
}

/// A store that keeps keys on a disk, which autolock has sealed.
#[async_trait]
pub trait SealStore: Send + Sync + 'static {
    /// Seals the keys on disk with `key`, or leaves them plain; durable on return. Keys that were
    /// plain are replaced by new ones.
    ///
    /// # Errors
    /// A sentence for the operator; it is tried again.
    async fn seal_keys(&self, key: Option<SealKey>) -> Result<(), String>;
}

/// An open store, and how to close it.
pub struct OpenStore {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Its place among other managers' stores; without one, the manager is the only one.
    pub member: Option<Replicated>,
    /// Awaited once, when the manager has stopped: what it holds on disk is free afterwards.
    pub close: BoxFuture<'static, ()>,
    /// Its keys; absent when it has none on a disk.
    pub keys: Option<Arc<dyn SealStore>>,
}

/// Which store to open.
#[derive(Clone)]
pub struct StorePlace {
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// Its directory.
    pub dir: PathBuf,
    /// The node.
    pub node: NodeId,
    /// Its id among the members of the raft group.
    pub raft_id: u64,
    /// What the other members use to reach it.
    pub advertise: String,
    /// Whom the node can prove to be: for a link to the other members.
    pub credentials: Arc<Credentials>,
    /// What its keys on disk are sealed with; absent without autolock.
    pub seal: Option<SealKey>,
    /// Whether this is the first start of a new cluster's first manager.
    pub new_cluster: bool,
}

/// The replaceable parts of a manager; absent ones take the defaults.
#[derive(Clone, Default)]
pub struct Parts {
    /// Where tasks run; Swarm's spread by default.
    pub scheduler: Option<Arc<dyn Scheduler>>,
    /// Planners beside the default ones, run after them.
    pub planners: Vec<Arc<dyn Planner>>,
    /// Where secrets' bytes are; the store by default.
    pub secrets: Option<Arc<dyn SecretStore>>,
    /// Where everything is; raft in the state directory by default.
    pub store: Option<Arc<dyn StoreFactory>>,
}

/// What a node is told when it starts.
#[derive(Clone)]
pub struct NodeConfig {
    /// Where it keeps what it must remember.
    pub state_dir: PathBuf,
    /// Whose the directory is, as far as the node itself and a manager's store write there; the
    /// operating system's file system by default.
    pub disk: Arc<dyn Disk>,
    /// The host name to describe it by; absent takes the machine's.
    pub hostname: Option<String>,
    /// Where it listens as a manager, unless `docker swarm init` says otherwise.
    pub listen: Option<SocketAddr>,
    /// What others use, unless `docker swarm init` or `join` says otherwise: an address or an
    /// interface's name, with an optional port.
    pub advertise: Option<String>,
    /// Labels for `engine.labels.*` constraints.
    pub labels: Labels,
    /// Generic resources that services can reserve, beside the engine's own.
    pub resources: Vec<GenericResource>,
    /// What runs its tasks.
    pub runtime: Arc<dyn Runtime>,
    /// The replaceable parts of a manager.
    pub parts: Parts,
}

impl NodeConfig {
    /// A node with a state directory and a runtime; everything else takes its default.
    pub fn new(state_dir: impl Into<PathBuf>, runtime: Arc<dyn Runtime>) -> Self {
        Self {
            state_dir: state_dir.into(),
            disk: Arc::new(FsDisk),
            hostname: None,
            listen: None,
            advertise: None,
            labels: Labels::new(),
            resources: Vec::new(),
            runtime,
            parts: Parts::default(),
        }
    }
}
