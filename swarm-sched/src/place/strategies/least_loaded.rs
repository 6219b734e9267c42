//! Pure: the node that reports the least of something.

use crate::place::constraint::label_of;
use crate::place::{Candidate, Strategy};

/// Prefers the node that reports the lowest load: a whole number from 0 on in a label, which the
/// embedder keeps up to date (temperature, queue length, percent). A node without one, or with `0.7`,
/// comes after all others; of equals, the one with fewer tasks is preferred.
///
/// An `engine.labels.…` comes from what the node's executor says of it
/// ([`Executor::describe`](swarm_core::executor::Executor::describe), asked every 20 seconds), a
/// `node.labels.…` is set from outside (`docker node update --label-add`).
///
/// Between two reports each task of the service that is placed is taken to add `per_task`, so that not
/// all of them go to the node that was the best for an instant. It counts every task of that service on
/// the node, also those that the report has seen, and none of others: many small services that are
/// created at once all go to the same node, until the next report.
#[derive(Clone, Debug)]
pub struct LeastLoaded {
    label: String,
    per_task: u64,
}

impl LeastLoaded {
    /// Goes by the number in a label: `node.labels.NAME` or `engine.labels.NAME`.
    #[must_use]
    pub fn by(label: impl Into<String>, per_task: u64) -> Self {
        Self { label: label.into(), per_task }
    }
}

impl Default for LeastLoaded {
    /// By `engine.labels.load`, to which each task adds 1.
    fn default() -> Self {
        Self::by("engine.labels.load", 1)
    }
}

impl Strategy for LeastLoaded {
    type Score = (u32, u64, u64);

    fn score(&self, candidate: &Candidate<'_>) -> Self::Score {
        let reported = label_of(&candidate.load.node, &self.label);
        let reported = reported.and_then(|text| text.parse().ok()).unwrap_or(u64::MAX);
        let added = self.per_task.saturating_mul(candidate.tasks_of_service());
        (candidate.faults(), reported.saturating_add(added), candidate.load.active())
    }

    fn newcomers_alike(&self) -> bool {
        true
    }
}
