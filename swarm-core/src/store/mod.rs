//! The store: every fact of the cluster, in one place, with one history.
//!
//! A [`Store`] holds immutable [`Snapshot`]s that cost nothing to take, takes [`Batch`]es that
//! are applied as a whole or not at all, and tells every [`Watch`] what changed, in order.
//!
//! # The contract
//!
//! What every implementation promises, and what `conformance::store` checks:
//!
//! 1. **Atomic.** A batch is applied entirely, in order, or not at all; a snapshot never shows
//!    half of one.
//! 2. **Optimistic.** [`Change::Update`] and [`Change::Remove`] name the object's revision as the
//!    writer read it; if the stored one differs, the batch fails with [`CommitError::Conflict`]
//!    and nothing changed. [`Change::Advance`] and [`Change::Desire`] never conflict: they move
//!    a task's observed or desired state forward and are ignored, silently, where they would move
//!    it back or where the task is gone.
//! 3. **Ordered.** Every commit has the next [`Version`]. Objects carry the version of the commit
//!    that last touched them as `revision`, and as `version` the one that last changed what a
//!    client sees of their specification.
//! 4. **Acknowledged means kept.** When `commit` returns `Ok`, the change survives whatever the
//!    implementation promises to survive. When it returns [`CommitError::Unknown`], or is dropped
//!    before it returns, the change may or may not happen: re-read, never assume.
//! 5. **Watched exactly once.** A watch from version `v` yields every commit after `v` once and in
//!    order, or says [`Lagged`] and nothing more.
//! 6. **Fenced.** A batch with an epoch commits only while the store leads in that very epoch.
//! 7. **Names are unique** per kind, among objects that are not marked for removal.

mod audit;
mod batch;
mod group;
mod index;
mod layered;
mod lists;
mod memo;
mod memory;
mod tables;
mod tasks;
#[cfg(test)]
mod tests;
mod watch;

use async_trait::async_trait;

pub use audit::{Wrong, audit};
pub use batch::{Batch, Change, Event, Object, ObjectRef};
pub use index::Kind;
pub use memo::Touched;
pub use memory::MemoryStore;
pub use tables::{Mark, Snapshot, Staged, Table};
pub use tasks::TaskTable;
pub use watch::{Commit, History, Lagged, Watch};

use crate::model::{TaskId, Version};

/// A leadership term. Grows with every change of leader; never repeats.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(pub u64);

/// Who leads, as this store knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Leadership {
    /// Nobody that this store knows of: writes fail with [`CommitError::NoLeader`].
    #[default]
    None,
    /// This store leads; what it decides must carry this epoch.
    Leader(Epoch),
    /// Another store leads, reachable at this address.
    Follower {
        /// Where the leader listens.
        leader: String,
    },
}

impl Leadership {
    /// The epoch, while this store leads.
    #[must_use]
    pub fn epoch(&self) -> Option<Epoch> {
        match self {
            Self::Leader(epoch) => Some(*epoch),
            _ => None,
        }
    }
}

/// Holds every fact of the cluster. See the [module](self) for the contract.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The present state, immutable, in constant time.
    fn snapshot(&self) -> Snapshot;

    /// Every commit after `after`, exactly once and in order, or [`Lagged`].
    fn watch(&self, after: Version) -> Watch;

    /// Who leads; the receiver sees every change of epoch, though not every value in between.
    fn leadership(&self) -> tokio::sync::watch::Receiver<Leadership>;

    /// Applies a batch as a whole or not at all, and returns the version that it became. An empty
    /// batch returns the present version. A store that does not lead may have the leader commit a
    /// batch that carries no epoch, and then has applied it itself when it returns.
    ///
    /// # Errors
    /// See [`CommitError`]; each says what to do next.
    ///
    /// # Cancellation
    /// Dropping the future leaves the outcome unknown.
    async fn commit(&self, batch: Batch) -> Result<Version, CommitError>;

    /// Returns once this store has applied every write that was acknowledged anywhere before the
    /// call: a snapshot taken afterwards is linearizable.
    ///
    /// # Errors
    /// [`CommitError::NoLeader`] or [`CommitError::Unknown`] when that cannot be established.
    async fn barrier(&self) -> Result<(), CommitError>;
}

impl dyn Store + '_ {
    /// Waits until the state is as wanted, and returns it: for tests, scripts and embedders that
    /// want to go on once their service runs. Looks at every state that it can, though not at
    /// each: of commits in quick succession it may see only the last. Bound it by a timeout.
    ///
    /// # Cancellation
    /// Safe: it only reads.
    pub async fn until(&self, done: impl Fn(&Snapshot) -> bool) -> Snapshot {
        loop {
            let view = self.snapshot();
            if done(&view) {
                return view;
            }
            // Whether a commit came or some were missed: there is a new state to look at.
            let _ = self.watch(view.version()).next().await;
        }
    }
}

/// Docker's word for a kind of objects. (Named, because serde would otherwise read it from bytes
/// that live for ever.)
pub type KindWord = &'static str;

/// Why a batch was not committed, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub enum CommitError {
    /// The object was changed since it was read. Read it again, decide again.
    #[error("{object} is at revision {stored}, not {expected}: read it again")]
    Conflict {
        /// The object.
        object: ObjectRef,
        /// The revision that the batch expected.
        expected: Version,
        /// The revision that is stored.
        stored: Version,
    },
    /// An object of that id exists. Use a new id.
    #[error("{0} already exists")]
    Exists(ObjectRef),
    /// An object of that kind has the name. Use another name.
    #[error("{kind} {name} already exists")]
    NameTaken {
        /// The kind, as Docker says it.
        #[serde(deserialize_with = "batch::kind")]
        kind: KindWord,
        /// The name.
        name: String,
    },
    /// The object is gone. Read again, decide again.
    #[error("{0} does not exist any more")]
    Missing(ObjectRef),
    /// The change would break a rule of the model. A bug in the writer: do not retry.
    #[error("task {task}: {reason}")]
    Illegal {
        /// The task.
        task: TaskId,
        /// Which rule.
        reason: String,
    },
    /// The batch is larger than one commit may be. Split it.
    #[error("the batch takes {bytes} bytes where a commit takes at most {limit}: split it")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The batch was decided in an epoch that is over. Drop it; the new leader decides.
    #[error("decided in epoch {0:?}, which is over")]
    StaleEpoch(Epoch),
    /// Another manager leads. Send the batch there.
    #[error("this manager does not lead: the leader is {leader}")]
    NotLeader {
        /// Where the leader listens.
        leader: String,
    },
    /// No manager leads. Try again later.
    #[error(
        "The swarm does not have a leader. It's possible that too few managers are online. Make sure more than half of the managers are online."
    )]
    NoLeader,
    /// The outcome is not known: it may have been committed. Read, then decide.
    #[error("the outcome of the write is unknown ({0}): read before you try again")]
    Unknown(String),
    /// The disk takes no more. Reads go on; writes work again once there is room.
    #[error("the write was refused, the store is read-only for now: {0}")]
    ReadOnly(String),
    /// The store has stopped.
    #[error("the store has stopped: {0}")]
    Stopped(String),
}
