//! The members of the group: who they are, and how they change.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;

use openraft::errors::{ClientWriteError, InitializeError, RaftError};
use openraft::raft::Precondition;
use openraft::{BasicNode, ChangeMembers, Instant as _};
use openraft_rt::WatchReceiver as _;
use swarm_core::store::{Leadership, Store as _};

use crate::error::MemberError;
use crate::link::Peer;
use crate::store::RaftStore;
use crate::types::{Membership, Payload, Types};

/// How long a change of members may take: a new one has to be brought up to date first.
const PATIENCE: Duration = Duration::from_secs(60);

/// A member of the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Who and where.
    pub peer: Peer,
    /// Whether it votes; one that is being brought up to date does not yet.
    pub voter: bool,
    /// How long the leader has not heard from it. Known to the leader alone, and absent for itself
    /// and for those that it has not heard from yet.
    pub silent_for: Option<Duration>,
    /// The index of the last entry that it is known to have. Known to the leader alone.
    pub matched: Option<u64>,
}

/// What this manager knows of the group. Not linearizable: for people and metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RaftStatus {
    /// The present term.
    pub term: u64,
    /// The leader's id, if there is one.
    pub leader: Option<u64>,
    /// The index of the last entry in the log.
    pub last_log_index: Option<u64>,
    /// The index of the last entry that was applied.
    pub applied_index: Option<u64>,
    /// The index of the last entry in the snapshot.
    pub snapshot_index: Option<u64>,
    /// The index of the last entry that was purged from the log.
    pub purged_index: Option<u64>,
    /// Every member, in order of their ids.
    pub members: Vec<Member>,
}

