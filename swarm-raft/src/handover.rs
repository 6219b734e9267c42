//! Hands the lead to another member. What this leader has taken is answered before, and what comes
//! meanwhile is left to the next one: a planned change of leader leaves no write's outcome unknown.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use swarm_core::store::{CommitError, Leadership, Store as _};
use tokio::sync::{RwLock, RwLockReadGuard};

use crate::error::MemberError;
use crate::members::Member;
use crate::store::RaftStore;

impl RaftStore {
    /// Has another voter take the lead, and returns once this manager follows it.
    ///
    /// # Errors
    /// [`MemberError::Timeout`] when it still leads after two election timeouts.
    ///
    /// # Cancellation
    /// Safe: the transfer may or may not happen.
    pub async fn transfer_leadership(&self, to: u64) -> Result<(), MemberError> {
        let members = self.status().members;
        let next = members.into_iter().find(|member| member.peer.raft_id == to);
        let address = next.map(|member| member.peer.address).unwrap_or_default();
        let _given_way = self.way.give(address, self.config.election).await;
        let triggered = self.raft.trigger().transfer_leader(to).await;
        triggered.map_err(|fatal| MemberError::Stopped(fatal.to_string()))?;
        let mut leadership = self.leadership();
        let follows = leadership.wait_for(|now| matches!(now, Leadership::Follower { .. }));
        let _ = tokio::time::timeout(2 * self.config.election, follows).await;
        let leads = matches!(*self.leadership().borrow(), Leadership::Leader(_));
        if leads { Err(MemberError::Timeout) } else { Ok(()) }
    }

    /// Has the member lead that is most up to date, if this one leads and another can: before it
    /// stops, so that nobody has to notice its silence. Where the other is not elected, an election
    /// follows as after any loss.
    pub async fn hand_over(&self) {
        let (status, me) = (self.status(), self.raft_id());
        if status.leader != Some(me) {
            return;
        }
        let heard = |member: &&Member| {
            let answers = member.silent_for.is_some_and(|silence| silence < self.config.election);
            member.peer.raft_id != me && member.voter && answers
        };
        let next = status.members.iter().filter(heard).max_by_key(|member| member.matched);
        if let Some(next) = next {
            let _ = self.transfer_leadership(next.peer.raft_id).await;
        }
    }
}

/// The way of writes to the leader's log.
#[derive(Debug, Default)]
pub(crate) struct Way {
    /// Where the member listens that is to lead, while this one gives way.
    to: Mutex<Option<String>>,
    under_way: RwLock<()>,
}

impl Way {
    /// Lets a write pass; it is under way until the guard is dropped.
    ///
    /// # Errors
    /// [`CommitError::NotLeader`] while this leader gives way.
    pub(crate) fn pass(&self) -> Result<RwLockReadGuard<'_, ()>, CommitError> {
        let passes = self.under_way.try_read();
        match (&*self.to(), passes) {
            (None, Ok(passes)) => Ok(passes),
            (to, _) => Err(CommitError::NotLeader { leader: to.clone().unwrap_or_default() }),
        }
    }

    /// Lets nothing pass until the guard is dropped, and waits until nothing is under way, or for so
    /// long.
    async fn give(&self, to: String, patience: Duration) -> GivenWay<'_> {
        *self.to() = Some(to);
        let given = GivenWay(self);
        let _ = tokio::time::timeout(patience, self.under_way.write()).await;
        given
    }

    fn to(&self) -> MutexGuard<'_, Option<String>> {
        self.to.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct GivenWay<'a>(&'a Way);

impl Drop for GivenWay<'_> {
    fn drop(&mut self) {
        *self.0.to() = None;
    }
}
