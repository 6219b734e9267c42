//! The agent and the executors of the swarm orchestrator.

pub mod docker;
