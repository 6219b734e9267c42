//! Pure: any node, as Swarm v1's `random`, but the same again for the same seed.

use crate::place::{Candidate, Strategy};

/// Places tasks anywhere. For experiments: whatever is cleverer should be better than this. The
/// numbers come from the ids of the service and of the node, and from a seed:
/// `StrategyScheduler::default().with("random", Random::new(7))`.
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
        let (service, node) = (candidate.service(), candidate.load.node.id);
        let ids = service.as_str().bytes().chain(node.as_str().bytes());
        let bytes = self.seed.to_le_bytes().into_iter().chain(ids).chain(nth.to_le_bytes());
        // 53 random bits: a number in (0, 1].
        #[allow(clippy::cast_precision_loss)]
        let uniform = ((hash(bytes) >> 11) + 1) as f64 / (1_u64 << 53) as f64;
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

/// FNV-1a with the last step of `SplitMix64`, which spreads it over all bits. Not the standard
/// library's hasher, whose numbers may be others in the next release of Rust.
fn hash(bytes: impl Iterator<Item = u8>) -> u64 {
    let step = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325, step);
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::hash;

    /// Experiments are repeated by their seed: another number here makes other experiments.
    #[test]
    fn draws_are_the_same_everywhere() {
        assert_eq!(hash(b"".iter().copied()), 0xf52a_15e9_a9b5_e89b);
        assert_eq!(hash(b"swarm".iter().copied()), 0x03cf_a65b_1ec3_376c);
    }
}
