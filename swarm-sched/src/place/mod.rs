//! PENDING → ASSIGNED: on which node a task runs.
//!
//! [`Place`] groups the tasks that wait for a node by service and version of its specification,
//! and asks a [`Scheduler`] for one answer per group. The default, [`SpreadScheduler`], is
//! Swarm's: filters, then placement preferences, then spread. Another [`Strategy`] behind the same
//! filters is a [`FilterScheduler`]; anything else implements the trait itself.

mod bits;
pub mod constraint;
pub mod explain;
pub mod filter;
mod group;
mod labels;
mod ladder;
pub mod load;
pub mod loads;
mod planner;
mod scheduler;
mod shape;
mod spread;
mod strategy;

pub use planner::Place;
pub use scheduler::{FilterScheduler, SpreadScheduler};
pub use spread::Spread;
pub use strategy::{Candidate, FAULTY_AFTER, Strategy};

#[cfg(doc)]
use swarm_core::scheduler::Scheduler;

#[cfg(test)]
mod law_tests;
#[cfg(test)]
mod naive_tests;
#[cfg(test)]
mod tests;
