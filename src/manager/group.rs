//! The managers' group on one manager: it takes raft's messages, writes down who asks for a place, and
//! carries out what [`roles`] decides while it leads.

use std::future::ready;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;
use swarm_core::model::{ManagerStatus, Node, NodeId, NodeRole, Reachability};
use swarm_core::store::{Batch, Change, CommitError, Epoch, Leadership, Snapshot, Store};
use swarm_core::time::Clock;
use swarm_raft::{LinkError, MemberError, Message, MessageKind, Peer, RaftLink, RaftStore};
use tokio::time::Instant;
use tracing::{info, warn};

use super::roles::{self, Step};
use crate::error::{ApiError, Code};
use crate::identity::{Identity, NodeCertificate};
use crate::rpc::RaftCall;
use crate::rpc::message::JoinGroup;
use crate::rpc::service::{GroupService, RaftAnswers, RaftCalls};

/// The group is looked at this often, and after every commit: who is reachable is not in the store.
const LOOK: Duration = Duration::from_secs(1);
/// The pause after a step that failed (SwarmKit: 5 s).
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// How long a manager that asks for a place may take to answer at its address (SwarmKit: 5 s).
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Where the count begins in the number of a start: see [`ManagerStatus::start`].
pub(crate) const START_COUNT: u32 = 32;

/// The store as a member of a group, and the way to the other members.
#[derive(Clone)]
pub struct Replicated {
    /// The member.
    pub raft: Arc<RaftStore>,
    /// How it reaches the others.
    pub link: Arc<dyn RaftLink>,
}

/// One manager's share in the group.
pub struct Group {
    store: Arc<dyn Store>,
    member: Replicated,
    clock: Arc<dyn Clock>,
}

impl Group {
    /// The share of the manager with this store, which is, or is in front of, the member.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, member: Replicated, clock: Arc<dyn Clock>) -> Self {
        Self { store, member, clock }
    }

    /// Keeps the group's members as the cluster's nodes say, in every term in which this manager
    /// leads. Never returns; drop it to stop.
    pub async fn run(&self) {
        let mut leadership = self.store.leadership();
        loop {
            let epoch = leadership.borrow_and_update().epoch();
            let Some(epoch) = epoch else {
                if leadership.changed().await.is_err() {
                    return;
                }
                continue;
            };
            tokio::select! {
                () = self.lead(epoch) => {}
                _ = leadership.wait_for(|now| now.epoch() != Some(epoch)) => {}
            }
        }
    }

    async fn lead(&self, epoch: Epoch) {
        let mut held = Vec::new();
        let since = Instant::now();
        loop {
            let view = self.store.snapshot();
            let (status, me) = (self.member.raft.status(), self.member.raft.raft_id());
            let (step, now_held) = roles::next(&view, &status, me, since.elapsed());
            if now_held != held {
                for held in &now_held {
                    warn!(node = %held.node, why = held.why, "cannot be demoted yet");
                }
                held = now_held;
            }
            match step {
                Some(step) => {
                    if let Err(error) = self.carry_out(step, epoch).await {
                        warn!(%error, "the managers' group was not changed; trying again");
                        tokio::time::sleep(RETRY_AFTER).await;
                    }
                }
                None => {
                    let mut watch = self.store.watch(view.version());
                    let _ = tokio::time::timeout(LOOK, watch.next()).await;
                }
            }
        }
    }

    async fn carry_out(&self, step: Step, epoch: Epoch) -> Result<(), MemberError> {
        let raft = &self.member.raft;
        match step {
            Step::Write(changes) => {
                let batch = Batch { at: self.clock.now(), epoch: Some(epoch), changes };
                match self.store.commit(batch).await {
                    Ok(_) | Err(CommitError::Conflict { .. }) => Ok(()),
                    Err(error) => Err(MemberError::Refused(error.to_string())),
                }
            }
            Step::Admit(peer) => {
                info!(raft_id = peer.raft_id, addr = %peer.address, "a manager is admitted");
                raft.add_learner(&peer).await
            }
            Step::LetVote(id) => {
                info!(raft_id = id, "a manager is up to date and votes from now on");
                raft.let_vote(id).await
            }
            Step::Relocate(peer) => {
                info!(raft_id = peer.raft_id, addr = %peer.address, "a manager moved");
                raft.relocate(&peer).await
            }
            Step::Remove(id) => {
                info!(raft_id = id, "a manager leaves the group");
                raft.remove_member(id).await
            }
            Step::HandOver(id) => {
                info!(to = id, "this manager is to leave the group: another one leads");
                raft.transfer_leadership(id).await
            }
        }
    }

    /// Whether somebody takes raft's messages at a prospective member's address.
    async fn answers(&self, peer: &Peer) -> Result<(), ApiError> {
        let message = Message { kind: MessageKind::ReadIndex, body: Bytes::new() };
        let call = tokio::time::timeout(ANSWER_WITHIN, self.member.link.call(peer, message));
        let reason = match call.await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {ANSWER_WITHIN:?}"),
        };
        let text = format!(
            "could not connect to prospective new cluster member using its advertised address: {reason}"
        );
        Err(ApiError::rpc(Code::FailedPrecondition, text))
    }
}

