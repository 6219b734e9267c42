//! Pure: what a workload draws from its seed.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng as _, SeedableRng as _};
use swarm_core::id::Id;

/// Random numbers of one seed, by xoshiro256++: the algorithm is named, so that a later version of
/// `rand` draws the same. (Logarithms and powers are the platform's: their last bit may differ
/// between platforms.)
pub struct Dice(Xoshiro256PlusPlus);

impl Dice {
    /// The draws of a seed for one purpose: each purpose has draws of its own, so that one more draw
    /// in one does not move the others.
    #[must_use]
    pub fn new(seed: u64, purpose: &str) -> Self {
        // FNV-1a.
        let start = 0xcbf2_9ce4_8422_2325 ^ seed;
        let fold = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        Self(Xoshiro256PlusPlus::seed_from_u64(purpose.bytes().fold(start, fold)))
    }

    /// A number from 0 up to, and without, 1.
    pub fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A whole number below `bound`, which must not be 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.0.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// Whether something of this probability happens.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// One of these, each as often as its weight says. There must be a weight above 0.
    pub fn pick<T: Copy>(&mut self, choices: &[(u64, T)]) -> T {
        let mut at = self.below(choices.iter().map(|(weight, _)| weight).sum());
        let chosen = choices.iter().find(|(weight, _)| {
            let found = at < *weight;
            at = at.saturating_sub(*weight);
            found
        });
        chosen.expect("a number below the sum of the weights falls into one of them").1
    }

    /// A waiting time without memory.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }

    /// A Pareto distribution cut off at both ends: P(X > x) falls as `x^-alpha`.
    pub fn pareto(&mut self, alpha: f64, low: f64, high: f64) -> f64 {
        let kept = 1.0 - (low / high).powf(alpha);
        low / (1.0 - self.unit() * kept).powf(1.0 / alpha)
    }

    /// A factor whose logarithm is normal around 0 with this deviation (Box and Muller).
    pub fn lognormal(&mut self, deviation: f64) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        (deviation * radius * (std::f64::consts::TAU * self.unit()).cos()).exp()
    }

    /// An object's id.
    pub fn id<T>(&mut self) -> Id<T> {
        let digit =
            |_| char::from(b"0123456789abcdefghijklmnopqrstuvwxyz"[self.below(36) as usize]);
        let text: String = (0..25).map(digit).collect();
        text.parse().expect("25 digits of base 36 are an id")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_and_a_purpose_fix_every_draw() {
        let draws = |seed, purpose| {
            let mut dice = Dice::new(seed, purpose);
            [dice.unit(), dice.exponential(3.0), dice.pareto(0.7, 1.0, 9.0), dice.lognormal(1.0)]
        };
        assert_eq!(draws(1, "a"), draws(1, "a"));
        assert_ne!(draws(1, "a"), draws(2, "a"));
        assert_ne!(draws(1, "a"), draws(1, "b"));
        // The algorithm is part of the promise.
        assert_eq!(Dice::new(1, "a").below(1_000_000), 439_636);
    }

    #[test]
    fn draws_keep_to_their_bounds_and_weights() {
        let mut dice = Dice::new(7, "bounds");
        let sizes: Vec<f64> = (0..10_000).map(|_| dice.pareto(0.69, 0.1, 200.0)).collect();
        assert!(sizes.iter().all(|size| (0.1..=200.0).contains(size)));
        // Half of them are below the median of the distribution, 0.27.
        let below = sizes.iter().filter(|size| **size < 0.272).count();
        assert!((4_800..5_200).contains(&below), "{below}");
        let rare = (0..10_000).filter(|_| dice.pick(&[(9, false), (1, true)])).count();
        assert!((900..1_100).contains(&rare), "{rare}");
    }
}
