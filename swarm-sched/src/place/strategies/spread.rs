//! Pure: Swarm's own strategy, spread (SwarmKit: `nodeLess` in `scheduler.go`).

use crate::place::{Candidate, Strategy};

/// Prefers nodes on which this version of the service did not keep failing, then those with the
/// fewest tasks of the service, then those with the fewest tasks. It counts tasks, not resources.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spread;

impl Strategy for Spread {
    type Score = (u32, u64, u64);

    fn score(&self, candidate: &Candidate<'_>) -> Self::Score {
        (candidate.faults(), candidate.tasks_of_service(), candidate.load.active())
    }

    fn newcomers_first(&self) -> bool {
        true
    }
}
