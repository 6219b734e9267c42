//! The types that the replicated log is made of. openraft's own stay inside this crate.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use openraft::alias::{EntryOf, LogIdOf, SnapshotMetaOf, StoredMembershipOf, VoteOf};
use openraft::impls::leader_id_std;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use swarm_core::model::Version;
use swarm_core::store::{Batch, CommitError};

openraft::declare_raft_types!(
    /// What openraft is told about us. Leader ids are the standard ones: a term has one leader,
    /// so that the term can serve as the leadership epoch.
    pub(crate) Types:
        D = Proposal,
        R = Outcome,
        LeaderId = leader_id_std::LeaderId<u64, u64>,
        AsyncRuntime = openraft_rt_tokio::TokioRuntime,
);

pub(crate) type Entry = EntryOf<Types>;
pub(crate) type LogId = LogIdOf<Types>;
pub(crate) type Vote = VoteOf<Types>;
pub(crate) type StoredMembership = StoredMembershipOf<Types>;
pub(crate) type Membership = openraft::Membership<u64, openraft::BasicNode>;
pub(crate) type Payload = openraft::alias::EntryPayloadOf<Types>;
pub(crate) type SnapshotMeta = SnapshotMetaOf<Types>;
pub(crate) type Raft = openraft::Raft<Types, crate::machine::Machine>;

/// The term of a log id.
pub(crate) fn term(id: &LogId) -> u64 {
    **id.committed_leader_id()
}

/// What one entry of the log carries: several batches, so that writers share its cost. Each is
/// applied, or refused, on its own. Clones share everything.
#[derive(Clone)]
pub(crate) struct Proposal {
    pub(crate) batches: Arc<[Batch]>,
    /// Their JSON: encoded once, for the disk and for every peer.
    pub(crate) encoded: Bytes,
}

impl Proposal {
    /// Reads the JSON of a proposal.
    pub(crate) fn decode(encoded: Bytes) -> Result<Self, serde_json::Error> {
        let batches: Vec<Batch> = serde_json::from_slice(&encoded)?;
        Ok(Self { batches: batches.into(), encoded })
    }
}

impl fmt::Debug for Proposal {
    /// Without content: batches may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} batches, {} bytes", self.batches.len(), self.encoded.len())
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl PartialEq for Proposal {
    fn eq(&self, other: &Self) -> bool {
        self.encoded == other.encoded
    }
}

// openraft asks for serde; our own encodings are in `record` and `wire`.
impl Serialize for Proposal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.batches.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Proposal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let batches = Vec::<Batch>::deserialize(deserializer)?;
        let encoded = serde_json::to_vec(&batches).map_err(de::Error::custom)?;
        Ok(Self { batches: batches.into(), encoded: encoded.into() })
    }
}

/// What became of each batch of a proposal. Never leaves the process that proposed it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    #[serde(skip)]
    pub(crate) results: Vec<Result<Version, CommitError>>,
}
