//! How managers reach each other: [`RaftLink`], which carries a message to a peer and its answer back,
//! or a stream of them. What the bytes mean is this crate's business ([`wire`](crate::wire)); how they
//! travel, and who may send them, is the link's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};

use crate::store::RaftStore;

/// Another member of the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its id among the members; never used again once it was removed.
    pub raft_id: u64,
    /// Where it listens.
    pub address: String,
}

/// What a message is about: a link may give each kind a connection, a priority or a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum MessageKind {
    /// Entries of the log, or a heartbeat.
    Append,
    /// A request to vote.
    Vote,
    /// The question whether a request to vote would be granted.
    PreVote,
    /// A part of a snapshot.
    Snapshot,
    /// The request to take the lead.
    Transfer,
    /// The question up to where a follower has to read.
    ReadIndex,
    /// A batch that a follower has the leader commit.
    Commit,
}

impl MessageKind {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::Append,
        Self::Vote,
        Self::PreVote,
        Self::Snapshot,
        Self::Transfer,
        Self::ReadIndex,
        Self::Commit,
    ];

    /// Its name, for routes and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Vote => "vote",
            Self::PreVote => "pre_vote",
            Self::Snapshot => "snapshot",
            Self::Transfer => "transfer",
            Self::ReadIndex => "read_index",
            Self::Commit => "commit",
        }
    }

    /// The kind of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// A message from one manager to another. Bodies hold secrets in the clear: a link that leaves
/// the process must encrypt and authenticate. A body has at most a few MiB.
#[derive(Clone)]
pub struct Message {
    /// What it is about.
    pub kind: MessageKind,
    /// Its bytes, opaque to the link.
    pub body: Bytes,
}

/// Carries messages between managers.
///
/// # The contract
///
/// Messages may be lost, late, repeated or reordered; raft copes. An answer must be the answer to
/// its own message. The receiving side hands every message, whose sender it has authenticated as a
/// manager, to [`RaftStore::receive`], and those of a stream to [`RaftStore::receive_stream`].
#[async_trait]
pub trait RaftLink: Send + Sync + 'static {
    /// Brings a message to a peer and its answer back. The caller sets the time limit: minutes, while
    /// a peer takes a large snapshot. So a link must notice by itself, within seconds, that its
    /// connection is dead.
    ///
    /// # Errors
    /// [`LinkError`]; raft tries again.
    ///
    /// # Cancellation
    /// Safe: the message may or may not arrive.
    async fn call(&self, peer: &Peer, message: Message) -> Result<Bytes, LinkError>;

    /// Brings messages to a peer in their order, and their answers back in the same order, without
    /// waiting for one before the next. Within a stream nothing is lost, repeated or reordered: where
    /// that cannot be kept up, it ends with an error. The caller bounds how many have no answer yet, and
    /// sets the time limits. This one calls with one after the other: what a link of few messages needs.
    ///
    /// # Errors
    /// [`LinkError`] as the last item, also when the peer cannot be reached to begin with; of the
    /// messages without an answer nothing is known. The caller opens another stream.
    ///
    /// # Cancellation
    /// Safe: dropping the answers ends the stream on both sides, and so does the end of the messages once
    /// they are answered.
    fn stream<'a>(
        &'a self,
        peer: &Peer,
        messages: BoxStream<'static, Message>,
    ) -> BoxStream<'a, Result<Bytes, LinkError>> {
        let peer = peer.clone();
        let next = move |messages: Option<BoxStream<'static, Message>>| {
            let peer = peer.clone();
            async move {
                let mut messages = messages?;
                let answer = self.call(&peer, messages.next().await?).await;
                let more = answer.is_ok().then_some(messages);
                Some((answer, more))
            }
        };
        stream::unfold(Some(messages), next).boxed()
    }
}

