//! The [`NetworkDriver`]: how tasks reach each other and are reached.

mod overlay;

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::executor::Sandbox;
use crate::model::{
    Driver, IpamOptions, Labels, Network, NetworkId, NetworkSpec, NodeId, PortProtocol, ServiceId,
    TaskId,
};

pub use overlay::{OVERLAY, VXLAN_ID, allocate_overlay};

/// A task's place in one network, as its node needs it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attachment {
    /// The task.
    pub task: TaskId,
    /// The network, with its allocated ranges.
    pub network: Arc<Network>,
    /// The task's addresses there, as CIDRs.
    pub addresses: Vec<String>,
    /// The names by which the task is found there: the service's name and aliases, and
    /// `tasks.` before the service's name.
    pub names: Vec<String>,
    /// Options for the driver.
    pub driver_opts: Labels,
}

/// What attaching achieved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attached {
    /// The addresses by which this node's neighbours reach the task; empty when the driver
    /// cannot say before the start.
    pub addresses: Vec<IpAddr>,
}

/// A node that has tasks in a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// The node.
    pub node: NodeId,
    /// Its advertised address.
    pub addr: String,
    /// Its engine: equal on two nodes that share one.
    pub engine: String,
}

/// A task that answers for a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    /// The task.
    pub task: TaskId,
    /// Where it runs.
    pub node: NodeId,
    /// Its address: `ADDRESS` in a network, `ADDRESS:PORT` behind a published port.
    pub address: String,
}

/// A service in one network: what its names resolve to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRecord {
    /// The service.
    pub service: ServiceId,
    /// Its name and aliases in this network.
    pub names: Vec<String>,
    /// Its virtual address, without a mask; absent in `dnsrr` mode.
    pub virtual_ip: Option<String>,
    /// Its running tasks.
    pub backends: Vec<Backend>,
}

/// One network as a node that has tasks in it needs it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetworkView {
    /// The network, with its allocated ranges.
    pub network: Arc<Network>,
    /// The nodes that have tasks in it, this one included.
    pub peers: Vec<Peer>,
    /// The services in it.
    pub services: Vec<ServiceRecord>,
}

/// A port that every node carries, and the tasks behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPort {
    /// The service.
    pub service: ServiceId,
    /// The port outside.
    pub port: u16,
    /// The transport.
    pub protocol: PortProtocol,
    /// The running tasks, `ADDRESS:PORT` each. Empty: connections are refused.
    pub backends: Vec<Backend>,
}

/// Everything a node's networks shall be. Level-triggered: what is not in it goes away.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeNetwork {
    /// The networks that this node has tasks in.
    pub networks: Vec<NetworkView>,
    /// The ports to carry.
    pub published: Vec<PublishedPort>,
}

/// What is in use already, for [`NetworkDriver::allocate`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InUse {
    /// The driver's own state of every other network with the same driver.
    pub states: Vec<(NetworkId, Driver)>,
}

/// What a driver needs beside addresses, such as a VNI.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Allocation {
    /// Becomes the network's `driver_state`.
    pub state: Driver,
    /// Whether the network gets address ranges from the cluster's pool.
    pub wants_addresses: bool,
    /// Ranges that the driver insists on.
    pub ipam: Option<IpamOptions>,
}

/// Connects tasks.
///
/// # The contract
///
/// Checked by `conformance::network`:
///
/// - `allocate` is **pure** and runs inside the manager's plan: same arguments, same answer.
/// - `sync` is **level-triggered and idempotent**: it gets the whole desired state, in any order
///   of calls, and makes it so. It owns only what it made, named and labelled with the node's or
///   the cluster's id. A backend that left drains: new connections go elsewhere at once, open ones
///   go on.
/// - `attach` runs between the executor's `prepare` and `start`; both it and `detach` are
///   idempotent. `detach` of an unknown task succeeds.
/// - What needs a capability that this node lacks fails with [`NetError::Missing`], which names it.
#[async_trait]
pub trait NetworkDriver: Send + Sync + 'static {
    /// The name in network specifications, such as `overlay`.
    fn name(&self) -> &str;

    /// Manager side: what a new network gets.
    ///
    /// # Errors
    /// [`NetError::Exhausted`] when nothing is left, [`NetError::Missing`] for a specification
    /// that this driver cannot satisfy.
    fn allocate(&self, spec: &NetworkSpec, in_use: &InUse) -> Result<Allocation, NetError>;

    /// Node side: makes this node's networks and published ports what `want` says.
    ///
    /// # Errors
    /// The first error, after everything that could be done was done.
    async fn sync(&self, want: &NodeNetwork) -> Result<(), NetError>;

    /// Node side: attaches a prepared task to one network.
    async fn attach(&self, want: &Attachment, sandbox: &Sandbox) -> Result<Attached, NetError>;

    /// Node side: takes a task out of every network.
    async fn detach(&self, task: TaskId) -> Result<(), NetError>;
}

/// A network driver's error, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// Nothing is left of something. Free some, or make the pool larger.
    #[error("{0} is exhausted")]
    Exhausted(String),
    /// This node or driver lacks a capability. The message says which, and what to use instead.
    #[error("{0}")]
    Missing(String),
    /// The system refused. Trying again may help.
    #[error("{0}")]
    System(String),
}
