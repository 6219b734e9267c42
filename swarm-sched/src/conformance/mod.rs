//! The test suites of this crate's own traits, beside those of `swarm_core::conformance`. Whoever
//! implements a trait runs its suite from a test of their own; ours do.

pub mod strategy;
