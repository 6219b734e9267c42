//! Who a node is and how it proves it: certificates, join tokens, TLS and renewal.
//!
//! A node's certificate carries all that a manager needs to know of a caller: the node's id (CN),
//! its role (OU) and its cluster (O). The cluster's [authority](ca::Authority) writes these three
//! itself and takes nothing but the public key from whoever asks (SwarmKit: `ca/`).

pub mod ca;
pub mod cert;
pub mod external;
pub mod files;
pub mod given;
pub mod issuer;
pub mod renew;
pub mod state;
pub mod tls;
pub mod token;
pub mod unlock;

use std::path::PathBuf;

use swarm_core::model::{ClusterId, NodeId, NodeRole};

pub use ca::{Authority, KeyRequest};
pub use cert::{NodeCertificate, TrustRoot};
pub use external::{Cfssl, ExternalAuthority};
pub use files::IdentityFiles;
pub use issuer::StoreAuthority;
pub use state::NodeIdentity;
pub use tls::Credentials;
pub use token::{JoinToken, RootDigest};
pub use unlock::UnlockKey;

/// The organisational unit in the certificate of a manager, and the name that every client asks
/// for: managers are known by certificate, never by host name.
pub const MANAGER_NAME: &str = "swarm-manager";
/// The organisational unit in the certificate of a worker.
pub const WORKER_NAME: &str = "swarm-worker";
/// The common name of the root, and a name of every manager: any of them may issue.
pub const CA_NAME: &str = "swarm-ca";

/// Who a node is, as its certificate says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The node.
    pub node: NodeId,
    /// What it may do.
    pub role: NodeRole,
    /// Where it belongs.
    pub cluster: ClusterId,
}

impl Identity {
    /// The organisational unit that stands for the role.
    #[must_use]
    pub const fn unit(&self) -> &'static str {
        match self.role {
            NodeRole::Manager => MANAGER_NAME,
            NodeRole::Worker => WORKER_NAME,
        }
    }
}

/// Why an identity could not be made, read or believed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The text is not a join token. Copy it again from `docker swarm join-token`.
    #[error("invalid join token")]
    InvalidToken,
    /// The text is not an unlock key. Copy it again from `docker swarm unlock-key`.
    #[error("invalid key string")]
    InvalidUnlockKey,
    /// The manager showed another root than the one that the token pins: it belongs to another
    /// cluster, or someone stands in between. Nothing was sent to it.
    #[error("remote CA does not match fingerprint. Expected: {expected}, found: {found}")]
    DigestMismatch {
        /// The digest in the token.
        expected: RootDigest,
        /// The digest of what the manager showed.
        found: RootDigest,
    },
    /// A certificate does not say what it must, or is damaged.
    #[error("{what} is not usable: {reason}")]
    Certificate {
        /// Whose certificate.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A signing request was refused. Make a new one with a new key.
    #[error("the certificate signing request is refused: {0}")]
    Request(String),
    /// A key and a certificate do not belong together, or a key is damaged.
    #[error("the private key is not usable: {0}")]
    Key(String),
    /// What an operator gave as the cluster's authority cannot be it, in SwarmKit's words.
    #[error("{0}")]
    Given(String),
    /// An authority outside the cluster does not do what it is there for.
    #[error("external certificate authority {url}: {reason}")]
    External {
        /// Where it should answer.
        url: String,
        /// What went wrong.
        reason: String,
    },
    /// This manager holds no signing key: an external authority signs.
    #[error("this cluster's root key is not here: its external authority must sign")]
    NoSigningKey,
    /// A file of the state directory could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
}

impl IdentityError {
    pub(crate) fn certificate(what: &'static str, reason: impl std::fmt::Display) -> Self {
        Self::Certificate { what, reason: reason.to_string() }
    }
}

#[cfg(test)]
mod files_tests;
#[cfg(test)]
mod tests;
