//! The core of the swarm orchestrator: the object model, the store, the control loop, and the
//! traits behind which everything else can be replaced.

pub mod id;
pub mod json;
pub mod model;
pub mod time;
