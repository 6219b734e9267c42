//! Pure: the records of the log, in an encoding of our own, so that what is on disk does not
//! depend on openraft's types. Numbers are little-endian; new kinds of records get new numbers.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use openraft::BasicNode;
use openraft::alias::VoteOf;
use serde::{Deserialize, Serialize};

use crate::types::{Entry, LogId, Membership, Payload, Proposal, Types, Vote, term};

/// One record of the log. Replaying all of them in order gives the log's state.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Record {
    /// The first record of every segment: what a replay that starts here has to know.
    Base(Base),
    /// For whom this member voted, or whom it follows.
    Vote(Vote),
    /// An entry.
    Entry(Entry),
    /// Every entry after this index is gone; without one, every entry.
    TruncateAfter(Option<u64>),
    /// Every entry up to this one is gone: a snapshot holds what they did.
    Purged(LogId),
    /// The store was shut down in order.
    Closed,
}

/// What a replay that starts with a segment has to know.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Base {
    /// Whose log it is.
    pub(crate) raft_id: u64,
    pub(crate) vote: Option<Vote>,
    pub(crate) purged: Option<LogId>,
}

const BASE: u8 = 1;
const VOTE: u8 = 2;
const BLANK: u8 = 3;
const BATCHES: u8 = 4;
const MEMBERSHIP: u8 = 5;
const TRUNCATE: u8 = 6;
const PURGED: u8 = 7;
const CLOSED: u8 = 8;

/// A record that cannot be read. In a frame whose seal is whole this means a newer version's
/// format, or a bug.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record cannot be read: {0}")]
pub(crate) struct BadRecord(pub(crate) String);

impl Record {
    /// Appends the record's bytes.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Base(base) => {
                out.push(BASE);
                put_u64(out, base.raft_id);
                put_option(out, base.vote.as_ref(), put_vote);
                put_option(out, base.purged.as_ref(), put_log_id);
            }
            Self::Vote(vote) => {
                out.push(VOTE);
                put_vote(out, vote);
            }
            Self::Entry(entry) => encode_entry(entry, out),
            Self::TruncateAfter(index) => {
                out.push(TRUNCATE);
                put_option(out, index.as_ref(), |out, index| put_u64(out, *index));
            }
            Self::Purged(id) => {
                out.push(PURGED);
                put_log_id(out, id);
            }
            Self::Closed => out.push(CLOSED),
        }
    }

    /// Reads every record of a frame.
    pub(crate) fn decode_all(bytes: &[u8]) -> Result<Vec<Self>, BadRecord> {
        let mut reader = Reader(bytes);
        let mut records = Vec::new();
        while !reader.0.is_empty() {
            records.push(reader.record()?);
        }
        Ok(records)
    }
}

/// Appends an entry's bytes: on disk a record, between managers a part of a message.
pub(crate) fn encode_entry(entry: &Entry, out: &mut Vec<u8>) {
    let (kind, bytes) = match &entry.payload {
        Payload::Blank => (BLANK, Bytes::new()),
        Payload::Normal(proposal) => (BATCHES, proposal.encoded.clone()),
        Payload::Membership(membership) => (MEMBERSHIP, Members::from(membership).encode()),
    };
    out.push(kind);
    put_log_id(out, &entry.log_id);
    put_u64(out, bytes.len() as u64);
    out.extend_from_slice(&bytes);
}

/// The members of the group as JSON has them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Members {
    /// The voters; two sets while one is exchanged for the other.
    pub(crate) configs: Vec<BTreeSet<u64>>,
    /// Every member's address.
    pub(crate) nodes: BTreeMap<u64, String>,
}

impl Members {
    fn encode(&self) -> Bytes {
        serde_json::to_vec(self).expect("numbers and strings have a JSON form").into()
    }
}

impl From<&Membership> for Members {
    fn from(membership: &Membership) -> Self {
        let nodes = membership.nodes().map(|(id, node)| (*id, node.addr.clone())).collect();
        Self { configs: membership.get_joint_config().clone(), nodes }
    }
}

