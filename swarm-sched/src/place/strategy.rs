//! Pure: which of the suitable nodes is the best.

use swarm_core::model::ServiceId;

use super::filter::Demand;
use super::load::NodeLoad;

/// From this many recent failures on, Swarm puts a node after all others.
pub const FAULTY_AFTER: u32 = 5;

/// A suitable node, and what a strategy may judge it by.
pub struct Candidate<'a> {
    /// The node with its tasks, those of this very decision included.
    pub load: &'a NodeLoad,
    /// What the task asks for.
    pub demand: &'a Demand<'a>,
    /// How often tasks of this version of the service failed on the node recently.
    pub failures: u32,
}

impl Candidate<'_> {
    /// The service that is placed.
    #[must_use]
    pub fn service(&self) -> ServiceId {
        self.demand.service
    }

    /// The recent failures once there are [`FAULTY_AFTER`] of them, before that none: what Swarm
    /// ranks by before anything else.
    #[must_use]
    pub fn faults(&self) -> u32 {
        if self.failures < FAULTY_AFTER { 0 } else { self.failures }
    }

    /// How many tasks of that service shall run on the node.
    #[must_use]
    pub fn tasks_of_service(&self) -> u64 {
        self.load.active_of(self.demand.service)
    }
}

/// Ranks suitable nodes. Behind [`FilterScheduler`](super::FilterScheduler), which filters and
/// follows placement preferences, a strategy is all that a new scheduler needs.
///
/// ```
/// use swarm_sched::place::{Candidate, FilterScheduler, Strategy};
/// /// Fills the fullest node that still has room.
/// struct Pack;
/// impl Strategy for Pack {
///     type Score = i64;
///     fn score(&self, candidate: &Candidate<'_>) -> i64 {
///         candidate.load.free_memory()
///     }
/// }
/// let scheduler = FilterScheduler::new(Pack);
/// ```
pub trait Strategy: Send + Sync + 'static {
    /// The rank of a node: the smallest wins, and of equals the smallest node id.
    type Score: Ord + Clone + Send;

    /// Ranks one node. Pure, and by this candidate alone: placing a task changes the score of its
    /// node and of no other.
    fn score(&self, candidate: &Candidate<'_>) -> Self::Score;

    /// Whether the strategy promises that a node without tasks of the service, and with fewer than
    /// [`FAULTY_AFTER`] failures, always ranks before every other, and among such nodes the one
    /// with fewer tasks ([`NodeLoad::active`]) before one with more, with nothing else that
    /// counts. Then such nodes are found in an index, and their score is not even asked for, so a
    /// decision does not grow with the number of nodes.
    fn newcomers_first(&self) -> bool {
        false
    }

    /// Whether the strategy promises that the score of a node without tasks of the service, and
    /// without failures of it, depends on the node and its load and on what the task reserves
    /// ([`Demand::reservation`]), and on nothing else: neither on the service nor on anything outside
    /// of the candidate. Then the order of such nodes is kept, and a decision does not grow with the
    /// number of nodes, once tasks that need as much were placed before.
    fn newcomers_alike(&self) -> bool {
        false
    }
}
