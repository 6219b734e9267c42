//! Pure: any node, as Swarm v1's `random`, but the same again for the same seed.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use crate::place::{Candidate, Strategy};

/// Places tasks anywhere. For experiments: whatever is cleverer should be better than this.
///
/// How one score for each node gives independent draws: each task on a node takes a random time
/// (exponentially distributed), and the next task goes to the node that is through first. Such
/// waiting has no memory, so that each task goes to each node with the same probability. A node
/// that lost tasks since is somewhat more likely to get the next.
#[derive(Clone, Copy, Debug, Default)]
pub struct Random {
    seed: u64,
}

impl Random {
    /// Draws by a seed. Each service has draws of its own.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// How long the `nth` task of the service takes on the node.
    fn wait(self, candidate: &Candidate<'_>, nth: u64) -> f64 {
        let mut hasher = DefaultHasher::new();
        (self.seed, candidate.service(), candidate.load.node.id, nth).hash(&mut hasher);
        // 53 random bits: a number in (0, 1].
        #[allow(clippy::cast_precision_loss)]
        let uniform = ((hasher.finish() >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        -uniform.ln()
    }
}

impl Strategy for Random {
    type Score = (u32, u64);

    fn score(&self, candidate: &Candidate<'_>) -> Self::Score {
        let through: f64 =
            (0..=candidate.tasks_of_service()).map(|nth| self.wait(candidate, nth)).sum();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let micros = (through * 1e6) as u64;
        (candidate.faults(), micros)
    }
}
