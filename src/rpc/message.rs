//! Pure: what calls between nodes carry. Unknown members are ignored, missing ones take defaults.

use serde::{Deserialize, Serialize};
use swarm_core::executor::LogOptions;
use swarm_core::model::{Availability, ClusterId, NodeId, NodeRole, Reachability, SecretBytes};

use crate::manager::logs::LogSelector;

/// A call without parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// The answer to `GetRootCertificate`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootCertificate {
    /// The root, PEM, byte for byte what join tokens pin.
    pub pem: String,
}

/// A node that wants to join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssueRequest {
    /// A signing request, PEM. Only its public key counts.
    pub csr: String,
    /// The join token, which decides the role.
    pub token: SecretBytes,
    /// Whether the node takes tasks.
    #[serde(default)]
    pub availability: Availability,
    /// The address that the node advertises, without a port; empty leaves it to the manager to
    /// see.
    #[serde(default)]
    pub addr: String,
}

/// A node that wants its certificate renewed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewRequest {
    /// A signing request, PEM. Only its public key counts.
    pub csr: String,
}

/// A node's new certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    /// The node.
    pub node: NodeId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// What it may do.
    pub role: NodeRole,
    /// The certificate, and whatever leads from it to the root, PEM.
    pub certificate: String,
}

/// A manager that takes its place in the managers' group, or that listens elsewhere now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinGroup {
    /// Its id among the raft members, drawn by itself.
    pub raft_id: u64,
    /// Where it listens: `ADDRESS:PORT`. The unspecified address stands for the one that the other
    /// manager sees. Empty where a manager says no more than that it starts.
    pub addr: String,
    /// This start, as in [`ManagerStatus::start`](swarm_core::model::ManagerStatus::start).
    #[serde(default)]
    pub start: u64,
    /// The last one before it that the group is known to have heard of.
    #[serde(default)]
    pub before: u64,
}

/// A wish for the output of tasks, from a manager that does not lead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogsRequest {
    /// Whose.
    pub selector: LogSelector,
    /// Which part.
    pub options: LogOptions,
}

/// One manager.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagerEntry {
    /// Its node.
    pub node: NodeId,
    /// Where it listens, with the port.
    pub addr: String,
    /// Whether it leads.
    pub leader: bool,
    /// Whether the leader reaches it.
    #[serde(default)]
    pub reachability: Reachability,
}

/// The answer to `Managers`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Managers {
    /// All of them, the leader first.
    pub managers: Vec<ManagerEntry>,
}
