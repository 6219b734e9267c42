//! Pure: the messages between managers, in an encoding of our own: JSON with named members, which
//! a version may add to, and after it the entries as they are on disk.

use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderError,
    TransferLeaderRequest, VoteRequest, VoteResponse,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::record::{BadRecord, decode_entries, encode_entry};
use crate::snapshot::Head;
use crate::types::{self, LogId, Types};

/// A position in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct At {
    term: u64,
    index: u64,
}

impl At {
    pub(crate) fn index(self) -> u64 {
        self.index
    }
}

impl From<LogId> for At {
    fn from(id: LogId) -> Self {
        Self { term: types::term(&id), index: id.index }
    }
}

impl From<At> for LogId {
    fn from(at: At) -> Self {
        Self::new_term_index(at.term, at.index)
    }
}

fn at(id: Option<LogId>) -> Option<At> {
    id.map(At::from)
}

fn log_id(at: Option<At>) -> Option<LogId> {
    at.map(LogId::from)
}

/// A vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Vote {
    term: u64,
    node: u64,
    committed: bool,
}

impl From<types::Vote> for Vote {
    fn from(vote: types::Vote) -> Self {
        let types::Vote { leader_id, committed } = vote;
        Self { term: leader_id.term, node: leader_id.voted_for, committed }
    }
}

impl From<Vote> for types::Vote {
    fn from(vote: Vote) -> Self {
        let Vote { term, node, committed } = vote;
        if committed { Self::new_committed(term, node) } else { Self::new(term, node) }
    }
}

/// The JSON of a message.
pub(crate) fn encode(message: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(message).expect("messages have a JSON form")
}

/// Reads the JSON of a message.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, BadRecord> {
    serde_json::from_slice(bytes).map_err(|error| BadRecord(error.to_string()))
}

/// JSON and bytes after it.
fn encode_with(head: &impl Serialize, tail: &[u8]) -> Vec<u8> {
    let head = encode(head);
    let mut bytes = Vec::with_capacity(4 + head.len() + tail.len());
    let len = u32::try_from(head.len()).expect("heads are small");
    bytes.extend_from_slice(&len.to_le_bytes());
    bytes.extend_from_slice(&head);
    bytes.extend_from_slice(tail);
    bytes
}

fn decode_with<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, &[u8]), BadRecord> {
    let short = || BadRecord("it ends too early".to_owned());
    let (len, rest) = bytes.split_first_chunk::<4>().ok_or_else(short)?;
    let len = u32::from_le_bytes(*len) as usize;
    let (head, tail) = rest.split_at_checked(len).ok_or_else(short)?;
    Ok((decode(head)?, tail))
}

#[derive(Serialize, Deserialize)]
struct AppendHead {
    vote: Vote,
    previous: Option<At>,
    commit: Option<At>,
}

pub(crate) fn encode_append(rpc: &AppendEntriesRequest<Types>) -> Vec<u8> {
    let (previous, commit) = (at(rpc.prev_log_id), at(rpc.leader_commit));
    let mut entries = Vec::new();
    for entry in &rpc.entries {
        encode_entry(entry, &mut entries);
    }
    encode_with(&AppendHead { vote: rpc.vote.into(), previous, commit }, &entries)
}

pub(crate) fn decode_append(bytes: &[u8]) -> Result<AppendEntriesRequest<Types>, BadRecord> {
    let (head, entries): (AppendHead, _) = decode_with(bytes)?;
    Ok(AppendEntriesRequest {
        vote: head.vote.into(),
        prev_log_id: log_id(head.previous),
        entries: decode_entries(entries)?,
        leader_commit: log_id(head.commit),
    })
}

/// The answer to entries.
#[derive(Serialize, Deserialize)]
pub(crate) enum Appended {
    All,
    UpTo(Option<At>),
    Conflict,
    HigherVote(Vote),
}

impl From<AppendEntriesResponse<Types>> for Appended {
    fn from(response: AppendEntriesResponse<Types>) -> Self {
        match response {
            AppendEntriesResponse::Success => Self::All,
            AppendEntriesResponse::PartialSuccess(id) => Self::UpTo(at(id)),
            AppendEntriesResponse::Conflict => Self::Conflict,
            AppendEntriesResponse::HigherVote(vote) => Self::HigherVote(vote.into()),
        }
    }
}

impl From<Appended> for AppendEntriesResponse<Types> {
    fn from(appended: Appended) -> Self {
        match appended {
            Appended::All => Self::Success,
            Appended::UpTo(at) => Self::PartialSuccess(log_id(at)),
            Appended::Conflict => Self::Conflict,
            Appended::HigherVote(vote) => Self::HigherVote(vote.into()),
        }
    }
}

