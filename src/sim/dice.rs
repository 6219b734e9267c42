//! Pure: the randomness of a simulation: a seeded generator with the few draws that it needs.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// A seeded source of chance. Each concern of a world has its own, so that taking an entry out of
/// a script changes as little as possible of what else happens.
#[derive(Debug)]
pub struct Dice(StdRng);

impl Dice {
    /// The dice of one concern under one seed.
    #[must_use]
    pub fn new(seed: u64, concern: &str) -> Self {
        let mixed = concern.bytes().fold(seed ^ 0x9e37_79b9_7f4a_7c15, |mix, byte| {
            (mix ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3).rotate_left(29)
        });
        Self(StdRng::seed_from_u64(mixed))
    }

    /// A number below `bound`, which must not be 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0.random_range(0..bound)
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        self.0.random_range(low..=high)
    }

    /// Whether something happens that happens in so many of a hundred cases.
    pub fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    /// A duration from `low` to `high` milliseconds, to the microsecond.
    pub fn millis(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_micros(self.between(low * 1_000, high * 1_000))
    }

    /// One of several.
    ///
    /// # Panics
    /// When there are none.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }
}
