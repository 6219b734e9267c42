//! openraft's network over a [`RaftLink`]: calls out, and what comes in.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use openraft::errors::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::{RPCOption, RPCTypes};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{BasicNode, RaftNetworkFactory, RaftNetworkV2};
use serde::de::DeserializeOwned;
use swarm_core::store::{Object, Snapshot};
use tokio::sync::Mutex;
use tracing::error;

use crate::addresses::Addresses;
use crate::link::{LinkError, Message, MessageKind, Peer, RaftLink};
use crate::pipeline::{self, Sent};
use crate::snapshot::{Head, Image, parts};
use crate::store::{Heard, hear, note_heard};
use crate::types::{LogId, Raft, SnapshotMeta, Types, Vote};
use crate::wire::{self, Appended, At, Ballot, Canvass, Handover, PartHead, PartTaken, Taken};

/// How long one part of a snapshot may take.
const PART_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the last part may take, which includes that the peer writes all of it to its disk.
const LAST_PART_TIMEOUT: Duration = Duration::from_secs(600);

/// Makes a client for each peer.
pub(crate) struct Network {
    pub(crate) raft_id: u64,
    pub(crate) link: Arc<dyn RaftLink>,
    pub(crate) addresses: Addresses,
    pub(crate) sending: Sending,
    pub(crate) confirmed: Confirmed,
}

/// Up to which entry each member has confirmed to have the log, and in which term of this leader. A
/// member cannot lose what it confirmed, unless its state is an old copy.
pub(crate) type Confirmed = Arc<std::sync::Mutex<BTreeMap<u64, (u64, u64)>>>;

/// How many snapshots are on their way to peers; clones share the number.
#[derive(Clone, Default)]
pub(crate) struct Sending(Arc<AtomicUsize>);

impl Sending {
    pub(crate) fn any(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }

    /// Counts one more until the guard is dropped.
    fn one(&self) -> SendingOne {
        self.0.fetch_add(1, Ordering::Relaxed);
        SendingOne(self.clone())
    }
}

struct SendingOne(Sending);

impl Drop for SendingOne {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Client;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Client {
        let peer = Peer { raft_id: target, address: node.addr.clone() };
        let (link, addresses) = (self.link.clone(), self.addresses.clone());
        let sending = self.sending.clone();
        let confirmed = self.confirmed.clone();
        Client { raft_id: self.raft_id, peer, link, addresses, sending, confirmed }
    }
}

/// Calls one peer.
pub(crate) struct Client {
    raft_id: u64,
    peer: Peer,
    pub(crate) link: Arc<dyn RaftLink>,
    addresses: Addresses,
    sending: Sending,
    confirmed: Confirmed,
}

impl Client {
    /// Notes what the peer confirmed; refuses an answer that contradicts what it confirmed before.
    pub(crate) fn hold_to(&self, sent: Sent, answer: &Appended) -> Result<(), RPCError<Types>> {
        let index = |id: Option<LogId>| id.map_or(0, |id| id.index);
        let (term, previous, last) = (sent.term, index(sent.previous), index(sent.last));
        let mut confirmed = self.confirmed.lock().unwrap_or_else(PoisonError::into_inner);
        let (before_term, before) = confirmed.entry(self.peer.raft_id).or_default();
        if *before_term != term {
            (*before_term, *before) = (term, 0);
        }
        let now = match answer {
            Appended::All => last,
            Appended::UpTo(at) => at.map_or(0, At::index),
            Appended::Conflict if previous > 0 && previous <= *before => {
                let Peer { raft_id, address } = &self.peer;
                let text = format!(
                    "manager {raft_id} at {address} has lost entries that it had confirmed: its state \
                     directory is an old copy. Remove it from the cluster, empty the directory and let \
                     it join again"
                );
                error!("{text}");
                return Err(RPCError::Unreachable(Unreachable::from_string(text)));
            }
            Appended::Conflict | Appended::HigherVote(_) => 0,
        };
        *before = now.max(*before);
        Ok(())
    }

    /// The peer where it listens now.
    pub(crate) fn present(&self) -> Peer {
        self.addresses.present(&self.peer)
    }

    /// What it is that no answer came in time.
    pub(crate) fn late(&self, action: RPCTypes, timeout: Duration) -> RPCError<Types> {
        Timeout { action, id: self.raft_id, target: self.peer.raft_id, timeout }.into()
    }

    async fn call<T: DeserializeOwned>(
        &self,
        kind: MessageKind,
        action: RPCTypes,
        body: Vec<u8>,
        timeout: Duration,
    ) -> Result<T, RPCError<Types>> {
        let message = Message { kind, body: body.into() };
        let peer = self.present();
        let call = tokio::time::timeout(timeout, self.link.call(&peer, message));
        let answer = call.await.map_err(|_| self.late(action, timeout))?;
        let answer = answer.map_err(|error| rpc_error(&error))?;
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
            let timeout = if last { LAST_PART_TIMEOUT } else { PART_TIMEOUT };
            let taken: PartTaken = self.call(kind, action, body, timeout).await?;
            if let Some(vote) = taken.done {
                return Ok(SnapshotResponse::new(vote.into()));
            }
            next = parts.next().ok_or_else(|| {
                RPCError::Network(NetworkError::from_string("the last part was not confirmed"))
            })?;
        }
    }
}

type Answered = Result<StreamAppendResult<Types>, RPCError<Types>>;

/// A failure of the link, as openraft has them: it pauses where the peer cannot be reached.
pub(crate) fn rpc_error(error: &LinkError) -> RPCError<Types> {
    match error {
        LinkError::Unreachable { .. } => RPCError::Unreachable(Unreachable::new(error)),
        _ => RPCError::Network(NetworkError::new(error)),
    }
}

impl RaftNetworkV2<Types> for Client {
    type SnapshotData = Snapshot;

    /// For the trait: openraft sends entries and heartbeats through `stream_append` alone.
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let (kind, action) = (MessageKind::Append, RPCTypes::AppendEntries);
        let body = wire::encode_append(&rpc);
        let appended: Appended = self.call(kind, action, body, option.soft_ttl()).await?;
        self.hold_to(Sent::of(&rpc), &appended)?;
        Ok(appended.into())
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Answered>, RPCError<Types>>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin + 'static,
    {
        let answers = pipeline::send_all(self, input, option.soft_ttl());
        Box::pin(std::future::ready(Ok(answers)))
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
        let _sending = self.sending.one();
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
    pub(crate) heard: Heard,
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
                hear(&self.heard, &response);
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
            // What followers ask of the store, and not of raft: see `forward`.
            MessageKind::ReadIndex | MessageKind::Commit => {
                return Err(LinkError::Malformed("it is no message of raft".to_owned()));
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
        note_heard(&self.heard);
        if !head.last {
            *incoming = Some(Incoming { head, objects: so_far });
            return Ok(PartTaken { done: None });
        }
        let vote = head.vote.into();
        // Some seconds of work for a large state, which must not keep heartbeats waiting.
        let image = tokio::task::spawn_blocking(move || head.head.image(so_far));
        let image = image.await.map_err(refused)?.map_err(LinkError::Malformed)?;
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

pub(crate) fn malformed(error: impl std::fmt::Display) -> LinkError {
    LinkError::Malformed(error.to_string())
}

pub(crate) fn refused(error: impl std::fmt::Display) -> LinkError {
    LinkError::Refused(error.to_string())
}
