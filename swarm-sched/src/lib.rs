//! Every manager-side decision of the swarm orchestrator, as pure functions.

pub mod orchestrate;
pub mod place;