impl TryFrom<Members> for Membership {
    type Error = BadRecord;

    fn try_from(members: Members) -> Result<Self, BadRecord> {
        let nodes: BTreeMap<u64, BasicNode> =
            members.nodes.into_iter().map(|(id, addr)| (id, BasicNode { addr })).collect();
        Self::new(members.configs, nodes).map_err(|error| BadRecord(error.to_string()))
    }
}

fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put_option<T>(out: &mut Vec<u8>, value: Option<&T>, put: impl Fn(&mut Vec<u8>, &T)) {
    out.push(u8::from(value.is_some()));
    if let Some(value) = value {
        put(out, value);
    }
}

fn put_log_id(out: &mut Vec<u8>, id: &LogId) {
    put_u64(out, term(id));
    put_u64(out, id.index);
}

fn put_vote(out: &mut Vec<u8>, vote: &VoteOf<Types>) {
    put_u64(out, vote.leader_id.term);
    put_u64(out, vote.leader_id.voted_for);
    out.push(u8::from(vote.committed));
}

/// Takes values from the front of a slice.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, len: u64) -> Result<&'a [u8], BadRecord> {
        let short = || BadRecord("it ends too early".to_owned());
        let len = usize::try_from(len).map_err(|_| short())?;
        let (taken, rest) = self.0.split_at_checked(len).ok_or_else(short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8, BadRecord> {
        Ok(self.bytes(1)?[0])
    }

    fn u64(&mut self) -> Result<u64, BadRecord> {
        Ok(u64::from_le_bytes(self.bytes(8)?.try_into().expect("8 bytes")))
    }

    fn option<T>(
        &mut self,
        read: impl Fn(&mut Self) -> Result<T, BadRecord>,
    ) -> Result<Option<T>, BadRecord> {
        if self.u8()? == 0 { Ok(None) } else { read(self).map(Some) }
    }

    fn log_id(&mut self) -> Result<LogId, BadRecord> {
        Ok(LogId::new_term_index(self.u64()?, self.u64()?))
    }

    fn vote(&mut self) -> Result<Vote, BadRecord> {
        let mut vote = Vote::new(self.u64()?, self.u64()?);
        vote.committed = self.u8()? != 0;
        Ok(vote)
    }

    fn entry(&mut self, kind: u8) -> Result<Entry, BadRecord> {
        let log_id = self.log_id()?;
        let len = self.u64()?;
        let bytes = self.bytes(len)?;
        let bad = |error: serde_json::Error| BadRecord(format!("entry {log_id}: {error}"));
        let payload = match kind {
            BLANK => Payload::Blank,
            BATCHES => {
                let encoded = Bytes::copy_from_slice(bytes);
                Payload::Normal(Proposal::decode(encoded).map_err(bad)?)
            }
            _ => {
                let members: Members = serde_json::from_slice(bytes).map_err(bad)?;
                Payload::Membership(members.try_into()?)
            }
        };
        Ok(Entry { log_id, payload })
    }

    fn record(&mut self) -> Result<Record, BadRecord> {
        Ok(match self.u8()? {
            BASE => Record::Base(Base {
                raft_id: self.u64()?,
                vote: self.option(Self::vote)?,
                purged: self.option(Self::log_id)?,
            }),
            VOTE => Record::Vote(self.vote()?),
            kind @ (BLANK | BATCHES | MEMBERSHIP) => Record::Entry(self.entry(kind)?),
            TRUNCATE => Record::TruncateAfter(self.option(Self::u64)?),
            PURGED => Record::Purged(self.log_id()?),
            CLOSED => Record::Closed,
            kind => return Err(BadRecord(format!("its kind is {kind}, from a newer version?"))),
        })
    }
}

/// Reads entries that follow one another.
pub(crate) fn decode_entries(bytes: &[u8]) -> Result<Vec<Entry>, BadRecord> {
    let records = Record::decode_all(bytes)?;
    let entries = records.into_iter().map(|record| match record {
        Record::Entry(entry) => Ok(entry),
        _ => Err(BadRecord("it is not an entry".to_owned())),
    });
    entries.collect()
}