#[async_trait]
impl GroupService for Group {
    async fn receive(&self, peer: &NodeCertificate, call: RaftCall) -> Result<Bytes, ApiError> {
        let raft = &self.member.raft;
        let view = self.store.snapshot();
        let message = let_in(&view, raft.raft_id(), peer, call)?;
        let leads = self.store.leadership().borrow().epoch().is_some();
        if message.kind == MessageKind::Commit && leads {
            may_write(&view, peer.identity.node)?;
        }
        raft.receive(message).await.map_err(ApiError::from)
    }

    fn stream(&self, peer: NodeCertificate, calls: RaftCalls) -> RaftAnswers {
        let (store, raft_id) = (self.store.clone(), self.member.raft.raft_id());
        let messages = calls.map(move |call| let_in(&store.snapshot(), raft_id, &peer, call?));
        self.member.raft.receive_stream(messages.boxed())
    }

    async fn join(
        &self,
        caller: &NodeCertificate,
        remote: SocketAddr,
        request: JoinGroup,
    ) -> Result<(), ApiError> {
        let peer = caller.identity;
        let own = request.raft_id == self.member.raft.raft_id();
        is_no_copy(&self.store.snapshot(), peer, &request)?;
        let starts = request.addr.is_empty();
        if starts && *self.store.leadership().borrow() == Leadership::None {
            // It may be what is missing for a majority: it is not kept waiting.
            return Err(ApiError::rpc(Code::Unavailable, "there is no leader to write it down"));
        }
        let request = match starts {
            true => request,
            false => JoinGroup { addr: reachable_address(&request.addr, remote)?, ..request },
        };
        if !own && !starts {
            let member = Peer { raft_id: request.raft_id, address: request.addr.clone() };
            self.answers(&member).await?;
            // There may be no leader to write it down before it can be reached.
            if may_speak(&self.store.snapshot(), caller, member.raft_id).is_ok() {
                self.member.raft.found(&member);
            }
        }
        let not_now = |error: CommitError| ApiError::rpc(Code::Unavailable, error.to_string());
        loop {
            // Nobody is refused for what this manager has yet to hear.
            self.store.barrier().await.map_err(not_now)?;
            let view = self.store.snapshot();
            let Some(change) = place(&view, peer, &request)? else { return Ok(()) };
            match self.store.commit(Batch::new(self.clock.now(), vec![change])).await {
                Ok(_) => {
                    info!(node = %peer.node, addr = request.addr, "a manager has its place in the group");
                    return Ok(());
                }
                Err(CommitError::Conflict { .. }) => {}
                Err(error) => return Err(not_now(error)),
            }
        }
    }
}

/// The message of a call that is for the member with this id, from a node that may send it.
fn let_in(
    view: &Snapshot,
    own: u64,
    peer: &NodeCertificate,
    call: RaftCall,
) -> Result<Message, ApiError> {
    if call.to != own {
        let text = format!("this is not the manager with the raft id {}", call.to);
        return Err(ApiError::rpc(Code::FailedPrecondition, text));
    }
    may_speak(view, peer, call.from)?;
    Ok(call.message)
}

impl From<LinkError> for ApiError {
    fn from(error: LinkError) -> Self {
        let code = match error {
            LinkError::Malformed(_) => Code::InvalidArgument,
            _ => Code::FailedPrecondition,
        };
        Self::rpc(code, error.to_string())
    }
}

/// Whether a node may send raft's messages under an id.
///
/// It may not once this manager has applied that it left the group. But this manager may lag behind, and
/// the node may lead by now: one that is not known, or that is known as a worker and was promoted since.
/// That shows in its certificate, which is then younger than all that is known of the node; one with the
/// certificate of its time as a manager cannot make itself one again under a raft id of its choice.
fn may_speak(view: &Snapshot, peer: &NodeCertificate, raft_id: u64) -> Result<(), ApiError> {
    let refused = |text: String| Err(ApiError::rpc(Code::PermissionDenied, text));
    let id = peer.identity.node;
    if let Some(node) = view.nodes.get(id) {
        // Certificates have times in whole seconds.
        let younger = peer.issued_at() + Duration::from_secs(1) >= node.updated_at;
        if node.former_raft_ids.contains(&raft_id) || (node.role == NodeRole::Worker && !younger) {
            return refused(format!("node {id} was taken out of the managers' group"));
        }
    }
    let owner = view
        .nodes
        .iter()
        .find(|node| node.manager_status.as_ref().is_some_and(|status| status.raft_id == raft_id));
    if owner.is_some_and(|owner| owner.id != id) {
        return refused(format!("the raft id {raft_id} is another node's than {id}"));
    }
    Ok(())
}

