//! The test suites of the traits. Whoever implements a trait runs its suite from a test of their
//! own; ours do. A suite panics with a sentence that names the broken promise.

pub mod executor;
pub mod network;
pub mod planner;
pub mod scheduler;
pub mod secret;
pub mod store;
