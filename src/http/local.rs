//! What the API needs from the node that serves it.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use swarm_core::model::{Availability, ClusterSpec, NodeDescription, NodeId};

use crate::error::{ApiError, Code};
use crate::manager::control::Control;

swarm_core::words! {
    /// A node's place in a swarm, as `docker info` shows it.
    pub enum LocalState as "LocalNodeState" {
        /// In no swarm.
        Inactive = "inactive",
        /// Joining.
        Pending = "pending",
        /// In a swarm.
        Active = "active",
        /// Something is wrong; see the error.
        Error = "error",
        /// A manager that waits for its key.
        Locked = "locked",
    }
}

swarm_core::object! {
    /// A manager that this node knows.
    pub struct RemoteManager {
        /// Its node.
        node_id: NodeId = "NodeID",
        /// Where it listens.
        addr: String = "Addr",
    }
}

/// What a node says ([`LocalStatus::error`]) whose certificate expired while it was away.
pub const CERTIFICATES_EXPIRED: &str =
    "Swarm certificates have expired. To replace them, leave the swarm and join again.";

/// What a locked manager says to everything but `docker swarm unlock`.
pub const LOCKED: &str = "Swarm is encrypted and needs to be unlocked before it can be used. \
                          Please use \"docker swarm unlock\" to unlock it.";

swarm_core::object! {
    /// A node's place in a swarm: the `Swarm` member of `GET /info` is made from it.
    pub struct LocalStatus {
        /// The node, once it has joined.
        node_id: NodeId = "NodeID",
        /// The address that it advertises, without a port.
        node_addr: String = "NodeAddr",
        /// Its place.
        state: LocalState = "LocalNodeState",
        /// Whether it is a manager.
        control_available: bool = "ControlAvailable",
        /// What is wrong.
        error: String = "Error",
        /// The managers that it knows.
        remote_managers: Vec<RemoteManager> = "RemoteManagers",
    }
}

swarm_core::object! {
    /// The body of `POST /swarm/init`.
    pub struct InitRequest {
        /// Where to listen: `0.0.0.0:2377`, an address, or an interface's name.
        listen_addr: String = "ListenAddr" omit,
        /// What others should use.
        advertise_addr: String = "AdvertiseAddr" omit,
        /// The address of the data plane.
        data_path_addr: String = "DataPathAddr" omit,
        /// The port of the data plane; 0 is 4789.
        data_path_port: u32 = "DataPathPort" omit,
        /// Start again from this manager's state alone.
        force_new_cluster: bool = "ForceNewCluster" omit,
        /// The cluster's settings; zeros take their defaults.
        spec: ClusterSpec = "Spec" omit,
        /// Whether managers stay locked after a restart.
        auto_lock_managers: bool = "AutoLockManagers" omit,
        /// Whether this node takes tasks.
        availability: Availability = "Availability" omit,
        /// Where networks get their ranges from.
        default_addr_pool: Vec<String> = "DefaultAddrPool" omit,
        /// The mask length of such a range.
        subnet_size: u32 = "SubnetSize" omit,
    }
}

swarm_core::object! {
    /// The body of `POST /swarm/join`.
    pub struct JoinRequest {
        /// Where to listen, should the node be a manager.
        listen_addr: String = "ListenAddr" omit,
        /// What others should use.
        advertise_addr: String = "AdvertiseAddr" omit,
        /// The address of the data plane.
        data_path_addr: String = "DataPathAddr" omit,
        /// Where managers listen.
        remote_addrs: Vec<String> = "RemoteAddrs" omit,
        /// The token; decides the role.
        join_token: String = "JoinToken" omit secret,
        /// Whether this node takes tasks.
        availability: Availability = "Availability" omit,
    }
}

swarm_core::object! {
    /// The body of `POST /x-swarm/managers`.
    pub struct LookForRequest {
        /// Where managers may listen: `ADDRESS[:PORT]`.
        remote_addrs: Vec<String> = "RemoteAddrs" omit,
    }
}

/// The parts of a backup, in order. One that ends with an error, or is not read to its end, is none.
pub type Backup = BoxStream<'static, io::Result<Bytes>>;

swarm_core::object! {
    /// The body of `POST /swarm/unlock`.
    pub struct UnlockRequest {
        /// The key.
        unlock_key: String = "UnlockKey" omit secret,
    }
}

/// The node behind the API: in no swarm, a worker, or a manager.
#[async_trait]
pub trait LocalNode: Send + Sync + 'static {
    /// Its place in a swarm, at once.
    fn status(&self) -> LocalStatus;

    /// The control API, while it is a manager.
    fn control(&self) -> Option<Arc<Control>>;

    /// What its executor says of itself.
    async fn description(&self) -> NodeDescription;

    /// Makes it the first manager of a new swarm.
    async fn init(&self, request: InitRequest) -> Result<NodeId, ApiError>;

    /// Makes it a member of a swarm.
    async fn join(&self, request: JoinRequest) -> Result<(), ApiError>;

    /// Takes it out of its swarm and erases its state.
    async fn leave(&self, force: bool) -> Result<(), ApiError>;

    /// Gives a locked manager its key.
    async fn unlock(&self, request: UnlockRequest) -> Result<(), ApiError>;

    /// The cluster as this manager has it now, as one file. By default, that there is no such thing.
    async fn backup(&self) -> Result<Backup, ApiError> {
        Err(ApiError::plain(Code::Unimplemented, "this node makes no backups"))
    }

    /// Has this node look for its cluster's managers at these addresses too, `ADDRESS:PORT`.
    async fn look_for(&self, managers: Vec<String>) -> Result<(), ApiError> {
        let _ = managers;
        Err(ApiError::plain(Code::Unimplemented, "this node looks for no managers"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_credential() {
        const SECRET: &str = "hush";
        let join = JoinRequest { join_token: SECRET.into(), ..JoinRequest::default() };
        let unlock = UnlockRequest { unlock_key: SECRET.into(), ..UnlockRequest::default() };
        let mut init = InitRequest { listen_addr: "here".into(), ..InitRequest::default() };
        init.spec.ca_config.signing_ca_key = SECRET.into();
        let shown = format!("{join:?} {unlock:?} {init:?}");
        assert!(shown.contains("here") && shown.contains("(secret)"), "{shown}");
        assert!(!shown.contains(SECRET), "{shown}");
        let tokens = swarm_core::model::JoinTokens {
            worker: SECRET.into(),
            manager: SECRET.into(),
            ..Default::default()
        };
        assert!(!format!("{tokens:?}").contains(SECRET));
        assert!(
            serde_json::to_string(&tokens).unwrap().contains(SECRET),
            "it is kept all the same"
        );
    }
}
