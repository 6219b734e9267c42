//! What runs a node's tasks: an executor with the network driver that fits it, opened once the
//! node's place in a swarm is known.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use swarm_core::executor::{ExecError, Executor};
use swarm_core::model::{ClusterId, NodeDescription, NodeId};
use swarm_core::network::NetworkDriver;

/// A node's place in a swarm, as far as an executor has to know it.
#[derive(Clone, Debug)]
pub struct Place {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// A directory for whatever the executor keeps.
    pub state_dir: PathBuf,
    /// The address that the node advertises: published ports appear there.
    pub advertise: IpAddr,
}

/// An executor with the network driver that fits it.
#[derive(Clone)]
pub struct Engine {
    /// Runs tasks.
    pub executor: Arc<dyn Executor>,
    /// Connects them; absent when they share the host's network or have none.
    pub network: Option<Arc<dyn NetworkDriver>>,
}

/// Makes an [`Engine`] for a node once its place is known. Implement it to bring an executor of
/// your own: see `examples/custom_executor.rs`.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// A name for messages, such as `docker`.
    fn name(&self) -> &'static str;

    /// What a node with this runtime is and has, before it has a place.
    ///
    /// # Errors
    /// When the engine does not answer.
    async fn describe(&self) -> Result<NodeDescription, ExecError>;

    /// The engine for a place.
    ///
    /// # Errors
    /// When the engine does not answer.
    async fn open(&self, place: &Place) -> Result<Engine, ExecError>;
}