/// Whether a node may have writes committed by this manager, which leads: it knows every manager.
fn may_write(view: &Snapshot, id: NodeId) -> Result<(), ApiError> {
    if view.nodes.get(id).is_some_and(|node| node.role == NodeRole::Manager) {
        return Ok(());
    }
    Err(ApiError::rpc(Code::PermissionDenied, format!("node {id} is no manager")))
}

/// What gives a manager its place; nothing where it has it.
fn place(view: &Snapshot, peer: Identity, wish: &JoinGroup) -> Result<Option<Change>, ApiError> {
    let refused = |code, text: String| Err(ApiError::rpc(code, text));
    let Some(node) = view.nodes.get(peer.node) else {
        // It joined a moment ago, through another manager.
        let text = format!("node {} is not known here yet: try again", peer.node);
        return refused(Code::Unavailable, text);
    };
    if node.role != NodeRole::Manager || node.spec.role != NodeRole::Manager {
        return refused(Code::PermissionDenied, format!("node {} is no manager", node.id));
    }
    let is = |status: &ManagerStatus| status.raft_id == wish.raft_id;
    let taken = view.nodes.iter().any(|other| {
        let now = other.manager_status.as_ref().is_some_and(is) && other.id != node.id;
        now || other.former_raft_ids.contains(&wish.raft_id)
    });
    if taken {
        let text = format!("the raft id {} was used before", wish.raft_id);
        return refused(Code::AlreadyExists, text);
    }
    is_no_copy(view, peer, wish)?;
    let mut node = Node::clone(node);
    let had = node.manager_status.take();
    let place = match &had {
        Some(had) if is(had) => {
            let addr = if wish.addr.is_empty() { &had.addr } else { &wish.addr };
            ManagerStatus { addr: addr.clone(), start: wish.start, ..had.clone() }
        }
        // It will ask for a place when it listens.
        _ if wish.addr.is_empty() => return Ok(None),
        _ => {
            node.former_raft_ids.extend(had.as_ref().map(|had| had.raft_id));
            ManagerStatus {
                raft_id: wish.raft_id,
                addr: wish.addr.clone(),
                start: wish.start,
                reachability: Reachability::Unknown,
                ..Default::default()
            }
        }
    };
    if had.as_ref() == Some(&place) {
        return Ok(None);
    }
    node.manager_status = Some(place);
    Ok(Some(Change::update(node)))
}

/// Refuses a manager that has said a later start than its state directory knows of, or another one:
/// the directory is a copy from before. True on however old a view: starts are counted.
fn is_no_copy(view: &Snapshot, peer: Identity, wish: &JoinGroup) -> Result<(), ApiError> {
    let status = view.nodes.get(peer.node).and_then(|node| node.manager_status.as_ref());
    let said = status.filter(|status| status.raft_id == wish.raft_id).map_or(0, |s| s.start);
    let known = said == wish.start || said == wish.before;
    if known || said >> START_COUNT < wish.before >> START_COUNT {
        return Ok(());
    }
    let text = format!(
        "manager {} has started since its state directory was as it is now: it is an old copy, which has \
         forgotten what it confirmed. Demote and remove the node, empty the directory and join again",
        peer.node
    );
    Err(ApiError::rpc(Code::FailedPrecondition, text))
}

fn reachable_address(addr: &str, remote: SocketAddr) -> Result<String, ApiError> {
    let parsed: SocketAddr = addr.parse().map_err(|_| {
        let text = format!("{addr:?} is not an address of the form ADDRESS:PORT");
        ApiError::rpc(Code::InvalidArgument, text)
    })?;
    let ip = if parsed.ip().is_unspecified() { remote.ip() } else { parsed.ip() };
    Ok(SocketAddr::new(ip, parsed.port()).to_string())
}

/// The group of a manager whose store has no members.
pub struct NoGroup;

#[async_trait]
impl GroupService for NoGroup {
    async fn receive(&self, _: &NodeCertificate, _: RaftCall) -> Result<Bytes, ApiError> {
        Err(alone())
    }

    fn stream(&self, _: NodeCertificate, _: RaftCalls) -> RaftAnswers {
        stream::once(ready(Err(alone()))).boxed()
    }

    async fn join(&self, _: &NodeCertificate, _: SocketAddr, _: JoinGroup) -> Result<(), ApiError> {
        Err(alone())
    }
}

fn alone() -> ApiError {
    let text = "this manager's store is its own: it takes no other managers";
    ApiError::rpc(Code::Unimplemented, text)
}

#[cfg(test)]
#[path = "group_tests.rs"]
mod tests;
