//! Pure: every call between nodes, and who may make it. What is not listed is refused.

use swarm_core::model::NodeRole;
use swarm_core::time::Timestamp;

use super::service::{Peer, Standing};
use crate::error::{ApiError, Code};

/// Who may make a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Whoever reaches the port: what the call gives is public, or guarded by a join token.
    Anyone,
    /// A member of the cluster, by its certificate.
    Node,
    /// A manager of the cluster, by its certificate.
    Manager,
}

/// Every call. A new one does not compile before it says who may make it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The cluster's root certificate.
    GetRootCertificate,
    /// A certificate for a node that joins.
    IssueCertificate,
    /// A new certificate for a node that has one.
    RenewCertificate,
    /// The stream between an agent and its manager.
    Session,
    /// The managers, and which of them leads.
    Managers,
    /// The output of tasks, from the leader.
    Logs,
    /// A manager that takes its place in the managers' group.
    JoinGroup,
    /// A message of raft.
    Raft,
    /// A stream of messages of raft; each must pass as if it came by itself.
    RaftStream,
}

impl Method {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::GetRootCertificate,
        Self::IssueCertificate,
        Self::RenewCertificate,
        Self::Session,
        Self::Managers,
        Self::Logs,
        Self::JoinGroup,
        Self::Raft,
        Self::RaftStream,
    ];

    /// The path on the wire. Never changes: neighbouring versions talk to each other.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::GetRootCertificate => "/swarm.CA/GetRootCertificate",
            Self::IssueCertificate => "/swarm.CA/IssueCertificate",
            Self::RenewCertificate => "/swarm.CA/RenewCertificate",
            Self::Session => "/swarm.Agent/Session",
            Self::Managers => "/swarm.Control/Managers",
            Self::Logs => "/swarm.Control/Logs",
            Self::JoinGroup => "/swarm.Raft/Join",
            Self::Raft => "/swarm.Raft/Message",
            Self::RaftStream => "/swarm.Raft/Stream",
        }
    }

    /// The method of a path.
    #[must_use]
    pub fn from_path(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.path() == path)
    }

    /// Who may call it.
    #[must_use]
    pub const fn caller(self) -> Caller {
        match self {
            Self::GetRootCertificate | Self::IssueCertificate => Caller::Anyone,
            Self::RenewCertificate | Self::Session => Caller::Node,
            Self::Managers | Self::Logs | Self::JoinGroup | Self::Raft | Self::RaftStream => {
                Caller::Manager
            }
        }
    }
}

/// Whether a caller may make a call. TLS has verified at the handshake that the certificate, if
/// there is one, is of this cluster; that it is still valid and its node still a member is for
/// each call to establish.
///
/// # Errors
/// [`Code::Unauthenticated`] without a valid certificate, [`Code::PermissionDenied`] for a node
/// that was removed or lacks the role.
pub fn authorize(
    method: Method,
    peer: &Peer,
    standing: Standing,
    now: Timestamp,
) -> Result<(), ApiError> {
    if method.caller() == Caller::Anyone {
        return Ok(());
    }
    let refused = |code, text: String| Err(ApiError::rpc(code, text));
    let Some(certificate) = &peer.certificate else {
        let text = "the call needs a certificate of this cluster: join it first";
        return refused(Code::Unauthenticated, text.to_owned());
    };
    let (node, role) = (certificate.identity.node, certificate.identity.role);
    if now > certificate.not_after {
        let until = certificate.not_after;
        return refused(
            Code::Unauthenticated,
            format!("the certificate of node {node} expired at {until}"),
        );
    }
    if peer.retired.is_cancelled() {
        let text = format!("the certificate of node {node} is of a root that was given up");
        return refused(Code::Unauthenticated, text);
    }
    if standing == Standing::Removed {
        return refused(
            Code::PermissionDenied,
            format!("node {node} was removed from the cluster"),
        );
    }
    if method.caller() == Caller::Manager && role != NodeRole::Manager {
        return refused(
            Code::PermissionDenied,
            format!("only managers may make this call, and node {node} is a worker"),
        );
    }
    // Of raft's messages the group refuses those of whom it has removed: it alone can tell them from
    // those of a manager whose promotion this one has yet to hear of, and from nobody else.
    let demoted = standing == Standing::Member(NodeRole::Worker);
    let of_raft = matches!(method, Method::Raft | Method::RaftStream);
    if method.caller() == Caller::Manager && demoted && !of_raft {
        return refused(
            Code::PermissionDenied,
            format!("only managers may make this call, and node {node} is a manager no more"),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Identity, NodeCertificate};

    const EXPIRY: Timestamp = Timestamp::from_secs(100);

    fn peer(role: Option<NodeRole>) -> Peer {
        let certificate = role.map(|role| NodeCertificate {
            identity: Identity {
                node: "abcdefghij0123456789abcde".parse().unwrap(),
                role,
                cluster: "bbcdefghij0123456789abcde".parse().unwrap(),
            },
            not_before: Timestamp::ZERO,
            not_after: EXPIRY,
            public_key: Vec::new(),
        });
        let retired = tokio_util::sync::CancellationToken::new();
        Peer { certificate, remote: ([127, 0, 0, 1], 1).into(), retired }
    }

    /// Every method × every kind of caller, written out a second time: a slip in the table shows.
    #[test]
    fn every_call_admits_exactly_whom_it_should() {
        let (worker, manager) = (Some(NodeRole::Worker), Some(NodeRole::Manager));
        let (unknown, removed) = (Standing::Unknown, Standing::Removed);
        let (as_worker, as_manager) =
            (Standing::Member(NodeRole::Worker), Standing::Member(NodeRole::Manager));
        // (caller, standing, expired), then who gets into: Anyone, Node, Manager, Raft.
        let rows = [
            (None, unknown, false, [true, false, false, false]),
            (worker, unknown, false, [true, true, false, false]),
            (worker, as_worker, false, [true, true, false, false]),
            (worker, as_manager, false, [true, true, false, false]),
            (manager, unknown, false, [true, true, true, true]),
            (manager, as_manager, false, [true, true, true, true]),
            (manager, as_worker, false, [true, true, false, true]),
            (worker, removed, false, [true, false, false, false]),
            (manager, removed, false, [true, false, false, false]),
            (worker, unknown, true, [true, false, false, false]),
            (manager, as_manager, true, [true, false, false, false]),
        ];
        for method in Method::ALL {
            for (role, standing, expired, admitted) in rows {
                let now = if expired { Timestamp::from_secs(101) } else { EXPIRY };
                let class = match method {
                    Method::GetRootCertificate | Method::IssueCertificate => 0,
                    Method::RenewCertificate | Method::Session => 1,
                    Method::Managers | Method::Logs | Method::JoinGroup => 2,
                    Method::Raft | Method::RaftStream => 3,
                };
                let result = authorize(method, &peer(role), standing, now);
                let case = (method, role, standing, expired);
                assert_eq!(result.is_ok(), admitted[class], "{case:?}: {result:?}");
            }
        }
    }

    #[test]
    fn paths_are_distinct_and_anything_else_is_no_method() {
        for method in Method::ALL {
            assert_eq!(Method::from_path(method.path()), Some(method));
        }
        for path in ["", "/", "/swarm.CA/", "/swarm.CA/GetRootCertificate/", "/swarm.ca/renew"] {
            assert_eq!(Method::from_path(path), None, "{path:?}");
        }
    }
}
