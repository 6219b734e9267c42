//! openraft's network over a [`RaftLink`]: calls out, and what comes in.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::errors::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::{RPCOption, RPCTypes};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{BasicNode, RaftNetworkFactory, RaftNetworkV2};
use serde::de::DeserializeOwned;
use swarm_core::store::{Object, Snapshot};
use tokio::sync::Mutex;

use crate::link::{LinkError, Message, MessageKind, Peer, RaftLink};
use crate::snapshot::{Head, Image, parts};
use crate::types::{Raft, SnapshotMeta, Types, Vote};
use crate::wire::{self, Appended, Ballot, Canvass, Handover, PartHead, PartTaken, Taken};

/// How long one part of a snapshot may take; the last one includes its installation.
const PART_TIMEOUT: Duration = Duration::from_secs(60);

/// Makes a client for each peer.
pub(crate) struct Network {
    pub(crate) raft_id: u64,
    pub(crate) link: Arc<dyn RaftLink>,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Client;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Client {
        let peer = Peer { raft_id: target, address: node.addr.clone() };
        Client { raft_id: self.raft_id, peer, link: self.link.clone() }
    }
}

/// Calls one peer.
pub(crate) struct Client {
    raft_id: u64,
    peer: Peer,
    link: Arc<dyn RaftLink>,
}

impl Client {
    async fn call<T: DeserializeOwned>(
        &self,
        kind: MessageKind,
        action: RPCTypes,
        body: Vec<u8>,
        timeout: Duration,
    ) -> Result<T, RPCError<Types>> {
        let message = Message { kind, body: body.into() };
        let call = self.link.call(&self.peer, message);
        let Ok(answer) = tokio::time::timeout(timeout, call).await else {
            let (id, target) = (self.raft_id, self.peer.raft_id);
            return Err(Timeout { action, id, target, timeout }.into());
        };
        let answer = answer.map_err(|error| match error {
            LinkError::Unreachable { .. } => RPCError::Unreachable(Unreachable::new(&error)),
            _ => RPCError::Network(NetworkError::new(&error)),
        })?;
        wire::decode(&answer).map_err(|bad| RPCError::Network(NetworkError::new(&bad)))
    }

    async fn send_snapshot(
        &self,
        vote: Vote,
        image: Image,
    ) -> Result<SnapshotResponse<Types>, RPCError<Types>> {
        let head = Head::of(&image);
        let mut parts = parts(&image.state).enumerate().peekable();
        let mut next = parts.next().unwrap_or((0, b"[]".to_vec()));
        loop {
            let (number, objects) = next;
            let last = parts.peek().is_none();
            let part =
                PartHead { vote: vote.into(), head: head.clone(), part: number as u64, last };
            let body = wire::encode_part(&part, &objects);
            let (kind, action) = (MessageKind::Snapshot, RPCTypes::InstallSnapshot);
            let taken: PartTaken = self.call(kind, action, body, PART_TIMEOUT).await?;
            if let Some(vote) = taken.done {
                return Ok(SnapshotResponse::new(vote.into()));
            }
            next = parts.next().ok_or_else(|| {
                RPCError::Network(NetworkError::from_string("the last part was not confirmed"))
            })?;
        }
    }
}

impl RaftNetworkV2<Types> for Client {
    type SnapshotData = Snapshot;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let (kind, action) = (MessageKind::Append, RPCTypes::AppendEntries);
        let body = wire::encode_append(&rpc);
        let appended: Appended = self.call(kind, action, body, option.soft_ttl()).await?;
        Ok(appended.into())
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let body = wire::encode(&Canvass::from(rpc));
        let ballot: Ballot =
            self.call(MessageKind::Vote, RPCTypes::Vote, body, option.soft_ttl()).await?;
        Ok(ballot.into())
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let body = wire::encode(&Canvass::from(rpc));
        let ballot: Ballot =
            self.call(MessageKind::PreVote, RPCTypes::Vote, body, option.soft_ttl()).await?;
        Ok(ballot.into())
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: openraft::alias::SnapshotOf<Types, Snapshot>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let image = Image { meta: snapshot.meta, state: snapshot.snapshot };
        tokio::select! {
            closed = cancel => Err(closed.into()),
            sent = self.send_snapshot(vote, image) => Ok(sent?),
        }
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        let body = wire::encode(&Handover::from(rpc));
        let (kind, action) = (MessageKind::Transfer, RPCTypes::TransferLeader);
        let taken: Taken = self.call(kind, action, body, option.soft_ttl()).await?;
        Ok(taken.into())
    }
}