impl RaftStore {
    /// Makes this manager, which listens at `address`, the first and only member of a new group,
    /// and returns once it leads. Succeeds at once where it is a member with that address already.
    ///
    /// # Errors
    /// [`MemberError::Initialized`] when it is part of another group.
    ///
    /// # Cancellation
    /// Dropping the future leaves the outcome unknown; call again.
    pub async fn initialize(&self, address: &str) -> Result<(), MemberError> {
        let node = BasicNode { addr: address.to_owned() };
        match self.raft.initialize(BTreeMap::from([(self.raft_id(), node)])).await {
            Ok(()) => {}
            Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {
                let own = Peer { raft_id: self.raft_id(), address: address.to_owned() };
                let known = self.status().members.iter().any(|member| member.peer == own);
                return if known { Ok(()) } else { Err(MemberError::Initialized) };
            }
            Err(RaftError::APIError(error)) => return Err(MemberError::Refused(error.to_string())),
            Err(RaftError::Fatal(fatal)) => return Err(MemberError::Stopped(fatal.to_string())),
        }
        let mut leadership = self.leadership();
        let leads = leadership.wait_for(|now| matches!(now, Leadership::Leader(_)));
        match tokio::time::timeout(PATIENCE, leads).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(MemberError::Stopped("it is shutting down".to_owned())),
            Err(_) => Err(MemberError::Timeout),
        }
    }

    /// Whether this manager is or was part of a group.
    ///
    /// # Errors
    /// [`MemberError::Stopped`].
    pub async fn is_initialized(&self) -> Result<bool, MemberError> {
        let initialized = self.raft.is_initialized().await;
        initialized.map_err(|fatal| MemberError::Stopped(fatal.to_string()))
    }

    /// What this manager knows of the group.
    #[must_use]
    pub fn status(&self) -> RaftStatus {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let voters: BTreeSet<u64> = metrics.membership_config.voter_ids().collect();
        let member = |(id, node): (&u64, &BasicNode)| Member {
            peer: Peer { raft_id: *id, address: node.addr.clone() },
            voter: voters.contains(id),
            silent_for: metrics
                .heartbeat
                .as_ref()
                .and_then(|heard| Some(heard.get(id)?.as_ref()?.elapsed())),
            matched: metrics
                .replication
                .as_ref()
                .and_then(|logs| Some(logs.get(id)?.as_ref()?.index)),
        };
        let members = metrics.membership_config.nodes().map(member);
        RaftStatus {
            term: metrics.current_term,
            leader: metrics.current_leader,
            last_log_index: metrics.last_log_index,
            applied_index: metrics.last_applied.map(|id| id.index),
            snapshot_index: metrics.snapshot.map(|id| id.index),
            purged_index: metrics.purged.map(|id| id.index),
            members: members.collect(),
        }
    }

    /// Admits a manager, whose store is open and empty: brings it up to date, then lets it vote.
    ///
    /// # Errors
    /// [`MemberError`]; after [`MemberError::Timeout`] it may be a member that does not vote.
    ///
    /// # Cancellation
    /// Dropping the future leaves the outcome unknown; call again.
    pub async fn add_member(&self, peer: &Peer) -> Result<(), MemberError> {
        let node = BasicNode { addr: peer.address.clone() };
        bounded(self.raft.add_learner(peer.raft_id, node, true)).await?;
        self.let_vote(peer.raft_id).await
    }

    /// Admits a manager that does not vote yet, without waiting until it is up to date: its
    /// [`Member::matched`] tells how far it is.
    ///
    /// # Errors, Cancellation
    /// As for [`add_member`](Self::add_member).
    pub async fn add_learner(&self, peer: &Peer) -> Result<(), MemberError> {
        let node = BasicNode { addr: peer.address.clone() };
        bounded(self.raft.add_learner(peer.raft_id, node, false)).await
    }

    /// Lets a member vote that was admitted before.
    ///
    /// # Errors, Cancellation
    /// As for [`add_member`](Self::add_member).
    pub async fn let_vote(&self, raft_id: u64) -> Result<(), MemberError> {
        self.agree(|voters, _| {
            voters.insert(raft_id);
        })
        .await
    }

    /// Says where a member listens now. It must be the same member, with its log.
    ///
    /// # Errors, Cancellation
    /// As for [`add_member`](Self::add_member).
    pub async fn relocate(&self, peer: &Peer) -> Result<(), MemberError> {
        let node = BasicNode { addr: peer.address.clone() };
        let moved = ChangeMembers::SetNodes(BTreeMap::from([(peer.raft_id, node)]));
        bounded(self.raft.change_membership(moved, true)).await
    }

    /// Says where a member was found that moved, to reach it there until the group agrees on another
    /// address. Without it a group of which a majority moved at once would have no leader, and could
    /// agree on nothing. Does nothing for who is not a member.
    ///
    /// Whoever is found must have proved who it is: raft's messages go there.
    pub fn found(&self, peer: &Peer) {
        self.addresses.found(peer);
    }

    /// Removes a manager from the group. One that is not a member is not an error.
    ///
    /// # Errors
    /// [`MemberError::Refused`] for the last voter, and for this manager while it leads: it
    /// [hands over](Self::transfer_leadership) first.
    ///
    /// # Cancellation
    /// Dropping the future leaves the outcome unknown; call again.
    pub async fn remove_member(&self, raft_id: u64) -> Result<(), MemberError> {
        let status = self.status();
        if status.members.iter().all(|member| member.peer.raft_id != raft_id) {
            return Ok(());
        }
        if raft_id == self.raft_id() && status.leader == Some(raft_id) {
            let text = "this manager leads: have another one lead first";
            return Err(MemberError::Refused(text.to_owned()));
        }
        self.agree(|voters, nodes| {
            voters.remove(&raft_id);
            nodes.remove(&raft_id);
        })
        .await
    }

    /// Has the group agree on other members, of whom at most one begins or ceases to vote, in one entry.
    /// A change in two steps (openraft's `change_membership`) would be left half done by a leader that
    /// is lost in between: decisions would need two majorities then, and whoever comes back to lead
    /// might itself have no place in the next change.
    async fn agree(
        &self,
        change: impl FnOnce(&mut BTreeSet<u64>, &mut BTreeMap<u64, BasicNode>),
    ) -> Result<(), MemberError> {
        let known = self.raft.metrics().borrow_watched().membership_config.clone();
        let mut voters = known.voter_ids().collect();
        let mut nodes = known.nodes().map(|(id, node)| (*id, node.clone())).collect();
        change(&mut voters, &mut nodes);
        let members = Membership::new(vec![voters], nodes);
        let members = members.map_err(|error| MemberError::Refused(error.to_string()))?;
        let since = Precondition::LastMembershipLogId { last_membership_log_id: *known.log_id() };
        bounded(self.raft.append_membership(members, Payload::Blank, [since])).await
    }
}

async fn bounded<T>(
    change: impl Future<Output = Result<T, RaftError<Types, ClientWriteError<Types>>>>,
) -> Result<(), MemberError> {
    let changed = tokio::time::timeout(PATIENCE, change).await;
    match changed.map_err(|_| MemberError::Timeout)? {
        Ok(_) => Ok(()),
        Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => Err(forward
            .leader_node
            .map_or(MemberError::NoLeader, |leader| MemberError::NotLeader(leader.addr))),
        Err(RaftError::APIError(error)) => Err(MemberError::Refused(error.to_string())),
        Err(RaftError::Fatal(fatal)) => Err(MemberError::Stopped(fatal.to_string())),
    }
}
