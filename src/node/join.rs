//! How a node joins a cluster: with a token, and as a manager with a place among the managers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use swarm_core::model::{Availability, NodeRole};
use tracing::{info, warn};

use super::member::{Managing, bind, with_real_port};
use super::seat::{Seat, new_raft_id};
use super::{Membership, Node, address, status};
use crate::error::{ApiError, Code};
use crate::http::{JoinRequest, LocalStatus};
use crate::identity::token::JoinToken;
use crate::identity::{Credentials, NodeIdentity};
use crate::rpc::client;

/// The pauses between two attempts to join.
const JOIN_PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// An attempt to join, checked as far as it can be without a manager.
pub(super) struct Attempt {
    remotes: Vec<String>,
    token: String,
    availability: Availability,
    listen: SocketAddr,
    advertise: SocketAddr,
}

impl Node {
    /// Checks what can be checked of a join before any manager is asked.
    pub(super) fn prepare_join(&self, request: &JoinRequest) -> Result<Attempt, ApiError> {
        if request.remote_addrs.is_empty() {
            return Err(ApiError::plain(
                Code::InvalidArgument,
                "at least 1 RemoteAddr is required to join",
            ));
        }
        request
            .join_token
            .parse::<JoinToken>()
            .map_err(|_| ApiError::plain(Code::Unknown, "invalid join token"))?;
        let (listen, advertise) = self.addresses(&request.listen_addr, &request.advertise_addr)?;
        Ok(Attempt {
            remotes: request.remote_addrs.iter().map(|addr| address::at_usual_port(addr)).collect(),
            token: request.join_token.clone(),
            availability: request.availability,
            listen,
            advertise,
        })
    }

    /// Joins, trying again while no manager answers; a refusal is final.
    pub(super) async fn join_until_it_works(&self, attempt: Attempt) -> Result<(), ApiError> {
        let mut pause = JOIN_PAUSES.0;
        loop {
            match self.join_once(&attempt).await {
                Ok(()) => return Ok(()),
                Err(error) if error.code == Code::Unavailable => {
                    warn!(%error, retry_in = ?pause, "no manager could be joined yet");
                    self.view().status.error = error.to_string();
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(JOIN_PAUSES.1);
                }
                Err(error) => {
                    self.view().status = LocalStatus::default();
                    return Err(error);
                }
            }
        }
    }

    async fn join_once(&self, attempt: &Attempt) -> Result<(), ApiError> {
        let mut last = None;
        let own_addr = attempt.advertise.ip().to_string();
        for remote in &attempt.remotes {
            match client::join(remote, &attempt.token, attempt.availability, &own_addr).await {
                Ok(identity) => return self.joined(attempt, identity).await,
                Err(error) if error.code == Code::Unavailable => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(status::join_continues))
    }

    async fn joined(&self, attempt: &Attempt, identity: NodeIdentity) -> Result<(), ApiError> {
        let who = identity.identity();
        let broken = |error: crate::identity::IdentityError| {
            status::local("the certificate was not kept", error)
        };
        // A node that is new in a swarm is not locked, whatever an earlier attempt left behind.
        self.seal_as_locked(false)?;
        self.certificates.save(&identity).map_err(broken)?;
        let manager = who.role == NodeRole::Manager;
        let mut membership = Membership {
            cluster: who.cluster,
            node: who.node,
            manager,
            raft_id: if manager { new_raft_id() } else { 0 },
            listen: attempt.listen.to_string(),
            advertise: attempt.advertise.to_string(),
            managers: attempt.remotes.clone(),
            recovery: 0,
            begins_anew: false,
            start: 0,
            heard_start: 0,
        };
        let credentials = Credentials::new(identity).map_err(broken)?;
        let managing = match manager {
            true => Some(self.take_seat(attempt, &mut membership, &credentials).await?),
            false => None,
        };
        self.dir
            .remember(&membership)
            .map_err(|e| status::local("the membership was not kept", e))?;
        let mut member = self.member.lock().await;
        info!(node = %who.node, cluster = %who.cluster, manager, "joined");
        *member = Some(self.run_member(membership, credentials, managing).await?);
        Ok(())
    }

    /// Starts a manager that joins, and waits until it has its place. One that is refused leaves
    /// nothing behind on this node.
    async fn take_seat(
        &self,
        attempt: &Attempt,
        membership: &mut Membership,
        credentials: &Arc<Credentials>,
    ) -> Result<Managing, ApiError> {
        let erased = self.dir.forget_store();
        erased.map_err(|e| status::local("what was left of a manager", e))?;
        let listener = bind(&membership.listen).await?;
        let (listen, advertise) = with_real_port(&listener, attempt.listen, attempt.advertise);
        (membership.listen, membership.advertise) = (listen.to_string(), advertise.to_string());
        let opened = self.open_store(membership, credentials, false).await?;
        let started = self.start_managing(membership, credentials, Some((opened, listener)));
        let managing = started.await?;
        let Some(member) = managing.member.clone() else {
            managing.stop().await;
            let text = "this node's store is its own: it cannot be one of several managers";
            return Err(ApiError::plain(Code::Unimplemented, text));
        };
        let (credentials, membership) = (credentials.clone(), membership.clone());
        if let Err(refused) = (Seat { credentials, membership, member }).take().await {
            managing.stop().await;
            return Err(refused);
        }
        Ok(managing)
    }
}
