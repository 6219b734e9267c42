//! Decides how a cluster goes on when most of its managers are gone for good, with what one of them
//! has.
//!
//! A group that begins anew is another one than the group that was lost, and must never be taken
//! for it: its only member has a raft id that was never used, and its terms begin far above all
//! that the lost group can ever come to. The upper half of a term is the *recovery epoch*; it
//! grows by one each time. Members of the lost group that turn up again address a raft id that is
//! gone, and are not in the new group's membership; whoever follows managers (agents do) keeps to
//! the highest epoch that it has seen.

use std::collections::{BTreeMap, BTreeSet};

use openraft::BasicNode;
use swarm_core::store::Epoch;

use crate::config::RaftConfig;
use crate::error::OpenError;
use crate::keys::DataKeys;
use crate::link::Peer;
use crate::log::AtRest;
use crate::record::{Base, Record};
use crate::snapshot::{Image, Snapshots};
use crate::store::{RaftStore, lock_dir};
use crate::types::{Entry, LogId, Membership, Payload, Vote, term};

/// Terms of one recovery epoch.
pub(crate) const EPOCH_BITS: u32 = 32;

/// How often the group of a leadership epoch was begun anew. Whoever has followed a manager of one
/// recovery epoch must not follow one of a lower epoch: that is a member of a group that was given up.
#[must_use]
pub const fn recovery_epoch(epoch: Epoch) -> u64 {
    epoch.0 >> EPOCH_BITS
}

/// A group that was begun anew.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovered {
    /// Its recovery epoch.
    pub epoch: u64,
    /// The members of the group that was given up, as far as this member knew them.
    pub former: Vec<Peer>,
}

impl RaftStore {
    /// Begins a group anew with the store in the directory of `config`, which must not be open: it
    /// keeps every object, and `config.raft_id`, which must never have been used, listening at
    /// `address`, becomes its only member. Every write that this member was ever told of is kept,
    /// acknowledged or not. [Open](Self::open) it with the same configuration afterwards.
    ///
    /// Only for a group that has lost its majority for good: what other members have and this one
    /// has not is given up. Empty their directories before they come near the new group.
    ///
    /// Doing it again with the same id changes nothing more, so whoever keeps the id before the
    /// call can repeat it after a crash.
    ///
    /// # Errors
    /// [`OpenError`]; the group is as it was, or has begun anew.
    pub async fn force_new_cluster(
        config: &RaftConfig,
        address: &str,
    ) -> Result<Recovered, OpenError> {
        let (config, address) = (config.clone(), address.to_owned());
        blocking(move || force(&config, &address)).await
    }
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, OpenError> + Send + 'static,
) -> Result<T, OpenError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(OpenError::Raft(error.to_string())))
}

fn force(config: &RaftConfig, address: &str) -> Result<Recovered, OpenError> {
    let (disk, dir) = (&config.disk, config.dir.as_path());
    let _lock = lock_dir(config)?;
    let keys = DataKeys::load(disk.clone(), dir, false, config.seal.clone())?;
    let snapshots = Snapshots::open(disk.clone(), dir, keys.clone())?;
    let log = AtRest::read(&**disk, dir, &keys)?;
    let image = snapshots.current();
    let known = memberships(&log, image.as_ref());
    let last = log.memory.last().max(image.and_then(|image| image.meta.last_log_id));
    let (Some(last), Some(present)) = (last, known.last()) else {
        return Err(OpenError::Nothing(dir.to_owned()));
    };
    let (former, own) = (peers(present), config.raft_id);
    let terms = [log.memory.vote.map(|vote| vote.leader_id.term), Some(term(&last))];
    let newest = terms.into_iter().flatten().max().unwrap_or(0);
    let alone = present.voter_ids().eq([own]) && former.len() == 1;
    if log.raft_id == Some(own) && alone && former[0].address == address {
        return Ok(Recovered { epoch: newest >> EPOCH_BITS, former });
    }
    let used = known.iter().any(|members| members.nodes().any(|(id, _)| *id == own));
    if used {
        return Err(OpenError::UsedId(own));
    }
    // The log is of this id already if a crash came between the two writes below.
    let began = u64::from(log.raft_id != Some(own));
    let epoch = (newest >> EPOCH_BITS) + began;
    let first = epoch << EPOCH_BITS;
    let base = Base { raft_id: own, vote: Some(Vote::new(first, own)), purged: log.memory.purged };
    let log_id = LogId::new_term_index(first, last.index + 1);
    let payload = Payload::Membership(alone_in(own, address)?);
    log.go_on(&**disk, dir, &keys, &base, &[Record::Entry(Entry { log_id, payload })])?;
    Ok(Recovered { epoch, former })
}

/// Every membership that the store knows, the present one last.
fn memberships(log: &AtRest, image: Option<&Image>) -> Vec<Membership> {
    let mut known = Vec::new();
    let mut image = image;
    for entry in &log.memory.entries {
        let Payload::Membership(members) = &entry.payload else { continue };
        // Entries may lie before the snapshot.
        if let Some(before) = image.take_if(|image| image.meta.last_log_id < Some(entry.log_id)) {
            known.push(before.meta.last_membership.membership().clone());
        }
        known.push(members.clone());
    }
    known.extend(image.map(|image| image.meta.last_membership.membership().clone()));
    known
}

pub(crate) fn peers(members: &Membership) -> Vec<Peer> {
    let peer = |(id, node): (&u64, &BasicNode)| Peer { raft_id: *id, address: node.addr.clone() };
    members.nodes().map(peer).collect()
}

pub(crate) fn alone_in(raft_id: u64, address: &str) -> Result<Membership, OpenError> {
    let nodes = BTreeMap::from([(raft_id, BasicNode { addr: address.to_owned() })]);
    let alone = Membership::new(vec![BTreeSet::from([raft_id])], nodes);
    alone.map_err(|error| OpenError::Raft(error.to_string()))
}
