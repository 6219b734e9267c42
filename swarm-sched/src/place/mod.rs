//! PENDING → ASSIGNED: on which node a task runs.
//!
//! [`Place`] groups the tasks that wait for a node by service and version of its specification,
//! and asks a [`Scheduler`] for one answer per group. The default, [`SpreadScheduler`], is
//! Swarm's: filters, then placement preferences, then spread. Another [`Strategy`] behind the same
//! filters is a [`FilterScheduler`]; several of which services choose are a [`StrategyScheduler`];
//! anything else implements the trait itself.
//!
//! How one answer comes about, and where: [`Demand`](filter::Demand) is what the tasks ask for,
//! [`Loads`](loads::Loads) what every node carries; `Group` walks the tree of placement
//! preferences, and at its leaves asks the strategy. What makes it fast is said in
//! [`loads`] (what is remembered) and in `group` (how the best node is found without a search).
//!
//! [`Preempt`] runs after it: where a cluster allows that, it stops tasks for others of higher
//! priority that found no node.

mod affinity;
mod bits;
mod check;
mod choose;
pub mod constraint;
pub mod explain;
pub(crate) mod failures;
pub mod filter;
mod future;
mod group;
mod journal;
mod labels;
mod ladder;
pub mod load;
pub mod loads;
mod planner;
mod preempt;
mod priority;
mod scheduler;
mod shape;
mod standings;
mod strategies;
mod strategy;
mod victims;

pub use affinity::{AFFINITY_LABEL, AffinityError};
pub use choose::{STRATEGY_LABEL, StrategyScheduler};
pub use group::TOPOLOGY_LABEL;
pub use planner::Place;
pub use preempt::{PREEMPTION_LABEL, Preempt};
pub use priority::PRIORITY_LABEL;
pub use scheduler::{FilterScheduler, SpreadScheduler};
pub use strategies::{BinPack, LeastLoaded, Random, Spread};
pub use strategy::{Candidate, FAULTY_AFTER, Strategy};
pub use swarm_core::scheduler::Overcommit;

#[cfg(doc)]
use swarm_core::scheduler::Scheduler;

#[cfg(test)]
mod choice_tests;
#[cfg(test)]
mod law_tests;
#[cfg(test)]
mod naive_tests;
#[cfg(test)]
mod preempt_tests;
#[cfg(test)]
mod room_tests;
#[cfg(test)]
mod swarmkit_tests;
#[cfg(test)]
mod tests;
