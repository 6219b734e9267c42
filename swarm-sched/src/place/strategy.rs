//! Pure: which of the suitable nodes is the best.

use swarm_core::model::ServiceId;

use super::load::NodeLoad;

/// A suitable node, and what a strategy may judge it by.
pub struct Candidate<'a> {
    /// The node with its tasks, those of this very decision included.
    pub load: &'a NodeLoad,
    /// The service that is placed.
    pub service: ServiceId,
    /// How often tasks of this version of the service failed on the node recently.
    pub failures: u32,
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
    type Score: Ord;

    /// Ranks one node. Pure, and by this candidate alone: placing a task changes the score of its
    /// node and of no other.
    fn score(&self, candidate: &Candidate<'_>) -> Self::Score;
}
