//! Pure: what calls between nodes carry. Unknown members are ignored, missing ones take defaults.

use serde::{Deserialize, Serialize};
use swarm_core::model::{Availability, ClusterId, NodeId, NodeRole, Reachability, SecretBytes};

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
