//! What a follower has its leader do: commit a batch, and say up to where a read has to see.

use std::time::Duration;

use bytes::Bytes;
use swarm_core::model::Version;
use swarm_core::store::{Batch, CommitError, Store};
use tokio::time::Instant;

use crate::link::{LinkError, Message, MessageKind, Peer};
use crate::network::malformed;
use crate::store::{PATIENCE, RaftStore};
use crate::{propose, wire};

/// How long to try where there is, or was, a leader.
pub(crate) const LEADER_WITHIN: Duration = Duration::from_secs(10);
/// The pause before a leader is looked for again.
const RETRY_AFTER: Duration = Duration::from_millis(20);

impl RaftStore {
    /// Has the leader commit a batch, and waits until it is applied here. What certainly did not
    /// happen, for the leader changed or could not be reached, is tried again for so long.
    pub(crate) async fn forward(
        &self,
        batch: Batch,
        patience: Duration,
    ) -> Result<Version, CommitError> {
        let body = Bytes::from(propose::encode(&batch)?);
        let until = Instant::now() + patience;
        loop {
            match self.offer(&batch, body.clone()).await {
                Err(CommitError::NoLeader | CommitError::NotLeader { .. }) => {}
                decided => return decided,
            }
            if Instant::now() >= until {
                return Err(CommitError::NoLeader);
            }
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }

    /// Offers a batch to whoever leads now. [`CommitError::NoLeader`] and
    /// [`CommitError::NotLeader`] say that nothing can have happened.
    async fn offer(&self, batch: &Batch, body: Bytes) -> Result<Version, CommitError> {
        let leader = self.leader().ok_or(CommitError::NoLeader)?;
        if leader.raft_id == self.raft_id() {
            return self.commit_here(batch.clone()).await;
        }
        let answer = self.ask(&leader, MessageKind::Commit, body, PATIENCE).await;
        let answer = answer.map_err(|error| match error {
            LinkError::Unreachable { .. } => CommitError::NoLeader,
            error => CommitError::Unknown(error.to_string()),
        })?;
        let version = answer_to_commit(&answer)?;
        self.has_applied(version).await;
        Ok(version)
    }

    /// Answers [`forward`](Self::forward) on the other side.
    pub(crate) async fn commit_for_another(&self, body: &[u8]) -> Result<Bytes, LinkError> {
        let batch: Batch = wire::decode(body).map_err(malformed)?;
        // Only a leader's own decisions carry an epoch.
        let batch = Batch { epoch: None, ..batch };
        Ok(wire::encode(&self.commit_here(batch).await).into())
    }

    /// The index up to which a linearizable read has to see, by the leader's word: by the next one's
    /// where one is being elected.
    pub(crate) async fn read_index(&self) -> Result<u64, CommitError> {
        let until = Instant::now() + self.election_takes();
        loop {
            match self.told_read_index().await {
                Err(CommitError::NoLeader | CommitError::Unknown(_)) if Instant::now() < until => {
                    tokio::time::sleep(RETRY_AFTER).await;
                }
                told => return told,
            }
        }
    }

    async fn told_read_index(&self) -> Result<u64, CommitError> {
        if let Some(index) = self.own_read_index().await {
            return Ok(index);
        }
        let unknown = |reason: String| CommitError::Unknown(reason);
        let leader = self.leader().filter(|peer| peer.raft_id != self.raft_id());
        let leader = leader.ok_or(CommitError::NoLeader)?;
        let answer =
            self.ask(&leader, MessageKind::ReadIndex, Bytes::new(), self.config.election).await;
        let answer = answer.map_err(|error| unknown(error.to_string()))?;
        let answer: wire::ReadIndex =
            wire::decode(&answer).map_err(|bad| unknown(bad.to_string()))?;
        answer.index.ok_or(CommitError::NoLeader)
    }

    /// Answers [`read_index`](Self::read_index) on the other side.
    pub(crate) async fn tell_read_index(&self) -> Bytes {
        wire::encode(&wire::ReadIndex { index: self.own_read_index().await }).into()
    }

    async fn own_read_index(&self) -> Option<u64> {
        let read = self.raft.get_read_log_id(openraft::ReadPolicy::ReadIndex).await;
        read.ok().map(|(id, _)| id.log_id().index)
    }

    fn leader(&self) -> Option<Peer> {
        let status = self.status();
        let members = status.members.into_iter().map(|member| member.peer);
        let leader = members.into_iter().find(|peer| Some(peer.raft_id) == status.leader)?;
        Some(self.addresses.present(&leader))
    }

    async fn ask(
        &self,
        peer: &Peer,
        kind: MessageKind,
        body: Bytes,
        within: Duration,
    ) -> Result<Bytes, LinkError> {
        let call = tokio::time::timeout(within, self.link.call(peer, Message { kind, body }));
        let silent = |_| LinkError::Unanswered(format!("no answer came within {within:?}"));
        call.await.map_err(silent)?
    }

    /// A write that was acknowledged here can be read here.
    async fn has_applied(&self, version: Version) {
        let state: &dyn Store = &*self.state;
        let applied = state.until(|view| view.version() >= version);
        let _ = tokio::time::timeout(PATIENCE, applied).await;
    }
}

fn answer_to_commit(answer: &[u8]) -> Result<Version, CommitError> {
    let bad = |bad: crate::record::BadRecord| CommitError::Unknown(bad.to_string());
    wire::decode::<Result<Version, CommitError>>(answer).map_err(bad)?
}