/// The request for a vote, and the question whether it would be granted.
#[derive(Serialize, Deserialize)]
pub(crate) struct Canvass {
    vote: Vote,
    last: Option<At>,
    #[serde(default)]
    transfer: bool,
}

impl From<VoteRequest<Types>> for Canvass {
    fn from(rpc: VoteRequest<Types>) -> Self {
        let transfer = rpc.leadership_transfer;
        Self { vote: rpc.vote.into(), last: at(rpc.last_log_id), transfer }
    }
}

impl From<Canvass> for VoteRequest<Types> {
    fn from(canvass: Canvass) -> Self {
        let mut rpc = Self::new(canvass.vote.into(), log_id(canvass.last));
        rpc.leadership_transfer = canvass.transfer;
        rpc
    }
}

/// The answer to a request for a vote.
#[derive(Serialize, Deserialize)]
pub(crate) struct Ballot {
    vote: Vote,
    granted: bool,
    last: Option<At>,
}

impl From<VoteResponse<Types>> for Ballot {
    fn from(response: VoteResponse<Types>) -> Self {
        let (granted, last) = (response.vote_granted, at(response.last_log_id));
        Self { vote: response.vote.into(), granted, last }
    }
}

impl From<Ballot> for VoteResponse<Types> {
    fn from(ballot: Ballot) -> Self {
        Self::new(types::Vote::from(ballot.vote), log_id(ballot.last), ballot.granted)
    }
}

/// Where a part of a snapshot belongs. Parts are sent in order, one at a time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PartHead {
    /// The leader that sends it.
    pub(crate) vote: Vote,
    /// The snapshot that it is a part of.
    pub(crate) head: Head,
    /// Its number, from 0.
    pub(crate) part: u64,
    /// Whether it is the last.
    pub(crate) last: bool,
}

pub(crate) fn encode_part(head: &PartHead, objects: &[u8]) -> Vec<u8> {
    encode_with(head, objects)
}

pub(crate) fn decode_part(bytes: &[u8]) -> Result<(PartHead, &[u8]), BadRecord> {
    decode_with(bytes)
}

/// The answer to the part of a snapshot.
#[derive(Serialize, Deserialize)]
pub(crate) struct PartTaken {
    /// Present once the snapshot is installed, or refused because of a newer leader.
    pub(crate) done: Option<Vote>,
}

impl PartTaken {
    pub(crate) fn done(response: &SnapshotResponse<Types>) -> Self {
        Self { done: Some(response.vote.into()) }
    }
}

/// The request to take the lead.
#[derive(Serialize, Deserialize)]
pub(crate) struct Handover {
    from: Vote,
    to: u64,
    last: Option<At>,
}

impl From<TransferLeaderRequest<Types>> for Handover {
    fn from(rpc: TransferLeaderRequest<Types>) -> Self {
        let last = at(rpc.last_log_id().copied());
        Self { from: (*rpc.from_leader()).into(), to: *rpc.to_node_id(), last }
    }
}

impl From<Handover> for TransferLeaderRequest<Types> {
    fn from(handover: Handover) -> Self {
        Self::new(handover.from.into(), handover.to, log_id(handover.last))
    }
}

/// The answer to the request to take the lead.
#[derive(Serialize, Deserialize)]
pub(crate) enum Taken {
    Yes,
    OtherVote { expected: Vote, actual: Vote },
    NotFlushed { expected: Option<At>, actual: Option<At> },
}

impl From<Result<(), TransferLeaderError<Types>>> for Taken {
    fn from(result: Result<(), TransferLeaderError<Types>>) -> Self {
        match result {
            Ok(()) => Self::Yes,
            Err(TransferLeaderError::VoteChanged { expected, actual }) => {
                Self::OtherVote { expected: expected.into(), actual: actual.into() }
            }
            Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
                Self::NotFlushed { expected: at(expected), actual: at(actual) }
            }
        }
    }
}

impl From<Taken> for Result<(), TransferLeaderError<Types>> {
    fn from(taken: Taken) -> Self {
        match taken {
            Taken::Yes => Ok(()),
            Taken::OtherVote { expected, actual } => Err(TransferLeaderError::VoteChanged {
                expected: expected.into(),
                actual: actual.into(),
            }),
            Taken::NotFlushed { expected, actual } => Err(TransferLeaderError::LogNotFlushed {
                expected: log_id(expected),
                actual: log_id(actual),
            }),
        }
    }
}

/// The index up to which a linearizable read has to see; absent where the asked does not lead.
#[derive(Serialize, Deserialize)]
pub(crate) struct ReadIndex {
    pub(crate) index: Option<u64>,
}