/// Why a message was not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The peer cannot be reached, and has not got the message. Raft tries again with pauses.
    #[error("manager {raft_id} at {address} cannot be reached: {reason}")]
    Unreachable {
        /// The peer.
        raft_id: u64,
        /// Where it was looked for.
        address: String,
        /// Why.
        reason: String,
    },
    /// The message may have arrived, but no answer came.
    #[error("the manager did not answer: {0}")]
    Unanswered(String),
    /// The peer does not answer: it stops, or does not take messages from this manager.
    #[error("the manager cannot answer: {0}")]
    Refused(String),
    /// The bytes are not a message of a version that this one knows.
    #[error("the message cannot be read: {0}")]
    Malformed(String),
}

/// The link of a manager that has no peers.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoPeers;

#[async_trait]
impl RaftLink for NoPeers {
    async fn call(&self, peer: &Peer, _: Message) -> Result<Bytes, LinkError> {
        let Peer { raft_id, address } = peer.clone();
        let reason = "this manager has no link to others".to_owned();
        Err(LinkError::Unreachable { raft_id, address, reason })
    }
}

/// Managers inside one process that reach each other directly: for tests and for embedders who
/// run a whole cluster in a process. Connections can be cut, one direction at a time.
#[derive(Clone, Default)]
pub struct LocalLinks {
    shared: Arc<Mutex<Local>>,
}

#[derive(Default)]
struct Local {
    stores: BTreeMap<u64, Weak<RaftStore>>,
    cut: BTreeSet<(u64, u64)>,
}

impl LocalLinks {
    /// The link for the manager with this id, to open its store with.
    #[must_use]
    pub fn link(&self, raft_id: u64) -> Arc<dyn RaftLink> {
        Arc::new(LocalLink { from: raft_id, links: self.clone() })
    }

    /// Makes an open store reachable; a store with the same id takes an earlier one's place.
    pub fn join(&self, store: &Arc<RaftStore>) {
        self.local().stores.insert(store.raft_id(), Arc::downgrade(store));
    }

    /// Loses every message from one manager to another, answers included, from now on.
    pub fn cut(&self, from: u64, to: u64) {
        self.local().cut.insert((from, to));
    }

    /// Loses nothing any more.
    pub fn heal(&self) {
        self.local().cut.clear();
    }

    fn local(&self) -> std::sync::MutexGuard<'_, Local> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reach(&self, from: u64, to: u64) -> Result<Arc<RaftStore>, String> {
        let local = self.local();
        if local.cut.contains(&(from, to)) {
            return Err("the connection is cut".to_owned());
        }
        let store = local.stores.get(&to).and_then(Weak::upgrade);
        store.ok_or_else(|| "no such manager is in this process".to_owned())
    }
}

struct LocalLink {
    from: u64,
    links: LocalLinks,
}

impl LocalLink {
    fn reach(&self, peer: &Peer) -> Result<Arc<RaftStore>, LinkError> {
        self.links.reach(self.from, peer.raft_id).map_err(|reason| {
            let Peer { raft_id, address } = peer.clone();
            LinkError::Unreachable { raft_id, address, reason }
        })
    }
}

#[async_trait]
impl RaftLink for LocalLink {
    async fn call(&self, peer: &Peer, message: Message) -> Result<Bytes, LinkError> {
        let store = self.reach(peer)?;
        let answer = store.receive(message).await;
        self.links.reach(peer.raft_id, self.from).map_err(LinkError::Unanswered)?;
        answer
    }

    fn stream<'a>(
        &'a self,
        peer: &Peer,
        messages: BoxStream<'static, Message>,
    ) -> BoxStream<'a, Result<Bytes, LinkError>> {
        let store = match self.reach(peer) {
            Ok(store) => store,
            Err(error) => return stream::once(std::future::ready(Err(error))).boxed(),
        };
        let (from, to, links) = (self.from, peer.raft_id, self.links.clone());
        let arrive = move |message| links.reach(from, to).map(|_| message);
        let messages = messages.map(arrive).map(|arrived| arrived.map_err(LinkError::Unanswered));
        let return_way = move |answer| {
            self.links.reach(to, from).map_err(LinkError::Unanswered)?;
            answer
        };
        store.receive_stream(messages.boxed()).map(return_way).boxed()
    }
}
