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

pub mod allocate;
pub mod orchestrate;
pub mod place;

#[cfg(test)]
mod world;
