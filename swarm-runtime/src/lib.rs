//! The agent and the executors of the swarm orchestrator.

pub mod agent;
pub mod docker;
pub mod memory;
#[cfg(target_os = "linux")]
pub mod process;

pub use agent::{Agent, AgentError};
pub use memory::MemoryExecutor;
#[cfg(target_os = "linux")]
pub use process::ProcessExecutor;
