//! The object model, the store, the control loop and the traits of the swarm orchestrator.
