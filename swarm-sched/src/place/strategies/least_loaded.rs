//! Pure: the node that reports the least of something.

use crate::place::constraint::label_of;
use crate::place::{Candidate, Strategy};

/// Prefers the node that reports the lowest load: a number in a label, such as
/// `engine.labels.load`, which the embedder keeps up to date (temperature, queue length, watts).
///
/// Between two reports each new task of a service is taken to add `per_task`, so that not all of
/// them go to the node that was the best for an instant. A node without a readable number comes
/// after all others; of equals, the one with fewer tasks is preferred.
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
