//! The agent and the executors of the swarm orchestrator.

pub mod agent;
pub mod docker;
pub mod memory;

pub use agent::{Agent, AgentError};
pub use memory::MemoryExecutor;
