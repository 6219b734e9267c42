//! What a manager says when it starts, so that an old copy of its state directory is found out.
//!
//! A member that has forgotten what it confirmed and voted could have the group lose what was
//! acknowledged. So each start has a number, kept in the directory before it is used and in the group's
//! state; whoever knows no start as late as the group does is an old copy, and any other manager
//! can tell, with a leader or without one. It is asked before the store is opened. Where none answers
//! the manager starts all the same, and asks on: a cluster must come up after a power cut.

use std::sync::Arc;
use std::time::Duration;

use swarm_core::id::IdSource;
use tracing::warn;

use super::{Membership, Node, status};
use crate::error::{ApiError, Code};
use crate::identity::Credentials;
use crate::manager::group::START_COUNT;
use crate::rpc::ManagerLink;
use crate::rpc::message::JoinGroup;

/// How long a start waits for another manager's word.
const WITHIN: Duration = Duration::from_secs(2);

/// The start after `last`: one more, and random below the count, so that two copies of one directory
/// say different ones.
fn next(last: u64) -> u64 {
    let count = (last >> START_COUNT) + 1;
    count << START_COUNT | IdSource::random().below(1 << START_COUNT)
}

/// Says it to whichever other manager answers.
///
/// # Errors
/// [`Code::FailedPrecondition`] for an old copy, anything else when nobody could tell.
pub(super) async fn say(
    membership: &Membership,
    credentials: &Arc<Credentials>,
) -> Result<(), ApiError> {
    let Membership { raft_id, start, heard_start, advertise, managers, .. } = membership;
    let others = managers.iter().filter(|addr| *addr != advertise).cloned().collect();
    let link = ManagerLink::new(credentials.clone(), others);
    let said =
        JoinGroup { raft_id: *raft_id, start: *start, before: *heard_start, ..Default::default() };
    link.join_group(said).await
}

impl Node {
    /// Begins a start of a manager.
    ///
    /// # Errors
    /// That the directory is an old copy, or cannot be written.
    pub(super) async fn begin_start(
        &self,
        membership: &mut Membership,
        credentials: &Arc<Credentials>,
    ) -> Result<(), ApiError> {
        if membership.start == membership.heard_start {
            membership.start = next(membership.start);
            self.keep(membership)?;
        }
        if membership.managers.iter().all(|addr| *addr == membership.advertise) {
            return Ok(());
        }
        match tokio::time::timeout(WITHIN, say(membership, credentials)).await {
            Ok(Ok(())) => {
                membership.heard_start = membership.start;
                self.keep(membership)
            }
            Ok(Err(error)) if error.code == Code::FailedPrecondition => Err(error),
            Ok(Err(error)) => {
                warn!(%error, "no other manager could say whether this state is the latest");
                Ok(())
            }
            Err(_) => {
                warn!("no other manager said in time whether this state is the latest");
                Ok(())
            }
        }
    }

    /// The group has heard of the present start.
    pub(super) async fn start_was_heard(&self) {
        let mut member = self.member.lock().await;
        let Some(member) = member.as_mut() else { return };
        let now = Membership { heard_start: member.membership.start, ..member.membership.clone() };
        match self.keep(&now) {
            Ok(()) => member.membership = now,
            Err(error) => warn!(%error, "the present start is said again with the next one"),
        }
    }

    fn keep(&self, membership: &Membership) -> Result<(), ApiError> {
        let kept = self.dir.remember(membership);
        kept.map_err(|error| status::local("the membership was not kept", error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_counted_and_two_copies_say_different_ones() {
        let first = next(0);
        assert_eq!(first >> START_COUNT, 1);
        assert_eq!(next(first) >> START_COUNT, 2);
        assert_ne!(next(first), next(first));
    }
}