/// Answers what peers send.
pub(crate) struct Receiver {
    pub(crate) raft: Raft,
    /// A snapshot of which parts have come.
    pub(crate) incoming: Mutex<Option<Incoming>>,
}

/// The parts of a snapshot so far.
pub(crate) struct Incoming {
    /// The last part's head.
    head: PartHead,
    objects: Vec<Object>,
}

impl Receiver {
    pub(crate) async fn receive(&self, message: Message) -> Result<Bytes, LinkError> {
        let body = &message.body;
        let answer = match message.kind {
            MessageKind::Append => {
                let rpc = wire::decode_append(body).map_err(malformed)?;
                let response = self.raft.append_entries(rpc).await.map_err(refused)?;
                wire::encode(&Appended::from(response))
            }
            MessageKind::Vote => {
                let rpc: Canvass = wire::decode(body).map_err(malformed)?;
                let response = self.raft.vote(rpc.into()).await.map_err(refused)?;
                wire::encode(&Ballot::from(response))
            }
            MessageKind::PreVote => {
                let rpc: Canvass = wire::decode(body).map_err(malformed)?;
                let response = self.raft.pre_vote(rpc.into()).await.map_err(refused)?;
                wire::encode(&Ballot::from(response))
            }
            MessageKind::Snapshot => wire::encode(&self.take_part(body).await?),
            MessageKind::Transfer => {
                let rpc: Handover = wire::decode(body).map_err(malformed)?;
                let taken = self.raft.handle_transfer_leader(rpc.into()).await.map_err(refused)?;
                wire::encode(&Taken::from(taken))
            }
            MessageKind::ReadIndex => {
                let index = read_index(&self.raft).await;
                wire::encode(&wire::ReadIndex { index })
            }
        };
        Ok(answer.into())
    }

    async fn take_part(&self, body: &[u8]) -> Result<PartTaken, LinkError> {
        let (head, objects) = wire::decode_part(body).map_err(malformed)?;
        let objects: Vec<Object> = wire::decode(objects).map_err(malformed)?;
        let mut incoming = self.incoming.lock().await;
        let mut so_far = match incoming.take() {
            _ if head.part == 0 => Vec::new(),
            Some(before) if follows(&before.head, &head) => before.objects,
            _ => return Err(LinkError::Refused("a part of the snapshot is missing".to_owned())),
        };
        so_far.extend(objects);
        if !head.last {
            *incoming = Some(Incoming { head, objects: so_far });
            return Ok(PartTaken { done: None });
        }
        let vote = head.vote.into();
        let image = head.head.image(so_far).map_err(LinkError::Malformed)?;
        let meta: SnapshotMeta = image.meta;
        let snapshot = openraft::Snapshot { meta, snapshot: image.state };
        let response = self.raft.install_full_snapshot(vote, snapshot).await.map_err(refused)?;
        Ok(PartTaken::done(&response))
    }
}

/// Whether a part is the next one of the same snapshot from the same leader.
fn follows(before: &PartHead, part: &PartHead) -> bool {
    before.vote == part.vote && before.head == part.head && before.part + 1 == part.part
}

/// The index up to which a linearizable read has to see, if this manager leads.
pub(crate) async fn read_index(raft: &Raft) -> Option<u64> {
    let read = raft.get_read_log_id(openraft::ReadPolicy::ReadIndex).await;
    read.ok().map(|(id, _)| id.log_id().index)
}

fn malformed(error: impl std::fmt::Display) -> LinkError {
    LinkError::Malformed(error.to_string())
}

fn refused(error: impl std::fmt::Display) -> LinkError {
    LinkError::Refused(error.to_string())
}
