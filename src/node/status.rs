//! Pure: the texts in which a node answers about its own place in a swarm (moby: `cluster/errors.go`).

use crate::error::{ApiError, Code};
use crate::http::{CERTIFICATES_EXPIRED, LOCKED};

/// `init` or `join` on a member.
#[must_use]
pub(super) fn already_member() -> ApiError {
    ApiError::plain(
        Code::Unavailable,
        "This node is already part of a swarm. Use \"docker swarm leave\" to leave this swarm and join another one.",
    )
}

/// `init --force-new-cluster` on a worker.
#[must_use]
pub(super) fn not_manager() -> ApiError {
    ApiError::plain(
        Code::Unavailable,
        "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this command on a manager node or promote the current node to a manager.",
    )
}

/// `leave` outside a swarm.
#[must_use]
pub(super) fn not_member() -> ApiError {
    ApiError::plain(Code::Unavailable, "This node is not part of a swarm")
}

/// `leave` of the last manager without force.
#[must_use]
pub(super) fn last_manager() -> ApiError {
    ApiError::plain(
        Code::Unavailable,
        "You are attempting to leave the swarm on a node that is participating as a manager. \
         Removing the last manager erases all current state of the swarm. Use `--force` to ignore \
         this message.",
    )
}

/// `join` that takes longer than the client is made to wait.
#[must_use]
pub(super) fn join_continues() -> ApiError {
    ApiError::plain(
        Code::Unavailable,
        "Timeout was reached before node joined. The attempt to join the swarm will continue in \
         the background. Use the \"docker info\" command to see the current swarm status of your node.",
    )
}

/// A node that was away while its certificate expired, and so could not renew it.
#[must_use]
pub(super) fn certificates_expired() -> ApiError {
    ApiError::plain(Code::Unavailable, CERTIFICATES_EXPIRED)
}

/// A manager whose store has stopped by itself: what it shows in its status.
#[must_use]
pub(super) fn store_stopped(why: &str) -> String {
    format!(
        "this manager's store has stopped: {why}. What is on its disk is not known any more: see to \
         the disk and restart the machine; or demote this node on another manager, remove it, empty \
         its state directory, and let it join again"
    )
}

/// `unlock` of a node that is not locked.
#[must_use]
pub(super) fn not_locked() -> ApiError {
    ApiError::plain(Code::AlreadyExists, "swarm is not locked")
}

/// `unlock` with another key than the one that locked the node.
#[must_use]
pub(super) fn wrong_key() -> ApiError {
    let text = "swarm could not be unlocked: invalid key provided";
    ApiError::plain(Code::Unauthenticated, text)
}

/// Anything that a locked node is asked.
#[must_use]
pub(super) fn locked() -> ApiError {
    ApiError::plain(Code::Unavailable, LOCKED)
}

/// Something of this node's own failed: a file, a port, the engine.
pub(super) fn local(what: &str, error: impl std::fmt::Display) -> ApiError {
    ApiError::plain(Code::Unknown, format!("{what}: {error}"))
}
