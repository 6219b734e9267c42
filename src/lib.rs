//! Docker Swarm mode as a library: an embeddable container orchestrator.
//!
//! This crate is the assembly. It re-exports the parts and owns what is not swappable: identity,
//! the calls between nodes, the Docker Engine API, and the manager and worker builders.

pub mod error;
pub mod http;
pub mod identity;
pub mod manager;
pub mod node;
pub mod rpc;
pub mod worker;

pub use swarm_compose as compose;
pub use swarm_core as core;
pub use swarm_net as net;
pub use swarm_raft as raft;
pub use swarm_runtime as runtime;
pub use swarm_sched as sched;
