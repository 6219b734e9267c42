//! Every manager-side decision of the swarm orchestrator, as pure functions.
//!
//! Three groups of [planners](swarm_core::control::Planner), in the order in which a controller
//! runs them. What one decides, the next sees within the same step.
//!
//! | module | what it decides |
//! |---|---|
//! | [`orchestrate`] | which tasks there shall be |
//! | [`allocate`] | their networks, addresses and ports: NEW → PENDING |
//! | [`place`] | their nodes: PENDING → ASSIGNED |
//!
//! What they would do about a specification that is not written yet, [`dry_run()`] says.
//! [`conformance`] has the suite for a placement strategy of one's own; with the feature `lab`, `lab`
//! compares it with others.

pub mod allocate;
pub mod conformance;
pub mod dry_run;
#[cfg(feature = "lab")]
pub mod lab;
pub mod orchestrate;
pub mod place;

use std::sync::Arc;

use swarm_core::control::Planner;
use swarm_core::network::NetworkDriver;
use swarm_core::scheduler::Scheduler;

pub use dry_run::dry_run;

/// Every planner of a manager in the order in which they run: orchestrate, allocate, place, preempt
/// (which does nothing unless the cluster asks for it). What an embedder adds comes after them.
#[must_use]
pub fn default_planners(
    drivers: impl IntoIterator<Item = Arc<dyn NetworkDriver>>,
    scheduler: Arc<dyn Scheduler>,
) -> Vec<Arc<dyn Planner>> {
    let allocate =
        drivers.into_iter().fold(allocate::Allocate::default(), allocate::Allocate::driver);
    let mut planners = orchestrate::planners(scheduler.counts());
    planners.push(Arc::new(allocate));
    planners.push(Arc::new(place::Place::new(scheduler.clone())));
    planners.push(Arc::new(place::Preempt::new(scheduler)));
    planners
}

#[cfg(test)]
mod cluster;
#[cfg(test)]
mod world;
