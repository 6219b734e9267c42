//! The control loop: planners decide, the controller orders their decisions, a shell commits them.
//!
//! A [`Planner`] is a pure function from a view of the store to a [`Plan`]. The [`Controller`]
//! keeps which keys are dirty for which planner and when to look again; it owns no facts, so a
//! new leader builds one, marks everything dirty, and carries on. [`run`] is the thin shell that
//! feeds it from a [`Store`](crate::store::Store) and a clock.

mod controller;
mod dirty;
mod retry;
mod run;
#[cfg(test)]
mod tests;

pub use controller::{CHANGES_PER_COMMIT, Controller, Step};
pub use retry::{RETRY_AFTER, Retry, SWEEP_EVERY};
pub use run::run;

use crate::id::IdSource;
use crate::model::{NetworkId, NodeId, ServiceId, TaskId};
use crate::store::{Change, Epoch, Event, Snapshot};
use crate::time::Timestamp;

/// What a planner looks at: the unit of being dirty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// The cluster as a whole.
    Cluster,
    /// One node.
    Node(NodeId),
    /// One network.
    Network(NetworkId),
    /// One service with its tasks.
    Service(ServiceId),
    /// One task.
    Task(TaskId),
}

/// What a decision may use beside its view: the time, new ids, the epoch it decides in, and how large
/// it may be.
pub struct Ctx<'a> {
    /// Now.
    pub now: Timestamp,
    /// New ids and tie-breaks; a seed fixes them in simulation.
    pub ids: &'a mut IdSource,
    /// The leadership epoch.
    pub epoch: Epoch,
    /// How many changes a plan may have: [`CHANGES_PER_COMMIT`], and fewer while these were more than
    /// the store takes at once. See [`Plan::is_full`].
    pub room: usize,
}

impl<'a> Ctx<'a> {
    /// For plans of the usual size.
    #[must_use]
    pub fn new(now: Timestamp, ids: &'a mut IdSource, epoch: Epoch) -> Self {
        Self { now, ids, epoch, room: CHANGES_PER_COMMIT }
    }
}

/// Why something was decided, or was not: logged by the shell, and kept in the objects' own
/// messages where a user should see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// What it is about.
    pub key: Key,
    /// The reason in words.
    pub text: String,
}

/// A decision.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// What to write. At most one change for each object.
    pub changes: Vec<Change>,
    /// Why.
    pub reasons: Vec<Reason>,
    /// When to look at this key again even if nothing changes.
    pub again_at: Option<Timestamp>,
    /// That a look at a view with these changes, and no other, would add nothing, not even an
    /// `again_at`: then there is none on their account. By default there is.
    pub settled: bool,
}

impl Plan {
    /// Nothing to do.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Adds a reason.
    pub fn because(&mut self, key: Key, text: impl Into<String>) {
        self.reasons.push(Reason { key, text: text.into() });
    }

    /// Whether the plan has as many changes as it may. If so it asks to look again now, for the rest.
    /// Ask before each decision of one or a few changes, and stop when it is; what belongs together
    /// stays together, whatever room there is for it.
    pub fn is_full(&mut self, ctx: &Ctx<'_>) -> bool {
        let full = self.changes.len() >= ctx.room;
        if full {
            self.look_again(ctx.now);
        }
        full
    }

    /// Asks to look again at `at`, or earlier if that was asked for before.
    pub fn look_again(&mut self, at: Timestamp) {
        self.again_at = Some(self.again_at.map_or(at, |earlier| earlier.min(at)));
    }
}

/// Decides one aspect of the cluster, key by key. The sixth trait for embedders: an autoscaler,
/// a cron service or a rebalancer is a planner.
///
/// # The contract
///
/// - **Pure.** `plan` depends on its arguments alone: no clock, no randomness of its own, no I/O,
///   no memory of earlier calls that would change its answer. Caches must be derived from the view.
/// - **Level-triggered.** It compares what is with what shall be; why it was called does not
///   matter. Called again on a view that holds its own plan, it plans nothing.
/// - **Complete.** `dirty` names every key whose plan an event might change. The controller also
///   sweeps over everything slowly, as a safety net, and on every change of leader.
/// - **Brief.** It plans for one key. What waits for time says so in `again_at`. A plan that may
///   grow with the cluster ends once it [is full](Plan::is_full), and goes on where it ended when
///   it is asked again.
/// - **Unwritten plans come back.** When a batch is not committed, the keys that it was planned for
///   are looked at again, and those that its changes made dirty.
pub trait Planner: Send + Sync + 'static {
    /// A short name, for logs.
    fn name(&self) -> &'static str;

    /// The keys that must be looked at because of an event.
    fn dirty(&self, event: &Event, keys: &mut Vec<Key>);

    /// Every key there is to look at, for a new leader and for the sweep.
    fn keys(&self, view: &Snapshot, keys: &mut Vec<Key>);

    /// What to do about one key. A key whose object is gone is not an error: plan nothing.
    fn plan(&self, view: &Snapshot, key: &Key, ctx: &mut Ctx<'_>) -> Plan;
}
