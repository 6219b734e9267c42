//! Packs batches that wait into one entry of the log, so that concurrent writers share its cost.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use openraft::errors::{ClientWriteError, ForwardReason, RaftError};
use swarm_core::model::Version;
use swarm_core::store::{Batch, CommitError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::types::{Outcome, Proposal, Raft, Types};

/// An entry's size at most, and so a batch's. SwarmKit's limit.
pub(crate) const ENTRY_BYTES: usize = 3 << 19;
/// Entries that may be under way at once. Two keep the disk busy (one is being synced while the
/// next is made); batches that come meanwhile gather for the one after.
const UNDER_WAY: usize = 2;
/// A leader that was just elected refuses writes until a majority has confirmed it.
const RETRY_AFTER: Duration = Duration::from_millis(20);
const RETRIES: usize = 50;

/// A batch's JSON.
///
/// # Errors
/// [`CommitError::TooLarge`].
pub(crate) fn encode(batch: &Batch) -> Result<Vec<u8>, CommitError> {
    let encoded = serde_json::to_vec(batch).expect("the model has a JSON form");
    match encoded.len() {
        bytes if bytes > ENTRY_BYTES => Err(CommitError::TooLarge { bytes, limit: ENTRY_BYTES }),
        _ => Ok(encoded),
    }
}

/// A batch that waits, with its JSON.
pub(crate) struct Pending {
    pub(crate) batch: Batch,
    pub(crate) encoded: Vec<u8>,
    pub(crate) done: oneshot::Sender<Result<Version, CommitError>>,
}

/// Proposes what comes, until the store is dropped.
pub(crate) async fn run(raft: Raft, mut pending: mpsc::Receiver<Pending>) {
    let permits = Arc::new(Semaphore::new(UNDER_WAY));
    let mut waiting = VecDeque::new();
    loop {
        if waiting.is_empty() {
            let Some(first) = pending.recv().await else { return };
            waiting.push_back(first);
        }
        let permit = permits.clone().acquire_owned().await.expect("it is never closed");
        while let Ok(next) = pending.try_recv() {
            waiting.push_back(next);
        }
        let (proposal, done) = pack(&mut waiting);
        tokio::spawn(propose(raft.clone(), proposal, done, permit));
    }
}

type Dones = Vec<oneshot::Sender<Result<Version, CommitError>>>;

/// Takes as many batches as fit into one entry, at least one.
fn pack(waiting: &mut VecDeque<Pending>) -> (Proposal, Dones) {
    let (mut batches, mut dones) = (Vec::new(), Vec::new());
    let mut encoded = vec![b'['];
    while let Some(next) = waiting.front()
        && (batches.is_empty() || encoded.len() + next.encoded.len() < ENTRY_BYTES)
    {
        let Some(Pending { batch, encoded: json, done }) = waiting.pop_front() else { break };
        if !batches.is_empty() {
            encoded.push(b',');
        }
        encoded.extend_from_slice(&json);
        batches.push(batch);
        dones.push(done);
    }
    encoded.push(b']');
    (Proposal { batches: batches.into(), encoded: encoded.into() }, dones)
}

async fn propose(raft: Raft, proposal: Proposal, dones: Dones, _permit: OwnedSemaphorePermit) {
    match write(&raft, proposal).await {
        Ok(outcome) => {
            for (done, result) in dones.into_iter().zip(outcome.results) {
                let _ = done.send(result);
            }
        }
        Err(error) => {
            for done in dones {
                let _ = done.send(Err(error.clone()));
            }
        }
    }
}

async fn write(raft: &Raft, proposal: Proposal) -> Result<Outcome, CommitError> {
    for _ in 0..RETRIES {
        match raft.client_write(proposal.clone()).await {
            Ok(response) => return Ok(response.data),
            Err(error) if not_yet(&error) => tokio::time::sleep(RETRY_AFTER).await,
            Err(error) => return Err(translate(error)),
        }
    }
    Err(CommitError::NoLeader)
}

type WriteError = RaftError<Types, ClientWriteError<Types>>;

/// Whether the entry was refused, for certain, for a reason that passes.
fn not_yet(error: &WriteError) -> bool {
    match error.api_error() {
        Some(ClientWriteError::ForwardToLeader(forward)) => {
            forward.reason == ForwardReason::LeaseExpired
        }
        _ => false,
    }
}

fn translate(error: WriteError) -> CommitError {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
            match forward.leader_node {
                Some(leader) => CommitError::NotLeader { leader: leader.addr },
                None => CommitError::NoLeader,
            }
        }
        RaftError::APIError(error) => CommitError::Unknown(error.to_string()),
        RaftError::Fatal(fatal) => CommitError::Stopped(fatal.to_string()),
    }
}
